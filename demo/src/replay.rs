//! What a row becomes when somebody logs it: exactly one record, which says no more than the row.
//!
//! Where the data leave something open, these conventions hold; the verdict knows them too.
//!
//! - Day 0 is 2024-01-01, each table has an hour of the day; a row without a day happened as it is logged.
//! - The drug of a dose is the arm's. An amount is mg, but for extended-release naltrexone, where 1 is
//!   one injection.
//! - Bands of trial 51 are SOWS, which people answer themselves; those of 27 and 30 are COWS, which the
//!   clinic observes.
//! - A urine screen's row is a substance that was found; the data have no other rows.
//! - A visit is kept (`visit`), missed for the reasons that are ticked (`no visit`), or unknown.
//! - `No Pain` is 0 of 10 in a check-in. The other words for pain are no number: they are a note.
//! - A row whose value is missing, or fits no kind of record, is a note in the data's own words.
//!
//! - What the demo makes up (`synthetic.rs`) says so in its source and in the name of its table.
//!
//! A record's note begins with its row (`visit:12`); lines below hold columns that no field carries.

use ebb_core::record::{
    Attendance, Audience, Band, BandInstrument, Body, CheckIn, Dose, Entry, Level, LevelMove, Mode, Moment,
    Note, Phase, Programme, ScreenResult, SessionKind, Specimen, Unit, Visit, Writer,
};

use crate::{
    synthetic,
    trial::{Background, DAY_ZERO_MS, Row, Table},
};

/// What the programme's sessions are called.
pub(crate) const SESSION: &str = "study visit";

/// Whose it is to log a row.
pub(crate) fn writer(table: Table, background: &Background) -> Writer {
    match table {
        Table::Visit | Table::Uds | Table::SyntheticProgramme => Writer::Clinic,
        Table::Withdrawal | Table::WithdrawalPrePost => match instrument(background) {
            BandInstrument::Cows => Writer::Clinic,
            BandInstrument::Sows16 => Writer::Patient,
        },
        Table::Treatment | Table::Tlfb | Table::Pain | Table::SyntheticScales => Writer::Patient,
    }
}

/// The entry by which a row is logged.
pub(crate) fn entry(row: &Row, background: &Background) -> Entry {
    let mut left = row.columns.clone();
    let body = body(row, background, &mut |name| drop(left.remove(name)));
    let mut entry = Entry::new(body.unwrap_or(Body::Note(Note { audience: Audience::CareTeam })));
    match row.day() {
        Some(day) => {
            left.remove("when");
            entry = entry.at(moment(row.table, day));
        }
        None => drop(left.entry("when".into()).or_default()),
    }
    if row.table.is_synthetic() {
        entry = entry.synthetic();
    } else if writer(row.table, background) == Writer::Clinic {
        entry = entry.observed();
    }
    let mut note = row.reference();
    for (name, words) in left {
        note.push_str(&format!("\n{name}: {words}"));
    }
    entry.note(note)
}

fn moment(table: Table, day: i32) -> Moment {
    let minutes = i64::from(day) * 1_440 + table.minute_of_day();
    Moment { millis: DAY_ZERO_MS + minutes * 60_000, offset_minutes: 0 }
}

/// The body that a row's columns amount to, and which of them it carries; `None` if they fit no kind.
fn body(row: &Row, background: &Background, carries: &mut dyn FnMut(&str)) -> Option<Body> {
    match row.table {
        Table::Treatment => {
            let amount: f64 = row.column("amount").parse().ok()?;
            let (drug, unit) = drug(&background.arm);
            if !(0.0..=100_000.0).contains(&amount) {
                return None;
            }
            carries("amount");
            Some(Dose::taken(drug, amount, unit).into())
        }
        Table::Tlfb => {
            let substance = some_words(row.column("what"))?;
            carries("what");
            Some(Entry::use_event(substance).body)
        }
        Table::Uds => {
            let substance = some_words(row.column("what"))?;
            carries("what");
            Some(Entry::drug_screen(Specimen::Urine, substance, ScreenResult::Positive).body)
        }
        Table::Withdrawal => {
            let band = band(row)?;
            carries("withdrawal");
            Some(Entry::withdrawal_band(instrument(background), band, Phase::Routine).body)
        }
        Table::WithdrawalPrePost => {
            let band = band(row)?;
            let phase = match row.column("what") {
                "pre" => Phase::BeforeFirstDose,
                "post" => Phase::AfterFirstDose,
                _ => return None,
            };
            carries("withdrawal");
            carries("what");
            Some(Entry::withdrawal_band(instrument(background), band, phase).body)
        }
        Table::Visit => {
            let label = some_words(row.column("visit"))?;
            let attendance = attendance(row, carries);
            carries("visit");
            Some(Entry::visit(SESSION, label, attendance).body)
        }
        Table::SyntheticScales => {
            let answers = synthetic::read(row.column("says"))?;
            let entry = Entry::answers(row.column("what"), answers);
            carries("what");
            carries("says");
            Some(entry.body)
        }
        Table::SyntheticProgramme => {
            let body = programme(row)?;
            carries("what");
            carries("says");
            Some(body)
        }
        Table::Pain => {
            if row.column("pain") != "No Pain" {
                return None;
            }
            carries("pain");
            Some(CheckIn { pain: Some(0), ..CheckIn::default() }.into())
        }
    }
}

