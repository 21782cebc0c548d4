//! Frames, every tag, every limit and the version.
//!
//! A frame is a big-endian `u32` length and so many bytes of [postcard]: the tag (the place of the
//! variant in its enum, from 0) and its fields. The same frames travel on one bidirectional QUIC
//! stream or over TLS on TCP; any byte stream can carry them. The book's protocol chapter carries a
//! hash of this file, so that neither moves without the other.
//!
//! [postcard]: https://postcard.jamesmunns.com/wire-format.html

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    id::{DeviceId, Hash, LogId, Millis, Position, RosterSeq, Seq, SpaceId, StreamId},
    roster::EntryWithWraps,
    verify::{PublicKey, Signature, Signed},
};

/// The version of these frames; a server answers an unknown one with [`Refusal::Version`].
pub const VERSION: u16 = 1;
/// The application protocol that both transports negotiate.
pub const ALPN: &[u8] = b"ebb/1";
/// The label under which both ends export keying material for [`Welcome::exporter`].
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-ebb/1 welcome";

/// Bytes of one frame's body: what a receiver must be ready to hold for a peer it does not know.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes of one envelope: four fit a frame, and a phone can open one in little memory.
pub const ENVELOPE_BYTES_MAX: usize = 256 << 10;
/// Bytes of envelopes in one frame of catch-up, so that live frames and other streams get between.
pub const CATCH_UP_BYTES_MAX: usize = 64 << 10;
/// Bytes of one roster entry with its wraps: 32 streams with 64 recipients each, and room for forms.
pub const ENTRY_BYTES_MAX: usize = 512 << 10;
/// Bytes of roster entries that one frame carries, well under a frame.
pub const ROSTER_FRAME_BYTES_MAX: usize = 768 << 10;
/// Roster entries in one frame that a device pushes: each is tried on a copy of the roster.
pub const ROSTER_FRAME_ENTRIES_MAX: usize = 256;
/// Operations in one roster entry: enough to open, grant and rotate every stream at once.
pub const OPERATIONS_MAX: usize = 256;
/// Members of a space.
pub const MEMBERS_MAX: usize = 64;
/// Devices of a space, all members together.
pub const DEVICES_MAX: usize = 128;
/// Streams of a space.
pub const STREAMS_MAX: usize = 32;
/// Recipients of a stream's key: devices of the owner, and members.
pub const RECIPIENTS_MAX: usize = 64;
/// How far a rotation may skip ahead: above both branches of a split chain, and no device, whoever holds
/// it, can use up the numbers with which others rotate after it.
pub const EPOCH_STEP_MAX: u32 = 1024;
/// Spaces that one connection follows: a Hello that names a dozen cursors in each still fits a frame.
pub const SPACES_MAX: usize = 1024;
/// Heads in one frame that tells a device that it is caught up: some 60 bytes each, a quarter of a frame.
pub const CAUGHT_UP_HEADS_MAX: usize = 4096;
/// Spaces in one such frame: some 120 bytes each beside their heads.
pub const CAUGHT_UP_SPACES_MAX: usize = 1024;
/// Positions that a server offers per stream when it asks where two histories part.
pub const SAMPLES_MAX: usize = 64;
/// The first frame must arrive within this time, or the server closes.
pub const HELLO_MS_MAX: u64 = 5_000;
/// A connection with no frame for this long is dead.
pub const IDLE_MS_MAX: u64 = 60_000;
/// In the foreground a device pings this often, inside the time that home routers keep a binding.
pub const PING_MS: u64 = 22_000;
/// An answer that takes longer means that the network is gone although nobody said so.
pub const ANSWER_MS_MAX: u64 = 15_000;

