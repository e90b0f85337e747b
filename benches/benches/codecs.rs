//! Reading and writing of one stanza, one SIP message, one document.

use std::hint::black_box;

use bytes::Bytes;
use divan::{Bencher, counter::ItemsCount};
use tombolo_fanout::Views;
use tombolo_interwork::{presence_to_sip::PidfWriter, presence_to_xmpp::difference};
use tombolo_presence::{Address, Availability, Device, Note, PresenceState};
use tombolo_sip::{
    build::ResponseBuilder,
    framer::{Frame as SipFrame, StreamFramer},
    message::{Message, MessageLimits, read_datagram},
    pidf,
};
use tombolo_xmpp::{
    framer::{Frame, Framer},
    stanza::{PresenceStanza, StanzaHead},
    xml::{Scope, XmlLimits, check},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

const HEADER: &str =
    "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";

/// A plain presence as clients send it.
const SHORT: &str = "<presence from='juliet@xmpp.example/balcony' to='romeo@sip.example'><show>away</show>\
    <status>Wherefore art thou</status><priority>5</priority></presence>";
/// The same with entity capabilities, a time of idleness and an avatar's hash.
const LONG: &str = "<presence from='juliet@xmpp.example/balcony' to='romeo@sip.example' id='p17'><show>away</show>\
    <status>Wherefore art thou</status><priority>5</priority><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' \
    node='https://client.example/' ver='QgayPKawpkPSDYmwT/WM94uAlu0='/><idle xmlns='urn:xmpp:idle:1' \
    since='2026-11-20T21:19:55+01:00'/><x xmlns='vcard-temp:x:update'><photo>01b87fcd030b72895ff8e88db57ec525450f000d\
    </photo></x></presence>";

fn stanza_of(name: &str) -> &'static str {
    if name == "short" { SHORT } else { LONG }
}

fn limits() -> XmlLimits {
    XmlLimits::UNAUTHENTICATED.with_element_bytes(262_144)
}

#[divan::bench(args = ["short", "long"])]
fn stanza_framed(bencher: Bencher, name: &str) {
    let stanza = stanza_of(name);
    let many = stanza.repeat(1000);
    let mut framer = Framer::new(limits());
    framer.push(HEADER.as_bytes());
    assert!(matches!(framer.next_frame(), Ok(Some(Frame::Header(_)))));
    framer.expect_stanzas();
    // The gate is in it.
    bencher.counter(ItemsCount::new(1000_u32)).bench_local(|| {
        framer.push(many.as_bytes());
        let mut count = 0;
        while let Ok(Some(frame)) = framer.next_frame() {
            black_box(frame);
            count += 1;
        }
        assert_eq!(count, 1000);
    });
}

#[divan::bench(args = ["short", "long"])]
fn stanza_through_the_gate(bencher: Bencher, name: &str) {
    let stanza = stanza_of(name);
    let (scope, limits) = (Scope::server(), limits());
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        black_box(check(black_box(stanza.as_bytes()), &scope, &limits).expect("well-formed"));
    });
}

#[divan::bench(args = ["short", "long"])]
fn stanza_head_read(bencher: Bencher, name: &str) {
    let stanza = stanza_of(name);
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        black_box(StanzaHead::read(black_box(stanza.as_bytes())).expect("a stanza"));
    });
}

#[divan::bench(args = ["short", "long"])]
fn presence_read(bencher: Bencher, name: &str) {
    let stanza = stanza_of(name);
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        black_box(PresenceStanza::read(black_box(stanza.as_bytes())).expect("presence"));
    });
}

