//! The store in a file: starts, marks, locks, and what a killed process leaves.

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
};

use common::{Scratch, commit, rows};
use tombolo_presence::{Boot, ClockMark};
use tombolo_store::{
    Declared, FIRST_VOLATILE_TABLE, RedbOptions, RedbStore, Row, StateStore, StoreError, declare_complete,
};

fn mark(wall: u64) -> ClockMark {
    ClockMark { boot: Some(Boot { id: 7 << 64 | 9, seconds: 500 }), wall, time: wall - 40 }
}

fn open(scratch: &Scratch) -> Result<RedbStore, StoreError> {
    RedbStore::open(&scratch.file(), RedbOptions::default())
}

#[test]
fn each_opening_counts_a_start_and_tells_the_last_wall_mark() {
    let scratch = Scratch::new("starts");
    let store = open(&scratch).expect("opens");
    assert_eq!((store.meta().start, store.meta().mark), (1, None));
    store.mark_clock(mark(1_700_000_000));
    assert_eq!(store.meta().mark, None, "the mark is for the next start");
    drop(store);
    let store = open(&scratch).expect("opens");
    assert_eq!((store.meta().start, store.meta().mark), (2, Some(mark(1_700_000_000))));
    store.mark_clock(ClockMark { boot: None, ..mark(1_700_000_060) });
    commit(&store, vec![Row::put(1, 1, *b"a", vec![1])]).expect("written");
    drop(store);
    let store = open(&scratch).expect("opens");
    assert_eq!(
        (store.meta().start, store.meta().mark),
        (3, Some(ClockMark { boot: None, ..mark(1_700_000_060) }))
    );
    assert_eq!(rows(&store, 1).len(), 1);
}

#[test]
fn a_file_keeps_its_id_and_another_file_in_its_place_is_refused_and_left_as_it_is() {
    let scratch = Scratch::new("identity");
    let options = RedbOptions { new_id: 7, ..RedbOptions::default() };
    let store = RedbStore::open(&scratch.file(), options).expect("opens");
    assert_eq!(store.meta().id, 7);
    drop(store);
    let options = RedbOptions { new_id: 8, expected_id: Some(7), ..RedbOptions::default() };
    let store = RedbStore::open(&scratch.file(), options).expect("it is the one");
    assert_eq!(store.meta().id, 7, "a file is given an id once");
    drop(store);
    let options = RedbOptions { expected_id: Some(9), ..options };
    let error = RedbStore::open(&scratch.file(), options).err().expect("another is expected");
    assert_eq!(error, StoreError::Foreign { path: scratch.file().display().to_string() });
    assert_eq!(open(&scratch).expect("opens").meta().start, 3, "the refused opening counted no start");
}

#[test]
fn a_file_from_which_rows_are_missing_says_so_at_every_later_start() {
    let scratch = Scratch::new("missing");
    let store = open(&scratch).expect("opens");
    assert!(store.meta().is_complete);
    store.note_missing();
    drop(store);
    for _ in 0..2 {
        assert!(!open(&scratch).expect("opens").meta().is_complete);
    }
    let scratch = Scratch::new("replaced");
    let options = RedbOptions { begins_incomplete: true, ..RedbOptions::default() };
    let store = RedbStore::open(&scratch.file(), options).expect("opens");
    assert!(!store.meta().is_complete, "it was begun in place of a lost one");
    drop(store);
    assert!(!open(&scratch).expect("opens").meta().is_complete);
}

#[test]
fn only_a_sound_and_closed_file_is_declared_complete_and_then_it_stays_so() {
    let scratch = Scratch::new("complete");
    let store = open(&scratch).expect("opens");
    commit(&store, vec![Row::put(1, 1, *b"a", vec![1])]).expect("written");
    store.note_missing();
    let error = declare_complete(&scratch.file()).expect_err("a process runs with it");
    assert!(matches!(error, StoreError::AlreadyOpen { .. }), "{error:?}");
    drop(store);
    assert!(tombolo_store::check(&scratch.file()).expect("readable").has_missing);
    assert_eq!(declare_complete(&scratch.file()), Ok(Declared::Complete));
    assert_eq!(declare_complete(&scratch.file()), Ok(Declared::WasComplete));
    for _ in 0..2 {
        let store = open(&scratch).expect("opens");
        assert!(store.meta().is_complete);
        assert_eq!(rows(&store, 1).len(), 1, "its rows are as they were");
    }
    let gone = declare_complete(&scratch.file().with_file_name("other.redb"));
    assert!(matches!(gone, Err(StoreError::Io { .. })), "{gone:?}");
    assert!(!scratch.file().with_file_name("other.redb").exists(), "no file is made");
}

