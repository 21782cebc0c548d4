use jiff::civil::{date, time};
use proptest::prelude::*;

use super::*;
use crate::{
    clinical::plan::{
        calendar::{
            DAY_MS, HOUR_MS,
            tests::{ZONES, days, times},
        },
        tests::section,
    },
    record::{DoseRoute, DoseStep, Thresholds, TimedDose, Unit},
};

const RECORD: RecordId = RecordId::from_bytes([7; 16]);

fn regimen(drug: &str, course: Course, steps: Vec<DoseStep>) -> Regimen {
    let made = Regimen::scheduled(drug, DoseRoute::Oral, Unit::Mg, steps);
    Regimen { course, ..made.zone("America/New_York").prescribed_by("Dr. Marsh") }
}

/// Once a day at eight, in steps of an amount from a day on.
fn daily(drug: &str, course: Course, steps: &[(Date, f64)]) -> Regimen {
    let taken = |amount: f64| (amount > 0.0).then_some((time(8, 0, 0, 0), amount));
    let steps = steps.iter().map(|(from, amount)| DoseStep::daily(*from, taken(*amount)));
    regimen(drug, course, steps.collect())
}

/// At most an amount a day from the first of May on.
fn as_needed(drug: &str, day_amount_max: f64) -> Regimen {
    Regimen::as_needed(drug, DoseRoute::Oral, Unit::Mg, date(2026, 5, 1), day_amount_max)
        .zone("America/New_York")
        .prescribed_by("Dr. Marsh")
}

fn due_on(regimen: &Regimen, first: Date, last: Date) -> Vec<(Date, Time, f64)> {
    let zone = Zone::named(&regimen.zone).unwrap();
    let (from, until) = (zone.starts_ms(first), zone.starts_ms(plus_days(last, 1)));
    due_doses(RECORD, regimen, from, until).iter().map(|dose| (dose.day, dose.time, dose.amount)).collect()
}

fn plan_of(regimens: &[(u8, &Regimen)]) -> Plan {
    let mut plan = Plan::default();
    for (id, regimen) in regimens {
        plan.put(&section(*id, date(2026, 1, 1), (*regimen).clone()));
    }
    plan
}

#[test]
fn a_step_ends_where_the_next_begins_and_all_with_the_last_day() {
    let mut plan = daily(
        "methadone",
        Course::Steady,
        &[
            (date(2026, 5, 1), 20.0),
            (date(2026, 5, 3), 30.0),
            (date(2026, 5, 4), 0.0),
            (date(2026, 5, 6), 40.0),
        ],
    );
    plan.until = Some(date(2026, 5, 7));
    let amounts =
        due_on(&plan, date(2026, 4, 1), date(2026, 6, 1)).into_iter().map(|(day, _, dose)| (day.day(), dose));
    assert_eq!(amounts.collect::<Vec<_>>(), [(1, 20.0), (2, 20.0), (3, 30.0), (6, 40.0), (7, 40.0)]);
    let planned =
        [(30, None), (31, Some(20.0)), (32, Some(20.0)), (34, Some(0.0)), (37, Some(40.0)), (38, None)];
    for (days, amount) in planned {
        assert_eq!(day_amount_on(&plan, plus_days(date(2026, 3, 31), days)), amount);
    }
}

#[test]
fn every_so_many_days_counts_from_the_first_day_of_the_step() {
    let steps = [
        DoseStep::every_days(28, date(2026, 1, 30), [(time(10, 0, 0, 0), 300.0)]),
        DoseStep::every_days(28, date(2026, 4, 1), [(time(9, 0, 0, 0), 100.0)]),
    ];
    let depot = regimen("Sublocade", Course::Steady, steps.into());
    let days = due_on(&depot, date(2026, 2, 1), date(2026, 5, 1)).into_iter().map(|(day, ..)| day);
    let expected = [date(2026, 2, 27), date(2026, 3, 27), date(2026, 4, 1), date(2026, 4, 29)];
    assert_eq!(days.collect::<Vec<_>>(), expected);
    assert_eq!(day_amount_on(&depot, date(2026, 2, 28)), Some(0.0));
    assert_eq!(day_amount_on(&depot, date(2026, 3, 27)), Some(300.0));
}

