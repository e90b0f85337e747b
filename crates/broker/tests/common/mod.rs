//! A gateway in memory: the real actors around a store in memory, with an outside that is scripted by the test.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tombolo_broker::{Account, Accounts, Broker, BrokerSettings, MemoryLimits};
use tombolo_edge::{
    DialId, DomainPair, EdgePort, FlowFacts, FlowId, FlowPort, FlowSink, FromEdge, FromFlow, ProofMethod,
    STREAM_WINDOW_BYTES, StreamDirection, StreamEnd, StreamId, StreamSink, ToEdge, ToFlow, Transport,
};
use tombolo_policy::{
    Approve, FrontEnd, Home, LocalDomain, NextHop, Partner, PartnerKind, SipTransport, Table,
};
use tombolo_presence::{Address, Domain};
use tombolo_runtime::{Clock, Placement};
use tombolo_sip::{
    digest::{Algorithm, Answer, Client, Login, Request, ha1},
    framer::{Frame, StreamFramer},
    message::{Message, MessageLimits, read_datagram},
};
use tombolo_store::{MemoryStore, StateStore};
use tombolo_telemetry::Metrics;

pub const HOME: &str = "sip.example";
pub const CORP: &str = "corp.example";
pub const PARTNER: &str = "xmpp.example";
/// The next hop of the domain behind a front end.
const FRONT_END: &str = "127.0.0.31";
/// Who has an account at the built-in home.
pub const USERS: [&str; 6] = ["romeo", "mercutio", "tybalt", "paris", "balthasar", "peter"];
const PASSWORD: &str = "pw";

/// What the gateway handed out, in order.
#[derive(Default)]
struct Outside {
    flows: Mutex<Vec<ToFlow>>,
    edge: Mutex<Vec<ToEdge>>,
}

impl FlowPort for Outside {
    fn send(&self, value: ToFlow) {
        self.flows.lock().expect("no test panics inside").push(value);
    }
}

impl EdgePort for Outside {
    fn send(&self, value: ToEdge) {
        self.edge.lock().expect("no test panics inside").push(value);
    }
}

/// A gateway and its outside.
pub struct Gateway {
    pub broker: Broker,
    pub store: MemoryStore,
    metrics: Arc<Metrics>,
    outside: Arc<Outside>,
    /// The host that phones name in their Contact.
    pub contact_host: &'static str,
    next_stream: u64,
    next_cseq: u32,
    /// Requests and responses that left, by flow.
    said: HashMap<FlowId, Vec<Message>>,
    /// Stanzas that left.
    pub stanzas: Vec<String>,
    /// Flows that the gateway wanted opened.
    pub dials: Vec<(DialId, Transport, String, Option<u16>)>,
    /// And the front end's.
    pub front_end_dials: Vec<(DialId, Transport, String, Option<u16>)>,
    /// Flows that the gateway said are somebody's.
    pub bound: Vec<FlowId>,
    /// Streams that were to be ended for their peers' silence.
    pub given_up: Vec<StreamId>,
    /// Pings that left by streams of ours.
    pub pings: Vec<String>,
    /// The partner answers them.
    pub answers_pings: bool,
    /// The partner's stream by which it answers.
    answers_by: Option<StreamId>,
    /// Streams that the gateway opened, in order.
    pub opened: Vec<(StreamId, DomainPair)>,
    /// Stanzas that each of them wrote.
    written: HashMap<StreamId, u64>,
    /// What a dial comes to in place of a stream.
    pub no_stream: Option<StreamEnd>,
    /// Dials of streams get no answer at all.
    pub dials_hang: bool,
    /// Dials of streams, with and without success.
    pub stream_dials: usize,
}

/// Runs a test's future where actors can live.
pub fn run(test: impl Future<Output = ()>) {
    actix::System::new().block_on(test);
}

pub fn address(text: &str) -> Address {
    Address::from_prepared(text).expect("a prepared address")
}

pub fn domain(text: &str) -> Domain {
    Domain::from_prepared(text).expect("a prepared domain")
}

/// The accounts of these users.
pub fn accounts_of(approve: Approve, users: &[&str]) -> Accounts {
    let account = |user: &&str| Account {
        aor: address(&format!("{user}@{HOME}")),
        ha1: vec![ha1(Algorithm::Sha256, user, HOME, PASSWORD)],
        ha1_of_address: Vec::new(),
        approve,
    };
    users.iter().map(account).collect()
}

