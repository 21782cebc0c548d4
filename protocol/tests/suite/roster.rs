//! The roster: what may be said, by whom, and that half a saying is none.

use ebb_protocol::{
    id::{Epoch, Hash, MemberId, RosterSeq, SpaceId, StreamId},
    roster::{
        Access, DeviceKeys, EntryWithWraps, KemKey, MemberKind, Operation, Recipient, Roster, RosterError,
        SealedNote, SignedEntry, wraps_hash,
    },
    verify,
    wire::{self, DEVICES_MAX, ENTRY_BYTES_MAX, EPOCH_STEP_MAX, MEMBERS_MAX, OPERATIONS_MAX, STREAMS_MAX},
};
use proptest::prelude::*;

use crate::kit::{CLINIC, Device, Draft, Key, OTHER, Patient, STREAM};

type Refused = Result<(), RosterError>;

/// What the roster says to the draft, and that it stays as it is.
fn says(patient: &Patient, draft: Draft) -> Refused {
    let before = patient.roster.clone();
    let said = patient.offer(draft).map(drop);
    assert_eq!(patient.roster, before, "verifying changes nothing");
    said
}

fn is_not_allowed(said: &Refused) -> bool {
    matches!(said, Err(RosterError::NotAllowed(_)))
}

fn is_over_a_limit(said: &Refused) -> bool {
    matches!(said, Err(RosterError::Limit(_)))
}

fn member(n: u8) -> MemberId {
    MemberId([n; 16])
}

/// A patient with a clinic that has no grant yet.
fn with_clinic() -> Patient {
    let mut patient = Patient::new(1);
    patient.sign(Draft::default().member(CLINIC, MemberKind::Clinic)).unwrap();
    patient
}

#[test]
fn a_founded_space_has_its_owner_and_its_streams() {
    let patient = Patient::new(1);
    let (id, at) = (patient.phone.id(), RosterSeq(0));
    assert!(patient.roster.is_owner(&id, at) && patient.roster.may_write(&id, &STREAM, at));
    assert_eq!(patient.roster.readable(&id).collect::<Vec<_>>(), [STREAM]);
    assert_eq!(patient.recipients(STREAM), [patient.me()]);
    assert_eq!(patient.roster.epoch(&STREAM).unwrap().epoch, Epoch(1));
    assert_eq!(patient.roster.head().unwrap().hash, patient.roster.prev());
    assert_eq!(patient.roster.hash_at(at), Some(patient.roster.prev()));
}

#[test]
fn only_the_founder_whom_the_id_names_founds_a_space() {
    let (mine, other) = (Patient::new(1), Device::new(2));
    let empty = Roster::new(mine.space());
    // Somebody else founds a space under this id.
    let draft = Draft::default().found(&other);
    let theirs = Patient { phone: other, roster: empty.clone(), entries: Vec::new() };
    assert_eq!(says(&theirs, draft), Err(RosterError::OtherSpace));
    // The founder's own keys, signed by somebody else in his name.
    let mut entry = mine.entry(&Draft::default().found(&mine.phone));
    (entry.seq, entry.prev) = (RosterSeq(0), Hash::ZERO);
    let forged = EntryWithWraps {
        entry: SignedEntry::sign(&entry, |message| Key::new(9, 9).sign(message)),
        wraps: Vec::new(),
    };
    assert!(matches!(empty.verify(forged), Err(RosterError::Signature(_))));
    // Another nonce is another space.
    let Operation::Found { nonce, .. } = &mut entry.operations[0] else { panic!("Found") };
    *nonce = [5; 16];
    assert_eq!(empty.verify(mine.phone.sign(&entry, Vec::new())).map(drop), Err(RosterError::OtherSpace));
    // An author other than the device that is founded.
    let mut entry = theirs.entry(&Draft::default().found(&mine.phone));
    entry.author = theirs.phone.id();
    assert_eq!(empty.verify(mine.phone.sign(&entry, Vec::new())).map(drop), Err(RosterError::OtherSpace));
}

