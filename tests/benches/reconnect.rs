//! What it takes to reconnect with 200 new records over 2,000 old ones, beside Automerge's own sync.
//!
//! `cargo bench -p ebb-tests --bench reconnect`
//!
//! The device is a real replica driven by hand, so that every frame is seen; the server is a process of
//! its own, whose threads' CPU time is read from `/proc` before and after each session. What connecting
//! alone costs (measured in sessions without a frame) is taken off. Every session has a patient of its own.
//!
//! Beside it the same 2,200 records in one Automerge document that a server holds, synced over the same
//! QUIC and TLS: A as nested maps of fields (the note is text that merges, as ours is; other strings are
//! plain values, which is less than Automerge's JavaScript API writes), B as one value of bytes a record. That server loads the document, answers, and
//! makes what it received durable before the answer leaves. Both sides kept their sync state from before.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and ends where it fails")]

mod kit;

#[path = "reconnect/rival.rs"]
mod rival;

use std::{path::Path, time::Duration};

use ebb_core::{
    Engine, LinkAction,
    link::{self, ServerAddress, Transport},
};
use ebb_protocol::{
    client::Input,
    id::Millis,
    wire::{self, FromDevice, FromServer},
};
use ebb_tests::ward::{self, TestServer};
use kit::{Report, Target, diary::Phone, median, ms, settled_cpu, sized};

const FLIGHT_BYTES_MAX: f64 = 14_000.0;

fn main() {
    match kit::arguments().iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["server", dir, quic, tcp] => {
            std::fs::write(Path::new(dir).join("pid"), std::process::id().to_string()).unwrap();
            ward::serve(Path::new(dir), quic, tcp);
        }
        ["rival", dir] => rival::serve(Path::new(dir)),
        _ => tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(compare()),
    }
}

async fn compare() {
    let (old, new, rounds) = (sized(2_000, 100), sized(200, 20), sized(7, 2));
    let root = tempfile::tempdir().unwrap();
    let node = std::env::current_exe().unwrap();
    let server = TestServer::start(&root.path().join("server"), &node.to_string_lossy());
    let pid = std::fs::read_to_string(server.dir.join("pid")).unwrap().parse().unwrap();

    let mut sessions = Vec::new();
    let mut connects = Vec::new();
    for round in 0..rounds {
        let reach = (server.address.clone(), server.pins.clone());
        let mut phone = Phone::open(&root.path().join(format!("phone-{round}")), round as u64, Some(reach));
        // The old records came in over many days, each synced.
        for done in (0..old).step_by(50) {
            phone.log(50.min(old - done));
            sync(&phone, &server.address).await;
        }
        for _ in 0..5 {
            let before = settled_cpu(pid);
            connect(&phone, &server.address).await.close().await;
            connects.push(settled_cpu(pid) - before);
        }
        phone.log(new);
        let before = settled_cpu(pid);
        let mut session = sync(&phone, &server.address).await;
        session.server_cpu = settled_cpu(pid) - before;
        sessions.push(session);
        let (records, unsent) = phone.replica.with_engine(|engine| engine.count(&phone.space)).unwrap();
        assert_eq!((records as usize, unsent), (old + new, 0), "all of it is at the server");
    }
    let handshake = median(&connects);
    let cpu: Vec<_> = sessions.iter().map(|session| session.server_cpu.saturating_sub(handshake)).collect();

    let mut report =
        Report::new(&format!("reconnect: {new} new mixed records over {old} old ones, {rounds} patients"));
    let worst = |figure: fn(&Session) -> usize| sessions.iter().map(figure).max().unwrap();
    println!("Ebb");
    for line in sessions[0].transcript() {
        report.note(&line);
    }
    report.figure("streams touched", worst(Session::pushes) as f64, "", Target::None);
    report.figure(
        "round trips of the application",
        worst(Session::round_trips) as f64,
        "",
        Target::AtMost(1.0),
    );
    let up: Vec<_> = sessions.iter().map(Session::bytes_up).collect();
    let our_bytes = up.iter().copied().max().unwrap() as f64;
    report.note(&format!("bytes up by patient: {up:?}"));
    report.figure(
        "bytes device to server, the most of any",
        our_bytes,
        "B",
        Target::AtMost(FLIGHT_BYTES_MAX),
    );
    report.figure(
        "bytes server to device, the most of any",
        worst(Session::bytes_down) as f64,
        "B",
        Target::None,
    );
    report.figure("server CPU to connect (taken off)", ms(handshake), "ms", Target::None);
    report.note(&format!("server CPU by patient: {:.2?}", cpu.iter().copied().map(ms).collect::<Vec<_>>()));
    report.figure("server CPU per push, median", ms(median(&cpu)), "ms", Target::AtMost(3.0));
    drop(server);

    for variant in [rival::Variant::Fields, rival::Variant::Bytes] {
        let rivals = rival::measure(variant, old, new, rounds, root.path()).await;
        println!("{}", variant.title());
        let judged = variant == rival::Variant::Fields;
        let target = |least| if judged { Target::AtLeast(least) } else { Target::None };
        report.figure("  document at the server", rivals.document_bytes as f64, "B", Target::None);
        report.figure("  round trips", rivals.round_trips as f64, "", Target::None);
        report.figure("  bytes device to server", rivals.bytes_up as f64, "B", Target::None);
        report.figure("  bytes server to device", rivals.bytes_down as f64, "B", Target::None);
        report.figure("  server CPU to connect (taken off)", ms(rivals.handshake), "ms", Target::None);
        report.figure("  server CPU, median", ms(rivals.cpu), "ms", Target::None);
        report.figure("  its server CPU / ours", ms(rivals.cpu) / ms(median(&cpu)), "x", target(20.0));
        report.figure("  its bytes / ours", rivals.bytes_up as f64 / our_bytes, "x", target(4.0));
    }
    report.end();
}

