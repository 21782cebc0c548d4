//! 42 CFR Part 2, as of the final rule of 2024 (89 FR 12472): what a record is labelled as, what goes with a
//! disclosure, what a consent permits, what a person had restricted.
//!
//! It decides and sends nothing. Whoever discloses asks [`disclose`], hands on what it returns, and keeps that
//! as the account of it. None of this is legal advice.

use std::fmt;

use jiff::civil::Date;

use super::trend::day_of;
use crate::record::{
    Category, Consent, Kind, Moment, Purpose, RecordId, RestrictionAnswer, RestrictionRequest,
};

/// The code system of sensitivities and marks.
pub const ACT_CODE: &str = "http://terminology.hl7.org/CodeSystem/v3-ActCode";

/// The code system of confidentialities.
pub const CONFIDENTIALITY: &str = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality";

/// What a record is labelled as, wherever it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label {
    /// Whether Part 2 protects it (2.11, "records"; 2.12(a)).
    pub part2: bool,
    /// Whether it is a counselling note (2.11, "SUD counseling notes"), which goes nowhere with other records.
    pub counselling_note: bool,
    /// Whether it names people other than the person: contacts, supporters, whom to call.
    pub third_party: bool,
}

/// A code of a label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LabelCode {
    /// The code system.
    pub system: &'static str,
    /// The code.
    pub code: &'static str,
    /// The code system's own words for it.
    pub display: &'static str,
}

/// A sensitivity, a mark and a confidentiality, as HL7 names them.
const PART2_CODES: [LabelCode; 3] = [
    LabelCode { system: ACT_CODE, code: "ETH", display: "substance abuse information sensitivity" },
    LabelCode {
        system: ACT_CODE,
        code: "RedisclosureProhibitionMark",
        display: "prohibition against redisclosure mark",
    },
    LabelCode { system: CONFIDENTIALITY, code: "R", display: "restricted" },
];

/// Labels a record of a person's space by its category and kind.
///
/// All that the programme creates or receives about a patient is a record under Part 2 (2.11), the plainest
/// check-in among it: that it is there says whose patient somebody is. What is in
/// [`Category::Private`] never leaves the person's own devices and is none. Counselling notes lie in the
/// clinic's own space ([`Label::COUNSELLING_NOTE`]), so no category holds any.
#[must_use]
pub fn label(category: Category, kind: &Kind) -> Label {
    let third_party = matches!(kind, Kind::Contact | Kind::EmergencyCard | Kind::RelapsePrevention);
    Label { part2: category != Category::Private, counselling_note: false, third_party }
}

impl Label {
    /// What a counselling note is labelled as.
    pub const COUNSELLING_NOTE: Self = Self { part2: true, counselling_note: true, third_party: false };

    /// Returns the codes that go with it in an export; none where Part 2 does not apply.
    #[must_use]
    pub fn codes(self) -> &'static [LabelCode] {
        if self.part2 { &PART2_CODES } else { &[] }
    }
}

/// The statement that goes with every disclosure made under a consent (2.32(a)): either of the two, and with
/// it a copy of the consent or a clear explanation of its scope (2.32(b)).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Notice {
    /// The whole statement, 2.32(a)(1).
    Full,
    /// The short statement, 2.32(a)(2).
    Short,
}

impl Notice {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Full, Self::Short];

    /// Returns its text, word for word as the regulation has it; it is never translated or cut.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Full => FULL,
            Self::Short => SHORT,
        }
    }
}

const FULL: &str = "This record which has been disclosed to you is protected by Federal confidentiality \
    rules (42 CFR part 2). These rules prohibit you from using or disclosing this record, or testimony \
    that describes the information contained in this record, in any civil, criminal, administrative, or \
    legislative proceedings by any Federal, State, or local authority, against the patient, unless \
    authorized by the consent of the patient, except as provided at 42 CFR 2.12(c)(5) or as authorized by \
    a court in accordance with 42 CFR 2.64 or 2.65. In addition, the Federal rules prohibit you from \
    making any other use or disclosure of this record unless at least one of the following applies: (i) \
    Further use or disclosure is expressly permitted by the written consent of the individual whose \
    information is being disclosed in this record or as otherwise permitted by 42 CFR part 2. (ii) You are \
    a covered entity or business associate and have received the record for treatment, payment, or health \
    care operations, or (iii) You have received the record from a covered entity or business associate as \
    permitted by 45 CFR part 164, subparts A and E. A general authorization for the release of medical or \
    other information is NOT sufficient to meet the required elements of written consent to further use or \
    redisclose the record (see 42 CFR 2.31).";

const SHORT: &str = "42 CFR part 2 prohibits unauthorized use or disclosure of these records.";

