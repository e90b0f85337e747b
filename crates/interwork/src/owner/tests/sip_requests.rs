//! Requests of ours and of others, by the letter (RFC 3261 §8.1.1, RFC 6665, RFC 3856 §6).

use std::time::Duration;

use tombolo_policy::{Approve, Permitted};
use tombolo_sip::message::Message;

use super::stage::*;

/// The request as it leaves.
fn sent(draft: &crate::request::RequestDraft) -> Message {
    message(&draft.render("SIP/2.0/TCP h;branch=z9hG4bKx", "h"))
}

#[test]
fn sip_d_01_every_request_of_ours_has_its_headers() {
    let mut stage = Stage::new();
    let subscribe = sent(&stage.juliet_watches_benvolio(&pidf("open", "")));
    let mut messages = Vec::new();
    for _ in 0..2 {
        stage.xmpp_says(&format!("<message from='{JULIET}' to='{BENVOLIO}'><body>x</body></message>"));
        messages.push(sent(&stage.answer(200, "")));
    }
    let call_id = |message: &Message| message.call_id().expect("Call-ID").to_owned();
    assert_ne!(call_id(&messages[0]), call_id(&messages[1]));
    assert!(call_id(&messages[0]).len() >= 16, "too short to be random");
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c1", "");
    let notify = stage.notify();
    for (request, has_contact) in [(&subscribe, true), (&messages[0], false), (&notify, true)] {
        assert!(request.from().expect("From").tag().is_some());
        assert!(request.to().is_ok());
        let (cseq, method) = request.cseq().expect("CSeq");
        assert!(cseq < 1 << 31 && Some(&method) == request.method());
        assert_eq!(request.max_forwards(), Ok(Some(70)));
        let via = request.top_via().expect("a Via");
        assert!(via.branch().is_some_and(|branch| branch.starts_with("z9hG4bK")));
        assert_eq!(request.contacts().next().is_some(), has_contact, "{method:?}");
    }
}

#[test]
fn sip_e_06_each_fault_of_a_notify_has_its_status_at_once() {
    let mut stage = Stage::new();
    let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
    stage.stanzas.clear();
    let notify = |to: &str, headers: &str| {
        format!(
            "NOTIFY sip:x@127.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKq\r\n\
             From: <sip:benvolio@corp.example>;tag=pstag\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: 7 NOTIFY\r\n\
             Contact: <sip:x@h>\r\n{headers}Content-Length: 0\r\n\r\n",
            draft.call_id
        )
    };
    let state = "Subscription-State: active;expires=600\r\n";
    for (to, headers, status) in [
        ("<sip:juliet@xmpp.example>;tag=nobody", format!("Event: presence\r\n{state}"), 481),
        (&draft.from, format!("Event: dialog\r\n{state}"), 489),
        (&draft.from, "Event: presence\r\n".to_owned(), 400),
        (&draft.from, format!("Event: presence\r\n{state}"), 200),
    ] {
        stage.sip_says(&front_end(), BENVOLIO, notify(to, &headers));
        assert_eq!(stage.status(), status, "{to} {headers}");
    }
    assert!(stage.is_silent());
}

#[test]
fn sip_e_23_who_may_not_watch_is_refused_alike_whether_the_user_is_there_or_not() {
    for is_there in [false, true] {
        let mut stage = Stage::with(Approve::Partner, |partner| partner.direction = Permitted::Inbound);
        if is_there {
            stage.presence("juliet@xmpp.example/b", ROMEO, "", "");
        }
        for expires in [0, 600] {
            let more = format!("Expires: {expires}\r\n");
            stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, &format!("c{expires}"), &more);
            let response = stage.response();
            assert_eq!(response.status(), Some(403));
            assert!(response.body().is_empty());
        }
        assert!(stage.is_silent(), "no NOTIFY, and the contact is not asked");
    }
}

#[test]
fn sip_e_25_a_subscribe_in_a_dialog_that_is_none_of_ours_is_refused() {
    let mut stage = Stage::new();
    let text = format!(
        "SUBSCRIBE sip:romeo@sip.example SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKi\r\nMax-Forwards: 70\r\n\
         From: <sip:{ROMEO}>;tag=a\r\nTo: <sip:{JULIET}>;tag=of-an-invite\r\nCall-ID: call\r\nCSeq: 2 SUBSCRIBE\r\n\
         Contact: <sip:x@h>\r\nEvent: presence\r\nExpires: 600\r\n\r\n"
    );
    stage.sip_says(&phone_of(ROMEO, "a"), ROMEO, text);
    assert_eq!(stage.status(), 481);
    assert!(stage.is_silent());
}

