//! The two ways in: QUIC, and TLS over TCP where UDP is blocked. Both carry the same frames.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use ebb_protocol::{verify::PublicKey, wire};
use quinn::{
    IdleTimeout, TransportConfig, VarInt,
    congestion::CubicConfig,
    crypto::rustls::QuicServerConfig,
    rustls::{ServerConfig, pki_types::CertificateDer},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    connection::{self, Shared, stops},
    tls,
};

/// Handshakes in flight above which a QUIC client must first prove its address (a Retry): forged packets
/// then cost one answer each and no memory.
pub const HANDSHAKES_BEFORE_RETRY: usize = 500;
/// Handshakes in flight above which no more are begun on either transport (a core completes some 1,000 a
/// second: further ones would only time out).
pub const HANDSHAKES_MAX: usize = 4_000;
/// A handshake, and after it the stream, must come within this time: as long as a first frame may take.
const HANDSHAKE_MS_MAX: u64 = wire::HELLO_MS_MAX;
/// How long peers are given to see that their connection ended: three probe timeouts of a path that nothing
/// is known about yet (RFC 9002 section 6.2.2).
const DRAIN_MS_MAX: u64 = 3_000;
/// Bytes that a connection may send before they are read, on its one stream and altogether.
const RECEIVE_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes that a connection may have sent and not acknowledged: 1 MiB a round trip of 100 ms is 80 Mbit/s.
const SEND_WINDOW_BYTES: u64 = 1 << 20;
/// Bytes sent before the first acknowledgement. A day's catch-up is some tens of KB and so one round trip
/// instead of four; ten packets (RFC 9002) were chosen for strangers on unknown paths.
const INITIAL_WINDOW_BYTES: u64 = 128 << 10;

/// How many connections there may be, and how many handshakes are under way.
#[derive(Debug)]
pub(crate) struct Gate {
    handshakes: AtomicUsize,
    connections: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new(connections_max: usize) -> Arc<Self> {
        let connections = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { handshakes: AtomicUsize::new(0), connections })
    }

    fn begin(self: &Arc<Self>) -> Handshake {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        Handshake(self.clone())
    }

    /// What becomes of somebody who comes in; whoever has yet to prove his address may be asked to.
    fn judge(self: &Arc<Self>, unproven: bool) -> Judged {
        match self.handshakes.load(Ordering::Relaxed) {
            HANDSHAKES_MAX.. => Judged::Refuse,
            HANDSHAKES_BEFORE_RETRY.. if unproven => Judged::Retry,
            _ => Judged::Begin(self.begin()),
        }
    }
}

/// What becomes of somebody who comes in.
#[derive(Debug)]
enum Judged {
    /// A handshake begins.
    Begin(Handshake),
    /// He proves his address first.
    Retry,
    /// There is no place.
    Refuse,
}

/// A handshake under way, counted until dropped.
#[derive(Debug)]
struct Handshake(Arc<Gate>);

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.handshakes.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Opens the QUIC listener.
pub(crate) fn bind_quic(address: SocketAddr, tls: &ServerConfig) -> anyhow::Result<quinn::Endpoint> {
    let crypto = QuicServerConfig::try_from(tls.clone()).context("QUIC needs AES-128-GCM")?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport()));
    quinn::Endpoint::server(config, address).with_context(|| format!("cannot listen on UDP {address}"))
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW_BYTES);
    let idle_ms = u32::try_from(wire::IDLE_MS_MAX).expect("a minute");
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_ms))))
        // A session is over before larger packets would have paid for their probes.
        .mtu_discovery_config(None)
        .congestion_controller_factory(Arc::new(congestion));
    transport
}

/// Takes QUIC connections until the endpoint closes.
pub(crate) async fn serve_quic(endpoint: quinn::Endpoint, gate: Arc<Gate>, shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    let mut stopping = shared.stopping.clone();
    loop {
        let incoming = tokio::select! {
            () = stops(&mut stopping) => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => incoming,
                None => break,
            },
        };
        match gate.judge(incoming.may_retry()) {
            Judged::Refuse => incoming.refuse(),
            Judged::Retry => {
                // It fails only for those who have proven their address.
                let _ = incoming.retry();
            }
            Judged::Begin(handshake) => {
                tasks.spawn(quic_connection(incoming, handshake, shared.clone()));
            }
        }
    }
    while tasks.join_next().await.is_some() {}
    endpoint.close(VarInt::from_u32(0), b"");
    // The closing socket ends what is left (RFC 9000 section 10.2): a phone that vanished must not keep a
    // server from stopping.
    if tokio::time::timeout(Duration::from_millis(DRAIN_MS_MAX), endpoint.wait_idle()).await.is_err() {
        tracing::debug!(connections = endpoint.open_connections(), "some QUIC peers did not see the end");
    }
}

