//! Actors that own a socket: XMPP streams, SIP connections, the inside link between edge and gateway.
//!
//! They know bytes and the stream, never who watches whom. What they bring and take are the values of
//! [`stream_values`] and [`flow_values`].

pub mod flow_values;
mod outbox;
mod sip_connection;
mod sip_edge;
mod sip_udp;
pub mod stream_values;

pub use flow_values::{FlowFacts, FlowId, FlowPort, FlowSink, FromFlow, ToFlow, Transport};
pub use sip_edge::{SipEdge, SipEdgeSettings};
pub use stream_values::{
    BEAT, BEAT_LOST, DialId, DomainPair, EdgePort, FromEdge, ProofMethod, STREAM_WINDOW_BYTES,
    StreamDirection, StreamEnd, StreamId, StreamSink, ToEdge,
};
