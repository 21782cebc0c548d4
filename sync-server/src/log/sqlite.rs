//! The log in one SQLite file: the embedded default, and the only file of this crate that speaks SQL.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
};

use ebb_protocol::{
    envelope,
    id::{DeviceId, Epoch, Hash, LogId, Millis, Position, RosterSeq, Seq, SpaceId, StreamId},
    judge::Link,
    roster::EntryWithWraps,
    session::Run,
    wire::{self, Head, Item, ItemContent, SignedLogBorn},
};
use rusqlite::{
    CachedStatement, Connection, ErrorCode, OpenFlags, OptionalExtension, Row, ToSql, TransactionBehavior,
    named_params, params,
};

use super::{Begins, Log, LogError, Placed, RUN_ITEMS_MAX, Reader, SpaceWrites, Stored};

/// Every step of the schema, oldest first; a released step is never edited.
const SCHEMA: &[&str] = &[include_str!("schema/001.sql")];
/// Marks the file as ours ("EbbL"), so that another program's database is refused.
const APPLICATION_ID: i64 = 0x4562_624c;

/// Bytes of a page: the block of common file systems. Larger pages would put more of other spaces' index
/// entries into every commit; smaller ones deepen the trees.
const PAGE_BYTES: u32 = 4096;
/// Pages in the write-ahead log before they move into the file (16 MiB). A checkpoint costs some three
/// fsyncs; under 64 writers a group writes about 100 pages, so a checkpoint comes every 40 groups or so
/// and adds less than a tenth to their fsyncs. Four times SQLite's default, because index pages that
/// several groups touch are then written back once.
const CHECKPOINT_PAGES: u32 = 4000;
/// Page cache of the writer: the inner pages of the indexes of some ten million envelopes.
const WRITER_CACHE_KIB: u32 = 32 << 10;
/// Page cache of a reader, which walks through runs that nobody reads twice.
const READER_CACHE_KIB: u32 = 4 << 10;
/// Prepared statements kept per connection: all that there are.
const STATEMENTS_MAX: usize = 32;
/// How long a statement waits for another connection of this process: only a checkpoint ever blocks.
const BUSY_MS_MAX: u64 = 5_000;
/// What must find room before a log that failed is taken for one that takes writes.
const PROBE_BYTES: u32 = 64 << 10;

/// How to open the file.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// SQLite's name of the file system layer to use; `None` for the platform's own.
    pub vfs: Option<String>,
    /// The most pages (of 4 KiB) that the file may have; `None` for SQLite's own limit.
    pub pages_max: Option<u32>,
}

/// A log in one SQLite file: the writer, which also keeps other processes out.
#[derive(Debug)]
pub struct SqliteLog {
    db: SqliteReader,
    _lock: Arc<File>,
    path: PathBuf,
    options: Options,
}

/// One more connection to the same file, which only reads.
#[derive(Debug)]
pub struct SqliteReader {
    db: Connection,
    /// Held by each, so that no other process comes in while any connection is open.
    _lock: Arc<File>,
}

impl Drop for SqliteLog {
    /// Moves the write-ahead log into the file, so that a server that ended in order leaves one file to copy.
    /// What fails here is done at the next open: nothing acknowledged depends on it.
    fn drop(&mut self) {
        if let Err(error) = self.db.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            tracing::debug!(%error, "the write-ahead log stays beside the file");
        }
    }
}

