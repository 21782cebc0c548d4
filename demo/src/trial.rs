//! The trial's tables: rows as the files have them, and on which day each is told.
//!
//! Nothing is corrected here. A day that is told of twice stays told twice, a row that stands after
//! later ones is told after them, and a missing value stays missing; all of it is counted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::Read,
    path::Path,
};

use anyhow::{Context, bail, ensure};
use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};

use crate::synthetic;

/// The tables whose rows become records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Table {
    /// Doses of the study medication, a row a day.
    Treatment,
    /// Withdrawal bands.
    Withdrawal,
    /// Withdrawal bands before and after the first dose.
    WithdrawalPrePost,
    /// Urine drug screens: substances that were found.
    Uds,
    /// Days of use, as people recalled them (timeline follow-back).
    Tlfb,
    /// Visits, kept or not.
    Visit,
    /// Pain, in words.
    Pain,
    /// Made up by the demo: answers to scales.
    SyntheticScales,
    /// Made up by the demo: an admission and sessions.
    SyntheticProgramme,
}

impl Table {
    /// Every table, in the order in which rows of one day are told.
    pub(crate) const ALL: [Self; 9] = [
        Self::Treatment,
        Self::Withdrawal,
        Self::WithdrawalPrePost,
        Self::Pain,
        Self::Visit,
        Self::Uds,
        Self::Tlfb,
        Self::SyntheticScales,
        Self::SyntheticProgramme,
    ];

    /// Whether its rows are made up, and not the trial's.
    pub(crate) fn is_synthetic(self) -> bool {
        matches!(self, Self::SyntheticScales | Self::SyntheticProgramme)
    }

    /// The name of its file, without the ending.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Treatment => "treatment",
            Self::Withdrawal => "withdrawal",
            Self::WithdrawalPrePost => "withdrawal_pre_post",
            Self::Uds => "uds",
            Self::Tlfb => "tlfb",
            Self::Visit => "visit",
            Self::Pain => "pain",
            Self::SyntheticScales => "synthetic_scales",
            Self::SyntheticProgramme => "synthetic_programme",
        }
    }

    /// The time of day that its records are given, in minutes: the data have days only.
    pub(crate) fn minute_of_day(self) -> i64 {
        60 * match self {
            Self::Treatment => 8,
            Self::Withdrawal => 9,
            Self::WithdrawalPrePost => 10,
            Self::Pain => 11,
            Self::Visit => 12,
            Self::Uds => 13,
            Self::SyntheticScales => 17,
            Self::SyntheticProgramme => 18,
            Self::Tlfb => 21,
        }
    }
}

/// Study day 0 of everybody, 2024-01-01 UTC, in ms since the Unix epoch: the data name no dates.
pub(crate) const DAY_ZERO_MS: i64 = 1_704_067_200_000;

/// A row of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Its table.
    pub(crate) table: Table,
    /// Its place in the file, 1 for the first line after the header.
    pub(crate) number: u32,
    /// Its columns but `who`, in the file's own words; empty ones are left out.
    pub(crate) columns: BTreeMap<String, String>,
}

impl Row {
    /// A column's words; empty if there are none.
    pub(crate) fn column(&self, name: &str) -> &str {
        self.columns.get(name).map_or("", String::as_str)
    }

    /// By what a record names its row: `treatment:12`.
    pub(crate) fn reference(&self) -> String {
        format!("{}:{}", self.table.label(), self.number)
    }

    /// The study day, if the row tells a whole one within a lifetime.
    pub(crate) fn day(&self) -> Option<i32> {
        let day: f64 = self.column("when").parse().ok()?;
        let fits = day.fract() == 0.0 && day.abs() <= 8_000.0;
        fits.then_some(day as i32)
    }
}

/// What else the data tell of a person and a record depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Background {
    /// The trial: 27, 30 or 51.
    pub(crate) project: String,
    /// The arm to which the person was randomized first; empty if to none.
    pub(crate) arm: String,
}

