//! A small clinic for tests: one server, phones and desks, each with its own folder.

use std::{
    fmt::Write as _,
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ebb_core::{
    Config, Entry, FileVault, Observer, Query, Record, RecordId, Replica, Start, SyncStatus, Synced,
    document::gate,
    link::{ServerAddress, Transport},
    record::{CheckIn, Unit},
    seal::Payload,
};
use ebb_protocol::{id::SpaceId, wire::SignedPins};
use ebb_sync_server::{Server, config, keys::Keys, log::sqlite, system};
use tempfile::TempDir;
use tracing_subscriber::{Layer, filter::LevelFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// How long a test waits for something that must happen; far above what it takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a server's data in it, and the server when it runs.
pub struct TestServer {
    /// Its data.
    pub dir: PathBuf,
    /// Its keys' public side.
    pub pins: SignedPins,
    /// Where it listens (the same after every restart).
    pub address: ServerAddress,
    process: Option<Child>,
    node: PathBuf,
    trace: Option<PathBuf>,
}

impl TestServer {
    /// Makes a deployment in `dir` and starts its server as a process of its own. `node` is the path of
    /// this package's binary.
    #[must_use]
    pub fn start(dir: &Path, node: &str) -> Self {
        let keys = Keys::init(dir).expect("a fresh folder takes keys");
        Self::start_over(dir, node, keys.pins, None)
    }

    /// The same, everything that the server logs at trace level going into a file.
    #[must_use]
    pub fn start_traced(dir: &Path, node: &str, trace: &Path) -> Self {
        let keys = Keys::init(dir).expect("a fresh folder takes keys");
        Self::start_over(dir, node, keys.pins, Some(trace.to_owned()))
    }

    /// Starts the server of a deployment that `dir` holds already.
    #[must_use]
    pub fn start_existing(dir: &Path, node: &str) -> Self {
        let keys = Keys::load(dir).expect("the folder holds a deployment's keys");
        Self::start_over(dir, node, keys.pins, None)
    }

    fn start_over(dir: &Path, node: &str, pins: SignedPins, trace: Option<PathBuf>) -> Self {
        show_logs();
        let address = ServerAddress { quic: "127.0.0.1:0".into(), tcp: "127.0.0.1:0".into() };
        let (dir, node) = (dir.to_owned(), PathBuf::from(node));
        let mut server = Self { dir, pins, address, process: None, node, trace };
        server.restart();
        server
    }

    /// Starts the server again on the same ports.
    pub fn restart(&mut self) {
        let mut command = Command::new(&self.node);
        command
            .args(["server", &self.dir.to_string_lossy(), &self.address.quic, &self.address.tcp])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(trace) = &self.trace {
            let file = File::options().create(true).append(true).open(trace).expect("a file to log to");
            command.env("RUST_LOG", "trace").stderr(file);
        }
        let mut process = command.spawn().expect("the test binary starts");
        let mut ports = String::new();
        let stdout = process.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut ports).expect("the server says its ports");
        let (quic, tcp) = ports.trim().split_once(' ').expect("two addresses");
        self.address = ServerAddress { quic: quic.into(), tcp: tcp.into() };
        self.process = Some(process);
    }

    /// Kills the server as a power cut would (as far as a process can tell).
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("the server's process is ours");
            process.wait().expect("the server's process is ours");
        }
    }

    /// Ends the server gracefully.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.stdin.take());
            assert!(process.wait().expect("the server's process is ours").success());
        }
    }

    /// The most memory that the server's process has held so far, in KiB; `None` where the system does not
    /// tell (it is Linux that does).
    #[must_use]
    pub fn peak_kib(&self) -> Option<u64> {
        let process = self.process.as_ref()?;
        peak_kib(&process.id().to_string())
    }

    /// The log's files, as they are to be copied aside or put back.
    #[must_use]
    pub fn log_files(&self) -> Vec<PathBuf> {
        let log = config::Config::local(&self.dir).log_path();
        let beside = |suffix: &str| PathBuf::from(format!("{}{suffix}", log.display()));
        [log.clone(), beside("-wal"), beside("-shm")].into_iter().filter(|path| path.exists()).collect()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The most memory that a process has held so far, in KiB: `self`, or a number. `None` where the system does
/// not tell (proc(5) of Linux does).
#[must_use]
pub fn peak_kib(process: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").trim().parse().ok()
}

/// Serves in this process until standard input ends: what the test binary does in its role as server.
///
/// # Panics
/// When the server does not start: the test that started it sees that.
pub fn serve(dir: &Path, quic: &str, tcp: &str) {
    show_logs();
    system::raise_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    runtime.block_on(async {
        let mut config = config(dir);
        config.quic_listen = quic.parse().expect("an address");
        config.tcp_listen = tcp.parse().expect("an address");
        let log =
            sqlite::SqliteLog::open(&config.log_path(), sqlite::Options::default()).expect("the log opens");
        let server = Server::bind(config, log).await.expect("the ports are free");
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{} {}", server.quic_addr, server.tcp_addr).expect("somebody listens");
        stdout.flush().expect("somebody listens");
        drop(stdout);
        let (ended, end) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            while std::io::stdin().read_line(&mut line).is_ok_and(|read| read > 0) {}
            let _ = ended.send(());
        });
        server.run(async { drop(end.await) }).await.expect("the server ends in order");
    });
    assert_no_errors();
}

