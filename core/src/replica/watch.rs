//! The replica's own thread: it drives the link, wakes the engine and tells observers.
//!
//! Nothing is decided here. Inputs go to the engine under its lock, its actions to the link; observers
//! are called after the transaction that they are told of, with no lock held.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ebb_protocol::{
    client::{Input, Report},
    id::{Millis, SpaceId},
    wire,
};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
    time,
};

use super::{
    Drive, Lock, NetworkId, Replica,
    engine::{Engine, Event, LinkAction},
    sync::{SyncError, Synced, outcome},
};
use crate::{
    link::{self, Link, LinkError},
    record::{AlertId, RecordId},
};

/// How it stands with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncStatus {
    /// Not connected, and not trying to.
    Offline,
    /// Trying to reach the server.
    Connecting,
    /// Connected; things are going back and forth.
    Syncing,
    /// Everything was where it should be, at this moment by the device's clock.
    InSync(Millis),
    /// Not connected; the next attempt comes at this moment by the device's clock.
    Waiting(Millis),
    /// The server does not take something of this space: show it to the person.
    Rejected(SpaceId),
    /// What answers is not the clinic's server: show it to the person.
    Impostor,
}

/// What an app wants to be told. Every method has an empty default.
///
/// Methods are called from the replica's thread or from the one that changed something, after it is
/// durable, with no lock held: they may call the replica.
pub trait Observer: Send + Sync {
    /// Records were logged, edited or retracted, here or elsewhere. None are named where it is not known which:
    /// look at all of them.
    fn records_changed(&self, _space: SpaceId, _records: &[RecordId]) {}
    /// Where records are may have changed: ask for the delivery of those on the screen.
    fn delivery_changed(&self, _space: SpaceId) {}
    /// What the rules find changed: alerts were raised, changed or withdrawn.
    fn alerts_changed(&self, _space: SpaceId, _alerts: &[AlertId]) {}
    /// The connection changed its state.
    fn status_changed(&self, _status: SyncStatus) {}
    /// The server lost data and was refilled from this device: some deliveries went back for a while.
    fn server_restored(&self, _space: SpaceId) {}
    /// This device was restored or copied and may no longer write: enrol it anew.
    fn device_frozen(&self, _space: SpaceId) {}
}

/// What went over the link so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of frames sent, their lengths included, TLS and QUIC excluded.
    pub sent: u64,
    /// Bytes of frames received.
    pub received: u64,
    /// Links that came to stand.
    pub links: u64,
}

#[derive(Default)]
struct Counters {
    sent: AtomicU64,
    received: AtomicU64,
    links: AtomicU64,
}

/// What the handles and the thread share.
pub(super) struct Shared {
    pub(super) engine: Lock<Option<Engine>>,
    commands: Option<mpsc::UnboundedSender<Command>>,
    observers: Lock<Vec<Arc<dyn Observer>>>,
    status: Lock<SyncStatus>,
    counters: Arc<Counters>,
    thread: OnceLock<std::thread::ThreadId>,
}

enum Command {
    Input(Input),
    Sync(Duration, oneshot::Sender<Result<Synced, SyncError>>),
    /// Close the link; the other end is dropped once nothing is told any more.
    Lock(std::sync::mpsc::Sender<()>),
}

impl Replica {
    /// Syncs once: sends what is unsent, fetches what is new, and ends when all is done or `budget` is
    /// over. Whatever was acknowledged until then stays so.
    ///
    /// Works in any async runtime. Dropping the future stops the waiting, not the sync.
    ///
    /// # Errors
    /// [`SyncError`] says why not everything was done; nothing is lost for it.
    pub fn sync(&self, budget: Duration) -> impl Future<Output = Result<Synced, SyncError>> + Send + 'static {
        let (reply, answer) = oneshot::channel();
        let asked = self.shared.command(Command::Sync(budget, reply));
        async move { if asked { answer.await.unwrap_or(Err(SyncError::Closed)) } else { Err(SyncError::Closed) } }
    }

    /// Stays in sync from now on: connects when it can, and again with growing pauses when it cannot.
    pub fn stay_in_sync(&self) {
        self.shared.command(Command::Input(Input::Stay));
    }

    /// Ends [`Replica::stay_in_sync`] and closes the connection.
    pub fn go_offline(&self) {
        self.shared.command(Command::Input(Input::Leave));
    }

    /// Says that the device's network changed, and to which, if the app can tell: what failed before is
    /// tried again at once, and over the transport that got through there last time.
    pub fn network_changed(&self, network: Option<NetworkId>) {
        if let Some(engine) = self.shared.engine.lock().as_mut() {
            engine.moved(network);
        }
        self.introduce();
    }

    /// Has the device introduce itself to the server anew.
    pub(super) fn introduce(&self) {
        self.shared.command(Command::Input(Input::NetworkChanged));
    }

    /// Has an observer told of what happens from now on, as long as the replica lives.
    ///
    /// What it would have missed is told at once: where this device may write no more.
    pub fn watch(&self, observer: Arc<dyn Observer>) {
        self.shared.observers.lock().push(observer.clone());
        let frozen: Vec<_> =
            self.shared.engine.lock().as_ref().map(|engine| engine.frozen().collect()).unwrap_or_default();
        frozen.into_iter().for_each(|space| told(|| observer.device_frozen(space)));
    }

    /// How it stands with the server.
    #[must_use]
    pub fn status(&self) -> SyncStatus {
        *self.shared.status.lock()
    }

    /// What went over the link so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let Counters { sent, received, links } = &*self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic { sent: read(sent), received: read(received), links: read(links) }
    }
}

