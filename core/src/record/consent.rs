//! Written consent to disclose records (42 CFR 2.31).

use ebb_protocol::id::MemberId;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::body::{Content, check, optional_text, prose, text};
use super::{Category, Invalid, Purpose, Writer};

/// A written consent: the nine elements of 42 CFR 2.31(a), as the person signed them.
///
/// [`crate::clinical::part2`] says whether one is valid at a moment. A record that is retracted was entered by
/// mistake; a consent that is taken back says so in `revoked`, and what was shared until then was shared.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Consent {
    /// 1: the patient's name.
    pub patient: String,
    /// 2: who may disclose, by name or class.
    pub discloser: String,
    /// 3: what may be disclosed.
    pub categories: Vec<Category>,
    /// 3: the same in words, specific and meaningful.
    pub description: String,
    /// 4: who may receive it, by name or class.
    pub recipient: String,
    /// 4: the recipient's member id in this space, where it has one: the member's keys are granted under this consent.
    #[serde(default)]
    pub member: Option<MemberId>,
    /// 5: what for.
    pub purposes: Vec<Purpose>,
    /// 6: the person was told that they may revoke it, and how.
    pub told_of_revocation: bool,
    /// 7: the last day on which it holds; absent means that it ends with `ends_when`.
    #[serde(default)]
    pub expires: Option<Date>,
    /// 7: the event or condition with which it ends; `none` is allowed for treatment, payment and operations.
    #[serde(default)]
    pub ends_when: Option<String>,
    /// 8: who signed, the patient or their representative.
    pub signed_by: String,
    /// 9: on which day.
    pub signed_on: Date,
    /// Whether it is for counselling notes, which are never consented to together with anything else.
    pub counselling_notes: bool,
    /// When it was revoked, in ms since the Unix epoch.
    #[serde(default)]
    pub revoked_ms: Option<i64>,
}

impl Content for Consent {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_patient(&[Category::Profile])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        text("patient", &self.patient)?;
        text("discloser", &self.discloser)?;
        check(!self.categories.is_empty() || self.counselling_notes, "categories", "at least one")?;
        let shared = !self.categories.contains(&Category::Private);
        check(shared, "categories", "without private, which is never shared")?;
        prose("description", &self.description)?;
        text("recipient", &self.recipient)?;
        check(!self.purposes.is_empty(), "purposes", "at least one")?;
        let alone = self.purposes.len() == 1 || !self.purposes.contains(&Purpose::Legal);
        check(alone, "purposes", "legal alone: consent to proceedings cannot be combined (2.31(d))")?;
        let apart = !self.counselling_notes || self.categories.is_empty();
        check(apart, "counselling_notes", "consented to alone (2.31(b))")?;
        check(self.told_of_revocation, "told_of_revocation", "true: the form must say how to revoke")?;
        optional_text("ends_when", self.ends_when.as_deref())?;
        let ends = self.expires.is_some() || self.ends_when.is_some();
        check(ends, "expires", "a day, or an event in ends_when")?;
        let care = [Purpose::Treatment, Purpose::Payment, Purpose::Operations];
        let unending = self.ends_when.as_deref().is_some_and(|when| when.eq_ignore_ascii_case("none"));
        let allowed = !unending || self.purposes.iter().all(|purpose| care.contains(purpose));
        check(allowed, "ends_when", "an event: none is for treatment, payment and operations alone")?;
        let after = self.expires.is_none_or(|expires| self.signed_on <= expires);
        check(after, "expires", "not before the day of the signature")?;
        text("signed_by", &self.signed_by)
    }

    fn may_follow(&self, before: &Self) -> Result<(), Invalid> {
        let same = Self { revoked_ms: before.revoked_ms, ..self.clone() } == *before;
        check(same, "consent", "as it was signed: sign another instead, or revoke this one")?;
        let stands = before.revoked_ms.is_none() || self.revoked_ms == before.revoked_ms;
        check(stands, "revoked_ms", "as it was: a revoked consent stays revoked")
    }
}