/// A person of the trial.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    /// The data's number for the person.
    pub(crate) who: String,
    /// The trial and arm.
    pub(crate) background: Background,
    /// The person's rows, table by table, in the files' order.
    pub(crate) rows: Vec<Row>,
}

impl Person {
    /// The rows by the day on which they are told, up to (not including) study day `days`.
    ///
    /// A row is told on its own day, but never before a row that stands above it in its table: one that
    /// is out of order is told late. A row without a day is told with the one above it.
    pub(crate) fn days(&self, days: Option<u32>) -> BTreeMap<i32, Vec<&Row>> {
        let mut told: BTreeMap<i32, Vec<&Row>> = BTreeMap::new();
        for table in Table::ALL {
            let rows = || self.rows.iter().filter(|row| row.table == table);
            let mut today = rows().find_map(Row::day).unwrap_or(0);
            for row in rows() {
                today = row.day().map_or(today, |day| day.max(today));
                told.entry(today).or_default().push(row);
            }
        }
        if let Some(end) = days.and_then(|days| i32::try_from(days).ok()) {
            told.retain(|day, _| *day < end);
        }
        told
    }
}

/// The people of the trial who are given a phone.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    /// The people, in turn from each of the trials.
    pub(crate) people: Vec<Person>,
}

impl Trial {
    /// Reads the tables from a folder, or those that the demo carries within it, and takes up to
    /// `people_max` people.
    ///
    /// # Errors
    /// If `everybody` is missing, or a table is not of the expected form.
    pub(crate) fn load(folder: Option<&Path>, people_max: Option<usize>) -> anyhow::Result<Self> {
        let everybody =
            read(folder, "everybody")?.context("there is no everybody.csv or everybody.csv.gz")?;
        let mut by_project: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (who, mut columns) in everybody {
            by_project.entry(columns.remove("project").unwrap_or_default()).or_default().push(who);
        }
        let mut people = take_in_turn(by_project);
        people.truncate(people_max.unwrap_or(usize::MAX));
        ensure!(!people.is_empty(), "everybody.csv names nobody");
        let places: HashMap<String, usize> =
            people.iter().enumerate().map(|(place, person)| (person.who.clone(), place)).collect();
        for (who, columns) in read(folder, "randomization")?.unwrap_or_default() {
            let Some(place) = places.get(&who) else { continue };
            let arm = &mut people[*place].background.arm;
            if arm.is_empty() {
                *arm = columns.get("treatment").cloned().unwrap_or_default();
            }
        }
        for table in Table::ALL.into_iter().filter(|table| !table.is_synthetic()) {
            for (number, (who, columns)) in (1..).zip(read(folder, table.label())?.unwrap_or_default()) {
                if let Some(place) = places.get(&who) {
                    people[*place].rows.push(Row { table, number, columns });
                }
            }
        }
        for person in &mut people {
            let doses = person.rows.iter().filter(|row| row.table == Table::Treatment);
            if let Some(first) = doses.filter_map(Row::day).min() {
                person.rows.extend(synthetic::rows(&person.who, first));
            }
        }
        Ok(Self { people })
    }
}

/// How dirty the data are: nothing of it is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dirt {
    /// Rows that tell of the same thing on the same day as one above, or the same visit again.
    pub(crate) duplicates: usize,
    /// Rows of a study week on a day that another week has already.
    pub(crate) weeks_on_one_day: usize,
    /// Rows that stand below one of a later day or week, or a `pre` below its `post`.
    pub(crate) out_of_order: usize,
    /// Rows without a day.
    pub(crate) undated: usize,
    /// Rows without the value that they are there for.
    pub(crate) unanswered: usize,
    /// Gaps of three days or more between doses.
    pub(crate) gaps: usize,
}

