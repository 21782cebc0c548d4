//! Checking, completing and scoring answers.

use std::fmt;

use super::{Answers, Band, Instrument, Item, SafetyLevel, Scale, ScaleRange};
use crate::record::Writer;

/// Says which item an answer does not fit and what would, never what was given.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("item {item} must be {allowed}")]
pub struct InvalidAnswer {
    /// The item.
    pub item: String,
    /// What may be answered to it.
    pub allowed: String,
}

/// Why answers could not be scored.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScoreError {
    /// An answer does not fit.
    #[error(transparent)]
    Answer(#[from] InvalidAnswer),
    /// There is no such band table.
    #[error("the band table must be {allowed}")]
    Table {
        /// The tables that there are.
        allowed: String,
    },
}

/// What answers come to.
#[derive(Clone, PartialEq, Eq)]
pub struct Scores {
    /// The instrument's id.
    pub instrument: String,
    /// The version of the instrument that scored them.
    pub version: String,
    /// The required items that were to be answered and were not, in their printed order.
    pub missing: Vec<String>,
    /// Every scale, in the order of the file.
    pub scales: Vec<ScaleScore>,
    /// Answers that call for somebody at once, the most pressing of each item; from incomplete answers
    /// too.
    pub safety: Vec<SafetyHit>,
}

/// What answers come to on one scale.
#[derive(Clone, PartialEq, Eq)]
pub struct ScaleScore {
    /// The scale's id.
    pub scale: String,
    /// The value; none while an item that it counts is open.
    pub value: Option<i64>,
    /// The least and the greatest value that there can be.
    pub range: ScaleRange,
    /// The band of the value, if the scale has bands.
    pub band: Option<Band>,
    /// The band table that named the band.
    pub table: Option<String>,
    /// The cut-offs that the value reaches, by their codes.
    pub cutoffs: Vec<String>,
}

/// An answer that calls for somebody at once.
#[derive(Clone, PartialEq, Eq)]
pub struct SafetyHit {
    /// The item.
    pub item: String,
    /// What was answered.
    pub value: i64,
    /// The id of the instrument's safety rule.
    pub code: String,
    /// How soon.
    pub level: SafetyLevel,
}

impl Instrument {
    /// Checks that each answer is to an item of this instrument and one of its values.
    ///
    /// Missing answers are no fault here: what is incomplete can be kept as a draft.
    ///
    /// # Errors
    ///
    /// Names the first item that does not fit and the values that would.
    pub fn check(&self, answers: &Answers) -> Result<(), InvalidAnswer> {
        self.placed(answers).try_for_each(|(id, value, place)| match place.map(|place| &self.items[place]) {
            Some(item) if item.answer.allows(value) => Ok(()),
            Some(item) => Err(InvalidAnswer { item: id.to_owned(), allowed: item.answer.allowed() }),
            None => {
                let ids: Vec<_> = self.items.iter().map(|item| item.id.as_str()).collect();
                Err(InvalidAnswer { item: id.to_owned(), allowed: format!("one of {}", ids.join(", ")) })
            }
        })
    }

    /// Checks answers as [`Instrument::check`] does, and that this writer may give each of them.
    ///
    /// # Errors
    ///
    /// Names the first item that does not fit, or that only an observer answers.
    pub fn check_from(&self, writer: Writer, answers: &Answers) -> Result<(), InvalidAnswer> {
        self.check(answers)?;
        let given = self.items.iter().filter(|item| answers.contains_key(&item.id));
        match given.into_iter().find(|item| !self.answered_by(item).allows(writer)) {
            None => Ok(()),
            Some(item) => {
                Err(InvalidAnswer { item: item.id.clone(), allowed: "answered by an observer".into() })
            }
        }
    }

    /// Lists the items that are still to be asked, in their printed order.
    ///
    /// Those that depend on an answer come once it is there; those that are not required are among them.
    pub fn next_items(&self, answers: &Answers) -> Vec<&Item> {
        Given::new(self, answers).open().collect()
    }

    /// Scores answers, complete or not: a gap is never scored, as 0 or as anything else.
    ///
    /// `table` chooses a band table by its id; scales without it use their default.
    ///
    /// # Errors
    ///
    /// An answer does not fit, or no scale has such a table.
    pub fn score(&self, answers: &Answers, table: Option<&str>) -> Result<Scores, ScoreError> {
        self.check(answers)?;
        let chosen = |id| self.scales.iter().any(|scale| scale.table(Some(id)).is_some());
        if table.is_some_and(|id| !chosen(id)) {
            let tables = self.scales.iter().flat_map(|scale| &scale.tables);
            let ids: Vec<_> = tables.map(|table| table.id.as_str()).collect();
            return Err(ScoreError::Table { allowed: format!("one of: {}", ids.join(", ")) });
        }
        let given = Given::new(self, answers);
        let missing = given.open().filter(|item| item.required);
        let scales = self.scales.iter().zip(&self.counted);
        Ok(Scores {
            instrument: self.id.clone(),
            version: self.version.clone(),
            missing: missing.map(|item| item.id.clone()).collect(),
            scales: scales.map(|(scale, counted)| given.score(scale, counted, table)).collect(),
            safety: self.safety_hits(answers),
        })
    }

