//! Sessions of the programme, attended or not.

use std::{convert::Infallible, str::FromStr};

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::body::{Content, check, optional, optional_text, text};
use super::{Category, Invalid, RecordId, Writer};

/// Fewest people in recovery that make a group: an intensive outpatient group is three or more.
pub const GROUP_PARTICIPANTS_MIN: u16 = 3;

/// A session of the programme, attended or not.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Visit {
    /// The kind of session.
    pub session: SessionKind,
    /// Whether it was attended.
    pub attendance: Attendance,
    /// The visit as the programme names it.
    pub label: String,
    /// How the person took part, if told.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// Minutes attended, 1 to 1440; without them an attended session counts as long as the plan says.
    #[serde(default)]
    pub minutes: Option<u16>,
    /// How many people in recovery took part; at least [`GROUP_PARTICIPANTS_MIN`] in a group.
    #[serde(default)]
    pub participants: Option<u16>,
    /// The session of the plan that this answers, if it answers one.
    #[serde(default)]
    pub planned: Option<PlannedSession>,
}

/// Names one session of a series.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct PlannedSession {
    /// The series' record.
    pub series: RecordId,
    /// The day on which the series has it, in the series' own zone, wherever it was moved to.
    pub on: Date,
}

/// Names a kind of session.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum SessionKind {
    /// Therapy for one.
    Individual,
    /// Group therapy, three people in recovery or more.
    Group,
    /// Family therapy.
    Family,
    /// A visit to a physician, nurse practitioner or physician assistant.
    Medical,
    /// A nurse's assessment.
    Nursing,
    /// An educational workshop.
    Workshop,
    /// What a programme calls otherwise.
    Other(String),
}

impl SessionKind {
    /// The kinds that have a name here.
    pub const NAMED: [Self; 6] =
        [Self::Individual, Self::Group, Self::Family, Self::Medical, Self::Nursing, Self::Workshop];

    /// Returns the name it has on disk.
    pub fn label(&self) -> &str {
        match self {
            Self::Individual => "individual",
            Self::Group => "group",
            Self::Family => "family",
            Self::Medical => "medical",
            Self::Nursing => "nursing",
            Self::Workshop => "workshop",
            Self::Other(label) => label,
        }
    }
}

impl From<String> for SessionKind {
    fn from(label: String) -> Self {
        let named = Self::NAMED.into_iter().find(|kind| kind.label() == label);
        named.unwrap_or(Self::Other(label))
    }
}

impl From<&str> for SessionKind {
    fn from(label: &str) -> Self {
        Self::from(label.to_owned())
    }
}

impl From<SessionKind> for String {
    fn from(kind: SessionKind) -> Self {
        match kind {
            SessionKind::Other(label) => label,
            named => named.label().to_owned(),
        }
    }
}

impl FromStr for SessionKind {
    type Err = Infallible;

    fn from_str(label: &str) -> Result<Self, Infallible> {
        Ok(label.into())
    }
}

/// Names how somebody takes part in a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// In person.
    InPerson,
    /// By video.
    Video,
    /// By telephone.
    Audio,
}

/// Tells whether a session was attended; missing data is unknown, never missed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Attendance {
    /// It was attended.
    Kept,
    /// It was not attended.
    Missed {
        /// Why, if told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Nobody knows.
    Unknown,
}

impl Visit {
    /// Makes a visit of which nothing else is told.
    pub fn new(session: impl Into<SessionKind>, label: impl Into<String>, attendance: Attendance) -> Self {
        Self {
            session: session.into(),
            attendance,
            label: label.into(),
            mode: None,
            minutes: None,
            participants: None,
            planned: None,
        }
    }

    /// Says how the person took part and for how many minutes.
    #[must_use]
    pub fn attended(mut self, mode: Mode, minutes: u16) -> Self {
        (self.mode, self.minutes) = (Some(mode), Some(minutes));
        self
    }

    /// Says how many people in recovery took part.
    #[must_use]
    pub fn with_participants(mut self, participants: u16) -> Self {
        self.participants = Some(participants);
        self
    }

    /// Says which session of the plan it answers.
    #[must_use]
    pub fn of(mut self, series: RecordId, on: Date) -> Self {
        self.planned = Some(PlannedSession { series, on });
        self
    }
}

impl Content for Visit {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_patient(&[Category::Recovery])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        text("session", self.session.label())?;
        text("label", &self.label)?;
        optional("minutes", self.minutes, 1..=1_440)?;
        let kept = self.attendance == Attendance::Kept;
        let attended = self.minutes.is_none() && self.participants.is_none();
        check(kept || attended, "attendance", "kept, where minutes or participants are told")?;
        let fewest = if self.session == SessionKind::Group { GROUP_PARTICIPANTS_MIN } else { 1 };
        optional("participants", self.participants, fewest..=1_000)?;
        match &self.attendance {
            Attendance::Missed { reason } => optional_text("reason", reason.as_deref()),
            Attendance::Kept | Attendance::Unknown => Ok(()),
        }
    }
}
