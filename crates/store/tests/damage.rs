//! Damaged files: whatever was altered, the store says so or keeps every row, and never panics.

mod common;

use std::{collections::BTreeMap, path::Path};

use common::{Scratch, commit};
use tombolo_store::{
    FIRST_VOLATILE_TABLE, RedbOptions, RedbStore, Row, StateStore, StoreError, check, salvage,
};

const TABLES: [u8; 3] = [1, 2, FIRST_VOLATILE_TABLE];

/// (partition, table, key) to value.
type Rows = BTreeMap<(u16, u8, Vec<u8>), Vec<u8>>;

fn open(path: &Path) -> Result<RedbStore, StoreError> {
    RedbStore::open(path, RedbOptions::default())
}

fn rows_of(store: &RedbStore) -> Result<Rows, StoreError> {
    let mut rows = Rows::new();
    for table in TABLES {
        store.load(0..=4095, table, &mut |partition, key, value| {
            rows.insert((partition, table, key.to_vec()), value.to_vec());
        })?;
    }
    Ok(rows)
}

/// A file of some pages, closed in order; what is in it.
fn write_file(path: &Path) -> Rows {
    let store = open(path).expect("opens");
    let rows: Rows = (0..1500_u32)
        .map(|n| {
            let partition = (n * 37 % 4096) as u16;
            let value = format!("row {n} {}", "x".repeat((n % 90) as usize));
            ((partition, TABLES[n as usize % 3], n.to_be_bytes().to_vec()), value.into_bytes())
        })
        .collect();
    let put = |((partition, table, key), value): (&(u16, u8, Vec<u8>), &Vec<u8>)| {
        Row::put(*partition, *table, key.clone(), value.clone())
    };
    commit(&store, rows.iter().map(put).collect()).expect("written");
    store.shutdown().expect("closed");
    rows
}

struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % most
    }
}

/// Damages octets by this seed; how.
fn damage(octets: &mut Vec<u8>, seed: u64) -> String {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    random.below(2);
    match seed % 5 {
        0 => {
            let len = random.below(octets.len());
            octets.truncate(len);
            format!("cut to {len}")
        }
        1 => {
            let at = random.below(octets.len());
            let end = (at + 1 + random.below(5000)).min(octets.len());
            octets[at..end].fill(0);
            format!("zeros from {at} to {end}")
        }
        _ => {
            let bits = [1, 1, 10, 200][random.below(4)];
            // Half of the files are hit where the newest pages are.
            let span = if random.below(2) == 0 { octets.len() } else { octets.len().min(200_000) };
            for _ in 0..bits {
                octets[random.below(span)] ^= 1 << random.below(8);
            }
            format!("{bits} bits")
        }
    }
}

fn seeds() -> u64 {
    std::env::var("TOMBOLO_SEEDS").map_or(60, |text| text.parse().expect("a number of seeds"))
}

#[test]
fn an_altered_file_is_refused_or_keeps_every_row_and_what_is_salvaged_is_true() {
    let scratch = Scratch::new("damage");
    let whole = scratch.0.join("whole.redb");
    let rows = write_file(&whole);
    let octets = std::fs::read(&whole).expect("read");
    let (mut refused, mut kept, mut salvaged) = (0, 0, 0);
    for seed in 1..=seeds() {
        let path = scratch.0.join("altered.redb");
        let mut altered = octets.clone();
        let how = damage(&mut altered, seed);
        std::fs::write(&path, &altered).expect("written");
        let looked_at = check(&path);
        assert_eq!(std::fs::read(&path).expect("read"), altered, "seed {seed}: a check writes nothing");
        match open(&path) {
            Ok(store) => {
                kept += 1;
                let found = rows_of(&store).unwrap_or_else(|error| panic!("seed {seed}, {how}: {error}"));
                let missing = rows.len() - found.len();
                let named = store.set_damaged_aside().expect("set aside").len();
                let is_new = altered.is_empty();
                assert!(missing == named || is_new, "seed {seed}, {how}: {missing} missing, {named} named");
                assert!(found.iter().all(|(key, value)| rows.get(key) == Some(value)), "seed {seed}, {how}");
                store.shutdown().expect("closed");
            }
            Err(StoreError::Damaged { .. } | StoreError::Format { .. }) => {
                refused += 1;
                assert!(
                    looked_at.is_ok_and(|found| !found.is_sound()),
                    "seed {seed}, {how}: the check says so"
                );
                // An opening that was refused may have begun a repair.
                std::fs::write(&path, &altered).expect("written");
                let Ok((found, old)) = salvage(&path) else { continue };
                salvaged += 1;
                assert_eq!(std::fs::read(&old).expect("read"), altered, "seed {seed}: it is kept");
                let store = open(&path).unwrap_or_else(|error| panic!("seed {seed}, {how}: {error}"));
                assert!(!store.meta().is_complete, "seed {seed}, {how}");
                let rescued = rows_of(&store).expect("loads");
                assert_eq!(rescued.len() as u64, found.rows.values().sum::<u64>(), "seed {seed}, {how}");
                assert!(
                    rescued.iter().all(|(key, value)| rows.get(key) == Some(value)),
                    "seed {seed}, {how}"
                );
                std::fs::remove_file(old).expect("removed");
            }
            Err(other) => panic!("seed {seed}, {how}: {other:?}"),
        }
        let _ = std::fs::remove_file(&path);
    }
    assert!(refused > 0 && kept > 0 && salvaged > 0, "{refused} refused, {kept} kept, {salvaged} salvaged");
}

#[test]
fn a_sound_file_is_found_sound_with_all_its_rows_and_one_in_use_is_not_looked_at() {
    let scratch = Scratch::new("sound");
    let rows = write_file(&scratch.file());
    let found = check(&scratch.file()).expect("readable");
    assert!(found.is_sound() && found.damaged.is_empty(), "{found:?}");
    assert_eq!((found.format, found.start), (Some(2), Some(1)));
    assert_eq!(found.rows.values().sum::<u64>(), rows.len() as u64);
    let store = open(&scratch.file()).expect("opens");
    assert!(matches!(check(&scratch.file()), Err(StoreError::AlreadyOpen { .. })));
    assert!(matches!(salvage(&scratch.file()), Err(StoreError::AlreadyOpen { .. })));
    drop(store);
    let (found, old) = salvage(&scratch.file()).expect("salvaged");
    assert_eq!(found.rows.values().sum::<u64>(), rows.len() as u64);
    assert!(old.exists());
    let store = open(&scratch.file()).expect("opens");
    assert_eq!(rows_of(&store).expect("loads"), rows);
    assert!(store.meta().start > 2, "starts count on");
}
