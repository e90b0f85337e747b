//! What a changed policy takes away and gives back, at once and over a restart.

use std::time::Duration;

use tombolo_policy::{Approve, Detail, Partner, Permitted};

use super::stage::*;
use crate::owner::Input;

const MERCUTIO: &str = "mercutio@sip.example";
const NOTE: &str = "<note xmlns='urn:ietf:params:xml:ns:pidf'>secret</note>";

/// The partner's users may not watch ours any more.
fn denied(partner: &mut Partner) {
    partner.direction = Permitted::Outbound;
}

/// Our users may not watch the partner's any more.
fn denied_to_us(partner: &mut Partner) {
    partner.direction = Permitted::Inbound;
}

fn said_of(stage: &Stage, user: &str) -> Vec<String> {
    let from = format!("from='{user}");
    stage.stanzas.iter().filter(|stanza| stanza.contains(&from)).cloned().collect()
}

/// A document of benvolio's with a note.
fn noted(basic: &str) -> String {
    format!(
        "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:{BENVOLIO}'><tuple id='ID-desk'><status>\
         <basic>{basic}</basic></status>{NOTE}</tuple></presence>"
    )
}

#[test]
fn who_may_not_watch_any_more_learns_nothing_of_later_publications() {
    let mut stage = Stage::new();
    stage.publish(ROMEO, "open", "", "");
    stage.juliet_watches_romeo();
    stage.partner_is(denied);
    assert!(stage.stanza().contains("type='unavailable'"));
    stage.publish(ROMEO, "open", "dnd", "secret");
    assert!(stage.stanzas.is_empty(), "{:?}", stage.stanzas);
    stage.presence(JULIET, ROMEO, "probe", "");
    assert!(stage.stanza().contains("type='unavailable'"));
    let mut again = stage.killed_and_started_again(Duration::from_secs(5));
    let told = said_of(&again, ROMEO);
    assert!(told.iter().all(|stanza| stanza.contains("type='")), "no state after a restart: {told:?}");
    again.stanzas.clear();
    again.partner_is(|_| {});
    let told = said_of(&again, ROMEO);
    assert!(told.iter().any(|stanza| stanza.contains("secret")), "what is allowed again is shown: {told:?}");
}

#[test]
fn who_may_not_watch_any_more_learns_nothing_from_the_front_end() {
    let mut stage = Stage::new();
    let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
    stage.stanzas.clear();
    stage.partner_is(denied);
    assert!(stage.stanza().contains("type='unavailable'"));
    assert_eq!(stage.front_end_notifies(&draft, 2, "active;expires=3600", &noted("open")), 200);
    assert!(stage.stanzas.is_empty(), "{:?}", stage.stanzas);
    stage.partner_is(|_| {});
    assert!(stage.stanza().contains("secret"), "allowed again: the newest is shown without a NOTIFY");
}

#[test]
fn who_may_not_watch_any_more_since_a_restart_is_told_that_the_user_is_gone() {
    let mut stage = Stage::new();
    stage.publish(ROMEO, "open", "", "");
    stage.juliet_watches_romeo();
    stage.juliet_watches_benvolio(&pidf("open", ""));
    stage.wait(Duration::from_secs(60));
    stage.will_have_partner(denied);
    let again = stage.killed_and_started_again(Duration::from_secs(5));
    for user in [ROMEO, BENVOLIO] {
        let gone = format!("<presence from='{user}' to='{JULIET}' type='unavailable'/>");
        let told = said_of(&again, user);
        assert!(told.contains(&gone), "{told:?}");
        assert!(told.iter().all(|stanza| stanza.contains("type='")), "and nothing else: {told:?}");
    }
}

