//! MESSAGE by the letter of RFC 3428, and what holds for every request of the SIP side (RFC 3261 §8).

use std::time::Duration;

use tombolo_sip::message::Message;

use super::stage::*;
use crate::request::RequestDraft;

const PLAIN: &str = "Content-Type: text/plain\r\n";

/// Juliet writes to Benvolio; what his front end is sent.
fn juliet_writes(stage: &mut Stage, more: &str) {
    stage.xmpp_says(&format!(
        "<message from='{JULIET}/balcony' to='{BENVOLIO}' id='m1' type='chat'><body>x</body>{more}</message>"
    ));
}

/// What Juliet is told when the front end answers so.
fn told_of(status: u16) -> Vec<String> {
    let mut stage = Stage::new();
    juliet_writes(&mut stage, "");
    stage.answer(status, "");
    stage.stanzas.into()
}

fn sent(draft: &RequestDraft) -> Message {
    message(&draft.render("SIP/2.0/TCP h;branch=z9hG4bKx", "h"))
}

#[test]
fn what_stands_behind_from_and_can_be_no_resource_is_left_out() {
    for gr in ["\"\"", &"x".repeat(2000), "\"a\u{e000}b\""] {
        let mut stage = Stage::new();
        let text = format!(
            "MESSAGE sip:{JULIET} SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKg\r\nFrom: <sip:{ROMEO}>;tag=m;gr={gr}\r\n\
             To: <sip:{JULIET}>\r\nCall-ID: g\r\nCSeq: 1 MESSAGE\r\nContent-Type: text/plain\r\n\
             Content-Length: 1\r\n\r\nx"
        );
        stage.sip_says(&phone_of(ROMEO, "a"), ROMEO, text);
        let stanza = stage.stanza();
        assert!(stanza.contains("from='romeo@sip.example'"), "{stanza}");
    }
}

#[test]
fn sip_d_10_an_unknown_code_counts_as_the_first_of_its_class() {
    // The text names the code itself.
    let without_text = |stanzas: Vec<String>| -> Vec<String> {
        stanzas.iter().map(|stanza| stanza.split("<text ").next().unwrap_or_default().to_owned()).collect()
    };
    for (unknown, known) in [(299, 200), (399, 300), (499, 400), (599, 500), (699, 600)] {
        assert_eq!(without_text(told_of(unknown)), without_text(told_of(known)), "{unknown}");
    }
    assert!(told_of(299).is_empty() && told_of(499).len() == 1);
}

#[test]
fn sip_d_19_a_request_for_a_sips_uri_is_refused_and_nothing_goes_on_by_sip_or_xmpp() {
    let mut stage = Stage::new();
    for (uri, to) in [("sips", "sip"), ("sip", "sips"), ("sips", "sips")] {
        for method in ["SUBSCRIBE", "MESSAGE"] {
            let text = format!(
                "{method} {uri}:{JULIET} SIP/2.0\r\nVia: SIP/2.0/TLS h;branch=z9hG4bK{uri}{to}\r\n\
                 From: <sip:{BENVOLIO}>;tag=f\r\nTo: <{to}:{JULIET}>\r\nCall-ID: {uri}{to}\r\nCSeq: 1 {method}\r\n\
                 Contact: <sips:{BENVOLIO}>\r\nEvent: presence\r\nContent-Length: 0\r\n\r\n"
            );
            stage.sip_says(&front_end(), BENVOLIO, text);
            let response = stage.response();
            assert_eq!(response.status(), Some(480), "{method} {uri} {to}");
            let warning: Vec<_> = response.rows(tombolo_sip::headers::HeaderName::Warning).collect();
            assert!(warning.iter().any(|text| text.starts_with("380 ")), "{warning:?}");
            assert!(stage.is_silent());
        }
    }
}

#[test]
fn sip_m_01_text_goes_both_ways_without_contact_dialog_or_a_body_in_the_answer() {
    let mut stage = Stage::new();
    juliet_writes(&mut stage, "");
    let request = sent(&stage.answer(200, ""));
    assert!(request.content_type().expect("legal").expect("there").is("text", "plain"));
    assert_eq!(request.body(), &b"x"[..]);
    assert!(request.contacts().next().is_none());
    assert_eq!(request.to().expect("To").tag(), None, "in no dialog");
    stage.message(&front_end(), BENVOLIO, JULIET, PLAIN, b"hello");
    let response = stage.response();
    assert!(response.status().is_some_and(|status| (200..300).contains(&status)));
    assert!(response.contacts().next().is_none() && response.body().is_empty());
    assert!(stage.stanza().contains("<body>hello</body>"));
}

