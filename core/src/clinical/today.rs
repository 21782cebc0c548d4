//! What is due now and next, and what a phone should remind of.
//!
//! What is not answered is not missed: it is overdue until its time is over, and unknown after that.

use std::fmt;

use jiff::civil::{Date, DateTime};

use super::{
    chart::{Chart, Measure},
    instrument::AnsweredBy,
    plan::{
        answers::answered_doses,
        attendance::{Outcome, occasions},
        calendar::{DAY_MS, HOUR_MS, MINUTE_MS, Zone, days_between, plus_days},
        schedule::{DueAsk, Weeks, due_asks},
    },
};
use crate::record::{
    Aftercare, Ask, Attendance, Mode, Moment, PlannedDose, PlannedSession, RecordId, SessionKind, Taking,
    Unit,
};

/// How far back today looks for what is not answered.
pub const BEHIND_MS: i64 = DAY_MS;

/// How far ahead today looks.
pub const AHEAD_MS: i64 = DAY_MS;

/// How far ahead today looks for the next session, where there is none within [`AHEAD_MS`].
pub const NEXT_SESSION_MS: i64 = 28 * DAY_MS;

/// How many days ahead today looks for tasks and reviews, which have a day and no time.
pub const TASK_DAYS: i64 = 7;

/// How long a dose or a question is due before it is overdue.
pub const GRACE_MS: i64 = HOUR_MS;

/// Most notifications: iOS keeps the next 64 of an app and drops the others.
pub const NOTIFICATIONS_MAX: usize = 64;

/// What is due within this time is one notification.
pub const MERGED_MS: i64 = 15 * MINUTE_MS;

/// How long before a session a phone reminds of it.
pub const SESSION_NOTICE_MS: i64 = 30 * MINUTE_MS;

/// How many hours ahead a phone schedules notifications, unless it says otherwise.
pub const NOTIFICATION_HOURS: u32 = 48;

/// What is due now and next.
#[derive(Clone, Default)]
pub struct Today {
    /// What there is, the earliest first.
    pub items: Vec<Item>,
    /// Records of what may be due, nobody here knows when or how: their zone or instrument came with a newer
    /// version of Ebb.
    pub not_understood: Vec<RecordId>,
}

/// Something that is due.
#[derive(Clone, PartialEq)]
pub struct Item {
    /// What.
    pub what: What,
    /// The record that asks for it.
    pub record: RecordId,
    /// When, in ms since the Unix epoch.
    pub due_ms: i64,
    /// When, by the calendar and the clock on the wall of the plan's zone.
    pub at: DateTime,
    /// Whether it has a day and no time; `due_ms` and `at` are when the day begins.
    pub all_day: bool,
    /// How it stands.
    pub state: State,
    /// The record that answers it.
    pub answer: Option<RecordId>,
}

impl Item {
    /// Returns when it is due, as it is lived in the plan's zone.
    #[must_use]
    pub fn due(&self) -> Moment {
        let wall_ms = Zone::UTC.moment_ms(self.at.date(), self.at.time()).unwrap_or(self.due_ms);
        let offset_minutes = i16::try_from((wall_ms - self.due_ms) / MINUTE_MS).unwrap_or(0);
        Moment { millis: self.due_ms, offset_minutes }
    }
}

