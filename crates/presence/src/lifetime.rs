//! The time in which stored lifetimes are counted: it never goes back, and no step of the wall clock moves it.
//!
//! A mark of an earlier start and a reading of today's clocks go in; seconds come out. While the machine has not booted
//! since the mark, only the time since its boot counts. After another boot only the wall clock can tell how long the process
//! was away; one that stands before the mark tells nothing, and then no time has passed.

use std::time::Instant;

use crate::Now;

/// Which boot of the machine this is, and how long ago it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boot {
    /// Differs for each boot.
    pub id: u128,
    /// Seconds since then, those included in which the machine slept.
    pub seconds: u64,
}

/// What a later start needs to know how much time has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockMark {
    /// `None` where the machine does not tell.
    pub boot: Option<Boot>,
    /// The wall clock, in seconds since the Unix epoch.
    pub wall: u64,
    /// The lifetime clock.
    pub time: u64,
}

/// Seconds that began as those since the Unix epoch, and are counted on from start to start.
#[derive(Debug, Clone, Copy)]
pub struct LifetimeClock {
    begun: Instant,
    time: u64,
    last_mark: u64,
}

impl LifetimeClock {
    /// The clock of a store without a mark.
    pub fn new(now: Now) -> Self {
        Self { begun: now.instant, time: now.unix_seconds(), last_mark: 0 }
    }

    /// Goes on from the mark of an earlier start.
    pub fn resumed(mark: Option<ClockMark>, boot: Option<Boot>, now: Now) -> Self {
        let Some(mark) = mark else { return Self::new(now) };
        let passed = match (mark.boot, boot) {
            (Some(then), Some(today)) if then.id == today.id => today.seconds.saturating_sub(then.seconds),
            _ => now.unix_seconds().saturating_sub(mark.wall),
        };
        Self { begun: now.instant, time: mark.time + passed, last_mark: mark.time }
    }

    /// The time at `instant`.
    pub fn at(&self, instant: Instant) -> u64 {
        self.time + instant.saturating_duration_since(self.begun).as_secs()
    }

    /// When stored rows were last known to be current: what was alive then may have been prolonged since.
    pub fn last_mark(&self) -> u64 {
        self.last_mark
    }

    /// The mark to be stored.
    pub fn mark(&self, boot: Option<Boot>, now: Now) -> ClockMark {
        ClockMark { boot, wall: now.unix_seconds(), time: self.at(now.instant) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR: u64 = 3600;

    fn now(wall: u64) -> Now {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        let instant = Instant::now();
        Now { instant, wall: Duration::from_secs(wall) }
    }

    fn boot(id: u128, seconds: u64) -> Option<Boot> {
        Some(Boot { id, seconds })
    }

    #[test]
    fn on_the_same_boot_no_step_of_the_wall_clock_counts() {
        let mark = ClockMark { boot: boot(1, 500), wall: 1_800_000_000, time: 1_700_000_000 };
        for wall in [0, 1_800_000_000 - HOUR, 1_800_000_010, 1_800_000_000 + HOUR] {
            let clock = LifetimeClock::resumed(Some(mark), boot(1, 510), now(wall));
            assert_eq!(clock.at(clock.begun), 1_700_000_010, "wall {wall}");
        }
    }

    #[test]
    fn after_another_boot_the_wall_clock_tells_what_passed_unless_it_went_back() {
        for (then, today) in [(boot(1, 500), boot(2, 510)), (None, boot(2, 510)), (boot(1, 500), None)] {
            let mark = ClockMark { boot: then, wall: 1_800_000_000, time: 1_700_000_000 };
            let at = |wall| {
                let clock = LifetimeClock::resumed(Some(mark), today, now(wall));
                clock.at(clock.begun)
            };
            assert_eq!(at(1_800_000_000 + HOUR), 1_700_000_000 + HOUR);
            assert_eq!(at(1_800_000_000 - HOUR), 1_700_000_000);
        }
    }

    #[test]
    fn a_running_clock_follows_the_monotonic_one_and_its_mark_goes_on_from_there() {
        let begin = now(1_800_000_000);
        let clock = LifetimeClock::new(begin);
        let stepped = Now { instant: begin.instant + Duration::from_secs(60), wall: Duration::from_secs(5) };
        assert_eq!(clock.at(stepped.instant), 1_800_000_060);
        let mark = clock.mark(boot(1, 60), stepped);
        assert_eq!((mark.wall, mark.time), (5, 1_800_000_060));
        let next = LifetimeClock::resumed(Some(mark), boot(1, 61), now(HOUR));
        assert_eq!((next.at(next.begun), next.last_mark()), (1_800_000_061, 1_800_000_060));
    }

    #[test]
    fn a_store_without_a_mark_counts_from_the_wall_clock_and_takes_every_row_as_current() {
        let begin = now(1_800_000_000);
        let clock = LifetimeClock::resumed(None, boot(1, 1), begin);
        assert_eq!((clock.at(begin.instant), clock.last_mark()), (1_800_000_000, 0));
    }
}
