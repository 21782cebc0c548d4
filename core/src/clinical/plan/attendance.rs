//! Sessions attended, not attended, and those of which nobody knows: by week, and each.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::civil::Date;

use super::{
    calendar::{DAY_MS, plus_days},
    schedule::{DueSession, ProgrammeWeek, Weeks, session_of, sessions},
};
use crate::{
    clinical::chart::{Chart, Point},
    record::{Attendance, PlannedSession, RecordId, SessionKind, Visit, Writer},
};

/// How long after or before its session a visit may lie that names it.
const NAMED_MS_MAX: i64 = 28 * DAY_MS;

/// A session of the plan, a visit, or both.
#[derive(Clone)]
pub struct Occasion<'a> {
    /// When it begins, in ms since the Unix epoch: by the plan, or else by the visit.
    pub at_ms: i64,
    /// Its day, in the programme's zone.
    pub day: Date,
    /// The session of the plan.
    pub planned: Option<DueSession<'a>>,
    /// What is known of it: the care team's word before the person's own, whichever of them knows.
    pub visit: Option<&'a Point<Visit>>,
    /// Every record that tells of it.
    pub records: Vec<RecordId>,
}

/// Tells what became of a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Outcome {
    /// It was attended.
    Kept,
    /// It was not attended.
    Missed,
    /// Nobody knows, or has said so yet.
    Unknown,
}

impl Occasion<'_> {
    /// Returns what became of it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self.visit.map(|visit| &visit.value.attendance) {
            Some(Attendance::Kept) => Outcome::Kept,
            Some(Attendance::Missed { .. }) => Outcome::Missed,
            Some(Attendance::Unknown) | None => Outcome::Unknown,
        }
    }

    /// Returns the kind of session.
    #[must_use]
    pub fn kind(&self) -> Option<&SessionKind> {
        let told = self.visit.map(|visit| &visit.value.session);
        told.or_else(|| self.planned.map(|planned| &planned.series.session))
    }

    /// Returns how many minutes it takes: those that were attended, where they are told, or else the plan's.
    #[must_use]
    pub fn minutes(&self) -> Option<u32> {
        let told = self.visit.and_then(|visit| visit.value.minutes);
        told.or_else(|| self.planned.map(|planned| planned.series.minutes)).map(u32::from)
    }
}

/// Lists the sessions and visits that begin from one moment on and before another, in ms since the Unix epoch,
/// the earliest first.
///
/// A visit belongs to the session that it names; one that names none, to the closest of its kind on its day,
/// in the programme's zone. Where both the person and the care team tell of a session, it is one all the same:
/// so is a visit that is not in the plan, if both tell of one of that kind on that day.
#[must_use]
pub fn occasions(chart: &Chart, from_ms: i64, until_ms: i64) -> Vec<Occasion<'_>> {
    if from_ms >= until_ms {
        return Vec::new();
    }
    let zone = Weeks::of(&chart.plan).zone;
    // Whole days, so that a day's visits find its sessions whichever window is asked for.
    let first_ms = zone.starts_ms(zone.day(from_ms));
    let end_ms = zone.starts_ms(plus_days(zone.day(until_ms - 1), 1));

    let held = chart.plan.series();
    let held = held.flat_map(|section| sessions(section.record, section.value, first_ms, end_ms));
    let mut found: Vec<_> = held
        .map(|session| Found {
            at_ms: session.starts_ms,
            planned: Some(session),
            clinic: None,
            patient: None,
        })
        .collect();
    found.sort_by_key(|session| (session.at_ms, session.planned.map(|planned| planned.planned)));
    let names = (0..).zip(&found).filter_map(|(place, one)| Some((one.planned?.planned, place)));
    let by_name: BTreeMap<PlannedSession, usize> = names.collect();

    let from = first_ms.saturating_sub(NAMED_MS_MAX);
    let mut others = Vec::new();
    for visit in chart.visits.between(from, end_ms.saturating_add(NAMED_MS_MAX)) {
        let named = visit.value.planned;
        if let Some(place) = named.and_then(|named| by_name.get(&named)) {
            found[*place].tell(visit);
        } else if (first_ms..end_ms).contains(&visit.at.millis)
            && !named.is_some_and(|named| is_held(chart, named))
        {
            others.push(visit);
        }
    }

    // By day and kind, so that a year's sessions are not held against a year's visits.
    let mut others_of: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for visit in &others {
        others_of.entry((zone.day(visit.at.millis), &visit.value.session)).or_default().push(*visit);
    }
    let mut taken = BTreeSet::new();
    let mut pairs = Vec::new();
    for (place, session) in found.iter().enumerate().filter(|_| !others_of.is_empty()) {
        let Some(planned) = session.planned else { continue };
        let near = others_of.get(&(zone.day(session.at_ms), &planned.series.session));
        for visit in near.into_iter().flatten() {
            if session.told_by(visit.by).is_none() {
                pairs.push(((visit.at.millis - session.at_ms).abs(), place, *visit));
            }
        }
    }
    pairs.sort_by_key(|(apart_ms, place, visit)| (*apart_ms, *place, visit.record));
    for (_, place, visit) in pairs {
        if found[place].told_by(visit.by).is_none() && taken.insert(visit.record) {
            found[place].tell(visit);
        }
    }

    let mut unplanned: BTreeMap<_, [Vec<_>; 2]> = BTreeMap::new();
    for visit in others.into_iter().filter(|visit| !taken.contains(&visit.record)) {
        let both = unplanned.entry((zone.day(visit.at.millis), &visit.value.session)).or_default();
        both[usize::from(visit.by == Writer::Patient)].push(visit);
    }
    for [clinic, patient] in unplanned.into_values() {
        for place in 0..clinic.len().max(patient.len()) {
            let (clinic, patient) = (clinic.get(place).copied(), patient.get(place).copied());
            let Some(at_ms) = clinic.or(patient).map(|visit| visit.at.millis) else { continue };
            found.push(Found { at_ms, planned: None, clinic, patient });
        }
    }
    found.retain(|one| (from_ms..until_ms).contains(&one.at_ms));
    found.sort_by_key(|one| one.at_ms);
    found.into_iter().map(|one| one.occasion(zone.day(one.at_ms))).collect()
}

