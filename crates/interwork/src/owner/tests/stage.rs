//! A shard with a scripted surrounding: what it asks for is done at once, and what it says is gathered.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tombolo_policy::{
    Approve, FrontEnd, Home, LocalDomain, NextHop, Partner, PartnerKind, SipTransport, Table,
};
use tombolo_presence::{Address, Boot, Domain, LifetimeClock, Now};
use tombolo_sip::message::{Message, MessageLimits, read_datagram};
use tombolo_xmpp::stream::ReceivedStanza;

use crate::{
    error::NoResponse,
    owner::{
        Accounts, Input, LaneKey, MessageId, Numbers, Output, Owner, OwnerEvent, OwnerSettings, PeerKey,
        PeerWay, PhoneKey, ReplyTo, RequestId, SipRequest,
    },
    request::RequestDraft,
    rows::Row,
    token::TokenKey,
};

/// The built-in home.
pub const HOME: &str = "sip.example";
/// The domain behind a front end.
pub const CORP: &str = "corp.example";
pub const ROMEO: &str = "romeo@sip.example";
pub const BENVOLIO: &str = "benvolio@corp.example";
pub const JULIET: &str = "juliet@xmpp.example";
pub const NURSE: &str = "nurse@xmpp.example";

/// What the shard's surrounding does by itself.
pub struct Stage {
    /// Which start of the process it is.
    start: u32,
    accounts: HashMap<Address, Approve>,
    table: Arc<Table>,
    /// The next start finds every row.
    pub loses_no_row: bool,
    /// Which boot of the machine this is, and when it was; `None` where it does not tell.
    pub boot: Option<(u128, std::time::Instant)>,
    /// What the wall clock shows at the next start, if it is stepped.
    pub wall_at_next_start: Option<Duration>,
    pub owner: Owner,
    pub now: Now,
    /// Stanzas that left, in order.
    pub stanzas: VecDeque<String>,
    /// NOTIFYs that left, in order; not answered unless [`Stage::answers_notify`].
    pub notifies: VecDeque<Message>,
    /// Responses that left.
    pub responses: VecDeque<Message>,
    /// Requests of ours that wait for their outcome.
    pub requests: VecDeque<(PeerKey, RequestId, Box<RequestDraft>)>,
    /// Messages for phones of the built-in home.
    pub deliveries: VecDeque<(MessageId, Box<RequestDraft>)>,
    /// Message stanzas with an id, whose fate is told as written at once.
    pub rows: HashMap<(u16, u8, Vec<u8>), Vec<u8>>,
    pub asked_to_decide: Vec<(String, String)>,
    /// Peers whose notes were cut for want of a stream.
    pub wants_stream: Vec<PeerKey>,
    pub answers_notify: Option<u16>,
    /// The store answers at once; else [`Stage::settle_store`] does.
    pub stores_at_once: bool,
    pub unsettled: VecDeque<crate::owner::PersistToken>,
    /// Sessions are connected: their wishes are granted.
    pub is_connected: bool,
    /// Wishes that were not granted.
    pub wanting: Vec<LaneKey>,
    /// Phones without a connection: nobody hears a wish for them.
    pub away: Vec<PeerKey>,
    /// Phones to which NOTIFYs are written and do not arrive.
    pub deaf: HashSet<PeerKey>,
    pub writes_messages: bool,
    /// Message stanzas are kept in [`Stage::kept_messages`], as a session without a stream does.
    pub keeps_messages: bool,
    pub kept_messages: Vec<Bytes>,
    /// What was to be counted.
    pub events: Vec<OwnerEvent>,
    /// Messages that are not to leave any more.
    pub withdrawn: Vec<MessageId>,
    pub reports: Vec<crate::owner::Report>,
    /// Whom each decision concerned.
    pub decided: Vec<Vec<String>>,
    /// Front ends that did not know a dialog.
    pub forgotten: Vec<PeerKey>,
    pub suspected: Vec<PeerKey>,
    /// By what peers speak and are reached.
    pub way: PeerWay,
    next_reply: u64,
    next_cseq: u32,
}

