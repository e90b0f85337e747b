//! The bounded inbox of a consumer of bulk, with at most one wake in flight.
//!
//! In: items from any thread. Out: items to one consumer, and a wake when there is something after there was nothing.
//! A full inbox gives the item back to its producer, who keeps it and stops reading; nothing here waits or grows. Full is
//! what holds as many items as it may, or as many octets, where its producers say how many an item has.
//!
//! The flag says "the consumer is awake, or is about to be". A push sets it and wakes only if it was clear. Only a turn
//! that has found the queue empty clears it, and then looks once more: an item pushed in between would otherwise lie
//! there with nobody awake. Set and clear are read-modify-writes, so whichever comes second has seen what the other
//! did to the queue before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use actix::{Message, Recipient};
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use parking_lot::Mutex;

/// Tells an actor that its inbox has something.
///
/// May come when the inbox is empty again; the turn then finds nothing and that is all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Wake;

type Waker = Arc<dyn Fn() + Send + Sync>;

struct Shared<T> {
    /// Each with its octets.
    queue: ArrayQueue<(T, usize)>,
    /// Octets that wait, or are about to.
    bytes: CachePadded<AtomicUsize>,
    limit_bytes: usize,
    is_awake: CachePadded<AtomicBool>,
    refused: AtomicU64,
    waker: Mutex<Option<Waker>>,
}

impl<T> Shared<T> {
    /// Takes room for an item; one that is too large by itself has room when it is alone.
    fn reserve(&self, bytes: usize) -> bool {
        let add = |waiting: usize| {
            let sum = waiting.saturating_add(bytes);
            (waiting == 0 || sum <= self.limit_bytes).then_some(sum)
        };
        bytes == 0 || self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    fn release(&self, bytes: usize) {
        if bytes > 0 {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    fn wake(&self) {
        let waker = self.waker.lock().clone();
        if let Some(waker) = waker {
            waker();
        }
    }
}

/// An inbox of `capacity` items (at least 1), and the first of its senders.
///
/// Items may be pushed before the consumer has said how it is woken.
pub fn inbox<T: Send + 'static>(capacity: usize) -> (InboxSender<T>, Inbox<T>) {
    inbox_of_bytes(capacity, usize::MAX)
}

/// An inbox of `capacity` items (at least 1) that together have at most `limit_bytes` octets, as [`InboxSender::push_sized`]
/// counts them.
pub fn inbox_of_bytes<T: Send + 'static>(capacity: usize, limit_bytes: usize) -> (InboxSender<T>, Inbox<T>) {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(capacity.max(1)),
        bytes: CachePadded::new(AtomicUsize::new(0)),
        limit_bytes,
        is_awake: CachePadded::new(AtomicBool::new(false)),
        refused: AtomicU64::new(0),
        waker: Mutex::new(None),
    });
    (InboxSender { shared: shared.clone() }, Inbox { shared })
}

/// The producers' end; clone it for each producer.
pub struct InboxSender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for InboxSender<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<T> std::fmt::Debug for InboxSender<T> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "InboxSender({}/{})", self.len(), self.capacity())
    }
}

impl<T> InboxSender<T> {
    /// Puts `item` at the end, and wakes the consumer if it rests.
    ///
    /// # Errors
    /// Gives the item back when the inbox is full; that is counted.
    pub fn push(&self, item: T) -> Result<(), T> {
        self.push_sized(item, 0)
    }

    /// [`push`](Self::push) of an item of `bytes` octets.
    ///
    /// # Errors
    /// Gives the item back when there are as many items or octets as may be; that is counted. An item that alone has more
    /// octets than may be is taken when no other with octets is there.
    pub fn push_sized(&self, item: T, bytes: usize) -> Result<(), T> {
        let is_room = self.shared.reserve(bytes);
        let pushed = if is_room { self.shared.queue.push((item, bytes)) } else { Err((item, 0)) };
        if let Err((item, reserved)) = pushed {
            self.shared.release(reserved);
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
            return Err(item);
        }
        if !self.shared.is_awake.swap(true, Ordering::AcqRel) {
            self.shared.wake();
        }
        Ok(())
    }

    /// Items that wait; another thread may have changed it meanwhile.
    pub fn len(&self) -> usize {
        self.shared.queue.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.shared.queue.is_empty()
    }

    /// Items that fit.
    pub fn capacity(&self) -> usize {
        self.shared.queue.capacity()
    }

    /// Pushes that were given back since the start.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }
}

/// The consumer's end: one actor.
pub struct Inbox<T> {
    shared: Arc<Shared<T>>,
}

impl<T> std::fmt::Debug for Inbox<T> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Inbox({}/{})", self.len(), self.shared.queue.capacity())
    }
}

