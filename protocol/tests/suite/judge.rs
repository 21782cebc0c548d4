//! Whether an envelope may stand: every rule, and that order does not matter where it should not.

use std::{collections::BTreeMap, convert::Infallible};

use ebb_protocol::{
    envelope::{Envelope, Header},
    id::{DeviceId, Epoch, Hash, LogId, Position, Seq, StreamId},
    judge::{self, Admission, Chain, JudgedAt, Link},
    roster::{Access, MemberKind, Roster},
    verify::Verified,
    wire::Refusal,
};
use proptest::prelude::*;

use crate::kit::{CLINIC, Device, Draft, OTHER, Patient, STREAM};

/// Accepted envelopes in memory.
#[derive(Default, Debug, PartialEq)]
struct Accepted(BTreeMap<(DeviceId, StreamId, Seq), Vec<Link>>);

impl Chain for Accepted {
    type Error = Infallible;

    fn at(&self, author: &DeviceId, stream: &StreamId, seq: Seq) -> Result<Vec<Link>, Infallible> {
        Ok(self.0.get(&(*author, *stream, seq)).cloned().unwrap_or_default())
    }

    fn last(&self, author: &DeviceId, stream: &StreamId) -> Result<Seq, Infallible> {
        let from = (*author, *stream, Seq(0))..=(*author, *stream, Seq(u64::MAX));
        Ok(self.0.range(from).next_back().map_or(Seq(0), |((.., seq), _)| *seq))
    }
}

impl Accepted {
    fn judge(&self, roster: &Roster, envelope: &Verified<Envelope>, at: JudgedAt) -> Admission {
        judge::admit(roster, self, envelope, at).unwrap()
    }

    /// Judges, and accepts what is fresh.
    fn offer(&mut self, roster: &Roster, envelope: &Verified<Envelope>, at: JudgedAt) -> Admission {
        let admission = self.judge(roster, envelope, at);
        if admission == Admission::Fresh {
            let Header { author, stream, seq, .. } = *envelope.header();
            self.0.entry((author, stream, seq)).or_default().push(Link::of(envelope));
        }
        admission
    }

    fn with(roster: &Roster, chain: &[Verified<Envelope>]) -> Self {
        let mut accepted = Self::default();
        for envelope in chain {
            assert_eq!(accepted.offer(roster, envelope, JudgedAt::Current), Admission::Fresh);
        }
        accepted
    }
}

const BOTH: [JudgedAt; 2] = [JudgedAt::Current, JudgedAt::Named];

fn refused(reason: Refusal) -> Admission {
    Admission::Refused(reason)
}

/// A patient, a chain of three accepted envelopes, and the header that comes next.
fn three() -> (Patient, Accepted, Header) {
    let patient = Patient::new(1);
    let chain = patient.phone.chain(&patient.roster, STREAM, 3);
    let accepted = Accepted::with(&patient.roster, &chain);
    let next = patient.phone.header(&patient.roster, STREAM, 4, chain[2].hash());
    (patient, accepted, next)
}

fn says(patient: &Patient, accepted: &Accepted, header: &Header) -> [Admission; 2] {
    let envelope = patient.phone.verified(header);
    BOTH.map(|at| accepted.judge(&patient.roster, &envelope, at))
}

#[test]
fn what_continues_the_chain_is_fresh() {
    let (patient, accepted, next) = three();
    assert_eq!(says(&patient, &accepted, &next), [Admission::Fresh; 2]);
}

#[test]
fn an_unknown_roster_head_is_refused() {
    let (patient, accepted, mut next) = three();
    next.roster_head = Hash([1; 32]);
    assert_eq!(says(&patient, &accepted, &next), [refused(Refusal::UnknownHead); 2]);
    let nobody = Roster::new(patient.space());
    let envelope = patient.phone.verified(&next);
    assert_eq!(
        Accepted::default().judge(&nobody, &envelope, JudgedAt::Current),
        refused(Refusal::UnknownHead)
    );
}

