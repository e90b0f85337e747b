//! Streams that a peer opened: header, STARTTLS, SASL, dialback, stanzas, end.

mod common;

use std::time::Duration;

use common::{caller::*, *};
use tombolo_xmpp::{
    stream::{CloseCause, KeyAnswer, PartnerTerms, StreamEvent, StreamFault, StreamLimits, TlsStart},
    stream_error::StreamCondition,
    xml::XmlFault,
};

#[test]
fn xs_str_02_the_response_header_swaps_the_addresses_and_has_a_new_id_each_time() {
    let mut side = stream(EXTERNAL, &[PEER]);
    let plain = side.hear(&header(PEER, US));
    side.hear(STARTTLS);
    side.start_tls();
    let tls = side.hear(&header(PEER, US));
    side.hear(&auth("="));
    let authenticated = side.hear(&header(PEER, US));
    let mut ids = Vec::new();
    for answer in [&plain, &tls, &authenticated] {
        let (head, _) = answer.split_once("<stream:features>").expect("header and features");
        assert!(head.contains(" from='us.example' to='peer.example'"), "{head}");
        assert!(head.contains(" version='1.0'") && head.contains(" xml:lang='en'"), "{head}");
        assert!(head.contains(" xmlns='jabber:server'"), "{head}");
        ids.push(last_attribute(head, "id").to_owned());
    }
    ids.dedup();
    assert_eq!(ids.len(), 3, "{ids:?}");
}

#[test]
fn xs_str_03_a_bad_header_is_answered_by_header_error_and_close() {
    let good = header(PEER, US);
    for (bad, condition) in [
        (
            good.replace("http://etherx.jabber.org/streams", "http://wrong.example/streams"),
            "invalid-namespace",
        ),
        (good.replace("xmlns='jabber:server'", "xmlns='jabber:client'"), "invalid-namespace"),
        (good.replace("jabber:server:dialback", "jabber:other"), "invalid-namespace"),
        (
            good.replace("stream:stream", "s:stream").replace("xmlns:stream", "xmlns:s"),
            "bad-namespace-prefix",
        ),
        (
            good.replace(
                "<stream:stream xmlns='jabber:server'",
                "<stream xmlns='http://etherx.jabber.org/streams'",
            ),
            "bad-namespace-prefix",
        ),
        (good.replace("version='1.0'>", "version='2.0'>"), "unsupported-version"),
        (good.replace("version='1.0'>", "version='x'>"), "unsupported-version"),
        (good.replace("stream:stream", "stream:flood"), "invalid-namespace"),
        (good.replace("version='1.0'>", "to='x' version='1.0'>"), "not-well-formed"),
    ] {
        let mut side = stream(EXTERNAL, &[PEER]);
        let answer = side.hear(&bad);
        assert_eq!(side.error_sent(), Some(condition), "{bad}");
        assert!(answer.starts_with("<?xml version='1.0'?><stream:stream "), "{answer}");
        assert!(answer.ends_with("</stream:error></stream:stream>"), "{answer}");
        assert!(side.stream.is_closed());
    }
}

#[test]
fn xs_str_04_a_stream_for_a_domain_that_is_not_served_ends_with_host_unknown_or_host_gone() {
    for (to, condition) in [
        ("to='stranger.example'", "host-unknown"),
        ("to='not a domain'", "host-unknown"),
        ("", "host-unknown"),
        ("to='old.example'", "host-gone"),
    ] {
        let mut side = stream(EXTERNAL, &[PEER]);
        let answer = side.hear(&header(PEER, US).replace("to='us.example'", to));
        assert!(
            answer.starts_with("<?xml version='1.0'?><stream:stream ") && !answer.contains(" from="),
            "{answer}"
        );
        assert_eq!(side.error_sent(), Some(condition), "{to}");
    }
}

#[test]
fn a_peer_that_is_no_partner_is_refused_by_its_name() {
    let mut side = stream(EXTERNAL, &[]);
    side.hear(&header("stranger.example", US));
    assert_eq!(side.error_sent(), Some("policy-violation"));
    let mut side = stream(EXTERNAL, &[]);
    side.hear(&header("not a domain", US));
    assert_eq!(side.error_sent(), Some("invalid-from"));
}

