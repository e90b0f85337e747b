//! What a connection has still to write: filled from any thread, emptied by the connection in one write per wake.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tombolo_budget::{Account, Charge};

/// One connection's outbox. What bounds it is granted before it is made; the limit here only ends a connection whose
/// peer takes nothing while answers to its own requests pile up.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
    is_closing: AtomicBool,
    is_given_up: AtomicBool,
    limit_bytes: AtomicUsize,
    is_bound: AtomicBool,
    /// What all connections of a kind hold beyond [`FREE_BYTES`].
    budget: Option<Arc<Account>>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::with_limit(LIMIT_BYTES)
    }
}

#[derive(Debug, Default)]
struct Queue {
    parts: VecDeque<(Bytes, u32)>,
    bytes: usize,
    /// For what is beyond [`FREE_BYTES`], in steps of that.
    held: Vec<Charge>,
}

impl Outbox {
    /// An outbox that holds so many octets at most.
    pub(crate) fn with_limit(limit_bytes: usize) -> Self {
        Self {
            queue: Mutex::default(),
            filled: Notify::new(),
            is_closing: AtomicBool::new(false),
            is_given_up: AtomicBool::new(false),
            limit_bytes: AtomicUsize::new(limit_bytes),
            is_bound: AtomicBool::new(false),
            budget: None,
        }
    }

    /// What waits here beyond [`FREE_BYTES`] counts against `budget`, which many share.
    pub(crate) fn in_budget(mut self, budget: Arc<Account>) -> Self {
        self.budget = Some(budget);
        self
    }

    /// An outbox for whom nobody knows yet: it holds little until [`Outbox::bind`].
    pub(crate) fn for_stranger() -> Self {
        Self::with_limit(STRANGER_BYTES)
    }

    /// The connection is somebody's who proved himself.
    pub(crate) fn bind(&self) {
        self.limit_bytes.store(LIMIT_BYTES, Ordering::Relaxed);
        self.is_bound.store(true, Ordering::Release);
    }

    /// True once [`Outbox::bind`] was called.
    pub(crate) fn is_bound(&self) -> bool {
        self.is_bound.load(Ordering::Acquire)
    }

    /// Adds bytes that hold `count` stanzas or messages; `false` when the limit is passed.
    pub(crate) fn push(&self, bytes: Bytes, count: u32) -> bool {
        let mut queue = self.queue.lock();
        if queue.bytes + bytes.len() > self.limit_bytes.load(Ordering::Relaxed) {
            return false;
        }
        if !self.hold(&mut queue, bytes.len()) {
            return false;
        }
        queue.bytes += bytes.len();
        queue.parts.push_back((bytes, count));
        drop(queue);
        self.filled.notify_one();
        true
    }

    /// Takes room in the budget for `more` octets; false when there is none.
    fn hold(&self, queue: &mut Queue, more: usize) -> bool {
        let Some(budget) = &self.budget else { return true };
        let steps = (queue.bytes + more).saturating_sub(FREE_BYTES).div_ceil(FREE_BYTES);
        while queue.held.len() < steps {
            match Charge::take(&[budget], FREE_BYTES) {
                Ok(charge) => queue.held.push(charge),
                Err(_) => return false,
            }
        }
        true
    }

