//! Server dialback (XEP-0220): keys by XEP-0185, and the two elements `db:result` and `db:verify`.
//!
//! Keys are made and compared here, without state: any server that has the secret can answer for any other.

use std::{fmt, sync::Arc};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    jid::Domain,
    ns, write,
    xml::{Reader, Tag},
};

/// The secrets that dialback keys are made with: one that signs, and earlier ones that still verify.
#[derive(Clone)]
pub struct DialbackSecrets {
    /// HMAC keys, that is the secrets' hashes in hex (XEP-0185 §2); the first signs.
    keys: Arc<[[u8; 64]]>,
}

impl DialbackSecrets {
    /// `current` signs and verifies. It should be 32 random octets at least.
    pub fn new(current: &[u8]) -> Self {
        Self { keys: Arc::new([hashed(current)]) }
    }

    /// As `new`, and `previous` still verifies.
    pub fn with_previous(current: &[u8], previous: &[u8]) -> Self {
        Self { keys: Arc::new([hashed(current), hashed(previous)]) }
    }

    /// The key that `originating` shows to `receiving` on the stream to which `receiving` gave this id.
    pub fn key(&self, receiving: &str, originating: &str, stream_id: &str) -> String {
        let tag = hmac(&self.keys[0], receiving, originating, stream_id);
        tag.iter().fold(String::with_capacity(64), |mut text, byte| {
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 15)]));
            text
        })
    }

    /// True when `key` was made with one of the secrets for just these values. Takes the same time for every key.
    pub fn verifies(&self, receiving: &str, originating: &str, stream_id: &str, key: &str) -> bool {
        let Some(shown) = from_hex(key.trim()) else { return false };
        let matches = self
            .keys
            .iter()
            .map(|secret| hmac(secret, receiving, originating, stream_id).ct_eq(&shown))
            .fold(subtle::Choice::from(0), |any, one| any | one);
        matches.into()
    }
}

impl fmt::Debug for DialbackSecrets {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "DialbackSecrets({})", self.keys.len())
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn hashed(secret: &[u8]) -> [u8; 64] {
    let digest = Sha256::digest(secret);
    let mut hex = [0; 64];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(digest.iter()) {
        pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    hex
}

/// Single spaces keep the fields apart: domains hold none, and the id stands last.
fn hmac(secret: &[u8; 64], receiving: &str, originating: &str, stream_id: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    for part in [receiving, " ", originating, " ", stream_id] {
        mac.update(part.as_bytes());
    }
    mac.finalize().into_bytes().into()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(bytes)
}

macro_rules! conditions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $kind:literal;)*) => {
        /// Why a dialback request failed without a word about its key (XEP-0220 §2.5).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum DialbackCondition {
            $($(#[$doc])* $variant,)*
        }

        impl DialbackCondition {
            /// All conditions, in the order of XEP-0220.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name of its element.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            fn error_type(self) -> &'static str {
                match self {
                    $(Self::$variant => $kind,)*
                }
            }

            /// The condition whose element has this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

conditions! {
    /// The domain is not served there.
    ItemNotFound = "item-not-found", "cancel";
    /// No connection to the authoritative server.
    RemoteConnectionFailed = "remote-connection-failed", "cancel";
    /// The authoritative server does not know the domain, or nobody does.
    RemoteServerNotFound = "remote-server-not-found", "cancel";
    /// The authoritative server did not answer.
    RemoteServerTimeout = "remote-server-timeout", "wait";
    /// TLS is needed first, or the domain is no partner.
    PolicyViolation = "policy-violation", "cancel";
    /// A certificate is needed.
    NotAuthorized = "not-authorized", "auth";
    /// The authoritative server says that the key is bad.
    Forbidden = "forbidden", "cancel";
    /// The claimed identity could not be established.
    NotAcceptable = "not-acceptable", "cancel";
    /// Too many pairs on this stream.
    ResourceConstraint = "resource-constraint", "wait";
    /// None of the others.
    UndefinedCondition = "undefined-condition", "cancel";
}

/// The two elements of dialback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DialbackElement {
    /// `db:result`: shows a key, or says what became of it.
    Result,
    /// `db:verify`: asks about a key, or answers.
    Verify,
}

impl DialbackElement {
    fn as_str(self) -> &'static str {
        match self {
            Self::Result => "db:result",
            Self::Verify => "db:verify",
        }
    }
}

