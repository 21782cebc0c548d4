//! The course of a treatment: sessions and hours, time since a use, time in the programme.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;

use super::{Days, count, date, day_of, lived, number, number_of};
use crate::{
    clinical::{
        chart::{Chart, Point, Series},
        substance::Substance,
    },
    record::{Attendance, DrugScreen, Level, Moment, PlannedSession, ScreenResult, UseEvent, Visit, Writer},
};

/// Sessions and the time spent in them.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Attended {
    /// How many sessions were attended.
    pub kept: u32,
    /// How many were not.
    pub missed: u32,
    /// Of how many nobody knows.
    pub unknown: u32,
    /// How many minutes were attended, as far as they are told.
    pub minutes: u32,
    /// Of how many sessions that were attended no minutes are told.
    pub of_unknown_length: u32,
}

/// How attended hours compare with those that a level of care asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hours {
    /// Fewer than it asks for, and nothing is left open.
    Below,
    /// As many as it asks for; more, where sessions are left open.
    Within,
    /// As many as the next level has.
    Above,
    /// Fewer so far, but sessions or their lengths are not known: nobody can tell.
    Unknown,
}

/// Which uses are meant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Used {
    /// Of any substance.
    Any,
    /// Of an opioid, treatment's own among them: who tells of a use does not mean a dose.
    Opioid,
}

/// The time since a use, as far as anybody told.
///
/// Without a record of a use nothing follows: that none was told of does not say that there was none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SinceUse {
    /// The day of the last use that was told of.
    pub last_told: Option<Date>,
    /// How many days ago that was.
    pub days: Option<u32>,
    /// The day of the last screen that found what was not expected. It tells of a use some days before that,
    /// so it stands beside the other figure and does not change it.
    pub last_found: Option<Date>,
}

/// The time in the programme.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The day of the last admission.
    pub admitted: Date,
    /// The day of the discharge after it.
    pub discharged: Option<Date>,
    /// Days from the admission to the discharge, or to now; 0 on the first day.
    pub days: u32,
    /// The last day on which the person logged anything.
    pub last_logged: Option<Date>,
    /// The last day on which the care team saw them: a session attended, a dose watched, a screen.
    pub last_seen: Option<Date>,
}

impl Attended {
    /// Compares with the hours that a level of care asks for: from `hours_min` on, and `hours_max` is the
    /// next level's.
    ///
    /// ```
    /// use ebb_core::clinical::trend::{Attended, Hours};
    ///
    /// let week = Attended { kept: 3, minutes: 480, ..Attended::default() };
    /// assert_eq!(week.against(9.0, 20.0), Hours::Below);
    /// let open = Attended { of_unknown_length: 1, kept: 4, ..week };
    /// assert_eq!(open.against(9.0, 20.0), Hours::Unknown);
    /// ```
    #[must_use]
    pub fn against(self, hours_min: f32, hours_max: f32) -> Hours {
        let hours = f64::from(self.minutes) / 60.0;
        if hours >= f64::from(hours_max) {
            Hours::Above
        } else if hours >= f64::from(hours_min) {
            Hours::Within
        } else if self.unknown + self.of_unknown_length > 0 {
            Hours::Unknown
        } else {
            Hours::Below
        }
    }

    /// Returns how many sessions there are.
    #[must_use]
    pub fn sessions(self) -> u32 {
        self.kept + self.missed + self.unknown
    }

    fn add(&mut self, visit: &Visit) {
        match visit.attendance {
            Attendance::Kept => self.kept += 1,
            Attendance::Missed { .. } => self.missed += 1,
            Attendance::Unknown => self.unknown += 1,
        }
        match visit.minutes {
            Some(minutes) => self.minutes = self.minutes.saturating_add(minutes.into()),
            None if visit.attendance == Attendance::Kept => self.of_unknown_length += 1,
            None => {}
        }
    }
}

/// Counts sessions and minutes from one moment on and before another, in ms since the Unix epoch: those of a
/// programme week, say.
///
/// Records of the same session of the plan count once: one that knows before one that does not, the care
/// team's before the person's own, the later before the earlier.
#[must_use]
pub fn attended(chart: &Chart, from_ms: i64, until_ms: i64) -> Attended {
    tally(chart.visits.between(from_ms, until_ms))
}

