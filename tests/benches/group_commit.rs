//! Group commit: 64 writers over real connections, each waiting for every acknowledgement.
//!
//! `cargo bench -p ebb-tests --bench group_commit`
//!
//! The server is a process of its own. The first run counts its fsyncs and fdatasyncs with `strace` (of
//! the log and its write-ahead log, checkpoints, founding and the end included); the second measures
//! without it how many acknowledgements a second come out.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and ends where it fails")]

mod kit;

use std::{
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use ebb_core::link::{self, Identity, Link, ServerAddress, Transport};
use ebb_protocol::{
    id::LogId,
    verify::PublicKey,
    wire::{self, FromServer},
};
use ebb_tests::ward::{self, TestServer};
use kit::{
    Report, Target,
    device::{Device, SMALL_BODY_BYTES},
    median, ms, quantile, settled_cpu, sized,
};
use tokio::sync::Barrier;

const WRITERS: usize = 64;
const TRACED: &str = "EBB_BENCH_TRACED";

fn main() {
    let arguments = kit::arguments();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["server", dir, quic, tcp] if std::env::var_os(TRACED).is_some() => {
            let node = std::env::current_exe().unwrap();
            let error = Command::new("strace")
                .args(["-f", "--seccomp-bpf", "-qq", "-y", "-e", "trace=fsync,fdatasync", "-o"])
                .arg(Path::new(dir).join("syncs"))
                .arg(node)
                .env_remove(TRACED)
                .args(["server", dir, quic, tcp])
                .exec();
            panic!("strace: {error}");
        }
        ["server", dir, quic, tcp] => {
            std::fs::write(Path::new(dir).join("pid"), std::process::id().to_string()).unwrap();
            ward::serve(Path::new(dir), quic, tcp);
        }
        _ => measure(),
    }
}

fn measure() {
    let each = sized(150, 5);
    let root = tempfile::tempdir().unwrap();
    let node = std::env::current_exe().unwrap();
    let mut report =
        Report::new(&format!("group_commit: {WRITERS} writers, {each} envelopes each, one at a time"));
    let can_trace = Command::new("strace").arg("-V").output().is_ok_and(|ran| ran.status.success());
    if can_trace {
        let dir = root.path().join("traced");
        // Only the server's own process looks at it.
        let run = run(&dir, &Traced::node(&node, root.path()), each);
        let syncs = std::fs::read_to_string(dir.join("syncs")).unwrap();
        let of_log = syncs.lines().filter(|line| line.contains("/log.sqlite")).count();
        assert!(of_log > 0, "the log syncs: {syncs}");
        report.figure("acknowledgements", run.acks as f64, "", Target::None);
        report.figure("fsyncs of the log, checkpoints included", of_log as f64, "", Target::None);
        let per_ack = of_log as f64 / run.acks as f64;
        report.figure("acknowledgements per fsync", 1.0 / per_ack, "", Target::AtLeast(10.0));
    } else {
        report.note("strace is not here: fsyncs are not counted");
    }
    let run = run(&root.path().join("free"), &node, each);
    report.figure("acknowledgements a second", run.acks as f64 / run.took.as_secs_f64(), "/s", Target::None);
    report.figure("wait for an acknowledgement, p50", ms(median(&run.waits)), "ms", Target::None);
    report.figure("wait for an acknowledgement, p99", ms(quantile(&run.waits, 0.99)), "ms", Target::None);
    report.figure("server CPU per acknowledgement", ms(run.server_cpu) / run.acks as f64, "ms", Target::None);
    report.end();
}

/// A stand-in for this binary that sets the variable: setting one's own is unsafe beside threads.
struct Traced;

impl Traced {
    fn node(node: &Path, root: &Path) -> std::path::PathBuf {
        let script = root.join("traced-node");
        std::fs::write(&script, format!("#!/bin/sh\n{TRACED}=1 exec '{}' \"$@\"\n", node.display())).unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        script
    }
}

struct Run {
    acks: usize,
    took: Duration,
    waits: Vec<Duration>,
    server_cpu: Duration,
}

fn run(dir: &Path, node: &Path, each: usize) -> Run {
    let mut server = TestServer::start(dir, &node.to_string_lossy());
    let pid: u32 = std::fs::read_to_string(dir.join("pid")).unwrap().parse().unwrap();
    let address = server.address.clone();
    let pins: Vec<PublicKey> = server.pins.content().unwrap().tls;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (waits, took, server_cpu) = runtime.block_on(async {
        let ready = Arc::new(Barrier::new(WRITERS + 1));
        let mut writers = Vec::new();
        for _ in 0..WRITERS {
            let (address, pins, ready) = (address.clone(), pins.clone(), ready.clone());
            writers.push(tokio::spawn(async move { write(&address, &pins, each, &ready).await }));
        }
        ready.wait().await;
        let cpu = settled_cpu(pid);
        ready.wait().await;
        let began = Instant::now();
        let mut waits = Vec::new();
        let mut links = Vec::new();
        for writer in writers {
            let (more, link) = writer.await.unwrap();
            waits.extend(more);
            links.push(link);
        }
        let took = began.elapsed();
        let server_cpu = settled_cpu(pid) - cpu;
        for link in links {
            tokio::spawn(link.close());
        }
        (waits, took, server_cpu)
    });
    drop(runtime);
    server.stop();
    Run { acks: waits.len(), took, waits, server_cpu }
}

/// One writer: founds a space, then sends an envelope and waits for its acknowledgement, again and again.
async fn write(
    address: &ServerAddress,
    pins: &[PublicKey],
    each: usize,
    ready: &Barrier,
) -> (Vec<Duration>, Link) {
    let mut device = Device::found();
    // Signed before: the devices' own work must not slow the server's machine.
    let pushes: Vec<_> = (0..each).map(|_| device.push(0, SMALL_BODY_BYTES)).collect();
    let identity = Identity::new(&device.secrets);
    let mut link = link::connect(&[Transport::Quic], address, &identity, pins).await.unwrap();
    link.writer.queue(device.hello(LogId::ZERO, Vec::new()));
    link.writer.send(device.push_roster()).await.unwrap();
    wait(&mut link, |frame| matches!(frame, FromServer::RosterAcked(_))).await;
    ready.wait().await;
    ready.wait().await;
    let mut waits = Vec::with_capacity(each);
    for push in pushes {
        let began = Instant::now();
        link.writer.send(push).await.unwrap();
        wait(&mut link, |frame| matches!(frame, FromServer::Acked(_))).await;
        waits.push(began.elapsed());
    }
    (waits, link)
}

async fn wait(link: &mut Link, fits: impl Fn(&FromServer) -> bool) {
    loop {
        let body = link.reader.next().await.unwrap().expect("the server says more");
        let frame = wire::decode(&body).unwrap();
        assert!(!matches!(frame, FromServer::Refused(_) | FromServer::Bye(_)), "{frame:?}");
        if fits(&frame) {
            return;
        }
    }
}
