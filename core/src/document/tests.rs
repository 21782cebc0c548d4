//! Tests of the document: merge rules, convergence, hostile changes, and what things cost.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests may fail and tell")]

use std::time::Instant;

use proptest::prelude::*;

use super::gate::tests::{chunk, content};
use super::*;
use crate::record::{self, Attendance, Band, BandInstrument, CheckIn, Entry, Moment, Phase, Stamp, Unit};

const ANN: [u8; 16] = [1; 16];
const BEN: [u8; 16] = [2; 16];
const CAT: [u8; 16] = [3; 16];

/// A device's copy of a record, and the changes it has seen.
#[derive(Clone)]
struct Replica {
    actor: [u8; 16],
    document: Document,
    changes: Vec<([u8; 16], Vec<u8>)>,
}

impl Replica {
    fn create(actor: [u8; 16], note: &str) -> Self {
        let (document, change) = Document::create(actor, 1, b"first", note).unwrap();
        Self { actor, document, changes: vec![(actor, change.bytes)] }
    }

    fn copy_for(&self, actor: [u8; 16]) -> Self {
        Self { actor, ..self.clone() }
    }

    fn keep(&mut self, change: Option<NewChange>) -> bool {
        let kept = change.map(|change| self.changes.push((self.actor, change.bytes)));
        kept.is_some()
    }

    fn edit(&mut self, time: i64, value: Option<&[u8]>, note: Option<&str>) -> bool {
        let change = self.document.edit(self.actor, time, value, note).unwrap();
        self.keep(change)
    }

    fn retract(&mut self, time: i64, payload: &[u8]) -> bool {
        let change = self.document.retract(self.actor, time, payload).unwrap();
        self.keep(change)
    }

    fn unretract(&mut self, time: i64) -> bool {
        let change = self.document.unretract(self.actor, time).unwrap();
        self.keep(change)
    }

    fn merge(&mut self, other: &Self) {
        let new: Vec<_> =
            other.changes.iter().filter(|change| !self.changes.contains(change)).cloned().collect();
        let arrived = new.iter().map(|(actor, bytes)| (&bytes[..], *actor));
        let Admitted { document, refused } = self.document.admit_all(arrived);
        assert_eq!(refused, []);
        self.document = document;
        self.changes.extend(new);
    }

    fn state(&self) -> State {
        self.document.state()
    }
}

/// A small generator for tests (SplitMix64).
struct Seeded(u64);

impl Seeded {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below as u64) as usize
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next(256) as u8)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for place in (1..items.len()).rev() {
            items.swap(place, self.next(place + 1));
        }
    }
}

#[test]
fn a_record_is_created_edited_and_loaded() {
    let mut ann = Replica::create(ANN, "a note");
    assert!(ann.edit(2, Some(b"second"), Some("a longer note")));
    let (value, note) = (b"second".to_vec(), "a longer note".to_owned());
    let state = State { value, actor: ANN, note, ..State::default() };
    assert!(ann.state() == state);
    let loaded = Document::load(ann.changes.iter().rev().map(|(_, bytes)| &bytes[..])).unwrap();
    assert!(loaded.state() == state);
    assert_eq!(loaded.heads(), ann.document.heads());
    let partly = Document::load(ann.changes[1..].iter().map(|(_, bytes)| &bytes[..]));
    assert!(matches!(partly, Err(Refusal::Waiting { missing }) if missing.len() == 1));
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let write = || {
        let mut ann = Replica::create(ANN, "a note");
        ann.edit(2, Some(b"second"), Some("another note"));
        ann.retract(3, b"reason");
        ann.unretract(4);
        ann.changes
    };
    assert_eq!(write(), write());
}

#[test]
fn what_changes_nothing_writes_nothing() {
    let mut ann = Replica::create(ANN, "a note");
    assert!(!ann.edit(2, Some(b"first"), Some("a note")));
    assert!(!ann.edit(2, None, None));
    assert!(!ann.unretract(2));
    assert!(ann.retract(2, b"reason"));
    assert!(!ann.retract(3, b"reason"));
    assert_eq!(ann.document.history().len(), 2);
}

