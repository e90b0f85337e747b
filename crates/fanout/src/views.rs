//! Immutable views, interned by content and counted: equal content is one view, so what hangs on it is made once.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use tombolo_budget::Octets;
use tombolo_slab::Slab;

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
    slots: Slab<Slot<T>>,
    index: HashTable<u32>,
    hasher: RandomState,
    /// Of all contents.
    octets: usize,
}

#[derive(Debug)]
struct Slot<T> {
    content: T,
    count: u32,
    /// Of the content.
    octets: u32,
}

impl<T: Hash + Eq + Default + Octets> Default for Views<T> {
    fn default() -> Self {
        let mut views = Self {
            slots: Slab::default(),
            index: HashTable::new(),
            hasher: RandomState::default(),
            octets: 0,
        };
        // Its first holder never lets go, so the empty view is never freed.
        let empty = views.intern(T::default());
        debug_assert_eq!(empty, ViewId::EMPTY);
        views
    }
}

impl<T: Hash + Eq + Octets> Views<T> {
    /// The view with this content, which the caller now holds once more.
    pub fn intern(&mut self, content: T) -> ViewId {
        let hash = self.hasher.hash_one(&content);
        let slots = &mut self.slots;
        let is_it = |at: &u32| slots.get(*at).is_some_and(|slot| slot.content == content);
        if let Some(&at) = self.index.find(hash, is_it) {
            return self.hold(ViewId(at));
        }
        let octets = u32::try_from(content.octets()).unwrap_or(u32::MAX);
        self.octets += octets as usize;
        let at = slots.insert(Slot { content, count: 1, octets });
        let hasher = &self.hasher;
        self.index
            .insert_unique(hash, at, |&at| slots.get(at).map_or(0, |slot| hasher.hash_one(&slot.content)));
        ViewId(at)
    }

    /// The caller holds `id` once more. The empty view needs no holder.
    pub fn hold(&mut self, id: ViewId) -> ViewId {
        if id != ViewId::EMPTY
            && let Some(slot) = self.slots.get_mut(id.0)
        {
            slot.count += 1;
        }
        id
    }

    /// The caller lets `id` go once; the last one frees it.
    pub fn release(&mut self, id: ViewId) {
        if id == ViewId::EMPTY {
            return;
        }
        let Some(slot) = self.slots.get_mut(id.0) else { return };
        slot.count -= 1;
        if slot.count > 0 {
            return;
        }
        self.octets -= slot.octets as usize;
        let hash = self.hasher.hash_one(&slot.content);
        if let Ok(entry) = self.index.find_entry(hash, |&at| at == id.0) {
            entry.remove();
        }
        self.slots.remove(id.0);
    }

    /// What the view says.
    pub fn content(&self, id: ViewId) -> &T {
        &self.slots.get(id.0).expect("a held view is alive").content
    }

    /// Octets that the content of one view takes.
    pub fn octets_of(&self, id: ViewId) -> usize {
        self.slots.get(id.0).map_or(0, |slot| slot.octets as usize)
    }

    /// Octets that the contents of all views take.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// Number of different views, the empty one included.
    pub fn len(&self) -> usize {
        self.slots.len()
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
    fn the_octets_of_equal_content_count_once_and_go_with_its_last_holder() {
        let mut views: Views<String> = Views::default();
        let nothing = views.octets();
        let away = views.intern("away for a while".into());
        views.intern("away for a while".into());
        assert_eq!(views.octets() - nothing, views.octets_of(away));
        assert_eq!(views.octets_of(away), "away for a while".to_owned().octets());
        views.release(away);
        assert!(views.octets() > nothing);
        views.release(away);
        assert_eq!(views.octets(), nothing);
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
