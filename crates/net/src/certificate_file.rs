//! Files of certificates and keys: what they hold, and what is wrong with them.
//!
//! In: paths. Out: certificates and keys, or a fault that names the file, the line and the repair. The settings' checker
//! and the running process read through the same functions, so they never disagree about a file.

use std::{
    fmt, fs,
    mem::{Discriminant, discriminant},
    path::{Path, PathBuf},
    time::Duration,
};

use rustls::{Error, InconsistentKeys, crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};
use x509_cert::{
    Certificate,
    der::{Decode, Tag, Tagged, asn1::AnyRef},
};

use crate::{
    CertificateNames,
    date::{date, days_text},
    leaf::{self, OutOfDate},
};

/// Something wrong with a file of certificates or keys. Shown without the path, for a place that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFault {
    /// Which of the files that were asked about.
    pub file: FileRole,
    /// Its path.
    pub path: PathBuf,
    /// The line of the file, from 1, where one can be named.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: FileProblem,
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileRole {
    /// Our certificate, with the chain behind it.
    Certificate,
    /// The key of our certificate.
    Key,
    /// Certificates that we trust.
    Trust,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileProblem {
    /// The system does not let us read it.
    Unreadable(String),
    /// It has no octets.
    Empty,
    /// It is in a binary form.
    Binary(BinaryForm),
    /// It is text in UTF-16.
    Utf16,
    /// It holds no PEM section of the wanted kind; what it holds instead.
    Other(Vec<String>),
    /// A PEM section is broken.
    BadPem(String),
    /// The key is encrypted.
    Encrypted,
    /// The certificate is in the form that OpenSSL keeps trust settings in.
    TrustedForm,
    /// The key is of a kind that is not supported.
    UnusableKey(String),
    /// The key belongs to another certificate.
    NotItsKey,
    /// The certificate is over.
    Expired {
        /// Its last moment, since the Unix epoch.
        until: Duration,
        /// The time of the check.
        now: Duration,
    },
    /// The certificate does not hold yet.
    NotYetValid {
        /// Its first moment, since the Unix epoch.
        from: Duration,
        /// The time of the check.
        now: Duration,
    },
    /// The certificate is for other domains.
    OtherDomain {
        /// Whom it is for.
        names: Vec<String>,
        /// Whom it should be for.
        domain: String,
    },
    /// The certificate may not be used by a server.
    NotForServers,
    /// What is trusted is no authority, and proves only itself.
    NoAuthority {
        /// Whose certificate.
        subject: String,
    },
}

/// Binary forms that are mistaken for PEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryForm {
    /// One certificate.
    Certificate,
    /// One key.
    Key,
    /// Both, with a password (PKCS#12, `.pfx`).
    Pkcs12,
    /// Something else.
    Unknown,
}

impl FileProblem {
    /// The same for problems of which one is no worse than the other.
    fn kind(&self) -> Discriminant<Self> {
        match self {
            Self::NotYetValid { from, now } => discriminant(&Self::Expired { until: *from, now: *now }),
            other => discriminant(other),
        }
    }
}

impl FileFault {
    fn new(file: FileRole, path: &Path, problem: FileProblem) -> Self {
        Self { file, path: path.to_owned(), line: None, problem }
    }

    fn at(self, line: usize) -> Self {
        Self { line: Some(line), ..self }
    }

    /// True where nothing can be done with the file; otherwise it can be used, and peers will see what is wrong.
    pub fn prevents_use(&self) -> bool {
        !matches!(
            self.problem,
            FileProblem::Expired { .. }
                | FileProblem::NotYetValid { .. }
                | FileProblem::OtherDomain { .. }
                | FileProblem::NotForServers
                | FileProblem::NoAuthority { .. }
        )
    }

