//! Sealing: what turns records' changes into envelopes that only holders of a stream's key can open.
//!
//! ```text
//! Payload --pack--> version, inflated size, deflated body --seal--> Envelope
//! PRK = HKDF-Extract(salt, EK)
//! OKM = HKDF-Expand(PRK, "ebb/v1/change" || SHA-256(bytes 0..204)) = key32 || nonce12 || commit32
//! ```
//!
//! The key is fresh for every envelope, so its nonce may be derived. AES-GCM alone lets one make a
//! ciphertext that opens under two keys; the commitment, which is compared first, does not.
//!
//! Lengths are padded to [`padme`] sizes: the server learns a size to within 12 %, and of a small
//! batch nothing.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    constant_time,
};
use ebb_protocol::{
    envelope::{COMMIT_BYTES, Envelope, HEADER_BYTES, Header, Malformed, OVERHEAD_BYTES, TAG_BYTES},
    id::{Epoch, SpaceId, StreamId},
    verify::{self, Verified},
    wire::ENVELOPE_BYTES_MAX,
};

use crate::keys::{DeviceSecrets, Entropy, EpochKey};

mod payload;
pub use payload::{BadPayload, CHANGES_MAX, INFLATED_BYTES_MAX, PAYLOAD_VERSION, Payload, RecordChanges};

/// Bytes of a payload that still fit an envelope: the largest padded size below its limit is 63 times
/// 4 KiB, less the length in front.
pub const PAYLOAD_BYTES_MAX: usize = 63 * 4096 - LENGTH_BYTES;
/// The least plaintext that is sealed: most single records then look alike.
pub const PADDED_BYTES_MIN: usize = 256;

const LENGTH_BYTES: usize = 4;
const _: () = assert!(OVERHEAD_BYTES + LENGTH_BYTES + PAYLOAD_BYTES_MAX + TAG_BYTES <= ENVELOPE_BYTES_MAX);
const KEY_BYTES: usize = 32;
const DERIVED_BYTES: usize = KEY_BYTES + NONCE_LEN + COMMIT_BYTES;

/// The size to which a plaintext of `len` bytes is padded: at most 12 % more, and of any length only
/// so much becomes known as its order of magnitude tells.
///
/// Nikitin, Barman, Lueks, Underwood, Hubaux, Ford: "Reducing Metadata Leakage from Encrypted Files
/// and Communication with PURBs", PoPETs 2019, section 4; with a floor of [`PADDED_BYTES_MIN`].
#[must_use]
pub fn padme(len: usize) -> usize {
    let len = len.max(PADDED_BYTES_MIN);
    let exponent = len.ilog2();
    let mask = (1 << (exponent - (exponent.ilog2() + 1))) - 1;
    (len + mask) & !mask
}

/// Seals a payload and signs the envelope.
///
/// The header comes complete, its salt freshly drawn; a salt never serves twice. To seal the same
/// payload again (under a later epoch), draw another.
///
/// # Errors
/// [`SealError::TooLong`] above [`PAYLOAD_BYTES_MAX`]: split the payload. The others are bugs.
pub fn seal(
    secrets: &DeviceSecrets,
    key: &EpochKey,
    header: &Header,
    payload: &[u8],
) -> Result<Envelope, SealError> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(SealError::TooLong);
    }
    if header.author != secrets.id() {
        return Err(SealError::NotAuthor);
    }
    let padded = padme(LENGTH_BYTES + payload.len());
    let mut plaintext = Vec::with_capacity(padded + TAG_BYTES);
    plaintext.extend_from_slice(&length(payload.len()));
    plaintext.extend_from_slice(payload);
    plaintext.resize(padded, 0);
    seal_padded(secrets, key, header, plaintext).map_err(SealError::Header)
}

/// Opens an envelope whose signature was checked: commitment, ciphertext, padding, in this order.
///
/// # Errors
/// [`Unopened`] names the first that does not hold; nothing of the content is given away.
pub fn open(key: &EpochKey, envelope: &Verified<Envelope>) -> Result<Vec<u8>, Unopened> {
    let derived = Derived::derive(key, &envelope.header().salt, envelope.associated());
    constant_time::verify_slices_are_equal(&derived.commit, envelope.commit())
        .map_err(|_| Unopened::Commitment)?;
    unpad(decrypt(&derived.key, derived.nonce, envelope.associated(), envelope.ciphertext())?)
}

