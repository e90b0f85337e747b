//! One server-to-server stream as a machine (RFC 6120 §4 to §6, XEP-0178, XEP-0220).
//!
//! Bytes, the time, a TLS verdict and answers to its questions go in; bytes, events and one deadline come out. It does
//! no TLS, opens no connection and asks no DNS: it says when TLS must start and which key must be asked about.
//!
//! [`InboundStream`] is a stream that a peer opened to us: stanzas come in on it, none goes out. [`OutboundStream`] is
//! one that we opened: stanzas go out on it, none comes in. [`S2sStream`] is either.
//!
//! After each input the owner drains [`S2sStream::poll_transmit`] into the socket, then [`S2sStream::poll_event`], and
//! arms its timer from [`S2sStream::poll_timeout`].

mod direction;
mod fault;
mod header;
mod ids;
mod inbound;
mod outbound;
mod pairs;
mod policy;
mod wire;

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::{
    dialback::DialbackCondition,
    jid::{Domain, Jid},
    sasl::SaslFailure,
    stanza::{StanzaHead, StanzaKind},
    stream_error::{StreamCondition, StreamError},
};

pub use fault::StreamFault;
pub use ids::StreamIds;
pub use inbound::{InboundSettings, InboundStream, KeyAnswer};
pub use outbound::{Dial, OutboundSettings, OutboundStream, Purpose, SkippedSteps};
pub use pairs::{NotProved, Pair};
pub use policy::{NoCertificate, PartnerTerms, PeerCertificate, StreamPolicy, TlsFacts};
pub use wire::StreamLimits;

/// How TLS begins on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsStart {
    /// In the clear first, then by STARTTLS (RFC 6120 §5).
    StartTls,
    /// With the first byte (XEP-0368).
    Direct,
}

/// How a pair of domains was proved on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// SASL EXTERNAL with a certificate.
    External,
    /// A dialback request that the certificate alone proved (XEP-0344).
    Certificate,
    /// A dialback key over TLS.
    DialbackWithTls,
    /// A dialback key in the clear.
    DialbackInTheClear,
    /// The peer took our dialback request; how it checked it is not known to us.
    DialbackByPeer,
}

impl Method {
    /// A word for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::External => "sasl-external",
            Self::Certificate => "certificate",
            Self::DialbackWithTls => "tls-dialback",
            Self::DialbackInTheClear => "plain-dialback",
            Self::DialbackByPeer => "dialback",
        }
    }
}

/// A question to the authoritative server of `pair.remote`, or its subject: was this key made there for this stream?
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyQuestion {
    /// `local` is the receiving server (us), `remote` the domain whose key it is.
    pub pair: Pair,
    /// The id that we gave to the stream on which the key was shown.
    pub stream_id: Box<str>,
    /// The key.
    pub key: Box<str>,
}

/// A whole stanza of a proved pair, well-formed, in `jabber:server`, and complete in itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedStanza {
    /// Its kind.
    pub kind: StanzaKind,
    /// Who sent it; its domain is the `remote` of a proved pair.
    pub from: Jid,
    /// Who is meant; its domain is the `local` of that pair.
    pub to: Jid,
    /// The stanza as it came. Holding it holds the read buffer that it was cut from.
    pub xml: Bytes,
}

impl ReceivedStanza {
    /// Reads the start tag of a stanza that a stream let in.
    ///
    /// `None` when it is no stanza, or an address is missing or malformed.
    pub fn read(xml: Bytes) -> Option<Self> {
        let head = StanzaHead::read(&xml).ok()?;
        let from = Jid::parse(head.from.as_deref()?).ok()?;
        let to = Jid::parse(head.to.as_deref()?).ok()?;
        Some(Self { kind: head.kind, from, to, xml })
    }
}

/// Why a pair may not be used to send on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The peer says that our key is bad. Bounce with `internal-server-error`.
    Invalid,
    /// The peer could not or would not check it. Bounce with `remote-server-timeout`.
    Error(DialbackCondition),
    /// The peer did not answer in time.
    TimedOut,
    /// The stream ended before the answer.
    StreamEnded,
    /// Our own terms for this partner do not allow to prove it on this stream.
    NotAllowed,
    /// More pairs than a stream may have.
    TooManyPairs,
}

/// Why a stream ended.
#[derive(Debug)]
pub enum CloseCause {
    /// Both sides closed it in order.
    Ordered,
    /// We closed it with this condition.
    Ended(StreamCondition),
    /// The peer broke a rule, or kept us waiting.
    Fault(StreamFault),
    /// The peer sent a stream error.
    PeerError {
        /// What it said.
        error: StreamError,
        /// It came over TLS from a peer whose certificate names the domain that we meant: `see-other-host` may be followed.
        is_trusted: bool,
    },
    /// The connection ended without the end of the stream.
    ConnectionLost,
    /// We closed it and the peer did not within its time.
    CloseTimedOut,
}

