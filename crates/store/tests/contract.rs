//! What every store promises, checked on each of them.

mod common;

use std::sync::{Arc, mpsc};

use common::{Scratch, commit, rows};
use tombolo_store::{FIRST_VOLATILE_TABLE, MemoryStore, RedbOptions, RedbStore, Row, StateStore, StoreError};

/// Runs a check on a memory store and on a file.
fn on_each(name: &str, check: impl Fn(&dyn StateStore)) {
    check(&MemoryStore::new());
    let scratch = Scratch::new(name);
    check(&RedbStore::open(&scratch.file(), RedbOptions::default()).expect("opens"));
}

fn put(partition: u16, table: u8, key: &str, value: &str) -> Row {
    Row::put(partition, table, key.as_bytes(), value.as_bytes().to_vec())
}

#[test]
fn rows_come_back_by_partition_and_key_and_only_of_the_table_asked_for() {
    on_each("order", |store| {
        let volatile = FIRST_VOLATILE_TABLE;
        let written = vec![
            put(300, 1, "b", "3"),
            put(300, 1, "a", "2"),
            put(2, 1, "z", "1"),
            put(2, 2, "y", "other table"),
            put(300, 255, "x", "last table"),
            put(2, volatile, "z", "volatile"),
            put(4095, 1, "", "4"),
        ];
        commit(store, written).expect("written");
        let row = |partition, key: &str, value: &str| (partition, key.to_owned(), value.to_owned());
        assert_eq!(
            rows(store, 1),
            [row(2, "z", "1"), row(300, "a", "2"), row(300, "b", "3"), row(4095, "", "4")]
        );
        assert_eq!(rows(store, volatile), [row(2, "z", "volatile")]);
        assert_eq!(rows(store, 255), [row(300, "x", "last table")]);
        let mut partitions = Vec::new();
        store.load(3..=300, 1, &mut |partition, _, _| partitions.push(partition)).expect("loads");
        assert_eq!(partitions, [300, 300]);
    });
}

#[test]
fn a_commit_deletes_overwrites_and_lets_its_last_word_count() {
    on_each("overwrite", |store| {
        commit(store, vec![put(1, 1, "a", "1"), put(1, 1, "b", "1"), put(1, 1, "c", "1")]).expect("written");
        let gone = Row::delete(1, 1, *b"a");
        let never_there = Row::delete(1, 1, *b"nothing");
        commit(store, vec![gone, put(1, 1, "b", "2"), put(1, 1, "c", "2"), put(1, 1, "c", "3"), never_there])
            .expect("written");
        let values: Vec<String> = rows(store, 1).into_iter().map(|(_, key, value)| key + &value).collect();
        assert_eq!(values, ["b2", "c3"]);
    });
}

#[test]
fn answers_come_in_the_order_of_the_commits_with_their_tokens() {
    on_each("answers", |store| {
        let (heard, answers) = mpsc::channel();
        for token in 1..=500_u64 {
            let heard = heard.clone();
            // Empty commits are answered in their turn too.
            let rows = if token % 7 == 0 { vec![] } else { vec![put(1, 1, &token.to_string(), "v")] };
            store.commit(
                rows,
                token,
                Box::new(move |token, fate| heard.send((token, fate)).expect("the test waits")),
            );
        }
        store.flush().expect("flushes");
        drop(heard);
        let answers: Vec<_> = answers.try_iter().collect();
        assert_eq!(answers, (1..=500).map(|token| (token, Ok(()))).collect::<Vec<_>>());
    });
}

#[test]
fn many_submitters_each_hear_their_own_order() {
    let scratch = Scratch::new("submitters");
    let store = Arc::new(RedbStore::open(&scratch.file(), RedbOptions::default()).expect("opens"));
    let submitters: Vec<_> = (0..4_u16)
        .map(|partition| {
            let store = store.clone();
            std::thread::spawn(move || {
                let (heard, answers) = mpsc::channel();
                for token in 0..200_u64 {
                    let heard = heard.clone();
                    let row = Row::put(partition, 1, token.to_be_bytes(), vec![1]);
                    store.commit(
                        vec![row],
                        token,
                        Box::new(move |token, _| heard.send(token).expect("the test waits")),
                    );
                }
                drop(heard);
                assert!(answers.iter().eq(0..200), "submitter {partition}");
            })
        })
        .collect();
    for submitter in submitters {
        submitter.join().expect("in order");
    }
    assert_eq!(rows(&*store, 1).len(), 800);
}

#[test]
fn after_a_shutdown_everything_is_refused_and_a_second_one_does_nothing() {
    on_each("shutdown", |store| {
        commit(store, vec![put(1, 1, "a", "1")]).expect("written");
        store.shutdown().expect("closes");
        store.shutdown().expect("closes again");
        assert_eq!(commit(store, vec![put(1, 1, "b", "1")]), Err(StoreError::Closed));
        assert_eq!(store.flush(), Err(StoreError::Closed));
        assert_eq!(store.load(0..=1, 1, &mut |_, _, _| ()), Err(StoreError::Closed));
    });
}
