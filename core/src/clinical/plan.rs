//! The plan as it stands: its sections, by record, and what they ask for.

use std::collections::{BTreeMap, BTreeSet};

use super::instrument::{Instrument, Instruments};
use crate::record::{
    Aftercare, Authorization, Body, Cadence, Level, LevelMove, Moment, PlanVersion, Problem, Programme,
    Record, RecordId, Regimen, RelapsePrevention, SessionSeries, Thresholds,
};

pub mod answers;
pub mod attendance;
pub mod authorization;
pub mod calendar;
pub mod evidence;
pub mod level;
pub mod medication;
pub mod schedule;
pub mod taper;

/// The sections of a plan, in the order in which they were made.
#[derive(Clone, Default)]
pub struct Plan {
    sections: BTreeMap<RecordId, (Moment, Body)>,
}

/// What changed in a plan: the records of sections.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct PlanChanges {
    /// Sections that the version had not.
    pub added: Vec<RecordId>,
    /// Sections that read otherwise.
    pub changed: Vec<RecordId>,
    /// Sections that are no more.
    pub removed: Vec<RecordId>,
}

/// A section of the plan.
#[derive(Clone, Copy)]
pub struct Section<'a, T> {
    /// Its record.
    pub record: RecordId,
    /// When it came to hold.
    pub at: Moment,
    /// What it says.
    pub value: &'a T,
}

macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident: $kind:ident),+ $(,)?) => {$(
        $(#[$doc])*
        pub fn $name(&self) -> impl Iterator<Item = Section<'_, $kind>> {
            self.sections.iter().filter_map(|(record, (at, body))| match body {
                Body::$kind(value) => Some(Section { record: *record, at: *at, value }),
                _ => None,
            })
        }
    )+};
}

impl Plan {
    /// Takes a section up, in place of what its record said before.
    pub fn put(&mut self, record: &Record) {
        self.sections.insert(record.id, (record.occurred, record.body.clone()));
    }

    /// Drops a section, if it is there.
    pub fn remove(&mut self, record: &RecordId) -> bool {
        self.sections.remove(record).is_some()
    }

    sections! {
        /// Lists the medicines.
        regimens: Regimen,
        /// Lists the sessions that come again.
        series: SessionSeries,
        /// Lists what is asked of the person, and how often.
        cadences: Cadence,
        /// Lists the payer's permissions.
        authorizations: Authorization,
        /// Lists what is worked on.
        problems: Problem,
        /// Lists the versions that were made of the plan.
        versions: PlanVersion,
        /// Lists the plans for what comes after.
        aftercare: Aftercare,
        /// Lists how the person means to keep from returning to use.
        relapse_prevention: RelapsePrevention,
    }

    /// Returns what holds for the programme as a whole: what was said last.
    pub fn programme(&self) -> Option<&Programme> {
        self.last(|body| match body {
            Body::Programme(programme) => Some(programme),
            _ => None,
        })
    }

    /// Returns the programme's thresholds: what was said last.
    pub fn thresholds(&self) -> Option<&Thresholds> {
        self.last(|body| match body {
            Body::Thresholds(thresholds) => Some(thresholds),
            _ => None,
        })
    }

