//! Keys that sign: the only file of this crate that names a cryptographic library.
//!
//! The server signs heads and births of logs, shows a TLS key, and (the operator, once) signs the list of
//! both. It can decrypt nothing and encrypts nothing but its connections, which rustls does.

use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use ebb_protocol::verify::{PublicKey, Signature};
use rustls::{
    crypto::CryptoProvider,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

/// What precedes an Ed25519 seed in a PKCS #8 document (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// An Ed25519 key pair.
#[derive(Clone)]
pub struct SigningKey {
    pair: Arc<Ed25519KeyPair>,
    seed: [u8; 32],
}

impl SigningKey {
    /// Makes a fresh key.
    ///
    /// # Panics
    /// If the operating system gives no randomness: nothing could be done safely.
    #[must_use]
    pub fn make() -> Self {
        let pair = Ed25519KeyPair::generate().expect("the operating system gives randomness");
        let seed = pair.seed().and_then(|seed| {
            use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin};
            let bytes: Curve25519SeedBin<'_> = seed.as_be_bytes()?;
            bytes.as_ref().try_into().map_err(|_| aws_lc_rs::error::Unspecified)
        });
        Self::from_seed(&seed.expect("a key that was just made has its seed"))
    }

    /// The key that follows from a seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a seed");
        Self { pair: Arc::new(pair), seed: *seed }
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.pair.public_key().as_ref().try_into().expect("Ed25519 keys have 32 bytes"))
    }

    /// Signs a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        let signature = self.pair.sign(message);
        Signature::from_bytes(signature.as_ref().try_into().expect("Ed25519 signatures have 64 bytes"))
    }

    /// The seed: secret, for the key's own file only.
    pub(crate) fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The key as TLS libraries read it: secret.
    #[must_use]
    pub fn to_pkcs8(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from([&PKCS8_PREFIX[..], &self.seed].concat()).into()
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey")
    }
}

/// The cipher suites and key exchanges of both transports, X25519MLKEM768 first.
#[must_use]
pub fn tls_provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Fresh random bytes for the id of a log: nobody can guess one that he was not told.
///
/// # Panics
/// If the operating system gives no randomness.
#[must_use]
pub fn random_id() -> [u8; 16] {
    let mut bytes = [0; 16];
    let fill = rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut bytes);
    fill.expect("the operating system gives randomness");
    bytes
}
