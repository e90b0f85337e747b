//! Looks at a store file that may be damaged, and takes out of it what can be read.
//!
//! The file is never written: a check leaves it as it is, and a salvage puts the rows that match their checksums into a new
//! file and the old one beside it. Both refuse a file that a process has open.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    ops::Bound,
    path::{Path, PathBuf},
};

use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTableMetadata, TableDefinition,
    TableError,
};

use crate::{
    DamagedRow, FORMAT, RedbOptions, RedbStore, Row, StateStore, StoreError, checksum,
    overlay::Overlay,
    redb_file::{
        META, SET_ASIDE, STEADY, VOLATILE, engine_error, guarded, io_error, open_error, was_closed,
        watch_repair,
    },
    row::PREFIX_BYTES,
};

/// What was found in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// The number of its format.
    pub format: Option<u64>,
    /// How many times it was opened.
    pub start: Option<u64>,
    /// Good rows, by table.
    pub rows: BTreeMap<u8, u64>,
    /// Rows that do not match their checksums.
    pub damaged: Vec<DamagedRow>,
    /// Damaged rows that earlier starts set aside.
    pub set_aside: u64,
    /// Rows are known to be missing.
    pub has_missing: bool,
    /// When a process last ran with it, in seconds since the Unix epoch, to a second or so.
    pub last_used: Option<u64>,
    /// What else is wrong, in sentences.
    pub faults: Vec<String>,
}

impl Inspection {
    /// True when a process can be started with the file.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Looks at every page and every row of the file at `path`.
pub fn check(path: &Path) -> Result<Inspection, StoreError> {
    let mut found = Inspection::default();
    let verified = guarded(|| open(path, &[], true).map(drop));
    if let Err(error) = verified {
        match error {
            StoreError::Damaged { cause } => found.faults.push(cause),
            other => return Err(other),
        }
    }
    // What cannot be verified may still be read.
    read(path, &mut found, &mut |_, _, _| {})?;
    Ok(found)
}

/// Puts what can be read of the file at `path` in its place, and the file itself beside it. Gives what was found, and where
/// the file is now.
pub fn salvage(path: &Path) -> Result<(Inspection, PathBuf), StoreError> {
    let fresh = beside(path, "salvaged");
    let _ = std::fs::remove_file(&fresh);
    let mut found = Inspection::default();
    let mut rows = Vec::new();
    let mut start = 0;
    read(path, &mut found, &mut |partition, table, (key, value)| {
        // The numbers of dialogs begin with the start that gave them.
        if let Ok(number) = <[u8; 8]>::try_from(key) {
            start = start.max(u64::from_be_bytes(number) >> 32);
        }
        rows.push(Row::put(partition, table, key, value.to_vec()));
    })?;
    if rows.is_empty() && found.rows.is_empty() && found.format.is_none() {
        let cause = found.faults.first().cloned().unwrap_or_else(|| "nothing can be read".into());
        return Err(StoreError::Damaged { cause });
    }
    let options = RedbOptions { waiting_rows: usize::MAX, ..RedbOptions::default() };
    let store = RedbStore::open(&fresh, options)?;
    store.note_missing();
    let (done, told) = std::sync::mpsc::channel();
    store.commit(rows, 0, Box::new(move |_, fate| drop(done.send(fate))));
    told.recv().unwrap_or(Err(StoreError::Closed))?;
    store.shutdown()?;
    drop(store);
    carry_over(&fresh, path, start.max(found.start.unwrap_or(0)))?;
    let kept = (1..)
        .map(|number| beside(path, &format!("damaged-{number}")))
        .find(|kept| !kept.exists())
        .ok_or(StoreError::Closed)?;
    std::fs::rename(path, &kept).and_then(|()| std::fs::rename(&fresh, path)).map_err(io_error)?;
    Ok((found, kept))
}

/// Goes on with the starts and the id of the old file.
fn carry_over(fresh: &Path, old: &Path, start: u64) -> Result<(), StoreError> {
    let mut marks = Vec::new();
    // Closing a damaged file may fail when everything is read.
    let _ = guarded(|| {
        let old = open_somehow(old)?;
        let keys = ["id", "wall_mark", "time_mark", "boot_high", "boot_low", "since_boot"];
        marks.extend(keys.into_iter().filter_map(|key| Some((key, meta(&old, key)?))));
        Ok(())
    });
    let database = Database::create(fresh).map_err(|error| open_error("", error))?;
    let transaction = database.begin_write().map_err(engine_error)?;
    {
        let mut table = transaction.open_table(META).map_err(engine_error)?;
        table.insert("start", start).map_err(engine_error)?;
        for (key, value) in marks {
            table.insert(key, value).map_err(engine_error)?;
        }
    }
    transaction.commit().map_err(engine_error)
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{what}"));
    path.with_file_name(name)
}

/// Opens a file without ever writing to it.
fn open(path: &Path, patches: &[(u64, u8)], verifies: bool) -> Result<Database, StoreError> {
    let name = path.display().to_string();
    let file = open_file(path)?;
    if file.metadata().map_err(io_error)?.len() == 0 {
        return Err(StoreError::Damaged { cause: "the file is empty".into() });
    }
    let mut builder = Database::builder();
    builder.set_check_integrity_on_open(verifies);
    watch_repair(&mut builder, was_closed(&file).map_err(io_error)?);
    let overlay = Overlay::new(open_file(path)?, patches).map_err(|error| open_error(&name, error))?;
    builder.create_with_backend(overlay).map_err(|error| open_error(&name, error))
}

fn open_file(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new().read(true).write(true).open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StoreError::Io { cause: format!("{}: {error}", path.display()) },
        _ => io_error(error),
    })
}

