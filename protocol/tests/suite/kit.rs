//! Devices, rosters and envelopes written by hand, with keys that follow from small numbers.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use ebb_protocol::{
    envelope::{Envelope, Header, Kind},
    id::{DeviceId, Epoch, Hash, LogId, MemberId, Millis, Position, Seq, SpaceId, StreamId},
    roster::{
        self, Access, DeviceKeys, Entry, EntryWithWraps, KemKey, KeyHandout, MemberKind, Operation,
        Recipient, Roster, SignedEntry, VerifiedEntry, Wrap, wraps_hash,
    },
    verify::{self, PublicKey, Signature, Verified},
};

/// The stream that every space here opens first.
pub(crate) const STREAM: StreamId = StreamId([0xa1; 16]);
/// Another one.
pub(crate) const OTHER: StreamId = StreamId([0xa2; 16]);
/// The clinic.
pub(crate) const CLINIC: MemberId = MemberId([0xc1; 16]);

/// A key that signs.
pub(crate) struct Key(Ed25519KeyPair);

impl Key {
    pub(crate) fn new(seed: u8, purpose: u8) -> Self {
        let mut bytes = [purpose; 32];
        bytes[0] = seed;
        Self(Ed25519KeyPair::from_seed_unchecked(&bytes).unwrap())
    }

    pub(crate) fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key().as_ref().try_into().unwrap())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        Signature::from_bytes(self.0.sign(message).as_ref().try_into().unwrap())
    }
}

/// A device: number 1 is another than number 2, and the same in every run.
pub(crate) struct Device {
    pub(crate) sig: Key,
    pub(crate) keys: DeviceKeys,
}

impl Device {
    pub(crate) fn new(seed: u8) -> Self {
        let (sig, tls) = (Key::new(seed, 1), Key::new(seed, 2));
        let keys = DeviceKeys { sig: sig.public(), tls: tls.public(), kem: KemKey(vec![seed; 65]) };
        Self { sig, keys }
    }

    pub(crate) fn id(&self) -> DeviceId {
        self.keys.id()
    }

    /// Signs any entry, sensible or not.
    pub(crate) fn sign(&self, entry: &Entry, wraps: Vec<Wrap>) -> EntryWithWraps {
        EntryWithWraps { entry: SignedEntry::sign(entry, |message| self.sig.sign(message)), wraps }
    }

    /// Seals (with made-up ciphertext) and signs.
    pub(crate) fn seal(&self, header: &Header) -> Envelope {
        let body = [0x5a; 100];
        Envelope::assemble(&header.encode(100), &[3; 32], &body, |message| self.sig.sign(message)).unwrap()
    }

    pub(crate) fn verified(&self, header: &Header) -> Verified<Envelope> {
        verify::check(self.seal(header), &self.keys.sig).unwrap()
    }

    /// The header of this device's envelope at a sequence, behind `prev`.
    pub(crate) fn header(&self, roster: &Roster, stream: StreamId, seq: u64, prev: Hash) -> Header {
        Header {
            kind: Kind::Changes,
            space: roster.space(),
            stream,
            author: self.id(),
            seq: Seq(seq),
            prev,
            epoch: roster.epoch(&stream).map_or(Epoch(1), |key| key.epoch),
            roster_head: roster.prev(),
            log_id: LogId::ZERO,
            seen_pos: Position(0),
            seen_hash: Hash::ZERO,
            salt: [9; 16],
        }
    }

    /// A chain of envelopes from sequence 1.
    pub(crate) fn chain(&self, roster: &Roster, stream: StreamId, len: u64) -> Vec<Verified<Envelope>> {
        let mut prev = Hash::ZERO;
        (1..=len)
            .map(|seq| {
                let envelope = self.verified(&self.header(roster, stream, seq, prev));
                prev = envelope.hash();
                envelope
            })
            .collect()
    }
}

/// An entry in the making: operations, and the wraps of what they hand out.
#[derive(Clone, Default)]
pub(crate) struct Draft {
    pub(crate) operations: Vec<Operation>,
    pub(crate) wraps: Vec<Wrap>,
    pub(crate) handouts: u16,
}

impl Draft {
    pub(crate) fn handout(&mut self, stream: StreamId, epoch: u32, to: &[Recipient]) -> KeyHandout {
        let handout = self.handouts;
        self.handouts += 1;
        let wraps: Vec<_> = to
            .iter()
            .map(|recipient| Wrap { handout, recipient: *recipient, bytes: vec![epoch as u8; 113] })
            .collect();
        let key_check = verify::sha256(&[&stream.0, &epoch.to_be_bytes()]);
        let wraps_hash = wraps_hash(&wraps);
        self.wraps.extend(wraps);
        KeyHandout { stream, epoch: Epoch(epoch), key_check, wraps_hash }
    }

