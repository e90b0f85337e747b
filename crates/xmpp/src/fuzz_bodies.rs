//! What a fuzzer runs: one function a parser, each of which takes any bytes and must neither panic nor break its rule.
//!
//! [`Mutator`] makes inputs from seeds on the stable toolchain; the same seed gives the same inputs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    dialback::{Dialback, DialbackSecrets},
    framer::{Frame, Framer},
    jid::{Domain, Jid},
    stanza::{IqStanza, MessageStanza, PresenceStanza, StanzaHead},
    stream::{
        Dial, InboundSettings, InboundStream, KeyAnswer, KeyQuestion, NoCertificate, OutboundSettings,
        OutboundStream, Pair, PartnerTerms, PeerCertificate, Purpose, S2sStream, SkippedSteps, StreamEvent,
        StreamIds, StreamLimits, StreamPolicy, TlsFacts, TlsStart,
    },
    write,
    xml::{NS_XML, Reader, Scope, Tag, XmlFault, XmlLimits, check},
};

/// Elements to begin with, for [`gate`] and [`stanza`].
pub const GATE_SEEDS: &[&[u8]] = &[
    include_bytes!("../corpus/gate/presence.xml"),
    include_bytes!("../corpus/gate/message.xml"),
    include_bytes!("../corpus/gate/iq.xml"),
    include_bytes!("../corpus/gate/names.xml"),
    include_bytes!("../corpus/gate/error.xml"),
];

/// What peers send on a stream that they opened, for [`framer`] and [`stream_inbound`].
pub const INBOUND_SEEDS: &[&[u8]] = &[
    include_bytes!("../corpus/stream_inbound/starttls.xml"),
    include_bytes!("../corpus/stream_inbound/external.xml"),
    include_bytes!("../corpus/stream_inbound/dialback.xml"),
];

/// What peers answer on a stream that we opened, for [`stream_outbound`].
pub const OUTBOUND_SEEDS: &[&[u8]] = &[
    include_bytes!("../corpus/stream_outbound/starttls.xml"),
    include_bytes!("../corpus/stream_outbound/external.xml"),
    include_bytes!("../corpus/stream_outbound/dialback.xml"),
];

/// Addresses, for [`jid`].
pub const JID_SEEDS: &[&[u8]] = &[
    b"romeo@example.net/orchard",
    "o\\27malley@b\u{fc}cher.example./r\u{f6}om".as_bytes(),
    b"u@[2001:db8::1]/a@b/c",
    b"XN--BCHER-KVA.Example",
    "\u{ff26}u\u{df}ball@fa\u{df}.example/\u{1f434} Laptop\u{2122}".as_bytes(),
    "\u{5d0}\u{661}\u{5f3}@l\u{b7}l.example/\u{915}\u{94d}\u{200d}\u{937}".as_bytes(),
    "\u{3a3}\u{391}\u{3a3}@\u{4f8b}\u{3048}\u{3002}jp/\u{1680}e\u{301}".as_bytes(),
];

/// Dialback elements, for [`dialback`].
pub const DIALBACK_SEEDS: &[&[u8]] = &[
    include_bytes!("../corpus/dialback/result.xml"),
    include_bytes!("../corpus/dialback/verify.xml"),
    include_bytes!("../corpus/dialback/error.xml"),
];

/// Frames are the same for the whole input and for single octets, the buffer is bounded, and what is framed passes the gate.
pub fn framer(data: &[u8]) {
    let limits = XmlLimits { element_bytes: 1000, depth: 8, ..XmlLimits::UNAUTHENTICATED };
    let whole = frames(data, data.len().max(1), limits);
    let single = frames(data, 1, limits);
    assert_eq!(whole, single, "the cut changes the frames");
    for frame in &whole.0 {
        if let Frame::Element(element) = frame {
            let mut scope = Scope::server();
            for prefix in element.checked().borrowed_prefixes {
                scope.declare(prefix, &format!("urn:{prefix}"));
            }
            assert_eq!(
                check(&element.xml, &scope, &limits),
                Ok(element.checked()),
                "framed and not well-formed"
            );
        }
    }
}

fn frames(data: &[u8], step: usize, limits: XmlLimits) -> (Vec<Frame>, Option<XmlFault>) {
    let mut framer = Framer::new(limits);
    let mut frames = Vec::new();
    for piece in data.chunks(step) {
        framer.push(piece);
        loop {
            match framer.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(fault) => return (frames, Some(fault)),
            }
        }
        // Up to three octets of a character that is not whole do not count yet.
        assert!(framer.buffered() <= limits.element_bytes + step.max(3), "the buffer grows");
    }
    (frames, None)
}

