//! The roster: membership and consent of one space, as one signed chain that everybody replays.
//!
//! An [`Entry`] is a list of operations signed once. Every client and the server run the same
//! [`Roster`]; nobody takes a statement about membership from the server. Facts keep the entry since
//! which they hold, so that an envelope is judged at the very roster head that it names.
//!
//! Operations that are still to come (removals, revocation, grants from now on, recovery, closing,
//! organisations' own rosters, break-glass) append to [`Operation`] and end a fact's [`Span`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    id::{DeviceId, Epoch, Hash, MemberId, Millis, RosterSeq, SpaceId, StreamId},
    verify::{self, BadSignature, PublicKey, Signature, Signed, Verified},
    wire::{
        self, DEVICES_MAX, ENTRY_BYTES_MAX, EPOCH_STEP_MAX, MEMBERS_MAX, OPERATIONS_MAX, RECIPIENTS_MAX,
        RosterHead, STREAMS_MAX,
    },
};

/// The version of an entry's layout.
pub const VERSION: u8 = 1;
/// Bytes of a P-256 public key, uncompressed.
pub const KEM_KEY_BYTES: usize = 65;
/// Bytes of a stream's key that is wrapped to one: HPKE's encapsulated key, the key, and its tag.
pub const WRAP_BYTES: usize = KEM_KEY_BYTES + 32 + 16;

/// A P-256 public key (uncompressed), to which stream keys are wrapped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KemKey(#[serde(with = "serde_bytes")] pub Vec<u8>);

/// The three public keys of a device, from which its id follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceKeys {
    /// Signs envelopes and roster entries.
    pub sig: PublicKey,
    /// Authenticates connections.
    pub tls: PublicKey,
    /// Receives stream keys.
    pub kem: KemKey,
}

impl DeviceKeys {
    /// The id that these keys amount to.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        verify::device_id(&self.sig, &self.tls, &self.kem.0)
    }
}

/// One entry of the chain: operations that hold together or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// [`VERSION`].
    pub version: u8,
    /// The space.
    pub space: SpaceId,
    /// The place in the chain, from 0.
    pub seq: RosterSeq,
    /// The hash of the entry before; zero for the first.
    pub prev: Hash,
    /// The device that signs.
    pub author: DeviceId,
    /// The author's clock.
    pub time: Millis,
    /// What changes.
    pub operations: Vec<Operation>,
    /// What only holders of a stream's key may read: labels, and forms of consent.
    pub sealed: Vec<SealedNote>,
}

/// A note sealed under a stream's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedNote {
    /// The stream whose key opens it.
    pub stream: StreamId,
    /// The generation of that key.
    pub epoch: Epoch,
    /// Nonce, ciphertext and tag.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// One change of membership or keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// 0: founds the space; first operation of the first entry, and only there.
    Found {
        /// With the device's id it amounts to the space's id.
        nonce: [u8; 16],
        /// The founder's keys.
        device: DeviceKeys,
    },
    /// 1: opens a stream and hands its first key to the owner's devices.
    OpenStream {
        /// The new stream.
        stream: StreamId,
        /// Whether the owner's devices write it (a clinic's plan they only read).
        owner_writes: bool,
        /// The first key.
        key: KeyHandout,
    },
    /// 2: takes a clinic or a supporter into the space; it may do nothing yet.
    AddMember {
        /// The new member.
        member: MemberId,
        /// What it is.
        kind: MemberKind,
        /// To which stream keys are wrapped for it, whatever its devices.
        kem: KemKey,
    },
    /// 3: adds a device to a member. One of the owner's receives every key of every stream.
    AddDevice {
        /// Whose device it is.
        member: MemberId,
        /// Its keys.
        device: DeviceKeys,
        /// Every epoch of every stream for one of the owner's, none for another member's.
        keys: Vec<KeyHandout>,
    },
    /// 4: lets a member read a stream with its whole history, and write it if so said.
    Grant {
        /// The stream.
        stream: StreamId,
        /// The member.
        member: MemberId,
        /// What it may do.
        access: Access,
        /// Every epoch of the stream.
        keys: Vec<KeyHandout>,
    },
    /// 5: starts a new epoch of a stream, handed to exactly its readers.
    Rotate {
        /// The new key.
        key: KeyHandout,
    },
}

