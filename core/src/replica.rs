//! The replica: a device's records, keys and connection, behind one handle.
//!
//! [`Replica`] is the only conductor of this crate. Below it lies [`Engine`], which runs without
//! threads, sockets or clock: time and randomness come in through [`Config`], the network is a list of
//! [`LinkAction`]s. An app never sees it; the simulator drives it directly.

mod care;
mod engine;
mod journal;
mod networks;
mod receive;
mod send;
mod sharing;
mod sync;
mod watch;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Instant,
};

use ebb_protocol::{
    client::Input,
    id::{Millis, SpaceId},
    wire::{Pins, SignedPins},
};
use parking_lot::Mutex;
use zeroize::Zeroizing;

pub use self::{
    care::AlertView,
    engine::{Engine, LinkAction},
    journal::{Delivery, Query, Version},
    networks::NetworkId,
    sharing::{Card, Ticket},
    sync::{SyncError, Synced},
    watch::{Observer, SyncStatus, Traffic},
};
use crate::{
    clinical::{
        chart::Chart,
        plan::PlanChanges,
        today::{Notification, Today},
    },
    error::{Cause, Error, Result},
    keys::Entropy,
    link::{ServerAddress, Transport},
    record::{Category, Entry, Record, RecordId},
    store::FolderLock,
};

/// Where the database's key is kept: the Keychain, the Android Keystore, a file on a server.
///
/// The key is 32 bytes. An app implements this over the platform's keystore; the bytes never go
/// anywhere else.
pub trait Vault: Send + Sync {
    /// Loads the key; `None` if none was ever saved.
    ///
    /// # Errors
    /// [`VaultError`] when the keystore cannot be read now, for example while the phone is locked.
    fn load(&self) -> Result<Option<Vec<u8>>, VaultError>;

    /// Saves a new key. It is saved once, before the database is made.
    ///
    /// # Errors
    /// [`VaultError`] when the keystore did not take it; nothing is made then.
    fn save(&self, key: &[u8]) -> Result<(), VaultError>;
}

/// The keystore is not available now.
#[derive(Debug, thiserror::Error)]
#[error("the keystore is not available now")]
pub struct VaultError;

/// Keeps the key in a file that only its owner may read: for servers and demonstrations, where the
/// disk itself is protected. A phone uses its keystore.
#[derive(Clone, Debug)]
pub struct FileVault(pub PathBuf);

impl Vault for FileVault {
    fn load(&self) -> Result<Option<Vec<u8>>, VaultError> {
        match std::fs::read(&self.0) {
            Ok(key) => Ok(Some(key)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(_) => Err(VaultError),
        }
    }

    fn save(&self, key: &[u8]) -> Result<(), VaultError> {
        // Written aside, then moved: a crash leaves the whole key or none.
        let fresh = self.0.with_extension("new");
        let write = || {
            let mut options = std::fs::File::options();
            options.write(true).create(true).truncate(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&fresh)?;
            std::io::Write::write_all(&mut file, key)?;
            crate::store::replace_durably(&fresh, &self.0)
        };
        write().map_err(|_| VaultError)
    }
}

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch. It may be wrong and may jump; nothing breaks if it does.
    fn now(&self) -> Millis;

    /// Milliseconds since some moment, never going back: what pauses and time limits are measured with, so
    /// that a clock set back by a day does not keep a device from its server for a day. A simulation gives
    /// its own.
    fn steady(&self) -> Millis {
        static START: OnceLock<Instant> = OnceLock::new();
        let since = START.get_or_init(Instant::now).elapsed();
        Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// Minutes that the local time is ahead of UTC.
    fn offset_minutes(&self) -> i16 {
        0
    }
}

/// The system's clock, in UTC.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Millis(since_epoch.map_or(0, |span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// What a new replica begins as. Looked at only when there is no database yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// A patient's first device: founds the patient's space, offline.
    #[default]
    Found,
    /// Another device of a patient: joins the space that the ticket names.
    Join(Ticket),
    /// A clinic's desk: follows the spaces of its patients.
    Clinic,
}

/// Who writes: the patient, or a clinic.
pub use crate::record::Writer;

/// Whether the replica runs its connection on a thread of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drive {
    /// On a thread of its own: what an app wants.
    #[default]
    Thread,
    /// By whoever calls [`Replica::with_engine`]: simulations, and benchmarks that count.
    Manual,
}