    pub(crate) fn found(mut self, device: &Device) -> Self {
        self.operations.push(Operation::Found { nonce: [4; 16], device: device.keys.clone() });
        self
    }

    pub(crate) fn open(mut self, stream: StreamId, to: &[Recipient]) -> Self {
        let key = self.handout(stream, 1, to);
        self.operations.push(Operation::OpenStream { stream, owner_writes: true, key });
        self
    }

    pub(crate) fn rotate(mut self, stream: StreamId, epoch: u32, to: &[Recipient]) -> Self {
        let key = self.handout(stream, epoch, to);
        self.operations.push(Operation::Rotate { key });
        self
    }

    pub(crate) fn member(mut self, member: MemberId, kind: MemberKind) -> Self {
        self.operations.push(Operation::AddMember { member, kind, kem: KemKey(vec![7; 65]) });
        self
    }

    /// A device with every epoch of these streams (none for a member's).
    pub(crate) fn device(mut self, member: MemberId, device: &Device, epochs: &[(StreamId, u32)]) -> Self {
        let to = [Recipient::Device(device.id())];
        let keys = epochs.iter().map(|(stream, epoch)| self.handout(*stream, *epoch, &to)).collect();
        self.operations.push(Operation::AddDevice { member, device: device.keys.clone(), keys });
        self
    }

    pub(crate) fn grant(
        mut self,
        stream: StreamId,
        member: MemberId,
        access: Access,
        epochs: &[u32],
    ) -> Self {
        let to = [Recipient::Member(member)];
        let keys = epochs.iter().map(|epoch| self.handout(stream, *epoch, &to)).collect();
        self.operations.push(Operation::Grant { stream, member, access, keys });
        self
    }
}

/// A patient's phone and the chain that it signed.
pub(crate) struct Patient {
    pub(crate) phone: Device,
    pub(crate) roster: Roster,
    pub(crate) entries: Vec<EntryWithWraps>,
}

impl Patient {
    /// A phone that founded a space, with one stream open.
    pub(crate) fn new(seed: u8) -> Self {
        let phone = Device::new(seed);
        let space = verify::space_id(&phone.id(), &[4; 16]);
        let mut patient = Self { roster: Roster::new(space), entries: Vec::new(), phone };
        let me = patient.me();
        let draft = Draft::default().found(&patient.phone).open(STREAM, &[me]);
        patient.sign(draft).unwrap();
        patient
    }

    /// The same with a clinic that may write the stream, and its desk.
    pub(crate) fn with_desk(seed: u8, desk: &Device) -> Self {
        let mut patient = Self::new(seed);
        let draft = Draft::default().member(CLINIC, MemberKind::Clinic).device(CLINIC, desk, &[]);
        patient.sign(draft.grant(STREAM, CLINIC, Access::Write, &[1])).unwrap();
        patient
    }

    pub(crate) fn space(&self) -> SpaceId {
        self.roster.space()
    }

    pub(crate) fn me(&self) -> Recipient {
        Recipient::Device(self.phone.id())
    }

    /// The entry that would come next.
    pub(crate) fn entry(&self, draft: &Draft) -> Entry {
        Entry {
            version: roster::VERSION,
            space: self.space(),
            seq: self.roster.next_seq(),
            prev: self.roster.prev(),
            author: self.phone.id(),
            time: Millis(1),
            operations: draft.operations.clone(),
            sealed: Vec::new(),
        }
    }

    /// What the roster says to an entry that the phone signs next; nothing changes.
    pub(crate) fn offer(&self, draft: Draft) -> Result<VerifiedEntry, roster::RosterError> {
        self.roster.verify(self.phone.sign(&self.entry(&draft), draft.wraps))
    }

    /// Signs an entry and believes it.
    pub(crate) fn sign(&mut self, draft: Draft) -> Result<(), roster::RosterError> {
        let verified = self.offer(draft)?;
        self.roster.apply(&verified);
        self.entries.push(verified.to_wire());
        Ok(())
    }

    pub(crate) fn recipients(&self, stream: StreamId) -> Vec<Recipient> {
        self.roster.recipients(&stream).into_iter().collect()
    }

    /// Rotates the stream to this epoch, for exactly its readers.
    pub(crate) fn rotate(&mut self, epoch: u32) {
        let to = self.recipients(STREAM);
        self.sign(Draft::default().rotate(STREAM, epoch, &to)).unwrap();
    }
}
