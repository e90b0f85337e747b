//! Page-mode messages both ways (RFC 7572).

use std::time::Duration;

use tombolo_policy::{Approve, MessageType, PartnerKind};
use tombolo_sip::headers::HeaderName;

use super::stage::*;
use crate::{
    error::{Failure, NoResponse, Undelivered},
    owner::{Input, MessageId},
};

fn error(condition: &str) -> String {
    format!("<error type='cancel'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>")
}

fn write(stage: &mut Stage, id: &str, body: &str) {
    stage.xmpp_says(&format!(
        "<message from='juliet@xmpp.example/balcony' to='benvolio@corp.example' id='{id}' type='chat'>\
         <body>{body}</body><thread>t1</thread></message>"
    ));
}

#[test]
fn stox_m_01_stox_m_03_a_message_becomes_one_request_with_its_fields() {
    let mut stage = Stage::new();
    stage.xmpp_says(
        "<message from='juliet@xmpp.example/balcony' to='benvolio@corp.example/desk' id='7' xml:lang='cs'>\
         <subject>Hi</subject><body>Proč?</body><thread>t1</thread></message>",
    );
    assert_eq!(stage.requests.len(), 1);
    let draft = stage.answer(200, "");
    assert_eq!(draft.method, "MESSAGE");
    assert_eq!(draft.uri, "sip:benvolio@corp.example;gr=desk");
    assert!(draft.from.starts_with("<sip:juliet@xmpp.example;gr=balcony>;tag="), "{}", draft.from);
    assert_eq!(draft.body, "Proč?".as_bytes());
    assert!(draft.headers.contains(&("Subject", "Hi".into())));
    assert!(draft.headers.contains(&("Content-Language", "cs".into())));
    assert!(stage.is_silent(), "a 2xx says nothing (STOX-A-25)");
}

#[test]
fn stox_m_04_messages_of_one_thread_share_a_call_id_and_count_up() {
    let mut stage = Stage::new();
    write(&mut stage, "1", "one");
    let first = stage.answer(200, "");
    write(&mut stage, "2", "two");
    let second = stage.answer(200, "");
    assert_eq!(first.call_id, second.call_id);
    assert!(second.cseq > first.cseq);
    assert_ne!(first.from, second.from, "a new tag, so that nobody takes it as a copy (D-22)");
}

#[test]
fn stox_m_13_never_two_at_a_time_to_one_recipient() {
    let mut stage = Stage::new();
    for n in 0..3 {
        write(&mut stage, &n.to_string(), &format!("text {n}"));
    }
    stage.xmpp_says(
        "<message from='nurse@xmpp.example/x' to='benvolio@corp.example' id='n'><body>other</body></message>",
    );
    assert_eq!(stage.requests.len(), 2, "one of each sender");
    for n in 0..3 {
        let at =
            stage.requests.iter().position(|(_, _, draft)| draft.from.contains("juliet")).expect("in flight");
        stage.requests.swap(0, at);
        let draft = stage.answer(200, "");
        assert_eq!(draft.body, format!("text {n}").as_bytes(), "in order");
    }
}

#[test]
fn stox_m_14_a_failure_comes_back_to_the_full_sender_with_its_id() {
    for (status, condition) in
        [(404, "item-not-found"), (486, "recipient-unavailable"), (415, "not-acceptable")]
    {
        let mut stage = Stage::new();
        write(&mut stage, "m7", "x");
        stage.answer(status, "");
        let stanza = stage.stanza();
        assert!(
            stanza.contains("to='juliet@xmpp.example/balcony'") && stanza.contains("id='m7'"),
            "{stanza}"
        );
        assert!(stanza.contains("type='error'") && stanza.contains(condition), "{status}: {stanza}");
    }
    let mut stage = Stage::new();
    write(&mut stage, "m7", "x");
    stage.time_out();
    assert!(stage.stanza().contains("remote-server-timeout"));
}

#[test]
fn stox_e_09_a_front_end_that_is_down_is_told_apart_from_one_that_refuses() {
    assert_eq!((NoResponse::Timeout.status(), NoResponse::Transport.status()), (408, 503));
    let mut stage = Stage::new();
    write(&mut stage, "m7", "x");
    stage.break_off();
    let error = stage.stanza();
    assert!(error.contains("<error type='wait'><remote-server-timeout "), "{error}");
    assert!(error.contains(">the user's server cannot be reached</text>"), "{error}");
    write(&mut stage, "m8", "x");
    stage.time_out();
    let error = stage.stanza();
    assert!(error.contains("<error type='wait'><remote-server-timeout "), "{error}");
    assert!(error.contains(">the user's server did not answer in time</text>"), "{error}");
    for (status, condition, text) in [
        (503, "internal-server-error", "503 Service Unavailable"),
        (504, "remote-server-timeout", "504 Server Time-out"),
        (480, "recipient-unavailable", "480 Temporarily Unavailable"),
    ] {
        write(&mut stage, "m9", "x");
        stage.answer(status, "");
        let error = stage.stanza();
        assert!(error.contains(&format!("<{condition} ")), "{error}");
        assert!(error.contains(&format!(">the SIP side refused the message: {text}</text>")), "{error}");
    }
}

