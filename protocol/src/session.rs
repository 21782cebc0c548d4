//! The server's side of one connection, without sockets, clock or storage.
//!
//! [`Session::handle`] takes what happened and answers with what to do, in order. The driver carries
//! the outputs out and feeds their answers back as inputs:
//!
//! | output | answered by |
//! |---|---|
//! | [`Output::Open`] | [`Input::Opened`], before any other input |
//! | [`Output::AppendRoster`] | [`Input::RosterCommitted`] |
//! | [`Output::Append`] | [`Input::Committed`] |
//! | [`Output::Read`] | [`Input::Run`] |
//! | [`Output::Bear`] | [`Input::Born`] |
//! | [`Output::Send`] and [`Output::Attest`] of a run | [`Input::Drained`], once little is left to write |
//!
//! From the first [`Output::Open`] of a space on, the driver also reports what others commit there
//! ([`Input::Grew`], [`Input::RosterGrew`]), after it has become durable.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use crate::{
    envelope::Envelope,
    id::{DeviceId, Hash, LogId, Millis, Position, RosterSeq, Seq, SpaceId, StreamId},
    roster::{EntryWithWraps, Roster, RosterError, VerifiedEntry},
    verify::{self, PublicKey, Signed, Verified},
    wire::{
        self, AckedEnvelope, Bye, Entries, Evidence, FromDevice, FromServer, Head, Heads, Hello, Item, Push,
        PushRoster, Refusal, RefusedWhat, RosterHead, SignedHeads, SignedLogBorn, SignedPins, SpaceHello,
        SpaceWelcome, Welcome,
    },
};

mod space;

use space::{Space, Turn, refuse, send_roster};

/// Spaces that one connection founds within [`FOUNDINGS_MS`]: a person founds one, and perhaps one for a child.
const FOUNDINGS_MAX: usize = 4;
/// See [`FOUNDINGS_MAX`].
const FOUNDINGS_MS: u64 = 60_000;
/// Signed heads that are looked at in one frame of evidence: twice as many as there are streams. Each costs
/// a signature check for every key that this server ever signed with.
const EVIDENCE_HEADS_MAX: usize = 64;

/// What is the same for every session of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether a space that nobody registered may be founded.
    pub open_registration: bool,
    /// The pin list to hand to devices that hold an older one.
    pub pins: SignedPins,
    /// Keys whose signature under a head this server takes for its own.
    pub heads_keys: Vec<PublicKey>,
    /// What devices are told to wait between attempts.
    pub back_off_ms: u32,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A frame came.
    Frame(FromDevice),
    /// Bytes came that are no frame.
    Garbage,
    /// The state of a space, as asked; `None` where there is no such space.
    Opened(SpaceId, Option<Snapshot>),
    /// Roster entries were tried, in order, up to the first that failed.
    RosterCommitted {
        /// The space.
        space: SpaceId,
        /// The log, the roster as it now stands; `None` where the space still does not exist.
        state: Option<(LogId, Arc<Roster>)>,
        /// The first entry that was not taken.
        refused: Option<(Hash, Refusal)>,
    },
    /// Envelopes were tried, in order.
    Committed {
        /// The space.
        space: SpaceId,
        /// The stream.
        stream: StreamId,
        /// What became of each.
        outcomes: Vec<Appended>,
        /// The stream's head after them.
        head: Option<(LogId, Head)>,
    },
    /// Somebody's envelopes became durable.
    Grew(SpaceId, LogId, Vec<Head>),
    /// Somebody's roster entries became durable.
    RosterGrew {
        /// The space.
        space: SpaceId,
        /// The log.
        log_id: LogId,
        /// The roster as it now stands.
        roster: Arc<Roster>,
        /// The entries that were added.
        entries: Vec<EntryWithWraps>,
    },
    /// A run of a log, as asked.
    Run(Run),
    /// A log began anew, for this device or another; `None` where the evidence asked did not convince.
    Born(SpaceId, Option<SignedLogBorn>),
    /// Little is left to be written: the next run may come.
    Drained,
    /// The deadline has passed.
    Tick,
}

