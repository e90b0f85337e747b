//! Addresses of a shard, interned and counted: a row holds a small number instead of a text.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use tombolo_presence::Address;
use tombolo_slab::Slab;

/// Names an interned address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressId(u32);

/// All addresses that rows of this shard name.
#[derive(Debug)]
pub struct Addresses {
    slots: Slab<Slot>,
    index: HashTable<u32>,
    /// Addresses are chosen by strangers, so the hash is keyed.
    hasher: std::hash::RandomState,
}

#[derive(Debug)]
struct Slot {
    address: Address,
    count: u32,
    /// Of the address: it is asked for with each NOTIFY.
    partition: u16,
}

impl Addresses {
    /// None yet.
    pub fn new() -> Self {
        Self { slots: Slab::default(), index: HashTable::new(), hasher: std::hash::RandomState::new() }
    }

    /// The number of `address`, which the caller now holds once more.
    pub fn intern(&mut self, address: &Address) -> AddressId {
        if let Some(id) = self.find(address.as_str()) {
            if let Some(slot) = self.slots.get_mut(id.0) {
                slot.count += 1;
            }
            return id;
        }
        let slot = Slot { address: address.clone(), count: 1, partition: address.partition() };
        let at = self.slots.insert(slot);
        let (slots, hasher) = (&self.slots, &self.hasher);
        let hash = hasher.hash_one(address.as_str());
        self.index.insert_unique(hash, at, |&at| hasher.hash_one(text(slots, at)));
        AddressId(at)
    }

    /// The number of `address`, if some row names it.
    pub fn find(&self, address: &str) -> Option<AddressId> {
        let hash = self.hasher.hash_one(address);
        self.index.find(hash, |&at| text(&self.slots, at) == address).map(|&at| AddressId(at))
    }

    /// The caller lets `id` go once; the last one frees it.
    pub fn release(&mut self, id: AddressId) {
        let Some(slot) = self.slots.get_mut(id.0) else { return };
        slot.count -= 1;
        if slot.count > 0 {
            return;
        }
        let hash = self.hasher.hash_one(slot.address.as_str());
        if let Ok(entry) = self.index.find_entry(hash, |&at| at == id.0) {
            entry.remove();
        }
        self.slots.remove(id.0);
    }

    /// The address itself.
    pub fn address(&self, id: AddressId) -> &Address {
        &self.slot(id).address
    }

    /// The partition that owns the address.
    pub fn partition(&self, id: AddressId) -> u16 {
        self.slot(id).partition
    }

    fn slot(&self, id: AddressId) -> &Slot {
        self.slots.get(id.0).expect("a held address is alive")
    }
}

fn text(slots: &Slab<Slot>, at: u32) -> &str {
    slots.get(at).map_or("", |slot| slot.address.as_str())
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
        assert_eq!(addresses.find("romeo@x"), Some(first));
        addresses.release(first);
        assert_eq!(addresses.find("romeo@x"), None);
        let juliet = Address::from_prepared("juliet@x").expect("legal");
        let second = addresses.intern(&juliet);
        assert_eq!(addresses.address(second), &juliet);
    }
}
