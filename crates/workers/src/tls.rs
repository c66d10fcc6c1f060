//! Encryption: TLS 1.3 with keys that live as long as a process.
//!
//! Nobody vouches for these keys, so neither side looks at the other's. What a handshake with a stranger in
//! between would give is two connections with different secrets; each side proves that it knows the pairing
//! code over a value that only the two ends of one connection have ([`binding`], RFC 9266's way), so that a
//! stranger in between has proofs of neither.

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, Error, ServerConfig, ServerConnection,
    SignatureScheme, version,
};
use std::sync::Arc;

use crate::WorkerError;

/// Bytes of [`binding`].
const BINDING_BYTES: usize = 32;

fn crypto(error: impl std::fmt::Display) -> WorkerError {
    WorkerError::Crypto(error.to_string())
}

/// What a worker serves with: a key of its own, new with each process.
///
/// # Errors
/// [`WorkerError::Crypto`].
pub(crate) fn server_config() -> Result<Arc<ServerConfig>, WorkerError> {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
    let pkcs8 = pkcs8.map_err(crypto)?;
    let key = PrivateKeyDer::try_from(pkcs8.as_ref().to_vec()).map_err(crypto)?;
    let key = provider::sign::any_supported_type(&key).map_err(crypto)?;
    let public = key.public_key().ok_or_else(|| crypto("a key without its public half"))?;
    let public = CertificateDer::from(public.as_ref().to_vec());
    let certified = Arc::new(CertifiedKey::new(vec![public], key));
    let config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(crypto)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified)));
    Ok(Arc::new(config))
}

/// What a machine connects with.
///
/// # Errors
/// [`WorkerError::Crypto`].
pub(crate) fn client_config() -> Result<Arc<ClientConfig>, WorkerError> {
    let provider = Arc::new(provider::default_provider());
    let verifier = Arc::new(AnyKey(Arc::clone(&provider)));
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(crypto)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The connecting end.
pub(crate) fn client(config: &Arc<ClientConfig>) -> Result<Connection, WorkerError> {
    let name = ServerName::try_from("worker.hypura.invalid").map_err(crypto)?;
    Ok(Connection::Client(ClientConnection::new(Arc::clone(config), name).map_err(crypto)?))
}

/// The other end.
pub(crate) fn server(config: &Arc<ServerConfig>) -> Result<Connection, WorkerError> {
    Ok(Connection::Server(ServerConnection::new(Arc::clone(config)).map_err(crypto)?))
}

/// A value that only the two ends of this connection have; known once the handshake is done.
pub(crate) fn binding(connection: &Connection) -> Result<[u8; BINDING_BYTES], WorkerError> {
    let label = b"EXPORTER-Channel-Binding";
    let empty = [0_u8; BINDING_BYTES];
    let exported = connection.export_keying_material(empty, label, Some(&[]));
    exported.map_err(crypto)
}

/// Takes any key, as long as the other side has it: who that is, is proven afterwards.
#[derive(Debug)]
struct AnyKey(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(
            message,
            &key,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