#[test]
fn a_sip_sender_is_told_whether_the_contacts_server_refused_or_could_not_be_reached() {
    use Undelivered::{NotSent, Uncertain};
    for (fate, status, text) in [
        (NotSent("remote-server-timeout"), 480, "the contact's server cannot be reached"),
        (NotSent("remote-server-not-found"), 404, "the contact's domain has no XMPP server"),
        (Uncertain, 480, "the stream broke, and the message may have arrived"),
    ] {
        let mut stage = Stage::new();
        stage.writes_messages = false;
        stage.message(&phone_of(ROMEO, "a"), ROMEO, JULIET, "Content-Type: text/plain\r\n", b"x");
        stage.input(Input::MessageFate { message: MessageId(1), fate: Err(fate) });
        let response = stage.response();
        assert_eq!(response.status(), Some(status));
        let warning = response.rows(HeaderName::Warning).next().expect("a cause");
        assert_eq!(warning, format!("399 tombolo \"{text}\""));
    }
    let mut stage = Stage::new();
    stage.message(&phone_of(ROMEO, "a"), ROMEO, JULIET, "Content-Type: text/plain\r\n", b"x");
    let id = stage.stanza().split("id='").nth(1).expect("an id").split('\'').next().expect("one").to_owned();
    let text = error("remote-server-timeout");
    stage
        .xmpp_says(&format!("<message from='{JULIET}' to='{ROMEO}' type='error' id='{id}'>{text}</message>"));
    let response = stage.response();
    assert_eq!(response.status(), Some(480));
    let warning = response.rows(HeaderName::Warning).next().expect("a cause");
    assert_eq!(warning, "399 tombolo \"the XMPP side refused the message\"");
}

#[test]
fn stox_m_16_messages_without_body_become_nothing() {
    let mut stage = Stage::new();
    for inner in [
        "<composing xmlns='http://jabber.org/protocol/chatstates'/>",
        "<received xmlns='urn:xmpp:receipts' id='1'/>",
        "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>",
        "<event xmlns='http://jabber.org/protocol/pubsub#event'/>",
    ] {
        stage.xmpp_says(&format!(
            "<message from='juliet@xmpp.example/b' to='benvolio@corp.example'>{inner}</message>"
        ));
        assert!(stage.is_silent(), "{inner}");
    }
}

#[test]
fn stox_g_08_rooms_are_refused_and_never_become_a_message() {
    let mut stage = Stage::new();
    stage.xmpp_says("<message from='juliet@xmpp.example/b' to='benvolio@corp.example' type='groupchat' id='1'><body>x</body></message>");
    assert!(stage.stanza().contains("service-unavailable"));
    assert!(stage.requests.is_empty());
}

#[test]
fn stox_m_19_line_ends_cross_as_each_side_writes_them() {
    let mut stage = Stage::new();
    write(&mut stage, "1", "one\ntwo");
    assert_eq!(stage.answer(200, "").body, &b"one\r\ntwo"[..]);
    stage.message(&front_end(), BENVOLIO, JULIET, "Content-Type: text/plain\r\n", b"a\x00\x0bb\r\nc");
    assert!(stage.stanza().contains("<body>ab\nc</body>"));
}

#[test]
fn stox_m_05_stox_m_06_a_request_becomes_a_normal_stanza_and_202() {
    let mut stage = Stage::new();
    stage.message(&front_end(), BENVOLIO, JULIET, "Content-Type: text/plain\r\n", b"Neither, fair saint");
    let stanza = stage.stanza();
    assert!(
        stanza.starts_with("<message from='benvolio@corp.example' to='juliet@xmpp.example' id='"),
        "{stanza}"
    );
    assert!(!stanza.contains("type="), "{stanza}");
    let response = stage.response();
    assert_eq!(response.status(), Some(202));
    assert!(response.contacts().next().is_none() && response.body().is_empty(), "SIP-M-01");
}

#[test]
fn stox_m_07_a_partner_may_want_chat() {
    let mut stage = Stage::with(Approve::Partner, |partner| partner.message_type = MessageType::Chat);
    stage.message(&front_end(), BENVOLIO, JULIET, "Content-Type: text/plain\r\n", b"x");
    assert!(stage.stanza().contains("type='chat'"));
}