#[test]
fn xs_str_05_a_peer_of_version_1_gets_features_after_each_header_and_an_older_one_none() {
    let mut side = stream(EXTERNAL, &[PEER]);
    assert!(side.hear(&header(PEER, US)).contains("<stream:features>"));
    side.hear(STARTTLS);
    side.start_tls();
    assert!(side.hear(&header(PEER, US)).contains("<stream:features>"));
    side.hear(&auth("="));
    assert!(side.hear(&header(PEER, US)).contains("<stream:features>"));

    let mut old = stream(PLAIN, &[]);
    let answer = old.hear(&header(PEER, US).replace(" version='1.0'>", ">"));
    assert!(!answer.contains("features") && !answer.contains(" version='1.0' "), "{answer}");
}

#[test]
fn xs_str_06_a_stanza_before_authentication_is_refused_and_not_delivered() {
    for before_tls in [true, false] {
        let mut side = if before_tls {
            let mut side = stream(EXTERNAL, &[PEER]);
            side.hear(&header(PEER, US));
            side
        } else {
            over_tls(EXTERNAL, &[PEER]).0
        };
        side.hear("<message from='a@peer.example' to='b@us.example'><body>early</body></message>");
        assert_eq!(side.error_sent(), Some("not-authorized"));
        assert_eq!(side.stanzas(), Vec::<String>::new());
    }
}

#[test]
fn xs_str_07_stanzas_that_come_between_our_close_and_the_peers_are_handled() {
    let mut side = authenticated();
    side.stream.close(side.now);
    assert_eq!(side.settle(), "</stream:stream>");
    for n in 0..100 {
        side.hear(&format!("<message from='a@peer.example' to='b@us.example' id='{n}'/>"));
    }
    assert_eq!(side.stanzas().len(), 100);
    assert_eq!(side.hear("</stream:stream>"), "", "we closed already");
    assert!(matches!(side.cause(), Some(CloseCause::Ordered)));

    let mut silent = authenticated();
    silent.stream.close(silent.now);
    assert_eq!(silent.stream.poll_timeout(), Some(after(5)));
    silent.settle();
    silent.at(after(5));
    assert!(matches!(silent.cause(), Some(CloseCause::CloseTimedOut)));

    let mut peer_first = authenticated();
    assert_eq!(peer_first.hear("</stream:stream>"), "</stream:stream>");
    assert!(matches!(peer_first.cause(), Some(CloseCause::Ordered)));
}

#[test]
fn xs_str_08_an_error_of_the_peer_ends_the_stream_and_nothing_behind_it_counts() {
    for condition in StreamCondition::ALL {
        let mut side = authenticated();
        let answer = side.hear(&format!(
            "<stream:error><{} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>\
             <message from='a@peer.example' to='b@us.example'/></stream:stream>",
            condition.as_str()
        ));
        assert_eq!(answer, "</stream:stream>");
        assert_eq!(side.stanzas().len(), 0);
        match side.cause() {
            Some(CloseCause::PeerError { error, .. }) => assert_eq!(error.condition, *condition),
            other => panic!("{other:?}"),
        }
        assert_eq!(side.hear("<presence from='a@peer.example' to='b@us.example'/>"), "");
        assert_eq!(side.count("Closed"), 1);
    }
}

#[test]
fn starttls_is_offered_as_required() {
    let mut side = stream(BOTH, &[PEER]);
    let features = side.hear(&header(PEER, US));
    assert!(
        features.contains("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>"),
        "{features}"
    );
    assert!(!features.contains("mechanism") && !features.contains("dialback>"), "{features}");

    let mut insecure = stream(PLAIN, &[]);
    let features = insecure.hear(&header(PEER, US));
    assert!(features.contains("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"), "{features}");
}

#[test]
fn xs_tls_02_bytes_behind_starttls_in_the_same_segment_end_the_stream() {
    for after_starttls in [
        header(PEER, US),
        " ".into(),
        "<presence from='a@peer.example' to='b@us.example'/>".into(),
        "\u{16}\u{3}\u{1}".into(),
    ] {
        let mut side = stream(BOTH, &[PEER]);
        side.hear(&header(PEER, US));
        let answer = side.hear(&format!("{STARTTLS}{after_starttls}"));
        assert!(!answer.contains("proceed"), "{answer}");
        assert_eq!(fault(&side), &StreamFault::BytesBeforeTls);
    }
    // Also when they come a little later, before TLS.
    let mut side = stream(BOTH, &[PEER]);
    side.hear(&header(PEER, US));
    assert_eq!(side.hear(STARTTLS), PROCEED);
    assert_eq!(side.hear(&header(PEER, US)), "", "nothing in the clear behind proceed");
    assert_eq!(fault(&side), &StreamFault::BytesBeforeTls);
}

