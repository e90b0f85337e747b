//! What a phone of the built-in home published, while the phone comes, goes and comes back.

use std::time::Duration;

use super::stage::*;
use crate::rows::{PublicationRow, encode, table};

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
        if *kind == table::PUBLICATION {
            let row = PublicationRow::read(value).expect("a row");
            // The source stands last, and the earlier version ended before it.
            let with_source = encode(&row);
            let source_len = row.source.as_ref().map_or(1, |source| 2 + source.len());
            *value = with_source[..with_source.len() - source_len].to_vec();
            assert_eq!(PublicationRow::read(value).expect("read still").source, None);
        }
    }
    let mut again = stage.killed_and_started_again(Duration::from_secs(5));
    assert_eq!(seen(&mut again), ["t1", "t2"]);
    again.publish_by("a", ROMEO, &document("t1", "dnd"), "");
    assert_eq!(seen(&mut again), ["t1", "t2"]);
    let mut third = again.killed_and_started_again(Duration::from_secs(5));
    assert_eq!(seen(&mut third), ["t1", "t2"], "its row is gone too");
}
