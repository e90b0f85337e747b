//! Looks at the store once a second and tells operators of trouble: one line when it begins or ends, and one a minute with
//! a count between.
//!
//! States of the store and the time go in; what to log and how ready the process is come out.

use std::time::{Duration, Instant};

use tombolo_store::StoreState;
use tombolo_telemetry::PartState;

use crate::directory::Directory;

/// What operators are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreNews {
    /// Rows cannot be written since now, or still cannot.
    Trouble {
        /// Why.
        cause: String,
        /// Writes that failed since it began.
        failures: u64,
        /// Rows that wait for the disk.
        kept_rows: usize,
        /// Rows for which there was no room.
        lost_rows: u64,
    },
    /// Everything that waited is written.
    Over {
        /// Writes that had failed.
        failures: u64,
    },
}

impl Directory {
    /// Notes the clocks for the next start, and tells operators how the store is doing. Once a second.
    pub fn look_at_store(&self) {
        let now = self.clock.now();
        self.store.mark_clock(self.lifetimes.mark(self.clock.boot(), now));
        let state = self.store.state();
        let mut watch = self.store_watch.lock();
        match watch.look(&state, now.instant) {
            Some(StoreNews::Trouble { cause, failures, kept_rows, lost_rows }) => {
                tracing::error!(error = cause, failures, kept_rows, lost_rows, "the store cannot write");
            }
            Some(StoreNews::Over { failures }) => tracing::info!(failures, "the store writes again"),
            None => {}
        }
        let (part, note) = watch.part(&state);
        self.metrics.health().part("store").set(part, note);
        self.metrics.store_rows_kept(state.kept_rows as i64);
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct StoreWatch {
    trouble: Option<Trouble>,
    /// The write that was going on at the last look, and since when it is.
    writing: Option<(u64, Instant)>,
    /// Failures up to the beginning of the trouble.
    failures_before: u64,
}

#[derive(Debug)]
struct Trouble {
    told_at: Instant,
    cause: String,
}

impl StoreWatch {
    /// Takes what the store says of itself; what there is to log.
    pub fn look(&mut self, state: &StoreState, now: Instant) -> Option<StoreNews> {
        let Some(cause) = self.cause(state, now) else {
            self.trouble.take()?;
            let failures = state.failures - self.failures_before;
            self.failures_before = state.failures;
            return Some(StoreNews::Over { failures });
        };
        let is_told = self.trouble.as_ref().is_some_and(|trouble| now < trouble.told_at + TELL_EVERY);
        if is_told {
            return None;
        }
        self.trouble = Some(Trouble { told_at: now, cause: cause.clone() });
        Some(StoreNews::Trouble {
            cause,
            failures: state.failures - self.failures_before,
            kept_rows: state.kept_rows,
            lost_rows: state.lost_rows,
        })
    }

    /// How the store stands, for readiness: the process goes on, though new subscriptions are refused.
    pub fn part(&self, state: &StoreState) -> (PartState, String) {
        match &self.trouble {
            None if state.lost_rows > 0 => {
                let note = format!("{} rows found no room while the disk failed", state.lost_rows);
                (PartState::Noted, note)
            }
            None => (PartState::Up, String::new()),
            Some(Trouble { cause, .. }) => {
                let note = format!("{cause}; {} rows wait, new subscriptions are refused", state.kept_rows);
                (PartState::Degraded, note)
            }
        }
    }

    fn cause(&mut self, state: &StoreState, now: Instant) -> Option<String> {
        let since = match (self.writing, state.writing) {
            (Some((number, since)), Some(still)) if number == still => since,
            _ => now,
        };
        self.writing = state.writing.map(|number| (number, since));
        if let Some(error) = &state.failure {
            return Some(error.to_string());
        }
        if state.writing.is_some() && now >= since + SLOW {
            return Some("the disk gives no answer".to_owned());
        }
        (state.kept_rows > 0).then(|| "rows wait to be written".to_owned())
    }
}

/// How often a trouble that goes on is told.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// A write that takes longer is trouble.
const SLOW: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use tombolo_store::StoreError;

    use super::*;

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        Instant::now()
    }

    fn failing(failures: u64) -> StoreState {
        let failure = Some(StoreError::Io { cause: "no space left".into() });
        StoreState { failure, failures, kept_rows: 5, ..StoreState::default() }
    }

    #[test]
    fn trouble_is_told_when_it_begins_once_a_minute_and_when_it_ends() {
        let (mut watch, start) = (StoreWatch::default(), start());
        let mut told = Vec::new();
        for second in 0..200 {
            let state = match second {
                10..150 => failing(second),
                _ => StoreState { failures: 149, ..StoreState::default() },
            };
            let news = watch.look(&state, start + Duration::from_secs(second));
            if second == 100 {
                let (part, note) = watch.part(&state);
                assert_eq!(part, PartState::Degraded);
                assert!(note.contains("no space left") && note.contains("5 rows"), "{note}");
            }
            told.extend(news.map(|news| (second, news)));
        }
        let seconds: Vec<u64> = told.iter().map(|(second, _)| *second).collect();
        assert_eq!(seconds, [10, 70, 130, 150], "{told:?}");
        assert!(matches!(told[1].1, StoreNews::Trouble { failures: 70, .. }), "{told:?}");
        assert_eq!(told[3].1, StoreNews::Over { failures: 149 });
        assert_eq!(watch.part(&StoreState::default()).0, PartState::Up);
    }

    #[test]
    fn a_write_that_does_not_end_is_trouble_and_many_short_ones_are_none() {
        let (mut watch, start) = (StoreWatch::default(), start());
        let state = |number| StoreState { writing: Some(number), ..StoreState::default() };
        for second in 0..10 {
            assert_eq!(watch.look(&state(second + 1), start + Duration::from_secs(second)), None);
        }
        let hangs: Vec<bool> = (10..16)
            .map(|second| watch.look(&state(99), start + Duration::from_secs(second)).is_some())
            .collect();
        assert_eq!(hangs, [false, false, false, true, false, false]);
    }
}
