//! The contract of a log: what every storage backend keeps for the server, and how it is read.
//!
//! A backend is a [`Log`] (one writer, committing whole groups) that hands out [`Reader`]s (any number,
//! each seeing what is committed). Both are synchronous: threads live outside, so a simulation can drive
//! them. What a backend must hold is written as a test suite (`conformance`, in tests) that each runs.
//!
//! Every key begins with the space's id, so that a backend may shard by it.

use std::sync::Arc;

use ebb_protocol::{
    envelope::Envelope,
    id::{DeviceId, Hash, LogId, Millis, Position, RosterSeq, Seq, SpaceId, StreamId},
    judge::Link,
    roster::{EntryWithWraps, Roster},
    session::{Run, Snapshot},
    verify::{PublicKey, Verified},
    wire::{Head, SAMPLES_MAX, SignedLogBorn, SpaceHello},
};
use parking_lot::Mutex;

use crate::recent::Recent;

#[cfg(test)]
pub(crate) mod conformance;
pub mod memory;
pub mod sqlite;

/// Items of one run: a device's own envelopes come as hashes, of which very many would fit the bytes.
pub const RUN_ITEMS_MAX: usize = 1024;
/// Rosters kept ready between connections: some 20 KiB each, so about 40 MiB at most.
const ROSTERS_MAX: usize = 2048;

/// Keeps spaces durably: the only writer of its storage.
pub trait Log: Reader + Send + 'static {
    /// Another view of the same storage, for another thread.
    type Reader: Reader + Send + 'static;

    /// Opens another view of what is committed.
    ///
    /// # Errors
    /// Where the storage gives no more views.
    fn reader(&self) -> Result<Self::Reader, LogError>;

    /// Makes a group durable in one transaction, and says for each part whether it is.
    ///
    /// A part either stands whole or not at all, and one part's failure does not touch the others. On
    /// return, parts that are `Ok` survive a power loss. Names at most one part for each space.
    ///
    /// # Errors
    /// Where nothing of the group was made durable.
    fn commit(&mut self, group: &[SpaceWrites]) -> Result<Vec<Result<(), LogError>>, LogError>;

    /// Writes something durably that nobody reads, to learn whether the storage takes writes.
    ///
    /// # Errors
    /// Where it does not.
    fn probe(&mut self) -> Result<(), LogError>;
}

/// Reads what is committed.
///
/// Every method fails with [`LogError`] where the storage does; nothing is known then.
pub trait Reader {
    /// The present log of a space; `None` where there is no such space.
    fn log_id(&self, space: &SpaceId) -> Result<Option<LogId>, LogError>;

    /// Every birth of a log of the space after a loss, oldest first.
    fn births(&self, space: &SpaceId) -> Result<Vec<SignedLogBorn>, LogError>;

    /// Place and hash of the newest roster entry.
    fn roster_head(&self, space: &SpaceId) -> Result<Option<(RosterSeq, Hash)>, LogError>;

    /// The roster's entries from a place on.
    fn entries(&self, space: &SpaceId, from: RosterSeq) -> Result<Vec<EntryWithWraps>, LogError>;

    /// A stream's head; position 0 where nothing stands there.
    fn head(&self, space: &SpaceId, stream: &StreamId) -> Result<Head, LogError>;

    /// The chain hash at a position, 0 included; `None` beyond the head.
    fn chain(&self, space: &SpaceId, stream: &StreamId, at: Position) -> Result<Option<Hash>, LogError>;

    /// What stands at an author's sequence: one envelope, or several of different epochs.
    fn at(
        &self,
        space: &SpaceId,
        stream: &StreamId,
        author: &DeviceId,
        seq: Seq,
    ) -> Result<Vec<Stored>, LogError>;

    /// An author's highest sequence in a stream, and the hash of its envelope of the highest epoch there.
    fn last(
        &self,
        space: &SpaceId,
        stream: &StreamId,
        author: &DeviceId,
    ) -> Result<Option<(Seq, Hash)>, LogError>;

    /// A run after a position, of at most `bytes_max` bytes of envelopes (but at least one) and
    /// [`RUN_ITEMS_MAX`] items; envelopes of `own` come as hashes. `None` where the space or the
    /// position is unknown.
    fn read(
        &self,
        space: &SpaceId,
        stream: &StreamId,
        after: Position,
        bytes_max: usize,
        own: Option<&DeviceId>,
    ) -> Result<Option<Run>, LogError>;

    /// Reads several things as of one moment, whatever is committed meanwhile.
    fn frozen<T>(&self, look: impl FnOnce(&Self) -> Result<T, LogError>) -> Result<T, LogError>;
}

/// What a group does to one space.
#[derive(Debug)]
pub struct SpaceWrites {
    /// The space.
    pub space: SpaceId,
    /// Whether a log begins with this part.
    pub begins: Option<Begins>,
    /// Roster entries, following on the chain's head.
    pub entries: Vec<NewEntry>,
    /// Envelopes, in the order of their positions in each stream.
    pub envelopes: Vec<Placed>,
}

/// How a log begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begins {
    /// With the space itself.
    First(LogId),
    /// After a loss, in the place of another log (or of none that is left).
    Again(LogId, SignedLogBorn),
}

/// A roster entry and its place.
#[derive(Debug)]
pub struct NewEntry {
    /// Its place in the chain.
    pub seq: RosterSeq,
    /// Its hash.
    pub hash: Hash,
    /// The entry, as it travels.
    pub entry: EntryWithWraps,
}

