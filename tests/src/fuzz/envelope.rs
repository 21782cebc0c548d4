//! Envelopes: any bytes, and sealed ones that were damaged under way or by their own author.

use std::sync::OnceLock;

use ebb_core::{
    keys::{DeviceSecrets, Entropy, EpochKey},
    seal,
};
use ebb_protocol::{
    envelope::{COMMIT_BYTES, Envelope, HEADER_BYTES, Header, Kind, Malformed, SIGNATURE_BYTES},
    id::{Epoch, Hash, LogId, Position, Seq, SpaceId, StreamId},
    verify::{self, Signed},
    wire::ENVELOPE_BYTES_MAX,
};

use super::Feed;

/// Parses and opens. An envelope is exactly its bytes; one that was damaged passes no check of its
/// signature; and what its author damaged before signing opens as nothing else than what was sealed.
pub fn envelope(bytes: &[u8]) {
    let feed = &mut Feed::new(bytes);
    match feed.byte() % 4 {
        0 => drop(parsed(feed.rest().to_vec())),
        1 => damaged_under_way(feed),
        2 => damaged_by_its_author(feed),
        _ => put_together(feed),
    }
}

struct Counting(u8);

impl Entropy for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        }
    }
}

/// A device and a stream's key, the same in every run.
fn secrets() -> &'static (DeviceSecrets, EpochKey) {
    static SECRETS: OnceLock<(DeviceSecrets, EpochKey)> = OnceLock::new();
    let make = || (DeviceSecrets::make_device(&mut Counting(0)), EpochKey::make_epoch_key(&mut Counting(99)));
    SECRETS.get_or_init(make)
}

/// Reads an envelope, and holds each part against the bytes.
fn parsed(bytes: Vec<u8>) -> Option<Envelope> {
    let envelope = Envelope::parse(bytes.clone()).ok()?;
    assert!(bytes.len() <= ENVELOPE_BYTES_MAX);
    assert_eq!(envelope.as_bytes(), bytes);
    let body_len = u32::try_from(envelope.ciphertext().len()).expect("within an envelope");
    assert_eq!(envelope.header().encode(body_len)[..], bytes[..HEADER_BYTES]);
    assert_eq!(envelope.associated()[..], bytes[..HEADER_BYTES]);
    let parts = [&envelope.associated()[..], envelope.commit(), envelope.ciphertext()].concat();
    assert_eq!(envelope.body(), parts);
    let (header, commit) = (envelope.associated(), envelope.commit());
    let signature = envelope.signature();
    let again = Envelope::assemble(header, commit, envelope.ciphertext(), |_| signature);
    assert_eq!(again.as_ref(), Ok(&envelope));
    assert_eq!(envelope.hash(), verify::sha256(&[&bytes]));
    Some(envelope)
}

fn header(feed: &mut Feed<'_>) -> Header {
    let seq = Seq(u64::from(feed.byte()).max(1));
    Header {
        kind: feed.pick(&[Kind::Changes, Kind::Witness]),
        space: SpaceId(feed.array()),
        stream: StreamId([2; 16]),
        author: secrets().0.id(),
        seq,
        prev: if seq == Seq(1) { Hash::ZERO } else { Hash([feed.byte().max(1); 32]) },
        epoch: Epoch(u32::from(feed.byte()).max(1)),
        roster_head: Hash([feed.byte(); 32]),
        log_id: LogId([feed.byte(); 16]),
        seen_pos: Position(u64::from(feed.byte())),
        seen_hash: Hash([feed.byte(); 32]),
        salt: feed.array(),
    }
}

fn sealed(feed: &mut Feed<'_>) -> (Envelope, Vec<u8>) {
    let (secrets, key) = secrets();
    let header = header(feed);
    let len = feed.below(2_000);
    let mut payload = feed.take(64).to_vec();
    payload.resize(len, 0);
    let envelope = seal::seal(secrets, key, &header, &payload).expect("a sound header, a small payload");
    assert_eq!(*envelope.header(), header);
    (envelope, payload)
}

fn damaged_under_way(feed: &mut Feed<'_>) {
    let (secrets, key) = secrets();
    let (honest, payload) = sealed(feed);
    let verified = verify::check(honest.clone(), &secrets.public().sig).expect("just signed");
    assert_eq!(seal::open(key, &verified).as_ref(), Ok(&payload));
    let mut bytes = honest.as_bytes().to_vec();
    feed.damage(&mut bytes);
    if let Some(envelope) = parsed(bytes) {
        let passes = verify::check(envelope.clone(), &secrets.public().sig).is_ok();
        assert_eq!(passes, envelope == honest, "a signature counts for the very bytes alone");
    }
}

fn damaged_by_its_author(feed: &mut Feed<'_>) {
    let (secrets, key) = secrets();
    let (honest, payload) = sealed(feed);
    let mut bytes = honest.body().to_vec();
    feed.damage(&mut bytes);
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return };
    let Some((commit, body)) = rest.split_first_chunk::<COMMIT_BYTES>() else { return };
    let Ok(envelope) = Envelope::assemble(header, commit, body, |message| secrets.sign(message)) else {
        return;
    };
    let verified = verify::check(envelope.clone(), &secrets.public().sig).expect("just signed");
    match seal::open(key, &verified) {
        Ok(opened) => assert!(envelope == honest && opened == payload, "what was damaged opens"),
        Err(_) => assert!(envelope != honest, "what was not damaged does not open"),
    }
}

/// Any parts at all: what is put together parses, and what does not parse is not put together.
fn put_together(feed: &mut Feed<'_>) {
    let mut header = header(feed).encode(u32::from(feed.byte()));
    let at = feed.below(HEADER_BYTES);
    header[at] = feed.byte();
    let (commit, signature) = (feed.array(), feed.array());
    let body = feed.rest();
    let signature = verify::Signature::from_bytes(&signature);
    let made = Envelope::assemble(&header, &commit, body, |_| signature);
    let bytes = [&header[..], &commit, body, &signature.to_bytes()].concat();
    assert_eq!(made, Envelope::parse(bytes.clone()));
    match made {
        Ok(envelope) => {
            assert_eq!(envelope.as_bytes().len(), bytes.len());
            assert_eq!(envelope.signature().to_bytes().len(), SIGNATURE_BYTES);
            let own = verify::check(envelope, &secrets().0.public().sig);
            assert!(own.is_err(), "a made-up signature passes");
        }
        Err(Malformed::TooLong) => assert!(bytes.len() > ENVELOPE_BYTES_MAX),
        Err(_) => {}
    }
}
