//! Bad input, from whoever may send it: members, strangers, servers, disks, clocks and other processes.
//!
//! Every guard named here was taken away once to see its test fail.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use ebb_core::{
    Category, Clock, Config, Delivery, Entry, Error, FileVault, Observer, Record, RecordId, Replica, Start,
    SyncError, SyncStatus, SystemClock, Vault, VaultError,
    document::{Document, gate::CHANGES_PER_AUTHOR_AND_RECORD_MAX},
    keys::{DeviceSecrets, OsEntropy},
    link::ServerAddress,
    record::{Attendance, Band, BandInstrument, Moment, Phase, Thresholds},
    seal::PAYLOAD_VERSION,
};
use ebb_protocol::{
    envelope::{Envelope, Header},
    id::{DeviceId, Epoch, Hash, LogId, Millis, Seq, SpaceId},
    verify::{self, Signed},
    wire::{
        self, FRAME_BYTES_MAX, FromDevice, FromServer, Hello, Push, Refusal, SignedPins, SpaceHello,
        SpaceWelcome,
    },
};
use ebb_tests::{
    disk::{Disk, FileKind},
    rogue::{
        ByHand, Pushed, RECORDED_MS, Rogue, Wire, bomb, changes_of, chunk, open_database, payload, smuggle,
    },
    ward::{
        Events, LocalServer, PATIENCE, TestDevice, TestServer, Told, assert_no_errors, block_on, craving,
        dose, show_logs, wait_for,
    },
};
use tempfile::TempDir;

#[path = "hostile/member.rs"]
mod member;
#[path = "hostile/server.rs"]
mod server;

const NODE: &str = env!("CARGO_BIN_EXE_ebb-tests-node");
const SHARED: [Category; 4] =
    [Category::Medication, Category::Wellbeing, Category::Messages, Category::Observations];

fn folder() -> TempDir {
    show_logs();
    tempfile::tempdir().expect("a temporary folder")
}

fn ids(records: &[Record]) -> BTreeSet<RecordId> {
    records.iter().map(|record| record.id).collect()
}

/// Every file of a folder, but for the lock, whose contents nobody reads.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("reads").path());
    let files = entries.filter(|path| path.is_file() && path.extension().is_none_or(|name| name != "lock"));
    files.map(|path| (path.clone(), std::fs::read(&path).expect("reads"))).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for (file, bytes) in files(from) {
        std::fs::write(to.join(file.file_name().expect("a file")), bytes).expect("writes");
    }
}

/// A phone and a clinic that already know each other, and a server.
struct Ward {
    root: TempDir,
    server: TestServer,
    phone: TestDevice,
    clinic: TestDevice,
    space: SpaceId,
}

impl Ward {
    fn open() -> Self {
        let root = folder();
        let server = TestServer::start(&root.path().join("server"), NODE);
        let phone = TestDevice::open(&root, "phone", &server, Start::Found);
        let clinic = TestDevice::open(&root, "clinic", &server, Start::Clinic);
        phone.replica.grant(&clinic.replica.card().unwrap(), &SHARED).unwrap();
        let space = clinic.replica.follow(&phone.replica.ticket().unwrap()).unwrap();
        phone.sync();
        clinic.sync();
        Self { root, server, phone, clinic, space }
    }

    /// The clinic's desk, taken over by somebody else.
    fn rogue_clinic(&self) -> Rogue {
        self.clinic.replica.lock();
        Rogue::of(&self.clinic.dir)
    }

    /// The phone, taken over by somebody else.
    fn rogue_phone(&self) -> Rogue {
        self.phone.replica.lock();
        Rogue::of(&self.phone.dir)
    }

    fn wire(&self, rogue: &Rogue) -> Wire {
        Wire::member(&self.server.address, &self.server.pins, rogue).0
    }

    /// Whether the server still serves: something logged now arrives.
    fn still_serves(&self) {
        let id = self.phone.replica.log(self.space, &craving(1)).unwrap();
        self.phone.sync();
        assert_eq!(self.phone.replica.delivery(self.space, id).unwrap(), Delivery::OnServer);
    }
}

/// A record as an honest device would write it: its id and its first change.
fn visit(rogue: &Rogue, number: u8) -> ([u8; 16], Vec<u8>) {
    let id = RecordId::new(RECORDED_MS as u64, &[number; 10]);
    let actor = rogue.actor(Category::Observations);
    let (_, change) = Document::create(actor, RECORDED_MS, &rogue.value(&week(1)), "").unwrap();
    (*id.as_bytes(), change.bytes)
}

fn week(number: u8) -> Entry {
    Entry::visit("group", format!("week {number}"), Attendance::Kept)
}

// What the server refuses.

