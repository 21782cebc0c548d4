//! The threads around the log: one that commits, and some that read.
//!
//! Connections hand over what they want appended or read and find the answers in their inboxes. Nothing
//! here waits for a connection, and no connection waits here.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ebb_protocol::{
    id::{DeviceId, LogId, Millis, Position, SpaceId, StreamId},
    session::{Input, Run, Snapshot},
    verify::PublicKey,
    wire::{CATCH_UP_BYTES_MAX, LogBorn, SignedLogBorn, SpaceHello},
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    Clock,
    commit::{Allowance, Answer, Committer, Effect, Means, Offer},
    hub::{Hub, Inbox},
    log::{self, Log, LogError, Reader, Rosters},
    operate::Metrics,
    signing::{self, SigningKey},
};

/// Bytes of all offers that are under way: the server's own memory, whatever the number of connections.
pub const OFFERED_BYTES_MAX: usize = 256 << 20;
/// How often a log that failed is tried again while nobody appends.
const PROBE_MS: u64 = 1_000;
/// Where groups were lately as large as this, the next one waits for as many offers. (One device's push is
/// one offer a stream, four as a rule.)
const CROWD_MIN: usize = 5;
/// It waits no longer than this: as long as one commit on a slow disk, so that nobody waits for much more
/// than the crowd itself costs. Under 64 writers that each wait for their acknowledgement, an fsync serves 7
/// of them without it; with less on slow processors, which bring a crowd together more slowly.
const CROWD_WAIT_MS_MAX: u64 = 10;

/// Where connections hand over what they want of the log.
#[derive(Debug)]
pub struct Storage {
    offers: Sender<(Address, SpaceId, Offer)>,
    asks: Sender<Ask>,
    offered_bytes: Arc<AtomicUsize>,
    writable: Arc<AtomicBool>,
}

/// What serves a [`Storage`]: one that commits, and some that read.
pub(crate) struct Workers<L: Log> {
    writer: Writer<L>,
    offered: Receiver<(Address, SpaceId, Offer)>,
    readers: Vec<L::Reader>,
    asked: Receiver<Ask>,
    rosters: Arc<Rosters>,
}

/// The workers' threads; they end when every [`Storage`] is gone and everything under way is done.
#[derive(Debug)]
pub struct Threads(Vec<JoinHandle<()>>);

/// Who is answered, and how much it weighed.
#[derive(Clone, Debug)]
struct Address {
    inbox: Arc<Inbox>,
    bytes: usize,
}

#[derive(Debug)]
enum Ask {
    Open(Box<(DeviceId, PublicKey, SpaceHello)>, oneshot::Sender<Result<Option<Snapshot>, LogError>>),
    Read { space: SpaceId, stream: StreamId, after: Position, own: Option<DeviceId>, inbox: Arc<Inbox> },
}