/// A server's configuration for tests: one machine, no quotas, short pauses.
fn config(dir: &Path) -> config::Config {
    config::Config {
        bytes_per_day: 0,
        envelopes_per_minute: 0,
        back_off_ms: 50,
        stop_retry_ms: 100,
        ..config::Config::local(dir)
    }
}

/// A server in this very process, over a disk of the test's own.
pub struct LocalServer {
    /// Its keys' public side.
    pub pins: SignedPins,
    /// Where it listens.
    pub address: ServerAddress,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl LocalServer {
    /// Starts a server whose log is opened through a VFS; it makes the deployment's keys if there are none.
    #[must_use]
    pub fn start(dir: &Path, vfs: &str) -> Self {
        show_logs();
        let keys = Keys::load(dir).or_else(|_| Keys::init(dir)).expect("keys");
        let config = config(dir);
        let options = sqlite::Options { vfs: Some(vfs.to_owned()), pages_max: None };
        let log = sqlite::SqliteLog::open(&config.log_path(), options).expect("the log opens");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (bound, address) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            block_on(async {
                let server = Server::bind(config, log).await.expect("the ports are free");
                let (quic, tcp) = (server.quic_addr.to_string(), server.tcp_addr.to_string());
                bound.send(ServerAddress { quic, tcp }).expect("somebody listens");
                server.run(async { drop(stopped.await) }).await.expect("the server ends in order");
            });
        });
        let address = address.recv().expect("the server says where it is");
        Self { pins: keys.pins, address, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "the server panicked");
    }
}

/// A device of a test: its folder and how to open it again.
pub struct TestDevice {
    /// Its folder.
    pub dir: PathBuf,
    /// The open replica.
    pub replica: Replica,
}

impl TestDevice {
    /// Opens a device in a folder of its own below `root`.
    #[must_use]
    pub fn open(root: &TempDir, name: &str, server: &TestServer, start: Start) -> Self {
        Self::open_over(root, name, server, start, Transport::Quic)
    }

    /// The same, over one transport.
    #[must_use]
    pub fn open_over(
        root: &TempDir,
        name: &str,
        server: &TestServer,
        start: Start,
        transport: Transport,
    ) -> Self {
        let dir = root.path().join(name);
        std::fs::create_dir_all(&dir).expect("a fresh folder");
        let config = Config {
            transport: Some(transport),
            ..Self::config(&dir, &server.address, &server.pins).start(start)
        };
        Self::open_with(&dir, config)
    }

    /// How a device in `dir` is opened: `replica` holds its files, `vault` its database's key.
    #[must_use]
    pub fn config(dir: &Path, address: &ServerAddress, pins: &SignedPins) -> Config {
        Config::new(dir.join("replica")).server(address.clone(), pins.clone())
    }

    /// Opens a device in a folder, made or not, in a way of the test's own.
    #[must_use]
    pub fn open_with(dir: &Path, config: Config) -> Self {
        std::fs::create_dir_all(dir).expect("a folder");
        let replica = Replica::open(config, &FileVault(dir.join("vault"))).expect("the replica opens");
        Self { dir: dir.to_owned(), replica }
    }

    /// Another device of the same patient, added and in sync.
    #[must_use]
    pub fn second(&self, root: &TempDir, server: &TestServer) -> Self {
        let ticket = self.replica.ticket().expect("a patient's device has a ticket");
        let second = Self::open(root, "second", server, Start::Join(ticket));
        let card = second.replica.card().expect("just opened");
        self.replica.add_device(&card).expect("an owner adds a device that is not there yet");
        self.sync();
        second.sync();
        second
    }

