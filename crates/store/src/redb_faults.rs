//! The store on a disk that fails and on one that loses power (tests only).

use std::{io, sync::mpsc, time::Duration};

use redb::StorageBackend;

use super::*;

/// A disk in memory: what was synced survives a power cut, what was only written may not.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<Platters>>);

#[derive(Debug, Default)]
struct Platters {
    written: Vec<u8>,
    synced: Vec<u8>,
    is_full: bool,
    is_open: bool,
    syncs: usize,
}

impl Disk {
    /// What another machine reads after the power failed: the synced state alone.
    fn after_power_cut(&self) -> Self {
        let synced = self.0.lock().synced.clone();
        Self(Arc::new(Mutex::new(Platters { written: synced.clone(), synced, ..Platters::default() })))
    }

    fn set_full(&self, is_full: bool) {
        self.0.lock().is_full = is_full;
    }

    fn opener(&self) -> Opener {
        let disk = self.clone();
        Box::new(move || {
            let mut platters = disk.0.lock();
            if std::mem::replace(&mut platters.is_open, true) {
                return Err(DatabaseError::DatabaseAlreadyOpen);
            }
            drop(platters);
            Database::builder()
                .create_with_backend(disk.clone())
                .map(|database| Opened { database, fell_back: false })
                .inspect_err(|_| disk.0.lock().is_open = false)
        })
    }

    fn store(&self) -> RedbStore {
        let options = RedbOptions { group_span: Duration::from_millis(1), ..RedbOptions::default() };
        RedbStore::open_with(self.opener(), "disk".into(), options).expect("opens")
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platters = self.0.lock();
        let from = offset as usize;
        let bytes = platters.written.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().written.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platters = self.0.lock();
        platters.synced = platters.written.clone();
        platters.syncs += 1;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platters = self.0.lock();
        if platters.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let from = offset as usize;
        platters.written[from..from + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.0.lock().is_open = false;
        Ok(())
    }
}

fn put(store: &RedbStore, key: &str, value: &str) -> Result<(), StoreError> {
    let (done, answer) = mpsc::channel();
    let row = Row::put(7, 1, key.as_bytes(), value.as_bytes().to_vec());
    store.commit(vec![row], 1, Box::new(move |_, fate| done.send(fate).expect("the test waits")));
    answer.recv().expect("each commit is answered")
}

fn keys(store: &RedbStore) -> Vec<String> {
    let mut keys = Vec::new();
    let mut visit = |_: u16, key: &[u8], _: &[u8]| keys.push(String::from_utf8_lossy(key).into_owned());
    store.load(0..=4095, 1, &mut visit).expect("loads");
    keys
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    let disk = Disk::default();
    let store = disk.store();
    for n in 0..20 {
        put(&store, &format!("{n:02}"), "v").expect("written");
        // Not closed: the other machine reads what was synced at the moment of the answer.
        let found = disk.after_power_cut().store();
        assert_eq!(keys(&found).len(), n + 1, "after commit {n}");
        assert_eq!(found.meta().start, 2);
    }
}

#[test]
fn a_full_disk_fails_commits_and_room_again_heals_without_a_restart() {
    let disk = Disk::default();
    let store = disk.store();
    put(&store, "before", "v").expect("written");
    disk.set_full(true);
    for n in 0..3 {
        let fate = put(&store, &format!("lost{n}"), "v");
        assert!(matches!(fate, Err(StoreError::Io { .. })), "{fate:?}");
    }
    disk.set_full(false);
    put(&store, "after", "v").expect("written again");
    assert_eq!(keys(&store), ["after", "before"]);
    assert_eq!(store.figures().failures, 3);
    assert_eq!(store.meta().start, 1, "opening again is no new start");
    store.shutdown().expect("closes");
    assert_eq!(keys(&disk.store()), ["after", "before"]);
}

#[test]
fn a_thousand_commits_at_once_take_few_syncs() {
    let disk = Disk::default();
    let options = RedbOptions { group_span: Duration::from_millis(50), ..RedbOptions::default() };
    let store = RedbStore::open_with(disk.opener(), "disk".into(), options).expect("opens");
    let before = disk.0.lock().syncs;
    for n in 0..1_000_u32 {
        store.commit(
            vec![Row::put(1, 1, n.to_be_bytes(), vec![0; 64])],
            1,
            Box::new(|_, fate| assert!(fate.is_ok())),
        );
    }
    store.flush().expect("flushes");
    let figures = store.figures();
    assert_eq!((figures.rows, figures.waiting_rows), (1_000, 0));
    let syncs = disk.0.lock().syncs - before;
    assert!(syncs <= 20, "{syncs} syncs for {} groups", figures.groups);
}

#[test]
fn rows_to_be_kept_outlive_a_full_disk_and_the_state_tells_of_the_trouble() {
    let disk = Disk::default();
    let store = disk.store();
    disk.set_full(true);
    let (done, answer) = mpsc::channel();
    let row = Row::put(7, 1, *b"kept", b"v".to_vec());
    store.keep(vec![row], 1, Box::new(move |_, fate| done.send(fate).expect("the test waits")));
    assert!(answer.recv().expect("answered").is_err(), "whoever wants to know is told at once");
    assert!(put(&store, "awaited", "v").is_err());
    let state = store.state();
    assert!(matches!(state.failure, Some(StoreError::Io { .. })), "{state:?}");
    assert_eq!((state.kept_rows, state.lost_rows), (1, 0));
    assert!(state.failures >= 2);
    disk.set_full(false);
    store.flush().expect("the disk is back");
    assert_eq!(keys(&store), ["kept"]);
    let state = store.state();
    assert_eq!((state.failure, state.kept_rows), (None, 0));
}
