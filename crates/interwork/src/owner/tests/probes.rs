//! Probes of a user behind a front end without a live dialog (STOX-P-20, STOX-P-21).

use std::time::Duration;

use super::stage::*;
use crate::request::RequestDraft;

fn expires(draft: &RequestDraft) -> &str {
    draft.headers.iter().find(|(name, _)| *name == "Expires").map_or("", |(_, value)| value)
}

/// Juliet may see Benvolio, and the front end ended the dialog.
fn without_dialog(state: &str) -> Stage {
    let mut stage = Stage::new();
    let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
    stage.front_end_notifies(&draft, 2, state, "");
    stage.stanzas.clear();
    stage
}

const AWAY: &str = "<show xmlns='jabber:client'>away</show>";

#[test]
fn stox_p_20_stox_p_21_a_probe_asks_once_and_the_last_notify_is_its_answer() {
    let mut stage = without_dialog("terminated;reason=giveup;retry-after=3600");
    for _ in 0..10 {
        stage.presence(JULIET, BENVOLIO, "probe", "");
    }
    assert_eq!(stage.requests.len(), 1, "repeated probes are one question");
    assert_eq!(expires(&stage.requests[0].2), "0");
    let draft = stage.answer(200, "Expires: 0\r\n");
    assert_eq!(stage.front_end_notifies(&draft, 1, "terminated;reason=timeout", &pidf("open", AWAY)), 200);
    let stanza = stage.stanza();
    assert!(stanza.contains("<show>away</show>") && stage.stanzas.is_empty(), "{stanza}");
    assert!(stage.requests.is_empty(), "it was asked once");
    // What was to follow an hour later still does.
    stage.wait_for_request(Duration::from_secs(4000));
    assert_ne!(expires(&stage.requests.front().expect("a SUBSCRIBE").2), "0");
}

#[test]
fn an_unchanged_state_and_none_at_all_answer_a_probe_too() {
    for body in [pidf("open", ""), String::new()] {
        let mut stage = without_dialog("terminated;reason=giveup;retry-after=3600");
        stage.presence(JULIET, BENVOLIO, "probe", "");
        let draft = stage.answer(200, "");
        stage.front_end_notifies(&draft, 1, "terminated;reason=timeout", &body);
        assert!(stage.stanza().contains("from='benvolio@corp.example/desk'"), "{body}");
    }
}

#[test]
fn a_probe_behind_an_invariant_end_makes_no_lasting_subscription() {
    let mut stage = without_dialog("terminated;reason=invariant");
    for round in 0..2 {
        stage.presence(JULIET, BENVOLIO, "probe", "");
        assert_eq!(expires(&stage.requests[0].2), "0", "{round}");
        let draft = stage.answer(200, "");
        // Some send the state before the end.
        stage.front_end_notifies(&draft, 1, "active;expires=0", &pidf("open", AWAY));
        stage.front_end_notifies(&draft, 2, "terminated;reason=timeout", "");
        assert!(stage.stanzas.iter().any(|stanza| stanza.contains("<show>away</show>")), "{round}");
        stage.stanzas.clear();
        stage.wait(Duration::from_secs(7200));
        assert!(stage.requests.is_empty(), "{round}");
    }
    assert!(stage.rows.iter().all(|((_, table, _), _)| *table != crate::rows::table::SUBSCRIBER));
}

#[test]
fn a_question_without_an_answer_leaves_the_user_unknown_and_is_not_repeated() {
    for fails in [404, 480, 503, 0] {
        let mut stage = without_dialog("terminated;reason=invariant");
        stage.presence(JULIET, BENVOLIO, "probe", "");
        if fails == 0 {
            stage.answer(200, "");
            stage.wait(Duration::from_secs(60));
        } else {
            stage.answer(fails, "");
        }
        assert!(stage.stanza().contains("type='unavailable'"), "{fails}");
        stage.wait(Duration::from_secs(7200));
        assert!(stage.requests.is_empty(), "{fails}");
    }
}

#[test]
fn a_subscription_that_is_wanted_during_a_question_follows_it() {
    let mut stage = without_dialog("terminated;reason=invariant");
    stage.presence(JULIET, BENVOLIO, "probe", "");
    stage.presence(JULIET, BENVOLIO, "unsubscribe", "");
    stage.presence(JULIET, BENVOLIO, "subscribe", "");
    let draft = stage.answer(200, "");
    stage.front_end_notifies(&draft, 1, "terminated;reason=timeout", &pidf("open", ""));
    stage.wait_for_request(Duration::from_secs(60));
    assert_ne!(expires(&stage.requests.front().expect("a SUBSCRIBE").2), "0");
}

#[test]
fn the_body_of_a_notify_that_ends_a_dialog_is_shown() {
    for reason in ["deactivated", "timeout", "giveup", "probation", "invariant"] {
        let mut stage = Stage::new();
        let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
        stage.stanzas.clear();
        stage.front_end_notifies(&draft, 2, &format!("terminated;reason={reason}"), &pidf("open", AWAY));
        assert!(stage.stanza().contains("<show>away</show>"), "{reason}");
    }
    let mut stage = Stage::new();
    let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
    stage.stanzas.clear();
    stage.front_end_notifies(&draft, 2, "terminated;reason=rejected", &pidf("open", AWAY));
    assert!(stage.stanzas.iter().all(|stanza| !stanza.contains("away")), "not to whom may see nothing more");
}
