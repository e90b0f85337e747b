//! One shard on its arbiter: everything about presence is in `interwork::Owner`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use actix::{Actor, AsyncContext, Context, Handler, WrapFuture, fut::ActorFutureExt};
use tokio::sync::oneshot;
use tombolo_interwork::{
    owner::{Input, LaneKey, Output, Owner, OwnerEvent, PersistToken, Report},
    rows::Row,
};
use tombolo_presence::Address;
use tombolo_runtime::{Inbox, TURN_ITEMS, Wake};
use tombolo_sip::method::Method;
use tombolo_telemetry::Redacted;

use crate::{
    alarm::{Alarm, Alarmed},
    directory::Directory,
    messages::{AskShard, Requester, ToPeer, ToSession, ToShard, ToUser},
    session::ShardIndex,
};

/// How often the lag of the thread is measured.
const LAG_PERIOD: Duration = Duration::from_secs(1);

/// The actor of one shard.
pub struct FanoutActor {
    index: ShardIndex,
    owner: Owner,
    inbox: Inbox<Input>,
    directory: Arc<Directory>,
    alarm: Alarm,
    next_asker: u64,
    reports: HashMap<u64, oneshot::Sender<Report>>,
    decisions: HashMap<u64, oneshot::Sender<Vec<Address>>>,
}

impl FanoutActor {
    /// A shard around `owner`, which was loaded already.
    pub fn new(index: ShardIndex, owner: Owner, inbox: Inbox<Input>, directory: Arc<Directory>) -> Self {
        Self {
            index,
            owner,
            inbox,
            directory,
            alarm: Alarm::default(),
            next_asker: 1,
            reports: HashMap::new(),
            decisions: HashMap::new(),
        }
    }

    fn take(&mut self, input: Input, ctx: &mut Context<Self>) {
        let now = self.directory.clock.now();
        self.owner.handle(input, now);
        self.drive(ctx);
    }

    /// Does what the core asks for and sets the one timer. Until the ways out are there, it keeps all of that.
    fn drive(&mut self, ctx: &mut Context<Self>) {
        if !self.directory.is_connected() {
            return;
        }
        while let Some(output) = self.owner.poll_output() {
            self.carry(output, ctx);
        }
        self.set_alarm(self.owner.poll_timeout(), ctx);
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
            Output::Forgotten { peer } => {
                self.directory.tell_peer(&peer, ToPeer::Forgot);
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
        let me = ctx.address();
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
            let (token, is_stored) = (PersistToken(token), result.is_ok());
            me.do_send(ToShard(Input::Persisted { token, is_stored }));
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
            OwnerEvent::OverBudget(full) => self.directory.budgets.note(full, metrics),
        }
    }
}

impl Alarmed for FanoutActor {
    fn alarm(&mut self) -> &mut Alarm {
        &mut self.alarm
    }

    fn handle_alarm(&mut self, ctx: &mut Context<Self>) {
        self.owner.handle_timeout(self.directory.clock.now());
        self.drive(ctx);
    }
}

impl Actor for FanoutActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(1024);
        self.inbox.wake_actor(ctx.address().recipient());
        self.watch_lag(ctx);
        self.drive(ctx);
    }
}

impl Handler<Wake> for FanoutActor {
    type Result = ();

    fn handle(&mut self, _: Wake, ctx: &mut Context<Self>) {
        let began = self.directory.clock.now();
        for input in std::iter::from_fn(|| self.inbox.pop()).take(TURN_ITEMS) {
            self.owner.handle(input, began);
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
                let _ = answer.send(self.owner.unfinished_messages());
                return;
            }
        };
        self.take(input, ctx);
    }
}