#[test]
fn a_second_opening_is_refused_by_name() {
    let scratch = Scratch::new("lock");
    let store = open(&scratch).expect("opens");
    let error = open(&scratch).err().expect("the file is in use");
    assert_eq!(error, StoreError::AlreadyOpen { path: scratch.file().display().to_string() });
    assert!(error.to_string().contains("state.redb is already open"), "{error}");
    drop(store);
    assert_eq!(open(&scratch).expect("free again").meta().start, 2, "the refused opening counted no start");
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_as_it_is() {
    let scratch = Scratch::new("foreign");
    let text = b"this is a shopping list, and long enough to be read as a header\n".repeat(200);
    std::fs::write(scratch.file(), &text).expect("written");
    let error = open(&scratch).err().expect("no store");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert_eq!(std::fs::read(scratch.file()).expect("still there"), text);
}

#[cfg(unix)]
#[test]
fn the_file_is_readable_by_its_owner_alone_and_its_directories_are_made() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new("mode");
    let path = scratch.0.join("deeper/still/state.redb");
    let _store = RedbStore::open(&path, RedbOptions::default()).expect("opens");
    let mode = std::fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn over_the_limit_of_waiting_rows_a_commit_is_refused_in_its_turn() {
    let scratch = Scratch::new("overload");
    let options = RedbOptions {
        waiting_rows: 100,
        group_rows: 1_000,
        group_span: std::time::Duration::from_secs(60),
        ..RedbOptions::default()
    };
    let store = RedbStore::open(&scratch.file(), options).expect("opens");
    let (heard, answers) = std::sync::mpsc::channel();
    for token in 0..3_u8 {
        let heard = heard.clone();
        let rows = (0..60_u8).map(|n| Row::put(1, 1, [token, n], vec![1])).collect();
        store.commit(
            rows,
            u64::from(token),
            Box::new(move |token, fate| heard.send((token, fate)).expect("waits")),
        );
    }
    store.flush().expect("flushes");
    let full = Err(StoreError::Overloaded { waiting: 60, limit: 100 });
    assert_eq!(answers.try_iter().collect::<Vec<_>>(), [(0, Ok(())), (1, full.clone()), (2, full)]);
    assert_eq!(rows(&store, 1).len(), 60);
    assert_eq!(store.figures().waiting_rows, 0);
}

#[test]
fn rows_behind_a_disk_that_gives_no_answer_are_held_to_their_limit_in_octets() {
    const LIMIT: usize = 1 << 20;
    let scratch = Scratch::new("octets");
    let options = RedbOptions { waiting_octets: LIMIT, ..RedbOptions::default() };
    let store = RedbStore::open(&scratch.file(), options).expect("opens");
    // The first answer holds the writer, as a disk would that does not answer.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (held, is_held) = std::sync::mpsc::channel();
    let hold = move |_, _| {
        held.send(()).expect("waits");
        wait.recv().expect("let go");
    };
    store.commit(vec![Row::put(1, 1, *b"first", vec![1])], 0, Box::new(hold));
    is_held.recv().expect("the writer is held");
    let (heard, answers) = std::sync::mpsc::channel();
    for number in 0..1000_u64 {
        let row = |table| Row::put(1, table, number.to_be_bytes(), vec![1; 60_000]);
        let of_commit = heard.clone();
        store.commit(
            vec![row(1)],
            number,
            Box::new(move |_, fate| of_commit.send((true, fate)).expect("waits")),
        );
        let of_keep = heard.clone();
        store.keep(
            vec![row(2)],
            number,
            Box::new(move |_, fate| of_keep.send((false, fate)).expect("waits")),
        );
        assert!(store.figures().held_octets <= 2 * LIMIT, "{} octets", store.figures().held_octets);
    }
    assert!(store.state().kept_rows > 0, "what nobody waits for is kept while there is room");
    assert!(store.state().lost_rows > 900);
    go.send(()).expect("waits");
    store.flush().expect("flushes");
    let commits: Vec<_> =
        answers.try_iter().filter(|(is_commit, _)| *is_commit).map(|(_, fate)| fate).collect();
    let full = |fate: &Result<(), StoreError>| matches!(fate, Err(StoreError::Full { limit: LIMIT, .. }));
    assert_eq!(commits.len(), 1000, "each is answered");
    assert!(commits.iter().filter(|fate| fate.is_ok()).count() < LIMIT / 60_000);
    assert!(commits.iter().all(|fate| fate.is_ok() || full(fate)), "{commits:?}");
    store.flush().expect("flushes");
    assert_eq!(store.figures().held_octets, 0);
    let row = Row::put(1, 1, *b"again", vec![1; 60_000]);
    store.commit(vec![row], 1, Box::new(move |_, fate| heard.send((true, fate)).expect("waits")));
    store.flush().expect("flushes");
    assert_eq!(answers.try_iter().map(|(_, fate)| fate).collect::<Vec<_>>(), [Ok(())], "there is room again");
}

#[test]
fn a_store_that_is_as_full_as_it_can_get_refuses_at_once_and_never_blocks() {
    let scratch = Scratch::new("full");
    let store =
        RedbStore::open(&scratch.file(), RedbOptions { waiting_commits: 8, ..RedbOptions::default() });
    let store = store.expect("opens");
    // The first answer holds the writer until all others were handed in.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (heard, answers) = std::sync::mpsc::channel();
    let (held, is_held) = std::sync::mpsc::channel();
    let hold = move |_, _| {
        held.send(()).expect("waits");
        wait.recv().expect("let go");
    };
    store.commit(vec![Row::put(1, 1, *b"first", vec![1])], 0, Box::new(hold));
    is_held.recv().expect("the writer is held");
    for token in 1..=20_u64 {
        let heard = heard.clone();
        let row = Row::put(1, 1, token.to_be_bytes(), vec![1]);
        store.commit(
            vec![row],
            token,
            Box::new(move |token, fate| heard.send((token, fate.is_ok())).expect("waits")),
        );
    }
    let refused: Vec<_> = answers.try_iter().collect();
    assert_eq!(refused, (9..=20).map(|token| (token, false)).collect::<Vec<_>>());
    go.send(()).expect("waits");
    store.flush().expect("flushes");
    assert_eq!(
        answers.try_iter().collect::<Vec<_>>(),
        (1..=8).map(|token| (token, true)).collect::<Vec<_>>()
    );
    assert_eq!((rows(&store, 1).len(), store.figures().waiting_rows), (9, 0));
}

/// Set for the process that commits until it is killed; holds the path of the file.
const VICTIM: &str = "TOMBOLO_STORE_VICTIM";

/// Commits pairs of rows for ever and says each token on standard output when its answer comes.
fn commit_until_killed(path: &str) -> ! {
    let store = RedbStore::open(path.as_ref(), RedbOptions::default()).expect("opens");
    let acknowledged = Arc::new(AtomicU64::new(0));
    for token in 1_u64.. {
        let rows = vec![
            Row::put((token % 4096) as u16, 1, token.to_be_bytes(), token.to_le_bytes().to_vec()),
            Row::put(
                (token % 4096) as u16,
                FIRST_VOLATILE_TABLE,
                token.to_be_bytes(),
                token.to_le_bytes().to_vec(),
            ),
        ];
        let counter = acknowledged.clone();
        let say = move |token, fate: Result<(), StoreError>| {
            fate.expect("written");
            counter.store(token, Ordering::Release);
            let mut out = std::io::stdout().lock();
            writeln!(out, "acknowledged {token}").and_then(|()| out.flush()).expect("the parent reads");
        };
        store.commit(rows, token, Box::new(say));
        while token > acknowledged.load(Ordering::Acquire) + 500 {
            std::thread::yield_now();
        }
    }
    unreachable!("tokens do not end")
}

#[test]
fn everything_acknowledged_is_there_after_kill_9() {
    if let Ok(path) = std::env::var(VICTIM) {
        commit_until_killed(&path);
    }
    let scratch = Scratch::new("kill");
    let mut last = 0;
    for round in 1..=3 {
        let mut victim = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "everything_acknowledged_is_there_after_kill_9", "--nocapture"])
            .env(VICTIM, scratch.file())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let lines = BufReader::new(victim.stdout.take().expect("piped")).lines();
        let mut acknowledged = 0;
        let mut is_killed = false;
        for line in lines.map_while(Result::ok) {
            let Some(token) = line.strip_prefix("acknowledged ").and_then(|token| token.parse().ok()) else {
                continue;
            };
            acknowledged = token;
            // Killed in the middle of its work; what it said before that is still read from the pipe.
            if acknowledged >= 700 * round && !is_killed {
                victim.kill().expect("SIGKILL");
                is_killed = true;
            }
        }
        assert!(is_killed, "the victim ended by itself: {:?}", victim.wait());
        assert!(!victim.wait().expect("ended").success());
        let store = open(&scratch).expect("opens after the crash");
        let (mut steady, mut volatile) = (Vec::new(), Vec::new());
        for (table, found) in [(1, &mut steady), (FIRST_VOLATILE_TABLE, &mut volatile)] {
            let mut visit = |_: u16, key: &[u8], value: &[u8]| {
                let token = u64::from_be_bytes(key.try_into().expect("eight octets"));
                assert_eq!(value, token.to_le_bytes());
                found.push(token);
            };
            store.load(0..=4095, table, &mut visit).expect("loads");
            found.sort_unstable();
        }
        assert_eq!(steady, volatile, "a commit is there whole or not at all");
        let there = steady.iter().filter(|token| **token <= acknowledged).count() as u64;
        assert_eq!(there, acknowledged, "round {round}: every acknowledged commit is there");
        assert!(steady.len() as u64 >= last, "nothing of an earlier life was lost");
        assert_eq!(store.meta().start, round * 2, "each life counts, this one too");
        last = steady.len() as u64;
    }
}
