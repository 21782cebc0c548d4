//! Worlds from seeds: as many as asked, each lived through, and what fails cut down to what it needs.
//!
//! ```text
//! cargo test --workspace --test sim                      a thousand seeds
//! cargo test --workspace --test sim -- --seeds 100000    as many as you like
//! cargo test --workspace --test sim -- --seed 42         one, with everything that happened
//! cargo test --workspace --test sim -- --seed 42 --shrink     and only what its fault needs
//! cargo test --workspace --test sim -- --scenario FILE   one that was kept
//! ```

use std::{
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use ebb_tests::{
    scenario::{Scenario, Step},
    ward,
    world::{Fault, Outcome, Tally, World},
};

/// Seeds in the test command.
const SEEDS: u64 = 1_000;
/// Every so many seeds one is run twice, to see that both runs are the same.
const TWICE_EVERY: u64 = 50;
/// What a thousand seeds must have met, or they showed nothing.
const MET: &[(&str, u64)] = &[
    ("events", 30_000),
    ("records", 10_000),
    ("changes looked at", 10_000),
    ("edits", 2_000),
    ("conflicts", 50),
    ("connections", 3_000),
    ("cuts", 300),
    ("half-open", 200),
    ("late", 100),
    ("twice", 50),
    ("device crashes", 1_000),
    ("server crashes", 500),
    ("failing syncs", 100),
    ("failing reads", 100),
    ("disk faults", 500),
    ("full disks", 100),
    ("slow disks", 100),
    ("spaces that fail alone", 50),
    ("restores", 100),
    ("restorations noticed", 100),
    ("refills", 500),
    ("devices put back", 100),
    ("set aside", 100),
    ("moments in the background", 200),
    ("choices", 15),
    ("networks", 500),
    ("links over TCP", 300),
    ("strangled", 100),
    ("retractions taken back", 10),
    ("logs begun anew", 50),
    ("clock jumps", 200),
    ("upgrades", 50),
    ("grants", 300),
    ("rotations", 300),
    ("refusals", 100),
    ("days shown", 1_000),
    ("plans written", 30),
    ("alerts standing", 1_000),
];

fn main() {
    let arguments = Arguments::read();
    if arguments.lists {
        return say("sim: test");
    }
    if !arguments.words.iter().all(|word| "sim".contains(word.as_str())) {
        return say("\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out\n");
    }
    // A defect inside is a finding and told below, once.
    std::panic::set_hook(Box::new(|_| {}));
    let fine = match (&arguments.scenario, arguments.seed) {
        (Some(file), _) => one(&kept(file)),
        (None, Some(seed)) if arguments.shrinks => one(&shrink_and_tell(seed)),
        (None, Some(seed)) => one(&Scenario::new(seed)),
        (None, None) => {
            ward::show_logs();
            keeps_hold() & many(arguments.from, arguments.seeds) & logged_no_error()
        }
    };
    let verdict = if fine { "ok. 1 passed; 0 failed" } else { "FAILED. 0 passed; 1 failed" };
    say(&format!("\ntest result: {verdict}; 0 ignored; 0 measured; 0 filtered out\n"));
    if !fine {
        std::process::exit(1);
    }
}

/// Runs one with everything it has to tell.
fn one(scenario: &Scenario) -> bool {
    // What devices and server have to say for developers stands between the lines of the world.
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "off".into());
    tracing_subscriber::fmt().with_env_filter(filter).without_time().init();
    let outcome = World::run(scenario, true);
    outcome.trace.lines().iter().for_each(|line| say(line));
    match &outcome.fault {
        None => say(&format!("no fault; trace {:016x}", outcome.trace.hash())),
        Some(Fault(why)) => say(&format!("FAULT: {why}")),
    }
    outcome.fault.is_none()
}

/// The shortest scenarios of faults that were found once: none comes back.
fn keeps_hold() -> bool {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/scenarios");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().filter_map(|file| Some(file.ok()?.path())).collect();
    files.sort();
    let mut fine = true;
    for file in &files {
        if let Some(Fault(why)) = faulty(&kept(file)) {
            say(&format!("test {} ... FAILED: {why}", file.display()));
            fine = false;
        }
    }
    say(&format!("{} kept scenarios lived through", files.len()));
    fine && !files.is_empty()
}

/// What is logged as an error is a defect, whatever else holds.
fn logged_no_error() -> bool {
    let errors = ward::errors();
    errors.iter().for_each(|error| say(&format!("test sim ... FAILED: logged as an error: {error}")));
    errors.is_empty()
}

fn kept(file: &Path) -> Scenario {
    let text = std::fs::read_to_string(file).expect("a kept scenario");
    serde_json::from_str(&text).expect("a scenario as this version writes it")
}