#[test]
fn concurrent_values_are_all_kept_until_one_is_chosen() {
    let mut ann = Replica::create(ANN, "");
    let (mut ben, mut cat) = (ann.copy_for(BEN), ann.copy_for(CAT));
    ann.edit(2, Some(b"ann's"), None);
    ben.edit(3, Some(b"ben's"), None);
    cat.edit(4, Some(b"ben's"), None);
    ann.merge(&ben);
    ann.merge(&cat);
    ben.merge(&ann);
    let state = ann.state();
    assert!(state == ben.state());
    assert_eq!((&state.value[..], &state.conflicting), (&b"ben's"[..], &vec![b"ann's".to_vec()]));

    assert!(ann.document.resolve(ANN, 5, &state.value).unwrap().is_some(), "the shown one, chosen");
    let resolved = ben.document.resolve(BEN, 5, b"ann's").unwrap();
    ben.keep(resolved);
    let state = ben.state();
    assert_eq!((&state.value[..], state.conflicting.len()), (&b"ann's"[..], 0));
    cat.merge(&ben);
    assert!(cat.state() == state);
}

#[test]
fn concurrent_notes_merge_as_text() {
    let mut ann = Replica::create(ANN, "slept well");
    let mut ben = ann.copy_for(BEN);
    ann.edit(2, None, Some("slept very well"));
    ben.edit(2, None, Some("slept well today"));
    ann.merge(&ben);
    ben.merge(&ann);
    assert_eq!(ann.state().note, "slept very well today");
    assert!(ann.state() == ben.state());
}

#[test]
fn a_retraction_wins_and_can_be_taken_back() {
    let mut ann = Replica::create(ANN, "");
    let mut ben = ann.copy_for(BEN);
    ann.retract(2, b"entered twice");
    ben.edit(2, Some(b"edited"), None);
    ann.merge(&ben);
    ben.merge(&ann);
    assert!(ann.state() == ben.state());
    assert_eq!(ann.state().retraction.as_deref(), Some(&b"entered twice"[..]));
    assert_eq!(ann.state().value, b"edited");

    // Taken back by one and given again by the other, at the same time: retracted.
    let mut cat = ann.copy_for(CAT);
    assert!(cat.unretract(3));
    assert_eq!(cat.state().retraction, None);
    ben.retract(3, b"still twice");
    cat.merge(&ben);
    ben.merge(&cat);
    assert!(cat.state() == ben.state());
    assert_eq!(cat.state().retraction.as_deref(), Some(&b"still twice"[..]));

    // Two retractions at the same time: taking back takes both.
    let mut ben = Replica::create(BEN, "");
    let mut cat = ben.copy_for(CAT);
    ben.retract(2, b"one");
    cat.retract(2, b"two");
    ben.merge(&cat);
    assert!(ben.unretract(3));
    assert_eq!(ben.state().retraction, None);
}

#[test]
fn history_lists_every_version_in_causal_order() {
    let mut ann = Replica::create(ANN, "one");
    let mut ben = ann.copy_for(BEN);
    ann.edit(9, Some(b"second"), None);
    ben.edit(5, None, Some("two"));
    ann.merge(&ben);
    ann.edit(3, None, Some("two three")); // by a clock that went back
    ann.retract(12, b"reason");
    let history = ann.document.history();
    let told: Vec<_> = history
        .iter()
        .map(|v| (v.actor[0], v.time, &v.value[..], &v.note[..], v.retraction.is_some()))
        .collect();
    let expected: [(u8, i64, &[u8], &str, bool); 5] = [
        (1, 1, b"first", "one", false),
        (2, 5, b"first", "two", false),
        (1, 9, b"second", "one", false),
        (1, 3, b"second", "two three", false),
        (1, 12, b"second", "two three", true),
    ];
    assert_eq!(told, expected);
    assert_eq!(ann.document.heads(), [history[4].change]);
    let loaded = Document::load(ann.changes.iter().rev().map(|(_, bytes)| &bytes[..])).unwrap();
    assert!(loaded.history() == history);
}

