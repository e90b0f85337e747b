//! A store that is slow, full or broken: what could not be stored is refused to whoever asked for it, and the shard
//! goes on.

use std::time::Duration;

use tombolo_policy::Approve;

use super::stage::*;
use crate::owner::{Input, PersistToken, plan::WAITING};

/// A stage whose store answers only when it is told to.
fn slow() -> Stage {
    let mut stage = Stage::new();
    stage.stores_at_once = false;
    stage
}

fn settle_all(stage: &mut Stage) {
    while !stage.unsettled.is_empty() {
        stage.settle_store(true);
    }
}

fn is_refusal_to(stanza: &str, contact: &str) -> bool {
    stanza.contains("type='error'") && stanza.contains("<resource-constraint ") && stanza.contains(contact)
}

fn answer(stage: &mut Stage, token: PersistToken, is_stored: bool) {
    stage.input(Input::Persisted { token, is_stored });
}

#[test]
fn what_a_full_store_refuses_at_once_is_refused_while_older_rows_still_wait() {
    let mut stage = slow();
    stage.presence(JULIET, ROMEO, "subscribe", "");
    stage.presence(NURSE, ROMEO, "subscribe", "");
    let tokens: Vec<_> = stage.unsettled.drain(..).collect();
    let &[first, second] = &tokens[..] else { panic!("two proposals: {tokens:?}") };
    answer(&mut stage, second, false);
    assert!(is_refusal_to(&stage.stanza(), NURSE));
    assert!(stage.is_silent());
    answer(&mut stage, first, true);
    assert!(stage.stanza().contains("type='subscribed'"), "the shard goes on");
    stage.stanzas.clear();
    stage.presence(NURSE, ROMEO, "subscribe", "");
    settle_all(&mut stage);
    assert!(stage.stanza().contains("type='subscribed'"));
}

#[test]
fn what_waits_behind_the_end_of_a_pair_is_not_lost_with_it() {
    let mut stage = Stage::new();
    let response = stage.romeo_watches_juliet("a");
    stage.resubscribe(&phone_of(ROMEO, "a"), &response, 2, 0);
    stage.stanzas.clear();
    stage.stores_at_once = false;
    let stanzas = ["unsubscribed", "subscribe"]
        .map(|kind| received(&format!("<presence from='{JULIET}' to='{ROMEO}' type='{kind}'/>")));
    stage.input(Input::Stanzas(stanzas.into()));
    settle_all(&mut stage);
    assert!(stage.stanza().contains("type='subscribed'"));

    let mut stage = Stage::new();
    let response = stage.romeo_watches_juliet("a");
    stage.resubscribe(&phone_of(ROMEO, "a"), &response, 2, 0);
    assert_eq!(stage.status(), 200);
    stage.stanzas.clear();
    stage.stores_at_once = false;
    stage.presence(JULIET, ROMEO, "unsubscribed", "");
    stage.subscribe(&phone_of(ROMEO, "b"), ROMEO, JULIET, "again", "");
    settle_all(&mut stage);
    assert_eq!(stage.status(), 200);
    assert!(stage.stanza().contains("type='subscribe'"));
}

#[test]
fn more_control_stanzas_than_may_wait_are_refused_to_their_sender() {
    let mut stage = slow();
    for _ in 0..=WAITING {
        stage.presence(JULIET, ROMEO, "subscribe", "");
    }
    assert!(stage.is_silent());
    stage.presence(JULIET, ROMEO, "subscribe", "");
    assert!(is_refusal_to(&stage.stanza(), JULIET));
    settle_all(&mut stage);
    assert!(stage.stanzas.iter().any(|stanza| stanza.contains("type='subscribed'")));
}

#[test]
fn who_decided_is_told_of_it_when_it_is_stored_and_not_of_what_could_not_be() {
    let mut stage = Stage::with(Approve::Ask, |_| {});
    stage.presence(JULIET, ROMEO, "subscribe", "");
    stage.presence(NURSE, ROMEO, "subscribe", "");
    stage.stores_at_once = false;
    let decide = || Input::Decide { user: address(ROMEO), watcher: None, is_approved: true, asker: 1 };
    stage.input(decide());
    assert!(stage.decided.is_empty(), "nothing is stored yet");
    let tokens: Vec<_> = stage.unsettled.drain(..).collect();
    answer(&mut stage, tokens[0], false);
    assert!(stage.decided.is_empty(), "half of it is stored at most");
    answer(&mut stage, tokens[1], true);
    let told = stage.decided.pop().expect("told");
    assert_eq!(told.len(), 1, "{told:?}");
    stage.input(decide());
    settle_all(&mut stage);
    assert_eq!(stage.decided.pop().expect("told").len(), 1, "the other one still waited");
    stage.input(decide());
    assert_eq!(stage.decided, [Vec::<String>::new()], "nobody waits any more, which is said at once");
}

#[test]
fn what_the_front_end_took_back_is_taken_back_though_the_store_failed_at_first() {
    let mut stage = Stage::new();
    let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
    stage.stanzas.clear();
    stage.stores_at_once = false;
    assert_eq!(stage.front_end_notifies(&draft, 2, "terminated;reason=rejected", ""), 200);
    stage.settle_store(false);
    stage.stores_at_once = true;
    settle_all(&mut stage);
    stage.wait(Duration::from_secs(3));
    assert!(stage.stanza().contains("type='unavailable'"));
    assert!(stage.stanza().contains("type='unsubscribed'"));
}

