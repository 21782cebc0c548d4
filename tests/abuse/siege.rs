//! A server under attack, and an honest device beside it.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use ebb_core::{
    Start,
    keys::{DeviceSecrets, OsEntropy},
    link::{self, Identity, Link, ServerAddress, Transport},
};
use ebb_protocol::{
    verify::PublicKey,
    wire::{self, FromDevice, FromServer, Hello, SpaceHello},
};
use ebb_tests::{
    rogue::Rogue,
    ward::{PATIENCE, TestDevice, TestServer, assert_no_errors, block_on},
};
use tokio::{sync::watch, task::JoinSet};

use super::{Figures, NODE, Size};

/// What the server may hold at the most, whatever comes.
const PEAK_KIB_MAX: u64 = 256 << 10;
/// Of an honest device's connects, ninety-nine in a hundred come through within this time.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Once all that an attack holds stands, so much more comes every tick in place of the oldest.
const TICK: Duration = Duration::from_millis(10);
const MORE_PER_TICK: usize = 10;
/// What an attack opens at a time.
const OPENING_MAX: usize = 256;

/// What an attack is told.
#[derive(Clone)]
pub(super) struct Siege {
    pub(super) address: ServerAddress,
    pub(super) pins: Arc<[PublicKey]>,
    swing: mpsc::Sender<()>,
    ended: watch::Receiver<bool>,
}

impl Siege {
    /// Says that the attack is in full swing: from now on it is measured what the honest see of it.
    pub(super) fn in_full_swing(&self) {
        let _ = self.swing.send(());
    }

    /// Waits until enough was measured.
    pub(super) async fn ended(&self) {
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Opens so many, holds them, and goes on opening in place of the oldest, until enough was measured.
    pub(super) async fn flood<F>(&self, held_max: usize, open: impl Fn(usize) -> F)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let mut held = VecDeque::new();
        let mut opening = JoinSet::new();
        let mut ticks = tokio::time::interval(TICK);
        for number in 0.. {
            if number >= held_max && number % MORE_PER_TICK == 0 {
                ticks.tick().await;
            }
            opening.spawn(open(number));
            while opening.len() >= OPENING_MAX || (number >= held_max && !opening.is_empty()) {
                tokio::select! {
                    opened = opening.join_next() => {
                        held.push_back(opened.expect("some").expect("the attack goes as planned"));
                    }
                    () = self.ended() => return,
                }
            }
            while held.len() > held_max {
                held.pop_front();
            }
            if number == held_max {
                self.in_full_swing();
            }
        }
    }

    /// Connects with a key that nobody has seen before, as a device does.
    pub(super) async fn stranger(&self, transport: Transport) -> Option<(DeviceSecrets, Link)> {
        let secrets = DeviceSecrets::make_device(&mut OsEntropy);
        let link = link::connect(&[transport], &self.address, &Identity::new(&secrets), &self.pins).await;
        Some((secrets, link.ok()?))
    }
}

/// Lets an attack loose on a server, has an honest device connect beside it, and judges. In a burst the device
/// may be pushed out and try again.
pub(super) fn endure(size: Size, attack: impl AsyncFnOnce(Siege) + Send) -> Figures {
    let (_, figures) = besiege(size, attack);
    figures
}

/// The same, of an attack that must not push the device out even once.
pub(super) fn endure_unmoved(size: Size, attack: impl AsyncFnOnce(Siege) + Send) -> Figures {
    let (failures, figures) = besiege(size, attack);
    assert_eq!(failures, 0, "an honest device is sent away: {}", figures.0);
    figures
}

