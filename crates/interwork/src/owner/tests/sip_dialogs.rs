//! Dialogs of both roles, by the letter (RFC 3261 §12, RFC 6665 §4): identity, routes, targets, and the notifier's machine.

use std::time::Duration;

use tombolo_sip::message::Message;

use super::stage::*;
use crate::{
    owner::{Input, PeerKey},
    request::RequestDraft,
};

/// A SUBSCRIBE of Romeo's phone for Juliet.
struct Subscribe<'a> {
    from: &'a str,
    to: &'a str,
    call_id: &'a str,
    cseq: u32,
    more: &'a str,
}

const OUTSIDE: Subscribe<'static> = Subscribe {
    from: "<sip:romeo@sip.example>;tag=ours",
    to: "<sip:juliet@xmpp.example>",
    call_id: "c1",
    cseq: 1,
    more: "Contact: <sip:romeo@192.0.2.1>\r\n",
};

impl Subscribe<'_> {
    fn say(&self, stage: &mut Stage) -> Message {
        let Self { from, to, call_id, cseq, more } = self;
        let expires = if more.contains("Expires:") { "" } else { "Expires: 600\r\n" };
        let text = format!(
            "SUBSCRIBE sip:{JULIET} SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK{cseq}\r\nFrom: {from}\r\nTo: {to}\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} SUBSCRIBE\r\nEvent: presence;id=7\r\n{more}{expires}\r\n"
        );
        stage.sip_says(&phone(), ROMEO, text);
        stage.response()
    }
}

fn phone() -> PeerKey {
    phone_of(ROMEO, "a")
}

fn routes(message: &Message) -> Vec<String> {
    message.rows(tombolo_sip::headers::HeaderName::Route).map(ToOwned::to_owned).collect()
}

fn to_of(response: &Message) -> String {
    let to = response.to().expect("To");
    format!("<{}>;tag={}", to.uri.as_str(), to.tag().expect("a tag"))
}

#[test]
fn sip_d_04_call_id_and_both_tags_name_a_dialog_and_a_to_tag_without_one_gets_481() {
    let mut stage = Stage::new();
    let to = to_of(&OUTSIDE.say(&mut stage));
    let inside = Subscribe { to: &to, cseq: 2, ..OUTSIDE };
    for (wrong, what) in [
        (Subscribe { call_id: "c2", ..inside }, "another Call-ID"),
        (Subscribe { from: "<sip:romeo@sip.example>;tag=other", ..inside }, "another remote tag"),
        (Subscribe { from: "<sip:romeo@sip.example>", ..inside }, "no remote tag"),
        (Subscribe { to: "<sip:juliet@xmpp.example>;tag=nobodys", ..inside }, "a local tag that is not ours"),
    ] {
        assert_eq!(wrong.say(&mut stage).status(), Some(481), "{what}");
    }
    assert_eq!(inside.say(&mut stage).status(), Some(200));
}

#[test]
fn sip_d_04_a_remote_tag_that_is_missing_counts_as_empty() {
    let mut stage = Stage::new();
    let old = Subscribe { from: "<sip:romeo@sip.example>", ..OUTSIDE };
    let to = to_of(&old.say(&mut stage));
    let notify = stage.notify();
    assert_eq!(notify.to().expect("To").tag(), None, "none is written either");
    assert_eq!(Subscribe { to: &to, cseq: 2, ..old }.say(&mut stage).status(), Some(200));
    let tagged = Subscribe { to: &to, cseq: 3, ..OUTSIDE };
    assert_eq!(tagged.say(&mut stage).status(), Some(481));
}

#[test]
fn sip_d_05_a_notifiers_routes_stand_as_they_came_and_only_the_target_is_renewed() {
    let mut stage = Stage::new();
    let more = "Record-Route: <sip:p2.example;lr>\r\nRecord-Route: <sip:p1.example;lr;x=y>\r\n\
                Contact: <sip:romeo@192.0.2.1>\r\n";
    let response = Subscribe { more, ..OUTSIDE }.say(&mut stage);
    let copied: Vec<_> = response.record_routes().collect();
    assert_eq!(copied, ["<sip:p2.example;lr>", "<sip:p1.example;lr;x=y>"]);
    let first = stage.notify();
    assert_eq!(first.request_uri_text(), "sip:romeo@192.0.2.1");
    assert_eq!(routes(&first), ["<sip:p2.example;lr>", "<sip:p1.example;lr;x=y>"]);
    let more = "Record-Route: <sip:p9.example;lr>\r\nContact: <sip:romeo@192.0.2.2>\r\n";
    Subscribe { to: &to_of(&response), cseq: 2, more, ..OUTSIDE }.say(&mut stage);
    let second = stage.notify();
    assert_eq!(second.request_uri_text(), "sip:romeo@192.0.2.2");
    assert_eq!(routes(&second), routes(&first));
}

