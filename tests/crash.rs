//! `kill -9` of devices and of the server at random moments, against a ledger of what they had said.
//!
//! A phone and a desk log, edit and retract without end and stay in sync; one of the two, or the server,
//! is killed again and again and started again. In the end everything that a call had returned for is on
//! the device that said so, everything that was said to be on the server reaches a fresh device from the
//! server alone, and nothing is there twice.
//!
//! `cargo test -p ebb-tests --test crash -- --kills 2000 --seed 7` (or `EBB_KILLS` and `EBB_SEED`); a word
//! chooses among the tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use ebb_core::{Category, RecordId, Replica, Start, link::Transport};
use ebb_protocol::id::SpaceId;
use ebb_tests::ward::{self, PATIENCE, TestDevice, TestServer};
use tempfile::TempDir;

const NODE: &str = env!("CARGO_BIN_EXE_ebb-tests-node");
/// What `cargo test` kills of each kind.
const KILLS: u32 = 36;
/// Lines of the ledger that a victim is given before it is killed, at most.
const LINES_MAX: u64 = 40;
/// After the last of those lines, the blow comes within this time.
const BLOW_MS_MAX: u64 = 30;
const SHARED: [Category; 5] = [
    Category::Medication,
    Category::SubstanceUse,
    Category::Wellbeing,
    Category::Plan,
    Category::Observations,
];

fn main() {
    let arguments = Arguments::read();
    let chosen = |test: &&(&str, Victim)| arguments.words.iter().all(|word| test.0.contains(word.as_str()));
    let tests = [
        ("a_phone_that_is_killed_keeps_what_it_logged", Victim::Phone),
        ("a_desk_that_is_killed_misses_nothing", Victim::Desk),
        ("a_server_that_is_killed_keeps_what_it_acknowledged", Victim::Server),
    ];
    let tests: Vec<_> = tests.iter().filter(chosen).collect();
    let mut out = std::io::stdout().lock();
    let mut print = |line: String| writeln!(out, "{line}").expect("somebody listens");
    if arguments.lists {
        return tests.iter().for_each(|(name, _)| print(format!("{name}: test")));
    }
    let started = Instant::now();
    print(format!("\nrunning {} tests (seed {})", tests.len(), arguments.seed));
    for (name, victim) in &tests {
        // A test that fails panics, which says where, and ends the process.
        let Told { records, changes } = run(*victim, arguments.kills, arguments.seed);
        let (kills, seconds) = (arguments.kills, started.elapsed().as_secs_f32());
        print(format!(
            "test {name} ... ok ({kills} kills, {records} records, {changes} changes, \
             0 lost, 0 doubled, after {seconds:.1} s)"
        ));
    }
    let seconds = started.elapsed().as_secs_f32();
    let passed = tests.len();
    print(format!(
        "\ntest result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; {} filtered out; \
         finished in {seconds:.2}s\n",
        3 - passed
    ));
}

struct Arguments {
    kills: u32,
    seed: u64,
    words: Vec<String>,
    lists: bool,
}

