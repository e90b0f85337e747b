//! Rows in one redb file: one writer thread, group commit, reads on the caller's thread.

use std::{
    ops::{Bound, RangeInclusive},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crossbeam::channel::{Sender, TrySendError, bounded};
use parking_lot::{Mutex, RwLock};
use redb::{Database, DatabaseError, ReadableDatabase};
use tombolo_presence::ClockMark;

use crate::{
    Meta, Reply, Row, StateStore, StoreError, StoreState, Visit, checksum,
    kept_rows::KeptRows,
    redb_file::{
        Marks, Opened, RowTable, STEADY, VOLATILE, begin_start, engine_error, guarded, io_error, open_error,
        open_file, set_aside, write_group,
    },
    row::{PREFIX_BYTES, is_volatile, octets, prefix},
    writer::{self, Counters, Gathering, Job},
};

/// The store of a single machine.
pub struct RedbStore {
    engine: Arc<Engine>,
    counters: Arc<Counters>,
    waiting_limit: usize,
    octets_limit: usize,
    meta: Meta,
    /// Rows to be kept for which the queue had no room: newer than all in it.
    late: Arc<Mutex<KeptRows>>,
    /// Rows that did not match their checksums when they were loaded.
    damaged: Mutex<Vec<Damaged>>,
    /// `None` after shutdown.
    jobs: RwLock<Option<Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// How a [`RedbStore`] gathers and how much it keeps in memory.
#[derive(Debug, Clone, Copy)]
pub struct RedbOptions {
    /// Rows in one group commit.
    pub group_rows: usize,
    /// How long the first commit of a group waits for others.
    pub group_span: Duration,
    /// Rows that may wait; commits over it are refused in their turn with [`StoreError::Overloaded`]. As many more may be
    /// kept while the disk does not take them, and again as many that find no place in the queue.
    pub waiting_rows: usize,
    /// Octets of the rows that may wait, in the queue or while the disk does not take them; commits over it are refused in
    /// their turn with [`StoreError::Full`]. As many more may be kept that find no place in the queue, so that all rows in
    /// memory take twice that and a group.
    pub waiting_octets: usize,
    /// Commits that may wait, refused ones too; about 100 octets each. Over it the refusal comes at once.
    pub waiting_commits: usize,
    /// Page cache in octets.
    pub cache_bytes: usize,
    /// What a file without an [`Meta::id`] gets; 0 for none.
    pub new_id: u64,
    /// The file must have this id; one that has another is refused with [`StoreError::Foreign`] and left as it is.
    pub expected_id: Option<u64>,
    /// A new file may lack grants that were made before it: it is not [complete](Meta::is_complete).
    pub begins_incomplete: bool,
}

impl Default for RedbOptions {
    fn default() -> Self {
        Self {
            group_rows: 5_000,
            group_span: Duration::from_millis(5),
            waiting_rows: 500_000,
            waiting_octets: 128 << 20,
            waiting_commits: 65_536,
            cache_bytes: 64 << 20,
            new_id: 0,
            expected_id: None,
            begins_incomplete: false,
        }
    }
}

/// What the writer did since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedbFigures {
    /// Rows that wait to be written.
    pub waiting_rows: usize,
    /// Octets of all rows in memory: of those, and of those that are kept for a disk that is back.
    pub held_octets: usize,
    /// Groups that were committed.
    pub groups: u64,
    /// Rows that were committed.
    pub rows: u64,
    /// Groups that failed.
    pub failures: u64,
}

impl RedbStore {
    /// Opens the file at `path`, or makes a new one with its directories, mode 0600.
    ///
    /// Counts the start: [`Meta::start`] is on disk when this returns. The whole file is read and verified, which takes
    /// about 0.3 s for 300 MiB; one that was altered is [`StoreError::Damaged`] and left as it is.
    pub fn open(path: &Path, options: RedbOptions) -> Result<Self, StoreError> {
        let name = path.display().to_string();
        let path = path.to_owned();
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(io_error)?;
        }
        // Verified once: after a failed write the engine verifies by itself.
        let is_verified = AtomicBool::new(false);
        let opener =
            move || open_file(&path, options.cache_bytes, !is_verified.swap(true, Ordering::Relaxed));
        Self::open_with(Box::new(opener), name, options)
    }

    /// Opens whatever `opener` gives, which is called again after a failed write.
    pub(crate) fn open_with(opener: Opener, name: String, options: RedbOptions) -> Result<Self, StoreError> {
        let (database, meta) = guarded(|| {
            let Opened { database, fell_back } = opener().map_err(|error| open_error(&name, error))?;
            if fell_back {
                tracing::warn!(path = %name, "the last commit is torn; the one before it counts");
            }
            let meta = begin_start(&database, &name, &options, fell_back)?;
            Ok((database, meta))
        })?;
        let mut marked = Marks { clock: meta.mark, has_missing: !meta.is_complete };
        let engine = Arc::new(Engine {
            database: RwLock::new(Some(database)),
            opener,
            name,
            marks: Mutex::new(marked),
        });
        let (counters, late) = (Arc::<Counters>::default(), Arc::<Mutex<KeptRows>>::default());
        let (sender, jobs) = bounded(options.waiting_commits.max(1));
        let gathering = Gathering {
            rows: options.group_rows.max(1),
            octets: GROUP_OCTETS,
            span: options.group_span,
            kept_rows: options.waiting_rows,
        };
        let (of_writer, counted, newer) = (engine.clone(), counters.clone(), late.clone());
        let writer = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                writer::run(&jobs, gathering, &counted, &newer, |rows| of_writer.write(rows, &mut marked));
            })
            .map_err(io_error)?;
        Ok(Self {
            engine,
            counters,
            waiting_limit: options.waiting_rows,
            octets_limit: options.waiting_octets,
            meta,
            late,
            damaged: Mutex::default(),
            jobs: RwLock::new(Some(sender)),
            writer: Mutex::new(Some(writer)),
        })
    }

    /// What the writer did so far.
    pub fn figures(&self) -> RedbFigures {
        RedbFigures {
            waiting_rows: self.counters.waiting_rows.load(Ordering::Relaxed),
            held_octets: self.counters.held_octets() + self.late.lock().octets(),
            groups: self.counters.groups.load(Ordering::Relaxed),
            rows: self.counters.rows.load(Ordering::Relaxed),
            failures: self.counters.failures.load(Ordering::Relaxed),
        }
    }
}

