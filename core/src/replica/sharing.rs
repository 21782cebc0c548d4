//! Membership: founding a space, cards and tickets, grants, devices, rotation.
//!
//! What the owner decides is an [`Intent`]. It becomes a signed entry on top of the newest chain; when
//! somebody else's entry got there first, the same intent is validated and signed again.

use ebb_protocol::{
    id::{Epoch, Hash, MemberId, Millis, RosterSeq, SpaceId, StreamId},
    roster::{
        self, Access, DeviceKeys, Entry, EntryWithWraps, KemKey, KeyHandout, MemberKind, Operation,
        Recipient, Roster, RosterError, SealedNote, SignedEntry, Wrap,
    },
    verify, wire,
};
use serde::{Deserialize, Serialize};

use super::engine::{Engine, Event, add_streams};
use crate::{
    error::{Cause, Error, Result},
    keys::{self, DeviceSecrets, Entropy, EpochKey, KemSecret, WrapContext},
    record::Category,
    seal,
    store::{Tx, keyring},
};

/// Characters to which labels are padded: more than the longest.
const LABEL_CHARS: usize = 32;

/// By which others know a device, and the clinic whose desk it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// The device's public keys.
    pub device: DeviceKeys,
    /// The clinic, if the device is a clinic's desk.
    pub clinic: Option<(MemberId, KemKey)>,
}

/// By which another device finds a patient's space, and knows it for the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The space.
    pub space: SpaceId,
    /// The hash of its founding entry.
    pub found: Hash,
}

macro_rules! text {
    ($type:ident, $prefix:literal) => {
        impl std::fmt::Display for $type {
            /// The text form, for a QR code or a file.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str($prefix)?;
                wire::encode(self).iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl std::str::FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                let bytes = text.trim().strip_prefix($prefix).and_then(from_hex);
                bytes
                    .and_then(|bytes| wire::decode(&bytes).ok())
                    .ok_or_else(|| Error::fix("text", concat!("the whole text, beginning with ", $prefix)))
            }
        }
    };
}

text!(Card, "ebb-card-1-");
text!(Ticket, "ebb-ticket-1-");

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| u8::try_from(digit(high)? << 4 | digit(low)?).ok()).collect()
}

/// What the owner wants of the roster, apart from the chain on which it will stand.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Intent {
    AddMember { member: MemberId, kind: MemberKind, kem: KemKey },
    AddDevice { member: MemberId, device: DeviceKeys },
    Grant { stream: StreamId, member: MemberId, access: Access },
    Rotate { stream: StreamId },
}

impl Engine {
    pub(super) fn card(&self) -> Card {
        let clinic = self.clinic.as_ref().map(|(member, kem)| (*member, kem.public().clone()));
        Card { device: self.secrets.public().clone(), clinic }
    }

    pub(super) fn ticket(&self) -> Result<Ticket> {
        let space = self.space(&self.own()?)?;
        let found = space.roster.hash_at(RosterSeq(0)).or(space.found);
        let found = found.ok_or_else(|| Error::bug("an own space was neither founded nor joined"))?;
        Ok(Ticket { space: space.id, found })
    }

    pub(super) fn follow(&mut self, ticket: &Ticket) -> Result<SpaceId> {
        if self.clinic.is_none() {
            return Err(Error::fix(
                "replica",
                "a clinic's: a patient's device joins when it is first opened",
            ));
        }
        self.store.write(|tx| Ok(keyring::add_space(tx, &ticket.space, false, Some(&ticket.found))?))?;
        self.reload_space(&ticket.space)?;
        Ok(ticket.space)
    }

    pub(super) fn grant(&mut self, clinic: &Card, categories: &[Category]) -> Result<()> {
        let Some((member, kem)) = clinic.clinic.clone() else {
            return Err(Error::fix("clinic", "the card of a clinic's desk"));
        };
        let space = self.space(&self.own()?)?;
        let mut intents = Vec::new();
        if space.roster.member(&member).is_none() {
            intents.push(Intent::AddMember { member, kind: MemberKind::Clinic, kem });
        }
        if space.roster.device(&clinic.device.id()).is_none() {
            intents.push(Intent::AddDevice { member, device: clinic.device.clone() });
        }
        for category in categories {
            if *category == Category::Private {
                return Err(Error::fix("categories", "any but private, which is never shared"));
            }
            let stream = space.stream(*category).ok_or_else(|| unknown_category(*category))?;
            let access = if category.clinic_writes() { Access::Write } else { Access::Read };
            intents.push(Intent::Grant { stream, member, access });
        }
        self.sign(&intents)
    }

