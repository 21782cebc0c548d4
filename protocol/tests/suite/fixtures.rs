//! Bytes of version 1, kept for ever: today's code reads them as what they were and writes them so.
//!
//! They lie in `tests/fixtures/v1`. `EBB_WRITE_FIXTURES=1` writes those that are missing, and no other.

use std::{fmt::Debug, fs, path::PathBuf};

use ebb_protocol::{
    envelope::Envelope,
    id::{DeviceId, Epoch, Hash, LogId, Millis, Position, RosterSeq, Seq, StreamId},
    roster::{Access, EntryWithWraps, MemberKind, Operation, Roster, SealedNote},
    verify,
    wire::{
        self, Acked, AckedEnvelope, Bye, Entries, Evidence, FromDevice, FromServer, Head, Heads, Hello, Item,
        ItemContent, LogBorn, NeedEvidence, Pins, Push, PushRoster, Refusal, Refused, RefusedWhat,
        RosterFrame, RosterHead, Seen, SignedHeads, SignedLogBorn, SignedPins, SpaceHello, SpaceWelcome,
        Welcome,
    },
};
use serde::{Serialize, de::DeserializeOwned};

use crate::kit::{CLINIC, Device, Draft, Key, OTHER, Patient, STREAM};

const LOG: LogId = LogId([0x11; 16]);

fn patient() -> Patient {
    Patient::with_desk(1, &Device::new(2))
}

/// One operation of each kind, in order of their tags.
pub(crate) fn operations() -> Vec<Operation> {
    let (phone, other) = (Device::new(1), Device::new(3));
    let me = ebb_protocol::roster::Recipient::Device(phone.id());
    let draft = Draft::default().found(&phone).open(STREAM, &[me]).member(CLINIC, MemberKind::Clinic);
    let owner = patient().roster.owner();
    let draft = draft.device(owner, &other, &[(STREAM, 1)]).grant(STREAM, CLINIC, Access::Read, &[1]);
    draft.rotate(STREAM, 2, &[me]).operations
}

fn heads_key() -> Key {
    Key::new(9, 9)
}

fn head() -> Head {
    Head { stream: STREAM, position: Position(300), chain: Hash([0x22; 32]) }
}

fn signed_heads() -> SignedHeads {
    let heads = Heads { space: patient().space(), log_id: LOG, heads: vec![head()] };
    SignedHeads::sign(&heads, |message| heads_key().sign(message))
}

fn roster_head() -> RosterHead {
    patient().roster.head().unwrap()
}

/// One frame of each kind that a device sends, in order of their tags.
pub(crate) fn from_device() -> Vec<(&'static str, FromDevice)> {
    let patient = patient();
    let space = patient.space();
    let hello = SpaceHello {
        space,
        log_id: LOG,
        roster: Some(roster_head()),
        cursors: vec![head()],
        own_in_full: true,
    };
    let device = patient.phone.id();
    let hello = Hello { version: wire::VERSION, device, pins_version: 3, spaces: vec![hello] };
    let envelopes = patient.phone.chain(&patient.roster, STREAM, 2);
    let envelopes = envelopes.iter().map(|envelope| envelope.as_bytes().to_vec().into()).collect();
    let evidence = Evidence { space, heads: vec![signed_heads()], common: vec![(STREAM, Position(128))] };
    let seen = Seen { space, log_id: LOG, cursors: vec![(STREAM, Position(300)), (OTHER, Position(0))] };
    vec![
        ("from-device-0-hello", FromDevice::Hello(hello)),
        ("from-device-1-push-roster", FromDevice::PushRoster(PushRoster { space, entries: patient.entries })),
        ("from-device-2-push", FromDevice::Push(Push { space, stream: STREAM, envelopes, refill: false })),
        ("from-device-3-seen", FromDevice::Seen(seen)),
        ("from-device-4-evidence", FromDevice::Evidence(evidence)),
        ("from-device-5-ping", FromDevice::Ping(70_000)),
    ]
}