/// What a space looks like when a session opens it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The present log.
    pub log_id: LogId,
    /// The roster.
    pub roster: Arc<Roster>,
    /// Entries after the one that the device named; all where that one is not in the chain.
    pub entries: Vec<EntryWithWraps>,
    /// The streams' heads.
    pub heads: Vec<Head>,
    /// Chain hashes at the device's cursors, where there is such a position.
    pub at_cursors: Vec<(StreamId, Option<Hash>)>,
    /// Where the device's cursors or log disagree: per stream the head and the places 1, 2, 4, 8 and so
    /// on before it, at most [`wire::SAMPLES_MAX`]; otherwise empty.
    pub samples: Vec<Head>,
    /// The device's own newest envelope in each stream.
    pub own_heads: Vec<(StreamId, Seq, Hash)>,
    /// Every birth of a log of this space, oldest first.
    pub births: Vec<SignedLogBorn>,
}

/// What became of one envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is durable, now or since before.
    At(AckedEnvelope),
    /// It was not taken.
    Refused(DeviceId, Seq, Refusal),
}

/// A run of a stream's log.
#[derive(Clone, Debug)]
pub struct Run {
    /// The space.
    pub space: SpaceId,
    /// The log.
    pub log_id: LogId,
    /// The position of the first item.
    pub first: Position,
    /// The items.
    pub items: Vec<Item>,
    /// The head as of the last item (as of `first - 1` where there is none).
    pub end: Head,
}

/// What to do, in order.
#[derive(Debug)]
pub enum Output {
    /// Read a space's state and report what is committed there from now on.
    Open(DeviceId, SpaceHello),
    /// Send a frame.
    Send(FromServer),
    /// Sign heads and send them.
    Attest(Attest),
    /// Append roster entries, in order, as far as they follow on the chain's head.
    AppendRoster(SpaceId, Vec<VerifiedEntry>),
    /// Append envelopes, in order.
    Append {
        /// The space.
        space: SpaceId,
        /// The stream.
        stream: StreamId,
        /// The envelopes.
        envelopes: Vec<Verified<Envelope>>,
        /// Given back by a reader after a loss: judged at the heads that they name.
        refill: bool,
    },
    /// Read a run after a position, of at most [`wire::CATCH_UP_BYTES_MAX`].
    Read {
        /// The space.
        space: SpaceId,
        /// The stream.
        stream: StreamId,
        /// The last position that the device has.
        after: Position,
        /// Whose envelopes are sent as hashes only.
        own: Option<DeviceId>,
    },
    /// Start a new log for a space that lost data (creating the space if it is gone).
    Bear {
        /// The space.
        space: SpaceId,
        /// The log that the evidence is of.
        old: LogId,
        /// The heads that this server once signed.
        evidence: Vec<SignedHeads>,
        /// Where the old and the present log agree.
        common: Vec<Head>,
    },
    /// End the connection when everything before was written.
    Close,
}

/// Heads to sign, and the frame in which they go.
#[derive(Debug)]
pub enum Attest {
    /// [`FromServer::CaughtUp`].
    CaughtUp(Vec<Heads>),
    /// [`FromServer::Acked`].
    Acked(Vec<AckedEnvelope>, Heads),
}

/// One connection, as the server sees it.
#[derive(Debug)]
pub struct Session {
    config: Arc<Config>,
    tls: PublicKey,
    exporter: [u8; 32],
    state: State,
    heard: Millis,
    spaces: BTreeMap<SpaceId, Space>,
    reads: VecDeque<(SpaceId, StreamId)>,
    reading: Reading,
    /// Appends on their way to the log, roster entries included.
    appends: usize,
    /// When the last [`FOUNDINGS_MAX`] spaces were founded, oldest first.
    foundings: VecDeque<Millis>,
    /// Whether the device has been told once that it is caught up.
    told: bool,
}

#[derive(Debug)]
enum State {
    AwaitHello,
    /// Collects the snapshots; Welcome is the first frame, and `then` follows it.
    Opening {
        hello: Hello,
        welcomes: Vec<SpaceWelcome>,
        then: Vec<Output>,
    },
    Live {
        device: DeviceId,
    },
    Closed,
}

#[derive(Debug, PartialEq, Eq)]
enum Reading {
    Idle,
    /// A run was asked for, while the stream was known to reach this far.
    Asked(Position),
    Writing,
}

