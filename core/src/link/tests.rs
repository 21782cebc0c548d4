//! The link against a server of a few lines: to a first frame it answers what it saw of the client,
//! and then it echoes.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::keys::{DeviceSecrets, testing::SeededEntropy};

const LOCALHOST: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

fn secrets(seed: u64) -> DeviceSecrets {
    DeviceSecrets::make_device(&mut SeededEntropy(seed * 1_000))
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes()[..], body].concat()
}

/// What the client says first: of a QUIC stream the other side knows nothing before.
const HELLO: &[u8] = b"hello";

/// What the server answers: the client's key and the connection's exporter.
fn greeting(client: PublicKey, exporter: [u8; 32]) -> Vec<u8> {
    frame(&[client.0, exporter].concat())
}

/// What the server does after its greeting.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Echo,
    OversizeFrame,
    HalfAFrame,
    Count,
}

impl Manner {
    fn parting_words(self) -> Option<Vec<u8>> {
        match self {
            Self::Echo | Self::Count => None,
            Self::OversizeFrame => Some((wire::FRAME_BYTES_MAX as u32 + 1).to_be_bytes().to_vec()),
            Self::HalfAFrame => Some(frame(b"cut off")[..7].to_vec()),
        }
    }
}

/// Starts a server; the receiver tells how many bytes one in [`Manner::Count`] got after hello.
fn serve(
    transport: Transport,
    server: &DeviceSecrets,
    manner: Manner,
) -> (ServerAddress, UnboundedReceiver<u64>) {
    let config = Arc::new(tls::testing::server_config(&Identity::new(server)));
    let (counted, counts) = unbounded_channel();
    let address = match transport {
        Transport::Quic => serve_quic(config, manner, counted),
        Transport::Tcp => serve_tcp(config, manner, counted),
    };
    (ServerAddress { quic: address.to_string(), tcp: address.to_string() }, counts)
}

async fn behave(
    manner: Manner,
    receive: &mut (impl AsyncRead + Unpin),
    send: &mut (impl AsyncWrite + Unpin),
    counted: &UnboundedSender<u64>,
) {
    if let Some(words) = manner.parting_words() {
        send.write_all(&words).await.expect("sent");
    } else if manner == Manner::Count {
        let count = tokio::io::copy(receive, &mut tokio::io::sink()).await.expect("reads to the end");
        counted.send(count).expect("somebody waits for it");
    } else {
        tokio::io::copy(receive, send).await.expect("echoes to the end");
    }
}

fn serve_quic(
    config: Arc<rustls::ServerConfig>,
    manner: Manner,
    counted: UnboundedSender<u64>,
) -> SocketAddr {
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(config).expect("suites");
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let endpoint = Endpoint::server(config, LOCALHOST.into()).expect("a free port");
    let address = endpoint.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let Ok(connection) = incoming.await else { continue };
            let identity = connection.peer_identity().expect("the client showed a key");
            let certificates: Box<Vec<rustls::pki_types::CertificateDer<'static>>> =
                identity.downcast().expect("rustls gives these");
            let client = tls::testing::peer_key(&certificates).expect("an Ed25519 key");
            let mut exporter = [0; 32];
            connection.export_keying_material(&mut exporter, wire::EXPORTER_LABEL, b"").expect("exports");
            let (mut send, mut receive) = connection.accept_bi().await.expect("the client opens one");
            receive.read_exact(&mut [0; 4 + HELLO.len()]).await.expect("hello");
            send.write_all(&greeting(client, exporter)).await.expect("sent");
            behave(manner, &mut receive, &mut send, &counted).await;
            send.finish().expect("open");
            connection.closed().await;
        }
    });
    address
}

