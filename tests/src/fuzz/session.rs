//! The server, without threads and sockets, in the hands of devices that say whatever they like.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use ebb_protocol::{
    envelope::Envelope,
    id::{Epoch, Hash, LogId, Millis, Position, RosterSeq, Seq, SpaceId, StreamId},
    roster::{Access, EntryWithWraps, MemberKind, Roster},
    verify,
    wire::{
        self, Acked, Entries, Evidence, FRAME_BYTES_MAX, FromDevice, FromServer, Head, Hello, ItemContent,
        Pins, Push, PushRoster, RosterHead, Seen, SignedHeads, SignedPins, SpaceHello,
    },
};
use ebb_sync_server::{
    Clock, Manual,
    commit::Allowance,
    config::Config,
    connection::{End, Exchange, Step, WRITES_BYTES_MAX},
    keys::Keys,
    log::{LogError, Reader, memory::MemoryLog},
    signing::SigningKey,
};

use super::{
    Feed,
    kit::{CLINIC, Device, Draft, OTHER, Patient, STREAM},
};

/// What happens in one run at most.
const STEPS_MAX: usize = 64;
/// Connections at a time.
const LINES: usize = 3;
/// Turns until nothing is left to do, where the log does not fail.
const TURNS_MAX: usize = 64;
/// What one turn of a connection may add to what waits to be written, beyond the bound at which it reads on.
const UNWRITTEN_BEYOND_MAX: usize = 2 * FRAME_BYTES_MAX;
const START: Millis = Millis(1_700_000_000_000);

/// Lets devices found, push, catch up, show evidence, hang up and talk nonsense, while the log fails, loses
/// what it had, and answers when the program says.
///
/// Whatever they say: the server speaks in frames of this version and at most their length, says nothing
/// before Hello and nothing after Bye; what it acknowledges, delivers and signs stands in its log as it
/// says; nothing stands there that nobody signed; who may not read gets nothing; a connection's queues stay
/// bounded, and it has a deadline. In the end an honest owner is served.
pub fn session(bytes: &[u8]) {
    let feed = &mut Feed::new(bytes);
    let mut world = World::new();
    for _ in 0..STEPS_MAX {
        if feed.is_over() {
            break;
        }
        world.step(feed);
    }
    world.serves_an_honest_owner();
}

/// Who takes part, and the roster that the owner's devices signed, the same in every run.
struct Cast {
    /// The owner's phone and tablet, a clinic's desk, a stranger.
    devices: Vec<Device>,
    space: SpaceId,
    /// Founded, a tablet added, a clinic admitted, a stream rotated.
    chain: Vec<EntryWithWraps>,
    /// What the tablet signed where the chain has its third entry.
    fork: Vec<EntryWithWraps>,
    /// The roster after each entry of the chain, and of the fork.
    rosters: Vec<Roster>,
    forked: Vec<Roster>,
    keys: Keys,
}

fn cast() -> &'static Cast {
    static CAST: OnceLock<Cast> = OnceLock::new();
    CAST.get_or_init(|| {
        let devices: Vec<_> = (1..=4).map(Device::new).collect();
        let mut patient = Patient::new(1);
        let owner = patient.roster.owner();
        patient.sign(Draft::default().device(owner, &devices[1], &[(STREAM, 1)])).expect("sound");
        let tablet = Patient {
            phone: Device::new(2),
            roster: patient.roster.clone(),
            entries: patient.entries.clone(),
        };
        let admits = Draft::default().member(CLINIC, MemberKind::Clinic).device(CLINIC, &devices[2], &[]);
        patient.sign(admits.grant(STREAM, CLINIC, Access::Write, &[1])).expect("sound");
        let to = patient.recipients(OTHER);
        patient.sign(Draft::default().open(OTHER, &to)).expect("sound");
        patient.rotate(2);
        let mut fork = tablet;
        fork.rotate(2);
        let after_each = |entries: &[EntryWithWraps]| -> Vec<Roster> {
            let mut roster = Roster::new(patient.space());
            let after = entries.iter().map(|entry| {
                let verified = roster.verify(entry.clone()).expect("sound");
                roster.apply(&verified);
                roster.clone()
            });
            after.collect()
        };
        let (rosters, forked) = (after_each(&patient.entries), after_each(&fork.entries));
        let [root, tls, heads] = [7, 8, 9].map(|seed| SigningKey::from_seed(&[seed; 32]));
        let pins =
            Pins { version: 2, root: root.public(), tls: vec![tls.public()], heads: vec![heads.public()] };
        let pins = SignedPins::sign(&pins, |message| root.sign(message));
        let (space, chain) = (patient.space(), patient.entries);
        let keys = Keys { tls, heads, pins };
        Cast { devices, space, chain, fork: fork.entries, rosters, forked, keys }
    })
}

