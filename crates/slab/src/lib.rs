//! Rows by small numbers, in chunks of one size: a further row never moves the others.
//!
//! A table that doubles when it is full holds up to twice what it needs, and copies everything at one go. Here at most
//! one chunk stands partly empty, besides the places of rows that were taken out, which are used again first.

/// Rows of a chunk.
const CHUNK: usize = 256;

/// A table of rows by number.
#[derive(Debug)]
pub struct Slab<T> {
    /// All but the last are full.
    chunks: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Adds a row; its number, which another row may have had before.
    ///
    /// # Panics
    ///
    /// With 2^31 rows: the highest bit of a number is free for the owner's use.
    pub fn insert(&mut self, row: T) -> u32 {
        if let Some(at) = self.free.pop() {
            *self.place_mut(at).expect("a free place exists") = Some(row);
            return at;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let full = self.chunks.len() - 1;
        let chunk = &mut self.chunks[full];
        let at = full * CHUNK + chunk.len();
        assert!(at < 1 << 31, "a slab holds fewer than 2^31 rows");
        chunk.push(Some(row));
        at as u32
    }

    /// Takes a row out; `None` when there is none of this number.
    pub fn remove(&mut self, at: u32) -> Option<T> {
        let row = self.place_mut(at)?.take()?;
        self.free.push(at);
        Some(row)
    }

    /// The row of this number.
    pub fn get(&self, at: u32) -> Option<&T> {
        self.chunks.get(at as usize / CHUNK)?.get(at as usize % CHUNK)?.as_ref()
    }

    /// The row of this number, to be changed.
    pub fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.place_mut(at)?.as_mut()
    }

    /// All rows with their numbers, which rise.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0_u32..).zip(self.chunks.iter().flatten()).filter_map(|(at, row)| Some((at, row.as_ref()?)))
    }

    /// One more than the highest number that a row has or had: what a walk by number ends at.
    pub fn places(&self) -> u32 {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len()) as u32
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.places() as usize - self.free.len()
    }

    /// True without any row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn place_mut(&mut self, at: u32) -> Option<&mut Option<T>> {
        self.chunks.get_mut(at as usize / CHUNK)?.get_mut(at as usize % CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_numbers_over_many_chunks_and_free_numbers_are_used_again() {
        let mut slab = Slab::default();
        let count = 3 * CHUNK as u32 + 7;
        for row in 0..count {
            assert_eq!(slab.insert(row * 2), row);
        }
        for at in (0..count).step_by(3) {
            assert_eq!(slab.remove(at), Some(at * 2));
            assert_eq!((slab.remove(at), slab.get(at)), (None, None));
        }
        assert_eq!(slab.len(), slab.iter().count());
        assert_eq!(slab.places(), count, "rows that were taken out have left their places");
        assert!(slab.iter().all(|(at, row)| at % 3 != 0 && *row == at * 2));
        let freed = count.div_ceil(3);
        for _ in 0..freed {
            let at = slab.insert(1);
            assert!(at % 3 == 0 && at < count);
        }
        assert_eq!(slab.insert(1), count);
        assert_eq!(slab.len(), count as usize + 1);
        *slab.get_mut(5).expect("alive") = 9;
        assert_eq!(slab.get(5), Some(&9));
        assert_eq!(slab.get(u32::MAX), None);
        assert_eq!(slab.get_mut(count + 1), None);
    }
}
