//! Rows in one redb file: one writer thread, group commit, reads on the caller's thread.

use std::{
    fs::{File, OpenOptions},
    io,
    ops::{Bound, RangeInclusive},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crossbeam::channel::{Sender, TrySendError, bounded};
use parking_lot::{Mutex, RwLock};
use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
    backends::FileBackend,
};

use crate::{
    FORMAT, Meta, Reply, Row, StateStore, StoreError, Visit,
    row::{PREFIX_BYTES, is_volatile, prefix},
    writer::{self, Counters, Gathering, Job},
};

/// The store of a single machine.
pub struct RedbStore {
    engine: Arc<Engine>,
    counters: Arc<Counters>,
    waiting_limit: usize,
    meta: Meta,
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
    /// Rows that may wait; commits over it are refused in their turn with [`StoreError::Overloaded`].
    pub waiting_rows: usize,
    /// Commits that may wait, refused ones too; about 100 octets each. Over it the refusal comes at once.
    pub waiting_commits: usize,
    /// Page cache in octets.
    pub cache_bytes: usize,
    /// What a file without an [`Meta::id`] gets; 0 for none.
    pub new_id: u64,
    /// The file must have this id; one that has another is refused with [`StoreError::Foreign`] and left as it is.
    pub expected_id: Option<u64>,
    /// A new file takes the place of one that was lost: it is not [complete](Meta::is_complete).
    pub replaces_lost: bool,
}

impl Default for RedbOptions {
    fn default() -> Self {
        Self {
            group_rows: 5_000,
            group_span: Duration::from_millis(5),
            waiting_rows: 500_000,
            waiting_commits: 65_536,
            cache_bytes: 64 << 20,
            new_id: 0,
            expected_id: None,
            replaces_lost: false,
        }
    }
}