pub fn flow(number: u64, transport: Transport, remote: &str) -> Arc<FlowFacts> {
    Arc::new(facts(number, transport, remote.parse().expect("an address"), None))
}

fn facts(number: u64, transport: Transport, remote: SocketAddr, dial: Option<DialId>) -> FlowFacts {
    FlowFacts {
        flow: FlowId(number),
        transport,
        local: ([127, 0, 0, 1], 5060).into(),
        remote,
        sent_by: "127.0.0.1:5060".into(),
        dial,
        has_alternatives: false,
        proved_domains: Arc::from([]),
    }
}

/// The policy, with a partner that may have so many pairs.
pub fn table(subscriptions: u32) -> Table {
    table_of(subscriptions, [127, 0, 0, 31], SipTransport::Tcp)
}

/// The policy with another trusted address of the front end.
pub fn table_trusting(address: [u8; 4]) -> Table {
    table_of(u32::MAX, address, SipTransport::Tcp)
}

/// The policy with a front end that is spoken to by UDP.
pub fn table_by_datagrams() -> Table {
    table_of(u32::MAX, [127, 0, 0, 31], SipTransport::Udp)
}

/// The policy with another domain, whose front end is at another port of the same address.
pub fn table_of_two_front_ends() -> Table {
    let of = |name: &str, port| {
        let next_hop = NextHop {
            host: FRONT_END.into(),
            port: Some(port),
            transport: SipTransport::Tcp,
            is_transport_named: true,
        };
        let trusted_addresses = vec![[127, 0, 0, 31].into()];
        let home = Home::FrontEnd(FrontEnd { next_hop, insecure: true, trusted_addresses });
        LocalDomain { name: domain(name), home }
    };
    let partner = Partner { kind: PartnerKind::Federated, ..Partner::new(domain(PARTNER)) };
    Table::new(2, vec![of(CORP, 5060), of("other.example", 5080)], vec![partner]).expect("no conflict")
}

/// The policy without the domain behind a front end.
pub fn table_without_front_end() -> Table {
    let locals = vec![LocalDomain { name: domain(HOME), home: Home::BuiltIn }];
    Table::new(2, locals, Vec::new()).expect("no conflict")
}

fn table_of(subscriptions: u32, trusted: [u8; 4], transport: SipTransport) -> Table {
    let corp = FrontEnd {
        next_hop: NextHop { host: FRONT_END.into(), port: Some(5060), transport, is_transport_named: true },
        insecure: true,
        trusted_addresses: vec![trusted.into()],
    };
    let locals = vec![
        LocalDomain { name: domain(HOME), home: Home::BuiltIn },
        LocalDomain { name: domain(CORP), home: Home::FrontEnd(corp) },
    ];
    let mut partner = Partner { kind: PartnerKind::Federated, ..Partner::new(domain(PARTNER)) };
    partner.limits.subscriptions = subscriptions;
    Table::new(1, locals, vec![partner]).expect("no conflict")
}

/// What every gateway of these tests is set to.
pub fn broker_settings(store: Arc<dyn StateStore>, approve: Approve, placement: Placement) -> BrokerSettings {
    BrokerSettings {
        clock: Clock::system(),
        store,
        metrics: Arc::new(Metrics::new(placement.count())),
        policy: Arc::new(ArcSwap::from_pointee(table(u32::MAX))),
        accounts: accounts_of(approve, &USERS),
        digest: vec![Algorithm::Sha256],
        secret: [7; 32],
        seed: 1,
        watcher_interval: Duration::ZERO,
        registration_is_presence: true,
        idle_close: Duration::from_secs(600),
        max_sip_bytes: 65_536,
        memory: MemoryLimits::default(),
        ping_after: Duration::from_secs(30),
        placement,
    }
}

impl Gateway {
    pub fn start(approve: Approve) -> Self {
        Self::over(MemoryStore::new(), approve, Placement::single())
    }

    /// On so many threads of their own, one shard each; they run on by themselves.
    pub fn on_threads(count: usize, approve: Approve) -> Self {
        Self::over(MemoryStore::new(), approve, Placement::threads(count).expect("threads"))
    }

