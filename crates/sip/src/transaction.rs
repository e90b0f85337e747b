//! Transactions of one next hop (RFC 3261 §17, RFC 4320, RFC 6026 as far as refusals of INVITE need it).
//!
//! Messages and `now` go in; what to send, outcomes and one deadline come out. On reliable transports nothing is kept
//! of a message that was sent; on UDP it is, to be sent again. Pipelined NOTIFYs on reliable transports are no
//! transactions here: their dialogs keep all that is needed.
//!
//! ```text
//! client  trying -- E: again (UDP) --> trying,  F: timeout,  1xx: proceeding (E = T2),  2xx-6xx: final
//!         final  -- K (UDP: T4): copies of the response are absorbed -->  gone         §17.1.2
//! server  trying -- final response --> completed -- J (UDP: 64*T1): copies get the response --> gone   §17.2.2
//! ```

use std::{
    collections::{HashMap, VecDeque},
    hash::RandomState,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tombolo_wheel::{TimerId, Wheel};

use crate::{message::Message, method::Method};

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

    /// When timer E of the client has reached T2: the earliest time for a 100 to a non-INVITE (RFC 4320 §4.1).
    fn late(&self) -> Duration {
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
    /// The flow by which the request came that this answers; `None` for a request of ours.
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
    trying: Option<Bytes>,
    response: Option<Bytes>,
    timer: Option<TimerId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Timer {
    Again(u64),
    GiveUp(u64),
    Late(u64),
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
            next_server: 1,
            by_key: HashMap::default(),
            by_merge_key: HashMap::default(),
            wheel: Wheel::new(now),
            out: VecDeque::new(),
            ended: VecDeque::new(),
        }
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

    /// Requests of ours without a final response.
    pub fn open_clients(&self) -> usize {
        self.clients.values().filter(|client| !client.is_final).count()
    }

    /// Requests that were not answered yet, or whose copies are still answered.
    pub fn servers(&self) -> usize {
        self.servers.len()
    }

    /// True when nothing is open.
    pub fn is_idle(&self) -> bool {
        self.clients.is_empty() && self.servers.is_empty()
    }

    /// Begins a client transaction. `render` is given the branch and makes the whole request; it is handed out by
    /// [`Transactions::poll_transmit`].
    pub fn send(
        &mut self,
        token: T,
        method: Method,
        is_reliable: bool,
        now: Instant,
        render: impl FnOnce(&str) -> Vec<u8>,
    ) {
        let number = self.next_branch;
        self.next_branch += 1;
        let bytes = Bytes::from(render(&format!("{}{number}", self.branch_prefix)));
        let again = (!is_reliable).then(|| self.wheel.insert(now + self.timers.t1, Timer::Again(number)));
        let give_up = self.wheel.insert(now + self.timers.give_up(), Timer::GiveUp(number));
        self.clients.insert(
            number,
            Client {
                token,
                method,
                copy: (!is_reliable).then(|| bytes.clone()),
                interval: self.timers.t1,
                is_proceeding: false,
                is_final: false,
                again,
                give_up: Some(give_up),
            },
        );
        self.out.push_back(Transmit { flow: None, bytes });
    }

    /// Every open request of ours fails with the connection: gives their names.
    pub fn fail_clients(&mut self) -> Vec<T> {
        let numbers: Vec<u64> =
            self.clients.iter().filter(|(_, client)| !client.is_final).map(|(number, _)| *number).collect();
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
        // The method tells a response to CANCEL from one to what it cancels (RFC 3261 §17.1.3).
        if client.is_final || response.cseq().is_ok_and(|(_, method)| method != client.method) {
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

    /// A request by this hop, on `flow`.
    pub fn handle_request(
        &mut self,
        request: &Message,
        flow: u64,
        is_reliable: bool,
        now: Instant,
    ) -> Incoming {
        let method = request.method_text();
        let key = server_key(request, method);
        match request.method() {
            Some(Method::Ack) => return Incoming::Absorbed,
            Some(Method::Cancel) => {
                let is_matched =
                    ["INVITE", "SUBSCRIBE", "MESSAGE", "PUBLISH", "NOTIFY", "REGISTER", "OPTIONS"]
                        .iter()
                        .any(|method| self.by_key.contains_key(&server_key(request, method)));
                return Incoming::Cancel { is_matched };
            }
            _ => {}
        }
        if let Some(server) = self.by_key.get(&key).and_then(|number| self.servers.get(number)) {
            if let Some(response) = server.response.as_ref().or(server.trying.as_ref()) {
                let transmit = Transmit { flow: Some(server.flow), bytes: response.clone() };
                self.out.push_back(transmit);
            }
            return Incoming::Absorbed;
        }
        let merge_key = merge_key(request);
        if merge_key.as_ref().is_some_and(|merge_key| self.by_merge_key.contains_key(merge_key)) {
            return Incoming::Merged;
        }
        let number = self.next_server;
        self.next_server += 1;
        let trying = (!is_reliable)
            .then(|| crate::build::ResponseBuilder::to(request, 100, None).ok())
            .flatten()
            .map(|builder| Bytes::from(builder.render()));
        let timer = (!is_reliable).then(|| self.wheel.insert(now + self.timers.late(), Timer::Late(number)));
        self.by_key.insert(key.clone(), number);
        if let Some(merge_key) = &merge_key {
            self.by_merge_key.insert(merge_key.clone(), number);
        }
        let server = Server { key, merge_key, flow, is_reliable, trying: None, response: None, timer };
        self.servers.insert(number, server);
        // The 100 is kept aside until it is late enough to send it.
        if let (Some(server), Some(trying)) = (self.servers.get_mut(&number), trying) {
            server.trying = Some(trying);
        }
        Incoming::New(ServerId(number))
    }

    /// Answers a request. A second answer is dropped (RFC 3261 §17.2.2).
    pub fn respond(&mut self, id: ServerId, response: Vec<u8>, now: Instant) {
        let Some(server) = self.servers.get_mut(&id.0).filter(|server| server.response.is_none()) else {
            return;
        };
        let bytes = Bytes::from(response);
        self.out.push_back(Transmit { flow: Some(server.flow), bytes: bytes.clone() });
        if let Some(timer) = server.timer.take() {
            self.wheel.cancel(timer);
        }
        if server.is_reliable {
            self.drop_server(id.0);
            return;
        }
        server.response = Some(bytes);
        server.trying = None;
        server.timer = Some(self.wheel.insert(now + self.timers.give_up(), Timer::Gone(id.0)));
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
                Timer::Gone(number) => self.drop_server(number),
            }
        }
    }

    fn send_again(&mut self, number: u64, now: Instant) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let Some(copy) = client.copy.clone() else { return };
        client.interval = (client.interval * 2).min(self.timers.t2);
        client.again = Some(self.wheel.insert(now + client.interval, Timer::Again(number)));
        self.out.push_back(Transmit { flow: None, bytes: copy });
    }

    /// Nobody answered yet: the client may stop sending so often. A request that is never answered is forgotten when
    /// the client gave up; 408 is never sent (RFC 4320 §4.2).
    fn send_trying(&mut self, number: u64, now: Instant) {
        let left = self.timers.give_up().saturating_sub(self.timers.late());
        let Some(server) = self.servers.get_mut(&number) else { return };
        server.timer = Some(self.wheel.insert(now + left, Timer::Gone(number)));
        if let Some(trying) = server.trying.clone() {
            self.out.push_back(Transmit { flow: Some(server.flow), bytes: trying });
        }
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
        self.by_key.remove(&server.key);
        if let Some(merge_key) = server.merge_key {
            self.by_merge_key.remove(&merge_key);
        }
        if let Some(timer) = server.timer {
            self.wheel.cancel(timer);
        }
    }
}