#[test]
fn stox_m_08_other_character_sets_are_read_or_refused() {
    let mut stage = Stage::new();
    stage.message(
        &front_end(),
        BENVOLIO,
        JULIET,
        "Content-Type: text/plain;charset=ISO-8859-1\r\n",
        b"caf\xe9",
    );
    assert!(stage.stanza().contains("<body>café</body>"));
    stage.responses.clear();
    stage.message(
        &front_end(),
        BENVOLIO,
        JULIET,
        "Content-Type: text/plain;charset=koi8-r\r\n",
        b"\xf0\xd2\xc9",
    );
    assert!(stage.stanza().contains("<body>При</body>"));
    stage.responses.clear();
    stage.message(&front_end(), BENVOLIO, JULIET, "Content-Type: text/plain;charset=no-such-set\r\n", b"x");
    let response = stage.response();
    assert_eq!(response.status(), Some(415));
    assert_eq!(response.accept().next(), Some("text/plain"));
}

#[test]
fn stox_m_10_other_types_are_refused_with_what_is_taken() {
    let mut stage = Stage::new();
    for content_type in ["application/x-foo", "message/imdn+xml", "image/png"] {
        stage.message(&front_end(), BENVOLIO, JULIET, &format!("Content-Type: {content_type}\r\n"), b"x");
        let response = stage.response();
        assert_eq!(
            (response.status(), response.accept().next()),
            (Some(415), Some("text/plain")),
            "{content_type}"
        );
    }
    assert!(stage.stanzas.is_empty());
}

#[test]
fn stox_m_10_sip_m_06_a_text_arrives_whatever_it_is_wrapped_in() {
    for (content_type, body) in [
        (
            "multipart/alternative;boundary=b",
            "--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b\r\nContent-Type: text/html\r\n\r\n<b>hello</b>\r\n--b--",
        ),
        (
            "message/cpim",
            "From: <sip:somebody@else.example>\r\nTo: <sip:x@y>\r\nNS: imdn <urn:ietf:params:imdn>\r\n\
             imdn.Message-ID: 1\r\nimdn.Disposition-Notification: positive-delivery, display\r\n\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\n\r\nhello",
        ),
    ] {
        let mut stage = Stage::new();
        let headers = format!("Content-Type: {content_type}\r\n");
        stage.message(&front_end(), BENVOLIO, JULIET, &headers, body.as_bytes());
        assert_eq!(stage.status(), 202, "{content_type}");
        let stanza = stage.stanza();
        assert!(stanza.contains("<body>hello</body>"), "{stanza}");
        // SIP-M-07: what CPIM says of its sender is display.
        assert!(
            stanza.contains("from='benvolio@corp.example'") && !stanza.contains("else.example"),
            "{stanza}"
        );
    }
}

#[test]
fn a_notification_about_a_message_is_shown_to_nobody() {
    let cpim = "From: <sip:a@b>\r\nTo: <sip:x@y>\r\n\r\nContent-Type: message/imdn+xml\r\n\
        Content-Disposition: notification\r\n\r\n<imdn/>";
    for (content_type, body) in [("message/cpim", cpim), ("message/imdn+xml", "<imdn/>")] {
        let mut stage = Stage::new();
        let headers = format!("Content-Type: {content_type}\r\n");
        stage.message(&front_end(), BENVOLIO, JULIET, &headers, body.as_bytes());
        let response = stage.response();
        assert_eq!((response.status(), response.accept().next()), (Some(415), Some("text/plain")));
        assert!(stage.stanzas.is_empty());
    }
}

#[test]
fn stox_e_06_a_recipient_who_moved_is_gone_with_the_new_address() {
    let gone = "<gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>xmpp:benny@new.example</gone>";
    let redirect = gone.replace("gone", "redirect");
    for (status, contact, expected) in [
        (301, "Contact: <tel:+1>, \"B\" <sip:benny@new.example:5070;transport=tcp>;q=0.5\r\n", gone),
        (302, "Contact: sip:benny@new.example\r\n", &*redirect),
        (300, "m: <sips:benny@new.example>\r\n", &*redirect),
        (301, "", "<gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"),
        (301, "Contact: <tel:+1>\r\n", "<gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"),
        // RFC 7247 §7.2: a 410 knows no new address.
        (410, "Contact: <sip:benny@new.example>\r\n", "<gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"),
    ] {
        let mut stage = Stage::new();
        stage.xmpp_says(&format!(
            "<message from='{JULIET}/b' to='{BENVOLIO}' id='1'><body>x</body></message>"
        ));
        stage.answer(status, contact);
        let stanza = stage.stanza();
        assert!(stanza.contains(expected), "{status} {contact}: {stanza}");
        assert!(stanza.contains("id='1'") && stanza.contains("to='juliet@xmpp.example/b'"), "{stanza}");
        let mut stage = Stage::new();
        stage.presence(JULIET, BENVOLIO, "subscribe", "");
        stage.answer(status, contact);
        let stanza = stage.stanza();
        assert!(stanza.contains(expected), "a subscription, {status} {contact}: {stanza}");
    }
    // A phone says it too, and a colleague gets it as SIP has it.
    for (from, is_local) in [("juliet@xmpp.example/b", false), ("mercutio@sip.example", true)] {
        let mut stage = Stage::new();
        if is_local {
            stage.message(&phone_of(from, "a"), from, ROMEO, "Content-Type: text/plain\r\n", b"x");
        } else {
            stage.xmpp_says(&format!("<message from='{from}' to='{ROMEO}' id='1'><body>x</body></message>"));
        }
        let (message, _) = stage.deliveries.pop_front().expect("for the phones");
        stage.input(Input::Moved { message, status: 301, contact: "sip:benny@new.example".into() });
        if is_local {
            let response = stage.response();
            let contact = response.contacts().next().expect("a Contact").expect("legal");
            assert_eq!((response.status(), contact.uri.as_str()), (Some(301), "sip:benny@new.example"));
        } else {
            let stanza = stage.stanza();
            assert!(stanza.contains(gone), "{stanza}");
        }
    }
}

