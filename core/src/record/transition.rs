//! How a person moves on: levels of care, relapse prevention, aftercare, resources and referrals.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::body::{Content, check, each_text, lines, optional, optional_prose, optional_text, prose, text};
use super::care_plan::count;
use super::{Category, Invalid, RecordId, Writer};

/// A move between levels of care: the first one is the admission. [`super::Entry::at`] says when.
///
/// A discharge or step down is logged after the [`Aftercare`] plan, or says why there is none.
///
/// ```
/// use ebb_core::record::{Entry, Level, LevelMove, Writer};
///
/// let discharge = LevelMove::to(Level::Discharged, "completed").decided_by("Dr. Marsh");
/// let unplanned = discharge.without_aftercare("left the country");
/// assert!(Entry::new(unplanned).validate(Writer::Clinic).is_ok());
/// let nobody_s = LevelMove::to(Level::IntensiveOutpatient, "referred");
/// let refused = Entry::new(nobody_s).validate(Writer::Clinic).expect_err("who decided?");
/// assert_eq!(refused.field, "decided_by");
/// ```
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct LevelMove {
    /// Where to.
    pub to: Level,
    /// Why.
    pub reason: String,
    /// Who decided.
    pub decided_by: String,
    /// Who referred the person, at an admission.
    #[serde(default)]
    pub referred_by: Option<String>,
    /// Why there is no aftercare plan, at a discharge or step down without one.
    #[serde(default)]
    pub without_aftercare: Option<String>,
}

/// Names a level of care, the most intensive first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Withdrawal management.
    Detox,
    /// Residential treatment.
    Residential,
    /// Partial hospitalization, ASAM 2.5.
    PartialHospitalization,
    /// Intensive outpatient, ASAM 2.1.
    IntensiveOutpatient,
    /// Outpatient, ASAM 1.
    Outpatient,
    /// Not in the programme any more.
    Discharged,
}

impl Level {
    /// Every level, the most intensive first.
    pub const ALL: [Self; 6] = [
        Self::Detox,
        Self::Residential,
        Self::PartialHospitalization,
        Self::IntensiveOutpatient,
        Self::Outpatient,
        Self::Discharged,
    ];
}

impl LevelMove {
    /// Says where to, and why; who decided is still to be given.
    pub fn to(to: Level, reason: impl Into<String>) -> Self {
        let (reason, decided_by) = (reason.into(), String::new());
        Self { to, reason, decided_by, referred_by: None, without_aftercare: None }
    }

    /// Says who decided.
    #[must_use]
    pub fn decided_by(mut self, decided_by: impl Into<String>) -> Self {
        self.decided_by = decided_by.into();
        self
    }

    /// Says who referred the person.
    #[must_use]
    pub fn referred_by(mut self, referred_by: impl Into<String>) -> Self {
        self.referred_by = Some(referred_by.into());
        self
    }

    /// Says why there is no aftercare plan.
    #[must_use]
    pub fn without_aftercare(mut self, reason: impl Into<String>) -> Self {
        self.without_aftercare = Some(reason.into());
        self
    }
}

impl Content for LevelMove {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        prose("reason", &self.reason)?;
        text("decided_by", &self.decided_by)?;
        optional_text("referred_by", self.referred_by.as_deref())?;
        optional_prose("without_aftercare", self.without_aftercare.as_deref())
    }
}

/// How a person means to keep from returning to use, made with them early on.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RelapsePrevention {
    /// What tells them early.
    pub warning_signs: Vec<String>,
    /// What sets urges off.
    pub triggers: Vec<String>,
    /// What helps.
    pub strategies: Vec<String>,
    /// Whom to call.
    pub people: Vec<String>,
    /// When it is looked at again.
    pub review: Option<Date>,
}

impl RelapsePrevention {
    /// Says what tells them early.
    #[must_use]
    pub fn warning_signs(mut self, warning_signs: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.warning_signs = lines(warning_signs);
        self
    }

