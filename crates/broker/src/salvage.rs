//! What is said to those who waited for an actor that panicked: everybody gets an answer with a cause.

use tombolo_edge::{FlowId, ToFlow};
use tombolo_interwork::owner::{SipRequest, Unanswered};
use tombolo_presence::Domain;
use tombolo_sip::message::Message;
use tombolo_telemetry::StatusClass;
use tombolo_xmpp::{
    stanza::{StanzaCondition, StanzaHead, StanzaKind},
    stream::ReceivedStanza,
    write::{ErrorContent, error_reply},
};

use crate::{directory::Directory, messages::ToPeer, peer::respond, router::say};

/// Why a stanza is refused because of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not now: the actor is being rebuilt.
    NotNow,
    /// It makes our actor panic.
    Poison,
    /// Whether it arrived is not known.
    Uncertain,
}

impl Refusal {
    fn condition(self) -> StanzaCondition {
        match self {
            Self::NotNow => StanzaCondition::ResourceConstraint,
            Self::Poison => StanzaCondition::InternalServerError,
            Self::Uncertain => StanzaCondition::RemoteServerTimeout,
        }
    }
}

/// Answers what a shard had been asked and had not answered.
pub fn answer_all(directory: &Directory, unanswered: Unanswered) {
    let Unanswered { requests, stanzas } = unanswered;
    for request in requests {
        refuse_request(directory, &request);
    }
    for stanza in stanzas.into_iter().filter_map(ReceivedStanza::read) {
        refuse_stanza(directory, &stanza, Refusal::Uncertain);
    }
}

/// 500 with Retry-After: 503 would take the whole of us out of a front end's use.
pub fn refuse_request(directory: &Directory, request: &SipRequest) {
    directory.metrics.refused_request();
    if let Some(bytes) = respond(&request.message, 500, &retry_after()) {
        directory.tell_peer(&request.peer, ToPeer::Respond { reply: request.reply, bytes });
    }
}

/// The same, without the transaction, which is lost.
pub fn refuse_by_flow(directory: &Directory, flow: FlowId, message: &Message) {
    if !message.is_request() {
        return;
    }
    directory.metrics.refused_request();
    directory.metrics.response_out(StatusClass::of(500));
    if let Some(bytes) = respond(message, 500, &retry_after()) {
        directory.flows_port().send(ToFlow::Bytes { flow, bytes: bytes.into() });
    }
}

/// Tells the sender of a message or of a request to subscribe; every other stanza is lost without harm: states are
/// probed for when a shard is loaded, and what was granted is asked for again.
pub fn refuse_stanza(directory: &Directory, stanza: &ReceivedStanza, refusal: Refusal) {
    directory.metrics.refused_stanza();
    let Ok(head) = StanzaHead::read(&stanza.xml) else { return };
    let is_awaited = match head.kind {
        StanzaKind::Message => true,
        StanzaKind::Presence => head.type_attribute.as_deref() == Some("subscribe"),
        StanzaKind::Iq => false,
    };
    let domains = (Domain::from_prepared(stanza.to.domain()), Domain::from_prepared(stanza.from.domain()));
    let mut bytes = Vec::new();
    if let (true, (Some(local), Some(remote))) = (is_awaited, domains)
        && error_reply(&mut bytes, &head, &ErrorContent::from(refusal.condition()))
    {
        say(directory, &local, &remote, bytes);
    }
}

fn retry_after() -> [(&'static str, String); 1] {
    [("Retry-After", "2".to_owned())]
}