/// What the writer did since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedbFigures {
    /// Rows that wait to be written.
    pub waiting_rows: usize,
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
    /// Counts the start: [`Meta::start`] is on disk when this returns. After a crash the whole file is read, which takes
    /// about 0.3 s for 300 MiB.
    pub fn open(path: &Path, options: RedbOptions) -> Result<Self, StoreError> {
        let name = path.display().to_string();
        let path = path.to_owned();
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(io_error)?;
        }
        let opener = move || open_file(&path, options.cache_bytes);
        Self::open_with(Box::new(opener), name, options)
    }

    /// Opens whatever `opener` gives, which is called again after a failed write.
    pub(crate) fn open_with(opener: Opener, name: String, options: RedbOptions) -> Result<Self, StoreError> {
        let database = opener().map_err(|error| open_error(&name, error))?;
        let meta = begin_start(&database, &name, &options)?;
        let engine = Arc::new(Engine {
            database: RwLock::new(Some(database)),
            opener,
            name,
            wall_mark: AtomicU64::new(meta.wall_mark.unwrap_or(0)),
            has_missing: AtomicBool::new(!meta.is_complete),
        });
        let counters = Arc::<Counters>::default();
        let (sender, jobs) = bounded(options.waiting_commits.max(1));
        let gathering = Gathering { rows: options.group_rows.max(1), span: options.group_span };
        let (of_writer, counted) = (engine.clone(), counters.clone());
        let mut marked = Marks { wall: meta.wall_mark.unwrap_or(0), has_missing: !meta.is_complete };
        let writer = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                writer::run(&jobs, gathering, &counted, |rows| of_writer.write(rows, &mut marked));
            })
            .map_err(io_error)?;
        Ok(Self {
            engine,
            counters,
            waiting_limit: options.waiting_rows,
            meta,
            jobs: RwLock::new(Some(sender)),
            writer: Mutex::new(Some(writer)),
        })
    }

    /// What the writer did so far.
    pub fn figures(&self) -> RedbFigures {
        RedbFigures {
            waiting_rows: self.counters.waiting_rows.load(Ordering::Relaxed),
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
        let waiting = self.counters.waiting_rows.load(Ordering::Relaxed);
        let mut refused = None;
        // One commit larger than the limit still passes when nothing else waits.
        if waiting > 0 && waiting + rows.len() > self.waiting_limit {
            refused = Some(StoreError::Overloaded { waiting, limit: self.waiting_limit });
            rows = Vec::new();
        }
        let count = rows.len();
        self.counters.waiting_rows.fetch_add(count, Ordering::Relaxed);
        let Err(unsent) = sender.try_send(Job::Commit { rows, token, reply, refused }) else { return };
        // Not under the lock: an answer may commit again.
        drop(jobs);
        self.counters.waiting_rows.fetch_sub(count, Ordering::Relaxed);
        let failure = match &unsent {
            TrySendError::Full(_) => StoreError::Overloaded { waiting, limit: self.waiting_limit },
            // The writer outlives every sender, so this means that its thread was lost.
            TrySendError::Disconnected(_) => StoreError::Closed,
        };
        if let Job::Commit { reply, .. } = unsent.into_inner() {
            reply(token, Err(failure));
        }
    }

    fn load(
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
        let rows =
            read.open_table(if is_volatile(table) { VOLATILE } else { STEADY }).map_err(engine_error)?;
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
                visit(partition, &key.value()[PREFIX_BYTES..], value.value());
            }
        }
        Ok(())
    }

    fn meta(&self) -> Meta {
        self.meta
    }

    fn note_missing(&self) {
        self.engine.has_missing.store(true, Ordering::Relaxed);
    }

    fn mark_wall(&self, unix_seconds: u64) {
        self.engine.wall_mark.store(unix_seconds, Ordering::Relaxed);
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

impl Drop for RedbStore {
    fn drop(&mut self) {
        if let Err(error) = self.shutdown() {
            tracing::error!(%error, "the store was closed with a failed flush");
        }
    }
}

/// Opens the engine.
pub(crate) type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// The open database, and how to open it again.
struct Engine {
    /// `None` after shutdown, and after a failed write until it opens again.
    database: RwLock<Option<Database>>,
    opener: Opener,
    name: String,
    /// Seconds since the Unix epoch; 0 when never set.
    wall_mark: AtomicU64,
    has_missing: AtomicBool,
}

/// What the store notes about itself besides rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Marks {
    /// Seconds since the Unix epoch; 0 when never set.
    wall: u64,
    has_missing: bool,
}

impl Engine {
    /// Writes a group, and the marks if they changed. After a failure the engine is opened again, because it refuses all
    /// work after an I/O error, although a disk that was full may have room again.
    fn write(&self, rows: Vec<Row>, marked: &mut Marks) -> Result<(), StoreError> {
        let marks = Marks {
            wall: self.wall_mark.load(Ordering::Relaxed),
            has_missing: self.has_missing.load(Ordering::Relaxed),
        };
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
        result
    }

    fn reopen_if_closed(&self) -> Result<(), StoreError> {
        let mut database = self.database.write();
        if database.is_none() {
            *database = Some((self.opener)().map_err(|error| open_error(&self.name, error))?);
            tracing::warn!(path = %self.name, "the store was opened again after a failed write");
        }
        Ok(())
    }
}

/// Rarely written: authorizations, dialogs.
const STEADY: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("identity");
/// Often written: expiries, CSeq.
const VOLATILE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("volatile");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

fn open_file(path: &Path, cache_bytes: usize) -> Result<Database, DatabaseError> {
    let is_new = !path.exists();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let storage = |error: io::Error| DatabaseError::Storage(StorageError::Io(error));
    let file = options.open(path).map_err(storage)?;
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    let name = path.display().to_string();
    builder.set_repair_callback(move |repair| {
        tracing::info!(path = %name, progress = repair.progress(), "the store was not closed and is being checked");
    });
    let database = builder.create_with_backend(FileBackend::new(file)?)?;
    if is_new && let Some(parent) = path.parent() {
        // The name of a new file is durable only when its directory is.
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        File::open(parent).and_then(|directory| directory.sync_all()).map_err(storage)?;
    }
    Ok(database)
}

