//! A device's side of its connection, in the hands of a server that says whatever it likes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::OnceLock,
};

use ebb_protocol::{
    client::{BYE_MS_MAX, Client, Input, Outgoing, OutgoingEnvelope, Output, Place, Report},
    envelope,
    id::{DeviceId, Hash, LogId, Millis, Position, RosterSeq, Seq, SpaceId, StreamId},
    wire::{
        self, Acked, AckedEnvelope, Bye, Entries, Evidence, FRAME_BYTES_MAX, FromDevice, FromServer, Head,
        Heads, Hello, Item, ItemContent, LogBorn, NeedEvidence, ROSTER_FRAME_ENTRIES_MAX, Refusal, Refused,
        RefusedWhat, RosterFrame, RosterHead, SignedHeads, SignedLogBorn, SpaceHello, Welcome,
    },
};

use super::{
    Feed,
    kit::{Device, Draft, Key, OTHER, Patient, STREAM},
};

/// What happens in one run at most.
const STEPS_MAX: usize = 96;
const ENVELOPES: usize = 6;
/// How often the same sealing is asked for in one connection (see `client::live`).
const REMEDIES_MAX: usize = 3;
/// Ticks until whatever is due is done.
const TICKS_MAX: usize = 8;
/// Ticks and answers until a device is in sync with an honest server.
const HONEST_TURNS_MAX: usize = 64;
/// Times stay below this: three hundred thousand years from now.
const TIME_MAX: u64 = 1 << 53;

/// Lets an app, a store and a server say whatever comes, in any order.
///
/// Whatever they say: nothing is sent but over a link that stands, Hello first and once; nothing is believed
/// before Welcome has named this very link; frames keep their limits; what is on its way was given to be
/// sent; a remedy is not tried for ever; what is due gets done, and a tick is due in finite time; nothing
/// happens where nobody wants a sync. In the end the device is in sync with an honest server.
pub fn client(bytes: &[u8]) {
    let feed = &mut Feed::new(bytes);
    let mut driver = Driver::new(u64::from(feed.byte()));
    driver.app(feed);
    for _ in 0..STEPS_MAX {
        if feed.is_over() {
            break;
        }
        driver.step(feed);
    }
    driver.syncs_with_an_honest_server();
}

/// What a device holds, the same in every run.
struct Held {
    patient: Patient,
    envelopes: Vec<OutgoingEnvelope>,
    heads_key: Key,
}

fn held() -> &'static Held {
    static HELD: OnceLock<Held> = OnceLock::new();
    HELD.get_or_init(|| {
        let mut patient = Patient::new(1);
        let owner = patient.roster.owner();
        patient.sign(Draft::default().device(owner, &Device::new(2), &[(STREAM, 1)])).expect("sound");
        patient.rotate(2);
        let chain = patient.phone.chain(&patient.roster, STREAM, ENVELOPES as u64);
        let outgoing = chain.iter().map(|envelope| OutgoingEnvelope {
            hash: envelope.hash(),
            author: envelope.header().author,
            seq: envelope.header().seq,
            bytes: envelope.as_bytes().to_vec(),
        });
        Held { envelopes: outgoing.collect(), patient, heads_key: Key::new(200, 1) }
    })
}

fn space() -> SpaceId {
    held().patient.space()
}

/// The link, as its driver knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    None,
    Attempt,
    Up { exporter: [u8; 32], greeted: bool, trusted: bool },
}

/// What the client waits for.
#[derive(Debug)]
enum Owed {
    Connection,
    Greeting,
    Outbox { in_flight: BTreeSet<Hash>, blocked: BTreeSet<Place> },
    Kept(SpaceId, StreamId, Position),
    Evidence(SpaceId),
}

struct Driver {
    client: Client,
    now: Millis,
    link: Link,
    links: u8,
    owed: VecDeque<Owed>,
    last_report: Option<Report>,
    /// What was given to be sent over this link.
    given: BTreeSet<Hash>,
    /// How often each sealing was asked for over this link.
    reseals: BTreeMap<(SpaceId, StreamId, Seq), usize>,
    goal: Goal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Nothing,
    Something,
}

impl Driver {
    fn new(seed: u64) -> Self {
        Self {
            client: Client::new(seed),
            now: Millis(1_000_000),
            link: Link::None,
            links: 0,
            owed: VecDeque::new(),
            last_report: None,
            given: BTreeSet::new(),
            reseals: BTreeMap::new(),
            goal: Goal::Nothing,
        }
    }

