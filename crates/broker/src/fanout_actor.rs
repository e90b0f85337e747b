//! One shard on its arbiter: everything about presence is in `interwork::Owner`.
//!
//! When the owner panics, the actor answers whoever waits for it, loads another one from the store, as after a restart,
//! and lets sessions and peers meet it again. Batches wait in the inbox meanwhile; what finds no room there is refused.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actix::{
    Actor, AsyncContext, Context, Handler, Message as ActorMessage, WrapFuture, fut::ActorFutureExt,
};
use tokio::sync::oneshot;
use tombolo_interwork::{
    owner::{
        Input, LaneKey, Numbers, Output, Owner, OwnerEvent, OwnerSettings, PersistToken, Report, SipRequest,
    },
    rows::Row,
};
use tombolo_presence::Address;
use tombolo_runtime::{Inbox, Panicked, TURN_ITEMS, Wake, guard};
use tombolo_sip::method::Method;
use tombolo_store::StoreError;
use tombolo_telemetry::{Redacted, SipMethod};
use tombolo_xmpp::stream::ReceivedStanza;

use crate::{
    alarm::{Alarm, Alarmed},
    directory::Directory,
    guarded::{Guarded, Recovery, Suspect},
    messages::{AskShard, Requester, Stored, ToPeer, ToSession, ToShard, ToUser},
    panics::ActorKind,
    salvage::{Refusal, answer_all, refuse_request, refuse_stanza},
    session::ShardIndex,
    shard_load::load_owner,
};

/// How often the lag of the thread is measured.
const LAG_PERIOD: Duration = Duration::from_secs(1);

/// The actor of one shard.
pub struct FanoutActor {
    index: ShardIndex,
    settings: OwnerSettings,
    /// Not there while another one is loaded after a panic.
    owner: Option<Box<Owner>>,
    /// How many owners panicked.
    life: u32,
    /// Where the last owner stopped counting.
    numbers: Option<Numbers>,
    recovery: Recovery,
    inbox: Inbox<Input>,
    /// The part of the inbox that is being handled. It outlives a panic.
    in_hand: InHand,
    directory: Arc<Directory>,
    alarm: Alarm,
    next_asker: u64,
    reports: HashMap<u64, oneshot::Sender<Report>>,
    decisions: HashMap<u64, oneshot::Sender<Vec<Address>>>,
}

/// What came from peers and is not handled yet.
#[derive(Default)]
struct InHand {
    /// Stanzas, in order; the first is being handled.
    stanzas: VecDeque<ReceivedStanza>,
    request: Option<SipRequest>,
    /// The owner has panicked over it once.
    is_suspect: bool,
}

/// Another owner for a shard whose owner panicked, or why there is none yet.
#[derive(ActorMessage)]
#[rtype(result = "()")]
struct Loaded(Result<Result<Box<Owner>, StoreError>, Panicked>);

impl FanoutActor {
    /// A shard around `owner`, which was loaded already with these settings.
    pub fn new(
        index: ShardIndex,
        settings: OwnerSettings,
        owner: Owner,
        inbox: Inbox<Input>,
        directory: Arc<Directory>,
    ) -> Self {
        Self {
            index,
            settings,
            owner: Some(Box::new(owner)),
            life: 0,
            numbers: None,
            recovery: Recovery::default(),
            inbox,
            in_hand: InHand::default(),
            directory,
            alarm: Alarm::default(),
            next_asker: 1,
            reports: HashMap::new(),
            decisions: HashMap::new(),
        }
    }

    /// An input that is not from outside. While there is no owner it is dropped: it is an answer to the one that is gone, or
    /// tells what the next one is told anyway ([`FanoutActor::begin`]).
    fn take(&mut self, input: Input, ctx: &mut Context<Self>) {
        self.guarded(ctx, |actor, ctx| {
            let now = actor.directory.clock.now();
            let Some(owner) = &mut actor.owner else { return };
            owner.handle(input, now);
            actor.drive(ctx);
        });
    }

