//! How much anybody may ask for, and for how long (RFC 6665 §6.3).

use std::time::Duration;

use tombolo_policy::Approve;

use super::stage::*;
use crate::owner::{Input, WatchLimits};

const MERCUTIO: &str = "mercutio@sip.example";

#[test]
fn stox_p_37_who_waits_for_long_is_told_to_ask_later_and_the_grant_is_kept() {
    let mut stage = Stage::new();
    stage.owner.settings.pending_for = Duration::from_secs(100);
    let phone = phone_of(ROMEO, "a");
    stage.subscribe(&phone, ROMEO, JULIET, "c1", "Expires: 600\r\n");
    let response = stage.response();
    stage.subscribe(&phone, ROMEO, NURSE, "c2", "Expires: 600\r\n");
    stage.presence(NURSE, ROMEO, "subscribed", "");
    stage.wait(Duration::from_secs(60));
    stage.responses.clear();
    stage.resubscribe(&phone, &response, 2, 600);
    stage.notifies.clear();
    stage.wait(Duration::from_secs(39));
    assert!(stage.notifies.is_empty());
    stage.stanzas.clear();
    stage.wait(Duration::from_secs(2));
    assert_eq!(state_of(&stage.notify()), "terminated;reason=giveup;retry-after=3600");
    assert!(stage.notifies.is_empty(), "who was granted stays");
    assert!(stage.stanzas.is_empty(), "the request at the contact stays");
    stage.presence(JULIET, ROMEO, "subscribed", "");
    stage.subscribe(&phone, ROMEO, JULIET, "c3", "");
    assert!(state_of(&stage.notify()).starts_with("active"));
    assert!(stage.stanzas.iter().all(|stanza| !stanza.contains("type='subscribe'")), "{:?}", stage.stanzas);
    // The other one is over when it runs out, not before.
    stage.notifies.clear();
    stage.wait(Duration::from_secs(600));
    assert_eq!(state_of(&stage.notify()), "terminated;reason=timeout");
}

#[test]
fn sip_e_30_a_flood_of_subscriptions_is_refused_over_each_limit() {
    let flood = |limits: WatchLimits, target: fn(usize) -> String| {
        let mut stage = Stage::new();
        stage.owner.settings.watch_limits = limits;
        let statuses: Vec<u16> = (0..4)
            .map(|n| {
                stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, &target(n), &format!("c{n}"), "");
                stage.status()
            })
            .collect();
        assert_eq!(statuses, [200, 200, 480, 480], "{limits:?}");
        stage
    };
    let many = WatchLimits { of_user: 100, of_pair: 100, of_phone: 100 };
    let mut stage = flood(WatchLimits { of_pair: 2, ..many }, |_| JULIET.to_owned());
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, NURSE, "other", "");
    assert_eq!(stage.status(), 200, "the limit is that pair's");
    let mut stage = flood(WatchLimits { of_user: 2, ..many }, |n| format!("u{n}@xmpp.example"));
    stage.subscribe(&phone_of(MERCUTIO, "m"), MERCUTIO, NURSE, "other", "");
    assert_eq!(stage.status(), 200, "the limit is that user's");
    let mut stage = flood(WatchLimits { of_phone: 2, ..many }, |n| format!("u{n}@xmpp.example"));
    stage.subscribe(&phone_of(ROMEO, "b"), ROMEO, NURSE, "other", "");
    assert_eq!(stage.status(), 200, "the limit is that phone's");
    // What ends makes room.
    stage.wait(Duration::from_secs(3700));
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, NURSE, "again", "");
    assert_eq!(stage.status(), 200);
}

#[test]
fn a_phone_that_is_another_with_each_registration_costs_nothing_once_its_dialogs_end() {
    let mut stage = Stage::new();
    let before = stage.owner.lanes.ids.len();
    for n in 0..50 {
        let phone = phone_of(ROMEO, &format!("call-{n}"));
        stage.subscribe(&phone, ROMEO, JULIET, &format!("c{n}"), "Expires: 600\r\n");
        assert_eq!(stage.status(), 200);
        stage.comes_back(&phone);
        stage.wait(Duration::from_secs(700));
    }
    assert!(stage.owner.lanes.ids.len() <= before + 1, "juliet's session alone is new");
    assert!(stage.owner.lanes.lanes.len() <= before + 2, "{} places", stage.owner.lanes.lanes.len());
    // Another phone in the same place is told what is its own.
    stage.presence(JULIET, ROMEO, "subscribed", "");
    stage.notifies.clear();
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "last", "");
    assert_eq!(stage.notify().call_id().expect("Call-ID"), "last");
}