pub fn address(text: &str) -> Address {
    Address::from_prepared(text).expect("a prepared address")
}

pub fn domain(text: &str) -> Domain {
    Domain::from_prepared(text).expect("a prepared domain")
}

pub fn front_end() -> PeerKey {
    PeerKey::FrontEnd(domain(CORP))
}

/// The phones of the stage.
fn phones() -> [PeerKey; 3] {
    [phone_of(ROMEO, "a"), phone_of(ROMEO, "b"), phone_of("mercutio@sip.example", "m")]
}

pub fn phone_of(aor: &str, instance: &str) -> PeerKey {
    PeerKey::Phone(Arc::new(PhoneKey { aor: address(aor), instance: instance.into() }))
}

pub fn table(partner: impl FnOnce(&mut Partner)) -> Arc<Table> {
    let mut entry = Partner { kind: PartnerKind::Federated, ..Partner::new(domain("xmpp.example")) };
    partner(&mut entry);
    let corp = FrontEnd {
        next_hop: NextHop {
            host: "127.0.0.31".into(),
            port: Some(5060),
            transport: SipTransport::Tcp,
            is_transport_named: true,
        },
        insecure: true,
        trusted_addresses: vec![],
    };
    let locals = vec![
        LocalDomain { name: domain(HOME), home: Home::BuiltIn },
        LocalDomain { name: domain(CORP), home: Home::FrontEnd(corp) },
    ];
    Arc::new(Table::new(1, locals, vec![entry]).expect("no conflict"))
}

pub fn epoch() -> Now {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
    let instant = std::time::Instant::now();
    Now { instant, wall: Duration::from_secs(1_800_000_000) }
}

pub fn way() -> PeerWay {
    PeerWay {
        is_reliable: true,
        takes_large: true,
        via: "SIP/2.0/TCP 127.0.0.1:5060".into(),
        contact: "127.0.0.1:5060;transport=tcp".into(),
    }
}

/// By datagrams.
pub fn datagram_way() -> PeerWay {
    PeerWay {
        is_reliable: false,
        takes_large: false,
        via: "SIP/2.0/UDP 127.0.0.1:5060".into(),
        contact: "127.0.0.1:5060;transport=udp".into(),
    }
}

impl Stage {
    /// A federated partner; romeo grants partners without being asked.
    pub fn new() -> Self {
        Self::with(Approve::Partner, |_| {})
    }

    pub fn with(approve: Approve, partner: impl FnOnce(&mut Partner)) -> Self {
        Self::started(1, approve, table(partner), epoch(), Vec::new())
    }

    pub fn public(approve: Approve, kind: PartnerKind) -> Self {
        Self::with(approve, |partner| partner.kind = kind)
    }

    pub fn started(start: u32, approve: Approve, table: Arc<Table>, now: Now, rows: Vec<Row>) -> Self {
        let mut stage = Self::started_alone(start, approve, table, now, rows);
        for peer in phones() {
            stage.comes_back(&peer);
        }
        stage
    }

    /// A shard that no phone reached yet.
    pub fn started_alone(start: u32, approve: Approve, table: Arc<Table>, now: Now, rows: Vec<Row>) -> Self {
        let accounts = [ROMEO, "mercutio@sip.example"].map(|aor| (address(aor), approve));
        Self::started_for(start, accounts.into(), table, now, rows, true, None, None)
    }

