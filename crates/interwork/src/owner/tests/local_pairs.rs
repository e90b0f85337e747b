//! Both ends at the built-in home: PUBLISH, and watching a colleague.

use std::time::Duration;

use tombolo_policy::Approve;

use super::stage::*;
use crate::owner::Input;

const MERCUTIO: &str = "mercutio@sip.example";

#[test]
fn a_colleague_sees_at_once_where_all_are_trusted() {
    let mut stage = Stage::with(Approve::All, |_| {});
    stage.publish(ROMEO, "open", "", "At Rosaline's");
    stage.subscribe(&phone_of(MERCUTIO, "m"), MERCUTIO, ROMEO, "c1", "");
    assert_eq!(stage.status(), 200);
    let notify = stage.notify();
    assert!(state_of(&notify).starts_with("active"));
    assert!(body_of(&notify).contains("At Rosaline"));
    stage.publish(ROMEO, "open", "away", "");
    assert!(body_of(&stage.notify()).contains("away"));
    assert!(stage.stanzas.is_empty(), "nothing leaves the house");
}

#[test]
fn a_colleague_waits_where_the_user_is_asked() {
    // To trust partners is not to trust colleagues.
    for (approve, is_approved) in [(Approve::Ask, true), (Approve::Ask, false), (Approve::Partner, true)] {
        let mut stage = Stage::with(approve, |_| {});
        stage.publish(ROMEO, "open", "", "");
        stage.subscribe(&phone_of(MERCUTIO, "m"), MERCUTIO, ROMEO, "c1", "");
        let notify = stage.notify();
        assert!(state_of(&notify).starts_with("pending") && notify.body().is_empty());
        assert_eq!(stage.asked_to_decide, [(ROMEO.to_owned(), MERCUTIO.to_owned())]);
        stage.input(Input::Decide {
            user: address(ROMEO),
            watcher: Some(address(MERCUTIO)),
            is_approved,
            asker: 1,
        });
        let state = state_of(&stage.notify());
        let expected = if is_approved { "active" } else { "terminated;reason=rejected" };
        assert!(state.starts_with(expected), "{state}");
    }
}

#[test]
fn an_unknown_colleague_is_not_found() {
    let mut stage = Stage::new();
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, "nobody@sip.example", "c1", "");
    assert_eq!(stage.status(), 404);
}

#[test]
fn sip_pub_01_sip_pub_03_publish_refresh_modify_and_remove() {
    let mut stage = Stage::new();
    stage.juliet_watches_romeo();
    let first = stage.publish(ROMEO, "open", "", "");
    let tag = first.sip_etag().expect("a tag").to_owned();
    assert!(stage.stanza().contains("/orchard'"));
    let refreshed = stage.publish_body(ROMEO, "", &format!("SIP-If-Match: {tag}\r\n"));
    let second = refreshed.sip_etag().expect("a tag").to_owned();
    assert_ne!(tag, second);
    assert!(stage.stanzas.is_empty(), "a refresh changes nothing");
    assert_eq!(stage.publish_body(ROMEO, "", &format!("SIP-If-Match: {tag}\r\n")).status(), Some(412));
    let removed = stage.publish_body(ROMEO, "", &format!("SIP-If-Match: {second}\r\nExpires: 0\r\n"));
    assert_eq!(removed.status(), Some(200));
    assert!(stage.stanza().contains("type='unavailable'"));
}

#[test]
fn sip_pub_07_a_publication_that_runs_out_is_gone_for_watchers() {
    let mut stage = Stage::new();
    stage.juliet_watches_romeo();
    stage.publish_body(
        ROMEO,
        "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:romeo@sip.example'><tuple id='ID-a'><status>\
         <basic>open</basic></status></tuple></presence>",
        "Expires: 60\r\n",
    );
    stage.stanzas.clear();
    stage.wait(Duration::from_secs(61));
    assert!(stage.stanza().contains("type='unavailable'"), "XP-26");
}

#[test]
fn sip_pub_09_only_the_user_publishes() {
    let mut stage = Stage::new();
    let text = "PUBLISH sip:romeo@sip.example SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKx\r\n\
        From: <sip:mercutio@sip.example>;tag=p\r\nTo: <sip:romeo@sip.example>\r\nCall-ID: x\r\nCSeq: 1 PUBLISH\r\n\
        Event: presence\r\nContent-Type: application/pidf+xml\r\nContent-Length: 1\r\n\r\nx";
    stage.sip_says(&phone_of(MERCUTIO, "m"), MERCUTIO, text.to_owned());
    assert_eq!(stage.status(), 403);
}

#[test]
fn sip_pub_02_each_fault_of_a_publication_has_its_status() {
    let mut stage = Stage::new();
    let with_event = stage.publish_body(ROMEO, "<broken", "");
    assert_eq!(with_event.status(), Some(400));
    assert_eq!(stage.publish_body(ROMEO, "", "").status(), Some(400), "neither tag nor body");
    assert_eq!(stage.publish_body(ROMEO, "", "SIP-If-Match: nonsense\r\n").status(), Some(412));
    assert_eq!(stage.publish_body(ROMEO, "<x/>", "Expires: 5\r\n").status(), Some(423));
}

#[test]
fn a_message_to_a_colleague_goes_to_the_phones_and_its_answer_back() {
    let mut stage = Stage::new();
    stage.message(&phone_of(ROMEO, "a"), ROMEO, MERCUTIO, "Content-Type: text/plain\r\n", b"Good morrow");
    let (message, draft) = stage.deliveries.pop_front().expect("for the phones");
    assert_eq!(draft.body, &b"Good morrow"[..]);
    assert!(stage.responses.is_empty());
    stage.input(Input::Delivered { message, outcome: Ok(()) });
    assert_eq!(stage.status(), 200);
    stage.message(&phone_of(ROMEO, "a"), ROMEO, "nobody@sip.example", "Content-Type: text/plain\r\n", b"x");
    assert_eq!(stage.status(), 404);
}

#[test]
fn a_publication_of_a_user_without_contacts_stays_the_users_own() {
    let mut stage = Stage::new();
    stage.publish(ROMEO, "open", "away", "in the orchard");
    let mercutio = "mercutio@sip.example";
    stage.publish(mercutio, "open", "dnd", "in the square");
    stage.juliet_watches_romeo();
    stage.presence(JULIET, ROMEO, "probe", "");
    let told: String = stage.stanzas.drain(..).collect();
    assert!(told.contains("in the orchard") && !told.contains("in the square"), "{told}");
}

#[test]
fn sip_pub_06_a_publish_makes_no_dialog_whatever_it_carries() {
    let mut stage = Stage::new();
    let document = format!("<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:{ROMEO}'/>");
    let more = "Record-Route: <sip:p@h;lr>\r\nContact: <sip:romeo@h>\r\n";
    let response = stage.publish_body(ROMEO, &document, more);
    assert_eq!(response.status(), Some(200));
    assert!(response.contacts().next().is_none() && response.record_routes().next().is_none());
    stage.juliet_watches_romeo();
    stage.publish(ROMEO, "open", "away", "");
    assert!(stage.requests.is_empty() && stage.notifies.is_empty(), "nobody is notified at that Contact");
}