impl Session {
    /// A session on a fresh connection, with the peer's TLS key and the exported keying material.
    #[must_use]
    pub fn new(now: Millis, config: Arc<Config>, tls: PublicKey, exporter: [u8; 32]) -> Self {
        Self {
            config,
            tls,
            exporter,
            state: State::AwaitHello,
            heard: now,
            spaces: BTreeMap::new(),
            reads: VecDeque::new(),
            reading: Reading::Idle,
            appends: 0,
            foundings: VecDeque::new(),
            told: false,
        }
    }

    /// When [`Input::Tick`] is due, if nothing happens before; `None` once closed.
    #[must_use]
    pub fn deadline(&self) -> Option<Millis> {
        match self.state {
            State::AwaitHello => Some(self.heard.plus(wire::HELLO_MS_MAX)),
            State::Opening { .. } | State::Live { .. } => Some(self.heard.plus(wire::IDLE_MS_MAX)),
            State::Closed => None,
        }
    }

    /// The device, once it has said who it is.
    #[must_use]
    pub fn device(&self) -> Option<DeviceId> {
        match &self.state {
            State::Opening { hello, .. } => Some(hello.device),
            State::Live { device } => Some(*device),
            State::AwaitHello | State::Closed => None,
        }
    }

    /// The device, if the roster of a space that it opened names it with the key that it has shown.
    #[must_use]
    pub fn member(&self) -> Option<DeviceId> {
        let device = self.device()?;
        let names =
            |space: &Space| space.durable > RosterSeq(0) && space.roster.is_device(&device, &self.tls);
        self.spaces.values().any(names).then_some(device)
    }

    /// Takes what happened and says what to do, in order.
    pub fn handle(&mut self, now: Millis, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        if matches!(self.state, State::Closed) {
            return out;
        }
        match input {
            Input::Frame(frame) => {
                self.heard = now;
                self.frame(now, frame, &mut out);
            }
            Input::Garbage => self.bye(Refusal::Malformed, 0, &mut out),
            Input::Opened(space, snapshot) => self.opened(now, space, snapshot, &mut out),
            Input::RosterCommitted { space, state, refused } => {
                self.roster_committed(space, state, refused, &mut out);
            }
            Input::Committed { space, stream, outcomes, head } => {
                self.committed(space, stream, &outcomes, head, &mut out);
            }
            Input::Grew(space, log_id, heads) => self.grew(space, log_id, &heads),
            Input::RosterGrew { space, log_id, roster, entries } => {
                self.roster_grew(space, log_id, roster, entries, &mut out);
            }
            Input::Run(run) => self.run(run, &mut out),
            Input::Born(space, born) => self.born(space, born, &mut out),
            Input::Drained => {
                if self.reading == Reading::Writing {
                    self.reading = Reading::Idle;
                }
            }
            Input::Tick => {
                if self.deadline().is_some_and(|deadline| deadline <= now) {
                    self.state = State::Closed;
                    out.push(Output::Close);
                }
            }
        }
        self.go_on(&mut out);
        out
    }

    fn frame(&mut self, now: Millis, frame: FromDevice, out: &mut Vec<Output>) {
        match (&self.state, frame) {
            (State::AwaitHello, FromDevice::Hello(hello)) => self.hello(now, hello, out),
            (State::Live { device }, FromDevice::PushRoster(push)) => {
                self.push_roster(now, *device, push, out);
            }
            (State::Live { device }, FromDevice::Push(push)) => self.push(*device, push, out),
            (State::Live { .. }, FromDevice::Evidence(evidence)) => self.evidence(evidence, out),
            (State::Live { .. }, FromDevice::Seen(_)) => {}
            (State::Live { .. }, FromDevice::Ping(nonce)) => out.push(Output::Send(FromServer::Pong(nonce))),
            _ => self.bye(Refusal::Malformed, 0, out),
        }
    }

    fn hello(&mut self, now: Millis, mut hello: Hello, out: &mut Vec<Output>) {
        if hello.version != wire::VERSION {
            return self.bye(Refusal::Version, u32::MAX, out);
        }
        let mut named: Vec<_> = hello.spaces.iter().map(|space| space.space).collect();
        named.sort_unstable();
        named.dedup();
        if named.len() != hello.spaces.len() || named.len() > wire::SPACES_MAX {
            return self.bye(Refusal::Malformed, 0, out);
        }
        hello.spaces.sort_by_key(|space| space.space);
        out.extend(hello.spaces.iter().map(|space| Output::Open(hello.device, space.clone())));
        let nothing_to_open = hello.spaces.is_empty();
        self.state = State::Opening { hello, welcomes: Vec::new(), then: Vec::new() };
        if nothing_to_open {
            self.welcome(now, out);
        }
    }

