//! The verdict: what the far side holds, compared with the data field by field.
//!
//! It reads a record back into the columns of a row, by a way of its own that shares nothing with
//! [`crate::replay`] but the conventions written there, and compares those with the file's own words.

use std::collections::{BTreeMap, HashMap};

use ebb_core::record::{
    Answers, Attendance, Audience, BandInstrument, CheckIn, Dose, DrugScreen, Note, Phase, ScreenResult,
    Specimen, Taking, Unit, UseEvent, Visit, WithdrawalBand,
};
use serde::de::DeserializeOwned;

use crate::{
    pipe::Seen,
    trial::{DAY_ZERO_MS, Person, Row, Table},
};

/// What the comparison came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    /// Records that were expected.
    pub(crate) expected: usize,
    /// Fields that were compared.
    pub(crate) fields: usize,
    /// Records that are the same in every field.
    pub(crate) same: usize,
    /// Rows without a record.
    pub(crate) missing: usize,
    /// Records without a row, or beside another of the same row.
    pub(crate) extra: usize,
    /// Records that differ from their row.
    pub(crate) differing: usize,
    /// Rows whose `log()` had returned and that a killed phone no longer had.
    pub(crate) lost: usize,
    /// What was found, in words.
    pub(crate) findings: Vec<String>,
}

impl Verdict {
    /// Whether nothing at all differs.
    pub(crate) fn is_clean(&self) -> bool {
        self.missing + self.extra + self.differing + self.lost == 0 && self.same == self.expected
    }

    /// Compares the rows that one side logged for a person with what the other side lists as that
    /// side's. Returns how many records are the same.
    pub(crate) fn compare(&mut self, person: &Person, rows: &[&Row], author: &str, seen: &[&Seen]) -> usize {
        let mut by_row: HashMap<&str, Vec<&Seen>> = HashMap::new();
        for record in seen {
            by_row.entry(record.note.lines().next().unwrap_or_default()).or_default().push(record);
        }
        let mut same = 0;
        for row in rows {
            self.expected += 1;
            let name = row.reference();
            let Some(records) = by_row.remove(name.as_str()) else {
                self.missing += 1;
                self.find(format!("{name} (person {}) did not arrive", person.who));
                continue;
            };
            self.extra += records.len() - 1;
            if records.len() > 1 {
                self.find(format!("{name} (person {}) arrived {} times", person.who, records.len()));
            }
            let reading = Reading::of(records[0], row, person, author);
            self.fields += reading.compared;
            if reading.differences.is_empty() {
                same += 1;
            } else {
                self.differing += 1;
                for difference in reading.differences {
                    self.find(format!("{name} (person {}): {difference}", person.who));
                }
            }
        }
        for records in by_row.into_values() {
            self.extra += records.len();
            self.find(format!("record {} (person {}) stands for no row", records[0].id, person.who));
        }
        self.same += same;
        same
    }

    /// Notes rows that a phone had acknowledged and did not have any more after it was killed.
    pub(crate) fn lose(&mut self, person: &Person, rows: &[String]) {
        self.lost += rows.len();
        for row in rows {
            self.find(format!("{row} (person {}) was lost by a killed phone", person.who));
        }
    }

    fn find(&mut self, finding: String) {
        self.findings.push(finding);
    }
}

/// A record read back into the columns of a row.
struct Reading<'a> {
    row: &'a Row,
    compared: usize,
    differences: Vec<String>,
}