/// One frame of each kind that a server sends, in order of their tags.
pub(crate) fn from_server() -> Vec<(&'static str, FromServer)> {
    let patient = patient();
    let space = patient.space();
    let chain = patient.phone.chain(&patient.roster, STREAM, 2);
    let root = Key::new(8, 8);
    let pins = Pins {
        version: 4,
        root: root.public(),
        tls: vec![Key::new(7, 7).public()],
        heads: vec![heads_key().public()],
    };
    let welcome = Welcome {
        version: wire::VERSION,
        exporter: [0x33; 32],
        server_ms: Millis(1_700_000_000_000),
        pins: Some(SignedPins::sign(&pins, |message| root.sign(message))),
        spaces: vec![SpaceWelcome {
            space,
            log_id: LOG,
            roster: Some(roster_head()),
            own_heads: vec![(STREAM, Seq(2), chain[1].hash())],
        }],
        back_off_ms: 2_000,
    };
    let envelopes = vec![AckedEnvelope { hash: chain[0].hash(), position: Position(299) }];
    let what = RefusedWhat::Envelope { stream: STREAM, author: patient.phone.id(), seq: Seq(2) };
    let refused = Refused { space, what, reason: Refusal::HeadMoved(Some(roster_head())) };
    let item = |content| Item { received_ms: Millis(1_700_000_000_001), content };
    let entries = Entries {
        space,
        stream: STREAM,
        log_id: LOG,
        first: Position(299),
        items: vec![
            item(ItemContent::Envelope(chain[0].as_bytes().to_vec().into())),
            item(ItemContent::Own(chain[1].hash())),
        ],
    };
    let born = LogBorn {
        space,
        old: LOG,
        new: LogId([0x44; 16]),
        evidence: vec![signed_heads()],
        common: vec![head()],
    };
    let born = SignedLogBorn::sign(&born, |message| heads_key().sign(message));
    vec![
        ("from-server-0-welcome", FromServer::Welcome(welcome)),
        ("from-server-1-roster", FromServer::Roster(RosterFrame { space, entries: patient.entries })),
        ("from-server-2-roster-acked", FromServer::RosterAcked(roster_head())),
        ("from-server-3-acked", FromServer::Acked(Acked { envelopes, head: signed_heads() })),
        ("from-server-4-refused", FromServer::Refused(refused)),
        ("from-server-5-entries", FromServer::Entries(entries)),
        ("from-server-6-caught-up", FromServer::CaughtUp(vec![signed_heads()])),
        (
            "from-server-7-need-evidence",
            FromServer::NeedEvidence(NeedEvidence { space, samples: vec![head()] }),
        ),
        ("from-server-8-log-born", FromServer::LogBorn(born)),
        ("from-server-9-pong", FromServer::Pong(70_000)),
        ("from-server-10-bye", FromServer::Bye(Bye { reason: Refusal::Unavailable, retry_ms: 5_000 })),
    ]
}

/// An entry with one operation of each kind: not one that a roster would take.
fn entry() -> EntryWithWraps {
    let patient = patient();
    let mut entry = patient.entry(&Draft::default());
    entry.operations = operations();
    entry.sealed = vec![SealedNote { stream: STREAM, epoch: Epoch(1), bytes: vec![0x55; 40] }];
    patient.phone.sign(&entry, patient.entries[0].wraps.clone())
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/v1").join(format!("{name}.bin"))
}

/// The stored bytes, written first if they are missing and that was asked for.
#[allow(clippy::disallowed_methods, reason = "a test that asks whether it may write")]
fn stored(name: &str, fresh: &[u8]) -> Vec<u8> {
    let path = path(name);
    if !path.exists() && std::env::var_os("EBB_WRITE_FIXTURES").is_some_and(|set| set == "1") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, fresh).unwrap();
    }
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn meets_frame<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, frame: &T) {
    let bytes = stored(name, &wire::encode_frame(frame));
    let (prefix, body) = bytes.split_first_chunk::<4>().unwrap();
    assert_eq!(wire::frame_len(*prefix), Ok(body.len()), "{name}");
    assert_eq!(wire::decode::<T>(body).as_ref(), Ok(frame), "{name} is read as it was");
    assert_eq!(wire::encode_frame(frame), bytes, "{name} is written as it was");
}

#[test]
fn frames_of_version_1_are_read_and_written_as_ever() {
    from_device().iter().for_each(|(name, frame)| meets_frame(name, frame));
    from_server().iter().for_each(|(name, frame)| meets_frame(name, frame));
}

#[test]
fn an_envelope_of_version_1_is_read_and_written_as_ever() {
    let patient = patient();
    let mut header = patient.phone.header(&patient.roster, STREAM, 2, Hash([0x66; 32]));
    header.log_id = LOG;
    header.seen_pos = Position(300);
    header.seen_hash = Hash([0x22; 32]);
    let fresh = patient.phone.seal(&header);
    let bytes = stored("envelope", fresh.as_bytes());
    let envelope = Envelope::parse(bytes).unwrap();
    assert_eq!(envelope.header(), &header);
    assert_eq!(envelope, fresh);
    assert!(verify::check(envelope, &patient.phone.keys.sig).is_ok());
}

#[test]
fn roster_entries_of_version_1_are_read_and_written_as_ever() {
    let fresh = entry();
    let bytes = stored("roster-entry-of-every-operation", &wire::encode(&fresh));
    let read: EntryWithWraps = wire::decode(&bytes).unwrap();
    assert_eq!(read, fresh);
    assert_eq!(read.entry.entry(), fresh.entry.entry());
    assert_eq!(wire::encode(&read), bytes);

    let patient = patient();
    let bytes = stored("roster-chain", &wire::encode(&patient.entries));
    let chain: Vec<EntryWithWraps> = wire::decode(&bytes).unwrap();
    assert_eq!(wire::encode(&chain), bytes);
    let mut roster = Roster::new(patient.space());
    for entry in chain {
        let verified = roster.verify(entry).unwrap();
        roster.apply(&verified);
    }
    assert_eq!(roster, patient.roster);
    assert_eq!(roster.head().unwrap().seq, RosterSeq(1));
}

#[test]
fn what_is_derived_by_hashing_stays_the_same() {
    let device = Device::new(1);
    let derived = [
        device.id().0,
        patient().space().0,
        verify::owner_of(&patient().space()).0,
        verify::actor_id(&DeviceId([1; 16]), &StreamId([2; 16])),
    ]
    .concat();
    assert_eq!(stored("derived-ids", &derived), derived);
}
