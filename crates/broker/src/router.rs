//! Where streams and flows hand what they bring: to whom each stanza, request and response goes.
//!
//! Runs on the connection's own thread, groups by receiver, and gives back what a full receiver did not take.

use std::sync::{Arc, atomic::Ordering};

use actix::dev::SendError;
use bytes::Bytes;
use tombolo_edge::{DomainPair, FlowFacts, FlowSink, FromEdge, FromFlow, StreamDirection, StreamSink};
use tombolo_interwork::{
    owner::{Input, NOTIFY_BRANCH, NotifyAnswer, PeerKey},
    token::{TOKEN_TEXT_LEN, Token, TokenKind},
};
use tombolo_presence::{Domain, partition_of};
use tombolo_sip::message::Message;
use tombolo_telemetry::StanzaKind as Kind;
use tombolo_xmpp::{
    jid::{self, Jid},
    stanza::{IqKind, IqStanza, StanzaCondition, StanzaHead, StanzaKind},
    stream::ReceivedStanza,
    write::{ErrorContent, error_reply, iq_result},
};

use crate::{
    directory::{Directory, Heard, Stream},
    guests::ToGuests,
    messages::{Arrived, ToPeer, ToSession},
    salvage::{Refusal, refuse_stanza},
    session::number_of_pong,
};

/// The broker's ear.
pub struct Router {
    directory: Arc<Directory>,
}

impl Router {
    /// Hands everything to the actors of `directory`.
    pub fn new(directory: Arc<Directory>) -> Self {
        Self { directory }
    }
}

impl StreamSink for Router {
    fn offer(&self, value: FromEdge) -> Result<(), FromEdge> {
        let directory = &self.directory;
        match value {
            FromEdge::StreamUp {
                stream,
                direction,
                dial,
                pair,
                method,
                tls,
                window_bytes,
                max_stanza_bytes,
            } => {
                tracing::info!(
                    partner = %pair.remote, local = %pair.local, ?direction, method = method.as_str(),
                    stream = stream.0, version = tls.as_ref().map(|tls| &*tls.version),
                    cipher = tls.as_ref().map(|tls| &*tls.cipher),
                    certificate = tls.as_ref().map(|tls| &*tls.certificate), "s2s stream up"
                );
                if let Some(before) =
                    tls.as_ref().and_then(|tls| directory.seen.see(&pair.remote, &tls.certificate))
                {
                    let certificate = tls.as_ref().map(|tls| &*tls.certificate);
                    tracing::warn!(partner = %pair.remote, before, certificate, "a partner shows another certificate");
                }
                // The dial's own pair names the session even if the partner answered for another.
                let session = (direction == StreamDirection::Outgoing).then(|| {
                    dial.and_then(|dial| directory.session_of_dial(dial)).unwrap_or_else(|| pair.clone())
                });
                if direction == StreamDirection::Incoming {
                    directory.partner_spoke(&pair);
                }
                let (pairs, tls) = (vec![pair], tls.map(Arc::from));
                let heard = Heard::new(directory.clock.now().instant);
                directory.add_stream(stream, Stream { direction, session, pairs, method, tls, heard });
                if let Some(session) = directory.session_of_stream(stream) {
                    let up = ToSession::StreamUp { stream, window: window_bytes, max_stanza_bytes };
                    session.do_send(up);
                }
            }
            FromEdge::PairProved { stream, pair } => {
                directory.change_stream(stream, |pairs| {
                    if !pairs.contains(&pair) {
                        pairs.push(pair);
                    }
                });
            }
            FromEdge::PairLost { stream, pair } => {
                directory.change_stream(stream, |pairs| pairs.retain(|proved| *proved != pair));
            }
            FromEdge::Stanzas { stream, first, stanzas } => {
                return self.route_stanzas(stanzas, stream).map_err(|stanzas| FromEdge::Stanzas {
                    stream,
                    first,
                    stanzas,
                });
            }
            FromEdge::Written { stream, last, bytes } => {
                if let Some(session) = directory.session_of_stream(stream) {
                    session.do_send(ToSession::Written { stream, last, bytes });
                }
            }
            FromEdge::StreamDown { stream, end, last_written } => {
                if let Some(Stream { session, pairs, .. }) = directory.remove_stream(stream) {
                    // Every pair of it may have been lost before.
                    let partner = session.as_ref().or(pairs.first()).map(|pair| pair.remote.as_str());
                    tracing::info!(partner, cause = %end, stream = stream.0, "s2s stream ended");
                    if let Some(pair) = session {
                        let down = ToSession::StreamDown { stream, end, last_written };
                        directory.session(&pair.local, &pair.remote).do_send(down);
                    } else if !end.is_clean() {
                        directory.incoming_broke(&pairs);
                    }
                }
            }
            FromEdge::DialFailed { dial, end } => {
                if let Some(pair) = directory.session_of_dial(dial) {
                    tracing::warn!(partner = %pair.remote, cause = %end, "no s2s stream");
                    let failed = ToSession::DialFailed { dial, end };
                    directory.session(&pair.local, &pair.remote).do_send(failed);
                }
            }
            FromEdge::Beat => {}
        }
        Ok(())
    }
}

