//! Rules about what people and observers answered: R1 to R6, R9 to R12, R23, R24.

use super::{Case, DAY_MS, Finding, Owner, Rule, Severity, parameter};
use crate::{
    clinical::{
        chart::{BandScale, Measure, Point, Reading, Series, Topic},
        instrument::SafetyLevel,
        plan::calendar::Zone,
        substance::Medicine,
    },
    record::{Band, Phase, RecordId, Taking},
};

const PHQ9: Measure = Measure::named("phq9");
const GAD7: Measure = Measure::named("gad7");
const COWS: Measure = Measure::named("cows");
const SOWS: Measure = Measure::named("sows16");
const CIWA_AR: Measure = Measure::named("ciwa_ar");
const CIWA_B: Measure = Measure::named("ciwa_b");
const CRAVING: Measure = Measure::named("craving");

/// Instruments whose safety items have a rule of their own; all others' are R1's.
const SCREENER: &str = "cssrs_screener";
const CIWA: &str = "ciwa_ar";

pub(super) const R1: Rule = Rule {
    id: "R1",
    version: 1,
    title: "A thought of being better off dead, or of hurting oneself",
    parameters: &[],
    source: "PHQ-9 item 9 and PHQ-2+I9 item 3: 1 or more urgent, 2 or more emergency (VistA PHQ-2+I9; general \
             practice). Drafts count.",
    reads: &[Topic::Answers],
    by_clock: false,
    find: |case| safety(case, |instrument| instrument != SCREENER && instrument != CIWA),
};

pub(super) const R2: Rule = Rule {
    id: "R2",
    version: 1,
    title: "The suicide screener finds more than a wish to be dead",
    parameters: &[],
    source: "C-SSRS screener, items 3 to 6, or behaviour within three months (VistA instrument 228). Drafts count.",
    reads: &[Topic::Answers],
    by_clock: false,
    find: |case| safety(case, |instrument| instrument == SCREENER),
};

pub(super) const R11: Rule = Rule {
    id: "R11",
    version: 1,
    title: "Alcohol withdrawal with hallucinations, disorientation or a seizure",
    parameters: &[],
    source: "CIWA-Ar items 6 to 8 at 4 or more, item 10 at 2 or more, or the seizure flag, which is no item of the \
             scale. Drafts count.",
    reads: &[Topic::Answers],
    by_clock: false,
    find: |case| safety(case, |instrument| instrument == CIWA),
};

fn safety(case: &Case<'_>, of: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut found = Vec::new();
    for (instrument, series) in case.chart.safety.iter().filter(|(instrument, _)| of(instrument)) {
        for point in series.since(case.since_ms) {
            let Some(worst) = point.value.iter().map(|hit| hit.level).max() else { continue };
            let severity = match worst {
                SafetyLevel::Urgent => Severity::Urgent,
                SafetyLevel::Emergency => Severity::Emergency,
            };
            let items: Vec<_> =
                point.value.iter().map(|hit| format!("item {} answered {}", hit.item, hit.value)).collect();
            let text = format!("{instrument}: {}.", items.join(", "));
            found.push(case.at(point, instrument.as_str()).says(severity, text));
        }
    }
    found
}

pub(super) const R3: Rule = Rule {
    id: "R3",
    version: 1,
    title: "Depression score crosses a threshold",
    parameters: &[
        parameter("review", 10.0, "points", 0.0, 27.0),
        parameter("urgent", 20.0, "points", 0.0, 27.0),
    ],
    source: "PHQ-9: 10 or more moderate, 20 or more severe (VA bands); found when the score before was below.",
    reads: &[Topic::Answers, Topic::Plan],
    by_clock: false,
    find: |case| {
        crossings(case, &PHQ9, "PHQ-9", &[("review", Severity::Review), ("urgent", Severity::Urgent)])
    },
};

pub(super) const R4: Rule = Rule {
    id: "R4",
    version: 1,
    title: "Anxiety score crosses a threshold",
    parameters: &[
        parameter("review", 10.0, "points", 0.0, 21.0),
        parameter("same_day", 15.0, "points", 0.0, 21.0),
    ],
    source: "GAD-7: 10 or more evaluate carefully, 15 or more active treatment (VA); found when the score before was \
             below.",
    reads: &[Topic::Answers, Topic::Plan],
    by_clock: false,
    find: |case| {
        crossings(case, &GAD7, "GAD-7", &[("review", Severity::Review), ("same_day", Severity::SameDay)])
    },
};

