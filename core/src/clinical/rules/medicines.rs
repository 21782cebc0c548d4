//! Rules about medicines: R7, R8, R13 to R18, R22.

use jiff::civil::Date;

use super::{Case, DAY_MS, Finding, HOUR_MS, Owner, Rule, Severity, begins_ms, day_of, key_of, parameter};
use crate::{
    clinical::{
        chart::{Measure, Point, Series, Topic},
        plan::{
            Section,
            calendar::{days_between, plus_days},
            medication::{
                FALL_DAYS, FALL_PERCENT_MAX, STEP_PERCENT_MAX, day_amount_on, steepest_fall_in, steepest_step,
            },
        },
        substance::{Medicine, Substance},
        trend::{self, Days, DoseDay},
    },
    record::{Course, Dose, Moment, Regimen, ScreenResult, Taking},
};

const COWS: Measure = Measure::named("cows");

/// How many days without buprenorphine make the next dose a first one again.
const INDUCTION_DAYS: i64 = 5;

/// How many days without naltrexone make the next dose a first one again: a depot's four weeks and one more.
const NALTREXONE_DAYS: i64 = 35;

pub(super) const R7: Rule = Rule {
    id: "R7",
    version: 1,
    title: "First buprenorphine before withdrawal is clear",
    parameters: &[parameter("cows", 8.0, "points", 4.0, 20.0), parameter("hours", 4.0, "hours", 0.5, 24.0)],
    source: "First buprenorphine with COWS below 8 (public protocols; others say more than 12; ASAM 2020 11 or 12, to \
             be confirmed by a clinician). First: none in the 5 days before.",
    reads: &[Topic::Doses, Topic::Answers, Topic::Plan],
    by_clock: false,
    find: |case| {
        let (threshold, reach) = (case.value("cows"), case.hours("hours"));
        let mut found = Vec::new();
        for dose in first_doses(case, &[Medicine::Buprenorphine], INDUCTION_DAYS) {
            let at = dose.at.millis;
            let score = case.chart.readings(&COWS).latest(at).filter(|score| at - score.at.millis <= reach);
            let draft = case.at(dose, Medicine::Buprenorphine.label()).owner(Owner::Prescriber);
            match score {
                Some(score) if score.value.value < threshold => {
                    let text = format!(
                        "First buprenorphine with COWS {}, threshold {threshold}.",
                        score.value.value
                    );
                    found.push(draft.input(score.record).holds().says(Severity::Review, text));
                }
                Some(_) => {}
                None => {
                    let text = "First buprenorphine; no COWS in the hours before is known.";
                    found.push(draft.unknown().says(Severity::Info, text));
                }
            }
        }
        found
    },
};

pub(super) const R8: Rule = Rule {
    id: "R8",
    version: 1,
    title: "First buprenorphine too soon after an opioid",
    parameters: &[
        parameter("short_hours", 12.0, "hours", 4.0, 48.0),
        parameter("extended_hours", 24.0, "hours", 8.0, 72.0),
        parameter("methadone_hours", 72.0, "hours", 24.0, 168.0),
    ],
    source: "Less than 12 hours after a short-acting opioid, 24 after an extended-release one, 72 after methadone \
             (weak source; moderate withdrawal begins after 12 to 16, 17 to 24 and 30 to 48 hours: emergencycarebc).",
    reads: &[Topic::Doses, Topic::Uses, Topic::Plan],
    by_clock: false,
    find: |case| {
        let mut found = Vec::new();
        for dose in first_doses(case, &[Medicine::Buprenorphine], INDUCTION_DAYS) {
            let at = dose.at.millis;
            let uses = case.chart.uses.between(at - 7 * DAY_MS, at).filter_map(|used| {
                let wait = match Substance::of(&used.value.substance)? {
                    Substance::Opioid => case.hours("short_hours"),
                    Substance::OpioidExtendedRelease => case.hours("extended_hours"),
                    Substance::Methadone => case.hours("methadone_hours"),
                    _ => return None,
                };
                Some((used.at.millis, used.record, used.value.substance.as_str(), wait))
            });
            let methadone = case.chart.doses(&Medicine::Methadone).between(at - 7 * DAY_MS, at);
            let methadone = methadone.filter(|dose| dose.value.taking == Taking::Taken);
            let methadone = methadone
                .map(|dose| (dose.at.millis, dose.record, "methadone", case.hours("methadone_hours")));
            // The one whose wait lasts longest.
            let Some((used, record, name, wait)) =
                uses.chain(methadone).max_by_key(|(used, _, _, wait)| used + wait)
            else {
                continue;
            };
            if used + wait <= at {
                continue;
            }
            let text = format!(
                "First buprenorphine {} hours after {name}; {} are asked for.",
                (at - used) / HOUR_MS,
                wait / HOUR_MS
            );
            let draft = case.at(dose, Medicine::Buprenorphine.label()).input(record).owner(Owner::Prescriber);
            found.push(draft.holds().says(Severity::Review, text));
        }
        found
    },
};