impl Router {
    /// One batch per shard; gives back what full shards did not take.
    fn route_stanzas(&self, stanzas: Vec<Bytes>, stream: tombolo_edge::StreamId) -> Result<(), Vec<Bytes>> {
        let directory = &self.directory;
        let Some(facts) = directory.stream(stream) else { return Ok(()) };
        facts.heard.note(directory.clock.now().instant);
        let mut batches: Vec<Vec<ReceivedStanza>> = vec![Vec::new(); directory.shard_count()];
        let mut kinds = [0; 4];
        for stanza in stanzas {
            kinds[kind_of(&stanza) as usize] += 1;
            if let Some((shard, stanza)) = self.place(stanza, &facts) {
                batches[shard].push(stanza);
            }
        }
        for kind in [Kind::Message, Kind::Presence, Kind::Iq, Kind::Other] {
            let count = kinds[kind as usize];
            if count > 0 {
                directory.metrics.stanzas_in(kind, count);
            }
        }
        let mut refused = Vec::new();
        for (shard, batch) in batches.into_iter().enumerate().filter(|(_, batch)| !batch.is_empty()) {
            // A stanza may be longer than what came for it: it brings the prefixes that its stream declared.
            let bytes = batch.iter().map(|stanza| stanza.xml.len() + size_of::<ReceivedStanza>()).sum();
            let shard = &directory.shards()[shard];
            if let Err(Input::Stanzas(batch)) = shard.inbox.push_sized(Input::Stanzas(batch), bytes) {
                if shard.is_down.load(Ordering::Relaxed) {
                    // One shard that is rebuilt must not stop all readers.
                    batch.iter().for_each(|stanza| refuse_stanza(directory, stanza, Refusal::NotNow));
                    continue;
                }
                refused.extend(batch.into_iter().map(|stanza| stanza.xml));
            }
        }
        if refused.is_empty() { Ok(()) } else { Err(refused) }
    }

    /// The shard of the local user that a stanza is for; `None` when it is answered or dropped here.
    fn place(&self, xml: Bytes, facts: &Stream) -> Option<(usize, ReceivedStanza)> {
        let Some(stanza) = ReceivedStanza::read(xml.clone()) else {
            self.refuse_malformed(&xml, facts);
            return None;
        };
        let (from, to) = (&stanza.from, &stanza.to);
        // The edge checked this; the gateway checks it again (DESIGN section 12).
        let is_proved = facts
            .pairs
            .iter()
            .any(|pair| pair.remote.as_str() == from.domain() && pair.local.as_str() == to.domain());
        if !is_proved || self.directory.policy.load().local_domain(to.domain()).is_none() {
            self.directory.metrics.refused_stanza();
            return None;
        }
        if stanza.kind == StanzaKind::Iq {
            self.answer_iq(&stanza);
            return None;
        }
        if to.local().is_none() {
            if stanza.kind == StanzaKind::Message {
                self.refuse_message(&stanza);
            }
            return None;
        }
        Some((self.directory.shard_of(partition_of(to.bare())), stanza))
    }

