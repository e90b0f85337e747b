//! The XMPP side of the edge: its listeners, its dials, the questions of dialback, and the table of its streams.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use rand::RngExt;
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};
use tombolo_net::{CertificateStore, Resolver, Target, Trust, Unresolved, connect};
use tombolo_policy::Table;
use tombolo_presence::Domain;
use tombolo_runtime::{Clock, Placement};
use tombolo_telemetry::Metrics;
use tombolo_xmpp::{
    dialback::{DialbackCondition, DialbackSecrets},
    stream::{
        Dial, InboundSettings, InboundStream, KeyAnswer, KeyQuestion, OutboundSettings, OutboundStream, Pair,
        Purpose, S2sStream, StreamIds, StreamLimits, TlsStart,
    },
};

use crate::{
    DialId, DomainPair, EdgePort, FromEdge, StreamEnd, StreamId, StreamSink, ToEdge,
    outbox::Outbox,
    stream_policy::TablePolicy,
    xmpp_connection::{Negotiated, Negotiation, XmppConnection},
};

/// What the XMPP side is set to.
pub struct XmppEdgeSettings {
    /// Where streams with STARTTLS are accepted.
    pub listen: Vec<SocketAddr>,
    /// Where streams inside TLS are accepted.
    pub direct_tls_listen: Vec<SocketAddr>,
    /// Our certificates by domain.
    pub certificates: Arc<CertificateStore>,
    /// Whom partners' certificates must lead to.
    pub trust: Trust,
    /// What dialback keys are made with: 32 random octets at least, shared by all edges.
    pub dialback_secret: Vec<u8>,
    /// Bounds of each stream.
    pub limits: StreamLimits,
    /// Connections that have not proved anything yet, all together.
    pub unproved_connections: usize,
    /// The same from one address.
    pub unproved_connections_per_address: usize,
    /// Names to addresses.
    pub resolver: Resolver,
}

/// What all streams of an edge share.
pub(crate) struct XmppShared {
    pub(crate) sink: Arc<dyn StreamSink>,
    pub(crate) placement: Placement,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) policy: Arc<ArcSwap<Table>>,
    pub(crate) certificates: Arc<CertificateStore>,
    pub(crate) trust: Trust,
    pub(crate) streams: RwLock<HashMap<StreamId, Arc<Outbox>>>,
    next_stream: AtomicU64,
    inbound: Arc<InboundSettings>,
    outbound: Arc<OutboundSettings>,
    resolver: Resolver,
    unproved: Arc<Semaphore>,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    per_address: usize,
    questions: Semaphore,
}

/// The XMPP side of an edge.
pub struct XmppEdge {
    shared: Arc<XmppShared>,
}

impl XmppEdge {
    /// Opens the listeners and begins to accept. Gives the addresses that are listened on.
    pub fn start(
        settings: XmppEdgeSettings,
        policy: Arc<ArcSwap<Table>>,
        sink: Arc<dyn StreamSink>,
        placement: Placement,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> io::Result<(Self, Vec<SocketAddr>)> {
        let helpers = placement.helpers();
        let _inside = helpers.enter();
        let secrets = DialbackSecrets::new(&settings.dialback_secret);
        let shared = Arc::new(XmppShared {
            sink,
            placement: placement.clone(),
            clock,
            metrics,
            policy,
            certificates: settings.certificates,
            trust: settings.trust,
            streams: RwLock::default(),
            next_stream: AtomicU64::new(1),
            inbound: Arc::new(InboundSettings { limits: settings.limits, secrets: secrets.clone() }),
            outbound: Arc::new(OutboundSettings { limits: settings.limits, secrets }),
            resolver: settings.resolver,
            unproved: Arc::new(Semaphore::new(settings.unproved_connections)),
            by_address: Mutex::default(),
            per_address: settings.unproved_connections_per_address,
            questions: Semaphore::new(MOST_QUESTIONS),
        });
        let mut bound = Vec::new();
        let starttls = settings.listen.into_iter().map(|address| (address, TlsStart::StartTls));
        let direct = settings.direct_tls_listen.into_iter().map(|address| (address, TlsStart::Direct));
        for (address, tls) in starttls.chain(direct) {
            let listener = tombolo_net::listen(address)
                .map_err(|error| io::Error::new(error.kind(), format!("xmpp {address}: {error}")))?;
            bound.push(listener.local_addr()?);
            helpers.spawn(accept(listener, tls, shared.clone()));
        }
        Ok((Self { shared }, bound))
    }

    /// Closes every stream in order.
    pub fn close_all(&self) {
        for outbox in self.shared.streams.read().values() {
            outbox.close();
        }
    }
}

impl EdgePort for XmppEdge {
    fn send(&self, value: ToEdge) {
        match value {
            ToEdge::Stanzas { stream, count, bytes } => {
                if let Some(outbox) = self.shared.streams.read().get(&stream)
                    && !outbox.push(bytes, count)
                {
                    outbox.close();
                }
            }
            ToEdge::Close { stream } => {
                if let Some(outbox) = self.shared.streams.read().get(&stream) {
                    outbox.close();
                }
            }
            ToEdge::Dial { dial, pair } => {
                let shared = self.shared.clone();
                self.shared.placement.helpers().spawn(async move {
                    if let Err(end) = shared.dial(dial, &pair).await {
                        shared.tell(FromEdge::DialFailed { dial, end });
                    }
                });
            }
            // In one process the sink itself says when it is full.
            ToEdge::Credit { .. } | ToEdge::Beat => {}
        }
    }
}

impl XmppShared {
    pub(crate) fn new_stream(&self) -> StreamId {
        StreamId(self.next_stream.fetch_add(1, Ordering::Relaxed))
    }