#[test]
fn what_is_taken_as_needed_is_never_due() {
    let plan = as_needed("lorazepam", 1.0);
    assert_eq!(due_on(&plan, date(2026, 5, 1), date(2026, 6, 1)), []);
    assert_eq!(day_amount_on(&plan, date(2026, 5, 1)), None);
}

#[test]
fn an_unknown_zone_and_a_window_of_nothing_have_no_doses() {
    let mut plan = daily("methadone", Course::Steady, &[(date(2026, 5, 1), 20.0)]);
    assert!(due_doses(RECORD, &plan, i64::MAX, i64::MIN).is_empty());
    plan.zone = "Mars/Olympus".to_owned();
    assert!(due_doses(RECORD, &plan, 0, i64::MAX).is_empty());
}

#[test]
fn a_skipped_time_is_taken_after_the_skip_and_a_repeated_one_once() {
    let night = [(time(1, 30, 0, 0), 1.0), (time(2, 30, 0, 0), 2.0)];
    let plan = regimen("methadone", Course::Steady, vec![DoseStep::daily(date(2026, 1, 1), night)]);
    let zone = Zone::named(&plan.zone).unwrap();
    for (day, clocks) in [
        (date(2026, 3, 8), [time(1, 30, 0, 0), time(3, 30, 0, 0)]),
        (date(2026, 11, 1), [time(1, 30, 0, 0), time(2, 30, 0, 0)]),
    ] {
        let (from, until) = (zone.starts_ms(day), zone.starts_ms(plus_days(day, 1)));
        assert_ne!(until - from, DAY_MS, "the clocks change on this day");
        let due = due_doses(RECORD, &plan, from, until);
        assert_eq!(
            due.iter().map(|dose| dose.at).collect::<Vec<_>>(),
            clocks.map(|time| day.to_datetime(time))
        );
        assert_eq!(due.iter().map(|dose| dose.time).collect::<Vec<_>>(), night.map(|(time, _)| time));
    }
}

#[test]
fn a_time_skipped_before_midnight_is_due_on_the_next_day() {
    // On the 30th of March 2024, clocks in Nuuk went from 23 to 24.
    let late = DoseStep::daily(date(2024, 3, 1), [(time(23, 30, 0, 0), 1.0)]);
    let mut plan = regimen("methadone", Course::Steady, vec![late]);
    plan.zone = "America/Nuuk".to_owned();
    let of = |day| due_on(&plan, day, day).into_iter().map(|(day, ..)| day.day()).collect::<Vec<_>>();
    assert_eq!(of(date(2024, 3, 29)), [29]);
    assert!(of(date(2024, 3, 30)).is_empty());
    assert_eq!(of(date(2024, 3, 31)), [30, 31]);
}

#[test]
fn reductions_are_shares_of_what_was_taken_before() {
    let week = |weeks: i64| plus_days(date(2026, 5, 1), 7 * weeks);
    let amounts = [20.0, 18.0, 18.0, 15.0, 12.0, 11.0];
    let steps: Vec<_> = (0..).zip(amounts).map(|(weeks, amount)| (week(weeks), amount)).collect();
    let plan = daily("diazepam", Course::Steady, &steps);
    let close = |found: Option<Reduction>, on, percent: f64| {
        found.is_some_and(|found| found.on == on && (found.percent - percent).abs() < 1e-9)
    };
    assert!(close(steepest_step(&plan), week(4), 20.0), "15 to 12");
    assert!(close(steepest_fall_in(&plan, 7), week(4), 20.0), "steps 7 days apart count alone");
    assert!(close(steepest_fall_in(&plan, 14), week(4), 100.0 / 3.0), "18 to 12");
    assert!(steepest_step(&daily("diazepam", Course::Steady, &[(week(0), 5.0), (week(1), 5.0)])).is_none());
}