impl StateStore for RedbStore {
    /// After a shutdown the answer is [`StoreError::Closed`] at once, and where [`RedbOptions::waiting_commits`] wait,
    /// [`StoreError::Overloaded`]: these two overtake the answers that are still due.
    fn commit(&self, mut rows: Vec<Row>, token: u64, reply: Reply) {
        let jobs = self.jobs.read();
        let Some(sender) = &*jobs else {
            drop(jobs);
            return reply(token, Err(StoreError::Closed));
        };
        let refused = self.refusal(&rows);
        if refused.is_some() {
            rows = Vec::new();
        }
        let (count, octets) = (rows.len(), octets(&rows));
        self.counters.waiting_rows.fetch_add(count, Ordering::Relaxed);
        self.counters.waiting_octets.fetch_add(octets, Ordering::Relaxed);
        let mut late = self.late.lock();
        if !late.is_empty() {
            // These are newer.
            rows.iter().for_each(|row| late.remove(&row.engine_key()));
        }
        let sent = sender.try_send(Job::Commit { rows, token, reply, refused, is_kept: false });
        // Not under the locks: an answer may commit again.
        drop(late);
        drop(jobs);
        let Err(unsent) = sent else { return };
        self.take_back(count, octets);
        let failure = match &unsent {
            TrySendError::Full(_) => self.overloaded(),
            // The writer outlives every sender, so this means that its thread was lost.
            TrySendError::Disconnected(_) => StoreError::Closed,
        };
        if let Job::Commit { reply, .. } = unsent.into_inner() {
            reply(token, Err(failure));
        }
    }

