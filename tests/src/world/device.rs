//! A device: a replica that can lose its power, and its end of a link.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use ebb_core::{
    Card, Config, Drive, Observer, RecordId, Replica, SpaceId, Start, Ticket, Vault, VaultError,
    keys::Entropy,
    link::{HEAD_START_MS, ServerAddress, Transport},
};
use ebb_protocol::{
    client::Input,
    wire::{self, SignedPins},
};

use super::{Watch, Who};
use crate::{
    disk::{Disk, medium::Random},
    net::LinkId,
    scenario::Udp,
};

/// The replica's files.
const FILES: [&str; 2] = ["ebb.db", "ebb.db-wal"];

/// A device.
pub(super) struct Device {
    pub(super) who: Who,
    pub(super) disk: Arc<Disk>,
    pub(super) watch: Watch,
    /// How far the server is, one way; `None` without a network.
    pub(super) network_ms: Option<u64>,
    /// What the network does with UDP.
    pub(super) udp: Udp,
    pub(super) link: Option<LinkId>,
    /// The attempt to connect that is under way, by its number.
    pub(super) attempt: u32,
    pub(super) connecting: bool,
    /// What will carry the link that is being made.
    pub(super) over: Transport,
    /// Whether its app syncs only when it is given a moment.
    pub(super) in_background: bool,
    /// The ticket of the space that it joins.
    pub(super) joins: Option<Ticket>,
    /// When a tick was last asked for.
    pub(super) tick_ms: Option<u64>,
    pub(super) output_until_crash: Option<(u8, u16)>,
    pub(super) heard: Arc<Heard>,
    /// Records that it listed when it was last looked, for each space, and how many of them were not on the server.
    pub(super) counted: [(u64, u64); 2],
    /// What its disk's slowness cost so far, and what of it what it sends next waits for.
    pub(super) cost_ms: u64,
    pub(super) slow_ms: u64,
    /// Its card, which never changes.
    pub(super) card: Option<Card>,
    /// Whether files of an earlier day were put in the place of its own.
    pub(super) put_back: bool,
    /// Records that it wrote since then. Where it had written in them before and forgot it, its change stands in
    /// the place of the one that others have, until it is enrolled anew.
    pub(super) written_since: BTreeSet<RecordId>,
    copies: u8,
    folder: PathBuf,
    vault: Remembering,
    pins: SignedPins,
    seed: u64,
    opened: Arc<AtomicU64>,
    incoming: Vec<u8>,
    replica: Option<Replica>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({:?})", self.who)
    }
}

/// What a device told its observers.
#[derive(Debug, Default)]
pub(super) struct Heard {
    frozen: AtomicBool,
    restored: AtomicU64,
    changed: Mutex<BTreeSet<(SpaceId, Option<RecordId>)>>,
}

impl Observer for Heard {
    fn records_changed(&self, space: SpaceId, records: &[RecordId]) {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        if records.is_empty() {
            changed.insert((space, None));
        }
        changed.extend(records.iter().map(|record| (space, Some(*record))));
    }

    fn device_frozen(&self, _space: SpaceId) {
        self.frozen.store(true, Ordering::Relaxed);
    }

    fn server_restored(&self, _space: SpaceId) {
        self.restored.fetch_add(1, Ordering::Relaxed);
    }
}

impl Heard {
    pub(super) fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Relaxed)
    }

    pub(super) fn restored(&self) -> u64 {
        self.restored.load(Ordering::Relaxed)
    }

    /// Records that changed since this was last asked; none where it was not said which.
    pub(super) fn take_changed(&self) -> BTreeSet<(SpaceId, Option<RecordId>)> {
        std::mem::take(&mut self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A keystore that survives every crash.
#[derive(Clone, Default)]
struct Remembering(Arc<Mutex<Option<Vec<u8>>>>);

impl Vault for Remembering {
    fn load(&self) -> Result<Option<Vec<u8>>, VaultError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn save(&self, key: &[u8]) -> Result<(), VaultError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(key.to_vec());
        Ok(())
    }
}

struct Seeded(Random);

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let drawn = self.0.draw().to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    }
}

impl Device {
    pub(super) fn new(who: Who, folder: &Path, seed: u64, watch: Watch, pins: SignedPins) -> Self {
        let seed = seed.wrapping_mul(31).wrapping_add(who.index() as u64 + 1);
        let disk = Disk::simulated(seed);
        disk.forget_on_failed_sync(true);
        Self {
            who,
            disk: Arc::new(disk),
            watch,
            network_ms: None,
            udp: Udp::Passes,
            link: None,
            attempt: 0,
            connecting: false,
            over: Transport::Quic,
            in_background: false,
            joins: None,
            tick_ms: None,
            output_until_crash: None,
            heard: Arc::default(),
            counted: [(0, 0); 2],
            cost_ms: 0,
            slow_ms: 0,
            card: None,
            put_back: false,
            written_since: BTreeSet::new(),
            copies: 0,
            folder: folder.join(format!("{who:?}")),
            vault: Remembering::default(),
            pins,
            seed,
            opened: Arc::default(),
            incoming: Vec::new(),
            replica: None,
        }
    }

    pub(super) fn replica(&self) -> Option<&Replica> {
        self.replica.as_ref()
    }

