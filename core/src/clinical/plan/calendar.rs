//! Days and times of day in a zone, and the moments at which they are.
//!
//! Plans speak of days and of the clock on the wall; logs speak of moments. What lies between are zones whose
//! clocks are put forward and back: a time that the clocks skip is taken at the shifted moment, as far after
//! the skip as it was into it, and a time that they show twice is taken the first time. So every day has each
//! of its times once.

use jiff::{
    SignedDuration, Timestamp,
    civil::{Date, DateTime, Time},
    tz::{AmbiguousOffset, TimeZone},
};

use crate::record::{Invalid, OCCURRED_MILLIS_END, OCCURRED_MILLIS_MIN};

/// Milliseconds of a minute.
pub const MINUTE_MS: i64 = 60_000;
/// Milliseconds of an hour.
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
/// Milliseconds of a day on which no clock is changed.
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// A time zone.
///
/// ```
/// use ebb_core::clinical::plan::calendar::{HOUR_MS, Zone};
/// use jiff::civil::{date, time};
///
/// let zone = Zone::named("America/New_York").expect("a zone that exists");
/// // On this day the clocks went from 2 to 3.
/// let skipped = zone.moment_ms(date(2026, 3, 8), time(2, 30, 0, 0)).expect("a day that exists");
/// assert_eq!(zone.wall(skipped).time(), time(3, 30, 0, 0));
/// assert_eq!(skipped - zone.starts_ms(date(2026, 3, 8)), 2 * HOUR_MS + HOUR_MS / 2);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Zone(TimeZone);

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// Finds a zone by its IANA name.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn named(name: &str) -> Result<Self, Invalid> {
        let allowed = "the IANA name of a time zone, such as America/New_York";
        TimeZone::get(name).map(Self).map_err(|_| Invalid { field: "zone".into(), allowed: allowed.into() })
    }

    /// Returns the moment at which a day has a time, in ms since the Unix epoch; `None` on a day that the zone
    /// left out, as Samoa did when it changed sides of the date line.
    #[must_use]
    pub fn moment_ms(&self, day: Date, time: Time) -> Option<i64> {
        let moment = self.0.to_ambiguous_timestamp(day.to_datetime(time));
        let left_out = match moment.offset() {
            AmbiguousOffset::Gap { before, after } => after.seconds() - before.seconds() >= DAY_SECONDS,
            AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => false,
        };
        if left_out { None } else { moment.compatible().ok().map(Timestamp::as_millisecond) }
    }

    /// Returns what the calendar and the clock on the wall show at a moment.
    #[must_use]
    pub fn wall(&self, millis: i64) -> DateTime {
        let years = Timestamp::MIN.as_millisecond()..=Timestamp::MAX.as_millisecond();
        let moment = Timestamp::from_millisecond(millis.clamp(*years.start(), *years.end()));
        self.0.to_datetime(moment.unwrap_or(Timestamp::MAX))
    }

    /// Returns the day of a moment.
    #[must_use]
    pub fn day(&self, millis: i64) -> Date {
        self.wall(millis).date()
    }

    /// Returns when a day begins, in ms since the Unix epoch.
    #[must_use]
    pub fn starts_ms(&self, day: Date) -> i64 {
        let moment = self.0.to_ambiguous_timestamp(day.to_datetime(Time::midnight())).compatible();
        let outside = if day.year() < 0 { Timestamp::MIN } else { Timestamp::MAX };
        moment.unwrap_or(outside).as_millisecond()
    }

    /// Returns the first and the last day whose times may lie in a window, if it holds any moment that records
    /// may claim.
    pub(super) fn days_of(&self, from_ms: i64, until_ms: i64) -> Option<(Date, Date)> {
        let from_ms = from_ms.max(OCCURRED_MILLIS_MIN);
        let until_ms = until_ms.min(OCCURRED_MILLIS_END);
        // Clocks that change around midnight move a time to the day beside its own.
        (from_ms < until_ms).then(|| (plus_days(self.day(from_ms), -1), plus_days(self.day(until_ms), 1)))
    }
}

const DAY_SECONDS: i32 = 24 * 60 * 60;

/// Returns the day so many days later, or earlier if they are negative; the last there is where there is none.
#[must_use]
pub fn plus_days(day: Date, days: i64) -> Date {
    day.saturating_add(SignedDuration::from_hours(24 * days.clamp(-10_000_000, 10_000_000)))
}