#[test]
fn who_may_not_write_is_refused() {
    let (mut patient, _, _) = three();
    let (desk, stranger) = (Device::new(2), Device::new(3));
    let draft = Draft::default().member(CLINIC, MemberKind::Clinic).device(CLINIC, &desk, &[]);
    patient.sign(draft.grant(STREAM, CLINIC, Access::Read, &[1])).unwrap();
    for author in [&desk, &stranger] {
        let envelope = author.verified(&author.header(&patient.roster, STREAM, 1, Hash::ZERO));
        for at in BOTH {
            assert_eq!(Accepted::default().judge(&patient.roster, &envelope, at), refused(Refusal::Role));
        }
    }
    // A stream that does not exist is nobody's to write.
    let header = patient.phone.header(&patient.roster, OTHER, 1, Hash::ZERO);
    assert_eq!(says(&patient, &Accepted::default(), &header), [refused(Refusal::Role); 2]);
}

#[test]
fn the_role_is_judged_at_the_named_head_or_at_the_newest() {
    let mut patient = Patient::new(1);
    let before = patient.roster.prev();
    let desk = Device::new(2);
    let draft = Draft::default().member(CLINIC, MemberKind::Clinic).device(CLINIC, &desk, &[]);
    patient.sign(draft.grant(STREAM, CLINIC, Access::Write, &[1])).unwrap();
    let mut header = desk.header(&patient.roster, STREAM, 1, Hash::ZERO);
    header.roster_head = before;
    let envelope = desk.verified(&header);
    let judged = BOTH.map(|at| Accepted::default().judge(&patient.roster, &envelope, at));
    assert_eq!(judged, [Admission::Fresh, refused(Refusal::Role)]);
}

#[test]
fn a_stale_epoch_is_refused_where_it_is_stale() {
    let (mut patient, accepted, next) = three();
    patient.rotate(2);
    // It names the head at which its epoch was the newest.
    assert_eq!(says(&patient, &accepted, &next), [refused(Refusal::StaleEpoch), Admission::Fresh]);
    let stale = Header { roster_head: patient.roster.prev(), ..next };
    assert_eq!(says(&patient, &accepted, &stale), [refused(Refusal::StaleEpoch); 2]);
}

#[test]
fn an_epoch_that_is_still_to_come_is_refused() {
    let (mut patient, accepted, mut next) = three();
    next.epoch = Epoch(2);
    assert_eq!(says(&patient, &accepted, &next), [refused(Refusal::Malformed); 2]);
    patient.rotate(2);
    // At the head that it names there was no such epoch.
    assert_eq!(says(&patient, &accepted, &next), [Admission::Fresh, refused(Refusal::Malformed)]);
}

#[test]
fn a_fork_is_refused() {
    let (patient, accepted, next) = three();
    let prev = accepted.at(&patient.phone.id(), &STREAM, Seq(2)).unwrap()[0].hash;
    let fork = Header { seq: Seq(3), prev, salt: [1; 16], ..next };
    assert_eq!(says(&patient, &accepted, &fork), [refused(Refusal::Fork); 2]);
}

#[test]
fn what_stands_already_is_acknowledged_again_whatever_happened_since() {
    let mut patient = Patient::new(1);
    let chain = patient.phone.chain(&patient.roster, STREAM, 3);
    let accepted = Accepted::with(&patient.roster, &chain);
    patient.rotate(2);
    for envelope in &chain {
        for at in BOTH {
            assert_eq!(accepted.judge(&patient.roster, envelope, at), Admission::Duplicate);
        }
        let nobody = Roster::new(patient.space());
        assert_eq!(accepted.judge(&nobody, envelope, JudgedAt::Current), Admission::Duplicate);
    }
}

#[test]
fn sealed_again_under_a_higher_epoch_it_stands_beside_the_first() {
    let (mut patient, mut accepted, next) = three();
    let prev = accepted.at(&patient.phone.id(), &STREAM, Seq(2)).unwrap()[0].hash;
    patient.rotate(2);
    let again = Header { seq: Seq(3), prev, epoch: Epoch(2), roster_head: patient.roster.prev(), ..next };
    let envelope = patient.phone.verified(&again);
    assert_eq!(accepted.offer(&patient.roster, &envelope, JudgedAt::Current), Admission::Fresh);
    assert_eq!(accepted.offer(&patient.roster, &envelope, JudgedAt::Current), Admission::Duplicate);
    // The next one may follow on either.
    let both = accepted.at(&patient.phone.id(), &STREAM, Seq(3)).unwrap();
    assert_eq!(both.len(), 2);
    for link in both {
        let next = Header { prev: link.hash, epoch: Epoch(2), roster_head: patient.roster.prev(), ..next };
        assert_eq!(says(&patient, &accepted, &next), [Admission::Fresh; 2]);
    }
}

