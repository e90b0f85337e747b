//! `[memory]`: how many octets the process may hold for others.

use crate::section::Section;

/// Budgets of the whole process, in octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySettings {
    /// Messages whose fate is not known, and requests that wait for the store.
    pub messages: usize,
    /// Those of one partner's domain.
    pub messages_per_partner: usize,
    /// Those of one local user.
    pub messages_per_user: usize,
}

impl Default for MemorySettings {
    fn default() -> Self {
        Self { messages: 128 << 20, messages_per_partner: 32 << 20, messages_per_user: 8 << 20 }
    }
}

/// `[memory]`, or its defaults.
pub(crate) fn memory(top: &Section<'_>) -> MemorySettings {
    let default = MemorySettings::default();
    let Some(section) = top.section("memory", "memory") else { return default };
    let size = |key, default: usize| {
        section.number(key, LEAST_BUDGET..=MOST_BUDGET).map_or(default, |octets| octets as usize)
    };
    let settings = MemorySettings {
        messages: size("messages", default.messages),
        messages_per_partner: size("messages_per_partner", default.messages_per_partner),
        messages_per_user: size("messages_per_user", default.messages_per_user),
    };
    section.finish();
    settings
}

const LEAST_BUDGET: u64 = 1 << 20;
const MOST_BUDGET: u64 = 1 << 40;
