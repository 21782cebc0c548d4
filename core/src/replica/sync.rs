//! Carrying out what the protocol's client decides: each output in order, durably where it must be.

use std::{collections::VecDeque, time::Duration};

use ebb_protocol::{
    client::{Input, Output, Report},
    envelope,
    id::{Hash, LogId, Position, RosterSeq, Seq, SpaceId},
    verify,
    wire::{self, Acked, Evidence, Head, NeedEvidence, Refusal, SignedHeads, SignedLogBorn, Welcome},
};

use super::{
    checked_pins,
    engine::{Engine, Event, LinkAction},
    receive::common_places,
};
use crate::{
    error::{Error, Result},
    store::{Tx, changes, keyring, outbox},
};

/// What a sync came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synced {
    /// Whether everything was where it should be when it ended.
    pub in_sync: bool,
}

/// Why a sync ended before everything was done. What was acknowledged until then stays so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    /// The time ran out, or the server could not be reached in it: try again later.
    #[error("not everything could be done in the time given: try again later")]
    OutOfTime,
    /// The server does not take something of this space, and trying again would not help; or this device may sign
    /// no more there, and has something that it did not sign.
    #[error("the server refuses something for good")]
    Rejected(SpaceId),
    /// Whatever answers there is not the clinic's server.
    #[error("the peer is not the clinic's server")]
    Impostor,
    /// The replica was locked meanwhile, or has no server to sync with.
    #[error("locked, or no server is configured")]
    Closed,
}

impl Engine {
    /// Takes what happened to the connection and says what to do with the link, in order.
    pub fn handle(&mut self, input: Input) -> Vec<LinkAction> {
        match input {
            Input::Closed => self.link_ended(),
            Input::Frame(_) => self.link_answered(),
            _ => {}
        }
        let mut actions = Vec::new();
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front().or_else(|| self.untold()) {
            for output in self.client.handle(self.clock.steady(), input) {
                match self.carry_out(output, &mut actions) {
                    Ok(answer) => inputs.extend(answer),
                    Err(error) => {
                        let error = self.sobered(error);
                        tracing::warn!(?error, "the connection ends here and is tried again");
                        for id in self.spaces() {
                            if let Err(error) = self.reload_space(&id) {
                                let error = self.sobered(error);
                                tracing::warn!(?error, "a space could not be loaded again");
                            }
                        }
                        inputs.clear();
                        inputs.push_back(Input::Garbage);
                        break;
                    }
                }
            }
        }
        // What was in sync may be so no more, though the connection has nothing to say of it.
        if self.called_in_sync && self.silenced().is_some() {
            self.say(Report::InSync);
        }
        actions
    }

