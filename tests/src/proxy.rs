//! The network between a device and a real server, as bad as a test wants it: it loses datagrams, delays them
//! so that they overtake one another, doubles them, swallows the large ones, and dies.
//!
//! What becomes of a datagram follows from the seed, the direction and its number alone, so a run meets the
//! same losses again as far as the ends send the same. Streams of TCP are carried whole and late: what a
//! system does about TCP's losses below a socket cannot be shown from above it.

use std::{
    collections::{HashMap, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use ebb_core::link::ServerAddress;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
    time::{Instant, sleep, sleep_until},
};

use crate::{disk::medium::Random, net::Way, ward::block_on};

/// What a path does to what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Of a hundred datagrams, so many are lost, each way.
    pub lost_percent: usize,
    /// Of a hundred datagrams, so many come twice.
    pub doubled_percent: usize,
    /// How long everything takes, each way.
    pub delay_ms: u64,
    /// How much longer a datagram may take; later ones overtake it.
    pub jitter_ms: u64,
    /// The largest packet of IP that gets through, its headers of 28 bytes included.
    pub packet_bytes_max: usize,
    /// After so many datagrams since the path was set, both ways together, no more are carried.
    pub dies_after: u64,
}

impl Path {
    /// One that carries everything at once.
    pub const GOOD: Self = Self {
        lost_percent: 0,
        doubled_percent: 0,
        delay_ms: 0,
        jitter_ms: 0,
        packet_bytes_max: usize::MAX,
        dies_after: u64::MAX,
    };

    /// When the copies of a datagram arrive, in milliseconds from now: none, one or two.
    fn fate(&self, seed: u64, way: Way, number: u64, bytes: usize) -> Vec<u64> {
        let mut random = Random::new(Random::new(seed).draw() ^ (number << 1 | way as u64));
        let lost = random.below(100) < self.lost_percent;
        let copies = 1 + usize::from(random.below(100) < self.doubled_percent);
        if lost || bytes + HEADERS_BYTES > self.packet_bytes_max {
            return Vec::new();
        }
        (0..copies).map(|_| self.delay_ms + random.draw() % (self.jitter_ms + 1)).collect()
    }
}

/// What IPv4 and UDP put before a datagram.
const HEADERS_BYTES: usize = 28;
/// A datagram on loopback is never larger.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// Datagrams on their way at once; further ones are lost, as at a router.
const ON_THE_WAY_MAX: usize = 4_096;
/// Devices (by their ports) whose answers find back; the oldest is forgotten.
const PORTS_MAX: usize = 64;
/// Pieces of a stream on their way, one direction; then nothing more is read.
const PIECES_MAX: usize = 64;
const PIECE_BYTES: usize = 16 << 10;

