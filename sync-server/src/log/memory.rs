//! The log in memory: what the others are compared with, and crueller than they are.
//!
//! It checks every group against the rules (dense positions, chain hashes, one envelope of an epoch at a
//! sequence) and fails on command: the next commits whole, one space's parts, or every read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ebb_protocol::{
    envelope::{self, Envelope},
    id::{DeviceId, Epoch, Hash, LogId, Millis, Position, RosterSeq, Seq, SpaceId, StreamId},
    judge::Link,
    roster::EntryWithWraps,
    session::Run,
    verify::Verified,
    wire::{Head, Item, ItemContent, SignedLogBorn},
};
use parking_lot::Mutex;

use super::{Begins, Log, LogError, RUN_ITEMS_MAX, Reader, SpaceWrites, Stored};

/// A log in memory. A clone is another view of the same log.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    spaces: Arc<Mutex<BTreeMap<SpaceId, Arc<Space>>>>,
    faults: Arc<Mutex<Faults>>,
}

/// What goes wrong until it is told otherwise.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// So many commits fail whole, with this error.
    pub commits: Option<(u32, LogError)>,
    /// Parts for these spaces fail alone.
    pub spaces: BTreeSet<SpaceId>,
    /// Every read fails.
    pub reads: bool,
}

#[derive(Clone, Debug, Default)]
struct Space {
    log_id: Option<LogId>,
    births: Vec<SignedLogBorn>,
    entries: Vec<(Hash, EntryWithWraps)>,
    streams: BTreeMap<StreamId, Stream>,
}

#[derive(Clone, Debug, Default)]
struct Stream {
    rows: Vec<Row>,
    /// Where in `rows` an author's envelopes are.
    places: BTreeMap<(DeviceId, Seq, Epoch), usize>,
}

#[derive(Clone, Debug)]
struct Row {
    envelope: Verified<Envelope>,
    hash: Hash,
    chain: Hash,
    received_ms: Millis,
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of everything stored as of now, which lives on by itself: a backup.
    #[must_use]
    pub fn backup(&self) -> Self {
        Self { spaces: Arc::new(Mutex::new(self.spaces.lock().clone())), faults: Arc::default() }
    }

    /// Changes what goes wrong from now on.
    pub fn fail(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.faults.lock());
    }

    fn look<T>(&self, space: &SpaceId, look: impl FnOnce(&Space) -> T) -> Result<T, LogError> {
        if self.faults.lock().reads {
            return Err(LogError::Io("told to fail".into()));
        }
        let spaces = self.spaces.lock();
        match spaces.get(space) {
            Some(space) => Ok(look(space)),
            None => Ok(look(&Space::default())),
        }
    }
}

impl Log for MemoryLog {
    type Reader = Self;

    fn reader(&self) -> Result<Self, LogError> {
        Ok(self.clone())
    }

    fn commit(&mut self, group: &[SpaceWrites]) -> Result<Vec<Result<(), LogError>>, LogError> {
        let mut faults = self.faults.lock();
        if let Some((left, error)) = &mut faults.commits {
            let error = error.clone();
            *left -= 1;
            if *left == 0 {
                faults.commits = None;
            }
            return Err(error);
        }
        let mut spaces = self.spaces.lock();
        let outcomes = group.iter().map(|part| {
            if faults.spaces.contains(&part.space) {
                return Err(LogError::Io("told to fail".into()));
            }
            let space = spaces.entry(part.space).or_default();
            space.check(part).map_err(|what| LogError::Damaged(what.into()))?;
            Arc::make_mut(space).apply(part);
            Ok(())
        });
        Ok(outcomes.collect())
    }

    fn probe(&mut self) -> Result<(), LogError> {
        match &self.faults.lock().commits {
            Some((_, error)) => Err(error.clone()),
            None => Ok(()),
        }
    }
}

impl Space {
    /// Checks a part against what stands, and against its own beginning.
    fn check(&self, part: &SpaceWrites) -> Result<(), &'static str> {
        match &part.begins {
            Some(Begins::First(_)) if self.log_id.is_some() => return Err("a space begins once"),
            None if self.log_id.is_none() => return Err("a space begins with a log"),
            _ => {}
        }
        for (place, new) in (self.entries.len() as u64..).zip(&part.entries) {
            if new.seq.0 != place {
                return Err("roster entries are dense");
            }
        }
        let mut ends = BTreeMap::new();
        let mut keys = BTreeSet::new();
        for placed in &part.envelopes {
            let header = placed.envelope.header();
            let rows = self.rows(&header.stream);
            let start = || envelope::chain_start(&part.space, &header.stream);
            let end = ends
                .entry(header.stream)
                .or_insert_with(|| (rows.len() as u64, rows.last().map_or_else(start, |row| row.chain)));
            *end = (end.0 + 1, envelope::chain_next(&end.1, &placed.hash));
            if header.space != part.space || header.stream != placed.head.stream {
                return Err("an envelope stands where its header says");
            }
            if placed.head.position.0 != end.0 {
                return Err("positions are dense");
            }
            if placed.hash != placed.envelope.hash() || placed.head.chain != end.1 {
                return Err("the chain hash follows from the envelopes");
            }
            let key = (header.author, header.seq, header.epoch);
            let stands = |stream: &Stream| stream.places.contains_key(&key);
            if self.streams.get(&header.stream).is_some_and(stands) || !keys.insert((header.stream, key)) {
                return Err("one envelope of an epoch stands at a sequence");
            }
        }
        Ok(())
    }

    fn apply(&mut self, part: &SpaceWrites) {
        match &part.begins {
            Some(Begins::First(log_id)) => self.log_id = Some(*log_id),
            Some(Begins::Again(log_id, born)) => {
                self.log_id = Some(*log_id);
                self.births.push(born.clone());
            }
            None => {}
        }
        self.entries.extend(part.entries.iter().map(|new| (new.hash, new.entry.clone())));
        for placed in &part.envelopes {
            let header = placed.envelope.header();
            let stream = self.streams.entry(header.stream).or_default();
            stream.places.insert((header.author, header.seq, header.epoch), stream.rows.len());
            stream.rows.push(Row {
                envelope: placed.envelope.clone(),
                hash: placed.hash,
                chain: placed.head.chain,
                received_ms: placed.received_ms,
            });
        }
    }

    fn own(&self, stream: &StreamId, author: &DeviceId, from: Seq, to: Seq) -> impl Iterator<Item = usize> {
        let range = (*author, from, Epoch(0))..=(*author, to, Epoch(u32::MAX));
        let places = self.streams.get(stream).map(|stream| stream.places.range(range));
        places.into_iter().flatten().map(|(_, place)| *place)
    }

    fn rows(&self, stream: &StreamId) -> &[Row] {
        self.streams.get(stream).map_or(&[], |stream| &stream.rows)
    }

    fn chain(&self, space: &SpaceId, stream: &StreamId, at: Position) -> Option<Hash> {
        match usize::try_from(at.0).ok()?.checked_sub(1) {
            None => Some(envelope::chain_start(space, stream)),
            Some(before) => self.rows(stream).get(before).map(|row| row.chain),
        }
    }
}