fn serve_tcp(config: Arc<rustls::ServerConfig>, manner: Manner, counted: UnboundedSender<u64>) -> SocketAddr {
    let listener = std::net::TcpListener::bind(LOCALHOST).expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("bound");
    let listener = TcpListener::from_std(listener).expect("inside tokio");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = TlsAcceptor::from(config.clone()).accept(stream).await else { continue };
            let (_, session) = stream.get_ref();
            let client =
                tls::testing::peer_key(session.peer_certificates().expect("the client showed a key"));
            let exporter =
                session.export_keying_material([0; 32], wire::EXPORTER_LABEL, Some(b"")).expect("exports");
            assert_eq!(
                session.negotiated_key_exchange_group().map(|group| group.name()),
                Some(rustls::NamedGroup::X25519MLKEM768),
            );
            stream.read_exact(&mut [0; 4 + HELLO.len()]).await.expect("hello");
            stream.write_all(&greeting(client.expect("an Ed25519 key"), exporter)).await.expect("sent");
            let (mut receive, mut send) = tokio::io::split(&mut stream);
            behave(manner, &mut receive, &mut send, &counted).await;
            stream.shutdown().await.expect("open");
        }
    });
    address
}

fn in_tokio<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

async fn with_both<F: Future<Output = ()>>(manner: Manner, test: impl Fn(Link, Vec<u8>) -> F) {
    for transport in [Transport::Quic, Transport::Tcp] {
        let server = secrets(1);
        let (address, _counts) = serve(transport, &server, manner);
        let pins = [secrets(3).public().tls, server.public().tls];
        let mut link =
            connect(&[transport], &address, &Identity::new(&secrets(2)), &pins).await.expect("connects");
        assert_eq!(link.transport, transport);
        link.writer.send(frame(HELLO)).await.expect("sent");
        let greeting = link.reader.next().await.expect("alive").expect("the greeting");
        test(link, greeting).await;
    }
}

#[test]
fn frames_go_there_and_back_and_both_ends_know_each_other() {
    in_tokio(with_both(Manner::Echo, |mut link, greeting| async move {
        assert_eq!(greeting[..32], secrets(2).public().tls.0, "the server sees the device's key");
        assert_eq!(greeting[32..], link.exporter, "and exports the same");
        assert_ne!(link.exporter, [0; 32]);
        let bodies = [vec![], vec![1], vec![2; 70_000], vec![3; wire::FRAME_BYTES_MAX]];
        for body in &bodies[..3] {
            link.writer.send(frame(body)).await.expect("sent");
        }
        for body in &bodies[..3] {
            assert_eq!(link.reader.next().await.expect("alive").as_ref(), Some(body));
        }
        // More than both sides buffer: reading must go on while writing waits.
        let Link { reader, writer, .. } = &mut link;
        let (sent, back) = tokio::join!(writer.send(frame(&bodies[3])), reader.next());
        sent.expect("sent");
        assert_eq!(back.expect("alive").as_ref(), Some(&bodies[3]));
        let bytes: usize = bodies.iter().map(|body| 4 + body.len()).sum();
        assert_eq!(link.writer.bytes(), (bytes + 4 + HELLO.len()) as u64);
        assert_eq!(link.reader.bytes(), (bytes + 68) as u64);
        link.close().await;
    }));
}

#[test]
fn a_server_without_a_pinned_key_is_refused() {
    in_tokio(async {
        for transport in [Transport::Quic, Transport::Tcp] {
            let (address, _) = serve(transport, &secrets(1), Manner::Echo);
            for pins in [vec![], vec![secrets(3).public().tls], vec![secrets(1).public().sig]] {
                let link = connect(&[transport], &address, &Identity::new(&secrets(2)), &pins).await;
                assert_eq!(link.err(), Some(LinkError::NotOurServer), "{transport:?}");
            }
        }
    });
}

