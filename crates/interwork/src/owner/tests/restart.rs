//! What survives `kill -9` (STOX-P-22, STOX-P-23).

use std::time::Duration;

use super::{front_end_health::watched_by, stage::*};
use crate::{owner::Input, rows::table};

#[test]
fn stox_p_22_authorizations_and_dialogs_survive_and_nobody_is_asked_again() {
    let mut stage = Stage::new();
    stage.publish(ROMEO, "open", "away", "");
    stage.juliet_watches_romeo();
    let response = stage.romeo_watches_juliet("a");
    let mut again = stage.killed_and_started_again(Duration::from_secs(5));
    let said: Vec<&String> =
        again.stanzas.iter().filter(|stanza| stanza.contains("type='subscribe'")).collect();
    assert!(said.is_empty() && again.asked_to_decide.is_empty(), "nobody is asked again: {said:?}");
    assert!(again.stanzas.iter().any(|stanza| stanza.contains("<show>away</show>")), "{:?}", again.stanzas);
    assert!(again.stanzas.iter().any(|stanza| stanza.contains("type='probe'")), "an open watch is probed");
    // What was granted and not confirmed is said once more.
    assert!(again.stanzas.iter().any(|stanza| stanza.contains("type='subscribed'")));
    again.notifies.clear();
    again.presence("juliet@xmpp.example/balcony", ROMEO, "", "");
    let notify = again.notify();
    assert_eq!(notify.call_id().expect("Call-ID"), response.call_id().expect("Call-ID"), "the same dialog");
    let (cseq, _) = notify.cseq().expect("CSeq");
    assert!(cseq > 65_536, "D-26: raised by more than was ever used, {cseq}");
    again.resubscribe(&phone_of(ROMEO, "a"), &response, 2, 600);
    assert_eq!(again.status(), 200, "its tag still opens the dialog");
}

#[test]
fn stox_p_22_a_dialog_with_a_front_end_is_refreshed_in_the_dialog() {
    let mut stage = Stage::new();
    let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
    let mut again = stage.killed_and_started_again(Duration::from_secs(5));
    let (_, _, refresh) = again.requests.front().expect("one refresh");
    assert_eq!(
        (&refresh.call_id, &refresh.from),
        (&draft.call_id, &draft.from),
        "no dialog-creating SUBSCRIBE"
    );
    assert!(refresh.to.ends_with(";tag=pstag") && refresh.cseq > 65_536);
    again.answer(200, "Expires: 600\r\n");
    assert_eq!(again.front_end_notifies(&draft, 9, "active;expires=600", &pidf("closed", "")), 200);
    again.answer_nothing();
}

#[test]
fn d_26_numbers_rise_with_each_start_though_none_was_stored() {
    let mut stage = Stage::new();
    stage.publish(ROMEO, "open", "away", "");
    stage.juliet_watches_benvolio(&pidf("open", ""));
    stage.romeo_watches_juliet("a");
    let (mut last_refresh, mut last_notify) = (0, 0);
    for _ in 0..3 {
        stage = stage.killed_and_started_again(Duration::from_secs(1));
        let refresh = stage.answer(200, "Expires: 3600\r\n").cseq;
        let (notify, _) = stage.notify().cseq().expect("CSeq");
        assert!(
            refresh > last_refresh && notify > last_notify,
            "{refresh} {last_refresh} {notify} {last_notify}"
        );
        (last_refresh, last_notify) = (refresh, notify);
    }
}

#[test]
fn stox_p_23_after_a_restart_every_dialog_is_refreshed_at_once_and_64_at_a_time() {
    let stage = watched_by(200);
    let mut again = stage.killed_and_started_again(Duration::from_secs(1));
    for left in (0..200).rev() {
        assert_eq!(again.requests.len(), 64.min(left + 1), "that many are not answered");
        again.answer(200, "Expires: 3600\r\n");
    }
    assert!(again.requests.is_empty(), "each once");
}

#[test]
fn xp_11_a_waiting_request_survives_and_is_shown_again() {
    let mut stage = Stage::with(tombolo_policy::Approve::Ask, |_| {});
    stage.presence(JULIET, ROMEO, "subscribe", "");
    let mut again = stage.killed_and_started_again(Duration::from_secs(5));
    again.input(Input::Ask { user: Some(address(ROMEO)), asker: 1 });
    let report = again.reports.pop().expect("an answer");
    assert!(
        report.relations.iter().any(|relation| relation.is_waiting && relation.contact == address(JULIET))
    );
}