/// What the clinic is made to log of a programme that the trial did not have.
fn programme(row: &Row) -> Option<Body> {
    Some(match (row.column("what"), row.column("says")) {
        ("programme", _) => Programme::new("Synthetic programme").zone("UTC").into(),
        ("admission", _) => {
            LevelMove::to(Level::IntensiveOutpatient, "synthetic").decided_by("synthetic").into()
        }
        ("session", "missed") => {
            Visit::new(SessionKind::Group, "evening group", Attendance::Missed { reason: None }).into()
        }
        ("session", minutes) => {
            let visit = Visit::new(SessionKind::Group, "evening group", Attendance::Kept);
            visit.attended(Mode::InPerson, minutes.parse().ok()?).into()
        }
        _ => return None,
    })
}

fn attendance(row: &Row, carries: &mut dyn FnMut(&str)) -> Attendance {
    match row.column("what") {
        "visit" => {
            carries("what");
            Attendance::Kept
        }
        "no visit" => {
            carries("what");
            let ticked = row.columns.iter().filter(|(name, words)| *words == "1" && *name != "is_no_note");
            let ticked = ticked.filter_map(|(name, _)| name.strip_prefix("is_"));
            let reasons: Vec<_> = ticked.map(|name| name.replace('_', " ")).collect();
            for reason in &reasons {
                carries(&format!("is_{}", reason.replace(' ', "_")));
            }
            Attendance::Missed { reason: some_words(&reasons.join(", ")).map(str::to_owned) }
        }
        _ => Attendance::Unknown,
    }
}

fn drug(arm: &str) -> (&'static str, Unit) {
    if arm.contains("NR-NTX") {
        ("naltrexone extended-release", Unit::Injection)
    } else if arm.contains("BUP") {
        ("buprenorphine-naloxone", Unit::Mg)
    } else if arm.contains("Methadone") {
        ("methadone", Unit::Mg)
    } else {
        ("study medication", Unit::Mg)
    }
}

fn instrument(background: &Background) -> BandInstrument {
    if background.project == "51" { BandInstrument::Sows16 } else { BandInstrument::Cows }
}

fn band(row: &Row) -> Option<Band> {
    let grade: f64 = row.column("withdrawal").parse().ok()?;
    let whole = grade.fract() == 0.0 && (0.0..=3.0).contains(&grade);
    whole.then(|| Band::try_from(grade as u8).ok())?
}

fn some_words(words: &str) -> Option<&str> {
    (1..=ebb_core::record::TEXT_CHARS_MAX).contains(&words.chars().count()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::Trial;

    #[test]
    fn every_row_makes_an_entry_that_its_writer_may_log() {
        let mut kinds = std::collections::BTreeMap::new();
        for person in Trial::load(None, None).expect("carried").people {
            for row in &person.rows {
                let entry = entry(row, &person.background);
                let allowed = entry.validate(writer(row.table, &person.background));
                assert!(allowed.is_ok(), "{}: {allowed:?}", row.reference());
                *kinds.entry(entry.body.kind().label().to_owned()).or_insert(0) += 1;
            }
        }
        // 16 said `No Pain`; the others' words, and 4 bands without a value, are notes.
        assert_eq!(kinds["check_in"], 16);
        assert_eq!(kinds["note"], 44 + 4);
        assert_eq!(kinds["dose"], 4_010);
    }
}
