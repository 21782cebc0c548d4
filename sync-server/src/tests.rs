//! The whole server, over real sockets and over a pipe, with devices written by hand.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ebb_protocol::{
    id::{LogId, Position, SpaceId},
    verify::{self, PublicKey},
    wire::{
        self, Entries, Evidence, FromDevice, FromServer, Head, Hello, ItemContent, Push, PushRoster, Refusal,
        Refused, Seen, SignedHeads, SpaceHello, Welcome,
    },
};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::verify_tls13_signature_with_raw_key,
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    sign::CertifiedKey,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{oneshot, watch},
    task::JoinHandle,
};

use super::*;
use crate::{
    connection::serve,
    gate::Way,
    log::{
        LogError,
        memory::MemoryLog,
        sqlite::{Options, SqliteLog},
    },
    signing::{SigningKey, tls_provider},
    testing::{Device, Patient, STREAM, head_after, shared},
};

mod session;

/// Longer than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);

trait Pipe: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Pipe for T {}

/// A device's end of a connection.
struct Link {
    pipe: Box<dyn Pipe>,
    exporter: [u8; 32],
    /// Keeps what lies below alive.
    _below: Option<(quinn::Endpoint, quinn::Connection)>,
}

impl Link {
    async fn say(&mut self, frame: &FromDevice) {
        self.pipe.write_all(&wire::encode_frame(frame)).await.unwrap();
        self.pipe.flush().await.unwrap();
    }

    /// The next frame; `None` at the end.
    async fn hear(&mut self) -> Option<FromServer> {
        let mut prefix = [0; 4];
        let read = tokio::time::timeout(PATIENCE, self.pipe.read_exact(&mut prefix)).await.expect("in time");
        read.ok()?;
        let mut body = vec![0; wire::frame_len(prefix).unwrap()];
        self.pipe.read_exact(&mut body).await.ok()?;
        Some(wire::decode(&body).unwrap())
    }

    async fn hello(&mut self, device: &Device, spaces: Vec<SpaceHello>) -> Welcome {
        let hello = Hello { version: wire::VERSION, device: device.id(), pins_version: 0, spaces };
        self.say(&FromDevice::Hello(hello)).await;
        match self.hear().await {
            Some(FromServer::Welcome(welcome)) => {
                assert_eq!(welcome.exporter, self.exporter);
                welcome
            }
            other => panic!("{other:?}"),
        }
    }

    async fn push(
        &mut self,
        patient: &Patient,
        envelopes: &[verify::Verified<ebb_protocol::envelope::Envelope>],
    ) {
        self.push_as(patient, envelopes, false).await;
    }

    async fn push_as(
        &mut self,
        patient: &Patient,
        envelopes: &[verify::Verified<ebb_protocol::envelope::Envelope>],
        refill: bool,
    ) {
        let envelopes = envelopes.iter().map(|envelope| envelope.as_bytes().to_vec().into()).collect();
        let push = Push { space: patient.space, stream: STREAM, envelopes, refill };
        self.say(&FromDevice::Push(push)).await;
    }

    async fn push_roster(&mut self, patient: &Patient) {
        let push = PushRoster { space: patient.space, entries: patient.entries.clone() };
        self.say(&FromDevice::PushRoster(push)).await;
    }

    /// Everything up to and with the first frame that `last` takes.
    async fn hear_until(&mut self, last: impl Fn(&FromServer) -> bool) -> Vec<FromServer> {
        let mut heard = Vec::new();
        loop {
            let frame = self.hear().await.unwrap_or_else(|| panic!("ended after {heard:?}"));
            let ends = last(&frame);
            heard.push(frame);
            if ends {
                return heard;
            }
        }
    }
}

fn acked(frame: &FromServer) -> Option<(Vec<u64>, SignedHeads)> {
    match frame {
        FromServer::Acked(acked) => {
            Some((acked.envelopes.iter().map(|envelope| envelope.position.0).collect(), acked.head.clone()))
        }
        _ => None,
    }
}

