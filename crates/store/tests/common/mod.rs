//! What the tests of the store share: a directory of their own, and commits that wait for their answer.

#![allow(dead_code)] // Each test file uses its own part.

use std::{path::PathBuf, sync::mpsc};

use tombolo_store::{Row, StateStore, StoreError};

/// A fresh directory, removed at the end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tombolo-store-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a directory for temporary files");
        Self(path)
    }

    pub fn file(&self) -> PathBuf {
        self.0.join("state.redb")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Commits and waits for the answer.
pub fn commit(store: &dyn StateStore, rows: Vec<Row>) -> Result<(), StoreError> {
    let (done, answer) = mpsc::channel();
    store.commit(rows, 0, Box::new(move |_, fate| done.send(fate).expect("the test waits")));
    answer.recv().expect("each commit is answered")
}

/// Every row of one table, as (partition, key, value) in text.
pub fn rows(store: &dyn StateStore, table: u8) -> Vec<(u16, String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut found = Vec::new();
    store
        .load(0..=4095, table, &mut |partition, key, value| found.push((partition, text(key), text(value))))
        .expect("loads");
    found
}
