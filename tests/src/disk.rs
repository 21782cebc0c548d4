//! A disk that can be full, fail, count and lose its power: a SQLite VFS below SQLCipher, over the platform's
//! own.
//!
//! Each [`Disk`] registers a VFS of its own, whose name goes into the configuration of a replica or a
//! server. Every operation on what a file holds passes `State::verdict`, the one place where faults are decided,
//! by what kind of file it is and never by what is written. A [`Disk::simulated`] knows besides what is
//! durable ([`medium`]): it can lose, tear and reorder whatever was not synced when the power was cut.
//!
//! Locks, shared memory and names are the platform's: what a process shares with others is gone after a cut
//! anyway. Folders are synced when SQLite's unix VFS does it: with the first sync of a journal or write-ahead
//! log that it opened to create (`isNewJrnl` in `unixOpen`, `UNIXFILE_DIRSYNC` in `unixSync`), and when a file
//! is deleted with `syncDir` (`unixDelete`). A main database's name is not synced by itself.

#![expect(unsafe_code, reason = "a VFS is a table of C functions; this is the one file that has some")]

pub mod medium;
mod state;

use std::{
    ffi::{CStr, CString, OsStr, c_char, c_int, c_void},
    mem::{align_of, size_of},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    ptr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs};
use tempfile::TempDir;

pub use medium::Random;
use medium::{Event, FileNumber, Loss};
use state::{Failing, Mode, Op, Power, Simulation, State};

