//! Tidiness: what reviewers would otherwise have to remember. Each rule is a function from the project's
//! files to what is wrong with them; the last tests show that each of them can fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use aws_lc_rs::digest;
use cargo_metadata::{DependencyKind, MetadataCommand};

// ---------------------------------------------------------------------------------------------- the tables

/// Who must not name whom in its `Cargo.toml`, tests aside: the arrows of ARCHITECTURE.md.
const NEVER_NAMES: &[(&str, &[&str])] = &[
    (
        "ebb-protocol",
        &["ebb-core", "ebb-sync-server", "tokio", "quinn", "rustls", "rusqlite", "automerge", "rand"],
    ),
    ("ebb-core", &["ebb-sync-server", "uniffi", "axum"]),
    ("ebb-sync-server", &["ebb-core", "automerge", "ciborium", "uniffi"]),
    (
        "ebb-bindings",
        &["ebb-protocol", "ebb-sync-server", "automerge", "rusqlite", "aws-lc-rs", "quinn", "rustls"],
    ),
    ("ebb-demo", &["ebb-tests", "ebb-bindings", "automerge", "aws-lc-rs", "quinn", "rustls"]),
];

/// What must not be anywhere below a package, through whatever it depends on (tests aside).
const NEVER_BELOW: &[(&str, &[&str])] = &[
    ("ebb-protocol", &["tokio", "mio", "quinn", "rustls", "rusqlite", "automerge", "rand", "getrandom"]),
    ("ebb-sync-server", &["ebb-core", "automerge", "ciborium"]),
    ("ebb-core", &["uniffi", "axum", "clap"]),
    ("ebb-bindings", &["ebb-sync-server"]),
];

/// Words that may stand only where their owner lives.
const OWNED_WORDS: &[Owned] = &[
    Owned {
        words: &["aws_lc_rs"],
        within: "protocol/src/",
        only_in: &["protocol/src/verify.rs"],
        why: "hashes and signature checks are one file's",
    },
    Owned {
        words: &["aws_lc_rs"],
        within: "sync-server/src/",
        only_in: &["sync-server/src/signing.rs"],
        why: "the server signs its heads and does nothing else with keys",
    },
    Owned {
        words: &["aead", "hpke", "agreement", "hkdf", "rand"],
        within: "protocol/src/",
        only_in: &[],
        why: "protocol neither decrypts nor makes anything up",
    },
    Owned {
        words: &["aead", "hpke", "agreement", "hkdf", "rand"],
        within: "sync-server/src/",
        only_in: &[],
        why: "the server is content-blind",
    },
    Owned {
        words: &["aead", "hpke", "agreement", "hkdf"],
        within: "core/src/",
        only_in: &["core/src/seal.rs", "core/src/seal/", "core/src/keys.rs", "core/src/keys/"],
        why: "ciphers are seal's and keys'",
    },
    Owned {
        words: &["automerge"],
        within: "core/src/",
        only_in: &["core/src/document.rs", "core/src/document/"],
        why: "only document knows what a document is made of",
    },
    Owned {
        words: &["rusqlite"],
        within: "core/src/",
        only_in: &["core/src/store.rs", "core/src/store/"],
        why: "only store knows SQLite",
    },
    Owned {
        words: &["rusqlite"],
        within: "sync-server/src/",
        only_in: &["sync-server/src/log/sqlite.rs", "sync-server/src/log/sqlite/"],
        why: "a log's backend is one file",
    },
    Owned {
        words: &["rusqlite"],
        within: "demo/src/",
        only_in: &["demo/src/tamper.rs"],
        why: "the demo opens a database only to spoil it",
    },
    Owned {
        words: &["quinn"],
        within: "core/src/",
        only_in: &["core/src/link.rs", "core/src/link/"],
        why: "only link knows the network",
    },
    Owned {
        words: &["tokio"],
        within: "core/src/",
        only_in: &["core/src/link.rs", "core/src/link/", "core/src/replica/watch.rs"],
        why: "the replica runs without a runtime, so that the simulator can drive it",
    },
    Owned {
        words: &["unsafe"],
        within: "",
        only_in: &["tests/src/disk.rs"],
        why: "only a SQLite VFS needs it",
    },
    Owned {
        words: &["unsafe_code"],
        within: "",
        only_in: &["tests/src/disk.rs", "bindings/src/lib.rs"],
        why: "the lint is lifted for the VFS and for UniFFI's scaffolding alone",
    },
];

