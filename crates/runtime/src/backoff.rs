//! When a dialler tries again: ever more rarely while it fails. Pure.
//!
//! In: failures, and connections that proved good. Out: how long to wait. It dials nothing and knows no clock.

use std::time::Duration;

/// The bounds of the waits between dials.
#[derive(Debug, Clone, Copy)]
pub struct BackoffSettings {
    /// The longest wait after the first failure; it doubles with each further one.
    pub floor: Duration,
    /// Where that doubling ends.
    pub cap: Duration,
}

/// The waits of one dialler.
#[derive(Debug, Clone)]
pub struct Backoff {
    settings: BackoffSettings,
    failures: u32,
    random: u64,
}

impl Backoff {
    /// A dialler that has not failed yet. `seed` spreads its waits, so that not everybody dials at one moment.
    pub fn new(settings: BackoffSettings, seed: u64) -> Self {
        Self { settings, failures: 0, random: seed | 1 }
    }

    /// A dial failed, or its connection ended before it proved good.
    pub fn fail(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// A connection proved good: the next failure counts as the first.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since a connection proved good.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// How long to wait before the next dial: by chance up to a bound that doubles with each failure (RFC 6120 §3.3), and
    /// never less than [`MIN_WAIT`].
    pub fn wait(&mut self) -> Duration {
        let exponent = self.failures.saturating_sub(1).min(16);
        let bound = self.settings.floor.saturating_mul(1 << exponent).min(self.settings.cap);
        (bound * (self.next_random() >> 54) as u32 / 1024).max(MIN_WAIT)
    }

    /// xorshift64*: its high bits are good even for seeds that are alike.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// No two dials of one dialler follow each other more closely.
pub const MIN_WAIT: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: BackoffSettings =
        BackoffSettings { floor: Duration::from_secs(1), cap: Duration::from_secs(30) };

    #[test]
    fn each_further_failure_doubles_the_bound_up_to_the_cap_and_a_good_connection_begins_anew() {
        let longest = |failures: u32| {
            let waits = (0..200).map(|seed| {
                let mut backoff = Backoff::new(SETTINGS, seed * 977);
                (0..failures).for_each(|_| backoff.fail());
                backoff.wait()
            });
            waits.max().expect("some")
        };
        for (failures, bound) in [(0, 1), (1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (4_000_000, 30)] {
            let (longest, bound) = (longest(failures.min(80)), Duration::from_secs(bound));
            assert!(longest <= bound && longest > bound * 9 / 10, "{failures}: {longest:?}");
        }
        let mut backoff = Backoff::new(SETTINGS, 1);
        (0..9).for_each(|_| backoff.fail());
        backoff.reset();
        assert!(backoff.failures() == 0 && backoff.wait() <= SETTINGS.floor);
    }

    #[test]
    fn no_wait_is_shorter_than_the_least_one() {
        let mut backoff = Backoff::new(BackoffSettings { floor: Duration::ZERO, ..SETTINGS }, 7);
        backoff.fail();
        assert_eq!(backoff.wait(), MIN_WAIT);
    }
}
