//! What a state becomes on the other side, and when it is told (RFC 8048 §6, RFC 3856 §6).

use std::time::Duration;

use tombolo_policy::Approve;

use super::stage::*;
use crate::owner::{Input, Owner, OwnerSettings};

#[test]
fn stox_p_40_only_available_and_unavailable_become_notify() {
    let mut stage = Stage::new();
    stage.romeo_watches_juliet("a");
    for kind in ["subscribe", "probe", "error", "subscribed", "unsubscribe"] {
        stage.presence("juliet@xmpp.example/b", ROMEO, kind, "");
        assert!(stage.notifies.is_empty(), "{kind}");
    }
    for kind in ["", "unavailable"] {
        stage.presence("juliet@xmpp.example/b", ROMEO, kind, "");
        assert_eq!(stage.notifies.len(), 1, "{kind:?}");
        stage.notifies.clear();
    }
}

#[test]
fn a_tuple_without_a_name_that_can_be_a_resource_is_told_under_one_of_its_own() {
    let document = |ids: &[&str]| {
        let tuple = |id: &&str| format!("<tuple id='{id}'><status><basic>open</basic></status></tuple>");
        let tuples: String = ids.iter().map(tuple).collect();
        format!("<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:{BENVOLIO}'>{tuples}</presence>")
    };
    let long = "i".repeat(1100);
    for odd in ["", &long, "a\u{ad}\u{ffff0}b", "\u{200b}"] {
        let mut stage = Stage::new();
        let draft = stage.juliet_watches_benvolio(&document(&[odd, "ID-desk"]));
        let froms = |stage: &mut Stage| -> Vec<String> {
            let stanzas = stage.stanzas.drain(..).filter(|stanza| !stanza.contains("'subscribed'"));
            stanzas.map(|s| s.split('\'').nth(1).unwrap_or_default().to_owned()).collect()
        };
        let told = froms(&mut stage);
        assert_eq!(told.len(), 2, "{odd:?}: {told:?}");
        for from in &told {
            let jid = tombolo_xmpp::jid::Jid::parse(from).expect("a legal address");
            assert!(jid.resource().is_some(), "{odd:?}: {from:?}");
            assert_eq!(jid.to_string(), *from, "prepared");
        }
        // The same again says nothing new; without it that device alone is gone.
        stage.front_end_notifies(&draft, 2, "active;expires=3600", &document(&[odd, "ID-desk"]));
        assert!(stage.stanzas.is_empty(), "{odd:?}: {:?}", stage.stanzas);
        stage.front_end_notifies(&draft, 3, "active;expires=3600", &document(&["ID-desk"]));
        let gone = froms(&mut stage);
        assert_eq!(gone.len(), 1);
        assert!(told.contains(&gone[0]) && gone[0].contains('/'), "{odd:?}: {gone:?}");
    }
}

#[test]
fn stox_p_45_a_notify_without_body_leaves_the_state() {
    let mut stage = Stage::new();
    let draft = stage.juliet_watches_benvolio(&pidf("open", "<show xmlns='jabber:client'>dnd</show>"));
    stage.stanzas.clear();
    assert_eq!(stage.front_end_notifies(&draft, 2, "active;expires=600", ""), 200);
    assert!(stage.is_silent());
}

#[test]
fn stox_p_44_a_tuple_that_is_missing_later_is_unavailable() {
    let mut stage = Stage::new();
    let two = pidf("open", "").replace(
        "</presence>",
        "<tuple id='ID-phone'><status><basic>open</basic></status></tuple></presence>",
    );
    let draft = stage.juliet_watches_benvolio(&two);
    stage.stanzas.clear();
    stage.front_end_notifies(&draft, 2, "active;expires=600", &pidf("open", ""));
    assert_eq!(
        stage.stanza(),
        "<presence from='benvolio@corp.example/phone' to='juliet@xmpp.example' type='unavailable'/>"
    );
    assert!(stage.is_silent());
}

#[test]
fn stox_p_52_stox_p_60_a_broken_or_foreign_document_is_refused_and_the_state_kept() {
    let mut stage = Stage::new();
    let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
    stage.stanzas.clear();
    let forged = pidf("closed", "").replace("benvolio@", "tybalt@");
    let laughs = format!(
        "<!DOCTYPE lolz [<!ENTITY lol '{}'>]><presence xmlns='urn:ietf:params:xml:ns:pidf'>&lol;</presence>",
        "lol".repeat(100)
    );
    for (cseq, body) in [(2, forged.as_str()), (3, laughs.as_str()), (4, "<presence")] {
        assert_eq!(stage.front_end_notifies(&draft, cseq, "active;expires=600", body), 400, "{body}");
    }
    assert!(stage.is_silent());
    stage.presence(JULIET, BENVOLIO, "probe", "");
    assert!(!stage.stanza().contains("unavailable"), "the state is kept");
}