impl SqliteLog {
    /// Opens the file, makes or migrates it, and locks out other processes (by a file beside it).
    ///
    /// # Errors
    /// [`LogError::InUse`] while another process has it; [`LogError::Newer`] for a later version's file;
    /// others where the file cannot be used.
    pub fn open(path: &Path, options: Options) -> Result<Self, LogError> {
        let lock = lock(path)?;
        renew_log(path).map_err(|error| LogError::Io(error.to_string()))?;
        let mut db = connect(path, &options, OpenFlags::SQLITE_OPEN_CREATE)?;
        db.pragma_update(None, "page_size", PAGE_BYTES)?;
        // To its end: the row comes first, and then the failure to make it so. With a rollback journal, which it
        // would stay with, a power cut could undo what was acknowledged (FULL does not sync its deletion).
        let mut set = db.prepare("PRAGMA journal_mode = WAL")?;
        let modes: Vec<String> = set.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        drop(set);
        if modes != ["wal"] {
            return Err(LogError::Io(format!("the journal's mode stays {modes:?}: the disk fails")));
        }
        // FULL: a commit returns when its bytes are on the disk, which is what an acknowledgement says.
        db.pragma_update(None, "synchronous", "FULL")?;
        // On Apple's systems a plain fsync leaves bytes in the drive's cache, in any order.
        db.pragma_update(None, "fullfsync", true)?;
        db.pragma_update(None, "checkpoint_fullfsync", true)?;
        db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        db.pragma_update(None, "cache_size", -i64::from(WRITER_CACHE_KIB))?;
        if let Some(pages) = options.pages_max {
            db.pragma_update(None, "max_page_count", pages)?;
        }
        migrate(&mut db, SCHEMA)?;
        let db = SqliteReader { db, _lock: lock.clone() };
        Ok(Self { db, _lock: lock, path: path.to_owned(), options })
    }

    fn write_group(&mut self, group: &[SpaceWrites], isolated: bool) -> Result<Vec<Outcome>, LogError> {
        let mut transaction = self.db.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut outcomes = Vec::with_capacity(group.len());
        for part in group {
            if !isolated {
                write(&transaction, part)?;
                outcomes.push(Ok(()));
                continue;
            }
            let savepoint = transaction.savepoint()?;
            let outcome = write(&savepoint, part);
            match &outcome {
                Ok(()) => savepoint.commit()?,
                // Rolls back to the savepoint. Some errors (a full disk) make SQLite roll back the whole
                // transaction by itself: then there is no savepoint any more, and no group.
                Err(error) => savepoint.finish().map_err(|_| error.clone())?,
            }
            outcomes.push(outcome);
        }
        transaction.commit()?;
        Ok(outcomes)
    }
}

type Outcome = Result<(), LogError>;

impl Log for SqliteLog {
    type Reader = SqliteReader;

    fn reader(&self) -> Result<SqliteReader, LogError> {
        let db = connect(&self.path, &self.options, OpenFlags::empty())?;
        db.pragma_update(None, "cache_size", -i64::from(READER_CACHE_KIB))?;
        db.pragma_update(None, "query_only", true)?;
        Ok(SqliteReader { db, _lock: self._lock.clone() })
    }

    fn commit(&mut self, group: &[SpaceWrites]) -> Result<Vec<Outcome>, LogError> {
        // Nearly every group succeeds whole: only one that did not pays for savepoints.
        match self.write_group(group, false) {
            Err(_) => self.write_group(group, true),
            outcomes => outcomes,
        }
    }

    fn probe(&mut self) -> Result<(), LogError> {
        // As much as a crowd's group takes: the room that a single row finds says nothing.
        self.db.db.execute("UPDATE probe SET count = zeroblob(?1)", [PROBE_BYTES])?;
        self.db.db.execute("UPDATE probe SET count = 0", [])?;
        Ok(())
    }
}

/// Puts a durable copy in the place of the write-ahead log that an earlier process left.
///
/// If that could not sync what it wrote, it is in the operating system's cache and perhaps nowhere else, where
/// it passes for clean: no later sync writes it, and what is built upon it, or moved into the file from it, is
/// torn by the next power cut. A copy is written, and so can be synced.
fn renew_log(path: &Path) -> std::io::Result<()> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let log = PathBuf::from(log);
    if !log.try_exists()? {
        return Ok(());
    }
    let fresh = log.with_added_extension("new");
    let renewed = std::fs::copy(&log, &fresh).and_then(|_| {
        File::options().write(true).open(&fresh)?.sync_all()?;
        std::fs::rename(&fresh, &log)
    });
    // On a full disk, half a copy would keep the room that somebody makes.
    renewed.inspect_err(|_| drop(std::fs::remove_file(&fresh)))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn lock(path: &Path) -> Result<Arc<File>, LogError> {
    let beside = path.with_added_extension("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&beside);
    let file = file.map_err(|error| LogError::Io(error.to_string()))?;
    match file.try_lock() {
        Ok(()) => Ok(Arc::new(file)),
        Err(TryLockError::WouldBlock) => Err(LogError::InUse(path.display().to_string())),
        Err(TryLockError::Error(error)) => Err(LogError::Io(error.to_string())),
    }
}

fn connect(path: &Path, options: &Options, flags: OpenFlags) -> Result<Connection, LogError> {
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = match &options.vfs {
        Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs.as_str())?,
        None => Connection::open_with_flags(path, flags)?,
    };
    db.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    db.busy_timeout(std::time::Duration::from_millis(BUSY_MS_MAX))?;
    // A read error in a mapped page is a signal, not an error.
    db.pragma_update(None, "mmap_size", 0)?;
    db.pragma_update(None, "trusted_schema", false)?;
    Ok(db)
}

