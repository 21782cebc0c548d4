//! What comes in: runs of logs are checked, stored and applied in one transaction with the cursor.
//!
//! Two verdicts are kept apart. Signature, roster and chain decide whether an envelope counts at all;
//! [`admission`] decides, record by record, whether its content is applied or parked. Neither stops the
//! cursor: one bad change never keeps the others from arriving.

mod admission;

use std::collections::{BTreeMap, BTreeSet};

use ebb_protocol::{
    envelope::{self, Envelope, Header},
    id::{Hash, Position, SpaceId, StreamId},
    judge::{self, Admission, JudgedAt},
    verify::{self, Verified},
    wire::{self, Entries, Head, ItemContent, Refusal},
};

use self::admission::{Offer, apply};
use super::engine::{Engine, Event, Space};
use crate::{
    document::gate::{self, ENVELOPE_ITEMS_MAX},
    error::{Error, Result},
    keys::EpochKey,
    record::RecordId,
    seal::{self, Payload},
    store::{
        Tx, changes, keyring,
        outbox::{self, ACCEPTED, Accepted, HELD, Place, SEALED},
    },
};

/// Inflated content that is gathered before it is applied, and envelopes that are looked at again at once: a
/// thousand of a kilobyte may each inflate to a megabyte.
const CONTENT_BYTES_MAX: usize = 4 << 20;

/// What became of an envelope's signature, roster and chain.
enum Standing {
    Accepted(Box<Verified<Envelope>>),
    /// It names a roster entry, or an author, that is not known yet.
    Held,
    /// It does not count; the reason's code is kept with it.
    Refused(&'static str),
}

impl Engine {
    /// Stores a run of a log and moves the cursor behind it; says where the cursor is then.
    pub(super) fn keep(&mut self, entries: Entries) -> Result<Option<Head>> {
        let (id, stream) = (entries.space, entries.stream);
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(None) };
        let adopts = space.log_id.is_zero();
        if !adopts && space.log_id != entries.log_id {
            return Ok(None);
        }
        let rows = keyring::streams(self.store.read(), &id)?;
        let Some(row) = rows.into_iter().find(|row| row.id == stream) else { return Ok(None) };
        let space = &*space;
        let mut lacks_own = false;
        let applied = self.store.write(|tx| {
            let mut cursor = row.cursor;
            let mut work = Content::new(space);
            if adopts {
                keyring::set_log_id(tx, &id, &entries.log_id)?;
            }
            for (place, item) in entries.items.into_iter().enumerate() {
                let position = Position(entries.first.0 + place as u64);
                if position <= cursor.position {
                    continue;
                }
                if position != cursor.position.next() {
                    return Err(Error::retry("the server left out a place of its log"));
                }
                let hash = match &item.content {
                    ItemContent::Envelope(bytes) => verify::sha256(&[bytes]),
                    ItemContent::Own(hash) => *hash,
                };
                let chain = envelope::chain_next(&cursor.chain, &hash);
                let place = Place { position, chain: Some(chain), received: Some(item.received_ms) };
                match (outbox::known(tx, &id, &hash)?, item.content) {
                    (Some(known), _) => {
                        outbox::vacate(tx, &id, &stream, position)?;
                        outbox::set_place(tx, known.row, place)?;
                        if known.is_superseded {
                            work.reconsider(tx, known.row)?;
                        }
                    }
                    (None, ItemContent::Own(_)) => {
                        lacks_own = true;
                        break;
                    }
                    (None, ItemContent::Envelope(bytes)) => {
                        outbox::vacate(tx, &id, &stream, position)?;
                        work.receive(tx, &stream, bytes.into_vec(), &hash, place)?;
                    }
                }
                cursor = Head { stream, position, chain };
            }
            keyring::set_cursor(tx, &id, &cursor)?;
            let touched = work.finish(tx)?;
            Ok((cursor, touched))
        })?;
        let (cursor, touched) = applied;
        if let Some(space) = self.spaces.get_mut(&id) {
            if adopts {
                space.log_id = entries.log_id;
            }
            if lacks_own {
                // This device once wrote more than it now holds: it was restored or copied.
                space.own_in_full = true;
            }
        }
        self.events.push(Event::Delivery(id));
        if !touched.is_empty() {
            self.records_changed(id, touched);
        }
        Ok((!lacks_own).then_some(cursor))
    }