pub(super) const R17: Rule = Rule {
    id: "R17",
    version: 1,
    title: "Naltrexone begun with opioids in the body",
    parameters: &[parameter("days", 10.0, "days", 7.0, 14.0)],
    source: "Opioid use within 7 to 10 days, or a positive opioid screen (labels; to be confirmed by a clinician). \
             Begun: none in the 35 days before.",
    reads: &[Topic::Doses, Topic::Uses, Topic::Screens, Topic::Plan],
    by_clock: false,
    find: |case| {
        let reach = case.days("days");
        let mut found = Vec::new();
        for dose in first_doses(case, &[Medicine::Naltrexone, Medicine::NaltrexoneDepot], NALTREXONE_DAYS) {
            let (from, until) = (dose.at.millis - reach, dose.at.millis);
            let is_opioid = |name: &str| Substance::of(name).is_some_and(Substance::is_opioid);
            let used = case.chart.uses.between(from, until).filter(|used| is_opioid(&used.value.substance));
            let screened = case.chart.screens.between(from, until).filter(|screen| {
                screen.value.result == ScreenResult::Positive && is_opioid(&screen.value.substance)
            });
            let agonists = case.chart.doses.iter().filter(|(medicine, _)| medicine.is_opioid_agonist());
            let taken = agonists.flat_map(|(_, doses)| doses.between(from, until));
            let taken = taken.filter(|dose| dose.value.taking == Taking::Taken);
            let inputs: Vec<_> = used
                .map(|used| used.record)
                .chain(screened.map(|screen| screen.record))
                .chain(taken.map(|dose| dose.record))
                .collect();
            if inputs.is_empty() {
                continue;
            }
            let text = format!(
                "Naltrexone with {} records of opioids in the {} days before.",
                inputs.len(),
                reach / DAY_MS
            );
            let draft = case.at(dose, "naltrexone").inputs(inputs).owner(Owner::Prescriber);
            found.push(draft.holds().says(Severity::Urgent, text));
        }
        found
    },
};

/// Taken doses of any of some medicines that none was taken before for some days.
fn first_doses<'a>(case: &Case<'a>, medicines: &[Medicine], days: i64) -> Vec<&'a Point<Dose>> {
    let reach = days * DAY_MS;
    let chart = case.chart;
    let taken = |from: i64, until: i64| {
        let doses = medicines.iter().flat_map(move |medicine| chart.doses(medicine).between(from, until));
        doses.filter(|dose| dose.value.taking == Taking::Taken)
    };
    let mut asked: Vec<_> = taken(case.since_ms, i64::MAX).collect();
    asked.sort_by_key(|dose| (dose.at.millis, dose.record));
    asked.retain(|dose| {
        let at = dose.at.millis;
        let same_moment = |other: &Point<Dose>| other.at.millis < at || other.record < dose.record;
        !taken(at - reach, at + 1).any(|other| other.record != dose.record && same_moment(other))
    });
    asked
}