#[test]
fn what_does_not_belong_in_the_log_is_refused_by_its_reason() {
    let ward = Ward::open();
    ward.phone.replica.rotate(Category::Wellbeing).unwrap();
    ward.phone.replica.log(ward.space, &craving(1)).unwrap();
    ward.phone.sync();
    let mut rogue = ward.rogue_phone();
    let body = b"whatever: the server cannot tell";
    let connect = || ward.wire(&Rogue::of(&ward.phone.dir));
    let refused = |envelope: &Envelope| connect().push_one(envelope);

    let honest = rogue.header(Category::Wellbeing);
    let mut stale = honest;
    stale.epoch = Epoch(1);
    assert_eq!(refused(&rogue.seal(&stale, body)), Pushed::Refused(Refusal::StaleEpoch));
    let mut future = honest;
    future.epoch = Epoch(9);
    assert_eq!(refused(&rogue.seal(&future, body)), Pushed::Refused(Refusal::Malformed));
    let mut gap = honest;
    gap.seq = Seq(honest.seq.0 + 3);
    assert_eq!(refused(&rogue.seal(&gap, body)), Pushed::Refused(Refusal::Gap(honest.seq)));
    let mut other_chain = honest;
    other_chain.prev = Hash([5; 32]);
    let before = Seq(honest.seq.0 - 1);
    assert_eq!(refused(&rogue.seal(&other_chain, body)), Pushed::Refused(Refusal::Gap(before)));
    let mut fork = honest;
    (fork.seq, fork.prev) = (Seq(1), Hash::ZERO);
    assert_eq!(refused(&rogue.seal(&fork, body)), Pushed::Refused(Refusal::Fork));
    let mut unknown_head = honest;
    unknown_head.roster_head = Hash([6; 32]);
    assert_eq!(refused(&rogue.seal(&unknown_head, body)), Pushed::Refused(Refusal::UnknownHead));

    // A stream that only the clinic writes.
    let observed = rogue.header(Category::Observations);
    assert_eq!(refused(&rogue.seal(&observed, body)), Pushed::Refused(Refusal::Role));
    // Another's envelope, under one's own connection.
    let mut clinic = ward.rogue_clinic();
    let theirs = clinic.header(Category::Observations);
    assert_eq!(refused(&clinic.seal(&theirs, body)), Pushed::Refused(Refusal::Role));
    // Another space's envelope in this space's push.
    let mut elsewhere = honest;
    elsewhere.space = SpaceId([1; 16]);
    let envelope = rogue.seal(&elsewhere, body).as_bytes().to_vec();
    let answer = connect().push(ward.space, honest.stream, vec![envelope.clone()]);
    assert_eq!(answer, Pushed::Bye(Refusal::Malformed));
    assert_eq!(
        connect().push(SpaceId([1; 16]), honest.stream, vec![envelope]),
        Pushed::Refused(Refusal::Role)
    );

    // And after all that, what an honest device would send.
    assert!(refused(&rogue.seal(&honest, body)).is_acked());
    assert_no_errors();
}

#[test]
fn no_flipped_bit_of_an_envelope_gets_into_the_log() {
    let ward = Ward::open();
    let mut rogue = ward.rogue_phone();
    let header = rogue.header(Category::Wellbeing);
    let envelope = rogue.seal(&header, b"whatever");
    let good = envelope.as_bytes().to_vec();
    let mut wire = ward.wire(&rogue);
    // Every byte of header and commitment, and some of body and signature; one bit of each.
    let places = (0..236).chain((236..good.len()).step_by(7)).chain([good.len() - 1]);
    for place in places {
        let mut flipped = good.clone();
        flipped[place] ^= 1 << (place % 8);
        match wire.push(header.space, header.stream, vec![flipped]) {
            Pushed::Acked(_) => panic!("byte {place} may be flipped"),
            Pushed::Refused(_) => {}
            Pushed::Bye(_) => wire = ward.wire(&rogue),
        }
    }
    for cut in [0, 1, 235, 300, good.len() - 1] {
        let answer = ward.wire(&rogue).push(header.space, header.stream, vec![good[..cut].to_vec()]);
        assert_eq!(answer, Pushed::Bye(Refusal::Malformed), "cut at {cut}");
    }
    let mut oversize = good.clone();
    oversize.resize(wire::ENVELOPE_BYTES_MAX + 1, 0);
    let answer = ward.wire(&rogue).push(header.space, header.stream, vec![oversize]);
    assert_eq!(answer, Pushed::Bye(Refusal::Malformed));
    assert!(ward.wire(&rogue).push(header.space, header.stream, vec![good]).is_acked());
}

