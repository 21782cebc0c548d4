//! How a day feels.

use serde::{Deserialize, Serialize};

use super::body::{Content, check, optional};
use super::{Category, Invalid, Writer};

/// How a day feels: at least one of these.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckIn {
    /// Mood, 0 (worst) to 10 (best).
    pub mood: Option<u8>,
    /// Stress, 0 to 10.
    pub stress: Option<u8>,
    /// Craving, 0 to 10.
    pub craving: Option<u8>,
    /// Pain, 0 to 10.
    pub pain: Option<u8>,
    /// Hours slept in the last night, 0 to 24.
    pub sleep_hours: Option<f32>,
}

impl Content for CheckIn {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_patient(&[Category::Wellbeing])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        check(*self != Self::default(), "check_in", "at least one answer")?;
        optional("mood", self.mood, 0..=10)?;
        optional("stress", self.stress, 0..=10)?;
        optional("craving", self.craving, 0..=10)?;
        optional("pain", self.pain, 0..=10)?;
        optional("sleep_hours", self.sleep_hours, 0.0..=24.0)
    }
}