/// Brings a file from whatever earlier schema it has to the newest, one transaction a step.
fn migrate(db: &mut Connection, steps: &[&str]) -> Result<(), LogError> {
    let known = i64::try_from(steps.len()).expect("a handful");
    loop {
        let step = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found: i64 = step.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let application: i64 = step.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        let empty = found == 0 && application == 0;
        if !empty && application != APPLICATION_ID {
            return Err(LogError::Damaged("the file is no log of this server".into()));
        }
        if found > known {
            return Err(LogError::Newer { found, known });
        }
        let Some(sql) = usize::try_from(found).ok().and_then(|done| steps.get(done)) else {
            return Ok(());
        };
        step.execute_batch(sql)?;
        step.pragma_update(None, "application_id", APPLICATION_ID)?;
        step.pragma_update(None, "user_version", found + 1)?;
        step.commit()?;
    }
}

fn write(db: &Connection, part: &SpaceWrites) -> Outcome {
    let space = &part.space.0;
    match &part.begins {
        None => {}
        Some(Begins::First(log_id)) => {
            db.prepare_cached("INSERT INTO space (space, log_id) VALUES (?1, ?2)")?
                .execute(params![space, log_id.0])?;
        }
        Some(Begins::Again(log_id, born)) => {
            db.prepare_cached(
                "INSERT INTO space (space, log_id) VALUES (?1, ?2)
                 ON CONFLICT (space) DO UPDATE SET log_id = excluded.log_id",
            )?
            .execute(params![space, log_id.0])?;
            db.prepare_cached(
                "INSERT INTO birth (space, number, signed)
                 SELECT ?1, count(*), ?2 FROM birth WHERE space = ?1",
            )?
            .execute(params![space, wire::encode(born)])?;
        }
    }
    for new in &part.entries {
        db.prepare_cached("INSERT INTO roster (space, seq, hash, entry) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![space, int(new.seq.0), new.hash.0, wire::encode(&new.entry)])?;
    }
    for placed in &part.envelopes {
        write_envelope(db, placed)?;
    }
    Ok(())
}

fn write_envelope(db: &Connection, placed: &Placed) -> Outcome {
    let header = placed.envelope.header();
    db.prepare_cached(
        "INSERT INTO envelope (space, stream, position, author, seq, epoch, hash, chain, roster_head,
                               log_id, seen_pos, received_ms, bytes)
         VALUES (:space, :stream, :position, :author, :seq, :epoch, :hash, :chain, :roster_head,
                 :log_id, :seen_pos, :received_ms, :bytes)",
    )?
    .execute(named_params! {
        ":space": header.space.0,
        ":stream": header.stream.0,
        ":position": int(placed.head.position.0),
        ":author": header.author.0,
        ":seq": int(header.seq.0),
        ":epoch": header.epoch.0,
        ":hash": placed.hash.0,
        ":chain": placed.head.chain.0,
        ":roster_head": header.roster_head.0,
        ":log_id": header.log_id.0,
        ":seen_pos": int(header.seen_pos.0),
        ":received_ms": int(placed.received_ms.0),
        ":bytes": placed.envelope.as_bytes(),
    })?;
    Ok(())
}

impl SqliteReader {
    fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>, LogError> {
        Ok(self.db.prepare_cached(sql)?)
    }