/// SQL, and the files that may hold it besides `.sql` ones.
const SQL: &[&str] =
    &["SELECT ", "INSERT INTO ", "INSERT OR ", "UPDATE ", "DELETE FROM ", "CREATE TABLE ", "PRAGMA "];
const SQL_IN: &[&str] = &[
    "core/src/store.rs",
    "core/src/store/",
    "sync-server/src/log/sqlite.rs",
    "sync-server/src/log/sqlite/",
    "demo/src/tamper.rs",
    "tests/",
];

/// Rooms of core that never import one another: each owns one outside thing.
const ROOMS_APART: &[&str] = &["document", "seal", "store", "link"];

/// The only places that wait for a time, and why no event would do.
const SLEEPS: &[(&str, &str)] = &[
    ("core/src/link.rs", "the next address gets its try when the one before has not answered yet"),
    ("core/src/replica/watch.rs", "the engine's deadline, beside every event that could come first"),
    ("core/src/link/tests.rs", "a portal that holds the line, longer than the link may wait for it"),
    ("demo/src/ward.rs", "the clinic's staff look again whether a patient's grant has come"),
    ("sync-server/src/connection.rs", "the session's deadline, beside the device's next frame"),
    (
        "sync-server/src/listen.rs",
        "accept() fails while file handles run out, and nothing tells when they are back",
    ),
    ("sync-server/src/tests.rs", "a desk on a slow line takes its time, by the test's own clock"),
    ("tests/benches/kit.rs", "Linux brings a thread's CPU time up to date when it stops running"),
    ("tests/src/disk.rs", "one of the calls that SQLite makes on its VFS"),
    ("tests/src/proxy.rs", "a slow path is slow: that is what it is for"),
];

/// The only queues that no channel bounds, and what bounds them instead.
const UNBOUNDED: &[(&str, &str)] = &[
    ("core/src/replica/watch.rs", "commands are the app's own calls, few and carried out at once"),
    (
        "sync-server/src/worker.rs",
        "OFFERED_BYTES_MAX for what is offered; a connection has one ask at a time",
    ),
];

/// What may not be left in a file, in pieces, so that this file does not hold them.
const LEFTOVERS: &[(&[&str], &str)] = &[
    (&["todo", "!("], "finish it or open an issue"),
    (&["unimplemented", "!("], "finish it or open an issue"),
    (&["FIX", "ME"], "fix it or open an issue"),
    (&["XX", "X "], "say it in words"),
];

/// What only means something on the machine where it was written.
const MACHINE: &[&[&str]] =
    &[&["/", "work/"], &["/", "root/"], &["shared/", "design"], &["shared/", "reference"]];

const LINES_MAX: usize = 1_000;

struct Owned {
    words: &'static [&'static str],
    /// The folder that the rule binds; empty is everything.
    within: &'static str,
    /// Files, and folders with a slash at the end.
    only_in: &'static [&'static str],
    why: &'static str,
}

// ----------------------------------------------------------------------------------------------- the rules

fn owned_words(tree: &Tree) -> Findings {
    let mut found = Vec::new();
    for rule in OWNED_WORDS {
        for (path, text) in tree.rust().filter(|(path, _)| path.starts_with(rule.within)) {
            if is_in(path, rule.only_in) {
                continue;
            }
            for (number, line) in code_lines(text) {
                for word in rule.words.iter().filter(|word| has_word(line, word)) {
                    found.push(format!("{path}:{number}: `{word}`: {}", rule.why));
                }
            }
        }
    }
    found
}