    fn step(&mut self, feed: &mut Feed<'_>) {
        match feed.below(16) {
            0 if feed.one_in(4) => self.app(feed),
            0..=5 => self.answer(feed),
            6..=11 => self.serve(feed),
            12 => self.handle(Input::LocalChange),
            13 => self.breaks(feed),
            14 => self.time_passes(feed),
            _ => self.due(),
        }
    }

    fn app(&mut self, feed: &mut Feed<'_>) {
        let input = match feed.below(4) {
            0 => Input::Leave,
            1 => Input::Stay,
            _ => Input::SyncUntil(self.now.plus(u64::from(feed.byte()) * 200)),
        };
        let leaves = matches!(input, Input::Leave);
        self.goal = if leaves { Goal::Nothing } else { Goal::Something };
        self.handle(input);
        if leaves {
            assert_eq!((self.client.deadline(), self.link), (None, Link::None), "nobody wants a sync");
            let output = self.client.handle(self.now, Input::Tick);
            assert!(output.is_empty(), "nothing is due: {output:?}");
        }
    }

    fn breaks(&mut self, feed: &mut Feed<'_>) {
        match feed.below(8) {
            0 => self.handle(Input::NetworkChanged),
            1 => self.handle(Input::Garbage),
            2 if self.link != Link::None => {
                self.hung_up();
                self.handle(Input::Closed);
            }
            _ => {}
        }
    }

    fn time_passes(&mut self, feed: &mut Feed<'_>) {
        let ms = feed.pick(&[1, 100, 10_000, 3_600_000, 31_536_000_000]) * u64::from(feed.byte());
        let now = if feed.one_in(4) { self.now.0.saturating_sub(ms) } else { self.now.0 + ms };
        self.now = Millis(now.min(TIME_MAX));
        self.handle(Input::Tick);
    }

    /// The deadline comes; whatever is due then gets done.
    fn due(&mut self) {
        let Some(deadline) = self.client.deadline() else { return };
        self.now = self.now.max(deadline).min(Millis(TIME_MAX));
        for _ in 0..TICKS_MAX {
            self.handle(Input::Tick);
            if self.client.deadline().is_none_or(|next| next > self.now) {
                return;
            }
        }
        panic!("a tick is due for ever");
    }

    /// Answers what the client waits for, or something that it does not.
    fn answer(&mut self, feed: &mut Feed<'_>) {
        let Some(owed) = self.owed.pop_front() else { return self.answer_nothing(feed) };
        let input = match owed {
            Owed::Connection if feed.one_in(8) => {
                self.hung_up();
                Input::Closed
            }
            Owed::Connection => self.connected(),
            Owed::Greeting => Input::Greeting(hello(feed)),
            Owed::Outbox { in_flight, blocked } => self.outbox(feed, &in_flight, &blocked),
            Owed::Kept(space, stream, position) => match feed.below(32) {
                0 => Input::Kept(space, None),
                1 => Input::Kept(space, Some(head(stream, Position(position.0.saturating_sub(1))))),
                _ => Input::Kept(space, Some(head(stream, position))),
            },
            Owed::Evidence(space) => {
                let heads = if feed.one_in(4) { Vec::new() } else { vec![signed_heads(feed)] };
                Input::Evidence(Evidence { space, heads, common: vec![(STREAM, Position(1))] })
            }
        };
        self.handle(input);
    }

    fn answer_nothing(&mut self, feed: &mut Feed<'_>) {
        let space = space();
        // A Kept comes for what was given to keep, and a link for what was asked to connect.
        let input = match feed.below(3) {
            0 => Input::Outbox { items: Vec::new(), more: feed.one_in(2) },
            1 => Input::Evidence(Evidence { space, heads: vec![signed_heads(feed)], common: Vec::new() }),
            _ => Input::Greeting(hello(feed)),
        };
        let unwanted =
            matches!(input, Input::Greeting(_)) && matches!(self.link, Link::Up { greeted: false, .. });
        if !unwanted {
            self.handle(input);
        }
    }

    fn connected(&mut self) -> Input {
        self.links = self.links.wrapping_add(1);
        let exporter = [self.links; 32];
        self.link = Link::Up { exporter, greeted: false, trusted: false };
        Input::Connected { exporter }
    }