impl Shared {
    pub(super) fn start(engine: Engine, drive: Drive) -> Arc<Self> {
        let counters = Arc::new(Counters::default());
        let (commands, inbox) = mpsc::unbounded_channel();
        let threaded = drive == Drive::Thread && engine.server().is_some();
        let shared = Arc::new(Self {
            engine: Mutex::new(Some(engine)),
            commands: threaded.then_some(commands),
            observers: Mutex::default(),
            status: Mutex::new(SyncStatus::Offline),
            counters: counters.clone(),
            thread: OnceLock::new(),
        });
        if threaded {
            let driver = Driver::new(Arc::downgrade(&shared), inbox, counters);
            let thread = std::thread::Builder::new()
                .name("ebb-replica".into())
                .spawn(move || driver.run())
                .expect("the system gives a process one more thread");
            shared.thread.get_or_init(|| thread.thread().id());
        }
        shared
    }

    /// Forgets the keys and waits until observers are told nothing more (unless one of them calls this).
    pub(super) fn lock(&self) {
        drop(self.engine.lock().take());
        let (sender, closed) = std::sync::mpsc::channel();
        let asked = self.command(Command::Lock(sender));
        if asked && self.thread.get() != Some(&std::thread::current().id()) {
            let _ = closed.recv();
        }
        self.observers.lock().clear();
        *self.status.lock() = SyncStatus::Offline;
    }

    /// Tells observers what happened.
    pub(super) fn tell_events(&self) {
        let events = self.engine.lock().as_mut().map(Engine::take_events).unwrap_or_default();
        self.tell(&events, Millis(0));
    }

    /// Tells observers and the connection that something changed.
    pub(super) fn after_change(&self) {
        let events = self.engine.lock().as_mut().map(Engine::take_events).unwrap_or_default();
        let changed = events.iter().any(|event| matches!(event, Event::Records(..)));
        self.tell(&events, Millis(0));
        if changed || events.is_empty() {
            self.command(Command::Input(Input::LocalChange));
        }
    }

    fn command(&self, command: Command) -> bool {
        self.commands.as_ref().is_some_and(|commands| commands.send(command).is_ok())
    }

    pub(super) fn tell(&self, events: &[Event], now: Millis) {
        let observers = self.observers.lock().clone();
        for event in events {
            if let Event::Status(report) = event {
                let Some(status) = SyncStatus::of(*report, now) else { continue };
                *self.status.lock() = status;
                observers.iter().for_each(|observer| told(|| observer.status_changed(status)));
                continue;
            }
            for observer in &observers {
                told(|| match event {
                    Event::Records(space, records) => observer.records_changed(*space, records),
                    Event::Delivery(space) => observer.delivery_changed(*space),
                    Event::ServerRestored(space) => observer.server_restored(*space),
                    Event::Frozen(space) => observer.device_frozen(*space),
                    Event::Alerts(space, alerts) => observer.alerts_changed(*space, alerts),
                    Event::Status(_) => {}
                });
            }
        }
    }
}

/// Calls an observer. One that panics takes nothing with it, least of all the thread that syncs.
fn told(tell: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(tell)).is_err() {
        tracing::warn!("an observer of the app panicked");
    }
}

impl SyncStatus {
    fn of(report: Report, now: Millis) -> Option<Self> {
        Some(match report {
            Report::Connecting => Self::Connecting,
            Report::Syncing => Self::Syncing,
            Report::InSync => Self::InSync(now),
            Report::Waiting(Some(at)) => Self::Waiting(at),
            Report::Waiting(None) => Self::Offline,
            Report::Rejected(space, _) => Self::Rejected(space),
            Report::Impostor => Self::Impostor,
            Report::OutOfTime => return None,
        })
    }
}