#[test]
fn nobody_there_is_unreachable_and_a_stranger_is_told_apart() {
    in_tokio(async {
        let free = std::net::TcpListener::bind(LOCALHOST).and_then(|l| l.local_addr()).expect("a port");
        let address = |name: String| ServerAddress { quic: name.clone(), tcp: name };
        let pins = [secrets(1).public().tls];
        let identity = Identity::new(&secrets(2));
        for name in [free.to_string(), "no.such.name.invalid:443".into(), "nonsense".into()] {
            let link = connect(&[Transport::Tcp], &address(name), &identity, &pins).await;
            assert_eq!(link.err(), Some(LinkError::Unreachable));
        }
        let portal = TcpListener::bind(LOCALHOST).await.expect("a port");
        let name = portal.local_addr().expect("bound").to_string();
        tokio::spawn(async move {
            let (mut stream, _) = portal.accept().await.expect("a guest");
            stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n").await.expect("sent");
            sleep(Duration::from_secs(5)).await;
        });
        let link = connect(&[Transport::Tcp], &address(name), &identity, &pins).await;
        assert_eq!(link.err(), Some(LinkError::NotOurServer));
    });
}

/// Says hello over a link, closes it, and tells what carried it.
async fn visit(link: Result<Link, LinkError>) -> Transport {
    let mut link = link.expect("connects");
    link.writer.send(frame(HELLO)).await.expect("sent");
    let transport = link.transport;
    link.close().await;
    transport
}

/// A UDP socket that swallows whatever comes.
async fn abyss() -> tokio::net::UdpSocket {
    tokio::net::UdpSocket::bind(LOCALHOST).await.expect("a free port")
}

#[test]
fn tcp_gets_there_where_quic_is_swallowed_or_fails() {
    in_tokio(async {
        let server = secrets(1);
        let (address, _counts) = serve(Transport::Tcp, &server, Manner::Echo);
        let abyss = abyss().await;
        let swallowed = abyss.local_addr().expect("bound").to_string();
        for quic in [swallowed, "no.such.name.invalid:443".into()] {
            let address = ServerAddress { quic, tcp: address.tcp.clone() };
            let both = [Transport::Quic, Transport::Tcp];
            let link = connect(&both, &address, &Identity::new(&secrets(2)), &[server.public().tls]).await;
            assert_eq!(visit(link).await, Transport::Tcp);
        }
    });
}

#[test]
fn the_first_transport_is_alone_while_it_may_still_answer() {
    in_tokio(async {
        let server = secrets(1);
        let pins = [server.public().tls];
        let identity = Identity::new(&secrets(2));
        let (quic, _counts) = serve(Transport::Quic, &server, Manner::Echo);
        let (tcp, _counts) = serve(Transport::Tcp, &server, Manner::Echo);

        let nobody_comes = TcpListener::bind(LOCALHOST).await.expect("a free port");
        let deaf = nobody_comes.local_addr().expect("bound").to_string();
        let address = ServerAddress { quic: quic.quic, tcp: deaf };
        let link = connect(&[Transport::Quic, Transport::Tcp], &address, &identity, &pins).await;
        assert_eq!(visit(link).await, Transport::Quic);
        assert!(timeout(Duration::ZERO, nobody_comes.accept()).await.is_err(), "TCP was not tried");

        let nobody_comes = abyss().await;
        let deaf = nobody_comes.local_addr().expect("bound").to_string();
        let address = ServerAddress { quic: deaf, tcp: tcp.tcp };
        let link = connect(&[Transport::Tcp, Transport::Quic], &address, &identity, &pins).await;
        assert_eq!(visit(link).await, Transport::Tcp);
        assert!(nobody_comes.try_recv(&mut [0; 1]).is_err(), "QUIC was not tried");
    });
}

