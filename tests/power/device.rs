//! The device: a phone that logs, edits, retracts, seals and syncs, and is opened again after each cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ebb_core::{
    Category, Clock, Config, Delivery, Drive, Entry, FileVault, Query, Record, RecordId, Replica, Start,
    link::ServerAddress, record::Attendance,
};
use ebb_protocol::id::{Millis, SpaceId};
use ebb_sync_server::log::memory::MemoryLog;
use ebb_tests::{
    disk::{
        Disk,
        medium::{Event, Loss, Random},
    },
    rogue::open_database,
    ward::{craving, dose},
};

use crate::{
    Cut, Look, Seeded, TRANSACTIONS, assert_sound,
    clinic::{self, Clinic},
    seed,
};

/// Clocks stay in this century.
const MINUTES_MAX: u64 = 20_000_000;

/// A clock that moves on by a minute each time somebody looks.
struct Minutes(AtomicU64);

impl Clock for Minutes {
    fn now(&self) -> Millis {
        Millis(1_709_536_320_000 + 60_000 * self.0.fetch_add(1, Ordering::Relaxed))
    }
}

fn open(dir: &Path, vault: &Path, disk: &Disk, start: Start, seed: u64) -> ebb_core::Result<Replica> {
    let address = ServerAddress { quic: String::new(), tcp: String::new() };
    let mut config = Config::new(dir).server(address, clinic::pins()).start(start);
    config.vfs = Some(disk.name().to_owned());
    config.drive = Drive::Manual;
    config.clock = Arc::new(Minutes(AtomicU64::new(seed % MINUTES_MAX)));
    config.entropy = Box::new(Seeded(Random::new(seed)));
    Replica::open(config, &FileVault(vault.to_owned()))
}

/// What one call did, as far as it returned.
#[derive(Default)]
struct Call {
    /// Records as they stand since.
    records: Vec<Record>,
    /// Those that are on the server since; `None` where the call has nothing to do with it.
    delivered: Option<BTreeSet<RecordId>>,
}

impl Call {
    fn touches(&self, id: RecordId) -> bool {
        self.records.iter().any(|record| record.id == id)
    }
}

/// A person's thousand entries, edits and retractions, and what the clinic wrote meanwhile.
pub(crate) struct DeviceRun {
    pub(crate) dir: PathBuf,
    vault: PathBuf,
    space: SpaceId,
    pub(crate) recording: Vec<Event>,
    calls: Vec<Call>,
    /// What the server had after each of its commits.
    backups: Vec<MemoryLog>,
}

/// A mark for a call that returned, and one for a server that committed.
fn call_mark(call: usize) -> u64 {
    2 * call as u64
}

fn server_mark(backup: usize) -> u64 {
    2 * backup as u64 + 1
}

impl DeviceRun {
    pub(crate) fn record(root: &Path) -> Self {
        let (dir, vault) = (root.join("replica"), root.join("vault"));
        let disk = Disk::simulated(seed());
        disk.record();
        let opened = |number| open(&dir, &vault, &disk, Start::Found, seed() + number).unwrap();
        let replica = opened(0);
        let desk_disk = Disk::careless();
        let desk = open(&root.join("desk"), &root.join("desk-vault"), &desk_disk, Start::Clinic, 77).unwrap();
        let shared = [Category::Medication, Category::Wellbeing, Category::Observations];
        replica.grant(&desk.card().unwrap(), &shared).unwrap();
        let space = desk.follow(&replica.ticket().unwrap()).unwrap();
        let mut run = Self {
            dir: dir.canonicalize().unwrap(),
            vault: vault.clone(),
            space,
            recording: Vec::new(),
            calls: Vec::new(),
            backups: Vec::new(),
        };
        run.returned(&disk, Call::default());
        let mut story = Story {
            replica,
            desk,
            random: Random::new(seed()),
            server: Clinic::new(MemoryLog::new()),
            own: Vec::new(),
            visits: Vec::new(),
        };
        for number in 0..TRANSACTIONS {
            let call = match number % 100 {
                20 | 70 => story.sync(&disk, space, &mut run.backups),
                // Closing checkpoints, and deletes the write-ahead log.
                60 if number > 500 => {
                    story.replica.lock();
                    story.replica = opened(number * 10_000);
                    Call::default()
                }
                7 | 33 | 81 => {
                    story.replica.with_engine(|engine| engine.seal_now()).unwrap();
                    Call::default()
                }
                _ => story.write(space),
            };
            run.returned(&disk, call);
        }
        story.replica.lock();
        run.recording = disk.recorded();
        run
    }

    fn returned(&mut self, disk: &Disk, call: Call) {
        disk.mark(call_mark(self.calls.len()));
        self.calls.push(call);
    }
}

/// A patient's phone, the clinic's desk, and the server between them.
struct Story {
    replica: Replica,
    desk: Replica,
    random: Random,
    server: Clinic<MemoryLog>,
    own: Vec<RecordId>,
    visits: Vec<RecordId>,
}

