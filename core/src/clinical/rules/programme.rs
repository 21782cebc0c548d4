//! Rules about the programme: R19 to R21, R25 to R28.

use std::collections::BTreeMap;

use jiff::civil::Date;

use super::{
    Case, DAY_MS, Finding, HOUR_MS, MINUTE_MS, Owner, Rule, Severity, begins_ms, day_of, key_of, parameter,
};
use crate::{
    clinical::{
        chart::{Point, Topic},
        part2::{self, Validity},
        plan::{
            Section,
            attendance::{HoursMark, Outcome, WeekHours, occasions},
            authorization::usage,
            calendar::plus_days,
            level,
            medication::day_amount_on,
            schedule::{Weeks, due_asks},
        },
        substance::{Medicine, Substance},
    },
    record::{Attendance, Consent, Level, Moment, ScreenResult, SessionKind},
};

pub(super) const R19: Rule = Rule {
    id: "R19",
    version: 1,
    title: "Nothing heard from the person",
    parameters: &[
        parameter("detox_hours", 24.0, "hours", 6.0, 168.0),
        parameter("hours", 72.0, "hours", 12.0, 720.0),
        parameter("grace_hours", 12.0, "hours", 1.0, 48.0),
    ],
    source: "No entry for 24 hours in detox, for 72 hours after it; in detox also one check-in of the plan that is not \
             answered 12 hours later (own defaults). Whether the phone was in touch at all is told apart from it.",
    reads: &[Topic::Entries, Topic::Answers, Topic::Readings, Topic::Plan],
    by_clock: true,
    find: |case| {
        let mut found = silences(case);
        found.extend(unanswered(case));
        found
    },
};

/// Spans without an entry that are longer than the level of care allows.
fn silences(case: &Case<'_>) -> Vec<Finding> {
    let allowed = |millis: i64| match case.chart.plan.level_at(millis)? {
        Level::Detox => Some(case.hours("detox_hours")),
        // Somebody else sees the person every day, or nobody asks any more.
        Level::Residential | Level::Discharged => None,
        Level::PartialHospitalization | Level::IntensiveOutpatient | Level::Outpatient => {
            Some(case.hours("hours"))
        }
    };
    let entries = &case.chart.entries;
    // The last one before what is asked for begins a span that may reach into it.
    let first = entries.latest(case.since(1)).map_or(i64::MIN, |point| point.at.millis);
    let mut found = Vec::new();
    let mut entries = entries.since(first).filter(|entry| entry.at.millis <= case.now_ms).peekable();
    while let Some(entry) = entries.next() {
        let at = entry.at.millis;
        let end = entries.peek().map_or(case.now_ms, |next| next.at.millis);
        let Some(allowed) = allowed(at).filter(|allowed| end - at > *allowed) else { continue };
        let open = entries.peek().is_none();
        let observed = at + allowed;
        let draft = case.draft("entries", entry.record.as_bytes(), at, (!open).then_some(end), observed);
        let draft = draft.input(entry.record).inputs(entries.peek().map(|next| next.record));
        let hours = allowed / HOUR_MS;
        // Nothing can have been heard of what lies on a phone that has not been in touch.
        let unheard = open && case.around.last_heard_ms.is_some_and(|heard| heard < observed);
        found.push(if unheard {
            let text =
                format!("Nothing has arrived for more than {hours} hours: no network, or nothing logged.");
            draft.unknown().says(Severity::Review, text)
        } else {
            draft.says(Severity::Review, format!("No entry for more than {hours} hours."))
        });
    }
    found
}