impl Dirt {
    /// Adds what is dirty in some rows of one person, which come in the files' order.
    pub(crate) fn count<'a>(&mut self, rows: impl IntoIterator<Item = &'a Row>) {
        let mut things = BTreeSet::new();
        let mut week_days = BTreeSet::new();
        let mut newest: BTreeMap<Table, i32> = BTreeMap::new();
        let mut newest_week = None;
        let mut post = false;
        for row in rows.into_iter().filter(|row| !row.table.is_synthetic()) {
            let day = row.day();
            let thing = match row.table {
                Table::Treatment | Table::Withdrawal | Table::Pain => String::new(),
                Table::Visit => row.column("visit").to_owned(),
                Table::Uds | Table::Tlfb | Table::WithdrawalPrePost => row.column("what").to_owned(),
                Table::SyntheticScales | Table::SyntheticProgramme => continue,
            };
            // A visit and a first dose happen once, on whatever day.
            let once = matches!(row.table, Table::Visit | Table::WithdrawalPrePost);
            let when = if once { None } else { day };
            if (once || day.is_some()) && !things.insert((row.table, thing, when)) {
                self.duplicates += 1;
            }
            let week = week(row);
            if week.is_some() && day.is_some() && !week_days.insert(day) {
                self.weeks_on_one_day += 1;
            }
            let last = newest.get(&row.table).copied();
            let late = day.is_some() && day < last
                || week.is_some() && week < newest_week
                || row.column("what") == "pre" && post;
            self.out_of_order += usize::from(late);
            self.undated += usize::from(day.is_none());
            self.unanswered += usize::from(is_unanswered(row));
            let gap =
                row.table == Table::Treatment && day.zip(last).is_some_and(|(day, last)| day - last > 3);
            self.gaps += usize::from(gap);
            if let Some(day) = day {
                newest.insert(row.table, last.map_or(day, |last| last.max(day)));
            }
            newest_week = week.max(newest_week);
            post |= row.column("what") == "post";
        }
    }
}

/// The study week that a visit's label names, with the phase before it: `WK7`, `P2Wk1A`.
fn week(row: &Row) -> Option<(u32, u32)> {
    if row.table != Table::Visit {
        return None;
    }
    let label = row.column("visit").to_ascii_lowercase();
    let (phase, week) = label.split_once("wk")?;
    let phase = if phase.is_empty() { 0 } else { phase.strip_prefix('p')?.parse().ok()? };
    let week = week.trim_end_matches(|last: char| last.is_ascii_lowercase());
    Some((phase, week.parse().ok()?))
}

fn is_unanswered(row: &Row) -> bool {
    let value = match row.table {
        Table::Treatment => "amount",
        Table::Withdrawal | Table::WithdrawalPrePost => "withdrawal",
        Table::Pain => "pain",
        Table::Visit | Table::Uds | Table::Tlfb => "what",
        Table::SyntheticScales | Table::SyntheticProgramme => return false,
    };
    matches!(row.column(value), "" | "NA" | "Missing" | "MISSING")
}

/// Takes people from each trial in turn, so that any number of them is spread over all.
fn take_in_turn(by_project: BTreeMap<String, Vec<String>>) -> Vec<Person> {
    let mut queues: Vec<_> =
        by_project.into_iter().map(|(project, people)| (project, people.into_iter())).collect();
    let mut taken = Vec::new();
    loop {
        let before = taken.len();
        for (project, people) in &mut queues {
            if let Some(who) = people.next() {
                let background = Background { project: project.clone(), arm: String::new() };
                taken.push(Person { who, background, rows: Vec::new() });
            }
        }
        if taken.len() == before {
            return taken;
        }
    }
}

/// A person and the other columns of a row.
type Line = (String, BTreeMap<String, String>);

/// Reads a table; `None` if the folder has no such file.
fn read(folder: Option<&Path>, name: &str) -> anyhow::Result<Option<Vec<Line>>> {
    let bytes = match folder {
        Some(folder) => read_file(folder, name)?,
        None => CARRIED.iter().find(|(carried, _)| *carried == name).map(|(_, bytes)| bytes.to_vec()),
    };
    let Some(bytes) = bytes else { return Ok(None) };
    lines(&bytes).with_context(|| format!("the table {name} cannot be read")).map(Some)
}

