//! However many keys the other side chooses, what is held for it stays under stated sums.

use std::time::Duration;

use tombolo_policy::DomainPattern;

use super::stage::*;
use crate::owner::{BudgetLimits, Input, MessageId, OwnerEvent, budgets::Budgets};

/// 1 MiB for the shard, half of it for a partner, a quarter for a user.
fn stage_of_a_mebibyte() -> Stage {
    let mut stage = Stage::new();
    let all = 1 << 20;
    let limits = BudgetLimits {
        messages: all,
        messages_per_partner: all,
        messages_per_user: all,
        states: all,
        states_per_partner: all,
        states_per_user: all,
    };
    let limits = limits.of_shard(1);
    stage.owner.settings.max_sip_bytes = 1 << 20;
    stage.owner.settings.budgets = limits;
    stage.owner.budgets = Budgets::new(&limits);
    stage
}

fn write(stage: &mut Stage, from: &str, to: &str, body_len: usize) {
    let body = "x".repeat(body_len);
    stage.xmpp_says(&format!("<message from='{from}/r' to='{to}' id='m'><body>{body}</body></message>"));
}

fn refused(stage: &mut Stage) -> usize {
    let is_refusal = |stanza: &String| stanza.contains("<resource-constraint ");
    let count = stage.stanzas.iter().filter(|stanza| is_refusal(stanza)).count();
    stage.stanzas.clear();
    count
}

#[test]
fn any_number_of_senders_to_a_silent_front_end_hold_no_more_than_a_users_budget() {
    let mut stage = stage_of_a_mebibyte();
    for n in 0..100 {
        write(&mut stage, &format!("u{n}@xmpp.example"), BENVOLIO, 20_000);
    }
    // A quarter of a mebibyte holds 12 messages of 20,000 octets and their heads.
    assert_eq!((stage.requests.len(), refused(&mut stage)), (12, 88));
    // Another user has room of its own.
    write(&mut stage, "u1@xmpp.example", "mercutio@corp.example", 20_000);
    assert_eq!((stage.requests.len(), refused(&mut stage)), (13, 0));
    // What has its fate makes room.
    for _ in 0..13 {
        stage.answer(200, "");
    }
    write(&mut stage, "u1@xmpp.example", BENVOLIO, 200_000);
    assert_eq!((stage.requests.len(), refused(&mut stage)), (1, 0));
}

#[test]
fn any_number_of_recipients_hold_no_more_than_a_partners_budget() {
    let mut stage = stage_of_a_mebibyte();
    for n in 0..100 {
        write(&mut stage, JULIET, &format!("u{n}@corp.example"), 20_000);
    }
    let kept = stage.requests.len();
    assert!((20..=24).contains(&kept), "half a mebibyte holds {kept} messages of 20,000 octets");
    assert_eq!(refused(&mut stage), 100 - kept);
    assert!(stage.events.iter().any(|event| {
        matches!(event, OwnerEvent::OverBudget { full, .. } if full.account == "messages_per_partner")
    }));
}

#[test]
fn a_message_is_held_for_as_long_as_its_request_lives_wherever_that_is() {
    let mut stage = stage_of_a_mebibyte();
    write(&mut stage, JULIET, BENVOLIO, 200_000);
    let (peer, request, draft) = stage.requests.pop_front().expect("in flight");
    // The peer still sends its copy when the shard has forgotten the message.
    stage.input(Input::Outcome { request, outcome: Err(crate::error::NoResponse::Timeout) });
    stage.stanzas.clear();
    write(&mut stage, NURSE, BENVOLIO, 200_000);
    assert_eq!((stage.requests.len(), refused(&mut stage)), (0, 1));
    drop((peer, draft));
    write(&mut stage, NURSE, BENVOLIO, 200_000);
    assert_eq!((stage.requests.len(), refused(&mut stage)), (1, 0));
}

