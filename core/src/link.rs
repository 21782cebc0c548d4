//! The link: frames to a server and back, over QUIC or TLS on TCP. It decides nothing.
//!
//! Which transports, when to try again, what a frame says: all that is for the caller to know. Here a
//! connection is made to a holder of a pinned key, and whole frames go in and come out.
//!
//! Reader and writer are apart, so reading never waits for writing. Both may be dropped in the middle
//! of a call, as `select!` does, and go on where they were.

use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ebb_protocol::{
    verify::PublicKey,
    wire::{self, ANSWER_MS_MAX, IDLE_MS_MAX},
};
use quinn::{
    ConnectionError, Endpoint, ReadError, RecvStream, SendStream, TransportConfig, VarInt, WriteError,
    congestion::CubicConfig, crypto::rustls::QuicClientConfig,
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    net::{TcpStream, lookup_host},
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

mod tls;
pub use tls::Identity;

/// Bytes of keying material by which Welcome proves that nobody sits between.
pub const EXPORTER_BYTES: usize = 32;
/// Closing waits so long for the other side to have everything.
pub const CLOSE_MS_MAX: u64 = 1_000;
/// The next address of a name is tried after so long without an answer (RFC 8305, section 5).
pub const NEXT_ADDRESS_MS: u64 = 250;
/// The next transport is tried beside the one before after so long without an answer. On an honest network
/// a handshake of QUIC takes one round trip, and lost packets are repeated twice before this is over.
pub const HEAD_START_MS: u64 = 1_500;
/// Once somebody answered who is not the server, other attempts have so long to find it.
pub const STRANGER_MS: u64 = 3_000;
/// Addresses of a name that are tried.
pub const ADDRESSES_MAX: usize = 4;
/// Bytes sent before the first acknowledgement: a day's records in one flight, not in four. Measured
/// at 50 ms RTT: 90 KB take 194 ms instead of 298 ms.
pub const INITIAL_WINDOW_BYTES: u64 = 128 << 10;

/// What a path's round trip is taken for before it was measured: as Chrome's and Go's QUIC do, not the 333 ms
/// of RFC 9002. A lost first packet is sent again after 0.3 s instead of 1 s; a slower path carries a few
/// packets twice.
pub const INITIAL_RTT_MS: u64 = 100;

const CLOSE_NOTICE_MS: u64 = 20;
const READ_BYTES: usize = 16 << 10;

/// What carries the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// QUIC on UDP.
    Quic,
    /// TLS on TCP, where UDP is blocked.
    Tcp,
}

/// Where a server is, as `host:port` or `address:port` for each transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// For QUIC.
    pub quic: String,
    /// For TLS on TCP.
    pub tcp: String,
}

/// A connection to a server whose key is pinned.
pub struct Link {
    /// Keying material of this very connection; Welcome must echo it before anything is trusted.
    pub exporter: [u8; EXPORTER_BYTES],
    /// What carries the frames.
    pub transport: Transport,
    /// Frames from the server.
    pub reader: Reader,
    /// Frames to the server.
    pub writer: Writer,
}

/// Connects to a server that holds one of the pinned TLS keys, over the first transport that gets there.
///
/// The transports race: each begins [`HEAD_START_MS`] after the one before it, or when that one has failed.
/// Each tries its name's addresses in turn. Must run inside tokio. May be dropped at any time: nothing is
/// left behind.
///
/// # Errors
/// [`LinkError::Unreachable`] if nobody answers in [`ANSWER_MS_MAX`], [`LinkError::NotOurServer`] if
/// somebody else does, [`LinkError::Protocol`] if the server speaks another protocol.
pub async fn connect(
    transports: &[Transport],
    address: &ServerAddress,
    identity: &Identity,
    pins: &[PublicKey],
) -> Result<Link, LinkError> {
    let config = Arc::new(tls::client_config(identity, pins));
    let (fails, mut before) = oneshot::channel();
    let _ = fails.send(());
    let mut attempts = JoinSet::new();
    for transport in transports.iter().copied() {
        let name = match transport {
            Transport::Quic => address.quic.clone(),
            Transport::Tcp => address.tcp.clone(),
        };
        let (fails, after) = oneshot::channel();
        let before = std::mem::replace(&mut before, after);
        let config = config.clone();
        attempts.spawn(async move {
            tokio::select! {
                Ok(()) = before => {}
                () = sleep(Duration::from_millis(HEAD_START_MS)) => {}
            }
            let reached = reach(transport, &name, config);
            let reached = timeout(Duration::from_millis(ANSWER_MS_MAX), reached).await;
            let reached = reached.unwrap_or(Err(LinkError::Unreachable));
            if reached.is_err() {
                let _ = fails.send(());
            }
            reached
        });
    }
    first_success(attempts).await
}

