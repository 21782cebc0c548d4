//! The server's side of a connection, input by input.

use std::sync::Arc;

use ebb_protocol::{
    envelope,
    id::{Hash, LogId, Millis, Position, RosterSeq, Seq, SpaceId, StreamId},
    roster::{MemberKind, Roster},
    session::{Appended, Attest, Config, Input, Output, Run, Session, Snapshot},
    wire::{
        self, AckedEnvelope, Bye, Evidence, FromDevice, FromServer, Head, Heads, Hello, Item, ItemContent,
        LogBorn, Pins, Push, PushRoster, Refusal, RefusedWhat, RosterHead, Seen, SignedHeads, SignedLogBorn,
        SignedPins, SpaceHello,
    },
};

use crate::kit::{CLINIC, Device, Draft, Key, OTHER, Patient, STREAM};

const LOG: LogId = LogId([1; 16]);
const NOW: Millis = Millis(1_000_000);
const EXPORTER: [u8; 32] = [7; 32];

pub(crate) fn heads_key() -> Key {
    Key::new(200, 1)
}

pub(crate) fn config(open_registration: bool) -> Arc<Config> {
    let root = Key::new(201, 1);
    let pins = Pins { version: 1, root: root.public(), tls: Vec::new(), heads: vec![heads_key().public()] };
    let pins = SignedPins::sign(&pins, |message| root.sign(message));
    Arc::new(Config { open_registration, pins, heads_keys: vec![heads_key().public()], back_off_ms: 100 })
}

/// A session with the device at its other end.
struct Line(Session);

impl Line {
    fn new(device: &Device) -> Self {
        Self::with(device, true)
    }

    fn with(device: &Device, open_registration: bool) -> Self {
        Self(Session::new(NOW, config(open_registration), device.keys.tls, EXPORTER))
    }

    /// A line over which a device said Hello, and found this.
    fn open(device: &Device, hello: SpaceHello, snapshot: Option<Snapshot>) -> (Self, Vec<Output>) {
        let mut line = Self::new(device);
        let out = line.hello(device, hello, snapshot);
        (line, out)
    }

    fn hello(&mut self, device: &Device, hello: SpaceHello, snapshot: Option<Snapshot>) -> Vec<Output> {
        let space = hello.space;
        let hello =
            Hello { version: wire::VERSION, device: device.id(), pins_version: 0, spaces: vec![hello] };
        let out = self.frame(FromDevice::Hello(hello));
        assert!(matches!(out[..], [Output::Open(..)]), "{out:?}");
        self.input(Input::Opened(space, snapshot))
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.0.handle(NOW, input)
    }

    fn frame(&mut self, frame: FromDevice) -> Vec<Output> {
        self.input(Input::Frame(frame))
    }

    fn push_roster(&mut self, patient: &Patient, places: std::ops::Range<usize>) -> Vec<Output> {
        let entries = patient.entries[places].to_vec();
        self.frame(FromDevice::PushRoster(PushRoster { space: patient.space(), entries }))
    }

    fn push(
        &mut self,
        envelopes: &[ebb_protocol::verify::Verified<envelope::Envelope>],
        refill: bool,
    ) -> Vec<Output> {
        let header = *envelopes[0].header();
        let envelopes = envelopes.iter().map(|envelope| envelope.as_bytes().to_vec().into()).collect();
        self.frame(FromDevice::Push(Push { space: header.space, stream: header.stream, envelopes, refill }))
    }

    fn committed(
        &mut self,
        patient: &Patient,
        roster: &Roster,
        refused: Option<(Hash, Refusal)>,
    ) -> Vec<Output> {
        let state = Some((LOG, Arc::new(roster.clone())));
        self.input(Input::RosterCommitted { space: patient.space(), state, refused })
    }

    fn roster_grew(&mut self, patient: &Patient, entries: std::ops::Range<usize>) -> Vec<Output> {
        let roster = Arc::new(roster_of(patient, entries.end));
        let entries = patient.entries[entries].to_vec();
        self.input(Input::RosterGrew { space: patient.space(), log_id: LOG, roster, entries })
    }
}

/// The roster after so many of the patient's entries.
fn roster_of(patient: &Patient, entries: usize) -> Roster {
    let mut roster = Roster::new(patient.space());
    for entry in &patient.entries[..entries] {
        let verified = roster.verify(entry.clone()).unwrap();
        roster.apply(&verified);
    }
    roster
}

fn hello(patient: &Patient) -> SpaceHello {
    SpaceHello {
        space: patient.space(),
        log_id: LogId::ZERO,
        roster: None,
        cursors: Vec::new(),
        own_in_full: false,
    }
}

/// A Hello of a device that holds the whole roster.
fn agreed(patient: &Patient) -> SpaceHello {
    SpaceHello { log_id: LOG, roster: patient.roster.head(), ..hello(patient) }
}

fn head(stream: StreamId, position: u64) -> Head {
    Head { stream, position: Position(position), chain: Hash([position as u8; 32]) }
}

fn snapshot(patient: &Patient, hello: &SpaceHello, heads: Vec<Head>) -> Snapshot {
    let known = hello.roster.map_or(0, |head| (head.seq.0 as usize).saturating_add(1));
    Snapshot {
        log_id: LOG,
        roster: Arc::new(patient.roster.clone()),
        entries: patient.entries[known.min(patient.entries.len())..].to_vec(),
        at_cursors: hello.cursors.iter().map(|cursor| (cursor.stream, Some(cursor.chain))).collect(),
        samples: heads.clone(),
        heads,
        own_heads: Vec::new(),
        births: Vec::new(),
    }
}

