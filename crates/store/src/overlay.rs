//! A file that is read and never written: what the engine writes stays in memory.

use std::{collections::HashMap, fs::File, io, ops::Bound};

use parking_lot::Mutex;
use redb::{BackendError, DatabaseError, StorageBackend, backends::FileBackend};

/// See the [module](self). Holds the same lock on the file as a store does.
#[derive(Debug)]
pub(crate) struct Overlay {
    file: FileBackend,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    len: u64,
    /// Octets from here on are none of the file's.
    file_len: u64,
    /// Whole pages, by their number.
    pages: HashMap<u64, Box<[u8; PAGE_BYTES]>>,
}

const PAGE_BYTES: usize = 4096;

impl Overlay {
    /// Over an open file, with some octets of it replaced.
    pub(crate) fn new(file: File, patches: &[(u64, u8)]) -> Result<Self, DatabaseError> {
        let file = FileBackend::new(file)?;
        let len = file.len().map_err(redb::StorageError::Io)?;
        let overlay =
            Self { file, written: Mutex::new(Written { len, file_len: len, pages: HashMap::new() }) };
        for (offset, octet) in patches.iter().filter(|(offset, _)| *offset < len) {
            overlay.write(*offset, &[*octet]).map_err(redb::StorageError::Io)?;
        }
        Ok(overlay)
    }

    /// A page as it stands in the file, with zeros where the file ends.
    fn read_page(&self, number: u64, file_len: u64) -> io::Result<Box<[u8; PAGE_BYTES]>> {
        let mut page = Box::new([0; PAGE_BYTES]);
        let begin = number * PAGE_BYTES as u64;
        let there = file_len.saturating_sub(begin).min(PAGE_BYTES as u64) as usize;
        if there > 0 {
            self.file.read(begin, &mut page[..there])?;
        }
        Ok(page)
    }
}

/// The part of page `number` between two offsets, as a place in the page and one behind `offset`.
fn overlap(number: u64, offset: u64, end: u64) -> (usize, usize, usize) {
    let begin = number * PAGE_BYTES as u64;
    let (from, to) = (offset.max(begin), end.min(begin + PAGE_BYTES as u64));
    ((from - begin) as usize, (to - begin) as usize, (from - offset) as usize)
}

fn end_of(offset: u64, len: usize, limit: u64) -> io::Result<u64> {
    offset
        .checked_add(len as u64)
        .filter(|end| *end <= limit)
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written.lock();
        let end = end_of(offset, out.len(), written.len)?;
        for number in offset / PAGE_BYTES as u64..end.div_ceil(PAGE_BYTES as u64) {
            let (from, to, at) = overlap(number, offset, end);
            let target = &mut out[at..at + (to - from)];
            match written.pages.get(&number) {
                Some(page) => target.copy_from_slice(&page[from..to]),
                None => target.copy_from_slice(&self.read_page(number, written.file_len)?[from..to]),
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.written.lock();
        let keep = len.div_ceil(PAGE_BYTES as u64);
        written.pages.retain(|number, _| *number < keep);
        (written.len, written.file_len) = (len, written.file_len.min(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written.lock();
        let end = end_of(offset, data.len(), written.len)?;
        for number in offset / PAGE_BYTES as u64..end.div_ceil(PAGE_BYTES as u64) {
            let (from, to, at) = overlap(number, offset, end);
            let file_len = written.file_len;
            let page = match written.pages.remove(&number) {
                Some(page) => page,
                None => self.read_page(number, file_len)?,
            };
            let page = written.pages.entry(number).or_insert(page);
            page[from..to].copy_from_slice(&data[at..at + (to - from)]);
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
