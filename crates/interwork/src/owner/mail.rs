//! Page-mode messages both ways: in order per sender and recipient, each with a fate that its sender learns
//! (RFC 7572, D-24).

use std::{
    borrow::Cow,
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tombolo_budget::Charge;
use tombolo_policy::{Capability, Direction, MessageType, Outcome, Question};
use tombolo_presence::{Address, Now, cut_text};
use tombolo_wheel::TimerId;
use tombolo_xmpp::{
    jid::Jid,
    stanza::{LangText, MessageKind, MessageStanza},
    stream::ReceivedStanza,
};

use super::{
    Asked, LaneKey, Owner, PeerKey, Timer, Unanswered,
    budgets::{MESSAGE_OCTETS, NO_ROOM_RETRY_SECONDS},
    causes::{CAUSE_LEN, Causes, LateFailure, Line},
    input::{MessageId, SipRequest},
    output::{Output, OwnerEvent},
    presence_in::addresses_of,
    threads::Threads,
    watchers::{HOMES_NOT_JOINED, came_back},
};
use crate::{
    address::{sip_uri_of_xmpp_uri, uri_of, uri_of_device, xmpp_uri_of_sip_uri},
    error::{Failure, Target, Undelivered, status_of},
    message_to_sip::{self, PageMessage},
    message_to_xmpp::{self, IncomingMessage},
    request::{MAX_FORWARDS, RequestDraft},
    sip_reply::Reply,
    xmpp_error,
};

/// Messages whose fate is not known yet.
#[derive(Debug, Default)]
pub struct Mail {
    next: u64,
    /// Toward SIP, by sender and recipient: never two at a time (RFC 3428 §8, D-18).
    queues: HashMap<(Address, Address), Queue, RandomState>,
    /// Toward SIP, by number.
    to_sip: HashMap<u64, (Address, Address), RandomState>,
    /// Toward SIP, by the domain of a front end: what it has not answered.
    windows: HashMap<String, Window, RandomState>,
    /// Toward XMPP, by number.
    to_xmpp: HashMap<u64, ToXmpp, RandomState>,
    /// Answered toward SIP lately, oldest first: an error that comes late finds its sender here.
    answered: VecDeque<(Instant, u64)>,
    /// Octets of those that are still in `to_xmpp`.
    answered_octets: usize,
    /// SIP users of whom a message failed behind its answer.
    causes: Causes,
    /// When the next of them is told more.
    causes_timer: Option<(Instant, TimerId)>,
    threads: Threads,
}

impl Mail {
    /// Octets of the messages that were answered and may still be refused.
    #[cfg(test)]
    pub(super) fn answered_octets(&self) -> usize {
        self.answered_octets
    }
}

#[derive(Debug, Default)]
struct Queue {
    in_flight: Option<Letter>,
    /// It stands in the line of its front end's window.
    is_held: bool,
    waiting: VecDeque<Letter>,
}

/// What one front end was sent and has not answered, so that no number of senders fills its connection.
#[derive(Debug, Default)]
struct Window {
    octets: usize,
    /// Conversations whose next message waits, in the order in which they came.
    held: VecDeque<(Address, Address)>,
}

/// A message from an XMPP user, on its way to SIP.
#[derive(Debug)]
struct Letter {
    number: u64,
    /// The stanza without its content, for the error that may go back.
    stanza: Bytes,
    device: Option<Box<str>>,
    /// Its body holds the charge for the whole letter, wherever the request is.
    draft: Box<RequestDraft>,
}

/// A message from a SIP user, on its way to XMPP.
#[derive(Debug)]
struct ToXmpp {
    /// Still to be answered, and what it holds until then.
    request: Option<(Box<SipRequest>, Charge)>,
    /// A MESSAGE between two local users, which has no stanza.
    is_local: bool,
    user: Address,
    contact: Address,
    peer: PeerKey,
    /// It was written to a stream: only then may it be accepted.
    is_written: bool,
    /// The sender gets its answer as soon as the message is written.
    is_hasty: bool,
    /// When a message that was not written is refused.
    give_up_at: Instant,
    /// A program sent it by itself: nothing is said to it but its answer.
    is_automatic: bool,
    timer: Option<TimerId>,
}

/// A message that may not have reached the other side, for the log of an orderly stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedMessage {
    /// Toward XMPP; else toward SIP.
    pub is_to_xmpp: bool,
    /// The Call-ID of the MESSAGE, or the id of the stanza that brought it.
    pub id: String,
}