/// A NOTIFY of the front end to our SUBSCRIBE.
fn notify(draft: &RequestDraft, tag: &str, cseq: u32, more: &str) -> String {
    let to = draft.to.split(";tag=").next().unwrap_or_default();
    format!(
        "NOTIFY sip:x@127.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKn{cseq}\r\nFrom: {to};tag={tag}\r\n\
         To: {}\r\nCall-ID: {}\r\nCSeq: {cseq} NOTIFY\r\nEvent: presence\r\n\
         Subscription-State: active;expires=3600\r\n{more}Content-Length: 0\r\n\r\n",
        draft.from, draft.call_id,
    )
}

#[test]
fn sip_d_05_a_subscriber_takes_the_routes_of_the_notify_not_of_the_200_and_renews_the_target() {
    let mut stage = Stage::new();
    stage.presence(JULIET, BENVOLIO, "subscribe", "");
    let draft = stage
        .answer(200, "Expires: 3600\r\nRecord-Route: <sip:of-200.example;lr>\r\nContact: <sip:no@h>\r\n");
    let more = "Record-Route: <sip:p1.example;lr>, <sip:p2.example;lr>\r\nContact: <sip:ps@192.0.2.1>\r\n";
    stage.sip_says(&front_end(), BENVOLIO, notify(&draft, "pstag", 1, more));
    assert_eq!(stage.status(), 200);
    stage.wait_for_request(Duration::from_secs(3600));
    // A refresh: its 2xx names the target anew.
    let refresh = stage.answer(200, "Expires: 3600\r\nContact: <sip:ps@192.0.2.2>\r\n");
    assert_eq!(refresh.uri, "sip:ps@192.0.2.1");
    assert_eq!(refresh.routes, ["<sip:p1.example;lr>", "<sip:p2.example;lr>"]);
    stage.sip_says(&front_end(), BENVOLIO, notify(&draft, "pstag", 2, ""));
    assert_eq!(stage.status(), 200);
    stage.wait_for_request(Duration::from_secs(3600));
    let refresh = stage.answer(200, "Expires: 3600\r\n");
    assert_eq!((refresh.uri.as_str(), refresh.routes.len()), ("sip:ps@192.0.2.2", 2));
    // So does a NOTIFY, whose routes mean nothing any more.
    let more = "Record-Route: <sip:p9.example;lr>\r\nContact: <sip:ps@192.0.2.3>\r\n";
    stage.sip_says(&front_end(), BENVOLIO, notify(&draft, "pstag", 3, more));
    assert_eq!(stage.status(), 200);
    stage.presence(JULIET, BENVOLIO, "unsubscribe", "");
    let (_, _, last) = stage.requests.pop_front().expect("a SUBSCRIBE");
    assert_eq!(last.uri, "sip:ps@192.0.2.3");
    assert_eq!(last.routes, refresh.routes);
}

#[test]
fn sip_e_05_the_dialog_is_the_notifys_also_where_the_200_came_from_another_fork() {
    let mut stage = Stage::new();
    stage.presence(JULIET, BENVOLIO, "subscribe", "");
    let draft = stage.answer(200, "Expires: 3600\r\n");
    let contact = "Contact: <sip:ps@192.0.2.1>\r\n";
    stage.sip_says(&front_end(), BENVOLIO, notify(&draft, "of-the-notify", 1, contact));
    assert_eq!(stage.status(), 200);
    stage.sip_says(&front_end(), BENVOLIO, notify(&draft, "pstag", 1, contact));
    assert_eq!(stage.status(), 481, "the tag of the 200 makes no dialog beside it");
    stage.wait_for_request(Duration::from_secs(3600));
    let refresh = stage.answer(200, "Expires: 3600\r\n");
    assert!(refresh.to.ends_with(";tag=of-the-notify"), "{}", refresh.to);
}

/// What a watcher may live through.
type Event = fn(&mut Stage);

fn granted(stage: &mut Stage) {
    stage.presence(JULIET, ROMEO, "subscribed", "");
}

fn refused(stage: &mut Stage) {
    stage.presence(JULIET, ROMEO, "unsubscribed", "");
}

fn silence(stage: &mut Stage) {
    stage.wait(Duration::from_secs(601));
}

fn policy_says_no(stage: &mut Stage) {
    stage.input(Input::Policy(table(|partner| partner.direction = tombolo_policy::Permitted::Inbound)));
}

