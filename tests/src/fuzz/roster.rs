//! Rosters: chains of entries, sound and unsound, from the owner's devices, from members and from strangers,
//! held against a model in the plainest code.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

use ebb_protocol::{
    id::{DeviceId, Epoch, Hash, MemberId, Millis, RosterSeq, SpaceId, StreamId},
    roster::{
        self, Access, Entry, EntryWithWraps, KemKey, KeyHandout, MemberKind, Operation, Recipient, Roster,
        RosterError, SealedNote,
    },
    verify,
    wire::{self, DEVICES_MAX, EPOCH_STEP_MAX, MEMBERS_MAX, RECIPIENTS_MAX, STREAMS_MAX},
};

use super::{
    Feed,
    kit::{Device, Draft},
};

/// Devices that take part; number 0 founds the space.
const DEVICES: usize = 6;
const STREAMS: usize = 4;
const MEMBERS: usize = 3;
/// Entries tried in one run: a chain this long has met every operation on every other.
const ENTRIES_MAX: usize = 24;
const NONCE: [u8; 16] = [4; 16];

/// Signs entries as the program says and offers them to a roster.
///
/// What is sound in every part is taken, and nothing else is: each operation is held against a model. Who
/// did not sign as one of the owner's devices adds nothing. The state is that of a replay from the start,
/// what was true at an entry stays true of it, and what was taken travels on as the very bytes.
pub fn roster(bytes: &[u8]) {
    let feed = &mut Feed::new(bytes);
    let mut world = World::new();
    for _ in 0..ENTRIES_MAX {
        if feed.is_over() {
            break;
        }
        world.offer_one(feed);
    }
    world.check();
}

fn devices() -> &'static [Device] {
    static DEVICES_MADE: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES_MADE.get_or_init(|| (1..=DEVICES as u8).map(Device::new).collect())
}

fn stream(place: usize) -> StreamId {
    StreamId([0xa1 + place as u8; 16])
}

fn member(place: usize) -> MemberId {
    MemberId([0xc1 + place as u8; 16])
}

/// What the chain should amount to, by the rules as the book tells them.
#[derive(Clone, Default)]
struct Model {
    devices: BTreeMap<DeviceId, MemberId>,
    members: BTreeMap<MemberId, MemberKind>,
    streams: BTreeMap<StreamId, ModelStream>,
}

#[derive(Clone)]
struct ModelStream {
    owner_writes: bool,
    epochs: Vec<(Epoch, Hash)>,
    grants: BTreeMap<MemberId, Access>,
}

impl Model {
    fn is_owner(&self, device: &DeviceId, owner: &MemberId) -> bool {
        self.devices.get(device) == Some(owner)
    }

    fn recipients(&self, stream: &StreamId, owner: &MemberId) -> BTreeSet<Recipient> {
        let owners = self.devices.iter().filter(|(_, of)| *of == owner).map(|(id, _)| Recipient::Device(*id));
        let granted = self.streams.get(stream).into_iter().flat_map(|stream| stream.grants.keys());
        owners.chain(granted.map(|member| Recipient::Member(*member))).collect()
    }

    fn epochs_of(&self, streams: &[StreamId]) -> Vec<(StreamId, Epoch, Hash)> {
        let known = streams.iter().filter_map(|id| Some((id, self.streams.get(id)?)));
        known
            .flat_map(|(id, stream)| stream.epochs.iter().map(|(epoch, check)| (*id, *epoch, *check)))
            .collect()
    }