fn besiege(size: Size, attack: impl AsyncFnOnce(Siege) + Send) -> (usize, Figures) {
    let root = tempfile::tempdir().expect("a temporary folder");
    let mut server = TestServer::start(&root.path().join("server"), NODE);
    let phone = TestDevice::open(&root, "phone", &server, Start::Found);
    phone.sync();
    phone.replica.lock();
    let honest = Rogue::of(&phone.dir);
    let pins: Arc<[PublicKey]> = server.pins.content().expect("pins").tls.into();
    let (swing, swings) = mpsc::channel();
    let (end, ended) = watch::channel(false);
    let siege = Siege { address: server.address.clone(), pins: pins.clone(), swing, ended };
    let (mut times, mut failures) = (Vec::new(), 0);
    std::thread::scope(|scope| {
        // Whatever happens here, the attack ends.
        let end = Ends(end);
        let attacker = scope.spawn(|| block_on(attack(siege)));
        if swings.recv_timeout(PATIENCE).is_err() {
            // It panicked, and says why where it is joined.
            assert!(attacker.is_finished(), "the attack gets into full swing in time");
        }
        for number in 0..size.pick(8_usize, 200) {
            let transport = if number.is_multiple_of(2) { Transport::Quic } else { Transport::Tcp };
            let (took, failed) = block_on(come_through(&server, transport, &honest, &pins));
            times.push(took);
            failures += failed;
        }
        drop(end);
        attacker.join().expect("the attack goes as planned");
    });
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    let peak_kib = server.peak_kib();
    let told = match peak_kib {
        Some(kib) => format!("{} MiB", kib >> 10),
        None => "MEMORY IS NOT JUDGED: this system does not tell it".into(),
    };
    let told = format!(
        "{told}; {} honest connects, {failures} second tries: p50 {:.0?}, p99 {:.0?}, most {:.0?}",
        times.len(),
        at(50),
        at(99),
        at(100),
    );
    assert!(peak_kib.is_none_or(|kib| kib < PEAK_KIB_MAX), "{told}");
    size.judge("an honest device connects", at(99), CONNECT_MAX);

    let config = TestDevice::config(&phone.dir, &server.address, &server.pins);
    let phone = TestDevice::open_with(&phone.dir, config);
    assert!(phone.sync().in_sync, "the server still serves");
    phone.replica.lock();
    server.stop();
    assert_no_errors();
    (failures, Figures(told))
}

/// Ends an attack when dropped.
struct Ends(watch::Sender<bool>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// How long a device takes from its first try to its Welcome, and how often it had to try again.
async fn come_through(
    server: &TestServer,
    transport: Transport,
    honest: &Rogue,
    pins: &[PublicKey],
) -> (Duration, usize) {
    let identity = Identity::new(&honest.secrets);
    let started = Instant::now();
    for failures in 0.. {
        let welcome = async {
            let mut link = link::connect(&[transport], &server.address, &identity, pins).await.ok()?;
            greet(&mut link, &honest.secrets, vec![honest.hello()]).await
        };
        match tokio::time::timeout(PATIENCE, welcome).await {
            Ok(Some(FromServer::Welcome(_))) => return (started.elapsed(), failures),
            other => assert!(started.elapsed() < PATIENCE, "an honest device is kept out: {other:?}"),
        }
        tokio::task::yield_now().await;
    }
    unreachable!("it runs out of patience before it runs out of numbers")
}

/// Says Hello; what the server answers first.
pub(super) async fn greet(
    link: &mut Link,
    secrets: &DeviceSecrets,
    spaces: Vec<SpaceHello>,
) -> Option<FromServer> {
    let hello = Hello { version: wire::VERSION, device: secrets.id(), pins_version: 1, spaces };
    link.writer.send(wire::encode_frame(&FromDevice::Hello(hello))).await.ok()?;
    wire::decode(&link.reader.next().await.ok()??).ok()
}

/// Where an attack comes from.
#[derive(Clone, Copy)]
pub(super) enum From {
    /// Where the honest device comes from as well, as behind one router.
    Beside,
    /// One address.
    One,
    /// As many addresses as there are attempts.
    Everywhere,
}

impl From {
    /// An address of loopback for the next attempt. (Only Linux has more than one; elsewhere all attempts
    /// come from beside the honest, which is the hardest.)
    pub(super) fn address(self, number: usize) -> IpAddr {
        let number = u32::try_from(number).expect("fewer") % (1 << 20);
        let beyond = Ipv4Addr::new(127, 16, 0, 0).to_bits();
        match self {
            _ if !cfg!(target_os = "linux") => Ipv4Addr::LOCALHOST.into(),
            Self::Beside => Ipv4Addr::LOCALHOST.into(),
            Self::One => Ipv4Addr::from_bits(beyond).into(),
            Self::Everywhere => Ipv4Addr::from_bits(beyond + number).into(),
        }
    }
}
