//! What was acknowledged is not forgotten: responses that wait for a row, and messages that wait for their write.

use std::time::Duration;

use super::stage::*;
use crate::owner::{Input, MessageId, UnfinishedMessage};

const PLAIN: &str = "Content-Type: text/plain\r\n";

fn document(show: &str) -> String {
    format!(
        "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:{ROMEO}'><tuple id='t1'><status>\
         <basic>open</basic><show xmlns='jabber:client'>{show}</show></status></tuple></presence>"
    )
}

#[test]
fn a_publication_that_changes_something_is_acknowledged_when_it_is_stored_and_seen_at_once() {
    let mut stage = Stage::new();
    stage.juliet_watches_romeo();
    stage.stores_at_once = false;
    stage.send_publish("a", ROMEO, &document("away"), "");
    assert!(stage.responses.is_empty(), "its row is not stored yet");
    assert!(stage.stanza().contains("<show>away</show>"), "contacts need not wait for the disk");
    stage.settle_store(true);
    let first = stage.response();
    assert_eq!(first.status(), Some(200));
    let tag = |response: &tombolo_sip::message::Message| {
        format!("SIP-If-Match: {}\r\n", response.sip_etag().expect("a tag"))
    };
    // A plain refresh changes nothing that a phone would miss after a restart.
    stage.send_publish("a", ROMEO, "", &tag(&first));
    let second = stage.response();
    assert_eq!(second.status(), Some(200));
    stage.settle_store(true);
    for (body, more) in [(document("dnd"), tag(&second)), (document("xa"), String::new())] {
        stage.send_publish("a", ROMEO, &body, &more);
        assert!(stage.responses.is_empty(), "{more}");
        stage.settle_store(true);
        assert_eq!(stage.status(), 200);
    }
}

#[test]
fn a_publication_that_was_taken_back_is_acknowledged_when_that_is_stored() {
    let mut stage = Stage::new();
    let first = stage.publish_by("a", ROMEO, &document("away"), "");
    stage.stores_at_once = false;
    let more = format!("SIP-If-Match: {}\r\nExpires: 0\r\n", first.sip_etag().expect("a tag"));
    stage.send_publish("a", ROMEO, "", &more);
    assert!(stage.responses.is_empty());
    stage.settle_store(true);
    assert_eq!(stage.status(), 200);
}

#[test]
fn an_unsubscribe_is_acknowledged_when_the_end_of_its_dialog_is_stored() {
    let mut stage = Stage::new();
    let response = stage.romeo_watches_juliet("a");
    stage.stores_at_once = false;
    stage.resubscribe(&phone_of(ROMEO, "a"), &response, 2, 0);
    assert!(stage.responses.is_empty(), "a kill would bring the dialog back");
    assert_eq!(state_of(&stage.notify()), "terminated;reason=timeout", "the last NOTIFY need not wait");
    stage.settle_store(true);
    assert_eq!(stage.status(), 200);
    let mut again = stage.killed_and_started_again(Duration::from_secs(5));
    again.presence(&format!("{JULIET}/b"), ROMEO, "", "<show>dnd</show>");
    assert!(again.notifies.is_empty(), "acknowledged means gone");
}

#[test]
fn an_unsubscribe_is_acknowledged_while_the_store_fails_too() {
    let mut stage = Stage::new();
    let response = stage.romeo_watches_juliet("a");
    stage.stores_at_once = false;
    stage.resubscribe(&phone_of(ROMEO, "a"), &response, 2, 0);
    stage.settle_store(false);
    assert_eq!(stage.status(), 200, "the row is kept and deleted when the disk is back");
}

#[test]
fn publications_go_on_while_the_store_fails_or_gives_no_answer() {
    for fails in [true, false] {
        let mut stage = Stage::new();
        stage.stores_at_once = false;
        stage.send_publish("a", ROMEO, &document("away"), "");
        if fails {
            stage.settle_store(false);
        } else {
            stage.wait(Duration::from_millis(1900));
            assert!(stage.responses.is_empty());
            stage.wait(Duration::from_millis(200));
        }
        assert_eq!(stage.status(), 200, "fails: {fails}");
        stage.settle_store(true);
        assert!(stage.responses.is_empty(), "it is acknowledged once");
    }
}

