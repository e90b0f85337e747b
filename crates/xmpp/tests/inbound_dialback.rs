//! Dialback and its pairs on streams that a peer opened: as receiving and as authoritative server.

mod common;

use common::{caller::*, *};
use tombolo_xmpp::{
    dialback::DialbackCondition,
    stream::{KeyAnswer, KeyQuestion, PartnerTerms, StreamFault, StreamLimits, TlsStart},
};

#[test]
fn xs_dna_03_a_partner_bound_to_a_certificate_is_not_let_in_by_dialback() {
    let mut side = stream(EXTERNAL, &["self-signed.example"]);
    side.hear(&header(PEER, US));
    side.hear(STARTTLS);
    side.start_tls();
    side.hear(&header(PEER, US));
    assert_eq!(side.error_sent(), Some("not-authorized"), "no features, no dialback");

    // Nor when it hides its name first.
    let mut side = stream(EXTERNAL, &["self-signed.example"]);
    side.hear(&header(PEER, US));
    side.hear(STARTTLS);
    side.start_tls();
    side.hear(&header(PEER, US).replace("from='peer.example'", ""));
    let answer = side.hear(&result(PEER, US, "k"));
    assert!(answer.contains("type='error'") && answer.contains("<not-authorized "), "{answer}");
    assert!(!side.is_proved(US, PEER) && side.count("KeyShown") == 0);
}

#[test]
fn xs_db_07_dialback_errors_are_advertised() {
    let (_, features) = over_tls(DIALBACK, &[]);
    assert!(
        features.contains("<dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback>"),
        "{features}"
    );
    let (_, features) = over_tls(EXTERNAL, &[PEER]);
    assert!(features.contains("<errors/>"), "for further domains: {features}");
}

#[test]
fn xs_db_01_as_receiving_server_a_key_is_asked_about_and_its_answer_decides() {
    let (mut side, features) = over_tls(DIALBACK, &[]);
    assert_eq!(side.hear(&result(PEER, US, "  the-key\n")), "");
    let question = shown(&side);
    let (head, _) = features.split_once("<stream:features>").expect("a header");
    assert_eq!((&question.pair, &*question.key), (&pair(US, PEER), "the-key"));
    assert_eq!(&*question.stream_id, last_attribute(head, "id"));
    side.answer_key(&question, KeyAnswer::Valid);
    assert_eq!(side.settle(), "<db:result from='us.example' to='peer.example' type='valid'/>");
    assert!(side.is_proved(US, PEER));
    side.hear("<presence from='a@peer.example' to='b@us.example'/>");
    assert_eq!(side.stanzas().len(), 1);
}

#[test]
fn xs_db_05_each_refusal_of_a_dialback_request_has_its_condition_and_leaves_the_stream() {
    let (mut side, _) = over_tls(DIALBACK, &[]);
    let answer = side.hear(&result(PEER, "stranger.example", "k"));
    assert_eq!(
        answer,
        "<db:result from='stranger.example' to='peer.example' type='error'><error type='cancel'>\
         <item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></db:result>"
    );
    assert!(side.hear(&result("stranger.example", US, "k")).contains("<policy-violation "));
    for (failure, name) in [
        (DialbackCondition::RemoteConnectionFailed, "remote-connection-failed"),
        (DialbackCondition::RemoteServerNotFound, "remote-server-not-found"),
        (DialbackCondition::RemoteServerTimeout, "remote-server-timeout"),
    ] {
        side.hear(&result(PEER, US, "k"));
        let question = shown(&side);
        side.answer_key(&question, KeyAnswer::Failed(failure));
        let answer = side.settle();
        assert!(answer.contains("type='error'") && answer.contains(&format!("<{name} ")), "{answer}");
        assert!(!side.stream.is_closed());
    }
    // A bad key of one pair of several: forbidden. Of the only one: invalid, and the end.
    side.hear(&result(PEER, US, "k"));
    side.hear(&result(PEER, "two.example", "k"));
    let question = shown(&side);
    side.answer_key(&question, KeyAnswer::Invalid);
    assert!(side.settle().contains("<forbidden "));
    let question = KeyQuestion { pair: pair(US, PEER), ..question };
    side.answer_key(&question, KeyAnswer::Invalid);
    assert_eq!(
        side.settle(),
        "<db:result from='us.example' to='peer.example' type='invalid'/></stream:stream>"
    );
    assert_eq!(fault(&side), &StreamFault::KeyInvalid { domain: domain(PEER) });

    // In the clear, where TLS is wanted.
    let mut plain = stream(DIALBACK, &[]);
    plain.hear(&header(PEER, US));
    let answer = plain.hear(&result(PEER, US, "k"));
    assert!(answer.contains("type='error'") && answer.contains("<policy-violation "), "{answer}");
}

