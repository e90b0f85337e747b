//! The edge's end: it waits for a gateway, takes its table, and hands it what streams bring.
//!
//! Without a gateway and its table nobody is let in, and no stream is left without one who knows what it is for.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tombolo_net::{AnyStream, CertificateFault, Role, accept_tls, canonical, server_config};
use tombolo_policy::Table;
use tombolo_runtime::{Clock, Placement, lasting};
use tombolo_telemetry::{Health, Metrics, tell_lasting_panic};

use super::{
    BULK_BYTES, CREDIT_BYTES, LINK_GRACE, LinkIdentity, MOST_HANDSHAKES, TLS_LIMIT,
    frame::LinkFrame,
    incoming::Streams,
    journal::Journal,
    standing::{LinkReport, LinkStanding, LinkState, Side, Standings},
    wire::{End, Greeting, carry, read_greeting, send_greeting, send_refusal},
};
use crate::{
    EdgePort, FromEdge, StreamId, StreamSink, ToEdge, XmppEdge, accept_trouble::AcceptTrouble,
    caught::caught, stream_end::printable,
};

#[derive(Default)]
struct Shared {
    link: Mutex<Link>,
    /// Lock order: this before [`Shared::link`]. Held while a report is journalled.
    streams: Mutex<Streams>,
    /// The gateway of the link has given its table.
    has_table: AtomicBool,
    /// Whose streams these are; it holds us too, so we hold it weakly.
    xmpp: OnceLock<Weak<XmppEdge>>,
}

/// The link to the gateway.
#[derive(Clone, Default)]
enum Link {
    /// No gateway knows of our streams.
    #[default]
    None,
    Up(Arc<Journal>),
    /// Its connection broke: streams wait for the next one.
    Broken(Arc<Journal>),
    /// For too long: streams are closed, and their ends are kept for the gateway.
    Closed(Arc<Journal>),
}

impl Link {
    fn journal(&self) -> Option<&Arc<Journal>> {
        match self {
            Self::None => None,
            Self::Up(journal) | Self::Broken(journal) | Self::Closed(journal) => Some(journal),
        }
    }
}

/// Where an edge's streams hand what they bring.
pub struct LinkSink {
    shared: Arc<Shared>,
}

impl StreamSink for LinkSink {
    fn offer(&self, value: FromEdge) -> Result<(), FromEdge> {
        let mut streams = self.shared.streams.lock();
        let link = self.shared.link.lock().clone();
        match (link, value) {
            (Link::Up(journal), FromEdge::Stanzas { stream, first, stanzas }) => {
                offer_stanzas(&mut streams, &journal, stream, first, stanzas)
                    .map_err(|stanzas| FromEdge::Stanzas { stream, first, stanzas })
            }
            (_, value @ FromEdge::Stanzas { .. }) => Err(value),
            (link, value) => {
                streams.note(&value);
                if let FromEdge::StreamUp { stream, .. } = &value
                    && matches!(link, Link::None | Link::Closed(_))
                {
                    self.shared.close(*stream);
                }
                if let Some(journal) = link.journal() {
                    journal.push(&LinkFrame::FromEdge(value));
                }
                Ok(())
            }
        }
    }
}

fn offer_stanzas(
    streams: &mut Streams,
    journal: &Journal,
    stream: StreamId,
    first: u64,
    stanzas: Vec<Bytes>,
) -> Result<(), Vec<Bytes>> {
    if journal.is_over() || journal.waiting_bytes() > BULK_BYTES {
        return Err(stanzas);
    }
    let on_its_way = streams.on_its_way(stream);
    if *on_its_way > CREDIT_BYTES {
        return Err(stanzas);
    }
    *on_its_way += stanzas.iter().map(Bytes::len).sum::<usize>();
    journal.push(&LinkFrame::FromEdge(FromEdge::Stanzas { stream, first, stanzas }));
    Ok(())
}

impl Shared {
    /// A stream that no gateway knows of.
    fn close(&self, stream: StreamId) {
        if let Some(xmpp) = self.xmpp.get().and_then(Weak::upgrade) {
            xmpp.send(ToEdge::Close { stream });
        }
    }
}

/// A gateway that proved itself and said which link it comes for.
struct Arrival {
    stream: AnyStream,
    /// What came behind its greeting.
    buffer: BytesMut,
    greeting: Greeting,
    remote: SocketAddr,
}

