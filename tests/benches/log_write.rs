//! What it costs to log a record durably, beside a bare commit of one row to SQLCipher.
//!
//! `cargo bench -p ebb-tests --bench log_write`
//!
//! 2,000 calls of `log()` and as many commits of a one-row transaction with the same page settings, in
//! turns on the same disk, and between them an append of 4 KiB with `fdatasync`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and ends where it fails")]

mod kit;

use std::{fs::File, io::Write, path::Path, time::Duration};

use kit::{
    Report, Target,
    diary::{Diary, open},
    median, ms, quantile, sized, thread_cpu, thread_ticks, timed,
};
use rusqlite::{Connection, params};

const TURN: usize = 20;
/// A disk faster than this says nothing about phones.
const FDATASYNC_MS_MIN: f64 = 0.2;

fn main() {
    let calls = sized(2_000, 60);
    let dir = tempfile::tempdir().unwrap();
    let mut diary = Diary::new(1);
    let replica = open(dir.path(), &diary.clock, None);
    let space = replica.own().unwrap();
    let mut bare = Bare::open(&dir.path().join("bare.db"));
    let mut probe = File::create(dir.path().join("probe")).unwrap();
    let entries: Vec<_> = (0..calls + TURN).map(|_| diary.entry()).collect();
    let (warm, entries) = entries.split_at(TURN);
    for entry in warm {
        replica.log(space, entry).unwrap();
        bare.commit();
    }

    let (mut logs, mut commits, mut syncs) = (Vec::new(), Vec::new(), Vec::new());
    let (mut log_cpu, mut bare_cpu) = (Duration::ZERO, Duration::ZERO);
    let (mut user, mut system) = (0, 0);
    for turn in entries.chunks(TURN) {
        let before = thread_cpu();
        let ticks = thread_ticks();
        logs.extend(turn.iter().map(|entry| timed(|| replica.log(space, entry).unwrap()).1));
        let (user_now, system_now) = thread_ticks();
        (user, system) = (user + user_now - ticks.0, system + system_now - ticks.1);
        let between = thread_cpu();
        commits.extend(turn.iter().map(|_| timed(|| bare.commit()).1));
        let after = thread_cpu();
        log_cpu += between - before;
        bare_cpu += after - between;
        for _ in 0..5 {
            probe.write_all(&[7; 4096]).unwrap();
            syncs.push(timed(|| probe.sync_data().unwrap()).1);
        }
    }

    let mut report = Report::new(&format!("log_write: {calls} records, each durable when log() returns"));
    let of = |name: &str, part: &str| format!("{name}, {part}");
    let mut rows = |name: &str, samples: &[Duration]| {
        for (part, place) in [("p50", 0.5), ("p99", 0.99)] {
            report.figure(&of(name, part), ms(quantile(samples, place)), "ms", Target::None);
        }
    };
    rows("log()", &logs);
    rows("bare commit of one row, SQLCipher FULL", &commits);
    rows("4 KiB appended and fdatasync", &syncs);
    let per_call = |cpu: Duration| ms(cpu) / calls as f64;
    report.figure("CPU of a bare commit", per_call(bare_cpu), "ms", Target::None);
    let disk = ms(median(&syncs));
    let ratio = ms(median(&logs)) / ms(median(&commits));
    if disk < FDATASYNC_MS_MIN {
        report.note("this disk syncs faster than 0.2 ms: the ratio is shown and not judged");
        report.figure("log() p50 / bare commit p50", ratio, "x", Target::None);
    } else {
        report.figure("log() p50 / bare commit p50", ratio, "x", Target::AtMost(3.0));
    }
    let in_system = per_call(log_cpu) * system as f64 / (user + system).max(1) as f64;
    report.figure("CPU of log(), its own", per_call(log_cpu) - in_system, "ms", Target::AtMost(0.4));
    report.figure("CPU of log(), the system's: writing and syncing", in_system, "ms", Target::None);
    report.end();
}

/// A database with the replica's page settings and one table.
struct Bare(Connection);

impl Bare {
    fn open(path: &Path) -> Self {
        let db = Connection::open(path).unwrap();
        db.execute_batch(&format!(
            "PRAGMA key = \"x'{}'\"; PRAGMA cipher_hmac_algorithm = HMAC_SHA256;
             PRAGMA locking_mode = EXCLUSIVE; PRAGMA mmap_size = 0; PRAGMA cache_size = -4096; PRAGMA temp_store = MEMORY; PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL; CREATE TABLE row (bytes BLOB NOT NULL);",
            "5a".repeat(32)
        ))
        .unwrap();
        Self(db)
    }

    /// One row of the size of a logged record.
    fn commit(&mut self) {
        let tx = self.0.transaction().unwrap();
        tx.prepare_cached("INSERT INTO row (bytes) VALUES (?1)")
            .unwrap()
            .execute(params![[7u8; 400]])
            .unwrap();
        tx.commit().unwrap();
    }
}
