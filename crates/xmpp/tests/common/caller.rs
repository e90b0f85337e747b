//! `peer.example` calls `us.example`: a stream that it opened, brought as far as a test needs it.

use tombolo_xmpp::stream::{
    CloseCause, KeyQuestion, PartnerTerms, StreamEvent, StreamFault, StreamLimits, TlsStart,
};

use super::*;

pub const US: &str = "us.example";
pub const PEER: &str = "peer.example";

/// A stream from `peer.example`, whose certificate names `names`, on these terms.
pub fn stream(terms: PartnerTerms, names: &[&'static str]) -> Side {
    stream_with(StreamLimits::default(), terms, names)
}

fn stream_with(limits: StreamLimits, terms: PartnerTerms, names: &[&'static str]) -> Side {
    let mut table = Table::new(&[US, "two.example"], &[(PEER, terms), ("rooms.peer.example", terms)]);
    table.gone.push("old.example");
    Side::inbound(inbound_with(limits, "ours", TlsStart::StartTls, 1), table, names)
}

/// The same, up to the features after TLS, which are returned too.
pub fn over_tls(terms: PartnerTerms, names: &[&'static str]) -> (Side, String) {
    upgraded(stream(terms, names))
}

fn upgraded(mut side: Side) -> (Side, String) {
    side.hear(&header(PEER, US));
    assert_eq!(side.hear(STARTTLS), PROCEED);
    side.start_tls();
    let features = side.hear(&header(PEER, US));
    (side, features)
}

/// The same, authenticated by SASL EXTERNAL.
pub fn authenticated() -> Side {
    authenticated_with(StreamLimits::default())
}

/// The same with other limits.
pub fn authenticated_with(limits: StreamLimits) -> Side {
    let (mut side, _) = upgraded(stream_with(limits, EXTERNAL, &[PEER]));
    assert_eq!(side.hear(&auth("=")), "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    side.hear(&header(PEER, US));
    assert!(side.is_proved(US, PEER));
    side
}

pub fn fault(side: &Side) -> &StreamFault {
    match side.cause() {
        Some(CloseCause::Fault(fault)) => fault,
        other => panic!("no fault but {other:?}"),
    }
}

pub fn shown(side: &Side) -> KeyQuestion {
    let question = side.events.iter().rev().find_map(|event| match event {
        StreamEvent::KeyShown(question) => Some(question.clone()),
        _ => None,
    });
    question.expect("a key was shown")
}

pub fn result(from: &str, to: &str, key: &str) -> String {
    format!("<db:result from='{from}' to='{to}'>{key}</db:result>")
}
