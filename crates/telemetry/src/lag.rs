//! Spans of time in a histogram of fixed size.

use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

/// A histogram of microseconds, from 1 µs to 60 s at two digits.
pub struct Lag(Mutex<Histogram<u64>>);

impl Default for Lag {
    fn default() -> Self {
        Self(Mutex::new(Histogram::new_with_bounds(1, 60_000_000, 2).expect("the bounds are legal")))
    }
}

impl Lag {
    /// Counts one span; longer ones count as 60 s.
    pub fn record(&self, span: Duration) {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        self.0.lock().saturating_record(micros.max(1));
    }

    /// The quantiles that are shown, in seconds, with the number of spans.
    pub fn summary(&self) -> (Vec<(f64, f64)>, u64) {
        let histogram = self.0.lock();
        let at = |quantile: f64| (quantile, histogram.value_at_quantile(quantile) as f64 / 1e6);
        ([0.5, 0.9, 0.99, 0.999, 1.0].map(at).to_vec(), histogram.len())
    }
}

impl std::fmt::Debug for Lag {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Lag({})", self.0.lock().len())
    }
}