impl Arguments {
    /// Reads what concerns these tests; what else `cargo test` passes on is left alone.
    fn read() -> Self {
        let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
        let mut read = Self {
            kills: number("EBB_KILLS").map_or(KILLS, |kills: u64| u32::try_from(kills).expect("fewer")),
            seed: number("EBB_SEED").unwrap_or(1),
            words: Vec::new(),
            lists: false,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || arguments.next().and_then(|text| text.parse().ok()).expect("a number");
            match argument.as_str() {
                "--kills" => read.kills = u32::try_from(number()).expect("fewer"),
                "--seed" => read.seed = number(),
                "--list" => read.lists = true,
                "--test-threads" | "--skip" | "--format" | "--color" => drop(arguments.next()),
                flag if flag.starts_with('-') => {}
                word => read.words.push(word.to_owned()),
            }
        }
        read
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Victim {
    Phone,
    Desk,
    Server,
}

struct Told {
    records: usize,
    changes: usize,
}

fn run(victim: Victim, kills: u32, seed: u64) -> Told {
    let mut world = World::new(seed);
    for _ in 0..kills {
        world.kill(victim);
    }
    world.settle()
}

/// A server, a phone and a desk as processes of their own.
struct World {
    root: TempDir,
    server: TestServer,
    space: SpaceId,
    phone: Device,
    desk: Device,
    dice: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let root = tempfile::tempdir().expect("a temporary folder");
        let server = TestServer::start(&root.path().join("server"), NODE);
        let phone = TestDevice::open(&root, "phone", &server, Start::Found);
        let desk = TestDevice::open(&root, "desk", &server, Start::Clinic);
        phone.replica.grant(&desk.replica.card().expect("open"), &SHARED).expect("grants");
        let ticket = phone.replica.ticket().expect("a patient's");
        let space = desk.replica.follow(&ticket).expect("follows");
        // The device that looks at the server in the end; until then it never connects.
        let tablet = TestDevice::open(&root, "tablet", &server, Start::Join(ticket));
        phone.replica.add_device(&tablet.replica.card().expect("open")).expect("adds");
        phone.sync();
        desk.sync();
        for device in [&phone, &desk, &tablet] {
            device.replica.lock();
        }
        let start = |name, transport| Device::start(&root.path().join(name), name, transport, &server);
        let (phone, desk) = (start("phone", Transport::Tcp), start("desk", Transport::Quic));
        Self { phone, desk, root, server, space, dice: seed }
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % sides
    }

    /// Kills the victim at a random moment of its (or, for the server, the phone's) work, and starts it again.
    fn kill(&mut self, victim: Victim) {
        let lines = 1 + self.roll(LINES_MAX);
        let blow = Duration::from_micros(self.roll(BLOW_MS_MAX * 1_000));
        let Self { phone, desk, server, .. } = self;
        match victim {
            Victim::Phone => phone.kill_after(lines, blow),
            Victim::Desk => desk.kill_after(lines, blow),
            Victim::Server => {
                // It is no blow unless it hits work: something has to arrive first.
                phone.wait_for_delivery();
                phone.go_on(lines, blow);
                server.kill();
                server.restart();
                phone.network_changed();
            }
        }
        // The others are read along, so that nobody waits for a reader.
        match victim {
            Victim::Phone => desk.read_along(),
            Victim::Desk => phone.read_along(),
            Victim::Server => {
                desk.network_changed();
                desk.read_along();
            }
        }
    }

    /// Ends everything and compares what is there with what was said.
    fn settle(self) -> Told {
        let Self { root, mut server, space, phone, desk, .. } = self;
        let (phone, desk) = (phone.end(), desk.end());
        server.kill();
        server.restart();
        let open = |name| TestDevice::open_over(&root, name, &server, Start::Found, Transport::Quic);

        let tablet = open("tablet");
        tablet.sync();
        let from_server = Held::of(&tablet.replica, space);
        for (name, ledger) in [("phone", &phone), ("desk", &desk)] {
            ledger.check(&from_server, &ledger.on_server, &format!("{name}, by way of the server"));
            let here = open(name);
            ledger.check(&Held::of(&here.replica, space), &ledger.done, name);
            here.replica.lock();
        }

        let (phone_device, desk_device) = (open("phone"), open("desk"));
        for device in [&phone_device, &desk_device, &phone_device, &desk_device, &tablet] {
            device.sync();
            let (all, undelivered) =
                device.replica.with_engine(|engine| engine.count(&space)).expect("reads");
            assert_eq!(undelivered, 0, "of {all}");
            let aside = device.replica.with_engine(|engine| engine.set_aside()).expect("reads");
            assert_eq!(aside, (0, 0), "nothing is set aside among honest devices");
        }
        let everywhere = Held::of(&tablet.replica, space);
        for device in [&phone_device, &desk_device] {
            assert!(Held::of(&device.replica, space) == everywhere, "all hold the same in the end");
        }
        for ledger in [&phone, &desk] {
            ledger.check(&everywhere, &ledger.done, "in the end");
        }
        let tried: BTreeSet<_> = phone.tried.union(&desk.tried).collect();
        let changes = everywhere.marks.len();
        assert!(everywhere.marks.keys().all(|mark| tried.contains(mark)), "nobody else wrote anything");
        server.stop();
        ward::assert_no_errors();
        Told { records: everywhere.records, changes }
    }
}

/// A device as a process, and what it said.
struct Device {
    name: &'static str,
    /// Starts it, but for the number of the run.
    arguments: Vec<String>,
    runs: u32,
    process: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    ledger: Ledger,
}

impl Device {
    fn start(dir: &Path, name: &'static str, transport: Transport, server: &TestServer) -> Self {
        let (transport, address) = match transport {
            Transport::Quic => ("quic", server.address.quic.as_str()),
            Transport::Tcp => ("tcp", server.address.tcp.as_str()),
        };
        let (dir, pins) = (dir.to_string_lossy(), server.pins.to_text());
        let arguments = ["device", &dir, transport, address, &pins, name].map(str::to_owned).to_vec();
        let (process, stdin, lines) = Self::spawn(&arguments, 0);
        Self { name, arguments, runs: 0, process, stdin, lines, ledger: Ledger::default() }
    }

