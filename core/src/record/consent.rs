//! Written consent to disclose records (42 CFR 2.31).

use ebb_protocol::id::MemberId;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::body::{Content, check, optional_text, prose, text};
use super::{Category, Invalid, Purpose, Writer};

/// A written consent: the nine elements of 42 CFR 2.31(a), as the person signed them.
///
/// [`crate::clinical::part2`] says whether one is valid at a moment. A record that is retracted was entered by
/// mistake; a consent that is taken back says so in `revoked_ms`, and what was shared until then was shared.
///
/// An element that was left out is refused by its name.
///
/// ```
/// use ebb_core::record::{Category, Consent, Entry, Purpose, Writer};
/// use jiff::civil::date;
///
/// let (shared, purposes) = ([Category::Symptoms], [Purpose::Treatment]);
/// let consent = Consent::signed("A. Person", date(2026, 3, 2), shared, purposes)
///     .discloser("Riverside")
///     .description("how I feel")
///     .recipient("Dr. Marsh")
///     .expires(date(2027, 3, 2));
/// let refused = Entry::new(consent.clone()).validate(Writer::Patient).expect_err("was it said?");
/// assert_eq!(refused.field, "told_of_revocation");
/// assert!(Entry::new(consent.told_of_revocation()).validate(Writer::Patient).is_ok());
/// ```
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

impl Consent {
    /// Makes a consent that a patient signed on a day: to what, and for which purposes.
    ///
    /// Still to be given: discloser, description, recipient, that the patient was told of revocation, and when it
    /// expires or what ends it.
    pub fn signed(
        patient: impl Into<String>,
        on: Date,
        categories: impl IntoIterator<Item = Category>,
        purposes: impl IntoIterator<Item = Purpose>,
    ) -> Self {
        let patient = patient.into();
        Self {
            signed_by: patient.clone(),
            patient,
            discloser: String::new(),
            categories: categories.into_iter().collect(),
            description: String::new(),
            recipient: String::new(),
            member: None,
            purposes: purposes.into_iter().collect(),
            told_of_revocation: false,
            expires: None,
            ends_when: None,
            signed_on: on,
            counselling_notes: false,
            revoked_ms: None,
        }
    }

    /// Makes a consent to disclose counselling notes and nothing else; otherwise as [`Consent::signed`].
    pub fn to_counselling_notes(
        patient: impl Into<String>,
        on: Date,
        purposes: impl IntoIterator<Item = Purpose>,
    ) -> Self {
        Self { counselling_notes: true, ..Self::signed(patient, on, [], purposes) }
    }

    /// Says who may disclose, by name or class.
    #[must_use]
    pub fn discloser(mut self, discloser: impl Into<String>) -> Self {
        self.discloser = discloser.into();
        self
    }

    /// Says in words what may be disclosed, specific and meaningful.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Says who may receive it, by name or class.
    #[must_use]
    pub fn recipient(mut self, recipient: impl Into<String>) -> Self {
        self.recipient = recipient.into();
        self
    }

    /// Gives the recipient's member id in this space.
    #[must_use]
    pub fn member(mut self, member: MemberId) -> Self {
        self.member = Some(member);
        self
    }

    /// Says that the person was told that they may revoke it, and how.
    #[must_use]
    pub fn told_of_revocation(mut self) -> Self {
        self.told_of_revocation = true;
        self
    }

    /// Says which day is the last on which it holds.
    #[must_use]
    pub fn expires(mut self, on: Date) -> Self {
        self.expires = Some(on);
        self
    }

    /// Says with which event or condition it ends.
    #[must_use]
    pub fn ends_when(mut self, event: impl Into<String>) -> Self {
        self.ends_when = Some(event.into());
        self
    }

    /// Says which representative signed in the place of the patient.
    #[must_use]
    pub fn signed_by(mut self, representative: impl Into<String>) -> Self {
        self.signed_by = representative.into();
        self
    }

    /// Says when it was revoked, in ms since the Unix epoch.
    #[must_use]
    pub fn revoked_ms(mut self, at_ms: i64) -> Self {
        self.revoked_ms = Some(at_ms);
        self
    }
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

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use crate::record::tests::refused_by_patient;

    const DAY: Date = date(2026, 3, 2);

    /// Gives the elements that are given by name, but for one.
    fn given(consent: Consent, but: &str) -> Consent {
        type Give = fn(Consent) -> Consent;
        let elements: [(&str, Give); 5] = [
            ("discloser", |consent| consent.discloser("Riverside")),
            ("description", |consent| consent.description("how I feel")),
            ("recipient", |consent| consent.recipient("Dr. Marsh")),
            ("told_of_revocation", Consent::told_of_revocation),
            ("expires", |consent| consent.expires(date(2027, 3, 2))),
        ];
        let given = elements.into_iter().filter(|(name, _)| *name != but);
        given.fold(consent, |consent, (_, give)| give(consent))
    }

    fn without(element: &str) -> Consent {
        given(Consent::signed("A. Person", DAY, [Category::Symptoms], [Purpose::Treatment]), element)
    }

    #[test]
    fn an_element_left_out_is_refused_by_its_name() {
        assert_eq!(refused_by_patient(without("")), None);
        for element in ["discloser", "description", "recipient", "told_of_revocation", "expires"] {
            assert_eq!(refused_by_patient(without(element)).as_deref(), Some(element));
        }
        let (symptoms, treatment) = ([Category::Symptoms], [Purpose::Treatment]);
        for (field, consent) in [
            ("patient", Consent::signed("", DAY, symptoms, treatment)),
            ("categories", Consent::signed("A. Person", DAY, [], treatment)),
            ("categories", Consent::signed("A. Person", DAY, [Category::Private], treatment)),
            ("purposes", Consent::signed("A. Person", DAY, symptoms, [])),
            ("signed_by", without("").signed_by("")),
        ] {
            assert_eq!(refused_by_patient(given(consent, "")).as_deref(), Some(field));
        }
    }

    #[test]
    fn who_signed_what_ends_it_and_what_it_is_for_may_differ() {
        assert_eq!(without("").signed_by, "A. Person");
        let member = MemberId([9; 16]);
        let told = without("expires").ends_when("the end of treatment").signed_by("B. Parent").member(member);
        assert_eq!((told.patient.as_str(), told.member), ("A. Person", Some(member)));
        assert_eq!(refused_by_patient(told.clone()), None);
        assert_eq!(refused_by_patient(told.revoked_ms(1_800_000_000_000)), None);
        let notes = Consent::to_counselling_notes("A. Person", DAY, [Purpose::Treatment])
            .discloser("Riverside")
            .description("notes of our sessions")
            .recipient("Dr. Marsh")
            .told_of_revocation()
            .ends_when("none");
        assert!(notes.counselling_notes && notes.categories.is_empty());
        assert_eq!(refused_by_patient(notes), None);
    }
}
