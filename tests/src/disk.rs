//! A disk that can be full, fail and count: a SQLite VFS below SQLCipher, over the platform's own.
//!
//! Each [`Disk`] registers a VFS of its own, whose name goes into the configuration of a replica or a
//! server. Every operation on a file passes `State::verdict`, the one place where faults are decided,
//! by what kind of file it is and never by what is written. Whoever wants to lose or tear what was not
//! synced finds there every open, write, sync, truncation and deletion.

#![expect(unsafe_code, reason = "a VFS is a table of C functions; this is the one file that has some")]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    mem::{align_of, size_of},
    ptr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs};

/// What a file is to SQLite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// The database itself.
    Database,
    /// Its write-ahead log.
    Wal,
    /// A rollback journal or a temporary file.
    Other,
}

/// What happened to files of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads.
    pub reads: u64,
    /// Writes that succeeded.
    pub writes: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Syncs that succeeded.
    pub syncs: u64,
    /// Operations that were made to fail.
    pub faults: u64,
}

/// What is about to happen to a file.
#[derive(Clone, Copy, Debug)]
enum Op<'a> {
    Open,
    Read,
    Write { bytes: &'a [u8] },
    Truncate,
    Sync,
    Delete,
}

#[derive(Debug, Default)]
struct State {
    database: Counts,
    wal: Counts,
    other: Counts,
    /// Bytes that may still be written; `None` for no limit.
    room: Option<u64>,
    reads_fail: bool,
    syncs_fail: bool,
}

impl State {
    /// Decides what becomes of an operation, and counts it.
    fn verdict(&mut self, kind: FileKind, op: Op<'_>) -> Result<(), c_int> {
        let verdict = match op {
            Op::Open | Op::Truncate | Op::Delete => Ok(()),
            Op::Read if self.reads_fail => Err(ffi::SQLITE_IOERR_READ),
            Op::Sync if self.syncs_fail => Err(ffi::SQLITE_IOERR_FSYNC),
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
            (Ok(()), Op::Open | Op::Truncate | Op::Delete) => {}
        }
        verdict
    }

    fn counts(&mut self, kind: FileKind) -> &mut Counts {
        match kind {
            FileKind::Database => &mut self.database,
            FileKind::Wal => &mut self.wal,
            FileKind::Other => &mut self.other,
        }
    }
}

/// What the functions of one VFS share.
struct Shared {
    state: Mutex<State>,
    /// The platform's VFS, registered for the life of the process.
    below: *mut sqlite3_vfs,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A disk under a name of its own.
pub struct Disk {
    name: String,
    shared: Arc<Shared>,
    vfs: *mut sqlite3_vfs,
}

// SAFETY: the pointer is to a VFS table, which SQLite itself shares between threads and never changes;
// everything that changes is behind the mutex.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Disk {}
// SAFETY: as above.
unsafe impl Sync for Disk {}

impl Default for Disk {
    fn default() -> Self {
        Self::new()
    }
}

impl Disk {
    /// Registers a disk without faults.
    ///
    /// # Panics
    /// If SQLite has no VFS of the platform.
    #[must_use]
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("ebb-disk-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        // SAFETY: a null name asks for the default VFS; SQLite initialises itself first.
        let below = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
        assert!(!below.is_null(), "SQLite has a VFS of the platform");
        let shared = Arc::new(Shared { state: Mutex::default(), below });
        // SAFETY: `below` is a registered VFS, whose table never changes.
        let (path_max, file_bytes) = unsafe { ((*below).mxPathname, (*below).szOsFile) };
        let own_bytes = c_int::try_from(BELOW_AT).expect("a few words");
        let vfs = sqlite3_vfs {
            iVersion: 2,
            szOsFile: own_bytes + file_bytes,
            mxPathname: path_max,
            pNext: ptr::null_mut(),
            zName: CString::new(name.as_str()).expect("no zeros").into_raw(),
            pAppData: Arc::into_raw(shared.clone()).cast_mut().cast(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_pathname),
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(randomness),
            xSleep: Some(sleep),
            xCurrentTime: Some(current_time),
            xGetLastError: Some(last_error),
            xCurrentTimeInt64: Some(current_time_int64),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        };
        // Table, name and state are never freed: a connection may outlive the handle, and tests end soon.
        let vfs = Box::into_raw(Box::new(vfs));
        // SAFETY: the table is complete and lives for ever.
        let registered = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
        assert_eq!(registered, ffi::SQLITE_OK, "a VFS with a fresh name registers");
        Self { name, shared, vfs }
    }

    /// The name for the configuration of a replica or a server.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// From now on no write succeeds any more: the disk is full.
    pub fn fill(&self) {
        self.leave_room(0);
    }

    /// From now on so many bytes can be written, and then no more.
    pub fn leave_room(&self, bytes: u64) {
        self.shared.state().room = Some(bytes);
    }

    /// There is room again.
    pub fn free(&self) {
        self.shared.state().room = None;
    }

    /// Whether reads fail from now on.
    pub fn fail_reads(&self, fail: bool) {
        self.shared.state().reads_fail = fail;
    }

