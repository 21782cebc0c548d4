//! The group committer: judges what is to be appended, in order, and commits in groups.
//!
//! A synchronous state machine without threads, clock or storage of its own: [`Committer::offer`] takes
//! what sessions want appended, [`Committer::next_group`] judges what waits and says what to write,
//! [`Committer::done`] hears what became of it and releases the answers. Everything offered while one
//! group is being written goes into the next, so one fsync serves as many devices as there are.
//!
//! Nobody hears anything of a group before it is durable: neither its author nor those who follow.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use ebb_protocol::{
    envelope::Envelope,
    id::{DeviceId, Hash, LogId, Millis, Seq, SpaceId, StreamId},
    roster::{EntryWithWraps, Roster, VerifiedEntry},
    session::{Appended, Input},
    verify::{Signed, Verified},
    wire::{self, Head, LogBorn, Refusal, SignedHeads, SignedLogBorn},
};

use crate::{
    log::{LogError, Reader, Rosters, SpaceWrites},
    recent::Recent,
};

mod allowance;
mod space;

use allowance::Foundings;
pub use allowance::{Allowance, REFILL_FACTOR};
use space::Space;

/// Bytes that wait for one space: a device that floods its space waits, and holds no other up.
pub const SPACE_QUEUE_BYTES_MAX: usize = 8 << 20;
/// Bytes of one space in one group, so that a flooded space takes its turns with the others.
pub const SPACE_GROUP_BYTES_MAX: usize = 1 << 20;
/// Bytes of a group: some 50 ms of writing on a slow disk, so that an acknowledgement never waits long.
pub const GROUP_BYTES_MAX: usize = 8 << 20;
/// What a device waits when its space's queue is full: some 8 groups.
pub const QUEUE_RETRY_MS: u32 = 1_000;
/// What an offer weighs beside what it carries, so that empty ones are not free.
const OFFER_BYTES: usize = 256;
/// Spaces whose state is kept between groups: at some 20 KiB each, 40 MiB.
const SPACES_MAX: usize = 2048;

/// What a session wants done to a space.
#[derive(Debug)]
pub enum Offer {
    /// Append roster entries, in order, as far as they follow on the head.
    Roster(Vec<VerifiedEntry>),
    /// Append envelopes to a stream, in order.
    Envelopes {
        /// The stream.
        stream: StreamId,
        /// The envelopes.
        envelopes: Vec<Verified<Envelope>>,
        /// Given back after a loss.
        refill: bool,
    },
    /// Start a new log if the evidence (heads that this server signed) contradicts the present one.
    Bear {
        /// The log that the evidence is of.
        old: LogId,
        /// The signed heads; the signatures were checked.
        evidence: Vec<SignedHeads>,
        /// Where both logs agree.
        common: Vec<Head>,
    },
}

impl Offer {
    /// What it weighs in queues, in bytes: as much as it took to send it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        OFFER_BYTES
            + match self {
                Self::Roster(entries) => {
                    entries.iter().map(|entry| OFFER_BYTES + wire::encode(&entry.to_wire()).len()).sum()
                }
                Self::Envelopes { envelopes, .. } => {
                    envelopes.iter().map(|envelope| envelope.as_bytes().len()).sum()
                }
                Self::Bear { evidence, common, .. } => {
                    let signed: usize = evidence.iter().map(|signed| signed.body().len()).sum();
                    signed + common.len() * size_of::<Head>()
                }
            }
    }
}

/// What is to be told, in order.
#[derive(Debug)]
pub enum Effect<T> {
    /// The answer to an offer.
    Reply(T, Answer),
    /// Everybody who follows the space is told.
    Notice(SpaceId, Notice),
}

/// The answer to an offer.
#[derive(Debug)]
pub enum Answer {
    /// What the session is told.
    Input(Input),
    /// Not even the present state is known: the connection ends and the device comes back.
    Unavailable,
}

/// What happened to a space.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A stream grew up to this head.
    Grew(LogId, Head),
    /// The roster grew.
    RosterGrew {
        /// The log.
        log_id: LogId,
        /// The roster as it now stands.
        roster: Arc<Roster>,
        /// What was added.
        entries: Arc<Vec<EntryWithWraps>>,
    },
    /// A new log began.
    Born(SignedLogBorn),
}

/// What the committer needs from outside to start a log.
pub trait Means {
    /// A fresh random id.
    fn log_id(&mut self) -> LogId;

    /// Signs the birth of a log.
    fn sign_born(&mut self, born: &LogBorn) -> SignedLogBorn;
}

