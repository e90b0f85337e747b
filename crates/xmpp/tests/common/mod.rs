//! Two stream machines joined in memory, and a stream driven by hand, with a table of partners and stub certificates.
#![allow(dead_code)] // Each test file uses its part.

pub mod caller;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tombolo_xmpp::{
    dialback::DialbackSecrets,
    jid::Domain,
    stream::{
        CloseCause, Dial, InboundSettings, InboundStream, KeyAnswer, KeyQuestion, OutboundSettings,
        OutboundStream, Pair, PartnerTerms, PeerCertificate, Purpose, S2sStream, SkippedSteps, StreamEvent,
        StreamIds, StreamLimits, StreamPolicy, TlsFacts, TlsStart,
    },
};

pub const EXTERNAL: PartnerTerms = PartnerTerms::CERTIFICATE;
pub const DIALBACK: PartnerTerms = PartnerTerms {
    external: false,
    dialback_with_tls: true,
    dialback_without_tls: false,
    stanza_bytes: None,
};
pub const BOTH: PartnerTerms =
    PartnerTerms { external: true, dialback_with_tls: true, dialback_without_tls: false, stanza_bytes: None };
pub const PLAIN: PartnerTerms = PartnerTerms {
    external: false,
    dialback_with_tls: false,
    dialback_without_tls: true,
    stanza_bytes: None,
};

pub fn domain(text: &str) -> Domain {
    Domain::parse(text).expect("a domain")
}

pub fn pair(local: &str, remote: &str) -> Pair {
    Pair { local: domain(local), remote: domain(remote) }
}

/// Some instant; tests only add to it.
pub fn epoch() -> Instant {
    static EPOCH: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(|| {
        #[allow(clippy::disallowed_methods)] // The one reading from which all test times are counted.
        Instant::now()
    });
    *EPOCH
}

pub fn after(seconds: u64) -> Instant {
    epoch() + Duration::from_secs(seconds)
}

/// A server's partner table.
#[derive(Debug, Clone, Default)]
pub struct Table {
    pub served: Vec<&'static str>,
    pub gone: Vec<&'static str>,
    pub partners: HashMap<&'static str, PartnerTerms>,
}

impl Table {
    pub fn new(served: &[&'static str], partners: &[(&'static str, PartnerTerms)]) -> Self {
        Self { served: served.to_vec(), gone: Vec::new(), partners: partners.iter().copied().collect() }
    }
}

impl StreamPolicy for Table {
    fn is_served(&self, domain: &Domain) -> bool {
        self.served.contains(&domain.as_str())
    }

    fn was_served(&self, domain: &Domain) -> bool {
        self.gone.contains(&domain.as_str())
    }

    fn terms(&self, _local: &Domain, remote: &Domain) -> Option<PartnerTerms> {
        self.partners.get(remote.as_str()).copied()
    }
}