    #[expect(clippy::too_many_arguments, reason = "a start is what all of these make together")]
    fn started_for(
        start: u32,
        accounts: HashMap<Address, Approve>,
        table: Arc<Table>,
        now: Now,
        rows: Vec<Row>,
        knows_all_grants: bool,
        lifetimes: Option<LifetimeClock>,
        dead: Option<Numbers>,
    ) -> Self {
        let mut settings = OwnerSettings::new(TokenKey::new(&[9; 32]), start, 42 + 2 * u64::from(start));
        settings.knows_all_grants = knows_all_grants;
        settings.lifetimes = lifetimes;
        settings.watcher_interval = Duration::ZERO;
        // The spans that the tests wait for go by this.
        settings.confirm_after = Duration::from_secs(90);
        let mut owner = Owner::new(settings, table.clone(), now);
        owner.handle(Input::Accounts(Arc::new(Accounts { approve: accounts.clone() })), now);
        if let Some(numbers) = dead {
            owner.continue_from(numbers);
        }
        let stored = rows.iter().map(|row| {
            let value = row.value.clone().expect("a row that is stored");
            ((row.partition, row.table, row.key.clone()), value)
        });
        let stored = stored.collect();
        let unread = owner.load(rows, now);
        assert_eq!(unread, 0, "every stored row is read");
        let mut stage = Self {
            start,
            accounts,
            table,
            loses_no_row: true,
            boot: None,
            wall_at_next_start: None,
            owner,
            now,
            stanzas: VecDeque::new(),
            notifies: VecDeque::new(),
            responses: VecDeque::new(),
            requests: VecDeque::new(),
            deliveries: VecDeque::new(),
            rows: stored,
            asked_to_decide: Vec::new(),
            wants_stream: Vec::new(),
            answers_notify: Some(200),
            stores_at_once: true,
            unsettled: VecDeque::new(),
            is_connected: true,
            wanting: Vec::new(),
            away: phones().into(),
            deaf: HashSet::new(),
            writes_messages: true,
            keeps_messages: false,
            kept_messages: Vec::new(),
            events: Vec::new(),
            withdrawn: Vec::new(),
            reports: Vec::new(),
            decided: Vec::new(),
            forgotten: Vec::new(),
            suspected: Vec::new(),
            way: way(),
            next_reply: 1,
            next_cseq: 1,
        };
        stage.comes_back(&front_end());
        stage
    }

    /// The peer is reached from now on.
    pub fn comes_back(&mut self, peer: &PeerKey) {
        self.away.retain(|away| away != peer);
        self.input(Input::PeerChanged { peer: peer.clone(), way: Some(self.way.clone()) });
    }

    /// The phone's connection ended: what is said to it is not heard.
    pub fn goes_away(&mut self, phone: &PeerKey) {
        self.away.push(phone.clone());
        self.input(Input::PeerChanged { peer: phone.clone(), way: None });
    }

    /// The same shard after `kill -9`, from what is stored.
    pub fn killed_and_started_again(self, later: Duration) -> Self {
        let mut again = self.killed_and_started_alone(later);
        for peer in phones() {
            again.comes_back(&peer);
        }
        again
    }

    /// The same, before any phone is back.
    pub fn killed_and_started_alone(self, later: Duration) -> Self {
        let rows = self.stored_rows();
        let now = self.now.after(later);
        let mark = self.owner.lifetimes.mark(self.boot(self.now), self.now);
        let wall = self.wall_at_next_start.unwrap_or(now.wall);
        let begin = Now { wall, ..now };
        let lifetimes = LifetimeClock::resumed(Some(mark), self.boot(begin), begin);
        let (boot, loses_no_row) = (self.boot, self.loses_no_row);
        let mut again = Self::started_for(
            self.start + 1,
            self.accounts,
            self.table,
            begin,
            rows,
            loses_no_row,
            Some(lifetimes),
            None,
        );
        again.boot = boot;
        again
    }

    /// The same shard after its machine panicked: loaded again in the same life of the process. Peers are met again.
    pub fn panicked_and_rebuilt(self) -> Self {
        let (rows, numbers) = (self.stored_rows(), self.owner.numbers());
        let now = self.now.after(Duration::from_secs(1));
        let mut again = Self::started_for(
            self.start,
            self.accounts,
            self.table,
            now,
            rows,
            self.loses_no_row,
            None,
            Some(numbers),
        );
        // Peers and phones go on counting.
        (again.next_reply, again.next_cseq) = (self.next_reply, self.next_cseq);
        for peer in phones() {
            again.comes_back(&peer);
        }
        again
    }

