//! Which changes count: what is offered to a record is taken up, waits for its ancestors, or is set aside.
//!
//! A record must become the same on every device, so no verdict may hang on how envelopes were grouped, or on
//! what this device wrote before they came. First a change is judged by what it says itself. Then the first of
//! an actor's changes with a number keeps that number, whatever becomes of it: everywhere an author's changes
//! come in the order of its chain. The gate holds the rest against their ancestors alone.

use std::collections::{BTreeMap, BTreeSet, btree_map};

use ebb_protocol::{
    id::{DeviceId, StreamId},
    verify,
};

use crate::{
    document::{Admitted, Document, Refusal, Written, gate::CHANGES_PER_AUTHOR_AND_RECORD_MAX},
    error::{Error, Result},
    record::{Body, Category, RecordId, Value},
    replica::{
        engine::Space,
        journal::{load, put_view, view_of},
    },
    store::{Tx, changes, views},
};

/// A change that an envelope brought.
pub(super) struct Offer {
    pub(super) stream: StreamId,
    pub(super) author: DeviceId,
    pub(super) envelope: i64,
    pub(super) bytes: Vec<u8>,
}

impl Offer {
    fn actor(&self) -> [u8; 16] {
        verify::actor_id(&self.author, &self.stream)
    }
}

/// Applies changes to one record: the good ones count, others wait or are set aside. Says whether any counts.
pub(super) fn apply(tx: &Tx<'_>, space: &Space, record: &RecordId, mut offers: Vec<Offer>) -> Result<bool> {
    // A record lives in the stream that brought the first good change of it. Whoever names it in another one,
    // to keep it from those who do not have it yet, brings none.
    let mut home = views::get(tx, &space.id, record)?.map(|view| view.stream);
    let mut changed = false;
    while let Some(first) = offers.first() {
        let stream = home.unwrap_or(first.stream);
        let (here, elsewhere) =
            offers.into_iter().partition(|offer| home.is_some() || offer.stream == stream);
        offers = elsewhere;
        let Some(category) = space.category(&stream) else {
            return Err(Error::bug("content of a stream without a label was opened"));
        };
        if (Place { tx, space, record, stream, category }).apply(here)? {
            (home, changed) = (Some(stream), true);
        }
    }
    Ok(changed)
}

/// A record in the stream where it lives, or would.
struct Place<'a> {
    tx: &'a Tx<'a>,
    space: &'a Space,
    record: &'a RecordId,
    stream: StreamId,
    category: Category,
}

