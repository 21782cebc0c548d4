//! Keys: what a device is made of, what a stream is sealed with, and how the latter travels.
//!
//! A function whose name starts with `make_` draws random bytes and never gives the same twice; one
//! that starts with `derive_` gives the same for the same arguments. Randomness is an argument
//! ([`Entropy`]), but for HPKE's, which draws its own.
//!
//! Secrets are wiped when dropped and print their type's name only. They leave this module as bytes
//! in two ways: `to_bytes`, for the encrypted database, and wrapped.

use std::fmt;

use aws_lc_rs::{agreement, hkdf, rand, signature::Ed25519KeyPair, signature::KeyPair};
use ebb_protocol::{
    envelope::SUITE,
    id::{DeviceId, Epoch, Hash, SpaceId, StreamId},
    roster::{DeviceKeys, KEM_KEY_BYTES, KemKey, Recipient},
    verify::{self, PublicKey, Signature},
};
use rustls::crypto::{
    aws_lc_rs::hpke::DH_KEM_P256_HKDF_SHA256_AES_256,
    hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey},
};
use zeroize::Zeroizing;

/// The version of [`DeviceSecrets::to_bytes`] and [`KemSecret::to_bytes`].
pub const VERSION: u8 = 1;

const SEED_BYTES: usize = 32;
const EPOCH_KEY_BYTES: usize = 32;
const DEVICE_BYTES: usize = 1 + 3 * SEED_BYTES;
/// A random scalar is out of P-256's range once in 2^32 times; so many in a row are a broken source.
const SCALAR_TRIES_MAX: usize = 8;

/// Where random bytes come from: the operating system, or a seed in a simulation.
pub trait Entropy: Send {
    /// Fills the whole slice.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// The operating system's random source.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&mut self, bytes: &mut [u8]) {
        rand::fill(bytes).expect("the operating system gives random bytes or stops the process");
    }
}

/// The three secret keys of one device: to sign, to authenticate connections, to receive keys.
pub struct DeviceSecrets {
    sig: SigningSecret,
    tls: SigningSecret,
    kem: KemSecret,
    public: DeviceKeys,
    id: DeviceId,
}

impl DeviceSecrets {
    /// Makes the keys of a new device.
    #[must_use]
    pub fn make_device(entropy: &mut dyn Entropy) -> Self {
        let sig = SigningSecret::make(entropy);
        let tls = SigningSecret::make(entropy);
        Self::new(sig, tls, KemSecret::make_kem(entropy))
    }

    /// The keys as bytes, to be kept inside the encrypted database and nowhere else.
    ///
    /// Version, signing seed, TLS seed, P-256 scalar: 97 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(DEVICE_BYTES));
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.sig.seed[..]);
        bytes.extend_from_slice(&self.tls.seed[..]);
        bytes.extend_from_slice(&self.kem.scalar[..]);
        bytes
    }

    /// Reads the keys back from [`Self::to_bytes`].
    ///
    /// # Errors
    /// [`KeyError::Undecodable`] for a later version or damage.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let [VERSION, rest @ ..] = bytes else { return Err(KeyError::Undecodable) };
        let (seeds, []) = rest.as_chunks::<SEED_BYTES>() else { return Err(KeyError::Undecodable) };
        let [sig, tls, kem] = seeds else { return Err(KeyError::Undecodable) };
        let (sig, tls) = (Zeroizing::new(*sig), Zeroizing::new(*tls));
        let kem = KemSecret::from_scalar(Zeroizing::new(*kem))?;
        Ok(Self::new(SigningSecret::from_seed(sig), SigningSecret::from_seed(tls), kem))
    }

    /// The public halves, as a roster names them.
    #[must_use]
    pub fn public(&self) -> &DeviceKeys {
        &self.public
    }

    /// The device's id, which follows from its public keys.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// Signs a message; the closure form of `ebb_protocol` takes it as `|m| secrets.sign(m)`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        let signature = self.sig.pair.sign(message);
        Signature::from_bytes(signature.as_ref().try_into().expect("Ed25519 signatures have 64 bytes"))
    }

    /// The key to which stream keys are wrapped for this device.
    #[must_use]
    pub fn kem(&self) -> &KemSecret {
        &self.kem
    }

    /// The key that authenticates connections, as PKCS#8 for the TLS library.
    pub(crate) fn tls_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        // RFC 8410, section 7: version 0, algorithm 1.3.101.112, the seed in two octet strings.
        const PREFIX: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
        let mut der = Zeroizing::new(Vec::with_capacity(PREFIX.len() + SEED_BYTES));
        der.extend_from_slice(&PREFIX);
        der.extend_from_slice(&self.tls.seed[..]);
        der
    }

    fn new(sig: SigningSecret, tls: SigningSecret, kem: KemSecret) -> Self {
        let public = DeviceKeys { sig: sig.public(), tls: tls.public(), kem: kem.public().clone() };
        let id = public.id();
        Self { sig, tls, kem, public, id }
    }
}