    fn stored_rows(&self) -> Vec<Row> {
        self.rows
            .iter()
            .map(|((partition, table, key), value)| Row {
                partition: *partition,
                table: *table,
                key: key.clone(),
                value: Some(value.clone()),
            })
            .collect()
    }

    /// The machine's boot, where the stage has one.
    fn boot(&self, now: Now) -> Option<Boot> {
        let (id, at) = self.boot?;
        Some(Boot { id, seconds: now.instant.saturating_duration_since(at).as_secs() })
    }

    /// The accounts of the built-in home from now on.
    pub fn accounts_are(&mut self, accounts: &[(&str, Approve)]) {
        self.will_have_accounts(accounts);
        self.input(Input::Accounts(Arc::new(Accounts { approve: self.accounts.clone() })));
    }

    /// The accounts that the next start finds.
    pub fn will_have_accounts(&mut self, accounts: &[(&str, Approve)]) {
        self.accounts = accounts.iter().map(|(aor, approve)| (address(aor), *approve)).collect();
    }

    /// What holds of the partner from now on.
    pub fn partner_is(&mut self, partner: impl FnOnce(&mut Partner)) {
        self.will_have_partner(partner);
        self.input(Input::Policy(self.table.clone()));
    }

    /// What the next start finds of the partner.
    pub fn will_have_partner(&mut self, partner: impl FnOnce(&mut Partner)) {
        self.table = table(partner);
    }

    pub fn input(&mut self, input: Input) {
        self.owner.handle(input, self.now);
        self.drain();
    }

