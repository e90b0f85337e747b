//! The SIP side of the edge: its listeners, its dials, and the table of its flows.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::RwLock;
use rand::RngExt;
use tokio::net::{TcpStream, UdpSocket};
use tombolo_net::{
    AnyStream, CertificateStore, PeerCertificates, Resolver, Role, Trust, accept_tls, client_config, connect,
    connect_tls, server_config,
};
use tombolo_runtime::{Clock, Placement};
use tombolo_sip::message::MessageLimits;
use tombolo_telemetry::Metrics;

use crate::{
    DialId, FlowFacts, FlowId, FlowPort, FlowSink, FromFlow, ToFlow, Transport, outbox::Outbox,
    sip_connection::SipConnection, sip_udp::UdpActor,
};

/// What the SIP side is set to.
pub struct SipEdgeSettings {
    /// Where peers are accepted.
    pub listen: Vec<(Transport, SocketAddr)>,
    /// Our certificates by domain.
    pub certificates: Arc<CertificateStore>,
    /// Whom peers' certificates must lead to.
    pub trust: Trust,
    /// Bounds on messages.
    pub limits: MessageLimits,
    /// Names to addresses.
    pub resolver: Resolver,
}

/// Where the messages for one flow go.
#[derive(Clone)]
pub(crate) enum Way {
    /// A connection of its own.
    Connection(Arc<Outbox>),
    /// A remote address of a socket.
    Datagrams(Arc<UdpSocket>, SocketAddr),
}

/// What all SIP connections share.
pub(crate) struct SipShared {
    pub(crate) sink: Arc<dyn FlowSink>,
    pub(crate) placement: Placement,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: MessageLimits,
    pub(crate) flows: RwLock<HashMap<FlowId, Way>>,
    next_flow: AtomicU64,
    certificates: Arc<CertificateStore>,
    trust: Trust,
    resolver: Resolver,
    /// One listener address a transport, for Via and Contact.
    listeners: RwLock<Vec<(Transport, SocketAddr)>>,
    sockets: RwLock<Vec<BoundUdp>>,
}

/// A UDP socket, the address that it is bound to, and the actor that reads it.
type BoundUdp = (SocketAddr, Arc<UdpSocket>, actix::Addr<UdpActor>);

/// The SIP side of the edge.
pub struct SipEdge {
    shared: Arc<SipShared>,
}

impl SipEdge {
    /// Opens the listeners and begins to accept. Gives the addresses that are listened on.
    pub fn start(
        settings: SipEdgeSettings,
        sink: Arc<dyn FlowSink>,
        placement: Placement,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> io::Result<(Self, Vec<(Transport, SocketAddr)>)> {
        let helpers = placement.helpers();
        let _inside = helpers.enter();
        let shared = Arc::new(SipShared {
            sink,
            placement: placement.clone(),
            clock,
            metrics,
            limits: settings.limits,
            flows: RwLock::default(),
            next_flow: AtomicU64::new(1),
            certificates: settings.certificates,
            trust: settings.trust,
            resolver: settings.resolver,
            listeners: RwLock::default(),
            sockets: RwLock::default(),
        });
        let mut bound = Vec::new();
        for (transport, address) in settings.listen {
            let named = |error: io::Error| {
                io::Error::new(error.kind(), format!("sip {} {address}: {error}", transport.uri_name()))
            };
            let local = match transport {
                Transport::Udp => {
                    let socket = tombolo_net::udp(address).map_err(named)?;
                    let local = socket.local_addr()?;
                    let (socket, actor) = UdpActor::start(socket, local, shared.clone());
                    shared.sockets.write().push((local, socket, actor));
                    local
                }
                Transport::Tcp | Transport::Tls => {
                    let listener = tombolo_net::listen(address).map_err(named)?;
                    let local = listener.local_addr()?;
                    helpers.spawn(accept(listener, transport, shared.clone()));
                    local
                }
            };
            shared.listeners.write().push((transport, local));
            bound.push((transport, local));
        }
        Ok((Self { shared }, bound))
    }
}

impl FlowPort for SipEdge {
    fn send(&self, value: ToFlow) {
        match value {
            ToFlow::Bytes { flow, bytes } => {
                let way = self.shared.flows.read().get(&flow).cloned();
                match way {
                    Some(Way::Connection(outbox)) => {
                        let is_full = !outbox.push(bytes, 1);
                        if is_full {
                            outbox.close();
                        }
                    }
                    Some(Way::Datagrams(socket, remote)) => {
                        self.shared.send_datagram(flow, &socket, remote, &bytes)
                    }
                    None => {}
                }
            }
            ToFlow::Close { flow } => {
                if let Some(Way::Connection(outbox)) = self.shared.flows.read().get(&flow) {
                    outbox.close();
                }
            }
            ToFlow::Dial { dial, transport, host, port, domain } => {
                let shared = self.shared.clone();
                self.shared.placement.helpers().spawn(async move {
                    if let Err(cause) = shared.dial(dial, transport, &host, port, &domain).await {
                        shared.tell(FromFlow::DialFailed { dial, cause });
                    }
                });
            }
        }
    }
}

impl SipShared {
    pub(crate) fn new_flow(&self) -> FlowId {
        FlowId(self.next_flow.fetch_add(1, Ordering::Relaxed))
    }