#[test]
fn stox_p_57_unchanged_state_is_not_told_again() {
    let mut stage = Stage::new();
    stage.romeo_watches_juliet("a");
    for _ in 0..3 {
        stage.presence("juliet@xmpp.example/b", ROMEO, "", "<show>away</show>");
    }
    assert_eq!(stage.notifies.len(), 1);
    stage.juliet_watches_romeo();
    for _ in 0..3 {
        stage.publish(ROMEO, "open", "away", "");
    }
    assert_eq!(stage.stanzas.len(), 1);
}

#[test]
fn stox_p_56_changes_are_merged_to_one_notify_in_five_seconds() {
    let mut stage = Stage::new();
    let mut settings = OwnerSettings::new(crate::token::TokenKey::new(&[9; 32]), 1, 42);
    settings.watcher_interval = Duration::from_secs(5);
    let mut owner = Owner::new(settings, table(|_| {}), stage.now);
    let accounts = [(address(ROMEO), Approve::Partner)].into();
    owner.handle(
        Input::Accounts(std::sync::Arc::new(crate::owner::Accounts { approve: accounts })),
        stage.now,
    );
    owner.handle(Input::PeerChanged { peer: phone_of(ROMEO, "a"), way: Some(way()) }, stage.now);
    stage.owner = owner;
    stage.romeo_watches_juliet("a");
    stage.presence("juliet@xmpp.example/b", ROMEO, "", "<status>0</status>");
    stage.notifies.clear();
    stage.wait(Duration::from_secs(10));
    for n in 1..=50 {
        stage.presence("juliet@xmpp.example/b", ROMEO, "", &format!("<status>{n}</status>"));
        stage.wait(Duration::from_millis(20));
    }
    assert_eq!(stage.notifies.len(), 1, "leading edge at once");
    assert!(body_of(&stage.notify()).contains(">1<"));
    stage.wait(Duration::from_secs(5));
    assert!(body_of(&stage.notify()).contains(">50<"), "trailing edge with the last state");
    assert!(stage.notifies.is_empty());
    // Ends and authorizations are not delayed.
    stage.presence("juliet@xmpp.example/b", ROMEO, "", "<status>51</status>");
    stage.wait(Duration::from_millis(20));
    stage.notifies.clear();
    stage.presence(JULIET, ROMEO, "unsubscribed", "");
    assert!(state_of(&stage.notify()).starts_with("terminated"));
}

#[test]
fn stox_p_61_xp_28_a_bare_unavailable_clears_every_device() {
    let mut stage = Stage::new();
    stage.romeo_watches_juliet("a");
    for device in ["a", "b"] {
        stage.presence(&format!("juliet@xmpp.example/{device}"), ROMEO, "", "");
    }
    stage.notifies.clear();
    stage.presence(JULIET, ROMEO, "unavailable", "");
    let body = body_of(&stage.notify());
    assert!(!body.contains("open") && body.contains("closed"), "{body}");
}

#[test]
fn stox_p_51_sip_p_06_the_document_names_the_presentity() {
    let mut stage = Stage::new();
    stage.romeo_watches_juliet("a");
    stage.presence("juliet@xmpp.example/b", ROMEO, "", "<priority>5</priority>");
    let notify = stage.notify();
    let body = body_of(&notify);
    assert!(
        body.contains("entity=\"pres:juliet@xmpp.example\"")
            || body.contains("entity='pres:juliet@xmpp.example'"),
        "{body}"
    );
    assert!(body.contains("sip:juliet@xmpp.example;gr=b"), "{body}");
    assert!(notify.content_type().expect("legal").expect("there").is("application", "pidf+xml"));
}

#[test]
fn stox_p_55_each_watcher_behind_a_front_end_has_a_dialog_of_its_own() {
    let mut stage = Stage::new();
    stage.presence(JULIET, BENVOLIO, "subscribe", "");
    stage.presence(NURSE, BENVOLIO, "subscribe", "");
    let from: Vec<&str> =
        stage.requests.iter().map(|(_, _, draft)| draft.from.split(';').next().unwrap_or("")).collect();
    assert_eq!(from, ["<sip:juliet@xmpp.example>", "<sip:nurse@xmpp.example>"]);
}

#[test]
fn stox_p_13_a_refresh_that_failed_ends_the_dialog_or_not() {
    for (status, is_dead) in
        [(404, true), (480, true), (481, true), (501, true), (604, true), (500, false), (486, false)]
    {
        let mut stage = Stage::new();
        stage.presence(JULIET, BENVOLIO, "subscribe", "");
        let draft = stage.answer(200, "Expires: 600\r\n");
        stage.front_end_notifies(&draft, 1, "active;expires=600", &pidf("open", ""));
        stage.wait_for_request(Duration::from_secs(600));
        stage.answer(status, "");
        let answer = stage.front_end_notifies(&draft, 2, "active;expires=600", &pidf("closed", ""));
        assert_eq!(answer == 481, is_dead, "{status}");
    }
}

