//! The SIP side of the edge: what all its sockets share, and the table of its flows.
//!
//! Settings and what flows should do ([`ToFlow`]) go in; what flows bring goes to a [`FlowSink`]. It reads no message.

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

use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;
use tokio_rustls::rustls::ServerConfig;
use tombolo_budget::Account;
use tombolo_net::{CertificateStore, Resolver, ServerChoice, Trust, canonical, server_config_for};
use tombolo_runtime::{Clock, MemoryGate, Placement, guard};
use tombolo_sip::message::MessageLimits;
use tombolo_telemetry::Metrics;

use crate::{
    FlowId, FlowPort, FlowSink, FromFlow, ToFlow, Transport,
    caught::note,
    outbox::Outbox,
    sip_admission::{Admission, Place},
    sip_avoided::Avoided,
    sip_dial::SipDial,
    sip_listener::{MOST_WELCOMES, bind},
    sip_udp::{Forget, Keep, UdpSide},
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
    /// Connections that peers may have with us, in all.
    pub connections: usize,
    /// And from one address.
    pub connections_per_address: usize,
    /// Those from one address by which nobody has proved himself yet.
    pub unproved_connections_per_address: usize,
    /// How often a keep-alive is sent on connections that we opened, and awaited; `None` for never.
    pub keep_alive: Option<Duration>,
    /// While it is full nobody else is let in.
    pub memory: Arc<MemoryGate>,
    /// Octets that all connections together may have to write, beyond what each always may.
    pub outgoing_bytes: usize,
}

/// Where the messages for one flow go.
#[derive(Clone)]
pub(crate) enum Way {
    /// A connection of its own to a remote address.
    Connection(Arc<Outbox>, SocketAddr, Option<Arc<Place>>),
    /// A remote address of a socket.
    Datagrams(UdpSide, SocketAddr),
}

impl Way {
    fn remote(&self) -> SocketAddr {
        let (Self::Connection(_, remote, _) | Self::Datagrams(_, remote)) = self;
        canonical(*remote)
    }

    fn close(&self) {
        match self {
            Self::Connection(outbox, _, _) => outbox.close(),
            Self::Datagrams(side, remote) => side.actor.do_send(Forget(*remote)),
        }
    }
}

/// What all SIP sockets share.
pub(crate) struct SipShared {
    pub(crate) sink: Arc<dyn FlowSink>,
    pub(crate) placement: Placement,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: MessageLimits,
    pub(crate) certificates: Arc<CertificateStore>,
    pub(crate) trust: Trust,
    pub(crate) resolver: Resolver,
    /// How our TLS listeners shake hands.
    pub(crate) tls: Arc<ServerConfig>,
    /// Room for connections that peers open.
    pub(crate) admission: Arc<Admission>,
    pub(crate) keep_alive: Option<Duration>,
    pub(crate) memory: Arc<MemoryGate>,
    pub(crate) outgoing: Arc<Account>,
    /// Room for connections that are not ready for messages yet.
    pub(crate) welcomes: Arc<Semaphore>,
    pub(crate) flows: RwLock<HashMap<FlowId, Way>>,
    pub(crate) sockets: RwLock<Vec<UdpSide>>,
    /// Addresses that failed of late.
    pub(crate) avoided: Mutex<Avoided>,
    next_flow: AtomicU64,
    /// Our listeners' addresses, for Via and Contact.
    listeners: Vec<(Transport, SocketAddr)>,
}

/// The SIP side of the edge.
pub struct SipEdge {
    shared: Arc<SipShared>,
}