    pub fn wait(&mut self, span: Duration) {
        let end = self.now.after(span);
        while let Some(next) = self.owner.poll_timeout().filter(|next| *next <= end.instant) {
            let step = next.saturating_duration_since(self.now.instant);
            self.now = self.now.after(step.max(Duration::from_millis(1)));
            self.owner.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
        self.owner.handle_timeout(self.now);
        self.drain();
    }

    /// Lets the time pass until a request of ours is open: at most `most`.
    pub fn wait_for_request(&mut self, most: Duration) {
        let end = self.now.after(most);
        while self.requests.is_empty() {
            let next =
                self.owner.poll_timeout().filter(|next| *next <= end.instant).expect("a request in time");
            self.wait(next.saturating_duration_since(self.now.instant).max(Duration::from_millis(1)));
        }
    }

    pub fn drain(&mut self) {
        let mut turns = 0_u32;
        while let Some(output) = self.owner.poll_output() {
            turns += 1;
            assert!(turns < 100_000, "it never comes to rest: {output:?}");
            match output {
                Output::Want { lane, .. } => {
                    let is_heard = match &lane {
                        LaneKey::Peer(peer) => !self.away.contains(peer),
                        LaneKey::Session { .. } => self.is_connected,
                    };
                    if is_heard {
                        self.owner.handle(Input::Credit { lane, bytes: 65_536 }, self.now);
                    } else if matches!(lane, LaneKey::Session { .. }) {
                        self.wanting.push(lane);
                    }
                }
                Output::Stanzas { bytes, .. } => self.stanzas.extend(split_stanzas(&bytes)),
                Output::Message { message, bytes, .. } => {
                    self.stanzas.push_back(String::from_utf8(bytes.to_vec()).expect("UTF-8"));
                    self.kept_messages.extend(self.keeps_messages.then_some(bytes));
                    if let Some(message) = message.filter(|_| self.writes_messages) {
                        self.owner.handle(Input::MessageFate { message, fate: Ok(()) }, self.now);
                    }
                }
                Output::Withdraw { message, .. } => self.withdrawn.push(message),
                Output::Notifies { peer, .. } if self.deaf.contains(&peer) => {}
                Output::Notifies { peer, bytes, .. } => self.take_notifies(peer, &bytes),
                Output::Respond { bytes, .. } => self.responses.push_back(message(&bytes)),
                Output::Request { peer, request, draft } => self.requests.push_back((peer, request, draft)),
                Output::Deliver { message, draft, .. } => self.deliveries.push_back((message, draft)),
                Output::Persist { token, rows, .. } => {
                    if !self.stores_at_once {
                        self.unsettled.push_back(token);
                    }
                    for row in rows {
                        let key = (row.partition, row.table, row.key);
                        match row.value {
                            Some(value) => drop(self.rows.insert(key, value)),
                            None => drop(self.rows.remove(&key)),
                        }
                    }
                    if self.stores_at_once {
                        self.owner.handle(Input::Persisted { token, is_stored: true }, self.now);
                    }
                }
                Output::MustDecide { user, watcher } => {
                    self.asked_to_decide.push((user.to_string(), watcher.to_string()));
                }
                Output::Report { report, .. } => self.reports.push(report),
                Output::Decided { watchers, .. } => {
                    self.decided.push(watchers.iter().map(ToString::to_string).collect());
                }
                Output::Event(event) => self.events.push(event),
                Output::PartnerPairs { .. } => {}
                Output::Forgotten { peer } => self.forgotten.push(peer),
                Output::Suspect { peer } => self.suspected.push(peer),
                Output::WantStream { peer } => self.wants_stream.push(peer),
            }
        }
    }

    pub fn settle_store(&mut self, is_stored: bool) {
        while let Some(token) = self.unsettled.pop_front() {
            self.input(Input::Persisted { token, is_stored });
        }
    }

    fn take_notifies(&mut self, peer: PeerKey, bytes: &[u8]) {
        let peers: Arc<[PeerKey]> = Arc::new([peer]);
        let mut framer = tombolo_sip::framer::StreamFramer::new(MessageLimits::default());
        framer.push(bytes);
        while let Ok(Some(tombolo_sip::framer::Frame::Message(notify))) = framer.next_frame() {
            let answer = self.answer_to(&notify);
            self.notifies.push_back(*notify);
            if let Some(answer) = answer {
                let peers = peers.clone();
                self.owner.handle(Input::NotifyAnswers { peers, answers: vec![answer] }, self.now);
            }
        }
    }

    /// An answer comes by a flow of these peers.
    pub fn answer_comes(&mut self, peers: &[PeerKey], answer: crate::owner::NotifyAnswer) {
        self.input(Input::NotifyAnswers { peers: peers.into(), answers: vec![answer] });
    }

    pub fn answer_to(&self, notify: &Message) -> Option<crate::owner::NotifyAnswer> {
        let status = self.answers_notify?;
        let via = notify.top_via().expect("a Via");
        let (token, cseq) = via
            .branch()
            .and_then(|branch| branch.strip_prefix(crate::owner::NOTIFY_BRANCH))
            .and_then(|rest| rest.split_once('.'))
            .expect("our branch");
        let key = TokenKey::new(&[9; 32]);
        let token = key.verify(token).expect("our token");
        Some(crate::owner::NotifyAnswer {
            partition: token.partition,
            row: token.row,
            mac: key.mac(token),
            cseq: cseq.parse().expect("a number"),
            status,
            retry_after: None,
        })
    }

    /// A stanza from the partner.
    pub fn xmpp_says(&mut self, stanza: &str) {
        self.input(Input::Stanzas(vec![received(stanza)]));
    }

    pub fn presence(&mut self, from: &str, to: &str, kind: &str, inner: &str) {
        let kind = if kind.is_empty() { String::new() } else { format!(" type='{kind}'") };
        self.xmpp_says(&format!("<presence from='{from}' to='{to}'{kind}>{inner}</presence>"));
    }

    /// A request from a peer; gives its number for the response.
    pub fn sip_says(&mut self, peer: &PeerKey, identity: &str, text: String) {
        let reply = ReplyTo(self.next_reply);
        self.next_reply += 1;
        let request = SipRequest {
            peer: peer.clone(),
            reply,
            message: message(text.as_bytes()),
            identity: address(identity),
            way: self.way.clone(),
        };
        self.input(Input::Request(request));
    }

    /// SUBSCRIBE outside a dialog.
    pub fn subscribe(&mut self, peer: &PeerKey, watcher: &str, target: &str, call_id: &str, more: &str) {
        let text = format!(
            "SUBSCRIBE sip:{target} SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK{call_id}\r\nMax-Forwards: 70\r\n\
             From: <sip:{watcher}>;tag=ft{call_id}\r\nTo: <sip:{target}>\r\nCall-ID: {call_id}\r\n\
             CSeq: 1 SUBSCRIBE\r\nContact: <sip:{watcher};gr=x>\r\nEvent: presence\r\n\
             Accept: application/pidf+xml\r\n{more}\r\n"
        );
        self.sip_says(peer, watcher, text);
    }

    /// SUBSCRIBE inside the dialog that `response` opened.
    pub fn resubscribe(&mut self, peer: &PeerKey, response: &Message, cseq: u32, expires: u32) {
        let (from, to) = (response.from().expect("From"), response.to().expect("To"));
        let contact = response.contacts().next().expect("a Contact").expect("legal").uri.as_str().to_owned();
        let watcher = from.uri.as_str().trim_start_matches("sip:").to_owned();
        let text = format!(
            "SUBSCRIBE {contact} SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKr{cseq}\r\nMax-Forwards: 70\r\n\
             From: <sip:{watcher}>;tag={}\r\nTo: <{}>;tag={}\r\nCall-ID: {}\r\nCSeq: {cseq} SUBSCRIBE\r\n\
             Contact: <sip:{watcher};gr=x>\r\nEvent: presence\r\nExpires: {expires}\r\n\r\n",
            from.tag().expect("a tag"),
            to.uri.as_str(),
            to.tag().expect("a tag"),
            response.call_id().expect("Call-ID"),
        );
        self.sip_says(peer, &watcher, text);
    }

    pub fn publish(&mut self, user: &str, basic: &str, show: &str, note: &str) -> Message {
        let show = if show.is_empty() {
            String::new()
        } else {
            format!("<show xmlns='jabber:client'>{show}</show>")
        };
        let note = if note.is_empty() { String::new() } else { format!("<note>{note}</note>") };
        let body = format!(
            "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:{user}'><tuple id='ID-orchard'><status>\
             <basic>{basic}</basic>{show}</status>{note}</tuple></presence>"
        );
        self.publish_body(user, &body, "")
    }

    pub fn publish_body(&mut self, user: &str, body: &str, more: &str) -> Message {
        self.publish_by("a", user, body, more)
    }

    /// PUBLISH from the user's phone of this instance.
    pub fn publish_by(&mut self, instance: &str, user: &str, body: &str, more: &str) -> Message {
        let content_type = if body.is_empty() { "" } else { "Content-Type: application/pidf+xml\r\n" };
        self.publish_as(instance, user, body, &format!("{more}{content_type}"))
    }

    /// PUBLISH with header fields for a body of any kind.
    pub fn publish_with(&mut self, user: &str, body: &str, more: &str) -> Message {
        self.publish_as("a", user, body, more)
    }

    fn publish_as(&mut self, instance: &str, user: &str, body: &str, more: &str) -> Message {
        self.send_publish_as(instance, user, body, more);
        self.response()
    }

    /// PUBLISH of a document, whose response may come later.
    pub fn send_publish(&mut self, instance: &str, user: &str, body: &str, more: &str) {
        let content_type = if body.is_empty() { "" } else { "Content-Type: application/pidf+xml\r\n" };
        self.send_publish_as(instance, user, body, &format!("{more}{content_type}"));
    }

    fn send_publish_as(&mut self, instance: &str, user: &str, body: &str, more: &str) {
        self.next_cseq += 1;
        let cseq = self.next_cseq;
        let text = format!(
            "PUBLISH sip:{user} SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKp{cseq}\r\nFrom: <sip:{user}>;tag=p\r\n\
             To: <sip:{user}>\r\nCall-ID: p{cseq}\r\nCSeq: {cseq} PUBLISH\r\nEvent: presence\r\n{more}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.sip_says(&phone_of(user, instance), user, text);
    }

    /// MESSAGE from a SIP user.
    pub fn message(&mut self, peer: &PeerKey, from: &str, to: &str, headers: &str, body: &[u8]) {
        self.next_cseq += 1;
        let cseq = self.next_cseq;
        let head = format!(
            "MESSAGE sip:{to} SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKm{cseq}\r\nFrom: <sip:{from}>;tag=m\r\n\
             To: <sip:{to}>\r\nCall-ID: call-{cseq}\r\nCSeq: {cseq} MESSAGE\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        let reply = ReplyTo(self.next_reply);
        self.next_reply += 1;
        let mut text = head.into_bytes();
        text.extend_from_slice(body);
        let request = SipRequest {
            peer: peer.clone(),
            reply,
            message: message(&text),
            identity: address(from),
            way: self.way.clone(),
        };
        self.input(Input::Request(request));
    }

    /// The response to our oldest request.
    pub fn answer(&mut self, status: u16, headers: &str) -> Box<RequestDraft> {
        let (_, request, draft) = self.requests.pop_front().expect("a request of ours is open");
        let text = format!(
            "SIP/2.0 {status} x\r\nVia: SIP/2.0/TCP h;branch=b\r\nFrom: {}\r\nTo: {};tag=pstag\r\nCall-ID: {}\r\n\
             CSeq: {} {}\r\n{headers}\r\n",
            draft.from, draft.to, draft.call_id, draft.cseq, draft.method
        );
        self.input(Input::Outcome { request, outcome: Ok(message(text.as_bytes())) });
        draft
    }

    pub fn time_out(&mut self) -> Box<RequestDraft> {
        let (_, request, draft) = self.requests.pop_front().expect("a request of ours is open");
        self.input(Input::Outcome { request, outcome: Err(NoResponse::Timeout) });
        draft
    }

    /// The connection of our oldest request broke.
    pub fn break_off(&mut self) -> Box<RequestDraft> {
        let (_, request, draft) = self.requests.pop_front().expect("a request of ours is open");
        self.input(Input::Outcome { request, outcome: Err(NoResponse::Transport) });
        draft
    }

    /// A NOTIFY of the front end in the dialog of our SUBSCRIBE `draft`.
    pub fn front_end_notifies(&mut self, draft: &RequestDraft, cseq: u32, state: &str, body: &str) -> u16 {
        self.front_end_sends(draft, cseq, state, body);
        self.status()
    }

    /// The same, whose response may come later.
    pub fn front_end_sends(&mut self, draft: &RequestDraft, cseq: u32, state: &str, body: &str) {
        let content_type = if body.is_empty() { "" } else { "Content-Type: application/pidf+xml\r\n" };
        self.front_end_sends_with(draft, cseq, state, content_type, body.as_bytes());
    }

    /// The same with header fields and a body of any kind.
    pub fn front_end_notifies_with(
        &mut self,
        draft: &RequestDraft,
        cseq: u32,
        state: &str,
        headers: &str,
        body: &[u8],
    ) -> Message {
        self.front_end_sends_with(draft, cseq, state, headers, body);
        self.response()
    }

    fn front_end_sends_with(
        &mut self,
        draft: &RequestDraft,
        cseq: u32,
        state: &str,
        headers: &str,
        body: &[u8],
    ) {
        let to = draft.to.split(";tag=").next().unwrap_or_default();
        let text = format!(
            "NOTIFY sip:{}@127.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKn{cseq}\r\nFrom: {to};tag=pstag\r\n\
             To: {}\r\nCall-ID: {}\r\nCSeq: {cseq} NOTIFY\r\nContact: <sip:ps@127.0.0.31:5060>\r\nEvent: presence\r\n\
             Subscription-State: {state}\r\n{headers}Content-Length: {}\r\n\r\n",
            draft.contact_user.as_deref().unwrap_or_default(),
            draft.from,
            draft.call_id,
            body.len()
        );
        let reply = ReplyTo(self.next_reply);
        self.next_reply += 1;
        let request = SipRequest {
            peer: front_end(),
            reply,
            message: message(&[text.as_bytes(), body].concat()),
            identity: address(BENVOLIO),
            way: self.way.clone(),
        };
        self.input(Input::Request(request));
    }

    pub fn response(&mut self) -> Message {
        self.responses.pop_front().expect("a response left")
    }

    pub fn status(&mut self) -> u16 {
        self.response().status().expect("a status")
    }

    pub fn notify(&mut self) -> Message {
        self.notifies.pop_front().expect("a NOTIFY left")
    }

    pub fn stanza(&mut self) -> String {
        self.stanzas.pop_front().expect("a stanza left")
    }

    /// Nothing left toward either side.
    pub fn is_silent(&self) -> bool {
        self.stanzas.is_empty()
            && self.notifies.is_empty()
            && self.responses.is_empty()
            && self.requests.is_empty()
    }

    /// Juliet sees romeo, and nothing waits.
    pub fn juliet_watches_romeo(&mut self) {
        self.presence(JULIET, ROMEO, "subscribe", "");
        assert!(self.stanza().contains("type='subscribed'"));
        self.stanzas.clear();
    }

    /// Romeo's phone `instance` sees juliet; gives the 200 to its SUBSCRIBE.
    pub fn romeo_watches_juliet(&mut self, instance: &str) -> Message {
        self.subscribe(&phone_of(ROMEO, instance), ROMEO, JULIET, &format!("w{instance}"), "");
        let response = self.response();
        assert_eq!(response.status(), Some(200));
        if self.stanzas.iter().any(|stanza| stanza.contains("type='subscribe'")) {
            self.presence(JULIET, ROMEO, "subscribed", "");
        }
        self.stanzas.clear();
        self.notifies.clear();
        response
    }

    /// Juliet sees benvolio by way of the front end; gives our SUBSCRIBE.
    pub fn juliet_watches_benvolio(&mut self, body: &str) -> Box<RequestDraft> {
        self.presence(JULIET, BENVOLIO, "subscribe", "");
        let draft = self.answer(200, "Expires: 3600\r\n");
        assert_eq!(self.front_end_notifies(&draft, 1, "active;expires=3600", body), 200);
        draft
    }
}

pub fn message(text: &[u8]) -> Message {
    read_datagram(Bytes::copy_from_slice(text), &MessageLimits::default()).expect("a message")
}

pub fn state_of(notify: &Message) -> String {
    notify.subscription_state().expect("legal").expect("there").to_string()
}

pub fn body_of(message: &Message) -> String {
    String::from_utf8(message.body().to_vec()).expect("UTF-8")
}

/// A document of benvolio's.
pub fn pidf(basic: &str, inner: &str) -> String {
    format!(
        "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:{BENVOLIO}'><tuple id='ID-desk'><status>\
         <basic>{basic}</basic>{inner}</status></tuple></presence>"
    )
}

fn split_stanzas(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let mut stanzas = Vec::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let open = rest.find('>').expect("a tag ends");
        let end = if rest[..open].ends_with('/') {
            open + 1
        } else {
            rest.find("</presence>").expect("a stanza ends") + "</presence>".len()
        };
        stanzas.push(rest[..end].to_owned());
        rest = &rest[end..];
    }
    stanzas
}

/// A stanza as a stream gives it out.
pub fn received(stanza: &str) -> ReceivedStanza {
    ReceivedStanza::read(Bytes::from(stanza.to_owned())).expect("a stanza with both addresses")
}
