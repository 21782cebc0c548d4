//! What is due now and next, and what a phone should remind of.

use ebb_core::{
    clinical::{plan::attendance, today},
    record,
};

use super::{AnsweredBy, DoseUnit, Moment, PlannedDose, RecordId};

/// How something stands that is due.
pub type DueState = today::State;
/// The kind of a session.
pub type SessionKind = record::SessionKind;
/// How people take part in a session.
pub type SessionMode = record::Mode;
/// What became of a session.
pub type SessionOutcome = attendance::Outcome;
/// What a reminder says.
pub type Notice = today::Notice;

/// What is due now and next.
#[derive(Clone, PartialEq, uniffi::Record)]
pub struct Today {
    /// What there is, the earliest first.
    pub items: Vec<DueItem>,
    /// Records of what may be due, nobody here knows when or how: show that the app wants an update.
    pub not_understood: Vec<RecordId>,
}

/// Something that is due.
#[derive(Clone, PartialEq, uniffi::Record)]
pub struct DueItem {
    /// What.
    pub what: Due,
    /// The record of the plan that asks for it.
    pub record: RecordId,
    /// When, and the clock on the wall in the plan's time zone.
    pub due: Moment,
    /// Whether it has a day and no time; `due` is when the day begins.
    pub all_day: bool,
    /// How it stands.
    pub state: DueState,
    /// The record that answers it.
    pub answer: Option<RecordId>,
}

/// What is due.
#[derive(Clone, PartialEq, uniffi::Enum)]
pub enum Due {
    /// A dose.
    Dose {
        /// Which one, for the dose that answers it.
        planned: PlannedDose,
        /// The drug as the plan names it.
        drug: String,
        /// How much, in `unit`.
        amount: f64,
        /// What `amount` counts.
        unit: DoseUnit,
        /// Whether it was taken; none means unknown.
        taken: Option<bool>,
    },
    /// A check-in.
    CheckIn,
    /// An instrument.
    Instrument {
        /// Which, by its id.
        id: String,
        /// Who answers it.
        answered_by: AnsweredBy,
        /// Answers that were begun: go on with them.
        draft: Option<RecordId>,
    },
    /// A session.
    Session {
        /// The kind of session.
        session: SessionKind,
        /// What the programme calls it.
        title: String,
        /// How people take part.
        mode: SessionMode,
        /// When it ends, in ms since the Unix epoch.
        ends_ms: i64,
        /// What became of it.
        outcome: SessionOutcome,
    },
    /// A task of the aftercare plan.
    Task {
        /// The plan's words.
        text: String,
    },
    /// A look at a problem of the treatment plan, or at how to keep from returning to use.
    Review,
    /// A day on which somebody asks how it goes, as the aftercare plan says.
    FollowUp,
    /// The person's word on a version of the plan.
    SignOff {
        /// The version's number.
        number: u32,
        /// Whether the person agrees, once they said so.
        agreed: Option<bool>,
    },
}

/// How something stands that is due. What is overdue is not answered yet, never missed.
#[uniffi::remote(Enum)]
pub enum DueState {
    /// It is past its time, and not answered yet.
    Overdue,
    /// It is due now.
    Due,
    /// It is due later.
    Upcoming,
    /// It is answered: a dose also by not being taken, a session also by not being attended.
    Done,
}

/// The kind of a session.
#[uniffi::remote(Enum)]
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
    /// What a programme calls otherwise, or only a newer version knows, by its label.
    Other(String),
}

/// How people take part in a session.
#[uniffi::remote(Enum)]
pub enum SessionMode {
    /// In person.
    InPerson,
    /// By video.
    Video,
    /// By telephone.
    Audio,
}

/// What became of a session.
#[uniffi::remote(Enum)]
pub enum SessionOutcome {
    /// It was attended.
    Kept,
    /// It was not attended.
    Missed,
    /// Nobody knows, or has said so yet.
    Unknown,
}

/// Something that a phone should remind of.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Reminder {
    /// When, in ms since the Unix epoch.
    pub at_ms: i64,
    /// The same whenever it is worked out anew: replace what the phone has under this id.
    pub id: String,
    /// What it says, for an app that has words of its own.
    pub notice: Notice,
    /// What it says in words that tell nothing to whoever sees the lock screen.
    pub text: String,
}

/// What a reminder says: nothing that whoever sees the lock screen may not know.
#[uniffi::remote(Enum)]
pub enum Notice {
    /// Something is to be answered.
    Check,
    /// Something begins soon.
    Soon,
}

impl From<today::Today> for Today {
    fn from(today: today::Today) -> Self {
        Self {
            items: today.items.into_iter().map(DueItem::from).collect(),
            not_understood: today.not_understood,
        }
    }
}

impl From<today::Item> for DueItem {
    fn from(item: today::Item) -> Self {
        Self {
            due: item.due(),
            what: item.what.into(),
            record: item.record,
            all_day: item.all_day,
            state: item.state,
            answer: item.answer,
        }
    }
}

impl From<today::What> for Due {
    fn from(what: today::What) -> Self {
        use today::What as Core;
        match what {
            Core::Dose { planned, drug, amount, unit, taken } => {
                Self::Dose { planned, drug, amount, unit, taken }
            }
            Core::CheckIn => Self::CheckIn,
            Core::Instrument { id, answered_by, draft } => Self::Instrument { id, answered_by, draft },
            // Which one it is, `planned`, is for a visit's record, which the bindings do not log yet.
            Core::Session { planned: _, session, title, mode, ends_ms, outcome } => {
                Self::Session { session, title, mode, ends_ms, outcome }
            }
            Core::Task(text) => Self::Task { text },
            Core::Review => Self::Review,
            Core::FollowUp => Self::FollowUp,
            Core::SignOff { number, agreed } => Self::SignOff { number, agreed },
        }
    }
}

impl Reminder {
    pub(crate) fn of(notification: today::Notification, language: &str) -> Self {
        let today::Notification { at_ms, id, notice } = notification;
        Self { at_ms, id, notice, text: notice.text(language).to_owned() }
    }
}
