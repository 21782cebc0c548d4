//! Devices and a server, each made of the protocol's own machines and the least storage that will do, in
//! virtual time and under a seed. Lines are cut and devices restarted wherever it hurts; all converge.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    sync::Arc,
};

use ebb_protocol::{
    client::{self, Client, Outgoing, OutgoingEnvelope},
    envelope::{self, Envelope},
    id::{DeviceId, Hash, LogId, MemberId, Millis, Position, RosterSeq, Seq, SpaceId, StreamId},
    judge::{self, Admission, Chain, JudgedAt},
    roster::{Access, EntryWithWraps, MemberKind, Recipient, Roster, RosterError, VerifiedEntry},
    session::{self, Appended, Attest, Session, Snapshot},
    verify::{self, Verified},
    wire::{
        self, AckedEnvelope, Entries, Evidence, FromDevice, FromServer, Head, Hello, Item, ItemContent,
        LogBorn, Refusal, RosterFrame, RosterHead, SignedHeads, SignedLogBorn, SpaceHello,
    },
};

use crate::{
    kit::{CLINIC, Device, Draft, OTHER, Patient, STREAM},
    session::{config, heads_key},
};

const EXPORTER: [u8; 32] = [7; 32];

mod phone;
mod server;

use phone::{Intent, Phone};
use server::{Offer, Server};

/// What the end of the line does at the moment of a cut.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    Line,
    Restart,
}

struct Line {
    id: u64,
    session: Session,
    up: VecDeque<FromDevice>,
    down: VecDeque<FromServer>,
    inbox: VecDeque<session::Input>,
    drains: bool,
    closing: bool,
}

struct World {
    now: Millis,
    random: u64,
    server: Server,
    phones: Vec<Phone>,
    lines: BTreeMap<usize, Line>,
    connecting: BTreeSet<usize>,
    last_line: u64,
    written: u8,
    /// Outputs carried out so far, on both sides; at this one, the line over which it goes is cut.
    outputs: usize,
    cut_at: Option<(usize, Cut)>,
    /// Who said what, in the order in which it was sent or heard at the device.
    heard: Vec<(usize, String)>,
}

impl World {
    /// A patient's phone that founded its space offline, with a tablet and a clinic's desk in mind.
    fn new(seed: u64) -> Self {
        let devices: Vec<_> = (1..=3).map(|n| Arc::new(Device::new(n))).collect();
        let space = verify::space_id(&devices[0].id(), &[4; 16]);
        let mut phones: Vec<_> = devices.iter().map(|device| Phone::new(device.clone(), space)).collect();
        let me = [Recipient::Device(devices[0].id())];
        let found = Draft::default().found(&devices[0]).open(STREAM, &me).open(OTHER, &me);
        phones[0].intents = vec![
            Intent::Found(found),
            Intent::AddDevice(devices[1].clone()),
            Intent::Admit(CLINIC, Some(devices[2].clone())),
        ];
        phones[0].sign();
        let mut world = Self {
            now: Millis(1_000_000),
            random: seed,
            server: Server::default(),
            phones,
            lines: BTreeMap::new(),
            connecting: BTreeSet::new(),
            last_line: 0,
            written: 0,
            outputs: 0,
            cut_at: None,
            heard: Vec::new(),
        };
        for (phone, stream) in [(0, STREAM), (0, STREAM), (0, OTHER), (1, STREAM), (1, OTHER), (2, STREAM)] {
            world.write(phone, stream);
        }
        world
    }

    fn all_stay(&mut self) {
        (0..self.phones.len()).for_each(|phone| self.device(phone, client::Input::Stay));
    }

    fn write(&mut self, phone: usize, stream: StreamId) {
        self.written += 1;
        self.phones[phone].unsealed.push((stream, self.written));
    }

    fn intend(&mut self, phone: usize, intent: Intent) {
        self.phones[phone].intents.push(intent);
        self.phones[phone].sign();
    }

    fn below(&mut self, end: usize) -> usize {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % end
    }

    /// Counts an output; whether the line breaks right behind it.
    fn breaks(&mut self) -> Option<Cut> {
        self.outputs += 1;
        self.cut_at.filter(|(at, _)| *at == self.outputs).map(|(_, cut)| cut)
    }

