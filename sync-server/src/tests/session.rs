//! What a session must not tell strangers, and what nobody makes it do.

use std::sync::Arc;

use ebb_protocol::{
    id::{Hash, LogId, Millis, Position},
    roster::Roster,
    session::{Config, Input, Output, Session, Snapshot},
    verify::Verified,
    wire::{
        self, Evidence, FromDevice, FromServer, Head, Heads, Hello, Pins, Push, PushRoster, Refusal, Refused,
        SignedHeads, SignedPins, SpaceHello,
    },
};

use crate::{
    commit::Means,
    signing::SigningKey,
    testing::{Device, OTHER_STREAM, Patient, STREAM, TestMeans, head_after},
};

const LOG: LogId = LogId([1; 16]);

fn session(device: &Device) -> Session {
    let key = TestMeans::new().key.public();
    let pins = Pins { version: 1, root: key, tls: Vec::new(), heads: vec![key] };
    let pins = SignedPins::sign(&pins, |message| TestMeans::new().key.sign(message));
    let config = Config { open_registration: true, pins, heads_keys: vec![key], back_off_ms: 1 };
    Session::new(Millis(0), Arc::new(config), device.tls.public(), [5; 32])
}

/// A session in which a device said Hello and found this.
fn open(device: &Device, hello: SpaceHello, found: Option<Snapshot>) -> (Session, Vec<Output>) {
    let mut session = session(device);
    let space = hello.space;
    let hello = Hello { version: wire::VERSION, device: device.id(), pins_version: 0, spaces: vec![hello] };
    session.handle(Millis(0), Input::Frame(FromDevice::Hello(hello)));
    let out = session.handle(Millis(0), Input::Opened(space, found));
    (session, out)
}

fn snapshot(patient: &Patient, hello: &SpaceHello) -> Snapshot {
    let head = |stream| Head { stream, position: Position(4), chain: Hash([4; 32]) };
    let heads: Vec<_> = patient.roster.streams().map(head).collect();
    Snapshot {
        log_id: LOG,
        roster: Arc::new(patient.roster.clone()),
        entries: patient.entries.clone(),
        at_cursors: hello.cursors.iter().map(|cursor| (cursor.stream, None)).collect(),
        samples: heads.clone(),
        heads,
        own_heads: Vec::new(),
        births: Vec::new(),
    }
}

fn push(patient: &Patient, envelopes: &[Verified<ebb_protocol::envelope::Envelope>]) -> FromDevice {
    let envelopes = envelopes.iter().map(|envelope| envelope.as_bytes().to_vec().into()).collect();
    FromDevice::Push(Push { space: patient.space, stream: STREAM, envelopes, refill: false })
}

#[test]
fn a_stranger_cannot_tell_whether_a_space_exists() {
    let mut patient = Patient::new(1);
    let stranger = Device::new(2);
    let envelopes = patient.write_many(1);
    let cursors = vec![Head { stream: STREAM, position: Position(9), chain: Hash([9; 32]) }];
    let before = patient.clone();
    patient.rotate();
    let entries = |range: std::ops::Range<usize>| PushRoster {
        space: patient.space,
        entries: patient.entries[range].to_vec(),
    };
    let nonsense = {
        let mut other = Patient::new(1);
        other.space = patient.space;
        other.open(OTHER_STREAM);
        PushRoster { space: patient.space, entries: other.entries[1..].to_vec() }
    };
    for log_id in [LogId::ZERO, LogId([7; 16])] {
        for cursors in [Vec::new(), cursors.clone()] {
            let hello = SpaceHello { log_id, cursors, ..patient.hello() };
            let (mut there, welcomed) = open(&stranger, hello.clone(), Some(snapshot(&before, &hello)));
            let (mut nowhere, nothing) = open(&stranger, hello, None);
            let same = |there: Vec<Output>, nowhere: Vec<Output>| {
                assert_eq!(format!("{there:?}"), format!("{nowhere:?}"));
            };
            same(welcomed, nothing);
            // Somebody else adds to the roster, writes, and has a new log born; at the other, nothing happens.
            let roster = Arc::new(patient.roster.clone());
            let grew = Input::RosterGrew {
                space: patient.space,
                log_id: LOG,
                roster,
                entries: patient.entries[1..].to_vec(),
            };
            let frames = || {
                [
                    push(&patient, &envelopes),
                    FromDevice::PushRoster(entries(0..1)),
                    FromDevice::PushRoster(entries(1..2)),
                    FromDevice::PushRoster(nonsense.clone()),
                    push(&patient, &envelopes),
                ]
            };
            for (frame, other) in frames().into_iter().zip(frames()) {
                let frame = there.handle(Millis(1), Input::Frame(frame));
                same(frame, nowhere.handle(Millis(1), Input::Frame(other)));
            }
            same(there.handle(Millis(1), grew), Vec::new());
            let frame = there.handle(Millis(1), Input::Frame(push(&patient, &envelopes)));
            same(frame, nowhere.handle(Millis(1), Input::Frame(push(&patient, &envelopes))));
            let born = wire::LogBorn {
                space: patient.space,
                old: LOG,
                new: LogId([3; 16]),
                evidence: Vec::new(),
                common: Vec::new(),
            };
            let born = TestMeans::new().sign_born(&born);
            same(there.handle(Millis(1), Input::Born(patient.space, Some(born))), Vec::new());
        }
    }
    // Where only a log was born again and the roster is still missing, he learns no more.
    let hello = patient.hello();
    let bare = Snapshot {
        roster: Arc::new(Roster::new(patient.space)),
        entries: Vec::new(),
        heads: Vec::new(),
        ..snapshot(&patient, &hello)
    };
    let (_, there) = open(&stranger, hello.clone(), Some(bare));
    assert_eq!(format!("{there:?}"), format!("{:?}", open(&stranger, hello, None).1));
}

