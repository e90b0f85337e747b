//! An XMPP user watches a SIP user: behind a front end (RFC 8048 §5.2), and at the built-in home.

use std::time::Duration;

use tombolo_policy::{Approve, PartnerKind};

use super::stage::*;
use crate::owner::Input;

#[test]
fn stox_p_01_subscribe_becomes_one_subscribe_request() {
    let mut stage = Stage::new();
    stage.presence("juliet@xmpp.example/balcony", BENVOLIO, "subscribe", "");
    let (peer, _, draft) = stage.requests.front().expect("a request");
    assert_eq!(*peer, front_end());
    assert_eq!((draft.method, draft.uri.as_str(), draft.cseq), ("SUBSCRIBE", "sip:benvolio@corp.example", 1));
    assert!(draft.from.starts_with("<sip:juliet@xmpp.example>;tag="), "{}", draft.from);
    assert_eq!(draft.to, "<sip:benvolio@corp.example>");
    assert!(draft.contact_user.is_some());
    let header =
        |name| draft.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
    assert_eq!(header("Event"), Some("presence"));
    assert!(header("Accept").is_some_and(|accept| accept.contains("application/pidf+xml")));
    assert!(header("Expires").is_some_and(|expires| expires.parse::<u32>().is_ok_and(|e| e > 0)));
    let text = String::from_utf8(draft.render("SIP/2.0/TCP h;branch=b", "h")).expect("UTF-8");
    assert!(text.contains("\r\nMax-Forwards: 70\r\n"));
    stage.presence(JULIET, BENVOLIO, "subscribe", "");
    assert_eq!(stage.requests.len(), 1, "a second subscribe makes no second dialog");
}

#[test]
fn stox_p_02_a_200_alone_says_nothing_to_xmpp() {
    let mut stage = Stage::new();
    stage.presence(JULIET, BENVOLIO, "subscribe", "");
    stage.answer(200, "Expires: 3600\r\n");
    assert!(stage.is_silent());
}

#[test]
fn stox_p_03_a_pending_notify_is_answered_and_says_nothing() {
    let mut stage = Stage::new();
    stage.presence(JULIET, BENVOLIO, "subscribe", "");
    let draft = stage.answer(200, "Expires: 3600\r\n");
    assert_eq!(stage.front_end_notifies(&draft, 1, "pending;expires=600", &pidf("open", "")), 200);
    assert!(stage.is_silent());
}

#[test]
fn stox_p_04_the_first_active_notify_grants_once_and_before_the_presence() {
    let mut stage = Stage::new();
    let draft = stage.juliet_watches_benvolio(&pidf("open", "<show xmlns='jabber:client'>away</show>"));
    assert_eq!(
        stage.stanza(),
        "<presence from='benvolio@corp.example' to='juliet@xmpp.example' type='subscribed'/>"
    );
    assert_eq!(
        stage.stanza(),
        "<presence from='benvolio@corp.example/desk' to='juliet@xmpp.example'><show>away</show></presence>"
    );
    for cseq in 2..5 {
        stage.front_end_notifies(&draft, cseq, "active;expires=3600", &pidf("open", ""));
    }
    assert!(stage.stanzas.iter().all(|stanza| !stanza.contains("subscribed")));
}

#[test]
fn stox_p_05_a_first_notify_without_body_says_unavailable_at_most() {
    let mut stage = Stage::new();
    stage.juliet_watches_benvolio("");
    assert!(stage.stanza().contains("type='subscribed'"));
    assert_eq!(
        stage.stanza(),
        "<presence from='benvolio@corp.example' to='juliet@xmpp.example' type='unavailable'/>"
    );
    assert!(stage.is_silent());
    let mut stage = Stage::new();
    let two = pidf("open", "").replace(
        "</presence>",
        "<tuple id='ID-phone'><status><basic>open</basic></status></tuple></presence>",
    );
    stage.juliet_watches_benvolio(&two);
    stage.stanza();
    assert!(stage.stanza().contains("benvolio@corp.example/desk"));
    assert!(stage.stanza().contains("benvolio@corp.example/phone"));
}

#[test]
fn stox_p_06_the_dialog_is_refreshed_in_time() {
    let mut stage = Stage::new();
    stage.presence(JULIET, BENVOLIO, "subscribe", "");
    let draft = stage.answer(200, "Expires: 60\r\n");
    stage.front_end_notifies(&draft, 1, "active;expires=60", &pidf("open", ""));
    stage.wait(Duration::from_secs(59));
    let (_, _, refresh) = stage.requests.front().expect("a refresh before 60 s");
    assert_eq!(refresh.cseq, draft.cseq + 1);
    assert_eq!((&refresh.from, &refresh.call_id), (&draft.from, &draft.call_id));
    assert!(refresh.to.ends_with(";tag=pstag"));
}