impl<T> Inbox<T> {
    /// From now on the consumer is woken by a [`Wake`] to `recipient`, which is kept. For `Actor::started`.
    ///
    /// A mailbox takes it whatever it holds; what bounds it is the flag, which allows one wake in flight.
    pub fn wake_actor(&self, recipient: Recipient<Wake>) {
        self.wake_by(move || recipient.do_send(Wake));
    }

    /// From now on the consumer is woken by calling `waker`, from a producer's thread.
    ///
    /// If there were pushes before, `waker` is called at once.
    pub fn wake_by(&self, waker: impl Fn() + Send + Sync + 'static) {
        *self.shared.waker.lock() = Some(Arc::new(waker));
        // The lock orders this with a push that found no waker: then we see its flag. One wake too many is harmless.
        if self.shared.is_awake.load(Ordering::Acquire) {
            self.shared.wake();
        }
    }

    /// The oldest item.
    pub fn pop(&self) -> Option<T> {
        let (item, bytes) = self.shared.queue.pop()?;
        self.shared.release(bytes);
        Some(item)
    }

    /// Ends a turn: `true` if the consumer must take another one (after a yield), `false` if it may rest until woken.
    ///
    /// A turn that ends without this call leaves the flag set, and nobody wakes the consumer again.
    #[must_use = "on true nobody wakes the consumer: it has to go on by itself"]
    pub fn finish_turn(&self) -> bool {
        self.finish_turn_around(|| (), || ())
    }

    /// [`finish_turn`](Self::finish_turn), with what others may do between its steps.
    fn finish_turn_around(&self, after_look: impl FnOnce(), after_clear: impl FnOnce()) -> bool {
        if !self.shared.queue.is_empty() {
            return true;
        }
        after_look();
        self.shared.is_awake.swap(false, Ordering::AcqRel);
        after_clear();
        // If a push came between and has set the flag again, its wake is on its way.
        !self.shared.queue.is_empty() && !self.shared.is_awake.swap(true, Ordering::AcqRel)
    }

    /// Another sender to this inbox.
    pub fn sender(&self) -> InboxSender<T> {
        InboxSender { shared: self.shared.clone() }
    }

    /// Items that wait; another thread may have changed it meanwhile.
    pub fn len(&self) -> usize {
        self.shared.queue.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.shared.queue.is_empty()
    }

    /// Pushes that were given back since the start.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn counted(inbox: &Inbox<u32>) -> Arc<AtomicUsize> {
        let wakes = Arc::new(AtomicUsize::new(0));
        let count = wakes.clone();
        inbox.wake_by(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        wakes
    }

    #[test]
    fn a_full_inbox_gives_the_item_back_and_counts_it() {
        let (sender, inbox) = inbox(2);
        assert_eq!(sender.push(1), Ok(()));
        assert_eq!(sender.push(2), Ok(()));
        assert_eq!(sender.push(3), Err(3));
        assert_eq!((sender.refused(), inbox.refused(), inbox.len()), (1, 1, 2));
        assert_eq!(inbox.pop(), Some(1));
        assert_eq!(sender.push(3), Ok(()));
    }

    #[test]
    fn an_inbox_is_full_of_octets_too_and_takes_one_large_item_alone() {
        let (sender, inbox) = inbox_of_bytes(8, 100);
        assert_eq!(sender.push_sized(1, 60), Ok(()));
        assert_eq!(sender.push_sized(2, 41), Err(2));
        assert_eq!(sender.push_sized(3, 40), Ok(()));
        assert_eq!(sender.push(4), Ok(()), "no octets have room");
        assert_eq!(sender.push_sized(5, 1), Err(5));
        assert_eq!((sender.refused(), inbox.len()), (2, 3));
        assert_eq!((inbox.pop(), sender.push_sized(5, 60)), (Some(1), Ok(())));
        assert_eq!([inbox.pop(), inbox.pop(), inbox.pop(), inbox.pop()], [Some(3), Some(4), Some(5), None]);
        assert_eq!(sender.push_sized(6, 1000), Ok(()));
        assert_eq!(sender.push_sized(7, 1), Err(7));
        assert_eq!((inbox.pop(), sender.push_sized(7, 100)), (Some(6), Ok(())));
    }

    #[test]
    fn what_a_full_queue_gives_back_takes_no_octets() {
        let (sender, inbox) = inbox_of_bytes(1, 100);
        assert_eq!(sender.push_sized(1, 50), Ok(()));
        for _ in 0..10 {
            assert_eq!(sender.push_sized(2, 50), Err(2));
        }
        assert_eq!((inbox.pop(), sender.push_sized(2, 100)), (Some(1), Ok(())));
    }

