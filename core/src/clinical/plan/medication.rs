//! When a regimen's doses are due, how much it plans for a day, and whether it may be ordered.

use std::fmt;

use jiff::civil::{Date, DateTime, Time};

use super::{
    Plan,
    calendar::{Zone, days_between, every, plus_days},
};
use crate::{
    clinical::substance::Medicine,
    record::{Course, Entry, Invalid, PlannedDose, RecordId, Regimen, Writer, check},
};

/// The percent that one step of a benzodiazepine may take off without a warning, unless the programme says
/// otherwise (R13): the joint guideline of 2025, led by ASAM, takes off 5 to 10 % every two to four weeks.
pub const STEP_PERCENT_MAX: f64 = 10.0;

/// The percent that may be taken off a benzodiazepine within [`FALL_DAYS`] without a reason, unless the
/// programme says otherwise (R13); from the same guideline.
pub const FALL_PERCENT_MAX: f64 = 25.0;

/// The days within which [`FALL_PERCENT_MAX`] holds (R13); from the same guideline.
pub const FALL_DAYS: u16 = 14;

/// What rounding may add to a percentage.
const ROUNDING: f64 = 1e-6;

/// A dose that a regimen asks for.
#[derive(Clone, Copy, PartialEq)]
pub struct DueDose {
    /// Which dose it is, and when it is due.
    pub planned: PlannedDose,
    /// The day of the plan that it belongs to.
    pub day: Date,
    /// The time of day that the plan has for it.
    pub time: Time,
    /// What calendar and clock show when it is due: another time than planned where the clocks skip that one.
    pub at: DateTime,
    /// How much, in the regimen's unit.
    pub amount: f64,
}

/// Lists the doses that are due from one moment on and before another, in ms since the Unix epoch.
///
/// There is one for each day and time of day of the plan, whatever the clocks do (see [`super::calendar`]); so
/// where clocks skip an hour, two may be due at the same moment. Days are counted by the calendar of the
/// regimen's zone. What is taken as needed is never due, and in a zone that this version does not know
/// nothing is.
///
/// ```
/// use ebb_core::clinical::plan::{medication::due_doses, taper::{Fall, Taper}};
/// use ebb_core::record::{RecordId, Unit};
/// use jiff::civil::date;
///
/// let taper = Taper::of("buprenorphine", Unit::Mg, 8.0, date(2026, 5, 1))
///     .zone("America/New_York")
///     .prescribed_by("Dr. Marsh")
///     .down_to(0.0)
///     .by(Fall::Amount(2.0), 7)
///     .regimen()
///     .expect("four steps of a week");
/// let may_6 = 1_778_040_000_000;
/// let due = due_doses(RecordId::from_bytes([1; 16]), &taper, may_6, may_6 + 4 * 86_400_000);
/// let amounts: Vec<_> = due.iter().map(|dose| (dose.day.day(), dose.amount)).collect();
/// assert_eq!(amounts, [(6, 8.0), (7, 8.0), (8, 6.0), (9, 6.0)]);
/// ```
#[must_use]
pub fn due_doses(record: RecordId, regimen: &Regimen, from_ms: i64, until_ms: i64) -> Vec<DueDose> {
    let mut due = Vec::new();
    let Ok(zone) = Zone::named(&regimen.zone) else { return due };
    let Some((first, last)) = zone.days_of(from_ms, until_ms) else { return due };
    if regimen.course == Course::AsNeeded {
        return due;
    }
    let started = regimen.steps.partition_point(|step| step.from <= first);
    for (place, step) in regimen.steps.iter().enumerate().skip(started.saturating_sub(1)) {
        if step.from > last {
            break;
        }
        let last = last.min(last_day(regimen, place));
        for day in every(step.from, step.every_days.into(), first, last) {
            for dose in &step.doses {
                let Some(due_ms) = zone.moment_ms(day, dose.at) else { continue };
                if (from_ms..until_ms).contains(&due_ms) {
                    let planned = PlannedDose { regimen: record, due_ms };
                    let at = zone.wall(due_ms);
                    due.push(DueDose { planned, day, time: dose.at, at, amount: dose.amount });
                }
            }
        }
    }
    due.sort_by_key(|dose| (dose.planned.due_ms, dose.day, dose.time));
    due
}