/// The state machine; `T` names who offered something and gets the answer.
#[derive(Debug)]
pub struct Committer<T> {
    rosters: Arc<Rosters>,
    allowance: Allowance,
    foundings: Foundings,
    queues: BTreeMap<SpaceId, Queue<T>>,
    /// Spaces with something in their queue, whose turn it is first.
    turns: VecDeque<SpaceId>,
    spaces: Recent<SpaceId, Space>,
    group: Vec<Part<T>>,
}

#[derive(Debug)]
struct Queue<T> {
    /// With what each weighs.
    offers: VecDeque<(T, Offer, usize)>,
    bytes: usize,
}

/// One space's part of the group that is being written.
#[derive(Debug)]
struct Part<T> {
    space: SpaceId,
    /// The place among the writes; none if there is nothing to write.
    write: Option<usize>,
    /// Released once the part is durable.
    effects: Vec<Effect<T>>,
    /// Released instead if it is not.
    losses: Vec<(T, Loss)>,
}

/// What an offer asked for, as far as a refusal has to name it.
#[derive(Debug)]
enum Loss {
    Roster(Option<Hash>),
    Envelopes(StreamId, Vec<(DeviceId, Seq)>),
    Bear,
}

impl Loss {
    fn of(offer: &Offer) -> Self {
        match offer {
            Offer::Roster(entries) => Self::Roster(entries.first().map(VerifiedEntry::hash)),
            Offer::Envelopes { stream, envelopes, .. } => {
                let named =
                    envelopes.iter().map(|envelope| (envelope.header().author, envelope.header().seq));
                Self::Envelopes(*stream, named.collect())
            }
            Offer::Bear { .. } => Self::Bear,
        }
    }
}

impl<T: Clone> Committer<T> {
    /// A committer of a log of which nothing is known yet.
    #[must_use]
    pub fn new(rosters: Arc<Rosters>, allowance: Allowance) -> Self {
        Self {
            rosters,
            allowance,
            foundings: Foundings::new(0),
            queues: BTreeMap::new(),
            turns: VecDeque::new(),
            spaces: Recent::new(SPACES_MAX),
            group: Vec::new(),
        }
    }

    /// Lets so many spaces be founded a minute; without, and with 0, any number.
    #[must_use]
    pub fn with_foundings(self, per_minute: u32) -> Self {
        Self { foundings: Foundings::new(per_minute), ..self }
    }

    /// Takes an offer; answers at once only if the space's queue is full.
    pub fn offer(&mut self, from: T, space: SpaceId, offer: Offer) -> Option<Effect<T>> {
        let bytes = offer.bytes();
        let queue = self.queues.entry(space).or_insert_with(|| Queue { offers: VecDeque::new(), bytes: 0 });
        if queue.bytes + bytes > SPACE_QUEUE_BYTES_MAX {
            // Of a roster one could only say how it stands, which is not known here: its pusher comes back.
            let loss = Loss::of(&offer);
            return Some(Effect::Reply(from, refuse_envelopes(space, loss, Refusal::Quota(QUEUE_RETRY_MS))));
        }
        if queue.offers.is_empty() {
            self.turns.push_back(space);
        }
        queue.bytes += bytes;
        queue.offers.push_back((from, offer, bytes));
        None
    }

