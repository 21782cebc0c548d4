//! What comes over TCP, and over either once the handshake is done.

use std::{net::SocketAddr, sync::Arc};

use ebb_core::{
    keys::{DeviceSecrets, OsEntropy},
    link::{self, Identity, Link, Transport},
};
use ebb_protocol::{
    id::{Hash, LogId, Position, SpaceId, StreamId},
    wire::{FRAME_BYTES_MAX, Head, SpaceHello},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::{
    Figures, Size, below,
    siege::{From, Siege, endure, endure_unmoved, greet},
};

/// Spaces that a Hello of a flood names, and cursors in each: a frame that is nearly full.
const SPACES: usize = 1_000;
const CURSORS: usize = 14;

impl Siege {
    async fn tcp(&self, from: From, number: usize) -> Option<TcpStream> {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::new(from.address(number), 0)).expect("an address of loopback");
        let to: SocketAddr = self.address.tcp.parse().expect("an address");
        socket.connect(to).await.ok()
    }
}

/// Connections that stay silent, or of which one in five goes half-way into its handshake.
fn half_open(size: Size, from: From, held: [usize; 2]) -> Figures {
    let attack = async |siege: Siege| {
        let (hello, sieged) = (Arc::new(below::client_hello()), siege.clone());
        let open = move |number| {
            let (hello, siege) = (hello.clone(), sieged.clone());
            async move {
                let mut stream = siege.tcp(from, number).await?;
                // Nothing, half a handshake's first message, or all of it.
                let half = if matches!(from, From::One) { 0 } else { (number % 10).saturating_sub(7) };
                let said = &hello[..hello.len() * half / 2];
                stream.write_all(said).await.ok()?;
                Some(stream)
            }
        };
        let [small, full] = held;
        siege.flood(size.pick(small, full), open).await;
    };
    match from {
        From::One => endure_unmoved(size, attack),
        From::Beside | From::Everywhere => endure(size, attack),
    }
}

pub(super) fn half_open_from_one_address(size: Size) -> Figures {
    half_open(size, From::One, [5_000, 10_000])
}

pub(super) fn half_open_from_beside(size: Size) -> Figures {
    half_open(size, From::Beside, [2_500, 10_000])
}

pub(super) fn half_open_from_everywhere(size: Size) -> Figures {
    half_open(size, From::Everywhere, [2_500, 10_000])
}

/// A byte every ten seconds, of a handshake and of a first frame: the server ends both by itself.
pub(super) fn trickle(size: Size) -> Figures {
    endure(size, async |siege: Siege| {
        let hello = below::client_hello();
        let mut bytes = tokio::time::interval(std::time::Duration::from_secs(10));
        let mut handshakes = Vec::new();
        let mut frames = Vec::new();
        for number in 0..size.pick(50, 1_000) {
            handshakes.extend(siege.tcp(From::Everywhere, number).await);
            frames.extend(siege.stranger(either(number)).await);
        }
        siege.in_full_swing();
        for byte in 0..size.pick(1, 2) {
            bytes.tick().await;
            for stream in &mut handshakes {
                let _ = stream.write_all(&hello[byte..=byte]).await;
            }
            for (_, link) in &mut frames {
                let _ = link.writer.send(vec![0]).await;
            }
        }
        for mut stream in handshakes {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
        for (_, mut link) in frames {
            assert!(matches!(link.reader.next().await, Ok(None) | Err(_)), "no answer, and an end");
        }
        siege.ended().await;
    })
}

/// Peers with any key that finish the handshake, and then say nothing.
pub(super) fn silent(size: Size) -> Figures {
    silent_after_handshake(size, Transport::Tcp)
}

pub(super) fn silent_after_handshake(size: Size, transport: Transport) -> Figures {
    endure(size, async |siege: Siege| {
        let from = siege.clone();
        let open = move |_| {
            let siege = from.clone();
            async move { siege.stranger(transport).await }
        };
        siege.flood(size.pick(600, 2_000), open).await;
    })
}

/// The transports in turn.
fn either(number: usize) -> Transport {
    if number.is_multiple_of(2) { Transport::Quic } else { Transport::Tcp }
}

/// Frames that promise all that a frame may hold, and lack the last byte; a few promise more.
pub(super) fn endless(size: Size) -> Figures {
    endure(size, async |siege: Siege| {
        let mut frame = vec![7; 4 + FRAME_BYTES_MAX - 1];
        frame[..4].copy_from_slice(&u32::try_from(FRAME_BYTES_MAX).expect("a MiB").to_be_bytes());
        let from = siege.clone();
        let open = move |number| {
            let (siege, frame) = (from.clone(), frame.clone());
            async move {
                let (_, Link { mut reader, mut writer, .. }) = siege.stranger(either(number)).await?;
                if number % 10 == 9 {
                    let _ = writer.send(u32::MAX.to_be_bytes().to_vec()).await;
                    // A good-bye, and the end.
                    while let Ok(Some(_)) = reader.next().await {}
                    return None;
                }
                let sends = tokio::spawn(async move { writer.send(frame).await.is_ok().then_some(writer) });
                Some((sends, reader))
            }
        };
        siege.flood(size.pick(400, 1_000), open).await;
    })
}

/// One device that nobody registered, in many sessions at once.
pub(super) fn many_sessions(size: Size) -> Figures {
    endure(size, async |siege: Siege| {
        let secrets = Arc::new(DeviceSecrets::make_device(&mut OsEntropy));
        let from = siege.clone();
        let open = move |number| {
            let (siege, secrets) = (from.clone(), secrets.clone());
            async move {
                let (identity, over) = (Identity::new(&secrets), [either(number)]);
                let mut link = link::connect(&over, &siege.address, &identity, &siege.pins).await.ok()?;
                greet(&mut link, &secrets, Vec::new()).await?;
                Some(link)
            }
        };
        siege.flood(size.pick(600, 2_000), open).await;
    })
}

/// Strangers whose Hello names as many spaces and cursors as a frame holds, none of which there is.
pub(super) fn hellos(size: Size) -> Figures {
    endure(size, async |siege: Siege| {
        let from = siege.clone();
        let open = move |number: usize| {
            let siege = from.clone();
            async move {
                let (secrets, mut link) = siege.stranger(either(number)).await?;
                greet(&mut link, &secrets, (0..SPACES).map(|place| no_space(number, place)).collect())
                    .await?;
                Some(link)
            }
        };
        siege.flood(size.pick(60, 600), open).await;
    })
}

/// A place in a space that there is not.
fn no_space(number: usize, place: usize) -> SpaceHello {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    id[8..].copy_from_slice(&place.to_be_bytes());
    let head = |stream: usize| Head {
        stream: StreamId([u8::try_from(stream).expect("few"); 16]),
        position: Position(9),
        chain: Hash([8; 32]),
    };
    let cursors = (0..CURSORS).map(head).collect();
    SpaceHello { space: SpaceId(id), log_id: LogId([1; 16]), roster: None, cursors, own_in_full: false }
}
