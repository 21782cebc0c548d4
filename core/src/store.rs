//! The encrypted database of a replica: one SQLCipher file, one connection, and migrations.
//!
//! Every call that writes is one transaction with `synchronous=FULL`: when it returns, it is on disk.
//! Functions of the rooms that must be part of a transaction take [`Tx`]; readers take a connection.

pub(crate) mod alerts;
pub(crate) mod changes;
pub(crate) mod keyring;
pub(crate) mod outbox;
pub(crate) mod views;

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, config::DbConfig, ffi};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use zeroize::Zeroizing;

use crate::{
    error::{Cause, Error, Result},
    keys,
};

/// The schema's steps, in order; a database's `user_version` counts those that it has taken.
const SCHEMA: &[&str] = &[
    include_str!("store/schema/001.sql"),
    include_str!("store/schema/002.sql"),
    include_str!("store/schema/003.sql"),
];
/// Rises when views are computed differently; those of an older version are rebuilt.
pub(crate) const PROJECTION_VERSION: u32 = 2;
/// Pages of cache, negative for KiB: a month's list fits, a cheap phone does not notice.
const CACHE_KIB: i64 = 4096;
/// Prepared statements kept: all that there are. With fewer, most are prepared anew each time.
const STATEMENTS_MAX: usize = 64;

/// How often keying a connection is tried before its failure is an error.
const KEYING_TRIES_MAX: u32 = 10;

/// A transaction that writes.
pub(crate) type Tx<'a> = rusqlite::Transaction<'a>;

/// What rusqlite says; only this file and its rooms look into it.
pub(crate) type SqlResult<T> = rusqlite::Result<T>;

/// An open database.
pub(crate) struct Store {
    connection: Connection,
    /// Whether the connection stands for one that could not be opened anew yet.
    is_out: bool,
    key: Zeroizing<[u8; 32]>,
    vfs: Option<String>,
    lock: FolderLock,
}

/// Keeps other processes (and other replicas of this one) out of a replica's folder.
pub(crate) struct FolderLock {
    dir: PathBuf,
    _file: File,
}

impl FolderLock {
    /// Makes the folder if it is not there, and locks it.
    ///
    /// # Errors
    /// [`Error::InUse`] if somebody else has it.
    pub(crate) fn take(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(io)?;
        let path = dir.join("ebb.lock");
        let file = File::options().create(true).truncate(false).write(true).open(path).map_err(io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _file: file }),
            Err(Errno::WOULDBLOCK) => Err(Error::InUse(Cause::new("the lock file is held"))),
            Err(error) => Err(io(error.into())),
        }
    }

    /// Where the database is.
    pub(crate) fn database(&self) -> PathBuf {
        self.dir.join("ebb.db")
    }
}

impl Store {
    /// Opens the database in a locked folder, making it if there is none.
    ///
    /// # Errors
    /// [`Error::Unlock`] if the key is not the one it
    /// was made with, [`Error::Update`] if a newer version wrote it. Whatever the error, an existing
    /// file is as it was.
    pub(crate) fn open(lock: FolderLock, key: &[u8; 32], vfs: Option<&str>) -> Result<Self> {
        let file = lock.database();
        let key_is_right = check_key(&file, key)?;
        renew_log(&file).map_err(io)?;
        let not_a_database = |error: rusqlite::Error| match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) if !key_is_right => Error::Unlock(Cause::new(code_of(&error))),
            // With the right key, the file is damaged: to unlock again would not help.
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Error::bug(code_of(&error)),
            _ => error.into(),
        };
        let mut connection = connect(&file, key, vfs).map_err(not_a_database)?;
        migrate(&mut connection)?;
        Ok(Self { connection, is_out: false, key: Zeroizing::new(*key), vfs: vfs.map(str::to_owned), lock })
    }

    /// Opens the file anew after an error that a read that failed once explains as well as damage does.
    ///
    /// SQLCipher takes a page that could not be read for one that was tampered with, and from then on fails
    /// whatever the connection is asked.
    ///
    /// # Errors
    /// If it does not open now; until it does, [`Store::is_out`].
    pub(crate) fn renew(&mut self) -> Result<()> {
        let old = std::mem::replace(&mut self.connection, Connection::open_in_memory()?);
        self.is_out = true;
        // What a connection in this state would write back on closing is left to the next one.
        let _ = old.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        drop(old);
        let file = self.lock.database();
        renew_log(&file).map_err(io)?;
        self.connection = connect(&file, &self.key, self.vfs.as_deref())?;
        self.is_out = false;
        Ok(())
    }

    /// Whether there is no connection to the file: it could not be opened anew yet.
    pub(crate) fn is_out(&self) -> bool {
        self.is_out
    }

    /// Has it opened anew before it is used again.
    pub(crate) fn give_up(&mut self) {
        self.is_out = true;
    }

    /// Runs a transaction: all of it becomes durable, or none.
    ///
    /// # Errors
    /// What `work` fails with, or what the database does; nothing was changed then.
    pub(crate) fn write<T>(&mut self, work: impl FnOnce(&Tx<'_>) -> Result<T>) -> Result<T> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let outcome = work(&tx)?;
        tx.commit()?;
        Ok(outcome)
    }

    /// The connection, to read from.
    pub(crate) fn read(&self) -> &Connection {
        &self.connection
    }
}