    fn device(&mut self, phone: usize, input: client::Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = self.now;
            let mut cut = None;
            for output in self.phones[phone].client.handle(now, input) {
                match &output {
                    client::Output::Connect => drop(self.connecting.insert(phone)),
                    client::Output::Disconnect => {
                        self.lines.remove(&phone);
                        self.connecting.remove(&phone);
                    }
                    client::Output::Send(frame) => {
                        self.heard.push((phone, format!("says {}", kind(frame))));
                        if let Some(line) = self.lines.get_mut(&phone) {
                            line.up.push_back(frame.clone());
                        }
                    }
                    _ => {}
                }
                inputs.extend(self.phones[phone].carry_out(output));
                cut = cut.or(self.breaks());
                if cut == Some(Cut::Restart) {
                    return self.restart(phone);
                }
            }
            if cut == Some(Cut::Line) {
                self.lines.remove(&phone);
                self.connecting.remove(&phone);
                inputs.push_back(client::Input::Closed);
            }
        }
    }

    /// The device begins anew with what was durable.
    fn restart(&mut self, phone: usize) {
        self.lines.remove(&phone);
        self.connecting.remove(&phone);
        self.phones[phone].client = Client::new(phone as u64);
        self.phones[phone].server_roster = None;
        self.device(phone, client::Input::Stay);
    }

    fn session(&mut self, phone: usize, input: session::Input) {
        let mut inputs = VecDeque::from([input]);
        let mut cut = None;
        while let Some(input) = inputs.pop_front() {
            let now = self.now;
            let Some(line) = self.lines.get_mut(&phone) else { return };
            let link = line.id;
            let outputs = line.session.handle(now, input);
            for output in outputs {
                self.serve(phone, link, output, &mut inputs);
                cut = cut.or(self.breaks());
            }
        }
        match cut {
            Some(Cut::Restart) => self.restart(phone),
            Some(Cut::Line) => {
                self.lines.remove(&phone);
                self.device(phone, client::Input::Closed);
            }
            None => {}
        }
    }

    fn serve(
        &mut self,
        phone: usize,
        link: u64,
        output: session::Output,
        inputs: &mut VecDeque<session::Input>,
    ) {
        use session::Output;
        let Some(line) = self.lines.get_mut(&phone) else { return };
        let sign = |heads: &wire::Heads| SignedHeads::sign(heads, |message| heads_key().sign(message));
        match output {
            Output::Open(device, hello) => {
                let snapshot = self.server.spaces.get(&hello.space).map(|log| log.snapshot(&device, &hello));
                inputs.push_back(session::Input::Opened(hello.space, snapshot));
            }
            Output::Send(frame) => {
                line.drains |= matches!(frame, FromServer::Entries(_));
                line.down.push_back(frame);
            }
            Output::Attest(Attest::CaughtUp(heads)) => {
                line.down.push_back(FromServer::CaughtUp(heads.iter().map(sign).collect()));
            }
            Output::Attest(Attest::Acked(envelopes, heads)) => {
                line.down.push_back(FromServer::Acked(wire::Acked { envelopes, head: sign(&heads) }));
            }
            Output::AppendRoster(space, entries) => {
                self.server.offers.push_back((link, Offer::Roster(space, entries)))
            }
            Output::Append { space, stream, envelopes, refill } => {
                let offer = Offer::Envelopes { space, stream, envelopes, refill };
                self.server.offers.push_back((link, offer));
            }
            Output::Bear { space, old, evidence, common } => {
                self.server.offers.push_back((link, Offer::Bear { space, old, evidence, common }));
            }
            Output::Read { space, stream, after, own } => {
                let run = self.server.read(space, stream, after, own);
                line.inbox.push_back(session::Input::Run(run));
            }
            Output::Close => line.closing = true,
        }
    }

    fn tell(&mut self, input: impl Fn() -> Option<session::Input>) {
        for line in self.lines.values_mut() {
            line.inbox.extend(input());
        }
    }

    fn commit(&mut self) {
        let (link, before, reply, after) = self.server.commit();
        self.tell(|| before.as_ref().map(copy));
        if let Some(line) = self.lines.values_mut().find(|line| line.id == link) {
            line.inbox.push_back(reply);
        }
        self.tell(|| after.as_ref().map(copy));
    }

    /// Does one thing of those that can be done now; `false` where there is none.
    fn step(&mut self) -> bool {
        let mut can: Vec<(usize, u8)> = self.connecting.iter().map(|phone| (*phone, 0)).collect();
        if !self.server.offers.is_empty() {
            can.push((0, 1));
        }
        for (phone, line) in &self.lines {
            can.extend((!line.up.is_empty() && !line.closing).then_some((*phone, 2)));
            can.extend((!line.down.is_empty()).then_some((*phone, 3)));
            can.extend((!line.inbox.is_empty() && !line.closing).then_some((*phone, 4)));
            can.extend((line.drains && line.down.len() < 2).then_some((*phone, 5)));
            can.extend((line.closing && line.down.is_empty()).then_some((*phone, 6)));
        }
        if can.is_empty() {
            return false;
        }
        let (phone, what) = can[self.below(can.len())];
        match what {
            0 => self.connect(phone),
            1 => self.commit(),
            2 => {
                let frame = self.lines.get_mut(&phone).and_then(|line| line.up.pop_front()).unwrap();
                self.session(phone, session::Input::Frame(frame));
            }
            3 => {
                let frame = self.lines.get_mut(&phone).and_then(|line| line.down.pop_front()).unwrap();
                self.heard.push((phone, format!("hears {}", kind(&frame))));
                self.device(phone, client::Input::Frame(frame));
            }
            4 => {
                let input = self.lines.get_mut(&phone).and_then(|line| line.inbox.pop_front()).unwrap();
                self.session(phone, input);
            }
            5 => {
                self.lines.get_mut(&phone).unwrap().drains = false;
                self.session(phone, session::Input::Drained);
            }
            _ => {
                self.lines.remove(&phone);
                self.device(phone, client::Input::Closed);
            }
        }
        true
    }

    fn connect(&mut self, phone: usize) {
        self.connecting.remove(&phone);
        self.last_line += 1;
        let tls = self.phones[phone].device.keys.tls;
        let session = Session::new(self.now, config(true), tls, EXPORTER);
        let (up, down, inbox) = Default::default();
        let line = Line { id: self.last_line, session, up, down, inbox, drains: false, closing: false };
        self.lines.insert(phone, line);
        self.device(phone, client::Input::Connected { exporter: EXPORTER });
    }

    /// Lets time pass to the next deadline of anybody.
    fn pass(&mut self) {
        let clients = self.phones.iter().filter_map(|phone| phone.client.deadline());
        let sessions = self.lines.values().filter_map(|line| line.session.deadline());
        let Some(next) = clients.chain(sessions).min() else { return };
        self.now = self.now.max(next);
        for phone in 0..self.phones.len() {
            if self.phones[phone].client.deadline().is_some_and(|at| at <= self.now) {
                self.device(phone, client::Input::Tick);
            }
            if self
                .lines
                .get(&phone)
                .and_then(|line| line.session.deadline())
                .is_some_and(|at| at <= self.now)
            {
                self.session(phone, session::Input::Tick);
            }
        }
    }

    /// Runs until nothing moves and all who want to be are in sync.
    fn settle(&mut self, who: &[usize]) {
        for _ in 0..20_000 {
            if self.step() {
                continue;
            }
            if who.iter().all(|phone| self.phones[*phone].client.is_in_sync()) {
                return;
            }
            self.pass();
        }
        let states: Vec<_> = self.phones.iter().map(|phone| format!("{:?}", phone.client)).collect();
        panic!(
            "a wedge, after {:?}\n{}",
            self.heard.iter().rev().take(30).collect::<Vec<_>>(),
            states.join("\n")
        );
    }

    /// Every reader holds the server's log, and the log holds all that was written.
    fn check(&self) {
        let log = self.server.spaces.values().next().unwrap();
        let mut items = BTreeSet::new();
        for (stream, stored) in &log.streams {
            let chain: Vec<_> = stored.iter().map(|stored| stored.head).collect();
            for phone in &self.phones {
                if log.roster.may_read(&phone.device.id(), stream, log.roster.head().unwrap().seq) {
                    assert_eq!(phone.logs.get(stream), Some(&chain), "a reader's log is the server's");
                }
            }
            items.extend(stored.iter().map(|stored| stored.envelope.header().salt[0]));
            let hashes: BTreeSet<_> = stored.iter().map(|stored| stored.envelope.hash()).collect();
            assert_eq!(hashes.len(), stored.len(), "nothing stands twice");
        }
        assert!(items.into_iter().eq(1..=self.written), "nothing is lost");
        for phone in &self.phones {
            assert_eq!(phone.settled, log.roster);
            assert!(phone.pending.is_empty() && phone.unsealed.is_empty());
            assert!(phone.sealed.values().all(|sealed| sealed.position.is_some()));
        }
    }

    /// Offline, two devices change the roster, and all write.
    fn second_day(&mut self) {
        self.intend(0, Intent::Rotate(STREAM));
        self.intend(1, Intent::Admit(MemberId([9; 16]), None));
        for (phone, stream) in [(0, STREAM), (1, STREAM), (2, STREAM), (2, STREAM), (1, OTHER)] {
            self.write(phone, stream);
        }
        (0..3).for_each(|phone| self.device(phone, client::Input::LocalChange));
    }

    fn two_days(seed: u64, cut_at: Option<(usize, Cut)>) -> Self {
        let mut world = Self::new(seed);
        world.cut_at = cut_at;
        world.all_stay();
        world.settle(&[0, 1, 2]);
        world.check();
        world.second_day();
        world.settle(&[0, 1, 2]);
        world.check();
        world
    }
}

