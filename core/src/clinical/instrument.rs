//! Questionnaires and rating scales, as data: who answers what, how it is scored, and what every figure
//! rests on.
//!
//! An [`Instrument`] is one JSON file that the strict loader took ([`Instrument::from_json`]); those that
//! Ebb ships lie in `core/instruments` and are [`Instruments::shipped`]. Answers are a map from item ids to
//! values, kept as they were given; scores are computed from them and never stored in their place.
//!
//! ```
//! use std::collections::BTreeMap;
//! use ebb_core::clinical::instrument::Instruments;
//!
//! let gad7 = Instruments::shipped().get("gad7").expect("shipped");
//! let mut answers: BTreeMap<String, i64> = (1..=6).map(|item| (item.to_string(), 2)).collect();
//! let scores = gad7.score(&answers, None).expect("values of the scale");
//! assert_eq!((scores.scales[0].value, &scores.missing[..]), (None, &["7".to_owned()][..]));
//!
//! answers.insert("7".into(), 0);
//! let scores = gad7.score(&answers, None).expect("values of the scale");
//! assert_eq!(scores.scales[0].value, Some(12));
//! assert_eq!(scores.scales[0].band.as_ref().map(|band| band.code.as_str()), Some("moderate"));
//! ```

use std::{collections::BTreeMap, ops::Deref};

use serde::Deserialize;

pub use self::{
    load::{FILE_BYTES_MAX, SchemaError, VALUE_MAX},
    score::{InvalidAnswer, SafetyHit, ScaleScore, ScoreError, Scores},
    shipped::Instruments,
};
use crate::record::{Category, Writer};

mod load;
mod score;
mod shipped;

/// The language that every instrument has, and that stands in for one it has not.
pub const FALLBACK_LANGUAGE: &str = "en";

/// The answers to an instrument: the chosen value of each answered item, by item id.
///
/// An item that nobody answered is absent. Incomplete answers are a draft: they can be kept, checked and
/// scored, and go on with [`Instrument::next_items`].
pub type Answers = BTreeMap<String, i64>;

/// An instrument whose file kept every rule of the loader; its fields are those of its [`Definition`].
#[derive(Clone, Debug)]
pub struct Instrument {
    definition: Definition,
    /// Where the items stand in `definition.items`, in the order of their ids.
    by_id: Vec<usize>,
    /// For each item, where the one stands whose answer decides whether it is asked.
    before: Vec<Option<usize>>,
    /// For each scale, where the items that it counts stand in `definition.items`.
    counted: Vec<Vec<usize>>,
}

impl Deref for Instrument {
    type Target = Definition;

    fn deref(&self) -> &Definition {
        &self.definition
    }
}

impl Instrument {
    /// Finds an item by its id.
    pub fn item(&self, id: &str) -> Option<&Item> {
        self.place(id).map(|place| &self.items[place])
    }

    fn place(&self, id: &str) -> Option<usize> {
        let found = self.by_id.binary_search_by(|place| self.items[*place].id.as_str().cmp(id));
        found.ok().map(|found| self.by_id[found])
    }

    /// Finds a scale by its id.
    pub fn scale(&self, id: &str) -> Option<&Scale> {
        self.scales.iter().find(|scale| scale.id == id)
    }

    /// Says who answers an item: the instrument's rater, unless the item names its own.
    pub fn answered_by(&self, item: &Item) -> AnsweredBy {
        item.answered_by.unwrap_or(self.answered_by)
    }

    /// Says whether a programme has it without turning it on: not while its licence is unconfirmed.
    pub fn on_by_default(&self) -> bool {
        self.licence.status != LicenceStatus::Unconfirmed
    }
}

/// What an instrument's file says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The id that records carry, such as `sows16`; a shipped file is named after it.
    pub id: String,
    /// The version that records and results carry: the publication's year, or the publisher's own number.
    pub version: String,
    /// Its name.
    pub title: Texts,
    /// The languages that every text shown to the person answering is in.
    pub languages: Vec<Language>,
    /// Who answers it.
    pub answered_by: AnsweredBy,
    /// The category that a person's own answers go to: symptoms or wellbeing. The care team's go to
    /// observations, as all its records do.
    pub category: Category,
    /// The time that its questions ask about.
    pub window: Window,
    /// What is said before the first item.
    pub instructions: Texts,
    /// The questions, in their printed order.
    pub items: Vec<Item>,
    /// What is summed; empty where answers stand for themselves, as in a screener of yes and no.
    pub scales: Vec<Scale>,
    /// Answers that call for somebody at once, complete or not.
    pub safety: Vec<Safety>,
    /// Codes of the whole instrument.
    pub codes: Vec<Code>,
    /// Under what terms it may be used.
    pub licence: Licence,
    /// Where its texts and figures come from.
    pub sources: Vec<String>,
    /// What is not validated, and what a reader of its scores must not conclude.
    pub not_validated: Vec<String>,
    /// What else a reader of the file must know.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A text in each language of its instrument.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(transparent)]
