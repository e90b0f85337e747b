//! A SIP peer on its arbiter: carries between shards, flows and the pure [`Peer`].

use std::{
    collections::{HashSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, WrapFuture, fut::ActorFutureExt};
use tokio::sync::OwnedSemaphorePermit;
use tombolo_edge::{FlowFacts, FlowId, ToFlow, Transport};
use tombolo_interwork::owner::{Input, LaneKey, PeerHealth, PeerKey};
use tombolo_policy::SipTransport;
use tombolo_runtime::{Inbox, TURN_ITEMS, Wake};
use tombolo_sip::message::Message;
use tombolo_telemetry::{SipMethod, StatusClass};

use crate::{
    alarm::{Alarm, Alarmed},
    broker::FrontEndReport,
    directory::{Directory, LINGER},
    guarded::{Guarded, Recovery, Suspect},
    guests::answer,
    local_user::Reach,
    messages::{Arrived, Requester, ToPeer, ToUser},
    panics::ActorKind,
    peer::{
        Peer, PeerOutput,
        health::{Doubt, FrontEndHealth},
        owner_name, way_of,
    },
    requests::{Admission, admit, serve},
    salvage::refuse_by_flow,
};

/// The actor of one SIP next hop.
pub struct PeerActor {
    key: PeerKey,
    number: u64,
    peer: Peer,
    inbox: Inbox<Arrived>,
    directory: Arc<Directory>,
    alarm: Alarm,
    /// Why the last dial of a front end gave no connection.
    last_failure: Option<String>,
    /// Who waits for the end of a request.
    requesters: HashSet<Requester>,
    recovery: Recovery,
    /// How often the machine was built.
    life: u64,
    /// Messages of the batch in hand, the first of which is being handled. They outlive a panic.
    in_hand: VecDeque<InHand>,
    /// Room for a TCP connection of ours to a phone, while there is one or one is dialled.
    stream_permit: Option<OwnedSemaphorePermit>,
    /// The phone did not register again while the machine was rebuilt.
    has_lapsed: bool,
}

/// A message that the machine has not handled yet.
struct InHand {
    flow: Arc<FlowFacts>,
    message: Message,
    is_authenticated: bool,
    /// The machine has panicked over it once.
    is_suspect: bool,
}

impl PeerActor {
    /// A peer without a flow. `number` goes into its branches.
    pub fn new(key: PeerKey, number: u64, inbox: Inbox<Arrived>, directory: Arc<Directory>) -> Self {
        let peer = new_peer(&directory, &key, number, 0);
        Self {
            key,
            number,
            peer,
            inbox,
            directory,
            alarm: Alarm::default(),
            requesters: HashSet::new(),
            recovery: Recovery::default(),
            life: 0,
            in_hand: VecDeque::new(),
            stream_permit: None,
            has_lapsed: false,
            last_failure: None,
        }
    }

    fn drive(&mut self, ctx: &mut Context<Self>) {
        while let Some(output) = self.peer.poll_output() {
            self.carry(output);
        }
        if !self.peer.has_stream_beside() {
            self.stream_permit = None;
        }
        let is_over = matches!(self.key, PeerKey::Phone(_)) && self.peer.is_idle();
        let idle_until = || self.directory.clock.now().instant + LINGER;
        let due = if is_over { Some(idle_until()) } else { self.peer.poll_timeout() };
        self.set_alarm(due, ctx);
    }

    fn carry(&mut self, output: PeerOutput) {
        let directory = self.directory.clone();
        match output {
            PeerOutput::Dial => self.dial(),
            PeerOutput::OpenStream { flow, remote } => self.open_stream(flow, remote),
            PeerOutput::Avoid { flow, span } => directory.flows_port().send(ToFlow::Avoid { flow, span }),
            PeerOutput::Mark { flow, span } => directory.flows_port().send(ToFlow::Mark { flow, span }),
            PeerOutput::Close { flow } => self.close(flow),
            PeerOutput::Bytes { flow, bytes } => {
                directory.flows.hand_over(flow, &self.key, bytes.len());
                directory.flows_port().send(ToFlow::Bytes { flow, bytes });
            }
            PeerOutput::Serve { reply, flow, message } => {
                let way = self.peer.way().unwrap_or_else(|| way_of(&flow));
                serve(&directory, &self.key, way, &flow, reply, message);
            }
            PeerOutput::Ended { requester, outcome } => {
                self.requesters.remove(&requester);
                directory.end_request(requester, outcome.map(|message| *message));
            }
            PeerOutput::Grant { shard, bytes } => {
                let lane = LaneKey::Peer(self.key.clone());
                directory.tell_shard(shard, Input::Credit { lane, bytes });
            }
            PeerOutput::TooLarge { method, len } => {
                let remote = self.peer.remote().map(|remote| remote.to_string()).unwrap_or_default();
                tracing::warn!(
                    remote,
                    method,
                    len,
                    "a request is too large for UDP, and its peer has no TCP connection"
                );
            }
            PeerOutput::Way(way) => {
                if let PeerKey::Phone(phone) = &self.key {
                    let reach = if way.is_some() { Reach::Reachable } else { Reach::Unreachable };
                    directory.user(&phone.aor).do_send(ToUser::Reach { peer: self.key.clone(), reach });
                }
                directory.tell_shards(|| Input::PeerChanged { peer: self.key.clone(), way: way.clone() });
            }
            PeerOutput::Health(health) => self.tell_health(health),
            PeerOutput::Forgot => {
                if let PeerKey::FrontEnd(domain) = &self.key {
                    tracing::warn!(front_end = domain.as_str(), "front end has forgotten a dialog (481)");
                }
                directory.tell_shards(|| Input::PeerForgot { peer: self.key.clone() });
            }
        }
    }

    /// Says how a front end stands: in the log, in the metrics, and to the shards, whose dialogs depend on it.
    fn tell_health(&mut self, health: PeerHealth) {
        let PeerKey::FrontEnd(domain) = &self.key else { return };
        let front_end = domain.as_str();
        let cause = self.peer.health().and_then(FrontEndHealth::doubt).map(Doubt::as_str);
        match health {
            PeerHealth::Up => {
                self.last_failure = None;
                tracing::info!(front_end, "front end is up");
            }
            PeerHealth::Doubtful => tracing::warn!(front_end, cause, "front end is in doubt"),
            PeerHealth::Lost => tracing::warn!(front_end, cause, "front end is lost"),
        }
        self.directory.note_front_end(domain, cause);
        let peer = &self.key;
        self.directory.tell_shards(|| Input::PeerHealth { peer: peer.clone(), health });
    }

    fn report(&self, now: Instant) -> Option<FrontEndReport> {
        let PeerKey::FrontEnd(domain) = &self.key else { return None };
        if !self.directory.has_front_end(domain) {
            return None;
        }
        let state = self.peer.health()?;
        let (health, since) = state.health();
        Some(FrontEndReport {
            domain: domain.clone(),
            health,
            in_state_for: now.saturating_duration_since(since),
            cause: state.doubt().map(Doubt::as_str),
            remote: self.peer.remote(),
            last_failure: self.last_failure.clone().filter(|_| health != PeerHealth::Up),
            next_dial: state.next_dial().map(|at| at.saturating_duration_since(now)),
        })
    }

    /// Leaves a flow, which ends where nobody else has it.
    fn close(&self, flow: FlowId) {
        if self.directory.flows.forget(&self.key, &[flow]) > 0 {
            self.directory.flows_port().send(ToFlow::Close { flow });
        }
    }

    /// False when a message goes no further: a request of a phone is looked at before anything is kept of it, but for a
    /// copy of one that was. Who proves himself by a flow is met there from now on.
    fn admit(&mut self, flow: &Arc<FlowFacts>, message: &Message, is_proved: bool, now: Instant) -> bool {
        let PeerKey::Phone(phone) = &self.key else { return true };
        if !message.is_request() || self.peer.holds(message) {
            return true;
        }
        match admit(&self.directory, phone, flow, message, is_proved) {
            Admission::Serve { is_proved } => {
                // It may have ended meanwhile.
                if is_proved && self.directory.flows.is_of(flow.flow, &self.key) {
                    self.peer.handle_flow_up(flow.clone(), now);
                }
                true
            }
            Admission::Answer { status, headers } => {
                answer(&self.directory, flow, message, status, &headers);
                false
            }
            Admission::Drop => false,
        }
    }

    /// What its flows brought that went to shards at once.
    fn note_heard(&mut self) {
        let flows = &self.directory.flows;
        let heard = |flow| Some((flow, flows.take_heard(flow, &self.key)?));
        let heard: Vec<(FlowId, Instant)> = self.peer.flows().filter_map(heard).collect();
        for (flow, at) in heard {
            self.peer.handle_heard(flow, at);
        }
    }

    /// Dials a phone that is spoken to by datagrams, for a request that is large for them (RFC 3261 §18.1.1): only at the
    /// address that its REGISTER named, since behind a NAT another host may be there, and only so many at a time.
    fn open_stream(&mut self, flow: FlowId, remote: SocketAddr) {
        let PeerKey::Phone(phone) = &self.key else { return };
        let is_there = self.directory.flows.is_contact_at(flow, &self.key, remote);
        let permit =
            is_there.then(|| self.directory.phone_streams.clone().try_acquire_owned().ok()).flatten();
        let Some(permit) = permit else {
            return self.peer.handle_dial_failed(self.directory.clock.now().instant);
        };
        self.stream_permit = Some(permit);
        self.directory.flows_port().send(ToFlow::Dial {
            dial: self.directory.new_peer_dial(&self.key),
            transport: Transport::Tcp,
            is_transport_named: true,
            host: remote.ip().to_string().into(),
            port: Some(remote.port()),
            domain: phone.aor.domain().into(),
        });
    }

    fn dial(&mut self) {
        let PeerKey::FrontEnd(domain) = &self.key else { return };
        let policy = self.directory.policy.load();
        let Some(front_end) = policy.local_domain(domain.as_str()).and_then(|local| local.front_end()) else {
            self.directory.note_front_end(domain, None);
            return self.peer.rest();
        };
        let hop = &front_end.next_hop;
        let transport = match hop.transport {
            SipTransport::Tls => Transport::Tls,
            SipTransport::Tcp => Transport::Tcp,
            SipTransport::Udp => Transport::Udp,
        };
        let dial = self.directory.new_peer_dial(&self.key);
        self.directory.flows_port().send(ToFlow::Dial {
            dial,
            transport,
            is_transport_named: hop.is_transport_named,
            host: hop.host.clone(),
            port: hop.port,
            domain: domain.as_str().into(),
        });
    }
}

impl Alarmed for PeerActor {
    fn alarm(&mut self) -> &mut Alarm {
        &mut self.alarm
    }

    fn handle_alarm(&mut self, ctx: &mut Context<Self>) {
        self.guarded(ctx, Self::pass_time);
    }
}

impl Guarded for PeerActor {
    const KIND: ActorKind = ActorKind::Peer;

    fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    fn recovery(&mut self) -> &mut Recovery {
        &mut self.recovery
    }

    fn fall(&mut self, ctx: &mut Context<Self>) {
        self.set_alarm(None, ctx);
        self.life += 1;
        let fresh = new_peer(&self.directory, &self.key, self.number, self.life);
        let mut dead = std::mem::replace(&mut self.peer, fresh);
        // What shards owe waits in them until the machine is rebuilt.
        self.directory.tell_shards(|| Input::PeerChanged { peer: self.key.clone(), way: None });
        if let PeerKey::FrontEnd(_) = self.key {
            let health = PeerHealth::Doubtful;
            self.directory.tell_shards(|| Input::PeerHealth { peer: self.key.clone(), health });
        }
        for requester in self.requesters.drain() {
            self.directory.fail_request(requester);
        }
        match self.in_hand.front_mut() {
            Some(first) if !first.is_suspect => first.is_suspect = true,
            Some(_) => self.drop_suspect(),
            None => {}
        }
        for (flow, message) in dead.take_unanswered() {
            refuse_by_flow(&self.directory, flow, &message);
        }
    }

    fn rebuild(&mut self, ctx: &mut Context<Self>) {
        let now = self.directory.clock.now().instant;
        for facts in self.directory.flows.of(&self.key) {
            self.peer.handle_flow_up(facts, now);
        }
        // A front end is dialled before anybody needs it.
        self.peer.handle_timeout(now);
        self.is_back();
        if std::mem::take(&mut self.has_lapsed) {
            self.lapse(now);
        }
        // Nobody wakes it for what came meanwhile.
        self.take_turn(ctx);
    }
}

impl PeerActor {
    /// The machine panicked twice over the message in hand.
    fn drop_suspect(&mut self) {
        let Some(InHand { flow, message, .. }) = self.in_hand.pop_front() else { return };
        let kind = SipMethod::of(message.method_text());
        Suspect { kind: kind.as_str(), len: message.octets() }.log_dropped(ActorKind::Peer);
        refuse_by_flow(&self.directory, flow.flow, &message);
    }

    fn pass_time(&mut self, ctx: &mut Context<Self>) {
        if self.recovery.is_down() {
            return;
        }
        let now = self.directory.clock.now().instant;
        self.note_heard();
        self.peer.handle_timeout(now);
        while let Some(output) = self.peer.poll_output() {
            self.carry(output);
        }
        if matches!(self.key, PeerKey::Phone(_)) && self.peer.is_idle() {
            // A phone that went away owns nothing here; its dialogs wait in their shards.
            self.directory.forget_peer(&self.key, &[]);
            return ctx.stop();
        }
        self.set_alarm(self.peer.poll_timeout(), ctx);
    }
}

impl Actor for PeerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.inbox.wake_actor(ctx.address().recipient());
        // A front end is dialled before anybody needs it.
        self.peer.handle_timeout(self.directory.clock.now().instant);
        if matches!(self.key, PeerKey::FrontEnd(_)) {
            self.drive(ctx);
        }
    }
}

