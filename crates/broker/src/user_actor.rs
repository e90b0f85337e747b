//! A user of the built-in home on its arbiter: carries between phones, shards and the pure [`LocalUser`].

use std::sync::Arc;

use actix::{Actor, ActorContext, Context, Handler};
use tombolo_edge::FlowFacts;
use tombolo_interwork::owner::{Input, PeerKey, PhoneKey, ReplyTo};
use tombolo_presence::Address;
use tombolo_sip::message::Message;
use tombolo_store::Row;
use tombolo_telemetry::Redacted;

use crate::{
    alarm::{Alarm, Alarmed},
    bindings,
    directory::{Directory, LINGER},
    flows::instance,
    guests::{answer, pass},
    local_user::{LEAST_EXPIRES, LocalUser, MOST_EXPIRES, Origin, Register, Registered, UserOutput},
    messages::{Requester, ToPeer, ToUser},
    peer::respond,
};

/// The actor of one local user.
pub struct UserActor {
    aor: Address,
    user: LocalUser,
    directory: Arc<Directory>,
    alarm: Alarm,
}

impl UserActor {
    /// A user without phones.
    pub fn new(aor: Address, directory: Arc<Directory>) -> Self {
        Self {
            aor,
            user: LocalUser::new(directory.budgets.forks.clone()),
            directory,
            alarm: Alarm::default(),
        }
    }

    fn register(&mut self, peer: PeerKey, origin: Origin, reply: ReplyTo, message: &Message) {
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
                UserOutput::Delivered { shard, message, status } => {
                    self.directory.tell_shard(shard, Input::Delivered { message, status });
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
        let now = self.directory.clock.now().instant;
        match message {
            ToUser::Restore(bindings) => self.user.restore(bindings, now),
            ToUser::Reach { peer, reach } => self.user.handle_reach(&peer, reach, now),
            ToUser::Bindings(answer) => drop(answer.send(self.user.report(now))),
            ToUser::Clear(answer) => drop(answer.send(self.user.clear())),
            ToUser::Guest { flow, message } => self.admit(&flow, *message),
            ToUser::Register { peer, origin, reply, message } => {
                self.register(peer, origin, reply, &message);
            }
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
            ToUser::MustDecide(watcher) => {
                let (aor, watcher) = (Redacted(&self.aor), Redacted(&watcher));
                tracing::info!(%aor, %watcher, "a watcher waits: tombolo user pending, approve or deny");
            }
        }
        self.drive(ctx);
    }
}