/// A line on which the phone is known and caught up.
fn live(patient: &Patient) -> Line {
    let hello = agreed(patient);
    let snapshot = snapshot(patient, &hello, Vec::new());
    let (line, out) = Line::open(&patient.phone, hello, Some(snapshot));
    assert!(
        matches!(out[..], [Output::Send(FromServer::Welcome(_)), Output::Attest(Attest::CaughtUp(_))]),
        "{out:?}"
    );
    line
}

fn run(patient: &Patient, first: u64, last: u64) -> Input {
    let item = Item { received_ms: NOW, content: ItemContent::Own(Hash::ZERO) };
    Input::Run(Run {
        space: patient.space(),
        log_id: LOG,
        first: Position(first),
        items: (first..=last).map(|_| item.clone()).collect(),
        end: head(STREAM, last),
    })
}

fn refusals(out: &[Output]) -> Vec<(RefusedWhat, Refusal)> {
    let refused = out.iter().filter_map(|output| match output {
        Output::Send(FromServer::Refused(refused)) => Some((refused.what, refused.reason)),
        _ => None,
    });
    refused.collect()
}

fn roster_acks(out: &[Output]) -> Vec<RosterHead> {
    let acked = out.iter().filter_map(|output| match output {
        Output::Send(FromServer::RosterAcked(head)) => Some(*head),
        _ => None,
    });
    acked.collect()
}

fn roster_sent(out: &[Output]) -> Option<usize> {
    let sent = out.iter().filter_map(|output| match output {
        Output::Send(FromServer::Roster(frame)) => Some(frame.entries.len()),
        _ => None,
    });
    sent.reduce(|sum, more| sum + more)
}

fn bye(out: &[Output]) -> Option<Bye> {
    match out {
        [.., Output::Send(FromServer::Bye(bye)), Output::Close] => Some(*bye),
        _ => None,
    }
}

fn reads(out: &[Output]) -> Vec<(StreamId, Position)> {
    let reads = out.iter().filter_map(|output| match output {
        Output::Read { stream, after, .. } => Some((*stream, *after)),
        _ => None,
    });
    reads.collect()
}

fn caught_up(out: &[Output]) -> Option<&[Heads]> {
    out.iter().find_map(|output| match output {
        Output::Attest(Attest::CaughtUp(heads)) => Some(&heads[..]),
        _ => None,
    })
}

// Who may speak, and when.

#[test]
fn a_connection_begins_with_hello_in_time() {
    let patient = Patient::new(1);
    let early = Line::new(&patient.phone).frame(FromDevice::Ping(1));
    assert_eq!(bye(&early).unwrap().reason, Refusal::Malformed);
    let garbage = Line::new(&patient.phone).input(Input::Garbage);
    assert_eq!(bye(&garbage).unwrap().reason, Refusal::Malformed);
    let mut silent = Line::new(&patient.phone).0;
    assert!(silent.handle(NOW.plus(wire::HELLO_MS_MAX - 1), Input::Tick).is_empty());
    assert!(matches!(silent.handle(NOW.plus(wire::HELLO_MS_MAX), Input::Tick)[..], [Output::Close]));
    assert_eq!(silent.deadline(), None);
    let again = live(&patient).frame(FromDevice::Hello(Hello {
        version: wire::VERSION,
        device: patient.phone.id(),
        pins_version: 0,
        spaces: Vec::new(),
    }));
    assert_eq!(bye(&again).unwrap().reason, Refusal::Malformed);
}

#[test]
fn a_device_that_falls_silent_is_dropped_and_one_that_pings_is_not() {
    let mut session = live(&Patient::new(1)).0;
    let later = NOW.plus(wire::IDLE_MS_MAX - 1);
    let pong = session.handle(later, Input::Frame(FromDevice::Ping(5)));
    assert!(matches!(pong[..], [Output::Send(FromServer::Pong(5))]));
    assert!(session.handle(NOW.plus(wire::IDLE_MS_MAX), Input::Tick).is_empty());
    assert!(matches!(session.handle(later.plus(wire::IDLE_MS_MAX), Input::Tick)[..], [Output::Close]));
}

#[test]
fn another_version_is_sent_away() {
    let device = Device::new(1);
    let hello = Hello { version: 2, device: device.id(), pins_version: 0, spaces: Vec::new() };
    let out = Line::new(&device).frame(FromDevice::Hello(hello));
    assert_eq!(bye(&out).unwrap().reason, Refusal::Version);
}

#[test]
fn a_space_named_twice_is_malformed() {
    let patient = Patient::new(1);
    let spaces = vec![hello(&patient), hello(&patient)];
    let hello = Hello { version: wire::VERSION, device: patient.phone.id(), pins_version: 0, spaces };
    let out = Line::new(&patient.phone).frame(FromDevice::Hello(hello));
    assert_eq!(bye(&out).unwrap().reason, Refusal::Malformed);
}

#[test]
fn welcome_comes_first_and_names_this_very_connection() {
    let patient = Patient::new(1);
    let found = snapshot(&patient, &hello(&patient), vec![head(STREAM, 3)]);
    let (_, out) = Line::open(&patient.phone, hello(&patient), Some(found));
    let [
        Output::Send(FromServer::Welcome(welcome)),
        Output::Send(FromServer::Roster(_)),
        Output::Read { .. },
    ] = &out[..]
    else {
        panic!("{out:?}")
    };
    assert_eq!((welcome.exporter, welcome.server_ms), (EXPORTER, NOW));
    assert!(welcome.pins.is_some(), "it holds an older list");
    assert_eq!(welcome.spaces[0].roster, patient.roster.head());
}