/// The longest that anybody waits: budgets beyond have no end.
const BUDGET_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Somebody who waits for a sync to end.
struct Waiter {
    until: time::Instant,
    reply: oneshot::Sender<Result<Synced, SyncError>>,
}

struct Driver {
    shared: Weak<Shared>,
    inbox: mpsc::UnboundedReceiver<Command>,
    counters: Arc<Counters>,
    link: Option<Link>,
    /// Bytes of this link that are counted already.
    counted: (u64, u64),
    connecting: Option<JoinHandle<Result<Link, LinkError>>>,
    /// Links that are given a moment to get out what was sent.
    closing: JoinSet<()>,
    waiters: Vec<Waiter>,
    /// Whether the last attempt to connect met somebody else than the server.
    met_stranger: bool,
}

/// What ends a wait.
enum Woken {
    Command(Option<Command>),
    Frame(Result<Option<Vec<u8>>, LinkError>),
    Linked(Result<Link, LinkError>),
    Failed,
    Deadline,
}

impl Driver {
    fn new(shared: Weak<Shared>, inbox: mpsc::UnboundedReceiver<Command>, counters: Arc<Counters>) -> Self {
        Self {
            shared,
            inbox,
            counters,
            link: None,
            counted: (0, 0),
            connecting: None,
            closing: JoinSet::new(),
            waiters: Vec::new(),
            met_stranger: false,
        }
    }