fn sql_has_its_place(tree: &Tree) -> Findings {
    let elsewhere = tree.rust().filter(|(path, _)| !is_in(path, SQL_IN));
    let mut found = Vec::new();
    for (path, text) in elsewhere {
        for (number, line) in code_lines(text) {
            if SQL.iter().any(|verb| line.contains(&format!("\"{verb}"))) {
                found.push(format!("{path}:{number}: SQL belongs to store and to the server's SQLite log"));
            }
        }
    }
    found
}

fn rooms_do_not_import_one_another(tree: &Tree) -> Findings {
    let mut found = Vec::new();
    for room in ROOMS_APART {
        let (file, folder) = (format!("core/src/{room}.rs"), format!("core/src/{room}/"));
        for (path, text) in tree.rust().filter(|(path, _)| *path == file || path.starts_with(&folder)) {
            // Tests may make what the room itself is only handed.
            let shipped = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
            let named = crate_modules(shipped);
            for other in ROOMS_APART.iter().filter(|other| *other != room && named.contains(**other)) {
                found
                    .push(format!("{path}: {room} imports {other}; replica is the only one that knows both"));
            }
        }
    }
    found
}

fn sleeps_have_reasons(tree: &Tree) -> Findings {
    let mut found = Vec::new();
    for (path, text) in tree.rust().filter(|(path, _)| SLEEPS.iter().all(|(allowed, _)| allowed != path)) {
        for (number, line) in code_lines(text) {
            if ["sleep", "sleep_until", "park_timeout"].iter().any(|word| has_word(line, word)) {
                found.push(format!(
                    "{path}:{number}: waits for a time; wait for the event, or give the reason in SLEEPS"
                ));
            }
        }
    }
    for (path, _) in SLEEPS {
        if tree.text(path).is_some_and(|text| !text.contains("sleep")) {
            found.push(format!("tests/tidy.rs: {path} sleeps no more; take it from SLEEPS"));
        }
    }
    found
}

fn queues_have_limits(tree: &Tree) -> Findings {
    let bound = |path: &str| {
        let product = path.starts_with("core/src/") || path.starts_with("sync-server/src/");
        product && !path.ends_with("/tests.rs") && UNBOUNDED.iter().all(|(allowed, _)| *allowed != path)
    };
    let mut found = Vec::new();
    for (path, text) in tree.rust().filter(|(path, _)| bound(path)) {
        // A oneshot holds one thing.
        let queue = |line: &str| line.contains("channel()") && !line.contains("oneshot::channel()");
        for (number, _) in code_lines(text).filter(|(_, line)| queue(line)) {
            found.push(format!(
                "{path}:{number}: a queue without a limit; bound it, or say in UNBOUNDED what does"
            ));
        }
    }
    found
}

fn files_have_a_size(tree: &Tree) -> Findings {
    tree.rust()
        .filter_map(|(path, text)| {
            let lines = text.lines().count();
            (lines > LINES_MAX).then(|| format!("{path}: {lines} lines; {LINES_MAX} is the ceiling"))
        })
        .collect()
}

fn every_file_is_named_once(tree: &Tree) -> Findings {
    let mut found = Vec::new();
    for (path, _) in tree.rust() {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name == "mod.rs" {
            found.push(format!(
                "{path}: a module `x` lives in `x.rs`, so that tabs and searches tell files apart"
            ));
        }
        let stem = name.trim_end_matches(".rs");
        if !folder.contains("/src") || ["lib", "main", "mod"].contains(&stem) {
            continue;
        }
        let parents = [format!("{folder}.rs"), format!("{folder}/lib.rs"), format!("{folder}/main.rs")];
        let declared = parents
            .iter()
            .filter_map(|parent| tree.text(parent))
            .any(|text| code_lines(text).any(|(_, line)| line.contains(&format!("mod {stem};"))));
        if !declared {
            found.push(format!("{path}: no module declares it, so nothing compiles it"));
        }
    }
    found
}