/// Tells whether a consent holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Validity {
    /// It holds. Whether an event that ends it has come, only people know: they revoke it then.
    Valid,
    /// It is not signed yet: its signature is of a later day.
    NotYetSigned,
    /// It was revoked (2.31(a)(6), 2.31(c)(3)); what was disclosed until then was disclosed under it.
    Revoked {
        /// When, in ms since the Unix epoch.
        at_ms: i64,
    },
    /// It lacks something that a consent must have (2.31(c)(2)).
    Deficient(Deficiency),
    /// Its last day is over (2.31(a)(7), 2.31(c)(1)).
    Expired {
        /// The last day on which it held.
        on: Date,
    },
}

/// Names what a consent lacks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Deficiency {
    /// The patient's name, 2.31(a)(1).
    Patient,
    /// Who may disclose, 2.31(a)(2).
    Discloser,
    /// What may be disclosed, 2.31(a)(3): in words and by category, and nothing that is never shared.
    Description,
    /// Who may receive it, 2.31(a)(4).
    Recipient,
    /// What for, 2.31(a)(5).
    Purpose,
    /// The right to revoke it, and how, 2.31(a)(6).
    RightToRevoke,
    /// A day or an event with which it ends, 2.31(a)(7); "none" is for treatment, payment and operations alone.
    Expiry,
    /// A signature, 2.31(a)(8); the day of it, 2.31(a)(9), a record cannot lack.
    Signature,
    /// Counselling notes are consented to together with something else, 2.31(b).
    NotesCombined,
    /// Proceedings are consented to together with something else, 2.31(d).
    ProceedingsCombined,
}

/// The purposes that a single consent may name for all the future (2.31(a)(4)(i), 2.31(a)(5)(ii)).
const CARE: [Purpose; 3] = [Purpose::Treatment, Purpose::Payment, Purpose::Operations];

/// Says whether a consent holds at a moment, its day being the one on the wall there (2.31).
///
/// That one is known to be false (2.31(c)(4)) no record says: whoever knows it retracts it.
///
/// Of several reasons why it does not, the one is given that comes first: not signed, revoked, deficient,
/// expired.
#[must_use]
pub fn validity(consent: &Consent, at: Moment) -> Validity {
    let today = day_of(at);
    if today < consent.signed_on {
        return Validity::NotYetSigned;
    }
    if let Some(at_ms) = consent.revoked_ms.filter(|revoked| *revoked <= at.millis) {
        return Validity::Revoked { at_ms };
    }
    if let Some(lacks) = deficiency(consent) {
        return Validity::Deficient(lacks);
    }
    match consent.expires.filter(|last| *last < today) {
        Some(on) => Validity::Expired { on },
        None => Validity::Valid,
    }
}

/// Says whether a consent permits to disclose a category for a purpose, at a moment (2.33(a)).
///
/// For legal proceedings only a consent to nothing else does (2.31(d)); counselling notes are in no category
/// ([`permits_counselling_notes`]). Whom it names as recipient the caller compares: a class is no name.
#[must_use]
pub fn permits(consent: &Consent, category: Category, purpose: Purpose, at: Moment) -> bool {
    let names = consent.categories.contains(&category) && consent.purposes.contains(&purpose);
    names && !consent.counselling_notes && validity(consent, at) == Validity::Valid
}

/// Says whether a consent permits to disclose counselling notes for a purpose, at a moment (2.31(b)).
#[must_use]
pub fn permits_counselling_notes(consent: &Consent, purpose: Purpose, at: Moment) -> bool {
    let names = consent.counselling_notes && consent.purposes.contains(&purpose);
    names && validity(consent, at) == Validity::Valid
}

/// Who receives records.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Recipient<'a> {
    /// Their name.
    pub name: &'a str,
    /// Whether they are a health plan.
    pub is_health_plan: bool,
}

/// A request for restriction and what the programme answered, the latest answer last.
#[derive(Clone, Copy)]
pub struct Restriction<'a> {
    /// The request's record.
    pub record: RecordId,
    /// What was asked for.
    pub request: &'a RestrictionRequest,
    /// The answers to it.
    pub answers: &'a [RestrictionAnswer],
}

/// Returns the first restriction that forbids a disclosure, if one does (2.26).
///
/// A request binds once the programme agreed to it (2.26(a)(3)); it need not (2.26(a)(2)). What the person
/// paid in full themselves a health plan is not told for payment or operations, whatever the answer
/// (2.26(a)(6)). No restriction reaches beyond treatment, payment and operations (2.26(a)(5)), and none keeps
/// from somebody in an emergency what their treatment needs: that is not asked here.
#[must_use]
pub fn restriction(
    restrictions: &[Restriction<'_>],
    category: Category,
    recipient: Recipient<'_>,
    purpose: Purpose,
) -> Option<RecordId> {
    let binds = |restriction: &&Restriction<'_>| {
        let Restriction { record, request, answers } = restriction;
        let about = request.categories.is_empty() || request.categories.contains(&category);
        let for_this = request.purposes.is_empty() || request.purposes.contains(&purpose);
        let answer = answers.iter().rev().find(|answer| answer.request == *record);
        let agreed = answer.is_some_and(|answer| answer.agreed);
        let told_nothing = request.paid_in_full
            && recipient.is_health_plan
            && matches!(purpose, Purpose::Payment | Purpose::Operations);
        let same = same_name(&request.recipient, recipient.name);
        about && for_this && same && (agreed || told_nothing)
    };
    let first = restrictions.iter().filter(|_| CARE.contains(&purpose)).find(binds);
    first.map(|restriction| restriction.record)
}

