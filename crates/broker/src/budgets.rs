//! What the actors of the broker hold together, in octets, and how operators hear that a budget has no room.

use std::sync::{Arc, atomic::AtomicBool};

use parking_lot::Mutex;
use tombolo_budget::{Account, Accounts, Charge, Full};
use tombolo_interwork::owner::BudgetLimits;
use tombolo_presence::Address;
use tombolo_telemetry::{Metrics, Redacted};

/// How much memory a broker may hold for others, in octets of the whole process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimits {
    /// What all shards together hold.
    pub shards: BudgetLimits,
    /// Octets that may wait for all shards together; a shard takes no more than 16 MiB.
    pub inboxes: usize,
}

impl Default for MemoryLimits {
    /// Limits of a process with two shards.
    fn default() -> Self {
        let BudgetLimits { messages, states, .. } = BudgetLimits::default();
        let shards = BudgetLimits { messages: 2 * messages, states: 2 * states, ..BudgetLimits::default() };
        Self { shards, inboxes: usize::MAX }
    }
}

/// What is no shard's: it is held by sessions and users.
#[derive(Debug)]
pub struct Budgets {
    /// Requests that carry messages to the phones of built-in users.
    pub forks: Arc<Account>,
    /// Answers of the domain itself, such as to pings, that wait for a stream.
    answers: Arc<Account>,
    /// Those to one partner, by its entry.
    partner_answers: Mutex<Accounts<String>>,
    /// The process takes as much memory as it may: no further phone is taken.
    pub is_memory_full: AtomicBool,
}

impl Budgets {
    /// Budgets of `messages` octets for the process.
    pub fn new(limits: &MemoryLimits) -> Self {
        let answers = limits.shards.messages / 8;
        Self {
            forks: Account::new("forks", limits.shards.messages / 4),
            answers: Account::new("answers", answers),
            partner_answers: Mutex::new(Accounts::new("answers_per_partner", answers / 2)),
            is_memory_full: AtomicBool::new(false),
        }
    }

    /// Octets of an answer of the domain itself to the partner with this entry.
    ///
    /// # Errors
    /// Names the budget that has no room.
    pub fn take_answer(&self, entry: &str, octets: usize) -> Result<Charge, Full> {
        let partner = self.partner_answers.lock().of(entry).clone();
        Charge::take(&[&partner, &self.answers], octets)
    }

    /// Something found no room: counts and logs it. `partner` is the entry of the partner that it came from or was meant
    /// for.
    pub fn note(&self, full: &Full, partner: &str, user: Option<&Address>, metrics: &Metrics) {
        let Full { account, asked, held, limit } = *full;
        metrics.over_budget(account);
        let aor = user.map(|user| tracing::field::display(Redacted(user)));
        tracing::warn!(partner, aor, budget = account, asked, held, limit, "a budget of memory has no room");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partner_that_reads_no_answers_leaves_room_for_those_to_others() {
        let mut limits = MemoryLimits::default();
        limits.shards.messages = 8000;
        let budgets = Budgets::new(&limits);
        let kept: Vec<_> = std::iter::from_fn(|| budgets.take_answer("wide.example", 100).ok()).collect();
        assert_eq!(kept.len(), 5, "half of an eighth");
        assert!(budgets.take_answer("other.example", 400).is_ok());
    }
}
