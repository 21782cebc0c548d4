//! How things go: figures that anybody can derive by hand from the records, each with its formula.
//!
//! A day is the day on the wall's calendar where it was lived: a moment's milliseconds and its own offset. A
//! day of which nothing was told is a gap: it is shown as one, never as 0, and nothing is put in its place.
//! Every figure says on how many days it rests. No figure depends on the order in which records came.

use std::{collections::BTreeMap, fmt};

use jiff::{SignedDuration, civil::Date};

use super::chart::{BandName, Chart, Measure, Point, Reading, Series};
use crate::record::{Moment, Weekday};

pub use self::{
    change::{CHANGE_DAYS_MAX, LevelChange, SEGMENT_DAYS_MIN},
    course::{
        Attended, Hours, Retention, SinceUse, Used, attended, attended_on, retention, since_use, use_days,
    },
    doses::{Adherence, DoseDay, Gap, Interval, adherence, dose_days, dose_gaps, dose_intervals},
    summary::{Before, MeasureSummary, Summary, summary},
};

/// Implements `Debug` so that it shows nothing: contents stay out of logs.
macro_rules! unshown {
    ($($name:ident),+ $(,)?) => {$(
        /// Shows nothing: contents stay out of logs.
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )+};
}

mod change;
mod course;
mod doses;
mod summary;
mod words;

/// Most days of a span, a hundred years: records are of fewer ([`crate::record::OCCURRED_MILLIS_MIN`]), and a
/// slip of the pen in a date must not fill the memory.
pub const DAYS_MAX: u32 = 36_600;

/// Fewest days with data that have a slope.
pub const SLOPE_DAYS_MIN: usize = 5;

/// Most days with data from which a slope is taken, the latest ones: its pairs grow with the square.
pub const SLOPE_DAYS_MAX: usize = 366;

const DAY_ZERO: Date = Date::constant(1970, 1, 1);

const DAY_MS: i64 = 86_400_000;

/// How far a day as lived may lie from the same day in UTC: as far as an offset can say.
const OFFSET_MS_MAX: i64 = (i16::MAX as i64 + 1) * 60_000;

/// Some days in a row, as they were lived; the first and the last are among them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Days {
    /// Counted from 1970-01-01.
    first: i64,
    /// Likewise; one less than `first` where there are none.
    last: i64,
}

/// A measure over some days.
#[derive(Clone, PartialEq)]
pub struct Trend {
    /// What was measured.
    pub measure: Measure,
    /// Every day of the span, the earliest first.
    pub days: Vec<Day>,
}

/// One day of a [`Trend`].
#[derive(Clone, PartialEq)]
pub struct Day {
    /// Which day.
    pub date: Date,
    /// What was measured on it; `None` is a gap.
    pub told: Option<Told>,
}

/// What was measured on a day.
#[derive(Clone, PartialEq)]
pub struct Told {
    /// The median of the day's readings.
    pub value: f64,
    /// Every reading, in the order in which they were taken; at least one.
    pub readings: Vec<f64>,
    /// The band of the day's last reading, where it has one.
    pub band: Option<BandName>,
}

/// A median of the readings of some days that end with this one.
#[derive(Clone, Copy, PartialEq)]
pub struct Rolling {
    /// The last day of the window.
    pub date: Date,
    /// The median of the window's readings; `None` where there are too few.
    pub median: Option<f64>,
    /// How many readings the window holds.
    pub readings: usize,
}

/// How a measure rises or falls.
#[derive(Clone, Copy, PartialEq)]
pub struct Slope {
    /// By how much in seven days, in the unit of the measure; below 0 where it falls.
    pub per_week: f64,
    /// On how many days with data it rests.
    pub days: usize,
}

/// Returns the day on which a moment was lived.
///
/// ```
/// use ebb_core::{clinical::trend, record::Moment};
///
/// // Half past three in the morning in UTC, the evening before in New York.
/// let late = Moment { millis: 1_700_019_000_000, offset_minutes: -300 };
/// assert_eq!(trend::day_of(late).to_string(), "2023-11-14");
/// ```
#[must_use]
pub fn day_of(moment: Moment) -> Date {
    date(number_of(moment))
}

