//! A device's storage, and how it carries out what its client says.

use super::*;

#[derive(Clone)]
pub(super) enum Intent {
    Found(Draft),
    AddDevice(Arc<Device>),
    Admit(MemberId, Option<Arc<Device>>),
    Rotate(StreamId),
}

pub(super) struct Sealed {
    pub(super) envelope: Envelope,
    pub(super) item: u8,
    pub(super) position: Option<Position>,
    /// Whether a server ever had it: after a loss it is given back as it is, whatever its epoch.
    pub(super) placed: bool,
}

/// What survives a restart, and the client, which does not.
pub(super) struct Phone {
    pub(super) device: Arc<Device>,
    pub(super) space: SpaceId,
    pub(super) log_id: LogId,
    pub(super) settled: Roster,
    pub(super) entries: Vec<EntryWithWraps>,
    pub(super) intents: Vec<Intent>,
    pub(super) pending: Vec<EntryWithWraps>,
    pub(super) roster: Roster,
    /// Written and not sealed.
    pub(super) unsealed: Vec<(StreamId, u8)>,
    pub(super) sealed: BTreeMap<Hash, Sealed>,
    pub(super) logs: BTreeMap<StreamId, Vec<Head>>,
    pub(super) evidence: Vec<SignedHeads>,
    pub(super) client: Client,
    pub(super) server_roster: Option<Option<RosterSeq>>,
}

impl Phone {
    pub(super) fn new(device: Arc<Device>, space: SpaceId) -> Self {
        Self {
            client: Client::new(u64::from(device.id().0[0])),
            device,
            space,
            log_id: LogId::ZERO,
            settled: Roster::new(space),
            entries: Vec::new(),
            intents: Vec::new(),
            pending: Vec::new(),
            roster: Roster::new(space),
            unsealed: Vec::new(),
            sealed: BTreeMap::new(),
            logs: BTreeMap::new(),
            evidence: Vec::new(),
            server_roster: None,
        }
    }

    /// Signs what is intended on top of what is settled.
    pub(super) fn sign(&mut self) {
        self.roster = self.settled.clone();
        self.pending.clear();
        for intent in &self.intents {
            let Some(draft) = draft(&self.roster, intent) else { continue };
            let on_top = Patient { phone: Device::new(0), roster: self.roster.clone(), entries: Vec::new() };
            let mut entry = on_top.entry(&draft);
            entry.author = self.device.id();
            let verified = self.roster.verify(self.device.sign(&entry, draft.wraps)).unwrap();
            self.roster.apply(&verified);
            self.pending.push(verified.to_wire());
        }
    }

    pub(super) fn cursor(&self, stream: &StreamId) -> Head {
        let start = Head {
            stream: *stream,
            position: Position(0),
            chain: envelope::chain_start(&self.space, stream),
        };
        self.logs.get(stream).and_then(|log| log.last()).copied().unwrap_or(start)
    }

    pub(super) fn greeting(&mut self) -> Hello {
        self.server_roster = None;
        let cursors = self.settled.streams().map(|stream| self.cursor(&stream));
        let space = SpaceHello {
            space: self.space,
            log_id: self.log_id,
            roster: self.settled.head(),
            cursors: cursors.filter(|cursor| cursor.position > Position(0)).collect(),
            own_in_full: false,
        };
        Hello { version: wire::VERSION, device: self.device.id(), pins_version: 1, spaces: vec![space] }
    }

    pub(super) fn seal(&mut self) {
        let founds = self.settled.head().is_none();
        if !founds && !self.pending.is_empty() {
            return;
        }
        let roster = if founds { &self.roster } else { &self.settled };
        let Some(RosterHead { seq, .. }) = roster.head() else { return };
        let me = self.device.id();
        let (mine, rest) = self.unsealed.iter().partition(|(stream, _)| roster.may_write(&me, stream, seq));
        self.unsealed = rest;
        for (stream, item) in mine {
            let own = self
                .sealed
                .values()
                .map(|sealed| &sealed.envelope)
                .filter(|envelope| (envelope.header().author, envelope.header().stream) == (me, stream));
            let last = own.max_by_key(|envelope| (envelope.header().seq, envelope.header().epoch));
            let (seq, prev) = last.map_or((1, Hash::ZERO), |last| (last.header().seq.0 + 1, last.hash()));
            let mut header = self.device.header(roster, stream, seq, prev);
            let cursor = self.cursor(&stream);
            (header.log_id, header.seen_pos, header.seen_hash) = (self.log_id, cursor.position, cursor.chain);
            header.salt = [item; 16];
            let envelope = self.device.seal(&header);
            self.sealed.insert(envelope.hash(), Sealed { envelope, item, position: None, placed: false });
        }
    }

