//! What pushing costs. `cargo test --release -p ebb-sync-server measure -- --ignored --nocapture`

use std::path::Path;

use ebb_protocol::session::Appended;

use super::*;
use crate::{
    log::sqlite::{Options, SqliteLog},
    testing::{Patient, STREAM},
};

const FREE: Allowance = Allowance { envelopes_per_minute: 0, envelopes_burst: 0, bytes_per_day: 0 };

/// CPU time of this thread so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

/// What was offered to a storage without threads.
pub(crate) struct Unserved(Receiver<(Address, SpaceId, Offer)>);

impl Storage {
    /// A storage that does nothing until a test does it.
    pub(crate) fn unserved() -> (Self, Unserved) {
        let (offers, offered) = mpsc::channel();
        let (asks, _) = mpsc::channel();
        let (offered_bytes, writable) = (Arc::default(), Arc::new(AtomicBool::new(true)));
        (Self { offers, asks, offered_bytes, writable }, Unserved(offered))
    }
}

impl Unserved {
    /// Answers the oldest offer of envelopes: nothing of it was taken, nothing refused.
    pub(crate) fn answer_one(&self) {
        let (address, space, offer) = self.0.try_recv().unwrap();
        let Offer::Envelopes { stream, .. } = offer else { panic!("{offer:?}") };
        let committed = Input::Committed { space, stream, outcomes: Vec::new(), head: None };
        address.inbox.answer(Answer::Input(committed), address.bytes);
    }
}

struct Bench {
    log: SqliteLog,
    committer: Committer<()>,
    means: Server,
}

impl Bench {
    fn open(path: &Path) -> Self {
        let log = SqliteLog::open(path, Options::default()).unwrap();
        let committer = Committer::new(Arc::default(), FREE);
        Self { log, committer, means: Server(SigningKey::from_seed(&[1; 32])) }
    }

    fn commit(&mut self, patient: &Patient, offer: Offer) {
        self.committer.offer((), patient.space, offer);
        let group = self.committer.next_group(&self.log, Millis(1), &mut self.means);
        let result = self.log.commit(&group);
        for effect in self.committer.done(&self.log, result) {
            if let Effect::Reply((), Answer::Input(Input::Committed { outcomes, .. })) = effect {
                assert!(outcomes.iter().all(|outcome| matches!(outcome, Appended::At(_))));
            }
        }
    }
}

/// CPU of the first push into a log of so many envelopes, right after the file was opened.
fn cold_push(folder: &Path, envelopes: usize) -> Duration {
    let path = folder.join(format!("{envelopes}.sqlite"));
    let mut patient = Patient::new(1);
    let mut bench = Bench::open(&path);
    bench.commit(&patient, Offer::Roster(patient.verified_entries()));
    for _ in 0..envelopes.div_ceil(500) {
        let envelopes = patient.write_many(500.min(envelopes));
        bench.commit(&patient, Offer::Envelopes { stream: STREAM, envelopes, refill: false });
    }
    drop(bench);
    let mut took = Vec::new();
    for _ in 0..31 {
        let mut bench = Bench::open(&path);
        let envelopes = vec![patient.write(300)];
        let before = cpu();
        bench.commit(&patient, Offer::Envelopes { stream: STREAM, envelopes, refill: false });
        took.push(cpu() - before);
    }
    took.sort();
    took[took.len() / 2]
}

#[test]
#[ignore = "measures"]
fn measure_a_cold_push_into_a_short_and_a_long_log() {
    let folder = tempfile::tempdir().unwrap();
    let (short, long) = (cold_push(folder.path(), 100), cold_push(folder.path(), 100_000));
    eprintln!("cold push: {short:?} into 100, {long:?} into 100,000 envelopes");
    assert!(long.as_secs_f64() <= 1.2 * short.as_secs_f64() + 0.0001);
}

#[test]
#[ignore = "measures"]
fn measure_groups_under_64_writers() {
    let folder = tempfile::tempdir().unwrap();
    let (writers, each) = (64, 200);
    let metrics = Arc::<Metrics>::default();
    let hub = Arc::<Hub>::default();
    let (storage, threads) = Storage::start(Setup {
        log: SqliteLog::open(&folder.path().join("log.sqlite"), Options::default()).unwrap(),
        readers: 1,
        allowance: FREE,
        foundings_per_minute: 0,
        heads_key: SigningKey::from_seed(&[1; 32]),
        clock: Clock::system(),
        hub: hub.clone(),
        metrics: metrics.clone(),
    })
    .unwrap();
    let patients: Vec<_> = (0..writers)
        .map(|seed| {
            let mut patient = Patient::new(seed);
            let envelopes = patient.write_many(each);
            (patient, envelopes)
        })
        .collect();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for (patient, envelopes) in &patients {
            let (storage, hub) = (&storage, &hub);
            scope.spawn(move || {
                let inbox = hub.inbox();
                let wait = || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    while inbox.next().is_none() {
                        runtime.block_on(inbox.ready());
                    }
                };
                storage.offer(patient.space, Offer::Roster(patient.verified_entries()), &inbox).unwrap();
                wait();
                for envelope in envelopes {
                    let offer =
                        Offer::Envelopes { stream: STREAM, envelopes: vec![envelope.clone()], refill: false };
                    storage.offer(patient.space, offer, &inbox).unwrap();
                    wait();
                }
            });
        }
    });
    let took = started.elapsed();
    drop(storage);
    threads.join();
    let (appended, commits) = (metrics.appended_count(), metrics.commit_count());
    assert_eq!(appended, u64::from(writers) * each as u64);
    eprintln!(
        "{appended} envelopes in {commits} commits ({:.1} a commit), {:.0} envelopes/s",
        appended as f64 / commits as f64,
        appended as f64 / took.as_secs_f64()
    );
    assert!(appended / commits >= 10);
}