/// Check-ins of the plan that were not answered, in detox.
fn unanswered(case: &Case<'_>) -> Vec<Finding> {
    let grace = case.hours("grace_hours");
    let mut found = Vec::new();
    for Section { record, value, .. } in case.chart.plan.cadences() {
        let moves = case.chart.plan.level_moves();
        for (place, admitted) in
            moves.iter().enumerate().filter(|(_, section)| section.value.to == Level::Detox)
        {
            let end = moves.get(place + 1).map_or(i64::MAX, |next| next.at.millis);
            let from = admitted.at.millis.max(case.since(grace + 2 * DAY_MS));
            let until = end.min(case.now_ms);
            for due in due_asks(record, value, from, until) {
                let closes = due.due_ms + grace;
                let opens = due.opens_ms.min(due.due_ms - HOUR_MS);
                if closes > case.now_ms || case.chart.entries.between(opens, closes).next().is_some() {
                    continue;
                }
                let key = [record.as_bytes().as_slice(), &due.due_ms.to_be_bytes()].concat();
                let draft = case.draft("check-in", &key, due.due_ms, Some(closes), closes).input(record);
                let text = "A check-in of the plan has no answer.";
                found.push(draft.unknown().says(Severity::Review, text));
            }
        }
    }
    found
}

pub(super) const R20: Rule = Rule {
    id: "R20",
    version: 1,
    title: "Sessions missed, too few hours, or no medical contact",
    parameters: &[
        parameter("in_a_row", 2.0, "sessions", 2.0, 10.0),
        parameter("medical_days", 7.0, "days", 3.0, 31.0),
    ],
    source: "One session missed: tell the person; two in a row, fewer than 9 hours in a programme week (ASAM 2.1; the \
             programme's own bound), or no medical contact in 7 days: the team. Sessions of which nobody said anything \
             are unknown.",
    reads: &[Topic::Visits, Topic::Plan],
    by_clock: true,
    find: |case| {
        let mut found = missed_sessions(case);
        found.extend(short_weeks(case));
        found.extend(no_medical_contact(case));
        found
    },
};

fn missed_sessions(case: &Case<'_>) -> Vec<Finding> {
    let in_a_row = case.value("in_a_row");
    // A run is counted from its beginning: from the last session attended before what is asked for, whichever
    // visit tells of it.
    let asked_ms = case.since(29 * DAY_MS);
    let kept = case.chart.visits.between(i64::MIN, asked_ms).rev();
    let kept = kept.into_iter().find(|visit| visit.value.attendance == Attendance::Kept);
    let first = case.chart.visits.iter().next().map_or(i64::MAX, |visit| visit.at.millis);
    let from_ms = kept.map_or(first, |visit| visit.at.millis - 29 * DAY_MS).max(first - DAY_MS);
    let mut run = Vec::new();
    let mut on_day = BTreeMap::new();
    let mut found = Vec::new();
    for occasion in occasions(case.chart, from_ms, case.now_ms) {
        match occasion.outcome() {
            Outcome::Unknown => continue,
            Outcome::Kept => {
                run.clear();
                continue;
            }
            Outcome::Missed => run.extend(occasion.visit.map(|visit| visit.record)),
        }
        let (Some(kind), Some(visit)) = (occasion.kind(), occasion.visit) else { continue };
        let key = match occasion.planned {
            Some(session) => {
                [session.planned.series.as_bytes().as_slice(), &key_of(session.planned.on)].concat()
            }
            // Two of a kind on one day are two.
            None => {
                let earlier = on_day.entry((occasion.day, kind.clone())).or_insert(0_u32);
                *earlier += 1;
                [key_of(occasion.day).as_slice(), &earlier.to_be_bytes()].concat()
            }
        };
        let told = occasion.records.iter().filter_map(|record| case.chart.happened_ms(record));
        let (from, until) = (occasion.at_ms.min(visit.at.millis), told.fold(occasion.at_ms, i64::max));
        let draft = case.draft(kind.label(), &key, from, Some(until), visit.at.millis);
        let draft = draft.inputs(occasion.records.iter().copied());
        #[expect(clippy::cast_precision_loss, reason = "sessions of a lifetime")]
        let many = run.len() as f64;
        found.push(if many >= in_a_row {
            let text = format!("{} sessions missed in a row.", run.len());
            draft.inputs(run.iter().copied()).says(Severity::Review, text)
        } else {
            let text = format!("A session was missed: {}.", kind.label());
            draft.owner(Owner::Patient).says(Severity::Notice, text)
        });
    }
    found
}