#[test]
fn a_sip_user_whose_messages_wait_for_a_silent_partner_is_told_to_come_again() {
    let mut stage = stage_of_a_mebibyte();
    stage.keeps_messages = true;
    stage.writes_messages = false;
    let body = vec![b'x'; 20_000];
    for _ in 0..40 {
        stage.message(&phone_of(ROMEO, "a"), ROMEO, JULIET, "Content-Type: text/plain\r\n", &body);
    }
    stage.wait(Duration::from_secs(2));
    let refusals: Vec<_> = stage.responses.drain(..).filter(|answer| answer.status() == Some(500)).collect();
    assert!((28..=35).contains(&refusals.len()), "{} of 40", refusals.len());
    assert!(refusals.iter().all(|answer| answer.retry_after().is_some()));
    // What was written is held no more.
    stage.kept_messages.clear();
    for message in 1..=40 {
        stage.input(Input::MessageFate { message: MessageId(message), fate: Ok(()) });
    }
    stage.responses.clear();
    stage.writes_messages = true;
    stage.message(&phone_of(ROMEO, "a"), ROMEO, JULIET, "Content-Type: text/plain\r\n", &body);
    stage.wait(Duration::from_secs(2));
    assert_eq!(stage.status(), 202);
}

#[test]
fn messages_that_were_answered_and_may_still_fail_are_forgotten_before_they_take_too_much() {
    let mut stage = stage_of_a_mebibyte();
    let contact = format!("{}@xmpp.example", "j".repeat(1000));
    for _ in 0..1000 {
        stage.message(&phone_of(ROMEO, "a"), ROMEO, &contact, "Content-Type: text/plain\r\n", b"x");
        stage.wait(Duration::from_secs(1));
        assert_eq!(stage.status(), 202);
        stage.responses.clear();
        stage.stanzas.clear();
    }
    let octets = stage.owner.mail.answered_octets();
    assert!((150_000..=1 << 18).contains(&octets), "{octets} octets of answered messages");
}

#[test]
fn what_waits_for_a_slow_store_is_bounded_in_octets_too() {
    let mut stage = stage_of_a_mebibyte();
    stage.stores_at_once = false;
    let note = "n".repeat(60_000);
    stage.presence(JULIET, ROMEO, "subscribe", "");
    for _ in 0..16 {
        stage.presence(JULIET, ROMEO, "", &format!("<status>{note}</status>"));
    }
    let kept = stage.owner.proposals.values().map(|proposal| proposal.waiting_len()).sum::<usize>();
    assert!((3..=4).contains(&kept), "{kept} of 16 states of 60,000 octets wait in a quarter of a mebibyte");
    let route = format!("Record-Route: <sip:{}.example;lr>\r\n", "r".repeat(7_900)).repeat(7);
    for n in 0..20 {
        stage.subscribe(
            &phone_of(ROMEO, "a"),
            ROMEO,
            &format!("u{n}@xmpp.example"),
            &format!("c{n}"),
            &route,
        );
    }
    let refusals: Vec<_> = stage.responses.drain(..).filter(|answer| answer.status() == Some(500)).collect();
    assert!(refusals.len() >= 18, "{} of 20 subscriptions", refusals.len());
    assert!(refusals.iter().all(|answer| answer.retry_after().is_some()));
}

/// A user watches a contact, who granted it.
fn watched(stage: &mut Stage, user: &str, contact: &str) {
    let phone = if user == ROMEO { phone_of(user, "a") } else { phone_of(user, "m") };
    stage.subscribe(&phone, user, contact, &format!("{user}-{contact}"), "");
    stage.presence(contact, user, "subscribed", "");
}

