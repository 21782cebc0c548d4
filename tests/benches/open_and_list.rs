//! How long it takes to open two years of records and to list a month, without Automerge.
//!
//! `cargo bench -p ebb-tests --bench open_and_list`
//!
//! 15,000 mixed records, opened anew several times; a month from each quarter is listed.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and ends where it fails")]

mod kit;

use ebb_core::{Query, document};
use kit::{
    Report, Target,
    diary::{BEGAN_MS, Phone, open},
    median, ms, quantile, sized, thread_cpu, timed,
};

const MONTH_MS: i64 = 30 * 86_400_000;
const OPENS: usize = 15;

fn main() {
    let count = sized(15_000, 300);
    let dir = tempfile::tempdir().unwrap();
    let mut phone = Phone::open(dir.path(), 1, None);
    // As synced now and then: everything is sealed, some hundred records to an envelope.
    for done in (0..count).step_by(500) {
        phone.log(500.min(count - done));
        phone.replica.with_engine(ebb_core::Engine::seal_now).unwrap();
    }
    let Phone { replica, space, diary } = phone;
    replica.lock();
    drop(replica);

    let clock = diary.clock;
    let calls = document::automerge_calls();
    let (mut opens, mut lists, mut opened_cpu, mut listed_cpu) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut listed = Vec::new();
    for round in 0..OPENS {
        let before = thread_cpu();
        let (replica, took) = timed(|| open(dir.path(), &clock, None));
        opened_cpu.push(thread_cpu() - before);
        opens.push(took);
        let began = i64::try_from(BEGAN_MS).unwrap();
        let from = began + i64::try_from(round % 8).unwrap() * 3 * MONTH_MS;
        let month = Query { from_ms: Some(from), until_ms: Some(from + MONTH_MS), ..Query::default() };
        let before = thread_cpu();
        // The first list after opening: nothing of it is cached.
        let (records, took) = timed(|| replica.records(space, &month).unwrap());
        listed_cpu.push(thread_cpu() - before);
        lists.push(took);
        listed.push(records.len());
        assert_eq!(replica.with_engine(|engine| engine.count(&space)).unwrap().0 as usize, count);
        replica.lock();
    }
    let called = document::automerge_calls() - calls;

    let mut report = Report::new(&format!("open_and_list: {count} mixed records over two years"));
    listed.sort_unstable();
    report.figure("records in a month, median", listed[OPENS / 2] as f64, "", Target::None);
    report.figure("open, median", ms(median(&opens)), "ms", Target::AtMost(100.0));
    report.figure("open, slowest", ms(quantile(&opens, 1.0)), "ms", Target::None);
    report.figure("open, CPU", ms(median(&opened_cpu)), "ms", Target::None);
    report.figure("list a month, median", ms(median(&lists)), "ms", Target::AtMost(5.0));
    report.figure("list a month, slowest", ms(quantile(&lists, 1.0)), "ms", Target::None);
    report.figure("list a month, CPU", ms(median(&listed_cpu)), "ms", Target::None);
    report.figure("calls of Automerge by all of it", called as f64, "", Target::AtMost(0.0));
    assert_eq!(called, 0, "opening and listing never call Automerge");
    report.end();
}
