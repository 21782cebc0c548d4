//! What a person feels: answers to scales, bands, vitals.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::body::{Content, check, optional, text};
use super::{ANSWERS_MAX, Category, Invalid, Writer};
use crate::clinical::instrument::{AnsweredBy, Instruments, InvalidAnswer};

/// The answers to an instrument; scores are computed from them, never stored in their place.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    /// The instrument's id, such as `sows16` or `phq9`.
    pub instrument: String,
    /// The version of the instrument that was answered.
    pub version: String,
    /// The chosen option's value for each answered item, by item id.
    #[serde(with = "side_by_side")]
    pub answers: BTreeMap<String, i64>,
    /// Whether more answers are meant to follow: a draft is shown as one, and only its safety items count.
    #[serde(default)]
    pub draft: bool,
}

impl Answers {
    /// Checks the answers against the instrument that they name.
    ///
    /// # Errors
    ///
    /// Names the instrument, version or item that does not fit, and the values that would.
    pub fn check_against(&self, by: Writer, instruments: &Instruments) -> Result<(), Invalid> {
        let Some(newest) = instruments.get(&self.instrument) else {
            let ids: Vec<_> = instruments.iter().map(|instrument| instrument.id.as_str()).collect();
            return check(false, "instrument", format_args!("one of {}", ids.join(", ")));
        };
        let Some(instrument) = instruments.get_version(&self.instrument, &self.version) else {
            return check(false, "version", &newest.version);
        };
        check(
            by == Writer::Clinic || instrument.answered_by != AnsweredBy::Observer,
            "instrument",
            SELF_RATED,
        )?;
        let refused = instrument.check_from(by, &self.answers).err();
        refused.map_or(Ok(()), |InvalidAnswer { item, allowed }| {
            check(false, format!("answers.{item}"), allowed)
        })
    }
}

impl Content for Answers {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        let shipped = Instruments::shipped().get(&self.instrument);
        match (by, shipped) {
            (Writer::Clinic, _) => &[Category::Observations],
            (Writer::Patient, Some(shipped)) if shipped.answered_by == AnsweredBy::Observer => &[],
            (Writer::Patient, Some(shipped)) if shipped.category == Category::Wellbeing => {
                &[Category::Wellbeing, Category::Symptoms]
            }
            // A programme's own instrument says itself where its answers lie, and may say either.
            (Writer::Patient, _) => &[Category::Symptoms, Category::Wellbeing],
        }
    }

    fn check(&self, by: Writer, _: &str) -> Result<(), Invalid> {
        text("instrument", &self.instrument)?;
        check(!self.belongs(by).is_empty(), "instrument", SELF_RATED)?;
        text("version", &self.version)?;
        let count = (1..=ANSWERS_MAX).contains(&self.answers.len());
        check(count, "answers", format_args!("1 to {ANSWERS_MAX} answers"))
    }
}

const SELF_RATED: &str = "a scale that the patient answers";

/// Writes answers as a list of items and a list of values: the items are the same every day, so a
/// deflated batch of records holds them once.
mod side_by_side {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        answers: &BTreeMap<String, i64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let items: Vec<_> = answers.keys().collect();
        let values: Vec<_> = answers.values().collect();
        (items, values).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, i64>, D::Error> {
        let (items, values) = <(Vec<String>, Vec<i64>)>::deserialize(deserializer)?;
        let answers: BTreeMap<_, _> = items.iter().cloned().zip(values.iter().copied()).collect();
        let paired = answers.len() == items.len() && answers.len() == values.len();
        paired.then_some(answers).ok_or_else(|| D::Error::custom("each item has one value"))
    }
}

/// A withdrawal band known without the answers behind it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct WithdrawalBand {
    /// The instrument it was read from.
    pub instrument: BandInstrument,
    /// The band itself.
    pub band: Band,
    /// When it was taken, relative to a first dose.
    pub phase: Phase,
}

impl Content for WithdrawalBand {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        match (by, self.instrument) {
            (Writer::Clinic, _) => &[Category::Observations],
            (Writer::Patient, BandInstrument::Sows16) => &[Category::Symptoms],
            (Writer::Patient, BandInstrument::Cows) => &[],
        }
    }

    fn check(&self, by: Writer, _: &str) -> Result<(), Invalid> {
        check(!self.belongs(by).is_empty(), "instrument", SELF_RATED)
    }
}

/// Names an instrument whose bands are known without answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BandInstrument {
    /// Clinical Opiate Withdrawal Scale, rated by an observer.
    Cows,
    /// Subjective Opiate Withdrawal Scale, 16 items, answered by the patient.
    Sows16,
}

/// Grades withdrawal: 0 none, 1 mild, 2 moderate, 3 severe, as in CTN-0094.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Band {
    /// No withdrawal.
    None,
    /// Mild withdrawal.
    Mild,
    /// Moderate withdrawal.
    Moderate,
    /// Severe withdrawal, or moderately severe.
    Severe,
}

impl From<Band> for u8 {
    fn from(band: Band) -> Self {
        band as Self
    }
}

impl TryFrom<u8> for Band {
    type Error = &'static str;

    fn try_from(grade: u8) -> Result<Self, Self::Error> {
        [Self::None, Self::Mild, Self::Moderate, Self::Severe]
            .get(usize::from(grade))
            .copied()
            .ok_or("a band is 0 to 3")
    }
}

/// Places a measurement relative to a first dose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// No first dose is near.
    Routine,
    /// Just before the first dose.
    BeforeFirstDose,
    /// Soon after the first dose.
    AfterFirstDose,
}

/// Vital signs: at least one of these.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Vitals {
    /// Beats a minute, 20 to 300.
    pub pulse: Option<u16>,
    /// Systolic blood pressure in mmHg, 40 to 300.
    pub systolic: Option<u16>,
    /// Diastolic blood pressure in mmHg, 20 to 200.
    pub diastolic: Option<u16>,
    /// Body temperature in °C, 25 to 45.
    pub temperature: Option<f32>,
    /// Breaths a minute, 2 to 80.
    pub respiration: Option<u16>,
    /// Oxygen saturation in percent, 40 to 100.
    pub oxygen_saturation: Option<u8>,
    /// Weight in kg, 20 to 400.
    pub weight: Option<f32>,
}

impl Content for Vitals {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_patient(&[Category::Symptoms])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        check(*self != Self::default(), "vitals", "at least one measurement")?;
        optional("pulse", self.pulse, 20..=300)?;
        optional("systolic", self.systolic, 40..=300)?;
        optional("diastolic", self.diastolic, 20..=200)?;
        optional("temperature", self.temperature, 25.0..=45.0)?;
        optional("respiration", self.respiration, 2..=80)?;
        optional("oxygen_saturation", self.oxygen_saturation, 40..=100)?;
        optional("weight", self.weight, 20.0..=400.0)?;
        let ordered = self.systolic.zip(self.diastolic).is_none_or(|(upper, lower)| lower < upper);
        check(ordered, "diastolic", "lower than systolic")
    }
}