    /// What is wrong and how to repair it, without the path.
    pub fn text(&self) -> String {
        let path = self.path.display();
        let text = match &self.problem {
            FileProblem::Unreadable(cause) => format!("cannot be read: {cause}"),
            FileProblem::Empty => "is empty".to_owned(),
            FileProblem::Binary(BinaryForm::Certificate) => {
                format!("is DER, not PEM; convert it: openssl x509 -inform DER -in {path} -out {path}.pem")
            }
            FileProblem::Binary(BinaryForm::Key) => {
                format!("is DER, not PEM; convert it: openssl pkey -inform DER -in {path} -out {path}.pem")
            }
            FileProblem::Binary(BinaryForm::Pkcs12) => format!(
                "is PKCS#12, not PEM; convert it: openssl pkcs12 -in {path} -noenc -out {path}.pem, which holds both \
                 certificate and key"
            ),
            FileProblem::Binary(BinaryForm::Unknown) => "is no text, so no PEM".to_owned(),
            FileProblem::Utf16 => "is text in UTF-16; save it as UTF-8 or ASCII".to_owned(),
            FileProblem::Other(found) => self.other_text(found),
            FileProblem::BadPem(cause) => format!("is no good PEM: {cause}"),
            FileProblem::Encrypted => {
                format!("the key is encrypted; decrypt it: openssl pkey -in {path} -out {path}.plain")
            }
            FileProblem::TrustedForm => format!(
                "is in OpenSSL's own form (TRUSTED CERTIFICATE); convert it: openssl x509 -in {path} -out {path}.pem"
            ),
            FileProblem::UnusableKey(cause) => {
                format!("the key cannot be used: {cause}; accepted: RSA from 2048 bits, ECDSA P-256 to P-521, Ed25519")
            }
            FileProblem::NotItsKey => "is not the key of the certificate".to_owned(),
            FileProblem::Expired { until, now } => {
                format!("the certificate expired on {}, {}; renew it", date(*until), days_text(*now, *until))
            }
            FileProblem::NotYetValid { from, now } => {
                format!("the certificate is valid from {}, {}: is the clock right?", date(*from), days_text(*now, *from))
            }
            FileProblem::OtherDomain { names, domain } if names.is_empty() => {
                format!("the certificate names no domain (subjectAltName), so it cannot prove {domain}")
            }
            FileProblem::OtherDomain { names, domain } => {
                format!("the certificate is for {}, not for {domain}", names.join(", "))
            }
            FileProblem::NotForServers => {
                "the certificate is not for servers (extended key usage without serverAuth), so peers will refuse it".to_owned()
            }
            FileProblem::NoAuthority { subject } => format!(
                "the certificate of {subject} is no authority's (CA:FALSE): it proves {subject} alone, and nothing that \
                 others issued"
            ),
        };
        match self.line {
            Some(line) => format!("line {line}: {text}"),
            None => text,
        }
    }

    fn other_text(&self, found: &[String]) -> String {
        let is_key = |label: &String| label.ends_with("PRIVATE KEY");
        let wanted = if self.file == FileRole::Key { "private key" } else { "certificate" };
        if self.file == FileRole::Key && found.iter().any(|label| label == "CERTIFICATE") {
            return "holds a certificate and no key: are certificate and key swapped?".to_owned();
        }
        if self.file == FileRole::Certificate && found.iter().any(is_key) {
            return "holds a key and no certificate: are certificate and key swapped?".to_owned();
        }
        match found.first() {
            Some(label) => format!("holds no {wanted} but {}", label.to_ascii_lowercase()),
            None => format!("holds no {wanted}: there is no line that begins with -----BEGIN"),
        }
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text())
    }
}

impl std::error::Error for FileFault {}

/// The certificates of a PEM file, in its order; at least one.
pub(crate) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileFault> {
    certificates_in(path, FileRole::Trust)
}

fn certificates_in(path: &Path, file: FileRole) -> Result<Vec<CertificateDer<'static>>, FileFault> {
    let text = read_pem(path, file)?;
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let bad = |error: pem::Error| FileFault::new(file, path, FileProblem::BadPem(error.to_string()));
        certificates.push(certificate.map_err(bad)?);
    }
    if certificates.is_empty() {
        let labels = labels(&text);
        let trusted =
            labels.iter().find(|(_, label)| label == "TRUSTED CERTIFICATE" || label == "X509 CERTIFICATE");
        return Err(match trusted {
            Some((line, _)) => FileFault::new(file, path, FileProblem::TrustedForm).at(*line),
            None => FileFault::new(
                file,
                path,
                FileProblem::Other(labels.into_iter().map(|(_, label)| label).collect()),
            ),
        });
    }
    Ok(certificates)
}

