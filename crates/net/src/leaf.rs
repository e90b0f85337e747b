//! What else a certificate says of itself: how long it holds, what its key is for, and which key it is.
//!
//! In: one certificate in DER. Out: plain values. It judges nothing and trusts nobody.

use std::time::Duration;

use sha2::{Digest, Sha256};
use x509_cert::{
    Certificate,
    der::{Decode, Encode},
    ext::pkix::KeyUsage,
};

/// SHA-256 of some octets, in lower-case hexadecimal digits.
pub(crate) fn sha256_text(octets: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(octets).iter().fold(String::with_capacity(64), |mut text, octet| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

/// When the certificate runs out, since the Unix epoch; nothing for one that cannot be read.
pub(crate) fn not_after(der: &[u8]) -> Option<Duration> {
    let certificate = Certificate::from_der(der).ok()?;
    Some(certificate.tbs_certificate().validity().not_after.to_unix_duration())
}

/// SHA-256 of the SubjectPublicKeyInfo, in hexadecimal digits: what a pin names, whoever issued the certificate.
pub(crate) fn public_key_fingerprint(der: &[u8]) -> Option<String> {
    let certificate = Certificate::from_der(der).ok()?;
    let key = certificate.tbs_certificate().subject_public_key_info().to_der().ok()?;
    Some(sha256_text(&key))
}

/// True when the key may sign handshakes: no key usage is stated, or digitalSignature is among them (RFC 5280 §4.2.1.3).
///
/// webpki does not look at this extension.
pub(crate) fn may_sign(der: &[u8]) -> bool {
    let Ok(certificate) = Certificate::from_der(der) else { return false };
    match certificate.tbs_certificate().get_extension::<KeyUsage>() {
        Ok(Some((_, usage))) => usage.digital_signature(),
        Ok(None) => true,
        Err(_) => false,
    }
}
