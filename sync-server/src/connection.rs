//! One task per connection: carries out what its session says, over any pair of byte streams.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use ebb_protocol::{
    id::{DeviceId, SpaceId},
    session::{self, Attest, Input, Output, Session},
    verify::PublicKey,
    wire::{self, Acked, Bye, FromServer, Heads, Refusal, SignedHeads, SpaceHello},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
};

use crate::{
    Clock,
    commit::Offer,
    hub::{Hub, Inbox, Told},
    operate::Metrics,
    signing::SigningKey,
    worker::Storage,
};

/// Bytes of one connection's appends that are not committed yet; above, nothing more is read from it.
/// With a frame being read and what waits to be written, a connection takes some 3 MiB at the very most.
pub const APPENDS_BYTES_MAX: usize = 1 << 20;
/// Bytes that wait to be written; above, nothing more is read. A device always reads, whatever it writes,
/// so this never stops both: only one that does not read is made to wait.
pub const WRITES_BYTES_MAX: usize = 1 << 20;
/// Below so many bytes left to write, the next run of a log is fetched: the network stays busy meanwhile.
const DRAINED_BYTES: usize = 32 << 10;
/// Bytes reserved while waiting for a frame, all that an idle connection holds; more as frames need it.
const READ_BYTES: usize = 4 << 10;
/// Spaces opened at a time: a desk's thousands must not fill the readers' queue before others.
const OPENS_MAX: usize = 8;
/// A peer that does not take the last bytes in this time, and close in its turn, never will.
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
/// `tls` is the key that the peer proved to hold, `exporter` the connection's keying material.
pub async fn serve(
    shared: Arc<Shared>,
    tls: PublicKey,
    exporter: [u8; 32],
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
) {
    let stopping = shared.stopping.clone();
    let mut connection = Connection::new(shared, tls, exporter, reader, writer);
    let end = connection.run(stopping).await;
    tracing::debug!(?end, "a connection ended");
    if end == End::Close {
        connection.finish().await;
    }
}

struct Connection<R, W> {
    shared: Arc<Shared>,
    session: Session,
    inbox: Arc<Inbox>,
    followed: BTreeSet<SpaceId>,
    reader: R,
    /// Bytes that came.
    read: Vec<u8>,
    /// How much of `read` was taken as frames.
    taken: usize,
    writer: W,
    to_write: Vec<u8>,
    /// How much of `to_write` is written.
    written: usize,
    flushed: bool,
    /// Bytes offered to the log and not answered.
    appends_bytes: usize,
    /// Whether the session waits to hear that little is left to write.
    drains: bool,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The peer is gone: nothing can be said any more.
    Gone,
    /// What is left is written, then it is closed.
    Close,
}