    /// Asks the connection to close once everything is written.
    pub(crate) fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
        self.filled.notify_one();
    }

    /// Asks the connection to end, for its peer does not answer; what waits is not written any more.
    pub(crate) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Release);
        self.abandon();
    }

    /// Asks the connection to close in order without what waits: somebody else writes it.
    pub(crate) fn abandon(&self) {
        let mut queue = self.queue.lock();
        queue.parts.clear();
        queue.bytes = 0;
        queue.held.clear();
        drop(queue);
        self.close();
    }

    /// True once [`Outbox::give_up`] was called.
    pub(crate) fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Acquire)
    }

    /// True once somebody has asked for the end.
    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    #[cfg(test)]
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.queue.lock().bytes
    }

    /// Everything that waits, as one buffer, with the number of stanzas in it; waits for some. `None` when the
    /// connection is to close and nothing is left.
    pub(crate) async fn take(&self) -> Option<(Bytes, u32)> {
        loop {
            let filled = self.filled.notified();
            if let Some(taken) = self.take_now() {
                return Some(taken);
            }
            if self.is_closing() {
                return None;
            }
            filled.await;
        }
    }

    fn take_now(&self) -> Option<(Bytes, u32)> {
        let mut queue = self.queue.lock();
        let (first, mut count) = queue.parts.pop_front()?;
        queue.bytes -= first.len();
        if queue.parts.is_empty() {
            queue.held.clear();
            return Some((first, count));
        }
        let mut whole = BytesMut::with_capacity(first.len() + queue.bytes.min(WRITE_BYTES));
        whole.extend_from_slice(&first);
        while whole.len() < WRITE_BYTES
            && let Some((part, stanzas)) = queue.parts.pop_front()
        {
            queue.bytes -= part.len();
            count += stanzas;
            whole.extend_from_slice(&part);
        }
        let steps = queue.bytes.saturating_sub(FREE_BYTES).div_ceil(FREE_BYTES);
        queue.held.truncate(steps);
        Some((whole.freeze(), count))
    }
}

/// A peer that lets so much pile up is not served any more.
const LIMIT_BYTES: usize = 8 << 20;
/// Challenges and refusals for a stranger that does not read them.
const STRANGER_BYTES: usize = 64 << 10;
/// So much may wait for each connection, whatever waits for the others: as much as it is granted.
const FREE_BYTES: usize = 128 << 10;
/// About how much one write takes.
const WRITE_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_leaves_as_one_buffer_and_a_closed_outbox_is_emptied_first() {
        let outbox = Outbox::default();
        assert!(outbox.push(Bytes::from_static(b"a"), 1) && outbox.push(Bytes::from_static(b"bc"), 2));
        outbox.close();
        assert_eq!(outbox.take().await, Some((Bytes::from_static(b"abc"), 3)));
        assert_eq!(outbox.take().await, None);
    }

    #[test]
    fn a_stranger_has_little_room_until_he_is_known() {
        let outbox = Outbox::for_stranger();
        let fits =
            |outbox: &Outbox| (0..1000).filter(|_| outbox.push(Bytes::from_static(&[0; 1024]), 1)).count();
        assert_eq!(fits(&outbox), STRANGER_BYTES / 1024);
        assert!(!outbox.is_bound());
        outbox.bind();
        assert!(outbox.is_bound());
        assert_eq!(fits(&outbox), 1000);
    }

    #[tokio::test]
    async fn what_waits_in_an_abandoned_outbox_is_not_written_and_its_connection_closes_in_order() {
        let outbox = Outbox::default();
        assert!(outbox.push(Bytes::from_static(b"a"), 1));
        outbox.abandon();
        assert_eq!(outbox.take().await, None);
        assert_eq!((outbox.waiting_bytes(), outbox.is_given_up()), (0, false));
    }

    #[tokio::test]
    async fn all_connections_together_hold_no_more_than_their_budget_beyond_what_each_always_may() {
        let budget = Account::new("outgoing", 4 << 20);
        let outboxes: Vec<Outbox> = (0..10).map(|_| Outbox::default().in_budget(budget.clone())).collect();
        let part = Bytes::from(vec![0; 64 << 10]);
        let fits = |outbox: &Outbox| (0..200).filter(|_| outbox.push(part.clone(), 1)).count() * part.len();
        let held: usize = outboxes.iter().map(fits).sum();
        assert!(held <= (4 << 20) + 10 * FREE_BYTES, "{held} octets");
        assert!(outboxes.iter().all(|outbox| outbox.waiting_bytes() >= FREE_BYTES), "each has its own");
        while outboxes[0].waiting_bytes() > 0 {
            outboxes[0].take().await;
        }
        drop(outboxes);
        assert_eq!(budget.held(), 0);
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_bounded() {
        let outbox = Outbox::default();
        let part = Bytes::from(vec![0; 1 << 20]);
        assert_eq!((0..20).filter(|_| outbox.push(part.clone(), 1)).count(), 8);
    }
}