#[test]
fn a_dialog_with_a_front_end_is_stored_before_its_first_notify_is_acknowledged() {
    let mut stage = Stage::new();
    stage.presence(JULIET, BENVOLIO, "subscribe", "");
    let draft = stage.answer(200, "Expires: 3600\r\n");
    stage.stores_at_once = false;
    let notify = |cseq: u32, contact: &str| {
        format!(
            "NOTIFY sip:{}@127.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKn{cseq}\r\n\
             From: {};tag=pstag\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} NOTIFY\r\nContact: <{contact}>\r\n\
             Event: presence\r\nSubscription-State: active;expires=3600\r\nContent-Length: 0\r\n\r\n",
            draft.contact_user.as_deref().unwrap_or_default(),
            draft.to,
            draft.from,
            draft.call_id,
        )
    };
    stage.sip_says(&front_end(), BENVOLIO, notify(1, "sip:ps@127.0.0.31:5060"));
    assert!(stage.responses.is_empty(), "a restart would forget the dialog");
    stage.settle_store(true);
    assert_eq!(stage.status(), 200);
    stage.settle_store(true);
    stage.sip_says(&front_end(), BENVOLIO, notify(2, "sip:ps@127.0.0.31:5060"));
    assert_eq!(stage.status(), 200, "nothing is new");
    stage.sip_says(&front_end(), BENVOLIO, notify(3, "sip:ps@127.0.0.32:5060"));
    assert!(stage.responses.is_empty(), "it is reached elsewhere from now on");
    stage.settle_store(true);
    assert_eq!(stage.status(), 200);
}

#[test]
fn d_24_a_front_ends_message_is_accepted_with_the_write_and_never_before() {
    let mut stage = Stage::new();
    stage.writes_messages = false;
    stage.message(&front_end(), BENVOLIO, JULIET, PLAIN, b"x");
    stage.wait(Duration::from_secs(12));
    assert!(stage.responses.is_empty(), "it waits for a stream");
    stage.input(Input::MessageFate { message: MessageId(1), fate: Ok(()) });
    assert_eq!(stage.status(), 202);
}

#[test]
fn d_24_a_phones_message_waits_for_the_write_too() {
    let mut stage = Stage::new();
    stage.writes_messages = false;
    stage.message(&phone_of(ROMEO, "a"), ROMEO, JULIET, PLAIN, b"x");
    stage.wait(Duration::from_secs(3));
    assert!(stage.responses.is_empty(), "half a second is over, and nothing is written");
    stage.input(Input::MessageFate { message: MessageId(1), fate: Ok(()) });
    assert_eq!(stage.status(), 202);
    stage.writes_messages = true;
    stage.message(&phone_of(ROMEO, "a"), ROMEO, JULIET, PLAIN, b"y");
    assert!(stage.responses.is_empty(), "an error may still come");
    stage.wait(Duration::from_millis(600));
    assert_eq!(stage.status(), 202);
}

#[test]
fn d_24_a_message_that_finds_no_stream_is_refused_and_does_not_leave_later() {
    for (peer, user) in [(front_end(), BENVOLIO), (phone_of(ROMEO, "a"), ROMEO)] {
        let mut stage = Stage::new();
        stage.writes_messages = false;
        stage.message(&peer, user, JULIET, PLAIN, b"x");
        stage.wait(Duration::from_secs(29));
        assert!(stage.responses.is_empty());
        stage.wait(Duration::from_secs(2));
        let status = stage.status();
        assert!(status >= 400, "{status}");
        assert_eq!(stage.withdrawn, [MessageId(1)]);
        stage.input(Input::MessageFate { message: MessageId(1), fate: Ok(()) });
        assert!(stage.responses.is_empty(), "it was answered");
    }
}

#[test]
fn what_an_orderly_stop_takes_with_it_is_known_by_its_id() {
    let mut stage = Stage::new();
    stage.writes_messages = false;
    stage.message(&front_end(), BENVOLIO, JULIET, PLAIN, b"x");
    for id in ["m1", "m2"] {
        stage.xmpp_says(&format!(
            "<message from='{JULIET}/b' to='{BENVOLIO}' id='{id}'><body>x</body></message>"
        ));
    }
    let mut found = stage.owner.unfinished_messages();
    found.sort_by(|one, other| (one.is_to_xmpp, &one.id).cmp(&(other.is_to_xmpp, &other.id)));
    let to_sip = |id: &str| UnfinishedMessage { is_to_xmpp: false, id: id.to_owned() };
    assert_eq!(found[..2], [to_sip("m1"), to_sip("m2")]);
    assert!(found[2].is_to_xmpp && !found[2].id.is_empty(), "{found:?}");
    stage.input(Input::MessageFate { message: MessageId(1), fate: Ok(()) });
    stage.answer(200, "");
    stage.answer(200, "");
    assert_eq!(stage.owner.unfinished_messages(), []);
}
