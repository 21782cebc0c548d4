use jiff::civil::{date, time};

use super::*;
use crate::{
    clinical::plan::{
        calendar::{HOUR_MS, Zone},
        schedule::tests::{group, programme},
        tests::{logged, section},
    },
    record::{Body, Entry, Mode, Record, SessionSeries, Weekday},
};

const SERIES: RecordId = RecordId::from_bytes([2; 16]);
/// The Monday of the week that the tests look at, which begins on the Sunday before.
const MONDAY: Date = date(2026, 3, 9);

fn ms(day: Date, hours: i64) -> i64 {
    Zone::named("America/New_York").unwrap().starts_ms(day) + hours * HOUR_MS
}

/// Groups of three hours on Monday, Wednesday and Friday at nine, and these visits.
fn chart(visits: &[(u8, Writer, i64, Visit)]) -> Chart {
    let series = group(date(2026, 3, 1), &[Weekday::Monday, Weekday::Wednesday, Weekday::Friday], 1);
    let mut chart = Chart::default();
    chart.put(&section(1, MONDAY, programme()), Writer::Clinic, None);
    chart.put(&section(2, MONDAY, series), Writer::Clinic, None);
    for (id, by, at_ms, visit) in visits {
        let record: Record = logged(*id, *by, *at_ms, Entry::new(Body::Visit(visit.clone())));
        chart.put(&record, *by, None);
    }
    chart
}

fn kept() -> Visit {
    Visit::new("group", "Morning group", Attendance::Kept)
}

fn missed() -> Visit {
    Visit::new("group", "Morning group", Attendance::Missed { reason: None })
}

/// What became of Monday's, Wednesday's and Friday's group and of what else there was, and who says so.
fn told(chart: &Chart) -> Vec<(Outcome, u8)> {
    let week = Weeks::of(&chart.plan).of_day(MONDAY);
    let all = occasions(chart, week.starts_ms, week.ends_ms);
    let ids = all.iter().map(|one| (one.outcome(), one.visit.map_or(0, |visit| visit.record.as_bytes()[0])));
    ids.collect()
}

use Outcome::{Kept, Missed, Unknown};
use Writer::{Clinic, Patient};

#[test]
fn what_nobody_told_of_is_unknown() {
    assert_eq!(told(&chart(&[])), [(Unknown, 0); 3]);
    let unknown = Visit::new("group", "Morning group", Attendance::Unknown).of(SERIES, MONDAY);
    assert_eq!(
        told(&chart(&[(10, Clinic, ms(MONDAY, 9), unknown.clone())])),
        [(Unknown, 10), (Unknown, 0), (Unknown, 0)]
    );
    let person = (11, Patient, ms(MONDAY, 20), kept().of(SERIES, MONDAY));
    let both = chart(&[(10, Clinic, ms(MONDAY, 9), unknown), person]);
    assert_eq!(told(&both), [(Kept, 11), (Unknown, 0), (Unknown, 0)], "the person knows");
}

#[test]
fn a_visit_belongs_to_the_session_that_it_names() {
    let late = (10, Clinic, ms(plus_days(MONDAY, 12), 9), kept().of(SERIES, plus_days(MONDAY, 2)));
    assert_eq!(
        told(&chart(&[late])),
        [(Unknown, 0), (Kept, 10), (Unknown, 0)],
        "written down ten days later"
    );
    let others = (10, Clinic, ms(MONDAY, 9), kept().of(SERIES, plus_days(MONDAY, 7)));
    assert_eq!(told(&chart(&[others])), [(Unknown, 0); 3], "next Monday's");
    let gone = (10, Clinic, ms(MONDAY, 9), kept().of(SERIES, plus_days(MONDAY, 1)));
    assert_eq!(told(&chart(&[gone]))[0], (Kept, 10), "a day that the series no longer has");
}

#[test]
fn others_belong_to_the_closest_of_their_kind_on_their_day() {
    let evening = (10, Patient, ms(MONDAY, 23), kept());
    assert_eq!(told(&chart(&[evening])), [(Kept, 10), (Unknown, 0), (Unknown, 0)]);
    let tuesday = (10, Patient, ms(plus_days(MONDAY, 1), 9), kept());
    assert_eq!(
        told(&chart(&[tuesday])),
        [(Unknown, 0), (Kept, 10), (Unknown, 0), (Unknown, 0)],
        "outside of the plan"
    );
    let family = (10, Clinic, ms(MONDAY, 9), Visit::new("family", "Family", Attendance::Kept));
    assert_eq!(told(&chart(&[family])).len(), 4, "of another kind");
}

