//! Doses in three states: taken, not taken, unknown.

use std::collections::BTreeMap;

use jiff::civil::Date;

use super::{Days, date, lived, lived_days, number, number_of};
use crate::{
    clinical::{chart::Chart, substance::Medicine},
    record::Taking,
};

/// How it was with a medicine on a day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DoseDay {
    /// A dose was taken, whatever else is told of the day.
    Taken,
    /// It is told that a dose was not taken, and of none that was.
    NotTaken,
    /// Nothing is told.
    Unknown,
}

/// How often a medicine was taken.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Adherence {
    /// On how many days a dose was taken.
    pub taken: u32,
    /// On how many days it is told that none was.
    pub not_taken: u32,
    /// Of how many days nothing is told.
    pub unknown: u32,
}

/// Days in a row without a dose taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first of them.
    pub first_day: Date,
    /// How many.
    pub days: u32,
    /// On how many of them it is told that no dose was taken.
    pub not_taken: u32,
    /// Of how many of them nothing is told.
    pub unknown: u32,
}

/// The time from one dose taken to the next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// The day of the first.
    pub from: Date,
    /// The day of the next.
    pub until: Date,
    /// How many days later that is.
    pub days: u32,
}

impl Adherence {
    /// Returns `taken / (taken + not_taken)`: the share of the known days on which a dose was taken; `None`
    /// while nothing is known. Days of which nothing is told do not lower it.
    #[must_use]
    pub fn share(self) -> Option<f64> {
        ratio(self.taken, self.taken + self.not_taken)
    }

    /// Returns `(taken + not_taken) / all`: on what share of the days [`Adherence::share`] rests.
    #[must_use]
    pub fn known(self) -> Option<f64> {
        ratio(self.taken + self.not_taken, self.days())
    }

    /// Returns how many days there are.
    #[must_use]
    pub fn days(self) -> u32 {
        self.taken + self.not_taken + self.unknown
    }

    fn add(&mut self, day: DoseDay) {
        match day {
            DoseDay::Taken => self.taken += 1,
            DoseDay::NotTaken => self.not_taken += 1,
            DoseDay::Unknown => self.unknown += 1,
        }
    }
}

/// Says of each day how it was with a medicine.
#[must_use]
pub fn dose_days(chart: &Chart, medicine: &Medicine, days: Days) -> Vec<(Date, DoseDay)> {
    states(chart, medicine, days).map(|(day, state)| (date(day), state)).collect()
}

/// Counts the days on which a medicine was taken, was not, and of which nothing is told.
#[must_use]
pub fn adherence(chart: &Chart, medicine: &Medicine, days: Days) -> Adherence {
    let mut adherence = Adherence::default();
    states(chart, medicine, days).for_each(|(_, state)| adherence.add(state));
    adherence
}

/// Lists the runs of days without a dose taken, each as long as it can be, the earliest first.
///
/// Looks from the first day with a dose record, or `from` if that is later, to the last, or to `until` where
/// it is given: then a run may reach beyond the last record. Before the first record nothing is missing.
#[must_use]
pub fn dose_gaps(chart: &Chart, medicine: &Medicine, from: Option<Date>, until: Option<Date>) -> Vec<Gap> {
    let Some(told) = lived_days(chart.doses(medicine)) else { return Vec::new() };
    let first = from.map_or(told.first, |from| told.first.max(number(from)));
    let days = Days::numbered(first, until.map_or(told.last, number));
    let mut gaps = Vec::<Gap>::new();
    let mut open = false;
    for (day, state) in states(chart, medicine, days) {
        if state == DoseDay::Taken {
            open = false;
            continue;
        }
        if !open {
            gaps.push(Gap { first_day: date(day), days: 0, not_taken: 0, unknown: 0 });
            open = true;
        }
        let Some(gap) = gaps.last_mut() else { continue };
        gap.days += 1;
        if state == DoseDay::NotTaken { gap.not_taken += 1 } else { gap.unknown += 1 }
    }
    gaps
}

/// Lists the times between each two days in a row with a dose taken, the earliest first: for medicines that
/// last, the time between injections.
#[must_use]
pub fn dose_intervals(chart: &Chart, medicine: &Medicine) -> Vec<Interval> {
    let taken = chart.doses(medicine).iter().filter(|dose| dose.value.taking == Taking::Taken);
    let mut days: Vec<_> = taken.map(|dose| number_of(dose.at)).collect();
    days.sort_unstable();
    days.dedup();
    let interval = |pair: &[i64]| Interval {
        from: date(pair[0]),
        until: date(pair[1]),
        days: u32::try_from(pair[1] - pair[0]).unwrap_or(u32::MAX),
    };
    days.windows(2).map(interval).collect()
}

fn states(chart: &Chart, medicine: &Medicine, days: Days) -> impl Iterator<Item = (i64, DoseDay)> {
    let mut told = BTreeMap::new();
    for (day, dose) in lived(chart.doses(medicine), days) {
        let state = told.entry(day).or_insert(DoseDay::NotTaken);
        if dose.value.taking == Taking::Taken {
            *state = DoseDay::Taken;
        }
    }
    days.numbers().map(move |day| (day, told.get(&day).copied().unwrap_or(DoseDay::Unknown)))
}

fn ratio(part: u32, whole: u32) -> Option<f64> {
    (whole > 0).then(|| f64::from(part) / f64::from(whole))
}

unshown!(Adherence, Gap, Interval);