/// Names what is due.
#[derive(Clone, PartialEq)]
pub enum What {
    /// A dose.
    Dose {
        /// Which one, for the record that answers it.
        planned: PlannedDose,
        /// The drug as the plan names it.
        drug: String,
        /// How much.
        amount: f64,
        /// What the amount counts.
        unit: Unit,
        /// Whether it was taken; `None` means unknown.
        taken: Option<bool>,
    },
    /// A check-in.
    CheckIn,
    /// An instrument.
    Instrument {
        /// Which.
        id: String,
        /// Who answers it.
        answered_by: AnsweredBy,
        /// Answers that were begun.
        draft: Option<RecordId>,
    },
    /// A session.
    Session {
        /// Which one, for the record that answers it.
        planned: PlannedSession,
        /// The kind of session.
        session: SessionKind,
        /// What the programme calls it.
        title: String,
        /// How people take part.
        mode: Mode,
        /// When it ends, in ms since the Unix epoch.
        ends_ms: i64,
        /// What became of it.
        outcome: Outcome,
    },
    /// A task of the aftercare plan, in its words.
    Task(String),
    /// A look at a problem of the treatment plan, or at how to keep from returning to use.
    Review,
    /// A day on which somebody asks how it goes, as the aftercare plan says.
    FollowUp,
    /// The person's word on a version of the plan.
    SignOff {
        /// The version's number.
        number: u32,
        /// Whether the person agrees, once they said so.
        agreed: Option<bool>,
    },
}

/// Tells how something stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum State {
    /// It is past its time, and not answered yet.
    Overdue,
    /// It is due now.
    Due,
    /// It is due later.
    Upcoming,
    /// It is answered: a dose also by not being taken, a session also by not being attended.
    Done,
}

/// Says what is due at a moment, in ms since the Unix epoch, and next.
///
/// Doses, questions and sessions of a day back and a day ahead, the next session if that is later, and tasks
/// and reviews of a week ahead. A question is answered by anything of its kind that is logged while it is
/// open ([`DueAsk`]); a draft answers nothing.
#[must_use]
pub fn today(chart: &Chart, now_ms: i64) -> Today {
    let (from_ms, until_ms) = (now_ms.saturating_sub(BEHIND_MS), now_ms.saturating_add(AHEAD_MS));
    let mut items = doses(chart, from_ms, until_ms, now_ms);
    items.extend(asks(chart, from_ms, until_ms, now_ms));
    items.extend(sessions(chart, from_ms, until_ms, now_ms));
    if !items.iter().any(|item| matches!(item.what, What::Session { .. }) && item.due_ms > now_ms) {
        let later = sessions(chart, until_ms, now_ms.saturating_add(NEXT_SESSION_MS), now_ms);
        items.extend(later.into_iter().next());
    }
    items.extend(days(chart, now_ms));
    items.extend(sign_off(chart, now_ms));
    items.sort_by_key(|item| (item.due_ms, item.record));
    Today { items, not_understood: not_understood(chart) }
}

/// How something stands that is due for a time, and past it after that.
fn state(answered: bool, due_ms: i64, late_ms: i64, now_ms: i64) -> State {
    match () {
        () if answered => State::Done,
        () if now_ms < due_ms => State::Upcoming,
        () if now_ms < late_ms => State::Due,
        () => State::Overdue,
    }
}

fn doses(chart: &Chart, from_ms: i64, until_ms: i64, now_ms: i64) -> Vec<Item> {
    let due = answered_doses(chart, from_ms, until_ms).into_iter();
    let items = due.map(|dose| {
        let (planned, at) = (dose.due.planned, dose.due.at);
        let due_ms = planned.due_ms;
        let taken = dose.answer.map(|answer| answer.value.taking == Taking::Taken);
        Item {
            what: What::Dose {
                planned,
                drug: dose.regimen.drug.clone(),
                amount: dose.due.amount,
                unit: dose.regimen.unit,
                taken,
            },
            record: planned.regimen,
            due_ms,
            at,
            all_day: false,
            state: state(taken.is_some(), due_ms, due_ms + GRACE_MS, now_ms),
            answer: dose.answer.map(|answer| answer.record),
        }
    });
    items.collect()
}

