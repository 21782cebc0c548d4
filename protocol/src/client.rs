//! The device's side of its connection, without sockets, clock, storage or keys.
//!
//! [`Client::handle`] takes what happened and answers with what to do, in order. Outputs that keep
//! something are durable before the next one is carried out; these are answered by inputs:
//!
//! | output | answered by |
//! |---|---|
//! | [`Output::Connect`] | [`Input::Connected`] or [`Input::Closed`] |
//! | [`Output::Greet`] | [`Input::Greeting`] |
//! | [`Output::Gather`] | [`Input::Outbox`] (core seals and signs here, and only here) |
//! | [`Output::Keep`] | [`Input::Kept`] |
//! | [`Output::Recall`] | [`Input::Evidence`] |
//!
//! What a device says waits for nothing: Hello and everything unsent leave at once, and a reconnect
//! that carries changes both ways is one round trip. What it hears counts only after Welcome has
//! echoed the keying material of this very connection. Answers that come when nobody waits for them
//! any more (the link they were meant for is gone) change nothing.

use std::collections::BTreeSet;

use crate::{
    id::{DeviceId, Hash, Millis, Seq, SpaceId, StreamId},
    roster::EntryWithWraps,
    wire::{
        Acked, Entries, Evidence, FromDevice, FromServer, Head, Hello, NeedEvidence, Refusal, RosterFrame,
        RosterHead, SignedHeads, SignedLogBorn, Welcome,
    },
};

mod live;

use live::{End, Live};

/// The first pause after a failure; it doubles up to [`BACK_OFF_MS_MAX`], and jitter takes up to half off.
pub const BACK_OFF_MS_MIN: u64 = 500;
/// The longest pause: a phone that comes out of a tunnel is heard within a minute.
pub const BACK_OFF_MS_MAX: u64 = 60_000;
/// After this long without an answer to Connect, the attempt has failed.
pub const CONNECT_MS_MAX: u64 = 10_000;
/// How long to leave a server alone that could not store something.
pub const UNAVAILABLE_MS: u64 = 5_000;
/// Bytes of envelopes on their way at once: a week offline in one flight, a year in several.
pub const IN_FLIGHT_BYTES_MAX: usize = 4 << 20;
/// A link that was in sync and stood so long was a good one: what failed before it counts no more. One
/// that breaks as soon as it is in sync is made anew ever more slowly, like one that never gets there.
pub const STEADY_MS: u64 = 10_000;
/// The longest that a server sends a device away: one that says for ever is asked again.
pub const BYE_MS_MAX: u64 = 3_600_000;
/// What a link carries at the least, in bytes per second: an answer to more bytes may take longer.
pub const UPLINK_BYTES_PER_S_MIN: u64 = 8 << 10;

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// The app wants one sync, to end by this moment.
    SyncUntil(Millis),
    /// The app wants to stay in sync from now on.
    Stay,
    /// The app wants neither any longer.
    Leave,
    /// The outbox grew.
    LocalChange,
    /// The network changed: what failed before may work now.
    NetworkChanged,
    /// The link failed, and there is another way that was not tried: it is, at once. The pause that follows if
    /// it fails as well is as long as ever.
    OtherWay,
    /// The link stands.
    Connected {
        /// Keying material that both ends exported from it.
        exporter: [u8; 32],
    },
    /// The link is gone, or never came to stand.
    Closed,
    /// How far the device is, as asked.
    Greeting(Hello),
    /// What is unsent, as asked.
    Outbox {
        /// Frames' worth of it, in the order in which to send them.
        items: Vec<Outgoing>,
        /// Whether more is waiting than fits in one flight.
        more: bool,
    },
    /// A run of a log is stored up to here; `None` where the device must introduce itself anew to go on.
    Kept(SpaceId, Option<Head>),
    /// What the device holds against a forgetful server, as asked.
    Evidence(Evidence),
    /// A frame came.
    Frame(FromServer),
    /// Bytes came that are no frame.
    Garbage,
    /// The deadline has passed.
    Tick,
}

/// Something unsent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// Roster entries, in order.
    Roster(SpaceId, Vec<EntryWithWraps>),
    /// Envelopes of one stream, in order of each author's chain.
    Envelopes {
        /// The space.
        space: SpaceId,
        /// The stream.
        stream: StreamId,
        /// The envelopes with what the client needs to follow them.
        envelopes: Vec<OutgoingEnvelope>,
        /// Whether they are given back to a server that lost them.
        refill: bool,
    },
}