    /// Lists the moves between levels of care, the earliest first.
    pub fn level_moves(&self) -> Vec<Section<'_, LevelMove>> {
        let moves = self.sections.iter().filter_map(|(record, (at, body))| match body {
            Body::LevelMove(value) => Some(Section { record: *record, at: *at, value }),
            _ => None,
        });
        let mut moves: Vec<_> = moves.collect();
        moves.sort_by_key(|section| (section.at.millis, section.record));
        moves
    }

    /// Returns the level of care at a moment, in ms since the Unix epoch; `None` before the admission.
    pub fn level_at(&self, millis: i64) -> Option<Level> {
        let moves = self.level_moves();
        let before = moves.iter().rev().find(|section| section.at.millis <= millis);
        before.map(|section| section.value.to)
    }

    /// Returns the version that was made last, by its number.
    pub fn newest_version(&self) -> Option<Section<'_, PlanVersion>> {
        self.versions().max_by_key(|section| (section.value.number, section.record))
    }

    /// Returns what changed since a version of the plan was made; `digest` hashes a section as it reads now.
    ///
    /// Versions themselves are no sections of a plan.
    pub fn changed_since(
        &self,
        version: &PlanVersion,
        digest: impl Fn(&RecordId) -> Option<[u8; 16]>,
    ) -> PlanChanges {
        let sections = self.sections.iter().filter(|(_, (_, body))| !matches!(body, Body::PlanVersion(_)));
        let mut removed: BTreeSet<_> = version.parts.iter().map(|part| part.record).collect();
        let mut changes = PlanChanges::default();
        for (record, _) in sections {
            let was = version.parts.iter().find(|part| part.record == *record).map(|part| part.digest);
            removed.remove(record);
            match was {
                None => changes.added.push(*record),
                Some(was) if digest(record) != Some(was) => changes.changed.push(*record),
                Some(_) => {}
            }
        }
        changes.removed = removed.into_iter().collect();
        changes
    }

    /// Returns every instrument that records may be answers to: those shipped, and the programme's own.
    ///
    /// A file that does not load is left out; it was refused where it was logged, so a newer version wrote it.
    pub fn instruments(&self) -> Instruments {
        let own = self.sections.values().filter_map(|(_, body)| match body {
            Body::ProgrammeInstrument(file) => Instrument::from_json("programme", &file.json).ok(),
            _ => None,
        });
        own.fold(Instruments::shipped().clone(), |all, one| match all.with(one) {
            Ok(more) => more,
            Err(_) => all,
        })
    }

    /// Says whether the programme uses an instrument: those whose licence is not confirmed only where it
    /// turned them on.
    pub fn uses(&self, instrument: &Instrument) -> bool {
        let turned_on = self.thresholds().is_some_and(|own| own.instruments_on.contains(&instrument.id));
        instrument.on_by_default() || turned_on
    }

    /// The value that was said last, by the time of its record.
    fn last<'a, T>(&'a self, of: impl Fn(&'a Body) -> Option<&'a T>) -> Option<&'a T> {
        let said = self.sections.iter().filter_map(|(id, (at, body))| Some((at.millis, id, of(body)?)));
        said.max_by_key(|(at, id, _)| (*at, *id)).map(|(_, _, value)| value)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use jiff::civil::Date;

    use super::{calendar::Zone, *};
    use crate::record::{Category, Domain, Entry, PlanPart, Stamp, Value, Writer};

    /// A record of the plan, as the clinic writes it on a day.
    pub(in crate::clinical) fn section(id: u8, day: Date, body: impl Into<Body>) -> Record {
        record(id, Category::Plan, Zone::UTC.starts_ms(day), &Entry::new(body))
    }

    /// A record of the log, written down when it happened.
    pub(in crate::clinical) fn logged(id: u8, by: Writer, at_ms: i64, entry: Entry) -> Record {
        record(id, entry.body.belongs(by)[0], at_ms, &entry)
    }

    fn record(id: u8, category: Category, at_ms: i64, entry: &Entry) -> Record {
        let recorded = Moment { millis: at_ms, offset_minutes: 0 };
        let value = Value::new(entry, &Stamp { recorded, author: [1; 16], staff: None });
        Record::new(RecordId::from_bytes([id; 16]), category, value, String::new(), None, 0)
    }

    #[test]
    fn a_version_says_what_changed_since() {
        let day = Date::constant(2026, 5, 1);
        let part =
            |id: u8, digest: u8| PlanPart { record: RecordId::from_bytes([id; 16]), digest: [digest; 16] };
        let parts = vec![part(1, 1), part(2, 2), part(3, 3)];
        let version = PlanVersion { number: 1, parts, summary: "First".to_owned() };
        let mut plan = Plan::default();
        for id in [1, 2, 4] {
            plan.put(&section(id, day, Problem::new(Domain::Social, "Housing")));
        }
        plan.put(&section(9, day, version.clone()));
        let now =
            |record: &RecordId| Some(if record.as_bytes()[0] == 2 { [20; 16] } else { *record.as_bytes() });
        let changes = plan.changed_since(&version, now);
        let ids =
            |records: &[RecordId]| records.iter().map(|record| record.as_bytes()[0]).collect::<Vec<_>>();
        assert_eq!(
            [changes.added, changes.changed, changes.removed].map(|ids_of| ids(&ids_of)),
            [[4], [2], [3]]
        );
    }
}
