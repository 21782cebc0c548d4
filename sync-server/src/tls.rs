//! TLS as both transports use it: 1.3 only, raw public keys (RFC 7250) both ways.
//!
//! The server shows its Ed25519 key, the device shows its own; nobody signs anybody's certificate. Any
//! device key is let in: which device it is, and what it may do, is the roster's to say.

use std::sync::Arc;

use anyhow::Context;
use ebb_protocol::{verify::PublicKey, wire};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};

use crate::signing::{SigningKey, tls_provider};

/// What precedes an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// The server's side of TLS for both transports.
///
/// No tickets and no early data: resumption saves the server nothing (measured: 1,067 against 950 us of
/// CPU), and what early data carries can be replayed.
///
/// # Errors
/// If the library refuses the key or the suites, which no input can cause.
pub fn server_config(key: &SigningKey) -> anyhow::Result<ServerConfig> {
    let provider = tls_provider();
    let signer = provider.key_provider.load_private_key(key.to_pkcs8()).context("TLS key")?;
    let shown = CertificateDer::from(spki(&key.public()));
    let shown = Arc::new(CertifiedKey::new(vec![shown], signer));
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3")?
        .with_client_cert_verifier(Arc::new(AnyDevice(provider)))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(shown)));
    config.alpn_protocols = vec![wire::ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

/// An Ed25519 key as a raw public key travels in TLS.
#[must_use]
pub fn spki(key: &PublicKey) -> Vec<u8> {
    [&SPKI_PREFIX[..], &key.0].concat()
}

/// The Ed25519 key that a peer showed; `None` for anything else.
#[must_use]
pub fn peer_key(shown: &[CertificateDer<'_>]) -> Option<PublicKey> {
    let [only] = shown else { return None };
    let key = only.as_ref().strip_prefix(&SPKI_PREFIX)?;
    Some(PublicKey(key.try_into().ok()?))
}

/// Lets any device in that proves to hold the Ed25519 key it shows.
#[derive(Debug)]
struct AnyDevice(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyDevice {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match peer_key(std::slice::from_ref(end_entity)) {
            Some(_) if intermediates.is_empty() => Ok(ClientCertVerified::assertion()),
            _ => Err(Error::InvalidCertificate(CertificateError::BadEncoding)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(cert.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
