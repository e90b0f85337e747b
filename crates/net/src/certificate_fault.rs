//! Why a peer's certificate proves nothing, in words that one of the two administrators can act on.
//!
//! In: the chain that a peer showed, and what the path builder said of it. Out: a fault whose text names the
//! certificate, the date or the authority. It decides nothing: the chain has been refused already.

use std::time::Duration;

use rustls_pki_types::CertificateDer;
use webpki::Error;
use x509_cert::{
    Certificate,
    der::{Decode, Encode, oid::db::rfc4519::CN},
    name::Name,
};

use crate::{
    date::{date, days_text},
    leaf,
    names::{MAX_LISTED, shown},
};

/// Why a certificate proves nothing. Each text says what is wrong and, where that is known, who must repair it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// The peer showed none.
    #[error("the peer showed no certificate")]
    None,
    /// It, or an authority in its chain, is out of date.
    #[error("the certificate of {subject} expired on {}, {}; its administrator must renew it", date(*until), days_text(*now, *until))]
    Expired {
        /// Whose certificate.
        subject: String,
        /// Its last moment, since the Unix epoch.
        until: Duration,
        /// The time of the check.
        now: Duration,
    },
    /// It does not hold yet.
    #[error("the certificate of {subject} is valid from {}, {}: is our clock right?", date(*from), days_text(*now, *from))]
    NotYetValid {
        /// Whose certificate.
        subject: String,
        /// Its first moment, since the Unix epoch.
        from: Duration,
        /// The time of the check.
        now: Duration,
    },
    /// It signs itself and is not among what we trust.
    #[error("the certificate of {subject} is self-signed, and is not in {trust} itself")]
    SelfSigned {
        /// Whose certificate.
        subject: String,
        /// Where our authorities stand.
        trust: String,
    },
    /// Its chain leads to an authority that we do not trust.
    #[error("the certificate of {subject} was issued by {issuer:?}, which is not in {trust}")]
    UnknownIssuer {
        /// Whose certificate.
        subject: String,
        /// The authority at which the chain ends.
        issuer: String,
        /// Where our authorities stand.
        trust: String,
    },
    /// The peer sent no certificate but its own, and the authority that issued it is not one that we trust.
    #[error(
        "the certificate of {subject} was issued by {issuer:?}, which the peer did not send along and which is not in \
         {trust}: its administrator must send the intermediate certificates too, or {issuer:?} must be added there"
    )]
    MissingIntermediate {
        /// Whose certificate.
        subject: String,
        /// The authority at which the chain ends.
        issuer: String,
        /// Where our authorities stand.
        trust: String,
    },
    /// It may be used for other purposes only (RFC 5280 §4.2.1.12).
    #[error("the certificate of {subject} is for {stated} only, not for {needed}")]
    WrongPurpose {
        /// Whose certificate.
        subject: String,
        /// The purposes that it states.
        stated: String,
        /// The purpose that we need.
        needed: &'static str,
    },
    /// Its key may not sign handshakes (RFC 5280 §4.2.1.3).
    #[error(
        "the key of the certificate of {subject} is not for signatures (keyUsage lacks digitalSignature)"
    )]
    KeyUsage {
        /// Whose certificate.
        subject: String,
    },
    /// It is an authority's own, and not the very one that is trusted.
    #[error("the certificate of {subject} is one of an authority (CA:TRUE), and is not in {trust} itself")]
    IsAuthority {
        /// Whose certificate.
        subject: String,
        /// Where our authorities stand.
        trust: String,
    },
    /// A signature in the chain is wrong.
    #[error(
        "a signature in the chain of the certificate of {subject} is wrong: was it issued by another {issuer:?}?"
    )]
    BadSignature {
        /// Whose certificate.
        subject: String,
        /// The authority at which the chain ends.
        issuer: String,
    },
    /// It holds what is not understood, and must not be passed over.
    #[error("the certificate of {subject} cannot be checked: {what}")]
    Unsupported {
        /// Whose certificate.
        subject: String,
        /// What is not understood.
        what: String,
    },
    /// It is for none of the hosts that are meant.
    #[error("the certificate is for {}, accepted: {}", listed(names), listed(accepted))]
    OtherHost {
        /// Whom it is for.
        names: Vec<String>,
        /// Who would be accepted.
        accepted: Vec<String>,
    },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "nobody".to_owned();
    }
    let shown: Vec<String> = names.iter().take(MAX_LISTED).map(|name| shown(name)).collect();
    shown.join(", ")
}