    fn opened(&mut self, now: Millis, id: SpaceId, snapshot: Option<Snapshot>, out: &mut Vec<Output>) {
        let State::Opening { hello, welcomes, then } = &mut self.state else { return };
        let Ok(at) = hello.spaces.binary_search_by_key(&id, |space| space.space) else { return };
        let device = hello.device;
        let (space, welcome) = Space::open(device, &self.tls, &hello.spaces[at], snapshot, then);
        self.spaces.insert(id, space);
        welcomes.push(welcome);
        if welcomes.len() == hello.spaces.len() {
            self.welcome(now, out);
        }
    }

    fn welcome(&mut self, now: Millis, out: &mut Vec<Output>) {
        let State::Opening { hello, welcomes, then } = std::mem::replace(&mut self.state, State::Closed)
        else {
            return;
        };
        let newer = self.config.pins.content().is_ok_and(|pins| pins.version > hello.pins_version);
        out.push(Output::Send(FromServer::Welcome(Welcome {
            version: wire::VERSION,
            exporter: self.exporter,
            server_ms: now,
            pins: newer.then(|| self.config.pins.clone()),
            spaces: welcomes,
            back_off_ms: self.config.back_off_ms,
        })));
        let is_birth = |output: &Output| matches!(output, Output::Send(FromServer::LogBorn(_)));
        if then.iter().any(is_birth) {
            // The device comes back for everything else, and hears of all that began anew before it does.
            out.extend(then.into_iter().filter(is_birth));
            return self.bye(Refusal::Unavailable, 0, out);
        }
        out.extend(then);
        self.state = State::Live { device: hello.device };
        for (id, space) in &mut self.spaces {
            space.follow_readable(*id, hello.device, &self.tls, &mut self.reads);
        }
    }

    fn push_roster(&mut self, now: Millis, device: DeviceId, push: PushRoster, out: &mut Vec<Output>) {
        let Some(first) = push.entries.first().map(|entry| entry.entry.hash()) else { return };
        if push.entries.len() > wire::ROSTER_FRAME_ENTRIES_MAX {
            return self.bye(Refusal::Malformed, 0, out);
        }
        let Some(space) = self.spaces.get_mut(&push.space) else {
            return refuse(push.space, RefusedWhat::Entry(first), Refusal::Role, out);
        };
        space.refused_whole = false;
        let founds = space.log_id.is_zero() && space.roster.head().is_none();
        let mut roster = (*space.roster).clone();
        let mut taken = Vec::new();
        let mut known = None;
        let mut refused = None;
        for entry in push.entries {
            let hash = entry.entry.hash();
            let prev = entry.entry.entry().ok().map(|entry| entry.prev);
            let reason = match roster.verify(entry) {
                Ok(verified) => {
                    roster.apply(&verified);
                    taken.push(verified);
                    continue;
                }
                Err(RosterError::Known) => {
                    known = roster.place(&hash).map(|seq| RosterHead { space: push.space, seq, hash });
                    continue;
                }
                Err(RosterError::Moved) => Refusal::HeadMoved(prev.and_then(|hash| {
                    let seq = roster.place(&hash)?;
                    Some(RosterHead { space: push.space, seq, hash })
                })),
                Err(RosterError::NotAllowed(_)) => Refusal::Role,
                Err(_) => Refusal::Malformed,
            };
            refused = Some((hash, reason));
            break;
        }
        if !roster.is_device(&device, &self.tls) {
            // Whatever the space holds, and whether there is one: a stranger hears nothing else. A device that
            // was a member until something was lost here shows the roster from its start.
            return refuse(push.space, RefusedWhat::Entry(first), Refusal::UnknownHead, out);
        }
        if founds && let Err(reason) = may_found(&self.config, &mut self.foundings, now) {
            return refuse(push.space, RefusedWhat::Entry(first), reason, out);
        }
        // What this very device pushed before and nobody has made durable yet is acknowledged when it is.
        if let Some(known) = known.filter(|known| known.seq < space.durable) {
            space.device_has = space.device_has.max(Some(known.seq));
            out.push(Output::Send(FromServer::RosterAcked(known)));
        }
        if !taken.is_empty() {
            space.roster = Arc::new(roster);
            let head = |entry: &VerifiedEntry| RosterHead {
                space: push.space,
                seq: entry.entry().seq,
                hash: entry.hash(),
            };
            space.pushed.push_back(taken.iter().map(head).collect());
            self.appends += 1;
            out.push(Output::AppendRoster(push.space, taken));
        }
        if let Some((hash, reason)) = refused {
            refuse(push.space, RefusedWhat::Entry(hash), reason, out);
        }
    }

