//! What a care team orders beside medicines: sessions, check-ins, thresholds, questionnaires.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::{Date, Time};
use serde::{Deserialize, Serialize};

use super::body::{Content, check, lines, optional_text, text, zone};
use super::care_plan::count;
use super::regimen::{TIMES_MAX, rising};
use super::{Category, Invalid, Mode, SessionKind, Writer};

/// Names a day of the week.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weekday {
    /// Monday.
    Monday,
    /// Tuesday.
    Tuesday,
    /// Wednesday.
    Wednesday,
    /// Thursday.
    Thursday,
    /// Friday.
    Friday,
    /// Saturday.
    Saturday,
    /// Sunday.
    Sunday,
}

impl Weekday {
    /// Every day of the week.
    pub const ALL: [Self; 7] = [
        Self::Monday,
        Self::Tuesday,
        Self::Wednesday,
        Self::Thursday,
        Self::Friday,
        Self::Saturday,
        Self::Sunday,
    ];

    /// The weekday of a date.
    #[must_use]
    pub fn of(date: Date) -> Self {
        match date.weekday() {
            jiff::civil::Weekday::Monday => Self::Monday,
            jiff::civil::Weekday::Tuesday => Self::Tuesday,
            jiff::civil::Weekday::Wednesday => Self::Wednesday,
            jiff::civil::Weekday::Thursday => Self::Thursday,
            jiff::civil::Weekday::Friday => Self::Friday,
            jiff::civil::Weekday::Saturday => Self::Saturday,
            jiff::civil::Weekday::Sunday => Self::Sunday,
        }
    }
}

/// Sessions that come again: a block of the programme's schedule.
///
/// ```
/// use ebb_core::record::{Entry, Mode, SessionKind, SessionSeries, Weekday, Writer};
/// use jiff::civil::{date, time};
///
/// let (first, days) = (date(2026, 3, 2), [Weekday::Monday, Weekday::Wednesday]);
/// let series = SessionSeries::weekly(SessionKind::Group, "evening group", first, days, time(18, 0, 0, 0), 180)
///     .zone("America/New_York")
///     .mode(Mode::Video)
///     .cancelled([date(2026, 5, 25)]);
/// assert!(Entry::new(series).validate(Writer::Clinic).is_ok());
/// ```
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionSeries {
    /// The kind of session.
    pub session: SessionKind,
    /// What the programme calls it.
    pub title: String,
    /// The clinic's time zone, by its IANA name.
    pub zone: String,
    /// The first day on which there may be a session.
    pub first: Date,
    /// The last one.
    #[serde(default)]
    pub last: Option<Date>,
    /// On which days of the week.
    pub weekdays: Vec<Weekday>,
    /// Every how many weeks, 1 to 52, counted from the week of the first day; weeks begin on Mondays.
    pub every_weeks: u8,
    /// When it begins, by the clock on the clinic's wall.
    pub start: Time,
    /// How many minutes it lasts, 1 to 1440.
    pub minutes: u16,
    /// How people take part.
    pub mode: Mode,
    /// Who leads it.
    #[serde(default)]
    pub led_by: Option<String>,
    /// Days on which there is none.
    #[serde(default)]
    pub cancelled: Vec<Date>,
    /// Days on which it is at another time, each once.
    #[serde(default)]
    pub moved: Vec<MovedSession>,
}

/// A session that was moved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct MovedSession {
    /// The day on which the series has it.
    pub from: Date,
    /// The day to which it was moved.
    pub to: Date,
    /// When it begins there.
    pub start: Time,
}

impl SessionSeries {
    /// Makes a series of every week, in person and without end: what it is called, its first day, its days of the
    /// week, when it begins and how many minutes it lasts.
    ///
    /// The zone is still to be given.
    pub fn weekly(
        session: SessionKind,
        title: impl Into<String>,
        first: Date,
        weekdays: impl IntoIterator<Item = Weekday>,
        start: Time,
        minutes: u16,
    ) -> Self {
        Self {
            session,
            title: title.into(),
            zone: String::new(),
            first,
            last: None,
            weekdays: weekdays.into_iter().collect(),
            every_weeks: 1,
            start,
            minutes,
            mode: Mode::InPerson,
            led_by: None,
            cancelled: Vec::new(),
            moved: Vec::new(),
        }
    }

