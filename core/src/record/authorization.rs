//! Who may come, and what the payer permits.

use std::collections::BTreeSet;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::body::{Content, check, optional, optional_prose, optional_text, text};
use super::care_plan::count;
use super::{Category, Invalid, Level, SessionKind, Writer};

/// Who may come: each criterion with what speaks for it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Eligibility {
    /// The criteria, each at most once.
    pub criteria: Vec<Criterion>,
}

/// One criterion of eligibility.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Criterion {
    /// Which.
    pub what: CriterionSort,
    /// Whether it is met.
    pub outcome: CriterionOutcome,
    /// What speaks for or against it.
    #[serde(default)]
    pub evidence: Option<String>,
    /// Who assessed it.
    #[serde(default)]
    pub assessor: Option<String>,
    /// When.
    #[serde(default)]
    pub on: Option<Date>,
}

/// Names a criterion of eligibility for outpatient detox.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CriterionSort {
    /// A diagnosis of dependence.
    Diagnosis,
    /// A medical assessment.
    MedicalAssessment,
    /// A stable place to live.
    StableLiving,
    /// The person's commitment.
    Commitment,
}

/// Tells whether a criterion is met.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CriterionOutcome {
    /// It is.
    Met,
    /// It is not.
    NotMet,
    /// Nobody has looked yet.
    NotAssessed,
}

impl CriterionSort {
    /// Every criterion.
    pub const ALL: [Self; 4] =
        [Self::Diagnosis, Self::MedicalAssessment, Self::StableLiving, Self::Commitment];
}

impl Criterion {
    /// Says that it is met, by whose assessment, and when.
    pub fn met(what: CriterionSort, assessor: impl Into<String>, on: Date) -> Self {
        let (assessor, on) = (Some(assessor.into()), Some(on));
        Self { what, outcome: CriterionOutcome::Met, evidence: None, assessor, on }
    }

    /// Says that it is not met, by whose assessment, and when.
    pub fn not_met(what: CriterionSort, assessor: impl Into<String>, on: Date) -> Self {
        Self { outcome: CriterionOutcome::NotMet, ..Self::met(what, assessor, on) }
    }

    /// Says that nobody has looked yet.
    pub fn not_assessed(what: CriterionSort) -> Self {
        let outcome = CriterionOutcome::NotAssessed;
        Self { what, outcome, evidence: None, assessor: None, on: None }
    }

    /// Says what speaks for or against it.
    #[must_use]
    pub fn evidence(mut self, evidence: impl Into<String>) -> Self {
        self.evidence = Some(evidence.into());
        self
    }
}

impl Eligibility {
    /// Says whether the person is eligible; `None` while a criterion is not assessed.
    #[must_use]
    pub fn is_met(&self) -> Option<bool> {
        let outcome = |what| self.criteria.iter().find(|criterion| criterion.what == what);
        let outcomes = CriterionSort::ALL.map(|what| outcome(what).map(|criterion| criterion.outcome));
        if outcomes.contains(&Some(CriterionOutcome::NotMet)) {
            return Some(false);
        }
        outcomes.iter().all(|outcome| *outcome == Some(CriterionOutcome::Met)).then_some(true)
    }
}

impl Content for Eligibility {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        let mut seen = BTreeSet::new();
        for criterion in &self.criteria {
            check(seen.insert(criterion.what), "criteria", "each criterion once")?;
            optional_prose("criteria.evidence", criterion.evidence.as_deref())?;
            optional_text("criteria.assessor", criterion.assessor.as_deref())?;
            let assessed = criterion.outcome == CriterionOutcome::NotAssessed
                || criterion.assessor.is_some() && criterion.on.is_some();
            check(assessed, "criteria", "with assessor and date, where an outcome is given")?;
        }
        Ok(())
    }
}