    pub(super) fn add_device(&mut self, device: &Card) -> Result<()> {
        if device.clinic.is_some() {
            return Err(Error::fix("device", "the card of a patient's device"));
        }
        let space = self.space(&self.own()?)?;
        let member = space.roster.owner();
        if space.roster.device(&device.device.id()).is_some() {
            return Err(Error::fix("device", "one that is not in the space yet"));
        }
        self.sign(&[Intent::AddDevice { member, device: device.device.clone() }])
    }

    pub(super) fn rotate(&mut self, category: Category) -> Result<()> {
        let space = self.space(&self.own()?)?;
        let stream = space.stream(category).ok_or_else(|| unknown_category(category))?;
        self.sign(&[Intent::Rotate { stream }])
    }

    /// Signs what the owner wants as one entry on top of the chain, pending until the server has it.
    fn sign(&mut self, intents: &[Intent]) -> Result<()> {
        let id = self.own()?;
        let now = self.clock.now();
        let space = self.space(&id)?;
        if space.frozen {
            return Err(Error::Reenrol(Cause::new("the device was restored or copied")));
        }
        let roster = space.roster.clone();
        if !roster.is_owner(&self.secrets.id(), roster.next_seq()) {
            return Err(Error::retry("this device has not been added to the space yet: sync first"));
        }
        let Self { store, secrets, entropy, .. } = self;
        store.write(|tx| {
            sign_on_top(tx, &roster, intents, secrets, now, entropy.as_mut())?;
            Ok(())
        })?;
        self.reload_space(&id)
    }

    /// Takes roster entries from the server: verified, stored, their keys unwrapped. Entries that only
    /// this device has are signed again on top.
    pub(super) fn keep_roster(&mut self, frame: wire::RosterFrame) -> Result<()> {
        let space = self.space(&frame.space)?;
        let (id, found, pending) = (space.id, space.found, space.pending.clone());
        let mut settled = space.settled.clone();
        let mut fresh = Vec::new();
        for entry in frame.entries {
            match settled.verify(entry) {
                Ok(verified) => {
                    let first = verified.entry().seq == RosterSeq(0);
                    if first && found.is_some_and(|found| found != verified.hash()) {
                        return Err(Error::bug("the server offers another space under this id"));
                    }
                    settled.apply(&verified);
                    fresh.push(verified);
                }
                Err(RosterError::Known) => {}
                Err(error) => return Err(Error::bug(error)),
            }
        }
        if fresh.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        let Self { store, secrets, clinic, entropy, .. } = self;
        store.write(|tx| {
            keyring::drop_pending_roster(tx, &id)?;
            for verified in &fresh {
                keyring::put_roster_entry(tx, &id, verified.entry().seq, &verified.to_wire(), true)?;
            }
            add_streams(tx, &settled)?;
            learn_keys(tx, &settled, secrets, clinic.as_ref().map_or(secrets.kem(), |(_, kem)| kem))?;
            let mut on_top = settled.clone();
            for pending in &pending {
                let entry = pending.entry.entry().map_err(Error::bug)?;
                if settled.hash_at(entry.seq) == Some(pending.entry.hash()) {
                    continue; // the server had it, and its word was lost
                }
                if let Ok(verified) = on_top.verify(pending.clone()) {
                    // It stands where it stood, and may be on its way.
                    keyring::put_roster_entry(tx, &id, entry.seq, pending, false)?;
                    on_top.apply(&verified);
                    continue;
                }
                let intents = intents_of(&entry);
                if let Some(next) = sign_on_top(tx, &on_top, &intents, secrets, now, entropy.as_mut())? {
                    on_top = next;
                }
            }
            Ok(())
        })?;
        self.reload_space(&id)?;
        if let Some(space) = self.spaces.get_mut(&id) {
            // What the server sent it holds.
            space.server_roster = Some(space.settled.head().map(|head| head.seq));
        }
        self.events.push(Event::Delivery(id));
        self.look_again(&id)
    }

