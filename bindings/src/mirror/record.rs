//! What is logged and listed: records, and the kinds that the bindings take apart.

use ebb_core::{Query, SpaceId, record};
use uuid::Uuid;

use super::{Answers, Moment, RecordId};

/// How a record is known.
pub type Source = record::Source;
/// A consent category: what a patient grants.
pub type ConsentCategory = record::Category;
/// A dose taken or not taken.
pub type Dose = record::Dose;
/// One dose of a regimen.
pub type PlannedDose = record::PlannedDose;
/// What a dose's amount counts.
pub type DoseUnit = record::Unit;
/// Whether a dose was taken.
pub type Taking = record::Taking;
/// How a day feels.
pub type CheckIn = record::CheckIn;
/// What a record is about.
pub type RecordKind = record::Kind;
/// Where a record is.
pub type Delivery = ebb_core::Delivery;
/// Why and when a record was retracted.
pub type Retraction = record::Retraction;
/// How a record is known.
#[uniffi::remote(Enum)]
pub enum Source {
    /// The patient said so.
    SelfReport,
    /// A member of the care team saw it.
    Observed,
    /// It came from another system.
    Imported,
    /// It was made up, to show or to try something: it is of nobody.
    Synthetic,
}

/// A consent category: what a patient grants.
#[uniffi::remote(Enum)]
pub enum ConsentCategory {
    /// Answers to withdrawal scales, craving, pain, vitals and notes to the care team.
    Symptoms,
    /// Doses taken and not taken.
    Medication,
    /// Use of substances, and home tests.
    SubstanceUse,
    /// Check-ins and questionnaires about mood and daily life.
    Wellbeing,
    /// Triggers, coping, meetings, goals and own reports of attendance.
    Recovery,
    /// Name, language, contacts, supporters and coverage.
    Profile,
    /// What someone who helps in an emergency must know.
    Emergency,
    /// Notes nobody else has a key for; never to be granted.
    Private,
    /// Messages between patient and care team.
    Messages,
    /// The treatment plan.
    Plan,
    /// What the care team observed: scales, screens, doses, attendance.
    Observations,
}

/// A dose taken or not taken. The absence of both is unknown: no record stands for it.
#[uniffi::remote(Record)]
pub struct Dose {
    /// The drug as the plan names it.
    pub drug: String,
    /// The drug's RxNorm concept, where one is known.
    #[uniffi(default = None)]
    pub rxnorm: Option<String>,
    /// How much, in `unit`.
    pub amount: f64,
    /// What `amount` counts.
    pub unit: DoseUnit,
    /// Whether it was taken.
    pub taking: Taking,
    /// Whether a member of the care team watched; never from a patient.
    #[uniffi(default = false)]
    pub observed: bool,
    /// The dose of the plan that this answers, if it answers one.
    #[uniffi(default = None)]
    pub planned: Option<PlannedDose>,
}

/// Names one dose of a regimen.
#[uniffi::remote(Record)]
pub struct PlannedDose {
    /// The regimen's record.
    pub regimen: RecordId,
    /// When it is due, in ms since the Unix epoch.
    pub due_ms: i64,
}

/// What a dose's amount counts.
#[uniffi::remote(Enum)]
pub enum DoseUnit {
    /// Milligrams.
    Mg,
    /// Micrograms.
    Mcg,
    /// Millilitres.
    Ml,
    /// Tablets.
    Tablet,
    /// Films.
    Film,
    /// Patches.
    Patch,
    /// Injections.
    Injection,
}

/// Whether a dose was taken.
#[uniffi::remote(Enum)]
pub enum Taking {
    /// It was taken.
    Taken,
    /// It was not taken.
    NotTaken {
        /// Why, in the patient's or the observer's words.
        reason: Option<String>,
    },
}

/// How a day feels: at least one of these.
#[uniffi::remote(Record)]
pub struct CheckIn {
    /// Mood, 0 (worst) to 10 (best).
    #[uniffi(default = None)]
    pub mood: Option<u8>,
    /// Stress, 0 to 10.
    #[uniffi(default = None)]
    pub stress: Option<u8>,
    /// Craving, 0 to 10.
    #[uniffi(default = None)]
    pub craving: Option<u8>,
    /// Pain, 0 to 10.
    #[uniffi(default = None)]
    pub pain: Option<u8>,
    /// Hours slept in the last night, 0 to 24.
    #[uniffi(default = None)]
    pub sleep_hours: Option<f32>,
}

