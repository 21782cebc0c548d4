//! The same push into a log of 100 envelopes and into one of 100,000, both opened cold.
//!
//! `cargo bench -p ebb-tests --bench log_length`
//!
//! The whole server but its sockets: session, judge, committer and SQLite log, driven in one thread. The
//! long log holds 10,000 envelopes of the pushing device's own space and 1,000 of each of 90 others. A
//! push is Hello and four frames with an envelope each, the bodies as large as those of 200 mixed records.
//! Instructions are counted by callgrind (`valgrind`) inside the push alone; CPU time stands beside them.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and ends where it fails")]

mod kit;

use std::{collections::VecDeque, path::Path, process::Command, sync::Arc, time::Duration};

use ebb_core::keys::DeviceSecrets;
use ebb_protocol::{
    id::{LogId, Millis},
    roster::Roster,
    session::{self, Attest, Input, Output, Session},
    verify::{self, PublicKey},
    wire::{self, Acked, FromServer, LogBorn, Pins, SignedHeads, SignedLogBorn, SignedPins},
};
use ebb_sync_server::{
    commit::{Allowance, Answer, Committer, Effect, Means, Offer},
    log::{
        self, Log, Reader, Rosters,
        sqlite::{Options, SqliteLog, SqliteReader},
    },
    signing::SigningKey,
};
use kit::{
    Report, Target,
    device::{Device, SMALL_BODY_BYTES, STREAMS},
    median, ms, sized, thread_cpu,
};

const SHORT: usize = 100;
const OWN_OF_LONG: usize = 10_000;
const OTHERS_EACH: usize = 1_000;
/// Ciphertext of 200 mixed records, by stream: doses, check-ins, withdrawal answers, uses.
const PUSH_BODY_BYTES: [usize; 4] = [3_344, 3_088, 2_064, 2_576];
const EXPORTER: [u8; 32] = [5; 32];

fn main() {
    match kit::arguments().iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["push", dir] => {
            push_once(Path::new(dir));
        }
        _ => compare(),
    }
}

fn compare() {
    let long = sized(100_000, 2_000);
    let own = OWN_OF_LONG.min(long / 2);
    let root = tempfile::tempdir().unwrap();
    let (short_dir, long_dir) = (root.path().join("short"), root.path().join("long"));
    fill(&short_dir, SHORT, 0);
    fill(&long_dir, own, long - own);

    let (mut short_cpu, mut long_cpu) = (Vec::new(), Vec::new());
    for _ in 0..sized(21, 3) {
        short_cpu.push(push_once(&short_dir));
        long_cpu.push(push_once(&long_dir));
    }
    let mut report =
        Report::new(&format!("log_length: one push of four envelopes into logs of {SHORT} and {long}"));
    let ratio = ms(median(&long_cpu)) / ms(median(&short_cpu));
    report.figure("CPU of a push into the short log, median", ms(median(&short_cpu)), "ms", Target::None);
    report.figure("CPU of a push into the long log, median", ms(median(&long_cpu)), "ms", Target::None);
    let counted = instructions(&short_dir).zip(instructions(&long_dir));
    match counted {
        Some((short, long)) => {
            report.figure("long / short, CPU", ratio, "x", Target::None);
            report.figure("instructions into the short log", short, "", Target::None);
            report.figure("instructions into the long log", long, "", Target::None);
            report.figure("long / short, instructions", long / short, "x", Target::AtMost(1.2));
        }
        None => {
            report.note("callgrind is not here: CPU time is judged instead");
            report.figure("long / short, CPU", ratio, "x", Target::AtMost(1.2));
        }
    }
    report.end();
}

/// Instructions of one push, after opening the log cold.
fn instructions(dir: &Path) -> Option<f64> {
    let counts = dir.join("callgrind");
    let ran = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*measured_push*"])
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .arg(std::env::current_exe().unwrap())
        .args(["push", &dir.to_string_lossy()])
        .output()
        .ok()?;
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let text = std::fs::read_to_string(counts).ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "))?;
    total.split(' ').next()?.parse().ok().filter(|count| *count > 0.0)
}