/// Questions that are due in a window, or before it and still open.
fn asks(chart: &Chart, from_ms: i64, until_ms: i64, now_ms: i64) -> Vec<Item> {
    let mut items = Vec::new();
    for section in chart.plan.cadences() {
        let cadence = section.value;
        let what = match &cadence.ask {
            Ask::CheckIn => What::CheckIn,
            Ask::Instrument(id) => {
                let found = chart.instruments().get(id).filter(|instrument| chart.plan.uses(instrument));
                let Some(instrument) = found else { continue };
                let (id, answered_by) = (id.clone(), instrument.answered_by);
                What::Instrument { id, answered_by, draft: None }
            }
        };
        let round_ms = (i64::from(cadence.every_days) + 1) * DAY_MS;
        for ask in due_asks(section.record, cadence, from_ms.saturating_sub(round_ms), until_ms) {
            if ask.due_ms < from_ms && ask.closes_ms <= now_ms {
                continue;
            }
            let mut what = what.clone();
            let answer = match ask.ask {
                Ask::CheckIn => check_in(chart, &ask),
                Ask::Instrument(_) => answers(chart, &ask, &mut what),
            };
            items.push(Item {
                what,
                record: section.record,
                due_ms: ask.due_ms,
                at: ask.at,
                all_day: false,
                state: state(answer.is_some(), ask.due_ms, ask.due_ms + GRACE_MS, now_ms),
                answer,
            });
        }
    }
    items
}

/// What a check-in tells at least one of.
static CHECK_IN: [Measure; 5] = [
    Measure::named("mood"),
    Measure::named("stress"),
    Measure::named("craving"),
    Measure::named("pain"),
    Measure::named("sleep_hours"),
];

/// The check-in that answers a question.
fn check_in(chart: &Chart, ask: &DueAsk<'_>) -> Option<RecordId> {
    let told = CHECK_IN.iter().filter_map(|measure| {
        // Craving and pain are instruments as well: their scores are no check-in.
        let scored = chart.answers.get(measure.name());
        let is_score = |record| {
            let answers = scored.into_iter().flat_map(|series| series.between(ask.opens_ms, ask.closes_ms));
            answers.into_iter().any(|answers| answers.record == record)
        };
        let mut readings = chart.readings(measure).between(ask.opens_ms, ask.closes_ms);
        readings.find(|reading| !is_score(reading.record))
    });
    told.min_by_key(|reading| (reading.at.millis, reading.record)).map(|reading| reading.record)
}

/// The answers that answer a question, and those that were begun.
fn answers(chart: &Chart, ask: &DueAsk<'_>, what: &mut What) -> Option<RecordId> {
    let What::Instrument { id, draft, .. } = what else { return None };
    let series = chart.answers.get(id)?;
    let mut complete = series.between(ask.opens_ms, ask.closes_ms).filter(|answers| !answers.value.draft);
    let complete = complete.next().map(|answers| answers.record);
    if complete.is_none() {
        let mut begun = series.between(ask.opens_ms, ask.closes_ms);
        *draft = begun.next_back().map(|answers| answers.record);
    }
    complete
}

fn sessions(chart: &Chart, from_ms: i64, until_ms: i64, now_ms: i64) -> Vec<Item> {
    let all = occasions(chart, from_ms, until_ms).into_iter();
    let items = all.filter_map(|occasion| {
        let session = occasion.planned?;
        let outcome = occasion.outcome();
        let known = outcome != Outcome::Unknown;
        Some(Item {
            what: What::Session {
                planned: session.planned,
                session: session.series.session.clone(),
                title: session.series.title.clone(),
                mode: session.series.mode,
                ends_ms: session.ends_ms,
                outcome,
            },
            record: session.planned.series,
            due_ms: session.starts_ms,
            at: session.at,
            all_day: false,
            state: state(known, session.starts_ms, session.ends_ms, now_ms),
            answer: occasion.visit.filter(|_| known).map(|visit| visit.record),
        })
    });
    items.collect()
}