/// What a device says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromDevice {
    /// 0: who it is and how far it is. The first frame of a connection, once.
    Hello(Hello),
    /// 1: roster entries in order of their sequence.
    PushRoster(PushRoster),
    /// 2: sealed envelopes of one stream, in order of each author's chain.
    Push(Push),
    /// 3: positions up to which it has stored what it was sent.
    Seen(Seen),
    /// 4: the answer to [`FromServer::NeedEvidence`].
    Evidence(Evidence),
    /// 5: is anybody there?
    Ping(u32),
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromServer {
    /// 0: the answer to Hello; before it, a device trusts nothing that came over the link.
    Welcome(Welcome),
    /// 1: roster entries that the device lacks, in order.
    Roster(RosterFrame),
    /// 2: roster entries up to this one are durable.
    RosterAcked(RosterHead),
    /// 3: envelopes are durable at these positions.
    Acked(Acked),
    /// 4: something pushed was not taken, and why.
    Refused(Refused),
    /// 5: a run of a stream's log.
    Entries(Entries),
    /// 6: everything up to these heads was sent.
    CaughtUp(Vec<SignedHeads>),
    /// 7: the device's cursors and this log disagree; show what this server signed.
    NeedEvidence(NeedEvidence),
    /// 8: this log began anew after the server lost data.
    LogBorn(SignedLogBorn),
    /// 9: the answer to a ping.
    Pong(u32),
    /// 10: the server ends the connection; come back after so many milliseconds.
    Bye(Bye),
}

/// How a device introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`] of the sender.
    pub version: u16,
    /// The device; its TLS key must be the connection's.
    pub device: DeviceId,
    /// The version of the pin list that it holds.
    pub pins_version: u32,
    /// The spaces it follows.
    pub spaces: Vec<SpaceHello>,
}

/// How far a device is in one space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceHello {
    /// The space.
    pub space: SpaceId,
    /// The log in which the cursors count; zero if it never met a server.
    pub log_id: LogId,
    /// The newest roster entry that the device and a server agreed on; `None` before the first.
    pub roster: Option<RosterHead>,
    /// How far it has stored each stream; streams that are not named start from nothing.
    pub cursors: Vec<Head>,
    /// Whether the device wants its own envelopes back whole: it lacks some it once wrote.
    pub own_in_full: bool,
}

/// A place in a roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterHead {
    /// The space.
    pub space: SpaceId,
    /// The entry's place.
    pub seq: RosterSeq,
    /// The entry's hash.
    pub hash: Hash,
}

/// A place in a stream's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The stream.
    pub stream: StreamId,
    /// How many envelopes stand up to here.
    pub position: Position,
    /// The chain hash here.
    pub chain: Hash,
}

/// Roster entries on their way to a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushRoster {
    /// The space.
    pub space: SpaceId,
    /// The entries, in order.
    pub entries: Vec<EntryWithWraps>,
}

/// Envelopes on their way to a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// The space.
    pub space: SpaceId,
    /// The stream.
    pub stream: StreamId,
    /// Envelopes, byte for byte as their author signed them.
    pub envelopes: Vec<serde_bytes::ByteBuf>,
    /// Whether these are given back to a server that lost them: any reader may, whoever wrote them.
    pub refill: bool,
}

/// What a device has stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The space.
    pub space: SpaceId,
    /// The log in which the positions count.
    pub log_id: LogId,
    /// Streams and positions.
    pub cursors: Vec<(StreamId, Position)>,
}

/// What a device holds against a server that forgot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The space.
    pub space: SpaceId,
    /// Heads that the server itself signed, per stream the newest.
    pub heads: Vec<SignedHeads>,
    /// Of the samples that the server sent, per stream the highest at which both agree.
    pub common: Vec<(StreamId, Position)>,
}

/// The answer to Hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`VERSION`] of the sender.
    pub version: u16,
    /// Keying material exported from this very connection: nobody sits between.
    pub exporter: [u8; 32],
    /// The server's clock.
    pub server_ms: Millis,
    /// A newer pin list than the device holds.
    pub pins: Option<SignedPins>,
    /// How the device stands in each space that it named.
    pub spaces: Vec<SpaceWelcome>,
    /// The device waits at least so long between attempts when a connection fails.
    pub back_off_ms: u32,
}

/// What a server knows of a device in one space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceWelcome {
    /// The space.
    pub space: SpaceId,
    /// The log's id; zero where the server has no such space yet.
    pub log_id: LogId,
    /// The newest roster entry that the server holds; a device that holds more gives it.
    pub roster: Option<RosterHead>,
    /// The device's own newest envelope in each stream.
    pub own_heads: Vec<(StreamId, Seq, Hash)>,
}

