//! The two ways in: QUIC, and TLS over TCP where UDP is blocked. Both carry the same frames.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use ebb_protocol::{client::CONNECT_MS_MAX, verify::PublicKey, wire};
use quinn::{
    EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt,
    congestion::CubicConfig,
    crypto::rustls::QuicServerConfig,
    rustls::{ServerConfig, pki_types::CertificateDer},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    connection::{self, Shared, stops},
    gate::{Gate, Pass, Way},
    system, tls,
};

/// A handshake, and after it the stream, must come within this time: as long as a device tries. On a path that
/// loses much, less would cut honest devices off again and again; who has no need of his place gives way anyway.
const HANDSHAKE_MS_MAX: u64 = CONNECT_MS_MAX;
/// How long peers are given to see that their connection ended: three probe timeouts of a path that nothing
/// is known about yet (RFC 9002 section 6.2.2).
const DRAIN_MS_MAX: u64 = 3_000;
/// Bytes that a device may send before they are read, on its one stream and altogether.
const RECEIVE_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes that a device may have been sent and not have acknowledged: 1 MiB a round trip of 100 ms is
/// 80 Mbit/s.
const SEND_WINDOW_BYTES: u64 = 1 << 20;
/// The same for those who are not known yet, whatever they leave out: what a device sends in its first flight.
const STRANGER_RECEIVE_WINDOW_BYTES: u32 = 128 << 10;
/// What strangers are told is a good-bye, or that they see nothing; a device is known before its Welcome.
const STRANGER_SEND_WINDOW_BYTES: u64 = 32 << 10;
/// What a stranger may make the server hold, before its first byte is read.
const STRANGER_WINDOWS_BYTES: usize =
    STRANGER_RECEIVE_WINDOW_BYTES as usize + STRANGER_SEND_WINDOW_BYTES as usize;
/// QUIC connections that are over, and kept for three probe timeouts in case that the peer missed it (RFC 9000
/// section 10.2), at some 60 KiB each. While there are more, nothing is begun for an address that has a handshake
/// under way, and while there are twice as many, nothing at all: a peer sends its first packet again by itself.
const LINGERING_MAX: usize = 512;
/// What a path's round trip is taken for before it was measured: as Chrome's and Go's QUIC do, not the 333 ms
/// of RFC 9002. A lost first packet is sent again after 0.3 s instead of 1 s, and what was begun and left alone
/// is forgotten sooner; on a slower path a few packets are sent twice.
const INITIAL_RTT_MS: u64 = 100;
/// Packets that begin something and are not looked at yet; more are lost, and sent again if they were honest.
const INCOMING_MAX: usize = 1 << 10;
/// Bytes that wait with them: a first flight each.
const INCOMING_BYTES_MAX: u64 = 8 << 20;
/// Bytes sent before the first acknowledgement. A day's catch-up is some tens of KB and so one round trip
/// instead of four; ten packets (RFC 9002) were chosen for strangers on unknown paths.
const INITIAL_WINDOW_BYTES: u64 = 128 << 10;