#[test]
fn sip_e_30_who_waits_for_a_user_and_whom_a_user_knows_is_bounded() {
    let mut stage = Stage::with(Approve::Ask, |_| {});
    stage.owner.settings.pending_per_user = 1;
    stage.presence(JULIET, MERCUTIO, "subscribe", "");
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, MERCUTIO, "c1", "");
    let response = stage.response();
    assert_eq!(response.status(), Some(480));
    assert!(response.retry_after().is_some());
    stage.presence(NURSE, MERCUTIO, "subscribe", "");
    assert!(stage.stanza().contains("<resource-constraint "));

    let mut stage = Stage::new();
    stage.owner.settings.pairs_per_user = 2;
    for n in 0..2 {
        stage.presence(&format!("u{n}@xmpp.example"), ROMEO, "subscribe", "");
        assert!(stage.stanza().contains("type='subscribed'"));
        stage.stanzas.clear();
    }
    stage.presence(JULIET, ROMEO, "subscribe", "");
    assert!(stage.stanza().contains("<resource-constraint "));
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c1", "");
    assert_eq!(stage.status(), 480);
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, "u0@xmpp.example", "c2", "");
    assert_eq!(stage.status(), 200, "whom the user knows already is no further contact");
}

#[test]
fn sip_e_30_a_partner_has_no_more_contacts_than_its_entry_allows() {
    let mut stage = Stage::with(Approve::Partner, |partner| partner.limits.subscriptions = 2);
    stage.presence("u0@xmpp.example", ROMEO, "subscribe", "");
    stage.presence("u1@xmpp.example", MERCUTIO, "subscribe", "");
    stage.stanzas.clear();
    let is_refused = |stage: &mut Stage| {
        stage.presence(JULIET, ROMEO, "subscribe", "");
        let is_refused = stage.stanza().contains("<resource-constraint ");
        stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, NURSE, "c1", "");
        let status = stage.status();
        stage.stanzas.clear();
        assert_eq!(status, if is_refused { 480 } else { 200 });
        is_refused
    };
    assert!(is_refused(&mut stage));
    stage.presence("u0@xmpp.example", ROMEO, "unsubscribe", "");
    stage.presence("u1@xmpp.example", MERCUTIO, "unsubscribe", "");
    stage.wait(Duration::from_secs(100));
    stage.stanzas.clear();
    // The others have reached it together, and then are below it.
    let full = |is_full| Input::PartnerFull { partner: "xmpp.example".into(), is_full };
    stage.input(full(true));
    assert!(is_refused(&mut stage));
    stage.input(full(false));
    assert!(!is_refused(&mut stage));
}

#[test]
fn while_the_process_has_no_memory_no_further_subscription_is_taken_and_the_others_go_on() {
    let mut stage = Stage::new();
    let phone = phone_of(ROMEO, "a");
    stage.presence(NURSE, ROMEO, "subscribe", "");
    stage.subscribe(&phone, ROMEO, JULIET, "c1", "Expires: 600\r\n");
    let response = stage.response();
    stage.presence(JULIET, ROMEO, "subscribed", "");
    stage.input(Input::MemoryFull(true));
    stage.stanzas.clear();
    stage.presence("u1@xmpp.example", ROMEO, "subscribe", "");
    assert!(stage.stanza().contains("<resource-constraint "));
    stage.responses.clear();
    stage.subscribe(&phone, ROMEO, NURSE, "c2", "Expires: 600\r\n");
    let refusal = stage.response();
    assert!(refusal.status() == Some(500) && refusal.retry_after().is_some());
    // What is there: states both ways, a refresh, messages.
    stage.notifies.clear();
    stage.presence(JULIET, ROMEO, "", "<show>dnd</show>");
    assert!(String::from_utf8_lossy(stage.notify().body()).contains("dnd"));
    stage.stanzas.clear();
    stage.publish(ROMEO, "open", "away", "");
    assert!(stage.stanza().contains("<show>away</show>"));
    stage.responses.clear();
    stage.resubscribe(&phone, &response, 2, 600);
    assert_eq!(stage.status(), 200);
    stage.input(Input::MemoryFull(false));
    stage.responses.clear();
    stage.subscribe(&phone, ROMEO, NURSE, "c3", "Expires: 600\r\n");
    assert_eq!(stage.status(), 200);
}