#[test]
fn what_the_front_end_granted_is_granted_though_the_store_failed_at_first() {
    let mut stage = Stage::new();
    stage.presence(JULIET, BENVOLIO, "subscribe", "");
    let draft = stage.answer(200, "Expires: 3600\r\n");
    stage.stores_at_once = false;
    stage.front_end_sends(&draft, 1, "active;expires=3600", &pidf("open", ""));
    stage.settle_store(false);
    assert_eq!(stage.status(), 200);
    stage.stores_at_once = true;
    settle_all(&mut stage);
    stage.wait(Duration::from_secs(3));
    assert!(stage.stanza().contains("type='subscribed'"));
    assert!(stage.stanza().contains("from='benvolio@corp.example/desk'"));
}

#[test]
fn states_that_found_no_place_behind_the_store_are_asked_for_again() {
    let mut stage = Stage::new();
    stage.romeo_watches_juliet("a");
    stage.stores_at_once = false;
    stage.presence(JULIET, ROMEO, "subscribe", "");
    for n in 0..=WAITING {
        stage.presence("juliet@xmpp.example/b", ROMEO, "", &format!("<status>s{n}</status>"));
    }
    settle_all(&mut stage);
    assert!(stage.stanzas.iter().any(|stanza| stanza.contains("type='probe'")), "{:?}", stage.stanzas);
    stage.notifies.clear();
    stage.presence("juliet@xmpp.example/b", ROMEO, "", "<status>the last</status>");
    assert!(body_of(&stage.notify()).contains("the last"));
}

#[test]
fn what_takes_the_store_over_two_seconds_is_refused_and_taken_back_if_it_lands_after_all() {
    let mut stage = slow();
    stage.presence(JULIET, ROMEO, "subscribe", "");
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, NURSE, "c1", "");
    stage.wait(Duration::from_millis(1900));
    assert!(stage.is_silent());
    stage.wait(Duration::from_millis(200));
    assert!(is_refusal_to(&stage.stanza(), JULIET));
    assert_eq!(stage.status(), 500);
    settle_all(&mut stage);
    assert!(stage.is_silent(), "what was refused stays refused");
    assert!(stage.rows.is_empty(), "{:?}", stage.rows.keys());
    stage.stores_at_once = true;
    stage.presence(JULIET, ROMEO, "subscribe", "");
    assert!(stage.stanza().contains("type='subscribed'"));
}

#[test]
fn a_row_that_lands_late_does_not_replace_what_was_stored_since() {
    let mut stage = slow();
    stage.presence(JULIET, ROMEO, "subscribe", "");
    stage.wait(Duration::from_millis(2100));
    stage.presence(JULIET, ROMEO, "subscribe", "");
    let tokens: Vec<_> = stage.unsettled.drain(..).collect();
    for token in tokens {
        answer(&mut stage, token, true);
    }
    settle_all(&mut stage);
    assert!(stage.stanzas.iter().any(|stanza| stanza.contains("type='subscribed'")));
    stage.stanzas.clear();
    let mut again = stage.killed_and_started_again(Duration::from_secs(1));
    again.stanzas.clear();
    again.presence(JULIET, ROMEO, "probe", "");
    assert!(!again.stanza().contains("type='unsubscribed'"), "she is still granted");
}

#[test]
fn the_row_of_a_failed_plan_is_not_written_behind_that_of_the_next() {
    let mut stage = slow();
    stage.presence(JULIET, ROMEO, "subscribe", "");
    stage.presence(JULIET, ROMEO, "subscribe", "");
    let first = stage.unsettled.pop_front().expect("a proposal");
    answer(&mut stage, first, false);
    settle_all(&mut stage);
    let mut again = stage.killed_and_started_again(Duration::from_secs(1));
    again.stanzas.clear();
    again.presence(JULIET, ROMEO, "probe", "");
    assert!(!again.stanza().contains("type='unsubscribed'"), "she is still granted");
}

#[test]
fn what_is_confirmed_meanwhile_is_not_written_behind_a_row_that_is_being_stored() {
    let mut stage = Stage::new();
    stage.owner.settings.confirm_after = Duration::from_secs(30);
    stage.juliet_watches_romeo();
    stage.wait(Duration::from_secs(29));
    stage.stores_at_once = false;
    stage.presence(JULIET, ROMEO, "unsubscribe", "");
    stage.wait(Duration::from_millis(1500));
    settle_all(&mut stage);
    let mut again = stage.killed_and_started_again(Duration::from_secs(1));
    again.stanzas.clear();
    again.presence(JULIET, ROMEO, "probe", "");
    assert!(again.stanza().contains("type='unsubscribed'"), "she is granted no more");
}

#[test]
fn what_lands_late_is_taken_back_though_taking_it_back_failed_at_first() {
    let mut stage = slow();
    stage.presence(JULIET, ROMEO, "subscribe", "");
    stage.wait(Duration::from_millis(2100));
    let tokens: Vec<_> = stage.unsettled.drain(..).collect();
    let &[late, taking_back] = &tokens[..] else { panic!("a proposal and its end: {tokens:?}") };
    answer(&mut stage, taking_back, false);
    assert!(stage.unsettled.is_empty());
    answer(&mut stage, late, true);
    assert_eq!(stage.unsettled.len(), 1, "it is written again as it stands");
}
