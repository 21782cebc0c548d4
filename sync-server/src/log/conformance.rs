//! What every backend must hold, as one suite that each runs.

use ebb_protocol::{
    envelope::{self, Envelope},
    id::{Hash, LogId, Millis, Position, RosterSeq, Seq},
    judge::Link,
    verify::Verified,
    wire::{Head, ItemContent, LogBorn},
};

use super::{Begins, Log, LogError, NewEntry, Placed, Reader, Rosters, SpaceWrites, open};
use crate::{
    commit::Means,
    testing::{Device, Patient, STREAM, TestMeans, head_after},
};

const LOG: LogId = LogId([1; 16]);

/// Runs the whole suite; `make` gives a fresh, empty log each time.
pub(crate) fn conformance<L: Log>(make: impl Fn() -> L) {
    nothing_is_known_of_a_space_that_is_not_there(&make());
    what_was_committed_is_read_back(make());
    a_part_fails_alone_and_whole(make());
    forks_and_gaps_cannot_be_stored(make());
    runs_are_cut_where_they_are_full(make());
    epochs_stand_side_by_side(make());
    births_are_kept_in_order(make());
    a_hello_is_answered_from_one_moment(make());
    a_frozen_view_does_not_move(make());
}

/// What a part must be to append these behind what `before` counts.
pub(crate) fn placed(patient: &Patient, before: Head, envelopes: &[Verified<Envelope>]) -> Vec<Placed> {
    let mut head = before;
    let mut place = |envelope: &Verified<Envelope>| {
        let hash = envelope.hash();
        head.position = head.position.next();
        head.chain = envelope::chain_next(&head.chain, &hash);
        assert_eq!(envelope.header().space, patient.space);
        Placed { head, received_ms: Millis(head.position.0 * 10), hash, envelope: envelope.clone() }
    };
    envelopes.iter().map(&mut place).collect()
}

pub(crate) fn founding(patient: &Patient) -> SpaceWrites {
    let entries = patient.verified_entries().into_iter().map(|entry| NewEntry {
        seq: entry.entry().seq,
        hash: entry.hash(),
        entry: entry.to_wire(),
    });
    SpaceWrites {
        space: patient.space,
        begins: Some(Begins::First(LOG)),
        entries: entries.collect(),
        envelopes: Vec::new(),
    }
}

fn appending(patient: &Patient, before: Head, envelopes: &[Verified<Envelope>]) -> SpaceWrites {
    let envelopes = placed(patient, before, envelopes);
    SpaceWrites { space: patient.space, begins: None, entries: Vec::new(), envelopes }
}

fn start(patient: &Patient) -> Head {
    head_after(patient.space, STREAM, &[])
}

/// A patient whose space is stored with so many envelopes.
fn stored<L: Log>(log: &mut L, seed: u16, count: usize) -> (Patient, Vec<Verified<Envelope>>) {
    let mut patient = Patient::new(seed);
    let envelopes = patient.write_many(count);
    let mut part = founding(&patient);
    part.envelopes = placed(&patient, start(&patient), &envelopes);
    assert_eq!(log.commit(&[part]), Ok(vec![Ok(())]));
    (patient, envelopes)
}

fn nothing_is_known_of_a_space_that_is_not_there(log: &impl Log) {
    let patient = Patient::new(1);
    assert_eq!(log.log_id(&patient.space), Ok(None));
    assert_eq!(log.roster_head(&patient.space), Ok(None));
    assert_eq!(log.head(&patient.space, &STREAM), Ok(start(&patient)));
    assert_eq!(log.chain(&patient.space, &STREAM, Position(0)), Ok(Some(start(&patient).chain)));
    assert_eq!(log.chain(&patient.space, &STREAM, Position(1)), Ok(None));
    assert_eq!(log.last(&patient.space, &STREAM, &patient.device.id()), Ok(None));
    assert!(log.read(&patient.space, &STREAM, Position(0), 1, None).unwrap().is_none());
    let opened =
        open(log, &Rosters::default(), &patient.device.id(), &patient.device.tls.public(), &patient.hello());
    assert!(opened.unwrap().is_none());
}

