use jiff::civil::date;
use proptest::{prelude::*, sample::SizeRange};

use super::*;
use crate::{
    clinical::substance::Medicine,
    record::{
        Attendance, CheckIn, Entry, Level, LevelMove, Mode, Record, RecordId, ScreenResult, Specimen, Stamp,
        Unit, Value, Visit, Vitals, Writer,
    },
};

/// A Monday.
const MONDAY: Date = Date::constant(2024, 3, 4);
const NEW_YORK: i16 = -300;
const METHADONE: Medicine = Medicine::Methadone;

/// What a person and a clinic write down, day by day from [`MONDAY`] on.
#[derive(Clone, Default)]
struct Diary(Vec<(Record, Writer)>);

impl Diary {
    fn put(&mut self, by: Writer, at: Moment, entry: Entry) -> &mut Self {
        let stamp = Stamp { recorded: at, author: [0; 16], staff: None };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(self.0.len() as u64 + 1).to_be_bytes());
        let category = entry.body.belongs(by)[0];
        let value = Value::new(&entry.at(at), &stamp);
        let record = Record::new(RecordId::from_bytes(bytes), category, value, String::new(), None, 0);
        self.0.push((record, by));
        self
    }

    fn log(&mut self, day: i64, entry: Entry) -> &mut Self {
        self.put(Writer::Patient, noon(day), entry)
    }

    fn observe(&mut self, day: i64, entry: Entry) -> &mut Self {
        self.put(Writer::Clinic, noon(day), entry)
    }

    fn taken(&mut self, days: impl IntoIterator<Item = i64>) -> &mut Self {
        for day in days {
            self.log(day, Entry::dose("methadone", 60.0, Unit::Mg));
        }
        self
    }

    fn not_taken(&mut self, days: impl IntoIterator<Item = i64>) -> &mut Self {
        for day in days {
            self.log(day, Entry::dose_not_taken("methadone", 60.0, Unit::Mg, None));
        }
        self
    }

    fn moods(&mut self, moods: impl IntoIterator<Item = (i64, u8)>) -> &mut Self {
        for (day, value) in moods {
            self.log(day, mood(value));
        }
        self
    }

    fn chart(&self) -> Chart {
        Chart::of(self.0.iter().map(|(record, by)| (record, *by)))
    }
}

/// Noon in New York.
fn noon(day: i64) -> Moment {
    let millis = (number(MONDAY) + day) * DAY_MS + (12 * 60 - i64::from(NEW_YORK)) * 60_000;
    Moment { millis, offset_minutes: NEW_YORK }
}

fn day(offset: i64) -> Date {
    super::date(number(MONDAY) + offset)
}

fn week() -> Days {
    Days::new(MONDAY, day(6))
}

fn mood(value: u8) -> Entry {
    Entry::check_in(CheckIn { mood: Some(value), ..CheckIn::default() })
}

fn moods(chart: &Chart, days: Days) -> Trend {
    series(chart, &Measure::named("mood"), days)
}

fn weights(chart: &Chart, days: Days) -> Trend {
    series(chart, &Measure::named("weight"), days)
}

fn weight(kg: f32) -> Entry {
    Entry::new(Vitals { weight: Some(kg), ..Vitals::default() })
}

fn numbers(trend: &Trend) -> Vec<Option<f64>> {
    trend.days.iter().map(Day::value).collect()
}

fn near(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-6 * expected.abs().max(1.0)
}

#[test]
fn a_day_is_where_it_was_lived() {
    let mut diary = Diary::default();
    // A quarter to midnight in New York is tomorrow in UTC; a quarter past midnight in Tokyo is yesterday.
    let late = Moment { millis: noon(2).millis + 705 * 60_000, offset_minutes: NEW_YORK };
    let early = Moment { millis: (number(MONDAY) + 5) * DAY_MS - 525 * 60_000, offset_minutes: 540 };
    diary.put(Writer::Patient, late, mood(3)).put(Writer::Patient, early, mood(8));
    let told = numbers(&moods(&diary.chart(), week()));
    assert_eq!(told, [None, None, Some(3.0), None, None, Some(8.0), None]);
}