#[test]
fn to_a_stranger_a_space_looks_as_if_it_did_not_exist() {
    let (patient, stranger) = (Patient::new(1), Device::new(2));
    let found = snapshot(&patient, &hello(&patient), vec![head(STREAM, 3)]);
    let show = |out: &[Output]| format!("{out:?}");
    let (mut line, theirs) = Line::open(&stranger, hello(&patient), Some(found));
    let (mut nowhere, nothing) = Line::open(&stranger, hello(&patient), None);
    assert_eq!(show(&theirs), show(&nothing));
    let chain = stranger.chain(&patient.roster, STREAM, 1);
    assert_eq!(show(&line.push(&chain, false)), show(&nowhere.push(&chain, false)));
    let grown = line.input(Input::Grew(patient.space(), LOG, vec![head(STREAM, 4)]));
    assert!(grown.is_empty(), "{grown:?}");
}

#[test]
fn a_device_id_without_its_tls_key_is_a_stranger() {
    let patient = Patient::new(1);
    let mut line = Line(Session::new(NOW, config(true), Device::new(2).keys.tls, EXPORTER));
    let found = snapshot(&patient, &hello(&patient), vec![head(STREAM, 3)]);
    let out = line.hello(&patient.phone, hello(&patient), Some(found));
    assert!(reads(&out).is_empty() && roster_sent(&out).is_none(), "{out:?}");
}

// The roster.

#[test]
fn a_space_is_founded_in_one_flight_with_its_first_envelopes() {
    let patient = Patient::new(1);
    let (mut line, _) = Line::open(&patient.phone, hello(&patient), None);
    let out = line.push_roster(&patient, 0..1);
    assert!(matches!(&out[..], [Output::AppendRoster(_, entries)] if entries.len() == 1), "{out:?}");
    let out = line.push(&patient.phone.chain(&patient.roster, STREAM, 2), false);
    assert!(matches!(&out[..], [Output::Append { envelopes, .. }] if envelopes.len() == 2), "{out:?}");
    let out = line.committed(&patient, &patient.roster, None);
    assert_eq!(roster_acks(&out), [patient.roster.head().unwrap()]);
}

#[test]
fn a_roster_in_several_frames_is_taken_whole() {
    let mut patient = Patient::new(1);
    (2..5).for_each(|epoch| patient.rotate(epoch));
    let (mut line, _) = Line::open(&patient.phone, hello(&patient), None);
    assert!(matches!(line.push_roster(&patient, 0..1)[..], [Output::AppendRoster(..)]));
    assert!(matches!(line.push_roster(&patient, 1..3)[..], [Output::AppendRoster(..)]));
    // The first is durable; the second is not, and the third builds on it.
    let out = line.committed(&patient, &roster_of(&patient, 1), None);
    assert_eq!(roster_acks(&out), [roster_of(&patient, 1).head().unwrap()]);
    let out = line.push_roster(&patient, 3..4);
    assert!(matches!(out[..], [Output::AppendRoster(..)]), "{out:?}");
    line.committed(&patient, &roster_of(&patient, 3), None);
    let out = line.committed(&patient, &patient.roster, None);
    assert_eq!(roster_acks(&out), [patient.roster.head().unwrap()]);
}

#[test]
fn an_entry_is_acknowledged_once_it_is_durable_and_not_before() {
    let patient = Patient::new(1);
    let (mut line, _) = Line::open(&patient.phone, hello(&patient), None);
    line.push_roster(&patient, 0..1);
    // The device says it again; nobody has written it yet.
    assert!(line.push_roster(&patient, 0..1).is_empty());
    let unavailable = Some((patient.entries[0].entry.hash(), Refusal::Unavailable));
    let out = line.committed(&patient, &Roster::new(patient.space()), unavailable);
    assert!(roster_acks(&out).is_empty());
    assert_eq!(refusals(&out)[0].1, Refusal::Unavailable);
    // What was not written is taken anew.
    assert!(matches!(line.push_roster(&patient, 0..1)[..], [Output::AppendRoster(..)]));
    line.committed(&patient, &patient.roster, None);
    assert_eq!(roster_acks(&line.push_roster(&patient, 0..1)), [patient.roster.head().unwrap()]);
}

#[test]
fn what_the_log_refused_is_believed_no_longer_while_more_is_on_its_way() {
    let mut patient = Patient::new(1);
    let mut line = live(&patient);
    patient.rotate(2);
    patient.rotate(3);
    line.push_roster(&patient, 1..2);
    line.push_roster(&patient, 2..3);
    let unavailable = Some((patient.entries[1].entry.hash(), Refusal::Unavailable));
    line.committed(&patient, &roster_of(&patient, 1), unavailable);
    // Tried again before the second is answered, it is new to the server.
    assert!(matches!(line.push_roster(&patient, 1..2)[..], [Output::AppendRoster(..)]));
}

#[test]
fn an_acknowledgement_names_what_the_device_pushed_and_not_what_others_did() {
    let mut patient = Patient::new(1);
    patient.rotate(2);
    let mut line = live(&patient);
    let mut other = Patient::new(1);
    other.rotate(2);
    other.sign(Draft::default().member(CLINIC, MemberKind::Clinic)).unwrap();
    patient.rotate(3);
    line.push_roster(&patient, 2..3);
    // Another device was faster.
    let out = line.roster_grew(&other, 2..3);
    assert_eq!(roster_sent(&out), Some(1));
    let lost = patient.entries[2].entry.hash();
    let out = line.committed(&patient, &other.roster, Some((lost, Refusal::HeadMoved(None))));
    assert!(roster_acks(&out).is_empty(), "{out:?}");
    assert_eq!(refusals(&out)[0].0, RefusedWhat::Entry(lost));
}