/// What the threads are given.
#[derive(Debug)]
pub(crate) struct Setup<L> {
    pub(crate) log: L,
    pub(crate) readers: usize,
    pub(crate) allowance: Allowance,
    pub(crate) foundings_per_minute: u32,
    pub(crate) heads_key: SigningKey,
    pub(crate) clock: Clock,
    pub(crate) hub: Arc<Hub>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Storage {
    /// A storage, and what serves it.
    pub(crate) fn new<L: Log>(setup: Setup<L>) -> Result<(Self, Workers<L>), LogError> {
        let (offers, offered) = mpsc::channel();
        let (asks, asked) = mpsc::channel();
        let offered_bytes = Arc::new(AtomicUsize::new(0));
        let writable = Arc::new(AtomicBool::new(true));
        let rosters = Arc::new(Rosters::default());
        let readers = (0..setup.readers.max(1)).map(|_| setup.log.reader()).collect::<Result<_, _>>()?;
        let committer = Committer::new(rosters.clone(), setup.allowance);
        let writer = Writer {
            committer: committer.with_foundings(setup.foundings_per_minute),
            log: setup.log,
            means: Server(setup.heads_key),
            clock: setup.clock,
            hub: setup.hub,
            metrics: setup.metrics,
            offered_bytes: offered_bytes.clone(),
            writable: writable.clone(),
            waiting: 0,
            crowd: 0,
        };
        let workers = Workers { writer, offered, readers, asked, rosters };
        Ok((Self { offers, asks, offered_bytes, writable }, workers))
    }

    /// Hands over what is to be appended; says how much is under way with it, or `None` if the server
    /// cannot hold more now.
    pub(crate) fn offer(&self, space: SpaceId, offer: Offer, inbox: &Arc<Inbox>) -> Option<usize> {
        let bytes = offer.bytes();
        if self.offered_bytes.fetch_add(bytes, Ordering::Relaxed) > OFFERED_BYTES_MAX {
            self.offered_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return None;
        }
        let address = Address { inbox: inbox.clone(), bytes };
        if self.offers.send((address, space, offer)).is_err() {
            tracing::error!("the thread that commits has ended");
            self.writable.store(false, Ordering::Relaxed);
            return None;
        }
        Some(bytes)
    }

    /// Reads what a session opens.
    pub(crate) fn open(
        &self,
        device: DeviceId,
        tls: PublicKey,
        hello: SpaceHello,
    ) -> oneshot::Receiver<Result<Option<Snapshot>, LogError>> {
        let (answer, answered) = oneshot::channel();
        // If the threads are gone, so is the answer's sender, which the receiver notices.
        let _ = self.asks.send(Ask::Open(Box::new((device, tls, hello)), answer));
        answered
    }

    /// Reads a run, which comes into the inbox.
    pub(crate) fn read(
        &self,
        space: SpaceId,
        stream: StreamId,
        after: Position,
        own: Option<DeviceId>,
        inbox: &Arc<Inbox>,
    ) {
        let _ = self.asks.send(Ask::Read { space, stream, after, own, inbox: inbox.clone() });
    }

    /// Whether the last commit, or the last attempt since, was made durable.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }
}

impl<L: Log> Workers<L> {
    /// Gives each a thread of its own.
    pub(crate) fn spawn(self) -> io::Result<Threads> {
        let Self { writer, offered, readers, asked, rosters } = self;
        let asked = Arc::new(Mutex::new(asked));
        let mut threads = Vec::new();
        for (number, reader) in readers.into_iter().enumerate() {
            let (asked, rosters) = (asked.clone(), rosters.clone());
            let serve = move || loop {
                let ask = asked.lock().recv();
                let Ok(ask) = ask else { return };
                answer(&reader, &rosters, ask);
            };
            threads.push(spawn(&format!("read-{number}"), serve)?);
        }
        threads.push(spawn("commit", move || writer.run(&offered))?);
        Ok(Threads(threads))
    }

    /// One of those that read.
    pub(crate) fn reader(&self) -> &L::Reader {
        &self.readers[0]
    }

    /// Answers the oldest question, if there is one; whether there was.
    pub(crate) fn read_next(&mut self) -> bool {
        let asked = self.asked.try_recv();
        asked.map(|ask| answer(self.reader(), &self.rosters, ask)).is_ok()
    }

    /// Commits a group of what was offered, if anything was; whether there was.
    pub(crate) fn commit_next(&mut self) -> bool {
        self.writer.take(&self.offered);
        if self.writer.committer.is_idle() {
            return false;
        }
        self.writer.commit();
        true
    }