/// Waits for gateways.
pub struct LinkListener {
    listeners: Vec<TcpListener>,
    identity: LinkIdentity,
    gateways: Vec<String>,
    shared: Arc<Shared>,
    placement: Placement,
    clock: Clock,
    standings: Standings,
}

/// How the edge's link stands.
#[derive(Clone)]
pub struct LinkReports(Standings);

impl LinkReports {
    /// The link to the gateway.
    pub fn links(&self) -> Vec<LinkReport> {
        self.0.reports()
    }
}

impl LinkListener {
    /// Opens the listener; nobody is let in before [`LinkListener::start`], and then only whose certificate is for one of
    /// `gateways` (host names or IP addresses). How the link stands is told to `health`.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub fn bind(
        identity: LinkIdentity,
        listen: SocketAddr,
        gateways: Vec<String>,
        placement: Placement,
        clock: Clock,
        health: &Health,
    ) -> io::Result<(LinkSink, Self)> {
        let helpers = placement.helpers();
        let _inside = helpers.enter();
        let listeners = tombolo_net::listen_all(listen, &[listen])
            .map_err(|error| io::Error::new(error.kind(), format!("link {listen}: {error}")))?;
        let shared = Arc::new(Shared::default());
        let sink = LinkSink { shared: shared.clone() };
        let standings = Standings::new(Side::Edge, vec!["gateway".to_owned()], health, clock.clone());
        Ok((sink, Self { listeners, identity, gateways, shared, placement, clock, standings }))
    }

    /// How the link stands, for as long as the process runs.
    pub fn reports(&self) -> LinkReports {
        LinkReports(self.standings.clone())
    }

    /// Where it listens; at the first of two addresses where it listens on both families.
    pub fn local_addr(&self) -> SocketAddr {
        let first = self.listeners.first().and_then(|listener| listener.local_addr().ok());
        first.expect("a bound listener has an address")
    }

    /// Lets gateways in, one at a time: what they say goes to `xmpp`, their table into `policy`.
    ///
    /// From here on `xmpp` lets partners in only while a gateway is linked and has given its table.
    pub fn start(self, xmpp: Arc<XmppEdge>, policy: Arc<ArcSwap<Table>>) {
        let Self { listeners, identity, gateways, shared, placement, clock, standings } = self;
        let standing = standings.link(0);
        xmpp.let_in(false);
        // Only the first start counts, and there is only one.
        let _ = shared.xmpp.set(Arc::downgrade(&xmpp));
        let (proved, arrived) = mpsc::channel(1);
        let helpers = placement.helpers();
        let (metrics, of_door) = (xmpp.metrics().clone(), standing.clone());
        let door = Arc::new(Door { identity, gateways, clock, proved, metrics, standing: of_door });
        for listener in listeners {
            let (listener, door, metrics) = (Arc::new(listener), door.clone(), door.metrics.clone());
            helpers.spawn(lasting(
                move || accept(listener.clone(), door.clone()),
                move |panicked| tell_lasting_panic(&metrics, "link listener", panicked),
            ));
        }
        let (arrived, metrics) = (Arc::new(tokio::sync::Mutex::new(arrived)), xmpp.metrics().clone());
        let begin = move || {
            let (arrived, shared, standing) = (arrived.clone(), shared.clone(), standing.clone());
            let (xmpp, policy) = (xmpp.clone(), policy.clone());
            async move { await_gateways(&mut *arrived.lock().await, &shared, &xmpp, &policy, &standing).await }
        };
        helpers.spawn(lasting(begin, move |panicked| tell_lasting_panic(&metrics, "link", panicked)));
    }
}

