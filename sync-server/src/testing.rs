//! Devices written by hand, for tests only: they sign what they are told to.

use std::{collections::BTreeMap, sync::Arc};

use ebb_protocol::{
    envelope::{Envelope, Header, Kind},
    id::{DeviceId, Epoch, Hash, LogId, MemberId, Millis, Position, Seq, SpaceId, StreamId},
    roster::{
        self, Access, DeviceKeys, Entry, EntryWithWraps, KemKey, KeyHandout, MemberKind, Operation,
        Recipient, Roster, SealedNote, SignedEntry, VerifiedEntry, Wrap, wraps_hash,
    },
    session,
    verify::{self, Verified},
    wire::{Head, LogBorn, SignedLogBorn, SpaceHello},
};

use tokio::sync::watch;

use crate::{
    Clock, commit::Means, connection::Shared, hub::Hub, keys::Keys, signing::SigningKey, worker::Storage,
};

/// The stream that every patient opens first.
pub(crate) const STREAM: StreamId = StreamId([0xa1; 16]);
/// A stream that only some open.
pub(crate) const OTHER_STREAM: StreamId = StreamId([0xa2; 16]);

#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) sig: SigningKey,
    pub(crate) tls: SigningKey,
    pub(crate) keys: DeviceKeys,
    chains: BTreeMap<(SpaceId, StreamId), (Seq, Hash)>,
}

impl Device {
    pub(crate) fn new(seed: u16) -> Self {
        let key = |purpose: u8| {
            let mut bytes = [purpose; 32];
            bytes[..2].copy_from_slice(&seed.to_be_bytes());
            SigningKey::from_seed(&bytes)
        };
        let (sig, tls) = (key(1), key(2));
        let kem = KemKey([&[4][..], &seed.to_be_bytes().repeat(32)].concat());
        let keys = DeviceKeys { sig: sig.public(), tls: tls.public(), kem };
        Self { sig, tls, keys, chains: BTreeMap::new() }
    }

    pub(crate) fn id(&self) -> DeviceId {
        self.keys.id()
    }

    fn header(&self, roster: &Roster, stream: StreamId) -> Header {
        let (seq, prev) = self.chains.get(&(roster.space(), stream)).copied().unwrap_or((Seq(0), Hash::ZERO));
        Header {
            kind: Kind::Changes,
            space: roster.space(),
            stream,
            author: self.id(),
            seq: seq.next(),
            prev,
            epoch: roster.epoch(&stream).map_or(Epoch(1), |key| key.epoch),
            roster_head: roster.prev(),
            log_id: LogId::ZERO,
            seen_pos: Position(0),
            seen_hash: Hash::ZERO,
            salt: [9; 16],
        }
    }

    /// The next envelope of its chain, with `body_bytes` of ciphertext.
    pub(crate) fn write(&mut self, roster: &Roster, stream: StreamId, body_bytes: usize) -> Envelope {
        let envelope = self.seal(&self.header(roster, stream), body_bytes);
        let header = *envelope.header();
        self.chains.insert((header.space, stream), (header.seq, envelope.hash()));
        envelope
    }

    /// The next envelope of its chain, changed before it is signed; the chain stays as it is.
    pub(crate) fn write_changed(
        &self,
        roster: &Roster,
        stream: StreamId,
        change: impl FnOnce(&mut Header),
    ) -> Envelope {
        let mut header = self.header(roster, stream);
        change(&mut header);
        self.seal(&header, 300)
    }

    fn seal(&self, header: &Header, body_bytes: usize) -> Envelope {
        let bytes = header.encode(u32::try_from(body_bytes).unwrap());
        let body = vec![0x5a; body_bytes];
        Envelope::assemble(&bytes, &[3; 32], &body, |message| self.sig.sign(message)).unwrap()
    }

    pub(crate) fn verified(&self, envelope: Envelope) -> Verified<Envelope> {
        verify::check(envelope, &self.keys.sig).unwrap()
    }
}