#[test]
fn ancestors_are_waited_for_and_strangers_refused() {
    let mut ann = Replica::create(ANN, "");
    ann.edit(2, Some(b"second"), None);
    let [(_, first), (_, second)] = &ann.changes[..] else { panic!("two changes were made") };
    let hash = ann.document.history()[0].change;
    let waiting = Document::empty().admit(second, ANN).map(drop);
    assert_eq!(waiting, Err(Refusal::Waiting { missing: vec![hash] }));
    assert_eq!(Document::empty().admit(first, BEN).map(drop), Err(Refusal::WrongActor));
    let again = ann.document.admit(first, ANN).unwrap();
    assert!(again.state() == ann.state());

    let mut restored = Replica { actor: ANN, ..Replica::create(ANN, "") };
    restored.edit(3, Some(b"from a backup"), None);
    let forked = ann.document.admit(&restored.changes[1].1, ANN).map(drop);
    assert_eq!(forked, Err(Refusal::DuplicateSeq));
}

#[test]
fn good_changes_arrive_whatever_came_with_them() {
    let mut ann = Replica::create(ANN, "");
    let mut ben = ann.copy_for(BEN);
    ann.edit(2, Some(b"second"), None);
    ben.edit(2, None, Some("note"));
    ann.merge(&ben);
    let mut damaged = ann.changes[1].1.clone();
    damaged[4] ^= 1;
    let batch =
        [(&damaged[..], ANN), (&ann.changes[2].1, BEN), (&ann.changes[0].1, ANN), (&ann.changes[0].1, ANN)];
    let Admitted { document, refused } = Document::empty().admit_all(batch);
    assert_eq!(refused, [(0, Refusal::Checksum)]);
    assert_eq!(document.history().len(), 2);
}

/// Writes a change with Automerge itself, as a faulty or hostile device might.
fn written_by(
    actor: [u8; 16],
    base: &Document,
    write: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>,
) -> Vec<u8> {
    let mut doc = base.doc.clone().with_actor(ActorId::from(actor));
    let mut tx = doc.transaction();
    write(&mut tx).unwrap();
    tx.commit_with(CommitOptions::default().with_time(2));
    doc.get_last_local_change().unwrap().raw_bytes().to_vec()
}

#[test]
fn a_record_stays_a_record_and_keeps_what_newer_versions_add() {
    let ann = Replica::create(ANN, "note");
    let base = &ann.document;
    let text = automerge::ObjType::Text;
    for (name, change) in [
        ("no value", written_by(BEN, &Document::empty(), |tx| tx.put(ROOT, "k", 1))),
        ("value gone", written_by(BEN, base, |tx| tx.delete(ROOT, "v"))),
        ("value a number", written_by(BEN, base, |tx| tx.put(ROOT, "v", 1))),
        ("note gone", written_by(BEN, base, |tx| tx.delete(ROOT, "n"))),
        ("note replaced", written_by(BEN, base, |tx| tx.put_object(ROOT, "n", text).map(drop))),
        ("retraction a number", written_by(BEN, base, |tx| tx.put(ROOT, "x", 1))),
    ] {
        let document = if name == "no value" { &Document::empty() } else { base };
        assert_eq!(document.admit(&change, BEN).map(drop), Err(Refusal::NotARecord), "{name}");
    }
    let newer = written_by(BEN, base, |tx| {
        let plan = tx.put_object(ROOT, "goals", automerge::ObjType::Map)?;
        tx.put(&plan, "first", "walk daily")
    });
    let mut document = base.admit(&newer, BEN).unwrap();
    document.edit(ANN, 3, Some(b"second"), None).unwrap();
    assert!(document.doc.get(ROOT, "goals").unwrap().is_some());
}

