//! A SIP edge with an [`Ear`] for a broker, and peers that speak SIP by hand.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::Notify,
    time::timeout,
};
use tombolo_edge::{
    DialId, FlowFacts, FlowId, FlowPort, FlowSink, FromFlow, SipEdge, SipEdgeSettings, ToFlow, Transport,
};
use tombolo_net::{CertificateStore, Resolver};
use tombolo_sip::message::{Message, MessageLimits};
use tombolo_telemetry::Metrics;

use crate::common::World;

/// Whatever is awaited comes far sooner.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Hears what flows bring.
#[derive(Default)]
pub struct Ear {
    values: Mutex<Vec<FromFlow>>,
    came: Notify,
    is_full: AtomicBool,
    given_back: Notify,
}

impl FlowSink for Ear {
    fn offer(&self, value: FromFlow) -> Result<(), FromFlow> {
        if let FromFlow::Messages { messages, .. } = &value {
            assert!(messages.iter().all(|message| message.subject() != Some("panic")), "as the test asked");
            if self.is_full.load(Ordering::SeqCst) {
                self.given_back.notify_one();
                return Err(value);
            }
        }
        self.values.lock().push(value);
        self.came.notify_waiters();
        Ok(())
    }
}

impl Ear {
    pub fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::SeqCst);
    }

    /// Waits until messages were given back.
    pub async fn gave_back(&self) {
        timeout(PATIENCE, self.given_back.notified()).await.expect("messages are offered to the full ear");
    }

    /// Waits until `find` finds something in all that was heard so far.
    pub async fn heard<R>(&self, what: &str, find: impl Fn(&[FromFlow]) -> Option<R>) -> R {
        let search = async {
            loop {
                let came = self.came.notified();
                tokio::pin!(came);
                came.as_mut().enable();
                if let Some(found) = find(&self.values.lock()) {
                    return found;
                }
                came.await;
            }
        };
        match timeout(PATIENCE, search).await {
            Ok(found) => found,
            Err(_) => panic!("{what} did not come; heard: {:#?}", self.values.lock()),
        }
    }

    /// The n-th flow, from 0.
    pub async fn up(&self, n: usize) -> Arc<FlowFacts> {
        let nth = |values: &[FromFlow]| {
            let ups = values.iter().filter_map(|value| match value {
                FromFlow::FlowUp(facts) => Some(facts.clone()),
                _ => None,
            });
            ups.into_iter().nth(n)
        };
        self.heard(&format!("flow {n}"), nth).await
    }

    /// Why a flow ended.
    pub async fn down(&self, flow: FlowId) -> String {
        self.heard("the end of a flow", |values| {
            values.iter().find_map(|value| match value {
                FromFlow::FlowDown { flow: of, cause } if *of == flow => Some(cause.clone()),
                _ => None,
            })
        })
        .await
    }

    /// Why a dial gave no flow.
    pub async fn no_flow(&self, dial: DialId) -> String {
        self.heard("the end of a dial", |values| {
            values.iter().find_map(|value| match value {
                FromFlow::DialFailed { dial: of, cause } if *of == dial => Some(cause.clone()),
                FromFlow::FlowUp(facts) if facts.dial == Some(dial) => panic!("a flow came up that must not"),
                _ => None,
            })
        })
        .await
    }

    /// Waits for so many messages of a flow; all that came of it so far.
    pub async fn messages(&self, flow: FlowId, count: usize) -> Vec<Message> {
        self.heard(&format!("{count} messages"), |values| {
            let came = values.iter().filter_map(|value| match value {
                FromFlow::Messages { flow: of, messages } if of.flow == flow => Some(messages.clone()),
                _ => None,
            });
            let came: Vec<Message> = came.flatten().collect();
            (came.len() >= count).then_some(came)
        })
        .await
    }

    /// Waits until so many octets of a flow are reported as written.
    pub async fn written(&self, flow: FlowId, bytes: usize) {
        self.heard(&format!("{bytes} octets written"), |values| {
            let sum = values.iter().map(|value| match value {
                FromFlow::Written { flow: of, bytes } if *of == flow => *bytes as usize,
                _ => 0,
            });
            let sum = sum.sum::<usize>();
            assert!(sum <= bytes, "{sum} octets are reported, {bytes} were given");
            (sum == bytes).then_some(())
        })
        .await;
    }

    /// The kinds of values that came of a flow, in order.
    pub fn order(&self, flow: FlowId) -> Vec<&'static str> {
        let kind = |value: &FromFlow| match value {
            FromFlow::FlowUp(facts) if facts.flow == flow => Some("up"),
            FromFlow::Messages { flow: of, .. } if of.flow == flow => Some("messages"),
            FromFlow::Written { flow: of, .. } if *of == flow => Some("written"),
            FromFlow::FlowDown { flow: of, .. } if *of == flow => Some("down"),
            _ => None,
        };
        self.values.lock().iter().filter_map(kind).collect()
    }
}