#[test]
fn gaps_stay_gaps_and_a_day_is_its_median() {
    let mut diary = Diary::default();
    diary.moods([(0, 2), (0, 9), (0, 3), (3, 5), (3, 6), (7, 1)]);
    let trend = moods(&diary.chart(), week());
    assert_eq!(numbers(&trend), [Some(3.0), None, None, Some(5.5), None, None, None]);
    assert_eq!(trend.days[0].told.as_ref().unwrap().readings, [2.0, 9.0, 3.0], "all kept, in their order");
    let dates: Vec<_> = trend.days.iter().map(|day| day.date).collect();
    assert!(dates.into_iter().eq(week().iter()));
}

#[test]
fn a_days_band_is_that_of_its_last_reading() {
    let mut diary = Diary::default();
    diary.log(0, Entry::sows([0; 16])).log(0, Entry::sows([2; 16])).log(1, mood(1));
    let trend = series(&diary.chart(), &Measure::named("sows16"), week());
    let told = trend.days[0].told.as_ref().unwrap();
    assert_eq!((told.value, told.band.as_ref().unwrap().code.as_str()), (16.0, "severe"));
    assert!(trend.days[1].told.is_none());
}

#[test]
fn spans_are_counted_by_the_calendar() {
    let thursday = day(3);
    assert_eq!(Days::week_of(thursday, Weekday::Monday), week());
    assert_eq!(Days::week_of(thursday, Weekday::Thursday).first(), thursday);
    assert_eq!(Days::week_of(thursday, Weekday::Friday).last(), thursday);
    assert_eq!(Days::month_of(thursday), Days::new(date(2024, 3, 1), date(2024, 3, 31)));
    assert_eq!(Days::ending(day(6), 7), week());
    assert_eq!((week().before().last(), week().before().count()), (day(-1), 7));
    let none = Days::new(thursday, MONDAY);
    assert_eq!((none.count(), none.iter().count(), none.before().count()), (0, 0, 0));
    assert_eq!(Days::new(Date::MIN, Date::MAX).count(), DAYS_MAX);
    assert_eq!(Days::ending(Date::MIN, u32::MAX).count(), DAYS_MAX);
}

#[test]
fn a_rolling_median_is_over_readings_and_says_when_there_are_too_few() {
    let mut diary = Diary::default();
    diary.moods([(0, 1), (1, 9), (1, 9), (4, 2)]);
    let rolling = moods(&diary.chart(), week()).rolling_median(3, 2);
    let medians: Vec<_> = rolling.iter().map(|rolling| rolling.median).collect();
    assert_eq!(medians, [None, Some(9.0), Some(9.0), Some(9.0), None, None, None]);
    assert_eq!(rolling[2].readings, 3);
    assert_eq!(rolling[4].readings, 1);
}

#[test]
fn the_slope_of_a_line_is_its_slope_whatever_is_missing() {
    let mut diary = Diary::default();
    for day in [0_u8, 1, 2, 4, 7, 9, 13] {
        diary.log(day.into(), weight(80.0 - f32::from(day) / 2.0));
    }
    let days = Days::new(MONDAY, day(13));
    let slope = weights(&diary.chart(), days).slope(14).unwrap();
    assert!(near(slope.per_week, -3.5));
    assert_eq!(slope.days, 7);
    assert!(weights(&diary.chart(), days).slope(7).is_none(), "3 days are too few");
    diary.log(5, weight(300.0));
    assert!(near(weights(&diary.chart(), days).slope(14).unwrap().per_week, -3.5), "one wild day");
}

#[test]
fn a_change_of_level_is_dated_by_a_day_with_data() {
    let mut diary = Diary::default();
    diary.moods((0..10).map(|day| (day, 3)).chain((14..24).map(|day| (day, 7))));
    let changes = moods(&diary.chart(), Days::new(MONDAY, day(30))).level_changes();
    assert_eq!(changes.len(), 1);
    let LevelChange { on, before, days_before, after, days_after } = changes[0];
    assert_eq!((on, before, days_before, after, days_after), (day(14), 3.0, 10, 7.0, 10));
}