#[test]
fn a_change_follows_from_its_ancestors_alone() {
    let ann = Replica::create(ANN, "note");
    let mut ben = ann.copy_for(BEN);
    ben.edit(2, None, Some("note and more"));

    // The same operations, said to descend from the creation alone: one refers to Ben's letters.
    let both = written_by(CAT, &ben.document, |tx| {
        let (_, note) = tx.get(ROOT, "n")?.unwrap();
        tx.splice_text(&note, 13, 0, "!")
    });
    let parsed = Change::try_from(&both[..]).unwrap();
    let mut forged = parsed.decode();
    forged.deps = vec![ChangeHash(ann.document.heads()[0])];
    forged.start_op = Change::try_from(&ben.changes[1].1[..]).unwrap().start_op();
    let forged = Change::from(forged).raw_bytes().to_vec();
    assert!(ben.document.admit(&both, CAT).is_ok());
    assert_eq!(ben.document.admit(&forged, CAT).map(drop), Err(Refusal::Inconsistent));

    for tamper in [
        |change: &mut automerge::ExpandedChange| change.seq = 2,
        |change: &mut automerge::ExpandedChange| change.start_op = 4_000_000_000.try_into().unwrap(),
        |change: &mut automerge::ExpandedChange| change.start_op = 1.try_into().unwrap(),
    ] {
        let mut forged = parsed.decode();
        tamper(&mut forged);
        let forged = Change::from(forged).raw_bytes().to_vec();
        assert_eq!(ben.document.admit(&forged, CAT).map(drop), Err(Refusal::Inconsistent));
    }
}

#[test]
fn a_change_tells_the_one_value_that_it_leaves() {
    let mut ann = Replica::create(ANN, "");
    let mut ben = ann.copy_for(BEN);
    ann.edit(2, Some(b"ann's"), None);
    ben.edit(3, Some(b"ben's"), None);
    ann.merge(&ben);
    let chosen = ann.document.resolve(ANN, 4, b"ann's").unwrap().unwrap();
    let Written { hash, actor, seq, value } = Written::read(&chosen.bytes).unwrap();
    assert_eq!((hash, actor, seq), (chosen.hash, ANN, 3));
    assert_eq!(value.unwrap(), b"ann's", "what is put in between is no more");
    let noted = ann.document.edit(ANN, 5, None, Some("a note")).unwrap().unwrap();
    assert_eq!(Written::read(&noted.bytes).unwrap().value, None);

    // Two, of which neither takes the other's place: both would stand.
    let base = &ben.document;
    let both = written_by(CAT, base, |tx| {
        tx.put(ROOT, "v", b"hidden".to_vec())?;
        tx.put(ROOT, "v", b"shown".to_vec())
    });
    assert_eq!(Written::read(&both).unwrap().value.unwrap(), b"shown");
    assert!(base.admit(&both, CAT).is_ok());
    let mut forged = Change::try_from(&both[..]).unwrap().decode();
    forged.operations[1].pred = forged.operations[0].pred.clone();
    let forged = Change::from(forged).raw_bytes().to_vec();
    assert_eq!(base.admit(&forged, CAT).map(drop), Err(Refusal::NotARecord));
    assert_eq!(Written::read(&forged).map(drop), Err(Refusal::NotARecord));

    for seq in [CHANGES_PER_AUTHOR_AND_RECORD_MAX + 1, u64::MAX] {
        let mut forged = Change::try_from(&both[..]).unwrap().decode();
        forged.seq = seq;
        let forged = Change::from(forged).raw_bytes().to_vec();
        assert_eq!(Written::read(&forged).map(drop), Err(Refusal::Inconsistent), "more than there may be");
    }
}

/// Changes a few bytes of a change, and makes length and checksum right again.
fn mutant(change: &[u8], seeded: &mut Seeded) -> Vec<u8> {
    let mut content = content(change).to_vec();
    for _ in 0..=seeded.next(3) {
        let place = seeded.next(content.len());
        match seeded.next(6) {
            0 => content[place] = seeded.next(256) as u8,
            1 => content[place] ^= 1 << seeded.next(8),
            2 => content[place] = content[place].wrapping_add(1),
            3 => content[place] = content[place].wrapping_sub(1),
            4 => content.insert(place, seeded.next(256) as u8),
            _ => drop(content.remove(place)),
        }
    }
    chunk(1, &content)
}