    #[test]
    fn only_the_first_push_after_rest_wakes() {
        let (sender, inbox) = inbox(8);
        let wakes = counted(&inbox);
        for item in 0..4 {
            sender.push(item).unwrap();
        }
        assert_eq!(wakes.load(Ordering::SeqCst), 1);
        inbox.pop();
        assert!(inbox.finish_turn(), "three are left, so the consumer goes on");
        sender.push(9).unwrap();
        assert_eq!(wakes.load(Ordering::SeqCst), 1, "an awake consumer is not woken");
        while inbox.pop().is_some() {}
        assert!(!inbox.finish_turn());
        sender.push(10).unwrap();
        assert_eq!(wakes.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn what_was_pushed_before_the_consumer_was_there_wakes_it_when_it_comes() {
        let (sender, inbox) = inbox(8);
        sender.push(1).unwrap();
        let wakes = counted(&inbox);
        assert_eq!(wakes.load(Ordering::SeqCst), 1);
    }

    /// Four producers against a consumer that rests as often as it can: a lost wake shows as a wait that runs out.
    #[test]
    fn no_wake_is_lost_between_four_threads_and_a_consumer_that_keeps_falling_asleep() {
        const PRODUCERS: u32 = 4;
        const ITEMS: u32 = 30_000;
        let (sender, inbox) = inbox::<(u32, u32)>(7);
        let (wake, woken) = channel();
        inbox.wake_by(move || wake.send(()).unwrap());
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let sender = sender.clone();
                thread::spawn(move || {
                    for number in 0..ITEMS {
                        let mut item = (producer, number);
                        while let Err(back) = sender.push(item) {
                            item = back;
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut next = [0; PRODUCERS as usize];
        while next.iter().sum::<u32>() < PRODUCERS * ITEMS {
            match woken.recv_timeout(Duration::from_secs(20)) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => panic!("a wake was lost with {} waiting", inbox.len()),
                Err(RecvTimeoutError::Disconnected) => unreachable!("the inbox holds the waker"),
            }
            loop {
                for (producer, number) in std::iter::from_fn(|| inbox.pop()).take(3) {
                    assert_eq!(number, next[producer as usize], "order of producer {producer}");
                    next[producer as usize] += 1;
                }
                if !inbox.finish_turn() {
                    break;
                }
            }
        }
        for producer in producers {
            producer.join().unwrap();
        }
        assert_eq!(next, [ITEMS; PRODUCERS as usize]);
    }

    #[test]
    fn an_item_pushed_between_the_first_look_and_the_clearing_is_seen_by_the_second_look() {
        let (sender, inbox) = inbox(8);
        let wakes = counted(&inbox);
        sender.push(1).unwrap();
        inbox.pop();
        assert!(inbox.finish_turn_around(|| sender.push(2).unwrap(), || ()), "the consumer must go on");
        assert_eq!(wakes.load(Ordering::SeqCst), 1, "and nobody woke it");
        sender.push(3).unwrap();
        assert_eq!(wakes.load(Ordering::SeqCst), 1, "nobody wakes a consumer that goes on");
    }

    #[test]
    fn an_item_pushed_after_the_clearing_wakes_and_the_consumer_may_rest() {
        let (sender, inbox) = inbox(8);
        let wakes = counted(&inbox);
        sender.push(1).unwrap();
        inbox.pop();
        assert!(!inbox.finish_turn_around(|| (), || sender.push(2).unwrap()));
        assert_eq!(wakes.load(Ordering::SeqCst), 2);
    }

    /// A producer that pushes just while its consumer falls asleep, a little sooner or later each time, so that some
    /// pushes come between the consumer's first look and its clearing of the flag.
    #[test]
    fn an_item_pushed_while_the_consumer_falls_asleep_is_seen_or_wakes_it() {
        const ROUNDS: usize = 20_000;
        let (sender, inbox) = inbox::<usize>(4);
        let (wake, woken) = channel();
        inbox.wake_by(move || wake.send(()).unwrap());
        let popped = Arc::new(AtomicUsize::new(0));
        let seen = popped.clone();
        let producer = thread::spawn(move || {
            for round in 0..ROUNDS {
                while seen.load(Ordering::Acquire) < round {
                    std::hint::spin_loop();
                }
                for _ in 0..round % 61 {
                    std::hint::spin_loop();
                }
                sender.push(round).expect("never more than one waits");
            }
        });
        let mut next = 0;
        while next < ROUNDS {
            match woken.recv_timeout(Duration::from_secs(10)) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => {
                    panic!("round {next}: the wake was lost, {} wait", inbox.len())
                }
                Err(RecvTimeoutError::Disconnected) => unreachable!("the inbox holds the waker"),
            }
            loop {
                while let Some(round) = inbox.pop() {
                    assert_eq!(round, next);
                    next += 1;
                    popped.store(next, Ordering::Release);
                }
                if !inbox.finish_turn() {
                    break;
                }
            }
        }
        producer.join().unwrap();
    }
}