fn key_in(path: &Path) -> Result<PrivateKeyDer<'static>, FileFault> {
    let text = read_pem(path, FileRole::Key)?;
    let fault = |problem| FileFault::new(FileRole::Key, path, problem);
    let labels = labels(&text);
    if let Some(line) = encrypted_line(&text, &labels) {
        return Err(fault(FileProblem::Encrypted).at(line));
    }
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => {
            Err(fault(FileProblem::Other(labels.into_iter().map(|(_, label)| label).collect())))
        }
        Err(error) => Err(fault(FileProblem::BadPem(error.to_string()))),
    }
}

/// A certificate with its key, the certificate of the key first whatever the order of the file.
pub(crate) fn read_pair(certificate: &Path, key: &Path) -> Result<CertifiedKey, FileFault> {
    let mut chain = certificates_in(certificate, FileRole::Certificate)?;
    let secret = key_in(key)?;
    let fault = |problem| FileFault::new(FileRole::Key, key, problem);
    let signer = aws_lc_rs::sign::any_supported_type(&secret)
        .map_err(|error| fault(FileProblem::UnusableKey(error.to_string())))?;
    if let Some(own) = signer.public_key()
        && let Some(at) = chain.iter().position(|other| leaf::public_key_info(other) == Some(own.as_ref()))
    {
        // Some tools write the authority first; a peer takes the first certificate for ours.
        chain[..=at].rotate_right(1);
    }
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(Error::InconsistentKeys(_)) => Err(fault(FileProblem::NotItsKey)),
        Err(error) => {
            let problem = FileProblem::BadPem(error.to_string());
            Err(FileFault::new(FileRole::Certificate, certificate, problem))
        }
    }
}

/// All that is wrong with our certificate and its key. `domain` is whom it should prove; `now` is the wall time since the
/// Unix epoch.
pub fn inspect_pair(certificate: &Path, key: &Path, domain: Option<&str>, now: Duration) -> Vec<FileFault> {
    let mut faults = Vec::new();
    let pair = match (certificates_in(certificate, FileRole::Certificate), key_in(key)) {
        (Ok(_), Ok(_)) => read_pair(certificate, key),
        (read, secret) => {
            faults.extend(read.err());
            faults.extend(secret.err());
            return faults;
        }
    };
    let pair = match pair {
        Ok(pair) => pair,
        Err(fault) => return vec![fault],
    };
    let Some(own) = pair.cert.first() else { return faults };
    let fault = |problem| FileFault::new(FileRole::Certificate, certificate, problem);
    faults.extend(problems_of_own(own, domain, now).into_iter().map(fault));
    faults
}

/// What peers will hold against our certificate. `domain` is whom it should prove.
fn problems_of_own(own: &[u8], domain: Option<&str>, now: Duration) -> Vec<FileProblem> {
    let mut problems: Vec<FileProblem> = dates_problem(own, now).into_iter().collect();
    let names = CertificateNames::read(own);
    if let Some(domain) = domain.filter(|domain| !names.prove_xmpp(domain) && !proves_sip(&names, domain)) {
        problems.push(FileProblem::OtherDomain { names: names.listed(), domain: domain.to_owned() });
    }
    if !is_for_servers(own) {
        problems.push(FileProblem::NotForServers);
    }
    problems
}

/// All that is wrong with a file of trusted certificates.
pub fn inspect_trust(path: &Path, now: Duration) -> Vec<FileFault> {
    let certificates = match read_certificates(path) {
        Ok(certificates) => certificates,
        Err(fault) => return vec![fault],
    };
    let fault = |problem| FileFault::new(FileRole::Trust, path, problem);
    let mut faults = Vec::new();
    for certificate in &certificates {
        faults.extend(dates_problem(certificate, now).map(fault));
        // One that signed itself is an authority of one, as servers make it.
        if !leaf::is_authority(certificate) && !leaf::is_self_issued(certificate) {
            faults.push(fault(FileProblem::NoAuthority { subject: leaf::subject(certificate) }));
        }
    }
    faults
}

/// Why the first of two certificates may not take the place of the second without an order: peers will hold something
/// against it that they do not hold against the other.
pub(crate) fn is_step_back(
    new: &CertifiedKey,
    old: &CertifiedKey,
    domain: Option<&str>,
    now: Duration,
) -> Option<FileProblem> {
    let problems = |pair: &CertifiedKey| match pair.cert.first() {
        Some(own) => problems_of_own(own, domain, now),
        None => Vec::new(),
    };
    let known: Vec<_> = problems(old).iter().map(FileProblem::kind).collect();
    problems(new).into_iter().find(|problem| !known.contains(&problem.kind()))
}