#[test]
fn a_visit_belongs_to_one_session() {
    let visit = Visit::new("group", "Morning group", Attendance::Kept);
    let mut chart = chart(&[(10, Patient, ms(MONDAY, 9), visit)]);
    let evening = SessionSeries { start: time(18, 0, 0, 0), ..group(MONDAY, &[Weekday::Monday], 1) };
    chart.put(&section(3, MONDAY, evening), Clinic, None);
    assert_eq!(told(&chart)[..2], [(Kept, 10), (Unknown, 0)]);
}

#[test]
fn one_session_told_by_both_is_one() {
    let by_name =
        [(10, Clinic, ms(MONDAY, 12), missed().of(SERIES, MONDAY)), (11, Patient, ms(MONDAY, 9), kept())];
    assert_eq!(told(&chart(&by_name))[0], (Missed, 10), "the care team's word counts");
    assert_eq!(told(&chart(&by_name)).len(), 3);
    let tuesday = ms(plus_days(MONDAY, 1), 9);
    let unplanned = [(10, Clinic, tuesday, kept()), (11, Patient, tuesday + 1, kept())];
    assert_eq!(told(&chart(&unplanned)).len(), 4);
    let twice = [
        (10, Clinic, tuesday, kept()),
        (12, Clinic, tuesday + HOUR_MS, kept()),
        (11, Patient, tuesday, kept()),
    ];
    assert_eq!(told(&chart(&twice)).len(), 5, "the care team says that there were two");
    let corrected = [
        (10, Clinic, ms(MONDAY, 9), kept().of(SERIES, MONDAY)),
        (11, Clinic, ms(MONDAY, 10), missed().of(SERIES, MONDAY)),
    ];
    assert_eq!(told(&chart(&corrected))[0], (Missed, 11), "what was written down last");
}

#[test]
fn windows_cut_anywhere_hold_what_one_does() {
    let wednesday = plus_days(MONDAY, 2);
    let chart = chart(&[
        (10, Patient, ms(MONDAY, 23), kept()),
        (11, Clinic, ms(wednesday, 8), kept()),
        (12, Clinic, ms(wednesday, 9), kept()),
        (13, Patient, ms(wednesday, 7), kept()),
    ]);
    let (from, until) = (ms(MONDAY, -24), ms(MONDAY, 144));
    let listed = |from, until| {
        let all = occasions(&chart, from, until);
        all.iter().map(|one| (one.at_ms, one.outcome(), one.records.clone())).collect::<Vec<_>>()
    };
    for cut in (0..168).map(|hours| from + hours * HOUR_MS + 1) {
        assert_eq!([listed(from, cut), listed(cut, until)].concat(), listed(from, until));
    }
}

#[test]
fn a_weeks_hours_are_counted_and_marked() {
    let chart = chart(&[
        (10, Clinic, ms(MONDAY, 9), kept().attended(Mode::InPerson, 150)),
        (11, Patient, ms(plus_days(MONDAY, 1), 9), Visit::new("individual", "Therapy", Attendance::Kept)),
        (12, Clinic, ms(plus_days(MONDAY, 2), 9), missed()),
    ]);
    let weeks = Weeks::of(&chart.plan);
    let week = weeks.of_day(MONDAY);
    let of = |now_ms| WeekHours::of(&chart, &weeks, week, now_ms);
    let thursday = of(ms(plus_days(MONDAY, 3), 0));
    assert_eq!(week.first, plus_days(MONDAY, -1));
    assert_eq!((thursday.scheduled, thursday.attended, thursday.missed), (540, 150, 180));
    assert_eq!((thursday.unknown, thursday.ahead, thursday.unmeasured), (0, 180, 1));
    let sunday = of(week.ends_ms);
    assert_eq!((sunday.unknown, sunday.ahead), (180, 0));
    assert_eq!(
        (sunday.scheduled_mark(), sunday.mark()),
        (HoursMark::Within, HoursMark::Open),
        "one has no length"
    );

    let hours = |attended, unknown| WeekHours { attended, unknown, ahead: 0, unmeasured: 0, ..sunday }.mark();
    assert_eq!(hours(539, 0), HoursMark::Below);
    assert_eq!(hours(539, 1), HoursMark::Open, "unknown is not missed");
    assert_eq!(hours(540, 0), HoursMark::Within);
    assert_eq!(hours(1_199, 60), HoursMark::Within);
    assert_eq!(hours(1_200, 0), HoursMark::AtOrAbove);
}

#[test]
fn without_minutes_a_session_takes_as_long_as_the_plan_says() {
    let chart = chart(&[(10, Patient, ms(MONDAY, 9), kept())]);
    let weeks = Weeks::of(&chart.plan);
    let hours = WeekHours::of(&chart, &weeks, weeks.of_day(MONDAY), ms(MONDAY, 200));
    assert_eq!((hours.attended, hours.unmeasured), (180, 0));
}