#[test]
fn stox_p_07_a_probe_starts_a_dialog_that_is_missing() {
    let mut stage = Stage::new();
    let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
    stage.front_end_notifies(&draft, 2, "terminated;reason=giveup;retry-after=3600", "");
    stage.stanzas.clear();
    stage.presence(JULIET, BENVOLIO, "probe", "");
    let (_, _, again) = stage.requests.front().expect("a SUBSCRIBE leaves");
    assert_ne!(again.call_id, draft.call_id);
}

#[test]
fn stox_p_10_403_489_and_603_cancel_for_good() {
    for status in [403, 489, 603] {
        let mut stage = Stage::new();
        stage.presence(JULIET, BENVOLIO, "subscribe", "");
        stage.answer(status, "");
        assert_eq!(
            stage.stanza(),
            "<presence from='benvolio@corp.example' to='juliet@xmpp.example' type='unsubscribed'/>",
            "{status} to the first"
        );
        stage.wait(Duration::from_secs(7200));
        assert!(stage.requests.is_empty(), "{status}: it is forgotten");
        let mut stage = Stage::new();
        let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
        stage.stanzas.clear();
        stage.wait_for_request(Duration::from_secs(3600));
        stage.answer(status, "");
        assert!(stage.stanza().contains("type='unavailable'"));
        assert!(stage.stanza().contains("type='unsubscribed'"), "{status} to a refresh of {}", draft.call_id);
    }
}

#[test]
fn stox_p_11_423_and_481_are_passing_troubles() {
    let mut stage = Stage::new();
    stage.presence(JULIET, BENVOLIO, "subscribe", "");
    stage.answer(423, "Min-Expires: 40000\r\n");
    let again = stage.answer(200, "Expires: 40000\r\n");
    assert!(again.headers.iter().any(|(name, value)| *name == "Expires" && value == "40000"));
    stage.front_end_notifies(&again, 1, "active;expires=600", &pidf("open", ""));
    stage.stanzas.clear();
    stage.wait_for_request(Duration::from_secs(600));
    stage.answer(481, "");
    stage.wait(Duration::from_secs(60));
    let (_, _, fresh) = stage.requests.front().expect("a new dialog");
    assert_ne!((&fresh.call_id, &fresh.from), (&again.call_id, &again.from));
    assert!(stage.stanzas.iter().all(|stanza| !stanza.contains("unsubscribed")));
}

#[test]
fn stox_p_12_other_failures_are_told_once_and_tried_again_ever_later() {
    for status in [480, 500, 503] {
        let mut stage = Stage::new();
        stage.presence(JULIET, BENVOLIO, "subscribe", "");
        stage.answer(status, "");
        assert!(stage.stanza().contains("type='error'"), "{status}");
        let mut waits = Vec::new();
        for _ in 0..5 {
            let before = stage.now;
            while stage.requests.is_empty() {
                stage.wait(Duration::from_secs(1));
            }
            waits.push(stage.now.instant - before.instant);
            stage.answer(status, "");
        }
        assert!(stage.stanzas.is_empty(), "{status} is told once");
        assert!(waits[4] > waits[0] * 4, "{waits:?}");
    }
    let mut stage = Stage::new();
    stage.presence(JULIET, BENVOLIO, "subscribe", "");
    stage.time_out();
    assert!(stage.stanza().contains("remote-server-timeout"));
}

#[test]
fn stox_e_09_a_subscription_toward_a_front_end_that_is_down_is_told_so() {
    let told = |end: fn(&mut Stage)| {
        let mut stage = Stage::new();
        stage.presence(JULIET, BENVOLIO, "subscribe", "");
        end(&mut stage);
        stage.stanza()
    };
    let down = told(|stage| drop(stage.break_off()));
    assert!(down.contains("<error type='wait'><remote-server-timeout "), "{down}");
    assert!(down.contains(">the user's server cannot be reached</text>"), "{down}");
    let silent = told(|stage| drop(stage.time_out()));
    assert!(silent.contains(">the user's server did not answer in time</text>"), "{silent}");
    let refused = told(|stage| drop(stage.answer(503, "")));
    assert!(refused.contains("<internal-server-error "), "{refused}");
    assert!(
        refused.contains(">the SIP side refused the subscription: 503 Service Unavailable</text>"),
        "{refused}"
    );
}