fn nothing_is_left_over(tree: &Tree) -> Findings {
    let mut found = Vec::new();
    for (path, text) in tree.rust() {
        for (number, line) in text.lines().enumerate() {
            for (pieces, instead) in LEFTOVERS {
                if line.contains(&pieces.concat()) {
                    found.push(format!("{path}:{}: `{}`: {instead}", number + 1, pieces.concat()));
                }
            }
        }
    }
    found
}

fn files_name_no_machine(tree: &Tree) -> Findings {
    let mut found = Vec::new();
    for (path, text) in tree.files.iter().filter(|(path, _)| !path.starts_with("tests/data/")) {
        for (number, line) in text.lines().enumerate() {
            for pieces in MACHINE {
                if line.contains(&pieces.concat()) {
                    found.push(format!("{path}:{}: `{}` is not in a clone", number + 1, pieces.concat()));
                }
            }
        }
    }
    found
}

/// Paths that the documents name, as `code` or as links, exist.
fn documents_name_what_exists(tree: &Tree) -> Findings {
    let mut found = Vec::new();
    for needed in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"] {
        if tree.text(needed).is_none() {
            found.push(format!("{needed}: is missing"));
        }
    }
    for (path, text) in
        tree.files.iter().filter(|(path, _)| path.ends_with(".md") && !path.starts_with("tests/"))
    {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (number, line) in text.lines().enumerate() {
            for named in code_spans(line).filter(|span| tree.looks_like_a_path(span)) {
                if !tree.has(named) {
                    found.push(format!("{path}:{}: `{named}` does not exist", number + 1));
                }
            }
            for link in links(line).filter(|link| !link.contains(':') && !link.starts_with('#')) {
                let target = link.split('#').next().unwrap_or_default();
                if !tree.has(&join(folder, target)) {
                    found.push(format!("{path}:{}: the link to {target} leads nowhere", number + 1));
                }
            }
        }
    }
    found
}

fn the_book_lists_its_pages(tree: &Tree) -> Findings {
    let summary = tree.text("docs/src/SUMMARY.md").unwrap_or_default();
    let pages = tree.files.keys().filter_map(|path| path.strip_prefix("docs/src/"));
    pages
        .filter(|page| {
            page.ends_with(".md") && *page != "SUMMARY.md" && !summary.contains(&format!("({page})"))
        })
        .map(|page| format!("docs/src/{page}: docs/src/SUMMARY.md does not list it"))
        .collect()
}

/// Who changes the wire file reads the wire document: it carries the file's hash.
fn the_wire_document_follows_the_wire(tree: &Tree) -> Findings {
    let (wire, page) = ("protocol/src/wire.rs", "docs/src/protocol.md");
    let (Some(source), Some(document)) = (tree.text(wire), tree.text(page)) else {
        return vec![format!("{page}: it or {wire} is missing")];
    };
    let hash = digest::digest(&digest::SHA256, source.as_bytes());
    let hash: String = hash.as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let held = document.lines().any(|line| line.trim() == format!("wire.rs: sha256 {hash}"));
    if held {
        return Vec::new();
    }
    vec![format!(
        "{page}: {wire} has changed. See that the page still says what it does, then write `wire.rs: sha256 {hash}`"
    )]
}

fn readme_shows_the_two_commands(tree: &Tree) -> Findings {
    let screen: Vec<&str> = tree.text("README.md").unwrap_or_default().lines().take(40).collect();
    ["cargo run -p ebb-demo", "cargo test --workspace"]
        .iter()
        .filter(|command| !screen.iter().any(|line| line.contains(**command)))
        .map(|command| format!("README.md: `{command}` is not in its first 40 lines"))
        .collect()
}

