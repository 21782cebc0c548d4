//! Tapers: regimens made from where they begin, where they lead and how steep they are.

use jiff::civil::{Date, Time, time};

use super::{
    calendar::plus_days,
    medication::{FALL_DAYS, FALL_PERCENT_MAX, check_regimen},
};
use crate::{
    clinical::plan::Plan,
    record::{
        AMOUNT_MAX, DoseRoute, DoseStep, Invalid, Regimen, STEPS_MAX, TIMES_MAX, TimedDose, Unit, check,
    },
};

/// The least that single doses are multiples of: a thousandth of a milligram.
pub const MULTIPLE_MIN: f64 = 0.001;

/// How much each step takes off.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Fall {
    /// A share of the amount before it, in percent: the steps grow smaller.
    OfCurrent(f64),
    /// A share of the starting amount, in percent: all steps are alike.
    OfStart(f64),
    /// An amount, in the taper's unit.
    Amount(f64),
}

/// Makes a taper.
///
/// No step takes off more than was asked for: what tablets do not allow is rounded up. Only where that would
/// leave the amount as it is does a step take off the least that tablets allow.
///
/// ```
/// use ebb_core::clinical::plan::taper::{Fall, Taper};
/// use ebb_core::record::Unit;
/// use jiff::civil::date;
///
/// let taper = Taper::of("diazepam", Unit::Mg, 20.0, date(2026, 3, 2))
///     .zone("America/New_York")
///     .prescribed_by("Dr. Marsh")
///     .down_to(0.0)
///     .by(Fall::OfCurrent(10.0), 14)
///     .in_multiples_of(0.5);
/// let regimen = taper.regimen().expect("steps that tablets allow");
/// let amounts: Vec<_> = regimen.steps.iter().map(|step| step.day_amount()).collect();
/// assert_eq!(amounts[..4], [20.0, 18.0, 16.5, 15.0]);
/// assert_eq!(amounts.last(), Some(&2.0));
/// assert_eq!(regimen.until, Some(date(2027, 1, 31)));
/// ```
#[derive(Clone)]
pub struct Taper {
    regimen: Regimen,
    from: Date,
    start: f64,
    end: f64,
    fall: Fall,
    days: u16,
    multiple: f64,
    times: Vec<Time>,
}

impl Taper {
    /// Begins with an amount a day from one day on; as it is, it is swallowed once a day, at 8, and takes off
    /// 10 % of the present amount every 14 days until nothing is left.
    ///
    /// Zone and prescriber are still to be given.
    #[must_use]
    pub fn of(drug: impl Into<String>, unit: Unit, start: f64, from: Date) -> Self {
        let regimen = Regimen::scheduled(drug, DoseRoute::Oral, unit, []).tapering();
        let (fall, times) = (Fall::OfCurrent(10.0), vec![time(8, 0, 0, 0)]);
        Self { regimen, from, start, end: 0.0, fall, days: 14, multiple: MULTIPLE_MIN, times }
    }

    /// Names the product.
    #[must_use]
    pub fn product(mut self, product: impl Into<String>) -> Self {
        self.regimen.product = Some(product.into());
        self
    }

    /// Gives the RxNorm concept.
    #[must_use]
    pub fn rxnorm(mut self, concept: impl Into<String>) -> Self {
        self.regimen.rxnorm = Some(concept.into());
        self
    }

    /// Says how it enters the body.
    #[must_use]
    pub fn route(mut self, route: DoseRoute) -> Self {
        self.regimen.route = route;
        self
    }

