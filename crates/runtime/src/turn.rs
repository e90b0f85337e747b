//! The bound on one turn of an actor: at most so many items, at most so much time.
//!
//! In: one call per item. Out: whether another item may be taken. It never yields by itself: the actor does that with
//! an awaited `yield_now`, since neither `ctx.notify` nor sending to oneself lets others run.

use std::time::Duration;

use tokio::time::Instant;

/// Items a turn may take at most.
pub const TURN_ITEMS: usize = 256;

/// Time a turn may take; looked at every few items, so the last of them may end a little later.
pub const TURN_SPAN: Duration = Duration::from_micros(200);

/// Reading the clock costs about as much as a small item, so it is read only every so many items.
const ITEMS_PER_LOOK: usize = 16;

/// One turn that has begun.
#[derive(Debug)]
pub struct Turn {
    began: Instant,
    taken: usize,
    items: usize,
    span: Duration,
}

impl Turn {
    /// A turn with the usual bounds, beginning now.
    pub fn begin() -> Self {
        Self::with_bounds(TURN_ITEMS, TURN_SPAN)
    }

    /// A turn of at most `items` items and `span` time, beginning now.
    pub fn with_bounds(items: usize, span: Duration) -> Self {
        Self { began: Instant::now(), taken: 0, items, span }
    }

    /// Asks for one more item: `true` counts it, `false` says that the turn is over.
    pub fn take(&mut self) -> bool {
        if self.taken >= self.items {
            return false;
        }
        if self.taken > 0 && self.taken.is_multiple_of(ITEMS_PER_LOOK) && self.elapsed() >= self.span {
            self.items = self.taken;
            return false;
        }
        self.taken += 1;
        true
    }

    /// Items taken so far.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Time since the turn began, for the histogram of turns.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_turn_ends_after_its_items() {
        let mut turn = Turn::begin();
        let mut taken = 0;
        while turn.take() {
            taken += 1;
        }
        assert_eq!((taken, turn.taken()), (256, 256));
        assert!(!turn.take());
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_ends_within_sixteen_items_of_its_time_and_stays_ended() {
        let mut turn = Turn::begin();
        assert!(turn.take());
        tokio::time::advance(Duration::from_micros(201)).await;
        let more = std::iter::repeat_with(|| turn.take()).take_while(|go| *go).count();
        assert_eq!(more, 15);
        assert!(!turn.take(), "an ended turn gives nothing more");
    }
}