#[test]
fn a_lower_epoch_that_arrives_later_is_no_fork() {
    let (mut patient, _, next) = three();
    let first = patient.phone.verified(&Header { seq: Seq(1), prev: Hash::ZERO, ..next });
    patient.rotate(2);
    let again =
        Header { seq: Seq(1), prev: Hash::ZERO, epoch: Epoch(2), roster_head: patient.roster.prev(), ..next };
    let mut accepted = Accepted::default();
    assert_eq!(
        accepted.offer(&patient.roster, &patient.phone.verified(&again), JudgedAt::Named),
        Admission::Fresh
    );
    assert_eq!(accepted.offer(&patient.roster, &first, JudgedAt::Named), Admission::Fresh);
}

#[test]
fn a_gap_names_the_sequence_that_is_missing() {
    let (patient, accepted, next) = three();
    let far = Header { seq: Seq(7), ..next };
    assert_eq!(says(&patient, &accepted, &far), [refused(Refusal::Gap(Seq(4))); 2]);
    let none = Accepted::default();
    assert_eq!(says(&patient, &none, &far), [refused(Refusal::Gap(Seq(1))); 2]);
    // Another one stands before it than the one it names.
    let other = Header { prev: Hash([1; 32]), ..next };
    assert_eq!(says(&patient, &accepted, &other), [refused(Refusal::Gap(Seq(3))); 2]);
}

#[test]
fn a_chain_never_names_an_older_roster_head_than_before() {
    let mut patient = Patient::new(1);
    let old = patient.roster.prev();
    patient.sign(Draft::default().member(CLINIC, MemberKind::Clinic)).unwrap();
    let chain = patient.phone.chain(&patient.roster, STREAM, 1);
    let accepted = Accepted::with(&patient.roster, &chain);
    let next = patient.phone.header(&patient.roster, STREAM, 2, chain[0].hash());
    assert_eq!(says(&patient, &accepted, &next), [Admission::Fresh; 2]);
    let back = Header { roster_head: old, ..next };
    assert_eq!(says(&patient, &accepted, &back), [refused(Refusal::Malformed); 2]);
}

#[test]
fn a_chain_never_goes_back_in_the_log_that_it_saw() {
    let patient = Patient::new(1);
    let log = LogId([1; 16]);
    let first = patient.phone.header(&patient.roster, STREAM, 1, Hash::ZERO);
    let first = Header { log_id: log, seen_pos: Position(5), ..first };
    let first = patient.phone.verified(&first);
    let mut accepted = Accepted::default();
    assert_eq!(accepted.offer(&patient.roster, &first, JudgedAt::Current), Admission::Fresh);
    let next = Header { seq: Seq(2), prev: first.hash(), ..*first.header() };
    assert_eq!(says(&patient, &accepted, &next), [Admission::Fresh; 2]);
    let back = Header { seen_pos: Position(4), ..next };
    assert_eq!(says(&patient, &accepted, &back), [refused(Refusal::Malformed); 2]);
    // In another log, positions count anew.
    let elsewhere = Header { log_id: LogId([2; 16]), ..back };
    assert_eq!(says(&patient, &accepted, &elsewhere), [Admission::Fresh; 2]);
}

proptest! {
    #[test]
    fn any_interleaving_of_two_authors_ends_equal_and_twice_is_as_once(
        turns in prop::collection::vec(any::<bool>(), 0..12), repeat in any::<bool>(),
    ) {
        let desk = Device::new(2);
        let patient = Patient::with_desk(1, &desk);
        let chains = [patient.phone.chain(&patient.roster, STREAM, 5), desk.chain(&patient.roster, STREAM, 5)];
        let expected = Accepted::with(&patient.roster, &chains.concat());
        let mut accepted = Accepted::default();
        let mut next = [0, 0];
        let rest = [true, false].into_iter().cycle().take(20);
        for turn in turns.into_iter().chain(rest) {
            let author = usize::from(turn);
            let Some(envelope) = chains[author].get(next[author]) else { continue };
            next[author] += 1;
            prop_assert_eq!(accepted.offer(&patient.roster, envelope, JudgedAt::Current), Admission::Fresh);
            if repeat {
                prop_assert_eq!(accepted.offer(&patient.roster, envelope, JudgedAt::Named), Admission::Duplicate);
            }
        }
        prop_assert_eq!(accepted, expected);
    }
}
