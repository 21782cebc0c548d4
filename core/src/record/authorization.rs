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