impl Link {
    /// Sends what is still queued, waits up to [`CLOSE_MS_MAX`] until the server has it, and closes.
    /// Returns the bytes of frames that were given to the transport in all.
    pub async fn close(self) -> u64 {
        let Self { mut reader, mut writer, .. } = self;
        let last = async {
            writer.flush().await.ok()?;
            match &mut writer.sink {
                Sink::Quic { stream, .. } => {
                    stream.finish().ok()?;
                    stream.stopped().await.ok()?;
                }
                Sink::Tcp(stream) => {
                    stream.shutdown().await.ok()?;
                    // To close a socket with unread bytes resets it, and what was sent may be lost.
                    while reader.read().await.is_ok_and(|more| more) {
                        reader.partial.clear();
                    }
                }
            }
            Some(())
        };
        let limit = Duration::from_millis(CLOSE_MS_MAX);
        let _ = timeout(limit, last).await;
        if let Sink::Quic { connection, endpoint, .. } = &writer.sink {
            connection.close(VarInt::from_u32(0), b"");
            // Only for the notice to leave; to wait for an answer to it would take three round trips.
            let _ = timeout(Duration::from_millis(CLOSE_NOTICE_MS), endpoint.wait_idle()).await;
        }
        writer.bytes
    }
}

/// Frames from the server.
pub struct Reader {
    source: Source,
    /// What came and was not given out yet: at most one frame and a read more.
    partial: Vec<u8>,
    scratch: Box<[u8; READ_BYTES]>,
    bytes: u64,
}

impl Reader {
    /// The body of the next frame; `None` once the server has finished.
    ///
    /// May be dropped at any time and called again: nothing is lost.
    ///
    /// # Errors
    /// [`LinkError::Lost`] or [`LinkError::Protocol`], for example a frame above the limit.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, LinkError> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(Some(frame));
            }
            if !self.read().await? {
                return if self.partial.is_empty() { Ok(None) } else { Err(LinkError::Lost) };
            }
        }
    }

    /// Bytes of frames received so far, their lengths included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn new(source: Source) -> Self {
        Self { source, partial: Vec::new(), scratch: Box::new([0; READ_BYTES]), bytes: 0 }
    }

    fn take_frame(&mut self) -> Result<Option<Vec<u8>>, LinkError> {
        let Some((prefix, body)) = self.partial.split_first_chunk::<4>() else { return Ok(None) };
        let len = wire::frame_len(*prefix).map_err(|_| LinkError::Protocol)?;
        if body.len() < len {
            return Ok(None);
        }
        let rest = self.partial.split_off(4 + len);
        let mut frame = std::mem::replace(&mut self.partial, rest);
        frame.drain(..4);
        Ok(Some(frame))
    }

    /// Reads once; `false` at the end. Bytes are only taken over once there are some.
    async fn read(&mut self) -> Result<bool, LinkError> {
        let scratch = &mut self.scratch[..];
        let read = match &mut self.source {
            Source::Quic(stream) => match stream.read(scratch).await {
                Ok(read) => read.unwrap_or(0),
                Err(ReadError::ConnectionLost(error)) if closed_in_peace(&error) => 0,
                Err(ReadError::ConnectionLost(error)) => return Err(LinkError::after(&error)),
                Err(_) => return Err(LinkError::Lost),
            },
            Source::Tcp(stream) => stream.read(scratch).await.map_err(|e| LinkError::after_io(&e))?,
        };
        self.partial.extend_from_slice(&self.scratch[..read]);
        self.bytes += read as u64;
        Ok(read > 0)
    }
}

/// Frames to the server.
pub struct Writer {
    sink: Sink,
    queue: VecDeque<Vec<u8>>,
    /// How much of the queue's first frame is sent.
    sent: usize,
    bytes: u64,
}