    pub(super) fn keep_roster_ack(&mut self, head: &wire::RosterHead) -> Result<()> {
        let Some(space) = self.spaces.get(&head.space) else { return Ok(()) };
        if space.roster.hash_at(head.seq) != Some(head.hash) {
            return Err(Error::retry("the server holds another roster entry: meet it anew"));
        }
        self.store.write(|tx| Ok(keyring::settle_roster(tx, &head.space, head.seq)?))?;
        self.reload_space(&head.space)?;
        if let Some(space) = self.spaces.get_mut(&head.space) {
            space.server_roster = Some(Some(head.seq));
        }
        self.look_again(&head.space)
    }
}

fn unknown_category(category: Category) -> Error {
    Error::fix(
        "category",
        format!("one that this space has; {} is not open to this device", category.label()),
    )
}

/// Founds a patient's space: every stream opened, its key made and wrapped to this one device.
pub(super) fn found(
    tx: &Tx<'_>,
    secrets: &DeviceSecrets,
    now: Millis,
    entropy: &mut dyn Entropy,
) -> Result<()> {
    let mut nonce = [0; 16];
    entropy.fill(&mut nonce);
    let device = secrets.public().clone();
    let space = verify::space_id(&device.id(), &nonce);
    keyring::add_space(tx, &space, true, None)?;
    let mut draft = Draft::new(tx, Roster::new(space), secrets, entropy);
    draft.operations.push(Operation::Found { nonce, device });
    let me = Recipient::Device(secrets.id());
    let kem = &secrets.public().kem;
    let mut streams = Category::ALL.map(|category| {
        let mut stream = [0; 16];
        draft.entropy.fill(&mut stream);
        (StreamId(stream), category)
    });
    // In order of their random ids: a stream's place in the entry says nothing of its category.
    streams.sort_unstable_by_key(|(stream, _)| *stream);
    for (stream, category) in streams {
        let key = EpochKey::make_epoch_key(draft.entropy);
        let handout = draft.hand_out(&stream, Epoch(1), &key, &[(me, kem)])?;
        draft.note(&stream, Epoch(1), &key, category.label());
        let owner_writes = category.patient_writes();
        draft.operations.push(Operation::OpenStream { stream, owner_writes, key: handout });
        keyring::add_stream(tx, &space, &stream, &ebb_protocol::envelope::chain_start(&space, &stream))?;
        keyring::set_label(tx, &space, &stream, category.label())?;
    }
    draft.finish(now)?;
    Ok(())
}

/// Signs intents as one entry on top of a roster and stores it as pending; `None` if nothing of them
/// is left to be done there.
fn sign_on_top(
    tx: &Tx<'_>,
    roster: &Roster,
    intents: &[Intent],
    secrets: &DeviceSecrets,
    now: Millis,
    entropy: &mut dyn Entropy,
) -> Result<Option<Roster>> {
    let space = roster.space();
    let mut draft = Draft::new(tx, roster.clone(), secrets, entropy);
    for intent in intents {
        match intent {
            Intent::AddMember { member, kind, kem } => {
                if roster.member(member).is_none() {
                    let (member, kind, kem) = (*member, *kind, kem.clone());
                    draft.operations.push(Operation::AddMember { member, kind, kem });
                }
            }
            Intent::AddDevice { member, device } => {
                if roster.device(&device.id()).is_some() {
                    continue;
                }
                let mut keys = Vec::new();
                if *member == roster.owner() {
                    let to = Recipient::Device(device.id());
                    for stream in roster.streams() {
                        keys.extend(draft.hand_out_history(&stream, (to, &device.kem))?);
                    }
                }
                let (member, device) = (*member, device.clone());
                draft.operations.push(Operation::AddDevice { member, device, keys });
            }
            Intent::Grant { stream, member, access } => {
                let to = Recipient::Member(*member);
                if roster.recipients(stream).contains(&to) {
                    continue;
                }
                let kem = intents.iter().find_map(|intent| match intent {
                    Intent::AddMember { member: added, kem, .. } if added == member => Some(kem),
                    _ => None,
                });
                let Some(kem) = roster.kem(&to).or(kem) else { continue };
                let keys = draft.hand_out_history(stream, (to, kem))?;
                let (stream, member, access) = (*stream, *member, *access);
                draft.operations.push(Operation::Grant { stream, member, access, keys });
            }
            Intent::Rotate { stream } => {
                let Some(newest) = roster.epoch(stream) else { continue };
                let epoch = newest.epoch.next();
                let key = EpochKey::make_epoch_key(draft.entropy);
                let recipients = roster.recipients(stream);
                let to: Vec<_> = recipients.iter().filter_map(|to| Some((*to, roster.kem(to)?))).collect();
                let handout = draft.hand_out(stream, epoch, &key, &to)?;
                let label = keyring::streams(tx, &space)?.into_iter().find(|row| row.id == *stream);
                if let Some(label) = label.and_then(|row| row.label) {
                    draft.note(stream, epoch, &key, &label);
                }
                draft.operations.push(Operation::Rotate { key: handout });
            }
        }
    }
    if draft.operations.is_empty() { Ok(None) } else { draft.finish(now).map(Some) }
}