fn read_file(folder: &Path, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
    for ending in ["csv", "csv.gz"] {
        let path = folder.join(format!("{name}.{ending}"));
        match std::fs::read(&path) {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => bail!("cannot read {}: {error}", path.display()),
        }
    }
    Ok(None)
}

fn lines(bytes: &[u8]) -> anyhow::Result<Vec<Line>> {
    let mut text = Vec::new();
    if bytes.starts_with(&GZIP_MAGIC) {
        GzDecoder::new(bytes).read_to_end(&mut text).context("damaged gzip")?;
    } else {
        text.extend_from_slice(bytes);
    }
    let mut reader = csv::Reader::from_reader(text.as_slice());
    let names = reader.headers()?.clone();
    let mut lines = Vec::new();
    for row in reader.records() {
        let row = row?;
        let mut columns: BTreeMap<String, String> = names
            .iter()
            .zip(&row)
            .filter(|(_, words)| !words.is_empty())
            .map(|(name, words)| (name.to_owned(), words.to_owned()))
            .collect();
        let who = columns.remove("who").context("a row without `who`")?;
        lines.push((who, columns));
    }
    Ok(lines)
}

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

macro_rules! carried {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_bytes!(concat!("../../tests/data/ctn0094/", $name, ".csv.gz")).as_slice())),+]
    };
}

/// The tables that the demo carries within it: a fresh clone needs no files.
static CARRIED: [(&str, &[u8]); 9] = carried![
    "everybody",
    "randomization",
    "treatment",
    "withdrawal",
    "withdrawal_pre_post",
    "uds",
    "tlfb",
    "visit",
    "pain",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn carried() -> Trial {
        Trial::load(None, None).expect("the demo carries its tables")
    }

    #[test]
    fn sixty_people_of_three_trials_are_carried() {
        let trial = carried();
        assert_eq!(trial.people.len(), 60);
        for project in ["27", "30", "51"] {
            let of = trial.people.iter().filter(|person| person.background.project == project);
            assert_eq!(of.count(), 20);
        }
        let of_trial = |person: &Person| person.rows.iter().filter(|row| !row.table.is_synthetic()).count();
        assert_eq!(trial.people.iter().map(of_trial).sum::<usize>(), 11_377);
        let three = Trial::load(None, Some(3)).expect("the same tables");
        let projects: Vec<_> = three.people.iter().map(|person| person.background.project.as_str()).collect();
        assert_eq!(projects, ["27", "30", "51"]);
    }

    #[test]
    fn the_first_doses_of_person_2_are_those_of_the_trial() {
        let trial = carried();
        let person = trial.people.iter().find(|person| person.who == "2").expect("carried");
        assert_eq!(person.background.arm, "Outpatient BUP + EMM");
        let doses = person.rows.iter().filter(|row| row.table == Table::Treatment);
        let doses: Vec<_> = doses.map(|row| (row.day(), row.column("amount"))).take(3).collect();
        assert_eq!(doses, [(Some(7), "4.0"), (Some(8), "16.0"), (Some(9), "16.0")]);
    }

    #[test]
    fn what_is_dirty_is_counted() {
        let mut dirt = Dirt::default();
        for person in carried().people {
            dirt.count(&person.rows);
        }
        let counted = Dirt {
            duplicates: 27,
            weeks_on_one_day: 1,
            out_of_order: 165,
            undated: 262,
            unanswered: 185,
            gaps: 148,
        };
        assert_eq!(dirt, counted);
    }

    #[test]
    fn every_row_is_told_once_and_none_before_the_row_above() {
        for person in carried().people {
            let days = person.days(None);
            let told: Vec<_> = days.values().flatten().collect();
            assert_eq!(told.len(), person.rows.len());
            for table in Table::ALL {
                let numbers: Vec<_> =
                    told.iter().filter(|row| row.table == table).map(|row| row.number).collect();
                assert!(numbers.is_sorted(), "{table:?} of person {}", person.who);
            }
        }
    }
}