/// Scores that reach a threshold which the score before did not reach; the highest such threshold speaks.
fn crossings(case: &Case<'_>, measure: &Measure, name: &str, steps: &[(&str, Severity)]) -> Vec<Finding> {
    let series = case.chart.readings(measure);
    let thresholds: Vec<_> = steps.iter().map(|(name, severity)| (case.value(name), *severity)).collect();
    let mut found = Vec::new();
    for point in series.since(case.since_ms) {
        let before = series.before(point);
        let crossed = thresholds.iter().rev().find(|(threshold, _)| {
            point.value.value >= *threshold && before.is_none_or(|before| before.value.value < *threshold)
        });
        let Some((threshold, severity)) = crossed else { continue };
        let was = before
            .map_or_else(|| "the first one".to_owned(), |before| format!("{} before", before.value.value));
        let text = format!("{name} {} ({was}), threshold {threshold}.", point.value.value);
        let draft = case.at(point, measure.name()).inputs(before.map(|before| before.record));
        found.push(draft.says(*severity, text));
    }
    found
}

pub(super) const R5: Rule = Rule {
    id: "R5",
    version: 1,
    title: "Opioid withdrawal observed as moderately severe or severe",
    parameters: &[
        parameter("urgent", 25.0, "points", 0.0, 48.0),
        parameter("emergency", 37.0, "points", 0.0, 48.0),
    ],
    source: "COWS: 25 to 36 moderately severe, more than 36 severe (VistA). A band without answers counts as \
             moderately severe: the highest of CTN-0094's bands begins at 25.",
    reads: &[Topic::Answers, Topic::Bands, Topic::Plan],
    by_clock: false,
    find: |case| {
        let steps = [("urgent", Severity::Urgent), ("emergency", Severity::Emergency)];
        let mut found = levels(case, &COWS, "COWS", &steps);
        found.extend(severe_bands(case, BandScale::Cows, "cows", "COWS", Severity::Urgent));
        found
    },
};

pub(super) const R6: Rule = Rule {
    id: "R6",
    version: 1,
    title: "Opioid withdrawal felt as severe",
    parameters: &[parameter("total", 21.0, "points", 0.0, 64.0)],
    source: "SOWS-16: 21 or more severe (NIDA CTN-0094). A severe band without answers counts.",
    reads: &[Topic::Answers, Topic::Bands, Topic::Plan],
    by_clock: false,
    find: |case| {
        let mut found = levels(case, &SOWS, "SOWS", &[("total", Severity::SameDay)]);
        found.extend(severe_bands(case, BandScale::Sows16, "sows16", "SOWS", Severity::SameDay));
        found
    },
};

pub(super) const R10: Rule = Rule {
    id: "R10",
    version: 1,
    title: "Alcohol withdrawal score",
    parameters: &[
        parameter("asam_review", 10.0, "points", 0.0, 67.0),
        parameter("asam_urgent", 19.0, "points", 0.0, 67.0),
        parameter("va_review", 8.0, "points", 0.0, 67.0),
        parameter("va_urgent", 15.0, "points", 0.0, 67.0),
        parameter("transfer", 20.0, "points", 0.0, 67.0),
    ],
    source: "CIWA-Ar: ASAM 2020 10 to 18 moderate, 19 or more severe; VA 8 and 15, where the programme chose its \
             bands; 20 or more transfer.",
    reads: &[Topic::Answers, Topic::Plan],
    by_clock: false,
    find: |case| {
        let chosen = case.chart.plan.thresholds().and_then(|own| own.bands.get(CIWA));
        let (review, urgent) = match chosen.map(String::as_str) {
            Some("va") => ("va_review", "va_urgent"),
            _ => ("asam_review", "asam_urgent"),
        };
        let steps =
            [(review, Severity::Review), (urgent, Severity::Urgent), ("transfer", Severity::Emergency)];
        levels(case, &CIWA_AR, "CIWA-Ar", &steps)
    },
};