pub(super) const R13: Rule = Rule {
    id: "R13",
    version: 1,
    title: "A benzodiazepine taper goes down fast",
    parameters: &[
        parameter("step", STEP_PERCENT_MAX, "percent", 1.0, 100.0),
        parameter("fortnight", FALL_PERCENT_MAX, "percent", 1.0, 100.0),
    ],
    source: "5 to 10 % every 2 to 4 weeks, not more than 25 % every 2 weeks (joint guideline 2025). More than that is \
             refused where it is logged, unless a reason is given.",
    reads: &[Topic::Plan],
    by_clock: false,
    find: |case| {
        let mut found = Vec::new();
        for Section { record, at, value } in case.chart.plan.regimens() {
            let medicine = Medicine::of(&value.drug, value.rxnorm.as_deref());
            if !matches!(medicine, Medicine::Benzodiazepine(_)) {
                continue;
            }
            let draft = || {
                let moment = at.millis;
                let draft = case.draft(medicine.label(), record.as_bytes(), moment, Some(moment), moment);
                draft.input(record).owner(Owner::Prescriber)
            };
            let step = steepest_step(value).map_or(0.0, |step| step.percent);
            let fortnight = steepest_fall_in(value, FALL_DAYS).map_or(0.0, |fall| fall.percent);
            if fortnight > case.value("fortnight") {
                let text = format!("{} falls by {fortnight:.0} % within 14 days.", medicine.label());
                let given = value.override_reason.is_some();
                let draft = if given { draft() } else { draft().holds() };
                found.push(draft.says(if given { Severity::Review } else { Severity::Urgent }, text));
            } else if step > case.value("step") {
                let text = format!("{} falls by {step:.0} % in one step.", medicine.label());
                found.push(draft().says(Severity::Info, text));
            }
        }
        found
    },
};

pub(super) const R14: Rule = Rule {
    id: "R14",
    version: 1,
    title: "Methadone not taken for days",
    parameters: &[
        parameter("notify", 2.0, "days", 1.0, 14.0),
        parameter("hold", 3.0, "days", 1.0, 14.0),
        parameter("prescriber", 4.0, "days", 1.0, 14.0),
        parameter("restart", 5.0, "days", 1.0, 14.0),
    ],
    source: "Days missed in a row: 2 look for intoxication, 3 prescriber and half the dose, 4 prescriber and 40 mg or \
             half, whichever is lower, 5 or more a new induction (Australian national guideline). Days of which nobody \
             said anything are unknown: ask before the next dose.",
    reads: &[Topic::Doses, Topic::Plan],
    by_clock: true,
    find: |case| {
        missed_days(
            case,
            &Medicine::Methadone,
            &[
                ("notify", Severity::Review, "look for intoxication before the next dose", false),
                ("hold", Severity::Urgent, "prescriber first; half the dose", true),
                (
                    "prescriber",
                    Severity::Urgent,
                    "prescriber first; 40 mg or half the dose, whichever is lower",
                    true,
                ),
                ("restart", Severity::Urgent, "a new induction", true),
            ],
        )
    },
};

pub(super) const R15: Rule = Rule {
    id: "R15",
    version: 1,
    title: "Buprenorphine not taken for days",
    parameters: &[
        parameter("person", 1.0, "days", 1.0, 14.0),
        parameter("team", 2.0, "days", 1.0, 14.0),
        parameter("restart", 6.0, "days", 2.0, 30.0),
    ],
    source: "Days missed in a row: 1 tell the person, 2 the team, more than 5 look at a new induction (to be confirmed \
             by a clinician). Days of which nobody said anything are unknown.",
    reads: &[Topic::Doses, Topic::Plan],
    by_clock: true,
    find: |case| {
        missed_days(
            case,
            &Medicine::Buprenorphine,
            &[
                ("person", Severity::Notice, "a kind reminder", false),
                ("team", Severity::Review, "get in touch", false),
                ("restart", Severity::SameDay, "look at a new induction", true),
            ],
        )
    },
};