#[test]
fn stox_p_22_a_phone_that_comes_back_late_is_sent_what_it_is_owed() {
    let mut stage = Stage::new();
    stage.romeo_watches_juliet("a");
    let mut again = stage.killed_and_started_alone(Duration::from_secs(5));
    again.presence("juliet@xmpp.example/balcony", ROMEO, "", "<show>dnd</show>");
    assert!(again.notifies.is_empty(), "there is no way to the phone yet");
    again.comes_back(&phone_of(ROMEO, "a"));
    assert!(body_of(&again.notify()).contains(">dnd<"));
    assert!(again.notifies.is_empty(), "and once");
}

#[test]
fn what_was_confirmed_long_ago_is_not_said_again() {
    // A stream may take a minute to be found dead.
    for (seconds, is_said_again) in [(61, true), (91, false)] {
        let mut stage = Stage::new();
        stage.juliet_watches_romeo();
        stage.wait(Duration::from_secs(seconds));
        let again = stage.killed_and_started_again(Duration::from_secs(5));
        let is_said = again.stanzas.iter().any(|stanza| stanza.contains("type='subscribed'"));
        assert_eq!(is_said, is_said_again, "{seconds} s: {:?}", again.stanzas);
    }
}

#[test]
fn a_request_that_was_never_answered_is_said_again() {
    let mut stage = Stage::new();
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c1", "");
    let again = stage.killed_and_started_again(Duration::from_secs(5));
    assert!(again.stanzas.iter().any(|stanza| stanza.contains("type='subscribe'")));
    assert!(again.notifies.iter().any(|notify| state_of(notify).starts_with("pending")));
}

#[test]
fn a_phone_that_was_away_learns_of_a_refusal_also_over_a_restart() {
    let mut stage = Stage::new();
    stage.romeo_watches_juliet("a");
    stage.goes_away(&phone_of(ROMEO, "a"));
    stage.presence(JULIET, ROMEO, "unsubscribed", "");
    stage.wait(Duration::from_secs(120));
    let mut again = stage.killed_and_started_alone(Duration::from_secs(5));
    assert!(again.notifies.is_empty(), "the phone is still away");
    again.comes_back(&phone_of(ROMEO, "a"));
    assert_eq!(state_of(&again.notify()), "terminated;reason=rejected");
    let last = again.killed_and_started_again(Duration::from_secs(5));
    assert!(last.notifies.is_empty(), "what was answered is not said again");
}

#[test]
fn a_user_who_closed_behind_the_front_end_meanwhile_is_told_as_unavailable() {
    let mut stage = Stage::new();
    let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
    let mut again = stage.killed_and_started_again(Duration::from_secs(5));
    again.stanzas.clear();
    assert_eq!(again.front_end_notifies(&draft, 9, "active;expires=600", &pidf("closed", "")), 200);
    assert!(again.stanza().contains("type='unavailable'"), "juliet was told that he is there");
}

#[test]
fn what_is_heard_of_one_device_after_a_restart_is_not_taken_for_all() {
    let mut stage = Stage::new();
    let response = stage.romeo_watches_juliet("a");
    stage.presence("juliet@xmpp.example/garden", ROMEO, "", "");
    stage.resubscribe(&phone_of(ROMEO, "a"), &response, 2, 0);
    let mut again = stage.killed_and_started_again(Duration::from_secs(5));
    again.presence("juliet@xmpp.example/balcony", ROMEO, "", "");
    again.stanzas.clear();
    again.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c2", "");
    assert!(again.stanza().contains("type='probe'"), "juliet may be at her garden too");
}

