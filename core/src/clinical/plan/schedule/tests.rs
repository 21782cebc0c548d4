use jiff::civil::{Time, date, time};
use proptest::prelude::*;

use super::*;
use crate::{
    clinical::plan::{
        calendar::tests::{ZONES, days, times},
        tests::section,
    },
    record::{Entry, MovedSession, Programme, SessionKind, Writer},
};

const RECORD: RecordId = RecordId::from_bytes([3; 16]);

/// A group of three hours at nine.
pub(in crate::clinical) fn group(first: Date, weekdays: &[Weekday], every_weeks: u8) -> SessionSeries {
    let (at, weekdays) = (time(9, 0, 0, 0), weekdays.iter().copied());
    SessionSeries::weekly(SessionKind::Group, "Morning group", first, weekdays, at, 180)
        .zone("America/New_York")
        .every_weeks(every_weeks)
}

/// A programme in New York whose weeks begin on Sundays.
pub(in crate::clinical) fn programme() -> Programme {
    Programme::new("Harbour").zone("America/New_York").week_starts(Weekday::Sunday)
}

fn held(series: &SessionSeries, first: Date, last: Date) -> Vec<DateTime> {
    let zone = Zone::named(&series.zone).unwrap();
    let (from, until) = (zone.starts_ms(first), zone.starts_ms(plus_days(last, 1)));
    sessions(RECORD, series, from, until).iter().map(|session| session.at).collect()
}

#[test]
fn weeks_are_counted_from_that_of_the_first_day() {
    // A Thursday: its week's Tuesday is past, the Sunday after it is of its week still.
    let days = [Weekday::Tuesday, Weekday::Thursday, Weekday::Sunday];
    let series = group(date(2026, 1, 1), &days, 2);
    let found = held(&series, date(2025, 12, 1), date(2026, 1, 31)).into_iter().map(DateTime::date);
    let expected = [(1, 1), (1, 4), (1, 13), (1, 15), (1, 18), (1, 27), (1, 29)];
    assert_eq!(found.collect::<Vec<_>>(), expected.map(|(month, day)| date(2026, month, day)));
}

#[test]
fn a_session_is_where_it_was_moved_to_or_not_held() {
    let mut series = group(date(2026, 3, 2), &[Weekday::Monday], 1);
    series.last = Some(date(2026, 3, 31));
    series.cancelled = vec![date(2026, 3, 9)];
    let at = time(14, 30, 0, 0);
    let moved = |from, to| MovedSession { from, to, start: at };
    series.moved = vec![
        moved(date(2026, 3, 16), date(2026, 4, 10)),
        moved(date(2026, 3, 9), date(2026, 3, 10)),
        // No Monday: the series has nothing that could be moved.
        moved(date(2026, 3, 25), date(2026, 3, 26)),
    ];
    let mondays = [2, 23, 30].map(|day| date(2026, 3, day).at(9, 0, 0, 0));
    assert_eq!(held(&series, date(2026, 3, 1), date(2026, 3, 31)), mondays, "out of the window");
    assert_eq!(
        held(&series, date(2026, 4, 10), date(2026, 4, 10)),
        [date(2026, 4, 10).to_datetime(at)],
        "into it"
    );
    let found = session_of(RECORD, &series, date(2026, 3, 16)).unwrap();
    assert!(found.moved && found.planned.on == date(2026, 3, 16) && found.at.date() == date(2026, 4, 10));
    assert_eq!(found.ends_ms - found.starts_ms, 3 * HOUR_MS);
    for none in [date(2026, 3, 9), date(2026, 3, 25), date(2026, 4, 6), date(2026, 2, 23)] {
        assert!(session_of(RECORD, &series, none).is_none(), "{none}");
    }
    series.moved = vec![moved(date(2026, 3, 16), date(2026, 3, 16))];
    assert_eq!(
        held(&series, date(2026, 3, 16), date(2026, 3, 16)),
        [date(2026, 3, 16).to_datetime(at)],
        "later that day, once"
    );
}

