//! A link that stands: what was said and heard over it, and what is still owed.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    BACK_OFF_MS_MAX, Input, Outgoing, Output, Place, Report, UNAVAILABLE_MS, UPLINK_BYTES_PER_S_MIN,
};
use crate::{
    id::{DeviceId, Hash, LogId, Millis, Position, RosterSeq, Seq, SpaceId, StreamId},
    roster::EntryWithWraps,
    wire::{
        self, Acked, Bye, Entries, FromDevice, FromServer, Hello, Push, PushRoster, Refusal, Refused,
        RefusedWhat, RosterHead, Seen, Welcome,
    },
};

/// How often the same refusal of the same thing is acted upon within one connection.
const REMEDIES_MAX: u32 = 3;

#[derive(Debug)]
pub(super) struct Live {
    pub(super) since: Millis,
    /// Whether Welcome came, over the very connection that it names.
    pub(super) trusted: bool,
    /// Whether everything was where it should be at some moment.
    pub(super) was_in_sync: bool,
    /// Whether it ends so that the device introduces itself anew: that is no failure to reach the server.
    pub(super) begins_anew: bool,
    /// What the server asks to be left alone between attempts.
    pub(super) pause_ms: Option<u64>,
    exporter: [u8; 32],
    device: Option<DeviceId>,
    greeted: bool,
    caught_up: bool,
    /// Whether the outbox has been looked through since it last grew.
    gathered: bool,
    /// How many looks through it are not answered yet.
    gathering: u32,
    more: bool,
    in_flight: BTreeMap<Hash, Pushed>,
    in_flight_bytes: u64,
    /// Envelopes that a server which lost them does not take back, and what came behind them: others may give
    /// what they need first, and it is this device's chain that is at stake in none of them.
    given_up: BTreeSet<Hash>,
    entries_in_flight: BTreeMap<Hash, PushedEntry>,
    roster_frames: u64,
    /// Where the server takes nothing in this connection, and why.
    blocked: BTreeMap<Place, Refusal>,
    /// Where the server takes nothing until some moment.
    waits: BTreeMap<Place, Millis>,
    remedies: BTreeMap<(SpaceId, Subject, u8), u32>,
    /// How far the logs are known to reach, and how far the device has stored them.
    reach: BTreeMap<(SpaceId, StreamId), (Position, Position)>,
    /// The spaces that the device follows, each with its log.
    log_ids: BTreeMap<SpaceId, LogId>,
    unseen: BTreeSet<(SpaceId, StreamId)>,
    /// Spaces about which the server asked in this connection whether it lost data.
    disputed: BTreeSet<SpaceId>,
    /// Those of them whose evidence is being looked up.
    recalls: BTreeSet<SpaceId>,
    /// Those of them whose evidence was sent: what the server makes of any ends the connection.
    shown: BTreeSet<SpaceId>,
    /// Whether evidence of one space only is shown: it is not known which of several did not convince.
    pub(super) shows_one: bool,
    /// When the device last said something.
    said: Millis,
    pinged: bool,
    /// Whether the app waits for the server to answer once more, so that it is known to be there.
    asks: bool,
    /// Since when the server owes an answer and says nothing.
    owed_since: Option<Millis>,
}

/// An envelope on its way.
#[derive(Debug)]
struct Pushed {
    space: SpaceId,
    stream: StreamId,
    author: DeviceId,
    seq: Seq,
    bytes: u64,
    refill: bool,
}

/// A roster entry on its way, and the frame that carries it: a refusal ends that frame's run.
#[derive(Debug)]
struct PushedEntry {
    space: SpaceId,
    seq: RosterSeq,
    frame: u64,
}

/// What a refusal is about, whatever its bytes: sealed or signed again it is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Envelope(StreamId, DeviceId, Seq),
    Entry(RosterSeq),
    Space,
}

/// Why a link that stands must end.
pub(super) enum End {
    Impostor,
    Broken,
    SentAway(Bye),
}

