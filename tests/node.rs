//! The process that tests start and kill: a server or a device, by its first argument.

use std::{
    collections::{BTreeSet, VecDeque},
    error::Error,
    io::{BufRead, Write},
    path::Path,
    sync::{Arc, mpsc},
    time::Instant,
};

use ebb_core::{
    Config, Delivery, Entry, FileVault, Observer, Query, RecordId, Replica, SyncStatus,
    link::{ServerAddress, Transport},
    record::{Attendance, CheckIn, Unit},
};
use ebb_protocol::{id::SpaceId, wire::SignedPins};
use ebb_tests::ward;

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["server", dir, quic, tcp] => ward::serve(Path::new(dir), quic, tcp),
        ["device", dir, transport, address, pins, name, run] => {
            let transport = if *transport == "tcp" { Transport::Tcp } else { Transport::Quic };
            let address = ServerAddress { quic: (*address).into(), tcp: (*address).into() };
            let server = (transport, address, SignedPins::from_text(pins)?);
            device(Path::new(dir), server, name, run.parse()?)?;
        }
        ["hold", dir] => hold(Path::new(dir))?,
        ["weigh", file] => weigh(Path::new(file))?,
        _ => std::process::exit(2),
    }
    Ok(())
}

fn say(line: std::fmt::Arguments<'_>) -> std::io::Result<()> {
    // One write of a whole line: whoever kills this process never reads half of one.
    std::io::stdout().lock().write_all(format!("{line}\n").as_bytes())
}

/// Opens a replica, says so and keeps it open until standard input ends.
fn hold(dir: &Path) -> Outcome {
    let _replica = Replica::open(Config::new(dir.join("replica")), &FileVault(dir.join("vault")))?;
    say(format_args!("open"))?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

/// Unpacks and inspects a payload as a receiver does, in a process of its own, and says how long it took
/// and how much memory (in KiB) the process needed beyond what it had.
fn weigh(file: &Path) -> Outcome {
    let packed = std::fs::read(file)?;
    // 5 resets the peak to the present (Linux, proc(5)).
    std::fs::write("/proc/self/clear_refs", "5")?;
    let peak_kib = || ward::peak_kib("self").ok_or("no VmHWM");
    let (before, started) = (peak_kib()?, Instant::now());
    let verdict = ward::admit(&packed);
    let (took, after) = (started.elapsed(), peak_kib()?);
    say(format_args!("{verdict} {} {}", took.as_micros(), after.saturating_sub(before)))?;
    Ok(())
}

/// A device that logs, edits and retracts without end, stays in sync, and keeps a ledger on standard
/// output: `try <mark>` before a call, `done <mark> <record>` when it returned, `server <record>` when all
/// that was done to a record is on the server. It ends when standard input does; a line there says that
/// the network changed.
fn device(dir: &Path, server: (Transport, ServerAddress, SignedPins), name: &str, run: u32) -> Outcome {
    ward::show_logs();
    let (transport, address, pins) = server;
    let config =
        Config { transport: Some(transport), ..Config::new(dir.join("replica")).server(address, pins) };
    let replica = Replica::open(config, &FileVault(dir.join("vault")))?;
    let space = *replica.spaces()?.first().ok_or("a device of a space")?;
    let (told, news) = mpsc::channel();
    replica.watch(Arc::new(Deliveries(told)));
    replica.stay_in_sync();
    let listener = replica.clone();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() {
                break;
            }
            listener.network_changed(None);
        }
        std::process::exit(0);
    });
    say(format_args!("open"))?;
    let mut logger = Logger::new(&replica, space, name, run)?;
    loop {
        // A device that has a lot to send waits until some of it is sent: the ledger stays about both.
        if logger.undelivered.len() < UNDELIVERED_MAX {
            logger.step()?;
        } else {
            news.recv()?;
            logger.news = true;
        }
        while news.try_recv().is_ok() {
            logger.news = true;
        }
        logger.deliver(&replica)?;
    }
}

/// Records that a device of the crash test leaves undelivered before it waits.
const UNDELIVERED_MAX: usize = 50;

struct Deliveries(mpsc::Sender<()>);

impl Observer for Deliveries {
    fn delivery_changed(&self, _: SpaceId) {
        let _ = self.0.send(());
    }

    fn status_changed(&self, status: SyncStatus) {
        tracing::debug!(?status);
    }

    fn device_frozen(&self, _: SpaceId) {
        tracing::error!("a device that was neither restored nor copied is frozen");
    }
}

struct Logger<'a> {
    replica: &'a Replica,
    space: SpaceId,
    name: &'a str,
    run: u32,
    count: u32,
    dice: u64,
    /// Own records that may be edited, the newest last.
    own: VecDeque<RecordId>,
    undelivered: BTreeSet<RecordId>,
    news: bool,
}

impl<'a> Logger<'a> {
    fn new(replica: &'a Replica, space: SpaceId, name: &'a str, run: u32) -> Result<Self, Box<dyn Error>> {
        let author = replica.with_engine(|engine| Ok(engine.device()))?;
        let last = Query { limit: Some(20), ..Query::default() };
        let own = replica.records(space, &last)?.into_iter().rev();
        let own = own.filter(|record| record.author == author.0).map(|record| record.id).collect();
        let dice = u64::from(run) << 32 | name.len() as u64;
        let undelivered = BTreeSet::new();
        Ok(Self { replica, space, name, run, count: 0, dice, own, undelivered, news: true })
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % sides
    }

    fn step(&mut self) -> Outcome {
        self.count += 1;
        let mark = format!("{}-{}-{}", self.name, self.run, self.count);
        say(format_args!("try {mark}"))?;
        let what = self.roll(10);
        let place = self.roll(self.own.len().max(1) as u64) as usize;
        let id = match (what, self.own.get(place).copied()) {
            (0..=1, Some(id)) => {
                // The kind stays what it was: of a record's own body, only the note differs.
                let present = self.replica.record(self.space, id)?;
                let entry = Entry { occurred: None, note: mark.clone(), ..Entry::new(present.body) };
                self.replica.edit(self.space, id, &entry)?;
                id
            }
            (2, Some(id)) => {
                self.replica.retract(self.space, id, &mark)?;
                id
            }
            _ => {
                let entry = self.entry(what).note(&mark);
                let id = self.replica.log(self.space, &entry)?;
                self.own.push_back(id);
                if self.own.len() > 20 {
                    self.own.pop_front();
                }
                id
            }
        };
        say(format_args!("done {mark} {id}"))?;
        self.undelivered.insert(id);
        self.news = true;
        Ok(())
    }

    fn entry(&self, what: u64) -> Entry {
        match (self.name, what) {
            ("desk", _) => Entry::visit("group", "week 1", Attendance::Kept),
            (_, 0..5) => Entry::check_in(CheckIn { craving: Some(3), ..CheckIn::default() }),
            (_, 5..8) => Entry::dose("buprenorphine", 8.0, Unit::Mg),
            _ => Entry::use_event("heroin"),
        }
    }

    /// Says which records have arrived since.
    fn deliver(&mut self, replica: &Replica) -> Outcome {
        if !std::mem::take(&mut self.news) {
            return Ok(());
        }
        let mut arrived = Vec::new();
        for id in &self.undelivered {
            if replica.delivery(self.space, *id)? == Delivery::OnServer {
                arrived.push(*id);
            }
        }
        for id in arrived {
            self.undelivered.remove(&id);
            say(format_args!("server {id}"))?;
        }
        Ok(())
    }
}