/// A permission of the payer, on its way or given.
///
/// ```
/// use ebb_core::record::{Authorization, Entry, Level, ServiceUnit, SessionKind, Writer};
/// use jiff::civil::date;
///
/// let asked = Authorization::draft("Acme", Level::IntensiveOutpatient, ServiceUnit::Session)
///     .sessions([SessionKind::Group])
///     .requested(20);
/// let answered = asked.partly_approved(10, date(2026, 3, 2), date(2026, 4, 30)).reason("ten, then a review");
/// assert!(Entry::new(answered.review(date(2026, 4, 15))).validate(Writer::Clinic).is_ok());
/// ```
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Authorization {
    /// Who is asked.
    pub payer: String,
    /// For which level of care.
    pub level: Level,
    /// How far it is.
    pub state: AuthorizationState,
    /// What a unit is.
    pub unit: ServiceUnit,
    /// Which sessions use units up; all if none is named.
    #[serde(default)]
    pub sessions: Vec<SessionKind>,
    /// How many units were asked for.
    #[serde(default)]
    pub requested: Option<u32>,
    /// How many were approved.
    #[serde(default)]
    pub approved: Option<u32>,
    /// The first day it covers.
    #[serde(default)]
    pub from: Option<Date>,
    /// The last day it covers.
    #[serde(default)]
    pub until: Option<Date>,
    /// When the concurrent review is due.
    #[serde(default)]
    pub review: Option<Date>,
    /// The payer's number for it.
    #[serde(default)]
    pub reference: Option<String>,
    /// Why it was denied, or approved in part.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Tells how far an authorization is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthorizationState {
    /// Being written.
    Draft,
    /// The person was assessed face to face.
    Assessed,
    /// The clinical information is with the payer.
    Submitted,
    /// The payer is asked to decide.
    Requested,
    /// All that was asked for.
    Approved,
    /// Less than was asked for.
    PartlyApproved,
    /// Nothing.
    Denied,
    /// Over.
    Expired,
}

impl AuthorizationState {
    /// The states that may follow; the same one always may.
    #[must_use]
    pub fn next(self) -> &'static [Self] {
        match self {
            Self::Draft => &[Self::Assessed],
            Self::Assessed => &[Self::Submitted],
            Self::Submitted => &[Self::Requested],
            Self::Requested => &[Self::Approved, Self::PartlyApproved, Self::Denied],
            // A denial may be appealed, and a partial approval asked about again.
            Self::Denied => &[Self::Requested],
            Self::PartlyApproved => &[Self::Requested, Self::Expired],
            Self::Approved => &[Self::Expired],
            Self::Expired => &[],
        }
    }

    /// Says whether services are covered in this state.
    #[must_use]
    pub fn covers(self) -> bool {
        matches!(self, Self::Approved | Self::PartlyApproved)
    }
}

/// Names what a payer counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceUnit {
    /// A session attended.
    Session,
    /// A day with at least one session.
    Day,
    /// An hour attended.
    Hour,
}

impl Authorization {
    /// Makes one that is being written: who is asked, for which level of care, in what units.
    pub fn draft(payer: impl Into<String>, level: Level, unit: ServiceUnit) -> Self {
        Self {
            payer: payer.into(),
            level,
            state: AuthorizationState::Draft,
            unit,
            sessions: Vec::new(),
            requested: None,
            approved: None,
            from: None,
            until: None,
            review: None,
            reference: None,
            reason: None,
        }
    }

    /// Says which sessions use units up.
    #[must_use]
    pub fn sessions(mut self, sessions: impl IntoIterator<Item = SessionKind>) -> Self {
        self.sessions = sessions.into_iter().collect();
        self
    }

    /// Says that the person was assessed.
    #[must_use]
    pub fn assessed(mut self) -> Self {
        self.state = AuthorizationState::Assessed;
        self
    }

    /// Says that the clinical information is with the payer.
    #[must_use]
    pub fn submitted(mut self) -> Self {
        self.state = AuthorizationState::Submitted;
        self
    }

    /// Says that the payer is asked for so many units.
    #[must_use]
    pub fn requested(mut self, units: u32) -> Self {
        (self.state, self.requested) = (AuthorizationState::Requested, Some(units));
        self
    }

    /// Says that all that was requested is approved, from one day to another.
    #[must_use]
    pub fn approved(mut self, from: Date, until: Date) -> Self {
        (self.state, self.approved) = (AuthorizationState::Approved, self.requested);
        (self.from, self.until) = (Some(from), Some(until));
        self
    }

    /// Says that fewer units are approved than were requested, from one day to another.
    #[must_use]
    pub fn partly_approved(mut self, units: u32, from: Date, until: Date) -> Self {
        (self.state, self.approved) = (AuthorizationState::PartlyApproved, Some(units));
        (self.from, self.until) = (Some(from), Some(until));
        self
    }

    /// Says that nothing is approved, and why.
    #[must_use]
    pub fn denied(mut self, reason: impl Into<String>) -> Self {
        self.state = AuthorizationState::Denied;
        self.reason(reason)
    }

    /// Says that it is over.
    #[must_use]
    pub fn expired(mut self) -> Self {
        self.state = AuthorizationState::Expired;
        self
    }