fn what_was_committed_is_read_back(mut log: impl Log) {
    let (patient, envelopes) = stored(&mut log, 1, 5);
    let (_, others) = stored(&mut log, 2, 3);
    assert_eq!(others.len(), 3, "another space stands beside it");
    let reader = log.reader().unwrap();
    let head = head_after(patient.space, STREAM, &envelopes);
    assert_eq!(reader.log_id(&patient.space), Ok(Some(LOG)));
    assert_eq!(reader.head(&patient.space, &STREAM), Ok(head));
    assert_eq!(reader.chain(&patient.space, &STREAM, Position(5)), Ok(Some(head.chain)));
    assert_eq!(reader.chain(&patient.space, &STREAM, Position(6)), Ok(None));
    assert_eq!(reader.chain(&patient.space, &STREAM, Position(u64::MAX)), Ok(None));
    assert_eq!(reader.roster_head(&patient.space), Ok(Some((RosterSeq(0), patient.roster.prev()))));
    assert_eq!(reader.entries(&patient.space, RosterSeq(0)).unwrap(), patient.entries);
    assert_eq!(reader.entries(&patient.space, RosterSeq(1)).unwrap(), []);
    let author = patient.device.id();
    assert_eq!(reader.last(&patient.space, &STREAM, &author), Ok(Some((Seq(5), envelopes[4].hash()))));
    let at = reader.at(&patient.space, &STREAM, &author, Seq(3)).unwrap();
    assert_eq!(at.len(), 1);
    assert_eq!((at[0].position, at[0].link), (Position(3), Link::of(&envelopes[2])));
    assert_eq!(reader.at(&patient.space, &STREAM, &author, Seq(6)).unwrap(), []);
    let run = reader.read(&patient.space, &STREAM, Position(1), usize::MAX, None).unwrap().unwrap();
    assert_eq!((run.log_id, run.first, run.end), (LOG, Position(2), head));
    for (item, envelope) in run.items.iter().zip(&envelopes[1..]) {
        assert_eq!(item.content, ItemContent::Envelope(envelope.as_bytes().to_vec().into()));
    }
    assert_eq!(run.items[0].received_ms, Millis(20));
    let own = reader.read(&patient.space, &STREAM, Position(0), usize::MAX, Some(&author)).unwrap().unwrap();
    assert_eq!(own.items.len(), 5);
    assert_eq!(own.items[4].content, ItemContent::Own(envelopes[4].hash()));
}

fn a_part_fails_alone_and_whole(mut log: impl Log) {
    let (mut first, stands) = stored(&mut log, 1, 2);
    let (mut second, others) = stored(&mut log, 2, 2);
    let more = first.write_many(2);
    let good = appending(&first, head_after(first.space, STREAM, &stands), &more);
    let more = second.write_many(2);
    let mut bad = appending(&second, head_after(second.space, STREAM, &others), &more);
    // The second of its envelopes claims a place that is taken.
    bad.envelopes[1].head.position = Position(1);
    let outcomes = log.commit(&[bad, good]).unwrap();
    assert!(matches!(outcomes[0], Err(LogError::Damaged(_))), "{outcomes:?}");
    assert_eq!(outcomes[1], Ok(()));
    assert_eq!(log.head(&first.space, &STREAM).unwrap().position, Position(4));
    assert_eq!(log.head(&second.space, &STREAM).unwrap().position, Position(2), "not even its first");
}

fn forks_and_gaps_cannot_be_stored(mut log: impl Log) {
    let (patient, envelopes) = stored(&mut log, 1, 2);
    let head = head_after(patient.space, STREAM, &envelopes);
    let again = appending(&patient, head, &envelopes[1..]);
    assert!(matches!(log.commit(&[again]).unwrap()[..], [Err(LogError::Damaged(_))]));
    let twice = founding(&patient);
    assert!(matches!(log.commit(&[twice]).unwrap()[..], [Err(LogError::Damaged(_))]));
    assert_eq!(log.head(&patient.space, &STREAM), Ok(head));
}

fn runs_are_cut_where_they_are_full(mut log: impl Log) {
    let (patient, envelopes) = stored(&mut log, 1, 10);
    let bytes = envelopes[0].as_bytes().len();
    let mut after = Position(0);
    for expected in [3, 3, 3, 1] {
        let run = log.read(&patient.space, &STREAM, after, 3 * bytes + 1, None).unwrap().unwrap();
        assert_eq!(run.items.len(), expected);
        let upto = usize::try_from(after.0).unwrap() + expected;
        assert_eq!(run.end, head_after(patient.space, STREAM, &envelopes[..upto]));
        after = run.end.position;
    }
    let one = log.read(&patient.space, &STREAM, Position(0), 1, None).unwrap().unwrap();
    assert_eq!(one.items.len(), 1, "never nothing while there is something");
    let none = log.read(&patient.space, &STREAM, Position(10), 1, None).unwrap().unwrap();
    assert_eq!((none.items.len(), none.end.position), (0, Position(10)));
    assert!(log.read(&patient.space, &STREAM, Position(11), 1, None).unwrap().is_none());
}