/// Roster entries on their way to a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterFrame {
    /// The space.
    pub space: SpaceId,
    /// The entries, in order; the first follows on the head that the device named, or is the first of all.
    pub entries: Vec<EntryWithWraps>,
}

/// Envelopes that are durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acked {
    /// Which, and where.
    pub envelopes: Vec<AckedEnvelope>,
    /// The stream's head at the time, signed: the device's receipt.
    pub head: SignedHeads,
}

/// One envelope that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckedEnvelope {
    /// Its hash.
    pub hash: Hash,
    /// Its place in the log.
    pub position: Position,
}

/// Something that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The space.
    pub space: SpaceId,
    /// What was refused.
    pub what: RefusedWhat,
    /// Why, and so what the device does next.
    pub reason: Refusal,
}

/// What was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusedWhat {
    /// 0: an envelope, and with it all that the author pushed behind it in this stream.
    Envelope {
        /// The stream.
        stream: StreamId,
        /// The author.
        author: DeviceId,
        /// The author's sequence.
        seq: Seq,
    },
    /// 1: a roster entry (named by its hash), and with it all pushed behind it.
    Entry(Hash),
    /// 2: the whole space.
    Space,
}

/// Why something was refused; each reason has one action on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// 0: sealed under an epoch that is over: seal again under the new one, same sequence.
    StaleEpoch,
    /// 1: names a roster entry that the server lacks: push the roster, then the same bytes.
    UnknownHead,
    /// 2: the roster moved on from this entry (the last one in common): validate again, sign again.
    HeadMoved(Option<RosterHead>),
    /// 3: not allowed to: show it to the person.
    Role,
    /// 4: too much in too short a time: wait so many milliseconds.
    Quota(u32),
    /// 5: envelopes before this one are missing: send from this sequence on.
    Gap(Seq),
    /// 6: another envelope stands at this sequence: stop writing, enrol anew.
    Fork,
    /// 7: not what the protocol says: a bug on one side.
    Malformed,
    /// 8: the server speaks no such version: update.
    Version,
    /// 9: the server does not take new spaces without an invitation.
    Unregistered,
    /// 10: the server could not store it now: keep it and try again later.
    Unavailable,
}

/// A run of a stream's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    /// The space.
    pub space: SpaceId,
    /// The stream.
    pub stream: StreamId,
    /// The log in which the positions count.
    pub log_id: LogId,
    /// The position of the first item; the others follow without a gap.
    pub first: Position,
    /// The items.
    pub items: Vec<Item>,
}

/// One place of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// When the server received it, by its own clock, signed by nobody.
    pub received_ms: Millis,
    /// What stands there.
    pub content: ItemContent,
}

/// What stands at a place of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ItemContent {
    /// 0: an envelope.
    Envelope(serde_bytes::ByteBuf),
    /// 1: the reading device's own envelope, which it holds: only its hash.
    Own(Hash),
}

/// Heads of a space's streams in one log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heads {
    /// The space.
    pub space: SpaceId,
    /// The log.
    pub log_id: LogId,
    /// The heads.
    pub heads: Vec<Head>,
}

/// [`Heads`] as the server signed them: proof against the server itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHeads(SignedBytes);

/// The server lost data in a space and started a new log there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBorn {
    /// The space.
    pub space: SpaceId,
    /// The log that ended.
    pub old: LogId,
    /// The log that began.
    pub new: LogId,
    /// What convinced the server: its own signed heads.
    pub evidence: Vec<SignedHeads>,
    /// Up to these heads both logs are the same.
    pub common: Vec<Head>,
}

/// [`LogBorn`] as the server signed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedLogBorn(SignedBytes);

/// A server asks what it forgot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeedEvidence {
    /// The space.
    pub space: SpaceId,
    /// Places of its own logs, at most [`SAMPLES_MAX`] a stream, highest first.
    pub samples: Vec<Head>,
}

