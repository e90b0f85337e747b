//! The gateway's end: it opens a link to each edge, and is to the broker what the edge's streams would be.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::sleep;
use tombolo_net::{AnyStream, MAX_ATTEMPTS, Resolver, Role, client_config, connect, connect_tls};
use tombolo_policy::Table;
use tombolo_runtime::{Backoff, BackoffSettings, Clock, Placement};

use super::{
    LinkIdentity, OWN, TABLE_CHECK, TLS_LIMIT,
    frame::LinkFrame,
    partners::PartnerRows,
    wire::{End, carry, greeted, push},
};
use crate::{
    DialId, DomainPair, EdgePort, FromEdge, StreamEnd, StreamId, StreamSink, ToEdge, outbox::Outbox,
};

/// All edges of a gateway.
pub struct LinkPort {
    edges: Vec<Arc<Edge>>,
    next: AtomicUsize,
    sink: Arc<dyn StreamSink>,
}

/// One edge, linked or not.
struct Edge {
    number: u64,
    host: String,
    port: u16,
    link: Mutex<Option<Arc<Outbox>>>,
    /// What the broker must be told to be over when the link ends.
    streams: Mutex<HashSet<StreamId>>,
    dials: Mutex<HashMap<DialId, DomainPair>>,
}

impl LinkPort {
    /// Begins to open a link to each edge (host and port), and again when one ends: soon, and ever more rarely
    /// while links end or fail at once.
    pub fn start(
        identity: LinkIdentity,
        edges: Vec<(String, u16)>,
        resolver: Resolver,
        policy: Arc<ArcSwap<Table>>,
        sink: Arc<dyn StreamSink>,
        placement: Placement,
        clock: Clock,
    ) -> Self {
        let identity = Arc::new(identity);
        let edges: Vec<Arc<Edge>> = edges
            .into_iter()
            .zip(1..)
            .map(|((host, port), number)| {
                Arc::new(Edge {
                    number,
                    host,
                    port,
                    link: Mutex::default(),
                    streams: Mutex::default(),
                    dials: Mutex::default(),
                })
            })
            .collect();
        for edge in &edges {
            let (edge, identity, resolver) = (edge.clone(), identity.clone(), resolver.clone());
            let (policy, sink, clock) = (policy.clone(), sink.clone(), clock.clone());
            placement.helpers().spawn(async move {
                let mut backoff = Backoff::new(RECONNECT, edge.number);
                loop {
                    match edge.open(&identity, &resolver, &clock).await {
                        Ok(stream) => {
                            tracing::info!(edge = edge.host, "edge linked");
                            let begun = clock.now().instant;
                            let error = edge.run(stream, &policy, &sink).await;
                            tracing::warn!(edge = edge.host, %error, "link ended");
                            edge.end(&sink);
                            if clock.now().instant - begun >= STEADY_AFTER {
                                backoff.reset();
                            }
                        }
                        Err(error) => tracing::warn!(edge = edge.host, %error, "no link"),
                    }
                    backoff.fail();
                    sleep(backoff.wait()).await;
                }
            });
        }
        Self { edges, next: AtomicUsize::new(0), sink }
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
                // Round robin over the edges that are linked.
                let first = self.next.fetch_add(1, Ordering::Relaxed);
                let count = self.edges.len();
                let is_sent = (0..count).any(|n| self.edges[(first + n) % count].dial(dial, &pair));
                if !is_sent {
                    // Always taken, by the sink's contract.
                    let _ = self.sink.offer(FromEdge::DialFailed { dial, end: StreamEnd::LinkLost });
                }
            }
            ToEdge::Stanzas { stream, .. }
            | ToEdge::Credit { stream, .. }
            | ToEdge::Close { stream }
            | ToEdge::GiveUp { stream } => {
                let Some(edge) = self.edge_of(stream) else { return };
                let link = edge.link.lock().clone();
                if let Some(link) = link {
                    edge.push(&link, value);
                }
            }
            ToEdge::Beat => {}
        }
    }
}

impl Edge {
    /// Hands a dial to this edge; `false` when it is not linked.
    fn dial(&self, dial: DialId, pair: &DomainPair) -> bool {
        // The lock is held until the dial is noted: the end of the link either finds it or came before.
        let link = self.link.lock();
        let Some(link) = &*link else { return false };
        self.dials.lock().insert(dial, pair.clone());
        self.push(link, ToEdge::Dial { dial, pair: pair.clone() });
        true
    }

    /// An edge that takes so little that this does not fit is lost.
    fn push(&self, link: &Outbox, value: ToEdge) {
        push(link, &LinkFrame::ToEdge(self.outward(value)));
    }