    /// Handles what is in hand, each stanza and request by itself, so that it is known which one made the owner panic.
    fn handle_in_hand(&mut self, now: tombolo_presence::Now) {
        let Some(owner) = &mut self.owner else { return };
        if !self.in_hand.stanzas.is_empty() {
            while let Some(stanza) = self.in_hand.stanzas.front() {
                #[cfg(test)]
                crate::guarded::trap::spring(&format!("shard: {}", String::from_utf8_lossy(&stanza.xml)));
                owner.handle_one_stanza(stanza, now);
                self.in_hand.stanzas.pop_front();
                self.in_hand.is_suspect = false;
            }
            owner.finish_batch(now);
        }
        if let Some(request) = &self.in_hand.request {
            #[cfg(test)]
            crate::guarded::trap::spring(&format!("shard: {:?}", request.message.call_id()));
            owner.handle(Input::Request(request.clone()), now);
            self.in_hand.request = None;
            self.in_hand.is_suspect = false;
        }
    }

    /// One turn of the inbox.
    fn take_turn(&mut self, ctx: &mut Context<Self>) {
        let began = self.directory.clock.now();
        self.handle_in_hand(began);
        for _ in 0..TURN_ITEMS {
            let Some(input) = self.inbox.pop() else { break };
            match input {
                Input::Stanzas(stanzas) => self.in_hand.stanzas = stanzas.into(),
                Input::Request(request) => self.in_hand.request = Some(request),
                other => {
                    if let Some(owner) = &mut self.owner {
                        owner.handle(other, began);
                    }
                }
            }
            self.handle_in_hand(began);
        }
        self.drive(ctx);
        let span = self.directory.clock.now().instant.saturating_duration_since(began.instant);
        self.directory.metrics.turn(self.index, span);
        if self.inbox.finish_turn() {
            // Only an awaited yield lets the arbiter's other actors run before our next turn.
            let turn = tokio::task::yield_now().into_actor(self);
            ctx.spawn(turn.map(|(), actor, ctx| actor.handle(Wake, ctx)));
        }
    }

    /// The owner panicked twice over what is in hand.
    fn drop_suspect(&mut self) {
        self.in_hand.is_suspect = false;
        if let Some(stanza) = self.in_hand.stanzas.pop_front() {
            Suspect { kind: stanza.kind.as_str(), len: stanza.xml.len() }.log_dropped(ActorKind::Shard);
            refuse_stanza(&self.directory, &stanza, Refusal::Poison);
        } else if let Some(request) = self.in_hand.request.take() {
            let kind = SipMethod::of(request.message.method_text());
            Suspect { kind: kind.as_str(), len: request.message.octets() }.log_dropped(ActorKind::Shard);
            refuse_request(&self.directory, &request);
        }
    }

    /// A new owner takes over. What is in force and who is there may have changed since it was loaded.
    fn begin(&mut self, owner: Box<Owner>, ctx: &mut Context<Self>) {
        let now = self.directory.clock.now();
        let owner = self.owner.insert(owner);
        owner.handle(Input::Policy(self.directory.policy.load_full()), now);
        let approvals = self.directory.authenticator.accounts().approvals();
        owner.handle(Input::Accounts(Arc::new(approvals)), now);
        for partner in self.directory.welcome_shard(self.index) {
            owner.handle(Input::PartnerFull { partner, is_full: true }, now);
        }
        self.set_down(false);
        self.is_back();
        // Nobody wakes the shard for what came meanwhile.
        self.take_turn(ctx);
    }

    fn set_down(&self, is_down: bool) {
        if let Some(shard) = self.directory.shards().get(self.index) {
            shard.is_down.store(is_down, Ordering::Relaxed);
        }
    }