#[test]
fn strangers_learn_nothing_of_a_space() {
    let ward = Ward::open();
    ward.phone.replica.log(ward.space, &craving(3)).unwrap();
    ward.phone.sync();
    let mut rogue = ward.rogue_phone();
    let envelope = rogue.write(Category::Wellbeing, b"whatever");
    let stranger = DeviceSecrets::make_device(&mut OsEntropy);
    let nowhere = SpaceId([0x77; 16]);
    let follows = |space| SpaceHello {
        space,
        log_id: LogId::ZERO,
        roster: None,
        cursors: Vec::new(),
        own_in_full: true,
    };
    let silent = |wire: &mut Wire| {
        let heard = wire.hear_all();
        let nothing = |frame: &FromServer| matches!(frame, FromServer::CaughtUp(heads) if heads.is_empty());
        assert!(heard.iter().all(nothing), "{heard:?}");
    };
    // Under its own name, and under the name of a member whose TLS key it does not hold.
    let mut wires = Vec::new();
    for device in [stranger.id(), rogue.secrets.id()] {
        let mut wire = Wire::connect(&ward.server.address, &ward.server.pins, &stranger);
        let welcome = wire.hello(device, vec![follows(ward.space), follows(nowhere)]);
        let of = |space| welcome.spaces.iter().find(|welcome| welcome.space == space).unwrap().clone();
        let unnamed = SpaceWelcome { space: nowhere, ..of(ward.space) };
        assert_eq!(unnamed, of(nowhere), "the space looks as if it were none");
        silent(&mut wire);
        // Nor by what is refused.
        let pushed = |wire: &mut Wire, space| wire.push(space, envelope.header().stream, Vec::new());
        assert_eq!(pushed(&mut wire, ward.space), Pushed::Refused(Refusal::UnknownHead));
        assert_eq!(pushed(&mut wire, nowhere), Pushed::Refused(Refusal::UnknownHead));
        wires.push(wire);
    }
    // What a member writes meanwhile is not told to them either.
    assert!(ward.wire(&Rogue::of(&ward.phone.dir)).push_one(&envelope).is_acked());
    wires.iter_mut().for_each(silent);
}

