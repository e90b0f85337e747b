//! Accounts that change, come and go while the rows of their users stay.

use std::time::Duration;

use tombolo_policy::Approve;

use super::stage::*;
use crate::{
    owner::Input,
    rows::{VolatileRow, encode, number_key, table},
};

const MERCUTIO: &str = "mercutio@sip.example";

/// What is stored of pairs, dialogs and publications.
fn rows_left(stage: &Stage) -> Vec<(u16, u8, Vec<u8>)> {
    stage.rows.keys().cloned().collect()
}

/// Romeo shows himself to juliet, watches her, is asked by the nurse, and is watched by mercutio; mercutio is watched
/// by romeo.
fn verona() -> Stage {
    let mut stage = Stage::with(Approve::All, |_| {});
    stage.publish(ROMEO, "open", "away", "at the orchard");
    stage.juliet_watches_romeo();
    stage.romeo_watches_juliet("a");
    stage.accounts_are(&[(ROMEO, Approve::Ask), (MERCUTIO, Approve::All)]);
    stage.presence(NURSE, ROMEO, "subscribe", "");
    stage.accounts_are(&[(ROMEO, Approve::All), (MERCUTIO, Approve::All)]);
    stage.subscribe(&phone_of(MERCUTIO, "m"), MERCUTIO, ROMEO, "c1", "");
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, MERCUTIO, "c2", "");
    stage.wait(Duration::from_secs(120));
    for gathered in [&mut stage.notifies, &mut stage.responses] {
        gathered.clear();
    }
    stage.stanzas.clear();
    stage
}

/// Everybody who knew romeo was told, and after a while nothing is kept of him.
fn everything_of_romeo_ended(mut stage: Stage) {
    let to = |stage: &Stage, watcher: &str| -> Vec<String> {
        let to = format!("to='{watcher}'");
        let kind = |stanza: &String| stanza.split("type='").nth(1)?.split('\'').next().map(ToOwned::to_owned);
        stage.stanzas.iter().filter(|stanza| stanza.contains(&to)).filter_map(kind).collect()
    };
    let juliet = to(&stage, JULIET);
    let place = |kind: &str| juliet.iter().position(|said| said == kind);
    assert!(place("unsubscribe").is_some(), "{juliet:?}");
    assert!(place("unavailable").is_some() && place("unavailable") < place("unsubscribed"), "{juliet:?}");
    assert_eq!(juliet.len(), 3, "{juliet:?}");
    assert_eq!(to(&stage, NURSE), ["unsubscribed"]);
    let ends: Vec<String> = stage.notifies.iter().map(state_of).filter(|s| s.starts_with("term")).collect();
    assert_eq!(ends, ["terminated;reason=noresource"; 3], "juliet's, mercutio's and romeo's own");
    stage.wait(Duration::from_secs(120));
    assert_eq!(rows_left(&stage), [], "nothing is kept");
    stage.input(Input::Ask { user: None, asker: 1 });
    let report = stage.reports.pop().expect("an answer");
    assert_eq!((report.users, report.pairs, report.notifier_dialogs), (0, 0, 0));
    stage.stanzas.clear();
    stage.notifies.clear();
    stage.presence("juliet@xmpp.example/balcony", ROMEO, "", "");
    stage.presence(JULIET, ROMEO, "subscribe", "");
    assert!(stage.is_silent(), "an unknown user is silent");
}

#[test]
fn a_user_whose_account_is_removed_is_gone_for_everybody() {
    let mut stage = verona();
    stage.accounts_are(&[(MERCUTIO, Approve::All)]);
    everything_of_romeo_ended(stage);
}

#[test]
fn a_user_whose_account_was_removed_over_a_restart_is_gone_for_everybody() {
    let mut stage = verona();
    stage.will_have_accounts(&[(MERCUTIO, Approve::All)]);
    let again = stage.killed_and_started_again(Duration::from_secs(5));
    everything_of_romeo_ended(again);
}

#[test]
fn a_removed_user_is_served_no_more_though_the_connection_stands() {
    let mut stage = verona();
    stage.accounts_are(&[(MERCUTIO, Approve::All)]);
    stage.responses.clear();
    stage.subscribe(&phone_of(ROMEO, "a"), ROMEO, JULIET, "c9", "");
    assert_eq!(stage.status(), 403);
    stage.message(&phone_of(ROMEO, "a"), ROMEO, JULIET, "Content-Type: text/plain\r\n", b"x");
    assert_eq!(stage.status(), 403);
}

#[test]
fn an_end_that_the_store_has_not_taken_yet_waits_for_no_place() {
    let mut stage = verona();
    stage.stores_at_once = false;
    stage.presence(NURSE, ROMEO, "unsubscribe", "");
    for _ in 0..crate::owner::plan::WAITING {
        stage.presence(NURSE, ROMEO, "unsubscribe", "");
    }
    stage.accounts_are(&[(MERCUTIO, Approve::All)]);
    stage.stores_at_once = true;
    stage.settle_store(true);
    everything_of_romeo_is_unknown(stage);
}

fn everything_of_romeo_is_unknown(mut stage: Stage) {
    stage.wait(Duration::from_secs(120));
    assert_eq!(rows_left(&stage), []);
}

#[test]
fn an_end_that_the_store_refuses_is_tried_again() {
    let mut stage = verona();
    stage.stores_at_once = false;
    stage.accounts_are(&[(MERCUTIO, Approve::All)]);
    stage.settle_store(false);
    stage.stores_at_once = true;
    stage.settle_store(true);
    everything_of_romeo_is_unknown(stage);
}

#[test]
fn who_wants_to_be_asked_from_now_on_is_asked_also_by_whom_is_known() {
    let mut stage = Stage::with(Approve::Partner, |_| {});
    stage.romeo_watches_juliet("a");
    stage.accounts_are(&[(ROMEO, Approve::Ask), (MERCUTIO, Approve::Ask)]);
    stage.presence(JULIET, ROMEO, "subscribe", "");
    assert!(stage.stanzas.is_empty(), "{:?}", stage.stanzas);
    assert_eq!(stage.asked_to_decide, [(ROMEO.to_owned(), JULIET.to_owned())]);
}

#[test]
fn a_publish_in_a_dialog_finds_none() {
    let mut stage = Stage::new();
    let text = format!(
        "PUBLISH sip:{ROMEO} SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKp\r\nFrom: <sip:{ROMEO}>;tag=p\r\n\
         To: <sip:{ROMEO}>;tag=x\r\nCall-ID: p\r\nCSeq: 1 PUBLISH\r\nEvent: presence\r\nContent-Length: 0\r\n\r\n"
    );
    stage.sip_says(&phone_of(ROMEO, "a"), ROMEO, text);
    assert_eq!(stage.status(), 481);
}

#[test]
fn rows_that_ran_out_while_nobody_was_there_are_deleted() {
    let mut stage = Stage::new();
    stage.juliet_watches_benvolio(&pidf("open", ""));
    stage.wait(Duration::from_secs(61));
    assert!(stage.rows.keys().any(|(_, kind, _)| *kind == table::VOLATILE));
    let numbers = VolatileRow { start: 1, local_cseq: 1, remote_cseq: 1, expires_at: 1 };
    stage.rows.insert((3, table::VOLATILE, number_key(12345)), encode(&numbers));
    let again = stage.killed_and_started_again(Duration::from_secs(100_000));
    let dialogs = [table::SUBSCRIBER, table::VOLATILE];
    let left: Vec<_> = rows_left(&again).into_iter().filter(|(_, kind, _)| dialogs.contains(kind)).collect();
    assert_eq!(left, []);
}
