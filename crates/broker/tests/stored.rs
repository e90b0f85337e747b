//! A store file that an earlier version wrote opens, and every grant in it is kept.
//!
//! `data/store-1.redb.gz` has format 1. It holds rows of every table: pairs in all nine states with every due slot, 160
//! granted contacts, dialogs both ways with and without numbers, publications and registrations. It was begun three times;
//! its wall mark is [`WRITTEN_AT`].

#[allow(dead_code, reason = "shared with other tests")]
mod common;

use std::{collections::BTreeMap, io::Read, path::Path, sync::Arc, time::Duration};

use common::*;
use tombolo_broker::{Broker, BrokerSettings};
use tombolo_edge::{EdgePort, FlowPort, ToEdge, ToFlow};
use tombolo_interwork::rows::table;
use tombolo_policy::Approve;
use tombolo_presence::Subscription;
use tombolo_runtime::{Clock, Placement};
use tombolo_store::{RedbOptions, RedbStore, StateStore};

const WRITTEN_AT: u64 = 1_800_000_000;

const STATES: [Subscription; 9] = [
    Subscription::None,
    Subscription::NonePendingOut,
    Subscription::NonePendingIn,
    Subscription::NonePendingOutIn,
    Subscription::To,
    Subscription::ToPendingIn,
    Subscription::From,
    Subscription::FromPendingOut,
    Subscription::Both,
];

/// What the file holds: user, contact and what they agreed on.
fn agreements() -> BTreeMap<(String, String), Subscription> {
    let mut all = BTreeMap::new();
    let mut add = |user: &str, contact: String, state| all.insert((user.to_owned(), contact), state);
    let romeo = &format!("romeo@{HOME}");
    for (n, state) in STATES.into_iter().enumerate() {
        // A pair without an agreement is kept only while something is due.
        for slot in usize::from(state == Subscription::None)..3 {
            add(romeo, format!("state{n}slot{slot}@{PARTNER}"), state);
        }
    }
    for n in 0..160 {
        let user = format!("{}@{HOME}", USERS[n % USERS.len()]);
        add(&user, format!("granted{n}@{PARTNER}"), Subscription::From);
    }
    let benvolio = &format!("benvolio@{CORP}");
    add(benvolio, format!("watcher1@{PARTNER}"), Subscription::From);
    add(benvolio, format!("watcher2@{PARTNER}"), Subscription::NonePendingIn);
    add(romeo, format!("juliet@{PARTNER}"), Subscription::Both);
    add(romeo, format!("mercutio@{HOME}"), Subscription::From);
    all
}

fn unpack(folder: &Path) -> std::path::PathBuf {
    let packed = include_bytes!("data/store-1.redb.gz");
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut plain).expect("it is whole");
    let path = folder.join("state.redb");
    std::fs::write(&path, plain).expect("written");
    path
}

/// An outside that never answers.
struct Nowhere;

impl EdgePort for Nowhere {
    fn send(&self, _: ToEdge) {}
}

impl FlowPort for Nowhere {
    fn send(&self, _: ToFlow) {}
}

fn start(store: Arc<RedbStore>, at: u64) -> Broker {
    let clock = Clock::starting_at(Duration::from_secs(at));
    let settings = broker_settings(store, Approve::Ask, Placement::single());
    let broker = Broker::start(BrokerSettings { clock, ..settings }).expect("every row is read");
    broker.connect(Arc::new(Nowhere), Arc::new(Nowhere));
    broker
}

async fn check(broker: &Broker) {
    let mut found = BTreeMap::new();
    let users = USERS.map(|user| format!("{user}@{HOME}"));
    for user in users.into_iter().chain([format!("benvolio@{CORP}")]) {
        for relation in broker.report(address(&user)).await.relations {
            found.insert((user.clone(), relation.contact.to_string()), relation.subscription);
        }
    }
    assert_eq!(found, agreements());
    let report = broker.shards().await.remove(0).report;
    assert_eq!((report.notifier_dialogs, report.subscriber_dialogs), (2, 2));
    let romeo = broker.report(address(&format!("romeo@{HOME}"))).await;
    // His registration may count as a device besides.
    let state = romeo.state.unwrap_or_default();
    assert!(state.starts_with("d0: Available; d1: Unavailable"), "{state}");
}

#[test]
fn stox_p_22_a_store_of_format_1_opens_and_keeps_every_grant_dialog_publication_and_registration() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let path = unpack(folder.path());
        // Opened twice: what the first opening wrote anew is read again.
        for (start_number, later) in [(4, 30), (5, 60)] {
            let store = Arc::new(RedbStore::open(&path, RedbOptions::default()).expect("opens"));
            assert_eq!(store.meta().start, start_number);
            assert!(store.meta().is_complete, "nothing is missing");
            let broker = start(store.clone(), WRITTEN_AT + later);
            check(&broker).await;
            let mut bindings = 0;
            store.load(0..=4095, table::BINDING, &mut |_, _, _| bindings += 1).expect("loads");
            assert_eq!(bindings, 2);
            store.shutdown().expect("closed");
        }
    });
}
