use std::collections::BTreeSet;

use jiff::civil::{date, time};
use proptest::prelude::*;

use super::*;
use crate::record::{
    Aftercare, Ask, Attendance, Authorization, Band, BandInstrument, Body, Cadence, CheckIn, Consent,
    DoseRoute, DoseStep, DrugScreen, Entry, Level, LevelMove, Mode, Moment, Phase, Programme, Purpose,
    Record, Regimen, ScreenResult, ServiceUnit, SessionKind, Source, Specimen, Task, Unit, Visit, Writer,
};

/// 2024-01-01 00:00 UTC, a Monday.
const START: i64 = 1_704_067_200_000;

/// Something told: by whom, when (days and hours after the start), what.
struct Told(Writer, f64, Body);

fn by_patient(day: f64, entry: impl Into<Body>) -> Told {
    Told(Writer::Patient, day, entry.into())
}

fn by_clinic(day: f64, entry: impl Into<Body>) -> Told {
    Told(Writer::Clinic, day, entry.into())
}

fn at(day: f64) -> i64 {
    START + ms(day, DAY_MS)
}

fn record(number: usize, told: &Told) -> Record {
    let Told(by, day, body) = told;
    let millis = at(*day);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
    let category = body.belongs(*by)[0];
    Record {
        id: RecordId::from_bytes(id),
        category,
        kind: body.kind(),
        occurred: Moment { millis, offset_minutes: 0 },
        recorded_at: millis,
        author: [1; 16],
        staff: None,
        source: Source::SelfReport,
        body: body.clone(),
        note: String::new(),
        retracted: None,
        conflicts: 0,
        from_newer_version: false,
    }
}

fn chart(told: &[Told]) -> Chart {
    let mut chart = Chart::default();
    for (number, told) in told.iter().enumerate() {
        chart.put(&record(number, told), told.0, None);
    }
    chart
}

/// What a rule finds in what was told, some days after the start.
fn finds(rule: &str, now: f64, told: &[Told]) -> Vec<(Severity, Certainty)> {
    found(rule, now, told).iter().map(|finding| (finding.severity, finding.certainty)).collect()
}

fn found(rule: &str, now: f64, told: &[Told]) -> Vec<Finding> {
    let mut found = evaluate(&chart(told), &Surroundings::default(), at(now));
    found.retain(|finding| finding.rule == rule);
    found
}

fn known(severity: Severity) -> Vec<(Severity, Certainty)> {
    vec![(severity, Certainty::Known)]
}

fn answers(instrument: &str, values: &[i64]) -> Body {
    let answers = values.iter().enumerate().map(|(place, value)| ((place + 1).to_string(), *value));
    Entry::answers(instrument, answers).body
}

fn dose(drug: &str) -> Body {
    Entry::dose(drug, 8.0, Unit::Mg).body
}

fn not_taken(drug: &str) -> Body {
    Entry::dose_not_taken(drug, 8.0, Unit::Mg, None).body
}

fn uses(substance: &str) -> Body {
    Entry::use_event(substance).body
}

fn screen(substance: &str, result: ScreenResult) -> DrugScreen {
    DrugScreen::new(Specimen::Urine, substance, result)
}

fn craving(value: u8) -> Body {
    CheckIn { craving: Some(value), ..CheckIn::default() }.into()
}

fn level(to: Level) -> Body {
    LevelMove::to(to, "as agreed").decided_by("nurse 7").into()
}

fn visit(session: SessionKind, attendance: Attendance) -> Visit {
    Visit::new(session, "as planned", attendance)
}

fn missed() -> Attendance {
    Attendance::Missed { reason: None }
}

fn regimen(drug: &str, steps: &[(i8, f64)]) -> Regimen {
    let eight = |amount| [(time(8, 0, 0, 0), amount)];
    let steps = steps.iter().map(|(day, amount)| DoseStep::daily(date(2024, 1, *day), eight(*amount)));
    Regimen::scheduled(drug, DoseRoute::Oral, Unit::Mg, steps).zone("UTC").prescribed_by("Dr Okafor")
}

/// SOWS answers that sum to this.
fn sows(total: i64) -> Body {
    let values: Vec<_> = (0..16).map(|place| (total - 4 * place).clamp(0, 4)).collect();
    answers("sows16", &values)
}

