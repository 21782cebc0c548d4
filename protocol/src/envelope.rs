//! The envelope: a sealed, signed batch of changes, with a fixed header (big-endian).
//!
//! | offset | length | field |
//! |---|---|---|
//! | 0 | 1 | version = 1 |
//! | 1 | 1 | suite = 1 |
//! | 2 | 1 | kind |
//! | 3 | 1 | flags = 0 |
//! | 4 | 16 | space |
//! | 20 | 16 | stream |
//! | 36 | 16 | author |
//! | 52 | 8 | seq |
//! | 60 | 32 | prev |
//! | 92 | 4 | epoch |
//! | 96 | 32 | roster_head |
//! | 128 | 16 | log_id |
//! | 144 | 8 | seen_pos |
//! | 152 | 32 | seen_hash |
//! | 184 | 16 | salt |
//! | 200 | 4 | body_len |
//! | 204 | 32 | commit |
//! | 236 | body_len | ciphertext and tag, with bytes 0..204 as associated data |
//! | end | 64 | Ed25519 over `"ebb/v1/sig\0" || SHA-256(everything before)` |
//!
//! Nothing in this crate can open one. The server appends envelopes as they are; devices hand the
//! ciphertext to core.

use crate::{
    id::{DeviceId, Epoch, Hash, LogId, Position, Seq, SpaceId, StreamId},
    verify::{self, Signature, Signed},
    wire::ENVELOPE_BYTES_MAX,
};

/// The version of the layout above.
pub const VERSION: u8 = 1;
/// Ed25519, SHA-256, HKDF-SHA-256, AES-256-GCM, HPKE over P-256.
pub const SUITE: u8 = 1;
/// Bytes 0..204: what the seal authenticates but does not hide.
pub const HEADER_BYTES: usize = 204;
/// Bytes of the key commitment behind the header.
pub const COMMIT_BYTES: usize = 32;
/// Bytes of the signature at the end.
pub const SIGNATURE_BYTES: usize = 64;
/// Bytes of an AES-256-GCM tag: no body is shorter.
pub const TAG_BYTES: usize = 16;

/// Sequences and positions stay within what a database's signed integers hold: nobody reaches it, and
/// one that pretends to would otherwise fail wherever it is stored.
const NUMBER_MAX: u64 = i64::MAX as u64;

const BODY_AT: usize = HEADER_BYTES + COMMIT_BYTES;
/// An envelope's bytes beside its ciphertext.
pub const OVERHEAD_BYTES: usize = BODY_AT + SIGNATURE_BYTES;

/// What an envelope carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A batch of record changes.
    Changes = 1,
    // 2 is reserved for attachment chunks.
    /// A witness: what its author saw of other streams.
    Witness = 3,
}

/// The fields of bytes 0..204, but for the constants and the body's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the envelope carries.
    pub kind: Kind,
    /// The space it belongs to.
    pub space: SpaceId,
    /// The stream within the space.
    pub stream: StreamId,
    /// The device that sealed and signed it.
    pub author: DeviceId,
    /// The author's own count in this stream.
    pub seq: Seq,
    /// Hash of an accepted envelope of the author at `seq - 1`; zero at 1.
    pub prev: Hash,
    /// The generation of the stream's key under which the body is sealed.
    pub epoch: Epoch,
    /// The newest roster entry that the server acknowledged or delivered to the author.
    pub roster_head: Hash,
    /// The log that the author saw; zero if it never met a server.
    pub log_id: LogId,
    /// How far the author had applied this stream in that log.
    pub seen_pos: Position,
    /// The stream's chain hash there.
    pub seen_hash: Hash,
    /// Fresh random bytes: the body's key is derived from them and the header.
    pub salt: [u8; 16],
}

impl Header {
    /// Bytes 0..204, for a body (ciphertext and tag) of `body_len` bytes.
    #[must_use]
    pub fn encode(&self, body_len: u32) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&[VERSION, SUITE, self.kind as u8, 0]);
        out.extend_from_slice(&self.space.0);
        out.extend_from_slice(&self.stream.0);
        out.extend_from_slice(&self.author.0);
        out.extend_from_slice(&self.seq.0.to_be_bytes());
        out.extend_from_slice(&self.prev.0);
        out.extend_from_slice(&self.epoch.0.to_be_bytes());
        out.extend_from_slice(&self.roster_head.0);
        out.extend_from_slice(&self.log_id.0);
        out.extend_from_slice(&self.seen_pos.0.to_be_bytes());
        out.extend_from_slice(&self.seen_hash.0);
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&body_len.to_be_bytes());
        out.try_into().expect("the fields add up to 204 bytes")
    }
}

/// An envelope whose layout was checked; its signature not yet (see [`verify::check`]).
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    bytes: Vec<u8>,
    header: Header,
}

