//! When sessions are held, when something is asked of the person, and when a programme week begins.

use std::fmt;

use jiff::civil::{Date, DateTime};

use super::{
    Plan,
    calendar::{DAY_MS, HOUR_MS, MINUTE_MS, Zone, days_between, every, plus_days},
};
use crate::record::{Ask, Cadence, PlannedSession, RecordId, SessionSeries, Weekday};

/// The most that an answer may come before its moment.
pub const EARLY_MS_MAX: i64 = 2 * HOUR_MS;

/// Fewest hours a week of intensive outpatient treatment, where the programme says nothing: ASAM 2.1.
pub const HOURS_MIN: f32 = 9.0;

/// From how many hours a week on it is of the next level of care, where the programme says nothing: ASAM 2.5.
pub const HOURS_MAX: f32 = 20.0;

/// A session that a series has.
#[derive(Clone, Copy, PartialEq)]
pub struct DueSession<'a> {
    /// Which session it is.
    pub planned: PlannedSession,
    /// When it begins, in ms since the Unix epoch.
    pub starts_ms: i64,
    /// When it ends, in ms since the Unix epoch.
    pub ends_ms: i64,
    /// When it begins, by the calendar and the clock on the clinic's wall.
    pub at: DateTime,
    /// Whether it was moved.
    pub moved: bool,
    /// What is held.
    pub series: &'a SessionSeries,
}

/// Lists the sessions that begin from one moment on and before another, in ms since the Unix epoch.
///
/// Weeks are counted from the one of the series' first day, and begin on Mondays. A session that was moved is
/// where it was moved to; one that was moved and cancelled is not held. In a zone that this version does not
/// know, none is.
#[must_use]
pub fn sessions(
    record: RecordId,
    series: &SessionSeries,
    from_ms: i64,
    until_ms: i64,
) -> Vec<DueSession<'_>> {
    let Ok(zone) = Zone::named(&series.zone) else { return Vec::new() };
    let Some((first, last)) = zone.days_of(from_ms, until_ms) else { return Vec::new() };
    let moved_here = series.moved.iter().filter(|moved| (first..=last).contains(&moved.to));
    let days = every(first, 1, first, last).chain(moved_here.map(|moved| moved.from));
    let mut due: Vec<_> = days.filter_map(|day| session_in(&zone, record, series, day)).collect();
    due.retain(|session| (from_ms..until_ms).contains(&session.starts_ms));
    due.sort_by_key(|session| (session.starts_ms, session.planned.on));
    due.dedup_by_key(|session| session.planned);
    due
}

/// Returns the session that a series has for a day, wherever it was moved to; `None` if it has none.
#[must_use]
pub fn session_of(record: RecordId, series: &SessionSeries, day: Date) -> Option<DueSession<'_>> {
    session_in(&Zone::named(&series.zone).ok()?, record, series, day)
}

fn session_in<'a>(
    zone: &Zone,
    record: RecordId,
    series: &'a SessionSeries,
    on: Date,
) -> Option<DueSession<'a>> {
    let moved = moved_to(series, on);
    let (day, start) = moved.unwrap_or((on, series.start));
    let held = has(series, on) && !series.cancelled.contains(&on);
    let starts_ms = zone.moment_ms(day, start).filter(|_| held)?;
    let ends_ms = starts_ms + i64::from(series.minutes) * MINUTE_MS;
    let (planned, at) = (PlannedSession { series: record, on }, zone.wall(starts_ms));
    Some(DueSession { planned, starts_ms, ends_ms, at, moved: moved.is_some(), series })
}

/// Says whether the series' rule has a session on a day.
fn has(series: &SessionSeries, day: Date) -> bool {
    let within = series.first <= day && series.last.is_none_or(|last| day <= last);
    let weeks = days_between(week_start(series.first, Weekday::Monday), day).div_euclid(7);
    within && series.weekdays.contains(&Weekday::of(day)) && weeks % i64::from(series.every_weeks.max(1)) == 0
}

fn moved_to(series: &SessionSeries, day: Date) -> Option<(Date, jiff::civil::Time)> {
    series.moved.iter().rev().find(|moved| moved.from == day).map(|moved| (moved.to, moved.start))
}

/// The first day of a day's week.
fn week_start(day: Date, starts: Weekday) -> Date {
    plus_days(day, -(number(Weekday::of(day)) - number(starts)).rem_euclid(7))
}

/// A weekday's number, 0 for Mondays.
fn number(day: Weekday) -> i64 {
    match day {
        Weekday::Monday => 0,
        Weekday::Tuesday => 1,
        Weekday::Wednesday => 2,
        Weekday::Thursday => 3,
        Weekday::Friday => 4,
        Weekday::Saturday => 5,
        Weekday::Sunday => 6,
    }
}

