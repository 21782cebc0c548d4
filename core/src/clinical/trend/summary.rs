//! A week or a month, in figures and in sentences.

use std::collections::BTreeSet;

use super::{Adherence, Attended, Days, Used, adherence, attended_on, count, lived, median, use_days, words};
use crate::{
    clinical::{
        chart::{Chart, Measure},
        substance::Medicine,
    },
    record::Writer,
};

/// The numbers of a check-in ([`crate::record::CheckIn`]).
static CHECK_IN: [Measure; 5] = [
    Measure::named("mood"),
    Measure::named("stress"),
    Measure::named("craving"),
    Measure::named("pain"),
    Measure::named("sleep_hours"),
];

/// What is told of some days.
#[derive(Clone, PartialEq)]
pub struct Summary {
    /// The days.
    pub days: Days,
    /// Each measure that was taken on them.
    pub measures: Vec<MeasureSummary>,
    /// Each medicine of which anything is told on them.
    pub doses: Vec<(Medicine, Adherence)>,
    /// Sessions attended, not attended and not known.
    pub sessions: Attended,
    /// On how many days a use was told of; 0 does not say that there was none.
    pub use_days: u32,
    /// On how many days the person said how it goes: mood, stress, craving, pain or sleep.
    pub check_in_days: u32,
    /// On how many days the person logged anything at all.
    pub logged_days: u32,
}

/// What a measure came to.
#[derive(Clone, PartialEq)]
pub struct MeasureSummary {
    /// Which.
    pub measure: Measure,
    /// How many readings there are.
    pub readings: u32,
    /// On how many days.
    pub days: u32,
    /// The median of the readings.
    pub median: f64,
    /// The lowest reading.
    pub lowest: f64,
    /// The highest reading.
    pub highest: f64,
    /// What it was in as many days right before, where there are readings.
    pub before: Option<Before>,
}

/// What a measure came to in as many days right before.
#[derive(Clone, Copy, PartialEq)]
pub struct Before {
    /// The median of the readings.
    pub median: f64,
    /// How many readings there are.
    pub readings: u32,
    /// On how many days.
    pub days: u32,
}

/// Sums up what is told of some days.
#[must_use]
pub fn summary(chart: &Chart, days: Days) -> Summary {
    let measures = chart.readings.keys().filter_map(|measure| MeasureSummary::of(chart, measure, days));
    let doses = chart.doses.keys().map(|medicine| (medicine.clone(), adherence(chart, medicine, days)));
    let logged = lived(&chart.entries, days).map(|(day, _)| day).collect::<BTreeSet<_>>();
    Summary {
        days,
        measures: measures.collect(),
        doses: doses.filter(|(_, told)| told.share().is_some()).collect(),
        sessions: attended_on(chart, days),
        use_days: use_days(chart, Used::Any, days),
        check_in_days: check_in_days(chart, days),
        logged_days: count(logged.len()),
    }
}

impl Summary {
    /// Says it in sentences, in a language by its BCP 47 tag: Spanish (`es`), or else English.
    ///
    /// Nothing is claimed of what nobody told: a week without check-ins is one without check-ins.
    ///
    /// ```
    /// use ebb_core::{
    ///     clinical::{chart::Chart, trend::{self, Days}},
    ///     record::Moment,
    /// };
    ///
    /// let today = trend::day_of(Moment { millis: 1_700_000_000_000, offset_minutes: 0 });
    /// let week = trend::summary(&Chart::default(), Days::ending(today, 7));
    /// assert_eq!(week.sentences("en")[1], "No check-ins in these days.");
    /// assert_eq!(week.sentences("es-US")[1], "Sin anotaciones de cómo va en estos días.");
    /// ```
    #[must_use]
    pub fn sentences(&self, language: &str) -> Vec<String> {
        words::sentences(self, language)
    }
}

impl MeasureSummary {
    /// Returns what people call the measure, in a language by its BCP 47 tag: Spanish (`es`), or else English.
    #[must_use]
    pub fn title(&self, language: &str) -> &str {
        words::measure_name(&self.measure, language)
    }

    /// Returns the median less that of the days before; `None` without readings there.
    #[must_use]
    pub fn change(&self) -> Option<f64> {
        self.before.map(|before| self.median - before.median)
    }

    fn of(chart: &Chart, measure: &Measure, days: Days) -> Option<Self> {
        let (values, told) = readings(chart, measure, days);
        let (earlier, told_before) = readings(chart, measure, days.before());
        let before = median(earlier.iter().copied()).map(|median| Before {
            median,
            readings: count(earlier.len()),
            days: told_before,
        });
        Some(Self {
            measure: measure.clone(),
            readings: count(values.len()),
            days: told,
            median: median(values.iter().copied())?,
            lowest: values.iter().copied().min_by(f64::total_cmp)?,
            highest: values.iter().copied().max_by(f64::total_cmp)?,
            before,
        })
    }
}

/// The readings of some days that are numbers, and how many days have one.
fn readings(chart: &Chart, measure: &Measure, days: Days) -> (Vec<f64>, u32) {
    let told = lived(chart.readings(measure), days).map(|(day, point)| (day, point.value.value));
    let told: Vec<_> = told.filter(|(_, value)| value.is_finite()).collect();
    let on: BTreeSet<_> = told.iter().map(|(day, _)| *day).collect();
    (told.into_iter().map(|(_, value)| value).collect(), count(on.len()))
}

fn check_in_days(chart: &Chart, days: Days) -> u32 {
    let told = CHECK_IN.iter().flat_map(|measure| lived(chart.readings(measure), days));
    let own = told.filter(|(_, point)| point.by == Writer::Patient);
    count(own.map(|(day, _)| day).collect::<BTreeSet<_>>().len())
}

unshown!(Summary, MeasureSummary, Before);
