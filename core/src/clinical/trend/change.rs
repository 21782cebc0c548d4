//! When a level changed.
//!
//! Optimal partitioning (Jackson and others 2005; PELT finds the same by a shorter way): of all ways to cut
//! the days with data into segments, the one whose squared distances from each segment's mean, with a penalty
//! for each cut, add up to the least. It is exact, and a span is short enough for it. The crate `pelt` 0.3.4
//! was tried and not taken: asked to look at every day it answers every input with an error, and asked to
//! look at every fifth it can name no other.

use jiff::civil::Date;

use super::{Trend, median};

/// Fewest days with data on each side of a change: what holds for less is a bad day, or four.
pub const SEGMENT_DAYS_MIN: usize = 5;

/// Most days with data that are looked at, the latest ones, three years of them: work grows with the square.
pub const CHANGE_DAYS_MAX: usize = 1_096;

/// A penalty of this many variances times the logarithm of the number of days, as in the modified Bayesian
/// information criterion (Zhang and Siegmund 2007).
const PENALTY_VARIANCES: f64 = 3.0;

/// How many standard deviations of normal noise its median, and its mean, absolute value is: 1 in this many.
const DEVIATIONS_PER_MEDIAN: f64 = 1.482_602_218_505_602;
const DEVIATIONS_PER_MEAN: f64 = 1.253_314_137_315_500_3;

/// A measure went from one level to another.
#[derive(Clone, Copy, PartialEq)]
pub struct LevelChange {
    /// The first day with data of the new level.
    pub on: Date,
    /// The median of the days before it, back to the change before.
    pub before: f64,
    /// On how many days with data that rests.
    pub days_before: usize,
    /// The median of the days from then on, up to the next change.
    pub after: f64,
    /// On how many days with data that rests.
    pub days_after: usize,
}

impl Trend {
    /// Lists the days on which the level changed, the earliest first.
    ///
    /// Looks at days with data alone, at most the [`CHANGE_DAYS_MAX`] latest, as if they followed one another.
    /// A level lasts [`SEGMENT_DAYS_MIN`] of them or more. A change must save more squared distance than it
    /// costs: 3 times the noise's variance times ln(days). The noise is taken from the differences `d` between
    /// each two neighbours, which a change of level hardly touches: its standard deviation is 1.4826 times the
    /// median of |d|, or 1.2533 times their mean where that median is 0, divided by the root of 2. What leaves
    /// the median as it was is no change.
    #[must_use]
    pub fn level_changes(&self) -> Vec<LevelChange> {
        let told: Vec<_> = self.values().collect();
        let told = &told[told.len().saturating_sub(CHANGE_DAYS_MAX)..];
        let values: Vec<_> = told.iter().map(|(_, value)| *value).collect();
        let Some(penalty) = penalty(&values) else { return Vec::new() };
        let starts = segments(&values, SEGMENT_DAYS_MIN, penalty);
        let ends = starts.iter().copied().skip(1).chain([values.len()]);
        let levels: Vec<_> = starts.iter().copied().zip(ends).collect();
        let change = |pair: &[(usize, usize)]| {
            let (before, after) = (&values[pair[0].0..pair[0].1], &values[pair[1].0..pair[1].1]);
            let (days_before, days_after) = (before.len(), after.len());
            let (before, after) = (median(before.iter().copied())?, median(after.iter().copied())?);
            let changed = before.total_cmp(&after).is_ne();
            let on = told[pair[1].0].0;
            changed.then_some(LevelChange { on, before, days_before, after, days_after })
        };
        levels.windows(2).filter_map(change).collect()
    }
}

/// What a change costs; `None` where nothing ever moved, or what moved cannot be squared.
#[expect(clippy::cast_precision_loss, reason = "at most CHANGE_DAYS_MAX days")]
fn penalty(values: &[f64]) -> Option<f64> {
    let moves: Vec<_> = values.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
    let mean = moves.iter().sum::<f64>() / moves.len() as f64;
    let usual = median(moves.iter().copied())? * DEVIATIONS_PER_MEDIAN;
    let deviation = if usual > 0.0 { usual } else { mean * DEVIATIONS_PER_MEAN };
    // A difference of two days has twice the variance of one.
    let penalty = PENALTY_VARIANCES * deviation * deviation / 2.0 * (values.len() as f64).ln();
    (penalty > 0.0 && penalty.is_finite()).then_some(penalty)
}

