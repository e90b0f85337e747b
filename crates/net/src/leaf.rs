//! What else a certificate says of itself: how long it holds, what its key is for, and which key it is.
//!
//! In: one certificate in DER. Out: plain values. It judges nothing and trusts nobody.

use std::time::Duration;

use sha2::{Digest, Sha256};
use x509_cert::{
    Certificate,
    der::{AnyRef, Decode, Encode, Reader, SliceReader, Tagged},
    ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage},
};

use crate::certificate_fault::subject_of;

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

/// The purposes that a certificate states, as OIDs (RFC 5280 §4.2.1.12); `None` when it states none that can be read, so
/// that it is for every purpose.
pub(crate) fn purposes(certificate: &Certificate) -> Option<Vec<String>> {
    let (_, stated) = certificate.tbs_certificate().get_extension::<ExtendedKeyUsage>().ok()??;
    Some(stated.0.iter().map(ToString::to_string).collect())
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

/// The first and the last moment at which the certificate holds, since the Unix epoch; nothing for one that cannot be read.
pub(crate) fn validity(der: &[u8]) -> Option<(Duration, Duration)> {
    let certificate = Certificate::from_der(der).ok()?;
    let validity = certificate.tbs_certificate().validity();
    Some((validity.not_before.to_unix_duration(), validity.not_after.to_unix_duration()))
}

/// Why a certificate does not hold at a moment, by its dates alone.
pub(crate) enum OutOfDate {
    /// It is over since this moment, its last.
    Expired(Duration),
    /// It begins at this moment.
    NotYetValid(Duration),
}

/// What is wrong with the dates; nothing for one that holds, or cannot be read. Both ends count, in whole seconds
/// (RFC 5280 §4.1.2.5).
pub(crate) fn out_of_date(der: &[u8], now: Duration) -> Option<OutOfDate> {
    let (from, until) = validity(der)?;
    if now.as_secs() < from.as_secs() {
        return Some(OutOfDate::NotYetValid(from));
    }
    (now.as_secs() > until.as_secs()).then_some(OutOfDate::Expired(until))
}

/// True when the certificate names itself as its issuer.
pub(crate) fn is_self_issued(der: &[u8]) -> bool {
    ends(der).is_some_and(|ends| ends.subject == ends.issuer)
}

/// Whom the certificate is for, as people are told.
pub(crate) fn subject(der: &[u8]) -> String {
    Certificate::from_der(der).map_or_else(|_| "an unknown subject".to_owned(), |read| subject_of(&read))
}

/// True for the certificate of an authority (RFC 5280 §4.2.1.9).
pub(crate) fn is_authority(der: &[u8]) -> bool {
    let Ok(certificate) = Certificate::from_der(der) else { return false };
    matches!(certificate.tbs_certificate().get_extension::<BasicConstraints>(), Ok(Some((_, constraints))) if constraints.ca)
}

/// Subject and issuer, as they are encoded.
pub(crate) struct Ends {
    pub(crate) subject: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
}

/// Both ends of a link of the chain; nothing for a certificate that cannot be read.
pub(crate) fn ends(der: &[u8]) -> Option<Ends> {
    let fields = fields(der)?;
    Some(Ends { subject: fields.subject.to_vec(), issuer: fields.issuer.to_vec() })
}

/// The SubjectPublicKeyInfo as it is encoded, of a certificate of whatever version and extensions.
pub(crate) fn public_key_info(der: &[u8]) -> Option<&[u8]> {
    Some(fields(der)?.public_key_info)
}

/// Fields that stand at the same place in every version of X.509 (RFC 5280 §4.1).
struct Fields<'a> {
    issuer: &'a [u8],
    subject: &'a [u8],
    public_key_info: &'a [u8],
}

fn fields(der: &[u8]) -> Option<Fields<'_>> {
    let outer = AnyRef::from_der(der).ok()?;
    let mut outer = SliceReader::new(outer.value()).ok()?;
    let body = AnyRef::decode(&mut outer).ok()?;
    let mut body = SliceReader::new(body.value()).ok()?;
    // The version, which stands there from version 2 on, or already the serial number.
    if AnyRef::decode(&mut body).ok()?.tag().is_context_specific() {
        body.tlv_bytes().ok()?;
    }
    let _signature = body.tlv_bytes().ok()?;
    let issuer = body.tlv_bytes().ok()?;
    let _validity = body.tlv_bytes().ok()?;
    Some(Fields { issuer, subject: body.tlv_bytes().ok()?, public_key_info: body.tlv_bytes().ok()? })
}
