//! Streams that we opened: header, STARTTLS, SASL, dialback in both roles, stanzas, end.

mod common;

use common::*;
use tombolo_xmpp::{
    dialback::DialbackCondition,
    sasl::SaslFailure,
    stream::{
        CloseCause, Dial, KeyAnswer, KeyQuestion, Method, PartnerTerms, Purpose, Refusal, SkippedSteps,
        StreamEvent, StreamFault, StreamLimits, TlsStart,
    },
    stream_error::StreamCondition,
};

const US: &str = "us.example";
const PEER: &str = "peer.example";
const FEATURES_TLS: &str = "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>";
const FEATURES_EXTERNAL: &str = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
    <mechanism>EXTERNAL</mechanism></mechanisms><dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback></stream:features>";
const FEATURES_NONE: &str = "<stream:features/>";
const SUCCESS: &str = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";
const FAILURE: &str = "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>";

fn stream_for(purpose: Purpose, terms: PartnerTerms, names: &[&'static str]) -> Side {
    stream_by(dial(US, PEER, purpose, TlsStart::StartTls), terms, names)
}

fn stream_by(dial: Dial, terms: PartnerTerms, names: &[&'static str]) -> Side {
    let table = Table::new(&[US], &[(PEER, terms), ("rooms.peer.example", terms)]);
    let mut side = Side::outbound(outbound_with(StreamLimits::default(), "ours", dial), table, names);
    side.settle();
    side
}

fn stream(terms: PartnerTerms, names: &[&'static str]) -> Side {
    stream_for(Purpose::Send, terms, names)
}

/// Up to the peer's header after TLS.
fn over_tls(mut side: Side) -> Side {
    assert!(side.hear(&(response(PEER, US, "plain") + FEATURES_TLS)).ends_with(STARTTLS));
    side.hear(PROCEED);
    side.start_tls();
    side.hear(&response(PEER, US, "tls"));
    side
}

/// A stream whose dialled pair is proved by SASL.
fn authenticated(names: &[&'static str]) -> Side {
    let mut side = over_tls(stream(EXTERNAL, names));
    side.hear(FEATURES_EXTERNAL);
    side.hear(SUCCESS);
    side.hear(&(response(PEER, US, "sasl") + FEATURES_EXTERNAL));
    assert!(side.is_proved(US, PEER), "{:?}", side.events);
    side
}

/// A stream on which our key was shown.
fn asked() -> Side {
    let mut side = over_tls(stream(DIALBACK, &[]));
    let shown = side.hear(FEATURES_NONE);
    assert!(shown.starts_with("<db:result from='us.example' to='peer.example'>"), "{shown}");
    side
}

fn fault(side: &Side) -> &StreamFault {
    match side.cause() {
        Some(CloseCause::Fault(fault)) => fault,
        other => panic!("no fault but {other:?}"),
    }
}

fn refusal(side: &Side) -> Option<&Refusal> {
    side.events.iter().rev().find_map(|event| match event {
        StreamEvent::PairRefused { refusal, .. } => Some(refusal),
        _ => None,
    })
}

fn question(key: &str) -> KeyQuestion {
    KeyQuestion { pair: pair(US, PEER), stream_id: "417GAF25".into(), key: key.into() }
}

#[test]
fn xs_str_01_the_initial_header_has_all_that_a_peer_needs_and_no_id() {
    let side = over_tls(stream(BOTH, &[PEER]));
    let headers: Vec<&str> =
        side.sent.split("<?xml version='1.0'?>").filter(|text| text.contains("<stream:stream")).collect();
    assert_eq!(headers.len(), 2, "before and after TLS");
    for header in headers {
        for part in [
            " xmlns='jabber:server'",
            " xmlns:stream='http://etherx.jabber.org/streams'",
            " xmlns:db='jabber:server:dialback'",
            " from='us.example'",
            " to='peer.example'",
            " version='1.0'",
            " xml:lang='en'",
        ] {
            assert!(header.contains(part), "{part} in {header}");
        }
        assert!(!header.contains(" id="), "{header}");
    }
}

#[test]
fn xs_tls_01_starttls_is_tried_where_it_is_not_advertised_and_nothing_goes_in_the_clear() {
    let mut side = stream(BOTH, &[PEER]);
    assert_eq!(side.hear(&(response(PEER, US, "1") + FEATURES_NONE)), STARTTLS);
    side.hear("<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>");
    assert_eq!(fault(&side), &StreamFault::TlsRefused);
    assert!(!side.sent.contains("db:result"));

    // A peer of no version cannot do TLS.
    let mut side = stream(BOTH, &[PEER]);
    side.hear(&response(PEER, US, "1").replace(" version='1.0'>", ">"));
    assert_eq!(fault(&side), &StreamFault::TlsRefused);
    assert!(!side.sent.contains("db:result"));

    // Only where the partner is marked insecure is a key shown in the clear, and not where TLS is offered.
    let mut side = stream(PLAIN, &[]);
    assert!(side.hear(&(response(PEER, US, "1") + FEATURES_NONE)).starts_with("<db:result "));
    let mut side = stream(PLAIN, &[]);
    assert_eq!(side.hear(&(response(PEER, US, "1") + FEATURES_TLS)), STARTTLS);
    let mut side = stream(PLAIN, &[]);
    assert!(side.hear(&response(PEER, US, "1").replace(" version='1.0'>", ">")).starts_with("<db:result "));
}

#[test]
fn xs_tls_02_bytes_behind_proceed_end_the_stream() {
    let mut side = stream(BOTH, &[PEER]);
    side.hear(&(response(PEER, US, "1") + FEATURES_TLS));
    let injected = format!("{PROCEED}{}{FEATURES_EXTERNAL}", response(PEER, US, "evil"));
    assert_eq!(side.hear(&injected), "");
    assert_eq!(fault(&side), &StreamFault::BytesBeforeTls);
    assert_eq!(side.count("StartTls"), 0);
}

#[test]
fn xs_tls_02_id_and_features_from_before_tls_are_forgotten() {
    let mut side = stream(DIALBACK, &[]);
    side.hear(&(response(PEER, US, "plain-id") + FEATURES_TLS));
    side.hear(PROCEED);
    side.start_tls();
    let shown = side.hear(&(response(PEER, US, "tls-id") + FEATURES_NONE));
    let key = secrets("ours").key(PEER, US, "tls-id");
    assert_eq!(shown, format!("<db:result from='us.example' to='peer.example'>{key}</db:result>"));
}

#[test]
fn a_peer_whose_certificate_names_another_domain_is_left() {
    let mut side = stream(EXTERNAL, &["other.example"]);
    side.hear(&(response(PEER, US, "1") + FEATURES_TLS));
    side.hear(PROCEED);
    side.start_tls();
    let reason = format!("it is for other.example, not for {PEER}").into();
    assert_eq!(fault(&side), &StreamFault::Certificate { domain: domain(PEER), reason });
    assert_eq!(side.error_sent(), Some("not-authorized"));
    assert_eq!(refusal(&side), None, "nothing was promised");
}

#[test]
fn xs_dna_03_a_certificate_is_never_silently_replaced_by_dialback() {
    // Self-signed, offering dialback: refused above. Good certificate, but no EXTERNAL offered:
    let mut side = over_tls(stream(EXTERNAL, &[PEER]));
    side.hear("<stream:features><dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback></stream:features>");
    assert_eq!(fault(&side), &StreamFault::NoMethod);
    // EXTERNAL offered, then failed:
    let mut side = over_tls(stream(EXTERNAL, &[PEER]));
    side.hear(FEATURES_EXTERNAL);
    side.hear(FAILURE);
    let failure = SaslFailure { condition: "not-authorized".into(), text: None };
    assert_eq!(fault(&side), &StreamFault::SaslRefused(failure));
    assert!(!side.sent.contains("db:result"));
}

#[test]
fn xs_sasl_02_the_authorization_identity_is_our_domain() {
    let mut side = over_tls(stream(EXTERNAL, &[PEER]));
    // us.example in base64.
    assert_eq!(side.hear(FEATURES_EXTERNAL), auth("dXMuZXhhbXBsZQ=="));
    let answer = side.hear("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    assert_eq!(answer, "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>dXMuZXhhbXBsZQ==</response>");
}

#[test]
fn xs_sasl_03_success_makes_a_new_stream_whose_features_prove_the_pair() {
    let mut side = over_tls(stream(EXTERNAL, &[PEER]));
    side.hear(FEATURES_EXTERNAL);
    assert!(side.hear(SUCCESS).starts_with("<?xml version='1.0'?><stream:stream "));
    side.hear(&response(PEER, US, "new"));
    assert!(!side.is_proved(US, PEER), "not before the features");
    side.hear(FEATURES_NONE);
    let proved = side
        .events
        .iter()
        .any(|event| matches!(event, StreamEvent::PairProved { method: Method::External, .. }));
    assert!(proved && side.is_proved(US, PEER));
    assert_eq!(side.stream.poll_timeout(), None);
}

#[test]
fn xs_sasl_03_after_a_failure_dialback_goes_on_upon_the_same_stream() {
    let mut side = over_tls(stream(BOTH, &[PEER]));
    side.hear(FEATURES_EXTERNAL);
    let shown = side.hear(FAILURE);
    let key = secrets("ours").key(PEER, US, "tls");
    assert_eq!(shown, format!("<db:result from='us.example' to='peer.example'>{key}</db:result>"));
    assert_eq!(side.count("SaslFailed"), 1);
    side.hear("<db:result from='peer.example' to='us.example' type='valid'/>");
    assert!(side.is_proved(US, PEER));
}

#[test]
fn xs_sasl_03_a_stream_that_ends_between_auth_and_a_proof_says_that_external_failed() {
    let text = "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/><text>no such CA</text></failure>";
    let error =
        "<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
    for refusal in ["", text, error, "</stream:stream>", &format!("{text}</stream:stream>"), SUCCESS] {
        let mut side = over_tls(stream(BOTH, &[PEER]));
        side.hear(FEATURES_EXTERNAL);
        side.hear(refusal);
        side.as_outbound().handle_connection_lost();
        assert!(side.as_outbound().has_external_failed(), "{refusal:?}");
        let said = side.as_outbound().sasl_failure().map(ToString::to_string);
        assert_eq!(said.is_some(), refusal.contains("failure"), "{refusal:?}");
        assert!(said.is_none_or(|said| said == "not-authorized (no such CA)"));
    }
    // So does one whose peer says nothing more.
    let mut side = over_tls(stream(BOTH, &[PEER]));
    side.hear(FEATURES_EXTERNAL);
    let until = side.stream.poll_timeout().expect("it must answer in time");
    side.at(until);
    assert_eq!(fault(&side), &StreamFault::AuthenticationTimedOut);
    assert!(side.as_outbound().has_external_failed());
    // Dialback got an answer on the same stream, whatever it is.
    for kind in ["valid", "invalid"] {
        let mut side = over_tls(stream(BOTH, &[PEER]));
        side.hear(FEATURES_EXTERNAL);
        side.hear(FAILURE);
        side.hear(&format!("<db:result from='peer.example' to='us.example' type='{kind}'/>"));
        assert!(!side.as_outbound().has_external_failed(), "{kind}");
    }
    // EXTERNAL was never begun, or it succeeded.
    let mut side = over_tls(stream(BOTH, &[PEER]));
    side.as_outbound().handle_connection_lost();
    assert!(!side.as_outbound().has_external_failed());
    assert!(!authenticated(&[PEER]).as_outbound().has_external_failed());
}

#[test]
fn xs_sasl_03_external_is_skipped_only_where_the_terms_allow_dialback() {
    let skip = SkippedSteps { external: true, starttls: false };
    let by = |terms| {
        let dial = Dial { skip, ..dial(US, PEER, Purpose::Send, TlsStart::StartTls) };
        over_tls(stream_by(dial, terms, &[PEER])).hear(FEATURES_EXTERNAL)
    };
    assert!(by(BOTH).starts_with("<db:result "));
    assert_eq!(by(EXTERNAL), auth("dXMuZXhhbXBsZQ=="));
}

#[test]
fn xs_tls_01_starttls_is_skipped_only_where_the_terms_allow_dialback_without_it() {
    let skip = SkippedSteps { external: false, starttls: true };
    for terms in [BOTH, EXTERNAL, DIALBACK] {
        let dial = Dial { skip, ..dial(US, PEER, Purpose::Send, TlsStart::StartTls) };
        let mut side = stream_by(dial, terms, &[PEER]);
        assert_eq!(side.hear(&(response(PEER, US, "1") + FEATURES_TLS)), STARTTLS);
    }
    let dial = Dial { skip, ..dial(US, PEER, Purpose::Send, TlsStart::StartTls) };
    let mut side = stream_by(dial, PLAIN, &[]);
    assert!(side.hear(&(response(PEER, US, "1") + FEATURES_TLS)).starts_with("<db:result "));
}

#[test]
fn a_stream_says_whether_the_peer_refused_tls_and_while_its_handshake_runs() {
    let mut side = stream(PLAIN, &[]);
    side.hear(&(response(PEER, US, "1") + FEATURES_TLS));
    assert!(!side.as_outbound().has_refused_tls() && !side.as_outbound().is_starting_tls());
    side.hear("<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>");
    assert_eq!(fault(&side), &StreamFault::TlsRefused);
    assert!(side.as_outbound().has_refused_tls());
    // A peer that goes away in between has refused nothing.
    let mut side = stream(PLAIN, &[]);
    side.hear(&(response(PEER, US, "1") + FEATURES_TLS));
    side.hear("<stream:error><system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>");
    assert!(!side.as_outbound().has_refused_tls());
    let mut side = stream(PLAIN, &[]);
    side.hear(&(response(PEER, US, "1") + FEATURES_TLS));
    side.hear(PROCEED);
    assert!(side.as_outbound().is_starting_tls());
    side.start_tls();
    assert!(!side.as_outbound().is_starting_tls() && !side.as_outbound().has_refused_tls());
}

#[test]
fn xs_sasl_04_nothing_but_elements_is_sent_during_starttls_and_sasl() {
    let mut side = over_tls(stream(EXTERNAL, &[PEER]));
    side.hear(FEATURES_EXTERNAL);
    side.hear(SUCCESS);
    assert!(!side.sent.contains("> ") && !side.sent.contains(['\n', '\t', '\r']), "{}", side.sent);
}

#[test]
fn xs_db_03_stanzas_wait_for_valid_and_other_answers_are_told_apart() {
    let stanza = b"<presence from='a@us.example' to='b@peer.example'/>";
    let mut side = asked();
    assert!(side.as_outbound().send_stanzas(&pair(US, PEER), stanza).is_err());
    side.hear("<db:result from='peer.example' to='us.example' type='valid'/>");
    assert!(side.as_outbound().send_stanzas(&pair(US, PEER), stanza).is_ok());
    assert_eq!(side.settle().as_bytes(), stanza);
    assert!(
        side.as_outbound().send_stanzas(&pair(US, "rooms.peer.example"), stanza).is_err(),
        "another pair"
    );

    let mut side = asked();
    side.hear("<db:result from='peer.example' to='us.example' type='invalid'/>");
    assert_eq!(refusal(&side), Some(&Refusal::Invalid));

    let mut side = asked();
    side.hear(
        "<db:result from='peer.example' to='us.example' type='error'><error type='cancel'>\
         <item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></db:result>",
    );
    assert_eq!(refusal(&side), Some(&Refusal::Error(DialbackCondition::ItemNotFound)));
    assert!(!side.stream.is_closed(), "the stream stays for other pairs");

    let mut side = asked();
    side.hear("</stream:stream>");
    assert_eq!(refusal(&side), Some(&Refusal::StreamEnded));
    assert!(matches!(side.cause(), Some(CloseCause::Ordered)));

    let mut side = authenticated(&[PEER, "rooms.peer.example"]);
    let (now, table) = (after(100), side.table.clone());
    side.as_outbound().prove(pair(US, "rooms.peer.example"), now, &table);
    side.settle();
    assert_eq!(side.stream.poll_timeout(), Some(after(130)));
    side.at(after(130));
    assert_eq!(refusal(&side), Some(&Refusal::TimedOut));
    assert!(!side.stream.is_closed() && side.is_proved(US, PEER));
}

#[test]
fn xs_db_04_only_answers_to_our_own_requests_count() {
    let mut side = asked();
    for wrong in [
        "<db:result from='us.example' to='peer.example' type='valid'/>",
        "<db:result from='peer.example' to='two.example' type='valid'/>",
        "<db:result from='rooms.peer.example' to='us.example' type='valid'/>",
        "<db:verify from='peer.example' to='us.example' id='tls' type='valid'/>",
    ] {
        side.hear(wrong);
    }
    assert_eq!(side.count("UnsolicitedDialback"), 4);
    assert_eq!(side.stream.proved_pairs(), []);
    side.hear("<db:result from='peer.example' to='us.example' type='valid'/>");
    side.hear("<db:result from='peer.example' to='us.example' type='invalid'/>");
    assert_eq!(side.count("UnsolicitedDialback"), 5, "a second answer is unasked too");
    assert!(side.is_proved(US, PEER));
    // A peer's requests have no place here either.
    side.hear("<db:result from='peer.example' to='us.example'>key</db:result>");
    side.hear("<presence from='a@peer.example' to='b@us.example'/>");
    assert_eq!(side.count("StrayElement"), 2);
    assert_eq!(side.stanzas().len(), 0);
}

#[test]
fn xs_db_01_keys_of_others_are_asked_about_as_in_xep_0220() {
    for (answer, expected) in [
        ("type='valid'/>", KeyAnswer::Valid),
        ("type='invalid'/>", KeyAnswer::Invalid),
        (
            "type='error'><error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></db:verify>",
            KeyAnswer::Failed(DialbackCondition::ItemNotFound),
        ),
    ] {
        let mut side = stream_for(Purpose::Verify, DIALBACK, &[]);
        let table = side.table.clone();
        side.as_outbound().ask_key(question("225cc5aa"), epoch(), &table);
        side = over_tls(side);
        assert_eq!(
            side.hear(FEATURES_EXTERNAL),
            "<db:verify from='us.example' to='peer.example' id='417GAF25'>225cc5aa</db:verify>"
        );
        side.hear(&format!("<db:verify from='peer.example' to='us.example' id='other' {answer}"));
        assert_eq!(side.count("KeyAnswered"), 0);
        side.hear(&format!("<db:verify from='peer.example' to='us.example' id='417GAF25' {answer}"));
        let got = side.events.iter().find_map(|event| match event {
            StreamEvent::KeyAnswered { question, answer } => Some((question.clone(), *answer)),
            _ => None,
        });
        assert_eq!(got, Some((question("225cc5aa"), expected)));
        assert_eq!(side.stream.proved_pairs(), [], "asking proves nothing");
    }
}

#[test]
fn a_question_that_is_not_answered_fails_in_time_and_with_the_stream() {
    let failed = |side: &Side| {
        side.events.iter().any(|event| {
            let timeout = KeyAnswer::Failed(DialbackCondition::RemoteServerTimeout);
            matches!(event, StreamEvent::KeyAnswered { answer, .. } if *answer == timeout)
        })
    };
    let ask = || {
        let mut side = over_tls(stream_for(Purpose::Verify, DIALBACK, &[]));
        side.hear(FEATURES_NONE);
        let table = side.table.clone();
        side.as_outbound().ask_key(question("k"), epoch(), &table);
        assert!(side.settle().starts_with("<db:verify "));
        side
    };
    let mut side = ask();
    assert_eq!(side.stream.poll_timeout(), Some(after(30)));
    side.at(after(30));
    assert!(failed(&side) && !side.stream.is_closed());

    let mut side = ask();
    side.stream.handle_connection_lost();
    side.settle();
    assert!(failed(&side) && matches!(side.cause(), Some(CloseCause::ConnectionLost)));

    // A stream that never came so far fails its question too.
    let mut side = stream_for(Purpose::Verify, DIALBACK, &[]);
    let table = side.table.clone();
    side.as_outbound().ask_key(question("k"), epoch(), &table);
    side.at(after(30));
    assert!(failed(&side));
    assert_eq!(fault(&side), &StreamFault::AuthenticationTimedOut);
}

#[test]
fn a_further_pair_is_asked_for_on_the_same_stream() {
    let mut side = authenticated(&[PEER, "rooms.peer.example"]);
    assert!(side.as_outbound().has_dialback_errors());
    let (table, rooms) = (side.table.clone(), pair(US, "rooms.peer.example"));
    side.as_outbound().prove(rooms.clone(), epoch(), &table);
    let key = secrets("ours").key("rooms.peer.example", US, "sasl");
    assert_eq!(
        side.settle(),
        format!("<db:result from='us.example' to='rooms.peer.example'>{key}</db:result>")
    );
    side.hear("<db:result from='rooms.peer.example' to='us.example' type='valid'/>");
    assert!(side.as_outbound().may_send(&rooms));

    // Without dialback the certificate must fit.
    let mut side = authenticated(&[PEER]);
    side.as_outbound().prove(rooms, epoch(), &table);
    assert_eq!(side.settle(), "");
    assert_eq!(refusal(&side), Some(&Refusal::NotAllowed));
    side.as_outbound().prove(pair(US, "stranger.example"), epoch(), &table);
    side.settle();
    assert_eq!(side.count("PairRefused"), 2);
}

#[test]
fn direct_tls_says_nothing_before_tls() {
    let table = Table::new(&[US], &[(PEER, EXTERNAL)]);
    let dial = dial(US, PEER, Purpose::Send, TlsStart::Direct);
    let mut side = Side::outbound(outbound_with(StreamLimits::default(), "ours", dial), table, &[PEER]);
    assert_eq!(side.settle(), "");
    assert!(side.tls_up().contains("<stream:stream "));
    assert!(side.hear(&(response(PEER, US, "1") + FEATURES_EXTERNAL)).starts_with("<auth "));
}

#[test]
fn xs_str_08_see_other_host_is_to_be_trusted_only_behind_tls_with_the_right_certificate() {
    let error = "<stream:error><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>h.example:5222</see-other-host></stream:error>";
    let trusted = |side: &Side| match side.cause() {
        Some(CloseCause::PeerError { error, is_trusted }) => {
            assert_eq!(error.condition, StreamCondition::SeeOtherHost);
            assert_eq!(error.other_host.as_deref(), Some("h.example:5222"));
            *is_trusted
        }
        other => panic!("{other:?}"),
    };
    let mut side = stream(BOTH, &[PEER]);
    side.hear(&response(PEER, US, "1"));
    side.hear(error);
    assert!(!trusted(&side));
    let mut side = over_tls(stream(BOTH, &[PEER]));
    side.hear(error);
    assert!(trusted(&side));
    let mut side = over_tls(stream(BOTH, &["other.example"]));
    side.hear(error);
    assert!(!trusted(&side));
}

#[test]
fn a_peer_that_answers_as_another_domain_or_without_an_id_is_left() {
    let mut side = stream(BOTH, &[PEER]);
    side.hear(&response("other.example", US, "1"));
    assert_eq!(fault(&side), &StreamFault::HeaderFrom);
    let mut side = stream(BOTH, &[PEER]);
    side.hear(&(header(PEER, US) + FEATURES_TLS));
    assert_eq!(fault(&side), &StreamFault::Header);
    // An error may come behind a header that says nothing (RFC 6120 §4.9.1.2).
    let mut side = stream(BOTH, &[PEER]);
    side.hear("<stream:stream xmlns:stream='http://etherx.jabber.org/streams'><stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>");
    assert!(matches!(side.cause(), Some(CloseCause::PeerError { .. })), "{:?}", side.events);
}

#[test]
fn xs_str_07_after_our_close_nothing_is_sent_and_the_peers_end_is_awaited() {
    let mut side = authenticated(&[PEER]);
    side.stream.close(side.now);
    assert_eq!(side.settle(), "</stream:stream>");
    assert!(side.as_outbound().send_stanzas(&pair(US, PEER), b"<presence/>").is_err());
    side.hear("</stream:stream>");
    assert!(matches!(side.cause(), Some(CloseCause::Ordered)));

    let mut side = authenticated(&[PEER]);
    side.stream.end(StreamCondition::SystemShutdown, None);
    assert_eq!(
        side.settle(),
        "<stream:error><system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"
    );
    assert!(matches!(side.cause(), Some(CloseCause::Ended(StreamCondition::SystemShutdown))));
}

#[test]
fn a_pair_that_the_peer_took_by_a_key_is_lost_when_policy_allows_certificates_only_and_its_own_names_nobody()
{
    for (names, terms, is_kept) in [
        (&[][..], EXTERNAL, false),
        (&[], BOTH, true),
        (&["peer.example"], EXTERNAL, true),
        (&["peer.example"], DIALBACK, true),
    ] {
        let mut side = over_tls(stream(BOTH, names));
        side.hear(FEATURES_NONE);
        side.hear("<db:result from='peer.example' to='us.example' type='valid'/>");
        assert!(side.is_proved(US, PEER), "{names:?}");
        let lost = side.change_policy(Table::new(&[US], &[(PEER, terms)]));
        assert_eq!(lost.is_empty(), is_kept, "{names:?} {terms:?}");
        assert_eq!(side.as_outbound().may_send(&pair(US, PEER)), is_kept);
    }
}

#[test]
fn what_has_no_place_on_our_stream_is_refused_at_the_end_of_its_start_tag() {
    for opened in
        ["<foo>", "<stream:stream>", "<db:foo>", "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>"]
    {
        let mut side = authenticated(&[PEER]);
        side.hear(opened);
        assert_eq!(side.error_sent(), Some("unsupported-stanza-type"), "{opened}");
    }
    for opened in ["<message>", "<presence xmlns='jabber:client'>", "<stream:features>", "<db:result>"] {
        let mut side = authenticated(&[PEER]);
        side.hear(opened);
        assert_eq!(side.error_sent(), None, "{opened}");
    }
    let mut side = over_tls(stream(EXTERNAL, &[PEER]));
    side.hear("<message>");
    assert_eq!(fault(&side), &StreamFault::UnknownElement, "features must come first");
}
