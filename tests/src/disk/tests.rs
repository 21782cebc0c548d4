use std::collections::BTreeSet;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tempfile::TempDir;

use super::*;

fn open(dir: &TempDir, disk: &Disk) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags_and_vfs(dir.path().join("db"), OpenFlags::default(), disk.name())?;
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
    Ok(db)
}

/// A database with an empty table, over some disk.
fn made(disk: &Disk) -> (TempDir, Connection) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let db = open(&dir, disk).expect("opens");
    db.execute_batch("CREATE TABLE t (a, filler)").expect("works");
    (dir, db)
}

/// Inserts a row of some pages, or fails.
fn insert(db: &Connection, number: u32) -> rusqlite::Result<usize> {
    db.execute("INSERT INTO t VALUES (?1, zeroblob(20000))", [number])
}

fn rows(db: &Connection) -> Vec<u32> {
    let mut query = db.prepare("SELECT a FROM t ORDER BY a").expect("is there");
    let rows = query.query_map([], |row| row.get(0)).expect("reads");
    rows.collect::<Result<_, _>>().expect("reads")
}

fn is_sound(db: &Connection) -> bool {
    let said: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("reads");
    said == "ok"
}

fn code<T: std::fmt::Debug>(outcome: rusqlite::Result<T>) -> Option<ErrorCode> {
    outcome.expect_err("fails").sqlite_error_code()
}

#[test]
fn it_counts_and_is_full_and_has_room_again() {
    let disk = Disk::new();
    let (_dir, db) = made(&disk);
    let before = disk.counts(FileKind::Wal);
    insert(&db, 1).expect("works");
    let after = disk.counts(FileKind::Wal);
    assert_eq!(after.syncs, before.syncs + 1);
    assert!(after.bytes > before.bytes + 4096);

    disk.fill();
    assert_eq!(code(insert(&db, 2)), Some(ErrorCode::DiskFull));
    disk.free();
    disk.fail_syncs(true);
    assert_eq!(code(insert(&db, 2)), Some(ErrorCode::SystemIoFailure));
    disk.fail_syncs(false);
    insert(&db, 2).expect("works again");
    assert_eq!(rows(&db), [1, 2]);
}

#[test]
fn faults_end_after_as_many_as_were_asked_for() {
    let disk = Disk::simulated(1);
    let (dir, db) = made(&disk);
    disk.fail_next_syncs(1);
    assert_eq!(code(insert(&db, 1)), Some(ErrorCode::SystemIoFailure));
    insert(&db, 2).expect("the next one works");
    disk.slow_syncs(40);
    insert(&db, 3).expect("works");
    assert_eq!(disk.sync_cost_ms(), 40, "one commit, one sync");
    drop(db);
    disk.fail_next_reads(1);
    assert_eq!(code(open(&dir, &disk)), Some(ErrorCode::SystemIoFailure));
    assert_eq!(rows(&open(&dir, &disk).expect("the next one works")), [2, 3]);
}

#[test]
fn nothing_but_closing_works_without_power() {
    let disk = Disk::simulated(1);
    let (dir, db) = made(&disk);
    insert(&db, 1).expect("works");
    let files = || {
        let names =
            std::fs::read_dir(dir.path()).expect("a folder").map(|entry| entry.expect("reads").path());
        let disks = names.filter(|path| !path.to_string_lossy().ends_with("-shm"));
        disks.map(|path| (path.clone(), std::fs::read(path).expect("reads"))).collect::<Vec<_>>()
    };
    let before = files();
    disk.cut();
    assert!(disk.is_off());
    assert_eq!(code(insert(&db, 2)), Some(ErrorCode::SystemIoFailure));
    drop(db);
    assert_eq!(files(), before, "closing neither checkpoints nor deletes");
    assert_eq!(code(open(&dir, &disk)), Some(ErrorCode::CannotOpen));
    disk.power_on();
    assert!(!disk.is_off());
    assert_eq!(rows(&open(&dir, &disk).expect("opens")), [1]);
}

#[test]
fn what_was_committed_outlives_a_cut_at_every_sync() {
    let mut kept = BTreeSet::new();
    let mut cuts = 0;
    for sync in 1.. {
        let disk = Disk::simulated(sync);
        let (dir, db) = made(&disk);
        disk.cut_at_sync(sync);
        let done: Vec<u32> = (0..6)
            .take_while(|number| {
                let checkpointed = *number != 3
                    || db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0)) == Ok(0);
                checkpointed && insert(&db, *number).is_ok()
            })
            .collect();
        let was_cut = disk.is_off();
        drop(db);
        if !was_cut {
            break;
        }
        disk.power_on();
        let db = open(&dir, &disk).expect("opens clean");
        assert!(is_sound(&db), "cut at sync {sync}");
        let there = rows(&db);
        assert!(there.starts_with(&done) && there.len() <= done.len() + 1, "{there:?} after {done:?}");
        kept.insert(there.len() > done.len());
        cuts += 1;
    }
    assert!(cuts > 8, "{cuts}");
    assert_eq!(kept, [false, true].into(), "what was under way may stand or not");
}