async fn quic_connection(incoming: quinn::Incoming, handshake: Handshake, shared: Arc<Shared>) {
    let from = incoming.remote_address();
    let begun = async {
        let connection = incoming.accept()?.await?;
        let streams = connection.accept_bi().await?;
        anyhow::Ok((connection, streams))
    };
    let begun = within_handshake(&shared, begun).await;
    let (connection, (send, receive)) = match begun {
        Some(Ok(begun)) => begun,
        Some(Err(error)) => return tracing::debug!(%from, %error, "a QUIC handshake failed"),
        None => return tracing::debug!(%from, "a QUIC handshake took too long"),
    };
    let Ok(_permit) = handshake.0.connections.clone().try_acquire_owned() else {
        return connection.close(VarInt::from_u32(0), b"");
    };
    drop(handshake);
    let shown =
        connection.peer_identity().and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok());
    let mut exporter = [0; 32];
    let exported = connection.export_keying_material(&mut exporter, wire::EXPORTER_LABEL, b"");
    let (Some(tls), Ok(())) = (shown.and_then(|shown| tls::peer_key(&shown)), exported) else {
        tracing::error!("a QUIC connection without a key came through its handshake");
        return;
    };
    shared.metrics.connected("quic");
    connection::serve(shared, tls, exporter, receive, send).await;
    connection.close(VarInt::from_u32(0), b"");
}

/// What `handshake` gives, unless it takes too long or the server stops.
pub(crate) async fn within_handshake<T>(shared: &Shared, handshake: impl Future<Output = T>) -> Option<T> {
    let mut stopping = shared.stopping.clone();
    tokio::select! {
        begun = tokio::time::timeout(Duration::from_millis(HANDSHAKE_MS_MAX), handshake) => begun.ok(),
        () = stops(&mut stopping) => None,
    }
}

/// Takes TCP connections until the server stops.
pub(crate) async fn serve_tcp(
    listener: TcpListener,
    tls: ServerConfig,
    gate: Arc<Gate>,
    shared: Arc<Shared>,
) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let mut tasks = JoinSet::new();
    let mut stopping = shared.stopping.clone();
    loop {
        let accepted = tokio::select! {
            () = stops(&mut stopping) => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                // Whoever completes TCP's handshake has proven his address.
                if let Judged::Begin(handshake) = gate.judge(false) {
                    tasks.spawn(tcp_connection(stream, from, acceptor.clone(), handshake, shared.clone()));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "no TCP connection can be taken");
                // Out of file descriptors, as a rule: others must end first.
                tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
            }
        }
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

/// A pause after a failed accept, so that it does not spin.
const ACCEPT_RETRY_MS: u64 = 100;

async fn tcp_connection(
    stream: TcpStream,
    from: SocketAddr,
    acceptor: TlsAcceptor,
    handshake: Handshake,
    shared: Arc<Shared>,
) {
    // Frames are written whole: waiting for more to send only delays them.
    let _ = stream.set_nodelay(true);
    let stream = match within_handshake(&shared, acceptor.accept(stream)).await {
        Some(Ok(stream)) => stream,
        Some(Err(error)) => return tracing::debug!(%from, %error, "a TLS handshake failed"),
        None => return tracing::debug!(%from, "a TLS handshake took too long"),
    };
    let Ok(_permit) = handshake.0.connections.clone().try_acquire_owned() else { return };
    drop(handshake);
    let Some((tls, exporter)) = identify(stream.get_ref().1) else {
        return tracing::debug!(%from, "a TLS peer speaks another protocol");
    };
    shared.metrics.connected("tcp");
    let (reader, writer) = tokio::io::split(stream);
    connection::serve(shared, tls, exporter, reader, writer).await;
}

/// The peer's key and the connection's keying material; `None` for a peer that did not name our protocol.
fn identify(session: &tokio_rustls::rustls::ServerConnection) -> Option<(PublicKey, [u8; 32])> {
    if session.alpn_protocol() != Some(wire::ALPN) {
        return None;
    }
    let tls = tls::peer_key(session.peer_certificates()?)?;
    let exporter = session.export_keying_material([0; 32], wire::EXPORTER_LABEL, Some(b"")).ok()?;
    Some((tls, exporter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_proven_and_then_places_run_out_as_handshakes_pile_up() {
        let gate = Gate::new(1);
        let begin = |unproven| match gate.judge(unproven) {
            Judged::Begin(handshake) => handshake,
            other => panic!("{other:?}"),
        };
        let mut under_way: Vec<_> = (0..HANDSHAKES_BEFORE_RETRY).map(|_| begin(true)).collect();
        assert!(matches!(gate.judge(true), Judged::Retry));
        under_way.push(begin(false));
        under_way.extend((under_way.len()..HANDSHAKES_MAX).map(|_| begin(false)));
        assert!(matches!(gate.judge(true), Judged::Refuse));
        assert!(matches!(gate.judge(false), Judged::Refuse));
        under_way.truncate(HANDSHAKES_BEFORE_RETRY);
        assert!(matches!(gate.judge(true), Judged::Retry), "ended handshakes are not counted");
        under_way.pop();
        assert!(matches!(gate.judge(true), Judged::Begin(_)));
    }
}
