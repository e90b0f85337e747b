//! Why we end a stream, and what the peer is told.

use crate::{jid::Domain, sasl::SaslFailure, stream_error::StreamCondition, xml::XmlFault};

/// Why we end a server-to-server stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamFault {
    /// XML that is not allowed, or over a limit.
    #[error(transparent)]
    Xml(#[from] XmlFault),
    /// The stream header is not in the namespace of streams, or an element's prefix means something else.
    #[error("the stream header has a wrong namespace")]
    StreamNamespace,
    /// The stream header's prefix is not `stream`.
    #[error("the stream header has a wrong prefix")]
    StreamPrefix,
    /// The default namespace of the stream is not `jabber:server`.
    #[error("the stream's content is not in jabber:server")]
    ContentNamespace,
    /// A version of XMPP other than 1.x.
    #[error("the stream has an unknown version")]
    Version,
    /// The stream header came where it has no place, or lacks what it must have.
    #[error("the stream header is malformed")]
    Header,
    /// The header's `to` is missing or no domain that we serve.
    #[error("the stream is for a domain that is not served here")]
    HostUnknown,
    /// The header's `to` is a domain that we no longer serve.
    #[error("the stream is for {domain}, which is no longer served here")]
    HostGone {
        /// The domain.
        domain: Domain,
    },
    /// The header's `from` is no domain, or not the one that was authenticated.
    #[error("the stream header has a wrong from")]
    HeaderFrom,
    /// The partner is not allowed to talk to this domain.
    #[error("{remote} is no partner of {local}")]
    UnknownPartner {
        /// Our domain.
        local: Domain,
        /// The partner's.
        remote: Domain,
    },
    /// Bytes came between the end of the plain stream and TLS (RFC 6120 §5.4.2.3).
    #[error("bytes before TLS")]
    BytesBeforeTls,
    /// The partner must be reached over TLS, and the peer does not do it.
    #[error("the peer does not start TLS")]
    TlsRefused,
    /// STARTTLS inside TLS.
    #[error("STARTTLS inside TLS")]
    TlsTwice,
    /// STARTTLS on a stream that carries stanzas already.
    #[error("STARTTLS after a pair was proved")]
    TlsLate,
    /// A namespace of the stream header, or all of them together, so long that stanzas which use them would swell.
    #[error("the namespaces of the stream header are too long")]
    HeaderNamespaces,
    /// The peer's certificate does not prove its domain, and nothing else is allowed.
    #[error("the peer's certificate does not prove {domain}: {reason}")]
    Certificate {
        /// The domain that it should prove.
        domain: Domain,
        /// Why it does not, for the administrators of both sides.
        reason: Box<str>,
    },
    /// Too many failed attempts of SASL.
    #[error("SASL failed {attempts} times")]
    SaslExhausted {
        /// So many.
        attempts: u32,
    },
    /// The peer refused our SASL, and nothing else is allowed.
    #[error("the peer refused SASL EXTERNAL: {0}")]
    SaslRefused(SaslFailure),
    /// The peer offers no way to prove ourselves that our terms allow.
    #[error("the peer offers no allowed way to authenticate")]
    NoMethod,
    /// The only key that the peer showed is bad.
    #[error("the dialback key for {domain} is bad")]
    KeyInvalid {
        /// The domain that it was shown for.
        domain: Domain,
    },
    /// A stanza before anything was proved.
    #[error("a stanza before authentication")]
    NotAuthenticated,
    /// A stanza from a domain that this stream has not proved.
    #[error("stanza is from {claimed}, which this stream has not proved")]
    UnprovedFrom {
        /// The domain.
        claimed: Domain,
    },
    /// A stanza to a domain that is not served, or that the peer has not asked to talk to on this stream.
    #[error("stanza is to {domain}, which this stream is not for")]
    UnprovedTo {
        /// The domain.
        domain: Domain,
    },
    /// A stanza without `from` or `to`, or a dialback element whose addresses are missing or malformed.
    #[error("an address is missing or malformed")]
    Addressing,
    /// More stanzas with a malformed address than one stream may send in a minute.
    #[error("more than {limit} stanzas in a minute had a malformed address")]
    MalformedAddresses {
        /// Stanzas allowed.
        limit: u32,
    },
    /// A stanza in another namespace than `jabber:server`.
    #[error("a stanza in a wrong namespace")]
    StanzaNamespace,
    /// A stanza whose name has a prefix.
    #[error("a stanza with a prefix")]
    StanzaPrefix,
    /// An element that is not known, or that has no place now.
    #[error("an element that has no place here")]
    UnknownElement,
    /// A dialback element that cannot be understood.
    #[error("a malformed dialback element")]
    Dialback,
    /// Too many elements before authentication.
    #[error("more than {limit} elements before authentication")]
    TooManyElements {
        /// So many are allowed.
        limit: usize,
    },
    /// The peer did not prove a pair in time.
    #[error("not authenticated in time")]
    AuthenticationTimedOut,
}

impl StreamFault {
    /// The stream error condition the peer is told (RFC 6120 §4.9.3).
    pub fn condition(&self) -> &'static str {
        self.stream_condition().as_str()
    }

    pub(super) fn stream_condition(&self) -> StreamCondition {
        use StreamCondition as Condition;
        match self {
            Self::Xml(fault) => Condition::from_name(fault.condition()).unwrap_or(Condition::BadFormat),
            Self::StreamNamespace | Self::ContentNamespace | Self::StanzaNamespace => {
                Condition::InvalidNamespace
            }
            Self::StreamPrefix | Self::StanzaPrefix => Condition::BadNamespacePrefix,
            Self::Version => Condition::UnsupportedVersion,
            Self::Header | Self::Dialback => Condition::BadFormat,
            Self::HostUnknown | Self::UnprovedTo { .. } => Condition::HostUnknown,
            Self::HostGone { .. } => Condition::HostGone,
            Self::HeaderFrom | Self::UnprovedFrom { .. } => Condition::InvalidFrom,
            Self::UnknownPartner { .. }
            | Self::BytesBeforeTls
            | Self::TlsRefused
            | Self::TlsTwice
            | Self::TlsLate
            | Self::HeaderNamespaces
            | Self::SaslExhausted { .. }
            | Self::NoMethod
            | Self::MalformedAddresses { .. }
            | Self::TooManyElements { .. } => Condition::PolicyViolation,
            Self::Certificate { .. }
            | Self::SaslRefused(_)
            | Self::NotAuthenticated
            | Self::KeyInvalid { .. } => Condition::NotAuthorized,
            Self::Addressing => Condition::ImproperAddressing,
            Self::UnknownElement => Condition::UnsupportedStanzaType,
            Self::AuthenticationTimedOut => Condition::ConnectionTimeout,
        }
    }

    /// A condition of `urn:xmpp:errors` that says more.
    pub(super) fn application_condition(&self) -> Option<&'static str> {
        matches!(self, Self::Xml(XmlFault::TooBig { .. })).then_some("stanza-too-big")
    }
}