/// A path between devices and a server, until dropped.
pub struct Proxy {
    /// Where devices find the server.
    pub address: ServerAddress,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    seed: u64,
    path: watch::Sender<Path>,
    /// Counts up when streams are cut.
    cuts: watch::Sender<u64>,
    /// Datagrams since the path was set, each way.
    ways: [Counts; 2],
    places: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Counts {
    came: AtomicU64,
    lost: AtomicU64,
}

impl Proxy {
    /// Begins to carry between whoever comes and a server.
    ///
    /// # Panics
    /// If the system gives no ports.
    #[must_use]
    pub fn start(server: &ServerAddress, seed: u64, path: Path) -> Self {
        let shared = Arc::new(Shared {
            seed,
            path: watch::Sender::new(path),
            cuts: watch::Sender::new(0),
            ways: Default::default(),
            places: Arc::new(Semaphore::new(ON_THE_WAY_MAX)),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let (bound, address) = mpsc::channel();
        let (quic, tcp) = (server.quic.clone(), server.tcp.clone());
        let carried = shared.clone();
        let thread = std::thread::spawn(move || {
            block_on(async {
                let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
                let streams = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
                let near = [datagrams.local_addr(), streams.local_addr()];
                let [near_quic, near_tcp] = near.map(|address| address.expect("bound").to_string());
                bound.send(ServerAddress { quic: near_quic, tcp: near_tcp }).expect("somebody listens");
                let quic = quic.parse().expect("an address");
                let tcp = tcp.parse().expect("an address");
                tokio::select! {
                    () = carry_datagrams(datagrams, quic, carried.clone()) => {}
                    () = carry_streams(streams, tcp, carried) => {}
                    _ = stopped => {}
                }
            });
        });
        let address = address.recv().expect("the proxy says where it is");
        Self { address, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// Makes the path another one from now on; datagrams are numbered anew.
    pub fn set(&self, path: Path) {
        for way in &self.shared.ways {
            way.came.store(0, Ordering::Relaxed);
            way.lost.store(0, Ordering::Relaxed);
        }
        self.shared.path.send_replace(path);
    }

    /// Breaks off every stream of TCP that it carries now.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Datagrams that came since the path was set, and those of them that did not get through, both ways
    /// together.
    #[must_use]
    pub fn came_and_lost(&self) -> (u64, u64) {
        let sum = |count: fn(&Counts) -> &AtomicU64| {
            self.shared.ways.iter().map(|way| count(way).load(Ordering::Relaxed)).sum()
        };
        (sum(|way| &way.came), sum(|way| &way.lost))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "the proxy panicked");
    }
}

impl Shared {
    /// When the copies of the next datagram of a direction arrive, each with its place on the way.
    fn pass(&self, way: Way, bytes: usize) -> Vec<(Duration, OwnedSemaphorePermit)> {
        let path = *self.path.borrow();
        let counts = &self.ways[way as usize];
        let before = self.ways.iter().map(|way| way.came.load(Ordering::Relaxed)).sum::<u64>();
        let number = counts.came.fetch_add(1, Ordering::Relaxed);
        let dead = before >= path.dies_after;
        let arrivals = if dead { Vec::new() } else { path.fate(self.seed, way, number, bytes) };
        let place = |ms| Some((Duration::from_millis(ms), self.places.clone().try_acquire_owned().ok()?));
        let arrivals: Vec<_> = arrivals.into_iter().filter_map(place).collect();
        counts.lost.fetch_add(u64::from(arrivals.is_empty()), Ordering::Relaxed);
        arrivals
    }

    fn delay(&self) -> Duration {
        Duration::from_millis(self.path.borrow().delay_ms)
    }
}

async fn carry_datagrams(near: UdpSocket, server: SocketAddr, shared: Arc<Shared>) {
    let near = Arc::new(near);
    let mut far: HashMap<SocketAddr, (Arc<UdpSocket>, oneshot::Sender<()>)> = HashMap::new();
    let mut ports = VecDeque::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((length, from)) = near.recv_from(&mut buffer).await else { continue };
        let socket = match far.get(&from) {
            Some((socket, _)) => socket.clone(),
            None => {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
                socket.connect(server).await.expect("a datagram socket connects to any address");
                let socket = Arc::new(socket);
                let (forget, forgotten) = oneshot::channel();
                tokio::spawn(carry_back(socket.clone(), near.clone(), from, forgotten, shared.clone()));
                far.insert(from, (socket.clone(), forget));
                ports.push_back(from);
                if ports.len() > PORTS_MAX {
                    ports.pop_front().map(|oldest| far.remove(&oldest));
                }
                socket
            }
        };
        for (late, place) in shared.pass(Way::Up, length) {
            let (socket, datagram) = (socket.clone(), buffer[..length].to_vec());
            tokio::spawn(async move {
                sleep(late).await;
                // Datagrams may be lost: that is for those at the ends to deal with.
                let _ = socket.send(&datagram).await;
                drop(place);
            });
        }
    }
}

async fn carry_back(
    far: Arc<UdpSocket>,
    near: Arc<UdpSocket>,
    to: SocketAddr,
    mut forgotten: oneshot::Receiver<()>,
    shared: Arc<Shared>,
) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let length = tokio::select! {
            length = far.recv(&mut buffer) => length,
            _ = &mut forgotten => return,
        };
        // A port that nobody listens at is told once, and may be listened at again.
        let Ok(length) = length else { continue };
        for (late, place) in shared.pass(Way::Down, length) {
            let (near, datagram) = (near.clone(), buffer[..length].to_vec());
            tokio::spawn(async move {
                sleep(late).await;
                let _ = near.send_to(&datagram, to).await;
                drop(place);
            });
        }
    }
}

async fn carry_streams(listener: TcpListener, server: SocketAddr, shared: Arc<Shared>) {
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        let shared = shared.clone();
        tokio::spawn(async move {
            let mut cuts = shared.cuts.subscribe();
            cuts.mark_unchanged();
            // TCP's own handshake, which the two sockets beside this one did not feel.
            sleep(2 * shared.delay()).await;
            let Ok(far) = TcpStream::connect(server).await else { return };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            tokio::select! {
                _ = async {
                    tokio::join!(
                        carry(near_read, far_write, &shared),
                        carry(far_read, near_write, &shared),
                    )
                } => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

/// Carries one direction of a stream, each piece as late as the path is long.
async fn carry(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, shared: &Shared) {
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
    let read = async move {
        let mut buffer = vec![0; PIECE_BYTES];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let arrives = Instant::now() + shared.delay();
            if sender.send((arrives, buffer[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((arrives, piece)) = receiver.recv().await {
            sleep_until(arrives).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: Path = Path {
        lost_percent: 30,
        doubled_percent: 10,
        delay_ms: 300,
        jitter_ms: 60,
        packet_bytes_max: 1_280,
        dies_after: u64::MAX,
    };

    #[test]
    fn what_becomes_of_a_datagram_follows_from_seed_way_and_number() {
        let fates = |path: Path, seed| {
            let ways = [Way::Up, Way::Down];
            ways.map(|way| (0..10_000).map(|number| path.fate(seed, way, number, 1_200)).collect::<Vec<_>>())
        };
        let [up, down] = fates(BAD, 1);
        assert_eq!([up.clone(), down.clone()], fates(BAD, 1));
        assert_ne!(up, down);
        assert_ne!(up, fates(BAD, 2)[0]);
        for way in [&up, &down] {
            let lost = way.iter().filter(|fate| fate.is_empty()).count();
            assert!((2_800..3_200).contains(&lost), "{lost} of 10,000 are lost");
            let doubled = way.iter().filter(|fate| fate.len() == 2).count();
            assert!((600..800).contains(&doubled), "{doubled} of 7,000 that arrive come twice");
            assert!(way.iter().flatten().all(|late| (300..=360).contains(late)));
            let firsts: Vec<_> = way.iter().filter_map(|fate| fate.first()).collect();
            assert!(firsts.windows(2).any(|two| two[0] > two[1]), "some overtake others");
        }
        let [good, _] = fates(Path::GOOD, 1);
        assert!(good.iter().all(|fate| fate == &[0]));
    }

    #[test]
    fn what_is_too_large_never_arrives() {
        let path = Path { packet_bytes_max: 1_280, ..Path::GOOD };
        assert!(path.fate(1, Way::Up, 0, 1_253).is_empty());
        assert_eq!(path.fate(1, Way::Up, 0, 1_252).len(), 1);
    }
}
