//! What the committer believes of one space: what is committed, and what the group under way adds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ebb_protocol::{
    envelope::{self, Envelope},
    id::{DeviceId, LogId, Millis, Seq, SpaceId, StreamId},
    judge::{self, Admission, Chain, JudgedAt, Link},
    roster::{Roster, VerifiedEntry},
    session::{Appended, Input},
    verify::Verified,
    wire::{self, AckedEnvelope, Head, LogBorn, Refusal, RosterHead, SignedHeads, SignedLogBorn},
};

use super::{
    Means, Notice,
    allowance::{self, Allowance, Foundings, Purpose, REFILL_FACTOR, Spent},
};
use crate::log::{Begins, LogError, NewEntry, Placed, Reader, Rosters, SpaceWrites, Stored};

/// Sequences of an author that are kept between groups: enough for what it sends again after a lost
/// acknowledgement; older ones are one index lookup away.
const AUTHOR_RECENT_MAX: usize = 8;
/// Entries of a roster: a change of access every day for eleven years. Each costs everybody who opens the
/// space some bytes of memory and time, for ever.
pub(super) const ENTRIES_MAX: u64 = 4_096;
/// Bytes of the evidence that a birth names: what goes with it into a frame is a tenth of that at most.
const BORN_EVIDENCE_BYTES_MAX: usize = 256 << 10;

/// An answer, and what the space's followers are told before and after it.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) before: Option<Notice>,
    pub(super) reply: Input,
    pub(super) after: Option<Notice>,
}

#[derive(Debug)]
pub(super) struct Space {
    id: SpaceId,
    /// `None` where there is no such space.
    log_id: Option<LogId>,
    roster: Arc<Roster>,
    births: Vec<(LogId, SignedLogBorn)>,
    heads: BTreeMap<StreamId, Head>,
    authors: BTreeMap<(StreamId, DeviceId), Author>,
    spent: BTreeMap<(DeviceId, Purpose), Spent>,
}

/// An author's chain in one stream.
#[derive(Debug)]
struct Author {
    last: Seq,
    /// From this sequence on, `recent` is all that there is; below, it only adds to what is committed.
    complete_from: Seq,
    recent: Vec<(Seq, Stored)>,
}

impl Author {
    fn forget_surplus(&mut self) {
        if let Some(surplus) = self.recent.len().checked_sub(AUTHOR_RECENT_MAX) {
            self.recent.sort_by_key(|(seq, _)| *seq);
            self.recent.drain(..surplus);
            // The lowest left may have lost an envelope of another epoch; the one above it has not. What was never
            // known here is no more known now.
            let lowest = self.recent.first().map_or(self.last, |(seq, _)| *seq);
            self.complete_from = self.complete_from.max(lowest.next());
        }
    }
}

impl Space {
    pub(super) fn load(reader: &impl Reader, rosters: &Rosters, id: SpaceId) -> Result<Self, LogError> {
        reader.frozen(|reader| {
            let births = reader.births(&id)?.into_iter().map(|signed| match signed.content() {
                Ok(born) => Ok((born.old, signed)),
                Err(error) => Err(LogError::Damaged(error.to_string())),
            });
            Ok(Self {
                id,
                log_id: reader.log_id(&id)?,
                roster: rosters.load(reader, &id)?,
                births: births.collect::<Result<_, _>>()?,
                heads: BTreeMap::new(),
                authors: BTreeMap::new(),
                spent: BTreeMap::new(),
            })
        })
    }

    pub(super) fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// What a session is told of the space as it stands.
    pub(super) fn state(&self) -> Option<(LogId, Arc<Roster>)> {
        self.log_id.map(|log_id| (log_id, self.roster.clone()))
    }

    /// What was judged has become durable: what is rarely asked for again is forgotten.
    pub(super) fn settle(&mut self) {
        self.authors.values_mut().for_each(Author::forget_surplus);
    }

