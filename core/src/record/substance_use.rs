//! Uses of substances, and tests for them.

use serde::{Deserialize, Serialize};

use super::body::{Content, optional_text, text};
use super::{Category, Invalid, Writer};

/// The result of a drug screen for one substance.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct DrugScreen {
    /// What was tested.
    pub specimen: Specimen,
    /// The substance looked for.
    pub substance: String,
    /// What the test showed.
    pub result: ScreenResult,
    /// Whether the specimen's temperature was in range, where it was taken.
    #[serde(default)]
    pub temperature_ok: Option<bool>,
    /// Whether the result is what the care team expects, a prescribed drug found for example, where somebody
    /// judged it.
    #[serde(default)]
    pub expected: Option<bool>,
    /// Who tested; absent means nobody said.
    #[serde(default)]
    pub place: Option<TestPlace>,
}

/// Names who did a test.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestPlace {
    /// The person, at home.
    Home,
    /// The programme, with a test at the point of care.
    PointOfCare,
    /// A laboratory.
    Laboratory,
}

/// Names the material of a drug screen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Specimen {
    /// Urine.
    Urine,
    /// Oral fluid.
    OralFluid,
    /// Breath.
    Breath,
    /// Blood.
    Blood,
    /// Hair.
    Hair,
}

/// Tells what a drug screen showed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScreenResult {
    /// The substance was found.
    Positive,
    /// The substance was not found.
    Negative,
    /// No specimen was given.
    Refused,
    /// The specimen could not be judged.
    Invalid,
}

/// A use of a substance.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct UseEvent {
    /// The substance.
    pub substance: String,
    /// How it entered the body, if told.
    #[serde(default)]
    pub route: Option<Route>,
    /// How much, in the patient's words, if told.
    #[serde(default)]
    pub amount: Option<String>,
}

/// Names how a substance entered the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// Swallowed.
    Oral,
    /// Held under the tongue or in the cheek.
    Sublingual,
    /// Through the nose.
    Nasal,
    /// Smoked or vaporised.
    Smoked,
    /// Injected.
    Injected,
    /// Any other way.
    Other,
}

impl DrugScreen {
    /// Makes a screen of which nothing else is told.
    pub fn new(specimen: Specimen, substance: impl Into<String>, result: ScreenResult) -> Self {
        let substance = substance.into();
        Self { specimen, substance, result, temperature_ok: None, expected: None, place: None }
    }

    /// Says whether the specimen's temperature was in range.
    #[must_use]
    pub fn temperature_ok(mut self, ok: bool) -> Self {
        self.temperature_ok = Some(ok);
        self
    }

    /// Says whether the result is what the care team expects.
    #[must_use]
    pub fn expected(mut self, expected: bool) -> Self {
        self.expected = Some(expected);
        self
    }

    /// Says who tested.
    #[must_use]
    pub fn place(mut self, place: TestPlace) -> Self {
        self.place = Some(place);
        self
    }
}

impl Content for DrugScreen {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_patient(&[Category::SubstanceUse])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        text("substance", &self.substance)
    }
}

impl UseEvent {
    /// Makes a use of which nothing else is told.
    pub fn new(substance: impl Into<String>) -> Self {
        Self { substance: substance.into(), route: None, amount: None }
    }

    /// Says how it entered the body.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.route = Some(route);
        self
    }

    /// Says how much, in the patient's words.
    #[must_use]
    pub fn amount(mut self, amount: impl Into<String>) -> Self {
        self.amount = Some(amount.into());
        self
    }
}

impl Content for UseEvent {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_patient(&[Category::SubstanceUse])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        text("substance", &self.substance)?;
        optional_text("amount", self.amount.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{refused_by_clinic, refused_by_patient};

    #[test]
    fn screens_and_uses_name_their_substance() {
        let screen = |substance| {
            let screen = DrugScreen::new(Specimen::Urine, substance, ScreenResult::Positive);
            screen.temperature_ok(true).expected(true).place(TestPlace::Laboratory)
        };
        assert_eq!(refused_by_clinic(screen("buprenorphine")), None);
        assert_eq!(refused_by_patient(screen("buprenorphine").place(TestPlace::Home)), None);
        assert_eq!(refused_by_clinic(screen("")).as_deref(), Some("substance"));
        let used = |substance| UseEvent::new(substance).route(Route::Nasal).amount("half a bag");
        let told = used("heroin");
        assert_eq!((told.route, told.amount.as_deref()), (Some(Route::Nasal), Some("half a bag")));
        assert_eq!(refused_by_patient(told), None);
        assert_eq!(refused_by_patient(used("")).as_deref(), Some("substance"));
        assert_eq!(refused_by_patient(used("heroin").amount("")).as_deref(), Some("amount"));
    }
}
