//! What a phone of the built-in home published, while the phone comes, goes and comes back.

use std::{sync::Arc, time::Duration};

use tombolo_policy::Approve;

use super::stage::*;
use crate::{
    owner::{Accounts, Input, Owner, OwnerSettings, PhoneKey},
    rows::{self, PublicationRow, encode},
};

/// A document of one device.
fn document(device: &str, show: &str) -> String {
    format!(
        "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:{ROMEO}'><tuple id='{device}'><status>\
         <basic>open</basic><show xmlns='jabber:client'>{show}</show></status></tuple></presence>"
    )
}

/// The resources of romeo that juliet sees as available, by what she was told.
fn seen(stage: &mut Stage) -> Vec<String> {
    stage.stanzas.clear();
    stage.presence(JULIET, ROMEO, "probe", "");
    let mut resources: Vec<String> = stage
        .stanzas
        .drain(..)
        .filter(|stanza| !stanza.contains("type='"))
        .filter_map(|stanza| {
            Some(stanza.split_once("from='romeo@sip.example/")?.1.split_once('\'')?.0.to_owned())
        })
        .collect();
    resources.sort_unstable();
    resources
}

#[test]
fn a_phone_that_publishes_anew_without_its_tag_stands_once() {
    let mut stage = Stage::new();
    stage.juliet_watches_romeo();
    stage.publish_by("a", ROMEO, &document("t1", "away"), "");
    let second = stage.publish_by("a", ROMEO, &document("t1", "dnd"), "");
    assert_eq!(seen(&mut stage), ["t1"]);
    // Another name for the device changes nothing: it is the phone that counts.
    stage.publish_by("a", ROMEO, &document("t2", "dnd"), "");
    assert_eq!(seen(&mut stage), ["t2"]);
    let late = format!("SIP-If-Match: {}\r\n", second.sip_etag().expect("a tag"));
    assert_eq!(stage.publish_by("a", ROMEO, "", &late).status(), Some(412), "its former tag is dead");
    stage.publish_by("b", ROMEO, &document("t2", "away"), "");
    assert_eq!(seen(&mut stage), ["t2", "t2~2"], "another phone is another device");
}

#[test]
fn a_phone_that_publishes_anew_after_our_restart_replaces_what_was_restored() {
    let mut stage = Stage::new();
    stage.juliet_watches_romeo();
    stage.publish_by("a", ROMEO, &document("t1", "away"), "");
    let mut again = stage.killed_and_started_again(Duration::from_secs(5));
    again.publish_by("a", ROMEO, &document("t1", "dnd"), "");
    assert_eq!(seen(&mut again), ["t1"]);
    let mut third = again.killed_and_started_again(Duration::from_secs(5));
    assert_eq!(seen(&mut third), ["t1"], "one row, written over");
}

#[test]
fn a_publication_that_an_earlier_version_stored_is_replaced_by_its_device() {
    let mut stage = Stage::new();
    stage.juliet_watches_romeo();
    stage.publish_by("a", ROMEO, &document("t1", "away"), "");
    stage.publish_by("b", ROMEO, &document("t2", "away"), "");
    for ((_, kind, _), value) in &mut stage.rows {
        if *kind == rows::table::PUBLICATION {
            let row = PublicationRow::read(value).expect("a row");
            // The source stands last, and the earlier version ended before it.
            let with_source = encode(&row);
            let source_len = row.source.as_ref().map_or(1, |source| 2 + source.len());
            *value = with_source[..with_source.len() - source_len].to_vec();
            assert_eq!(PublicationRow::read(value).expect("read still").source, None);
        }
    }
    let mut again = stage.killed_and_started_again(Duration::from_secs(5));
    again.input(Input::PhoneRegistered(phone("a")));
    assert_eq!(seen(&mut again), ["t1", "t2"], "the phone may have published one of them");
    again.publish_by("a", ROMEO, &document("t1", "dnd"), "");
    assert_eq!(seen(&mut again), ["t1", "t2"]);
    let mut third = again.killed_and_started_again(Duration::from_secs(5));
    assert_eq!(seen(&mut third), ["t1", "t2"], "its row is gone too");
}

fn phone(instance: &str) -> Arc<PhoneKey> {
    Arc::new(PhoneKey { aor: address(ROMEO), instance: instance.into() })
}

/// What juliet is told of each of romeo's devices, without a probe.
fn told(stage: &mut Stage) -> Vec<String> {
    stage.stanzas.drain(..).collect()
}