    pub(super) fn append_entries(
        &mut self,
        entries: Vec<VerifiedEntry>,
        now: Millis,
        foundings: &mut Foundings,
        means: &mut impl Means,
        write: &mut SpaceWrites,
    ) -> Judged {
        let mut refused = None;
        let mut added = Vec::new();
        for entry in entries {
            let hash = entry.hash();
            if self.roster.place(&hash).is_some() {
                continue;
            }
            let prev = entry.entry().prev;
            if prev != self.roster.prev() || entry.entry().space != self.id {
                let common = self.roster.place(&prev);
                let common = common.map(|seq| RosterHead { space: self.id, seq, hash: prev });
                refused = Some((hash, Refusal::HeadMoved(common)));
                break;
            }
            let travelling = entry.to_wire();
            let bytes = wire::encode(&travelling).len();
            if let Err(reason) = self.may_add(entry.entry().author, now, bytes, foundings) {
                refused = Some((hash, reason));
                break;
            }
            if self.log_id.is_none() {
                let log_id = means.log_id();
                self.log_id = Some(log_id);
                write.begins = Some(Begins::First(log_id));
            }
            Arc::make_mut(&mut self.roster).apply(&entry);
            added.push(travelling.clone());
            write.entries.push(NewEntry { seq: entry.entry().seq, hash, entry: travelling });
        }
        let after = self.log_id.filter(|_| !added.is_empty()).map(|log_id| Notice::RosterGrew {
            log_id,
            roster: self.roster.clone(),
            entries: Arc::new(added),
        });
        let reply = Input::RosterCommitted { space: self.id, state: self.state(), refused };
        Judged { before: None, reply, after }
    }

    /// Whether the roster takes one more entry of this author, of so many bytes.
    fn may_add(
        &mut self,
        author: DeviceId,
        now: Millis,
        bytes: usize,
        foundings: &mut Foundings,
    ) -> Result<(), Refusal> {
        if self.roster.next_seq().0 >= ENTRIES_MAX {
            // Waiting would not help: somebody has to be told.
            return Err(Refusal::Role);
        }
        self.spend(author, Purpose::Roster, now, &allowance::ROSTER, bytes)?;
        match self.log_id {
            Some(_) => Ok(()),
            None => foundings.spend(now).map_err(Refusal::Quota),
        }
    }

    fn spend(
        &mut self,
        device: DeviceId,
        purpose: Purpose,
        now: Millis,
        allowance: &Allowance,
        bytes: usize,
    ) -> Result<(), Refusal> {
        let spent = self.spent.entry((device, purpose)).or_insert_with(|| Spent::nothing(now, allowance));
        spent.spend(now, allowance, bytes).map_err(Refusal::Quota)
    }

    #[allow(clippy::too_many_arguments, reason = "each is another part of one judgement")]
    pub(super) fn append(
        &mut self,
        reader: &impl Reader,
        now: Millis,
        allowance: &Allowance,
        stream: StreamId,
        envelopes: Vec<Verified<Envelope>>,
        refill: bool,
        write: &mut SpaceWrites,
    ) -> Result<Judged, LogError> {
        let may = !refill || !self.births.is_empty();
        let mut outcomes = Vec::with_capacity(envelopes.len());
        let mut grew = false;
        for envelope in envelopes {
            let (author, seq) = (envelope.header().author, envelope.header().seq);
            let outcome = match may {
                false => Err(Refusal::Role),
                true => self.append_one(reader, now, allowance, envelope, refill, write)?,
            };
            outcomes.push(match outcome {
                Ok((acked, fresh)) => {
                    grew |= fresh;
                    Appended::At(acked)
                }
                Err(reason) => Appended::Refused(author, seq, reason),
            });
        }
        let head = match self.log_id {
            Some(log_id) => Some((log_id, self.head(reader, &stream)?)),
            None => None,
        };
        let before = head.filter(|_| grew).map(|(log_id, head)| Notice::Grew(log_id, head));
        let reply = Input::Committed { space: self.id, stream, outcomes, head };
        Ok(Judged { before, reply, after: None })
    }

    /// Where the envelope stands and whether it is new there, or why it may not.
    fn append_one(
        &mut self,
        reader: &impl Reader,
        now: Millis,
        allowance: &Allowance,
        envelope: Verified<Envelope>,
        refill: bool,
        write: &mut SpaceWrites,
    ) -> Result<Result<(AckedEnvelope, bool), Refusal>, LogError> {
        let header = *envelope.header();
        let (author, stream, seq) = (header.author, header.stream, header.seq);
        if self.roster.epoch(&stream).is_none() {
            // What the judge would say; nothing is remembered for streams that anybody can make up.
            let known = self.roster.place(&header.roster_head).is_some();
            return Ok(Err(if known { Refusal::Role } else { Refusal::UnknownHead }));
        }
        self.know_author(reader, stream, author)?;
        let chain = Known { reader, space: &self.id, authors: &self.authors };
        let judged_at = if refill { JudgedAt::Named } else { JudgedAt::Current };
        match judge::admit(&self.roster, &chain, &envelope, judged_at)? {
            Admission::Refused(reason) => return Ok(Err(reason)),
            Admission::Duplicate => {
                let hash = envelope.hash();
                let same = chain.stored(&author, &stream, seq)?;
                let position = same.iter().find(|stored| stored.link.hash == hash).map(|at| at.position);
                let position = position.expect("the judge found it at this very sequence");
                return Ok(Ok((AckedEnvelope { hash, position }, false)));
            }
            Admission::Fresh => {}
        }
        if refill && !self.may_be_lost(&chain, &envelope)? {
            return Ok(Err(Refusal::Role));
        }
        let bytes = envelope.as_bytes().len();
        let spent = match refill {
            false => self.spend(author, Purpose::Envelopes, now, allowance, bytes),
            true => self.spend(author, Purpose::Refill, now, &allowance.times(REFILL_FACTOR), bytes),
        };
        if let Err(reason) = spent {
            return Ok(Err(reason));
        }
        let link = Link::of(&envelope);
        let before = self.head(reader, &stream)?;
        let chain = envelope::chain_next(&before.chain, &link.hash);
        let head = Head { stream, position: before.position.next(), chain };
        self.heads.insert(stream, head);
        let known = self.authors.get_mut(&(stream, author)).expect("made known above");
        known.recent.push((seq, Stored { position: head.position, link }));
        known.last = known.last.max(seq);
        write.envelopes.push(Placed { head, received_ms: now, hash: link.hash, envelope });
        Ok(Ok((AckedEnvelope { hash: link.hash, position: head.position }, true)))
    }

