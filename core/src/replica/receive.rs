//! What comes in: runs of logs are checked, stored and applied in one transaction with the cursor.
//!
//! Two verdicts are kept apart. Signature, roster and chain decide whether an envelope counts at all;
//! the gate decides, record by record, whether its content is applied or parked. Neither stops the
//! cursor: one bad change never keeps the others from arriving.

use std::collections::{BTreeMap, BTreeSet};

use ebb_protocol::{
    envelope::{self, Envelope, Header},
    id::{DeviceId, Hash, Position, SpaceId, StreamId},
    judge::{self, Admission, JudgedAt},
    verify::{self, Verified},
    wire::{self, Entries, Head, ItemContent, Refusal},
};

use super::{
    engine::{Engine, Event, Space},
    journal::{load, put_view, view_of},
};
use crate::{
    document::{
        self, Admitted, Document, Written,
        gate::{self, CHANGES_PER_AUTHOR_AND_RECORD_MAX, ENVELOPE_ITEMS_MAX},
    },
    error::{Error, Result},
    keys::EpochKey,
    record::{Body, Category, RecordId, Value},
    seal::{self, Payload},
    store::{
        Tx, changes, keyring,
        outbox::{self, ACCEPTED, Accepted, HELD, Place, SEALED},
        views,
    },
};

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
        let Some(space) = self.spaces.get(id) else { return Ok(()) };
        let undecided = outbox::undecided(self.store.read(), id)?;
        if undecided.is_empty() {
            return Ok(());
        }
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
        Ok(())
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
            let space = self.spaces.get(&id).ok_or_else(|| Error::bug("a space is gone"))?;
            let touched = self.store.write(|tx| {
                let mut work = Content::new(space);
                for row in changes::take_quarantine(tx, &id)? {
                    let changes::Quarantined { stream, author, envelope, record, bytes } = row;
                    work.offer(record, Offer { stream, author, envelope, bytes });
                }
                outbox::seal_quarantined(tx, &id)?;
                work.finish(tx)
            })?;
            if !touched.is_empty() {
                self.records_changed(id, touched);
            }
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

/// The content of envelopes that count, gathered record by record and applied together.
struct Content<'a> {
    space: &'a Space,
    offers: BTreeMap<RecordId, Vec<Offer>>,
}

/// A change that an envelope brought.
struct Offer {
    stream: StreamId,
    author: DeviceId,
    envelope: i64,
    bytes: Vec<u8>,
}

impl<'a> Content<'a> {
    fn new(space: &'a Space) -> Self {
        Self { space, offers: BTreeMap::new() }
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
                        self.offer(id, Offer { stream, author, envelope: row, bytes });
                    }
                }
                Ok(())
            }
            Err((code, bytes)) => {
                tracing::warn!(space = %self.space.id, author = %header.author, code, "content set aside");
                Ok(changes::quarantine(tx, &self.space.id, row, &[0; 16], code, &bytes)?)
            }
        }
    }

    fn offer(&mut self, record: RecordId, offer: Offer) {
        self.offers.entry(record).or_default().push(offer);
    }

    /// Applies what was offered, record by record, and says which records changed.
    fn finish(self, tx: &Tx<'_>) -> Result<Vec<RecordId>> {
        let Self { space, offers } = self;
        let mut touched = Vec::new();
        for (record, offers) in offers {
            if apply(tx, space, &record, offers)? {
                touched.push(record);
            }
        }
        Ok(touched)
    }
}

/// Opens an envelope whose standing is in order; what fails comes back with its code and bytes.
fn open(key: &EpochKey, envelope: &Verified<Envelope>) -> Result<Payload, (&'static str, Vec<u8>)> {
    let plain = match seal::open(key, envelope) {
        Ok(plain) => plain,
        Err(error) => return Err((error.code(), Vec::new())),
    };
    let payload = Payload::unpack(&plain).map_err(|error| (error.code(), plain.clone()))?;
    let mut items = 0_u64;
    for bytes in payload.records.iter().flat_map(|record| &record.changes) {
        // What the gate refuses on its own is refused there, change by change.
        items += gate::weigh(bytes);
        if items > ENVELOPE_ITEMS_MAX {
            return Err(("too_many_items", plain));
        }
    }
    Ok(payload)
}

/// Applies changes to one record: the good ones count, others wait or are set aside.
fn apply(tx: &Tx<'_>, space: &Space, record: &RecordId, mut offers: Vec<Offer>) -> Result<bool> {
    for waiting in changes::take_waiting(tx, &space.id, record)? {
        let changes::Waiting { stream, author, envelope, bytes, .. } = waiting;
        offers.push(Offer { stream, author, envelope, bytes });
    }
    // A record lives in the stream that brought the first good change of it. Whoever names it in another one,
    // to keep it from those who do not have it yet, brings none.
    let mut home = views::get(tx, &space.id, record)?.map(|view| view.stream);
    let mut changed = false;
    while let Some(first) = offers.first() {
        let stream = home.unwrap_or(first.stream);
        let (here, elsewhere) =
            offers.into_iter().partition(|offer| home.is_some() || offer.stream == stream);
        offers = elsewhere;
        if apply_in(tx, space, record, stream, here)? {
            (home, changed) = (Some(stream), true);
        }
    }
    Ok(changed)
}

