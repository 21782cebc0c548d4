//! Frames: what was encoded is decoded, nothing else is, and every tag is the one that the docs state.

use ebb_protocol::{
    id::{DeviceId, Hash, LogId, MemberId, Millis, Position, RosterSeq, Seq, SpaceId, StreamId},
    roster::{Access, MemberKind, Recipient},
    wire::{
        self, FRAME_BYTES_MAX, FromDevice, FromServer, Head, Hello, ItemContent, Push, Refusal, Refused,
        RefusedWhat, RosterHead, Seen, SignedPins, SpaceHello,
    },
};
use proptest::prelude::*;
use serde::Serialize;

use crate::fixtures::{from_device, from_server, operations};

fn tags<T: Serialize>(values: &[T]) -> Vec<u8> {
    values.iter().map(|value| wire::encode(value)[0]).collect()
}

fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::StaleEpoch,
        Refusal::UnknownHead,
        Refusal::HeadMoved(None),
        Refusal::Role,
        Refusal::Quota(7),
        Refusal::Gap(Seq(7)),
        Refusal::Fork,
        Refusal::Malformed,
        Refusal::Version,
        Refusal::Unregistered,
        Refusal::Unavailable,
    ]
}

/// The numbers that the doc comments of an enum state, in order.
fn stated(source: &str, name: &str) -> Vec<u8> {
    let (_, body) = source.split_once(&format!("pub enum {name} {{\n")).expect("the enum is there");
    let (body, _) = body.split_once("\n}\n").expect("the enum ends");
    let docs = body.lines().filter_map(|line| line.strip_prefix("    /// "));
    docs.filter_map(|doc| doc.split_once(": ")?.0.parse().ok()).collect()
}

#[test]
fn every_tag_is_the_one_that_its_doc_comment_states() {
    let (wire, roster) = (include_str!("../../src/wire.rs"), include_str!("../../src/roster.rs"));
    let device: Vec<_> = from_device().into_iter().map(|(_, frame)| frame).collect();
    let server: Vec<_> = from_server().into_iter().map(|(_, frame)| frame).collect();
    let what = [
        RefusedWhat::Envelope { stream: StreamId::ZERO, author: DeviceId::ZERO, seq: Seq(1) },
        RefusedWhat::Entry(Hash::ZERO),
        RefusedWhat::Space,
    ];
    let content = [ItemContent::Envelope(vec![1].into()), ItemContent::Own(Hash::ZERO)];
    let recipients = [Recipient::Device(DeviceId::ZERO), Recipient::Member(MemberId::ZERO)];
    for (source, name, tags) in [
        (wire, "FromDevice", tags(&device)),
        (wire, "FromServer", tags(&server)),
        (wire, "Refusal", tags(&refusals())),
        (wire, "RefusedWhat", tags(&what)),
        (wire, "ItemContent", tags(&content)),
        (roster, "Operation", tags(&operations())),
        (roster, "MemberKind", tags(&[MemberKind::Clinic, MemberKind::Supporter])),
        (roster, "Access", tags(&[Access::Read, Access::Write])),
        (roster, "Recipient", tags(&recipients)),
    ] {
        assert_eq!(tags, stated(source, name), "{name}");
        assert!(tags.iter().copied().eq(0..u8::try_from(tags.len()).unwrap()), "{name} leaves no number out");
    }
}

prop_compose! {
    fn hellos()(
        version in any::<u16>(), device in any::<[u8; 16]>(), pins_version in any::<u32>(),
        spaces in prop::collection::vec(any::<([u8; 16], [u8; 16], Option<(u64, [u8; 32])>, u64, bool)>(), 0..5),
    ) -> FromDevice {
        let spaces = spaces.into_iter().map(|(space, log_id, roster, position, own_in_full)| {
            let space = SpaceId(space);
            let roster = roster.map(|(seq, hash)| RosterHead { space, seq: RosterSeq(seq), hash: Hash(hash) });
            let cursor = Head { stream: StreamId(log_id), position: Position(position), chain: Hash::ZERO };
            SpaceHello { space, log_id: LogId(log_id), roster, cursors: vec![cursor; 2], own_in_full }
        });
        FromDevice::Hello(Hello { version, device: DeviceId(device), pins_version, spaces: spaces.collect() })
    }
}

prop_compose! {
    fn pushes()(
        ids in any::<[[u8; 16]; 2]>(), refill in any::<bool>(),
        envelopes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..6),
    ) -> FromDevice {
        let envelopes = envelopes.into_iter().map(Into::into).collect();
        FromDevice::Push(Push { space: SpaceId(ids[0]), stream: StreamId(ids[1]), envelopes, refill })
    }
}

