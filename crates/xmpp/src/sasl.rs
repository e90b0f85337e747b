//! The SASL mechanism EXTERNAL between servers (RFC 6120 §6, XEP-0178 §3): its elements, read and written.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{ns, write, xml::Reader};

/// Conditions of a SASL failure (RFC 6120 §6.5) that we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SaslCondition {
    /// The peer gave up.
    Aborted,
    /// TLS first.
    EncryptionRequired,
    /// Not strict base64.
    IncorrectEncoding,
    /// The peer is not the domain that it wants to act as.
    InvalidAuthzid,
    /// No such mechanism.
    InvalidMechanism,
    /// An element out of turn.
    MalformedRequest,
    /// The peer did not prove who it is.
    NotAuthorized,
}

impl SaslCondition {
    /// The name of its element.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aborted => "aborted",
            Self::EncryptionRequired => "encryption-required",
            Self::IncorrectEncoding => "incorrect-encoding",
            Self::InvalidAuthzid => "invalid-authzid",
            Self::InvalidMechanism => "invalid-mechanism",
            Self::MalformedRequest => "malformed-request",
            Self::NotAuthorized => "not-authorized",
        }
    }
}

/// A SASL failure as a peer sent it (RFC 6120 §6.4.5). Both parts are the peer's words, of any length within a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaslFailure {
    /// The name of its condition; `not-authorized` when it holds none.
    pub condition: Box<str>,
    /// A text for people.
    pub text: Option<Box<str>>,
}

impl SaslFailure {
    /// Reads the `<failure/>` that `reader` has just opened.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let (mut condition, mut text) = (None, None);
        while let Some(child) = reader.child() {
            let content = reader.text();
            if child.is(ns::SASL, "text") {
                text = Some(content.into());
            } else {
                condition.get_or_insert(child.name);
            }
        }
        Self { condition: condition.unwrap_or("not-authorized").into(), text }
    }
}

impl fmt::Display for SaslFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.condition)?;
        match &self.text {
            Some(text) => write!(out, " ({text})"),
            None => Ok(()),
        }
    }
}

/// What an initial response asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InitialResponse {
    /// There is none: the peer waits for a challenge.
    Missing,
    /// To act as the domain that its stream header names.
    Empty,
    /// To act as this domain, as written.
    Authzid(String),
}

/// Decodes what stands in `<auth/>` (RFC 6120 §6.4.2): `=` is an empty response, nothing is none at all.
pub fn decode_initial(text: &str) -> Result<InitialResponse, SaslCondition> {
    match text {
        "" => Ok(InitialResponse::Missing),
        "=" => Ok(InitialResponse::Empty),
        text => decode(text).map(|authzid| {
            if authzid.is_empty() { InitialResponse::Empty } else { InitialResponse::Authzid(authzid) }
        }),
    }
}

/// Decodes what stands in `<response/>`: empty text is an empty response.
pub fn decode_response(text: &str) -> Result<InitialResponse, SaslCondition> {
    match text {
        "" => Ok(InitialResponse::Empty),
        text => decode_initial(text),
    }
}

fn decode(text: &str) -> Result<String, SaslCondition> {
    let bytes = STANDARD.decode(text).map_err(|_| SaslCondition::IncorrectEncoding)?;
    String::from_utf8(bytes).map_err(|_| SaslCondition::InvalidAuthzid)
}

/// Appends `<auth/>` with EXTERNAL and the domain that we act as.
pub fn write_auth(out: &mut Vec<u8>, authzid: &str) {
    out.extend_from_slice(b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>");
    out.extend_from_slice(STANDARD.encode(authzid).as_bytes());
    out.extend_from_slice(b"</auth>");
}

/// Appends `<response/>` with the domain that we act as.
pub fn write_response(out: &mut Vec<u8>, authzid: &str) {
    out.extend_from_slice(b"<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>");
    out.extend_from_slice(STANDARD.encode(authzid).as_bytes());
    out.extend_from_slice(b"</response>");
}

/// Appends an empty `<challenge/>`.
pub fn write_challenge(out: &mut Vec<u8>) {
    write::empty_element(out, "challenge", ns::SASL);
}

/// Appends `<success/>`.
pub fn write_success(out: &mut Vec<u8>) {
    write::empty_element(out, "success", ns::SASL);
}

/// Appends `<failure/>`.
pub fn write_failure(out: &mut Vec<u8>, condition: SaslCondition) {
    out.extend_from_slice(b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><");
    out.extend_from_slice(condition.as_str().as_bytes());
    out.extend_from_slice(b"/></failure>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_response_is_not_a_missing_one() {
        assert_eq!(decode_initial(""), Ok(InitialResponse::Missing));
        assert_eq!(decode_initial("="), Ok(InitialResponse::Empty));
        assert_eq!(decode_response(""), Ok(InitialResponse::Empty));
        assert_eq!(decode_initial("YS5leGFtcGxl"), Ok(InitialResponse::Authzid("a.example".into())));
    }

    #[test]
    fn base64_is_strict() {
        for text in [" YQ==", "YQ==\n", "YQ", "YQ=", "Y Q==", "YR==", "*", "==", "YQ===", "-_=="] {
            assert_eq!(decode_initial(text), Err(SaslCondition::IncorrectEncoding), "{text:?}");
        }
        assert_eq!(decode_initial("/w=="), Err(SaslCondition::InvalidAuthzid), "no UTF-8");
    }
}
