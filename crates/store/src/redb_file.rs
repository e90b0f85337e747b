//! The redb file itself: opened with every page verified, begun, and brought to this version's format.
//!
//! Layout: table `identity` for rows that change rarely, `volatile` for those that change often, `set-aside` for damaged
//! rows as they were found, `meta` for what the store knows about itself. Since format 2 every value of the first two ends
//! with a checksum.

use std::{
    any::Any,
    fs::{File, OpenOptions},
    io::{self, Read},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use redb::{
    Builder, Database, DatabaseError, Durability, ReadableTable, StorageError, TableDefinition,
    WriteTransaction, backends::FileBackend,
};
use tombolo_presence::{Boot, ClockMark};

use crate::{FORMAT, Meta, RedbOptions, StoreError, checksum, writer};

/// A table of rows.
pub(crate) type RowTable = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Rarely written: authorizations, dialogs.
pub(crate) const STEADY: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("identity");
/// Often written: expiries, CSeq.
pub(crate) const VOLATILE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("volatile");
/// Damaged rows as they were found, by the name of their table, `/` and their key.
pub(crate) const SET_ASIDE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("set-aside");
pub(crate) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// What the store notes about itself besides rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Marks {
    pub(crate) clock: Option<ClockMark>,
    pub(crate) has_missing: bool,
}

/// An open file.
pub(crate) struct Opened {
    pub(crate) database: Database,
    /// The last commit was torn, or altered since: the one before it counts.
    pub(crate) fell_back: bool,
}

/// Opens the file at `path`, made if it does not exist. With `verifies`, every page is checked against its checksum; one
/// that does not match is [`DatabaseError::RepairAborted`] or [`StorageError::Corrupted`], unless a power cut may have
/// torn the last commit.
pub(crate) fn open_file(path: &Path, cache_bytes: usize, verifies: bool) -> Result<Opened, DatabaseError> {
    let is_new = !path.exists();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let storage = |error: io::Error| DatabaseError::Storage(StorageError::Io(error));
    let file = options.open(path).map_err(storage)?;
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes).set_check_integrity_on_open(verifies);
    let fell_back = watch_repair(&mut builder, was_closed(&file).map_err(storage)?);
    let database = builder.create_with_backend(FileBackend::new(file)?)?;
    if is_new && let Some(parent) = path.parent() {
        // The name of a new file is durable only when its directory is.
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        File::open(parent).and_then(|directory| directory.sync_all()).map_err(storage)?;
    }
    Ok(Opened { database, fell_back: fell_back.load(Ordering::Relaxed) })
}

/// True when the process that wrote the file closed it: then its last commit is whole, and what does not verify is damage.
pub(crate) fn was_closed(mut file: &File) -> io::Result<bool> {
    // The engine's header: nine octets of magic, then flags, of which this one is set while the file is open.
    const RECOVERY_REQUIRED: u8 = 2;
    let mut head = [0; 10];
    let mut read = 0;
    while read < head.len() {
        match file.read(&mut head[read..])? {
            0 => return Ok(false),
            len => read += len,
        }
    }
    Ok(head[9] & RECOVERY_REQUIRED == 0)
}

/// Notes when a repair gives up the last commit, and stops it where that commit is known to be whole.
pub(crate) fn watch_repair(builder: &mut Builder, was_closed: bool) -> Arc<AtomicBool> {
    let fell_back = Arc::<AtomicBool>::default();
    let noted = fell_back.clone();
    builder.set_repair_callback(move |repair| {
        // The engine reports this much only when pages of the last commit do not verify.
        if (repair.progress() - GIVES_UP_THE_LAST_COMMIT).abs() < 0.01 {
            noted.store(true, Ordering::Relaxed);
            if was_closed {
                repair.abort();
            }
        }
    });
    fell_back
}

const GIVES_UP_THE_LAST_COMMIT: f64 = 0.3;

