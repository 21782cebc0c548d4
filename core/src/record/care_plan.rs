//! The treatment plan, section by section: each section is a record, so that two who edit different ones
//! never meet, and two who edit the same one see it.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::body::{Content, check, optional_text, prose, text, zone};
use super::{Category, GoalState, Invalid, RecordId, Weekday, Writer};
use crate::clinical::plan::schedule::{HOURS_MAX, HOURS_MIN};

/// Most parts of one section: goals, interventions, tasks.
pub const PARTS_MAX: usize = 100;

/// What holds for the programme as a whole.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Programme {
    /// What the programme is called.
    pub name: String,
    /// The clinic's time zone, by its IANA name such as `America/New_York`.
    pub zone: String,
    /// The day on which a programme week begins.
    pub week_starts: Weekday,
    /// Fewest hours a week at this level of care; ASAM 2.1 says 9.
    pub hours_min: f32,
    /// From how many hours on a week is of the next level of care; ASAM 2.5 says 20.
    pub hours_max: f32,
    /// Whether it is an opioid treatment programme (42 CFR Part 8).
    pub opioid_treatment_programme: bool,
    /// Whom to call, shown offline and first.
    pub helplines: Vec<Helpline>,
}

/// A number to call.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Helpline {
    /// Who answers.
    pub name: String,
    /// The number to call.
    #[serde(default)]
    pub phone: Option<String>,
    /// The number to text.
    #[serde(default)]
    pub text: Option<String>,
    /// When somebody answers.
    #[serde(default)]
    pub hours: Option<String>,
}

impl Programme {
    /// Makes a programme of ASAM 2.1, 9 to 20 hours a week, whose weeks begin on Mondays.
    ///
    /// The zone is still to be given.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            zone: String::new(),
            week_starts: Weekday::Monday,
            hours_min: HOURS_MIN,
            hours_max: HOURS_MAX,
            opioid_treatment_programme: false,
            helplines: Vec::new(),
        }
    }

    /// Gives the clinic's time zone, by its IANA name.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = zone.into();
        self
    }

    /// Says on which day its weeks begin.
    #[must_use]
    pub fn week_starts(mut self, week_starts: Weekday) -> Self {
        self.week_starts = week_starts;
        self
    }

    /// Says how many hours a week are the fewest, and from how many on it is the next level of care.
    #[must_use]
    pub fn hours(mut self, min: f32, max: f32) -> Self {
        (self.hours_min, self.hours_max) = (min, max);
        self
    }

    /// Says that it is an opioid treatment programme.
    #[must_use]
    pub fn opioid_treatment_programme(mut self) -> Self {
        self.opioid_treatment_programme = true;
        self
    }

    /// Says whom to call.
    #[must_use]
    pub fn helplines(mut self, helplines: impl IntoIterator<Item = Helpline>) -> Self {
        self.helplines = helplines.into_iter().collect();
        self
    }
}

impl Helpline {
    /// Makes a line; a number to call or to text is still to be given.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), phone: None, text: None, hours: None }
    }

    /// Gives the number to call.
    #[must_use]
    pub fn phone(mut self, phone: impl Into<String>) -> Self {
        self.phone = Some(phone.into());
        self
    }

    /// Gives the number to text.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Says when somebody answers.
    #[must_use]
    pub fn hours(mut self, hours: impl Into<String>) -> Self {
        self.hours = Some(hours.into());
        self
    }
}

impl Content for Programme {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        text("name", &self.name)?;
        zone("zone", &self.zone)?;
        check((0.0..=168.0).contains(&self.hours_min), "hours_min", "0 to 168")?;
        let above = self.hours_min < self.hours_max && self.hours_max <= 168.0;
        check(above, "hours_max", "more than hours_min, at most 168")?;
        count("helplines", self.helplines.len())?;
        for line in &self.helplines {
            text("helplines.name", &line.name)?;
            optional_text("helplines.phone", line.phone.as_deref())?;
            optional_text("helplines.text", line.text.as_deref())?;
            optional_text("helplines.hours", line.hours.as_deref())?;
            let reachable = line.phone.is_some() || line.text.is_some();
            check(reachable, "helplines", "each with a number to call or to text")?;
        }
        Ok(())
    }
}

/// A problem that is worked on, with its goals and what is done for them.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// Of which side of life.
    pub domain: Domain,
    /// What the problem is.
    pub statement: String,
    /// What is to be reached.
    pub goals: Vec<PlanGoal>,
    /// What is done for it.
    pub interventions: Vec<Intervention>,
    /// When it is looked at again.
    #[serde(default)]
    pub review: Option<Date>,
}