#[test]
fn no_mutant_panics_or_poisons() {
    let mut ann = Replica::create(ANN, "a note that is edited");
    let mut ben = ann.copy_for(BEN);
    ann.edit(2, Some(b"second"), Some("a note which is edited"));
    ben.edit(3, Some(b"other"), Some("the note is edited"));
    ben.retract(4, b"reason");
    ann.merge(&ben);
    ann.edit(5, Some(b"third"), Some("the one note"));

    let mut seeded = Seeded(7);
    let mut verdicts = std::collections::BTreeMap::<_, u32>::new();
    for round in 0..8_000 {
        let target = round % ann.changes.len();
        let (others, (actor, original)) = (&ann.changes[..target], &ann.changes[target]);
        let before = Document::load(others.iter().map(|(_, bytes)| &bytes[..])).unwrap();
        let mutated = mutant(original, &mut seeded);
        let verdict = match before.admit(&mutated, *actor) {
            Err(refusal) => refusal.code(),
            Ok(mut document) => {
                let all = others.iter().map(|(_, bytes)| &bytes[..]).chain([&mutated[..]]);
                let loaded = Document::load(all).expect("what was admitted loads");
                assert!(loaded.state() == document.state() && loaded.history() == document.history());
                document.edit(CAT, 6, Some(b"after"), Some("after")).expect("it can be edited");
                assert_eq!(document.state().note, "after");
                "admitted"
            }
        };
        *verdicts.entry(verdict).or_default() += 1;
    }
    println!("mutants: {verdicts:?}");
    assert!(verdicts["admitted"] > 100, "{verdicts:?}");
}

#[test]
fn a_change_that_automerge_cannot_bear_falls_alone() {
    let mut ann = Replica::create(ANN, "a note that is edited");
    let mut ben = ann.copy_for(BEN);
    ann.edit(2, Some(b"second"), None);
    ben.edit(3, None, Some("the note is edited"));
    let mut seeded = Seeded(1);
    let mutants = std::iter::repeat_with(|| mutant(&ben.changes[1].1, &mut seeded));
    let unbearable = |bytes: &Vec<u8>| {
        let refusal = ann.document.admit(bytes, BEN).err();
        matches!(refusal, Some(Refusal::Inapplicable | Refusal::Poisonous))
    };
    let bad = mutants.take(10_000).find(unbearable).unwrap();
    let [(_, first), (_, second)] = &ann.changes[..] else { panic!("two changes were made") };
    let batch = [(&second[..], ANN), (&bad[..], BEN), (&first[..], ANN)];
    let Admitted { document, refused } = Document::empty().admit_all(batch);
    assert!(document.state() == ann.state());
    assert!(matches!(refused[..], [(1, Refusal::Inapplicable | Refusal::Poisonous)]), "{refused:?}");
}

