//! A week or a month, in sentences and in the numbers of a chart.

use ebb_core::clinical::{
    chart::Chart,
    trend::{self, Days},
};

/// What is told of some days.
#[derive(Clone, PartialEq, uniffi::Record)]
pub struct Summary {
    /// The first day, as `2026-03-08`.
    pub first_day: String,
    /// The last day.
    pub last_day: String,
    /// All of it in sentences, for the person and the care team to read.
    pub sentences: Vec<String>,
    /// Each measure that was taken on these days.
    pub measures: Vec<MeasureSummary>,
}

/// What a measure came to, and what it was each day.
#[derive(Clone, PartialEq, uniffi::Record)]
pub struct MeasureSummary {
    /// Its name in Ebb: an instrument's id, such as `phq9`, an instrument's and a scale's, such as
    /// `bam.risk`, or the field of a check-in or of vital signs, such as `craving`.
    pub measure: String,
    /// Its name for people.
    pub title: String,
    /// How many readings there are.
    pub readings: u32,
    /// The median of the readings.
    pub median: f64,
    /// The lowest reading.
    pub lowest: f64,
    /// The highest reading.
    pub highest: f64,
    /// The median of the readings in as many days right before, where there are any.
    pub median_before: Option<f64>,
    /// One value for each day, from the first to the last: the median of the day's readings. None is a gap,
    /// to be shown as one: never as 0, never as a line from the day before to the day after.
    pub days: Vec<Option<f64>>,
}

impl Summary {
    pub(crate) fn of(chart: &Chart, days: Days, language: &str) -> Self {
        let summary = trend::summary(chart, days);
        let measures = summary.measures.iter().map(|told| MeasureSummary::of(chart, told, days, language));
        Self {
            first_day: days.first().to_string(),
            last_day: days.last().to_string(),
            sentences: summary.sentences(language),
            measures: measures.collect(),
        }
    }
}

impl MeasureSummary {
    fn of(chart: &Chart, told: &trend::MeasureSummary, days: Days, language: &str) -> Self {
        let series = trend::series(chart, &told.measure, days);
        Self {
            measure: told.measure.name().to_owned(),
            title: told.title(language).to_owned(),
            readings: told.readings,
            median: told.median,
            lowest: told.lowest,
            highest: told.highest,
            median_before: told.before.map(|before| before.median),
            days: series.days.iter().map(trend::Day::value).collect(),
        }
    }
}