/// An input told to everybody.
fn copy(input: &session::Input) -> session::Input {
    match input {
        session::Input::Grew(space, log_id, heads) => session::Input::Grew(*space, *log_id, heads.clone()),
        session::Input::RosterGrew { space, log_id, roster, entries } => session::Input::RosterGrew {
            space: *space,
            log_id: *log_id,
            roster: roster.clone(),
            entries: entries.clone(),
        },
        session::Input::Born(space, born) => session::Input::Born(*space, born.clone()),
        other => panic!("nothing to be told: {other:?}"),
    }
}

/// The name of a frame's kind.
fn kind(frame: &impl std::fmt::Debug) -> String {
    let shown = format!("{frame:?}");
    shown.split(['(', ' ']).next().unwrap_or_default().to_owned()
}

#[test]
fn all_converge_in_any_order_of_events() {
    for seed in 0..60 {
        World::two_days(seed, None);
    }
}

#[test]
fn all_converge_wherever_a_line_is_cut_or_a_device_restarts() {
    let outputs = World::two_days(7, None).outputs;
    assert!(outputs > 100, "{outputs}");
    for at in 1..=outputs {
        for cut in [Cut::Line, Cut::Restart] {
            World::two_days(7, Some((at, cut)));
        }
    }
}

#[test]
fn all_converge_through_many_cuts() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        world.all_stay();
        for round in 0..20 {
            for _ in 0..world.below(40) {
                if !world.step() {
                    world.pass();
                }
            }
            let cut = if round % 2 == 0 { Cut::Line } else { Cut::Restart };
            let behind = 1 + world.below(5);
            world.cut_at = Some((world.outputs + behind, cut));
            if round == 10 {
                // The server restarts: what it had not made durable is gone.
                world.server.offers.clear();
                world.lines.clear();
                (0..3).for_each(|phone| world.device(phone, client::Input::Closed));
            }
        }
        world.settle(&[0, 1, 2]);
        world.check();
    }
}