/// Programme weeks that are over, at a level of care that asks for hours.
fn short_weeks(case: &Case<'_>) -> Vec<Finding> {
    let plan = &case.chart.plan;
    let weeks = Weeks::of(plan);
    let mut found = Vec::new();
    for stay in level::history(plan).iter().filter(|stay| stay.level == Level::IntensiveOutpatient) {
        let from_ms = stay.from_ms.max(case.since(8 * DAY_MS));
        let until_ms = stay.until_ms.unwrap_or(case.now_ms).min(case.now_ms);
        if from_ms >= until_ms {
            continue;
        }
        for week in weeks.between(weeks.zone.day(from_ms), weeks.zone.day(until_ms)) {
            // A week that began or ended at another level of care is not measured by this one.
            if week.starts_ms < weeks.zone.starts_ms(weeks.zone.day(stay.from_ms)) || week.ends_ms > until_ms
            {
                continue;
            }
            let hours = WeekHours::of(case.chart, &weeks, week, case.now_ms);
            let told = occasions(case.chart, week.starts_ms, week.ends_ms);
            let attended = f64::from(hours.attended) / 60.0;
            let (start, end, required) = (week.starts_ms, week.ends_ms, hours.required_min);
            let draft = || {
                let draft = case.draft("hours", &start.to_be_bytes(), start, Some(end), end);
                draft.inputs(told.iter().flat_map(|occasion| occasion.records.iter().copied()))
            };
            match hours.mark() {
                HoursMark::Within | HoursMark::AtOrAbove => {}
                HoursMark::Below if !told.is_empty() => {
                    let text = format!("{attended:.1} hours attended of {required:.0}.");
                    found.push(draft().says(Severity::Review, text));
                }
                HoursMark::Below | HoursMark::Open => {
                    let text =
                        format!("{attended:.1} hours are known of {required:.0}: attendance is missing.");
                    found.push(draft().unknown().says(Severity::Info, text));
                }
            }
        }
    }
    found
}

/// Spans at a level of care that asks for it without a medical visit or a nurse's assessment.
fn no_medical_contact(case: &Case<'_>) -> Vec<Finding> {
    let reach = case.days("medical_days");
    let moves = case.chart.plan.level_moves();
    let mut found = Vec::new();
    for (place, begun) in moves.iter().enumerate() {
        let asked = matches!(
            begun.value.to,
            Level::Detox | Level::PartialHospitalization | Level::IntensiveOutpatient
        );
        let end = moves.get(place + 1).map_or(case.now_ms, |next| next.at.millis).min(case.now_ms);
        if !asked || end < case.since_ms {
            continue;
        }
        let visits = case.chart.visits.between(begun.at.millis.max(case.since(2 * reach)), end);
        let medical = visits.filter(|visit| {
            let kind = &visit.value.session;
            visit.value.attendance == Attendance::Kept
                && matches!(kind, SessionKind::Medical | SessionKind::Nursing)
        });
        let earlier = case.chart.visits.between(begun.at.millis, case.since(2 * reach)).rev().find(|visit| {
            let kind = &visit.value.session;
            visit.value.attendance == Attendance::Kept
                && matches!(kind, SessionKind::Medical | SessionKind::Nursing)
        });
        let start = earlier.map_or((begun.at.millis, begun.record), |visit| (visit.at.millis, visit.record));
        let contacts: Vec<_> =
            std::iter::once(start).chain(medical.map(|visit| (visit.at.millis, visit.record))).collect();
        let last_span = moves.get(place + 1).is_none();
        for (place, (at, record)) in contacts.iter().enumerate() {
            let next = contacts.get(place + 1);
            let until = next.map_or(end, |(next, _)| *next);
            if until - at <= reach {
                continue;
            }
            let open = next.is_none() && last_span;
            let observed = at + reach;
            let draft =
                case.draft("medical contact", record.as_bytes(), *at, (!open).then_some(until), observed);
            let text = format!("No medical contact for more than {} days.", reach / DAY_MS);
            found.push(draft.input(*record).says(Severity::Review, text));
        }
    }
    found
}

