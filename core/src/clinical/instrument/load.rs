//! The strict loader: from a file's text to an [`Instrument`], or to the rule that it breaks.
//!
//! A programme's own file comes from people, so whatever could make a score wrong or a question
//! unanswerable is refused here; nothing behind it looks again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
    marker::PhantomData,
};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};

use super::{
    Answer, BandTable, Category, Definition, FALLBACK_LANGUAGE, Instrument, Item, Safety, Scale, Texts,
};
use crate::record::ANSWERS_MAX;

/// Most bytes of a file; the longest one shipped has a tenth. It travels in a plan, to phones.
pub const FILE_BYTES_MAX: usize = 256 * 1024;

/// Greatest value of an answer or a conversion, either way: sums of them stay far from their type's end.
pub const VALUE_MAX: i64 = 1_000_000;

/// Most characters of an id: it stands in every record.
const ID_CHARS_MAX: usize = 40;

/// Names the rule that an instrument's file breaks, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{file}: {place}: {rule}")]
pub struct SchemaError {
    /// The file, as its reader named it.
    pub file: String,
    /// The item, scale or part of the file.
    pub place: String,
    /// The rule, in words.
    pub rule: String,
}

impl Instrument {
    /// Reads an instrument from its file; `name` is what errors call the file.
    ///
    /// # Errors
    ///
    /// Names the file, the item or part of it, and the rule that it breaks.
    pub fn from_json(name: &str, text: &str) -> Result<Self, SchemaError> {
        let error = |(place, rule)| SchemaError { file: name.to_owned(), place, rule };
        let size = text.len() <= FILE_BYTES_MAX;
        rule(size, "file", format_args!("at most {FILE_BYTES_MAX} bytes")).map_err(error)?;
        let definition: Definition = serde_json::from_str(text).map_err(|cause| {
            error((format!("line {} column {}", cause.line(), cause.column()), cause.to_string()))
        })?;
        check(&definition).map_err(error)?;
        let mut by_id: Vec<_> = (0..definition.items.len()).collect();
        by_id.sort_by_key(|place| &definition.items[*place].id);
        let mut read = Self { definition, by_id, before: Vec::new(), counted: Vec::new() };
        let conditions = read.items.iter().map(|item| item.asked_if.as_ref());
        read.before = conditions.map(|one| one.and_then(|one| read.place(&one.item))).collect();
        let counted =
            read.scales.iter().map(|scale| scale.items.iter().filter_map(|id| read.place(id)).collect());
        read.counted = counted.collect();
        Ok(read)
    }
}

/// A broken rule, and where.
type Broken = (String, String);

fn rule(holds: bool, place: impl Display, rule: impl Display) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err((place.to_string(), rule.to_string())) }
}

fn check(definition: &Definition) -> Result<(), Broken> {
    id("id", &definition.id)?;
    said("version", &definition.version)?;
    let categories = [Category::Symptoms, Category::Wellbeing];
    let known = categories.contains(&definition.category);
    rule(known, "category", "must be symptoms or wellbeing")?;
    said("licence.text", &definition.licence.text)?;
    said("licence.source", &definition.licence.source)?;
    rule(!definition.sources.is_empty(), "sources", "names at least one source")?;
    definition.sources.iter().try_for_each(|source| said("sources", source))?;
    for code in &definition.codes {
        said("codes", &code.code)?;
    }
    let languages = check_languages(definition)?;
    let texts = [("title", &definition.title), ("instructions", &definition.instructions)];
    for (place, text) in texts.into_iter().chain([("window", &definition.window.text)]) {
        translated(place, text, &languages)?;
    }
    check_items(definition, &languages)?;
    let mut ids = BTreeSet::new();
    for scale in &definition.scales {
        let place = format!("scale {}", scale.id);
        id(&place, &scale.id)?;
        rule(ids.insert(&scale.id), &place, "the ids of scales differ")?;
        check_scale(&place, scale, definition, &languages)?;
    }
    for item in &definition.items {
        let counted = definition.scales.iter().any(|scale| scale.items.contains(&item.id));
        rule(item.scored == counted, at(item), "an item is scored if, and only if, a scale counts it")?;
    }
    definition.safety.iter().try_for_each(|safety| check_safety(safety, definition))
}

fn check_languages(definition: &Definition) -> Result<BTreeSet<&str>, Broken> {
    let mut languages = BTreeSet::new();
    for language in &definition.languages {
        let place = format!("language {}", language.code);
        rule(languages.insert(language.code.as_str()), &place, "the languages differ")?;
        said(&place, &language.source)?;
    }
    let english = languages.contains(FALLBACK_LANGUAGE);
    rule(english, "languages", "English (en) is among them: it stands in for every other")?;
    Ok(languages)
}

