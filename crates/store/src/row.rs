//! One row, and its key as the engine sorts it.

/// One row to write, or to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Who owns it: the partition of the local address (0 to 4095).
    pub partition: u16,
    /// Which table: below [`FIRST_VOLATILE_TABLE`] for what changes rarely, from there on for what changes all the time.
    pub table: u8,
    /// The key within partition and table.
    pub key: Box<[u8]>,
    /// The value; `None` deletes the row.
    pub value: Option<Vec<u8>>,
}

/// Tables from this number on are kept apart from the others: small rows that are rewritten often (expiry, CSeq), so
/// that they do not drag the large and steady ones (authorizations, dialogs) through the disk each time.
pub const FIRST_VOLATILE_TABLE: u8 = 128;

impl Row {
    /// A row to write.
    pub fn put(partition: u16, table: u8, key: impl Into<Box<[u8]>>, value: Vec<u8>) -> Self {
        Self { partition, table, key: key.into(), value: Some(value) }
    }

    /// A row to delete; it need not exist.
    pub fn delete(partition: u16, table: u8, key: impl Into<Box<[u8]>>) -> Self {
        Self { partition, table, key: key.into(), value: None }
    }

    pub(crate) fn is_volatile(&self) -> bool {
        is_volatile(self.table)
    }

    /// The key in the engine: partition, table, key. Sorted bytes, so a partition lies together.
    pub(crate) fn engine_key(&self) -> Vec<u8> {
        let mut key = prefix(self.partition, self.table).to_vec();
        key.extend_from_slice(&self.key);
        key
    }
}

/// What rows take in memory while they wait.
pub(crate) fn octets(rows: &[Row]) -> usize {
    rows.iter().map(octets_of).sum()
}

/// What one row takes in memory while it waits: its key a second time where it is sorted by it.
pub(crate) fn octets_of(row: &Row) -> usize {
    ROW_OCTETS + 2 * row.key.len() + row.value.as_ref().map_or(0, Vec::len)
}

/// What a row takes besides its key and value, with its place in a queue or a map.
const ROW_OCTETS: usize = 128;

/// True for tables that are rewritten often.
pub(crate) fn is_volatile(table: u8) -> bool {
    table >= FIRST_VOLATILE_TABLE
}

/// How every engine key of one partition and table begins.
pub(crate) fn prefix(partition: u16, table: u8) -> [u8; PREFIX_BYTES] {
    let [high, low] = partition.to_be_bytes();
    [high, low, table]
}

/// Length of the prefix.
pub(crate) const PREFIX_BYTES: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_keys_sort_by_partition_then_table_then_key() {
        let rows = [
            (0, 0, "b"),
            (0, 1, "a"),
            (1, 0, ""),
            (1, 0, "a"),
            (255, 200, "z"),
            (256, 0, "a"),
            (4095, 255, ""),
        ];
        let keys: Vec<Vec<u8>> = rows
            .iter()
            .map(|(partition, table, key)| Row::delete(*partition, *table, key.as_bytes()).engine_key())
            .collect();
        assert!(keys.is_sorted());
    }
}