    /// What a store gives that does not give what is on its way, nor what is blocked.
    fn outbox(
        &mut self,
        feed: &mut Feed<'_>,
        in_flight: &BTreeSet<Hash>,
        blocked: &BTreeSet<Place>,
    ) -> Input {
        let space = space();
        let mut items = Vec::new();
        if feed.one_in(2) {
            let entries =
                held().patient.entries.iter().filter(|entry| !in_flight.contains(&entry.entry.hash()));
            items.push(Outgoing::Roster(space, entries.cloned().collect()));
        }
        let from = feed.below(ENVELOPES);
        let rest = held().envelopes[from..].iter().filter(|envelope| !in_flight.contains(&envelope.hash));
        let envelopes: Vec<_> = rest.cloned().collect();
        let chain = Some((STREAM, held().patient.phone.id()));
        let is_blocked = blocked.contains(&(space, None)) || blocked.contains(&(space, chain));
        if !envelopes.is_empty() && !is_blocked {
            items.push(Outgoing::Envelopes { space, stream: STREAM, envelopes, refill: feed.one_in(4) });
        }
        for item in &items {
            match item {
                Outgoing::Roster(_, entries) => self.given.extend(entries.iter().map(|it| it.entry.hash())),
                Outgoing::Envelopes { envelopes, .. } => {
                    self.given.extend(envelopes.iter().map(|it| it.hash))
                }
            }
        }
        Input::Outbox { items, more: feed.one_in(4) }
    }

    /// Says a frame of a server.
    fn serve(&mut self, feed: &mut Feed<'_>) {
        let Link::Up { exporter, .. } = self.link else { return };
        let is_trusted = matches!(self.link, Link::Up { trusted: true, .. });
        let frame = match (is_trusted, feed.below(8)) {
            (true, _) | (false, 7) => frame(feed, exporter),
            // Somebody sits between, and passes on what the server said to him.
            (false, 6) => FromServer::Welcome(welcome([feed.byte(); 32])),
            (false, _) => FromServer::Welcome(welcome(exporter)),
        };
        if !is_trusted {
            // Before Welcome nothing else is heard, or the whole link is over.
            let is_welcome = matches!(frame, FromServer::Welcome(_) | FromServer::Bye(_));
            self.handle(Input::Frame(frame));
            assert!(is_welcome || self.link == Link::None, "it was heard before Welcome");
            return;
        }
        self.handle(Input::Frame(frame));
    }

    fn hung_up(&mut self) {
        self.link = Link::None;
        self.owed.clear();
        self.given.clear();
        self.reseals.clear();
    }