/// Scores that reach a threshold; the highest one reached speaks.
fn levels(case: &Case<'_>, measure: &Measure, name: &str, steps: &[(&str, Severity)]) -> Vec<Finding> {
    let mut thresholds: Vec<_> = steps.iter().map(|(name, severity)| (case.value(name), *severity)).collect();
    thresholds.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut found = Vec::new();
    for point in case.chart.readings(measure).since(case.since_ms) {
        let reached = thresholds.iter().rev().find(|(threshold, _)| point.value.value >= *threshold);
        let Some((threshold, severity)) = reached else { continue };
        let text = format!("{name} {}, threshold {threshold}.", point.value.value);
        found.push(case.at(point, measure.name()).says(*severity, text));
    }
    found
}

fn severe_bands(
    case: &Case<'_>,
    scale: BandScale,
    subject: &str,
    name: &str,
    severity: Severity,
) -> Vec<Finding> {
    let Some(series) = case.chart.bands.get(&scale) else { return Vec::new() };
    let severe = series.since(case.since_ms).filter(|point| point.value.band == Band::Severe);
    severe
        .map(|point| case.at(point, subject).says(severity, format!("{name} in the highest band.")))
        .collect()
}

pub(super) const R9: Rule = Rule {
    id: "R9",
    version: 1,
    title: "Withdrawal rises soon after a dose: precipitated withdrawal",
    parameters: &[
        parameter("minutes", 60.0, "minutes", 15.0, 120.0),
        parameter("baseline_hours", 4.0, "hours", 0.5, 24.0),
        parameter("cows", 6.0, "points", 1.0, 48.0),
        parameter("sows", 10.0, "points", 1.0, 64.0),
        parameter("bands", 2.0, "bands", 1.0, 3.0),
    ],
    source: "COWS up by 6 or SOWS up by 10 within 60 minutes (Dunn et al. 2023, Front. Psychiatry 1141980), up to 2 \
             hours if the programme wants; two bands from before to after a first dose (own default).",
    reads: &[Topic::Answers, Topic::Bands, Topic::Doses, Topic::Plan],
    by_clock: false,
    find: |case| {
        let (window, reach) = (case.minutes("minutes"), case.hours("baseline_hours"));
        let mut found = Vec::new();
        for (medicine, doses) in case.chart.doses.iter().filter(|(medicine, _)| medicine.may_precipitate()) {
            for dose in doses.since(case.since(window)).filter(|dose| dose.value.taking == Taking::Taken) {
                for (measure, rise, name) in
                    [(COWS, case.value("cows"), "COWS"), (SOWS, case.value("sows"), "SOWS")]
                {
                    let at = dose.at.millis;
                    let series = case.chart.readings(&measure);
                    let Some(before) = series.latest(at).filter(|before| at - before.at.millis <= reach)
                    else {
                        continue;
                    };
                    let after = series.between(at + 1, at + window + 1);
                    let Some(worst) =
                        after.max_by(|one, other| one.value.value.total_cmp(&other.value.value))
                    else {
                        continue;
                    };
                    let risen = worst.value.value - before.value.value;
                    if risen < rise {
                        continue;
                    }
                    let text = format!(
                        "{name} from {} to {} within {} minutes of {}.",
                        before.value.value,
                        worst.value.value,
                        (worst.at.millis - at + 59_999) / 60_000,
                        medicine.label(),
                    );
                    let subject = format!("{} {}", medicine.label(), measure.name());
                    let end = Some(worst.at.millis);
                    let draft = case.draft(subject, dose.record.as_bytes(), at, end, worst.at.millis);
                    let draft =
                        draft.inputs([before.record, dose.record, worst.record]).owner(Owner::Prescriber);
                    found.push(draft.says(Severity::Urgent, text));
                }
            }
        }
        found.extend(first_dose_bands(case));
        found
    },
};

