//! The content-blind log service of Ebb.
//!
//! Devices push sealed, signed envelopes; the server checks who signed them and whether the space's
//! roster lets him, appends them to a durable log and hands them on. It holds no key that opens any.
//!
//! ```text
//! listen ──▶ connection ──▶ session (ebb-protocol)      one task per connection
//!                │  ▲
//!          offers│  │answers, notices (hub)
//!                ▼  │
//!             worker ──▶ commit ──▶ log                 one thread commits, some read
//! ```
//!
//! Below the sockets and threads everything is synchronous and told the time: a simulation drives it as a
//! [`Manual`] server.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use ebb_protocol::{id::Millis, session, verify::PublicKey};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
};

use crate::{
    config::Config,
    connection::{Exchange, Shared},
    gate::Gate,
    hub::Hub,
    keys::Keys,
    log::{Log, LogError},
    operate::Metrics,
    worker::{Setup, Storage, Workers},
};

pub mod commit;
pub mod config;
pub mod connection;
pub mod gate;
pub mod hub;
pub mod keys;
pub mod listen;
pub mod log;
pub mod operate;
mod places;
mod recent;
pub mod signing;
pub mod system;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod worker;

/// Serves until `shutdown` completes, then stops gracefully.
///
/// # Errors
/// As [`Server::bind`] and [`Server::run`].
pub async fn run(config: Config, log: impl Log, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    Server::bind(config, log).await?.run(shutdown).await
}

/// A server that holds its ports but does not serve yet.
#[derive(Debug)]
pub struct Server<L> {
    /// Where QUIC is listened for.
    pub quic_addr: SocketAddr,
    /// Where TLS is listened for.
    pub tcp_addr: SocketAddr,
    /// Where metrics and health are served.
    pub metrics_addr: SocketAddr,
    /// The server's counters.
    pub metrics: Arc<Metrics>,
    config: Config,
    keys: Keys,
    log: L,
    clock: Clock,
    tls: rustls::ServerConfig,
    quic: quinn::Endpoint,
    tcp: TcpListener,
    operate: TcpListener,
}

/// Tells the time: the system's, or a test's own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Millis + Send + Sync>);

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
        })
    }

    /// A clock that tells what this function returns.
    pub fn new(now: impl Fn() -> Millis + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl<L: Log> Server<L> {
    /// Reads the deployment's keys and takes the ports (port 0: any free one).
    ///
    /// # Errors
    /// If the configuration contradicts itself, there are no keys in the data directory, or a port cannot be
    /// had.
    pub async fn bind(config: Config, log: L) -> anyhow::Result<Self> {
        config.check()?;
        let keys = Keys::load(&config.data)?;
        let tls = tls::server_config(&keys.tls)?;
        let quic = listen::bind_quic(config.quic_listen, &tls)?;
        let tcp = listen_tcp(config.tcp_listen)?;
        let operate = listen_tcp(config.metrics_listen)?;
        Ok(Self {
            quic_addr: quic.local_addr()?,
            tcp_addr: tcp.local_addr()?,
            metrics_addr: operate.local_addr()?,
            metrics: Arc::default(),
            config,
            keys,
            log,
            clock: Clock::system(),
            tls,
            quic,
            tcp,
            operate,
        })
    }

    /// Takes the time from another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The deployment's keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Serves until `shutdown` completes; then takes nothing new, commits what is under way, says good-bye
    /// and returns.
    ///
    /// # Errors
    /// If the log gives no readers or a thread cannot be made.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let (stop, stopping) = watch::channel(false);
        let (shared, workers) = share(&self.config, self.keys, self.log, self.clock, self.metrics, stopping)?;
        let threads = workers.spawn().context("making the log's threads")?;
        let gate = Gate::new(self.config.connections_max);
        let quic = tokio::spawn(listen::serve_quic(self.quic, gate.clone(), shared.clone()));
        let tcp = tokio::spawn(listen::serve_tcp(self.tcp, self.tls, gate, shared.clone()));
        let operate = tokio::spawn(operate::serve(self.operate, shared.clone()));
        tracing::info!(quic = %self.quic_addr, tcp = %self.tcp_addr, metrics = %self.metrics_addr, "serving");
        shutdown.await;
        tracing::info!("stopping");
        // There is a receiver in `shared`.
        let _ = stop.send(true);
        for task in [quic, tcp, operate] {
            task.await.context("a listener panicked")?;
        }
        // With the last of it go the threads, once everything offered is committed.
        drop(shared);
        tracing::info!("the connections have ended, the log closes");
        tokio::task::spawn_blocking(move || threads.join()).await.context("joining the log's threads")?;
        Ok(())
    }
}