/// What a member other than the owner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberKind {
    /// 0: a clinic, with desks as devices.
    Clinic,
    /// 1: a person close to the patient; reads only.
    Supporter,
}

/// What a grant allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// 0: read.
    Read,
    /// 1: read and write.
    Write,
}

/// A stream's key of one epoch, handed to somebody: what the entry's signature fixes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyHandout {
    /// The stream.
    pub stream: StreamId,
    /// The epoch.
    pub epoch: Epoch,
    /// A value derived from the key: the same for everybody who got the same key.
    pub key_check: Hash,
    /// [`wraps_hash`] of the wraps that travel with the entry.
    pub wraps_hash: Hash,
}

/// Whom a wrapped key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Recipient {
    /// 0: one of the owner's devices.
    Device(DeviceId),
    /// 1: a clinic or supporter, under the member's own key.
    Member(MemberId),
}

impl Recipient {
    /// The id's bytes: part of what a wrap is bound to.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        match self {
            Self::Device(id) => id.as_bytes(),
            Self::Member(id) => id.as_bytes(),
        }
    }
}

/// A stream's key, wrapped to one recipient. Not signed itself: its handout's `wraps_hash` is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Wrap {
    /// Which handout of the entry it belongs to, counted from 0 over all operations.
    pub handout: u16,
    /// Whom it is for.
    pub recipient: Recipient,
    /// HPKE: encapsulated key, ciphertext and tag.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// The hash over a handout's wraps, in order of their recipients.
#[must_use]
pub fn wraps_hash<'a>(wraps: impl IntoIterator<Item = &'a Wrap>) -> Hash {
    let mut sorted: Vec<_> = wraps.into_iter().map(|wrap| (wrap.recipient, &wrap.bytes)).collect();
    sorted.sort();
    verify::sha256(&[b"ebb/v1/wraps", &wire::encode(&sorted)])
}

/// An entry as its author signed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedEntry {
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
    signature: Signature,
}

impl SignedEntry {
    /// Encodes an entry and has it signed (`sign` gets the message to sign).
    pub fn sign(entry: &Entry, sign: impl FnOnce(&[u8]) -> Signature) -> Self {
        let body = wire::encode(entry);
        let signature = sign(&verify::signing_message(Self::DOMAIN, &body));
        Self { body, signature }
    }

    /// What it says, whoever signed it.
    ///
    /// # Errors
    /// [`RosterError::Undecodable`] for a later version or damage.
    pub fn entry(&self) -> Result<Entry, RosterError> {
        match wire::decode::<Entry>(&self.body) {
            Ok(entry) if entry.version == VERSION => Ok(entry),
            _ => Err(RosterError::Undecodable),
        }
    }

    /// The hash by which the next entry and envelopes name this one.
    #[must_use]
    pub fn hash(&self) -> Hash {
        verify::sha256(&[b"ebb/v1/entry", &self.signature.to_bytes(), &self.body])
    }
}

impl Signed for SignedEntry {
    const DOMAIN: &'static [u8] = b"ebb/v1/roster\0";

    fn body(&self) -> &[u8] {
        &self.body
    }

    fn signature(&self) -> Signature {
        self.signature
    }
}

/// An entry and the wrapped keys that travel with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryWithWraps {
    /// The entry.
    pub entry: SignedEntry,
    /// Its wraps.
    pub wraps: Vec<Wrap>,
}

/// Since which entry a fact holds, and until which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    since: RosterSeq,
    until: Option<RosterSeq>,
}

