//! The gate: what a change must be before Automerge applies it.
//!
//! A change comes from another device, and Automerge 0.12 is no judge of it: it does not verify
//! the checksum, panics on some mutated changes, accepts others whose document then no longer
//! loads, and spends 22 s and 1.8 GiB on a valid change of 113 bytes that says "four million
//! operations" in run lengths. So the gate reads the chunk's outline itself and counts what the
//! columns claim before anything is decoded.

use std::{
    cell::Cell,
    collections::BTreeSet,
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

use automerge::Change;

/// Most bytes of a change: an envelope's size, since a change is never split.
pub const CHANGE_BYTES_MAX: usize = 256 * 1024;

/// Most items of one column of a change: about 50 ms of Automerge's time on a small machine.
pub const COLUMN_ITEMS_MAX: u64 = 10_000;

/// Farthest from 1970 that a change's time may be, in ms: some 285,000 years. Automerge keeps times as
/// differences of neighbours and panics where one does not fit an `i64`, which depends on the order in which
/// changes came: a record with such a time could be written, and not be loaded again.
pub const TIME_MAX: i64 = 1 << 53;

/// Most predecessors of all operations of a change; they multiply the operations' cost.
pub const PREDECESSORS_MAX: u64 = 10_000;

/// Most items of all changes of an envelope, by the sum of [`Inspected::items`]: five full changes,
/// about a quarter of a second. The caller sums.
pub const ENVELOPE_ITEMS_MAX: u64 = 50_000;

/// Most changes of one author to one record: a record stays quick to load. The caller counts what the author
/// offers along its chain, whatever becomes of it, so that every device decides alike.
pub const CHANGES_PER_AUTHOR_AND_RECORD_MAX: u64 = 1_000;

/// Most direct ancestors of a change: four for each of 64 devices that wrote at once.
const DEPS_MAX: u64 = 256;

/// Most other authors that a change refers to, by the same reckoning.
const ACTORS_MAX: u64 = 256;

/// Most columns of a change; Automerge 0.12 knows 14.
const COLUMNS_MAX: u64 = 32;

/// Most bytes of text once its run lengths are spelled out: what an envelope may inflate to.
const SPELLED_OUT_MAX: u64 = 1024 * 1024;

/// Tells why a change is not applied. It never holds contents.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The change is longer than [`CHANGE_BYTES_MAX`].
    #[error("the change is too long")]
    TooLong,
    /// The bytes are not exactly one uncompressed change.
    #[error("the bytes are not one uncompressed change")]
    Malformed,
    /// The change does not match its checksum.
    #[error("the change does not match its checksum")]
    Checksum,
    /// The change claims more items than the limits allow.
    #[error("the change claims too many items")]
    TooManyItems,
    /// The change's time is farther from 1970 than [`TIME_MAX`].
    #[error("the change has an impossible time")]
    Time,
    /// The change was written under another actor id than its author's.
    #[error("the change is another actor's")]
    WrongActor,
    /// The change must wait for ancestors; admit it again once they are there.
    #[error("the change waits for {} ancestors", missing.len())]
    Waiting {
        /// The hashes of the absent direct ancestors.
        missing: Vec<[u8; 32]>,
    },
    /// The actor wrote another change with the same sequence number.
    #[error("the actor wrote two changes with one sequence number")]
    DuplicateSeq,
    /// The change's numbers or references do not follow from its ancestors.
    #[error("the change does not follow from its ancestors")]
    Inconsistent,
    /// The change would leave something that is not a record.
    #[error("the change would leave something that is not a record")]
    NotARecord,
    /// Automerge fails on the change.
    #[error("the change cannot be applied")]
    Inapplicable,
    /// The document with the change would not load again.
    #[error("the document would not load again")]
    Poisonous,
}