/// What differs from site to site.
#[derive(Default)]
pub struct Plan {
    /// Besides one listener of TCP, TLS and UDP each on a port of its own.
    pub listen: Vec<(Transport, SocketAddr)>,
    /// Whom it has certificates for; the first one's is shown to who names none of them.
    pub names: Vec<&'static str>,
    /// Its certificates are from an authority that nobody trusts.
    pub is_rogue: bool,
    pub resolver: Option<Resolver>,
    /// Connections that peers may have.
    pub connections: Option<usize>,
}

/// One SIP edge.
pub struct Site {
    pub edge: SipEdge,
    pub ear: Arc<Ear>,
    pub metrics: Arc<Metrics>,
    bound: Vec<(Transport, SocketAddr)>,
}

pub fn certificates(world: &World, names: &[&str], is_rogue: bool) -> Arc<CertificateStore> {
    let store = Arc::new(CertificateStore::default());
    for name in names {
        let (certificate, key) = world.authority(is_rogue).issue(name, &[name]).expect("issued");
        store.load(name, &certificate, &key).expect("it fits");
    }
    store
}

pub fn start(world: &World, plan: Plan) -> Site {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let each = [Transport::Tcp, Transport::Tls, Transport::Udp].map(|transport| (transport, any));
    let settings = SipEdgeSettings {
        listen: plan.listen.into_iter().chain(each).collect(),
        certificates: certificates(world, &plan.names, plan.is_rogue),
        trust: world.trust(),
        limits: MessageLimits::default(),
        connections: plan.connections.unwrap_or(1000),
        connections_per_address: 1000,
        unproved_connections_per_address: 1000,
        keep_alive: None,
        resolver: plan.resolver.unwrap_or_else(|| world.silent_resolver()),
        memory: tombolo_runtime::MemoryGate::open(),
        outgoing_bytes: 64 << 20,
    };
    let (ear, metrics) = (Arc::new(Ear::default()), Arc::new(Metrics::new(1)));
    let started =
        SipEdge::start(settings, ear.clone(), world.placement.clone(), world.clock.clone(), metrics.clone());
    let (edge, bound) = started.expect("started");
    Site { edge, ear, metrics, bound }
}

impl Site {
    /// The first listener of a transport.
    pub fn at(&self, transport: Transport) -> SocketAddr {
        let found = self.bound.iter().find(|(of, _)| *of == transport);
        found.expect("there is one of each").1
    }

    pub fn send(&self, flow: FlowId, bytes: impl Into<Bytes>) {
        self.edge.send(ToFlow::Bytes { flow, bytes: bytes.into() });
    }

    /// Somebody proved himself by a flow.
    pub fn bind(&self, flow: FlowId) {
        self.edge.send(ToFlow::Bound { flow });
    }

    pub fn close(&self, flow: FlowId) {
        self.edge.send(ToFlow::Close { flow });
    }

    pub fn dial(
        &self,
        dial: u64,
        transport: Transport,
        host: &str,
        port: Option<u16>,
        domain: &str,
    ) -> DialId {
        let (host, domain, dial) = (host.into(), domain.into(), DialId(dial));
        self.edge.send(ToFlow::Dial { dial, transport, is_transport_named: true, host, port, domain });
        dial
    }

    /// The number that a counter shows.
    pub fn counted(&self, name: &str) -> u64 {
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("tombolo_{name} ")));
        line.expect("a counter of this name").parse().expect("a number")
    }
}

pub fn request(method: &str, call_id: &str, body: &str) -> String {
    request_by("SIP/2.0/TCP h.example;branch=z9hG4bKa;rport", method, call_id, body)
}

pub fn request_by(via: &str, method: &str, call_id: &str, body: &str) -> String {
    format!(
        "{method} sip:a@b.example SIP/2.0\r\nVia: {via}\r\nFrom: <sip:c@d.example>;tag=1\r\n\
         To: <sip:a@b.example>\r\nCall-ID: {call_id}\r\nCSeq: 1 {method}\r\nMax-Forwards: 70\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub fn call_ids(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| message.call_id().expect("there").to_owned()).collect()
}

/// Reads so many octets as text.
pub async fn read_text(stream: &mut (impl AsyncRead + Unpin), len: usize) -> String {
    let mut octets = vec![0; len];
    let read = timeout(PATIENCE, stream.read_exact(&mut octets)).await;
    read.expect("in time").expect("readable");
    String::from_utf8(octets).expect("text")
}

/// Reads as text until the other end closes.
pub async fn read_rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut text)).await;
    read.expect("in time").expect("readable");
    text
}