/// What a dialback element says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DialbackContent {
    /// A request: the key.
    Key(Box<str>),
    /// An answer: the key is good.
    Valid,
    /// An answer: the key is bad.
    Invalid,
    /// An answer: it could not be found out.
    Error(DialbackCondition),
}

/// One dialback element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialback {
    /// Which.
    pub element: DialbackElement,
    /// The domain that sends it.
    pub from: Domain,
    /// The domain that is meant.
    pub to: Domain,
    /// The stream that a `db:verify` is about; empty for `db:result`.
    pub stream_id: Box<str>,
    /// What it says.
    pub content: DialbackContent,
}

/// Why an element of the dialback namespace cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DialbackFault {
    /// No element that XEP-0220 knows.
    #[error("no dialback element")]
    OtherElement,
    /// An address is missing or no domain.
    #[error("a dialback element needs two domains")]
    Address,
    /// A `db:verify` without id, an unknown type, or an unreasonable size.
    #[error("a malformed dialback element")]
    Malformed,
}

impl Dialback {
    /// Reads the element `tag`, into which `reader` has just stepped.
    pub fn read(tag: &Tag<'_>, reader: &mut Reader<'_>) -> Result<Self, DialbackFault> {
        let element = match tag.name {
            "result" => DialbackElement::Result,
            "verify" => DialbackElement::Verify,
            _ => return Err(DialbackFault::OtherElement),
        };
        let domain = |name| {
            let text = tag.attribute(name).ok_or(DialbackFault::Address)?;
            Domain::parse(&text).map_err(|_| DialbackFault::Address)
        };
        let (from, to) = (domain("from")?, domain("to")?);
        let stream_id: Box<str> = match element {
            DialbackElement::Result => "".into(),
            DialbackElement::Verify => tag.attribute("id").ok_or(DialbackFault::Malformed)?.into(),
        };
        if stream_id.len() > MAX_ID_BYTES {
            return Err(DialbackFault::Malformed);
        }
        let content = match tag.attribute("type").as_deref() {
            None => {
                let key = reader.text();
                let key = key.trim();
                if key.is_empty() || key.len() > MAX_ID_BYTES {
                    return Err(DialbackFault::Malformed);
                }
                DialbackContent::Key(key.into())
            }
            Some("valid") => DialbackContent::Valid,
            Some("invalid") => DialbackContent::Invalid,
            Some("error") => DialbackContent::Error(read_error(reader)),
            Some(_) => return Err(DialbackFault::Malformed),
        };
        Ok(Self { element, from, to, stream_id, content })
    }
}

/// Longest stream id or key that is taken.
const MAX_ID_BYTES: usize = 1024;

/// The condition inside `<error/>`, wherever in the element that stands: some write it in the namespace of dialback.
fn read_error(reader: &mut Reader<'_>) -> DialbackCondition {
    let mut condition = None;
    while let Some(child) = reader.child() {
        if child.name != "error" {
            reader.skip();
            continue;
        }
        while let Some(child) = reader.child() {
            condition = condition.or(DialbackCondition::from_name(child.name));
            reader.skip();
        }
    }
    condition.unwrap_or(DialbackCondition::UndefinedCondition)
}

fn open(out: &mut Vec<u8>, element: DialbackElement, from: &Domain, to: &Domain, stream_id: &str) {
    out.push(b'<');
    out.extend_from_slice(element.as_str().as_bytes());
    write::attribute(out, "from", from.as_str());
    write::attribute(out, "to", to.as_str());
    if element == DialbackElement::Verify {
        write::attribute(out, "id", stream_id);
    }
}