#[test]
fn xs_db_05_an_authoritative_server_that_does_not_answer_is_a_timeout() {
    let (mut side, _) = over_tls(DIALBACK, &[]);
    side.now = after(10);
    side.hear(&result(PEER, US, "k"));
    let question = shown(&side);
    assert_eq!(side.stream.poll_timeout(), Some(after(30)), "the stream as a whole");
    // Another pair is proved meanwhile, so only the request runs out.
    side.hear(&result(PEER, "two.example", "k"));
    let other = shown(&side);
    side.answer_key(&other, KeyAnswer::Valid);
    side.settle();
    assert_eq!(side.stream.poll_timeout(), Some(after(40)));
    let answer = side.at(after(40));
    assert!(
        answer.contains("to='peer.example' type='error'") && answer.contains("<remote-server-timeout "),
        "{answer}"
    );
    // A late answer gives nothing.
    side.answer_key(&question, KeyAnswer::Valid);
    assert_eq!(side.settle(), "");
    assert!(!side.is_proved(US, PEER));
}

#[test]
fn xs_db_04_answers_on_a_stream_that_a_peer_opened_give_no_authority() {
    let (mut side, _) = over_tls(DIALBACK, &[]);
    for unasked in [
        "<db:result from='us.example' to='peer.example' type='valid'/>",
        "<db:result from='peer.example' to='us.example' type='valid'/>",
        "<db:verify from='peer.example' to='us.example' id='x' type='valid'/>",
        "<db:verify from='peer.example' to='us.example' id='x' type='error'/>",
    ] {
        assert_eq!(side.hear(unasked), "");
    }
    assert_eq!(side.count("UnsolicitedDialback"), 4);
    assert_eq!(side.stream.proved_pairs(), []);
    side.hear("<presence from='a@peer.example' to='b@us.example'/>");
    assert_eq!(side.error_sent(), Some("not-authorized"));
}

#[test]
fn xs_db_04_an_answer_to_another_stream_or_pair_is_ignored() {
    let (mut side, _) = over_tls(DIALBACK, &[]);
    side.hear(&result(PEER, US, "k"));
    let question = shown(&side);
    for wrong in [
        KeyQuestion { stream_id: "other".into(), ..question.clone() },
        KeyQuestion { pair: pair("two.example", PEER), ..question.clone() },
        KeyQuestion { pair: pair(PEER, US), ..question.clone() },
    ] {
        side.answer_key(&wrong, KeyAnswer::Valid);
        assert_eq!(side.settle(), "");
    }
    assert_eq!(side.stream.proved_pairs(), []);
}

#[test]
fn xs_db_06_as_authoritative_server_any_node_with_the_secret_answers() {
    // The key was made by another node for the stream `id` of the receiving server peer.example.
    let key = secrets("ours").key(PEER, US, "D60000229F");
    let verify = |to: &str, id: &str, key: &str| {
        format!("<db:verify from='peer.example' to='{to}' id='{id}'>{key}</db:verify>")
    };
    let (mut side, _) = over_tls(DIALBACK, &[]);
    assert_eq!(
        side.hear(&verify(US, "D60000229F", &key)),
        "<db:verify from='us.example' to='peer.example' id='D60000229F' type='valid'/>"
    );
    for (to, id, key) in
        [(US, "D60000229E", &*key), (US, "D60000229F", &key[1..]), ("two.example", "D60000229F", &key)]
    {
        let answer = side.hear(&verify(to, id, key));
        assert_eq!(answer, format!("<db:verify from='{to}' to='peer.example' id='{id}' type='invalid'/>"));
    }
    let answer = side.hear(&verify("stranger.example", "D60000229F", &key));
    assert!(answer.contains("type='error'") && answer.contains("<item-not-found "), "{answer}");
    assert_eq!(side.stream.proved_pairs(), [], "asking proves nothing");
}

