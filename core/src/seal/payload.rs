//! What an envelope of changes carries, deflated: the bytes that are sealed.
//!
//! A body comes from whoever holds a stream's key, which may be a broken or hostile device: nothing
//! here trusts a length, and no block inflates to more than it declares.

use std::fmt;

use ebb_protocol::verify;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// The version of [`Payload::pack`].
pub const PAYLOAD_VERSION: u8 = 1;
/// Bytes of a payload's body before it was deflated: what a phone can hold beside its documents.
pub const INFLATED_BYTES_MAX: usize = 1 << 20;
/// Changes of a payload: at 64 bytes each, less than Automerge ever writes, they fill a whole body.
pub const CHANGES_MAX: usize = INFLATED_BYTES_MAX / 64;

/// Against 6: 2 % smaller from 20 records on, for 0.1 ms more at 200.
const DEFLATE_LEVEL: u32 = 9;

/// What an envelope of changes carries: records, and of each some changes in causal order.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Payload {
    /// The records, in the order in which they are to be applied.
    pub records: Vec<RecordChanges>,
}

/// Changes of one record.
#[derive(Clone, PartialEq, Eq)]
pub struct RecordChanges {
    /// The record's id.
    pub record: [u8; 16],
    /// Uncompressed change chunks, each whole.
    pub changes: Vec<Vec<u8>>,
}

impl Payload {
    /// Encodes and deflates the payload.
    ///
    /// Version, size of the body before it was deflated (u32, big-endian), deflated body.
    ///
    /// # Errors
    /// What [`Self::unpack`] would refuse: [`BadPayload::Empty`], [`BadPayload::TooLong`].
    pub fn pack(&self) -> Result<Vec<u8>, BadPayload> {
        let body = encode(self)?;
        let mut packed = vec![PAYLOAD_VERSION];
        let declared = u32::try_from(body.len()).expect("checked to be at most 1 MiB");
        packed.extend_from_slice(&declared.to_be_bytes());
        deflate(&body, &mut packed);
        Ok(packed)
    }

    /// Reads a payload, inflating never more than it declares, nor more than [`INFLATED_BYTES_MAX`].
    ///
    /// # Errors
    /// [`BadPayload`]; at [`BadPayload::Version`] the envelope is kept for a newer app.
    pub fn unpack(packed: &[u8]) -> Result<Self, BadPayload> {
        match packed.first() {
            None => return Err(BadPayload::Empty),
            Some(&PAYLOAD_VERSION) => {}
            Some(&other) => return Err(BadPayload::Version(other)),
        }
        let (declared, block) = packed[1..].split_first_chunk().ok_or(BadPayload::Empty)?;
        let declared = u32::from_be_bytes(*declared) as usize;
        if declared == 0 || block.is_empty() {
            return Err(BadPayload::Empty);
        }
        if declared > INFLATED_BYTES_MAX {
            return Err(BadPayload::TooLong);
        }
        decode(&inflate(block, declared)?)
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} records)", self.records.len())
    }
}

impl fmt::Debug for RecordChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordChanges({} changes)", self.changes.len())
    }
}

/// Why a payload was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPayload {
    /// Written by a newer app: keep it until this one is updated.
    #[error("payload of version {0}, which is not known here")]
    Version(u8),
    /// No record, a record without a change, an empty change, or no bytes at all.
    #[error("the payload is empty where it must not be")]
    Empty,
    /// Inflates, or claims to, to more than [`INFLATED_BYTES_MAX`], or has more than [`CHANGES_MAX`].
    #[error("the payload is larger than allowed")]
    TooLong,
    /// The deflated block is damaged, ends early, or is not of the size it declares.
    #[error("the deflated block is damaged or not of its declared size")]
    Deflate,
    /// Bytes follow after the deflated block.
    #[error("bytes follow after the payload")]
    Trailing,
    /// The inflated bytes are no list of records and changes.
    #[error("the payload's body is damaged")]
    Body,
}

impl BadPayload {
    /// The short name under which such content is kept in quarantine; it never changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Version(_) => "payload_version",
            Self::Empty => "payload_empty",
            Self::TooLong => "payload_too_long",
            Self::Deflate => "payload_deflate",
            Self::Trailing => "payload_trailing",
            Self::Body => "payload_body",
        }
    }
}