/// What tells a server transaction (RFC 3261 §17.2.3); without the magic cookie the old rules hold.
fn server_key(request: &Message, method: &str) -> String {
    let via = request.top_via().ok();
    let branch = via.and_then(|via| via.branch()).unwrap_or_default();
    let sent_by = via.map(|via| via.sent_by.to_string().to_ascii_lowercase()).unwrap_or_default();
    if let Some(branch) = branch
        .get(..MAGIC_COOKIE.len())
        .filter(|start| start.eq_ignore_ascii_case(MAGIC_COOKIE))
        .map(|_| branch)
    {
        return format!("{branch}\n{sent_by}\n{method}");
    }
    let tag = |name: Result<crate::headers::NameAddr<'_>, _>| {
        name.ok().and_then(|name| name.tag().map(ToOwned::to_owned)).unwrap_or_default()
    };
    format!(
        "{}\n{}\n{}\n{}\n{:?}\n{}\n{method}",
        request.request_uri_text(),
        tag(request.to()),
        tag(request.from()),
        request.call_id().unwrap_or_default(),
        request.cseq().map(|(number, _)| number).ok(),
        request.vias().next().unwrap_or_default(),
    )
}

/// What tells two copies of one request that came by two ways; `None` inside a dialog.
fn merge_key(request: &Message) -> Option<String> {
    if request.to().ok()?.tag().is_some() {
        return None;
    }
    let from = request.from().ok()?;
    let (number, method) = request.cseq().ok()?;
    Some(format!("{}\n{}\n{number}\n{}", from.tag()?, request.call_id().ok()?, method.as_str()))
}