#[test]
fn xs_tls_02_what_was_said_before_tls_is_forgotten() {
    let mut side = stream(BOTH, &["two-faced.example"]);
    side.table.partners.insert("two-faced.example", EXTERNAL);
    side.hear(&header(PEER, US));
    side.hear(STARTTLS);
    side.start_tls();
    // The header before TLS named peer.example; only the new one counts.
    let features = side.hear(&header("two-faced.example", "two.example"));
    assert!(features.contains("from='two.example' to='two-faced.example'"), "{features}");
    assert!(features.contains("<mechanism>EXTERNAL</mechanism>"), "{features}");
    side.hear(&auth("="));
    side.hear(&header("two-faced.example", "two.example"));
    assert!(side.is_proved("two.example", "two-faced.example") && !side.is_proved(US, PEER));
}

#[test]
fn direct_tls_begins_with_tls_and_never_offers_starttls() {
    let table = Table::new(&[US], &[(PEER, EXTERNAL)]);
    let stream = inbound_with(StreamLimits::default(), "ours", TlsStart::Direct, 1);
    let mut side = Side::inbound(stream, table.clone(), &[PEER]);
    side.tls_up();
    let features = side.hear(&header(PEER, US));
    assert!(!features.contains("starttls") && features.contains("EXTERNAL"), "{features}");
    let answer = side.hear(STARTTLS);
    assert_eq!(answer, "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>");
    assert_eq!(fault(&side), &StreamFault::TlsTwice);

    let stream = inbound_with(StreamLimits::default(), "ours", TlsStart::Direct, 1);
    let mut plain = Side::inbound(stream, table, &[PEER]);
    assert_eq!(plain.hear(&header(PEER, US)), "");
    assert_eq!(fault(&plain), &StreamFault::BytesBeforeTls);
}

#[test]
fn xs_tls_05_when_tls_fails_the_stream_is_dropped_without_a_word() {
    let mut side = stream(BOTH, &[PEER]);
    side.hear(&header(PEER, US));
    side.hear(STARTTLS);
    side.stream.handle_connection_lost();
    assert_eq!(side.settle(), "");
    assert!(matches!(side.cause(), Some(CloseCause::ConnectionLost)));
}