/// Returns what a regimen plans for a day, in its unit: 0 on a day between or in a pause, `None` outside of it
/// and for what is taken as needed.
#[must_use]
pub fn day_amount_on(regimen: &Regimen, day: Date) -> Option<f64> {
    let begun = regimen.steps.partition_point(|step| step.from <= day);
    let step = regimen.steps.get(begun.checked_sub(1)?)?;
    let within = regimen.course != Course::AsNeeded && regimen.until.is_none_or(|until| day <= until);
    let taken = days_between(step.from, day) % i64::from(step.every_days.max(1)) == 0;
    within.then(|| if taken { step.day_amount() } else { 0.0 })
}

/// A reduction.
#[derive(Clone, Copy, PartialEq)]
pub struct Reduction {
    /// The first day of the lower amount.
    pub on: Date,
    /// How much lower it is, in percent.
    pub percent: f64,
}

/// Returns the steepest of a regimen's steps, each against the one before it.
///
/// Amounts are those of a day on average, so 10 mg every second day are 5. A reduction to nothing takes all
/// of what is left, however little that is: it is measured against the greatest amount of the regimen (Ebb's
/// own convention). A taper's last day is followed by such a reduction.
#[must_use]
pub fn steepest_step(regimen: &Regimen) -> Option<Reduction> {
    steepest(Amounts::of(regimen).steps())
}

/// Returns the steepest fall of a regimen within so many days.
///
/// The first day of each step is compared with the greatest amount of the days before it, as many as given: so
/// of steps that are that many days apart, each counts alone. Amounts are as in [`steepest_step`].
#[must_use]
pub fn steepest_fall_in(regimen: &Regimen, days: u16) -> Option<Reduction> {
    steepest(Amounts::of(regimen).falls(days))
}

/// Shows nothing: contents stay out of logs.
impl fmt::Debug for Reduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reduction").finish_non_exhaustive()
    }
}

/// Something about a regimen that whoever orders it must see, though it may be ordered.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Warning {
    /// A step of a benzodiazepine takes off more than the programme's `R13.step`, or [`STEP_PERCENT_MAX`].
    SteepStep(Reduction),
    /// A benzodiazepine falls by more than the programme's `R13.fortnight`, or [`FALL_PERCENT_MAX`], within
    /// [`FALL_DAYS`], for a reason that was given.
    SteepFall(Reduction),
    /// The plan has the same medicine on the same days, once to be taken as needed.
    BesideAsNeeded(RecordId),
}

/// Checks whether a regimen may be ordered beside what a plan has already; `own` is its record, if it stands
/// there in an earlier version.
///
/// Reductions are measured as [`steepest_step`] and [`steepest_fall_in`] say, but over all of the plan's
/// regimens of the medicine that are not more than [`FALL_DAYS`] apart: a taper is not gentler for being
/// cut into records.
///
/// # Errors
///
/// It is not well formed, has a step after its end, is a taper that rises, is on the same days as another
/// regimen of the same medicine, or is a benzodiazepine's that falls too steeply without a reason.
pub fn check_regimen(regimen: &Regimen, plan: &Plan, own: Option<RecordId>) -> Result<Vec<Warning>, Invalid> {
    Entry::new(regimen.clone()).validate(Writer::Clinic)?;
    let in_time = regimen.until.is_none_or(|until| regimen.steps.iter().all(|step| step.from <= until));
    check(in_time, "steps.from", "not after the last day (until)")?;

    let medicine = Medicine::of(&regimen.drug, regimen.rxnorm.as_deref());
    let same: Vec<_> = plan
        .regimens()
        .filter(|other| Some(other.record) != own)
        .filter(|other| Medicine::of(&other.value.drug, other.value.rxnorm.as_deref()) == medicine)
        .collect();

    let mut warnings = Vec::new();
    for other in same.iter().filter(|other| overlap(regimen, other.value)) {
        let as_needed = [regimen.course, other.value.course].contains(&Course::AsNeeded);
        check(as_needed, "steps.from", "on days on which no other regimen of the same medicine runs")?;
        warnings.push(Warning::BesideAsNeeded(other.record));
    }

    if matches!(medicine, Medicine::Benzodiazepine(_)) {
        let others = same.iter().map(|other| other.value).filter(|other| other.unit == regimen.unit);
        let amounts = Amounts::of(regimen).among(others);
        let own = |name: &str| plan.thresholds().and_then(|own| own.values.get(name).copied());
        let step_max = own("R13.step").unwrap_or(STEP_PERCENT_MAX);
        let fall_max = own("R13.fortnight").unwrap_or(FALL_PERCENT_MAX);
        let too_steep = |step: &Reduction| step.percent > step_max + ROUNDING;
        warnings.extend(amounts.steps().filter(too_steep).map(Warning::SteepStep));
        let fall = steepest(amounts.falls(FALL_DAYS));
        if let Some(fall) = fall.filter(|fall| fall.percent > fall_max + ROUNDING) {
            let allowed =
                format!("at most {fall_max} % less within {FALL_DAYS} days, unless override_reason says why");
            check(regimen.override_reason.is_some(), "steps.doses.amount", allowed)?;
            warnings.push(Warning::SteepFall(fall));
        }
    }
    Ok(warnings)
}