impl Refusal {
    /// Returns the short name under which it is kept in the quarantine table; never changes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Checksum => "checksum",
            Self::TooManyItems => "too_many_items",
            Self::Time => "time",
            Self::WrongActor => "wrong_actor",
            Self::Waiting { .. } => "waiting",
            Self::DuplicateSeq => "duplicate_seq",
            Self::Inconsistent => "inconsistent",
            Self::NotARecord => "not_a_record",
            Self::Inapplicable => "inapplicable",
            Self::Poisonous => "poisonous",
        }
    }
}

/// What a change says of itself, its checksum verified and its size known to be bearable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inspected {
    /// The SHA-256 by which other changes name it.
    pub hash: [u8; 32],
    /// Its direct ancestors.
    pub deps: Vec<[u8; 32]>,
    /// The actor it was written under.
    pub actor: [u8; 16],
    /// Its place in the actor's changes to this record, from 1.
    pub seq: u64,
    /// Its share of [`ENVELOPE_ITEMS_MAX`]: the items of its longest column, at least 1.
    pub items: u64,
}

/// Inspects a change alone, without its ancestors; refusing costs under 10 ms and 10 MiB.
///
/// # Errors
///
/// Says why no device would apply the change, whatever its ancestors.
pub fn inspect(bytes: &[u8]) -> Result<Inspected, Refusal> {
    parse(bytes).map(|(inspected, _)| inspected)
}

/// Inspects a change and decodes it, in that order.
pub(super) fn parse(bytes: &[u8]) -> Result<(Inspected, Change), Refusal> {
    if bytes.len() > CHANGE_BYTES_MAX {
        return Err(Refusal::TooLong);
    }
    let (actor, items) = outline(bytes)?;
    let change = contained(|| Change::try_from(bytes).ok()).flatten().ok_or(Refusal::Malformed)?;
    let hash = change.hash().0;
    if hash[..4] != bytes[CHECKSUM] {
        return Err(Refusal::Checksum);
    }
    let deps = change.deps().iter().map(|dep| dep.0).collect();
    Ok((Inspected { hash, deps, actor, seq: change.seq(), items }, change))
}

thread_local! {
    static CONTAINING: Cell<bool> = const { Cell::new(false) };
}

/// Runs work that may panic on foreign input; `None` says that it did.
///
/// A panic's message may quote the input, so it must not reach a log. The only way is the panic
/// hook: the first call wraps whatever hook is there in one that stays silent on threads that are
/// in here, and changes nothing for any other panic.
pub(super) fn contained<T>(work: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CONTAINING.get() {
                hook(info);
            }
        }));
    });
    let outer = CONTAINING.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    CONTAINING.set(outer);
    result.ok()
}

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHECKSUM: std::ops::Range<usize> = 4..8;
const CHUNK_TYPE_CHANGE: u8 = 1;
const DEFLATED: u32 = 0b1000;

/// Weighs a change by its share of [`ENVELOPE_ITEMS_MAX`], without decoding it: thousands of changes are
/// refused together before one of them is looked into. What is no change weighs nothing here, and is
/// refused by [`inspect`].
pub fn weigh(bytes: &[u8]) -> u64 {
    outline(bytes).map_or(0, |(_, items)| items)
}

/// Walks a change chunk without decoding it; returns its actor and the items of its longest column.
///
/// The format: <https://automerge.org/automerge-binary-format-spec/#_change_chunk>.
fn outline(bytes: &[u8]) -> Result<([u8; 16], u64), Refusal> {
    let mut chunk = Reader(bytes);
    let magic = chunk.take(4)?;
    chunk.take(4)?;
    if magic != MAGIC || chunk.byte()? != CHUNK_TYPE_CHANGE {
        return Err(Refusal::Malformed);
    }
    let length = chunk.unsigned()?;
    if length != chunk.0.len() as u64 {
        return Err(Refusal::Malformed);
    }
    let mut deps = BTreeSet::new();
    for _ in 0..chunk.count(DEPS_MAX)? {
        if !deps.insert(chunk.take(32)?) {
            return Err(Refusal::Malformed);
        }
    }
    let actor = chunk.actor()?;
    let (_seq, _first_op) = (chunk.unsigned()?, chunk.unsigned()?);
    if chunk.signed()?.unsigned_abs() > TIME_MAX.unsigned_abs() {
        return Err(Refusal::Time);
    }
    let message = chunk.unsigned()?;
    chunk.take(message)?;
    let mut actors = BTreeSet::from([actor]);
    for _ in 0..chunk.count(ACTORS_MAX)? {
        if !actors.insert(chunk.actor()?) {
            return Err(Refusal::Malformed);
        }
    }
    let mut columns = Vec::new();
    for _ in 0..chunk.count(COLUMNS_MAX)? {
        let spec = u32::try_from(chunk.unsigned()?).map_err(|_| Refusal::Malformed)?;
        let unordered = columns.last().is_some_and(|&(before, _)| before >= spec);
        if spec & DEFLATED != 0 || unordered {
            return Err(Refusal::Malformed);
        }
        columns.push((spec, chunk.unsigned()?));
    }
    let mut count = Count::default();
    for (spec, length) in columns {
        count.column(spec, chunk.take(length)?)?;
    }
    Ok((actor, count.longest.max(1)))
}

