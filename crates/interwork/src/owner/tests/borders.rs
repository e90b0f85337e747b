//! What stands on either side, and what crosses (RFC 7247 §4 to §7).

use std::time::Duration;

use super::stage::*;
use crate::owner::Input;

fn error(inner: &str) -> String {
    format!(
        "<error type='cancel'>{}</error>",
        inner.replace("/>", " xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>")
    )
}

/// A message of romeo's, which juliet's server answers with an error; the status that romeo's phone gets.
fn refused(from: &str, inner: &str) -> tombolo_sip::message::Message {
    let mut stage = Stage::new();
    stage.message(&phone_of(ROMEO, "a"), ROMEO, JULIET, "Content-Type: text/plain\r\n", b"x");
    let stanza = stage.stanza();
    let id = stanza.split("id='").nth(1).and_then(|rest| rest.split('\'').next()).expect("an id");
    stage.xmpp_says(&format!("<message from='{from}' to='{ROMEO}' type='error' id='{id}'>{inner}</message>"));
    stage.response()
}

#[test]
fn stox_a_01_what_begins_on_one_side_leaves_on_the_other_alone() {
    let mut stage = Stage::new();
    stage.xmpp_says(&format!("<message from='{JULIET}' to='{BENVOLIO}'><body>hi</body></message>"));
    assert_eq!((stage.requests.len(), stage.stanzas.len()), (1, 0), "SIP alone");
    stage.answer(200, "");
    stage.presence(JULIET, BENVOLIO, "subscribe", "");
    assert_eq!((stage.requests.len(), stage.stanzas.len()), (1, 0), "SIP alone");
    let mut stage = Stage::new();
    stage.message(&front_end(), BENVOLIO, JULIET, "Content-Type: text/plain\r\n", b"hi");
    assert_eq!((stage.stanzas.len(), stage.requests.len()), (1, 0), "XMPP alone");
    stage.stanzas.clear();
    stage.subscribe(&front_end(), BENVOLIO, JULIET, "c1", "");
    assert!(stage.stanza().contains("type='subscribe'"));
    assert!(stage.stanzas.is_empty() && stage.requests.is_empty(), "XMPP alone");
}

#[test]
fn stox_a_03_a_domain_that_is_ours_is_sip_whatever_dns_says_of_it() {
    // No partner's session is asked, and so no record of that domain.
    let mut stage = Stage::new();
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, "mercutio@sip.example", "c1", "");
    assert_eq!(stage.status(), 200);
    stage.message(&phone_of(ROMEO, "a"), ROMEO, "mercutio@sip.example", "Content-Type: text/plain\r\n", b"x");
    assert_eq!(stage.deliveries.len(), 1);
    assert!(stage.stanzas.is_empty() && stage.wanting.is_empty());
}

#[test]
fn stox_a_04_nothing_goes_back_to_the_side_that_it_came_from() {
    let mut stage = Stage::new();
    let other = "tybalt@corp.example";
    stage.message(&front_end(), BENVOLIO, other, "Content-Type: text/plain\r\n", b"x");
    assert_eq!(stage.status(), 482);
    for expires in [0, 600] {
        let more = format!("Expires: {expires}\r\n");
        stage.subscribe(&front_end(), BENVOLIO, other, &format!("c{expires}"), &more);
        assert_eq!(stage.status(), 482);
    }
    // Somebody speaks by XMPP for a domain that we serve by SIP.
    stage.xmpp_says(&format!("<message from='{BENVOLIO}' to='{ROMEO}'><body>x</body></message>"));
    stage.presence(BENVOLIO, ROMEO, "subscribe", "");
    stage.presence("mercutio@sip.example", BENVOLIO, "subscribe", "");
    assert!(stage.is_silent() && stage.deliveries.is_empty(), "{:?}", stage.stanzas);
}

