//! A pure shard with surroundings that answer at once: every wish for credit is granted, every row is stored, every
//! phone is connected. What leaves is counted, and can be kept.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use tombolo_interwork::{
    owner::{
        Accounts, Input, LaneKey, NOTIFY_BRANCH, NotifyAnswer, Output, Owner, OwnerEvent, OwnerSettings,
        PeerKey, PeerWay, PhoneKey, ReplyTo, SipRequest, WatchLimits,
    },
    token::TokenKey,
};
use tombolo_policy::{Approve, Home, LocalDomain, Partner, PartnerKind, Table};
use tombolo_presence::{Address, Domain, Now};
use tombolo_runtime::Clock;
use tombolo_sip::{
    framer::{Frame, StreamFramer},
    message::{MessageLimits, read_datagram},
};
use tombolo_xmpp::stream::ReceivedStanza;

/// The one local user.
pub const ALICE: &str = "alice@sip.example";
/// How many partner domains the contacts are spread over.
pub const PARTNERS: usize = 10;
/// Stanzas and answers that are handed over at once, about as a read of a connection brings them.
pub const BATCH: usize = 64;

/// A shard with one local user, whose partners grant everything.
pub struct Surroundings {
    owner: Owner,
    now: Now,
    key: TokenKey,
    /// Octets of each grant.
    grant_bytes: usize,
    /// Stanzas that left since it was set to 0.
    pub stanzas: usize,
    /// NOTIFYs that left since it was set to 0.
    pub notifies: usize,
    /// Octets of both.
    pub octets: usize,
    /// Rows that were to be stored.
    pub rows: usize,
    /// The NOTIFYs that left, one behind the other, if they are wanted.
    pub kept: Option<Vec<u8>>,
    publications: u32,
    /// The entity tag of alice's publication.
    tag: String,
    /// What was refused, and how often.
    pub refused: BTreeMap<&'static str, usize>,
}

impl Surroundings {
    /// The shard, with nobody watching. A grant is as large as a stream's window.
    pub fn new() -> Self {
        let domain = |name: &str| Domain::from_prepared(name).expect("a prepared name");
        let partners = (0..PARTNERS).map(|number| Partner {
            kind: PartnerKind::Federated,
            ..Partner::new(domain(&format!("p{number}.example")))
        });
        let locals = vec![LocalDomain { name: domain("sip.example"), home: Home::BuiltIn }];
        let table = Table::new(1, locals, partners.collect()).expect("each domain once");
        let key = TokenKey::new(&[9; 32]);
        let mut settings = OwnerSettings::new(key.clone(), 1, 42);
        settings.watcher_interval = Duration::ZERO;
        // One user and one phone stand for many.
        settings.pairs_per_user = usize::MAX;
        settings.watch_limits = WatchLimits { of_user: u32::MAX, of_pair: usize::MAX, of_phone: u32::MAX };
        let now = Clock::system().now();
        let mut owner = Owner::new(settings, Arc::new(table), now);
        let approve = [(address(ALICE), Approve::All)].into();
        owner.handle(Input::Accounts(Arc::new(Accounts { approve })), now);
        owner.handle(Input::PeerChanged { peer: phone(), way: Some(way()) }, now);
        let mut surroundings = Self {
            owner,
            now,
            key,
            grant_bytes: 65_536,
            stanzas: 0,
            notifies: 0,
            octets: 0,
            rows: 0,
            kept: None,
            publications: 0,
            tag: String::new(),
            refused: BTreeMap::new(),
        };
        surroundings.drain();
        surroundings
    }

    /// Lets `span` pass without anybody being told.
    pub fn wait(&mut self, span: Duration) {
        self.now = self.now.after(span);
        while self.owner.poll_timeout().is_some_and(|due| due <= self.now.instant) {
            self.owner.handle_timeout(self.now);
            self.drain();
        }
    }