/// The first band after a first dose beside the last one before it, of scales whose answers are not known.
fn first_dose_bands(case: &Case<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (scale, series) in &case.chart.bands {
        let of = |phase| series.iter().find(move |point| point.value.phase == phase);
        let (Some(before), Some(after)) = (of(Phase::BeforeFirstDose), of(Phase::AfterFirstDose)) else {
            continue;
        };
        let (was, is) = (u8::from(before.value.band), u8::from(after.value.band));
        if is <= was {
            continue;
        }
        let (subject, name) = match scale {
            BandScale::Cows => ("cows bands", "COWS"),
            BandScale::Sows16 => ("sows16 bands", "SOWS"),
        };
        let (from, until) = (before.at.millis.min(after.at.millis), before.at.millis.max(after.at.millis));
        let draft = case.draft(subject, after.record.as_bytes(), from, Some(until), until);
        let draft = draft.inputs([before.record, after.record]).owner(Owner::Prescriber);
        let text = format!("{name} in band {was} before the first dose, in band {is} after it.");
        let severe = f64::from(is - was) >= case.value("bands");
        found.push(draft.says(if severe { Severity::Urgent } else { Severity::Review }, text));
    }
    found
}

pub(super) const R12: Rule = Rule {
    id: "R12",
    version: 1,
    title: "Benzodiazepine withdrawal rises after a step of the taper",
    parameters: &[
        parameter("points", 10.0, "points", 1.0, 80.0),
        parameter("days", 14.0, "days", 1.0, 60.0),
        parameter("review", 41.0, "points", 0.0, 80.0),
        parameter("urgent", 61.0, "points", 0.0, 80.0),
    ],
    source: "CIWA-B up by a band or 10 points after a step (own default): evaluate with each reduction, slow or pause \
             when symptoms are significant (joint guideline 2025); 41 or more severe, 61 or more very severe.",
    reads: &[Topic::Answers, Topic::Plan],
    by_clock: false,
    find: |case| {
        let steps = [("review", Severity::Review), ("urgent", Severity::Urgent)];
        let mut found = levels(case, &CIWA_B, "CIWA-B", &steps);
        let reach = case.days("days");
        let series = case.chart.readings(&CIWA_B);
        let regimens = case.chart.plan.regimens();
        for regimen in regimens {
            let medicine = Medicine::of(&regimen.value.drug, regimen.value.rxnorm.as_deref());
            if !matches!(medicine, Medicine::Benzodiazepine(_)) {
                continue;
            }
            for pair in regimen.value.steps.windows(2) {
                if pair[1].day_amount() >= pair[0].day_amount() {
                    continue;
                }
                let Ok(zone) = Zone::named(&regimen.value.zone) else { continue };
                let step = zone.starts_ms(pair[1].from);
                if step.saturating_add(reach) < case.since_ms {
                    continue;
                }
                let Some(before) = series.latest(step - 1) else { continue };
                let risen = series
                    .between(step, step + reach)
                    .find(|after| rises(before, after, case.value("points")));
                let Some(after) = risen.filter(|_| !found.iter().any(|one| says_more(one, risen))) else {
                    continue;
                };
                let text =
                    format!("CIWA-B from {} to {} after a step down.", before.value.value, after.value.value);
                let key = [regimen.record.as_bytes().as_slice(), &step.to_be_bytes()].concat();
                let draft = case.draft(medicine.label(), &key, step, Some(after.at.millis), after.at.millis);
                let draft =
                    draft.inputs([regimen.record, before.record, after.record]).owner(Owner::Prescriber);
                found.push(draft.says(Severity::Review, text));
            }
        }
        found
    },
};

/// Whether a finding already speaks of this reading.
fn says_more(found: &Finding, reading: Option<&Point<Reading>>) -> bool {
    reading.is_some_and(|reading| found.inputs == [reading.record])
}

fn rises(before: &Point<Reading>, after: &Point<Reading>, points: f64) -> bool {
    let bands = before.value.band.as_ref().zip(after.value.band.as_ref());
    let band = bands.is_some_and(|(before, after)| after.severity > before.severity);
    band || after.value.value - before.value.value >= points
}