#[test]
fn a_space_is_founded_once_and_first() {
    let patient = Patient::new(1);
    assert!(is_not_allowed(&says(&patient, Draft::default().found(&patient.phone))), "in a later entry");
    let empty = Patient { phone: Device::new(1), roster: Roster::new(patient.space()), entries: Vec::new() };
    let twice = Draft::default().found(&empty.phone).found(&empty.phone);
    assert!(is_not_allowed(&says(&empty, twice)), "twice in the first");
    assert!(is_not_allowed(&says(&empty, Draft::default().member(CLINIC, MemberKind::Clinic))), "not at all");
    let second = Draft::default().member(CLINIC, MemberKind::Clinic).found(&empty.phone);
    assert!(is_not_allowed(&says(&empty, second)), "not as the first operation");
}

#[test]
fn an_entry_of_another_space_place_or_predecessor_is_refused() {
    let patient = with_clinic();
    let draft = Draft::default().member(member(1), MemberKind::Supporter);
    assert_eq!(says(&patient, draft.clone()), Ok(()));
    let with = |change: fn(&mut ebb_protocol::roster::Entry)| {
        let mut entry = patient.entry(&draft);
        change(&mut entry);
        patient.roster.verify(patient.phone.sign(&entry, Vec::new())).map(drop)
    };
    assert_eq!(with(|entry| entry.space = SpaceId([9; 16])), Err(RosterError::OtherSpace));
    assert_eq!(with(|entry| entry.seq = RosterSeq(1)), Err(RosterError::Moved));
    assert_eq!(with(|entry| entry.seq = RosterSeq(3)), Err(RosterError::Moved));
    assert_eq!(with(|entry| entry.prev = Hash([1; 32])), Err(RosterError::Moved));
    assert_eq!(with(|entry| entry.version = 2), Err(RosterError::Undecodable));
}

#[test]
fn an_entry_that_the_roster_has_is_known_and_one_that_it_overtook_has_moved() {
    let mut patient = with_clinic();
    let overtaken =
        patient.phone.sign(&patient.entry(&Draft::default().member(member(1), MemberKind::Clinic)), vec![]);
    patient.sign(Draft::default().member(member(2), MemberKind::Clinic)).unwrap();
    for entry in &patient.entries {
        assert_eq!(patient.roster.verify(entry.clone()).map(drop), Err(RosterError::Known));
    }
    assert_eq!(patient.roster.verify(overtaken).map(drop), Err(RosterError::Moved));
}

#[test]
fn the_signature_must_be_the_authors() {
    let patient = Patient::new(1);
    let entry = patient.entry(&Draft::default().member(CLINIC, MemberKind::Clinic));
    let forged = SignedEntry::sign(&entry, |message| Key::new(9, 9).sign(message));
    let said = patient.roster.verify(EntryWithWraps { entry: forged, wraps: Vec::new() });
    assert!(matches!(said, Err(RosterError::Signature(_))));
}

#[test]
fn only_the_owners_devices_change_the_roster() {
    let desk = Device::new(2);
    let patient = Patient::with_desk(1, &desk);
    let mut entry = patient.entry(&Draft::default().member(member(1), MemberKind::Supporter));
    for author in [desk, Device::new(3)] {
        entry.author = author.id();
        let said = patient.roster.verify(author.sign(&entry, Vec::new())).map(drop);
        assert!(is_not_allowed(&said), "neither a clinic's desk nor a stranger");
    }
}

#[test]
fn members_and_devices_are_there_once_and_belong_to_somebody() {
    let desk = Device::new(2);
    let patient = Patient::with_desk(1, &desk);
    let owner = patient.roster.owner();
    assert!(is_not_allowed(&says(&patient, Draft::default().member(CLINIC, MemberKind::Clinic))));
    assert!(is_not_allowed(&says(&patient, Draft::default().member(owner, MemberKind::Clinic))));
    assert!(is_not_allowed(&says(&patient, Draft::default().device(CLINIC, &desk, &[]))));
    assert!(is_not_allowed(&says(&patient, Draft::default().device(member(1), &Device::new(3), &[]))));
    let with_keys = Draft::default().device(CLINIC, &Device::new(3), &[(STREAM, 1)]);
    assert!(is_not_allowed(&says(&patient, with_keys)), "a member's device gets no keys of its own");
    assert_eq!(says(&patient, Draft::default().device(CLINIC, &Device::new(3), &[])), Ok(()));
}