/// What every branch of RFC 3261 begins with.
pub const MAGIC_COOKIE: &str = "z9hG4bK";

/// Timers that fire in one turn at most.
const DUE_PER_TURN: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{MessageLimits, read_datagram};

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        Instant::now()
    }

    fn message(text: String) -> Message {
        read_datagram(Bytes::from(text), &MessageLimits::default()).expect("legal")
    }

    fn request(branch: &str, to_tag: &str) -> Message {
        message(format!(
            "MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h:5060;branch={branch}\r\nFrom: <sip:x@y>;tag=f\r\n\
             To: <sip:a@b>{to_tag}\r\nCall-ID: c\r\nCSeq: 1 MESSAGE\r\n\r\n"
        ))
    }

    fn response(branch: &str, status: u16) -> Message {
        message(format!(
            "SIP/2.0 {status} x\r\nVia: SIP/2.0/UDP h;branch={branch}\r\nFrom: <sip:x@y>;tag=f\r\n\
             To: <sip:a@b>;tag=t\r\nCall-ID: c\r\nCSeq: 1 MESSAGE\r\n\r\n"
        ))
    }

    fn transactions() -> (Transactions<u32>, Instant) {
        let now = start();
        (Transactions::new("p1", Timers::default(), now), now)
    }

    fn sent(transactions: &mut Transactions<u32>) -> usize {
        std::iter::from_fn(|| transactions.poll_transmit()).count()
    }

    #[test]
    fn sip_tx_01_a_silent_udp_peer_is_sent_to_eleven_times() {
        let (mut transactions, begun) = transactions();
        transactions.send(7, Method::Message, false, begun, |branch| branch.as_bytes().to_vec());
        let mut at = Vec::new();
        let mut now = begun;
        at.extend(std::iter::repeat_n(0, sent(&mut transactions)));
        while let Some(next) = transactions.poll_timeout() {
            now = next.max(now);
            transactions.handle_timeout(now);
            at.extend(std::iter::repeat_n((now - begun).as_millis() as u64, sent(&mut transactions)));
            if let Some((token, outcome)) = transactions.poll_ended() {
                assert!(token == 7 && matches!(outcome, Outcome::Timeout));
                assert_eq!((now - begun).as_secs(), 32);
            }
        }
        assert_eq!(at, [0, 500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500]);
    }

    #[test]
    fn sip_tx_01_a_reliable_peer_is_sent_to_once() {
        let (mut transactions, now) = transactions();
        transactions.send(7, Method::Message, true, now, |branch| branch.as_bytes().to_vec());
        transactions.handle_timeout(now + Duration::from_secs(31));
        assert_eq!(sent(&mut transactions), 1);
        transactions.handle_timeout(now + Duration::from_secs(33));
        assert!(matches!(transactions.poll_ended(), Some((7, Outcome::Timeout))));
        assert!(transactions.is_idle());
    }

    #[test]
    fn sip_tx_03_only_a_response_with_our_branch_and_method_ends_a_request() {
        let (mut transactions, now) = transactions();
        let mut branch = String::new();
        transactions.send(7, Method::Message, true, now, |b| {
            branch = b.to_owned();
            Vec::new()
        });
        assert!(branch.starts_with("z9hG4bKp1."));
        transactions.handle_response(response("z9hG4bKother", 200), now);
        transactions.handle_response(response(&branch, 100), now);
        assert!(transactions.poll_ended().is_none());
        transactions.handle_response(response(&branch, 200), now);
        assert!(matches!(transactions.poll_ended(), Some((7, Outcome::Response(_)))));
        transactions.handle_response(response(&branch, 200), now);
        assert!(transactions.poll_ended().is_none(), "a copy ends nothing twice");
    }

    #[test]
    fn sip_tx_02_a_copy_gets_the_same_response_for_64_t1_on_udp() {
        let (mut transactions, now) = transactions();
        let Incoming::New(id) = transactions.handle_request(&request("z9hG4bKa", ""), 1, false, now) else {
            panic!("it is new");
        };
        transactions.respond(id, b"one".to_vec(), now);
        transactions.respond(id, b"two".to_vec(), now);
        assert_eq!(sent(&mut transactions), 1);
        let copy = transactions.handle_request(&request("z9hG4bKa", ""), 1, false, now);
        assert!(matches!(copy, Incoming::Absorbed));
        assert_eq!(transactions.poll_transmit().map(|t| t.bytes), Some(Bytes::from_static(b"one")));
        transactions.handle_timeout(now + Duration::from_secs(33));
        assert!(transactions.is_idle());
    }

    #[test]
    fn sip_tx_05_sip_tx_06_a_slow_answer_gets_one_100_when_e_reaches_t2_and_never_408() {
        let (mut transactions, now) = transactions();
        transactions.handle_request(&request("z9hG4bKa", ""), 1, false, now);
        transactions.handle_timeout(now + Duration::from_millis(3400));
        assert_eq!(sent(&mut transactions), 0);
        transactions.handle_timeout(now + Duration::from_millis(3510));
        let trying = transactions.poll_transmit().expect("a 100");
        assert!(trying.bytes.starts_with(b"SIP/2.0 100 "));
        transactions.handle_timeout(now + Duration::from_secs(40));
        assert_eq!(sent(&mut transactions), 0);
        assert!(transactions.is_idle());
    }

    #[test]
    fn sip_tx_10_the_same_request_by_another_way_is_merged() {
        let (mut transactions, now) = transactions();
        transactions.handle_request(&request("z9hG4bKa", ""), 1, false, now);
        let merged = transactions.handle_request(&request("z9hG4bKb", ""), 1, false, now);
        assert!(matches!(merged, Incoming::Merged));
        let in_dialog = transactions.handle_request(&request("z9hG4bKc", ";tag=t"), 1, false, now);
        assert!(matches!(in_dialog, Incoming::New(_)));
    }

    #[test]
    fn sip_tx_09_a_cancel_matches_or_not_and_changes_nothing() {
        let (mut transactions, now) = transactions();
        transactions.handle_request(&request("z9hG4bKa", ""), 1, false, now);
        let cancel = |branch: &str| {
            message(format!(
                "CANCEL sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h:5060;branch={branch}\r\nFrom: <sip:x@y>;tag=f\r\n\
                 To: <sip:a@b>\r\nCall-ID: c\r\nCSeq: 1 CANCEL\r\n\r\n"
            ))
        };
        let matched = transactions.handle_request(&cancel("z9hG4bKa"), 1, false, now);
        assert!(matches!(matched, Incoming::Cancel { is_matched: true }));
        let unmatched = transactions.handle_request(&cancel("z9hG4bKz"), 1, false, now);
        assert!(matches!(unmatched, Incoming::Cancel { is_matched: false }));
        assert_eq!(transactions.servers(), 1);
    }

    #[test]
    fn sip_x_07_requests_of_rfc_2543_are_matched_by_the_old_rules() {
        let (mut transactions, now) = transactions();
        let first = transactions.handle_request(&request("old", ";tag=t"), 1, false, now);
        assert!(matches!(first, Incoming::New(_)));
        let copy = transactions.handle_request(&request("old", ";tag=t"), 1, false, now);
        assert!(matches!(copy, Incoming::Absorbed));
    }
}