/// Runs of days without a taken dose: what was missed by what records say, and what may have been.
///
/// A run is judged by the most days in a row that records call not taken; where unknown days would reach a
/// higher threshold, that is found too weak to call it missed: as unknown, and never more than to review.
fn missed_days(case: &Case<'_>, medicine: &Medicine, steps: &[(&str, Severity, &str, bool)]) -> Vec<Finding> {
    let regimens: Vec<_> =
        case.chart.plan.regimens().filter(|regimen| is_of(regimen.value, medicine)).collect();
    // Days that a plan does not ask for are not missed: those rules speak of daily doses.
    let daily = |regimen: &Regimen| {
        regimen.course != Course::AsNeeded && regimen.steps.iter().all(|step| step.every_days == 1)
    };
    if !regimens.iter().all(|regimen| daily(regimen.value)) {
        return Vec::new();
    }
    let doses = case.chart.doses(medicine);
    // A run is counted from its beginning: from the last dose taken before what is asked for.
    let taken = |dose: &&Point<Dose>| dose.value.taking == Taking::Taken;
    let from = doses.between(i64::MIN, case.since_ms).rev().find(taken).map(day_of);
    let asked_until = open_until(case, doses, regimens.iter().map(|regimen| regimen.value));
    let Some(last_told) = trend::lived_days(doses).map(Days::last) else { return Vec::new() };
    let until = asked_until.map_or(last_told, |asked| asked.max(last_told));
    let mut found = Vec::new();
    for gap in trend::dose_gaps(case.chart, medicine, from, Some(until)) {
        let last_day = plus_days(gap.first_day, i64::from(gap.days) - 1);
        let days = trend::dose_days(case.chart, medicine, Days::new(gap.first_day, last_day));
        let missed = days.split(|(_, state)| *state != DoseDay::NotTaken).map(<[_]>::len).max().unwrap_or(0);
        let missed = u32::try_from(missed).unwrap_or(u32::MAX);
        let reached = |days: u32| steps.iter().rev().find(|(name, ..)| f64::from(days) >= case.value(name));
        let (step, known) = match (reached(missed), reached(gap.days)) {
            (Some(step), _) => (step, true),
            (None, Some(step)) => (step, false),
            (None, None) => continue,
        };
        let (name, severity, advice, holds) = *step;
        let Some(beside) = doses.iter().next_back() else { continue };
        let from_ms = begins_ms(gap.first_day, beside);
        let end_ms = begins_ms(last_day, beside) + DAY_MS;
        let open = asked_until.is_some() && last_day == until;
        // What closed it is a part of it.
        let closed_by = doses.since(end_ms - 2 * DAY_MS).filter(taken).find(|dose| day_of(dose) > last_day);
        let closed_ms = closed_by.map_or(end_ms - 1, |dose| dose.at.millis);
        let observed = end_ms.min(from_ms + super::ms(case.value(name), DAY_MS)).min(case.now_ms);
        let label = medicine.label();
        let draft =
            case.draft(label, &key_of(gap.first_day), from_ms, (!open).then_some(closed_ms), observed);
        let told = doses.between(from_ms - DAY_MS, end_ms + DAY_MS);
        let told = told.filter(|dose| (gap.first_day..=last_day).contains(&day_of(dose)));
        let draft = draft.inputs(told.map(|dose| dose.record)).owner(Owner::Prescriber);
        let draft = if holds { draft.holds() } else { draft };
        let days = |many: u32| if many == 1 { "1 day".to_owned() } else { format!("{many} days") };
        found.push(if known {
            let open =
                if gap.unknown > 0 { format!(", {} unknown", days(gap.unknown)) } else { String::new() };
            draft.says(severity, format!("{label} not taken for {}{open}: {advice}.", days(gap.not_taken)))
        } else {
            let text =
                format!("Nothing known of {label} for {}: ask; if it was missed, {advice}.", days(gap.days));
            draft.unknown().says(severity.min(Severity::Review), text)
        });
    }
    found
}

