//! What happened, in words and as one number, and how often.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

/// What happened: names, sequences, positions and verdicts, and no hash, signature or ciphertext, so that
/// two runs of one scenario have the same.
#[derive(Debug)]
pub struct Trace {
    lines: Option<Vec<String>>,
    hasher: DefaultHasher,
}

impl Trace {
    pub(super) fn new(tells: bool) -> Self {
        Self { lines: tells.then(Vec::new), hasher: DefaultHasher::new() }
    }

    pub(super) fn line(&mut self, now_ms: u64, line: impl FnOnce() -> String) {
        let line = line();
        (now_ms, &line).hash(&mut self.hasher);
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>9.3} s  {line}", now_ms as f64 / 1000.0));
        }
    }

    /// One number for everything that happened.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    /// The lines, if they were asked for.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}

/// How often what happened.
#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    pub(super) fn count(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    pub(super) fn add(&mut self, what: &'static str, times: u64) {
        *self.0.entry(what).or_default() += times;
    }

    /// Adds another run's.
    pub fn merge(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            self.add(what, *times);
        }
    }

    /// Everything, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(what, times)| (*what, *times))
    }

    /// How often something happened.
    #[must_use]
    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }
}