#[test]
fn an_owners_device_gets_every_epoch_of_every_stream() {
    let mut patient = Patient::new(1);
    let me = [patient.me()];
    patient.sign(Draft::default().open(OTHER, &me)).unwrap();
    patient.rotate(2);
    let (owner, tablet) = (patient.roster.owner(), Device::new(2));
    let with = |epochs: &[(StreamId, u32)]| says(&patient, Draft::default().device(owner, &tablet, epochs));
    assert!(is_not_allowed(&with(&[])));
    assert!(is_not_allowed(&with(&[(STREAM, 2), (OTHER, 1)])), "not the first epoch");
    assert!(is_not_allowed(&with(&[(STREAM, 1), (STREAM, 2)])), "not the other stream");
    assert!(is_not_allowed(&with(&[(STREAM, 1), (STREAM, 2), (OTHER, 1), (OTHER, 2)])), "one too many");
    assert_eq!(with(&[(STREAM, 1), (STREAM, 2), (OTHER, 1)]), Ok(()));
    let all = Draft::default().device(owner, &tablet, &[(STREAM, 1), (STREAM, 2), (OTHER, 1)]);
    patient.sign(all).unwrap();
    assert!(patient.roster.recipients(&STREAM).contains(&Recipient::Device(tablet.id())));
}

#[test]
fn a_stream_is_opened_once_at_epoch_1_for_the_owners_devices() {
    let patient = Patient::new(1);
    let me = [patient.me()];
    assert!(is_not_allowed(&says(&patient, Draft::default().open(STREAM, &me))));
    let with = |change: fn(&mut ebb_protocol::roster::KeyHandout)| {
        let mut draft = Draft::default().open(OTHER, &me);
        let Operation::OpenStream { key, .. } = &mut draft.operations[0] else { panic!("OpenStream") };
        change(key);
        says(&patient, draft)
    };
    assert_eq!(with(|_| ()), Ok(()));
    assert!(is_not_allowed(&with(|key| key.epoch = Epoch(2))));
    assert!(is_not_allowed(&with(|key| key.stream = STREAM)));
}

#[test]
fn a_grant_hands_over_every_epoch_to_a_member_that_may_have_it() {
    let mut patient = with_clinic();
    patient.rotate(2);
    patient.sign(Draft::default().member(member(1), MemberKind::Supporter)).unwrap();
    let grant = |stream, to, access, epochs: &[u32]| {
        says(&patient, Draft::default().grant(stream, to, access, epochs))
    };
    assert_eq!(grant(STREAM, CLINIC, Access::Write, &[1, 2]), Ok(()));
    assert!(is_not_allowed(&grant(STREAM, CLINIC, Access::Write, &[2])), "not the history");
    assert!(is_not_allowed(&grant(STREAM, CLINIC, Access::Write, &[1])), "not the newest");
    assert!(is_not_allowed(&grant(STREAM, CLINIC, Access::Write, &[2, 1])), "another order");
    assert!(is_not_allowed(&grant(STREAM, CLINIC, Access::Write, &[1, 2, 3])), "one that there is not");
    assert!(is_not_allowed(&grant(STREAM, member(2), Access::Read, &[1, 2])), "nobody");
    assert!(is_not_allowed(&grant(STREAM, member(1), Access::Write, &[1, 2])), "a supporter reads only");
    assert_eq!(grant(STREAM, member(1), Access::Read, &[1, 2]), Ok(()));
    assert!(is_not_allowed(&grant(OTHER, CLINIC, Access::Read, &[])), "no such stream");
    let mut lies = Draft::default().grant(STREAM, CLINIC, Access::Read, &[1, 2]);
    let Operation::Grant { keys, .. } = &mut lies.operations[0] else { panic!("Grant") };
    keys[0].key_check = Hash([1; 32]);
    assert!(is_not_allowed(&says(&patient, lies)), "another key than the one that was made");
    patient.sign(Draft::default().grant(STREAM, CLINIC, Access::Read, &[1, 2])).unwrap();
    let again = Draft::default().grant(STREAM, CLINIC, Access::Write, &[1, 2]);
    assert!(is_not_allowed(&says(&patient, again)), "granted already");
}