#[test]
fn stox_a_05_presence_flows_by_datagram_and_by_stream() {
    for way in [way(), datagram_way()] {
        let mut stage = Stage::new();
        let phone = phone_of(ROMEO, "a");
        stage.goes_away(&phone);
        stage.way = way.clone();
        stage.comes_back(&phone);
        stage.subscribe(&phone, ROMEO, JULIET, "c1", "");
        assert_eq!(stage.status(), 200);
        stage.presence(JULIET, ROMEO, "subscribed", "");
        stage.presence("juliet@xmpp.example/balcony", ROMEO, "", "<show>dnd</show>");
        let mut states = Vec::new();
        while !way.is_reliable && !stage.requests.is_empty() {
            let draft = stage.answer(200, "");
            assert_eq!(draft.method, "NOTIFY");
            states.push(String::from_utf8(draft.body.to_vec()).expect("UTF-8"));
        }
        states.extend(stage.notifies.drain(..).map(|notify| body_of(&notify)));
        assert!(states.last().is_some_and(|last| last.contains(">dnd<")), "{way:?}: {states:?}");
    }
}

#[test]
fn stox_a_14_gr_is_written_inside_the_brackets_and_read_on_either_side_of_them() {
    let mut stage = Stage::new();
    stage.romeo_watches_juliet("a");
    stage.presence("juliet@xmpp.example/balcony", ROMEO, "", "");
    assert!(body_of(&stage.notify()).contains(">sip:juliet@xmpp.example;gr=balcony</contact>"));
    stage.xmpp_says(
        "<message from='juliet@xmpp.example/balcony' to='benvolio@corp.example'><body>x</body></message>",
    );
    assert!(stage.answer(200, "").from.starts_with("<sip:juliet@xmpp.example;gr=balcony>;tag="));
    for from in ["<sip:benvolio@corp.example;gr=r>;tag=m", "<sip:benvolio@corp.example>;gr=r;tag=m"] {
        let text = format!(
            "MESSAGE sip:{JULIET} SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKg\r\nFrom: {from}\r\n\
             To: <sip:{JULIET}>\r\nCall-ID: g\r\nCSeq: 1 MESSAGE\r\nContent-Type: text/plain\r\n\
             Content-Length: 1\r\n\r\nx"
        );
        stage.sip_says(&front_end(), BENVOLIO, text);
        let stanza = stage.stanza();
        assert!(stanza.contains("from='benvolio@corp.example/r'"), "{from}: {stanza}");
    }
}

#[test]
fn stox_e_03_a_remote_timeout_is_never_a_408() {
    for from in [JULIET, "juliet@xmpp.example/b"] {
        assert_eq!(refused(from, &error("<remote-server-timeout/>")).status(), Some(480));
    }
    let mut stage = Stage::new();
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c1", "");
    stage.notifies.clear();
    assert_eq!(stage.status(), 200);
    stage.presence(JULIET, ROMEO, "error", &error("<remote-server-timeout/>"));
    assert!(state_of(&stage.notify()).starts_with("terminated;reason=probation"));
    assert!(stage.responses.is_empty());
}

#[test]
fn stox_e_04_who_is_not_authorized_gets_403_and_no_challenge() {
    for condition in ["<not-authorized/>", "<registration-required/>"] {
        let response = refused(JULIET, &error(condition));
        assert_eq!(response.status(), Some(403), "{condition}");
        assert!(response.all_rows().all(|(name, _)| !name.to_ascii_lowercase().ends_with("authenticate")));
    }
}

#[test]
fn stox_e_05_who_moved_is_named_in_the_answer_where_sip_can_name_it() {
    let moved = |inner: &str| {
        let response = refused("juliet@xmpp.example/b", &format!("<error type='modify'>{inner}</error>"));
        let contact =
            response.contacts().next().map(|contact| contact.expect("legal").uri.as_str().to_owned());
        (response.status().expect("a status"), contact)
    };
    let in_stanzas = "xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'";
    let there = |name: &str, text: &str| moved(&format!("<{name} {in_stanzas}>{text}</{name}>"));
    assert_eq!(there("gone", "xmpp:x@y"), (301, Some("sip:x@y".to_owned())));
    assert_eq!(there("redirect", "xmpp:x@y/r"), (302, Some("sip:x@y;gr=r".to_owned())));
    assert_eq!(there("gone", "http://y/x"), (410, None));
    assert_eq!(there("redirect", ""), (480, None));
}