/// A P-256 secret to which stream keys are wrapped: a device's own, or a whole member's.
pub struct KemSecret {
    scalar: Zeroizing<[u8; SEED_BYTES]>,
    public: KemKey,
}

impl KemSecret {
    /// Makes a new key.
    ///
    /// # Panics
    /// If the entropy is none: eight scalars in a row that are out of range.
    #[must_use]
    pub fn make_kem(entropy: &mut dyn Entropy) -> Self {
        // Rejection sampling, as RFC 9180's DeriveKeyPair for P-256: uniform over the valid scalars.
        (0..SCALAR_TRIES_MAX)
            .find_map(|_| Self::from_scalar(make_seed(entropy)).ok())
            .expect("random scalars are in range but once in 2^32 times")
    }

    /// The key as bytes (version and scalar, 33 bytes), to be kept inside the encrypted database.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(1 + SEED_BYTES));
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.scalar[..]);
        bytes
    }

    /// Reads the key back from [`Self::to_bytes`].
    ///
    /// # Errors
    /// [`KeyError::Undecodable`] for a later version or damage.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let [VERSION, scalar @ ..] = bytes else { return Err(KeyError::Undecodable) };
        let scalar = scalar.try_into().map_err(|_| KeyError::Undecodable)?;
        Self::from_scalar(Zeroizing::new(scalar))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &KemKey {
        &self.public
    }

    fn from_scalar(scalar: Zeroizing<[u8; SEED_BYTES]>) -> Result<Self, KeyError> {
        let key = agreement::PrivateKey::from_private_key(&agreement::ECDH_P256, &scalar[..])
            .map_err(|_| KeyError::Undecodable)?;
        let public = key.compute_public_key().map_err(|_| KeyError::Undecodable)?;
        Ok(Self { scalar, public: KemKey(public.as_ref().to_vec()) })
    }
}

/// The key of one epoch of one stream: 32 random bytes made by an owner's device.
#[derive(Clone)]
pub struct EpochKey(Zeroizing<[u8; EPOCH_KEY_BYTES]>);

impl EpochKey {
    /// Makes the key of a new epoch.
    #[must_use]
    pub fn make_epoch_key(entropy: &mut dyn Entropy) -> Self {
        Self(make_seed(entropy))
    }

    /// Takes a key back out of the encrypted database.
    ///
    /// # Errors
    /// [`KeyError::Undecodable`] unless there are exactly 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        bytes.try_into().map(|key| Self(Zeroizing::new(key))).map_err(|_| KeyError::Undecodable)
    }

    /// The 32 bytes, to be kept inside the encrypted database and nowhere else.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; EPOCH_KEY_BYTES]> {
        self.0.clone()
    }

    /// The value by which a roster names this key without giving it away: everybody who was handed
    /// the same key derives the same.
    #[must_use]
    pub fn derive_key_check(&self, space: &SpaceId, stream: &StreamId, epoch: Epoch) -> Hash {
        let epoch = epoch.0.to_be_bytes();
        Hash(*self.derive_bytes(&[], &[b"ebb/v1/ekcheck", &space.0, &stream.0, &epoch]))
    }

    /// HKDF-SHA-256 of this key. The parts of `info` are joined as they are.
    pub(crate) fn derive_bytes<const N: usize>(&self, salt: &[u8], info: &[&[u8]]) -> Zeroizing<[u8; N]> {
        hkdf_sha256(&self.0[..], salt, info)
    }
}