#[test]
fn sip_m_02_no_receipt_comes_of_a_2xx_and_a_6xx_is_a_refusal() {
    for status in [200, 202] {
        let mut stage = Stage::new();
        juliet_writes(&mut stage, "<request xmlns='urn:xmpp:receipts'/>");
        stage.answer(status, "");
        assert!(stage.stanzas.is_empty(), "{status}: {:?}", stage.stanzas);
    }
    let told = told_of(603);
    assert!(matches!(&told[..], [error] if error.contains("type='error'")), "{told:?}");
}

#[test]
fn sip_m_03_a_message_in_a_dialog_that_is_not_there_gets_481() {
    let mut stage = Stage::new();
    let text = format!(
        "MESSAGE sip:{JULIET} SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKd\r\nFrom: <sip:{BENVOLIO}>;tag=f\r\n\
         To: <sip:{JULIET}>;tag=of-no-dialog\r\nCall-ID: d\r\nCSeq: 1 MESSAGE\r\n{PLAIN}Content-Length: 1\r\n\r\nx"
    );
    stage.sip_says(&front_end(), BENVOLIO, text);
    assert_eq!(stage.status(), 481);
    assert!(stage.is_silent());
}

#[test]
fn sip_m_05_expires_without_a_date_counts_from_the_arrival() {
    for (headers, arrives) in [
        ("Expires: 1\r\n", true),
        ("Expires: 0\r\n", false),
        // The stage's clock stands in January 2027.
        ("Expires: 1\r\nDate: Sat, 13 Nov 2010 23:29:00 GMT\r\n", false),
    ] {
        let mut stage = Stage::new();
        stage.message(&front_end(), BENVOLIO, JULIET, &format!("{PLAIN}{headers}"), b"x");
        assert_eq!(stage.stanzas.len(), usize::from(arrives), "{headers}");
        assert_eq!(stage.status() < 300, arrives, "{headers}");
    }
}

#[test]
fn sip_tx_07_every_request_is_answered_at_once_whoever_must_still_decide() {
    let mut stage = Stage::new();
    let begun = stage.now;
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c1", "");
    assert_eq!(stage.status(), 200, "Juliet has not decided");
    stage.subscribe(&phone_of("mercutio@sip.example", "m"), "mercutio@sip.example", ROMEO, "c2", "");
    assert_eq!(stage.status(), 200, "Romeo has not decided");
    assert_eq!(stage.publish(ROMEO, "open", "", "").status(), Some(200));
    let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
    assert_eq!(stage.front_end_notifies(&draft, 2, "active;expires=3600", &pidf("closed", "")), 200);
    stage.message(&front_end(), BENVOLIO, JULIET, PLAIN, b"x");
    assert_eq!(stage.status(), 202, "it may not be delivered yet");
    assert_eq!(stage.now, begun, "no time has passed");
    // A phone's message waits for an error of the other side, but never for people (D-24).
    stage.message(&phone_of(ROMEO, "a"), ROMEO, JULIET, PLAIN, b"x");
    stage.wait(Duration::from_millis(500));
    assert_eq!(stage.status(), 202);
}

#[test]
fn sip_x_10_control_characters_in_a_uri_name_nobody_and_reach_no_stanza() {
    let mut stage = Stage::new();
    for user in ["null-%00-null", "a%0d%0aVia:%20x", "a%0ab", "%1b[31m", "a%7fb"] {
        for target in [format!("{user}@xmpp.example"), format!("{user}@sip.example")] {
            stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, &target, "c1", "");
            let status = stage.status();
            assert!((400..500).contains(&status), "{target}: {status}");
            stage.message(&phone_of(ROMEO, "a"), ROMEO, &target, PLAIN, b"x");
            let status = stage.status();
            assert!((400..500).contains(&status), "{target}: {status}");
            assert!(stage.is_silent() && stage.deliveries.is_empty());
        }
    }
    assert!(stage.rows.is_empty(), "no row is made");
}
