//! What the trial's data do not have and the demo shows all the same: scales with their items, and hours of a
//! programme. Made up from a person's number alone, and marked as synthetic in every record.
//!
//! The first four weeks of everybody with a dose: an admission, three sessions of three hours a week, some of
//! them missed and some of which nobody says anything, a withdrawal scale twice a week, questionnaires a week.

use std::collections::BTreeMap;

use crate::{
    dice::Dice,
    trial::{Row, Table},
};

/// What is made up is the same in every run.
const SEED: u64 = 0;

/// How many weeks are made up.
const WEEKS: i32 = 4;

/// Makes up a person's rows, whose first dose was on a day; numbers go on from 1 in each table.
pub(crate) fn rows(who: &str, first_day: i32) -> Vec<Row> {
    let mut dice = Dice::new(SEED, who);
    let mut rows = Vec::new();
    let mut add = |table, day: i32, what: &str, says: Option<String>| {
        let number = rows.iter().filter(|row: &&Row| row.table == table).count();
        let mut columns =
            BTreeMap::from([("what".into(), what.to_owned()), ("when".into(), day.to_string())]);
        columns.extend(says.map(|says| ("says".to_owned(), says)));
        rows.push(Row {
            table,
            number: u32::try_from(number).map_or(u32::MAX, |number| number + 1),
            columns,
        });
    };
    add(Table::SyntheticProgramme, first_day, "programme", None);
    add(Table::SyntheticProgramme, first_day, "admission", None);
    for week in 0..WEEKS {
        let day = |weekday: i32| first_day + 7 * week + weekday;
        for weekday in [0, 2, 4] {
            match dice.below(10) {
                0 => {}
                1 => add(Table::SyntheticProgramme, day(weekday), "session", Some("missed".into())),
                _ => add(Table::SyntheticProgramme, day(weekday), "session", Some("180".into())),
            }
        }
        // Withdrawal goes down from week to week, more or less.
        let most = u64::try_from(4 - week).unwrap_or(1);
        for weekday in [1, 4] {
            add(Table::SyntheticScales, day(weekday), "sows16", Some(answers(16, || dice.below(most + 1))));
        }
        add(Table::SyntheticScales, day(5), "phq9", Some(answers(9, || dice.below(most).min(3))));
        add(Table::SyntheticScales, day(6), "gad7", Some(answers(7, || dice.below(most).min(3))));
    }
    rows
}

/// Answers to items that are numbered from 1.
fn answers(items: u32, mut value: impl FnMut() -> u64) -> String {
    (1..=items).map(|item| format!("{item}={}", value())).collect::<Vec<_>>().join(" ")
}

/// Reads answers as they stand in a row.
pub(crate) fn read(says: &str) -> Option<Vec<(String, i64)>> {
    let pair = |pair: &str| {
        let (item, value) = pair.split_once('=')?;
        Some((item.to_owned(), value.parse().ok()?))
    };
    says.split(' ').map(pair).collect()
}