#[test]
fn every_second_day_is_half_a_day() {
    let eight = |amount| [(time(8, 0, 0, 0), amount)];
    let often = DoseStep::daily(date(2026, 5, 1), eight(10.0));
    let seldom = DoseStep::every_days(2, date(2026, 6, 1), eight(18.0));
    let taper = regimen("diazepam", Course::Taper, vec![often, seldom]);
    assert!(steepest_step(&taper).is_some_and(|step| (step.percent - 10.0).abs() < 1e-9));
    assert!(check_regimen(&taper, &Plan::default(), None).is_ok_and(|warnings| warnings.is_empty()));
    // Ten every second day, and then ten daily.
    let steps = [
        DoseStep::every_days(2, date(2026, 5, 1), eight(10.0)),
        DoseStep::daily(date(2026, 6, 1), eight(10.0)),
    ];
    let rising = regimen("diazepam", Course::Taper, steps.into());
    let refused = check_regimen(&rising, &Plan::default(), None).expect_err("a taper that rises");
    assert_eq!(
        (&*refused.field, &*refused.allowed),
        ("steps.doses.amount", "no more a day than on the step before, in a taper")
    );
}

#[test]
fn a_stop_is_measured_against_the_greatest_amount() {
    let weeks = |weeks: i64| plus_days(date(2026, 5, 1), 7 * weeks);
    let mut taper = daily("diazepam", Course::Taper, &[(weeks(0), 10.0), (weeks(2), 9.0)]);
    assert!(steepest_step(&taper).is_some_and(|step| step.on == weeks(2)), "9 mg until further notice");
    taper.until = Some(plus_days(weeks(4), -1));
    let stop = steepest_step(&taper).unwrap();
    assert!(stop.on == weeks(4) && (stop.percent - 90.0).abs() < 1e-9);
    assert!(check_regimen(&taper, &Plan::default(), None).is_err());
    let pause = daily("diazepam", Course::Steady, &[(weeks(0), 10.0), (weeks(2), 1.0), (weeks(4), 0.0)]);
    assert!(steepest_step(&pause).is_some_and(|step| step.on == weeks(2)), "the stop is of a tenth");
}

#[test]
fn a_steep_benzodiazepine_is_refused_or_warned_of() {
    let days = |days: i64| plus_days(date(2026, 5, 1), days);
    let steps = |amounts: &[(i64, f64)]| {
        amounts.iter().map(|(day, amount)| (days(*day), *amount)).collect::<Vec<_>>()
    };
    let check = |drug: &str, amounts: &[(i64, f64)]| {
        check_regimen(&daily(drug, Course::Taper, &steps(amounts)), &Plan::default(), None)
    };
    assert!(check("clonazepam", &[(0, 2.0), (14, 1.8)]).is_ok_and(|warnings| warnings.is_empty()), "10 %");
    let warned = check("clonazepam", &[(0, 2.0), (14, 1.75)]).unwrap();
    assert!(matches!(warned[..], [Warning::SteepStep(Reduction { on, .. })] if on == days(14)), "12.5 %");
    assert!(check("clonazepam", &[(0, 2.0), (14, 1.5)]).is_ok_and(|warnings| warnings.len() == 1), "25 %");
    let refused = check("clonazepam", &[(0, 2.0), (7, 1.75), (13, 1.45)]).expect_err("27.5 % in 13 days");
    assert_eq!(refused.field, "steps.doses.amount");
    assert_eq!(refused.allowed, "at most 25 % less within 14 days, unless override_reason says why");
    assert!(check("clonazepam", &[(0, 2.0), (7, 1.75), (21, 1.45)]).is_ok(), "17 % in 14 days");
    assert!(
        check("methadone", &[(0, 80.0), (1, 20.0)]).is_ok_and(|warnings| warnings.is_empty()),
        "not R13's"
    );

    let mut reasoned = daily("clonazepam", Course::Taper, &steps(&[(0, 2.0), (7, 1.0)]));
    reasoned.override_reason = Some("inpatient".to_owned());
    let warnings = check_regimen(&reasoned, &Plan::default(), None).unwrap();
    assert!(
        matches!(warnings[..], [Warning::SteepStep(_), Warning::SteepFall(fall)] if fall.percent == 50.0)
    );
}