    /// The domain and its users answer pings and say what they are and by what; nothing else (XS-STR-12, XS-ADR-04).
    fn answer_iq(&self, stanza: &ReceivedStanza) {
        let (from, to) = (&stanza.from, &stanza.to);
        let mut out = Vec::new();
        let iq = match IqStanza::read(&stanza.xml) {
            Ok(iq) if iq.kind.is_request() => iq,
            Ok(_) => return self.take_pong(stanza),
            Err(_) => return self.refuse_iq(stanza),
        };
        let head = &iq.head;
        let payload = iq.payload.as_ref().map(|payload| (&*payload.ns, payload.name));
        let payload = payload.filter(|_| iq.kind == IqKind::Get);
        let is_answered = match payload {
            Some(("urn:xmpp:ping", "ping")) => iq_result(&mut out, head, b""),
            Some(("http://jabber.org/protocol/disco#info", "query")) => {
                let inner = if to.local().is_some() { DISCO_USER } else { DISCO_DOMAIN };
                iq_result(&mut out, head, inner.as_bytes())
            }
            Some(("http://jabber.org/protocol/disco#items", "query")) => {
                iq_result(&mut out, head, b"<query xmlns='http://jabber.org/protocol/disco#items'/>")
            }
            // No number: a partner need not know which faults we have (XEP-0092 §4).
            Some(("jabber:iq:version", "query")) => iq_result(&mut out, head, VERSION.as_bytes()),
            _ => {
                let error = ErrorContent::from(StanzaCondition::ServiceUnavailable);
                error_reply(&mut out, head, &error)
            }
        };
        if is_answered {
            self.answer(from, to, out);
        }
    }

    /// Answers an iq that breaks RFC 6120 §8.2.3: of no type, or a request that does not hold exactly one element. What
    /// cannot be a request, or has no id, is not answered.
    fn refuse_iq(&self, stanza: &ReceivedStanza) {
        let Ok(head) = StanzaHead::read(&stanza.xml) else { return };
        let mut out = Vec::new();
        self.directory.metrics.refused_stanza();
        if head.id.is_some() && error_reply(&mut out, &head, &ErrorContent::from(StanzaCondition::BadRequest))
        {
            self.answer(&stanza.from, &stanza.to, out);
        }
    }

    /// Nobody reads what is written to a domain itself: whoever did it is told.
    fn refuse_message(&self, stanza: &ReceivedStanza) {
        let Ok(head) = StanzaHead::read(&stanza.xml) else { return };
        let mut out = Vec::new();
        if error_reply(&mut out, &head, &ErrorContent::from(StanzaCondition::ServiceUnavailable)) {
            self.answer(&stanza.from, &stanza.to, out);
        }
    }

    /// Sends the answer to a stanza of these addresses.
    fn answer(&self, from: &Jid, to: &Jid, bytes: Vec<u8>) {
        let domains = (Domain::from_prepared(to.domain()), Domain::from_prepared(from.domain()));
        if let (Some(local), Some(remote)) = domains {
            say(&self.directory, &local, &remote, bytes);
        }
    }
}

impl Router {
    /// Drops a stanza of which an address is malformed, and tells its sender (RFC 6120 §8.3.3.8).
    ///
    /// If only the resource of `from` is malformed, the bare address is told. If more is, nobody can be.
    fn refuse_malformed(&self, xml: &Bytes, facts: &Stream) {
        self.directory.metrics.refused_stanza();
        self.directory.metrics.malformed_address();
        let Ok(head) = StanzaHead::read(xml) else { return };
        let sender = |from: &str| {
            let bare = from.split_once('/').map_or(from, |(bare, _)| bare);
            Jid::parse(from).or_else(|_| Jid::parse(bare)).ok()
        };
        let Some(from) = head.from.as_deref().and_then(sender) else { return };
        // The answer is from the domain of `to`; if not even that can be read, from the one that the sender speaks to.
        let local = head.to.as_deref().and_then(|to| jid::Domain::of_address(to).ok());
        let is_its = |pair: &&DomainPair| {
            pair.remote.as_str() == from.domain()
                && local.as_ref().is_none_or(|local| pair.local.as_str() == local.as_str())
        };
        let Some(pair) = facts.pairs.iter().find(is_its) else { return };
        let head =
            StanzaHead { from: Some(from.as_str().into()), to: Some(pair.local.as_str().into()), ..head };
        let mut out = Vec::new();
        if error_reply(&mut out, &head, &ErrorContent::from(StanzaCondition::JidMalformed)) {
            say(&self.directory, &pair.local, &pair.remote, out);
        }
    }