/// A temporary folder, in memory where the platform has such: a simulated disk needs no real one below it.
///
/// # Panics
/// Where there is no room for one.
#[must_use]
pub fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("a temporary folder")
}

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
    /// Operations that were made to fail, while there was power.
    pub faults: u64,
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
        Self::register(Mode::Through)
    }

    /// Registers a disk that knows what is durable, and forces nothing to the platform's: so it is fast, and
    /// after [`cut`](Self::cut) and [`power_on`](Self::power_on) its files are what a cut may leave. What it
    /// takes follows from the seed and from what was done to the files.
    #[must_use]
    pub fn simulated(seed: u64) -> Self {
        Self::register(Mode::Simulated(Box::new(Simulation::new(seed))))
    }

    /// Registers a disk that forces nothing and remembers nothing: for files that are looked at once.
    #[must_use]
    pub fn careless() -> Self {
        Self::register(Mode::Careless)
    }

    fn register(mode: Mode) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("ebb-disk-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        // SAFETY: a null name asks for the default VFS; SQLite initialises itself first.
        let below = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
        assert!(!below.is_null(), "SQLite has a VFS of the platform");
        let shared = Arc::new(Shared { state: Mutex::new(State::new(mode)), below });
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
        self.shared.state().reads = Failing::all(fail);
    }

    /// Whether syncs fail from now on.
    pub fn fail_syncs(&self, fail: bool) {
        self.shared.state().syncs = Failing::all(fail);
    }

    /// The next so many reads fail, and then no more.
    pub fn fail_next_reads(&self, count: u64) {
        self.shared.state().reads = Failing::next(count);
    }

    /// The next so many syncs fail, and then no more.
    pub fn fail_next_syncs(&self, count: u64) {
        self.shared.state().syncs = Failing::next(count);
    }

    /// Whether a failed sync of a simulated disk forgets what it was for: later syncs succeed, and what was
    /// written before the failed one is lost all the same, or in part ([`Event::Forgotten`]).
    pub fn forget_on_failed_sync(&self, forget: bool) {
        self.shared.state().forgets = forget;
    }

    /// From now on every sync costs so much virtual time, for [`sync_cost_ms`](Self::sync_cost_ms).
    pub fn slow_syncs(&self, each_ms: u64) {
        self.shared.state().sync_ms = each_ms;
    }

    /// What all syncs cost so far, in virtual milliseconds: whoever owns the clock moves it on.
    #[must_use]
    pub fn sync_cost_ms(&self) -> u64 {
        self.shared.state().sync_cost_ms
    }

    /// How many syncs were tried so far, of files and of folders: the boundaries at which a cut can fall.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.shared.state().syncs_done
    }

    /// Cuts the power: nothing is written, deleted or read any more, and everything but closing fails.
    pub fn cut(&self) {
        self.shared.state().power = Power::Off;
    }

    /// Cuts the power just before a sync to come, the next being 1 (0 is now).
    pub fn cut_at_sync(&self, sync: u64) {
        self.shared.state().power = if sync == 0 { Power::Off } else { Power::UntilSync(sync) };
    }

    /// Takes back a cut that was to come at a sync.
    pub fn stay_on(&self) {
        let mut state = self.shared.state();
        if state.power != Power::Off {
            state.power = Power::On;
        }
    }

    /// Whether the power was cut.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.shared.state().power == Power::Off
    }

    /// Gives power back. If it was cut, a simulated disk's files are then what that left of them, durably.
    ///
    /// # Panics
    /// If a file is still open, or one cannot be written.
    pub fn power_on(&self) {
        self.power_on_after(Loss::Any);
    }

    /// The same, the loss being chosen by the caller.
    ///
    /// # Panics
    /// As [`power_on`](Self::power_on).
    pub fn power_on_after(&self, loss: Loss) {
        self.shared.state().power_on(loss).expect("the platform's disk takes files");
    }

    /// Takes the files of a folder for durable as they are when they are next opened: somebody changed them
    /// past this disk (a backup was put back). None of them is open.
    pub fn forget(&self, folder: &Path) {
        self.shared.state().forget(folder);
    }

    /// Records from now on what happens to a simulated disk.
    ///
    /// # Panics
    /// If it is not simulated.
    pub fn record(&self) {
        self.shared.state().record();
    }

    /// Puts a mark into the recording.
    ///
    /// # Panics
    /// If the disk is not simulated.
    pub fn mark(&self, number: u64) {
        self.shared.state().mark(number);
    }

    /// Ends the recording and gives it.
    ///
    /// # Panics
    /// If the disk is not simulated.
    #[must_use]
    pub fn recorded(&self) -> Vec<Event> {
        self.shared.state().recorded()
    }

    /// Operations that were made to fail so far, while there was power.
    #[must_use]
    pub fn faults(&self) -> u64 {
        [FileKind::Database, FileKind::Wal, FileKind::Other].map(|kind| self.counts(kind).faults).iter().sum()
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
        self.shared.state().released();
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
    /// Its number on a simulated disk.
    number: Option<FileNumber>,
    /// Its name; none for a temporary file, which nobody misses after a cut.
    path: Option<PathBuf>,
    /// Whether the folder is synced with the file's next sync.
    folder_due: AtomicBool,
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
    // SAFETY: a name is null or a C string.
    let path = (!name.is_null()).then(|| unsafe { path_of(name) });
    let mut state = shared.state();
    if let Err(code) = state.verdict(kind, Op::Open) {
        return code;
    }
    let found = path.as_deref().and_then(|path| state.found(path));
    let code = below_vfs!(vfs, xOpen, name, below, flags, out_flags);
    if code != ffi::SQLITE_OK {
        // SAFETY: what failed to open may still want to be closed; then it has set its table.
        if unsafe { !(*below).pMethods.is_null() } {
            below!(below, xClose);
        }
        return code;
    }
    let number = path.clone().and_then(|path| state.opened(path, found));
    state.open += 1;
    drop(state);
    let folder_due = AtomicBool::new(syncs_folder(flags));
    // SAFETY: the file is SQLite's to keep, and large enough.
    unsafe {
        (*file.cast::<File>()).open =
            Box::into_raw(Box::new(Opened { shared, kind, number, path, folder_due }));
        (*file).pMethods = &METHODS;
    }
    code
}