/// Returns a measure day by day.
///
/// A day's value is the median of its readings. Readings that are no numbers are left out.
///
/// ```
/// use ebb_core::{
///     clinical::{chart::{Chart, Measure}, trend::{self, Days}},
///     record::Moment,
/// };
///
/// let today = trend::day_of(Moment { millis: 1_700_000_000_000, offset_minutes: 0 });
/// let week = trend::series(&Chart::default(), &Measure::named("mood"), Days::ending(today, 7));
/// assert_eq!(week.days.len(), 7);
/// assert!(week.days.iter().all(|day| day.told.is_none()), "gaps, not zeroes");
/// ```
#[must_use]
pub fn series(chart: &Chart, measure: &Measure, days: Days) -> Trend {
    let mut told: BTreeMap<i64, Vec<&Point<Reading>>> = BTreeMap::new();
    for (day, point) in lived(chart.readings(measure), days) {
        if point.value.value.is_finite() {
            told.entry(day).or_default().push(point);
        }
    }
    let day = |number| {
        let points: &[&Point<Reading>] = told.get(&number).map_or(&[], Vec::as_slice);
        let readings: Vec<_> = points.iter().map(|point| point.value.value).collect();
        let band = points.last().and_then(|point| point.value.band.clone());
        let told = median(readings.iter().copied()).map(|value| Told { value, readings, band });
        Day { date: date(number), told }
    };
    Trend { measure: measure.clone(), days: days.numbers().map(day).collect() }
}

/// Returns the median: the middle of the numbers in their order, or the mean of the two in the middle.
///
/// What is not a finite number is left out; `None` where nothing is left.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.into_iter().filter(|value| value.is_finite()).collect();
    let middle = values.len() / 2;
    let even = values.len().is_multiple_of(2);
    if values.is_empty() {
        return None;
    }
    let (below, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let upper = *upper;
    let lower = below.iter().copied().max_by(f64::total_cmp).filter(|_| even);
    Some(lower.map_or(upper, |lower| f64::midpoint(lower, upper)))
}

impl Days {
    /// Makes a span of a first and a last day; there are none if the last lies before the first.
    ///
    /// Of more than [`DAYS_MAX`] days, the last so many are taken.
    #[must_use]
    pub fn new(first: Date, last: Date) -> Self {
        Self::numbered(number(first), number(last))
    }

    /// Makes a span of so many days, the given one as its last.
    #[must_use]
    pub fn ending(last: Date, count: u32) -> Self {
        Self::numbered(number(last) - i64::from(count) + 1, number(last))
    }

    /// Makes the week that a day lies in, where weeks begin on a given day.
    #[must_use]
    pub fn week_of(day: Date, starts: Weekday) -> Self {
        let first = (0..7).map(|back| number(day) - back).find(|day| Weekday::of(date(*day)) == starts);
        let first = first.unwrap_or(number(day));
        Self::numbered(first, first + 6)
    }

    /// Makes the month that a day lies in.
    #[must_use]
    pub fn month_of(day: Date) -> Self {
        Self::new(day.first_of_month(), day.last_of_month())
    }

    /// Returns as many days as these, right before them.
    #[must_use]
    pub fn before(self) -> Self {
        let count = self.last - self.first + 1;
        Self::numbered(self.first - count, self.first - 1)
    }

    /// Returns the first day; of no days, the one on which they would begin.
    #[must_use]
    pub fn first(self) -> Date {
        date(self.first)
    }

    /// Returns the last day; of no days, the one before the first.
    #[must_use]
    pub fn last(self) -> Date {
        date(self.last)
    }

    /// Returns how many there are, at most [`DAYS_MAX`].
    #[must_use]
    pub fn count(self) -> u32 {
        u32::try_from(self.last - self.first + 1).unwrap_or(0)
    }

    /// Says whether a day is among them.
    #[must_use]
    pub fn contains(self, day: Date) -> bool {
        self.holds(number(day))
    }

    /// Lists them, the earliest first.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Date> {
        self.numbers().map(date)
    }

    fn numbered(first: i64, last: i64) -> Self {
        let last = last.max(first - 1);
        Self { first: first.max(last - i64::from(DAYS_MAX) + 1), last }
    }

    fn numbers(self) -> impl DoubleEndedIterator<Item = i64> {
        self.first..=self.last
    }

    fn holds(self, day: i64) -> bool {
        (self.first..=self.last).contains(&day)
    }
}

