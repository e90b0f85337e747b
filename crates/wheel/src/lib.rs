//! A timer wheel for pure cores: deadlines go in, due keys come out, at most so many a call.
//!
//! Insert and cancel cost a few steps whatever the number of timers. Nothing is due early; it may be due up to one
//! [`TICK`] late. The wheel reads no clock: `now` is always an argument.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use tombolo_slab::Slab;

/// The grain of the wheel.
pub const TICK: Duration = Duration::from_millis(4);

const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Five levels of 64 slots of 4 ms reach 49 days; a later deadline waits in the last slot and is sorted again there.
const LEVELS: usize = 5;
const NONE: u32 = u32::MAX;
/// The list of what is due and was not yet taken.
const DUE: u32 = (LEVELS * SLOTS) as u32;

/// Names one armed timer. It is dead once the timer fired or was cancelled, and never names another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerId {
    index: u32,
    generation: NonZeroU32,
}

#[derive(Debug)]
struct Entry<K> {
    key: K,
    tick: u64,
    /// Which of all timers that ever stood in this place.
    generation: NonZeroU32,
    next: u32,
    previous: u32,
    list: u32,
}

/// Timers with a key each.
#[derive(Debug)]
pub struct Wheel<K> {
    start: Instant,
    /// The first tick that was not yet looked at.
    tick: u64,
    entries: Slab<Entry<K>>,
    /// Of the last timer that was armed.
    generation: u32,
    heads: Vec<u32>,
    tails: Vec<u32>,
    /// One bit a slot and level: some timer is there.
    occupied: [u64; LEVELS],
}

impl<K> Wheel<K> {
    /// An empty wheel whose ticks are counted from `now`.
    pub fn new(now: Instant) -> Self {
        let lists = LEVELS * SLOTS + 1;
        Self {
            start: now,
            tick: 0,
            entries: Slab::default(),
            generation: 0,
            heads: vec![NONE; lists],
            tails: vec![NONE; lists],
            occupied: [0; LEVELS],
        }
    }

    /// Number of timers that wait or are due and were not taken.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when no timer is armed.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Arms a timer: `key` is due at `deadline`, at once when that is past.
    pub fn insert(&mut self, deadline: Instant, key: K) -> TimerId {
        let tick = self.tick_of(deadline);
        self.generation = self.generation.wrapping_add(1);
        let generation = NonZeroU32::new(self.generation).unwrap_or(NonZeroU32::MIN);
        let entry = Entry { key, tick, generation, next: NONE, previous: NONE, list: NONE };
        let index = self.entries.insert(entry);
        self.place(index);
        TimerId { index, generation }
    }