fn close(out: &mut Vec<u8>, element: DialbackElement) {
    out.extend_from_slice(b"</");
    out.extend_from_slice(element.as_str().as_bytes());
    out.push(b'>');
}

/// Appends a request. `stream_id` counts for `db:verify` only.
pub fn write_request(
    out: &mut Vec<u8>,
    element: DialbackElement,
    from: &Domain,
    to: &Domain,
    stream_id: &str,
    key: &str,
) {
    open(out, element, from, to, stream_id);
    out.push(b'>');
    write::escape_text(out, key);
    close(out, element);
}

/// Appends an answer that a key is good or bad. `stream_id` counts for `db:verify` only.
pub fn write_answer(
    out: &mut Vec<u8>,
    element: DialbackElement,
    from: &Domain,
    to: &Domain,
    stream_id: &str,
    is_valid: bool,
) {
    open(out, element, from, to, stream_id);
    write::attribute(out, "type", if is_valid { "valid" } else { "invalid" });
    out.extend_from_slice(b"/>");
}

/// Appends an answer that it could not be found out (XEP-0220 §2.5). `stream_id` counts for `db:verify` only.
pub fn write_error(
    out: &mut Vec<u8>,
    element: DialbackElement,
    from: &Domain,
    to: &Domain,
    stream_id: &str,
    condition: DialbackCondition,
) {
    open(out, element, from, to, stream_id);
    write::attribute(out, "type", "error");
    out.extend_from_slice(b"><error");
    write::attribute(out, "type", condition.error_type());
    out.push(b'>');
    write::empty_element(out, condition.as_str(), ns::STANZA_ERRORS);
    out.extend_from_slice(b"</error>");
    close(out, element);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xs_db_02_key_matches_the_vectors_of_xep_0185_and_xep_0220() {
        let secrets = DialbackSecrets::new(b"s3cr3tf0rd14lb4ck");
        for (receiving, originating, id, key) in [
            (
                "xmpp.example.com",
                "example.org",
                "D60000229F",
                "37c69b1cf07a3f67c04a5ef5902fa5114f2c76fe4a2686482ba5b89323075643",
            ),
            (
                "montague.example",
                "capulet.example",
                "D60000229F",
                "b4835385f37fe2895af6c196b59097b16862406db80559900d96bf6fa7d23df3",
            ),
        ] {
            assert_eq!(secrets.key(receiving, originating, id), key);
            assert!(secrets.verifies(receiving, originating, id, key));
            assert!(
                secrets.verifies(receiving, originating, id, &format!("\n  {key}\n")),
                "white space around"
            );
        }
    }

    #[test]
    fn a_key_holds_for_its_own_values_only() {
        let secrets = DialbackSecrets::new(b"secret");
        let key = secrets.key("a.example", "b.example", "1 2");
        // The last three shift the border between two fields (CVE-2016-0756).
        for (receiving, originating, id) in [
            ("b.example", "a.example", "1 2"),
            ("a.example", "b.example", "1"),
            ("a.example", "b.example", "12"),
            ("a.exampleb", ".example", "1 2"),
            ("a.exampl", "eb.example", "1 2"),
            ("a.example", "b.example1", "2"),
        ] {
            assert!(!secrets.verifies(receiving, originating, id, &key), "{receiving} {originating} {id}");
        }
        for wrong in ["", "0", &key[1..], &format!("{key}0"), &"g".repeat(64), &"0".repeat(64)] {
            assert!(!secrets.verifies("a.example", "b.example", "1 2", wrong), "{wrong}");
        }
    }

    #[test]
    fn a_previous_secret_still_verifies_and_no_longer_signs() {
        let old = DialbackSecrets::new(b"old");
        let both = DialbackSecrets::with_previous(b"new", b"old");
        assert!(both.verifies("a", "b", "1", &old.key("a", "b", "1")));
        assert_eq!(both.key("a", "b", "1"), DialbackSecrets::new(b"new").key("a", "b", "1"));
        assert!(!old.verifies("a", "b", "1", &both.key("a", "b", "1")));
    }
}