#[test]
fn stox_p_48_the_language_crosses_both_ways() {
    let mut stage = Stage::new();
    stage.romeo_watches_juliet("a");
    stage.xmpp_says(
        "<presence from='juliet@xmpp.example/b' to='romeo@sip.example' xml:lang='cs'><status>Pryč</status></presence>",
    );
    let notify = stage.notify();
    assert_eq!(notify.content_language(), Some("cs"));
    assert!(body_of(&notify).contains("xml:lang=\"cs\""), "{}", body_of(&notify));
    // What is no language tag ends no header.
    stage.xmpp_says(
        "<presence from='juliet@xmpp.example/b' to='romeo@sip.example' xml:lang='x&#10;Y: z'><status>a</status></presence>",
    );
    assert_eq!(stage.notify().content_language(), None);

    let note = "<tuple id='ID-desk'><status><basic>open</basic></status><note>Pryč</note></tuple></presence>";
    let document =
        |user: &str| format!("<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:{user}'>{note}");
    let draft = stage.juliet_watches_benvolio(&document(BENVOLIO));
    assert!(!stage.stanzas.iter().any(|stanza| stanza.contains("xml:lang")), "{:?}", stage.stanzas);
    stage.stanzas.clear();
    let to = draft.to.split(";tag=").next().unwrap_or_default();
    let body = document(BENVOLIO);
    let text = format!(
        "NOTIFY sip:{}@127.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKl\r\nFrom: {to};tag=pstag\r\n\
         To: {}\r\nCall-ID: {}\r\nCSeq: 9 NOTIFY\r\nContact: <sip:ps@127.0.0.31>\r\nEvent: presence\r\n\
         Subscription-State: active\r\nContent-Type: application/pidf+xml\r\nContent-Language: cs\r\n\
         Content-Length: {}\r\n\r\n{body}",
        draft.contact_user.as_deref().unwrap_or_default(),
        draft.from,
        draft.call_id,
        body.len()
    );
    stage.sip_says(&front_end(), BENVOLIO, text);
    assert_eq!(stage.status(), 200);
    assert!(stage.stanza().contains("<status xml:lang='cs'>Pryč</status>"));

    stage.juliet_watches_romeo();
    // xml:lang holds one tag; without one the note would count as in the stream's language (RFC 6120 §8.1.5).
    stage.publish_body(ROMEO, &document(ROMEO), "Content-Language: de, en\r\n");
    assert!(stage.stanza().contains("<status xml:lang='mul'>Pryč</status>"));
    stage.publish_body(ROMEO, &document(ROMEO), "Content-Language: cs\r\n");
    assert!(stage.stanza().contains("<status xml:lang='cs'>Pryč</status>"));
    let again = stage.killed_and_started_again(Duration::from_secs(5));
    let told = again.stanzas.iter().find(|stanza| stanza.contains("from='romeo@sip.example/desk'"));
    assert!(told.is_some_and(|told| told.contains("xml:lang='cs'")), "{:?}", again.stanzas);
}

#[test]
fn xp_22_a_probe_of_one_device_learns_whether_that_one_is_there_and_nothing_else() {
    let mut stage = Stage::new();
    stage.publish(ROMEO, "open", "away", "at the orchard");
    stage.juliet_watches_romeo();
    let balcony = "juliet@xmpp.example/balcony";
    stage.presence(balcony, "romeo@sip.example/orchard", "probe", "");
    assert_eq!(stage.stanza(), format!("<presence from='romeo@sip.example/orchard' to='{balcony}'/>"));
    stage.presence(balcony, "romeo@sip.example/elsewhere", "probe", "");
    let none = stage.stanza();
    assert!(none.contains("from='romeo@sip.example/elsewhere'") && none.contains("type='unavailable'"));
    assert!(stage.stanzas.is_empty(), "nothing about the other: {:?}", stage.stanzas);
    stage.presence(NURSE, "romeo@sip.example/orchard", "probe", "");
    assert!(stage.stanza().contains("type='unsubscribed'"), "a stranger is answered as always (XP-21)");
    // One behind a front end too.
    stage.juliet_watches_benvolio(&pidf("open", ""));
    stage.stanzas.clear();
    stage.presence(balcony, "benvolio@corp.example/desk", "probe", "");
    assert_eq!(stage.stanza(), format!("<presence from='benvolio@corp.example/desk' to='{balcony}'/>"));
    stage.input(Input::Ask { user: None, asker: 1 });
    assert!(stage.requests.is_empty(), "and the front end is not asked");
}

