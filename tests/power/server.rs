//! The server: the real log and committer under a thousand groups, opened again after each cut.

use std::path::{Path, PathBuf};

use ebb_core::keys::{DeviceSecrets, Entropy};
use ebb_protocol::{
    envelope::{self, Envelope, Header, Kind},
    id::{Epoch, Hash, LogId, Millis, Position, RosterSeq, Seq, SpaceId, StreamId},
    roster::{
        self, Entry, EntryWithWraps, KeyHandout, Operation, Recipient, Roster, SignedEntry, VerifiedEntry,
        Wrap, wraps_hash,
    },
    session::{Appended, Input},
    verify::{self, Verified},
    wire::{Head, ItemContent},
};
use ebb_sync_server::{
    commit::{Answer, Effect, Offer},
    log::{
        Log, Reader,
        sqlite::{Options, SqliteLog},
    },
};
use ebb_tests::disk::{
    Disk,
    medium::{Event, Loss, Random},
};

use rusqlite::Connection;

use crate::{Cut, Look, Seeded, TRANSACTIONS, assert_sound, clinic::Clinic, seed};

const PATIENTS: usize = 5;
const STREAM: StreamId = StreamId([0xa1; 16]);
/// Ciphertext of a day of records, and of some.
const BODY_BYTES: [usize; 8] = [272, 272, 272, 528, 272, 272, 1_040, 272];
/// From this group on each holds half a year of records, and nothing but its size moves the write-ahead log
/// into the file: that needs 16 MiB.
const LARGE_FROM: u64 = 850;
const LARGE_BODY_BYTES: usize = 40_000;

/// A patient's phone that signs by hand, and all that it will have written in the end.
struct Patient {
    secrets: DeviceSecrets,
    space: SpaceId,
    roster: Roster,
    founding: EntryWithWraps,
    envelopes: Vec<Verified<Envelope>>,
    /// The log's head after each of them, the empty log's first.
    heads: Vec<Head>,
}

impl Patient {
    fn found(number: usize) -> Self {
        let entropy: &mut dyn Entropy = &mut Seeded(Random::new(number as u64));
        let secrets = DeviceSecrets::make_device(entropy);
        let nonce = [4; 16];
        let space = verify::space_id(&secrets.id(), &nonce);
        let wrap = Wrap { handout: 0, recipient: Recipient::Device(secrets.id()), bytes: vec![6; 113] };
        let wraps = vec![wrap];
        let key_check = verify::sha256(&[&STREAM.0]);
        let key = KeyHandout { stream: STREAM, epoch: Epoch(1), key_check, wraps_hash: wraps_hash(&wraps) };
        let mut roster = Roster::new(space);
        let entry = Entry {
            version: roster::VERSION,
            space,
            seq: roster.next_seq(),
            prev: roster.prev(),
            author: secrets.id(),
            time: Millis(1),
            operations: vec![
                Operation::Found { nonce, device: secrets.public().clone() },
                Operation::OpenStream { stream: STREAM, owner_writes: true, key },
            ],
            sealed: Vec::new(),
        };
        let entry = SignedEntry::sign(&entry, |message| secrets.sign(message));
        let founding = EntryWithWraps { entry, wraps };
        let verified = roster.verify(founding.clone()).unwrap();
        roster.apply(&verified);
        let chain = envelope::chain_start(&space, &STREAM);
        let heads = vec![Head { stream: STREAM, position: Position(0), chain }];
        Self { secrets, space, roster, founding, envelopes: Vec::new(), heads }
    }

    fn founding(&self) -> VerifiedEntry {
        Roster::new(self.space).verify(self.founding.clone()).unwrap()
    }

