//! The shard itself: watches, what each was sent, what each may see now.

use std::{hash::Hash, mem};

use tombolo_budget::Octets;
use tombolo_slab::Slab;

use crate::{LaneId, ViewId, Views, lanes::Lanes};

/// Names one receiver of state: whatever its owner keeps one for, such as a contact or a subscription dialog.
///
/// Once the receiver is removed, the name may be given to another. The default names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchId(u32);

impl Default for WatchId {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

/// One shard over views of type `T`.
#[derive(Debug)]
pub struct Shard<T> {
    /// The views that watches refer to; the caller interns into it.
    pub views: Views<T>,
    watches: Slab<Watch>,
    lanes: Lanes,
}

#[derive(Debug, Clone, Copy)]
struct Watch {
    lane: LaneId,
    owner: u32,
    current: ViewId,
    sent: ViewId,
    marks: Marks,
    /// Waits for an answer or an interval: gathers changes, but leaves none.
    is_held: bool,
    /// Its neighbours among the watches of its lane.
    next: WatchId,
    previous: WatchId,
}

#[derive(Debug, Clone, Copy, Default)]
struct Marks(u8);

impl Marks {
    /// Unchanged devices go out too: a probe, a new watcher, a stream that ended unconfirmed.
    const WHOLE: u8 = 1;
    /// Something besides state is due: the caller keeps what.
    const DUE: u8 = 2;
    /// Stands in its lane's queue.
    const QUEUED: u8 = 4;

    fn has(self, mark: u8) -> bool {
        self.0 & mark != 0
    }

    fn set(&mut self, mark: u8, is_set: bool) {
        if is_set { self.0 |= mark } else { self.0 &= !mark }
    }
}

/// What one watch is owed, handed out to be rendered.
#[derive(Debug)]
pub struct Update<'a, T> {
    /// Who receives it.
    pub watch: WatchId,
    /// The number that the caller gave with [`Shard::insert`].
    pub owner: u32,
    /// What was sent last.
    pub from: ViewId,
    /// What may be seen now.
    pub to: ViewId,
    /// Unchanged devices go out too.
    pub whole: bool,
    /// Something besides state is due, and goes first.
    pub due: bool,
    /// Reads `from` and `to`.
    pub views: &'a Views<T>,
}

impl<T: Hash + Eq + Default + Octets> Default for Shard<T> {
    fn default() -> Self {
        Self { views: Views::default(), watches: Slab::default(), lanes: Lanes::default() }
    }
}

impl<T: Hash + Eq + Default + Octets> Shard<T> {
    /// A new way out.
    pub fn add_lane(&mut self) -> LaneId {
        self.lanes.add()
    }

    /// Forgets a way out that leads to no receiver; with receivers it stays. Its name may be given again: true tells
    /// that nobody may use it any more for this one.
    pub fn remove_lane(&mut self, lane: LaneId) -> bool {
        let is_unused = self.members(lane).next().is_none();
        if is_unused {
            self.lanes.remove(lane);
        }
        is_unused
    }

    /// A new receiver that was sent nothing and sees nothing. `owner` is the caller's own number for it.
    pub fn insert(&mut self, lane: LaneId, owner: u32) -> WatchId {
        self.views.hold(ViewId::EMPTY);
        self.views.hold(ViewId::EMPTY);
        let id = WatchId(self.watches.insert(Watch {
            lane,
            owner,
            current: ViewId::EMPTY,
            sent: ViewId::EMPTY,
            marks: Marks::default(),
            is_held: false,
            next: WatchId::default(),
            previous: WatchId::default(),
        }));
        self.link(id, lane);
        id
    }

    /// Forgets a receiver; what it was still owed is dropped.
    pub fn remove(&mut self, id: WatchId) {
        self.unlink(id);
        if let Some(watch) = self.watches.remove(id.0) {
            self.views.release(watch.current);
            self.views.release(watch.sent);
        }
    }

    /// Takes the newest state that `id` may see. The caller keeps its own hold on `view`.
    ///
    /// A watcher needs the newest state, not each step on the way to it, so a watch that is already queued keeps its
    /// place and will carry `view`; one that came back to what was sent is owed nothing.
    pub fn handle_change(&mut self, id: WatchId, view: ViewId) {
        let Some(watch) = self.watches.get_mut(id.0) else { return };
        if watch.current == view {
            return;
        }
        let old = mem::replace(&mut watch.current, view);
        self.views.hold(view);
        self.views.release(old);
        self.queue(id);
    }

    /// Asks that `id` be sent its whole state again.
    pub fn mark_whole(&mut self, id: WatchId) {
        self.mark(id, Marks::WHOLE);
    }