#[test]
fn xs_db_08_a_certificate_that_names_the_domain_answers_for_it_without_a_call_back() {
    let mut side = authenticated();
    side.peer_names.push("rooms.peer.example");
    let answer = side.hear(&result("rooms.peer.example", US, "k"));
    assert!(answer.contains("<not-authorized "), "the certificate names peer.example only: {answer}");
    assert_eq!(side.count("KeyShown"), 0);

    let (mut side, _) = over_tls(EXTERNAL, &[PEER, "rooms.peer.example"]);
    side.hear(&auth("="));
    side.hear(&header(PEER, US));
    let answer = side.hear(&result("rooms.peer.example", US, "k"));
    assert_eq!(answer, "<db:result from='us.example' to='rooms.peer.example' type='valid'/>");
    assert!(side.is_proved(US, "rooms.peer.example"));
    assert_eq!(side.count("KeyShown"), 0, "nobody was asked");
}

#[test]
fn xs_mux_02_each_stanza_is_checked_against_the_exact_pair() {
    let prove_two = || {
        let (mut side, _) = over_tls(EXTERNAL, &[PEER, "rooms.peer.example"]);
        side.hear(&auth("="));
        side.hear(&header(PEER, US));
        side.hear(&result("rooms.peer.example", "two.example", "k"));
        assert_eq!(side.stream.proved_pairs().len(), 2);
        side
    };
    let mut side = prove_two();
    side.hear("<presence from='a@peer.example' to='b@us.example'/><presence from='rooms.peer.example/x' to='two.example'/>");
    assert_eq!(side.stanzas().len(), 2);
    for (from, to, condition) in [
        ("a@other.example", "b@us.example", "invalid-from"),
        ("us.example", "b@us.example", "invalid-from"),
        ("a@peer.example", "b@two.example", "host-unknown"),
        ("a@rooms.peer.example", "b@us.example", "host-unknown"),
        ("a@peer.example", "b@stranger.example", "host-unknown"),
        ("a@xpeer.example", "b@us.example", "invalid-from"),
    ] {
        let mut side = prove_two();
        side.hear(&format!("<presence from='{from}' to='{to}'/>"));
        assert_eq!(side.error_sent(), Some(condition), "{from} to {to}");
        assert_eq!(side.stanzas().len(), 0);
    }
}

#[test]
fn before_authentication_elements_are_counted() {
    let (mut side, _) = over_tls(DIALBACK, &[]);
    for n in 0..128 {
        side.hear(&format!("<db:verify from='peer.example' to='us.example' id='{n}'>00</db:verify>"));
        assert!(!side.stream.is_closed(), "{n}");
    }
    side.hear("<db:verify from='peer.example' to='us.example' id='x'>00</db:verify>");
    assert_eq!(fault(&side), &StreamFault::TooManyElements { limit: 128 });
}

#[test]
fn pairs_of_a_stream_are_bounded() {
    let mut table =
        Table::new(&[US], &[(PEER, EXTERNAL), ("a.peer.example", EXTERNAL), ("b.peer.example", EXTERNAL)]);
    table.served.push("two.example");
    let limits = StreamLimits { pairs: 2, ..StreamLimits::default() };
    let names = [PEER, "a.peer.example", "b.peer.example"];
    let mut side = Side::inbound(inbound_with(limits, "ours", TlsStart::Direct, 1), table, &names);
    side.tls_up();
    side.hear(&header(PEER, US));
    side.hear(&auth("="));
    side.hear(&header(PEER, US));
    assert!(side.hear(&result("a.peer.example", US, "k")).contains("type='valid'"));
    assert!(side.hear(&result("b.peer.example", US, "k")).contains("<resource-constraint "));
    assert!(side.hear(&result("a.peer.example", US, "k")).contains("type='valid'"), "proved already");
}

#[test]
fn a_good_key_proves_nothing_when_policy_does_not_allow_it_any_more_by_the_time_of_its_answer() {
    for terms in [None, Some(EXTERNAL)] {
        let (mut side, _) = over_tls(DIALBACK, &[]);
        side.hear(&result(PEER, US, "k"));
        let question = shown(&side);
        side.table.partners.remove(PEER);
        side.table.partners.extend(terms.map(|terms| (PEER, terms)));
        side.answer_key(&question, KeyAnswer::Valid);
        let answer = side.settle();
        assert!(answer.contains("type='error'") && answer.contains("<policy-violation "), "{answer}");
        assert!(!side.is_proved(US, PEER) && !side.stream.is_closed());
    }
}

