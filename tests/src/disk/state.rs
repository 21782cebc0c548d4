//! What a disk of the tests decides and remembers: faults, power, counts, and the medium below.

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::ffi;

use super::{
    Counts, FileKind,
    medium::{Event, FileNumber, Loss, Medium, Random},
};

/// What SQLite gets as the outcome of a call.
type Code = std::ffi::c_int;

/// What is about to happen to a file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op<'a> {
    Open,
    Read,
    Write {
        bytes: &'a [u8],
    },
    Truncate,
    Sync,
    /// Of the folder, after a file in it was made or deleted.
    SyncFolder,
    Delete,
    /// Asks for a size, or whether a file is there.
    Look,
}

/// Which of the calls to come fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Failing {
    #[default]
    None,
    Next(u64),
    All,
}

impl Failing {
    fn strikes(&mut self) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Next(left) => {
                *left -= 1;
                if *left == 0 {
                    *self = Self::None;
                }
                true
            }
        }
    }

    pub(super) fn next(count: u64) -> Self {
        if count == 0 { Self::None } else { Self::Next(count) }
    }

    pub(super) fn all(fail: bool) -> Self {
        if fail { Self::All } else { Self::None }
    }
}

/// Whether the disk has power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Power {
    On,
    /// It goes off just before this sync, the next being 1.
    UntilSync(u64),
    Off,
}

/// What becomes of syncs.
#[derive(Debug)]
pub(super) enum Mode {
    /// They go to the platform.
    Through,
    /// They do nothing: the folder is thrown away after the test.
    Careless,
    /// The shim knows what is durable, and the platform is spared.
    Simulated(Box<Simulation>),
}

#[derive(Debug)]
pub(super) struct Simulation {
    pub(super) medium: Medium,
    pub(super) random: Random,
    pub(super) record: Option<Vec<Event>>,
    /// The platform's number of each file, when it was last opened.
    inodes: BTreeMap<PathBuf, u64>,
}

impl Simulation {
    pub(super) fn new(seed: u64) -> Self {
        Self { medium: Medium::default(), random: Random::new(seed), record: None, inodes: BTreeMap::new() }
    }

    fn note(&mut self, event: Event) {
        self.medium.apply(&event);
        if let Some(record) = &mut self.record {
            record.push(event);
        }
    }

    /// Takes a file into account that was opened; `bytes` are those of one that was there before.
    fn opened(&mut self, path: PathBuf, bytes: Option<Vec<u8>>) -> FileNumber {
        if let Ok(file) = path.metadata() {
            self.inodes.insert(path.clone(), file.ino());
        }
        if bytes.is_none()
            && let Some(file) = self.medium.file(&path)
        {
            return file;
        }
        let file = self.medium.number();
        match bytes {
            Some(bytes) => self.note(Event::Found { file, path, bytes: bytes.into() }),
            None => self.note(Event::Created { file, path }),
        }
        file
    }
}

#[derive(Debug)]
pub(super) struct State {
    database: Counts,
    wal: Counts,
    other: Counts,
    /// Bytes that may still be written; `None` for no limit.
    pub(super) room: Option<u64>,
    pub(super) reads: Failing,
    pub(super) syncs: Failing,
    /// Whether a failed sync forgets what it was to make durable.
    pub(super) forgets: bool,
    pub(super) power: Power,
    pub(super) mode: Mode,
    /// Files that are open.
    pub(super) open: usize,
    /// Whether nobody holds the disk any more.
    is_released: bool,
    /// Syncs so far, of files and of folders.
    pub(super) syncs_done: u64,
    /// What one sync costs, in virtual time.
    pub(super) sync_ms: u64,
    pub(super) sync_cost_ms: u64,
}

impl State {
    pub(super) fn new(mode: Mode) -> Self {
        Self {
            database: Counts::default(),
            wal: Counts::default(),
            other: Counts::default(),
            room: None,
            reads: Failing::None,
            syncs: Failing::None,
            forgets: false,
            power: Power::On,
            mode,
            open: 0,
            is_released: false,
            syncs_done: 0,
            sync_ms: 0,
            sync_cost_ms: 0,
        }
    }

