//! How much a device may do, and what is left of it.

use ebb_protocol::id::Millis;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// An author's envelopes that are given back after a loss have so many times the ordinary allowance: 10,000
/// at once is a year of one device, and what a hostile one gains by pretending stays within a multiple.
pub const REFILL_FACTOR: u32 = 10;
/// Roster entries of one device, here in the place of envelopes: a whole frame at once, then one a second,
/// far above what people do to a roster; bytes for a hundred rotations of the largest size a day.
pub(super) const ROSTER: Allowance =
    Allowance { envelopes_per_minute: 60, envelopes_burst: 256, bytes_per_day: 64 << 20 };

/// How much a device may append to a space; 0 stands for no limit.
///
/// What is given back after a loss does not count here; it has [`REFILL_FACTOR`] times as much to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Envelopes per minute in the long run.
    pub envelopes_per_minute: u32,
    /// Envelopes at once.
    pub envelopes_burst: u32,
    /// Bytes of envelopes per day.
    pub bytes_per_day: u64,
}

impl Default for Allowance {
    /// The protocol's first limits (section 8): 120 a minute, 1,000 at once, 20 MiB a day.
    fn default() -> Self {
        Self { envelopes_per_minute: 120, envelopes_burst: 1_000, bytes_per_day: 20 << 20 }
    }
}

impl Allowance {
    /// So many times as much; what has no limit still has none.
    pub(super) fn times(self, factor: u32) -> Self {
        Self {
            envelopes_per_minute: self.envelopes_per_minute.saturating_mul(factor),
            envelopes_burst: self.envelopes_burst.saturating_mul(factor),
            bytes_per_day: self.bytes_per_day.saturating_mul(u64::from(factor)),
        }
    }
}

/// What is counted apart from the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    Envelopes,
    Refill,
    Roster,
}

/// What is left of a device's allowance, in units so fine that no refill is lost to rounding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    at: Millis,
    /// One envelope is 60,000 of these.
    envelopes: u64,
    /// One byte is 86,400,000 of these.
    bytes: u64,
}

impl Spent {
    pub(super) fn nothing(now: Millis, allowance: &Allowance) -> Self {
        let envelopes = u64::from(allowance.envelopes_burst) * MINUTE_MS;
        Self { at: now, envelopes, bytes: allowance.bytes_per_day.saturating_mul(DAY_MS) }
    }

    /// Takes an envelope (or entry) of so many bytes from the allowance.
    ///
    /// # Errors
    /// Where not enough is left, with the milliseconds until there is.
    pub(super) fn spend(&mut self, now: Millis, allowance: &Allowance, bytes: usize) -> Result<(), u32> {
        let full = Self::nothing(now, allowance);
        let passed_ms = now.since(self.at);
        let refill =
            |left: u64, rate: u64, full: u64| left.saturating_add(passed_ms.saturating_mul(rate)).min(full);
        let per_minute = u64::from(allowance.envelopes_per_minute);
        self.envelopes = refill(self.envelopes, per_minute, full.envelopes);
        self.bytes = refill(self.bytes, allowance.bytes_per_day, full.bytes);
        self.at = now;
        let needs = |rate: u64, left: u64, cost: u64| match rate {
            0 => 0,
            rate => cost.saturating_sub(left).div_ceil(rate),
        };
        let bytes = (bytes as u64).saturating_mul(DAY_MS);
        let wait_ms = needs(per_minute, self.envelopes, MINUTE_MS).max(needs(
            allowance.bytes_per_day,
            self.bytes,
            bytes,
        ));
        if wait_ms > 0 {
            return Err(u32::try_from(wait_ms).unwrap_or(u32::MAX));
        }
        self.envelopes = self.envelopes.saturating_sub(MINUTE_MS);
        self.bytes = self.bytes.saturating_sub(bytes);
        Ok(())
    }
}

/// Spaces that may be founded here, whoever founds them.
#[derive(Debug)]
pub(super) struct Foundings {
    allowance: Allowance,
    spent: Option<Spent>,
}

impl Foundings {
    /// So many a minute; 0 stands for no limit.
    pub(super) fn new(per_minute: u32) -> Self {
        let allowance =
            Allowance { envelopes_per_minute: per_minute, envelopes_burst: per_minute, bytes_per_day: 0 };
        Self { allowance, spent: None }
    }

    /// Takes one.
    ///
    /// # Errors
    /// Where none is left, with the milliseconds until one is.
    pub(super) fn spend(&mut self, now: Millis) -> Result<(), u32> {
        let allowance = self.allowance;
        self.spent.get_or_insert_with(|| Spent::nothing(now, &allowance)).spend(now, &allowance, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_allows_its_burst_and_then_its_rate() {
        let allowance = Allowance { envelopes_per_minute: 120, envelopes_burst: 10, bytes_per_day: 0 };
        let mut spent = Spent::nothing(Millis(0), &allowance);
        for _ in 0..10 {
            assert_eq!(spent.spend(Millis(0), &allowance, 1000), Ok(()));
        }
        assert_eq!(spent.spend(Millis(0), &allowance, 1000), Err(500));
        assert_eq!(spent.spend(Millis(499), &allowance, 1000), Err(1));
        assert_eq!(spent.spend(Millis(500), &allowance, 1000), Ok(()));
        assert_eq!(spent.spend(Millis(500), &allowance, 1000), Err(500));
    }

    #[test]
    fn bytes_are_counted_over_a_day() {
        let allowance = Allowance { envelopes_per_minute: 0, envelopes_burst: 0, bytes_per_day: 1000 };
        let mut spent = Spent::nothing(Millis(0), &allowance);
        assert_eq!(spent.spend(Millis(0), &allowance, 1000), Ok(()));
        let half_a_day = spent.spend(Millis(0), &allowance, 500);
        assert_eq!(half_a_day, Err(43_200_000));
        assert_eq!(spent.spend(Millis(43_200_000), &allowance, 500), Ok(()));
    }
}