    /// Whether anything waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.turns.is_empty()
    }

    /// Judges what waits, as much as fits a group, and says what to write (perhaps nothing).
    ///
    /// # Panics
    /// If the group before was not reported [`done`](Self::done).
    pub fn next_group(
        &mut self,
        reader: &impl Reader,
        now: Millis,
        means: &mut impl Means,
    ) -> Vec<SpaceWrites> {
        assert!(self.group.is_empty(), "one group at a time");
        let mut writes = Vec::new();
        let mut bytes = 0;
        for _ in 0..self.turns.len() {
            let Some(id) = self.turns.pop_front() else { break };
            let offers = self.take_turn(&id, &mut bytes);
            let part = self.judge(reader, now, means, id, offers, &mut writes);
            self.group.push(part);
            if bytes >= GROUP_BYTES_MAX {
                break;
            }
        }
        writes
    }

    /// Hears what became of the group's writes, and says whom to tell what.
    pub fn done(
        &mut self,
        reader: &impl Reader,
        result: Result<Vec<Result<(), LogError>>, LogError>,
    ) -> Vec<Effect<T>> {
        let mut effects = Vec::new();
        for part in std::mem::take(&mut self.group) {
            let durable = match (part.write, &result) {
                (None, _) => true,
                (Some(place), Ok(outcomes)) => outcomes.get(place).is_some_and(Result::is_ok),
                (Some(_), Err(_)) => false,
            };
            if durable {
                if let Some(space) = self.spaces.get(&part.space) {
                    space.settle();
                    self.rosters.keep(space.roster());
                }
                effects.extend(part.effects);
            } else {
                self.lose(reader, part.space, part.losses, &mut effects);
            }
        }
        self.spaces.forget();
        effects
    }

    /// A space's next offers, in order, as much as is its share of a group.
    fn take_turn(&mut self, id: &SpaceId, group_bytes: &mut usize) -> Vec<(T, Offer)> {
        let queue = self.queues.get_mut(id).expect("a space whose turn it is has a queue");
        let mut taken = Vec::new();
        let mut share = 0;
        while share < SPACE_GROUP_BYTES_MAX
            && let Some((from, offer, bytes)) = queue.offers.pop_front()
        {
            share += bytes;
            taken.push((from, offer));
        }
        queue.bytes -= share;
        *group_bytes += share;
        if queue.offers.is_empty() {
            self.queues.remove(id);
        } else {
            self.turns.push_back(*id);
        }
        taken
    }

    fn judge(
        &mut self,
        reader: &impl Reader,
        now: Millis,
        means: &mut impl Means,
        id: SpaceId,
        offers: Vec<(T, Offer)>,
        writes: &mut Vec<SpaceWrites>,
    ) -> Part<T> {
        let mut part = Part { space: id, write: None, effects: Vec::new(), losses: Vec::new() };
        part.losses = offers.iter().map(|(from, offer)| (from.clone(), Loss::of(offer))).collect();
        if self.spaces.get(&id).is_none() {
            match Space::load(reader, &self.rosters, id) {
                Ok(space) => self.spaces.hold(id, space),
                Err(error) => {
                    tracing::warn!(space = %id, %error, "a space could not be read");
                    let losses = std::mem::take(&mut part.losses);
                    self.lose(reader, id, losses, &mut part.effects);
                    return part;
                }
            }
        }
        let space = self.spaces.get(&id).expect("just loaded");
        let mut write = SpaceWrites { space: id, begins: None, entries: Vec::new(), envelopes: Vec::new() };
        for (from, offer) in offers {
            let judged = match offer {
                Offer::Roster(entries) => {
                    Ok(space.append_entries(entries, now, &mut self.foundings, means, &mut write))
                }
                Offer::Envelopes { stream, envelopes, refill } => {
                    space.append(reader, now, &self.allowance, stream, envelopes, refill, &mut write)
                }
                Offer::Bear { old, evidence, common } => {
                    space.bear(reader, means, old, evidence, common, &mut write)
                }
            };
            match judged {
                Ok(judged) => {
                    part.effects.extend(judged.before.map(|notice| Effect::Notice(id, notice)));
                    part.effects.push(Effect::Reply(from, Answer::Input(judged.reply)));
                    part.effects.extend(judged.after.map(|notice| Effect::Notice(id, notice)));
                }
                Err(error) => {
                    // What was judged in this part builds on what could not be read: all of it goes.
                    tracing::warn!(space = %id, %error, "a space could not be read");
                    let losses = std::mem::take(&mut part.losses);
                    part.effects.clear();
                    self.lose(reader, id, losses, &mut part.effects);
                    return part;
                }
            }
        }
        if write.begins.is_some() || !write.entries.is_empty() || !write.envelopes.is_empty() {
            part.write = Some(writes.len());
            writes.push(write);
        }
        part
    }

    /// Drops what was believed of a space and refuses everything that its part asked for.
    fn lose(
        &mut self,
        reader: &impl Reader,
        id: SpaceId,
        losses: Vec<(T, Loss)>,
        effects: &mut Vec<Effect<T>>,
    ) {
        self.spaces.remove(&id);
        let stands = Space::load(reader, &self.rosters, id).ok();
        for (from, loss) in losses {
            let answer = match (loss, &stands) {
                (Loss::Roster(Some(first)), Some(space)) => {
                    let state = space.state();
                    let refused = Some((first, Refusal::Unavailable));
                    Answer::Input(Input::RosterCommitted { space: id, state, refused })
                }
                (loss @ Loss::Envelopes(..), _) => refuse_envelopes(id, loss, Refusal::Unavailable),
                (Loss::Roster(_) | Loss::Bear, _) => Answer::Unavailable,
            };
            effects.push(Effect::Reply(from, answer));
        }
    }
}

/// Refuses every envelope that an offer named; whoever offered something else is sent away.
fn refuse_envelopes(space: SpaceId, loss: Loss, reason: Refusal) -> Answer {
    let Loss::Envelopes(stream, named) = loss else { return Answer::Unavailable };
    let outcomes = named.into_iter().map(|(author, seq)| Appended::Refused(author, seq, reason)).collect();
    Answer::Input(Input::Committed { space, stream, outcomes, head: None })
}

#[cfg(test)]
mod tests;
