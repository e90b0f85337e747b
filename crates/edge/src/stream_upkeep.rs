//! What a stream owes to time alone, whatever it carries: its end when a certificate runs out, a space when it was silent
//! for long (RFC 6120 §4.6.1), and rests when its peer sends faster than it may.
//!
//! In: what was read and written, and `now`. Out: when to look again, and what is due. It reads no clock and writes nothing.

use std::time::{Duration, Instant};

use tombolo_presence::Now;

/// What streams are held to, apart from the bounds of the machine.
#[derive(Debug, Clone, Copy)]
pub struct StreamPace {
    /// A stream that wrote nothing for so long writes a space.
    pub keepalive: Duration,
    /// Octets a second that a peer may send on one stream; it may be two seconds ahead.
    pub bytes_per_second: u64,
    /// The same of stanzas.
    pub stanzas_per_second: u64,
}

impl Default for StreamPace {
    fn default() -> Self {
        Self { keepalive: Duration::from_secs(300), bytes_per_second: 16 << 20, stanzas_per_second: 20_000 }
    }
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// A certificate that the stream was proved with has run out.
    CertificateEnd,
    /// The stream was silent for long.
    Space,
}

/// The upkeep of one stream.
#[derive(Debug)]
pub(crate) struct Upkeep {
    pace: StreamPace,
    /// From when on a certificate does not hold any more, since the Unix epoch.
    holds_until: Option<Duration>,
    spoke_at: Instant,
    bytes: Allowance,
    stanzas: Allowance,
    rests_until: Option<Instant>,
}

impl Upkeep {
    /// A stream that begins; `holds_until` is the first moment at which a certificate that it rests on does not hold any
    /// more, since the Unix epoch.
    pub(crate) fn new(pace: StreamPace, holds_until: Option<Duration>, now: Instant) -> Self {
        Self {
            pace,
            holds_until,
            spoke_at: now,
            bytes: Allowance::new(pace.bytes_per_second, now),
            stanzas: Allowance::new(pace.stanzas_per_second, now),
            rests_until: None,
        }
    }

    /// A further domain is proved by a certificate that holds until `end`, since the Unix epoch.
    pub(crate) fn rest_on(&mut self, end: Duration) {
        self.holds_until = Some(self.holds_until.map_or(end, |known| known.min(end)));
    }

    /// Something was written.
    pub(crate) fn spoke(&mut self, now: Instant) {
        self.spoke_at = now;
    }

    /// The peer sent so much. True when it has to rest now and did not before.
    pub(crate) fn heard(&mut self, bytes: usize, stanzas: usize, now: Instant) -> bool {
        let until = self.bytes.take(bytes as u64, now).max(self.stanzas.take(stanzas as u64, now));
        let is_over = until.is_some_and(|until| until > now);
        let begins = is_over && self.rests_until.is_none();
        self.rests_until = until.filter(|_| is_over);
        begins
    }

    /// True while nothing is to be read.
    pub(crate) fn rests(&mut self, now: Instant) -> bool {
        self.rests_until.take_if(|until| *until <= now);
        self.rests_until.is_some()
    }

    /// When to look again.
    pub(crate) fn poll_timeout(&self, now: Now) -> Instant {
        // A wall clock may be set: a far end is looked at again and again.
        let certificate =
            self.holds_until.map(|until| now.instant + until.saturating_sub(now.wall).min(LOOK_AGAIN));
        let space = self.spoke_at + self.pace.keepalive;
        [certificate, self.rests_until].into_iter().flatten().fold(space, Instant::min)
    }

    /// What is due, at most once each time.
    pub(crate) fn due(&mut self, now: Now) -> Option<Due> {
        if self.holds_until.take_if(|until| *until <= now.wall).is_some() {
            return Some(Due::CertificateEnd);
        }
        if self.spoke_at + self.pace.keepalive <= now.instant {
            self.spoke_at = now.instant;
            return Some(Due::Space);
        }
        None
    }
}

/// So much a second, with two seconds in hand.
#[derive(Debug)]
struct Allowance {
    per_second: u64,
    left: u64,
    at: Instant,
}

impl Allowance {
    fn new(per_second: u64, now: Instant) -> Self {
        Self { per_second, left: 2 * per_second, at: now }
    }

