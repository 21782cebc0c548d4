//! Every byte format that a device or a server keeps, as version 1 wrote it, read by today's code.
//!
//! The files under `fixtures/v1/core` are kept for ever. `EBB_WRITE_FIXTURES=1` writes those that are
//! missing and never touches one that is there. What this test expects of them is written out below, and
//! like them is never edited: a new format gets a folder and expectations of its own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ebb_core::{
    Card, Category, Config, Delivery, Entry, Query, Record, RecordId, Start, Ticket,
    document::{Document, gate},
    keys::{self, DeviceSecrets, Entropy, EpochKey, KemSecret, WrapContext},
    link::ServerAddress,
    record::{
        Attendance, Band, BandInstrument, Body, CheckIn, Moment, Phase, ScreenResult, Specimen, Stamp, Unit,
        Value, Writer,
    },
    seal::{self, Payload, RecordChanges},
};
use ebb_protocol::{
    envelope::{Envelope, Header, Kind},
    id::{Epoch, Hash, LogId, Position, RosterSeq, Seq, SpaceId, StreamId},
    roster::Recipient,
    verify,
    wire::{Pins, SignedPins},
};
use ebb_sync_server::log::{
    Reader,
    sqlite::{Options, SqliteLog},
};
use ebb_tests::ward::{TestDevice, TestServer, assert_no_errors, show_logs};

#[path = "compat/constructors.rs"]
mod constructors;
#[path = "compat/kinds.rs"]
mod kinds;
#[path = "compat/parked.rs"]
mod parked;

const NODE: &str = env!("CARGO_BIN_EXE_ebb-tests-node");
const SPACE: SpaceId = SpaceId([1; 16]);
const STREAM: StreamId = StreamId([2; 16]);
const AT: Moment = Moment { millis: 1_700_000_000_000, offset_minutes: -300 };
const RECORDED: Moment = Moment { millis: 1_700_000_060_000, offset_minutes: -300 };
const RECORD: [u8; 16] = [4; 16];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1/core")
}

/// A fixture's bytes; made now if it is missing and the environment asks for it.
fn fixture(name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = fixtures().join(name);
    if !path.exists() && std::env::var_os("EBB_WRITE_FIXTURES").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("makes");
        fs::write(&path, make()).expect("writes");
    }
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Counts up: the same bytes every time.
struct Counting(u8);

impl Entropy for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        }
    }
}

fn stamp() -> Stamp {
    Stamp { recorded: RECORDED, author: [3; 16], staff: Some("nurse 7".into()) }
}

/// One entry of each kind, every field in use. Never edited.
fn entries() -> Vec<(&'static str, Entry)> {
    let check_in = CheckIn { mood: Some(4), craving: Some(7), sleep_hours: Some(6.5), ..CheckIn::default() };
    let entries = vec![
        ("dose", Entry::dose("buprenorphine/naloxone", 8.25, Unit::Film)),
        ("dose-not-taken", Entry::dose_not_taken("methadone", 60.0, Unit::Mg, Some("ran out"))),
        ("withdrawal-answers", Entry::answers_to("sows16", "1987", [("anxious", 3), ("yawning", 0)])),
        (
            "withdrawal-band",
            Entry::withdrawal_band(BandInstrument::Sows16, Band::Severe, Phase::BeforeFirstDose),
        ),
        ("drug-screen", Entry::drug_screen(Specimen::OralFluid, "fentanyl", ScreenResult::Invalid)),
        ("use-event", Entry::use_event("heroin")),
        ("visit", Entry::visit("group", "week 3", Attendance::Missed { reason: Some("bus strike".into()) })),
        ("check-in", Entry::check_in(check_in)),
        ("note", Entry::private_note("for me alone: \u{1f426}")),
    ];
    entries.into_iter().map(|(name, entry)| (name, entry.at(AT))).collect()
}

#[test]
fn values_of_every_kind_are_read() {
    for (name, entry) in entries() {
        let bytes = fixture(&format!("value-{name}.cbor"), || Value::new(&entry, &stamp()).encode());
        let value = Value::decode(&bytes).expect(name);
        assert!(value.body == entry.body, "{name}");
        assert_eq!((value.occurred, value.recorded_at), (AT, RECORDED.millis), "{name}");
        assert_eq!((value.author, value.staff.as_deref()), ([3; 16], Some("nurse 7")), "{name}");
        assert_eq!(value.source, entry.source, "{name}");
        assert!(!value.from_newer_version(), "{name}");
        // The kind of answers has another name since; what is read stays the same.
        let renamed = name == "withdrawal-answers";
        assert_eq!(Value::new(&entry, &stamp()).encode() == bytes, !renamed, "{name}: written as it was");
    }
}

