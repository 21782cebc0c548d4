//! Everything that can happen to a small clinic, and lists of it made from a seed.
//!
//! A scenario is data: it can be printed, cut down to what a failure needs, and kept. What an event refers to
//! is chosen when it happens (the third record that the device lists, say), and an event that means nothing
//! then (an edit where there is no record) does nothing, so that any part of a scenario is one too.

use serde::{Deserialize, Serialize};

use crate::disk::medium::Random;

/// Who takes part: two patients, one with two phones; a desk that follows both; the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Who {
    /// The first patient's phone, which founded the space.
    Phone,
    /// The first patient's second phone, which joins when it was added.
    Second,
    /// The second patient's phone.
    Other,
    /// The clinic's desk.
    Desk,
}

impl Who {
    /// Everybody, in the order of [`Who::index`].
    pub const ALL: [Self; 4] = [Self::Phone, Self::Second, Self::Other, Self::Desk];

    /// A place in lists.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Where a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Host {
    /// In a device.
    Device(Who),
    /// In the server.
    Server,
}

/// What a network does with UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Udp {
    /// It passes.
    Passes,
    /// It is swallowed.
    Swallowed,
    /// A handshake passes, and what follows is swallowed.
    Strangled,
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A record is logged, of one of the kinds that the device writes.
    Log(Who, u8),
    /// A record that the device lists is written again.
    Edit(Who, u8),
    /// A record that the device lists is retracted.
    Retract(Who, u8),
    /// A retraction is taken back.
    Unretract(Who, u8),
    /// Of a record in conflict, one version is chosen.
    Resolve(Who, u8),
    /// A device's app shows what is due and what was found; a desk's also works on a plan.
    Care(Who, u8),
    /// The first patient adds the second phone.
    AddSecond,
    /// A patient grants the clinic categories (bits, in the order of `Category::ALL`).
    Grant(Who, u16),
    /// A patient starts a new key for a category.
    Rotate(Who, u8),
    /// A device gets a network, so many ms away from the server.
    Online(Who, u16),
    /// A device comes to another network, which its app can tell from others, or not.
    Roam(Who, Udp, bool),
    /// A device's app goes to the background, where it may sync once, for at most so many ms.
    Background(Who, u16),
    /// It comes back to the front, and stays in sync.
    Foreground(Who),
    /// A device's network is gone, and both ends notice.
    Offline(Who),
    /// A connection breaks, and both ends notice.
    Cut(Who),
    /// A connection carries nothing any more, and nobody is told.
    HalfOpen(Who),
    /// A connection breaks for the device; what was under way arrives up to so many ms later.
    Late(Who, u16),
    /// What the device pushed over an earlier connection arrives again over this one.
    Twice(Who),
    /// A device's clock jumps by so many minutes, or the server's.
    Clock(Host, i32),
    /// The power of a host goes off now; it is on again after so many ms.
    Crash(Host, u16),
    /// The same, at the n-th sync of its disk from now.
    CrashAtSync(Host, u8, u16),
    /// The same, when so many more outputs were carried out.
    CrashAtOutput(Host, u8, u16),
    /// Syncs of a host take so many ms, for so many ms.
    SlowDisk(Host, u16, u16),
    /// A host's disk is full for so many ms.
    FullDisk(Host, u16),
    /// The server cannot store what belongs to one of the spaces, for so many ms.
    SpaceFails(u8, u16),
    /// The next so many syncs of a host fail.
    FailSyncs(Host, u8),
    /// The next so many reads of a host fail.
    FailReads(Host, u8),
    /// The server's file is copied.
    Backup,
    /// The server dies, and one of the copies (or nothing, where there is none) is put in its place.
    Restore(u8, u16),
    /// The second phone falls into other hands for a moment: it seals what nobody may take up, of one of
    /// several kinds.
    Mischief(u8),
    /// A device's files are copied.
    Copy(Who),
    /// A device dies, and one of its copies is put in the place of its files.
    PutBack(Who, u8, u16),
    /// A device's app is updated to one that computes its lists anew.
    Upgrade(Who),
}

/// An event and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Virtual milliseconds since the beginning.
    pub at_ms: u64,
    /// What happens then.
    pub event: Event,
}

/// What happens to a world, and the seed of everything that is left open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// What happens, in order of time.
    pub steps: Vec<Step>,
}

/// Events of a scenario: enough to meet each other, few enough for a thousand scenarios in a few minutes.
const EVENTS: usize = 70;
/// Minutes in a year: as far as a clock jumps.
const YEAR_MIN: i32 = 525_600;

impl Scenario {
    /// Makes one from a seed: the same each time.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut steps = Vec::with_capacity(EVENTS);
        let mut at_ms = 1_000;
        // A scenario has its own weather: some are calm but for one thing, some have everything.
        let harsh = random.below(4);
        // A server's files are put back, or a device's: not both, since a rollback of both at once
        // leaves nobody who could tell (book, testing).
        let puts_back = random.below(3) == 0;
        if random.below(4) > 0 {
            // Most people have both phones from the start.
            steps.push(Step { at_ms: 100, event: Event::AddSecond });
        }
        if puts_back {
            steps.extend([Who::Second, Who::Desk].map(|who| Step { at_ms: 900, event: Event::Copy(who) }));
        }
        if random.below(3) == 0 {
            steps.extend(quarrel(&mut random));
        }
        for _ in 0..EVENTS {
            at_ms += match random.below(10) {
                0..3 => 0,
                3..8 => random.below(2_000) as u64,
                8 => random.below(20_000) as u64,
                _ => random.below(90_000) as u64,
            };
            steps.push(Step { at_ms, event: event(&mut random, harsh, puts_back) });
        }
        steps.sort_by_key(|step| step.at_ms);
        Self { seed, steps }
    }
}

