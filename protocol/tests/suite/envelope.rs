//! The envelope's layout, and that no other bytes pass for it.

use ebb_protocol::{
    envelope::{self, Envelope, Header, Kind, Malformed, OVERHEAD_BYTES, TAG_BYTES},
    id::{DeviceId, Epoch, Hash, LogId, Position, Seq, SpaceId, StreamId},
    verify,
    wire::ENVELOPE_BYTES_MAX,
};
use proptest::prelude::*;

use crate::kit::Device;

prop_compose! {
    fn headers()(
        witness in any::<bool>(), ids in any::<[[u8; 16]; 5]>(), hashes in any::<[[u8; 32]; 3]>(),
        seq in 1..=i64::MAX as u64, epoch in 1..=u32::MAX, seen in 0..=i64::MAX as u64,
    ) -> Header {
        Header {
            kind: if witness { Kind::Witness } else { Kind::Changes },
            space: SpaceId(ids[0]), stream: StreamId(ids[1]), author: DeviceId(ids[2]),
            seq: Seq(seq), prev: if seq == 1 { Hash::ZERO } else { Hash(hashes[0].map(|byte| byte | 1)) },
            epoch: Epoch(epoch), roster_head: Hash(hashes[1]), log_id: LogId(ids[3]),
            seen_pos: Position(seen), seen_hash: Hash(hashes[2]), salt: ids[4],
        }
    }
}

fn assemble(header: &Header, body: &[u8]) -> Result<Envelope, Malformed> {
    let bytes = header.encode(u32::try_from(body.len()).unwrap());
    Envelope::assemble(&bytes, &[3; 32], body, |message| Device::new(1).sig.sign(message))
}

proptest! {
    #[test]
    fn what_was_assembled_is_parsed(header in headers(), body in prop::collection::vec(any::<u8>(), 16..600)) {
        let envelope = assemble(&header, &body).unwrap();
        let parsed = Envelope::parse(envelope.as_bytes().to_vec()).unwrap();
        prop_assert_eq!(parsed.header(), &header);
        prop_assert_eq!(parsed.ciphertext(), &body[..]);
        prop_assert_eq!(parsed.commit(), &[3; 32]);
        prop_assert_eq!(&parsed.associated()[..], &parsed.as_bytes()[..204]);
        prop_assert!(verify::check(parsed, &Device::new(1).keys.sig).is_ok());
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        let _ = Envelope::parse(bytes);
    }
}

fn sample() -> Vec<u8> {
    let header = Header {
        kind: Kind::Changes,
        space: SpaceId([1; 16]),
        stream: StreamId([2; 16]),
        author: DeviceId([3; 16]),
        seq: Seq(2),
        prev: Hash([4; 32]),
        epoch: Epoch(1),
        roster_head: Hash([5; 32]),
        log_id: LogId::ZERO,
        seen_pos: Position(0),
        seen_hash: Hash::ZERO,
        salt: [6; 16],
    };
    assemble(&header, &[7; 40]).unwrap().into_bytes()
}

fn is_accepted(bytes: Vec<u8>) -> bool {
    Envelope::parse(bytes).is_ok_and(|envelope| verify::check(envelope, &Device::new(1).keys.sig).is_ok())
}

#[test]
fn every_flipped_bit_is_noticed() {
    let good = sample();
    assert!(is_accepted(good.clone()));
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(!is_accepted(bytes), "bit {bit}");
    }
}

#[test]
fn every_truncation_and_extension_is_noticed() {
    let good = sample();
    assert!((0..good.len()).all(|len| !is_accepted(good[..len].to_vec())));
    assert!((1..100).all(|more| !is_accepted([good.clone(), vec![0; more]].concat())));
}

#[test]
fn each_field_that_does_not_hold_has_its_name() {
    let with = |at: usize, bytes: &[u8]| {
        let mut envelope = sample();
        envelope[at..at + bytes.len()].copy_from_slice(bytes);
        Envelope::parse(envelope).unwrap_err()
    };
    assert_eq!(with(0, &[2]), Malformed::Version);
    assert_eq!(with(1, &[2]), Malformed::Suite);
    assert_eq!(with(2, &[2]), Malformed::Kind);
    assert_eq!(with(3, &[1]), Malformed::Flags);
    assert_eq!(with(52, &[0; 8]), Malformed::Sequence, "sequence 0");
    assert_eq!(with(52, &[0xff; 8]), Malformed::Sequence, "beyond what a database holds");
    assert_eq!(with(52, &1_u64.to_be_bytes()), Malformed::Sequence, "a predecessor at 1");
    assert_eq!(with(60, &[0; 32]), Malformed::Sequence, "no predecessor at 2");
    assert_eq!(with(92, &[0; 4]), Malformed::Sequence, "epoch 0");
    assert_eq!(with(144, &[0xff; 8]), Malformed::Sequence, "a position beyond what a database holds");
    assert_eq!(with(200, &[0, 0, 0, 41]), Malformed::BodyLength);
    assert_eq!(Envelope::parse(vec![1; OVERHEAD_BYTES + TAG_BYTES - 1]).unwrap_err(), Malformed::TooShort);
    assert_eq!(Envelope::parse(vec![1; ENVELOPE_BYTES_MAX + 1]).unwrap_err(), Malformed::TooLong);
}

#[test]
fn the_log_chains_by_space_stream_and_order() {
    let start = |space, stream| envelope::chain_start(&SpaceId([space; 16]), &StreamId([stream; 16]));
    assert_ne!(start(1, 1), start(1, 2));
    assert_ne!(start(1, 1), start(2, 1));
    let (a, b) = (Hash([1; 32]), Hash([2; 32]));
    let two = |first, second| envelope::chain_next(&envelope::chain_next(&start(1, 1), first), second);
    assert_ne!(two(&a, &b), two(&b, &a));
}