    /// Says what sets urges off.
    #[must_use]
    pub fn triggers(mut self, triggers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.triggers = lines(triggers);
        self
    }

    /// Says what helps.
    #[must_use]
    pub fn strategies(mut self, strategies: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.strategies = lines(strategies);
        self
    }

    /// Says whom to call.
    #[must_use]
    pub fn people(mut self, people: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.people = lines(people);
        self
    }

    /// Says when it is looked at again.
    #[must_use]
    pub fn review(mut self, review: Date) -> Self {
        self.review = Some(review);
        self
    }
}

impl Content for RelapsePrevention {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        check(*self != Self::default(), "relapse_prevention", "at least one line")?;
        each_text("warning_signs", &self.warning_signs)?;
        each_text("triggers", &self.triggers)?;
        each_text("strategies", &self.strategies)?;
        each_text("people", &self.people)
    }
}

/// What comes after the programme.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Aftercare {
    /// From when on.
    pub from: Date,
    /// What is to be done.
    pub tasks: Vec<Task>,
    /// Every how many days somebody asks how it goes, 1 to 366.
    #[serde(default)]
    pub check_in_days: Option<u16>,
}

/// Something to be done.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// What.
    pub text: String,
    /// By when.
    #[serde(default)]
    pub due: Option<Date>,
    /// Whether it is done.
    pub done: bool,
}

impl Aftercare {
    /// Makes a plan of tasks, from one day on.
    pub fn new(from: Date, tasks: impl IntoIterator<Item = Task>) -> Self {
        Self { from, tasks: tasks.into_iter().collect(), check_in_days: None }
    }

    /// Says every how many days somebody asks how it goes.
    #[must_use]
    pub fn check_in_days(mut self, days: u16) -> Self {
        self.check_in_days = Some(days);
        self
    }
}

impl Task {
    /// Makes a task that is still to be done.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), due: None, done: false }
    }

    /// Says by when.
    #[must_use]
    pub fn due(mut self, due: Date) -> Self {
        self.due = Some(due);
        self
    }

    /// Says that it is done.
    #[must_use]
    pub fn done(mut self) -> Self {
        self.done = true;
        self
    }
}

impl Content for Aftercare {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        count("tasks", self.tasks.len())?;
        check(!self.tasks.is_empty(), "tasks", "at least one")?;
        self.tasks.iter().try_for_each(|task| text("tasks.text", &task.text))?;
        optional("check_in_days", self.check_in_days, 1..=366)
    }
}

/// Something that can help: housing, work, law, transport.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// What it is.
    pub name: String,
    /// What it helps with, such as `housing`.
    pub sort: String,
    /// How to reach it.
    #[serde(default)]
    pub phone: Option<String>,
    /// Where it is, on the web or in town.
    #[serde(default)]
    pub place: Option<String>,
    /// When it is open.
    #[serde(default)]
    pub hours: Option<String>,
}

impl Resource {
    /// Makes a resource; what it helps with is still to be given.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), sort: String::new(), phone: None, place: None, hours: None }
    }

    /// Says what it helps with, such as `housing`.
    #[must_use]
    pub fn sort(mut self, sort: impl Into<String>) -> Self {
        self.sort = sort.into();
        self
    }

    /// Says how to reach it.
    #[must_use]
    pub fn phone(mut self, phone: impl Into<String>) -> Self {
        self.phone = Some(phone.into());
        self
    }

    /// Says where it is.
    #[must_use]
    pub fn place(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// Says when it is open.
    #[must_use]
    pub fn hours(mut self, hours: impl Into<String>) -> Self {
        self.hours = Some(hours.into());
        self
    }
}

impl Content for Resource {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        text("name", &self.name)?;
        text("sort", &self.sort)?;
        optional_text("phone", self.phone.as_deref())?;
        optional_text("place", self.place.as_deref())?;
        optional_text("hours", self.hours.as_deref())
    }
}