fn caught_up_to(frame: &FromServer, position: u64) -> bool {
    let FromServer::CaughtUp(heads) = frame else { return false };
    let reached = |head: &Head| head.position == Position(position);
    heads.iter().any(|signed| signed.content().unwrap().heads.iter().any(reached))
}

/// A server under test, with the folder that it lives in.
struct Running {
    folder: Arc<TempDir>,
    quic: SocketAddr,
    tcp: SocketAddr,
    metrics: SocketAddr,
    tls: PublicKey,
    heads: PublicKey,
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    async fn fresh() -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Keys::init(folder.path()).unwrap();
        Self::sqlite(folder).await
    }

    async fn sqlite(folder: Arc<TempDir>) -> Self {
        let log = SqliteLog::open(&file(folder.path()), Options::default()).unwrap();
        Self::start(folder, log).await
    }

    async fn start(folder: Arc<TempDir>, log: impl Log) -> Self {
        let server = Server::bind(Config::local(folder.path()), log).await.unwrap();
        let (quic, tcp, metrics) = (server.quic_addr, server.tcp_addr, server.metrics_addr);
        let (tls, heads) = (server.keys().tls.public(), server.keys().heads.public());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self { folder, quic, tcp, metrics, tls, heads, stop, task }
    }

    async fn stop(self) -> Arc<TempDir> {
        self.stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.task).await.expect("in time").unwrap().unwrap();
        self.folder
    }

    async fn quic(&self, device: &Device) -> Link {
        self.try_quic(client(&device.tls, self.tls)).await.unwrap()
    }

    async fn try_quic(&self, config: ClientConfig) -> anyhow::Result<Link> {
        let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into())?;
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config)?;
        let config = quinn::ClientConfig::new(Arc::new(crypto));
        let connection = endpoint.connect_with(config, self.quic, "ebb.invalid")?.await?;
        let (send, receive) = connection.open_bi().await?;
        let mut exporter = [0; 32];
        connection.export_keying_material(&mut exporter, wire::EXPORTER_LABEL, b"").unwrap();
        let pipe = Box::new(tokio::io::join(receive, send));
        Ok(Link { pipe, exporter, _below: Some((endpoint, connection)) })
    }

    async fn tcp(&self, device: &Device) -> Link {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client(&device.tls, self.tls)));
        let stream = tokio::net::TcpStream::connect(self.tcp).await.unwrap();
        let name = ServerName::try_from("ebb.invalid").unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        let exporter =
            stream.get_ref().1.export_keying_material([0; 32], wire::EXPORTER_LABEL, Some(b"")).unwrap();
        Link { pipe: Box::new(stream), exporter, _below: None }
    }

    async fn get(&self, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(self.metrics).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }
}

fn file(folder: &Path) -> PathBuf {
    Config::local(folder).log_path()
}

/// TLS as a device does it: shows its key, trusts one server's.
fn client(key: &SigningKey, server: PublicKey) -> ClientConfig {
    let provider = tls_provider();
    let signer = provider.key_provider.load_private_key(key.to_pkcs8()).unwrap();
    let shown = CertifiedKey::new(vec![CertificateDer::from(tls::spki(&key.public()))], signer);
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OneServer(server)))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::new(shown))));
    config.alpn_protocols = vec![wire::ALPN.to_vec()];
    config
}

#[derive(Debug)]
struct OneServer(PublicKey);

impl ServerCertVerifier for OneServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        assert_eq!(tls::peer_key(std::slice::from_ref(end_entity)), Some(self.0));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("TLS 1.3 only")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = tls_provider().signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(cert.as_ref()),
            dss,
            &algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// A phone that comes with everything in one flight; returns the last head that the server signed.
