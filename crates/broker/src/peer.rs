//! One SIP next hop: a front end, or a phone by its registered flow. Pure.
//!
//! Messages of its flow, requests of shards and users, credit and time go in; bytes for the flow, requests to be
//! served, ends of our own requests and dials come out. Transactions belong to the peer and outlive a flow.
//!
//! A front end has a [health](health): it is kept connected, asked when it is silent, and every change of its health is
//! told. What is sent to it goes by a connection that we dialled, or that proved by TLS whose it is; any other flow brings
//! its requests and takes the answers to them, and nothing else. A [request that an address failed](elsewhere) goes to
//! another one.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tombolo_edge::{FlowFacts, FlowId};
use tombolo_interwork::{
    error::NoResponse,
    owner::{PeerHealth, PeerWay, ReplyTo},
    request::RequestDraft,
};
use tombolo_sip::{
    build::ResponseBuilder,
    message::Message,
    method::Method,
    transaction::{Incoming, ServerId, Timers, Transactions},
    uas::{self, Verdict},
};

use self::{
    beside::Beside,
    elsewhere::Elsewhere,
    front_end::{FrontEnd, leads_to_front_end},
    health::FrontEndHealth,
};
use crate::{body_forms::BodyForms, messages::Requester, session::ShardIndex};

mod beside;
mod datagrams;
mod elsewhere;
mod front_end;
pub mod health;

/// What a peer asks for, in order.
#[derive(Debug)]
pub enum PeerOutput {
    /// Open a flow.
    Dial,
    /// Open a TCP connection to the address from which a phone's datagrams come, where the phone is to be reached there.
    OpenStream {
        /// The datagrams' flow.
        flow: FlowId,
        /// The address.
        remote: SocketAddr,
    },
    /// Close a flow, and dial its address last for a time: it fails where others may not.
    Avoid {
        /// The flow.
        flow: FlowId,
        /// How long.
        span: Duration,
    },
    /// Dial a flow's address last for a time, and let the flow be: it fails one request where others may not.
    Mark {
        /// The flow.
        flow: FlowId,
        /// How long.
        span: Duration,
    },
    /// Close a flow that serves nothing.
    Close {
        /// The flow.
        flow: FlowId,
    },
    /// Write octets to a flow.
    Bytes {
        /// The flow.
        flow: FlowId,
        /// Whole messages.
        bytes: Bytes,
    },
    /// A request passed its transaction and the first checks: whoever serves it answers once.
    Serve {
        /// Where the answer goes.
        reply: ReplyTo,
        /// By which flow it came.
        flow: Arc<FlowFacts>,
        /// The request.
        message: Box<Message>,
    },
    /// A request of ours ended.
    Ended {
        /// Who asked.
        requester: Requester,
        /// How.
        outcome: Result<Box<Message>, NoResponse>,
    },
    /// A shard may hand over so many octets.
    Grant {
        /// The shard.
        shard: ShardIndex,
        /// Octets.
        bytes: usize,
    },
    /// A request is too large for UDP, and the peer has no stream.
    TooLarge {
        /// Its method.
        method: &'static str,
        /// Its octets.
        len: usize,
    },
    /// How the peer is reached changed: tell every shard.
    Way(Option<PeerWay>),
    /// A front end's health changed: tell every shard.
    Health(PeerHealth),
    /// A front end forgot a dialog: every shard looks after its own.
    Forgot,
}

/// A request of ours, kept until it has ended: where an address fails, it goes to another once (RFC 3263 §4.3).
#[derive(Debug, Clone)]
struct Sent {
    /// Whoever waits for its end; `None` for a question of the peer's own about the front end's health.
    requester: Option<Requester>,
    /// Instead of the draft's Request-URI.
    uri: Option<String>,
    draft: Arc<RequestDraft>,
    is_second: bool,
    /// By which flow it left, and when.
    left: Option<(FlowId, Instant)>,
}

/// A flow that lives.
#[derive(Debug)]
struct Live {
    facts: Arc<FlowFacts>,
    /// When something came by it last.
    heard: Option<Instant>,
}

/// One peer. See the [module](self).
#[derive(Debug)]
pub struct Peer {
    transactions: Transactions<Sent>,
    /// What is sent goes by this one of `flows`.
    flow: Option<Arc<FlowFacts>>,
    /// All that live; the one that came or was proved last stands last.
    flows: Vec<Live>,
    /// Of a front end, which can be dialled. A phone comes by itself.
    front_end: Option<FrontEnd>,
    /// A dial is under way; its own report ends it, and this is for one that is lost.
    dialling_until: Option<Instant>,
    /// The next hop of `flow` asked to be left alone (RFC 3261 §21.5.4): the next flow takes its place.
    must_rest: bool,
    window: usize,
    wanting: VecDeque<(ShardIndex, usize)>,
    granted: Vec<(ShardIndex, usize)>,
    waiting: VecDeque<Sent>,
    elsewhere: Elsewhere,
    beside: Beside,
    forms: BodyForms,
    out: VecDeque<PeerOutput>,
}