/// What the columns of a change claim, so far.
#[derive(Default)]
struct Count {
    longest: u64,
    predecessors: u64,
    spelled_out: u64,
}

impl Count {
    fn column(&mut self, spec: u32, data: &[u8]) -> Result<(), Refusal> {
        let mut column = Reader(data);
        let mut items = 0;
        match spec & 0b111 {
            // Booleans are lengths of alternating runs.
            4 => {
                while !column.0.is_empty() {
                    add(&mut items, column.unsigned()?, COLUMN_ITEMS_MAX)?;
                }
            }
            // Raw values: each takes its bytes from here, as its metadata says.
            7 => {}
            kind => {
                while !column.0.is_empty() {
                    self.run(kind, &mut column, &mut items)?;
                }
            }
        }
        self.longest = self.longest.max(items);
        Ok(())
    }

    /// Counts one run: a repeated value, a literal list or a stretch of nulls.
    fn run(&mut self, kind: u32, column: &mut Reader<'_>, items: &mut u64) -> Result<(), Refusal> {
        let header = column.signed()?;
        let (length, values) = match header {
            1.. => (header.unsigned_abs(), 1),
            0 => (column.unsigned()?, 0),
            ..0 => (header.unsigned_abs(), header.unsigned_abs()),
        };
        add(items, length, COLUMN_ITEMS_MAX)?;
        let repeats = if header > 0 { length } else { 1 };
        for _ in 0..values {
            match kind {
                // Group cardinality: how many predecessors.
                0 => {
                    let size = column.unsigned()?.saturating_mul(repeats);
                    add(&mut self.predecessors, size, PREDECESSORS_MAX)?;
                }
                // Delta.
                3 => drop(column.signed()?),
                // String: a long one repeated is cheap to write and dear to read.
                5 => {
                    let size = column.unsigned()?;
                    column.take(size)?;
                    add(&mut self.spelled_out, size.saturating_mul(repeats), SPELLED_OUT_MAX)?;
                }
                // Actor, integer and value metadata.
                _ => drop(column.unsigned()?),
            }
        }
        Ok(())
    }
}

fn add(sum: &mut u64, more: u64, max: u64) -> Result<(), Refusal> {
    *sum = sum.saturating_add(more);
    if *sum > max { Err(Refusal::TooManyItems) } else { Ok(()) }
}

/// Bytes not yet read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: impl TryInto<usize>) -> Result<&'a [u8], Refusal> {
        let length = length.try_into().map_err(|_| Refusal::Malformed)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Refusal::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Refusal> {
        self.take(1_usize).map(|byte| byte[0])
    }

    fn actor(&mut self) -> Result<[u8; 16], Refusal> {
        let length = self.unsigned()?;
        self.take(length)?.try_into().map_err(|_| Refusal::Malformed)
    }

    fn count(&mut self, max: u64) -> Result<u64, Refusal> {
        let mut count = 0;
        add(&mut count, self.unsigned()?, max)?;
        Ok(count)
    }

    /// Reads an unsigned LEB128 number of at most 64 bits.
    fn unsigned(&mut self) -> Result<u64, Refusal> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Refusal::Malformed)
    }

    /// Reads a signed LEB128 number of at most 64 bits.
    fn signed(&mut self) -> Result<i64, Refusal> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte != 0 && byte != 0x7f {
                break;
            }
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let sign_extends = byte & 0x40 != 0 && shift + 7 < 64;
                return Ok(if sign_extends { value | (-1 << (shift + 7)) } else { value });
            }
        }
        Err(Refusal::Malformed)
    }
}