#[test]
fn stox_m_04_a_reply_with_our_call_id_is_of_the_thread_that_it_answers() {
    let thread = "e0ffe42b28561960c6b12b944a092794b9683a38";
    for (user, phone) in [(BENVOLIO, front_end()), (ROMEO, phone_of(ROMEO, "a"))] {
        let mut stage = Stage::new();
        stage.xmpp_says(&format!(
            "<message from='{JULIET}/b' to='{user}'><body>x</body><thread>{thread}</thread></message>"
        ));
        let call_id = match stage.requests.front() {
            Some((_, _, draft)) => draft.call_id.clone(),
            // Each phone sees it with a number of its own.
            None => format!("{}.1", stage.deliveries.front().expect("for the phones").1.call_id),
        };
        let text = format!(
            "MESSAGE sip:{JULIET} SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKt\r\nFrom: <sip:{user}>;tag=m\r\n\
             To: <sip:{JULIET}>\r\nCall-ID: {call_id}\r\nCSeq: 7 MESSAGE\r\nContent-Type: text/plain\r\n\
             Content-Length: 1\r\n\r\ny"
        );
        stage.stanzas.clear();
        stage.sip_says(&phone, user, text);
        let stanza = stage.stanza();
        assert!(stanza.contains(&format!("<thread>{thread}</thread>")), "{stanza}");
    }
}

#[test]
fn no_side_is_shown_an_empty_message() {
    let mut stage = Stage::new();
    for (headers, body) in [
        ("", &b""[..]),
        ("Content-Type: text/plain\r\n", b""),
        ("Content-Type: text/plain\r\n", b"\0\x0b"),
        ("Content-Type: image/png\r\nContent-Disposition: render;handling=optional\r\n", b"x"),
        ("Content-Type: multipart/mixed;boundary=b\r\n", b"--b\r\n\r\n\r\n--b--"),
    ] {
        for to in [JULIET, "mercutio@sip.example"] {
            stage.message(&phone_of(ROMEO, "a"), ROMEO, to, headers, body);
            assert_eq!(stage.status(), 200, "{headers} {body:?}");
            assert!(stage.is_silent() && stage.deliveries.is_empty(), "{headers} {body:?}");
        }
    }
    for bodies in ["<body/>", "<body></body>", "<body xml:lang='de'/><body/>"] {
        stage.xmpp_says(&format!("<message from='{JULIET}' to='{ROMEO}' id='1'>{bodies}</message>"));
        assert!(stage.deliveries.is_empty() && stage.stanzas.is_empty(), "{bodies}");
    }
    stage.xmpp_says(&format!(
        "<message from='{JULIET}' to='{ROMEO}' id='1'><body/><body xml:lang='de'>Hallo</body></message>"
    ));
    let (_, draft) = stage.deliveries.pop_front().expect("for the phones");
    assert_eq!(draft.body[..], *b"Hallo");
    stage.message(&front_end(), BENVOLIO, JULIET, "Subject: only this\r\n", b"");
    let stanza = stage.stanza();
    assert!(stanza.contains("<subject>only this</subject>") && !stanza.contains("<body"), "{stanza}");
}

#[test]
fn stox_m_03_a_list_of_languages_becomes_the_tag_for_several_and_no_language_becomes_none() {
    for (languages, lang) in [("de, en", Some("mul")), ("d'e", None), ("x".repeat(8000).as_str(), None)] {
        let mut stage = Stage::new();
        let headers = format!("Content-Type: text/plain\r\nContent-Language: {languages}\r\n");
        stage.message(&front_end(), BENVOLIO, JULIET, &headers, b"x");
        let stanza = stage.stanza();
        let told = stanza.split_once("xml:lang='").and_then(|(_, rest)| Some(rest.split_once('\'')?.0));
        assert_eq!(told, lang, "{stanza}");
    }
}