fn dates_problem(der: &[u8], now: Duration) -> Option<FileProblem> {
    Some(match leaf::out_of_date(der, now)? {
        OutOfDate::Expired(until) => FileProblem::Expired { until, now },
        OutOfDate::NotYetValid(from) => FileProblem::NotYetValid { from, now },
    })
}

fn proves_sip(names: &CertificateNames, domain: &str) -> bool {
    let domain = crate::names::ascii(domain);
    names.sip_domains().iter().any(|proved| crate::names::ascii(proved) == domain)
}

fn is_for_servers(der: &[u8]) -> bool {
    let Ok(certificate) = Certificate::from_der(der) else { return true };
    leaf::purposes(&certificate)
        .is_none_or(|stated| stated.iter().any(|oid| oid == SERVER_AUTH || oid == ANY_PURPOSE))
}

/// The text of a PEM file, without a byte order mark.
fn read_pem(path: &Path, file: FileRole) -> Result<Vec<u8>, FileFault> {
    let fault = |problem| FileFault::new(file, path, problem);
    let mut octets = fs::read(path).map_err(|error| fault(FileProblem::Unreadable(error.to_string())))?;
    if octets.starts_with(&[0xef, 0xbb, 0xbf]) {
        octets.drain(..3);
    }
    if octets.iter().all(u8::is_ascii_whitespace) {
        return Err(fault(FileProblem::Empty));
    }
    if octets.starts_with(&[0xff, 0xfe]) || octets.starts_with(&[0xfe, 0xff]) {
        return Err(fault(FileProblem::Utf16));
    }
    if octets[0] == DER_SEQUENCE && !has_pem(&octets) {
        return Err(fault(FileProblem::Binary(binary_form(&octets))));
    }
    if std::str::from_utf8(&octets).is_err() && !has_pem(&octets) {
        return Err(fault(FileProblem::Binary(BinaryForm::Unknown)));
    }
    Ok(octets)
}

fn has_pem(octets: &[u8]) -> bool {
    octets.windows(BEGIN.len()).any(|part| part == BEGIN)
}

/// What stands inside the outermost sequence tells: a sequence, or the version of a key (0) or of PKCS#12 (3).
fn binary_form(octets: &[u8]) -> BinaryForm {
    use x509_cert::der::{Reader, SliceReader};
    let inside = || {
        let outer = AnyRef::from_der(octets).ok()?;
        let mut inside = SliceReader::new(outer.value()).ok()?;
        let first = AnyRef::decode(&mut inside).ok()?;
        Some((first.tag(), first.value().to_vec(), inside.is_finished()))
    };
    match inside() {
        Some((Tag::Integer, version, _)) if version == [3] => BinaryForm::Pkcs12,
        Some((Tag::Integer, _, _)) => BinaryForm::Key,
        Some((Tag::Sequence, _, _)) => BinaryForm::Certificate,
        _ => BinaryForm::Unknown,
    }
}

/// The kinds of the sections of a PEM file, with the lines that begin them.
fn labels(text: &[u8]) -> Vec<(usize, String)> {
    let lines = text.split(|octet| *octet == b'\n').zip(1..);
    let label = |(line, number): (&[u8], usize)| {
        let line = std::str::from_utf8(line).ok()?.trim();
        let label = line.strip_prefix("-----BEGIN ")?.strip_suffix("-----")?;
        Some((number, label.to_owned()))
    };
    lines.filter_map(label).collect()
}

/// The line where an encrypted key begins: PKCS#8 says it in the label, the older forms in a header.
fn encrypted_line(text: &[u8], labels: &[(usize, String)]) -> Option<usize> {
    if let Some((line, _)) = labels.iter().find(|(_, label)| label == "ENCRYPTED PRIVATE KEY") {
        return Some(*line);
    }
    let lines = text.split(|octet| *octet == b'\n').zip(1..);
    let is_header =
        |line: &[u8]| line.starts_with(b"Proc-Type:") && line.windows(9).any(|part| part == b"ENCRYPTED");
    lines.filter(|(line, _)| is_header(line)).map(|(_, number)| number).next()
}

const DER_SEQUENCE: u8 = 0x30;
const BEGIN: &[u8] = b"-----BEGIN ";
const SERVER_AUTH: &str = "1.3.6.1.5.5.7.3.1";
const ANY_PURPOSE: &str = "2.5.29.37.0";