/// Everything that the connections of a server share, and what serves its log.
fn share<L: Log>(
    config: &Config,
    keys: Keys,
    log: L,
    clock: Clock,
    metrics: Arc<Metrics>,
    stopping: watch::Receiver<bool>,
) -> Result<(Arc<Shared>, Workers<L>), LogError> {
    let hub = Arc::new(Hub::default());
    let session = session::Config {
        open_registration: config.open_registration,
        heads_keys: keys.heads_keys(),
        pins: keys.pins,
        back_off_ms: config.back_off_ms,
    };
    let (storage, workers) = Storage::new(Setup {
        log,
        readers: config.readers,
        allowance: config.allowance(),
        foundings_per_minute: config.foundings_per_minute,
        heads_key: keys.heads.clone(),
        clock: clock.clone(),
        hub: hub.clone(),
        metrics: metrics.clone(),
    })?;
    let shared = Shared {
        session: Arc::new(session),
        clock,
        hub,
        storage,
        heads_key: keys.heads,
        metrics,
        stopping,
        stop_retry_ms: config.stop_retry_ms,
    };
    Ok((Arc::new(shared), workers))
}

/// A server without threads or sockets: whoever holds it says when the log reads and when it commits.
///
/// What runs is what a [`Server`] runs; a simulation drives it in virtual time.
pub struct Manual<L: Log> {
    shared: Arc<Shared>,
    workers: Workers<L>,
    _stop: watch::Sender<bool>,
}

impl<L: Log> Manual<L> {
    /// A server over a log, with keys and a clock.
    ///
    /// # Errors
    /// If the log gives no reader.
    pub fn new(config: &Config, keys: Keys, log: L, clock: Clock) -> Result<Self, LogError> {
        let (stop, stopping) = watch::channel(false);
        let (shared, workers) = share(config, keys, log, clock, Arc::default(), stopping)?;
        Ok(Self { shared, workers, _stop: stop })
    }

    /// A connection that came through its handshake, with the peer's TLS key and the keying material.
    #[must_use]
    pub fn connect(&self, tls: PublicKey, exporter: [u8; 32]) -> Exchange {
        Exchange::new(self.shared.clone(), tls, exporter)
    }

    /// A view of what the log holds.
    #[must_use]
    pub fn reader(&self) -> &L::Reader {
        self.workers.reader()
    }

    /// Whether the last commit, or the last attempt since, was made durable.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.shared.storage.is_writable()
    }

    /// Reads what was asked for first, if anything was; whether there was.
    pub fn read_next(&mut self) -> bool {
        self.workers.read_next()
    }

    /// Commits a group of what was offered, if anything was; whether there was.
    pub fn commit_next(&mut self) -> bool {
        self.workers.commit_next()
    }

    /// Tries whether a log that failed takes writes again, as a server does while nobody appends.
    pub fn probe_if_failed(&mut self) {
        self.workers.probe_if_failed();
    }
}

impl<L: Log> std::fmt::Debug for Manual<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Manual")
    }
}

/// Connections that wait to be taken, as far as the system allows; beyond, a peer tries again after a second.
const BACKLOG: u32 = 4_096;

fn listen_tcp(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A server that starts again takes its port from connections that are still being wound up.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().with_context(|| format!("cannot listen on TCP {address}"))
}