#[test]
fn stox_m_20_a_message_that_ran_out_is_not_delivered() {
    let mut stage = Stage::new();
    let headers = "Content-Type: text/plain\r\nExpires: 1\r\nDate: Sat, 13 Nov 2010 23:29:00 GMT\r\n";
    stage.message(&front_end(), BENVOLIO, JULIET, headers, b"x");
    assert_eq!(stage.status(), 480);
    assert!(stage.stanzas.is_empty());
}

#[test]
fn stox_m_15_stox_e_02_an_error_in_time_is_the_answer() {
    for (condition, bare, full) in [
        ("item-not-found", 604, 404),
        ("service-unavailable", 403, 403),
        ("remote-server-timeout", 480, 480),
        ("not-authorized", 403, 403),
    ] {
        for (from, expected) in [(JULIET, bare), ("juliet@xmpp.example/b", full)] {
            let mut stage = Stage::new();
            stage.message(&phone_of(ROMEO, "a"), ROMEO, JULIET, "Content-Type: text/plain\r\n", b"x");
            assert!(stage.responses.is_empty(), "a phone's answer waits (D-24)");
            let id = stage
                .stanza()
                .split("id='")
                .nth(1)
                .expect("an id")
                .split('\'')
                .next()
                .expect("one")
                .to_owned();
            stage.xmpp_says(&format!(
                "<message from='{from}' to='{ROMEO}' type='error' id='{id}'>{}</message>",
                error(condition)
            ));
            assert_eq!(stage.status(), expected, "{condition} from {from}");
            stage.wait(Duration::from_secs(2));
            assert!(stage.is_silent(), "answered once");
        }
    }
}

#[test]
fn stox_m_15_an_error_after_the_answer_becomes_no_status() {
    let mut stage = Stage::new();
    stage.message(&front_end(), BENVOLIO, JULIET, "Content-Type: text/plain\r\n", b"x");
    assert_eq!(stage.status(), 202);
    let id = stage.stanza().split("id='").nth(1).expect("an id").split('\'').next().expect("one").to_owned();
    stage.xmpp_says(&format!(
        "<message from='{JULIET}' to='{BENVOLIO}' type='error' id='{id}'>{}</message>",
        error("gone")
    ));
    assert!(stage.responses.is_empty());
    // D-24: the sender is told by a MESSAGE from the contact with one line of cause.
    let draft = stage.answer(200, "");
    assert!(draft.from.contains("juliet@xmpp.example") && draft.to.contains("benvolio@corp.example"));
    assert!(String::from_utf8_lossy(&draft.body).contains("gone"));
}

#[test]
fn stox_e_10_an_error_is_never_answered() {
    let mut stage = Stage::new();
    // With what it is about, as most servers send it.
    for (to, body) in [(BENVOLIO, ""), (BENVOLIO, "<body>x</body>"), ("nobody@sip.example", "<body>x</body>")]
    {
        stage.xmpp_says(&format!(
            "<message from='{JULIET}' to='{to}' type='error' id='x'>{body}{}</message>",
            error("gone")
        ));
        stage.presence(JULIET, to, "error", &error("gone"));
        assert!(stage.is_silent() && stage.requests.is_empty(), "{to} {body}");
    }
}

#[test]
fn d_24_a_phone_is_answered_202_when_nothing_is_refused_in_time() {
    let mut stage = Stage::new();
    stage.message(&phone_of(ROMEO, "a"), ROMEO, JULIET, "Content-Type: text/plain\r\n", b"x");
    stage.wait(Duration::from_millis(499));
    assert!(stage.responses.is_empty());
    stage.wait(Duration::from_millis(20));
    assert_eq!(stage.status(), 202);
}

#[test]
fn a_message_without_a_route_is_answered_with_the_mapped_cause() {
    let mut stage = Stage::new();
    stage.writes_messages = false;
    stage.message(&phone_of(ROMEO, "a"), ROMEO, JULIET, "Content-Type: text/plain\r\n", b"x");
    stage.input(Input::MessageFate {
        message: MessageId(1),
        fate: Err(Undelivered::NotSent("remote-server-not-found")),
    });
    assert_eq!(stage.status(), 404);
}

#[test]
fn xp_34_an_unknown_user_looks_like_one_who_cannot_be_reached() {
    let mut stage = Stage::new();
    for kind in ["", "type='chat'", "type='headline'", "type='groupchat'"] {
        let mut bounce = |to: &str| {
            stage.xmpp_says(&format!(
                "<message from='juliet@xmpp.example/b' to='{to}' {kind} id='1'><body>x</body></message>"
            ));
            if let Some((message, _)) = stage.deliveries.pop_front() {
                stage.input(Input::Delivered { message, outcome: Err(Failure::NoPhone) });
            }
            stage.stanza().replace(to, "X")
        };
        let (unknown, known) = (bounce("nobody@sip.example"), bounce(ROMEO));
        assert_eq!(unknown, known, "{kind}");
        assert!(unknown.contains("<service-unavailable "), "{kind}: {unknown}");
    }
    // An error to either is answered by nothing.
    for to in ["nobody@sip.example", ROMEO] {
        stage.xmpp_says(&format!(
            "<message from='juliet@xmpp.example/b' to='{to}' type='error' id='1'><body>x</body></message>"
        ));
    }
    assert!(stage.is_silent() && stage.deliveries.is_empty());
    // A colleague's phone is told that nobody is there now.
    let mercutio = "mercutio@sip.example";
    stage.message(&phone_of(ROMEO, "a"), ROMEO, mercutio, "Content-Type: text/plain\r\n", b"x");
    let (message, _) = stage.deliveries.pop_front().expect("for the phones");
    stage.input(Input::Delivered { message, outcome: Err(Failure::NoPhone) });
    assert_eq!(stage.status(), 480);
}

