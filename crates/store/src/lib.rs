//! Durable rows: (partition, table, key) to value, committed in groups and answered in order.
//!
//! Rows and a token go in, `Persisted` comes back through a callback. What a row means is the business of who writes it;
//! nothing here knows presence, SIP or XMPP.

mod checksum;
mod complete;
mod inspect;
mod kept_rows;
mod memory;
mod overlay;
mod redb_file;
mod redb_store;
mod row;
mod writer;

use std::ops::RangeInclusive;

use tombolo_presence::ClockMark;

pub use complete::{Declared, declare_complete};
pub use inspect::{Inspection, check, salvage};
pub use memory::{MemoryStore, Outcome, RunLater};
pub use redb_store::{DamagedRow, RedbFigures, RedbOptions, RedbStore};
pub use row::{FIRST_VOLATILE_TABLE, Row};

/// Where rows are kept. One per process, shared by all shards.
pub trait StateStore: Send + Sync {
    /// Writes all of `rows` or none, and calls `reply` with `token` when they are on disk or lost.
    ///
    /// Answers come in the order of the commits of one submitter, refusals too; only that the store is closed, or as full
    /// as it can get, may be said at once. `reply` runs on the store's own thread
    /// (or inside this call, in memory) and must not block: it puts a value into an inbox. Never blocks itself. Of two
    /// rows of one call with the same key the later one counts. An empty `rows` is answered in its turn.
    fn commit(&self, rows: Vec<Row>, token: u64, reply: Reply);

    /// Writes rows for which nobody's request waits. Those that cannot be written are kept, and written when the disk takes
    /// them again, unless a newer one of their key is. Answered as [`StateStore::commit`] is: a failure means that they
    /// are not on disk yet.
    fn keep(&self, rows: Vec<Row>, token: u64, reply: Reply);

    /// Shows every row of `table` in these partitions, by partition and then by key, as (partition, key, value).
    ///
    /// Sees what was committed when it began. Runs on the caller's thread and reads from disk. Rows that do not match their
    /// checksums are passed over, and [`StateStore::set_damaged_aside`] names them.
    fn load(
        &self,
        partitions: RangeInclusive<u16>,
        table: u8,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError>;

    /// Puts the damaged rows that were found so far where nobody reads them, and names them.
    fn set_damaged_aside(&self) -> Result<Vec<DamagedRow>, StoreError>;

    /// What the store knew when it was opened.
    fn meta(&self) -> Meta;

    /// Notes that rows of this store are missing: [`Meta::is_complete`] is false at every later start. Lazy: it rides with
    /// the next commit or flush.
    fn note_missing(&self);

    /// Notes the clocks for [`Meta::mark`] of the next start. Lazy: it rides with the next commit or flush.
    fn mark_clock(&self, mark: ClockMark);

    /// How the store is doing.
    fn state(&self) -> StoreState;

    /// Waits until everything handed in so far is on disk and answered.
    fn flush(&self) -> Result<(), StoreError>;

    /// Flushes, answers everything and closes. Later calls fail with [`StoreError::Closed`]; a second shutdown does
    /// nothing.
    fn shutdown(&self) -> Result<(), StoreError>;
}

/// Who hears the fate of a commit: its token, and whether it is on disk.
pub type Reply = Box<dyn FnOnce(u64, Result<(), StoreError>) + Send>;

/// Who is shown a row: partition, key, value.
pub type Visit<'a> = dyn FnMut(u16, &[u8], &[u8]) + 'a;

/// What the store knew when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// How many times it was opened, this time included: 1 for a new store. Row generations begin with it.
    pub start: u64,
    /// The clocks when rows were written last before this start, or a little earlier.
    pub mark: Option<ClockMark>,
    /// Tells this store from others. 0 for one in memory and for one that was begun without.
    pub id: u64,
    /// False when rows may be missing: rows were damaged, or the store was begun in place of one that was lost. What is
    /// not in it may exist all the same.
    pub is_complete: bool,
}

/// How a store is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreState {
    /// Why the last write failed; `None` once one succeeds.
    pub failure: Option<StoreError>,
    /// Writes that failed since the start.
    pub failures: u64,
    /// Rows that wait for the disk to take them again.
    pub kept_rows: usize,
    /// Rows for which there was no room to wait.
    pub lost_rows: u64,
    /// The number of the write that is going on. The same number for long means that the disk gives no answer.
    pub writing: Option<u64>,
}

/// Why the store cannot do what is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another process, or this one, has the file open.
    #[error("{path} is already open: one process at a time may use it")]
    AlreadyOpen {
        /// The file.
        path: String,
    },
    /// The file was written by another version, or is no store at all.
    #[error("{path} has format {found}, this version reads {FORMAT}")]
    Format {
        /// The file.
        path: String,
        /// The number in it.
        found: u64,
    },
    /// The file is a store, but another than the one that is expected.
    #[error("{path} is another store than the one that was used here before")]
    Foreign {
        /// The file.
        path: String,
    },
    /// The file is damaged.
    #[error("the store is damaged: {cause}")]
    Damaged {
        /// What the engine says.
        cause: String,
    },
    /// Reading or writing failed; nothing of this commit was acknowledged.
    #[error("the store cannot read or write: {cause}")]
    Io {
        /// What the system says.
        cause: String,
    },
    /// So many rows wait that more are refused.
    #[error("{waiting} rows wait to be written, the limit is {limit}")]
    Overloaded {
        /// Rows that wait.
        waiting: usize,
        /// The most that may.
        limit: usize,
    },
    /// Rows that wait take so much memory that more are refused.
    #[error("rows of {octets} octets wait to be written, the limit is {limit}")]
    Full {
        /// Octets that wait.
        octets: usize,
        /// The most that may.
        limit: usize,
    },
    /// The store was shut down.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Names the file of an error of the system, unless it is named.
    pub(crate) fn of_file(self, path: &str) -> Self {
        match self {
            Self::Io { cause } if !cause.contains(path) => Self::Io { cause: format!("{path}: {cause}") },
            other => other,
        }
    }
}

/// The number of the layout of keys and tables in the file.
pub(crate) const FORMAT: u64 = 2;