/// Runs what reads a file that may be damaged: a panic of the engine is an error too.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(StoreError::Damaged { cause: format!("the engine cannot read it: {}", panic_text(&*panic)) })
    })
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}

/// Checks format and id, brings older formats up to this one, and counts this start: all of that or nothing.
pub(crate) fn begin_start(
    database: &Database,
    name: &str,
    options: &RedbOptions,
    fell_back: bool,
) -> Result<Meta, StoreError> {
    let mut transaction = database.begin_write().map_err(engine_error)?;
    transaction.set_durability(Durability::Immediate).map_err(engine_error)?;
    for table in [STEADY, VOLATILE, SET_ASIDE] {
        transaction.open_table(table).map_err(engine_error)?;
    }
    let format = read_meta(&transaction, "format")?;
    let starts = read_meta(&transaction, "start")?;
    let id = read_meta(&transaction, "id")?;
    match format {
        None | Some(FORMAT) => {}
        Some(1) => add_checksums(&transaction)?,
        Some(found) => return Err(StoreError::Format { path: name.to_owned(), found }),
    }
    if options.expected_id.is_some_and(|expected| id != Some(expected)) {
        return Err(StoreError::Foreign { path: name.to_owned() });
    }
    let start = starts.unwrap_or(0) + 1;
    let id = id.unwrap_or(options.new_id);
    let has_missing = read_meta(&transaction, "missing")?.is_some()
        || fell_back
        || (starts.is_none() && options.begins_incomplete);
    let mark = read_mark(&transaction)?;
    {
        let mut meta = transaction.open_table(META).map_err(engine_error)?;
        let mut write = |key, value| meta.insert(key, value).map(drop).map_err(engine_error);
        write("format", FORMAT)?;
        write("start", start)?;
        write("id", id)?;
        if has_missing {
            write("missing", 1)?;
        }
    }
    transaction.commit().map_err(engine_error)?;
    Ok(Meta { start, mark, id, is_complete: !has_missing })
}

/// Format 1 had no checksums.
fn add_checksums(transaction: &WriteTransaction) -> Result<(), StoreError> {
    for definition in [STEADY, VOLATILE] {
        let mut table = transaction.open_table(definition).map_err(engine_error)?;
        let mut last: Option<Vec<u8>> = None;
        loop {
            // In pieces: a table cannot be read and written at one time.
            let mut piece = Vec::new();
            let from = last.as_deref().unwrap_or_default();
            for entry in table.range::<&[u8]>(from..).map_err(engine_error)? {
                let (key, value) = entry.map_err(engine_error)?;
                if last.as_deref() == Some(key.value()) {
                    continue;
                }
                piece.push((key.value().to_vec(), value.value().to_vec()));
                if piece.len() == ROWS_AT_ONCE {
                    break;
                }
            }
            let Some((key, _)) = piece.last() else { break };
            last = Some(key.clone());
            for (key, value) in piece {
                let value = checksum::seal(&key, value);
                table.insert(key.as_slice(), value.as_slice()).map_err(engine_error)?;
            }
        }
    }
    Ok(())
}

const ROWS_AT_ONCE: usize = 10_000;

pub(crate) fn read_meta(transaction: &WriteTransaction, key: &str) -> Result<Option<u64>, StoreError> {
    let meta = transaction.open_table(META).map_err(engine_error)?;
    Ok(meta.get(key).map_err(engine_error)?.map(|value| value.value()))
}

fn read_mark(transaction: &WriteTransaction) -> Result<Option<ClockMark>, StoreError> {
    let read = |key| read_meta(transaction, key);
    let Some(wall) = read("wall_mark")? else { return Ok(None) };
    // Format 1 marked the wall clock alone, and counted lifetimes by it.
    let time = read("time_mark")?.unwrap_or(wall);
    let boot = match (read("boot_high")?, read("boot_low")?, read("since_boot")?) {
        (Some(high), Some(low), Some(seconds)) => {
            Some(Boot { id: u128::from(high) << 64 | u128::from(low), seconds })
        }
        _ => None,
    };
    Ok(Some(ClockMark { boot, wall, time }))
}

