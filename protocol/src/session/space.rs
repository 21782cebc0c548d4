//! A space as one connection follows it: what the device has of it, and what it is still to be told.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use super::{Appended, Output, Snapshot};
use crate::{
    envelope,
    id::{DeviceId, LogId, Position, RosterSeq, Seq, SpaceId, StreamId},
    roster::{EntryWithWraps, Roster},
    verify::PublicKey,
    wire::{
        self, FromServer, Head, NeedEvidence, Refusal, Refused, RefusedWhat, RosterFrame, RosterHead,
        SignedLogBorn, SpaceHello, SpaceWelcome,
    },
};

/// A space that the device follows.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) log_id: LogId,
    /// The roster as committed, or ahead of that by what this device just pushed: an author's key is
    /// the same in both, and the log judges everything else again.
    pub(super) roster: Arc<Roster>,
    /// The place after the newest entry that is durable.
    pub(super) durable: RosterSeq,
    /// What this device pushed and the log has not answered, frame by frame.
    pub(super) pushed: VecDeque<Vec<RosterHead>>,
    /// The newest entry of this chain that the device holds.
    pub(super) device_has: Option<RosterSeq>,
    /// How far streams are known to reach.
    pub(super) heads: BTreeMap<StreamId, Position>,
    pub(super) streams: BTreeMap<StreamId, Progress>,
    pub(super) own_in_full: bool,
    /// Authors' runs that ended with a refusal, and the sequence from which they may go on.
    refused: BTreeMap<(StreamId, DeviceId), Seq>,
    /// How often an author's run was taken up again after a refusal.
    runs: BTreeMap<(StreamId, DeviceId), u32>,
    /// Appends that the log has not answered.
    appending: VecDeque<Appending>,
    /// Whether the device was told that the space takes nothing of it, as the roster stands.
    pub(super) refused_whole: bool,
    /// Whether the device, even if the roster does not name it, showed that it was here before: it named a
    /// log of this space, which nobody guesses, or heads that this server signed.
    pub(super) knows: bool,
    /// Whether the device showed heads that this server signed: it waits for what the log makes of them.
    pub(super) has_shown: bool,
    /// The lost log that the device was asked about, and the samples that it was shown.
    pub(super) asked: Option<(LogId, Vec<Head>)>,
    /// Streams that moved since the last attestation.
    pub(super) moved: Vec<StreamId>,
}

/// Envelopes on their way to the log: author, sequence, and the run of which each was pushed.
#[derive(Debug)]
struct Appending {
    stream: StreamId,
    envelopes: Vec<(DeviceId, Seq, u32)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    pub(super) sent: Head,
    pub(super) queued: bool,
}

/// Whose turn a read is: streams that were caught up go before those that are catching up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Live,
    CatchUp,
}