/// How to open a replica.
pub struct Config {
    /// The folder of its files, made if it is not there. Exclude it from backups of the device.
    pub dir: PathBuf,
    /// The clinic's server; without one, the replica works offline for ever.
    pub server: Option<ServerAddress>,
    /// The keys of the clinic's servers, as `ebb-sync-server init` printed them or an invitation brought.
    pub pins: Option<SignedPins>,
    /// What a new replica begins as.
    pub start: Start,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Where randomness comes from.
    pub entropy: Box<dyn Entropy>,
    /// The name of the SQLite VFS to open files through; the default one if `None`.
    pub vfs: Option<String>,
    /// Who drives the connection.
    pub drive: Drive,
    /// The one transport to use. If `None`, QUIC and TCP race, and the one that got through on a network
    /// goes first there.
    pub transport: Option<Transport>,
}

impl Config {
    /// A patient's replica in `dir`, on the system's clock and randomness, offline until told of a server.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            server: None,
            pins: None,
            start: Start::default(),
            clock: Arc::new(SystemClock),
            entropy: Box::new(crate::keys::OsEntropy),
            vfs: None,
            drive: Drive::default(),
            transport: None,
        }
    }

    /// The same, with a server and its pins.
    #[must_use]
    pub fn server(mut self, server: ServerAddress, pins: SignedPins) -> Self {
        self.server = Some(server);
        self.pins = Some(pins);
        self
    }

    /// The same, beginning as something else than a patient's first device.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }
}

/// A device's records, keys and connection.
///
/// Methods block, and return when what they did is durable; only [`Replica::sync`] is a future. Any
/// thread may call, and clones are handles to the same replica.
#[derive(Clone)]
pub struct Replica {
    shared: Arc<watch::Shared>,
}