pub struct Texts(#[serde(deserialize_with = "load::unique")] BTreeMap<String, String>);

impl Texts {
    /// Returns the text in a language (`es`, `es-US`), or in English where there is none in it.
    pub fn get(&self, language: &str) -> &str {
        let primary = language.split(['-', '_']).next().unwrap_or(language);
        let text = self.0.get(language).or_else(|| self.0.get(primary));
        text.or_else(|| self.0.get(FALLBACK_LANGUAGE)).map_or("", String::as_str)
    }

    /// Lists the languages that it is in.
    pub fn languages(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// A language that an instrument is in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Language {
    /// Its tag: `en`, `es`.
    pub code: String,
    /// Where the wording comes from.
    pub source: String,
    /// Whether the wording was not compared with the publisher's.
    #[serde(default)]
    pub unconfirmed: bool,
}

/// Names who answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnsweredBy {
    /// The person themself; a member of the care team may read it out and write down what they say.
    #[serde(rename = "self")]
    Person,
    /// Somebody trained who observes; never the person.
    Observer,
    /// The person alone, or in an interview.
    Either,
}

impl AnsweredBy {
    /// Says whether a writer may log such answers: what is observed comes from the clinic alone.
    pub fn allows(self, writer: Writer) -> bool {
        self != Self::Observer || writer == Writer::Clinic
    }
}

/// The time that questions ask about.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// How many days back; 0 means as it is now.
    pub days: u32,
    /// The same in words.
    pub text: Texts,
}

/// A question.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Its printed number, such as `1` or `7a`.
    pub id: String,
    /// What is said before this item, where a group of questions begins.
    #[serde(default)]
    pub lead: Option<Texts>,
    /// The question.
    pub text: Texts,
    /// What may be answered.
    pub answer: Answer,
    /// Who answers it, where that is not who answers the instrument.
    #[serde(default)]
    pub answered_by: Option<AnsweredBy>,
    /// Whether a scale counts it.
    #[serde(default = "yes")]
    pub scored: bool,
    /// Whether answers without it are incomplete.
    #[serde(default = "yes")]
    pub required: bool,
    /// When it is asked; always, where nothing is said.
    #[serde(default)]
    pub asked_if: Option<AskedIf>,
    /// What an item that was rightly not asked counts as: what the answer before it already says.
    #[serde(default)]
    pub when_not_asked: Option<i64>,
    /// Its LOINC code, where one was verified.
    #[serde(default)]
    pub loinc: Option<String>,
    /// What a reader of the file must know of it.
    #[serde(default)]
    pub note: Option<String>,
}

fn yes() -> bool {
    true
}

/// What may be answered to an item.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// One of these; their values need not be contiguous.
    Options(Vec<Choice>),
    /// A whole number.
    Range(Range),
}

impl Answer {
    /// Says whether a value may be answered.
    pub fn allows(&self, value: i64) -> bool {
        match self {
            Self::Options(options) => options.iter().any(|option| option.value == value),
            Self::Range(range) => (range.min..=range.max).contains(&value),
        }
    }

    /// Lists every value that may be answered, in the order of the file.
    pub fn values(&self) -> impl Iterator<Item = i64> {
        let (options, range): (&[Choice], _) = match self {
            Self::Options(options) => (options, None),
            Self::Range(range) => (&[], Some(range.min..=range.max)),
        };
        options.iter().map(|option| option.value).chain(range.into_iter().flatten())
    }

    /// Says in words which values may be answered: `0, 1, 2, 4` or `0 to 10`.
    pub fn allowed(&self) -> String {
        match self {
            Self::Options(options) => {
                let values: Vec<_> = options.iter().map(|option| option.value.to_string()).collect();
                values.join(", ")
            }
            Self::Range(range) => format!("{} to {}", range.min, range.max),
        }
    }
}

/// One of the answers to choose from.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// What records hold.
    pub value: i64,
    /// What is shown.
    pub label: Texts,
    /// Its LOINC answer code, where one was verified.
    #[serde(default)]
    pub loinc: Option<String>,
}