impl Span {
    fn since(seq: RosterSeq) -> Self {
        Self { since: seq, until: None }
    }

    fn holds(&self, at: RosterSeq) -> bool {
        self.since <= at && self.until.is_none_or(|until| at < until)
    }
}

/// A device as the roster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its keys.
    pub keys: DeviceKeys,
    /// Whose it is.
    pub member: MemberId,
    span: Span,
}

/// A member other than the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it is.
    pub kind: MemberKind,
    /// To which stream keys are wrapped for it.
    pub kem: KemKey,
    span: Span,
}

/// A stream as the roster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    owner_writes: bool,
    span: Span,
    epochs: Vec<EpochKey>,
    grants: BTreeMap<MemberId, (Access, Span)>,
}

/// One generation of a stream's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochKey {
    /// Its number.
    pub epoch: Epoch,
    /// What everybody who holds the key can derive from it.
    pub key_check: Hash,
    /// The entry that began it.
    pub since: RosterSeq,
}

/// The state that a chain of entries amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    space: SpaceId,
    owner: MemberId,
    hashes: Vec<Hash>,
    places: BTreeMap<Hash, RosterSeq>,
    devices: BTreeMap<DeviceId, Device>,
    members: BTreeMap<MemberId, Member>,
    streams: BTreeMap<StreamId, Stream>,
}

impl Roster {
    /// The roster of a space before its first entry.
    #[must_use]
    pub fn new(space: SpaceId) -> Self {
        Self {
            space,
            owner: verify::owner_of(&space),
            hashes: Vec::new(),
            places: BTreeMap::new(),
            devices: BTreeMap::new(),
            members: BTreeMap::new(),
            streams: BTreeMap::new(),
        }
    }

    /// The space.
    #[must_use]
    pub fn space(&self) -> SpaceId {
        self.space
    }

    /// The member that founded the space.
    #[must_use]
    pub fn owner(&self) -> MemberId {
        self.owner
    }

    /// The newest entry; `None` before the first.
    #[must_use]
    pub fn head(&self) -> Option<RosterHead> {
        let hash = *self.hashes.last()?;
        Some(RosterHead { space: self.space, seq: RosterSeq(self.hashes.len() as u64 - 1), hash })
    }

    /// The place of the entry that comes next.
    #[must_use]
    pub fn next_seq(&self) -> RosterSeq {
        RosterSeq(self.hashes.len() as u64)
    }

    /// The hash that the next entry names as the one before it.
    #[must_use]
    pub fn prev(&self) -> Hash {
        self.hashes.last().copied().unwrap_or(Hash::ZERO)
    }

    /// The place of the entry with this hash, if it is in the chain.
    #[must_use]
    pub fn place(&self, hash: &Hash) -> Option<RosterSeq> {
        self.places.get(hash).copied()
    }

    /// The hash of the entry at a place.
    #[must_use]
    pub fn hash_at(&self, seq: RosterSeq) -> Option<Hash> {
        self.hashes.get(usize::try_from(seq.0).ok()?).copied()
    }

    /// Whether whoever proved to hold a TLS key is a device of this roster.
    #[must_use]
    pub fn is_device(&self, device: &DeviceId, tls: &PublicKey) -> bool {
        self.device(device).is_some_and(|known| known.keys.tls == *tls)
    }

    /// A device, present or past.
    #[must_use]
    pub fn device(&self, id: &DeviceId) -> Option<&Device> {
        self.devices.get(id)
    }

    /// Every device, present or past.
    pub fn devices(&self) -> impl Iterator<Item = (&DeviceId, &Device)> {
        self.devices.iter()
    }

    /// A member other than the owner, present or past.
    #[must_use]
    pub fn member(&self, id: &MemberId) -> Option<&Member> {
        self.members.get(id)
    }

    /// Every stream.
    pub fn streams(&self) -> impl Iterator<Item = StreamId> {
        self.streams.keys().copied()
    }