    /// Says in which time zone its days and times are meant, by its IANA name.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = zone.into();
        self
    }

    /// Says which day is the last.
    #[must_use]
    pub fn last(mut self, last: Date) -> Self {
        self.last = Some(last);
        self
    }

    /// Says every how many weeks it comes.
    #[must_use]
    pub fn every_weeks(mut self, every_weeks: u8) -> Self {
        self.every_weeks = every_weeks;
        self
    }

    /// Says how people take part.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Says who leads it.
    #[must_use]
    pub fn led_by(mut self, led_by: impl Into<String>) -> Self {
        self.led_by = Some(led_by.into());
        self
    }

    /// Says on which days there is none.
    #[must_use]
    pub fn cancelled(mut self, cancelled: impl IntoIterator<Item = Date>) -> Self {
        self.cancelled = cancelled.into_iter().collect();
        self
    }

    /// Says which sessions are at another time.
    #[must_use]
    pub fn moved(mut self, moved: impl IntoIterator<Item = MovedSession>) -> Self {
        self.moved = moved.into_iter().collect();
        self
    }
}

impl Content for SessionSeries {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        text("session", self.session.label())?;
        text("title", &self.title)?;
        zone("zone", &self.zone)?;
        check(self.last.is_none_or(|last| self.first <= last), "last", "not before first")?;
        check(!self.weekdays.is_empty(), "weekdays", "at least one day")?;
        let once = self.weekdays.iter().collect::<BTreeSet<_>>();
        check(once.len() == self.weekdays.len(), "weekdays", "each day once")?;
        check((1..=52).contains(&self.every_weeks), "every_weeks", "1 to 52")?;
        check((1..=1_440).contains(&self.minutes), "minutes", "1 to 1440")?;
        optional_text("led_by", self.led_by.as_deref())?;
        count("cancelled", self.cancelled.len())?;
        count("moved", self.moved.len())?;
        let once = self.moved.iter().map(|moved| moved.from).collect::<BTreeSet<_>>();
        check(once.len() == self.moved.len(), "moved.from", "each day once")
    }
}

/// How often something is asked of the person.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Cadence {
    /// What is asked.
    pub ask: Ask,
    /// The time zone of its days and times, by its IANA name.
    pub zone: String,
    /// The first day.
    pub first: Date,
    /// The last day.
    #[serde(default)]
    pub last: Option<Date>,
    /// Every how many days, 1 to 366, counted from the first.
    pub every_days: u16,
    /// When on such a day, the earliest first.
    pub times: Vec<Time>,
}

/// Names what is asked of the person.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// How the day feels.
    CheckIn,
    /// An instrument, by its id.
    Instrument(String),
}

impl Ask {
    /// Asks for an instrument, by its id.
    pub fn instrument(id: impl Into<String>) -> Self {
        Self::Instrument(id.into())
    }
}

impl Cadence {
    /// Asks every day without end, at times of day, the earliest first.
    ///
    /// The zone is still to be given.
    pub fn daily(ask: Ask, first: Date, times: impl IntoIterator<Item = Time>) -> Self {
        Self::every_days(1, ask, first, times)
    }

    /// Asks every so many days, counted from the first; otherwise as [`Cadence::daily`].
    pub fn every_days(every_days: u16, ask: Ask, first: Date, times: impl IntoIterator<Item = Time>) -> Self {
        let times = times.into_iter().collect();
        Self { ask, zone: String::new(), first, last: None, every_days, times }
    }

    /// Says in which time zone its days and times are meant, by its IANA name.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = zone.into();
        self
    }

    /// Says which day is the last.
    #[must_use]
    pub fn last(mut self, last: Date) -> Self {
        self.last = Some(last);
        self
    }
}

impl Content for Cadence {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        if let Ask::Instrument(id) = &self.ask {
            text("ask", id)?;
        }
        zone("zone", &self.zone)?;
        check(self.last.is_none_or(|last| self.first <= last), "last", "not before first")?;
        check((1..=366).contains(&self.every_days), "every_days", "1 to 366")?;
        let many = (1..=TIMES_MAX).contains(&self.times.len());
        check(many, "times", format_args!("1 to {TIMES_MAX} times of day"))?;
        rising("times", self.times.iter().copied())
    }
}

/// Where the programme wants other thresholds than the rules have by default.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Thresholds {
    /// Values by the parameter's name, such as `R6.total` ([`crate::clinical::rules`] lists them).
    pub values: BTreeMap<String, f64>,
    /// Rules that are not evaluated, by id, such as `R24`.
    pub rules_off: Vec<String>,
    /// Which band table of an instrument counts, by the instrument's id.
    pub bands: BTreeMap<String, String>,
    /// Instruments in use that are off by default, such as `ciwa_b`, whose licence is not confirmed.
    pub instruments_on: Vec<String>,
}

impl Thresholds {
    /// Says which values count, by the parameters' names.
    #[must_use]
    pub fn values<N: Into<String>>(mut self, values: impl IntoIterator<Item = (N, f64)>) -> Self {
        self.values = values.into_iter().map(|(name, value)| (name.into(), value)).collect();
        self
    }

    /// Says which rules are not evaluated.
    #[must_use]
    pub fn rules_off(mut self, rules_off: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.rules_off = lines(rules_off);
        self
    }