/// What has a day and no time.
fn days(chart: &Chart, now_ms: i64) -> Vec<Item> {
    let zone = Weeks::of(&chart.plan).zone;
    let today = zone.day(now_ms);
    let item = |record, day: Date, done: bool, what| {
        let within = day <= plus_days(today, TASK_DAYS) && (!done || day == today);
        let due_ms = zone.starts_ms(day);
        let state = state(done, due_ms, zone.starts_ms(plus_days(day, 1)), now_ms);
        let at = zone.wall(due_ms);
        within.then_some(Item { what, record, due_ms, at, all_day: true, state, answer: None })
    };
    let mut items = Vec::new();
    for section in chart.plan.aftercare() {
        items.extend(follow_ups(chart, &zone, section.value, today).filter_map(|(day, visit)| {
            item(section.record, day, visit.is_some(), What::FollowUp)
                .map(|item| Item { answer: visit, ..item })
        }));
        for task in &section.value.tasks {
            let what = || What::Task(task.text.clone());
            items.extend(task.due.and_then(|day| item(section.record, day, task.done, what())));
        }
    }
    let problems = chart.plan.problems().map(|section| (section.record, section.value.review));
    let relapse = chart.plan.relapse_prevention().map(|section| (section.record, section.value.review));
    for (record, review) in problems.chain(relapse) {
        items.extend(review.and_then(|day| item(record, day, false, What::Review)));
    }
    items
}

/// The last day up to now on which the aftercare plan has somebody ask, and the one to come, each with a visit
/// that was kept since.
fn follow_ups<'a>(
    chart: &'a Chart,
    zone: &'a Zone,
    aftercare: &Aftercare,
    today: Date,
) -> impl Iterator<Item = (Date, Option<RecordId>)> + use<'a> {
    let (from, every) = (aftercare.from, i64::from(aftercare.check_in_days.unwrap_or(0)));
    let last = days_between(from, today).checked_div(every).unwrap_or(0).max(0);
    let rounds = [last, last + 1].into_iter().filter(move |round| every > 0 && *round > 0);
    rounds.map(move |round| {
        let day = plus_days(from, round * every);
        let (opens_ms, closes_ms) = (zone.starts_ms(day), zone.starts_ms(plus_days(day, every)));
        let mut visits = chart.visits.between(opens_ms, closes_ms);
        (day, visits.find(|visit| visit.value.attendance == Attendance::Kept).map(|visit| visit.record))
    })
}

/// The newest version of the plan, while the person has not spoken or for a day after.
fn sign_off(chart: &Chart, now_ms: i64) -> Option<Item> {
    let version = chart.plan.newest_version()?;
    let words = chart.sign_offs.iter().rev();
    let word = words.into_iter().find(|word| word.value.version == version.record);
    let due_ms = version.at.millis;
    let recent = word.is_none_or(|word| word.at.millis.saturating_add(BEHIND_MS) > now_ms);
    recent.then(|| Item {
        what: What::SignOff { number: version.value.number, agreed: word.map(|word| word.value.agreed) },
        record: version.record,
        due_ms,
        at: Weeks::of(&chart.plan).zone.wall(due_ms),
        all_day: false,
        state: if word.is_some() { State::Done } else { State::Due },
        answer: word.map(|word| word.record),
    })
}

/// Orders whose zone or instrument this version does not know.
fn not_understood(chart: &Chart) -> Vec<RecordId> {
    let plan = &chart.plan;
    let zones = plan.regimens().map(|section| (section.record, &section.value.zone));
    let zones = zones.chain(plan.series().map(|section| (section.record, &section.value.zone)));
    let zones = zones.chain(plan.cadences().map(|section| (section.record, &section.value.zone)));
    let mut found: Vec<_> =
        zones.filter(|(_, zone)| Zone::named(zone).is_err()).map(|(record, _)| record).collect();
    found.extend(plan.cadences().filter_map(|section| match &section.value.ask {
        Ask::Instrument(id) if chart.instruments().get(id).is_none() => Some(section.record),
        Ask::Instrument(_) | Ask::CheckIn => None,
    }));
    found.sort_unstable();
    found.dedup();
    found
}