    /// The same after `kill -9`: what was stored, and no flow or stream.
    pub fn killed_and_started_again(self, approve: Approve) -> Self {
        // Phones and partners go on counting.
        let (next_stream, next_cseq) = (self.next_stream, self.next_cseq);
        Self { next_stream, next_cseq, ..Self::over(self.store.killed(), approve, Placement::single()) }
    }

    fn over(store: MemoryStore, approve: Approve, placement: Placement) -> Self {
        let settings = broker_settings(Arc::new(store.clone()), approve, placement);
        let metrics = settings.metrics.clone();
        let broker = Broker::start(settings);
        let broker = broker.expect("the store loads");
        let outside = Arc::new(Outside::default());
        broker.connect(outside.clone(), outside.clone());
        Self {
            broker,
            store,
            metrics,
            outside,
            contact_host: "192.0.2.1",
            next_stream: 1,
            next_cseq: 1,
            said: HashMap::new(),
            stanzas: Vec::new(),
            dials: Vec::new(),
            front_end_dials: Vec::new(),
            bound: Vec::new(),
            given_up: Vec::new(),
            pings: Vec::new(),
            answers_pings: false,
            answers_by: None,
            opened: Vec::new(),
            written: HashMap::new(),
            no_stream: None,
            dials_hang: false,
            stream_dials: 0,
        }
    }