    fn spawn(arguments: &[String], run: u32) -> (Child, ChildStdin, Receiver<String>) {
        let mut process = Command::new(NODE)
            .args(arguments)
            .arg(run.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test binary starts");
        let stdin = process.stdin.take().expect("piped");
        let stdout = BufReader::new(process.stdout.take().expect("piped"));
        let (said, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines() {
                if line.is_ok_and(|line| said.send(line).is_err()) {
                    break;
                }
            }
        });
        (process, stdin, lines)
    }

    /// Reads so many lines, and more until the moment of the blow.
    fn go_on(&mut self, lines: u64, blow: Duration) {
        for _ in 0..lines {
            let line = self.lines.recv_timeout(PATIENCE).expect("the device goes on");
            self.ledger.note(&line);
        }
        let blow = Instant::now() + blow;
        loop {
            match self.lines.recv_timeout(blow.saturating_duration_since(Instant::now())) {
                Ok(line) => self.ledger.note(&line),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => panic!("the {} ended by itself", self.name),
            }
        }
    }

    /// Reads until something is newly on the server.
    fn wait_for_delivery(&mut self) {
        let before = self.ledger.on_server.len();
        while self.ledger.on_server.len() == before {
            let line = self.lines.recv_timeout(PATIENCE).expect("the device goes on");
            self.ledger.note(&line);
        }
    }

    fn read_along(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            self.ledger.note(&line);
        }
    }

    fn network_changed(&mut self) {
        self.stdin.write_all(b"network\n").expect("the device listens");
    }

    fn kill_after(&mut self, lines: u64, blow: Duration) {
        self.go_on(lines, blow);
        self.kill();
        self.runs += 1;
        (self.process, self.stdin, self.lines) = Self::spawn(&self.arguments, self.runs);
    }

    /// Kills it, and reads what it had said until then.
    fn kill(&mut self) {
        self.process.kill().expect("the process is ours");
        self.process.wait().expect("the process is ours");
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.ledger.note(&line);
        }
    }

    fn end(mut self) -> Ledger {
        self.kill();
        self.ledger
    }
}

/// What a device said. A mark names one call that changes one record.
#[derive(Default)]
struct Ledger {
    tried: BTreeSet<String>,
    /// Calls that returned, and the records that they changed.
    done: BTreeMap<String, String>,
    by_record: BTreeMap<String, Vec<String>>,
    /// Of those, the ones said to be on the server.
    on_server: BTreeMap<String, String>,
}

impl Ledger {
    fn note(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["open"] => {}
            ["try", mark] => assert!(self.tried.insert(mark.to_owned()), "{mark} twice"),
            ["done", mark, record] => {
                self.done.insert(mark.to_owned(), record.to_owned());
                self.by_record.entry(record.to_owned()).or_default().push(mark.to_owned());
            }
            ["server", record] => {
                let marks = self.by_record.get(record).expect("a record that was logged");
                self.on_server.extend(marks.iter().map(|mark| (mark.clone(), record.to_owned())));
            }
            _ => panic!("what does a device mean by {line:?}?"),
        }
    }

    /// Each of these marks is where it belongs.
    fn check(&self, held: &Held, marks: &BTreeMap<String, String>, place: &str) {
        for (mark, record) in marks {
            assert_eq!(held.marks.get(mark), Some(record), "lost: {mark} ({place})");
        }
    }
}

/// What a device holds: every mark, and the record in whose history it stands.
#[derive(PartialEq)]
struct Held {
    marks: BTreeMap<String, String>,
    records: usize,
}

impl Held {
    /// # Panics
    /// If a change is there twice, or a version that no call made.
    fn of(replica: &Replica, space: SpaceId) -> Self {
        let records = replica.records(space, &ebb_core::Query::default()).expect("reads");
        let ids: BTreeSet<RecordId> = records.iter().map(|record| record.id).collect();
        assert_eq!(ids.len(), records.len(), "a record is listed once");
        let mut marks = BTreeMap::new();
        for id in ids {
            let (mut note, mut reason) = (String::new(), None);
            for version in replica.history(space, id).expect("reads") {
                let now = version.record.retracted.map(|retraction| retraction.reason);
                let mark = if version.record.note != note {
                    note.clone_from(&version.record.note);
                    note.clone()
                } else {
                    assert!(now != reason, "a change that changes nothing, in {id}");
                    now.clone().expect("nobody takes a retraction back")
                };
                reason = now;
                let doubled = marks.insert(mark.clone(), id.to_string());
                assert!(doubled.is_none(), "doubled: {mark}, in {id} and {doubled:?}");
            }
        }
        Self { marks, records: records.len() }
    }
}