fn device_frames() -> impl Strategy<Value = FromDevice> {
    let fixed: Vec<_> = from_device().into_iter().map(|(_, frame)| frame).collect();
    let seen = any::<([u8; 16], Vec<([u8; 16], u64)>)>().prop_map(|(id, cursors)| {
        let cursors = cursors.into_iter().map(|(stream, at)| (StreamId(stream), Position(at))).collect();
        FromDevice::Seen(Seen { space: SpaceId(id), log_id: LogId(id), cursors })
    });
    prop_oneof![
        prop::sample::select(fixed),
        hellos(),
        pushes(),
        seen,
        any::<u32>().prop_map(FromDevice::Ping)
    ]
}

fn server_frames() -> impl Strategy<Value = FromServer> {
    let fixed: Vec<_> = from_server().into_iter().map(|(_, frame)| frame).collect();
    let refused =
        (prop::sample::select(refusals()), any::<[u8; 16]>(), any::<u64>()).prop_map(|(reason, id, seq)| {
            let what = RefusedWhat::Envelope { stream: StreamId(id), author: DeviceId(id), seq: Seq(seq) };
            FromServer::Refused(Refused { space: SpaceId(id), what, reason })
        });
    prop_oneof![prop::sample::select(fixed), refused, any::<u32>().prop_map(FromServer::Pong)]
}

fn body<T: Serialize>(frame: &T) -> Vec<u8> {
    let bytes = wire::encode_frame(frame);
    let (prefix, body) = bytes.split_first_chunk::<4>().unwrap();
    assert_eq!(wire::frame_len(*prefix), Ok(body.len()));
    body.to_vec()
}

proptest! {
    #[test]
    fn frames_are_decoded_as_they_were_encoded(device in device_frames(), server in server_frames()) {
        prop_assert_eq!(wire::decode::<FromDevice>(&body(&device)), Ok(device));
        prop_assert_eq!(wire::decode::<FromServer>(&body(&server)), Ok(server));
    }

    #[test]
    fn what_is_cut_off_or_goes_on_is_no_frame(frame in device_frames(), cut in any::<prop::sample::Index>()) {
        let body = body(&frame);
        prop_assert!(wire::decode::<FromDevice>(&body[..cut.index(body.len())]).is_err());
        prop_assert!(wire::decode::<FromDevice>(&[&body[..], &[0]].concat()).is_err());
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), tag in 0..12_u8) {
        let tagged = [&[tag][..], &bytes].concat();
        let _ = (wire::decode::<FromDevice>(&tagged), wire::decode::<FromServer>(&tagged));
        let _ = wire::decode::<ebb_protocol::roster::Entry>(&bytes);
    }

    #[test]
    fn damaged_frames_never_make_decoding_panic(frame in server_frames(), at in any::<prop::sample::Index>(), by in 1..=255_u8) {
        let mut body = body(&frame);
        let at = at.index(body.len());
        body[at] ^= by;
        let _ = wire::decode::<FromServer>(&body);
    }
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_anything_is_read() {
    let prefix = |len: usize| wire::frame_len(u32::try_from(len).unwrap().to_be_bytes());
    assert_eq!(prefix(FRAME_BYTES_MAX), Ok(FRAME_BYTES_MAX));
    assert!(prefix(FRAME_BYTES_MAX + 1).is_err());
    assert!(wire::frame_len([0xff; 4]).is_err());
}

#[test]
fn a_list_that_claims_more_than_it_has_costs_nothing() {
    // Push of 2^62 envelopes in a few bytes.
    let claim = [&[2][..], &[0; 32], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f]].concat();
    assert!(wire::decode::<FromDevice>(&claim).is_err());
}

#[test]
fn pins_survive_being_text() {
    let Some((_, FromServer::Welcome(welcome))) = from_server().into_iter().next() else { panic!("Welcome") };
    let pins = welcome.pins.unwrap();
    let text = pins.to_text();
    assert_eq!(SignedPins::from_text(&format!(" {text}\n")), Ok(pins));
    assert!(SignedPins::from_text(&text[..text.len() - 1]).is_err());
    assert!(SignedPins::from_text(&text[5..]).is_err());
    assert!(SignedPins::from_text(&text.replace("ebb1-", "ebb1-é")).is_err());
}

#[test]
fn numbers_stay_at_their_highest_and_times_do_not_wrap() {
    assert_eq!(Seq(u64::MAX).next(), Seq(u64::MAX));
    assert_eq!(Millis(u64::MAX).plus(1), Millis(u64::MAX));
    assert_eq!(Millis(1).since(Millis(2)), 0);
}