    /// Says in which time zone days and times are meant, by its IANA name.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.regimen.zone = zone.into();
        self
    }

    /// Says who prescribes it.
    #[must_use]
    pub fn prescribed_by(mut self, prescriber: impl Into<String>) -> Self {
        self.regimen.prescriber = prescriber.into();
        self
    }

    /// Says which amount a day is the last, and taken until further notice; 0 means that it ends.
    ///
    /// Towards 0, steps of a share of the present amount would never arrive. They end once what is left is no
    /// more than that share of the starting amount.
    #[must_use]
    pub fn down_to(mut self, end: f64) -> Self {
        self.end = end;
        self
    }

    /// Says how much each step takes off, and how many days it lasts.
    #[must_use]
    pub fn by(mut self, fall: Fall, days: u16) -> Self {
        (self.fall, self.days) = (fall, days);
        self
    }

    /// Says of what each single dose is a multiple, such as half a tablet's content.
    #[must_use]
    pub fn in_multiples_of(mut self, amount: f64) -> Self {
        self.multiple = amount;
        self
    }

    /// Says when on a day it is taken, the earliest first; what cannot be shared evenly goes to the earlier
    /// times.
    #[must_use]
    pub fn at(mut self, times: impl IntoIterator<Item = Time>) -> Self {
        self.times = times.into_iter().collect();
        self
    }

    /// Gives the reason for which it may be steeper than R13 allows.
    #[must_use]
    pub fn although(mut self, reason: impl Into<String>) -> Self {
        self.regimen.override_reason = Some(reason.into());
        self
    }

    /// Makes the regimen.
    ///
    /// # Errors
    ///
    /// A value does not fit, more than [`STEPS_MAX`] steps would be needed, or a benzodiazepine would fall too
    /// steeply: what one multiple takes off may be too much of a small amount.
    pub fn regimen(&self) -> Result<Regimen, Invalid> {
        let counts = self.counts()?;
        let mut regimen = self.regimen.clone();
        let days = i64::from(self.days);
        let mut from = self.from;
        for count in counts {
            regimen.steps.push(DoseStep { from, every_days: 1, doses: self.doses(count) });
            check(plus_days(from, days) < Date::MAX, "from", "a day long before the year 9999")?;
            from = plus_days(from, days);
        }
        if self.end == 0.0 {
            regimen.until = Some(plus_days(from, -1));
        }
        check_regimen(&regimen, &Plan::default(), None).map_err(|invalid| match &*invalid.field {
            "steps.doses.amount" => Invalid {
                field: "step".into(),
                allowed: format!(
                    "in such multiples and so many days apart that no {FALL_DAYS} days take off more than \
                     {FALL_PERCENT_MAX} %, unless override_reason says why"
                ),
            },
            _ => invalid,
        })?;
        Ok(regimen)
    }

    /// The amounts of the steps, in multiples.
    fn counts(&self) -> Result<Vec<u64>, Invalid> {
        let fits = (MULTIPLE_MIN..=AMOUNT_MAX).contains(&self.multiple);
        check(fits, "multiple", format_args!("{MULTIPLE_MIN} to {AMOUNT_MAX}"))?;
        let fits = self.start > 0.0 && self.start <= AMOUNT_MAX;
        check(fits, "start", format_args!("more than 0, at most {AMOUNT_MAX}"))?;
        check((0.0..self.start).contains(&self.end), "end", "at least 0 and less than start")?;
        let start = self.count("start", self.start)?;
        let end = self.count("end", self.end)?;
        check((1..=366).contains(&self.days), "days", "1 to 366")?;
        let times = (1..=TIMES_MAX).contains(&self.times.len());
        check(times, "times", format_args!("1 to {TIMES_MAX} times of day"))?;
        let rising = self.times.is_sorted_by(|earlier, later| earlier < later);
        check(rising, "times", "times of day, each once, the earliest first")?;
        let (Fall::OfCurrent(size) | Fall::OfStart(size) | Fall::Amount(size)) = self.fall;
        match self.fall {
            Fall::OfCurrent(_) | Fall::OfStart(_) => {
                check(size > 0.0 && size < 100.0, "step", "more than 0, less than 100 percent")?;
            }
            Fall::Amount(_) => {
                check(size > 0.0 && size <= self.start, "step", "more than 0, at most the start")?;
            }
        }

        let mut counts = vec![start];
        let mut current = start;
        while let Some(next) = self.after(current, start, end) {
            check(counts.len() < STEPS_MAX, "step", format_args!("enough for at most {STEPS_MAX} steps"))?;
            counts.push(next);
            current = next;
        }
        Ok(counts)
    }

    /// The amount of the next step, in multiples; `None` after the last one.
    #[expect(clippy::cast_precision_loss, reason = "amounts are at most 10^8 multiples")]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the current amount, which is such a count"
    )]
    fn after(&self, current: u64, start: u64, end: u64) -> Option<u64> {
        let (now, whole) = (current as f64, start as f64);
        let (fall, stops) = match self.fall {
            Fall::OfCurrent(percent) => (now * percent / 100.0, now <= whole * percent / 100.0 * NEARLY),
            Fall::OfStart(percent) => (whole * percent / 100.0, false),
            Fall::Amount(amount) => (amount / self.multiple, false),
        };
        if current == end || end == 0 && stops {
            return None;
        }
        // Rounded up, so that no step is steeper than asked; what a division adds is no more to take.
        let next = ((now - fall).max(0.0) / NEARLY).ceil() as u64;
        let next = next.min(current - 1).max(end);
        (next > 0).then_some(next)
    }

    /// How many multiples an amount is.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be 0 or more, and at most 10^8"
    )]
    fn count(&self, field: &'static str, amount: f64) -> Result<u64, Invalid> {
        let count = (amount / self.multiple).round();
        let even = (count * self.multiple - amount).abs() <= 1e-9 * amount.max(self.multiple);
        check(even, field, format_args!("a multiple of {}", self.multiple))?;
        Ok(count as u64)
    }

    /// Shares a day's amount among its times.
    fn doses(&self, count: u64) -> Vec<TimedDose> {
        let times = self.times.len() as u64;
        let share = |place: u64| count / times + u64::from(place < count % times);
        let doses = self.times.iter().zip(0..).map(|(at, place)| (*at, share(place)));
        doses.filter(|(_, share)| *share > 0).map(|(at, share)| self.dose(at, share)).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "amounts are at most 10^8 multiples")]
    fn dose(&self, at: Time, count: u64) -> TimedDose {
        // 3 times 0.1 is to be 0.3, not 0.30000000000000004.
        let amount = (count as f64 * self.multiple * 1e6).round() / 1e6;
        TimedDose { at, amount }
    }
}

