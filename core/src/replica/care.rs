//! Clinical knowledge of each space: its chart, and the alerts that this device found in it.
//!
//! A chart is loaded once, with the first record that comes or the first question, then follows the records:
//! what a rule finds is told at once, on a phone with no network as at a desk that nobody looks at. A desk has
//! those in memory that were busy last.

use std::collections::{BTreeMap, BTreeSet};

use ebb_protocol::{id::SpaceId, roster::Recipient, verify};

use super::{
    engine::{Engine, Event, Space},
    journal::{invalid, record_of},
};
use crate::{
    clinical::{
        chart::{Chart, Touched},
        instrument::{Instrument, Instruments},
        plan::{self, PlanChanges},
        rules::{self, Alert, Grant, Ledger, Rule, Surroundings},
        today::{self, Notification, Today},
    },
    error::{Cause, Error, Result},
    record::{
        AlertId, Answers, Body, Category, Entry, Kind, PlanPart, PlanVersion, Record, RecordId, Writer,
    },
    store::{
        Tx, alerts,
        views::{self, Filter, ViewRow},
    },
};

/// How far back a look at the clock reaches before the last one: days are the coarsest thing that it counts.
const DAY_MS: i64 = 86_400_000;

/// How far ahead of this device's clock something that happened may lie, in ms: clocks are set wrong by a day
/// now and then, and what is worse than that was typed wrong.
const AHEAD_MS_MAX: i64 = DAY_MS;

/// How old a look at the clock may be, in ms.
const LOOK_MS_MAX: i64 = 60_000;

/// How many charts are in memory: a desk's patients of a day.
const CARES_MAX: usize = 64;

/// What is known of the spaces that were busy last.
#[derive(Default)]
pub(super) struct Cares {
    of: BTreeMap<SpaceId, Care>,
    /// How often one was used.
    uses: u64,
}

impl Cares {
    pub(super) fn clear(&mut self) {
        self.of.clear();
    }

    fn get(&self, id: &SpaceId) -> Option<&Care> {
        self.of.get(id)
    }

    fn get_mut(&mut self, id: &SpaceId) -> Option<&mut Care> {
        let care = self.of.get_mut(id)?;
        self.uses += 1;
        care.used = self.uses;
        Some(care)
    }

    /// Takes one in, in the place of the one that was used the longest ago where there are too many.
    fn insert(&mut self, id: SpaceId, care: Care) {
        if self.of.len() >= CARES_MAX {
            let oldest = self.of.iter().min_by_key(|(_, care)| care.used).map(|(id, _)| *id);
            self.of.retain(|id, _| Some(*id) != oldest);
        }
        self.uses += 1;
        self.of.insert(id, Care { used: self.uses, ..care });
    }

    fn remove(&mut self, id: &SpaceId) {
        self.of.remove(id);
    }
}

/// What is known of a space.
pub(super) struct Care {
    chart: Chart,
    ledger: Ledger,
    /// When rules that go by the clock were evaluated last, in ms since the Unix epoch.
    looked_ms: i64,
    /// Found while the disk was full, and not kept yet.
    unkept: BTreeSet<AlertId>,
    /// When it was used last, among all uses.
    used: u64,
}

impl Engine {
    /// Says that records changed: to observers, and to what is known of the space.
    pub(super) fn records_changed(&mut self, id: SpaceId, records: Vec<RecordId>) {
        self.attended(id, |engine| match engine.cares.get(&id) {
            Some(_) => engine.told(&id, &records).and_then(|told| engine.attend(&id, told)),
            // What is loaded now knows them already.
            None => engine.care(&id).map(drop),
        });
        self.events.push(Event::Records(id, records));
    }

    /// Does what may fail without harm: the records are safe, and what is known of the space is loaded anew when
    /// it is asked for.
    fn attended(&mut self, id: SpaceId, work: impl FnOnce(&mut Self) -> Result<()>) {
        if let Err(error) = work(self) {
            tracing::warn!(?error, "the rules could not be evaluated now");
            self.cares.remove(&id);
            self.sobered(error);
        }
    }