/// What a wrapped key is bound to: it opens for no other stream, epoch, recipient or place in a roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrapContext {
    /// The space.
    pub space: SpaceId,
    /// The stream whose key is wrapped.
    pub stream: StreamId,
    /// The epoch of that key.
    pub epoch: Epoch,
    /// Whom it is for.
    pub recipient: Recipient,
    /// The hash of the roster entry before the one that hands the key out; zero before the first.
    pub prev_entry: Hash,
}

impl WrapContext {
    fn info(&self, kem: &KemKey) -> Vec<u8> {
        let mut info = b"ebb/v1/wrap".to_vec();
        info.push(SUITE);
        info.extend_from_slice(&self.space.0);
        info.extend_from_slice(&self.stream.0);
        info.extend_from_slice(&self.epoch.0.to_be_bytes());
        info.extend_from_slice(self.recipient.as_bytes());
        info.extend_from_slice(&verify::sha256(&[&kem.0]).0);
        info
    }
}

/// Wraps a stream's key to a recipient's public key: HPKE, base mode, one shot;
/// [`WRAP_BYTES`](ebb_protocol::roster::WRAP_BYTES) long.
///
/// The bytes differ each time, so nothing may depend on them but their own hash.
///
/// # Errors
/// [`KeyError::BadRecipient`] if the public key is no point of P-256: a roster may say anything.
pub fn wrap(key: &EpochKey, kem: &KemKey, context: &WrapContext) -> Result<Vec<u8>, KeyError> {
    // The same key compressed would give another hash and so another context: one form only.
    if kem.0.len() != KEM_KEY_BYTES {
        return Err(KeyError::BadRecipient);
    }
    let (info, to) = (context.info(kem), HpkePublicKey(kem.0.clone()));
    let (EncapsulatedSecret(mut bytes), sealed) = DH_KEM_P256_HKDF_SHA256_AES_256
        .seal(&info, &context.prev_entry.0, &key.0[..], &to)
        .map_err(|_| KeyError::BadRecipient)?;
    bytes.extend_from_slice(&sealed);
    Ok(bytes)
}

/// Opens a wrapped key. The caller compares its [`EpochKey::derive_key_check`] with the roster's.
///
/// # Errors
/// [`KeyError::Unopened`] if it was made for another key or context, or is damaged.
pub fn unwrap(wrapped: &[u8], kem: &KemSecret, context: &WrapContext) -> Result<EpochKey, KeyError> {
    let info = context.info(&kem.public);
    let key = hpke_open(DH_KEM_P256_HKDF_SHA256_AES_256, wrapped, &info, &context.prev_entry.0, kem)?;
    EpochKey::from_bytes(&key).map_err(|_| KeyError::Unopened)
}

/// What is wrong with a key, or with the bytes of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Bytes of a later version, or damaged: update, or restore.
    #[error("the stored key is of no version known here, or damaged")]
    Undecodable,
    /// The recipient's public key is none: refuse the member or device that brought it.
    #[error("the recipient's public key is not a valid one")]
    BadRecipient,
    /// Wrapped for another recipient, stream, epoch or roster entry, or damaged: do not use it.
    #[error("the wrapped key does not open")]
    Unopened,
}

macro_rules! opaque {
    ($($secret:ident),*) => {$(
        impl fmt::Debug for $secret {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($secret))
            }
        }
    )*};
}
opaque!(DeviceSecrets, KemSecret, EpochKey);

struct SigningSecret {
    seed: Zeroizing<[u8; SEED_BYTES]>,
    pair: Ed25519KeyPair,
}

impl SigningSecret {
    fn make(entropy: &mut dyn Entropy) -> Self {
        Self::from_seed(make_seed(entropy))
    }

    fn from_seed(seed: Zeroizing<[u8; SEED_BYTES]>) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed[..]).expect("any 32 bytes are a seed");
        Self { seed, pair }
    }

    fn public(&self) -> PublicKey {
        PublicKey(self.pair.public_key().as_ref().try_into().expect("Ed25519 keys have 32 bytes"))
    }
}

fn make_seed(entropy: &mut dyn Entropy) -> Zeroizing<[u8; SEED_BYTES]> {
    let mut seed = Zeroizing::new([0; SEED_BYTES]);
    entropy.fill(&mut seed[..]);
    seed
}