impl Handler<Wake> for PeerActor {
    type Result = ();

    fn handle(&mut self, _: Wake, ctx: &mut Context<Self>) {
        if !self.recovery.is_down() {
            self.guarded(ctx, Self::take_turn);
        }
    }
}

impl PeerActor {
    /// Handles what is in hand, and then what waits.
    fn take_turn(&mut self, ctx: &mut Context<Self>) {
        self.handle_in_hand();
        for _ in 0..TURN_ITEMS {
            let Some(Arrived { flow, messages, is_authenticated }) = self.inbox.pop() else { break };
            let in_hand =
                |message| InHand { flow: flow.clone(), message, is_authenticated, is_suspect: false };
            self.in_hand.extend(messages.into_iter().map(in_hand));
            self.handle_in_hand();
        }
        if self.inbox.finish_turn() {
            // Only an awaited yield lets the arbiter's other actors run before our next turn.
            let turn = tokio::task::yield_now().into_actor(self);
            ctx.spawn(turn.map(|(), actor, ctx| actor.handle(Wake, ctx)));
        }
        self.drive(ctx);
    }

    /// Handles the messages in hand. Each stays there until it is handled, so that it can be tried again after a panic.
    fn handle_in_hand(&mut self) {
        let now = self.directory.clock.now().instant;
        while let Some(first) = self.in_hand.front() {
            let (flow, message, is_proved) =
                (first.flow.clone(), first.message.clone(), first.is_authenticated);
            #[cfg(test)]
            crate::guarded::trap::spring(&format!("peer: {:?}", message.call_id()));
            if self.admit(&flow, &message, is_proved, now) {
                self.peer.handle_message(&flow, message, now);
                while let Some(output) = self.peer.poll_output() {
                    self.carry(output);
                }
            }
            self.in_hand.pop_front();
        }
    }