/// Answered messages that are remembered for a late error, whenever that comes.
const ANSWERED: usize = 10_000;
/// Answered messages that are remembered while the stream may still lose them.
const UNCONFIRMED: usize = 100_000;
/// How long a message may wait for a stream before its sender is told that it did not leave: less than the sender's own
/// Timer F (RFC 3261 §17.1.2.2).
const UNWRITTEN: Duration = Duration::from_secs(30);
/// How long the answer to a front end's message waits for the write at first (D-24).
const FRONT_END_WAIT: Duration = Duration::from_secs(10);

impl Mail {
    /// The number of the newest message.
    pub fn last_number(&self) -> u64 {
        self.next
    }

    /// The next message is numbered above `last`.
    pub fn count_from(&mut self, last: u64) {
        self.next = last.saturating_add(1);
    }

    /// Takes out what was not answered: requests toward XMPP, stanzas toward SIP.
    pub fn take_unanswered(&mut self, unanswered: &mut Unanswered) {
        let requests = self.to_xmpp.drain().filter_map(|(_, sent)| sent.request);
        unanswered.requests.extend(requests.map(|(request, _)| *request));
        for (_, queue) in self.queues.drain() {
            let letters = queue.in_flight.into_iter().chain(queue.waiting);
            unanswered.stanzas.extend(letters.map(|letter| letter.stanza));
        }
    }

    /// The messages toward XMPP that went to this session and were not refused: its fate for them is still open.
    pub fn messages_on(&self, lane: &LaneKey) -> Vec<MessageId> {
        let LaneKey::Session { local, remote, .. } = lane else { return Vec::new() };
        let is_on = |sent: &ToXmpp| {
            !sent.is_local && sent.user.domain() == local.as_str() && sent.contact.domain() == remote.as_str()
        };
        let open = self.to_xmpp.iter().filter(|(_, sent)| sent.request.is_some() && is_on(sent));
        open.map(|(number, _)| MessageId(*number)).collect()
    }
}

impl Owner {
    /// A message stanza from a contact to one of our users.
    pub(super) fn handle_message_stanza(&mut self, received: &ReceivedStanza, now: Now) {
        let ReceivedStanza { from, to, xml: stanza, .. } = received;
        let (Some((contact, user)), Ok(message)) = (addresses_of(received), MessageStanza::read(stanza))
        else {
            return self.event(OwnerEvent::StanzaRefused { reason: "the message cannot be read" });
        };
        let (contact, user) = (&contact, &user);
        match message.kind {
            // STOX-E-10: no answer to an error, but the message that it is about learns its fate.
            MessageKind::Error => return self.handle_message_error(&message, from, now),
            MessageKind::Groupchat => {
                return self.bounce(stanza, user, contact, "service-unavailable", "there are no rooms here");
            }
            _ => {}
        }
        let Some(body) = plain(&message.bodies) else {
            // STOX-M-16: chat states, receipts and markers never become an empty MESSAGE.
            return self.event(OwnerEvent::StanzaRefused { reason: "the message has no body" });
        };
        let question = Question {
            local: user,
            remote: contact,
            direction: Direction::Inbound,
            capability: Capability::Message,
            has_relation: self.has_relation(user, contact),
            approve: self.accounts.approve.get(user).copied().unwrap_or_default(),
        };
        if matches!(self.policy.decide(&question).outcome, Outcome::Deny(_)) {
            return self.bounce(stanza, user, contact, "not-allowed", "the policy refuses the message");
        }
        let front_end = self.front_end_of(user);
        if front_end.is_none() && !self.accounts.approve.contains_key(user) {
            // XP-34: as for a user who is known and cannot be reached.
            return self.bounce(stanza, user, contact, "service-unavailable", Failure::NoPhone.reason());
        }
        let (call_id, cseq) = self.thread_of(message.thread.as_deref(), contact, user);
        let page = PageMessage {
            from_uri: uri_of_device(contact, from.resource()),
            from_tag: format!("{:016x}", self.random()),
            to_uri: uri_of_device(user, to.resource()),
            call_id,
            cseq,
            max_forwards: MAX_FORWARDS,
            subject: plain(&message.subjects).map(|subject| &*subject.text),
            lang: body.lang.as_deref().or(message.head.lang.as_deref()),
            is_automatic: message.is_automatic,
            body: &body.text,
        };
        let mut draft = message_to_sip::draft(&page);
        let is_reliable = front_end.as_ref().is_none_or(|peer| {
            let lane = self.peer_lane(peer);
            self.lanes.lane(lane).way.as_ref().is_none_or(|way| way.is_reliable)
        });
        let len = request_len(&draft);
        let limit = self.settings.max_sip_bytes;
        if len > limit {
            let text = format!("the message has {len} octets as a SIP request, the limit is {limit}");
            self.event(OwnerEvent::StanzaRefused { reason: "the message is too long for SIP" });
            if let Some(bytes) = xmpp_error::reply(stanza, "policy-violation", Some(&text)) {
                self.say(user, contact, bytes);
            }
            return;
        }
        if !is_reliable && len > self.settings.datagram_message_bytes {
            return self.bounce(
                stanza,
                user,
                contact,
                "policy-violation",
                "the message is too long for its way",
            );
        }
        let key = (contact.clone(), user.clone());
        let waiting = self.mail.queues.get(&key).map_or(0, |queue| queue.waiting.len());
        let head = xmpp_error::without_content(stanza);
        let octets = letter_octets(&draft, &head);
        let charge = match waiting < self.settings.waiting_messages {
            true => self.charge(user, contact, octets),
            false => None,
        };
        let Some(charge) = charge else {
            return self.bounce(stanza, user, contact, "resource-constraint", "too many messages wait");
        };
        draft.body = charge.seal(draft.body.to_vec());
        self.mail.next += 1;
        let letter = Letter {
            number: self.mail.next,
            stanza: head,
            device: to.resource().map(Into::into),
            draft: Box::new(draft),
        };
        self.mail.queues.entry(key.clone()).or_default().waiting.push_back(letter);
        self.send_next(&key);
    }

