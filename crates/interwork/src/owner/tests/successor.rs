//! A shard that takes the place of one whose machine panicked, in the same life of the process.

use std::time::Duration;

use super::stage::*;
use crate::owner::{Input, LaneKey, PersistToken};

fn session() -> LaneKey {
    LaneKey::Session { local: domain(HOME), remote: domain("xmpp.example"), number: 0 }
}

#[test]
fn a_successor_serves_the_dialogs_of_the_dead_shard_with_higher_numbers_each_time() {
    let mut stage = Stage::new();
    stage.publish(ROMEO, "open", "away", "");
    stage.juliet_watches_romeo();
    let response = stage.romeo_watches_juliet("a");
    let mut last = 0;
    for cseq in 2..6 {
        stage = stage.panicked_and_rebuilt();
        stage.presence("juliet@xmpp.example/balcony", ROMEO, "", "");
        let notify = stage.notify();
        assert_eq!(notify.call_id().expect("Call-ID"), response.call_id().expect("Call-ID"), "one dialog");
        let (number, _) = notify.cseq().expect("CSeq");
        assert!(number > last, "{number} was used before, up to {last}");
        last = number;
        stage.notifies.clear();
        stage.resubscribe(&phone_of(ROMEO, "a"), &response, cseq, 600);
        assert_eq!(stage.status(), 200, "its tag still opens the dialog");
        stage.notifies.clear();
    }
}

#[test]
fn a_successor_that_follows_a_fresh_start_uses_no_number_of_the_dead_shard() {
    let mut stage = Stage::new();
    stage.romeo_watches_juliet("a");
    // The start raises the numbers and stores none of them for a minute.
    let mut stage = stage.killed_and_started_again(Duration::from_secs(5));
    stage.presence("juliet@xmpp.example/balcony", ROMEO, "", "<show>dnd</show>");
    let used = stage.notifies.iter().filter_map(|notify| notify.cseq().ok()).map(|(number, _)| number).max();
    let mut stage = stage.panicked_and_rebuilt();
    stage.notifies.clear();
    stage.presence("juliet@xmpp.example/balcony", ROMEO, "", "<show>away</show>");
    let (number, _) = stage.notify().cseq().expect("CSeq");
    assert!(Some(number) > used, "{number} after {used:?}");
}

#[test]
fn answers_to_the_dead_shard_match_nothing_of_its_successor() {
    let mut stage = Stage::new();
    stage.stores_at_once = false;
    stage.presence(JULIET, ROMEO, "subscribe", "");
    let stale = stage.unsettled.back().copied().expect("a row is being stored");
    let mut again = stage.panicked_and_rebuilt();
    again.stores_at_once = false;
    again.presence(JULIET, ROMEO, "subscribe", "");
    let before = again.stanzas.len();
    again.input(Input::Persisted { token: stale, is_stored: true });
    again.input(Input::Persisted { token: PersistToken(1), is_stored: true });
    assert_eq!(again.stanzas.len(), before, "nothing is said before its own row is stored");
    while !again.unsettled.is_empty() {
        again.settle_store(true);
    }
    assert!(again.stanzas.iter().any(|stanza| stanza.contains("type='subscribed'")), "{:?}", again.stanzas);
}

#[test]
fn a_new_dialog_of_a_successor_has_a_tag_that_no_dialog_of_the_dead_shard_had() {
    let mut stage = Stage::new();
    stage.stores_at_once = false;
    // Answered and forgotten: its row never reaches the disk.
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "lost", "");
    while !stage.unsettled.is_empty() {
        stage.settle_store(true);
    }
    let lost = stage.response().to().expect("To").tag().expect("a tag").to_owned();
    stage.rows.clear();
    let mut again = stage.panicked_and_rebuilt();
    again.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "new", "");
    let new = again.response().to().expect("To").tag().expect("a tag").to_owned();
    assert_ne!(lost, new);
}

#[test]
fn a_lane_whose_session_was_rebuilt_asks_for_credit_again_and_says_everything_again() {
    let mut stage = Stage::new();
    stage.publish(ROMEO, "open", "away", "");
    stage.juliet_watches_romeo();
    stage.is_connected = false;
    stage.publish(ROMEO, "open", "dnd", "");
    assert_eq!(stage.wanting, [session()], "asked once");
    stage.wanting.clear();
    stage.publish(ROMEO, "open", "xa", "");
    assert!(stage.wanting.is_empty(), "a wish that is open is not repeated");
    stage.input(Input::LaneReset { lane: session() });
    assert_eq!(stage.wanting, [session()], "whoever was asked has forgotten it");
    stage.stanzas.clear();
    stage.is_connected = true;
    stage.input(Input::Credit { lane: session(), bytes: 10_000 });
    assert!(stage.stanzas.iter().any(|stanza| stanza.contains("<show>xa</show>")), "{:?}", stage.stanzas);
}

#[test]
fn a_message_that_a_rebuilt_session_has_forgotten_is_refused_to_its_sender() {
    let mut stage = Stage::new();
    stage.writes_messages = false;
    let phone = phone_of(ROMEO, "a");
    stage.message(&phone, ROMEO, JULIET, "Content-Type: text/plain\r\n", b"hello");
    assert!(stage.responses.is_empty());
    stage.input(Input::LaneReset { lane: session() });
    assert!(stage.status() >= 400, "the sender is not left to wait");
}

#[test]
fn what_a_dead_shard_had_not_answered_can_still_be_answered_by_whoever_holds_it() {
    let mut stage = Stage::new();
    stage.writes_messages = false;
    let phone = phone_of(ROMEO, "a");
    stage.message(&phone, ROMEO, JULIET, "Content-Type: text/plain\r\n", b"to xmpp");
    stage.xmpp_says(&format!(
        "<message from='{JULIET}/b' to='{ROMEO}' type='chat' id='m1'><body>to sip</body></message>"
    ));
    stage.stores_at_once = false;
    stage.subscribe(&phone, ROMEO, NURSE, "watch", "");
    let unanswered = stage.owner.take_unanswered();
    let mut methods: Vec<_> = unanswered.requests.iter().map(|asked| asked.message.method_text()).collect();
    methods.sort_unstable();
    assert_eq!(methods, ["MESSAGE", "SUBSCRIBE"]);
    assert_eq!(unanswered.stanzas.len(), 1);
}
