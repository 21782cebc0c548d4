//! What clinical knowledge costs for a person with two years of data: today, every rule, and one more entry.
//!
//! `cargo bench --workspace --bench clinical`
//!
//! Two years in a programme: two doses a day, a check-in a day, a withdrawal scale a week, questionnaires a
//! fortnight, three sessions a week, a screen a week, some uses; with a plan of a regimen, a taper, three
//! series of sessions, two cadences and an authorization.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and ends where it fails")]

mod kit;

use ebb_core::{
    Category, Entry, Record, RecordId,
    clinical::{
        chart::{Chart, Measure},
        rules::{self, Ledger, Surroundings},
        today,
        trend::{self, Days},
    },
    record::{
        Ask, Attendance, Authorization, Body, Cadence, CheckIn, DoseRoute, DoseStep, Level, LevelMove, Mode,
        Moment, Programme, Regimen, ScreenResult, ServiceUnit, SessionKind, SessionSeries, Source, Specimen,
        Unit, Visit, Weekday, Writer,
    },
};
use jiff::civil::{date, time};
use kit::{Report, Target, median, ms, sized, timed};

const DAY_MS: i64 = 86_400_000;
/// 2024-01-01 00:00 UTC.
const START_MS: i64 = 1_704_067_200_000;
const ZONE: &str = "America/New_York";

fn main() {
    let days = i64::try_from(sized(730, 60)).unwrap();
    let records = two_years(days);
    let now_ms = START_MS + days * DAY_MS;
    let around = Surroundings { last_heard_ms: Some(now_ms), grants: Vec::new() };
    let rounds = sized(200, 5);

    let (chart, gathered) = timed(|| Chart::of(records.iter().map(|(record, by)| (record, *by))));
    let mut ledger = Ledger::default();
    ledger.look(&chart, &around, now_ms, i64::MIN, |_| true);
    let found = ledger.iter().count();

    let repeat =
        |work: &mut dyn FnMut()| median(&(0..rounds).map(|_| timed(&mut *work).1).collect::<Vec<_>>());
    let due = repeat(&mut || drop(std::hint::black_box(today::today(&chart, now_ms))));
    let reminders = repeat(&mut || drop(std::hint::black_box(today::notifications(&chart, now_ms, 48))));
    let all = repeat(&mut || drop(std::hint::black_box(rules::evaluate(&chart, &around, now_ms))));
    let last = trend::day_of(Moment { millis: now_ms, offset_minutes: 0 });
    let month = repeat(&mut || {
        let series = trend::series(&chart, &Measure::named("craving"), Days::ending(last, 30));
        drop(std::hint::black_box(series.rolling_median(7, 3)));
    });
    let summary = repeat(&mut || drop(std::hint::black_box(trend::summary(&chart, Days::ending(last, 30)))));

    // One more entry of each sort, at the end of two years: put, evaluated, entered.
    let mut chart = chart;
    let mut worst = ("", 0.0_f64);
    let mut number = records.len();
    let sorts = [
        ("dose", Entry::dose("buprenorphine", 8.0, Unit::Mg).body),
        ("check-in", CheckIn { craving: Some(8), ..CheckIn::default() }.into()),
        ("SOWS", Entry::sows([2; 16]).body),
        ("PHQ-9", Entry::phq9([1; 9]).body),
        ("use", Entry::use_event("heroin").body),
    ];
    let mut report = Report::new(&format!(
        "clinical: {} records of {days} days, {found} findings, {} rules",
        records.len(),
        rules::RULES.len()
    ));
    report.figure("the chart gathered from records", ms(gathered), "ms", Target::None);
    report.figure("today", ms(due), "ms", Target::AtMost(2.0));
    report.figure("reminders of 48 hours", ms(reminders), "ms", Target::None);
    report.figure("every rule over all of it", ms(all), "ms", Target::AtMost(10.0));
    report.figure("a month of craving with rolling medians", ms(month), "ms", Target::None);
    report.figure("a month's summary", ms(summary), "ms", Target::None);
    for (name, body) in sorts {
        let samples: Vec<_> = (0..rounds)
            .map(|round| {
                number += 1;
                let at = now_ms + i64::try_from(round).unwrap() * 60_000;
                let (record, by) = record(number, at, Writer::Patient, body.clone());
                timed(|| {
                    let touched = chart.put(&record, by, None);
                    ledger
                        .look(&chart, &around, at, touched.since_ms, |rule| rule.reads_any(&touched.topics))
                        .len()
                })
                .1
            })
            .collect();
        let cost = ms(median(&samples));
        report.figure(&format!("one more {name}, put and evaluated"), cost, "ms", Target::None);
        if cost > worst.1 {
            worst = (name, cost);
        }
    }
    report.figure(&format!("the dearest of them ({})", worst.0), worst.1, "ms", Target::AtMost(1.0));
    report.end();
}

