//! What the payer permits: units used by attendance, what is left, and what nothing covers.

use std::{collections::BTreeSet, fmt};

use jiff::civil::Date;

use super::{
    attendance::{Occasion, Outcome, occasions},
    calendar::{Zone, days_between, plus_days},
    schedule::Weeks,
};
use crate::{
    clinical::chart::Chart,
    record::{Authorization, AuthorizationState, ServiceUnit},
};

/// How an authorization stands.
#[derive(Clone, Copy, PartialEq)]
pub struct Usage {
    /// Units used: sessions or days attended, or hours, a minute being a sixtieth.
    pub used: f64,
    /// Sessions attended of which nobody knows how long they took, and which are in no hours.
    pub unmeasured: u32,
    /// Units approved.
    pub approved: Option<u32>,
    /// Units left; below 0 where more were used than approved.
    pub left: Option<f64>,
    /// Days on which it still holds, today among them; 0 once it is over, `None` without a last day.
    pub days_left: Option<i64>,
    /// Days until the concurrent review is due; below 0 once that day is past.
    pub review_in_days: Option<i64>,
}

/// Says how an authorization stands at a moment, in ms since the Unix epoch.
///
/// Sessions count that were attended on its days and are of its kinds; their days are those of the programme's
/// zone. Two authorizations of the same days each count them.
#[must_use]
pub fn usage(chart: &Chart, authorization: &Authorization, now_ms: i64) -> Usage {
    let zone = Weeks::of(&chart.plan).zone;
    let today = zone.day(now_ms);
    let mut units = Units::new(authorization.unit);
    for occasion in attended(chart, authorization, &zone) {
        units.add(&occasion);
    }
    let used = units.used();
    Usage {
        used,
        unmeasured: units.unmeasured,
        approved: authorization.approved,
        left: authorization.approved.map(|approved| f64::from(approved) - used),
        days_left: authorization.until.map(|until| (days_between(today, until) + 1).max(0)),
        review_in_days: authorization.review.map(|review| days_between(today, review)),
    }
}

/// Lists the sessions attended from one moment on and before another that no authorization covers: on none's
/// days, of none's kinds, or after its units were used up.
///
/// A plan without any authorization asks none: nothing is uncovered then. An expired one covers its own days.
#[must_use]
pub fn uncovered_visits(chart: &Chart, from_ms: i64, until_ms: i64) -> Vec<Occasion<'_>> {
    let zone = Weeks::of(&chart.plan).zone;
    if chart.plan.authorizations().next().is_none() {
        return Vec::new();
    }
    let mut covered = BTreeSet::new();
    for section in chart.plan.authorizations().filter(|section| has_covered(section.value.state)) {
        let mut units = Units::new(section.value.unit);
        for occasion in attended(chart, section.value, &zone) {
            units.add(&occasion);
            if section.value.approved.is_none_or(|approved| units.used() <= f64::from(approved)) {
                covered.extend(occasion.records);
            }
        }
    }
    let mut attended = occasions(chart, from_ms, until_ms);
    attended.retain(|one| one.outcome() == Outcome::Kept);
    attended.retain(|one| !one.records.iter().any(|record| covered.contains(record)));
    attended
}

/// Whether it covers its days, now or before it expired.
fn has_covered(state: AuthorizationState) -> bool {
    state.covers() || state == AuthorizationState::Expired
}

/// The sessions attended on an authorization's days and of its kinds, the earliest first.
fn attended<'a>(
    chart: &'a Chart,
    authorization: &Authorization,
    zone: &Zone,
) -> impl Iterator<Item = Occasion<'a>> {
    let days: Option<(Date, Date)> = authorization.from.zip(authorization.until);
    let span = days.map(|(from, until)| (zone.starts_ms(from), zone.starts_ms(plus_days(until, 1))));
    let all = span.map_or_else(Vec::new, |(from_ms, until_ms)| occasions(chart, from_ms, until_ms));
    let kinds = authorization.sessions.clone();
    all.into_iter().filter(move |one| {
        let counts = kinds.is_empty() || one.kind().is_some_and(|kind| kinds.contains(kind));
        counts && one.outcome() == Outcome::Kept
    })
}

/// Units, being counted.
struct Units {
    unit: ServiceUnit,
    sessions: u32,
    days: BTreeSet<Date>,
    minutes: u32,
    unmeasured: u32,
}

impl Units {
    fn new(unit: ServiceUnit) -> Self {
        Self { unit, sessions: 0, days: BTreeSet::new(), minutes: 0, unmeasured: 0 }
    }

    fn add(&mut self, occasion: &Occasion<'_>) {
        self.sessions += 1;
        self.days.insert(occasion.day);
        match occasion.minutes() {
            Some(minutes) => self.minutes += minutes,
            None => self.unmeasured += 1,
        }
    }

    fn used(&self) -> f64 {
        match self.unit {
            ServiceUnit::Session => f64::from(self.sessions),
            #[expect(clippy::cast_precision_loss, reason = "days of a span of at most 100 years")]
            ServiceUnit::Day => self.days.len() as f64,
            ServiceUnit::Hour => f64::from(self.minutes) / 60.0,
        }
    }
}