    /// Writes the next envelope.
    fn write(&mut self, body_bytes: usize) -> Verified<Envelope> {
        let prev = self.envelopes.last().map_or(Hash::ZERO, |last| last.hash());
        let header = Header {
            kind: Kind::Changes,
            space: self.space,
            stream: STREAM,
            author: self.secrets.id(),
            seq: Seq(self.envelopes.len() as u64 + 1),
            prev,
            epoch: Epoch(1),
            roster_head: self.roster.prev(),
            log_id: LogId::ZERO,
            seen_pos: Position(0),
            seen_hash: Hash::ZERO,
            salt: [9; 16],
        };
        let bytes = header.encode(u32::try_from(body_bytes).unwrap());
        let body: Vec<_> = verify::sha256(&[&bytes]).0.into_iter().cycle().take(body_bytes).collect();
        let sign = |message: &[u8]| self.secrets.sign(message);
        let envelope = Envelope::assemble(&bytes, &[3; 32], &body, sign).unwrap();
        let last = self.heads.last().unwrap();
        let chain = envelope::chain_next(&last.chain, &envelope.hash());
        self.heads.push(Head { stream: STREAM, position: last.position.next(), chain });
        let verified = verify::check(envelope, &self.secrets.public().sig).unwrap();
        self.envelopes.push(verified.clone());
        verified
    }
}

/// A server's thousand groups.
pub(crate) struct ServerRun {
    pub(crate) dir: PathBuf,
    pub(crate) recording: Vec<Event>,
    patients: Vec<Patient>,
    /// How many envelopes of each patient stand after each group; `None` before it founded its space.
    groups: Vec<[Option<usize>; PATIENTS]>,
}

impl ServerRun {
    pub(crate) fn record(root: &Path) -> Self {
        std::fs::create_dir_all(root).unwrap();
        let disk = Disk::simulated(seed());
        disk.record();
        let opened = || Clinic::new(open(root, &disk).unwrap());
        let mut clinic = opened();
        let mut random = Random::new(seed());
        let mut run = Self {
            dir: root.canonicalize().unwrap(),
            recording: Vec::new(),
            patients: (0..PATIENTS).map(Patient::found).collect(),
            groups: Vec::new(),
        };
        let mut stands = [None; PATIENTS];
        run.durable(&disk, stands);
        for number in 0..TRANSACTIONS {
            if number < LARGE_FROM && number % 100 == 99 {
                // Ending in order checkpoints, and deletes the write-ahead log.
                drop(clinic);
                clinic = opened();
            }
            for (who, stands) in stands.iter_mut().enumerate() {
                let is_first = number == 0 && who == 0;
                if is_first || random.below(PATIENTS) == 0 {
                    run.offer(&mut clinic, who, stands, &mut random);
                }
            }
            if clinic.is_idle() {
                run.offer(&mut clinic, 0, &mut stands[0], &mut random);
            }
            run.check(&clinic.commit());
            run.durable(&disk, stands);
        }
        drop(clinic);
        run.recording = disk.recorded();
        run
    }

    /// Offers some envelopes of a patient, and the space itself the first time.
    fn offer(
        &mut self,
        clinic: &mut Clinic<SqliteLog>,
        who: usize,
        stands: &mut Option<usize>,
        random: &mut Random,
    ) {
        let patient = &mut self.patients[who];
        if stands.is_none() {
            clinic.offer(patient.space, Offer::Roster(vec![patient.founding()]));
        }
        let bytes = |random: &mut Random| match self.groups.len() as u64 {
            LARGE_FROM.. => LARGE_BODY_BYTES,
            _ => BODY_BYTES[random.below(BODY_BYTES.len())],
        };
        let envelopes: Vec<_> = (0..1 + random.below(4) / 3).map(|_| patient.write(bytes(random))).collect();
        *stands = Some(stands.unwrap_or(0) + envelopes.len());
        clinic.offer(patient.space, Offer::Envelopes { stream: STREAM, envelopes, refill: false });
    }

