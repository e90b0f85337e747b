//! The only source of time: what actors hand to pure code as `now`.
//!
//! Out: readings of a monotonic and a wall clock. It never sleeps and sets no timer; timers are tokio's, so that time
//! paused in a test stops both.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use tombolo_presence::{Boot, Now};

/// Reads both clocks; cheap to clone.
#[derive(Debug, Clone)]
pub struct Clock {
    wall: Wall,
}

#[derive(Debug, Clone)]
enum Wall {
    /// The machine's own, which an operator or NTP may set.
    System,
    /// Moves with the monotonic clock from a chosen start.
    Derived { origin: Instant, wall: Duration },
}

impl Clock {
    /// The clocks of the machine: tokio's monotonic one, and the system's wall time read anew each time.
    pub fn system() -> Self {
        Self { wall: Wall::System }
    }

    /// A wall clock that shows `wall` (since the Unix epoch) now and from here on moves with tokio's time only.
    ///
    /// Where tokio's time is paused, both readings stand still and advance together.
    pub fn starting_at(wall: Duration) -> Self {
        Self { wall: Wall::Derived { origin: Instant::now(), wall } }
    }

    /// Both clocks, to be read once a turn.
    ///
    /// A wall clock set before 1970 reads as zero.
    pub fn now(&self) -> Now {
        let instant = Instant::now();
        let wall = match self.wall {
            Wall::System => system_wall(),
            Wall::Derived { origin, wall } => wall + instant.saturating_duration_since(origin),
        };
        Now { instant: instant.into_std(), wall }
    }

    /// Which boot of the machine this is, and how long ago it was; `None` where the system does not tell, and for a clock
    /// with a chosen start. Reads two files: not once a turn.
    pub fn boot(&self) -> Option<Boot> {
        match self.wall {
            Wall::System => boot_of(
                &std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?,
                &std::fs::read_to_string("/proc/uptime").ok()?,
            ),
            Wall::Derived { .. } => None,
        }
    }
}

/// Linux' id of a boot, a UUID; and the first number of `/proc/uptime`, seconds with a fraction.
fn boot_of(boot_id: &str, uptime: &str) -> Option<Boot> {
    let digits: String = boot_id.trim().chars().filter(|letter| *letter != '-').collect();
    let seconds = uptime.split(['.', ' ']).next()?.parse().ok()?;
    Some(Boot { id: u128::from_str_radix(&digits, 16).ok()?, seconds })
}

#[allow(clippy::disallowed_methods, reason = "the one place where the machine's wall clock is read")]
fn system_wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn both_clocks_move_together_when_time_is_paused() {
        let clock = Clock::starting_at(Duration::from_secs(1_000_000));
        let first = clock.now();
        assert_eq!(clock.now(), first, "paused time stands still");
        tokio::time::sleep(Duration::from_secs(90)).await;
        assert_eq!(clock.now(), first.after(Duration::from_secs(90)));
    }

    #[test]
    fn boots_are_read_as_linux_tells_them() {
        let boot = boot_of("00000000-0000-4000-8000-00000000002a\n", "1234.56 999.99\n");
        assert_eq!(boot, Some(Boot { id: 0x4000_8000_0000_0000_002a, seconds: 1234 }));
        assert_eq!(boot_of("", "1.0 2.0"), None);
        assert_eq!(boot_of("00000000-0000-4000-8000-00000000002a", "soon"), None);
    }

    #[tokio::test]
    async fn the_system_wall_clock_is_past_2020_and_the_monotonic_one_never_goes_back() {
        let clock = Clock::system();
        let first = clock.now();
        let second = clock.now();
        assert!(first.wall > Duration::from_secs(1_577_836_800));
        assert!(second.instant >= first.instant);
    }
}