#[test]
fn the_device_misses_no_entry_that_others_added_while_it_pushed() {
    let mut patient = Patient::new(1);
    let mut line = live(&patient);
    let mut other = Patient::new(1);
    patient.rotate(2);
    patient.rotate(3);
    line.push_roster(&patient, 1..3);
    other.sign(Draft::default().member(CLINIC, MemberKind::Clinic)).unwrap();
    assert_eq!(roster_sent(&line.roster_grew(&other, 1..2)), Some(1));
    // It may build on that at once, before its own is refused.
    other.sign(Draft::default().member(ebb_protocol::id::MemberId([5; 16]), MemberKind::Clinic)).unwrap();
    assert!(matches!(
        line.push_roster(&other, 1..3)[..],
        [Output::Send(FromServer::RosterAcked(_)), Output::AppendRoster(..)]
    ));
    line.committed(
        &patient,
        &roster_of(&other, 2),
        Some((patient.entries[1].entry.hash(), Refusal::HeadMoved(None))),
    );
    line.committed(
        &patient,
        &roster_of(&other, 2),
        Some((other.entries[2].entry.hash(), Refusal::Unavailable)),
    );
    let mut third = Patient::new(1);
    third.sign(Draft::default().member(CLINIC, MemberKind::Clinic)).unwrap();
    third.rotate(2);
    assert_eq!(roster_sent(&line.roster_grew(&third, 2..3)), Some(1), "as long a chain as the one it pushed");
}

#[test]
fn a_device_is_not_sent_what_it_pushed_itself() {
    let mut patient = Patient::new(1);
    let mut line = live(&patient);
    patient.rotate(2);
    line.push_roster(&patient, 1..2);
    line.committed(&patient, &patient.roster, None);
    assert_eq!(roster_sent(&line.roster_grew(&patient, 1..2)), None);
    patient.rotate(3);
    assert_eq!(roster_sent(&line.roster_grew(&patient, 2..3)), Some(1));
}

#[test]
fn a_roster_head_that_is_not_of_this_chain_counts_for_nothing() {
    let mut patient = Patient::new(1);
    for seq in [RosterSeq(0), RosterSeq(9), RosterSeq(u64::MAX)] {
        let lie = RosterHead { space: patient.space(), seq, hash: Hash([9; 32]) };
        let hello = SpaceHello { roster: Some(lie), ..hello(&patient) };
        let mut found = snapshot(&patient, &hello, Vec::new());
        found.entries = patient.entries.clone();
        let (mut line, out) = Line::open(&patient.phone, hello, Some(found));
        assert_eq!(roster_sent(&out), Some(patient.entries.len()));
        patient.rotate(patient.roster.epoch(&STREAM).unwrap().epoch.0 + 1);
        let newest = patient.entries.len() - 1;
        assert_eq!(roster_sent(&line.roster_grew(&patient, newest..newest + 1)), Some(1));
    }
}

#[test]
fn whoever_becomes_a_member_meanwhile_comes_back_for_the_whole_chain() {
    let mut patient = Patient::new(1);
    let desk = Device::new(2);
    let lie = RosterHead { space: patient.space(), seq: RosterSeq(u64::MAX), hash: Hash([9; 32]) };
    for roster in [None, Some(lie)] {
        let hello = SpaceHello { roster, ..hello(&patient) };
        let found = snapshot(&patient, &SpaceHello { roster: None, ..hello.clone() }, Vec::new());
        let (mut line, out) = Line::open(&desk, hello, Some(found));
        assert_eq!(roster_sent(&out), None);
        let mut after = Patient::new(1);
        let draft = Draft::default().member(CLINIC, MemberKind::Clinic).device(CLINIC, &desk, &[]);
        after.sign(draft).unwrap();
        assert_eq!(
            bye(&line.roster_grew(&after, 1..2)),
            Some(Bye { reason: Refusal::Unavailable, retry_ms: 0 })
        );
    }
    patient.rotate(2);
}

#[test]
fn an_entry_on_an_older_head_is_told_what_both_have_in_common() {
    let mut patient = Patient::new(1);
    let mut other = Patient::new(1);
    patient.rotate(2);
    let mut line = live(&patient);
    other.sign(Draft::default().member(CLINIC, MemberKind::Clinic)).unwrap();
    let out = line.push_roster(&other, 1..2);
    let common = roster_of(&patient, 1).head();
    assert_eq!(
        refusals(&out),
        [(RefusedWhat::Entry(other.entries[1].entry.hash()), Refusal::HeadMoved(common))]
    );
}

#[test]
fn nobody_founds_a_space_at_a_server_that_takes_none() {
    let patient = Patient::new(1);
    let mut line = Line::with(&patient.phone, false);
    line.hello(&patient.phone, hello(&patient), None);
    assert_eq!(refusals(&line.push_roster(&patient, 0..1))[0].1, Refusal::Unregistered);
}

#[test]
fn a_stranger_adds_nothing_to_a_roster_even_if_it_is_well_signed() {
    let mut patient = Patient::new(1);
    let found = snapshot(&patient, &hello(&patient), Vec::new());
    let (mut line, _) = Line::open(&Device::new(2), hello(&patient), Some(found));
    patient.rotate(2);
    assert_eq!(refusals(&line.push_roster(&patient, 1..2))[0].1, Refusal::UnknownHead, "nor learns of it");
}

