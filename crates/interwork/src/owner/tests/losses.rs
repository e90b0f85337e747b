//! What is lost on its way, or crosses something else: nobody is left with what holds no more.

use std::time::Duration;

use super::stage::*;
use crate::{
    error::Undelivered,
    owner::{Input, LaneKey, MessageId},
};

const PLAIN: &str = "Content-Type: text/plain\r\n";

fn session(local: &str) -> LaneKey {
    LaneKey::Session { local: domain(local), remote: domain("xmpp.example"), number: 0 }
}

/// The partner is lost, and back at once.
fn partner_comes_back(stage: &mut Stage) {
    for is_reachable in [false, true] {
        stage.input(Input::PartnerReachable { lane: session(HOME), is_reachable });
    }
}

/// The stream is there, and what waited for it may leave.
fn connect(stage: &mut Stage) {
    stage.is_connected = true;
    for lane in std::mem::take(&mut stage.wanting) {
        stage.input(Input::Credit { lane, bytes: 65_536 });
    }
}

/// Romeo's phone sees juliet, who is there.
fn juliet_seen() -> Stage {
    let mut stage = Stage::new();
    stage.romeo_watches_juliet("a");
    stage.presence("juliet@xmpp.example/b", ROMEO, "", "");
    stage.notifies.clear();
    stage
}

fn is_probe(stanza: &str) -> bool {
    stanza.contains("type='probe'")
}

#[test]
fn the_last_notify_leaves_though_the_end_comes_while_another_is_in_flight() {
    for status in [200, 503] {
        let mut stage = Stage::new();
        stage.romeo_watches_juliet("a");
        stage.answers_notify = None;
        stage.presence("juliet@xmpp.example/b", ROMEO, "", "");
        let open = stage.notify();
        stage.presence(JULIET, ROMEO, "unsubscribed", "");
        assert!(stage.notifies.is_empty(), "one in flight");
        stage.answers_notify = Some(status);
        let answer = stage.answer_to(&open).expect("an answer");
        stage.answers_notify = Some(200);
        stage.answer_comes(&[phone_of(ROMEO, "a")], answer);
        assert_eq!(state_of(&stage.notify()), "terminated;reason=rejected", "after {status}");
        stage.input(Input::Ask { user: None, asker: 1 });
        assert_eq!(stage.reports[0].notifier_dialogs, 0);
    }
}

#[test]
fn who_leaves_and_asks_again_before_the_end_came_gets_a_new_subscription() {
    for does_end_come in [true, false] {
        let mut stage = Stage::new();
        let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
        stage.presence(JULIET, BENVOLIO, "unsubscribe", "");
        let end = stage.answer(200, "Expires: 0\r\n");
        stage.stanzas.clear();
        stage.presence(JULIET, BENVOLIO, "subscribe", "");
        assert_eq!(stage.front_end_notifies(&end, 2, "active;expires=60", &pidf("open", "")), 200);
        assert!(stage.is_silent(), "what the old dialog still says grants nothing");
        if does_end_come {
            assert_eq!(stage.front_end_notifies(&end, 3, "terminated;reason=timeout", ""), 200);
        } else {
            stage.wait(Duration::from_secs(40));
        }
        let again = stage.answer(200, "Expires: 3600\r\n");
        assert_ne!(again.call_id, draft.call_id);
        assert_eq!(stage.front_end_notifies(&again, 1, "active;expires=3600", &pidf("open", "")), 200);
        assert!(stage.stanza().contains("type='subscribed'"));
        assert!(stage.stanza().contains("from='benvolio@corp.example/desk'"));
    }
}

#[test]
fn a_probe_that_was_lost_with_its_stream_is_sent_again() {
    let mut stage = juliet_seen();
    partner_comes_back(&mut stage);
    assert!(is_probe(&stage.stanza()));
    stage.wait(Duration::from_secs(20));
    stage.input(Input::LaneLost { lane: session(HOME), is_clean: false });
    assert!(is_probe(&stage.stanza()));
    stage.wait(Duration::from_secs(25));
    assert!(stage.notifies.is_empty(), "it has thirty seconds from then on");
    stage.wait(Duration::from_secs(6));
    assert!(body_of(&stage.notify()).contains("No answer"));
}

#[test]
fn a_probe_whose_answer_may_be_lost_is_sent_again_to_a_partner_that_is_back() {
    let mut stage = juliet_seen();
    partner_comes_back(&mut stage);
    assert!(is_probe(&stage.stanza()));
    stage.input(Input::LaneLost { lane: session(HOME), is_clean: true });
    partner_comes_back(&mut stage);
    assert!(is_probe(&stage.stanza()));
}