#[test]
fn adherence_has_three_states() {
    let mut diary = Diary::default();
    diary.taken([0, 1, 3]).not_taken([1, 2, 2]);
    let told = adherence(&diary.chart(), &METHADONE, week());
    assert_eq!((told.taken, told.not_taken, told.unknown), (3, 1, 3));
    assert_eq!((told.share(), told.known()), (Some(0.75), Some(4.0 / 7.0)));
    let other = adherence(&diary.chart(), &Medicine::Naltrexone, week());
    assert_eq!((other.unknown, other.share(), other.known()), (7, None, Some(0.0)));
    let states: Vec<_> = dose_days(&diary.chart(), &METHADONE, week()).into_iter().map(|day| day.1).collect();
    assert_eq!(states[1..4], [DoseDay::Taken, DoseDay::NotTaken, DoseDay::Taken]);
}

#[test]
fn gaps_lie_between_first_and_last_record() {
    let mut diary = Diary::default();
    diary.taken([0, 1, 5, 6]).not_taken([3, 9]);
    let gaps = |from, until| -> Vec<_> {
        let gaps = dose_gaps(&diary.chart(), &METHADONE, from, until);
        gaps.iter().map(|gap| (gap.first_day, gap.days, gap.not_taken, gap.unknown)).collect()
    };
    assert_eq!(gaps(None, None), [(day(2), 3, 1, 2), (day(7), 3, 1, 2)]);
    assert_eq!(gaps(None, Some(day(11))), [(day(2), 3, 1, 2), (day(7), 5, 1, 4)]);
    assert_eq!(gaps(Some(day(3)), Some(day(4))), [(day(3), 2, 1, 1)]);
    assert_eq!(gaps(Some(day(-30)), Some(day(1))), [], "before the first record nothing is missing");
    assert!(dose_gaps(&diary.chart(), &Medicine::Naloxone, Some(MONDAY), Some(day(9))).is_empty());
}

#[test]
fn injections_are_so_many_days_apart() {
    let mut diary = Diary::default();
    let injection = || Entry::dose("naltrexone extended-release", 1.0, Unit::Injection);
    let skipped = Entry::dose_not_taken("naltrexone extended-release", 1.0, Unit::Injection, None);
    diary.observe(0, injection()).observe(0, injection()).observe(28, injection());
    diary.observe(56, skipped).observe(63, injection());
    let intervals = dose_intervals(&diary.chart(), &Medicine::NaltrexoneDepot);
    let found: Vec<_> = intervals.iter().map(|between| (between.from, between.until, between.days)).collect();
    assert_eq!(found, [(MONDAY, day(28), 28), (day(28), day(63), 35)]);
}

fn group(attendance: Attendance) -> Visit {
    Visit::new("group", "evening", attendance)
}

fn kept(minutes: u16) -> Visit {
    group(Attendance::Kept).attended(Mode::InPerson, minutes)
}

#[test]
fn sessions_are_counted_with_what_is_not_known() {
    let mut diary = Diary::default();
    for visit in [
        kept(180),
        kept(120),
        group(Attendance::Kept),
        group(Attendance::Missed { reason: None }),
        group(Attendance::Unknown),
    ] {
        diary.observe(1, Entry::new(visit));
    }
    diary.observe(7, Entry::new(kept(60)));
    let told = attended_on(&diary.chart(), week());
    let expected = Attended { kept: 3, missed: 1, unknown: 1, minutes: 300, of_unknown_length: 1 };
    assert!(told == expected && told.sessions() == 5);
    let by_moments = attended(&diary.chart(), noon(1).millis, noon(7).millis);
    assert!(by_moments == expected, "until is not within");
    for (minutes, unknown, hours) in [
        (539, 0, Hours::Below),
        (539, 1, Hours::Unknown),
        (540, 1, Hours::Within),
        (1_199, 0, Hours::Within),
        (1_200, 0, Hours::Above),
    ] {
        let told = Attended { minutes, unknown, ..Attended::default() };
        assert_eq!(told.against(9.0, 20.0), hours, "{minutes} {unknown}");
    }
}