    /// Says when the concurrent review is due.
    #[must_use]
    pub fn review(mut self, review: Date) -> Self {
        self.review = Some(review);
        self
    }

    /// Gives the payer's number for it.
    #[must_use]
    pub fn reference(mut self, reference: impl Into<String>) -> Self {
        self.reference = Some(reference.into());
        self
    }

    /// Says why less was approved than requested.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }
}

impl Content for Authorization {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        text("payer", &self.payer)?;
        count("sessions", self.sessions.len())?;
        self.sessions.iter().try_for_each(|kind| text("sessions", kind.label()))?;
        optional("requested", self.requested, 1..=100_000)?;
        optional("approved", self.approved, 1..=100_000)?;
        if self.state.covers() {
            check(self.approved.is_some(), "approved", "given, once approved")?;
            check(self.from.is_some(), "from", "given, once approved")?;
            check(self.until.is_some(), "until", "given, once approved")?;
        }
        let less =
            self.requested.zip(self.approved).is_none_or(|(requested, approved)| approved <= requested);
        check(less, "approved", "at most what was requested")?;
        let ordered = self.from.zip(self.until).is_none_or(|(from, until)| from <= until);
        check(ordered, "until", "not before from")?;
        optional_text("reference", self.reference.as_deref())?;
        optional_prose("reason", self.reason.as_deref())?;
        let reasoned = self.state != AuthorizationState::Denied || self.reason.is_some();
        check(reasoned, "reason", "given, once denied")
    }

    fn may_follow(&self, before: &Self) -> Result<(), Invalid> {
        let next = before.state.next();
        let fits = self.state == before.state || next.contains(&self.state);
        check(fits, "state", format_args!("{:?}, or one of {next:?}", before.state))
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use crate::record::tests::{refused_by_clinic, refused_by_patient};

    const FIRST: Date = date(2026, 3, 2);
    const LAST: Date = date(2026, 4, 30);

    fn draft() -> Authorization {
        Authorization::draft("Acme", Level::IntensiveOutpatient, ServiceUnit::Day)
    }

    #[test]
    fn an_authorization_fits_in_every_state_that_it_goes_through() {
        let asked = draft().sessions([SessionKind::Group]).assessed().submitted().requested(20);
        let part = asked.clone().partly_approved(10, FIRST, LAST).reason("ten now");
        let whole = asked.clone().approved(FIRST, LAST).review(LAST).reference("A-17");
        assert_eq!((part.approved, whole.approved), (Some(10), Some(20)));
        let denied = asked.clone().denied("no form");
        let all =
            [draft(), draft().assessed(), draft().assessed().submitted(), asked, part, whole.clone(), denied];
        for authorization in all.into_iter().chain([whole.clone().expired()]) {
            assert_eq!(refused_by_clinic(authorization), None);
        }
        assert_eq!(refused_by_patient(whole).as_deref(), Some("kind"));
    }

    #[test]
    fn a_state_needs_what_it_says() {
        for (field, authorization) in [
            ("payer", Authorization::draft("", Level::Detox, ServiceUnit::Hour)),
            ("requested", draft().requested(0)),
            ("approved", draft().approved(FIRST, LAST)),
            ("approved", draft().requested(5).partly_approved(6, FIRST, LAST)),
            ("until", draft().requested(5).approved(LAST, FIRST)),
            ("reason", draft().requested(5).denied("")),
        ] {
            assert_eq!(refused_by_clinic(authorization).as_deref(), Some(field));
        }
    }

    #[test]
    fn an_assessed_criterion_has_an_assessor() {
        let met = |what| Criterion::met(what, "L. Chen", FIRST).evidence("seen");
        let all = Eligibility { criteria: CriterionSort::ALL.map(met).into() };
        assert_eq!(refused_by_clinic(all.clone()), None);
        assert_eq!(all.is_met(), Some(true));
        let with = |one| Eligibility { criteria: vec![one] };
        let refused = with(Criterion::not_met(CriterionSort::Diagnosis, "L. Chen", FIRST));
        assert_eq!((refused_by_clinic(refused.clone()), refused.is_met()), (None, Some(false)));
        let open = with(Criterion::not_assessed(CriterionSort::Diagnosis));
        assert_eq!((refused_by_clinic(open.clone()), open.is_met()), (None, None));
        let nobody = with(Criterion::met(CriterionSort::Diagnosis, "", FIRST));
        assert_eq!(refused_by_clinic(nobody).as_deref(), Some("criteria.assessor"));
    }
}