#[test]
fn sip_p_01_without_accept_and_expires_the_defaults_of_the_package_hold() {
    let mut stage = Stage::new();
    let text = format!(
        "SUBSCRIBE sip:{JULIET} SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKi\r\nMax-Forwards: 70\r\n\
         From: <sip:{ROMEO}>;tag=a\r\nTo: <sip:{JULIET}>\r\nCall-ID: call\r\nCSeq: 1 SUBSCRIBE\r\n\
         Contact: <sip:x@h>\r\nEvent: presence\r\n\r\n"
    );
    stage.sip_says(&phone_of(ROMEO, "a"), ROMEO, text);
    assert_eq!(stage.response().expires(), Some(3600));
    stage.notifies.clear();
    stage.presence(JULIET, ROMEO, "subscribed", "");
    stage.presence("juliet@xmpp.example/b", ROMEO, "", "");
    let notify = stage.notifies.pop_back().expect("a NOTIFY");
    let media = notify.content_type().expect("legal").expect("a body");
    assert!(media.is("application", "pidf+xml"));
    stage.presence(JULIET, BENVOLIO, "subscribe", "");
    let draft = stage.answer(200, "Expires: 3600\r\n");
    assert!(draft.headers.contains(&("Event", "presence".into())), "without parameters");
    let accept = draft.headers.iter().find(|(name, _)| *name == "Accept");
    assert!(accept.is_some_and(|(_, value)| value.contains("application/pidf+xml")));
}

#[test]
fn sip_p_04_the_highest_cseq_counts_and_a_notify_without_body_changes_nothing() {
    let mut stage = Stage::new();
    let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
    stage.stanzas.clear();
    let away = pidf("open", "<show xmlns='jabber:client'>away</show>");
    assert_eq!(stage.front_end_notifies(&draft, 5, "active;expires=600", &away), 200);
    assert!(stage.stanza().contains("<show>away</show>"));
    assert_eq!(
        stage.front_end_notifies(&draft, 4, "active;expires=600", &pidf("closed", "")),
        500,
        "it is older"
    );
    assert_eq!(stage.front_end_notifies(&draft, 6, "active;expires=600", ""), 200);
    assert!(stage.is_silent(), "{:?}", stage.stanzas);
    // And what we say is always the whole.
    stage.romeo_watches_juliet("a");
    for device in ["balcony", "garden"] {
        stage.presence(&format!("juliet@xmpp.example/{device}"), ROMEO, "", "");
    }
    let last = body_of(&stage.notifies.pop_back().expect("a NOTIFY"));
    assert!(last.contains("ID-balcony") && last.contains("ID-garden"), "{last}");
}

#[test]
fn sip_d_10_an_unknown_final_code_counts_as_the_first_of_its_class() {
    for (status, condition) in
        [(299, None), (499, Some("<bad-request ")), (599, Some("<internal-server-error "))]
    {
        let mut stage = Stage::new();
        stage.xmpp_says(&format!("<message from='{JULIET}' to='{BENVOLIO}' id='1'><body>x</body></message>"));
        stage.answer(status, "");
        match condition {
            Some(condition) => assert!(stage.stanza().contains(condition), "{status}"),
            None => assert!(stage.is_silent(), "{status}"),
        }
        // A subscription too goes on with 299, and is over for now with the others.
        let mut stage = Stage::new();
        stage.presence(JULIET, BENVOLIO, "subscribe", "");
        let draft = stage.answer(status, "Expires: 3600\r\n");
        let notified = stage.front_end_notifies(&draft, 1, "active;expires=3600", &pidf("open", ""));
        assert_eq!(notified, if condition.is_none() { 200 } else { 481 }, "{status}");
    }
}

#[test]
fn sip_e_26_the_contact_of_a_dialog_routes_back_after_a_restart_and_elsewhere_gets_481_at_worst() {
    let mut stage = Stage::new();
    let phone = phone_of(ROMEO, "a");
    let contact = |response: &Message| {
        response.contacts().next().expect("a Contact").expect("legal").uri.as_str().to_owned()
    };
    stage.subscribe(&phone, ROMEO, JULIET, "c1", "");
    let response = stage.response();
    stage.subscribe(&phone, ROMEO, JULIET, "c2", "");
    let other = stage.response();
    assert_ne!(contact(&response), contact(&other), "each dialog has its own");
    let mut elsewhere = Stage::new();
    elsewhere.resubscribe(&phone, &response, 2, 600);
    assert_eq!(elsewhere.status(), 481, "another node does not know it");
    let mut again = stage.killed_and_started_again(Duration::from_secs(5));
    again.resubscribe(&phone, &response, 2, 600);
    let refreshed = again.response();
    assert_eq!(
        (refreshed.status(), contact(&refreshed)),
        (Some(200), contact(&response)),
        "the same over a restart"
    );
}
