//! What the benches share: CPU clocks, medians, and a report that says what must be reached.
#![allow(dead_code, unused_imports, reason = "each bench uses a part of it")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and ends where it fails")]

pub(crate) mod device;
pub(crate) mod diary;

use std::{fs, path::Path, thread, time::Duration};

/// Small sizes, for CI: `EBB_BENCH_SMOKE=1`. Figures are then printed and not judged.
pub(crate) fn is_smoke() -> bool {
    std::env::var_os("EBB_BENCH_SMOKE").is_some()
}

/// One of two sizes.
pub(crate) fn sized(full: usize, smoke: usize) -> usize {
    if is_smoke() { smoke } else { full }
}

/// CPU time of this thread so far.
///
/// Linux brings the counter up to date when the thread stops running, so it stops for a moment.
#[expect(
    clippy::disallowed_methods,
    reason = "the counter moves when the thread stops; it waits for nothing"
)]
pub(crate) fn thread_cpu() -> Duration {
    thread::sleep(Duration::from_micros(1));
    on_cpu(Path::new("/proc/thread-self/schedstat"))
}

/// Of this thread's CPU time so far, what it spent in programs and in the system, in ticks (samples, so
/// only sums over many are worth looking at).
pub(crate) fn thread_ticks() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let mut fields = after_name.split(' ').skip(11).map(|ticks| ticks.parse().unwrap_or(0));
    (fields.next().unwrap_or(0), fields.next().unwrap_or(0))
}

/// CPU time of all living threads of a process so far, once they have come to rest.
#[expect(clippy::disallowed_methods, reason = "another process's counters announce nothing")]
pub(crate) fn settled_cpu(pid: u32) -> Duration {
    let sum = || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
        tasks.flatten().map(|task| on_cpu(&task.path().join("schedstat"))).sum::<Duration>()
    };
    let mut last = sum();
    loop {
        thread::sleep(Duration::from_millis(60));
        let now = sum();
        if now == last {
            return now;
        }
        last = now;
    }
}

fn on_cpu(schedstat: &Path) -> Duration {
    let text = fs::read_to_string(schedstat).unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0))
}

/// The value below which this part of the samples lies.
pub(crate) fn quantile(samples: &[Duration], part: f64) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

/// The middle sample.
pub(crate) fn median(samples: &[Duration]) -> Duration {
    quantile(samples, 0.5)
}

/// In milliseconds.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// How long something takes by the clock on the wall.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = std::time::Instant::now();
    let outcome = work();
    (outcome, began.elapsed())
}

/// What must hold of a figure.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// Shown beside the others, not judged.
    None,
}

/// Prints figures beside their targets and remembers whether one was missed.
#[derive(Default)]
pub(crate) struct Report {
    missed: usize,
}

impl Report {
    pub(crate) fn new(title: &str) -> Self {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
        let smoke = if is_smoke() { ", SMOKE SIZES: nothing is judged" } else { "" };
        let build = if cfg!(debug_assertions) { ", NOT A RELEASE BUILD" } else { "" };
        println!("\n{title}\n(machine's load {load}{smoke}{build})\n");
        println!("{:<58} {:>14}   {:<16} verdict", "figure", "measured", "target");
        Self::default()
    }

    pub(crate) fn figure(&mut self, name: &str, value: f64, unit: &str, target: Target) {
        let digits = if value.fract() == 0.0 || value >= 1_000.0 { 0 } else { 3 };
        let measured = format!("{value:.digits$} {unit}");
        let (wanted, holds) = match target {
            Target::AtMost(most) => (format!("<= {most} {unit}"), value <= most),
            Target::AtLeast(least) => (format!(">= {least} {unit}"), value >= least),
            Target::None => (String::new(), true),
        };
        let verdict = match (target, holds) {
            (Target::None, _) => "",
            _ if is_smoke() => "-",
            (_, true) => "PASS",
            (_, false) => "FAIL",
        };
        self.missed += usize::from(!holds);
        println!("{name:<58} {measured:>14}   {wanted:<16} {verdict}");
    }

    pub(crate) fn note(&self, text: &str) {
        println!("  {text}");
    }

    /// Ends the process: 1 where a target was missed.
    pub(crate) fn end(self) {
        println!();
        if self.missed > 0 && !is_smoke() {
            println!("{} target(s) missed", self.missed);
            std::process::exit(1);
        }
    }
}

/// The arguments that are ours: cargo adds `--bench`.
pub(crate) fn arguments() -> Vec<String> {
    std::env::args().skip(1).filter(|argument| argument != "--bench").collect()
}