/// What passes the gate can be walked over, and what is written from that walk passes again and means the same.
pub fn gate(data: &[u8]) {
    let limits = XmlLimits::UNAUTHENTICATED;
    let scope = Scope::empty();
    if let Ok(checked) = check(data, &scope, &limits) {
        let first = walk(checked.text);
        let copy = copied(checked.text);
        if let Ok(again) =
            check(&copy, &scope, &XmlLimits { element_bytes: usize::MAX, value_bytes: usize::MAX, ..limits })
        {
            assert_eq!(first, walk(again.text), "a copy means something else");
        } else {
            panic!("a copy is refused: {}", String::from_utf8_lossy(&copy));
        }
    }
}

/// Any bytes can be read as a stanza or refused.
pub fn stanza(data: &[u8]) {
    let head = StanzaHead::read(data);
    let readers = [
        PresenceStanza::read(data).map(|stanza| stanza.head),
        MessageStanza::read(data).map(|stanza| stanza.head),
        IqStanza::read(data).map(|stanza| stanza.head),
    ];
    for read in readers.into_iter().flatten() {
        assert_eq!(Ok(read), head.clone(), "two readers disagree about one start tag");
    }
    if let Ok(head) = head {
        let mut out = Vec::new();
        if write::error_reply(&mut out, &head, &crate::stanza::StanzaCondition::JidMalformed.into()) {
            let scope = Scope::server();
            assert!(
                check(&out, &scope, &XmlLimits::UNAUTHENTICATED.with_element_bytes(1 << 24)).is_ok()
                    || out.len() > 8192
            );
        }
    }
}

/// A prepared address is its own preparation.
pub fn jid(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(jid) = Jid::parse(text) {
        assert_eq!(Jid::parse(jid.as_str()).as_ref(), Ok(&jid), "preparation is not stable");
        assert_eq!(Domain::of_address(text).map(|domain| domain.to_string()), Ok(jid.domain().to_owned()));
        let domain = Domain::parse(jid.domain()).expect("a prepared domain is one");
        assert_eq!(Jid::from_parts(jid.local(), &domain, jid.resource()), Ok(jid));
    }
}

/// Any element can be read as dialback or refused.
pub fn dialback(data: &[u8]) {
    let mut scope = Scope::server();
    scope.declare("db", crate::ns::DIALBACK);
    let Ok(checked) = check(data, &scope, &XmlLimits::UNAUTHENTICATED) else { return };
    if let Some((tag, mut reader)) = Reader::open(checked.text, &scope) {
        drop(Dialback::read(&tag, &mut reader));
    }
    if let Ok(key) = std::str::from_utf8(data) {
        assert!(!DialbackSecrets::new(b"secret").verifies("a", "b", "c", key), "a key was guessed");
    }
}

/// A stream that a peer opened: no stanza comes out before a proof, whatever is sent, and all cuts do the same.
///
/// `now` may be any instant: only differences count.
pub fn stream_inbound(data: &[u8], now: Instant) {
    same_for_all_cuts(data, now, || {
        let settings =
            InboundSettings { limits: StreamLimits::default(), secrets: DialbackSecrets::new(b"secret") };
        let ids = StreamIds::new([7; 32]);
        S2sStream::Inbound(InboundStream::new(Arc::new(settings), TlsStart::StartTls, ids, now))
    });
}

/// A stream that we opened: nothing that a peer sends gives out a stanza, and all cuts do the same.
///
/// `now` may be any instant: only differences count.
pub fn stream_outbound(data: &[u8], now: Instant) {
    same_for_all_cuts(data, now, || {
        let settings =
            OutboundSettings { limits: StreamLimits::default(), secrets: DialbackSecrets::new(b"secret") };
        let dial = Dial {
            pair: pair(),
            purpose: Purpose::Send,
            tls: TlsStart::StartTls,
            skip: SkippedSteps::default(),
        };
        S2sStream::Outbound(OutboundStream::new(Arc::new(settings), dial, now))
    });
}