    fn run(mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(async { while self.turn().await {} }),
            Err(error) => tracing::error!(%error, "the replica's runtime does not start"),
        }
    }

    /// Waits for one thing to happen and deals with it; `false` when the replica is gone.
    async fn turn(&mut self) -> bool {
        let woken = self.wait().await;
        self.count();
        let input = match woken {
            Woken::Command(None) => {
                self.close_all().await;
                return false;
            }
            Woken::Command(Some(Command::Lock(_closed))) => {
                self.close_all().await;
                self.answer(Err(SyncError::Closed));
                return true;
            }
            Woken::Command(Some(Command::Input(input))) => {
                // Another network, or another wish: what was met before says nothing any more.
                self.met_stranger &= matches!(input, Input::LocalChange);
                input
            }
            Woken::Command(Some(Command::Sync(budget, reply))) => {
                let Some(until) = self.with_engine(|engine| engine.until(budget)) else {
                    let _ = reply.send(Err(SyncError::Closed));
                    return true;
                };
                self.met_stranger = false;
                let now = time::Instant::now();
                let until_then = now.checked_add(budget).unwrap_or(now + BUDGET_MAX);
                self.waiters.push(Waiter { until: until_then, reply });
                Input::SyncUntil(until)
            }
            Woken::Frame(Ok(Some(frame))) => wire::decode(&frame).map_or(Input::Garbage, Input::Frame),
            Woken::Linked(Err(LinkError::NotOurServer)) => {
                // A portal, or pins of another deployment: said, and tried again all the same.
                if let Some(shared) = self.shared.upgrade() {
                    shared.tell(&[Event::Status(Report::Impostor)], Millis(0));
                }
                self.met_stranger = true;
                self.answer(Err(SyncError::Impostor));
                Input::Closed
            }
            Woken::Linked(Err(_)) => {
                self.met_stranger = false;
                Input::Closed
            }
            Woken::Frame(_) | Woken::Failed => {
                self.link = None;
                Input::Closed
            }
            Woken::Linked(Ok(link)) => {
                self.counters.links.fetch_add(1, Ordering::Relaxed);
                self.counted = (0, 0);
                self.met_stranger = false;
                let exporter = link.exporter;
                self.with_engine(|engine| engine.linked(link.transport));
                self.link = Some(link);
                Input::Connected { exporter }
            }
            Woken::Deadline => Input::Tick,
        };
        self.handle(input);
        true
    }

    async fn wait(&mut self) -> Woken {
        let deadline = self.next_deadline();
        let Self { inbox, link, connecting, .. } = self;
        let frame = async {
            let Some(Link { reader, writer, .. }) = link else { return std::future::pending().await };
            tokio::select! {
                frame = reader.next() => Woken::Frame(frame),
                error = flushed(writer) => { let _ = error; Woken::Failed }
            }
        };
        let linked = async {
            match connecting {
                Some(task) => Woken::Linked(task.await.unwrap_or(Err(LinkError::Lost))),
                None => std::future::pending().await,
            }
        };
        let woken = tokio::select! {
            command = inbox.recv() => Woken::Command(command),
            woken = frame => woken,
            woken = linked => woken,
            () = time::sleep_until(deadline) => Woken::Deadline,
        };
        if matches!(woken, Woken::Linked(_)) {
            self.connecting = None;
        }
        woken
    }

    fn next_deadline(&mut self) -> time::Instant {
        let now = time::Instant::now();
        let engine = self.with_engine(|engine| {
            let deadline = engine.deadline()?;
            Some(now + Duration::from_millis(deadline.since(engine.clock.steady())))
        });
        let waiters = self.waiters.iter().map(|waiter| waiter.until).min();
        let far = now + Duration::from_secs(3600);
        [engine.flatten(), waiters].into_iter().flatten().min().unwrap_or(far)
    }

    fn handle(&mut self, input: Input) {
        let Some(shared) = self.shared.upgrade() else { return };
        let handled = self.with_engine(|engine| {
            let actions = engine.handle(input);
            let (in_sync, settled) = (engine.is_in_sync(), engine.client.is_settled());
            (actions, engine.take_events(), engine.clock.now(), in_sync, settled)
        });
        let Some((actions, mut events, now, in_sync, settled)) = handled else {
            return self.answer(Err(SyncError::Closed));
        };
        for action in actions {
            self.act(action);
        }
        // Until something else is known, the last that answered was a stranger.
        let attempt =
            |event: &Event| matches!(event, Event::Status(Report::Connecting | Report::Waiting(Some(_))));
        events.retain(|event| !(self.met_stranger && attempt(event)));
        shared.tell(&events, now);
        let ended = events.iter().find_map(|event| match event {
            // One stream that is refused ends nothing that goes on beside it.
            Event::Status(Report::Rejected(space, _)) if !settled && !space.is_zero() => None,
            Event::Status(report) => outcome(*report),
            _ => None,
        });
        if let Some(outcome) = ended.or(in_sync.then_some(Ok(Synced { in_sync: true }))) {
            return self.answer(outcome);
        }
        let instant = time::Instant::now();
        let late = |waiter: &mut Waiter| waiter.until <= instant;
        for waiter in self.waiters.extract_if(.., late) {
            let _ = waiter.reply.send(Err(SyncError::OutOfTime));
        }
    }

    /// Tells everybody who waits what their sync came to.
    fn answer(&mut self, outcome: Result<Synced, SyncError>) {
        for waiter in self.waiters.drain(..) {
            let _ = waiter.reply.send(outcome);
        }
    }

    fn act(&mut self, action: LinkAction) {
        match action {
            LinkAction::Connect => {
                self.close();
                let connect = self.with_engine(|engine| {
                    let server = engine.server()?.clone();
                    Some((engine.transports(), server, engine.identity(), engine.pins()?.tls))
                });
                let Some((transports, server, identity, pins)) = connect.flatten() else { return };
                self.connecting =
                    Some(tokio::spawn(
                        async move { link::connect(&transports, &server, &identity, &pins).await },
                    ));
            }
            LinkAction::Send(frame) => {
                if let Some(link) = &mut self.link {
                    link.writer.queue(frame);
                }
            }
            LinkAction::Close => self.close(),
        }
    }

    fn close(&mut self) {
        if let Some(task) = self.connecting.take() {
            task.abort();
            // Nobody answered in time.
            self.met_stranger = false;
        }
        if let Some(link) = self.link.take() {
            // What is queued may still be leaving: let it, beside whatever comes next.
            let counters = self.counters.clone();
            let sent = self.counted.0;
            self.closing.spawn(async move {
                let total = link.close().await;
                counters.sent.fetch_add(total.saturating_sub(sent), Ordering::Relaxed);
            });
        }
        while self.closing.try_join_next().is_some() {}
    }

    /// Closes the link and waits until every link is closed.
    async fn close_all(&mut self) {
        self.close();
        while self.closing.join_next().await.is_some() {}
    }

    /// Adds what the link carried since the last count.
    fn count(&mut self) {
        let Some(Link { reader, writer, .. }) = &self.link else { return };
        let (sent, received) = (writer.bytes(), reader.bytes());
        self.counters.sent.fetch_add(sent - self.counted.0, Ordering::Relaxed);
        self.counters.received.fetch_add(received - self.counted.1, Ordering::Relaxed);
        self.counted = (sent, received);
    }

    fn with_engine<T>(&self, work: impl FnOnce(&mut Engine) -> T) -> Option<T> {
        let shared = self.shared.upgrade()?;
        let mut engine = shared.engine.lock();
        engine.as_mut().map(work)
    }
}

/// Ends only when writing fails.
async fn flushed(writer: &mut link::Writer) -> LinkError {
    match writer.flush().await {
        Ok(()) => std::future::pending().await,
        Err(error) => error,
    }
}