impl Writer {
    /// Sends a frame, its length already before it, and waits until the transport has taken it.
    ///
    /// If dropped before, the frame stays queued, and the next call, [`Self::flush`] or
    /// [`Link::close`] goes on with it: do not send it again.
    ///
    /// # Errors
    /// [`LinkError::Lost`] or [`LinkError::Protocol`]. What was sent may or may not have arrived.
    pub async fn send(&mut self, frame: Vec<u8>) -> Result<(), LinkError> {
        self.queue.push_back(frame);
        self.flush().await
    }

    /// Queues a frame, its length already before it, for the next [`Self::flush`].
    pub fn queue(&mut self, frame: Vec<u8>) {
        self.queue.push_back(frame);
    }

    /// Sends what is still queued. May be dropped at any time and called again.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        while let Some(frame) = self.queue.front() {
            let rest = &frame[self.sent..];
            let written = match &mut self.sink {
                _ if rest.is_empty() => 0,
                Sink::Quic { stream, .. } => stream.write(rest).await.map_err(|error| match error {
                    WriteError::ConnectionLost(error) => LinkError::after(&error),
                    _ => LinkError::Lost,
                })?,
                Sink::Tcp(stream) => stream.write(rest).await.map_err(|e| LinkError::after_io(&e))?,
            };
            self.sent += written;
            self.bytes += written as u64;
            if self.sent == frame.len() {
                self.queue.pop_front();
                self.sent = 0;
            }
        }
        match &mut self.sink {
            Sink::Quic { .. } => Ok(()),
            Sink::Tcp(stream) => stream.flush().await.map_err(|e| LinkError::after_io(&e)),
        }
    }

    /// Bytes of frames given to the transport so far, their lengths included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn new(sink: Sink) -> Self {
        Self { sink, queue: VecDeque::new(), sent: 0, bytes: 0 }
    }
}

/// Why there is no connection, or no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Nobody answered: try again later, or over the other transport.
    #[error("the server cannot be reached")]
    Unreachable,
    /// Somebody answered who holds none of the pinned keys (a portal, a proxy, an old pin list): tell
    /// the person, and try again on another network.
    #[error("what answered is not our server")]
    NotOurServer,
    /// The connection broke: make another.
    #[error("the connection was lost")]
    Lost,
    /// The server does not say what the protocol says: a bug on one side, do not hurry to try again.
    #[error("the server does not follow the protocol")]
    Protocol,
}

impl LinkError {
    /// During the handshake nobody is authenticated yet, so every fault of TLS means a stranger.
    fn during(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::TransportError(_) | ConnectionError::VersionMismatch => Self::NotOurServer,
            ConnectionError::ConnectionClosed(close) if is_crypto(close.error_code) => Self::NotOurServer,
            _ => Self::Unreachable,
        }
    }

    fn during_io(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::InvalidData { Self::NotOurServer } else { Self::Unreachable }
    }

    fn after(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::TransportError(_) => Self::Protocol,
            ConnectionError::ConnectionClosed(close) if is_crypto(close.error_code) => Self::Protocol,
            _ => Self::Lost,
        }
    }

    fn after_io(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::InvalidData { Self::Protocol } else { Self::Lost }
    }
}

enum Source {
    Quic(RecvStream),
    Tcp(ReadHalf<TlsStream<TcpStream>>),
}

enum Sink {
    Quic { stream: SendStream, connection: quinn::Connection, endpoint: Endpoint },
    Tcp(WriteHalf<TlsStream<TcpStream>>),
}

/// Tries a name's addresses, each a little after the one before.
async fn reach(transport: Transport, name: &str, tls: Arc<ClientConfig>) -> Result<Link, LinkError> {
    let addresses = lookup_host(name).await.map_err(|_| LinkError::Unreachable)?;
    let mut attempts = JoinSet::new();
    for (place, address) in (0..).zip(addresses.take(ADDRESSES_MAX)) {
        let tls = tls.clone();
        attempts.spawn(async move {
            sleep(Duration::from_millis(NEXT_ADDRESS_MS * place)).await;
            match transport {
                Transport::Quic => connect_quic(address, tls).await,
                Transport::Tcp => connect_tcp(address, tls).await,
            }
        });
    }
    first_success(attempts).await
}

