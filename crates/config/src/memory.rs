//! `[memory]`: how many octets the process may hold for others.

use crate::section::Section;

/// Budgets of the whole process, in octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySettings {
    /// Octets at which nothing new is let in; `None` for four fifths of what the system allows.
    pub limit: Option<u64>,
    /// Messages whose fate is not known, and requests that wait for the store.
    pub messages: usize,
    /// Those of one partner's domain.
    pub messages_per_partner: usize,
    /// Those of one local user.
    pub messages_per_user: usize,
    /// States of contacts and users, and published documents.
    pub states: usize,
    /// What the states of the contacts of one partner's domain take beyond what a pair costs.
    pub states_per_partner: usize,
    /// The same for the contacts of one local user.
    pub states_per_user: usize,
    /// What waits to be written on all connections, beyond what each always may.
    pub outgoing: usize,
}

impl Default for MemorySettings {
    fn default() -> Self {
        Self {
            limit: None,
            messages: 128 << 20,
            messages_per_partner: 32 << 20,
            messages_per_user: 8 << 20,
            states: 256 << 20,
            states_per_partner: 64 << 20,
            states_per_user: 8 << 20,
            outgoing: 128 << 20,
        }
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
        limit: section.number("limit", LEAST_LIMIT..=MOST_BUDGET),
        messages: size("messages", default.messages),
        messages_per_partner: size("messages_per_partner", default.messages_per_partner),
        messages_per_user: size("messages_per_user", default.messages_per_user),
        states: size("states", default.states),
        states_per_partner: size("states_per_partner", default.states_per_partner),
        states_per_user: size("states_per_user", default.states_per_user),
        outgoing: size("outgoing", default.outgoing),
    };
    section.finish();
    settings
}

const LEAST_LIMIT: u64 = 64 << 20;
const LEAST_BUDGET: u64 = 1 << 20;
const MOST_BUDGET: u64 = 1 << 40;