#[test]
fn a_session_of_the_plan_counts_once() {
    let series = RecordId::from_bytes([9; 16]);
    let of = |visit: Visit| Entry::new(visit.of(series, MONDAY));
    let mut diary = Diary::default();
    diary.log(0, of(kept(200))).observe(0, of(group(Attendance::Unknown)));
    let told = attended_on(&diary.chart(), week());
    assert!(told == Attended { kept: 1, minutes: 200, ..Attended::default() }, "what is known counts");
    diary.observe(1, of(kept(180))).log(2, of(kept(240)));
    let told = attended_on(&diary.chart(), week());
    assert!(told == Attended { kept: 1, minutes: 180, ..Attended::default() }, "the care team's word counts");
    diary.log(0, Entry::new(kept(60).of(series, day(1))));
    assert_eq!(attended_on(&diary.chart(), week()).sessions(), 2, "another day's is another");
}

#[test]
fn no_record_of_a_use_says_nothing() {
    let mut diary = Diary::default();
    let none = since_use(&diary.chart(), Used::Any, noon(9));
    assert_eq!((none.last_told, none.days, none.last_found), (None, None, None));
    let screen = |substance: &str, result| Entry::drug_screen(Specimen::Urine, substance, result);
    diary.log(0, Entry::use_event("heroin")).log(2, Entry::use_event("alcohol"));
    diary.observe(1, screen("fentanyl", ScreenResult::Positive));
    diary.observe(3, screen("cocaine", ScreenResult::Positive));
    diary.observe(4, screen("buprenorphine", ScreenResult::Positive));
    diary.observe(4, screen("opioid", ScreenResult::Negative));
    diary.log(12, Entry::use_event("heroin"));
    let any = since_use(&diary.chart(), Used::Any, noon(9));
    assert_eq!((any.last_told, any.days, any.last_found), (Some(day(2)), Some(7), Some(day(3))));
    let opioid = since_use(&diary.chart(), Used::Opioid, noon(9));
    assert_eq!((opioid.last_told, opioid.days, opioid.last_found), (Some(MONDAY), Some(9), Some(day(1))));
    assert_eq!(use_days(&diary.chart(), Used::Any, week()), 2);
}

#[test]
fn retention_counts_from_the_last_admission() {
    let step = |to| Entry::new(LevelMove::to(to, "as agreed").decided_by("Dr. Ito"));
    let mut diary = Diary::default();
    assert!(retention(&diary.chart(), noon(0)).is_none());
    diary.observe(0, step(Level::Detox)).observe(5, step(Level::IntensiveOutpatient));
    diary.observe(10, step(Level::Discharged)).observe(40, step(Level::Outpatient));
    diary.log(3, mood(4)).observe(7, Entry::new(kept(60)));
    diary.observe(8, Entry::new(group(Attendance::Missed { reason: None })));
    let told = |now| {
        let told = retention(&diary.chart(), noon(now)).unwrap();
        (told.admitted, told.discharged, told.days, told.last_logged, told.last_seen)
    };
    assert_eq!(told(2), (MONDAY, None, 2, None, None));
    assert_eq!(told(9), (MONDAY, None, 9, Some(day(3)), Some(day(7))));
    assert_eq!(told(30), (MONDAY, Some(day(10)), 10, Some(day(3)), Some(day(7))));
    assert_eq!(told(45), (day(40), None, 5, Some(day(3)), Some(day(7))));
}

/// A week with something of everything, and one before it.
fn told_week() -> Chart {
    let mut diary = Diary::default();
    diary.moods([(-3, 3), (0, 4), (1, 6), (1, 8), (2, 5)]).taken([0, 1, 3]).not_taken([2]);
    diary.observe(1, Entry::new(kept(180))).observe(2, Entry::new(group(Attendance::Unknown)));
    diary.observe(3, Entry::new(group(Attendance::Missed { reason: None })));
    diary.log(4, Entry::use_event("heroin")).log(5, Entry::sows([1; 16]));
    diary.chart()
}

