//! The plan as it stands: its sections, by record.

use std::collections::BTreeMap;

use super::instrument::{Instrument, Instruments};
use crate::record::{
    Aftercare, Authorization, Body, Cadence, Level, LevelMove, Moment, Programme, Record, RecordId, Regimen,
    RelapsePrevention, SessionSeries, Thresholds,
};

/// The sections of a plan, in the order in which they were made.
#[derive(Clone, Default)]
pub struct Plan {
    sections: BTreeMap<RecordId, (Moment, Body)>,
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