#[test]
fn the_time_of_a_probe_that_was_answered_ends_no_later_one() {
    let mut stage = juliet_seen();
    partner_comes_back(&mut stage);
    stage.presence("juliet@xmpp.example/b", ROMEO, "", "");
    stage.wait(Duration::from_secs(20));
    partner_comes_back(&mut stage);
    stage.notifies.clear();
    stage.wait(Duration::from_secs(29));
    assert!(stage.notifies.is_empty());
    stage.wait(Duration::from_secs(2));
    assert!(body_of(&stage.notify()).contains("No answer"));
}

#[test]
fn a_probe_that_could_not_leave_yet_is_kept_and_waits_from_its_write_on() {
    let mut stage = juliet_seen();
    stage.is_connected = false;
    partner_comes_back(&mut stage);
    stage.wait(Duration::from_secs(40));
    assert!(stage.notifies.is_empty(), "she was not asked, so her silence says nothing");
    connect(&mut stage);
    assert!(is_probe(&stage.stanza()));
    stage.wait(Duration::from_secs(29));
    assert!(stage.notifies.is_empty());
    stage.wait(Duration::from_secs(2));
    assert!(body_of(&stage.notify()).contains("No answer"));
}

#[test]
fn news_that_come_before_the_probe_left_are_not_taken_for_its_answer() {
    let mut stage = juliet_seen();
    stage.is_connected = false;
    partner_comes_back(&mut stage);
    stage.presence("juliet@xmpp.example/c", ROMEO, "", "");
    let both = body_of(&stage.notify());
    assert_eq!(both.matches("<tuple").count(), 2, "of the other device they say nothing: {both}");
    connect(&mut stage);
    assert!(is_probe(&stage.stanza()));
    stage.presence("juliet@xmpp.example/c", ROMEO, "", "<show>away</show>");
    let one = body_of(&stage.notify());
    assert_eq!(one.matches("<tuple").count(), 1, "the answer does: {one}");
}

#[test]
fn what_was_said_of_one_direction_is_not_said_again_when_the_other_changes() {
    // Asked, and then the contact asks and is let in.
    let mut stage = Stage::new();
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c1", "");
    assert!(stage.stanza().contains("type='subscribe'"));
    stage.presence(JULIET, ROMEO, "subscribe", "");
    let kinds = |stage: &Stage, kind: &str| {
        let wanted = format!("type='{kind}'");
        stage.stanzas.iter().filter(|stanza| stanza.contains(&wanted)).count()
    };
    assert_eq!((kinds(&stage, "subscribe"), kinds(&stage, "subscribed")), (0, 1), "{:?}", stage.stanzas);

    // Granted and taken back by the contact, and then the user asks.
    let mut stage = Stage::new();
    stage.juliet_watches_romeo();
    stage.presence(JULIET, ROMEO, "unsubscribe", "");
    assert_eq!(kinds(&stage, "unsubscribed"), 1);
    stage.stanzas.clear();
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c1", "");
    assert_eq!((kinds(&stage, "subscribe"), kinds(&stage, "unsubscribed")), (1, 0), "{:?}", stage.stanzas);

    // A second request of the contact is answered again, and brings nothing else.
    let mut stage = Stage::new();
    stage.juliet_watches_romeo();
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c1", "");
    stage.stanzas.clear();
    stage.presence(JULIET, ROMEO, "subscribe", "");
    assert_eq!((kinds(&stage, "subscribe"), kinds(&stage, "subscribed")), (0, 1), "{:?}", stage.stanzas);

    // What is not known to have arrived is said again, in both directions.
    stage.stanzas.clear();
    stage.input(Input::LaneLost { lane: session(HOME), is_clean: false });
    assert_eq!((kinds(&stage, "subscribe"), kinds(&stage, "subscribed")), (1, 1), "{:?}", stage.stanzas);
}

#[test]
fn what_was_said_again_is_not_confirmed_by_the_time_of_the_first_saying() {
    let mut stage = Stage::new();
    stage.owner.settings.confirm_after = Duration::from_secs(30);
    stage.juliet_watches_romeo();
    stage.wait(Duration::from_secs(29));
    stage.input(Input::LaneLost { lane: session(HOME), is_clean: false });
    assert!(stage.stanza().contains("type='subscribed'"));
    stage.wait(Duration::from_secs(2));
    let again = stage.killed_and_started_again(Duration::from_secs(1));
    assert!(again.stanzas.iter().any(|stanza| stanza.contains("type='subscribed'")), "{:?}", again.stanzas);
}