fn many(from: u64, seeds: u64) -> bool {
    let started = Instant::now();
    let next = AtomicU64::new(from);
    let met = Mutex::new(Tally::default());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    match run(&Scenario::new(seed), seed.is_multiple_of(TWICE_EVERY)) {
                        Ok(tally) => met.lock().unwrap_or_else(PoisonError::into_inner).merge(&tally),
                        Err(fault) => {
                            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                            failed.push((seed, fault));
                            if failed.len() >= FAULTS_MAX {
                                return next.store(from + seeds, Ordering::Relaxed);
                            }
                        }
                    }
                }
            });
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    say(&format!("{seeds} seeds from {from} in {seconds:.1} s: {:.1} a second", seeds as f64 / seconds));
    let met = met.into_inner().unwrap_or_else(PoisonError::into_inner);
    let told: Vec<_> = met.iter().map(|(what, times)| format!("{times} {what}")).collect();
    say(&format!("met: {}", told.join(", ")));
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort_by_key(|(seed, _)| *seed);
    for (seed, Fault(why)) in &failed {
        say(&format!("seed {seed}: {why}"));
    }
    if let Some((seed, _)) = failed.first() {
        shrink_and_tell(*seed);
        return false;
    }
    // Fewer seeds meet less.
    let enough = |(what, of_a_thousand): &&(&str, u64)| met.of(what) * 1_000 < of_a_thousand * seeds;
    let trivial: Vec<_> = MET.iter().filter(|_| seeds >= 200).filter(enough).collect();
    if !trivial.is_empty() {
        say(&format!("too rare to show anything: {trivial:?} of a thousand seeds"));
    }
    trivial.is_empty()
}

/// After so many faults a run ends: they are one, as a rule.
const FAULTS_MAX: usize = 10;

fn run(scenario: &Scenario, twice: bool) -> Result<Tally, Fault> {
    let outcome = lived(scenario)?;
    if twice && outcome.trace.hash() != lived(scenario)?.trace.hash() {
        return Err(Fault("two runs of one scenario differ".into()));
    }
    outcome.fault.map_or(Ok(outcome.tally), Err)
}

fn lived(scenario: &Scenario) -> Result<Outcome, Fault> {
    catch_unwind(AssertUnwindSafe(|| World::run(scenario, false))).map_err(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
        Fault(format!("a panic: {}", said.unwrap_or_default()))
    })
}

fn faulty(scenario: &Scenario) -> Option<Fault> {
    run(scenario, false).err()
}

/// Cuts a failing scenario down, says what is left, and leaves it in a file.
fn shrink_and_tell(seed: u64) -> Scenario {
    let scenario = Scenario::new(seed);
    let Some(why) = faulty(&scenario) else { return scenario };
    let shortest = shrunk(scenario, &kind(&why));
    let why = faulty(&shortest).map_or_else(String::new, |Fault(why)| why);
    say(&format!("\nseed {seed}, cut down to {} events: {why}", shortest.steps.len()));
    for Step { at_ms, event } in &shortest.steps {
        say(&format!("{at_ms:>8} ms  {event:?}"));
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ebb-scenario-{seed}.json"));
    let text = serde_json::to_string_pretty(&shortest).expect("a scenario is plain data");
    if std::fs::write(&file, text).is_ok() {
        say(&format!("kept as {}; once fixed, it belongs into tests/fixtures/scenarios", file.display()));
    }
    shortest
}

/// A fault without its figures: what differs between a run and a shorter one.
fn kind(Fault(why): &Fault) -> String {
    why.chars().filter(|letter| !letter.is_ascii_digit()).collect()
}

/// Leaves out as many events as possible, ever smaller runs of them, as long as it fails in the same way.
fn shrunk(mut scenario: Scenario, of_kind: &str) -> Scenario {
    let mut chunk = scenario.steps.len() / 2;
    while chunk > 0 {
        let mut at = 0;
        let mut less = false;
        while at < scenario.steps.len() {
            let mut shorter = scenario.clone();
            shorter.steps.drain(at..(at + chunk).min(scenario.steps.len()));
            if faulty(&shorter).is_some_and(|fault| kind(&fault) == of_kind) {
                (scenario, less) = (shorter, true);
            } else {
                at += chunk;
            }
        }
        if !less || chunk > 1 {
            chunk /= 2;
        }
    }
    scenario
}

fn say(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").expect("somebody listens");
}

struct Arguments {
    seeds: u64,
    from: u64,
    seed: Option<u64>,
    shrinks: bool,
    scenario: Option<PathBuf>,
    words: Vec<String>,
    lists: bool,
}

impl Arguments {
    /// Reads what concerns this test; what else `cargo test` passes on is left alone.
    fn read() -> Self {
        let mut read = Self {
            seeds: SEEDS,
            from: 1,
            seed: None,
            shrinks: false,
            scenario: None,
            words: Vec::new(),
            lists: false,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || arguments.next().and_then(|text| text.parse().ok()).expect("a number");
            match argument.as_str() {
                "--seeds" => read.seeds = number(),
                "--from" => read.from = number(),
                "--seed" => read.seed = Some(number()),
                "--shrink" => read.shrinks = true,
                "--scenario" => read.scenario = arguments.next().map(PathBuf::from),
                "--list" => read.lists = true,
                "--test-threads" | "--skip" | "--format" | "--color" => drop(arguments.next()),
                flag if flag.starts_with('-') => {}
                word => read.words.push(word.to_owned()),
            }
        }
        read
    }
}