/// What a stream tells its owner.
#[derive(Debug)]
pub enum StreamEvent {
    /// Flush the output, start TLS, then call `handle_tls_established`. Read nothing in between.
    StartTls,
    /// Stanzas of this pair may flow.
    PairProved {
        /// Which pair.
        pair: Pair,
        /// How.
        method: Method,
    },
    /// Outbound: stanzas of this pair may not be sent.
    PairRefused {
        /// Which pair.
        pair: Pair,
        /// Why.
        refusal: Refusal,
    },
    /// Inbound: ask the authoritative server, then call `handle_key_answer`.
    KeyShown(KeyQuestion),
    /// Outbound: what the authoritative server says to a question of ours.
    KeyAnswered {
        /// The question.
        question: KeyQuestion,
        /// The answer.
        answer: KeyAnswer,
    },
    /// Inbound: a peer asked us about a key, and we answered.
    KeyChecked {
        /// The pair asked about: `local` is ours, `remote` asked.
        pair: Pair,
        /// What we said.
        is_valid: bool,
    },
    /// Inbound: a stanza.
    Stanza(ReceivedStanza),
    /// Inbound: a stanza whose `from` or `to` is no address, but whose domains, as far as they can be read, are proved. Drop
    /// it, and where its sender can be told, answer with `jid-malformed` on a stream of ours.
    MalformedAddress {
        /// The stanza.
        xml: Bytes,
        /// No other came on this stream in the minute before: worth a line in the log.
        is_first: bool,
    },
    /// An answer of dialback that nobody asked for. It was ignored.
    UnsolicitedDialback {
        /// Who it says it is from.
        from: Domain,
        /// Whom it says it is for.
        to: Domain,
    },
    /// Outbound: a stanza or a dialback request, which has no place on this stream. It was ignored.
    StrayElement,
    /// SASL failed. Inbound: we refused the peer; outbound: the peer refused us.
    SaslFailed(SaslFailure),
    /// The stream is over: flush the output, then close the connection. The last event.
    Closed(CloseCause),
}

/// A stream in either direction.
#[derive(Debug)]
pub enum S2sStream {
    /// The peer opened it.
    Inbound(InboundStream),
    /// We opened it.
    Outbound(OutboundStream),
}

macro_rules! either {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self {
            S2sStream::Inbound($stream) => $call,
            S2sStream::Outbound($stream) => $call,
        }
    };
}

impl S2sStream {
    /// Takes bytes that came from the peer.
    pub fn handle_input(&mut self, bytes: &[u8], now: Instant, policy: &dyn StreamPolicy) {
        either!(self, stream => stream.handle_input(bytes, now, policy));
    }

    /// The buffer to read into, append only; then call [`S2sStream::handle_buffered`].
    pub fn input_buffer(&mut self) -> &mut BytesMut {
        either!(self, stream => stream.input_buffer())
    }

    /// Takes what was appended to the input buffer.
    pub fn handle_buffered(&mut self, now: Instant, policy: &dyn StreamPolicy) {
        either!(self, stream => stream.handle_buffered(now, policy));
    }

    /// TLS is up; all before it is forgotten (RFC 6120 §5.4.3.3).
    pub fn handle_tls_established(&mut self, facts: TlsFacts, now: Instant, policy: &dyn StreamPolicy) {
        either!(self, stream => stream.handle_tls_established(facts, now, policy));
    }

    /// The connection ended or TLS failed.
    pub fn handle_connection_lost(&mut self) {
        either!(self, stream => stream.handle_connection_lost());
    }

    /// The time of [`S2sStream::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        either!(self, stream => stream.handle_timeout(now));
    }

    /// Ends our side in order; the peer's close is awaited, and what it still sends is handled (RFC 6120 §4.4).
    pub fn close(&mut self, now: Instant) {
        either!(self, stream => stream.close(now));
    }

    /// Policy is another by now. Gives back the pairs whose proof it does not allow any more: their stanzas count from now
    /// on as those of pairs that were never proved. They may be proved again. Keys that are still being asked about, and
    /// that would prove nothing any more, are refused.
    pub fn handle_policy_change(&mut self, policy: &dyn StreamPolicy) -> Vec<Pair> {
        either!(self, stream => stream.handle_policy_change(policy))
    }

    /// Ends the stream with an error, such as `system-shutdown`, `reset` or `conflict`.
    pub fn end(&mut self, condition: StreamCondition, text: Option<&str>) {
        either!(self, stream => stream.end(condition, text));
    }

    /// Bytes to write; `None` when there are none.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        either!(self, stream => stream.poll_transmit())
    }

    /// The next event, in order.
    pub fn poll_event(&mut self) -> Option<StreamEvent> {
        either!(self, stream => stream.poll_event())
    }

    /// When [`S2sStream::handle_timeout`] must be called, if nothing comes before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        either!(self, stream => stream.poll_timeout())
    }

    /// The domain at the other end: the dialled one, or the one that the peer says it is. Nothing is proved by it.
    pub fn remote(&self) -> Option<&Domain> {
        match self {
            Self::Inbound(stream) => stream.claimed(),
            Self::Outbound(stream) => Some(&stream.dial().pair.remote),
        }
    }

    /// Why the peer's certificate does not prove that domain; `None` when it does, and without TLS.
    pub fn certificate_fault(&self) -> Option<StreamFault> {
        either!(self, stream => stream.certificate_fault())
    }

    /// True once [`StreamEvent::Closed`] was given out or waits to be.
    pub fn is_closed(&self) -> bool {
        either!(self, stream => stream.is_closed())
    }

    /// The pairs that are proved, oldest first.
    pub fn proved_pairs(&self) -> &[Pair] {
        either!(self, stream => stream.proved_pairs())
    }
}