/// Where the segments begin whose costs, with a penalty for each, add up to the least; `fewest` values each.
fn segments(values: &[f64], fewest: usize, penalty: f64) -> Vec<usize> {
    // Of what lies before each place: the least cost, and where its last segment begins.
    let mut best: Vec<(f64, usize)> = vec![(f64::INFINITY, 0); values.len() + 1];
    best[0].0 = 0.0;
    for end in fewest..=values.len() {
        let mut segment = Spread::default();
        for begin in (0..end).rev() {
            segment.add(values[begin]);
            let cost = best[begin].0 + segment.squares + penalty;
            if end - begin >= fewest && cost < best[end].0 {
                best[end] = (cost, begin);
            }
        }
    }
    let mut starts = vec![best[values.len()].1];
    while let Some(&end) = starts.last().filter(|end| **end > 0) {
        starts.push(best[end].1);
    }
    starts.reverse();
    starts
}

/// Numbers, by how far they lie apart (Welford 1962: no large sums that cancel).
#[derive(Default)]
struct Spread {
    count: f64,
    mean: f64,
    /// The sum of the squared distances from their mean.
    squares: f64,
}

impl Spread {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let from_old = value - self.mean;
        self.mean += from_old / self.count;
        self.squares += from_old * (value - self.mean);
    }
}

unshown!(LevelChange);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cost(values: &[f64]) -> f64 {
        let mut spread = Spread::default();
        values.iter().for_each(|value| spread.add(*value));
        spread.squares
    }

    fn total(values: &[f64], starts: &[usize], penalty: f64) -> f64 {
        let ends = starts.iter().copied().skip(1).chain([values.len()]);
        starts.iter().zip(ends).map(|(begin, end)| cost(&values[*begin..end]) + penalty).sum()
    }

    /// Every way to cut so many values, as the places where segments begin.
    fn all_cuts(count: usize, fewest: usize) -> impl Iterator<Item = Vec<usize>> {
        (0..1_u32 << (count - 1)).filter_map(move |bits| {
            let cuts = (1..count).filter(|place| bits >> (place - 1) & 1 == 1);
            let starts: Vec<_> = std::iter::once(0).chain(cuts).collect();
            let ends = starts.iter().copied().skip(1).chain([count]);
            starts.iter().zip(ends).all(|(begin, end)| end - begin >= fewest).then_some(starts)
        })
    }

    #[test]
    fn a_step_is_found_where_it_is() {
        let values: Vec<_> = (0..40).map(|day| if day < 17 { 2.0 } else { 8.0 }).collect();
        assert_eq!(segments(&values, SEGMENT_DAYS_MIN, penalty(&values).unwrap()), [0, 17]);
    }

    #[test]
    fn what_never_moves_and_what_is_short_has_no_change() {
        assert_eq!(penalty(&[3.0; 50]), None);
        assert_eq!(penalty(&[3.0]), None);
        assert_eq!(penalty(&[]), None);
        assert_eq!(segments(&[1.0, 9.0, 1.0, 9.0], SEGMENT_DAYS_MIN, 0.1), [0]);
        let three_days = [[2.0; 10].as_slice(), &[9.0; 3], &[2.0; 10]].concat();
        let lasting = segments(&three_days, SEGMENT_DAYS_MIN, 0.1);
        assert!(lasting.windows(2).all(|pair| pair[1] - pair[0] >= SEGMENT_DAYS_MIN));
    }

    #[test]
    fn noise_alone_has_no_change() {
        // Every digit of pi is as likely as another.
        let digits = "31415926535897932384626433832795028841971693993751";
        let values: Vec<_> = digits.bytes().map(|digit| f64::from(digit - b'0')).collect();
        assert_eq!(segments(&values, SEGMENT_DAYS_MIN, penalty(&values).unwrap()), [0]);
    }

    proptest! {
        #[test]
        fn nothing_is_better_than_what_is_found(
            values in prop::collection::vec(0_u8..20, 2..11), fewest in 1_usize..4, penalty in 1_u8..60,
        ) {
            let values: Vec<_> = values.into_iter().map(f64::from).collect();
            let penalty = f64::from(penalty);
            let starts = segments(&values, fewest, penalty);
            let ends = starts.iter().copied().skip(1).chain([values.len()]);
            let long = starts.iter().zip(ends).all(|(begin, end)| end - begin >= fewest);
            prop_assert!(long || values.len() < fewest);
            let found = total(&values, &starts, penalty);
            for cuts in all_cuts(values.len(), fewest) {
                prop_assert!(found <= total(&values, &cuts, penalty) + 1e-9, "{cuts:?}");
            }
        }

        #[test]
        fn no_numbers_break_it(values in prop::collection::vec(any::<f64>(), 0..40)) {
            if let Some(penalty) = penalty(&values) {
                segments(&values, SEGMENT_DAYS_MIN, penalty);
            }
        }
    }
}