#[test]
fn a_rotation_goes_to_exactly_the_readers() {
    let mut patient = Patient::with_desk(1, &Device::new(2));
    patient.sign(Draft::default().member(member(1), MemberKind::Supporter)).unwrap();
    let me = patient.me();
    let rotate = |to: &[Recipient]| says(&patient, Draft::default().rotate(STREAM, 2, to));
    let clinic = Recipient::Member(CLINIC);
    assert_eq!(rotate(&[me, clinic]), Ok(()));
    assert_eq!(rotate(&[clinic, me]), Ok(()), "in any order");
    assert_eq!(rotate(&[me]), Err(RosterError::Wraps), "one is missing");
    assert_eq!(rotate(&[me, clinic, Recipient::Member(member(1))]), Err(RosterError::Wraps), "one too many");
    assert_eq!(rotate(&[me, clinic, clinic]), Err(RosterError::Wraps), "one twice");
    // Whoever is granted in the same entry is a reader already.
    let both = |to: &[Recipient]| {
        let draft = Draft::default().grant(STREAM, member(1), Access::Read, &[1]).rotate(STREAM, 2, to);
        says(&patient, draft)
    };
    assert_eq!(both(&[me, clinic]), Err(RosterError::Wraps));
    assert_eq!(both(&[me, clinic, Recipient::Member(member(1))]), Ok(()));
}

#[test]
fn epochs_rise_but_never_so_far_that_none_is_left() {
    let patient = Patient::new(1);
    let rotate = |stream, epoch| says(&patient, Draft::default().rotate(stream, epoch, &[patient.me()]));
    assert!(is_not_allowed(&rotate(STREAM, 1)));
    assert_eq!(rotate(STREAM, 2), Ok(()));
    assert_eq!(rotate(STREAM, 1 + EPOCH_STEP_MAX), Ok(()), "above another branch");
    assert!(is_not_allowed(&rotate(STREAM, 2 + EPOCH_STEP_MAX)));
    assert!(is_not_allowed(&rotate(STREAM, u32::MAX)));
    assert!(is_not_allowed(&rotate(OTHER, 2)), "no such stream");
}

#[test]
fn wraps_are_those_that_were_signed_and_no_other() {
    let patient = Patient::new(1);
    let draft = Draft::default().rotate(STREAM, 2, &[patient.me()]);
    let with = |change: &dyn Fn(&mut Draft)| {
        let mut draft = draft.clone();
        change(&mut draft);
        says(&patient, draft)
    };
    assert_eq!(with(&|_| ()), Ok(()));
    assert_eq!(with(&|draft| draft.wraps[0].bytes[0] ^= 1), Err(RosterError::Wraps), "changed");
    assert_eq!(with(&|draft| draft.wraps.clear()), Err(RosterError::Wraps), "missing");
    let doubled = |draft: &mut Draft| draft.wraps.push(draft.wraps[0].clone());
    assert_eq!(with(&doubled), Err(RosterError::Wraps), "twice");
    let of_none = |draft: &mut Draft| {
        let mut extra = draft.wraps[0].clone();
        extra.handout = 1;
        draft.wraps.push(extra);
    };
    assert_eq!(with(&of_none), Err(RosterError::Wraps), "of a handout that there is not");
    assert_eq!(with(&|draft| draft.wraps[0].handout = 1), Err(RosterError::Wraps), "of another handout");
    assert_eq!(with(&|draft| draft.wraps[0].recipient = Recipient::Member(CLINIC)), Err(RosterError::Wraps));
}

#[test]
fn an_entry_whose_last_operation_fails_does_nothing() {
    let mut patient = Patient::new(1);
    let half = Draft::default()
        .member(CLINIC, MemberKind::Clinic)
        .grant(STREAM, CLINIC, Access::Write, &[1])
        .rotate(STREAM, 2, &[patient.me()]);
    assert_eq!(says(&patient, half), Err(RosterError::Wraps));
    assert!(patient.roster.member(&CLINIC).is_none());
    patient.rotate(2);
    assert_eq!(patient.roster.epochs(&STREAM).len(), 2);
}