    /// Does what the core asks for and sets the one timer. Until the ways out are there, it keeps all of that.
    fn drive(&mut self, ctx: &mut Context<Self>) {
        if !self.directory.is_connected() {
            return;
        }
        while let Some(output) = self.owner.as_mut().and_then(|owner| owner.poll_output()) {
            self.carry(output, ctx);
        }
        let next = self.owner.as_ref().and_then(|owner| owner.poll_timeout());
        self.set_alarm(next, ctx);
    }

    fn carry(&mut self, output: Output, ctx: &mut Context<Self>) {
        let shard = self.index;
        match output {
            Output::Want { lane: LaneKey::Session { local, remote, .. }, owed_bytes } => {
                self.directory.session(&local, &remote).do_send(ToSession::Want { shard, owed_bytes });
            }
            Output::Want { lane: LaneKey::Peer(peer), owed_bytes } => {
                // A phone that is away has no peer: the shard asks again when it is told that the phone is back.
                self.directory.tell_peer(&peer, ToPeer::Want { shard, owed_bytes });
            }
            Output::Stanzas { lane: LaneKey::Session { local, remote, .. }, count, bytes } => {
                self.directory.metrics.stanzas_out(u64::from(count));
                self.directory.session(&local, &remote).do_send(ToSession::Stanzas { shard, count, bytes });
            }
            Output::Message { lane: LaneKey::Session { local, remote, .. }, message, bytes } => {
                self.directory.metrics.stanzas_out(1);
                self.directory.session(&local, &remote).do_send(ToSession::Message { shard, message, bytes });
            }
            Output::Withdraw { lane: LaneKey::Session { local, remote, .. }, message } => {
                self.directory.session(&local, &remote).do_send(ToSession::Withdraw { shard, message });
            }
            Output::Stanzas { .. } | Output::Message { .. } | Output::Withdraw { .. } => {}
            Output::Notifies { peer, count, bytes } => {
                self.directory.tell_peer(&peer, ToPeer::Notifies { shard, count, bytes });
            }
            Output::WantStream { peer } => {
                self.directory.tell_peer(&peer, ToPeer::WantStream);
            }
            Output::Forgotten { peer } => {
                self.directory.tell_peer(&peer, ToPeer::Forgot);
            }
            Output::Suspect { peer } => {
                self.directory.tell_peer(&peer, ToPeer::Suspect);
            }
            Output::Respond { peer, reply, bytes } => {
                self.directory.tell_peer(&peer, ToPeer::Respond { reply, bytes });
            }
            Output::Request { peer, request, draft } => {
                let requester = Requester::Shard(shard, request);
                let request = ToPeer::Request { requester: requester.clone(), uri: None, draft };
                if !self.directory.tell_peer(&peer, request) {
                    self.directory.fail_request(requester);
                }
            }
            Output::Deliver { user, device, message, draft } => {
                self.directory.user(&user).do_send(ToUser::Deliver { shard, message, device, draft });
            }
            Output::Persist { token, rows, is_kept } => self.persist(token, rows, is_kept, ctx),
            Output::MustDecide { user, watcher } => {
                self.directory.user(&user).do_send(ToUser::MustDecide(watcher));
            }
            Output::Decided { asker, watchers } => {
                if let Some(answer) = self.decisions.remove(&asker) {
                    // Whoever asked may have gone meanwhile.
                    let _ = answer.send(watchers);
                }
            }
            Output::PartnerPairs { domain, pairs } => {
                self.directory.note_partner_pairs(shard, domain, pairs);
            }
            Output::Report { asker, report } => {
                if let Some(answer) = self.reports.remove(&asker) {
                    let _ = answer.send(report);
                }
            }
            Output::Event(event) => self.note(&event),
        }
    }

    /// Everything on this thread waits as long as a timer that is due.
    fn watch_lag(&self, ctx: &mut Context<Self>) {
        let mut due = self.directory.clock.now().instant + LAG_PERIOD;
        ctx.run_interval(LAG_PERIOD, move |actor, _| {
            let now = actor.directory.clock.now().instant;
            actor.directory.metrics.lag(actor.index, now.saturating_duration_since(due));
            due = now + LAG_PERIOD;
            if actor.index == 0 {
                actor.directory.look_at_store();
            }
        });
    }

