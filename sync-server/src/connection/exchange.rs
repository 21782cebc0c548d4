//! One connection without its socket: bytes come in, bytes go out, and what the log answers comes between.
//!
//! Carries out what the session says, without ever waiting: whoever drives it decides when the peer's bytes
//! come, when the log answers and when time passes. The server's driver is a task (`connection`), a
//! simulation's is the simulation.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use ebb_protocol::{
    id::{DeviceId, Millis, SpaceId},
    session::{Attest, Input, Output, Session, Snapshot},
    verify::PublicKey,
    wire::{self, Acked, Bye, FromServer, Heads, Refusal, SignedHeads, SpaceHello},
};
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::Shared;
use crate::{
    commit::Offer,
    hub::{Inbox, Told},
    log::LogError,
};

/// Bytes of one connection's appends that are not committed yet; above, nothing more is read from it.
/// With a frame being read and what waits to be written, a connection takes some 3 MiB at the very most.
pub const APPENDS_BYTES_MAX: usize = 1 << 20;
/// Bytes that wait to be written; above, nothing more is read. A device always reads, whatever it writes,
/// so this never stops both: only one that does not read is made to wait.
pub const WRITES_BYTES_MAX: usize = 1 << 20;
/// Below so many bytes left to write, the next run of a log is fetched: the network stays busy meanwhile.
const DRAINED_BYTES: usize = 32 << 10;
/// Spaces opened at a time: a desk's thousands must not fill the readers' queue before others.
const OPENS_MAX: usize = 8;

/// One connection without its socket.
#[derive(Debug)]
pub struct Exchange {
    pub(super) shared: Arc<Shared>,
    pub(super) session: Session,
    /// The key that the peer proved to hold.
    tls: PublicKey,
    pub(super) inbox: Arc<Inbox>,
    followed: BTreeSet<SpaceId>,
    /// What the session said and is not carried out yet: spaces are being opened first.
    outputs: VecDeque<Output>,
    /// Spaces that are to be opened, and those of which the log was asked.
    opens: VecDeque<(DeviceId, SpaceHello)>,
    asked: VecDeque<(SpaceId, Answered)>,
    /// Bytes that came.
    read: Vec<u8>,
    /// How much of `read` was taken as frames.
    taken: usize,
    /// The length of the first frame.
    hello_bytes: usize,
    to_write: Vec<u8>,
    /// How much of `to_write` is written.
    written: usize,
    /// Bytes offered to the log and not answered.
    appends_bytes: usize,
    /// Whether the session waits to hear that little is left to write.
    drains: bool,
}

type Answered = oneshot::Receiver<Result<Option<Snapshot>, LogError>>;

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer (or the log) is gone: nothing can be said any more.
    Gone,
    /// What is left is written, then it is closed.
    Close,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something was done, and more may be.
    Went,
    /// A frame was taken, which may have cost many signature checks; more may be done.
    Took,
    /// Nothing can be done before the peer, the log or the clock goes on.
    Idle,
    /// A space is being opened: nothing else is done before the log has answered.
    Opens,
}

impl Exchange {
    /// A fresh connection, with the peer's TLS key and the exported keying material.
    #[must_use]
    pub fn new(shared: Arc<Shared>, tls: PublicKey, exporter: [u8; 32]) -> Self {
        let session = Session::new(shared.clock.now(), shared.session.clone(), tls, exporter);
        let inbox = shared.hub.inbox();
        shared.metrics.sessions.inc();
        Self {
            shared,
            session,
            tls,
            inbox,
            followed: BTreeSet::new(),
            outputs: VecDeque::new(),
            opens: VecDeque::new(),
            asked: VecDeque::new(),
            read: Vec::new(),
            taken: 0,
            hello_bytes: 0,
            to_write: Vec::new(),
            written: 0,
            appends_bytes: 0,
            drains: false,
        }
    }

    /// Does the next thing that can be done without waiting: takes an answer, a notice or a frame.
    ///
    /// # Errors
    /// How the connection ends.
    pub fn step(&mut self) -> Result<Step, End> {
        if let Some((_, answer)) = self.asked.front_mut() {
            let answer = match answer.try_recv() {
                Err(TryRecvError::Empty) => return Ok(Step::Opens),
                Err(TryRecvError::Closed) => return Err(End::Gone),
                Ok(answer) => answer,
            };
            self.opened(answer)?;
        } else if let Some(told) = self.inbox.next() {
            self.told(told)?;
        } else if self.drains && self.unwritten().len() <= DRAINED_BYTES {
            self.drains = false;
            self.input(Input::Drained)?;
        } else if self.reads()
            && let Some(input) = self.next_frame()
        {
            self.input(input)?;
            return Ok(Step::Took);
        } else {
            self.compact();
            return Ok(Step::Idle);
        }
        Ok(Step::Went)
    }

    /// When [`Exchange::tick`] is due, if nothing happens before; `None` once the session is closed.
    #[must_use]
    pub fn deadline(&self) -> Option<Millis> {
        self.session.deadline()
    }

    /// The deadline has passed.
    ///
    /// # Errors
    /// How the connection ends.
    pub fn tick(&mut self) -> Result<(), End> {
        self.input(Input::Tick)
    }

