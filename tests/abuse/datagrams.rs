//! What comes over UDP.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ebb_core::link::Transport;
use ebb_tests::disk::medium::Random;

use super::{
    Figures, Size, below,
    below::Losses,
    siege::{From, Siege, endure},
    streams::silent_after_handshake,
};

/// Datagrams sent at a time, of those that are nothing.
const BURST: usize = 20;
/// Endpoints that the clients of one attack share: each has an address of its own.
const ENDPOINTS: usize = 64;
/// How a packet of version 1, of a version still to be negotiated, a Retry and one of a connection begin.
const BEGINNINGS: [&[u8]; 4] =
    [&[0xc3, 0, 0, 0, 1, 8], &[0xc3, 10, 10, 10, 10, 20], &[0xf0, 0, 0, 0, 1], &[0x40]];
/// First flights that are recorded, and sent again from other addresses and ports.
const FLIGHTS: usize = 256;

impl Siege {
    fn quic(&self) -> SocketAddr {
        self.address.quic.parse().expect("an address")
    }

    fn socket(&self, number: usize) -> UdpSocket {
        let socket = UdpSocket::bind((From::Everywhere.address(number), 0)).expect("an address of loopback");
        socket.connect(self.quic()).expect("a datagram socket connects to any address");
        socket
    }
}

/// Noise of all sizes, half of it with the first bytes of something.
pub(super) fn noise(size: Size) -> Figures {
    endure(size, async |siege: Siege| {
        let from = siege.clone();
        let burst = move |number: usize| {
            let (mut random, socket) = (Random::new(number as u64), from.socket(number));
            async move {
                for _ in 0..BURST {
                    let huge = random.below(50) == 0;
                    let length = random.below(if huge { 65_000 } else { 1_473 });
                    let mut datagram: Vec<u8> = (0..length).map(|_| random.draw() as u8).collect();
                    let beginning = BEGINNINGS[random.below(BEGINNINGS.len())];
                    if random.coin() && length >= beginning.len() {
                        datagram[..beginning.len()].copy_from_slice(beginning);
                    }
                    let _ = socket.send(&datagram);
                }
                socket
            }
        };
        siege.flood(size.pick(100, 1_000), burst).await;
    })
}

/// What real clients send first: cut short, with bits flipped, out of order, and again from elsewhere.
pub(super) fn broken_initials(size: Size) -> Figures {
    endure(size, async |siege: Siege| {
        let flights = below::first_flights(size.pick(32, FLIGHTS)).await;
        let from = siege.clone();
        let broken = move |number: usize| {
            let mut random = Random::new(number as u64);
            let mut datagram = flights[number % flights.len()][random.below(2)].clone();
            let length = datagram.len();
            match random.below(5) {
                0 => datagram.truncate(random.below(length)),
                1 => {
                    // Cut short, and long enough again.
                    datagram.truncate(random.below(length));
                    datagram.resize(length, 0);
                }
                2 => datagram[random.below(length)] ^= 1 << random.below(8),
                3 => datagram[6..14].copy_from_slice(&flights[random.below(flights.len())][0][6..14]),
                _ => {}
            }
            let socket = from.socket(number);
            let _ = socket.send(&datagram);
            async { socket }
        };
        siege.flood(size.pick(500, 5_000), broken).await;
    })
}

/// Handshakes that are begun from thousands of addresses and never go on; nobody is there to answer a Retry.
pub(super) fn half_open_unproven(size: Size) -> Figures {
    endure(size, async |siege: Siege| {
        let held = size.pick(1_000, 10_000);
        let flights = below::first_flights(held).await;
        let from = siege.clone();
        let begin = move |number: usize| {
            let socket = from.socket(number);
            for datagram in &flights[number % flights.len()] {
                let _ = socket.send(datagram);
            }
            async { socket }
        };
        siege.flood(held, begin).await;
    })
}

/// The same by clients that prove their addresses.
pub(super) fn half_open_proven(size: Size) -> Figures {
    endure(size, async |siege: Siege| {
        let endpoint = |number| {
            let from = (From::Everywhere.address(number), 0).into();
            below::endpoint(from, Losses::DeafButToRetry)
        };
        let endpoints: Vec<_> = (0..ENDPOINTS).map(endpoint).collect();
        let (config, to) = (below::quic_config(), siege.quic());
        let begin = move |number: usize| {
            let connecting = endpoints[number % ENDPOINTS].connect_with(config.clone(), to, "ebb.invalid");
            async { (connecting.expect("begins"),) }
        };
        siege.flood(size.pick(1_200, 10_000), begin).await;
    })
}

/// Streams whose beginning never comes, and behind it as much as may be sent.
pub(super) fn gaps(size: Size) -> Figures {
    endure(size, async |siege: Siege| {
        let (config, to) = (below::quic_config(), siege.quic());
        let open = move |number: usize| {
            let config = config.clone();
            async move {
                let sent = Arc::new(AtomicUsize::new(0));
                let from = (From::Everywhere.address(number), 0).into();
                let endpoint = below::endpoint(from, Losses::Hole(sent.clone()));
                let connection =
                    endpoint.connect_with(config, to, "ebb.invalid").expect("begins").await.ok()?;
                let (mut stream, reader) = connection.open_bi().await.ok()?;
                sent.store(below::HOLE_BEGINS, Ordering::Relaxed);
                // As much as the windows take; nobody will ever widen them.
                let write = tokio::spawn(async move { stream.write_all(&[7; 1 << 20]).await.is_ok() });
                Some((endpoint, connection, reader, write))
            }
        };
        siege.flood(size.pick(300, 600), open).await;
    })
}

/// Peers with any key that finish the handshake, and then say nothing.
pub(super) fn silent(size: Size) -> Figures {
    silent_after_handshake(size, Transport::Quic)
}