/// The body: per record its id, how many changes, and each with its length and form before it.
///
/// Numbers are LEB128; the lowest bit of `length << 1 | form` is the form, [`SHORT`] or [`WHOLE`].
/// Measured on 200 records of four kinds: 22 % smaller, once deflated, than with whole changes, and the
/// order 2 % smaller than all ids, then all lengths, then all changes. [`Payload::pack`] writes every
/// payload in exactly one way.
fn encode(payload: &Payload) -> Result<Vec<u8>, BadPayload> {
    let changes = || payload.records.iter().flat_map(|record| &record.changes);
    let empty = payload.records.iter().any(|record| record.changes.is_empty());
    if empty || payload.records.is_empty() || changes().any(Vec::is_empty) {
        return Err(BadPayload::Empty);
    }
    if changes().count() > CHANGES_MAX || changes().map(Vec::len).sum::<usize>() > 2 * INFLATED_BYTES_MAX {
        return Err(BadPayload::TooLong);
    }
    let mut body = Vec::new();
    for record in &payload.records {
        body.extend_from_slice(&record.record);
        put_unsigned(&mut body, record.changes.len() as u64);
        for change in &record.changes {
            let short = shorten(&record.record, change);
            let form = if short.is_some() { SHORT } else { WHOLE };
            let bytes = short.as_deref().unwrap_or(change);
            put_unsigned(&mut body, (bytes.len() as u64) << 1 | form);
            body.extend_from_slice(bytes);
        }
    }
    if body.len() > INFLATED_BYTES_MAX { Err(BadPayload::TooLong) } else { Ok(body) }
}

fn decode(mut body: &[u8]) -> Result<Payload, BadPayload> {
    let mut payload = Payload::default();
    let mut count = 0;
    while !body.is_empty() {
        let (record, rest) = body.split_first_chunk().ok_or(BadPayload::Body)?;
        body = rest;
        let mut record = RecordChanges { record: *record, changes: Vec::new() };
        let more = take_unsigned(&mut body).ok_or(BadPayload::Body)?;
        if more == 0 {
            return Err(BadPayload::Empty);
        }
        count = more.saturating_add(count);
        if count > CHANGES_MAX as u64 {
            return Err(BadPayload::TooLong);
        }
        for _ in 0..more {
            let head = take_unsigned(&mut body).ok_or(BadPayload::Body)?;
            let bytes = take(&mut body, head >> 1).ok_or(BadPayload::Body)?;
            record.changes.push(match (bytes, head & 1) {
                ([], _) => return Err(BadPayload::Empty),
                (bytes, WHOLE) => bytes.to_vec(),
                (bytes, _) => lengthen(&record.record, bytes).ok_or(BadPayload::Body)?,
            });
        }
        payload.records.push(record);
    }
    Ok(payload)
}

/// A change as it is.
const WHOLE: u64 = 0;
/// A change without what follows from the rest: magic, checksum, type and length are left out, and its
/// time is counted from the record's, which is in the first six bytes of the record's id.
const SHORT: u64 = 1;
/// How a change chunk of Automerge begins; four bytes of checksum follow, its type and its length.
const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const TYPE_CHANGE: u8 = 1;

/// The short form of a change, if it gives back the very same bytes.
fn shorten(record: &[u8; 16], change: &[u8]) -> Option<Vec<u8>> {
    let mut rest = change.strip_prefix(&MAGIC)?.get(4..)?.strip_prefix(&[TYPE_CHANGE])?;
    take_unsigned(&mut rest)?;
    let short = retimed(rest, |time| time.checked_sub(made_ms(record)))?;
    (lengthen(record, &short)? == change).then_some(short)
}

/// The change of a short form.
fn lengthen(record: &[u8; 16], short: &[u8]) -> Option<Vec<u8>> {
    let content = retimed(short, |since| since.checked_add(made_ms(record)))?;
    let mut hashed = vec![TYPE_CHANGE];
    put_unsigned(&mut hashed, content.len() as u64);
    hashed.extend_from_slice(&content);
    let checksum = verify::sha256(&[&hashed]);
    Some([&MAGIC[..], &checksum.0[..4], &hashed].concat())
}

/// When a record was made, in ms since the Unix epoch: what a UUIDv7 begins with.
fn made_ms(record: &[u8; 16]) -> i64 {
    record[..6].iter().fold(0, |ms, byte| ms << 8 | i64::from(*byte))
}

