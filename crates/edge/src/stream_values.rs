//! What streams say and are told: the only way that the broker knows an XMPP stream.
//!
//! In one process these values pass in memory; between an edge and a gateway the same values are frames on the link.

use std::{fmt::Display, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tombolo_presence::Domain;

/// Names one XMPP stream. An edge never uses a number twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamId(pub u64);

/// Names one request to dial, chosen by whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DialId(pub u64);

/// A domain of ours and a domain of a partner.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DomainPair {
    /// Ours.
    pub local: Domain,
    /// The partner's.
    pub remote: Domain,
}

/// Which way stanzas flow on a stream; XMPP streams between servers are one-way (RFC 6120 §4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StreamDirection {
    /// The partner opened it: it brings stanzas.
    Incoming,
    /// We opened it: it takes stanzas.
    Outgoing,
}

/// How the partner's domain was proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProofMethod {
    /// SASL EXTERNAL with a certificate for the domain (XEP-0178).
    SaslExternal,
    /// Server dialback over TLS (XEP-0220).
    TlsDialback,
    /// Server dialback without TLS.
    PlainDialback,
}

impl ProofMethod {
    /// The word of the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SaslExternal => "sasl-external",
            Self::TlsDialback => "tls-dialback",
            Self::PlainDialback => "plain-dialback",
        }
    }
}

/// The TLS of a stream, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StreamTls {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: String,
    /// The cipher suite by its registered name.
    pub cipher: String,
    /// SHA-256 of the peer's certificate in hexadecimal digits; empty when it showed none.
    pub certificate: String,
    /// When that certificate runs out, in seconds since the Unix epoch.
    pub certificate_until: Option<u64>,
}

/// Why a dial gave no stream, or why a stream ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum StreamEnd {
    /// There is no XMPP server of the domain.
    #[error("{0}")]
    NotFound(Absence),
    /// It has, but no address could be reached in time.
    #[error("no address of the domain could be reached: {0}")]
    Unreachable(String),
    /// TLS or the proof of a domain failed, on either side.
    #[error("authentication failed: {0}")]
    Unauthenticated(String),
    /// We refuse this partner.
    #[error("refused by policy: {0}")]
    Refused(String),
    /// A stream error, ours or theirs; the condition's name.
    #[error("stream error {0}")]
    StreamError(String),
    /// Both sides closed in order.
    #[error("closed in order")]
    Closed,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The inside link to the edge ended, and with it its streams.
    #[error("the link to the edge ended")]
    LinkLost,
    /// The partner says that our dialback key is bad, so something is wrong on our side.
    #[error("authentication failed: {0}")]
    KeyRefused(String),
}

/// How it is known that a domain has no XMPP server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Absence {
    /// Its name, or every record that would lead to a server, does not exist.
    #[error("the domain has neither SRV records nor an address")]
    NoSuchName,
    /// Its SRV record says `.`.
    #[error("the domain's SRV record says that it has no XMPP service")]
    NoService,
    /// Its SRV records lead to hosts without an address.
    #[error("the domain's SRV record points to {host}, which has no address")]
    NoAddress {
        /// The last such host.
        host: String,
    },
    /// The server that was reached serves other domains (`host-unknown`, `host-gone`).
    #[error("the server that was reached answered that it does not serve the domain")]
    NotServed,
}

impl StreamEnd {
    /// The stanza error condition that senders are told (XS-DNS-06, XS-DB-03, RFC 6120 §10.4.3, XEP-0220 §2.1.1).
    pub fn condition(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "remote-server-not-found",
            Self::KeyRefused(_) => "internal-server-error",
            Self::Refused(_) => "not-allowed",
            _ => "remote-server-timeout",
        }
    }

    /// The same end, of a stream on which another proof failed before dialback did: `first` says which and why.
    #[must_use]
    pub(crate) fn after(self, first: &str) -> Self {
        let both = |second: &dyn Display| format!("{first}; dialback failed too: {second}");
        match self {
            Self::Unauthenticated(text) => Self::Unauthenticated(both(&text)),
            Self::KeyRefused(text) => Self::KeyRefused(both(&text)),
            Self::StreamError(_) | Self::Broken(_) => Self::Unauthenticated(both(&self)),
            Self::Closed => Self::Unauthenticated(both(&"the partner closed the stream")),
            Self::NotFound(_) | Self::Unreachable(_) | Self::Refused(_) | Self::LinkLost => self,
        }
    }

    /// True when everything that was written may be taken as received.
    pub fn is_clean(&self) -> bool {
        matches!(self, Self::Closed)
    }
}