impl Place<'_> {
    fn apply(&self, offers: Vec<Offer>) -> Result<bool> {
        let Self { tx, space, record, stream, category } = self;
        let id = &space.id;
        let stored = changes::of_record(tx, id, record)?;
        let mut pasts = BTreeMap::new();
        let fresh = self.judge_alone(&stored, &mut pasts, offers)?;
        if fresh.is_empty() {
            return Ok(false);
        }
        let before = match stored.is_empty() {
            true => Document::empty(),
            false => match load(&stored) {
                Ok(document) => document,
                Err(error) => {
                    // What is kept of it makes no document any more. The other records must go on.
                    tracing::warn!(space = %space.id, %record, ?error, "a record does not load: what comes for it is set aside");
                    fresh.iter().try_for_each(|(offer, _)| self.set_aside(offer, "unloadable"))?;
                    return Ok(false);
                }
            },
        };
        let mut fitting = Vec::new();
        for (offer, written) in fresh {
            let past = pasts.get_mut(&offer.author);
            let is_first = past.is_some_and(|past: &mut Past| past.numbers.insert(written.seq));
            if is_first && !before.has(&written.actor, written.seq) {
                fitting.push((offer, written.hash));
            } else {
                self.set_aside(&offer, Refusal::DuplicateSeq.code())?;
            }
        }
        if fitting.is_empty() {
            return Ok(false);
        }
        for changes::Waiting { hash, author, envelope, bytes } in
            changes::take_waiting(tx, id, record, stream)?
        {
            fitting.push((Offer { stream: *stream, author, envelope, bytes }, hash));
        }
        let Admitted { document, refused } =
            before.admit_all(fitting.iter().map(|(offer, _)| (offer.bytes.as_slice(), offer.actor())));
        let refused: BTreeMap<usize, Refusal> = refused.into_iter().collect();
        let mut changed = false;
        for (place, (offer, hash)) in fitting.into_iter().enumerate() {
            match refused.get(&place) {
                None => {
                    changes::insert(
                        tx,
                        id,
                        record,
                        &hash,
                        &offer.author,
                        Some(offer.envelope),
                        &offer.bytes,
                    )?;
                    changed = true;
                }
                Some(Refusal::Waiting { .. }) => {
                    let Offer { author, envelope, bytes, .. } = offer;
                    let waiting = changes::Waiting { hash, author, envelope, bytes };
                    changes::put_waiting(tx, id, record, stream, &waiting)?;
                }
                Some(refusal) => self.set_aside(&offer, refusal.code())?,
            }
        }
        if changed {
            let state = document.state();
            let author = space.device_of(&state.actor, stream);
            put_view(tx, id, &view_of(**record, *stream, *category, author, &state)?)?;
        }
        Ok(changed)
    }

    /// Sets aside what a change that is judged by itself may not be, and drops what was offered before.
    fn judge_alone(
        &self,
        stored: &[changes::ChangeRow],
        pasts: &mut BTreeMap<DeviceId, Past>,
        offers: Vec<Offer>,
    ) -> Result<Vec<(Offer, Written)>> {
        let known: BTreeSet<[u8; 32]> = stored.iter().map(|change| change.hash).collect();
        let mut fresh = Vec::new();
        for offer in offers {
            if offer.stream != self.stream {
                self.set_aside(&offer, "other_stream")?;
                continue;
            }
            let written = read(&offer.bytes, offer.actor());
            if let Ok(Written { hash, .. }) = &written
                && known.contains(hash)
            {
                changes::link(self.tx, &self.space.id, self.record, hash, offer.envelope)?;
                continue;
            }
            let past = match pasts.entry(offer.author) {
                btree_map::Entry::Occupied(past) => past.into_mut(),
                btree_map::Entry::Vacant(place) => place.insert(self.past_of(&offer.author)?),
            };
            if !past.seen.insert(name_of(&written, &offer.bytes)) {
                continue;
            }
            past.offered += 1;
            if past.offered > CHANGES_PER_AUTHOR_AND_RECORD_MAX {
                self.set_aside(&offer, "too_many_changes")?;
                continue;
            }
            match written {
                Ok(Written { value: Some(value), .. }) if !self.is_legitimate(&offer.author, &value) => {
                    self.set_aside(&offer, NOT_THIS_AUTHOR)?;
                }
                Ok(written) => fresh.push((offer, written)),
                Err(refusal) => self.set_aside(&offer, refusal.code())?,
            }
        }
        Ok(fresh)
    }

    /// Whether a version is one that its author may write in this category: it decodes, names its true author,
    /// and is of a kind that belongs here. Kinds of newer versions are taken as they come.
    fn is_legitimate(&self, author: &DeviceId, value: &[u8]) -> bool {
        let Ok(value) = Value::decode(value) else { return false };
        let belongs = match &value.body {
            Body::Unknown { .. } => true,
            body => body.belongs(self.space.writes_as(author)).contains(&self.category),
        };
        belongs && value.author == author.0
    }

    fn past_of(&self, author: &DeviceId) -> Result<Past> {
        let Self { tx, space, record, stream, .. } = self;
        let actor = verify::actor_id(author, stream);
        let offered = changes::of_author(tx, &space.id, record, author)?;
        let mut past = Past { offered, seen: BTreeSet::new(), numbers: BTreeSet::new() };
        for (reason, bytes) in changes::parked_of(tx, &space.id, record, stream, author)? {
            let written = read(&bytes, actor);
            past.offered += 1;
            past.seen.insert(name_of(&written, &bytes));
            let keeps_its_number =
                ![NOT_THIS_AUTHOR, Refusal::DuplicateSeq.code()].contains(&reason.as_str());
            if let Ok(Written { seq, .. }) = written
                && keeps_its_number
            {
                past.numbers.insert(seq);
            }
        }
        Ok(past)
    }

    fn set_aside(&self, offer: &Offer, code: &str) -> Result<()> {
        let Self { tx, space, record, .. } = self;
        tracing::warn!(space = %space.id, author = %offer.author, code, "a change set aside");
        Ok(changes::quarantine(tx, &space.id, offer.envelope, record.as_bytes(), code, &offer.bytes)?)
    }
}

const NOT_THIS_AUTHOR: &str = "not_this_author";

/// What an author offered to a record so far, and the numbers of those that wait or were refused for what they
/// build upon. What is refused for what it says itself is refused everywhere, and keeps no number from others.
struct Past {
    offered: u64,
    seen: BTreeSet<[u8; 32]>,
    numbers: BTreeSet<u64>,
}

/// Reads a change of an actor. Whoever offers another's change, an honest one or not, offers none.
fn read(bytes: &[u8], actor: [u8; 16]) -> std::result::Result<Written, Refusal> {
    let written = Written::read(bytes)?;
    if written.actor == actor { Ok(written) } else { Err(Refusal::WrongActor) }
}

/// By what an offered change is known again, if it is a change or not.
fn name_of(written: &std::result::Result<Written, Refusal>, bytes: &[u8]) -> [u8; 32] {
    written.as_ref().map_or_else(|_| verify::sha256(&[bytes]).0, |written| written.hash)
}