pub(super) const R23: Rule = Rule {
    id: "R23",
    version: 1,
    title: "Use, risk or craving is up, or what protects is down",
    parameters: &[
        parameter("use", 1.0, "points", 1.0, 90.0),
        parameter("risk", 12.0, "points", 1.0, 180.0),
        parameter("protective", 12.0, "points", 0.0, 180.0),
        parameter("craving", 7.0, "of 10", 1.0, 10.0),
        parameter("craving_rise", 3.0, "of 10", 1.0, 10.0),
        parameter("days", 7.0, "days", 2.0, 30.0),
    ],
    source: "BAM and BAM-IOP: Use 1 or more calls for further assessment (VA); Risk 12 or more, Protective 12 or less \
             (Blueprint, one source). Craving 7 or more of 10, or 3 above the median of 7 days (own default).",
    reads: &[Topic::Answers, Topic::Readings, Topic::Plan],
    by_clock: false,
    find: |case| {
        let mut found = Vec::new();
        for instrument in ["bam", "bam_iop"] {
            for (scale, holds) in [
                ("use", (|value, limit| value >= limit) as fn(f64, f64) -> bool),
                ("risk", |value, limit| value >= limit),
                ("protective", |value, limit| value <= limit),
            ] {
                let measure = Measure::of_scale(instrument, scale);
                let limit = case.value(scale);
                let readings = case.chart.readings(&measure).since(case.since_ms);
                for point in readings.filter(|point| holds(point.value.value, limit)) {
                    let text = format!("{instrument} {scale} {}, threshold {limit}.", point.value.value);
                    found.push(case.at(point, measure.name()).says(Severity::Review, text));
                }
            }
        }
        let (limit, rise, reach) = (case.value("craving"), case.value("craving_rise"), case.days("days"));
        let series = case.chart.readings(&CRAVING);
        for point in series.since(case.since_ms) {
            let value = point.value.value;
            let usual = middle(series, point.at.millis.saturating_sub(reach), point.at.millis);
            let risen = usual.as_ref().is_some_and(|(usual, _)| value - usual >= rise);
            if value < limit && !risen {
                continue;
            }
            let (text, before) = match usual {
                Some((usual, before)) if risen => {
                    (format!("Craving {value} of 10, {usual} in the middle of the days before."), before)
                }
                _ => (format!("Craving {value} of 10, threshold {limit}."), Vec::new()),
            };
            found.push(case.at(point, CRAVING.name()).inputs(before).says(Severity::Review, text));
        }
        found
    },
};

pub(super) const R24: Rule = Rule {
    id: "R24",
    version: 1,
    title: "Craving goes up from week to week",
    parameters: &[parameter("rise", 1.0, "of 10", 0.5, 10.0)],
    source: "Each point of craving goes with 17 % higher odds of use in the week that follows (McHugh 2014): shown, \
             and nothing follows by itself.",
    reads: &[Topic::Answers, Topic::Readings, Topic::Plan],
    by_clock: false,
    find: |case| {
        let week = 7 * DAY_MS;
        let rise = case.value("rise");
        let series = case.chart.readings(&CRAVING);
        let mut found: Vec<Finding> = Vec::new();
        // Weeks are counted from 1970, so that what is found does not depend on what else is known.
        let mut last_week = i64::MIN;
        for point in series.since(case.since(2 * week)) {
            let number = point.at.millis.div_euclid(week);
            if number == last_week {
                continue;
            }
            last_week = number;
            let (start, end) = (number * week, (number + 1) * week);
            let (Some(before), Some(now)) = (middle(series, start - week, start), middle(series, start, end))
            else {
                continue;
            };
            if now.0 - before.0 < rise {
                continue;
            }
            let observed = series.between(start, end).next_back().map_or(end, |last| last.at.millis);
            let draft =
                case.draft(CRAVING.name(), &number.to_be_bytes(), start - week, Some(end - 1), observed);
            let text = format!("Craving {} in the middle of a week, {} in the week before.", now.0, before.0);
            found.push(draft.inputs(before.1.into_iter().chain(now.1)).says(Severity::Info, text));
        }
        found
    },
};

/// The median within a span, and its records; `None` with fewer than three readings.
fn middle(series: &Series<Reading>, from_ms: i64, until_ms: i64) -> Option<(f64, Vec<RecordId>)> {
    let (mut values, records): (Vec<_>, Vec<_>) =
        series.between(from_ms, until_ms).map(|point| (point.value.value, point.record)).unzip();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0..3 => None,
        odd if odd % 2 == 1 => Some((values[half], records)),
        _ => Some((f64::midpoint(values[half - 1], values[half]), records)),
    }
}