    /// Decides what becomes of an operation, and counts it.
    pub(super) fn verdict(&mut self, kind: FileKind, op: Op<'_>) -> Result<(), Code> {
        self.powered(op)?;
        let verdict = match op {
            Op::Open | Op::Truncate | Op::Delete | Op::SyncFolder | Op::Look => Ok(()),
            Op::Read if self.reads.strikes() => Err(ffi::SQLITE_IOERR_READ),
            Op::Sync if self.syncs.strikes() => Err(ffi::SQLITE_IOERR_FSYNC),
            Op::Read | Op::Sync => Ok(()),
            Op::Write { bytes } => match &mut self.room {
                Some(room) if *room < bytes.len() as u64 => Err(ffi::SQLITE_FULL),
                Some(room) => {
                    *room -= bytes.len() as u64;
                    Ok(())
                }
                None => Ok(()),
            },
        };
        let counts = self.counts(kind);
        match (verdict, op) {
            (Err(_), _) => counts.faults += 1,
            (Ok(()), Op::Read) => counts.reads += 1,
            (Ok(()), Op::Sync) => counts.syncs += 1,
            (Ok(()), Op::Write { bytes }) => {
                counts.writes += 1;
                counts.bytes += bytes.len() as u64;
            }
            (Ok(()), Op::Open | Op::Truncate | Op::Delete | Op::SyncFolder | Op::Look) => {}
        }
        verdict
    }

    pub(super) fn counts(&mut self, kind: FileKind) -> &mut Counts {
        match kind {
            FileKind::Database => &mut self.database,
            FileKind::Wal => &mut self.wal,
            FileKind::Other => &mut self.other,
        }
    }

    /// Whether there is still power for an operation; a sync may be the one before which it goes off.
    fn powered(&mut self, op: Op<'_>) -> Result<(), Code> {
        if matches!(op, Op::Sync | Op::SyncFolder) && self.power != Power::Off {
            match &mut self.power {
                Power::UntilSync(1) => self.power = Power::Off,
                Power::UntilSync(left) => *left -= 1,
                Power::On | Power::Off => {}
            }
            if self.power != Power::Off {
                self.syncs_done += 1;
                self.sync_cost_ms += self.sync_ms;
                return Ok(());
            }
        }
        if self.power != Power::Off {
            return Ok(());
        }
        Err(match op {
            Op::Open => ffi::SQLITE_CANTOPEN,
            Op::Read => ffi::SQLITE_IOERR_READ,
            Op::Write { .. } => ffi::SQLITE_IOERR_WRITE,
            Op::Truncate => ffi::SQLITE_IOERR_TRUNCATE,
            Op::Sync => ffi::SQLITE_IOERR_FSYNC,
            Op::SyncFolder => ffi::SQLITE_IOERR_DIR_FSYNC,
            Op::Delete => ffi::SQLITE_IOERR_DELETE,
            Op::Look => ffi::SQLITE_IOERR_ACCESS,
        })
    }

    /// Whether syncs go to the platform.
    pub(super) fn forwards_syncs(&self) -> bool {
        matches!(self.mode, Mode::Through)
    }

    fn simulation(&mut self) -> Option<&mut Simulation> {
        match &mut self.mode {
            Mode::Simulated(simulation) => Some(simulation),
            Mode::Through | Mode::Careless => None,
        }
    }

    /// Reads what a file holds before it is opened for the first time, or after somebody moved another into its
    /// place, who had synced that one; `None` where it is not there, or is the one that this disk knows.
    pub(super) fn found(&mut self, path: &Path) -> Option<Vec<u8>> {
        let simulation = self.simulation()?;
        let inode = path.metadata().ok()?.ino();
        // A name that is known was made or deleted through this disk.
        let is_known =
            simulation.medium.knows(path) && simulation.inodes.get(path).is_none_or(|known| *known == inode);
        if is_known { None } else { std::fs::read(path).ok() }
    }