    /// The value of a counter or gauge without labels, by its name in the text that an operator reads.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.render();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no metric {name}"))
    }

    /// Lets every actor run until nothing moves, and does what an edge would.
    pub async fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 20 {
            tokio::task::yield_now().await;
            let (flows, edge) = {
                let mut flows = self.outside.flows.lock().expect("no test panics inside");
                let mut edge = self.outside.edge.lock().expect("no test panics inside");
                (std::mem::take(&mut *flows), std::mem::take(&mut *edge))
            };
            quiet = if flows.is_empty() && edge.is_empty() { quiet + 1 } else { 0 };
            flows.into_iter().for_each(|value| self.take_flow(value));
            edge.into_iter().for_each(|value| self.take_edge(value));
        }
    }

    fn take_flow(&mut self, value: ToFlow) {
        match value {
            ToFlow::Bytes { flow, bytes } => {
                let mut framer = StreamFramer::new(MessageLimits::default());
                framer.push(&bytes);
                while let Ok(Some(Frame::Message(message))) = framer.next_frame() {
                    self.said.entry(flow).or_default().push(*message);
                }
                let bytes = bytes.len() as u32;
                self.flow_reports(FromFlow::Written { flow, bytes });
            }
            ToFlow::Dial { dial, transport, host, port, .. } if &*host == FRONT_END => {
                self.front_end_dials.push((dial, transport, host.into(), port));
            }
            ToFlow::Dial { dial, transport, host, port, .. } => {
                self.dials.push((dial, transport, host.into(), port));
            }
            ToFlow::Avoid { .. } | ToFlow::Mark { .. } => {}
            ToFlow::Bound { flow } => self.bound.push(flow),
            ToFlow::Close { flow } => self.flow_reports(FromFlow::FlowDown { flow, cause: "closed".into() }),
        }
    }

    fn take_edge(&mut self, value: ToEdge) {
        match value {
            ToEdge::Dial { dial, pair } => {
                self.stream_dials += 1;
                if self.dials_hang {
                    return;
                }
                if let Some(end) = self.no_stream.clone() {
                    return self.edge_reports(FromEdge::DialFailed { dial, end });
                }
                let stream = self.new_stream();
                self.opened.push((stream, pair.clone()));
                self.edge_reports(FromEdge::StreamUp {
                    stream,
                    direction: StreamDirection::Outgoing,
                    dial: Some(dial),
                    pair,
                    method: ProofMethod::SaslExternal,
                    tls: None,
                    window_bytes: STREAM_WINDOW_BYTES,
                    max_stanza_bytes: None,
                });
            }
            ToEdge::Stanzas { stream, count, bytes } => {
                let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
                // Every stanza of ours begins with one of these, and none stands inside another.
                for stanza in text
                    .replace("<presence ", "\n<presence ")
                    .replace("<message ", "\n<message ")
                    .replace("<iq ", "\n<iq ")
                    .lines()
                    .filter(|line| line.starts_with('<'))
                {
                    match stanza.contains("id='tombolo-ping-") {
                        true => self.take_ping(stanza.to_owned()),
                        false => self.stanzas.push(stanza.to_owned()),
                    }
                }
                let last = self.written.entry(stream).or_default();
                *last += u64::from(count);
                let written = FromEdge::Written { stream, last: *last, bytes: bytes.len() as u32 };
                self.edge_reports(written);
            }
            ToEdge::GiveUp { stream } => self.given_up.push(stream),
            ToEdge::Credit { .. } | ToEdge::Close { .. } | ToEdge::Beat => {}
        }
    }

    fn take_ping(&mut self, ping: String) {
        if self.answers_pings {
            let attribute = |name: &str| {
                let (_, rest) = ping.split_once(name).expect("there");
                rest.split_once('\'').expect("quoted").0.to_owned()
            };
            let (id, from, to) = (attribute(" id='"), attribute(" from='"), attribute(" to='"));
            let stream = self.answers_by.unwrap_or_else(|| self.stream_from_partner(&from));
            self.answers_by = Some(stream);
            self.stanzas_come(stream, &[&format!("<iq from='{to}' to='{from}' type='result' id='{id}'/>")]);
        }
        self.pings.push(ping);
    }

    fn new_stream(&mut self) -> StreamId {
        self.next_stream += 1;
        StreamId(self.next_stream)
    }

    pub fn flow_reports(&self, value: FromFlow) {
        assert!(FlowSink::offer(&*self.broker.router(), value).is_ok(), "nothing is full");
    }

    /// What an edge would report.
    pub fn edge_reports(&self, value: FromEdge) {
        assert!(StreamSink::offer(&*self.broker.router(), value).is_ok(), "nothing is full");
    }

    /// An incoming stream that proved the partner toward one of our domains.
    pub fn stream_from_partner(&mut self, local: &str) -> StreamId {
        let (stream, pair) =
            (self.new_stream(), DomainPair { local: domain(local), remote: domain(PARTNER) });
        self.edge_reports(FromEdge::StreamUp {
            stream,
            direction: StreamDirection::Incoming,
            dial: None,
            pair,
            method: ProofMethod::SaslExternal,
            tls: None,
            window_bytes: STREAM_WINDOW_BYTES,
            max_stanza_bytes: None,
        });
        stream
    }

    /// A stream that the gateway opened ends.
    pub fn stream_ends(&self, stream: StreamId, end: StreamEnd) {
        let last_written = self.written.get(&stream).copied().unwrap_or_default();
        self.edge_reports(FromEdge::StreamDown { stream, end, last_written });
    }

    /// False when the gateway does not take the stanza now.
    pub fn offer_stanza(&self, stream: StreamId, stanza: &str) -> bool {
        let stanzas = vec![Bytes::copy_from_slice(stanza.as_bytes())];
        StreamSink::offer(&*self.broker.router(), FromEdge::Stanzas { stream, first: 1, stanzas }).is_ok()
    }

    pub fn stanzas_come(&self, stream: StreamId, stanzas: &[&str]) {
        let stanzas = stanzas.iter().map(|stanza| Bytes::copy_from_slice(stanza.as_bytes())).collect();
        self.edge_reports(FromEdge::Stanzas { stream, first: 1, stanzas });
    }

    /// A flow that the gateway dialled is there.
    pub fn dial_answered(&mut self, number: u64) -> Arc<FlowFacts> {
        let dial = self.dials.remove(0);
        self.answer_dial(dial, number)
    }

    /// The front end took the dial that the gateway keeps up.
    pub fn front_end_answered(&mut self, number: u64) -> Arc<FlowFacts> {
        let dial = self.front_end_dials.remove(0);
        self.answer_dial(dial, number)
    }

    fn answer_dial(
        &mut self,
        (dial, transport, host, port): (DialId, Transport, String, Option<u16>),
        number: u64,
    ) -> Arc<FlowFacts> {
        let remote = SocketAddr::new(host.parse().expect("an address"), port.expect("a port"));
        let flow = Arc::new(facts(number, transport, remote, Some(dial)));
        self.flow_reports(FromFlow::FlowUp(flow.clone()));
        flow
    }

    /// Messages by a flow; the first of a flow makes it known.
    pub fn says(&self, flow: &Arc<FlowFacts>, text: &str) {
        let mut message =
            read_datagram(Bytes::copy_from_slice(text.as_bytes()), &MessageLimits::default()).expect("legal");
        if message.is_request() {
            message.set_received(flow.remote);
        }
        self.flow_reports(FromFlow::Messages { flow: flow.clone(), messages: vec![message] });
    }

    /// What left by a flow since this was asked last.
    pub fn heard(&mut self, flow: &FlowFacts) -> Vec<Message> {
        self.said.remove(&flow.flow).unwrap_or_default()
    }

    /// A request from `user` without credentials.
    pub fn request(&mut self, method: &str, user: &str, target: &str, headers: &str, body: &str) -> String {
        self.next_cseq += 1;
        let cseq = self.next_cseq;
        let (domain, to) = match target.split_once('@') {
            Some(_) => (target, target.to_owned()),
            None => (target, format!("{user}@{HOME}")),
        };
        format!(
            "{method} sip:{domain} SIP/2.0\r\nVia: SIP/2.0/UDP h:5060;rport;branch=z9hG4bK{cseq}\r\nMax-Forwards: 70\r\n\
             From: <sip:{user}@{HOME}>;tag={user}\r\nTo: <sip:{to}>\r\nCall-ID: {method}-{user}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:{user}@{}>\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            self.contact_host,
            body.len()
        )
    }

    /// Sends a request of a user's phone and answers its challenge; the final response.
    pub async fn ask(
        &mut self,
        flow: &Arc<FlowFacts>,
        method: &str,
        user: &str,
        target: &str,
        headers: &str,
        body: &str,
    ) -> Message {
        let first = self.request(method, user, target, headers, body);
        self.says(flow, &first);
        self.settle().await;
        let response = self.response(flow);
        if response.status() != Some(401) {
            return response;
        }
        let again = self.prove(&response, method, user, target, headers, body);
        self.says(flow, &again);
        self.settle().await;
        self.response(flow)
    }

    /// A request with what a challenge asks for.
    pub fn prove(
        &mut self,
        challenge: &Message,
        method: &str,
        user: &str,
        target: &str,
        headers: &str,
        body: &str,
    ) -> String {
        let login = Login {
            peer: "us".into(),
            realm: HOME.into(),
            user: user.into(),
            password: PASSWORD.into(),
            allows_md5: false,
        };
        let mut client = Client::new(login);
        let taken = client.handle_challenge("us", challenge.www_authenticate(), Answer::None);
        assert_eq!(taken, Ok(Answer::Fresh));
        let uri = format!("sip:{target}");
        let covered = Request { method, uri: &uri, body: body.as_bytes() };
        let value = client.authorize(&covered, 5).expect("challenged");
        self.request(method, user, target, &format!("Authorization: {value}\r\n{headers}"), body)
    }

    /// The only response among what left by a flow; the requests stay to be heard.
    fn response(&mut self, flow: &FlowFacts) -> Message {
        let said = self.said.entry(flow.flow).or_default();
        let at = said.iter().position(|message| !message.is_request()).expect("a response");
        said.remove(at)
    }

    /// A phone of `user` registers by a flow.
    pub async fn register(&mut self, flow: &Arc<FlowFacts>, user: &str) {
        self.flow_reports(FromFlow::FlowUp(flow.clone()));
        let response = self.ask(flow, "REGISTER", user, HOME, "Expires: 600\r\n", "").await;
        assert_eq!(response.status(), Some(200));
    }

    /// A phone answers every request that it was sent.
    pub fn answer_all(&mut self, flow: &Arc<FlowFacts>, status: u16) -> Vec<Message> {
        let heard = self.heard(flow);
        for request in heard.iter().filter(|message| message.is_request()) {
            let row = |name: &str| {
                let rows = request.all_rows().filter(|(known, _)| known.eq_ignore_ascii_case(name));
                rows.map(|(_, value)| format!("{name}: {value}\r\n")).collect::<String>()
            };
            let copied = ["Via", "From", "To", "Call-ID", "CSeq"].map(row).concat();
            self.says(flow, &format!("SIP/2.0 {status} x\r\n{copied}Content-Length: 0\r\n\r\n"));
        }
        heard
    }
}
