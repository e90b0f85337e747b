//! TLS settings: our certificates by name, and the two sides' configurations.

use std::{collections::HashMap, fmt, path::Path, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    server::{
        ClientHello, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};

/// Our certificates by domain; replaced while connections go on.
#[derive(Default)]
pub struct CertificateStore {
    by_name: ArcSwap<HashMap<String, Arc<CertifiedKey>>>,
}

/// Why a certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct StoreError {
    /// The file.
    pub path: String,
    /// Why.
    pub reason: String,
}

impl fmt::Debug for CertificateStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.by_name.load().keys()).finish()
    }
}

impl CertificateStore {
    /// Takes the certificate and key of a domain from PEM files, in place of what was there.
    pub fn load(&self, domain: &str, certificate: &Path, key: &Path) -> Result<(), StoreError> {
        let fault = |path: &Path, reason: String| StoreError { path: path.display().to_string(), reason };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate)
            .map_err(|error| fault(certificate, error.to_string()))?
            .collect();
        let chain = chain.map_err(|error| fault(certificate, error.to_string()))?;
        if chain.is_empty() {
            return Err(fault(certificate, "holds no certificate".to_owned()));
        }
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| fault(key, error.to_string()))?;
        let signer =
            aws_lc_rs::sign::any_supported_type(&secret).map_err(|error| fault(key, error.to_string()))?;
        let certified = CertifiedKey::new(chain, signer);
        if let Err(error) = certified.keys_match()
            && !matches!(error, Error::InconsistentKeys(rustls::InconsistentKeys::Unknown))
        {
            return Err(fault(key, "is not the key of the certificate".to_owned()));
        }
        self.by_name.rcu(|known| {
            let mut names = HashMap::clone(known);
            names.insert(domain.to_ascii_lowercase(), Arc::new(certified.clone()));
            names
        });
        Ok(())
    }

    /// The certificate of a domain.
    pub fn certificate(&self, domain: &str) -> Option<Arc<CertifiedKey>> {
        self.by_name.load().get(&domain.to_ascii_lowercase()).cloned()
    }

    /// The one to show to who names no domain, or one that we do not have.
    fn any(&self) -> Option<Arc<CertifiedKey>> {
        let names = self.by_name.load();
        let first = names.keys().min()?.clone();
        names.get(&first).cloned()
    }
}

#[derive(Debug)]
struct BySni(Arc<CertificateStore>);

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        hello.server_name().and_then(|name| self.0.certificate(name)).or_else(|| self.0.any())
    }
}

/// The server's side: our certificate by SNI; a client certificate is asked for and not demanded. Its chain is
/// checked afterwards ([`crate::PeerCertificates`]). `alpn` may be empty.
pub fn server_config(store: &Arc<CertificateStore>, alpn: &[&str]) -> Arc<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for both versions")
        .with_client_cert_verifier(Arc::new(TakesAny(provider)))
        .with_cert_resolver(Arc::new(BySni(store.clone())));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// The client's side: shows `own`, takes any certificate whose key is proved; its chain is checked afterwards.
pub fn client_config(own: Option<Arc<CertifiedKey>>, alpn: &[&str]) -> Arc<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for both versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TakesAny(provider)));
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(Shows(own))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
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
    fn verify12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

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