/// Counts sessions and minutes on some days, as [`attended`] does.
#[must_use]
pub fn attended_on(chart: &Chart, days: Days) -> Attended {
    tally(lived(&chart.visits, days).map(|(_, visit)| visit))
}

/// Says how long ago a use was, at a moment.
#[must_use]
pub fn since_use(chart: &Chart, used: Used, now: Moment) -> SinceUse {
    let told = |point: &&Point<UseEvent>| used.covers(&point.value.substance);
    let found = |point: &&Point<DrugScreen>| used.covers(&point.value.substance) && surprises(&point.value);
    let last_told = until(&chart.uses, now).rev().find(told).map(|point| number_of(point.at));
    let last_found = until(&chart.screens, now).rev().find(found).map(|point| day_of(point.at));
    let days = last_told.map(|day| u32::try_from(number_of(now) - day).unwrap_or(0));
    SinceUse { last_told: last_told.map(date), days, last_found }
}

/// Counts the days on which a use was told of. That there are none does not say that there was no use.
#[must_use]
pub fn use_days(chart: &Chart, used: Used, days: Days) -> u32 {
    let told = lived(&chart.uses, days).filter(|(_, point)| used.covers(&point.value.substance));
    count(told.map(|(day, _)| day).collect::<BTreeSet<_>>().len())
}

/// Says how long the person has been in the programme, at a moment; `None` before the first admission.
///
/// The first move to a level of care is an admission, and so is the first after a discharge.
#[must_use]
pub fn retention(chart: &Chart, now: Moment) -> Option<Retention> {
    let (mut admitted, mut discharged) = (None, None);
    for section in chart.plan.level_moves() {
        if section.at.millis > now.millis {
            break;
        }
        if section.value.to == Level::Discharged {
            discharged = discharged.or(Some(day_of(section.at)));
        } else if admitted.is_none() || discharged.is_some() {
            (admitted, discharged) = (Some(day_of(section.at)), None);
        }
    }
    let admitted = admitted?;
    let end = discharged.map_or(number_of(now), number);
    let visit = until(&chart.visits, now).rev().find(|visit| visit.value.attendance == Attendance::Kept);
    let screen = until(&chart.screens, now)
        .rev()
        .find(|screen| screen.by == Writer::Clinic && screen.value.result != ScreenResult::Refused);
    let doses =
        chart.doses.values().filter_map(|doses| until(doses, now).rev().find(|dose| dose.value.observed));
    let seen = visit.map(|visit| visit.at).into_iter().chain(screen.map(|screen| screen.at));
    let seen = seen.chain(doses.map(|dose| dose.at));
    Some(Retention {
        admitted,
        discharged,
        days: u32::try_from(end - number(admitted)).unwrap_or(0),
        last_logged: chart.entries.latest(now.millis).map(|entry| day_of(entry.at)),
        last_seen: seen.map(day_of).max(),
    })
}

impl Used {
    fn covers(self, substance: &str) -> bool {
        self == Self::Any || Substance::of(substance).is_some_and(Substance::is_opioid)
    }
}

/// Says whether a screen found what was not expected. Medicines of treatment are, unless somebody judged.
fn surprises(screen: &DrugScreen) -> bool {
    let treats =
        matches!(Substance::of(&screen.substance), Some(Substance::Methadone | Substance::Buprenorphine));
    screen.result == ScreenResult::Positive && !screen.expected.unwrap_or(treats)
}

fn tally<'a>(visits: impl Iterator<Item = &'a Point<Visit>>) -> Attended {
    let weight = |visit: &Point<Visit>| {
        let known = visit.value.attendance != Attendance::Unknown;
        (known, visit.by == Writer::Clinic, visit.recorded_ms, visit.record)
    };
    let mut planned = BTreeMap::<PlannedSession, &Point<Visit>>::new();
    let mut attended = Attended::default();
    for visit in visits {
        let Some(session) = visit.value.planned else {
            attended.add(&visit.value);
            continue;
        };
        let counts = planned.entry(session).or_insert(visit);
        if weight(visit) > weight(counts) {
            *counts = visit;
        }
    }
    planned.values().for_each(|visit| attended.add(&visit.value));
    attended
}

/// Lists what happened up to and including a moment.
fn until<T>(series: &Series<T>, now: Moment) -> impl DoubleEndedIterator<Item = &Point<T>> {
    series.between(i64::MIN, now.millis.saturating_add(1))
}

unshown!(Attended, SinceUse, Retention);