    /// Sends the next message of a sender to a recipient, unless one is in flight.
    fn send_next(&mut self, key: &(Address, Address)) {
        let is_behind_front_end = self.front_end_of(&key.1).is_some();
        let Some(queue) = self.mail.queues.get_mut(key) else { return };
        if queue.in_flight.is_some() || queue.is_held {
            return;
        }
        let Some(letter) = queue.waiting.front() else {
            self.mail.queues.remove(key);
            return;
        };
        if is_behind_front_end {
            let octets = sent_octets(&letter.draft);
            let window = self.mail.windows.entry(key.1.domain().to_owned()).or_default();
            if window.octets > 0 && window.octets + octets > self.settings.in_flight_octets {
                queue.is_held = true;
                return window.held.push_back(key.clone());
            }
            window.octets += octets;
        }
        let Some(letter) = queue.waiting.pop_front() else { return };
        let (number, device, draft) = (letter.number, letter.device.clone(), letter.draft.clone());
        queue.in_flight = Some(letter);
        self.mail.to_sip.insert(number, key.clone());
        self.event(OwnerEvent::MessageToSip);
        let user = &key.1;
        match self.front_end_of(user) {
            Some(peer) => {
                let request = self.new_request(Asked::Message(MessageId(number)));
                self.out.push_back(Output::Request { peer, request, draft });
            }
            None => {
                let message = MessageId(number);
                self.out.push_back(Output::Deliver { user: user.clone(), device, message, draft });
            }
        }
    }

    /// The SIP side answered a message, perhaps with where its recipient is now; or a MESSAGE between two local users is
    /// decided.
    pub(super) fn handle_message_outcome(
        &mut self,
        message: MessageId,
        outcome: Result<(), Failure>,
        new_address: Option<&str>,
    ) {
        let Some(sent) = self.mail.to_xmpp.remove(&message.0) else {
            let failure = outcome.err().map(|failure| LetterFailure {
                condition: failure.condition(),
                reason: failure.reason(),
                text: failure.text("message"),
                new_address,
            });
            return self.end_letter(message, failure);
        };
        let Some((request, _)) = sent.request else { return };
        match outcome {
            Ok(()) => self.answer(&request, Reply::status(200), ""),
            Err(failure) => self.answer(&request, Reply::status(failure.status()), failure.reason()),
        }
    }

    /// A phone of the recipient says that the recipient is elsewhere (RFC 7247 §7.2).
    pub(super) fn handle_message_moved(&mut self, message: MessageId, status: u16, contact: &str) {
        if let Some(sent) = self.mail.to_xmpp.remove(&message.0) {
            if let Some((request, _)) = sent.request {
                let headers = [("Contact", format!("<{contact}>"))];
                let answer = Reply { headers: &headers, ..Reply::status(status) };
                self.answer(&request, answer, "the recipient is elsewhere");
            }
            return;
        }
        let failure = Err(Failure::Response(status));
        self.handle_message_outcome(message, failure, xmpp_uri_of_sip_uri(contact).as_deref());
    }

