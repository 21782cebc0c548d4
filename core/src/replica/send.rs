//! What goes out: sealing what is not sealed yet, and gathering what the server does not have.

use std::collections::BTreeSet;

use ebb_protocol::{
    client::{IN_FLIGHT_BYTES_MAX, Input, Outgoing, OutgoingEnvelope, Place},
    envelope::{Header, Kind},
    id::{DeviceId, Epoch, Hash, LogId, Position, Seq, SpaceId, StreamId},
    judge::{Chain, Link},
    roster::EntryWithWraps,
    wire::{self, Hello, RosterHead, SpaceHello},
};

use super::engine::Engine;
use crate::{
    document::gate::{self, ENVELOPE_ITEMS_MAX},
    error::{Error, Result},
    seal::{self, Payload, RecordChanges, SealError},
    store::{
        changes::{self, Unsealed},
        keyring, outbox,
    },
};

/// Bytes of changes that are tried as one envelope; deflated they are about a third.
const SEALING_BYTES: usize = 192 << 10;
/// Sealed batches above this are split: a lossy network repeats less, and other streams get between.
const SEALED_BYTES: usize = 64 << 10;
/// Changes read at once when sealing: memory stays bounded however long the phone was offline.
const SEALING_CHANGES: usize = 2_000;
/// Bytes of envelopes in one Push frame, of more than one envelope: the slowest line carries them in a quarter of the
/// time after which a server takes a device for gone.
const PUSH_BYTES: usize = 128 << 10;

impl Engine {
    /// How far this device is, for Hello.
    pub(super) fn greeting(&mut self) -> Result<Hello> {
        // What a server makes of a loss is found out in each connection.
        self.as_new.clear();
        let mut spaces = Vec::with_capacity(self.spaces.len());
        for space in self.spaces.values_mut() {
            space.server_roster = None;
            let streams = keyring::streams(self.store.read(), &space.id)?;
            let cursors = streams.into_iter().map(|stream| stream.cursor);
            let roster = space.settled.head();
            spaces.push(SpaceHello {
                space: space.id,
                log_id: space.log_id,
                roster,
                cursors: cursors.filter(|cursor| cursor.position.0 > 0).collect(),
                own_in_full: space.own_in_full,
            });
        }
        let pins_version = self.pins().map_or(0, |pins| pins.version);
        Ok(Hello { version: wire::VERSION, device: self.secrets.id(), pins_version, spaces })
    }

    /// Seals what is not sealed yet and gives what the server does not have, as much as one flight holds.
    pub(super) fn gather(
        &mut self,
        in_flight: &BTreeSet<Hash>,
        caught_up: bool,
        blocked: &BTreeSet<Place>,
    ) -> Result<Input> {
        let mut items = Vec::new();
        let mut budget = IN_FLIGHT_BYTES_MAX;
        let mut more = false;
        for id in self.spaces() {
            if blocked.contains(&(id, None)) {
                continue;
            }
            let mut entries = self.unsent_entries(&id)?;
            entries.retain(|entry| !in_flight.contains(&entry.entry.hash()));
            if !entries.is_empty() {
                items.push(Outgoing::Roster(id, entries));
            }
            more |= self.seal_all(&id, blocked)?;
            let space = self.space(&id)?;
            let wanted = |stream: &StreamId, author: &DeviceId, hash: &Hash| {
                !in_flight.contains(hash) && !blocked.contains(&(id, Some((*stream, *author))))
            };
            // What others wrote is given back only once it is clear that the server lacks it.
            let others = caught_up && space.server_roster.is_some();
            let me = self.secrets.id();
            let (unsent, rest) = outbox::unsent(self.store.read(), &id, &me, others, budget, wanted)?;
            more |= rest;
            for mut envelope in unsent {
                budget -= envelope.bytes.len();
                let as_new = self.as_new.get(&(id, envelope.stream));
                envelope.is_refill &= envelope.author != me || as_new.is_none_or(|from| envelope.seq < *from);
                add(&mut items, &id, envelope);
            }
        }
        Ok(Input::Outbox { items, more })
    }

    /// Roster entries that the server lacks: this device's pending ones, and after a loss settled ones.
    fn unsent_entries(&self, id: &SpaceId) -> Result<Vec<EntryWithWraps>> {
        let space = self.space(id)?;
        let settled = space.settled.next_seq().0;
        let from = match space.server_roster {
            // Before Welcome: what was settled is taken to be there.
            None => settled,
            Some(None) => 0,
            Some(Some(seq)) => seq.0 + 1,
        };
        if from >= settled && space.pending.is_empty() {
            return Ok(Vec::new());
        }
        let entries = keyring::roster_entries(self.store.read(), id)?;
        Ok(entries
            .into_iter()
            .skip(usize::try_from(from).unwrap_or(usize::MAX))
            .map(|(entry, _)| entry)
            .collect())
    }