    fn handle(&mut self, input: Input) {
        let told = format!("{input:?}").len();
        let outputs = self.client.handle(self.now, input);
        // At most a few outputs for each thing that was named.
        assert!(outputs.len() <= 16 + told / 16, "{} outputs", outputs.len());
        for output in outputs {
            self.carry_out(output);
        }
        let trusted = matches!(self.link, Link::Up { trusted: true, .. });
        assert_eq!(self.client.is_connected(), trusted);
        assert!(trusted || !self.client.is_in_sync(), "in sync with nobody");
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Connect => {
                assert_eq!(self.link, Link::None, "one link at a time");
                assert_eq!(self.goal, Goal::Something, "nobody wants a link");
                self.link = Link::Attempt;
                self.owed.push_back(Owed::Connection);
            }
            Output::Disconnect => {
                assert_ne!(self.link, Link::None, "there is no link to end");
                self.hung_up();
            }
            Output::Greet => self.owed.push_back(Owed::Greeting),
            Output::Gather { in_flight, blocked, .. } => {
                assert!(matches!(self.link, Link::Up { greeted: true, .. }), "before Hello");
                assert!(in_flight.is_subset(&self.given), "what was never given is on its way");
                self.owed.push_back(Owed::Outbox { in_flight, blocked });
            }
            Output::Send(frame) => self.send(&frame),
            Output::Welcome(welcome) => {
                let Link::Up { exporter, greeted: true, trusted } = &mut self.link else {
                    panic!("Welcome to nobody: {:?}", self.link)
                };
                assert!(!*trusted && welcome.exporter == *exporter, "Welcome of another link");
                *trusted = true;
            }
            Output::Report(report) => {
                // A rejection is news at once, and once more what a sync came to.
                let again = self.last_report == Some(report);
                assert!(!again || matches!(report, Report::Rejected(..)), "told twice: {report:?}");
                self.last_report = Some(report);
                if let Report::Waiting(Some(until)) = report {
                    let wait_ms = until.since(self.now);
                    assert!(wait_ms <= BYE_MS_MAX / 4 * 5, "waits {wait_ms} ms");
                }
            }
            output => {
                let trusted = matches!(self.link, Link::Up { trusted: true, .. });
                assert!(trusted, "{output:?} of a server that is not known yet");
                self.keep(output);
            }
        }
    }

    fn keep(&mut self, output: Output) {
        match output {
            Output::Keep(entries) => {
                let last = entries.first.0 + (entries.items.len() as u64 - 1);
                self.owed.push_back(Owed::Kept(entries.space, entries.stream, Position(last)));
            }
            Output::Recall(need) => self.owed.push_back(Owed::Evidence(need.space)),
            Output::Reseal(space, stream, seq) => {
                let times = self.reseals.entry((space, stream, seq)).or_default();
                *times += 1;
                assert!(*times <= REMEDIES_MAX, "sealed again for ever");
            }
            _ => {}
        }
    }

    fn send(&mut self, frame: &FromDevice) {
        let Link::Up { greeted, trusted, .. } = &mut self.link else { panic!("sent to nobody: {frame:?}") };
        assert!(wire::encode_frame(frame).len() - 4 <= FRAME_BYTES_MAX, "a frame is too long");
        let is_hello = matches!(frame, FromDevice::Hello(_));
        assert_eq!(is_hello, !std::mem::replace(greeted, true), "Hello is the first and once");
        match frame {
            FromDevice::PushRoster(push) => {
                assert!(!push.entries.is_empty() && push.entries.len() <= ROSTER_FRAME_ENTRIES_MAX);
            }
            FromDevice::Push(push) => assert!(!push.envelopes.is_empty()),
            FromDevice::Evidence(_) | FromDevice::Seen(_) => assert!(*trusted),
            FromDevice::Hello(_) | FromDevice::Ping(_) => {}
        }
    }

    /// After all that the server is itself again.
    fn syncs_with_an_honest_server(&mut self) {
        self.goal = Goal::Nothing;
        self.handle(Input::Leave);
        self.goal = Goal::Something;
        self.handle(Input::Stay);
        let mut said_welcome = false;
        for _ in 0..HONEST_TURNS_MAX {
            if self.client.is_in_sync() {
                return;
            }
            let input = match (self.owed.pop_front(), self.link) {
                (Some(Owed::Connection), _) => self.connected(),
                (Some(Owed::Greeting), _) => Input::Greeting(hello(&mut Feed::new(&[]))),
                (Some(Owed::Outbox { .. }), _) => Input::Outbox { items: Vec::new(), more: false },
                (Some(Owed::Kept(space, stream, at)), _) => Input::Kept(space, Some(head(stream, at))),
                (Some(Owed::Evidence(_)), _) => panic!("an honest server remembers"),
                (None, Link::Up { exporter, greeted: true, trusted: false }) => {
                    said_welcome = true;
                    Input::Frame(FromServer::Welcome(welcome(exporter)))
                }
                (None, Link::Up { trusted: true, .. }) => Input::Frame(FromServer::CaughtUp(Vec::new())),
                (None, _) => {
                    self.due();
                    continue;
                }
            };
            self.handle(input);
        }
        panic!("never in sync with an honest server (Welcome was said: {said_welcome})");
    }
}

fn head(stream: StreamId, position: Position) -> Head {
    Head { stream, position, chain: envelope::chain_start(&space(), &stream) }
}

fn hello(feed: &mut Feed<'_>) -> Hello {
    let space = SpaceHello {
        space: space(),
        log_id: LogId([feed.byte(); 16]),
        roster: held().patient.roster.head(),
        cursors: vec![head(STREAM, Position(u64::from(feed.byte())))],
        own_in_full: false,
    };
    Hello { version: wire::VERSION, device: held().patient.phone.id(), pins_version: 1, spaces: vec![space] }
}

fn welcome(exporter: [u8; 32]) -> Welcome {
    let (version, server_ms) = (wire::VERSION, Millis(1));
    Welcome { version, exporter, server_ms, pins: None, spaces: Vec::new(), back_off_ms: 100 }
}

/// Heads, signed by the server or by somebody else: the client does not look, and the replica will.
fn signed_heads(feed: &mut Feed<'_>) -> SignedHeads {
    let log_id = LogId([feed.byte(); 16]);
    let heads = Heads { space: space(), log_id, heads: vec![head(STREAM, Position(u64::from(feed.byte())))] };
    let phone = &held().patient.phone;
    let mut signed = match feed.one_in(4) {
        true => SignedHeads::sign(&heads, |message| phone.sig.sign(message)),
        false => SignedHeads::sign(&heads, |message| held().heads_key.sign(message)),
    };
    if feed.one_in(8) {
        let mut bytes = wire::encode(&signed);
        feed.damage(&mut bytes);
        signed = wire::decode(&bytes).unwrap_or(signed);
    }
    signed
}