    /// When [`Input::Tick`] is due by [`Clock::steady`](super::Clock::steady), if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<ebb_protocol::id::Millis> {
        self.client.deadline()
    }

    /// Whether a link stands over which the server has identified itself.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.is_connected()
    }

    /// The moment that lies `budget` ahead by [`Clock::steady`](super::Clock::steady), for [`Input::SyncUntil`].
    #[must_use]
    pub fn until(&self, budget: Duration) -> ebb_protocol::id::Millis {
        self.clock.steady().plus(u64::try_from(budget.as_millis()).unwrap_or(u64::MAX))
    }

    fn carry_out(&mut self, output: Output, actions: &mut Vec<LinkAction>) -> Result<Option<Input>> {
        match output {
            // Without a store nothing can be done but to close, and to say so.
            Output::Connect | Output::Disconnect | Output::Report(_) => {}
            _ => self.whole()?,
        }
        match output {
            Output::Connect => actions.push(LinkAction::Connect),
            Output::Disconnect => {
                self.link_ended();
                actions.push(LinkAction::Close);
            }
            Output::Greet => return self.greeting().map(|hello| Some(Input::Greeting(hello))),
            Output::Gather { in_flight, caught_up, blocked } => {
                return self.gather(&in_flight, caught_up, &blocked).map(Some);
            }
            Output::Send(frame) => actions.push(LinkAction::Send(wire::encode_frame(&frame))),
            Output::Welcome(welcome) => self.welcome(&welcome)?,
            Output::KeepRoster(frame) => self.keep_roster(frame)?,
            Output::KeepRosterAck(head) => self.keep_roster_ack(&head)?,
            Output::Keep(entries) => {
                let space = entries.space;
                return self.keep(entries).map(|head| Some(Input::Kept(space, head)));
            }
            Output::KeepAcked { acked, is_evidence } => self.keep_acked(&acked, is_evidence)?,
            Output::KeepHeads(heads) => self.keep_heads(&heads)?,
            Output::KeepBirth(born) => self.keep_birth(&born)?,
            Output::Recall(need) => {
                return self.recall(&need).map(|evidence| Some(Input::Evidence(evidence)));
            }
            Output::BeginAnew(space) => self.begin_anew(&space)?,
            Output::Reseal(space, stream, from) => self.reseal(&space, &stream, from)?,
            // Pending entries were signed again when the entries that overtook them were kept.
            Output::Resign(_) => {}
            Output::OfferRoster(space) => {
                if let Some(space) = self.spaces.get_mut(&space) {
                    space.server_roster = Some(None);
                }
            }
            Output::Rewind(space, stream, from) => self.rewind(&space, &stream, from)?,
            Output::SendAsNew(space, stream, from) => self.send_as_new(&space, &stream, from)?,
            Output::Freeze(space) => self.freeze(&space)?,
            Output::Report(Report::Waiting(Some(until))) => {
                let wait_ms = until.since(self.clock.steady());
                let until = self.clock.now().plus(wait_ms);
                self.say(Report::Waiting(Some(until)));
            }
            Output::Report(report) => self.say(report),
        }
        Ok(None)
    }

    fn welcome(&mut self, welcome: &Welcome) -> Result<()> {
        let now = i64::try_from(self.clock.now().0).unwrap_or(i64::MAX);
        self.skew_ms = Some(i64::try_from(welcome.server_ms.0).unwrap_or(i64::MAX).saturating_sub(now));
        if let Some(newer) = &welcome.pins {
            self.adopt_pins(newer)?;
        }
        for theirs in &welcome.spaces {
            let Some(space) = self.spaces.get_mut(&theirs.space) else { continue };
            space.server_roster = Some(theirs.roster.map(|head| head.seq));
            if let Some(head) = theirs.roster
                && space.settled.hash_at(head.seq).is_some_and(|ours| ours != head.hash)
            {
                tracing::warn!(space = %theirs.space, "the server's roster is another than this device's");
                space.server_roster = Some(None);
            }
            let id = theirs.space;
            self.resend_lost(theirs)?;
            // An envelope of this device that this device does not hold: it was restored or copied.
            for (_, _, hash) in &theirs.own_heads {
                if outbox::known(self.store.read(), &id, hash)?.is_none() {
                    self.freeze(&id)?;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Sends again what the server acknowledged and no longer has: it was restored to an older state.
    fn resend_lost(&mut self, theirs: &wire::SpaceWelcome) -> Result<()> {
        let id = theirs.space;
        let same_log = self.spaces.get(&id).is_some_and(|space| space.log_id == theirs.log_id);
        if theirs.roster.is_none() || !same_log {
            return Ok(());
        }
        let me = self.secrets.id();
        for (stream, placed) in outbox::newest_placed(self.store.read(), &id, &me)? {
            let there = theirs.own_heads.iter().find(|(of, ..)| *of == stream);
            let there = there.map_or(Seq(0), |(_, seq, _)| *seq);
            if there < placed {
                tracing::warn!(space = %id, "the server lost envelopes that it had acknowledged");
                self.rewind(&id, &stream, there.next())?;
                self.events.push(Event::Delivery(id));
            }
        }
        Ok(())
    }

    fn adopt_pins(&mut self, newer: &wire::SignedPins) -> Result<()> {
        let Some(old) = self.pins() else { return Ok(()) };
        match checked_pins(newer) {
            Ok(new) if new.root == old.root && new.version > old.version => {
                self.store.write(|tx| Ok(keyring::set_meta(tx, "pins", &wire::encode(newer))?))?;
                self.pins = Some(newer.clone());
            }
            Ok(_) | Err(_) => {
                tracing::warn!("the server offers pins that are not its deployment's newer ones")
            }
        }
        Ok(())
    }

    /// Whether heads carry the signature of one of the deployment's keys, and what they say.
    fn attested(&self, signed: &SignedHeads) -> Option<wire::Heads> {
        let pins = self.pins()?;
        pins.heads.iter().find_map(|key| verify::check(signed.clone(), key).ok())?.content().ok()
    }

    fn keep_acked(&mut self, acked: &Acked, is_evidence: bool) -> Result<()> {
        let Some(heads) = self.attested(&acked.head) else {
            return Err(Error::retry("the server's receipt does not carry its signature"));
        };
        let id = heads.space;
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(()) };
        let adopts = space.log_id.is_zero();
        if !adopts && space.log_id != heads.log_id {
            return Ok(());
        }
        let covered = heads.heads.iter().map(|head| head.position).max().unwrap_or_default();
        self.store.write(|tx| {
            if adopts {
                keyring::set_log_id(tx, &id, &heads.log_id)?;
            }
            for envelope in acked.envelopes.iter().filter(|envelope| envelope.position <= covered) {
                if let Some(known) = outbox::known(tx, &id, &envelope.hash)?
                    && known.position.is_none()
                {
                    outbox::vacate(tx, &id, &known.stream, envelope.position)?;
                    let place = outbox::Place { position: envelope.position, chain: None, received: None };
                    outbox::set_place(tx, known.row, place)?;
                }
            }
            if is_evidence {
                keep_evidence(tx, &heads, &acked.head)?;
            }
            Ok(())
        })?;
        if adopts && let Some(space) = self.spaces.get_mut(&id) {
            space.log_id = heads.log_id;
        }
        self.events.push(Event::Delivery(id));
        Ok(())
    }

    fn keep_heads(&mut self, signed: &[SignedHeads]) -> Result<()> {
        let attested: Vec<_> =
            signed.iter().filter_map(|signed| Some((self.attested(signed)?, signed))).collect();
        self.store
            .write(|tx| attested.iter().try_for_each(|(heads, signed)| keep_evidence(tx, heads, signed)))
    }

    /// A log began anew: cursors go back to where both logs agree, and so do deliveries.
    fn keep_birth(&mut self, signed: &SignedLogBorn) -> Result<()> {
        let pins = self.pins().ok_or_else(|| Error::retry("no pins are known"))?;
        let born = pins.heads.iter().find_map(|key| verify::check(signed.clone(), key).ok());
        let born = born.ok_or_else(|| Error::retry("a log's birth does not carry the server's signature"))?;
        let born = born.content().map_err(Error::retry)?;
        let id = born.space;
        if self.spaces.get(&id).is_none_or(|space| space.log_id != born.old) {
            return Ok(());
        }
        self.store.write(|tx| {
            keyring::set_log_id(tx, &id, &born.new)?;
            for stream in keyring::streams(tx, &id)? {
                let common = born.common.iter().find(|head| head.stream == stream.id);
                let start = Head {
                    stream: stream.id,
                    position: Position(0),
                    chain: envelope::chain_start(&id, &stream.id),
                };
                let agrees = |head: &Head| -> Result<bool> {
                    let ours = outbox::chain_at(tx, &id, &head.stream, head.position)?;
                    Ok(ours == Some(head.chain) && head.position <= stream.cursor.position)
                };
                let cursor = match common {
                    Some(head) if agrees(head)? => *head,
                    _ => start,
                };
                outbox::forget_places(tx, &id, &cursor)?;
                keyring::set_cursor(tx, &id, &cursor)?;
            }
            Ok(())
        })?;
        self.reload_space(&id)?;
        tracing::warn!(space = %id, "the server lost data and started over; this device gives back what it has");
        self.events.extend([Event::ServerRestored(id), Event::Delivery(id)]);
        Ok(())
    }

    fn recall(&mut self, need: &NeedEvidence) -> Result<Evidence> {
        let mut heads = keyring::evidence(self.store.read(), &need.space)?;
        if let Some(space) = self.spaces.get(&need.space) {
            // Heads of logs that ended prove nothing about this one.
            heads.retain(|signed| signed.content().is_ok_and(|heads| heads.log_id == space.log_id));
            if heads.is_empty() {
                // Cut off before the first receipt: nothing can be proven, and nothing was promised either.
                self.begin_anew(&need.space)?;
            }
        }
        Ok(Evidence { space: need.space, heads, common: common_places(self, need)? })
    }

    /// Meets the server as if for the first time: everything is compared and what is missing goes out.
    pub(super) fn begin_anew(&mut self, id: &SpaceId) -> Result<()> {
        let me = self.secrets.id();
        self.store.write(|tx| {
            keyring::set_log_id(tx, id, &LogId::ZERO)?;
            for stream in keyring::streams(tx, id)? {
                let chain = envelope::chain_start(id, &stream.id);
                let start = Head { stream: stream.id, position: Position(0), chain };
                outbox::forget_places(tx, id, &start)?;
                outbox::rewind(tx, id, &stream.id, &me, Seq(1))?;
                keyring::set_cursor(tx, id, &start)?;
            }
            Ok(())
        })?;
        self.reload_space(id)?;
        self.events.push(Event::Delivery(*id));
        Ok(())
    }

    /// Says how it stands, and does not call in sync what this device may not sign.
    fn say(&mut self, report: Report) {
        let silenced = if report == Report::InSync { self.silenced() } else { None };
        let report = silenced.map_or(report, |space| Report::Rejected(space, Refusal::Fork));
        self.called_in_sync = report == Report::InSync;
        self.events.push(Event::Status(report));
    }

    /// Whether everything is where it should be, and a link stands.
    pub(super) fn is_in_sync(&self) -> bool {
        self.client.is_in_sync() && self.silenced().is_none()
    }

    /// The spaces in which this device may sign no more.
    pub(super) fn frozen(&self) -> impl Iterator<Item = SpaceId> {
        self.spaces.values().filter(|space| space.frozen).map(|space| space.id)
    }

    /// A space in which this device may sign no more, and has something that it did not sign.
    fn silenced(&self) -> Option<SpaceId> {
        // What cannot be looked at is not known to be where it should be.
        let holds = |id: &SpaceId| {
            changes::unsealed_streams(self.store.read(), id).map_or(true, |streams| !streams.is_empty())
        };
        self.frozen().find(holds)
    }

    fn freeze(&mut self, id: &SpaceId) -> Result<()> {
        let me = self.secrets.id();
        self.store.write(|tx| {
            outbox::unseal_unplaced(tx, id, &me)?;
            Ok(keyring::freeze(tx, id)?)
        })?;
        if let Some(space) = self.spaces.get_mut(id)
            && !space.frozen
        {
            space.frozen = true;
            tracing::warn!(space = %id, "this device was restored or copied: it no longer signs here");
            self.events.push(Event::Frozen(*id));
        }
        Ok(())
    }

    /// The hash of the newest roster entry that a server delivered or acknowledged.
    #[must_use]
    pub fn roster_head(&self, id: &SpaceId) -> Option<(RosterSeq, Hash)> {
        let head = self.spaces.get(id)?.settled.head()?;
        Some((head.seq, head.hash))
    }
}

/// Keeps what the server signed as proof of what it had, unless what is kept says that it had more, or something
/// else at the same place: of two that contradict one another, the older is the one that proves a loss.
fn keep_evidence(tx: &Tx<'_>, heads: &wire::Heads, signed: &SignedHeads) -> Result<()> {
    for head in &heads.heads {
        let kept = keyring::evidence_of(tx, &heads.space, &head.stream)?.and_then(|kept| kept.content().ok());
        let of_this_log = kept.filter(|kept| kept.log_id == heads.log_id);
        let kept = of_this_log.and_then(|kept| kept.heads.into_iter().find(|at| at.stream == head.stream));
        let contradicts =
            |kept: Head| kept.position > head.position || (kept.position == head.position && kept != *head);
        if !kept.is_some_and(contradicts) {
            keyring::set_evidence(tx, &heads.space, &head.stream, signed)?;
        }
    }
    Ok(())
}

/// What the app is told when a sync that it asked for ends.
pub(super) fn outcome(report: Report) -> Option<Result<Synced, SyncError>> {
    match report {
        Report::InSync => Some(Ok(Synced { in_sync: true })),
        Report::OutOfTime => Some(Err(SyncError::OutOfTime)),
        Report::Rejected(space, _) => Some(Err(SyncError::Rejected(space))),
        Report::Impostor => Some(Err(SyncError::Impostor)),
        Report::Connecting | Report::Syncing | Report::Waiting(_) => None,
    }
}

#[cfg(test)]
mod tests;