    /// Too many messages are on their way to the recipient's phones.
    pub(super) fn handle_message_not_taken(&mut self, message: MessageId) {
        match self.mail.to_xmpp.remove(&message.0) {
            Some(ToXmpp { request: Some((request, _)), .. }) => {
                self.refuse_for_room(&request, "too many messages wait")
            }
            Some(_) => {}
            None => {
                let reason = "too many messages wait";
                let (condition, text) = ("resource-constraint", reason.into());
                self.end_letter(message, Some(LetterFailure { condition, reason, text, new_address: None }));
            }
        }
    }

    /// The message in flight has its fate, and the next one leaves.
    fn end_letter(&mut self, message: MessageId, failure: Option<LetterFailure<'_>>) {
        let Some(key) = self.mail.to_sip.remove(&message.0) else { return };
        let Some(queue) = self.mail.queues.get_mut(&key) else { return };
        let Some(letter) = queue.in_flight.take_if(|letter| letter.number == message.0) else { return };
        if let Some(LetterFailure { condition, reason, text, new_address }) = failure {
            let (contact, user) = &key;
            self.event(OwnerEvent::StanzaRefused { reason });
            let error = xmpp_error::reply_moved(&letter.stanza, condition, Some(&text), new_address);
            if let Some(bytes) = error {
                self.say(user, contact, bytes);
            }
        }
        self.widen(&key.1, sent_octets(&letter.draft));
        self.send_next(&key);
    }

    /// A user's front end answered a message: those that waited for that go on.
    fn widen(&mut self, user: &Address, octets: usize) {
        let Some(window) = self.mail.windows.get_mut(user.domain()) else { return };
        window.octets = window.octets.saturating_sub(octets);
        for _ in 0..window.held.len() {
            let Some(window) = self.mail.windows.get_mut(user.domain()) else { return };
            let Some(next) = window.held.pop_front() else { break };
            if let Some(queue) = self.mail.queues.get_mut(&next) {
                queue.is_held = false;
            }
            self.send_next(&next);
            // It stands last again: there is no room yet.
            let Some(window) = self.mail.windows.get_mut(user.domain()) else { return };
            if window.held.back() == Some(&next) {
                window.held.rotate_right(1);
                break;
            }
        }
        if self
            .mail
            .windows
            .get(user.domain())
            .is_some_and(|window| window.octets == 0 && window.held.is_empty())
        {
            self.mail.windows.remove(user.domain());
        }
    }

    fn bounce(
        &mut self,
        stanza: &Bytes,
        user: &Address,
        contact: &Address,
        condition: &'static str,
        reason: &'static str,
    ) {
        self.event(OwnerEvent::StanzaRefused { reason });
        if let Some(bytes) = xmpp_error::reply(stanza, condition, Some(reason)) {
            self.say(user, contact, bytes);
        }
    }