/// An envelope on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingEnvelope {
    /// Its hash.
    pub hash: Hash,
    /// Who wrote it.
    pub author: DeviceId,
    /// The author's sequence.
    pub seq: Seq,
    /// The whole, as signed.
    pub bytes: Vec<u8>,
}

/// An author's chain in a stream, or a whole space.
pub type Place = (SpaceId, Option<(StreamId, DeviceId)>);

/// What to do, in order.
#[derive(Debug)]
pub enum Output {
    /// Open a link.
    Connect,
    /// Close the link, after everything before was sent.
    Disconnect,
    /// Read from the store how far the device is.
    Greet,
    /// Seal and sign what is not yet sealed, and give what is unsent.
    Gather {
        /// Envelopes and roster entries that are on their way already, or not to be sent in this connection.
        in_flight: BTreeSet<Hash>,
        /// Whether the device has read all that the server has: what is still missing there, it lost.
        caught_up: bool,
        /// Of what the server takes nothing: now, or in this connection.
        blocked: BTreeSet<Place>,
    },
    /// Send a frame.
    Send(FromDevice),
    /// The server is who it should be: note its clock and pins, and compare what it has with what the device has.
    Welcome(Welcome),
    /// Verify and store roster entries.
    KeepRoster(RosterFrame),
    /// Note that roster entries up to this one are durable at the server.
    KeepRosterAck(RosterHead),
    /// Check and store a run of a log, and the cursor with it in one transaction.
    Keep(Entries),
    /// Note which envelopes are durable at the server.
    KeepAcked {
        /// What it signed of them.
        acked: Acked,
        /// Whether that is proof of what the server has, to be kept against a loss.
        is_evidence: bool,
    },
    /// Note heads that the server signed.
    KeepHeads(Vec<SignedHeads>),
    /// Note that a log began anew: cursors and deliveries go back to where both logs agree.
    KeepBirth(SignedLogBorn),
    /// Look up what the device holds against a server that forgot.
    Recall(NeedEvidence),
    /// Meet the server in a space as if for the first time: what it was shown of a loss did not convince it.
    BeginAnew(SpaceId),
    /// Seal this device's envelopes again, from a sequence on, under the newest epoch.
    Reseal(SpaceId, StreamId, Seq),
    /// Validate pending roster entries on the new head and sign them again.
    Resign(SpaceId),
    /// Push the roster from its start: the server lacks entries that the device took for known.
    OfferRoster(SpaceId),
    /// Send this device's envelopes again from a sequence on, acknowledged or not.
    Rewind(SpaceId, StreamId, Seq),
    /// The same, and in this connection as new: the server takes no refill of them.
    SendAsNew(SpaceId, StreamId, Seq),
    /// Stop writing in this space: the device must enrol anew.
    Freeze(SpaceId),
    /// Tell the app.
    Report(Report),
}

/// What the app is told of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Trying to reach the server.
    Connecting,
    /// Connected; things are going back and forth.
    Syncing,
    /// Everything is where it should be, as of now.
    InSync,
    /// Not connected; the next attempt comes at the given time, if any.
    Waiting(Option<Millis>),
    /// The time given for a sync ran out; what was acknowledged stays so.
    OutOfTime,
    /// The server will not take something, and trying again would not help.
    Rejected(SpaceId, Refusal),
    /// The peer is not the server that it should be.
    Impostor,
}

/// The device's side of its connection.
#[derive(Debug)]
pub struct Client {
    phase: Phase,
    goal: Goal,
    failures: u32,
    /// What the server asked to be left alone between attempts.
    pause_ms: u64,
    jitter: u64,
    /// Whether the server did not believe evidence of one space among several, in a connection since it was in sync.
    shows_one: bool,
    last_report: Option<Report>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Nothing,
    Once { until: Millis },
    Stay,
}

#[derive(Debug)]
enum Phase {
    Resting { until: Option<Millis> },
    Connecting { since: Millis },
    Connected(Box<Live>),
}

impl Client {
    /// A client at rest. The seed spreads devices' attempts over time; any number will do.
    #[must_use]
    pub fn new(jitter_seed: u64) -> Self {
        Self {
            phase: Phase::Resting { until: None },
            goal: Goal::Nothing,
            failures: 0,
            pause_ms: 0,
            jitter: jitter_seed,
            shows_one: false,
            last_report: None,
        }
    }