impl Live {
    pub(super) fn new(now: Millis, exporter: [u8; 32], shows_one: bool) -> Self {
        Self {
            since: now,
            trusted: false,
            was_in_sync: false,
            begins_anew: false,
            pause_ms: None,
            exporter,
            device: None,
            greeted: false,
            caught_up: false,
            gathered: true,
            gathering: 0,
            more: false,
            in_flight: BTreeMap::new(),
            in_flight_bytes: 0,
            given_up: BTreeSet::new(),
            entries_in_flight: BTreeMap::new(),
            roster_frames: 0,
            blocked: BTreeMap::new(),
            waits: BTreeMap::new(),
            remedies: BTreeMap::new(),
            reach: BTreeMap::new(),
            log_ids: BTreeMap::new(),
            unseen: BTreeSet::new(),
            disputed: BTreeSet::new(),
            recalls: BTreeSet::new(),
            shown: BTreeSet::new(),
            shows_one,
            said: now,
            pinged: false,
            asks: false,
            owed_since: Some(now),
        }
    }

    /// When [`Live::tick`] is due.
    pub(super) fn deadline(&self) -> Option<Millis> {
        let retry = self.waits.values().min().copied();
        [retry, self.answer_deadline(), self.ping_deadline()].into_iter().flatten().min()
    }

    /// Nothing is under way in either direction, and nothing waits to be.
    pub(super) fn is_quiet(&self) -> bool {
        let looked_through = self.gathered && self.gathering == 0 && !self.more;
        self.trusted && looked_through && self.waits.is_empty() && !self.awaits_answer()
    }

    /// Something that the server does not take, whatever is tried.
    pub(super) fn rejected(&self) -> Option<(SpaceId, Refusal)> {
        self.blocked.first_key_value().map(|((space, _), reason)| (*space, *reason))
    }

    /// The outbox is to be looked through, whether it grew or not.
    pub(super) fn look_again(&mut self) {
        self.gathered = false;
    }

    /// Has the server answer once more before everything is taken for done; until it was welcomed, it owes an
    /// answer anyway.
    pub(super) fn ask(&mut self, out: &mut Vec<Output>) {
        if self.trusted {
            (self.asks, self.pinged) = (true, true);
            out.push(Output::Send(FromDevice::Ping(0)));
        }
    }

    /// Asks for what is unsent, if there may be something and Hello was said.
    pub(super) fn gather(&mut self) -> Option<Output> {
        let next_flight = self.more && self.in_flight.is_empty();
        if !self.greeted || (self.gathered && !next_flight) {
            return None;
        }
        self.gathered = true;
        self.gathering += 1;
        self.more = false;
        let entries = self.entries_in_flight.keys();
        let in_flight = self.in_flight.keys().chain(entries).chain(&self.given_up).copied().collect();
        let blocked = self.blocked.keys().chain(self.waits.keys()).copied().collect();
        Some(Output::Gather { in_flight, caught_up: self.caught_up, blocked })
    }

    /// After every input: notes when the device spoke, and since when it waits.
    pub(super) fn mark(&mut self, now: Millis, out: &[Output]) {
        if out.iter().any(|output| matches!(output, Output::Send(_))) {
            self.said = now;
        }
        self.owed_since = match self.awaits_answer() || self.pinged {
            true => self.owed_since.or(Some(now)),
            false => None,
        };
    }

    pub(super) fn tick(&mut self, now: Millis, out: &mut Vec<Output>) -> Result<(), End> {
        let waiting = self.waits.len();
        self.waits.retain(|_, until| *until > now);
        self.gathered &= self.waits.len() == waiting;
        if self.answer_deadline().is_some_and(|at| at <= now) {
            return Err(End::Broken);
        }
        if self.ping_deadline().is_some_and(|at| at <= now) {
            self.pinged = true;
            out.push(Output::Send(FromDevice::Ping(0)));
        }
        Ok(())
    }