/// A person was sent somewhere.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Referral {
    /// Where to.
    pub to: String,
    /// What for.
    pub reason: String,
    /// The resource's record, if there is one.
    #[serde(default)]
    pub resource: Option<RecordId>,
    /// What came of it.
    pub outcome: ReferralOutcome,
}

/// Tells what came of a referral.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferralOutcome {
    /// Nothing is known yet.
    Open,
    /// They took the person.
    Accepted,
    /// They did not.
    Refused,
    /// The person did not want it.
    Declined,
    /// It is over.
    Completed,
}

impl Referral {
    /// Says where to; what for is still to be given, and what comes of it is not known yet.
    pub fn to(to: impl Into<String>) -> Self {
        Self { to: to.into(), reason: String::new(), resource: None, outcome: ReferralOutcome::Open }
    }

    /// Says what for.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// Names the resource's record.
    #[must_use]
    pub fn resource(mut self, resource: RecordId) -> Self {
        self.resource = Some(resource);
        self
    }

    /// Says what came of it.
    #[must_use]
    pub fn outcome(mut self, outcome: ReferralOutcome) -> Self {
        self.outcome = outcome;
        self
    }
}

impl Content for Referral {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        text("to", &self.to)?;
        prose("reason", &self.reason)
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use crate::record::tests::{refused_by_clinic, refused_by_patient};

    const DAY: Date = date(2026, 3, 2);

    #[test]
    fn a_move_fits_once_it_is_said_who_decided() {
        let admission = || LevelMove::to(Level::IntensiveOutpatient, "referred");
        assert_eq!(refused_by_clinic(admission()).as_deref(), Some("decided_by"));
        let decided = || admission().decided_by("Dr. Marsh").referred_by("a hospital");
        assert_eq!(refused_by_clinic(decided()), None);
        assert_eq!(refused_by_patient(decided()).as_deref(), Some("kind"));
        let unsaid = LevelMove::to(Level::Discharged, "completed").decided_by("Dr. Marsh");
        let unsaid = unsaid.without_aftercare("");
        assert_eq!(refused_by_clinic(unsaid).as_deref(), Some("without_aftercare"));
    }

    #[test]
    fn what_comes_after_has_at_least_one_line() {
        assert_eq!(refused_by_clinic(RelapsePrevention::default()).as_deref(), Some("relapse_prevention"));
        let plan = RelapsePrevention::default()
            .warning_signs(["no sleep"])
            .triggers(["payday"])
            .strategies(["call", "walk"])
            .people(["B. Friend"])
            .review(DAY);
        assert_eq!(plan.strategies.len(), 2);
        assert_eq!(refused_by_clinic(plan), None);
        assert_eq!(refused_by_clinic(Aftercare::new(DAY, [])).as_deref(), Some("tasks"));
        let tasks = [Task::new("see a doctor").due(DAY), Task::new("call").done()];
        assert_eq!(tasks.each_ref().map(|task| task.done), [false, true]);
        let after = Aftercare::new(DAY, tasks).check_in_days(7);
        assert_eq!(refused_by_clinic(after.clone()), None);
        assert_eq!(refused_by_clinic(after.check_in_days(0)).as_deref(), Some("check_in_days"));
    }

    #[test]
    fn a_referral_has_a_reason_and_a_resource_a_sort() {
        let resource = || Resource::new("Legal aid").phone("555 0103").place("Main Street 1").hours("9 to 5");
        assert_eq!(refused_by_clinic(resource()).as_deref(), Some("sort"));
        assert_eq!(refused_by_clinic(resource().sort("law")), None);
        let referral = || Referral::to("Legal aid").resource(RecordId::from_bytes([7; 16]));
        assert_eq!(referral().outcome, ReferralOutcome::Open);
        assert_eq!(refused_by_clinic(referral()).as_deref(), Some("reason"));
        let told = referral().reason("custody").outcome(ReferralOutcome::Accepted);
        assert_eq!(refused_by_clinic(told), None);
    }
}