#[test]
fn a_message_for_a_built_in_user_goes_to_the_phones_and_its_failure_back() {
    let mut stage = Stage::new();
    stage.xmpp_says(
        "<message from='juliet@xmpp.example/b' to='romeo@sip.example' id='1'><body>x</body></message>",
    );
    let (message, draft) = stage.deliveries.pop_front().expect("for the phones");
    assert_eq!(draft.method, "MESSAGE");
    stage.input(Input::Delivered { message, outcome: Err(Failure::Response(480)) });
    let error = stage.stanza();
    assert!(error.contains("recipient-unavailable"), "{error}");
    assert!(error.contains("the SIP side refused the message: 480 Temporarily Unavailable"), "{error}");
}

#[test]
fn a_public_provider_may_not_write_first() {
    let mut stage = Stage::public(Approve::All, PartnerKind::PublicUnverified);
    let write = |stage: &mut Stage| {
        stage.xmpp_says(
            "<message from='juliet@xmpp.example/b' to='romeo@sip.example' id='1'><body>x</body></message>",
        );
    };
    write(&mut stage);
    assert!(stage.stanza().contains("not-allowed"));
    assert!(stage.deliveries.is_empty());
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c1", "");
    write(&mut stage);
    assert_eq!(stage.deliveries.len(), 1, "romeo asked for juliet's presence");
}

#[test]
fn stox_m_11_a_long_message_needs_a_safe_way() {
    let mut stage = Stage::new();
    let mut by_datagrams = way();
    by_datagrams.is_reliable = false;
    stage.input(Input::PeerChanged { peer: front_end(), way: Some(by_datagrams) });
    write(&mut stage, "long", &"x".repeat(1300));
    assert!(stage.stanza().contains("policy-violation"));
    assert!(stage.requests.is_empty());
    stage.input(Input::PeerChanged { peer: front_end(), way: Some(way()) });
    write(&mut stage, "long", &"x".repeat(1300));
    assert_eq!(stage.requests.len(), 1);
}

#[test]
fn too_many_waiting_messages_are_refused_and_nothing_is_lost_silently() {
    let mut stage = Stage::new();
    for n in 0..40 {
        write(&mut stage, &n.to_string(), "x");
    }
    let refused = stage.stanzas.iter().filter(|stanza| stanza.contains("resource-constraint")).count();
    assert_eq!((stage.requests.len(), refused), (1, 40 - 1 - 32));
}

#[test]
fn a_batch_is_handled_once_each() {
    let mut stage = Stage::new();
    let stanza =
        "<message from='juliet@xmpp.example/b' to='benvolio@corp.example' id='1'><body>x</body></message>";
    stage.input(Input::Stanzas(vec![received(stanza)]));
    stage.answer(200, "");
    assert!(stage.is_silent());
}

/// A message of romeo that juliet's server refuses after it was answered; whether romeo is told why.
fn fails_late(stage: &mut Stage, headers: &str, text: &str) -> Option<Box<crate::request::RequestDraft>> {
    stage.stanzas.clear();
    let headers = format!("Content-Type: text/plain\r\n{headers}");
    stage.message(&phone_of(ROMEO, "a"), ROMEO, JULIET, &headers, b"x");
    stage.wait(Duration::from_secs(2));
    assert_eq!(stage.status(), 202);
    stage.responses.clear();
    let stanza = stage.stanza();
    let id = stanza.split("id='").nth(1).and_then(|rest| rest.split('\'').next()).expect("an id").to_owned();
    stage.xmpp_says(&format!(
        "<message from='{JULIET}' to='{ROMEO}' type='error' id='{id}'><error type='cancel'><service-unavailable \
         xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>{text}</text>\
         </error></message>"
    ));
    let told = stage.deliveries.pop_front().map(|(_, draft)| draft);
    assert!(stage.deliveries.is_empty());
    told
}