/// What a signed entry was meant to do.
fn intents_of(entry: &Entry) -> Vec<Intent> {
    let intent = |operation: &Operation| match operation {
        // A founding cannot be overtaken: nobody else can found this space.
        Operation::Found { .. } | Operation::OpenStream { .. } => None,
        Operation::AddMember { member, kind, kem } => {
            Some(Intent::AddMember { member: *member, kind: *kind, kem: kem.clone() })
        }
        Operation::AddDevice { member, device, .. } => {
            Some(Intent::AddDevice { member: *member, device: device.clone() })
        }
        Operation::Grant { stream, member, access, .. } => {
            Some(Intent::Grant { stream: *stream, member: *member, access: *access })
        }
        Operation::Rotate { key } => Some(Intent::Rotate { stream: key.stream }),
    };
    entry.operations.iter().filter_map(intent).collect()
}

/// An entry in the making, with the keys that it hands out.
struct Draft<'a> {
    tx: &'a Tx<'a>,
    roster: Roster,
    secrets: &'a DeviceSecrets,
    entropy: &'a mut dyn Entropy,
    operations: Vec<Operation>,
    sealed: Vec<SealedNote>,
    wraps: Vec<Wrap>,
    handouts: u16,
}

impl<'a> Draft<'a> {
    fn new(tx: &'a Tx<'a>, roster: Roster, secrets: &'a DeviceSecrets, entropy: &'a mut dyn Entropy) -> Self {
        let (operations, sealed, wraps) = (Vec::new(), Vec::new(), Vec::new());
        Self { tx, roster, secrets, entropy, operations, sealed, wraps, handouts: 0 }
    }

    /// Wraps a key to recipients, and keeps it.
    fn hand_out(
        &mut self,
        stream: &StreamId,
        epoch: Epoch,
        key: &EpochKey,
        to: &[(Recipient, &KemKey)],
    ) -> Result<KeyHandout> {
        let space = self.roster.space();
        let key_check = key.derive_key_check(&space, stream, epoch);
        let mut handout = KeyHandout { stream: *stream, epoch, key_check, wraps_hash: Hash::ZERO };
        let mut wraps = Vec::new();
        for (recipient, kem) in to {
            let context = wrap_context(&space, &handout, *recipient, self.roster.prev());
            let bytes = keys::wrap(key, kem, &context)
                .map_err(|_| Error::fix("card", "a card with valid keys: ask for it again"))?;
            wraps.push(Wrap { handout: self.handouts, recipient: *recipient, bytes });
        }
        handout.wraps_hash = roster::wraps_hash(&wraps);
        put_key(self.tx, &space, &handout, key)?;
        self.wraps.extend(wraps);
        self.handouts += 1;
        Ok(handout)
    }

    /// Wraps every key that a stream ever had to one recipient.
    fn hand_out_history(&mut self, stream: &StreamId, to: (Recipient, &KemKey)) -> Result<Vec<KeyHandout>> {
        let space = self.roster.space();
        let epochs = self.roster.epochs(stream).to_vec();
        let mut keys = Vec::with_capacity(epochs.len());
        for epoch in epochs {
            let bytes = keyring::epoch_key(self.tx, &space, stream, epoch.epoch, &epoch.key_check)?;
            let bytes = bytes.ok_or_else(|| Error::retry("a key has not arrived yet: sync first"))?;
            let key = EpochKey::from_bytes(&bytes).map_err(Error::bug)?;
            keys.push(self.hand_out(stream, epoch.epoch, &key, &[to])?);
        }
        Ok(keys)
    }