/// A connection, and what was heard over it.
struct Line {
    exchange: Exchange,
    device: usize,
    /// Whether it said anything.
    greeted: bool,
    /// Whether it heard anything.
    welcomed: bool,
    said_bye: bool,
    over: bool,
    heard: Vec<u8>,
    /// How far each stream was delivered over this line.
    reached: BTreeMap<StreamId, Position>,
    /// Streams of which something was delivered.
    begun: BTreeSet<StreamId>,
    own_heads: Vec<(StreamId, Seq, Hash)>,
}

struct World {
    now: Arc<AtomicU64>,
    log: MemoryLog,
    backup: MemoryLog,
    manual: Manual<MemoryLog>,
    lines: Vec<Option<Line>>,
    /// Every envelope that a device signed, by its hash.
    signed: BTreeMap<Hash, Envelope>,
    /// Per device and stream, its last envelope: sequence, hash.
    last: BTreeMap<(usize, StreamId), (Seq, Hash)>,
    log_ids: Vec<LogId>,
    heads: Vec<SignedHeads>,
    samples: Vec<(StreamId, Position)>,
    cursors: BTreeMap<StreamId, Head>,
}

fn server(log: &MemoryLog, now: &Arc<AtomicU64>) -> Manual<MemoryLog> {
    // An allowance of its own kind is not what this is about; the honest owner at the end must have some.
    let free = Allowance { envelopes_per_minute: 0, bytes_per_day: 0, ..Allowance::default() };
    let config = Config {
        envelopes_per_minute: free.envelopes_per_minute,
        bytes_per_day: free.bytes_per_day,
        readers: 1,
        ..Config::default()
    };
    let now = now.clone();
    let clock = Clock::new(move || Millis(now.load(Ordering::Relaxed)));
    Manual::new(&config, cast().keys.clone(), log.clone(), clock).expect("a log in memory has readers")
}

impl World {
    fn new() -> Self {
        let now = Arc::new(AtomicU64::new(START.0));
        let log = MemoryLog::new();
        Self {
            manual: server(&log, &now),
            backup: log.backup(),
            log,
            now,
            lines: (0..LINES).map(|_| None).collect(),
            signed: BTreeMap::new(),
            last: BTreeMap::new(),
            log_ids: vec![LogId::ZERO],
            heads: Vec::new(),
            samples: Vec::new(),
            cursors: BTreeMap::new(),
        }
    }

    fn step(&mut self, feed: &mut Feed<'_>) {
        match feed.below(24) {
            0 | 1 => self.connect(feed),
            2..=4 => self.say(feed, Self::hello),
            5..=7 => self.say(feed, Self::push_roster),
            8..=11 => self.say(feed, Self::push),
            12 => self.say(feed, Self::evidence),
            13 => self.say(feed, Self::seen_or_ping),
            14 => self.talk_nonsense(feed),
            15..=17 => self.settle(),
            18 => drop(self.manual.commit_next()),
            19 => drop(self.manual.read_next()),
            20 => self.time_passes(feed),
            21 => self.hang_up(feed),
            22 => self.log_fails(feed),
            _ => self.restore(feed),
        }
        self.turn();
    }

    fn connect(&mut self, feed: &mut Feed<'_>) {
        let (at, device) = (feed.below(LINES), feed.below(cast().devices.len()));
        self.lines[at] = Some(self.line(device));
    }

