//! A SIP user watches an XMPP user (RFC 8048 §5.3), from a phone or by way of a front end.

use std::time::Duration;

use tombolo_policy::Approve;

use super::stage::*;
use crate::{
    owner::{Input, LaneKey, NotifyAnswer, PeerKey},
    token::{Token, TokenKey, TokenKind},
};

fn session() -> LaneKey {
    LaneKey::Session { local: domain(HOME), remote: domain("xmpp.example"), number: 0 }
}

#[test]
fn stox_p_24_stox_p_25_subscribe_is_answered_at_once_and_pending_is_notified() {
    let mut stage = Stage::new();
    stage.is_connected = false;
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c1", "Expires: 600\r\n");
    let response = stage.response();
    assert_eq!(response.status(), Some(200));
    assert!(response.to().expect("To").tag().is_some());
    assert_eq!(response.expires(), Some(600));
    let contact = response.contacts().next().expect("a Contact").expect("legal");
    assert_eq!(Some(contact.uri.user().expect("a user")), response.to().expect("To").tag());
    let notify = stage.notify();
    assert_eq!(state_of(&notify), "pending;expires=600");
    assert!(notify.body().is_empty());
    assert_eq!(notify.from().expect("From").tag(), response.to().expect("To").tag());
    assert_eq!(notify.request_uri_text(), "sip:romeo@sip.example;gr=x");
    stage.is_connected = true;
    stage.input(Input::Credit { lane: session(), bytes: 65_536 });
    assert_eq!(
        stage.stanza(),
        "<presence from='romeo@sip.example' to='juliet@xmpp.example' type='subscribe'/>"
    );
}

#[test]
fn stox_p_26_the_grant_makes_the_subscription_active() {
    let mut stage = Stage::new();
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c1", "");
    stage.notifies.clear();
    stage.presence(JULIET, ROMEO, "subscribed", "");
    let notify = stage.notify();
    assert!(state_of(&notify).starts_with("active;expires="), "{}", state_of(&notify));
    stage.presence("juliet@xmpp.example/balcony", ROMEO, "", "<show>away</show>");
    let body = body_of(&stage.notify());
    assert!(
        body.contains("ID-balcony") && body.contains("<basic>open</basic>") && body.contains("away"),
        "{body}"
    );
}

#[test]
fn stox_p_27_a_refusal_ends_the_dialog_as_rejected_and_a_later_subscribe_asks_again() {
    let mut stage = Stage::new();
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c1", "");
    let response = stage.response();
    stage.notifies.clear();
    stage.presence(JULIET, ROMEO, "unsubscribed", "");
    let notify = stage.notify();
    assert_eq!(state_of(&notify), "terminated;reason=rejected");
    assert!(notify.body().is_empty());
    stage.resubscribe(&phone_of(ROMEO, "a"), &response, 2, 600);
    assert_eq!(stage.status(), 481, "the dialog is gone");
    stage.stanzas.clear();
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c2", "");
    assert!(stage.stanza().contains("type='subscribe'"));
}

#[test]
fn stox_p_28_a_watcher_that_is_authorized_sees_at_once_and_nobody_is_asked() {
    let mut stage = Stage::new();
    stage.romeo_watches_juliet("a");
    stage.presence("juliet@xmpp.example/balcony", ROMEO, "", "");
    stage.notifies.clear();
    stage.subscribe(&phone_of(ROMEO, "b"), ROMEO, JULIET, "c2", "");
    let notify = stage.notify();
    assert!(state_of(&notify).starts_with("active"));
    assert!(body_of(&notify).contains("ID-balcony"));
    assert!(stage.stanzas.is_empty());
}

#[test]
fn stox_p_29_no_expires_means_an_hour_and_more_is_cut() {
    for (more, granted) in [("", 3600), ("Expires: 99999\r\n", 3600), ("Expires: 1000\r\n", 1000)] {
        let mut stage = Stage::new();
        stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c1", more);
        assert_eq!(stage.response().expires(), Some(granted), "{more:?}");
    }
}

#[test]
fn sip_e_16_an_interval_below_the_least_is_too_brief() {
    let mut stage = Stage::new();
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c1", "Expires: 10\r\n");
    let response = stage.response();
    assert_eq!((response.status(), response.min_expires()), (Some(423), Some(60)));
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c2", "Expires: 1000000000000\r\n");
    assert_eq!(stage.response().expires(), Some(3600));
}