#[test]
fn nobody_grants_what_the_policy_forbids() {
    // A request that waits for the user.
    let mut stage = Stage::with(Approve::Ask, |_| {});
    stage.publish(ROMEO, "open", "", "");
    stage.presence(JULIET, ROMEO, "subscribe", "");
    stage.partner_is(denied);
    let watcher = Some(address(JULIET));
    let decide = |watcher| Input::Decide { user: address(ROMEO), watcher, is_approved: true, asker: 1 };
    stage.input(decide(watcher.clone()));
    assert!(stage.stanzas.is_empty(), "{:?}", stage.stanzas);
    stage.partner_is(|_| {});
    stage.input(decide(watcher));
    assert!(stage.stanza().contains("type='subscribed'"), "it waited");
    // And one that the front end grants.
    let mut stage = Stage::new();
    stage.presence(JULIET, BENVOLIO, "subscribe", "");
    let draft = stage.answer(200, "Expires: 3600\r\n");
    stage.partner_is(denied);
    assert_eq!(stage.front_end_notifies(&draft, 1, "active;expires=3600", &pidf("open", "")), 200);
    assert!(stage.stanzas.is_empty(), "{:?}", stage.stanzas);
    stage.partner_is(|_| {});
    assert!(stage.stanza().contains("type='subscribed'"));
    assert!(stage.stanza().contains("/desk'"));
}

#[test]
fn a_subscribe_that_waits_for_the_store_is_checked_as_any_other() {
    let mut stage = Stage::new();
    stage.stores_at_once = false;
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c1", "");
    stage.presence(JULIET, ROMEO, "subscribe", "");
    stage.partner_is(denied);
    stage.settle_store(true);
    stage.settle_store(true);
    assert!(stage.stanzas.iter().any(|stanza| stanza.contains("<not-allowed ")), "{:?}", stage.stanzas);
    assert!(stage.stanzas.iter().all(|stanza| !stanza.contains("type='subscribed'")), "{:?}", stage.stanzas);
}

#[test]
fn less_detail_takes_the_notes_away_from_probes_too() {
    let mut stage = Stage::new();
    stage.juliet_watches_benvolio(&noted("open"));
    assert!(stage.stanzas.iter().any(|stanza| stanza.contains("secret")));
    stage.stanzas.clear();
    stage.partner_is(|partner| partner.detail = Detail::AvailabilityOnly);
    stage.presence(JULIET, BENVOLIO, "probe", "");
    let told = said_of(&stage, BENVOLIO);
    assert!(!told.is_empty() && told.iter().all(|stanza| !stanza.contains("secret")), "{told:?}");
    stage.stanzas.clear();
    stage.partner_is(|_| {});
    assert!(stage.stanza().contains("secret"), "and more detail gives them back at once");
}

#[test]
fn a_policy_that_changed_over_a_restart_ends_watches_too() {
    let mut stage = Stage::new();
    stage.romeo_watches_juliet("a");
    stage.presence("juliet@xmpp.example/balcony", ROMEO, "", "");
    stage.notifies.clear();
    stage.will_have_partner(denied_to_us);
    let mut again = stage.killed_and_started_again(Duration::from_secs(5));
    assert_eq!(state_of(&again.notify()), "terminated;reason=rejected");
    assert!(again.notifies.is_empty());
    let probes = again.stanzas.iter().filter(|stanza| stanza.contains("type='probe'"));
    assert_eq!(probes.count(), 0, "nobody is asked for what may not be seen");
}

#[test]
fn after_a_watch_was_forbidden_news_of_one_device_are_not_taken_for_all() {
    let mut stage = Stage::new();
    stage.romeo_watches_juliet("a");
    stage.presence("juliet@xmpp.example/balcony", ROMEO, "", "");
    stage.partner_is(denied_to_us);
    stage.partner_is(|_| {});
    stage.presence("juliet@xmpp.example/garden", ROMEO, "", "");
    stage.stanzas.clear();
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c2", "");
    assert!(stage.stanza().contains("type='probe'"), "juliet may be on her balcony too");
}

#[test]
fn nothing_is_relayed_between_two_homes_of_which_one_is_behind_a_front_end() {
    let text = "Content-Type: text/plain\r\n";
    let mut stage = Stage::with(Approve::All, |_| {});
    stage.message(&front_end(), BENVOLIO, ROMEO, text, b"x");
    assert_eq!(stage.status(), 403);
    stage.message(&phone_of(ROMEO, "a"), ROMEO, BENVOLIO, text, b"x");
    assert_eq!(stage.status(), 403);
    stage.subscribe(&front_end(), BENVOLIO, ROMEO, "c1", "");
    assert_eq!(stage.status(), 403);
    stage.subscribe(&front_end(), BENVOLIO, ROMEO, "c2", "Expires: 0\r\n");
    assert_eq!(stage.status(), 403);
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, BENVOLIO, "c3", "");
    assert_eq!(stage.status(), 403);
    assert!(stage.is_silent() && stage.deliveries.is_empty());
}