/// The first attempt that succeeds ends the others. Of failures, one that met a stranger counts most: after it
/// the others have a moment and no more, since some of them may never hear anything.
async fn first_success(mut attempts: JoinSet<Result<Link, LinkError>>) -> Result<Link, LinkError> {
    let mut failure = LinkError::Unreachable;
    let mut until = None;
    loop {
        let next = attempts.join_next();
        let attempt = match until {
            None => next.await,
            Some(until) => timeout_at(until, next).await.unwrap_or_default(),
        };
        match attempt {
            None => return Err(failure),
            Some(Ok(Ok(link))) => return Ok(link),
            Some(Ok(Err(LinkError::Unreachable)) | Err(_)) => {}
            Some(Ok(Err(error))) if failure != LinkError::NotOurServer => failure = error,
            Some(Ok(Err(_))) => {}
        }
        if failure == LinkError::NotOurServer && until.is_none() {
            until = Some(Instant::now() + Duration::from_millis(STRANGER_MS));
        }
    }
}

async fn connect_quic(address: SocketAddr, tls: Arc<ClientConfig>) -> Result<Link, LinkError> {
    let unspecified = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let endpoint = Endpoint::client(unspecified).map_err(|_| LinkError::Unreachable)?;
    let connection = endpoint
        .connect_with(quic_config(tls), address, tls::SERVER_NAME)
        .map_err(|_| LinkError::Unreachable)?
        .await
        .map_err(|error| LinkError::during(&error))?;
    let mut exporter = [0; EXPORTER_BYTES];
    connection
        .export_keying_material(&mut exporter, wire::EXPORTER_LABEL, b"")
        .expect("32 bytes can be exported from a finished handshake");
    let (stream, source) = connection.open_bi().await.map_err(|error| LinkError::after(&error))?;
    Ok(Link {
        exporter,
        transport: Transport::Quic,
        reader: Reader::new(Source::Quic(source)),
        writer: Writer::new(Sink::Quic { stream, connection, endpoint }),
    })
}

fn quic_config(tls: Arc<ClientConfig>) -> quinn::ClientConfig {
    let mut window = CubicConfig::default();
    window.initial_window(INITIAL_WINDOW_BYTES);
    let idle = Duration::from_millis(IDLE_MS_MAX);
    let mut transport = TransportConfig::default();
    transport
        .congestion_controller_factory(Arc::new(window))
        .max_idle_timeout(Some(idle.try_into().expect("a minute is a valid timeout")))
        .keep_alive_interval(None)
        .initial_rtt(Duration::from_millis(INITIAL_RTT_MS))
        // Sessions are short: probing for larger packets costs more than it brings.
        .mtu_discovery_config(None)
        // The one stream is the device's; the server opens none.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    let tls = QuicClientConfig::try_from(tls).expect("the provider has the suite of initial packets");
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport));
    config
}

async fn connect_tcp(address: SocketAddr, tls: Arc<ClientConfig>) -> Result<Link, LinkError> {
    let stream = TcpStream::connect(address).await.map_err(|_| LinkError::Unreachable)?;
    stream.set_nodelay(true).map_err(|_| LinkError::Unreachable)?;
    let name = ServerName::try_from(tls::SERVER_NAME).expect("a constant name");
    let stream =
        TlsConnector::from(tls).connect(name, stream).await.map_err(|error| LinkError::during_io(&error))?;
    let (_, session) = stream.get_ref();
    // QUIC insists by itself.
    if session.alpn_protocol() != Some(wire::ALPN) {
        return Err(LinkError::Protocol);
    }
    let exporter = session
        .export_keying_material([0; EXPORTER_BYTES], wire::EXPORTER_LABEL, Some(b""))
        .expect("32 bytes can be exported from a finished handshake");
    let (source, sink) = tokio::io::split(stream);
    Ok(Link {
        exporter,
        transport: Transport::Tcp,
        reader: Reader::new(Source::Tcp(source)),
        writer: Writer::new(Sink::Tcp(sink)),
    })
}

/// The codes that stand for alerts of TLS (RFC 9001, section 4.8).
fn is_crypto(code: quinn::TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}

/// A server that closes with code 0 has said all it had to.
fn closed_in_peace(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::ApplicationClosed(close) if close.error_code == VarInt::from_u32(0))
}

#[cfg(test)]
mod tests;
