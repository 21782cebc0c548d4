//! Payloads on their way through the gate into Automerge: what a member who holds a stream's key can send.

use std::collections::BTreeSet;

use automerge::Change;
use ebb_core::{
    document::{
        Admitted, Document, NewChange, Refusal, State, Written,
        gate::{self, CHANGE_BYTES_MAX, COLUMN_ITEMS_MAX, ENVELOPE_ITEMS_MAX},
    },
    record::{Retraction, Value},
    seal::{BadPayload, CHANGES_MAX, INFLATED_BYTES_MAX, PAYLOAD_VERSION, Payload, RecordChanges},
};
use ebb_protocol::{
    id::{DeviceId, StreamId},
    verify,
};
use flate2::{Compress, Compression, FlushCompress};

use super::Feed;
use crate::rogue::{bomb, chunk, put_unsigned};

/// Devices that write; one more reads and retracts.
const AUTHORS: usize = 3;
/// Changes that one run makes.
const STEPS_MAX: usize = 24;
/// Changes of a payload that are looked at together; more only takes longer.
const CHANGES_LOOKED_AT: usize = 200;

/// Unpacks payloads, damaged or of damaged changes, and admits what is in them.
///
/// What unpacks packs again as the same, and is no larger than payloads may be. What the gate lets through
/// keeps its limits, loads again as the same document in any order, can be read, listed and retracted, and
/// another device admits what is then written on top of it.
pub fn payload(bytes: &[u8]) {
    let feed = &mut Feed::new(bytes);
    match feed.byte() % 4 {
        0 => unpacked(feed.rest()).iter().for_each(arrives),
        1 => unpacked(&packed(feed.rest())).iter().for_each(arrives),
        _ => written(feed),
    }
}

fn actor(author: usize) -> [u8; 16] {
    verify::actor_id(&DeviceId([author as u8 + 1; 16]), &StreamId([0xa1; 16]))
}

/// A body of these bytes, deflated as [`Payload::pack`] would.
fn packed(body: &[u8]) -> Vec<u8> {
    let mut packed = vec![PAYLOAD_VERSION];
    packed.extend((body.len() as u32).to_be_bytes());
    packed.reserve(body.len() + 1_000);
    let mut deflater = Compress::new(Compression::fast(), false);
    deflater.compress_vec(body, &mut packed, FlushCompress::Finish).expect("deflates what is short");
    packed
}

/// Unpacks, and holds the payload against its limits and against itself packed again.
fn unpacked(bytes: &[u8]) -> Option<Payload> {
    let payload = Payload::unpack(bytes).ok()?;
    let changes: Vec<_> = payload.records.iter().flat_map(|record| &record.changes).collect();
    let held: usize = changes.iter().map(|change| change.len()).sum();
    // A short form leaves out some 20 bytes, which come back.
    assert!(changes.len() <= CHANGES_MAX && held <= INFLATED_BYTES_MAX + 32 * changes.len());
    match payload.pack() {
        Ok(again) => assert!(Payload::unpack(&again) == Ok(payload.clone()), "something else comes back"),
        // Written in another way than ours, it may just have fitted.
        Err(error) => assert!(error == BadPayload::TooLong && bytes.len() > 1_000, "{error}"),
    }
    Some(payload)
}

/// Admits a payload whose changes all claim to be of the author that they name.
fn arrives(payload: &Payload) {
    if payload
        .records
        .iter()
        .flat_map(|record| &record.changes)
        .map(|change| gate::weigh(change))
        .sum::<u64>()
        > ENVELOPE_ITEMS_MAX
    {
        return;
    }
    for record in &payload.records {
        let changes: Vec<_> = record
            .changes
            .iter()
            .take(CHANGES_LOOKED_AT)
            .filter_map(|change| Some((gate::inspect(change).ok()?.actor, change.clone())))
            .collect();
        admitted(&changes);
    }
}

