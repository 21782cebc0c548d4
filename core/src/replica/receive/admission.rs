//! Which changes count: what is offered to a record is taken up, waits for its ancestors, or is set aside.
//!
//! A record must become the same on every device, so no verdict may hang on how envelopes were grouped, or on
//! what this device wrote before they came. First a change is judged by what it says itself. Then the first of
//! an actor's changes with a number keeps that number, whatever becomes of it: everywhere an author's changes
//! come in the order of the log. The gate holds the rest against their ancestors, and against what Automerge can
//! bear.

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

    /// Reads the change. Whoever offers another's, an honest one or not, offers none.
    fn read(&self) -> std::result::Result<Written, Refusal> {
        let written = Written::read(&self.bytes)?;
        if written.actor == self.actor() { Ok(written) } else { Err(Refusal::WrongActor) }
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
        if (Home { tx, space, record, stream, category }).apply(here)? {
            (home, changed) = (Some(stream), true);
        }
    }
    Ok(changed)
}

/// The stream where a record lives, or would.
struct Home<'a> {
    tx: &'a Tx<'a>,
    space: &'a Space,
    record: &'a RecordId,
    stream: StreamId,
    category: Category,
}

impl Home<'_> {
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
                    for (offer, written) in &fresh {
                        self.set_aside(offer, (&written.hash, Some(written.seq)), "unloadable")?;
                    }
                    return Ok(false);
                }
            },
        };
        let mut fitting = Vec::new();
        for (offer, Written { hash, actor, seq, .. }) in fresh {
            let past = pasts.get_mut(&offer.author);
            let is_first = past.is_some_and(|past: &mut Past| past.numbers.insert(seq));
            if is_first && !before.has(&actor, seq) {
                fitting.push((offer, hash, seq));
            } else {
                self.set_aside(&offer, (&hash, None), Refusal::DuplicateSeq.code())?;
            }
        }
        if fitting.is_empty() {
            return Ok(false);
        }
        for changes::Waiting { hash, seq, author, envelope, bytes } in
            changes::take_waiting(tx, id, record, stream)?
        {
            fitting.push((Offer { stream: *stream, author, envelope, bytes }, hash, seq));
        }
        let Admitted { document, refused } =
            before.admit_all(fitting.iter().map(|(offer, ..)| (offer.bytes.as_slice(), offer.actor())));
        let refused: BTreeMap<usize, Refusal> = refused.into_iter().collect();
        let mut changed = false;
        for (place, (offer, hash, seq)) in fitting.into_iter().enumerate() {
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
                    let waiting = changes::Waiting { hash, seq, author, envelope, bytes };
                    changes::put_waiting(tx, id, record, stream, &waiting)?;
                }
                Some(refusal) => self.set_aside(&offer, (&hash, Some(seq)), refusal.code())?,
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
            let written = offer.read();
            let name = match &written {
                Ok(Written { hash, .. }) => *hash,
                Err(_) => verify::sha256(&[&offer.bytes]).0,
            };
            if offer.stream != self.stream {
                self.set_aside(&offer, (&name, None), "other_stream")?;
                continue;
            }
            if known.contains(&name) {
                changes::link(self.tx, &self.space.id, self.record, &name, offer.envelope)?;
                continue;
            }
            let past = match pasts.entry(offer.author) {
                btree_map::Entry::Occupied(past) => past.into_mut(),
                btree_map::Entry::Vacant(place) => place.insert(self.past_of(&offer.author)?),
            };
            if !past.names.insert(name) {
                continue;
            }
            past.offered += 1;
            let refused = match written {
                _ if past.offered > CHANGES_PER_AUTHOR_AND_RECORD_MAX => "too_many_changes",
                Ok(Written { value: Some(value), .. }) if !self.is_legitimate(&offer.author, &value) => {
                    "not_this_author"
                }
                Ok(written) => {
                    fresh.push((offer, written));
                    continue;
                }
                Err(refusal) => refusal.code(),
            };
            self.set_aside(&offer, (&name, None), refused)?;
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
        let of = self.origin(&self.stream, author);
        let offered = changes::offered(self.tx, of, CHANGES_PER_AUTHOR_AND_RECORD_MAX)?;
        let mut past = Past { offered, names: BTreeSet::new(), numbers: BTreeSet::new() };
        if offered < CHANGES_PER_AUTHOR_AND_RECORD_MAX {
            for (name, number) in changes::parked(self.tx, of)? {
                past.names.insert(name);
                past.numbers.extend(number);
            }
        }
        Ok(past)
    }

    /// Notes that a change does not count, by its name; `number` is its place in its author's changes where it
    /// keeps that from others.
    fn set_aside(&self, offer: &Offer, (name, number): (&[u8; 32], Option<u64>), code: &str) -> Result<()> {
        tracing::warn!(space = %self.space.id, author = %offer.author, code, "a change set aside");
        let of = self.origin(&offer.stream, &offer.author);
        Ok(changes::quarantine(self.tx, of, (name, number), offer.envelope, code)?)
    }

    fn origin<'b>(&'b self, stream: &'b StreamId, author: &'b DeviceId) -> changes::Origin<'b> {
        changes::Origin { space: &self.space.id, record: self.record, stream, author }
    }
}

/// What an author offered to a record so far: how much, the names of what is parked, and the numbers of what waits
/// or was refused for what it builds upon. What is refused for what it says itself is refused everywhere, and
/// keeps no number from others.
struct Past {
    offered: u64,
    names: BTreeSet<[u8; 32]>,
    numbers: BTreeSet<u64>,
}