#[test]
fn a_stranger_on_one_transport_is_told_when_no_other_gets_there() {
    in_tokio(async {
        let (stranger, _counts) = serve(Transport::Quic, &secrets(3), Manner::Echo);
        let free = std::net::TcpListener::bind(LOCALHOST).and_then(|l| l.local_addr()).expect("a port");
        let address = ServerAddress { quic: stranger.quic, tcp: free.to_string() };
        for order in [[Transport::Quic, Transport::Tcp], [Transport::Tcp, Transport::Quic]] {
            let pins = [secrets(1).public().tls];
            let link = connect(&order, &address, &Identity::new(&secrets(2)), &pins).await;
            assert_eq!(link.err(), Some(LinkError::NotOurServer), "{order:?}");
        }
    });
}

#[test]
fn a_stranger_is_told_while_another_transport_hears_nothing() {
    in_tokio(async {
        let (stranger, _counts) = serve(Transport::Tcp, &secrets(3), Manner::Echo);
        let abyss = abyss().await;
        let quic = abyss.local_addr().expect("bound").to_string();
        let address = ServerAddress { quic, tcp: stranger.tcp };
        let (pins, identity) = ([secrets(1).public().tls], Identity::new(&secrets(2)));
        let link = connect(&[Transport::Quic, Transport::Tcp], &address, &identity, &pins);
        // An attempt that takes longer is given up, and what it would have told with it.
        let link = timeout(Duration::from_millis(ebb_protocol::client::CONNECT_MS_MAX), link)
            .await
            .expect("in time");
        assert_eq!(link.err(), Some(LinkError::NotOurServer));
    });
}

#[test]
fn a_frame_above_the_limit_is_refused() {
    in_tokio(with_both(Manner::OversizeFrame, |mut link, _| async move {
        assert_eq!(link.reader.next().await, Err(LinkError::Protocol));
        assert_eq!(link.reader.next().await, Err(LinkError::Protocol), "and stays refused");
    }));
}

#[test]
fn half_a_frame_is_a_loss_and_no_end() {
    in_tokio(with_both(Manner::HalfAFrame, |mut link, _| async move {
        assert_eq!(link.reader.next().await, Err(LinkError::Lost));
    }));
}

#[test]
fn calls_that_are_dropped_halfway_lose_and_double_nothing() {
    in_tokio(with_both(Manner::Echo, |mut link, _| async move {
        let Link { reader, writer, .. } = &mut link;
        let bodies: Vec<Vec<u8>> = (0..20u8).map(|n| vec![n; 100_000 + usize::from(n)]).collect();
        let (mut queued, mut back) = (bodies.iter(), Vec::new());
        let mut dropped = 0;
        while back.len() < bodies.len() {
            // Whichever comes first drops the others in the middle of what they do.
            tokio::select! {
                biased;
                frame = reader.next() => back.push(frame.expect("alive").expect("not the end")),
                sent = async { match queued.next() {
                    Some(body) => writer.send(frame(body)).await,
                    None => { writer.flush().await?; std::future::pending().await }
                } } => sent.expect("sent"),
                () = tokio::task::yield_now() => dropped += 1,
            }
        }
        assert!(back == bodies, "the same frames in the same order");
        assert!(dropped > 0);
        link.close().await;
    }));
}

#[test]
fn closing_delivers_what_was_sent_however_little_of_it_was_awaited() {
    in_tokio(async {
        for transport in [Transport::Quic, Transport::Tcp] {
            let server = secrets(1);
            let (address, mut counts) = serve(transport, &server, Manner::Count);
            let pins = [server.public().tls];
            let mut link =
                connect(&[transport], &address, &Identity::new(&secrets(2)), &pins).await.expect("connects");
            link.writer.send(frame(HELLO)).await.expect("sent");
            // As a `send` leaves it that was dropped before the transport took anything.
            let megabytes = [0, 1, 2].map(|byte| frame(&vec![byte; wire::FRAME_BYTES_MAX]));
            link.writer.queue.extend(megabytes);
            link.close().await;
            let bytes = 3 * (4 + wire::FRAME_BYTES_MAX as u64);
            assert_eq!(counts.recv().await, Some(bytes), "{transport:?}");
        }
    });
}