    /// Lists the answers that call for somebody at once, the most pressing of each item.
    ///
    /// It asks for no more than it needs: where other answers do not fit, perhaps because a newer version
    /// wrote them, and [`Instrument::score`] refuses, these are heard all the same.
    pub fn safety_hits(&self, answers: &Answers) -> Vec<SafetyHit> {
        let of_item = |item: &Item| {
            let mut rules = self.safety.iter().filter(|rule| rule.item == item.id).peekable();
            rules.peek()?;
            let value = *answers.get(&item.id)?;
            let rule = rules.filter(|rule| value >= rule.at_least).max_by_key(|rule| rule.at_least)?;
            Some(SafetyHit { item: item.id.clone(), value, code: rule.code.clone(), level: rule.level })
        };
        self.items.iter().filter_map(of_item).collect()
    }

    /// Each answer with the place of its item, if it is one of ours. Both are sorted by id, so one walk
    /// finds all.
    fn placed<'a>(&'a self, answers: &'a Answers) -> impl Iterator<Item = (&'a str, i64, Option<usize>)> {
        let mut places = self.by_id.iter().copied().peekable();
        answers.iter().map(move |(id, value)| {
            while places.next_if(|place| self.items[*place].id < *id).is_some() {}
            let place = places.next_if(|place| self.items[*place].id == *id);
            (id.as_str(), *value, place)
        })
    }
}

/// Answers by the places of their items.
struct Given<'a> {
    of: &'a Instrument,
    values: Vec<Option<i64>>,
}

impl<'a> Given<'a> {
    fn new(of: &'a Instrument, answers: &Answers) -> Self {
        let mut values = vec![None; of.items.len()];
        for (_, value, place) in of.placed(answers) {
            if let Some(place) = place {
                values[place] = Some(value);
            }
        }
        Self { of, values }
    }

    /// The items that are to be asked and were not answered.
    fn open(&self) -> impl Iterator<Item = &'a Item> {
        let open = |(place, _): &(usize, &Item)| self.values[*place].is_none() && self.is_asked(*place);
        self.of.items.iter().enumerate().filter(open).map(|(_, item)| item)
    }

    fn is_asked(&self, place: usize) -> bool {
        let Some((condition, before)) = self.of.items[place].asked_if.as_ref().zip(self.of.before[place])
        else {
            return true;
        };
        self.values[before].is_some_and(|value| value >= condition.at_least) && self.is_asked(before)
    }

    /// What an item counts as: its answer; or, where an answer before it left it out, what that one says.
    fn counts(&self, place: usize) -> Option<i64> {
        let implied = || {
            let decided = self.counts(self.of.before[place]?).is_some();
            self.of.items[place].when_not_asked.filter(|_| decided && !self.is_asked(place))
        };
        self.values[place].or_else(implied)
    }

    fn score(&self, scale: &Scale, counted: &[usize], table: Option<&str>) -> ScaleScore {
        let each = counted.iter().map(|place| {
            let value = self.counts(*place)?;
            let converted = scale.conversions.get(&self.of.items[*place].id);
            Some(converted.and_then(|values| values.get(&value)).copied().unwrap_or(value))
        });
        let value = each.sum::<Option<i64>>();
        let table = scale.table(table).or_else(|| scale.table(None));
        let found = value.and_then(|value| {
            let table = table?;
            Some((table, table.rows.iter().find(|row| (row.from..=row.to).contains(&value))?))
        });
        let reached = scale.cutoffs.iter().filter(|cutoff| value.is_some_and(|it| cutoff.bound.holds(it)));
        ScaleScore {
            scale: scale.id.clone(),
            value,
            range: scale.range,
            band: found.map(|(_, band)| band.clone()),
            table: found.map(|(table, _)| table.id.clone()),
            cutoffs: reached.map(|cutoff| cutoff.code.clone()).collect(),
        }
    }
}

/// Shows the instrument alone: what answers come to stays out of logs.
impl fmt::Debug for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scores({} {})", self.instrument, self.version)
    }
}

/// Shows the scale alone: what answers come to stays out of logs.
impl fmt::Debug for ScaleScore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScaleScore({})", self.scale)
    }
}

/// Shows nothing: that there is one already says what was answered.
impl fmt::Debug for SafetyHit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SafetyHit").finish_non_exhaustive()
    }
}