    /// Every generation of a stream's key, oldest first; empty for an unknown stream.
    #[must_use]
    pub fn epochs(&self, stream: &StreamId) -> &[EpochKey] {
        self.streams.get(stream).map_or(&[], |stream| &stream.epochs)
    }

    /// The generation of a stream's key that was newest at an entry.
    #[must_use]
    pub fn epoch_at(&self, stream: &StreamId, at: RosterSeq) -> Option<&EpochKey> {
        self.epochs(stream).iter().rev().find(|key| key.since <= at)
    }

    /// The newest generation of a stream's key.
    #[must_use]
    pub fn epoch(&self, stream: &StreamId) -> Option<&EpochKey> {
        self.epochs(stream).last()
    }

    /// Whether a device belongs to the owner at an entry.
    #[must_use]
    pub fn is_owner(&self, device: &DeviceId, at: RosterSeq) -> bool {
        self.devices.get(device).is_some_and(|device| device.member == self.owner && device.span.holds(at))
    }

    /// Whether a device may write a stream at an entry.
    #[must_use]
    pub fn may_write(&self, device: &DeviceId, stream: &StreamId, at: RosterSeq) -> bool {
        self.access(device, stream, at) == Some(Access::Write)
    }

    /// Whether a device may read a stream at an entry.
    #[must_use]
    pub fn may_read(&self, device: &DeviceId, stream: &StreamId, at: RosterSeq) -> bool {
        self.access(device, stream, at).is_some()
    }

    /// The streams that a device may read now.
    pub fn readable(&self, device: &DeviceId) -> impl Iterator<Item = StreamId> {
        let at = self.head().map_or(RosterSeq(0), |head| head.seq);
        self.streams.keys().filter(move |stream| self.may_read(device, stream, at)).copied()
    }

    /// Exactly those who hold a stream's newest key: the owner's devices and the members granted.
    #[must_use]
    pub fn recipients(&self, stream: &StreamId) -> BTreeSet<Recipient> {
        let now = self.next_seq();
        let owners =
            self.devices.iter().filter(|(_, device)| device.member == self.owner && device.span.holds(now));
        let granted = self.streams.get(stream).into_iter().flat_map(|stream| &stream.grants);
        owners
            .map(|(id, _)| Recipient::Device(*id))
            .chain(granted.filter(|(_, (_, span))| span.holds(now)).map(|(id, _)| Recipient::Member(*id)))
            .collect()
    }

    /// The key to which a recipient's wraps are made.
    #[must_use]
    pub fn kem(&self, recipient: &Recipient) -> Option<&KemKey> {
        match recipient {
            Recipient::Device(id) => self.devices.get(id).map(|device| &device.keys.kem),
            Recipient::Member(id) => self.members.get(id).map(|member| &member.kem),
        }
    }

    /// Which recipient a device is: itself for the owner's, its member for others.
    #[must_use]
    pub fn recipient_of(&self, device: &DeviceId) -> Option<Recipient> {
        let member = self.devices.get(device)?.member;
        Some(if member == self.owner { Recipient::Device(*device) } else { Recipient::Member(member) })
    }

    fn access(&self, device: &DeviceId, stream: &StreamId, at: RosterSeq) -> Option<Access> {
        let device = self.devices.get(device).filter(|device| device.span.holds(at))?;
        let stream = self.streams.get(stream).filter(|stream| stream.span.holds(at))?;
        if device.member == self.owner {
            return Some(if stream.owner_writes { Access::Write } else { Access::Read });
        }
        let (access, span) = stream.grants.get(&device.member)?;
        span.holds(at).then_some(*access)
    }