#[test]
fn xs_sasl_01_external_is_offered_only_to_a_certificate_that_fits_the_from_and_never_before_tls() {
    let offers = |names: &[&'static str]| over_tls(BOTH, names).1.contains("<mechanism>EXTERNAL</mechanism>");
    assert!(offers(&[PEER]), "good certificate");
    assert!(!offers(&["other.example"]), "another domain's");
    assert!(!offers(&[]), "none");
    let mut side = stream(BOTH, &[PEER]);
    assert!(!side.hear(&header(PEER, US)).contains("EXTERNAL"), "before TLS");
    let answer = side.hear(&auth("="));
    assert!(answer.contains("<encryption-required/>"), "{answer}");
}

#[test]
fn xs_sasl_02_the_authorization_identity_must_be_the_from_that_the_certificate_names() {
    // peer.example and foreign.example in base64.
    for (text, is_good) in [
        ("=", true),
        ("cGVlci5leGFtcGxl", true),
        ("UEVFUi5leGFtcGxlLg==", true),
        ("Zm9yZWlnbi5leGFtcGxl", false),
        ("bm90IGEgZG9tYWlu", false),
    ] {
        let (mut side, _) = over_tls(EXTERNAL, &[PEER, "foreign.example"]);
        let answer = side.hear(&auth(text));
        assert_eq!(answer.contains("<success"), is_good, "{text}: {answer}");
        assert_eq!(answer.contains("<invalid-authzid/>"), !is_good, "{text}: {answer}");
    }
    // Without an initial response there is one challenge.
    let (mut side, _) = over_tls(EXTERNAL, &[PEER]);
    assert_eq!(side.hear(&auth("")), "<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    let answer = side.hear("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>cGVlci5leGFtcGxl</response>");
    assert!(answer.contains("<success"), "{answer}");
}

#[test]
fn xs_sasl_03_success_makes_a_new_stream_and_failures_end_it_after_three() {
    let mut side = authenticated();
    assert_eq!(side.count("PairProved"), 1);
    side.hear("<presence from='a@peer.example' to='b@us.example'/>");
    assert_eq!(side.stanzas().len(), 1);

    let (mut side, _) = over_tls(BOTH, &["other.example"]);
    for _ in 0..2 {
        let answer = side.hear(&auth("="));
        assert!(answer.contains("<not-authorized/>") && !answer.contains("stream:error"), "{answer}");
    }
    side.hear(&auth("="));
    assert_eq!(side.error_sent(), Some("policy-violation"));

    // After a failure dialback is still open, where it is allowed.
    let (mut side, _) = over_tls(BOTH, &["other.example"]);
    side.hear(&auth("="));
    side.hear(&result(PEER, US, "k"));
    let question = shown(&side);
    side.answer_key(&question, KeyAnswer::Valid);
    side.settle();
    assert!(side.is_proved(US, PEER));
}

#[test]
fn xs_sasl_03_a_stream_restarted_after_sasl_keeps_the_authenticated_domain_only() {
    // CVE-2018-10847: another `from` after authentication.
    let (mut side, _) = over_tls(EXTERNAL, &[PEER]);
    side.hear(&auth("="));
    side.hear(&header("rooms.peer.example", US));
    assert_eq!(side.error_sent(), Some("invalid-from"));
    assert!(!side.is_proved(US, "rooms.peer.example"));

    // Without a `from` it is still the authenticated one.
    let (mut side, _) = over_tls(EXTERNAL, &[PEER]);
    side.hear(&auth("="));
    side.hear(&header(PEER, "two.example").replace("from='peer.example'", ""));
    assert!(side.is_proved("two.example", PEER) && !side.is_proved(US, PEER));
}

#[test]
fn xs_sasl_04_base64_is_strict() {
    let (mut side, _) = over_tls(EXTERNAL, &[PEER]);
    let answer = side.hear(&auth("cGVlci5leGFtcGxl\n"));
    assert!(answer.contains("<incorrect-encoding/>"), "{answer}");
    let answer =
        side.hear("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGEAYg==</auth>");
    assert!(answer.contains("<invalid-mechanism/>"), "{answer}");
}

#[test]
fn xs_adr_03_a_stanza_to_a_foreign_domain_is_not_taken() {
    let mut side = authenticated();
    side.hear("<message from='a@peer.example' to='b@rooms.peer.example'><body>relay me</body></message>");
    assert_eq!(side.error_sent(), Some("host-unknown"));
    assert_eq!(side.stanzas().len(), 0);
}

#[test]
fn xs_adr_01_a_stanza_needs_two_addresses() {
    for stanza in ["<presence to='b@us.example'/>", "<presence from='a@peer.example'/>"] {
        let mut side = authenticated();
        side.hear(stanza);
        assert_eq!(side.error_sent(), Some("improper-addressing"), "{stanza}");
    }
}

#[test]
fn xs_adr_01_a_malformed_address_costs_its_stanza_and_not_the_stream() {
    for stanza in [
        "<presence from='' to='b@us.example'/>",
        "<presence from='@peer.example' to='b@us.example'/>",
        "<presence from='a b@peer.example' to='b@us.example'/>",
        "<presence from='\"juliet\"@peer.example' to='b@us.example'/>",
        "<presence from='henryⅣ@peer.example' to='b@us.example'/>",
        "<presence from='♚@peer.example' to='b@us.example'/>",
        "<presence from='a@peer.example/&#x9;' to='b@us.example'/>",
        "<presence from='a@peer.example/' to='b@us.example'/>",
        "<presence from='a@peer_.example' to='b@us.example'/>",
        "<presence from='a@' to='b@us.example'/>",
        "<presence from='a@peer.example' to=''/>",
        "<presence from='a@peer.example' to='b@'/>",
        "<message from='a@peer.example' to='b b@us.example'/>",
        "<message from='a@peer.example' to='us.example/'/>",
        "<message from='@' to='/'/>",
    ] {
        let mut side = authenticated();
        let good = "<message from='a@peer.example' to='b@us.example'/>";
        side.hear(&format!("{good}{stanza}{good}"));
        assert_eq!(side.error_sent(), None, "{stanza}");
        assert_eq!(side.count("MalformedAddress"), 1, "{stanza}");
        assert_eq!(side.stanzas(), [good, good], "{stanza}");
    }
}

#[test]
fn xs_adr_01_what_rfc_7622_allows_is_no_malformed_address() {
    for from in ["fox@peer.example/🐴", "a@peer.example/Laptop™", "a@peer.example/①", "fußball@peer.example"]
    {
        let mut side = authenticated();
        let stanza = format!("<presence from='{from}' to='b@us.example'/>");
        side.hear(&stanza);
        assert_eq!(side.stanzas(), [stanza]);
        assert!(
            side.events
                .iter()
                .any(|event| matches!(event, StreamEvent::Stanza(stanza) if stanza.from.as_str() == from))
        );
    }
}

#[test]
fn a_malformed_local_part_does_not_let_a_domain_in_that_is_not_proved() {
    for (stanza, condition) in [
        ("<message from='a b@other.example' to='b@us.example'/>", "invalid-from"),
        ("<message from='a b@other.example' to='b b@'/>", "invalid-from"),
        ("<message from='a@peer.example' to='b b@other.example'/>", "host-unknown"),
        ("<message from='a@' to='b@other.example'/>", "host-unknown"),
    ] {
        let mut side = authenticated();
        side.hear(stanza);
        assert_eq!(side.error_sent(), Some(condition), "{stanza}");
    }
}

#[test]
fn xs_adr_01_malformed_addresses_over_a_rate_end_the_stream() {
    let bad = "<message from='a b@peer.example' to='b@us.example'/>";
    let limits = StreamLimits { malformed_addresses: 3, ..StreamLimits::default() };
    let mut side = authenticated_with(limits);
    side.hear(&bad.repeat(3));
    side.now += Duration::from_secs(60);
    side.hear(&bad.repeat(3));
    assert_eq!(side.error_sent(), None, "a new minute begins at nought");
    assert_eq!(side.count("MalformedAddress { xml"), 6);
    let is_first =
        |event: &&StreamEvent| matches!(event, StreamEvent::MalformedAddress { is_first: true, .. });
    assert_eq!(side.events.iter().filter(is_first).count(), 2, "one line in the log for each minute");
    side.hear(bad);
    assert_eq!(side.error_sent(), Some("policy-violation"));
    assert!(matches!(side.cause(), Some(CloseCause::Fault(StreamFault::MalformedAddresses { limit: 3 }))));
}

#[test]
fn a_wrong_end_tag_ends_the_stream_at_once_and_swallows_no_stanza() {
    let mut side = authenticated();
    let good = "<message from='a@peer.example' to='b@us.example'><body>hi</body></message>";
    side.hear(&good.repeat(3));
    side.hear("<presence from='j@peer.example' to='b@us.example'><status>x</show>");
    assert_eq!(side.error_sent(), Some("not-well-formed"), "before the frame has an end");
    assert_eq!(side.stanzas().len(), 3);
    assert!(matches!(fault(&side), StreamFault::Xml(XmlFault::NotWellFormed { .. })));
}

#[test]
fn xs_xml_03_an_unknown_element_at_the_top_ends_the_stream() {
    let mut side = authenticated();
    side.hear("<foo xmlns='urn:example'/>");
    assert_eq!(side.error_sent(), Some("unsupported-stanza-type"));

    let mut side = authenticated();
    side.hear("<presence from='a@peer.example' to='b@us.example'><x xmlns='urn:example'/></presence>");
    assert_eq!(
        side.stanzas(),
        ["<presence from='a@peer.example' to='b@us.example'><x xmlns='urn:example'/></presence>"]
    );
}

#[test]
fn xs_str_03_a_stanza_in_another_namespace_ends_the_stream() {
    for (stanza, condition) in [
        ("<presence xmlns='jabber:client' from='a@peer.example' to='b@us.example'/>", "invalid-namespace"),
        ("<presence xmlns='' from='a@peer.example' to='b@us.example'/>", "invalid-namespace"),
        (
            "<s:presence xmlns:s='jabber:server' from='a@peer.example' to='b@us.example'/>",
            "bad-namespace-prefix",
        ),
    ] {
        let mut side = authenticated();
        side.hear(stanza);
        assert_eq!(side.error_sent(), Some(condition), "{stanza}");
    }
}

#[test]
fn a_stanza_that_uses_a_prefix_of_the_header_is_completed() {
    let (mut side, _) = over_tls(EXTERNAL, &[PEER]);
    side.hear(&auth("="));
    side.hear(&header(PEER, US).replace("xmlns:db", "xmlns:p='urn:p&amp;' xmlns:db"));
    side.hear("<presence from='a@peer.example' to='b@us.example'><p:x/></presence>");
    assert_eq!(
        side.stanzas(),
        ["<presence xmlns:p='urn:p&amp;' from='a@peer.example' to='b@us.example'><p:x/></presence>"]
    );
}

#[test]
fn namespaces_of_the_header_that_would_swell_each_stanza_end_the_stream() {
    let with = |declarations: &str| {
        let (mut side, _) = over_tls(EXTERNAL, &[PEER]);
        side.hear(&auth("="));
        side.hear(&header(PEER, US).replace("xmlns:db", &format!("{declarations} xmlns:db")));
        side
    };
    let declare = |prefix: usize, len: usize| format!("xmlns:p{prefix}='{}'", "u".repeat(len));
    assert!(with(&declare(1, 256)).is_proved(US, PEER));
    assert_eq!(with(&declare(1, 257)).error_sent(), Some("policy-violation"));
    let many: Vec<String> = (1..=8).map(|prefix| declare(prefix, 250)).collect();
    let mut side = with(&many.join(" "));
    assert_eq!(fault(&side), &StreamFault::HeaderNamespaces);
    side = with(&many[..7].join(" "));

    // What a stanza is completed to counts for its limit.
    let limit = StreamLimits::default().stanza_bytes;
    let stanza = |len: usize| {
        let (begin, end) =
            ("<message from='a@peer.example' to='b@us.example'><p1:x/><body>", "</body></message>");
        format!("{begin}{}{end}", "x".repeat(len - begin.len() - end.len()))
    };
    side.hear(&stanza(limit - 300));
    assert_eq!(
        (side.stanzas().len(), side.stanzas()[0].len()),
        (1, limit - 300 + " xmlns:p1=''".len() + 250)
    );
    side.hear(&stanza(limit - 200));
    assert_eq!(fault(&side), &StreamFault::Xml(XmlFault::TooBig { limit }));
}

#[test]
fn starttls_on_a_stream_that_carries_stanzas_already_fails_and_ends_it() {
    let mut side = stream(PLAIN, &[]);
    side.hear(&header(PEER, US));
    side.hear(&result(PEER, US, "k"));
    let question = shown(&side);
    side.answer_key(&question, KeyAnswer::Valid);
    side.settle();
    assert!(side.is_proved(US, PEER));
    assert_eq!(side.hear(STARTTLS), "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>");
    assert_eq!((fault(&side), side.count("StartTls")), (&StreamFault::TlsLate, 0));
}

#[test]
fn xs_lim_01_a_stanza_over_the_limit_ends_the_stream_and_one_of_10_000_passes() {
    let stanza = |len: usize| {
        let empty = "<message from='a@peer.example' to='b@us.example'></message>";
        empty.replace("><", &format!(">{}<", "x".repeat(len - empty.len())))
    };
    let mut side = authenticated();
    side.hear(&stanza(10_000));
    side.hear(&stanza(256 * 1024));
    assert_eq!(side.stanzas().len(), 2);
    side.hear(&stanza(256 * 1024 + 1));
    assert_eq!(side.error_sent(), Some("policy-violation"));
    assert!(side.sent.contains("<stanza-too-big xmlns='urn:xmpp:errors'/>"));

    // Settable per partner.
    let (mut side, _) = over_tls(PartnerTerms { stanza_bytes: Some(1), ..EXTERNAL }, &[PEER]);
    side.hear(&auth("="));
    side.hear(&header(PEER, US));
    side.hear(&stanza(10_000));
    assert_eq!(side.stanzas().len(), 1, "never under 10,000");
    side.hear(&stanza(10_001));
    assert_eq!(fault(&side), &StreamFault::Xml(XmlFault::TooBig { limit: 10_000 }));

    // Before authentication 10,000 holds for everything.
    let (mut side, _) = over_tls(EXTERNAL, &[PEER]);
    side.hear(&result(PEER, US, &"k".repeat(10_000)));
    assert_eq!(fault(&side), &StreamFault::Xml(XmlFault::TooBig { limit: 10_000 }));
}

#[test]
fn a_peer_that_does_not_authenticate_is_left_after_30_seconds() {
    let mut side = stream(BOTH, &[PEER]);
    assert_eq!(side.stream.poll_timeout(), Some(after(30)));
    side.now = after(10);
    side.hear(&header(PEER, US));
    side.hear(STARTTLS);
    side.start_tls();
    side.hear(&header(PEER, US));
    assert_eq!(side.stream.poll_timeout(), Some(after(30)), "no step of it buys time");
    assert_eq!(side.at(after(29)), "");
    side.at(after(30));
    assert_eq!(side.error_sent(), Some("connection-timeout"));

    let side = authenticated();
    assert_eq!(side.stream.poll_timeout(), None);
}

#[test]
fn xs_xml_01_forbidden_xml_ends_a_stream_in_every_state() {
    for (bad, condition) in [
        ("<!DOCTYPE x [<!ENTITY lol 'lol'>]>", "restricted-xml"),
        ("<presence from='a@peer.example' to='b@us.example'>&lol;</presence>", "restricted-xml"),
        ("<presence from='a@peer.example' to='b@us.example'><!-- --></presence>", "restricted-xml"),
        ("<presence from='a@peer.example' to='b@us.example'><?x?></presence>", "restricted-xml"),
        ("<presence from='a@peer.example' to='b@us.example'>\u{1}</presence>", "not-well-formed"),
        ("<presence from='a@peer.example' to='b@us.example'>&#0;</presence>", "not-well-formed"),
        ("<presence from='a@peer.example' to='b@us.example'>\u{FFFE}</presence>", "not-well-formed"),
        ("<presence from='a@peer.example' to='b@us.example'></message>", "not-well-formed"),
        ("</stream>", "not-well-formed"),
        ("text", "bad-format"),
    ] {
        let mut side = authenticated();
        side.hear(bad);
        assert_eq!(side.error_sent(), Some(condition), "{bad}");
        assert_eq!(side.stanzas().len(), 0);
        // Before authentication a stanza would be refused for itself.
        let (mut side, _) = over_tls(EXTERNAL, &[PEER]);
        side.hear(&bad.replace("presence", "db:result"));
        assert_eq!(side.error_sent(), Some(condition), "{bad}");
    }
    let mut side = authenticated();
    let mut bytes = b"<presence from='a@peer.example' to='b@us.example'>".to_vec();
    bytes.extend_from_slice(b"\xc0\x80</presence>");
    side.stream.handle_input(&bytes, side.now, &side.table);
    side.settle();
    assert_eq!(side.error_sent(), Some("unsupported-encoding"));
}

#[test]
fn xs_xml_04_a_whole_session_is_the_same_in_steps_of_one_octet() {
    let session = [
        header(PEER, US),
        STARTTLS.into(),
        header(PEER, US) + &auth("cGVlci5leGFtcGxl"),
        header(PEER, US)
            + "<presence from='a@peer.example' to='b@us.example'><status>ü€𝄞 <![CDATA[]]]]></status></presence> \n"
            + &result(PEER, "two.example", "k")
            + "<message from='a@peer.example' to='b@two.example'/></stream:stream>",
    ];
    let run = |step: usize| {
        let mut side = stream(EXTERNAL, &[PEER]);
        for (flight, bytes) in session.iter().enumerate() {
            for piece in bytes.as_bytes().chunks(step) {
                side.stream.handle_input(piece, side.now, &side.table);
                side.settle();
            }
            if flight == 1 {
                side.start_tls();
            }
        }
        (side.sent.clone(), format!("{:?}", side.events))
    };
    let whole = run(usize::MAX);
    assert!(whole.1.matches("Stanza(").count() == 2 && whole.1.ends_with("Closed(Ordered)]"), "{}", whole.1);
    for step in [1, 2, 3, 5] {
        assert_eq!(run(step), whole, "in steps of {step}");
    }
}

#[test]
fn xs_str_09_nothing_but_negotiation_is_ever_sent_on_a_stream_that_a_peer_opened() {
    let mut side = authenticated();
    let before = side.sent.len();
    side.hear(
        "<iq from='a@peer.example' to='us.example' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
    );
    side.hear("<presence from='a@peer.example' to='b@us.example' type='probe'/>");
    assert_eq!(side.stanzas().len(), 2);
    assert_eq!(side.sent.len(), before, "replies are for our own stream");
}