/// Seals a roster entry's note: nonce, ciphertext and tag. Notes are not padded.
#[must_use]
pub fn seal_note(
    key: &EpochKey,
    space: &SpaceId,
    stream: &StreamId,
    epoch: Epoch,
    text: &str,
    entropy: &mut dyn Entropy,
) -> Vec<u8> {
    let (key, context) = note_key(key, space, stream, epoch);
    let mut nonce = [0; NONCE_LEN];
    entropy.fill(&mut nonce);
    let mut bytes = nonce.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce);
    bytes.extend_from_slice(&encrypt(&key, nonce, &context, text.as_bytes().to_vec()));
    bytes
}

/// Opens a roster entry's note.
///
/// # Errors
/// [`Unopened::Ciphertext`] under another key or context or after damage, [`Unopened::NotText`].
pub fn open_note(
    key: &EpochKey,
    space: &SpaceId,
    stream: &StreamId,
    epoch: Epoch,
    bytes: &[u8],
) -> Result<String, Unopened> {
    let (key, context) = note_key(key, space, stream, epoch);
    let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>().ok_or(Unopened::Ciphertext)?;
    let text = decrypt(&key, Nonce::assume_unique_for_key(*nonce), &context, sealed)?;
    String::from_utf8(text).map_err(|_| Unopened::NotText)
}

/// Why something was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// More than an envelope holds: split the payload.
    #[error("the payload does not fit an envelope")]
    TooLong,
    /// The header names another device than the one that signs.
    #[error("the header names another author")]
    NotAuthor,
    /// The header is none that others would accept.
    #[error(transparent)]
    Header(Malformed),
}

/// Why something does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// The envelope was sealed under another key, or its header or commitment is not the sealed one.
    #[error("sealed under another key")]
    Commitment,
    /// The ciphertext or its tag is not what the key made.
    #[error("the ciphertext does not open")]
    Ciphertext,
    /// The padding is not zeros up to exactly the size it must have.
    #[error("the padding is not as it must be")]
    Padding,
    /// A note that is no text.
    #[error("the note is no text")]
    NotText,
}

impl Unopened {
    /// The short name under which such content is kept in quarantine; it never changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Commitment => "commitment",
            Self::Ciphertext => "ciphertext",
            Self::Padding => "padding",
            Self::NotText => "not_text",
        }
    }
}

/// Keys of one envelope.
struct Derived {
    key: LessSafeKey,
    nonce: Nonce,
    commit: [u8; COMMIT_BYTES],
}

impl Derived {
    fn derive(key: &EpochKey, salt: &[u8; 16], header: &[u8; HEADER_BYTES]) -> Self {
        let okm = key.derive_bytes::<DERIVED_BYTES>(salt, &[b"ebb/v1/change", &verify::sha256(&[header]).0]);
        let (key, rest) = okm.split_first_chunk::<KEY_BYTES>().expect("76 bytes");
        let (nonce, commit) = rest.split_first_chunk::<NONCE_LEN>().expect("44 bytes");
        Self {
            key: aes_256_gcm(key),
            nonce: Nonce::assume_unique_for_key(*nonce),
            commit: commit.try_into().expect("32 bytes"),
        }
    }
}

fn seal_padded(
    secrets: &DeviceSecrets,
    key: &EpochKey,
    header: &Header,
    plaintext: Vec<u8>,
) -> Result<Envelope, Malformed> {
    let body_len = u32::try_from(plaintext.len() + TAG_BYTES).map_err(|_| Malformed::TooLong)?;
    let encoded = header.encode(body_len);
    let derived = Derived::derive(key, &header.salt, &encoded);
    let sealed = encrypt(&derived.key, derived.nonce, &encoded, plaintext);
    Envelope::assemble(&encoded, &derived.commit, &sealed, |message| secrets.sign(message))
}

fn unpad(mut plaintext: Vec<u8>) -> Result<Vec<u8>, Unopened> {
    let (len, rest) = plaintext.split_first_chunk::<LENGTH_BYTES>().ok_or(Unopened::Padding)?;
    let len = u32::from_be_bytes(*len) as usize;
    let padding = rest.get(len..).ok_or(Unopened::Padding)?;
    if plaintext.len() != padme(LENGTH_BYTES + len) || padding.iter().any(|byte| *byte != 0) {
        return Err(Unopened::Padding);
    }
    plaintext.truncate(LENGTH_BYTES + len);
    plaintext.drain(..LENGTH_BYTES);
    Ok(plaintext)
}