/// A certificate that names these domains.
#[derive(Debug, Clone)]
pub struct Names(pub Vec<&'static str>);

impl PeerCertificate for Names {
    fn proves(&self, domain: &Domain) -> bool {
        self.0.contains(&domain.as_str())
    }

    fn fault(&self, domain: &Domain) -> Box<str> {
        format!("it is for {}, not for {domain}", self.0.join(", ")).into()
    }
}

pub fn facts(names: &[&'static str]) -> TlsFacts {
    TlsFacts { certificate: Arc::new(Names(names.to_vec())) }
}

pub fn secrets(of: &str) -> DialbackSecrets {
    DialbackSecrets::new(of.as_bytes())
}

pub fn inbound_with(limits: StreamLimits, secret: &str, tls: TlsStart, seed: u8) -> InboundStream {
    let settings = InboundSettings { limits, secrets: secrets(secret) };
    InboundStream::new(Arc::new(settings), tls, StreamIds::new([seed; 32]), epoch())
}

pub fn outbound_with(limits: StreamLimits, secret: &str, dial: Dial) -> OutboundStream {
    OutboundStream::new(Arc::new(OutboundSettings { limits, secrets: secrets(secret) }), dial, epoch())
}

pub fn dial(local: &str, remote: &str, purpose: Purpose, tls: TlsStart) -> Dial {
    Dial { pair: pair(local, remote), purpose, tls, skip: SkippedSteps::default() }
}

/// One machine with everything that it said.
pub struct Side {
    pub stream: S2sStream,
    pub table: Table,
    /// What the other side's certificate proves to this one.
    pub peer_names: Vec<&'static str>,
    pub events: Vec<StreamEvent>,
    /// All that it sent.
    pub sent: String,
    pub now: Instant,
    wants_tls: bool,
}

impl Side {
    pub fn inbound(stream: InboundStream, table: Table, peer_names: &[&'static str]) -> Self {
        Self::new(S2sStream::Inbound(stream), table, peer_names)
    }

    pub fn outbound(stream: OutboundStream, table: Table, peer_names: &[&'static str]) -> Self {
        Self::new(S2sStream::Outbound(stream), table, peer_names)
    }

    fn new(stream: S2sStream, table: Table, peer_names: &[&'static str]) -> Self {
        let peer_names = peer_names.to_vec();
        Self {
            stream,
            table,
            peer_names,
            events: Vec::new(),
            sent: String::new(),
            now: epoch(),
            wants_tls: false,
        }
    }

    /// Takes text from the peer and gives back what is answered.
    pub fn hear(&mut self, text: &str) -> String {
        self.stream.handle_input(text.as_bytes(), self.now, &self.table);
        self.settle()
    }

    pub fn start_tls(&mut self) -> String {
        assert!(std::mem::take(&mut self.wants_tls), "TLS was not asked for: {:?}", self.events);
        self.tls_up()
    }

    /// For direct TLS: it begins with the connection.
    pub fn begin_with_tls(&mut self) {
        self.wants_tls = true;
    }

    pub fn tls_up(&mut self) -> String {
        let facts = facts(&self.peer_names);
        self.stream.handle_tls_established(facts, self.now, &self.table);
        self.settle()
    }

    pub fn at(&mut self, now: Instant) -> String {
        self.now = now;
        self.stream.handle_timeout(now);
        self.settle()
    }

    /// Collects events and output.
    pub fn settle(&mut self) -> String {
        while let Some(event) = self.stream.poll_event() {
            self.wants_tls |= matches!(event, StreamEvent::StartTls);
            self.events.push(event);
        }
        let mut text = String::new();
        while let Some(bytes) = self.stream.poll_transmit() {
            text.push_str(std::str::from_utf8(&bytes).expect("UTF-8"));
        }
        self.sent.push_str(&text);
        text
    }

    pub fn as_inbound(&mut self) -> &mut InboundStream {
        match &mut self.stream {
            S2sStream::Inbound(stream) => stream,
            S2sStream::Outbound(_) => panic!("an outbound stream"),
        }
    }

    /// Says what the authoritative server said of a key.
    pub fn answer_key(&mut self, question: &KeyQuestion, answer: KeyAnswer) {
        match &mut self.stream {
            S2sStream::Inbound(stream) => stream.handle_key_answer(question, answer, &self.table),
            S2sStream::Outbound(_) => panic!("an outbound stream"),
        }
    }

    /// Takes over another table; which pairs are lost by it.
    pub fn change_policy(&mut self, table: Table) -> Vec<Pair> {
        self.table = table;
        self.stream.handle_policy_change(&self.table)
    }

    pub fn as_outbound(&mut self) -> &mut OutboundStream {
        match &mut self.stream {
            S2sStream::Outbound(stream) => stream,
            S2sStream::Inbound(_) => panic!("an inbound stream"),
        }
    }

    /// The condition of the stream error that it sent.
    pub fn error_sent(&self) -> Option<&str> {
        let (_, rest) = self.sent.split_once("<stream:error><")?;
        rest.split_once(' ').map(|(name, _)| name)
    }

    pub fn is_proved(&self, local: &str, remote: &str) -> bool {
        self.stream.proved_pairs().contains(&pair(local, remote))
    }

    pub fn stanzas(&self) -> Vec<String> {
        self.events
            .iter()
            .filter_map(|event| match event {
                StreamEvent::Stanza(stanza) => Some(String::from_utf8_lossy(&stanza.xml).into_owned()),
                _ => None,
            })
            .collect()
    }

    pub fn cause(&self) -> Option<&CloseCause> {
        match self.events.last() {
            Some(StreamEvent::Closed(cause)) => Some(cause),
            _ => None,
        }
    }

    /// Debug text of the events, for short comparisons.
    pub fn count(&self, word: &str) -> usize {
        self.events.iter().filter(|event| format!("{event:?}").starts_with(word)).count()
    }
}

/// Lets two machines talk until both are quiet. TLS comes up as soon as both want it.
pub fn join(initiator: &mut Side, receiver: &mut Side) {
    let mut to_receiver = initiator.settle();
    let mut to_initiator = receiver.settle();
    loop {
        let heard = !to_receiver.is_empty() || !to_initiator.is_empty();
        if !to_receiver.is_empty() {
            to_initiator.push_str(&receiver.hear(&std::mem::take(&mut to_receiver)));
        }
        if !to_initiator.is_empty() {
            to_receiver.push_str(&initiator.hear(&std::mem::take(&mut to_initiator)));
        }
        if initiator.wants_tls && receiver.wants_tls {
            to_initiator.push_str(&receiver.start_tls());
            to_receiver.push_str(&initiator.start_tls());
        } else if !heard {
            return;
        }
    }
}

/// The header of a peer that opens a stream.
pub fn header(from: &str, to: &str) -> String {
    format!(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' \
         xmlns:db='jabber:server:dialback' from='{from}' to='{to}' version='1.0'>"
    )
}

/// The header of a peer that answers.
pub fn response(from: &str, to: &str, id: &str) -> String {
    header(from, to).replace(" version='1.0'>", &format!(" id='{id}' version='1.0'>"))
}

pub const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
pub const PROCEED: &str = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";

pub fn auth(text: &str) -> String {
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>{text}</auth>")
}

/// The value of an attribute in the last tag that has it.
pub fn last_attribute<'a>(text: &'a str, name: &str) -> &'a str {
    let marker = format!(" {name}='");
    let (_, rest) = text.rsplit_once(&marker).unwrap_or_else(|| panic!("no {name} in {text}"));
    rest.split_once('\'').expect("a quoted value").0
}