    /// Whether syncs fail from now on.
    pub fn fail_syncs(&self, fail: bool) {
        self.shared.state().syncs_fail = fail;
    }

    /// What happened to files of a kind so far.
    #[must_use]
    pub fn counts(&self, kind: FileKind) -> Counts {
        *self.shared.state().counts(kind)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // SAFETY: registered in `new`, once. Files that are still open go on through their own tables.
        unsafe { ffi::sqlite3_vfs_unregister(self.vfs) };
    }
}

/// An open file: SQLite's part first, then ours; behind it, at [`BELOW_AT`], the platform's own.
#[repr(C)]
struct File {
    base: sqlite3_file,
    open: *mut Opened,
}

struct Opened {
    shared: Arc<Shared>,
    kind: FileKind,
}

/// Where the platform's file begins, aligned for whatever it holds.
const BELOW_AT: usize = {
    let align = if align_of::<File>() > 16 { align_of::<File>() } else { 16 };
    size_of::<File>().next_multiple_of(align)
};

/// The state of a VFS.
///
/// # Safety
/// `vfs` is one of those that [`Disk::new`] made.
unsafe fn shared(vfs: *mut sqlite3_vfs) -> Arc<Shared> {
    // SAFETY: `pAppData` came from `Arc::into_raw` and is never taken back, so the count stays above 0.
    unsafe {
        let raw = (*vfs).pAppData.cast::<Shared>().cast_const();
        Arc::increment_strong_count(raw);
        Arc::from_raw(raw)
    }
}

/// The platform's file behind one of ours, and what ours knows.
///
/// # Safety
/// `file` was opened by [`open`] with success and is not closed.
unsafe fn parts<'a>(file: *mut sqlite3_file) -> (*mut sqlite3_file, &'a Opened) {
    // SAFETY: SQLite reserved `szOsFile` bytes, so the platform's part lies within; `open` was set.
    unsafe { (file.cast::<u8>().add(BELOW_AT).cast(), &*(*file.cast::<File>()).open) }
}

/// Calls a function of the platform's file.
macro_rules! below {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        let file: *mut sqlite3_file = $file;
        // SAFETY: the platform's file is open, and its table has every function of version 2.
        unsafe { ((*(*file).pMethods).$method.expect("a function of version 2"))(file $(, $argument)*) }
    }};
}

/// Calls a function of the platform's VFS.
macro_rules! below_vfs {
    ($vfs:expr, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: `vfs` is ours, and the platform's VFS has every function of version 2.
        unsafe {
            let below = shared($vfs).below;
            ((*below).$method.expect("a function of version 2"))(below $(, $argument)*)
        }
    }};
}

unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite hands over one of our VFS, and a file of `szOsFile` bytes.
    let (shared, below) = unsafe {
        (*file).pMethods = ptr::null();
        let below: *mut sqlite3_file = file.cast::<u8>().add(BELOW_AT).cast();
        (*below).pMethods = ptr::null();
        (shared(vfs), below)
    };
    let kind = match flags {
        _ if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 => FileKind::Database,
        _ if flags & ffi::SQLITE_OPEN_WAL != 0 => FileKind::Wal,
        _ => FileKind::Other,
    };
    if let Err(code) = shared.state().verdict(kind, Op::Open) {
        return code;
    }
    let code = below_vfs!(vfs, xOpen, name, below, flags, out_flags);
    if code != ffi::SQLITE_OK {
        // SAFETY: what failed to open may still want to be closed; then it has set its table.
        if unsafe { !(*below).pMethods.is_null() } {
            below!(below, xClose);
        }
        return code;
    }
    // SAFETY: the file is SQLite's to keep, and large enough.
    unsafe {
        (*file.cast::<File>()).open = Box::into_raw(Box::new(Opened { shared, kind }));
        (*file).pMethods = &METHODS;
    }
    code
}

unsafe extern "C" fn delete(vfs: *mut sqlite3_vfs, name: *const c_char, sync_dir: c_int) -> c_int {
    // SAFETY: as SQLite calls it: our VFS, and a name.
    let (shared, name_bytes) = unsafe { (shared(vfs), CStr::from_ptr(name).to_bytes()) };
    let kind = if name_bytes.ends_with(b"-wal") { FileKind::Wal } else { FileKind::Other };
    match shared.state().verdict(kind, Op::Delete) {
        Ok(()) => below_vfs!(vfs, xDelete, name, sync_dir),
        Err(code) => code,
    }
}

unsafe extern "C" fn access(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    below_vfs!(vfs, xAccess, name, flags, out)
}

unsafe extern "C" fn full_pathname(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    len: c_int,
    out: *mut c_char,
) -> c_int {
    below_vfs!(vfs, xFullPathname, name, len, out)
}

unsafe extern "C" fn randomness(vfs: *mut sqlite3_vfs, len: c_int, out: *mut c_char) -> c_int {
    below_vfs!(vfs, xRandomness, len, out)
}

