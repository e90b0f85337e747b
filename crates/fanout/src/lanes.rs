//! Lanes: the ways that updates leave by, each with the queue of watches that it owes.

use std::collections::VecDeque;

use crate::WatchId;

/// Names a lane of this shard: the n-th way to a session or a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(pub u32);

#[derive(Debug, Default)]
pub(crate) struct Lanes {
    queues: Vec<Lane>,
    /// Names that may be given again.
    free: Vec<LaneId>,
    /// Lanes that began to owe something since they were last asked for.
    wanting: VecDeque<LaneId>,
}

#[derive(Debug, Default)]
struct Lane {
    owed: VecDeque<WatchId>,
    is_wanting: bool,
    /// The first of its watches; each names the next.
    first: WatchId,
}

impl Lanes {
    pub(crate) fn add(&mut self) -> LaneId {
        if let Some(lane) = self.free.pop() {
            return lane;
        }
        self.queues.push(Lane::default());
        LaneId(u32::try_from(self.queues.len() - 1).expect("fewer than 2^32 lanes"))
    }

    /// Forgets a lane without watches.
    pub(crate) fn remove(&mut self, lane: LaneId) {
        let Some(queue) = self.queues.get_mut(lane.0 as usize) else { return };
        if std::mem::take(queue).is_wanting {
            self.wanting.retain(|wanting| *wanting != lane);
        }
        self.free.push(lane);
    }

    /// The first of the lane's watches; the default without any.
    pub(crate) fn first(&self, lane: LaneId) -> WatchId {
        self.queues.get(lane.0 as usize).map_or_else(WatchId::default, |queue| queue.first)
    }

    /// Puts another watch first; gives the one that was.
    pub(crate) fn replace_first(&mut self, lane: LaneId, watch: WatchId) -> WatchId {
        std::mem::replace(&mut self.queues[lane.0 as usize].first, watch)
    }

    pub(crate) fn push(&mut self, lane: LaneId, watch: WatchId) {
        let queue = &mut self.queues[lane.0 as usize];
        queue.owed.push_back(watch);
        if !std::mem::replace(&mut queue.is_wanting, true) {
            self.wanting.push_back(lane);
        }
    }

    pub(crate) fn pop(&mut self, lane: LaneId) -> Option<WatchId> {
        self.queues.get_mut(lane.0 as usize)?.owed.pop_front()
    }

    pub(crate) fn owed(&self, lane: LaneId) -> impl Iterator<Item = WatchId> {
        self.queues.get(lane.0 as usize).into_iter().flat_map(|queue| queue.owed.iter().copied())
    }

    pub(crate) fn owed_len(&self, lane: LaneId) -> usize {
        self.queues.get(lane.0 as usize).map_or(0, |queue| queue.owed.len())
    }

    /// Says that credit was used: the lane asks again when something is still, or newly, owed.
    pub(crate) fn settle(&mut self, lane: LaneId) {
        let Some(queue) = self.queues.get_mut(lane.0 as usize) else { return };
        queue.is_wanting = !queue.owed.is_empty();
        if queue.owed.is_empty() {
            // A storm's queue is not kept for the quiet that follows.
            queue.owed.shrink_to(64);
        } else {
            self.wanting.push_back(lane);
        }
    }

    /// Forgets that the lane asked: whoever was asked may not have heard it. What is owed asks again.
    pub(crate) fn ask_again(&mut self, lane: LaneId) {
        let Some(queue) = self.queues.get(lane.0 as usize) else { return };
        if !queue.owed.is_empty() && !self.wanting.contains(&lane) {
            self.wanting.push_back(lane);
        }
    }

    pub(crate) fn poll_wanting(&mut self) -> Option<LaneId> {
        self.wanting.pop_front()
    }
}
