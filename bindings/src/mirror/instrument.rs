//! Questionnaires and scales: what a form shows, what was answered, what that comes to.

use std::collections::HashMap;

use ebb_core::{
    clinical::{
        chart::Chart,
        instrument::{self, Answer, Range},
    },
    record::{self, Invalid},
};

/// Who answers.
pub type AnsweredBy = instrument::AnsweredBy;
/// When an item is asked.
pub type AskedIf = instrument::AskedIf;
/// An answer that calls for somebody at once.
pub type SafetyHit = instrument::SafetyHit;
/// How soon an answer calls for somebody.
pub type SafetyLevel = instrument::SafetyLevel;

/// A questionnaire or a scale, with its texts in one language.
#[derive(Clone, Debug, uniffi::Record)]
pub struct Instrument {
    /// Its id, such as `phq9`.
    pub id: String,
    /// Its version, which answers name.
    pub version: String,
    /// Its name.
    pub title: String,
    /// The languages that it is in, by their tags; its texts are English where it lacks the one asked for.
    pub languages: Vec<String>,
    /// Who answers it.
    pub answered_by: AnsweredBy,
    /// How many days back its questions ask; 0 means as it is now.
    pub window_days: u32,
    /// The same in words.
    pub window: String,
    /// What is said before the first item.
    pub instructions: String,
    /// The questions, in their printed order.
    pub items: Vec<InstrumentItem>,
}

/// A question of an instrument.
#[derive(Clone, Debug, uniffi::Record)]
pub struct InstrumentItem {
    /// Its printed number, such as `1` or `7a`: answers are kept by it.
    pub id: String,
    /// What is said before this item, where a group of questions begins.
    pub lead: Option<String>,
    /// The question.
    pub text: String,
    /// What may be answered.
    pub allowed: AllowedAnswers,
    /// Who answers it.
    pub answered_by: AnsweredBy,
    /// Whether answers without it are incomplete.
    pub required: bool,
    /// When it is asked; always, if nothing is said.
    pub asked_if: Option<AskedIf>,
}

/// What may be answered to an item.
#[derive(Clone, Debug, uniffi::Enum)]
pub enum AllowedAnswers {
    /// One of these.
    Choices {
        /// The answers to choose from, in the order to show.
        choices: Vec<Choice>,
    },
    /// A whole number.
    Number {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
        /// What the least means.
        min_label: String,
        /// What the greatest means.
        max_label: String,
    },
}

/// One of the answers to choose from.
#[derive(Clone, Debug, uniffi::Record)]
pub struct Choice {
    /// What the answers hold. Values need not follow one another.
    pub value: i64,
    /// What is shown.
    pub label: String,
}

/// Who answers.
#[uniffi::remote(Enum)]
pub enum AnsweredBy {
    /// The person themself; a member of the care team may read it out and write down what they say.
    Person,
    /// Somebody trained who observes; never the person.
    Observer,
    /// The person alone, or in an interview.
    Either,
}

/// When an item is asked: after an earlier one was itself asked and answered like this.
#[uniffi::remote(Record)]
pub struct AskedIf {
    /// The earlier item.
    pub item: String,
    /// The least answer to it after which this one is asked.
    pub at_least: i64,
}

impl Instrument {
    pub(crate) fn in_use(chart: &Chart, language: &str) -> Vec<Self> {
        let known = chart.instruments();
        let is_newest = |one: &instrument::Instrument| {
            known.get(&one.id).is_some_and(|newest| newest.version == one.version)
        };
        let in_use = known.iter().filter(|one| is_newest(one) && chart.plan.uses(one));
        in_use.map(|one| Self::of(one, language)).collect()
    }

    pub(crate) fn find(chart: &Chart, id: &str, version: Option<&str>, language: &str) -> Option<Self> {
        let known = chart.instruments();
        let found = version.map_or_else(|| known.get(id), |version| known.get_version(id, version));
        found.map(|found| Self::of(found, language))
    }

    fn of(instrument: &instrument::Instrument, language: &str) -> Self {
        let item = |item: &instrument::Item| InstrumentItem {
            id: item.id.clone(),
            lead: item.lead.as_ref().map(|lead| lead.get(language).to_owned()),
            text: item.text.get(language).to_owned(),
            allowed: AllowedAnswers::of(&item.answer, language),
            answered_by: instrument.answered_by(item),
            required: item.required,
            asked_if: item.asked_if.clone(),
        };
        Self {
            id: instrument.id.clone(),
            version: instrument.version.clone(),
            title: instrument.title.get(language).to_owned(),
            languages: instrument.languages.iter().map(|one| one.code.clone()).collect(),
            answered_by: instrument.answered_by,
            window_days: instrument.window.days,
            window: instrument.window.text.get(language).to_owned(),
            instructions: instrument.instructions.get(language).to_owned(),
            items: instrument.items.iter().map(item).collect(),
        }
    }
}