    /// MESSAGE from a local user.
    pub(super) fn handle_message_request(&mut self, request: SipRequest, now: Now) {
        let mut incoming = match IncomingMessage::read(&request.message, now) {
            Ok(incoming) => incoming,
            Err(refusal) => {
                return self.answer_fault(&request, &refusal);
            }
        };
        let user = request.identity.clone();
        let contact = incoming.target.clone();
        if let Some(thread) = self.mail.threads.find(&incoming.thread, &contact, &user) {
            incoming.thread = thread;
        }
        if came_back(&request, &contact) {
            return self.answer(
                &request,
                Reply::status(482),
                "the front end sent a request for its own domain",
            );
        }
        let is_local = self.policy.local_domain(contact.domain()).is_some();
        let question = Question {
            local: &user,
            remote: &contact,
            direction: Direction::Outbound,
            capability: Capability::Message,
            has_relation: self.has_relation(&user, &contact),
            approve: self.accounts.approve.get(&user).copied().unwrap_or_default(),
        };
        if matches!(self.policy.decide(&question).outcome, Outcome::Deny(_)) {
            let reason = if is_local { HOMES_NOT_JOINED } else { "the policy refuses the message" };
            return self.answer(&request, Reply::status(403), reason);
        }
        if incoming.is_empty() {
            // Taken, since it is legal, but nobody is shown an empty message.
            return self.answer(&request, Reply::status(200), "");
        }
        if is_local {
            return self.pass_local(request, &incoming, &user, &contact, now);
        }
        let Some(lane) = LaneKey::of_session(&user, &contact) else {
            return self.answer(&request, Reply::status(400), "the addresses cannot be a pair");
        };
        let partner = self.policy.partner(contact.domain());
        let is_chat = partner.is_some_and(|partner| partner.message_type == MessageType::Chat);
        // D-24: a front end wants its answer with the write.
        let (wait, is_hasty) = match request.peer {
            PeerKey::FrontEnd(_) => (FRONT_END_WAIT, true),
            PeerKey::Phone(_) => {
                let wait = partner.map_or(Duration::ZERO, |partner| partner.message_answer_wait);
                (wait, wait.is_zero())
            }
        };
        let id = message_id_text(self.settings.start, self.mail.next + 1);
        let bytes = message_to_xmpp::stanza(&incoming, &user, &contact, &id, is_chat);
        let limit = self.max_stanza_bytes(&lane);
        if bytes.len() > limit {
            return self.refuse_too_large(&request, bytes.len(), limit);
        }
        let held = self.charge(&user, &contact, request.message.octets() + MESSAGE_OCTETS);
        let sealed = self.charge(&user, &contact, bytes.len());
        let (Some(held), Some(sealed)) = (held, sealed) else {
            return self.refuse_for_room(&request, "too many messages wait");
        };
        let bytes = sealed.seal(bytes);
        self.mail.next += 1;
        let number = self.mail.next;
        self.event(OwnerEvent::MessageToXmpp);
        let is_automatic = incoming.is_automatic;
        let sent = ToXmpp {
            peer: request.peer.clone(),
            request: Some((Box::new(request), held)),
            is_local: false,
            user,
            contact,
            is_written: false,
            is_automatic,
            is_hasty,
            give_up_at: now.instant + UNWRITTEN,
            // From now on, not from the write: the sender's transaction waits no longer for a dial than for an error.
            timer: Some(self.wheel.insert(now.instant + wait, Timer::Message(number))),
        };
        self.mail.to_xmpp.insert(number, sent);
        self.out.push_back(Output::Message { lane, message: Some(MessageId(number)), bytes });
    }

    /// From one user of the built-in home to another.
    fn pass_local(
        &mut self,
        request: SipRequest,
        incoming: &IncomingMessage,
        user: &Address,
        contact: &Address,
        now: Now,
    ) {
        if !self.accounts.approve.contains_key(contact) {
            return self.answer(&request, Reply::status(404), "there is no such local user");
        }
        let hops = request.message.max_forwards().ok().flatten().unwrap_or(MAX_FORWARDS);
        let page = PageMessage {
            from_uri: uri_of(user),
            from_tag: format!("{:016x}", self.random()),
            to_uri: uri_of(contact),
            call_id: format!("{:016x}{:x}", self.random(), self.mail.next + 1),
            cseq: 1,
            // STOX-A-21: the message goes on by SIP, one hop further.
            max_forwards: hops.saturating_sub(1),
            subject: incoming.subject.as_deref(),
            lang: incoming.lang.as_deref(),
            is_automatic: incoming.is_automatic,
            body: &incoming.body,
        };
        let mut draft = Box::new(message_to_sip::draft(&page));
        let (len, limit) = (request_len(&draft), self.settings.max_sip_bytes);
        if len > limit {
            return self.refuse_too_large_for_sip(&request, len, limit);
        }
        // The recipient pays for what waits for its phones, the sender for the request that waits for its answer.
        let held = self.charge(user, contact, request.message.octets() + MESSAGE_OCTETS);
        let sealed = self.charge(contact, user, letter_octets(&draft, &[]));
        let (Some(held), Some(sealed)) = (held, sealed) else {
            return self.refuse_for_room(&request, "too many messages wait");
        };
        draft.body = sealed.seal(draft.body.to_vec());
        self.mail.next += 1;
        let number = self.mail.next;
        let is_automatic = incoming.is_automatic;
        let sent = ToXmpp {
            peer: request.peer.clone(),
            request: Some((Box::new(request), held)),
            is_local: true,
            user: user.clone(),
            contact: contact.clone(),
            is_written: false,
            is_automatic,
            is_hasty: false,
            give_up_at: now.instant,
            timer: None,
        };
        self.mail.to_xmpp.insert(number, sent);
        let message = MessageId(number);
        let device = incoming.device.clone();
        self.out.push_back(Output::Deliver { user: contact.clone(), device, message, draft });
    }

