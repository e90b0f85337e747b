//! TLS settings of both sides.
//!
//! In: our certificates and what the connection is for. Out: configurations for handshakes that prove keys and judge no
//! chain: that is done afterwards ([`crate::PeerCertificates`]), so that a peer without a proof can still be told so.
//! TLS 1.2 and 1.3 with the provider's suites; no resumption, so that each connection proves its key anew.

use std::sync::{Arc, LazyLock};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature_with_raw_key},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use rustls_pki_types::{
    CertificateDer, ServerName, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, UnixTime,
};
use webpki::RawPublicKeyEntity;

use crate::{CertificateStore, leaf};

/// With the hybrid post-quantum group first.
static POST_QUANTUM: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let mut provider = aws_lc_rs::default_provider();
    let hybrid = aws_lc_rs::kx_group::X25519MLKEM768;
    provider.kx_groups.retain(|group| group.name() != hybrid.name());
    provider.kx_groups.insert(0, hybrid);
    Arc::new(provider)
});

/// Without it: its hello does not fit one packet, which some stacks of SIP front ends do not bear.
static CLASSIC: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups.retain(|group| group.name() != aws_lc_rs::kx_group::X25519MLKEM768.name());
    Arc::new(provider)
});

/// What a listening side may choose.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerChoice<'a> {
    /// Protocols (ALPN). A client that offers others only is refused, one that offers none is taken.
    pub alpn: &'a [&'a str],
    /// Whose certificate is shown to a client that sends no SNI, such as the stream's `to`.
    pub without_sni: Option<&'a str>,
    /// Post-quantum key exchange is left out.
    pub is_classic: bool,
}

#[derive(Debug)]
struct BySni {
    store: Arc<CertificateStore>,
    without_sni: Option<String>,
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().or(self.without_sni.as_deref());
        name.and_then(|name| self.store.certificate(name)).or_else(|| self.store.default_certificate())
    }
}

/// [`server_config_for`] with these protocols and nothing else chosen.
pub fn server_config(store: &Arc<CertificateStore>, alpn: &[&str]) -> Arc<ServerConfig> {
    server_config_for(store, &ServerChoice { alpn, ..ServerChoice::default() })
}

/// The server's side: our certificate by SNI; a client certificate is asked for and not demanded.
pub fn server_config_for(store: &Arc<CertificateStore>, choice: &ServerChoice<'_>) -> Arc<ServerConfig> {
    let provider = if choice.is_classic { &*CLASSIC } else { &*POST_QUANTUM };
    let resolver = BySni { store: store.clone(), without_sni: choice.without_sni.map(str::to_owned) };
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for both versions")
        .with_client_cert_verifier(Arc::new(TakesAny(provider.clone())))
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = choice.alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// The client's side: shows `own`, takes any certificate whose key is proved. `alpn` may be empty.
pub fn client_config(own: Option<Arc<CertifiedKey>>, alpn: &[&str]) -> Arc<ClientConfig> {
    client(own, alpn, &POST_QUANTUM)
}

/// [`client_config`] without post-quantum key exchange, for SIP.
pub fn client_config_classic(own: Option<Arc<CertifiedKey>>, alpn: &[&str]) -> Arc<ClientConfig> {
    client(own, alpn, &CLASSIC)
}

fn client(
    own: Option<Arc<CertifiedKey>>,
    alpn: &[&str],
    provider: &Arc<CryptoProvider>,
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for both versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TakesAny(provider.clone())));
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(Shows(own))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl rustls::client::ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes).map(|_| self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Takes every chain, but no key that was not proved.
#[derive(Debug)]
struct TakesAny(Arc<CryptoProvider>);

impl TakesAny {
    /// The key is taken from the certificate whatever else it holds: X.509 version 1 and unknown critical extensions
    /// are no fault of the key, and dialback needs no more than that.
    fn verify12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = key_of(certificate)?;
        let key = RawPublicKeyEntity::try_from(&key).map_err(|_| UNREADABLE)?;
        let mapping = self.0.signature_verification_algorithms.mapping;
        let algorithms = mapping.iter().find(|(scheme, _)| *scheme == signature.scheme);
        let (_, algorithms) = algorithms.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        // TLS 1.2 names no curve beside the hash, so each that fits is tried (RFC 8422 §5.1.1).
        let is_valid = |algorithm: &&dyn SignatureVerificationAlgorithm| {
            key.verify_signature(*algorithm, message, signature.signature()).is_ok()
        };
        match algorithms.iter().any(is_valid) {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(Error::InvalidCertificate(CertificateError::BadSignature)),
        }
    }

    fn verify13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = key_of(certificate)?;
        let supported = &self.0.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signature, supported)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn key_of<'a>(certificate: &'a CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'a>, Error> {
    leaf::public_key_info(certificate).map(SubjectPublicKeyInfoDer::from).ok_or(UNREADABLE)
}

const UNREADABLE: Error = Error::InvalidCertificate(CertificateError::BadEncoding);

impl ServerCertVerifier for TakesAny {
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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify12(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for TakesAny {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify12(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