pub(super) const R21: Rule = Rule {
    id: "R21",
    version: 1,
    title: "A screen that was not expected, was refused, or was not the right temperature",
    parameters: &[],
    source: "Positive and not judged to be expected, refused, or temperature out of range. A medicine of the plan, or one \
             that was taken in the week before, is expected.",
    reads: &[Topic::Screens, Topic::Doses, Topic::Plan],
    by_clock: false,
    find: |case| {
        let mut found = Vec::new();
        for screen in case.chart.screens.since(case.since_ms) {
            let value = &screen.value;
            let expected = value
                .expected
                .unwrap_or_else(|| is_of_treatment(case, screen.at.millis, day_of(screen), &value.substance));
            let what = match value.result {
                _ if value.temperature_ok == Some(false) => "temperature out of range".to_owned(),
                ScreenResult::Refused => "refused".to_owned(),
                ScreenResult::Positive if !expected => format!("{} found", value.substance),
                ScreenResult::Negative if value.expected == Some(false) => {
                    format!("{} not found", value.substance)
                }
                _ => continue,
            };
            found.push(
                case.at(screen, value.substance.as_str()).says(Severity::Review, format!("Screen: {what}.")),
            );
        }
        found
    },
};

/// Whether a substance is a medicine that was taken in the week before, or one of the plan.
fn is_of_treatment(case: &Case<'_>, at_ms: i64, day: Date, substance: &str) -> bool {
    let fits = |medicine: &Medicine| match Substance::of(substance) {
        Some(Substance::Buprenorphine) => {
            matches!(medicine, Medicine::Buprenorphine | Medicine::BuprenorphineDepot)
        }
        Some(Substance::Methadone) => *medicine == Medicine::Methadone,
        Some(Substance::Benzodiazepine) => matches!(medicine, Medicine::Benzodiazepine(_)),
        _ => false,
    };
    let taken = case.chart.doses.iter().filter(|(medicine, _)| fits(medicine));
    let taken = taken.flat_map(|(_, doses)| doses.between(at_ms - 7 * DAY_MS, at_ms)).next().is_some();
    taken
        || case.chart.plan.regimens().any(|regimen| {
            fits(&Medicine::of(&regimen.value.drug, regimen.value.rxnorm.as_deref()))
                && day_amount_on(regimen.value, day).is_some_and(|amount| amount > 0.0)
        })
}

pub(super) const R25: Rule = Rule {
    id: "R25",
    version: 1,
    title: "An authorization runs out",
    parameters: &[parameter("days", 7.0, "days", 1.0, 60.0), parameter("units", 20.0, "percent", 1.0, 90.0)],
    source: "Ends within 7 days, or 20 % of its units or fewer are left; a concurrent review that is due (own defaults).",
    reads: &[Topic::Visits, Topic::Plan],
    by_clock: true,
    find: |case| {
        let zone = Weeks::of(&case.chart.plan).zone;
        let mut found = Vec::new();
        for Section { record, value, .. } in
            case.chart.plan.authorizations().filter(|one| one.value.state.covers())
        {
            let Some((from, until)) = value.from.zip(value.until) else { continue };
            let (from_ms, until_ms) = (zone.starts_ms(from), zone.starts_ms(plus_days(until, 1)));
            if case.now_ms < from_ms {
                continue;
            }
            let usage = usage(case.chart, value, case.now_ms);
            let end = (until_ms <= case.now_ms).then_some(until_ms);
            let task = |subject: &str, observed: i64, text: String| {
                let draft = case
                    .draft(subject, record.as_bytes(), observed.min(until_ms), end, observed)
                    .input(record);
                draft.owner(Owner::UtilizationReview).says(Severity::Review, text)
            };
            let near = until_ms - case.days("days");
            if near <= case.now_ms {
                found.push(task("days", near, format!("The authorization ends on {until}.")));
            }
            if let Some((left, approved)) = usage.left.zip(usage.approved)
                && left * 100.0 <= case.value("units") * f64::from(approved)
            {
                found.push(task("units", from_ms, format!("{left:.0} of {approved} units are left.")));
            }
            if let Some(review) = value.review
                && zone.starts_ms(review) - case.days("days") <= case.now_ms
            {
                let observed = zone.starts_ms(review) - case.days("days");
                found.push(task("review", observed, format!("The concurrent review is due on {review}.")));
            }
        }
        found
    },
};