fn same_for_all_cuts(data: &[u8], now: Instant, stream: impl Fn() -> S2sStream) {
    let whole = Owner::new(stream()).drive(data, data.len().max(1), now);
    let single = Owner::new(stream()).drive(data, 1, now);
    // Bytes that follow too early are refused in every cut, but what is said before they are seen is not the same.
    let is_too_early = |events: &[String]| events.iter().any(|event| event.contains("BytesBeforeTls"));
    if is_too_early(&whole.0) || is_too_early(&single.0) {
        assert!(is_too_early(&whole.0) && is_too_early(&single.0), "the cut lets bytes before TLS pass");
    } else {
        assert_eq!(whole, single, "the cut changes what happens");
    }
}

/// Does for a stream what its owner has to do.
struct Owner {
    stream: S2sStream,
    proved: Vec<Pair>,
    shown: Vec<KeyQuestion>,
    must_start_tls: bool,
    events: Vec<String>,
    output: Vec<u8>,
}

impl Owner {
    fn new(stream: S2sStream) -> Self {
        Self {
            stream,
            proved: Vec::new(),
            shown: Vec::new(),
            must_start_tls: false,
            events: Vec::new(),
            output: Vec::new(),
        }
    }

    /// Feeds the stream in pieces. NUL ends a flight: only then keys are answered and TLS is begun.
    fn drive(mut self, data: &[u8], step: usize, now: Instant) -> (Vec<String>, String) {
        for flight in data.split(|byte| *byte == 0) {
            for piece in flight.chunks(step) {
                self.stream.handle_input(piece, now, &OnePartner);
                self.settle();
            }
            for question in std::mem::take(&mut self.shown) {
                if let S2sStream::Inbound(stream) = &mut self.stream {
                    stream.handle_key_answer(&question, KeyAnswer::Valid, &OnePartner);
                }
            }
            if std::mem::take(&mut self.must_start_tls) {
                let certificate: Arc<dyn PeerCertificate> = Arc::new(NoCertificate);
                self.stream.handle_tls_established(TlsFacts { certificate }, now, &OnePartner);
            }
            self.settle();
        }
        self.stream.handle_timeout(now + Duration::from_secs(31));
        self.settle();
        (self.events, String::from_utf8_lossy(&self.output).into_owned())
    }

    fn settle(&mut self) {
        while let Some(event) = self.stream.poll_event() {
            match &event {
                StreamEvent::StartTls => self.must_start_tls = true,
                StreamEvent::PairProved { pair, .. } => self.proved.push(pair.clone()),
                StreamEvent::KeyShown(question) => self.shown.push(question.clone()),
                StreamEvent::Stanza(stanza) => {
                    let is_proved = self.proved.iter().any(|pair| {
                        pair.remote.as_str() == stanza.from.domain()
                            && pair.local.as_str() == stanza.to.domain()
                    });
                    assert!(is_proved, "a stanza of a pair that was never proved");
                    let limits = XmlLimits::UNAUTHENTICATED.with_element_bytes(1 << 20);
                    assert!(
                        check(&stanza.xml, &Scope::server(), &limits).is_ok(),
                        "a stanza not complete in itself"
                    );
                }
                _ => {}
            }
            self.events.push(format!("{event:?}"));
        }
        while let Some(bytes) = self.stream.poll_transmit() {
            self.output.extend_from_slice(&bytes);
        }
    }
}

fn pair() -> Pair {
    Pair {
        local: Domain::parse("us.example").expect("a domain"),
        remote: Domain::parse("peer.example").expect("a domain"),
    }
}

struct OnePartner;

impl StreamPolicy for OnePartner {
    fn is_served(&self, domain: &Domain) -> bool {
        domain.as_str() == "us.example"
    }

    fn terms(&self, _: &Domain, remote: &Domain) -> Option<PartnerTerms> {
        let terms = PartnerTerms {
            external: true,
            dialback_with_tls: true,
            dialback_without_tls: true,
            stanza_bytes: None,
        };
        (remote.as_str() == "peer.example").then_some(terms)
    }
}

/// What an element that passed the gate says, written so that two that mean the same are equal.
pub fn walk(text: &str) -> String {
    let scope = Scope::empty();
    let mut out = String::new();
    if let Some((tag, mut reader)) = Reader::open(text, &scope) {
        walk_element(&tag, &mut reader, &mut out);
    }
    out
}