/// Compares the key with the one that the database was made with, before anything is opened: SQLCipher
/// cannot tell a wrong key from a damaged file. `false` where there is nothing to compare with.
fn check_key(database: &Path, key: &[u8; 32]) -> Result<bool> {
    let path: PathBuf = database.with_extension("keycheck");
    let check = keys::derive_database_key_check(key);
    let is_new = std::fs::metadata(database).map_or(true, |file| file.len() == 0);
    match std::fs::read(&path) {
        Ok(known) if known == check => Ok(true),
        // Left behind when making a database was interrupted, before anything was in it.
        _ if is_new => write_durably(&path, &check).map(|()| true),
        Ok(_) => Err(Error::Unlock(Cause::new("the database was made with another key"))),
        // The check was lost: let the database itself decide.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io(error)),
    }
}

fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, bytes).and_then(|()| replace_durably(&fresh, path)).map_err(io)
}

/// Moves a file that was just written into the place of another, such that no cut leaves less than one of them.
pub(crate) fn replace_durably(fresh: &Path, path: &Path) -> std::io::Result<()> {
    File::options().write(true).open(fresh)?.sync_all()?;
    std::fs::rename(fresh, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Puts a durable copy in the place of the write-ahead log that an earlier connection left.
///
/// If that could not sync what it wrote, it is in the operating system's cache and perhaps nowhere else, where
/// it passes for clean: no later sync writes it, and what is built upon it, or moved into the database from it,
/// is torn by the next power cut. A copy is written, and so can be synced.
fn renew_log(database: &Path) -> std::io::Result<()> {
    let log = database.with_extension("db-wal");
    if !std::fs::exists(&log)? {
        return Ok(());
    }
    let fresh = log.with_added_extension("new");
    let renewed = std::fs::copy(&log, &fresh).and_then(|_| replace_durably(&fresh, &log));
    // On a full disk, half a copy would keep the room that somebody makes.
    renewed.inspect_err(|_| drop(std::fs::remove_file(&fresh)))
}

/// Opens and keys a connection; a file that cannot be read, or seems damaged, gets some more tries.
///
/// `sqlite3_initialize` lets other threads through before SQLCipher's part of it (SQLITE_EXTRA_INIT) has
/// run: who comes in between, when a process opens its first databases, hears SQLITE_ERROR from
/// `PRAGMA key`, and nothing was touched. So one at a time; and since others in the process may be using
/// SQLite too, a failure of that kind is tried again.
fn connect(file: &Path, key: &[u8; 32], vfs: Option<&str>) -> SqlResult<Connection> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();
    let mut tries = 1;
    loop {
        match connect_once(file, key, vfs) {
            Err(error) if tries < KEYING_TRIES_MAX && is_worth_a_try(&error) => tries += 1,
            outcome => return outcome,
        }
    }
}

fn is_worth_a_try(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::Unknown | ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

fn connect_once(file: &Path, key: &[u8; 32], vfs: Option<&str>) -> SqlResult<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = match vfs {
        Some(vfs) => Connection::open_with_flags_and_vfs(file, flags, vfs)?,
        None => Connection::open_with_flags(file, flags)?,
    };
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    let hex: Zeroizing<String> = Zeroizing::new(key.iter().map(|byte| format!("{byte:02x}")).collect());
    // A raw key: there is nothing to stretch, and a passphrase costs 180 ms at every open. Pages carry an
    // HMAC-SHA-256: phones and PCs have instructions for it, which few have for SQLCipher's own choice,
    // SHA-512, where it was half of what a commit cost.
    connection.execute_batch(&Zeroizing::new(format!(
        "PRAGMA cipher_log_level = NONE;
         PRAGMA key = \"x'{}'\";
         PRAGMA cipher_hmac_algorithm = HMAC_SHA256;
         PRAGMA locking_mode = EXCLUSIVE;
         PRAGMA mmap_size = 0;
         PRAGMA cache_size = -{CACHE_KIB};
         PRAGMA temp_store = MEMORY;
         PRAGMA foreign_keys = OFF;",
        *hex
    )))?;
    connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
    // To its end: the row comes first, and then the failure to make it so. With a rollback journal, which it
    // would stay with, a power cut could undo what was saved (FULL does not sync that journal's deletion).
    let mut set = connection.prepare("PRAGMA journal_mode = WAL")?;
    let modes: Vec<String> = set.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    drop(set);
    if modes != ["wal"] {
        return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), None));
    }
    // On Apple's systems a plain fsync leaves bytes in the drive's cache, in any order.
    connection.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON",
    )?;
    connection.busy_timeout(Duration::from_millis(0))?;
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> Result<()> {
    let version: usize = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > SCHEMA.len() {
        return Err(Error::Update(Cause::new(format!("schema {version} is newer than {}", SCHEMA.len()))));
    }
    for (step, sql) in SCHEMA.iter().enumerate().skip(version) {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "user_version", step + 1)?;
        tx.commit()?;
    }
    Ok(())
}