/// Automerge keeps times as differences, and one that does not fit would break whatever is written next.
#[test]
fn no_time_spoils_a_record_for_others() {
    const NOW: i64 = 1_700_000_000_000;
    let (mut document, _) = Document::create(ANN, NOW, b"first", "").unwrap();
    for time in [i64::MIN + NOW + 1, i64::MAX, i64::MIN, gate::TIME_MAX + 1, -gate::TIME_MAX - 1] {
        let mut elsewhere = document.doc.clone().with_actor(ActorId::from(BEN));
        let mut tx = elsewhere.transaction();
        tx.put(ROOT, "v", b"hostile".to_vec()).unwrap();
        let Some(_) = contained(|| tx.commit_with(CommitOptions::default().with_time(time))) else {
            continue;
        };
        let bytes = elsewhere.get_last_local_change().unwrap().raw_bytes().to_vec();
        if let Ok(admitted) = document.admit(&bytes, BEN) {
            document = admitted;
        }
        document.retract(ANN, NOW + 2, b"taken back").expect("its author can still write");
        assert_eq!(document.admit(&bytes, BEN).map(drop), Err(Refusal::Time), "{time}");
    }
    for time in [gate::TIME_MAX, -gate::TIME_MAX, 0] {
        document.edit(ANN, time, Some(&time.to_be_bytes()), None).expect("far off, and harmless");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Value(usize, u8),
    Note(usize, usize, String),
    Retract(usize, u8),
    Unretract(usize),
    Merge(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_usize, 0..4_u8).prop_map(|(who, value)| Step::Value(who, value)),
        (0..3_usize, 0..20_usize, "[a-cé👍]{0,3}").prop_map(|(who, at, text)| Step::Note(who, at, text)),
        (0..3_usize, 0..3_u8).prop_map(|(who, reason)| Step::Retract(who, reason)),
        (0..3_usize).prop_map(Step::Unretract),
        (0..3_usize, 0..3_usize).prop_map(|(from, to)| Step::Merge(from, to)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_order_of_arrival_gives_the_same_record(
        steps in prop::collection::vec(step(), 1..25),
        seed: u64,
    ) {
        let ann = Replica::create(ANN, "abc");
        let mut replicas = [ann.clone(), ann.copy_for(BEN), ann.copy_for(CAT)];
        for (time, step) in (2..).zip(steps) {
            match step {
                Step::Value(who, value) => drop(replicas[who].edit(time, Some(&[value]), None)),
                Step::Note(who, at, text) => {
                    let mut note: Vec<_> = replicas[who].state().note.chars().collect();
                    let at = at.min(note.len());
                    let end = (at + 2).min(note.len());
                    note.splice(at..end, text.chars());
                    replicas[who].edit(time, None, Some(&note.into_iter().collect::<String>()));
                }
                Step::Retract(who, reason) => drop(replicas[who].retract(time, &[reason])),
                Step::Unretract(who) => drop(replicas[who].unretract(time)),
                Step::Merge(from, to) => {
                    let from = replicas[from].clone();
                    replicas[to].merge(&from);
                }
            }
        }
        let [mut all, ben, cat] = replicas;
        all.merge(&ben);
        all.merge(&cat);
        let mut seeded = Seeded(seed);
        for _ in 0..3 {
            seeded.shuffle(&mut all.changes);
            let together = Document::empty()
                .admit_all(all.changes.iter().map(|(actor, bytes)| (&bytes[..], *actor)));
            prop_assert_eq!(&together.refused, &[]);
            let mut singly = Document::empty();
            let mut waiting = all.changes.clone();
            while !waiting.is_empty() {
                waiting.retain(|(actor, bytes)| match singly.admit(bytes, *actor) {
                    Ok(next) => { singly = next; false }
                    Err(refusal) => { assert_eq!(refusal.code(), "waiting"); true }
                });
            }
            for document in [&together.document, &singly] {
                prop_assert!(document.state() == all.state());
                prop_assert!(document.history() == all.document.history());
                prop_assert_eq!(document.heads(), all.document.heads());
            }
        }
    }
}

/// A week of mixed entries, as a phone offline would gather them.
fn week(count: usize, seeded: &mut Seeded) -> Vec<Vec<u8>> {
    let notes =
        ["", "", "", "slept badly again", "group helped, called my sponsor", "a bit shaky this morning"];
    let millis = |seeded: &mut Seeded, n: usize| {
        1_700_000_000_000 + n as i64 * 3_000_000 + seeded.next(3_000_000) as i64
    };
    let mut changes = Vec::new();
    for n in 0..count {
        let recorded = Moment { millis: millis(seeded, n), offset_minutes: -300 };
        let occurred = Moment { millis: recorded.millis - seeded.next(600_000) as i64, ..recorded };
        let mut digit = |max: usize| seeded.next(max) as u8;
        let entry = match n % 5 {
            0 => Entry::dose("buprenorphine", f64::from(2 * digit(9)), Unit::Mg),
            1 => Entry::check_in(CheckIn {
                mood: Some(digit(11)),
                stress: Some(digit(11)),
                craving: Some(digit(11)),
                pain: Some(digit(11)),
                sleep_hours: Some(f32::from(digit(20)) / 2.0),
            }),
            2 => Entry::answers("sows16", (1..=16).map(|n| (n.to_string(), i64::from(digit(5))))),
            3 => Entry::withdrawal_band(
                BandInstrument::Sows16,
                Band::try_from(digit(4)).unwrap(),
                Phase::Routine,
            ),
            _ => Entry::visit("group", format!("week {}", digit(12)), Attendance::Kept),
        };
        let entry = if n % 3 == 0 { entry.at(occurred) } else { entry };
        let entry = entry.note(notes[seeded.next(notes.len())]);
        let value = record::Value::new(&entry, &Stamp { recorded, author: [9; 16], staff: None });
        let (_, change) = Document::create(ANN, recorded.millis, &value.encode(), &entry.note).unwrap();
        let id = record::RecordId::new(recorded.millis as u64, &seeded.bytes());
        changes.push([&id.as_bytes()[..], &change.bytes].concat());
    }
    changes
}

fn deflated(changes: &[Vec<u8>], level: u32) -> usize {
    use std::io::Write;
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(&changes.concat()).unwrap();
    encoder.finish().unwrap().len()
}

#[test]
fn two_hundred_records_fit_the_wire() {
    let changes = week(200, &mut Seeded(3));
    let raw: usize = changes.iter().map(Vec::len).sum();
    let (fast, best) = (deflated(&changes, 6), deflated(&changes, 9));
    println!("200 mixed records: {raw} B of ids and changes, deflated {fast} B (6), {best} B (9)");
    assert!(best < 11_000, "{best} bytes");
    let four: usize = changes.chunks(50).map(|part| deflated(part, 9)).sum();
    let stream = |n: usize| changes.iter().skip(n).step_by(5).cloned().collect::<Vec<_>>();
    let symptoms = [stream(2), stream(3)].concat();
    let streams = [stream(0), stream(1), symptoms, stream(4)].map(|stream| deflated(&stream, 9));
    println!("the same in four blocks: {four} B mixed, {streams:?} B by stream");
    assert!(streams.iter().sum::<usize>() < 12_000, "{streams:?}");

    let (_, empty) = Document::create(ANN, 1_700_000_000_000, b"", "").unwrap();
    let (_, plain) = Document::create(ANN, 1_700_000_000_000, &[1; 100], "").unwrap();
    println!("a change: {} B empty, {} B with a value of 100 B", empty.bytes.len(), plain.bytes.len());
    assert!(plain.bytes.len() <= 100 + 160, "{} bytes", plain.bytes.len());
}

#[test]
fn calls_are_counted() {
    let before = automerge_calls();
    let (document, _) = Document::create(ANN, 1, b"value", "").unwrap();
    let after = automerge_calls();
    assert!(after > before);
    drop(document);
}

/// Prints what things cost; run with `--nocapture` for the figures.
#[test]
fn costs_are_small() {
    let value = record::Value::new(
        &Entry::dose("buprenorphine", 16.0, Unit::Mg),
        &Stamp {
            recorded: Moment { millis: 1_700_000_000_000, offset_minutes: 0 },
            author: [9; 16],
            staff: None,
        },
    )
    .encode();
    let micros = |what: &str, work: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..200).for_each(|_| work());
        println!("{what}: {:.0} us", start.elapsed().as_micros() as f64 / 200.0);
    };
    let (document, change) = Document::create(ANN, 1, &value, "a short note").unwrap();
    let edited = document.clone().edit(BEN, 2, Some(b"other"), None).unwrap().unwrap();
    micros("create", &mut || drop(Document::create(ANN, 1, &value, "a short note").unwrap()));
    micros("inspect", &mut || drop(gate::inspect(&change.bytes).unwrap()));
    micros("admit a new record", &mut || drop(Document::empty().admit(&change.bytes, ANN).unwrap()));
    micros("admit an edit", &mut || drop(document.admit(&edited.bytes, BEN).unwrap()));
    micros("load", &mut || drop(Document::load([&change.bytes[..], &edited.bytes]).unwrap()));
    micros("state", &mut || drop(document.state()));
    micros("edit a note", &mut || {
        document.clone().edit(BEN, 2, None, Some("a short new note")).unwrap();
    });
    let (_, longest) = Document::create(ANN, 1, &value, &"a".repeat(record::NOTE_CHARS_MAX)).unwrap();
    let start = Instant::now();
    let mut long = Document::empty().admit(&longest.bytes, ANN).unwrap();
    println!("admit the longest note: {:?}", start.elapsed());
    long.edit(BEN, 2, None, Some(&"b".repeat(record::NOTE_CHARS_MAX))).unwrap().unwrap();
}