#[test]
fn contacts_with_long_notes_on_many_devices_take_no_more_than_the_budgets_and_the_newest_state_is_told() {
    let mut stage = stage_of_a_mebibyte();
    let note = "ž".repeat(10_000);
    for n in 0..20 {
        let contact = format!("u{n}@xmpp.example");
        watched(&mut stage, ROMEO, &contact);
        for device in 0..40 {
            let inner = format!("<show>away</show><status>{note}</status>");
            stage.presence(&format!("{contact}/d{device}"), ROMEO, "", &inner);
        }
        stage.notifies.clear();
        let octets = stage.owner.state_octets();
        assert!(octets <= (1 << 20) / 4 + (n + 1) * 2048 * 3, "{octets} octets after {n} contacts");
        stage.presence(&format!("{contact}/d1"), ROMEO, "", "<show>dnd</show><status>busy</status>");
        let told = stage.notifies.pop_back().expect("told");
        assert!(String::from_utf8_lossy(told.body()).contains("dnd"), "contact {n}");
        stage.notifies.clear();
    }
    assert!(stage.events.iter().any(|event| {
        matches!(event, OwnerEvent::OverBudget { full, .. } if full.account == "states_per_user")
    }));
    // Another user has room of its own.
    let mercutio = "mercutio@sip.example";
    watched(&mut stage, mercutio, NURSE);
    stage.presence(&format!("{NURSE}/a"), mercutio, "", &format!("<status>{}</status>", "n".repeat(3000)));
    let told = stage.notifies.pop_back().expect("told");
    let told = String::from_utf8_lossy(told.body()).into_owned();
    assert!(told.contains("nnn…") && told.len() > 2000, "{told}");
    // What is gone is given back.
    for n in 0..20 {
        stage.presence(&format!("u{n}@xmpp.example"), ROMEO, "unsubscribed", "");
    }
    stage.presence(NURSE, mercutio, "unavailable", "");
    stage.wait(Duration::from_secs(4000));
    let left = stage.owner.users.values().map(|user| user.state_octets).sum::<usize>()
        + stage.owner.lanes.lanes.iter().map(|lane| lane.state_octets).sum::<usize>();
    assert_eq!(left, 0);
    assert!(stage.owner.state_octets() < 10_000, "{} octets are left", stage.owner.state_octets());
}

#[test]
fn published_documents_are_bounded_in_octets_and_one_without_room_is_to_come_again() {
    let mut stage = stage_of_a_mebibyte();
    let document = |note: &str| {
        format!(
            "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:{ROMEO}'><tuple id='t'><status>\
             <basic>open</basic></status><note>{note}</note></tuple></presence>"
        )
    };
    let mut refused = 0;
    for n in 0..16 {
        let answer = stage.publish_by(&format!("phone-{n}"), ROMEO, &document(&"n".repeat(30_000)), "");
        if answer.status() == Some(500) {
            assert!(answer.retry_after().is_some());
            refused += 1;
        }
    }
    assert!(stage.owner.published_octets <= (1 << 20) / 4, "{} octets", stage.owner.published_octets);
    assert!((8..12).contains(&refused), "{refused} of 16 documents of 30,000 octets refused");
    stage.wait(Duration::from_secs(4000));
    assert_eq!(stage.owner.published_octets, 0, "what ran out is given back");
    let answer = stage.publish_by("phone-1", ROMEO, &document("at lunch"), "");
    assert_eq!(answer.status(), Some(200));
}

/// The partner may take any domain below `wild.example`; `other.example` is another domain of it, and of nobody else.
fn with_wildcard(stage: &mut Stage) {
    stage.partner_is(|partner| {
        partner.further_domains =
            vec![DomainPattern::Below(domain("wild.example")), DomainPattern::Exact(domain("other.example"))];
    });
}