    async fn open(
        &self,
        identity: &LinkIdentity,
        resolver: &Resolver,
        clock: &Clock,
    ) -> io::Result<AnyStream> {
        let addresses = resolver.addresses(&self.host, self.port).await.map_err(io::Error::other)?;
        let socket = connect(&addresses, CONNECT_LIMIT).await.inspect_err(|_| {
            resolver.pass_over(&self.host, addresses.len().min(MAX_ATTEMPTS));
        })?;
        let config = client_config(identity.certificates.certificate(OWN), &[]);
        let (stream, facts) =
            connect_tls(socket, config, &self.host, TLS_LIMIT).await.map_err(io::Error::other)?;
        facts
            .certificates
            .verify_host(&identity.trust, Role::Server, std::slice::from_ref(&self.host), clock.now().wall)
            .map_err(io::Error::other)?;
        Ok(stream)
    }

    async fn run(
        self: &Arc<Self>,
        stream: AnyStream,
        policy: &ArcSwap<Table>,
        sink: &Arc<dyn StreamSink>,
    ) -> io::Error {
        // The hello goes first, then the table; without one an edge refuses everybody.
        let outbox = greeted();
        let mut table = policy.load_full();
        push_table(&outbox, &table);
        *self.link.lock() = Some(outbox.clone());
        let carried = carry(stream, End::Gateway, outbox.clone(), |frame| {
            let (edge, sink, outbox) = (self.clone(), sink.clone(), outbox.clone());
            async move {
                if let LinkFrame::FromEdge(value) = frame {
                    edge.take(value, &sink, &outbox).await;
                }
            }
        });
        let tables = async {
            loop {
                sleep(TABLE_CHECK).await;
                let newest = policy.load_full();
                if !Arc::ptr_eq(&table, &newest) {
                    push_table(&outbox, &newest);
                    table = newest;
                }
            }
        };
        tokio::select! {
            error = carried => error,
            error = tables => error,
        }
    }

    /// One value from the edge, for the broker; its stream numbers are made unique over edges.
    async fn take(&self, value: FromEdge, sink: &Arc<dyn StreamSink>, outbox: &Outbox) {
        let value = self.inward(value);
        match &value {
            FromEdge::StreamUp { stream, dial, pair, .. } => {
                if let Some(dial) = dial
                    && self.dials.lock().remove(dial).as_ref() != Some(pair)
                {
                    // It answers a dial of before, or of another gateway: what is meant for one partner must not go to
                    // another.
                    tracing::warn!(edge = self.host, partner = %pair.remote, "a stream that nobody asked for");
                    return self.push(outbox, ToEdge::Close { stream: *stream });
                }
                self.streams.lock().insert(*stream);
            }
            FromEdge::StreamDown { stream, .. } => {
                self.streams.lock().remove(stream);
            }
            FromEdge::DialFailed { dial, .. } => {
                self.dials.lock().remove(dial);
            }
            _ => {}
        }
        let credit = match &value {
            FromEdge::Stanzas { stream, stanzas, .. } => {
                Some((*stream, stanzas.iter().map(Bytes::len).sum::<usize>() as u32))
            }
            _ => None,
        };
        let mut offered = value;
        while let Err(rest) = sink.offer(offered) {
            offered = rest;
            sleep(FULL_PAUSE).await;
        }
        if let Some((stream, bytes)) = credit {
            self.push(outbox, ToEdge::Credit { stream, bytes });
        }
    }

    /// The link ended: with it all of its streams and dials.
    fn end(&self, sink: &Arc<dyn StreamSink>) {
        *self.link.lock() = None;
        let streams = std::mem::take(&mut *self.streams.lock());
        let dials = std::mem::take(&mut *self.dials.lock());
        for stream in streams {
            let down = FromEdge::StreamDown { stream, end: StreamEnd::LinkLost, last_written: 0 };
            let _ = sink.offer(down);
        }
        for dial in dials.into_keys() {
            let _ = sink.offer(FromEdge::DialFailed { dial, end: StreamEnd::LinkLost });
        }
    }

    fn outer(&self, stream: StreamId) -> StreamId {
        StreamId(stream.0 & STREAM_MASK | self.number << EDGE_SHIFT)
    }

    fn inward(&self, value: FromEdge) -> FromEdge {
        let outer = |stream| self.outer(stream);
        match value {
            FromEdge::StreamUp { stream, direction, dial, pair, method, tls, window_bytes } => {
                let stream = outer(stream);
                FromEdge::StreamUp { stream, direction, dial, pair, method, tls, window_bytes }
            }
            FromEdge::PairProved { stream, pair } => FromEdge::PairProved { stream: outer(stream), pair },
            FromEdge::PairLost { stream, pair } => FromEdge::PairLost { stream: outer(stream), pair },
            FromEdge::Stanzas { stream, first, stanzas } => {
                FromEdge::Stanzas { stream: outer(stream), first, stanzas }
            }
            FromEdge::Written { stream, last, bytes } => {
                FromEdge::Written { stream: outer(stream), last, bytes }
            }
            FromEdge::StreamDown { stream, end, last_written } => {
                FromEdge::StreamDown { stream: outer(stream), end, last_written }
            }
            other @ (FromEdge::DialFailed { .. } | FromEdge::Beat) => other,
        }
    }