    /// Takes one thing and does all that follows from it.
    pub fn handle(&mut self, input: Input) {
        self.owner.handle(input, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.owner.poll_output() {
            match output {
                Output::Want { lane, .. } => self.grant(lane),
                Output::Stanzas { count, bytes, .. } => {
                    self.stanzas += count as usize;
                    self.octets += bytes.len();
                }
                Output::Notifies { count, bytes, .. } => {
                    self.notifies += count as usize;
                    self.octets += bytes.len();
                    if let Some(kept) = &mut self.kept {
                        kept.extend_from_slice(&bytes);
                    }
                }
                Output::Persist { token, rows, .. } => {
                    self.rows += rows.len();
                    self.owner.handle(Input::Persisted { token, is_stored: true }, self.now);
                }
                Output::Respond { bytes, .. } => self.take_response(bytes),
                Output::Event(event) => self.note(event),
                _ => {}
            }
        }
    }

    fn take_response(&mut self, bytes: Vec<u8>) {
        let response = read_datagram(Bytes::from(bytes), &MessageLimits::default()).expect("a response");
        assert_eq!(response.status(), Some(200), "{}", response.reason());
        if let Some(tag) = response.sip_etag() {
            self.tag = tag.to_owned();
        }
    }

    fn note(&mut self, event: OwnerEvent) {
        if let OwnerEvent::StanzaRefused { reason } | OwnerEvent::RequestRefused { reason, .. } = event {
            *self.refused.entry(reason).or_default() += 1;
        }
    }

    fn grant(&mut self, lane: LaneKey) {
        self.owner.handle(Input::Credit { lane, bytes: self.grant_bytes }, self.now);
    }

    /// So many XMPP contacts watch alice; each was told `subscribed`.
    pub fn let_watch(&mut self, count: usize) {
        for from in 0..count {
            let stanza = format!("<presence from='{}' to='{ALICE}' type='subscribe'/>", contact(from));
            self.handle(Input::Stanzas(vec![received(stanza)]));
        }
        assert!(self.refused.is_empty(), "{:?}", self.refused);
    }

    /// Alice's phone watches so many XMPP contacts; each granted it, and the first NOTIFYs were answered.
    ///
    /// Gives what names the answers to each dialog's NOTIFYs, in the order of the contacts.
    pub fn watch(&mut self, count: usize) -> Vec<NotifyAnswer> {
        let mut answers = Vec::with_capacity(count);
        for to in 0..count {
            self.kept = Some(Vec::new());
            self.handle(Input::Request(subscribe(to, 1)));
            self.answer_kept();
            let stanza = format!("<presence from='{}' to='{ALICE}' type='subscribed'/>", contact(to));
            self.handle(Input::Stanzas(vec![received(stanza)]));
            answers.extend(self.answer_kept().pop());
        }
        self.kept = None;
        assert_eq!(answers.len(), count, "every dialog was notified of the grant");
        answers
    }

    /// A second dialog of the phone for each of the first `count` contacts, whose states are known.
    pub fn watch_again(&mut self, count: usize) {
        self.kept = Some(Vec::new());
        for to in 0..count {
            self.handle(Input::Request(subscribe(to, 2)));
            assert_eq!(self.answer_kept().len(), 1, "the state is told at once");
        }
        self.kept = None;
    }

    /// The phone answers NOTIFYs.
    pub fn answers_come(&mut self, answers: Vec<NotifyAnswer>) {
        self.handle(Input::NotifyAnswers { peers: Arc::new([phone()]), answers });
    }

    /// Answers the NOTIFYs that were kept with 200.
    pub fn answer_kept(&mut self) -> Vec<NotifyAnswer> {
        let mut all = Vec::new();
        while let Some(kept) = self.kept.replace(Vec::new()).filter(|kept| !kept.is_empty()) {
            let mut framer = StreamFramer::new(MessageLimits::default());
            framer.push(&kept);
            let mut answers = Vec::new();
            while let Ok(Some(Frame::Message(notify))) = framer.next_frame() {
                let via = notify.top_via().expect("a Via");
                let rest = via.branch().and_then(|branch| branch.strip_prefix(NOTIFY_BRANCH));
                let (token, cseq) = rest.and_then(|rest| rest.split_once('.')).expect("our branch");
                let token = self.key.verify(token).expect("our token");
                answers.push(NotifyAnswer {
                    partition: token.partition,
                    row: token.row,
                    mac: self.key.mac(token),
                    cseq: cseq.parse().expect("a number"),
                    status: 200,
                    retry_after: None,
                });
            }
            all.extend_from_slice(&answers);
            self.answers_come(answers);
        }
        all
    }

    /// Alice's phone publishes a state; the counters tell what left.
    pub fn publish(&mut self, show: &str) {
        self.publications += 1;
        self.handle(Input::Request(publication(self.publications, show, &self.tag)));
    }
}

impl Default for Surroundings {
    fn default() -> Self {
        Self::new()
    }
}

/// The `number`-th contact; neighbours are of different partners.
pub fn contact(number: usize) -> String {
    format!("u{}@p{}.example", number / PARTNERS, number % PARTNERS)
}

/// Presence of the `number`-th contact, as clients send it.
pub fn presence(number: usize, show: &str) -> ReceivedStanza {
    received(format!(
        "<presence from='{}/balcony' to='{ALICE}'><show>{show}</show><status>Wherefore art thou</status>\
         <priority>5</priority></presence>",
        contact(number)
    ))
}

fn received(stanza: String) -> ReceivedStanza {
    ReceivedStanza::read(Bytes::from(stanza)).expect("a stanza")
}

fn address(text: &str) -> Address {
    Address::from_prepared(text).expect("a prepared address")
}

fn phone() -> PeerKey {
    PeerKey::Phone(Arc::new(PhoneKey { aor: address(ALICE), instance: "desk".into() }))
}

fn way() -> PeerWay {
    PeerWay {
        is_reliable: true,
        takes_large: true,
        via: "SIP/2.0/TCP 127.0.0.1:5060".into(),
        contact: "127.0.0.1:5060;transport=tcp".into(),
    }
}

fn request(text: String, reply: u64) -> SipRequest {
    let message = read_datagram(Bytes::from(text), &MessageLimits::default()).expect("a request");
    SipRequest { peer: phone(), reply: ReplyTo(reply), message, identity: address(ALICE), way: way() }
}

fn subscribe(to: usize, dialog: u8) -> SipRequest {
    let contact = contact(to);
    let text = format!(
        "SUBSCRIBE sip:{contact} SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:40000;branch=z9hG4bKs{to}x{dialog}\r\nMax-Forwards: 70\r\n\
         From: <sip:{ALICE}>;tag=f{to}x{dialog}\r\nTo: <sip:{contact}>\r\nCall-ID: 8b1f2c3d4e5f60{dialog:02}{to:06}\r\nCSeq: 1 SUBSCRIBE\r\n\
         Contact: <sip:alice@127.0.0.1:40000;transport=tcp>\r\nEvent: presence\r\nAccept: application/pidf+xml\r\n\
         Expires: 3600\r\nContent-Length: 0\r\n\r\n"
    );
    request(text, to as u64)
}

fn publication(number: u32, show: &str, tag: &str) -> SipRequest {
    let condition = if tag.is_empty() { String::new() } else { format!("SIP-If-Match: {tag}\r\n") };
    let body = tombolo_load::phone::document(&format!("pres:{ALICE}"), "open", show, "At my desk");
    let text = format!(
        "PUBLISH sip:{ALICE} SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:40000;branch=z9hG4bKp{number}\r\nMax-Forwards: 70\r\n\
         From: <sip:{ALICE}>;tag=p\r\nTo: <sip:{ALICE}>\r\nCall-ID: publications\r\nCSeq: {number} PUBLISH\r\n\
         Event: presence\r\n{condition}Content-Type: application/pidf+xml\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    request(text, u64::from(number))
}
