//! Declares a store file complete: it holds every grant that counts, although it was begun in place of a lost one, salvaged
//! or damaged ([`Meta::is_complete`](crate::Meta::is_complete)).
//!
//! Only an administrator can know that. The file must be sound and closed.

use std::path::Path;

use redb::Durability;

use crate::{
    StoreError, check,
    redb_file::{META, Opened, engine_error, guarded, open_error, open_file},
};

/// What became of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declared {
    /// The file is complete from now on.
    Complete,
    /// It was complete before, and nothing was written.
    WasComplete,
}

/// Declares the file at `path` complete.
///
/// # Errors
/// [`StoreError::Damaged`] when anything in it cannot be read, [`StoreError::AlreadyOpen`] while a process runs with it,
/// [`StoreError::Io`] when it is not there. Then nothing was changed.
pub fn declare_complete(path: &Path) -> Result<Declared, StoreError> {
    let found = check(path)?;
    if let Some(fault) = found.faults.first() {
        return Err(StoreError::Damaged { cause: fault.clone() });
    }
    if !found.damaged.is_empty() {
        let cause = format!("{} rows do not match their checksums", found.damaged.len());
        return Err(StoreError::Damaged { cause });
    }
    if !found.has_missing {
        return Ok(Declared::WasComplete);
    }
    guarded(|| {
        let name = path.display().to_string();
        let opened = open_file(path, CACHE_BYTES, true).map_err(|error| open_error(&name, error))?;
        let Opened { database, fell_back } = opened;
        if fell_back {
            return Err(StoreError::Damaged {
                cause: "the last commit is torn; start the process once".into(),
            });
        }
        let mut transaction = database.begin_write().map_err(engine_error)?;
        transaction.set_durability(Durability::Immediate).map_err(engine_error)?;
        {
            let mut meta = transaction.open_table(META).map_err(engine_error)?;
            meta.remove("missing").map_err(engine_error)?;
        }
        transaction.commit().map_err(engine_error)?;
        Ok(Declared::Complete)
    })
}

const CACHE_BYTES: usize = 16 << 20;