/// COWS answers that sum to this, as far as its values allow: items of 0, 1, 2 and 4 or 5.
fn cows(total: i64) -> Body {
    let allowed: [&[i64]; 11] = [
        &[4, 2, 1, 0],
        &[4, 3, 2, 1, 0],
        &[5, 3, 1, 0],
        &[5, 2, 1, 0],
        &[4, 2, 1, 0],
        &[4, 2, 1, 0],
        &[5, 3, 2, 1, 0],
        &[4, 2, 1, 0],
        &[4, 2, 1, 0],
        &[4, 2, 1, 0],
        &[5, 3, 0],
    ];
    let mut left = total;
    let values = allowed.map(|values| {
        let value = *values.iter().find(|value| **value <= left).expect("0 is allowed");
        left -= value;
        value
    });
    assert_eq!(left, 0, "these values cannot make {total}");
    answers("cows", &values)
}

#[test]
fn a_thought_of_death_is_urgent_and_more_is_an_emergency_in_a_draft_too() {
    let phq9 = |last| by_patient(1.0, answers("phq9", &[0, 0, 0, 0, 0, 0, 0, 0, last]));
    assert_eq!(finds("R1", 2.0, &[phq9(0)]), []);
    assert_eq!(finds("R1", 2.0, &[phq9(1)]), known(Severity::Urgent));
    assert_eq!(finds("R1", 2.0, &[phq9(2)]), known(Severity::Emergency));
    let draft = Entry::answers("phq9", [("9", 3)]).draft().body;
    assert_eq!(finds("R1", 2.0, &[by_patient(1.0, draft)]), known(Severity::Emergency));
    let short = answers("phq2_i9", &[0, 0, 1]);
    assert_eq!(finds("R1", 2.0, &[by_patient(1.0, short)]), known(Severity::Urgent));
}

#[test]
fn scores_are_found_when_they_cross_and_not_again_while_they_stay() {
    let phq9 = |day, total: i64| {
        let values: Vec<_> = (0..9).map(|place| (total - 3 * place).clamp(0, 3)).collect();
        by_patient(day, answers("phq9", &values))
    };
    assert_eq!(finds("R3", 9.0, &[phq9(1.0, 9)]), []);
    assert_eq!(finds("R3", 9.0, &[phq9(1.0, 10)]), known(Severity::Review));
    assert_eq!(finds("R3", 9.0, &[phq9(1.0, 10), phq9(2.0, 14)]), known(Severity::Review));
    let rising = [phq9(1.0, 10), phq9(2.0, 20), phq9(3.0, 21)];
    assert_eq!(finds("R3", 9.0, &rising), [known(Severity::Review), known(Severity::Urgent)].concat());
    let again = [phq9(1.0, 12), phq9(2.0, 4), phq9(3.0, 12)];
    assert_eq!(finds("R3", 9.0, &again).len(), 2);
    let gad7 = |total: i64| {
        let values: Vec<_> = (0..7).map(|place| (total - 3 * place).clamp(0, 3)).collect();
        by_patient(1.0, answers("gad7", &values))
    };
    assert_eq!(finds("R4", 9.0, &[gad7(9)]), []);
    assert_eq!(finds("R4", 9.0, &[gad7(10)]), known(Severity::Review));
    assert_eq!(finds("R4", 9.0, &[gad7(15)]), known(Severity::SameDay));
}

#[test]
fn withdrawal_is_found_at_its_thresholds_and_in_bands_without_answers() {
    for (total, expected) in [
        (24, None),
        (25, Some(Severity::Urgent)),
        (36, Some(Severity::Urgent)),
        (37, Some(Severity::Emergency)),
    ] {
        assert_eq!(
            finds("R5", 2.0, &[by_clinic(1.0, cows(total))]),
            expected.map(known).unwrap_or_default(),
            "{total}"
        );
    }
    assert_eq!(finds("R6", 2.0, &[by_patient(1.0, sows(20))]), []);
    assert_eq!(finds("R6", 2.0, &[by_patient(1.0, sows(21))]), known(Severity::SameDay));
    let band =
        |band| by_patient(1.0, Entry::withdrawal_band(BandInstrument::Sows16, band, Phase::Routine).body);
    assert_eq!(finds("R6", 2.0, &[band(Band::Moderate)]), []);
    assert_eq!(finds("R6", 2.0, &[band(Band::Severe)]), known(Severity::SameDay));
}