/// What is to be disclosed.
#[derive(Clone, Copy)]
pub struct Proposal<'a> {
    /// The record of the consent, and what it says.
    pub consent: (RecordId, &'a Consent),
    /// Of which categories.
    pub categories: &'a [Category],
    /// To whom.
    pub recipient: Recipient<'a>,
    /// What for.
    pub purpose: Purpose,
    /// By whom.
    pub discloser: &'a str,
    /// When.
    pub at: Moment,
}

/// The account of a disclosure (2.25; 45 CFR 164.528(b)(2)), and the statement that goes with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Disclosure {
    /// When.
    pub at: Moment,
    /// By whom.
    pub discloser: String,
    /// To whom.
    pub recipient: String,
    /// What.
    pub categories: Vec<Category>,
    /// What for.
    pub purpose: Purpose,
    /// Under which consent.
    pub basis: RecordId,
    /// The statement that goes with it (2.32).
    pub notice: Notice,
}

/// Says why something may not be disclosed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// Nothing was named.
    #[error("name what is to be disclosed")]
    Nothing,
    /// The consent does not hold.
    #[error("ask for a consent that holds: {0:?}")]
    Consent(Validity),
    /// The consent holds and does not cover this category for this purpose.
    #[error("ask for a consent that covers {0:?} for {1:?}")]
    NotCovered(Category, Purpose),
    /// The person had it restricted.
    #[error("leave {0:?} out: the person had it restricted")]
    Restricted(Category, RecordId),
}

/// Accounts for a disclosure under a consent, if it may be made: the consent covers each category for the
/// purpose (2.33), and no restriction forbids it (2.26).
///
/// # Errors
///
/// Names what is missing, or the category to leave out.
pub fn disclose(proposal: &Proposal<'_>, restrictions: &[Restriction<'_>]) -> Result<Disclosure, Refused> {
    let Proposal { consent: (basis, consent), categories, recipient, purpose, discloser, at } = *proposal;
    if categories.is_empty() {
        return Err(Refused::Nothing);
    }
    let holds = validity(consent, at);
    if holds != Validity::Valid {
        return Err(Refused::Consent(holds));
    }
    for category in categories.iter().copied() {
        if !permits(consent, category, purpose, at) {
            return Err(Refused::NotCovered(category, purpose));
        }
        if let Some(restriction) = restriction(restrictions, category, recipient, purpose) {
            return Err(Refused::Restricted(category, restriction));
        }
    }
    Ok(Disclosure {
        at,
        discloser: discloser.to_owned(),
        recipient: recipient.name.to_owned(),
        categories: categories.to_vec(),
        purpose,
        basis,
        notice: Notice::Full,
    })
}

fn deficiency(consent: &Consent) -> Option<Deficiency> {
    let Consent { categories, purposes, counselling_notes, .. } = consent;
    let care = purposes.iter().all(|purpose| CARE.contains(purpose));
    let ends = match (consent.expires, consent.ends_when.as_deref().map(str::trim)) {
        (_, Some(event)) if event.eq_ignore_ascii_case("none") => care,
        (expires, event) => expires.is_some() || event.is_some_and(|event| !event.is_empty()),
    };
    let empty = |text: &str| text.trim().is_empty();
    let nothing = categories.is_empty() && !counselling_notes || categories.contains(&Category::Private);
    let lacks = [
        (empty(&consent.patient), Deficiency::Patient),
        (empty(&consent.discloser), Deficiency::Discloser),
        (empty(&consent.description) || nothing, Deficiency::Description),
        (empty(&consent.recipient), Deficiency::Recipient),
        (purposes.is_empty(), Deficiency::Purpose),
        (!consent.told_of_revocation, Deficiency::RightToRevoke),
        (!ends, Deficiency::Expiry),
        (empty(&consent.signed_by), Deficiency::Signature),
        (*counselling_notes && !categories.is_empty(), Deficiency::NotesCombined),
        (purposes.contains(&Purpose::Legal) && purposes.len() > 1, Deficiency::ProceedingsCombined),
    ];
    lacks.into_iter().find(|(lacking, _)| *lacking).map(|(_, which)| which)
}

fn same_name(one: &str, other: &str) -> bool {
    one.trim().to_lowercase() == other.trim().to_lowercase()
}

/// Shows the purpose alone: who receives what stays out of logs.
impl fmt::Debug for Disclosure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Disclosure({:?})", self.purpose)
    }
}

#[cfg(test)]
mod tests;
