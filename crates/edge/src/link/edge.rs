//! One edge as its gateway knows it: the link to it, the streams and dials that depend on that, and what it says.
//!
//! In: what the broker says to the edge's streams. Out: what the edge says, to the broker's sink.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rand::RngExt;
use tokio::time::sleep;
use tombolo_net::{AnyStream, MAX_ATTEMPTS, Resolver, Role, canonical, client_config, connect, connect_tls};
use tombolo_policy::Table;
use tombolo_runtime::{Backoff, BackoffSettings, Clock, guard};
use tombolo_telemetry::Metrics;

use super::{
    LINK_GRACE, LinkIdentity, OWN, TABLE_CHECK, TLS_LIMIT,
    frame::LinkFrame,
    journal::Journal,
    partners::PartnerRows,
    standing::{LinkStanding, LinkState},
    wire::{End, Greeting, carry, read_greeting, send_greeting, send_refusal},
};
use crate::{DialId, DomainPair, FromEdge, StreamEnd, StreamId, StreamSink, ToEdge, caught::note};

/// How an edge is reached.
pub(super) struct Way {
    pub(super) identity: Arc<LinkIdentity>,
    pub(super) resolver: Resolver,
    pub(super) clock: Clock,
}

/// One edge, linked or not.
pub(super) struct Edge {
    pub(super) number: u64,
    host: String,
    port: u16,
    link: Mutex<Link>,
    /// What the broker must be told to be over when the link ends.
    streams: Mutex<HashSet<StreamId>>,
    dials: Mutex<HashMap<DialId, DomainPair>>,
    /// What the edge said and the broker has not taken yet. It stays when the connection ends.
    pending: Mutex<Option<FromEdge>>,
    /// The partner table that the edge has.
    table: Mutex<Option<Arc<Table>>>,
}

/// The link to an edge.
struct Link {
    state: State,
    session: u128,
    journal: Arc<Journal>,
    /// The edge knows of this link.
    was_up: bool,
    /// Counts breaks, so that the end of one's grace ends no other.
    breaks: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Up,
    /// Not connected, and not for long: what is to be said waits.
    Waiting,
    /// Not connected for longer than [`LINK_GRACE`].
    Down,
}

impl Link {
    fn new() -> Self {
        let session = rand::rng().random();
        Self { state: State::Waiting, session, journal: Arc::default(), was_up: false, breaks: 0 }
    }
}

impl Edge {
    pub(super) fn new(number: u64, host: String, port: u16) -> Self {
        Self {
            number,
            host,
            port,
            link: Mutex::new(Link::new()),
            streams: Mutex::default(),
            dials: Mutex::default(),
            pending: Mutex::default(),
            table: Mutex::default(),
        }
    }

    /// Hands a dial to this edge; `false` when its link is in another state.
    pub(super) fn dial(&self, dial: DialId, pair: &DomainPair, state: State) -> bool {
        // The lock is held until the dial is noted: the end of the link either finds it or came before.
        let link = self.link.lock();
        if link.state != state {
            return false;
        }
        self.dials.lock().insert(dial, pair.clone());
        link.journal.push(&LinkFrame::ToEdge(ToEdge::Dial { dial, pair: pair.clone() }));
        true
    }

    /// Says something about a stream. Nothing is said to an edge whose streams are over.
    pub(super) fn push(&self, value: ToEdge) {
        let link = self.link.lock();
        if link.state != State::Down {
            link.journal.push(&LinkFrame::ToEdge(outward(value)));
        }
    }

    /// Opens the link, and again when it ends: soon, and ever more rarely while links end or fail at once. Never ends.
    pub(super) async fn keep_linked(
        self: &Arc<Self>,
        way: &Way,
        policy: &ArcSwap<Table>,
        sink: &Arc<dyn StreamSink>,
        standing: &LinkStanding,
        metrics: &Arc<Metrics>,
    ) {
        let mut backoff = Backoff::new(RECONNECT, self.number);
        self.wait_for_connection(sink, metrics);
        loop {
            match self.open(way).await {
                Ok(connection) => {
                    let begun = way.clock.now().instant;
                    let error = self.run(connection, policy, sink, standing, metrics).await;
                    tracing::warn!(edge = self.host, %error, "link ended");
                    standing.broken(error.to_string());
                    self.wait_for_connection(sink, metrics);
                    if way.clock.now().instant - begun >= STEADY_AFTER {
                        backoff.reset();
                    }
                }
                Err(error) => {
                    tracing::warn!(edge = self.host, %error, "no link");
                    standing.failed(error.to_string());
                }
            }
            backoff.fail();
            // While streams wait for the link there is no time for long pauses.
            let state = self.link.lock().state;
            let wait = match state {
                State::Waiting => RECONNECT.floor,
                State::Up | State::Down => backoff.wait(),
            };
            if state == State::Down {
                standing.down(None);
            }
            standing.tries_in(wait);
            sleep(wait).await;
        }
    }