/// A patient's phone with its space, as the phone knows it.
#[derive(Clone)]
pub(crate) struct Patient {
    pub(crate) device: Device,
    pub(crate) space: SpaceId,
    pub(crate) roster: Roster,
    pub(crate) entries: Vec<EntryWithWraps>,
}

impl Patient {
    /// A phone that founded a space with one stream, which no server has seen yet.
    pub(crate) fn new(seed: u16) -> Self {
        Self::of(Device::new(seed), [4; 16])
    }

    /// Another space that a phone founded.
    pub(crate) fn of(device: Device, nonce: [u8; 16]) -> Self {
        let space = verify::space_id(&device.id(), &nonce);
        let mut patient = Self { roster: Roster::new(space), device, space, entries: Vec::new() };
        let id = patient.device.id();
        let found = Operation::Found { nonce, device: patient.device.keys.clone() };
        let (key, wraps) = handout(STREAM, 1, 0, &[Recipient::Device(id)]);
        patient.sign(vec![found, Operation::OpenStream { stream: STREAM, owner_writes: true, key }], wraps);
        patient
    }

    /// Signs an entry, and believes it.
    pub(crate) fn sign(&mut self, operations: Vec<Operation>, wraps: Vec<Wrap>) -> VerifiedEntry {
        self.sign_sealed(operations, wraps, Vec::new())
    }

    /// Opens another stream, with a long sealed note.
    pub(crate) fn sign_with_note(&mut self, bytes: usize) -> VerifiedEntry {
        let (key, wraps) = handout(OTHER_STREAM, 1, 0, &[Recipient::Device(self.device.id())]);
        let note = SealedNote { stream: STREAM, epoch: Epoch(1), bytes: vec![7; bytes] };
        let open = Operation::OpenStream { stream: OTHER_STREAM, owner_writes: true, key };
        self.sign_sealed(vec![open], wraps, vec![note])
    }

    fn sign_sealed(
        &mut self,
        operations: Vec<Operation>,
        wraps: Vec<Wrap>,
        sealed: Vec<SealedNote>,
    ) -> VerifiedEntry {
        let entry = Entry {
            version: roster::VERSION,
            space: self.space,
            seq: self.roster.next_seq(),
            prev: self.roster.prev(),
            author: self.device.id(),
            time: Millis(1),
            operations,
            sealed,
        };
        let entry = SignedEntry::sign(&entry, |message| self.device.sig.sign(message));
        let travelling = EntryWithWraps { entry, wraps };
        let verified = self.roster.verify(travelling.clone()).unwrap();
        self.roster.apply(&verified);
        self.entries.push(travelling);
        verified
    }

    /// Starts the stream's next epoch.
    pub(crate) fn rotate(&mut self) -> VerifiedEntry {
        let epoch = self.roster.epoch(&STREAM).unwrap().epoch.next();
        let recipients: Vec<_> = self.roster.recipients(&STREAM).into_iter().collect();
        let (key, wraps) = handout(STREAM, epoch.0, 0, &recipients);
        self.sign(vec![Operation::Rotate { key }], wraps)
    }

    /// Opens another stream.
    pub(crate) fn open(&mut self, stream: StreamId) -> VerifiedEntry {
        let (key, wraps) = handout(stream, 1, 0, &[Recipient::Device(self.device.id())]);
        self.sign(vec![Operation::OpenStream { stream, owner_writes: true, key }], wraps)
    }

    /// Takes a clinic's desk in and lets it read and write the stream.
    pub(crate) fn admit(&mut self, desk: &Device) -> VerifiedEntry {
        let member = MemberId([0xc1; 16]);
        let keys: Vec<_> = self.roster.epochs(&STREAM).to_vec();
        let (mut handouts, mut wraps) = (Vec::new(), Vec::new());
        for (place, key) in keys.iter().enumerate() {
            let (handout, more) =
                handout(STREAM, key.epoch.0, u16::try_from(place).unwrap(), &[Recipient::Member(member)]);
            handouts.push(handout);
            wraps.extend(more);
        }
        let kem = KemKey(vec![5; 65]);
        let operations = vec![
            Operation::AddMember { member, kind: MemberKind::Clinic, kem },
            Operation::AddDevice { member, device: desk.keys.clone(), keys: Vec::new() },
            Operation::Grant { stream: STREAM, member, access: Access::Write, keys: handouts },
        ];
        self.sign(operations, wraps)
    }

