//! Which dose of the log answers which dose of the plan.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    calendar::{DAY_MS, HOUR_MS},
    medication::{DueDose, due_doses},
};
use crate::{
    clinical::{
        chart::{Chart, Point},
        substance::Medicine,
    },
    record::{Dose, PlannedDose, RecordId, Regimen, Writer},
};

/// The most that a dose may lie apart from the due dose that it answers, where it does not name one.
pub const APART_MS_MAX: i64 = 12 * HOUR_MS;

/// How far from the moment that it names a dose's own may lie: people write down later what was not taken.
const NAMED_MS_MAX: i64 = 7 * DAY_MS;

/// A dose that was due, and what is known of it.
#[derive(Clone)]
pub struct AnsweredDose<'a> {
    /// The dose that was due.
    pub due: DueDose,
    /// Of what it is.
    pub medicine: Medicine,
    /// The regimen that asks for it.
    pub regimen: &'a Regimen,
    /// Whether it was taken, by the record that says so; `None` means unknown, never missed.
    pub answer: Option<&'a Point<Dose>>,
}

/// Lists the doses that are due from one moment on and before another, with what answers them.
///
/// A dose that names the due dose it answers does so, the care team's word before the person's own, the later
/// before the earlier. The others are taken by medicine and time, the closest first: up to [`APART_MS_MAX`]
/// late, and as much early, but never closer to the due dose before. Each answers one due dose at most.
#[must_use]
pub fn answered_doses(chart: &Chart, from_ms: i64, until_ms: i64) -> Vec<AnsweredDose<'_>> {
    // Neighbours outside of the window may claim a dose, too.
    let (first_ms, end_ms) =
        (from_ms.saturating_sub(2 * APART_MS_MAX), until_ms.saturating_add(2 * APART_MS_MAX));
    let mut by_medicine: BTreeMap<Medicine, Vec<AnsweredDose<'_>>> = BTreeMap::new();
    for section in chart.plan.regimens() {
        let regimen = section.value;
        let medicine = Medicine::of(&regimen.drug, regimen.rxnorm.as_deref());
        let due = due_doses(section.record, regimen, first_ms, end_ms).into_iter();
        let doses = by_medicine.entry(medicine.clone()).or_default();
        doses.extend(due.map(|due| AnsweredDose { due, medicine: medicine.clone(), regimen, answer: None }));
    }
    let mut all = Vec::new();
    for (medicine, mut due) in by_medicine {
        due.sort_by_key(|dose| (dose.due.planned.due_ms, dose.due.planned.regimen, dose.due.time));
        let taken = name(chart, &medicine, &mut due, first_ms, end_ms);
        match_by_time(chart, &medicine, &mut due, &taken);
        all.extend(due.into_iter().filter(|dose| (from_ms..until_ms).contains(&dose.due.planned.due_ms)));
    }
    all.sort_by_key(|dose| (dose.due.planned.due_ms, dose.due.planned.regimen, dose.due.time));
    all
}

/// Gives due doses the answers that name them; returns every dose that names one that is, or was, due.
fn name<'a>(
    chart: &'a Chart,
    medicine: &Medicine,
    due: &mut [AnsweredDose<'a>],
    first_ms: i64,
    end_ms: i64,
) -> BTreeSet<RecordId> {
    let log = chart.doses(medicine);
    let logged = log.between(first_ms.saturating_sub(NAMED_MS_MAX), end_ms.saturating_add(NAMED_MS_MAX));
    let mut naming: Vec<_> = logged.filter_map(|dose| Some((dose.value.planned?, dose))).collect();
    naming.sort_by_key(|(_, dose)| (dose.by == Writer::Patient, -dose.recorded_ms, dose.record));
    let mut taken = BTreeSet::new();
    for (planned, dose) in naming {
        let place = due.partition_point(|other| other.due.planned.due_ms < planned.due_ms);
        let named = due[place..].iter_mut().take_while(|other| other.due.planned.due_ms == planned.due_ms);
        let mut named = named.filter(|other| other.due.planned == planned).peekable();
        // What it names may lie outside of what was looked at, or be no more, since the plan was changed.
        if named.peek().is_some() || is_due(chart, planned) {
            taken.insert(dose.record);
        }
        if let Some(free) = named.find(|other| other.answer.is_none()) {
            free.answer = Some(dose);
        }
    }
    taken
}

fn is_due(chart: &Chart, planned: PlannedDose) -> bool {
    let regimen = chart.plan.regimens().find(|section| section.record == planned.regimen);
    regimen.is_some_and(|section| {
        !due_doses(planned.regimen, section.value, planned.due_ms, planned.due_ms.saturating_add(1))
            .is_empty()
    })
}