impl Peer {
    /// A phone without a flow. `owner` goes into each branch of ours.
    pub fn phone(owner: &str, now: Instant) -> Self {
        Self {
            transactions: Transactions::new(owner, Timers::default(), now),
            flow: None,
            flows: Vec::new(),
            front_end: None,
            dialling_until: None,
            must_rest: false,
            window: 0,
            wanting: VecDeque::new(),
            granted: Vec::new(),
            waiting: VecDeque::new(),
            elsewhere: Elsewhere::default(),
            beside: Beside::default(),
            forms: BodyForms::default(),
            out: VecDeque::new(),
        }
    }

    /// Counts its transactions from above `first`, so that no answer to a machine that this one replaces is taken for one
    /// to itself. Call it before anything else.
    pub fn counting_from(mut self, first: u64) -> Self {
        self.transactions.count_from(first);
        self
    }

    /// Requests that were not answered, each with its flow. Only for a peer that panicked; it may panic again.
    pub fn take_unanswered(&mut self) -> Vec<(FlowId, Message)> {
        self.transactions
            .take_unanswered()
            .into_iter()
            .map(|(flow, message)| (FlowId(flow), message))
            .collect()
    }

    /// A shard was rebuilt: what it was granted comes back, what it wanted it will say again.
    pub fn handle_shard_rebuilt(&mut self, shard: ShardIndex) {
        self.wanting.retain(|(wanting, _)| *wanting != shard);
        let granted = self.granted.extract_if(.., |(granted, _)| *granted == shard);
        let bytes: usize = granted.map(|(_, bytes)| bytes).sum();
        if self.flow.is_some() {
            self.window = (self.window + bytes).min(FLOW_WINDOW_BYTES);
        }
        self.grant();
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self) -> Option<PeerOutput> {
        self.drain_transactions();
        self.out.pop_front()
    }