fn walk_element(tag: &Tag<'_>, reader: &mut Reader<'_>, out: &mut String) {
    out.push_str(&format!("<{{{}}}{}", tag.ns, tag.name));
    let mut attributes: Vec<String> = tag
        .attributes()
        .filter(|attribute| attribute.declaration().is_none())
        .map(|attribute| match attribute.name.split_once(':') {
            Some(("xml", name)) => format!(" {{{NS_XML}}}{name}={:?}", attribute.value()),
            Some((prefix, name)) => {
                format!(" {{{}}}{name}={:?}", reader.namespace(prefix), attribute.value())
            }
            None => format!(" {{}}{}={:?}", attribute.name, attribute.value()),
        })
        .collect();
    attributes.sort();
    out.extend(attributes);
    out.push('>');
    loop {
        let mut text = String::new();
        let child = reader.text_then_child(&mut text);
        if !text.is_empty() {
            out.push_str(&format!("{text:?}"));
        }
        match child {
            Some(child) => walk_element(&child, reader, out),
            None => break,
        }
    }
    out.push_str("</>");
}

/// The element written anew from what was read.
fn copied(text: &str) -> Vec<u8> {
    let scope = Scope::empty();
    let mut out = Vec::new();
    if let Some((tag, mut reader)) = Reader::open(text, &scope) {
        copy_element(&tag, &mut reader, &mut out);
    }
    out
}

fn copy_element(tag: &Tag<'_>, reader: &mut Reader<'_>, out: &mut Vec<u8>) {
    let written =
        if tag.prefix.is_empty() { tag.name.to_owned() } else { format!("{}:{}", tag.prefix, tag.name) };
    out.push(b'<');
    out.extend_from_slice(written.as_bytes());
    for attribute in tag.attributes() {
        write::attribute(out, attribute.name, &attribute.value());
    }
    out.push(b'>');
    loop {
        let mut text = String::new();
        let child = reader.text_then_child(&mut text);
        write::escape_text(out, &text);
        match child {
            Some(child) => copy_element(&child, reader, out),
            None => break,
        }
    }
    out.extend_from_slice(b"</");
    out.extend_from_slice(written.as_bytes());
    out.push(b'>');
}

/// Makes inputs from seeds: flips, cuts, repeats, splices, and words that matter to XML.
#[derive(Debug, Clone)]
pub struct Mutator {
    state: u64,
    seeds: &'static [&'static [u8]],
}

impl Mutator {
    /// The same `seed` gives the same inputs.
    pub fn new(seed: u64, seeds: &'static [&'static [u8]]) -> Self {
        Self { state: seed ^ 0x9e37_79b9_7f4a_7c15, seeds }
    }

    /// The next input.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut data = self.seed().to_vec();
        for _ in 0..=self.below(4) {
            self.mutate(&mut data);
        }
        data
    }

    fn mutate(&mut self, data: &mut Vec<u8>) {
        let at = self.below(data.len() + 1);
        let end = (at + self.below(12)).min(data.len());
        match self.below(7) {
            0 => {
                if let Some(byte) = data.get_mut(at) {
                    *byte ^= 1 << (self.state & 7);
                }
            }
            1 => drop(data.drain(at..end)),
            2 => {
                let piece = data[at..end].to_vec();
                data.splice(at..at, piece);
            }
            3 => {
                let other = self.seed();
                let from = self.below(other.len());
                let to = (from + self.below(40)).min(other.len());
                data.splice(at..end, other[from..to].iter().copied());
            }
            4 => data.truncate(at),
            _ => {
                let word = WORDS[self.below(WORDS.len())];
                data.splice(at..at, word.bytes());
            }
        }
    }

    fn seed(&mut self) -> &'static [u8] {
        let at = self.below(self.seeds.len());
        self.seeds.get(at).copied().unwrap_or_default()
    }

    fn below(&mut self, bound: usize) -> usize {
        // xorshift64*
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let value = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        (value % bound.max(1) as u64) as usize
    }
}

const WORDS: &[&str] = &[
    "<",
    ">",
    "/>",
    "</",
    "'",
    "\"",
    "=",
    " ",
    "&",
    ";",
    ":",
    "<a>",
    "</a>",
    "<a/>",
    "<![CDATA[",
    "]]>",
    "<!--",
    "-->",
    "<?x?>",
    "<!DOCTYPE x>",
    "&#0;",
    "&#x41;",
    "&amp;",
    "&lol;",
    "xmlns:p='u'",
    "xmlns=''",
    "p:",
    "xml:lang='en'",
    "\u{FFFE}",
    "\u{e9}",
    "</stream:stream>",
    "type='valid'",
    "\0",
    "\r\n",
    "from='peer.example'",
    "to='us.example'",
    "@",
    ".",
    "[::1]",
    "\u{130}",
];