#[test]
fn a_reconnect_that_carries_changes_both_ways_is_one_round_trip() {
    for seed in 0..20 {
        let mut world = World::two_days(seed, None);
        world.device(1, client::Input::Leave);
        for (phone, stream) in [(0, STREAM), (2, STREAM), (0, OTHER)] {
            world.write(phone, stream);
            world.device(phone, client::Input::LocalChange);
        }
        world.settle(&[0, 2]);
        [STREAM, OTHER, STREAM].into_iter().for_each(|stream| world.write(1, stream));
        world.heard.clear();
        let until = world.now.plus(25_000);
        world.device(1, client::Input::SyncUntil(until));
        world.settle(&[0, 2]);
        world.check();
        let heard: Vec<_> =
            world.heard.iter().filter(|(phone, _)| *phone == 1).map(|(_, what)| &what[..]).collect();
        let first = heard.iter().position(|what| what.starts_with("hears")).unwrap();
        let caught_up = heard.iter().position(|what| *what == "hears CaughtUp").unwrap();
        assert_eq!(heard[..first], ["says Hello", "says Push", "says Push", "says Push"], "the first flight");
        assert!(heard[first..caught_up].iter().all(|what| what.starts_with("hears")), "{heard:?}");
        assert_eq!(world.now, Millis(until.0 - 25_000), "nobody waited for anything");
    }
}

#[test]
fn a_server_that_lost_data_is_refilled_by_those_who_have_it() {
    for seed in 0..30 {
        for everything in [false, true] {
            let mut world = World::new(seed);
            world.all_stay();
            world.settle(&[0, 1, 2]);
            let yesterday = world.server.spaces.clone();
            world.second_day();
            world.settle(&[0, 1, 2]);
            world.check();
            // Last night's backup, or none at all, while some of the devices are away.
            world.server.spaces = if everything { BTreeMap::new() } else { yesterday };
            world.server.offers.clear();
            world.lines.clear();
            (0..3).for_each(|phone| world.device(phone, client::Input::Closed));
            world.write(2, STREAM);
            world.settle(&[0, 1, 2]);
            world.check();
            let log = world.server.spaces.values().next().unwrap();
            assert_eq!(log.births.len(), 1, "one birth, however many told of it");
        }
    }
}