#[test]
fn a_change_of_policy_refuses_a_key_that_is_still_asked_about_and_keeps_one_that_is_as_good_as_before() {
    let (mut side, _) = over_tls(DIALBACK, &[]);
    side.hear(&result(PEER, US, "k"));
    let refused = shown(&side);
    side.hear(&result("rooms.peer.example", US, "k"));
    let kept = shown(&side);
    let mut table = side.table.clone();
    table.partners.remove(PEER);
    assert_eq!(side.change_policy(table), [], "no pair was proved");
    let answer = side.settle();
    assert!(
        answer.contains("to='peer.example' type='error'") && answer.contains("<policy-violation "),
        "{answer}"
    );
    side.answer_key(&refused, KeyAnswer::Valid);
    assert_eq!(side.settle(), "", "it was answered already");
    side.answer_key(&kept, KeyAnswer::Valid);
    assert!(side.settle().contains("to='rooms.peer.example' type='valid'"));
    assert_eq!(side.stream.proved_pairs(), [pair(US, "rooms.peer.example")]);
}

#[test]
fn a_pair_is_lost_when_policy_does_not_allow_the_way_any_more_in_which_it_was_proved() {
    let by_key = || {
        let (mut side, _) = over_tls(BOTH, &[]);
        side.hear(&result(PEER, US, "k"));
        let question = shown(&side);
        side.answer_key(&question, KeyAnswer::Valid);
        side.settle();
        assert!(side.is_proved(US, PEER));
        side
    };
    let in_the_clear = || {
        let mut side = stream(PLAIN, &[]);
        side.hear(&header(PEER, US));
        side.hear(&result(PEER, US, "k"));
        let question = shown(&side);
        side.answer_key(&question, KeyAnswer::Valid);
        side.settle();
        assert!(side.is_proved(US, PEER));
        side
    };
    let by_certificate = authenticated;
    let cases: [(&dyn Fn() -> Side, PartnerTerms, bool); 8] = [
        (&by_key, DIALBACK, true),
        (&by_key, PLAIN, true),
        (&by_key, EXTERNAL, false),
        (&in_the_clear, PLAIN, true),
        (&in_the_clear, BOTH, false),
        (&by_certificate, BOTH, true),
        (&by_certificate, EXTERNAL, true),
        (&by_certificate, DIALBACK, false),
    ];
    for (n, (begin, terms, is_kept)) in cases.into_iter().enumerate() {
        let mut side = begin();
        let lost = side.change_policy(Table::new(&[US], &[(PEER, terms)]));
        let expected = if is_kept { vec![] } else { vec![pair(US, PEER)] };
        assert_eq!(lost, expected, "case {n}");
        side.hear("<presence from='a@peer.example' to='b@us.example'/>");
        assert_eq!(side.error_sent(), (!is_kept).then_some("invalid-from"), "case {n}");
    }
}

#[test]
fn a_peer_that_has_proved_nothing_has_four_keys_asked_about_at_a_time_and_more_once_it_has_proved_a_pair() {
    let names = ["a.peer.example", "b.peer.example", "c.peer.example", "d.peer.example", "e.peer.example"];
    let mut partners = vec![(PEER, DIALBACK)];
    partners.extend(names.map(|name| (name, DIALBACK)));
    let inbound = inbound_with(StreamLimits::default(), "ours", TlsStart::Direct, 1);
    let mut side = Side::inbound(inbound, Table::new(&[US], &partners), &[]);
    side.tls_up();
    side.hear(&header(PEER, US));
    for name in &names[..4] {
        assert_eq!(side.hear(&result(name, US, "k")), "");
    }
    assert!(side.hear(&result(names[4], US, "k")).contains("<resource-constraint "));
    assert_eq!(side.count("KeyShown"), 4);

    let question = shown(&side);
    side.answer_key(&question, KeyAnswer::Valid);
    side.settle();
    for name in [names[4], PEER] {
        assert_eq!(side.hear(&result(name, US, "k")), "");
    }
    assert_eq!(side.count("KeyShown"), 6);
}