    /// Takes a record into the chart of its space before it is kept, and says what the rules find then, to be kept
    /// with it. If it is not kept after all, [`Engine::unforesee`].
    pub(super) fn foresee(&mut self, id: &SpaceId, view: ViewRow) -> Result<Found> {
        let by = self.writer();
        let Some(care) = self.cares.get_mut(id) else { return Ok(Found::new()) };
        let Touched { topics, since_ms } = care.chart.put(&record_of(view)?, by, None);
        self.find(id, since_ms, |rule| rule.reads_any(&topics))
    }

    /// Forgets a chart that took in what was not kept: it is loaded anew.
    pub(super) fn unforesee(&mut self, id: &SpaceId) {
        self.cares.remove(id);
    }

    /// Says that a record was kept, with what the rules found.
    pub(super) fn kept(&mut self, id: SpaceId, record: RecordId, found: Found) {
        if !found.is_empty() {
            self.events.push(Event::Alerts(id, found.into_iter().map(|(alert, _)| alert).collect()));
        }
        if self.cares.get(&id).is_none() {
            self.attended(id, |engine| engine.care(&id).map(drop));
        }
        self.events.push(Event::Records(id, vec![record]));
    }

    /// Takes records into the chart of their space, and evaluates the rules that read what they say.
    fn attend(&mut self, id: &SpaceId, told: Vec<Told>) -> Result<()> {
        let care = self.cares.get_mut(id).ok_or_else(gone)?;
        let touched = told.iter().map(|(record, by, received_ms)| care.chart.put(record, *by, *received_ms));
        let all = touched.reduce(|mut all, one| {
            all.topics.extend(one.topics);
            all.since_ms = all.since_ms.min(one.since_ms);
            all
        });
        match all {
            Some(Touched { topics, since_ms }) => self.evaluate(id, since_ms, |rule| rule.reads_any(&topics)),
            None => Ok(()),
        }
    }

    /// What is known of a space at this moment.
    pub(super) fn care(&mut self, id: &SpaceId) -> Result<&Care> {
        let now_ms = self.now().millis;
        let Some(care) = self.cares.get_mut(id) else {
            let care = self.load_care(id)?;
            self.cares.insert(*id, care);
            self.evaluate(id, i64::MIN, |_| true)?;
            return self.cares.get(id).ok_or_else(gone);
        };
        let last = care.looked_ms;
        if (now_ms - last).abs() > LOOK_MS_MAX {
            care.looked_ms = now_ms;
            self.evaluate(id, last.min(now_ms) - DAY_MS, |rule| rule.by_clock)?;
        } else if !care.unkept.is_empty() {
            self.evaluate(id, now_ms, |_| false)?;
        }
        self.cares.get(id).ok_or_else(gone)
    }