#[test]
fn without_syncs_a_cut_takes_what_was_committed() {
    let mut lost = 0;
    for seed in 0..20 {
        let disk = Disk::simulated(seed);
        let (dir, db) = made(&disk);
        db.execute_batch("PRAGMA synchronous = OFF").expect("works");
        insert(&db, 1).expect("works");
        disk.cut();
        drop(db);
        disk.power_on();
        lost += usize::from(rows(&open(&dir, &disk).expect("opens")).is_empty());
    }
    assert!(lost > 0, "nothing was lost in 20 cuts");
}

#[test]
fn the_same_seed_loses_the_same() {
    let left = |seed| {
        let disk = Disk::simulated(seed);
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file =
            || Connection::open_with_flags_and_vfs(dir.path().join("db"), OpenFlags::default(), disk.name());
        let db = file().expect("opens");
        db.execute_batch("PRAGMA synchronous = OFF; CREATE TABLE t (a, filler)").expect("works");
        insert(&db, 1).expect("works");
        disk.cut();
        drop(db);
        disk.power_on();
        std::fs::read(dir.path().join("db")).ok()
    };
    assert_eq!(left(7), left(7));
    let all: BTreeSet<_> = (0..20).map(left).collect();
    assert!(all.len() > 5, "{} of 20 differ", all.len());
    assert!(all.contains(&None), "a file whose folder was never synced may vanish");
}

#[test]
fn a_deleted_journal_may_come_back_and_undo_what_it_was_for() {
    // SQLite's documentation of `synchronous`: FULL does not sync the folder after a rollback journal was
    // deleted, EXTRA does.
    let undone = |synchronous: &str| {
        let one = |seed| {
            let dir = tempfile::tempdir().expect("a temporary folder");
            let disk = Disk::simulated(seed);
            let file = || {
                Connection::open_with_flags_and_vfs(dir.path().join("db"), OpenFlags::default(), disk.name())
            };
            let db = file().expect("opens");
            db.pragma_update(None, "synchronous", synchronous).expect("works");
            db.execute_batch("CREATE TABLE t (a, filler)").expect("works");
            insert(&db, 1).expect("works");
            insert(&db, 2).expect("works");
            disk.cut();
            drop(db);
            disk.power_on();
            let db = file().expect("opens");
            assert!(is_sound(&db));
            rows(&db) == [1]
        };
        (0..20).filter(|seed| one(*seed)).count()
    };
    assert!(undone("FULL") > 0);
    assert_eq!(undone("EXTRA"), 0);
}

#[test]
fn a_sync_that_failed_and_forgot_loses_what_later_syncs_do_not_write_again() {
    let lost = |forgets: bool| {
        let one = |seed| {
            let dir = tempfile::tempdir().expect("a temporary folder");
            let disk = Disk::simulated(seed);
            disk.forget_on_failed_sync(forgets);
            let db = open(&dir, &disk).expect("opens");
            db.execute_batch("CREATE TABLE t (a, filler); PRAGMA synchronous = NORMAL").expect("works");
            // NORMAL leaves the syncing of the log to the checkpoint, which fails here and then does not.
            insert(&db, 1).expect("works");
            disk.fail_next_syncs(1);
            let checkpoint = || db.execute_batch("PRAGMA wal_checkpoint(PASSIVE)");
            assert_eq!(code(checkpoint()), Some(ErrorCode::SystemIoFailure));
            disk.cut_at_sync(2);
            let _ = checkpoint();
            assert!(disk.is_off(), "after the log's sync, before the database's");
            drop(db);
            disk.power_on();
            let db = open(&dir, &disk);
            !db.is_ok_and(|db| is_sound(&db) && rows(&db) == [1])
        };
        (0..20).filter(|seed| one(*seed)).count()
    };
    assert_eq!(lost(false), 0, "a sync that failed and did not forget is made up for");
    assert!(lost(true) > 0, "a sync that forgot is not");
}

#[test]
fn files_that_others_changed_are_taken_as_they_are() {
    let disk = Disk::simulated(1);
    let (dir, db) = made(&disk);
    insert(&db, 1).expect("works");
    drop(db);
    let backup = std::fs::read(dir.path().join("db")).expect("reads");
    let db = open(&dir, &disk).expect("opens");
    insert(&db, 2).expect("works");
    drop(db);
    std::fs::write(dir.path().join("db"), backup).expect("writes");
    disk.forget(dir.path());
    let db = open(&dir, &disk).expect("opens");
    insert(&db, 3).expect("works");
    disk.cut();
    drop(db);
    disk.power_on();
    assert_eq!(rows(&open(&dir, &disk).expect("opens")), [1, 3]);
}

#[test]
fn a_recording_tells_every_cut_again() {
    let disk = Disk::simulated(1);
    disk.record();
    let (dir, db) = made(&disk);
    for number in 0..3 {
        insert(&db, number).expect("works");
        disk.mark(u64::from(number));
    }
    drop(db);
    let recording = disk.recorded();
    assert_eq!(recording.iter().filter(|event| event.is_sync()).count() as u64, disk.syncs());
    let mut medium = medium::Medium::default();
    recording.iter().for_each(|event| medium.apply(event));
    let left = medium.crash(Loss::Nothing, &mut medium::Random::new(0));
    let file = dir.path().join("db");
    assert_eq!(left[&file].as_ref(), std::fs::read(&file).expect("reads"));
    let marks = recording.iter().filter(|event| matches!(event, Event::Marked(_)));
    assert_eq!(marks.count(), 3);
}