#[test]
fn a_summary_says_on_what_it_rests() {
    let told = summary(&told_week(), week());
    let mood = told.measures.iter().find(|told| told.measure.name() == "mood").unwrap();
    assert_eq!((mood.readings, mood.days, mood.median), (4, 3, 5.5));
    assert_eq!((mood.lowest, mood.highest, mood.change()), (4.0, 8.0, Some(2.5)));
    assert_eq!((mood.title("en"), mood.title("es-MX")), ("Mood", "Ánimo"));
    assert_eq!((told.check_in_days, told.logged_days, told.use_days), (3, 6, 1));
    assert_eq!(
        told.sentences("en"),
        [
            "2024-03-04 to 2024-03-10, 7 days.",
            "Check-ins on 3 of 7 days.",
            "Mood: 5.5 in the middle, from 4 to 8 (4 readings on 3 days). The 7 days before: 3 (1 reading).",
            "Withdrawal as felt (SOWS): 16 (1 reading).",
            "Methadone: taken on 3 days, not taken on 1 day, 3 days without a record.",
            "Sessions: 1 attended (180 minutes), 1 not attended, 1 not known.",
            "Use recorded on 1 of 7 days.",
        ]
    );
    assert_eq!(
        told.sentences("es")[2..5],
        [
            "Ánimo: 5.5 en el medio, de 4 a 8 (4 registros en 3 días). En 7 días antes: 3 (1 registro).",
            "Abstinencia como se siente (SOWS): 16 (1 registro).",
            "Metadona: tomada en 3 días, no tomada en 1 día, 3 días sin registro.",
        ]
    );
}

#[test]
fn nothing_is_claimed_where_nobody_told() {
    let nothing = summary(&Chart::default(), week());
    assert_eq!(
        nothing.sentences("en")[1..],
        [
            "No check-ins in these days.",
            "No doses recorded in these days.",
            "No sessions recorded in these days.",
            "No use recorded; what was not recorded is left open.",
        ]
    );
    for language in ["en", "es"] {
        for sentence in &nothing.sentences(language)[1..] {
            assert!(!sentence.contains(|c: char| c.is_ascii_digit()), "{sentence}");
        }
    }
}

#[test]
fn nobody_is_judged() {
    const JUDGING: &[&str] = &[
        "relapse",
        "addict",
        "abuse",
        "dirty",
        "clean",
        "fail",
        "non-complian",
        "noncomplian",
        "streak",
        "recaída",
        "adict",
        "abus",
        "sucio",
        "limpi",
        "fracas",
        "incumpl",
        "fall",
    ];
    let mut diary = Diary::default();
    for instrument in crate::clinical::instrument::Instruments::shipped().iter() {
        let answers = instrument.items.iter().map(|item| {
            let worst = item.answer.values().max().unwrap();
            (item.id.clone(), worst)
        });
        let entry = Entry::answers(instrument.id.clone(), answers);
        diary.put(Writer::Clinic, noon(1), entry);
    }
    let full = summary(&diary.chart(), week());
    assert!(full.measures.len() > 10, "most scales have a total");
    for told in [full, summary(&told_week(), week()), summary(&Chart::default(), week())] {
        for sentence in [told.sentences("en"), told.sentences("es")].concat() {
            let lower = sentence.to_lowercase();
            assert_eq!(JUDGING.iter().find(|word| lower.contains(**word)), None, "{sentence}");
        }
    }
}

#[test]
fn figures_stay_out_of_logs() {
    let chart = told_week();
    let told = summary(&chart, week());
    let trend = moods(&chart, week());
    let shown = format!("{told:?} {:?} {trend:?} {:?}", told.measures, trend.days);
    assert!(!shown.contains(|c: char| c.is_ascii_digit()), "{shown}");
}

/// What a diary may hold: a day and a number that says what.
fn events(count: impl Into<SizeRange>) -> impl Strategy<Value = Vec<(i64, u8, u8)>> {
    prop::collection::vec((0_i64..21, 0_u8..9, 0_u8..=10), count)
}