    fn one<T>(
        &self,
        sql: &str,
        params: &[&dyn ToSql],
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, LogError> {
        Ok(self.prepare(sql)?.query_row(params, read).optional()?)
    }
}

impl Reader for SqliteReader {
    fn log_id(&self, space: &SpaceId) -> Result<Option<LogId>, LogError> {
        self.one("SELECT log_id FROM space WHERE space = ?1", &[&space.0], |row| row.get(0).map(LogId))
    }

    fn births(&self, space: &SpaceId) -> Result<Vec<SignedLogBorn>, LogError> {
        let mut query = self.prepare("SELECT signed FROM birth WHERE space = ?1 ORDER BY number")?;
        let rows = query.query_map([&space.0], |row| row.get::<_, Vec<u8>>(0))?;
        rows.map(|bytes| decode(&bytes?)).collect()
    }

    fn roster_head(&self, space: &SpaceId) -> Result<Option<(RosterSeq, Hash)>, LogError> {
        self.one(
            "SELECT seq, hash FROM roster WHERE space = ?1 ORDER BY seq DESC LIMIT 1",
            &[&space.0],
            |row| Ok((RosterSeq(get(row, 0)?), Hash(row.get(1)?))),
        )
    }

    fn entries(&self, space: &SpaceId, from: RosterSeq) -> Result<Vec<EntryWithWraps>, LogError> {
        let mut query =
            self.prepare("SELECT entry FROM roster WHERE space = ?1 AND seq >= ?2 ORDER BY seq")?;
        let rows = query.query_map(params![space.0, clamp(from.0)], |row| row.get::<_, Vec<u8>>(0))?;
        rows.map(|bytes| decode(&bytes?)).collect()
    }

    fn head(&self, space: &SpaceId, stream: &StreamId) -> Result<Head, LogError> {
        let newest = self.one(
            "SELECT position, chain FROM envelope WHERE space = ?1 AND stream = ?2
             ORDER BY position DESC LIMIT 1",
            &[&space.0, &stream.0],
            |row| Ok(Head { stream: *stream, position: Position(get(row, 0)?), chain: Hash(row.get(1)?) }),
        )?;
        let chain = || envelope::chain_start(space, stream);
        Ok(newest.unwrap_or_else(|| Head { stream: *stream, position: Position(0), chain: chain() }))
    }

    fn chain(&self, space: &SpaceId, stream: &StreamId, at: Position) -> Result<Option<Hash>, LogError> {
        if at == Position(0) {
            return Ok(Some(envelope::chain_start(space, stream)));
        }
        self.one(
            "SELECT chain FROM envelope WHERE space = ?1 AND stream = ?2 AND position = ?3",
            &[&space.0, &stream.0, &clamp(at.0)],
            |row| row.get(0).map(Hash),
        )
    }

    fn at(
        &self,
        space: &SpaceId,
        stream: &StreamId,
        author: &DeviceId,
        seq: Seq,
    ) -> Result<Vec<Stored>, LogError> {
        let mut query = self.prepare(
            "SELECT position, hash, epoch, roster_head, log_id, seen_pos FROM envelope
             WHERE space = ?1 AND stream = ?2 AND author = ?3 AND seq = ?4 ORDER BY epoch",
        )?;
        let stored = |row: &Row<'_>| {
            let link = Link {
                hash: Hash(row.get(1)?),
                epoch: Epoch(row.get(2)?),
                roster_head: Hash(row.get(3)?),
                log_id: LogId(row.get(4)?),
                seen_pos: Position(get(row, 5)?),
            };
            Ok(Stored { position: Position(get(row, 0)?), link })
        };
        let rows = query.query_map(params![space.0, stream.0, author.0, clamp(seq.0)], stored)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn last(
        &self,
        space: &SpaceId,
        stream: &StreamId,
        author: &DeviceId,
    ) -> Result<Option<(Seq, Hash)>, LogError> {
        self.one(
            "SELECT seq, hash FROM envelope WHERE space = ?1 AND stream = ?2 AND author = ?3
             ORDER BY seq DESC, epoch DESC LIMIT 1",
            &[&space.0, &stream.0, &author.0],
            |row| Ok((Seq(get(row, 0)?), Hash(row.get(1)?))),
        )
    }

