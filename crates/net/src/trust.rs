//! Whom we trust, and what a peer's certificates prove.
//!
//! In: anchors, the chain of a finished handshake, the time. Out: a verdict. The chain is checked after the handshake,
//! so that a peer without a proof can still be told so, or prove itself in another way. Revocation is not looked at.

use std::{
    collections::HashSet,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore,
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::{
    CertificateNames,
    certificate_fault::{CertificateFault, explain},
    certificate_file::read_certificates,
    leaf::{self, OutOfDate},
};

/// The anchors that chains must end at. Clones share them, and what [`Trust::reload`] brings.
#[derive(Clone)]
pub struct Trust {
    anchors: Arc<Anchors>,
}

struct Anchors {
    read: ArcSwap<Read>,
    /// Where they were read; nothing for nobody.
    path: Option<PathBuf>,
    /// What administrators call it: the setting, and the file.
    name: String,
}

/// What a file of trusted certificates holds.
struct Read {
    roots: RootCertStore,
    /// The certificates themselves: each proves itself, whether or not it may issue others.
    certificates: HashSet<CertificateDer<'static>>,
}

/// Why anchors cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read, or holds no PEM certificate.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
}

impl fmt::Debug for Trust {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Trust({} anchors)", self.anchors.read.load().roots.len())
    }
}

impl Trust {
    /// Nobody.
    pub fn nobody() -> Self {
        let read = Read { roots: RootCertStore::empty(), certificates: HashSet::new() };
        Self::with(read, None, "nothing".to_owned())
    }

    /// The system's anchors, from the first of the places where systems keep them in one file.
    ///
    /// # Errors
    /// When there is no such file, told of the first place.
    pub fn system() -> Result<Self, TrustError> {
        let found = SYSTEM_FILES.iter().map(Path::new).find(|path| path.exists());
        let path = found.unwrap_or(Path::new(SYSTEM_FILES[0]));
        let name = format!("the system's authorities ({})", path.display());
        Ok(Self::with(read(path)?, Some(path.to_owned()), name))
    }

    /// All certificates of a PEM file.
    pub fn from_pem_file(path: &Path) -> Result<Self, TrustError> {
        Ok(Self::with(read(path)?, Some(path.to_owned()), path.display().to_string()))
    }

    /// As operators know it, for the texts of faults: `xmpp.trust (ca.pem)`.
    #[must_use]
    pub fn called(self, setting: &str) -> Self {
        let name = format!("{setting} ({})", self.anchors.name);
        let read = ArcSwap::new(self.anchors.read.load_full());
        Self { anchors: Arc::new(Anchors { read, path: self.anchors.path.clone(), name }) }
    }

    /// Reads the file again; verdicts from now on are by what is new.
    ///
    /// # Errors
    /// When it cannot be read; then what was there stays.
    pub fn reload(&self) -> Result<(), TrustError> {
        if let Some(path) = &self.anchors.path {
            self.anchors.read.store(Arc::new(read(path)?));
        }
        Ok(())
    }

    fn with(read: Read, path: Option<PathBuf>, name: String) -> Self {
        Self { anchors: Arc::new(Anchors { read: ArcSwap::from_pointee(read), path, name }) }
    }
}

fn read(path: &Path) -> Result<Read, TrustError> {
    let fault = |reason: String| TrustError::File { path: path.display().to_string(), reason };
    let mut read = Read { roots: RootCertStore::empty(), certificates: HashSet::new() };
    for certificate in read_certificates(path).map_err(|file_fault| fault(file_fault.text()))? {
        // An anchor that cannot be used is of no harm to the others.
        let _ = read.roots.add(certificate.clone());
        read.certificates.insert(certificate);
    }
    if read.roots.is_empty() {
        return Err(fault("holds no certificate that can be an anchor".to_owned()));
    }
    Ok(read)
}

/// What a peer did in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It was the TLS client.
    Client,
    /// It was the TLS server.
    Server,
}