/// Names a side of life in a biopsychosocial plan.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// The body.
    Biological,
    /// The mind.
    Psychological,
    /// The people and places around.
    Social,
}

/// A goal of the treatment plan.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanGoal {
    /// What is to be reached.
    pub text: String,
    /// By when.
    #[serde(default)]
    pub target: Option<Date>,
    /// How it stands.
    pub state: GoalState,
}

/// Something that is done for a goal.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Intervention {
    /// What.
    pub text: String,
    /// By whom.
    #[serde(default)]
    pub who: Option<String>,
    /// How often.
    #[serde(default)]
    pub frequency: Option<String>,
}

impl Problem {
    /// Makes a problem for which nothing is done yet.
    pub fn new(domain: Domain, statement: impl Into<String>) -> Self {
        let statement = statement.into();
        Self { domain, statement, goals: Vec::new(), interventions: Vec::new(), review: None }
    }

    /// Says what is to be reached.
    #[must_use]
    pub fn goals(mut self, goals: impl IntoIterator<Item = PlanGoal>) -> Self {
        self.goals = goals.into_iter().collect();
        self
    }

    /// Says what is done for it.
    #[must_use]
    pub fn interventions(mut self, interventions: impl IntoIterator<Item = Intervention>) -> Self {
        self.interventions = interventions.into_iter().collect();
        self
    }

    /// Says when it is looked at again.
    #[must_use]
    pub fn review(mut self, review: Date) -> Self {
        self.review = Some(review);
        self
    }
}

impl PlanGoal {
    /// Makes a goal that is worked on.
    pub fn open(text: impl Into<String>) -> Self {
        Self { text: text.into(), target: None, state: GoalState::Open }
    }

    /// Says by when.
    #[must_use]
    pub fn target(mut self, target: Date) -> Self {
        self.target = Some(target);
        self
    }

    /// Says how it stands.
    #[must_use]
    pub fn state(mut self, state: GoalState) -> Self {
        self.state = state;
        self
    }
}

impl Intervention {
    /// Says what is done.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), who: None, frequency: None }
    }

    /// Says by whom.
    #[must_use]
    pub fn who(mut self, who: impl Into<String>) -> Self {
        self.who = Some(who.into());
        self
    }

    /// Says how often.
    #[must_use]
    pub fn frequency(mut self, frequency: impl Into<String>) -> Self {
        self.frequency = Some(frequency.into());
        self
    }
}

impl Content for Problem {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        prose("statement", &self.statement)?;
        count("goals", self.goals.len())?;
        self.goals.iter().try_for_each(|goal| prose("goals.text", &goal.text))?;
        count("interventions", self.interventions.len())?;
        self.interventions.iter().try_for_each(|intervention| {
            prose("interventions.text", &intervention.text)?;
            optional_text("interventions.who", intervention.who.as_deref())?;
            optional_text("interventions.frequency", intervention.frequency.as_deref())
        })
    }
}

/// A condition that is treated beside, or the dependence itself.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// What it is.
    pub label: String,
    /// Its code, with the system's name before it (`ICD-10-CM F11.20`), where one was given.
    #[serde(default)]
    pub code: Option<String>,
    /// Whether it is present.
    pub active: bool,
}

impl Condition {
    /// Makes a condition that is present.
    pub fn active(label: impl Into<String>) -> Self {
        Self { label: label.into(), code: None, active: true }
    }

    /// Makes a condition that is not present any more.
    pub fn inactive(label: impl Into<String>) -> Self {
        Self { active: false, ..Self::active(label) }
    }

    /// Gives its code, with the system's name before it.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }
}

impl Content for Condition {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        text("label", &self.label)?;
        optional_text("code", self.code.as_deref())
    }
}

/// Somebody of the care team.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct TeamMember {
    /// Their name.
    pub name: String,
    /// What they do.
    pub role: Role,
    /// Whether they are the one to turn to first.
    pub primary: bool,
    /// Whether they still belong to the team.
    pub active: bool,
}

/// Names what somebody of the care team does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Leads the case.
    CaseManager,
    /// Therapist.
    Therapist,
    /// Licensed psychotherapist: who may lead a group.
    Psychotherapist,
    /// Counselor.
    Counselor,
    /// Physician.
    Physician,
    /// Psychiatrist.
    Psychiatrist,
    /// Nurse practitioner.
    NursePractitioner,
    /// Physician assistant.
    PhysicianAssistant,
    /// Nurse.
    Nurse,
    /// Peer.
    Peer,
    /// Utilization reviewer.
    UtilizationReviewer,
    /// Privacy officer.
    PrivacyOfficer,
}

