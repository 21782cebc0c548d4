//! Network abuse: what comes to the real server from anywhere, and what a bad network does to an honest device.
//!
//! The server is a process of its own, so that its memory is its own. Each attack lasts until an honest device
//! has come through beside it, over both transports, often enough; then the server ends in order. In the test
//! command attacks are small and judged by memory and by whether the honest come through at all. `cargo test
//! --workspace --test abuse -- --full` makes them as large as they are meant, and judges times as well; a
//! word chooses among them.

use std::{
    io::Write,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use ebb_sync_server::system;

#[path = "abuse/below.rs"]
mod below;
#[path = "abuse/datagrams.rs"]
mod datagrams;
#[path = "abuse/paths.rs"]
mod paths;
#[path = "abuse/siege.rs"]
mod siege;
#[path = "abuse/streams.rs"]
mod streams;

const NODE: &str = env!("CARGO_BIN_EXE_ebb-tests-node");

/// Small tests that run beside one another.
const SMALL_AT_A_TIME: usize = 4;

/// A test: its name and what runs it.
type Test = (&'static str, fn(Size) -> Figures);

/// Everything that is done here.
const TESTS: &[Test] = &[
    ("noise", datagrams::noise),
    ("initials_cut_short_flipped_and_sent_again", datagrams::broken_initials),
    ("quic_handshakes_that_never_go_on", datagrams::half_open_unproven),
    ("quic_handshakes_that_never_go_on_from_proven_addresses", datagrams::half_open_proven),
    ("tcp_handshakes_that_never_go_on_from_one_address", streams::half_open_from_one_address),
    ("tcp_handshakes_that_never_go_on_from_beside", streams::half_open_from_beside),
    ("tcp_handshakes_that_never_go_on_from_everywhere", streams::half_open_from_everywhere),
    ("a_byte_every_ten_seconds", streams::trickle),
    ("silence_after_a_quic_handshake", datagrams::silent),
    ("silence_after_a_tls_handshake", streams::silent),
    ("streams_with_gaps", datagrams::gaps),
    ("frames_that_never_end", streams::endless),
    ("a_stranger_in_many_sessions", streams::many_sessions),
    ("hellos_that_name_much", streams::hellos),
    ("a_hundred_records_over_a_lossy_path_by_quic", paths::lossy),
    ("a_hundred_records_over_a_slow_path_by_tcp", paths::slow),
    ("a_hundred_records_where_udp_dies_after_its_first_packet", paths::dying),
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
    system::raise_descriptors();
    let started = Instant::now();
    print(format!("\nrunning {} tests ({:?})", tests.len(), arguments.size));
    // Small ones mostly wait, so some run beside one another; of full ones, each has the machine for itself.
    let (next, (told, ends)) = (AtomicUsize::new(0), mpsc::channel());
    std::thread::scope(|scope| {
        for _ in 0..arguments.size.pick(SMALL_AT_A_TIME, 1) {
            let (told, next, tests, size) = (told.clone(), &next, &tests, arguments.size);
            scope.spawn(move || {
                while let Some((name, run)) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // A test that fails panics, which says where, and the process ends with it.
                    let (began, Figures(figures)) = (Instant::now(), run(size));
                    let seconds = began.elapsed().as_secs_f32();
                    told.send(format!("test {name} ... ok ({figures}; {seconds:.1} s)")).expect("heard");
                }
            });
        }
        drop(told);
        ends.iter().for_each(&mut print);
    });
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