    /// Checks that an entry may be logged here and now, or put in the place of `edited`.
    pub(super) fn check_entry(
        &mut self,
        id: &SpaceId,
        entry: &Entry,
        edited: Option<RecordId>,
    ) -> Result<()> {
        let writer = self.writer();
        let latest_ms = self.now().millis.saturating_add(AHEAD_MS_MAX);
        let of_plan = entry.body.belongs(writer).first() == Some(&Category::Plan);
        if !of_plan && entry.occurred.is_some_and(|occurred| occurred.millis > latest_ms) {
            return Err(Error::fix("occurred", "not more than a day ahead of this device's clock"));
        }
        // What does not depend on the plan needs no chart.
        let shipped = |answers: &Answers| Instruments::shipped().get(&answers.instrument);
        let by_itself = match &entry.body {
            Body::Answers(answers) => shipped(answers).is_some_and(Instrument::on_by_default),
            Body::Regimen(_) | Body::Thresholds(_) | Body::LevelMove(_) | Body::ProgrammeInstrument(_) => {
                false
            }
            _ => true,
        };
        if by_itself {
            return entry.validate(writer).map_err(invalid);
        }
        let now_ms = self.now().millis;
        let chart = &self.care(id)?.chart;
        entry.validate_with(writer, chart.instruments()).map_err(invalid)?;
        match &entry.body {
            Body::Answers(Answers { instrument, .. }) => {
                let used = chart.instruments().get(instrument).is_some_and(|known| chart.plan.uses(known));
                if used { Ok(()) } else { Err(Error::fix("instrument", "one that the programme turned on")) }
            }
            Body::Regimen(regimen) => {
                plan::medication::check_regimen(regimen, &chart.plan, edited).map(drop).map_err(invalid)
            }
            Body::LevelMove(one) => {
                let at_ms = entry.occurred.map_or(now_ms, |occurred| occurred.millis);
                let before = match edited.and_then(|own| chart.happened_ms(&own)) {
                    Some(own_ms) => chart.plan.level_at(own_ms.saturating_sub(1)),
                    None => chart.plan.level_at(at_ms),
                };
                let lacks = plan::level::needs_aftercare(one, before, &chart.plan);
                let allowed = "a reason, where a discharge or step down has no aftercare plan yet";
                if lacks { Err(Error::fix("without_aftercare", allowed)) } else { Ok(()) }
            }
            Body::Thresholds(own) => rules::check_thresholds(own, chart.instruments()).map_err(invalid),
            Body::ProgrammeInstrument(file) => {
                let instrument = Instrument::from_json("json", &file.json);
                let taken = instrument.and_then(|instrument| chart.instruments().with(instrument));
                taken.map(drop).map_err(|error| Error::fix("json", error.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// In which category an entry belongs: that of its instrument, for answers.
    pub(super) fn category_of(&mut self, id: &SpaceId, entry: &Entry) -> Result<Category> {
        let belongs = entry.body.belongs(self.writer());
        let usual = *belongs.first().ok_or_else(|| Error::fix("body", "a kind that this side writes"))?;
        let Body::Answers(Answers { instrument, .. }) = &entry.body else { return Ok(usual) };
        if Instruments::shipped().get(instrument).is_some() {
            return Ok(usual);
        }
        let own = self.care(id)?.chart.instruments().get(instrument).map(|own| own.category);
        Ok(own.filter(|own| belongs.contains(own)).unwrap_or(usual))
    }

    /// Makes a version of the plan as it reads now.
    pub(super) fn publish_plan(&mut self, id: &SpaceId, summary: &str) -> Result<RecordId> {
        let parts =
            self.digests(id)?.into_iter().map(|(record, digest)| PlanPart { record, digest }).collect();
        let last = self.care(id)?.chart.plan.newest_version().map_or(0, |version| version.value.number);
        self.log(id, &Entry::new(PlanVersion { number: last + 1, parts, summary: summary.to_owned() }))
    }

    /// What changed in the plan since its newest version; all of it is new where there is none.
    pub(super) fn plan_changes(&mut self, id: &SpaceId) -> Result<PlanChanges> {
        let digests = self.digests(id)?;
        let plan = &self.care(id)?.chart.plan;
        let none = PlanVersion { number: 0, parts: Vec::new(), summary: String::new() };
        let version = plan.newest_version().map_or(&none, |version| version.value);
        Ok(plan.changed_since(version, |record| digests.get(record).copied()))
    }

    /// A hash of every section of the plan as it reads now.
    fn digests(&self, id: &SpaceId) -> Result<BTreeMap<RecordId, [u8; 16]>> {
        self.space(id)?;
        let filter = Filter { category: Some(Category::Plan.label()), ..Filter::default() };
        let sections = views::list(self.store.read(), id, &filter)?
            .into_iter()
            .filter(|view| view.retraction.is_none() && view.kind != Kind::PlanVersion.label());
        let digest = |value: &[u8]| {
            let mut digest = [0; 16];
            digest.copy_from_slice(&verify::sha256(&[value]).0[..16]);
            digest
        };
        Ok(sections.map(|view| (view.id, digest(&view.value))).collect())
    }

    /// What is due at this moment.
    pub(super) fn today(&mut self, id: &SpaceId) -> Result<Today> {
        let now_ms = self.now().millis;
        Ok(today::today(&self.care(id)?.chart, now_ms))
    }

    /// What a phone should remind of in the hours to come.
    pub(super) fn notifications(&mut self, id: &SpaceId, hours: u32) -> Result<Vec<Notification>> {
        let now_ms = self.now().millis;
        Ok(today::notifications(&self.care(id)?.chart, now_ms, hours))
    }

    /// The alerts of a space, as they stand.
    pub(super) fn alerts(&mut self, id: &SpaceId) -> Result<Vec<AlertView>> {
        let Care { chart, ledger, .. } = self.care(id)?;
        let view = |alert: &Alert| AlertView { state: alert.state(chart), alert: alert.clone() };
        Ok(ledger.iter().map(view).collect())
    }

    /// Reads the chart of a space.
    pub(super) fn chart<T>(&mut self, id: &SpaceId, read: impl FnOnce(&Chart) -> T) -> Result<T> {
        Ok(read(&self.care(id)?.chart))
    }

    /// Evaluates rules, and keeps what is new or changed.
    fn evaluate(&mut self, id: &SpaceId, since_ms: i64, asked: impl Fn(&Rule) -> bool) -> Result<()> {
        let found = self.find(id, since_ms, asked)?;
        let care = self.cares.get_mut(id).ok_or_else(gone)?;
        care.unkept.extend(found.iter().map(|(alert, _)| *alert));
        if care.unkept.is_empty() {
            return Ok(());
        }
        // As they stand now.
        let unkept = care.unkept.iter().filter_map(|alert| Some((*alert, to_bytes(care.ledger.get(alert)?))));
        let unkept: Found = unkept.collect();
        match self.store.write(|tx| put_alerts(tx, id, &unkept)) {
            Ok(()) => care.unkept.clear(),
            // Nobody is kept from seeing what was found: it is kept as soon as there is room.
            Err(Error::FreeSpace(_)) => tracing::warn!("no room to keep what the rules found"),
            Err(error) => {
                // What is in memory only would be kept never: it is found again with the next loading.
                self.cares.remove(id);
                return Err(error);
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        self.events.push(Event::Alerts(*id, found.into_iter().map(|(alert, _)| alert).collect()));
        Ok(())
    }

    /// Evaluates rules, and says what is new or changed.
    fn find(&mut self, id: &SpaceId, since_ms: i64, asked: impl Fn(&Rule) -> bool) -> Result<Found> {
        let now_ms = self.now().millis;
        let space = self.spaces.get(id).ok_or_else(gone)?;
        let care = self.cares.get_mut(id).ok_or_else(gone)?;
        let around = surroundings(space, &care.chart);
        let changed = care.ledger.look(&care.chart, &around, now_ms, since_ms, asked);
        Ok(changed.into_iter().filter_map(|id| Some((id, to_bytes(care.ledger.get(&id)?)))).collect())
    }

    fn load_care(&self, id: &SpaceId) -> Result<Care> {
        let space = self.space(id)?;
        let received: BTreeMap<_, _> = match space.own {
            true => BTreeMap::new(),
            false => alerts::received(self.store.read(), id)?.into_iter().collect(),
        };
        let mut chart = Chart::default();
        for view in views::list(self.store.read(), id, &Filter::default())? {
            let by = space.writes_as(&view.author);
            let Some(record) = readable(record_of(view))? else { continue };
            chart.put(&record, by, received.get(&record.id).copied());
        }
        let rows = alerts::all(self.store.read(), id)?;
        let kept = rows.iter().map(|bytes| from_bytes(bytes)).collect::<Option<Vec<_>>>();
        let kept = kept.ok_or_else(|| Error::Update(Cause::new("an alert of a newer version")))?;
        Ok(Care {
            chart,
            ledger: Ledger::of(kept),
            looked_ms: self.now().millis,
            unkept: BTreeSet::new(),
            used: 0,
        })
    }

    /// Records, each with whose hand it is from and when the server received it.
    fn told(&self, id: &SpaceId, records: &[RecordId]) -> Result<Vec<Told>> {
        let space = self.space(id)?;
        let mut told = Vec::new();
        for record in records {
            let Some(view) = views::get(self.store.read(), id, record)? else { continue };
            let by = space.writes_as(&view.author);
            let received_ms = match space.own {
                true => None,
                false => alerts::received_of(self.store.read(), id, record)?,
            };
            told.extend(readable(record_of(view))?.map(|record| (record, by, received_ms)));
        }
        Ok(told)
    }
}

/// Alerts that are new or changed, each as it is kept.
pub(super) type Found = Vec<(AlertId, Vec<u8>)>;

/// Keeps what was found.
pub(super) fn put_alerts(tx: &Tx<'_>, id: &SpaceId, found: &Found) -> Result<()> {
    found.iter().try_for_each(|(alert, value)| Ok(alerts::put(tx, id, alert, value)?))
}

/// A record, whose hand it is from, and when the server received it, in ms since the Unix epoch.
type Told = (Record, Writer, Option<i64>);

/// What rules go by beside the records.
fn surroundings(space: &Space, chart: &Chart) -> Surroundings {
    let mut grants = Vec::new();
    // Grants are held against consents: where there is none, nobody asks for them.
    let streams = space.roster.streams().filter(|_| !chart.consents.is_empty());
    for (stream, category) in streams.filter_map(|stream| Some((stream, space.category(&stream)?))) {
        let members = space.roster.recipients(&stream).into_iter().filter_map(|recipient| match recipient {
            Recipient::Member(member) => Some(member),
            _ => None,
        });
        grants.extend(members.map(|member| Grant { member, category }));
    }
    // On the person's own device, what was logged has been heard.
    let last_heard_ms = (!space.own).then(|| chart.heard_ms.unwrap_or(i64::MIN));
    Surroundings { last_heard_ms, grants }
}

/// An alert, and how it stands with it.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertView {
    /// What was found, and its history on this device.
    pub alert: Alert,
    /// How it stands with it.
    pub state: rules::AlertState,
}

/// A record, unless it is in a category of a newer version: then it is not for this one to judge.
fn readable(record: Result<Record>) -> Result<Option<Record>> {
    match record {
        Ok(record) => Ok(Some(record)),
        Err(Error::Update(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn to_bytes(alert: &Alert) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(alert, &mut bytes).expect("writing to memory cannot fail");
    bytes
}

fn from_bytes(bytes: &[u8]) -> Option<Alert> {
    ciborium::from_reader(bytes).ok()
}

fn gone() -> Error {
    Error::bug("a space's chart is gone")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_that_was_used_the_longest_ago_makes_room() {
        let id = |number: usize| SpaceId([u8::try_from(number).expect("few"); 16]);
        let care = || Care {
            chart: Chart::default(),
            ledger: Ledger::default(),
            looked_ms: 0,
            unkept: BTreeSet::new(),
            used: 0,
        };
        let mut cares = Cares::default();
        (0..CARES_MAX).for_each(|number| cares.insert(id(number), care()));
        assert!(cares.get_mut(&id(0)).is_some(), "as many as there may be");
        cares.insert(id(CARES_MAX), care());
        let gone: Vec<_> = (0..=CARES_MAX).filter(|number| cares.get(&id(*number)).is_none()).collect();
        assert_eq!(gone, [1]);
    }
}
