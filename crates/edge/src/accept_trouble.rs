//! What an accept loop does when the system gives it no connection: it rests, ever longer, and says so now and then.

use std::{
    io,
    time::{Duration, Instant},
};

use tombolo_runtime::Clock;

/// One loop's trouble.
#[derive(Debug)]
pub(crate) struct AcceptTrouble {
    /// What is listened for, for the log.
    what: &'static str,
    wait: Duration,
    told_at: Option<Instant>,
    /// Failures that were not told.
    left_out: u64,
}

impl AcceptTrouble {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, wait: MIN_WAIT, told_at: None, left_out: 0 }
    }

    /// A connection was accepted.
    pub(crate) fn is_over(&mut self) {
        self.wait = MIN_WAIT;
    }

    /// Accepting failed. Rests unless only that one connection had failed before it was taken.
    pub(crate) async fn rest(&mut self, error: &io::Error, clock: &Clock) {
        if let Some(wait) = self.note(error, clock.now().instant) {
            tokio::time::sleep(wait).await;
        }
    }

    fn note(&mut self, error: &io::Error, now: Instant) -> Option<Duration> {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            return None;
        }
        if self.told_at.is_none_or(|told_at| told_at + TELL_EVERY <= now) {
            let (listener, left_out) = (self.what, std::mem::take(&mut self.left_out));
            self.told_at = Some(now);
            tracing::error!(
                listener, %error, left_out,
                "connections cannot be accepted; if files run out, raise the limit (LimitNOFILE, ulimit -n)"
            );
        } else {
            self.left_out += 1;
        }
        let wait = self.wait;
        self.wait = (wait * 2).min(MAX_WAIT);
        Some(wait)
    }
}

const MIN_WAIT: Duration = Duration::from_millis(50);
const MAX_WAIT: Duration = Duration::from_secs(1);
const TELL_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    /// Too many open files.
    const EMFILE: i32 = 24;

    #[test]
    fn a_loop_without_descriptors_rests_ever_longer_and_says_so_once_a_minute() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        let start = Instant::now();
        let (mut trouble, error) = (AcceptTrouble::new("xmpp"), io::Error::from_raw_os_error(EMFILE));
        let (mut now, mut told, mut tries) = (start, 0, 0);
        while now < start + Duration::from_secs(120) {
            let left_out = trouble.left_out;
            now += trouble.note(&error, now).expect("it rests");
            told += u32::from(trouble.left_out <= left_out);
            tries += 1;
        }
        assert!(told <= 3 && tries <= 130, "{told} lines, {tries} tries");
        trouble.is_over();
        assert_eq!(trouble.note(&error, now), Some(MIN_WAIT));
    }

    #[test]
    fn a_connection_that_failed_before_it_was_taken_stops_nobody() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        let start = Instant::now();
        let error = io::Error::from(io::ErrorKind::ConnectionAborted);
        assert_eq!(AcceptTrouble::new("sip").note(&error, start), None);
    }
}