/// Checks the format, makes the tables, and counts this start durably.
fn begin_start(database: &Database, name: &str, options: &RedbOptions) -> Result<Meta, StoreError> {
    let mut transaction = database.begin_write().map_err(engine_error)?;
    transaction.set_durability(Durability::Immediate).map_err(engine_error)?;
    let meta = {
        transaction.open_table(STEADY).map_err(engine_error)?;
        transaction.open_table(VOLATILE).map_err(engine_error)?;
        let mut meta = transaction.open_table(META).map_err(engine_error)?;
        let read = |key| -> Result<Option<u64>, StoreError> {
            Ok(meta.get(key).map_err(engine_error)?.map(|value| value.value()))
        };
        let (format, starts, wall_mark) = (read("format")?, read("start")?, read("wall_mark")?);
        let (id, missing) = (read("id")?, read("missing")?);
        let found = format.unwrap_or(FORMAT);
        if found != FORMAT {
            return Err(StoreError::Format { path: name.to_owned(), found });
        }
        if options.expected_id.is_some_and(|expected| id != Some(expected)) {
            return Err(StoreError::Foreign { path: name.to_owned() });
        }
        let start = starts.unwrap_or(0) + 1;
        let id = id.unwrap_or(options.new_id);
        let has_missing = missing.is_some() || (starts.is_none() && options.replaces_lost);
        let mut write = |key, value| meta.insert(key, value).map(drop).map_err(engine_error);
        write("format", FORMAT)?;
        write("start", start)?;
        write("id", id)?;
        if has_missing {
            write("missing", 1)?;
        }
        Meta { start, wall_mark, id, is_complete: !has_missing }
    };
    transaction.commit().map_err(engine_error)?;
    Ok(meta)
}

/// One durable transaction with all rows, in the order of their keys.
fn write_group(database: &Database, rows: Vec<Row>, marks: Option<Marks>) -> Result<(), StoreError> {
    let mut transaction = database.begin_write().map_err(engine_error)?;
    transaction.set_durability(Durability::Immediate).map_err(engine_error)?;
    {
        let (volatile, steady): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(Row::is_volatile);
        for (definition, rows) in [(STEADY, steady), (VOLATILE, volatile)] {
            if rows.is_empty() {
                continue;
            }
            let mut table = transaction.open_table(definition).map_err(engine_error)?;
            for (key, row) in writer::sorted(rows) {
                match &row.value {
                    Some(value) => {
                        _ = table.insert(key.as_slice(), value.as_slice()).map_err(engine_error)?
                    }
                    None => _ = table.remove(key.as_slice()).map_err(engine_error)?,
                }
            }
        }
        if let Some(marks) = marks {
            let mut meta = transaction.open_table(META).map_err(engine_error)?;
            meta.insert("wall_mark", marks.wall).map_err(engine_error)?;
            if marks.has_missing {
                meta.insert("missing", 1).map_err(engine_error)?;
            }
        }
    }
    transaction.commit().map_err(engine_error)
}

fn open_error(name: &str, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::AlreadyOpen { path: name.to_owned() },
        other => engine_error(other),
    }
}

/// What the engine says, sorted by who can act: the disk or the file.
fn engine_error(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Io(error) => io_error(error),
        redb::Error::PreviousIo => StoreError::Io { cause: "an earlier write failed".into() },
        redb::Error::DatabaseClosed => StoreError::Closed,
        other => StoreError::Damaged { cause: other.to_string() },
    }
}

fn io_error(error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::InvalidData => StoreError::Damaged { cause: error.to_string() },
        _ => StoreError::Io { cause: error.to_string() },
    }
}

#[cfg(test)]
#[path = "redb_faults.rs"]
mod faults;