#[test]
fn where_a_watcher_and_a_front_end_moved_to_is_known_after_a_restart() {
    let mut stage = Stage::new();
    let response = stage.romeo_watches_juliet("a");
    let subscribe = |contact: &str, cseq: u32| {
        let (from, to) = (response.from().expect("From"), response.to().expect("To"));
        format!(
            "SUBSCRIBE sip:x SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKt{cseq}\r\nFrom: <{}>;tag={}\r\n\
             To: <{}>;tag={}\r\nCall-ID: {}\r\nCSeq: {cseq} SUBSCRIBE\r\nContact: <{contact}>\r\n\
             Event: presence\r\nExpires: 3600\r\n\r\n",
            from.uri.as_str(),
            from.tag().expect("a tag"),
            to.uri.as_str(),
            to.tag().expect("a tag"),
            response.call_id().expect("Call-ID"),
        )
    };
    stage.sip_says(&phone_of(ROMEO, "a"), ROMEO, subscribe("sip:romeo@elsewhere.example", 2));
    assert_eq!(stage.status(), 200);
    let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
    let to = &draft.to;
    let text = format!(
        "NOTIFY sip:{}@127.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKe\r\nFrom: {to};tag=pstag\r\n\
         To: {}\r\nCall-ID: {}\r\nCSeq: 7 NOTIFY\r\nContact: <sip:ps@elsewhere.example>\r\nEvent: presence\r\n\
         Subscription-State: active;expires=3600\r\nContent-Length: 0\r\n\r\n",
        draft.contact_user.as_deref().unwrap_or_default(),
        draft.from,
        draft.call_id,
    );
    stage.sip_says(&front_end(), BENVOLIO, text);
    assert_eq!(stage.status(), 200);
    let mut again = stage.killed_and_started_again(Duration::from_secs(5));
    assert_eq!(again.notify().request_uri_text(), "sip:romeo@elsewhere.example");
    let refresh = again.answer(200, "Expires: 600\r\nContact: <sip:ps@third.example>\r\n");
    assert_eq!(refresh.uri, "sip:ps@elsewhere.example");
    let mut last = again.killed_and_started_again(Duration::from_secs(5));
    assert_eq!(last.answer(200, "Expires: 600\r\n").uri, "sip:ps@third.example");
}

impl Stage {
    /// Nothing of ours waits for an answer.
    fn answer_nothing(&self) {
        assert!(self.requests.is_empty());
    }
}

#[test]
fn an_end_that_had_not_come_when_the_process_died_is_asked_for_again() {
    let mut stage = Stage::new();
    let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
    stage.presence(JULIET, BENVOLIO, "unsubscribe", "");
    let mut again = stage.killed_and_started_again(Duration::from_secs(5));
    again.stanzas.clear();
    let end = again.answer(200, "Expires: 0\r\n");
    assert_eq!(end.call_id, draft.call_id);
    assert!(end.headers.contains(&("Expires", "0".to_owned())), "{:?}", end.headers);
    assert_eq!(again.front_end_notifies(&end, 9, "terminated;reason=timeout", ""), 200);
    again.wait(Duration::from_secs(100));
    assert!(again.is_silent(), "nobody asks for what nobody wants");
}

impl Stage {
    /// The next start finds no pair.
    fn loses_its_pairs(&mut self) {
        self.rows.retain(|(_, table, _), _| *table != table::PAIR);
        self.loses_no_row = false;
    }
}

#[test]
fn xp_21_a_probe_is_answered_unsubscribed_only_by_a_store_that_knows_every_grant() {
    let mut stage = Stage::new();
    stage.juliet_watches_romeo();
    stage.rows.clear();
    stage.loses_no_row = false;
    let mut again = stage.killed_and_started_again(Duration::from_secs(5));
    for contact in [JULIET, NURSE] {
        for user in [ROMEO, "nobody@sip.example", BENVOLIO] {
            again.presence(contact, user, "probe", "");
            assert!(again.is_silent(), "{contact} {user}: {:?}", again.stanzas);
        }
    }
    // The user's own asking makes a row again, which says nothing of what the contact was granted.
    again.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c1", "");
    again.stanzas.clear();
    again.presence(JULIET, ROMEO, "probe", "");
    assert!(again.stanzas.is_empty(), "{:?}", again.stanzas);
    again.presence(JULIET, ROMEO, "subscribe", "");
    let is_served = again.stanzas.iter().any(|stanza| stanza.contains("type='subscribed'"));
    assert!(is_served, "who asks anew is served: {:?}", again.stanzas);
}