    fn persist(&mut self, token: PersistToken, rows: Vec<Row>, is_kept: bool, ctx: &mut Context<Self>) {
        let (me, life) = (ctx.address(), self.life);
        let (clock, metrics) = (self.directory.clock.clone(), self.directory.metrics.clone());
        let (begun, count) = (clock.now().instant, rows.len() as u64);
        let rows = rows.into_iter().map(|row| tombolo_store::Row {
            partition: row.partition,
            table: row.table,
            key: row.key.into(),
            value: row.value,
        });
        let reply = move |token, result: Result<(), tombolo_store::StoreError>| {
            // The store's watch tells of failures, once for all shards.
            if result.is_ok() {
                metrics.committed(count, clock.now().instant - begun);
            }
            me.do_send(Stored { life, token: PersistToken(token), is_stored: result.is_ok() });
        };
        match is_kept {
            true => self.directory.store.keep(rows.collect(), token.0, Box::new(reply)),
            false => self.directory.store.commit(rows.collect(), token.0, Box::new(reply)),
        }
    }

    fn note(&self, event: &OwnerEvent) {
        let metrics = &self.directory.metrics;
        match event {
            OwnerEvent::StanzaRefused { reason } => {
                metrics.refused_stanza();
                tracing::debug!(reason, "stanza refused");
            }
            OwnerEvent::RequestRefused { method, identity, status, reason } => {
                metrics.refused_request();
                let aor = Redacted(identity);
                match method {
                    // State that somebody meant to tell is lost.
                    Some(method @ (Method::Publish | Method::Notify)) => {
                        tracing::info!(%aor, method = method.as_str(), status, reason, "presence refused");
                    }
                    _ => tracing::debug!(%aor, status, reason, "request refused"),
                }
            }
            OwnerEvent::NotesCut { watcher } => {
                let watcher = Redacted(watcher);
                tracing::warn!(%watcher, "notes cut: the state is too large for UDP, and the watcher has no TCP connection");
            }
            OwnerEvent::BadPidf => {
                metrics.refused_body();
                tracing::warn!("presence document refused");
            }
            OwnerEvent::SubscriptionChanged { user, contact, to } => {
                let (aor, partner) = (Redacted(user), contact.domain());
                tracing::info!(%aor, partner, to = ?to, "subscription changed");
            }
            OwnerEvent::MessageToSip => metrics.message_to_sip(),
            OwnerEvent::MessageToXmpp => metrics.message_to_xmpp(),
            OwnerEvent::PresenceToXmpp(count) => metrics.presence_to_xmpp(u64::from(*count)),
            OwnerEvent::PresenceToSip(count) => metrics.presence_to_sip(u64::from(*count)),
            OwnerEvent::CauseLeftOut => metrics.cause_left_out(),
            OwnerEvent::StoreFailed => metrics.store_failed(),
            OwnerEvent::OverBudget { full, partner, user } => {
                self.directory.budgets.note(full, partner, Some(user), metrics);
            }
        }
    }
}

impl Alarmed for FanoutActor {
    fn alarm(&mut self) -> &mut Alarm {
        &mut self.alarm
    }

    fn handle_alarm(&mut self, ctx: &mut Context<Self>) {
        self.guarded(ctx, |actor, ctx| {
            let now = actor.directory.clock.now();
            let Some(owner) = &mut actor.owner else { return };
            owner.handle_timeout(now);
            actor.drive(ctx);
        });
    }
}

impl Guarded for FanoutActor {
    const KIND: ActorKind = ActorKind::Shard;

    fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    fn recovery(&mut self) -> &mut Recovery {
        &mut self.recovery
    }