    /// The session wrote a message, or could not (D-24); or lost one that it had written, which is an error behind the
    /// answer.
    pub(super) fn handle_message_fate(
        &mut self,
        message: MessageId,
        fate: Result<(), Undelivered>,
        now: Now,
    ) {
        let Some(sent) = self.mail.to_xmpp.get_mut(&message.0) else { return };
        match fate {
            Ok(()) => {
                sent.is_written = true;
                if sent.is_hasty {
                    self.handle_message_wait_over(message, now);
                }
            }
            Err(undelivered) => self.refuse_message(message, &Refusal::ours(undelivered), now),
        }
    }

    /// No refusal came in time: accepted for delivery (D-06), though never before it was written (D-24). One that finds no
    /// stream is refused and taken back.
    pub(super) fn handle_message_wait_over(&mut self, message: MessageId, now: Now) {
        let Some(sent) = self.mail.to_xmpp.get_mut(&message.0) else { return };
        if let Some(timer) = sent.timer.take() {
            self.wheel.cancel(timer);
        }
        if !sent.is_written && now.instant < sent.give_up_at {
            sent.is_hasty = true;
            sent.timer = Some(self.wheel.insert(sent.give_up_at, Timer::Message(message.0)));
            return;
        }
        if !sent.is_written {
            let (user, contact) = (sent.user.clone(), sent.contact.clone());
            if let Some(lane) = LaneKey::of_session(&user, &contact) {
                self.out.push_back(Output::Withdraw { lane, message });
            }
            return self.refuse_message(
                message,
                &Refusal::ours(Undelivered::NotSent("remote-server-timeout")),
                now,
            );
        }
        let Some((request, _)) = sent.request.take() else { return };
        self.mail.answered_octets += answered_octets(sent);
        self.answer(&request, Reply::status(202), "");
        self.mail.answered.push_back((now.instant, message.0));
        self.forget_answered(now);
    }

    /// Forgets the oldest of the answered messages while there are too many, or while they take too much.
    fn forget_answered(&mut self, now: Now) {
        let confirm_after = self.settings.confirm_after;
        let most_octets = self.settings.budgets.messages / 4;
        loop {
            let (count, octets) = (self.mail.answered.len(), self.mail.answered_octets);
            let is_over = |(answered_at, _): &mut (Instant, u64)| {
                count > UNCONFIRMED
                    || octets > most_octets
                    || count > ANSWERED && *answered_at + confirm_after <= now.instant
            };
            let Some((_, oldest)) = self.mail.answered.pop_front_if(is_over) else { return };
            if let Some(sent) = self.mail.to_xmpp.remove(&oldest) {
                self.mail.answered_octets -= answered_octets(&sent);
            }
        }
    }

    /// A budget has no room for what a SIP user sent.
    pub(super) fn refuse_for_room(&mut self, request: &SipRequest, reason: &'static str) {
        let retry = [("Retry-After", NO_ROOM_RETRY_SECONDS.to_string())];
        let answer = Reply { headers: &retry, ..Reply::status(500) };
        self.answer(request, answer, reason);
    }

    /// Messages that would be lost if the process ended now.
    pub fn unfinished_messages(&self) -> Vec<UnfinishedMessage> {
        let unwritten = self.mail.to_xmpp.values().filter(|sent| !sent.is_written);
        let to_xmpp =
            unwritten.filter_map(|sent| sent.request.as_ref()).map(|(request, _)| UnfinishedMessage {
                is_to_xmpp: true,
                id: request.message.call_id().unwrap_or_default().to_owned(),
            });
        let letters =
            self.mail.queues.values().flat_map(|queue| queue.in_flight.iter().chain(&queue.waiting));
        let to_sip = letters.map(|letter| {
            let id = MessageStanza::read(&letter.stanza).ok().and_then(|message| message.head.id);
            UnfinishedMessage { is_to_xmpp: false, id: id.unwrap_or_default().into_owned() }
        });
        to_xmpp.chain(to_sip).collect()
    }