/// Versions, features and lints live in the root. (The fuzzer is a workspace of its own and has nobody to
/// inherit from; tests/fuzz.rs compares its versions with the root's.)
fn manifests_inherit(tree: &Tree) -> Findings {
    let mut found = Vec::new();
    let members = tree.files.iter().filter(|(path, _)| path.ends_with("/Cargo.toml"));
    for (path, text) in members.filter(|(path, _)| *path != "fuzz/Cargo.toml") {
        if !text.contains("[lints]\nworkspace = true") {
            found.push(format!("{path}: does not take the workspace's lints"));
        }
        let mut dependencies = false;
        for (number, line) in text.lines().enumerate() {
            if line.starts_with('[') {
                dependencies = line.ends_with("dependencies]");
            } else if dependencies
                && line.contains('=')
                && !line.starts_with('#')
                && !line.contains("workspace = true")
            {
                found.push(format!("{path}:{}: versions live in the root's Cargo.toml", number + 1));
            }
        }
    }
    found
}

/// Clippy reads the nearest file alone, so protocol's repeats the root's bans (of crates that it has).
fn clippy_bans_are_repeated(tree: &Tree) -> Findings {
    let bans = |path: &str| -> BTreeSet<String> {
        let text = tree.text(path).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.trim().strip_prefix("{ path = \"std::"));
        lines.filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
    };
    let (root, strict) = (bans("clippy.toml"), bans("protocol/clippy.toml"));
    root.difference(&strict)
        .map(|ban| format!("protocol/clippy.toml: lacks the root's ban of std::{ban}"))
        .collect()
}

fn directions(direct: &BTreeMap<String, BTreeSet<String>>) -> Findings {
    let mut found = Vec::new();
    for (package, forbidden) in NEVER_NAMES {
        let Some(names) = direct.get(*package) else {
            found.push(format!("tests/tidy.rs: there is no package {package}"));
            continue;
        };
        for other in forbidden.iter().filter(|other| names.contains(**other)) {
            found.push(format!("{package} must never name {other}"));
        }
    }
    found
}

fn nothing_below(package: &str, forbidden: &[&str], below: &BTreeSet<String>) -> Findings {
    if below.len() < 2 {
        return vec![format!("cargo tree told nothing of {package}")];
    }
    let bad = forbidden.iter().filter(|other| below.contains(**other));
    bad.map(|other| format!("{package} must not stand on {other}: cargo tree -p {package} -i {other}"))
        .collect()
}

/// Crates that two selections of packages would build with different features, hence twice.
///
/// `cargo tree` shows a package once where it is built with the same features for the host and for the
/// target, and then hides that what stands below it differs. So this sees most cases, early and by name;
/// the step `once` of `.ci/run` sees all.
fn built_twice(
    first: &BTreeMap<String, BTreeSet<String>>,
    second: &BTreeMap<String, BTreeSet<String>>,
) -> Findings {
    let mut found = Vec::new();
    for (package, features) in first {
        for more in second.get(package).into_iter().flatten().filter(|variant| !features.contains(*variant)) {
            found.push(format!(
                "{package}: `cargo test --workspace` builds it with [{more}], `cargo run -p ebb-demo` with {features:?}; \
                 see the end of demo/Cargo.toml"
            ));
        }
    }
    found
}

// ----------------------------------------------------------------------------------------------- the tests

#[test]
fn the_files_are_tidy() {
    let tree = Tree::read();
    assert!(tree.files.len() > 40, "too few files to be the project: {}", tree.files.len());
    let found: Findings = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    report(&found);
}

#[test]
fn dependencies_point_inwards() {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .expect("cargo metadata reads the manifests");
    let direct = metadata.packages.iter().map(|package| {
        let names = package.dependencies.iter().filter(|one| one.kind != DependencyKind::Development);
        (package.name.to_string(), names.map(|one| one.name.clone()).collect())
    });
    report(&directions(&direct.collect()));
}