/// Serves one gateway after the other. After a panic it is called again and knows of no link, so the next one is a new one.
async fn await_gateways(
    arrived: &mut mpsc::Receiver<Arrival>,
    shared: &Shared,
    xmpp: &XmppEdge,
    policy: &ArcSwap<Table>,
    standing: &LinkStanding,
) {
    // After a panic the link may seem to be up still.
    {
        let mut link = shared.link.lock();
        if let Link::Up(journal) = &*link {
            *link = Link::Broken(journal.clone());
        }
    }
    let (mut session, mut next) = (None, None);
    while let Some(arrival) = shared.next_arrival(&mut next, arrived, xmpp, standing).await {
        let is_resumed =
            session == Some(arrival.greeting.session) && shared.resume(arrival.greeting.received, xmpp);
        if !is_resumed {
            shared.begin(xmpp);
        }
        session = Some(arrival.greeting.session);
        let remote = arrival.remote;
        tracing::info!(%remote, is_resumed, "gateway linked");
        let error;
        (error, next) = serve(arrival, is_resumed, arrived, shared, xmpp, policy, standing).await;
        tracing::warn!(%remote, %error, "link ended");
    }
}

/// What a connection has to pass to be a gateway's.
struct Door {
    identity: LinkIdentity,
    gateways: Vec<String>,
    clock: Clock,
    proved: mpsc::Sender<Arrival>,
    metrics: Arc<Metrics>,
    standing: LinkStanding,
}

/// Handshakes run beside each other, so that one who never finishes his keeps no gateway waiting.
async fn accept(listener: Arc<TcpListener>, door: Arc<Door>) {
    let handshakes = Arc::new(Semaphore::new(MOST_HANDSHAKES));
    let mut trouble = AcceptTrouble::new("link");
    loop {
        let (socket, remote) = match listener.accept().await {
            Ok((socket, remote)) => {
                trouble.is_over();
                (socket, canonical(remote))
            }
            Err(error) => {
                trouble.rest(&error, &door.clock).await;
                continue;
            }
        };
        let Ok(permit) = handshakes.clone().try_acquire_owned() else { continue };
        let door = door.clone();
        tokio::spawn(async move {
            let outcome = caught(&door.metrics, "link handshake", prove(socket, remote, &door)).await;
            drop(permit);
            match outcome {
                // Waits its turn while another gateway is linked.
                Some(Ok(arrival)) => drop(door.proved.send(arrival).await),
                Some(Err(error)) => {
                    tracing::warn!(%remote, %error, "link refused");
                    // It may be the gateway that is missing.
                    door.standing.failed(format!("{} was refused: {error}", remote.ip()));
                }
                None => {}
            }
        });
    }
}

async fn prove(socket: TcpStream, remote: SocketAddr, door: &Door) -> io::Result<Arrival> {
    let Door { identity, gateways, clock, .. } = door;
    socket.set_nodelay(true)?;
    let config = server_config(&identity.certificates, &[]);
    let (mut stream, facts) = accept_tls(socket, config, TLS_LIMIT).await.map_err(io::Error::other)?;
    if let Err(fault) =
        facts.certificates.verify_host(&identity.trust, Role::Client, gateways, clock.now().wall)
    {
        send_refusal(&mut stream, refusal_text(&fault)).await;
        return Err(io::Error::other(fault));
    }
    let mut buffer = BytesMut::new();
    let greeting = match read_greeting(&mut stream, &mut buffer).await {
        Ok(greeting) => greeting,
        Err(error) => {
            send_refusal(&mut stream, error.to_string()).await;
            return Err(error);
        }
    };
    Ok(Arrival { stream, buffer, greeting, remote })
}

/// Why a gateway's certificate is refused, for its operator. Whom we would accept is no matter of somebody who is not.
fn refusal_text(fault: &CertificateFault) -> String {
    match fault {
        CertificateFault::OtherHost { names, .. } => {
            let names = printable(&names.join(", "));
            format!("its certificate is for {names}, which is not in the edge's link.gateways")
        }
        other => other.to_string(),
    }
}

