//! What records say: one struct for each kind.
//!
//! To add a kind: write its struct, add its line to `kinds!`, and answer for it in
//! [`Body::category`] and in `Body::validate`.

use std::{collections::BTreeMap, fmt};

use ciborium::Value as Cbor;
use serde::{Deserialize, Serialize};

use super::value::{self, Extra};
use super::{ANSWERS_MAX, Category, Invalid, TEXT_CHARS_MAX, Writer, check};

/// Declares the kinds: names, bodies, and how each is read and written.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $label:literal),+ $(,)?) => {
        /// Names what a record is about.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Kind {
            $($(#[$doc])* $kind,)+
            /// A kind that only a newer version knows, by its label.
            Unknown(String),
        }

        impl Kind {
            /// Returns the name it has on disk.
            pub fn label(&self) -> &str {
                match self {
                    $(Self::$kind => $label,)+
                    Self::Unknown(label) => label,
                }
            }

            /// Reads a label; one this version does not know is a kind all the same.
            pub fn from_label(label: &str) -> Self {
                match label {
                    $($label => Self::$kind,)+
                    other => Self::Unknown(other.to_owned()),
                }
            }
        }

        /// What a record says, by kind.
        #[derive(Clone, PartialEq)]
        pub enum Body {
            $($(#[$doc])* $kind($kind),)+
            /// A body this version cannot read, kept and re-encoded as it is.
            Unknown {
                /// The label of its kind.
                kind: String,
                /// Its content.
                fields: Cbor,
            },
        }

        impl Body {
            /// Returns what the body is about.
            pub fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind(_) => Kind::$kind,)+
                    Self::Unknown { kind, .. } => Kind::from_label(kind),
                }
            }

            pub(super) fn open(kind: &str, fields: Cbor) -> (Self, Extra) {
                let opened = match kind {
                    $($label => {
                        static NAMES: value::Names = value::Names::new();
                        value::open::<$kind>(&fields, &NAMES).map(|(body, extra)| (body.into(), extra))
                    })+
                    _ => None,
                };
                opened.unwrap_or_else(|| {
                    (Self::Unknown { kind: kind.to_owned(), fields }, Extra::new())
                })
            }

            pub(super) fn close(&self, extra: &Extra) -> Cbor {
                match self {
                    $(Self::$kind(body) => value::close(body, extra),)+
                    Self::Unknown { fields, .. } => fields.clone(),
                }
            }
        }

        $(
            impl From<$kind> for Body {
                fn from(body: $kind) -> Self {
                    Self::$kind(body)
                }
            }

            /// Shows the kind alone: contents stay out of logs.
            impl fmt::Debug for $kind {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.debug_struct(stringify!($kind)).finish_non_exhaustive()
                }
            }
        )+
    };
}

kinds! {
    /// A dose taken or not taken.
    Dose = "dose",
    /// The answers to a withdrawal scale.
    WithdrawalAnswers = "withdrawal_answers",
    /// A withdrawal band known without the answers behind it.
    WithdrawalBand = "withdrawal_band",
    /// The result of a drug screen.
    DrugScreen = "drug_screen",
    /// A use of a substance.
    UseEvent = "use_event",
    /// A session of the programme, attended or not.
    Visit = "visit",
    /// How a day feels.
    CheckIn = "check_in",
    /// A note, whose text is the record's collaborative note.
    Note = "note",
}

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

/// The answers to a withdrawal scale; scores are computed from them, never stored in their place.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct WithdrawalAnswers {
    /// The instrument's id, such as `sows16` or `cows`.
    pub instrument: String,
    /// The version of the instrument that was answered.
    pub version: String,
    /// The chosen option's value for each answered item, by item id.
    #[serde(with = "side_by_side")]
    pub answers: BTreeMap<String, i64>,
}

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

/// A session of the programme, attended or not.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Visit {
    /// The kind of session, such as `group` or `individual`.
    pub session: String,
    /// Whether it was attended.
    pub attendance: Attendance,
    /// The visit as the programme names it.
    pub label: String,
}

/// Tells whether a session was attended; missing data is unknown, never missed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Attendance {
    /// It was attended.
    Kept,
    /// It was not attended.
    Missed {
        /// Why, if told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Nobody knows.
    Unknown,
}

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

/// A note; its text is [`super::Entry::note`].
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// Whom the patient wants to read it.
    pub audience: Audience,
}

