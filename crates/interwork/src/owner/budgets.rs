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
    /// Those of one partner: of all domains of its entry.
    pub messages_per_partner: usize,
    /// Those of one local user.
    pub messages_per_user: usize,
    /// States of contacts and users, and published documents.
    pub states: usize,
    /// What the states of one partner's contacts take beyond what a pair costs; of all domains of its entry.
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

/// The accounts of one shard. Partners are counted by their entry in the settings, since they choose their own domains.
#[derive(Debug)]
pub struct Budgets {
    shard: Arc<Account>,
    partners: Accounts<String>,
    users: Accounts<Address>,
    /// Errors that we answer with. They have room of their own: a message that finds none is still refused.
    answers: Arc<Account>,
    partner_answers: Accounts<String>,
}

impl Budgets {
    /// Nothing is held yet.
    pub fn new(limits: &BudgetLimits) -> Self {
        let BudgetLimits { messages, messages_per_partner, messages_per_user, .. } = *limits;
        let answers = messages / ANSWERS_PART;
        Self {
            shard: Account::new(SHARD, messages),
            partners: Accounts::new(PARTNER, messages_per_partner),
            users: Accounts::new(USER, messages_per_user),
            answers: Account::new(ANSWERS, answers),
            partner_answers: Accounts::new(
                PARTNER_ANSWERS,
                (messages_per_partner / ANSWERS_PART).min(answers / 2),
            ),
        }
    }

    /// Octets between a user and a contact of the partner with this entry.
    fn take(&mut self, user: &Address, entry: &str, octets: usize) -> Result<Charge, Full> {
        let user = self.users.of(user).clone();
        Charge::take(&[&user, self.partners.of(entry), &self.shard], octets)
    }

    /// Octets that nobody in particular holds.
    #[cfg(test)]
    pub(super) fn fill_shard(&mut self, octets: usize) -> Charge {
        Charge::take(&[&self.shard], octets).expect("an empty shard")
    }

    /// Octets of an answer to the partner with this entry.
    pub(super) fn take_answer(&mut self, entry: &str, octets: usize) -> Result<Charge, Full> {
        Charge::take(&[self.partner_answers.of(entry), &self.answers], octets)
    }
}

impl Owner {
    /// Octets that a message, or a request that waits for the store, holds between a user and a contact. `None`, counted,
    /// where a budget has no room: the caller tells whoever sent it.
    pub(super) fn charge(&mut self, user: &Address, contact: &Address, octets: usize) -> Option<Charge> {
        match self.budgets.take(user, self.policy.entry_of(contact.domain()), octets) {
            Ok(charge) => Some(charge),
            Err(full) => {
                self.tell_over_budget(full, user, contact);
                None
            }
        }
    }

    /// The same for an answer that we send to a partner: left out only where the partner doesn't read those before it.
    pub(super) fn charge_answer(
        &mut self,
        user: &Address,
        contact: &Address,
        octets: usize,
    ) -> Option<Charge> {
        match self.budgets.take_answer(self.policy.entry_of(contact.domain()), octets) {
            Ok(charge) => Some(charge),
            Err(full) => {
                self.tell_over_budget(full, user, contact);
                None
            }
        }
    }

    /// Something between a user and a contact found no room.
    pub(super) fn tell_over_budget(&mut self, full: Full, user: &Address, contact: &Address) {
        let partner = self.policy.entry_of(contact.domain()).into();
        self.event(OwnerEvent::OverBudget { full, partner, user: user.clone() });
    }
}

// The names of the settings, which metrics and logs have too.
const SHARD: &str = "messages";
const PARTNER: &str = "messages_per_partner";
const USER: &str = "messages_per_user";
const ANSWERS: &str = "answers";
const PARTNER_ANSWERS: &str = "answers_per_partner";
/// Answers may take this part of what messages may.
const ANSWERS_PART: usize = 8;
/// What a message costs besides its texts: the rows and timers that lead to it.
pub(super) const MESSAGE_OCTETS: usize = 512;
/// When somebody whose message finds no room should try again, in seconds.
pub(super) const NO_ROOM_RETRY_SECONDS: u32 = 10;