#[test]
fn facts_hold_since_the_entry_that_says_so() {
    let desk = Device::new(2);
    let patient = Patient::with_desk(1, &desk);
    assert!(!patient.roster.may_read(&desk.id(), &STREAM, RosterSeq(0)));
    assert!(patient.roster.may_write(&desk.id(), &STREAM, RosterSeq(1)));
    assert_eq!(patient.roster.recipient_of(&desk.id()), Some(Recipient::Member(CLINIC)));
}

#[test]
fn every_limit_holds() {
    let patient = Patient::new(1);
    let members = |from: usize, count: usize| {
        (from..from + count)
            .fold(Draft::default(), |draft, n| draft.member(member(n as u8 + 1), MemberKind::Clinic))
    };
    assert_eq!(says(&patient, members(0, MEMBERS_MAX)), Ok(()));
    assert!(is_over_a_limit(&says(&patient, members(0, MEMBERS_MAX + 1))));
    let devices = |count: usize| {
        let draft = Draft::default().member(CLINIC, MemberKind::Clinic);
        (0..count).fold(draft, |draft, n| draft.device(CLINIC, &Device::new(n as u8 + 2), &[]))
    };
    assert_eq!(says(&patient, devices(DEVICES_MAX - 1)), Ok(()));
    assert!(is_over_a_limit(&says(&patient, devices(DEVICES_MAX))));
    let streams = |count: usize| {
        (0..count).fold(Draft::default(), |draft, n| draft.open(StreamId([n as u8 + 1; 16]), &[patient.me()]))
    };
    assert_eq!(says(&patient, streams(STREAMS_MAX - 1)), Ok(()));
    assert!(is_over_a_limit(&says(&patient, streams(STREAMS_MAX))));
    // The owner's devices and the members granted, together.
    let recipients = |tablets: usize| {
        let owner = patient.roster.owner();
        let draft = (0..tablets).fold(Draft::default(), |draft, n| {
            draft.device(owner, &Device::new(n as u8 + 2), &[(STREAM, 1)])
        });
        let draft = draft.member(CLINIC, MemberKind::Clinic);
        says(&patient, draft.grant(STREAM, CLINIC, Access::Read, &[1]))
    };
    assert_eq!(recipients(62), Ok(()));
    assert!(is_over_a_limit(&recipients(63)));
}

#[test]
fn an_entry_has_operations_and_neither_too_many_nor_too_many_bytes() {
    let patient = Patient::new(1);
    assert!(is_over_a_limit(&says(&patient, Draft::default())));
    let rotations = |count: u32| {
        (2..2 + count).fold(Draft::default(), |draft, epoch| draft.rotate(STREAM, epoch, &[patient.me()]))
    };
    assert_eq!(says(&patient, rotations(OPERATIONS_MAX as u32)), Ok(()));
    assert!(is_over_a_limit(&says(&patient, rotations(OPERATIONS_MAX as u32 + 1))));
    let with_note = |bytes: usize| {
        let mut entry = patient.entry(&Draft::default().member(CLINIC, MemberKind::Clinic));
        entry.sealed = vec![SealedNote { stream: STREAM, epoch: Epoch(1), bytes: vec![0; bytes] }];
        patient.roster.verify(patient.phone.sign(&entry, Vec::new())).map(drop)
    };
    assert_eq!(with_note(ENTRY_BYTES_MAX - 1000), Ok(()));
    assert!(is_over_a_limit(&with_note(ENTRY_BYTES_MAX)));
}

#[test]
#[should_panic(expected = "an entry applies to the roster that verified it")]
fn a_verified_entry_goes_on_no_other_roster() {
    let mut patient = Patient::new(1);
    let verified = patient.offer(Draft::default().member(CLINIC, MemberKind::Clinic)).unwrap();
    patient.rotate(2);
    patient.roster.apply(&verified);
}

