//! TLS and QUIC below the link, for those who leave the path there: any key, any server, and sockets that
//! lose what they are told to lose.

use std::{
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use ebb_protocol::wire;
use quinn::{
    AsyncUdpSocket, Endpoint, EndpointConfig, Runtime, TokioRuntime, TransportConfig, UdpPoller,
    congestion::CubicConfig,
    crypto::rustls::QuicClientConfig,
    udp::{RecvMeta, Transmit},
};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    sign::CertifiedKey,
    version::TLS13,
};

/// The most that a QUIC packet's first byte tells: a long header of version 1 that asks for a proof of address.
const RETRY: u8 = 0xf0;

/// A client's TLS with a fresh key, which takes any server for the right one.
pub(super) fn client_config() -> ClientConfig {
    let pair = ::aws_lc_rs::signature::Ed25519KeyPair::generate().expect("a key");
    let pkcs8 = ::aws_lc_rs::encoding::AsDer::<::aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair);
    let pkcs8 = pkcs8.expect("encodes").as_ref().to_vec();
    let key = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(&pkcs8[..])).expect("a key");
    let public = key.public_key().expect("Ed25519 has one").into_owned();
    let certified = CertifiedKey::new(vec![CertificateDer::from(public.as_ref().to_vec())], key);
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::new(certified))));
    config.alpn_protocols = vec![wire::ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config
}

/// The first bytes that a client sends over TCP.
pub(super) fn client_hello() -> Vec<u8> {
    let mut hello = Vec::new();
    let name = ServerName::try_from("ebb.invalid").expect("a name");
    let mut client = ClientConnection::new(Arc::new(client_config()), name).expect("a client");
    client.write_tls(&mut hello).expect("a vector takes anything");
    hello
}

/// A QUIC client whose window lets it send everything at once.
pub(super) fn quic_config() -> quinn::ClientConfig {
    let mut window = CubicConfig::default();
    window.initial_window(4 << 20);
    let mut transport = TransportConfig::default();
    transport.congestion_controller_factory(Arc::new(window)).mtu_discovery_config(None);
    let tls = QuicClientConfig::try_from(client_config()).expect("the suite of initial packets");
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport));
    config
}

/// The datagrams with which a client of quinn's begins so many connections, in order.
pub(super) async fn first_flights(count: usize) -> Vec<Vec<Vec<u8>>> {
    let sink = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let to = sink.local_addr().expect("bound");
    let endpoint = Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let config = quic_config();
    let mut flights: Vec<(Vec<u8>, Vec<Vec<u8>>)> = Vec::new();
    let mut buffer = [0; 2_048];
    while flights.len() < count {
        let connecting = endpoint.connect_with(config.clone(), to, "ebb.invalid").expect("begins");
        // A flight of two, since the first key exchange is a large one; closing ones come behind them.
        let mut flight: Vec<Vec<u8>> = Vec::new();
        while flight.len() < 2 {
            let length = sink.recv(&mut buffer).await.expect("loopback delivers");
            let datagram = buffer[..length].to_vec();
            let begins = &datagram[6..6 + usize::from(datagram[5])];
            if flights.last().is_none_or(|(before, _)| before != begins) {
                flight.push(datagram);
            }
        }
        let begins = flight[0][6..6 + usize::from(flight[0][5])].to_vec();
        flights.push((begins, flight));
        drop(connecting);
    }
    flights.into_iter().map(|(_, flight)| flight).collect()
}

/// A QUIC client on a socket that loses what it is told to lose.
pub(super) fn endpoint(from: SocketAddr, losses: Losses) -> Endpoint {
    let socket = UdpSocket::bind(from).expect("an address of loopback");
    let inner = TokioRuntime.wrap_udp_socket(socket).expect("a socket");
    let socket = Arc::new(Lossy { inner, losses });
    let config = EndpointConfig::default();
    Endpoint::new_with_abstract_socket(config, None, socket, Arc::new(TokioRuntime)).expect("an endpoint")
}

/// What a socket loses.
#[derive(Debug)]
pub(super) enum Losses {
    /// Of what comes: everything but what asks for a proof of the address.
    DeafButToRetry,
    /// Of what goes, from a moment on: the first datagram, and all after so many. From that moment on nothing
    /// comes either, so that nothing is missed.
    Hole(Arc<AtomicUsize>),
}

/// Datagrams after the one that is lost for ever, until the socket is silent.
const AROUND_THE_HOLE: usize = 1_000;

/// How a hole begins.
pub(super) const HOLE_BEGINS: usize = 1;

#[derive(Debug)]
struct Lossy {
    inner: Arc<dyn AsyncUdpSocket>,
    losses: Losses,
}

impl AsyncUdpSocket for Lossy {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if let Losses::Hole(sent) = &self.losses
            && sent.load(Ordering::Relaxed) >= HOLE_BEGINS
        {
            let number = sent.fetch_add(1, Ordering::Relaxed) - HOLE_BEGINS;
            if number == 0 || number > AROUND_THE_HOLE {
                return Ok(());
            }
        }
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.inner.poll_recv(context, buffers, metas))?;
        for (buffer, meta) in buffers.iter().zip(metas.iter_mut()).take(count) {
            let hears = match &self.losses {
                Losses::DeafButToRetry => buffer[0] & RETRY == RETRY,
                Losses::Hole(sent) => sent.load(Ordering::Relaxed) < HOLE_BEGINS,
            };
            if !hears {
                meta.len = 0;
            }
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