impl Space {
    pub(super) fn open(
        device: DeviceId,
        tls: &PublicKey,
        hello: &SpaceHello,
        snapshot: Option<Snapshot>,
        then: &mut Vec<Output>,
    ) -> (Self, SpaceWelcome) {
        let id = hello.space;
        let mut space = Self {
            log_id: LogId::ZERO,
            roster: Arc::new(Roster::new(id)),
            durable: RosterSeq(0),
            pushed: VecDeque::new(),
            device_has: None,
            heads: BTreeMap::new(),
            streams: BTreeMap::new(),
            own_in_full: hello.own_in_full,
            refused: BTreeMap::new(),
            runs: BTreeMap::new(),
            appending: VecDeque::new(),
            refused_whole: false,
            knows: false,
            has_shown: false,
            asked: None,
            moved: Vec::new(),
        };
        let mut welcome =
            SpaceWelcome { space: id, log_id: LogId::ZERO, roster: None, own_heads: Vec::new() };
        let Some(snapshot) = snapshot else {
            if !hello.log_id.is_zero() {
                space.ask(id, hello.log_id, Vec::new(), then);
            }
            return (space, welcome);
        };
        space.log_id = snapshot.log_id;
        space.roster = snapshot.roster;
        space.durable = space.roster.next_seq();
        let named = hello.roster.filter(|head| space.roster.hash_at(head.seq) == Some(head.hash));
        space.device_has = named.map(|head| head.seq);
        space.heads = snapshot.heads.iter().map(|head| (head.stream, head.position)).collect();
        let member = space.roster.is_device(&device, tls);
        let old = |born: &SignedLogBorn| born.content().is_ok_and(|born| born.old == hello.log_id);
        let birth = snapshot.births.iter().position(old);
        space.knows = hello.log_id == space.log_id || birth.is_some();
        if member || (space.knows && space.roster.head().is_none()) {
            // To others, the space looks as if it did not exist.
            welcome.log_id = space.log_id;
            welcome.roster = space.roster.head();
            welcome.own_heads = snapshot.own_heads;
        }
        if !member && hello.log_id.is_zero() {
            return (space, welcome);
        }
        let readable: BTreeSet<_> = match member {
            true => space.roster.readable(&device).collect(),
            false => BTreeSet::new(),
        };
        let samples = snapshot.samples.into_iter().filter(|at| readable.contains(&at.stream)).collect();
        if hello.log_id.is_zero() || hello.log_id == space.log_id {
            let at =
                |stream| snapshot.at_cursors.iter().find(|(at, _)| *at == stream).and_then(|(_, hash)| *hash);
            let agrees = |cursor: &Head| at(cursor.stream) == Some(cursor.chain);
            if !hello.cursors.iter().all(agrees) {
                space.ask(id, hello.log_id, samples, then);
                return (space, welcome);
            }
            for cursor in &hello.cursors {
                space.streams.insert(cursor.stream, Progress { sent: *cursor, queued: false });
            }
        } else {
            match birth {
                Some(first) => {
                    let missed = snapshot.births[first..].iter().cloned();
                    then.extend(missed.map(|born| Output::Send(FromServer::LogBorn(born))));
                }
                None => space.ask(id, hello.log_id, samples, then),
            }
            return (space, welcome);
        }
        if member && !snapshot.entries.is_empty() {
            space.device_has = space.roster.head().map(|head| head.seq);
            send_roster(id, snapshot.entries, then);
        }
        (space, welcome)
    }

    fn ask(&mut self, id: SpaceId, old: LogId, samples: Vec<Head>, then: &mut Vec<Output>) {
        self.asked = Some((old, samples.clone()));
        then.push(Output::Send(FromServer::NeedEvidence(NeedEvidence { space: id, samples })));
    }

    /// Follows every stream that the device may read, and no other.
    pub(super) fn follow_readable(
        &mut self,
        id: SpaceId,
        device: DeviceId,
        tls: &PublicKey,
        reads: &mut VecDeque<(SpaceId, StreamId)>,
    ) {
        if self.asked.is_some() {
            return;
        }
        let readable: Vec<_> = match self.roster.is_device(&device, tls) {
            true => self.roster.readable(&device).collect(),
            false => Vec::new(),
        };
        self.streams.retain(|stream, _| readable.contains(stream));
        for stream in readable {
            let start = || Head { stream, position: Position(0), chain: envelope::chain_start(&id, &stream) };
            self.streams.entry(stream).or_insert_with(|| Progress { sent: start(), queued: false });
            self.queue(id, stream, Turn::CatchUp, reads);
        }
    }

    pub(super) fn queue(
        &mut self,
        id: SpaceId,
        stream: StreamId,
        turn: Turn,
        reads: &mut VecDeque<(SpaceId, StreamId)>,
    ) {
        let known = self.heads.get(&stream).copied().unwrap_or_default();
        let Some(progress) = self.streams.get_mut(&stream) else { return };
        if progress.queued || progress.sent.position >= known {
            return;
        }
        progress.queued = true;
        match turn {
            Turn::Live => reads.push_front((id, stream)),
            Turn::CatchUp => reads.push_back((id, stream)),
        }
    }

