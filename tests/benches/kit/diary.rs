//! What a person might write down: mixed records over four streams, the same for the same seed.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ebb_core::{
    Clock, Config, Drive, Entry, FileVault, Replica,
    link::ServerAddress,
    record::{Body, CheckIn, Moment, Route, Unit, UseEvent},
};
use ebb_protocol::{
    id::{Millis, SpaceId},
    wire::SignedPins,
};

/// 2024-03-04, 07:12 UTC: when the diary begins.
pub(crate) const BEGAN_MS: u64 = 1_709_536_320_000;
/// A record every 70 minutes on average: 20 a day, 15,000 in two years.
const PACE_MS: u64 = 70 * 60_000;
const OFFSET_MINUTES: i16 = -300;

/// A clock that a bench moves.
#[derive(Clone)]
pub(crate) struct HandClock(Arc<AtomicU64>);

impl HandClock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(BEGAN_MS)))
    }

    pub(crate) fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::Relaxed))
    }

    fn offset_minutes(&self) -> i16 {
        OFFSET_MINUTES
    }
}

/// Writes entries, moving its clock on.
pub(crate) struct Diary {
    random: u64,
    pub(crate) clock: HandClock,
}

const STARTS: [&str; 16] = [
    "Woke up",
    "Felt restless",
    "Slept badly",
    "Better day",
    "Argued with my sister",
    "Long shift",
    "Walked to the river",
    "Back pain again",
    "Missed the bus",
    "Quiet morning",
    "Called my sponsor",
    "Sweating a lot",
    "Hard to concentrate",
    "Ate properly",
    "Ran into an old friend",
    "Nausea",
];
const MIDDLES: [&str; 16] = [
    "around four",
    "after the clinic",
    "before work",
    "most of the night",
    "since yesterday",
    "at lunch",
    "when I got home",
    "on the way to group",
    "in the rain",
    "with the kids",
    "after the dose",
    "for an hour or so",
    "while waiting at the pharmacy",
    "and could not sit still",
    "but it passed",
    "like last week",
];
const ENDS: [&str; 16] = [
    "took it slowly",
    "thought about using but did not",
    "legs would not stop",
    "made soup",
    "no appetite",
    "went to bed early",
    "felt proud of that",
    "chills came and went",
    "want to tell Dr. Amin",
    "cried a bit",
    "breathing exercise helped",
    "watched the game",
    "need a new appointment",
    "the film tasted bitter",
    "hands shaking",
    "will try again tomorrow",
];

impl Diary {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: seed, clock: HandClock::new() }
    }

    /// SplitMix64.
    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.draw(from.len() as u64)).expect("small")]
    }

    /// The next entry: of 20, some 8 doses, 6 check-ins, 3 times 16 withdrawal answers, 3 uses; a quarter
    /// with a note, and a third of them of an earlier moment than they are logged at.
    pub(crate) fn entry(&mut self) -> Entry {
        let pause = PACE_MS / 2 + self.draw(PACE_MS);
        self.clock.advance(pause);
        let mut entry = match self.draw(20) {
            0..8 => {
                let (drug, amount) = self.pick(&[
                    ("buprenorphine/naloxone", 8.0),
                    ("buprenorphine/naloxone", 4.0),
                    ("clonidine", 0.1),
                ]);
                match self.draw(12) {
                    0 => Entry::dose_not_taken(drug, amount, Unit::Mg, Some("forgot")),
                    1 => Entry::dose_not_taken(drug, amount, Unit::Mg, None),
                    _ => Entry::dose(drug, amount, Unit::Mg),
                }
            }
            8..14 => {
                let answer = |diary: &mut Self| Some(u8::try_from(diary.draw(11)).expect("small"));
                let (mood, stress, craving) = (answer(self), answer(self), answer(self));
                let pain = if self.draw(2) == 0 { answer(self) } else { None };
                let sleep_hours = if self.draw(3) == 0 { Some(self.draw(20) as f32 / 2.0) } else { None };
                Entry::check_in(CheckIn { mood, stress, craving, pain, sleep_hours })
            }
            14..17 => {
                let level = self.draw(4);
                let answers: Vec<_> = (1..=16)
                    .map(|item| (item.to_string(), i64::try_from(self.draw(level + 2)).expect("small")))
                    .collect();
                Entry::answers("sows16", answers)
            }
            _ => {
                let substance = self.pick(&["heroin", "fentanyl", "alcohol", "cocaine"]).to_owned();
                let route =
                    self.pick(&[None, Some(Route::Nasal), Some(Route::Injected), Some(Route::Smoked)]);
                let amount =
                    self.pick(&[None, None, Some("half a bag"), Some("two beers")]).map(str::to_owned);
                Entry::new(Body::from(UseEvent { substance, route, amount }))
            }
        };
        if self.draw(4) == 0 {
            let (start, middle, end) = (self.pick(&STARTS), self.pick(&MIDDLES), self.pick(&ENDS));
            entry = entry.note(format!("{start} {middle}, {end}."));
        }
        if self.draw(3) == 0 {
            let now = self.clock.now().0;
            let before = now - now % 60_000 - 60_000 * self.draw(180);
            let millis = i64::try_from(before).expect("this century");
            entry = entry.at(Moment { millis, offset_minutes: OFFSET_MINUTES });
        }
        entry
    }
}

/// A patient's replica that a bench drives by hand, and what the patient writes.
pub(crate) struct Phone {
    pub(crate) replica: Replica,
    pub(crate) space: SpaceId,
    pub(crate) diary: Diary,
}

impl Phone {
    pub(crate) fn open(
        dir: &std::path::Path,
        seed: u64,
        server: Option<(ServerAddress, SignedPins)>,
    ) -> Self {
        let diary = Diary::new(seed);
        let replica = open(dir, &diary.clock, server);
        let space = replica.own().expect("a patient's");
        Self { replica, space, diary }
    }

    /// Logs some entries, and gives them back.
    pub(crate) fn log(&mut self, count: usize) -> Vec<Entry> {
        let entries: Vec<_> = (0..count)
            .map(|_| {
                let entry = self.diary.entry();
                self.replica.log(self.space, &entry).expect("it is valid");
                entry
            })
            .collect();
        entries
    }
}

/// Opens the replica in a folder, making it if there is none.
pub(crate) fn open(
    dir: &std::path::Path,
    clock: &HandClock,
    server: Option<(ServerAddress, SignedPins)>,
) -> Replica {
    std::fs::create_dir_all(dir).expect("a folder");
    let mut config = Config::new(dir.join("replica"));
    if let Some((address, pins)) = server {
        config = config.server(address, pins);
    }
    config.clock = Arc::new(clock.clone());
    config.drive = Drive::Manual;
    Replica::open(config, &FileVault(dir.join("vault"))).expect("the replica opens")
}