/// The chain that a peer showed; its key was proved in the handshake.
#[derive(Debug, Clone, Default)]
pub struct PeerCertificates {
    chain: Arc<[CertificateDer<'static>]>,
}

impl PeerCertificates {
    /// The chain of a finished handshake.
    pub fn new(chain: Option<&[CertificateDer<'_>]>) -> Self {
        let order = path_first(chain.unwrap_or_default());
        let chain = order.into_iter().take(MAX_CERTIFICATES);
        Self { chain: chain.map(|certificate| certificate.clone().into_owned()).collect() }
    }

    /// True when the peer showed none.
    pub fn is_empty(&self) -> bool {
        self.chain.is_empty()
    }

    /// The names of the first certificate, trusted or not.
    pub fn names(&self) -> CertificateNames {
        self.chain.first().map(|certificate| CertificateNames::read(certificate)).unwrap_or_default()
    }

    /// SHA-256 of the first certificate, in hexadecimal digits; empty without one.
    pub fn fingerprint(&self) -> String {
        self.chain.first().map(|certificate| leaf::sha256_text(certificate)).unwrap_or_default()
    }

    /// SHA-256 of the first certificate's public key (SubjectPublicKeyInfo), in hexadecimal digits: what a pin names.
    /// Its holder proved the key in the handshake, whoever issued the certificate.
    pub fn public_key_fingerprint(&self) -> Option<String> {
        leaf::public_key_fingerprint(self.chain.first()?)
    }

    /// When the first certificate runs out, since the Unix epoch.
    pub fn not_after(&self) -> Option<Duration> {
        leaf::not_after(self.chain.first()?)
    }

    /// When the issuers' certificates that stand in the chain run out, since the Unix epoch.
    pub fn issuers_not_after(&self) -> impl Iterator<Item = Duration> {
        self.chain.iter().skip(1).filter_map(|certificate| leaf::not_after(certificate))
    }

    /// Checks the chain: anchors, validity, key usage, purposes (XS-TLS-06, SIP-TLS-06). `now` is the wall time since the epoch.
    ///
    /// No purposes, or serverAuth among them, pass in both roles, since public authorities issue nothing else any
    /// more; clientAuth alone passes for a client where `allows_client_auth_only`; `id-kp-sipDomain` where `is_sip`.
    pub fn verify(
        &self,
        trust: &Trust,
        role: Role,
        allows_client_auth_only: bool,
        is_sip: bool,
        now: Duration,
    ) -> Result<(), CertificateFault> {
        let mut usages = vec![KeyUsage::server_auth()];
        if role == Role::Client && allows_client_auth_only {
            usages.push(KeyUsage::client_auth());
        }
        if is_sip {
            usages.push(KeyUsage::required(SIP_DOMAIN));
        }
        self.verify_for(trust, &usages, "serverAuth", now)
    }

    /// Checks a chain of a private authority that one of `hosts` must have shown: as [`PeerCertificates::verify`], but
    /// stated purposes must hold the one of the peer's role, and a name must be exactly one of the hosts.
    ///
    /// So the certificate of a machine that only waits for connections cannot be used to open one, and a machine of the
    /// same authority cannot stand for another.
    pub fn verify_host(
        &self,
        trust: &Trust,
        role: Role,
        hosts: &[String],
        now: Duration,
    ) -> Result<(), CertificateFault> {
        let (usage, needed) = match role {
            Role::Client => (KeyUsage::client_auth(), "clientAuth"),
            Role::Server => (KeyUsage::server_auth(), "serverAuth"),
        };
        self.verify_for(trust, &[usage], needed, now)?;
        let names = self.names();
        if hosts.iter().any(|host| names.prove_host(host)) {
            return Ok(());
        }
        let addresses = names.addresses.iter().map(ToString::to_string);
        let names = names.dns.into_iter().chain(addresses).collect();
        Err(CertificateFault::OtherHost { names, accepted: hosts.to_vec() })
    }

    /// True when the chain ends at an anchor and is good for one of the purposes.
    fn verify_for(
        &self,
        trust: &Trust,
        usages: &[KeyUsage],
        needed: &'static str,
        now: Duration,
    ) -> Result<(), CertificateFault> {
        let (first, others) = self.chain.split_first().ok_or(CertificateFault::None)?;
        let explained = |error: &webpki::Error| explain(error, &self.chain, needed, &trust.anchors.name, now);
        let read = trust.anchors.read.load();
        if read.certificates.contains(first) {
            // The administrator named this very certificate. Servers that sign their own say CA:TRUE in it.
            let subject = || leaf::subject(first);
            return match leaf::out_of_date(first, now) {
                None => Ok(()),
                Some(OutOfDate::Expired(until)) => {
                    Err(CertificateFault::Expired { subject: subject(), until, now })
                }
                Some(OutOfDate::NotYetValid(from)) => {
                    Err(CertificateFault::NotYetValid { subject: subject(), from, now })
                }
            };
        }
        let certificate = EndEntityCert::try_from(first).map_err(|error| explained(&error))?;
        if !leaf::may_sign(first) {
            let subject = leaf::subject(first);
            return Err(CertificateFault::KeyUsage { subject });
        }
        let mut worst: Option<webpki::Error> = None;
        for usage in usages {
            let outcome = certificate.verify_for_usage(
                ALGORITHMS.all,
                &read.roots.roots,
                others,
                UnixTime::since_unix_epoch(now),
                *usage,
                None,
                None,
            );
            match outcome {
                Ok(_) => return Ok(()),
                // What is wrong whatever the purpose goes before a purpose that was one of several to try.
                Err(error) if worst.as_ref().is_none_or(is_about_purpose) => worst = Some(error),
                Err(_) => {}
            }
        }
        Err(worst.map_or(CertificateFault::None, |error| explained(&error)))
    }

    /// The hosts that a trusted certificate proves ([`CertificateNames::sip_hosts`]); none without one.
    pub fn sip_hosts(&self, trust: &Trust, role: Role, now: Duration) -> Vec<String> {
        match self.verify(trust, role, true, true, now) {
            Ok(()) => self.names().sip_hosts(),
            Err(_) => Vec::new(),
        }
    }
}

/// The first certificate, those that lead from it upward, then the rest: what is not needed takes no place of what is.
fn path_first<'a, 'b>(chain: &'a [CertificateDer<'b>]) -> Vec<&'a CertificateDer<'b>> {
    let Some((first, others)) = chain.split_first() else { return Vec::new() };
    let mut order = vec![first];
    let mut left: Vec<(Option<leaf::Ends>, &CertificateDer<'_>)> =
        others.iter().take(MAX_OFFERED).map(|certificate| (leaf::ends(certificate), certificate)).collect();
    let mut issuer = leaf::ends(first).map(|ends| ends.issuer);
    while order.len() < MAX_CERTIFICATES
        && let Some(wanted) = issuer.take()
        && let Some(at) =
            left.iter().position(|(ends, _)| ends.as_ref().is_some_and(|ends| ends.subject == wanted))
    {
        let (ends, certificate) = left.remove(at);
        issuer = ends.map(|ends| ends.issuer);
        order.push(certificate);
    }
    order.extend(left.into_iter().map(|(_, certificate)| certificate));
    order
}

fn is_about_purpose(error: &webpki::Error) -> bool {
    matches!(error, webpki::Error::RequiredEkuNotFoundContext(_) | webpki::Error::EmptyEkuExtension)
}

static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> =
    LazyLock::new(|| aws_lc_rs::default_provider().signature_verification_algorithms);

/// Debian and its kin; Fedora and its kin; Alpine and the BSDs.
const SYSTEM_FILES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// id-kp-sipDomain, 1.3.6.1.5.5.7.3.20.
const SIP_DOMAIN: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x14];

/// S2S takes certificates from anybody, so chains are short (RUSTSEC-2023-0052).
const MAX_CERTIFICATES: usize = 8;
/// Of how many more the chain is picked.
const MAX_OFFERED: usize = 64;
