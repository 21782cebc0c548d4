//! What the fuzzer runs: plain functions from bytes to nothing, which panic where a property does not hold.
//!
//! The programs under `fuzz/` only call them, and `tests/fuzz.rs` calls them with everything that is kept in
//! `tests/fixtures/corpus`, and with changes of it. Bytes that are only random get no further than the first
//! signature or checksum, so most targets read theirs as a small program ([`Feed`]): what is sound is built
//! with keys that follow from small numbers, and then damaged as the program says.
//!
//! Our own cursor rather than the crate `arbitrary`: that one takes lengths from the far end of the bytes,
//! and here a kept input is to be read from its beginning to its end, as it happens.

mod client;
mod envelope;
mod feed;
mod frames;
mod payload;
mod roster;
mod session;
mod texts;

// The protocol's own tests write devices, rosters and envelopes by hand; a copy would drift from it.
#[path = "../../protocol/tests/suite/kit.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "a kit for tests, of which not everything is used here")]
mod kit;

pub use self::{
    client::client, envelope::envelope, feed::Feed, frames::frames, payload::payload, roster::roster,
    session::session, texts::texts,
};

/// One thing that is fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: the program's, and its corpus' folder's.
    pub name: &'static str,
    /// Panics where a property does not hold.
    pub run: fn(&[u8]),
}

/// Everything that is fuzzed.
pub const TARGETS: &[Target] = &[
    Target { name: "frames", run: frames },
    Target { name: "envelope", run: envelope },
    Target { name: "roster", run: roster },
    Target { name: "payload", run: payload },
    Target { name: "session", run: session },
    Target { name: "client", run: client },
    Target { name: "texts", run: texts },
];