    fn note(&mut self, stream: &StreamId, epoch: Epoch, key: &EpochKey, label: &str) {
        // All labels are of one length, so that a sealed one gives nothing away.
        let text = format!("{label:LABEL_CHARS$}");
        let bytes = seal::seal_note(key, &self.roster.space(), stream, epoch, &text, self.entropy);
        self.sealed.push(SealedNote { stream: *stream, epoch, bytes });
    }

    /// Signs, checks as everybody else will, and stores the entry as pending.
    fn finish(self, now: Millis) -> Result<Roster> {
        let Self { tx, mut roster, secrets, operations, sealed, wraps, .. } = self;
        let entry = Entry {
            version: roster::VERSION,
            space: roster.space(),
            seq: roster.next_seq(),
            prev: roster.prev(),
            author: secrets.id(),
            time: now,
            operations,
            sealed,
        };
        let seq = entry.seq;
        let signed = SignedEntry::sign(&entry, |message| secrets.sign(message));
        let entry = EntryWithWraps { entry: signed, wraps };
        let verified = roster.verify(entry.clone()).map_err(|error| match error {
            RosterError::Limit(what) => Error::fix("roster", format!("within the limit of {what}")),
            error => Error::bug(error),
        })?;
        roster.apply(&verified);
        keyring::put_roster_entry(tx, &roster.space(), seq, &entry, false)?;
        Ok(roster)
    }
}

fn wrap_context(
    space: &SpaceId,
    handout: &KeyHandout,
    recipient: Recipient,
    prev_entry: Hash,
) -> WrapContext {
    WrapContext { space: *space, stream: handout.stream, epoch: handout.epoch, recipient, prev_entry }
}

fn put_key(tx: &Tx<'_>, space: &SpaceId, handout: &KeyHandout, key: &EpochKey) -> Result<()> {
    let KeyHandout { stream, epoch, key_check, .. } = handout;
    Ok(keyring::put_epoch_key(tx, space, stream, *epoch, key_check, &key.to_bytes()[..])?)
}

/// Goes through the whole chain for keys that are wrapped to this device and labels that they open: a
/// device that was added later finds its first keys in entries before its own.
fn learn_keys(tx: &Tx<'_>, settled: &Roster, secrets: &DeviceSecrets, kem: &KemSecret) -> Result<()> {
    let space = settled.space();
    let Some(me) = settled.recipient_of(&secrets.id()) else { return Ok(()) };
    let mut roster = Roster::new(space);
    let mut notes = Vec::new();
    for (entry, _) in keyring::roster_entries(tx, &space)? {
        let verified = roster.verify(entry).map_err(Error::bug)?;
        roster.apply(&verified);
        notes.extend(verified.entry().sealed.iter().cloned());
        for (handout, wraps) in verified.handouts() {
            for wrap in wraps.iter().filter(|wrap| wrap.recipient == me) {
                let context = wrap_context(&space, handout, me, verified.entry().prev);
                let Ok(key) = keys::unwrap(&wrap.bytes, kem, &context) else { continue };
                if key.derive_key_check(&space, &handout.stream, handout.epoch) == handout.key_check {
                    put_key(tx, &space, handout, &key)?;
                }
            }
        }
    }
    for note in notes {
        let epochs = roster.epochs(&note.stream);
        let Some(epoch) = epochs.iter().find(|key| key.epoch == note.epoch) else { continue };
        let bytes = keyring::epoch_key(tx, &space, &note.stream, note.epoch, &epoch.key_check)?;
        let Some(key) = bytes.and_then(|bytes| EpochKey::from_bytes(&bytes).ok()) else { continue };
        if let Ok(label) = seal::open_note(&key, &space, &note.stream, note.epoch, &note.bytes) {
            keyring::set_label(tx, &space, &note.stream, label.trim_end())?;
        }
    }
    Ok(())
}