    fn roster_committed(
        &mut self,
        id: SpaceId,
        state: Option<(LogId, Arc<Roster>)>,
        refused: Option<(Hash, Refusal)>,
        out: &mut Vec<Output>,
    ) {
        self.appends -= 1;
        let State::Live { device } = self.state else { return };
        let Some(space) = self.spaces.get_mut(&id) else { return };
        let (log_id, roster) = state.unwrap_or_else(|| (LogId::ZERO, Arc::new(Roster::new(id))));
        let pushed = space.pushed.pop_front().unwrap_or_default();
        // The device holds what it pushed and all before; what others added since comes to it as theirs.
        if let Some(taken) = pushed.iter().rev().find(|head| roster.hash_at(head.seq) == Some(head.hash)) {
            space.device_has = space.device_has.max(Some(taken.seq));
            out.push(Output::Send(FromServer::RosterAcked(*taken)));
        }
        if let Some((hash, reason)) = refused {
            refuse(id, RefusedWhat::Entry(hash), reason, out);
        }
        space.log_id = log_id;
        space.durable = roster.next_seq();
        // Frames that are still on their way build on what is believed, unless it did not come to be.
        let believed = refused.is_none() && space.roster.place(&roster.prev()).is_some();
        if space.pushed.is_empty() || !believed {
            space.roster = roster;
        }
        space.refused_whole = false;
        space.follow_readable(id, device, &self.tls, &mut self.reads);
    }

    fn push(&mut self, device: DeviceId, push: Push, out: &mut Vec<Output>) {
        let Some(space) = self.spaces.get_mut(&push.space) else {
            return refuse(push.space, RefusedWhat::Space, Refusal::Role, out);
        };
        if !space.roster.is_device(&device, &self.tls) {
            // Perhaps the roster that makes it one was lost here; a stranger learns nothing from this.
            if !std::mem::replace(&mut space.refused_whole, true) {
                refuse(push.space, RefusedWhat::Space, Refusal::UnknownHead, out);
            }
            return;
        }
        let mut envelopes = Vec::new();
        for bytes in push.envelopes {
            let Ok(envelope) = Envelope::parse(bytes.into_vec()) else {
                return self.bye(Refusal::Malformed, 0, out);
            };
            let header = *envelope.header();
            if header.space != push.space || header.stream != push.stream {
                return self.bye(Refusal::Malformed, 0, out);
            }
            if !space.takes_up(header.stream, header.author, header.seq) {
                continue;
            }
            let author = space.roster.device(&header.author).map(|author| author.keys.sig);
            let checked = match author {
                _ if header.author != device && !push.refill => Err(Refusal::Role),
                None => Err(Refusal::UnknownHead),
                Some(key) => verify::check(envelope, &key).map_err(|_| Refusal::Malformed),
            };
            match checked {
                Ok(envelope) => envelopes.push(envelope),
                Err(reason) => {
                    space.refuse_run(push.space, push.stream, header.author, header.seq, reason, out)
                }
            }
        }
        if !envelopes.is_empty() {
            self.appends += 1;
            let named = envelopes.iter().map(|envelope| (envelope.header().author, envelope.header().seq));
            space.note_append(push.stream, named);
            let Push { space, stream, refill, .. } = push;
            out.push(Output::Append { space, stream, envelopes, refill });
        }
    }

    fn committed(
        &mut self,
        id: SpaceId,
        stream: StreamId,
        outcomes: &[Appended],
        head: Option<(LogId, Head)>,
        out: &mut Vec<Output>,
    ) {
        self.appends -= 1;
        let Some(space) = self.spaces.get_mut(&id) else { return };
        let mut acked = Vec::new();
        let taken_up = space.forget_append(stream, outcomes);
        for (outcome, is_news) in outcomes.iter().zip(taken_up) {
            match *outcome {
                Appended::At(envelope) => acked.push(envelope),
                Appended::Refused(author, seq, reason) if is_news => {
                    space.refuse_run(id, stream, author, seq, reason, out);
                }
                Appended::Refused(..) => {}
            }
        }
        if let (Some((log_id, head)), false) = (head, acked.is_empty()) {
            let heads = Heads { space: id, log_id, heads: vec![head] };
            out.push(Output::Attest(Attest::Acked(acked, heads)));
        }
    }

