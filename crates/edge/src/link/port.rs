//! The gateway's end: it opens a link to each edge, and is to the broker what the edge's streams would be.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use arc_swap::ArcSwap;
use tombolo_net::Resolver;
use tombolo_policy::Table;
use tombolo_runtime::{Clock, Placement, lasting};
use tombolo_telemetry::{Metrics, tell_lasting_panic};

use super::{
    LinkIdentity,
    edge::{EDGE_SHIFT, Edge, State, Way},
    standing::{LinkReport, Side, Standings},
};
use crate::{EdgePort, FromEdge, StreamEnd, StreamId, StreamSink, ToEdge};

/// What a gateway's links are set to.
pub struct LinkPortSettings {
    /// What proves the gateway, and whom it trusts.
    pub identity: LinkIdentity,
    /// Host and port of each edge.
    pub edges: Vec<(String, u16)>,
    /// Finds their addresses.
    pub resolver: Resolver,
    /// Where panics are counted; its health is told how the links stand.
    pub metrics: Arc<Metrics>,
}

/// All edges of a gateway.
pub struct LinkPort {
    edges: Vec<Arc<Edge>>,
    next: AtomicUsize,
    sink: Arc<dyn StreamSink>,
    standings: Standings,
}

impl LinkPort {
    /// Begins to open a link to each edge, and again when one ends: soon, and ever more rarely while links end or fail at
    /// once.
    pub fn start(
        settings: LinkPortSettings,
        policy: Arc<ArcSwap<Table>>,
        sink: Arc<dyn StreamSink>,
        placement: Placement,
        clock: Clock,
    ) -> Self {
        let LinkPortSettings { identity, edges, resolver, metrics } = settings;
        let identity = Arc::new(identity);
        let peers = edges.iter().map(|(host, port)| format!("edge {host}:{port}")).collect();
        let standings = Standings::new(Side::Gateway, peers, metrics.health(), clock.clone());
        let edges: Vec<Arc<Edge>> = edges
            .into_iter()
            .zip(1..)
            .map(|((host, port), number)| Arc::new(Edge::new(number, host, port)))
            .collect();
        for (index, edge) in edges.iter().enumerate() {
            let standing = standings.link(index);
            let (edge, identity, resolver) = (edge.clone(), identity.clone(), resolver.clone());
            let (policy, sink, clock) = (policy.clone(), sink.clone(), clock.clone());
            let told = metrics.clone();
            let of_edge = metrics.clone();
            let begin = move || {
                let way =
                    Way { identity: identity.clone(), resolver: resolver.clone(), clock: clock.clone() };
                let (edge, policy, sink) = (edge.clone(), policy.clone(), sink.clone());
                let (standing, metrics) = (standing.clone(), of_edge.clone());
                async move { edge.keep_linked(&way, &policy, &sink, &standing, &metrics).await }
            };
            placement
                .helpers()
                .spawn(lasting(begin, move |panicked| tell_lasting_panic(&told, "link", panicked)));
        }
        Self { edges, next: AtomicUsize::new(0), sink, standings }
    }

    /// How the link to each edge stands.
    pub fn links(&self) -> Vec<LinkReport> {
        self.standings.reports()
    }

    fn edge_of(&self, stream: StreamId) -> Option<&Arc<Edge>> {
        let number = stream.0 >> EDGE_SHIFT;
        self.edges.iter().find(|edge| edge.number == number)
    }
}

impl EdgePort for LinkPort {
    fn send(&self, value: ToEdge) {
        match value {
            ToEdge::Dial { dial, pair } => {
                // Round robin over the edges that are linked; else over those that may be soon.
                let first = self.next.fetch_add(1, Ordering::Relaxed);
                let count = self.edges.len();
                let by = |state| (0..count).any(|n| self.edges[(first + n) % count].dial(dial, &pair, state));
                if !(by(State::Up) || by(State::Waiting)) {
                    // Always taken, by the sink's contract.
                    let _ = self.sink.offer(FromEdge::DialFailed { dial, end: StreamEnd::LinkLost });
                }
            }
            ToEdge::Stanzas { stream, .. }
            | ToEdge::Credit { stream, .. }
            | ToEdge::Close { stream }
            | ToEdge::GiveUp { stream } => {
                if let Some(edge) = self.edge_of(stream) {
                    edge.push(value);
                }
            }
            ToEdge::Beat => {}
        }
    }
}