    /// There is no connection. Streams and dials wait for the next one, and after the grace they are over.
    fn wait_for_connection(self: &Arc<Self>, sink: &Arc<dyn StreamSink>, metrics: &Arc<Metrics>) {
        let breaks = {
            let mut link = self.link.lock();
            if link.state == State::Down {
                return;
            }
            link.state = State::Waiting;
            link.breaks += 1;
            link.breaks
        };
        let (edge, sink, metrics) = (self.clone(), sink.clone(), metrics.clone());
        tokio::spawn(async move {
            sleep(LINK_GRACE).await;
            {
                let mut link = edge.link.lock();
                if link.state != State::Waiting || link.breaks != breaks {
                    return;
                }
                *link = Link { state: State::Down, breaks, ..Link::new() };
            }
            edge.end_streams(&sink, &metrics);
            edge.end_dials(&sink, &metrics);
        });
    }

    /// There is a connection; true when the link goes on. Where the edge does not know the link, its streams are over and
    /// its dials are handed over again, behind the partner table: without one an edge refuses everybody.
    fn connect(
        &self,
        greeting: Greeting,
        table: &Arc<Table>,
        sink: &Arc<dyn StreamSink>,
        metrics: &Metrics,
    ) -> bool {
        let mut link = self.link.lock();
        link.state = State::Up;
        let was_up = std::mem::replace(&mut link.was_up, true);
        let is_resumed = greeting.is_resumed
            && was_up
            && !link.journal.is_over()
            && link.journal.resume(greeting.received);
        if !is_resumed {
            link.journal = Arc::default();
            *self.pending.lock() = None;
            link.journal.push(&table_frame(table));
            *self.table.lock() = Some(table.clone());
            for (dial, pair) in &*self.dials.lock() {
                link.journal.push(&LinkFrame::ToEdge(ToEdge::Dial { dial: *dial, pair: pair.clone() }));
            }
            drop(link);
            self.end_streams(sink, metrics);
        }
        is_resumed
    }

    async fn open(&self, way: &Way) -> io::Result<(AnyStream, BytesMut, Greeting)> {
        let Way { identity, resolver, clock } = way;
        let addresses = resolver.addresses(&self.host, self.port).await.map_err(io::Error::other)?;
        let socket = connect(&addresses, CONNECT_LIMIT).await.inspect_err(|_| {
            resolver.pass_over(&self.host, addresses.len().min(MAX_ATTEMPTS));
        })?;
        let config = client_config(identity.certificates.certificate(OWN), &[]);
        let (mut stream, facts) =
            connect_tls(socket, config, &self.host, TLS_LIMIT).await.map_err(io::Error::other)?;
        let hosts = std::slice::from_ref(&self.host);
        let judged = facts.certificates.verify_host(&identity.trust, Role::Server, hosts, clock.now().wall);
        if let Err(fault) = judged {
            send_refusal(&mut stream, fault.to_string()).await;
            return Err(io::Error::other(fault));
        }
        let own = {
            let link = self.link.lock();
            Greeting { session: link.session, received: link.journal.received(), is_resumed: false }
        };
        send_greeting(&mut stream, own).await?;
        let mut buffer = BytesMut::new();
        let greeting = read_greeting(&mut stream, &mut buffer).await?;
        if greeting.session != self.link.lock().session {
            return Err(io::Error::other("the link was given up meanwhile"));
        }
        Ok((stream, buffer, greeting))
    }

    async fn run(
        self: &Arc<Self>,
        (stream, buffer, greeting): (AnyStream, BytesMut, Greeting),
        policy: &ArcSwap<Table>,
        sink: &Arc<dyn StreamSink>,
        standing: &LinkStanding,
        metrics: &Metrics,
    ) -> io::Error {
        let is_resumed = self.connect(greeting, &policy.load_full(), sink, metrics);
        if greeting.is_resumed && !is_resumed && greeting.received > 0 {
            self.link.lock().session = rand::rng().random();
            return io::Error::other("the two ends do not mean the same link");
        }
        let journal = self.link.lock().journal.clone();
        tracing::info!(edge = self.host, is_resumed, "edge linked");
        standing.connected(LinkState::Up, stream.tcp().peer_addr().ok().map(canonical), &journal);
        let carried = async {
            self.hand_on(sink).await;
            carry(stream, buffer, End::Gateway, journal.clone(), metrics, |frame| {
                let edge = self;
                async move {
                    if let LinkFrame::FromEdge(value) = frame {
                        edge.take(value, sink).await;
                    }
                }
            })
            .await
        };
        let tables = async {
            loop {
                self.say_table(&journal, policy);
                sleep(TABLE_CHECK).await;
            }
        };
        tokio::select! {
            error = carried => error,
            never = tables => never,
        }
    }