#[test]
fn xp_24_an_error_of_a_watcher_stops_no_later_state() {
    let mut stage = Stage::new();
    stage.juliet_watches_romeo();
    stage.presence(JULIET, ROMEO, "error", &error("<recipient-unavailable/>"));
    stage.presence(JULIET, ROMEO, "error", &error("<item-not-found/>"));
    stage.publish(ROMEO, "open", "away", "at the orchard");
    let stanza = stage.stanza();
    assert!(stanza.contains("<show>away</show>") && stanza.contains("at the orchard"), "whole: {stanza}");
}

/// Romeo's phone and his desk are there, and juliet sees both.
fn two_devices_watched() -> Stage {
    let mut stage = Stage::new();
    stage.publish(ROMEO, "open", "away", "");
    let desk = format!(
        "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:{ROMEO}'><tuple id='ID-desk'><status>\
         <basic>open</basic></status></tuple></presence>"
    );
    stage.publish_by("b", ROMEO, &desk, "Expires: 100\r\n");
    stage.juliet_watches_romeo();
    stage
}

/// `unavailable` of the bare address, which ends every device at once (RFC 6121 §4.5.4), and then the last word.
fn ends_in_order(stage: &mut Stage) {
    let all = "<presence from='romeo@sip.example' to='juliet@xmpp.example' type='unavailable'/>";
    assert_eq!(stage.stanza(), all);
    assert_eq!(stage.stanza(), all.replace("unavailable", "unsubscribed"));
    assert!(stage.is_silent());
    stage.publish(ROMEO, "open", "dnd", "");
    assert!(stage.stanzas.is_empty(), "and nothing after it: {:?}", stage.stanzas);
}

#[test]
fn xp_15_who_takes_back_a_grant_is_gone_first_and_then_unsubscribed() {
    let mut stage = two_devices_watched();
    let watcher = Some(address(JULIET));
    stage.input(Input::Decide { user: address(ROMEO), watcher, is_approved: false, asker: 1 });
    ends_in_order(&mut stage);
}

#[test]
fn xp_16_who_unsubscribes_is_told_that_every_device_is_gone() {
    let mut stage = two_devices_watched();
    stage.stores_at_once = false;
    stage.presence(JULIET, ROMEO, "unsubscribe", "");
    assert!(stage.is_silent(), "the state changes first");
    stage.settle_store(true);
    stage.stores_at_once = true;
    ends_in_order(&mut stage);
    stage.presence(JULIET, ROMEO, "probe", "");
    assert!(stage.stanza().contains("type='unsubscribed'"), "no longer a watcher");
}

#[test]
fn xp_26_a_device_that_is_lost_without_a_word_is_unavailable_for_every_watcher() {
    let mut stage = two_devices_watched();
    stage.presence(NURSE, ROMEO, "subscribe", "");
    stage.stanzas.clear();
    stage.wait(Duration::from_secs(101));
    for watcher in [JULIET, NURSE] {
        let gone = format!("<presence from='romeo@sip.example/desk' to='{watcher}' type='unavailable'/>");
        assert!(stage.stanzas.contains(&gone), "{watcher}: {:?}", stage.stanzas);
    }
    assert_eq!(stage.stanzas.len(), 2, "the other device is there: {:?}", stage.stanzas);
    // One whose front end ends the dialog.
    stage.stanzas.clear();
    let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
    stage.stanzas.clear();
    stage.wait_for_request(Duration::from_secs(3600));
    assert_eq!(stage.time_out().call_id, draft.call_id, "the refresh is not answered");
    stage.wait(Duration::from_secs(3600));
    let gone =
        |stanza: &String| stanza.contains("from='benvolio@corp.example") && stanza.contains("'unavailable'");
    assert!(stage.stanzas.iter().any(gone), "{:?}", stage.stanzas);
}