#[test]
fn a_body_that_cannot_be_read_keeps_no_end_from_being_heard() {
    let mut stage = Stage::new();
    let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
    stage.stanzas.clear();
    assert_eq!(stage.front_end_notifies(&draft, 2, "terminated;reason=rejected", "<presence"), 400);
    assert!(stage.stanza().contains("type='unavailable'"));
    assert!(stage.stanza().contains("type='unsubscribed'"));
}

#[test]
fn a_first_notify_with_a_body_that_cannot_be_read_makes_the_dialog_all_the_same() {
    let mut stage = Stage::new();
    stage.presence(JULIET, BENVOLIO, "subscribe", "");
    let draft = stage.answer(200, "Expires: 3600\r\n");
    assert_eq!(stage.front_end_notifies(&draft, 1, "active;expires=3600", "<presence"), 400);
    assert!(stage.is_silent(), "nothing is shown, and nothing granted");
    assert_eq!(stage.front_end_notifies(&draft, 2, "active;expires=3600", &pidf("open", "")), 200);
    assert!(stage.stanza().contains("type='subscribed'"));
    assert!(stage.stanza().contains("from='benvolio@corp.example/desk'"));
}

#[test]
fn a_first_notify_without_contact_is_refused_and_the_next_one_makes_the_dialog() {
    let mut stage = Stage::new();
    stage.presence(JULIET, BENVOLIO, "subscribe", "");
    let draft = stage.answer(200, "Expires: 3600\r\n");
    let text = format!(
        "NOTIFY sip:{}@127.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKc\r\nFrom: {};tag=pstag\r\n\
         To: {}\r\nCall-ID: {}\r\nCSeq: 1 NOTIFY\r\nEvent: presence\r\n\
         Subscription-State: active;expires=3600\r\nContent-Length: 0\r\n\r\n",
        draft.contact_user.as_deref().unwrap_or_default(),
        draft.to,
        draft.from,
        draft.call_id,
    );
    stage.sip_says(&front_end(), BENVOLIO, text);
    assert_eq!(stage.status(), 400);
    assert!(stage.is_silent());
    assert_eq!(stage.front_end_notifies(&draft, 2, "active;expires=3600", &pidf("open", "")), 200);
    stage.wait_for_request(Duration::from_secs(3600));
    let (_, _, refresh) = stage.requests.front().expect("a refresh");
    assert_eq!(refresh.uri, "sip:ps@127.0.0.31:5060");
}

#[test]
fn d_24_the_loss_of_a_message_that_was_written_and_accepted_is_told_later() {
    let mut stage = Stage::new();
    stage.message(&phone_of(ROMEO, "a"), ROMEO, JULIET, PLAIN, b"x");
    stage.wait(Duration::from_millis(520));
    assert_eq!(stage.status(), 202);
    stage.message(&front_end(), BENVOLIO, JULIET, PLAIN, b"x");
    assert_eq!(stage.status(), 202);
    stage.wait(Duration::from_secs(40));
    for message in [1, 2] {
        let fate = Err(Undelivered::Uncertain);
        stage.input(Input::MessageFate { message: MessageId(message), fate });
    }
    assert!(stage.responses.is_empty());
    let (_, to_phone) = stage.deliveries.pop_front().expect("a MESSAGE to the phone");
    let (_, _, to_front_end) = stage.requests.pop_front().expect("a MESSAGE to the front end");
    for (draft, user) in [(to_phone, ROMEO), (to_front_end, BENVOLIO)] {
        assert!(draft.from.contains(JULIET) && draft.to.contains(user), "{draft:?}");
        assert!(String::from_utf8_lossy(&draft.body).contains("remote-server-timeout"));
    }
}

#[test]
fn a_message_that_was_written_and_lost_with_its_stream_has_a_fate_however_many_came_after_it() {
    let mut stage = Stage::new();
    stage.message(&front_end(), BENVOLIO, JULIET, PLAIN, b"lost");
    assert_eq!(stage.status(), 202);
    for _ in 0..11_000 {
        stage.message(&front_end(), BENVOLIO, NURSE, PLAIN, b"x");
    }
    stage.responses.clear();
    stage.wait(Duration::from_secs(1));
    stage.input(Input::MessageFate { message: MessageId(1), fate: Err(Undelivered::Uncertain) });
    let (peer, _, draft) = stage.requests.pop_front().expect("the sender is told");
    assert_eq!(peer, front_end());
    assert!(draft.from.contains(JULIET) && draft.to.contains(BENVOLIO));
    assert!(stage.responses.is_empty());
    stage.input(Input::MessageFate { message: MessageId(1), fate: Err(Undelivered::Uncertain) });
    assert!(stage.requests.is_empty(), "once");
}