    /// Carries an operation out, if it is allowed; who may do it was asked before.
    fn carry_out(&mut self, operation: &Operation, owner: &MemberId) -> bool {
        let given = |keys: &[KeyHandout]| -> Vec<_> {
            keys.iter().map(|key| (key.stream, key.epoch, key.key_check)).collect()
        };
        match operation {
            Operation::Found { .. } => false,
            Operation::OpenStream { stream, owner_writes, key } => {
                let fits = key.stream == *stream && key.epoch == Epoch(1);
                let epochs = vec![(key.epoch, key.key_check)];
                let opened = ModelStream { owner_writes: *owner_writes, epochs, grants: BTreeMap::new() };
                fits && !self.streams.contains_key(stream) && self.streams.insert(*stream, opened).is_none()
            }
            Operation::AddMember { member, kind, .. } => {
                member != owner
                    && !self.members.contains_key(member)
                    && self.members.insert(*member, *kind).is_none()
            }
            Operation::AddDevice { member, device, keys } => {
                let all: Vec<_> = self.streams.keys().copied().collect();
                let expected = if member == owner { self.epochs_of(&all) } else { Vec::new() };
                let known = member == owner || self.members.contains_key(member);
                let fits = known && given(keys) == expected && !self.devices.contains_key(&device.id());
                fits && self.devices.insert(device.id(), *member).is_none()
            }
            Operation::Grant { stream, member, access, keys } => {
                let expected = self.epochs_of(&[*stream]);
                let allowed = match self.members.get(member) {
                    Some(MemberKind::Clinic) => true,
                    Some(MemberKind::Supporter) => *access == Access::Read,
                    None => false,
                };
                let Some(stream) = self.streams.get_mut(stream).filter(|_| allowed) else { return false };
                given(keys) == expected && stream.grants.insert(*member, *access).is_none()
            }
            Operation::Rotate { key } => {
                let Some(stream) = self.streams.get_mut(&key.stream) else { return false };
                let newest = stream.epochs.last().map_or(0, |(epoch, _)| epoch.0);
                let fits = key.epoch.0 > newest && key.epoch.0 - newest <= EPOCH_STEP_MAX;
                stream.epochs.push((key.epoch, key.key_check));
                fits
            }
        }
    }

    fn access(&self, device: &DeviceId, stream: &StreamId, owner: &MemberId) -> Option<Access> {
        let (member, stream) = (self.devices.get(device)?, self.streams.get(stream)?);
        match (member == owner, stream.owner_writes) {
            (true, true) => Some(Access::Write),
            (true, false) => Some(Access::Read),
            (false, _) => stream.grants.get(member).copied(),
        }
    }
}

struct World {
    space: SpaceId,
    owner: MemberId,
    roster: Roster,
    chain: Vec<EntryWithWraps>,
    /// The model after each entry of the chain.
    models: Vec<Model>,
    /// Everything offered, taken or not, to be offered again.
    offered: Vec<EntryWithWraps>,
}

impl World {
    /// A space that device 0 founded.
    fn new() -> Self {
        static FOUNDED: OnceLock<EntryWithWraps> = OnceLock::new();
        let founder = &devices()[0];
        let space = verify::space_id(&founder.id(), &NONCE);
        let owner = verify::owner_of(&space);
        let mut world = Self {
            space,
            owner,
            roster: Roster::new(space),
            chain: Vec::new(),
            models: Vec::new(),
            offered: Vec::new(),
        };
        let founding = FOUNDED.get_or_init(|| {
            let draft = Draft::default().found(founder);
            founder.sign(&world.entry(founder, draft.operations), draft.wraps)
        });
        let verified = world.roster.verify(founding.clone()).expect("a founding entry");
        world.roster.apply(&verified);
        world.chain.push(founding.clone());
        let mut model = Model::default();
        model.devices.insert(founder.id(), owner);
        world.models.push(model);
        world
    }

    fn model(&self) -> &Model {
        self.models.last().expect("the space is founded")
    }

    /// The entry that comes next.
    fn entry(&self, author: &Device, operations: Vec<Operation>) -> Entry {
        Entry {
            version: roster::VERSION,
            space: self.space,
            seq: self.roster.next_seq(),
            prev: self.roster.prev(),
            author: author.id(),
            time: Millis(1),
            operations,
            sealed: Vec::new(),
        }
    }