async fn first_sync(link: &mut Link, server: &Running, patient: &mut Patient, count: usize) -> SignedHeads {
    let envelopes = patient.write_many(count);
    let welcome = link.hello(&patient.device, vec![patient.hello()]).await;
    assert_eq!(welcome.spaces[0].log_id, LogId::ZERO);
    link.push_roster(patient).await;
    link.push(patient, &envelopes).await;
    let heard = link.hear_until(|frame| caught_up_to(frame, count as u64)).await;
    assert!(
        heard.iter().any(
            |frame| matches!(frame, FromServer::RosterAcked(head) if head.hash == patient.roster.prev())
        )
    );
    let (positions, signed) = heard.iter().find_map(acked).expect("acknowledged");
    assert_eq!(positions, (1..=count as u64).collect::<Vec<_>>());
    let signed = verify::check(signed, &server.heads).unwrap().into_inner();
    assert_eq!(signed.content().unwrap().heads, [head_after(patient.space, STREAM, &envelopes)]);
    let own: usize = heard
        .iter()
        .map(|frame| match frame {
            FromServer::Entries(entries) => {
                assert!(entries.items.iter().all(|item| matches!(item.content, ItemContent::Own(_))));
                entries.items.len()
            }
            _ => 0,
        })
        .sum();
    assert_eq!(own, count, "its own come back as hashes");
    signed
}

#[tokio::test]
async fn a_phone_and_a_desk_meet_over_both_transports_and_a_restart() {
    let server = Running::fresh().await;
    let mut patient = Patient::new(1);
    let desk = Device::new(2);
    patient.admit(&desk);
    let mut phone = server.quic(&patient.device).await;
    first_sync(&mut phone, &server, &mut patient, 3).await;

    let mut over_tcp = server.tcp(&desk).await;
    let welcome = over_tcp.hello(&desk, vec![patient.hello()]).await;
    assert_eq!(welcome.spaces[0].roster, patient.roster.head());
    let heard = over_tcp.hear_until(|frame| caught_up_to(frame, 3)).await;
    let FromServer::Roster(roster) = &heard[0] else { panic!("the roster comes first: {heard:?}") };
    assert_eq!(roster.entries, patient.entries);

    // Live: what one pushes, the other has at once.
    let more = patient.write_many(2);
    phone.push(&patient, &more).await;
    let heard = over_tcp.hear_until(|frame| caught_up_to(frame, 5)).await;
    let FromServer::Entries(Entries { first: Position(4), items, .. }) = &heard[0] else {
        panic!("{heard:?}")
    };
    assert_eq!(items[1].content, ItemContent::Envelope(more[1].as_bytes().to_vec().into()));
    let metrics = server.get("/metrics").await;
    assert!(metrics.contains("ebb_appended_envelopes_total 5"), "{metrics}");
    assert!(metrics.contains("ebb_sessions 2") && metrics.ends_with("# EOF\n"), "{metrics}");
    assert!(server.get("/health").await.ends_with("ok\n"));

    let folder = server.stop().await;
    let bye = phone.hear_until(|frame| matches!(frame, FromServer::Bye(_))).await;
    let Some(FromServer::Bye(bye)) = bye.last() else { panic!("{bye:?}") };
    assert_eq!((bye.reason, bye.retry_ms), (Refusal::Unavailable, 5_000));
    assert!(phone.hear().await.is_none());
    drop(phone);

    let server = Running::sqlite(folder).await;
    let mut phone = server.tcp(&patient.device).await;
    let welcome = phone.hello(&patient.device, vec![patient.hello()]).await;
    assert_eq!(welcome.spaces[0].own_heads, [(STREAM, more[1].header().seq, more[1].hash())]);
    phone.push(&patient, &more).await;
    let heard = phone.hear_until(|frame| acked(frame).is_some()).await;
    assert_eq!(acked(heard.last().unwrap()).unwrap().0, [4, 5], "acknowledged again, at the same places");
    server.stop().await;
}