    /// The contact's server refused a message of one of our users.
    fn handle_message_error(&mut self, message: &MessageStanza<'_>, from: &Jid, now: Now) {
        let number = message.head.id.as_deref().and_then(|id| message_number(self.settings.start, id));
        let Some(number) = number else { return };
        let is_from_recipient = self
            .mail
            .to_xmpp
            .get(&number)
            .is_some_and(|sent| !sent.is_local && sent.contact.as_str() == from.bare());
        if !is_from_recipient {
            return;
        }
        let error = message.error.as_ref();
        let refusal = Refusal {
            condition: error.map_or("undefined-condition", |error| error.condition.as_str()),
            by: RefusedBy::Contact,
            target: if from.resource().is_some() { Target::Full } else { Target::Bare },
            text: error.and_then(|error| error.text.as_deref()),
            moved_to: error.and_then(|error| error.new_address.as_deref()).and_then(sip_uri_of_xmpp_uri),
        };
        self.refuse_message(MessageId(number), &refusal, now);
    }

    fn refuse_message(&mut self, message: MessageId, refusal: &Refusal<'_>, now: Now) {
        let Some(sent) = self.mail.to_xmpp.remove(&message.0) else { return };
        if let Some(timer) = sent.timer {
            self.wheel.cancel(timer);
        }
        if sent.request.is_none() {
            self.mail.answered_octets -= answered_octets(&sent);
        }
        if let Some((request, _)) = sent.request {
            let status = status_of(refusal.condition, refusal.target, refusal.moved_to.is_some());
            let reason = refusal.reason();
            // RFC 3261 §20.43: 399 carries text for people.
            let mut headers = vec![("Warning", format!("399 tombolo \"{reason}\""))];
            // STOX-E-05: 301 and 302 say where the recipient is now.
            if let Some(uri) = refusal.moved_to.as_ref().filter(|_| matches!(status, 301 | 302)) {
                headers.push(("Contact", format!("<{uri}>")));
            }
            let answer = Reply { headers: &headers, ..Reply::status(status) };
            return self.answer(&request, answer, reason);
        }
        if sent.is_automatic {
            return self.event(OwnerEvent::CauseLeftOut);
        }
        // Answered before: the sender is told by a MESSAGE from the contact with one line of cause.
        let (is_uncertain, cause) = match refusal.by {
            RefusedBy::Contact => {
                (false, cut_text(refusal.text.unwrap_or(refusal.condition), CAUSE_LEN).to_string())
            }
            RefusedBy::Us | RefusedBy::Nobody => (
                true,
                format!(
                    "the connection to the contact's server broke before it confirmed the message ({})",
                    refusal.condition
                ),
            ),
        };
        let failure = LateFailure { peer: sent.peer, is_uncertain, cause };
        self.mail.causes.note(&sent.user, &sent.contact, failure, now.instant);
        self.tell_causes(now);
    }

    /// Tells the senders of messages that failed late what is due.
    pub(super) fn tell_causes(&mut self, now: Now) {
        while let Some(line) = self.mail.causes.poll_due(now.instant) {
            self.tell_cause(line);
        }
        let due = self.mail.causes.poll_timeout();
        if self.mail.causes_timer.as_ref().map(|(at, _)| *at) == due {
            return;
        }
        if let Some((_, timer)) = self.mail.causes_timer.take() {
            self.wheel.cancel(timer);
        }
        self.mail.causes_timer = due.map(|at| (at, self.wheel.insert(at, Timer::Causes)));
    }

    /// The timer of [`Owner::tell_causes`] fired.
    pub(super) fn handle_causes_due(&mut self, now: Now) {
        self.mail.causes_timer = None;
        self.tell_causes(now);
    }

    fn tell_cause(&mut self, line: Line) {
        let page = PageMessage {
            from_uri: uri_of(&line.contact),
            from_tag: format!("{:016x}", self.random()),
            to_uri: uri_of(&line.user),
            call_id: format!("{:016x}{:016x}", self.random(), self.random()),
            cseq: 1,
            max_forwards: MAX_FORWARDS,
            subject: None,
            lang: Some("en"),
            is_automatic: true,
            body: &line.body,
        };
        let draft = Box::new(message_to_sip::draft(&page));
        match line.peer {
            peer @ PeerKey::FrontEnd(_) => {
                let request = self.new_request(Asked::Nothing);
                self.out.push_back(Output::Request { peer, request, draft });
            }
            PeerKey::Phone(_) => {
                self.mail.next += 1;
                let message = MessageId(self.mail.next);
                self.out.push_back(Output::Deliver { user: line.user, device: None, message, draft });
            }
        }
    }

    /// The user asked for the contact's presence, or has it: what a contact of an unverified provider needs to write.
    fn has_relation(&self, user: &Address, contact: &Address) -> bool {
        let pair = self.find_pair(user.as_str(), contact.as_str()).and_then(|id| self.pairs.pair(id));
        pair.is_some_and(|pair| pair.subscription.is_to() || pair.subscription.is_pending_out())
    }