#[test]
fn stox_p_30_a_refresh_is_notified_with_what_is_known_and_asks_nobody() {
    let mut stage = Stage::new();
    let response = stage.romeo_watches_juliet("a");
    stage.resubscribe(&phone_of(ROMEO, "a"), &response, 2, 600);
    assert_eq!(stage.status(), 200);
    assert!(stage.notify().body().is_empty(), "nothing is known yet");
    stage.presence("juliet@xmpp.example/balcony", ROMEO, "", "");
    stage.notifies.clear();
    stage.resubscribe(&phone_of(ROMEO, "a"), &response, 3, 600);
    assert_eq!(stage.status(), 200);
    assert!(body_of(&stage.notify()).contains("ID-balcony"));
    assert!(stage.stanzas.iter().all(|stanza| !stanza.contains("subscribe'")));
}

#[test]
fn stox_p_31_expires_0_ends_the_watch_and_keeps_the_authorization() {
    let mut stage = Stage::new();
    let response = stage.romeo_watches_juliet("a");
    stage.presence("juliet@xmpp.example/balcony", ROMEO, "", "");
    stage.notifies.clear();
    stage.resubscribe(&phone_of(ROMEO, "a"), &response, 2, 0);
    let answer = stage.response();
    assert_eq!((answer.status(), answer.expires()), (Some(200), Some(0)));
    let notify = stage.notify();
    assert_eq!(state_of(&notify), "terminated;reason=timeout");
    assert!(body_of(&notify).contains("<basic>closed</basic>"));
    assert_eq!(
        stage.stanza(),
        "<presence from='romeo@sip.example' to='juliet@xmpp.example' type='unavailable'/>"
    );
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c9", "");
    assert!(state_of(&stage.notify()).starts_with("active"));
}

#[test]
fn stox_p_32_a_contact_who_watches_too_keeps_the_true_state() {
    let mut stage = Stage::new();
    stage.publish(ROMEO, "open", "", "");
    stage.juliet_watches_romeo();
    let response = stage.romeo_watches_juliet("a");
    stage.resubscribe(&phone_of(ROMEO, "a"), &response, 2, 0);
    assert!(stage.stanzas.is_empty(), "{:?}", stage.stanzas);
}

#[test]
fn stox_p_33_a_watch_that_is_not_refreshed_ends_with_timeout() {
    let mut stage = Stage::new();
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c1", "Expires: 100\r\n");
    let response = stage.response();
    stage.presence(JULIET, ROMEO, "subscribed", "");
    stage.notifies.clear();
    stage.wait(Duration::from_secs(101));
    assert_eq!(state_of(&stage.notify()), "terminated;reason=timeout");
    stage.resubscribe(&phone_of(ROMEO, "a"), &response, 2, 600);
    assert_eq!(stage.status(), 481);
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c2", "");
    assert!(state_of(&stage.notify()).starts_with("active"), "the authorization stays");
}

#[test]
fn stox_p_34_a_poll_gets_what_is_known_and_probes_when_that_is_nothing() {
    let mut stage = Stage::new();
    let response = stage.romeo_watches_juliet("a");
    stage.resubscribe(&phone_of(ROMEO, "a"), &response, 2, 0);
    stage.stanzas.clear();
    stage.notifies.clear();
    stage.responses.clear();
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "p1", "Expires: 0\r\n");
    assert_eq!(stage.response().expires(), Some(0));
    let first = stage.answer(200, "");
    assert_eq!(first.method, "NOTIFY");
    assert!(first.headers.contains(&("Subscription-State", "terminated;reason=timeout".to_owned())));
    assert!(first.body.is_empty());
    assert!(stage.stanza().contains("type='probe'"));
    stage.presence("juliet@xmpp.example/balcony", ROMEO, "", "");
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "p2", "Expires: 0\r\n");
    let second = stage.answer(200, "");
    assert!(String::from_utf8_lossy(&second.body).contains("ID-balcony"));
}

