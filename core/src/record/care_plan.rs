//! The treatment plan, section by section: each section is a record, so that two who edit different ones
//! never meet, and two who edit the same one see it.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::body::{Content, check, each_text, optional, optional_prose, optional_text, prose, text, zone};
use super::{Category, GoalState, Invalid, RecordId, Weekday, Writer};

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

impl Content for TeamMember {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        text("name", &self.name)
    }
}

/// A move between levels of care: the first one is the admission. [`super::Entry::at`] says when.
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

impl Content for Referral {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        text("to", &self.to)?;
        prose("reason", &self.reason)
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
