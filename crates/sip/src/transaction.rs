//! Transactions of one next hop (RFC 3261 §17, RFC 4320, RFC 6026 as far as refusals of INVITE need it).
//!
//! Messages and `now` go in; what to send, outcomes and one deadline come out. On reliable transports nothing is kept
//! of a message that was sent; on UDP it is, to be sent again. Pipelined NOTIFYs on reliable transports are no
//! transactions here: their dialogs keep all that is needed. INVITE is never sent, and received to be refused only.
//!
//! ```text
//! client  trying -- E: again (UDP) --> trying,  F: timeout,  1xx: proceeding (E = T2),  2xx-6xx: final
//!         final  -- K (UDP: T4): copies of the response are absorbed -->  gone         §17.1.2
//! server  trying -- E of the client has reached T2 --> 100 -- 64*T1 without an answer --> gone   RFC 4320 §4.1, §4.2
//!         trying -- final response --> completed -- J (UDP: 64*T1): copies get the response --> gone   §17.2.2
//! INVITE  proceeding -- 200 ms --> 100 -- 3xx-6xx --> completed -- G (UDP): again, H: gone,       §17.2.1
//!         ACK --> confirmed -- I (UDP: T4): copies of the ACK are absorbed --> gone
//! ```

use std::{
    collections::{HashMap, VecDeque},
    hash::RandomState,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tombolo_wheel::{TimerId, Wheel};

mod keys;

use self::keys::{merge_key, sent_by, server_key};
pub use crate::headers::MAGIC_COOKIE;
use crate::{build::ResponseBuilder, message::Message, method::Method, uri::HostPort};

/// The base timers.
#[derive(Debug, Clone, Copy)]
pub struct Timers {
    /// Round-trip estimate.
    pub t1: Duration,
    /// Longest interval between two copies of a non-INVITE request.
    pub t2: Duration,
    /// How long a message may live in the network.
    pub t4: Duration,
}

impl Default for Timers {
    /// 500 ms, 4 s, 5 s.
    fn default() -> Self {
        Self { t1: Duration::from_millis(500), t2: Duration::from_secs(4), t4: Duration::from_secs(5) }
    }
}

impl Timers {
    /// When a transaction without a final response is given up (timer F), and how long copies of a request are
    /// answered (timer J).
    pub fn give_up(&self) -> Duration {
        self.t1 * 64
    }

    /// When timer E of the client has reached T2: the time for a 100 to a non-INVITE, not earlier (RFC 4320 §4.1). To
    /// an INVITE it is 200 ms (RFC 3261 §17.2.1).
    fn late(&self, is_invite: bool) -> Duration {
        if is_invite {
            return Duration::from_millis(200);
        }
        let (mut at, mut interval) = (Duration::ZERO, self.t1);
        while interval < self.t2 {
            at += interval;
            interval *= 2;
        }
        at
    }
}

/// Names a server transaction until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerId(pub u64);

/// What a request that came is.
#[derive(Debug)]
pub enum Incoming {
    /// A new one, to be answered by [`Transactions::respond`].
    New(ServerId),
    /// A copy of one that came before: its response, if there is one, goes out again. An ACK is absorbed, too.
    Absorbed,
    /// The same request by another way (RFC 3261 §8.2.2.2): to be answered with 482, statelessly.
    Merged,
    /// A CANCEL: to be answered with 200 when it matches a transaction, else with 481. It changes nothing (SIP-TX-09).
    Cancel {
        /// It matches.
        is_matched: bool,
    },
}

/// Something to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// The flow by which the request came that this answers, or to which a request of ours is bound; else `None`.
    pub flow: Option<u64>,
    /// The message.
    pub bytes: Bytes,
}

/// How a client transaction ended.
#[derive(Debug)]
pub enum Outcome {
    /// A final response.
    Response(Box<Message>),
    /// None came in time (timer F): counts as 408.
    Timeout,
}

