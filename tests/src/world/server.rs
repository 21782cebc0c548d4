//! The server: its real sessions, committer and log, run step by step, and what it said of the log.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use ebb_protocol::{
    id::{Hash, LogId, Position, SpaceId, StreamId},
    verify::PublicKey,
    wire::{self, FromServer, ItemContent, SignedHeads, SignedPins},
};
use ebb_sync_server::{
    Clock, Manual,
    config::Config,
    connection::Exchange,
    keys::Keys,
    log::{
        LogError, Reader,
        sqlite::{Options, SqliteLog},
    },
};
use rusqlite::OpenFlags;

use super::{Fault, Result, Watch};
use crate::{disk::Disk, net::LinkId};

/// The server.
pub(super) struct Server {
    pub(super) disk: Arc<Disk>,
    pub(super) watch: Watch,
    pub(super) exchanges: BTreeMap<LinkId, Exchange>,
    /// Whether a turn of the log is due already.
    pub(super) works: bool,
    pub(super) output_until_crash: Option<(u8, u16)>,
    pub(super) slow_ms: u64,
    pub(super) backups: usize,
    folder: PathBuf,
    keys: Keys,
    manual: Option<Manual<SqliteLog>>,
    said: Said,
}

/// What left the server, and so must be in its log for ever.
#[derive(Debug, Default)]
struct Said {
    heads: BTreeMap<Place, Hash>,
    /// Hashes of the bytes that were delivered from a position.
    items: BTreeMap<Place, Hash>,
}

type Place = (SpaceId, LogId, StreamId, Position);

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

/// One deployment's keys: making them takes longer than a world, and no decision depends on them.
fn keys() -> Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    let make = || {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Keys::init(folder.path()).expect("a temporary folder takes keys")
    };
    KEYS.get_or_init(make).clone()
}

impl Server {
    pub(super) fn new(folder: PathBuf, seed: u64, watch: Watch) -> Self {
        std::fs::create_dir_all(&folder).expect("a temporary folder takes folders");
        let disk = Disk::simulated(seed ^ 0x7365_7276_6572);
        disk.forget_on_failed_sync(true);
        Self {
            disk: Arc::new(disk),
            watch,
            exchanges: BTreeMap::new(),
            works: false,
            output_until_crash: None,
            slow_ms: 0,
            backups: 0,
            folder,
            keys: keys(),
            manual: None,
            said: Said::default(),
        }
    }

    pub(super) fn pins(&self) -> SignedPins {
        self.keys.pins.clone()
    }

    pub(super) fn is_up(&self) -> bool {
        self.manual.is_some()
    }

    pub(super) fn start(&mut self) -> Result<(), LogError> {
        let config = Config { readers: 1, ..Config::local(&self.folder) };
        let options = Options { vfs: Some(self.disk.name().to_owned()), ..Options::default() };
        let log = SqliteLog::open(&self.file(), options)?;
        let watch = self.watch.clone();
        let clock = Clock::new(move || watch.shows());
        self.manual = Some(Manual::new(&config, self.keys.clone(), log, clock)?);
        // If it cannot be made good now, it is when everything works again.
        let _ = self.fails(None);
        self.works = false;
        Ok(())
    }

    /// Ends the process: nothing of it is left in memory.
    pub(super) fn end(&mut self) {
        self.exchanges.clear();
        self.manual = None;
        self.output_until_crash = None;
    }

    pub(super) fn connect(&mut self, link: LinkId, tls: PublicKey, exporter: [u8; 32]) {
        if let Some(manual) = &self.manual {
            self.exchanges.insert(link, manual.connect(tls, exporter));
        }
    }

    /// Reads or commits what is first, if there is anything; whether there was.
    pub(super) fn work(&mut self, reads_first: bool) -> bool {
        let Some(manual) = &mut self.manual else { return false };
        // Each only if the other had nothing to do: a turn is one read or one commit.
        (reads_first && manual.read_next()) || manual.commit_next() || manual.read_next()
    }

    /// Tries a log that failed; whether it still fails.
    pub(super) fn probe(&mut self) -> bool {
        let Some(manual) = &mut self.manual else { return false };
        manual.probe_if_failed();
        !manual.is_writable()
    }

