//! What is fuzzed, without a fuzzer: every kept input goes through its function, and a fixed number of changes
//! of each; and the programs under `fuzz/` are what `ebb_tests::fuzz` says they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use ebb_tests::{
    disk::medium::Random,
    fuzz::{Feed, TARGETS, Target},
};

/// Changed inputs of each target: some seconds in all.
const CHANGES: u64 = 1_000;
/// Bytes that say how an input is changed.
const CHANGE_BYTES: usize = 64;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the project").to_owned()
}

fn corpora() -> PathBuf {
    root().join("tests/fixtures/corpus")
}

/// The kept inputs of a target, by their names.
fn corpus(target: &Target) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(corpora().join(target.name)).expect("each target has a corpus");
    let paths = files.map(|file| file.expect("listed").path());
    paths.map(|path| (path.clone(), fs::read(path).expect("a kept input"))).collect()
}

/// Runs an input; one that fails is left in a file, to be kept.
fn run(target: &Target, bytes: &[u8], of: &str) {
    if catch_unwind(|| (target.run)(bytes)).is_err() {
        let left = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("crash-{}", target.name));
        fs::write(&left, bytes).expect("the build's folder takes a file");
        panic!("{} fails on {of}; the input is left in {}", target.name, left.display());
    }
}

#[test]
fn kept_inputs_hold() {
    for target in TARGETS {
        let corpus = corpus(target);
        assert!(corpus.len() > 1, "{} has nothing to begin with", target.name);
        corpus.iter().for_each(|(path, bytes)| run(target, bytes, &path.display().to_string()));
    }
}

#[test]
fn changes_of_kept_inputs_hold() {
    std::thread::scope(|scope| {
        for target in TARGETS {
            scope.spawn(|| {
                let kept: Vec<_> = corpus(target).into_values().collect();
                for number in 0..CHANGES {
                    let mut random = Random::new(number);
                    let mut bytes = kept[random.below(kept.len())].clone();
                    let change: Vec<u8> = (0..CHANGE_BYTES).map(|_| random.draw() as u8).collect();
                    Feed::new(&change).damage(&mut bytes);
                    run(target, &bytes, &format!("change {number}"));
                }
            });
        }
    });
}

#[test]
fn targets_programs_and_corpora_are_the_same() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let names = |folder: &Path| -> BTreeSet<String> {
        let files = fs::read_dir(folder).expect("a folder of the project");
        files.filter_map(|file| Some(file.ok()?.path().file_stem()?.to_str()?.to_owned())).collect()
    };
    assert_eq!(names(&corpora()), targets, "tests/fixtures/corpus");
    assert_eq!(names(&root().join("fuzz/targets")), targets, "fuzz/targets");
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).expect("the fuzzer's manifest");
    for name in &targets {
        let program = format!("[[bin]]\nname = \"{name}\"\npath = \"targets/{name}.rs\"\n");
        assert!(manifest.contains(&program), "fuzz/Cargo.toml lacks {name}");
        let source = fs::read_to_string(root().join(format!("fuzz/targets/{name}.rs"))).expect("a program");
        assert!(source.contains(&format!("ebb_tests::fuzz::{name}(bytes)")), "{name} runs something else");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), targets.len(), "fuzz/Cargo.toml has more");
}

/// The fuzzer's workspace has a lock file of its own: what it runs is to be what ships.
#[test]
fn the_fuzzer_is_built_of_the_same_versions() {
    let packages = |lock: &str| -> BTreeMap<String, BTreeSet<String>> {
        let text = fs::read_to_string(root().join(lock)).expect("a lock file");
        let mut packages = BTreeMap::<_, BTreeSet<_>>::new();
        for package in text.split("[[package]]\n").skip(1) {
            let field = |name: &str| package.lines().find_map(|line| line.strip_prefix(name));
            let name = field("name = ").expect("a package has a name").to_owned();
            packages.entry(name).or_default().insert(field("version = ").expect("and a version").to_owned());
        }
        packages
    };
    let (ours, fuzzers) = (packages("Cargo.lock"), packages("fuzz/Cargo.lock"));
    assert!(fuzzers.len() > 100, "too few packages: {}", fuzzers.len());
    let only: BTreeSet<&str> =
        fuzzers.keys().filter(|name| !ours.contains_key(*name)).map(|name| name.trim_matches('"')).collect();
    assert_eq!(only, BTreeSet::from(["arbitrary", "ebb-fuzz", "libfuzzer-sys"]), "only the fuzzer has these");
    for (name, versions) in fuzzers.iter().filter(|(name, _)| ours.contains_key(*name)) {
        assert!(versions.is_subset(&ours[name]), "{name}: {versions:?} instead of {:?}", ours[name]);
    }
    // And nothing that came since is missing: with `--locked`, the fuzzer would not build.
    for member in ["protocol", "core", "sync-server", "tests"] {
        let manifest = fs::read_to_string(root().join(member).join("Cargo.toml")).expect("a manifest");
        let named = manifest.split("[dependencies]\n").nth(1).expect("it has dependencies");
        for line in named.lines().take_while(|line| !line.starts_with('[')) {
            let Some((name, _)) = line.split_once(".workspace") else { continue };
            assert!(
                fuzzers.contains_key(&format!("\"{name}\"")),
                "fuzz/Cargo.lock lacks {name}, of {member}"
            );
        }
    }
}
