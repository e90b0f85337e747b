//! A user of the built-in home on its arbiter: carries between phones, shards and the pure [`LocalUser`].

use std::sync::Arc;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message as ActorMessage};
use tombolo_edge::FlowFacts;
use tombolo_interwork::{
    error::Failure,
    owner::{Input, PeerKey, PhoneKey, ReplyTo},
};
use tombolo_presence::Address;
use tombolo_runtime::{Panicked, guard};
use tombolo_sip::message::Message;
use tombolo_store::{Row, StoreError};
use tombolo_telemetry::{Redacted, SipMethod};

use crate::{
    alarm::{Alarm, Alarmed},
    bindings,
    directory::{Directory, LINGER},
    flows::instance,
    guarded::{Guarded, Recovery, Suspect},
    guests::{answer, pass},
    local_user::{
        Binding, LEAST_EXPIRES, LocalUser, MOST_EXPIRES, Origin, Reach, Register, Registered, UserOutput,
    },
    messages::{Requester, ToPeer, ToUser},
    panics::ActorKind,
    peer::respond,
    registrations::OwnRegistrations,
    salvage::refuse_by_flow,
};

/// The actor of one local user.
pub struct UserActor {
    aor: Address,
    user: LocalUser,
    directory: Arc<Directory>,
    alarm: Alarm,
    recovery: Recovery,
    registrations: OwnRegistrations,
    /// How often the machine was built.
    life: u64,
    /// A phone's request that is being handled. It outlives a panic.
    in_hand: Option<InHand>,
}

/// A phone's request, and whether the machine has panicked over it once.
struct InHand {
    request: ToUser,
    is_suspect: bool,
}

/// The stored bindings of a user whose machine panicked, or why they cannot be read.
#[derive(ActorMessage)]
#[rtype(result = "()")]
struct Loaded(Result<Result<Vec<Binding>, StoreError>, Panicked>);

impl UserActor {
    /// A user without phones.
    pub fn new(aor: Address, directory: Arc<Directory>) -> Self {
        Self {
            aor,
            user: LocalUser::new(directory.budgets.forks.clone()),
            registrations: directory.registrations.of_user(),
            directory,
            alarm: Alarm::default(),
            recovery: Recovery::default(),
            life: 0,
            in_hand: None,
        }
    }

    fn register(&mut self, peer: PeerKey, origin: Origin, reply: ReplyTo, message: &Message) {
        #[cfg(test)]
        crate::guarded::trap::spring(&format!("user: {:?}", message.call_id()));
        let now = self.directory.clock.now().instant;
        let asked = message.expires().unwrap_or(MOST_EXPIRES);
        let contacts = message.contacts().flatten().map(|contact| {
            let own = contact.params.value("expires").and_then(|value| value.parse().ok());
            (contact.uri.as_str().to_owned(), own.unwrap_or(asked))
        });
        let register = Register {
            peer: peer.clone(),
            origin,
            call_id: message.call_id().unwrap_or_default().to_owned(),
            cseq: message.cseq().map_or(0, |(number, _)| number),
            contacts: contacts.collect(),
            removes_all: message.has_contact_star() && message.expires() == Some(0),
            has_instance: instance(message).is_some(),
        };
        let (status, headers) = match self.user.handle_register(&register, now) {
            Registered::Bindings(bindings) => {
                let contact = |(uri, left): (String, u64)| ("Contact", format!("<{uri}>;expires={left}"));
                (200, bindings.into_iter().map(contact).collect())
            }
            Registered::TooBrief => (423, vec![("Min-Expires", LEAST_EXPIRES.to_string())]),
            Registered::OutOfOrder => (500, Vec::new()),
            // Never 503, which would take the whole server out of use.
            Registered::TooMany => (500, vec![("Retry-After", "60".to_owned())]),
        };
        tracing::debug!(aor = %Redacted(&self.aor), status, phones = self.user.bindings().len(), "register");
        if let Some(bytes) = respond(message, status, &headers) {
            self.directory.tell_peer(&peer, ToPeer::Respond { reply, bytes });
        }
    }

