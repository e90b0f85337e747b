//! Spans of time in a histogram of fixed size.
//!
//! In: spans, from one shard each. Out: quantiles, merged over shards when somebody asks. It reads no clock.

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

    /// The quantiles that are shown, in seconds, over all of `lags`, with the number of spans; nothing without spans.
    pub fn merged(lags: &[Self]) -> Option<(Vec<(f64, f64)>, u64)> {
        let mut all: Option<Histogram<u64>> = None;
        for lag in lags {
            let histogram = lag.0.lock();
            match &mut all {
                Some(all) => all.add(&*histogram).expect("all have the same bounds"),
                None => all = Some(histogram.clone()),
            }
        }
        let all = all.filter(|all| !all.is_empty())?;
        let at = |quantile: f64| (quantile, all.value_at_quantile(quantile) as f64 / 1e6);
        Some(([0.5, 0.9, 0.99, 0.999, 1.0].map(at).to_vec(), all.len()))
    }
}

impl std::fmt::Debug for Lag {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Lag({})", self.0.lock().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_all_shards_together() {
        let (quick, slow) = (Lag::default(), Lag::default());
        for _ in 0..99 {
            quick.record(Duration::from_micros(100));
        }
        slow.record(Duration::from_secs(2));
        let (quantiles, count) = Lag::merged(&[quick, slow]).expect("spans");
        assert_eq!(count, 100);
        let near = |index: usize, seconds: f64| (quantiles[index].1 / seconds - 1.0).abs() < 0.02;
        assert!(near(0, 100e-6) && near(2, 100e-6) && near(4, 2.0), "{quantiles:?}");
    }

    #[test]
    fn spans_outside_of_the_bounds_count_as_the_bounds() {
        let lag = Lag::default();
        lag.record(Duration::ZERO);
        lag.record(Duration::from_secs(1_000_000));
        let (quantiles, count) = Lag::merged(&[lag]).expect("spans");
        assert_eq!(count, 2);
        assert!(quantiles[0].1 < 2e-6 && (59.0..61.0).contains(&quantiles[4].1), "{quantiles:?}");
        assert!(Lag::merged(&[Lag::default()]).is_none() && Lag::merged(&[]).is_none());
    }
}