#[test]
fn a_frame_of_too_many_entries_is_malformed() {
    let patient = Patient::new(1);
    let entries = vec![patient.entries[0].clone(); wire::ROSTER_FRAME_ENTRIES_MAX + 1];
    let out = live(&patient).frame(FromDevice::PushRoster(PushRoster { space: patient.space(), entries }));
    assert_eq!(bye(&out).unwrap().reason, Refusal::Malformed);
}

// Envelopes.

fn envelope_refusal(out: &[Output]) -> (Seq, Refusal) {
    match refusals(out)[..] {
        [(RefusedWhat::Envelope { seq, .. }, reason)] => (seq, reason),
        _ => panic!("{out:?}"),
    }
}

#[test]
fn a_space_that_lost_its_roster_asks_for_it_once() {
    let patient = Patient::new(1);
    let (mut line, _) = Line::open(&patient.phone, hello(&patient), None);
    let chain = patient.phone.chain(&patient.roster, STREAM, 2);
    assert_eq!(refusals(&line.push(&chain[..1], false)), [(RefusedWhat::Space, Refusal::UnknownHead)]);
    assert!(line.push(&chain[1..], false).is_empty(), "said once");
    line.push_roster(&patient, 0..1);
    assert!(matches!(line.push(&chain, false)[..], [Output::Append { .. }]));
}

#[test]
fn a_space_that_was_not_named_in_hello_is_not_pushed_to() {
    let (patient, other) = (Patient::new(1), Patient::new(2));
    let mut line = live(&patient);
    let out = line.push(&patient.phone.chain(&other.roster, STREAM, 1), false);
    assert_eq!(refusals(&out), [(RefusedWhat::Space, Refusal::Role)]);
    let out = line.push_roster(&other, 0..1);
    assert_eq!(refusals(&out), [(RefusedWhat::Entry(other.entries[0].entry.hash()), Refusal::Role)]);
}

#[test]
fn what_is_no_envelope_of_the_stream_ends_the_connection() {
    let patient = Patient::new(1);
    let chain = patient.phone.chain(&patient.roster, STREAM, 1);
    let push = |space, stream, bytes: Vec<u8>| {
        let envelopes = vec![bytes.into()];
        live(&patient).frame(FromDevice::Push(Push { space, stream, envelopes, refill: false }))
    };
    let bytes = chain[0].as_bytes().to_vec();
    assert!(bye(&push(patient.space(), STREAM, bytes.clone())).is_none());
    assert!(bye(&push(patient.space(), OTHER, bytes.clone())).is_some(), "another stream");
    assert!(bye(&push(patient.space(), STREAM, bytes[1..].to_vec())).is_some(), "no envelope");
    let foreign = Patient::new(2);
    let theirs = patient.phone.chain(&foreign.roster, STREAM, 1)[0].as_bytes().to_vec();
    assert!(bye(&push(patient.space(), STREAM, theirs)).is_some(), "another space");
}

#[test]
fn a_device_pushes_its_own_and_others_only_to_refill() {
    let desk = Device::new(2);
    let patient = Patient::with_desk(1, &desk);
    let theirs = desk.chain(&patient.roster, STREAM, 1);
    assert_eq!(envelope_refusal(&live(&patient).push(&theirs, false)), (Seq(1), Refusal::Role));
    assert!(matches!(live(&patient).push(&theirs, true)[..], [Output::Append { refill: true, .. }]));
    let unknown = Device::new(3).chain(&patient.roster, STREAM, 1);
    assert_eq!(envelope_refusal(&live(&patient).push(&unknown, true)), (Seq(1), Refusal::UnknownHead));
}

#[test]
fn a_forged_signature_is_malformed() {
    let patient = Patient::new(1);
    let forged = Device::new(2).verified(&Device::new(2).header(&patient.roster, STREAM, 1, Hash::ZERO));
    let mut bytes = forged.as_bytes().to_vec();
    bytes[36..52].copy_from_slice(&patient.phone.id().0);
    let envelopes = vec![bytes.into()];
    let push = Push { space: patient.space(), stream: STREAM, envelopes, refill: false };
    let out = live(&patient).frame(FromDevice::Push(push));
    assert_eq!(envelope_refusal(&out), (Seq(1), Refusal::Malformed));
}

#[test]
fn one_refusal_ends_the_authors_run_until_it_comes_back_to_it() {
    let patient = Patient::new(1);
    let chain = patient.phone.chain(&patient.roster, STREAM, 6);
    let mut line = live(&patient);
    line.push(&chain[..2], false);
    line.push(&chain[2..4], false);
    let author = patient.phone.id();
    let acked = AckedEnvelope { hash: chain[0].hash(), position: Position(1) };
    let outcomes = vec![Appended::At(acked), Appended::Refused(author, Seq(2), Refusal::StaleEpoch)];
    let head = Some((LOG, head(STREAM, 1)));
    let out = line.input(Input::Committed { space: patient.space(), stream: STREAM, outcomes, head });
    assert_eq!(envelope_refusal(&out), (Seq(2), Refusal::StaleEpoch));
    assert!(
        out.iter()
            .any(|output| matches!(output, Output::Attest(Attest::Acked(acked, _)) if acked.len() == 1))
    );
    // What was on its way behind it says nothing more.
    let outcomes = (3..5).map(|seq| Appended::Refused(author, Seq(seq), Refusal::Gap(Seq(2)))).collect();
    let out = line.input(Input::Committed { space: patient.space(), stream: STREAM, outcomes, head });
    assert!(refusals(&out).is_empty());
    assert!(!line.push(&chain[4..], false).iter().any(|output| matches!(output, Output::Append { .. })));
    // From there on again: everything is looked at.
    let out = line.push(&chain[1..], false);
    assert!(matches!(&out[..], [Output::Append { envelopes, .. }] if envelopes.len() == 5), "{out:?}");
}

