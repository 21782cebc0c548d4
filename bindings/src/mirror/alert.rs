//! What calls for attention, and whom to call.

use ebb_core::{AlertView, clinical::rules, record};

use super::{AlertId, RecordId};

/// How pressing an alert is.
pub type AlertSeverity = rules::Severity;
/// Who has to do with an alert first.
pub type AlertOwner = rules::Owner;
/// Whether something is known to be so, or not known not to be.
pub type Certainty = rules::Certainty;
/// How it stands with an alert.
pub type AlertState = rules::AlertState;
/// A number to call.
pub type Helpline = record::Helpline;

/// Something that a rule found.
#[derive(Clone, PartialEq, Eq, uniffi::Record)]
pub struct ClinicalAlert {
    /// Which: the same on every device that has the same records.
    pub id: AlertId,
    /// The rule that found it, such as `R6`; the book lists them.
    pub rule: String,
    /// What it is about: an instrument, a medicine, a session.
    pub subject: String,
    /// How pressing it is.
    pub severity: AlertSeverity,
    /// Whether it is known, or not known not to be: then somebody must ask.
    pub certainty: Certainty,
    /// Who has to do with it first.
    pub owner: AlertOwner,
    /// How it stands with it.
    pub state: AlertState,
    /// Whether what it warns of should wait until somebody has looked and given a reason.
    pub holds: bool,
    /// What was found, in English, with its figures; never for a lock screen.
    pub text: String,
    /// When what it is about began, in ms since the Unix epoch.
    pub from_ms: i64,
    /// When that ended, in ms since the Unix epoch; none while it lasts.
    pub until_ms: Option<i64>,
    /// When it could have been observed, in ms since the Unix epoch.
    pub observed_ms: i64,
    /// When this device first found it, in ms since the Unix epoch by its clock.
    pub raised_ms: i64,
    /// How long after it could have been observed that was, in ms: what arrives late is found late.
    pub late_ms: i64,
    /// The records that it was found in.
    pub inputs: Vec<RecordId>,
}

/// How pressing an alert is.
#[uniffi::remote(Enum)]
pub enum AlertSeverity {
    /// Something to know; nothing is to be done.
    Info,
    /// Something to tell the person, in kind words.
    Notice,
    /// Something that the care team looks at when it next looks at this person.
    Review,
    /// Somebody of the care team gets in touch today.
    SameDay,
    /// Somebody acts now.
    Urgent,
    /// The emergency path: the phone shows the crisis screen at once, with or without a network.
    Emergency,
}

/// Who has to do with an alert first.
#[uniffi::remote(Enum)]
pub enum AlertOwner {
    /// The person.
    Patient,
    /// Whoever of the care team looks first.
    CareTeam,
    /// Who prescribes.
    Prescriber,
    /// Who speaks with payers.
    UtilizationReview,
    /// Who watches over what is disclosed.
    PrivacyOfficer,
}

/// Whether something is known to be so, or not known not to be.
#[uniffi::remote(Enum)]
pub enum Certainty {
    /// Records say so.
    Known,
    /// Records that would tell are missing: somebody must ask.
    Unknown,
}

/// How it stands with an alert.
#[uniffi::remote(Enum)]
pub enum AlertState {
    /// Nobody has done anything about it.
    Open,
    /// Somebody of the care team has it.
    Acknowledged,
    /// It was handed on.
    Escalated,
    /// It is dealt with.
    Resolved,
    /// It turned out not to be so.
    Withdrawn,
}

impl From<AlertView> for ClinicalAlert {
    fn from(AlertView { alert, state }: AlertView) -> Self {
        let (raised_ms, late_ms) = (alert.raised_ms(), alert.late_ms());
        let finding = alert.finding;
        Self {
            id: finding.id,
            rule: finding.rule.into_owned(),
            subject: finding.subject,
            severity: finding.severity,
            certainty: finding.certainty,
            owner: finding.owner,
            state,
            holds: finding.holds,
            text: finding.text,
            from_ms: finding.from_ms,
            until_ms: finding.until_ms,
            observed_ms: finding.observed_ms,
            raised_ms,
            late_ms,
            inputs: finding.inputs,
        }
    }
}

/// A number to call.
#[uniffi::remote(Record)]
pub struct Helpline {
    /// Who answers.
    pub name: String,
    /// The number to call.
    pub phone: Option<String>,
    /// The number to text.
    pub text: Option<String>,
    /// When somebody answers.
    pub hours: Option<String>,
}
