//! What SIP connections say and are told: the only way that the broker knows a SIP transport.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tombolo_sip::message::Message;

use crate::DialId;

/// Names one flow: a TCP or TLS connection, or one remote address of a UDP socket. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub u64);

/// The transports that we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Datagrams: transactions retransmit.
    Udp,
    /// Plain TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
}

impl Transport {
    /// The name that Via carries.
    pub fn via_name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }

    /// The name that a URI's `transport` parameter carries.
    pub fn uri_name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// True when nothing needs to be sent twice.
    pub fn is_reliable(self) -> bool {
        self != Self::Udp
    }
}

/// What is known of a flow as long as it lives.
#[derive(Debug, Clone)]
pub struct FlowFacts {
    /// The flow.
    pub flow: FlowId,
    /// Its transport.
    pub transport: Transport,
    /// Our end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// `host:port` that our Via and Contact name on it: where peers can reach our listener of this transport.
    pub sent_by: Arc<str>,
    /// The dial that it answers, when we opened it.
    pub dial: Option<DialId>,
    /// The dial had further addresses to try, so that a next hop which fails there may do better elsewhere.
    pub has_alternatives: bool,
    /// SIP domains that the peer's TLS certificate proved (RFC 5922 §7.1); empty without a valid certificate.
    pub proved_domains: Arc<[Box<str>]>,
}

/// From a SIP transport to the broker.
#[derive(Debug, Clone)]
pub enum FromFlow {
    /// A flow exists. For UDP: the first datagram from an address came, or it was dialled; a dial of an address that has
    /// a flow reports that flow again, with the dial.
    FlowUp(Arc<FlowFacts>),
    /// Messages that one read brought, in order; requests carry `received` and `rport` already.
    Messages {
        /// The flow.
        flow: Arc<FlowFacts>,
        /// The messages.
        messages: Vec<Message>,
    },
    /// Bytes that were handed over are written.
    Written {
        /// The flow.
        flow: FlowId,
        /// How many bytes since the last report: credit for as many more.
        bytes: u32,
    },
    /// The flow ended.
    FlowDown {
        /// The flow.
        flow: FlowId,
        /// Why, for the log.
        cause: String,
    },
    /// A dial gave no flow.
    DialFailed {
        /// The dial.
        dial: DialId,
        /// Why, for the log.
        cause: String,
    },
}

/// From the broker to the SIP transports.
#[derive(Debug, Clone)]
pub enum ToFlow {
    /// Open a flow to the first address that answers.
    Dial {
        /// Names the request in the answer.
        dial: DialId,
        /// The transport.
        transport: Transport,
        /// Whoever named the next hop named its transport too: then NAPTR records are not asked for (RFC 3263 §4.1).
        is_transport_named: bool,
        /// Host name or address, and port, of the next hop.
        host: Box<str>,
        /// The port; `None` leaves it, and the choice of targets, to RFC 3263.
        port: Option<u16>,
        /// The domain whose certificate must be shown on TLS (the input of RFC 3263, RFC 5922 §7.3).
        domain: Box<str>,
    },
    /// Write whole messages, one behind the other; on UDP one message.
    Bytes {
        /// The flow.
        flow: FlowId,
        /// The messages.
        bytes: Bytes,
    },
    /// Close the flow, and try its remote address last when something is dialled in the next `span`.
    Avoid {
        /// The flow.
        flow: FlowId,
        /// How long.
        span: Duration,
    },
    /// Try the flow's remote address last when something is dialled in the next `span`; the flow stays.
    Mark {
        /// The flow.
        flow: FlowId,
        /// How long.
        span: Duration,
    },
    /// The flow is somebody's who proved himself, so that it may stay. One that has ended is reported once more.
    Bound {
        /// The flow.
        flow: FlowId,
    },
    /// Close the flow once everything is written.
    Close {
        /// The flow.
        flow: FlowId,
    },
}

/// Where flows hand what they bring.
pub trait FlowSink: Send + Sync {
    /// Takes a value. Gives [`FromFlow::Messages`] back, less what was taken, when its receiver is full: the
    /// connection keeps the rest, stops reading and offers it again (UDP drops it). Every other value is always taken.
    fn offer(&self, value: FromFlow) -> Result<(), FromFlow>;
}

/// Where the broker hands what flows should do.
pub trait FlowPort: Send + Sync {
    /// Takes a value; what concerns an ended flow is dropped, since its end was or will be reported.
    fn send(&self, value: ToFlow);
}