    /// Tells what is always taken.
    pub(crate) fn tell(&self, value: FromFlow) {
        if self.sink.offer(value).is_err() {
            tracing::error!("a value that is always taken was given back");
        }
    }

    /// Where peers reach us by a transport: a listener's address, or the connection's own where that says nothing.
    pub(crate) fn sent_by(&self, transport: Transport, local: SocketAddr) -> Arc<str> {
        let listeners = self.listeners.read();
        let of_transport =
            || listeners.iter().filter(|(listening, _)| *listening == transport).map(|(_, at)| *at);
        let same_address = of_transport().find(|at| at.ip() == local.ip());
        let found = same_address.or_else(|| of_transport().next());
        let at = match found {
            Some(at) if at.ip().is_unspecified() => SocketAddr::new(local.ip().to_canonical(), at.port()),
            Some(at) => at,
            None => local,
        };
        at.to_string().into()
    }

    fn send_datagram(&self, flow: FlowId, socket: &UdpSocket, remote: SocketAddr, bytes: &Bytes) {
        // A full socket loses the datagram, as the network may; transactions send it again.
        let _ = socket.try_send_to(bytes, remote);
        self.tell(FromFlow::Written { flow, bytes: bytes.len() as u32 });
    }

    /// A connection whose handshake is done becomes an actor on its arbiter.
    pub(crate) fn adopt(
        self: &Arc<Self>,
        stream: AnyStream,
        index: usize,
        transport: Transport,
        dial: Option<DialId>,
        certificates: &PeerCertificates,
        role: Role,
    ) -> io::Result<()> {
        let (local, remote) = (stream.tcp().local_addr()?, stream.tcp().peer_addr()?);
        let proved = certificates.sip_domains(&self.trust, role, self.clock.now().wall);
        let facts = Arc::new(FlowFacts {
            flow: self.new_flow(),
            transport,
            local,
            remote,
            sent_by: self.sent_by(transport, local),
            dial,
            proved_domains: proved.into_iter().map(Into::into).collect(),
        });
        let outbox = Arc::new(Outbox::default());
        self.flows.write().insert(facts.flow, Way::Connection(outbox.clone()));
        self.tell(FromFlow::FlowUp(facts.clone()));
        SipConnection::start(stream, index, facts, outbox, self.clone());
        Ok(())
    }

    /// A flow ended.
    pub(crate) fn end(&self, flow: FlowId, cause: String) {
        self.flows.write().remove(&flow);
        self.tell(FromFlow::FlowDown { flow, cause });
    }

    async fn dial(
        self: &Arc<Self>,
        dial: DialId,
        transport: Transport,
        host: &str,
        port: Option<u16>,
        domain: &str,
    ) -> Result<(), String> {
        let (service, default_port) = match transport {
            Transport::Udp => ("_sip._udp", 5060),
            Transport::Tcp => ("_sip._tcp", 5060),
            Transport::Tls => ("_sips._tcp", 5061),
        };
        let targets = match port {
            // A port leaves no choice (RFC 3263 §4.2).
            Some(port) => vec![(host.to_owned(), port)],
            None => {
                let found = self.resolver.sip_targets(host, service, default_port).await;
                let found = found.map_err(|error| format!("{host}: {error}"))?;
                found.into_iter().map(|target| (target.host, target.port)).collect()
            }
        };
        let mut last = format!("{host}: no target");
        for (name, port) in targets {
            let addresses = match self.resolver.addresses(&name, port).await {
                Ok(addresses) => addresses,
                Err(error) => {
                    last = format!("{name}: {error}");
                    continue;
                }
            };
            match self.open(dial, transport, &addresses, host, domain).await {
                Ok(()) => return Ok(()),
                Err(error) => last = format!("{name}:{port}: {error}"),
            }
        }
        Err(last)
    }