/// Shows nothing: contents stay out of logs.
impl fmt::Debug for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Usage").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use crate::{
        clinical::plan::{
            calendar::HOUR_MS,
            schedule::tests::programme,
            tests::{logged, section},
        },
        record::{Attendance, Entry, Level, Mode, SessionKind, Visit, Writer},
    };

    const FIRST: Date = date(2026, 3, 2);

    fn asked(unit: ServiceUnit, units: u32) -> Authorization {
        Authorization::draft("Harbour Health", Level::IntensiveOutpatient, unit).requested(units)
    }

    fn approved(unit: ServiceUnit, units: u32) -> Authorization {
        asked(unit, units).approved(FIRST, date(2026, 3, 15)).review(date(2026, 3, 12))
    }

    fn ms(days: i64, hours: i64) -> i64 {
        Zone::named("America/New_York").unwrap().starts_ms(plus_days(FIRST, days)) + hours * HOUR_MS
    }

    /// A chart with an authorization, and visits kept so many days and hours after its first day began.
    fn chart(authorization: Authorization, visits: &[(u8, &str, i64, i64, Option<u16>)]) -> Chart {
        let mut chart = Chart::default();
        chart.put(&section(1, FIRST, programme()), Writer::Clinic, None);
        chart.put(&section(2, FIRST, authorization), Writer::Clinic, None);
        for (id, kind, days, hours, minutes) in visits {
            let visit = Visit::new(*kind, "Session", Attendance::Kept);
            let visit = minutes.map_or(visit.clone(), |minutes| visit.attended(Mode::InPerson, minutes));
            chart.put(
                &logged(*id, Writer::Clinic, ms(*days, *hours), Entry::new(visit)),
                Writer::Clinic,
                None,
            );
        }
        chart
    }

    const VISITS: [(u8, &str, i64, i64, Option<u16>); 6] = [
        (10, "group", -1, 23, Some(60)),
        (11, "group", 0, 0, Some(90)),
        (12, "individual", 0, 10, Some(60)),
        (13, "group", 5, 10, None),
        (14, "group", 13, 22, Some(180)),
        (15, "group", 14, 0, Some(60)),
    ];

    fn of(authorization: Authorization) -> Usage {
        usage(&chart(authorization.clone(), &VISITS), &authorization, ms(9, 12))
    }

    #[test]
    fn units_are_sessions_days_or_hours() {
        let sessions = of(approved(ServiceUnit::Session, 10));
        assert_eq!((sessions.used, sessions.left, sessions.approved), (4.0, Some(6.0), Some(10)));
        assert_eq!(of(approved(ServiceUnit::Day, 2)).left, Some(-1.0), "three days");
        let hours = of(approved(ServiceUnit::Hour, 20));
        assert_eq!((hours.used, hours.unmeasured), (5.5, 1));
        let group = approved(ServiceUnit::Session, 10).sessions([SessionKind::Group]);
        assert_eq!(of(group).used, 3.0);
        let asked = of(asked(ServiceUnit::Day, 1));
        assert_eq!((asked.used, asked.left, asked.days_left), (0.0, None, None));
    }

    #[test]
    fn days_are_counted_in_the_programmes_zone() {
        let authorization = approved(ServiceUnit::Session, 10);
        let days = |at_ms| {
            let usage = usage(&chart(authorization.clone(), &[]), &authorization, at_ms);
            (usage.days_left, usage.review_in_days)
        };
        assert_eq!(days(ms(0, 0)), (Some(14), Some(10)));
        assert_eq!(days(ms(13, 22)), (Some(1), Some(-3)), "the last day");
        assert_eq!(days(ms(14, 0)), (Some(0), Some(-4)));
        assert_eq!(days(ms(99, 0)).0, Some(0));
    }

    #[test]
    fn what_nothing_covers_is_listed() {
        let uncovered = |authorization| {
            let chart = chart(authorization, &VISITS);
            let all = uncovered_visits(&chart, ms(-7, 0), ms(30, 0));
            all.iter().map(|one| one.records[0].as_bytes()[0]).collect::<Vec<_>>()
        };
        let with = |state| Authorization { state, ..approved(ServiceUnit::Session, 10) };
        assert_eq!(uncovered(with(AuthorizationState::Approved)), [10, 15]);
        assert_eq!(uncovered(with(AuthorizationState::Expired)), [10, 15]);
        assert_eq!(uncovered(with(AuthorizationState::Requested)).len(), 6);
        assert_eq!(uncovered(approved(ServiceUnit::Session, 2)), [10, 13, 14, 15], "two were approved");
        assert_eq!(uncovered(approved(ServiceUnit::Day, 1)), [10, 13, 14, 15], "one day with two sessions");
        let group = approved(ServiceUnit::Session, 10).sessions([SessionKind::Group]);
        assert_eq!(uncovered(group), [10, 12, 15]);
        let mut none = chart(approved(ServiceUnit::Session, 1), &VISITS);
        none.remove(&crate::record::RecordId::from_bytes([2; 16]));
        assert!(uncovered_visits(&none, ms(-7, 0), ms(30, 0)).is_empty(), "the plan asks no payer");
    }
}
