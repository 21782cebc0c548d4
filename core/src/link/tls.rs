//! TLS for the link: version 1.3, raw public keys (RFC 7250) on both sides, nothing else.
//!
//! There are no certificates: the server is whoever holds one of the pinned keys, and the device is
//! whoever holds the key that its roster entry names.

use std::{fmt, sync::Arc};

use ebb_protocol::{verify::PublicKey, wire};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{self, CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    sign::CertifiedKey,
    version::TLS13,
};

use crate::keys::DeviceSecrets;

/// What stands before an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// The key with which a device authenticates its connections.
#[derive(Clone)]
pub struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// Takes the TLS key, and only it, out of a device's secrets.
    #[must_use]
    pub fn new(secrets: &DeviceSecrets) -> Self {
        let pkcs8 = secrets.tls_pkcs8();
        let key = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(&pkcs8[..]))
            .expect("a seed in its fixed frame is a key");
        let public = CertificateDer::from(spki(&secrets.public().tls));
        Self(Arc::new(CertifiedKey::new(vec![public], key)))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

/// A configuration that speaks to holders of the pinned keys only.
///
/// No tickets are kept, so there is neither resumption nor 0-RTT; no server name is sent.
pub(super) fn client_config(identity: &Identity, pins: &[PublicKey]) -> ClientConfig {
    let provider = provider();
    let verifier = PinnedServer {
        pins: pins.iter().map(spki).collect(),
        algorithms: provider.signature_verification_algorithms,
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(identity.0.clone())));
    config.alpn_protocols = vec![wire::ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config
}

/// What TLS libraries want to hear as the server's name; it is neither sent nor checked.
pub(super) const SERVER_NAME: &str = "ebb.invalid";

/// Always this provider, never the process's default: another library may have set that, or none.
/// Its first key exchange is X25519MLKEM768 (`prefer-post-quantum`).
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn spki(key: &PublicKey) -> Vec<u8> {
    [&SPKI_PREFIX[..], &key.0].concat()
}

/// The half of a verifier that is the same on both ends: TLS 1.3, signed by a raw Ed25519 key.
macro_rules! signs_with_raw_ed25519 {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            key: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let key = SubjectPublicKeyInfoDer::from(key.as_ref());
            crypto::verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

/// Accepts exactly the pinned keys, whatever name or time it is.
#[derive(Debug)]
struct PinnedServer {
    pins: Vec<Vec<u8>>,
    algorithms: crypto::WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if chain.is_empty() && self.pins.iter().any(|pin| pin[..] == key[..]) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    signs_with_raw_ed25519!();
}

#[cfg(test)]
pub(super) mod testing {
    //! The server's half, as `ebb-sync-server` has it too.
    use rustls::{
        DistinguishedName, ServerConfig,
        server::{
            AlwaysResolvesServerRawPublicKeys,
            danger::{ClientCertVerified, ClientCertVerifier},
        },
    };

    use super::*;

    pub(in crate::link) fn server_config(identity: &Identity) -> ServerConfig {
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has suites of TLS 1.3")
            .with_client_cert_verifier(Arc::new(AnyDevice { algorithms }))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(identity.0.clone())));
        config.alpn_protocols = vec![wire::ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        config
    }

    /// The peer's Ed25519 key, from what quinn's `peer_identity` or rustls' `peer_certificates` gives.
    pub(in crate::link) fn peer_key(certificates: &[CertificateDer<'_>]) -> Option<PublicKey> {
        let [spki] = certificates else { return None };
        let key = spki.strip_prefix(&SPKI_PREFIX)?;
        key.try_into().ok().map(PublicKey)
    }

    /// Takes any Ed25519 key: whether its device is known, Hello decides.
    #[derive(Debug)]
    struct AnyDevice {
        algorithms: crypto::WebPkiSupportedAlgorithms,
    }

    impl ClientCertVerifier for AnyDevice {
        fn root_hint_subjects(&self) -> &[DistinguishedName] {
            &[]
        }

        fn verify_client_cert(
            &self,
            key: &CertificateDer<'_>,
            chain: &[CertificateDer<'_>],
            _: UnixTime,
        ) -> Result<ClientCertVerified, Error> {
            let key = [CertificateDer::from(key.as_ref())];
            if chain.is_empty() && peer_key(&key).is_some() {
                return Ok(ClientCertVerified::assertion());
            }
            Err(CertificateError::ApplicationVerificationFailure.into())
        }

        signs_with_raw_ed25519!();
    }
}

#[cfg(test)]
mod tests {
    use rustls::NamedGroup;

    use super::*;
    use crate::keys::testing::SeededEntropy;

    #[test]
    fn post_quantum_comes_first_and_nothing_is_left_for_later() {
        let secrets = DeviceSecrets::make_device(&mut SeededEntropy(1));
        let config = client_config(&Identity::new(&secrets), &[]);
        let provider = config.crypto_provider();
        assert_eq!(provider.kx_groups[0].name(), NamedGroup::X25519MLKEM768);
        assert_eq!(config.alpn_protocols, [b"ebb/1"]);
        assert!(!config.enable_early_data && !config.enable_sni);
        assert_eq!(format!("{:?}", Identity::new(&secrets)), "Identity");
    }
}