/// Gives due doses that nothing names the doses closest to them.
fn match_by_time<'a>(
    chart: &'a Chart,
    medicine: &Medicine,
    due: &mut [AnsweredDose<'a>],
    taken: &BTreeSet<RecordId>,
) {
    let log = chart.doses(medicine);
    let mut pairs = Vec::new();
    for (place, dose) in due.iter().enumerate().filter(|(_, dose)| dose.answer.is_none()) {
        let due_ms = dose.due.planned.due_ms;
        let before = place.checked_sub(1).map_or(i64::MIN, |before| due[before].due.planned.due_ms);
        let early_ms = (due_ms.saturating_sub(before) / 2).min(APART_MS_MAX);
        for logged in log.between(due_ms - early_ms, due_ms + APART_MS_MAX + 1) {
            if !taken.contains(&logged.record) {
                pairs.push(((logged.at.millis - due_ms).abs(), place, logged));
            }
        }
    }
    pairs.sort_by_key(|(apart_ms, place, logged)| {
        (*apart_ms, *place, logged.by == Writer::Patient, logged.record)
    });
    let mut used = BTreeSet::new();
    for (_, place, logged) in pairs {
        if due[place].answer.is_none() && used.insert(logged.record) {
            due[place].answer = Some(logged);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::{Date, date, time};

    use super::*;
    use crate::{
        clinical::plan::{
            calendar::{MINUTE_MS, Zone},
            tests::{logged, section},
        },
        record::{DoseRoute, DoseStep, Entry, Unit},
    };

    const REGIMEN: RecordId = RecordId::from_bytes([1; 16]);
    const FIRST: Date = date(2026, 5, 1);

    /// 8 mg at eight and at twenty, in UTC, from the first of May.
    fn twice_daily() -> Regimen {
        let steps = [DoseStep::daily(FIRST, [8, 20].map(|hour| (time(hour, 0, 0, 0), 8.0)))];
        Regimen::scheduled("buprenorphine", DoseRoute::Sublingual, Unit::Mg, steps)
            .zone("UTC")
            .prescribed_by("Dr. Marsh")
    }

    /// A moment of May the second.
    fn at(hours: i64, minutes: i64) -> i64 {
        Zone::UTC.starts_ms(FIRST) + DAY_MS + hours * HOUR_MS + minutes * MINUTE_MS
    }

    fn dose(id: u8, at_ms: i64, planned: Option<i64>, by: Writer) -> (crate::record::Record, Writer) {
        let drug = if by == Writer::Clinic { "buprenorphine" } else { "Suboxone" };
        let planned = planned.map(|due_ms| PlannedDose { regimen: REGIMEN, due_ms });
        let dose = Dose { observed: by == Writer::Clinic, planned, ..Dose::taken(drug, 8.0, Unit::Mg) };
        (logged(id, by, at_ms, Entry::new(dose)), by)
    }

    /// Which records answer the doses due at 8 and at 20 of May the second.
    fn answers(doses: &[(crate::record::Record, Writer)]) -> [u8; 2] {
        let mut chart = Chart::default();
        chart.put(&section(1, FIRST, twice_daily()), Writer::Clinic, None);
        for (record, by) in doses.iter().rev() {
            chart.put(record, *by, None);
        }
        let due = answered_doses(&chart, at(0, 0), at(24, 0));
        let ids = due.iter().map(|dose| dose.answer.map_or(0, |answer| answer.record.as_bytes()[0]));
        ids.collect::<Vec<_>>().try_into().expect("two doses are due on a day")
    }

    #[test]
    fn a_dose_answers_the_one_that_it_names() {
        let patient = Writer::Patient;
        assert_eq!(answers(&[]), [0, 0], "unknown");
        assert_eq!(answers(&[dose(11, at(19, 0), Some(at(8, 0)), patient)]), [11, 0], "and no other");
        assert_eq!(answers(&[dose(11, at(90, 0), Some(at(20, 0)), patient)]), [0, 11], "told days later");
        assert_eq!(answers(&[dose(11, at(8, 0), Some(at(32, 0)), patient)]), [0, 0], "tomorrow's");
        assert_eq!(answers(&[dose(11, at(8, 0), Some(at(80, 0)), patient)]), [0, 0], "one in three days");
        let changed = dose(11, at(8, 5), Some(at(9, 0)), patient);
        assert_eq!(answers(&[changed]), [11, 0], "a time that the plan had before");
    }

    #[test]
    fn others_answer_the_closest() {
        let patient = Writer::Patient;
        assert_eq!(answers(&[dose(11, at(7, 0), None, patient)]), [11, 0]);
        assert_eq!(
            answers(&[dose(11, at(13, 0), None, patient)]),
            [11, 0],
            "five hours late, not seven early"
        );
        assert_eq!(answers(&[dose(11, at(15, 0), None, patient)]), [0, 11]);
        assert_eq!(answers(&[dose(11, at(19, 0), None, patient)]), [0, 11], "and not the morning's as well");
        let both = [dose(11, at(15, 0), None, patient), dose(12, at(20, 0), None, patient)];
        assert_eq!(answers(&both), [11, 12], "late, since the evening's is there");
        let doubled = [dose(11, at(8, 0), None, patient), dose(12, at(8, 10), None, patient)];
        assert_eq!(answers(&doubled), [11, 0], "a dose written down twice is not the evening's");
        assert_eq!(answers(&[dose(11, at(33, 0), None, patient)]), [0, 0], "the next day's");
    }

    #[test]
    fn the_care_teams_word_counts_and_each_dose_once() {
        let named = |id, by| dose(id, at(8, 0), Some(at(8, 0)), by);
        assert_eq!(answers(&[named(11, Writer::Patient), named(12, Writer::Clinic)]), [12, 0]);
        assert_eq!(answers(&[named(12, Writer::Clinic), named(11, Writer::Patient)]), [12, 0]);
        let other = dose(13, at(8, 0), None, Writer::Clinic);
        assert_eq!(answers(&[dose(11, at(8, 0), None, Writer::Patient), other]), [13, 0]);
    }
}