#[test]
fn a_series_that_cannot_be_is_refused_by_field() {
    let series = || group(date(2026, 3, 2), &[Weekday::Monday], 1);
    let moved = |to| MovedSession { from: date(2026, 3, 9), to, start: time(9, 0, 0, 0) };
    let twice = [moved(date(2026, 3, 10)), moved(date(2026, 3, 11))];
    for (field, series) in [
        ("moved.from", series().moved(twice)),
        ("zone", series().zone("America/Springfield")),
        ("last", series().last(date(2026, 3, 1))),
        ("weekdays", SessionSeries { weekdays: Vec::new(), ..series() }),
        ("every_weeks", series().every_weeks(0)),
    ] {
        let refused = Entry::new(series).validate(Writer::Clinic).expect_err("a series that cannot be");
        assert_eq!(refused.field, field);
    }
    assert!(Entry::new(series()).validate(Writer::Clinic).is_ok());
}

#[test]
fn a_session_stays_at_its_time_when_clocks_change() {
    let series = group(date(2026, 2, 1), &[Weekday::Sunday], 1);
    let zone = Zone::named(&series.zone).unwrap();
    let (from, until) = (zone.starts_ms(date(2026, 3, 1)), zone.starts_ms(date(2026, 3, 9)));
    let starts: Vec<_> =
        sessions(RECORD, &series, from, until).iter().map(|session| session.starts_ms).collect();
    assert_eq!(starts[1] - starts[0], 7 * DAY_MS - HOUR_MS);
}

#[test]
fn asks_say_from_when_to_when_they_are_answered() {
    let [eight, ten] = [time(8, 0, 0, 0), time(10, 0, 0, 0)];
    let cadence = Cadence::daily(Ask::CheckIn, date(2026, 5, 1), [eight, ten])
        .zone("America/New_York")
        .last(date(2026, 5, 3));
    let zone = Zone::named(&cadence.zone).unwrap();
    let at = |day: i8, hour: i8| zone.moment_ms(date(2026, 5, day), time(hour, 0, 0, 0)).unwrap();
    let asks = due_asks(RECORD, &cadence, at(1, 0), at(31, 0));
    let found: Vec<_> = asks.iter().map(|ask| (ask.due_ms, ask.opens_ms, ask.closes_ms)).collect();
    let expected = [
        (at(1, 8), at(1, 6), at(1, 9)),
        (at(1, 10), at(1, 9), at(2, 6)),
        (at(2, 8), at(2, 6), at(2, 9)),
        (at(2, 10), at(2, 9), at(3, 6)),
        (at(3, 8), at(3, 6), at(3, 9)),
        (at(3, 10), at(3, 9), at(4, 10)),
    ];
    assert_eq!(found, expected);
    let one = due_asks(RECORD, &cadence, at(2, 8), at(2, 9));
    assert!(one == asks[2..3], "a window of one knows its neighbours");

    let weekly = Cadence::every_days(7, Ask::CheckIn, date(2026, 5, 1), [eight]).zone("America/New_York");
    let asks = due_asks(RECORD, &weekly, at(8, 0), at(9, 0));
    assert_eq!(
        asks.iter().map(|ask| (ask.opens_ms, ask.closes_ms)).collect::<Vec<_>>(),
        [(at(8, 6), at(15, 6))]
    );
}

#[test]
fn a_week_begins_where_the_programme_says() {
    let mut plan = Plan::default();
    let weeks = Weeks::of(&plan);
    assert_eq!(
        (weeks.zone.clone(), weeks.starts, weeks.hours_min, weeks.hours_max),
        (Zone::UTC, Weekday::Monday, 9.0, 20.0)
    );
    assert_eq!(weeks.of_day(date(2026, 5, 3)).first, date(2026, 4, 27), "a Sunday is the last day");
    plan.put(&section(1, date(2026, 1, 1), programme()));
    let weeks = Weeks::of(&plan);
    let week = weeks.at(weeks.zone.starts_ms(date(2026, 3, 8)));
    assert_eq!((week.first, week.last()), (date(2026, 3, 8), date(2026, 3, 14)));
    assert_eq!(week.ends_ms - week.starts_ms, 7 * DAY_MS - HOUR_MS, "the clocks went forward");
    assert_eq!(weeks.at(week.starts_ms - 1).first, date(2026, 3, 1));
    let firsts: Vec<_> =
        weeks.between(date(2026, 3, 3), date(2026, 3, 15)).map(|week| week.first.day()).collect();
    assert_eq!(firsts, [1, 8, 15]);
}