fn io(error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::StorageFull => Error::FreeSpace(Cause::new(error.kind().to_string())),
        kind => Error::retry(kind.to_string()),
    }
}

/// An SQLite error by its code alone: its message could quote a statement's values.
fn code_of(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => {
            format!("SQLite {:?} ({})", failure.code, failure.extended_code)
        }
        rusqlite::Error::InvalidColumnType(column, ..) => format!("column {column} is not of its type"),
        rusqlite::Error::QueryReturnedNoRows => "no such row".into(),
        _ => "SQLite statement and row do not fit".into(),
    }
}

/// Whether it was writing that failed, and not reading. A connection whose sync failed must go on: it writes
/// over what was not synced, while a new one would take it for durable.
fn failed_to_write(error: &rusqlite::Error) -> bool {
    let write = [
        ffi::SQLITE_IOERR_WRITE,
        ffi::SQLITE_IOERR_FSYNC,
        ffi::SQLITE_IOERR_DIR_FSYNC,
        ffi::SQLITE_IOERR_TRUNCATE,
    ];
    matches!(error, rusqlite::Error::SqliteFailure(failure, _) if write.contains(&failure.extended_code))
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        let cause = Cause::new(code_of(&error));
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::FreeSpace(cause),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse(cause),
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Self::Retry(Cause::unread(code_of(&error)))
            }
            Some(ErrorCode::SystemIoFailure) if !failed_to_write(&error) => {
                Self::Retry(Cause::unread(code_of(&error)))
            }
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::OutOfMemory
                | ErrorCode::ReadOnly,
            ) => Self::Retry(cause),
            _ => Self::Bug(cause),
        }
    }
}

/// Reads an id of fixed length from a column.
pub(crate) fn id<const N: usize>(row: &rusqlite::Row<'_>, column: usize) -> SqlResult<[u8; N]> {
    row.get::<_, [u8; N]>(column)
}

#[cfg(test)]
mod tests;