    /// The Call-ID of a thread and the next CSeq in it; new ones without a thread (STOX-M-03, STOX-M-04).
    fn thread_of(&mut self, thread: Option<&str>, contact: &Address, user: &Address) -> (String, u32) {
        let Some(thread) = thread else {
            return (format!("{:016x}{:016x}", self.random(), self.random()), 1);
        };
        self.mail.threads.next(thread, contact, user)
    }
}

/// Why a message toward XMPP failed.
struct Refusal<'a> {
    condition: &'a str,
    by: RefusedBy,
    target: Target,
    /// The contact's server's own words.
    text: Option<&'a str>,
    /// The SIP URI where the contact is now.
    moved_to: Option<String>,
}

/// Which side a message toward XMPP failed on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RefusedBy {
    /// The contact's server answered with an error.
    Contact,
    /// It did not leave.
    Us,
    /// It may have arrived.
    Nobody,
}

impl Refusal<'_> {
    /// One for which nothing was heard of the contact's server.
    fn ours(undelivered: Undelivered) -> Self {
        let by = match undelivered {
            Undelivered::NotSent(_) => RefusedBy::Us,
            Undelivered::Uncertain => RefusedBy::Nobody,
        };
        Self { condition: undelivered.condition(), by, target: Target::Bare, text: None, moved_to: None }
    }

    /// For the log, and for people behind a SIP status.
    fn reason(&self) -> &'static str {
        match (self.by, self.condition) {
            (RefusedBy::Contact, _) => "the XMPP side refused the message",
            (RefusedBy::Nobody, _) => "the stream broke, and the message may have arrived",
            (RefusedBy::Us, "remote-server-not-found") => "the contact's domain has no XMPP server",
            (RefusedBy::Us, "remote-server-timeout") => "the contact's server cannot be reached",
            (RefusedBy::Us, "not-allowed") => "the policy refuses the message",
            (RefusedBy::Us, "resource-constraint") => "too many messages wait",
            (RefusedBy::Us, _) => "the message could not be sent",
        }
    }
}

/// Why a message toward SIP failed.
struct LetterFailure<'a> {
    condition: &'static str,
    /// For the log.
    reason: &'static str,
    /// For the sender.
    text: Cow<'static, str>,
    /// The `xmpp:` URI where the recipient is now.
    new_address: Option<&'a str>,
}

/// What a letter holds: its body once, and its head as often as it is copied on its way (here, at the peer, on the wire).
fn letter_octets(draft: &RequestDraft, stanza: &[u8]) -> usize {
    draft.body.len() + 3 * draft.head_octets() + stanza.len() + MESSAGE_OCTETS
}

/// What a request takes on the wire at most.
fn request_len(draft: &RequestDraft) -> usize {
    draft.body.len() + message_to_sip::head_len(draft)
}

/// About what a request takes on the wire.
fn sent_octets(draft: &RequestDraft) -> usize {
    draft.body.len() + draft.head_octets()
}

/// What a message takes that was answered and may still be refused.
fn answered_octets(sent: &ToXmpp) -> usize {
    MESSAGE_OCTETS + sent.user.as_str().len() + sent.contact.as_str().len()
}

/// The text in the stanza's own language, else the first; one that says nothing is none.
fn plain<'a, 'b>(texts: &'b [LangText<'a>]) -> Option<&'b LangText<'a>> {
    let mut said = texts.iter().filter(|text| !text.text.is_empty());
    said.clone().find(|text| text.lang.is_none()).or_else(|| said.next())
}

/// The stanza id of a message of ours; the start number keeps an answer to an earlier life of the process apart.
fn message_id_text(start: u32, number: u64) -> String {
    format!("tm{start:x}-{number:x}")
}

fn message_number(start: u32, id: &str) -> Option<u64> {
    let (life, number) = id.strip_prefix("tm")?.split_once('-')?;
    (u32::from_str_radix(life, 16).ok()? == start).then(|| u64::from_str_radix(number, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_come_back_in_the_same_life_only() {
        assert_eq!(message_number(7, &message_id_text(7, 300)), Some(300));
        assert_eq!(message_number(8, &message_id_text(7, 300)), None);
        for id in ["", "tm", "tm7", "tm7-", "tm7-x", "x7-1"] {
            assert_eq!(message_number(7, id), None, "{id:?}");
        }
    }
}