    fn grew(&mut self, id: SpaceId, log_id: LogId, heads: &[Head]) {
        let Some(space) = self.spaces.get_mut(&id).filter(|space| space.log_id == log_id) else { return };
        for head in heads {
            let known = space.heads.entry(head.stream).or_default();
            *known = (*known).max(head.position);
            space.queue(id, head.stream, Turn::Live, &mut self.reads);
        }
    }

    fn roster_grew(
        &mut self,
        id: SpaceId,
        log_id: LogId,
        roster: Arc<Roster>,
        entries: Vec<EntryWithWraps>,
        out: &mut Vec<Output>,
    ) {
        let State::Live { device } = self.state else { return };
        let Some(space) = self.spaces.get_mut(&id) else { return };
        space.log_id = log_id;
        let newest = roster.next_seq();
        let first_new = newest.0 - entries.len() as u64;
        space.durable = space.durable.max(newest);
        // What the device pushed and nobody has answered may build on this, or have been overtaken by it.
        if space.roster.place(&roster.prev()).is_none() {
            space.roster = roster;
        }
        if space.roster.is_device(&device, &self.tls) {
            space.refused_whole = false;
            let lacks = space.device_has.map_or(0, |seq| seq.next().0);
            if lacks < first_new {
                // A device that became a member just now needs the chain from its start: it asks anew.
                return self.bye(Refusal::Unavailable, 0, out);
            }
            let has = usize::try_from(lacks - first_new).unwrap_or(usize::MAX);
            let fresh: Vec<_> = entries.into_iter().skip(has).collect();
            if !fresh.is_empty() {
                // As the log says, not as the device pushed: what it pushed may yet be refused.
                space.device_has = Some(RosterSeq(newest.0 - 1));
                send_roster(id, fresh, out);
            }
            space.follow_readable(id, device, &self.tls, &mut self.reads);
        }
    }

    fn run(&mut self, run: Run, out: &mut Vec<Output>) {
        let Reading::Asked(known) = std::mem::replace(&mut self.reading, Reading::Writing) else {
            self.reading = Reading::Idle;
            return;
        };
        let Some(space) = self.spaces.get_mut(&run.space).filter(|space| space.log_id == run.log_id) else {
            self.reading = Reading::Idle;
            return;
        };
        let stream = run.end.stream;
        let Some(progress) = space.streams.get_mut(&stream) else {
            self.reading = Reading::Idle;
            return;
        };
        progress.queued = false;
        progress.sent = run.end;
        if run.items.is_empty() {
            self.reading = Reading::Idle;
            // Nothing is there, so the stream ends earlier than was told, unless it grew meanwhile.
            if space.heads.get(&stream).is_none_or(|head| *head <= known) {
                space.heads.insert(stream, run.end.position);
            }
            space.queue(run.space, stream, Turn::Live, &mut self.reads);
            return;
        }
        if !space.moved.contains(&stream) {
            space.moved.push(stream);
        }
        let Run { space: id, log_id, first, items, .. } = run;
        out.push(Output::Send(FromServer::Entries(Entries { space: id, stream, log_id, first, items })));
        space.queue(id, stream, Turn::CatchUp, &mut self.reads);
    }

    fn evidence(&mut self, evidence: Evidence, out: &mut Vec<Output>) {
        let Some(space) = self.spaces.get_mut(&evidence.space) else {
            return self.bye(Refusal::Malformed, 0, out);
        };
        let Some((old, samples)) = space.asked.take() else { return self.bye(Refusal::Malformed, 0, out) };
        let mut seen = BTreeSet::new();
        let named = evidence.heads.iter().filter(|signed| {
            let of = signed.content().is_ok_and(|heads| heads.space == evidence.space && heads.log_id == old);
            of && seen.insert((signed.body(), signed.signature().to_bytes()))
        });
        let keys = &self.config.heads_keys;
        let ours =
            |signed: &&SignedHeads| keys.iter().any(|key| verify::check((*signed).clone(), key).is_ok());
        let heads: Vec<_> = named.take(EVIDENCE_HEADS_MAX).filter(ours).cloned().collect();
        if heads.is_empty() {
            return self.bye(Refusal::Malformed, 0, out);
        }
        (space.knows, space.has_shown) = (true, true);
        let agreed: BTreeSet<_> = evidence.common.into_iter().collect();
        let common = samples.into_iter().filter(|at| agreed.contains(&(at.stream, at.position))).collect();
        // Like an append: until it is answered, and the connection with it, nobody is caught up.
        self.appends += 1;
        out.push(Output::Bear { space: evidence.space, old, evidence: heads, common });
    }