impl Story {
    fn write(&mut self, space: SpaceId) -> Call {
        let Self { replica, random, own, .. } = self;
        let times = if random.below(40) == 0 { 150 } else { random.below(5) * random.below(5) };
        let text = "It came and went. ".repeat(times);
        let entry = |random: &mut Random| match random.below(3) {
            0 => dose(random.below(16) as f64 + 1.0).note(text.clone()),
            1 => Entry::private_note(format!("At {}: {text}", random.below(1_000))),
            _ => craving(u8::try_from(random.below(11)).unwrap()).note(text.clone()),
        };
        let id = match random.below(20) {
            // Nobody edits what is not there yet.
            0..10 if !own.is_empty() => {
                let id = own[random.below(own.len())];
                let present = replica.record(space, id).unwrap();
                let edited = Entry { body: present.body, note: format!("{text}edited"), ..entry(random) };
                replica.edit(space, id, &edited).unwrap();
                id
            }
            10 | 11 if !own.is_empty() => {
                let id = own[random.below(own.len())];
                replica.retract(space, id, "a slip of the finger").unwrap();
                id
            }
            _ => {
                let id = replica.log(space, &entry(random)).unwrap();
                own.push(id);
                id
            }
        };
        Call { records: vec![replica.record(space, id).unwrap()], delivered: None }
    }

    /// The desk writes and syncs, then the phone does; each record changes at most once by it.
    fn sync(&mut self, disk: &Disk, space: SpaceId, backups: &mut Vec<MemoryLog>) -> Call {
        let Self { replica, desk, random, server, visits, .. } = self;
        let visit = |random: &mut Random| {
            Entry::visit("group", format!("week {}", random.below(60)), Attendance::Kept)
        };
        // It knows nothing of the space before the phone has synced once.
        if !backups.is_empty() {
            server.sync(desk, |_| {});
            if let Some(id) = visits.last() {
                desk.edit(space, *id, &visit(random).note("as the nurse saw it")).unwrap();
            }
            for _ in 0..random.below(9) {
                visits.push(desk.log(space, &visit(random)).unwrap());
            }
            server.sync(desk, |_| {});
        }
        let mut note = |log: &MemoryLog| {
            disk.mark(server_mark(backups.len()));
            backups.push(log.backup());
        };
        note(&server.log);
        server.sync(replica, note);
        let (_, unsent) = replica.with_engine(|engine| engine.count(&space)).unwrap();
        assert_eq!(unsent, 0, "the phone gets in sync");
        let records = replica.records(space, &Query::default()).unwrap();
        let is_there = |record: &&Record| replica.delivery(space, record.id).unwrap() == Delivery::OnServer;
        let delivered = records.iter().filter(is_there).map(|record| record.id).collect();
        Call { records, delivered: Some(delivered) }
    }
}

/// Has a replica fail to sync a record, and the next one lose its power at a sync; `false` if it does less.
pub(crate) fn cut_after_a_failed_sync(root: &Path, disk: &Disk, sync: u64) -> bool {
    let opened = |number| open(&root.join("replica"), &root.join("vault"), disk, Start::Found, number);
    let replica = opened(1).unwrap();
    let space = replica.spaces().unwrap()[0];
    let logged: Vec<_> = (0..3).map(|value| replica.log(space, &craving(value)).unwrap()).collect();
    // Closed in order: of most pages, the log that follows has nothing but what is not synced.
    replica.lock();
    let replica = opened(2).unwrap();
    replica.log(space, &Entry::private_note("in order")).unwrap();
    disk.fail_syncs(true);
    let sealed = replica.with_engine(|engine| engine.seal_now());
    assert!(sealed.is_err(), "what was not synced is not said to be saved");
    replica.lock();
    disk.fail_syncs(false);

    disk.cut_at_sync(sync);
    if let Ok(replica) = opened(3) {
        let _ = replica.log(space, &craving(4));
        replica.lock();
    }
    if !disk.is_off() {
        return false;
    }
    disk.power_on();
    let replica = opened(4).unwrap_or_else(|error| panic!("cut at sync {sync}, it does not open: {error}"));
    for id in logged {
        replica.record(space, id).unwrap();
    }
    replica.lock();
    assert_sound(&open_database(root), &Cut { place: 0, loss: Loss::Any, is_deep: true });
    true
}

/// Opens a device's files after each cut, and compares them with what its calls had said.
pub(crate) struct DeviceLook<'a> {
    run: &'a DeviceRun,
    dir: PathBuf,
    disk: Disk,
    /// How many calls had returned, and what they amount to.
    returned: usize,
    records: BTreeMap<RecordId, Record>,
    delivered: BTreeSet<RecordId>,
    server: Option<usize>,
}

impl<'a> DeviceLook<'a> {
    pub(crate) fn new(run: &'a DeviceRun, root: &Path) -> Self {
        let dir = root.join("replica");
        std::fs::create_dir_all(&dir).unwrap();
        // Made by the platform's own means before the first transaction, and never changed.
        std::fs::copy(run.dir.join("ebb.keycheck"), dir.join("ebb.keycheck")).unwrap();
        std::fs::copy(&run.vault, root.join("vault")).unwrap();
        let (records, delivered) = (BTreeMap::new(), BTreeSet::new());
        Self { run, dir, disk: Disk::careless(), returned: 0, records, delivered, server: None }
    }

