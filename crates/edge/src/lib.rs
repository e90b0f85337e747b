//! Actors that own a socket: XMPP streams, SIP connections, the inside link between edge and gateway.
//!
//! They know bytes and the stream, never who watches whom. What they bring and take are the values of
//! [`stream_values`] and [`flow_values`].

mod accept_trouble;
mod caught;
mod dialback_verify;
mod doors;
pub mod flow_values;
mod link;
mod negotiation;
mod network;
mod outbox;
mod refused_steps;
mod sip_admission;
mod sip_avoided;
mod sip_connection;
mod sip_dial;
mod sip_edge;
mod sip_listener;
mod sip_remotes;
mod sip_udp;
mod sip_wire;
mod stream_end;
mod stream_policy;
mod stream_upkeep;
pub mod stream_values;
mod written;
mod xmpp_connection;
mod xmpp_dial;
mod xmpp_edge;
mod xmpp_listener;

pub use doors::DoorLimits;
pub use flow_values::{FlowFacts, FlowId, FlowPort, FlowSink, FromFlow, ToFlow, Transport};
pub use link::{
    LinkIdentity, LinkListener, LinkPort, LinkPortSettings, LinkReport, LinkReports, LinkSettings, LinkSink,
    LinkState,
};
pub use sip_edge::{SipEdge, SipEdgeSettings};
pub use stream_upkeep::StreamPace;
pub use stream_values::{
    Absence, BEAT, BEAT_LOST, DialId, DomainPair, EdgePort, FromEdge, ProofMethod, STREAM_WINDOW_BYTES,
    StreamDirection, StreamEnd, StreamId, StreamSink, StreamTls, ToEdge,
};
pub use xmpp_edge::{XmppEdge, XmppEdgeSettings};