    fn line(&self, device: usize) -> Line {
        Line {
            exchange: self.manual.connect(cast().devices[device].keys.tls, [5; 32]),
            device,
            greeted: false,
            welcomed: false,
            said_bye: false,
            over: false,
            heard: Vec::new(),
            reached: BTreeMap::new(),
            begun: BTreeSet::new(),
            own_heads: Vec::new(),
        }
    }

    /// Says one frame over a line, whole or damaged.
    fn say(&mut self, feed: &mut Feed<'_>, frame: fn(&mut Self, &mut Feed<'_>, usize) -> FromDevice) {
        let at = feed.below(LINES);
        if self.lines[at].as_ref().is_none_or(|line| line.over) {
            self.lines[at] = Some(self.line(at));
        }
        let Some(line) = &self.lines[at] else { return };
        let (device, introduces) = (line.device, !line.greeted && !feed.one_in(16));
        if introduces {
            let hello = self.hello(feed, device);
            self.say_over(at, &hello, &wire::encode_frame(&hello));
        }
        let frame = frame(self, feed, device);
        let mut bytes = wire::encode_frame(&frame);
        if feed.one_in(16) {
            feed.damage(&mut bytes);
        }
        self.say_over(at, &frame, &bytes);
    }

    fn say_over(&mut self, at: usize, frame: &FromDevice, bytes: &[u8]) {
        let Some(line) = &mut self.lines[at] else { return };
        if let FromDevice::Hello(hello) = frame {
            let own = hello.spaces.iter().filter(|hello| hello.space == cast().space);
            let cursors = own.flat_map(|hello| &hello.cursors);
            if !line.greeted {
                line.reached = cursors.map(|cursor| (cursor.stream, cursor.position)).collect();
            }
        }
        line.greeted = true;
        line.exchange.incoming().extend(bytes);
    }

    fn hello(&mut self, feed: &mut Feed<'_>, device: usize) -> FromDevice {
        let cast = cast();
        let chosen = feed.below(cast.chain.len() + 2);
        let roster = cast.rosters.get(chosen).and_then(Roster::head);
        let cursors = match feed.below(4) {
            0 => Vec::new(),
            1 => self.cursors.values().copied().collect(),
            2 => self.cursors.values().take(1).copied().collect(),
            _ => {
                let head = |cursor: &Head| Head { chain: Hash([feed.byte(); 32]), ..*cursor };
                self.cursors.values().map(head).collect()
            }
        };
        let space = SpaceHello {
            space: cast.space,
            log_id: self.log_ids[self.log_ids.len() - 1 - feed.below(self.log_ids.len())],
            roster,
            cursors,
            own_in_full: feed.one_in(4),
        };
        let mut spaces = vec![space];
        match feed.below(16) {
            1 => spaces.clear(),
            2 => spaces.push(SpaceHello { space: SpaceId(feed.array()), ..spaces[0].clone() }),
            3 => spaces.push(spaces[0].clone()),
            4 => spaces[0].log_id = LogId([feed.byte(); 16]),
            _ => {}
        }
        let device = if feed.one_in(16) { feed.below(cast.devices.len()) } else { device };
        FromDevice::Hello(Hello {
            version: if feed.one_in(32) { u16::from(feed.byte()) } else { wire::VERSION },
            device: cast.devices[device].id(),
            pins_version: u32::from(feed.byte()),
            spaces,
        })
    }

    fn push_roster(&mut self, feed: &mut Feed<'_>, _: usize) -> FromDevice {
        let entries = if feed.one_in(6) { &cast().fork } else { &cast().chain };
        let from = feed.below(entries.len());
        let to = from + 1 + feed.below(entries.len() - from);
        let mut entries = entries[from..to].to_vec();
        match feed.below(16) {
            1 => entries.reverse(),
            2 => entries.extend(entries.clone()),
            3 => entries.clear(),
            4 => entries.iter_mut().for_each(|entry| entry.wraps.clear()),
            _ => {}
        }
        FromDevice::PushRoster(PushRoster { space: cast().space, entries })
    }

    fn push(&mut self, feed: &mut Feed<'_>, device: usize) -> FromDevice {
        let stream = if feed.one_in(4) { OTHER } else { STREAM };
        let refill = feed.one_in(4);
        let mut envelopes = Vec::new();
        for _ in 0..=feed.below(3) {
            let envelope = match feed.below(6) {
                0 => self.signed.values().nth(feed.below(self.signed.len() + 1)).cloned(),
                _ => self.write(feed, device, stream),
            };
            let Some(envelope) = envelope else { continue };
            let mut bytes = envelope.into_bytes();
            if feed.one_in(16) {
                feed.damage(&mut bytes);
            }
            envelopes.push(bytes.into());
        }
        FromDevice::Push(Push { space: cast().space, stream, envelopes, refill })
    }

    /// Signs an envelope, mostly the next of its chain.
    fn write(&mut self, feed: &mut Feed<'_>, device: usize, stream: StreamId) -> Option<Envelope> {
        let author = &cast().devices[device];
        let knows = cast().rosters.len() - 1 - feed.below(cast().rosters.len());
        let roster = &cast().rosters[knows];
        let (seq, prev) = self.last.get(&(device, stream)).copied().unwrap_or((Seq(0), Hash::ZERO));
        let mut header = author.header(roster, stream, seq.0 + 1, prev);
        header.salt = feed.array();
        header.log_id = self.log_ids[feed.below(self.log_ids.len())];
        let goes_on = match feed.below(12) {
            // Another one at the same place, or the same again under another epoch.
            1 if seq > Seq(1) => {
                header.seq = seq;
                header.prev = Hash([feed.byte().max(1); 32]);
                false
            }
            2 => {
                header.epoch = Epoch(u32::from(feed.byte()).max(1));
                true
            }
            3 => {
                header.seq = Seq(u64::from(feed.byte()) + 2);
                header.prev = Hash([1; 32]);
                false
            }
            4 => {
                header.roster_head = Hash([feed.byte(); 32]);
                true
            }
            5 => {
                header.seen_pos = Position(u64::from(feed.byte()));
                true
            }
            6 => {
                header.author = cast().devices[feed.below(cast().devices.len())].id();
                false
            }
            7 => {
                (header.seq, header.prev) = (Seq(1), Hash::ZERO);
                true
            }
            _ => true,
        };
        let envelope = author.seal(&header);
        self.signed.insert(envelope.hash(), envelope.clone());
        if goes_on {
            self.last.insert((device, stream), (header.seq, envelope.hash()));
        }
        Some(envelope)
    }

    fn evidence(&mut self, feed: &mut Feed<'_>, _: usize) -> FromDevice {
        let from = feed.below(self.heads.len() + 1);
        let common = if feed.one_in(4) {
            vec![(STREAM, Position(u64::from(feed.byte())))]
        } else {
            self.samples.clone()
        };
        FromDevice::Evidence(Evidence { space: cast().space, heads: self.heads[from..].to_vec(), common })
    }

    fn seen_or_ping(&mut self, feed: &mut Feed<'_>, _: usize) -> FromDevice {
        let log_id = self.log_ids[feed.below(self.log_ids.len())];
        match feed.below(2) {
            0 => FromDevice::Ping(u32::from(feed.byte())),
            _ => FromDevice::Seen(Seen {
                space: cast().space,
                log_id,
                cursors: vec![(STREAM, Position(u64::from(feed.byte())))],
            }),
        }
    }

    fn talk_nonsense(&mut self, feed: &mut Feed<'_>) {
        let at = feed.below(LINES);
        let len = feed.below(64);
        let bytes = feed.take(len);
        if let Some(line) = self.lines[at].as_mut().filter(|line| !line.over) {
            line.greeted = true;
            line.exchange.incoming().extend(bytes);
        }
    }

    fn time_passes(&mut self, feed: &mut Feed<'_>) {
        let ms = feed.pick(&[1, 1_000, 5_000, 60_000, 86_400_000]) * u64::from(feed.byte());
        let now = self.now.load(Ordering::Relaxed);
        let now = if feed.one_in(8) { now.saturating_sub(ms) } else { now.saturating_add(ms) };
        self.now.store(now, Ordering::Relaxed);
        self.manual.probe_if_failed();
        for line in self.lines.iter_mut().flatten().filter(|line| !line.over) {
            let deadline = line.exchange.deadline().expect("a connection that stands has a deadline");
            if deadline <= Millis(now) {
                assert_eq!(line.exchange.tick(), Err(End::Close), "who is silent is left");
                line.over = true;
            }
        }
    }

    fn hang_up(&mut self, feed: &mut Feed<'_>) {
        let at = feed.below(LINES);
        self.lines[at] = None;
    }

    fn log_fails(&mut self, feed: &mut Feed<'_>) {
        let error = || LogError::Io("told to fail".into());
        let what = feed.below(4);
        let commits = feed.below(4) as u32 + 1;
        self.log.fail(|faults| match what {
            0 => faults.commits = Some((commits, error())),
            1 => faults.reads = true,
            2 => drop(faults.spaces.insert(cast().space)),
            _ => *faults = Default::default(),
        });
    }

    /// The server's files are replaced by a copy, or copied.
    fn restore(&mut self, feed: &mut Feed<'_>) {
        if feed.below(2) == 0 {
            self.backup = self.log.backup();
            return;
        }
        self.lines.iter_mut().for_each(|line| *line = None);
        self.log = self.backup.backup();
        self.manual = server(&self.log, &self.now);
    }

    /// Everybody goes on until nothing is left to do; a log that fails may leave something.
    fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            self.turn();
            let read = self.manual.read_next();
            if !(self.manual.commit_next() || read) {
                return;
            }
        }
    }

    /// Each connection goes on as far as it can without the log, and what it says is heard.
    fn turn(&mut self) {
        for at in 0..LINES {
            if let Some(mut line) = self.lines[at].take() {
                self.go_on(&mut line);
                self.lines[at] = Some(line);
            }
        }
    }

    fn go_on(&mut self, line: &mut Line) {
        loop {
            while !line.over {
                match line.exchange.step() {
                    Ok(Step::Went | Step::Took) => {}
                    Ok(Step::Idle | Step::Opens) => break,
                    Err(_) => line.over = true,
                }
                let unwritten = line.exchange.unwritten().len();
                assert!(unwritten <= WRITES_BYTES_MAX + UNWRITTEN_BEYOND_MAX, "{unwritten} bytes wait");
            }
            let said = line.exchange.unwritten().to_vec();
            if said.is_empty() {
                return;
            }
            line.exchange.wrote(said.len());
            line.heard.extend(said);
            while let Some(frame) = next_frame(&mut line.heard) {
                assert!(line.greeted, "the server speaks first");
                assert!(!line.said_bye, "something comes after Bye: {frame:?}");
                self.hear(line, frame);
            }
            assert!(line.heard.is_empty(), "half a frame");
        }
    }

    /// Holds what the server says against its log.
    fn hear(&mut self, line: &mut Line, frame: FromServer) {
        let is_first = !std::mem::replace(&mut line.welcomed, true);
        let opens = matches!(frame, FromServer::Welcome(_) | FromServer::Bye(_));
        assert!(opens || !is_first, "{frame:?} comes before Welcome");
        match frame {
            FromServer::Welcome(welcome) => {
                assert!(is_first, "Welcome comes twice");
                assert_eq!(welcome.exporter, [5; 32]);
                self.log_ids.extend(welcome.spaces.iter().map(|space| space.log_id));
                let of = welcome.spaces.into_iter().find(|space| space.space == cast().space);
                line.own_heads = of.map(|space| space.own_heads).unwrap_or_default();
            }
            FromServer::Roster(frame) => {
                assert!(self.is_member(line.device), "a stranger is shown the roster");
                let held = self.entries();
                assert!(frame.entries.iter().all(|entry| held.contains(entry)), "no entry of the log");
            }
            FromServer::RosterAcked(RosterHead { seq, hash, .. }) => {
                let held = self.entries().get(seq.0 as usize).map(|entry| entry.entry.hash());
                assert_eq!(held, Some(hash), "a roster entry is acknowledged and not durable");
            }
            FromServer::Acked(acked) => self.hear_acked(&acked),
            FromServer::Entries(entries) => self.hear_entries(line, entries),
            FromServer::CaughtUp(all) => all.iter().for_each(|heads| self.hear_heads(heads)),
            FromServer::NeedEvidence(need) => {
                assert!(need.samples.is_empty() || self.is_member(line.device));
                assert!(need.samples.iter().all(|sample| self.stands(sample)), "no places of the log");
                self.samples = need.samples.iter().map(|at| (at.stream, at.position)).collect();
            }
            FromServer::LogBorn(born) => {
                let born = verify::check(born, &cast().keys.heads.public()).expect("signed").content();
                self.log_ids.push(born.expect("of this version").new);
            }
            FromServer::Bye(_) => line.said_bye = true,
            FromServer::Refused(_) | FromServer::Pong(_) => {}
        }
        // Old ones are as good as new ones, and a run is to stay cheap.
        self.heads.drain(..self.heads.len().saturating_sub(8));
        self.log_ids.drain(1..self.log_ids.len().saturating_sub(8).max(1));
    }

    fn hear_acked(&mut self, acked: &Acked) {
        self.hear_heads(&acked.head);
        let heads = acked.head.content().expect("just read");
        let [head] = heads.heads[..] else { panic!("an acknowledgement is of one stream") };
        for envelope in &acked.envelopes {
            assert!(self.signed.contains_key(&envelope.hash), "nobody signed what is acknowledged");
            assert!(envelope.position <= head.position, "beyond the head that proves it");
            let held = self.held(&head.stream, envelope.position);
            assert_eq!(held, Some(envelope.hash), "an envelope is acknowledged and not durable");
        }
    }

    fn hear_heads(&mut self, signed: &SignedHeads) {
        let key = cast().keys.heads.public();
        let heads = verify::check(signed.clone(), &key).expect("signed").content().expect("of this version");
        if heads.space == cast().space {
            assert!(heads.heads.iter().all(|head| self.stands(head)), "a head is signed that does not stand");
            self.cursors.extend(heads.heads.iter().map(|head| (head.stream, *head)));
            self.log_ids.push(heads.log_id);
            self.heads.push(signed.clone());
        }
    }

    fn hear_entries(&mut self, line: &mut Line, entries: Entries) {
        let roster = self.roster().expect("a log with envelopes has a roster");
        let stream = entries.stream;
        let at = roster.head().expect("founded").seq;
        assert!(roster.may_read(&cast().devices[line.device].id(), &stream, at), "who may not read gets it");
        let reached = line.reached.entry(stream).or_default();
        if line.begun.insert(stream) && entries.first == Position(1) {
            // Cursors of a device that was no member when it greeted count for nothing: it skips what it has.
            *reached = Position(0);
        }
        assert_eq!(entries.first, reached.next(), "a place is left out or comes twice");
        assert!(!entries.items.is_empty());
        for item in &entries.items {
            *reached = reached.next();
            let hash = match &item.content {
                ItemContent::Envelope(bytes) => verify::sha256(&[bytes]),
                ItemContent::Own(hash) => *hash,
            };
            assert_eq!(self.held(&stream, *reached), Some(hash), "what is delivered does not stand");
        }
    }

    /// The log as it is, whatever fails.
    fn entries(&self) -> Vec<EntryWithWraps> {
        self.log.backup().entries(&cast().space, RosterSeq(0)).expect("a copy does not fail")
    }

    /// The hash of what stands at a position.
    fn held(&self, stream: &StreamId, at: Position) -> Option<Hash> {
        let after = Position(at.0.checked_sub(1)?);
        let run =
            self.log.backup().read(&cast().space, stream, after, 1, None).expect("a copy does not fail");
        match run?.items.into_iter().next()?.content {
            ItemContent::Envelope(bytes) => Some(verify::sha256(&[&bytes])),
            ItemContent::Own(hash) => Some(hash),
        }
    }

    fn stands(&self, head: &Head) -> bool {
        let chain = self.log.backup().chain(&cast().space, &head.stream, head.position);
        chain.expect("a copy does not fail") == Some(head.chain)
    }

    /// The roster that the log holds: one of those that the owner's devices signed.
    fn roster(&self) -> Option<&'static Roster> {
        let newest = self.entries().last()?.entry.hash();
        let mut known = cast().rosters.iter().chain(&cast().forked);
        let found = known.find(|roster| roster.prev() == newest);
        Some(found.expect("the log holds a chain that nobody signed"))
    }

    fn is_member(&self, device: usize) -> bool {
        self.roster().is_some_and(|roster| roster.device(&cast().devices[device].id()).is_some())
    }

    /// After all that: nothing unsigned stands in the log, and the owner's phone founds or finds its space
    /// and has an envelope acknowledged.
    fn serves_an_honest_owner(&mut self) {
        self.log.fail(|faults| *faults = Default::default());
        self.lines.iter_mut().for_each(|line| *line = None);
        self.settle();
        self.manual.probe_if_failed();
        for stream in [STREAM, OTHER] {
            for at in (1..).map(Position).map_while(|at| self.held(&stream, at)) {
                assert!(self.signed.contains_key(&at), "nobody signed what stands in the log");
            }
        }
        let phone = &cast().devices[0];
        let hello = SpaceHello {
            space: cast().space,
            log_id: LogId::ZERO,
            roster: None,
            cursors: Vec::new(),
            own_in_full: false,
        };
        self.lines[0] = Some(self.line(0));
        self.says(FromDevice::Hello(Hello {
            version: wire::VERSION,
            device: phone.id(),
            pins_version: 2,
            spaces: vec![hello],
        }));
        if self.roster().is_none() {
            self.says(FromDevice::PushRoster(PushRoster {
                space: cast().space,
                entries: cast().chain.clone(),
            }));
        }
        let roster = self.roster().expect("it has founded its space");
        let own = self.lines[0].iter().flat_map(|line| &line.own_heads);
        let last = own.filter(|(stream, ..)| *stream == STREAM).map(|(_, seq, hash)| (*seq, *hash)).next();
        let (seq, prev) = last.unwrap_or((Seq(0), Hash::ZERO));
        let mut header = phone.header(roster, STREAM, seq.0 + 1, prev);
        header.log_id = LogId([0xee; 16]);
        let envelope = phone.seal(&header);
        let hash = envelope.hash();
        self.signed.insert(hash, envelope.clone());
        let envelopes = vec![envelope.into_bytes().into()];
        self.says(FromDevice::Push(Push { space: cast().space, stream: STREAM, envelopes, refill: false }));
        let end = self.log.backup().head(&cast().space, &STREAM).expect("a copy does not fail");
        assert_eq!(self.held(&STREAM, end.position), Some(hash), "an honest owner is not served");
        let acked = self.heads.iter().any(|heads| heads.content().is_ok_and(|heads| heads.heads == [end]));
        assert!(acked, "an honest owner is not answered");
    }

    fn says(&mut self, frame: FromDevice) {
        let line = self.lines[0].as_mut().expect("it has connected");
        line.greeted = true;
        line.exchange.incoming().extend(wire::encode_frame(&frame));
        self.settle();
    }
}

/// Takes the first whole frame; what is none of this version has no business on the wire.
fn next_frame(heard: &mut Vec<u8>) -> Option<FromServer> {
    let len = wire::frame_len(*heard.first_chunk()?).expect("within a frame's length");
    assert!(len <= FRAME_BYTES_MAX);
    let frame = wire::decode(heard.get(4..4 + len)?).expect("a frame of this version");
    assert_eq!(wire::encode(&frame), heard[4..4 + len]);
    heard.drain(..4 + len);
    Some(frame)
}
