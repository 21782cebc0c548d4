//! The network between one phone and the server: it carries datagrams and streams, counts them, and
//! breaks off when a storm comes. Some swallow all datagrams, as some offices and hotels do.
//!
//! A break is as in life: datagrams vanish without a word, streams end in the middle.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    task::JoinSet,
};

/// A phone's network. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Weather {
    /// Where the phone finds the server for QUIC.
    pub(crate) quic: SocketAddr,
    /// Where the phone finds the server for TLS on TCP.
    pub(crate) tcp: SocketAddr,
    sky: Arc<Sky>,
    _tasks: JoinSet<io::Result<()>>,
}

/// Bytes that the network carried, those of TLS and QUIC included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    /// From the phone.
    pub(crate) up: u64,
    /// To the phone.
    pub(crate) down: u64,
}

#[derive(Debug)]
struct Sky {
    up: AtomicU64,
    down: AtomicU64,
    blocks_udp: bool,
    /// The storm comes when so many bytes were carried in all.
    storm_at: AtomicU64,
    stormy: watch::Sender<bool>,
}

/// A datagram on loopback is never larger.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;
const STREAM_BYTES: usize = 4 << 10;

impl Weather {
    /// Begins to carry between a phone and the server: streams, and datagrams if the network lets them pass.
    ///
    /// # Errors
    /// If the system gives no ports.
    pub(crate) async fn begin(quic: SocketAddr, tcp: SocketAddr, blocks_udp: bool) -> io::Result<Self> {
        let sky = Arc::new(Sky {
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            blocks_udp,
            storm_at: AtomicU64::new(u64::MAX),
            stormy: watch::Sender::new(false),
        });
        let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let streams = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (near_quic, near_tcp) = (datagrams.local_addr()?, streams.local_addr()?);
        let mut tasks = JoinSet::new();
        tasks.spawn(carry_datagrams(datagrams, quic, sky.clone()));
        tasks.spawn(carry_streams(streams, tcp, sky.clone()));
        Ok(Self { quic: near_quic, tcp: near_tcp, sky, _tasks: tasks })
    }

    /// Lets a storm come once so many more bytes were carried.
    pub(crate) fn storm_after(&self, bytes: u64) {
        let Carried { up, down } = self.carried();
        self.sky.storm_at.store(up + down + bytes, Ordering::Relaxed);
    }

    /// Waits until the storm is there.
    pub(crate) async fn storm(&self) {
        let mut stormy = self.sky.stormy.subscribe();
        // The sender lives as long as `self`.
        let _ = stormy.wait_for(|stormy| *stormy).await;
    }

    /// Ends the storm, and sends off one that did not come yet. Returns whether it was there.
    pub(crate) fn clear(&self) -> bool {
        self.sky.storm_at.store(u64::MAX, Ordering::Relaxed);
        self.sky.stormy.send_replace(false)
    }

    /// What was carried so far.
    pub(crate) fn carried(&self) -> Carried {
        Carried { up: self.sky.up.load(Ordering::Relaxed), down: self.sky.down.load(Ordering::Relaxed) }
    }
}

impl Sky {
    /// Counts what is to be carried; `false` if it does not get through.
    fn passes(&self, way: &AtomicU64, bytes: usize) -> bool {
        if *self.stormy.borrow() {
            return false;
        }
        way.fetch_add(bytes as u64, Ordering::Relaxed);
        let total = self.up.load(Ordering::Relaxed) + self.down.load(Ordering::Relaxed);
        if total >= self.storm_at.load(Ordering::Relaxed) {
            self.stormy.send_replace(true);
            return false;
        }
        true
    }
}

async fn carry_datagrams(near: UdpSocket, server: SocketAddr, sky: Arc<Sky>) -> io::Result<()> {
    let near = Arc::new(near);
    let mut far: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut ways_back = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((length, from)) = near.recv_from(&mut buffer).await else { continue };
        if sky.blocks_udp || !sky.passes(&sky.up, length) {
            continue;
        }
        let socket = match far.get(&from) {
            Some(socket) => socket.clone(),
            None => {
                let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
                socket.connect(server).await?;
                far.insert(from, socket.clone());
                ways_back.spawn(carry_back(socket.clone(), near.clone(), from, sky.clone()));
                socket
            }
        };
        // Datagrams may be lost: that is for those at the ends to deal with.
        let _ = socket.send(&buffer[..length]).await;
    }
}

async fn carry_back(far: Arc<UdpSocket>, near: Arc<UdpSocket>, to: SocketAddr, sky: Arc<Sky>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    while let Ok(length) = far.recv(&mut buffer).await {
        if sky.passes(&sky.down, length) {
            let _ = near.send_to(&buffer[..length], to).await;
        }
    }
}

async fn carry_streams(listener: TcpListener, server: SocketAddr, sky: Arc<Sky>) -> io::Result<()> {
    let mut streams = JoinSet::new();
    loop {
        let (near, _) = listener.accept().await?;
        let sky = sky.clone();
        streams.spawn(async move {
            if *sky.stormy.borrow() {
                return;
            }
            let Ok(far) = TcpStream::connect(server).await else { return };
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            tokio::select! {
                // Both ways go on until each is done, or a storm breaks both off.
                _ = async {
                    tokio::join!(
                        carry(near_read, far_write, &sky, &sky.up),
                        carry(far_read, near_write, &sky, &sky.down),
                    )
                } => {}
                () = storm(&sky) => {}
            }
        });
    }
}

async fn storm(sky: &Sky) {
    let _ = sky.stormy.subscribe().wait_for(|stormy| *stormy).await;
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    sky: &Sky,
    way: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; STREAM_BYTES];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        if !sky.passes(way, length) {
            return Ok(());
        }
        to.write_all(&buffer[..length]).await?;
    }
}
