//! One SIP next hop: a front end, or a phone by its registered flow. Pure.
//!
//! Messages of its flow, requests of shards and users, credit and time go in; bytes for the flow, requests to be
//! served, ends of our own requests and dials come out. Transactions belong to the peer and outlive a flow.

use std::{
    collections::VecDeque,
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
}

/// One peer. See the [module](self).
#[derive(Debug)]
pub struct Peer {
    transactions: Transactions<Sent>,
    flow: Option<Arc<FlowFacts>>,
    /// It can be dialled: a front end. A phone comes by itself.
    may_dial: bool,
    dialling_until: Option<Instant>,
    retry_at: Option<Instant>,
    failures: u32,
    window: usize,
    wanting: VecDeque<(ShardIndex, usize)>,
    granted: Vec<(ShardIndex, usize)>,
    waiting: VecDeque<Sent>,
    out: VecDeque<PeerOutput>,
}

impl Peer {
    /// A peer without a flow. `owner` goes into each branch of ours.
    pub fn new(owner: &str, may_dial: bool, now: Instant) -> Self {
        Self {
            transactions: Transactions::new(owner, Timers::default(), now),
            flow: None,
            may_dial,
            dialling_until: None,
            retry_at: None,
            failures: 0,
            window: 0,
            wanting: VecDeque::new(),
            granted: Vec::new(),
            waiting: VecDeque::new(),
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
        self.flow.is_none() && self.transactions.is_idle() && self.waiting.is_empty()
    }

    /// How it is reached.
    pub fn way(&self) -> Option<PeerWay> {
        self.flow.as_deref().map(way_of)
    }

    /// Its flow, if we opened it.
    pub fn dialled_flow(&self) -> Option<FlowId> {
        self.flow.as_deref().filter(|flow| flow.dial.is_some()).map(|flow| flow.flow)
    }

    /// The flow by which it is reached.
    pub fn flow(&self) -> Option<FlowId> {
        self.flow.as_deref().map(|flow| flow.flow)
    }

    /// A flow to the peer: the first one, or one that replaces the old one.
    pub fn handle_flow_up(&mut self, flow: Arc<FlowFacts>, now: Instant) {
        self.dialling_until = None;
        self.retry_at = None;
        self.failures = 0;
        if self.flow.as_ref().is_some_and(|known| known.flow == flow.flow) {
            return;
        }
        // A front end may have several connections to us; what we send goes by the first while it lives.
        if self.may_dial && self.flow.is_some() {
            return;
        }
        if self.flow.is_some() {
            // What was in flight by the old flow is said again by the new one.
            self.granted.clear();
            self.out.push_back(PeerOutput::Way(None));
        }
        self.window = FLOW_WINDOW_BYTES;
        self.out.push_back(PeerOutput::Way(Some(way_of(&flow))));
        self.flow = Some(flow);
        while let Some(sent) = self.waiting.pop_front() {
            self.send(sent, now);
        }
        self.grant();
    }

    /// A flow ended. Requests without an answer go by the next one to a front end, once; those to a phone have failed.
    pub fn handle_flow_down(&mut self, flow: FlowId, now: Instant) {
        if self.flow.as_ref().is_none_or(|known| known.flow != flow) {
            return;
        }
        self.leave_flow();
        if !self.wanting.is_empty() || !self.waiting.is_empty() {
            self.dial_if_needed(now);
        }
    }

    fn leave_flow(&mut self) {
        self.flow = None;
        self.window = 0;
        self.granted.clear();
        self.out.push_back(PeerOutput::Way(None));
        for sent in self.transactions.fail_clients() {
            self.send_again(sent, Err(NoResponse::Transport));
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
    }

    /// Messages that a flow brought.
    pub fn handle_message(&mut self, flow: &Arc<FlowFacts>, message: Message, now: Instant) {
        if !message.is_request() {
            self.transactions.handle_response(message, now);
            return self.settle(now);
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
            Incoming::Merged => self.answer_stateless(flow, &message, 482),
            Incoming::Cancel { is_matched } => {
                self.answer_stateless(flow, &message, if is_matched { 200 } else { 481 });
            }
        }
    }

    fn answer_stateless(&mut self, flow: &Arc<FlowFacts>, message: &Message, status: u16) {
        if let Some(bytes) = respond(message, status, &[]) {
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
        let sent = Sent { requester, uri, draft: Arc::from(draft), is_second: false };
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
        let Some(flow) = &self.flow else { return };
        let way = way_of(flow);
        let (draft, uri) = (sent.draft.clone(), sent.uri.clone());
        let method = Method::parse(draft.method).unwrap_or(Method::Options);
        self.transactions.send(sent, method, way.is_reliable, now, |branch| {
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
        self.dialling_until = Some(now + DIAL_TIMEOUT);
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
    fn settle(&mut self, now: Instant) {
        while let Some((sent, outcome)) = self.transactions.poll_ended() {
            let outcome = match outcome {
                Outcome::Response(message) => Ok(message),
                Outcome::Timeout => Err(NoResponse::Timeout),
            };
            let span = match &outcome {
                Ok(message) if message.status() == Some(503) => Some(
                    message
                        .retry_after()
                        .map_or(AVOIDED_FOR, |seconds| Duration::from_secs(seconds.into()).min(MOST_AVOIDED)),
                ),
                Ok(_) => None,
                Err(_) => Some(AVOIDED_FOR),
            };
            // What has one address only gets no better by a new flow.
            let failed = self.flow.as_ref().filter(|flow| flow.has_alternatives && !sent.is_second);
            match (span, failed.map(|flow| flow.flow)) {
                (Some(span), Some(flow)) => {
                    self.out.push_back(PeerOutput::Avoid { flow, span });
                    self.send_again(sent, outcome);
                    self.leave_flow();
                    self.dial_if_needed(now);
                }
                _ => self.out.push_back(PeerOutput::Ended { requester: sent.requester, outcome }),
            }
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
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
const DIAL_FLOOR: Duration = Duration::from_millis(500);
const DIAL_CAP: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use tombolo_edge::Transport;
    use tombolo_interwork::owner::RequestId;
    use tombolo_sip::message::{MessageLimits, read_datagram};

    use super::*;

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        Instant::now()
    }

    fn flow(number: u64) -> Arc<FlowFacts> {
        Arc::new(FlowFacts {
            flow: FlowId(number),
            transport: Transport::Tcp,
            local: ([127, 0, 0, 1], 5060).into(),
            remote: ([127, 0, 0, 2], 5060).into(),
            sent_by: "127.0.0.1:5060".into(),
            dial: None,
            has_alternatives: false,
            proved_domains: Arc::from([]),
        })
    }

    fn draft() -> Box<RequestDraft> {
        Box::new(RequestDraft {
            method: "MESSAGE",
            uri: "sip:a@b".into(),
            routes: Vec::new(),
            from: "<sip:x@y>;tag=f".into(),
            to: "<sip:a@b>".into(),
            call_id: "c".into(),
            cseq: 1,
            contact_user: None,
            headers: Vec::new(),
            content_type: None,
            body: Vec::new(),
        })
    }

    fn outputs(peer: &mut Peer) -> Vec<PeerOutput> {
        std::iter::from_fn(|| peer.poll_output()).collect()
    }

    #[test]
    fn a_request_to_a_front_end_waits_for_its_dial_and_then_leaves() {
        let now = start();
        let mut peer = Peer::new("p", true, now);
        peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
        assert!(matches!(outputs(&mut peer)[..], [PeerOutput::Dial]));
        peer.handle_flow_up(flow(1), now);
        let out = outputs(&mut peer);
        assert!(matches!(&out[..], [PeerOutput::Way(Some(_)), PeerOutput::Bytes { .. }]), "{out:?}");
    }

    #[test]
    fn a_request_to_a_phone_that_is_gone_fails_at_once() {
        let now = start();
        let mut peer = Peer::new("p", false, now);
        peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
        let out = outputs(&mut peer);
        assert!(
            matches!(&out[..], [PeerOutput::Ended { outcome: Err(NoResponse::Transport), .. }]),
            "{out:?}"
        );
    }

    fn ended(out: &[PeerOutput]) -> Vec<&Result<Box<Message>, NoResponse>> {
        let mut ended = Vec::new();
        for output in out {
            if let PeerOutput::Ended { outcome, .. } = output {
                ended.push(outcome);
            }
        }
        ended
    }

    /// The request that `out` has, and a response to it.
    fn answer(out: &[PeerOutput], status: &str) -> Message {
        let request = out.iter().find_map(|output| match output {
            PeerOutput::Bytes { bytes, .. } => read_datagram(bytes.clone(), &MessageLimits::default()).ok(),
            _ => None,
        });
        let request = request.expect("a request");
        let via = request.vias().next().expect("a Via");
        let text = format!(
            "SIP/2.0 {status}\r\nVia: {via}\r\nFrom: <sip:x@y>;tag=f\r\nTo: <sip:a@b>;tag=t\r\nCall-ID: c\r\n\
             CSeq: 1 MESSAGE\r\n\r\n"
        );
        read_datagram(text.into(), &MessageLimits::default()).expect("legal")
    }

    #[test]
    fn a_lost_flow_of_a_phone_fails_what_was_open_and_its_credit() {
        let now = start();
        let mut peer = Peer::new("p", false, now);
        peer.handle_flow_up(flow(1), now);
        peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
        peer.handle_want(0, 5000, now);
        outputs(&mut peer);
        peer.handle_flow_down(FlowId(1), now);
        let out = outputs(&mut peer);
        assert!(out.iter().any(|o| matches!(o, PeerOutput::Way(None))));
        assert!(matches!(ended(&out)[..], [Err(NoResponse::Transport)]), "{out:?}");
        assert!(peer.way().is_none());
    }

    #[test]
    fn a_request_whose_connection_to_a_front_end_breaks_goes_by_a_new_one_once() {
        let now = start();
        let mut peer = Peer::new("p", true, now);
        peer.handle_flow_up(flow(1), now);
        peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
        outputs(&mut peer);
        peer.handle_flow_down(FlowId(1), now);
        let out = outputs(&mut peer);
        assert!(matches!(out[..], [PeerOutput::Way(None), PeerOutput::Dial]), "{out:?}");
        peer.handle_flow_up(flow(2), now);
        let out = outputs(&mut peer);
        assert!(out.iter().any(|o| matches!(o, PeerOutput::Bytes { flow: FlowId(2), .. })), "{out:?}");
        peer.handle_flow_down(FlowId(2), now);
        let out = outputs(&mut peer);
        assert!(matches!(ended(&out)[..], [Err(NoResponse::Transport)]), "{out:?}");
    }

    #[test]
    fn sip_d_14_a_503_and_silence_leave_an_address_for_the_next_where_there_is_one() {
        let of_many = |number| Arc::new(FlowFacts { has_alternatives: true, ..(*flow(number)).clone() });
        for is_silent in [false, true] {
            let mut now = start();
            let mut peer = Peer::new("p", true, now);
            peer.handle_flow_up(of_many(1), now);
            peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
            let sent = outputs(&mut peer);
            if is_silent {
                now += Duration::from_secs(32);
                peer.handle_timeout(now);
            } else {
                let refusal = answer(&sent, "503 Busy\r\nRetry-After: 7");
                peer.handle_message(&of_many(1), refusal, now);
            }
            let out = outputs(&mut peer);
            let wanted = Duration::from_secs(if is_silent { 60 } else { 7 });
            assert!(
                matches!(out[..], [PeerOutput::Avoid { flow: FlowId(1), span }, PeerOutput::Way(None), PeerOutput::Dial]
                    if span == wanted),
                "{out:?}"
            );
            // The end of what was left means nothing; the next answers.
            peer.handle_flow_down(FlowId(1), now);
            peer.handle_flow_up(of_many(2), now);
            let sent = outputs(&mut peer);
            peer.handle_message(&of_many(2), answer(&sent, "200 OK"), now);
            let out = outputs(&mut peer);
            let [Ok(message)] = ended(&out)[..] else { panic!("{out:?}") };
            assert_eq!(message.status(), Some(200));
        }
    }

    #[test]
    fn a_503_of_the_only_address_or_of_the_second_is_the_answer() {
        let now = start();
        let mut peer = Peer::new("p", true, now);
        peer.handle_flow_up(flow(1), now);
        peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
        let sent = outputs(&mut peer);
        peer.handle_message(&flow(1), answer(&sent, "503 Busy"), now);
        let out = outputs(&mut peer);
        let [PeerOutput::Ended { outcome: Ok(message), .. }] = &out[..] else { panic!("{out:?}") };
        assert_eq!(message.status(), Some(503));
        assert!(peer.way().is_some(), "the flow stays");
    }

    #[test]
    fn sip_t_09_a_request_by_datagrams_asks_for_rport_and_names_where_we_are_reached() {
        let now = start();
        for (transport, wanted) in [
            (Transport::Udp, "SIP/2.0/UDP 127.0.0.1:5060;branch="),
            (Transport::Tcp, "SIP/2.0/TCP 127.0.0.1:5060;branch="),
        ] {
            let mut peer = Peer::new("p", false, now);
            peer.handle_flow_up(Arc::new(FlowFacts { transport, ..(*flow(1)).clone() }), now);
            peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
            let out = outputs(&mut peer);
            let [PeerOutput::Way(Some(_)), PeerOutput::Bytes { bytes, .. }] = &out[..] else {
                panic!("{out:?}")
            };
            let request = read_datagram(bytes.clone(), &MessageLimits::default()).expect("legal");
            let via = request.vias().next().expect("a Via");
            assert!(via.starts_with(wanted), "{via}");
            assert_eq!(via.ends_with(";rport"), transport == Transport::Udp, "{via}");
        }
    }

    #[test]
    fn sip_t_10_all_requests_go_by_one_connection_which_stays_and_is_dialled_again_on_demand() {
        let mut now = start();
        let mut peer = Peer::new("p", true, now);
        let mut dials = 0;
        for n in 0..500 {
            peer.handle_request(Requester::Shard(0, RequestId(n)), None, draft(), now);
            let out = outputs(&mut peer);
            if out.iter().any(|output| matches!(output, PeerOutput::Dial)) {
                dials += 1;
                peer.handle_flow_up(flow(dials), now);
                outputs(&mut peer);
            }
            // The peer answers nothing for far longer than 64*T1, and then the next is sent.
            now += Duration::from_secs(60);
            peer.handle_timeout(now);
            outputs(&mut peer);
        }
        assert_eq!(dials, 1, "connections of 500 requests");
        peer.handle_flow_down(FlowId(1), now);
        assert!(
            !outputs(&mut peer).iter().any(|output| matches!(output, PeerOutput::Dial)),
            "nobody needs it"
        );
        peer.handle_request(Requester::Shard(0, RequestId(0)), None, draft(), now);
        assert!(outputs(&mut peer).iter().any(|output| matches!(output, PeerOutput::Dial)));
    }

    #[test]
    fn sip_tls_12_a_front_ends_own_connection_that_is_lost_is_replaced_by_one_of_ours() {
        let now = start();
        let mut peer = Peer::new("p", true, now);
        // It dialled us, and we answer and ask by the same connection.
        peer.handle_flow_up(flow(1), now);
        peer.handle_request(Requester::Shard(0, RequestId(1)), None, draft(), now);
        let out = outputs(&mut peer);
        assert!(
            out.iter().any(|output| matches!(output, PeerOutput::Bytes { flow: FlowId(1), .. })),
            "{out:?}"
        );
        peer.handle_flow_down(FlowId(1), now);
        let out = outputs(&mut peer);
        assert!(matches!(out[..], [PeerOutput::Way(None), PeerOutput::Dial]), "{out:?}");
        peer.handle_flow_up(flow(2), now);
        let out = outputs(&mut peer);
        assert!(
            out.iter().any(|output| matches!(output, PeerOutput::Bytes { flow: FlowId(2), .. })),
            "{out:?}"
        );
    }

    #[test]
    fn a_phones_new_flow_replaces_the_old_one() {
        let now = start();
        let mut peer = Peer::new("p", false, now);
        peer.handle_flow_up(flow(1), now);
        outputs(&mut peer);
        peer.handle_flow_up(flow(2), now);
        let out = outputs(&mut peer);
        assert!(matches!(&out[..], [PeerOutput::Way(None), PeerOutput::Way(Some(_))]), "{out:?}");
        peer.handle_flow_down(FlowId(1), now);
        assert!(peer.way().is_some(), "the old flow's end means nothing");
    }

    #[test]
    fn grants_never_exceed_the_window() {
        let now = start();
        let mut peer = Peer::new("p", false, now);
        peer.handle_flow_up(flow(1), now);
        for shard in 0..4 {
            peer.handle_want(shard, 1 << 20, now);
        }
        let granted: usize = outputs(&mut peer)
            .iter()
            .map(|output| if let PeerOutput::Grant { bytes, .. } = output { *bytes } else { 0 })
            .sum();
        assert!(granted <= FLOW_WINDOW_BYTES, "{granted}");
    }

    #[test]
    fn a_shard_that_asks_again_is_granted_once() {
        let now = start();
        let mut peer = Peer::new("p", true, now);
        peer.handle_want(0, 300, now);
        peer.handle_want(0, 600, now);
        peer.handle_flow_up(flow(1), now);
        let granted = outputs(&mut peer).iter().filter(|o| matches!(o, PeerOutput::Grant { .. })).count();
        assert_eq!(granted, 1);
    }

    #[test]
    fn a_request_that_nobody_serves_is_refused_here() {
        let now = start();
        let mut peer = Peer::new("p", false, now);
        let text = "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:x@y>;tag=f\r\n\
            To: <sip:a@b>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n\r\n";
        let message =
            read_datagram(Bytes::from_static(text.as_bytes()), &MessageLimits::default()).expect("legal");
        peer.handle_message(&flow(1), message, now);
        let out = outputs(&mut peer);
        let [PeerOutput::Bytes { bytes, .. }] = &out[..] else { panic!("{out:?}") };
        assert!(bytes.starts_with(b"SIP/2.0 405 "));
    }
}