    pub(super) fn gather(
        &mut self,
        in_flight: &BTreeSet<Hash>,
        caught_up: bool,
        blocked: bool,
    ) -> client::Input {
        let mut items = Vec::new();
        if !blocked {
            let from = match self.server_roster {
                None => self.entries.len(),
                Some(None) => 0,
                Some(Some(seq)) => seq.0 as usize + 1,
            };
            let entries: Vec<_> = self.entries.iter().skip(from).chain(&self.pending).cloned().collect();
            if !entries.is_empty() {
                items.push(Outgoing::Roster(self.space, entries));
            }
            self.seal();
            let others = caught_up && self.server_roster.is_some();
            let mut unsent: Vec<_> =
                self.sealed.values().filter(|sealed| sealed.position.is_none()).collect();
            unsent.retain(|sealed| others || !sealed.placed);
            unsent.retain(|sealed| !in_flight.contains(&sealed.envelope.hash()));
            unsent.sort_by_key(|sealed| {
                let header = sealed.envelope.header();
                (header.stream, header.author, header.seq, header.epoch)
            });
            for sealed in unsent {
                let header = sealed.envelope.header();
                let outgoing = OutgoingEnvelope {
                    hash: sealed.envelope.hash(),
                    author: header.author,
                    seq: header.seq,
                    bytes: sealed.envelope.as_bytes().to_vec(),
                };
                let (space, stream, refill) = (self.space, header.stream, sealed.placed);
                items.push(Outgoing::Envelopes { space, stream, envelopes: vec![outgoing], refill });
            }
        }
        client::Input::Outbox { items, more: false }
    }

    pub(super) fn carry_out(&mut self, output: client::Output) -> Option<client::Input> {
        use client::Output;
        match output {
            Output::Greet => return Some(client::Input::Greeting(self.greeting())),
            Output::Gather { in_flight, caught_up, blocked } => {
                let blocked = blocked.iter().any(|(space, _)| *space == self.space);
                return Some(self.gather(&in_flight, caught_up, blocked));
            }
            Output::Welcome(welcome) => {
                let theirs = welcome.spaces.into_iter().find(|space| space.space == self.space);
                self.server_roster = theirs.map(|space| space.roster.map(|head| head.seq));
            }
            Output::KeepRoster(frame) => self.keep_roster(frame),
            Output::KeepRosterAck(head) => self.keep_roster_ack(&head),
            Output::Keep(entries) => return Some(self.keep(entries)),
            Output::KeepAcked { acked, is_evidence } => {
                let heads =
                    verify::check(acked.head.clone(), &heads_key().public()).unwrap().content().unwrap();
                if self.log_id.is_zero() {
                    self.log_id = heads.log_id;
                }
                assert_eq!(self.log_id, heads.log_id);
                if is_evidence {
                    self.evidence.push(acked.head);
                }
                for acked in acked.envelopes {
                    if let Some(sealed) = self.sealed.get_mut(&acked.hash) {
                        sealed.position = Some(acked.position);
                        sealed.placed = true;
                    }
                }
            }
            Output::KeepHeads(heads) => self.evidence.extend(heads),
            Output::KeepBirth(born) => self.keep_birth(&born),
            Output::Recall(need) => {
                let agrees =
                    |sample: &&Head| self.logs.get(&sample.stream).is_some_and(|log| log.contains(sample));
                let mut common: BTreeMap<_, Position> = BTreeMap::new();
                for sample in need.samples.iter().filter(agrees) {
                    let highest = common.entry(sample.stream).or_default();
                    *highest = (*highest).max(sample.position);
                }
                let evidence = Evidence {
                    space: self.space,
                    heads: self.evidence.clone(),
                    common: common.into_iter().collect(),
                };
                return Some(client::Input::Evidence(evidence));
            }
            Output::Reseal(_, stream, from) => {
                let me = self.device.id();
                let again: Vec<_> = self
                    .sealed
                    .iter()
                    .filter(|(_, sealed)| {
                        let header = sealed.envelope.header();
                        (header.author, header.stream) == (me, stream) && header.seq >= from && !sealed.placed
                    })
                    .map(|(hash, sealed)| (sealed.envelope.header().seq, *hash))
                    .collect();
                for (_, hash) in again.into_iter().collect::<BTreeSet<_>>() {
                    let sealed = self.sealed.remove(&hash).unwrap();
                    self.unsealed.push((stream, sealed.item));
                }
            }
            Output::OfferRoster(_) => self.server_roster = Some(None),
            Output::Rewind(_, stream, from) => {
                let me = self.device.id();
                for sealed in self.sealed.values_mut() {
                    let header = sealed.envelope.header();
                    if (header.author, header.stream) == (me, stream) && header.seq >= from {
                        sealed.position = None;
                    }
                }
            }
            Output::SendAsNew(..) => panic!("there is always somebody who can prove a loss"),
            Output::BeginAnew(_) => panic!("evidence of a loss convinces"),
            Output::Freeze(_) => panic!("an honest device is never frozen"),
            Output::Report(client::Report::Rejected(_, reason)) => panic!("rejected: {reason:?}"),
            Output::Report(client::Report::Impostor) => panic!("the server is who it is"),
            Output::Connect
            | Output::Disconnect
            | Output::Send(_)
            | Output::Resign(_)
            | Output::Report(_) => {}
        }
        None
    }