    /// Checks a signed entry against this roster: place, predecessor, author, signature, operations
    /// and the wraps that travel with it. The roster is as before, whatever comes of it.
    ///
    /// # Errors
    /// [`RosterError`]; [`RosterError::Moved`] and [`RosterError::Known`] are what honest devices meet.
    pub fn verify(&self, signed: EntryWithWraps) -> Result<VerifiedEntry, RosterError> {
        let hash = signed.entry.hash();
        if self.places.contains_key(&hash) {
            return Err(RosterError::Known);
        }
        if wire::encode(&signed).len() > ENTRY_BYTES_MAX {
            return Err(RosterError::Limit("bytes of an entry"));
        }
        let entry = signed.entry.entry()?;
        if entry.space != self.space {
            return Err(RosterError::OtherSpace);
        }
        if entry.seq != self.next_seq() || entry.prev != self.prev() {
            return Err(RosterError::Moved);
        }
        let author = match (entry.operations.first(), self.devices.get(&entry.author)) {
            (Some(Operation::Found { device, .. }), None) if entry.seq == RosterSeq(0) => device.sig,
            (_, Some(device)) => device.keys.sig,
            _ => return Err(RosterError::NotAllowed("the author is no device of the space")),
        };
        let verified = verify::check(signed.entry.clone(), &author)?;
        self.clone().carry_out(&entry, &signed.wraps)?;
        Ok(VerifiedEntry { signed: verified, entry, wraps: signed.wraps, hash })
    }

    /// Takes a verified entry into the chain.
    ///
    /// # Panics
    /// If it was verified against another state than this one.
    pub fn apply(&mut self, verified: &VerifiedEntry) {
        let follows = (self.space, self.prev()) == (verified.entry.space, verified.entry.prev);
        assert!(follows, "an entry applies to the roster that verified it");
        // A chain's newest hash fixes the state that it amounts to, and there the entry was tried. It does
        // not carry that state with it: a frame full of entries would hold as many copies of the roster.
        self.carry_out(&verified.entry, &verified.wraps).expect("it was tried on this very state");
        self.hashes.push(verified.hash);
        self.places.insert(verified.hash, verified.entry.seq);
    }

    fn carry_out(&mut self, entry: &Entry, wraps: &[Wrap]) -> Result<(), RosterError> {
        if entry.operations.is_empty() || entry.operations.len() > OPERATIONS_MAX {
            return Err(RosterError::Limit("operations of an entry"));
        }
        let mut handouts = Handouts { wraps: wraps_by_handout(wraps), next: 0, used: 0 };
        for (place, operation) in entry.operations.iter().enumerate() {
            let founds = matches!(operation, Operation::Found { .. });
            if founds != (entry.seq == RosterSeq(0) && place == 0) {
                return Err(RosterError::NotAllowed("a space is founded once, by its first operation"));
            }
            if !founds && !self.is_owner(&entry.author, entry.seq) {
                return Err(RosterError::NotAllowed("only the owner's devices may do this"));
            }
            self.carry_out_one(entry, operation, &mut handouts)?;
        }
        if handouts.used != wraps.len() {
            return Err(RosterError::Wraps);
        }
        let recipients = self.streams.keys().map(|stream| self.recipients(stream).len()).max();
        if self.members.len() > MEMBERS_MAX
            || self.devices.len() > DEVICES_MAX
            || self.streams.len() > STREAMS_MAX
            || recipients > Some(RECIPIENTS_MAX)
        {
            return Err(RosterError::Limit("members, devices, streams or recipients"));
        }
        Ok(())
    }