#[test]
fn a_programme_sets_its_own_thresholds_and_turns_rules_off() {
    let value = |name: &str, value| Thresholds::default().values([(name, value)]);
    let own = |name: &str, own| by_clinic(0.0, value(name, own));
    assert_eq!(
        finds("R6", 2.0, &[own("R6.total", 15.0), by_patient(1.0, sows(15))]),
        known(Severity::SameDay)
    );
    assert_eq!(finds("R6", 2.0, &[own("R6.total", 30.0), by_patient(1.0, sows(29))]), []);
    let off = by_clinic(0.0, Thresholds::default().rules_off(["R6"]));
    assert_eq!(finds("R6", 2.0, &[off, by_patient(1.0, sows(40))]), []);
    let shipped = crate::clinical::instrument::Instruments::shipped();
    let refused = |own: Thresholds| check_thresholds(&own, shipped).expect_err("refused").field.into_owned();
    assert_eq!(refused(value("R6.totals", 1.0)), "values");
    assert_eq!(refused(value("R6.total", 65.0)), "values.R6.total");
    assert_eq!(refused(Thresholds::default().rules_off(["R29"])), "rules_off");
    let bands = |table: &str| Thresholds::default().bands([("ciwa_ar", table)]);
    assert_eq!(refused(bands("nice")), "bands.ciwa_ar");
    assert!(check_thresholds(&bands("va"), shipped).is_ok());
}

#[test]
fn a_first_buprenorphine_asks_for_clear_withdrawal() {
    let first = |score: Option<i64>| {
        let mut told = vec![by_patient(1.0, dose("buprenorphine"))];
        told.extend(score.map(|total| by_clinic(0.95, cows(total))));
        told
    };
    assert_eq!(finds("R7", 2.0, &first(Some(8))), []);
    let hold = found("R7", 2.0, &first(Some(7)));
    assert!(hold[0].holds && hold[0].severity == Severity::Review);
    assert_eq!(finds("R7", 2.0, &first(None)), [(Severity::Info, Certainty::Unknown)]);
    let second = [by_patient(1.0, dose("buprenorphine")), by_patient(2.0, dose("buprenorphine"))];
    assert_eq!(finds("R7", 3.0, &second).len(), 1, "the second one is no first");
    let soon = |substance: &str, hours: f64| {
        [by_patient(10.0 - hours / 24.0, uses(substance)), by_patient(10.0, dose("Suboxone"))]
    };
    assert_eq!(finds("R8", 11.0, &soon("heroin", 11.0)), known(Severity::Review));
    assert_eq!(finds("R8", 11.0, &soon("heroin", 12.5)), []);
    assert_eq!(finds("R8", 11.0, &soon("OxyContin", 23.0)), known(Severity::Review));
    assert_eq!(finds("R8", 11.0, &soon("methadone", 71.0)), known(Severity::Review));
    assert_eq!(finds("R8", 11.0, &soon("methadone", 73.0)), []);
}

#[test]
fn precipitated_withdrawal_is_found_within_the_hour() {
    let minutes = |minutes: f64| 1.0 + minutes / 1_440.0;
    let told = |after: i64, when: f64| {
        [
            by_patient(minutes(-30.0), sows(5)),
            by_patient(1.0, dose("buprenorphine")),
            by_patient(minutes(when), sows(after)),
        ]
    };
    assert_eq!(finds("R9", 2.0, &told(15, 45.0)), known(Severity::Urgent));
    assert_eq!(finds("R9", 2.0, &told(14, 45.0)), []);
    assert_eq!(finds("R9", 2.0, &told(15, 61.0)), []);
    let bands = |before, after| {
        let band = |band, phase| Entry::withdrawal_band(BandInstrument::Cows, band, phase).body;
        [
            by_clinic(1.0, band(before, Phase::BeforeFirstDose)),
            by_clinic(1.1, band(after, Phase::AfterFirstDose)),
        ]
    };
    assert_eq!(finds("R9", 2.0, &bands(Band::Mild, Band::Mild)), []);
    assert_eq!(finds("R9", 2.0, &bands(Band::Mild, Band::Moderate)), known(Severity::Review));
    assert_eq!(finds("R9", 2.0, &bands(Band::Mild, Band::Severe)), known(Severity::Urgent));
}

