//! `[memory]`: how many octets the process may hold for others.

use crate::section::Section;

/// Budgets of the whole process, in octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySettings {
    /// Octets at which nothing new is let in; `None` for four fifths of what the system allows.
    pub limit: Option<u64>,
    /// Messages whose fate is not known, and requests that wait for the store.
    pub messages: usize,
    /// Those of one partner: of all domains of its entry.
    pub messages_per_partner: usize,
    /// Those of one local user.
    pub messages_per_user: usize,
    /// States of contacts and users, and published documents.
    pub states: usize,
    /// What the states of one partner's contacts take beyond what a pair costs.
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

impl MemorySettings {
    /// The same budgets, made smaller where they would not fit into `room`: octets between the limit at which nothing new
    /// is let in and the one at which the system ends the process. What is there may fill its budgets after that limit is
    /// reached, and must not be ended for it. Their relations stay; none gets smaller than 1 MiB.
    pub fn fitted(self, room: u64) -> Self {
        let weight = self.most_held();
        if weight <= room {
            return self;
        }
        let fit = |octets: usize| {
            let fitted = u128::from(room) * octets as u128 / u128::from(weight);
            octets.min(usize::try_from(fitted).unwrap_or(usize::MAX).max(LEAST_BUDGET as usize))
        };
        Self {
            limit: self.limit,
            messages: fit(self.messages),
            messages_per_partner: fit(self.messages_per_partner),
            messages_per_user: fit(self.messages_per_user),
            states: fit(self.states),
            states_per_partner: fit(self.states_per_partner),
            states_per_user: fit(self.states_per_user),
            outgoing: fit(self.outgoing),
        }
    }

    /// Octets of memory that full budgets take: a message takes more than it is charged for.
    fn most_held(&self) -> u64 {
        let Self { messages, states, outgoing, .. } = self;
        (messages / 4 * 7 + states + outgoing) as u64
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_fit_between_the_limit_and_what_the_system_allows_and_keep_their_relations() {
        let default = MemorySettings::default();
        assert_eq!(
            default.fitted(default.most_held()),
            default,
            "a machine with 4 GiB leaves room for all of them"
        );
        let small = default.fitted(28_000_000);
        assert!(small.most_held() <= 28_000_000, "{small:?}");
        assert!(small.messages_per_partner < small.messages && small.states_per_partner < small.states);
        let relation = |settings: &MemorySettings| settings.states / settings.messages;
        assert_eq!(relation(&small), relation(&default));
        assert_eq!(small.messages_per_user, 1 << 20, "never less than the settings may say");
        let least = default.fitted(0);
        assert_eq!((least.messages, least.states, least.outgoing), (1 << 20, 1 << 20, 1 << 20));
        let own = MemorySettings { messages: 1 << 20, ..default };
        assert_eq!(own.fitted(100 << 20).messages, 1 << 20, "nothing is made larger");
    }
}
