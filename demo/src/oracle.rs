//! The trial replayed into charts, and counted by Ebb's own clinical functions: as a plain script counts the
//! same tables, which shares no code (`tests/oracle/trial.py`, whose counts `.ci/run` makes anew).

use std::{collections::BTreeMap, path::Path};

use ebb_core::{
    Record, RecordId,
    clinical::{
        chart::{BandScale, Chart, Point},
        rules::{self, Certainty, Finding, Severity, Surroundings},
        substance::{Medicine, Substance},
        trend::{self, Days, Used},
    },
    record::{Attendance, Entry, Kind, Moment, Phase, Unit, Writer},
};
use serde_json::Value;

use crate::{
    replay,
    trial::{DAY_ZERO_MS, Person, Trial},
};

const DAY_MS: i64 = 86_400_000;

/// A person's rows as records, in the order in which they are told.
fn records(person: &Person) -> Vec<(Record, Writer)> {
    let mut records = Vec::new();
    for (day, rows) in person.days(None) {
        for row in rows.into_iter().filter(|row| !row.table.is_synthetic()) {
            let by = replay::writer(row.table, &person.background);
            // What has no day happened as it was logged: late on the day on which it was told.
            let told_ms = DAY_ZERO_MS
                + i64::from(day) * DAY_MS
                + 22 * 3_600_000
                + i64::try_from(records.len()).unwrap();
            let entry = replay::entry(row, &person.background);
            records.push((record(records.len(), &entry, told_ms, by), by));
        }
    }
    records
}

fn record(number: usize, entry: &Entry, told_ms: i64, by: Writer) -> Record {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
    Record {
        id: RecordId::from_bytes(id),
        category: entry.body.belongs(by)[0],
        kind: entry.body.kind(),
        occurred: entry.occurred.unwrap_or(Moment { millis: told_ms, offset_minutes: 0 }),
        recorded_at: told_ms,
        author: [1; 16],
        staff: None,
        source: entry.source,
        body: entry.body.clone(),
        note: String::new(),
        retracted: None,
        conflicts: 0,
        from_newer_version: false,
    }
}

fn whole(records: &[(Record, Writer)]) -> Chart {
    Chart::of(records.iter().map(|(record, by)| (record, *by)))
}

/// A count of the fixture; what is left out there is 0.
fn count(counts: &Value, path: &[&str]) -> u64 {
    path.iter().fold(counts, |at, name| &at[*name]).as_u64().unwrap_or(0)
}

fn findings(chart: &Chart, rule: &str) -> Vec<Finding> {
    let now_ms = DAY_ZERO_MS + 8_001 * DAY_MS;
    let mut found = rules::evaluate(chart, &Surroundings::default(), now_ms);
    found.retain(|finding| finding.rule == rule);
    found
}

fn days_of<T>(points: impl Iterator<Item = Point<T>>) -> u64 {
    let days: std::collections::BTreeSet<_> = points.map(|point| trend::day_of(point.at)).collect();
    days.len() as u64
}

#[test]
fn ebb_counts_what_the_script_counts() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/oracle/trial.json");
    let kept: Value = serde_json::from_slice(&std::fs::read(path).expect("kept")).expect("JSON");
    let trial = Trial::load(None, None).expect("the demo carries its tables");
    assert_eq!(trial.people.len(), kept["people"].as_object().expect("people").len());
    let mut compared = 0;
    for person in &trial.people {
        let counts = &kept["people"][&person.who];
        let records = records(person);
        for (name, ours, theirs) in compare(person, &records, counts) {
            assert_eq!(ours, theirs, "person {}: {name}", person.who);
            compared += 1;
        }
    }
    assert!(compared > 60 * 15, "{compared} counts compared");
}