#[test]
fn stox_p_14_each_reason_of_an_end_has_its_effect() {
    for (reason, is_cancelled, comes_back) in [
        ("rejected", true, false),
        ("noresource", true, false),
        ("deactivated", false, true),
        ("timeout", false, true),
        ("probation;retry-after=20", false, true),
        ("giveup;retry-after=20", false, true),
        ("invariant", false, false),
        ("something-new", false, true),
    ] {
        let mut stage = Stage::new();
        let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
        stage.stanzas.clear();
        stage.front_end_notifies(&draft, 2, &format!("terminated;reason={reason}"), "");
        let is_told = stage.stanzas.iter().any(|stanza| stanza.contains("type='unsubscribed'"));
        assert_eq!(is_told, is_cancelled, "{reason}");
        stage.wait(Duration::from_secs(120));
        assert_eq!(!stage.requests.is_empty(), comes_back, "{reason}");
    }
}

#[test]
fn stox_p_15_stox_p_16_unsubscribe_ends_the_dialog_in_order() {
    let mut stage = Stage::new();
    let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
    stage.stanzas.clear();
    stage.presence(JULIET, BENVOLIO, "unsubscribe", "");
    assert!(stage.stanza().contains("type='unavailable'"), "XP-16: unavailable goes first");
    assert!(stage.stanza().contains("type='unsubscribed'"));
    let last = stage.answer(200, "Expires: 0\r\n");
    assert!(last.headers.iter().any(|(name, value)| *name == "Expires" && value == "0"));
    assert_eq!(last.call_id, draft.call_id);
    // D-01: the final NOTIFY is the notifier's; it is awaited and answered.
    assert_eq!(stage.front_end_notifies(&draft, 2, "terminated;reason=timeout", ""), 200);
    assert!(stage.notifies.is_empty(), "the subscriber never notifies");
    stage.wait(Duration::from_secs(7200));
    assert!(stage.is_silent());
}

#[test]
fn stox_p_17_unsubscribe_without_a_dialog_needs_no_request() {
    let mut stage = Stage::new();
    stage.juliet_watches_romeo();
    stage.presence(JULIET, ROMEO, "unsubscribe", "");
    assert!(stage.requests.is_empty());
    assert!(stage.stanzas.iter().any(|stanza| stanza.contains("type='unsubscribed'")));
}

#[test]
fn stox_p_18_ending_one_direction_leaves_the_other() {
    let mut stage = Stage::new();
    stage.juliet_watches_romeo();
    stage.romeo_watches_juliet("a");
    stage.presence(JULIET, ROMEO, "unsubscribe", "");
    stage.stanzas.clear();
    stage.presence("juliet@xmpp.example/b", ROMEO, "", "<show>dnd</show>");
    assert!(body_of(&stage.notify()).contains("dnd"));
    stage.publish(ROMEO, "open", "away", "");
    assert!(stage.stanzas.is_empty(), "juliet does not watch any more");
}

#[test]
fn stox_p_19_a_second_subscribe_is_answered_with_the_state() {
    let mut stage = Stage::new();
    stage.publish(ROMEO, "open", "away", "");
    stage.juliet_watches_romeo();
    stage.presence(JULIET, ROMEO, "subscribe", "");
    let (first, second) = (stage.stanza(), stage.stanza());
    assert!(first.contains("type='subscribed'") && second.contains("<show>away</show>"), "{first} {second}");
}

#[test]
fn stox_p_20_probes_are_answered_from_what_is_known() {
    let mut stage = Stage::new();
    stage.juliet_watches_benvolio(&pidf("open", ""));
    stage.stanzas.clear();
    stage.is_connected = false;
    for _ in 0..100 {
        stage.presence(JULIET, BENVOLIO, "probe", "");
    }
    assert!(stage.requests.is_empty(), "a storm of probes makes no SUBSCRIBE");
    for lane in std::mem::take(&mut stage.wanting) {
        stage.input(Input::Credit { lane, bytes: 65_536 });
    }
    assert_eq!(stage.stanzas.len(), 1, "repeated probes merge");
}