/// Serves one gateway until its connection ends: why it did, and who came meanwhile.
async fn serve(
    arrival: Arrival,
    is_resumed: bool,
    arrived: &mut mpsc::Receiver<Arrival>,
    shared: &Shared,
    xmpp: &XmppEdge,
    policy: &ArcSwap<Table>,
    standing: &LinkStanding,
) -> (io::Error, Option<Arrival>) {
    let Arrival { mut stream, buffer, greeting, remote } = arrival;
    let Some(journal) = shared.link.lock().journal().cloned() else {
        return (io::Error::other("no link"), None);
    };
    let own = Greeting { received: journal.received(), is_resumed, ..greeting };
    let carried = async {
        if let Err(error) = send_greeting(&mut stream, own).await {
            return error;
        }
        *shared.link.lock() = Link::Up(journal.clone());
        let has_table = shared.has_table.load(Ordering::Acquire);
        let state = if has_table { LinkState::Up } else { LinkState::NoTable };
        standing.connected(state, Some(remote), &journal);
        carry(stream, buffer, End::Edge, journal.clone(), xmpp.metrics(), |frame| {
            if shared.take(frame, xmpp, policy) == Taken::Table {
                standing.has_table();
            }
            std::future::ready(())
        })
        .await
    };
    let mut carried = std::pin::pin!(carried);
    let mut next = None;
    let error = loop {
        tokio::select! {
            error = &mut carried => break error,
            Some(other) = arrived.recv(), if next.is_none() => {
                // The same gateway found the connection dead before we did. Any other waits its turn.
                let is_same = other.greeting.session == greeting.session;
                next = Some(other);
                if is_same {
                    break io::Error::other("the gateway came by another connection");
                }
            }
        }
    };
    *shared.link.lock() = if journal.is_over() { Link::None } else { Link::Broken(journal.clone()) };
    if journal.is_over() {
        standing.down(Some(error.to_string()));
        shared.close_streams(xmpp);
    } else {
        standing.broken(error.to_string());
    }
    (error, next)
}

impl Shared {
    /// The next gateway. While a broken link may go on its streams wait, and then they are closed.
    async fn next_arrival(
        &self,
        known: &mut Option<Arrival>,
        arrived: &mut mpsc::Receiver<Arrival>,
        xmpp: &XmppEdge,
        standing: &LinkStanding,
    ) -> Option<Arrival> {
        if known.is_some() {
            return known.take();
        }
        let broken = match &*self.link.lock() {
            Link::Broken(journal) => Some(journal.clone()),
            _ => None,
        };
        if let Some(journal) = broken {
            if let Ok(arrival) = timeout(LINK_GRACE, arrived.recv()).await {
                return arrival;
            }
            tracing::warn!("the gateway did not come back: its streams are closed");
            *self.link.lock() = Link::Closed(journal);
            standing.down(None);
            self.close_streams(xmpp);
        }
        arrived.recv().await
    }

    /// The link goes on; `false` when it cannot.
    fn resume(&self, received: u64, xmpp: &XmppEdge) -> bool {
        let link = self.link.lock().clone();
        let is_resumed = link.journal().is_some_and(|journal| !journal.is_over() && journal.resume(received));
        if is_resumed && self.has_table.load(Ordering::Acquire) {
            xmpp.let_in(true);
        }
        is_resumed
    }

    /// A new gateway: closes the outgoing streams, which it did not ask for, and hands over the incoming ones, with what
    /// nobody has read from them yet.
    fn begin(&self, xmpp: &XmppEdge) {
        xmpp.let_in(false);
        self.has_table.store(false, Ordering::Release);
        let mut streams = self.streams.lock();
        let journal = Arc::<Journal>::default();
        let before = std::mem::replace(&mut *self.link.lock(), Link::Broken(journal.clone()));
        let untaken = match &before {
            Link::Up(journal) | Link::Broken(journal) if !journal.is_over() => journal.unacknowledged(),
            _ => Vec::new(),
        };
        let untaken = untaken.into_iter().filter_map(|frame| match frame {
            LinkFrame::FromEdge(value) => Some(value),
            _ => None,
        });
        for value in streams.hand_over(untaken.collect()) {
            journal.push(&LinkFrame::FromEdge(value));
        }
        if before.journal().is_some() {
            xmpp.abandon_unless(|stream| streams.has(stream));
        }
    }

    /// Closes all streams in order. What they have not written yet, their gateway sends again by others.
    fn close_streams(&self, xmpp: &XmppEdge) {
        xmpp.let_in(false);
        xmpp.abandon_unless(|_| false);
    }
}

