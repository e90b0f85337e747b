//! What the actors of the broker hold together, in octets, and how operators hear that a budget has no room.

use std::sync::Arc;

use tombolo_budget::{Account, Full};
use tombolo_telemetry::Metrics;

/// How much memory a broker may hold for others, in octets of the whole process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Messages whose fate is not known, and requests that wait for the store.
    pub messages: usize,
    /// Those of one partner's domain.
    pub messages_per_partner: usize,
    /// Those of one local user.
    pub messages_per_user: usize,
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self { messages: 128 << 20, messages_per_partner: 32 << 20, messages_per_user: 8 << 20 }
    }
}

/// What is no shard's: it is held by sessions and users.
#[derive(Debug)]
pub struct Budgets {
    /// Requests that carry messages to the phones of built-in users.
    pub forks: Arc<Account>,
    /// Answers of the domain itself, such as to pings, that wait for a stream.
    pub answers: Arc<Account>,
}

impl Budgets {
    /// Budgets of `messages` octets for the process.
    pub fn new(limits: &MemoryLimits) -> Self {
        Self {
            forks: Account::new("forks", limits.messages / 4),
            answers: Account::new("answers", limits.messages / 8),
        }
    }

    /// Something found no room: counts and logs it.
    pub fn note(&self, full: &Full, metrics: &Metrics) {
        let Full { account, asked, held, limit } = *full;
        metrics.over_budget(account);
        tracing::warn!(budget = account, asked, held, limit, "a budget of memory has no room");
    }
}