fn compare(person: &Person, records: &[(Record, Writer)], counts: &Value) -> Vec<(String, u64, u64)> {
    let chart = whole(records);
    let mut all = Vec::new();
    let mut same =
        |name: &str, ours: u64, path: &[&str]| all.push((name.to_owned(), ours, count(counts, path)));

    // Doses and gaps, in both readings of a day without a row.
    let medicine = match counts["about"]["drug"].as_str() {
        Some("methadone") => Medicine::Methadone,
        Some("naltrexone") => Medicine::NaltrexoneDepot,
        _ => Medicine::Buprenorphine,
    };
    let doses = chart.doses(&medicine);
    same("doses", doses.len() as u64, &["doses", "rows"]);
    same("dose days", days_of(doses.iter().cloned()), &["doses", "dose_days"]);
    if medicine == Medicine::NaltrexoneDepot {
        let intervals = trend::dose_intervals(&chart, &medicine);
        let within = |from: u32, until: u32| {
            intervals.iter().filter(|interval| (from..=until).contains(&interval.days)).count() as u64
        };
        same("injections in time", within(0, 28), &["injections", "R16_by_day_28"]);
        same("a day or two late", within(29, 30), &["injections", "R16_1_or_2_days_late"]);
        let found =
            |severity| findings(&chart, "R16").iter().filter(|one| one.severity == severity).count() as u64;
        same("R16 due", found(Severity::Review), &["injections", "R16_due_3_to_6_days_late"]);
        same("R16 overdue", found(Severity::SameDay), &["injections", "R16_overdue_7_days_late"]);
    } else {
        let gaps = trend::dose_gaps(&chart, &medicine, None, None);
        same("gaps", gaps.len() as u64, &["gaps", "gaps"]);
        same(
            "longest gap",
            gaps.iter().map(|gap| u64::from(gap.days)).max().unwrap_or(0),
            &["gaps", "longest"],
        );
        for (length, days) in [("1", 1..=1), ("2", 2..=2), ("3", 3..=3), ("4", 4..=4), ("5+", 5..=u32::MAX)] {
            let of = gaps.iter().filter(|gap| days.contains(&gap.days)).count() as u64;
            same("gaps by length", of, &["gaps", "by_length", length]);
        }
        let unknown: u32 = gaps.iter().map(|gap| gap.unknown).sum();
        let missed: u32 = gaps.iter().map(|gap| gap.not_taken).sum();
        same("days unknown", unknown.into(), &["gaps", "as_unknown", "days_unknown"]);
        same("days missed", missed.into(), &["gaps", "as_unknown", "days_missed"]);
        let rule = if medicine == Medicine::Methadone { "R14" } else { "R15" };
        let known = |chart: &Chart| -> Vec<Finding> {
            let found = findings(chart, rule).into_iter();
            found.filter(|finding| finding.certainty == Certainty::Known).collect()
        };
        assert!(known(&chart).is_empty(), "nobody said that a dose was missed");

        // The other reading: somebody says of each of those days that the dose was not taken.
        let said = said_missed(records, &chart, &medicine);
        let found = known(&whole(&said));
        let reach = |at_least: Severity| found.iter().filter(|one| one.severity >= at_least).count() as u64;
        let reading = |name| ["gaps", "as_missed", name];
        if medicine == Medicine::Methadone {
            same("R14 notify", reach(Severity::Review), &reading("R14_notify"));
            same("R14 hold", found.iter().filter(|one| one.holds).count() as u64, &reading("R14_hold"));
            let says = |words: &str| found.iter().filter(|one| one.text.ends_with(words)).count() as u64;
            same("R14 half", says("; half the dose."), &reading("R14_half_dose"));
            same("R14 40 mg", says("whichever is lower."), &reading("R14_40_mg_or_half"));
            same("R14 restart", says("a new induction."), &reading("R14_new_induction"));
        } else {
            same("R15 person", found.len() as u64, &reading("R15_tell_person"));
            same("R15 team", reach(Severity::Review), &reading("R15_tell_team"));
            same("R15 restart", reach(Severity::SameDay), &reading("R15_review_induction"));
        }
    }

    // Bands, and the change around a first dose.
    let scale = if person.background.project == "51" { BandScale::Sows16 } else { BandScale::Cows };
    let name = if scale == BandScale::Sows16 { "SOWS" } else { "COWS" };
    let bands: Vec<_> = chart.bands.get(&scale).map(|series| series.iter().collect()).unwrap_or_default();
    for band in 0..4_u8 {
        let of = bands
            .iter()
            .filter(|point| point.value.phase == Phase::Routine && u8::from(point.value.band) == band);
        same("bands", of.count() as u64, &["withdrawal", "by_band", name, &band.to_string()]);
    }
    let around = findings(&chart, "R9");
    same("worse after the first dose", around.len() as u64, &["pre_post", "worse"]);
    let urgent = around.iter().filter(|one| one.severity == Severity::Urgent).count() as u64;
    same("worse by two bands", urgent, &["pre_post", "worse_by_2"]);
    let first = |phase| bands.iter().find(|point| point.value.phase == phase).map(|point| point.value.band);
    let both = first(Phase::BeforeFirstDose).zip(first(Phase::AfterFirstDose));
    same("before and after", both.is_some().into(), &["pre_post", "both"]);
    same("better", both.is_some_and(|(before, after)| after < before).into(), &["pre_post", "better"]);
    same("the same", both.is_some_and(|(before, after)| after == before).into(), &["pre_post", "same"]);

    // Attendance, screens, use.
    let visits = |wanted: fn(&Attendance) -> bool| {
        chart.visits.iter().filter(|visit| wanted(&visit.value.attendance)).count() as u64
    };
    same("kept", visits(|attendance| *attendance == Attendance::Kept), &["attendance", "kept"]);
    same(
        "missed",
        visits(|attendance| matches!(attendance, Attendance::Missed { .. })),
        &["attendance", "missed"],
    );
    same("not known", visits(|attendance| *attendance == Attendance::Unknown), &["attendance", "unknown"]);
    let mut by_substance: BTreeMap<&str, u64> = BTreeMap::new();
    for screen in chart.screens.iter() {
        *by_substance.entry(&screen.value.substance).or_default() += 1;
    }
    for (substance, found) in by_substance {
        same("screens", found, &["screens", "by_substance", substance]);
    }
    let of_class = |agonists: bool| {
        move |name: &str| match Substance::of(name) {
            Some(Substance::Opioid) => true,
            Some(Substance::Methadone | Substance::Buprenorphine) => agonists,
            _ => false,
        }
    };
    let screened = |agonists| {
        let fits = of_class(agonists);
        days_of(chart.screens.iter().filter(move |screen| fits(&screen.value.substance)).cloned())
    };
    same("days with an opioid found", screened(false), &["screens", "opioid_days"]);
    same("or an agonist", screened(true), &["screens", "opioid_or_agonist_days"]);
    let days = Days::new(trend::day_of(moment(-8_000)), trend::day_of(moment(8_000)));
    same("days with use", trend::use_days(&chart, Used::Any, days).into(), &["use", "days"]);
    same(
        "with opioids",
        trend::use_days(&chart, Used::Opioid, days).into(),
        &["use", "opioid_or_agonist_days"],
    );
    let used = {
        let fits = of_class(false);
        days_of(chart.uses.iter().filter(move |used| fits(&used.value.substance)).cloned())
    };
    same("with opioids that are no treatment", used, &["use", "opioid_days"]);
    all
}

/// The records, and for each day in a gap one that says that the dose was not taken.
fn said_missed(records: &[(Record, Writer)], chart: &Chart, medicine: &Medicine) -> Vec<(Record, Writer)> {
    let mut said = records.to_vec();
    for gap in trend::dose_gaps(chart, medicine, None, None) {
        let mut day = gap.first_day;
        for _ in 0..gap.days {
            let midday = day.duration_since(trend::day_of(moment(0))).as_hours() / 24;
            let at = moment(i32::try_from(midday).expect("a study day"));
            let entry = Entry::dose_not_taken(medicine.label(), 1.0, Unit::Mg, None).at(at);
            said.push((record(said.len(), &entry, at.millis, Writer::Patient), Writer::Patient));
            day = day.tomorrow().expect("a study day");
        }
    }
    assert!(said.iter().skip(records.len()).all(|(record, _)| record.kind == Kind::Dose));
    said
}

fn moment(day: i32) -> Moment {
    Moment { millis: DAY_ZERO_MS + i64::from(day) * DAY_MS + DAY_MS / 2, offset_minutes: 0 }
}
