//! The line of cause that a SIP user gets when a message fails that was answered before: an automatic message.
//!
//! It is marked as one (RFC 3834 §3.1.7), never sent for a message that is automatic itself, and sent at most once in
//! [`EVERY`] for a pair: a program that answers it would get another for each of its answers.

use std::{collections::VecDeque, time::Duration, time::Instant};

use foldhash::fast::RandomState;
use hashbrown::HashSet;
use tombolo_presence::Address;

/// Who was told a cause of late.
#[derive(Debug, Default)]
pub struct Causes {
    told: HashSet<(Address, Address), RandomState>,
    /// The same, in order of time.
    order: VecDeque<(Instant, (Address, Address))>,
}

impl Causes {
    /// True when the user may be told now why a message to the contact failed, which then counts as told. False also while
    /// so many pairs were told of late that no further one can be remembered.
    pub fn admit(&mut self, user: &Address, contact: &Address, now: Instant) -> bool {
        while let Some((_, pair)) = self.order.pop_front_if(|(at, _)| *at + EVERY <= now) {
            self.told.remove(&pair);
        }
        let pair = (user.clone(), contact.clone());
        if self.told.len() >= PAIRS || !self.told.insert(pair.clone()) {
            return false;
        }
        self.order.push_back((now, pair));
        true
    }
}

/// How long a pair waits for the next line.
const EVERY: Duration = Duration::from_secs(600);
/// Pairs that are remembered.
const PAIRS: usize = 10_000;
/// Octets of a cause that the partner gave; a longer one ends with `…`.
pub const CAUSE_LEN: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_told_once_in_ten_minutes_and_no_more_pairs_than_are_remembered() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        let start = Instant::now();
        let address = |n: usize| Address::from_prepared(&format!("u{n}@x")).expect("legal");
        let (romeo, mut causes) = (address(0), Causes::default());
        assert!(causes.admit(&romeo, &address(1), start));
        assert!(!causes.admit(&romeo, &address(1), start + EVERY / 2));
        assert!(causes.admit(&address(1), &romeo, start), "the other way is another pair");
        let told = (2..20_000).filter(|n| causes.admit(&romeo, &address(*n), start)).count();
        assert_eq!(told, PAIRS - 2);
        assert!(causes.admit(&romeo, &address(1), start + EVERY));
        assert_eq!(causes.told.len(), 1, "what is over is forgotten");
    }
}