/// Opens a file as well as it can be: verified, else as it stands, else as it was one commit before.
fn open_somehow(path: &Path) -> Result<Database, StoreError> {
    let flags = flags_of(path)?;
    let as_it_is = guarded(|| open(path, &[], true)).or_else(|error| match error {
        error @ StoreError::AlreadyOpen { .. } => Err(error),
        _ => guarded(|| open(path, &[], false)),
    });
    match as_it_is {
        Err(StoreError::Damaged { .. }) => guarded(|| open(path, &[(FLAGS_AT, flags ^ PRIMARY)], false)),
        other => other,
    }
}

/// Where the engine's header keeps its flags, and the one that says which of two commits is the newest.
const FLAGS_AT: u64 = 9;
const PRIMARY: u8 = 1;

fn flags_of(path: &Path) -> Result<u8, StoreError> {
    let mut head = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(open_file(path)?, FLAGS_AT + 1), &mut head)
        .map_err(io_error)?;
    head.get(FLAGS_AT as usize)
        .copied()
        .ok_or_else(|| StoreError::Damaged { cause: "the file is too short to be a store".into() })
}

/// Shows a good row: its partition and table, its key and value.
type Show<'a> = dyn FnMut(u16, u8, (&[u8], &[u8])) + 'a;

/// Shows every row that can be read and matches its checksum; notes the others.
fn read(path: &Path, found: &mut Inspection, show: &mut Show<'_>) -> Result<(), StoreError> {
    let database = match guarded(|| open_somehow(path)) {
        Ok(database) => database,
        Err(StoreError::Damaged { cause }) => {
            if !found.faults.contains(&cause) {
                found.faults.push(cause);
            }
            return Ok(());
        }
        Err(other) => return Err(other),
    };
    let number = |key| guarded(|| Ok(meta(&database, key))).ok().flatten();
    (found.format, found.start) = (number("format"), number("start"));
    found.last_used = number("wall_mark");
    found.has_missing |= number("missing").is_some();
    let is_sealed = match found.format {
        Some(1) => false,
        Some(FORMAT) => true,
        Some(other) => {
            found.faults.push(format!("it has format {other}, this version reads {FORMAT}"));
            return Ok(());
        }
        None => {
            found.faults.push("the table that says what it is cannot be read".into());
            true
        }
    };
    for definition in [STEADY, VOLATILE] {
        let walked = guarded(|| walk(&database, definition, is_sealed, found, show));
        if let Err(error) = walked {
            found.faults.push(format!("table {}: {error}", redb::TableHandle::name(&definition)));
        }
    }
    let set_aside =
        guarded(|| Ok(table_of(&database, SET_ASIDE)?.map_or(0, |table| table.len().unwrap_or(0))));
    found.set_aside = set_aside.unwrap_or(0);
    // A tree that was altered may not be closed in order.
    let _ = guarded(|| {
        drop(database);
        Ok(())
    });
    Ok(())
}