impl<'a> Reading<'a> {
    fn of(seen: &Seen, row: &'a Row, person: &Person, author: &str) -> Self {
        let mut reading = Self { row, compared: 0, differences: Vec::new() };
        let in_clinic = match row.table {
            Table::Visit | Table::Uds | Table::SyntheticProgramme => true,
            Table::Withdrawal | Table::WithdrawalPrePost => person.background.project != "51",
            Table::Treatment | Table::Tlfb | Table::Pain | Table::SyntheticScales => false,
        };
        let source = match (row.table.is_synthetic(), in_clinic) {
            (true, _) => "synthetic",
            (false, true) => "observed",
            (false, false) => "self",
        };
        reading.says("source", seen.source.as_str(), source);
        reading.says("author", seen.author.as_str(), author);
        reading.says("category", seen.category.as_str(), category(in_clinic, seen));
        reading.says("is retracted, in conflict or newer", &seen.is_disturbed, &false);
        let mut columns: BTreeMap<String, String> = seen
            .note
            .lines()
            .skip(1)
            .map(|line| line.split_once(": ").unwrap_or((line.trim_end_matches(':'), "")))
            .map(|(name, words)| (name.to_owned(), words.to_owned()))
            .collect();
        reading.time(seen, &mut columns);
        match body(seen, row.table, &mut columns, &mut reading, person) {
            Some(()) => {}
            None => reading.differs("kind", &seen.kind, "one that the table has"),
        }
        reading.columns(&columns);
        reading
    }

    /// When it happened is the day of the row, at the hour of its table; without a day, as it was logged.
    fn time(&mut self, seen: &Seen, columns: &mut BTreeMap<String, String>) {
        self.says("offset", &seen.offset_minutes, &0);
        if columns.contains_key("when") {
            self.says("time of logging", &seen.occurred_ms, &seen.recorded_ms);
            return;
        }
        let minutes = (seen.occurred_ms - DAY_ZERO_MS).div_euclid(60_000);
        let milliseconds = (seen.occurred_ms - DAY_ZERO_MS).rem_euclid(60_000);
        self.says("time of day", &minutes.rem_euclid(1_440), &self.row.table.minute_of_day());
        self.says("milliseconds", &milliseconds, &0);
        columns.insert("when".into(), minutes.div_euclid(1_440).to_string());
    }

    fn columns(&mut self, columns: &BTreeMap<String, String>) {
        let names: std::collections::BTreeSet<_> = columns.keys().chain(self.row.columns.keys()).collect();
        for name in names {
            let arrived = columns.get(name).map_or("", String::as_str);
            let source = self.row.column(name);
            self.compared += 1;
            if !alike(arrived, source) {
                self.differs(name, arrived, source);
            }
        }
    }

    fn says<T: PartialEq + std::fmt::Display + ?Sized>(&mut self, field: &str, arrived: &T, expected: &T) {
        self.compared += 1;
        if arrived != expected {
            self.differs(field, arrived, expected);
        }
    }

    fn differs(&mut self, field: &str, arrived: impl std::fmt::Display, expected: impl std::fmt::Display) {
        self.differences.push(format!("{field} is `{arrived}`, the data say `{expected}`"));
    }
}

/// The same words, or the same number: files may write 16 or 16.0.
fn alike(arrived: &str, source: &str) -> bool {
    let numbers = || Some(arrived.parse::<f64>().ok()? == source.parse::<f64>().ok()?);
    arrived == source || numbers().unwrap_or(false)
}

fn category(in_clinic: bool, seen: &Seen) -> &'static str {
    match seen.kind.as_str() {
        "programme" | "level_move" => "plan",
        _ if in_clinic => "observations",
        "dose" => "medication",
        "use_event" => "substance_use",
        "check_in" => "wellbeing",
        "answers" if seen.body["instrument"] != "sows16" => "wellbeing",
        _ => "symptoms",
    }
}