#[test]
fn an_entry_shows_its_handouts_each_with_its_wraps() {
    let patient = with_clinic();
    let to = [patient.me()];
    let draft =
        Draft::default().rotate(STREAM, 2, &to).open(OTHER, &to).grant(STREAM, CLINIC, Access::Read, &[1, 2]);
    let verified = patient.offer(draft).unwrap();
    let seen: Vec<_> = verified
        .handouts()
        .map(|(key, wraps)| (key.stream, key.epoch.0, wraps.len(), wraps[0].handout))
        .collect();
    assert_eq!(seen, [(STREAM, 2, 1, 0), (OTHER, 1, 1, 1), (STREAM, 1, 1, 2), (STREAM, 2, 1, 3)]);
}

#[test]
fn a_device_is_named_by_all_its_keys() {
    let keys = Device::new(1).keys;
    let other = |change: fn(&mut DeviceKeys)| {
        let mut other = keys.clone();
        change(&mut other);
        other.id()
    };
    assert_ne!(other(|keys| keys.sig = Key::new(9, 9).public()), keys.id());
    assert_ne!(other(|keys| keys.tls = Key::new(9, 9).public()), keys.id());
    assert_ne!(other(|keys| keys.kem = KemKey(vec![9; 65])), keys.id());
    assert_ne!(verify::space_id(&keys.id(), &[1; 16]), verify::space_id(&keys.id(), &[2; 16]));
}

proptest! {
    #[test]
    fn entries_are_decoded_as_they_were_encoded(
        seq in any::<u64>(), time in any::<u64>(), notes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..4),
    ) {
        let patient = Patient::with_desk(1, &Device::new(2));
        let mut entry = patient.entry(&Draft { operations: crate::fixtures::operations(), ..Draft::default() });
        entry.seq = RosterSeq(seq);
        entry.time = ebb_protocol::id::Millis(time);
        entry.sealed = notes.into_iter().map(|bytes| SealedNote { stream: STREAM, epoch: Epoch(3), bytes }).collect();
        let signed = patient.phone.sign(&entry, patient.entries[0].wraps.clone());
        let bytes = wire::encode(&signed);
        let read: EntryWithWraps = wire::decode(&bytes).unwrap();
        prop_assert_eq!(&read, &signed);
        prop_assert_eq!(read.entry.entry(), Ok(entry));
        prop_assert_eq!(read.entry.hash(), signed.entry.hash());
        prop_assert!(wire::decode::<EntryWithWraps>(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn entries_pushed_in_any_order_and_again_end_at_the_same_head(order in prop::collection::vec(0..6_usize, 0..40)) {
        let mut patient = Patient::with_desk(1, &Device::new(2));
        (2..6).for_each(|epoch| patient.rotate(epoch));
        let mut roster = Roster::new(patient.space());
        for place in order.into_iter().chain((0..6).cycle().take(36)) {
            match roster.verify(patient.entries[place].clone()) {
                Ok(verified) => roster.apply(&verified),
                Err(RosterError::Known | RosterError::Moved) => {}
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
        prop_assert_eq!(roster, patient.roster);
    }
}

#[test]
fn keys_and_wraps_are_as_long_as_they_are() {
    let patient = Patient::new(1);
    for len in [0, 64, 66, 500_000] {
        let kem = || KemKey(vec![7; len]);
        let mut draft = Draft::default();
        draft.operations.push(Operation::AddMember { member: CLINIC, kind: MemberKind::Clinic, kem: kem() });
        assert!(is_not_allowed(&says(&patient, draft)), "{len}");
        let mut desk = Device::new(2);
        desk.keys.kem = kem();
        assert!(is_not_allowed(&says(&patient, Draft::default().device(member(3), &desk, &[]))), "{len}");
    }
    for len in [0, 112, 114] {
        let mut draft = Draft::default().rotate(STREAM, 2, &[patient.me()]);
        draft.wraps.iter_mut().for_each(|wrap| wrap.bytes = vec![2; len]);
        let hash = wraps_hash(&draft.wraps);
        let Some(Operation::Rotate { key }) = draft.operations.last_mut() else { panic!("a rotation") };
        key.wraps_hash = hash;
        assert_eq!(says(&patient, draft), Err(RosterError::Wraps), "{len}");
    }
}
