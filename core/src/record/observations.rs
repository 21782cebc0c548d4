//! What a care team marks: seen, acknowledged, answered.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::body::{Content, check, optional_text};
use super::{Category, Invalid, RecordId, Writer};

/// Most records that one mark covers.
pub const SEEN_MAX: usize = 1_000;

/// Says that somebody of the care team has seen records.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Which.
    pub records: Vec<RecordId>,
}

impl Content for Seen {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Observations])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        let count = (1..=SEEN_MAX).contains(&self.records.len());
        check(count, "records", format_args!("1 to {SEEN_MAX} records"))
    }
}

/// Identifies an alert: a hash of its rule, the rule's version, its subject and its window, so that every
/// device that evaluates the same records means the same alert.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AlertId(#[serde(with = "serde_bytes")] pub [u8; 16]);

impl fmt::Display for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What somebody of the care team did about an alert; what they found goes into the note.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertAction {
    /// Which alert.
    pub alert: AlertId,
    /// What was done.
    pub action: Handling,
    /// To whom it was given, when it was.
    #[serde(default)]
    pub owner: Option<String>,
}

/// Names what is done about an alert.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Handling {
    /// Somebody has it.
    Acknowledged,
    /// It was handed on, to somebody who must act.
    Escalated,
    /// It is dealt with.
    Resolved,
}

impl Content for AlertAction {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Observations])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        optional_text("owner", self.owner.as_deref())
    }
}

/// The programme's answer to a request for restriction.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct RestrictionAnswer {
    /// The request's record.
    pub request: RecordId,
    /// Whether the programme agrees; then it is bound.
    pub agreed: bool,
    /// Why not.
    #[serde(default)]
    pub reason: Option<String>,
}

impl Content for RestrictionAnswer {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Observations])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        optional_text("reason", self.reason.as_deref())?;
        check(self.agreed || self.reason.is_some(), "reason", "given, where the programme does not agree")
    }
}