    /// Takes what came, in any case; until when the peer has to rest for it.
    fn take(&mut self, count: u64, now: Instant) -> Option<Instant> {
        let span = now.saturating_duration_since(self.at).min(Duration::from_secs(2));
        let earned = span.as_micros() as u64 * self.per_second / 1_000_000;
        // What is less than one is earned another time.
        if earned > 0 {
            self.at = now;
            self.left = (self.left + earned).min(2 * self.per_second);
        }
        let lacking = count.saturating_sub(self.left);
        self.left = self.left.saturating_sub(count);
        if lacking == 0 {
            return None;
        }
        let rest = Duration::from_micros(lacking.saturating_mul(1_000_000) / self.per_second.max(1));
        // What was earned by the end of the rest is spent already.
        self.at = now + rest;
        Some(self.at)
    }
}

const LOOK_AGAIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Now {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        let instant = Instant::now();
        Now { instant, wall: Duration::from_secs(1_800_000_000) }
    }

    fn later(now: Now, span: Duration) -> Now {
        Now { instant: now.instant + span, wall: now.wall + span }
    }

    #[test]
    fn a_certificate_that_runs_out_is_told_once_though_the_end_was_far() {
        let (begin, day) = (start(), Duration::from_secs(86_400));
        let mut upkeep = Upkeep::new(StreamPace::default(), Some(begin.wall + day), begin.instant);
        assert!(upkeep.poll_timeout(begin) <= begin.instant + LOOK_AGAIN, "the wall clock may be set");
        upkeep.spoke(begin.instant + day);
        assert_eq!(upkeep.due(later(begin, day - Duration::from_secs(1))), None);
        assert_eq!(upkeep.due(later(begin, day)), Some(Due::CertificateEnd));
        assert_eq!(upkeep.due(later(begin, day)), None);
    }

    #[test]
    fn a_stream_ends_with_a_certificate_that_proved_a_further_domain() {
        let (begin, day) = (start(), Duration::from_secs(86_400));
        for first in [None, Some(begin.wall + 9 * day)] {
            let mut upkeep = Upkeep::new(StreamPace::default(), first, begin.instant);
            upkeep.rest_on(begin.wall + day);
            upkeep.spoke(begin.instant + day);
            assert_eq!(upkeep.due(later(begin, day)), Some(Due::CertificateEnd));
        }
    }

    #[test]
    fn a_space_is_due_after_five_minutes_of_silence_and_not_while_the_stream_speaks() {
        let begin = start();
        let mut upkeep = Upkeep::new(StreamPace::default(), None, begin.instant);
        let minutes = |count: u64| later(begin, Duration::from_secs(60 * count));
        upkeep.spoke(minutes(4).instant);
        assert_eq!(upkeep.poll_timeout(minutes(4)), minutes(9).instant);
        assert_eq!(upkeep.due(minutes(5)), None);
        assert_eq!(upkeep.due(minutes(9)), Some(Due::Space));
        assert_eq!(upkeep.due(minutes(9)), None);
        assert_eq!(upkeep.due(minutes(14)), Some(Due::Space));
    }

    #[test]
    fn a_peer_that_sends_faster_than_it_may_gets_no_more_than_its_rate_through() {
        let begin = start();
        let pace = StreamPace { stanzas_per_second: 100, ..StreamPace::default() };
        let mut upkeep = Upkeep::new(pace, None, begin.instant);
        let (mut now, mut through, mut rests) = (begin, 0, 0);
        while now.instant < begin.instant + Duration::from_secs(10) {
            if upkeep.rests(now.instant) {
                now = later(now, Duration::from_millis(1));
                continue;
            }
            through += 7;
            rests += u64::from(upkeep.heard(700, 7, now.instant));
        }
        assert!((1190..=1215).contains(&through), "two seconds in hand and ten at 100: {through}");
        assert!(rests > 10);
    }

    #[test]
    fn a_peer_within_its_rate_never_rests() {
        let begin = start();
        let pace = StreamPace { stanzas_per_second: 100, bytes_per_second: 100_000, ..StreamPace::default() };
        let mut upkeep = Upkeep::new(pace, None, begin.instant);
        for step in 0..10_000_u64 {
            let now = begin.instant + Duration::from_micros(10_100 * step);
            assert!(!upkeep.heard(900, 1, now) && !upkeep.rests(now), "step {step}");
        }
    }
}