    /// Tells what is always taken.
    pub(crate) fn tell(&self, value: FromEdge) {
        if self.sink.offer(value).is_err() {
            tracing::error!("a value that is always taken was given back");
        }
    }

    pub(crate) fn table(&self) -> TablePolicy {
        TablePolicy(self.policy.load_full())
    }

    /// Opens a stream for a pair; reports it, or says why there is none.
    async fn dial(self: &Arc<Self>, dial: DialId, pair: &DomainPair) -> Result<(), StreamEnd> {
        let (mut negotiated, _) = self.open(pair, Purpose::Send, None).await?;
        negotiated.dial = Some(dial);
        XmppConnection::start(negotiated, self.clone());
        Ok(())
    }

    /// Asks the authoritative server of a domain about a key that was shown for it.
    pub(crate) async fn ask(self: &Arc<Self>, question: KeyQuestion) -> KeyAnswer {
        // So many questions at once are somebody's flood; the asker may try again.
        let Ok(_permit) = self.questions.try_acquire() else {
            return KeyAnswer::Failed(DialbackCondition::RemoteServerTimeout);
        };
        let local = Domain::from_prepared(question.pair.local.as_str());
        let remote = Domain::from_prepared(question.pair.remote.as_str());
        let (Some(local), Some(remote)) = (local, remote) else {
            return KeyAnswer::Failed(DialbackCondition::RemoteServerNotFound);
        };
        let pair = DomainPair { local, remote };
        match timeout(QUESTION_LIMIT, self.open(&pair, Purpose::Verify, Some(question))).await {
            Ok(Ok((_, Some(answer)))) => answer,
            Ok(Ok((_, None))) | Err(_) => KeyAnswer::Failed(DialbackCondition::RemoteServerTimeout),
            Ok(Err(StreamEnd::NotFound)) => KeyAnswer::Failed(DialbackCondition::RemoteServerNotFound),
            Ok(Err(_)) => KeyAnswer::Failed(DialbackCondition::RemoteConnectionFailed),
        }
    }

    async fn targets(&self, pair: &DomainPair) -> Result<Vec<Target>, StreamEnd> {
        let policy = self.policy.load();
        let partner = policy
            .federates(&pair.local, &pair.remote)
            .map_err(|denied| StreamEnd::Refused(denied.to_string()))?;
        if let Some(proxy) = &partner.proxy {
            let target = Target { host: proxy.host.to_string(), port: proxy.port, is_direct_tls: false };
            return Ok(vec![target]);
        }
        match self.resolver.xmpp_targets(&ascii(pair.remote.as_str())).await {
            Ok(targets) => Ok(targets),
            Err(Unresolved::NotFound | Unresolved::NoService) => Err(StreamEnd::NotFound),
            Err(other) => Err(StreamEnd::Unreachable(other.to_string())),
        }
    }