    /// Tries whether a log that failed takes writes again, as happens while nobody appends.
    pub(crate) fn probe_if_failed(&mut self) {
        if !self.writer.writable.load(Ordering::Relaxed) {
            self.writer.probe();
        }
    }
}

impl Threads {
    /// Waits until the threads have ended.
    pub(crate) fn join(self) {
        for thread in self.0 {
            if thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

fn answer(reader: &impl Reader, rosters: &Rosters, ask: Ask) {
    match ask {
        Ask::Open(what, answer) => {
            let (device, tls, hello) = *what;
            // Nobody may be waiting any more.
            let _ = answer.send(log::open(reader, rosters, &device, &tls, &hello));
        }
        Ask::Read { space, stream, after, own, inbox } => {
            let run =
                reader.frozen(|reader| reader.read(&space, &stream, after, CATCH_UP_BYTES_MAX, own.as_ref()));
            inbox.answer(run_answer(run), 0);
        }
    }
}

fn run_answer(run: Result<Option<Run>, LogError>) -> Answer {
    match run {
        Ok(Some(run)) => Answer::Input(Input::Run(run)),
        Ok(None) => Answer::Unavailable,
        Err(error) => {
            tracing::warn!(%error, "a run could not be read");
            Answer::Unavailable
        }
    }
}

/// Commits.
struct Writer<L> {
    committer: Committer<Address>,
    log: L,
    means: Server,
    clock: Clock,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    offered_bytes: Arc<AtomicUsize>,
    writable: Arc<AtomicBool>,
    /// Offers since the last group.
    waiting: usize,
    /// Offers that a group had lately.
    crowd: usize,
}

impl<L: Log> Writer<L> {
    fn run(mut self, offered: &Receiver<(Address, SpaceId, Offer)>) {
        loop {
            match self.wait(offered) {
                Ok((address, space, offer)) => self.offer(address, space, offer),
                Err(RecvTimeoutError::Timeout) => self.probe(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            loop {
                // What came while the last group was written is part of the next.
                self.take(offered);
                if self.committer.is_idle() {
                    break;
                }
                self.gather(offered);
                self.commit();
            }
        }
    }

    /// Takes everything that was offered so far.
    fn take(&mut self, offered: &Receiver<(Address, SpaceId, Offer)>) {
        while let Ok((address, space, offer)) = offered.try_recv() {
            self.offer(address, space, offer);
        }
    }

    /// Where many devices append at once, gives those who are about to a moment: one fsync serves them all.
    fn gather(&mut self, offered: &Receiver<(Address, SpaceId, Offer)>) {
        if self.crowd >= CROWD_MIN {
            let until = Instant::now() + Duration::from_millis(CROWD_WAIT_MS_MAX);
            while self.waiting < self.crowd {
                let left = until.saturating_duration_since(Instant::now());
                let Ok((address, space, offer)) = offered.recv_timeout(left) else { break };
                self.offer(address, space, offer);
            }
        }
        // Forgotten after some ten groups: a lone writer does not wait for a crowd that has gone.
        self.crowd = std::mem::take(&mut self.waiting).max(self.crowd * 3 / 4);
    }

    fn wait(
        &self,
        offered: &Receiver<(Address, SpaceId, Offer)>,
    ) -> Result<(Address, SpaceId, Offer), RecvTimeoutError> {
        match self.writable.load(Ordering::Relaxed) {
            true => offered.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => offered.recv_timeout(Duration::from_millis(PROBE_MS)),
        }
    }

    fn offer(&mut self, address: Address, space: SpaceId, offer: Offer) {
        self.waiting += 1;
        if let Some(effect) = self.committer.offer(address, space, offer) {
            self.carry_out(effect);
        }
    }

    fn commit(&mut self) {
        let Self { committer, log, means, clock, .. } = self;
        let group = committer.next_group(log, clock.now(), means);
        let result = match group.is_empty() {
            true => Ok(Vec::new()),
            false => {
                let started = Instant::now();
                let result = log.commit(&group);
                let envelopes = group.iter().map(|part| part.envelopes.len()).sum();
                self.metrics.committed(envelopes, started.elapsed(), &result);
                result
            }
        };
        let failure = match &result {
            Ok(parts) => parts.iter().find_map(|part| part.as_ref().err()),
            Err(error) => Some(error),
        };
        if let Some(error) = failure {
            tracing::warn!(%error, "a group was not committed whole");
        }
        if !group.is_empty() {
            // One space's own fault says nothing about the storage.
            let fails = matches!(failure, Some(LogError::Full | LogError::Io(_)));
            self.writable.store(!fails, Ordering::Relaxed);
        }
        for effect in self.committer.done(&self.log, result) {
            self.carry_out(effect);
        }
    }

    fn probe(&mut self) {
        match self.log.probe() {
            Ok(()) => {
                tracing::info!("the log takes writes again");
                self.writable.store(true, Ordering::Relaxed);
            }
            Err(error) => tracing::debug!(%error, "the log still takes no writes"),
        }
    }

    fn carry_out(&self, effect: Effect<Address>) {
        match effect {
            Effect::Reply(address, answer) => {
                self.offered_bytes.fetch_sub(address.bytes, Ordering::Relaxed);
                address.inbox.answer(answer, address.bytes);
            }
            Effect::Notice(space, notice) => self.hub.tell(space, &notice),
        }
    }
}

/// What starting a log takes, in a real server.
#[derive(Debug)]
struct Server(SigningKey);

impl Means for Server {
    fn log_id(&mut self) -> LogId {
        LogId(signing::random_id())
    }

    fn sign_born(&mut self, born: &LogBorn) -> SignedLogBorn {
        SignedLogBorn::sign(born, |message| self.0.sign(message))
    }
}

impl Clock {
    /// The moment.
    #[must_use]
    pub fn now(&self) -> Millis {
        (self.0)()
    }
}

#[cfg(test)]
pub(crate) mod tests;