impl SipEdge {
    /// Opens the listeners and begins to accept. Gives the addresses that are listened on.
    ///
    /// # Errors
    /// When an address cannot be bound; then none is.
    pub fn start(
        settings: SipEdgeSettings,
        sink: Arc<dyn FlowSink>,
        placement: Placement,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> io::Result<(Self, Vec<(Transport, SocketAddr)>)> {
        let helpers = placement.helpers();
        let _inside = helpers.enter();
        let bound = bind(&settings.listen)?;
        let listeners: Vec<_> = bound.iter().map(|socket| socket.address()).collect::<io::Result<_>>()?;
        let choice = ServerChoice { is_classic: true, ..ServerChoice::default() };
        let shared = Arc::new(SipShared {
            sink,
            placement,
            clock,
            metrics,
            limits: settings.limits,
            tls: server_config_for(&settings.certificates, &choice),
            certificates: settings.certificates,
            trust: settings.trust,
            resolver: settings.resolver,
            admission: Admission::new(
                settings.connections,
                settings.connections_per_address,
                settings.unproved_connections_per_address,
            ),
            keep_alive: settings.keep_alive,
            welcomes: Arc::new(Semaphore::new(MOST_WELCOMES)),
            flows: RwLock::default(),
            sockets: RwLock::default(),
            avoided: Mutex::default(),
            next_flow: AtomicU64::new(1),
            memory: settings.memory,
            outgoing: Account::new("outgoing_sip", settings.outgoing_bytes),
            listeners: listeners.clone(),
        });
        for socket in bound {
            socket.open(&shared)?;
        }
        Ok((Self { shared }, listeners))
    }
}

impl FlowPort for SipEdge {
    fn send(&self, value: ToFlow) {
        let shared = &self.shared;
        let way = |flow| shared.flows.read().get(&flow).cloned();
        match value {
            ToFlow::Bytes { flow, bytes } => match way(flow) {
                Some(Way::Connection(outbox, _, _)) => {
                    let is_full = !outbox.push(bytes, 1);
                    if is_full {
                        // What was lost here cannot be made good on this connection.
                        tracing::warn!(flow = flow.0, "sip peer lets too much pile up");
                        shared.flows.write().remove(&flow);
                        outbox.close();
                    }
                }
                Some(Way::Datagrams(side, remote)) => {
                    side.send(remote, &bytes, &shared.limits);
                    shared.tell(FromFlow::Written { flow, bytes: bytes.len() as u32 });
                }
                None => {}
            },
            ToFlow::Close { flow } => {
                if let Some(way) = way(flow) {
                    way.close();
                }
            }
            ToFlow::Avoid { flow, span } => {
                if let Some(way) = way(flow) {
                    let until = shared.clock.now().instant + span;
                    shared.avoided.lock().mark(way.remote(), until);
                    way.close();
                }
            }
            ToFlow::Mark { flow, span } => {
                if let Some(way) = way(flow) {
                    let until = shared.clock.now().instant + span;
                    shared.avoided.lock().mark(way.remote(), until);
                }
            }
            ToFlow::Bound { flow } => match way(flow) {
                Some(Way::Connection(outbox, _, place)) => {
                    outbox.bind();
                    if let Some(place) = place {
                        place.bind();
                    }
                }
                Some(Way::Datagrams(side, remote)) => side.actor.do_send(Keep { remote, flow }),
                // It ended just when it was given away, and that was told too early.
                None => shared.tell(FromFlow::FlowDown { flow, cause: "ended before".to_owned() }),
            },
            ToFlow::Dial { dial, transport, is_transport_named, host, port, domain } => {
                let (host, domain) = (ascii(&host), ascii(&domain));
                let dial = SipDial { dial, transport, is_transport_named, host, port, domain };
                shared.placement.helpers().spawn(dial.run(shared.clone()));
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
        match guard(|| self.sink.offer(value)) {
            Ok(Ok(())) => {}
            Ok(Err(_)) => tracing::error!("a value that is always taken was given back"),
            // Whoever tells goes on: a flow that ended must not stay in the table of flows.
            Err(panicked) => note(&self.metrics, "sip report", &panicked),
        }
    }

    /// Where peers reach us by a transport: a listener's address, or the flow's own where that says nothing.
    pub(crate) fn sent_by(&self, transport: Transport, local: SocketAddr) -> Arc<str> {
        listener_for(&self.listeners, transport, local).to_string().into()
    }

    /// A flow ended.
    pub(crate) fn end(&self, flow: FlowId, cause: String) {
        self.flows.write().remove(&flow);
        self.tell(FromFlow::FlowDown { flow, cause });
    }
}

fn listener_for(
    listeners: &[(Transport, SocketAddr)],
    transport: Transport,
    local: SocketAddr,
) -> SocketAddr {
    let of_transport =
        || listeners.iter().filter(|(listening, _)| *listening == transport).map(|(_, at)| *at);
    let is_own =
        |at: SocketAddr| at.port() == local.port() && (at.ip() == local.ip() || at.ip().is_unspecified());
    if of_transport().any(is_own) {
        return local;
    }
    // A connection that we opened has a port of its own, where nobody listens.
    let same_address = of_transport().find(|at| at.ip() == local.ip());
    match same_address.or_else(|| of_transport().next()) {
        Some(at) if at.ip().is_unspecified() => SocketAddr::new(local.ip(), at.port()),
        Some(at) => at,
        None => local,
    }
}

/// A name as DNS and certificates write it: A-labels in lower case, an IPv6 address without brackets.
fn ascii(name: &str) -> String {
    let name = name.trim_matches(['[', ']']);
    idna::domain_to_ascii(name).unwrap_or_else(|_| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_names_the_listener_that_peers_can_reach() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let listeners = [
            (Transport::Tls, at("192.0.2.1:5061")),
            (Transport::Tcp, at("192.0.2.1:5060")),
            (Transport::Tcp, at("192.0.2.2:5070")),
            (Transport::Tcp, at("0.0.0.0:5080")),
            (Transport::Udp, at("[::]:5062")),
        ];
        let table = [
            (Transport::Tls, "192.0.2.1:40000", "192.0.2.1:5061"),
            (Transport::Tcp, "192.0.2.2:40000", "192.0.2.2:5070"),
            // Whoever we dialled from another address reaches us where we listen.
            (Transport::Tcp, "192.0.2.3:40000", "192.0.2.1:5060"),
            // Who came in by a listener comes back by it.
            (Transport::Tcp, "192.0.2.2:5080", "192.0.2.2:5080"),
            (Transport::Udp, "198.51.100.7:5062", "198.51.100.7:5062"),
            (Transport::Udp, "[2001:db8::1]:40000", "[2001:db8::1]:5062"),
        ];
        for (transport, local, named) in table {
            assert_eq!(listener_for(&listeners, transport, at(local)).to_string(), named, "{local}");
        }
        assert_eq!(listener_for(&[], Transport::Tcp, at("192.0.2.3:4")), at("192.0.2.3:4"));
    }

    #[test]
    fn names_are_compared_as_a_labels() {
        assert_eq!(ascii("BÜCHER.example"), "xn--bcher-kva.example");
        assert_eq!(ascii("[2001:db8::1]"), "2001:db8::1");
    }
}
