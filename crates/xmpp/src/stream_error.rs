//! Stream errors (RFC 6120 §4.9): read and written. After one the stream ends.

use crate::{
    ns, write,
    xml::{Reader, Tag},
};

named_conditions! {
    /// A defined condition of a stream error (RFC 6120 §4.9.3).
    StreamCondition:
    /// XML that cannot be processed.
    BadFormat = "bad-format";
    /// A prefix that is not supported, or none where one must be.
    BadNamespacePrefix = "bad-namespace-prefix";
    /// A newer stream replaces this one.
    Conflict = "conflict";
    /// The peer seems gone, or took too long.
    ConnectionTimeout = "connection-timeout";
    /// The domain is no longer served here.
    HostGone = "host-gone";
    /// The domain is not served here.
    HostUnknown = "host-unknown";
    /// A stanza between servers lacks an address, or has a bad one.
    ImproperAddressing = "improper-addressing";
    /// The server failed.
    InternalServerError = "internal-server-error";
    /// The sender's address was not proved on this stream.
    InvalidFrom = "invalid-from";
    /// A wrong namespace of the stream or of its content.
    InvalidNamespace = "invalid-namespace";
    /// XML that its schema does not allow.
    InvalidXml = "invalid-xml";
    /// Data before the stream was authenticated.
    NotAuthorized = "not-authorized";
    /// XML that is not well-formed.
    NotWellFormed = "not-well-formed";
    /// Against a policy of the server.
    PolicyViolation = "policy-violation";
    /// A server that is needed to authenticate could not be reached.
    RemoteConnectionFailed = "remote-connection-failed";
    /// The stream is to be made anew.
    Reset = "reset";
    /// The server is short of something.
    ResourceConstraint = "resource-constraint";
    /// XML that XMPP forbids.
    RestrictedXml = "restricted-xml";
    /// The domain is served at another host.
    SeeOtherHost = "see-other-host";
    /// The server shuts down.
    SystemShutdown = "system-shutdown";
    /// None of the others.
    UndefinedCondition = "undefined-condition";
    /// Another encoding than UTF-8.
    UnsupportedEncoding = "unsupported-encoding";
    /// A feature that is wanted but not there.
    UnsupportedFeature = "unsupported-feature";
    /// An element at the top of the stream that is no stanza.
    UnsupportedStanzaType = "unsupported-stanza-type";
    /// A version of XMPP that is not supported.
    UnsupportedVersion = "unsupported-version";
}

/// A stream error as a peer sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamError {
    /// Its condition; `UndefinedCondition` when it holds none that is known.
    pub condition: StreamCondition,
    /// A text for people.
    pub text: Option<Box<str>>,
    /// For `see-other-host`: the host and port to go to, as written.
    pub other_host: Option<Box<str>>,
    /// The name of an application-specific condition.
    pub application: Option<Box<str>>,
}

impl StreamError {
    /// Reads the `<stream:error/>` that `reader` has just opened.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let mut error = Self {
            condition: StreamCondition::UndefinedCondition,
            text: None,
            other_host: None,
            application: None,
        };
        while let Some(child) = reader.child() {
            error.take_child(&child, reader);
        }
        error
    }

    fn take_child<'a>(&mut self, child: &Tag<'a>, reader: &mut Reader<'a>) {
        let content = reader.text();
        if child.ns != ns::STREAM_ERRORS {
            self.application.get_or_insert_with(|| child.name.into());
        } else if child.name == "text" {
            self.text = Some(content.into());
        } else if let Some(condition) = StreamCondition::from_name(child.name) {
            self.condition = condition;
            if condition == StreamCondition::SeeOtherHost {
                self.other_host = Some(content.trim().into());
            }
        }
    }
}

/// Appends a stream error. `application` is the name of a condition in `urn:xmpp:errors`.
///
/// The prefix `stream` must be declared by the header before it.
pub fn write_stream_error(
    out: &mut Vec<u8>,
    condition: StreamCondition,
    text: Option<&str>,
    application: Option<&str>,
) {
    out.extend_from_slice(b"<stream:error>");
    write::empty_element(out, condition.as_str(), ns::STREAM_ERRORS);
    if let Some(text) = text {
        out.extend_from_slice(b"<text");
        write::attribute(out, "xmlns", ns::STREAM_ERRORS);
        write::attribute(out, "xml:lang", "en");
        out.push(b'>');
        write::escape_text(out, text);
        out.extend_from_slice(b"</text>");
    }
    if let Some(name) = application {
        write::empty_element(out, name, ns::ERRORS);
    }
    out.extend_from_slice(b"</stream:error>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::Scope;

    #[test]
    fn all_25_conditions_are_read_as_they_are_written() {
        assert_eq!(StreamCondition::ALL.len(), 25);
        let mut scope = Scope::server();
        scope.declare("stream", ns::STREAMS);
        for &condition in StreamCondition::ALL {
            let mut out = Vec::new();
            write_stream_error(&mut out, condition, Some("why & how"), Some("stanza-too-big"));
            let text = String::from_utf8(out).expect("text");
            crate::xml::check(text.as_bytes(), &scope, &crate::xml::XmlLimits::UNAUTHENTICATED)
                .expect("well-formed");
            let (tag, mut reader) = Reader::open(&text, &scope).expect("an element");
            assert!(tag.is(ns::STREAMS, "error"));
            let error = StreamError::read(&mut reader);
            assert_eq!(error.condition, condition);
            assert_eq!(error.text.as_deref(), Some("why & how"));
            assert_eq!(error.application.as_deref(), Some("stanza-too-big"));
        }
    }

    #[test]
    fn see_other_host_names_the_host() {
        let xml = "<e><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>[2001:db8::1]:9222</see-other-host></e>";
        let (_, mut reader) = Reader::open_stanza(xml).expect("an element");
        assert_eq!(StreamError::read(&mut reader).other_host.as_deref(), Some("[2001:db8::1]:9222"));
    }
}
