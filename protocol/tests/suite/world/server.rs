//! A server's storage: everything in memory, durable as soon as it is committed.

use super::*;

/// Items in one run of a log: few, so that catching up takes several.
const RUN_ITEMS_MAX: usize = 2;

#[derive(Clone)]
pub(super) struct Stored {
    pub(super) envelope: Verified<Envelope>,
    pub(super) head: Head,
}

#[derive(Clone)]
pub(super) struct Log {
    pub(super) log_id: LogId,
    pub(super) roster: Roster,
    pub(super) entries: Vec<EntryWithWraps>,
    pub(super) streams: BTreeMap<StreamId, Vec<Stored>>,
    pub(super) births: Vec<SignedLogBorn>,
}

impl Chain for Log {
    type Error = Infallible;

    fn at(&self, author: &DeviceId, stream: &StreamId, seq: Seq) -> Result<Vec<judge::Link>, Infallible> {
        let stored = self.streams.get(stream).into_iter().flatten();
        let same =
            stored.filter(|it| (it.envelope.header().author, it.envelope.header().seq) == (*author, seq));
        Ok(same.map(|stored| judge::Link::of(&stored.envelope)).collect())
    }

    fn last(&self, author: &DeviceId, stream: &StreamId) -> Result<Seq, Infallible> {
        let stored = self.streams.get(stream).into_iter().flatten();
        let own = stored.map(|stored| stored.envelope.header()).filter(|header| header.author == *author);
        Ok(own.map(|header| header.seq).max().unwrap_or_default())
    }
}

impl Log {
    pub(super) fn head(&self, space: &SpaceId, stream: &StreamId) -> Head {
        let start =
            Head { stream: *stream, position: Position(0), chain: envelope::chain_start(space, stream) };
        self.streams.get(stream).and_then(|log| log.last()).map_or(start, |stored| stored.head)
    }

    pub(super) fn chain(&self, space: &SpaceId, stream: &StreamId, at: Position) -> Option<Hash> {
        match at {
            Position(0) => Some(envelope::chain_start(space, stream)),
            at => self.streams.get(stream)?.get(at.0 as usize - 1).map(|stored| stored.head.chain),
        }
    }

    pub(super) fn snapshot(&self, device: &DeviceId, hello: &SpaceHello) -> Snapshot {
        let space = hello.space;
        let agreed = hello.roster.filter(|head| self.roster.hash_at(head.seq) == Some(head.hash));
        let heads: Vec<_> = self.roster.streams().map(|stream| self.head(&space, &stream)).collect();
        let own = |stream: StreamId| {
            let last =
                self.streams.get(&stream)?.iter().rev().find(|it| it.envelope.header().author == *device)?;
            Some((stream, last.envelope.header().seq, last.envelope.hash()))
        };
        let at = |cursor: &Head| (cursor.stream, self.chain(&space, &cursor.stream, cursor.position));
        Snapshot {
            log_id: self.log_id,
            roster: Arc::new(self.roster.clone()),
            entries: self.entries[agreed.map_or(0, |head| head.seq.0 as usize + 1)..].to_vec(),
            at_cursors: hello.cursors.iter().map(at).collect(),
            samples: self.streams.values().flatten().map(|stored| stored.head).collect(),
            own_heads: self.roster.streams().filter_map(own).collect(),
            births: self.births.clone(),
            heads,
        }
    }
}

pub(super) enum Offer {
    Roster(SpaceId, Vec<VerifiedEntry>),
    Envelopes { space: SpaceId, stream: StreamId, envelopes: Vec<Verified<Envelope>>, refill: bool },
    Bear { space: SpaceId, old: LogId, evidence: Vec<SignedHeads>, common: Vec<Head> },
}

#[derive(Default)]
pub(super) struct Server {
    pub(super) spaces: BTreeMap<SpaceId, Log>,
    pub(super) offers: VecDeque<(u64, Offer)>,
    pub(super) logs: u8,
}

impl Server {
    pub(super) fn log_id(&mut self) -> LogId {
        self.logs += 1;
        LogId([self.logs; 16])
    }