    /// Whether an envelope that is new here may have stood in a log that ended: its author did not know the
    /// present log when sealing it, nor when sealing the one before. Names of earlier logs are not looked
    /// up: a server restored to before the birth of a log never knew that one.
    fn may_be_lost(
        &self,
        chain: &Known<'_, impl Reader>,
        envelope: &Verified<Envelope>,
    ) -> Result<bool, LogError> {
        let header = envelope.header();
        let named = |log_id: &LogId| self.log_id == Some(*log_id);
        if named(&header.log_id) || header.seq == Seq(1) {
            return Ok(!named(&header.log_id));
        }
        let before = chain.at(&header.author, &header.stream, Seq(header.seq.0 - 1))?;
        Ok(!before.iter().any(|link| link.hash == header.prev && named(&link.log_id)))
    }

    pub(super) fn bear(
        &mut self,
        reader: &impl Reader,
        means: &mut impl Means,
        old: LogId,
        evidence: Vec<SignedHeads>,
        common: Vec<Head>,
        write: &mut SpaceWrites,
    ) -> Result<Judged, LogError> {
        let answer = |born| Judged { before: None, reply: Input::Born(self.id, born), after: None };
        if let Some((_, born)) = self.births.iter().find(|(ended, _)| *ended == old) {
            // Somebody else convinced the server before.
            return Ok(answer(Some(born.clone())));
        }
        let evidence = self.contradicting(reader, &old, evidence)?;
        if evidence.is_empty() {
            return Ok(answer(None));
        }
        let common = self.highest_common(reader, common)?;
        let new = means.log_id();
        let born = LogBorn { space: self.id, old, new, evidence, common };
        let signed = means.sign_born(&born);
        tracing::warn!(space = %self.id, %old, %new, "data was lost here: a new log begins");
        let judged = Judged {
            before: None,
            reply: Input::Born(self.id, Some(signed.clone())),
            after: Some(Notice::Born(signed.clone())),
        };
        write.begins = Some(Begins::Again(new, signed.clone()));
        self.log_id = Some(new);
        self.births.push((old, signed));
        Ok(judged)
    }

    /// Of heads that this server signed, those that cannot be of the log that it has: one for each stream,
    /// as many as fit.
    fn contradicting(
        &self,
        reader: &impl Reader,
        old: &LogId,
        evidence: Vec<SignedHeads>,
    ) -> Result<Vec<SignedHeads>, LogError> {
        // Heads of a log of which it knows neither the present nor the end contradict it whatever they say.
        let unknown = self.log_id != Some(*old);
        let (mut kept, mut streams, mut bytes) = (Vec::new(), BTreeSet::new(), 0);
        for signed in evidence {
            let Ok(heads) = signed.content() else { continue };
            let mut news = BTreeSet::new();
            for head in heads.heads.iter().filter(|head| !streams.contains(&head.stream)) {
                if unknown || reader.chain(&self.id, &head.stream, head.position)? != Some(head.chain) {
                    news.insert(head.stream);
                }
            }
            let len = wire::encode(&signed).len();
            let counts = !news.is_empty() || (unknown && kept.is_empty());
            if counts && bytes + len <= BORN_EVIDENCE_BYTES_MAX {
                streams.extend(news);
                bytes += len;
                kept.push(signed);
            }
        }
        Ok(kept)
    }

