//! When a subscriber refreshes, and how long it waits after a failure. Spans and random numbers go in, spans come out.

use std::time::Duration;

/// Spans and bounds that all subscribers share.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// T1 of RFC 3261 §17.1.1.1; Timer N is 64 of it.
    pub t1: Duration,
    /// The least time between a failure and the next attempt; doubles with each failure in a row.
    pub retry_floor: Duration,
    /// Where that doubling ends.
    pub retry_cap: Duration,
    /// The longest Retry-After that is obeyed.
    pub retry_after_cap: Duration,
    /// The largest Min-Expires that is obeyed, seconds.
    pub expires_cap: u32,
}

impl Default for Settings {
    /// T1 500 ms, attempts 5 s to 30 min apart, Retry-After and Min-Expires up to a day.
    fn default() -> Self {
        Self {
            t1: Duration::from_millis(500),
            retry_floor: Duration::from_secs(5),
            retry_cap: Duration::from_secs(30 * 60),
            retry_after_cap: Duration::from_secs(86_400),
            expires_cap: 86_400,
        }
    }
}

impl Settings {
    /// How long a NOTIFY is waited for.
    pub(super) fn timer_n(&self) -> Duration {
        self.t1 * 64
    }

    /// The wait after `failures` failures in a row, up to half longer by chance.
    pub(super) fn backoff(&self, failures: u8, random: u32) -> Duration {
        let doubled = self.retry_floor.saturating_mul(1 << failures.min(20)).min(self.retry_cap);
        doubled + fraction(doubled / 2, random)
    }
}

/// The part of `span` that `random` of 2³² stands for.
fn fraction(span: Duration, random: u32) -> Duration {
    span.mul_f64(f64::from(random) / 4_294_967_296.0)
}

/// `number` seconds.
pub(super) fn seconds(number: u32) -> Duration {
    Duration::from_secs(number.into())
}

/// When to refresh a subscription that has `life` seconds left: by chance at 50 to 90 % of it, but at least 5 s
/// before its end. A life under 10 s leaves no room for that: then halfway, yet never within the next second.
pub(super) fn refresh_point(life: u32, random: u32) -> Duration {
    let life = seconds(life);
    let half = life / 2;
    let point = half + fraction(life.mul_f64(0.4), random);
    let last = life.saturating_sub(Duration::from_secs(5)).max(half);
    point.min(last).max(Duration::from_secs(1))
}