/// A change's content with another time: it stands behind ancestors, actor, sequence and first operation.
fn retimed(content: &[u8], time: impl FnOnce(i64) -> Option<i64>) -> Option<Vec<u8>> {
    let mut rest = content;
    let ancestors = take_unsigned(&mut rest)?;
    take(&mut rest, ancestors.checked_mul(32)?)?;
    let actor = take_unsigned(&mut rest)?;
    take(&mut rest, actor)?;
    take_unsigned(&mut rest)?;
    take_unsigned(&mut rest)?;
    let before = &content[..content.len() - rest.len()];
    let time = time(take_signed(&mut rest)?)?;
    let mut retimed = Vec::with_capacity(content.len() + 10);
    retimed.extend_from_slice(before);
    put_signed(&mut retimed, time);
    retimed.extend_from_slice(rest);
    Some(retimed)
}

fn take<'a>(bytes: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
    *bytes = rest;
    Some(taken)
}

/// Unsigned LEB128 of at most 64 bits.
fn take_unsigned(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Signed LEB128 of at most 63 bits and the sign, enough for any time.
fn take_signed(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= i64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            let unused = 64 - 7 - shift;
            return Some(value << unused >> unused);
        }
    }
    None
}

fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_signed(out: &mut Vec<u8>, mut value: i64) {
    while !(-0x40..0x40).contains(&value) {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8 & 0x7f);
}

/// Appends the body as one raw deflate stream (RFC 1951).
fn deflate(body: &[u8], out: &mut Vec<u8>) {
    let mut deflater = Compress::new(Compression::new(DEFLATE_LEVEL), false);
    // Stored blocks are the worst case: 5 bytes per 16 KiB.
    out.reserve(body.len() + 5 * (body.len() / (16 << 10) + 1) + 64);
    let status = deflater.compress_vec(body, out, FlushCompress::Finish);
    assert!(matches!(status, Ok(Status::StreamEnd)), "the output has room for the worst case");
}