    /// Of the places where both logs are said to agree, the highest of each stream at which they do.
    fn highest_common(&self, reader: &impl Reader, mut claimed: Vec<Head>) -> Result<Vec<Head>, LogError> {
        claimed.sort_by_key(|head| (head.stream, std::cmp::Reverse(head.position)));
        let mut common: Vec<Head> = Vec::new();
        for head in claimed.into_iter().filter(|head| self.roster.epoch(&head.stream).is_some()) {
            let known = common.last().is_some_and(|last| last.stream == head.stream);
            if !known && reader.chain(&self.id, &head.stream, head.position)? == Some(head.chain) {
                common.push(head);
            }
        }
        Ok(common)
    }

    fn head(&mut self, reader: &impl Reader, stream: &StreamId) -> Result<Head, LogError> {
        if let Some(head) = self.heads.get(stream) {
            return Ok(*head);
        }
        let head = reader.head(&self.id, stream)?;
        // Streams that the roster does not know are looked up each time: they take no memory.
        if self.roster.epoch(stream).is_some() {
            self.heads.insert(*stream, head);
        }
        Ok(head)
    }

    fn know_author(
        &mut self,
        reader: &impl Reader,
        stream: StreamId,
        author: DeviceId,
    ) -> Result<(), LogError> {
        if self.authors.contains_key(&(stream, author)) {
            return Ok(());
        }
        let (last, newest) = match reader.last(&self.id, &stream, &author)? {
            Some((last, _)) => (last, reader.at(&self.id, &stream, &author, last)?),
            None => (Seq(0), Vec::new()),
        };
        let recent = newest.into_iter().map(|stored| (last, stored)).collect();
        let known = Author { last, complete_from: last, recent };
        self.authors.insert((stream, author), known);
        Ok(())
    }
}

/// The authors' chains: what the group adds, before what is committed.
struct Known<'a, R> {
    reader: &'a R,
    space: &'a SpaceId,
    authors: &'a BTreeMap<(StreamId, DeviceId), Author>,
}

impl<R: Reader> Known<'_, R> {
    fn stored(&self, author: &DeviceId, stream: &StreamId, seq: Seq) -> Result<Vec<Stored>, LogError> {
        let known = self.authors.get(&(*stream, *author)).expect("authors are made known before judging");
        let recent = known.recent.iter().filter(|(at, _)| *at == seq).map(|(_, stored)| *stored);
        if seq >= known.complete_from {
            return Ok(recent.collect());
        }
        let mut stored = self.reader.at(self.space, stream, author, seq)?;
        for added in recent {
            if !stored.iter().any(|other| other.link.hash == added.link.hash) {
                stored.push(added);
            }
        }
        Ok(stored)
    }
}

impl<R: Reader> Chain for Known<'_, R> {
    type Error = LogError;

    fn at(&self, author: &DeviceId, stream: &StreamId, seq: Seq) -> Result<Vec<Link>, LogError> {
        Ok(self.stored(author, stream, seq)?.into_iter().map(|stored| stored.link).collect())
    }

    fn last(&self, author: &DeviceId, stream: &StreamId) -> Result<Seq, LogError> {
        Ok(self.authors.get(&(*stream, *author)).map_or(Seq(0), |known| known.last))
    }
}

#[cfg(test)]
mod tests {
    use ebb_protocol::id::{Epoch, Hash, Position};

    use super::*;

    #[test]
    fn what_is_known_of_an_author_does_not_grow_by_forgetting() {
        let stored = |seq: u64, epoch: u32| {
            let (hash, epoch) = (Hash([seq as u8; 32]), Epoch(epoch));
            let (roster_head, log_id, seen_pos) = (Hash::ZERO, LogId::ZERO, Position(0));
            let link = Link { hash, epoch, roster_head, log_id, seen_pos };
            (Seq(seq), Stored { position: Position(seq), link })
        };
        // Only its last envelope was read; then what it wrote under an older epoch was given back.
        let mut author = Author { last: Seq(20), complete_from: Seq(20), recent: vec![stored(20, 2)] };
        author.recent.extend((1..=20).map(|seq| stored(seq, 1)));
        author.forget_surplus();
        assert_eq!((author.recent.len(), author.complete_from), (AUTHOR_RECENT_MAX, Seq(20)));
        // One that was followed from its beginning is known as far as is remembered.
        let mut author = Author { last: Seq(20), complete_from: Seq(0), recent: Vec::new() };
        author.recent.extend((1..=20).map(|seq| stored(seq, 1)));
        author.forget_surplus();
        let lowest = author.recent[0].0;
        assert_eq!(author.complete_from, lowest.next());
    }
}
