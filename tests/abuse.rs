//! Network abuse: what comes to the real server from anywhere, and what a bad network does to an honest device.
//!
//! The server is a process of its own, so that its memory is its own. Each attack lasts until an honest device
//! has come through beside it, over both transports, often enough; then the server ends in order. In the test
//! command attacks are small and judged by memory and by whether the honest come through at all. `cargo test
//! --workspace --test abuse -- --full` makes them as large as they are meant, and judges times as well; a
//! word chooses among them.

use std::{
    io::Write,
    time::{Duration, Instant},
};

#[path = "abuse/paths.rs"]
mod paths;

const NODE: &str = env!("CARGO_BIN_EXE_ebb-tests-node");

/// A test: its name and what runs it.
type Test = (&'static str, fn(Size) -> Figures);

/// Everything that is done here.
const TESTS: &[Test] = &[
    ("a_hundred_records_over_a_lossy_path_by_quic", paths::lossy),
    ("a_hundred_records_over_a_slow_path_by_tcp", paths::slow),
];

/// How large a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    /// As the test command runs it: nothing is judged by the clock.
    Small,
    /// As it is meant.
    Full,
}

impl Size {
    fn pick<T>(self, small: T, full: T) -> T {
        match self {
            Self::Small => small,
            Self::Full => full,
        }
    }

    /// Fails where a figure is not below its limit, when times are judged.
    fn judge(self, name: &str, took: Duration, limit: Duration) {
        assert!(self == Self::Small || took < limit, "{name}: {took:?}, not under {limit:?}");
    }
}

/// What a test has to tell.
struct Figures(String);

fn main() {
    let arguments = Arguments::read();
    let chosen = |test: &&Test| arguments.words.iter().all(|word| test.0.contains(word.as_str()));
    let tests: Vec<_> = TESTS.iter().filter(chosen).collect();
    let mut out = std::io::stdout().lock();
    let mut print = |line: String| writeln!(out, "{line}").expect("somebody listens");
    if arguments.lists {
        return tests.iter().for_each(|(name, _)| print(format!("{name}: test")));
    }
    let started = Instant::now();
    print(format!("\nrunning {} tests ({:?})", tests.len(), arguments.size));
    for (name, run) in &tests {
        // A test that fails panics, which says where, and ends the process.
        let began = Instant::now();
        let Figures(told) = run(arguments.size);
        print(format!("test {name} ... ok ({told}; {:.1} s)", began.elapsed().as_secs_f32()));
    }
    let seconds = started.elapsed().as_secs_f32();
    let passed = tests.len();
    print(format!(
        "\ntest result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; {} filtered out; \
         finished in {seconds:.2}s\n",
        TESTS.len() - passed
    ));
}

struct Arguments {
    size: Size,
    words: Vec<String>,
    lists: bool,
}

impl Arguments {
    /// Reads what concerns these tests; what else `cargo test` passes on is left alone.
    fn read() -> Self {
        let mut read = Self { size: Size::Small, words: Vec::new(), lists: false };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--full" => read.size = Size::Full,
                "--list" => read.lists = true,
                "--test-threads" | "--skip" | "--format" | "--color" => drop(arguments.next()),
                flag if flag.starts_with('-') => {}
                word => read.words.push(word.to_owned()),
            }
        }
        read
    }
}