    /// Says that something besides state is due to `id`.
    pub fn mark_due(&mut self, id: WatchId) {
        self.mark(id, Marks::DUE);
    }

    /// From now on `id` gathers changes, but leaves none, until [`Shard::unhold`].
    pub fn hold(&mut self, id: WatchId) {
        if let Some(watch) = self.watches.get_mut(id.0) {
            watch.is_held = true;
        }
    }

    /// Ends [`Shard::hold`]; what was gathered is owed now.
    pub fn unhold(&mut self, id: WatchId) {
        if let Some(watch) = self.watches.get_mut(id.0) {
            watch.is_held = false;
            self.queue(id);
        }
    }

    /// Lets `id` leave by another lane from now on.
    pub fn move_to(&mut self, id: WatchId, lane: LaneId) {
        if self.watches.get(id.0).is_none_or(|watch| watch.lane == lane) {
            return;
        }
        self.unlink(id);
        if let Some(watch) = self.watches.get_mut(id.0) {
            watch.lane = lane;
            // Its place in the old queue is passed over there, since the lane does not fit any more.
            watch.marks.set(Marks::QUEUED, false);
        }
        self.link(id, lane);
        self.queue(id);
    }

    /// The owners' numbers of all receivers that `lane` leads to; no other receiver is looked at.
    pub fn owners_in(&self, lane: LaneId) -> impl Iterator<Item = u32> {
        self.members(lane).map(|(_, watch)| watch.owner)
    }

    fn members(&self, lane: LaneId) -> impl Iterator<Item = (WatchId, &Watch)> {
        let mut at = self.lanes.first(lane);
        std::iter::from_fn(move || {
            let watch = self.watches.get(at.0)?;
            Some((mem::replace(&mut at, watch.next), watch))
        })
    }

    fn link(&mut self, id: WatchId, lane: LaneId) {
        let next = self.lanes.replace_first(lane, id);
        if let Some(next) = self.watches.get_mut(next.0) {
            next.previous = id;
        }
        if let Some(watch) = self.watches.get_mut(id.0) {
            (watch.next, watch.previous) = (next, WatchId::default());
        }
    }

    fn unlink(&mut self, id: WatchId) {
        let Some(&Watch { lane, next, previous, .. }) = self.watches.get(id.0) else { return };
        match self.watches.get_mut(previous.0) {
            Some(before) => before.next = next,
            None => _ = self.lanes.replace_first(lane, next),
        }
        if let Some(after) = self.watches.get_mut(next.0) {
            after.previous = previous;
        }
    }

    /// All that was sent by `lane` may be lost: each of its watches that was sent something gets its whole state again.
    pub fn handle_lane_lost(&mut self, lane: LaneId) {
        let lost = self.members(lane).filter(|(_, watch)| watch.sent != ViewId::EMPTY);
        let lost: Vec<WatchId> = lost.map(|(id, _)| id).collect();
        for id in lost {
            self.mark_whole(id);
        }
    }

    /// The lane that leads to `id`.
    pub fn lane_of(&self, id: WatchId) -> Option<LaneId> {
        self.watches.get(id.0).map(|watch| watch.lane)
    }

    /// What `id` may see now, and what it was sent.
    pub fn views_of(&self, id: WatchId) -> Option<(ViewId, ViewId)> {
        self.watches.get(id.0).map(|watch| (watch.current, watch.sent))
    }

    /// The next lane that owes something and has no request for credit open. Ask for its credit, then call
    /// [`Shard::poll_lane`]; until then it is not named again.
    pub fn poll_wanting(&mut self) -> Option<LaneId> {
        self.lanes.poll_wanting()
    }

    /// Lets `lane` be named by [`Shard::poll_wanting`] again if it owes something: whoever was asked for its credit was
    /// not there, and is now.
    pub fn ask_again(&mut self, lane: LaneId) {
        self.lanes.ask_again(lane);
    }

    /// The owners' numbers of what `lane` owes, in the order in which it leaves.
    pub fn owners_owed(&self, lane: LaneId) -> impl Iterator<Item = u32> {
        self.lanes.owed(lane).filter_map(|id| self.watches.get(id.0)).map(|watch| watch.owner)
    }

    /// Number of places in the queue of `lane`.
    pub fn owed_len(&self, lane: LaneId) -> usize {
        self.lanes.owed_len(lane)
    }

    /// Number of receivers.
    pub fn len(&self) -> usize {
        self.watches.len()
    }

    /// True when nobody watches.
    pub fn is_empty(&self) -> bool {
        self.watches.is_empty()
    }