fn note_key(key: &EpochKey, space: &SpaceId, stream: &StreamId, epoch: Epoch) -> (LessSafeKey, Vec<u8>) {
    let context = [&b"ebb/v1/note"[..], &space.0, &stream.0, &epoch.0.to_be_bytes()].concat();
    (aes_256_gcm(&key.derive_bytes(&[], &[&context])), context)
}

fn encrypt(key: &LessSafeKey, nonce: Nonce, associated: &[u8], mut plaintext: Vec<u8>) -> Vec<u8> {
    key.seal_in_place_append_tag(nonce, Aad::from(associated), &mut plaintext)
        .expect("envelopes and notes are far below AES-GCM's 64 GiB");
    plaintext
}

fn decrypt(key: &LessSafeKey, nonce: Nonce, associated: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unopened> {
    let mut bytes = sealed.to_vec();
    let opened = key.open_in_place(nonce, Aad::from(associated), &mut bytes);
    let len = opened.map_err(|_| Unopened::Ciphertext)?.len();
    bytes.truncate(len);
    Ok(bytes)
}

fn aes_256_gcm(key: &[u8; KEY_BYTES]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are an AES-256 key"))
}

fn length(len: usize) -> [u8; LENGTH_BYTES] {
    u32::try_from(len).expect("lengths here are checked to be below 1 MiB").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use ebb_protocol::{
        envelope::Kind,
        id::{Hash, LogId, Position, Seq},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::keys::testing::{SeededEntropy, hex, wycheproof};

    fn device() -> DeviceSecrets {
        DeviceSecrets::make_device(&mut SeededEntropy(1))
    }

    fn key(seed: u64) -> EpochKey {
        EpochKey::make_epoch_key(&mut SeededEntropy(seed))
    }

    fn header(device: &DeviceSecrets) -> Header {
        Header {
            kind: Kind::Changes,
            space: SpaceId([1; 16]),
            stream: StreamId([2; 16]),
            author: device.id(),
            seq: Seq(2),
            prev: Hash([3; 32]),
            epoch: Epoch(1),
            roster_head: Hash([4; 32]),
            log_id: LogId([5; 16]),
            seen_pos: Position(6),
            seen_hash: Hash([7; 32]),
            salt: [8; 16],
        }
    }

    fn verified(device: &DeviceSecrets, envelope: Envelope) -> Verified<Envelope> {
        verify::check(envelope, &device.public().sig).expect("signed by this device")
    }

    /// Puts an envelope together from altered bytes and signs it: what a hostile author can do.
    fn resigned(device: &DeviceSecrets, bytes: &[u8]) -> Option<Verified<Envelope>> {
        let (header, rest) = bytes.split_first_chunk().expect("a header");
        let (commit, rest) = rest.split_first_chunk().expect("a commitment");
        let body = &rest[..rest.len() - 64];
        let envelope = Envelope::assemble(header, commit, body, |m| device.sign(m)).ok()?;
        Some(verified(device, envelope))
    }

    #[test]
    fn gcm_vector_of_mcgrew_and_viega() {
        let key = hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
        let nonce = hex("cafebabefacedbaddecaf888").try_into().expect("12 bytes");
        let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let plaintext = hex(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525\
             b16aedf5aa0de657ba637b39",
        );
        let sealed = hex(
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838\
             c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b",
        );
        let key = aes_256_gcm(&key.try_into().expect("32 bytes"));
        let opened = decrypt(&key, Nonce::assume_unique_for_key(nonce), &aad, &sealed);
        assert_eq!(opened, Ok(plaintext), "test case 16");
    }

    #[test]
    fn aes_256_gcm_cases_of_wycheproof() {
        let cases = wycheproof(include_str!("../../tests/data/wycheproof/aes_256_gcm.txt"));
        for (case, is_valid, [key, nonce, aad, plaintext, ciphertext, tag]) in &cases {
            let key = aes_256_gcm(&key.as_slice().try_into().expect("32 bytes"));
            let nonce = || Nonce::try_assume_unique_for_key(nonce).expect("12 bytes");
            let sealed = [&ciphertext[..], tag].concat();
            let expected = if *is_valid { Ok(plaintext.clone()) } else { Err(Unopened::Ciphertext) };
            assert_eq!(decrypt(&key, nonce(), aad, &sealed), expected, "{case}");
            assert_eq!(encrypt(&key, nonce(), aad, plaintext.clone()) == sealed, *is_valid, "{case}");
        }
        assert_eq!(cases.len(), 66);
    }

    #[test]
    fn padme_sizes() {
        // The paper's reference code for sizes above the floor.
        for (len, padded) in [(0, 256), (1, 256), (256, 256), (257, 272), (1000, 1024), (1024, 1024)] {
            assert_eq!(padme(len), padded, "{len}");
        }
        for (len, padded) in
            [(1025, 1088), (2004, 2048), (9999, 10_240), (65_537, 67_584), (100_000, 100_352)]
        {
            assert_eq!(padme(len), padded, "{len}");
        }
        for len in 257..300_000 {
            let padded = padme(len);
            assert!(padded >= len && padme(padded) == padded && (padded - len) * 100 <= 12 * len, "{len}");
        }
        assert!(
            padme(LENGTH_BYTES + PAYLOAD_BYTES_MAX + 1) + OVERHEAD_BYTES + TAG_BYTES > ENVELOPE_BYTES_MAX
        );
    }

    #[test]
    fn an_envelope_holds_what_it_may_and_no_more() {
        let device = device();
        let mut sizes = Vec::new();
        for len in [0, 1, 200, 2_000, 20_000, PAYLOAD_BYTES_MAX] {
            let payload = vec![9; len];
            let envelope = seal(&device, &key(1), &header(&device), &payload).expect("fits");
            sizes.push((len, envelope.as_bytes().len()));
            assert_eq!(open(&key(1), &verified(&device, envelope)), Ok(payload));
        }
        // 300 bytes of header, commitment and signature, 16 of tag, 4 of length, then padding.
        let expected = [572, 572, 572, 2_364, 20_796, 258_364];
        assert_eq!(sizes.iter().map(|(_, sealed)| *sealed).collect::<Vec<_>>(), expected, "{sizes:?}");
        let too_long = seal(&device, &key(1), &header(&device), &vec![9; PAYLOAD_BYTES_MAX + 1]);
        assert_eq!(too_long, Err(SealError::TooLong));
    }

    #[test]
    fn only_the_author_seals_and_only_sound_headers() {
        let (author, other) = (device(), DeviceSecrets::make_device(&mut SeededEntropy(100)));
        assert_eq!(seal(&other, &key(1), &header(&author), b"x"), Err(SealError::NotAuthor));
        let header = Header { seq: Seq(0), ..header(&author) };
        assert_eq!(seal(&author, &key(1), &header, b"x"), Err(SealError::Header(Malformed::Sequence)));
    }

    #[test]
    fn every_flipped_bit_is_refused_even_if_the_author_signs_it() {
        let device = device();
        let bytes = seal(&device, &key(1), &header(&device), b"payload").expect("fits").into_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let unsigned = Envelope::parse(flipped.clone()).ok();
            assert!(
                unsigned.and_then(|e| verify::check(e, &device.public().sig).ok()).is_none(),
                "bit {bit}"
            );
            if bit / 8 >= bytes.len() - 64 {
                continue; // the signature itself, which signing again makes good
            }
            let Some(envelope) = resigned(&device, &flipped) else { continue };
            let expected = match bit / 8 {
                0..236 => Unopened::Commitment,
                _ => Unopened::Ciphertext,
            };
            assert_eq!(open(&key(1), &envelope), Err(expected), "bit {bit}");
        }
    }

    #[test]
    fn another_key_stream_or_epoch_does_not_open() {
        let device = device();
        let sealed = |header: &Header| seal(&device, &key(1), header, b"payload").expect("fits");
        let envelope = sealed(&header(&device));
        assert_eq!(open(&key(2), &verified(&device, envelope.clone())), Err(Unopened::Commitment));
        let elsewhere = [
            Header { stream: StreamId([9; 16]), ..header(&device) },
            Header { space: SpaceId([9; 16]), ..header(&device) },
            Header { epoch: Epoch(2), ..header(&device) },
            Header { kind: Kind::Witness, ..header(&device) },
        ];
        for header in elsewhere {
            let pasted = Envelope::assemble(
                &header.encode(envelope.ciphertext().len() as u32),
                envelope.commit(),
                envelope.ciphertext(),
                |m| device.sign(m),
            );
            let pasted = verified(&device, pasted.expect("well formed"));
            assert_eq!(open(&key(1), &pasted), Err(Unopened::Commitment));
        }
    }

    /// Fails if the comparison in [`open`] is removed: the ciphertext is good, the commitment is not.
    #[test]
    fn a_forged_commitment_is_refused_although_the_ciphertext_opens() {
        let device = device();
        let envelope = seal(&device, &key(1), &header(&device), b"payload").expect("fits");
        for byte in 0..COMMIT_BYTES {
            let mut commit = *envelope.commit();
            commit[byte] ^= 0x80;
            let forged =
                Envelope::assemble(envelope.associated(), &commit, envelope.ciphertext(), |m| device.sign(m));
            let forged = verified(&device, forged.expect("well formed"));
            assert_eq!(open(&key(1), &forged), Err(Unopened::Commitment));
        }
    }

    #[test]
    fn padding_is_zeros_up_to_exactly_the_right_size() {
        let device = device();
        let opened = |plaintext: Vec<u8>| {
            let envelope = seal_padded(&device, &key(1), &header(&device), plaintext).expect("well formed");
            open(&key(1), &verified(&device, envelope))
        };
        let padded = |claim: u32, size: usize| {
            let mut plaintext = [&claim.to_be_bytes()[..], &[9; 7]].concat();
            plaintext.resize(size, 0);
            plaintext
        };
        assert_eq!(opened(padded(7, 256)), Ok(vec![9; 7]));
        for byte in 11..256 {
            let mut nonzero = padded(7, 256);
            nonzero[byte] = 1;
            assert_eq!(opened(nonzero), Err(Unopened::Padding), "byte {byte}");
        }
        for size in [11, 12, 255, 257, 272, 512] {
            assert_eq!(opened(padded(7, size)), Err(Unopened::Padding), "size {size}");
        }
        for claim in [6, 253, 256, u32::MAX] {
            assert_eq!(opened(padded(claim, 256)), Err(Unopened::Padding), "claim {claim}");
        }
        for size in 0..4 {
            assert_eq!(opened(vec![0; size]), Err(Unopened::Padding), "size {size}");
        }
    }

    #[test]
    fn a_salt_makes_another_ciphertext_of_the_same_payload() {
        let device = device();
        let sealed =
            |salt| seal(&device, &key(1), &Header { salt, ..header(&device) }, b"payload").expect("fits");
        let (one, two) = (sealed([1; 16]), sealed([2; 16]));
        assert_ne!(one.ciphertext(), two.ciphertext());
        assert_ne!(one.commit(), two.commit());
        assert_eq!(one, sealed([1; 16]), "and the same salt the very same bytes");
    }

    #[test]
    fn notes_open_in_their_context_only() {
        let (space, stream, epoch) = (SpaceId([1; 16]), StreamId([2; 16]), Epoch(3));
        let note = |seed| seal_note(&key(1), &space, &stream, epoch, "Symptoms", &mut SeededEntropy(seed));
        let bytes = note(1);
        assert_eq!(bytes.len(), 12 + 8 + 16);
        assert_ne!(bytes, note(2));
        assert_eq!(open_note(&key(1), &space, &stream, epoch, &bytes), Ok("Symptoms".to_owned()));
        let refused = Err(Unopened::Ciphertext);
        assert_eq!(open_note(&key(2), &space, &stream, epoch, &bytes), refused);
        assert_eq!(open_note(&key(1), &SpaceId([9; 16]), &stream, epoch, &bytes), refused);
        assert_eq!(open_note(&key(1), &space, &StreamId([9; 16]), epoch, &bytes), refused);
        assert_eq!(open_note(&key(1), &space, &stream, Epoch(4), &bytes), refused);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open_note(&key(1), &space, &stream, epoch, &flipped), refused, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(open_note(&key(1), &space, &stream, epoch, &bytes[..len]), refused, "cut to {len}");
        }
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(payload in proptest::collection::vec(any::<u8>(), 0..5_000), salt: [u8; 16], seed: u64) {
            let device = device();
            let header = Header { salt, ..header(&device) };
            let envelope = seal(&device, &key(seed), &header, &payload).expect("fits");
            prop_assert_eq!(envelope.ciphertext().len(), padme(4 + payload.len()) + TAG_BYTES);
            prop_assert_eq!(open(&key(seed), &verified(&device, envelope)), Ok(payload));
        }
    }
}
