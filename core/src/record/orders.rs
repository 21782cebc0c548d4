//! What a care team orders: medicines, sessions, check-ins, thresholds, questionnaires.

use std::collections::BTreeMap;

use jiff::civil::{Date, Time};
use serde::{Deserialize, Serialize};

use super::body::{Content, check, optional_prose, optional_text, text, zone};
use super::care_plan::count;
use super::medication::AMOUNT_MAX;
use super::{Category, Invalid, Mode, SessionKind, Unit, Writer};

/// Most steps of a regimen: a taper over four years in weekly steps.
pub const STEPS_MAX: usize = 208;

/// Most doses a day.
pub const TIMES_MAX: usize = 12;

/// A medicine and how it is to be taken, from its first day to its last.
///
/// [`crate::clinical::plan`] makes tapers and checks them; here it is only well formed.
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
    /// Taken when needed: nothing of it is due, and nothing missed.
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

/// Names a day of the week.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weekday {
    /// Monday.
    Monday,
    /// Tuesday.
    Tuesday,
    /// Wednesday.
    Wednesday,
    /// Thursday.
    Thursday,
    /// Friday.
    Friday,
    /// Saturday.
    Saturday,
    /// Sunday.
    Sunday,
}

impl Weekday {
    /// The weekday of a date.
    #[must_use]
    pub fn of(date: Date) -> Self {
        match date.weekday() {
            jiff::civil::Weekday::Monday => Self::Monday,
            jiff::civil::Weekday::Tuesday => Self::Tuesday,
            jiff::civil::Weekday::Wednesday => Self::Wednesday,
            jiff::civil::Weekday::Thursday => Self::Thursday,
            jiff::civil::Weekday::Friday => Self::Friday,
            jiff::civil::Weekday::Saturday => Self::Saturday,
            jiff::civil::Weekday::Sunday => Self::Sunday,
        }
    }
}

/// Sessions that come again: a block of the programme's schedule.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionSeries {
    /// The kind of session.
    pub session: SessionKind,
    /// What the programme calls it.
    pub title: String,
    /// The clinic's time zone, by its IANA name.
    pub zone: String,
    /// The first day on which there may be a session.
    pub first: Date,
    /// The last one.
    #[serde(default)]
    pub last: Option<Date>,
    /// On which days of the week.
    pub weekdays: Vec<Weekday>,
    /// Every how many weeks, 1 to 52, counted from the week of the first day; weeks begin on Mondays.
    pub every_weeks: u8,
    /// When it begins, by the clock on the clinic's wall.
    pub start: Time,
    /// How many minutes it lasts, 1 to 1440.
    pub minutes: u16,
    /// How people take part.
    pub mode: Mode,
    /// Who leads it.
    #[serde(default)]
    pub led_by: Option<String>,
    /// Days on which there is none.
    #[serde(default)]
    pub cancelled: Vec<Date>,
    /// Days on which it is at another time, each once.
    #[serde(default)]
    pub moved: Vec<MovedSession>,
}

/// A session that was moved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct MovedSession {
    /// The day on which the series has it.
    pub from: Date,
    /// The day to which it was moved.
    pub to: Date,
    /// When it begins there.
    pub start: Time,
}

impl Content for SessionSeries {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        text("session", self.session.label())?;
        text("title", &self.title)?;
        zone("zone", &self.zone)?;
        check(self.last.is_none_or(|last| self.first <= last), "last", "not before first")?;
        check(!self.weekdays.is_empty(), "weekdays", "at least one day")?;
        let once = self.weekdays.iter().collect::<std::collections::BTreeSet<_>>();
        check(once.len() == self.weekdays.len(), "weekdays", "each day once")?;
        check((1..=52).contains(&self.every_weeks), "every_weeks", "1 to 52")?;
        check((1..=1_440).contains(&self.minutes), "minutes", "1 to 1440")?;
        optional_text("led_by", self.led_by.as_deref())?;
        count("cancelled", self.cancelled.len())?;
        count("moved", self.moved.len())?;
        let once = self.moved.iter().map(|moved| moved.from).collect::<std::collections::BTreeSet<_>>();
        check(once.len() == self.moved.len(), "moved.from", "each day once")
    }
}

/// How often something is asked of the person.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Cadence {
    /// What is asked.
    pub ask: Ask,
    /// The time zone of its days and times, by its IANA name.
    pub zone: String,
    /// The first day.
    pub first: Date,
    /// The last day.
    #[serde(default)]
    pub last: Option<Date>,
    /// Every how many days, 1 to 366, counted from the first.
    pub every_days: u16,
    /// When on such a day, the earliest first.
    pub times: Vec<Time>,
}

/// Names what is asked of the person.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// How the day feels.
    CheckIn,
    /// An instrument, by its id.
    Instrument(String),
}

impl Content for Cadence {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        if let Ask::Instrument(id) = &self.ask {
            text("ask", id)?;
        }
        zone("zone", &self.zone)?;
        check(self.last.is_none_or(|last| self.first <= last), "last", "not before first")?;
        check((1..=366).contains(&self.every_days), "every_days", "1 to 366")?;
        let many = (1..=TIMES_MAX).contains(&self.times.len());
        check(many, "times", format_args!("1 to {TIMES_MAX} times of day"))?;
        rising("times", self.times.iter().copied())
    }
}

/// Where the programme wants other thresholds than the rules have by default.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Thresholds {
    /// Values by the parameter's name, such as `R6.total` ([`crate::clinical::rules`] lists them).
    pub values: BTreeMap<String, f64>,
    /// Rules that are not evaluated, by id, such as `R24`.
    pub rules_off: Vec<String>,
    /// Which band table of an instrument counts, by the instrument's id.
    pub bands: BTreeMap<String, String>,
    /// Instruments in use that are off by default, such as `ciwa_b`, whose licence is not confirmed.
    pub instruments_on: Vec<String>,
}

impl Content for Thresholds {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        count("values", self.values.len())?;
        count("rules_off", self.rules_off.len())?;
        count("bands", self.bands.len())?;
        count("instruments_on", self.instruments_on.len())?;
        let finite = self.values.values().all(|value| value.is_finite());
        check(finite, "values", "numbers")?;
        let names = self.values.keys().chain(self.bands.keys()).chain(self.bands.values());
        let names = names.chain(&self.rules_off).chain(&self.instruments_on);
        names.into_iter().try_for_each(|name| text("thresholds", name))
    }
}

/// An instrument of the programme's own, which travels in the plan.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgrammeInstrument {
    /// The instrument's file, JSON as [`crate::clinical::instrument`] reads it.
    pub json: String,
}

impl Content for ProgrammeInstrument {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        check(self.json.len() <= 64 * 1_024, "json", "at most 64 KiB")?;
        let refused = crate::clinical::instrument::Instrument::from_json("json", &self.json).err();
        check(refused.is_none(), "json", refused.map_or_else(String::new, |error| error.to_string()))
    }
}

/// Checks that times of day rise.
fn rising(field: &'static str, times: impl IntoIterator<Item = Time>) -> Result<(), Invalid> {
    let mut last = None;
    for time in times {
        check(last.is_none_or(|last| last < time), field, "times of day, each once, the earliest first")?;
        last = Some(time);
    }
    Ok(())
}