#[test]
fn a_programme_sets_how_steep_a_taper_may_be() {
    let half = daily("clonazepam", Course::Taper, &[(date(2026, 5, 1), 2.0), (date(2026, 5, 15), 1.0)]);
    let limited = |percent: f64| {
        let values = [("R13.step", percent), ("R13.fortnight", percent)];
        let values = values.map(|(name, value)| (name.to_owned(), value)).into();
        let mut plan = Plan::default();
        plan.put(&section(9, date(2026, 1, 1), Thresholds { values, ..Thresholds::default() }));
        check_regimen(&half, &plan, None)
    };
    assert!(limited(50.0).is_ok_and(|warnings| warnings.is_empty()));
    let refused = limited(49.0).expect_err("more than the programme allows");
    assert_eq!(refused.allowed, "at most 49 % less within 14 days, unless override_reason says why");
}

#[test]
fn a_taper_cut_into_records_is_as_steep_as_in_one() {
    let mut first = daily("diazepam", Course::Taper, &[(date(2026, 5, 1), 20.0)]);
    first.until = Some(date(2026, 5, 31));
    let next = daily("Valium (diazepam)", Course::Taper, &[(date(2026, 6, 1), 10.0)]);
    assert!(check_regimen(&next, &Plan::default(), None).is_ok());
    let plan = plan_of(&[(1, &first)]);
    assert_eq!(check_regimen(&next, &plan, None).expect_err("half").field, "steps.doses.amount");
    let later = daily("diazepam", Course::Taper, &[(date(2026, 6, 14), 10.0)]);
    assert!(check_regimen(&later, &plan, None).is_err(), "a break of 13 days is a fall all the same");
    let anew = daily("diazepam", Course::Taper, &[(date(2026, 6, 20), 10.0)]);
    assert!(check_regimen(&anew, &plan, None).is_ok(), "begun anew");
    // The first record's own end is measured against what the second goes on with.
    let gentle = daily("diazepam", Course::Taper, &[(date(2026, 6, 1), 19.0)]);
    let plan = plan_of(&[(1, &first), (2, &gentle)]);
    let first_id = RecordId::from_bytes([1; 16]);
    assert!(check_regimen(&first, &plan, Some(first_id)).is_ok_and(|warnings| warnings.is_empty()));
    assert!(check_regimen(&first, &Plan::default(), None).is_err(), "20 mg to nothing");
}

#[test]
fn regimens_of_one_medicine_do_not_overlap() {
    let mut kept = daily("buprenorphine/naloxone", Course::Steady, &[(date(2026, 5, 1), 16.0)]);
    kept.until = Some(date(2026, 5, 31));
    let plan = plan_of(&[(1, &kept)]);
    let on = |drug, from| check_regimen(&daily(drug, Course::Steady, &[(from, 8.0)]), &plan, None);
    let refused = on("Suboxone", date(2026, 5, 31)).expect_err("the last day is taken");
    assert_eq!(refused.field, "steps.from");
    assert_eq!(refused.allowed, "on days on which no other regimen of the same medicine runs");
    assert!(on("Suboxone", date(2026, 6, 1)).is_ok());
    assert!(on("Sublocade", date(2026, 5, 20)).is_ok(), "another medicine");
    let edited = daily("buprenorphine", Course::Steady, &[(date(2026, 5, 1), 12.0)]);
    assert!(
        check_regimen(&edited, &plan, Some(RecordId::from_bytes([1; 16]))).is_ok(),
        "its own earlier version"
    );
    let beside = check_regimen(&as_needed("buprenorphine", 2.0), &plan, None).unwrap();
    assert!(
        matches!(beside[..], [Warning::BesideAsNeeded(record)] if record == RecordId::from_bytes([1; 16]))
    );
}