impl TeamMember {
    /// Makes somebody who belongs to the team.
    pub fn new(name: impl Into<String>, role: Role) -> Self {
        Self { name: name.into(), role, primary: false, active: true }
    }

    /// Says that they are the one to turn to first.
    #[must_use]
    pub fn primary(mut self) -> Self {
        self.primary = true;
        self
    }

    /// Says that they do not belong to the team any more.
    #[must_use]
    pub fn inactive(mut self) -> Self {
        self.active = false;
        self
    }
}

impl Content for TeamMember {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        text("name", &self.name)
    }
}

/// A version of the plan: which sections it is made of, and how each of them read.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanVersion {
    /// Counts up from 1.
    pub number: u32,
    /// The sections, by record.
    pub parts: Vec<PlanPart>,
    /// What changed, in words for the person.
    pub summary: String,
}

/// A section of the plan as it read in a version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct PlanPart {
    /// The section's record.
    pub record: RecordId,
    /// A hash of what it said: SHA-256 of its value, cut to 16 bytes.
    #[serde(with = "serde_bytes")]
    pub digest: [u8; 16],
}

impl Content for PlanVersion {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        check(self.number > 0, "number", "1 or more")?;
        check((1..=1_000).contains(&self.parts.len()), "parts", "1 to 1000 sections")?;
        prose("summary", &self.summary)
    }
}

/// Checks that a list is not too long.
pub(super) fn count(field: &'static str, many: usize) -> Result<(), Invalid> {
    check(many <= PARTS_MAX, field, format_args!("at most {PARTS_MAX}"))
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use crate::record::tests::{refused_by_clinic, refused_by_patient};

    #[test]
    fn a_programme_fits_once_its_zone_is_given() {
        let programme =
            || Programme::new("Riverside").helplines([Helpline::new("Riverside").phone("555 0100")]);
        assert_eq!(refused_by_clinic(programme()).as_deref(), Some("zone"));
        let told = programme().zone("America/New_York");
        assert_eq!((told.hours_min, told.hours_max, told.week_starts), (9.0, 20.0, Weekday::Monday));
        assert_eq!(refused_by_clinic(told.clone()), None);
        assert_eq!(refused_by_patient(told.clone()).as_deref(), Some("kind"));
        assert_eq!(refused_by_clinic(told.clone().hours(20.0, 9.0)).as_deref(), Some("hours_max"));
        let told = told.week_starts(Weekday::Sunday).hours(6.0, 19.0).opioid_treatment_programme();
        let line = Helpline::new("Riverside").text("555 0102").hours("day and night");
        assert_eq!(refused_by_clinic(told.clone().helplines([line])), None);
        let mute = told.helplines([Helpline::new("Riverside")]);
        assert_eq!(refused_by_clinic(mute).as_deref(), Some("helplines"));
    }

    #[test]
    fn problems_conditions_and_members_fit_as_they_are_made() {
        let day = date(2026, 5, 1);
        let goal = PlanGoal::open("a lease").target(day).state(GoalState::SetAside);
        let done = Intervention::new("housing office").who("L. Chen").frequency("weekly");
        let problem =
            Problem::new(Domain::Social, "no place").goals([goal]).interventions([done]).review(day);
        assert_eq!(refused_by_clinic(problem.clone()), None);
        let unsaid = problem.clone().goals([PlanGoal::open("")]);
        assert_eq!(refused_by_clinic(unsaid).as_deref(), Some("goals.text"));
        let unsaid = problem.interventions([Intervention::new("")]);
        assert_eq!(refused_by_clinic(unsaid).as_deref(), Some("interventions.text"));
        assert_eq!(refused_by_clinic(Problem::new(Domain::Social, "")).as_deref(), Some("statement"));

        let dependence = Condition::active("Opioid dependence").code("ICD-10-CM F11.20");
        assert!(dependence.active && !Condition::inactive("Hepatitis C").active);
        assert_eq!(refused_by_clinic(dependence), None);
        assert_eq!(refused_by_clinic(Condition::active("")).as_deref(), Some("label"));

        let member = TeamMember::new("L. Chen", Role::Nurse);
        assert!(member.active && !member.primary);
        assert!(!member.clone().inactive().active && member.clone().primary().primary);
        assert_eq!(refused_by_clinic(member), None);
        assert_eq!(refused_by_clinic(TeamMember::new("", Role::Nurse)).as_deref(), Some("name"));
    }
}