/// Reads a body into columns; `None` if it is of a kind that its table cannot have.
fn body(
    seen: &Seen,
    table: Table,
    columns: &mut BTreeMap<String, String>,
    reading: &mut Reading<'_>,
    person: &Person,
) -> Option<()> {
    let mut put = |name: &str, words: String| drop(columns.insert(name.to_owned(), words));
    match (table, seen.kind.as_str()) {
        (_, "note") => {
            let note: Note = typed(seen)?;
            reading.says("audience", &(note.audience == Audience::CareTeam), &true);
        }
        (Table::Treatment, "dose") => {
            let dose: Dose = typed(seen)?;
            put("amount", dose.amount.to_string());
            let arm = person.background.arm.as_str();
            let (word, unit) = match dose.drug.as_str() {
                "naltrexone extended-release" => ("NR-NTX", Unit::Injection),
                "buprenorphine-naloxone" => ("BUP", Unit::Mg),
                "methadone" => ("Methadone", Unit::Mg),
                "study medication" => ("", Unit::Mg),
                _ => ("?", Unit::Mg),
            };
            if !arm.contains(word) || word.is_empty() && !arm.is_empty() {
                reading.differs("drug", &dose.drug, format!("the arm {arm}"));
            }
            reading.says("unit", &(dose.unit == unit), &true);
            reading.says("taken", &(dose.taking == Taking::Taken), &true);
            reading.says("observed", &dose.observed, &false);
        }
        (Table::Tlfb, "use_event") => {
            let used: UseEvent = typed(seen)?;
            put("what", used.substance);
            reading.says("route or amount", &(used.route.is_some() || used.amount.is_some()), &false);
        }
        (Table::Uds, "drug_screen") => {
            let screen: DrugScreen = typed(seen)?;
            put("what", screen.substance);
            let found = screen.specimen == Specimen::Urine && screen.result == ScreenResult::Positive;
            reading.says("found in urine", &found, &true);
            reading.says("temperature", &screen.temperature_ok.is_some(), &false);
        }
        (Table::Withdrawal | Table::WithdrawalPrePost, "withdrawal_band") => {
            let scale: WithdrawalBand = typed(seen)?;
            put("withdrawal", u8::from(scale.band).to_string());
            let sows = scale.instrument == BandInstrument::Sows16;
            reading.says("instrument is SOWS", &sows, &(person.background.project == "51"));
            match scale.phase {
                Phase::BeforeFirstDose => put("what", "pre".into()),
                Phase::AfterFirstDose => put("what", "post".into()),
                Phase::Routine => {}
            }
        }
        (Table::Visit, "visit") => {
            let visit: Visit = typed(seen)?;
            reading.says("session", visit.session.label(), "study visit");
            put("visit", visit.label);
            match visit.attendance {
                Attendance::Kept => put("what", "visit".into()),
                Attendance::Unknown => {}
                Attendance::Missed { reason } => {
                    put("what", "no visit".into());
                    for reason in reason.iter().flat_map(|reasons| reasons.split(", ")) {
                        put(&format!("is_{}", reason.replace(' ', "_")), "1".into());
                    }
                }
            }
        }
        (Table::SyntheticScales, "answers") => {
            let answers: Answers = typed(seen)?;
            put("what", answers.instrument);
            let mut said: Vec<_> = answers.answers.into_iter().collect();
            said.sort_by_key(|(item, _)| item.parse::<u32>().unwrap_or(u32::MAX));
            put(
                "says",
                said.iter().map(|(item, value)| format!("{item}={value}")).collect::<Vec<_>>().join(" "),
            );
            reading.says("draft", &answers.draft, &false);
        }
        (Table::SyntheticProgramme, "programme") => put("what", "programme".into()),
        (Table::SyntheticProgramme, "level_move") => put("what", "admission".into()),
        (Table::SyntheticProgramme, "visit") => {
            let visit: Visit = typed(seen)?;
            put("what", "session".into());
            match visit.attendance {
                Attendance::Kept => {
                    put("says", visit.minutes.map_or(String::new(), |minutes| minutes.to_string()))
                }
                _ => put("says", "missed".into()),
            }
        }
        (Table::Pain, "check_in") => {
            let day: CheckIn = typed(seen)?;
            let no_pain = day == CheckIn { pain: Some(0), ..CheckIn::default() };
            put("pain", if no_pain { "No Pain".into() } else { "something else".into() });
        }
        _ => return None,
    }
    Some(())
}

fn typed<T: DeserializeOwned>(seen: &Seen) -> Option<T> {
    serde_json::from_value(seen.body.clone()).ok()
}