#[test]
fn trees_stay_apart() {
    let mut found = Vec::new();
    for (package, forbidden) in NEVER_BELOW {
        let below = cargo_tree(&["-p", package, "-e", "normal,build"]).into_keys();
        let below = below.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect();
        found.extend(nothing_below(package, forbidden, &below));
    }
    report(&found);
}

#[test]
fn one_build_serves_demo_and_tests() {
    let demo = cargo_tree(&["-p", "ebb-demo", "-e", "normal"]);
    let tests = cargo_tree(&["--workspace", "-e", "normal,build,dev"]);
    assert!(demo.len() > 100 && tests.len() > demo.len(), "{} and {}", demo.len(), tests.len());
    report(&built_twice(&demo, &tests));
}

#[test]
fn every_rule_can_fail() {
    let long = "//\n".repeat(LINES_MAX + 1);
    let leftover = format!("fn f() {{ {}) }}", LEFTOVERS[0].0.concat());
    let machine = format!("see {}main", MACHINE[0].concat());
    let cases: &[(Rule, &str, &str)] = &[
        (owned_words, "protocol/src/wire.rs", "use aws_lc_rs::digest;"),
        (owned_words, "protocol/src/verify.rs", "use aws_lc_rs::{digest, rand};"),
        (owned_words, "sync-server/src/hub.rs", "let key = aead::LessSafeKey::new(key);"),
        (owned_words, "core/src/replica.rs", "fn f(change: automerge::Change) {}"),
        (owned_words, "core/src/seal.rs", "use rusqlite::Connection;"),
        (owned_words, "core/src/replica/sync.rs", "tokio::spawn(work);"),
        (owned_words, "demo/src/main.rs", "unsafe { go() }"),
        (owned_words, "core/src/lib.rs", "#![allow(unsafe_code)]"),
        (sql_has_its_place, "core/src/replica.rs", "db.execute(\"DELETE FROM outbox\")"),
        (
            rooms_do_not_import_one_another,
            "core/src/seal.rs",
            "use crate::{\n error::Error,\n store::{self, Tx},\n};",
        ),
        (rooms_do_not_import_one_another, "core/src/document/gate.rs", "let k = crate::seal::open(b);"),
        (sleeps_have_reasons, "sync-server/src/hub.rs", "std::thread::sleep(wait);"),
        (sleeps_have_reasons, "core/src/link.rs", "fn f() {}"),
        (queues_have_limits, "core/src/link.rs", "let (tell, told) = mpsc::unbounded_channel();"),
        (files_have_a_size, "core/src/link.rs", &long),
        (every_file_is_named_once, "core/src/link/mod.rs", ""),
        (every_file_is_named_once, "core/src/lost.rs", ""),
        (nothing_is_left_over, "core/src/link.rs", &leftover),
        (files_name_no_machine, "docs/src/trust.md", &machine),
        (documents_name_what_exists, "ARCHITECTURE.md", "as `core/src/gone.rs` says"),
        (documents_name_what_exists, "docs/src/trust.md", "see [this](gone.md#part)"),
        (the_book_lists_its_pages, "docs/src/secret.md", ""),
        (the_wire_document_follows_the_wire, "docs/src/protocol.md", "wire.rs: sha256 00"),
        (readme_shows_the_two_commands, "README.md", "cargo run -p ebb-demo"),
        (manifests_inherit, "core/Cargo.toml", "[lints]\nworkspace = true\n[dependencies]\nserde = \"1\"\n"),
        (manifests_inherit, "core/Cargo.toml", "[dependencies]\nserde.workspace = true\n"),
        (clippy_bans_are_repeated, "clippy.toml", "{ path = \"std::thread::sleep\", reason = \"\" },"),
    ];
    let good = [
        ("README.md", "cargo run -p ebb-demo\ncargo test --workspace\n"),
        (
            "ARCHITECTURE.md",
            "`core/src/lib.rs`, see [trust](docs/src/trust.md) and https://example.org/a/b.rs",
        ),
        ("CONTRIBUTING.md", ""),
        ("SECURITY.md", ""),
        ("CHANGELOG.md", ""),
        ("docs/src/SUMMARY.md", "- [Trust](trust.md)\n- [Protocol](protocol.md)"),
        ("docs/src/trust.md", ""),
        (
            "docs/src/protocol.md",
            "wire.rs: sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
        ("core/Cargo.toml", "[lints]\nworkspace = true\n[dependencies]\nserde.workspace = true\n"),
        ("core/src/lib.rs", "//! unsafe aead\nmod link;\npub mod document;\nmod seal;\nmod replica;"),
        ("core/src/link.rs", "sleep(race).await;"),
        ("core/src/document.rs", "use automerge::Change;\nmod gate;"),
        ("core/src/document/gate.rs", "use crate::document::Document;"),
        ("core/src/seal.rs", "use aws_lc_rs::aead;\nuse crate::{error::Error, keys};"),
        ("core/src/replica.rs", "use crate::{store, seal};\nmod sync;"),
        ("core/src/replica/sync.rs", ""),
        ("protocol/src/lib.rs", "mod wire;\nmod verify;"),
        ("protocol/src/wire.rs", ""),
        ("protocol/src/verify.rs", "use aws_lc_rs::digest; // not rand"),
        ("sync-server/src/lib.rs", "mod hub;"),
        ("sync-server/src/hub.rs", "let operand = brand(heading);"),
        ("demo/src/main.rs", ""),
    ];
    let tree = |change: Option<(&str, &str)>| Tree {
        files: good
            .into_iter()
            .chain(change)
            .map(|(path, text)| (path.to_owned(), text.to_owned()))
            .collect(),
    };
    for rule in RULES {
        assert_eq!(rule(&tree(None)), Findings::new(), "a tidy project passes");
    }
    for (rule, path, text) in cases {
        assert!(!rule(&tree(Some((path, text)))).is_empty(), "a rule overlooks {path} with {text:?}");
    }
}

#[test]
fn the_rules_of_dependencies_can_fail() {
    let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<String>>();
    let mut direct: BTreeMap<_, _> =
        NEVER_NAMES.iter().map(|(package, _)| ((*package).to_owned(), set(&["serde"]))).collect();
    assert_eq!(directions(&direct), Findings::new());
    direct.insert("ebb-sync-server".to_owned(), set(&["ebb-protocol", "ebb-core"]));
    assert_eq!(directions(&direct), ["ebb-sync-server must never name ebb-core"]);

    assert_eq!(nothing_below("ebb-x", &["automerge"], &set(&["ebb-x", "serde"])), Findings::new());
    assert_eq!(nothing_below("ebb-x", &["automerge"], &set(&["ebb-x", "automerge"])).len(), 1);
    assert_eq!(nothing_below("ebb-x", &["automerge"], &set(&[])).len(), 1, "silence is no proof");

    let resolved = |features| BTreeMap::from([("serde v1".to_owned(), set(features))]);
    assert_eq!(built_twice(&resolved(&["std"]), &resolved(&["std"])), Findings::new());
    assert_eq!(built_twice(&resolved(&["std"]), &resolved(&["std", "alloc,std"])).len(), 1);
}

// ----------------------------------------------------------------------------------------------- the means

type Findings = Vec<String>;
type Rule = fn(&Tree) -> Findings;

const RULES: &[Rule] = &[
    owned_words,
    sql_has_its_place,
    rooms_do_not_import_one_another,
    sleeps_have_reasons,
    queues_have_limits,
    files_have_a_size,
    every_file_is_named_once,
    nothing_is_left_over,
    files_name_no_machine,
    documents_name_what_exists,
    the_book_lists_its_pages,
    the_wire_document_follows_the_wire,
    readme_shows_the_two_commands,
    manifests_inherit,
    clippy_bans_are_repeated,
];

/// The project's text files by their path from the root; others stand there with an empty text.
struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// What git tracks or would track; where there is no git, every file outside `target` and hidden folders.
    fn read() -> Self {
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root())
            .output();
        let paths = match listed {
            Ok(output) if output.status.success() && !output.stdout.is_empty() => {
                String::from_utf8_lossy(&output.stdout).split_terminator('\0').map(str::to_owned).collect()
            }
            _ => walk(&root(), ""),
        };
        let paths = paths.into_iter().filter(|path| root().join(path).is_file());
        let files = paths.map(|path| {
            let text = std::fs::read(root().join(&path)).expect("a listed file can be read");
            (path, String::from_utf8(text).unwrap_or_default())
        });
        Self { files: files.collect() }
    }

    fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        let rust = self.files.iter().filter(|(path, _)| path.ends_with(".rs"));
        rust.map(|(path, text)| (path.as_str(), text.as_str()))
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Whether it is a file or a folder with files.
    fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let folder = format!("{path}/");
        self.files.contains_key(path) || self.files.keys().any(|file| file.starts_with(&folder))
    }

    /// Whether a word in a document means a file: it begins with one of our folders and holds no pattern.
    fn looks_like_a_path(&self, word: &str) -> bool {
        let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
        plain && word.split_once('/').is_some_and(|(first, rest)| !rest.starts_with('/') && self.has(first))
    }
}

