use jiff::civil::{date, time};
use proptest::prelude::*;

use super::*;
use crate::{
    clinical::plan::{
        schedule::tests::{group, programme},
        tests::{logged, section},
    },
    record::{
        Aftercare, Attendance, Body, Cadence, CheckIn, DoseRoute, DoseStep, Entry, Regimen,
        RelapsePrevention, Task, Visit, Weekday, Writer,
    },
};

/// A Thursday.
const DAY: Date = date(2026, 5, 7);

fn ms(hours: i64, minutes: i64) -> i64 {
    Zone::named("America/New_York").unwrap().starts_ms(DAY) + hours * HOUR_MS + minutes * MINUTE_MS
}

fn regimen(drug: &str, hours: &[i8]) -> Regimen {
    let doses = hours.iter().map(|hour| (time(*hour, 0, 0, 0), 8.0));
    let steps = [DoseStep::daily(date(2026, 1, 1), doses)];
    Regimen::scheduled(drug, DoseRoute::Sublingual, Unit::Mg, steps)
        .zone("America/New_York")
        .prescribed_by("Dr. Marsh")
}

fn cadence(ask: Ask, every_days: u16, at: jiff::civil::Time) -> Cadence {
    Cadence::every_days(every_days, ask, date(2026, 1, 1), [at]).zone("America/New_York")
}

/// A chart with the programme, and sections numbered from 2.
fn chart<const N: usize>(sections: [Body; N]) -> Chart {
    let mut chart = Chart::default();
    chart.put(&section(1, DAY, programme()), Writer::Clinic, None);
    for (id, body) in (2..).zip(sections) {
        chart.put(&section(id, DAY, body), Writer::Clinic, None);
    }
    chart
}

fn log(chart: &mut Chart, id: u8, at_ms: i64, entry: Entry) {
    chart.put(&logged(id, Writer::Patient, at_ms, entry), Writer::Patient, None);
}

/// What stands how, by the hours since the day began.
fn states(chart: &Chart, now_ms: i64) -> Vec<(i64, State)> {
    let items = today(chart, now_ms).items.into_iter();
    items.map(|item| ((item.due_ms - ms(0, 0)) / HOUR_MS, item.state)).collect()
}

use State::{Done, Due, Overdue, Upcoming};

#[test]
fn a_dose_is_upcoming_due_overdue_and_done() {
    let mut chart = chart([regimen("buprenorphine", &[8]).into()]);
    assert_eq!(states(&chart, ms(7, 59)), [(-16, Overdue), (8, Upcoming)]);
    assert_eq!(states(&chart, ms(8, 0)), [(-16, Overdue), (8, Due)]);
    assert_eq!(states(&chart, ms(9, 0)), [(8, Overdue), (32, Upcoming)]);
    log(&mut chart, 10, ms(8, 40), Entry::dose_not_taken("Suboxone", 8.0, Unit::Mg, None));
    assert_eq!(states(&chart, ms(9, 0)), [(8, Done), (32, Upcoming)]);
    let items = today(&chart, ms(9, 0)).items;
    assert!(matches!(items[0].what, What::Dose { taken: Some(false), .. }));
    assert!(matches!(items[1].what, What::Dose { taken: None, amount: 8.0, .. }));
    assert_eq!(items[0].answer, Some(RecordId::from_bytes([10; 16])));
    assert_eq!((items[0].at, items[0].record), (DAY.at(8, 0, 0, 0), RecordId::from_bytes([2; 16])));
    assert_eq!(items[0].due(), Moment { millis: ms(8, 0), offset_minutes: -4 * 60 }, "summer in New York");
}

#[test]
fn a_check_in_is_answered_by_one_and_not_by_a_score() {
    let mut chart = chart([cadence(Ask::CheckIn, 1, time(20, 0, 0, 0)).into()]);
    assert_eq!(states(&chart, ms(20, 30)), [(20, Due), (44, Upcoming)]);
    log(&mut chart, 10, ms(20, 10), Entry::craving(4));
    assert_eq!(states(&chart, ms(20, 30))[0], (20, Due), "the craving scale is another question");
    log(&mut chart, 11, ms(17, 50), Entry::check_in(CheckIn { craving: Some(3), ..Default::default() }));
    assert_eq!(states(&chart, ms(20, 30))[0], (20, Due), "more than two hours early");
    log(&mut chart, 12, ms(18, 0), Entry::check_in(CheckIn { craving: Some(3), ..Default::default() }));
    assert_eq!(states(&chart, ms(20, 30))[0], (20, Done));
    assert_eq!(today(&chart, ms(20, 30)).items[0].answer, Some(RecordId::from_bytes([12; 16])));
}