    /// Makes the next offer durable; says whom to answer what, and what everybody is told before and after.
    pub(super) fn commit(&mut self) -> (u64, Option<session::Input>, session::Input, Option<session::Input>) {
        let (link, offer) = self.offers.pop_front().unwrap();
        match offer {
            Offer::Roster(space, entries) => self.append_entries(link, space, entries),
            Offer::Envelopes { space, stream, envelopes, refill } => {
                let log = self.spaces.get_mut(&space).unwrap();
                let mut grew = false;
                let outcomes =
                    envelopes.into_iter().map(|envelope| append(log, envelope, refill, &mut grew)).collect();
                let head = log.head(&space, &stream);
                let told = grew.then(|| session::Input::Grew(space, log.log_id, vec![head]));
                let head = Some((log.log_id, head));
                (link, told, session::Input::Committed { space, stream, outcomes, head }, None)
            }
            Offer::Bear { space, old, evidence, common } => {
                let known = self.spaces.get(&space).map(|log| log.births.clone()).unwrap_or_default();
                let known = known.into_iter().find(|born| born.content().unwrap().old == old);
                let born = known.unwrap_or_else(|| {
                    let new = self.log_id();
                    let born = LogBorn { space, old, new, evidence, common };
                    let born = SignedLogBorn::sign(&born, |message| heads_key().sign(message));
                    let empty = || Log {
                        log_id: new,
                        roster: Roster::new(space),
                        entries: Vec::new(),
                        streams: BTreeMap::new(),
                        births: Vec::new(),
                    };
                    let log = self.spaces.entry(space).or_insert_with(empty);
                    log.log_id = new;
                    log.births.push(born.clone());
                    born
                });
                let born = || session::Input::Born(space, Some(born.clone()));
                (link, None, born(), Some(born()))
            }
        }
    }

    pub(super) fn append_entries(
        &mut self,
        link: u64,
        space: SpaceId,
        entries: Vec<VerifiedEntry>,
    ) -> (u64, Option<session::Input>, session::Input, Option<session::Input>) {
        let new = self.log_id();
        let log = self.spaces.entry(space).or_insert_with(|| Log {
            log_id: new,
            roster: Roster::new(space),
            entries: Vec::new(),
            streams: BTreeMap::new(),
            births: Vec::new(),
        });
        let (mut added, mut refused) = (Vec::new(), None);
        for entry in entries {
            if log.roster.place(&entry.hash()).is_some() {
                continue;
            }
            if entry.entry().prev != log.roster.prev() {
                refused = Some((entry.hash(), Refusal::HeadMoved(None)));
                break;
            }
            log.roster.apply(&entry);
            added.push(entry.to_wire());
        }
        log.entries.extend(added.clone());
        let (log_id, roster) = (log.log_id, Arc::new(log.roster.clone()));
        let state = Some((log_id, roster.clone()));
        let grew = session::Input::RosterGrew { space, log_id, roster, entries: added.clone() };
        (
            link,
            None,
            session::Input::RosterCommitted { space, state, refused },
            (!added.is_empty()).then_some(grew),
        )
    }

    pub(super) fn read(
        &self,
        space: SpaceId,
        stream: StreamId,
        after: Position,
        own: Option<DeviceId>,
    ) -> session::Run {
        let log = &self.spaces[&space];
        let stored = log.streams.get(&stream).map_or(&[][..], |stored| &stored[after.0 as usize..]);
        let run = &stored[..stored.len().min(RUN_ITEMS_MAX)];
        let item = |stored: &Stored| Item {
            received_ms: Millis(0),
            content: match own == Some(stored.envelope.header().author) {
                true => ItemContent::Own(stored.envelope.hash()),
                false => ItemContent::Envelope(stored.envelope.as_bytes().to_vec().into()),
            },
        };
        let chain = log.chain(&space, &stream, after).unwrap();
        let end = run.last().map_or(Head { stream, position: after, chain }, |stored| stored.head);
        let (log_id, items) = (log.log_id, run.iter().map(item).collect());
        session::Run { space, log_id, first: after.next(), items, end }
    }
}

pub(super) fn append(log: &mut Log, envelope: Verified<Envelope>, refill: bool, grew: &mut bool) -> Appended {
    let header = *envelope.header();
    let at = if refill { JudgedAt::Named } else { JudgedAt::Current };
    match judge::admit(&log.roster, log, &envelope, at).unwrap() {
        Admission::Refused(reason) => Appended::Refused(header.author, header.seq, reason),
        Admission::Duplicate => {
            let same = log.streams[&header.stream].iter().find(|it| it.envelope.hash() == envelope.hash());
            Appended::At(AckedEnvelope { hash: envelope.hash(), position: same.unwrap().head.position })
        }
        Admission::Fresh => {
            *grew = true;
            let before = log.head(&header.space, &header.stream);
            let chain = envelope::chain_next(&before.chain, &envelope.hash());
            let head = Head { stream: header.stream, position: before.position.next(), chain };
            let acked = AckedEnvelope { hash: envelope.hash(), position: head.position };
            log.streams.entry(header.stream).or_default().push(Stored { envelope, head });
            Appended::At(acked)
        }
    }
}