/// What a record is about.
#[uniffi::remote(Enum)]
pub enum RecordKind {
    /// A dose taken or not taken.
    Dose,
    /// The answers to an instrument.
    Answers,
    /// A withdrawal band known without the answers behind it.
    WithdrawalBand,
    /// Vital signs.
    Vitals,
    /// The result of a drug screen.
    DrugScreen,
    /// A use of a substance.
    UseEvent,
    /// A session of the programme, attended or not.
    Visit,
    /// How a day feels.
    CheckIn,
    /// What happened around an urge.
    Coping,
    /// A meeting of people who help each other.
    Meeting,
    /// Something done for oneself.
    Activity,
    /// What a person wants.
    Goal,
    /// A person's word on a version of the plan.
    PlanSignOff,
    /// A note, whose text is the record's collaborative note.
    Note,
    /// A message between patient and care team.
    Message,
    /// Who a person is.
    Person,
    /// Where and with whom a person lives.
    LivingSituation,
    /// Somebody to call.
    Contact,
    /// Who pays.
    Coverage,
    /// What somebody who helps in an emergency must know.
    EmergencyCard,
    /// A written consent to disclose records.
    Consent,
    /// A request to restrict how records are used.
    RestrictionRequest,
    /// What holds for the programme as a whole.
    Programme,
    /// A problem that is worked on.
    Problem,
    /// A condition that is treated.
    Condition,
    /// Somebody of the care team.
    TeamMember,
    /// A medicine and how it is to be taken.
    Regimen,
    /// Sessions that come again.
    SessionSeries,
    /// How often something is asked of the person.
    Cadence,
    /// The programme's own thresholds.
    Thresholds,
    /// An instrument of the programme's own.
    ProgrammeInstrument,
    /// A move between levels of care.
    LevelMove,
    /// Who may come.
    Eligibility,
    /// A permission of the payer.
    Authorization,
    /// How a person means to keep from returning to use.
    RelapsePrevention,
    /// What comes after the programme.
    Aftercare,
    /// Something that can help.
    Resource,
    /// A person was sent somewhere.
    Referral,
    /// A version of the plan.
    PlanVersion,
    /// Somebody has seen records.
    Seen,
    /// What was done about an alert.
    AlertAction,
    /// The answer to a request for restriction.
    RestrictionAnswer,
    /// A kind that only a newer version knows, by its label.
    Unknown(String),
}

/// Where a record is.
#[uniffi::remote(Enum)]
pub enum Delivery {
    /// On this device only.
    OnPhone,
    /// Every change of it is durable on the server.
    OnServer,
}

/// Why and when a record was retracted.
#[uniffi::remote(Record)]
pub struct Retraction {
    /// The reason given.
    pub reason: String,
    /// When, in ms since the Unix epoch by the author's clock.
    pub at_millis: i64,
}

/// The present version of a record.
#[derive(Clone, PartialEq, uniffi::Record)]
pub struct Record {
    /// Which record it is.
    pub id: RecordId,
    /// The consent category that it belongs to.
    pub category: ConsentCategory,
    /// What it is about.
    pub kind: RecordKind,
    /// When it happened.
    pub occurred: Moment,
    /// When the present version was written down, in ms since the Unix epoch by its author's clock.
    pub recorded_ms: i64,
    /// The device that wrote the present version.
    pub author: String,
    /// The member of staff who wrote the present version, in a clinic.
    pub staff: Option<String>,
    /// How it is known.
    pub source: Source,
    /// What it says.
    pub body: RecordBody,
    /// Its note, often empty.
    pub note: String,
    /// Why and when it was retracted, if it was.
    pub retracted: Option<Retraction>,
    /// How many other versions were written at the same time and await a choice.
    pub conflicts: u32,
    /// Whether a newer version of the app wrote something that this one does not know.
    pub from_newer_version: bool,
}

/// What a record says.
#[derive(Clone, PartialEq, uniffi::Enum)]
pub enum RecordBody {
    /// A dose taken or not taken.
    Dose {
        /// Which, and whether.
        dose: Dose,
    },
    /// How a day feels.
    CheckIn {
        /// The answers.
        check_in: CheckIn,
    },
    /// The answers to an instrument.
    Answers {
        /// Which, and what was answered.
        answers: Answers,
    },
    /// A kind that this version of the bindings does not take apart: see the record's `kind`.
    Other,
}

/// Shows the kind alone: contents stay out of logs.
impl std::fmt::Debug for RecordBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dose { .. } => "RecordBody(dose)",
            Self::CheckIn { .. } => "RecordBody(check_in)",
            Self::Answers { .. } => "RecordBody(answers)",
            Self::Other => "RecordBody(other)",
        })
    }
}

/// Shows id and kind alone: contents stay out of logs.
impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record({}, {})", self.id, self.kind.label())
    }
}

impl From<record::Record> for Record {
    fn from(record: record::Record) -> Self {
        Self {
            id: record.id,
            category: record.category,
            kind: record.kind,
            occurred: record.occurred,
            recorded_ms: record.recorded_at,
            author: Uuid::from_bytes(record.author).simple().to_string(),
            staff: record.staff,
            source: record.source,
            body: record.body.into(),
            note: record.note,
            retracted: record.retracted,
            conflicts: record.conflicts,
            from_newer_version: record.from_newer_version,
        }
    }
}

impl From<record::Body> for RecordBody {
    fn from(body: record::Body) -> Self {
        match body {
            record::Body::Dose(dose) => Self::Dose { dose },
            record::Body::CheckIn(check_in) => Self::CheckIn { check_in },
            record::Body::Answers(answers) => Self::Answers { answers: answers.into() },
            _ => Self::Other,
        }
    }
}

/// Which records to list: all of the patient's own, if nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, uniffi::Record)]
pub struct RecordQuery {
    /// Only what happened from this moment on, in ms since the Unix epoch.
    #[uniffi(default = None)]
    pub from_ms: Option<i64>,
    /// Only what happened before this moment, in ms since the Unix epoch.
    #[uniffi(default = None)]
    pub until_ms: Option<i64>,
    /// Only this kind.
    #[uniffi(default = None)]
    pub kind: Option<RecordKind>,
    /// Only this category.
    #[uniffi(default = None)]
    pub category: Option<ConsentCategory>,
    /// At most so many.
    #[uniffi(default = None)]
    pub limit: Option<u32>,
    /// The patient's space, for a clinic.
    #[uniffi(default = None)]
    pub space: Option<SpaceId>,
}

impl From<RecordQuery> for Query {
    fn from(query: RecordQuery) -> Self {
        Self {
            from_ms: query.from_ms,
            until_ms: query.until_ms,
            kind: query.kind,
            category: query.category,
            limit: query.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        }
    }
}