/// A value as a newer version might write it: the last byte string of the header is the body's map.
fn newer(bytes: &[u8], kind: &[u8; 10]) -> Vec<u8> {
    let field = |name: &[u8], bytes: &[u8]| {
        let place = bytes.windows(name.len()).position(|window| window == name);
        place.expect("the field is there") + name.len()
    };
    let mut newer = bytes.to_vec();
    let at = field(b"\x64kind", &newer);
    newer.splice(at..at + 10, kind.iter().copied());
    // One more field in the body, and one in the header behind it.
    let body = field(b"\x64body", &newer);
    newer[body] += 1;
    newer.extend(b"\x66future\x83\x01\x02\x03");
    newer[0] += 1;
    newer.extend(b"\x66beyond\x65later");
    newer
}

#[test]
fn what_a_newer_version_wrote_is_kept_through_an_edit() {
    let use_event = || Value::new(&Entry::use_event("heroin").at(AT), &stamp()).encode();
    let fields = fixture("value-newer-fields.cbor", || newer(&use_event(), b"\x69use_event"));
    let value = Value::decode(&fields).expect("a known kind with more fields");
    assert!(value.from_newer_version());
    let Body::UseEvent(ref event) = value.body else { panic!("a use event") };
    assert_eq!(event.substance, "heroin");
    let edited = value.edited(&Entry::use_event("fentanyl"), &stamp()).encode();
    for kept in [&b"\x66future\x83\x01\x02\x03"[..], b"\x66beyond\x65later", b"fentanyl"] {
        assert!(edited.windows(kept.len()).any(|window| window == kept), "kept through an edit");
    }
    assert!(Value::decode(&edited).expect("still a value").from_newer_version());

    let kind = fixture("value-newer-kind.cbor", || newer(&use_event(), b"\x69dream_log"));
    let value = Value::decode(&kind).expect("an unknown kind is a value all the same");
    assert!(matches!(value.body, Body::Unknown { .. }));
    let shown =
        Record::new(RecordId::from_bytes(RECORD), Category::Symptoms, value.clone(), String::new(), None, 0);
    assert!(shown.from_newer_version);
    assert_eq!(value.encode(), kind, "and is kept as it came");
}

#[test]
fn keys_wraps_and_notes_are_opened() {
    let device = fixture("device.bin", || DeviceSecrets::make_device(&mut Counting(0)).to_bytes().to_vec());
    let device_again = DeviceSecrets::from_bytes(&device).expect("of version 1");
    assert_eq!(device_again.to_bytes()[..], device[..]);
    assert_eq!(device_again.id(), DeviceSecrets::make_device(&mut Counting(0)).id());
    let kem = fixture("kem.bin", || KemSecret::make_kem(&mut Counting(7)).to_bytes().to_vec());
    let kem = KemSecret::from_bytes(&kem).expect("of version 1");
    let key = EpochKey::make_epoch_key(&mut Counting(99));
    let context = WrapContext {
        space: SPACE,
        stream: STREAM,
        epoch: Epoch(3),
        recipient: Recipient::Device(device_again.id()),
        prev_entry: Hash([5; 32]),
    };
    let wrap = fixture("wrap.bin", || keys::wrap(&key, kem.public(), &context).expect("wraps"));
    assert_eq!(keys::unwrap(&wrap, &kem, &context).expect("opens").to_bytes(), key.to_bytes());
    let check = fixture("key-check.bin", || key.derive_key_check(&SPACE, &STREAM, Epoch(3)).0.to_vec());
    assert_eq!(key.derive_key_check(&SPACE, &STREAM, Epoch(3)).0[..], check[..]);
    let note = fixture("note.bin", || {
        seal::seal_note(&key, &SPACE, &STREAM, Epoch(3), "medication", &mut Counting(1))
    });
    assert_eq!(seal::open_note(&key, &SPACE, &STREAM, Epoch(3), &note).expect("opens"), "medication");
}