fn hpke_open(
    hpke: &dyn Hpke,
    wrapped: &[u8],
    info: &[u8],
    aad: &[u8],
    kem: &KemSecret,
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let (enc, sealed) = wrapped.split_at_checked(KEM_KEY_BYTES).ok_or(KeyError::Unopened)?;
    let secret = HpkePrivateKey::from(kem.scalar.to_vec());
    hpke.open(&EncapsulatedSecret(enc.to_vec()), info, aad, sealed, &secret)
        .map(Zeroizing::new)
        .map_err(|_| KeyError::Unopened)
}

/// A value by which a database's key is recognised before the database is touched; it gives nothing of
/// the key away.
pub(crate) fn derive_database_key_check(key: &[u8; 32]) -> [u8; 32] {
    *hkdf_sha256(key, &[], &[b"ebb/v1/dbcheck"])
}

fn hkdf_sha256<const N: usize>(secret: &[u8], salt: &[u8], info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut out = Zeroizing::new([0; N]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(secret)
        .expand(info, Length(N))
        .and_then(|okm| okm.fill(&mut out[..]))
        .expect("every output asked for is far below 255 hashes");
    out
}

#[cfg(test)]
pub(crate) mod testing {
    //! Randomness that repeats, for tests of this crate.
    use super::Entropy;

    /// Counts up from a seed, hashed: the same every time.
    pub(crate) struct SeededEntropy(pub(crate) u64);

    impl Entropy for SeededEntropy {
        fn fill(&mut self, bytes: &mut [u8]) {
            for chunk in bytes.chunks_mut(32) {
                let block = ebb_protocol::verify::sha256(&[b"test entropy", &self.0.to_be_bytes()]);
                chunk.copy_from_slice(&block.0[..chunk.len()]);
                self.0 += 1;
            }
        }
    }

    /// Wycheproof's cases, as `tests/data/wycheproof` has them: name, whether valid, values.
    pub(crate) fn wycheproof<const N: usize>(lines: &str) -> Vec<(String, bool, [Vec<u8>; N])> {
        let case = |line: &str| {
            let fields: Vec<_> = line.split(' ').collect();
            let [number, result, ref values @ ..] = fields[..] else { panic!("{line}") };
            let values: Vec<_> = values.iter().map(|value| hex(value.trim_matches('-'))).collect();
            (format!("{number} {result}"), result == "valid", values.try_into().expect("so many values"))
        };
        lines.lines().map(case).collect()
    }

    /// Bytes from hexadecimal digits.
    pub(crate) fn hex(digits: &str) -> Vec<u8> {
        let nibbles: Vec<u8> = digits.chars().map(|c| c.to_digit(16).expect("hexadecimal") as u8).collect();
        nibbles.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{aead, hmac};
    use ebb_protocol::{id::MemberId, verify::Signed};
    use rustls::crypto::aws_lc_rs::hpke::DH_KEM_P256_HKDF_SHA256_AES_128;

    use super::{
        testing::{SeededEntropy, hex, wycheproof},
        *,
    };

    fn context() -> WrapContext {
        WrapContext {
            space: SpaceId([1; 16]),
            stream: StreamId([2; 16]),
            epoch: Epoch(3),
            recipient: Recipient::Device(DeviceId([4; 16])),
            prev_entry: Hash([5; 32]),
        }
    }

    #[test]
    fn rfc_5869_vectors() {
        let okm: Zeroizing<[u8; 42]> = hkdf_sha256(
            &[0x0b; 22],
            &hex("000102030405060708090a0b0c"),
            &[&hex("f0f1f2f3f4"), &hex("f5f6f7f8f9")],
        );
        let expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865";
        assert_eq!(okm.to_vec(), hex(expected), "test case 1");
        let bytes = |from: u8, to: u8| (from..=to).collect::<Vec<_>>();
        let okm: Zeroizing<[u8; 82]> =
            hkdf_sha256(&bytes(0, 0x4f), &bytes(0x60, 0xaf), &[&bytes(0xb0, 0xff)]);
        let expected = "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09\
                        da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87";
        assert_eq!(okm.to_vec(), hex(expected), "test case 2");
        let okm: Zeroizing<[u8; 42]> = hkdf_sha256(&[0x0b; 22], &[], &[]);
        let expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8";
        assert_eq!(okm.to_vec(), hex(expected), "test case 3");
    }

    #[test]
    fn hkdf_cases_of_wycheproof() {
        let cases = wycheproof(include_str!("../../tests/data/wycheproof/hkdf_sha256.txt"));
        for (case, is_valid, [secret, salt, info, expected]) in &cases {
            // What is shorter begins what is longer.
            let okm: Zeroizing<[u8; 128]> = hkdf_sha256(secret, salt, &[info]);
            assert_eq!(okm.starts_with(expected), *is_valid, "{case}");
        }
        assert_eq!(cases.len(), 80);
    }

    #[test]
    fn rfc_8032_vectors() {
        let cases = [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                "",
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b\
                 d25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                "af82",
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659\
                 4a7c15e9716ed28dc027beceea1ec40a",
            ),
        ];
        for (seed, public, message, signature) in cases {
            let bytes = [&[VERSION][..], &hex(seed), &[7; 32], &[8; 32]].concat();
            let device = DeviceSecrets::from_bytes(&bytes).expect("a device of one seed");
            assert_eq!(device.public().sig.0.to_vec(), hex(public));
            assert_eq!(device.sign(&hex(message)).to_bytes().to_vec(), hex(signature));
        }
    }

    /// RFC 9180 has no vector of our suite; the CFRG's file that its appendix was taken from has.
    #[test]
    fn hpke_vectors_of_rfc_9180_and_of_the_cfrg_open() {
        let cases: [(&dyn Hpke, _, _, _, _); 2] = [
            (
                DH_KEM_P256_HKDF_SHA256_AES_128, // appendix A.3.1, sequence 0
                "f3ce7fdae57e1a310d87f1ebbde6f328be0a99cdbcadf4d6589cf29de4b8ffd2",
                "04fe8c19ce0905191ebc298a9245792531f26f0cece2460639e8bc39cb7f706a826a779b4cf969b8a0e539c7f62fb3d3\
                 0ad6aa8f80e30f1d128aafd68a2ce72ea0",
                "04a92719c6195d5085104f469a8b9814d5838ff72b60501e2c4466e5e67b325ac98536d7b61a1af4b78e5b7f951c0900\
                 be863c403ce65c9bfcb9382657222d18c4",
                "5ad590bb8baa577f8619db35a36311226a896e7342a6d836d8b7bcd2f20b6c7f9076ac232e3ab2523f39513434",
            ),
            (
                DH_KEM_P256_HKDF_SHA256_AES_256, // test-vectors.json of draft-irtf-cfrg-hpke, mode 0
                "317f915db7bc629c48fe765587897e01e282d3e8445f79f27f65d031a88082b2",
                "04abc7e49a4c6b3566d77d0304addc6ed0e98512ffccf505e6a8e3eb25c685136f853148544876de76c0f2ef99cdc3a0\
                 5ccf5ded7860c7c021238f9e2073d2356c",
                "04c06b4f6bebc7bb495cb797ab753f911aff80aefb86fd8b6fcc35525f3ab5f03e0b21bd31a86c6048af3cb2d98e0d3b\
                 f01da5cc4c39ff5370d331a4f1f7d5a4e0",
                "58c61a45059d0c5704560e9d88b564a8b63f1364b8d1fcb3c4c6ddc1d291742465e902cd216f8908da49f8f96f",
            ),
        ];
        for (hpke, secret, public, enc, sealed) in cases {
            let secret = KemSecret::from_bytes(&[&[VERSION][..], &hex(secret)].concat()).expect("a scalar");
            assert_eq!(secret.public().0, hex(public));
            let wrapped = [hex(enc), hex(sealed)].concat();
            let opened = hpke_open(hpke, &wrapped, b"Ode on a Grecian Urn", b"Count-0", &secret);
            assert_eq!(opened.expect("opens").as_slice(), b"Beauty is truth, truth beauty");
            assert!(hpke_open(hpke, &wrapped, b"Ode on a Grecian Urn", b"Count-1", &secret).is_err());
        }
    }

    /// What RFC 9180 (sections 4.1, 5.1 and 5.2) seals under a known result of Diffie-Hellman: base mode,
    /// KEM 0x10, KDF 1, AEAD 2.
    fn hpke_sealed(dh: &[u8], enc: &[u8], to: &[u8], info: &[u8], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mac = |key: &[u8], parts: &[&[u8]]| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &parts.concat()).as_ref().to_vec()
        };
        let (kem, suite): (&[u8], &[u8]) = (b"KEM\0\x10", b"HPKE\0\x10\0\x01\0\x02");
        let extract =
            |suite: &[u8], salt: &[u8], label: &[u8], ikm: &[u8]| mac(salt, &[b"HPKE-v1", suite, label, ikm]);
        let expand = |suite: &[u8], prk: &[u8], label: &[u8], context: &[u8], len: u8| {
            let mut okm = mac(prk, &[&[0, len], b"HPKE-v1", suite, label, context, &[1]]);
            okm.truncate(usize::from(len));
            okm
        };
        let prk = extract(kem, &[], b"eae_prk", dh);
        let shared = expand(kem, &prk, b"shared_secret", &[enc, to].concat(), 32);
        let (psk, info) = (extract(suite, &[], b"psk_id_hash", &[]), extract(suite, &[], b"info_hash", info));
        let context = [&[0], &psk[..], &info].concat();
        let secret = extract(suite, &shared, b"secret", &[]);
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, &expand(suite, &secret, b"key", &context, 32));
        let nonce = expand(suite, &secret, b"base_nonce", &context, 12);
        let nonce = aead::Nonce::try_assume_unique_for_key(&nonce).expect("12 bytes");
        let mut sealed = plaintext.to_vec();
        aead::LessSafeKey::new(key.expect("32 bytes"))
            .seal_in_place_append_tag(nonce, aead::Aad::from(aad), &mut sealed)
            .expect("short");
        sealed
    }

    /// Wycheproof has no cases of HPKE, but of what is below it: each becomes a wrap whose opening needs
    /// exactly that Diffie-Hellman result. Points off the curve or of another curve and bad encodings are
    /// refused on either side; so is the one "acceptable" case, a compressed point.
    #[test]
    fn ecdh_cases_of_wycheproof() {
        let (context, key) = (context(), EpochKey::make_epoch_key(&mut SeededEntropy(1)));
        let cases = wycheproof(include_str!("../../tests/data/wycheproof/ecdh_p256.txt"));
        for (case, is_valid, [public, private, dh]) in &cases {
            let mut scalar = [0; 32];
            let digits = private.strip_prefix(&[0]).unwrap_or(private);
            scalar[32 - digits.len()..].copy_from_slice(digits);
            let kem = KemSecret::from_scalar(Zeroizing::new(scalar)).expect("in range");
            let (info, aad, plain) = (context.info(&kem.public), context.prev_entry.0, key.to_bytes());
            let sealed = hpke_sealed(dh, public, &kem.public.0, &info, &aad, &plain[..]);
            let opened = unwrap(&[&public[..], &sealed].concat(), &kem, &context);
            let wrapped = wrap(&key, &KemKey(public.clone()), &context);
            if *is_valid {
                assert_eq!(opened.expect(case).to_bytes(), plain, "{case}");
                assert!(wrapped.is_ok(), "{case}");
            } else {
                assert_eq!(opened.err(), Some(KeyError::Unopened), "{case}");
                assert_eq!(wrapped, Err(KeyError::BadRecipient), "{case}");
            }
        }
        assert_eq!(cases.len(), 355);
    }

    #[test]
    fn a_device_survives_its_bytes_and_no_others() {
        let device = DeviceSecrets::make_device(&mut SeededEntropy(1));
        let bytes = device.to_bytes();
        let again = DeviceSecrets::from_bytes(&bytes).expect("its own bytes");
        assert_eq!((again.public(), again.id()), (device.public(), device.id()));
        assert_eq!(again.sign(b"message"), device.sign(b"message"));
        assert_eq!(device.public().kem.0.len(), KEM_KEY_BYTES);

        let undecodable =
            |bytes: &[u8]| DeviceSecrets::from_bytes(bytes).err() == Some(KeyError::Undecodable);
        assert!(undecodable(&[]) && undecodable(&bytes[..96]) && undecodable(&[&bytes[..], &[0]].concat()));
        assert!(undecodable(&[&[2], &bytes[1..]].concat()), "a later version");
        assert!(undecodable(&[&bytes[..65], &[0; 32]].concat()), "zero is no scalar");
        assert!(undecodable(&[&bytes[..65], &[0xff; 32]].concat()), "beyond the order");
    }

    #[test]
    fn seeds_repeat_and_the_system_does_not() {
        let device = |seed| DeviceSecrets::make_device(&mut SeededEntropy(seed)).id();
        assert_eq!(device(1), device(1));
        assert_ne!(device(1), device(2));
        let system = || DeviceSecrets::make_device(&mut OsEntropy).id();
        assert_ne!(system(), system());
    }

    #[test]
    fn a_signature_passes_the_protocols_check() {
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
        let device = DeviceSecrets::make_device(&mut SeededEntropy(1));
        let signature = device.sign(&verify::signing_message(Note::DOMAIN, b"body"));
        let note = |body: &[u8]| Note(body.to_vec(), signature);
        assert!(verify::check(note(b"body"), &device.public().sig).is_ok());
        assert!(verify::check(note(b"bodi"), &device.public().sig).is_err());
        assert!(verify::check(note(b"body"), &device.public().tls).is_err());
    }

    #[test]
    fn a_wrap_opens_for_its_recipient_in_its_context_only() {
        let (kem, other) =
            (KemSecret::make_kem(&mut SeededEntropy(1)), KemSecret::make_kem(&mut SeededEntropy(100)));
        let key = EpochKey::make_epoch_key(&mut SeededEntropy(200));
        let wrapped = wrap(&key, kem.public(), &context()).expect("a valid recipient");
        assert_eq!(wrapped.len(), ebb_protocol::roster::WRAP_BYTES);
        assert_eq!(unwrap(&wrapped, &kem, &context()).expect("its own").to_bytes(), key.to_bytes());
        assert_ne!(
            wrap(&key, kem.public(), &context()),
            Ok(wrapped.clone()),
            "HPKE draws its own randomness"
        );

        let refused = |bytes: &[u8], kem: &KemSecret, context: &WrapContext| {
            unwrap(bytes, kem, context).err() == Some(KeyError::Unopened)
        };
        assert!(refused(&wrapped, &other, &context()));
        let mut contexts = [context(); 5];
        contexts[0].space = SpaceId([9; 16]);
        contexts[1].stream = StreamId([9; 16]);
        contexts[2].epoch = Epoch(9);
        contexts[3].recipient = Recipient::Member(MemberId([9; 16]));
        contexts[4].prev_entry = Hash([9; 32]);
        assert!(contexts.iter().all(|context| refused(&wrapped, &kem, context)));
        for bit in 0..wrapped.len() * 8 {
            let mut flipped = wrapped.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(refused(&flipped, &kem, &context()), "bit {bit}");
        }
        for len in 0..wrapped.len() {
            assert!(refused(&wrapped[..len], &kem, &context()), "cut to {len}");
        }
    }

    #[test]
    fn nothing_is_wrapped_to_what_is_no_point() {
        let key = EpochKey::make_epoch_key(&mut SeededEntropy(1));
        let mut off_curve = KemSecret::make_kem(&mut SeededEntropy(2)).public().clone();
        off_curve.0[64] ^= 1;
        let infinity = KemKey(vec![0]);
        let compressed = KemKey([&[2], &off_curve.0[1..33]].concat());
        for kem in [off_curve, infinity, compressed, KemKey(Vec::new()), KemKey(vec![4; 65])] {
            assert_eq!(wrap(&key, &kem, &context()), Err(KeyError::BadRecipient));
        }
    }

    #[test]
    fn the_key_check_names_key_space_stream_and_epoch() {
        let key = |seed| EpochKey::make_epoch_key(&mut SeededEntropy(seed));
        let (space, stream) = (SpaceId([1; 16]), StreamId([2; 16]));
        let check = key(1).derive_key_check(&space, &stream, Epoch(1));
        assert_eq!(check, key(1).derive_key_check(&space, &stream, Epoch(1)));
        assert_ne!(check, key(2).derive_key_check(&space, &stream, Epoch(1)));
        assert_ne!(check, key(1).derive_key_check(&SpaceId([2; 16]), &stream, Epoch(1)));
        assert_ne!(check, key(1).derive_key_check(&space, &StreamId([1; 16]), Epoch(1)));
        assert_ne!(check, key(1).derive_key_check(&space, &stream, Epoch(2)));
    }

    #[test]
    fn secrets_print_their_names_only() {
        let device = DeviceSecrets::make_device(&mut SeededEntropy(1));
        let key = EpochKey::make_epoch_key(&mut SeededEntropy(2));
        assert_eq!(format!("{device:?} {:?} {key:?}", device.kem()), "DeviceSecrets KemSecret EpochKey");
    }
}