#[test]
fn a_program_that_answers_each_line_of_cause_gets_one_and_the_line_says_that_it_is_automatic() {
    let mut stage = Stage::new();
    let told = fails_late(&mut stage, "", "gone fishing").expect("the first is told");
    assert!(told.headers.contains(&("Auto-Submitted", "auto-generated".to_owned())));
    assert!(String::from_utf8_lossy(&told.body).ends_with("gone fishing"));
    // What answers the line is refused late too, again and again.
    for _ in 0..20 {
        assert!(fails_late(&mut stage, "", "gone fishing").is_none());
    }
    stage.wait(Duration::from_secs(600));
    let (_, told) = stage.deliveries.pop_front().expect("one line for all of them");
    assert!(String::from_utf8_lossy(&told.body).starts_with("20 more of your messages"));
    assert!(stage.deliveries.is_empty());
    assert!(fails_late(&mut stage, "", "").is_some(), "people are told again after a while");
}

#[test]
fn a_person_whose_messages_fail_one_after_the_other_is_told_of_each_of_them() {
    let mut stage = Stage::new();
    assert!(fails_late(&mut stage, "", "gone fishing").is_some());
    for _ in 0..2 {
        assert!(fails_late(&mut stage, "", "gone fishing").is_none());
    }
    stage.wait(Duration::from_secs(60));
    let (_, told) = stage.deliveries.pop_front().expect("a further line");
    assert!(told.headers.contains(&("Auto-Submitted", "auto-generated".to_owned())));
    let body = String::from_utf8_lossy(&told.body).into_owned();
    assert_eq!(body, "2 more of your messages could not be delivered: gone fishing");
    stage.wait(Duration::from_secs(120));
    assert!(stage.deliveries.is_empty(), "told once");
    assert!(fails_late(&mut stage, "", "gone fishing").is_some(), "two minutes later at once");
}

#[test]
fn an_automatic_message_that_fails_late_is_followed_by_nothing() {
    for value in ["auto-replied", "auto-generated; x=y", "AUTO-NOTIFIED", ""] {
        let mut stage = Stage::new();
        assert!(fails_late(&mut stage, &format!("Auto-Submitted: {value}\r\n"), "").is_none(), "{value:?}");
    }
    let mut stage = Stage::new();
    assert!(fails_late(&mut stage, "Auto-Submitted: No\r\n", "").is_some());
}

#[test]
fn what_a_program_sent_by_itself_is_marked_so_on_the_other_side() {
    let auto = "Auto-Submitted: auto-replied\r\n";
    let mut stage = Stage::new();
    for (more, is_marked) in [(auto, true), ("", false), ("Auto-Submitted: no\r\n", false)] {
        let headers = format!("Content-Type: text/plain\r\n{more}");
        stage.message(&phone_of(ROMEO, "a"), ROMEO, JULIET, &headers, b"x");
        let stanza = stage.stanza();
        let mark = "<headers xmlns='http://jabber.org/protocol/shim'><header name='Auto-Submitted'>auto-generated</header>";
        assert_eq!(stanza.contains(mark), is_marked, "{more:?}: {stanza}");
        // Between two phones the mark stays too.
        stage.message(&phone_of(ROMEO, "a"), ROMEO, "mercutio@sip.example", &headers, b"x");
        let (_, draft) = stage.deliveries.pop_front().expect("for the phones");
        assert_eq!(draft.headers.contains(&("Auto-Submitted", "auto-generated".to_owned())), is_marked);
    }
    let shim = |value: &str| {
        format!(
            "<headers xmlns='http://jabber.org/protocol/shim'><header name='auto-submitted'>{value}</header></headers>"
        )
    };
    for (kind, inner, is_marked) in [
        ("headline", String::new(), true),
        ("chat", shim("auto-replied"), true),
        ("normal", shim(" Auto-Generated; x=y"), true),
        ("normal", shim("no"), false),
        ("chat", String::new(), false),
        ("chat", shim("x").replace("auto-submitted", "Urgency"), false),
    ] {
        stage.xmpp_says(&format!(
            "<message from='{JULIET}/b' to='{BENVOLIO}' type='{kind}' id='1'><body>x</body>{inner}</message>"
        ));
        let draft = stage.answer(200, "");
        let mark = ("Auto-Submitted", "auto-generated".to_owned());
        assert_eq!(draft.headers.contains(&mark), is_marked, "{kind} {inner}");
    }
}

#[test]
fn a_message_from_phone_to_phone_is_held_to_the_size_that_it_would_be_written_in() {
    let mut stage = Stage::new();
    stage.owner.settings.max_sip_bytes = 4000;
    let write = |stage: &mut Stage, text: &str| {
        stage.message(
            &phone_of(ROMEO, "a"),
            ROMEO,
            "mercutio@sip.example",
            "Content-Type: text/plain\r\n",
            text.as_bytes(),
        );
    };
    write(&mut stage, &"x".repeat(3000));
    assert_eq!(stage.deliveries.pop_front().expect("it fits").1.body.len(), 3000);
    // Each line feed leaves as two octets.
    write(&mut stage, &"\n".repeat(2000));
    assert!(stage.deliveries.is_empty());
    let response = stage.response();
    assert_eq!(response.status(), Some(513));
    let warning = response.rows(HeaderName::Warning).next().expect("both sizes");
    assert!(warning.contains("octets as a SIP request, the limit is 4000"), "{warning}");
}