    pub(super) fn handle(&mut self, now: Millis, input: Input, out: &mut Vec<Output>) -> Result<(), End> {
        match input {
            Input::Greeting(hello) if !self.greeted => self.greet(hello, out),
            Input::LocalChange => self.gathered = false,
            Input::Outbox { items, more } if self.greeted => self.send(items, more, out),
            Input::Kept(_, None) => {
                // The device needs more than it asked for: what it wrote itself and no longer holds.
                self.begins_anew = true;
                return Err(End::Broken);
            }
            Input::Garbage => return Err(End::Broken),
            Input::Kept(space, Some(head)) => {
                let reach = self.reach.entry((space, head.stream)).or_default();
                reach.1 = reach.1.max(head.position);
                self.unseen.insert((space, head.stream));
            }
            Input::Evidence(evidence) if self.recalls.remove(&evidence.space) => {
                if evidence.heads.is_empty() {
                    // Nothing to show: the device comes back as one that meets this log for the first time.
                    self.begins_anew = true;
                    return Err(End::Broken);
                }
                self.shown.insert(evidence.space);
                out.push(Output::Send(FromDevice::Evidence(evidence)));
            }
            Input::Frame(frame) => {
                self.owed_since = None;
                self.pinged = false;
                return self.frame(now, frame, out);
            }
            _ => {}
        }
        Ok(())
    }

    /// What the device stored since it last said so, per space.
    pub(super) fn take_unseen(&mut self) -> Vec<Seen> {
        let mut by_space: BTreeMap<SpaceId, Vec<(StreamId, Position)>> = BTreeMap::new();
        for (space, stream) in std::mem::take(&mut self.unseen) {
            let stored = self.reach.get(&(space, stream)).map(|reach| reach.1).unwrap_or_default();
            by_space.entry(space).or_default().push((stream, stored));
        }
        let log_of = |space: &SpaceId| self.log_ids.get(space).copied().unwrap_or(LogId::ZERO);
        by_space.into_iter().map(|(space, cursors)| Seen { space, log_id: log_of(&space), cursors }).collect()
    }

    /// The server owes an answer.
    fn awaits_answer(&self) -> bool {
        !self.caught_up
            || self.asks
            || !self.in_flight.is_empty()
            || !self.entries_in_flight.is_empty()
            || self.reach.values().any(|(known, stored)| stored < known)
    }

    /// By when something must be heard: later while much is on its way up a slow link.
    fn answer_deadline(&self) -> Option<Millis> {
        let travels_ms = self.in_flight_bytes * 1000 / UPLINK_BYTES_PER_S_MIN;
        self.owed_since.map(|since| since.plus(wire::ANSWER_MS_MAX + travels_ms))
    }

    /// When the device has said nothing for so long that the server, or a router between, may forget it.
    fn ping_deadline(&self) -> Option<Millis> {
        (self.greeted && !self.pinged).then(|| self.said.plus(wire::PING_MS))
    }

    fn greet(&mut self, hello: Hello, out: &mut Vec<Output>) {
        for space in &hello.spaces {
            self.log_ids.insert(space.space, space.log_id);
            for cursor in &space.cursors {
                self.reach.insert((space.space, cursor.stream), (Position(0), cursor.position));
            }
        }
        self.device = Some(hello.device);
        out.push(Output::Send(FromDevice::Hello(hello)));
        self.greeted = true;
        self.gathered = false;
    }

    fn send(&mut self, items: Vec<Outgoing>, more: bool, out: &mut Vec<Output>) {
        self.gathering = self.gathering.saturating_sub(1);
        for item in items {
            match item {
                Outgoing::Roster(space, entries) => self.send_entries(space, entries, out),
                Outgoing::Envelopes { space, stream, envelopes, refill } => {
                    for it in &envelopes {
                        let (author, seq, bytes) = (it.author, it.seq, it.bytes.len() as u64);
                        let pushed = Pushed { space, stream, author, seq, bytes, refill };
                        self.in_flight_bytes += bytes;
                        if let Some(again) = self.in_flight.insert(it.hash, pushed) {
                            self.in_flight_bytes -= again.bytes;
                        }
                    }
                    let envelopes = envelopes.into_iter().map(|it| it.bytes.into()).collect();
                    out.push(Output::Send(FromDevice::Push(Push { space, stream, envelopes, refill })));
                }
            }
        }
        // Without anything on its way there would be nothing to wait for before asking again.
        self.more = more && !self.in_flight.is_empty();
    }