    /// Whether everything was acknowledged, at the places where the ledger has it.
    fn check(&self, effects: &[Effect<()>]) {
        for effect in effects {
            let Effect::Reply((), Answer::Input(Input::Committed { space, outcomes, head, .. })) = effect
            else {
                continue;
            };
            let patient = self.patients.iter().find(|patient| patient.space == *space).unwrap();
            for outcome in outcomes {
                let Appended::At(at) = outcome else { panic!("{outcome:?}") };
                let place = usize::try_from(at.position.0).unwrap();
                assert_eq!(at.hash, patient.envelopes[place - 1].hash());
            }
            let (_, head) = head.unwrap();
            assert_eq!(head, patient.heads[usize::try_from(head.position.0).unwrap()]);
        }
    }

    fn durable(&mut self, disk: &Disk, stands: [Option<usize>; PATIENTS]) {
        disk.mark(self.groups.len() as u64);
        self.groups.push(stands);
    }
}

fn open(dir: &Path, disk: &Disk) -> Result<SqliteLog, ebb_sync_server::log::LogError> {
    SqliteLog::open(&dir.join("log.db"), Options { vfs: Some(disk.name().to_owned()), pages_max: None })
}

/// Has a server fail to sync a group, and the next one lose its power at a sync; `false` if it does less.
pub(crate) fn cut_after_a_failed_sync(root: &Path, disk: &Disk, sync: u64) -> bool {
    let mut patient = Patient::found(0);
    let commit = |log, patient: &Patient| {
        let mut clinic = Clinic::new(log);
        clinic.offer(patient.space, Offer::Roster(vec![patient.founding()]));
        let envelopes = patient.envelopes.clone();
        clinic.offer(patient.space, Offer::Envelopes { stream: STREAM, envelopes, refill: false });
        clinic.commit();
        clinic.log
    };
    let open = || open(root, disk);
    patient.write(BODY_BYTES[0]);
    let log = commit(open().unwrap(), &patient);
    // Closed in order: of most pages, the log that follows has nothing but what is not synced.
    drop(log);
    let mut log = open().unwrap();
    log.probe().unwrap();
    assert_eq!(log.head(&patient.space, &STREAM).unwrap(), patient.heads[1]);
    disk.fail_syncs(true);
    patient.write(BODY_BYTES[0]);
    let log = commit(log, &patient);
    assert_eq!(log.head(&patient.space, &STREAM).unwrap(), patient.heads[1], "not synced, not there");
    drop(log);
    disk.fail_syncs(false);

    disk.cut_at_sync(sync);
    if let Ok(log) = open() {
        commit(log, &patient);
    }
    if !disk.is_off() {
        return false;
    }
    disk.power_on();
    let log = open().unwrap_or_else(|error| panic!("cut at sync {sync}, it does not open: {error}"));
    let head = log.head(&patient.space, &STREAM).unwrap();
    assert!(patient.heads[1..].contains(&head), "cut at sync {sync}, the log ends at {}", head.position.0);
    drop(log);
    let cut = Cut { place: 0, loss: Loss::Any, is_deep: true };
    assert_sound(&Connection::open(root.join("log.db")).unwrap(), &cut);
    true
}

/// Opens a server's files after each cut, and compares them with what it had acknowledged.
pub(crate) struct ServerLook<'a> {
    run: &'a ServerRun,
    dir: PathBuf,
    disk: Disk,
    /// How many groups were acknowledged.
    acknowledged: usize,
}

impl<'a> ServerLook<'a> {
    pub(crate) fn new(run: &'a ServerRun, dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        Self { run, dir: dir.to_owned(), disk: Disk::careless(), acknowledged: 0 }
    }

    /// Compares, and says how many envelopes of each patient stand.
    fn compare(&self, log: &SqliteLog, cut: &Cut) -> [Option<usize>; PATIENTS] {
        let mut stands = [None; PATIENTS];
        for (patient, stands) in self.run.patients.iter().zip(&mut stands) {
            let roster = log.roster_head(&patient.space).unwrap();
            if roster.is_some() {
                assert_eq!(roster, Some((RosterSeq(0), patient.roster.prev())), "{cut}");
                *stands = Some(self.compare_stream(log, patient, cut));
            }
        }
        // Of a group, all stands or nothing: it is one transaction.
        let groups = &self.run.groups;
        let may = self.acknowledged.saturating_sub(1)..(self.acknowledged + 1).min(groups.len());
        let fits = groups[may].contains(&stands);
        assert!(fits, "{stands:?} stands after {} groups: {cut}", self.acknowledged);
        stands
    }

