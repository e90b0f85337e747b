//! Whether the partner behind a stream still listens: asked by a ping now and then, when there was something to hear
//! (XEP-0199 §4.3, XS-STR-11).
//!
//! In: what was written, answers, and `now`. Out: when to ask, and that nobody answers. A stream that carries nothing asks
//! nothing, for an idle partner is not a lost one; and a partner that has never answered a ping is not given up for it,
//! since it may have no way to us.

use std::time::{Duration, Instant};

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Ask, with this number.
    Ping(u64),
    /// The partner answered before and does not any more.
    Dead,
}

/// The liveness of one session's stream.
#[derive(Debug)]
pub(crate) struct Liveness {
    /// From one question to the next, at least.
    ask_every: Duration,
    answer_within: Duration,
    asked: Option<(u64, Instant)>,
    next: Instant,
    wrote_since: bool,
    has_answered: bool,
}

impl Liveness {
    /// A stream that begins; `before` is what was known of the partner by its last one.
    pub(crate) fn begin(
        ask_every: Duration,
        answer_within: Duration,
        before: Option<&Self>,
        now: Instant,
    ) -> Self {
        let has_answered = before.is_some_and(|before| before.has_answered);
        Self {
            ask_every,
            answer_within,
            asked: None,
            next: now + ask_every,
            wrote_since: false,
            has_answered,
        }
    }

    /// Stanzas were written.
    pub(crate) fn wrote(&mut self) {
        self.wrote_since = true;
    }

    /// A ping was answered, whatever the answer is; `false` when nobody had asked that.
    pub(crate) fn answered(&mut self, id: u64, now: Instant) -> bool {
        let is_answer = self.asked.take_if(|(asked, _)| *asked == id).is_some();
        if is_answer {
            self.has_answered = true;
            self.next = now + self.ask_every;
        }
        is_answer
    }

    /// True while an answer is awaited.
    pub(crate) fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    /// When to look again.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.asked {
            Some((_, until)) => Some(until),
            None => self.wrote_since.then_some(self.next),
        }
    }

    /// What is due; `id` is new and cannot be guessed.
    pub(crate) fn due(&mut self, id: u64, now: Instant) -> Option<Due> {
        if self.asked.take_if(|(_, until)| *until <= now).is_some() {
            self.next = now + self.ask_every;
            return self.has_answered.then_some(Due::Dead);
        }
        if self.asked.is_none() && self.wrote_since && self.next <= now {
            self.wrote_since = false;
            self.asked = Some((id, now + self.answer_within));
            return Some(Due::Ping(id));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(300);
    const WITHIN: Duration = Duration::from_secs(60);

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        Instant::now()
    }

    #[test]
    fn what_carries_nothing_asks_nothing() {
        let now = start();
        let mut liveness = Liveness::begin(EVERY, WITHIN, None, now);
        assert_eq!(liveness.poll_timeout(), None);
        assert_eq!(liveness.due(1, now + 10 * EVERY), None);
        liveness.wrote();
        assert_eq!(liveness.due(1, now + EVERY - WITHIN), None, "not oftener than it may");
        assert_eq!(liveness.due(1, now + EVERY), Some(Due::Ping(1)));
        assert!(liveness.answered(1, now + EVERY));
        assert_eq!(liveness.due(2, now + 10 * EVERY), None, "nothing was written since");
    }

    #[test]
    fn a_partner_that_answered_before_is_given_up_and_one_that_never_did_is_not() {
        let now = start();
        let mut liveness = Liveness::begin(EVERY, WITHIN, None, now);
        liveness.wrote();
        assert_eq!(liveness.due(1, now + EVERY), Some(Due::Ping(1)));
        assert_eq!(liveness.due(2, now + EVERY + WITHIN), None, "it may have no way to us");
        liveness.wrote();
        let asked = liveness.poll_timeout().expect("it asks again");
        assert_eq!(liveness.due(3, asked), Some(Due::Ping(3)));
        assert!(!liveness.answered(1, asked));
        assert_eq!(liveness.poll_timeout(), Some(asked + WITHIN), "an old number answers nothing");
        assert!(liveness.answered(3, asked));
        liveness.wrote();
        assert_eq!(liveness.due(4, asked + EVERY), Some(Due::Ping(4)));
        assert_eq!(liveness.due(5, asked + EVERY + WITHIN), Some(Due::Dead));
        let again = Liveness::begin(EVERY, WITHIN, Some(&liveness), now);
        assert!(again.has_answered, "a new stream of the same partner is held to it");
    }
}