    /// Seals every stream of a space that holds unsealed changes, if this device may sign there now. Says whether
    /// something must wait until what was sealed under an older key is at the server.
    fn seal_all(&mut self, id: &SpaceId, blocked: &BTreeSet<Place>) -> Result<bool> {
        let space = self.space(id)?;
        let first_chain = space.settled.head().is_none();
        if space.frozen || (!space.pending.is_empty() && !first_chain) {
            return Ok(false);
        }
        let me = self.secrets.id();
        let mut waits = false;
        for stream in changes::unsealed_streams(self.store.read(), id)? {
            if blocked.contains(&(*id, Some((stream, me)))) {
                continue;
            }
            if self.awaits_older_epoch(id, &stream)? {
                waits = true;
                continue;
            }
            while self.seal_some(id, &stream)? {}
        }
        Ok(waits)
    }

    fn awaits_older_epoch(&self, id: &SpaceId, stream: &StreamId) -> Result<bool> {
        let Some(newest) = self.sealing_epoch(id, stream) else { return Ok(false) };
        Ok(outbox::awaits_older_epoch(self.store.read(), id, stream, &self.secrets.id(), newest)?)
    }

    /// Seals a batch of a stream; `false` when nothing is left (or nothing can be sealed yet).
    fn seal_some(&mut self, id: &SpaceId, stream: &StreamId) -> Result<bool> {
        let space = self.space(id)?;
        let founding;
        let roster = if space.settled.head().is_none() {
            founding = space.founding()?;
            &founding
        } else {
            &space.settled
        };
        let (Some(RosterHead { hash: roster_head, .. }), Some(newest)) =
            (roster.head(), roster.epoch(stream))
        else {
            return Ok(false);
        };
        let newest = *newest;
        let Some(key) = self.epoch_key(id, stream, newest.epoch, &newest.key_check)? else {
            return Ok(false);
        };
        let unsealed = changes::unsealed(self.store.read(), id, stream, SEALING_CHANGES)?;
        if unsealed.is_empty() {
            return Ok(false);
        }
        let author = self.secrets.id();
        let before = outbox::newest_of(self.store.read(), id, stream, &author)?;
        let (mut seq, mut prev) = before.map_or((Seq(1), Hash::ZERO), |(seq, hash)| (seq.next(), hash));
        let (log_id, seen_pos, seen_hash) = self.seen(id, stream, before)?;
        let Self { store, secrets, entropy, .. } = self;
        store.write(|tx| {
            for (batch, payload) in batches(&unsealed)? {
                let mut salt = [0; 16];
                entropy.fill(&mut salt);
                let header = Header {
                    kind: Kind::Changes,
                    space: *id,
                    stream: *stream,
                    author,
                    seq,
                    prev,
                    epoch: newest.epoch,
                    roster_head,
                    log_id,
                    seen_pos,
                    seen_hash,
                    salt,
                };
                let envelope = seal::seal(secrets, &key, &header, &payload).map_err(Error::bug)?;
                let row = outbox::put(tx, &envelope, outbox::ACCEPTED, None)?;
                for change in batch {
                    changes::set_sealed(tx, id, &change.record, change.n, row)?;
                }
                (seq, prev) = (seq.next(), envelope.hash());
            }
            Ok(())
        })?;
        Ok(true)
    }

    /// What an envelope says its author saw of the log: nothing, where this device began anew and has not read as far
    /// again as what it sealed before names; an author's chain does not go back.
    fn seen(
        &self,
        id: &SpaceId,
        stream: &StreamId,
        before: Option<(Seq, Hash)>,
    ) -> Result<(LogId, Position, Hash)> {
        let log_id = self.space(id)?.log_id;
        let cursor = keyring::streams(self.store.read(), id)?.into_iter().find(|row| row.id == *stream);
        let cursor = cursor.ok_or_else(|| Error::bug("a stream of the roster has no row"))?.cursor;
        let chain = outbox::Accepted { db: self.store.read(), space: *id };
        let links = match before {
            Some((seq, _)) => chain.at(&self.secrets.id(), stream, seq)?,
            None => Vec::new(),
        };
        let goes_back = |link: &Link| link.log_id == log_id && link.seen_pos > cursor.position;
        Ok(match cursor.position {
            _ if links.iter().any(goes_back) => (LogId::ZERO, Position(0), Hash::ZERO),
            Position(0) => (log_id, Position(0), Hash::ZERO),
            position => (log_id, position, cursor.chain),
        })
    }