    /// Opens the replica: what an app does when it starts.
    pub(super) fn open(&mut self) -> ebb_core::Result<()> {
        let mut config = Config::new(&self.folder);
        // The world is the network: nobody looks at the address.
        let nowhere = || "nowhere.invalid:443".to_owned();
        config = config.server(ServerAddress { quic: nowhere(), tcp: nowhere() }, self.pins.clone());
        config.start = match (self.who, self.joins) {
            (Who::Desk, _) => Start::Clinic,
            (_, Some(ticket)) => Start::Join(ticket),
            (_, None) => Start::Found,
        };
        config.clock = Arc::new(self.watch.clone());
        // Another stream of numbers at every start, as of a device that wakes up.
        let times = self.opened.fetch_add(1, Ordering::Relaxed);
        config.entropy = Box::new(Seeded(Random::new(self.seed.wrapping_add(times << 32))));
        config.vfs = Some(self.disk.name().to_owned());
        config.drive = Drive::Manual;
        let replica = Replica::open(config, &self.vault)?;
        replica.watch(self.heard.clone());
        self.card = Some(replica.card()?);
        self.replica = Some(replica);
        self.incoming.clear();
        Ok(())
    }

    /// Ends the app: nothing of it is left in memory.
    pub(super) fn close(&mut self) {
        if let Some(replica) = self.replica.take() {
            replica.lock();
        }
        self.link = None;
        self.connecting = false;
        self.tick_ms = None;
        self.output_until_crash = None;
        // What is there when it opens again is looked at whole.
        self.heard.take_changed();
    }

    /// Which transport gets through first, and after how long; `None` without a network.
    pub(super) fn race(&self) -> Option<(Transport, u64)> {
        let network_ms = self.network_ms?;
        let transports = self.replica()?.with_engine(|engine| Ok(engine.transports())).ok()?;
        let starts = (0..).map(|place| place * HEAD_START_MS);
        let finishes = |(transport, start_ms)| match (transport, self.udp) {
            (Transport::Quic, Udp::Swallowed) => None,
            (Transport::Quic, _) => Some((transport, start_ms + 2 * network_ms)),
            (Transport::Tcp, _) => Some((transport, start_ms + 4 * network_ms)),
        };
        transports.into_iter().zip(starts).filter_map(finishes).min_by_key(|(_, ms)| *ms)
    }

    /// Whether it was put back, has heard of it, and so signs no more.
    pub(super) fn is_frozen(&self) -> bool {
        self.put_back && self.heard.is_frozen()
    }

    pub(super) fn has_copies(&self) -> bool {
        self.copies > 0
    }

    /// Copies the files as they are.
    pub(super) fn copy_files(&mut self) {
        let to = self.folder.with_extension(self.copies.to_string());
        std::fs::create_dir_all(&to).expect("a temporary folder takes folders");
        for name in FILES {
            if self.folder.join(name).exists() {
                std::fs::copy(self.folder.join(name), to.join(name)).expect("a temporary folder takes files");
            }
        }
        self.copies += 1;
    }

    /// Puts a copy in the place of the files; `None` if there is no copy. The device is off.
    pub(super) fn put_back(&mut self, pick: u8) -> Option<u8> {
        let number = pick.checked_rem(self.copies)?;
        let from = self.folder.with_extension(number.to_string());
        for name in FILES {
            let _ = std::fs::remove_file(self.folder.join(name));
            if from.join(name).exists() {
                std::fs::copy(from.join(name), self.folder.join(name))
                    .expect("a temporary folder takes files");
            }
        }
        self.disk.forget(&self.folder);
        self.put_back = true;
        Some(number)
    }

    /// Makes the next open compute every list anew and look again at what was set aside, as an update of the
    /// app does.
    pub(super) fn age_lists(&self) -> rusqlite::Result<()> {
        self.database()?.map_or(Ok(()), |db| {
            db.execute_batch(
                "UPDATE meta SET value = x'00000000' WHERE name = 'projection_version';
                 UPDATE meta SET value = x'00' WHERE name = 'quarantine_tried_by';",
            )
        })
    }

    /// The database, opened by hand; `None` where the replica was not closed in order: nobody but a replica may
    /// build upon what it left in the write-ahead log.
    pub(super) fn database(&self) -> rusqlite::Result<Option<rusqlite::Connection>> {
        if self.folder.join(FILES[1]).exists() {
            return Ok(None);
        }
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let path = self.folder.join(FILES[0]);
        let db = rusqlite::Connection::open_with_flags_and_vfs(path, flags, self.disk.name())?;
        let key = self.vault.load().ok().flatten().unwrap_or_default();
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        db.execute_batch(&format!(
            "PRAGMA key = \"x'{hex}'\"; PRAGMA cipher_hmac_algorithm = HMAC_SHA256;
             PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = FULL;"
        ))?;
        Ok(Some(db))
    }

    /// Takes bytes that arrived and gives the whole frames among them.
    pub(super) fn takes(&mut self, bytes: &[u8]) -> Vec<Input> {
        self.incoming.extend_from_slice(bytes);
        let mut inputs = Vec::new();
        while let Some((prefix, rest)) = self.incoming.split_first_chunk::<4>() {
            let Ok(len) = wire::frame_len(*prefix) else {
                inputs.push(Input::Garbage);
                self.incoming.clear();
                break;
            };
            let Some(body) = rest.get(..len) else { break };
            inputs.push(wire::decode(body).map_or(Input::Garbage, Input::Frame));
            self.incoming.drain(..4 + len);
        }
        inputs
    }

    pub(super) fn forget_incoming(&mut self) {
        self.incoming.clear();
    }
}