/// The same, of a record that lives in a stream, or would.
fn apply_in(
    tx: &Tx<'_>,
    space: &Space,
    record: &RecordId,
    stream: StreamId,
    offers: Vec<Offer>,
) -> Result<bool> {
    let id = &space.id;
    let stored = changes::of_record(tx, id, record)?;
    let Some(category) = space.category(&stream) else {
        return Err(Error::bug("content of a stream without a label was opened"));
    };
    let fitting = without_misfits(tx, space, record, (&stream, category), &stored, offers)?;
    if fitting.is_empty() {
        return Ok(false);
    }
    let before = match stored.is_empty() {
        true => Document::empty(),
        false => match load(&stored) {
            Ok(document) => document,
            Err(error) => {
                // What is kept of it makes no document any more. The other records must go on.
                tracing::warn!(space = %space.id, %record, ?error, "a record does not load: what comes for it is set aside");
                for offer in &fitting {
                    set_aside(tx, space, record, offer, "unloadable")?;
                }
                return Ok(false);
            }
        },
    };
    let actor = |offer: &Offer| verify::actor_id(&offer.author, &offer.stream);
    let Admitted { document, refused } =
        before.admit_all(fitting.iter().map(|offer| (offer.bytes.as_slice(), actor(offer))));
    let refused: BTreeMap<usize, document::Refusal> = refused.into_iter().collect();
    let mut added = BTreeSet::new();
    for (place, offer) in fitting.iter().enumerate() {
        let Offer { stream, author, envelope, bytes } = offer;
        match refused.get(&place) {
            Some(document::Refusal::Waiting { .. }) => {
                let hash = gate::inspect(bytes).map_err(Error::bug)?.hash;
                let (stream, author, envelope, bytes) = (*stream, *author, *envelope, bytes.clone());
                let waiting = changes::Waiting { hash, stream, author, envelope, bytes };
                changes::put_waiting(tx, id, record, &waiting)?;
            }
            Some(refusal) => set_aside(tx, space, record, offer, refusal.code())?,
            None => {
                let hash = gate::inspect(bytes).map_err(Error::bug)?.hash;
                if added.insert(hash) {
                    changes::insert(tx, id, record, &hash, author, Some(*envelope), bytes)?;
                }
            }
        }
    }
    if added.is_empty() {
        return Ok(false);
    }
    let state = document.state();
    let author = space.device_of(&state.actor, &stream);
    put_view(tx, id, &view_of(*record, stream, category, author, &state)?)?;
    Ok(true)
}

/// Sets aside what belongs to another stream, what its author may not write and what goes beyond an author's
/// number of changes, and drops what is there already.
fn without_misfits(
    tx: &Tx<'_>,
    space: &Space,
    record: &RecordId,
    (stream, category): (&StreamId, Category),
    stored: &[changes::ChangeRow],
    offers: Vec<Offer>,
) -> Result<Vec<Offer>> {
    let known: BTreeSet<[u8; 32]> = stored.iter().map(|change| change.hash).collect();
    let mut counts: BTreeMap<DeviceId, u64> = BTreeMap::new();
    let mut fitting = Vec::new();
    for offer in offers {
        if offer.stream != *stream {
            set_aside(tx, space, record, &offer, "other_stream")?;
            continue;
        }
        // What is no change at all goes to the gate, which says why.
        if let Ok(Written { hash, values }) = Written::read(&offer.bytes) {
            if known.contains(&hash) {
                changes::link(tx, &space.id, record, &hash, offer.envelope)?;
                continue;
            }
            if !values.iter().all(|value| is_legitimate(space, category, &offer.author, value)) {
                set_aside(tx, space, record, &offer, "not_this_author")?;
                continue;
            }
        }
        let count = match counts.get(&offer.author) {
            Some(count) => *count,
            None => changes::offered_by(tx, &space.id, record, &offer.author)?,
        };
        counts.insert(offer.author, count + 1);
        if count >= CHANGES_PER_AUTHOR_AND_RECORD_MAX {
            set_aside(tx, space, record, &offer, "too_many_changes")?;
            continue;
        }
        fitting.push(offer);
    }
    Ok(fitting)
}

/// Whether a version is one that its author may write in this category: it decodes, names its true author,
/// and is of a kind that belongs here. Kinds of newer versions are taken as they come.
///
/// A change is judged by what it says itself and not by what the record shows after it, so that every device
/// reaches the same verdict, in whatever order changes arrive.
fn is_legitimate(space: &Space, category: Category, author: &DeviceId, value: &[u8]) -> bool {
    let Ok(value) = Value::decode(value) else { return false };
    let belongs = match &value.body {
        Body::Unknown { .. } => true,
        body => body.belongs(space.writes_as(author)).contains(&category),
    };
    belongs && value.author == author.0
}

fn set_aside(tx: &Tx<'_>, space: &Space, record: &RecordId, offer: &Offer, code: &str) -> Result<()> {
    tracing::warn!(space = %space.id, author = %offer.author, code, "a change set aside");
    Ok(changes::quarantine(tx, &space.id, offer.envelope, record.as_bytes(), code, &offer.bytes)?)
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
