//! Rows that wait for a disk which does not take them, the newest of each key.
//!
//! Rows go in while there is room in number and in octets; what is written or replaced goes out.

use std::collections::BTreeMap;

use crate::{Row, row::octets_of};

/// Rows by their keys in the engine.
#[derive(Debug, Default)]
pub(crate) struct KeptRows {
    rows: BTreeMap<Vec<u8>, Row>,
    octets: usize,
}

impl KeptRows {
    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What they take.
    pub(crate) fn octets(&self) -> usize {
        self.octets
    }

    /// Puts rows in, each in place of an older one; the number of those without room. One that replaces another is no
    /// further row, but its octets need room.
    pub(crate) fn keep(&mut self, rows: Vec<Row>, most_rows: usize, most_octets: usize) -> u64 {
        let mut lost = 0;
        for row in rows {
            let key = row.engine_key();
            let old = self.rows.get(&key).map(octets_of);
            let others = self.octets - old.unwrap_or(0);
            let has_room = (old.is_some() || self.rows.len() < most_rows)
                && others.saturating_add(octets_of(&row)) <= most_octets;
            if has_room {
                self.octets = others + octets_of(&row);
                self.rows.insert(key, row);
            } else {
                // An older row of its key stays, which is still newer than what is on disk.
                lost += 1;
            }
        }
        lost
    }

    /// A newer row of this key is stored, or waits elsewhere.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        if let Some(row) = self.rows.remove(key) {
            self.octets -= octets_of(&row);
        }
    }

    /// Takes all of `newer`, whose rows replace those here.
    pub(crate) fn append(&mut self, newer: &mut Self) {
        for (key, row) in std::mem::take(newer).rows {
            self.remove(&key);
            self.octets += octets_of(&row);
            self.rows.insert(key, row);
        }
    }

    /// The first rows, up to so many and so many octets, but at least one.
    pub(crate) fn first(&self, most_rows: usize, most_octets: usize) -> Vec<Row> {
        let mut octets = 0_usize;
        let fits = |row: &&Row| {
            let is_first = octets == 0;
            octets = octets.saturating_add(octets_of(row));
            is_first || octets <= most_octets
        };
        self.rows.values().take(most_rows).take_while(fits).cloned().collect()
    }

    /// The first rows are written.
    pub(crate) fn remove_first(&mut self, count: usize) {
        for _ in 0..count {
            if let Some((_, row)) = self.rows.pop_first() {
                self.octets -= octets_of(&row);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: u8, len: usize) -> Row {
        Row::put(1, 1, [key], vec![0; len])
    }

    #[test]
    fn octets_are_counted_whatever_is_replaced_taken_or_written() {
        let mut kept = KeptRows::default();
        assert_eq!(kept.keep((0..10).map(|key| row(key, 1000)).collect(), 100, usize::MAX), 0);
        let one = octets_of(&row(0, 1000));
        assert_eq!(kept.octets(), 10 * one);
        kept.keep(vec![row(0, 2000)], 100, usize::MAX);
        assert_eq!((kept.len(), kept.octets()), (10, 10 * one + 1000));
        let mut newer = KeptRows::default();
        newer.keep(vec![row(0, 10), row(99, 1000)], 100, usize::MAX);
        kept.append(&mut newer);
        assert_eq!((kept.len(), kept.octets(), newer.octets()), (11, 11 * one - 990, 0));
        kept.remove(row(99, 0).engine_key().as_slice());
        assert_eq!(kept.first(100, 3 * one).len(), 3);
        assert_eq!(kept.first(100, 1).len(), 1, "one at least");
        kept.remove_first(9);
        assert_eq!((kept.len(), kept.octets()), (1, one));
    }

    #[test]
    fn what_has_no_room_in_octets_is_lost_and_an_older_row_of_its_key_stays() {
        let mut kept = KeptRows::default();
        let most = 2 * octets_of(&row(0, 1000));
        assert_eq!(kept.keep(vec![row(0, 1000), row(1, 1000), row(2, 1)], 100, most), 1);
        assert_eq!(kept.keep(vec![row(0, 1001)], 100, most), 1);
        assert_eq!((kept.len(), kept.octets()), (2, most));
        assert_eq!(kept.keep(vec![row(0, 900)], 100, most), 0);
    }
}