    async fn open(
        self: &Arc<Self>,
        dial: DialId,
        transport: Transport,
        addresses: &[SocketAddr],
        host: &str,
        domain: &str,
    ) -> Result<(), String> {
        let text = |error: io::Error| error.to_string();
        match transport {
            Transport::Udp => {
                let remote = *addresses.first().ok_or("no address")?;
                let socket = {
                    let sockets = self.sockets.read();
                    let fits = sockets.iter().find(|(local, _, _)| local.is_ipv4() == remote.is_ipv4());
                    fits.cloned().ok_or("no UDP listener to send from")?
                };
                socket.2.do_send(crate::sip_udp::Meet { remote, dial });
                Ok(())
            }
            Transport::Tcp | Transport::Tls => {
                let stream = connect(addresses, CONNECT_LIMIT).await.map_err(text)?;
                let stream = stream.into_std().map_err(text)?;
                let index = self.placement.by_hash(rand::rng().random());
                let (owner, host, domain) = (self.clone(), host.to_owned(), domain.to_owned());
                let (done, waiting) = tokio::sync::oneshot::channel();
                // The socket lives with the reactor of its arbiter from here on.
                self.placement.spawn_in(index, async move {
                    let outcome = owner.prove_and_adopt(stream, index, dial, transport, &host, &domain).await;
                    let _ = done.send(outcome);
                });
                waiting.await.unwrap_or_else(|_| Err("the arbiter ended".to_owned()))
            }
        }
    }

    async fn prove_and_adopt(
        self: &Arc<Self>,
        stream: std::net::TcpStream,
        index: usize,
        dial: DialId,
        transport: Transport,
        host: &str,
        domain: &str,
    ) -> Result<(), String> {
        let text = |error: io::Error| error.to_string();
        let stream = TcpStream::from_std(stream).map_err(text)?;
        if transport == Transport::Tcp {
            let none = PeerCertificates::default();
            let plain = AnyStream::Plain(stream);
            return self.adopt(plain, index, transport, Some(dial), &none, Role::Server).map_err(text);
        }
        let config = client_config(self.certificates.certificate(domain), &[]);
        let (stream, facts) =
            connect_tls(stream, config, host, TLS_LIMIT).await.map_err(|error| error.to_string())?;
        // The next hop's host or the domain must be proved (RFC 5922 §7.3): both were our own choice.
        let wall = self.clock.now().wall;
        let names = facts.certificates.sip_domains(&self.trust, Role::Server, wall);
        let is_right =
            names.iter().any(|name| name.eq_ignore_ascii_case(host) || name.eq_ignore_ascii_case(domain));
        if !is_right {
            return Err(match facts.certificates.verify(&self.trust, Role::Server, true, true, wall) {
                Err(fault) => fault.to_string(),
                Ok(()) => format!("the certificate names neither {host} nor {domain}"),
            });
        }
        self.adopt(stream, index, transport, Some(dial), &facts.certificates, Role::Server).map_err(text)
    }
}

async fn accept(listener: tokio::net::TcpListener, transport: Transport, shared: Arc<SipShared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Ok(stream) = stream.into_std() else { continue };
                let owner = shared.clone();
                // The socket lives with the reactor of its arbiter from here on; no handshake in the accept loop.
                let index = shared.placement.by_hash(rand::rng().random());
                shared.placement.spawn_in(index, async move {
                    if let Err(error) = welcome(stream, transport, index, &owner).await {
                        owner.metrics.malformed_input();
                        tracing::debug!(%error, "sip connection refused");
                    }
                });
            }
            Err(error) => {
                tracing::error!(%error, "sip listener cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn welcome(
    stream: std::net::TcpStream,
    transport: Transport,
    index: usize,
    shared: &Arc<SipShared>,
) -> io::Result<()> {
    let stream = TcpStream::from_std(stream)?;
    stream.set_nodelay(true)?;
    if transport == Transport::Tcp {
        let none = PeerCertificates::default();
        return shared.adopt(AnyStream::Plain(stream), index, transport, None, &none, Role::Client);
    }
    let config = server_config(&shared.certificates, &[]);
    let (stream, facts) = accept_tls(stream, config, TLS_LIMIT).await.map_err(io::Error::other)?;
    shared.adopt(stream, index, transport, None, &facts.certificates, Role::Client)
}

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const TLS_LIMIT: Duration = Duration::from_secs(10);
