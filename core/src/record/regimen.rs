//! The medicines that a care team orders, and how they are to be taken.

use jiff::civil::{Date, Time};
use serde::{Deserialize, Serialize};

use super::body::{Content, check, optional_prose, optional_text, text, zone};
use super::medication::AMOUNT_MAX;
use super::{Category, Invalid, Unit, Writer};

/// Most steps of a regimen: a taper over four years in weekly steps.
pub const STEPS_MAX: usize = 208;

/// Most doses a day.
pub const TIMES_MAX: usize = 12;

/// A medicine and how it is to be taken, from its first day to its last.
///
/// [`crate::clinical::plan`] makes tapers and checks them; here it is only well formed.
///
/// ```
/// use ebb_core::record::{DoseRoute, DoseStep, Entry, Regimen, Unit, Writer};
/// use jiff::civil::{date, time};
///
/// let [morning, evening] = [time(8, 0, 0, 0), time(20, 0, 0, 0)];
/// let steps = [
///     DoseStep::daily(date(2026, 3, 2), [(morning, 8.0)]),
///     DoseStep::daily(date(2026, 3, 5), [(morning, 8.0), (evening, 4.0)]),
/// ];
/// let regimen = Regimen::scheduled("buprenorphine", DoseRoute::Sublingual, Unit::Mg, steps)
///     .zone("America/New_York");
/// let refused = Entry::new(regimen.clone()).validate(Writer::Clinic).expect_err("who prescribed it?");
/// assert_eq!(refused.field, "prescriber");
/// let regimen = regimen.prescribed_by("Dr. Marsh");
/// assert!(Entry::new(regimen).validate(Writer::Clinic).is_ok());
/// ```
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Regimen {
    /// The drug, by its ingredient's name as doses carry it, such as `buprenorphine`.
    pub drug: String,
    /// The product, such as `buprenorphine/naloxone film 8/2 mg`.
    #[serde(default)]
    pub product: Option<String>,
    /// The product's or ingredient's RxNorm concept, where one is known.
    #[serde(default)]
    pub rxnorm: Option<String>,
    /// How it enters the body.
    pub route: DoseRoute,
    /// What it is meant to be.
    pub course: Course,
    /// What amounts count.
    pub unit: Unit,
    /// The time zone of its days and times, by its IANA name.
    pub zone: String,
    /// What is taken when, the earliest step first; a step ends where the next begins.
    pub steps: Vec<DoseStep>,
    /// Who prescribed it.
    pub prescriber: String,
    /// Why a taper may go faster than the rules allow.
    #[serde(default)]
    pub override_reason: Option<String>,
    /// The last day on which it is taken; absent means until further notice.
    #[serde(default)]
    pub until: Option<Date>,
}

/// What is taken from one day on.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct DoseStep {
    /// The first day.
    pub from: Date,
    /// Every how many days, 1 to 366, counted from the first day: 1 is daily, 28 an injection's month.
    pub every_days: u16,
    /// What is taken on such a day, the earliest first; none means a pause.
    pub doses: Vec<TimedDose>,
}

/// An amount at a time of day.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct TimedDose {
    /// When, by the clock on the wall.
    pub at: Time,
    /// How much, in the regimen's unit.
    pub amount: f64,
}

impl DoseStep {
    /// Makes a step of every day: times of day, the earliest first, each with its amount.
    pub fn daily(from: Date, doses: impl IntoIterator<Item = (Time, f64)>) -> Self {
        Self::every_days(1, from, doses)
    }

    /// Makes a step of every so many days, counted from its first.
    pub fn every_days(every_days: u16, from: Date, doses: impl IntoIterator<Item = (Time, f64)>) -> Self {
        let doses = doses.into_iter().map(|(at, amount)| TimedDose { at, amount });
        Self { from, every_days, doses: doses.collect() }
    }

    /// Makes a step on which nothing is taken.
    pub fn pause(from: Date) -> Self {
        Self::daily(from, [])
    }

    /// What is taken on a day of this step, in the regimen's unit.
    #[must_use]
    pub fn day_amount(&self) -> f64 {
        self.doses.iter().map(|dose| dose.amount).sum()
    }

    /// What this step comes to a day on average, in the regimen's unit.
    #[must_use]
    pub fn amount_a_day(&self) -> f64 {
        self.day_amount() / f64::from(self.every_days.max(1))
    }
}