fn write_marks(transaction: &WriteTransaction, marks: Marks) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META).map_err(engine_error)?;
    if let Some(ClockMark { boot, wall, time }) = marks.clock {
        let mut write = |key, value| meta.insert(key, value).map(drop).map_err(engine_error);
        write("wall_mark", wall)?;
        write("time_mark", time)?;
        match boot {
            Some(Boot { id, seconds }) => {
                write("boot_high", (id >> 64) as u64)?;
                write("boot_low", id as u64)?;
                write("since_boot", seconds)?;
            }
            None => drop(meta.remove("since_boot").map_err(engine_error)?),
        }
    }
    if marks.has_missing {
        meta.insert("missing", 1).map_err(engine_error)?;
    }
    Ok(())
}

/// One durable transaction with all rows, in the order of their keys, and the marks.
pub(crate) fn write_group(
    database: &Database,
    rows: Vec<crate::Row>,
    marks: Option<Marks>,
) -> Result<(), StoreError> {
    let mut transaction = database.begin_write().map_err(engine_error)?;
    transaction.set_durability(Durability::Immediate).map_err(engine_error)?;
    let (volatile, steady): (Vec<_>, Vec<_>) = rows.into_iter().partition(crate::Row::is_volatile);
    for (definition, rows) in [(STEADY, steady), (VOLATILE, volatile)] {
        if rows.is_empty() {
            continue;
        }
        let mut table = transaction.open_table(definition).map_err(engine_error)?;
        for (key, row) in writer::sorted(rows) {
            match row.value {
                Some(value) => {
                    let value = checksum::seal(&key, value);
                    table.insert(key.as_slice(), value.as_slice()).map_err(engine_error)?;
                }
                None => drop(table.remove(key.as_slice()).map_err(engine_error)?),
            }
        }
    }
    if let Some(marks) = marks {
        write_marks(&transaction, marks)?;
    }
    transaction.commit().map_err(engine_error)
}

/// Moves damaged rows, by table and key, to where nobody reads them.
pub(crate) fn set_aside(database: &Database, damaged: &[(RowTable, Vec<u8>)]) -> Result<(), StoreError> {
    let mut transaction = database.begin_write().map_err(engine_error)?;
    transaction.set_durability(Durability::Immediate).map_err(engine_error)?;
    {
        let mut kept = transaction.open_table(SET_ASIDE).map_err(engine_error)?;
        for (definition, key) in damaged {
            let mut table = transaction.open_table(*definition).map_err(engine_error)?;
            let name = [redb::TableHandle::name(definition).as_bytes(), b"/", key].concat();
            if let Some(value) = table.remove(key.as_slice()).map_err(engine_error)? {
                kept.insert(name.as_slice(), value.value()).map_err(engine_error)?;
            }
        }
    }
    write_marks(&transaction, Marks { clock: None, has_missing: true })?;
    transaction.commit().map_err(engine_error)
}

pub(crate) fn open_error(name: &str, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::AlreadyOpen { path: name.to_owned() },
        DatabaseError::RepairAborted => {
            StoreError::Damaged { cause: "pages were altered since they were written".into() }
        }
        other => engine_error(other).of_file(name),
    }
}

/// What the engine says, sorted by who can act: the disk or the file.
pub(crate) fn engine_error(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Io(error) => io_error(error),
        redb::Error::PreviousIo => StoreError::Io { cause: "an earlier write failed".into() },
        redb::Error::DatabaseClosed => StoreError::Closed,
        other => StoreError::Damaged { cause: other.to_string() },
    }
}

pub(crate) fn io_error(error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            StoreError::Damaged { cause: error.to_string() }
        }
        _ => StoreError::Io { cause: error.to_string() },
    }
}