#[test]
fn however_many_domains_a_partner_takes_below_its_wildcard_its_messages_hold_one_budget() {
    let mut stage = stage_of_a_mebibyte();
    with_wildcard(&mut stage);
    for n in 0..100 {
        write(&mut stage, &format!("u@s{n}.wild.example"), &format!("u{n}@corp.example"), 20_000);
    }
    let kept = stage.requests.len();
    assert!((20..=24).contains(&kept), "half a mebibyte holds {kept} messages of 20,000 octets");
    assert_eq!(refused(&mut stage), 100 - kept, "each of the others is refused with its cause");
    assert!(stage.owner.lanes.lanes.len() < 5, "nothing is kept for each domain");
    write(&mut stage, "u@other.example", "u1@corp.example", 20_000);
    write(&mut stage, JULIET, "u2@corp.example", 20_000);
    assert_eq!(
        (stage.requests.len(), refused(&mut stage)),
        (kept, 2),
        "the entry's named domains count with them"
    );
    assert!(stage.events.iter().any(|event| {
        matches!(event, OwnerEvent::OverBudget { full, partner, .. }
            if full.account == "messages_per_partner" && &**partner == "xmpp.example")
    }));
}

#[test]
fn a_message_that_finds_no_room_is_refused_even_when_messages_have_taken_the_whole_shard() {
    let mut stage = stage_of_a_mebibyte();
    let all = stage.owner.settings.budgets.messages;
    // What other partners and users hold.
    let others = stage.owner.budgets.fill_shard(all);
    write(&mut stage, JULIET, BENVOLIO, 3000);
    assert_eq!((stage.requests.len(), refused(&mut stage)), (0, 1));
    drop(others);
    write(&mut stage, JULIET, BENVOLIO, 3000);
    assert_eq!((stage.requests.len(), refused(&mut stage)), (1, 0));
}

#[test]
fn answers_that_a_partner_does_not_read_take_no_room_from_answers_to_others() {
    let limits = BudgetLimits { messages: 1 << 20, messages_per_partner: 1 << 20, ..BudgetLimits::default() };
    let mut budgets = Budgets::new(&limits.of_shard(1));
    let kept: Vec<_> = std::iter::from_fn(|| budgets.take_answer("wide.example", 1000).ok()).collect();
    assert_eq!(kept.len(), (1 << 16) / 1000, "a sixteenth of the messages' budget");
    assert!(budgets.take_answer("other.example", 1000).is_ok());
}

#[test]
fn however_many_domains_a_partner_takes_below_its_wildcard_its_states_hold_one_budget() {
    let mut stage = stage_of_a_mebibyte();
    with_wildcard(&mut stage);
    let limit = stage.owner.settings.budgets.states_per_partner;
    let note = "n".repeat(2000);
    for n in 0..80 {
        // Each user has few of them, so that the bound of the user is not reached.
        let (user, contact) = (format!("u{}@corp.example", n % 16), format!("j@s{n}.wild.example"));
        stage.subscribe(&front_end(), &user, &contact, &format!("c{n}"), "");
        stage.presence(&contact, &user, "subscribed", "");
        for device in 0..20 {
            let inner = format!("<show>away</show><status>{note}</status>");
            stage.presence(&format!("{contact}/d{device}"), &user, "", &inner);
        }
    }
    let held = |stage: &Stage| stage.owner.lanes.lanes.iter().map(|lane| lane.state_octets).sum::<usize>();
    assert!(held(&stage) > limit / 2, "{} octets", held(&stage));
    assert!(held(&stage) <= limit, "{} octets", held(&stage));
    assert!(stage.events.iter().any(|event| {
        matches!(event, OwnerEvent::OverBudget { full, partner, .. }
            if full.account == "states_per_partner" && &**partner == "xmpp.example")
    }));
    let sum = |stage: &Stage| stage.owner.partner_states.values().sum::<usize>();
    assert_eq!(sum(&stage), held(&stage));
    // Another policy: nothing of that entry any more.
    stage.partner_is(|_| {});
    assert_eq!(stage.owner.partner_states.get("xmpp.example").copied().unwrap_or(0), 0);
    assert_eq!(sum(&stage), held(&stage), "what strangers still hold is counted together");
}