impl Envelope {
    /// Reads an envelope, checking sizes, version, suite, kind and flags.
    ///
    /// # Errors
    /// [`Malformed`] names the first field that does not hold. Nothing else was looked at.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, Malformed> {
        if bytes.len() > ENVELOPE_BYTES_MAX {
            return Err(Malformed::TooLong);
        }
        if bytes.len() < OVERHEAD_BYTES + TAG_BYTES {
            return Err(Malformed::TooShort);
        }
        let mut fields = Fields(&bytes);
        if fields.take::<1>() != [VERSION] {
            return Err(Malformed::Version);
        }
        if fields.take::<1>() != [SUITE] {
            return Err(Malformed::Suite);
        }
        let kind = match fields.take::<1>() {
            [1] => Kind::Changes,
            [3] => Kind::Witness,
            _ => return Err(Malformed::Kind),
        };
        if fields.take::<1>() != [0] {
            return Err(Malformed::Flags);
        }
        let header = Header {
            kind,
            space: SpaceId(fields.take()),
            stream: StreamId(fields.take()),
            author: DeviceId(fields.take()),
            seq: Seq(u64::from_be_bytes(fields.take())),
            prev: Hash(fields.take()),
            epoch: Epoch(u32::from_be_bytes(fields.take())),
            roster_head: Hash(fields.take()),
            log_id: LogId(fields.take()),
            seen_pos: Position(u64::from_be_bytes(fields.take())),
            seen_hash: Hash(fields.take()),
            salt: fields.take(),
        };
        let body_len = u32::from_be_bytes(fields.take()) as usize;
        if body_len != bytes.len() - OVERHEAD_BYTES {
            return Err(Malformed::BodyLength);
        }
        let starts = header.seq == Seq(1);
        let too_large = header.seq.0.max(header.seen_pos.0) > NUMBER_MAX;
        if too_large || header.seq == Seq(0) || header.epoch == Epoch(0) || starts != header.prev.is_zero() {
            return Err(Malformed::Sequence);
        }
        Ok(Self { bytes, header })
    }

    /// Puts an envelope together from what its author sealed and signed.
    ///
    /// # Errors
    /// [`Malformed`] if the parts do not make an envelope that others would accept.
    pub fn assemble(
        header: &[u8; HEADER_BYTES],
        commit: &[u8; COMMIT_BYTES],
        body: &[u8],
        sign: impl FnOnce(&[u8]) -> Signature,
    ) -> Result<Self, Malformed> {
        let mut bytes = Vec::with_capacity(OVERHEAD_BYTES + body.len());
        bytes.extend_from_slice(header);
        bytes.extend_from_slice(commit);
        bytes.extend_from_slice(body);
        let signature = sign(&verify::signing_message(Self::DOMAIN, &bytes));
        bytes.extend_from_slice(&signature.to_bytes());
        Self::parse(bytes)
    }

    /// The header's fields.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes 0..204: the associated data of the seal.
    #[must_use]
    pub fn associated(&self) -> &[u8; HEADER_BYTES] {
        self.bytes[..HEADER_BYTES].try_into().expect("checked in parse")
    }

    /// The key commitment.
    #[must_use]
    pub fn commit(&self) -> &[u8; COMMIT_BYTES] {
        self.bytes[HEADER_BYTES..BODY_AT].try_into().expect("checked in parse")
    }

    /// Ciphertext and tag.
    #[must_use]
    pub fn ciphertext(&self) -> &[u8] {
        &self.bytes[BODY_AT..self.bytes.len() - SIGNATURE_BYTES]
    }

    /// The whole, as it is stored and sent.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The whole, as it is stored and sent.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// SHA-256 of the whole: the name by which chains and logs know this envelope.
    #[must_use]
    pub fn hash(&self) -> Hash {
        verify::sha256(&[&self.bytes])
    }
}

impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Header { stream, author, seq, epoch, .. } = self.header;
        write!(f, "Envelope({stream} {author}:{seq} epoch {epoch}, {} bytes)", self.bytes.len())
    }
}

impl Signed for Envelope {
    const DOMAIN: &'static [u8] = b"ebb/v1/sig\0";

    fn body(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - SIGNATURE_BYTES]
    }

    fn signature(&self) -> Signature {
        let at = self.bytes.len() - SIGNATURE_BYTES;
        Signature::from_bytes(self.bytes[at..].try_into().expect("checked in parse"))
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("the length was checked first");
        self.0 = rest;
        *field
    }
}

/// The first thing about an envelope's layout that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// More than [`ENVELOPE_BYTES_MAX`].
    #[error("longer than an envelope may be")]
    TooLong,
    /// Less than header, commitment, tag and signature.
    #[error("shorter than an envelope can be")]
    TooShort,
    /// A version this code does not know: made by a newer one, or not an envelope.
    #[error("unknown envelope version")]
    Version,
    /// A cipher suite this code does not know.
    #[error("unknown cipher suite")]
    Suite,
    /// A kind this code does not know.
    #[error("unknown envelope kind")]
    Kind,
    /// A flag is set, and none is defined.
    #[error("undefined flags")]
    Flags,
    /// The body's length is not what the header says.
    #[error("body length does not match")]
    BodyLength,
    /// Sequence or epoch 0, or a predecessor named at 1 or not named after it.
    #[error("impossible sequence, epoch or predecessor")]
    Sequence,
}

/// The chain hash before a stream's first position.
#[must_use]
pub fn chain_start(space: &SpaceId, stream: &StreamId) -> Hash {
    verify::sha256(&[b"ebb/v1/log0", &space.0, &stream.0])
}

/// The chain hash after appending an envelope to a log whose chain hash was `before`.
#[must_use]
pub fn chain_next(before: &Hash, envelope: &Hash) -> Hash {
    verify::sha256(&[b"ebb/v1/log", &before.0, &envelope.0])
}