/// Names what a regimen is meant to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Course {
    /// Found step by step, or kept.
    Steady,
    /// Brought down: no step may be more than the one before.
    Taper,
    /// Taken when needed, on a day no more than its step comes to: nothing of it is due, and nothing missed.
    AsNeeded,
}

/// Names how a medicine enters the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoseRoute {
    /// Swallowed.
    Oral,
    /// Under the tongue.
    Sublingual,
    /// In the cheek.
    Buccal,
    /// Into a muscle.
    Intramuscular,
    /// Below the skin.
    Subcutaneous,
    /// Through the skin.
    Transdermal,
    /// Through the nose.
    Nasal,
    /// Any other way.
    Other,
}

impl Regimen {
    /// Makes a regimen of steps, the earliest first, which goes on until further notice.
    ///
    /// Zone and prescriber are still to be given. [`crate::clinical::plan::taper`] makes the steps of a taper.
    pub fn scheduled(
        drug: impl Into<String>,
        route: DoseRoute,
        unit: Unit,
        steps: impl IntoIterator<Item = DoseStep>,
    ) -> Self {
        Self {
            drug: drug.into(),
            product: None,
            rxnorm: None,
            route,
            course: Course::Steady,
            unit,
            zone: String::new(),
            steps: steps.into_iter().collect(),
            prescriber: String::new(),
            override_reason: None,
            until: None,
        }
    }

    /// Makes a regimen of what is taken when needed, from one day on, with the most that may be taken on a day.
    ///
    /// Zone and prescriber are still to be given.
    pub fn as_needed(
        drug: impl Into<String>,
        route: DoseRoute,
        unit: Unit,
        from: Date,
        day_amount_max: f64,
    ) -> Self {
        let step = DoseStep::daily(from, [(Time::midnight(), day_amount_max)]);
        Self { course: Course::AsNeeded, ..Self::scheduled(drug, route, unit, [step]) }
    }

    /// Says that it is brought down: no step may be more than the one before.
    #[must_use]
    pub fn tapering(mut self) -> Self {
        self.course = Course::Taper;
        self
    }

    /// Names the product.
    #[must_use]
    pub fn product(mut self, product: impl Into<String>) -> Self {
        self.product = Some(product.into());
        self
    }

    /// Gives the RxNorm concept.
    #[must_use]
    pub fn rxnorm(mut self, concept: impl Into<String>) -> Self {
        self.rxnorm = Some(concept.into());
        self
    }

    /// Says in which time zone days and times are meant, by its IANA name.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = zone.into();
        self
    }

    /// Says who prescribed it.
    #[must_use]
    pub fn prescribed_by(mut self, prescriber: impl Into<String>) -> Self {
        self.prescriber = prescriber.into();
        self
    }

    /// Gives the reason for which a taper may be steeper than the rules allow.
    #[must_use]
    pub fn although(mut self, reason: impl Into<String>) -> Self {
        self.override_reason = Some(reason.into());
        self
    }

    /// Says which day is the last.
    #[must_use]
    pub fn until(mut self, until: Date) -> Self {
        self.until = Some(until);
        self
    }
}

impl Content for Regimen {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        text("drug", &self.drug)?;
        optional_text("product", self.product.as_deref())?;
        optional_text("rxnorm", self.rxnorm.as_deref())?;
        zone("zone", &self.zone)?;
        text("prescriber", &self.prescriber)?;
        optional_prose("override_reason", self.override_reason.as_deref())?;
        let steps = (1..=STEPS_MAX).contains(&self.steps.len());
        check(steps, "steps", format_args!("1 to {STEPS_MAX} steps"))?;
        let ordered = self.steps.is_sorted_by(|earlier, later| earlier.from < later.from);
        check(ordered, "steps.from", "each later than the step before")?;
        for step in &self.steps {
            check((1..=366).contains(&step.every_days), "steps.every_days", "1 to 366")?;
            check(step.doses.len() <= TIMES_MAX, "steps.doses", format_args!("at most {TIMES_MAX} a day"))?;
            rising("steps.doses.at", step.doses.iter().map(|dose| dose.at))?;
            for dose in &step.doses {
                let fits = dose.amount > 0.0 && dose.amount <= AMOUNT_MAX;
                check(fits, "steps.doses.amount", format_args!("more than 0, at most {AMOUNT_MAX}"))?;
            }
        }
        // What a division rounds is no rise.
        let most = |earlier: &DoseStep| earlier.amount_a_day() * (1.0 + 1e-9);
        let falling = self.steps.is_sorted_by(|earlier, later| later.amount_a_day() <= most(earlier));
        let fits = self.course != Course::Taper || falling;
        check(fits, "steps.doses.amount", "no more a day than on the step before, in a taper")?;
        let first = self.steps[0].from;
        check(self.until.is_none_or(|until| first <= until), "until", "not before the first step")
    }
}

