//! Divides the memory that the system leaves above `memory.limit` among what may still grow when that limit is reached.
//!
//! In: the settings, the limit at which nothing new is let in, and the one at which the system ends the process. Out: the
//! size of each budget and queue. Pure, but for what [`MemoryRoom::of`] reads and logs.

use tombolo_config::MemorySettings;
use tombolo_runtime::{MemoryGate, memory_limit};
use tombolo_store::RedbOptions;

/// What may grow, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryRoom {
    /// The budgets of `[memory]`.
    pub budgets: MemorySettings,
    /// Octets that wait for all shards.
    pub inboxes: usize,
    /// Octets of rows that wait for the store.
    pub waiting_rows: usize,
    /// The store's page cache in octets.
    pub store_cache: usize,
}

impl MemoryRoom {
    /// The room of this process beside what `gate` lets in.
    pub fn of(settings: &MemorySettings, gate: &MemoryGate) -> Self {
        let room = Self::within(settings, gate.limit(), memory_limit().unwrap_or(u64::MAX));
        if room.budgets != *settings {
            let MemorySettings { messages, states, outgoing, .. } = room.budgets;
            tracing::info!(
                limit = gate.limit(),
                messages,
                states,
                outgoing,
                "the budgets of [memory] are held to what the system leaves above memory.limit"
            );
        }
        room
    }

    /// `limit` is where nothing new is let in, `allowed` where the system ends the process.
    fn within(settings: &MemorySettings, limit: u64, allowed: u64) -> Self {
        let room = allowed.saturating_sub(limit).max(allowed / LEAST_ROOM);
        let part = |of: u64, parts: u64, least: usize, most: usize| {
            usize::try_from(of / parts).unwrap_or(usize::MAX).clamp(least, most)
        };
        let RedbOptions { waiting_octets, cache_bytes, .. } = RedbOptions::default();
        Self {
            // The last quarter is for buffers of connections and what the allocator keeps.
            budgets: settings.fitted(room / 2),
            inboxes: part(room, 8, MIN_QUEUE, usize::MAX),
            // As many rows again may be kept while the disk fails.
            waiting_rows: part(room, 16, MIN_QUEUE, waiting_octets),
            store_cache: part(limit, 16, MIN_QUEUE, cache_bytes),
        }
    }
}

/// Where `memory.limit` leaves less than this part of what the system allows, this part counts.
const LEAST_ROOM: u64 = 20;
/// No queue and no cache gets fewer octets.
const MIN_QUEUE: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Octets that everything takes when it is full.
    fn sum(room: &MemoryRoom) -> u64 {
        let MemoryRoom { budgets, inboxes, waiting_rows, .. } = room;
        let budgets = budgets.messages / 4 * 7 + budgets.states + budgets.outgoing;
        (budgets + inboxes.min(&(32 << 20)) + 2 * waiting_rows) as u64
    }

    #[test]
    fn everything_that_may_grow_fits_between_the_limit_and_what_the_system_allows() {
        let settings = MemorySettings::default();
        for allowed in [140_000_000, 512 * MIB, 2048 * MIB, 4096 * MIB] {
            let room = MemoryRoom::within(&settings, allowed / 5 * 4, allowed);
            assert!(sum(&room) <= allowed / 5, "{allowed}: {room:?}");
            assert!((room.store_cache as u64) < allowed / 10, "{allowed}: {room:?}");
        }
        let large = MemoryRoom::within(&settings, 12 << 30, 16 << 30);
        assert_eq!(large.budgets, settings, "a large machine leaves the settings as they are");
        assert_eq!(large.waiting_rows, RedbOptions::default().waiting_octets);
        assert_eq!(large.store_cache, RedbOptions::default().cache_bytes);
        // An administrator who sets a small limit on a large machine keeps the budgets too.
        assert_eq!(MemoryRoom::within(&settings, 100 * MIB, 16 << 30).budgets, settings);
        // And one who leaves nothing gets small ones.
        let none = MemoryRoom::within(&settings, 1 << 30, 1 << 30);
        assert!(sum(&none) <= (1 << 30) / 10, "{none:?}");
    }
}