/// Writes a record on several devices, damages some changes and lets all arrive.
fn written(feed: &mut Feed<'_>) {
    let mut made: Vec<([u8; 16], Vec<u8>)> = Vec::new();
    let value = feed.below(40);
    let time = time(feed);
    let (document, change) = match Document::create(actor(0), time, feed.take(value), "a note") {
        Ok(created) => created,
        Err(refusal) => {
            return assert!(
                refusal == Refusal::Time && time.unsigned_abs() > gate::TIME_MAX.unsigned_abs(),
                "{refusal}"
            );
        }
    };
    made.push((actor(0), change.bytes));
    let mut devices = vec![document; AUTHORS];
    for _ in 0..STEPS_MAX {
        if feed.is_over() {
            break;
        }
        let author = feed.below(AUTHORS);
        if let Some(bytes) = write(feed, author, &mut devices, &made) {
            made.push((actor(author), bytes));
        }
    }
    let mut record = feed.array();
    record[6] = 0x70;
    let changes = made.iter().map(|(_, change)| change.clone()).collect();
    let payload = Payload { records: vec![RecordChanges { record, changes }] };
    if let Ok(packed) = payload.pack() {
        assert!(unpacked(&packed) == Some(payload), "something else comes out");
    }
    admitted(&made);
}

fn time(feed: &mut Feed<'_>) -> i64 {
    match feed.below(8) {
        0 => i64::from_be_bytes(feed.array()),
        _ => i64::from(feed.byte()),
    }
}

/// What one device does next; `None` where it makes no change.
fn write(
    feed: &mut Feed<'_>,
    author: usize,
    devices: &mut [Document],
    made: &[([u8; 16], Vec<u8>)],
) -> Option<Vec<u8>> {
    let (actor, document) = (actor(author), &mut devices[author]);
    let new = |change: Result<Option<NewChange>, _>| change.ok().flatten().map(|change| change.bytes);
    match feed.below(12) {
        0 => {
            let changes = made.iter().map(|(actor, change)| (change.as_slice(), *actor));
            *document = document.admit_all(changes).document;
            None
        }
        1 => {
            let len = feed.below(20);
            let value = feed.take(len).to_vec();
            new(document.edit(actor, time(feed), Some(&value), None))
        }
        2 => {
            let len = feed.below(20);
            let note = String::from_utf8_lossy(feed.take(len)).into_owned();
            new(document.edit(actor, time(feed), None, Some(&note)))
        }
        3 => new(document.retract(actor, time(feed), b"\xa0")),
        4 => new(document.unretract(actor, time(feed))),
        5 => Some(bomb(actor, feed.pick(&[1, 2, 100, COLUMN_ITEMS_MAX, COLUMN_ITEMS_MAX + 1, u64::MAX]))),
        6 => {
            let mut bytes = made[feed.below(made.len())].1.clone();
            feed.damage(&mut bytes);
            Some(bytes)
        }
        _ => {
            let mut parts = Parts::of(&made[feed.below(made.len())].1)?;
            parts.damage(feed);
            Some(parts.put_together())
        }
    }
}

/// Lets changes arrive, each with its author's actor, and holds what the gate let through to its word.
fn admitted(changes: &[([u8; 16], Vec<u8>)]) {
    let offered = || changes.iter().map(|(actor, change)| (change.as_slice(), *actor));
    let Admitted { document, refused } = Document::empty().admit_all(offered());
    let is_refused = |place: &usize| refused.iter().any(|(other, _)| other == place);
    let accepted: Vec<_> = (0..changes.len()).filter(|place| !is_refused(place)).collect();
    if accepted.is_empty() {
        assert!(document.heads().is_empty() && document.state().value.is_empty());
        return;
    }
    let mut judged = BTreeSet::new();
    for place in &accepted {
        let (actor, bytes) = &changes[*place];
        judged.extend(Written::read(bytes).expect("it passed").value);
        let inspected = gate::inspect(bytes).expect("it passed");
        assert_eq!(inspected.actor, *actor, "it is its author's");
        assert!(inspected.items <= COLUMN_ITEMS_MAX && bytes.len() <= CHANGE_BYTES_MAX);
        let change = Change::try_from(&bytes[..]).expect("Automerge reads it");
        assert!(change.len() as u64 <= COLUMN_ITEMS_MAX, "more operations than were counted");
    }
    let state = document.state();
    let State { value, conflicting, .. } = &state;
    assert!(judged.contains(value), "what is shown is what no change says that it writes");
    assert!(conflicting.iter().all(|value| judged.contains(value)), "nor what is in conflict");
    let history = document.history();
    assert!(history.iter().all(|version| judged.contains(&version.value)), "nor what was shown once");
    assert!(history.len() <= accepted.len());
    let loaded = Document::load(accepted.iter().map(|place| changes[*place].1.as_slice()));
    let loaded = loaded.expect("what was admitted loads");
    assert!(loaded.state() == state && loaded.heads() == document.heads(), "it loads as something else");
    let backwards = Document::empty().admit_all(offered().rev());
    if refused.is_empty() && backwards.refused.is_empty() {
        assert!(backwards.document.state() == state, "another order makes another record");
        assert_eq!(backwards.document.heads(), document.heads());
        assert!(backwards.document.history() == history);
    }
    if let Ok(value) = Value::decode(&state.value) {
        assert!(Value::decode(&value.encode()) == Ok(value), "a value is something else");
    }
    state.retraction.iter().for_each(|retraction| drop(Retraction::decode(retraction)));
    goes_on(document);
}