#[test]
fn xp_05_xp_10_xp_12_nobody_sees_before_the_user_decides() {
    let mut stage = Stage::with(Approve::Ask, |_| {});
    stage.publish(ROMEO, "open", "", "");
    for _ in 0..100 {
        stage.presence(JULIET, ROMEO, "subscribe", "");
    }
    assert_eq!(stage.asked_to_decide, [(ROMEO.to_owned(), JULIET.to_owned())]);
    stage.publish(ROMEO, "open", "away", "");
    assert!(stage.stanzas.is_empty());
    let decision = |is_approved| Input::Decide { user: address(ROMEO), watcher: None, is_approved, asker: 1 };
    stage.input(decision(true));
    assert!(stage.stanza().contains("type='subscribed'"));
    assert!(stage.stanza().contains("romeo@sip.example/orchard"));
}

#[test]
fn a_refused_watcher_gets_unsubscribed_and_nothing_else() {
    let mut stage = Stage::with(Approve::Ask, |_| {});
    stage.publish(ROMEO, "open", "", "");
    stage.presence(JULIET, ROMEO, "subscribe", "");
    stage.input(Input::Decide {
        user: address(ROMEO),
        watcher: Some(address(JULIET)),
        is_approved: false,
        asker: 1,
    });
    assert_eq!(
        stage.stanza(),
        "<presence from='romeo@sip.example' to='juliet@xmpp.example' type='unsubscribed'/>"
    );
    stage.publish(ROMEO, "open", "away", "");
    assert!(stage.is_silent());
}

#[test]
fn a_public_provider_that_is_not_trusted_always_asks() {
    let mut stage = Stage::public(Approve::All, PartnerKind::PublicUnverified);
    stage.presence(JULIET, ROMEO, "subscribe", "");
    assert!(stage.stanzas.is_empty());
    assert_eq!(stage.asked_to_decide.len(), 1);
    let mut stage = Stage::public(Approve::Partner, PartnerKind::PublicVerified);
    stage.publish(ROMEO, "open", "", "secret note");
    stage.presence(JULIET, ROMEO, "subscribe", "");
    assert!(stage.stanza().contains("type='subscribed'"));
    assert!(!stage.stanza().contains("secret note"), "a public provider never sees the note");
}

#[test]
fn xp_13_xp_18_each_device_is_told_after_the_grant_and_only_to_watchers() {
    let mut stage = Stage::new();
    let two = "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:romeo@sip.example'>\
        <tuple id='ID-a'><status><basic>open</basic></status></tuple>\
        <tuple id='ID-b'><status><basic>open</basic></status></tuple></presence>";
    stage.publish_body(ROMEO, two, "");
    stage.presence(JULIET, ROMEO, "subscribe", "");
    stage.stanza();
    assert!(stage.stanza().contains("romeo@sip.example/a"));
    assert!(stage.stanza().contains("romeo@sip.example/b"));
    stage.romeo_watches_juliet("a");
    stage.presence(NURSE, ROMEO, "subscribed", "");
    stage.publish(ROMEO, "open", "away", "");
    assert!(stage.stanzas.iter().all(|stanza| !stanza.contains("nurse")), "who is watched does not watch");
}

#[test]
fn xp_21_a_stranger_and_an_unknown_user_are_answered_alike() {
    let mut stage = Stage::new();
    stage.presence(JULIET, ROMEO, "probe", "");
    let known = stage.stanza().replace(ROMEO, "X");
    stage.presence(JULIET, "nobody@sip.example", "probe", "");
    let unknown = stage.stanza().replace("nobody@sip.example", "X");
    assert_eq!(known, unknown);
    assert!(known.contains("type='unsubscribed'"));
}

#[test]
fn xp_20_a_probe_of_somebody_offline_gets_one_bare_unavailable() {
    let mut stage = Stage::new();
    stage.juliet_watches_romeo();
    stage.presence(JULIET, ROMEO, "probe", "");
    assert_eq!(
        stage.stanza(),
        "<presence from='romeo@sip.example' to='juliet@xmpp.example' type='unavailable'/>"
    );
}

#[test]
fn xp_31_presence_for_an_unknown_user_is_ignored_silently() {
    let mut stage = Stage::new();
    for kind in ["", "unavailable", "subscribe", "subscribed", "unsubscribe", "unsubscribed", "error"] {
        stage.presence(JULIET, "nobody@sip.example", kind, "");
        assert!(stage.is_silent(), "{kind:?}");
    }
}

