//! Power cuts: a run of a thousand transactions is recorded once, below SQLite, and then the power is cut at
//! every sync of it and at random moments between, on a device and on a server.
//!
//! For each cut the files are put together as a disk may leave them ([`ebb_tests::disk::medium`]) and opened
//! by the real code. It opens clean, everything is there that a call had returned for, of the call that was
//! under way everything or nothing, and work goes on.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ebb_core::keys::Entropy;
use ebb_tests::{
    disk::{
        self, Disk, FileKind,
        medium::{Event, Loss, Medium, Random},
    },
    ward::{assert_no_errors, show_logs},
};
use rusqlite::Connection;
use tempfile::TempDir;

#[path = "power/clinic.rs"]
mod clinic;
#[path = "power/device.rs"]
mod device;
#[path = "power/server.rs"]
mod server;

use device::{DeviceLook, DeviceRun};
use server::{ServerLook, ServerRun};

const TRANSACTIONS: u64 = 1_000;
/// Cuts at random moments, beside those at every sync.
const TORN: usize = 300;
/// Of how many cuts one is looked at in depth: every page of the files, and what follows with others.
const DEEP_EVERY: usize = 16;

#[test]
fn a_device_keeps_what_it_said_it_saved() {
    let root = folder();
    let run = DeviceRun::record(&root.path().join("run"));
    let mut looked = DeviceLook::new(&run, &root.path().join("look"));
    let told = cut_everywhere(&run.recording, &run.dir, seed(), &mut looked);
    assert!(told.syncs as u64 > TRANSACTIONS, "every transaction syncs: {told}");
    say("device", &told);
    assert_no_errors();
}

#[test]
fn a_server_keeps_what_it_acknowledged() {
    let root = folder();
    let run = ServerRun::record(&root.path().join("run"));
    let mut looked = ServerLook::new(&run, &root.path().join("look"));
    let told = cut_everywhere(&run.recording, &run.dir, seed(), &mut looked);
    assert!(told.syncs as u64 > TRANSACTIONS, "every transaction syncs: {told}");
    say("server", &told);
    assert_no_errors();
}

/// What a process wrote and could not sync is in the system's cache and not on the disk. The next process is cut
/// at every sync of what it does with it.
#[test]
fn a_device_is_not_torn_by_what_it_could_not_sync() {
    cut_after_a_failed_sync(device::cut_after_a_failed_sync);
}

/// The same for a server.
#[test]
fn a_server_is_not_torn_by_what_it_could_not_sync() {
    cut_after_a_failed_sync(server::cut_after_a_failed_sync);
}

fn cut_after_a_failed_sync(is_reached: impl Fn(&Path, &Disk, u64) -> bool) {
    for number in seed()..seed() + 20 {
        let lives = (1..).take_while(|sync| {
            let (root, disk) = (folder(), Disk::simulated(number));
            disk.forget_on_failed_sync(true);
            is_reached(root.path(), &disk, *sync)
        });
        assert!(lives.count() >= 3, "a commit and a checkpoint sync");
    }
    assert_no_errors();
}

fn folder() -> TempDir {
    show_logs();
    disk::folder()
}

/// Another story for another `EBB_SEED`.
fn seed() -> u64 {
    std::env::var("EBB_SEED").map_or(1, |text| text.parse().expect("a number"))
}

/// Prints past the test harness, which would keep it for failures.
fn say(side: &str, told: &Told) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "power cuts, {side}: {told}").unwrap();
}

/// The same bytes each time.
struct Seeded(Random);

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill_with(|| self.0.draw().to_be_bytes()[0]);
    }
}

// The cuts.

/// What is looked at after each cut.
trait Look {
    /// A mark was passed: from now on a cut may take nothing of what came before it.
    fn passed(&mut self, mark: u64);
    /// The folder is as a cut left it.
    fn look(&mut self, cut: &Cut);
    /// Where the files go.
    fn dir(&self) -> &Path;
    /// The disk that they are opened over.
    fn disk(&self) -> &Disk;
}