#[test]
fn documents_payloads_and_envelopes_are_read() {
    let device = DeviceSecrets::make_device(&mut Counting(0));
    let actor = verify::actor_id(&device.id(), &STREAM);
    let value = |entry: &Entry| Value::new(entry, &stamp()).encode();
    let (first, second) = (Entry::use_event("heroin").at(AT), Entry::use_event("fentanyl").at(AT));
    let packed = fixture("payload.bin", || {
        let (mut document, created) = Document::create(actor, 1, &value(&first), "before").expect("fits");
        let edited = document.edit(actor, 2, Some(&value(&second)), Some("and after")).expect("fits");
        let retracted = document.retract(actor, 3, b"\xa0").expect("fits");
        let changes = [Some(created), edited, retracted].into_iter().flatten().map(|change| change.bytes);
        let records = vec![RecordChanges { record: RECORD, changes: changes.collect() }];
        Payload { records }.pack().expect("fits")
    });
    let payload = Payload::unpack(&packed).expect("of version 1");
    assert_eq!(payload.records.len(), 1);
    assert_eq!(payload.records[0].record, RECORD);
    let changes = &payload.records[0].changes;
    assert!(changes.iter().all(|change| gate::inspect(change).expect("passes").actor == actor));
    let document = Document::load(changes.iter().map(Vec::as_slice)).expect("loads");
    let state = document.state();
    assert_eq!((state.value, state.note.as_str()), (value(&second), "and after"));
    assert_eq!(state.retraction.as_deref(), Some(&b"\xa0"[..]));
    let history: Vec<_> =
        document.history().into_iter().map(|version| (version.time, version.note)).collect();
    assert_eq!(history, [(1, "before".into()), (2, "and after".into()), (3, "and after".into())]);

    let key = EpochKey::make_epoch_key(&mut Counting(99));
    let header = Header {
        kind: Kind::Changes,
        space: SPACE,
        stream: STREAM,
        author: device.id(),
        seq: Seq(2),
        prev: Hash([6; 32]),
        epoch: Epoch(3),
        roster_head: Hash([7; 32]),
        log_id: LogId([8; 16]),
        seen_pos: Position(9),
        seen_hash: Hash([10; 32]),
        salt: [11; 16],
    };
    let seal = || seal::seal(&device, &key, &header, &packed).expect("fits").into_bytes();
    let sealed = fixture("envelope.bin", seal);
    let envelope = Envelope::parse(sealed.clone()).expect("of version 1");
    assert_eq!(*envelope.header(), header);
    let envelope = verify::check(envelope, &device.public().sig).expect("signed");
    assert_eq!(seal::open(&key, &envelope).expect("opens"), packed);
    assert_eq!(seal(), sealed, "sealed as it was");
}

#[test]
fn texts_are_read() {
    let text = |name: &str, make: &dyn Fn() -> String| {
        String::from_utf8(fixture(name, || make().into_bytes())).expect("text")
    };
    let device = DeviceSecrets::make_device(&mut Counting(0));
    let kem = KemSecret::make_kem(&mut Counting(7));
    let patient = Card { device: device.public().clone(), clinic: None };
    let desk = Card {
        device: device.public().clone(),
        clinic: Some((ebb_protocol::id::MemberId([9; 16]), kem.public().clone())),
    };
    let ticket = Ticket { space: SPACE, found: Hash([5; 32]) };
    for (name, card) in [("card-patient.txt", &patient), ("card-clinic.txt", &desk)] {
        let text = text(name, &|| card.to_string());
        assert_eq!(text.parse::<Card>().expect(name), *card);
        assert_eq!(card.to_string(), text, "{name}");
    }
    let known = text("ticket.txt", &|| ticket.to_string());
    assert_eq!(known.parse::<Ticket>().expect("a ticket"), ticket);
    let sig = device.public().sig;
    let pins = Pins { version: 4, root: sig, tls: vec![device.public().tls], heads: vec![sig, sig] };
    let known = text("pins.txt", &|| SignedPins::sign(&pins, |message| device.sign(message)).to_text());
    let read = SignedPins::from_text(&known).expect("pins");
    assert_eq!(read.content().expect("pins"), pins);
    verify::check(read, &pins.root).expect("signed by its root");
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("makes");
    for entry in fs::read_dir(from).expect("reads") {
        let path = entry.expect("reads").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_all(&path, &to);
        } else {
            // Git keeps no modes; keys must be their owner's alone.
            fs::write(&to, fs::read(&path).expect("reads")).expect("writes");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(&to, mode).expect("ours");
        }
    }
}

/// What the phone of the fixture logged, in this order, and what became of it. Never edited.
fn logged() -> Vec<(&'static str, Entry)> {
    let of_patient = |entry: &(&str, Entry)| !entry.1.body.belongs(Writer::Patient).is_empty();
    entries().into_iter().filter(of_patient).collect()
}