/// Returns how many days it is from one day to another; negative if the other is earlier.
#[must_use]
pub fn days_between(from: Date, until: Date) -> i64 {
    until.duration_since(from).as_hours() / 24
}

/// Lists every so many days from a first one on, as far as they lie within a range.
pub(super) fn every(first: Date, days: i64, from: Date, last: Date) -> impl Iterator<Item = Date> {
    let days = days.max(1);
    let before = days_between(first, from).max(0);
    let start = (before + days - 1) / days * days;
    let many = days_between(first, last) - start;
    (0..=many).step_by(usize::try_from(days).unwrap_or(1)).map(move |more| plus_days(first, start + more))
}

#[cfg(test)]
pub(super) mod tests {
    use jiff::civil::{date, time};
    use proptest::prelude::*;

    use super::*;

    /// Zones with whole hours and half ones, with clocks that change at midnight, in Ramadan, by half an hour,
    /// or never.
    pub(in crate::clinical) const ZONES: &[&str] = &[
        "America/New_York",
        "Europe/London",
        "Australia/Lord_Howe",
        "Asia/Kathmandu",
        "America/St_Johns",
        "Africa/Casablanca",
        "America/Sao_Paulo",
        "America/Nuuk",
        "Asia/Beirut",
        "Pacific/Chatham",
    ];

    /// Days of the years in which clocks changed most.
    pub(in crate::clinical) fn days() -> impl Strategy<Value = Date> {
        (0i64..9_000).prop_map(|days| plus_days(date(2005, 1, 1), days))
    }

    /// Times of day, to the minute.
    pub(in crate::clinical) fn times() -> impl Strategy<Value = Time> {
        (0i8..24, 0i8..60).prop_map(|(hour, minute)| time(hour, minute, 0, 0))
    }

    #[test]
    fn a_zone_that_does_not_exist_is_refused() {
        let refused = Zone::named("America/Springfield").expect_err("a town in many states");
        assert_eq!(refused.field, "zone");
        assert!(refused.allowed.contains("IANA"), "{refused}");
    }

    #[test]
    fn a_repeated_hour_is_taken_the_first_time() {
        let zone = Zone::named("America/New_York").unwrap();
        let twice = zone.moment_ms(date(2026, 11, 1), time(1, 30, 0, 0)).unwrap();
        assert_eq!(twice, 1_793_511_000_000, "5:30 UTC, before the clocks went back");
        assert_eq!(zone.wall(twice + HOUR_MS).time(), time(1, 30, 0, 0));
    }

    #[test]
    fn a_day_that_the_zone_left_out_has_no_times() {
        let samoa = Zone::named("Pacific/Apia").unwrap();
        assert_eq!(samoa.moment_ms(date(2011, 12, 30), time(8, 0, 0, 0)), None);
        assert!(samoa.moment_ms(date(2011, 12, 31), time(8, 0, 0, 0)).is_some());
        assert_eq!(samoa.starts_ms(date(2011, 12, 30)), samoa.starts_ms(date(2011, 12, 31)));
    }

    #[test]
    fn moments_beyond_the_calendar_are_those_at_its_ends() {
        assert_eq!(Zone::UTC.day(i64::MAX).year(), 9999);
        assert_eq!(Zone::UTC.day(i64::MIN).year(), -9999);
        assert!(Zone::UTC.days_of(i64::MIN, i64::MAX).is_some());
        assert!(Zone::UTC.days_of(i64::MAX, i64::MIN).is_none());
        assert_eq!(plus_days(date(9999, 12, 31), 1), Date::MAX);
    }

    #[test]
    fn every_so_many_days_counts_from_the_first() {
        let listed = |first, days, from, last| every(first, days, from, last).collect::<Vec<_>>();
        let (first, day) = (date(2026, 1, 1), |day| date(2026, 1, day));
        assert_eq!(listed(first, 3, day(2), day(8)), [day(4), day(7)]);
        assert_eq!(listed(first, 3, day(4), day(4)), [day(4)]);
        assert_eq!(listed(first, 3, day(5), day(6)), []);
        assert_eq!(listed(first, 1, date(2025, 12, 30), day(2)), [day(1), day(2)]);
        assert_eq!(listed(first, 1, day(2), date(2025, 12, 30)), []);
    }
}