impl Shared {
    fn take(&self, frame: LinkFrame, xmpp: &XmppEdge, policy: &ArcSwap<Table>) -> Taken {
        match frame {
            LinkFrame::ToEdge(ToEdge::Credit { stream, bytes }) => {
                self.streams.lock().taken(stream, bytes as usize);
            }
            LinkFrame::ToEdge(value) => xmpp.send(value),
            LinkFrame::Partners(rows) => match rows.table() {
                Some(table) => {
                    tracing::info!(
                        generation = table.generation(),
                        partners = table.partners().len(),
                        "partner table"
                    );
                    policy.store(Arc::new(table));
                    self.has_table.store(true, Ordering::Release);
                    xmpp.policy_changed();
                    xmpp.let_in(true);
                    return Taken::Table;
                }
                None => tracing::error!("the gateway's partner table contradicts itself"),
            },
            LinkFrame::Hello { .. }
            | LinkFrame::Resume { .. }
            | LinkFrame::Ack { .. }
            | LinkFrame::Refused { .. }
            | LinkFrame::FromEdge(_) => {}
        }
        Taken::Other
    }
}

/// What a frame brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// A partner table, which is in force now.
    Table,
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{STREAM_WINDOW_BYTES, StreamEnd};

    fn stanzas(stream: u64, bytes: usize) -> FromEdge {
        FromEdge::Stanzas {
            stream: StreamId(stream),
            first: 1,
            stanzas: vec![Bytes::from(vec![b'x'; bytes])],
        }
    }

    fn linked() -> (LinkSink, Arc<Journal>) {
        let (shared, journal) = (Arc::new(Shared::default()), Arc::<Journal>::default());
        *shared.link.lock() = Link::Up(journal.clone());
        (LinkSink { shared }, journal)
    }

    #[test]
    fn a_stream_sends_no_more_than_its_credit_and_goes_on_when_the_gateway_has_taken_some() {
        let (sink, _) = linked();
        let taken = (0..100).take_while(|_| sink.offer(stanzas(1, 32 << 10)).is_ok()).count();
        assert_eq!(taken, CREDIT_BYTES / (32 << 10) + 1);
        assert!(sink.offer(stanzas(2, 32 << 10)).is_ok(), "another stream has credit of its own");
        let sum = *sink.shared.streams.lock().on_its_way(StreamId(1));
        assert!(sink.offer(stanzas(1, 1)).is_err());
        assert_eq!(
            *sink.shared.streams.lock().on_its_way(StreamId(1)),
            sum,
            "what was given back uses no credit"
        );
        sink.shared.streams.lock().taken(StreamId(1), 32 << 10);
        assert!(sink.offer(stanzas(1, 1)).is_ok());
    }

    #[test]
    fn a_link_full_of_stanzas_still_takes_everything_else_and_is_not_lost() {
        let (sink, journal) = linked();
        let mut stream = 0;
        while journal.waiting_bytes() <= BULK_BYTES {
            stream += 1;
            assert!(sink.offer(stanzas(stream, 64 << 10)).is_ok());
        }
        assert!(sink.offer(stanzas(stream + 1, 10)).is_err(), "no more stanzas");
        let before = journal.waiting_bytes();
        let written = FromEdge::Written { stream: StreamId(1), last: 1, bytes: STREAM_WINDOW_BYTES };
        assert!(sink.offer(written).is_ok());
        assert!(journal.waiting_bytes() > before, "the report waits behind the stanzas");
        assert!(!journal.is_over());
    }

    #[test]
    fn a_broken_link_takes_no_stanzas_and_keeps_everything_else_for_the_next_connection() {
        let (sink, journal) = linked();
        let before = journal.waiting_bytes();
        *sink.shared.link.lock() = Link::Broken(journal.clone());
        assert!(sink.offer(stanzas(1, 10)).is_err());
        assert_eq!(journal.waiting_bytes(), before);
        let written = FromEdge::Written { stream: StreamId(1), last: 1, bytes: 10 };
        assert!(sink.offer(written).is_ok());
        assert!(journal.waiting_bytes() > before, "what was written is told at the next connection");
    }

    #[test]
    fn without_a_gateway_stanzas_are_given_back_and_the_end_of_a_stream_is_forgotten() {
        let (sink, _) = linked();
        sink.offer(stanzas(1, 10)).expect("taken");
        *sink.shared.link.lock() = Link::None;
        assert!(sink.offer(stanzas(1, 10)).is_err());
        let down = FromEdge::StreamDown { stream: StreamId(1), end: StreamEnd::Closed, last_written: 0 };
        assert!(sink.offer(down).is_ok());
        assert!(sink.shared.streams.lock().is_empty());
    }
}
