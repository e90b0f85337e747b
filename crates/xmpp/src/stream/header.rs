//! Stream headers (RFC 6120 §4.7): read, judged and written.

use super::StreamFault;
use crate::{
    ns, write,
    xml::{Reader, Scope, XmlLimits, check_open_tag},
};

/// What a peer's stream header says.
#[derive(Debug)]
pub(super) struct PeerHeader {
    pub(super) from: Option<Box<str>>,
    pub(super) to: Option<Box<str>>,
    pub(super) id: Option<Box<str>>,
    /// Version 1.x: features follow. Without a version, or with 0.x, they do not (RFC 6120 §4.7.5).
    pub(super) has_features: bool,
    pub(super) scope: Scope,
}

impl PeerHeader {
    /// Reads and judges a header (RFC 6120 §4.8).
    pub(super) fn read(xml: &[u8], limits: &XmlLimits) -> Result<Self, StreamFault> {
        let text = check_open_tag(xml, limits)?;
        let outside = Scope::empty();
        let (tag, _) = Reader::open(text, &outside).ok_or(StreamFault::Header)?;
        let mut scope = Scope::empty();
        let mut header = Self { from: None, to: None, id: None, has_features: false, scope: Scope::empty() };
        let (mut version, mut namespace_bytes) = (None, 0);
        for attribute in tag.attributes() {
            if let Some((prefix, namespace)) = attribute.declaration() {
                namespace_bytes += namespace.len();
                if namespace.len() > MOST_NAMESPACE_BYTES || namespace_bytes > MOST_NAMESPACES_BYTES {
                    return Err(StreamFault::HeaderNamespaces);
                }
                scope.declare(prefix, &namespace);
                continue;
            }
            match attribute.name {
                "from" => header.from = Some(attribute.value().into()),
                "to" => header.to = Some(attribute.value().into()),
                "id" => header.id = Some(attribute.value().into()),
                "version" => version = Some(attribute.value()),
                _ => {}
            }
        }
        if tag.ns != ns::STREAMS || tag.name != "stream" {
            return Err(StreamFault::StreamNamespace);
        }
        if tag.prefix != "stream" {
            return Err(StreamFault::StreamPrefix);
        }
        if scope.namespace("").is_some_and(|content| content != ns::SERVER) {
            return Err(StreamFault::ContentNamespace);
        }
        if scope.namespace("db").is_some_and(|dialback| dialback != ns::DIALBACK) {
            return Err(StreamFault::StreamNamespace);
        }
        header.has_features = match version.as_deref() {
            None => false,
            Some(version) => match major(version) {
                Some(0) => false,
                Some(1) => true,
                _ => return Err(StreamFault::Version),
            },
        };
        header.scope = scope;
        Ok(header)
    }
}

/// The first number of `1.0`.
fn major(version: &str) -> Option<u32> {
    let (major, minor) = version.split_once('.')?;
    minor.parse::<u32>().ok()?;
    major.parse().ok()
}

/// Octets of one namespace. A stanza that uses it is given its declaration, so a long one would swell each stanza.
const MOST_NAMESPACE_BYTES: usize = 256;
/// Octets of all namespaces of a header.
const MOST_NAMESPACES_BYTES: usize = 2048;

/// What our own header says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OwnHeader<'a> {
    pub(super) from: Option<&'a str>,
    pub(super) to: Option<&'a str>,
    pub(super) id: Option<&'a str>,
    /// Leave the version out, for a peer that has none.
    pub(super) is_old: bool,
}

impl OwnHeader<'_> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"<?xml version='1.0'?><stream:stream xmlns='jabber:server' \
              xmlns:stream='http://etherx.jabber.org/streams' xmlns:db='jabber:server:dialback'",
        );
        for (name, value) in [("from", self.from), ("to", self.to), ("id", self.id)] {
            if let Some(value) = value {
                write::attribute(out, name, value);
            }
        }
        if !self.is_old {
            write::attribute(out, "version", "1.0");
        }
        out.extend_from_slice(b" xml:lang='en'>");
    }
}