#[test]
fn what_cannot_be_is_refused_by_field() {
    let good = || daily("methadone", Course::Taper, &[(date(2026, 5, 1), 30.0), (date(2026, 5, 8), 20.0)]);
    let with = |change: &dyn Fn(&mut Regimen)| {
        let mut regimen = good();
        change(&mut regimen);
        check_regimen(&regimen, &Plan::default(), None).expect_err("what cannot be").field.into_owned()
    };
    assert!(check_regimen(&good(), &Plan::default(), None).is_ok());
    assert_eq!(with(&|regimen| regimen.until = Some(date(2026, 5, 7))), "steps.from");
    assert_eq!(with(&|regimen| regimen.steps[1].from = date(2026, 5, 1)), "steps.from");
    assert_eq!(with(&|regimen| regimen.steps[1].doses[0].amount = 31.0), "steps.doses.amount");
    assert_eq!(with(&|regimen| regimen.steps[1].every_days = 0), "steps.every_days");
    assert_eq!(with(&|regimen| regimen.zone = "Europe/Londres".to_owned()), "zone");
    let twice = TimedDose { at: time(8, 0, 0, 0), amount: 1.0 };
    assert_eq!(with(&|regimen| regimen.steps[0].doses.push(twice)), "steps.doses.at");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn clocks_neither_lose_nor_double_a_dose(
        zone in prop::sample::select(ZONES),
        first in days(),
        often in prop::collection::btree_set(times(), 1..4),
        every_days in 1u16..5,
        cut in 0i64..400 * DAY_MS,
    ) {
        let step = DoseStep::every_days(every_days, first, often.iter().map(|at| (*at, 1.0)));
        let mut plan = regimen("methadone", Course::Steady, vec![step]);
        plan.zone = zone.to_owned();
        let zone = Zone::named(zone).unwrap();
        let (from, until) = (zone.starts_ms(first), zone.starts_ms(plus_days(first, 400)));
        let due = due_doses(RECORD, &plan, from, until);

        // One for each day and time.
        let mut found: Vec<_> = due.iter().map(|dose| (dose.day, dose.time)).collect();
        found.sort_unstable();
        let planned: Vec<_> = (0..400i64)
            .step_by(every_days.into())
            .flat_map(|day| often.iter().map(move |at| (plus_days(first, day), *at)))
            .collect();
        prop_assert!(found == planned);

        // In order, and those of one time of day strictly so, an hour or less away from a day apart.
        prop_assert!(due.is_sorted_by_key(|dose| dose.planned.due_ms));
        for at in &often {
            let moments: Vec<_> = due.iter().filter(|dose| dose.time == *at).map(|dose| dose.planned.due_ms).collect();
            let apart = i64::from(every_days) * DAY_MS;
            prop_assert!(moments.windows(2).all(|two| (two[1] - two[0] - apart).abs() <= HOUR_MS));
        }
        // The clock shows what was planned, but for what was skipped.
        prop_assert!(due.iter().all(|dose| dose.at == dose.day.to_datetime(dose.time)
            || dose.at.duration_since(dose.day.to_datetime(dose.time)).as_mins() <= 60));

        // Two windows hold what one does.
        let cut = from + cut;
        let halves = [due_doses(RECORD, &plan, from, cut), due_doses(RECORD, &plan, cut, until)].concat();
        prop_assert!(halves == due);
    }
}