    /// Takes note that a file was opened.
    pub(super) fn opened(&mut self, path: PathBuf, found: Option<Vec<u8>>) -> Option<FileNumber> {
        Some(self.simulation()?.opened(path, found))
    }

    pub(super) fn wrote(&mut self, file: Option<FileNumber>, at: i64, bytes: &[u8]) {
        if let (Some(simulation), Some(file)) = (self.simulation(), file) {
            simulation.note(Event::Written { file, at: at.cast_unsigned(), bytes: bytes.into() });
        }
    }

    pub(super) fn truncated(&mut self, file: Option<FileNumber>, size: i64) {
        if let (Some(simulation), Some(file)) = (self.simulation(), file) {
            simulation.note(Event::Truncated { file, size: size.cast_unsigned() });
        }
    }

    pub(super) fn synced(&mut self, file: Option<FileNumber>) {
        if let (Some(simulation), Some(file)) = (self.simulation(), file) {
            simulation.note(Event::Synced { file });
        }
    }

    /// A sync failed: with power on, what it was for may be forgotten.
    pub(super) fn failed_to_sync(&mut self, file: Option<FileNumber>) {
        if !self.forgets || self.power == Power::Off {
            return;
        }
        if let (Some(simulation), Some(file)) = (self.simulation(), file) {
            let seed = simulation.random.draw();
            simulation.note(Event::Forgotten { file, seed });
        }
    }

    pub(super) fn deleted(&mut self, path: &Path) {
        if let Some(simulation) = self.simulation() {
            // What was there before this disk looked was durable.
            simulation.note(Event::Deleted { path: path.to_owned() });
        }
    }

    pub(super) fn synced_folder(&mut self, path: &Path) {
        if let (Some(simulation), Some(folder)) = (self.simulation(), path.parent()) {
            simulation.note(Event::FolderSynced { folder: folder.to_owned() });
        }
    }

    pub(super) fn record(&mut self) {
        self.simulation().expect("only a simulated disk records").record = Some(Vec::new());
    }

    pub(super) fn mark(&mut self, number: u64) {
        self.simulation().expect("only a simulated disk records").note(Event::Marked(number));
    }

    pub(super) fn recorded(&mut self) -> Vec<Event> {
        let simulation = self.simulation().expect("only a simulated disk records");
        simulation.record.take().unwrap_or_default()
    }

    pub(super) fn forget(&mut self, folder: &Path) {
        if let Some(simulation) = self.simulation() {
            // Names come from SQLite, which has followed every link in them.
            let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
            simulation.medium.forget(&folder);
        }
    }

    /// Takes note that a file was closed.
    pub(super) fn closed(&mut self) {
        self.open -= 1;
        self.give_back();
    }

    /// Takes note that nobody holds the disk any more; files may still be open.
    pub(super) fn released(&mut self) {
        self.is_released = true;
        self.give_back();
    }

    /// Gives the files' copies back after the last use: the state itself lives as long as the process.
    fn give_back(&mut self) {
        if self.is_released && self.open == 0 {
            self.mode = Mode::Careless;
        }
    }

    /// Brings power back, and the files into a state in which the cut may have left them.
    pub(super) fn power_on(&mut self, loss: Loss) -> std::io::Result<()> {
        if std::mem::replace(&mut self.power, Power::On) != Power::Off {
            return Ok(());
        }
        assert_eq!(self.open, 0, "whoever had files open has closed them");
        let Some(simulation) = self.simulation() else { return Ok(()) };
        let left = simulation.medium.crash(loss, &mut simulation.random);
        let mut durable = Medium::default();
        for path in simulation.medium.names() {
            match left.get(path) {
                Some(bytes) => {
                    std::fs::write(path, bytes)?;
                    let (file, bytes) = (durable.number(), Arc::from(bytes.as_ref()));
                    durable.apply(&Event::Found { file, path: path.clone(), bytes });
                }
                None => match std::fs::remove_file(path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                },
            }
        }
        drop(left);
        simulation.medium = durable;
        simulation.inodes.clear();
        Ok(())
    }
}