    /// Hands out what `lane` is owed, in order, until `grant` bytes are used; at least one update when it is not zero.
    ///
    /// `render` writes one update and says how many bytes it took. What is not handed out waits here, where it costs
    /// one mark a watch. Gives the number of bytes.
    pub fn poll_lane(
        &mut self,
        lane: LaneId,
        grant: usize,
        mut render: impl FnMut(Update<'_, T>) -> usize,
    ) -> usize {
        let mut used = 0;
        while used < grant
            && let Some(id) = self.lanes.pop(lane)
        {
            let Some(watch) = self.watches.get_mut(id.0) else { continue };
            if watch.lane != lane || !watch.marks.has(Marks::QUEUED) {
                continue;
            }
            watch.marks.set(Marks::QUEUED, false);
            if watch.is_held || !watch.is_owed() {
                continue;
            }
            let update = Update {
                watch: id,
                owner: watch.owner,
                from: watch.sent,
                to: watch.current,
                whole: watch.marks.has(Marks::WHOLE),
                due: watch.marks.has(Marks::DUE),
                views: &self.views,
            };
            used += render(update);
            watch.marks.set(Marks::WHOLE | Marks::DUE, false);
            if watch.sent != watch.current {
                let old = mem::replace(&mut watch.sent, watch.current);
                let new = watch.current;
                self.views.hold(new);
                self.views.release(old);
            }
        }
        self.lanes.settle(lane);
        used
    }

    fn mark(&mut self, id: WatchId, mark: u8) {
        if let Some(watch) = self.watches.get_mut(id.0) {
            watch.marks.set(mark, true);
            self.queue(id);
        }
    }

    fn queue(&mut self, id: WatchId) {
        let Some(watch) = self.watches.get_mut(id.0) else { return };
        if watch.is_owed() && !watch.is_held && !watch.marks.has(Marks::QUEUED) {
            watch.marks.set(Marks::QUEUED, true);
            self.lanes.push(watch.lane, id);
        }
    }
}

impl Watch {
    fn is_owed(&self) -> bool {
        self.sent != self.current || self.marks.has(Marks::WHOLE | Marks::DUE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard_with(count: usize) -> (Shard<String>, LaneId, Vec<WatchId>) {
        let mut shard = Shard::default();
        let lane = shard.add_lane();
        let watches = (0..count).map(|n| shard.insert(lane, n as u32)).collect();
        (shard, lane, watches)
    }

    fn change(shard: &mut Shard<String>, id: WatchId, text: &str) {
        let view = shard.views.intern(text.into());
        shard.handle_change(id, view);
        shard.views.release(view);
    }

    fn drain(shard: &mut Shard<String>, lane: LaneId, grant: usize) -> Vec<String> {
        let mut seen = Vec::new();
        shard.poll_lane(lane, grant, |update| {
            let mark = if update.whole { "!" } else { "" };
            seen.push(format!(
                "{}>{}{mark}",
                update.views.content(update.from),
                update.views.content(update.to)
            ));
            10
        });
        seen
    }

    #[test]
    fn only_the_newest_state_leaves_and_nothing_twice() {
        let (mut shard, lane, watches) = shard_with(1);
        for text in ["a", "b", "c"] {
            change(&mut shard, watches[0], text);
        }
        assert_eq!(drain(&mut shard, lane, 100), [">c"]);
        assert!(drain(&mut shard, lane, 100).is_empty());
    }

    #[test]
    fn a_watch_that_came_back_to_what_was_sent_is_owed_nothing() {
        let (mut shard, lane, watches) = shard_with(1);
        change(&mut shard, watches[0], "a");
        drain(&mut shard, lane, 100);
        change(&mut shard, watches[0], "b");
        change(&mut shard, watches[0], "a");
        assert!(drain(&mut shard, lane, 100).is_empty());
        shard.mark_whole(watches[0]);
        assert_eq!(drain(&mut shard, lane, 100), ["a>a!"]);
    }

    #[test]
    fn credit_bounds_what_leaves_and_the_rest_asks_again() {
        let (mut shard, lane, watches) = shard_with(5);
        for id in &watches {
            change(&mut shard, *id, "a");
        }
        assert_eq!(shard.poll_wanting(), Some(lane));
        assert_eq!(shard.poll_wanting(), None, "a lane asks once");
        assert_eq!(drain(&mut shard, lane, 20).len(), 2);
        assert_eq!(shard.poll_wanting(), Some(lane));
        assert_eq!(drain(&mut shard, lane, 1000).len(), 3);
        assert_eq!(shard.poll_wanting(), None);
        change(&mut shard, watches[0], "b");
        assert_eq!(shard.poll_wanting(), Some(lane));
    }

    #[test]
    fn a_lane_whose_wish_was_not_heard_asks_again_once() {
        let (mut shard, lane, watches) = shard_with(1);
        shard.ask_again(lane);
        assert_eq!(shard.poll_wanting(), None, "it owes nothing");
        change(&mut shard, watches[0], "a");
        assert_eq!(shard.poll_wanting(), Some(lane));
        shard.ask_again(lane);
        shard.ask_again(lane);
        assert_eq!((shard.poll_wanting(), shard.poll_wanting()), (Some(lane), None));
    }

    #[test]
    fn a_lane_that_leads_to_nobody_is_given_anew_and_owes_nothing() {
        let (mut shard, lane, watches) = shard_with(1);
        change(&mut shard, watches[0], "a");
        assert!(!shard.remove_lane(lane), "somebody is there");
        shard.remove(watches[0]);
        assert!(shard.remove_lane(lane));
        assert_eq!(shard.poll_wanting(), None);
        assert_eq!(shard.add_lane(), lane);
        assert_eq!(shard.owed_len(lane), 0);
        let watch = shard.insert(lane, 7);
        change(&mut shard, watch, "b");
        assert_eq!(shard.poll_wanting(), Some(lane));
        assert_eq!(drain(&mut shard, lane, 100), [">b"]);
    }

    #[test]
    fn a_held_watch_gathers_and_leaves_the_last_state_when_it_is_let_go() {
        let (mut shard, lane, watches) = shard_with(1);
        shard.hold(watches[0]);
        change(&mut shard, watches[0], "a");
        change(&mut shard, watches[0], "b");
        assert!(drain(&mut shard, lane, 100).is_empty());
        shard.unhold(watches[0]);
        assert_eq!(drain(&mut shard, lane, 100), [">b"]);
    }

    #[test]
    fn a_removed_watch_is_passed_over_and_frees_its_views() {
        let (mut shard, lane, watches) = shard_with(2);
        change(&mut shard, watches[0], "a");
        change(&mut shard, watches[1], "b");
        shard.remove(watches[0]);
        assert_eq!(drain(&mut shard, lane, 100), [">b"]);
        shard.remove(watches[1]);
        assert_eq!(shard.views.len(), 1);
    }

    #[test]
    fn a_watch_that_moved_leaves_by_its_new_lane_only() {
        let (mut shard, lane, watches) = shard_with(1);
        let other = shard.add_lane();
        change(&mut shard, watches[0], "a");
        shard.move_to(watches[0], other);
        assert!(drain(&mut shard, lane, 100).is_empty());
        assert_eq!(drain(&mut shard, other, 100), [">a"]);
        shard.move_to(watches[0], lane);
        change(&mut shard, watches[0], "b");
        assert_eq!(drain(&mut shard, lane, 100), ["a>b"]);
    }

    #[test]
    fn a_lane_knows_its_receivers_whatever_comes_goes_and_moves() {
        let (mut shard, lane, watches) = shard_with(6);
        let other = shard.add_lane();
        let of = |shard: &Shard<String>, lane| {
            let mut owners: Vec<u32> = shard.owners_in(lane).collect();
            owners.sort_unstable();
            owners
        };
        shard.remove(watches[0]);
        shard.remove(watches[5]);
        shard.remove(watches[5]);
        shard.move_to(watches[2], other);
        shard.move_to(watches[2], other);
        let again = shard.insert(other, 9);
        assert_eq!((of(&shard, lane), of(&shard, other)), (vec![1, 3, 4], vec![2, 9]));
        shard.move_to(again, lane);
        shard.remove(watches[3]);
        assert_eq!((of(&shard, lane), of(&shard, other)), (vec![1, 4, 9], vec![2]));
        for id in [watches[1], watches[4], again, watches[2]] {
            shard.remove(id);
        }
        assert!(of(&shard, lane).is_empty() && of(&shard, other).is_empty() && shard.is_empty());
    }

    #[test]
    fn a_lost_lane_owes_the_whole_state_to_whom_something_was_sent() {
        let (mut shard, lane, watches) = shard_with(2);
        change(&mut shard, watches[0], "a");
        drain(&mut shard, lane, 100);
        shard.handle_lane_lost(lane);
        assert_eq!(drain(&mut shard, lane, 100), ["a>a!"]);
    }

    #[test]
    fn a_watch_costs_a_few_integers() {
        assert!(size_of::<Option<Watch>>() <= 28, "{} bytes", size_of::<Option<Watch>>());
    }
}