#[test]
fn sip_e_04_a_second_notifier_gets_481() {
    let mut stage = Stage::new();
    let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
    let mut other = draft.clone();
    other.to = "<sip:benvolio@corp.example>;tag=other".into();
    let text = format!(
        "NOTIFY sip:{}@127.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKz\r\n\
         From: <sip:benvolio@corp.example>;tag=other\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: 1 NOTIFY\r\n\
         Contact: <sip:x@h>\r\nEvent: presence\r\nSubscription-State: active\r\nContent-Length: 0\r\n\r\n",
        draft.contact_user.as_deref().unwrap_or_default(),
        draft.from,
        draft.call_id
    );
    stage.sip_says(&front_end(), BENVOLIO, text);
    assert_eq!(stage.status(), 481);
}

/// What romeo's phone by UDP is told when juliet's note has so many characters, and then when she is busy.
fn told_by_datagram(takes_large: bool, len: usize) -> Vec<(usize, String)> {
    let mut stage = Stage::new();
    let phone = phone_of(ROMEO, "a");
    stage.goes_away(&phone);
    stage.way = crate::owner::PeerWay { takes_large, ..datagram_way() };
    stage.comes_back(&phone);
    stage.subscribe(&phone, ROMEO, JULIET, "c1", "");
    stage.presence(JULIET, ROMEO, "subscribed", "");
    let mut told = Vec::new();
    for payload in [format!("<status>{}</status>", "é".repeat(len)), "<show>dnd</show>".to_owned()] {
        stage.presence("juliet@xmpp.example/balcony", ROMEO, "", &payload);
        while !stage.requests.is_empty() {
            let draft = stage.answer(200, "");
            let body = String::from_utf8(draft.body.to_vec()).expect("UTF-8");
            told.push((crate::head_len(&draft) + body.len(), body));
        }
        stage.wait(Duration::from_secs(10));
    }
    told
}

#[test]
fn a_notify_too_large_for_udp_has_shorter_notes_and_later_changes_arrive() {
    for len in [700, 5_000, 33_000] {
        let told = told_by_datagram(false, len);
        assert!(told.iter().all(|(len, _)| *len <= 1300), "{:?}", told.iter().map(|(len, _)| len));
        let cut = told.iter().find(|(_, body)| body.contains("é")).expect("the note is told");
        assert!(cut.1.contains("éé…</note>"), "{}", cut.1);
        assert!(told.last().is_some_and(|(_, body)| body.contains(">dnd<")), "{told:?}");
    }
    // As long as any note may be, and longer than a datagram.
    let whole = told_by_datagram(true, 1_000);
    assert!(whole.iter().any(|(len, body)| *len > 2_000 && !body.contains('…')), "a stream takes it whole");
    let small = told_by_datagram(false, 50);
    assert!(small.iter().any(|(_, body)| body.contains(&"é".repeat(50))), "a short note is left whole");
}

#[test]
fn what_was_cut_for_udp_is_told_whole_when_the_phone_has_a_stream_and_nothing_else_again() {
    let mut stage = Stage::new();
    let phone = phone_of(ROMEO, "a");
    stage.goes_away(&phone);
    stage.way = datagram_way();
    stage.comes_back(&phone);
    let watch = |stage: &mut Stage, contact: &str, note: &str| {
        stage.subscribe(&phone, ROMEO, contact, contact, "");
        stage.presence(contact, ROMEO, "subscribed", "");
        stage.presence(&format!("{contact}/balcony"), ROMEO, "", &format!("<status>{note}</status>"));
        let mut told = String::new();
        while !stage.requests.is_empty() {
            told = String::from_utf8(stage.answer(200, "").body.to_vec()).expect("UTF-8");
        }
        told
    };
    let long = "é".repeat(900);
    assert!(watch(&mut stage, JULIET, &long).contains("éé…</note>"));
    assert_eq!(std::mem::take(&mut stage.wants_stream), std::slice::from_ref(&phone));
    watch(&mut stage, NURSE, "short");
    assert!(stage.wants_stream.is_empty());
    stage.wait(Duration::from_secs(10));
    for is_told in [true, false] {
        let way = crate::owner::PeerWay { takes_large: true, ..datagram_way() };
        stage.input(crate::owner::Input::PeerChanged { peer: phone.clone(), way: Some(way) });
        stage.wait(Duration::from_secs(10));
        assert_eq!(stage.requests.len(), usize::from(is_told), "once, and the short one not at all");
        if is_told {
            let body = String::from_utf8(stage.answer(200, "").body.to_vec()).expect("UTF-8");
            assert!(body.contains(&long), "{body}");
        }
        stage.input(crate::owner::Input::PeerChanged { peer: phone.clone(), way: Some(datagram_way()) });
    }
}

#[test]
fn the_notify_of_a_poll_by_udp_has_shorter_notes_too() {
    let mut stage = Stage::new();
    stage.romeo_watches_juliet("a");
    stage.presence(
        "juliet@xmpp.example/balcony",
        ROMEO,
        "",
        &format!("<status>{}</status>", "x".repeat(9_000)),
    );
    stage.way = datagram_way();
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "poll", "Expires: 0\r\n");
    let draft = stage.answer(200, "");
    assert!(crate::head_len(&draft) + draft.body.len() <= 1300 && !draft.body.is_empty());
}
