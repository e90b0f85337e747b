//! What the actors of the broker hold together, in octets, and how operators hear that a budget has no room.

use std::sync::{Arc, atomic::AtomicBool};

use tombolo_budget::{Account, Full};
use tombolo_interwork::owner::BudgetLimits;
use tombolo_telemetry::Metrics;

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
    pub answers: Arc<Account>,
    /// The process takes as much memory as it may: no further phone is taken.
    pub is_memory_full: AtomicBool,
}

impl Budgets {
    /// Budgets of `messages` octets for the process.
    pub fn new(limits: &MemoryLimits) -> Self {
        Self {
            forks: Account::new("forks", limits.shards.messages / 4),
            answers: Account::new("answers", limits.shards.messages / 8),
            is_memory_full: AtomicBool::new(false),
        }
    }

    /// Something found no room: counts and logs it.
    pub fn note(&self, full: &Full, metrics: &Metrics) {
        let Full { account, asked, held, limit } = *full;
        metrics.over_budget(account);
        tracing::warn!(budget = account, asked, held, limit, "a budget of memory has no room");
    }
}