#[test]
fn watchers_whose_agreement_was_lost_with_the_store_are_told_to_ask_again_and_not_that_they_are_rejected() {
    for (loses, reason) in [(false, "rejected"), (true, "deactivated")] {
        let mut stage = Stage::new();
        stage.romeo_watches_juliet("a");
        if loses {
            stage.loses_its_pairs();
        } else {
            // The contact refused while the phone was away.
            stage.goes_away(&phone_of(ROMEO, "a"));
            stage.presence(JULIET, ROMEO, "unsubscribed", "");
        }
        let mut again = stage.killed_and_started_again(Duration::from_secs(5));
        assert_eq!(state_of(&again.notify()), format!("terminated;reason={reason}"));
        assert!(!again.stanzas.iter().any(|stanza| stanza.contains("unsubscribed")), "{:?}", again.stanzas);
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// A phone watches juliet, and juliet watches benvolio by way of his front end; the machine tells its boot.
fn watched_both_ways() -> (Stage, String) {
    let mut stage = Stage::new();
    stage.boot = Some((7, stage.now.instant));
    stage.romeo_watches_juliet("a");
    let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
    // What changes often is stored.
    stage.wait(Duration::from_secs(61));
    stage.notifies.clear();
    (stage, draft.call_id)
}

/// Both dialogs go on: no new one is made, and none is ended.
fn goes_on(mut again: Stage, call_id: &str) {
    assert!(!again.notifies.iter().any(|notify| state_of(notify).starts_with("terminated")));
    again.wait_for_request(Duration::from_secs(21));
    assert_eq!(again.answer(200, "Expires: 3600\r\n").call_id, call_id, "refreshed in the dialog");
    assert!(again.requests.is_empty(), "and no other is made");
    again.notifies.clear();
    again.presence("juliet@xmpp.example/balcony", ROMEO, "", "");
    assert!(state_of(&again.notify()).starts_with("active"));
}

#[test]
fn no_step_of_the_wall_clock_while_the_machine_is_up_ends_or_doubles_a_dialog() {
    for (before, after) in [(-1, 0), (1, 0), (0, -1), (0, 1), (-1, 1), (1, -1)] {
        let (mut stage, call_id) = watched_both_ways();
        let shift = |wall: Duration, hours: i32| match hours {
            ..0 => wall - HOUR * hours.unsigned_abs(),
            _ => wall + HOUR * hours.unsigned_abs(),
        };
        stage.now.wall = shift(stage.now.wall, before);
        stage.wait(Duration::from_secs(120));
        assert!(
            stage.notifies.iter().all(|notify| state_of(notify).starts_with("active")),
            "{before}: a running process notices nothing"
        );
        stage.wall_at_next_start = Some(shift(stage.now.wall + Duration::from_secs(5), after));
        goes_on(stage.killed_and_started_again(Duration::from_secs(5)), &call_id);
    }
}

#[test]
fn after_a_restart_a_watcher_is_told_no_longer_life_of_its_dialog_than_was_granted() {
    for (refreshed, down, left) in [(false, 5, 595), (true, 5, 595), (false, 570, 30), (false, 900, 60)] {
        let mut stage = Stage::new();
        let peer = phone_of(ROMEO, "a");
        stage.subscribe(&peer, ROMEO, JULIET, "w", "Expires: 600\r\n");
        let response = stage.response();
        stage.presence(JULIET, ROMEO, "subscribed", "");
        if refreshed {
            stage.wait(Duration::from_secs(300));
            stage.resubscribe(&peer, &response, 2, 600);
            assert_eq!(stage.status(), 200);
        }
        stage.settle_store(true);
        stage.notifies.clear();
        let mut again = stage.killed_and_started_again(Duration::from_secs(down));
        again.wait(Duration::from_secs(1));
        let state = state_of(&again.notify());
        let said: u64 =
            state.strip_prefix("active;expires=").and_then(|said| said.parse().ok()).expect("active");
        assert!((left - 2..=left).contains(&said), "refreshed {refreshed}, down {down} s: {said}");
    }
}

#[test]
fn after_another_boot_with_a_wall_clock_that_went_back_dialogs_are_refreshed_and_481_decides() {
    let (mut stage, call_id) = watched_both_ways();
    stage.wall_at_next_start = Some(stage.now.wall - HOUR * 24);
    stage.boot = None;
    goes_on(stage.killed_and_started_again(Duration::from_secs(5)), &call_id);
}

#[test]
fn a_dialog_that_ran_out_since_its_row_was_stored_is_refreshed_since_it_may_have_been_prolonged() {
    let mut stage = Stage::new();
    let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
    let mut again = stage.killed_and_started_again(HOUR * 2);
    again.stanzas.clear();
    again.wait_for_request(Duration::from_secs(21));
    let refresh = again.answer(481, "");
    assert_eq!(refresh.call_id, draft.call_id, "in the dialog");
    again.wait_for_request(Duration::from_secs(1));
    let (_, _, anew) = again.requests.front().expect("a new one");
    assert_ne!(anew.call_id, draft.call_id);
    assert!(again.stanzas.is_empty(), "nobody is told anything: {:?}", again.stanzas);
}