    /// Seals what is not sealed yet, as the start of a sync does: for tests that cut the line right after.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn seal_now(&mut self) -> Result<()> {
        self.spaces().iter().try_for_each(|id| self.seal_all(id, &BTreeSet::new()).map(drop))
    }

    /// Takes this device's unacknowledged envelopes apart, to be sealed again under the newest epoch.
    pub(super) fn reseal(&mut self, id: &SpaceId, stream: &StreamId, from: Seq) -> Result<()> {
        let author = self.secrets.id();
        let Some(newest) = self.sealing_epoch(id, stream) else { return Ok(()) };
        if self.space(id)?.frozen {
            return Ok(());
        }
        self.store.write(|tx| Ok(outbox::unseal(tx, id, stream, &author, from, newest)?))
    }

    /// Sends this device's envelopes again from a sequence on, where the server lacks them.
    pub(super) fn rewind(&mut self, id: &SpaceId, stream: &StreamId, from: Seq) -> Result<()> {
        let author = self.secrets.id();
        self.store.write(|tx| Ok(outbox::rewind(tx, id, stream, &author, from)?))
    }

    /// The same, and in this connection as new: the server takes no refill of them.
    pub(super) fn send_as_new(&mut self, id: &SpaceId, stream: &StreamId, from: Seq) -> Result<()> {
        self.rewind(id, stream, from)?;
        let as_new = self.as_new.entry((*id, *stream)).or_insert(from);
        *as_new = from.min(*as_new);
        Ok(())
    }

    /// The newest epoch that this device may seal a stream under.
    #[must_use]
    pub fn sealing_epoch(&self, id: &SpaceId, stream: &StreamId) -> Option<Epoch> {
        Some(self.spaces.get(id)?.settled.epoch(stream)?.epoch)
    }
}

/// Appends an envelope to the last item if it goes into the same frame, else to a new one.
fn add(items: &mut Vec<Outgoing>, id: &SpaceId, envelope: outbox::Stored) {
    // What a server had once and lost is judged as it was then, whoever wrote it.
    let is_refill = envelope.is_refill;
    let outgoing = OutgoingEnvelope {
        hash: envelope.hash,
        author: envelope.author,
        seq: envelope.seq,
        bytes: envelope.bytes,
    };
    if let Some(Outgoing::Envelopes { space, stream, envelopes, refill }) = items.last_mut() {
        let bytes: usize = envelopes.iter().map(|envelope| envelope.bytes.len()).sum();
        let fits = bytes + outgoing.bytes.len() <= PUSH_BYTES;
        if (*space, *stream, *refill) == (*id, envelope.stream, is_refill) && fits {
            return envelopes.push(outgoing);
        }
    }
    let (space, stream, envelopes, refill) = (*id, envelope.stream, vec![outgoing], is_refill);
    items.push(Outgoing::Envelopes { space, stream, envelopes, refill });
}

/// Cuts changes into payloads that fit an envelope, splitting between changes only.
fn batches(unsealed: &[Unsealed]) -> Result<Vec<(&[Unsealed], Vec<u8>)>> {
    let mut batches = Vec::new();
    let mut rest = unsealed;
    while !rest.is_empty() {
        let (mut bytes, mut items, mut len) = (0, 0, 0);
        for change in rest {
            bytes += change.bytes.len();
            items += gate::weigh(&change.bytes);
            if len > 0 && (bytes > SEALING_BYTES || items > ENVELOPE_ITEMS_MAX) {
                break;
            }
            len += 1;
        }
        let mut payload = pack(&rest[..len])?;
        while payload.len() > SEALED_BYTES && len > 1 {
            len = len.div_ceil(2);
            payload = pack(&rest[..len])?;
        }
        if payload.len() > seal::PAYLOAD_BYTES_MAX {
            return Err(Error::bug(SealError::TooLong));
        }
        batches.push((&rest[..len], payload));
        rest = &rest[len..];
    }
    Ok(batches)
}

fn pack(batch: &[Unsealed]) -> Result<Vec<u8>> {
    let mut records: Vec<RecordChanges> = Vec::new();
    for change in batch {
        match records.last_mut() {
            Some(last) if last.record == *change.record.as_bytes() => last.changes.push(change.bytes.clone()),
            _ => records.push(RecordChanges {
                record: *change.record.as_bytes(),
                changes: vec![change.bytes.clone()],
            }),
        }
    }
    Payload { records }.pack().map_err(Error::bug)
}

#[cfg(test)]
mod tests;