    /// Compares every position of a patient's stream, and says how many there are.
    fn compare_stream(&self, log: &SqliteLog, patient: &Patient, cut: &Cut) -> usize {
        let head = log.head(&patient.space, &STREAM).unwrap();
        let count = usize::try_from(head.position.0).unwrap();
        assert_eq!(head, patient.heads[count], "the head's chain covers what was sent: {cut}");
        let mut after = Position(0);
        while after != head.position {
            let run = log.read(&patient.space, &STREAM, after, usize::MAX, None).unwrap().unwrap();
            let first = usize::try_from(after.0).unwrap();
            assert_eq!(run.first, after.next(), "positions are dense: {cut}");
            for (item, envelope) in run.items.iter().zip(&patient.envelopes[first..]) {
                let ItemContent::Envelope(bytes) = &item.content else { panic!("nobody's own") };
                assert!(bytes[..] == *envelope.as_bytes(), "an envelope is another: {cut}");
            }
            assert_eq!(run.end, patient.heads[first + run.items.len()], "{cut}");
            assert!(!run.items.is_empty(), "positions are dense: {cut}");
            after = run.end.position;
        }
        let middle = count / 2;
        let chain = log.chain(&patient.space, &STREAM, Position(middle as u64)).unwrap();
        assert_eq!(chain, Some(patient.heads[middle].chain), "{cut}");
        count
    }

    /// Has a patient send what it has and the log lacks, and a little of what the log has: as after a cut.
    fn go_on(&self, log: SqliteLog, stands: [Option<usize>; PATIENTS], cut: &Cut) -> SqliteLog {
        let who = cut.place % PATIENTS;
        let patient = &self.run.patients[who];
        let mut clinic = Clinic::new(log);
        clinic.offer(patient.space, Offer::Roster(vec![patient.founding()]));
        let from = stands[who].unwrap_or(0).saturating_sub(1);
        let until = (from + 3).min(patient.envelopes.len());
        let envelopes = patient.envelopes[from..until].to_vec();
        clinic.offer(patient.space, Offer::Envelopes { stream: STREAM, envelopes, refill: false });
        for effect in clinic.commit() {
            if let Effect::Reply((), Answer::Input(Input::Committed { outcomes, head, .. })) = effect {
                for (outcome, place) in outcomes.iter().zip(from..) {
                    let Appended::At(at) = outcome else { panic!("{outcome:?}: {cut}") };
                    assert_eq!(at.position, Position(place as u64 + 1), "{cut}");
                }
                assert_eq!(outcomes.len(), until - from, "{cut}");
                assert_eq!(head.map(|(_, head)| head), Some(patient.heads[until]), "{cut}");
            }
        }
        clinic.log
    }
}

impl Look for ServerLook<'_> {
    fn dir(&self) -> &Path {
        &self.dir
    }

    fn disk(&self) -> &Disk {
        &self.disk
    }

    fn passed(&mut self, mark: u64) {
        self.acknowledged = usize::try_from(mark).unwrap() + 1;
    }

    fn look(&mut self, cut: &Cut) {
        let log = open(&self.dir, &self.disk).unwrap_or_else(|error| panic!("does not open: {error}: {cut}"));
        let stands = self.compare(&log, cut);
        let log = self.go_on(log, stands, cut);
        if !cut.is_deep {
            // Nobody looks at these files again: spare the checkpoint.
            self.disk.cut();
        }
        drop(log);
        self.disk.power_on();
        if cut.is_deep {
            assert_sound(&Connection::open(self.dir.join("log.db")).unwrap(), cut);
        }
    }
}