#[tokio::test]
async fn a_server_must_show_its_pinned_key_and_a_device_its_own() {
    let server = Running::fresh().await;
    let mut patient = Patient::new(1);
    let mut phone = server.quic(&patient.device).await;
    first_sync(&mut phone, &server, &mut patient, 1).await;

    // Somebody who knows all ids, but not the TLS key.
    let mut thief = patient.clone();
    thief.device.tls = SigningKey::from_seed(&[0x66; 32]);
    let mut link = server.quic(&thief.device).await;
    let welcome = link.hello(&thief.device, vec![thief.hello()]).await;
    let seen = &welcome.spaces[0];
    assert_eq!((seen.log_id, seen.roster, seen.own_heads.len()), (LogId::ZERO, None, 0));
    let more = thief.write_many(1);
    link.push(&thief, &more).await;
    let heard = link.hear_until(|frame| matches!(frame, FromServer::Refused(_))).await;
    let Some(FromServer::Refused(Refused { reason: Refusal::UnknownHead, .. })) = heard.last() else {
        panic!("{heard:?}")
    };

    // A stranger learns no more than of a space that does not exist.
    let stranger = Device::new(7);
    let nowhere = SpaceHello { space: Patient::new(8).space, ..patient.hello() };
    let mut there = server.quic(&stranger).await;
    let there = there.hello(&stranger, vec![patient.hello()]).await;
    let mut elsewhere = server.tcp(&stranger).await;
    let elsewhere = elsewhere.hello(&stranger, vec![nowhere]).await;
    assert_eq!(there.spaces[0].log_id, elsewhere.spaces[0].log_id);
    assert_eq!(there.spaces[0].roster, elsewhere.spaces[0].roster);

    // Without a key of its own, nobody comes in.
    let provider = tls_provider();
    let mut anonymous = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OneServer(server.tls)))
        .with_no_client_auth();
    anonymous.alpn_protocols = vec![wire::ALPN.to_vec()];
    match server.try_quic(anonymous).await {
        Err(_) => {}
        Ok(mut link) => assert!(link.hear().await.is_none()),
    }
    server.stop().await;
}

#[tokio::test]
async fn an_older_file_put_back_is_noticed_and_refilled() {
    let server = Running::fresh().await;
    let mut patient = Patient::new(1);
    let mut phone = server.quic(&patient.device).await;
    first_sync(&mut phone, &server, &mut patient, 2).await;
    drop(phone);
    let folder = server.stop().await;
    let backup = std::fs::read(file(folder.path())).unwrap();

    let server = Running::sqlite(folder).await;
    let mut phone = server.quic(&patient.device).await;
    let log_id = phone.hello(&patient.device, vec![patient.hello()]).await.spaces[0].log_id;
    let mut before = patient.clone();
    before.device = Device::new(1);
    let mut envelopes = before.write_many(2);
    envelopes.extend(patient.write_many(3));
    phone.push(&patient, &envelopes[2..]).await;
    let heard = phone.hear_until(|frame| acked(frame).is_some()).await;
    let (_, receipt) = acked(heard.last().unwrap()).unwrap();
    drop(phone);
    let folder = server.stop().await;
    std::fs::write(file(folder.path()), backup).unwrap();

    let server = Running::sqlite(folder).await;
    let mut phone = server.quic(&patient.device).await;
    let hello = SpaceHello {
        log_id,
        roster: patient.roster.head(),
        cursors: vec![head_after(patient.space, STREAM, &envelopes)],
        ..patient.hello()
    };
    phone.hello(&patient.device, vec![hello]).await;
    let Some(FromServer::NeedEvidence(need)) = phone.hear().await else { panic!("asked") };
    let mut stranger = server.tcp(&Device::new(9)).await;
    stranger.hello(&Device::new(9), vec![patient.hello()]).await;
    assert_eq!(stranger.hear().await, Some(FromServer::CaughtUp(Vec::new())));
    let common = need.samples.iter().map(|head| (head.stream, head.position)).collect();
    assert_eq!(need.samples[0], head_after(patient.space, STREAM, &envelopes[..2]));
    let evidence = Evidence { space: patient.space, heads: vec![receipt], common };
    phone.say(&FromDevice::Evidence(evidence)).await;
    let heard = phone.hear_until(|frame| matches!(frame, FromServer::Bye(_))).await;
    let Some(born) = heard.iter().find_map(|frame| match frame {
        FromServer::LogBorn(born) => Some(verify::check(born.clone(), &server.heads).unwrap()),
        _ => None,
    }) else {
        panic!("{heard:?}")
    };
    let born = born.content().unwrap();
    let agreed = head_after(patient.space, STREAM, &envelopes[..2]);
    assert_eq!((born.old, born.common), (log_id, vec![agreed]));

    stranger.say(&FromDevice::Ping(1)).await;
    assert_eq!(stranger.hear().await, Some(FromServer::Pong(1)), "not for strangers");

    let mut phone = server.quic(&patient.device).await;
    let welcome = phone.hello(&patient.device, vec![patient.hello()]).await;
    assert_eq!(welcome.spaces[0].log_id, born.new);
    phone.push_as(&patient, &envelopes, true).await;
    let heard = phone.hear_until(|frame| acked(frame).is_some()).await;
    assert_eq!(acked(heard.last().unwrap()).unwrap().0, [1, 2, 3, 4, 5]);
    server.stop().await;
}