#[test]
fn a_refusal_that_comes_late_is_not_taken_for_one_of_what_was_sealed_since() {
    let mut patient = Patient::new(1);
    let stale = patient.phone.chain(&patient.roster, STREAM, 2);
    let mut line = live(&patient);
    line.push(&stale[..1], false);
    line.push(&stale[1..], false);
    let (author, space) = (patient.phone.id(), patient.space());
    let answer = |line: &mut Line, outcome| {
        line.input(Input::Committed { space, stream: STREAM, outcomes: vec![outcome], head: None })
    };
    let out = answer(&mut line, Appended::Refused(author, Seq(1), Refusal::StaleEpoch));
    assert_eq!(envelope_refusal(&out), (Seq(1), Refusal::StaleEpoch));
    patient.rotate(2);
    let resealed = patient.phone.chain(&patient.roster, STREAM, 2);
    assert!(matches!(line.push(&resealed, false)[..], [Output::Append { .. }]));
    // The second of the first run is judged only now.
    let out = answer(&mut line, Appended::Refused(author, Seq(2), Refusal::StaleEpoch));
    assert!(refusals(&out).is_empty(), "{out:?}");
    // What becomes of the second run is news.
    let at = Appended::At(AckedEnvelope { hash: resealed[0].hash(), position: Position(1) });
    let outcomes = vec![at, Appended::Refused(author, Seq(2), Refusal::StaleEpoch)];
    let out = line.input(Input::Committed { space: patient.space(), stream: STREAM, outcomes, head: None });
    assert_eq!(envelope_refusal(&out), (Seq(2), Refusal::StaleEpoch));
}

#[test]
fn nothing_is_remembered_of_streams_that_anybody_can_make_up() {
    let patient = Patient::new(1);
    let mut line = live(&patient);
    let remembered = |line: &Line| format!("{:?}", line.0).len();
    let before = remembered(&line);
    for n in 0..20 {
        let made_up = StreamId([n; 16]);
        let header = patient.phone.header(&patient.roster, made_up, 1, Hash::ZERO);
        let mut bytes = patient.phone.seal(&header).into_bytes();
        *bytes.last_mut().unwrap() ^= 1;
        let push =
            Push { space: patient.space(), stream: made_up, envelopes: vec![bytes.into()], refill: false };
        assert_eq!(envelope_refusal(&line.frame(FromDevice::Push(push))), (Seq(1), Refusal::Malformed));
    }
    assert_eq!(remembered(&line), before);
}

// What goes out.

#[test]
fn a_log_is_read_run_by_run_from_the_cursor_and_then_attested() {
    let patient = Patient::new(1);
    let hello = SpaceHello { cursors: vec![head(STREAM, 3)], ..agreed(&patient) };
    let found = snapshot(&patient, &hello, vec![head(STREAM, 9)]);
    let (mut line, out) = Line::open(&patient.phone, hello, Some(found));
    assert_eq!(reads(&out), [(STREAM, Position(3))]);
    let out = line.input(run(&patient, 4, 6));
    assert!(
        matches!(&out[..], [Output::Send(FromServer::Entries(run))] if run.first == Position(4)),
        "{out:?}"
    );
    assert_eq!(reads(&line.input(Input::Drained)), [(STREAM, Position(6))]);
    assert!(caught_up(&line.input(run(&patient, 7, 9))).is_none(), "not before it is written");
    let out = line.input(Input::Drained);
    assert_eq!(caught_up(&out).unwrap()[0].heads, [head(STREAM, 9)]);
    assert!(line.input(Input::Drained).is_empty(), "said once");
}

#[test]
fn a_device_is_told_that_it_is_caught_up_only_after_its_own_is_answered() {
    let patient = Patient::new(1);
    let hello = agreed(&patient);
    let found = snapshot(&patient, &hello, vec![head(STREAM, 1)]);
    let (mut line, _) = Line::open(&patient.phone, hello, Some(found));
    line.push(&patient.phone.chain(&patient.roster, STREAM, 1), false);
    line.input(run(&patient, 1, 1));
    assert!(caught_up(&line.input(Input::Drained)).is_none());
    let outcomes = vec![Appended::Refused(patient.phone.id(), Seq(1), Refusal::Unavailable)];
    let out = line.input(Input::Committed { space: patient.space(), stream: STREAM, outcomes, head: None });
    assert!(caught_up(&out).is_some());
}

#[test]
fn a_device_is_sent_no_stream_that_it_may_not_read_whatever_it_names() {
    let desk = Device::new(2);
    let mut patient = Patient::with_desk(1, &desk);
    let me = [patient.me()];
    patient.sign(Draft::default().open(OTHER, &me)).unwrap();
    // Where a log begins, anybody can tell.
    let chain = envelope::chain_start(&patient.space(), &OTHER);
    let start = Head { stream: OTHER, position: Position(0), chain };
    let hello = SpaceHello { cursors: vec![start], ..agreed(&patient) };
    let found = snapshot(&patient, &hello, vec![head(OTHER, 3)]);
    let (mut line, out) = Line::open(&desk, hello, Some(found));
    assert!(reads(&out).is_empty(), "{out:?}");
    let out = line.input(Input::Grew(patient.space(), LOG, vec![head(OTHER, 4)]));
    assert!(out.is_empty(), "{out:?}");
}

