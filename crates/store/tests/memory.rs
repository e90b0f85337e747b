//! The store in memory: scripted failures and delays, and a kill.

mod common;

use std::{sync::mpsc, time::Duration};

use common::{commit, rows};
use tombolo_presence::ClockMark;
use tombolo_store::{MemoryStore, Outcome, Row, StateStore, StoreError};

fn put(key: &str) -> Row {
    Row::put(1, 1, key.as_bytes(), b"v".to_vec())
}

fn submit(store: &MemoryStore, token: u64, heard: &mpsc::Sender<(u64, bool)>) {
    let heard = heard.clone();
    let reply =
        move |token, fate: Result<(), StoreError>| heard.send((token, fate.is_ok())).expect("the test waits");
    store.commit(vec![put(&token.to_string())], token, Box::new(reply));
}

fn broken() -> StoreError {
    StoreError::Io { cause: "scripted".into() }
}

#[test]
fn a_scripted_failure_writes_nothing() {
    let store = MemoryStore::new();
    store.script([Outcome::Fail(broken())]);
    assert_eq!(commit(&store, vec![put("a")]), Err(broken()));
    assert_eq!(commit(&store, vec![put("b")]), Ok(()));
    assert_eq!(store.row_count(), 1);
}

#[test]
fn a_held_commit_holds_those_behind_it() {
    let store = MemoryStore::new();
    let (heard, answers) = mpsc::channel();
    store.script([Outcome::Commit, Outcome::Hold, Outcome::Fail(broken())]);
    for token in 1..=4 {
        submit(&store, token, &heard);
    }
    assert_eq!(answers.try_iter().collect::<Vec<_>>(), [(1, true)]);
    assert_eq!((store.waiting(), store.row_count()), (3, 1));
    assert_eq!(store.release(10), 1);
    assert_eq!(answers.try_iter().collect::<Vec<_>>(), [(2, true), (3, false), (4, true)]);
    assert_eq!((store.waiting(), store.row_count()), (0, 3));
}

#[test]
fn a_delayed_commit_is_answered_when_its_span_is_over() {
    let (timers, armed) = mpsc::channel();
    let store =
        MemoryStore::with_delays(move |span, ready| timers.send((span, ready)).expect("the test waits"));
    let (heard, answers) = mpsc::channel();
    let span = Duration::from_secs(3);
    store.script([Outcome::CommitAfter(span), Outcome::FailAfter(span, broken())]);
    for token in 1..=3 {
        submit(&store, token, &heard);
    }
    let (first, second) = (armed.recv().expect("armed"), armed.recv().expect("armed"));
    assert_eq!((first.0, second.0), (span, span));
    second.1();
    assert_eq!(answers.try_iter().count(), 0, "nothing overtakes the first");
    first.1();
    assert_eq!(answers.try_iter().collect::<Vec<_>>(), [(1, true), (2, false), (3, true)]);
}

#[test]
fn an_answer_may_commit_again_and_order_holds() {
    let store = MemoryStore::new();
    let (heard, answers) = mpsc::channel();
    let (again, inner) = (store.clone(), heard.clone());
    let reply = move |token, _| {
        submit(&again, 2, &inner);
        inner.send((token, true)).expect("the test waits");
    };
    store.commit(vec![put("a")], 1, Box::new(reply));
    assert_eq!(answers.try_iter().collect::<Vec<_>>(), [(1, true), (2, true)]);
}

#[test]
fn a_kill_leaves_what_was_written_and_nothing_that_waited() {
    let store = MemoryStore::new();
    commit(&store, vec![put("a")]).expect("written");
    let mark = ClockMark { boot: None, wall: 99, time: 98 };
    store.mark_clock(mark);
    store.script([Outcome::Hold]);
    let (heard, answers) = mpsc::channel();
    submit(&store, 1, &heard);
    let next = store.killed();
    assert_eq!(rows(&next, 1), [(1, "a".to_owned(), "v".to_owned())]);
    assert_eq!((next.meta().start, next.meta().mark), (2, Some(mark)));
    assert_eq!(store.release(1), 0);
    assert_eq!(answers.try_iter().count(), 0);
    assert_eq!(commit(&store, vec![put("b")]), Err(StoreError::Closed));
}

#[test]
fn a_row_to_be_kept_whose_commit_failed_is_written_with_the_next_that_succeeds() {
    let store = MemoryStore::new();
    store.script([Outcome::Fail(StoreError::Io { cause: "full".into() })]);
    store.keep(vec![put("kept")], 1, Box::new(|_, fate| assert!(fate.is_err())));
    assert_eq!((store.row_count(), store.state().kept_rows), (0, 1));
    commit(&store, vec![put("next")]).expect("written");
    assert_eq!((store.row_count(), store.state().kept_rows), (2, 0));
}