    fn outward(&self, value: ToEdge) -> ToEdge {
        let inner = |stream: StreamId| StreamId(stream.0 & STREAM_MASK);
        match value {
            ToEdge::Stanzas { stream, count, bytes } => {
                ToEdge::Stanzas { stream: inner(stream), count, bytes }
            }
            ToEdge::Credit { stream, bytes } => ToEdge::Credit { stream: inner(stream), bytes },
            ToEdge::Close { stream } => ToEdge::Close { stream: inner(stream) },
            ToEdge::GiveUp { stream } => ToEdge::GiveUp { stream: inner(stream) },
            other @ (ToEdge::Dial { .. } | ToEdge::Beat) => other,
        }
    }
}

fn push_table(outbox: &Outbox, table: &Table) {
    push(outbox, &LinkFrame::Partners(PartnerRows::of(table)));
}

/// The edge's number stands above its own stream numbers.
const EDGE_SHIFT: u32 = 48;
const STREAM_MASK: u64 = (1 << EDGE_SHIFT) - 1;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const RECONNECT: BackoffSettings =
    BackoffSettings { floor: Duration::from_millis(500), cap: Duration::from_secs(15) };
/// A link that lasted so long was a good one: the next failure counts as the first.
const STEADY_AFTER: Duration = Duration::from_secs(15);
const FULL_PAUSE: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use tombolo_presence::Domain;

    use super::*;
    use crate::{ProofMethod, StreamDirection};

    #[derive(Default)]
    struct Heard(Mutex<Vec<FromEdge>>);

    impl StreamSink for Heard {
        fn offer(&self, value: FromEdge) -> Result<(), FromEdge> {
            self.0.lock().push(value);
            Ok(())
        }
    }

    fn pair(remote: &str) -> DomainPair {
        let domain = |name| Domain::from_prepared(name).expect("prepared");
        DomainPair { local: domain("corp.example"), remote: domain(remote) }
    }

    fn up(stream: u64, dial: u64, remote: &str) -> FromEdge {
        FromEdge::StreamUp {
            stream: StreamId(stream),
            direction: StreamDirection::Outgoing,
            dial: Some(DialId(dial)),
            pair: pair(remote),
            method: ProofMethod::SaslExternal,
            tls: None,
            window_bytes: 1,
        }
    }

    fn edge(number: u64) -> Edge {
        let (link, streams, dials) = Default::default();
        Edge { number, host: "edge.example".to_owned(), port: 5300, link, streams, dials }
    }

    #[tokio::test]
    async fn a_stream_counts_only_as_the_answer_to_a_dial_of_this_link_for_the_same_pair() {
        let (edge, heard, outbox) = (edge(1), Arc::new(Heard::default()), Arc::new(Outbox::default()));
        let sink: Arc<dyn StreamSink> = heard.clone();
        *edge.link.lock() = Some(outbox.clone());
        assert!(edge.dial(DialId(1), &pair("one.example")));
        edge.take(up(10, 1, "two.example"), &sink, &outbox).await;
        edge.take(up(11, 2, "two.example"), &sink, &outbox).await;
        assert!(heard.0.lock().is_empty(), "neither is handed on");
        assert!(edge.dial(DialId(3), &pair("one.example")));
        edge.take(up(12, 3, "one.example"), &sink, &outbox).await;
        let heard = std::mem::take(&mut *heard.0.lock());
        let [FromEdge::StreamUp { stream, .. }] = &heard[..] else { panic!("{heard:?}") };
        assert_eq!(*stream, StreamId(12 | 1 << EDGE_SHIFT));

        let (bytes, _) = outbox.take().await.expect("what was sent");
        let mut bytes = bytes::BytesMut::from(&bytes[..]);
        let mut closed = Vec::new();
        while let Some(frame) = LinkFrame::decode(&mut bytes).expect("frames") {
            if let LinkFrame::ToEdge(ToEdge::Close { stream }) = frame {
                closed.push(stream.0);
            }
        }
        assert_eq!(closed, [10, 11], "by the edge's own numbers");
    }

    #[tokio::test]
    async fn the_end_of_a_link_is_told_for_each_stream_and_each_dial_once() {
        let (edge, heard, outbox) = (edge(2), Arc::new(Heard::default()), Arc::new(Outbox::default()));
        let sink: Arc<dyn StreamSink> = heard.clone();
        *edge.link.lock() = Some(outbox.clone());
        for dial in 1..=2 {
            edge.dial(DialId(dial), &pair("one.example"));
        }
        edge.take(up(5, 1, "one.example"), &sink, &outbox).await;
        heard.0.lock().clear();
        edge.end(&sink);
        edge.end(&sink);
        assert!(!edge.dial(DialId(9), &pair("one.example")), "no link, no dial");
        let told: Vec<String> = heard.0.lock().iter().map(|value| format!("{value:?}")).collect();
        let stream = 5 | 2_u64 << EDGE_SHIFT;
        assert_eq!(
            told,
            [
                format!("StreamDown {{ stream: StreamId({stream}), end: LinkLost, last_written: 0 }}"),
                "DialFailed { dial: DialId(2), end: LinkLost }".to_owned(),
            ]
        );
    }
}