    /// Tells the edge of another partner table than it has.
    fn say_table(&self, journal: &Journal, policy: &ArcSwap<Table>) {
        let newest = policy.load_full();
        let mut known = self.table.lock();
        if !known.as_ref().is_some_and(|known| Arc::ptr_eq(known, &newest)) {
            journal.push(&table_frame(&newest));
            *known = Some(newest);
        }
    }

    /// One value from the edge, for the broker; its stream numbers are made unique over edges.
    async fn take(&self, value: FromEdge, sink: &Arc<dyn StreamSink>) {
        let value = self.inward(value);
        match &value {
            FromEdge::StreamUp { stream, dial, pair, .. } => {
                if let Some(dial) = dial
                    && self.dials.lock().remove(dial).as_ref() != Some(pair)
                {
                    // It answers a dial of before, or of another gateway: what is meant for one partner must not go to
                    // another.
                    tracing::warn!(edge = self.host, partner = %pair.remote, "a stream that nobody asked for");
                    return self.push(ToEdge::Close { stream: *stream });
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
        *self.pending.lock() = Some(value);
        self.hand_on(sink).await;
    }

    /// Offers what the edge said last until it is taken. The connection may end meanwhile: what is not taken stays.
    async fn hand_on(&self, sink: &Arc<dyn StreamSink>) {
        loop {
            let Some(value) = self.pending.lock().take() else { return };
            let stream = match &value {
                FromEdge::Stanzas { stream, .. } => Some(*stream),
                _ => None,
            };
            let offered = stanza_bytes(&value);
            let left = match sink.offer(value) {
                Ok(()) => 0,
                Err(rest) => {
                    let left = stanza_bytes(&rest);
                    *self.pending.lock() = Some(rest);
                    left
                }
            };
            if let Some(stream) = stream.filter(|_| offered > left) {
                self.push(ToEdge::Credit { stream, bytes: (offered - left) as u32 });
            }
            if left > 0 {
                sleep(FULL_PAUSE).await;
            }
        }
    }

    /// The link is over: with it all of its streams.
    fn end_streams(&self, sink: &Arc<dyn StreamSink>, metrics: &Metrics) {
        *self.pending.lock() = None;
        let streams = std::mem::take(&mut *self.streams.lock());
        for stream in streams {
            let down = FromEdge::StreamDown { stream, end: StreamEnd::LinkLost, last_written: 0 };
            tell(sink, down, metrics);
        }
    }

    fn end_dials(&self, sink: &Arc<dyn StreamSink>, metrics: &Metrics) {
        let dials = std::mem::take(&mut *self.dials.lock());
        for dial in dials.into_keys() {
            tell(sink, FromEdge::DialFailed { dial, end: StreamEnd::LinkLost }, metrics);
        }
    }

    /// Puts the edge's number above its own number of a stream.
    fn inward(&self, mut value: FromEdge) -> FromEdge {
        if let Some(stream) = value.stream_mut() {
            *stream = StreamId(stream.0 & STREAM_MASK | self.number << EDGE_SHIFT);
        }
        value
    }
}

/// Takes the edge's number off the number of a stream.
fn outward(mut value: ToEdge) -> ToEdge {
    if let Some(stream) = value.stream_mut() {
        *stream = StreamId(stream.0 & STREAM_MASK);
    }
    value
}

/// Tells the broker what it always takes. One value that it panics over must not keep it from the others.
fn tell(sink: &Arc<dyn StreamSink>, value: FromEdge, metrics: &Metrics) {
    if let Err(panicked) = guard(|| sink.offer(value)) {
        note(metrics, "link report", &panicked);
    }
}

fn table_frame(table: &Table) -> LinkFrame {
    LinkFrame::Partners(PartnerRows::of(table))
}

fn stanza_bytes(value: &FromEdge) -> usize {
    match value {
        FromEdge::Stanzas { stanzas, .. } => stanzas.iter().map(Bytes::len).sum(),
        _ => 0,
    }
}

/// The edge's number stands above its own stream numbers.
pub(super) const EDGE_SHIFT: u32 = 48;
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
            max_stanza_bytes: None,
        }
    }