    /// When [`Peer::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let health = self.health().and_then(FrontEndHealth::poll_timeout);
        let idle = self.beside.poll_timeout();
        [self.dialling_until, health, idle, self.transactions.poll_timeout()].into_iter().flatten().min()
    }

    /// True when nothing is open and there is no flow.
    pub fn is_idle(&self) -> bool {
        self.flow.is_none()
            && self.transactions.is_idle()
            && self.waiting.is_empty()
            && self.elsewhere.is_empty()
    }

    /// How it is reached.
    pub fn way(&self) -> Option<PeerWay> {
        self.flow.as_deref().map(|flow| self.way_by(flow))
    }

    /// Its flows that live.
    pub fn flows(&self) -> impl Iterator<Item = FlowId> + '_ {
        self.flows.iter().map(|live| live.facts.flow)
    }

    /// The flow by which it is reached.
    pub fn flow(&self) -> Option<FlowId> {
        self.flow.as_deref().map(|flow| flow.flow)
    }

    /// The address to which what is sent goes.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.flow.as_deref().map(|flow| flow.remote)
    }

    /// Those of its flows that we opened.
    pub fn dialled_flows(&self) -> Vec<FlowId> {
        let dialled = self.flows.iter().filter(|live| live.facts.dial.is_some());
        dialled.map(|live| live.facts.flow).collect()
    }

    /// A flow to the peer: the first one, one that a phone speaks by from now on, or news of a known one.
    ///
    /// A front end's flow counts only where it leads to the front end for certain. The source of a datagram, or a connection
    /// from a trusted address, is where somebody wrote from, and no way to it.
    pub fn handle_flow_up(&mut self, flow: Arc<FlowFacts>, now: Instant) {
        let is_dialled = flow.dial.is_some();
        if is_dialled {
            self.dialling_until = None;
        }
        if self.front_end.is_some() && !leads_to_front_end(&flow) {
            return;
        }
        let known = self.flows.iter().position(|live| live.facts.flow == flow.flow);
        let heard = known.and_then(|at| self.flows.remove(at).heard);
        self.flows.push(Live { facts: flow.clone(), heard });
        match &self.flow {
            Some(current) if current.flow == flow.flow => self.flow = Some(flow),
            // A front end may have several connections to us; what we send goes by the first while it lives.
            Some(current)
                if self.front_end.is_some()
                    && !(self.must_rest && is_dialled && current.remote != flow.remote) => {}
            Some(current) if self.is_stream_beside(&flow, current) => {
                self.adopt_stream_beside(flow.flow, now);
            }
            _ => self.adopt(flow, now),
        }
        self.send_elsewhere(now);
        if is_dialled {
            // Nobody else was there.
            self.fail_elsewhere();
            self.close_double(now);
        }
        self.drive_health(now);
    }

    /// What is sent goes by this flow from now on.
    fn adopt(&mut self, flow: Arc<FlowFacts>, now: Instant) {
        match &mut self.front_end {
            Some(front_end) => front_end.health.handle_connected(flow.transport.is_reliable(), now),
            None if self.flow.is_some() => {
                // What was in flight by the old flow is said again by the new one.
                self.granted.clear();
                self.out.push_back(PeerOutput::Way(None));
            }
            None => {}
        }
        self.must_rest = false;
        let granted: usize = self.granted.iter().map(|(_, bytes)| bytes).sum();
        self.window = FLOW_WINDOW_BYTES.saturating_sub(granted);
        self.out.push_back(PeerOutput::Way(Some(self.way_by(&flow))));
        self.flow = Some(flow);
        self.flush(now);
        self.grant();
    }

    /// Sends what waited for a flow.
    fn flush(&mut self, now: Instant) {
        while self.flow.is_some()
            && let Some(sent) = self.waiting.pop_front()
        {
            self.send(sent, now);
        }
    }

    /// A flow ended. The newest other one takes its place. Its requests without an answer go by the next one to a front
    /// end, once; those to a phone have failed.
    pub fn handle_flow_down(&mut self, flow: FlowId, now: Instant) {
        let Some(at) = self.flows.iter().position(|live| live.facts.flow == flow) else { return };
        let before = self.way();
        let was_heard = self.flows.remove(at).heard.is_some();
        if self.flow.as_ref().is_some_and(|current| current.flow == flow) {
            self.flow = None;
            self.must_rest = false;
            self.window = 0;
            self.granted.clear();
            self.out.push_back(PeerOutput::Way(None));
            if let Some(front_end) = &mut self.front_end {
                front_end.health.handle_ended(now);
            }
        }
        let is_lost = |sent: &Sent| sent.left.is_some_and(|(by, _)| by == flow);
        for sent in self.transactions.fail_clients(is_lost) {
            self.send_again(sent, Err(NoResponse::Transport));
        }
        if self.flow.is_none()
            && let Some(other) = self.flows.last()
        {
            self.adopt(other.facts.clone(), now);
        } else if self.way() != before
            && let Some(way) = self.way()
        {
            // The stream for large requests is gone.
            self.out.push_back(PeerOutput::Way(Some(way)));
        }
        self.note_stream_down(flow, was_heard, now);
        self.flush(now);
        self.drive_health(now);
        self.fail_waiting_if_hopeless(now);
    }

    /// Something came by a flow.
    pub fn handle_heard(&mut self, flow: FlowId, now: Instant) {
        if let Some(live) = self.flows.iter_mut().find(|live| live.facts.flow == flow) {
            live.heard = Some(now);
        }
        if let Some(front_end) = &mut self.front_end
            && self.flow.as_ref().is_some_and(|current| current.flow == flow)
        {
            front_end.health.handle_heard(now);
            self.drive_health(now);
        }
    }

    /// Tells whoever asked how a request ended.
    fn end(&mut self, sent: Sent, outcome: Result<Box<Message>, NoResponse>) {
        if let Some(requester) = sent.requester {
            self.out.push_back(PeerOutput::Ended { requester, outcome });
        }
    }

    /// True when a request came before, so that it is answered as it was then.
    pub fn holds(&self, message: &Message) -> bool {
        self.transactions.holds(message)
    }

    /// Messages that a flow brought.
    pub fn handle_message(&mut self, flow: &Arc<FlowFacts>, message: Message, now: Instant) {
        if !message.is_request() {
            self.transactions.handle_response(message, now);
            // A refusal counts before the mere sign of life that it is too.
            self.settle(now);
            return self.handle_heard(flow.flow, now);
        }
        self.handle_heard(flow.flow, now);
        let (most, most_octets) = match self.front_end.is_some() {
            true => (FRONT_END_SERVERS, FRONT_END_SERVER_OCTETS),
            false => (PHONE_SERVERS, PHONE_SERVER_OCTETS),
        };
        let is_full = self.transactions.servers() >= most
            || self.transactions.server_octets() + message.octets() > most_octets;
        let is_other = matches!(message.method(), Some(Method::Ack | Method::Cancel));
        if is_full && !is_other && !self.holds(&message) {
            return self.answer_stateless(flow, &message, 503, &[("Retry-After", "2".to_owned())]);
        }
        let is_reliable = flow.transport.is_reliable();
        match self.transactions.handle_request(&message, flow.flow.0, is_reliable, now) {
            Incoming::New(ServerId(number)) => {
                let reply = ReplyTo(number);
                match uas::check(&message) {
                    Verdict::Accept => {
                        self.forms.note(&message);
                        let message = Box::new(message);
                        self.out.push_back(PeerOutput::Serve { reply, flow: flow.clone(), message });
                    }
                    Verdict::Refuse { status, headers } => {
                        if let Some(bytes) = respond(&message, status, &headers) {
                            self.handle_response(reply, bytes, now);
                        }
                    }
                    Verdict::Drop => {}
                }
            }
            Incoming::Absorbed => {}
            Incoming::Merged => self.answer_stateless(flow, &message, 482, &[]),
            Incoming::Cancel { is_matched } => {
                self.answer_stateless(flow, &message, if is_matched { 200 } else { 481 }, &[]);
            }
        }
    }

    fn answer_stateless(
        &mut self,
        flow: &Arc<FlowFacts>,
        message: &Message,
        status: u16,
        headers: &[(&'static str, String)],
    ) {
        if let Some(bytes) = respond(message, status, headers) {
            self.out.push_back(PeerOutput::Bytes { flow: flow.flow, bytes: bytes.into() });
        }
    }

    /// The answer to a request that was handed out to be served.
    pub fn handle_response(&mut self, reply: ReplyTo, bytes: Vec<u8>, now: Instant) {
        self.transactions.respond(ServerId(reply.0), bytes, now);
    }

    /// A request to be sent in a transaction of its own.
    pub fn handle_request(
        &mut self,
        requester: Requester,
        uri: Option<String>,
        draft: Box<RequestDraft>,
        now: Instant,
    ) {
        let requester = Some(requester);
        let sent = Sent { requester, uri, draft: Arc::from(draft), is_second: false, left: None };
        if self.flow.is_some() {
            return self.send(sent, now);
        }
        let is_hopeless = self.health().is_none_or(|health| health.must_wait(now));
        if is_hopeless || self.waiting.len() >= WAITING_REQUESTS {
            return self.end(sent, Err(NoResponse::Transport));
        }
        self.waiting.push_back(sent);
        self.drive_health(now);
    }

    fn send(&mut self, sent: Sent, now: Instant) {
        let Some(current) = self.flow.clone() else { return self.end(sent, Err(NoResponse::Transport)) };
        let sent = match self.flow_that_takes(&sent, current.clone()) {
            Some(flow) => return self.send_by(&flow, sent, now),
            None => self.wait_for_stream(sent, &current, now),
        };
        let Err(sent) = sent else { return };
        match self.flow_without_stream(&sent, current) {
            Some(flow) => self.send_by(&flow, sent, now),
            None => self.end(sent, Err(NoResponse::TooLarge)),
        }
    }

    fn send_by(&mut self, flow: &FlowFacts, sent: Sent, now: Instant) {
        let way = way_of(flow);
        self.beside.note_used(flow.flow, now);
        let sent = Sent { left: Some((flow.flow, now)), ..sent };
        // Copies for a front end go to the address that the first went to; a phone is where it was met last, but for
        // what only another flow can take.
        let is_current = self.flow.as_ref().is_some_and(|current| current.flow == flow.flow);
        let pinned = (self.front_end.is_some() || !is_current).then_some(flow.flow.0);
        let (draft, uri) = (sent.draft.clone(), sent.uri.clone());
        let draft = match self.forms.in_form_of_recipient(&draft, uri.as_deref(), way.is_reliable) {
            Some(wrapped) => Arc::new(wrapped),
            None => draft,
        };
        let method = Method::parse(draft.method).unwrap_or(Method::Options);
        self.transactions.send(sent, method, pinned, way.is_reliable, now, |branch| {
            let rport = if way.is_reliable { "" } else { ";rport" };
            let via = format!("{};branch={branch}{rport}", way.via);
            match uri {
                Some(uri) => RequestDraft { uri, ..(*draft).clone() }.render(&via, &way.contact),
                None => draft.render(&via, &way.contact),
            }
        });
    }

    /// A shard asks for credit.
    pub fn handle_want(&mut self, shard: ShardIndex, owed_bytes: usize, now: Instant) {
        // A shard asks again when the flow came anew: that replaces what it asked before.
        self.wanting.retain(|(wanting, _)| *wanting != shard);
        self.wanting.push_back((shard, owed_bytes));
        self.drive_health(now);
        self.grant();
    }

    /// A shard used its grant.
    pub fn handle_notifies(&mut self, shard: ShardIndex, bytes: Vec<u8>) {
        let at = self.granted.iter().position(|(granted, _)| *granted == shard);
        let granted = at.map_or(0, |at| self.granted.swap_remove(at).1);
        let Some(flow) = &self.flow else { return };
        self.window = (self.window + granted).saturating_sub(bytes.len());
        if !bytes.is_empty() {
            self.out.push_back(PeerOutput::Bytes { flow: flow.flow, bytes: bytes.into() });
        }
        self.grant();
    }

    /// Octets were written.
    pub fn handle_written(&mut self, flow: FlowId, bytes: u32) {
        if self.flow.as_ref().is_some_and(|known| known.flow == flow) {
            // Responses and single requests are not granted, so what comes back may be more than what was taken.
            self.window = (self.window + bytes as usize).min(FLOW_WINDOW_BYTES);
            self.grant();
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.transactions.handle_timeout(now);
        self.settle(now);
        self.close_idle_stream(now);
        if self.dialling_until.is_some_and(|until| until <= now) {
            self.handle_dial_failed(now);
        }
        self.drive_health(now);
    }

    fn grant(&mut self) {
        if self.health().is_some_and(|health| !health.takes()) {
            // What is owed stays in the shards, newest state only, until the front end is heard again.
            return;
        }
        // A datagram peer has no stream to fill: each NOTIFY is a transaction, which bounds itself.
        while self.window >= LEAST_GRANT_BYTES
            && let Some((shard, owed)) = self.wanting.pop_front()
        {
            let share = self.window / (self.wanting.len() + 1);
            let bytes = share.min(owed).max(LEAST_GRANT_BYTES).min(self.window);
            self.window -= bytes;
            self.granted.push((shard, bytes));
            self.out.push_back(PeerOutput::Grant { shard, bytes });
        }
    }

    fn drain_transactions(&mut self) {
        while let Some(transmit) = self.transactions.poll_transmit() {
            let flow = transmit.flow.map(FlowId).or(self.flow.as_ref().map(|flow| flow.flow));
            if let Some(flow) = flow {
                self.out.push_back(PeerOutput::Bytes { flow, bytes: transmit.bytes });
            }
        }
    }
}

/// A response with these headers; `None` when the request cannot be answered.
pub fn respond(message: &Message, status: u16, headers: &[(&'static str, String)]) -> Option<Vec<u8>> {
    let mut builder = ResponseBuilder::to(message, status, None).ok()?;
    for (name, value) in headers {
        builder = builder.header(name, value);
    }
    Some(builder.render())
}

/// What the branches of a peer's requests begin with behind the magic cookie, up to a dot; `number` is the peer's.
pub fn owner_name(number: u64) -> String {
    format!("p{number:016x}")
}

/// What our Via and Contact say on a flow.
pub fn way_of(flow: &FlowFacts) -> PeerWay {
    let (sent_by, transport) = (&flow.sent_by, flow.transport);
    PeerWay {
        is_reliable: transport.is_reliable(),
        takes_large: transport.is_reliable(),
        via: format!("SIP/2.0/{} {sent_by}", transport.via_name()).into(),
        contact: format!("{sent_by};transport={}", transport.uri_name()).into(),
    }
}

/// Octets that a flow may have handed over and not yet written.
const FLOW_WINDOW_BYTES: usize = 128 * 1024;
const LEAST_GRANT_BYTES: usize = 2048;
const WAITING_REQUESTS: usize = 1024;
/// How long an address that failed is dialled last, where it does not say itself.
const AVOIDED_FOR: Duration = Duration::from_secs(60);
/// A dial tries address after address, each with its own limits, and reports; this is for one whose report is lost.
const DIAL_LOST: Duration = Duration::from_secs(600);
/// Requests of one phone that are open, or whose copies are still answered.
const PHONE_SERVERS: usize = 256;
/// What these take, in octets.
const PHONE_SERVER_OCTETS: usize = 2 << 20;
const FRONT_END_SERVER_OCTETS: usize = 128 << 20;
/// And of a front end: what it sends by UDP in 32 s.
const FRONT_END_SERVERS: usize = 65_536;

#[cfg(test)]
mod tests;