struct Cut {
    place: usize,
    loss: Loss,
    is_deep: bool,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, cut before event {} with loss {:?}", seed(), self.place, self.loss)
    }
}

struct Told {
    syncs: usize,
    torn: usize,
    took: Duration,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { syncs, torn, took } = self;
        write!(
            f,
            "{TRANSACTIONS} transactions, cut at {syncs} syncs and {torn} random moments, in {} ms",
            took.as_millis()
        )
    }
}

fn cut_everywhere(recording: &[Event], run: &Path, seed: u64, looked: &mut impl Look) -> Told {
    let began = Instant::now();
    let mut random = Random::new(seed);
    let torn: BTreeSet<_> = (0..TORN).map(|_| random.below(recording.len())).collect();
    let mut told = Told { syncs: 0, torn: 0, took: Duration::ZERO };
    let mut medium = Medium::default();
    let dir = looked.dir().to_owned();
    let mut stage = Stage { from: run, to: &dir, held: BTreeMap::new(), writes: 0 };
    for (place, event) in recording.iter().enumerate() {
        if event.is_sync() || torn.contains(&place) {
            told.syncs += usize::from(event.is_sync());
            told.torn += usize::from(!event.is_sync());
            let loss = if random.below(4) == 0 { Loss::All } else { Loss::Any };
            stage.set(&medium, loss, &mut random, looked.disk());
            looked.look(&Cut { place, loss, is_deep: (told.syncs + told.torn).is_multiple_of(DEEP_EVERY) });
        }
        medium.apply(event);
        if let Event::Marked(mark) = event {
            looked.passed(*mark);
        }
    }
    stage.set(&medium, Loss::Any, &mut random, looked.disk());
    looked.look(&Cut { place: recording.len(), loss: Loss::Any, is_deep: true });
    told.took = began.elapsed();
    told
}

/// A folder that is brought into one state after another.
struct Stage<'a> {
    /// The folder that was recorded, and the one that stands for it.
    from: &'a Path,
    to: &'a Path,
    /// What each file was last made to hold, and how often anybody had written to any by then.
    held: BTreeMap<PathBuf, Vec<u8>>,
    writes: u64,
}

impl Stage<'_> {
    /// Makes the folder what a cut leaves; files that hold that already are left alone.
    fn set(&mut self, medium: &Medium, loss: Loss, random: &mut Random, disk: &Disk) {
        let left = medium.crash(loss, random);
        let writes = disk.counts(FileKind::Database).writes;
        let is_untouched = std::mem::replace(&mut self.writes, writes) == writes;
        for entry in std::fs::read_dir(self.to).unwrap() {
            let path = entry.unwrap().path();
            let stays = path.extension().is_some_and(|kind| kind == "lock" || kind == "keycheck");
            if !stays && !left.contains_key(&self.from.join(path.file_name().unwrap())) {
                self.held.remove(&path);
                std::fs::remove_file(path).unwrap();
            }
        }
        for (path, bytes) in left {
            let path = self.to.join(path.strip_prefix(self.from).unwrap());
            let is_database = path.extension().is_some_and(|kind| kind == "db");
            if is_database && is_untouched && self.held.get(&path).is_some_and(|held| **held == *bytes) {
                continue;
            }
            // Written over: that is faster than making a file anew.
            let mut file = File::options().create(true).truncate(false).write(true).open(&path).unwrap();
            file.write_all(&bytes).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
            if is_database {
                self.held.insert(path, bytes.into_owned());
            }
        }
    }
}

/// Checks every page of a database that nobody else has open.
fn assert_sound(db: &Connection, cut: &Cut) {
    // The next check does not open the file by itself; without a cipher it finds nothing to check.
    db.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(())).unwrap();
    let mut check = db.prepare("PRAGMA cipher_integrity_check").unwrap();
    let bad: Vec<String> = check.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(bad.is_empty(), "{bad:?}: {cut}");
    let said: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(said, "ok", "{cut}");
}