    fn compare(&self, replica: &Replica, cut: &Cut) {
        let space = self.run.space;
        let under_way = self.run.calls.get(self.returned);
        let there = replica.records(space, &Query::default()).unwrap();
        let mut missing: BTreeSet<_> = self.records.keys().collect();
        let mut ahead = 0;
        for record in &there {
            missing.remove(&record.id);
            if self.records.get(&record.id) != Some(record) {
                let expected = under_way.is_some_and(|call| call.records.contains(record));
                assert!(expected, "a record is not as it was saved: {cut}");
                ahead += 1;
            }
        }
        assert!(missing.is_empty(), "{} of {} records are lost: {cut}", missing.len(), self.records.len());
        let aside = replica.with_engine(|engine| engine.set_aside()).unwrap();
        assert_eq!(aside, (0, 0), "nothing waits and nothing is in quarantine: {cut}");

        let (all, unsent) = replica.with_engine(|engine| engine.count(&space)).unwrap();
        assert_eq!(all, there.len() as u64, "{cut}");
        let on_phone = there.iter().filter(|record| !self.delivered.contains(&record.id)).count() as u64;
        let syncs = under_way.is_some_and(|call| call.delivered.is_some());
        // What was edited by the call that was under way is on the phone only, too.
        assert!(unsent <= on_phone + ahead, "{unsent} unsent, {on_phone} expected: {cut}");
        assert!(syncs || unsent >= on_phone, "{unsent} unsent, {on_phone} expected: {cut}");
        // Loading a record from its changes is dear: of each list, one.
        if let Some(record) = there.get(cut.place % there.len().max(1)) {
            self.compare_one(replica, record, cut);
        }
    }

    /// Compares a listed record with its changes, and where it is with where it was said to be.
    fn compare_one(&self, replica: &Replica, record: &Record, cut: &Cut) {
        let history = replica.history(self.run.space, record.id).unwrap();
        let newest = &history.last().unwrap().record;
        let says = |record: &Record| (record.note.clone(), record.body.clone(), record.retracted.clone());
        assert!(says(newest) == says(record), "the changes amount to what is listed: {cut}");
        let delivery = replica.delivery(self.run.space, record.id).unwrap();
        let was_delivered = self.delivered.contains(&record.id);
        let expected = if was_delivered { Delivery::OnServer } else { Delivery::OnPhone };
        let is_changing = self.run.calls.get(self.returned).is_some_and(|call| call.touches(record.id));
        assert!(is_changing || delivery == expected, "{delivery:?}, not {expected:?}: {cut}");
    }

    /// Meets the server as it was at the moment of the cut, and gets everything there.
    fn sync(&self, replica: &Replica, cut: &Cut) {
        let Some(backup) = self.server else { return };
        let mut server = Clinic::new(self.run.backups[backup].backup());
        let before: BTreeSet<_> = self.records.keys().copied().collect();
        server.sync(replica, |_| {});
        let (_, unsent) = replica.with_engine(|engine| engine.count(&self.run.space)).unwrap();
        assert_eq!(unsent, 0, "the server takes everything: {cut}");
        let after = replica.records(self.run.space, &Query::default()).unwrap();
        let after: BTreeSet<_> = after.iter().map(|record| record.id).collect();
        assert!(after.is_superset(&before), "{cut}");
    }
}

impl Look for DeviceLook<'_> {
    fn dir(&self) -> &Path {
        &self.dir
    }

    fn disk(&self) -> &Disk {
        &self.disk
    }

    fn passed(&mut self, mark: u64) {
        let number = usize::try_from(mark / 2).unwrap();
        if mark == server_mark(number) {
            self.server = Some(number);
            return;
        }
        let call = &self.run.calls[number];
        for record in &call.records {
            self.records.insert(record.id, record.clone());
            self.delivered.remove(&record.id);
        }
        if let Some(delivered) = &call.delivered {
            self.delivered.clone_from(delivered);
        }
        self.returned = number + 1;
    }

    fn look(&mut self, cut: &Cut) {
        let vault = &self.run.vault;
        let replica = open(&self.dir, vault, &self.disk, Start::Found, cut.place as u64 + 1_000_000);
        let replica = replica.unwrap_or_else(|error| panic!("does not open: {error:?}: {cut}"));
        let own = replica.own().unwrap();
        if self.returned > 0 {
            assert_eq!(own, self.run.space, "the space itself is lost: {cut}");
            self.compare(&replica, cut);
            if cut.is_deep {
                replica.with_engine(|engine| engine.seal_now()).unwrap();
                self.sync(&replica, cut);
            }
        }
        let id =
            replica.log(own, &craving(3)).unwrap_or_else(|error| panic!("does not log: {error:?}: {cut}"));
        assert_eq!(replica.delivery(own, id).unwrap(), Delivery::OnPhone);
        if !cut.is_deep {
            // Nobody looks at these files again: spare the checkpoint.
            self.disk.cut();
        }
        drop(replica);
        self.disk.power_on();
        if cut.is_deep {
            assert_sound(&open_database(self.dir.parent().unwrap()), cut);
        }
    }
}