    /// A phone that speaks by a flow of nobody: after a restart, since its address changed, or by a further connection.
    /// Its digest was right.
    fn admit(&mut self, flow: &Arc<FlowFacts>, message: Message) {
        let now = self.directory.clock.now().instant;
        let contact = message.contacts().flatten().next().map(|contact| contact.uri.as_str().to_owned());
        let registered = self.user.find_phone((&**flow).into(), contact.as_deref(), now);
        let Some(key) = registered.or_else(|| self.visitor(&message)) else {
            tracing::info!(
                aor = %Redacted(&self.aor), remote = %flow.remote, method = message.method_text(), status = 403,
                "request refused: the user has no registered phone"
            );
            return answer(&self.directory, flow, &message, 403, &[]);
        };
        if self.directory.bind_flow(flow, &key) {
            tracing::debug!(aor = %Redacted(&self.aor), flow = flow.flow.0, "a phone speaks by a further flow");
            pass(&self.directory, self.directory.find_or_start_peer(&key), flow, message, true);
        } else {
            tracing::info!(
                remote = %flow.remote, method = message.method_text(), status = 403,
                "request refused: its connection carries as many phones as it may"
            );
            answer(&self.directory, flow, &message, 403, &[]);
        }
    }

    /// A phone of a registered user that fits none of the registrations: it is known by the Call-ID of its first request,
    /// for as long as its connection lives.
    fn visitor(&self, message: &Message) -> Option<PeerKey> {
        if self.user.bindings().is_empty() {
            return None;
        }
        let instance = message.call_id().ok()?.into();
        Some(PeerKey::Phone(Arc::new(PhoneKey { aor: self.aor.clone(), instance })))
    }

    /// Stored lazily: a phone whose binding is lost with the machine registers again in time.
    fn store(&self, row: Row) {
        self.directory.store.keep(vec![row], 0, Box::new(|_, _| {}));
    }

    fn carry(&mut self) {
        self.registrations.set(self.user.bindings().len());
        while let Some(output) = self.user.poll_output() {
            match output {
                UserOutput::Request { peer, uri, fork, branch, draft } => {
                    let requester = Requester::User(self.aor.clone(), fork, branch);
                    let request = ToPeer::Request { requester: requester.clone(), uri: Some(uri), draft };
                    if !self.directory.tell_peer(&peer, request) {
                        self.directory.fail_request(requester);
                    }
                }
                UserOutput::Keep(binding) => {
                    if let Some(row) = bindings::row(
                        &self.aor,
                        &binding,
                        &self.directory.lifetimes,
                        self.directory.clock.now(),
                    ) {
                        self.store(row);
                    }
                }
                UserOutput::Forget { contact } => self.store(bindings::deleted_row(&self.aor, &contact)),
                UserOutput::Lapsed(peer) => {
                    self.directory.tell_peer(&peer, ToPeer::Lapsed);
                }
                UserOutput::NotTaken { shard, message } => {
                    self.directory.tell_shard(shard, Input::NotTaken { message });
                }
                UserOutput::Present(peer) => self.tell_shard(&peer, Input::PhoneRegistered),
                UserOutput::Gone(peer) => self.tell_shard(&peer, Input::PhoneGone),
                UserOutput::Moved { shard, message, status, contact } => {
                    self.directory.tell_shard(shard, Input::Moved { message, status, contact });
                }
                UserOutput::Delivered { shard, message, outcome } => {
                    self.directory.tell_shard(shard, Input::Delivered { message, outcome });
                }
            }
        }
    }

    /// Tells the user's shard what became of a phone.
    fn tell_shard(&self, peer: &PeerKey, input: impl FnOnce(Arc<PhoneKey>) -> Input) {
        let PeerKey::Phone(phone) = peer else { return };
        let shard = self.directory.shard_of(self.aor.partition());
        self.directory.tell_shard(shard, input(phone.clone()));
    }

    fn drive(&mut self, ctx: &mut Context<Self>) {
        self.carry();
        let idle_until = || self.directory.clock.now().instant + LINGER;
        let due = if self.user.is_idle() { Some(idle_until()) } else { self.user.poll_timeout() };
        self.set_alarm(due, ctx);
    }
}