    /// Syncs until everything is where it should be.
    pub fn sync(&self) -> Synced {
        block_on(self.replica.sync(PATIENCE)).expect("the sync ends in time")
    }

    /// Every record of a space.
    #[must_use]
    pub fn records(&self, space: SpaceId) -> Vec<Record> {
        self.replica.records(space, &Query::default()).expect("the space is known")
    }
}

/// Shows what the code under test logs, where RUST_LOG asks for it, and keeps what is logged as an error.
pub fn show_logs() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let shown = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(filter);
    let _ = tracing_subscriber::registry()
        .with(shown)
        .with(KeepErrors.with_filter(LevelFilter::ERROR))
        .try_init();
}

/// Fails if anything in this process was logged at error level since it began: error means bug.
///
/// # Panics
/// If so.
pub fn assert_no_errors() {
    let errors = errors();
    assert!(errors.is_empty(), "logged at error level: {errors:?}");
}

/// What was logged at error level in this process since [`show_logs`].
#[must_use]
pub fn errors() -> Vec<String> {
    ERRORS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

static ERRORS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct KeepErrors;

impl<S: tracing::Subscriber> Layer<S> for KeepErrors {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if *event.metadata().level() == tracing::Level::ERROR {
            let mut text = Text(event.metadata().target().to_owned());
            event.record(&mut text);
            ERRORS.lock().unwrap_or_else(PoisonError::into_inner).push(text.0);
        }
    }
}

struct Text(String);

impl tracing::field::Visit for Text {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

/// Unpacks a payload and inspects its changes, as a receiver does before it applies any; the verdict is a
/// code of the quarantine, or `fine`.
#[must_use]
pub fn admit(packed: &[u8]) -> &'static str {
    let payload = match Payload::unpack(packed) {
        Ok(payload) => payload,
        Err(error) => return error.code(),
    };
    let changes = || payload.records.iter().flat_map(|record| &record.changes);
    if changes().map(|change| gate::weigh(change)).sum::<u64>() > gate::ENVELOPE_ITEMS_MAX {
        return "too_many_items";
    }
    let refusal = changes().find_map(|change| gate::inspect(change).err());
    refusal.map_or("fine", |refusal| refusal.code())
}

/// Waits for a future on this thread.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts")
        .block_on(future)
}

/// A dose of some tablets.
#[must_use]
pub fn dose(mg: f64) -> Entry {
    Entry::dose("buprenorphine", mg, Unit::Mg)
}

/// A check-in that says how strong the craving is.
#[must_use]
pub fn craving(strength: u8) -> Entry {
    Entry::check_in(CheckIn { craving: Some(strength), ..CheckIn::default() })
}

/// Passes on what a replica tells.
pub struct Events {
    sender: mpsc::Sender<Told>,
}

/// Something that a replica told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// Records changed.
    Records(SpaceId, Vec<RecordId>),
    /// Deliveries may have changed.
    Delivery(SpaceId),
    /// The connection changed.
    Status(SyncStatus),
    /// The server lost data.
    Restored(SpaceId),
    /// The device may no longer write.
    Frozen(SpaceId),
}

impl Events {
    /// Watches a replica.
    #[must_use]
    pub fn of(replica: &Replica) -> mpsc::Receiver<Told> {
        let (sender, told) = mpsc::channel();
        replica.watch(Arc::new(Self { sender }));
        told
    }
}

/// Waits until a replica has told something that fits.
///
/// # Panics
/// When it does not within [`PATIENCE`].
pub fn wait_for(told: &mpsc::Receiver<Told>, fits: impl Fn(&Told) -> bool) -> Told {
    let until = Instant::now() + PATIENCE;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let next = told.recv_timeout(left).expect("it happens in time");
        if fits(&next) {
            return next;
        }
    }
}

impl Observer for Events {
    fn records_changed(&self, space: SpaceId, records: &[RecordId]) {
        let _ = self.sender.send(Told::Records(space, records.to_vec()));
    }
    fn delivery_changed(&self, space: SpaceId) {
        let _ = self.sender.send(Told::Delivery(space));
    }
    fn status_changed(&self, status: SyncStatus) {
        let _ = self.sender.send(Told::Status(status));
    }
    fn server_restored(&self, space: SpaceId) {
        let _ = self.sender.send(Told::Restored(space));
    }
    fn device_frozen(&self, space: SpaceId) {
        let _ = self.sender.send(Told::Frozen(space));
    }
}