fn check_items(definition: &Definition, languages: &BTreeSet<&str>) -> Result<(), Broken> {
    let count = (1..=ANSWERS_MAX).contains(&definition.items.len());
    rule(count, "items", format_args!("there are 1 to {ANSWERS_MAX} items"))?;
    for (place, item) in definition.items.iter().enumerate() {
        let (before, at) = (&definition.items[..place], at(item));
        id(&at, &item.id)?;
        rule(before.iter().all(|other| other.id != item.id), &at, "the ids of items differ")?;
        translated(&at, &item.text, languages)?;
        item.lead.iter().try_for_each(|lead| translated(&at, lead, languages))?;
        check_answer(&at, &item.answer, languages)?;
        rule(item.required || !item.scored, &at, "a scored item is required")?;
        if let Some(condition) = &item.asked_if {
            let Some(other) = before.iter().find(|other| other.id == condition.item) else {
                return Err((at, "asked_if names an item before it".into()));
            };
            rule(other.required, &at, "asked_if names a required item")?;
            reachable(&format!("{at}, asked_if"), &other.answer, condition.at_least)?;
        }
        let implied = item.when_not_asked;
        let needed = item.scored && item.asked_if.is_some();
        let kept = "when_not_asked stands with a scored item that has asked_if, and with no other";
        rule(implied.is_some() == needed, &at, kept)?;
        let possible = implied.is_none_or(|value| item.answer.allows(value));
        rule(possible, &at, "when_not_asked is a value of the item")?;
    }
    Ok(())
}

fn check_answer(at: &str, answer: &Answer, languages: &BTreeSet<&str>) -> Result<(), Broken> {
    match answer {
        Answer::Options(options) => {
            let mut values = BTreeSet::new();
            rule(options.len() >= 2, at, "there are two options at least")?;
            for option in options {
                let at = format!("{at}, option {}", option.value);
                bounded(&at, option.value)?;
                rule(values.insert(option.value), &at, "the values of options differ")?;
                translated(&at, &option.label, languages)?;
            }
            Ok(())
        }
        Answer::Range(range) => {
            bounded(at, range.min)?;
            bounded(at, range.max)?;
            rule(range.min < range.max, at, "a range's min is less than its max")?;
            translated(at, &range.min_label, languages)?;
            translated(at, &range.max_label, languages)
        }
    }
}

fn check_scale(
    place: &str,
    scale: &Scale,
    definition: &Definition,
    languages: &BTreeSet<&str>,
) -> Result<(), Broken> {
    translated(place, &scale.title, languages)?;
    rule(!scale.items.is_empty(), place, "a scale counts at least one item")?;
    let (mut min, mut max) = (0, 0);
    let mut seen = BTreeSet::new();
    for name in &scale.items {
        let at = format!("{place}, item {name}");
        let item = definition.items.iter().find(|item| item.id == *name);
        let item = item.ok_or_else(|| (at.clone(), "a scale counts items of the file".to_owned()))?;
        rule(seen.insert(name), &at, "a scale counts an item once")?;
        let (least, greatest) = counted(&at, item, scale)?;
        (min, max) = (min + least, max + greatest);
    }
    for name in scale.conversions.keys() {
        let at = format!("{place}, conversion of item {name}");
        rule(scale.items.contains(name), at, "a conversion is of an item that the scale counts")?;
    }
    let range = (scale.range.min, scale.range.max);
    let said = format!("range is {min} to {max}, as its items add up");
    rule(range == (min, max), place, said)?;
    check_tables(place, scale, languages)?;
    let mut codes = BTreeSet::new();
    for cutoff in &scale.cutoffs {
        let at = format!("{place}, cutoff {}", cutoff.code);
        id(&at, &cutoff.code)?;
        self::said(&at, &cutoff.source)?;
        rule(codes.insert(&cutoff.code), &at, "the codes of cutoffs differ")?;
        let tells = cutoff.bound.holds(min) != cutoff.bound.holds(max);
        rule(tells, &at, "a cutoff lies within the range of its scale")?;
    }
    Ok(())
}

/// The least and the greatest that an item adds to a scale.
fn counted(at: &str, item: &Item, scale: &Scale) -> Result<(i64, i64), Broken> {
    let conversion = scale.conversions.get(&item.id);
    if let Some(values) = conversion {
        let all = item.answer.values().count() == values.len();
        let own = values.keys().all(|value| item.answer.allows(*value));
        rule(all && own, at, "a conversion has every value of its item, and no other")?;
        values.values().try_for_each(|value| bounded(at, *value))?;
    }
    // What an item that was not asked counts as is one of its values.
    let mut values: Vec<_> = match (conversion, &item.answer) {
        (Some(values), _) => values.values().copied().collect(),
        (None, Answer::Range(range)) => vec![range.min, range.max],
        (None, Answer::Options(options)) => options.iter().map(|option| option.value).collect(),
    };
    values.sort_unstable();
    Ok((values[0], values[values.len() - 1]))
}

fn check_tables(place: &str, scale: &Scale, languages: &BTreeSet<&str>) -> Result<(), Broken> {
    let defaults = scale.tables.iter().filter(|table| table.default).count();
    let one = scale.tables.is_empty() || defaults == 1;
    rule(one, place, "one of a scale's band tables is the default")?;
    let mut ids = BTreeSet::new();
    for table in &scale.tables {
        let place = format!("{place}, table {}", table.id);
        id(&place, &table.id)?;
        rule(ids.insert(&table.id), &place, "the ids of a scale's band tables differ")?;
        said(&place, &table.source)?;
        check_rows(&place, table, scale, languages)?;
    }
    Ok(())
}