/// A whole number between two ends that are explained.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The least.
    pub min: i64,
    /// The greatest.
    pub max: i64,
    /// What the least means.
    pub min_label: Texts,
    /// What the greatest means.
    pub max_label: Texts,
}

/// When an item is asked: after an earlier one was itself asked and answered like this.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedIf {
    /// The earlier item.
    pub item: String,
    /// The least answer to it after which this one is asked.
    pub at_least: i64,
}

/// What is made of answers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// Its id: `total`, or that of a subscale.
    pub id: String,
    /// Its name.
    pub title: Texts,
    /// How it is computed.
    pub kind: ScaleKind,
    /// The items that it counts.
    pub items: Vec<String>,
    /// What an answer counts as, by item and answer, where that is not the answer itself.
    #[serde(default, deserialize_with = "load::unique_of_unique")]
    pub conversions: BTreeMap<String, BTreeMap<i64, i64>>,
    /// The least and the greatest value, as its publisher gives them; the loader computes them as well.
    pub range: ScaleRange,
    /// Its band tables; where there are any, one is the default.
    #[serde(default)]
    pub tables: Vec<BandTable>,
    /// Values that call for a closer look.
    #[serde(default)]
    pub cutoffs: Vec<Cutoff>,
    /// Codes of the score.
    #[serde(default)]
    pub codes: Vec<Code>,
}

impl Scale {
    /// Finds a band table by its id; the default without one.
    pub fn table(&self, id: Option<&str>) -> Option<&BandTable> {
        self.tables.iter().find(|table| id.map_or(table.default, |id| table.id == id))
    }
}

/// Names how a scale is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleKind {
    /// The sum of its items, each converted if there is a conversion for it.
    Sum,
}

/// The least and the greatest value of a scale.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleRange {
    /// The least.
    pub min: i64,
    /// The greatest.
    pub max: i64,
}

/// A way to name ranges of a scale; sources differ, so there may be several.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BandTable {
    /// The id by which a programme chooses it, and which results carry.
    pub id: String,
    /// Whether it is used where nobody chooses.
    #[serde(default)]
    pub default: bool,
    /// Where its figures come from.
    pub source: String,
    /// Its rows, from the least value of the scale to the greatest, without gap or overlap.
    pub rows: Vec<Band>,
}

/// A range of a scale with a name.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Band {
    /// The least value.
    pub from: i64,
    /// The greatest value.
    pub to: i64,
    /// Its id: `moderately_severe`.
    pub code: String,
    /// Its name.
    pub label: Texts,
    /// Its place among the rows, from 0: greater is worse.
    pub severity: u8,
}

/// A value of a scale that calls for a closer look.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cutoff {
    /// Its id, which results carry.
    pub code: String,
    /// On which side of which value it lies.
    pub bound: Bound,
    /// Where the figure comes from.
    pub source: String,
}

/// One side of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// This value and all above.
    AtLeast(i64),
    /// This value and all below.
    AtMost(i64),
}

impl Bound {
    /// Says whether a value lies on this side.
    pub fn holds(self, value: i64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

/// An answer that calls for somebody at once.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Safety {
    /// The item.
    pub item: String,
    /// The least answer that does.
    pub at_least: i64,
    /// Its id, which results carry.
    pub code: String,
    /// How soon.
    pub level: SafetyLevel,
    /// What it means, for the care team.
    pub note: String,
}

/// Says how soon an answer calls for somebody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SafetyLevel {
    /// Today.
    Urgent,
    /// Now.
    Emergency,
}

/// A code of a terminology.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// The terminology.
    pub system: CodeSystem,
    /// The code.
    pub code: String,
    /// What it names, in words.
    pub display: String,
    /// How well it is known to be right.
    pub confidence: Confidence,
}

/// Names a terminology.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodeSystem {
    /// LOINC.
    Loinc,
    /// SNOMED CT, national extensions included.
    Snomed,
    /// The id of an openEHR archetype.
    Openehr,
}

/// Says how well a code is known to be right.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// Found in the terminology's own publications, or alike in independent ones.
    Verified,
    /// Found in one source, often a mapping file.
    OneSource,
}

/// Under what terms an instrument may be used.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Licence {
    /// How sure that is.
    pub status: LicenceStatus,
    /// The terms, or what is known of them.
    pub text: String,
    /// Where that was read.
    pub source: String,
}

/// Says how sure it is that an instrument may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LicenceStatus {
    /// Its holder said so.
    Granted,
    /// In use everywhere, and no statement of its holder was read.
    Assumed,
    /// Nothing is known: off until a programme that has the right turns it on.
    Unconfirmed,
    /// The wording is Ebb's own.
    Own,
}