#[derive(Debug)]
struct Client<T> {
    token: T,
    method: Method,
    /// To which it is bound.
    flow: Option<u64>,
    /// Host and port of the Via that we wrote.
    sent_by: Option<Box<str>>,
    /// Kept on UDP only.
    copy: Option<Bytes>,
    interval: Duration,
    is_proceeding: bool,
    is_final: bool,
    again: Option<TimerId>,
    give_up: Option<TimerId>,
}

#[derive(Debug)]
struct Server {
    key: String,
    merge_key: Option<String>,
    flow: u64,
    is_reliable: bool,
    is_invite: bool,
    /// Kept until it is answered, for a 100 that may become due.
    request: Option<Box<Message>>,
    /// What a copy of the request gets: the 100 that was sent, then the final response.
    said: Option<Bytes>,
    is_answered: bool,
    /// How long until the refusal of an INVITE goes out again (timer G).
    interval: Duration,
    /// What it was counted for in [`Transactions::server_octets`].
    octets: usize,
    /// Late, J, H or I, whichever runs.
    timer: Option<TimerId>,
    /// G.
    again: Option<TimerId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Timer {
    /// E of a client.
    Again(u64),
    /// F, then K of a client.
    GiveUp(u64),
    /// A server has not answered: time for a 100.
    Late(u64),
    /// G of a server.
    RefuseAgain(u64),
    /// J, H or I of a server.
    Gone(u64),
}

/// All transactions of one next hop. `T` is what names a request of the caller's. See the [module](self).
#[derive(Debug)]
pub struct Transactions<T> {
    timers: Timers,
    branch_prefix: String,
    next_branch: u64,
    clients: HashMap<u64, Client<T>>,
    servers: HashMap<u64, Server>,
    /// What the servers take together.
    server_octets: usize,
    next_server: u64,
    /// Keys are chosen by strangers, so their hash is keyed.
    by_key: HashMap<String, u64, RandomState>,
    by_merge_key: HashMap<String, u64, RandomState>,
    wheel: Wheel<Timer>,
    out: VecDeque<Transmit>,
    ended: VecDeque<(T, Outcome)>,
}

impl<T> Transactions<T> {
    /// None yet. `owner` is put into each branch behind the magic cookie, so that any listener can tell whose
    /// response it got; it holds token characters but no dot.
    pub fn new(owner: &str, timers: Timers, now: Instant) -> Self {
        Self {
            timers,
            branch_prefix: format!("{MAGIC_COOKIE}{owner}."),
            next_branch: 1,
            clients: HashMap::new(),
            servers: HashMap::new(),
            server_octets: 0,
            next_server: 1,
            by_key: HashMap::default(),
            by_merge_key: HashMap::default(),
            wheel: Wheel::new(now),
            out: VecDeque::new(),
            ended: VecDeque::new(),
        }
    }

    /// Numbers further transactions from above `first`: for transactions that replace others of the same hop.
    pub fn count_from(&mut self, first: u64) {
        (self.next_branch, self.next_server) = (first + 1, first + 1);
    }

    /// Takes out the requests that were not answered, each with the flow by which it came.
    pub fn take_unanswered(&mut self) -> Vec<(u64, Message)> {
        let open = self.servers.values_mut().filter(|server| !server.is_answered);
        open.filter_map(|server| Some((server.flow, *server.request.take()?))).collect()
    }

    /// The next message to be sent.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.pop_front()
    }

    /// The next request of ours that ended.
    pub fn poll_ended(&mut self) -> Option<(T, Outcome)> {
        self.ended.pop_front()
    }