fn record(number: usize, at_ms: i64, by: Writer, body: Body) -> (Record, Writer) {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&u64::try_from(number).unwrap().to_be_bytes());
    let category = body.belongs(by).first().copied().unwrap_or(Category::Plan);
    let record = Record {
        id: RecordId::from_bytes(id),
        category,
        kind: body.kind(),
        occurred: Moment { millis: at_ms, offset_minutes: -300 },
        recorded_at: at_ms,
        author: [1; 16],
        staff: None,
        source: Source::SelfReport,
        body,
        note: String::new(),
        retracted: None,
        conflicts: 0,
        from_newer_version: false,
    };
    (record, by)
}

fn two_years(days: i64) -> Vec<(Record, Writer)> {
    let mut told: Vec<(i64, Writer, Body)> =
        plan(days).into_iter().map(|body| (0, Writer::Clinic, body)).collect();
    for day in 0..days {
        let at = |hour: i64| day * DAY_MS + (hour + 5) * 3_600_000;
        let small = u8::try_from(day % 9).unwrap();
        let mut patient = |hour, body: Body| told.push((at(hour), Writer::Patient, body));
        for hour in [8, 20] {
            match day % 37 {
                5 => patient(hour, Entry::dose_not_taken("buprenorphine", 8.0, Unit::Mg, None).body),
                6 => {}
                _ => patient(hour, Entry::dose("buprenorphine", 8.0, Unit::Mg).body),
            }
        }
        patient(9, CheckIn { mood: Some(small), craving: Some(small), ..CheckIn::default() }.into());
        if day % 7 == 0 {
            patient(10, Entry::sows([small % 4; 16]).body);
        }
        if day % 14 == 0 {
            patient(11, Entry::phq9([small % 3; 9]).body);
            patient(11, Entry::gad7([small % 3; 7]).body);
        }
        if day % 23 == 0 {
            patient(22, Entry::use_event(if day % 2 == 0 { "heroin" } else { "alcohol" }).body);
        }
        let mut clinic = |hour, body: Body| told.push((at(hour), Writer::Clinic, body));
        if matches!(day % 7, 0 | 2 | 4) {
            let attendance =
                if day % 19 == 0 { Attendance::Missed { reason: None } } else { Attendance::Kept };
            let kept = attendance == Attendance::Kept;
            let visit = Visit::new(SessionKind::Group, "evening group", attendance);
            clinic(18, if kept { visit.attended(Mode::InPerson, 180) } else { visit }.into());
        }
        if day % 7 == 3 {
            clinic(14, Visit::new(SessionKind::Medical, "doctor", Attendance::Kept).into());
            let result = if day % 5 == 0 { ScreenResult::Positive } else { ScreenResult::Negative };
            clinic(14, Entry::drug_screen(Specimen::Urine, "cocaine", result).body);
        }
    }
    told.sort_by_key(|(at, _, _)| *at);
    let records = told.into_iter().enumerate();
    records.map(|(number, (at, by, body))| record(number, START_MS + at, by, body)).collect()
}

fn plan(days: i64) -> Vec<Body> {
    let first = date(2024, 1, 1);
    let after = |days| first.saturating_add(jiff::Span::new().days(days));
    let twice = |amount| [8, 20].map(|hour| (time(hour, 0, 0, 0), amount));
    let regimen = |drug: &str, amounts: &[f64]| {
        let steps =
            (0..).zip(amounts).map(|(step, amount)| DoseStep::daily(after(step * 14), twice(*amount)));
        Regimen::scheduled(drug, DoseRoute::Sublingual, Unit::Mg, steps).zone(ZONE).prescribed_by("Dr Okafor")
    };
    let taper: Vec<_> = (0..26).map(|step| 10.0 * 0.95_f64.powi(step)).collect();
    let asked = |every_days, ask| Cadence::every_days(every_days, ask, first, [time(9, 0, 0, 0)]).zone(ZONE);
    let series = |weekday, title: &str| {
        SessionSeries::weekly(SessionKind::Group, title, first, [weekday], time(18, 0, 0, 0), 180).zone(ZONE)
    };
    vec![
        Programme::new("Riverside").zone(ZONE).into(),
        LevelMove::to(Level::IntensiveOutpatient, "admission").decided_by("Dr Okafor").into(),
        regimen("buprenorphine", &[8.0]).into(),
        regimen("diazepam", &taper).tapering().into(),
        series(Weekday::Monday, "evening group").into(),
        series(Weekday::Wednesday, "evening group").into(),
        series(Weekday::Friday, "family group").into(),
        asked(1, Ask::CheckIn).into(),
        asked(7, Ask::instrument("sows16")).into(),
        Authorization::draft("Acme", Level::IntensiveOutpatient, ServiceUnit::Session)
            .requested(400)
            .approved(first, after(days))
            .into(),
    ]
}