/// Makes a deployment and a phone that has synced with it, closed, and no larger than need be.
fn make_replica_and_log(to: &Path) {
    let root = tempfile::tempdir().expect("a temporary folder");
    let mut server = TestServer::start(&root.path().join("server"), NODE);
    let phone = TestDevice::open(&root, "phone", &server, Start::Found);
    let space = phone.replica.own().expect("a patient's");
    let ids: Vec<_> =
        logged().iter().map(|(_, entry)| phone.replica.log(space, entry).expect("logs")).collect();
    phone.sync();
    phone.replica.edit(space, ids[0], &logged()[0].1.clone().note("edited")).expect("edits");
    phone.replica.retract(space, ids[1], "entered twice").expect("retracts");
    phone.sync();
    phone.replica.log(space, &Entry::use_event("never sent").at(AT)).expect("logs");
    phone.replica.lock();
    server.stop();
    fs::remove_file(phone.dir.join("replica/ebb.lock")).expect("ours");
    let _ = fs::remove_file(root.path().join("server/log.sqlite.lock"));
    copy_all(&root.path().join("server"), &to.join("server"));
    copy_all(&phone.dir, &to.join("phone"));
}

#[test]
fn a_replica_and_a_servers_log_are_read_completely() {
    show_logs();
    let (phone_files, server_files) = (fixtures().join("phone"), fixtures().join("server"));
    if !phone_files.exists() && std::env::var_os("EBB_WRITE_FIXTURES").is_some() {
        make_replica_and_log(&fixtures());
    }
    let root = tempfile::tempdir().expect("a temporary folder");
    copy_all(&phone_files, &root.path().join("phone"));
    copy_all(&server_files, &root.path().join("server"));

    // Offline first: everything is there, to the last field.
    let dir = root.path().join("phone");
    let phone = TestDevice::open_with(&dir, Config::new(dir.join("replica")));
    let space = phone.replica.own().expect("a patient's");
    let records = phone.records(space);
    assert_eq!(records.len(), logged().len() + 1);
    let unsent =
        |record: &&Record| matches!(&record.body, Body::UseEvent(use_) if use_.substance == "never sent");
    let unsent = records.iter().find(unsent).expect("logged last");
    assert_eq!(phone.replica.delivery(space, unsent.id).expect("known"), Delivery::OnPhone);
    for (place, (name, entry)) in logged().into_iter().enumerate() {
        let record = records.iter().find(|record| record.body == entry.body).expect(name);
        assert_eq!((record.occurred, record.source), (AT, entry.source), "{name}");
        let note = if place == 0 { "edited" } else { entry.note.as_str() };
        assert_eq!(record.note, note, "{name}");
        let reason = record.retracted.as_ref().map(|retraction| retraction.reason.as_str());
        assert_eq!(reason, (place == 1).then_some("entered twice"), "{name}");
        let versions = if place < 2 { 2 } else { 1 };
        assert_eq!(phone.replica.history(space, record.id).expect("known").len(), versions, "{name}");
        assert_eq!(phone.replica.delivery(space, record.id).expect("known"), Delivery::OnServer, "{name}");
    }
    phone.replica.lock();

    let log = SqliteLog::open(&root.path().join("server/log.sqlite"), Options::default());
    let log = log.expect("of version 1");
    assert!(log.log_id(&space).expect("reads").is_some());
    assert_eq!(log.entries(&space, RosterSeq(0)).expect("reads").len(), 1);
    drop(log);

    // And the two go on together: what was not sent goes out, and a new device gets everything.
    let server = TestServer::start_existing(&root.path().join("server"), NODE);
    let address = ServerAddress { ..server.address.clone() };
    let phone = TestDevice::open_with(&dir, TestDevice::config(&dir, &address, &server.pins));
    let ticket = phone.replica.ticket().expect("a patient's");
    let tablet = TestDevice::open(&root, "tablet", &server, Start::Join(ticket));
    phone.replica.add_device(&tablet.replica.card().expect("open")).expect("adds");
    assert!(phone.sync().in_sync);
    assert!(tablet.sync().in_sync);
    let all = |device: &TestDevice| device.replica.records(space, &Query::default()).expect("reads");
    assert!(all(&tablet) == all(&phone));
    assert_eq!(all(&tablet).len(), logged().len() + 1);
    assert_no_errors();
}