    /// Signs an entry, as it should be or not, and offers it.
    fn offer_one(&mut self, feed: &mut Feed<'_>) {
        // Mostly the founder, or a chain would hardly grow.
        let author = devices().get(feed.below(4 * DEVICES)).unwrap_or(&devices()[0]);
        let mut draft = Draft::default();
        let mut model = self.model().clone();
        let mut is_sound = model.is_owner(&author.id(), &self.owner);
        for _ in 0..=feed.below(3) {
            let (operation, reaches_all) = self.operation(feed, &mut draft, &model);
            is_sound &= model.carry_out(&operation, &self.owner) && reaches_all;
            draft.operations.push(operation);
        }
        let mut entry = self.entry(author, std::mem::take(&mut draft.operations));
        let mut signer = author;
        let honest_entry = entry.clone();
        let honest_wraps = draft.wraps.clone();
        match feed.below(64) {
            1 => entry.seq = RosterSeq(u64::from(feed.byte())),
            2 => entry.prev = self.roster.hash_at(RosterSeq(u64::from(feed.byte()))).unwrap_or(Hash::ZERO),
            3 => entry.space = SpaceId([feed.byte(); 16]),
            4 => entry.version = feed.byte(),
            5 => signer = &devices()[feed.below(DEVICES)],
            6 => entry.operations.clear(),
            7 => drop(draft.wraps.pop()),
            8 => draft.wraps.extend(draft.wraps.first().cloned()),
            // Their order says nothing: each names its handout and its recipient.
            9 => draft.wraps.reverse(),
            10 => draft.wraps.iter_mut().for_each(|wrap| wrap.handout = u16::from(feed.byte())),
            11 => draft.wraps.iter_mut().take(1).for_each(|wrap| wrap.bytes.push(0)),
            12 => entry.operations.insert(0, Operation::Found { nonce: NONCE, device: author.keys.clone() }),
            // Notes are sealed: nothing of them is judged.
            13 => entry.sealed.push(SealedNote {
                stream: stream(0),
                epoch: Epoch(u32::from(feed.byte())),
                bytes: feed.take(32).to_vec(),
            }),
            14 => entry.author = devices()[feed.below(DEVICES)].id(),
            _ => {}
        }
        entry.time = Millis(u64::from(feed.byte()));
        is_sound &= std::ptr::eq(signer, author) && sorted(&draft.wraps) == sorted(&honest_wraps);
        is_sound &= Entry { time: honest_entry.time, sealed: Vec::new(), ..entry.clone() } == honest_entry;
        let signed = signer.sign(&entry, draft.wraps);
        match feed.below(12) {
            1 => self.offer_damaged(feed, &signed),
            2 => {
                let again = feed.below(self.offered.len() + 1);
                if let Some(again) = self.offered.get(again).cloned() {
                    self.offer_again(again);
                }
            }
            _ => {}
        }
        self.offered.push(signed.clone());
        self.offer(signed, is_sound.then_some(model));
    }

    /// An operation that mostly fits, with the wraps of what it hands out; and whether a key for all of a
    /// stream's readers is wrapped to all of them, which the model does not look at.
    fn operation(&self, feed: &mut Feed<'_>, draft: &mut Draft, model: &Model) -> (Operation, bool) {
        let stream = stream(feed.below(STREAMS));
        // The owner, too, may be named where only others fit.
        let named = feed.below(MEMBERS + 1);
        let member = if named == MEMBERS { self.owner } else { member(named) };
        let leaves_one_out = feed.one_in(16);
        let recipients = model.recipients(&stream, &self.owner).into_iter();
        let to: Vec<_> = recipients.skip(usize::from(leaves_one_out)).collect();
        let mut hand_out = |of: Vec<(StreamId, Epoch, Hash)>, to: &[Recipient]| -> Vec<KeyHandout> {
            of.into_iter().map(|(stream, epoch, _)| draft.handout(stream, epoch.0, to)).collect()
        };
        let operation = match feed.below(6) {
            0 => {
                let key = draft.handout(stream, if feed.one_in(8) { 2 } else { 1 }, &to);
                Operation::OpenStream { stream, owner_writes: !feed.one_in(4), key }
            }
            1 => {
                let kind = feed.pick(&[MemberKind::Clinic, MemberKind::Supporter]);
                Operation::AddMember { member, kind, kem: KemKey(vec![feed.byte(); 65]) }
            }
            2 => {
                let device = &devices()[feed.below(DEVICES)];
                let all: Vec<_> = model.streams.keys().copied().collect();
                let mut expected = if member == self.owner { model.epochs_of(&all) } else { Vec::new() };
                if feed.one_in(8) {
                    expected.pop();
                }
                let keys = hand_out(expected, &[Recipient::Device(device.id())]);
                Operation::AddDevice { member, device: device.keys.clone(), keys }
            }
            3 => {
                let access = feed.pick(&[Access::Read, Access::Write]);
                let mut expected = model.epochs_of(&[stream]);
                if feed.one_in(8) {
                    expected.reverse();
                }
                let keys = hand_out(expected, &[Recipient::Member(member)]);
                Operation::Grant { stream, member, access, keys }
            }
            _ => {
                let newest = model.streams.get(&stream).and_then(|stream| stream.epochs.last());
                let newest = newest.map_or(0, |(epoch, _)| epoch.0);
                let step = feed.pick(&[1, 1, 1, 2, 0, EPOCH_STEP_MAX, EPOCH_STEP_MAX + 1]);
                Operation::Rotate { key: draft.handout(stream, newest.saturating_add(step), &to) }
            }
        };
        let for_all = matches!(operation, Operation::OpenStream { .. } | Operation::Rotate { .. });
        (operation, !(for_all && leaves_one_out))
    }