    fn keep(&self, mut rows: Vec<Row>, token: u64, mut reply: Reply) {
        let jobs = self.jobs.read();
        let Some(sender) = &*jobs else {
            drop(jobs);
            return reply(token, Err(StoreError::Closed));
        };
        let refusal = self.refusal(&rows);
        let mut late = self.late.lock();
        if late.is_empty() && refusal.is_none() {
            let (count, octets) = (rows.len(), octets(&rows));
            self.counters.waiting_rows.fetch_add(count, Ordering::Relaxed);
            self.counters.waiting_octets.fetch_add(octets, Ordering::Relaxed);
            let job = Job::Commit { rows, token, reply, refused: None, is_kept: true };
            let Err(unsent) = sender.try_send(job) else { return };
            self.take_back(count, octets);
            let Job::Commit { rows: unsent, reply: unheard, .. } = unsent.into_inner() else { return };
            (rows, reply) = (unsent, unheard);
        }
        let lost = late.keep(rows, self.waiting_limit, self.octets_limit);
        self.counters.lost_rows.fetch_add(lost, Ordering::Relaxed);
        drop(late);
        drop(jobs);
        reply(token, Err(refusal.unwrap_or_else(|| self.overloaded())));
    }

    fn load(
        &self,
        partitions: RangeInclusive<u16>,
        table: u8,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        guarded(|| self.visit_rows(partitions, table, visit))
    }

    fn set_damaged_aside(&self) -> Result<Vec<DamagedRow>, StoreError> {
        let damaged = std::mem::take(&mut *self.damaged.lock());
        if damaged.is_empty() {
            return Ok(Vec::new());
        }
        self.engine.marks.lock().has_missing = true;
        match &*self.engine.database.read() {
            Some(database) => set_aside(database, &damaged)?,
            None => return Err(StoreError::Closed),
        }
        Ok(damaged.iter().filter_map(|(_, key)| DamagedRow::of_engine_key(key)).collect())
    }

    fn meta(&self) -> Meta {
        self.meta
    }

    fn note_missing(&self) {
        self.engine.marks.lock().has_missing = true;
    }

    fn mark_clock(&self, mark: ClockMark) {
        self.engine.marks.lock().clock = Some(mark);
    }

    fn state(&self) -> StoreState {
        let Counters { failures, kept_rows, lost_rows, writing, failure, .. } = &*self.counters;
        StoreState {
            failure: failure.lock().clone(),
            failures: failures.load(Ordering::Relaxed),
            kept_rows: kept_rows.load(Ordering::Relaxed) + self.late.lock().len(),
            lost_rows: lost_rows.load(Ordering::Relaxed),
            writing: Some(writing.load(Ordering::Relaxed)).filter(|number| *number > 0),
        }
    }

    fn flush(&self) -> Result<(), StoreError> {
        let (job, answer) = writer::flush_job();
        // Waits for room in the queue, so not under the lock.
        let sender = self.jobs.read().clone().ok_or(StoreError::Closed)?;
        sender.send(job).map_err(|_| StoreError::Closed)?;
        drop(sender);
        answer.recv().unwrap_or(Err(StoreError::Closed))
    }

    fn shutdown(&self) -> Result<(), StoreError> {
        let Some(sender) = self.jobs.write().take() else { return Ok(()) };
        let (job, answer) = writer::flush_job();
        let flushed =
            if sender.send(job).is_ok() { answer.recv().unwrap_or(Err(StoreError::Closed)) } else { Ok(()) };
        drop(sender);
        if let Some(writer) = self.writer.lock().take() {
            // Every panic inside is caught; a lost thread has nothing more to say.
            let _ = writer.join();
        }
        *self.engine.database.write() = None;
        flushed
    }
}

impl RedbStore {
    /// Why these rows find no room; one commit that is larger than a limit passes when nothing else waits.
    fn refusal(&self, rows: &[Row]) -> Option<StoreError> {
        let waiting = self.counters.waiting_rows.load(Ordering::Relaxed);
        if waiting > 0 && waiting + rows.len() > self.waiting_limit {
            return Some(self.overloaded());
        }
        let (held, limit) = (self.counters.held_octets(), self.octets_limit);
        (held > 0 && held + octets(rows) > limit).then_some(StoreError::Full { octets: held, limit })
    }

    fn overloaded(&self) -> StoreError {
        let waiting = self.counters.waiting_rows.load(Ordering::Relaxed);
        StoreError::Overloaded { waiting, limit: self.waiting_limit }
    }