/// A moment at which something is asked of the person.
#[derive(Clone, Copy, PartialEq)]
pub struct DueAsk<'a> {
    /// The cadence's record.
    pub cadence: RecordId,
    /// What is asked.
    pub ask: &'a Ask,
    /// When, in ms since the Unix epoch.
    pub due_ms: i64,
    /// When, by the calendar and the clock on the wall.
    pub at: DateTime,
    /// From when on an answer is one to this, in ms since the Unix epoch: [`EARLY_MS_MAX`] before, or half of
    /// the time since the moment before this one, if that is less.
    pub opens_ms: i64,
    /// From when on it is one to the next, in ms since the Unix epoch.
    pub closes_ms: i64,
}

/// Lists the moments of a cadence from one moment on and before another, in ms since the Unix epoch.
///
/// Each day and time has one, whatever the clocks do (see [`super::calendar`]).
#[must_use]
pub fn due_asks(record: RecordId, cadence: &Cadence, from_ms: i64, until_ms: i64) -> Vec<DueAsk<'_>> {
    let Ok(zone) = Zone::named(&cadence.zone) else { return Vec::new() };
    let Some((first, last)) = zone.days_of(from_ms, until_ms) else { return Vec::new() };
    // One round more on either side, for the neighbours that say when answers count.
    let round = i64::from(cadence.every_days.max(1));
    let end = cadence.last.unwrap_or(Date::MAX).min(plus_days(last, round));
    let days = every(cadence.first, round, plus_days(first, -round), end);
    let times = days.flat_map(|day| cadence.times.iter().map(move |time| (day, *time)));
    let mut moments: Vec<_> = times.filter_map(|(day, time)| zone.moment_ms(day, time)).collect();
    moments.sort_unstable();

    let opens = |place: usize| {
        let before = place.checked_sub(1).map_or(i64::MIN, |before| moments[before]);
        moments[place] - (moments[place].saturating_sub(before) / 2).min(EARLY_MS_MAX)
    };
    let within = (0..moments.len()).filter(|place| (from_ms..until_ms).contains(&moments[*place]));
    let asks = within.map(|place| {
        let due_ms = moments[place];
        let after = place + 1;
        let closes_ms = if after < moments.len() { opens(after) } else { due_ms + round * DAY_MS };
        let (at, opens_ms) = (zone.wall(due_ms), opens(place));
        DueAsk { cadence: record, ask: &cadence.ask, due_ms, at, opens_ms, closes_ms }
    });
    asks.collect()
}

/// How a programme counts its weeks, and how many hours it wants in them.
#[derive(Clone, PartialEq, Debug)]
pub struct Weeks {
    /// The zone of its days.
    pub zone: Zone,
    /// The day on which a week begins.
    pub starts: Weekday,
    /// Fewest hours a week.
    pub hours_min: f32,
    /// From how many hours on a week is of the next level of care.
    pub hours_max: f32,
}

/// A week of the programme.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProgrammeWeek {
    /// Its first day.
    pub first: Date,
    /// When it begins, in ms since the Unix epoch.
    pub starts_ms: i64,
    /// When the next one begins, in ms since the Unix epoch.
    pub ends_ms: i64,
}

impl Weeks {
    /// Reads them from the plan's programme; without one, weeks begin on Mondays in the zone of the first
    /// series of sessions, or in UTC, and hours are ASAM's.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let programme = plan.programme();
        let zones = programme.map(|programme| &programme.zone).into_iter();
        let mut zones = zones.chain(plan.series().map(|series| &series.value.zone));
        let zone = zones.find_map(|zone| Zone::named(zone).ok()).unwrap_or(Zone::UTC);
        let [hours_min, hours_max] =
            programme.map_or([HOURS_MIN, HOURS_MAX], |programme| [programme.hours_min, programme.hours_max]);
        let starts = programme.map_or(Weekday::Monday, |programme| programme.week_starts);
        Self { zone, starts, hours_min, hours_max }
    }

    /// Returns the week of a day.
    #[must_use]
    pub fn of_day(&self, day: Date) -> ProgrammeWeek {
        ProgrammeWeek::of(day, &self.zone, self.starts)
    }

    /// Returns the week of a moment, in ms since the Unix epoch.
    #[must_use]
    pub fn at(&self, millis: i64) -> ProgrammeWeek {
        self.of_day(self.zone.day(millis))
    }

    /// Lists the weeks that have a day from the first to the last.
    pub fn between(&self, first: Date, last: Date) -> impl Iterator<Item = ProgrammeWeek> {
        let from = self.of_day(first).first;
        every(from, 7, from, last).map(|day| self.of_day(day))
    }
}

impl ProgrammeWeek {
    /// Returns the week of a day.
    #[must_use]
    pub fn of(day: Date, zone: &Zone, starts: Weekday) -> Self {
        let first = week_start(day, starts);
        let (starts_ms, ends_ms) = (zone.starts_ms(first), zone.starts_ms(plus_days(first, 7)));
        Self { first, starts_ms, ends_ms }
    }

    /// Returns its last day.
    #[must_use]
    pub fn last(&self) -> Date {
        plus_days(self.first, 6)
    }
}

/// Shows nothing: contents stay out of logs.
impl fmt::Debug for DueSession<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DueSession").finish_non_exhaustive()
    }
}

/// Shows nothing: contents stay out of logs.
impl fmt::Debug for DueAsk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DueAsk").finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(in crate::clinical) mod tests;