impl Alarmed for UserActor {
    fn alarm(&mut self) -> &mut Alarm {
        &mut self.alarm
    }

    fn handle_alarm(&mut self, ctx: &mut Context<Self>) {
        self.guarded(ctx, Self::pass_time);
    }
}

impl UserActor {
    fn pass_time(&mut self, ctx: &mut Context<Self>) {
        if self.recovery.is_down() {
            return;
        }
        self.user.handle_timeout(self.directory.clock.now().instant);
        self.carry();
        if self.user.is_idle() {
            self.directory.forget_user(&self.aor);
            return ctx.stop();
        }
        self.set_alarm(self.user.poll_timeout(), ctx);
    }
}

impl Actor for UserActor {
    type Context = Context<Self>;
}

impl Handler<ToUser> for UserActor {
    type Result = ();

    fn handle(&mut self, message: ToUser, ctx: &mut Context<Self>) {
        if self.recovery.is_down() {
            return self.refuse(message);
        }
        if let ToUser::Guest { .. } | ToUser::Register { .. } = message {
            self.in_hand = Some(InHand { request: message, is_suspect: false });
            return self.guarded(ctx, Self::handle_in_hand);
        }
        self.guarded(ctx, |actor, ctx| actor.take(message, ctx));
    }
}

impl Guarded for UserActor {
    const KIND: ActorKind = ActorKind::User;

    fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    fn recovery(&mut self) -> &mut Recovery {
        &mut self.recovery
    }

    fn fall(&mut self, ctx: &mut Context<Self>) {
        self.set_alarm(None, ctx);
        self.life += 1;
        let fresh = LocalUser::new(self.directory.budgets.forks.clone()).counting_from(self.life << 40);
        let mut dead = std::mem::replace(&mut self.user, fresh);
        match &mut self.in_hand {
            Some(in_hand) if !in_hand.is_suspect => in_hand.is_suspect = true,
            Some(_) => self.drop_suspect(),
            None => {}
        }
        for (shard, message) in dead.take_open_messages() {
            let outcome = Err(Failure::Ours);
            self.directory.tell_shard(shard, Input::Delivered { message, outcome });
        }
    }

    /// Reads the bindings when everything that was handed to the store before is there.
    fn rebuild(&mut self, ctx: &mut Context<Self>) {
        let (aor, directory, me) = (self.aor.clone(), self.directory.clone(), ctx.address());
        let helpers = directory.placement.helpers();
        let read = move || {
            let bindings = guard(|| {
                #[cfg(test)]
                crate::guarded::trap::spring(&format!("bindings of {aor}"));
                let accounts = directory.authenticator.accounts();
                bindings::of_user(
                    &*directory.store,
                    &accounts,
                    &directory.lifetimes,
                    &aor,
                    directory.clock.now(),
                )
            });
            me.do_send(Loaded(bindings));
        };
        let stored = move |_, _| drop(helpers.spawn_blocking(read));
        self.directory.store.commit(Vec::new(), 0, Box::new(stored));
    }
}

impl Handler<Loaded> for UserActor {
    type Result = ();

    fn handle(&mut self, Loaded(bindings): Loaded, ctx: &mut Context<Self>) {
        let bindings = match bindings {
            Ok(Ok(bindings)) => bindings,
            Ok(Err(error)) => {
                tracing::error!(%error, "the bindings of a user that is rebuilt cannot be read");
                return self.rebuild_later(ctx);
            }
            Err(panicked) => {
                let now = self.directory.clock.now().instant;
                self.directory.panics.note(ActorKind::User, &panicked, now);
                return self.rebuild_later(ctx);
            }
        };
        self.is_back();
        self.guarded(ctx, |actor, ctx| {
            actor.user.restore(bindings, actor.directory.clock.now().instant);
            actor.tell_reachable_phones();
            actor.handle_in_hand(ctx);
        });
    }
}