/// From an edge to its gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum FromEdge {
    /// A stream is authenticated for its first pair.
    StreamUp {
        /// The stream.
        stream: StreamId,
        /// Which way stanzas flow.
        direction: StreamDirection,
        /// The dial that it answers, when outgoing.
        dial: Option<DialId>,
        /// The first proved pair.
        pair: DomainPair,
        /// How it was proved.
        method: ProofMethod,
        /// Its TLS; nothing in the clear.
        tls: Option<Box<StreamTls>>,
        /// Number of bytes that may be written and not yet reported as [`FromEdge::Written`].
        window_bytes: u32,
        /// The largest stanza that the partner says it takes, when outgoing (XEP-0478).
        max_stanza_bytes: Option<u32>,
    },
    /// A further pair is proved on the stream.
    PairProved {
        /// The stream.
        stream: StreamId,
        /// The pair.
        pair: DomainPair,
    },
    /// A pair that the stream was to carry could not be proved, or is not any more.
    PairLost {
        /// The stream.
        stream: StreamId,
        /// The pair.
        pair: DomainPair,
    },
    /// Whole, well-formed, bounded stanzas of proved pairs, in the order in which they came.
    Stanzas {
        /// The stream that brought them.
        stream: StreamId,
        /// The number of the first one; they are counted from 1 on each stream.
        first: u64,
        /// One stanza each.
        stanzas: Vec<Bytes>,
    },
    /// Bytes that were handed over with [`ToEdge::Stanzas`] are written to the socket.
    Written {
        /// The stream.
        stream: StreamId,
        /// The number of the last stanza that is written whole.
        last: u64,
        /// How many bytes since the last report: credit for as many more.
        bytes: u32,
    },
    /// The stream ended.
    StreamDown {
        /// The stream.
        stream: StreamId,
        /// Why.
        end: StreamEnd,
        /// The number of the last stanza that was written whole.
        last_written: u64,
    },
    /// A dial gave no stream.
    DialFailed {
        /// The dial.
        dial: DialId,
        /// Why.
        end: StreamEnd,
    },
    /// The edge lives.
    Beat,
}

impl FromEdge {
    /// The stream that this is about, to give it another number.
    pub(crate) fn stream_mut(&mut self) -> Option<&mut StreamId> {
        match self {
            Self::StreamUp { stream, .. }
            | Self::PairProved { stream, .. }
            | Self::PairLost { stream, .. }
            | Self::Stanzas { stream, .. }
            | Self::Written { stream, .. }
            | Self::StreamDown { stream, .. } => Some(stream),
            Self::DialFailed { .. } | Self::Beat => None,
        }
    }
}

/// From a gateway to an edge.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ToEdge {
    /// Open a stream for a pair.
    Dial {
        /// Names the request in the answer.
        dial: DialId,
        /// The pair.
        pair: DomainPair,
    },
    /// Write stanzas; they were granted by the stream's window.
    Stanzas {
        /// The stream.
        stream: StreamId,
        /// How many there are.
        count: u32,
        /// The stanzas, one behind the other.
        bytes: Bytes,
    },
    /// Stanzas that came by this stream are taken: as many more may be sent.
    Credit {
        /// The stream.
        stream: StreamId,
        /// How many bytes were taken.
        bytes: u32,
    },
    /// Close the stream in order.
    Close {
        /// The stream.
        stream: StreamId,
    },
    /// The gateway lives.
    Beat,
    /// End the stream, for its peer does not answer (`connection-timeout`).
    GiveUp {
        /// The stream.
        stream: StreamId,
    },
}

impl ToEdge {
    /// The stream that this is about, to give it another number.
    pub(crate) fn stream_mut(&mut self) -> Option<&mut StreamId> {
        match self {
            Self::Stanzas { stream, .. }
            | Self::Credit { stream, .. }
            | Self::Close { stream }
            | Self::GiveUp { stream } => Some(stream),
            Self::Dial { .. } | Self::Beat => None,
        }
    }
}

/// How often each side of a link says that it lives, and after how long a silence it is dead.
pub const BEAT: Duration = Duration::from_secs(5);
/// See [`BEAT`].
pub const BEAT_LOST: Duration = Duration::from_secs(15);

/// Number of bytes a stream may have handed over and not yet written.
pub const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// Where streams hand what they bring: the broker, or the link to it.
pub trait StreamSink: Send + Sync {
    /// Takes a value. Gives [`FromEdge::Stanzas`] back, less what was taken, when its receiver is full: the
    /// connection keeps the rest, stops reading and offers it again. Every other value is always taken.
    fn offer(&self, value: FromEdge) -> Result<(), FromEdge>;
}

/// Where the broker hands what streams should do: the connections of this process, or the links to edges.
pub trait EdgePort: Send + Sync {
    /// Takes a value; what concerns an ended stream is dropped, since its end was or will be reported.
    fn send(&self, value: ToEdge);
}
