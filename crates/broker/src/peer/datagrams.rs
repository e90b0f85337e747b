//! Requests of ours that are large for UDP (RFC 3261 §18.1.1): they go by a stream of the peer where it has one, or
//! [lets us open one](super::beside).
//!
//! Without one, newest state (NOTIFY) still goes in fragments, since losing it would lose the subscription; the shard cuts
//! notes before, so that this is rare. A message does not (RFC 3428 §8): its sender is told.

use std::sync::Arc;

use tombolo_edge::FlowFacts;
use tombolo_interwork::{head_len, owner::PeerWay, request::RequestDraft};

use super::{Peer, PeerOutput, Sent, way_of};

impl Peer {
    /// The flow by which a request leaves whole, where `current` would be the one; `None` when it is too large for datagrams
    /// and there is no stream.
    pub(super) fn flow_that_takes(&self, sent: &Sent, current: Arc<FlowFacts>) -> Option<Arc<FlowFacts>> {
        let takes = current.transport.is_reliable()
            || request_len(&sent.draft, sent.uri.as_deref()) <= MAX_DATAGRAM_REQUEST;
        if takes { Some(current) } else { self.newest_stream() }
    }

    /// The flow by which a request leaves that is too large for datagrams where there is no stream; `None` when it doesn't.
    pub(super) fn flow_without_stream(
        &mut self,
        sent: &Sent,
        current: Arc<FlowFacts>,
    ) -> Option<Arc<FlowFacts>> {
        let (method, len) = (sent.draft.method, request_len(&sent.draft, sent.uri.as_deref()));
        self.out.push_back(PeerOutput::TooLarge { method, len });
        (method == "NOTIFY" && len <= MAX_DATAGRAM).then_some(current)
    }

    /// How the peer is reached by a flow, and whether large requests find a stream beside it.
    pub(super) fn way_by(&self, flow: &FlowFacts) -> PeerWay {
        let way = way_of(flow);
        PeerWay { takes_large: way.takes_large || self.newest_stream().is_some(), ..way }
    }

    pub(super) fn newest_stream(&self) -> Option<Arc<FlowFacts>> {
        let mut newest = self.flows.iter().rev().map(|live| &live.facts);
        newest.find(|facts| facts.transport.is_reliable()).cloned()
    }
}

/// Octets of a request when it is written.
fn request_len(draft: &RequestDraft, uri: Option<&str>) -> usize {
    // More than the head can take with Via and Contact: most requests are known to be small without being written.
    let bound = draft.head_octets() + uri.map_or(0, str::len) + 600 + draft.body.len();
    if bound <= MAX_DATAGRAM_REQUEST {
        return bound;
    }
    let own_uri = draft.uri.len();
    head_len(draft) + uri.map_or(own_uri, str::len) - own_uri + draft.body.len()
}

/// Octets of a request that may go by UDP where the path's MTU is not known (RFC 3261 §18.1.1).
const MAX_DATAGRAM_REQUEST: usize = 1300;
/// Octets that a datagram can hold, less some for the headers of IP and UDP.
const MAX_DATAGRAM: usize = 65_000;