    /// Disarms a timer; its key, or `None` when it fired or was cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> Option<K> {
        self.entries.get(id.index).filter(|entry| entry.generation == id.generation)?;
        Some(self.take(id.index))
    }

    /// When to call [`Wheel::poll_due`] next. Never later than the earliest deadline; it may be earlier.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.heads[DUE as usize] != NONE {
            return Some(self.instant_of(self.tick.saturating_sub(1)));
        }
        self.next_tick().map(|tick| self.instant_of(tick))
    }

    /// Takes out at most `max` keys whose deadline is reached at `now`, earliest tick first.
    pub fn poll_due(&mut self, now: Instant, max: usize) -> Vec<K> {
        self.advance(now);
        let mut due = Vec::new();
        while due.len() < max {
            let index = self.heads[DUE as usize];
            if index == NONE {
                break;
            }
            due.push(self.take(index));
        }
        due
    }

    /// Moves everything that is due at `now` to the due list, slot by slot.
    fn advance(&mut self, now: Instant) {
        let until = now.saturating_duration_since(self.start).as_millis() as u64 / TICK.as_millis() as u64;
        while self.tick <= until {
            match self.next_tick() {
                Some(tick) if tick <= until => {
                    self.tick = tick;
                    self.cascade();
                    self.fire();
                    self.tick += 1;
                }
                _ => self.tick = until + 1,
            }
        }
    }

    /// The first tick, from the current one on, at which a slot must be looked at.
    fn next_tick(&self) -> Option<u64> {
        (0..LEVELS)
            .filter_map(|level| {
                let bits = self.occupied[level];
                if bits == 0 {
                    return None;
                }
                let shift = SLOT_BITS * level as u32;
                let at = self.tick >> shift;
                let position = (at % SLOTS as u64) as u32;
                let ahead = bits.rotate_right(position);
                // A higher slot is sorted out when its first tick comes; at that tick itself it still is to do.
                let is_begun = level > 0 && self.tick & ((1 << shift) - 1) != 0;
                let steps = if is_begun && ahead & 1 == 1 {
                    let later = ahead & !1;
                    if later == 0 { SLOTS as u32 } else { later.trailing_zeros() }
                } else {
                    ahead.trailing_zeros()
                };
                Some(((at + u64::from(steps)) << shift).max(self.tick))
            })
            .min()
    }

    /// Sorts the higher slots that begin at the current tick into lower ones.
    fn cascade(&mut self) {
        for level in (1..LEVELS).rev() {
            let shift = SLOT_BITS * level as u32;
            if self.tick & ((1 << shift) - 1) != 0 {
                continue;
            }
            let list = level * SLOTS + ((self.tick >> shift) % SLOTS as u64) as usize;
            let mut index = self.heads[list];
            self.clear(list);
            while index != NONE {
                let next = self.entry(index).next;
                self.place(index);
                index = next;
            }
        }
    }

    fn fire(&mut self) {
        let list = (self.tick % SLOTS as u64) as usize;
        let mut index = self.heads[list];
        self.clear(list);
        while index != NONE {
            let next = self.entry(index).next;
            self.link(index, DUE);
            index = next;
        }
    }

    fn clear(&mut self, list: usize) {
        self.heads[list] = NONE;
        self.tails[list] = NONE;
        self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
    }

    fn place(&mut self, index: u32) {
        let due = self.entry(index).tick;
        if due < self.tick {
            return self.link(index, DUE);
        }
        let span = due - self.tick;
        let level = (0..LEVELS).find(|level| span < 1 << (SLOT_BITS * (*level as u32 + 1)));
        let list = match level {
            Some(level) => level * SLOTS + ((due >> (SLOT_BITS * level as u32)) % SLOTS as u64) as usize,
            None => {
                // Beyond the reach: wait in the slot of the last level that comes around last.
                let shift = SLOT_BITS * (LEVELS as u32 - 1);
                (LEVELS - 1) * SLOTS + (((self.tick >> shift) + SLOTS as u64 - 1) % SLOTS as u64) as usize
            }
        };
        self.link(index, list as u32);
    }

    fn link(&mut self, index: u32, list: u32) {
        let tail = self.tails[list as usize];
        let entry = self.entry_mut(index);
        entry.list = list;
        entry.next = NONE;
        entry.previous = tail;
        if tail == NONE {
            self.heads[list as usize] = index;
        } else {
            self.entry_mut(tail).next = index;
        }
        self.tails[list as usize] = index;
        if list != DUE {
            self.occupied[list as usize / SLOTS] |= 1 << (list as usize % SLOTS);
        }
    }

    /// Takes a timer out of its list and of the wheel; its key.
    fn take(&mut self, index: u32) -> K {
        let entry = self.entries.remove(index).expect("the timers of a list are alive");
        let Entry { key, next, previous, list, .. } = entry;
        if previous == NONE {
            self.heads[list as usize] = next;
        } else {
            self.entry_mut(previous).next = next;
        }
        if next == NONE {
            self.tails[list as usize] = previous;
        } else {
            self.entry_mut(next).previous = previous;
        }
        if list != DUE && self.heads[list as usize] == NONE {
            self.occupied[list as usize / SLOTS] &= !(1 << (list as usize % SLOTS));
        }
        key
    }

    fn entry(&self, index: u32) -> &Entry<K> {
        self.entries.get(index).expect("the timers of a list are alive")
    }

    fn entry_mut(&mut self, index: u32) -> &mut Entry<K> {
        self.entries.get_mut(index).expect("the timers of a list are alive")
    }

    fn tick_of(&self, deadline: Instant) -> u64 {
        let after = deadline.saturating_duration_since(self.start);
        after.as_nanos().div_ceil(TICK.as_nanos()) as u64
    }

    fn instant_of(&self, tick: u64) -> Instant {
        self.start + Duration::from_millis(tick.saturating_mul(TICK.as_millis() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        Instant::now()
    }

    /// A small generator, so that the model test needs no dependency.
    fn next(seed: &mut u64) -> u64 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed
    }

    #[test]
    fn nothing_is_due_early_and_everything_within_one_tick() {
        let start = epoch();
        for span in [0, 1, 3, 4, 5, 255, 256, 257, 16_384, 16_385, 1_048_576, 70_000_000, 5_000_000_000_u64] {
            let mut wheel = Wheel::new(start);
            let deadline = start + Duration::from_millis(span);
            wheel.insert(deadline, span);
            if span > 0 {
                let before = deadline - Duration::from_nanos(1);
                assert!(wheel.poll_due(before, 9).is_empty(), "{span} ms fired early");
                assert!(wheel.next_deadline().expect("armed") <= deadline + TICK, "{span} ms is slept over");
            }
            assert_eq!(wheel.poll_due(deadline + TICK, 9), [span], "{span} ms fires");
            assert!(wheel.is_empty() && wheel.next_deadline().is_none());
        }
    }

    #[test]
    fn a_cancelled_timer_never_fires_and_its_id_names_no_other() {
        let start = epoch();
        let mut wheel = Wheel::new(start);
        let first = wheel.insert(start + TICK, 'a');
        assert_eq!(wheel.cancel(first), Some('a'));
        let second = wheel.insert(start + TICK, 'b');
        assert_eq!(wheel.cancel(first), None);
        assert_eq!(wheel.poll_due(start + TICK * 2, 9), ['b']);
        assert_eq!(wheel.cancel(second), None);
    }

    #[test]
    fn at_most_so_many_come_out_a_call_and_the_rest_is_due_at_once() {
        let start = epoch();
        let mut wheel = Wheel::new(start);
        for key in 0..10 {
            wheel.insert(start + TICK, key);
        }
        let now = start + TICK * 3;
        assert_eq!(wheel.poll_due(now, 4).len(), 4);
        assert!(wheel.next_deadline().expect("some are due") <= now);
        assert_eq!(wheel.poll_due(now, 9).len(), 6);
    }

    #[test]
    fn it_agrees_with_a_sorted_list_over_random_steps() {
        let start = epoch();
        for round in 1..60_u64 {
            let mut seed = round.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut wheel = Wheel::new(start);
            let mut model: Vec<(Instant, u64, TimerId)> = Vec::new();
            let mut now = start;
            for step in 0..400_u64 {
                match next(&mut seed) % 4 {
                    0 | 1 => {
                        let reach = 1_u64 << (next(&mut seed) % 28);
                        let deadline = now + Duration::from_millis(next(&mut seed) % reach);
                        let id = wheel.insert(deadline, step);
                        model.push((deadline, step, id));
                    }
                    2 if !model.is_empty() => {
                        let at = (next(&mut seed) as usize) % model.len();
                        let (_, key, id) = model.swap_remove(at);
                        assert_eq!(wheel.cancel(id), Some(key));
                    }
                    _ => {
                        let reach = 1_u64 << (next(&mut seed) % 26);
                        now += Duration::from_millis(next(&mut seed) % reach);
                        let mut due = wheel.poll_due(now, usize::MAX);
                        due.sort_unstable();
                        let late = |deadline: Instant| deadline + TICK <= now;
                        for key in &due {
                            let (deadline, ..) = model.iter().find(|row| row.1 == *key).expect("was armed");
                            assert!(*deadline <= now, "fired early");
                        }
                        model.retain(|row| !due.contains(&row.1));
                        assert!(model.iter().all(|row| !late(row.0)), "round {round}: a due timer stayed");
                    }
                }
                assert_eq!(wheel.len(), model.len());
            }
        }
    }
}