#[test]
fn sip_e_14_a_subscription_goes_from_pending_to_active_to_terminated_and_never_back() {
    let table: [(&str, &[Event], &[&str]); 8] = [
        ("accepted", &[], &["pending"]),
        ("granted", &[granted], &["pending", "active"]),
        ("refused", &[refused], &["pending", "terminated;reason=rejected"]),
        ("not refreshed", &[silence], &["pending", "terminated;reason=timeout"]),
        ("granted, then refused", &[granted, refused], &["pending", "active", "terminated;reason=rejected"]),
        ("granted, not refreshed", &[granted, silence], &["pending", "active", "terminated;reason=timeout"]),
        ("refused, then granted", &[refused, granted], &["pending", "terminated;reason=rejected"]),
        ("over, then granted", &[silence, granted], &["pending", "terminated;reason=timeout"]),
    ];
    for (name, events, states) in table {
        let mut stage = Stage::new();
        let response = OUTSIDE.say(&mut stage);
        for event in events {
            event(&mut stage);
        }
        let said: Vec<String> = stage.notifies.iter().map(state_of).collect();
        assert_eq!(said.len(), states.len(), "{name}: {said:?}");
        for (said, state) in said.iter().zip(states) {
            assert!(said.starts_with(state), "{name}: {said}");
        }
        stage.responses.clear();
        let to = to_of(&response);
        let again = Subscribe { to: &to, cseq: 2, ..OUTSIDE }.say(&mut stage);
        let is_over = states.last().is_some_and(|state| state.starts_with("terminated"));
        assert_eq!(again.status() == Some(481), is_over, "{name}");
    }
}

#[test]
fn sip_e_17_each_2xx_has_its_notify_behind_it_with_its_event_and_what_its_state_wants() {
    let mut stage = Stage::new();
    for n in 0..100 {
        let call_id = format!("c{n}");
        let is_active = n >= 50;
        let to = to_of(&Subscribe { call_id: &call_id, ..OUTSIDE }.say(&mut stage));
        let notify = stage.notify();
        let from = notify.from().expect("From");
        assert_eq!(format!("<{}>;tag={}", from.uri.as_str(), from.tag().expect("a tag")), to);
        assert_eq!(notify.call_id(), Ok(&*call_id));
        assert_eq!(notify.to().expect("To").tag(), Some("ours"));
        let event = notify.event().expect("legal").expect("there");
        assert_eq!((event.package, event.id), ("presence", Some("7")));
        assert_eq!(state_of(&notify), if is_active { "active;expires=600" } else { "pending;expires=600" });
        let inside = Subscribe { to: &to, cseq: 2, call_id: &call_id, ..OUTSIDE };
        assert_eq!(inside.say(&mut stage).status(), Some(200));
        assert!(state_of(&stage.notify()).ends_with(";expires=600"), "a refresh");
        if n == 49 {
            granted(&mut stage);
            stage.notifies.clear();
        }
        assert_eq!(stage.notifies.len(), 0, "one NOTIFY for each, no more");
        // Its last one makes room: a pair may have so many dialogs only.
        let more = "Expires: 0\r\n";
        assert_eq!(Subscribe { cseq: 3, more, ..inside }.say(&mut stage).status(), Some(200));
        assert_eq!(state_of(&stage.notify()), "terminated;reason=timeout");
    }
}

/// What ends a subscription.
type Cause = Box<dyn Fn(&mut Stage)>;

#[test]
fn sip_e_22_each_cause_of_an_end_has_its_reason() {
    let error = |condition: &str| {
        format!("<error type='cancel'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>")
    };
    let table: [(&str, Cause, &str); 5] = [
        ("it ran out", Box::new(silence), "terminated;reason=timeout"),
        ("the policy takes it away", Box::new(policy_says_no), "terminated;reason=rejected"),
        ("the contact refuses", Box::new(refused), "terminated;reason=rejected"),
        (
            "there is no such contact",
            Box::new(move |stage| stage.presence(JULIET, ROMEO, "error", &error("item-not-found"))),
            "terminated;reason=noresource",
        ),
        (
            "the partner has too much to do",
            Box::new(move |stage| stage.presence(JULIET, ROMEO, "error", &error("resource-constraint"))),
            "terminated;reason=probation;retry-after=120",
        ),
    ];
    for (name, cause, state) in table {
        let mut stage = Stage::new();
        OUTSIDE.say(&mut stage);
        stage.notifies.clear();
        cause(&mut stage);
        assert_eq!(state_of(&stage.notify()), state, "{name}");
        assert!(stage.notifies.is_empty(), "{name}: it is the last");
    }
    // A shutdown ends none: with its row the dialog goes on in the next life of the process.
    let mut stage = Stage::new();
    let to = to_of(&OUTSIDE.say(&mut stage));
    granted(&mut stage);
    let mut stage = stage.killed_and_started_again(Duration::from_secs(5));
    assert_eq!(Subscribe { to: &to, cseq: 2, ..OUTSIDE }.say(&mut stage).status(), Some(200));
}

#[test]
fn a_route_that_is_ours_changes_nothing() {
    let mut stage = Stage::new();
    let more = "Route: <sip:127.0.0.1:5060;transport=tcp;lr>\r\nContact: <sip:romeo@192.0.2.1>\r\n";
    assert_eq!(Subscribe { more, ..OUTSIDE }.say(&mut stage).status(), Some(200));
    assert_eq!(routes(&stage.notify()), Vec::<String>::new());
}