    fn edge(number: u64) -> Arc<Edge> {
        let edge = Edge::new(number, "edge.example".to_owned(), 5300);
        edge.link.lock().state = State::Up;
        Arc::new(edge)
    }

    /// What waits for the edge.
    async fn said(edge: &Edge) -> Vec<LinkFrame> {
        let journal = edge.link.lock().journal.clone();
        let mut frames = Vec::new();
        let mut bytes = BytesMut::from(&journal.take().await.expect("what was said")[..]);
        while let Some(frame) = LinkFrame::decode(&mut bytes).expect("frames") {
            frames.push(frame);
        }
        frames
    }

    #[tokio::test]
    async fn a_stream_counts_only_as_the_answer_to_a_dial_of_this_link_for_the_same_pair() {
        let (edge, heard) = (edge(1), Arc::new(Heard::default()));
        let sink: Arc<dyn StreamSink> = heard.clone();
        assert!(edge.dial(DialId(1), &pair("one.example"), State::Up));
        edge.take(up(10, 1, "two.example"), &sink).await;
        edge.take(up(11, 2, "two.example"), &sink).await;
        assert!(heard.0.lock().is_empty(), "neither is handed on");
        assert!(edge.dial(DialId(3), &pair("one.example"), State::Up));
        edge.take(up(12, 3, "one.example"), &sink).await;
        let heard = std::mem::take(&mut *heard.0.lock());
        let [FromEdge::StreamUp { stream, .. }] = &heard[..] else { panic!("{heard:?}") };
        assert_eq!(*stream, StreamId(12 | 1 << EDGE_SHIFT));

        let closed: Vec<u64> = said(&edge)
            .await
            .into_iter()
            .filter_map(|frame| match frame {
                LinkFrame::ToEdge(ToEdge::Close { stream }) => Some(stream.0),
                _ => None,
            })
            .collect();
        assert_eq!(closed, [10, 11], "by the edge's own numbers");
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_without_a_connection_is_over_after_the_grace_and_its_streams_and_dials_are_told_once() {
        let (edge, heard) = (edge(2), Arc::new(Heard::default()));
        let metrics = Arc::new(Metrics::new(1));
        let sink: Arc<dyn StreamSink> = heard.clone();
        for dial in 1..=2 {
            edge.dial(DialId(dial), &pair("one.example"), State::Up);
        }
        edge.take(up(5, 1, "one.example"), &sink).await;
        heard.0.lock().clear();
        edge.wait_for_connection(&sink, &metrics);
        edge.wait_for_connection(&sink, &metrics);
        assert!(!edge.dial(DialId(9), &pair("one.example"), State::Up), "no link, no dial");
        sleep(LINK_GRACE / 2).await;
        assert!(heard.0.lock().is_empty(), "it may come back");
        sleep(LINK_GRACE).await;
        assert!(!edge.dial(DialId(9), &pair("one.example"), State::Waiting));
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

    #[tokio::test]
    async fn an_edge_that_was_started_again_ends_the_streams_and_is_given_the_dials_behind_the_table() {
        let (edge, heard) = (edge(1), Arc::new(Heard::default()));
        let metrics = Arc::new(Metrics::new(1));
        let sink: Arc<dyn StreamSink> = heard.clone();
        let table = Arc::new(Table::new(1, Vec::new(), Vec::new()).expect("empty"));
        let session = edge.link.lock().session;
        let greeting = |is_resumed, received| Greeting { session, received, is_resumed };
        // The first connection: the edge cannot know the link.
        assert!(!edge.connect(greeting(false, 0), &table, &sink, &metrics));
        edge.dial(DialId(1), &pair("one.example"), State::Up);
        edge.dial(DialId(2), &pair("one.example"), State::Up);
        edge.take(up(5, 1, "one.example"), &sink).await;
        assert_eq!(said(&edge).await.len(), 3);
        heard.0.lock().clear();
        assert!(edge.connect(greeting(true, 2), &table, &sink, &metrics), "the connection broke");
        assert!(heard.0.lock().is_empty());
        assert_eq!(said(&edge).await.len(), 1, "the dial that had not arrived");
        assert!(!edge.connect(greeting(false, 0), &table, &sink, &metrics), "the edge is another");
        assert!(matches!(heard.0.lock()[..], [FromEdge::StreamDown { end: StreamEnd::LinkLost, .. }]));
        let said = said(&edge).await;
        assert!(
            matches!(
                said[..],
                [LinkFrame::Partners(_), LinkFrame::ToEdge(ToEdge::Dial { dial: DialId(2), .. })]
            ),
            "{said:?}"
        );
    }
}
