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
//! [`commit`] and [`log`] are synchronous and know no clock: a simulation drives them by itself.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use ebb_protocol::{id::Millis, session};
use tokio::{net::TcpListener, sync::watch};

use crate::{
    config::Config,
    connection::Shared,
    hub::Hub,
    keys::Keys,
    listen::Gate,
    log::Log,
    operate::Metrics,
    worker::{Setup, Storage},
};

pub mod commit;
pub mod config;
pub mod connection;
pub mod hub;
pub mod keys;
pub mod listen;
pub mod log;
pub mod operate;
mod recent;
pub mod signing;
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
        let tcp = listen_tcp(config.tcp_listen).await?;
        let operate = listen_tcp(config.metrics_listen).await?;
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
        let hub = Arc::new(Hub::default());
        let (storage, threads) = Storage::start(Setup {
            log: self.log,
            readers: self.config.readers,
            allowance: self.config.allowance(),
            foundings_per_minute: self.config.foundings_per_minute,
            heads_key: self.keys.heads.clone(),
            clock: self.clock.clone(),
            hub: hub.clone(),
            metrics: self.metrics.clone(),
        })?;
        let shared = Arc::new(Shared {
            session: Arc::new(session::Config {
                open_registration: self.config.open_registration,
                pins: self.keys.pins.clone(),
                heads_keys: self.keys.heads_keys(),
                back_off_ms: self.config.back_off_ms,
            }),
            clock: self.clock,
            hub,
            storage,
            heads_key: self.keys.heads,
            metrics: self.metrics,
            stopping,
            stop_retry_ms: self.config.stop_retry_ms,
        });
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

async fn listen_tcp(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on TCP {address}"))
}