impl UserActor {
    /// Handles the request in hand. It stays there until then, so that it can be tried again after a panic.
    fn handle_in_hand(&mut self, ctx: &mut Context<Self>) {
        match self.in_hand.as_ref().map(|in_hand| &in_hand.request) {
            Some(ToUser::Guest { flow, message }) => {
                let (flow, message) = (flow.clone(), (**message).clone());
                self.admit(&flow, message);
            }
            Some(ToUser::Register { peer, origin, reply, message }) => {
                let (peer, origin, reply, message) = (peer.clone(), *origin, *reply, message.clone());
                self.register(peer, origin, reply, &message);
            }
            _ => {}
        }
        self.in_hand = None;
        self.drive(ctx);
    }

    /// The machine panicked twice over the request in hand.
    fn drop_suspect(&mut self) {
        let Some(InHand { request, .. }) = self.in_hand.take() else { return };
        if let ToUser::Guest { message, .. } | ToUser::Register { message, .. } = &request {
            let kind = SipMethod::of(message.method_text());
            Suspect { kind: kind.as_str(), len: message.octets() }.log_dropped(ActorKind::User);
        }
        self.refuse(request);
    }

    /// While the bindings are read, or for good.
    fn refuse(&mut self, message: ToUser) {
        match message {
            ToUser::Guest { flow, message } => refuse_by_flow(&self.directory, flow.flow, &message),
            ToUser::Register { peer, reply, message, .. } => {
                self.directory.metrics.refused_request();
                let retry_after = [("Retry-After", "2".to_owned())];
                if let Some(bytes) = respond(&message, 500, &retry_after) {
                    self.directory.tell_peer(&peer, ToPeer::Respond { reply, bytes });
                }
            }
            ToUser::Deliver { shard, message, .. } => {
                let outcome = Err(Failure::Ours);
                self.directory.tell_shard(shard, Input::Delivered { message, outcome });
            }
            ToUser::MustDecide(watcher) => self.tell_decision(&watcher),
            // Whoever asked hears nothing, and asks again; the rest is found out when the bindings are there.
            ToUser::Restore(_)
            | ToUser::Outcome { .. }
            | ToUser::Reach { .. }
            | ToUser::ShardRebuilt
            | ToUser::Bindings(_)
            | ToUser::Clear(_) => {}
        }
    }

    /// The connections of its phones are known to the directory.
    fn tell_reachable_phones(&mut self) {
        let now = self.directory.clock.now().instant;
        let mut peers: Vec<PeerKey> =
            self.user.bindings().iter().map(|binding| binding.peer.clone()).collect();
        peers.dedup();
        for peer in peers.iter().filter(|peer| !self.directory.flows.of(peer).is_empty()) {
            self.user.handle_reach(peer, Reach::Reachable, now);
        }
    }

    fn tell_decision(&self, watcher: &Address) {
        let (aor, watcher) = (Redacted(&self.aor), Redacted(watcher));
        tracing::info!(%aor, %watcher, "a watcher waits: tombolo user pending, approve or deny");
    }

    fn take(&mut self, message: ToUser, ctx: &mut Context<Self>) {
        let now = self.directory.clock.now().instant;
        match message {
            ToUser::Restore(bindings) => self.user.restore(bindings, now),
            ToUser::Reach { peer, reach } => self.user.handle_reach(&peer, reach, now),
            ToUser::ShardRebuilt => self.tell_reachable_phones(),
            ToUser::Bindings(answer) => drop(answer.send(self.user.report(now))),
            ToUser::Clear(answer) => drop(answer.send(self.user.clear())),
            // These are handled while they are in hand.
            ToUser::Guest { .. } | ToUser::Register { .. } => {}
            ToUser::Deliver { shard, message, device, draft } => {
                self.user.handle_message(shard, message, device.as_deref(), &draft, now);
            }
            ToUser::Outcome { fork, branch, outcome } => {
                let redirect = outcome.as_ref().ok().and_then(|message| {
                    let status = message.status().filter(|status| (300..400).contains(status))?;
                    Some((status, message.contacts().flatten().next()?.uri.as_str()))
                });
                match redirect {
                    Some((status, contact)) => self.user.handle_redirect(fork, branch, status, contact),
                    None => {
                        let outcome = outcome.map(|message| message.status().unwrap_or(500));
                        self.user.handle_outcome(fork, branch, outcome);
                    }
                }
            }
            ToUser::MustDecide(watcher) => self.tell_decision(&watcher),
        }
        self.drive(ctx);
    }
}