    /// Offers an entry of which the model says what becomes of it.
    fn offer(&mut self, signed: EntryWithWraps, model: Option<Model>) {
        let verified = self.roster.verify(signed.clone());
        match (verified, model) {
            (Ok(verified), Some(model)) => {
                assert_eq!(verified.to_wire(), signed, "it travels on as it came");
                assert_eq!(verified.hash(), signed.entry.hash());
                let handed: usize = verified.handouts().map(|(_, wraps)| wraps.len()).sum();
                assert_eq!(handed, signed.wraps.len(), "every wrap belongs to a handout");
                self.roster.apply(&verified);
                self.chain.push(signed);
                self.models.push(model);
                assert_eq!(self.roster.head().map(|head| head.hash), Some(verified.hash()));
            }
            (Err(_), None) => {}
            (Ok(_), None) => panic!("an unsound entry is taken: {:?}", signed.entry.entry()),
            (Err(error), Some(_)) => {
                panic!("a sound entry is not taken ({error}): {:?}", signed.entry.entry());
            }
        }
    }

    /// Damages an entry under way: nobody takes it but as what it was.
    fn offer_damaged(&mut self, feed: &mut Feed<'_>, signed: &EntryWithWraps) {
        let mut bytes = wire::encode(signed);
        feed.damage(&mut bytes);
        let Ok(damaged) = wire::decode::<EntryWithWraps>(&bytes) else { return };
        if sorted(&damaged.wraps) != sorted(&signed.wraps) || damaged.entry != signed.entry {
            let taken = self.roster.verify(damaged);
            assert!(taken.is_err(), "what nobody signed is taken");
        }
    }

    /// What was taken once is known; what was not may have become sound or have come too late.
    fn offer_again(&mut self, again: EntryWithWraps) {
        let known = self.roster.place(&again.entry.hash()).is_some();
        match self.roster.verify(again) {
            Err(RosterError::Known) => assert!(known),
            Err(_) => assert!(!known),
            Ok(_) => panic!("what was refused on its own head is taken on another"),
        }
    }

    /// The whole, at the end.
    fn check(&self) {
        let mut replayed = Roster::new(self.space);
        for entry in &self.chain {
            let verified = replayed.verify(entry.clone()).expect("it was taken once");
            replayed.apply(&verified);
        }
        assert_eq!(replayed, self.roster, "a replay comes to the same");
        assert!(self.roster.devices().count() <= DEVICES_MAX && self.roster.streams().count() <= STREAMS_MAX);
        for (at, model) in self.models.iter().enumerate() {
            let at = RosterSeq(at as u64);
            assert!(model.members.len() <= MEMBERS_MAX);
            for device in devices().iter().map(Device::id) {
                assert_eq!(self.roster.is_owner(&device, at), model.is_owner(&device, &self.owner));
                for stream in (0..STREAMS).map(stream) {
                    let access = model.access(&device, &stream, &self.owner);
                    assert_eq!(self.roster.may_read(&device, &stream, at), access.is_some());
                    assert_eq!(self.roster.may_write(&device, &stream, at), access == Some(Access::Write));
                    let newest = model.streams.get(&stream).and_then(|stream| stream.epochs.last().copied());
                    let epoch = self.roster.epoch_at(&stream, at).map(|key| (key.epoch, key.key_check));
                    assert_eq!(epoch, newest, "what was true at an entry stays true of it");
                }
            }
        }
        for stream in self.roster.streams() {
            let recipients = self.roster.recipients(&stream);
            assert_eq!(recipients, self.model().recipients(&stream, &self.owner));
            assert!(recipients.len() <= RECIPIENTS_MAX);
        }
    }
}

fn sorted(wraps: &[roster::Wrap]) -> Vec<roster::Wrap> {
    let mut sorted = wraps.to_vec();
    sorted.sort();
    sorted
}