/// The keys of a deployment's servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins {
    /// Rises with every list; a device never goes back.
    pub version: u32,
    /// The deployment's root, which signs the list.
    pub root: PublicKey,
    /// TLS keys, any of which a server may show.
    pub tls: Vec<PublicKey>,
    /// Keys that sign heads and births of logs, retired ones included.
    pub heads: Vec<PublicKey>,
}

/// [`Pins`] as the deployment's root signed them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedPins(SignedBytes);

/// The server ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bye {
    /// Why.
    pub reason: Refusal,
    /// Come back after so many milliseconds.
    pub retry_ms: u32,
}

/// Bytes and a signature over them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SignedBytes {
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
    signature: Signature,
}

macro_rules! signed {
    ($signed:ident of $content:ident, $domain:literal) => {
        impl $signed {
            /// Encodes the statement and has it signed (`sign` gets the message to sign).
            pub fn sign(content: &$content, sign: impl FnOnce(&[u8]) -> Signature) -> Self {
                let body = encode(content);
                let signature = sign(&crate::verify::signing_message(Self::DOMAIN, &body));
                Self(SignedBytes { body, signature })
            }

            /// What it says, whoever signed it.
            ///
            /// # Errors
            /// [`Undecodable`] when it is none of this version's statements.
            pub fn content(&self) -> Result<$content, Undecodable> {
                decode(&self.0.body)
            }
        }

        impl Signed for $signed {
            const DOMAIN: &'static [u8] = $domain;

            fn body(&self) -> &[u8] {
                &self.0.body
            }

            fn signature(&self) -> Signature {
                self.0.signature
            }
        }
    };
}

signed!(SignedHeads of Heads, b"ebb/v1/heads\0");
signed!(SignedLogBorn of LogBorn, b"ebb/v1/born\0");
signed!(SignedPins of Pins, b"ebb/v1/pins\0");

/// What the text of a pin list begins with, so that it is recognised wherever it was copied from.
const PINS_TEXT_PREFIX: &str = "ebb1-";

impl SignedPins {
    /// The list as text, for an app's configuration or a QR code: `ebb1-` and hexadecimal digits.
    #[must_use]
    pub fn to_text(&self) -> String {
        let digits = encode(self).into_iter().map(|byte| format!("{byte:02x}"));
        std::iter::once(PINS_TEXT_PREFIX.to_owned()).chain(digits).collect()
    }

    /// Reads a list from text; whose signature it carries is the caller's to check.
    ///
    /// # Errors
    /// [`Undecodable`] if the text is cut off, mistyped or something else.
    pub fn from_text(text: &str) -> Result<Self, Undecodable> {
        let digits = text.trim().strip_prefix(PINS_TEXT_PREFIX).ok_or(Undecodable)?;
        if !digits.len().is_multiple_of(2) || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(Undecodable);
        }
        let pairs = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16));
        let bytes = pairs.collect::<Result<Vec<_>, _>>().map_err(|_| Undecodable)?;
        decode(&bytes)
    }
}

/// Encodes a value of the wire.
///
/// # Panics
/// Never: every type of the wire has a length that is known before it is written.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("types of the wire always encode")
}

/// Decodes a value of the wire from exactly these bytes.
///
/// # Errors
/// [`Undecodable`] for anything that is not one whole value.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Undecodable> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(Undecodable),
    }
}

/// Encodes a frame with its length before it.
pub fn encode_frame<T: Serialize>(frame: &T) -> Vec<u8> {
    let mut out = vec![0; 4];
    out = postcard::to_extend(frame, out).expect("types of the wire always encode");
    let len = u32::try_from(out.len() - 4).expect("frames are far below 4 GiB");
    out[..4].copy_from_slice(&len.to_be_bytes());
    out
}

/// How long the body of a frame is, from the four bytes before it.
///
/// # Errors
/// [`Undecodable`] if it claims more than [`FRAME_BYTES_MAX`]; nothing need be read or reserved.
pub fn frame_len(prefix: [u8; 4]) -> Result<usize, Undecodable> {
    match u32::from_be_bytes(prefix) as usize {
        len if len <= FRAME_BYTES_MAX => Ok(len),
        _ => Err(Undecodable),
    }
}

/// Bytes that are no value of this version of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no frame of this version")]
pub struct Undecodable;
