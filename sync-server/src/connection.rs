//! One task per connection: gives an [`Exchange`] any pair of byte streams, and the time.

use std::{sync::Arc, time::Duration};

use ebb_protocol::{session, verify::PublicKey, wire};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
};

use crate::{Clock, gate::Pass, hub::Hub, operate::Metrics, signing::SigningKey, worker::Storage};

mod exchange;

pub use exchange::{APPENDS_BYTES_MAX, End, Exchange, Step, WRITES_BYTES_MAX};

/// Bytes reserved while waiting for a frame, all that an idle connection holds; more as frames need it.
const READ_BYTES: usize = 4 << 10;
/// A peer that takes none of the last bytes in this time, or has them and does not close in its turn, never will.
const CLOSE_MS_MAX: u64 = 2_000;
/// Commits under way may take so long when the server is stopped.
const STOP_MS_MAX: u64 = 5_000;

/// What every connection of a server shares.
#[derive(Debug)]
pub struct Shared {
    pub(crate) session: Arc<session::Config>,
    pub(crate) clock: Clock,
    pub(crate) hub: Arc<Hub>,
    pub(crate) storage: Storage,
    pub(crate) heads_key: SigningKey,
    pub(crate) metrics: Arc<Metrics>,
    /// Turns true when the server stops.
    pub(crate) stopping: watch::Receiver<bool>,
    /// What devices are told to wait when the server stops, in milliseconds.
    pub(crate) stop_retry_ms: u32,
}

/// Waits until the server stops.
pub(crate) async fn stops(stopping: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stopping.wait_for(|stops| *stops).await;
}

/// Serves a connection to its end, whoever ends it.
///
/// `tls` is the key that the peer proved to hold, `exporter` the connection's keying material, `pass` the
/// peer's place.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    tls: PublicKey,
    exporter: [u8; 32],
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
    pass: Pass,
) {
    let stopping = shared.stopping.clone();
    let exchange = Exchange::new(shared, tls, exporter);
    let mut connection = Connection { exchange, reader, writer, flushed: true, pass };
    let end = connection.run(stopping).await;
    tracing::debug!(?end, "a connection ended");
    if end == End::Close {
        connection.finish().await;
    }
}

struct Connection<R, W> {
    exchange: Exchange,
    reader: R,
    writer: W,
    flushed: bool,
    pass: Pass,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Connection<R, W> {
    async fn run(&mut self, mut stopping: watch::Receiver<bool>) -> End {
        loop {
            if let Err(end) = self.turn().await {
                return end;
            }
            if let Err(end) = self.introduce() {
                return end;
            }
            let Self { exchange, reader, writer, flushed, pass } = self;
            let Some(deadline) = exchange.deadline() else { return End::Close };
            let wait_ms = deadline.since(exchange.shared.clock.now());
            let reads = exchange.reads();
            let (inbox, incoming, unwritten) = exchange.ends();
            *flushed &= unwritten.is_empty();
            tokio::select! {
                biased;
                // First, or a peer that always has more to say would never be left.
                () = pass.lost() => return End::Gone,
                () = stops(&mut stopping) => {
                    self.stop().await;
                    return End::Close;
                }
                () = inbox.ready() => {}
                read = read_some(reader, incoming), if reads => match read {
                    Ok(0) | Err(_) => return End::Gone,
                    Ok(bytes) => {
                        exchange.shared.metrics.bytes_in.inc_by(bytes as u64);
                    }
                },
                wrote = write_some(writer, unwritten), if !*flushed => match wrote {
                    Err(_) => return End::Gone,
                    Ok(0) => *flushed = true,
                    Ok(bytes) => exchange.wrote(bytes),
                },
                () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {
                    if let Err(end) = exchange.tick() {
                        return end;
                    }
                }
            }
        }
    }

    /// Tells the gate whether the peer is a device by now, and what it holds as long as it is none.
    fn introduce(&mut self) -> Result<(), End> {
        let Self { exchange, pass, .. } = self;
        if !pass.is_stranger() {
            return Ok(());
        }
        match exchange.session.member() {
            None => pass.weigh(exchange.held_bytes()),
            Some(device) if pass.know(device) => {}
            Some(_) => {
                exchange.bye(exchange.shared.session.back_off_ms);
                return Err(End::Close);
            }
        }
        Ok(())
    }

    /// Does everything that can be done without waiting for the peer.
    async fn turn(&mut self) -> Result<(), End> {
        loop {
            match self.exchange.step()? {
                Step::Went => {}
                // Let other connections go on.
                Step::Took => {
                    self.pass.weigh(self.exchange.held_bytes());
                    tokio::task::yield_now().await;
                }
                Step::Opens => tokio::select! {
                    opened = self.exchange.opening() => opened?,
                    () = self.pass.lost() => return Err(End::Gone),
                },
                Step::Idle => return Ok(()),
            }
        }
    }

    /// The server stops: what is under way is answered, and nothing more is read.
    async fn stop(&mut self) {
        let exchange = &mut self.exchange;
        let answered = async {
            while exchange.awaits_log() {
                match exchange.inbox.next() {
                    Some(told) => exchange.told(told)?,
                    None => exchange.inbox.ready().await,
                }
            }
            Ok(())
        };
        let answered: Result<Result<(), End>, _> =
            tokio::time::timeout(Duration::from_millis(STOP_MS_MAX), answered).await;
        if !matches!(answered, Ok(Err(End::Close))) {
            self.exchange.bye(self.exchange.shared.stop_retry_ms);
        }
    }

    /// Writes what is left and waits until the peer has seen the end.
    async fn finish(&mut self) {
        // Whether it worked does not matter any more.
        let _ = tokio::time::timeout(Duration::from_millis(wire::ANSWER_MS_MAX), self.say_the_rest()).await;
    }

    /// What a desk is told before it is asked to come back may be more than a stranger's window at once.
    async fn say_the_rest(&mut self) -> std::io::Result<u64> {
        let Self { exchange, reader, writer, .. } = self;
        let each = Duration::from_millis(CLOSE_MS_MAX);
        while !exchange.unwritten().is_empty() {
            let bytes = tokio::time::timeout(each, write_some(writer, exchange.unwritten())).await??;
            exchange.wrote(bytes);
        }
        let closing = async {
            writer.shutdown().await?;
            // Closing before the peer has read would take the last frames from it.
            tokio::io::copy(reader, &mut tokio::io::sink()).await
        };
        tokio::time::timeout(each, closing).await?
    }
}

/// Reads what there is; safe to be dropped half-way.
async fn read_some(reader: &mut (impl AsyncRead + Unpin), into: &mut Vec<u8>) -> std::io::Result<usize> {
    into.reserve(READ_BYTES);
    reader.read_buf(into).await
}

/// Writes a part, or flushes when nothing is left; safe to be dropped half-way.
async fn write_some(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<usize> {
    match bytes {
        [] => writer.flush().await.map(|()| 0),
        bytes => match writer.write(bytes).await? {
            0 => Err(std::io::ErrorKind::WriteZero.into()),
            written => Ok(written),
        },
    }
}