fn diary_of(events: &[(i64, u8, u8)]) -> Diary {
    let mut diary = Diary::default();
    let series = RecordId::from_bytes([9; 16]);
    for &(on, what, value) in events {
        match what {
            0 | 1 => diary.moods([(on, value)]),
            2 => diary.taken([on]),
            3 => diary.not_taken([on]),
            4 => diary.log(on, Entry::use_event("heroin")),
            5 => diary.observe(on, Entry::new(kept(u16::from(value) + 30).of(series, day(on)))),
            6 => diary.log(on, Entry::new(group(Attendance::Unknown).of(series, day(on)))),
            7 => diary.log(on, Entry::sows([value % 5; 16])),
            _ => diary.observe(on, Entry::drug_screen(Specimen::Urine, "opioid", ScreenResult::Positive)),
        };
    }
    diary
}

fn three_weeks() -> Days {
    Days::new(MONDAY, day(20))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn order_of_arrival_changes_nothing(events in events(0..40), order in any::<prop::sample::Index>(), seed: u64) {
        let diary = diary_of(&events);
        let mut shuffled = diary.clone();
        shuffled.0.sort_by_key(|(record, _)| {
            let bytes = u64::from_be_bytes(record.id.as_bytes()[..8].try_into().unwrap());
            bytes.wrapping_mul(seed | 1).rotate_left(17)
        });
        // A record that comes again says the same again.
        if !shuffled.0.is_empty() {
            let again = shuffled.0[order.index(shuffled.0.len())].clone();
            shuffled.0.push(again);
        }
        let (one, other) = (diary.chart(), shuffled.chart());
        let days = three_weeks();
        for name in ["mood", "sows16"] {
            let [one, other] = [&one, &other].map(|chart| series(chart, &Measure::named(name), days));
            prop_assert!(one == other);
            prop_assert!(one.rolling_median(7, 3) == other.rolling_median(7, 3));
            prop_assert!(one.slope(21) == other.slope(21));
            prop_assert!(one.level_changes() == other.level_changes());
        }
        prop_assert!(summary(&one, days) == summary(&other, days));
        prop_assert!(dose_gaps(&one, &METHADONE, None, None) == dose_gaps(&other, &METHADONE, None, None));
        prop_assert!(since_use(&one, Used::Any, noon(20)) == since_use(&other, Used::Any, noon(20)));
    }

    #[test]
    fn days_without_data_are_gaps_and_medians_lie_between(events in events(0..40)) {
        let chart = diary_of(&events).chart();
        let trend = moods(&chart, three_weeks());
        for (offset, told) in (0..).zip(&trend.days) {
            let said: Vec<_> = events.iter().filter(|(on, what, _)| *on == offset && *what < 2).collect();
            prop_assert_eq!(told.told.is_none(), said.is_empty());
            if let Some(value) = told.value() {
                let values = said.iter().map(|(.., value)| f64::from(*value));
                prop_assert!(values.clone().any(|low| low <= value) && values.clone().any(|high| high >= value));
            }
        }
        for rolling in trend.rolling_median(7, 1) {
            prop_assert_eq!(rolling.median.is_none(), rolling.readings == 0);
            prop_assert!(rolling.median.is_none_or(|median| (0.0..=10.0).contains(&median)));
        }
    }

    #[test]
    fn unknown_days_never_worsen_adherence(events in events(0..40), more in 0_i64..300) {
        let chart = diary_of(&events).chart();
        let (short, long) = (three_weeks(), Days::new(day(-more), day(20 + more)));
        let [told, longer] = [short, long].map(|days| adherence(&chart, &METHADONE, days));
        prop_assert_eq!(told.share(), longer.share());
        prop_assert!((told.taken, told.not_taken) == (longer.taken, longer.not_taken));
        prop_assert_eq!(told.days(), 21);
    }

    #[test]
    fn gaps_hold_each_day_without_a_dose_once(events in events(0..40)) {
        let chart = diary_of(&events).chart();
        let gaps = dose_gaps(&chart, &METHADONE, None, None);
        let told: Vec<_> = chart.doses(&METHADONE).iter().map(|dose| day_of(dose.at)).collect();
        let days = told.first().zip(told.last()).map_or(Days::ending(MONDAY, 0), |(a, b)| Days::new(*a, *b));
        let states = dose_days(&chart, &METHADONE, days);
        let without: Vec<_> = states.iter().filter(|day| day.1 != DoseDay::Taken).map(|day| day.0).collect();
        let listed: Vec<_> = gaps
            .iter()
            .flat_map(|gap| Days::ending(super::date(number(gap.first_day) + i64::from(gap.days) - 1), gap.days).iter())
            .collect();
        prop_assert_eq!(without, listed);
        prop_assert!(gaps.iter().all(|gap| gap.days == gap.not_taken + gap.unknown));
        let apart = gaps.windows(2).all(|pair| {
            number(pair[0].first_day) + i64::from(pair[0].days) < number(pair[1].first_day)
        });
        prop_assert!(apart, "runs are as long as they can be");
    }

    #[test]
    fn shifted_values_shift_medians(values in prop::collection::vec((0_i64..40, -500_i16..500), 0..60), by in -50_i16..50) {
        let chart = |by: i16| {
            let mut diary = Diary::default();
            for (on, value) in &values {
                diary.log(*on, weight(f32::from(value + by)));
            }
            diary.chart()
        };
        let days = Days::new(MONDAY, day(39));
        let [base, moved] = [0, by].map(|by| weights(&chart(by), days));
        let by = f64::from(by);
        for (one, other) in base.rolling_median(7, 1).iter().zip(moved.rolling_median(7, 1)) {
            prop_assert_eq!(one.median.map(|median| median + by), other.median);
        }
        prop_assert_eq!(base.slope(40).map(|slope| slope.per_week), moved.slope(40).map(|slope| slope.per_week));
        let [base, moved] = [base, moved].map(|trend| trend.level_changes());
        prop_assert_eq!(base.len(), moved.len());
        for (one, other) in base.iter().zip(&moved) {
            prop_assert!(one.on == other.on && one.before + by == other.before);
        }
    }

    #[test]
    fn no_records_break_it(
        values in prop::collection::vec((any::<i64>(), any::<i16>(), any::<f32>()), 0..30),
        window: u16, fewest: usize, days in any::<(i32, u32)>(),
    ) {
        let mut diary = Diary::default();
        for (millis, offset_minutes, value) in values {
            let at = Moment { millis, offset_minutes };
            diary.put(Writer::Patient, at, weight(value));
            diary.put(Writer::Patient, at, Entry::dose("methadone", 1.0, Unit::Mg));
            diary.put(Writer::Patient, at, Entry::use_event("heroin"));
            diary.put(Writer::Clinic, at, Entry::new(kept(60)));
        }
        let chart = diary.chart();
        let days = Days::ending(super::date(days.0.into()), days.1 % 1_000);
        let trend = weights(&chart, days);
        let (_, _, _) = (trend.rolling_median(window, fewest), trend.slope(window), trend.level_changes());
        let (_, _) = (summary(&chart, days).sentences("en"), dose_intervals(&chart, &METHADONE));
        for now in [i64::MIN, 0, i64::MAX] {
            let now = Moment { millis: now, offset_minutes: i16::MIN };
            let (_, _) = (since_use(&chart, Used::Any, now), retention(&chart, now));
        }
        prop_assert!(dose_gaps(&chart, &METHADONE, None, None).len() <= 30);
    }
}

/// What a plain script counts over the trial's rows: days between the first and the last dose, in runs.
#[test]
fn gaps_are_those_of_the_trial() {
    // Person 817: their rows' days.
    let mut diary = Diary::default();
    diary.taken([3, 4, 5, 8, 9, 10, 11, 14, 15, 16, 17, 21, 22]);
    let gaps = dose_gaps(&diary.chart(), &METHADONE, None, None);
    let found: Vec<_> = gaps.iter().map(|gap| (gap.first_day, gap.days, gap.unknown)).collect();
    assert_eq!(found, [(day(6), 2, 2), (day(12), 2, 2), (day(18), 3, 3)]);
}