#[test]
fn a_phone_that_only_registers_is_available_while_it_is_registered() {
    let mut stage = Stage::new();
    stage.juliet_watches_romeo();
    stage.stanzas.clear();
    let device = phone("<urn:uuid:00-11-22>").device_id().to_string();
    assert!(!device.contains("22"), "watchers are not told the instance");
    stage.input(Input::PhoneRegistered(phone("<urn:uuid:00-11-22>")));
    let stanzas = told(&mut stage);
    assert!(
        matches!(&stanzas[..], [one] if one.contains(&format!("/{device}'")) && !one.contains("type=")),
        "{stanzas:?}"
    );
    stage.input(Input::PhoneRegistered(phone("<urn:uuid:00-11-22>")));
    assert!(stage.stanzas.is_empty(), "a refresh changes nothing");
    stage.input(Input::PhoneRegistered(phone("b")));
    assert_eq!(seen(&mut stage).len(), 2);
    stage.input(Input::PhoneGone(phone("b")));
    stage.input(Input::PhoneGone(phone("<urn:uuid:00-11-22>")));
    assert!(told(&mut stage).iter().all(|stanza| stanza.contains("type='unavailable'")));
    assert!(seen(&mut stage).is_empty());
}

#[test]
fn a_phone_that_publishes_is_what_it_publishes_whatever_its_registration_says() {
    let mut stage = Stage::new();
    stage.juliet_watches_romeo();
    stage.input(Input::PhoneRegistered(phone("a")));
    let tag = stage.publish_by("a", ROMEO, &document("t1", "away"), "");
    assert_eq!(seen(&mut stage), ["t1"]);
    // It took its publication back, and so does not want to be seen.
    let remove = format!("SIP-If-Match: {}\r\nExpires: 0\r\n", tag.sip_etag().expect("a tag"));
    assert_eq!(stage.publish_by("a", ROMEO, "", &remove).status(), Some(200));
    assert!(seen(&mut stage).is_empty());
    stage.input(Input::PhoneRegistered(phone("a")));
    assert!(seen(&mut stage).is_empty(), "also after a refresh");
    stage.input(Input::PhoneRegistered(phone("b")));
    assert_eq!(seen(&mut stage), [&*phone("b").device_id()]);
}

#[test]
fn xp_26_what_a_phone_published_ends_with_the_phone_and_others_stay() {
    let mut stage = Stage::new();
    stage.juliet_watches_romeo();
    stage.input(Input::PhoneRegistered(phone("a")));
    stage.input(Input::PhoneRegistered(phone("b")));
    let tag = stage.publish_by("a", ROMEO, &document("t1", "away"), "");
    stage.publish_by("b", ROMEO, &document("t2", "away"), "");
    assert_eq!(seen(&mut stage), ["t1", "t2"]);
    stage.stanzas.clear();
    stage.input(Input::PhoneGone(phone("a")));
    let stanzas = told(&mut stage);
    assert!(
        matches!(&stanzas[..], [one] if one.contains("/t1'") && one.contains("type='unavailable'")),
        "{stanzas:?}"
    );
    let refresh = format!("SIP-If-Match: {}\r\n", tag.sip_etag().expect("a tag"));
    assert_eq!(stage.publish_by("a", ROMEO, "", &refresh).status(), Some(412), "so that it publishes anew");
    let mut again = stage.killed_and_started_again(Duration::from_secs(5));
    assert_eq!(seen(&mut again), ["t2"], "its row is gone");
    again.input(Input::PhoneGone(phone("b")));
    assert!(seen(&mut again).is_empty());
}

#[test]
fn registrations_say_nothing_of_presence_where_the_setting_says_so() {
    let mut stage = Stage::new();
    let mut settings = OwnerSettings::new(crate::token::TokenKey::new(&[9; 32]), 1, 42);
    settings.registration_is_presence = false;
    let mut owner = Owner::new(settings, table(|_| {}), stage.now);
    let accounts = [(address(ROMEO), Approve::Partner)].into();
    owner.handle(Input::Accounts(Arc::new(Accounts { approve: accounts })), stage.now);
    stage.owner = owner;
    stage.juliet_watches_romeo();
    stage.input(Input::PhoneRegistered(phone("a")));
    assert!(seen(&mut stage).is_empty());
    stage.publish_by("a", ROMEO, &document("t1", "away"), "");
    assert_eq!(seen(&mut stage), ["t1"]);
    stage.input(Input::PhoneGone(phone("a")));
    assert!(seen(&mut stage).is_empty(), "what it published ends with it all the same");
}

#[test]
fn a_registration_of_a_user_without_an_account_keeps_nothing() {
    let mut stage = Stage::new();
    let nobody = PhoneKey { aor: address("nobody@sip.example"), instance: "a".into() };
    stage.input(Input::PhoneRegistered(Arc::new(nobody.clone())));
    stage.input(Input::PhoneGone(Arc::new(nobody)));
    stage.input(Input::PhoneGone(phone("never-seen")));
    stage.input(Input::Ask { user: None, asker: 1 });
    assert_eq!(stage.reports.pop().expect("a report").users, 0);
}