#[test]
fn stox_p_35_a_strangers_poll_learns_nothing_and_asks_nobody() {
    let mut stage = Stage::new();
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "p1", "Expires: 0\r\n");
    assert_eq!(stage.status(), 200);
    let strange = stage.answer(200, "").body;
    assert!(String::from_utf8_lossy(&strange).contains("<basic>closed</basic>"));
    assert!(stage.stanzas.is_empty());
    assert!(stage.rows.is_empty(), "no row is made");
    // A watcher of a contact who is offline gets the same, octet by octet.
    let mut stage = Stage::new();
    stage.romeo_watches_juliet("a");
    stage.presence("juliet@xmpp.example/balcony", ROMEO, "", "<show>dnd</show>");
    stage.presence("juliet@xmpp.example/balcony", ROMEO, "unavailable", "<status>Gone</status>");
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "p1", "Expires: 0\r\n");
    assert_eq!(stage.answer(200, "").body, strange);
    // Nor does a colleague who waits for the user's word.
    let mut stage = Stage::with(Approve::Ask, |_| {});
    stage.publish(ROMEO, "open", "away", "");
    let (mercutio, phone) = ("mercutio@sip.example", phone_of("mercutio@sip.example", "m"));
    stage.subscribe(&phone, mercutio, ROMEO, "c1", "");
    assert!(state_of(&stage.notify()).starts_with("pending"));
    stage.subscribe(&phone, mercutio, ROMEO, "p1", "Expires: 0\r\n");
    let waiting = stage.answer(200, "").body;
    // Nor one whom the user let in, while the user is offline.
    let mut stage = Stage::with(Approve::All, |_| {});
    stage.subscribe(&phone, mercutio, ROMEO, "c1", "");
    assert!(state_of(&stage.notify()).starts_with("active"));
    stage.subscribe(&phone, mercutio, ROMEO, "p1", "Expires: 0\r\n");
    assert_eq!(stage.answer(200, "").body, waiting);
}

#[test]
fn stox_p_36_a_refused_request_ends_with_the_reason_of_its_condition() {
    for (condition, expected) in [
        ("item-not-found", "terminated;reason=noresource"),
        ("gone", "terminated;reason=noresource"),
        ("forbidden", "terminated;reason=rejected"),
        ("not-allowed", "terminated;reason=rejected"),
        ("policy-violation", "terminated;reason=rejected"),
        ("remote-server-not-found", "terminated;reason=probation;retry-after=120"),
        ("remote-server-timeout", "terminated;reason=probation;retry-after=120"),
        ("recipient-unavailable", "terminated;reason=probation;retry-after=120"),
        ("resource-constraint", "terminated;reason=probation;retry-after=120"),
        ("internal-server-error", "terminated;reason=probation;retry-after=120"),
    ] {
        let mut stage = Stage::new();
        stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c1", "");
        stage.notifies.clear();
        let error = format!(
            "<error type='cancel'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
        );
        stage.presence(JULIET, ROMEO, "error", &error);
        assert_eq!(state_of(&stage.notify()), expected, "{condition}");
    }
}

#[test]
fn stox_p_38_several_dialogs_share_one_authorization() {
    let mut stage = Stage::new();
    for instance in ["a", "b"] {
        stage.subscribe(&phone_of(ROMEO, instance), ROMEO, JULIET, instance, "");
    }
    let (first, second) = (stage.response(), stage.response());
    // What was said is taken as received by then.
    stage.wait(Duration::from_secs(60));
    stage.subscribe(&phone_of(ROMEO, "c"), ROMEO, JULIET, "c", "");
    let third = stage.response();
    assert_eq!(stage.stanzas.iter().filter(|stanza| stanza.contains("type='subscribe'")).count(), 1);
    stage.stanzas.clear();
    stage.notifies.clear();
    stage.presence(JULIET, ROMEO, "subscribed", "");
    assert_eq!(stage.notifies.len(), 3);
    stage.resubscribe(&phone_of(ROMEO, "a"), &first, 2, 0);
    stage.resubscribe(&phone_of(ROMEO, "c"), &third, 2, 0);
    assert!(stage.stanzas.is_empty(), "one still watches");
    stage.resubscribe(&phone_of(ROMEO, "b"), &second, 2, 0);
    assert!(stage.stanza().contains("type='unavailable'"));
}

#[test]
fn stox_p_39_a_partner_that_is_back_is_probed_for_open_watches() {
    let mut stage = Stage::new();
    stage.romeo_watches_juliet("a");
    stage.input(Input::PartnerReachable { lane: session(), is_reachable: false });
    stage.input(Input::PartnerReachable { lane: session(), is_reachable: true });
    assert_eq!(stage.stanza(), "<presence from='romeo@sip.example' to='juliet@xmpp.example' type='probe'/>");
}