/// Inflates one raw deflate stream that must be exactly `declared` bytes and end where the input does.
fn inflate(block: &[u8], declared: usize) -> Result<Vec<u8>, BadPayload> {
    // One byte of room beyond: a block that inflates to more shows itself there, and stops there.
    let mut body = vec![0; declared + 1];
    let mut inflater = Decompress::new(false);
    let status = inflater.decompress(block, &mut body, FlushDecompress::Finish);
    if !matches!(status, Ok(Status::StreamEnd)) || inflater.total_out() != declared as u64 {
        return Err(BadPayload::Deflate);
    }
    if inflater.total_in() != block.len() as u64 {
        return Err(BadPayload::Trailing);
    }
    body.truncate(declared);
    Ok(body)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payload(records: &[&[&[u8]]]) -> Payload {
        let records = records.iter().enumerate().map(|(n, changes)| RecordChanges {
            record: [n as u8; 16],
            changes: changes.iter().map(|change| change.to_vec()).collect(),
        });
        Payload { records: records.collect() }
    }

    /// A packed payload of this block, declared to inflate to so many bytes.
    fn packed(declared: u32, block: &[u8]) -> Vec<u8> {
        [&[PAYLOAD_VERSION][..], &declared.to_be_bytes(), block].concat()
    }

    fn deflated(body: &[u8]) -> Vec<u8> {
        let mut block = Vec::new();
        deflate(body, &mut block);
        block
    }

    fn unpacked(body: &[u8]) -> Result<Payload, BadPayload> {
        Payload::unpack(&packed(body.len() as u32, &deflated(body)))
    }

    /// A record's head that claims so many changes, and whole changes that claim these lengths.
    fn claiming(count: u64, changes: &[(u64, &[u8])]) -> Vec<u8> {
        let mut body = vec![7; 16];
        put_unsigned(&mut body, count);
        for (len, change) in changes {
            put_unsigned(&mut body, len << 1 | WHOLE);
            body.extend_from_slice(change);
        }
        body
    }

    /// A record's id, and a real change that was written so much later.
    fn written(later_ms: i64, note: &str) -> ([u8; 16], Vec<u8>) {
        let made_ms = 1_700_000_000_000;
        let record = *crate::record::RecordId::new(made_ms, &[9; 10]).as_bytes();
        let time = made_ms as i64 + later_ms;
        let (_, change) = crate::document::Document::create([1; 16], time, b"value", note).expect("small");
        (record, change.bytes)
    }

    #[test]
    fn a_payload_survives() {
        let payload = payload(&[&[b"one", b"two"], &[b"three"]]);
        let packed = payload.pack().expect("small");
        assert_eq!(packed[..5], [1, 0, 0, 0, 2 * 17 + 3 + 11]);
        assert_eq!(Payload::unpack(&packed), Ok(payload));
    }

    #[test]
    fn unknown_versions_are_told_apart_from_damage() {
        let mut packed = payload(&[&[b"one"]]).pack().expect("small");
        packed[0] = 2;
        assert_eq!(Payload::unpack(&packed), Err(BadPayload::Version(2)));
        assert_eq!(Payload::unpack(&[0]), Err(BadPayload::Version(0)));
    }

    #[test]
    fn emptiness_is_refused() {
        for bytes in [&[][..], &[1], &[1, 0, 0], &[1, 0, 0, 0, 1], &packed(0, &[3, 0])] {
            assert_eq!(Payload::unpack(bytes), Err(BadPayload::Empty), "{bytes:?}");
        }
        for empty in [payload(&[]), payload(&[&[]]), payload(&[&[b"one"], &[]]), payload(&[&[b""]])] {
            assert_eq!(empty.pack(), Err(BadPayload::Empty));
        }
        assert_eq!(unpacked(&claiming(0, &[])), Err(BadPayload::Empty));
        assert_eq!(unpacked(&claiming(1, &[(0, b"")])), Err(BadPayload::Empty));
        assert_eq!(unpacked(&claiming(2, &[(1, b"a"), (0, b"")])), Err(BadPayload::Empty));
    }

    #[test]
    fn a_body_that_does_not_add_up_is_refused() {
        let sound = claiming(2, &[(3, b"one"), (3, b"two")]);
        assert!(unpacked(&sound).is_ok());
        for len in 1..sound.len() {
            assert_eq!(unpacked(&sound[..len]), Err(BadPayload::Body), "cut to {len}");
        }
        assert_eq!(unpacked(&[&sound[..], &[0]].concat()), Err(BadPayload::Body), "bytes behind");
        assert_eq!(unpacked(&claiming(2, &[(3, b"one")])), Err(BadPayload::Body));
        assert_eq!(unpacked(&claiming(1, &[(4, b"one")])), Err(BadPayload::Body));
        assert_eq!(unpacked(&claiming(1, &[(u64::MAX >> 1, b"one")])), Err(BadPayload::Body));
        assert_eq!(unpacked(&claiming(CHANGES_MAX as u64 + 1, &[(3, b"one")])), Err(BadPayload::TooLong));
        assert_eq!(unpacked(&claiming(u64::MAX, &[(3, b"one")])), Err(BadPayload::TooLong));
        assert_eq!(unpacked(&[&[7; 16][..], &[0xff; 10]].concat()), Err(BadPayload::Body), "a longer number");
    }

    #[test]
    fn a_change_travels_without_what_follows_from_the_rest() {
        for later_ms in [0, 1, -1, 63, 64, -64, -65, 90_000_000_000, -1_700_000_000_000] {
            let (record, change) = written(later_ms, "a note");
            let short = shorten(&record, &change).expect("Automerge wrote it");
            assert!(short.len() < change.len(), "{} of {}", short.len(), change.len());
            assert_eq!(lengthen(&record, &short), Some(change.clone()));
            let payload = Payload { records: vec![RecordChanges { record, changes: vec![change] }] };
            assert_eq!(Payload::unpack(&payload.pack().expect("small")), Ok(payload));
        }
    }

    #[test]
    fn what_is_no_sound_change_travels_whole() {
        let (record, change) = written(5, "a note");
        for at in 0..change.len() {
            let mut flipped = change.clone();
            flipped[at] ^= 1;
            assert_eq!(shorten(&record, &flipped), None, "byte {at}: the checksum does not follow any more");
            assert_eq!(shorten(&record, &change[..at]), None, "cut to {at}");
            let payload = Payload { records: vec![RecordChanges { record, changes: vec![flipped] }] };
            assert_eq!(Payload::unpack(&payload.pack().expect("small")), Ok(payload));
        }
    }

    #[test]
    fn damaged_short_forms_are_refused_or_are_other_changes() {
        let (record, change) = written(5, "a note");
        let short = shorten(&record, &change).expect("Automerge wrote it");
        let carrying = |short: &[u8]| {
            let mut body = [&record[..], &[1]].concat();
            put_unsigned(&mut body, (short.len() as u64) << 1 | SHORT);
            [&body[..], short].concat()
        };
        for len in 1..20 {
            assert_eq!(unpacked(&carrying(&short[..len])), Err(BadPayload::Body), "cut to {len}");
        }
        for head in [&[0xff; 9][..], &[0, 0xff, 0xff, 0xff, 0xff, 0x7f], &[0, 0, 0, 0, 0xff, 0xff]] {
            assert_eq!(unpacked(&carrying(head)), Err(BadPayload::Body), "{head:?}");
        }
        // The furthest time of all has none that is further.
        let mut furthest = vec![0, 0, 0, 0];
        put_signed(&mut furthest, i64::MAX >> 1);
        assert!(unpacked(&carrying(&furthest)).is_ok());
    }

    #[test]
    fn a_block_is_exactly_as_large_as_it_declares() {
        let body = vec![7; 5_000];
        let block = deflated(&body);
        for declared in [1, 4_999, 5_001, INFLATED_BYTES_MAX as u32] {
            assert_eq!(Payload::unpack(&packed(declared, &block)), Err(BadPayload::Deflate), "{declared}");
        }
        for declared in [INFLATED_BYTES_MAX as u32 + 1, u32::MAX] {
            assert_eq!(Payload::unpack(&packed(declared, &block)), Err(BadPayload::TooLong));
        }
        assert_eq!(inflate(&block, 5_000), Ok(body));
        assert_eq!(inflate(&[&block[..], &[0]].concat(), 5_000), Err(BadPayload::Trailing));
        for len in 0..block.len() {
            assert_eq!(inflate(&block[..len], 5_000), Err(BadPayload::Deflate), "ends after {len}");
        }
    }

    #[test]
    fn bombs_are_defused() {
        // 64 MiB of zeros in 64 KiB, said to be small, to be just allowed, and to be more.
        let bomb = deflated(&vec![0; 64 << 20]);
        for declared in [1, 1 << 20, u32::MAX] {
            assert!(Payload::unpack(&packed(declared, &bomb)).is_err());
        }
        // As many changes of one byte as fit: each would cost some 60 bytes of memory.
        let record = claiming(1, &[(1, b"a")]);
        let many = record.repeat(INFLATED_BYTES_MAX / record.len());
        let packed = packed(many.len() as u32, &deflated(&many));
        assert_eq!(Payload::unpack(&packed), Err(BadPayload::TooLong));
    }

    #[test]
    fn what_would_be_refused_is_not_packed() {
        assert_eq!(payload(&[&[&vec![7; INFLATED_BYTES_MAX - 19]]]).pack(), Err(BadPayload::TooLong));
        assert_eq!(payload(&[&vec![&b"x"[..]; CHANGES_MAX + 1]]).pack(), Err(BadPayload::TooLong));
        let longest = payload(&[&[&vec![7; INFLATED_BYTES_MAX - 20]]]);
        assert_eq!(Payload::unpack(&longest.pack().expect("allowed")), Ok(longest));
        let most = payload(&[&vec![&b"x"[..]; CHANGES_MAX]]);
        assert_eq!(Payload::unpack(&most.pack().expect("allowed")), Ok(most));
    }

    proptest! {
        #[test]
        fn packed_payloads_survive(records in proptest::collection::vec(
            (any::<[u8; 16]>(), proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 1..5)),
            1..20,
        )) {
            let records = records.into_iter().map(|(record, changes)| RecordChanges { record, changes });
            let payload = Payload { records: records.collect() };
            prop_assert_eq!(Payload::unpack(&payload.pack().expect("small")), Ok(payload));
        }

        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..400), declared in 0u32..2_000_000) {
            let _ = Payload::unpack(&bytes);
            let _ = Payload::unpack(&packed(declared, &bytes));
            let _ = Payload::unpack(&packed(bytes.len() as u32, &deflated(&bytes)));
        }
    }
}