/// What the path builder's error means for this chain. `needed` is the purpose that was asked for, `trust` where our
/// authorities stand.
pub(crate) fn explain(
    error: &Error,
    chain: &[CertificateDer<'_>],
    needed: &'static str,
    trust: &str,
    now: Duration,
) -> CertificateFault {
    let read: Vec<Option<Certificate>> = chain.iter().map(|der| Certificate::from_der(der).ok()).collect();
    let subject =
        read.first().and_then(Option::as_ref).map_or_else(|| "an unknown subject".to_owned(), subject_of);
    let trust = trust.to_owned();
    let issuer = || last_issuer(&read);
    match error {
        Error::CertExpired { not_after, .. } => {
            let until = Duration::from_secs(not_after.as_secs());
            let end = |certificate: &Certificate| {
                certificate.tbs_certificate().validity().not_after.to_unix_duration()
            };
            let subject = whose(&read, |certificate| end(certificate) == until).unwrap_or(subject);
            CertificateFault::Expired { subject, until, now }
        }
        Error::CertNotValidYet { not_before, .. } => {
            let from = Duration::from_secs(not_before.as_secs());
            let begin = |certificate: &Certificate| {
                certificate.tbs_certificate().validity().not_before.to_unix_duration()
            };
            let subject = whose(&read, |certificate| begin(certificate) == from).unwrap_or(subject);
            CertificateFault::NotYetValid { subject, from, now }
        }
        Error::UnknownIssuer => match (read.first().and_then(Option::as_ref), chain.len()) {
            (Some(leaf), _) if is_self_issued(leaf) => CertificateFault::SelfSigned { subject, trust },
            (Some(_), 1) => CertificateFault::MissingIntermediate { subject, issuer: issuer(), trust },
            _ => CertificateFault::UnknownIssuer { subject, issuer: issuer(), trust },
        },
        Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => {
            let stated = read.first().and_then(Option::as_ref).map(purposes_of).unwrap_or_default();
            CertificateFault::WrongPurpose { subject, stated: listed(&stated), needed }
        }
        Error::CaUsedAsEndEntity => CertificateFault::IsAuthority { subject, trust },
        Error::InvalidSignatureForPublicKey => CertificateFault::BadSignature { subject, issuer: issuer() },
        Error::UnsupportedCriticalExtension => {
            let unknown = read.iter().flatten().find_map(unknown_critical);
            let what = format!(
                "it holds the critical extension {}, which is not understood",
                unknown.unwrap_or_default()
            );
            CertificateFault::Unsupported { subject, what }
        }
        Error::UnsupportedCertVersion => {
            CertificateFault::Unsupported { subject, what: "it is of X.509 version 1 or 2".to_owned() }
        }
        Error::NameConstraintViolation => {
            let what = format!("{:?} may not issue for this name (name constraints)", issuer());
            CertificateFault::Unsupported { subject, what }
        }
        Error::MaximumPathBuildCallsExceeded
        | Error::MaximumPathDepthExceeded
        | Error::MaximumSignatureChecksExceeded
        | Error::PathLenConstraintViolated => CertificateFault::Unsupported {
            subject,
            what: "its chain is too long or too entangled".to_owned(),
        },
        other => {
            let what = read
                .first()
                .and_then(Option::as_ref)
                .and_then(unsupported_algorithm)
                .unwrap_or_else(|| other.to_string());
            CertificateFault::Unsupported { subject, what }
        }
    }
}

/// Whom a certificate is for, for people: its common name, else its first DNS name, else the whole subject.
pub(crate) fn subject_of(certificate: &Certificate) -> String {
    let names = certificate.to_der().map(|der| crate::CertificateNames::read(&der)).unwrap_or_default();
    let first = names.dns.first().or(names.xmpp.first());
    first.map_or_else(|| name_text(certificate.tbs_certificate().subject()), |name| shown(name))
}

/// The common name, else the whole name; without control characters, and not longer than a line.
pub(crate) fn name_text(name: &Name) -> String {
    let common = name.iter().find(|part| part.oid == CN).map(|part| part.value.value());
    let text = match common.and_then(|value| std::str::from_utf8(value).ok()) {
        Some(common) => common.to_owned(),
        None => name.to_string(),
    };
    text.chars().filter(|letter| !letter.is_control()).take(MAX_NAME_CHARS).collect()
}

pub(crate) fn is_self_issued(certificate: &Certificate) -> bool {
    let body = certificate.tbs_certificate();
    body.issuer() == body.subject()
}

fn whose(chain: &[Option<Certificate>], is_meant: impl Fn(&Certificate) -> bool) -> Option<String> {
    chain.iter().flatten().find(|certificate| is_meant(certificate)).map(subject_of)
}

/// Follows the chain from its first certificate to the authority that was not sent.
fn last_issuer(chain: &[Option<Certificate>]) -> String {
    let Some(Some(mut certificate)) = chain.first().map(Option::as_ref) else { return "nobody".to_owned() };
    for _ in chain {
        let issuer = certificate.tbs_certificate().issuer();
        let is_next = |next: &&Certificate| next.tbs_certificate().subject() == issuer;
        match chain.iter().flatten().find(is_next) {
            Some(next) if !is_self_issued(next) => certificate = next,
            _ => break,
        }
    }
    name_text(certificate.tbs_certificate().issuer())
}

/// The purposes that a certificate states, by their names in RFC 5280.
fn purposes_of(certificate: &Certificate) -> Vec<String> {
    let name = |oid: String| {
        PURPOSES.iter().find(|(known, _)| *known == oid).map_or(oid, |(_, name)| (*name).to_owned())
    };
    leaf::purposes(certificate).unwrap_or_default().into_iter().map(name).collect()
}

/// The first critical extension that the path builder does not know.
fn unknown_critical(certificate: &Certificate) -> Option<String> {
    let extensions = certificate.tbs_certificate().extensions()?;
    let unknown = extensions
        .iter()
        .filter(|extension| extension.critical)
        .map(|extension| extension.extn_id.to_string())
        .find(|oid| !UNDERSTOOD.contains(&oid.as_str()))?;
    let name = EXTENSIONS.iter().find(|(oid, _)| *oid == unknown).map(|(_, name)| *name);
    Some(name.map_or(unknown.clone(), |name| format!("{name} ({unknown})")))
}

/// Names the algorithm of a certificate's key or signature when it is one that is not supported.
fn unsupported_algorithm(certificate: &Certificate) -> Option<String> {
    let key = certificate.tbs_certificate().subject_public_key_info().algorithm.oid.to_string();
    let signature = certificate.signature_algorithm().oid.to_string();
    let name = |oid: &str| ALGORITHMS.iter().find(|(known, _)| *known == oid).map(|(_, name)| *name);
    if let Some(name) = name(&key) {
        return Some(format!("keys of the kind {name} are not supported"));
    }
    name(&signature).map(|name| format!("signatures of the kind {name} are not supported"))
}

const MAX_NAME_CHARS: usize = 200;

const PURPOSES: [(&str, &str); 5] = [
    ("1.3.6.1.5.5.7.3.1", "serverAuth"),
    ("1.3.6.1.5.5.7.3.2", "clientAuth"),
    ("1.3.6.1.5.5.7.3.3", "codeSigning"),
    ("1.3.6.1.5.5.7.3.4", "emailProtection"),
    ("1.3.6.1.5.5.7.3.20", "sipDomain"),
];

/// Key usage, names, basic constraints, name constraints, CRL points and extended key usage.
const UNDERSTOOD: [&str; 6] = ["2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.30", "2.5.29.31", "2.5.29.37"];

const EXTENSIONS: [(&str, &str); 4] = [
    ("2.5.29.32", "certificatePolicies"),
    ("2.5.29.33", "policyMappings"),
    ("2.5.29.36", "policyConstraints"),
    ("2.5.29.54", "inhibitAnyPolicy"),
];

const ALGORITHMS: [(&str, &str); 5] = [
    ("1.2.840.113549.1.1.10", "RSASSA-PSS"),
    ("1.2.840.113549.1.1.5", "SHA-1 with RSA"),
    ("1.2.840.113549.1.1.4", "MD5 with RSA"),
    ("1.2.840.10040.4.1", "DSA"),
    ("1.3.101.113", "Ed448"),
];

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    #[test]
    fn of_a_name_that_a_stranger_wrote_a_short_part_without_control_characters_is_told() {
        let name = format!("evil\u{1b}[2J\n{}", "x".repeat(5_000));
        let mut params = CertificateParams::default();
        // id-on-xmppAddr.
        params.subject_alt_names =
            vec![SanType::OtherName((vec![1, 3, 6, 1, 5, 5, 7, 8, 5], (&*name).into()))];
        let key = KeyPair::generate().expect("a key");
        let chain = [params.self_signed(&key).expect("a certificate").der().clone()];
        let now = Duration::from_secs(1_900_000_000);
        let text = explain(&Error::UnknownIssuer, &chain, "serverAuth", "xmpp.trust", now).to_string();
        assert!(text.starts_with("the certificate of evil[2Jxxx") && text.len() < 400, "{text}");
        let names = vec![name; 50];
        let text = CertificateFault::OtherHost { names, accepted: vec!["a.example".to_owned()] }.to_string();
        assert!(!text.contains(char::is_control) && text.len() < 3_000, "{text}");
    }
}