#[test]
fn stox_p_62_a_lost_partner_is_not_closed_before_the_grace_and_then_once() {
    let mut stage = Stage::new();
    stage.romeo_watches_juliet("a");
    stage.presence("juliet@xmpp.example/balcony", ROMEO, "", "");
    stage.notifies.clear();
    stage.input(Input::PartnerReachable { lane: session(), is_reachable: false });
    stage.wait(Duration::from_secs(50));
    stage.input(Input::PartnerReachable { lane: session(), is_reachable: true });
    stage.presence("juliet@xmpp.example/balcony", ROMEO, "", "");
    stage.wait(Duration::from_secs(60));
    assert!(stage.notifies.is_empty(), "a short outage is not seen");
    stage.input(Input::PartnerReachable { lane: session(), is_reachable: false });
    stage.wait(Duration::from_secs(61));
    let notify = stage.notify();
    assert!(state_of(&notify).starts_with("active"));
    assert!(body_of(&notify).contains("<basic>closed</basic>") && body_of(&notify).contains("<note"));
    stage.wait(Duration::from_secs(600));
    assert!(stage.notifies.is_empty(), "once");
    stage.stanzas.clear();
    stage.input(Input::PartnerReachable { lane: session(), is_reachable: true });
    assert!(stage.stanza().contains("type='probe'"));
    stage.presence("juliet@xmpp.example/balcony", ROMEO, "", "");
    assert!(body_of(&stage.notify()).contains("<basic>open</basic>"));
}

#[test]
fn stox_a_19_sips_is_not_translated() {
    let mut stage = Stage::new();
    let text = "SUBSCRIBE sips:juliet@xmpp.example SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKs\r\n\
        From: <sip:romeo@sip.example>;tag=f\r\nTo: <sips:juliet@xmpp.example>\r\nCall-ID: s\r\nCSeq: 1 SUBSCRIBE\r\n\
        Contact: <sip:romeo@sip.example;gr=x>\r\nEvent: presence\r\n\r\n";
    stage.sip_says(&phone_of(ROMEO, "a"), ROMEO, text.to_owned());
    let response = stage.response();
    assert_eq!(response.status(), Some(480));
    assert!(response.all_rows().any(|(name, value)| name == "Warning" && value.starts_with("380")));
    assert!(stage.is_silent());
}

#[test]
fn stox_a_22_stox_a_25_unserved_domains_may_not_use_it() {
    let mut stage = Stage::new();
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, "x@other.example", "c1", "");
    assert_eq!(stage.status(), 403);
    assert!(stage.is_silent());
}

#[test]
fn stox_p_54_what_one_watcher_may_see_reaches_no_other() {
    let mut stage = Stage::new();
    stage.romeo_watches_juliet("a");
    stage.subscribe(&phone_of("mercutio@sip.example", "m"), "mercutio@sip.example", JULIET, "cm", "");
    stage.responses.clear();
    stage.notifies.clear();
    // Sent to romeo alone: juliet hides from mercutio.
    stage.presence("juliet@xmpp.example/balcony", ROMEO, "", "<status>for romeo</status>");
    assert_eq!(stage.notifies.len(), 1);
    assert_eq!(stage.notify().to().expect("To").uri.as_str(), "sip:romeo@sip.example");
    stage.presence(JULIET, "mercutio@sip.example", "subscribed", "");
    let notify = stage.notify();
    assert!(notify.body().is_empty(), "{}", body_of(&notify));
}

#[test]
fn an_xmpp_user_who_blocks_one_watcher_vanishes_for_that_one() {
    let mut stage = Stage::new();
    stage.romeo_watches_juliet("a");
    stage.subscribe(&phone_of("mercutio@sip.example", "m"), "mercutio@sip.example", JULIET, "cm", "");
    stage.presence(JULIET, "mercutio@sip.example", "subscribed", "");
    for user in [ROMEO, "mercutio@sip.example"] {
        stage.presence("juliet@xmpp.example/balcony", user, "", "");
    }
    stage.notifies.clear();
    stage.presence("juliet@xmpp.example/balcony", "mercutio@sip.example", "unavailable", "");
    assert_eq!(stage.notifies.len(), 1);
    let notify = stage.notify();
    assert_eq!(notify.to().expect("To").uri.as_str(), "sip:mercutio@sip.example");
    assert!(body_of(&notify).contains("closed"));
}