unsafe extern "C" fn sleep(vfs: *mut sqlite3_vfs, micros: c_int) -> c_int {
    below_vfs!(vfs, xSleep, micros)
}

unsafe extern "C" fn current_time(vfs: *mut sqlite3_vfs, out: *mut f64) -> c_int {
    below_vfs!(vfs, xCurrentTime, out)
}

unsafe extern "C" fn last_error(vfs: *mut sqlite3_vfs, len: c_int, out: *mut c_char) -> c_int {
    below_vfs!(vfs, xGetLastError, len, out)
}

unsafe extern "C" fn current_time_int64(vfs: *mut sqlite3_vfs, out: *mut sqlite3_int64) -> c_int {
    below_vfs!(vfs, xCurrentTimeInt64, out)
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Defines functions of a file that ask for a verdict, or none, and then go to the platform's file.
macro_rules! forward {
    ($($name:ident = $method:ident ($($argument:ident: $type:ty),*) -> $out:ty $(, $op:expr)?;)*) => {$(
        unsafe extern "C" fn $name(file: *mut sqlite3_file $(, $argument: $type)*) -> $out {
            // SAFETY: SQLite calls this on files that are open, with arguments as documented.
            let (below, _opened) = unsafe { parts(file) };
            $(
                if let Err(code) = _opened.shared.state().verdict(_opened.kind, $op) {
                    return code;
                }
            )?
            below!(below, $method $(, $argument)*)
        }
    )*};
}

forward! {
    read = xRead(out: *mut c_void, len: c_int, at: sqlite3_int64) -> c_int, Op::Read;
    truncate = xTruncate(size: sqlite3_int64) -> c_int, Op::Truncate;
    sync = xSync(flags: c_int) -> c_int, Op::Sync;
    file_size = xFileSize(out: *mut sqlite3_int64) -> c_int;
    lock = xLock(level: c_int) -> c_int;
    unlock = xUnlock(level: c_int) -> c_int;
    check_reserved_lock = xCheckReservedLock(out: *mut c_int) -> c_int;
    file_control = xFileControl(op: c_int, argument: *mut c_void) -> c_int;
    sector_size = xSectorSize() -> c_int;
    device_characteristics = xDeviceCharacteristics() -> c_int;
    shm_map = xShmMap(page: c_int, bytes: c_int, extend: c_int, out: *mut *mut c_void) -> c_int;
    shm_lock = xShmLock(offset: c_int, n: c_int, flags: c_int) -> c_int;
    shm_barrier = xShmBarrier() -> ();
    shm_unmap = xShmUnmap(delete: c_int) -> c_int;
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    from: *const c_void,
    len: c_int,
    at: sqlite3_int64,
) -> c_int {
    // SAFETY: the file is open, and SQLite gives `len` bytes.
    let (below, opened, bytes) = unsafe {
        let (below, opened) = parts(file);
        (below, opened, std::slice::from_raw_parts(from.cast::<u8>(), usize::try_from(len).unwrap_or(0)))
    };
    match opened.shared.state().verdict(opened.kind, Op::Write { bytes }) {
        Ok(()) => below!(below, xWrite, from, len, at),
        Err(code) => code,
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: the file is open; SQLite calls this once and nothing after it.
    let below = unsafe { file.cast::<u8>().add(BELOW_AT).cast::<sqlite3_file>() };
    let code = below!(below, xClose);
    // SAFETY: as above: nobody uses what `open` allocated any more.
    unsafe {
        let own = file.cast::<File>();
        drop(Box::from_raw((*own).open));
        (*own).open = ptr::null_mut();
        (*file).pMethods = ptr::null();
    }
    code
}

#[cfg(test)]
mod tests {
    use rusqlite::{Connection, ErrorCode, OpenFlags};

    use super::*;

    #[test]
    fn it_counts_and_is_full_and_has_room_again() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let disk = Disk::new();
        let db =
            Connection::open_with_flags_and_vfs(dir.path().join("db"), OpenFlags::default(), disk.name())
                .expect("opens");
        db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (a);")
            .expect("works");
        let before = disk.counts(FileKind::Wal);
        db.execute("INSERT INTO t VALUES (1)", []).expect("works");
        let after = disk.counts(FileKind::Wal);
        assert_eq!(after.syncs, before.syncs + 1);
        assert!(after.bytes > before.bytes + 4096);

        let code = |insert: rusqlite::Result<usize>| insert.expect_err("fails").sqlite_error_code();
        disk.fill();
        assert_eq!(code(db.execute("INSERT INTO t VALUES (2)", [])), Some(ErrorCode::DiskFull));
        disk.free();
        disk.fail_syncs(true);
        assert_eq!(code(db.execute("INSERT INTO t VALUES (2)", [])), Some(ErrorCode::SystemIoFailure));
        disk.fail_syncs(false);
        db.execute("INSERT INTO t VALUES (2)", []).expect("works again");
        let sum: i64 = db.query_row("SELECT sum(a) FROM t", [], |row| row.get(0)).expect("reads");
        assert_eq!(sum, 3);
    }
}