/// The last day of a regimen's step: the one before the next step, or the regimen's own.
fn last_day(regimen: &Regimen, step: usize) -> Date {
    let until = regimen.until.unwrap_or(Date::MAX);
    regimen.steps.get(step + 1).map_or(until, |next| until.min(plus_days(next.from, -1)))
}

fn overlap(one: &Regimen, other: &Regimen) -> bool {
    let days = |regimen: &Regimen| Some((regimen.steps.first()?.from, regimen.until.unwrap_or(Date::MAX)));
    days(one).zip(days(other)).is_some_and(|(one, other)| one.0 <= other.1 && other.0 <= one.1)
}

fn steepest(reductions: impl Iterator<Item = Reduction>) -> Option<Reduction> {
    reductions.max_by(|one, other| one.percent.total_cmp(&other.percent).then(other.on.cmp(&one.on)))
}

/// What is planned of a medicine, day after day.
struct Amounts {
    /// The earliest first; none overlaps another.
    stretches: Vec<Stretch>,
    /// Which of them are the regimen's own; the one after is where it leads to.
    own: std::ops::Range<usize>,
}

/// Days of one amount.
struct Stretch {
    from: Date,
    last: Date,
    /// A day, on average.
    amount: f64,
}

impl Amounts {
    fn of(regimen: &Regimen) -> Self {
        let mut stretches = stretches(regimen);
        let own = 0..stretches.len();
        if let (Course::Taper, Some(until)) = (regimen.course, regimen.until) {
            stretches.push(Stretch { from: plus_days(until, 1), last: Date::MAX, amount: 0.0 });
        }
        Self { stretches, own }
    }

    /// Puts them among others' of the same medicine: those that lead to them, and the one that they lead to.
    fn among<'a>(mut self, others: impl Iterator<Item = &'a Regimen>) -> Self {
        let mut others: Vec<_> = others.map(stretches).filter(|other| !other.is_empty()).collect();
        others.sort_by_key(|other| other[0].from);
        let Some(first) = self.stretches.first().map(|own| own.from) else { return self };
        let (mut before, mut after): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|other| other[0].from < first);
        while let Some(mut earlier) = before.pop() {
            let gap = earlier.last().map_or(i64::MAX, |last| days_between(last.last, self.stretches[0].from));
            if gap > i64::from(FALL_DAYS) {
                break;
            }
            self.own = self.own.start + earlier.len()..self.own.end + earlier.len();
            earlier.append(&mut self.stretches);
            self.stretches = earlier;
        }
        let end = plus_days(self.stretches[self.own.end - 1].last, 1);
        if let Some(next) = after.first_mut().filter(|next| next[0].from == end) {
            self.stretches.truncate(self.own.end);
            self.stretches.push(next.swap_remove(0));
        }
        self
    }

    /// Each reduction against the day before.
    fn steps(&self) -> impl Iterator<Item = Reduction> {
        self.falls(1)
    }

    /// Each stretch against the greatest amount of the days before it.
    fn falls(&self, days: u16) -> impl Iterator<Item = Reduction> {
        let peak = self.stretches.iter().map(|stretch| stretch.amount).fold(0.0, f64::max);
        let looked_at = self.own.start..self.stretches.len();
        looked_at.filter_map(move |place| {
            let Stretch { from: on, amount, .. } = self.stretches[place];
            let since = plus_days(on, -i64::from(days));
            let earlier = self.stretches[..place].iter().rev().take_while(|earlier| earlier.last >= since);
            let before = earlier.map(|earlier| earlier.amount).fold(0.0, f64::max);
            let whole = if amount > 0.0 { before } else { peak };
            let percent = (before - amount) / whole * 100.0;
            (before > amount).then_some(Reduction { on, percent })
        })
    }
}

fn stretches(regimen: &Regimen) -> Vec<Stretch> {
    if regimen.course == Course::AsNeeded {
        return Vec::new();
    }
    let steps = regimen.steps.iter().enumerate();
    let stretch = steps.map(|(place, step)| Stretch {
        from: step.from,
        last: last_day(regimen, place),
        amount: step.amount_a_day(),
    });
    stretch.collect()
}

#[cfg(test)]
mod tests;
