//! Doses.

use serde::{Deserialize, Serialize};

use super::body::{Content, check, optional_text, text};
use super::{Category, Invalid, RecordId, Writer};

/// The most that a dose may be, in its unit; also what keeps sums exact.
pub const AMOUNT_MAX: f64 = 100_000.0;

/// A dose taken or not taken.
///
/// The absence of both is unknown: no record stands for it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Dose {
    /// The drug as the plan names it.
    pub drug: String,
    /// The drug's RxNorm concept, where one is known.
    #[serde(default)]
    pub rxnorm: Option<String>,
    /// How much, in `unit`.
    pub amount: f64,
    /// What `amount` counts.
    pub unit: Unit,
    /// Whether it was taken.
    pub taking: Taking,
    /// Whether a member of the care team watched.
    pub observed: bool,
    /// The dose of the plan that this answers, if it answers one.
    #[serde(default)]
    pub planned: Option<PlannedDose>,
}

/// Names one dose of a regimen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct PlannedDose {
    /// The regimen's record.
    pub regimen: RecordId,
    /// When it is due, in ms since the Unix epoch.
    pub due_ms: i64,
}

/// Names what a dose's amount counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Milligrams.
    Mg,
    /// Micrograms.
    Mcg,
    /// Millilitres.
    Ml,
    /// Tablets.
    Tablet,
    /// Films.
    Film,
    /// Patches.
    Patch,
    /// Injections.
    Injection,
}

/// Tells whether a dose was taken.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Taking {
    /// It was taken.
    Taken,
    /// It was not taken.
    NotTaken {
        /// Why, in the patient's or the observer's words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

impl Dose {
    /// Makes a dose that was taken.
    pub fn taken(drug: impl Into<String>, amount: f64, unit: Unit) -> Self {
        let (drug, taking) = (drug.into(), Taking::Taken);
        Self { drug, rxnorm: None, amount, unit, taking, observed: false, planned: None }
    }

    /// Makes a dose that was not taken, with the reason if one was given.
    pub fn not_taken(drug: impl Into<String>, amount: f64, unit: Unit, reason: Option<&str>) -> Self {
        let taking = Taking::NotTaken { reason: reason.map(str::to_owned) };
        Self { taking, ..Self::taken(drug, amount, unit) }
    }

    /// Gives the drug's RxNorm concept.
    #[must_use]
    pub fn rxnorm(mut self, concept: impl Into<String>) -> Self {
        self.rxnorm = Some(concept.into());
        self
    }

    /// Says which dose of the plan it answers.
    #[must_use]
    pub fn planned(mut self, planned: PlannedDose) -> Self {
        self.planned = Some(planned);
        self
    }
}

impl Content for Dose {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_patient(&[Category::Medication])
    }

    fn check(&self, by: Writer, _: &str) -> Result<(), Invalid> {
        text("drug", &self.drug)?;
        optional_text("rxnorm", self.rxnorm.as_deref())?;
        check((0.0..=AMOUNT_MAX).contains(&self.amount), "amount", format_args!("0 to {AMOUNT_MAX}"))?;
        check(by == Writer::Clinic || !self.observed, "observed", "false, from a patient")?;
        match &self.taking {
            Taking::Taken => Ok(()),
            Taking::NotTaken { reason } => optional_text("reason", reason.as_deref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::refused_by_patient;

    #[test]
    fn a_dose_names_its_drug_and_the_one_that_it_answers() {
        let planned = PlannedDose { regimen: RecordId::from_bytes([1; 16]), due_ms: 1_700_000_000_000 };
        let taken = Dose::taken("buprenorphine", 8.0, Unit::Mg).rxnorm("1819").planned(planned);
        assert!(taken.planned == Some(planned) && !taken.observed);
        assert_eq!(refused_by_patient(taken), None);
        assert_eq!(refused_by_patient(Dose::not_taken("methadone", 60.0, Unit::Mg, Some("felt ill"))), None);
        assert_eq!(refused_by_patient(Dose::taken("", 8.0, Unit::Mg)).as_deref(), Some("drug"));
        let unsaid = Dose::not_taken("methadone", 60.0, Unit::Mg, Some(""));
        assert_eq!(refused_by_patient(unsaid).as_deref(), Some("reason"));
    }
}
