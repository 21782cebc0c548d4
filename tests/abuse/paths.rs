//! Bad paths: an honest device, the real server, and a proxy between them.

use std::time::{Duration, Instant};

use ebb_core::{Delivery, Start, SyncStatus, link::Transport};
use ebb_tests::{
    proxy::{Path, Proxy},
    ward::{Events, PATIENCE, TestDevice, TestServer, Told, assert_no_errors, block_on, craving, wait_for},
};

use super::{Figures, NODE, Size};

/// What is logged offline, and must be on the server in the end.
const RECORDS: usize = 100;
/// They are there within this time.
const RECORDS_MAX: Duration = Duration::from_secs(60);
/// Paths of other luck that the full size tries.
const SEEDS: u64 = 20;

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
    let mut times = Vec::new();
    for seed in 1..=size.pick(1, SEEDS) {
        let (took, (came, lost)) = carry_records(seed, LOSSY, Transport::Quic, false);
        eprintln!("seed {seed}: {took:.1?}, {lost} of {came} datagrams lost");
        assert!(lost > 0, "the path loses some");
        size.judge("100 records over a lossy path", took, RECORDS_MAX);
        times.push(took);
    }
    times.sort();
    let (middle, last) = (times[times.len() / 2], times[times.len() - 1]);
    Figures(format!("{RECORDS} records on the server after {middle:.1?}, at most {last:.1?}"))
}

pub(super) fn slow(size: Size) -> Figures {
    let (took, _) = carry_records(1, SLOW, Transport::Tcp, false);
    size.judge("100 records over a slow path", took, RECORDS_MAX);
    let (cut, _) = carry_records(1, SLOW, Transport::Tcp, true);
    size.judge("100 records over a path that is cut", cut, RECORDS_MAX);
    Figures(format!("{RECORDS} records on the server after {took:.1?}, cut off once after {cut:.1?}"))
}

/// Logs records offline and syncs them over a path; how long that took, and what the path lost of datagrams.
/// The stream may be `cut` once, as soon as the device is connected.
fn carry_records(seed: u64, path: Path, transport: Transport, cut: bool) -> (Duration, (u64, u64)) {
    let root = tempfile::tempdir().expect("a temporary folder");
    let mut server = TestServer::start(&root.path().join("server"), NODE);
    let proxy = Proxy::start(&server.address, seed, Path::GOOD);
    let dir = root.path().join("phone");
    let config = TestDevice::config(&dir, &proxy.address, &server.pins).start(Start::Found);
    let phone = TestDevice::open_with(&dir, ebb_core::Config { transport, ..config });
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
    let told = proxy.came_and_lost();
    phone.replica.lock();
    drop(proxy);
    server.stop();
    assert_no_errors();
    (took, told)
}