    fn fall(&mut self, ctx: &mut Context<Self>) {
        self.set_down(true);
        self.set_alarm(None, ctx);
        // Whoever asked gets an empty answer.
        self.reports.clear();
        self.decisions.clear();
        let is_something_in_hand = !self.in_hand.stanzas.is_empty() || self.in_hand.request.is_some();
        if self.in_hand.is_suspect {
            self.drop_suspect();
        } else {
            self.in_hand.is_suspect = is_something_in_hand;
        }
        if let Some(mut dead) = self.owner.take() {
            self.life += 1;
            self.numbers = Some(dead.numbers());
            answer_all(&self.directory, dead.take_unanswered());
        }
    }

    /// Loads another owner when everything that was handed to the store before is there.
    fn rebuild(&mut self, ctx: &mut Context<Self>) {
        let (directory, me) = (self.directory.clone(), ctx.address());
        let (index, settings, numbers) = (self.index, self.settings.clone(), self.numbers);
        let helpers = directory.placement.helpers();
        let store = directory.store.clone();
        let load = move || {
            let loaded = guard(|| load_owner(&directory, index, settings, numbers));
            me.do_send(Loaded(loaded.map(|owner| owner.map(Box::new))));
        };
        store.commit(Vec::new(), 0, Box::new(move |_, _| drop(helpers.spawn_blocking(load))));
    }
}

impl Actor for FanoutActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(1024);
        self.inbox.wake_actor(ctx.address().recipient());
        self.watch_lag(ctx);
        self.guarded(ctx, Self::drive);
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        // Shards live as long as the process. In an orderly end nobody listens any more.
        self.directory.panics.end(format!("the actor of shard {} ended", self.index));
    }
}

impl Handler<Wake> for FanoutActor {
    type Result = ();

    fn handle(&mut self, _: Wake, ctx: &mut Context<Self>) {
        if self.owner.is_some() {
            self.guarded(ctx, Self::take_turn);
        }
    }
}

impl Handler<Loaded> for FanoutActor {
    type Result = ();

    fn handle(&mut self, Loaded(loaded): Loaded, ctx: &mut Context<Self>) {
        match loaded {
            Ok(Ok(owner)) => self.guarded(ctx, |actor, ctx| actor.begin(owner, ctx)),
            Ok(Err(error)) => {
                tracing::error!(%error, shard = self.index, "the rows of a shard that is rebuilt cannot be read");
                self.rebuild_later(ctx);
            }
            Err(panicked) => {
                let now = self.directory.clock.now().instant;
                self.directory.panics.note(ActorKind::Shard, &panicked, now);
                self.rebuild_later(ctx);
            }
        }
    }
}

impl Handler<Stored> for FanoutActor {
    type Result = ();

    fn handle(&mut self, Stored { life, token, is_stored }: Stored, ctx: &mut Context<Self>) {
        if life == self.life {
            self.take(Input::Persisted { token, is_stored }, ctx);
        }
    }
}

impl Handler<ToShard> for FanoutActor {
    type Result = ();

    fn handle(&mut self, ToShard(input): ToShard, ctx: &mut Context<Self>) {
        self.take(input, ctx);
    }
}

impl Handler<AskShard> for FanoutActor {
    type Result = ();

    fn handle(&mut self, ask: AskShard, ctx: &mut Context<Self>) {
        if self.owner.is_none() {
            // Whoever asked gets an empty answer.
            return;
        }
        let asker = self.next_asker;
        self.next_asker += 1;
        let input = match ask {
            AskShard::Report { user, answer } => {
                self.reports.insert(asker, answer);
                Input::Ask { user, asker }
            }
            AskShard::Decide { user, watcher, is_approved, answer } => {
                self.decisions.insert(asker, answer);
                Input::Decide { user, watcher, is_approved, asker }
            }
            AskShard::Unfinished { answer } => {
                // Whoever asked may have gone meanwhile.
                let unfinished = self.owner.as_ref().map(|owner| owner.unfinished_messages());
                let _ = answer.send(unfinished.unwrap_or_default());
                return;
            }
        };
        self.take(input, ctx);
    }
}