#[tokio::test]
async fn a_full_disk_is_told_and_survived() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    Keys::init(folder.path()).unwrap();
    let log = MemoryLog::new();
    let server = Running::start(folder, log.clone()).await;
    let mut patient = Patient::new(1);
    let mut phone = server.quic(&patient.device).await;
    first_sync(&mut phone, &server, &mut patient, 1).await;
    log.fail(|faults| faults.commits = Some((u32::MAX, LogError::Full)));
    let more = patient.write_many(2);
    phone.push(&patient, &more).await;
    let heard = phone.hear_until(|frame| matches!(frame, FromServer::Refused(_))).await;
    let Some(FromServer::Refused(Refused { reason: Refusal::Unavailable, .. })) = heard.last() else {
        panic!("{heard:?}")
    };
    assert!(server.get("/health").await.starts_with("HTTP/1.1 503"));
    log.fail(|faults| faults.commits = None);
    phone.push(&patient, &more).await;
    let heard = phone.hear_until(|frame| acked(frame).is_some()).await;
    assert_eq!(acked(heard.last().unwrap()).unwrap().0, [2, 3]);
    assert!(server.get("/health").await.ends_with("ok\n"));
    server.stop().await;
}

/// What connections share, on tokio's own paused clock.
fn unserved() -> (Shared, watch::Sender<bool>) {
    let start = tokio::time::Instant::now();
    let clock = Clock::new(move || Millis(u64::try_from(start.elapsed().as_millis()).expect("a short test")));
    let hub = Arc::<Hub>::default();
    let (storage, _workers) = Storage::new(Setup {
        log: MemoryLog::new(),
        readers: 1,
        allowance: Config::default().allowance(),
        foundings_per_minute: 0,
        heads_key: SigningKey::from_seed(&[0x11; 32]),
        clock: clock.clone(),
        hub: hub.clone(),
        metrics: Arc::default(),
    })
    .unwrap();
    shared(clock, hub, storage)
}

/// A connection over a pipe, on tokio's own paused clock.
fn piped(device: &Device) -> (Link, watch::Sender<bool>) {
    piped_through(device, 64 << 10)
}

