//! Our two machines joined in memory: initiator, receiver and, for dialback, the authoritative server.

mod common;

use common::*;
use tombolo_xmpp::stream::{
    CloseCause, KeyAnswer, KeyQuestion, Method, PartnerTerms, Purpose, Refusal, StreamEvent, StreamFault,
    StreamLimits, TlsStart,
};

const MONTAGUE: &str = "montague.example";
const CAPULET: &str = "capulet.example";

fn servers(
    terms: PartnerTerms,
    tls: TlsStart,
    capulet_shows: &[&'static str],
    montague_shows: &[&'static str],
) -> (Side, Side) {
    let of_capulet = Table::new(&[CAPULET, "rooms.capulet.example"], &[(MONTAGUE, terms)]);
    let of_montague = Table::new(&[MONTAGUE], &[(CAPULET, terms), ("rooms.capulet.example", terms)]);
    let limits = StreamLimits::default();
    let initiator = outbound_with(limits, "of capulet", dial(CAPULET, MONTAGUE, Purpose::Send, tls));
    let receiver = inbound_with(limits, "of montague", tls, 3);
    let mut initiator = Side::outbound(initiator, of_capulet, montague_shows);
    let mut receiver = Side::inbound(receiver, of_montague, capulet_shows);
    if tls == TlsStart::Direct {
        initiator.begin_with_tls();
        receiver.begin_with_tls();
    }
    join(&mut initiator, &mut receiver);
    (initiator, receiver)
}

fn method(side: &Side) -> Option<Method> {
    side.events.iter().rev().find_map(|event| match event {
        StreamEvent::PairProved { method, .. } => Some(*method),
        _ => None,
    })
}

fn shown(side: &Side) -> KeyQuestion {
    let question = side.events.iter().rev().find_map(|event| match event {
        StreamEvent::KeyShown(question) => Some(question.clone()),
        _ => None,
    });
    question.expect("a key was shown")
}

/// Asks the authoritative server of capulet, which has `secret`, over a stream of its own.
fn ask(question: &KeyQuestion, secret: &str, terms: PartnerTerms) -> KeyAnswer {
    let limits = StreamLimits::default();
    let dial = dial(MONTAGUE, CAPULET, Purpose::Verify, TlsStart::StartTls);
    let of_montague = Table::new(&[MONTAGUE], &[(CAPULET, terms), ("rooms.capulet.example", terms)]);
    let of_capulet = Table::new(&[CAPULET, "rooms.capulet.example"], &[(MONTAGUE, terms)]);
    let mut asker = Side::outbound(outbound_with(limits, "of montague", dial), of_montague, &[]);
    let mut authority = Side::inbound(inbound_with(limits, secret, TlsStart::StartTls, 9), of_capulet, &[]);
    let table = asker.table.clone();
    asker.as_outbound().ask_key(question.clone(), epoch(), &table);
    join(&mut asker, &mut authority);
    assert_eq!(authority.stream.proved_pairs(), []);
    let answer = asker.events.iter().find_map(|event| match event {
        StreamEvent::KeyAnswered { question: asked, answer } if asked == question => Some(*answer),
        _ => None,
    });
    answer.unwrap_or_else(|| panic!("no answer: {:?} {:?}", asker.events, authority.events))
}

fn send(from: &mut Side, to: &mut Side, local: &str, remote: &str, text: &str) {
    from.as_outbound().send_stanzas(&pair(local, remote), text.as_bytes()).expect("a proved pair");
    join(from, to);
}

#[test]
fn two_servers_with_certificates_use_external_and_stanzas_flow_one_way() {
    for tls in [TlsStart::StartTls, TlsStart::Direct] {
        let (mut initiator, mut receiver) = servers(EXTERNAL, tls, &[CAPULET], &[MONTAGUE]);
        assert_eq!((method(&initiator), method(&receiver)), (Some(Method::External), Some(Method::External)));
        // XEP-0478: what the receiver takes is known to the initiator.
        assert_eq!(initiator.as_outbound().max_bytes(), Some(262_144));
        let presence = "<presence from='juliet@capulet.example/balcony' to='romeo@montague.example'/>";
        send(&mut initiator, &mut receiver, CAPULET, MONTAGUE, presence);
        assert_eq!(receiver.stanzas(), [presence]);
        initiator.stream.close(epoch());
        join(&mut initiator, &mut receiver);
        assert!(matches!(initiator.cause(), Some(CloseCause::Ordered)));
        assert!(matches!(receiver.cause(), Some(CloseCause::Ordered)));
    }
}

#[test]
fn xs_db_01_dialback_with_an_authoritative_server_lets_the_pair_through() {
    let (mut initiator, mut receiver) = servers(DIALBACK, TlsStart::StartTls, &[], &[]);
    assert_eq!(method(&initiator), None);
    let question = shown(&receiver);
    let answer = ask(&question, "of capulet", DIALBACK);
    assert_eq!(answer, KeyAnswer::Valid);
    receiver.answer_key(&question, answer);
    join(&mut initiator, &mut receiver);
    assert_eq!(method(&initiator), Some(Method::DialbackByPeer));
    assert_eq!(method(&receiver), Some(Method::DialbackWithTls));
    let message = "<message from='a@capulet.example' to='b@montague.example'><body>x</body></message>";
    send(&mut initiator, &mut receiver, CAPULET, MONTAGUE, message);
    assert_eq!(receiver.stanzas(), [message]);
}

#[test]
fn servers_that_may_do_without_tls_use_it_all_the_same() {
    let (mut initiator, mut receiver) = servers(PLAIN, TlsStart::StartTls, &[], &[]);
    let question = shown(&receiver);
    receiver.answer_key(&question, ask(&question, "of capulet", PLAIN));
    join(&mut initiator, &mut receiver);
    assert_eq!(method(&receiver), Some(Method::DialbackWithTls));
}

#[test]
fn a_key_of_somebody_else_is_refused_at_the_authoritative_server() {
    let (mut initiator, mut receiver) = servers(DIALBACK, TlsStart::StartTls, &[], &[]);
    let question = shown(&receiver);
    let answer = ask(&question, "another secret", DIALBACK);
    assert_eq!(answer, KeyAnswer::Invalid);
    receiver.answer_key(&question, answer);
    join(&mut initiator, &mut receiver);
    let refused =
        |event: &StreamEvent| matches!(event, StreamEvent::PairRefused { refusal: Refusal::Invalid, .. });
    assert!(initiator.events.iter().any(refused), "{:?}", initiator.events);
    assert!(initiator.stream.is_closed() && receiver.stream.is_closed());
    assert!(initiator.stream.proved_pairs().is_empty() && receiver.stream.proved_pairs().is_empty());
}

#[test]
fn when_external_fails_dialback_goes_on_upon_the_same_stream() {
    // capulet's certificate does not satisfy montague, which offers no EXTERNAL then.
    let (mut initiator, mut receiver) = servers(BOTH, TlsStart::StartTls, &[], &[MONTAGUE]);
    let question = shown(&receiver);
    receiver.answer_key(&question, ask(&question, "of capulet", BOTH));
    join(&mut initiator, &mut receiver);
    assert!(initiator.is_proved(CAPULET, MONTAGUE) && receiver.is_proved(MONTAGUE, CAPULET));
}

#[test]
fn a_partner_bound_to_certificates_is_refused_without_one_by_either_side() {
    let (initiator, receiver) = servers(EXTERNAL, TlsStart::StartTls, &[], &[MONTAGUE]);
    assert!(matches!(receiver.cause(), Some(CloseCause::Fault(StreamFault::Certificate { .. }))));
    assert!(matches!(initiator.cause(), Some(CloseCause::PeerError { .. })), "{:?}", initiator.events);

    let (initiator, receiver) = servers(EXTERNAL, TlsStart::StartTls, &[CAPULET], &[]);
    assert!(matches!(initiator.cause(), Some(CloseCause::Fault(StreamFault::Certificate { .. }))));
    assert!(receiver.stream.proved_pairs().is_empty());
}

#[test]
fn a_further_domain_is_piggybacked_by_its_certificate_or_by_its_key() {
    let rooms = "rooms.capulet.example";
    let (mut initiator, mut receiver) = servers(EXTERNAL, TlsStart::StartTls, &[CAPULET, rooms], &[MONTAGUE]);
    let table = initiator.table.clone();
    initiator.as_outbound().prove(pair(rooms, MONTAGUE), epoch(), &table);
    join(&mut initiator, &mut receiver);
    assert_eq!(method(&receiver), Some(Method::Certificate));
    let presence = "<presence from='hall@rooms.capulet.example/x' to='romeo@montague.example'/>";
    send(&mut initiator, &mut receiver, rooms, MONTAGUE, presence);
    assert_eq!(receiver.stanzas(), [presence]);

    let (mut initiator, mut receiver) = servers(BOTH, TlsStart::StartTls, &[CAPULET], &[MONTAGUE]);
    initiator.as_outbound().prove(pair(rooms, MONTAGUE), epoch(), &table);
    join(&mut initiator, &mut receiver);
    let question = shown(&receiver);
    receiver.answer_key(&question, ask(&question, "of capulet", BOTH));
    join(&mut initiator, &mut receiver);
    assert!(receiver.is_proved(MONTAGUE, rooms) && receiver.is_proved(MONTAGUE, CAPULET));
    assert_eq!(method(&receiver), Some(Method::DialbackWithTls));
}

#[test]
fn fifty_domains_of_a_peer_share_one_stream() {
    let domains: Vec<&'static str> = (0..50).map(|n| &*format!("d{n}.capulet.example").leak()).collect();
    let (mut initiator, mut receiver) = servers(BOTH, TlsStart::StartTls, &[CAPULET], &[MONTAGUE]);
    receiver.table.partners.extend(domains.iter().map(|domain| (*domain, BOTH)));
    let table = initiator.table.clone();
    for domain in &domains {
        initiator.as_outbound().prove(pair(domain, MONTAGUE), epoch(), &table);
    }
    join(&mut initiator, &mut receiver);
    let shown: Vec<KeyQuestion> = receiver
        .events
        .iter()
        .filter_map(|event| match event {
            StreamEvent::KeyShown(question) => Some(question.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(shown.len(), 50);
    for question in &shown {
        receiver.answer_key(question, KeyAnswer::Valid);
    }
    join(&mut initiator, &mut receiver);
    for domain in &domains {
        let presence = format!("<presence from='a@{domain}' to='romeo@montague.example'/>");
        send(&mut initiator, &mut receiver, domain, MONTAGUE, &presence);
    }
    assert_eq!(receiver.stanzas().len(), 50);
}

#[test]
fn a_stranger_is_refused_by_name() {
    let limits = StreamLimits::default();
    let stranger =
        outbound_with(limits, "s", dial("stranger.example", MONTAGUE, Purpose::Send, TlsStart::StartTls));
    let mut stranger =
        Side::outbound(stranger, Table::new(&["stranger.example"], &[(MONTAGUE, BOTH)]), &[MONTAGUE]);
    let table = Table::new(&[MONTAGUE], &[(CAPULET, BOTH)]);
    let mut receiver =
        Side::inbound(inbound_with(limits, "m", TlsStart::StartTls, 1), table, &["stranger.example"]);
    join(&mut stranger, &mut receiver);
    assert_eq!(receiver.error_sent(), Some("policy-violation"));
    assert!(matches!(receiver.cause(), Some(CloseCause::Fault(StreamFault::UnknownPartner { .. }))));
}