#[test]
fn who_came_back_to_a_new_log_already_is_not_sent_away_again() {
    let patient = Patient::new(1);
    let hello = SpaceHello { log_id: LOG, ..patient.hello() };
    let born = |old, new| {
        let born = wire::LogBorn { space: patient.space, old, new, evidence: Vec::new(), common: Vec::new() };
        Input::Born(patient.space, Some(TestMeans::new().sign_born(&born)))
    };
    let (mut session, _) = open(&patient.device, hello.clone(), Some(snapshot(&patient, &hello)));
    assert!(session.handle(Millis(1), born(LogId([9; 16]), LOG)).is_empty());
    let out = session.handle(Millis(1), born(LOG, LogId([2; 16])));
    assert!(matches!(out[..], [Output::Send(FromServer::LogBorn(_)), Output::Send(_), Output::Close]));
}

#[test]
fn samples_are_shown_of_streams_that_the_device_may_read() {
    let mut patient = Patient::new(1);
    let desk = Device::new(2);
    patient.admit(&desk);
    patient.open(OTHER_STREAM);
    let hello = SpaceHello {
        log_id: LOG,
        cursors: vec![Head { stream: STREAM, position: Position(9), chain: Hash([9; 32]) }],
        ..patient.hello()
    };
    let shown = |device: &Device| {
        let (_, out) = open(device, hello.clone(), Some(snapshot(&patient, &hello)));
        let samples = out.into_iter().find_map(|output| match output {
            Output::Send(FromServer::NeedEvidence(need)) => Some(need.samples),
            _ => None,
        });
        samples.expect("asked").iter().map(|head| head.stream).collect::<Vec<_>>()
    };
    assert_eq!(shown(&patient.device), [STREAM, OTHER_STREAM]);
    assert_eq!(shown(&desk), [STREAM]);
}

#[test]
fn one_frame_of_evidence_costs_a_bounded_number_of_checks() {
    let patient = Patient::new(1);
    let hello = SpaceHello { log_id: LogId([7; 16]), ..patient.hello() };
    let key: SigningKey = TestMeans::new().key;
    let signed = |position: u64| {
        let head = Head { position: Position(position), ..head_after(patient.space, STREAM, &[]) };
        let heads = Heads { space: patient.space, log_id: LogId([7; 16]), heads: vec![head] };
        SignedHeads::sign(&heads, |message| key.sign(message))
    };
    let considered = |heads| {
        let (mut session, _) = open(&patient.device, hello.clone(), Some(snapshot(&patient, &hello)));
        let evidence = Evidence { space: patient.space, heads, common: Vec::new() };
        let out = session.handle(Millis(1), Input::Frame(FromDevice::Evidence(evidence)));
        let Some(Output::Bear { evidence, .. }) = out.first() else { panic!("{out:?}") };
        evidence.len()
    };
    assert_eq!(considered((0..1_000).map(signed).collect()), 64);
    assert_eq!(considered(vec![signed(1); 1_000]), 1);
}

#[test]
fn a_connection_founds_a_few_spaces_at_once_and_then_a_few_a_minute() {
    let first = Patient::new(0);
    let patients: Vec<_> = (0..6).map(|nonce| Patient::of(first.device.clone(), [nonce; 16])).collect();
    let mut session = session(&first.device);
    let spaces = patients.iter().map(Patient::hello).collect();
    let hello = Hello { version: wire::VERSION, device: first.device.id(), pins_version: 0, spaces };
    session.handle(Millis(0), Input::Frame(FromDevice::Hello(hello)));
    for patient in &patients {
        session.handle(Millis(0), Input::Opened(patient.space, None));
    }
    let mut found = |patient: &Patient, at: u64| {
        let push = PushRoster { space: patient.space, entries: patient.entries.clone() };
        let out = session.handle(Millis(at), Input::Frame(FromDevice::PushRoster(push)));
        match &out[..] {
            [Output::AppendRoster(..)] => Ok(()),
            [Output::Send(FromServer::Refused(Refused { reason, .. }))] => Err(*reason),
            _ => panic!("{out:?}"),
        }
    };
    for (patient, at) in patients[..4].iter().zip([0, 0, 10_000, 10_000]) {
        assert_eq!(found(patient, at), Ok(()));
    }
    assert_eq!(found(&patients[4], 20_000), Err(Refusal::Quota(40_000)));
    assert_eq!(found(&patients[4], 60_000), Ok(()));
    assert_eq!(found(&patients[5], 60_000), Ok(()));
}