    /// An answer, good or bad, to a ping of the session between two domains.
    fn take_pong(&self, stanza: &ReceivedStanza) {
        let (from, to) = (&stanza.from, &stanza.to);
        if from.local().is_some() || to.local().is_some() {
            return;
        }
        let Ok(head) = StanzaHead::read(&stanza.xml) else { return };
        let domains = (Domain::from_prepared(to.domain()), Domain::from_prepared(from.domain()));
        if let (Some(id), (Some(local), Some(remote))) =
            (head.id.as_deref().and_then(number_of_pong), domains)
        {
            self.directory.session(&local, &remote).do_send(ToSession::Pong(id));
        }
    }
}

/// Hands an answer for which nobody waits to the session of two domains; drops it where too many wait already.
pub fn say(directory: &Directory, local: &Domain, remote: &Domain, bytes: Vec<u8>) {
    let policy = directory.policy.load();
    let limit = policy.partner(remote.as_str()).map(|partner| partner.limits.accepted_stanza_bytes);
    if limit.is_none_or(|limit| bytes.len() > limit) {
        // It echoes an id that alone takes more than a stanza may.
        return directory.metrics.refused_stanza();
    }
    let entry = policy.entry_of(remote.as_str());
    match directory.budgets.take_answer(entry, bytes.len() + ANSWER_OCTETS) {
        Ok(charge) => {
            let message = ToSession::Message { shard: 0, message: None, bytes: charge.seal(bytes) };
            directory.session(local, remote).do_send(message);
        }
        Err(full) => directory.budgets.note(&full, entry, None, &directory.metrics),
    }
}

/// The kind of a stanza by its first letters; it was checked when it came.
fn kind_of(stanza: &[u8]) -> Kind {
    match stanza.get(1) {
        Some(b'm') => Kind::Message,
        Some(b'p') => Kind::Presence,
        Some(b'i') => Kind::Iq,
        _ => Kind::Other,
    }
}

impl FlowSink for Router {
    fn offer(&self, value: FromFlow) -> Result<(), FromFlow> {
        let directory = &self.directory;
        match value {
            FromFlow::FlowUp(facts) => self.welcome(&facts),
            FromFlow::Messages { flow, messages } => {
                return self
                    .route_messages(&flow, messages)
                    .map_err(|messages| FromFlow::Messages { flow: flow.clone(), messages });
            }
            FromFlow::Written { flow, bytes } => {
                directory.flows.credit(flow, bytes, |key, bytes| {
                    if let Some(peer) = directory.peer(key) {
                        peer.addr.do_send(ToPeer::Written { flow, bytes });
                    }
                });
            }
            FromFlow::FlowDown { flow, cause } => {
                for key in directory.flows.unbind(flow) {
                    tracing::info!(flow = flow.0, cause, "sip flow ended");
                    directory.tell_peer(&key, ToPeer::FlowDown(flow));
                }
            }
            FromFlow::DialFailed { dial, cause } => {
                if let Some(key) = directory.peer_of_dial(dial) {
                    directory.tell_peer(&key, ToPeer::DialFailed { dial, cause });
                }
            }
        }
        Ok(())
    }
}

impl Router {
    /// Whose flow a new one is: of the peer that dialled it, or of the front end that it proves to be.
    fn welcome(&self, facts: &Arc<FlowFacts>) {
        let directory = &self.directory;
        let dialled = facts.dial.and_then(|dial| directory.peer_of_dial(dial));
        if let Some(key) = &dialled {
            // A new flow has room for one.
            let _ = directory.bind_flow(facts, key);
        }
        // One pool may be the front end of several domains, and speak for each by one connection. Dialled is it for one only:
        // another domain's next hop may be elsewhere, though it is trusted to speak from there.
        if !matches!(dialled, Some(PeerKey::Phone(_))) {
            let as_theirs = Arc::new(FlowFacts { dial: None, ..(**facts).clone() });
            let others = self.front_ends_of(facts).into_iter().map(PeerKey::FrontEnd);
            for key in others.filter(|key| dialled.as_ref() != Some(key)) {
                let _ = directory.bind_flow(&as_theirs, &key);
            }
        }
    }

    /// The local domains whose front end this flow comes from, if it proves that (SIP-TLS-04, DESIGN section 7).
    fn front_ends_of(&self, facts: &FlowFacts) -> Vec<Domain> {
        let policy = self.directory.policy.load();
        let found = policy.local_domains().iter().filter(|local| crate::requests::is_front_end(local, facts));
        found.map(|local| local.name.clone()).collect()
    }