/// A device that never wrote retracts the record, and the others take that.
fn goes_on(document: Document) {
    let mut retracted = document.clone();
    let change = retracted.retract(actor(AUTHORS), 5, b"retracted").expect("a record can be retracted");
    let change = change.expect("nobody gave this reason yet");
    assert_eq!(retracted.state().retraction.as_deref(), Some(&b"retracted"[..]));
    let elsewhere = document.admit(&change.bytes, actor(AUTHORS)).expect("the others take it");
    assert!(elsewhere.state() == retracted.state());
}

/// A change in pieces: what stands before its columns, and the columns.
struct Parts {
    head: Vec<u8>,
    columns: Vec<(u64, Vec<u8>)>,
}

impl Parts {
    /// Takes a change apart, as far as it is one.
    fn of(change: &[u8]) -> Option<Self> {
        let mut rest = change.get(9..)?;
        take_unsigned(&mut rest)?;
        let content = rest;
        let ancestors = take_unsigned(&mut rest)?;
        rest = rest.get(usize::try_from(ancestors).ok()?.checked_mul(32)?..)?;
        let actor = take_unsigned(&mut rest)?;
        rest = rest.get(usize::try_from(actor).ok()?..)?;
        // Sequence, first operation, time, and the message.
        for _ in 0..3 {
            take_unsigned(&mut rest)?;
        }
        let message = take_unsigned(&mut rest)?;
        rest = rest.get(usize::try_from(message).ok()?..)?;
        for _ in 0..take_unsigned(&mut rest)? {
            let actor = take_unsigned(&mut rest)?;
            rest = rest.get(usize::try_from(actor).ok()?..)?;
        }
        let head = content[..content.len() - rest.len()].to_vec();
        let mut lengths = Vec::new();
        for _ in 0..take_unsigned(&mut rest)? {
            lengths.push((take_unsigned(&mut rest)?, usize::try_from(take_unsigned(&mut rest)?).ok()?));
        }
        let mut columns = Vec::new();
        for (spec, len) in lengths {
            let (data, after) = rest.split_at_checked(len)?;
            columns.push((spec, data.to_vec()));
            rest = after;
        }
        Some(Self { head, columns })
    }

    /// Changes the head or a column; the lengths follow.
    fn damage(&mut self, feed: &mut Feed<'_>) {
        let at = feed.below(self.columns.len() + 2);
        let columns = self.columns.len();
        match self.columns.get_mut(at) {
            Some((_, data)) => feed.damage(data),
            None if at == columns => feed.damage(&mut self.head),
            None => {
                let spec = u64::from(feed.byte());
                let len = feed.below(16);
                self.columns.retain(|(other, _)| *other != spec);
                self.columns.push((spec, feed.take(len).to_vec()));
                self.columns.sort_unstable_by_key(|(spec, _)| *spec);
            }
        }
    }

    /// The change of these pieces, its checksum right.
    fn put_together(&self) -> Vec<u8> {
        let mut content = self.head.clone();
        put_unsigned(&mut content, self.columns.len() as u64);
        for (spec, data) in &self.columns {
            put_unsigned(&mut content, *spec);
            put_unsigned(&mut content, data.len() as u64);
        }
        content.extend(self.columns.iter().flat_map(|(_, data)| data));
        chunk(&content)
    }
}

fn take_unsigned(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