#[test]
fn xp_14_xp_30_unasked_grants_and_presence_of_strangers_are_ignored() {
    let mut stage = Stage::new();
    stage.presence(JULIET, ROMEO, "subscribed", "");
    stage.presence("juliet@xmpp.example/b", ROMEO, "", "");
    assert!(stage.is_silent());
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c1", "");
    assert!(state_of(&stage.notify()).starts_with("pending"));

    // Nor is more taken of one who watches the user.
    let mut stage = Stage::new();
    stage.juliet_watches_romeo();
    stage.presence(JULIET, ROMEO, "subscribed", "");
    stage.presence("juliet@xmpp.example/b", ROMEO, "", "");
    assert!(stage.is_silent());
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "p1", "Expires: 0\r\n");
    let polled = String::from_utf8(stage.answer(200, "").body.to_vec()).expect("text");
    assert!(polled.contains("<basic>closed</basic>") && !polled.contains("open"), "{polled}");
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c1", "");
    assert!(state_of(&stage.notify()).starts_with("pending"));
    stage.presence(JULIET, ROMEO, "subscribed", "");
    let notify = stage.notify();
    assert!(state_of(&notify).starts_with("active") && notify.body().is_empty(), "{}", body_of(&notify));
}

#[test]
fn what_changes_while_a_phone_is_away_reaches_it_when_it_is_back() {
    let mut stage = Stage::new();
    let phone = phone_of(ROMEO, "a");
    stage.romeo_watches_juliet("a");
    stage.goes_away(&phone);
    for show in ["away", "xa"] {
        stage.presence("juliet@xmpp.example/balcony", ROMEO, "", &format!("<show>{show}</show>"));
    }
    assert!(stage.notifies.is_empty());
    stage.comes_back(&phone);
    assert!(body_of(&stage.notify()).contains(">xa<"), "the newest state");
    assert!(stage.notifies.is_empty(), "and only that");
    stage.goes_away(&phone);
    stage.comes_back(&phone);
    assert!(stage.is_silent(), "it is owed nothing");
}

#[test]
fn sip_d_08_an_old_cseq_is_refused_and_a_gap_is_not() {
    let mut stage = Stage::new();
    let response = stage.romeo_watches_juliet("a");
    stage.resubscribe(&phone_of(ROMEO, "a"), &response, 70_000, 600);
    assert_eq!(stage.status(), 200);
    stage.resubscribe(&phone_of(ROMEO, "a"), &response, 5, 600);
    assert_eq!(stage.status(), 500);
}

#[test]
fn a_token_alone_opens_no_dialog() {
    let mut stage = Stage::new();
    let response = stage.romeo_watches_juliet("a");
    stage.resubscribe(&phone_of(ROMEO, "b"), &response, 2, 600);
    assert_eq!(stage.status(), 481, "another peer");
}

#[test]
fn sip_e_15_sip_e_18_other_packages_and_bodies_are_refused() {
    let mut stage = Stage::new();
    for (event, accept, status) in [
        ("Presence", "application/pidf+xml", 489),
        ("dialog", "application/pidf+xml", 489),
        ("presence", "text/x", 406),
        ("presence;id=7", "text/x, */*", 200),
    ] {
        let text = format!(
            "SUBSCRIBE sip:{JULIET} SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK{status}\r\n\
             From: <sip:{ROMEO}>;tag=f{status}\r\nTo: <sip:{JULIET}>\r\nCall-ID: e{event}\r\nCSeq: 1 SUBSCRIBE\r\n\
             Contact: <sip:{ROMEO};gr=x>\r\nEvent: {event}\r\nAccept: {accept}\r\n\r\n"
        );
        stage.sip_says(&phone_of(ROMEO, "a"), ROMEO, text);
        assert_eq!(stage.status(), status, "{event} {accept}");
    }
    let event = stage.notify().event().expect("legal").expect("there").id.map(ToOwned::to_owned);
    assert_eq!(event.as_deref(), Some("7"));
}