impl Reader for MemoryLog {
    fn log_id(&self, space: &SpaceId) -> Result<Option<LogId>, LogError> {
        self.look(space, |space| space.log_id)
    }

    fn births(&self, space: &SpaceId) -> Result<Vec<SignedLogBorn>, LogError> {
        self.look(space, |space| space.births.clone())
    }

    fn roster_head(&self, space: &SpaceId) -> Result<Option<(RosterSeq, Hash)>, LogError> {
        self.look(space, |space| {
            let (hash, _) = space.entries.last()?;
            Some((RosterSeq(space.entries.len() as u64 - 1), *hash))
        })
    }

    fn entries(&self, space: &SpaceId, from: RosterSeq) -> Result<Vec<EntryWithWraps>, LogError> {
        let skip = usize::try_from(from.0).unwrap_or(usize::MAX);
        self.look(space, |space| space.entries.iter().skip(skip).map(|(_, entry)| entry.clone()).collect())
    }

    fn head(&self, space: &SpaceId, stream: &StreamId) -> Result<Head, LogError> {
        self.look(space, |found| {
            let position = Position(found.rows(stream).len() as u64);
            let chain = found.chain(space, stream, position).expect("a stream has a hash at its head");
            Head { stream: *stream, position, chain }
        })
    }

    fn chain(&self, space: &SpaceId, stream: &StreamId, at: Position) -> Result<Option<Hash>, LogError> {
        self.look(space, |found| found.chain(space, stream, at))
    }

    fn at(
        &self,
        space: &SpaceId,
        stream: &StreamId,
        author: &DeviceId,
        seq: Seq,
    ) -> Result<Vec<Stored>, LogError> {
        self.look(space, |space| {
            let stored = |place: usize| {
                let link = Link::of(&space.rows(stream)[place].envelope);
                Stored { position: Position(place as u64 + 1), link }
            };
            space.own(stream, author, seq, seq).map(stored).collect()
        })
    }

    fn last(
        &self,
        space: &SpaceId,
        stream: &StreamId,
        author: &DeviceId,
    ) -> Result<Option<(Seq, Hash)>, LogError> {
        self.look(space, |space| {
            let newest = space.own(stream, author, Seq(0), Seq(u64::MAX)).last()?;
            let row = &space.rows(stream)[newest];
            Some((row.envelope.header().seq, row.hash))
        })
    }

    fn read(
        &self,
        space: &SpaceId,
        stream: &StreamId,
        after: Position,
        bytes_max: usize,
        own: Option<&DeviceId>,
    ) -> Result<Option<Run>, LogError> {
        self.look(space, |found| {
            let (log_id, chain) = (found.log_id?, found.chain(space, stream, after)?);
            let end = Head { stream: *stream, position: after, chain };
            let mut run = Run { space: *space, log_id, first: after.next(), items: Vec::new(), end };
            let skip = usize::try_from(after.0).ok()?;
            let mut bytes = 0;
            for row in found.rows(stream).iter().skip(skip).take(RUN_ITEMS_MAX) {
                let content = match own {
                    Some(own) if row.envelope.header().author == *own => ItemContent::Own(row.hash),
                    _ => ItemContent::Envelope(row.envelope.as_bytes().to_vec().into()),
                };
                bytes += match &content {
                    ItemContent::Envelope(envelope) => envelope.len(),
                    ItemContent::Own(_) => size_of::<Hash>(),
                };
                if !run.items.is_empty() && bytes > bytes_max {
                    break;
                }
                run.items.push(Item { received_ms: row.received_ms, content });
                run.end.position = run.end.position.next();
                run.end.chain = row.chain;
            }
            Some(run)
        })
    }

    fn frozen<T>(&self, look: impl FnOnce(&Self) -> Result<T, LogError>) -> Result<T, LogError> {
        let frozen =
            Self { spaces: Arc::new(Mutex::new(self.spaces.lock().clone())), faults: self.faults.clone() };
        look(&frozen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_conforms() {
        super::super::conformance::conformance(MemoryLog::new);
    }
}