    /// Rows were counted and are not in the queue.
    fn take_back(&self, rows: usize, octets: usize) {
        self.counters.waiting_rows.fetch_sub(rows, Ordering::Relaxed);
        self.counters.waiting_octets.fetch_sub(octets, Ordering::Relaxed);
    }

    fn visit_rows(
        &self,
        partitions: RangeInclusive<u16>,
        table: u8,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let database = self.engine.database.read();
        let database = database.as_ref().ok_or_else(|| match &*self.jobs.read() {
            Some(_) => StoreError::Io { cause: "an earlier write failed".into() },
            None => StoreError::Closed,
        })?;
        let read = database.begin_read().map_err(engine_error)?;
        let definition = if is_volatile(table) { VOLATILE } else { STEADY };
        let rows = read.open_table(definition).map_err(engine_error)?;
        for partition in partitions {
            let begin = prefix(partition, table);
            // What begins with the prefix ends before the prefix of the next table, or of the next partition.
            let end = match (partition, table) {
                (u16::MAX, u8::MAX) => None,
                (_, u8::MAX) => Some(prefix(partition + 1, 0)),
                _ => Some(prefix(partition, table + 1)),
            };
            let end = end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(&end[..]));
            let range = rows.range::<&[u8]>((Bound::Included(&begin[..]), end)).map_err(engine_error)?;
            for entry in range {
                let (key, value) = entry.map_err(engine_error)?;
                match checksum::unseal(key.value(), value.value()) {
                    Some(value) => visit(partition, &key.value()[PREFIX_BYTES..], value),
                    None => self.damaged.lock().push((definition, key.value().to_vec())),
                }
            }
        }
        Ok(())
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        if let Err(error) = self.shutdown() {
            tracing::error!(%error, "the store was closed with a failed flush");
        }
    }
}

/// Octets of one group: the rows of a group that are kept if it fails are in memory twice while it is written.
const GROUP_OCTETS: usize = 8 << 20;

/// A damaged row: its table in the engine, and its key there.
type Damaged = (RowTable, Vec<u8>);

/// A row that did not match its checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRow {
    /// Its partition.
    pub partition: u16,
    /// Its table.
    pub table: u8,
    /// Its key within partition and table, which may be what was altered.
    pub key: Vec<u8>,
}

impl DamagedRow {
    /// `None` for a key that is too short to name a partition and a table.
    pub(crate) fn of_engine_key(key: &[u8]) -> Option<Self> {
        let (&[high, low, table], key) = key.split_first_chunk()?;
        Some(Self { partition: u16::from_be_bytes([high, low]), table, key: key.to_vec() })
    }
}

/// Opens the engine.
pub(crate) type Opener = Box<dyn Fn() -> Result<Opened, DatabaseError> + Send + Sync>;

/// The open database, and how to open it again.
struct Engine {
    /// `None` after shutdown, and after a failed write until it opens again.
    database: RwLock<Option<Database>>,
    opener: Opener,
    name: String,
    marks: Mutex<Marks>,
}

impl Engine {
    /// Writes a group, and the marks if they changed. After a failure the engine is opened again, because it refuses all
    /// work after an I/O error, although a disk that was full may have room again.
    fn write(&self, rows: Vec<Row>, marked: &mut Marks) -> Result<(), StoreError> {
        let marks = *self.marks.lock();
        if rows.is_empty() && marks == *marked {
            return Ok(());
        }
        self.reopen_if_closed()?;
        // A read guard is enough: this thread is the only one that ever puts another database in its place.
        let result = match &*self.database.read() {
            Some(database) => write_group(database, rows, (marks != *marked).then_some(marks)),
            None => Err(StoreError::Closed),
        };
        match result {
            Ok(()) => *marked = marks,
            Err(_) => *self.database.write() = None,
        }
        result.map_err(|error| error.of_file(&self.name))
    }

    fn reopen_if_closed(&self) -> Result<(), StoreError> {
        let mut database = self.database.write();
        if database.is_none() {
            let opened = (self.opener)().map_err(|error| open_error(&self.name, error))?;
            *database = Some(opened.database);
            // While the disk is full it opens and fails each second; whoever watches the store tells of it once a minute.
            tracing::debug!(path = %self.name, "the store was opened again after a failed write");
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "redb_faults.rs"]
mod faults;