/// An envelope and its place in a stream's log.
#[derive(Debug)]
pub struct Placed {
    /// The stream, the envelope's position, and the chain hash there.
    pub head: Head,
    /// When the server took it.
    pub received_ms: Millis,
    /// The envelope's hash.
    pub hash: Hash,
    /// The envelope.
    pub envelope: Verified<Envelope>,
}

/// An envelope that stands in a log, as the judge needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its position.
    pub position: Position,
    /// What the judge asks of it.
    pub link: Link,
}

/// Why storage did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// No room is left: free some; the server goes on by itself.
    #[error("the storage is full")]
    Full,
    /// The storage failed to read or write: look at the disk; the server goes on by itself when it can.
    #[error("the storage failed: {0}")]
    Io(String),
    /// What is stored contradicts itself, or what was to be written contradicts it.
    #[error("the stored log is damaged: {0}")]
    Damaged(String),
    /// The files were written by a later version of this server: update it.
    #[error("the log was written by a later version (schema {found}, this server knows {known}): update")]
    Newer {
        /// The schema found.
        found: i64,
        /// The newest schema that this server knows.
        known: i64,
    },
    /// Another process uses these files: stop it first.
    #[error("another process uses {0}")]
    InUse(String),
}

/// Rosters of recently used spaces, so that a connection need not replay a chain.
///
/// What is found here is right whenever its head is the stored one: a roster follows from its entries.
#[derive(Debug)]
pub struct Rosters(Mutex<Recent<SpaceId, Arc<Roster>>>);

impl Default for Rosters {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(ROSTERS_MAX)))
    }
}

impl Rosters {
    /// The roster of a space as stored; call it inside [`Reader::frozen`].
    ///
    /// # Errors
    /// Where storage failed, or holds entries that are no chain.
    pub fn load(&self, reader: &impl Reader, space: &SpaceId) -> Result<Arc<Roster>, LogError> {
        let Some((seq, hash)) = reader.roster_head(space)? else {
            return Ok(Arc::new(Roster::new(*space)));
        };
        let known = self.0.lock().get(space).filter(|roster| roster.hash_at(seq) == Some(hash)).cloned();
        if let Some(roster) = known.filter(|roster| roster.prev() == hash) {
            return Ok(roster);
        }
        let mut roster = Roster::new(*space);
        for entry in reader.entries(space, RosterSeq(0))? {
            let verified =
                roster.verify(entry).map_err(|error| LogError::Damaged(format!("roster: {error}")))?;
            roster.apply(&verified);
        }
        let roster = Arc::new(roster);
        self.keep(&roster);
        Ok(roster)
    }

    /// Keeps the newest roster of a space for those who load it next.
    pub fn keep(&self, roster: &Arc<Roster>) {
        self.0.lock().put(roster.space(), roster.clone());
    }
}

/// Reads what a session asks for when it opens a space; `None` where there is no such space.
///
/// # Errors
/// Where storage failed.
pub fn open(
    reader: &impl Reader,
    rosters: &Rosters,
    device: &DeviceId,
    tls: &PublicKey,
    hello: &SpaceHello,
) -> Result<Option<Snapshot>, LogError> {
    reader.frozen(|reader| {
        let space = &hello.space;
        let Some(log_id) = reader.log_id(space)? else { return Ok(None) };
        let roster = rosters.load(reader, space)?;
        let agreed = hello.roster.filter(|head| roster.hash_at(head.seq) == Some(head.hash));
        let entries = match agreed {
            // They are for devices of the space only: who names it from outside costs no reading.
            _ if !roster.is_device(device, tls) => Vec::new(),
            Some(head) if Some(head) == roster.head() => Vec::new(),
            Some(head) => reader.entries(space, head.seq.next())?,
            None => reader.entries(space, RosterSeq(0))?,
        };
        let streams: Vec<_> = roster.streams().collect();
        let mut heads = Vec::with_capacity(streams.len());
        let mut own_heads = Vec::new();
        for stream in &streams {
            heads.push(reader.head(space, stream)?);
            if let Some((seq, hash)) = reader.last(space, stream, device)? {
                own_heads.push((*stream, seq, hash));
            }
        }
        let mut at_cursors = Vec::with_capacity(hello.cursors.len());
        let mut agrees = hello.log_id.is_zero() || hello.log_id == log_id;
        for cursor in &hello.cursors {
            let chain = reader.chain(space, &cursor.stream, cursor.position)?;
            agrees &= chain == Some(cursor.chain);
            at_cursors.push((cursor.stream, chain));
        }
        let mut samples = Vec::new();
        if !agrees {
            for head in &heads {
                sample(reader, space, head, &mut samples)?;
            }
        }
        let births = reader.births(space)?;
        Ok(Some(Snapshot { log_id, roster, entries, heads, at_cursors, samples, own_heads, births }))
    })
}

/// The head of a stream and the places 1, 2, 4, 8 and so on before it.
fn sample(
    reader: &impl Reader,
    space: &SpaceId,
    head: &Head,
    samples: &mut Vec<Head>,
) -> Result<(), LogError> {
    let newest = head.position.0;
    let before = std::iter::successors(Some(1u64), |step| step.checked_mul(2));
    let places = std::iter::once(newest).chain(before.map_while(|step| newest.checked_sub(step)));
    for place in places.take_while(|place| *place > 0).take(SAMPLES_MAX) {
        let position = Position(place);
        if let Some(chain) = reader.chain(space, &head.stream, position)? {
            samples.push(Head { stream: head.stream, position, chain });
        }
    }
    Ok(())
}