#[test]
fn a_question_stays_open_until_the_next() {
    // Every seven days from the first of January, a Thursday: the last one was this morning.
    let mut chart = chart([cadence(Ask::instrument("gad7"), 7, time(8, 0, 0, 0)).into()]);
    assert_eq!(states(&chart, ms(100, 0)), [(8, Overdue)], "four days old");
    log(&mut chart, 10, ms(90, 0), Entry::answers("gad7", [("1", 2)]).draft());
    let items = today(&chart, ms(100, 0)).items;
    let begun = Some(RecordId::from_bytes([10; 16]));
    assert!(matches!(&items[0].what, What::Instrument { draft, .. } if *draft == begun));
    assert_eq!((items[0].state, items[0].answer), (Overdue, None), "a draft answers nothing");
    log(&mut chart, 10, ms(90, 0), Entry::gad7([0; 7]));
    assert_eq!(states(&chart, ms(100, 0)), [(8, Done)]);
}

#[test]
fn an_instrument_that_is_off_is_not_asked_and_an_unknown_one_is_told() {
    let chart = chart([
        cadence(Ask::instrument("ciwa_b"), 1, time(8, 0, 0, 0)).into(),
        cadence(Ask::instrument("of_tomorrow"), 1, time(8, 0, 0, 0)).into(),
        regimen("methadone", &[8]).zone("Mars/Olympus").into(),
    ]);
    let today = today(&chart, ms(8, 0));
    assert!(today.items.is_empty());
    assert_eq!(today.not_understood, [3, 4].map(|id| RecordId::from_bytes([id; 16])));
}

#[test]
fn sessions_are_now_next_or_not_answered_yet() {
    let mut chart = chart([group(date(2026, 3, 1), &[Weekday::Thursday], 1).into()]);
    assert_eq!(states(&chart, ms(8, 0)), [(9, Upcoming)]);
    assert_eq!(states(&chart, ms(11, 59)), [(9, Due), (9 + 168, Upcoming)], "now, and next week's");
    assert_eq!(states(&chart, ms(12, 0)), [(9, Overdue), (9 + 168, Upcoming)]);
    log(&mut chart, 10, ms(13, 0), Entry::new(Visit::new("group", "Group", Attendance::Unknown)));
    assert_eq!(states(&chart, ms(14, 0))[0], (9, Overdue), "nobody knows");
    log(&mut chart, 10, ms(13, 0), Entry::new(Visit::new("group", "Group", Attendance::Kept)));
    assert_eq!(states(&chart, ms(14, 0))[0], (9, Done));
    let items = today(&chart, ms(14, 0)).items;
    assert!(matches!(&items[0].what, What::Session { mode: Mode::InPerson, outcome: Outcome::Kept, .. }));
}

#[test]
fn tasks_and_reviews_have_a_day() {
    let task = |days| Task::new("Call").due(plus_days(DAY, days));
    let tasks = [task(-40), task(-1).done(), task(0).done(), task(0), task(7), task(8), Task::new("Call")];
    let chart = chart([
        Aftercare::new(DAY, tasks).into(),
        RelapsePrevention::default().review(plus_days(DAY, 2)).into(),
    ]);
    let found = [(-40, Overdue), (0, Done), (0, Due), (2, Upcoming), (7, Upcoming)];
    assert_eq!(states(&chart, ms(12, 0)), found.map(|(days, state)| (days * 24, state)));
    assert!(today(&chart, ms(12, 0)).items.iter().all(|item| item.all_day));
}

#[test]
fn somebody_asks_how_it_goes_after_the_programme() {
    let aftercare = |from: i64, days: u16| {
        let task = Task { text: "Call".to_owned(), due: None, done: false };
        let from = plus_days(DAY, from);
        chart([Aftercare { from, tasks: vec![task], check_in_days: Some(days) }.into()])
    };
    assert_eq!(states(&aftercare(-10, 30), ms(12, 0)), [], "in 20 days");
    assert_eq!(states(&aftercare(-25, 30), ms(12, 0)), [(5 * 24, Upcoming)]);
    assert_eq!(states(&aftercare(-30, 30), ms(12, 0)), [(0, Due)]);
    assert_eq!(states(&aftercare(3, 3), ms(12, 0)), [(6 * 24, Upcoming)], "it has not begun");
    let mut chart = aftercare(-64, 30);
    assert_eq!(states(&chart, ms(12, 0)), [(-4 * 24, Overdue)]);
    let missed = Attendance::Missed { reason: None };
    log(&mut chart, 20, ms(-40, 0), Entry::visit("individual", "Follow-up", missed));
    assert_eq!(states(&chart, ms(12, 0)), [(-4 * 24, Overdue)]);
    log(&mut chart, 21, ms(9, 0), Entry::visit("individual", "Follow-up", Attendance::Kept));
    assert_eq!(states(&chart, ms(12, 0)), [], "done, and not of today");
}