/// Until which day doses are asked for: yesterday, while a regimen runs.
fn open_until<'a>(
    case: &Case<'_>,
    doses: &Series<Dose>,
    mut regimens: impl Iterator<Item = &'a Regimen>,
) -> Option<Date> {
    let last = doses.iter().next_back()?;
    let yesterday = plus_days(trend::day_of(Moment { millis: case.now_ms, ..last.at }), -1);
    regimens.any(|regimen| asks_for_it(regimen, yesterday)).then_some(yesterday)
}

/// Whether a regimen runs on a day, be it one on which nothing is taken.
fn asks_for_it(regimen: &Regimen, day: Date) -> bool {
    day_amount_on(regimen, day).is_some()
}

fn is_of(regimen: &Regimen, medicine: &Medicine) -> bool {
    Medicine::of(&regimen.drug, regimen.rxnorm.as_deref()) == *medicine
}

pub(super) const R16: Rule = Rule {
    id: "R16",
    version: 1,
    title: "The next naltrexone injection is due",
    parameters: &[
        parameter("every", 28.0, "days", 21.0, 35.0),
        parameter("due", 3.0, "days", 0.0, 14.0),
        parameter("overdue", 7.0, "days", 1.0, 28.0),
    ],
    source: "Every 28 days (Medicare bills G2073 at most once in 28 days); due 3 days after, overdue 7 days after, with \
             a notice that tolerance is lost and an overdose more likely (to be confirmed by a clinician).",
    reads: &[Topic::Doses, Topic::Plan],
    by_clock: true,
    find: |case| {
        let medicine = Medicine::NaltrexoneDepot;
        let doses = case.chart.doses(&medicine);
        let (every, due, overdue) = (case.value("every"), case.value("due"), case.value("overdue"));
        let regimens = case.chart.plan.regimens().map(|section| section.value);
        let open = open_until(case, doses, regimens.filter(|regimen| is_of(regimen, &medicine)));
        let taken = doses.since(case.since(120 * DAY_MS)).filter(|dose| dose.value.taking == Taking::Taken);
        let taken: Vec<_> = taken.collect();
        let mut found = Vec::new();
        for (place, dose) in taken.iter().enumerate() {
            let next = taken[place + 1..].iter().find(|next| day_of(next) > day_of(dose));
            let (end, is_open) = match (next, open) {
                (Some(next), _) => (day_of(next), false),
                (None, Some(yesterday)) => (plus_days(yesterday, 1), true),
                (None, None) => continue,
            };
            let days = days_between(day_of(dose), end);
            #[expect(clippy::cast_precision_loss, reason = "days of a lifetime")]
            let late = days as f64 - every;
            if late < due {
                continue;
            }
            let until = next.map_or(case.now_ms, |next| next.at.millis);
            let from = dose.at.millis + super::ms(every, DAY_MS);
            let draft = case.draft(
                medicine.label(),
                dose.record.as_bytes(),
                from,
                (!is_open).then_some(until),
                until,
            );
            let draft =
                draft.input(dose.record).inputs(next.map(|next| next.record)).owner(Owner::Prescriber);
            let (severity, more) = if late >= overdue {
                (Severity::SameDay, " Tolerance is lost: tell of the risk of an overdose.")
            } else {
                (Severity::Review, "")
            };
            let draft = if is_open { draft.unknown() } else { draft };
            found.push(draft.says(severity, format!("Injection {late:.0} days after it was due.{more}")));
        }
        found
    },
};