#[test]
fn alcohol_and_benzodiazepine_withdrawal_are_found() {
    let ciwa = |first: i64, second: i64| answers("ciwa_ar", &[first, second, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(finds("R10", 2.0, &[by_clinic(1.0, ciwa(7, 2))]), []);
    assert_eq!(finds("R10", 2.0, &[by_clinic(1.0, ciwa(7, 3))]), known(Severity::Review));
    let va = Thresholds::default().bands([("ciwa_ar", "va")]);
    assert_eq!(finds("R10", 2.0, &[by_clinic(0.5, va), by_clinic(1.0, ciwa(7, 1))]), known(Severity::Review));
    let many = answers("ciwa_ar", &[7, 7, 7, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(finds("R10", 2.0, &[by_clinic(1.0, many)]), known(Severity::Emergency));
    let seeing = answers("ciwa_ar", &[0, 0, 0, 0, 0, 0, 0, 4, 0, 0]);
    assert_eq!(finds("R11", 2.0, &[by_clinic(1.0, seeing)]), known(Severity::Emergency));
    let benzo = |total: i64| {
        let values: Vec<_> = (0..20).map(|place| (total - 4 * place).clamp(0, 4)).collect();
        answers("ciwa_b", &values)
    };
    let taper = regimen("diazepam", &[(1, 20.0), (10, 18.0)]);
    let told =
        |after| [by_clinic(0.0, taper.clone()), by_clinic(8.0, benzo(5)), by_clinic(12.0, benzo(after))];
    assert_eq!(finds("R12", 20.0, &told(14)), []);
    assert_eq!(finds("R12", 20.0, &told(15)), known(Severity::Review));
    assert_eq!(finds("R12", 20.0, &told(62)), known(Severity::Urgent));
}

#[test]
fn a_steep_benzodiazepine_taper_is_found() {
    let told = |steps: &[(i8, f64)]| [by_clinic(0.0, regimen("diazepam", steps))];
    assert_eq!(finds("R13", 1.0, &told(&[(1, 20.0), (15, 18.0)])), []);
    assert_eq!(finds("R13", 1.0, &told(&[(1, 20.0), (15, 17.0)])), known(Severity::Info));
    assert_eq!(finds("R13", 1.0, &told(&[(1, 20.0), (5, 17.0), (10, 14.0)])), known(Severity::Urgent));
    let reasoned = regimen("diazepam", &[(1, 20.0), (5, 14.0)]).although("moving away");
    assert_eq!(finds("R13", 1.0, &[by_clinic(0.0, reasoned)]), known(Severity::Review));
    assert_eq!(finds("R13", 1.0, &[by_clinic(0.0, regimen("buprenorphine", &[(1, 16.0), (5, 8.0)]))]), []);
}

#[test]
fn days_not_taken_are_counted_and_unknown_days_are_told_apart() {
    let days = |taken: &[i32], not: &[i32]| {
        let taken = taken.iter().map(|day| by_patient(f64::from(*day) + 0.3, dose("methadone")));
        taken
            .chain(not.iter().map(|day| by_patient(f64::from(*day) + 0.3, not_taken("methadone"))))
            .collect::<Vec<_>>()
    };
    assert_eq!(finds("R14", 20.0, &days(&[1, 3], &[2])), []);
    assert_eq!(finds("R14", 20.0, &days(&[1, 4], &[2, 3])), known(Severity::Review));
    let three = found("R14", 20.0, &days(&[1, 5], &[2, 3, 4]));
    assert!(three[0].severity == Severity::Urgent && three[0].holds);
    assert_eq!(finds("R14", 20.0, &days(&[1, 5], &[])), [(Severity::Review, Certainty::Unknown)]);
    assert_eq!(finds("R14", 20.0, &days(&[1, 5], &[3])), [(Severity::Review, Certainty::Unknown)]);
    // After the last dose nothing is asked for, unless a plan says so.
    assert_eq!(finds("R14", 20.0, &days(&[1], &[])), []);
    let mut planned = days(&[1], &[]);
    planned.push(by_clinic(0.0, regimen("methadone", &[(1, 60.0)])));
    assert_eq!(finds("R14", 3.5, &planned), []);
    assert_eq!(finds("R14", 4.5, &planned), [(Severity::Review, Certainty::Unknown)]);
    let mut stopped = days(&[1], &[]);
    stopped.push(by_clinic(0.0, regimen("methadone", &[(1, 60.0)]).until(date(2024, 1, 2))));
    assert_eq!(finds("R14", 9.5, &stopped), []);

    let bup = |not: &[i32]| {
        let mut told = vec![by_patient(1.3, dose("buprenorphine")), by_patient(11.3, dose("buprenorphine"))];
        told.extend(not.iter().map(|day| by_patient(f64::from(*day) + 0.3, not_taken("buprenorphine"))));
        told.extend(
            (2..11)
                .filter(|day| !not.contains(day))
                .map(|day| by_patient(f64::from(day) + 0.3, dose("buprenorphine"))),
        );
        finds("R15", 20.0, &told)
    };
    assert_eq!(bup(&[3]), known(Severity::Notice));
    assert_eq!(bup(&[3, 4]), known(Severity::Review));
    assert_eq!(bup(&[3, 4, 5, 6, 7, 8]), known(Severity::SameDay));
    assert_eq!(bup(&[3, 5]).len(), 2);
}

#[test]
fn injections_are_due_and_naltrexone_waits_for_opioids() {
    let injections = |second: f64| {
        [
            by_clinic(1.0, dose("naltrexone extended-release")),
            by_clinic(second, dose("naltrexone extended-release")),
        ]
    };
    assert_eq!(finds("R16", 99.0, &injections(31.0)), []);
    assert_eq!(finds("R16", 99.0, &injections(32.0)), known(Severity::Review));
    assert_eq!(finds("R16", 99.0, &injections(36.0)), known(Severity::SameDay));
    let monthly = [DoseStep::every_days(28, date(2024, 1, 1), [(time(8, 0, 0, 0), 380.0)])];
    let monthly =
        Regimen::scheduled("naltrexone extended-release", DoseRoute::Intramuscular, Unit::Mg, monthly)
            .zone("UTC")
            .prescribed_by("Dr Okafor");
    let open = [by_clinic(1.0, dose("naltrexone extended-release")), by_clinic(0.0, monthly)];
    assert_eq!(finds("R16", 31.5, &open), []);
    assert_eq!(finds("R16", 36.5, &open), [(Severity::SameDay, Certainty::Unknown)]);

    let begun = |before: Told| [before, by_clinic(12.0, dose("naltrexone"))];
    assert_eq!(finds("R17", 20.0, &begun(by_patient(1.0, uses("heroin")))), []);
    assert_eq!(finds("R17", 20.0, &begun(by_patient(3.0, uses("heroin")))), known(Severity::Urgent));
    assert_eq!(finds("R17", 20.0, &begun(by_patient(3.0, uses("alcohol")))), []);
    let positive = by_clinic(11.0, screen("Opioid", ScreenResult::Positive));
    assert!(found("R17", 20.0, &begun(positive))[0].holds);
    assert_eq!(finds("R17", 20.0, &begun(by_patient(5.0, dose("methadone")))), known(Severity::Urgent));
}

#[test]
fn screens_and_sedating_substances_are_found() {
    let same_day = |day: f64| [by_patient(1.3, dose("methadone")), by_patient(day, uses("alcohol"))];
    assert_eq!(finds("R18", 9.0, &same_day(1.9)), known(Severity::Review));
    assert_eq!(finds("R18", 9.0, &same_day(2.1)), []);
    assert_eq!(
        finds("R18", 9.0, &[by_patient(1.3, dose("methadone")), by_patient(1.4, uses("cocaine"))]),
        []
    );
    let screened = |substance, result| [by_clinic(1.0, screen(substance, result))];
    assert_eq!(finds("R21", 9.0, &screened("Cocaine", ScreenResult::Positive)), known(Severity::Review));
    assert_eq!(finds("R21", 9.0, &screened("Cocaine", ScreenResult::Negative)), []);
    assert_eq!(finds("R21", 9.0, &screened("Cocaine", ScreenResult::Refused)), known(Severity::Review));
    let cold = screen("Cocaine", ScreenResult::Negative).temperature_ok(false);
    assert_eq!(finds("R21", 9.0, &[by_clinic(1.0, cold)]), known(Severity::Review));
    let treated = |result| [by_patient(0.5, dose("methadone")), by_clinic(1.0, screen("Methadone", result))];
    assert_eq!(finds("R21", 9.0, &treated(ScreenResult::Positive)), []);
    assert_eq!(finds("R22", 9.0, &treated(ScreenResult::Positive)), []);
    assert_eq!(finds("R22", 9.0, &treated(ScreenResult::Negative)), known(Severity::Review));
    assert_eq!(finds("R22", 9.0, &screened("Methadone", ScreenResult::Negative)), []);
}

#[test]
fn silence_is_found_by_level_and_what_was_not_heard_is_unknown() {
    let told = |to, next: f64| {
        [by_clinic(0.0, level(to)), by_patient(1.0, craving(2)), by_patient(next, craving(2))]
    };
    assert_eq!(finds("R19", 2.1, &told(Level::Detox, 1.9)), []);
    assert_eq!(finds("R19", 2.6, &told(Level::Detox, 2.2)), known(Severity::Review));
    assert_eq!(finds("R19", 4.1, &told(Level::IntensiveOutpatient, 3.9)), []);
    assert_eq!(finds("R19", 4.5, &told(Level::IntensiveOutpatient, 4.2)), known(Severity::Review));
    assert_eq!(finds("R19", 9.0, &told(Level::Discharged, 8.0)), []);
    let chart = chart(&told(Level::Detox, 1.5));
    let heard = |day: Option<f64>| {
        let around = Surroundings { last_heard_ms: day.map(at), grants: Vec::new() };
        let found = evaluate(&chart, &around, at(3.0));
        found
            .iter()
            .filter(|finding| finding.rule == "R19")
            .map(|finding| finding.certainty)
            .collect::<Vec<_>>()
    };
    assert_eq!(heard(None), [Certainty::Known]);
    assert_eq!(heard(Some(1.6)), [Certainty::Unknown]);
    assert_eq!(heard(Some(2.9)), [Certainty::Known]);
    let asked = Cadence::daily(Ask::CheckIn, date(2024, 1, 2), [time(9, 0, 0, 0)]);
    let asked = asked.zone("UTC").last(date(2024, 1, 3));
    let told = [by_clinic(0.0, level(Level::Detox)), by_clinic(0.0, asked), by_patient(1.4, craving(1))];
    let unanswered = |now| {
        let found = found("R19", now, &told);
        found.iter().filter(|finding| finding.subject == "check-in").count()
    };
    assert_eq!(unanswered(2.8), 0);
    assert_eq!(unanswered(2.9), 1);
}

#[test]
fn missed_sessions_short_weeks_and_missing_doctors_are_found() {
    let sessions = |attended: &[Attendance]| {
        let visits = attended.iter().enumerate();
        visits
            .map(|(day, attendance)| {
                by_clinic(day as f64 + 0.5, visit(SessionKind::Group, attendance.clone()))
            })
            .collect::<Vec<_>>()
    };
    use Attendance::{Kept, Unknown};
    assert_eq!(finds("R20", 9.0, &sessions(&[Kept, missed(), Kept])), known(Severity::Notice));
    let two = [(Severity::Notice, Certainty::Known), (Severity::Review, Certainty::Known)];
    assert_eq!(finds("R20", 9.0, &sessions(&[missed(), missed(), Kept])), two);
    assert_eq!(finds("R20", 9.0, &sessions(&[missed(), Unknown, missed()])), two, "unknown ends no run");

    let programme = Programme::new("Riverside").zone("UTC");
    let week = |minutes: u16, doctor: f64| {
        let kept = || visit(SessionKind::Group, Kept).attended(Mode::InPerson, minutes);
        let mut told =
            vec![by_clinic(0.0, programme.clone()), by_clinic(0.0, level(Level::IntensiveOutpatient))];
        told.extend([0.5, 2.5, 4.5].map(|day| by_clinic(day, kept())));
        let medical = visit(SessionKind::Medical, Kept).attended(Mode::Video, 15);
        told.push(by_clinic(doctor, medical));
        finds("R20", 7.9, &told)
    };
    assert_eq!(week(180, 1.0), []);
    assert_eq!(week(170, 1.0), known(Severity::Review));
    let no_doctor = [
        by_clinic(0.0, level(Level::IntensiveOutpatient)),
        by_clinic(0.5, visit(SessionKind::Medical, Kept)),
    ];
    let missing =
        |now| found("R20", now, &no_doctor).iter().filter(|one| one.subject == "medical contact").count();
    assert_eq!((missing(7.4), missing(7.6)), (0, 1));
}

#[test]
fn use_risk_and_craving_are_found() {
    assert_eq!(finds("R23", 9.0, &[by_patient(1.0, craving(6))]), []);
    assert_eq!(finds("R23", 9.0, &[by_patient(1.0, craving(7))]), known(Severity::Review));
    let usual = |last| {
        let mut told: Vec<_> = (0..4).map(|day| by_patient(f64::from(day), craving(2))).collect();
        told.push(by_patient(4.0, craving(last)));
        finds("R23", 9.0, &told)
    };
    assert_eq!(usual(4), []);
    assert_eq!(usual(5), known(Severity::Review));
    let weeks = |second| {
        let days = (0..3)
            .map(|day| (f64::from(day) + 3.0, 3))
            .chain((0..3).map(|day| (f64::from(day) + 10.0, second)));
        days.map(|(day, value)| by_patient(day, craving(value))).collect::<Vec<_>>()
    };
    assert_eq!(finds("R24", 30.0, &weeks(3)), []);
    assert_eq!(finds("R24", 30.0, &weeks(4)), known(Severity::Info));
}

#[test]
fn authorizations_aftercare_consents_and_clocks_are_found() {
    let authorization = Authorization::draft("Acme", Level::IntensiveOutpatient, ServiceUnit::Session)
        .requested(10)
        .approved(date(2024, 1, 1), date(2024, 1, 31));
    let used = |many: usize| {
        let mut told = vec![by_clinic(0.0, authorization.clone())];
        told.extend(
            (0..many).map(|day| by_clinic(day as f64 + 0.5, visit(SessionKind::Group, Attendance::Kept))),
        );
        told
    };
    assert_eq!(finds("R25", 10.0, &used(7)), []);
    assert_eq!(finds("R25", 10.0, &used(8)), known(Severity::Review));
    assert_eq!(finds("R25", 23.5, &used(0)), []);
    assert_eq!(finds("R25", 24.5, &used(0)), known(Severity::Review));

    let moves = |to, aftercare: bool| {
        let mut told = vec![by_clinic(0.0, level(Level::IntensiveOutpatient)), by_clinic(9.0, level(to))];
        let plan = Aftercare::new(date(2024, 2, 1), [Task::new("call")]);
        told.extend(aftercare.then(|| by_clinic(8.0, plan)));
        finds("R26", 10.0, &told)
    };
    assert_eq!(moves(Level::Discharged, false), known(Severity::Review));
    assert_eq!(moves(Level::Outpatient, false), known(Severity::Review));
    assert_eq!(moves(Level::Residential, false), []);
    assert_eq!(moves(Level::Discharged, true), []);

    let member = ebb_protocol::id::MemberId([7; 16]);
    let (symptoms, treatment) = ([Category::Symptoms], [Purpose::Treatment]);
    let signed = Consent::signed("A. Person", date(2024, 1, 1), symptoms, treatment)
        .discloser("Riverside")
        .description("withdrawal scales")
        .recipient("Riverside care team")
        .member(member)
        .told_of_revocation()
        .expires(date(2024, 1, 20));
    let consent = |revoked_ms| Consent { revoked_ms, ..signed.clone() };
    let shared = |revoked_ms, now| {
        let chart = chart(&[by_patient(0.5, consent(revoked_ms))]);
        let grants = vec![Grant { member, category: Category::Symptoms }];
        let around = Surroundings { last_heard_ms: None, grants };
        evaluate(&chart, &around, at(now)).iter().filter(|finding| finding.rule == "R27").count()
    };
    assert_eq!(shared(None, 10.0), 0);
    assert_eq!(shared(None, 22.0), 1);
    assert_eq!(shared(Some(at(5.0)), 10.0), 1);

    let mut wrong = record(0, &by_patient(2.0, craving(1)));
    wrong.recorded_at = at(2.0) - 11 * MINUTE_MS;
    let mut chart = Chart::default();
    chart.put(&wrong, Writer::Patient, None);
    let found = evaluate(&chart, &Surroundings::default(), at(3.0));
    assert_eq!(found.iter().filter(|finding| finding.rule == "R28").count(), 1);
}

#[test]
fn late_data_raise_change_and_withdraw_and_the_history_says_so() {
    let asked = |rule: &Rule| rule.id == "R14";
    let mut chart = Chart::default();
    let mut ledger = Ledger::default();
    let enter = |chart: &Chart, ledger: &mut Ledger, now: f64, since: i64| {
        ledger.look(chart, &Surroundings::default(), at(now), since, asked)
    };
    for (number, told) in
        [by_patient(1.3, dose("methadone")), by_patient(5.3, dose("methadone"))].iter().enumerate()
    {
        let touched = chart.put(&record(number, told), told.0, None);
        enter(&chart, &mut ledger, 6.0, touched.since_ms);
    }
    let alert = ledger.iter().next().expect("three unknown days").clone();
    assert_eq!(alert.finding.certainty, Certainty::Unknown);
    assert_eq!(alert.late_ms(), at(6.0) - alert.finding.observed_ms);
    assert_eq!(alert.state(&chart), AlertState::Open);
    // The phone was away: it says now that two of the days were missed.
    for (number, day) in [(2, 2.3), (3, 3.3), (4, 4.3)] {
        let told = by_patient(day, not_taken("methadone"));
        let touched = chart.put(&record(number, &told), told.0, None);
        enter(&chart, &mut ledger, 8.0, touched.since_ms);
    }
    let alert = ledger.get(&alert.finding.id).expect("still there").clone();
    assert_eq!((alert.finding.certainty, alert.finding.severity), (Certainty::Known, Severity::Urgent));
    assert!(alert.history.iter().any(|event| matches!(event.change, Change::Changed { .. })));
    // And that all of them were taken after all.
    for (number, day) in [(2, 2.3), (3, 3.3), (4, 4.3)] {
        let told = by_patient(day, dose("methadone"));
        let touched = chart.put(&record(number, &told), told.0, None);
        enter(&chart, &mut ledger, 9.0, touched.since_ms);
    }
    let alert = ledger.get(&alert.finding.id).expect("never dropped");
    assert_eq!(alert.state(&chart), AlertState::Withdrawn);
    assert_eq!(alert.history.last().map(|event| event.at_ms), Some(at(9.0)));
    assert_eq!(ledger.iter().filter(|alert| !alert.is_withdrawn()).count(), 0);
}

#[test]
fn every_rule_is_there_once_and_says_where_it_comes_from() {
    let ids: Vec<_> = RULES.iter().map(|rule| rule.id.to_owned()).collect();
    assert_eq!(ids, (1..=28).map(|number| format!("R{number}")).collect::<Vec<_>>());
    for rule in RULES {
        assert!(!rule.title.is_empty() && !rule.source.is_empty() && !rule.reads.is_empty(), "{rule:?}");
        for parameter in rule.parameters {
            assert!((parameter.min..=parameter.max).contains(&parameter.default), "{rule:?} {parameter:?}");
            assert!(find_parameter(&format!("{}.{}", rule.id, parameter.name)).is_some());
        }
    }
}

fn any_body() -> impl Strategy<Value = (Writer, Body)> {
    let patient = prop_oneof![
        (0..65_i64).prop_map(sows),
        (0..4_i64, 0..4_i64)
            .prop_map(|(first, last)| answers("phq9", &[first, 3, 3, first, 0, 0, 0, 0, last])),
        (0..=10_u8).prop_map(craving),
        prop_oneof!["methadone", "buprenorphine", "naltrexone"].prop_map(|drug| dose(&drug)),
        prop_oneof!["methadone", "buprenorphine"].prop_map(|drug| not_taken(&drug)),
        prop_oneof!["heroin", "alcohol", "methadone", "benzodiazepine"].prop_map(|name| uses(&name)),
        (0..4_u8, any::<bool>()).prop_map(|(band, before)| {
            let phase = if before { Phase::BeforeFirstDose } else { Phase::AfterFirstDose };
            Entry::withdrawal_band(BandInstrument::Sows16, Band::try_from(band).expect("0 to 3"), phase).body
        }),
    ];
    let clinic = prop_oneof![
        Just(dose("naltrexone extended-release")),
        (0..3_usize).prop_map(|which| {
            let attendance = [Attendance::Kept, missed(), Attendance::Unknown][which].clone();
            visit(SessionKind::Group, attendance).into()
        }),
        Just(visit(SessionKind::Medical, Attendance::Kept).into()),
        prop_oneof!["Cocaine", "Methadone", "Opioid"].prop_flat_map(|name| {
            prop_oneof![Just(ScreenResult::Positive), Just(ScreenResult::Negative)]
                .prop_map(move |result| screen(&name, result).into())
        }),
        prop_oneof![Just(Level::Detox), Just(Level::IntensiveOutpatient), Just(Level::Discharged)]
            .prop_map(level),
        Just(regimen("methadone", &[(1, 60.0), (20, 50.0)]).into()),
        (5.0..40.0_f64).prop_map(|total| Thresholds::default().values([("R6.total", total)]).into()),
    ];
    prop_oneof![
        3 => patient.prop_map(|body| (Writer::Patient, body)),
        2 => clinic.prop_map(|body| (Writer::Clinic, body)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// What is found in the end is what all records say, whatever came when: looking at what each record
    /// touches is as good as looking at everything, and retractions take back what they took part in.
    #[test]
    fn arrival_order_does_not_change_what_is_found(
        bodies in prop::collection::vec((any_body(), 0.0..45.0_f64, any::<prop::sample::Index>()), 1..40),
        retracted in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let now = 50.0;
        let told: Vec<_> = bodies.iter().map(|((by, body), day, _)| Told(*by, *day, body.clone())).collect();
        let mut records: Vec<_> = told.iter().enumerate().map(|(number, told)| (record(number, told), told.0)).collect();
        let gone: BTreeSet<_> = retracted.iter().map(|place| place.index(records.len())).collect();
        // An order of arrival that has nothing to do with when things happened.
        let mut arrival: Vec<_> = (0..records.len()).collect();
        for (place, (_, _, other)) in bodies.iter().enumerate() {
            arrival.swap(place, other.index(bodies.len()));
        }
        let mut chart = Chart::default();
        let mut ledger = Ledger::default();
        let around = Surroundings::default();
        let mut put = |record: &Record, by: Writer| {
            let touched = chart.put(record, by, None);
            ledger.look(&chart, &around, at(now), touched.since_ms, |rule| rule.reads_any(&touched.topics));
        };
        for place in &arrival {
            put(&records[*place].0, records[*place].1);
        }
        for place in &gone {
            records[*place].0.retracted = Some(crate::record::Retraction::default());
            put(&records[*place].0, records[*place].1);
        }
        let whole = Chart::of(records.iter().map(|(record, by)| (record, *by)));
        let all = evaluate(&whole, &around, at(now));
        let key = |finding: &Finding| (finding.rule.clone(), finding.id, finding.severity, finding.certainty, finding.text.clone());
        let mut expected: Vec<_> = all.iter().map(key).collect();
        let mut standing: Vec<_> =
            ledger.iter().filter(|alert| !alert.is_withdrawn()).map(|alert| key(&alert.finding)).collect();
        expected.sort();
        standing.sort();
        prop_assert_eq!(standing, expected);
    }
}