    fn lapse(&mut self, now: Instant) {
        // Nobody else ends flows that we opened; the phone's own end when it is not heard of for long.
        for flow in self.peer.dialled_flows() {
            self.peer.handle_flow_down(flow, now);
            self.close(flow);
        }
    }

    /// While the machine is rebuilt: shards are told afterwards how the peer is reached, and ask again; the flows that are
    /// there then are known to the directory.
    fn refuse(&mut self, message: ToPeer) {
        match message {
            ToPeer::Request { requester, .. } => self.directory.fail_request(requester),
            ToPeer::Lapsed => self.has_lapsed = true,
            _ => {}
        }
    }
}

impl Handler<ToPeer> for PeerActor {
    type Result = ();

    fn handle(&mut self, message: ToPeer, ctx: &mut Context<Self>) {
        if self.recovery.is_down() {
            return self.refuse(message);
        }
        self.guarded(ctx, |actor, ctx| actor.take(message, ctx));
    }
}

impl PeerActor {
    fn take(&mut self, message: ToPeer, ctx: &mut Context<Self>) {
        let now = self.directory.clock.now().instant;
        match message {
            ToPeer::Want { shard, owed_bytes } => self.peer.handle_want(shard, owed_bytes, now),
            ToPeer::Notifies { shard, count, bytes } => {
                self.directory.metrics.requests_out(SipMethod::Notify, u64::from(count));
                if let Some(flow) = self.peer.flow() {
                    self.directory.flows.await_answers(flow, &self.key, count);
                }
                self.peer.handle_notifies(shard, bytes);
            }
            ToPeer::Request { requester, uri, draft } => {
                self.directory.metrics.requests_out(SipMethod::of(draft.method), 1);
                self.note_heard();
                self.requesters.insert(requester.clone());
                self.peer.handle_request(requester, uri, draft, now);
            }
            ToPeer::Respond { reply, bytes } => {
                self.directory.metrics.response_out(StatusClass::of(status_of(&bytes)));
                self.peer.handle_response(reply, bytes, now);
            }
            ToPeer::FlowUp(flow) => {
                tracing::info!(
                    flow = flow.flow.0, transport = flow.transport.via_name(), remote = %flow.remote,
                    "sip flow up"
                );
                self.peer.handle_flow_up(flow, now);
            }
            ToPeer::FlowDown(flow) => self.peer.handle_flow_down(flow, now),
            ToPeer::Lapsed => self.lapse(now),
            ToPeer::ShardRebuilt(shard) => {
                self.peer.handle_shard_rebuilt(shard);
                let (peer, way) = (self.key.clone(), self.peer.way());
                self.directory.tell_shard(shard, Input::PeerChanged { peer: peer.clone(), way });
                if let Some((health, _)) = self.peer.health().map(FrontEndHealth::health) {
                    self.directory.tell_shard(shard, Input::PeerHealth { peer, health });
                }
            }
            ToPeer::Written { flow, bytes } => self.peer.handle_written(flow, bytes),
            ToPeer::DialFailed { cause, .. } => {
                match &self.key {
                    PeerKey::FrontEnd(domain) => {
                        tracing::warn!(front_end = domain.as_str(), cause, "the front end cannot be reached");
                    }
                    PeerKey::Phone(_) => {
                        tracing::debug!(cause, "a phone takes no TCP for what is large for UDP");
                    }
                }
                self.last_failure = Some(cause);
                self.peer.handle_dial_failed(now);
            }
            ToPeer::WantStream => self.peer.handle_stream_wanted(now),
            ToPeer::Forgot => self.peer.handle_forgotten(now),
            ToPeer::Suspect => self.peer.handle_suspicion(now),
            ToPeer::Retry => self.peer.retry(now),
            ToPeer::Report(answer) => {
                if let Some(report) = self.report(now) {
                    // Whoever asked may have gone meanwhile.
                    let _ = answer.send(report);
                }
            }
        }
        self.drive(ctx);
    }
}

/// The machine of a peer. Its lives count their transactions apart, so that a late answer to one is nothing to the next.
fn new_peer(directory: &Directory, key: &PeerKey, number: u64, life: u64) -> Peer {
    let now = directory.clock.now().instant;
    let owner = owner_name(number);
    let peer = match key {
        PeerKey::FrontEnd(domain) => Peer::front_end(&owner, domain.as_str(), number, now),
        PeerKey::Phone(_) => Peer::phone(&owner, now),
    };
    peer.counting_from(life << 40)
}

/// The status in the first line of a response of ours, `SIP/2.0 200 OK`.
fn status_of(response: &[u8]) -> u16 {
    let digits = response.get(8..11).and_then(|digits| std::str::from_utf8(digits).ok());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}
