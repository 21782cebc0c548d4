//! How long it takes to score an instrument, and to read all that are shipped.
//!
//! `cargo bench -p ebb-tests --bench instruments`
//!
//! Each instrument's complete answers are scored many times over; the slowest one is judged.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and ends where it fails")]

mod kit;

use std::{hint::black_box, time::Duration};

use ebb_core::clinical::instrument::{Answers, Instrument, Instruments};
use kit::{Report, Target, median, ms, sized, timed};

/// Many short rounds: what else the machine does then spoils a few of them, not the middle one.
const ROUNDS: usize = 500;

fn main() {
    let repeats = sized(200, 20);
    let (shipped, read) = timed(Instruments::shipped);
    let mut report = Report::new(&format!("instruments: each scored {ROUNDS} times {repeats} times"));
    report.figure("read and check every shipped file, once", ms(read), "ms", Target::None);
    let mut slowest = Duration::ZERO;
    for instrument in shipped.iter() {
        let took = score(instrument, repeats);
        report.figure(&instrument.id, ms(took) * 1e3, "us", Target::None);
        slowest = slowest.max(took);
    }
    report.figure("score the slowest one", ms(slowest) * 1e3, "us", Target::AtMost(5.0));
    report.end();
}

/// One scoring's time: the median of rounds.
fn score(instrument: &Instrument, repeats: usize) -> Duration {
    let answers: Answers =
        instrument.items.iter().map(|item| (item.id.clone(), item.answer.values().max().unwrap())).collect();
    let rounds = (0..ROUNDS).map(|_| {
        let all = || (0..repeats).for_each(|_| drop(black_box(instrument.score(black_box(&answers), None))));
        timed(all).1 / u32::try_from(repeats).unwrap()
    });
    median(&rounds.collect::<Vec<_>>())
}