/// Checks that times of day rise.
pub(super) fn rising(field: &'static str, times: impl IntoIterator<Item = Time>) -> Result<(), Invalid> {
    let mut last = None;
    for time in times {
        check(last.is_none_or(|last| last < time), field, "times of day, each once, the earliest first")?;
        last = Some(time);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::civil::{date, time};

    use super::*;
    use crate::record::tests::{refused_by_clinic, refused_by_patient};

    fn daily(steps: &[(i8, f64)]) -> Regimen {
        let eight = |amount| [(time(8, 0, 0, 0), amount)];
        let steps = steps.iter().map(|(day, amount)| DoseStep::daily(date(2026, 3, *day), eight(*amount)));
        Regimen::scheduled("diazepam", DoseRoute::Oral, Unit::Mg, steps)
    }

    fn signed(regimen: Regimen) -> Regimen {
        regimen.zone("America/New_York").prescribed_by("Dr. Marsh")
    }

    #[test]
    fn a_regimen_fits_once_zone_and_prescriber_are_given() {
        let regimen = || daily(&[(2, 10.0), (16, 9.0)]);
        assert_eq!(refused_by_clinic(regimen()).as_deref(), Some("zone"));
        assert_eq!(refused_by_clinic(regimen().zone("America/New_York")).as_deref(), Some("prescriber"));
        assert_eq!(refused_by_clinic(signed(daily(&[]))).as_deref(), Some("steps"));
        let told = signed(regimen()).product("a tablet of 5 mg").rxnorm("3322").although("moving away");
        let told = told.tapering().until(date(2026, 4, 1));
        assert_eq!(refused_by_clinic(told.clone()), None);
        assert_eq!(refused_by_patient(told.clone()).as_deref(), Some("kind"));
        assert_eq!(refused_by_clinic(told.until(date(2026, 3, 1))).as_deref(), Some("until"));
    }

    #[test]
    fn what_tapers_does_not_rise_and_a_pause_is_a_step() {
        let rising = signed(daily(&[(2, 9.0), (16, 10.0)]));
        assert_eq!(refused_by_clinic(rising.clone()), None);
        assert_eq!(refused_by_clinic(rising.tapering()).as_deref(), Some("steps.doses.amount"));
        let monthly = DoseStep::every_days(28, date(2026, 3, 2), [(time(10, 0, 0, 0), 300.0)]);
        assert_eq!((monthly.day_amount(), monthly.every_days), (300.0, 28));
        let steps = [monthly, DoseStep::pause(date(2026, 6, 1))];
        let depot = Regimen::scheduled("buprenorphine", DoseRoute::Subcutaneous, Unit::Mg, steps);
        assert_eq!(refused_by_clinic(signed(depot)), None);
        let never = DoseStep::every_days(0, date(2026, 3, 2), []);
        let never = Regimen::scheduled("buprenorphine", DoseRoute::Oral, Unit::Mg, [never]);
        assert_eq!(refused_by_clinic(signed(never)).as_deref(), Some("steps.every_days"));
    }

    #[test]
    fn what_is_taken_as_needed_has_a_most() {
        let most = |amount| {
            signed(Regimen::as_needed("lorazepam", DoseRoute::Oral, Unit::Mg, date(2026, 3, 2), amount))
        };
        assert_eq!(most(2.0).course, Course::AsNeeded);
        assert_eq!(most(2.0).steps[0].day_amount(), 2.0);
        assert_eq!(refused_by_clinic(most(2.0)), None);
        assert_eq!(refused_by_clinic(most(0.0)).as_deref(), Some("steps.doses.amount"));
    }
}