    fn carry_out_one(
        &mut self,
        entry: &Entry,
        operation: &Operation,
        handouts: &mut Handouts<'_>,
    ) -> Result<(), RosterError> {
        let span = Span::since(entry.seq);
        if let Operation::Found { device: DeviceKeys { kem, .. }, .. }
        | Operation::AddDevice { device: DeviceKeys { kem, .. }, .. }
        | Operation::AddMember { kem, .. } = operation
            && kem.0.len() != KEM_KEY_BYTES
        {
            return Err(RosterError::NotAllowed("a key of another length"));
        }
        match operation {
            Operation::Found { nonce, device } => {
                let id = device.id();
                if id != entry.author || verify::space_id(&id, nonce) != self.space {
                    return Err(RosterError::OtherSpace);
                }
                let member = self.owner;
                self.devices.insert(id, Device { keys: device.clone(), member, span });
            }
            Operation::OpenStream { stream, owner_writes, key } => {
                if self.streams.contains_key(stream) || key.stream != *stream || key.epoch != Epoch(1) {
                    return Err(RosterError::NotAllowed("a stream is opened once, at epoch 1"));
                }
                handouts.expect(key, &self.recipients(stream))?;
                let epochs = vec![EpochKey { epoch: key.epoch, key_check: key.key_check, since: entry.seq }];
                let grants = BTreeMap::new();
                self.streams.insert(*stream, Stream { owner_writes: *owner_writes, span, epochs, grants });
            }
            Operation::AddMember { member, kind, kem } => {
                if *member == self.owner || self.members.contains_key(member) {
                    return Err(RosterError::NotAllowed("the member is there already"));
                }
                self.members.insert(*member, Member { kind: *kind, kem: kem.clone(), span });
            }
            Operation::AddDevice { member, device, keys } => {
                let id = device.id();
                if self.devices.contains_key(&id) {
                    return Err(RosterError::NotAllowed("the device is there already"));
                }
                if *member == self.owner {
                    let streams: Vec<_> = self.streams.keys().copied().collect();
                    let expected = streams.iter().flat_map(|stream| self.handouts_of(stream));
                    expect_all_epochs(expected, keys, &[Recipient::Device(id)].into(), handouts)?;
                } else if !self.members.contains_key(member) || !keys.is_empty() {
                    return Err(RosterError::NotAllowed("a member's device gets no keys of its own"));
                }
                self.devices.insert(id, Device { keys: device.clone(), member: *member, span });
            }
            Operation::Grant { stream, member, access, keys } => {
                let known = self.members.get(member).ok_or(RosterError::NotAllowed("no such member"))?;
                if known.kind == MemberKind::Supporter && *access == Access::Write {
                    return Err(RosterError::NotAllowed("a supporter reads only"));
                }
                expect_all_epochs(
                    self.handouts_of(stream),
                    keys,
                    &[Recipient::Member(*member)].into(),
                    handouts,
                )?;
                let stream = self.streams.get_mut(stream).ok_or(RosterError::NotAllowed("no such stream"))?;
                if stream.grants.insert(*member, (*access, span)).is_some() {
                    return Err(RosterError::NotAllowed("the member has that grant already"));
                }
            }
            Operation::Rotate { key } => {
                let recipients = self.recipients(&key.stream);
                handouts.expect(key, &recipients)?;
                let stream =
                    self.streams.get_mut(&key.stream).ok_or(RosterError::NotAllowed("no such stream"))?;
                let newest = stream.epochs.last().map_or(0, |last| last.epoch.0);
                if key.epoch.0 <= newest || key.epoch.0 - newest > EPOCH_STEP_MAX {
                    return Err(RosterError::NotAllowed("an epoch follows closely on the one before"));
                }
                stream.epochs.push(EpochKey { epoch: key.epoch, key_check: key.key_check, since: entry.seq });
            }
        }
        Ok(())
    }

    fn handouts_of(&self, stream: &StreamId) -> impl Iterator<Item = (StreamId, Epoch, Hash)> {
        self.epochs(stream).iter().map(|key| (*stream, key.epoch, key.key_check))
    }
}

/// Checks that handouts are exactly the expected epochs, each wrapped to exactly these recipients.
fn expect_all_epochs(
    expected: impl Iterator<Item = (StreamId, Epoch, Hash)>,
    keys: &[KeyHandout],
    recipients: &BTreeSet<Recipient>,
    handouts: &mut Handouts<'_>,
) -> Result<(), RosterError> {
    let given = keys.iter().map(|key| (key.stream, key.epoch, key.key_check));
    if !expected.eq(given) {
        return Err(RosterError::NotAllowed("keys are handed out for every epoch, as they were made"));
    }
    keys.iter().try_for_each(|key| handouts.expect(key, recipients))
}