/// Both phones write a record again before they hear of each other, and somebody chooses: chance alone brings
/// that once in two hundred scenarios.
fn quarrel(random: &mut Random) -> Vec<Step> {
    let at_ms = 60_000 + random.below(120_000) as u64;
    let (pick, chooser) = (small(random), [Who::Phone, Who::Second][random.below(2)]);
    let mut steps = vec![Step { at_ms: at_ms - 30_000, event: Event::Log(Who::Phone, pick) }];
    steps.extend([Who::Phone, Who::Second].map(|who| Step { at_ms, event: Event::Edit(who, pick) }));
    for later_ms in [random.below(20_000), 40_000 + random.below(40_000)] {
        steps.push(Step { at_ms: at_ms + later_ms as u64, event: Event::Resolve(chooser, small(random)) });
    }
    steps
}

fn event(random: &mut Random, harsh: usize, puts_back: bool) -> Event {
    if random.below(100) < 12 + 12 * harsh {
        return trouble(random, puts_back);
    }
    let who = who(random);
    let pick = small(random);
    match random.below(100) {
        0..42 => Event::Log(who, pick),
        42..48 => Event::Care([Who::Desk, who][random.below(2)], pick),
        48..66 => Event::Edit(who, pick),
        66..69 => Event::Retract(who, pick),
        69 => Event::Unretract(who, pick),
        70..73 => Event::Resolve(who, pick),
        73..77 => Event::AddSecond,
        77..85 => Event::Grant(patient(random), short(random, u16::MAX)),
        85..89 => Event::Rotate(patient(random), pick),
        89..92 => Event::Online(who, short(random, 800)),
        92 => Event::Background(who, short(random, 30_000)),
        93 => Event::Foreground(who),
        94..97 => {
            let udp = [Udp::Passes, Udp::Swallowed, Udp::Strangled][random.below(3)];
            Event::Roam(who, udp, random.coin())
        }
        _ => Event::Offline(who),
    }
}

fn trouble(random: &mut Random, puts_back: bool) -> Event {
    let (who, host) = (who(random), host(random));
    match random.below(100) {
        0..8 => Event::Offline(who),
        8..18 => Event::Cut(who),
        18..26 => Event::HalfOpen(who),
        26..33 => Event::Late(who, short(random, 30_000)),
        33..38 => Event::Twice(who),
        38..44 => {
            let reach = [5, 600, YEAR_MIN][random.below(3)];
            let minutes = i32::try_from(random.below(2 * reach as usize)).unwrap_or(0) - reach;
            Event::Clock(host, minutes)
        }
        44..52 => Event::Crash(host, short(random, 10_000)),
        52..62 => Event::CrashAtSync(host, 1 + small(random) % 12, short(random, 10_000)),
        62..70 => Event::CrashAtOutput(host, small(random) % 12, short(random, 10_000)),
        70..72 => Event::Mischief(small(random)),
        72..75 => Event::SlowDisk(host, short(random, 400), short(random, 20_000)),
        75..79 => Event::FullDisk(host, short(random, 20_000)),
        79 => Event::SpaceFails(small(random), short(random, 20_000)),
        80..85 => Event::FailSyncs(host, 1 + small(random) % 3),
        85..89 => Event::FailReads(host, 1 + small(random) % 3),
        89..93 if puts_back => Event::Copy(copied(random)),
        93..97 if puts_back => Event::PutBack(copied(random), small(random), short(random, 10_000)),
        89..93 => Event::Backup,
        93..97 => Event::Restore(small(random), short(random, 10_000)),
        97..99 => Event::Upgrade(who),
        _ => Event::Mischief(small(random)),
    }
}

fn who(random: &mut Random) -> Who {
    [Who::Phone, Who::Phone, Who::Phone, Who::Second, Who::Second, Who::Other, Who::Desk][random.below(7)]
}

fn patient(random: &mut Random) -> Who {
    [Who::Phone, Who::Phone, Who::Second, Who::Other][random.below(4)]
}

/// Whose files are copied and put back: those of a device that is no space's only witness.
fn copied(random: &mut Random) -> Who {
    if random.coin() { Who::Second } else { Who::Desk }
}

fn host(random: &mut Random) -> Host {
    match random.below(3) {
        0 => Host::Server,
        _ => Host::Device(who(random)),
    }
}

fn small(random: &mut Random) -> u8 {
    u8::try_from(random.below(256)).unwrap_or_default()
}

fn short(random: &mut Random, end: u16) -> u16 {
    u16::try_from(random.below(usize::from(end))).unwrap_or_default()
}