/// The frames of a session, as they left and came.
#[derive(Default)]
struct Session {
    frames: Vec<Frame>,
    server_cpu: Duration,
}

struct Frame {
    up: bool,
    name: String,
    bytes: usize,
}

impl Session {
    fn bytes_up(&self) -> usize {
        self.frames.iter().filter(|frame| frame.up).map(|frame| frame.bytes).sum()
    }

    fn bytes_down(&self) -> usize {
        self.frames.iter().filter(|frame| !frame.up).map(|frame| frame.bytes).sum()
    }

    fn pushes(&self) -> usize {
        self.frames.iter().filter(|frame| frame.name.starts_with("Push")).count()
    }

    /// How often the device sent something and then waited, until all was acknowledged and caught up.
    fn round_trips(&self) -> usize {
        let done = self.frames.iter().rposition(|frame| ["Acked", "CaughtUp"].contains(&frame.name.as_str()));
        let until = &self.frames[..=done.expect("it was caught up")];
        let mut waits = 0;
        let mut sent = false;
        for frame in until {
            waits += usize::from(sent && !frame.up);
            sent = frame.up;
        }
        waits
    }

    fn transcript(&self) -> Vec<String> {
        self.frames
            .iter()
            .map(|frame| {
                format!("{} {:<9} {:>6} B", if frame.up { "->" } else { "<-" }, frame.name, frame.bytes)
            })
            .collect()
    }
}

async fn connect(phone: &Phone, address: &ServerAddress) -> link::Link {
    let (identity, pins) = phone
        .replica
        .with_engine(|engine| Ok((engine.identity(), engine.pins().expect("pins were given").tls)))
        .unwrap();
    link::connect(&[Transport::Quic], address, &identity, &pins).await.expect("the server is there")
}

/// Syncs once, as the replica's own thread would.
async fn sync(phone: &Phone, address: &ServerAddress) -> Session {
    let handle = |input| phone.replica.with_engine(|engine: &mut Engine| Ok(engine.handle(input))).unwrap();
    let mut session = Session::default();
    let mut actions = handle(Input::SyncUntil(Millis(u64::MAX)));
    assert_eq!(actions, [LinkAction::Connect]);
    let mut link = connect(phone, address).await;
    actions = handle(Input::Connected { exporter: link.exporter });
    loop {
        let mut closes = false;
        for action in actions {
            match action {
                LinkAction::Send(frame) => {
                    session.frames.push(sent(&frame));
                    link.writer.queue(frame);
                }
                LinkAction::Close => closes = true,
                LinkAction::Connect => panic!("the connection broke"),
            }
        }
        if closes {
            break;
        }
        link.writer.flush().await.unwrap();
        let body = link.reader.next().await.unwrap().expect("the server says more");
        let frame = wire::decode(&body).expect("a frame");
        session.frames.push(came(&frame, body.len() + 4));
        actions = handle(Input::Frame(frame));
    }
    link.close().await;
    session
}

fn sent(frame: &[u8]) -> Frame {
    let name = match wire::decode(&frame[4..]).expect("our own") {
        FromDevice::Hello(_) => "Hello".into(),
        FromDevice::PushRoster(_) => "Roster".into(),
        FromDevice::Push(push) => format!("Push({})", push.envelopes.len()),
        FromDevice::Seen(_) => "Seen".into(),
        FromDevice::Evidence(_) => "Evidence".into(),
        FromDevice::Ping(_) => "Ping".into(),
    };
    Frame { up: true, name, bytes: frame.len() }
}

fn came(frame: &FromServer, bytes: usize) -> Frame {
    let name = match frame {
        FromServer::Welcome(_) => "Welcome",
        FromServer::Acked(_) => "Acked",
        FromServer::CaughtUp(_) => "CaughtUp",
        FromServer::Entries(_) => "Entries",
        FromServer::Refused(_) => "Refused",
        _ => "other",
    };
    Frame { up: false, name: name.into(), bytes }
}