/// Opens the QUIC listener.
pub(crate) fn bind_quic(address: SocketAddr, tls: &ServerConfig) -> anyhow::Result<quinn::Endpoint> {
    let crypto = QuicServerConfig::try_from(tls.clone()).context("QUIC needs AES-128-GCM")?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport()));
    config.max_incoming(INCOMING_MAX).incoming_buffer_size_total(INCOMING_BYTES_MAX);
    let listen = || {
        let socket = system::bind_udp(address)?;
        quinn::Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(TokioRuntime))
    };
    listen().with_context(|| format!("cannot listen on UDP {address}"))
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
        .receive_window(VarInt::from_u32(STRANGER_RECEIVE_WINDOW_BYTES))
        .send_window(STRANGER_SEND_WINDOW_BYTES)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_ms))))
        .initial_rtt(Duration::from_millis(INITIAL_RTT_MS))
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
        let from = incoming.remote_address().ip();
        let lingering = endpoint.open_connections().saturating_sub(tasks.len());
        if lingering >= 2 * LINGERING_MAX || (lingering >= LINGERING_MAX && gate.has(Way::Quic, from)) {
            incoming.ignore();
        } else if incoming.may_retry() && gate.is_crowded() {
            // It fails only for those who have proven their address.
            let _ = incoming.retry();
        } else {
            let pass = gate.enter(Way::Quic, from);
            tasks.spawn(quic_connection(incoming, pass, shared.clone()));
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

async fn quic_connection(incoming: quinn::Incoming, mut pass: Pass, shared: Arc<Shared>) {
    let from = incoming.remote_address();
    let until = handshake_end();
    let begun = async { anyhow::Ok(incoming.accept()?.await?) };
    let connection = match within_handshake(&shared, &mut pass, until, begun).await {
        Some(Ok(connection)) => connection,
        Some(Err(error)) => return tracing::debug!(%from, %error, "a QUIC handshake failed"),
        None => return tracing::debug!(%from, "a QUIC handshake took too long"),
    };
    // From here on the peer may fill what it is given.
    pass.reserve(STRANGER_WINDOWS_BYTES);
    let stream = within_handshake(&shared, &mut pass, until, connection.accept_bi()).await;
    let Some(Ok((send, receive))) = stream else {
        return tracing::debug!(%from, "a QUIC peer opened no stream");
    };
    let shown =
        connection.peer_identity().and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok());
    let mut exporter = [0; 32];
    let exported = connection.export_keying_material(&mut exporter, wire::EXPORTER_LABEL, b"");
    let (Some(tls), Ok(())) = (shown.and_then(|shown| tls::peer_key(&shown)), exported) else {
        tracing::error!("a QUIC connection without a key came through its handshake");
        return;
    };
    shared.metrics.connected("quic");
    let widened = connection.clone();
    pass.widen(move || {
        widened.set_receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES));
        widened.set_send_window(SEND_WINDOW_BYTES);
    });
    connection::serve(shared, tls, exporter, receive, send, pass).await;
    connection.close(VarInt::from_u32(0), b"");
}

/// When a handshake that begins now must be over.
pub(crate) fn handshake_end() -> Instant {
    Instant::now() + Duration::from_millis(HANDSHAKE_MS_MAX)
}

/// What `handshake` gives, unless it takes too long, its place is lost or the server stops.
pub(crate) async fn within_handshake<T>(
    shared: &Shared,
    pass: &mut Pass,
    until: Instant,
    handshake: impl Future<Output = T>,
) -> Option<T> {
    let mut stopping = shared.stopping.clone();
    tokio::select! {
        begun = tokio::time::timeout_at(until, handshake) => begun.ok(),
        () = pass.lost() => None,
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
                let pass = gate.enter(Way::Tcp, from.ip());
                tasks.spawn(tcp_connection(stream, from, acceptor.clone(), pass, shared.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "no TCP connection can be taken");
                // Out of file descriptors, as a rule: others must end first.
                gate.relieve(Way::Tcp);
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
    mut pass: Pass,
    shared: Arc<Shared>,
) {
    // Frames are written whole: waiting for more to send only delays them.
    let _ = stream.set_nodelay(true);
    let stream = match within_handshake(&shared, &mut pass, handshake_end(), acceptor.accept(stream)).await {
        Some(Ok(stream)) => stream,
        Some(Err(error)) => return tracing::debug!(%from, %error, "a TLS handshake failed"),
        None => return tracing::debug!(%from, "a TLS handshake took too long"),
    };
    let Some((tls, exporter)) = identify(stream.get_ref().1) else {
        return tracing::debug!(%from, "a TLS peer speaks another protocol");
    };
    shared.metrics.connected("tcp");
    let (reader, writer) = tokio::io::split(stream);
    connection::serve(shared, tls, exporter, reader, writer, pass).await;
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