    /// Sends entries in as many frames as they need, but for those on their way already.
    fn send_entries(&mut self, space: SpaceId, entries: Vec<EntryWithWraps>, out: &mut Vec<Output>) {
        let mut frame = Vec::new();
        let mut bytes = 0;
        for entry in entries {
            let hash = entry.entry.hash();
            if self.entries_in_flight.contains_key(&hash) {
                continue;
            }
            let len = wire::encode(&entry).len();
            let full =
                bytes + len > wire::ROSTER_FRAME_BYTES_MAX || frame.len() == wire::ROSTER_FRAME_ENTRIES_MAX;
            if full && !frame.is_empty() {
                self.roster_frames += 1;
                let entries = std::mem::take(&mut frame);
                out.push(Output::Send(FromDevice::PushRoster(PushRoster { space, entries })));
                bytes = 0;
            }
            bytes += len;
            let seq = entry.entry.entry().map_or(RosterSeq(0), |entry| entry.seq);
            self.entries_in_flight.insert(hash, PushedEntry { space, seq, frame: self.roster_frames });
            frame.push(entry);
        }
        if !frame.is_empty() {
            self.roster_frames += 1;
            out.push(Output::Send(FromDevice::PushRoster(PushRoster { space, entries: frame })));
        }
    }

    fn frame(&mut self, now: Millis, frame: FromServer, out: &mut Vec<Output>) -> Result<(), End> {
        match frame {
            FromServer::Bye(bye) => {
                // A log began anew, or the device became a member: there is more for it than it asked for.
                self.begins_anew |= bye.reason == Refusal::Unavailable && bye.retry_ms == 0;
                if bye.reason == Refusal::Malformed && !self.shown.is_empty() {
                    self.begins_anew = true;
                    self.shows_one = true;
                    if self.shown.len() == 1 {
                        // It did not convince the server: the device comes as if for the first time.
                        out.extend(self.shown.iter().copied().map(Output::BeginAnew));
                    }
                }
                return Err(End::SentAway(bye));
            }
            FromServer::Welcome(welcome) => return self.welcome(welcome, out),
            _ if !self.trusted => return Err(End::Impostor),
            FromServer::Roster(roster) => {
                self.gathered = false;
                // What the device may do has changed, perhaps.
                self.unblock(&roster.space, Refusal::Role);
                self.unblock(&roster.space, Refusal::StaleEpoch);
                out.push(Output::KeepRoster(roster));
            }
            FromServer::RosterAcked(head) => self.roster_acked(head, out),
            FromServer::Acked(acked) => self.acked(acked, out)?,
            FromServer::Refused(refused) => self.refused(now, refused, out),
            FromServer::Entries(entries) => self.entries(entries, out)?,
            FromServer::CaughtUp(heads) => {
                self.gathered &= self.caught_up;
                self.caught_up = true;
                if !heads.is_empty() {
                    out.push(Output::KeepHeads(heads));
                }
            }
            FromServer::NeedEvidence(need) => {
                self.disputed.insert(need.space);
                if !self.shows_one || (self.recalls.is_empty() && self.shown.is_empty()) {
                    self.recalls.insert(need.space);
                    out.push(Output::Recall(need));
                }
            }
            FromServer::LogBorn(born) => {
                self.begins_anew = true;
                out.push(Output::KeepBirth(born));
            }
            FromServer::Pong(_) => self.asks = false,
        }
        Ok(())
    }

    fn welcome(&mut self, welcome: Welcome, out: &mut Vec<Output>) -> Result<(), End> {
        if !self.greeted || self.trusted || welcome.exporter != self.exporter {
            return Err(End::Impostor);
        }
        self.trusted = true;
        self.gathered = false;
        self.pause_ms = Some(u64::from(welcome.back_off_ms).min(BACK_OFF_MS_MAX));
        for space in &welcome.spaces {
            self.note_log(&space.space, space.log_id);
        }
        out.push(Output::Welcome(welcome));
        Ok(())
    }

