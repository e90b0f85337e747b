//! Max-Forwards of requests that we carry on (STOX-A-21).

use tombolo_policy::Approve;

use super::stage::*;

fn subscribe(stage: &mut Stage, target: &str, hops: &str, more: &str) {
    let text = format!(
        "SUBSCRIBE sip:{target} SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKh{hops}\r\nMax-Forwards: {hops}\r\n\
         From: <sip:{ROMEO}>;tag=f\r\nTo: <sip:{target}>\r\nCall-ID: h{hops}\r\nCSeq: 1 SUBSCRIBE\r\n\
         Contact: <sip:{ROMEO};gr=x>\r\nEvent: presence\r\n{more}\r\n"
    );
    stage.sip_says(&phone_of(ROMEO, "a"), ROMEO, text);
}

#[test]
fn stox_a_21_a_subscribe_for_a_contact_without_a_hop_left_asks_nobody() {
    let mut stage = Stage::new();
    for more in ["", "Expires: 0\r\n"] {
        subscribe(&mut stage, JULIET, "0", more);
        assert_eq!(stage.status(), 483, "{more:?}");
        assert!(stage.is_silent() && stage.rows.is_empty(), "{more:?}");
    }
    subscribe(&mut stage, JULIET, "1", "");
    assert_eq!(stage.status(), 200);
    assert!(stage.stanza().contains("type='subscribe'"));
}

#[test]
fn stox_a_21_a_subscribe_that_ends_here_needs_no_hop() {
    let mut stage = Stage::with(Approve::All, |_| {});
    subscribe(&mut stage, "mercutio@sip.example", "0", "");
    assert_eq!(stage.status(), 200, "we are the agent of our own users");
    let mut stage = Stage::new();
    let response = stage.romeo_watches_juliet("a");
    let [from, to] = [response.from().expect("From"), response.to().expect("To")];
    let contact = response.contacts().next().expect("a Contact").expect("legal").uri.as_str();
    let text = format!(
        "SUBSCRIBE {contact} SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKhr\r\nMax-Forwards: 0\r\n\
         From: <sip:{ROMEO}>;tag={}\r\nTo: <{}>;tag={}\r\nCall-ID: {}\r\nCSeq: 2 SUBSCRIBE\r\n\
         Contact: <sip:{ROMEO};gr=x>\r\nEvent: presence\r\nExpires: 600\r\n\r\n",
        from.tag().expect("a tag"),
        to.uri.as_str(),
        to.tag().expect("a tag"),
        response.call_id().expect("Call-ID"),
    );
    stage.sip_says(&phone_of(ROMEO, "a"), ROMEO, text);
    assert_eq!(stage.status(), 200, "a refresh is for the dialog, which is ours");
}

#[test]
fn stox_a_21_a_message_between_local_users_has_one_hop_less_left() {
    let mut stage = Stage::new();
    for (more, left) in [("Max-Forwards: 5\r\n", 4), ("Max-Forwards: 1\r\n", 0), ("", 69)] {
        let headers = format!("Content-Type: text/plain\r\n{more}");
        stage.message(&phone_of(ROMEO, "a"), ROMEO, "mercutio@sip.example", &headers, b"x");
        let (_, draft) = stage.deliveries.pop_front().expect("for the phones");
        assert_eq!(draft.max_forwards, left, "{more:?}");
        let text = String::from_utf8(draft.render("v", "h")).expect("UTF-8");
        assert!(text.contains(&format!("\r\nMax-Forwards: {left}\r\n")), "{text}");
    }
}