    /// The entries as a log's session would have verified them.
    pub(crate) fn verified_entries(&self) -> Vec<VerifiedEntry> {
        let mut roster = Roster::new(self.space);
        let mut verified = Vec::new();
        for entry in &self.entries {
            let entry = roster.verify(entry.clone()).unwrap();
            roster.apply(&entry);
            verified.push(entry);
        }
        verified
    }

    pub(crate) fn write(&mut self, body_bytes: usize) -> Verified<Envelope> {
        let envelope = self.device.write(&self.roster, STREAM, body_bytes);
        self.device.verified(envelope)
    }

    pub(crate) fn write_many(&mut self, count: usize) -> Vec<Verified<Envelope>> {
        (0..count).map(|_| self.write(300)).collect()
    }

    /// A Hello of somebody who was never here.
    pub(crate) fn hello(&self) -> SpaceHello {
        SpaceHello {
            space: self.space,
            log_id: LogId::ZERO,
            roster: None,
            cursors: Vec::new(),
            own_in_full: false,
        }
    }
}

fn handout(stream: StreamId, epoch: u32, place: u16, recipients: &[Recipient]) -> (KeyHandout, Vec<Wrap>) {
    let wrap = |recipient: &Recipient| Wrap { handout: place, recipient: *recipient, bytes: vec![6; 113] };
    let wraps: Vec<_> = recipients.iter().map(wrap).collect();
    let key_check = verify::sha256(&[&stream.0, &epoch.to_be_bytes()]);
    (KeyHandout { stream, epoch: Epoch(epoch), key_check, wraps_hash: wraps_hash(&wraps) }, wraps)
}

/// Log ids in order, births signed by a key of its own.
pub(crate) struct TestMeans {
    pub(crate) key: SigningKey,
    next: u8,
}

impl TestMeans {
    pub(crate) fn new() -> Self {
        Self { key: SigningKey::from_seed(&[0x77; 32]), next: 0 }
    }
}

impl Means for TestMeans {
    fn log_id(&mut self) -> LogId {
        self.next += 1;
        LogId([self.next; 16])
    }

    fn sign_born(&mut self, born: &LogBorn) -> SignedLogBorn {
        SignedLogBorn::sign(born, |message| self.key.sign(message))
    }
}

/// The head that a stream has after these envelopes.
pub(crate) fn head_after(space: SpaceId, stream: StreamId, envelopes: &[Verified<Envelope>]) -> Head {
    let mut head =
        Head { stream, position: Position(0), chain: ebb_protocol::envelope::chain_start(&space, &stream) };
    for envelope in envelopes {
        head.position = head.position.next();
        head.chain = ebb_protocol::envelope::chain_next(&head.chain, &envelope.hash());
    }
    head
}

/// What the connections of a server share, with keys of its own; it stops when the sender says so.
pub(crate) fn shared(clock: Clock, hub: Arc<Hub>, storage: Storage) -> (Shared, watch::Sender<bool>) {
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::init(folder.path()).unwrap();
    let (stop, stopping) = watch::channel(false);
    let session = session::Config {
        open_registration: true,
        pins: keys.pins.clone(),
        heads_keys: keys.heads_keys(),
        back_off_ms: 1,
    };
    let shared = Shared {
        session: Arc::new(session),
        clock,
        hub,
        storage,
        heads_key: keys.heads,
        metrics: Arc::default(),
        stopping,
        stop_retry_ms: 1,
    };
    (shared, stop)
}