impl Trend {
    /// Returns, for each day, the median of all readings of the `window` days that end with it, where there
    /// are at least `fewest` of them.
    ///
    /// Windows of the first days reach back to the first day of the trend and no further: a trend that
    /// begins `window - 1` days earlier has whole ones.
    #[must_use]
    pub fn rolling_median(&self, window: u16, fewest: usize) -> Vec<Rolling> {
        let window = usize::from(window).max(1);
        let rolling = |last: usize| {
            let days = &self.days[(last + 1).saturating_sub(window)..=last];
            let readings: Vec<_> = days.iter().flat_map(Day::readings).copied().collect();
            let enough = readings.len() >= fewest.max(1);
            let count = readings.len();
            let median = median(readings).filter(|_| enough);
            Rolling { date: days[days.len() - 1].date, median, readings: count }
        };
        (0..self.days.len()).map(rolling).collect()
    }

    /// Returns the slope over the last `window` days, after Theil and Sen: the median of the slopes between
    /// each two days with data, times seven. One wild day hardly moves it.
    ///
    /// `None` with fewer than [`SLOPE_DAYS_MIN`] days of data; of more than [`SLOPE_DAYS_MAX`], the latest
    /// count.
    #[must_use]
    pub fn slope(&self, window: u16) -> Option<Slope> {
        let days = &self.days[self.days.len().saturating_sub(usize::from(window))..];
        let told: Vec<_> = days.iter().filter_map(|day| Some((number(day.date), day.value()?))).collect();
        let told = &told[told.len().saturating_sub(SLOPE_DAYS_MAX)..];
        if told.len() < SLOPE_DAYS_MIN {
            return None;
        }
        let pairs = told.iter().enumerate().flat_map(|(index, later)| {
            told[..index].iter().map(move |earlier| (later.1 - earlier.1) / days_between(earlier.0, later.0))
        });
        median(pairs).map(|per_day| Slope { per_week: per_day * 7.0, days: told.len() })
    }

    /// Lists the days with data, and their values.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = (Date, f64)> {
        self.days.iter().filter_map(|day| Some((day.date, day.value()?)))
    }
}

impl Day {
    /// Returns the day's value; `None` is a gap.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        self.told.as_ref().map(|told| told.value)
    }

    fn readings(&self) -> &[f64] {
        self.told.as_ref().map_or(&[], |told| &told.readings)
    }
}

/// Lists what happened on some days, the earliest first, each with the day on which it was lived.
fn lived<T>(series: &Series<T>, days: Days) -> impl DoubleEndedIterator<Item = (i64, &Point<T>)> {
    let from_ms = days.first.saturating_mul(DAY_MS).saturating_sub(OFFSET_MS_MAX);
    let until_ms = (days.last + 1).saturating_mul(DAY_MS).saturating_add(OFFSET_MS_MAX);
    let near = series.between(from_ms, until_ms).map(|point| (number_of(point.at), point));
    near.filter(move |(day, _)| days.holds(*day))
}

/// The days from the first to the last on which something of a series was lived.
pub(super) fn lived_days<T>(series: &Series<T>) -> Option<Days> {
    // What happened first was lived on the first day, or else soon after, by a clock that is behind.
    let soon_ms = 2 * OFFSET_MS_MAX;
    let first_ms = series.iter().next()?.at.millis;
    let last_ms = series.iter().next_back()?.at.millis;
    let first = series.between(first_ms, first_ms.saturating_add(soon_ms)).map(|point| number_of(point.at));
    let last = series.since(last_ms.saturating_sub(soon_ms)).map(|point| number_of(point.at));
    Some(Days::numbered(first.min()?, last.max()?))
}

/// The number of the day on which something was lived: quicker told than its date.
pub(super) fn number_of(moment: Moment) -> i64 {
    let offset_ms = i64::from(moment.offset_minutes) * 60_000;
    moment.millis.saturating_add(offset_ms).div_euclid(DAY_MS)
}

pub(super) fn number(date: Date) -> i64 {
    date.duration_since(DAY_ZERO).as_hours() / 24
}

/// The day of a number; the first or last that a calendar has, beyond them.
fn date(number: i64) -> Date {
    DAY_ZERO.saturating_add(SignedDuration::from_hours(number.saturating_mul(24)))
}

#[expect(clippy::cast_precision_loss, reason = "a span has at most DAYS_MAX days")]
fn days_between(earlier: i64, later: i64) -> f64 {
    (later - earlier) as f64
}

fn count(many: usize) -> u32 {
    u32::try_from(many).unwrap_or(u32::MAX)
}

unshown!(Trend, Day, Told, Rolling, Slope);

/// Shows the first and the last day.
impl fmt::Debug for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.first(), self.last())
    }
}

#[cfg(test)]
mod tests;