#[test]
fn xp_35_after_the_final_stanza_nothing_of_the_pair_leaves() {
    let mut stage = Stage::new();
    stage.juliet_watches_romeo();
    stage.is_connected = false;
    for n in 0..100 {
        stage.publish(ROMEO, "open", if n % 2 == 0 { "away" } else { "dnd" }, "");
    }
    stage.presence(JULIET, ROMEO, "unsubscribe", "");
    stage.is_connected = true;
    for lane in std::mem::take(&mut stage.wanting) {
        stage.input(Input::Credit { lane, bytes: 65_536 });
    }
    let last = stage.stanzas.back().expect("something left").clone();
    assert!(last.contains("type='unsubscribed'"), "{:?}", stage.stanzas);
    assert!(stage.stanzas.len() <= 2, "{:?}", stage.stanzas);
}

#[test]
fn xp_09_a_resource_in_to_is_dropped_and_answers_are_bare() {
    let mut stage = Stage::new();
    stage.presence("juliet@xmpp.example/balcony", "romeo@sip.example/orchard", "subscribe", "");
    assert_eq!(
        stage.stanza(),
        "<presence from='romeo@sip.example' to='juliet@xmpp.example' type='subscribed'/>"
    );
}

#[test]
fn stox_p_53_states_go_to_the_bare_watcher_from_the_device() {
    let mut stage = Stage::new();
    stage.juliet_watches_romeo();
    stage.publish(ROMEO, "open", "", "");
    assert_eq!(stage.stanza(), "<presence from='romeo@sip.example/orchard' to='juliet@xmpp.example'/>");
}

#[test]
fn held_until_durable_nothing_is_said_before_the_row_is_stored() {
    let mut stage = Stage::new();
    stage.stores_at_once = false;
    stage.presence(JULIET, ROMEO, "subscribe", "");
    assert!(stage.is_silent(), "subscribed waits for the disk");
    stage.settle_store(true);
    assert!(stage.stanza().contains("type='subscribed'"));
    stage.presence(NURSE, ROMEO, "subscribe", "");
    stage.settle_store(false);
    let about_nurse = stage.stanzas.iter().filter(|stanza| stanza.contains("nurse")).collect::<Vec<_>>();
    assert!(
        matches!(&about_nurse[..], [error] if error.contains("<resource-constraint ")),
        "a failed commit grants nothing, and she is told: {about_nurse:?}"
    );
}

#[test]
fn xs_adr_06_a_burst_takes_effect_in_its_order_while_its_rows_are_being_stored() {
    for len in 1..=8 {
        let mut stage = Stage::new();
        stage.stores_at_once = false;
        let kinds: Vec<&str> = ["subscribe", "unsubscribe"].into_iter().cycle().take(len).collect();
        for kind in &kinds {
            stage.presence(JULIET, ROMEO, kind, "");
        }
        for _ in 0..len {
            stage.settle_store(true);
        }
        let last = stage.stanzas.iter().rev().find(|stanza| stanza.contains("subscribed'"));
        let expected = format!("type='{}d'", kinds[len - 1]);
        assert!(last.is_some_and(|last| last.contains(&expected)), "{len}: {:?}", stage.stanzas);
    }
}

#[test]
fn who_waits_for_the_user_is_counted_over_answers_withdrawals_and_a_restart() {
    let mut stage = Stage::with(Approve::Ask, |_| {});
    let watcher = |n: usize| format!("u{n}@xmpp.example");
    let refusal = |stage: &mut Stage, n: usize| {
        stage.stanzas.clear();
        stage.presence(&watcher(n), ROMEO, "subscribe", "");
        stage.stanzas.iter().any(|stanza| stanza.contains("resource-constraint"))
    };
    for n in 0..1000 {
        assert!(!refusal(&mut stage, n), "{n}");
    }
    assert!(refusal(&mut stage, 1000));
    stage.presence(&watcher(0), ROMEO, "unsubscribe", "");
    assert!(!refusal(&mut stage, 1001), "a request that was withdrawn makes room");
    assert!(refusal(&mut stage, 1002));
    let user = address(ROMEO);
    for (n, is_approved) in [(1, true), (2, false)] {
        let watcher = Some(address(&watcher(n)));
        stage.input(Input::Decide { user: user.clone(), watcher, is_approved, asker: 1 });
    }
    assert!(!refusal(&mut stage, 1003) && !refusal(&mut stage, 1004), "so do answers");
    assert!(refusal(&mut stage, 1005));
    let mut again = stage.killed_and_started_again(Duration::from_secs(1));
    assert!(refusal(&mut again, 1006), "those who waited wait again");
}
