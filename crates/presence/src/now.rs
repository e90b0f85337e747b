//! The time that is handed to pure code: it never reads a clock itself.

use std::time::{Duration, Instant};

/// One reading of both clocks, taken once a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For deadlines: never goes back.
    pub instant: Instant,
    /// For what is stored or shown: since the Unix epoch, in UTC.
    pub wall: Duration,
}

impl Now {
    /// The same moment, `span` later on both clocks.
    pub fn after(self, span: Duration) -> Self {
        Self { instant: self.instant + span, wall: self.wall + span }
    }

    /// Seconds since the Unix epoch.
    pub fn unix_seconds(self) -> u64 {
        self.wall.as_secs()
    }
}