pub(super) const R26: Rule = Rule {
    id: "R26",
    version: 1,
    title: "A discharge or step down without an aftercare plan",
    parameters: &[],
    source: "Aftercare begins before the programme ends; without a plan, or a reason for none, the move waits.",
    reads: &[Topic::Plan],
    by_clock: false,
    find: |case| {
        let mut found = Vec::new();
        let mut before = None;
        for Section { record, at, value } in case.chart.plan.level_moves() {
            let lacks = level::needs_aftercare(value, before.replace(value.to), &case.chart.plan);
            if at.millis < case.since_ms || !lacks {
                continue;
            }
            let draft = case.draft("aftercare", record.as_bytes(), at.millis, Some(at.millis), at.millis);
            let what = if value.to == Level::Discharged { "Discharge" } else { "Step down" };
            let text = format!("{what} without an aftercare plan.");
            found.push(draft.input(record).holds().says(Severity::Review, text));
        }
        found
    },
};

pub(super) const R27: Rule = Rule {
    id: "R27",
    version: 1,
    title: "Shared without a consent that holds",
    parameters: &[],
    source: "42 CFR 2.31: no disclosure on a consent that is expired, deficient or revoked. The keys of the category are \
             to be taken back.",
    reads: &[Topic::Consents, Topic::Plan],
    by_clock: true,
    find: |case| {
        let mut found = Vec::new();
        for grant in &case.around.grants {
            let of_grant = case.chart.consents.iter().filter(|consent| {
                consent.value.member == Some(grant.member)
                    && consent.value.categories.contains(&grant.category)
            });
            let consents: Vec<_> = of_grant.collect();
            let now = |consent: &Point<Consent>| Moment { millis: case.now_ms, ..consent.at };
            let holds =
                |consent: &&Point<Consent>| part2::validity(&consent.value, now(consent)) == Validity::Valid;
            // A grant that no consent ever spoke of is not this rule's.
            let Some(last) = consents.last().filter(|_| !consents.iter().any(holds)) else { continue };
            let since = last.value.revoked_ms.unwrap_or(last.at.millis);
            let key = [grant.member.0.as_slice(), grant.category.label().as_bytes()].concat();
            let draft =
                case.draft("consent", &key, since, None, since).inputs(consents.iter().map(|one| one.record));
            let text = format!("{} is shared, and no consent to it holds.", grant.category.label());
            found.push(draft.owner(Owner::PrivacyOfficer).says(Severity::Urgent, text));
        }
        found
    },
};

pub(super) const R28: Rule = Rule {
    id: "R28",
    version: 1,
    title: "A clock that is wrong",
    parameters: &[parameter("minutes", 10.0, "minutes", 1.0, 1_440.0)],
    source: "Written down more than 10 minutes after the server had it, or of a time that lies more than 10 minutes ahead \
             of when it was written (sync safety). Times are shown as they came, and flagged.",
    reads: &[Topic::Entries, Topic::Plan],
    by_clock: false,
    find: |case| {
        let limit = case.minutes("minutes");
        let mut days: BTreeMap<Date, Vec<(&Point<()>, i64)>> = BTreeMap::new();
        for entry in case.chart.entries.since(case.since(2 * DAY_MS)) {
            let ahead = entry.received_ms.map_or(0, |received| entry.recorded_ms - received);
            let skew = ahead.max(entry.at.millis - entry.recorded_ms);
            if skew > limit {
                days.entry(day_of(entry)).or_default().push((entry, skew));
            }
        }
        let mut found = Vec::new();
        for (day, entries) in days {
            let Some((first, _)) = entries.first() else { continue };
            let observed = entries.iter().map(|(entry, _)| entry.at.millis).max().unwrap_or(first.at.millis);
            let worst = entries.iter().map(|(_, skew)| *skew).max().unwrap_or_default();
            let start = begins_ms(day, first);
            let draft = case.draft("clock", &key_of(day), start, Some(start + DAY_MS - 1), observed);
            let text =
                format!("A clock was {} minutes ahead: times of that day may be wrong.", worst / MINUTE_MS);
            found
                .push(draft.inputs(entries.iter().map(|(entry, _)| entry.record)).says(Severity::Info, text));
        }
        found
    },
};