#[test]
fn sip_e_19_each_failure_of_a_notify_ends_the_watch_or_not() {
    for (status, is_gone) in
        [(404, true), (410, true), (481, true), (489, true), (604, true), (500, false), (486, false)]
    {
        let mut stage = Stage::new();
        let response = stage.romeo_watches_juliet("a");
        stage.answers_notify = Some(status);
        stage.presence("juliet@xmpp.example/b", ROMEO, "", "");
        stage.answers_notify = Some(200);
        stage.resubscribe(&phone_of(ROMEO, "a"), &response, 2, 600);
        assert_eq!(stage.status() == 481, is_gone, "{status}");
    }
    let mut stage = Stage::new();
    let response = stage.romeo_watches_juliet("a");
    stage.answers_notify = None;
    stage.presence("juliet@xmpp.example/b", ROMEO, "", "");
    stage.wait(Duration::from_secs(33));
    stage.resubscribe(&phone_of(ROMEO, "a"), &response, 2, 600);
    assert_eq!(stage.status(), 481, "timer F");
}

#[test]
fn sip_e_21_one_notify_is_in_flight_and_the_newest_state_follows() {
    let mut stage = Stage::new();
    stage.romeo_watches_juliet("a");
    stage.answers_notify = None;
    for show in ["away", "dnd", "xa", "chat"] {
        stage.presence("juliet@xmpp.example/b", ROMEO, "", &format!("<show>{show}</show>"));
    }
    let first = stage.notify();
    assert!(stage.notifies.is_empty(), "one in flight");
    stage.answers_notify = Some(200);
    let answer = stage.answer_to(&first).expect("an answer");
    stage.answer_comes(&[phone_of(ROMEO, "a")], answer);
    assert!(body_of(&stage.notify()).contains(">chat<"));
    assert!(stage.notifies.is_empty());
}

#[test]
fn an_answer_whose_mac_is_not_that_of_the_dialog_changes_nothing() {
    let mut stage = Stage::new();
    let response = stage.romeo_watches_juliet("a");
    stage.answers_notify = None;
    stage.presence("juliet@xmpp.example/b", ROMEO, "", "<show>away</show>");
    let notify = stage.notify();
    stage.answers_notify = Some(481);
    let right = stage.answer_to(&notify).expect("an answer");
    let other = Token { kind: TokenKind::Notifier, partition: right.partition, row: right.row + 1 };
    let forged = NotifyAnswer { mac: TokenKey::new(&[9; 32]).mac(other), ..right };
    stage.answer_comes(&[phone_of(ROMEO, "a")], forged);
    stage.resubscribe(&phone_of(ROMEO, "a"), &response, 2, 600);
    assert_eq!(stage.status(), 200);
    stage.answer_comes(&[phone_of(ROMEO, "a")], right);
    stage.resubscribe(&phone_of(ROMEO, "a"), &response, 3, 600);
    assert_eq!(stage.status(), 481);
}

#[test]
fn an_answer_by_a_flow_of_others_changes_nothing_though_they_know_the_branch() {
    let mut stage = Stage::new();
    let response = stage.romeo_watches_juliet("a");
    stage.answers_notify = None;
    stage.presence("juliet@xmpp.example/b", ROMEO, "", "<show>away</show>");
    let notify = stage.notify();
    stage.answers_notify = Some(481);
    let answer = stage.answer_to(&notify).expect("an answer");
    let front_end = PeerKey::FrontEnd(domain("corp.example"));
    let others = [phone_of("mercutio@sip.example", "a"), phone_of(ROMEO, "b"), front_end];
    stage.answer_comes(&others, answer);
    stage.resubscribe(&phone_of(ROMEO, "a"), &response, 2, 600);
    assert_eq!(stage.status(), 200);
    // Several lines of one telephone share a flow.
    stage.answer_comes(&[phone_of("mercutio@sip.example", "a"), phone_of(ROMEO, "a")], answer);
    stage.resubscribe(&phone_of(ROMEO, "a"), &response, 3, 600);
    assert_eq!(stage.status(), 481);
}

#[test]
fn an_untrusted_account_setting_never_lets_a_partner_in_unasked() {
    let mut stage = Stage::with(Approve::Ask, |_| {});
    stage.presence(JULIET, ROMEO, "subscribe", "");
    assert!(stage.stanzas.is_empty() && stage.asked_to_decide.len() == 1);
}