    fn born(&mut self, space: SpaceId, born: Option<SignedLogBorn>, out: &mut Vec<Output>) {
        let (Some(followed), Some(device)) = (self.spaces.get(&space), self.device()) else { return };
        let member = followed.roster.is_device(&device, &self.tls);
        if !member && !followed.knows {
            // To a stranger nothing happened. Who is being asked hears of it when he answers.
            return;
        }
        let new = born.as_ref().and_then(|born| born.content().ok()).map(|born| born.new);
        if new == Some(followed.log_id) && !followed.has_shown {
            // The device came back before the news of it went round.
            return;
        }
        // Others only come back: who names the old log in its Hello is told then.
        let may_know = member || followed.roster.head().is_none();
        match born {
            Some(born) => {
                if may_know {
                    out.push(Output::Send(FromServer::LogBorn(born)));
                }
                self.bye(Refusal::Unavailable, 0, out);
            }
            None => self.bye(Refusal::Malformed, 0, out),
        }
    }

    /// Asks for the next run when nothing is under way, and tells the device when there is none.
    fn go_on(&mut self, out: &mut Vec<Output>) {
        let State::Live { device } = self.state else { return };
        if self.reading != Reading::Idle {
            return;
        }
        while let Some((id, stream)) = self.reads.pop_front() {
            let Some(space) = self.spaces.get(&id) else { continue };
            let Some(progress) = space.streams.get(&stream) else { continue };
            let own = (!space.own_in_full).then_some(device);
            out.push(Output::Read { space: id, stream, after: progress.sent.position, own });
            self.reading = Reading::Asked(space.heads.get(&stream).copied().unwrap_or_default());
            return;
        }
        let moved = self.spaces.values().any(|space| !space.moved.is_empty());
        let asking = self.spaces.values().any(|space| space.asked.is_some());
        if self.appends > 0 || asking || (self.told && !moved) {
            return;
        }
        self.told = true;
        let mut frame = Vec::new();
        let mut heads_in_frame = 0;
        for (id, space) in self.spaces.iter_mut().filter(|(_, space)| !space.moved.is_empty()) {
            let moved = std::mem::take(&mut space.moved);
            let heads = moved.iter().filter_map(|stream| space.streams.get(stream)).map(|at| at.sent);
            let heads = Heads { space: *id, log_id: space.log_id, heads: heads.collect() };
            let full = heads_in_frame + heads.heads.len() > wire::CAUGHT_UP_HEADS_MAX;
            if full || frame.len() == wire::CAUGHT_UP_SPACES_MAX {
                out.push(Output::Attest(Attest::CaughtUp(std::mem::take(&mut frame))));
                heads_in_frame = 0;
            }
            heads_in_frame += heads.heads.len();
            frame.push(heads);
        }
        out.push(Output::Attest(Attest::CaughtUp(frame)));
    }

    fn bye(&mut self, reason: Refusal, retry_ms: u32, out: &mut Vec<Output>) {
        out.push(Output::Send(FromServer::Bye(Bye { reason, retry_ms })));
        out.push(Output::Close);
        self.state = State::Closed;
    }
}

/// Whether this connection may found one more space now.
fn may_found(config: &Config, foundings: &mut VecDeque<Millis>, now: Millis) -> Result<(), Refusal> {
    if !config.open_registration {
        return Err(Refusal::Unregistered);
    }
    if foundings.len() == FOUNDINGS_MAX
        && let Some(first) = foundings.pop_front()
    {
        let over = first.plus(FOUNDINGS_MS);
        if now < over {
            foundings.push_front(first);
            return Err(Refusal::Quota(u32::try_from(over.since(now)).unwrap_or(u32::MAX)));
        }
    }
    foundings.push_back(now);
    Ok(())
}