    /// Responses to NOTIFYs go to their shards, everything else to the peer of the flow that it is for, or to the guests.
    fn route_messages(&self, flow: &Arc<FlowFacts>, messages: Vec<Message>) -> Result<(), Vec<Message>> {
        let directory = &self.directory;
        let mut answers: Vec<Vec<NotifyAnswer>> = Vec::new();
        // One batch per receiver, in order; a flow has mostly one.
        let mut others: Vec<(Option<PeerKey>, Vec<Message>)> = Vec::new();
        for message in messages {
            if let Some((shard, answer)) = self.notify_answer(&message) {
                // More than were asked for are copies, and nobody else was sent a NOTIFY.
                if answer.status >= 200 && directory.flows.take_answer(flow.flow) {
                    answers.resize_with(directory.shard_count(), Vec::new);
                    answers[shard].push(answer);
                }
                continue;
            }
            let receiver = directory.flows.receiver(flow.flow, &message);
            match others.iter_mut().find(|(known, _)| *known == receiver) {
                Some((_, batch)) => batch.push(message),
                None => others.push((receiver, vec![message])),
            }
        }
        if !answers.is_empty() {
            directory.flows.note_heard(flow.flow, directory.clock.now().instant);
            let peers = directory.flows.peers(flow.flow);
            for (shard, answers) in answers.into_iter().enumerate().filter(|(_, answers)| !answers.is_empty())
            {
                // Answers are bounded by what was granted, and must not be missed.
                directory.tell_shard(shard, Input::NotifyAnswers { peers: peers.clone(), answers });
            }
        }
        let mut refused = Vec::new();
        for (receiver, messages) in others {
            let arrived = Arrived { flow: flow.clone(), messages, is_authenticated: false };
            match receiver.and_then(|key| directory.peer(&key)) {
                Some(peer) => {
                    if let Err(arrived) = peer.inbox.push(arrived) {
                        refused.extend(arrived.messages);
                    }
                }
                None => {
                    let sent = directory.guests().map_or(Ok(()), |guests| guests.try_send(ToGuests(arrived)));
                    if let Err(SendError::Full(ToGuests(arrived)) | SendError::Closed(ToGuests(arrived))) =
                        sent
                    {
                        refused.extend(arrived.messages);
                    }
                }
            }
        }
        if refused.is_empty() { Ok(()) } else { Err(refused) }
    }

    /// What a response to one of our pipelined NOTIFYs says, and to which shard.
    fn notify_answer(&self, message: &Message) -> Option<(usize, NotifyAnswer)> {
        let status = message.status()?;
        let via = message.top_via().ok()?;
        let rest = via.branch()?.strip_prefix(NOTIFY_BRANCH)?;
        let (text, cseq) = rest.split_once('.').filter(|(text, _)| text.len() == TOKEN_TEXT_LEN)?;
        // The shard compares the MAC with the one that it knows, which is cheaper than to make it anew.
        let (token, mac) =
            Token::read_unverified(text).filter(|(token, _)| token.kind == TokenKind::Notifier)?;
        let answer = NotifyAnswer {
            partition: token.partition,
            row: token.row,
            mac,
            cseq: cseq.parse().ok()?,
            status,
            retry_after: message.retry_after(),
        };
        Some((self.directory.shard_of(token.partition), answer))
    }
}

/// By what we are served (XEP-0092).
/// What an answer takes besides its text until it is written.
const ANSWER_OCTETS: usize = 256;
const VERSION: &str = "<query xmlns='jabber:iq:version'><name>Tombolo</name><version/></query>";

/// What is said of the domain (XS-ADR-05).
const DISCO_DOMAIN: &str = "<query xmlns='http://jabber.org/protocol/disco#info'>\
    <identity category='gateway' type='simple' name='Tombolo'/>\
    <feature var='http://jabber.org/protocol/disco#info'/>\
    <feature var='http://jabber.org/protocol/disco#items'/>\
    <feature var='jabber:iq:version'/>\
    <feature var='urn:xmpp:ping'/></query>";

/// What is said of each user, whether it exists or not.
const DISCO_USER: &str = "<query xmlns='http://jabber.org/protocol/disco#info'>\
    <identity category='account' type='registered'/>\
    <feature var='http://jabber.org/protocol/disco#info'/>\
    <feature var='jabber:iq:version'/>\
    <feature var='urn:xmpp:ping'/></query>";