    /// Makes the file take nothing that belongs to one space, or everything again: what a bad place in it would do.
    pub(super) fn fails(&self, space: Option<SpaceId>) -> rusqlite::Result<()> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = rusqlite::Connection::open_with_flags_and_vfs(self.file(), flags, self.disk.name())?;
        let mut sql = "PRAGMA synchronous = FULL; DROP TRIGGER IF EXISTS bad_place;".to_owned();
        if let Some(SpaceId(id)) = space {
            let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
            sql += &format!(
                "CREATE TRIGGER bad_place BEFORE INSERT ON envelope WHEN NEW.space = x'{hex}'
                 BEGIN SELECT RAISE(ABORT, 'a bad place'); END;"
            );
        }
        db.execute_batch(&sql)
    }

    /// Copies the files as they are, as an operator's backup does.
    pub(super) fn back_up(&mut self) {
        let to = self.folder.join(format!("backup-{}", self.backups));
        self.backups += 1;
        copy_log(&self.folder, &to);
    }

    /// Puts a copy in the place of the files, or nothing where there is no copy. The server is down.
    pub(super) fn restore(&mut self, pick: u8) -> Option<usize> {
        let chosen = usize::from(pick) % (self.backups + 1);
        for name in NAMES {
            let _ = std::fs::remove_file(self.folder.join(name));
        }
        let backup = chosen.checked_sub(1);
        if let Some(number) = backup {
            copy_log(&self.folder.join(format!("backup-{number}")), &self.folder);
        }
        self.disk.forget(&self.folder);
        // What it said before may be gone now: that is what refills are for.
        self.said = Said::default();
        backup
    }

    /// Notes what a frame says of the log. What contradicts what was said before is a fault.
    pub(super) fn says(&mut self, frame: &FromServer) -> Result {
        match frame {
            FromServer::Acked(acked) => self.says_heads(&acked.head),
            FromServer::CaughtUp(all) => all.iter().try_for_each(|heads| self.says_heads(heads)),
            FromServer::Entries(entries) => {
                let mut position = entries.first;
                for item in &entries.items {
                    let hash = match &item.content {
                        ItemContent::Envelope(bytes) => ebb_protocol::verify::sha256(&[bytes]),
                        ItemContent::Own(hash) => *hash,
                    };
                    let key = (entries.space, entries.log_id, entries.stream, position);
                    let before = self.said.items.insert(key, hash);
                    if before.is_some_and(|before| before != hash) {
                        return Err(Fault(format!("two envelopes were delivered from {position}")));
                    }
                    position = position.next();
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn says_heads(&mut self, signed: &SignedHeads) -> Result {
        let heads = signed.content().map_err(|error| Fault(format!("heads are no heads: {error}")))?;
        for head in heads.heads {
            let key = (heads.space, heads.log_id, head.stream, head.position);
            let before = self.said.heads.insert(key, head.chain);
            if before.is_some_and(|before| before != head.chain) {
                return Err(Fault(format!("two heads were signed for {}", head.position)));
            }
        }
        Ok(())
    }

    /// Holds what was said against what the log holds.
    pub(super) fn check(&self) -> Result {
        let Some(manual) = &self.manual else { return Ok(()) };
        let unreadable = |error: LogError| Fault(format!("the log cannot be read: {error}"));
        for ((space, log_id, stream, position), chain) in &self.said.heads {
            if manual.reader().log_id(space).map_err(unreadable)? != Some(*log_id) {
                continue;
            }
            let holds = manual.reader().chain(space, stream, *position).map_err(unreadable)?;
            if holds != Some(*chain) {
                return Err(Fault(format!("the log lost what was acknowledged at {position}")));
            }
        }
        for ((space, log_id, stream, position), hash) in &self.said.items {
            if manual.reader().log_id(space).map_err(unreadable)? != Some(*log_id) {
                continue;
            }
            let after = Position(position.0 - 1);
            let run = manual.reader().read(space, stream, after, 1, None).map_err(unreadable)?;
            let first = run.and_then(|run| run.items.into_iter().next());
            let holds = first.map(|item| match item.content {
                ItemContent::Envelope(bytes) => ebb_protocol::verify::sha256(&[&bytes]),
                ItemContent::Own(hash) => hash,
            });
            if holds != Some(*hash) {
                return Err(Fault(format!("the log lost what was delivered from {position}")));
            }
        }
        Ok(())
    }

    fn file(&self) -> PathBuf {
        self.folder.join(NAMES[0])
    }
}

/// The log's files.
const NAMES: [&str; 3] = ["log.sqlite", "log.sqlite-wal", "log.sqlite-shm"];

fn copy_log(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a temporary folder takes folders");
    for name in &NAMES[..2] {
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).expect("a temporary folder takes files");
        }
    }
}

/// The frames in bytes that were sent at once.
pub(super) fn frames<T: serde::de::DeserializeOwned>(mut bytes: &[u8]) -> Vec<T> {
    let mut frames = Vec::new();
    while let Some((prefix, rest)) = bytes.split_first_chunk::<4>() {
        let Some(body) = wire::frame_len(*prefix).ok().and_then(|len| rest.get(..len)) else { break };
        frames.extend(wire::decode(body));
        bytes = &rest[body.len()..];
    }
    frames
}

/// The bytes of the first few of them.
pub(super) fn first_frames(bytes: &[u8], count: usize) -> &[u8] {
    let mut end = 0;
    for _ in 0..count {
        let len = bytes[end..].first_chunk().and_then(|prefix| wire::frame_len(*prefix).ok());
        end = len.map_or(bytes.len(), |len| bytes.len().min(end + 4 + len));
    }
    &bytes[..end]
}
