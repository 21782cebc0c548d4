use std::{process::Command, sync::Barrier};

use super::*;

/// Opens eight databases in as many threads at once: the first that this process opens.
fn open_from_eight_threads() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let together = Barrier::new(8);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (file, together) = (root.path().join(number.to_string()), &together);
            scope.spawn(move || {
                together.wait();
                connect(&file, &[number; 32], None).map(drop).expect("opens");
            });
        }
    });
}

/// Without it, Apple's systems leave in the drive's cache what a commit says is saved.
#[test]
fn every_sync_goes_to_the_medium() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let db = connect(&root.path().join("ebb.db"), &[1; 32], None).expect("opens");
    for pragma in ["fullfsync", "checkpoint_fullfsync"] {
        let on = db.pragma_query_value(None, pragma, |row| row.get::<_, bool>(0));
        assert_eq!(on, Ok(true), "{pragma}");
    }
}

/// SQLite starts once in a process, so this takes many. Without [`connect`]'s turns and tries some of them
/// fail, and now and then one crashes.
#[test]
fn eight_threads_open_the_first_databases_of_a_process_at_once() {
    const CHILD: &str = "EBB_OPENS_EIGHT";
    if std::env::var_os(CHILD).is_some() {
        return open_from_eight_threads();
    }
    let this = std::env::current_exe().expect("a test binary");
    for round in 0..100 {
        let child = Command::new(&this)
            .args(["--exact", "store::tests::eight_threads_open_the_first_databases_of_a_process_at_once"])
            .env(CHILD, "1")
            .output()
            .expect("starts");
        assert!(child.status.success(), "round {round}: {}", String::from_utf8_lossy(&child.stdout));
    }
}