/// Names whom a note is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// The care team.
    CareTeam,
    /// Nobody but the patient.
    OnlyMe,
}

impl Body {
    /// Says in which category a writer's record of this body belongs.
    ///
    /// `None` is an unknown kind's: it stays in the stream it came in.
    pub fn category(&self, by: Writer) -> Option<Category> {
        let patients = match self {
            Self::Dose(_) => Category::Medication,
            Self::WithdrawalAnswers(_) | Self::WithdrawalBand(_) => Category::Symptoms,
            Self::DrugScreen(_) | Self::UseEvent(_) => Category::SubstanceUse,
            Self::Visit(_) => Category::Recovery,
            Self::CheckIn(_) => Category::Wellbeing,
            Self::Note(Note { audience: Audience::CareTeam }) => Category::Symptoms,
            Self::Note(Note { audience: Audience::OnlyMe }) => Category::Private,
            Self::Unknown { .. } => return None,
        };
        Some(match by {
            Writer::Patient => patients,
            Writer::Clinic => Category::Observations,
        })
    }

    /// Checks what it says; `note` is the text that goes with it.
    pub(super) fn validate(&self, writer: Writer, note: &str) -> Result<(), Invalid> {
        let patient = writer == Writer::Patient;
        match self {
            Self::Dose(dose) => {
                text("drug", &dose.drug)?;
                optional_text("rxnorm", dose.rxnorm.as_deref())?;
                check((0.0..=100_000.0).contains(&dose.amount), "amount", "0 to 100000")?;
                check(!(patient && dose.observed), "observed", "false, from a patient")?;
                match &dose.taking {
                    Taking::Taken => Ok(()),
                    Taking::NotTaken { reason } => optional_text("reason", reason.as_deref()),
                }
            }
            Self::WithdrawalAnswers(scale) => {
                text("instrument", &scale.instrument)?;
                text("version", &scale.version)?;
                let observers = ["cows", "ciwa_ar"].contains(&scale.instrument.as_str());
                check(!(patient && observers), "instrument", SELF_RATED)?;
                let count = (1..=ANSWERS_MAX).contains(&scale.answers.len());
                check(count, "answers", format_args!("1 to {ANSWERS_MAX} answers"))?;
                scale.answers.keys().try_for_each(|item| text("answers", item))
            }
            Self::WithdrawalBand(scale) => {
                let observers = scale.instrument == BandInstrument::Cows;
                check(!(patient && observers), "instrument", SELF_RATED)
            }
            Self::DrugScreen(screen) => text("substance", &screen.substance),
            Self::UseEvent(used) => {
                text("substance", &used.substance)?;
                optional_text("amount", used.amount.as_deref())
            }
            Self::Visit(visit) => {
                text("session", &visit.session)?;
                text("label", &visit.label)?;
                match &visit.attendance {
                    Attendance::Missed { reason } => optional_text("reason", reason.as_deref()),
                    Attendance::Kept | Attendance::Unknown => Ok(()),
                }
            }
            Self::CheckIn(day) => {
                check(*day != CheckIn::default(), "check_in", "at least one answer")?;
                for (field, answer) in
                    [("mood", day.mood), ("stress", day.stress), ("craving", day.craving), ("pain", day.pain)]
                {
                    check(answer.is_none_or(|value| value <= 10), field, "0 to 10")?;
                }
                let fits = day.sleep_hours.is_none_or(|hours| (0.0..=24.0).contains(&hours));
                check(fits, "sleep_hours", "0 to 24")
            }
            Self::Note(Note { audience }) => {
                let own = patient || *audience == Audience::CareTeam;
                check(own, "audience", "care_team, from the clinic")?;
                check(!note.is_empty(), "note", "some text")
            }
            Self::Unknown { .. } => {
                Err(Invalid { field: "kind", allowed: "a kind this version knows".to_owned() })
            }
        }
    }
}

/// Shows the kind alone: contents stay out of logs.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({})", self.kind().label())
    }
}

const SELF_RATED: &str = "a scale that the patient answers";

fn text(field: &'static str, value: &str) -> Result<(), Invalid> {
    let fits = (1..=TEXT_CHARS_MAX).contains(&value.chars().count());
    check(fits, field, format_args!("1 to {TEXT_CHARS_MAX} characters"))
}

fn optional_text(field: &'static str, value: Option<&str>) -> Result<(), Invalid> {
    value.map_or(Ok(()), |value| text(field, value))
}