pub(super) const R18: Rule = Rule {
    id: "R18",
    version: 1,
    title: "An opioid medicine and a sedating substance on one day",
    parameters: &[],
    source: "Sedation and breathing: no dose to somebody who is intoxicated or sedated (WHO, annex 12).",
    reads: &[Topic::Doses, Topic::Uses],
    by_clock: false,
    find: |case| {
        let mut found = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for used in case.chart.uses.since(case.since(2 * DAY_MS)) {
            if !Substance::of(&used.value.substance).is_some_and(Substance::is_sedating) {
                continue;
            }
            let number = trend::number_of(used.at);
            let agonists = case.chart.doses.iter().filter(|(medicine, _)| medicine.is_opioid_agonist());
            for (medicine, doses) in agonists {
                let label = medicine.label();
                if seen.contains(&(number, label)) {
                    continue;
                }
                let near = doses.between(used.at.millis - 2 * DAY_MS, used.at.millis + 2 * DAY_MS);
                let same_day = |dose: &&Point<Dose>| {
                    dose.value.taking == Taking::Taken && trend::number_of(dose.at) == number
                };
                let taken: Vec<_> = near.filter(same_day).collect();
                let Some(first) = taken.first() else { continue };
                seen.insert((number, label));
                let day = day_of(used);
                let sedating =
                    case.chart.uses.between(used.at.millis - 2 * DAY_MS, used.at.millis + 2 * DAY_MS);
                let sedating: Vec<_> = sedating
                    .filter(|other| trend::number_of(other.at) == number)
                    .filter(|other| Substance::of(&other.value.substance).is_some_and(Substance::is_sedating))
                    .collect();
                let observed =
                    taken.iter().map(|dose| dose.at.millis).chain(sedating.iter().map(|one| one.at.millis));
                let observed = observed.max().unwrap_or(used.at.millis);
                let start = begins_ms(day, first);
                let draft = case.draft(label, &key_of(day), start, Some(start + DAY_MS - 1), observed);
                let draft = draft.inputs(taken.iter().map(|dose| dose.record));
                let draft = draft.inputs(sedating.iter().map(|one| one.record)).owner(Owner::Prescriber);
                let text = format!("{label} and {} on one day.", used.value.substance);
                found.push(draft.says(Severity::Review, text));
            }
        }
        found
    },
};

pub(super) const R22: Rule = Rule {
    id: "R22",
    version: 1,
    title: "A prescribed medicine is not found by a screen",
    parameters: &[parameter("days", 7.0, "days", 1.0, 30.0)],
    source: "Common practice (to be confirmed by a clinician): a negative screen for the medicine that was taken, or is \
             prescribed, in the days before.",
    reads: &[Topic::Screens, Topic::Doses, Topic::Plan],
    by_clock: false,
    find: |case| {
        let reach = case.days("days");
        let negative = case
            .chart
            .screens
            .since(case.since_ms)
            .filter(|screen| screen.value.result == ScreenResult::Negative);
        let mut found = Vec::new();
        for screen in negative {
            let looked_for = match Substance::of(&screen.value.substance) {
                Some(Substance::Buprenorphine) => {
                    [Medicine::Buprenorphine, Medicine::BuprenorphineDepot].as_slice()
                }
                Some(Substance::Methadone) => &[Medicine::Methadone],
                _ => continue,
            };
            let at = screen.at.millis;
            let taken =
                looked_for.iter().flat_map(|medicine| case.chart.doses(medicine).between(at - reach, at));
            let taken: Vec<_> =
                taken.filter(|dose| dose.value.taking == Taking::Taken).map(|dose| dose.record).collect();
            let day = day_of(screen);
            let prescribed = case.chart.plan.regimens().filter(|regimen| {
                looked_for.iter().any(|medicine| is_of(regimen.value, medicine))
                    && day_amount_on(regimen.value, day).is_some_and(|amount| amount > 0.0)
            });
            let prescribed: Vec<_> = prescribed.map(|regimen| regimen.record).collect();
            if taken.is_empty() && prescribed.is_empty() {
                continue;
            }
            let text = format!("{} was not found.", looked_for[0].label());
            let draft = case.at(screen, looked_for[0].label()).inputs(taken).inputs(prescribed);
            found.push(draft.owner(Owner::Prescriber).says(Severity::Review, text));
        }
        found
    },
};
