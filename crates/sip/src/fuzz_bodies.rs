//! What a fuzzer runs on messages, header values and URIs: each function takes any octets, and neither panics nor lets
//! its rule be broken.

use std::time::Instant;

use bytes::Bytes;

use crate::{
    build::{ResponseBuilder, print},
    framer::{Frame, StreamFramer},
    headers::{EventHeader, MediaType, NameAddr, Via},
    message::{Message, MessageLimits, read_datagram},
    method::Method,
    transaction::{Incoming, Timers, Transactions},
    uas::{self, Verdict},
    uri::{Scheme, SipUri, UriRef},
};

/// What is read and printed reads as the same message, and prints as the same octets.
pub fn print_again(data: &[u8]) {
    let Ok(first) = read_datagram(Bytes::copy_from_slice(data), &MessageLimits::default()) else { return };
    let printed = print(&first);
    let second = read_datagram(Bytes::from(printed.clone()), &ROOMY).expect("what we print can be read");
    assert!(first.all_rows().eq(second.all_rows()), "the rows differ");
    assert_eq!(first.body(), second.body());
    assert_eq!(first.method(), second.method());
    assert_eq!(first.status(), second.status());
    assert_eq!(printed, print(&second));
}

/// Whatever a request is refused for, the refusal is one legal response, also on a stream.
pub fn refusal(data: &[u8]) {
    let limits = MessageLimits::default();
    match read_datagram(Bytes::copy_from_slice(data), &limits) {
        Ok(mut message) if message.is_request() => {
            if let Verdict::Refuse { status, headers } = uas::check(&message) {
                message.set_received("[2001:db8::1]:5060".parse().expect("an address"));
                let mut builder =
                    ResponseBuilder::to(&message, status, None).expect("a refusal finds its way");
                for (name, value) in &headers {
                    builder = builder.header(name, value);
                }
                is_one_response(&builder.render(), status);
            }
        }
        Ok(response) => assert_eq!(uas::check(&response), Verdict::Drop),
        Err(fault) => {
            if let Some(request) = Message::answerable(data, &limits) {
                let builder =
                    ResponseBuilder::to(&request, fault.status(), None).expect("a refusal finds its way");
                is_one_response(&builder.render(), fault.status());
            }
        }
    }
}

fn is_one_response(octets: &[u8], status: u16) {
    let mut framer = StreamFramer::new(ROOMY);
    framer.push(octets);
    let Ok(Some(Frame::Message(response))) = framer.next_frame() else { panic!("no message") };
    assert_eq!(response.status(), Some(status));
    assert!(response.body().is_empty() && !framer.is_inside(), "more than one message");
}

/// Any message, twice, at transactions that have a request of their own open: nothing is answered twice or grows.
pub fn transactions(data: &[u8], now: Instant) {
    let Ok(message) = read_datagram(Bytes::copy_from_slice(data), &MessageLimits::default()) else { return };
    let mut transactions = Transactions::new("p", Timers::default(), now);
    transactions.send((), Method::Message, None, false, now, |branch| branch.as_bytes().to_vec());
    for _ in 0..2 {
        if !message.is_request() {
            transactions.handle_response(message.clone(), now);
        } else if let Incoming::New(id) = transactions.handle_request(&message, 1, false, now) {
            let refusal = ResponseBuilder::to(&message, 400, None).map(|builder| builder.render());
            transactions.respond(id, refusal.unwrap_or_default(), now);
        }
    }
    assert!(transactions.servers() <= 1);
    assert!(std::iter::from_fn(|| transactions.poll_transmit()).count() <= 3);
}

/// Header values and URIs: a legal one is the same when read again, and a user part survives its escapes.
pub fn values(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = (EventHeader::parse(text).is_ok(), MediaType::parse(text).is_ok());
    if let Ok(via) = Via::parse(text) {
        let lenient = Via::parse_leniently(text).expect("a legal Via");
        assert_eq!((via.text, via.params), (lenient.text, lenient.params));
    } else if let Ok(lenient) = Via::parse_leniently(text) {
        assert!(Via::parse(lenient.text).is_ok(), "what is left of a Via is legal");
    }
    let uri = match NameAddr::parse(text) {
        Ok(address) => {
            let _ = (address.display_name(), address.tag());
            address.uri
        }
        Err(_) => match UriRef::parse(text) {
            Ok(uri) => uri,
            Err(_) => return,
        },
    };
    assert!(uri.matches(&uri), "a URI is itself");
    assert_eq!(UriRef::parse(uri.as_str()).map(|again| again.as_str()), Ok(uri.as_str()));
    if let (Ok(Some(user)), Some(host)) = (uri.user_decoded(), uri.host())
        && user.len() < 1000
    {
        let made = SipUri::from_parts(Scheme::Sip, Some(&user), host, uri.port()).expect("parts of a URI");
        assert_eq!(made.view().user_decoded(), Ok(Some(user)));
    }
}

/// For what we write ourselves, which may be a little longer than what was read.
const ROOMY: MessageLimits = MessageLimits { message: 1 << 20, field: 1 << 19, fields: 1000, vias: 1000 };