/// An entry's wraps by the handout that they belong to.
fn wraps_by_handout(wraps: &[Wrap]) -> BTreeMap<u16, Vec<&Wrap>> {
    let mut sorted: BTreeMap<u16, Vec<&Wrap>> = BTreeMap::new();
    for wrap in wraps {
        sorted.entry(wrap.handout).or_default().push(wrap);
    }
    sorted
}

/// Walks through an entry's handouts and the wraps that belong to each.
struct Handouts<'a> {
    wraps: BTreeMap<u16, Vec<&'a Wrap>>,
    next: u16,
    used: usize,
}

impl Handouts<'_> {
    fn expect(&mut self, key: &KeyHandout, recipients: &BTreeSet<Recipient>) -> Result<(), RosterError> {
        let mine = self.wraps.remove(&self.next).unwrap_or_default();
        let named: BTreeSet<_> = mine.iter().map(|wrap| wrap.recipient).collect();
        if named.len() != mine.len()
            || named != *recipients
            || mine.iter().any(|wrap| wrap.bytes.len() != WRAP_BYTES)
            || wraps_hash(mine.iter().copied()) != key.wraps_hash
        {
            return Err(RosterError::Wraps);
        }
        self.next = self.next.checked_add(1).ok_or(RosterError::Limit("handouts of an entry"))?;
        self.used += mine.len();
        Ok(())
    }
}

/// An entry that its roster verified.
#[derive(Clone, Debug)]
pub struct VerifiedEntry {
    signed: Verified<SignedEntry>,
    entry: Entry,
    wraps: Vec<Wrap>,
    hash: Hash,
}

impl VerifiedEntry {
    /// What it says.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Its hash.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Every handout of the entry with the wraps that belong to it, in order.
    pub fn handouts(&self) -> impl Iterator<Item = (&KeyHandout, Vec<&Wrap>)> {
        let keys = self.entry.operations.iter().flat_map(|operation| match operation {
            Operation::Found { .. } | Operation::AddMember { .. } => &[][..],
            Operation::OpenStream { key, .. } | Operation::Rotate { key } => std::slice::from_ref(key),
            Operation::AddDevice { keys, .. } | Operation::Grant { keys, .. } => keys,
        });
        let mut wraps = wraps_by_handout(&self.wraps);
        keys.zip(0..).map(move |(key, place)| (key, wraps.remove(&place).unwrap_or_default()))
    }

    /// The entry and its wraps, as they travel.
    #[must_use]
    pub fn to_wire(&self) -> EntryWithWraps {
        EntryWithWraps { entry: (*self.signed).clone(), wraps: self.wraps.clone() }
    }
}

/// Why an entry does not go on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    /// The very entry is in the chain: acknowledge it again.
    #[error("the entry is in the chain already")]
    Known,
    /// The entry follows on another head than this roster's.
    #[error("the roster has moved on from this entry")]
    Moved,
    /// Bytes of a later version, or damaged.
    #[error("the entry is of no version known here: update")]
    Undecodable,
    /// The entry belongs to another space, or pretends to found one.
    #[error("the entry belongs to another space")]
    OtherSpace,
    /// The signature is not the author's.
    #[error(transparent)]
    Signature(#[from] BadSignature),
    /// The operation is not this author's to do, or does not fit the state.
    #[error("not allowed: {0}")]
    NotAllowed(&'static str),
    /// The wraps are not those that the entry signed, or not for exactly the right recipients.
    #[error("the wrapped keys are not what the entry says")]
    Wraps,
    /// More than the protocol allows.
    #[error("over the limit: {0}")]
    Limit(&'static str),
}