#[test]
fn a_cause_of_any_length_becomes_one_short_line() {
    let mut stage = Stage::new();
    let told = fails_late(&mut stage, "", &"ž".repeat(50_000)).expect("told");
    assert!(told.body.len() < 400 && told.body.ends_with("…".as_bytes()), "{} octets", told.body.len());
}

#[test]
fn a_message_that_is_larger_as_a_stanza_than_the_partner_takes_is_refused_with_both_sizes() {
    let mut stage = Stage::new();
    let body = vec![b'&'; 65_000];
    stage.message(&front_end(), BENVOLIO, JULIET, "Content-Type: text/plain\r\n", &body);
    let response = stage.response();
    assert_eq!(response.status(), Some(513));
    let text = response.rows(tombolo_sip::headers::HeaderName::Warning).next().expect("a Warning").to_owned();
    assert!(text.contains("325") && text.contains("262144"), "{text}");
    assert!(stage.stanzas.is_empty());
    // What the partner announces goes before its entry, in both directions.
    let lane =
        crate::owner::LaneKey::Session { local: domain(CORP), remote: domain("xmpp.example"), number: 0 };
    stage.input(Input::LaneLimit { lane: lane.clone(), bytes: Some(1_000_000) });
    stage.message(&front_end(), BENVOLIO, JULIET, "Content-Type: text/plain\r\n", &body);
    assert_eq!(stage.status(), 202);
    stage.input(Input::LaneLimit { lane, bytes: Some(10_000) });
    stage.message(&front_end(), BENVOLIO, JULIET, "Content-Type: text/plain\r\n", &[b'x'; 9_900]);
    assert_eq!(stage.status(), 513);
}

#[test]
fn a_message_that_is_larger_than_sip_takes_is_refused_with_both_sizes_and_a_subject_is_cut() {
    let mut stage = Stage::new();
    write(&mut stage, "1", &"x".repeat(70_000));
    let stanza = stage.stanza();
    assert!(stanza.contains("policy-violation") && stanza.contains("the limit is 65536"), "{stanza}");
    assert!(stage.requests.is_empty());
    stage.xmpp_says(&format!(
        "<message from='{JULIET}/x' to='{BENVOLIO}' id='7'><subject>{}</subject><body>hi</body></message>",
        "s".repeat(60_000)
    ));
    let draft = stage.answer(200, "");
    let (_, subject) = draft.headers.iter().find(|(name, _)| *name == "Subject").expect("a subject");
    assert!(subject.len() <= 1000 && subject.ends_with('…'), "{subject}");
}

#[test]
fn an_error_that_would_echo_more_than_the_partner_takes_is_left_out() {
    let mut stage = Stage::new();
    let echo = |stage: &mut Stage, id: &str| {
        stage.stanzas.clear();
        stage.xmpp_says(&format!(
            "<message from='{JULIET}/x' to='{BENVOLIO}' type='groupchat' id='{id}'><body>x</body></message>"
        ));
        stage.stanzas.pop_back()
    };
    assert!(echo(&mut stage, "7").is_some());
    assert!(echo(&mut stage, &"&amp;".repeat(60_000)).is_none());
}

#[test]
fn a_front_end_is_sent_no_more_than_its_window_at_a_time_and_everything_in_the_end() {
    let mut stage = Stage::new();
    stage.owner.settings.in_flight_octets = 100_000;
    for n in 0..60 {
        stage.xmpp_says(&format!(
            "<message from='u{}@xmpp.example/r' to='b{}@corp.example' id='{n}'><body>{n} {}</body></message>",
            n % 20,
            n % 20,
            "x".repeat(30_000)
        ));
    }
    let mut bodies = Vec::new();
    while !stage.requests.is_empty() {
        assert!(stage.requests.len() <= 3, "{} of 30,000 octets in flight", stage.requests.len());
        let draft = stage.answer(200, "");
        let text = String::from_utf8_lossy(&draft.body).into_owned();
        bodies.push(text.split(' ').next().and_then(|n| n.parse::<usize>().ok()).expect("a number"));
    }
    assert_eq!(bodies.len(), 60);
    for conversation in 0..20 {
        let own: Vec<_> = bodies.iter().filter(|n| *n % 20 == conversation).collect();
        assert_eq!(own, [&conversation, &(conversation + 20), &(conversation + 40)], "in order");
    }
    // A message that is larger than the window by itself goes alone.
    stage.owner.settings.in_flight_octets = 1000;
    write(&mut stage, "1", &"x".repeat(30_000));
    write(&mut stage, "2", "x");
    assert_eq!(stage.requests.len(), 1);
    stage.answer(200, "");
    assert_eq!(stage.requests.len(), 1);
}