/// A frame of a server, which mostly speaks of what this device knows.
fn frame(feed: &mut Feed<'_>, exporter: [u8; 32]) -> FromServer {
    let held = held();
    let space = if feed.one_in(16) { SpaceId([feed.byte(); 16]) } else { space() };
    let stream = if feed.one_in(8) { OTHER } else { STREAM };
    let place = |feed: &mut Feed<'_>| match feed.below(8) {
        0 => u64::from_be_bytes(feed.array()),
        _ => u64::from(feed.byte()),
    };
    match feed.below(13) {
        0 | 1 => {
            let exporter = if feed.one_in(4) { [feed.byte(); 32] } else { exporter };
            let back_off_ms = u32::from_be_bytes(feed.array());
            FromServer::Welcome(Welcome { back_off_ms, ..welcome(exporter) })
        }
        2 => {
            let from = feed.below(held.patient.entries.len());
            FromServer::Roster(RosterFrame { space, entries: held.patient.entries[from..].to_vec() })
        }
        3 => {
            let seq = RosterSeq(place(feed));
            let hash = held.patient.roster.hash_at(seq).unwrap_or(Hash([1; 32]));
            FromServer::RosterAcked(RosterHead { space, seq, hash })
        }
        4 | 5 => {
            let from = feed.below(ENVELOPES);
            let to = from + feed.below(ENVELOPES + 1 - from);
            let position = Position(place(feed));
            let acked = |envelope: &OutgoingEnvelope| AckedEnvelope { hash: envelope.hash, position };
            let envelopes = held.envelopes[from..to].iter().map(acked).collect();
            FromServer::Acked(Acked { envelopes, head: signed_heads(feed) })
        }
        6 | 7 => FromServer::Refused(Refused { space, what: what(feed, stream), reason: reason(feed) }),
        8 => {
            let items = (0..feed.below(4)).map(|_| Item {
                received_ms: Millis(1),
                content: ItemContent::Own(held.envelopes[feed.below(ENVELOPES)].hash),
            });
            let items = items.collect();
            let (first, log_id) = (Position(place(feed)), LogId([feed.byte(); 16]));
            FromServer::Entries(Entries { space, stream, log_id, first, items })
        }
        9 => FromServer::CaughtUp((0..feed.below(2)).map(|_| signed_heads(feed)).collect()),
        10 => {
            let samples = vec![head(stream, Position(place(feed)))];
            FromServer::NeedEvidence(NeedEvidence { space, samples })
        }
        11 => {
            let [old, new] = [LogId([feed.byte(); 16]), LogId([feed.byte(); 16])];
            let born = LogBorn { space, old, new, evidence: vec![signed_heads(feed)], common: Vec::new() };
            FromServer::LogBorn(SignedLogBorn::sign(&born, |message| held.heads_key.sign(message)))
        }
        _ => match feed.below(2) {
            0 => FromServer::Pong(u32::from(feed.byte())),
            _ => FromServer::Bye(Bye { reason: reason(feed), retry_ms: u32::from_be_bytes(feed.array()) }),
        },
    }
}

fn what(feed: &mut Feed<'_>, stream: StreamId) -> RefusedWhat {
    let held = held();
    match feed.below(8) {
        0 => RefusedWhat::Space,
        1 | 2 => {
            RefusedWhat::Entry(held.patient.entries[feed.below(held.patient.entries.len())].entry.hash())
        }
        _ => {
            let author = if feed.one_in(8) { DeviceId([1; 16]) } else { held.patient.phone.id() };
            RefusedWhat::Envelope { stream, author, seq: Seq(feed.below(ENVELOPES + 1) as u64) }
        }
    }
}

fn reason(feed: &mut Feed<'_>) -> Refusal {
    match feed.below(11) {
        0 => Refusal::StaleEpoch,
        1 => Refusal::UnknownHead,
        2 => Refusal::HeadMoved(None),
        3 => Refusal::Role,
        4 => Refusal::Quota(u32::from_be_bytes(feed.array())),
        5 => Refusal::Gap(Seq(u64::from(feed.byte()))),
        6 => Refusal::Fork,
        7 => Refusal::Malformed,
        8 => Refusal::Version,
        9 => Refusal::Unregistered,
        _ => Refusal::Unavailable,
    }
}
