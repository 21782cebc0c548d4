//! Frames and the signed statements within them, decoded from any bytes.

use std::fmt::Debug;

use ebb_protocol::{
    roster::{Entry, EntryWithWraps},
    wire::{
        self, FRAME_BYTES_MAX, FromDevice, FromServer, Heads, Item, LogBorn, Pins, SignedHeads,
        SignedLogBorn, SignedPins,
    },
};
use serde::{Serialize, de::DeserializeOwned};

/// Decodes the bytes as each thing of the wire. What decodes is never longer once it is encoded again, and
/// means the same; behind its end nothing may come: numbers may come in more bytes than they need, and nothing that is signed is encoded
/// anew. What it takes in memory is bounded by the length of a frame.
pub fn frames(bytes: &[u8]) {
    if let Some(frame) = again::<FromDevice>(bytes) {
        assert!(held_by_device_frame(&frame) <= HELD_BYTES_MAX, "a frame takes too much memory");
        match frame {
            FromDevice::PushRoster(push) => push.entries.iter().for_each(entry),
            FromDevice::Evidence(evidence) => evidence.heads.iter().for_each(heads),
            _ => {}
        }
    }
    if let Some(frame) = again::<FromServer>(bytes) {
        assert!(held_by_server_frame(&frame) <= HELD_BYTES_MAX, "a frame takes too much memory");
        match frame {
            FromServer::Welcome(welcome) => welcome.pins.iter().for_each(pins),
            FromServer::Roster(roster) => roster.entries.iter().for_each(entry),
            FromServer::Acked(acked) => heads(&acked.head),
            FromServer::CaughtUp(all) => all.iter().for_each(heads),
            FromServer::LogBorn(signed) => born(&signed),
            _ => {}
        }
    }
    again::<Entry>(bytes);
    again::<Heads>(bytes);
    again::<LogBorn>(bytes);
    again::<Pins>(bytes);
    if let Some(prefix) = bytes.first_chunk::<4>() {
        let claimed = u32::from_be_bytes(*prefix) as usize;
        assert_eq!(wire::frame_len(*prefix).ok(), (claimed <= FRAME_BYTES_MAX).then_some(claimed));
    }
}

/// What a frame of the greatest length may take once it is decoded, beside the frame: a list's items are up
/// to 24 times as large in memory as on the wire, and a list that grows has up to twice the room it needs.
const HELD_BYTES_MAX: usize = 50 * FRAME_BYTES_MAX;

fn held_by_device_frame(frame: &FromDevice) -> usize {
    match frame {
        FromDevice::Push(push) => {
            let bytes: usize = push.envelopes.iter().map(|envelope| envelope.capacity()).sum();
            bytes + push.envelopes.capacity() * size_of::<Vec<u8>>()
        }
        FromDevice::PushRoster(push) => push.entries.capacity() * size_of::<EntryWithWraps>(),
        _ => 0,
    }
}

fn held_by_server_frame(frame: &FromServer) -> usize {
    match frame {
        FromServer::Entries(entries) => entries.items.capacity() * size_of::<Item>(),
        FromServer::Roster(roster) => roster.entries.capacity() * size_of::<EntryWithWraps>(),
        _ => 0,
    }
}

fn entry(entry: &EntryWithWraps) {
    if let Ok(content) = entry.entry.entry() {
        assert_eq!(again::<Entry>(&wire::encode(&content)), Some(content));
    }
}

fn heads(signed: &SignedHeads) {
    signed.content().map(|heads| again::<Heads>(&wire::encode(&heads))).ok();
}

fn born(signed: &SignedLogBorn) {
    signed.content().map(|born| again::<LogBorn>(&wire::encode(&born))).ok();
}

fn pins(signed: &SignedPins) {
    signed.content().map(|pins| again::<Pins>(&wire::encode(&pins))).ok();
    assert_eq!(SignedPins::from_text(&signed.to_text()).as_ref(), Ok(signed));
}

/// Decodes, encodes and decodes again.
pub(super) fn again<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let value: T = wire::decode(bytes).ok()?;
    let encoded = wire::encode(&value);
    assert!(encoded.len() <= bytes.len(), "{value:?} has grown");
    assert_eq!(wire::decode::<T>(&encoded).as_ref(), Ok(&value), "it is something else now");
    assert!(wire::decode::<T>(&[&encoded[..], &[0]].concat()).is_err(), "{value:?} goes on behind its end");
    Some(value)
}
