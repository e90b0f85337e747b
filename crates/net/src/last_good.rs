//! What name servers last said, for the time when they say nothing.
//!
//! In: good answers, and the question again after a failure. Out: the last good answer if it is not too old. A definite
//! "no such name" is an answer and forgets the old one. Neither clock nor name server here.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::Unresolved;

/// Answers by name; at most [`MOST_NAMES`].
#[derive(Debug)]
pub(crate) struct LastGood<T> {
    answers: HashMap<String, (Instant, T)>,
}

impl<T> Default for LastGood<T> {
    fn default() -> Self {
        Self { answers: HashMap::new() }
    }
}

impl<T: Clone> LastGood<T> {
    /// Keeps a good answer, and puts the last good one in place of a failure to answer.
    pub(crate) fn settle(
        &mut self,
        name: &str,
        answer: Result<T, Unresolved>,
        now: Instant,
    ) -> Result<T, Unresolved> {
        match answer {
            Ok(good) => {
                if self.answers.len() >= MOST_NAMES && !self.answers.contains_key(name) {
                    self.forget_old(now);
                }
                // Full of fresh answers: the newcomer does without.
                if self.answers.len() < MOST_NAMES || self.answers.contains_key(name) {
                    self.answers.insert(name.to_owned(), (now, good.clone()));
                }
                Ok(good)
            }
            Err(Unresolved::NoAnswer(cause)) => match self.answers.get(name) {
                Some((since, good)) if now.saturating_duration_since(*since) <= GRACE => Ok(good.clone()),
                _ => Err(Unresolved::NoAnswer(cause)),
            },
            Err(definite) => {
                self.answers.remove(name);
                Err(definite)
            }
        }
    }

    fn forget_old(&mut self, now: Instant) {
        self.answers.retain(|_, (since, _)| now.saturating_duration_since(*since) <= GRACE / 4);
    }
}

/// How long a good answer outlives its name servers.
const GRACE: Duration = Duration::from_secs(4 * 3600);
const MOST_NAMES: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Result<u8, Unresolved> {
        Err(Unresolved::NoAnswer("silence".into()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_name_server_leaves_the_last_answer_for_four_hours() {
        let mut kept = LastGood::default();
        let now = tokio::time::Instant::now().into_std();
        assert_eq!(kept.settle("a", failure(), now), failure());
        assert_eq!(kept.settle("a", Ok(1), now), Ok(1));
        assert_eq!(kept.settle("a", failure(), now + Duration::from_secs(4 * 3600)), Ok(1));
        assert_eq!(kept.settle("a", failure(), now + Duration::from_secs(4 * 3600 + 1)), failure());
        assert_eq!(kept.settle("b", failure(), now), failure(), "another name has no answer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_definite_no_forgets_the_last_answer() {
        let mut kept = LastGood::default();
        let now = tokio::time::Instant::now().into_std();
        for definite in [Unresolved::NotFound, Unresolved::NoService] {
            kept.settle("a", Ok(1), now).expect("good");
            assert_eq!(kept.settle("a", Err(definite.clone()), now), Err(definite));
            assert_eq!(kept.settle("a", failure(), now), failure());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn names_chosen_by_strangers_fill_it_to_its_bound_and_no_further() {
        let mut kept = LastGood::default();
        let now = tokio::time::Instant::now().into_std();
        for number in 0..MOST_NAMES + 100 {
            kept.settle(&number.to_string(), Ok(1), now).expect("good");
        }
        assert_eq!(kept.answers.len(), MOST_NAMES);
        kept.settle("late", Ok(1), now + Duration::from_secs(2 * 3600)).expect("good");
        assert_eq!(kept.answers.len(), 1, "room was made by forgetting what is old");
    }
}
