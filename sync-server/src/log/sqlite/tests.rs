use tempfile::TempDir;

use super::*;
use crate::{
    log::conformance::{conformance, founding, placed},
    testing::{Patient, STREAM, head_after},
};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("log.sqlite")
}

#[test]
fn it_conforms() {
    let folder = folder();
    let number = std::cell::Cell::new(0);
    conformance(|| {
        number.set(number.get() + 1);
        SqliteLog::open(&folder.path().join(format!("{}.sqlite", number.get())), Options::default()).unwrap()
    });
}

#[test]
fn only_one_process_has_the_file() {
    let folder = folder();
    let log = SqliteLog::open(&file(&folder), Options::default()).unwrap();
    assert!(matches!(SqliteLog::open(&file(&folder), Options::default()), Err(LogError::InUse(_))));
    let reader = log.reader().unwrap();
    drop(log);
    assert!(matches!(SqliteLog::open(&file(&folder), Options::default()), Err(LogError::InUse(_))));
    drop(reader);
    SqliteLog::open(&file(&folder), Options::default()).unwrap();
}

#[test]
fn it_writes_as_carefully_as_it_says() {
    let folder = folder();
    let log = SqliteLog::open(&file(&folder), Options::default()).unwrap();
    let pragma = |name: &str| -> String {
        let read = |row: &Row<'_>| row.get::<_, rusqlite::types::Value>(0);
        match log.db.db.query_row(&format!("PRAGMA {name}"), [], read).unwrap() {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(pragma("journal_mode"), "wal");
    assert_eq!(pragma("synchronous"), "2");
    assert_eq!(pragma("page_size"), PAGE_BYTES.to_string());
    assert_eq!(pragma("wal_autocheckpoint"), CHECKPOINT_PAGES.to_string());
    assert_eq!(pragma("user_version"), SCHEMA.len().to_string());
}

#[test]
fn a_later_versions_file_and_a_strangers_are_refused() {
    let folder = folder();
    drop(SqliteLog::open(&file(&folder), Options::default()).unwrap());
    let db = Connection::open(file(&folder)).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let error = SqliteLog::open(&file(&folder), Options::default()).unwrap_err();
    assert_eq!(error, LogError::Newer { found: 99, known: 1 });
    let other = folder.path().join("other.sqlite");
    Connection::open(&other).unwrap().execute_batch("PRAGMA user_version = 1; CREATE TABLE t (x)").unwrap();
    assert!(matches!(SqliteLog::open(&other, Options::default()), Err(LogError::Damaged(_))));
}

#[test]
fn a_full_file_is_told_from_a_broken_one_and_goes_on_when_there_is_room() {
    let folder = folder();
    let options = Options { pages_max: Some(60), ..Options::default() };
    let mut log = SqliteLog::open(&file(&folder), options).unwrap();
    let mut patient = Patient::new(1);
    log.commit(&[founding(&patient)]).unwrap();
    let mut envelopes = Vec::new();
    let failed = loop {
        let more = vec![patient.write(10_000)];
        let before = head_after(patient.space, STREAM, &envelopes);
        let part = SpaceWrites {
            space: patient.space,
            begins: None,
            entries: Vec::new(),
            envelopes: placed(&patient, before, &more),
        };
        match log.commit(std::slice::from_ref(&part)).and_then(|mut outcomes| outcomes.remove(0)) {
            Ok(()) => envelopes.extend(more),
            Err(error) => {
                assert_eq!(error, LogError::Full);
                break part;
            }
        }
    };
    assert!(envelopes.len() > 5);
    assert_eq!(log.probe(), Err(LogError::Full), "one row would find room");
    assert_eq!(log.head(&patient.space, &STREAM), Ok(head_after(patient.space, STREAM, &envelopes)));
    log.db.db.pragma_update(None, "max_page_count", 1000).unwrap();
    assert_eq!(log.probe(), Ok(()));
    assert_eq!(log.commit(&[failed]), Ok(vec![Ok(())]));
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let folder = folder();
    let mut log = SqliteLog::open(&file(&folder), Options::default()).unwrap();
    let mut patient = Patient::new(1);
    let envelopes = patient.write_many(3);
    let mut part = founding(&patient);
    part.envelopes = placed(&patient, head_after(patient.space, STREAM, &[]), &envelopes);
    log.commit(&[part]).unwrap();
    drop(log);
    let log = SqliteLog::open(&file(&folder), Options::default()).unwrap();
    assert_eq!(log.head(&patient.space, &STREAM), Ok(head_after(patient.space, STREAM, &envelopes)));
}

#[test]
fn a_log_that_is_closed_leaves_one_file_though_a_reader_is_still_open() {
    let folder = folder();
    let mut log = SqliteLog::open(&file(&folder), Options::default()).unwrap();
    let reader = log.reader().unwrap();
    log.commit(&[founding(&Patient::new(1))]).unwrap();
    let beside = || std::fs::metadata(folder.path().join("log.sqlite-wal")).unwrap().len();
    assert!(beside() > 0);
    drop(log);
    assert_eq!(beside(), 0);
    drop(reader);
}