impl AllowedAnswers {
    fn of(answer: &Answer, language: &str) -> Self {
        match answer {
            Answer::Options(options) => {
                let choice = |option: &instrument::Choice| Choice {
                    value: option.value,
                    label: option.label.get(language).to_owned(),
                };
                Self::Choices { choices: options.iter().map(choice).collect() }
            }
            Answer::Range(Range { min, max, min_label, max_label }) => Self::Number {
                min: *min,
                max: *max,
                min_label: min_label.get(language).to_owned(),
                max_label: max_label.get(language).to_owned(),
            },
        }
    }
}

/// The answers to an instrument; scores are computed from them, never kept in their place.
#[derive(Clone, PartialEq, Eq, uniffi::Record)]
pub struct Answers {
    /// The instrument's id.
    pub instrument: String,
    /// The version of the instrument that was answered.
    pub version: String,
    /// The chosen value of each answered item, by the item's id. An item that nobody answered is absent.
    pub answers: HashMap<String, i64>,
    /// Whether more answers are meant to follow: of a draft, only the safety items count.
    #[uniffi(default = false)]
    pub draft: bool,
}

impl From<Answers> for record::Answers {
    fn from(Answers { instrument, version, answers, draft }: Answers) -> Self {
        Self { instrument, version, answers: answers.into_iter().collect(), draft }
    }
}

impl From<record::Answers> for Answers {
    fn from(record::Answers { instrument, version, answers, draft }: record::Answers) -> Self {
        Self { instrument, version, answers: answers.into_iter().collect(), draft }
    }
}

/// What answers come to.
#[derive(Clone, PartialEq, Eq, uniffi::Record)]
pub struct Scores {
    /// Every scale; none where answers stand for themselves.
    pub scales: Vec<ScaleScore>,
    /// The required items that were to be answered and were not, in their printed order.
    pub missing: Vec<String>,
    /// The items still to be asked, in their printed order: those that depend on an answer come once it is
    /// there, and those that are not required are among them.
    pub next_items: Vec<String>,
    /// Answers that call for somebody at once, from incomplete answers too.
    pub safety: Vec<SafetyHit>,
}

/// What answers come to on one scale.
#[derive(Clone, PartialEq, Eq, uniffi::Record)]
pub struct ScaleScore {
    /// The scale's id: `total`, or that of a subscale.
    pub scale: String,
    /// Its name.
    pub title: String,
    /// The value; none while an item that it counts is open.
    pub value: Option<i64>,
    /// The least value that there can be.
    pub min: i64,
    /// The greatest value that there can be.
    pub max: i64,
    /// The band of the value, if the scale has bands.
    pub band: Option<ScoreBand>,
    /// The cut-offs that the value reaches, by their codes.
    pub cutoffs: Vec<String>,
}

/// A range of a scale with a name.
#[derive(Clone, PartialEq, Eq, uniffi::Record)]
pub struct ScoreBand {
    /// Its code, such as `moderate`.
    pub code: String,
    /// Its name.
    pub label: String,
    /// Its place among the bands, 0 for the lightest.
    pub severity: u8,
    /// The band table that named it: where there are several, the plan chooses.
    pub table: String,
    /// Where the figures of that table come from.
    pub source: String,
}

/// An answer that calls for somebody at once.
#[uniffi::remote(Record)]
pub struct SafetyHit {
    /// The item.
    pub item: String,
    /// What was answered.
    pub value: i64,
    /// The code of what it means.
    pub code: String,
    /// How soon.
    pub level: SafetyLevel,
}

/// How soon an answer calls for somebody.
#[uniffi::remote(Enum)]
pub enum SafetyLevel {
    /// Today.
    Urgent,
    /// Now.
    Emergency,
}

impl Scores {
    pub(crate) fn of(chart: &Chart, answers: &record::Answers, language: &str) -> Result<Self, Invalid> {
        let (instrument, scores) = chart.scores(answers)?;
        let next = instrument.next_items(&answers.answers).into_iter().map(|item| item.id.clone());
        let pairs = instrument.scales.iter().zip(scores.scales);
        Ok(Self {
            scales: pairs.map(|(scale, score)| ScaleScore::of(scale, score, language)).collect(),
            missing: scores.missing,
            next_items: next.collect(),
            safety: scores.safety,
        })
    }
}

impl ScaleScore {
    fn of(scale: &instrument::Scale, score: instrument::ScaleScore, language: &str) -> Self {
        let table = scale.table(score.table.as_deref());
        let band = score.band.zip(table).map(|(band, table)| ScoreBand {
            code: band.code,
            label: band.label.get(language).to_owned(),
            severity: band.severity,
            table: table.id.clone(),
            source: table.source.clone(),
        });
        Self {
            scale: score.scale,
            title: scale.title.get(language).to_owned(),
            value: score.value,
            min: score.range.min,
            max: score.range.max,
            band,
            cutoffs: score.cutoffs,
        }
    }
}