#[test]
fn a_granted_colleague_makes_no_session_to_our_own_domain_after_a_restart() {
    let mut stage = Stage::with(Approve::All, |_| {});
    stage.publish(ROMEO, "open", "", "");
    stage.subscribe(&phone_of(MERCUTIO, "m"), MERCUTIO, ROMEO, "c1", "");
    let again = stage.killed_and_started_again(Duration::from_secs(5));
    assert!(again.stanzas.is_empty(), "{:?}", again.stanzas);
    assert!(state_of(again.notifies.back().expect("the colleague is told")).starts_with("active"));
}

#[test]
fn strangers_who_wait_take_no_room_from_the_users_own_requests() {
    let mut stage = Stage::with(Approve::Ask, |_| {});
    stage.owner.settings.pending_per_user = 1;
    stage.presence(JULIET, ROMEO, "subscribe", "");
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, NURSE, "c1", "");
    assert_eq!(stage.status(), 200);
}

/// A stage with so many contacts who see romeo.
fn watched_by(count: usize) -> Stage {
    let mut stage = Stage::new();
    stage.publish(ROMEO, "open", "away", "before");
    for n in 0..count {
        stage.presence(&format!("c{n}@xmpp.example"), ROMEO, "subscribe", "");
    }
    stage.stanzas.clear();
    stage
}

#[test]
fn a_reload_that_changes_nothing_judges_nobody_anew() {
    let mut stage = watched_by(1000);
    let judgement = stage.owner.judgement;
    stage.partner_is(|_| {});
    let accounts = [(ROMEO, Approve::Partner), ("mercutio@sip.example", Approve::Partner)];
    stage.accounts_are(&accounts);
    assert_eq!(stage.owner.judgement, judgement);
    assert!(stage.owner.judging.is_none() && stage.is_silent());
    stage.partner_is(|partner| partner.detail = Detail::None);
    assert_ne!(stage.owner.judgement, judgement);
}

#[test]
fn a_reload_is_worked_off_in_slices_and_what_it_forbids_is_shown_to_nobody_meanwhile() {
    let mut stage = watched_by(1000);
    stage.partner_is(denied);
    let told = stage.stanzas.len();
    assert!((1..=300).contains(&told), "one slice: {told} are told that romeo is gone");
    assert!(stage.owner.judging.is_some());
    // News for contacts to whom the walk has not come yet.
    stage.stanzas.clear();
    stage.publish(ROMEO, "open", "dnd", "secret");
    stage.presence("c999@xmpp.example", ROMEO, "probe", "");
    assert!(stage.stanzas.iter().all(|stanza| !stanza.contains("secret")), "{:?}", stage.stanzas);
    stage.wait(Duration::from_millis(20));
    assert!(stage.owner.judging.is_none(), "1,000 pairs take four slices");
    let gone = stage.stanzas.iter().filter(|stanza| stanza.contains("type='unavailable'")).count();
    assert_eq!(told + gone, 1000, "each is told once");
}

#[test]
fn a_reload_that_comes_while_one_is_worked_off_holds_for_all() {
    let mut stage = watched_by(1000);
    stage.partner_is(denied);
    stage.partner_is(|_| {});
    stage.wait(Duration::from_millis(20));
    stage.stanzas.clear();
    stage.publish(ROMEO, "open", "dnd", "all see this");
    let seen = stage.stanzas.iter().filter(|stanza| stanza.contains("all see this")).count();
    assert_eq!(seen, 1000);
}

#[test]
fn users_who_lose_their_account_are_ended_in_slices() {
    let mut stage = watched_by(1000);
    stage.accounts_are(&[("mercutio@sip.example", Approve::Partner)]);
    let ended = |stage: &Stage| stage.stanzas.iter().filter(|s| s.contains("type='unsubscribed'")).count();
    assert!((1..=300).contains(&ended(&stage)), "{}", ended(&stage));
    stage.wait(Duration::from_millis(20));
    assert_eq!(ended(&stage), 1000);
}