    /// Whether more may be read from the peer.
    #[must_use]
    pub fn reads(&self) -> bool {
        self.appends_bytes < APPENDS_BYTES_MAX && self.unwritten().len() < WRITES_BYTES_MAX
    }

    /// Where bytes that came from the peer are put, at the end.
    pub fn incoming(&mut self) -> &mut Vec<u8> {
        &mut self.read
    }

    /// What is to be written to the peer next.
    #[must_use]
    pub fn unwritten(&self) -> &[u8] {
        &self.to_write[self.written..]
    }

    /// So many bytes of [`Exchange::unwritten`] were written.
    pub fn wrote(&mut self, bytes: usize) {
        self.shared.metrics.bytes_out.inc_by(bytes as u64);
        self.written += bytes;
        if self.written == self.to_write.len() {
            self.to_write = Vec::new();
            self.written = 0;
        } else if self.written >= WRITES_BYTES_MAX {
            self.to_write.drain(..self.written);
            self.written = 0;
        }
    }

    /// Bytes of memory that are held for what the peer said so far, and for what it is still to be told. What a
    /// Hello names is there three times: as it came, to be opened, and as the spaces that are followed.
    pub(super) fn held_bytes(&self) -> usize {
        3 * self.hello_bytes + self.read.capacity() + self.to_write.capacity()
    }

    /// What wakes a driver, where it puts what comes, and what it writes: all at once, to wait for any.
    pub(super) fn ends(&mut self) -> (&Inbox, &mut Vec<u8>, &[u8]) {
        (&self.inbox, &mut self.read, &self.to_write[self.written..])
    }

    /// Waits until the log has answered what [`Step::Opens`] waits for.
    ///
    /// # Errors
    /// How the connection ends.
    pub(super) async fn opening(&mut self) -> Result<(), End> {
        let Some((_, answer)) = self.asked.front_mut() else { return Ok(()) };
        let answer = answer.await.map_err(|_| End::Gone)?;
        self.opened(answer)
    }

    /// Whether the log has yet to answer what was offered.
    pub(super) fn awaits_log(&self) -> bool {
        self.appends_bytes > 0
    }

    pub(super) fn told(&mut self, told: Told) -> Result<(), End> {
        match told {
            Told::Input(input, bytes) => {
                self.appends_bytes -= bytes;
                self.input(*input)
            }
            Told::Unavailable => {
                self.bye(self.shared.session.back_off_ms);
                Err(End::Close)
            }
        }
    }

    /// Says good-bye: the device comes back after so many milliseconds.
    pub(super) fn bye(&mut self, retry_ms: u32) {
        // A good-bye is short, and whoever says it ends the connection anyway.
        let _ = self.send(&FromServer::Bye(Bye { reason: Refusal::Unavailable, retry_ms }));
    }

    fn input(&mut self, input: Input) -> Result<(), End> {
        self.outputs.extend(self.session.handle(self.shared.clock.now(), input));
        self.carry_out()
    }

    /// Carries out what the session said, in order, as far as no space must be opened first.
    fn carry_out(&mut self) -> Result<(), End> {
        while let Some(output) = self.outputs.pop_front() {
            match output {
                Output::Open(device, hello) => {
                    self.opens.push_back((device, hello));
                    if !matches!(self.outputs.front(), Some(Output::Open(..))) {
                        // Answered before anything else happens, so what follows comes after.
                        self.ask();
                        return Ok(());
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

    /// Follows the spaces first and has them read then, so that nothing falls between.
    fn ask(&mut self) {
        while self.asked.len() < OPENS_MAX
            && let Some((device, hello)) = self.opens.pop_front()
        {
            if self.followed.insert(hello.space) {
                self.shared.hub.follow(hello.space, &self.inbox);
            }
            self.asked.push_back((hello.space, self.shared.storage.open(device, self.tls, hello)));
        }
    }

    /// The log has answered for the space that was asked for first.
    fn opened(&mut self, answer: Result<Option<Snapshot>, LogError>) -> Result<(), End> {
        let Some((space, _)) = self.asked.pop_front() else { return Ok(()) };
        match answer {
            Ok(snapshot) => {
                let input = Input::Opened(space, snapshot);
                self.outputs.extend(self.session.handle(self.shared.clock.now(), input));
            }
            Err(error) => {
                tracing::warn!(%space, %error, "a space could not be opened");
                self.bye(self.shared.session.back_off_ms);
                return Err(End::Close);
            }
        }
        self.ask();
        if self.asked.is_empty() { self.carry_out() } else { Ok(()) }
    }

    fn offer(&mut self, space: SpaceId, offer: Offer) -> Result<(), End> {
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

    pub(super) fn attest(&mut self, attest: Attest) -> Result<(), End> {
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

    fn send(&mut self, frame: &FromServer) -> Result<(), End> {
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
        if self.to_write.is_empty() {
            self.to_write = bytes;
        } else {
            self.to_write.extend_from_slice(&bytes);
        }
        Ok(())
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
        if self.hello_bytes == 0 {
            self.hello_bytes = len;
        }
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
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.shared.hub.leave(&self.followed, &self.inbox);
        self.shared.metrics.sessions.dec();
    }
}

#[cfg(test)]
mod tests;