fn report(found: &[String]) {
    assert!(found.is_empty(), "{} untidy:\n{}\n", found.len(), found.join("\n"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the project").to_owned()
}

fn walk(folder: &Path, prefix: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the project's folders can be read").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !entry.path().is_dir() {
            paths.push(format!("{prefix}{name}"));
        } else if name != "target" && name != ".git" {
            paths.extend(walk(&entry.path(), &format!("{prefix}{name}/")));
        }
    }
    paths
}

/// The packages of a selection ("name v1.2.3"), each with the sets of features it is built with: one, or two
/// where what runs at build time asks for others. Offline, and builds nothing.
fn cargo_tree(selection: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--prefix", "none", "--no-dedupe", "-f", "{p}|{f}"])
        .args(selection)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree {selection:?}: {told}");
    let mut packages = BTreeMap::<String, BTreeSet<String>>::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some((package, features)) = line.split_once('|') {
            let name: Vec<&str> = package.split(' ').take(2).collect();
            packages.entry(name.join(" ")).or_default().insert(features.to_owned());
        }
    }
    packages
}

fn is_in(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path == *place || (place.ends_with('/') && path.starts_with(place)))
}

/// The lines of a Rust file that are not comments, without what follows `//`, by their numbers.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    lines.map(|(number, line)| (number + 1, line.split(" // ").next().unwrap_or(line)))
}

fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        let quotes = before.matches('"').count() - before.matches("\\\"").count();
        let quoted = quotes % 2 == 1;
        !quoted && !before.ends_with(part) && !after.starts_with(part)
    })
}

/// The modules of its own crate that a file names: `crate::x::…` and `use crate::{x, y::z}`.
fn crate_modules(text: &str) -> BTreeSet<String> {
    let code: String = code_lines(text).flat_map(|(_, line)| [line, "\n"]).collect();
    let mut modules = BTreeSet::new();
    for (at, before) in code.match_indices("crate::") {
        let rest = &code[at + before.len()..];
        let mut depth = 0_usize;
        let mut word = String::new();
        for c in rest.chars() {
            if c.is_alphanumeric() || c == '_' {
                word.push(c);
                continue;
            }
            // In `{a, b::{c}}` the modules are the words at depth one that begin an item.
            if depth <= 1 && !word.is_empty() {
                modules.insert(std::mem::take(&mut word));
            }
            word.clear();
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    modules
}

fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next())
}

/// `docs/src` and `../../README.md` give `README.md`.
fn join(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}
