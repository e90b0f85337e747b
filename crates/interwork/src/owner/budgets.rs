//! What a shard holds for others, in octets: messages until their fate is known, and requests that wait for the store.
//!
//! In: who writes to whom, and how much. Out: a charge that its value carries, or which budget has no room. It decides
//! nothing else; the caller refuses.

use std::sync::Arc;

use tombolo_budget::{Account, Accounts, Charge, Full};
use tombolo_presence::Address;

use super::{Owner, output::OwnerEvent};

/// Limits of budgets, in octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetLimits {
    /// Messages and waiting requests of the whole shard.
    pub messages: usize,
    /// Those of one partner's domain.
    pub messages_per_partner: usize,
    /// Those of one local user.
    pub messages_per_user: usize,
    /// States of contacts and users, and published documents.
    pub states: usize,
    /// What the states of one partner's contacts take beyond what a pair costs.
    pub states_per_partner: usize,
    /// The same for the pairs of one local user.
    pub states_per_user: usize,
}

impl Default for BudgetLimits {
    fn default() -> Self {
        Self {
            messages: 64 << 20,
            messages_per_partner: 32 << 20,
            messages_per_user: 8 << 20,
            states: 128 << 20,
            states_per_partner: 64 << 20,
            states_per_user: 8 << 20,
        }
    }
}

impl BudgetLimits {
    /// One shard's part of limits that all `shards` share. Neither a partner nor a user may take a whole shard from the
    /// others.
    pub fn of_shard(self, shards: usize) -> Self {
        let (messages, states) = (self.messages / shards.max(1), self.states / shards.max(1));
        Self {
            messages,
            messages_per_partner: self.messages_per_partner.min(messages / 2),
            messages_per_user: self.messages_per_user.min(messages / 4),
            states,
            states_per_partner: self.states_per_partner.min(states / 2),
            states_per_user: self.states_per_user.min(states / 4),
        }
    }
}

/// The accounts of one shard.
#[derive(Debug)]
pub struct Budgets {
    shard: Arc<Account>,
    partners: Accounts<String>,
    users: Accounts<Address>,
}

impl Budgets {
    /// Nothing is held yet.
    pub fn new(limits: &BudgetLimits) -> Self {
        let BudgetLimits { messages, messages_per_partner, messages_per_user, .. } = *limits;
        Self {
            shard: Account::new(SHARD, messages),
            partners: Accounts::new(PARTNER, messages_per_partner),
            users: Accounts::new(USER, messages_per_user),
        }
    }

    /// Octets between a user and a contact.
    fn take(&mut self, user: &Address, contact: &Address, octets: usize) -> Result<Charge, Full> {
        let user = self.users.of(user).clone();
        Charge::take(&[&user, self.partners.of(contact.domain()), &self.shard], octets)
    }
}

impl Owner {
    /// Octets that a message, or a request that waits for the store, holds between a user and a contact. `None`, counted,
    /// where a budget has no room: the caller tells whoever sent it.
    pub(super) fn charge(&mut self, user: &Address, contact: &Address, octets: usize) -> Option<Charge> {
        let charge = self.budgets.take(user, contact, octets);
        charge.map_err(|full| self.event(OwnerEvent::OverBudget(full))).ok()
    }

    /// The same for what we say to a partner and nobody waits for: it is dropped where there is no room.
    pub(super) fn charge_answer(&mut self, contact: &Address, octets: usize) -> Option<Charge> {
        let partner = self.budgets.partners.of(contact.domain()).clone();
        let charge = Charge::take(&[&partner, &self.budgets.shard], octets);
        charge.map_err(|full| self.event(OwnerEvent::OverBudget(full))).ok()
    }
}

// The names of the settings, which metrics and logs have too.
const SHARD: &str = "messages";
const PARTNER: &str = "messages_per_partner";
const USER: &str = "messages_per_user";
/// What a message costs besides its texts: the rows and timers that lead to it.
pub(super) const MESSAGE_OCTETS: usize = 512;
/// When somebody whose message finds no room should try again, in seconds.
pub(super) const NO_ROOM_RETRY_SECONDS: u32 = 10;
