//! Immutable views, interned by content and counted: equal content is one view, so what hangs on it is made once.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Names a view. [`ViewId::EMPTY`] always exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewId(u32);

impl ViewId {
    /// The view that says nothing; each watch begins with it as what was sent.
    pub const EMPTY: Self = Self(0);
}

/// All views of a shard. `T`'s `Eq` and `Hash` say when two contents are one view.
#[derive(Debug)]
pub struct Views<T> {
    slots: Vec<Slot<T>>,
    index: HashTable<u32>,
    free: Vec<u32>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Slot<T> {
    content: Option<T>,
    count: u32,
}

impl<T: Hash + Eq + Default> Default for Views<T> {
    fn default() -> Self {
        let mut views = Self {
            slots: Vec::new(),
            index: HashTable::new(),
            free: Vec::new(),
            hasher: RandomState::default(),
        };
        // Its first holder never lets go, so the empty view is never freed.
        let empty = views.intern(T::default());
        debug_assert_eq!(empty, ViewId::EMPTY);
        views
    }
}

impl<T: Hash + Eq> Views<T> {
    /// The view with this content, which the caller now holds once more.
    pub fn intern(&mut self, content: T) -> ViewId {
        let hash = self.hasher.hash_one(&content);
        let slots = &self.slots;
        if let Some(&at) = self.index.find(hash, |&at| slots[at as usize].content.as_ref() == Some(&content))
        {
            self.slots[at as usize].count += 1;
            return ViewId(at);
        }
        let slot = Slot { content: Some(content), count: 1 };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 views")
            }
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hash, at, |&at| hasher.hash_one(slots[at as usize].content.as_ref()));
        ViewId(at)
    }

    /// The caller holds `id` once more. The empty view needs no holder.
    pub fn hold(&mut self, id: ViewId) -> ViewId {
        if id != ViewId::EMPTY {
            self.slots[id.0 as usize].count += 1;
        }
        id
    }

    /// The caller lets `id` go once; the last one frees it.
    pub fn release(&mut self, id: ViewId) {
        if id == ViewId::EMPTY {
            return;
        }
        let slot = &mut self.slots[id.0 as usize];
        debug_assert!(slot.count > 0, "a view is released once per hold");
        slot.count -= 1;
        if slot.count > 0 {
            return;
        }
        let content = slot.content.take();
        let hash = content.as_ref().map(|content| self.hasher.hash_one(content));
        if let Some(hash) = hash
            && let Ok(entry) = self.index.find_entry(hash, |&at| at == id.0)
        {
            entry.remove();
        }
        self.free.push(id.0);
    }

    /// What the view says.
    pub fn content(&self, id: ViewId) -> &T {
        self.slots[id.0 as usize].content.as_ref().expect("a held view is alive")
    }

    /// Number of different views, the empty one included.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Never true: the empty view is always there.
    pub fn is_empty(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_content_is_one_view_and_is_freed_with_its_last_holder() {
        let mut views: Views<String> = Views::default();
        let first = views.intern("away".into());
        let second = views.intern("away".into());
        assert_eq!(first, second);
        assert_eq!(views.len(), 2);
        views.release(first);
        assert_eq!(views.content(second), "away");
        views.release(second);
        assert_eq!(views.len(), 1);
        let other = views.intern("busy".into());
        assert_eq!(views.content(other), "busy", "a freed place is used again");
    }

    #[test]
    fn the_empty_view_outlives_everybody() {
        let mut views: Views<String> = Views::default();
        let empty = views.intern(String::new());
        assert_eq!(empty, ViewId::EMPTY);
        views.release(empty);
        views.hold(ViewId::EMPTY);
        views.release(ViewId::EMPTY);
        assert_eq!(views.content(ViewId::EMPTY), "");
    }
}