    fn read(
        &self,
        space: &SpaceId,
        stream: &StreamId,
        after: Position,
        bytes_max: usize,
        own: Option<&DeviceId>,
    ) -> Result<Option<Run>, LogError> {
        let (Some(log_id), Some(chain)) = (self.log_id(space)?, self.chain(space, stream, after)?) else {
            return Ok(None);
        };
        let mut query = self.prepare(
            "SELECT position, chain, received_ms, hash, iif(author IS ?4, NULL, bytes) FROM envelope
             WHERE space = ?1 AND stream = ?2 AND position > ?3 ORDER BY position",
        )?;
        let own = own.map(|device| device.0);
        let mut rows = query.query(params![space.0, stream.0, clamp(after.0), own])?;
        let mut run = Run {
            space: *space,
            log_id,
            first: after.next(),
            items: Vec::new(),
            end: Head { stream: *stream, position: after, chain },
        };
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            let envelope = row.get_ref(4)?.as_blob_or_null().map_err(rusqlite::Error::from)?;
            bytes += envelope.map_or(size_of::<Hash>(), <[u8]>::len);
            if !run.items.is_empty() && bytes > bytes_max {
                break;
            }
            let content = match envelope {
                Some(envelope) => ItemContent::Envelope(envelope.to_vec().into()),
                None => ItemContent::Own(Hash(row.get(3)?)),
            };
            run.items.push(Item { received_ms: Millis(get(row, 2)?), content });
            run.end.position = Position(get(row, 0)?);
            run.end.chain = Hash(row.get(1)?);
            if run.items.len() == RUN_ITEMS_MAX {
                break;
            }
        }
        Ok(Some(run))
    }

    fn frozen<T>(&self, look: impl FnOnce(&Self) -> Result<T, LogError>) -> Result<T, LogError> {
        let transaction = self.db.unchecked_transaction()?;
        let seen = look(self);
        transaction.commit()?;
        seen
    }
}

impl Reader for SqliteLog {
    fn log_id(&self, space: &SpaceId) -> Result<Option<LogId>, LogError> {
        self.db.log_id(space)
    }

    fn births(&self, space: &SpaceId) -> Result<Vec<SignedLogBorn>, LogError> {
        self.db.births(space)
    }

    fn roster_head(&self, space: &SpaceId) -> Result<Option<(RosterSeq, Hash)>, LogError> {
        self.db.roster_head(space)
    }

    fn entries(&self, space: &SpaceId, from: RosterSeq) -> Result<Vec<EntryWithWraps>, LogError> {
        self.db.entries(space, from)
    }

    fn head(&self, space: &SpaceId, stream: &StreamId) -> Result<Head, LogError> {
        self.db.head(space, stream)
    }

    fn chain(&self, space: &SpaceId, stream: &StreamId, at: Position) -> Result<Option<Hash>, LogError> {
        self.db.chain(space, stream, at)
    }

    fn at(
        &self,
        space: &SpaceId,
        stream: &StreamId,
        author: &DeviceId,
        seq: Seq,
    ) -> Result<Vec<Stored>, LogError> {
        self.db.at(space, stream, author, seq)
    }

    fn last(
        &self,
        space: &SpaceId,
        stream: &StreamId,
        author: &DeviceId,
    ) -> Result<Option<(Seq, Hash)>, LogError> {
        self.db.last(space, stream, author)
    }

    fn read(
        &self,
        space: &SpaceId,
        stream: &StreamId,
        after: Position,
        bytes_max: usize,
        own: Option<&DeviceId>,
    ) -> Result<Option<Run>, LogError> {
        self.db.read(space, stream, after, bytes_max, own)
    }

    fn frozen<T>(&self, look: impl FnOnce(&Self) -> Result<T, LogError>) -> Result<T, LogError> {
        self.db.frozen(|_| look(self))
    }
}

/// A number as SQLite keeps it: the same 64 bits, so that whatever a device claims comes back as it was.
fn int(number: u64) -> i64 {
    number.cast_signed()
}

/// A number to look for: beyond what SQLite can hold, there is nothing.
fn clamp(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn get(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(i64::cast_unsigned)
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, LogError> {
    wire::decode(bytes).map_err(|error| LogError::Damaged(error.to_string()))
}

impl From<rusqlite::Error> for LogError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation) => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Io(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