    fn entries(&mut self, entries: Entries, out: &mut Vec<Output>) -> Result<(), End> {
        // An empty run, or one beyond the last number, is no run of a log.
        let behind_first = (entries.items.len() as u64).checked_sub(1).ok_or(End::Broken)?;
        let last = entries.first.0.checked_add(behind_first).ok_or(End::Broken)?;
        self.note_log(&entries.space, entries.log_id);
        let reach = self.reach.entry((entries.space, entries.stream)).or_default();
        reach.0 = reach.0.max(Position(last));
        out.push(Output::Keep(entries));
        Ok(())
    }

    fn acked(&mut self, acked: Acked, out: &mut Vec<Output>) -> Result<(), End> {
        let Ok(heads) = acked.head.content() else { return Err(End::Broken) };
        for envelope in &acked.envelopes {
            if let Some(pushed) = self.in_flight.remove(&envelope.hash) {
                self.in_flight_bytes -= pushed.bytes;
                let reach = self.reach.entry((pushed.space, pushed.stream)).or_default();
                reach.0 = reach.0.max(envelope.position);
            }
        }
        self.note_log(&heads.space, heads.log_id);
        // While the server asks what it had, what it has now is no proof of that, and must not take its place.
        let is_evidence = !self.disputed.contains(&heads.space);
        out.push(Output::KeepAcked { acked, is_evidence });
        Ok(())
    }

    fn roster_acked(&mut self, head: RosterHead, out: &mut Vec<Output>) {
        self.entries_in_flight.retain(|_, entry| entry.space != head.space || entry.seq > head.seq);
        self.gathered = false;
        self.unblock(&head.space, Refusal::StaleEpoch);
        out.push(Output::KeepRosterAck(head));
    }

    /// Each reason has its one remedy; one that does not help is not tried for ever.
    fn refused(&mut self, now: Millis, refused: Refused, out: &mut Vec<Output>) {
        let Refused { space, what, reason } = refused;
        if self.refill_refused(space, what, reason, out) {
            return;
        }
        let Some(subject) = self.end_run(space, what) else { return };
        let place = match subject {
            Subject::Envelope(stream, author, _) => (space, Some((stream, author))),
            Subject::Entry(_) | Subject::Space => (space, None),
        };
        self.gathered = false;
        let wait_ms = match reason {
            Refusal::Quota(wait_ms) => u64::from(wait_ms),
            Refusal::Unavailable => UNAVAILABLE_MS,
            _ => 0,
        };
        if wait_ms > 0 {
            self.waits.insert(place, now.plus(wait_ms));
            return;
        }
        let tried = self.remedies.entry((space, subject, reason.remedy())).or_default();
        *tried += 1;
        let exhausted = *tried > REMEDIES_MAX;
        match (reason, subject) {
            _ if exhausted => self.block(place, reason, out),
            (Refusal::StaleEpoch, Subject::Envelope(stream, _, seq)) => {
                out.push(Output::Reseal(space, stream, seq));
            }
            (Refusal::UnknownHead, _) => out.push(Output::OfferRoster(space)),
            (Refusal::HeadMoved(_), _) => out.push(Output::Resign(space)),
            (Refusal::Gap(from), Subject::Envelope(stream, ..)) => {
                out.push(Output::Rewind(space, stream, from));
            }
            (Refusal::Quota(_), _) => {}
            (Refusal::Fork, _) => {
                out.push(Output::Freeze(space));
                self.block((space, None), reason, out);
            }
            _ => self.block(place, reason, out),
        }
    }

