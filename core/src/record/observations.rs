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

impl AlertAction {
    /// Says that somebody has it.
    pub fn acknowledged(alert: AlertId) -> Self {
        Self { alert, action: Handling::Acknowledged, owner: None }
    }

    /// Says that it was handed on, and to whom.
    pub fn escalated(alert: AlertId, owner: impl Into<String>) -> Self {
        Self { alert, action: Handling::Escalated, owner: Some(owner.into()) }
    }

    /// Says that it is dealt with.
    pub fn resolved(alert: AlertId) -> Self {
        Self { alert, action: Handling::Resolved, owner: None }
    }
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

impl RestrictionAnswer {
    /// Says that the programme agrees.
    pub fn agreed(request: RecordId) -> Self {
        Self { request, agreed: true, reason: None }
    }

    /// Says that the programme does not agree, and why.
    pub fn refused(request: RecordId, reason: impl Into<String>) -> Self {
        Self { request, agreed: false, reason: Some(reason.into()) }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{refused_by_clinic, refused_by_patient};

    #[test]
    fn what_is_handed_on_has_an_owner_and_a_no_has_a_reason() {
        let alert = AlertId([13; 16]);
        let escalated = AlertAction::escalated(alert, "Dr. Marsh");
        for action in [AlertAction::acknowledged(alert), escalated, AlertAction::resolved(alert)] {
            assert_eq!(refused_by_clinic(action.clone()), None);
            assert_eq!(refused_by_patient(action).as_deref(), Some("kind"));
        }
        assert_eq!(refused_by_clinic(AlertAction::escalated(alert, "")).as_deref(), Some("owner"));
        let request = RecordId::from_bytes([1; 16]);
        let refused = |reason| RestrictionAnswer::refused(request, reason);
        assert_eq!(refused_by_clinic(RestrictionAnswer::agreed(request)), None);
        assert_eq!(refused_by_clinic(refused("the plan must be told")), None);
        assert_eq!(refused_by_clinic(refused("")).as_deref(), Some("reason"));
    }
}