    pub(super) fn keep_roster(&mut self, frame: RosterFrame) {
        let mut fresh = false;
        for entry in frame.entries {
            match self.settled.verify(entry.clone()) {
                Ok(verified) => {
                    self.settled.apply(&verified);
                    self.entries.push(entry);
                    fresh = true;
                }
                Err(RosterError::Known) => {}
                Err(error) => panic!("the server sends what does not follow: {error}"),
            }
        }
        if fresh {
            self.sign();
        }
    }

    pub(super) fn keep_roster_ack(&mut self, head: &RosterHead) {
        if self.roster.hash_at(head.seq) != Some(head.hash) {
            return;
        }
        while self.settled.next_seq() <= head.seq {
            let entry = self.pending.remove(0);
            // The draft of this entry came from the first intent that still meant something.
            let place =
                self.intents.iter().position(|intent| draft(&self.settled, intent).is_some()).unwrap();
            self.intents.drain(..=place);
            let verified = self.settled.verify(entry.clone()).unwrap();
            self.settled.apply(&verified);
            self.entries.push(entry);
        }
        self.server_roster = Some(Some(head.seq));
    }

    pub(super) fn keep(&mut self, entries: Entries) -> client::Input {
        let stream = entries.stream;
        if self.log_id.is_zero() {
            self.log_id = entries.log_id;
        }
        assert_eq!(self.log_id, entries.log_id);
        let mut position = entries.first;
        for item in entries.items {
            let cursor = self.cursor(&stream);
            if position > cursor.position {
                assert_eq!(position, cursor.position.next(), "the log leaves nothing out");
                let hash = match item.content {
                    ItemContent::Own(hash) => hash,
                    ItemContent::Envelope(bytes) => {
                        let envelope = Envelope::parse(bytes.into_vec()).unwrap();
                        let (hash, item) = (envelope.hash(), envelope.header().salt[0]);
                        self.sealed.entry(hash).or_insert(Sealed {
                            envelope,
                            item,
                            position: None,
                            placed: true,
                        });
                        hash
                    }
                };
                let sealed = self.sealed.get_mut(&hash).expect("own envelopes are still here");
                sealed.position = sealed.position.or(Some(position));
                sealed.placed = true;
                let chain = envelope::chain_next(&cursor.chain, &hash);
                self.logs.entry(stream).or_default().push(Head { stream, position, chain });
            }
            position = position.next();
        }
        client::Input::Kept(self.space, Some(self.cursor(&stream)))
    }

    pub(super) fn keep_birth(&mut self, born: &SignedLogBorn) {
        let born = verify::check(born.clone(), &heads_key().public()).unwrap().content().unwrap();
        if self.log_id != born.old {
            return;
        }
        self.log_id = born.new;
        self.evidence.clear();
        for (stream, log) in &mut self.logs {
            let common = born.common.iter().find(|head| head.stream == *stream && log.contains(head));
            log.truncate(common.map_or(0, |head| head.position.0 as usize));
        }
        for sealed in self.sealed.values_mut() {
            let kept = self.logs.get(&sealed.envelope.header().stream).map_or(0, |log| log.len() as u64);
            sealed.position = sealed.position.filter(|position| position.0 <= kept);
        }
    }
}

/// The entry that an intent amounts to on this roster; `None` where nothing of it is left to do.
pub(super) fn draft(roster: &Roster, intent: &Intent) -> Option<Draft> {
    let epochs = |stream: &StreamId| roster.epochs(stream).iter().map(|key| key.epoch.0).collect::<Vec<_>>();
    match intent {
        Intent::Found(draft) => roster.head().is_none().then(|| draft.clone()),
        Intent::AddDevice(device) => roster.device(&device.id()).is_none().then(|| {
            let all = roster
                .streams()
                .flat_map(|stream| epochs(&stream).into_iter().map(move |epoch| (stream, epoch)));
            Draft::default().device(roster.owner(), device, &all.collect::<Vec<_>>())
        }),
        Intent::Admit(member, desk) => roster.member(member).is_none().then(|| {
            let draft = Draft::default().member(*member, MemberKind::Clinic);
            let Some(desk) = desk else { return draft };
            let draft = draft.device(*member, desk, &[]);
            draft.grant(STREAM, *member, Access::Write, &epochs(&STREAM))
        }),
        Intent::Rotate(stream) => {
            let to: Vec<_> = roster.recipients(stream).into_iter().collect();
            Some(Draft::default().rotate(*stream, roster.epoch(stream)?.epoch.0 + 1, &to))
        }
    }
}