type Step = Result<(), End>;

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Connection<R, W> {
    fn new(shared: Arc<Shared>, tls: PublicKey, exporter: [u8; 32], reader: R, writer: W) -> Self {
        let session = Session::new(shared.clock.now(), shared.session.clone(), tls, exporter);
        let inbox = shared.hub.inbox();
        shared.metrics.sessions.inc();
        Self {
            shared,
            session,
            inbox,
            followed: BTreeSet::new(),
            reader,
            read: Vec::new(),
            taken: 0,
            writer,
            to_write: Vec::new(),
            written: 0,
            flushed: true,
            appends_bytes: 0,
            drains: false,
        }
    }

    async fn run(&mut self, mut stopping: watch::Receiver<bool>) -> End {
        loop {
            if let Err(end) = self.turn().await {
                return end;
            }
            let wait_ms = match self.session.deadline() {
                Some(deadline) => deadline.since(self.shared.clock.now()),
                None => return End::Close,
            };
            self.compact();
            let reads = self.reads();
            let writes = !self.flushed;
            tokio::select! {
                biased;
                () = self.inbox.ready() => {}
                read = read_some(&mut self.reader, &mut self.read), if reads => match read {
                    Ok(0) | Err(_) => return End::Gone,
                    Ok(bytes) => {
                        self.shared.metrics.bytes_in.inc_by(bytes as u64);
                    }
                },
                wrote = write_some(&mut self.writer, &self.to_write[self.written..]), if writes => match wrote {
                    Err(_) => return End::Gone,
                    Ok(bytes) => self.wrote(bytes),
                },
                () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {
                    if let Err(end) = self.input(Input::Tick).await {
                        return end;
                    }
                }
                () = stops(&mut stopping) => {
                    self.stop().await;
                    return End::Close;
                }
            }
        }
    }

    /// Does everything that can be done without waiting for the peer.
    async fn turn(&mut self) -> Step {
        loop {
            if let Some(told) = self.inbox.next() {
                self.told(told).await?;
            } else if self.drains && self.to_write.len() - self.written <= DRAINED_BYTES {
                self.drains = false;
                self.input(Input::Drained).await?;
            } else if self.reads()
                && let Some(input) = self.next_frame()
            {
                self.input(input).await?;
                // A frame may have cost many signature checks: let other connections go on.
                tokio::task::yield_now().await;
            } else {
                return Ok(());
            }
        }
    }

    async fn told(&mut self, told: Told) -> Step {
        match told {
            Told::Input(input, bytes) => {
                self.appends_bytes -= bytes;
                self.input(*input).await
            }
            Told::Unavailable => {
                self.bye(self.shared.session.back_off_ms);
                Err(End::Close)
            }
        }
    }

    async fn input(&mut self, input: Input) -> Step {
        let outputs = self.session.handle(self.shared.clock.now(), input);
        self.carry_out(outputs).await
    }

    async fn carry_out(&mut self, outputs: Vec<Output>) -> Step {
        let mut outputs = VecDeque::from(outputs);
        let mut opens = Vec::new();
        while let Some(output) = outputs.pop_front() {
            match output {
                Output::Open(device, hello) => {
                    opens.push((device, hello));
                    if !matches!(outputs.front(), Some(Output::Open(..))) {
                        // Answered before anything else happens, so what follows comes after.
                        for input in self.open(std::mem::take(&mut opens)).await? {
                            outputs.extend(self.session.handle(self.shared.clock.now(), input));
                        }
                    }
                }
                Output::Send(frame) => self.send(&frame)?,
                Output::Attest(attest) => self.attest(attest)?,
                Output::AppendRoster(space, entries) => self.offer(space, Offer::Roster(entries))?,
                Output::Append { space, stream, envelopes, refill } => {
                    self.offer(space, Offer::Envelopes { stream, envelopes, refill })?;
                }
                Output::Bear { space, old, evidence, common } => {
                    self.offer(space, Offer::Bear { old, evidence, common })?;
                }
                Output::Read { space, stream, after, own } => {
                    self.shared.storage.read(space, stream, after, own, &self.inbox);
                }
                Output::Close => return Err(End::Close),
            }
        }
        Ok(())
    }

    /// Follows the spaces first and reads them then, so that nothing falls between.
    async fn open(&mut self, opens: Vec<(DeviceId, SpaceHello)>) -> Result<Vec<Input>, End> {
        let mut inputs = Vec::with_capacity(opens.len());
        for some in opens.chunks(OPENS_MAX) {
            let mut answers = Vec::with_capacity(some.len());
            for (device, hello) in some {
                if self.followed.insert(hello.space) {
                    self.shared.hub.follow(hello.space, &self.inbox);
                }
                answers.push((hello.space, self.shared.storage.open(*device, hello.clone())));
            }
            for (space, answer) in answers {
                match answer.await {
                    Ok(Ok(snapshot)) => inputs.push(Input::Opened(space, snapshot)),
                    Ok(Err(error)) => {
                        tracing::warn!(%space, %error, "a space could not be opened");
                        self.bye(self.shared.session.back_off_ms);
                        return Err(End::Close);
                    }
                    Err(_) => return Err(End::Gone),
                }
            }
        }
        Ok(inputs)
    }

    fn offer(&mut self, space: SpaceId, offer: Offer) -> Step {
        match self.shared.storage.offer(space, offer, &self.inbox) {
            Some(bytes) => {
                self.appends_bytes += bytes;
                Ok(())
            }
            None => {
                tracing::warn!(%space, "too much waits for the log: a device is sent away");
                self.bye(self.shared.session.back_off_ms);
                Err(End::Close)
            }
        }
    }

    fn attest(&mut self, attest: Attest) -> Step {
        let key = &self.shared.heads_key;
        let sign = |heads: &Heads| SignedHeads::sign(heads, |message| key.sign(message));
        let frame = match attest {
            Attest::CaughtUp(heads) => FromServer::CaughtUp(heads.iter().map(sign).collect()),
            Attest::Acked(envelopes, heads) => {
                self.shared.metrics.acked.inc_by(envelopes.len() as u64);
                FromServer::Acked(Acked { envelopes, head: sign(&heads) })
            }
        };
        self.send(&frame)
    }

    fn send(&mut self, frame: &FromServer) -> Step {
        let bytes = wire::encode_frame(frame);
        if bytes.len() - 4 > wire::FRAME_BYTES_MAX {
            // The device would take it for nonsense, and everything behind it.
            tracing::error!(bytes = bytes.len(), "a frame is longer than frames may be: the connection ends");
            return Err(End::Close);
        }
        match frame {
            FromServer::Entries(_) => self.drains = true,
            FromServer::Refused(refused) => self.shared.metrics.refused(&refused.reason),
            FromServer::Bye(bye) => self.shared.metrics.refused(&bye.reason),
            _ => {}
        }
        self.shared.metrics.frames_out.inc();
        if self.written == self.to_write.len() {
            self.to_write = bytes;
            self.written = 0;
        } else {
            self.to_write.extend_from_slice(&bytes);
        }
        self.flushed = false;
        Ok(())
    }

    fn bye(&mut self, retry_ms: u32) {
        // A good-bye is short, and whoever says it ends the connection anyway.
        let _ = self.send(&FromServer::Bye(Bye { reason: Refusal::Unavailable, retry_ms }));
    }

    /// Whether more may be read from the peer.
    fn reads(&self) -> bool {
        self.appends_bytes < APPENDS_BYTES_MAX && self.to_write.len() - self.written < WRITES_BYTES_MAX
    }

    /// The next whole frame of those read, or that there can be none.
    fn next_frame(&mut self) -> Option<Input> {
        let (prefix, rest) = self.read[self.taken..].split_first_chunk::<4>()?;
        let Ok(len) = wire::frame_len(*prefix) else {
            self.taken = self.read.len();
            return Some(Input::Garbage);
        };
        let body = rest.get(..len)?;
        self.shared.metrics.frames_in.inc();
        let input = wire::decode(body).map_or(Input::Garbage, Input::Frame);
        self.taken += 4 + len;
        if self.taken == self.read.len() {
            self.read = Vec::new();
            self.taken = 0;
        }
        Some(input)
    }

    /// Forgets frames that were taken, before more is read behind what is left.
    fn compact(&mut self) {
        self.read.drain(..self.taken);
        self.taken = 0;
    }

    fn wrote(&mut self, bytes: usize) {
        self.shared.metrics.bytes_out.inc_by(bytes as u64);
        if self.written == self.to_write.len() {
            self.flushed = true;
            self.to_write = Vec::new();
            self.written = 0;
            return;
        }
        self.written += bytes;
        if self.written >= WRITES_BYTES_MAX {
            self.to_write.drain(..self.written);
            self.written = 0;
        }
    }

    /// The server stops: what is under way is answered, and nothing more is read.
    async fn stop(&mut self) {
        let answered = async {
            while self.appends_bytes > 0 {
                match self.inbox.next() {
                    Some(told) => self.told(told).await?,
                    None => self.inbox.ready().await,
                }
            }
            Ok(())
        };
        let answered: Result<Step, _> =
            tokio::time::timeout(Duration::from_millis(STOP_MS_MAX), answered).await;
        if !matches!(answered, Ok(Err(End::Close))) {
            self.bye(self.shared.stop_retry_ms);
        }
    }

    /// Writes what is left and waits until the peer has seen the end.
    async fn finish(&mut self) {
        let Self { reader, writer, to_write, written, .. } = self;
        let finish = async {
            writer.write_all(&to_write[*written..]).await?;
            writer.shutdown().await?;
            // Closing before the peer has read would take the last frames from it.
            tokio::io::copy(reader, &mut tokio::io::sink()).await
        };
        // Whether it worked does not matter any more.
        let _ = tokio::time::timeout(Duration::from_millis(CLOSE_MS_MAX), finish).await;
    }
}

impl<R, W> Drop for Connection<R, W> {
    fn drop(&mut self) {
        self.shared.hub.leave(&self.followed, &self.inbox);
        self.shared.metrics.sessions.dec();
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

#[cfg(test)]
mod tests;