#[test]
fn what_is_due_together_is_one_notification_and_stays_one() {
    let mut chart = chart([
        regimen("buprenorphine", &[8, 20]).into(),
        cadence(Ask::CheckIn, 1, time(8, 14, 0, 0)).into(),
        cadence(Ask::instrument("gad7"), 1, time(8, 15, 0, 0)).into(),
        cadence(Ask::instrument("cows"), 1, time(12, 0, 0, 0)).into(),
        group(date(2026, 3, 1), &[Weekday::Friday], 1).into(),
    ]);
    let at = |chart: &Chart, now_ms| {
        let all = notifications(chart, now_ms, NOTIFICATION_HOURS);
        all.into_iter().map(|one| ((one.at_ms - ms(0, 0)) / MINUTE_MS, one.notice)).collect::<Vec<_>>()
    };
    let (check, soon) = (Notice::Check, Notice::Soon);
    let day = 24 * 60;
    let eight = 8 * 60;
    let all = [
        (eight, check),
        (eight + 15, check),
        (20 * 60, check),
        (day + eight, check),
        (day + eight + 15, check),
        (day + 8 * 60 + 30, soon),
        (day + 20 * 60, check),
    ];
    assert_eq!(at(&chart, ms(0, 0)), all);
    assert_eq!(at(&chart, ms(8, 5))[..6], all[1..], "what was merged before it was due is not told again");

    let before = notifications(&chart, ms(7, 0), 48);
    let after = notifications(&chart, ms(7, 30), 48);
    assert_eq!(before, after, "the same ids");
    log(&mut chart, 10, ms(7, 45), Entry::dose("buprenorphine", 8.0, Unit::Mg));
    assert_eq!(at(&chart, ms(7, 50))[0], (eight, check), "the check-in is still open");
    log(&mut chart, 11, ms(7, 45), Entry::check_in(CheckIn { mood: Some(3), ..Default::default() }));
    assert_eq!(at(&chart, ms(7, 50))[0], (eight + 15, check), "both are answered");
    log(&mut chart, 12, ms(7, 45), Entry::gad7([0; 7]));
    assert_eq!(at(&chart, ms(7, 50))[0], (20 * 60, check));
}

#[test]
fn a_phone_keeps_the_next_ones() {
    let mut chart = Chart::default();
    let times = (0..12).map(|hour| time(2 * hour, 0, 0, 0));
    let often = Cadence::daily(Ask::CheckIn, date(2026, 1, 1), times).zone("America/New_York");
    chart.put(&section(1, DAY, often), Writer::Clinic, None);
    let all = notifications(&chart, ms(0, 0), 24 * 30);
    assert_eq!(all.len(), NOTIFICATIONS_MAX);
    assert_eq!(all[0].at_ms, ms(2, 0), "what is due now needs none");
    let ids: std::collections::BTreeSet<_> = all.iter().map(|one| &one.id).collect();
    assert_eq!(ids.len(), all.len());
    assert!(notifications(&chart, ms(0, 0), 0).is_empty());
}

#[test]
fn a_notification_says_nothing() {
    let words = [
        "buprenorphine",
        "methadone",
        "naltrexone",
        "naloxone",
        "suboxone",
        "diazepam",
        "drug",
        "dose",
        "dosis",
        "medic",
        "pill",
        "pastilla",
        "tablet",
        "taper",
        "withdrawal",
        "abstinencia",
        "detox",
        "treatment",
        "tratamiento",
        "therapy",
        "terapia",
        "clinic",
        "clínica",
        "doctor",
        "nurse",
        "craving",
        "ansia",
        "urge",
        "relapse",
        "recaída",
        "recovery",
        "recuperación",
        "opioid",
        "opioide",
        "alcohol",
        "sober",
        "sobri",
        "use",
        "substance",
        "sustancia",
        "addict",
        "adicc",
        "rehab",
        "symptom",
        "síntoma",
        "mood",
        "group",
        "grupo",
        "session",
        "sesión",
        "patient",
        "paciente",
        "health",
        "salud",
        "ebb",
    ];
    for notice in Notice::ALL {
        for language in ["en", "es", "es-US", "en_GB", "fr", ""] {
            let text = notice.text(language).to_lowercase();
            assert!(!text.is_empty() && text.is_ascii());
            for word in words {
                assert!(!text.contains(word), "{text:?} holds {word:?}");
            }
        }
    }
    assert_ne!(Notice::Check.text("es"), Notice::Check.text("en"));
    assert_eq!(Notice::Check.text("es-MX"), Notice::Check.text("es"));
}

proptest! {
    #[test]
    fn whenever_one_asks_each_moment_is_told_of_once(
        hours in prop::collection::btree_set(0i8..24, 1..5),
        minutes in prop::collection::vec(0i64..48 * 60, 1..20),
    ) {
        let hours: Vec<_> = hours.into_iter().collect();
        let chart = chart([regimen("methadone", &hours).into(), cadence(Ask::CheckIn, 1, time(7, 50, 0, 0)).into()]);
        let whole: Vec<_> = notifications(&chart, ms(0, 0) - 1, 48);
        for minute in minutes {
            let now_ms = ms(0, minute);
            let later = notifications(&chart, now_ms, 48);
            let until = ms(48, 0) - 1;
            let left: Vec<_> = whole.iter().filter(|one| one.at_ms > now_ms).collect();
            let same: Vec<_> = later.iter().filter(|one| one.at_ms < until).collect();
            prop_assert!(left == same);
            prop_assert!(later.windows(2).all(|two| two[1].at_ms - two[0].at_ms >= MERGED_MS));
        }
    }
}
