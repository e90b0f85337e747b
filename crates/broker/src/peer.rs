//! One SIP next hop: a front end, or a phone by its registered flow. Pure.
//!
//! Messages of its flow, requests of shards and users, credit and time go in; bytes for the flow, requests to be
//! served, ends of our own requests and dials come out. Transactions belong to the peer and outlive a flow.

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
    owner::{PeerWay, ReplyTo},
    request::RequestDraft,
};
use tombolo_sip::{
    build::ResponseBuilder,
    message::Message,
    method::Method,
    transaction::{Incoming, Outcome, ServerId, Timers, Transactions},
    uas::{self, Verdict},
};

use crate::{messages::Requester, session::ShardIndex};

/// What a peer asks for, in order.
#[derive(Debug)]
pub enum PeerOutput {
    /// Open a flow.
    Dial,
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
    /// How the peer is reached changed: tell every shard.
    Way(Option<PeerWay>),
}

/// A request of ours, kept until it has ended: where an address fails, it goes to another once (RFC 3263 §4.3).
#[derive(Debug, Clone)]
struct Sent {
    requester: Requester,
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

/// A request on its way to another address than the one that failed it.
#[derive(Debug)]
struct Elsewhere {
    sent: Sent,
    failed: SocketAddr,
    /// How it ends where there is no other.
    failure: Result<Box<Message>, NoResponse>,
}

/// One peer. See the [module](self).
#[derive(Debug)]
pub struct Peer {
    transactions: Transactions<Sent>,
    /// What is sent goes by this one of `flows`.
    flow: Option<Arc<FlowFacts>>,
    /// All that live; the one that came or was proved last stands last.
    flows: Vec<Live>,
    /// It can be dialled: a front end. A phone comes by itself.
    may_dial: bool,
    /// A dial is under way; its own report ends it, and this is for one that is lost.
    dialling_until: Option<Instant>,
    retry_at: Option<Instant>,
    failures: u32,
    /// The next hop of `flow` asked to be left alone (RFC 3261 §21.5.4): the next flow takes its place.
    must_rest: bool,
    window: usize,
    wanting: VecDeque<(ShardIndex, usize)>,
    granted: Vec<(ShardIndex, usize)>,
    waiting: VecDeque<Sent>,
    elsewhere: VecDeque<Elsewhere>,
    out: VecDeque<PeerOutput>,
}

impl Peer {
    /// A peer without a flow. `owner` goes into each branch of ours.
    pub fn new(owner: &str, may_dial: bool, now: Instant) -> Self {
        Self {
            transactions: Transactions::new(owner, Timers::default(), now),
            flow: None,
            flows: Vec::new(),
            may_dial,
            dialling_until: None,
            retry_at: None,
            failures: 0,
            must_rest: false,
            window: 0,
            wanting: VecDeque::new(),
            granted: Vec::new(),
            waiting: VecDeque::new(),
            elsewhere: VecDeque::new(),
            out: VecDeque::new(),
        }
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self) -> Option<PeerOutput> {
        self.drain_transactions();
        self.out.pop_front()
    }

    /// When [`Peer::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = [self.dialling_until, self.retry_at].into_iter().flatten();
        own.chain(self.transactions.poll_timeout()).min()
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
        self.flow.as_deref().map(way_of)
    }