    /// Whether an envelope is looked at: it is not where its author's run ended with a refusal, unless it
    /// takes that run up again.
    pub(super) fn takes_up(&mut self, stream: StreamId, author: DeviceId, seq: Seq) -> bool {
        match self.refused.get(&(stream, author)) {
            Some(ended) if seq > *ended => return false,
            Some(_) => {
                self.refused.remove(&(stream, author));
                *self.runs.entry((stream, author)).or_default() += 1;
            }
            None => {}
        }
        true
    }

    /// Notes envelopes on their way to the log.
    pub(super) fn note_append(&mut self, stream: StreamId, named: impl Iterator<Item = (DeviceId, Seq)>) {
        let run = |author| self.runs.get(&(stream, author)).copied().unwrap_or_default();
        let envelopes = named.map(|(author, seq)| (author, seq, run(author))).collect();
        self.appending.push_back(Appending { stream, envelopes });
    }

    /// Forgets the envelopes that the log answered, and says of each whether a refusal is news: one of a
    /// run that was taken up again since is not. The device heard of that run's end and may by now have
    /// sealed the same sequence anew; told again, it would take the good envelope for the refused one.
    pub(super) fn forget_append(&mut self, stream: StreamId, outcomes: &[Appended]) -> Vec<bool> {
        let answers = |appending: &Appending| {
            let mut pairs = appending.envelopes.iter().zip(outcomes);
            appending.stream == stream
                && appending.envelopes.len() == outcomes.len()
                && pairs.all(|((author, seq, _), outcome)| match outcome {
                    Appended::At(_) => true,
                    Appended::Refused(of, at, _) => (of, at) == (author, seq),
                })
        };
        let Some(appended) = self.appending.iter().position(answers).and_then(|at| self.appending.remove(at))
        else {
            return vec![true; outcomes.len()];
        };
        let is_news = |(author, _, run): &(DeviceId, Seq, u32)| {
            self.runs.get(&(stream, *author)).copied().unwrap_or_default() == *run
        };
        appended.envelopes.iter().map(is_news).collect()
    }

    /// Refuses an envelope, and silently what the same author pushed behind it.
    pub(super) fn refuse_run(
        &mut self,
        id: SpaceId,
        stream: StreamId,
        author: DeviceId,
        seq: Seq,
        reason: Refusal,
        out: &mut Vec<Output>,
    ) {
        if self.refused.get(&(stream, author)).is_some_and(|ended| *ended < seq) {
            return;
        }
        // Nothing is remembered of streams and authors that anybody can make up.
        if self.roster.epoch(&stream).is_some() && self.roster.device(&author).is_some() {
            self.refused.insert((stream, author), seq);
        }
        refuse(id, RefusedWhat::Envelope { stream, author, seq }, reason, out);
    }
}

pub(super) fn refuse(space: SpaceId, what: RefusedWhat, reason: Refusal, out: &mut Vec<Output>) {
    out.push(Output::Send(FromServer::Refused(Refused { space, what, reason })));
}

/// Sends roster entries in as many frames as their sizes need.
pub(super) fn send_roster(space: SpaceId, entries: Vec<EntryWithWraps>, out: &mut Vec<Output>) {
    let mut frame = RosterFrame { space, entries: Vec::new() };
    let mut bytes = 0;
    for entry in entries {
        let len = wire::encode(&entry).len();
        if bytes + len > wire::ROSTER_FRAME_BYTES_MAX && !frame.entries.is_empty() {
            let full = std::mem::replace(&mut frame, RosterFrame { space, entries: Vec::new() });
            out.push(Output::Send(FromServer::Roster(full)));
            bytes = 0;
        }
        bytes += len;
        frame.entries.push(entry);
    }
    out.push(Output::Send(FromServer::Roster(frame)));
}