/// One table, by the first octets of its keys, so that a damaged page costs only what lies in it.
fn walk(
    database: &Database,
    definition: TableDefinition<'static, &'static [u8], &'static [u8]>,
    is_sealed: bool,
    found: &mut Inspection,
    show: &mut Show<'_>,
) -> Result<(), StoreError> {
    let Some(table) = table_of(database, definition)? else { return Ok(()) };
    let expected = guarded(|| table.len().map_err(engine_error)).ok();
    let mut seen = 0;
    let mut is_broken = false;
    for high in 0..=u8::MAX {
        let (from, to) = ([high], [high.wrapping_add(1)]);
        let end = if high == u8::MAX { Bound::Unbounded } else { Bound::Excluded(&to[..]) };
        let range = (Bound::Included(&from[..]), end);
        // Forward as far as it goes; and, where it breaks off, backward as far as that goes.
        let (count, last) = part(&table, range, false, is_sealed, found, show);
        seen += count;
        if let Err(last) = last {
            is_broken = true;
            let begin = last.as_deref().map_or(Bound::Included(&from[..]), Bound::Excluded);
            seen += part(&table, (begin, end), true, is_sealed, found, show).0;
        }
    }
    if is_broken || expected != Some(seen) {
        let expected = expected.map_or_else(|| "an unknown number".into(), |count| count.to_string());
        let name = redb::TableHandle::name(&definition);
        found.faults.push(format!("table {name}: {seen} of {expected} rows can be read"));
    }
    Ok(())
}

type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// The rows of a range until its end, or until a page cannot be read: then the last key before that.
fn part(
    table: &Rows,
    range: (Bound<&[u8]>, Bound<&[u8]>),
    is_backward: bool,
    is_sealed: bool,
    found: &mut Inspection,
    show: &mut Show<'_>,
) -> (u64, Result<(), Option<Vec<u8>>>) {
    let (mut seen, mut last) = (0, None);
    let walked = guarded(|| {
        let mut rows = table.range::<&[u8]>(range).map_err(engine_error)?;
        while let Some(entry) = if is_backward { rows.next_back() } else { rows.next() } {
            let (key, value) = entry.map_err(engine_error)?;
            let (key, value) = (key.value(), value.value());
            // A tree that was altered could lead round in circles.
            let goes_on =
                last.as_deref().is_none_or(|last| if is_backward { key < last } else { key > last });
            if !goes_on {
                return Err(StoreError::Damaged { cause: "its keys are out of order".into() });
            }
            seen += 1;
            last = Some(key.to_vec());
            note(key, value, is_sealed, found, show);
        }
        Ok(())
    });
    (seen, walked.map_err(|_| last))
}

fn note(key: &[u8], value: &[u8], is_sealed: bool, found: &mut Inspection, show: &mut Show<'_>) {
    let value = if is_sealed { checksum::unseal(key, value) } else { Some(value) };
    match (value, key.split_first_chunk::<PREFIX_BYTES>()) {
        (Some(value), Some((&[high, low, table], rest))) => {
            *found.rows.entry(table).or_default() += 1;
            show(u16::from_be_bytes([high, low]), table, (rest, value));
        }
        _ => found.damaged.extend(DamagedRow::of_engine_key(key)),
    }
}

fn table_of(
    database: &Database,
    definition: TableDefinition<'static, &'static [u8], &'static [u8]>,
) -> Result<Option<Rows>, StoreError> {
    let read: ReadTransaction = database.begin_read().map_err(engine_error)?;
    match read.open_table(definition) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(engine_error(error)),
    }
}

fn meta(database: &Database, key: &str) -> Option<u64> {
    let table = database.begin_read().ok()?.open_table(META).ok()?;
    redb::ReadableTable::get(&table, key).ok()?.map(|value| value.value())
}