    /// Looks again at envelopes that waited for a roster entry or a key.
    pub(super) fn look_again(&mut self, id: &SpaceId) -> Result<()> {
        let mut behind = 0;
        loop {
            let Some(space) = self.spaces.get(id) else { return Ok(()) };
            let undecided = outbox::undecided(self.store.read(), id, behind, CONTENT_BYTES_MAX)?;
            let Some((last, _)) = undecided.last() else { return Ok(()) };
            behind = last.row;
            let touched = self.store.write(|tx| {
                let mut work = Content::new(space);
                for (stored, verdict) in undecided {
                    let Ok(envelope) = Envelope::parse(stored.bytes) else { continue };
                    let standing =
                        if verdict == HELD { stand(tx, space, envelope)? } else { verified(space, envelope) };
                    work.decide(tx, standing, Some(stored.row), None)?;
                }
                work.finish(tx)
            })?;
            if !touched.is_empty() {
                self.records_changed(*id, touched);
            }
        }
    }

    /// Tries set-aside content again, once per version of this library: a newer one may take what an
    /// older one could not.
    pub(super) fn retry_after_update(&mut self) -> Result<()> {
        const VERSION: &[u8] = env!("CARGO_PKG_VERSION").as_bytes();
        let tried = keyring::meta(self.store.read(), "quarantine_tried_by")?;
        if tried.is_some_and(|tried| *tried == VERSION) {
            return Ok(());
        }
        for id in self.spaces() {
            self.store.write(|tx| Ok(changes::release_quarantine(tx, &id)?))?;
            self.look_again(&id)?;
        }
        self.store.write(|tx| Ok(keyring::set_meta(tx, "quarantine_tried_by", VERSION)?))
    }
}

/// Checks signature, roster and chain.
fn stand(tx: &Tx<'_>, space: &Space, envelope: Envelope) -> Result<Standing> {
    let verified = match verified(space, envelope) {
        Standing::Accepted(verified) => verified,
        other => return Ok(other),
    };
    let chain = Accepted { db: tx, space: space.id };
    Ok(match judge::admit(&space.settled, &chain, &verified, JudgedAt::Named)? {
        Admission::Fresh | Admission::Duplicate => Standing::Accepted(verified),
        Admission::Refused(Refusal::UnknownHead) => Standing::Held,
        Admission::Refused(reason) => Standing::Refused(code(reason)),
    })
}

/// Checks the signature alone.
fn verified(space: &Space, envelope: Envelope) -> Standing {
    let Some(author) = space.settled.device(&envelope.header().author) else { return Standing::Held };
    match verify::check(envelope, &author.keys.sig) {
        Ok(verified) => Standing::Accepted(Box::new(verified)),
        Err(_) => Standing::Refused("signature"),
    }
}

/// The short name under which a refused envelope is kept; it never changes.
fn code(reason: Refusal) -> &'static str {
    match reason {
        Refusal::StaleEpoch => "stale_epoch",
        Refusal::Role => "role",
        Refusal::Gap(_) => "gap",
        Refusal::Fork => "fork",
        _ => "malformed",
    }
}

/// The content of envelopes that count, gathered record by record and applied together: all of a run, or as much
/// of it as a phone should hold at once.
struct Content<'a> {
    space: &'a Space,
    offers: BTreeMap<RecordId, Vec<Offer>>,
    bytes: usize,
    touched: BTreeSet<RecordId>,
}

impl<'a> Content<'a> {
    fn new(space: &'a Space) -> Self {
        Self { space, offers: BTreeMap::new(), bytes: 0, touched: BTreeSet::new() }
    }

    /// Judges and stores an envelope that was not known before.
    fn receive(
        &mut self,
        tx: &Tx<'_>,
        stream: &StreamId,
        bytes: Vec<u8>,
        hash: &Hash,
        place: Place,
    ) -> Result<()> {
        let envelope = match Envelope::parse(bytes.clone()) {
            Ok(envelope)
                if envelope.header().space == self.space.id && envelope.header().stream == *stream =>
            {
                envelope
            }
            _ => {
                tracing::warn!(space = %self.space.id, stream = %stream, "the log holds what is no envelope of it");
                return Ok(outbox::put_malformed(tx, &self.space.id, stream, hash, place, &bytes)?);
            }
        };
        let header = *envelope.header();
        if header.log_id == self.space.log_id && header.seen_pos.0 > 0 {
            let ours = outbox::chain_at(tx, &self.space.id, stream, header.seen_pos)?;
            if ours.is_some_and(|ours| ours != header.seen_hash) {
                tracing::warn!(space = %self.space.id, author = %header.author, "an author saw another history");
            }
        }
        let standing = stand(tx, self.space, envelope.clone())?;
        self.decide(tx, standing, None, Some((&envelope, place)))
    }