fn is_held(chart: &Chart, named: PlannedSession) -> bool {
    let series = chart.plan.series().find(|section| section.record == named.series);
    series.is_some_and(|section| session_of(named.series, section.value, named.on).is_some())
}

/// An occasion in the making.
#[derive(Clone, Copy)]
struct Found<'a> {
    at_ms: i64,
    planned: Option<DueSession<'a>>,
    clinic: Option<&'a Point<Visit>>,
    patient: Option<&'a Point<Visit>>,
}

impl<'a> Found<'a> {
    fn told_by(&self, by: Writer) -> Option<&'a Point<Visit>> {
        match by {
            Writer::Clinic => self.clinic,
            Writer::Patient => self.patient,
        }
    }

    /// Takes a visit up; of two by the same side, what was written down last counts.
    fn tell(&mut self, visit: &'a Point<Visit>) {
        let told = match visit.by {
            Writer::Clinic => &mut self.clinic,
            Writer::Patient => &mut self.patient,
        };
        if told.is_none_or(|told| (told.recorded_ms, told.record) < (visit.recorded_ms, visit.record)) {
            *told = Some(visit);
        }
    }

    fn occasion(self, day: Date) -> Occasion<'a> {
        let told = [self.clinic, self.patient].into_iter().flatten();
        let knows = |visit: &&Point<Visit>| visit.value.attendance != Attendance::Unknown;
        let visit = told.clone().find(knows).or(told.clone().next());
        let records = told.map(|visit| visit.record).collect();
        Occasion { at_ms: self.at_ms, day, planned: self.planned, visit, records }
    }
}

/// The hours of a programme week, in minutes.
#[derive(Clone, Copy, PartialEq)]
pub struct WeekHours {
    /// The week.
    pub week: ProgrammeWeek,
    /// Fewest hours that the programme wants.
    pub required_min: f32,
    /// From how many hours on it is of the next level of care.
    pub required_max: f32,
    /// What the plan has.
    pub scheduled: u32,
    /// What was attended, in the plan or not.
    pub attended: u32,
    /// What was not attended.
    pub missed: u32,
    /// What is over, and nobody knows.
    pub unknown: u32,
    /// What is still to come.
    pub ahead: u32,
    /// How many sessions were attended, nobody knows for how long.
    pub unmeasured: u32,
}

/// Tells where a week's hours lie.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum HoursMark {
    /// Below the fewest, whatever is still unknown or to come.
    Below,
    /// Below the fewest so far; what is unknown or to come may change that.
    Open,
    /// At least the fewest, and not of the next level.
    Within,
    /// As many as the next level of care has.
    AtOrAbove,
}

impl WeekHours {
    /// Counts a week as it is known at a moment, in ms since the Unix epoch.
    #[must_use]
    pub fn of(chart: &Chart, weeks: &Weeks, week: ProgrammeWeek, now_ms: i64) -> Self {
        let [required_min, required_max] = [weeks.hours_min, weeks.hours_max];
        let mut hours = Self {
            week,
            required_min,
            required_max,
            scheduled: 0,
            attended: 0,
            missed: 0,
            unknown: 0,
            ahead: 0,
            unmeasured: 0,
        };
        for occasion in occasions(chart, week.starts_ms, week.ends_ms) {
            let planned = occasion.planned.map_or(0, |planned| u32::from(planned.series.minutes));
            hours.scheduled += planned;
            let over = occasion.planned.is_none_or(|planned| planned.ends_ms <= now_ms);
            match (occasion.outcome(), occasion.minutes()) {
                (Outcome::Kept, Some(minutes)) => hours.attended += minutes,
                (Outcome::Kept, None) => hours.unmeasured += 1,
                (Outcome::Missed, _) => hours.missed += planned,
                (Outcome::Unknown, _) if over => hours.unknown += planned,
                (Outcome::Unknown, _) => hours.ahead += planned,
            }
        }
        hours
    }

    /// Says where the attended hours lie; unknown is not missed.
    #[must_use]
    pub fn mark(&self) -> HoursMark {
        let possible = self.attended + self.unknown + self.ahead;
        match self.marked(self.attended) {
            HoursMark::Below if self.unmeasured > 0 => HoursMark::Open,
            HoursMark::Below if self.marked(possible) != HoursMark::Below => HoursMark::Open,
            mark => mark,
        }
    }

    /// Says where the hours that the plan has lie.
    #[must_use]
    pub fn scheduled_mark(&self) -> HoursMark {
        self.marked(self.scheduled)
    }

    fn marked(&self, minutes: u32) -> HoursMark {
        let hours = f64::from(minutes) / 60.0;
        match hours {
            hours if hours < f64::from(self.required_min) => HoursMark::Below,
            hours if hours < f64::from(self.required_max) => HoursMark::Within,
            _ => HoursMark::AtOrAbove,
        }
    }
}

/// Shows nothing: contents stay out of logs.
impl fmt::Debug for Occasion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Occasion").finish_non_exhaustive()
    }
}

/// Shows the week alone: contents stay out of logs.
impl fmt::Debug for WeekHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeekHours").field("week", &self.week).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