/// Something that a phone should remind of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notification {
    /// When, in ms since the Unix epoch.
    pub at_ms: i64,
    /// The same whenever it is worked out anew, as long as the plan is the same: a phone replaces what it has
    /// under this id.
    pub id: String,
    /// What it says.
    pub notice: Notice,
}

/// What a notification says: nothing that whoever sees the lock screen may not know.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Notice {
    /// Something is to be answered.
    Check,
    /// Something begins soon.
    Soon,
}

impl Notice {
    /// Every notice.
    pub const ALL: [Self; 2] = [Self::Check, Self::Soon];

    /// Returns its text in a language (`es`, `es-US`), or in English where there is none in it.
    #[must_use]
    pub fn text(self, language: &str) -> &'static str {
        match (self, language.split(['-', '_']).next()) {
            (Self::Check, Some("es")) => "Es hora de tu registro",
            (Self::Check, _) => "Time for your check",
            (Self::Soon, Some("es")) => "Tienes algo pronto",
            (Self::Soon, _) => "Something is coming up",
        }
    }
}

/// Lists what a phone should remind of after a moment, in ms since the Unix epoch, and for so many hours: doses
/// and questions when they are due, sessions [`SESSION_NOTICE_MS`] before.
///
/// What is answered already needs none, nor what somebody else answers. What falls within [`MERGED_MS`] is one,
/// at the first moment; the first [`NOTIFICATIONS_MAX`] are returned.
#[must_use]
pub fn notifications(chart: &Chart, now_ms: i64, hours: u32) -> Vec<Notification> {
    // Looked at from a day before, so that what is merged stays merged while time goes by.
    let from_ms = now_ms.saturating_sub(BEHIND_MS);
    let until_ms = now_ms.saturating_add(i64::from(hours) * HOUR_MS);
    let sessions_until_ms = until_ms.saturating_add(SESSION_NOTICE_MS);
    let mut items = doses(chart, from_ms, until_ms, now_ms);
    items.extend(asks(chart, from_ms, until_ms, now_ms));
    items.extend(sessions(chart, from_ms, sessions_until_ms, now_ms));

    let mut moments: Vec<_> = items.iter().filter_map(|item| moment(item).map(|at| (at, item))).collect();
    moments.retain(|((at_ms, _), _)| (from_ms..until_ms).contains(at_ms));
    moments.sort_by_key(|((at_ms, _), item)| (*at_ms, item.record));
    let mut merged: Vec<(Notification, bool)> = Vec::new();
    for ((at_ms, notice), item) in moments {
        let open = item.state != State::Done;
        match merged.last_mut().filter(|(last, _)| at_ms < last.at_ms + MERGED_MS) {
            Some((last, is_open)) => {
                last.notice = last.notice.min(notice);
                *is_open |= open;
            }
            None => {
                let id = format!("{}-{}", item.record, item.due_ms);
                merged.push((Notification { at_ms, id, notice }, open));
            }
        }
    }
    let ahead = merged.into_iter().filter(|(one, open)| *open && one.at_ms > now_ms).map(|(one, _)| one);
    ahead.take(NOTIFICATIONS_MAX).collect()
}

/// When a phone reminds of something, and how.
fn moment(item: &Item) -> Option<(i64, Notice)> {
    match &item.what {
        What::Instrument { answered_by: AnsweredBy::Observer, .. }
        | What::Task(_)
        | What::Review
        | What::FollowUp
        | What::SignOff { .. } => None,
        What::Dose { .. } | What::CheckIn | What::Instrument { .. } => Some((item.due_ms, Notice::Check)),
        What::Session { .. } => Some((item.due_ms - SESSION_NOTICE_MS, Notice::Soon)),
    }
}

/// Shows how much there is alone: contents stay out of logs.
impl fmt::Debug for Today {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Today({} items)", self.items.len())
    }
}

/// Shows the state alone: contents stay out of logs.
impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item").field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