    /// When [`Input::Tick`] is due, if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Millis> {
        let budget = match self.goal {
            Goal::Once { until } => Some(until),
            Goal::Stay | Goal::Nothing => None,
        };
        let phase = match &self.phase {
            Phase::Resting { until } => *until,
            Phase::Connecting { since } => Some(since.plus(CONNECT_MS_MAX)),
            Phase::Connected(live) => live.deadline(),
        };
        [budget, phase].into_iter().flatten().min()
    }

    /// Whether a link stands and Welcome came over it.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(&self.phase, Phase::Connected(live) if live.trusted)
    }

    /// Whether a link stands and everything is where it should be, in both directions.
    #[must_use]
    pub fn is_in_sync(&self) -> bool {
        matches!(&self.phase, Phase::Connected(live) if live.is_quiet() && live.rejected().is_none())
    }

    /// Whether nothing goes on: all is where it should be, or what is not is not taken, or nobody wants anything.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        match &self.phase {
            Phase::Connected(live) => live.is_quiet(),
            Phase::Connecting { .. } => false,
            Phase::Resting { until } => until.is_none(),
        }
    }

    /// Takes what happened and says what to do, in order.
    pub fn handle(&mut self, now: Millis, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::SyncUntil(until) => {
                self.goal = match self.goal {
                    Goal::Stay => Goal::Stay,
                    Goal::Once { until: earlier } => Goal::Once { until: until.max(earlier) },
                    Goal::Nothing => Goal::Once { until },
                };
                self.wake(now, &mut out);
                // A link that stood for long may be dead, and nobody noticed.
                if let Phase::Connected(live) = &mut self.phase {
                    live.ask(&mut out);
                }
            }
            Input::Stay => {
                self.goal = Goal::Stay;
                self.wake(now, &mut out);
            }
            Input::Leave => {
                self.goal = Goal::Nothing;
                self.rest(&mut out);
            }
            Input::NetworkChanged => self.network_changed(now, &mut out),
            Input::OtherWay => {
                if matches!(self.phase, Phase::Resting { until: Some(_) }) {
                    self.connect(now, &mut out);
                }
            }
            Input::Closed => self.failed(now, 0, &mut out),
            Input::Tick => self.tick(now, &mut out),
            Input::Connected { exporter } => match self.phase {
                Phase::Connecting { .. } => {
                    self.phase = Phase::Connected(Box::new(Live::new(now, exporter, self.shows_one)));
                    out.push(Output::Greet);
                }
                // Nobody wants this link any more.
                Phase::Resting { .. } => out.push(Output::Disconnect),
                Phase::Connected(_) => {}
            },
            input => self.live(now, input, &mut out),
        }
        self.settle(&mut out);
        if let Phase::Connected(live) = &mut self.phase {
            live.mark(now, &out);
        }
        out
    }

    fn live(&mut self, now: Millis, input: Input, out: &mut Vec<Output>) {
        let Phase::Connected(live) = &mut self.phase else { return };
        match live.handle(now, input, out) {
            Ok(()) => {}
            Err(End::Impostor) => {
                self.report(Report::Impostor, out);
                self.hang_up(now, 0, out);
            }
            Err(End::Broken) => self.hang_up(now, 0, out),
            Err(End::SentAway(bye)) => {
                if bye.reason == Refusal::Version {
                    self.report(Report::Rejected(SpaceId::ZERO, bye.reason), out);
                }
                self.hang_up(now, u64::from(bye.retry_ms), out);
            }
        }
    }

    fn wake(&mut self, now: Millis, out: &mut Vec<Output>) {
        match &mut self.phase {
            Phase::Resting { .. } => self.connect(now, out),
            Phase::Connecting { .. } => {}
            Phase::Connected(live) => live.look_again(),
        }
    }

    fn connect(&mut self, now: Millis, out: &mut Vec<Output>) {
        self.phase = Phase::Connecting { since: now };
        self.report(Report::Connecting, out);
        out.push(Output::Connect);
    }

    fn network_changed(&mut self, now: Millis, out: &mut Vec<Output>) {
        self.failures = 0;
        match &self.phase {
            Phase::Resting { until: Some(_) } => self.connect(now, out),
            Phase::Resting { until: None } => {}
            // An attempt over a network that is gone would only time out.
            Phase::Connecting { .. } | Phase::Connected(_) => self.hang_up(now, 0, out),
        }
    }

    fn tick(&mut self, now: Millis, out: &mut Vec<Output>) {
        if matches!(self.goal, Goal::Once { until } if until <= now) {
            self.report(Report::OutOfTime, out);
            self.goal = Goal::Nothing;
            self.rest(out);
            return;
        }
        let broken = match &mut self.phase {
            Phase::Connected(live) => live.tick(now, out).is_err(),
            Phase::Connecting { since } => since.plus(CONNECT_MS_MAX) <= now,
            Phase::Resting { .. } => false,
        };
        match &self.phase {
            Phase::Resting { until: Some(until) } if *until <= now => self.connect(now, out),
            _ if broken => self.hang_up(now, 0, out),
            _ => {}
        }
    }

    /// After every input: gather what is unsent, and notice when all is done.
    fn settle(&mut self, out: &mut Vec<Output>) {
        let Phase::Connected(live) = &mut self.phase else { return };
        if let Some(gather) = live.gather() {
            out.push(gather);
            return;
        }
        if !live.trusted {
            return;
        }
        if !live.is_quiet() {
            return self.report(Report::Syncing, out);
        }
        out.extend(live.take_unseen().into_iter().map(|seen| Output::Send(FromDevice::Seen(seen))));
        live.was_in_sync = true;
        (self.shows_one, live.shows_one) = (false, false);
        let report = match live.rejected() {
            None => Report::InSync,
            Some((space, reason)) => Report::Rejected(space, reason),
        };
        self.report(report, out);
        if matches!(self.goal, Goal::Once { .. }) {
            self.goal = Goal::Nothing;
            self.failures = 0;
            self.rest(out);
        }
    }

    fn hang_up(&mut self, now: Millis, wait_ms: u64, out: &mut Vec<Output>) {
        out.push(Output::Disconnect);
        self.failed(now, wait_ms, out);
    }

    fn failed(&mut self, now: Millis, wait_ms: u64, out: &mut Vec<Output>) {
        match &self.phase {
            Phase::Resting { .. } => return,
            Phase::Connecting { .. } => {}
            Phase::Connected(live) => {
                self.pause_ms = live.pause_ms.unwrap_or(self.pause_ms);
                self.shows_one |= live.shows_one;
                if live.was_in_sync && now.since(live.since) >= STEADY_MS {
                    self.failures = 0;
                }
                if live.begins_anew {
                    // Soon again, but not at once: a server that says so every time is left some peace.
                    self.failures = self.failures.min(1);
                }
            }
        }
        let again = match self.goal {
            Goal::Nothing => None,
            Goal::Once { .. } | Goal::Stay => {
                let sent_away_ms = wait_ms.min(BYE_MS_MAX);
                // Everybody was told the same: they come back over a while, not at once.
                let sent_away_ms = sent_away_ms + self.spread(sent_away_ms / 4);
                Some(now.plus(sent_away_ms.max(self.back_off_ms())))
            }
        };
        self.failures = self.failures.saturating_add(1);
        self.phase = Phase::Resting { until: again };
        self.report(Report::Waiting(again), out);
    }

    fn rest(&mut self, out: &mut Vec<Output>) {
        if !matches!(self.phase, Phase::Resting { .. }) {
            out.push(Output::Disconnect);
        }
        self.phase = Phase::Resting { until: None };
        self.report(Report::Waiting(None), out);
    }

    /// Nothing after the first failure, then double with every other; between half and all of it, so
    /// that devices do not march in step.
    fn back_off_ms(&mut self) -> u64 {
        if self.failures == 0 {
            return 0;
        }
        let full = (BACK_OFF_MS_MIN << (self.failures - 1).min(16)).min(BACK_OFF_MS_MAX);
        (full / 2 + self.spread(full / 2)).max(self.pause_ms)
    }

    /// A number up to `most`, another each time.
    fn spread(&mut self, most: u64) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014): spread only, no secret hangs on it.
        self.jitter = self.jitter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.jitter;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % (most + 1)
    }

    fn report(&mut self, report: Report, out: &mut Vec<Output>) {
        if self.last_report != Some(report) {
            self.last_report = Some(report);
            out.push(Output::Report(report));
        }
    }
}