impl Replica {
    /// Opens the replica in `config.dir`, making it if there is none.
    ///
    /// # Errors
    /// [`Error::Unlock`] if the vault cannot be read or holds another key than the database was made
    /// with, [`Error::InUse`] if another process has it open, [`Error::Update`] if a newer version
    /// wrote it, [`Error::FixInput`] if the pins are not signed by their own root.
    ///
    /// # Examples
    /// ```
    /// use ebb_core::{Config, Entry, FileVault, Query, Replica, record::CheckIn};
    ///
    /// let dir = tempfile::tempdir()?;
    /// let vault = FileVault(dir.path().join("vault.key"));
    /// let ebb = Replica::open(Config::new(dir.path().join("replica")), &vault)?;
    /// let own = ebb.own()?;
    /// let id = ebb.log(own, &Entry::check_in(CheckIn { craving: Some(7), ..CheckIn::default() }))?;
    /// assert_eq!(ebb.records(own, &Query::default())?[0].id, id);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(mut config: Config, vault: &dyn Vault) -> Result<Self> {
        let lock = FolderLock::take(&config.dir)?;
        let key = database_key(&mut config, &lock, vault)?;
        let drive = config.drive;
        let engine = Engine::open(config, lock, &key)?;
        Ok(Self { shared: watch::Shared::start(engine, drive) })
    }

    /// Closes the database and forgets every key; what is called after that fails with
    /// [`Error::Unlock`]. Open again to unlock.
    pub fn lock(&self) {
        self.shared.lock();
    }

    /// The patient's own space.
    ///
    /// # Errors
    /// [`Error::FixInput`] on a clinic's replica, which has none.
    pub fn own(&self) -> Result<SpaceId> {
        self.with_engine(|engine| engine.own())
    }

    /// Every space that this replica follows.
    ///
    /// # Errors
    /// [`Error::Unlock`] when locked.
    pub fn spaces(&self) -> Result<Vec<SpaceId>> {
        self.with_engine(|engine| Ok(engine.spaces()))
    }

    /// Logs something that happened. When this returns, it is on disk, with or without a network.
    ///
    /// # Errors
    /// [`Error::FixInput`] names the field and what it may hold; [`Error::FreeSpace`] if the device is
    /// full: nothing was logged, free some and call again.
    pub fn log(&self, space: SpaceId, entry: &Entry) -> Result<RecordId> {
        self.changed(|engine| engine.log(&space, entry))
    }

    /// Writes a new version of a record; the old one stays in its history.
    ///
    /// # Errors
    /// As [`Replica::log`], and [`Error::FixInput`] for an unknown record.
    pub fn edit(&self, space: SpaceId, record: RecordId, entry: &Entry) -> Result<()> {
        self.changed(|engine| engine.edit(&space, &record, entry))
    }

    /// Retracts a record, saying why. Nothing is erased, and it can be undone.
    ///
    /// # Errors
    /// As [`Replica::edit`].
    pub fn retract(&self, space: SpaceId, record: RecordId, reason: &str) -> Result<()> {
        self.changed(|engine| engine.retract(&space, &record, reason))
    }

    /// Takes a retraction back.
    ///
    /// # Errors
    /// As [`Replica::edit`].
    pub fn unretract(&self, space: SpaceId, record: RecordId) -> Result<()> {
        self.changed(|engine| engine.unretract(&space, &record))
    }

    /// A record's present version.
    ///
    /// # Errors
    /// [`Error::FixInput`] for an unknown record.
    pub fn record(&self, space: SpaceId, record: RecordId) -> Result<Record> {
        self.with_engine(|engine| engine.record(&space, &record))
    }

    /// Lists records by the time they happened, newest first.
    ///
    /// # Errors
    /// [`Error::Unlock`] when locked.
    pub fn records(&self, space: SpaceId, query: &Query) -> Result<Vec<Record>> {
        self.with_engine(|engine| engine.records(&space, query))
    }

    /// Every version of a record, oldest first, with author and time.
    ///
    /// # Errors
    /// [`Error::FixInput`] for an unknown record.
    pub fn history(&self, space: SpaceId, record: RecordId) -> Result<Vec<Version>> {
        self.with_engine(|engine| engine.history(&space, &record))
    }

    /// Every version that was written at the same time as another, the shown one first; a single one
    /// where there is no conflict.
    ///
    /// # Errors
    /// [`Error::FixInput`] for an unknown record.
    pub fn conflicts(&self, space: SpaceId, record: RecordId) -> Result<Vec<Record>> {
        self.with_engine(|engine| engine.conflicts(&space, &record))
    }

    /// Chooses one of [`Replica::conflicts`]; the others stay in the history. Where there is no conflict,
    /// nothing is written.
    ///
    /// # Errors
    /// [`Error::FixInput`] for a version that does not stand as it was read: the record changed since, and what
    /// nobody has seen is not decided upon.
    pub fn resolve(&self, space: SpaceId, chosen: &Record) -> Result<()> {
        self.changed(|engine| engine.resolve(&space, chosen))
    }

    /// Where a record is: on this phone only, or on the server too. Always the truth of this moment.
    ///
    /// # Errors
    /// [`Error::FixInput`] for an unknown record.
    pub fn delivery(&self, space: SpaceId, record: RecordId) -> Result<Delivery> {
        self.with_engine(|engine| engine.delivery(&space, &record))
    }

    /// Makes a version of the plan as it reads now, with a summary of what changed, for the person to agree or
    /// not ([`PlanSignOff`](crate::record::PlanSignOff)).
    ///
    /// # Errors
    /// [`Error::FixInput`] from a patient's device, or where the plan has no section yet.
    pub fn publish_plan(&self, space: SpaceId, summary: &str) -> Result<RecordId> {
        self.changed(|engine| engine.publish_plan(&space, summary))
    }

    /// What changed in the plan since its newest version: the records of sections.
    ///
    /// # Errors
    /// As [`Replica::today`].
    pub fn plan_changes(&self, space: SpaceId) -> Result<PlanChanges> {
        self.attended(|engine| engine.plan_changes(&space))
    }

    /// What is due now and next: doses, check-ins, questionnaires, sessions, tasks.
    ///
    /// # Errors
    /// [`Error::FixInput`] for a space that this replica does not follow.
    pub fn today(&self, space: SpaceId) -> Result<Today> {
        self.attended(|engine| engine.today(&space))
    }

    /// The reminders that a phone should schedule for so many hours, in words that say nothing on a lock
    /// screen. Schedule them anew whenever records change; their ids stay.
    ///
    /// # Errors
    /// As [`Replica::today`].
    pub fn notifications(&self, space: SpaceId, hours: u32) -> Result<Vec<Notification>> {
        self.attended(|engine| engine.notifications(&space, hours))
    }

    /// Every alert that this device found, withdrawn ones among them, with its history; evaluated at this
    /// moment.
    ///
    /// # Errors
    /// As [`Replica::today`].
    pub fn alerts(&self, space: SpaceId) -> Result<Vec<AlertView>> {
        self.attended(|engine| engine.alerts(&space))
    }

    /// Reads the chart of a space: what trends, scores and summaries are made from. `read` runs under the
    /// replica's lock and must not call the replica.
    ///
    /// # Errors
    /// As [`Replica::today`].
    pub fn chart<T>(&self, space: SpaceId, read: impl FnOnce(&Chart) -> T) -> Result<T> {
        self.attended(|engine| engine.chart(&space, read))
    }

    /// The card by which others know this device (and clinic): show it to whoever shall add it.
    ///
    /// # Errors
    /// [`Error::Unlock`] when locked.
    pub fn card(&self) -> Result<Card> {
        self.with_engine(|engine| Ok(engine.card()))
    }

    /// The ticket by which another device finds the patient's space.
    ///
    /// # Errors
    /// [`Error::FixInput`] on a clinic's replica.
    pub fn ticket(&self) -> Result<Ticket> {
        self.with_engine(|engine| engine.ticket())
    }

    /// Follows a patient's space, as a clinic; what the patient granted arrives with the next sync.
    ///
    /// # Errors
    /// [`Error::FreeSpace`] and the like.
    pub fn follow(&self, ticket: &Ticket) -> Result<SpaceId> {
        let space = self.changed(|engine| engine.follow(ticket))?;
        // Only a Hello names spaces: what is connected already introduces itself anew.
        self.introduce();
        Ok(space)
    }

    /// Lets a clinic read these categories with their whole history, and write those that are a
    /// clinic's to write.
    ///
    /// # Errors
    /// [`Error::FixInput`] if the card is no clinic's, or a category is not to be shared.
    pub fn grant(&self, clinic: &Card, categories: &[Category]) -> Result<()> {
        self.changed(|engine| engine.grant(clinic, categories))
    }

    /// Adds another device of the same patient, which gets every key.
    ///
    /// # Errors
    /// [`Error::FixInput`] if the card is a clinic's, or the device is there already.
    pub fn add_device(&self, device: &Card) -> Result<()> {
        self.changed(|engine| engine.add_device(device))
    }

    /// Starts a new key for a category; what was logged before stays readable as it was.
    ///
    /// # Errors
    /// [`Error::FixInput`] for a category that this space does not have.
    pub fn rotate(&self, category: Category) -> Result<()> {
        self.changed(|engine| engine.rotate(category))
    }

    /// Runs something on the engine below, under its lock: for simulations, tests and benchmarks.
    ///
    /// # Errors
    /// [`Error::Unlock`] when locked, and what `work` fails with.
    pub fn with_engine<T>(&self, work: impl FnOnce(&mut Engine) -> Result<T>) -> Result<T> {
        self.unlocked(|engine| {
            engine.whole()?;
            work(engine).map_err(|error| engine.sobered(error))
        })?
    }

    fn unlocked<T>(&self, work: impl FnOnce(&mut Engine) -> T) -> Result<T> {
        let mut engine = self.shared.engine.lock();
        Ok(work(engine.as_mut().ok_or_else(|| Error::Unlock(Cause::new("the replica is locked")))?))
    }

    /// Takes what happened to the connection, tells observers, and says what to do with the link: for
    /// whoever drives a replica by hand ([`Drive::Manual`]).
    ///
    /// # Errors
    /// [`Error::Unlock`] when locked.
    pub fn drive(&self, input: Input) -> Result<Vec<LinkAction>> {
        let drive = |engine: &mut Engine| (engine.handle(input), engine.take_events(), engine.clock.now());
        let (actions, events, now) = self.unlocked(drive)?;
        self.shared.tell(&events, now);
        Ok(actions)
    }

    /// When [`Input::Tick`] is due by [`Clock::steady`], if nothing happens before: for whoever drives a
    /// replica by hand.
    ///
    /// # Errors
    /// [`Error::Unlock`] when locked.
    pub fn deadline(&self) -> Result<Option<Millis>> {
        self.unlocked(|engine| engine.deadline())
    }

    /// Runs something that may have found alerts, then tells observers.
    fn attended<T>(&self, work: impl FnOnce(&mut Engine) -> Result<T>) -> Result<T> {
        let outcome = self.with_engine(work);
        self.shared.tell_events();
        outcome
    }

    /// Runs something that may have changed records, then tells observers and the connection.
    fn changed<T>(&self, work: impl FnOnce(&mut Engine) -> Result<T>) -> Result<T> {
        let outcome = self.with_engine(work);
        self.shared.after_change();
        outcome
    }
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Replica")
    }
}

fn database_key(config: &mut Config, lock: &FolderLock, vault: &dyn Vault) -> Result<Zeroizing<[u8; 32]>> {
    let unavailable = |error: VaultError| Error::Unlock(Cause::new(error));
    if let Some(key) = vault.load().map_err(unavailable)?.map(Zeroizing::new) {
        let key: [u8; 32] =
            key.as_slice().try_into().map_err(|_| Error::Unlock(Cause::new("a key has 32 bytes")))?;
        return Ok(Zeroizing::new(key));
    }
    if lock.database().exists() {
        return Err(Error::Unlock(Cause::new("there is a database, but the vault holds no key")));
    }
    let mut key = Zeroizing::new([0; 32]);
    config.entropy.fill(&mut key[..]);
    vault.save(&key[..]).map_err(unavailable)?;
    Ok(key)
}

/// Checks a pin list against its own root.
fn checked_pins(signed: &SignedPins) -> Result<Pins> {
    let fix = || Error::fix("pins", "a pin list that its own root signed");
    let pins = signed.content().map_err(|_| fix())?;
    ebb_protocol::verify::check(signed.clone(), &pins.root).map_err(|_| fix())?;
    Ok(pins)
}

/// A lock that no panic poisons.
type Lock<T> = Mutex<T>;