#[cfg(test)]
#[allow(clippy::print_stdout, reason = "the figures are worth telling")]
pub(super) mod tests {
    use std::time::{Duration, Instant};

    use ebb_protocol::verify::sha256;

    use super::*;
    use crate::document::Document;

    const ACTOR: [u8; 16] = [7; 16];

    /// Writes a chunk around its content, with the right length and checksum.
    pub(in super::super) fn chunk(kind: u8, content: &[u8]) -> Vec<u8> {
        let mut hashed = vec![kind];
        put_unsigned(&mut hashed, content.len() as u64);
        hashed.extend(content);
        let hash = sha256(&[&hashed]);
        [&MAGIC, &hash.0[..4], &hashed].concat()
    }

    /// Finds where the content of a chunk begins.
    pub(in super::super) fn content(bytes: &[u8]) -> &[u8] {
        let mut chunk = Reader(&bytes[9..]);
        chunk.unsigned().expect("a chunk has a length");
        chunk.0
    }

    fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
        while value > 0x7f {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    /// Writes a positive run length, a signed number.
    fn put_run(out: &mut Vec<u8>, length: u64) {
        put_unsigned(out, length);
        if let Some(last) = out.last_mut().filter(|last| **last & 0x40 != 0) {
            *last |= 0x80;
            out.push(0);
        }
    }

    fn run(length: u64, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_run(&mut out, length);
        out.extend(value);
        out
    }

    fn unsigned(value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        put_unsigned(&mut out, value);
        out
    }

    const KEY: u32 = 0x15;
    const INSERT: u32 = 0x34;
    const ACTION: u32 = 0x42;
    const VALUE_META: u32 = 0x56;
    const VALUE: u32 = 0x57;
    const PREDECESSORS: u32 = 0x70;

    /// The columns of `ops` operations that each put null at the key `k`.
    fn columns(ops: u64) -> Vec<(u32, Vec<u8>)> {
        vec![
            (KEY, run(ops, b"\x01k")),
            (INSERT, unsigned(ops)),
            (ACTION, run(ops, &[1])),
            (VALUE_META, run(ops, &[0])),
            (PREDECESSORS, run(ops, &[0])),
        ]
    }

    fn change_of(columns: &[(u32, Vec<u8>)]) -> Vec<u8> {
        let mut out = vec![0, 16];
        out.extend(ACTOR);
        out.extend([1, 1, 0, 0, 0]);
        put_unsigned(&mut out, columns.len() as u64);
        for (spec, data) in columns {
            put_unsigned(&mut out, u64::from(*spec));
            put_unsigned(&mut out, data.len() as u64);
        }
        out.extend(columns.iter().flat_map(|(_, data)| data));
        chunk(CHUNK_TYPE_CHANGE, &out)
    }

    fn with_column(spec: u32, data: Vec<u8>) -> Vec<u8> {
        let mut columns = columns(1);
        columns.retain(|(other, _)| *other != spec);
        columns.push((spec, data));
        columns.sort_unstable_by_key(|(spec, _)| *spec);
        change_of(&columns)
    }

    fn plain() -> Vec<u8> {
        Document::create(ACTOR, 5, b"value", "note").expect("a small record").1.bytes
    }

    /// The best of a few runs, which is what the work costs when nothing else runs.
    fn cost(work: impl Fn()) -> Duration {
        let run = || {
            let start = Instant::now();
            work();
            start.elapsed()
        };
        (0..5).map(|_| run()).min().expect("five runs")
    }

    #[test]
    fn four_million_operations_in_run_lengths_are_refused_at_once() {
        let bomb = change_of(&columns(4_000_000));
        assert!(bomb.len() < 120, "{} bytes", bomb.len());
        assert_eq!(inspect(&bomb), Err(Refusal::TooManyItems));
        let cost = cost(|| drop(inspect(&bomb)));
        println!("4,000,000 operations in {} bytes: refused in {cost:?}", bomb.len());
        assert!(cost < Duration::from_millis(10), "{cost:?}");

        // The bomb is no straw man: Automerge takes a smaller one of the same make.
        let smaller = change_of(&columns(COLUMN_ITEMS_MAX + 1));
        let change = Change::try_from(&smaller[..]).expect("Automerge decodes it");
        assert_eq!(change.hash().0[..4], smaller[CHECKSUM]);
        automerge::Automerge::new().apply_changes([change]).expect("Automerge applies it");
        assert_eq!(inspect(&smaller), Err(Refusal::TooManyItems));
        let largest = inspect(&change_of(&columns(COLUMN_ITEMS_MAX))).expect("at the limit");
        assert_eq!(largest.items, COLUMN_ITEMS_MAX);
    }

    #[test]
    fn every_column_is_counted_by_itself() {
        let many = COLUMN_ITEMS_MAX + 1;
        let nulls = [&[0][..], &unsigned(many)].concat();
        let literals = |item: &[u8]| {
            let mut list = vec![0xef, 0xb1, 0x7f]; // -10,001
            list.extend(item.repeat(many as usize));
            list
        };
        let half = [unsigned(many / 2), unsigned(many / 2), unsigned(1)].concat();
        for (name, bytes) in [
            ("actor run", with_column(0x01, run(many, &[0]))),
            ("integer nulls", with_column(0x02, nulls.clone())),
            ("delta run", with_column(0x13, run(many, &[1]))),
            ("delta literals", with_column(0x13, literals(&[1]))),
            ("string run", with_column(KEY, run(many, b"\x01k"))),
            ("string literals", with_column(KEY, literals(b"\x01k"))),
            ("booleans", with_column(INSERT, unsigned(many))),
            ("booleans in parts", with_column(INSERT, half)),
            ("actions", with_column(ACTION, run(many, &[1]))),
            ("value metadata", with_column(VALUE_META, run(many, &[0]))),
            ("group cardinalities", with_column(PREDECESSORS, run(many, &[0]))),
            ("predecessors of one", with_column(PREDECESSORS, run(1, &unsigned(PREDECESSORS_MAX + 1)))),
            ("predecessors of many", with_column(PREDECESSORS, run(101, &[100]))),
            ("predecessors beyond 64 bits", with_column(PREDECESSORS, run(2, &unsigned(u64::MAX)))),
            ("predecessors' actors", with_column(0x71, run(many, &[0]))),
            ("predecessors' counters", with_column(0x73, run(many, &[0]))),
            ("a column of a newer version", with_column(0xf2, run(many, &[0]))),
            (
                "long text repeated",
                with_column(KEY, run(9, &[&unsigned(150_000)[..], &[b'k'; 150_000]].concat())),
            ),
        ] {
            assert_eq!(inspect(&bytes), Err(Refusal::TooManyItems), "{name}");
            let cost = cost(|| drop(inspect(&bytes)));
            assert!(cost < Duration::from_millis(10), "{name}: {cost:?}");
        }
    }

    #[test]
    fn many_small_operations_are_counted() {
        let letters = |count| Document::create(ACTOR, 5, b"value", &"ab".repeat(count));
        let (_, change) = letters(4_990).expect("under the limit");
        assert!(inspect(&change.bytes).expect("under the limit").items > 9_980);
        assert_eq!(letters(5_000).map(drop), Err(Refusal::TooManyItems));
    }

    #[test]
    fn a_real_change_is_understood() {
        let (document, change) = Document::create(ACTOR, 5, b"value", "note").expect("small");
        let inspected = inspect(&change.bytes).expect("a real change");
        assert_eq!(inspected.hash, change.hash);
        assert_eq!(document.heads(), [change.hash]);
        assert_eq!((inspected.actor, inspected.seq, inspected.items), (ACTOR, 1, 6));
        assert!(inspected.deps.is_empty());
    }

    #[test]
    fn damage_is_refused() {
        let good = plain();
        for place in 0..good.len() {
            assert!(inspect(&good[..place]).is_err(), "cut at {place}");
            for bit in 0..8 {
                let mut flipped = good.clone();
                flipped[place] ^= 1 << bit;
                assert!(inspect(&flipped).is_err(), "bit {bit} of byte {place}");
            }
        }
        let mut unsummed = good.clone();
        unsummed[4] ^= 1;
        assert_eq!(inspect(&unsummed), Err(Refusal::Checksum));
    }

    #[test]
    fn what_is_not_one_plain_change_is_refused() {
        let good = plain();
        let mut trailing = good.clone();
        trailing.push(0);
        let twice = [&good[..], &good].concat();
        let mut deflated_column = columns(1);
        deflated_column[0].0 |= DEFLATED;
        let unordered: Vec<_> = columns(1).into_iter().rev().collect();
        let doubled: Vec<_> = columns(1).into_iter().flat_map(|column| [column.clone(), column]).collect();
        let mut large = Document::empty();
        let (_, long) = Document::create(ACTOR, 5, &[1; 2_000], "").expect("small");
        large = large.admit(&long.bytes, ACTOR).expect("a real change");
        let mut deflated = Change::try_from(&long.bytes[..]).expect("a real change");
        let deflated = deflated.bytes().into_owned();
        assert_eq!(deflated[8], 2, "Automerge deflates a change of this size");
        for (name, bytes) in [
            ("nothing", Vec::new()),
            ("trailing byte", trailing),
            ("two changes", twice),
            ("a document", large.doc.save()),
            ("a compressed change", deflated),
            ("a change called compressed", chunk(2, content(&good))),
            ("an unknown chunk", chunk(9, content(&good))),
            ("a deflated column", change_of(&deflated_column)),
            ("columns out of order", change_of(&unordered)),
            ("a column twice", change_of(&doubled)),
            ("a lone value column", change_of(&[(VALUE, vec![1])])),
            ("many columns", change_of(&(0..33).map(|id| (id << 4, vec![])).collect::<Vec<_>>())),
        ] {
            assert!(inspect(&bytes).is_err(), "{name}");
            assert!(outline(&bytes).is_err() || name == "a lone value column", "{name}, before decoding");
        }
        let oversized = Document::create(ACTOR, 5, &[1; CHANGE_BYTES_MAX], "").map(drop);
        assert_eq!(oversized, Err(Refusal::TooLong));
    }

    #[test]
    fn a_panic_is_contained_and_silent() {
        assert_eq!(contained(|| 5), Some(5));
        assert_eq!(contained(|| -> u8 { panic!("contents") }), None);
        assert!(!CONTAINING.get());
    }

    #[test]
    fn numbers_are_read_as_automerge_reads_them() {
        let signed = |bytes: &[u8]| Reader(bytes).signed();
        assert_eq!(signed(&[0x3f]), Ok(63));
        assert_eq!(signed(&[0x40]), Ok(-64));
        assert_eq!(signed(&[0xc0, 0x00]), Ok(64));
        assert_eq!(signed(&[0xef, 0xb1, 0x7f]), Ok(-10_001));
        assert_eq!(signed(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f]), Ok(i64::MIN));
        assert_eq!(signed(&[0x80; 11]), Err(Refusal::Malformed));
        let max = unsigned(u64::MAX);
        assert_eq!(Reader(&max).unsigned(), Ok(u64::MAX));
        assert_eq!(Reader(&[0xff; 10]).unsigned(), Err(Refusal::Malformed));
        assert_eq!(Reader(&[0x80]).unsigned(), Err(Refusal::Malformed));
    }
}