fn check_rows(
    place: &str,
    table: &BandTable,
    scale: &Scale,
    languages: &BTreeSet<&str>,
) -> Result<(), Broken> {
    let mut next = scale.range.min;
    let mut codes = BTreeSet::new();
    for (severity, row) in table.rows.iter().enumerate() {
        let at = format!("{place}, band {}", row.code);
        id(&at, &row.code)?;
        rule(codes.insert(&row.code), &at, "the codes of bands differ")?;
        translated(&at, &row.label, languages)?;
        rule(row.from >= next, &at, format_args!("overlaps what comes before: it begins at {next}"))?;
        rule(row.from <= next, &at, format_args!("leaves a gap: it begins at {next}"))?;
        rule(row.to >= row.from, &at, "ends no earlier than it begins")?;
        rule(usize::from(row.severity) == severity, &at, format_args!("is severity {severity}"))?;
        next = row.to + 1;
    }
    let max = scale.range.max;
    rule(next == max + 1, place, format_args!("its last band ends at {max}, as the scale does"))
}

fn check_safety(safety: &Safety, definition: &Definition) -> Result<(), Broken> {
    let at = format!("safety {} of item {}", safety.code, safety.item);
    id(&at, &safety.code)?;
    said(&at, &safety.note)?;
    let item = definition.items.iter().find(|item| item.id == safety.item);
    let item = item.ok_or_else(|| (at.clone(), "is of an item of the file".to_owned()))?;
    reachable(&at, &item.answer, safety.at_least)?;
    let others = definition.safety.iter().filter(|other| other.item == safety.item);
    for other in others.filter(|other| other.code != safety.code) {
        rule(other.at_least != safety.at_least, &at, "one rule for each answer")?;
        let rises =
            (other.at_least < safety.at_least) == (other.level < safety.level) || other.level == safety.level;
        rule(rises, &at, "a greater answer is no less pressing")?;
    }
    let same = definition.safety.iter().filter(|other| other.code == safety.code).count();
    rule(same == 1, at, "the codes of safety rules differ")
}

/// A threshold that some answers reach and others do not.
fn reachable(at: &str, answer: &Answer, at_least: i64) -> Result<(), Broken> {
    let (above, below): (Vec<_>, Vec<_>) = match answer {
        Answer::Options(options) => options.iter().map(|one| one.value).partition(|one| *one >= at_least),
        Answer::Range(range) => [range.min, range.max].into_iter().partition(|one| *one >= at_least),
    };
    let tells = !above.is_empty() && !below.is_empty();
    rule(tells, at, format_args!("at_least tells answers apart: they are {}", answer.allowed()))
}

fn bounded(at: &str, value: i64) -> Result<(), Broken> {
    let within = (-VALUE_MAX..=VALUE_MAX).contains(&value);
    rule(within, at, format_args!("values are -{VALUE_MAX} to {VALUE_MAX}"))
}

fn at(item: &Item) -> String {
    format!("item {}", item.id)
}

fn id(place: &str, id: &str) -> Result<(), Broken> {
    let plain = id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c));
    let short = (1..=ID_CHARS_MAX).contains(&id.len());
    let said = format!("an id is 1 to {ID_CHARS_MAX} of a-z, 0-9, _ and -");
    rule(plain && short, place, said)
}

fn said(place: &str, text: &str) -> Result<(), Broken> {
    rule(!text.trim().is_empty(), place, "is not empty")
}

fn translated(place: &str, text: &Texts, languages: &BTreeSet<&str>) -> Result<(), Broken> {
    let there: BTreeSet<&str> = text.languages().collect();
    if let Some(language) = languages.difference(&there).next() {
        return Err((place.to_owned(), format!("has no text in {language}")));
    }
    if let Some(language) = there.difference(languages).next() {
        return Err((place.to_owned(), format!("has a text in {language}, which is not declared")));
    }
    there.iter().try_for_each(|language| said(place, text.get(language)))
}

/// Reads a map whose keys differ; the usual reading would silently take the last of two.
pub(super) fn unique<'de, D, K, V>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord,
    V: Deserialize<'de>,
{
    struct Unique<K, V>(PhantomData<(K, V)>);

    impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Visitor<'de> for Unique<K, V> {
        type Value = BTreeMap<K, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = access.next_entry()? {
                if map.insert(key, value).is_some() {
                    return Err(A::Error::custom("a key stands twice"));
                }
            }
            Ok(map)
        }
    }

    deserializer.deserialize_map(Unique(PhantomData))
}

/// The same of a map of maps.
pub(super) fn unique_of_unique<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, BTreeMap<i64, i64>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Inner(#[serde(deserialize_with = "unique")] BTreeMap<i64, i64>);

    let outer: BTreeMap<String, Inner> = unique(deserializer)?;
    Ok(outer.into_iter().map(|(key, Inner(inner))| (key, inner)).collect())
}
