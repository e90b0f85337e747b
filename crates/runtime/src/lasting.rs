//! Work that lasts as long as the process, such as an accept loop: a panic costs what it had in hand, and it begins anew.
//!
//! In: how the work begins, and where a panic is told. Out: the end of the work, once it ends by itself. Nothing is counted
//! or logged here.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::{Backoff, BackoffSettings, Panicked, guard_future};

/// Runs the work that `begin` makes to its end. After a panic, which `tell` is given, `begin` is called again, ever more
/// rarely while panics follow each other closely.
///
/// What `begin` shares with the work outlives a panic, half changed: only values that hold whatever was left out, such as a
/// socket, may be shared.
pub async fn lasting<F: Future<Output = ()>>(mut begin: impl FnMut() -> F, mut tell: impl FnMut(&Panicked)) {
    let mut waits = PanicWaits::default();
    // The beginning is part of what may panic.
    while let Err(panicked) = guard_future(async { begin().await }).await {
        tell(&panicked);
        sleep(waits.next(tokio::time::Instant::now().into_std())).await;
    }
}

/// How long broken work waits until it is begun anew: longer with each further panic that follows closely.
#[derive(Debug, Clone)]
pub struct PanicWaits {
    backoff: Backoff,
    last: Option<Instant>,
}

impl Default for PanicWaits {
    fn default() -> Self {
        // Spreads the waits of many that broke for one cause.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let seed = NEXT.fetch_add(0x9e37_79b9, Ordering::Relaxed);
        Self { backoff: Backoff::new(SETTINGS, seed), last: None }
    }
}

impl PanicWaits {
    /// Counts a panic; how long to wait now. A panic after a quiet minute counts as the first.
    pub fn next(&mut self, now: Instant) -> Duration {
        if self.last.replace(now).is_some_and(|last| last + FORGOTTEN_AFTER <= now) {
            self.backoff.reset();
        }
        self.backoff.fail();
        self.backoff.wait()
    }
}

const SETTINGS: BackoffSettings =
    BackoffSettings { floor: Duration::from_millis(100), cap: Duration::from_secs(10) };
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_begins_anew_after_each_panic_and_once_it_ends_by_itself_it_is_over() {
        let (mut begun, mut told) = (0, Vec::new());
        let begin = || {
            begun += 1;
            let count = begun;
            async move {
                sleep(Duration::from_secs(1)).await;
                assert!(count > 3, "panic {count}");
            }
        };
        lasting(begin, |panicked| told.push(panicked.message.clone())).await;
        assert_eq!(told, ["panic 1", "panic 2", "panic 3"]);
        assert_eq!(begun, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_beginning_that_panics_counts_as_the_work() {
        let mut tries = 0;
        let begin = || {
            tries += 1;
            assert!(tries > 1, "not yet");
            std::future::ready(())
        };
        let mut told = 0;
        lasting(begin, |_| told += 1).await;
        assert_eq!((tries, told), (2, 1));
    }

    #[test]
    fn waits_grow_with_panics_that_follow_closely_up_to_ten_seconds_and_begin_anew_after_a_quiet_minute() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        let start = Instant::now();
        let longest = |number: u32, pause: Duration| {
            let of_one = |_| {
                let (mut waits, mut now) = (PanicWaits::default(), start);
                for _ in 1..number {
                    waits.next(now);
                    now += Duration::from_secs(1);
                }
                waits.next(now + pause)
            };
            (0..200).map(of_one).max().expect("some")
        };
        let soon = Duration::ZERO;
        assert_eq!(longest(1, soon), crate::backoff::MIN_WAIT);
        for (number, bound) in [(4, 0.8), (6, 3.2), (9, 10.0), (30, 10.0)] {
            let (longest, bound) = (longest(number, soon), Duration::from_secs_f64(bound));
            assert!(longest <= bound && longest > bound / 2, "{number}: {longest:?}");
        }
        assert_eq!(longest(9, FORGOTTEN_AFTER), crate::backoff::MIN_WAIT);
    }
}