    /// A refill that is refused for what it is is not tried again in this connection, nor is anything else
    /// concluded from it; whether that was the case.
    ///
    /// But what this device wrote itself goes out as new where the server knows of no loss and asks for no
    /// evidence of one: it was restored so that nobody could prove it.
    fn refill_refused(
        &mut self,
        space: SpaceId,
        what: RefusedWhat,
        reason: Refusal,
        out: &mut Vec<Output>,
    ) -> bool {
        let RefusedWhat::Envelope { stream, author, seq } = what else { return false };
        if matches!(reason, Refusal::Quota(_) | Refusal::Unavailable | Refusal::UnknownHead) {
            return false;
        }
        // What is new and came behind it ended with it.
        let run = |pushed: &Pushed| {
            (pushed.space, pushed.stream, pushed.author) == (space, stream, author) && pushed.seq >= seq
        };
        if !self.in_flight.values().any(|pushed| pushed.refill && run(pushed)) {
            return false;
        }
        let ended: Vec<_> =
            self.in_flight.iter().filter(|(_, pushed)| run(pushed)).map(|(hash, _)| *hash).collect();
        self.land(run);
        let is_own = self.device == Some(author) && !self.disputed.contains(&space);
        if is_own && reason == Refusal::Role {
            self.gathered = false;
            out.push(Output::SendAsNew(space, stream, seq));
            return true;
        }
        self.given_up.extend(ended);
        if is_own && !matches!(reason, Refusal::Gap(_)) {
            // What the device wrote since waits behind it, and nobody else can give what it lacks.
            self.block((space, Some((stream, author))), reason, out);
        }
        true
    }

    /// Takes what a refusal ended from what is on its way, and says what it is about; `None` where nothing
    /// of it is on its way any more, so that it was dealt with before.
    fn end_run(&mut self, space: SpaceId, what: RefusedWhat) -> Option<Subject> {
        match what {
            RefusedWhat::Envelope { stream, author, seq } => {
                let run = |pushed: &Pushed| {
                    (pushed.space, pushed.stream, pushed.author) == (space, stream, author)
                        && pushed.seq >= seq
                };
                self.land(run).then_some(Subject::Envelope(stream, author, seq))
            }
            RefusedWhat::Entry(hash) => {
                let PushedEntry { seq, frame, .. } = *self.entries_in_flight.get(&hash)?;
                self.entries_in_flight.retain(|_, entry| entry.frame != frame || entry.seq < seq);
                Some(Subject::Entry(seq))
            }
            // Entries are answered one frame at a time, whatever becomes of envelopes.
            RefusedWhat::Space => self.land(|pushed| pushed.space == space).then_some(Subject::Space),
        }
    }

    /// Takes envelopes from those on their way; whether there were any.
    fn land(&mut self, which: impl Fn(&Pushed) -> bool) -> bool {
        let before = self.in_flight.len();
        self.in_flight.retain(|_, pushed| !which(pushed));
        self.in_flight_bytes = self.in_flight.values().map(|pushed| pushed.bytes).sum();
        self.in_flight.len() < before
    }

    fn block(&mut self, place: Place, reason: Refusal, out: &mut Vec<Output>) {
        if self.blocked.insert(place, reason).is_none() {
            out.push(Output::Report(Report::Rejected(place.0, reason)));
        }
    }

    /// What was refused for this reason in a space may be tried again, remedies included.
    fn unblock(&mut self, space: &SpaceId, reason: Refusal) {
        self.blocked.retain(|(blocked, _), why| blocked != space || *why != reason);
        self.remedies.retain(|(tried, _, remedy), _| tried != space || *remedy != reason.remedy());
    }

    fn note_log(&mut self, space: &SpaceId, log_id: LogId) {
        if let Some(known) = self.log_ids.get_mut(space) {
            *known = log_id;
        }
    }
}

impl Refusal {
    /// Which remedy this refusal calls for; refusals that differ only in figures share one.
    fn remedy(self) -> u8 {
        match self {
            Self::StaleEpoch => 0,
            Self::UnknownHead => 1,
            Self::HeadMoved(_) => 2,
            Self::Gap(_) => 3,
            Self::Quota(_) | Self::Unavailable => 4,
            Self::Role | Self::Fork | Self::Malformed | Self::Version | Self::Unregistered => 5,
        }
    }
}