/// Makes a log with a device's own envelopes, spread over its four streams, and with those of others.
fn fill(dir: &Path, own: usize, others: usize) {
    std::fs::create_dir_all(dir).unwrap();
    let mut server = Server::open(dir);
    let device = Device::found();
    std::fs::write(dir.join("device"), &*device.secrets.to_bytes()).unwrap();
    server.append(device, own);
    for done in (0..others).step_by(OTHERS_EACH) {
        server.append(Device::found(), OTHERS_EACH.min(others - done));
    }
}

/// Opens a log cold, pushes once, and says what CPU time that took.
fn push_once(dir: &Path) -> Duration {
    let secrets = DeviceSecrets::from_bytes(&std::fs::read(dir.join("device")).unwrap()).unwrap();
    let mut device = Device::of(secrets);
    let frames = {
        let server = Server::open(dir);
        let (reader, space) = (&server.reader, device.space);
        for (place, stream) in STREAMS.iter().enumerate() {
            device.chains[place] = reader.last(&space, stream, &device.secrets.id()).unwrap().unwrap();
        }
        let heads = STREAMS.iter().map(|stream| reader.head(&space, stream).unwrap()).collect();
        let mut frames = vec![device.hello(reader.log_id(&space).unwrap().unwrap(), heads)];
        frames.extend(PUSH_BODY_BYTES.iter().enumerate().map(|(place, bytes)| device.push(place, *bytes)));
        frames
    };
    let mut server = Server::open(dir);
    let before = thread_cpu();
    let said = measured_push(&mut server, device.secrets.public().tls, &frames);
    let took = thread_cpu() - before;
    let acked =
        said.iter().map(|frame| if let FromServer::Acked(acked) = frame { acked.envelopes.len() } else { 0 });
    assert_eq!(acked.sum::<usize>(), STREAMS.len(), "{said:?}");
    took
}

/// What callgrind counts: found by its name, and so without closures of its own.
#[inline(never)]
fn measured_push(server: &mut Server, tls: PublicKey, frames: &[Vec<u8>]) -> Vec<FromServer> {
    server.serve(tls, frames)
}

/// A server without sockets and threads.
struct Server {
    log: SqliteLog,
    reader: SqliteReader,
    rosters: Arc<Rosters>,
    committer: Committer<()>,
    means: OwnMeans,
    config: Arc<session::Config>,
}

struct OwnMeans(SigningKey);

impl Means for OwnMeans {
    fn log_id(&mut self) -> LogId {
        LogId(ebb_sync_server::signing::random_id())
    }

    fn sign_born(&mut self, born: &LogBorn) -> SignedLogBorn {
        SignedLogBorn::sign(born, |message| self.0.sign(message))
    }
}

impl Server {
    fn open(dir: &Path) -> Self {
        let log = SqliteLog::open(&dir.join("log.db"), Options::default()).unwrap();
        let reader = log.reader().unwrap();
        let rosters = Arc::new(Rosters::default());
        let allowance = Allowance { envelopes_per_minute: 0, envelopes_burst: u32::MAX, bytes_per_day: 0 };
        let committer = Committer::new(rosters.clone(), allowance);
        let key = SigningKey::from_seed(&[7; 32]);
        let pins = Pins { version: 1, root: key.public(), tls: Vec::new(), heads: vec![key.public()] };
        let pins = SignedPins::sign(&pins, |message| key.sign(message));
        let heads_keys = vec![key.public()];
        let config = session::Config { open_registration: true, pins, heads_keys, back_off_ms: 0 };
        Self { log, reader, rosters, committer, means: OwnMeans(key), config: Arc::new(config) }
    }

    /// Appends envelopes of a device in large groups, through the committer.
    fn append(&mut self, mut device: Device, count: usize) {
        let mut roster = Roster::new(device.space);
        let founding = roster.verify(device.founding.clone()).unwrap();
        roster.apply(&founding);
        assert!(self.committer.offer((), device.space, Offer::Roster(vec![founding])).is_none());
        for (place, stream) in STREAMS.into_iter().enumerate() {
            let write = |_| {
                verify::check(device.write(place, SMALL_BODY_BYTES), &device.secrets.public().sig).unwrap()
            };
            let envelopes = (0..count / STREAMS.len()).map(write).collect();
            let offer = Offer::Envelopes { stream, envelopes, refill: false };
            assert!(self.committer.offer((), device.space, offer).is_none(), "the queue takes it");
        }
        let taken: usize = self.commit().iter().map(taken).sum();
        assert_eq!(taken, count / STREAMS.len() * STREAMS.len());
    }