fn notify() -> String {
    let body = document();
    format!(
        "NOTIFY sip:romeo@192.0.2.10:49152;transport=tcp SIP/2.0\r\n\
         Via: SIP/2.0/TCP 192.0.2.1:5060;branch=z9hG4bKnAAECAwQFBgcICQoLDA0ODw.17\r\nMax-Forwards: 70\r\n\
         From: <sip:juliet@xmpp.example>;tag=AAECAwQFBgcICQoLDA0ODw\r\nTo: <sip:romeo@sip.example>;tag=yt66\r\n\
         Call-ID: 4wcm0n@192.0.2.10\r\nCSeq: 17 NOTIFY\r\nContact: <sip:AAECAwQFBgcICQoLDA0ODw@192.0.2.1:5060>\r\n\
         Event: presence\r\nSubscription-State: active;expires=3540\r\nContent-Type: application/pidf+xml\r\n\
         Content-Length: {}\r\n\r\n{}",
        body.len(),
        String::from_utf8_lossy(&body)
    )
}

fn answer() -> Vec<u8> {
    let notify = message(notify().into());
    ResponseBuilder::to(&notify, 200, None).expect("a request").render()
}

fn message(octets: Bytes) -> Message {
    read_datagram(octets, &MessageLimits::default()).expect("a message")
}

#[divan::bench]
fn notify_head_indexed(bencher: Bencher) {
    let octets = Bytes::from(notify());
    let limits = MessageLimits::default();
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        black_box(read_datagram(octets.clone(), &limits).expect("a message"));
    });
}

/// From the stream to the status, the branch and the CSeq, as the 200 to a NOTIFY is read.
#[divan::bench]
fn response_to_notify_read(bencher: Bencher) {
    let many = answer().repeat(1000);
    bencher.counter(ItemsCount::new(1000_u32)).bench_local(|| {
        let mut framer = StreamFramer::new(MessageLimits::default());
        framer.push(&many);
        let mut count = 0;
        while let Ok(Some(SipFrame::Message(message))) = framer.next_frame() {
            let via = message.top_via().expect("a Via");
            black_box((message.status(), via.branch()));
            count += 1;
        }
        assert_eq!(count, 1000);
    });
}

#[divan::bench]
fn response_rendered(bencher: Bencher) {
    let notify = message(notify().into());
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        black_box(ResponseBuilder::to(black_box(&notify), 200, None).expect("a request").render());
    });
}

fn state(availability: Availability) -> PresenceState {
    let note = Note { lang: None, text: "Wherefore art thou".into() };
    let device =
        Device { id: "balcony".into(), availability, priority: Some(5), notes: vec![note], idle_since: None };
    PresenceState { devices: vec![device], notes: Vec::new() }
}

fn juliet() -> Address {
    Address::from_prepared("juliet@xmpp.example").expect("an address")
}

fn document() -> Vec<u8> {
    let mut views = Views::default();
    let view = views.intern(state(Availability::Away));
    PidfWriter::new(65_536).document(&juliet(), view, views.content(view)).to_vec()
}

#[divan::bench]
fn pidf_read(bencher: Bencher) {
    let (document, limits) = (document(), pidf::Limits::default());
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        black_box(pidf::read(black_box(&document), &limits).expect("a document"));
    });
}

#[divan::bench]
fn pidf_written(bencher: Bencher) {
    let pidf = pidf::read(&document(), &pidf::Limits::default()).expect("a document");
    let mut out = Vec::with_capacity(2048);
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        out.clear();
        pidf::write(black_box(&pidf), &mut out);
        black_box(out.len());
    });
}

/// From a presence state to the document of a NOTIFY; alternately of two states, so that none is remembered.
#[divan::bench]
fn state_to_pidf(bencher: Bencher) {
    let mut views = Views::default();
    let both = [Availability::Away, Availability::Chat].map(|availability| views.intern(state(availability)));
    let (juliet, mut writer, mut turn) = (juliet(), PidfWriter::new(65_536), 0);
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        turn ^= 1;
        black_box(writer.document(&juliet, both[turn], views.content(both[turn])).len());
    });
}

/// The stanza halves of one change, which are made once for all watchers.
#[divan::bench]
fn state_to_stanza_halves(bencher: Bencher) {
    let (old, new) = (state(Availability::Away), state(Availability::Chat));
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        black_box(difference("juliet@xmpp.example", black_box(&old), black_box(&new), false, 262_144));
    });
}