    /// A negotiated stream to a domain, or the answer to a question: target after target, address after address.
    async fn open(
        self: &Arc<Self>,
        pair: &DomainPair,
        purpose: Purpose,
        question: Option<KeyQuestion>,
    ) -> Result<(Negotiated, Option<KeyAnswer>), StreamEnd> {
        let mut last = StreamEnd::NotFound;
        for target in self.targets(pair).await? {
            let addresses = match self.resolver.addresses(&target.host, target.port).await {
                Ok(addresses) => addresses,
                Err(Unresolved::NotFound | Unresolved::NoService) => continue,
                Err(error) => {
                    last = StreamEnd::Unreachable(error.to_string());
                    continue;
                }
            };
            let socket = match connect(&addresses, CONNECT_LIMIT).await {
                Ok(socket) => socket,
                Err(error) => {
                    last = StreamEnd::Unreachable(format!("{}:{}: {error}", target.host, target.port));
                    continue;
                }
            };
            match self.negotiate(socket, pair, purpose, &target, question.clone()).await {
                Ok(done) => return Ok(done),
                // Another host of the same domain will not think better of us.
                Err(end @ (StreamEnd::Refused(_) | StreamEnd::Unauthenticated(_))) => return Err(end),
                Err(end) => last = end,
            }
        }
        Err(last)
    }

    async fn negotiate(
        self: &Arc<Self>,
        socket: TcpStream,
        pair: &DomainPair,
        purpose: Purpose,
        target: &Target,
        question: Option<KeyQuestion>,
    ) -> Result<(Negotiated, Option<KeyAnswer>), StreamEnd> {
        let broken = |error: io::Error| StreamEnd::Broken(error.to_string());
        let prepared = |domain: &Domain| tombolo_xmpp::jid::Domain::parse(domain.as_str());
        let (Ok(local), Ok(remote)) = (prepared(&pair.local), prepared(&pair.remote)) else {
            return Err(StreamEnd::NotFound);
        };
        let tls = if target.is_direct_tls { TlsStart::Direct } else { TlsStart::StartTls };
        let now = self.clock.now().instant;
        let dial = Dial { pair: Pair { local, remote }, purpose, tls };
        let mut stream = OutboundStream::new(self.outbound.clone(), dial, now);
        if let Some(question) = question {
            stream.ask_key(question, now, &self.table());
        }
        let socket = socket.into_std().map_err(broken)?;
        let negotiation = Negotiation::outgoing(stream, pair.clone(), self.clone());
        let (done, waiting) = tokio::sync::oneshot::channel();
        // The socket lives with the reactor of its arbiter from here on.
        let index = self.placement.by_hash(rand::rng().random());
        self.placement.spawn_in(index, async move {
            let outcome = match TcpStream::from_std(socket) {
                Ok(socket) => negotiation.run(socket, index, tls).await,
                Err(error) => Err(StreamEnd::Broken(error.to_string())),
            };
            // Whoever asked may have lost patience; then the stream ends here.
            let _ = done.send(outcome);
        });
        waiting.await.unwrap_or_else(|_| Err(StreamEnd::Broken("the arbiter ended".to_owned())))
    }

    /// Room for one more connection that has proved nothing; given back when it is dropped.
    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Admission> {
        let permit = self.unproved.clone().try_acquire_owned().ok()?;
        let mut by_address = self.by_address.lock();
        let count = by_address.entry(address).or_insert(0);
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        Some(Admission { address, shared: self.clone(), _permit: permit })
    }
}

/// One unproved connection's place in the budgets.
pub(crate) struct Admission {
    address: IpAddr,
    shared: Arc<XmppShared>,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut by_address = self.shared.by_address.lock();
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, tls: TlsStart, shared: Arc<XmppShared>) {
    loop {
        let (socket, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!(%error, "xmpp listener cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(admission) = shared.admit(remote.ip()) else {
            shared.metrics.refused_stream();
            continue;
        };
        let Ok(socket) = socket.set_nodelay(true).and_then(|()| socket.into_std()) else { continue };
        let owner = shared.clone();
        let index = shared.placement.by_hash(rand::rng().random());
        shared.placement.spawn_in(index, async move {
            let Ok(socket) = TcpStream::from_std(socket) else { return };
            let now = owner.clock.now().instant;
            let ids = StreamIds::new(rand::rng().random());
            let stream = InboundStream::new(owner.inbound.clone(), tls, ids, now);
            let negotiation = Negotiation::incoming(S2sStream::Inbound(stream), owner.clone());
            let outcome = negotiation.run(socket, index, tls).await;
            drop(admission);
            match outcome {
                Ok((negotiated, _)) => XmppConnection::start(negotiated, owner),
                Err(end) => {
                    owner.metrics.refused_stream();
                    tracing::info!(remote = %remote, cause = %end, "s2s stream refused");
                }
            }
        });
    }
}

/// A domain as DNS and TLS write it: A-labels.
pub(crate) fn ascii(domain: &str) -> String {
    idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.to_owned())
}

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const QUESTION_LIMIT: Duration = Duration::from_secs(20);
/// Dialback questions in flight.
const MOST_QUESTIONS: usize = 256;
