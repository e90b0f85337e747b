//! Addresses of a shard, interned and counted: a row holds a small number instead of a text.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use tombolo_presence::Address;

/// Names an interned address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressId(u32);

/// All addresses that rows of this shard name.
#[derive(Debug)]
pub struct Addresses {
    slots: Vec<Slot>,
    index: HashTable<u32>,
    free: Vec<u32>,
    /// Addresses are chosen by strangers, so the hash is keyed.
    hasher: std::hash::RandomState,
}

#[derive(Debug)]
struct Slot {
    address: Option<Address>,
    count: u32,
}

impl Addresses {
    /// None yet.
    pub fn new() -> Self {
        Self {
            slots: Vec::new(),
            index: HashTable::new(),
            free: Vec::new(),
            hasher: std::hash::RandomState::new(),
        }
    }

    /// The number of `address`, which the caller now holds once more.
    pub fn intern(&mut self, address: &Address) -> AddressId {
        if let Some(id) = self.find(address) {
            self.slots[id.0 as usize].count += 1;
            return id;
        }
        let slot = Slot { address: Some(address.clone()), count: 1 };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 addresses")
            }
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        let hash = hasher.hash_one(address.as_str());
        self.index.insert_unique(hash, at, |&at| hasher.hash_one(text(slots, at)));
        AddressId(at)
    }

    /// The number of `address`, if some row names it.
    pub fn find(&self, address: &Address) -> Option<AddressId> {
        let hash = self.hasher.hash_one(address.as_str());
        self.index.find(hash, |&at| text(&self.slots, at) == address.as_str()).map(|&at| AddressId(at))
    }

    /// The caller lets `id` go once; the last one frees it.
    pub fn release(&mut self, id: AddressId) {
        let slot = &mut self.slots[id.0 as usize];
        slot.count -= 1;
        if slot.count > 0 {
            return;
        }
        let hash = self.hasher.hash_one(text(&self.slots, id.0));
        if let Ok(entry) = self.index.find_entry(hash, |&at| at == id.0) {
            entry.remove();
        }
        self.slots[id.0 as usize].address = None;
        self.free.push(id.0);
    }

    /// The address itself.
    pub fn address(&self, id: AddressId) -> &Address {
        self.slots[id.0 as usize].address.as_ref().expect("a held address is alive")
    }
}

fn text(slots: &[Slot], at: u32) -> &str {
    slots[at as usize].address.as_ref().map_or("", Address::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_addresses_have_one_number_until_the_last_holder_lets_go() {
        let mut addresses = Addresses::new();
        let romeo = Address::from_prepared("romeo@x").expect("legal");
        let first = addresses.intern(&romeo);
        assert_eq!(addresses.intern(&romeo), first);
        addresses.release(first);
        assert_eq!(addresses.find(&romeo), Some(first));
        addresses.release(first);
        assert_eq!(addresses.find(&romeo), None);
        let juliet = Address::from_prepared("juliet@x").expect("legal");
        let second = addresses.intern(&juliet);
        assert_eq!(addresses.address(second), &juliet);
    }
}