#[test]
fn a_stream_that_is_live_goes_before_those_that_catch_up() {
    let mut patient = Patient::new(1);
    let me = [patient.me()];
    let (third, fourth) = (StreamId([0xa3; 16]), StreamId([0xa4; 16]));
    patient.sign(Draft::default().open(OTHER, &me).open(third, &me).open(fourth, &me)).unwrap();
    let hello = SpaceHello { cursors: vec![head(fourth, 5)], ..agreed(&patient) };
    let heads = vec![head(STREAM, 9), head(OTHER, 9), head(third, 9), head(fourth, 5)];
    let (mut line, out) = Line::open(&patient.phone, hello.clone(), Some(snapshot(&patient, &hello, heads)));
    assert_eq!(reads(&out), [(STREAM, Position(0))]);
    line.input(Input::Grew(patient.space(), LOG, vec![head(fourth, 6)]));
    line.input(run(&patient, 1, 3));
    assert_eq!(reads(&line.input(Input::Drained)), [(fourth, Position(5))]);
}

#[test]
fn growth_while_a_run_is_read_is_not_lost() {
    let patient = Patient::new(1);
    let mut line = live(&patient);
    let out = line.input(Input::Grew(patient.space(), LOG, vec![head(STREAM, 1)]));
    assert_eq!(reads(&out), [(STREAM, Position(0))]);
    // The read began before the second was there, and before the first, it seems.
    line.input(Input::Grew(patient.space(), LOG, vec![head(STREAM, 2)]));
    let nothing = Run {
        space: patient.space(),
        log_id: LOG,
        first: Position(1),
        items: Vec::new(),
        end: head(STREAM, 0),
    };
    let out = line.input(Input::Run(nothing.clone()));
    assert_eq!(reads(&out), [(STREAM, Position(0))]);
    // Nothing grew meanwhile: it is believed, and not asked for ever.
    assert!(reads(&line.input(Input::Run(nothing))).is_empty());
}

#[test]
fn growth_of_an_ended_log_or_an_unread_stream_is_nothing_to_the_device() {
    let patient = Patient::new(1);
    let mut line = live(&patient);
    assert!(line.input(Input::Grew(patient.space(), LogId([9; 16]), vec![head(STREAM, 1)])).is_empty());
    assert!(line.input(Input::Grew(patient.space(), LOG, vec![head(OTHER, 1)])).is_empty());
    assert!(line.input(Input::Grew(SpaceId([9; 16]), LOG, vec![head(STREAM, 1)])).is_empty());
    let seen = Seen { space: patient.space(), log_id: LOG, cursors: vec![(STREAM, Position(u64::MAX))] };
    assert!(line.frame(FromDevice::Seen(seen)).is_empty());
}

#[test]
fn thousands_of_spaces_are_attested_in_frames_that_fit() {
    let desk = Device::new(2);
    let patients: Vec<_> = (0..30).map(|n| Patient::with_desk(n + 10, &desk)).collect();
    let spaces: Vec<_> = patients.iter().map(agreed).collect();
    let mut line = Line::new(&desk);
    line.frame(FromDevice::Hello(Hello {
        version: wire::VERSION,
        device: desk.id(),
        pins_version: 1,
        spaces,
    }));
    let mut out = Vec::new();
    for patient in &patients {
        let found = snapshot(patient, &agreed(patient), vec![head(STREAM, 1)]);
        out = line.input(Input::Opened(patient.space(), Some(found)));
    }
    let mut frames = Vec::new();
    while frames.is_empty() {
        let space = out.iter().find_map(|output| match output {
            Output::Read { space, .. } => Some(*space),
            _ => None,
        });
        let patient = patients.iter().find(|patient| Some(patient.space()) == space).unwrap();
        line.input(run(patient, 1, 1));
        out = line.input(Input::Drained);
        frames.extend(out.iter().filter_map(|output| match output {
            Output::Attest(Attest::CaughtUp(heads)) => Some(heads.len()),
            _ => None,
        }));
    }
    assert_eq!(frames.iter().sum::<usize>(), patients.len());
    assert!(frames.iter().all(|spaces| *spaces <= wire::CAUGHT_UP_SPACES_MAX));
}

// A server that lost data.

fn signed(space: SpaceId, log_id: LogId, key: &Key) -> SignedHeads {
    let heads = Heads { space, log_id, heads: vec![head(STREAM, 9)] };
    SignedHeads::sign(&heads, |message| key.sign(message))
}

fn birth(space: SpaceId, old: LogId, new: LogId) -> SignedLogBorn {
    let born = LogBorn { space, old, new, evidence: Vec::new(), common: Vec::new() };
    SignedLogBorn::sign(&born, |message| heads_key().sign(message))
}

/// A device that is further than the server's log.
fn ahead(patient: &Patient) -> (Line, Vec<Output>) {
    let hello = SpaceHello { cursors: vec![head(STREAM, 9)], ..agreed(patient) };
    let mut found = snapshot(patient, &hello, vec![head(STREAM, 4)]);
    found.at_cursors = vec![(STREAM, None)];
    Line::open(&patient.phone, hello, Some(found))
}