    /// Commits everything offered; the answers in order.
    fn commit(&mut self) -> Vec<Input> {
        let mut answers = Vec::new();
        while !self.committer.is_idle() {
            let group = self.committer.next_group(&self.log, Millis(1), &mut self.means);
            let result = if group.is_empty() { Ok(Vec::new()) } else { self.log.commit(&group) };
            for effect in self.committer.done(&self.log, result) {
                if let Effect::Reply((), Answer::Input(input)) = effect {
                    answers.push(input);
                }
            }
        }
        answers
    }

    /// A whole connection: frames come together, and one group takes what they append.
    fn serve(&mut self, tls: PublicKey, frames: &[Vec<u8>]) -> Vec<FromServer> {
        let mut session = Session::new(Millis(1), self.config.clone(), tls, EXPORTER);
        let mut said = Vec::new();
        for frame in frames {
            let frame = wire::decode(&frame[4..]).expect("our own");
            self.carry_out(&mut session, &tls, Input::Frame(frame), &mut said);
        }
        for answer in self.commit() {
            self.carry_out(&mut session, &tls, answer, &mut said);
        }
        said
    }

    fn carry_out(
        &mut self,
        session: &mut Session,
        tls: &PublicKey,
        input: Input,
        said: &mut Vec<FromServer>,
    ) {
        let mut outputs = VecDeque::from(session.handle(Millis(1), input));
        while let Some(output) = outputs.pop_front() {
            let answer = match output {
                Output::Open(device, hello) => {
                    let space = hello.space;
                    Some(Input::Opened(
                        space,
                        log::open(&self.reader, &self.rosters, &device, tls, &hello).unwrap(),
                    ))
                }
                Output::Append { space, stream, envelopes, refill } => {
                    assert!(
                        self.committer
                            .offer((), space, Offer::Envelopes { stream, envelopes, refill })
                            .is_none()
                    );
                    None
                }
                Output::AppendRoster(space, entries) => {
                    assert!(self.committer.offer((), space, Offer::Roster(entries)).is_none());
                    None
                }
                Output::Read { space, stream, after, own } => {
                    let run =
                        self.reader.read(&space, &stream, after, wire::CATCH_UP_BYTES_MAX, own.as_ref());
                    Some(Input::Run(run.unwrap().expect("it is there")))
                }
                Output::Send(frame) => {
                    let drained = matches!(frame, FromServer::Entries(_));
                    said.push(frame);
                    drained.then_some(Input::Drained)
                }
                Output::Attest(attest) => {
                    said.push(self.attested(attest));
                    None
                }
                Output::Bear { .. } | Output::Close => panic!("nothing is wrong here"),
            };
            if let Some(answer) = answer {
                outputs.extend(session.handle(Millis(1), answer));
            }
        }
    }

    /// Signs, and encodes as a connection would before it writes.
    fn attested(&self, attest: Attest) -> FromServer {
        let key = &self.means.0;
        let frame = match attest {
            Attest::CaughtUp(heads) => {
                let signed = heads.iter().map(|heads| SignedHeads::sign(heads, |message| key.sign(message)));
                FromServer::CaughtUp(signed.collect())
            }
            Attest::Acked(envelopes, heads) => FromServer::Acked(Acked {
                envelopes,
                head: SignedHeads::sign(&heads, |message| key.sign(message)),
            }),
        };
        std::hint::black_box(wire::encode_frame(&frame));
        frame
    }
}

/// How many envelopes an answer says are durable.
fn taken(answer: &Input) -> usize {
    match answer {
        Input::Committed { outcomes, .. } => {
            outcomes.iter().filter(|outcome| matches!(outcome, session::Appended::At(_))).count()
        }
        _ => 0,
    }
}
