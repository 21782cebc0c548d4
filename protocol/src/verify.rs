//! Hashes and signature *checks*: the only file of this crate that names a cryptographic library.
//!
//! Nothing here can sign or decrypt. Signing is the business of whoever holds a key: a device's core,
//! or the server for its own heads.
//!
//! [`Verified`] is a witness: its only constructor is [`check`], so a function that takes a
//! `Verified<Envelope>` cannot be handed one whose signature nobody looked at.

use std::ops::Deref;

use aws_lc_rs::{digest, signature};
use serde::{Deserialize, Serialize};

use crate::id::{DeviceId, Hash, MemberId, SpaceId};

/// SHA-256 over the parts, one after the other.
///
/// The caller sees to it that the parts cannot be cut differently: fixed lengths, or a fixed label
/// first and one open-ended part last.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    Hash(context.finish().as_ref().try_into().expect("SHA-256 yields 32 bytes"))
}

/// The id that a device's three public keys amount to.
#[must_use]
pub fn device_id(sig: &PublicKey, tls: &PublicKey, kem: &[u8]) -> DeviceId {
    DeviceId(first_16(&sha256(&[b"ebb/v1/device", &sig.0, &tls.0, kem])))
}

/// The space that a device founds with this nonce.
///
/// A space's id commits to its founder: nobody else can write a founding entry for it, neither
/// before nor after the founder first meets a server.
#[must_use]
pub fn space_id(founder: &DeviceId, nonce: &[u8; 16]) -> SpaceId {
    SpaceId(first_16(&sha256(&[b"ebb/v1/space", &founder.0, nonce])))
}

/// The member that owns a space.
#[must_use]
pub fn owner_of(space: &SpaceId) -> MemberId {
    MemberId(first_16(&sha256(&[b"ebb/v1/owner", &space.0])))
}

/// The actor under which a device writes Automerge changes in a stream.
#[must_use]
pub fn actor_id(author: &DeviceId, stream: &crate::id::StreamId) -> [u8; 16] {
    first_16(&sha256(&[b"ebb/v1/actor", &author.0, &stream.0]))
}

fn first_16(hash: &Hash) -> [u8; 16] {
    hash.0[..16].try_into().expect("16 of 32 bytes")
}

/// An Ed25519 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

/// An Ed25519 signature (64 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature([u8; 32], [u8; 32]);

impl Signature {
    /// Wraps the 64 bytes of a signature.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let (r, s) = bytes.split_at(32);
        Self(r.try_into().expect("half of 64"), s.try_into().expect("half of 64"))
    }

    /// The 64 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.0);
        bytes[32..].copy_from_slice(&self.1);
        bytes
    }
}

/// What is signed over, and with which signature it came.
pub trait Signed {
    /// Separates this kind of statement from every other that the same key may sign.
    const DOMAIN: &'static [u8];

    /// The bytes that the signature covers.
    fn body(&self) -> &[u8];

    /// The signature that came with them.
    fn signature(&self) -> Signature;
}

/// The message that a key signs for a statement of this domain: `domain || SHA-256(body)`.
#[must_use]
pub fn signing_message(domain: &[u8], body: &[u8]) -> Vec<u8> {
    let mut message = domain.to_vec();
    message.extend_from_slice(&sha256(&[body]).0);
    message
}

/// Checks a statement's signature and hands it back as verified.
///
/// # Errors
/// [`BadSignature`] when the key did not sign exactly these bytes for this purpose.
pub fn check<T: Signed>(statement: T, key: &PublicKey) -> Result<Verified<T>, BadSignature> {
    let message = signing_message(T::DOMAIN, statement.body());
    check_bytes(&message, &statement.signature(), key).map(|()| Verified(statement))
}

fn check_bytes(message: &[u8], signature: &Signature, key: &PublicKey) -> Result<(), BadSignature> {
    signature::UnparsedPublicKey::new(&signature::ED25519, &key.0)
        .verify(message, &signature.to_bytes())
        .map_err(|_| BadSignature)
}

/// Something whose signature was checked; there is no other way to make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// Gives up the witness.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// The signature is not the named key's over these bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not belong to the named key")]
pub struct BadSignature;

#[cfg(test)]
pub(crate) mod signer {
    //! Keys that sign, for tests only: the crate itself has none.
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    pub(crate) struct Signer(Ed25519KeyPair);

    impl Signer {
        pub(crate) fn from_seed(seed: u8) -> Self {
            Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("any 32 bytes are a seed"))
        }

        pub(crate) fn public(&self) -> PublicKey {
            PublicKey(self.0.public_key().as_ref().try_into().expect("32 bytes"))
        }

        pub(crate) fn sign(&self, domain: &[u8], body: &[u8]) -> Signature {
            let signature = self.0.sign(&signing_message(domain, body));
            Signature::from_bytes(signature.as_ref().try_into().expect("64 bytes"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{signer::Signer, *};

    struct Note(Vec<u8>, Signature);
    impl Signed for Note {
        const DOMAIN: &'static [u8] = b"ebb/v1/test\0";
        fn body(&self) -> &[u8] {
            &self.0
        }
        fn signature(&self) -> Signature {
            self.1
        }
    }

    #[test]
    fn only_the_right_key_over_the_right_bytes_for_the_right_purpose_verifies() {
        let (right, wrong) = (Signer::from_seed(1), Signer::from_seed(2));
        let signature = right.sign(Note::DOMAIN, b"body");
        assert!(check(Note(b"body".to_vec(), signature), &right.public()).is_ok());
        assert!(check(Note(b"body".to_vec(), signature), &wrong.public()).is_err());
        assert!(check(Note(b"bodi".to_vec(), signature), &right.public()).is_err());
        let elsewhere = right.sign(b"ebb/v1/other\0", b"body");
        assert!(check(Note(b"body".to_vec(), elsewhere), &right.public()).is_err());
    }

    /// Malleable signatures and keys off the curve are among the invalid ones; none of these cases is
    /// merely acceptable. Signatures that are not 64 bytes long are no [`Signature`] to begin with.
    #[test]
    fn ed25519_cases_of_wycheproof() {
        let bytes = |digits: &str| -> Vec<u8> {
            let pairs = digits.trim_matches('-').as_bytes().chunks(2).map(|pair| str::from_utf8(pair));
            pairs.map(|pair| u8::from_str_radix(pair.expect("ASCII"), 16).expect("hexadecimal")).collect()
        };
        let mut judged = [0, 0];
        for case in include_str!("../../tests/data/wycheproof/ed25519.txt").lines() {
            let fields: Vec<_> = case.split(' ').collect();
            let [number, result, key, message, signature] = fields[..] else { panic!("{case}") };
            let key = PublicKey(bytes(key).try_into().expect("32 bytes"));
            let signature = Signature::from_bytes(&bytes(signature).try_into().expect("64 bytes"));
            let holds = check_bytes(&bytes(message), &signature, &key).is_ok();
            assert_eq!(holds, result == "valid", "case {number} is {result}");
            judged[usize::from(holds)] += 1;
        }
        assert_eq!(judged, [51, 88]);
    }
}