#[test]
fn who_does_not_speak_the_protocol_is_sent_away_and_others_are_served() {
    let ward = Ward::open();
    let stranger = DeviceSecrets::make_device(&mut OsEntropy);
    let connect = || Wire::connect(&ward.server.address, &ward.server.pins, &stranger);
    let frame = |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat();
    let hello = |version| {
        let (device, pins_version, spaces) = (stranger.id(), 1, Vec::new());
        FromDevice::Hello(Hello { version, device, pins_version, spaces })
    };
    let push = FromDevice::Push(Push {
        space: ward.space,
        stream: ebb_protocol::id::StreamId::ZERO,
        envelopes: Vec::new(),
        refill: false,
    });
    let oversize = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes().to_vec();
    // A hello that claims 4 billion spaces in a few bytes.
    let mut boast = wire::encode(&hello(wire::VERSION));
    boast.pop();
    boast.extend([0xff, 0xff, 0xff, 0xff, 0x0f]);
    let many = vec![
        SpaceHello {
            space: ward.space,
            log_id: LogId::ZERO,
            roster: None,
            cursors: Vec::new(),
            own_in_full: false
        };
        2
    ];
    let twice = Hello { version: wire::VERSION, device: stranger.id(), pins_version: 1, spaces: many };
    for (name, bytes, reason) in [
        ("a frame that claims too much", oversize, Refusal::Malformed),
        ("a frame of 4 GiB", vec![0xff; 4], Refusal::Malformed),
        ("nonsense", frame(b"nonsense"), Refusal::Malformed),
        ("an empty frame", frame(b""), Refusal::Malformed),
        ("an unknown tag", frame(&[99, 0, 0]), Refusal::Malformed),
        ("a list that claims too much", frame(&boast), Refusal::Malformed),
        ("a later version", wire::encode_frame(&hello(wire::VERSION + 1)), Refusal::Version),
        ("a space twice", wire::encode_frame(&FromDevice::Hello(twice)), Refusal::Malformed),
        ("a push before hello", wire::encode_frame(&push), Refusal::Malformed),
    ] {
        let mut wire = connect();
        wire.say_bytes(bytes);
        match wire.hear() {
            Some(FromServer::Bye(bye)) => assert_eq!(bye.reason, reason, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(wire.hear(), None, "{name}: closed after good-bye");
    }
    let mut wire = connect();
    wire.hello(stranger.id(), Vec::new());
    wire.say(&hello(wire::VERSION));
    let heard = wire.hear_until(|frame| matches!(frame, FromServer::Bye(_)));
    assert!(matches!(heard.last(), Some(FromServer::Bye(_))), "a second hello");
    // Cut off in the middle of a frame.
    let mut cut = connect();
    cut.say_bytes(wire::encode_frame(&hello(wire::VERSION))[..9].to_vec());
    drop(cut);
    ward.still_serves();
    assert_no_errors();
}

/// Changes a stored envelope as a dishonest server could.
#[test]
fn a_server_that_changes_a_byte_is_not_believed() {
    let mut ward = Ward::open();
    let fake = ward.phone.replica.log(ward.space, &craving(3)).unwrap();
    ward.phone.sync();
    let good = ward.phone.replica.log(ward.space, &dose(8.0)).unwrap();
    ward.phone.sync();
    ward.server.stop();
    let log = ebb_sync_server::config::Config::local(&ward.server.dir).log_path();
    let db = rusqlite::Connection::open(log).unwrap();
    let mut bytes: Vec<u8> =
        db.query_row("SELECT bytes FROM envelope ORDER BY rowid LIMIT 1", [], |row| row.get(0)).unwrap();
    bytes[300] ^= 1;
    let changed = db
        .execute("UPDATE envelope SET bytes = ?1 WHERE rowid = (SELECT min(rowid) FROM envelope)", [&bytes]);
    assert_eq!(changed.unwrap(), 1);
    db.close().unwrap();
    ward.server.restart();
    let _ = block_on(ward.clinic.replica.sync(PATIENCE));
    let here = ids(&ward.clinic.records(ward.space));
    assert_eq!(here, [good].into(), "what the author did not sign is not shown; the rest is");
    assert!(!here.contains(&fake));
    let aside = ward.clinic.replica.with_engine(|engine| engine.set_aside()).unwrap();
    assert_eq!(aside, (0, 0), "its signature is looked at before its content");
    assert_no_errors();
}

// Keys, files and other processes.

/// A vault with a key of its own, which counts how often it was asked to save one.
struct OtherVault(Option<Vec<u8>>, AtomicU64);

impl Vault for OtherVault {
    fn load(&self) -> Result<Option<Vec<u8>>, VaultError> {
        Ok(self.0.clone())
    }
    fn save(&self, _: &[u8]) -> Result<(), VaultError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// A replica without a server, with one record, closed again.
fn closed_replica(root: &TempDir) -> (PathBuf, SpaceId, RecordId) {
    let device = TestDevice::open_with(root.path(), Config::new(root.path().join("replica")));
    let space = device.replica.own().unwrap();
    let id = device.replica.log(space, &craving(5)).unwrap();
    device.replica.lock();
    (root.path().join("replica"), space, id)
}

fn open_by(dir: &Path, vault: &dyn Vault) -> Result<Replica, Error> {
    Replica::open(Config::new(dir), vault)
}

#[test]
fn a_wrong_key_is_a_clear_error_and_touches_nothing() {
    let root = folder();
    let (dir, _, id) = closed_replica(&root);
    let wrong = OtherVault(Some(vec![1; 32]), AtomicU64::new(0));
    let short = OtherVault(Some(vec![1; 16]), AtomicU64::new(0));
    let none = OtherVault(None, AtomicU64::new(0));
    let refused = |name: &str| {
        let before = files(&dir);
        for vault in [&wrong, &short, &none] {
            let error = open_by(&dir, vault).expect_err("the wrong key");
            assert!(matches!(error, Error::Unlock(_)), "{name}: {error:?}");
            assert_eq!(vault.1.load(Ordering::Relaxed), 0, "no key is made over an old database");
        }
        assert!(files(&dir) == before, "{name}: the files are as they were");
    };
    refused("closed in order");
    std::fs::remove_file(dir.join("ebb.keycheck")).unwrap();
    refused("without the key check");
    let vault = FileVault(root.path().join("vault"));
    let replica = open_by(&dir, &vault).expect("the right key still opens it");
    assert!(replica.record(replica.own().unwrap(), id).is_ok());
    // As a crash leaves it, with a write-ahead log that is not in the database yet; and still no check.
    let crashed = root.path().join("crashed");
    copy(&dir, &crashed);
    let before = files(&crashed);
    assert!(before.keys().any(|path| path.to_string_lossy().ends_with("-wal")));
    assert!(matches!(open_by(&crashed, &wrong), Err(Error::Unlock(_))));
    assert!(files(&crashed) == before, "the files are as they were");
    let replica = open_by(&crashed, &vault).expect("the right key still opens it");
    assert!(replica.record(replica.own().unwrap(), id).is_ok());
}

#[test]
fn a_damaged_database_is_told_from_a_wrong_key_and_kept() {
    let root = folder();
    let (dir, ..) = closed_replica(&root);
    let file = dir.join("ebb.db");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[..4096].fill(0x5a);
    std::fs::write(&file, &bytes).unwrap();
    let before = files(&dir);
    let error = open_by(&dir, &FileVault(root.path().join("vault"))).expect_err("damaged");
    assert!(matches!(error, Error::Bug(_)), "the key is right, so it is not for want of one: {error:?}");
    assert!(files(&dir) == before, "what may hold unsent work is kept");
}

#[test]
fn a_second_process_is_kept_out() {
    let root = folder();
    let (dir, ..) = closed_replica(&root);
    let vault = FileVault(root.path().join("vault"));
    let mut holder = Command::new(NODE)
        .arg("hold")
        .arg(root.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "open\n");
    assert!(matches!(open_by(&dir, &vault), Err(Error::InUse(_))));
    holder.kill().unwrap();
    holder.wait().unwrap();
    open_by(&dir, &vault).expect("a process that is gone holds nothing");
}

#[test]
fn what_a_newer_version_wrote_is_not_touched() {
    let root = folder();
    let (dir, ..) = closed_replica(&root);
    let db = open_database(root.path());
    db.pragma_update(None, "user_version", 99).unwrap();
    db.close().unwrap();
    let before = files(&dir);
    let error = open_by(&dir, &FileVault(root.path().join("vault"))).expect_err("of a newer version");
    assert!(matches!(error, Error::Update(_)), "{error:?}");
    assert!(files(&dir) == before, "the files are as they were");
}

#[test]
fn impossible_times_are_named_and_nothing_is_logged() {
    let root = folder();
    let device = TestDevice::open_with(root.path(), Config::new(root.path().join("replica")));
    let space = device.replica.own().unwrap();
    let id = device.replica.log(space, &craving(5)).unwrap();
    let year = |year: i64| Moment { millis: (year - 1970) * 31_556_952_000, offset_minutes: 0 };
    for (moment, field) in [
        (year(1900), "occurred"),
        (year(2200), "occurred"),
        (Moment { millis: i64::MIN, offset_minutes: 0 }, "occurred"),
        (Moment { millis: i64::MAX, offset_minutes: 0 }, "occurred"),
        (Moment { offset_minutes: 2_000, ..year(2024) }, "offset_minutes"),
    ] {
        let entry = craving(6).at(moment);
        let outcomes = [device.replica.log(space, &entry).map(drop), device.replica.edit(space, id, &entry)];
        for outcome in outcomes {
            match outcome {
                Err(Error::FixInput { field: named, .. }) => assert_eq!(named, field),
                other => panic!("{moment:?}: {other:?}"),
            }
        }
    }
    assert_eq!(device.records(space).len(), 1);
    assert_eq!(device.replica.history(space, id).unwrap().len(), 1);
}

/// A clock that is so many milliseconds ahead.
struct Ahead(i64);

impl Clock for Ahead {
    fn now(&self) -> Millis {
        Millis(SystemClock.now().0.saturating_add_signed(self.0))
    }
}

#[test]
fn a_clock_a_year_off_is_told_and_nothing_is_set_right() {
    const YEAR_MS: i64 = 365 * 86_400_000;
    let ward = Ward::open();
    for (name, off) in [("ahead", YEAR_MS), ("behind", -YEAR_MS)] {
        let dir = ward.root.path().join(name);
        let config = TestDevice::config(&dir, &ward.server.address, &ward.server.pins);
        let config = Config { clock: Arc::new(Ahead(off)), ..config };
        let phone = TestDevice::open_with(&dir, config);
        let clinic_dir = ward.root.path().join(format!("clinic-{name}"));
        let config = TestDevice::config(&clinic_dir, &ward.server.address, &ward.server.pins);
        let clinic = TestDevice::open_with(&clinic_dir, config.start(Start::Clinic));
        phone.replica.grant(&clinic.replica.card().unwrap(), &SHARED).unwrap();
        let space = clinic.replica.follow(&phone.replica.ticket().unwrap()).unwrap();
        let id = phone.replica.log(space, &craving(2)).unwrap();
        let logged = phone.replica.record(space, id).unwrap();
        assert!(phone.sync().in_sync, "{name}");
        clinic.sync();
        assert_eq!(
            clinic.replica.record(space, id).unwrap(),
            logged,
            "as the phone says, to the millisecond"
        );
        let now = i64::try_from(SystemClock.now().0).unwrap();
        assert!((logged.occurred.millis - now - off).abs() < 60_000, "{name}");
        let skew = phone.replica.with_engine(|engine| Ok(engine.clock_skew_ms())).unwrap().unwrap();
        assert!((skew + off).abs() < 60_000, "{name}: {skew}");
    }
}

#[test]
fn a_phone_restored_from_an_older_copy_freezes_and_does_not_fork() {
    let ward = Ward::open();
    let before = ward.phone.replica.log(ward.space, &craving(1)).unwrap();
    ward.phone.sync();
    // In the copy, but not yet sent when that was made.
    let between = ward.phone.replica.log(ward.space, &craving(5)).unwrap();
    ward.phone.replica.lock();
    let (files_of, kept) = (ward.phone.dir.join("replica"), ward.root.path().join("kept"));
    copy(&files_of, &kept);
    let open = || TestDevice::open(&ward.root, "phone", &ward.server, Start::Found);
    let phone = open();
    let after = phone.replica.log(ward.space, &craving(2)).unwrap();
    phone.sync();
    phone.replica.lock();
    std::fs::remove_dir_all(&files_of).unwrap();
    copy(&kept, &files_of);

    let phone = open();
    let told = Events::of(&phone.replica);
    phone.replica.stay_in_sync();
    wait_for(&told, |told| matches!(told, Told::Frozen(space) if *space == ward.space));
    wait_for(&told, |told| matches!(told, Told::Status(SyncStatus::InSync(_))));
    // What stays on the device is not called in sync.
    let unsent = phone.replica.log(ward.space, &craving(3)).unwrap();
    wait_for(&told, |told| matches!(told, Told::Status(SyncStatus::Rejected(space)) if *space == ward.space));
    let outcome = block_on(phone.replica.sync(PATIENCE));
    assert_eq!(outcome, Err(SyncError::Rejected(ward.space)));
    assert_eq!(phone.replica.status(), SyncStatus::Rejected(ward.space));
    let here = ids(&phone.records(ward.space));
    assert_eq!(
        here,
        [before, between, after, unsent].into(),
        "nothing is lost, and what was forgotten is back"
    );
    assert_eq!(phone.replica.delivery(ward.space, unsent).unwrap(), Delivery::OnPhone);
    assert_eq!(phone.replica.delivery(ward.space, between).unwrap(), Delivery::OnServer);
    // It still takes what is logged, and stays frozen.
    let later = phone.replica.log(ward.space, &craving(4)).unwrap();
    // Nor by another process, whose observers hear of it though it happened in the first.
    phone.replica.lock();
    let phone = open();
    let told = Events::of(&phone.replica);
    wait_for(&told, |told| matches!(told, Told::Frozen(space) if *space == ward.space));
    let outcome = block_on(phone.replica.sync(PATIENCE));
    assert_eq!(outcome, Err(SyncError::Rejected(ward.space)));
    assert_eq!(phone.replica.delivery(ward.space, later).unwrap(), Delivery::OnPhone);
    phone.replica.stay_in_sync();
    wait_for(&told, |told| matches!(told, Told::Status(SyncStatus::Rejected(space)) if *space == ward.space));
    ward.clinic.sync();
    assert_eq!(
        ids(&ward.clinic.records(ward.space)),
        [before, between, after].into(),
        "the log has one history"
    );
    assert_no_errors();
}

/// Pins of another deployment, a portal: somebody answers, and it is not the server.
#[test]
fn who_meets_another_server_is_told_at_once_and_until_it_is_over() {
    let ward = Ward::open();
    let stranger = TestServer::start(&ward.root.path().join("stranger"), NODE);
    let dir = ward.root.path().join("lost");
    let config = TestDevice::config(&dir, &ward.server.address, &stranger.pins);
    let phone = TestDevice::open_with(&dir, config);
    let told = Events::of(&phone.replica);
    assert_eq!(block_on(phone.replica.sync(PATIENCE)), Err(SyncError::Impostor));
    // It goes on trying, and says nothing else meanwhile.
    phone.replica.stay_in_sync();
    for _ in 0..3 {
        wait_for(&told, |told| match told {
            Told::Status(status) => {
                assert!(!matches!(status, SyncStatus::Waiting(_)), "somebody answers");
                *status == SyncStatus::Impostor
            }
            _ => false,
        });
    }
    assert_eq!(phone.replica.status(), SyncStatus::Impostor);
    // On another network that is not known.
    phone.replica.network_changed(None);
    wait_for(&told, |told| matches!(told, Told::Status(SyncStatus::Connecting)));
}

#[test]
fn an_observer_that_panics_takes_nothing_with_it() {
    struct Panics;
    impl Observer for Panics {
        fn records_changed(&self, _: SpaceId, _: &[RecordId]) {
            panic!("a defect of the app");
        }
        fn status_changed(&self, _: SyncStatus) {
            panic!("another");
        }
    }
    let ward = Ward::open();
    ward.phone.replica.watch(Arc::new(Panics));
    let id = ward.phone.replica.log(ward.space, &craving(1)).unwrap();
    // A budget without an end.
    let outcome = block_on(ward.phone.replica.sync(std::time::Duration::MAX));
    assert!(outcome.is_ok_and(|synced| synced.in_sync));
    assert_eq!(ward.phone.replica.delivery(ward.space, id).unwrap(), Delivery::OnServer);
}

// Disks.

#[test]
fn a_full_phone_shows_what_the_rules_find() {
    let ward = Ward::open();
    let disk = Disk::new();
    let dir = ward.root.path().join("small");
    let open = || {
        let config = TestDevice::config(&dir, &ward.server.address, &ward.server.pins);
        TestDevice::open_with(&dir, Config { vfs: Some(disk.name().to_owned()), ..config })
    };
    let phone = open();
    let space = phone.replica.own().unwrap();
    phone.replica.log(space, &Entry::sows([2; 16])).unwrap();
    let found = phone.replica.alerts(space).unwrap();
    assert!(!found.is_empty());
    phone.replica.lock();
    // As if they were found for the first time now.
    let kept = || -> u64 {
        open_database(&dir).query_row("SELECT count(*) FROM alert", [], |row| row.get(0)).unwrap()
    };
    open_database(&dir).execute_batch("DELETE FROM alert").unwrap();
    let phone = open();
    disk.fill();
    assert_eq!(phone.replica.alerts(space).unwrap().len(), found.len(), "shown, though not kept");
    assert!(phone.replica.today(space).is_ok());
    disk.free();
    assert_eq!(phone.replica.alerts(space).unwrap().len(), found.len());
    phone.replica.lock();
    assert_eq!(kept(), found.len() as u64, "kept once there was room");
}

#[test]
fn a_full_phone_says_so_and_goes_on_when_there_is_room() {
    let ward = Ward::open();
    let disk = Disk::new();
    let dir = ward.root.path().join("small");
    let config = TestDevice::config(&dir, &ward.server.address, &ward.server.pins);
    let phone = TestDevice::open_with(&dir, Config { vfs: Some(disk.name().to_owned()), ..config });
    let space = phone.replica.own().unwrap();
    let mut logged = BTreeSet::from([phone.replica.log(space, &craving(1)).unwrap()]);
    // Full at every point of a call, not only before it.
    let mut refused = 0;
    for room in (0..40_000).step_by(1_777) {
        disk.leave_room(room);
        match phone.replica.log(space, &craving(2).note("x".repeat(2_000))) {
            Ok(id) => drop(logged.insert(id)),
            Err(Error::FreeSpace(_)) => refused += 1,
            Err(other) => panic!("{room} bytes of room: {other:?}"),
        }
        let outcome = phone.replica.retract(space, *logged.first().unwrap(), &format!("at {room}"));
        assert!(matches!(outcome, Ok(()) | Err(Error::FreeSpace(_))), "{outcome:?}");
        assert_eq!(ids(&phone.records(space)), logged, "all of it or nothing");
    }
    assert!(refused > 3, "{refused}");
    assert!(disk.counts(FileKind::Wal).faults > 0);

    // A sync cannot seal now; the same outbox drains as soon as it can.
    disk.fill();
    let told = Events::of(&phone.replica);
    phone.replica.stay_in_sync();
    wait_for(&told, |told| matches!(told, Told::Status(SyncStatus::Waiting(_))));
    assert_eq!(ids(&phone.records(space)), logged);
    disk.free();
    logged.insert(phone.replica.log(space, &craving(3)).expect("the same call works again"));
    phone.replica.network_changed(None);
    wait_for(&told, |told| matches!(told, Told::Status(SyncStatus::InSync(_))));
    for id in &logged {
        assert_eq!(phone.replica.delivery(space, *id).unwrap(), Delivery::OnServer);
    }
    phone.replica.lock();
    let halves = "SELECT (SELECT count(*) FROM change WHERE record NOT IN (SELECT id FROM record))
                       + (SELECT count(*) FROM record WHERE id NOT IN (SELECT record FROM change))";
    let halves: u64 = open_database(&dir).query_row(halves, [], |row| row.get(0)).unwrap();
    assert_eq!(halves, 0, "no change without its view, no view without its change");
    let again = TestDevice::open(&ward.root, "small", &ward.server, Start::Found);
    assert_eq!(ids(&again.records(space)), logged);
    // Nor did half of a call go out.
    let tablet = again.second(&ward.root, &ward.server);
    assert_eq!(ids(&tablet.records(space)), logged);
    for id in logged {
        assert_eq!(tablet.replica.history(space, id).unwrap(), again.replica.history(space, id).unwrap());
    }
    assert_no_errors();
}

#[test]
fn a_phone_whose_disk_fails_to_sync_has_logged_nothing() {
    let root = folder();
    let disk = Disk::new();
    let config = || Config { vfs: Some(disk.name().to_owned()), ..Config::new(root.path().join("replica")) };
    let phone = TestDevice::open_with(root.path(), config());
    let space = phone.replica.own().unwrap();
    disk.fail_syncs(true);
    let error = phone.replica.log(space, &craving(1)).expect_err("nothing is durable");
    assert!(matches!(error, Error::Retry(_)), "{error:?}");
    assert!(phone.records(space).is_empty());
    disk.fail_syncs(false);
    let id = phone.replica.log(space, &craving(1)).unwrap();
    phone.replica.lock();
    let phone = TestDevice::open_with(root.path(), config());
    assert_eq!(ids(&phone.records(space)), [id].into());
    phone.replica.lock();
    disk.fail_reads(true);
    let error = Replica::open(config(), &FileVault(root.path().join("vault"))).expect_err("unreadable");
    assert!(matches!(error, Error::Retry(_)), "later, not lost and not locked: {error:?}");
}

/// A phone that logs to a server over a disk of the test's, and what is known of both.
struct Small {
    root: TempDir,
    disk: Disk,
    server: Option<LocalServer>,
    address: ServerAddress,
    pins: SignedPins,
}

impl Small {
    fn open() -> Self {
        let (root, disk) = (folder(), Disk::new());
        let server = LocalServer::start(&root.path().join("server"), disk.name());
        let (address, pins) = (server.address.clone(), server.pins.clone());
        Self { root, disk, server: Some(server), address, pins }
    }

    fn device(&self, name: &str, start: Start) -> TestDevice {
        let dir = self.root.path().join(name);
        TestDevice::open_with(&dir, TestDevice::config(&dir, &self.address, &self.pins).start(start))
    }

    fn restart(&mut self) {
        drop(self.server.take());
        let server = LocalServer::start(&self.root.path().join("server"), self.disk.name());
        self.address = server.address.clone();
        self.server = Some(server);
    }
}

fn a_server_refuses_and_recovers(fail: impl Fn(&Disk), heal: impl Fn(&Disk)) {
    let mut small = Small::open();
    let phone = small.device("phone", Start::Found);
    let space = phone.replica.own().unwrap();
    let ticket = phone.replica.ticket().unwrap();
    let tablet = small.device("tablet", Start::Join(ticket));
    phone.replica.add_device(&tablet.replica.card().unwrap()).unwrap();
    let acknowledged = phone.replica.log(space, &craving(1)).unwrap();
    phone.sync();
    phone.replica.lock();
    let mut rogue = Rogue::of(&phone.dir);
    let envelope = rogue.write(Category::Wellbeing, b"whatever");

    fail(&small.disk);
    let (mut wire, _) = Wire::member(&small.address, &small.pins, &rogue);
    for _ in 0..3 {
        assert_eq!(wire.push_one(&envelope), Pushed::Refused(Refusal::Unavailable));
    }
    // It goes on: it answers, and gives what it has.
    wire.hear_all();
    let reader = Wire::member(&small.address, &small.pins, &rogue).1;
    assert_eq!(reader.spaces.len(), 1);
    tablet.sync();
    assert_eq!(ids(&tablet.records(space)), [acknowledged].into());

    heal(&small.disk);
    let phone = small.device("phone", Start::Found);
    let late = phone.replica.log(space, &craving(2)).unwrap();
    phone.sync();
    assert_eq!(phone.replica.delivery(space, late).unwrap(), Delivery::OnServer);
    phone.replica.lock();
    tablet.replica.lock();
    small.restart();
    let tablet = small.device("tablet", Start::Found);
    tablet.sync();
    assert_eq!(ids(&tablet.records(space)), [acknowledged, late].into(), "what was acknowledged is there");
    assert_no_errors();
}

#[test]
fn a_full_server_refuses_goes_on_and_recovers() {
    a_server_refuses_and_recovers(Disk::fill, Disk::free);
}

#[test]
fn a_server_whose_disk_fails_to_sync_acknowledges_nothing() {
    a_server_refuses_and_recovers(|disk| disk.fail_syncs(true), |disk| disk.fail_syncs(false));
}

#[test]
fn a_server_that_lost_its_whole_log_is_refilled() {
    let mut ward = Ward::open();
    let mut logged = BTreeSet::new();
    let told = Events::of(&ward.phone.replica);
    ward.phone.replica.stay_in_sync();
    ward.clinic.replica.stay_in_sync();
    for number in 0..3 {
        let id = ward.phone.replica.log(ward.space, &craving(number)).unwrap();
        logged.insert(id);
        wait_for(&told, |_| ward.phone.replica.delivery(ward.space, id).unwrap() == Delivery::OnServer);
        ward.server.kill();
        for file in ward.server.log_files() {
            std::fs::remove_file(file).unwrap();
        }
        ward.server.restart();
        ward.phone.replica.network_changed(None);
        ward.clinic.replica.network_changed(None);
        wait_for(&told, |told| matches!(told, Told::Restored(_)));
    }
    wait_for(&told, |told| matches!(told, Told::Status(SyncStatus::InSync(_))));
    ward.clinic.sync();
    assert_eq!(ids(&ward.clinic.records(ward.space)), logged);
    assert_no_errors();
}