/// Whether the first sync of a file that was opened so syncs its folder too: `isNewJrnl` in `unixOpen`.
fn syncs_folder(flags: c_int) -> bool {
    let journals = ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL | ffi::SQLITE_OPEN_WAL;
    flags & ffi::SQLITE_OPEN_CREATE != 0 && flags & journals != 0
}

/// A name as SQLite gives it.
///
/// # Safety
/// `name` is a C string.
unsafe fn path_of(name: *const c_char) -> PathBuf {
    // SAFETY: as the caller promises.
    PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(name).to_bytes() }))
}

unsafe extern "C" fn delete(vfs: *mut sqlite3_vfs, name: *const c_char, sync_dir: c_int) -> c_int {
    // SAFETY: as SQLite calls it: our VFS, and a name.
    let (shared, path) = unsafe { (shared(vfs), path_of(name)) };
    let is_wal = path.as_os_str().as_bytes().ends_with(b"-wal");
    let kind = if is_wal { FileKind::Wal } else { FileKind::Other };
    let mut state = shared.state();
    if let Err(code) = state.verdict(kind, Op::Delete) {
        return code;
    }
    let forwarded = if state.forwards_syncs() { sync_dir } else { 0 };
    let found = state.found(&path);
    let code = below_vfs!(vfs, xDelete, name, forwarded);
    if code != ffi::SQLITE_OK {
        return code;
    }
    if found.is_some() {
        state.opened(path.clone(), found);
    }
    state.deleted(&path);
    if sync_dir & 1 != 0 {
        if let Err(code) = state.verdict(kind, Op::SyncFolder) {
            return code;
        }
        state.synced_folder(&path);
    }
    code
}

unsafe extern "C" fn access(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: as SQLite calls it: our VFS.
    let shared = unsafe { shared(vfs) };
    if let Err(code) = shared.state().verdict(FileKind::Other, Op::Look) {
        return code;
    }
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
    file_size = xFileSize(out: *mut sqlite3_int64) -> c_int, Op::Look;
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
    let mut state = opened.shared.state();
    if let Err(code) = state.verdict(opened.kind, Op::Write { bytes }) {
        return code;
    }
    let code = below!(below, xWrite, from, len, at);
    if code == ffi::SQLITE_OK {
        state.wrote(opened.number, at, bytes);
    }
    code
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    // SAFETY: the file is open.
    let (below, opened) = unsafe { parts(file) };
    let mut state = opened.shared.state();
    if let Err(code) = state.verdict(opened.kind, Op::Truncate) {
        return code;
    }
    let code = below!(below, xTruncate, size);
    if code == ffi::SQLITE_OK {
        state.truncated(opened.number, size);
    }
    code
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: the file is open.
    let (below, opened) = unsafe { parts(file) };
    let mut state = opened.shared.state();
    if let Err(code) = state.verdict(opened.kind, Op::Sync) {
        state.failed_to_sync(opened.number);
        return code;
    }
    if state.forwards_syncs() {
        drop(state);
        return below!(below, xSync, flags);
    }
    state.synced(opened.number);
    if opened.folder_due.swap(false, Ordering::Relaxed)
        && let Some(path) = &opened.path
    {
        if let Err(code) = state.verdict(opened.kind, Op::SyncFolder) {
            return code;
        }
        state.synced_folder(path);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: the file is open; SQLite calls this once and nothing after it.
    let below = unsafe { file.cast::<u8>().add(BELOW_AT).cast::<sqlite3_file>() };
    let code = below!(below, xClose);
    // SAFETY: as above: nobody uses what `open` allocated any more.
    unsafe {
        let own = file.cast::<File>();
        let opened = Box::from_raw((*own).open);
        opened.shared.state().closed();
        drop(opened);
        (*own).open = ptr::null_mut();
        (*file).pMethods = ptr::null();
    }
    code
}

#[cfg(test)]
mod tests;