#[test]
fn a_server_that_is_behind_asks_for_evidence_and_nothing_else_happens_meanwhile() {
    let patient = Patient::new(1);
    let (mut line, out) = ahead(&patient);
    let [Output::Send(FromServer::Welcome(_)), Output::Send(FromServer::NeedEvidence(need))] = &out[..]
    else {
        panic!("{out:?}")
    };
    assert_eq!(need.samples, [head(STREAM, 4)]);
    let space = patient.space();
    let heads = vec![signed(space, LOG, &heads_key()), signed(space, LOG, &Key::new(9, 9))];
    let evidence = Evidence { space, heads, common: vec![(STREAM, Position(4)), (STREAM, Position(3))] };
    let out = line.frame(FromDevice::Evidence(evidence));
    // Least of all is the device told that it is caught up.
    let [Output::Bear { old: LOG, evidence, common, .. }] = &out[..] else { panic!("{out:?}") };
    assert_eq!((evidence.len(), &common[..]), (1, &[head(STREAM, 4)][..]), "signed here, and shown before");
    let out = line.input(Input::Born(space, Some(birth(space, LOG, LogId([2; 16])))));
    assert!(matches!(out[0], Output::Send(FromServer::LogBorn(_))));
    assert_eq!(bye(&out), Some(Bye { reason: Refusal::Unavailable, retry_ms: 0 }));
}

#[test]
fn who_showed_evidence_is_answered_though_the_new_log_took_a_roster_of_his_meanwhile() {
    let patient = Patient::new(1);
    let (space, new) = (patient.space(), LogId([2; 16]));
    let (mut line, _) = ahead(&patient);
    let heads = vec![signed(space, LOG, &heads_key())];
    line.frame(FromDevice::Evidence(Evidence { space, heads, common: Vec::new() }));
    let state = Some((new, Arc::new(patient.roster.clone())));
    line.input(Input::RosterCommitted { space, state, refused: None });
    let out = line.input(Input::Born(space, Some(birth(space, LOG, new))));
    assert!(matches!(out[0], Output::Send(FromServer::LogBorn(_))), "{out:?}");
    assert_eq!(bye(&out), Some(Bye { reason: Refusal::Unavailable, retry_ms: 0 }));
}

#[test]
fn evidence_counts_if_this_server_signed_it_for_this_log_and_space() {
    let patient = Patient::new(1);
    let space = patient.space();
    let answer = |heads| {
        let mut line = ahead(&patient).0;
        line.frame(FromDevice::Evidence(Evidence { space, heads, common: Vec::new() }))
    };
    let is_refused = |out: &[Output]| bye(out).is_some_and(|bye| bye.reason == Refusal::Malformed);
    assert!(!is_refused(&answer(vec![signed(space, LOG, &heads_key())])));
    assert!(is_refused(&answer(Vec::new())));
    assert!(is_refused(&answer(vec![signed(space, LOG, &Key::new(9, 9))])), "another key");
    assert!(is_refused(&answer(vec![signed(space, LogId([9; 16]), &heads_key())])), "another log");
    assert!(is_refused(&answer(vec![signed(SpaceId([9; 16]), LOG, &heads_key())])), "another space");
    let unasked = Evidence { space, heads: vec![signed(space, LOG, &heads_key())], common: Vec::new() };
    assert!(is_refused(&live(&patient).frame(FromDevice::Evidence(unasked))), "nobody asked");
}

#[test]
fn a_device_of_an_ended_log_is_told_of_every_birth_since() {
    let patient = Patient::new(1);
    let birth = |old: u8, new: u8| birth(patient.space(), LogId([old; 16]), LogId([new; 16]));
    let hello = SpaceHello { log_id: LogId([8; 16]), ..agreed(&patient) };
    let mut found = snapshot(&patient, &hello, Vec::new());
    found.births = vec![birth(7, 8), birth(8, 9), birth(9, 1)];
    let (_, out) = Line::open(&patient.phone, hello.clone(), Some(found.clone()));
    let told: Vec<_> = out
        .iter()
        .filter_map(|output| match output {
            Output::Send(FromServer::LogBorn(born)) => Some(born.content().unwrap().old),
            _ => None,
        })
        .collect();
    assert_eq!(told, [LogId([8; 16]), LogId([9; 16])]);
    assert_eq!(bye(&out).unwrap().retry_ms, 0);
    // Of a log that nobody remembers, the device shows what it has.
    found.births.clear();
    let (_, out) = Line::open(&patient.phone, hello, Some(found));
    assert!(matches!(
        out[..],
        [Output::Send(FromServer::Welcome(_)), Output::Send(FromServer::NeedEvidence(_))]
    ));
}

#[test]
fn a_desk_hears_in_one_connection_of_all_that_began_anew() {
    let patients = [Patient::new(1), Patient::new(2)];
    let ended = LogId([8; 16]);
    let spaces = patients.iter().map(|patient| SpaceHello { log_id: ended, ..agreed(patient) }).collect();
    let desk = Device::new(3);
    let mut line = Line::new(&desk);
    let hello = Hello { version: wire::VERSION, device: desk.id(), pins_version: 0, spaces };
    let mut out = line.frame(FromDevice::Hello(hello));
    for patient in &patients {
        let mut found = snapshot(patient, &agreed(patient), Vec::new());
        found.births = vec![birth(patient.space(), ended, LOG)];
        out = line.input(Input::Opened(patient.space(), Some(found)));
    }
    let is_birth = |output: &&Output| matches!(output, Output::Send(FromServer::LogBorn(_)));
    assert_eq!(out.iter().filter(is_birth).count(), 2, "{out:?}");
    assert_eq!(bye(&out), Some(Bye { reason: Refusal::Unavailable, retry_ms: 0 }));
}