/// What a division may take from a whole number.
const NEARLY: f64 = 1.0 + 1e-12;

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;
    use crate::clinical::plan::medication::{steepest_fall_in, steepest_step};

    fn diazepam(start: f64) -> Taper {
        Taper::of("diazepam", Unit::Mg, start, date(2026, 3, 2))
            .zone("Europe/London")
            .prescribed_by("Dr. Marsh")
    }

    fn amounts(taper: &Taper) -> Vec<f64> {
        taper.regimen().unwrap().steps.iter().map(DoseStep::day_amount).collect()
    }

    fn refused(taper: &Taper) -> Invalid {
        taper.regimen().expect_err("this taper must not be made")
    }

    #[test]
    fn steps_are_shares_or_amounts() {
        let buprenorphine = || {
            let taper = Taper::of("buprenorphine", Unit::Mg, 16.0, date(2026, 3, 2));
            taper.zone("America/New_York").prescribed_by("Dr. Marsh").in_multiples_of(2.0)
        };
        assert_eq!(amounts(&buprenorphine().by(Fall::Amount(4.0), 7)), [16.0, 12.0, 8.0, 4.0]);
        assert_eq!(amounts(&buprenorphine().by(Fall::OfStart(25.0), 7)), [16.0, 12.0, 8.0, 4.0]);
        // A quarter of 12 is 3, and of 10 is 2.5: films of 2 mg allow 2, and no less.
        let shares = buprenorphine().by(Fall::OfCurrent(25.0), 7).down_to(4.0);
        assert_eq!(amounts(&shares), [16.0, 12.0, 10.0, 8.0, 6.0, 4.0]);
        assert_eq!(shares.regimen().unwrap().until, None, "4 mg until further notice");
        let tenths = buprenorphine().by(Fall::Amount(0.3), 7).in_multiples_of(0.1);
        let tenths = Taper { start: 0.4, ..tenths };
        assert_eq!(amounts(&tenths), [0.4, 0.1], "though 0.3 / 0.1 is less than 3");
        let last = buprenorphine().by(Fall::Amount(6.0), 7);
        assert_eq!(amounts(&last), [16.0, 10.0, 4.0]);
        assert_eq!(last.regimen().unwrap().until, Some(date(2026, 3, 22)), "the third week's Sunday");
    }

    #[test]
    fn a_day_is_shared_among_its_times_in_multiples() {
        let times = [time(8, 0, 0, 0), time(14, 0, 0, 0), time(22, 0, 0, 0)];
        let regimen = diazepam(10.0).at(times).in_multiples_of(0.5).although("tests").regimen().unwrap();
        let shares =
            |step: usize| regimen.steps[step].doses.iter().map(|dose| dose.amount).collect::<Vec<_>>();
        assert_eq!(shares(0), [3.5, 3.5, 3.0]);
        assert_eq!(shares(1), [3.0, 3.0, 3.0]);
        assert_eq!(shares(regimen.steps.len() - 1), [0.5, 0.5], "1 mg is two halves");
    }

    #[test]
    fn what_does_not_fit_is_refused_by_field() {
        let taper = || diazepam(20.0);
        for (field, taper) in [
            ("multiple", taper().in_multiples_of(0.0)),
            ("multiple", taper().in_multiples_of(1e-4)),
            ("multiple", taper().in_multiples_of(f64::NAN)),
            ("start", diazepam(0.0)),
            ("start", diazepam(f64::NAN)),
            ("start", diazepam(20.3).in_multiples_of(0.5)),
            ("end", taper().down_to(20.0)),
            ("end", taper().down_to(-1.0)),
            ("end", taper().down_to(1.2).in_multiples_of(0.5)),
            ("days", taper().by(Fall::OfCurrent(10.0), 0)),
            ("days", taper().by(Fall::OfCurrent(10.0), 367)),
            ("step", taper().by(Fall::OfCurrent(0.0), 14)),
            ("step", taper().by(Fall::OfStart(100.0), 14)),
            ("step", taper().by(Fall::Amount(21.0), 14)),
            ("step", taper().by(Fall::Amount(f64::NAN), 14)),
            ("times", taper().at([])),
            ("times", taper().at([time(20, 0, 0, 0), time(8, 0, 0, 0)])),
            ("zone", taper().zone("Europe/Londres")),
            ("prescriber", taper().prescribed_by("")),
        ] {
            assert_eq!(refused(&taper).field, field);
        }
        let late = Taper { from: date(9999, 12, 1), ..taper() };
        assert_eq!(refused(&late).field, "from");
    }

    #[test]
    fn a_taper_is_never_longer_than_a_regimen_may_be() {
        let endless = refused(&diazepam(100.0).by(Fall::OfCurrent(0.1), 14));
        assert_eq!(endless.field, "step");
        assert!(endless.allowed.contains("208"), "{endless}");
        assert_eq!(amounts(&diazepam(208.0).by(Fall::Amount(1.0), 14).although("tests")).len(), STEPS_MAX);
        assert_eq!(refused(&diazepam(209.0).by(Fall::Amount(1.0), 14).although("tests")).field, "step");
    }

    #[test]
    fn a_steep_one_wants_a_reason() {
        // 3 tablets to 2 is a third.
        let coarse = diazepam(5.0).in_multiples_of(1.0);
        let invalid = refused(&coarse);
        assert_eq!(invalid.field, "step");
        assert!(invalid.allowed.contains("25 %") && invalid.allowed.contains("14 days"), "{invalid}");
        assert!(coarse.although("inpatient, with nurses").regimen().is_ok());
    }

    proptest! {
        #[test]
        fn a_gentle_one_passes_its_own_check(
            start in 80u32..2_000, percent in 1u32..=10, days in 14u16..60, times in 1usize..4, zero: bool,
        ) {
            let times = [time(8, 0, 0, 0), time(14, 0, 0, 0), time(22, 0, 0, 0)].into_iter().take(times);
            let start = f64::from(start) / 4.0;
            let taper = diazepam(start).by(Fall::OfCurrent(f64::from(percent)), days).at(times);
            let regimen = taper.down_to(if zero { 0.0 } else { start / 2.0 }).regimen();
            let Ok(regimen) = regimen else {
                // One or two percent a step may need more steps than there may be.
                prop_assert!(percent < 3 && regimen.is_err_and(|invalid| invalid.allowed.contains("208")));
                return Ok(());
            };
            let asked = f64::from(percent) + 1e-6;
            prop_assert!(steepest_step(&regimen).is_none_or(|step| step.percent <= asked));
            prop_assert!(steepest_fall_in(&regimen, 14).is_none_or(|fall| fall.percent <= asked));
            let warnings = check_regimen(&regimen, &Plan::default(), None);
            prop_assert!(warnings.is_ok_and(|warnings| warnings.is_empty()));
        }

        #[test]
        fn whatever_is_made_falls_and_passes(
            start in 1u32..200, fall in 0usize..3, size in 1u32..60, days in 1u16..40, multiple in 1u32..9,
            end in 0u32..20, reason: bool,
        ) {
            let (multiple, size) = (f64::from(multiple) / 4.0, f64::from(size));
            let fall = [Fall::OfCurrent(size), Fall::OfStart(size), Fall::Amount(size * multiple)][fall];
            let taper = diazepam(f64::from(start) * multiple).by(fall, days).in_multiples_of(multiple);
            let taper = taper.down_to(f64::from(end) * multiple);
            let taper = if reason { taper.although("tests") } else { taper };
            let Ok(regimen) = taper.regimen() else { return Ok(()) };
            prop_assert!(regimen.steps.len() <= STEPS_MAX);
            prop_assert!(regimen.steps.is_sorted_by(|one, next| next.day_amount() < one.day_amount()));
            prop_assert!(regimen.until.is_some() == (end == 0));
            prop_assert!(check_regimen(&regimen, &Plan::default(), None).is_ok());
        }
    }
}