    /// When [`Transactions::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.wheel.next_deadline()
    }

    /// Requests that were not answered yet, or whose copies are still answered.
    pub fn servers(&self) -> usize {
        self.servers.len()
    }

    /// Octets that these take: requests until they are answered, then the answers, and what they are known by.
    pub fn server_octets(&self) -> usize {
        self.server_octets
    }

    /// True when nothing is open.
    pub fn is_idle(&self) -> bool {
        self.clients.is_empty() && self.servers.is_empty()
    }

    /// Begins a client transaction. `render` is given the branch and makes the whole request; it is handed out by
    /// [`Transactions::poll_transmit`]. Where `flow` is named all its copies are for that flow.
    pub fn send(
        &mut self,
        token: T,
        method: Method,
        flow: Option<u64>,
        is_reliable: bool,
        now: Instant,
        render: impl FnOnce(&str) -> Vec<u8>,
    ) {
        let number = self.next_branch;
        self.next_branch += 1;
        let branch = format!("{}{number}", self.branch_prefix);
        let bytes = Bytes::from(render(&branch));
        let again = (!is_reliable).then(|| self.wheel.insert(now + self.timers.t1, Timer::Again(number)));
        let give_up = self.wheel.insert(now + self.timers.give_up(), Timer::GiveUp(number));
        self.clients.insert(
            number,
            Client {
                token,
                method,
                flow,
                sent_by: sent_by(&bytes, &branch),
                copy: (!is_reliable).then(|| bytes.clone()),
                interval: self.timers.t1,
                is_proceeding: false,
                is_final: false,
                again,
                give_up: Some(give_up),
            },
        );
        self.out.push_back(Transmit { flow, bytes });
    }

    /// Every open request of ours that `is_lost` names fails with its connection: gives their names.
    pub fn fail_clients(&mut self, is_lost: impl Fn(&T) -> bool) -> Vec<T> {
        let lost = self.clients.iter().filter(|(_, client)| !client.is_final && is_lost(&client.token));
        let numbers: Vec<u64> = lost.map(|(number, _)| *number).collect();
        numbers.into_iter().filter_map(|number| Some(self.drop_client(number)?.token)).collect()
    }

    /// A response by this hop. One that matches no open request is dropped (SIP-T-08).
    pub fn handle_response(&mut self, response: Message, now: Instant)
    where
        T: Clone,
    {
        let Some(status) = response.status() else { return };
        // More than one Via means that it is not for us (RFC 3261 §8.1.3.3).
        if response.vias().count() != 1 {
            return;
        }
        let number = response
            .top_via()
            .ok()
            .and_then(|via| via.branch()?.strip_prefix(self.branch_prefix.as_str())?.parse::<u64>().ok());
        let Some(number) = number else { return };
        let Some(client) = self.clients.get_mut(&number) else { return };
        // The method tells a response to CANCEL from one to what it cancels (RFC 3261 §17.1.3). A CSeq that cannot be
        // read ends nothing (RFC 4475 §3.1.2.5).
        if client.is_final || response.cseq().ok().is_none_or(|(_, method)| method != client.method) {
            return;
        }
        let ours = client.sent_by.as_deref().and_then(|sent_by| HostPort::parse(sent_by).ok());
        if ours.is_some_and(|ours| response.top_via().ok().is_none_or(|via| via.sent_by != ours)) {
            return;
        }
        if status < 200 {
            if !std::mem::replace(&mut client.is_proceeding, true) {
                client.interval = self.timers.t2;
            }
            return;
        }
        client.is_final = true;
        let token = client.token.clone();
        let is_datagram = client.copy.take().is_some();
        for timer in [client.again.take(), client.give_up.take()].into_iter().flatten() {
            self.wheel.cancel(timer);
        }
        if is_datagram {
            // Copies of the response are absorbed for a while (timer K).
            let timer = self.wheel.insert(now + self.timers.t4, Timer::GiveUp(number));
            if let Some(client) = self.clients.get_mut(&number) {
                client.give_up = Some(timer);
            }
        } else {
            self.clients.remove(&number);
        }
        self.ended.push_back((token, Outcome::Response(Box::new(response))));
    }

    /// True when a request is a copy of one that came before, by the same way or another.
    pub fn holds(&self, request: &Message) -> bool {
        self.by_key.contains_key(&server_key(request, request.method_text()))
            || merge_key(request).is_some_and(|merge_key| self.by_merge_key.contains_key(&merge_key))
    }

    /// A request by this hop, on `flow`.
    pub fn handle_request(
        &mut self,
        request: &Message,
        flow: u64,
        is_reliable: bool,
        now: Instant,
    ) -> Incoming {
        match request.method() {
            Some(Method::Ack) => {
                self.handle_ack(request, now);
                return Incoming::Absorbed;
            }
            Some(Method::Cancel) => {
                let is_matched = CANCELLED
                    .iter()
                    .any(|method| self.by_key.contains_key(&server_key(request, method.as_str())));
                return Incoming::Cancel { is_matched };
            }
            _ => {}
        }
        let key = server_key(request, request.method_text());
        if let Some(server) = self.by_key.get(&key).and_then(|number| self.servers.get(number)) {
            if let Some(said) = &server.said {
                self.out.push_back(Transmit { flow: Some(server.flow), bytes: said.clone() });
            }
            return Incoming::Absorbed;
        }
        let merge_key = merge_key(request);
        if merge_key.as_ref().is_some_and(|merge_key| self.by_merge_key.contains_key(merge_key)) {
            return Incoming::Merged;
        }
        let number = self.next_server;
        self.next_server += 1;
        let is_invite = request.method() == Some(&Method::Invite);
        self.by_key.insert(key.clone(), number);
        if let Some(merge_key) = &merge_key {
            self.by_merge_key.insert(merge_key.clone(), number);
        }
        let names = 2 * (key.len() + merge_key.as_ref().map_or(0, String::len)) + size_of::<Server>();
        let octets = names + request.octets();
        self.server_octets += octets;
        let server = Server {
            octets,
            key,
            merge_key,
            flow,
            is_reliable,
            is_invite,
            request: Some(Box::new(request.clone())),
            said: None,
            is_answered: false,
            interval: self.timers.t1,
            timer: Some(self.wheel.insert(now + self.timers.late(is_invite), Timer::Late(number))),
            again: None,
        };
        self.servers.insert(number, server);
        Incoming::New(ServerId(number))
    }

    /// An ACK ends the repetition of the refusal that it names.
    fn handle_ack(&mut self, ack: &Message, now: Instant) {
        let Some(number) = self.by_key.get(&server_key(ack, Method::Invite.as_str())).copied() else {
            return;
        };
        let Some(server) = self.servers.get_mut(&number).filter(|server| server.is_answered) else { return };
        // Nothing left to repeat is the confirmed state: timer I runs once.
        if server.said.take().is_none() {
            return;
        }
        for timer in [server.again.take(), server.timer.take()].into_iter().flatten() {
            self.wheel.cancel(timer);
        }
        server.timer = Some(self.wheel.insert(now + self.timers.t4, Timer::Gone(number)));
    }

    /// Answers a request. A second final answer is dropped (RFC 3261 §17.2.2), and so are 408 and provisional answers
    /// to anything but INVITE (RFC 4320 §4).
    pub fn respond(&mut self, id: ServerId, response: Vec<u8>, now: Instant) {
        let Some(server) = self.servers.get_mut(&id.0).filter(|server| !server.is_answered) else { return };
        let status = status_of(&response);
        if !server.is_invite && (status < 200 || status == 408) {
            return;
        }
        let bytes = Bytes::from(response);
        self.out.push_back(Transmit { flow: Some(server.flow), bytes: bytes.clone() });
        if let Some(timer) = server.timer.take() {
            self.wheel.cancel(timer);
        }
        server.said = Some(bytes);
        if status < 200 {
            // A provisional answer to an INVITE: the final one may be as late as it likes.
            return;
        }
        if server.is_reliable {
            // No copy will come, and an ACK is absorbed without a transaction, too.
            return self.drop_server(id.0);
        }
        server.is_answered = true;
        if let Some(request) = server.request.take() {
            let said = server.said.as_ref().map_or(0, Bytes::len);
            let octets = server.octets.saturating_sub(request.octets()) + said;
            self.server_octets = self.server_octets - server.octets + octets;
            server.octets = octets;
        }
        server.timer = Some(self.wheel.insert(now + self.timers.give_up(), Timer::Gone(id.0)));
        if server.is_invite {
            server.again = Some(self.wheel.insert(now + server.interval, Timer::RefuseAgain(id.0)));
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        for timer in self.wheel.poll_due(now, DUE_PER_TURN) {
            match timer {
                Timer::Again(number) => self.send_again(number, now),
                Timer::GiveUp(number) => {
                    if let Some(client) = self.drop_client(number)
                        && !client.is_final
                    {
                        self.ended.push_back((client.token, Outcome::Timeout));
                    }
                }
                Timer::Late(number) => self.send_trying(number, now),
                Timer::RefuseAgain(number) => self.refuse_again(number, now),
                Timer::Gone(number) => self.drop_server(number),
            }
        }
    }

    fn send_again(&mut self, number: u64, now: Instant) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let Some(copy) = client.copy.clone() else { return };
        client.interval = (client.interval * 2).min(self.timers.t2);
        client.again = Some(self.wheel.insert(now + client.interval, Timer::Again(number)));
        self.out.push_back(Transmit { flow: client.flow, bytes: copy });
    }

    /// Nobody answered yet: the client is told that we are here. A request that is never answered is forgotten when the
    /// client gave up; 408 is never sent (RFC 4320 §4.2).
    fn send_trying(&mut self, number: u64, now: Instant) {
        let Some(server) = self.servers.get_mut(&number) else { return };
        let left = self.timers.give_up().saturating_sub(self.timers.late(server.is_invite));
        server.timer = Some(self.wheel.insert(now + left, Timer::Gone(number)));
        let Some(request) = server.request.take() else { return };
        let Ok(trying) = ResponseBuilder::to(&request, 100, None) else { return };
        let bytes = Bytes::from(trying.render());
        server.said = Some(bytes.clone());
        self.out.push_back(Transmit { flow: Some(server.flow), bytes });
    }

    fn refuse_again(&mut self, number: u64, now: Instant) {
        let Some(server) = self.servers.get_mut(&number) else { return };
        let Some(bytes) = server.said.clone() else { return };
        server.interval = (server.interval * 2).min(self.timers.t2);
        server.again = Some(self.wheel.insert(now + server.interval, Timer::RefuseAgain(number)));
        self.out.push_back(Transmit { flow: Some(server.flow), bytes });
    }

    fn drop_client(&mut self, number: u64) -> Option<Client<T>> {
        let client = self.clients.remove(&number)?;
        for timer in [client.again, client.give_up].into_iter().flatten() {
            self.wheel.cancel(timer);
        }
        Some(client)
    }

    fn drop_server(&mut self, number: u64) {
        let Some(server) = self.servers.remove(&number) else { return };
        self.server_octets -= server.octets;
        self.by_key.remove(&server.key);
        if let Some(merge_key) = server.merge_key {
            self.by_merge_key.remove(&merge_key);
        }
        for timer in [server.timer, server.again].into_iter().flatten() {
            self.wheel.cancel(timer);
        }
    }
}

/// The status of a response of ours; what has none counts as final.
fn status_of(response: &[u8]) -> u16 {
    let digits = response.strip_prefix(b"SIP/2.0 ").and_then(|rest| rest.get(..3));
    digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(200)
}

/// What a CANCEL may name (any method but ACK and CANCEL, RFC 3261 §9.1).
const CANCELLED: [Method; 7] = [
    Method::Invite,
    Method::Subscribe,
    Method::Message,
    Method::Publish,
    Method::Notify,
    Method::Register,
    Method::Options,
];

/// Timers that fire in one turn at most.
const DUE_PER_TURN: usize = 256;

#[cfg(test)]
mod tests;
