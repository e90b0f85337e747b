//! How often one kind of log line is written.
//!
//! In: each wish to write a line, and the time. Out: whether to write it, and how many of its kind were left out. It
//! writes nothing itself.

use std::time::{Duration, Instant};

/// The limit of one kind of line: so many in a span of time, the rest is counted.
#[derive(Debug, Clone)]
pub struct LogLimit {
    max_lines: u32,
    span: Duration,
    span_ends: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl LogLimit {
    /// Up to `max_lines` in each `span`; a span begins with its first line.
    pub const fn new(max_lines: u32, span: Duration) -> Self {
        Self { max_lines, span, span_ends: None, written: 0, left_out: 0 }
    }

    /// One line a minute: for a condition that lasts, such as a full disk.
    pub const fn once_a_minute() -> Self {
        Self::new(1, Duration::from_secs(60))
    }

    /// Asks for a line. `Some(n)`: write it, and say that `n` were left out since the last one. `None`: leave it out.
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.is_over(now) {
            self.span_ends = Some(now + self.span);
            self.written = 0;
        }
        if self.written >= self.max_lines {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }

    /// How many lines were left out, once their span is over and no further line has said so.
    pub fn poll_left_out(&mut self, now: Instant) -> Option<u64> {
        let is_due = self.left_out > 0 && self.is_over(now);
        is_due.then(|| std::mem::take(&mut self.left_out))
    }

    /// True when no span is running.
    pub fn is_over(&self, now: Instant) -> bool {
        self.span_ends.is_none_or(|ends| ends <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        Instant::now()
    }

    #[test]
    fn lines_over_the_limit_are_left_out_and_the_next_span_says_how_many() {
        let (mut limit, now) = (LogLimit::new(2, Duration::from_secs(60)), start());
        let mut admit = |after| limit.admit(now + Duration::from_secs(after));
        assert_eq!([0, 1, 2, 59].map(&mut admit), [Some(0), Some(0), None, None]);
        assert_eq!([60, 61, 62].map(&mut admit), [Some(2), Some(0), None]);
    }

    #[test]
    fn what_was_left_out_is_told_once_after_the_span_even_if_no_further_line_comes() {
        let (mut limit, now) = (LogLimit::once_a_minute(), start());
        for _ in 0..4 {
            limit.admit(now);
        }
        assert_eq!(limit.poll_left_out(now + Duration::from_secs(59)), None, "its span still runs");
        let over = now + Duration::from_secs(60);
        assert_eq!((limit.poll_left_out(over), limit.poll_left_out(over)), (Some(3), None));
        assert_eq!(limit.admit(over), Some(0), "they were told of");
    }
}