    /// Its flows that live.
    pub fn flows(&self) -> impl Iterator<Item = FlowId> + '_ {
        self.flows.iter().map(|live| live.facts.flow)
    }

    /// The flow by which it is reached.
    pub fn flow(&self) -> Option<FlowId> {
        self.flow.as_deref().map(|flow| flow.flow)
    }

    /// Those of its flows that we opened.
    pub fn dialled_flows(&self) -> Vec<FlowId> {
        let dialled = self.flows.iter().filter(|live| live.facts.dial.is_some());
        dialled.map(|live| live.facts.flow).collect()
    }

    /// A flow to the peer: the first one, one that a phone speaks by from now on, or news of a known one.
    pub fn handle_flow_up(&mut self, flow: Arc<FlowFacts>, now: Instant) {
        let is_dialled = flow.dial.is_some();
        if is_dialled {
            self.dialling_until = None;
        }
        self.retry_at = None;
        self.failures = 0;
        let known = self.flows.iter().position(|live| live.facts.flow == flow.flow);
        let heard = known.and_then(|at| self.flows.remove(at).heard);
        self.flows.push(Live { facts: flow.clone(), heard });
        match &self.flow {
            Some(current) if current.flow == flow.flow => self.flow = Some(flow),
            // A front end may have several connections to us; what we send goes by the first while it lives.
            Some(current)
                if self.may_dial && !(self.must_rest && is_dialled && current.remote != flow.remote) => {}
            _ => self.adopt(flow, now),
        }
        self.send_elsewhere(now);
        if is_dialled {
            // Nobody else was there.
            self.fail_elsewhere();
            self.close_double();
        }
    }

    /// What is sent goes by this flow from now on.
    fn adopt(&mut self, flow: Arc<FlowFacts>, now: Instant) {
        if self.flow.is_some() && !self.may_dial {
            // What was in flight by the old flow is said again by the new one.
            self.granted.clear();
            self.out.push_back(PeerOutput::Way(None));
        }
        self.must_rest = false;
        let granted: usize = self.granted.iter().map(|(_, bytes)| bytes).sum();
        self.window = FLOW_WINDOW_BYTES.saturating_sub(granted);
        self.out.push_back(PeerOutput::Way(Some(way_of(&flow))));
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

    /// The newest dial led to an address that has a flow already: one is enough.
    fn close_double(&mut self) {
        let Some(newest) = self.flows.last().map(|live| live.facts.clone()) else { return };
        let is_current = |current: &Arc<FlowFacts>| current.flow == newest.flow;
        if self.flow.as_ref().is_some_and(is_current) {
            return;
        }
        let is_double = |live: &Live| live.facts.remote == newest.remote && live.facts.flow != newest.flow;
        if self.flows.iter().any(is_double) {
            self.flows.pop();
            self.out.push_back(PeerOutput::Close { flow: newest.flow });
        }
    }

    /// A flow ended. The newest other one takes its place. Its requests without an answer go by the next one to a front
    /// end, once; those to a phone have failed.
    pub fn handle_flow_down(&mut self, flow: FlowId, now: Instant) {
        let Some(at) = self.flows.iter().position(|live| live.facts.flow == flow) else { return };
        self.flows.remove(at);
        if self.flow.as_ref().is_some_and(|current| current.flow == flow) {
            self.flow = None;
            self.must_rest = false;
            self.window = 0;
            self.granted.clear();
            self.out.push_back(PeerOutput::Way(None));
        }
        let is_lost = |sent: &Sent| sent.left.is_some_and(|(by, _)| by == flow);
        for sent in self.transactions.fail_clients(is_lost) {
            self.send_again(sent, Err(NoResponse::Transport));
        }
        if self.flow.is_none()
            && let Some(other) = self.flows.last()
        {
            self.adopt(other.facts.clone(), now);
        }
        self.flush(now);
        if !self.wanting.is_empty() || !self.waiting.is_empty() {
            self.dial_if_needed(now);
        }
    }

    /// Something came by a flow that went elsewhere than here.
    pub fn handle_heard(&mut self, flow: FlowId, now: Instant) {
        if let Some(live) = self.flows.iter_mut().find(|live| live.facts.flow == flow) {
            live.heard = Some(now);
        }
    }

    /// To the next address of a front end, unless it was the second already; `failure` is how it ended so far.
    fn send_again(&mut self, sent: Sent, failure: Result<Box<Message>, NoResponse>) {
        if self.may_dial && !sent.is_second && self.waiting.len() < WAITING_REQUESTS {
            return self.waiting.push_back(Sent { is_second: true, ..sent });
        }
        self.out.push_back(PeerOutput::Ended { requester: sent.requester, outcome: failure });
    }

    /// A dial failed: what waited for it fails too.
    pub fn handle_dial_failed(&mut self, now: Instant) {
        self.dialling_until = None;
        self.failures = self.failures.saturating_add(1);
        let wait = DIAL_FLOOR.saturating_mul(1 << self.failures.min(6)).min(DIAL_CAP);
        self.retry_at = Some(now + wait);
        while let Some(sent) = self.waiting.pop_front() {
            let outcome = Err(NoResponse::Transport);
            self.out.push_back(PeerOutput::Ended { requester: sent.requester, outcome });
        }
        self.fail_elsewhere();
    }

    /// True when a request came before, so that it is answered as it was then.
    pub fn holds(&self, message: &Message) -> bool {
        self.transactions.holds(message)
    }

    /// Messages that a flow brought.
    pub fn handle_message(&mut self, flow: &Arc<FlowFacts>, message: Message, now: Instant) {
        self.handle_heard(flow.flow, now);
        if !message.is_request() {
            self.transactions.handle_response(message, now);
            return self.settle(now);
        }
        let most = if self.may_dial { FRONT_END_SERVERS } else { PHONE_SERVERS };
        let is_other = matches!(message.method(), Some(Method::Ack | Method::Cancel));
        if self.transactions.servers() >= most && !is_other && !self.holds(&message) {
            return self.answer_stateless(flow, &message, 503, &[("Retry-After", "2".to_owned())]);
        }
        let is_reliable = flow.transport.is_reliable();
        match self.transactions.handle_request(&message, flow.flow.0, is_reliable, now) {
            Incoming::New(ServerId(number)) => {
                let reply = ReplyTo(number);
                match uas::check(&message) {
                    Verdict::Accept => {
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
        let sent = Sent { requester, uri, draft: Arc::from(draft), is_second: false, left: None };
        if self.flow.is_some() {
            return self.send(sent, now);
        }
        if !self.may_dial || self.retry_at.is_some() || self.waiting.len() >= WAITING_REQUESTS {
            let outcome = Err(NoResponse::Transport);
            return self.out.push_back(PeerOutput::Ended { requester: sent.requester, outcome });
        }
        self.waiting.push_back(sent);
        self.dial_if_needed(now);
    }

    fn send(&mut self, sent: Sent, now: Instant) {
        if let Some(flow) = self.flow.clone() {
            self.send_by(&flow, sent, now);
        }
    }

    fn send_by(&mut self, flow: &FlowFacts, sent: Sent, now: Instant) {
        let way = way_of(flow);
        let sent = Sent { left: Some((flow.flow, now)), ..sent };
        // Copies for a front end go to the address that the first went to; a phone is where it was met last.
        let pinned = self.may_dial.then_some(flow.flow.0);
        let (draft, uri) = (sent.draft.clone(), sent.uri.clone());
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
        if self.flow.is_none() {
            return self.dial_if_needed(now);
        }
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
        if self.dialling_until.is_some_and(|until| until <= now) {
            self.handle_dial_failed(now);
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            if !self.wanting.is_empty() {
                self.dial_if_needed(now);
            }
        }
    }

    fn dial_if_needed(&mut self, now: Instant) {
        if !self.may_dial || self.flow.is_some() || self.dialling_until.is_some() || self.retry_at.is_some() {
            return;
        }
        self.dialling_until = Some(now + DIAL_LOST);
        self.out.push_back(PeerOutput::Dial);
    }

    fn grant(&mut self) {
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

    /// Requests of ours that ended: with an answer, or on their way to the next address.
    ///
    /// Only the one that failed goes there (RFC 3263 §4.3): it may be one device that is silent, or a 503 that came from
    /// further away. The flow is left only where nothing at all came by it since the request left.
    fn settle(&mut self, now: Instant) {
        while let Some((sent, outcome)) = self.transactions.poll_ended() {
            let outcome = match outcome {
                Outcome::Response(message) => Ok(message),
                Outcome::Timeout => Err(NoResponse::Timeout),
            };
            let rest = match &outcome {
                Ok(message) if message.status() == Some(503) => {
                    message.retry_after().map(|seconds| Duration::from_secs(seconds.into()).min(MOST_AVOIDED))
                }
                Err(_) => None,
                Ok(_) => {
                    self.out.push_back(PeerOutput::Ended { requester: sent.requester, outcome });
                    continue;
                }
            };
            // What has one address only gets no better by a new flow.
            let by = sent.left.filter(|_| !sent.is_second);
            let live = by.and_then(|(by, left)| {
                let live = self.flows.iter().find(|live| live.facts.flow == by)?;
                live.facts.has_alternatives.then_some((live, left))
            });
            let Some((live, left)) = live else {
                self.out.push_back(PeerOutput::Ended { requester: sent.requester, outcome });
                continue;
            };
            let (flow, failed) = (live.facts.flow, live.facts.remote);
            let span = rest.unwrap_or(AVOIDED_FOR);
            if outcome.is_err() && live.heard.is_none_or(|heard| heard <= left) {
                self.out.push_back(PeerOutput::Avoid { flow, span });
                self.send_again(sent, outcome);
                self.handle_flow_down(flow, now);
                continue;
            }
            self.out.push_back(PeerOutput::Mark { flow, span });
            let is_current = self.flow.as_ref().is_some_and(|current| current.flow == flow);
            self.must_rest |= is_current && rest.is_some();
            if self.elsewhere.len() >= WAITING_REQUESTS {
                self.out.push_back(PeerOutput::Ended { requester: sent.requester, outcome });
                continue;
            }
            self.elsewhere.push_back(Elsewhere { sent, failed, failure: outcome });
            self.send_elsewhere(now);
            if self.elsewhere.is_empty() || self.dialling_until.is_some() {
                continue;
            }
            if self.retry_at.is_some() {
                self.fail_elsewhere();
            } else {
                self.dialling_until = Some(now + DIAL_LOST);
                self.out.push_back(PeerOutput::Dial);
            }
        }
    }

    /// Sends what another address failed by the newest flow to a different one that we opened.
    fn send_elsewhere(&mut self, now: Instant) {
        for _ in 0..self.elsewhere.len() {
            let Some(Elsewhere { sent, failed, failure }) = self.elsewhere.pop_front() else { return };
            let is_other = |live: &&Live| live.facts.dial.is_some() && live.facts.remote != failed;
            match self.flows.iter().rev().find(is_other).map(|live| live.facts.clone()) {
                Some(flow) => {
                    // It takes the place of one that asked for rest, however it came to be.
                    if self.must_rest && self.flow.as_ref().is_some_and(|current| current.remote == failed) {
                        self.adopt(flow.clone(), now);
                    }
                    self.send_by(&flow, Sent { is_second: true, ..sent }, now);
                }
                None => self.elsewhere.push_back(Elsewhere { sent, failed, failure }),
            }
        }
    }

    fn fail_elsewhere(&mut self) {
        for Elsewhere { sent, failure, .. } in self.elsewhere.drain(..) {
            self.out.push_back(PeerOutput::Ended { requester: sent.requester, outcome: failure });
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
/// And where it says more.
const MOST_AVOIDED: Duration = Duration::from_secs(600);
/// A dial tries address after address, each with its own limits, and reports; this is for one whose report is lost.
const DIAL_LOST: Duration = Duration::from_secs(600);
/// Requests of one phone that are open, or whose copies are still answered.
const PHONE_SERVERS: usize = 256;
/// And of a front end: what it sends by UDP in 32 s.
const FRONT_END_SERVERS: usize = 65_536;
const DIAL_FLOOR: Duration = Duration::from_millis(500);
const DIAL_CAP: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