fn epochs_stand_side_by_side(mut log: impl Log) {
    let (mut patient, envelopes) = stored(&mut log, 1, 2);
    let before = patient.device.clone();
    patient.rotate();
    let prev = envelopes[0].hash();
    let again = before.write_changed(&patient.roster, STREAM, |header| {
        (header.seq, header.prev) = (Seq(2), prev);
    });
    let again = before.verified(again);
    let head = head_after(patient.space, STREAM, &envelopes);
    assert_eq!(log.commit(&[appending(&patient, head, std::slice::from_ref(&again))]), Ok(vec![Ok(())]));
    let both = log.at(&patient.space, &STREAM, &before.id(), Seq(2)).unwrap();
    assert_eq!(both.iter().map(|at| at.position).collect::<Vec<_>>(), [Position(2), Position(3)]);
    assert_eq!(log.last(&patient.space, &STREAM, &before.id()), Ok(Some((Seq(2), again.hash()))));
}

fn births_are_kept_in_order(mut log: impl Log) {
    let mut means = TestMeans::new();
    let space = Patient::new(1).space;
    let mut births = Vec::new();
    for number in 2..5 {
        let (old, new) = (LogId([number - 1; 16]), LogId([number; 16]));
        let born = LogBorn { space, old, new, evidence: Vec::new(), common: Vec::new() };
        let signed = means.sign_born(&born);
        births.push(signed.clone());
        let begins = Some(Begins::Again(new, signed));
        let part = SpaceWrites { space, begins, entries: Vec::new(), envelopes: Vec::new() };
        assert_eq!(log.commit(&[part]), Ok(vec![Ok(())]));
        assert_eq!(log.log_id(&space), Ok(Some(new)));
    }
    assert_eq!(log.births(&space), Ok(births));
}

fn a_hello_is_answered_from_one_moment(mut log: impl Log) {
    let (patient, envelopes) = stored(&mut log, 1, 20);
    let rosters = Rosters::default();
    let (author, tls) = (patient.device.id(), patient.device.tls.public());
    let head = head_after(patient.space, STREAM, &envelopes);
    let mut hello = patient.hello();
    let fresh = open(&log, &rosters, &author, &tls, &hello).unwrap().unwrap();
    assert_eq!(*fresh.roster, patient.roster);
    assert_eq!(fresh.entries, patient.entries);
    assert_eq!(fresh.heads, [head]);
    assert_eq!(fresh.own_heads, [(STREAM, Seq(20), envelopes[19].hash())]);
    assert!(fresh.samples.is_empty());
    let stranger = open(&log, &rosters, &author, &Device::new(9).tls.public(), &hello).unwrap().unwrap();
    assert!(stranger.entries.is_empty(), "whatever id it says it has");
    hello.log_id = LOG;
    hello.roster = patient.roster.head();
    hello.cursors = vec![head_after(patient.space, STREAM, &envelopes[..7])];
    let known = open(&log, &rosters, &author, &tls, &hello).unwrap().unwrap();
    assert!(known.entries.is_empty() && known.samples.is_empty());
    assert_eq!(known.at_cursors, [(STREAM, Some(hello.cursors[0].chain))]);
    hello.cursors[0].position = Position(21);
    let ahead = open(&log, &rosters, &author, &tls, &hello).unwrap().unwrap();
    assert_eq!(ahead.at_cursors, [(STREAM, None)]);
    let places: Vec<_> = ahead.samples.iter().map(|head| head.position.0).collect();
    assert_eq!(places, [20, 19, 18, 16, 12, 4]);
    assert_eq!(ahead.samples[5], head_after(patient.space, STREAM, &envelopes[..4]));
    hello.cursors[0] = Head { chain: Hash([9; 32]), ..head };
    assert!(!open(&log, &rosters, &author, &tls, &hello).unwrap().unwrap().samples.is_empty());
}

fn a_frozen_view_does_not_move(mut log: impl Log) {
    let (mut patient, envelopes) = stored(&mut log, 1, 1);
    let reader = log.reader().unwrap();
    let head = head_after(patient.space, STREAM, &envelopes);
    let space = patient.space;
    let more = patient.write_many(1);
    reader
        .frozen(|reader| {
            assert_eq!(reader.head(&space, &STREAM)?, head);
            assert_eq!(log.commit(&[appending(&patient, head, &more)]), Ok(vec![Ok(())]));
            assert_eq!(reader.head(&space, &STREAM)?, head);
            Ok(())
        })
        .unwrap();
    assert_eq!(reader.head(&space, &STREAM).unwrap().position, Position(2));
}
