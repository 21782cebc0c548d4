//! Bad paths: an honest device, the real server, and a proxy between them.

use std::time::{Duration, Instant};

use ebb_core::{Config, Delivery, Start, SyncStatus, link::Transport};
use ebb_tests::{
    proxy::{Path, Proxy},
    ward::{Events, PATIENCE, TestDevice, TestServer, Told, assert_no_errors, block_on, craving, wait_for},
};

use super::{Figures, NODE, Size};

/// What is logged offline, and must be on the server in the end.
const RECORDS: usize = 100;
/// They are there within this time.
const RECORDS_MAX: Duration = Duration::from_secs(60);
/// Where UDP dies, they are there over TCP within this time.
const FALLBACK_MAX: Duration = Duration::from_secs(3);
/// Paths of other luck that the full size tries.
const SEEDS: u64 = 20;
/// One on which it is over soon, which the small size tries.
const LUCKY_SEED: u64 = 14;

/// A mobile network at its worst: three in ten lost each way, 600 ms there and back and up to 60 ms more,
/// which reorders, and nothing above the least that IPv6 carries.
const LOSSY: Path = Path {
    lost_percent: 30,
    doubled_percent: 5,
    delay_ms: 300,
    jitter_ms: 30,
    packet_bytes_max: 1_280,
    dies_after: u64::MAX,
};
const SLOW: Path = Path { delay_ms: 300, ..Path::GOOD };

pub(super) fn lossy(size: Size) -> Figures {
    // They wait, most of the time: so they wait together.
    let carry = |seed| std::thread::spawn(move || carry_records(seed, LOSSY, &[Transport::Quic], false));
    let seeds = size.pick(LUCKY_SEED..=LUCKY_SEED, 1..=SEEDS);
    let runs: Vec<_> = seeds.map(carry).collect();
    let mut times = Vec::new();
    for run in runs {
        let (took, (came, lost)) = run.join().expect("all records arrive");
        assert!(lost > 0, "the path loses some of {came}");
        size.judge("100 records over a lossy path", took, RECORDS_MAX);
        times.push(took);
    }
    times.sort();
    let (middle, last) = (times[times.len() / 2], times[times.len() - 1]);
    Figures(format!("{RECORDS} records on the server after {middle:.1?}, at most {last:.1?}"))
}

pub(super) fn slow(size: Size) -> Figures {
    let (took, _) = carry_records(1, SLOW, &[Transport::Tcp], false);
    size.judge("100 records over a slow path", took, RECORDS_MAX);
    let (cut, _) = carry_records(1, SLOW, &[Transport::Tcp], true);
    size.judge("100 records over a path that is cut", cut, RECORDS_MAX);
    Figures(format!("{RECORDS} records on the server after {took:.1?}, cut off once after {cut:.1?}"))
}

/// A network whose filter lets the first datagram through, to see what it is, and nothing of it from then on.
pub(super) fn dying(size: Size) -> Figures {
    let dies = Path { dies_after: 1, ..Path::GOOD };
    let (took, _) = carry_records(1, dies, &[Transport::Quic, Transport::Tcp], false);
    size.judge("fallback to TCP", took, FALLBACK_MAX);
    let told = format!("{RECORDS} records on the server after {took:.1?}");
    if size == Size::Small {
        return Figures(told);
    }
    let later = Path { dies_after: 12, ..Path::GOOD };
    let (late, _) = carry_records(1, later, &[Transport::Quic, Transport::Tcp], false);
    Figures(format!("{told}; {late:.1?} where it dies behind the handshake"))
}

/// Logs records offline and syncs them over a path; how long that took, and what the path lost of datagrams.
/// The stream may be `cut` once, as soon as the device is connected.
fn carry_records(seed: u64, path: Path, over: &[Transport], cut: bool) -> (Duration, (u64, u64)) {
    let root = tempfile::tempdir().expect("a temporary folder");
    let mut server = TestServer::start(&root.path().join("server"), NODE);
    let proxy = Proxy::start(&server.address, seed, Path::GOOD);
    let dir = root.path().join("phone");
    let config = TestDevice::config(&dir, &proxy.address, &server.pins).start(Start::Found);
    // One of them, or both in a race.
    let transport = <[Transport; 1]>::try_from(over).ok().map(|[one]| one);
    let phone = TestDevice::open_with(&dir, Config { transport, ..config });
    phone.sync();
    let space = *phone.replica.spaces().expect("open").first().expect("founded");
    let logged: Vec<_> = (0..RECORDS)
        .map(|number| phone.replica.log(space, &craving((number % 10) as u8)).expect("is logged"))
        .collect();

    proxy.set(path);
    let told = Events::of(&phone.replica);
    let started = Instant::now();
    let syncs = phone.replica.sync(PATIENCE);
    if cut {
        wait_for(&told, |told| *told == Told::Status(SyncStatus::Syncing));
        proxy.cut();
    }
    block_on(syncs).expect("the sync ends in time");
    let took = started.elapsed();
    for id in logged {
        assert_eq!(phone.replica.delivery(space, id).expect("is known"), Delivery::OnServer);
    }
    let attempts = told.try_iter().filter(|told| *told == Told::Status(SyncStatus::Connecting)).count();
    let (came, lost) = proxy.came_and_lost();
    tracing::info!(seed, ?took, attempts, came, lost, "all records arrived");
    phone.replica.lock();
    drop(proxy);
    server.stop();
    assert_no_errors();
    (took, (came, lost))
}