/// The same, where so many bytes may be on their way.
fn piped_through(device: &Device, bytes: usize) -> (Link, watch::Sender<bool>) {
    let (shared, stop) = unserved();
    let (near, far) = tokio::io::duplex(bytes);
    let (reader, writer) = tokio::io::split(far);
    let pass = Gate::new(1).enter(Way::Tcp, Ipv4Addr::LOCALHOST.into());
    tokio::spawn(serve(Arc::new(shared), device.tls.public(), [5; 32], reader, writer, pass));
    (Link { pipe: Box::new(near), exporter: [5; 32], _below: None }, stop)
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_left_after_five_seconds() {
    let (mut link, _stop) = piped(&Device::new(1));
    let started = tokio::time::Instant::now();
    assert!(link.hear().await.is_none());
    assert_eq!(started.elapsed(), Duration::from_millis(wire::HELLO_MS_MAX));
}

#[tokio::test(start_paused = true)]
async fn a_handshake_under_way_does_not_keep_the_server_from_stopping() {
    let (shared, stop) = unserved();
    let started = tokio::time::Instant::now();
    stop.send(true).unwrap();
    let mut pass = Gate::new(1).enter(Way::Tcp, Ipv4Addr::LOCALHOST.into());
    let (until, never) = (listen::handshake_end(), std::future::pending::<()>());
    assert!(listen::within_handshake(&shared, &mut pass, until, never).await.is_none());
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_left_after_a_minute() {
    let device = Device::new(1);
    let (mut link, _stop) = piped(&device);
    link.hello(&device, Vec::new()).await;
    assert!(matches!(link.hear().await, Some(FromServer::CaughtUp(_))));
    let started = tokio::time::Instant::now();
    let mut end = [0; 1];
    assert_eq!(link.pipe.read(&mut end).await.unwrap(), 0);
    assert_eq!(started.elapsed().as_millis(), u128::from(wire::IDLE_MS_MAX));
}

#[tokio::test(start_paused = true)]
async fn nonsense_is_answered_with_good_bye() {
    let over_long = u32::try_from(wire::FRAME_BYTES_MAX + 1).unwrap().to_be_bytes().to_vec();
    let garbage = [&4u32.to_be_bytes()[..], &[0xff; 4]].concat();
    let before_hello = wire::encode_frame(&FromDevice::Ping(1));
    for bytes in [over_long, garbage, before_hello] {
        let (mut link, _stop) = piped(&Device::new(1));
        link.pipe.write_all(&bytes).await.unwrap();
        let Some(FromServer::Bye(bye)) = link.hear().await else { panic!("told") };
        assert_eq!(bye.reason, Refusal::Malformed);
        assert!(link.hear().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn who_reads_slowly_hears_the_last_word() {
    let device = Device::new(1);
    let (mut link, _stop) = piped_through(&device, 2 << 10);
    link.hello(&device, Vec::new()).await;
    let ping = wire::encode_frame(&FromDevice::Ping(u32::MAX));
    let (pings, nonsense) = (ping.repeat(1_500), vec![0xff; 8]);
    link.pipe.write_all(&[pings, nonsense].concat()).await.unwrap();
    let (mut heard, mut part) = (Vec::new(), [0; 2 << 10]);
    loop {
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        match link.pipe.read(&mut part).await.unwrap() {
            0 => break,
            bytes => heard.extend_from_slice(&part[..bytes]),
        }
    }
    let mut frames = Vec::new();
    let mut rest = &heard[..];
    while let Some((len, after)) = rest.split_first_chunk() {
        let (frame, after) = after.split_at(u32::from_be_bytes(*len) as usize);
        frames.push(wire::decode::<FromServer>(frame).unwrap());
        rest = after;
    }
    assert!(heard.len() > 6 * part.len(), "{} bytes in {} frames", heard.len(), frames.len());
    assert!(matches!(frames.last(), Some(FromServer::Bye(_))));
}

#[tokio::test(start_paused = true)]
async fn who_always_has_more_to_say_is_left_when_the_server_stops() {
    let device = Device::new(1);
    let (mut link, stop) = piped(&device);
    link.hello(&device, Vec::new()).await;
    assert!(matches!(link.hear().await, Some(FromServer::CaughtUp(_))));
    stop.send(true).unwrap();
    // Nothing answers it.
    let seen = Seen { space: SpaceId([1; 16]), log_id: LogId::ZERO, cursors: Vec::new() };
    let seen = wire::encode_frame(&FromDevice::Seen(seen));
    let (mut reader, mut writer) = tokio::io::split(link.pipe);
    let flood = async {
        for _ in 0..100_000 {
            writer.write_all(&seen).await.unwrap();
        }
    };
    let mut heard = [0; 1];
    tokio::select! {
        () = flood => panic!("it was heard for ever"),
        read = reader.read(&mut heard) => assert!(read.is_ok_and(|bytes| bytes == 1), "a good-bye"),
    }
}

#[tokio::test(start_paused = true)]
async fn frames_may_come_in_any_pieces() {
    let device = Device::new(1);
    let (mut link, _stop) = piped(&device);
    link.hello(&device, Vec::new()).await;
    link.hear().await.expect("caught up");
    let pings: Vec<u8> = (0..50).flat_map(|nonce| wire::encode_frame(&FromDevice::Ping(nonce))).collect();
    for piece in pings.chunks(7) {
        link.pipe.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    for nonce in 0..50 {
        assert_eq!(link.hear().await, Some(FromServer::Pong(nonce)));
    }
}