    /// Judges an envelope that this device took apart: it is in the log after all, and others count it.
    fn reconsider(&mut self, tx: &Tx<'_>, row: i64) -> Result<()> {
        let envelope = Envelope::parse(outbox::bytes(tx, row)?).map_err(Error::bug)?;
        let standing = stand(tx, self.space, envelope)?;
        self.decide(tx, standing, Some(row), None)
    }

    /// Stores (or updates) an envelope with its verdict, and takes up its content if it counts.
    fn decide(
        &mut self,
        tx: &Tx<'_>,
        standing: Standing,
        row: Option<i64>,
        fresh: Option<(&Envelope, Place)>,
    ) -> Result<()> {
        let store = |verdict: &str| -> Result<i64> {
            match (row, fresh) {
                (Some(row), _) => {
                    outbox::set_verdict(tx, row, verdict)?;
                    Ok(row)
                }
                (None, Some((envelope, place))) => Ok(outbox::put(tx, envelope, verdict, Some(place))?),
                (None, None) => Err(Error::bug("an envelope is stored already, or comes from a log")),
            }
        };
        let envelope = match standing {
            Standing::Held => return store(HELD).map(drop),
            Standing::Refused(code) => {
                tracing::warn!(space = %self.space.id, code, "the log holds an envelope that does not count");
                return store(code).map(drop);
            }
            Standing::Accepted(envelope) => envelope,
        };
        let header = *envelope.header();
        let key = match self.space.settled.place(&header.roster_head) {
            Some(at) => self.space.settled.epoch_at(&header.stream, at).copied(),
            None => None,
        };
        let key = match key {
            Some(epoch) => {
                keyring::epoch_key(tx, &self.space.id, &header.stream, epoch.epoch, &epoch.key_check)?
            }
            None => None,
        };
        let category = self.space.category(&header.stream);
        let (Some(key), Some(_)) = (key, category) else { return store(SEALED).map(drop) };
        let key = EpochKey::from_bytes(&key).map_err(Error::bug)?;
        let row = store(ACCEPTED)?;
        match open(&key, &envelope) {
            Ok(payload) => {
                for record in payload.records {
                    let id = RecordId::from_bytes(record.record);
                    for bytes in record.changes {
                        let Header { stream, author, .. } = header;
                        self.bytes += bytes.len();
                        self.offers.entry(id).or_default().push(Offer {
                            stream,
                            author,
                            envelope: row,
                            bytes,
                        });
                    }
                }
                if self.bytes > CONTENT_BYTES_MAX { self.apply(tx) } else { Ok(()) }
            }
            Err(code) => {
                tracing::warn!(space = %self.space.id, author = %header.author, code, "content set aside");
                let Header { space, stream, author, .. } = header;
                let record = &RecordId::from_bytes([0; 16]);
                let of = changes::Origin { space: &space, record, stream: &stream, author: &author };
                Ok(changes::quarantine(tx, of, (&envelope.hash().0, None), row, code)?)
            }
        }
    }

    /// Applies what was gathered so far, record by record.
    fn apply(&mut self, tx: &Tx<'_>) -> Result<()> {
        self.bytes = 0;
        for (record, offers) in std::mem::take(&mut self.offers) {
            if apply(tx, self.space, &record, offers)? {
                self.touched.insert(record);
            }
        }
        Ok(())
    }

    /// Applies the rest, and says which records changed.
    fn finish(mut self, tx: &Tx<'_>) -> Result<Vec<RecordId>> {
        self.apply(tx)?;
        Ok(self.touched.into_iter().collect())
    }
}

/// Opens an envelope whose standing is in order, or says why its content does not count.
fn open(key: &EpochKey, envelope: &Verified<Envelope>) -> Result<Payload, &'static str> {
    let plain = seal::open(key, envelope).map_err(|error| error.code())?;
    let payload = Payload::unpack(&plain).map_err(|error| error.code())?;
    let mut items = 0_u64;
    for bytes in payload.records.iter().flat_map(|record| &record.changes) {
        // What the gate refuses on its own is refused there, change by change.
        items += gate::weigh(bytes);
        if items > ENVELOPE_ITEMS_MAX {
            return Err("too_many_items");
        }
    }
    Ok(payload)
}

/// The samples at which this device's history agrees with a server's: per stream the highest.
pub(super) fn common_places(engine: &Engine, need: &wire::NeedEvidence) -> Result<Vec<(StreamId, Position)>> {
    let mut common: BTreeMap<StreamId, Position> = BTreeMap::new();
    for sample in &need.samples {
        let ours = outbox::chain_at(engine.store.read(), &need.space, &sample.stream, sample.position)?;
        if ours == Some(sample.chain) {
            let highest = common.entry(sample.stream).or_default();
            *highest = (*highest).max(sample.position);
        }
    }
    Ok(common.into_iter().collect())
}