#[test]
fn every_weekday_begins_its_own_week() {
    for day in (0..14).map(|days| plus_days(date(2026, 2, 20), days)) {
        let first = week_start(day, Weekday::of(day));
        assert_eq!(first, day);
        assert_eq!(week_start(plus_days(day, 6), Weekday::of(day)), day);
        assert_eq!(week_start(plus_days(day, -1), Weekday::of(day)), plus_days(day, -7));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn clocks_neither_lose_nor_double_a_session(
        zone in prop::sample::select(ZONES),
        first in days(),
        start in times(),
        weekdays in prop::collection::btree_set(0usize..7, 1..5),
        every_weeks in 1u8..4,
        cut in 0i64..400 * DAY_MS,
    ) {
        let names: Vec<_> = weekdays.iter().map(|day| Weekday::of(plus_days(date(2026, 2, 2), *day as i64))).collect();
        let series = SessionSeries { start, ..group(first, &names, every_weeks).zone(zone) };
        let zone = Zone::named(zone).unwrap();
        let (from, until) = (zone.starts_ms(first), zone.starts_ms(plus_days(first, 400)));
        let due = sessions(RECORD, &series, from, until);

        // By the calendar alone: weeks of seven days from the Monday of the first week.
        let monday = plus_days(first, -(first.weekday().to_monday_zero_offset() as i64));
        let planned: Vec<_> = (0..400 + 7)
            .filter(|day| (day / 7) % i64::from(every_weeks) == 0 && weekdays.contains(&((day % 7) as usize)))
            .map(|day| plus_days(monday, day))
            .filter(|day| *day >= first && *day < plus_days(first, 400))
            .collect();
        prop_assert!(due.iter().map(|session| session.planned.on).collect::<Vec<_>>() == planned);
        prop_assert!(due.windows(2).all(|two| two[0].starts_ms < two[1].starts_ms));
        prop_assert!(due.iter().all(|session| session.at == session.planned.on.to_datetime(start)
            || session.at.duration_since(session.planned.on.to_datetime(start)).as_mins() <= 60));

        let cut = from + cut;
        let halves = [sessions(RECORD, &series, from, cut), sessions(RECORD, &series, cut, until)].concat();
        prop_assert!(halves == due);
    }

    #[test]
    fn every_moment_answers_one_ask(
        zone in prop::sample::select(ZONES),
        first in days(),
        often in prop::collection::btree_set(times(), 1..4),
        every_days in 1u16..9,
        from in 0i64..40,
    ) {
        let times: Vec<Time> = often.into_iter().collect();
        let cadence = Cadence::every_days(every_days, Ask::CheckIn, first, times).zone(zone);
        let zone = Zone::named(zone).unwrap();
        let (start, end) = (zone.starts_ms(first), zone.starts_ms(plus_days(first, 80)));
        let all = due_asks(RECORD, &cadence, start, end);
        prop_assert!(all.windows(2).all(|two| two[0].closes_ms == two[1].opens_ms));
        prop_assert!(all.iter().all(|ask| ask.opens_ms <= ask.due_ms && ask.due_ms <= ask.closes_ms));
        let cut = zone.starts_ms(plus_days(first, from));
        let halves = [due_asks(RECORD, &cadence, start, cut), due_asks(RECORD, &cadence, cut, end)].concat();
        prop_assert!(halves == all);
    }
}