    /// Says which band tables count, by the instruments' ids.
    #[must_use]
    pub fn bands<I: Into<String>, T: Into<String>>(
        mut self,
        bands: impl IntoIterator<Item = (I, T)>,
    ) -> Self {
        self.bands = bands.into_iter().map(|(id, table)| (id.into(), table.into())).collect();
        self
    }

    /// Says which instruments are in use that are off by default.
    #[must_use]
    pub fn instruments_on(mut self, instruments_on: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.instruments_on = lines(instruments_on);
        self
    }
}

impl Content for Thresholds {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        count("values", self.values.len())?;
        count("rules_off", self.rules_off.len())?;
        count("bands", self.bands.len())?;
        count("instruments_on", self.instruments_on.len())?;
        let finite = self.values.values().all(|value| value.is_finite());
        check(finite, "values", "numbers")?;
        let names = self.values.keys().chain(self.bands.keys()).chain(self.bands.values());
        let names = names.chain(&self.rules_off).chain(&self.instruments_on);
        names.into_iter().try_for_each(|name| text("thresholds", name))
    }
}

/// An instrument of the programme's own, which travels in the plan.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgrammeInstrument {
    /// The instrument's file, JSON as [`crate::clinical::instrument`] reads it.
    pub json: String,
}

impl Content for ProgrammeInstrument {
    fn belongs(&self, by: Writer) -> &'static [Category] {
        by.of_clinic(&[Category::Plan])
    }

    fn check(&self, _: Writer, _: &str) -> Result<(), Invalid> {
        check(self.json.len() <= 64 * 1_024, "json", "at most 64 KiB")?;
        let refused = crate::clinical::instrument::Instrument::from_json("json", &self.json).err();
        check(refused.is_none(), "json", refused.map_or_else(String::new, |error| error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::{date, time};

    use super::*;
    use crate::record::tests::{refused_by_clinic, refused_by_patient};

    const FIRST: Date = date(2026, 3, 2);

    fn series(weekdays: &[Weekday]) -> SessionSeries {
        let (at, weekdays) = (time(18, 0, 0, 0), weekdays.iter().copied());
        SessionSeries::weekly(SessionKind::Group, "evening group", FIRST, weekdays, at, 180)
    }

    #[test]
    fn a_series_fits_once_its_zone_is_given() {
        assert_eq!(refused_by_clinic(series(&Weekday::ALL)).as_deref(), Some("zone"));
        let none = series(&[]).zone("America/New_York");
        assert_eq!(refused_by_clinic(none).as_deref(), Some("weekdays"));
        let (from, to, start) = (FIRST, date(2026, 3, 3), time(9, 0, 0, 0));
        let told = series(&Weekday::ALL)
            .zone("America/New_York")
            .last(date(2026, 12, 31))
            .every_weeks(2)
            .mode(Mode::Video)
            .led_by("L. Chen")
            .cancelled([date(2026, 7, 4)])
            .moved([MovedSession { from, to, start }]);
        assert_eq!(refused_by_clinic(told.clone()), None);
        assert_eq!(refused_by_patient(told.clone()).as_deref(), Some("kind"));
        assert_eq!(refused_by_clinic(told.every_weeks(0)).as_deref(), Some("every_weeks"));
    }

    #[test]
    fn what_is_asked_fits_once_its_zone_is_given() {
        let nine = [time(9, 0, 0, 0)];
        let asked = || Cadence::every_days(7, Ask::instrument("sows16"), FIRST, nine);
        assert_eq!(refused_by_clinic(asked()).as_deref(), Some("zone"));
        assert_eq!(refused_by_clinic(asked().zone("UTC").last(date(2026, 4, 1))), None);
        let never = Cadence::daily(Ask::CheckIn, FIRST, []).zone("UTC");
        assert_eq!(never.every_days, 1);
        assert_eq!(refused_by_clinic(never).as_deref(), Some("times"));
        let nothing = Cadence::daily(Ask::instrument(""), FIRST, nine).zone("UTC");
        assert_eq!(refused_by_clinic(nothing).as_deref(), Some("ask"));
    }

    #[test]
    fn thresholds_are_numbers_by_name() {
        let own = Thresholds::default()
            .values([("R6.total", 18.5)])
            .rules_off(["R24"])
            .bands([("ciwa_ar", "va")])
            .instruments_on(["ciwa_b"]);
        assert_eq!(own.values["R6.total"], 18.5);
        assert_eq!(own.bands["ciwa_ar"], "va");
        assert_eq!(refused_by_clinic(own.clone()), None);
        let endless = own.clone().values([("R6.total", f64::NAN)]);
        assert_eq!(refused_by_clinic(endless).as_deref(), Some("values"));
        assert_eq!(refused_by_clinic(own.rules_off([""])).as_deref(), Some("thresholds"));
    }
}
