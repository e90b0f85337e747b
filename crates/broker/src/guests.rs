//! Requests by flows that belong to no peer yet, or to others: they get challenges and refusals without any state. An
//! authenticated REGISTER makes its flow a phone's too; any other authenticated request does where its user knows the phone.

use std::sync::{Arc, atomic::Ordering};

use actix::{Actor, Context, Handler, Message};
use tombolo_edge::{FlowFacts, ToFlow};
use tombolo_interwork::owner::{PeerKey, PhoneKey};
use tombolo_presence::Address;
use tombolo_runtime::guard;
use tombolo_sip::{
    message::Message as SipMessage,
    method::Method,
    uas::{self, Verdict},
};
use tombolo_telemetry::{SipMethod, StatusClass};

use crate::{
    accounts::Proof,
    directory::{Directory, Peer},
    flows::instance,
    messages::{Arrived, ToUser},
    peer::respond,
    requests::{capabilities, challenge},
    salvage::refuse_by_flow,
};

/// Messages by a flow without a peer. Refused when the mailbox is full.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ToGuests(pub Arrived);

/// The one who sees to them.
pub struct GuestsActor {
    directory: Arc<Directory>,
}

impl GuestsActor {
    /// Hands phones to the actors of `directory`.
    pub fn new(directory: Arc<Directory>) -> Self {
        Self { directory }
    }

    fn see_to(&self, flow: &Arc<FlowFacts>, message: SipMessage) {
        #[cfg(test)]
        crate::guarded::trap::spring(&format!("guest: {:?}", message.call_id()));
        // A response to nothing of ours, and an ACK, are not answered.
        if !message.is_request() || matches!(message.method(), Some(Method::Ack)) {
            return;
        }
        // The peer may have come to be since the flow's messages were queued.
        if let Some((_, peer)) = self.directory.receiver(flow.flow, &message) {
            return pass(&self.directory, peer, flow, message, false);
        }
        let (status, headers) = match uas::check(&message) {
            Verdict::Drop => return,
            Verdict::Refuse { status, headers } => (status, headers),
            Verdict::Accept if message.method() == Some(&Method::Options) => (200, capabilities()),
            // It names a request that nobody keeps (RFC 3261 §9.2), and cannot be challenged (§22.1).
            Verdict::Accept if message.method() == Some(&Method::Cancel) => (481, Vec::new()),
            Verdict::Accept => match self.directory.prove(&message, flow) {
                Proof::User(aor)
                    if message.method() == Some(&Method::Register) && self.has_no_room(&aor, &message) =>
                {
                    (500, vec![("Retry-After", "120".to_owned())])
                }
                Proof::User(aor) if message.method() == Some(&Method::Register) => {
                    match self.adopt(flow, &aor, &message) {
                        Some(peer) => return pass(&self.directory, peer, flow, message, true),
                        None => (403, Vec::new()),
                    }
                }
                // Of a phone that is registered? Without that there is nowhere to reach it.
                Proof::User(aor) => {
                    let guest = ToUser::Guest { flow: flow.clone(), message: Box::new(message) };
                    return self.directory.user(&aor).do_send(guest);
                }
                Proof::NoHome => {
                    let cause = "From names no user of a built-in home";
                    self.directory.note_failed_login(&message, flow, 403, &cause);
                    (403, Vec::new())
                }
                Proof::Challenge { values, .. } => (401, challenge(values)),
            },
        };
        answer(&self.directory, flow, &message, status, &headers);
    }

    /// The process has no memory for further phones, and this one is not here yet.
    fn has_no_room(&self, aor: &Address, message: &SipMessage) -> bool {
        self.directory.budgets.is_memory_full.load(Ordering::Relaxed)
            && self.directory.peer(&key_of(aor, message)).is_none()
    }

    /// The flow is this phone's too from now on; `None` when it carries as many as it may.
    fn adopt(&self, flow: &Arc<FlowFacts>, aor: &Address, message: &SipMessage) -> Option<Peer> {
        let key = key_of(aor, message);
        self.directory.bind_flow(flow, &key).then(|| self.directory.find_or_start_peer(&key))
    }
}

/// What a phone keeps over connections; one that names no instance is known by the Call-ID of its REGISTER.
fn key_of(aor: &Address, message: &SipMessage) -> PeerKey {
    let instance = instance(message).unwrap_or_else(|| message.call_id().unwrap_or_default().into());
    PeerKey::Phone(Arc::new(PhoneKey { aor: aor.clone(), instance }))
}

/// Answers a request by a flow without a peer.
pub(crate) fn answer(
    directory: &Directory,
    flow: &FlowFacts,
    message: &SipMessage,
    status: u16,
    headers: &[(&'static str, String)],
) {
    directory.metrics.request_in(SipMethod::of(message.method_text()));
    directory.metrics.response_out(StatusClass::of(status));
    if status >= 400 {
        directory.metrics.refused_request();
    }
    if let Some(bytes) = respond(message, status, headers) {
        directory.flows_port().send(ToFlow::Bytes { flow: flow.flow, bytes: bytes.into() });
    }
}

/// Hands a request to the peer whose flow it came by.
pub(crate) fn pass(
    directory: &Directory,
    peer: Peer,
    flow: &Arc<FlowFacts>,
    message: SipMessage,
    is_authenticated: bool,
) {
    let arrived = Arrived { flow: flow.clone(), messages: vec![message], is_authenticated };
    if let Err(Arrived { messages, .. }) = peer.inbox.push(arrived) {
        for message in messages {
            let retry = [("Retry-After", "2".to_owned())];
            if let Some(bytes) = respond(&message, 503, &retry) {
                directory.flows_port().send(ToFlow::Bytes { flow: flow.flow, bytes: bytes.into() });
            }
        }
    }
}

impl Actor for GuestsActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(4096);
    }
}

impl Handler<ToGuests> for GuestsActor {
    type Result = ();

    fn handle(&mut self, ToGuests(arrived): ToGuests, _: &mut Context<Self>) {
        for message in arrived.messages {
            let copy = message.clone();
            if let Err(panicked) = guard(|| self.see_to(&arrived.flow, message)) {
                let (kind, len) = (SipMethod::of(copy.method_text()).as_str(), copy.octets());
                tracing::error!(kind, len, "a stranger's request was dropped");
                self.directory.panics.note_harmless("guests", &panicked);
                let refused = guard(|| refuse_by_flow(&self.directory, arrived.flow.flow, &copy));
                if let Err(panicked) = refused {
                    self.directory.panics.note_harmless("refusal of a guest", &panicked);
                }
            }
        }
    }
}
