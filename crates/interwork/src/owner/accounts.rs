//! What changed accounts of the built-in homes change: users who approve otherwise, and users who are no more.

use std::sync::Arc;

use tombolo_presence::{Address, Now};

use super::{Accounts, Owner, addresses::AddressId, pairs::PairId, plan::Control};

impl Owner {
    /// Other accounts: what they say of approving holds for old pairs too, and what belonged to a user without one
    /// ends.
    pub(super) fn handle_accounts(&mut self, accounts: Arc<Accounts>, now: Now) {
        let is_same = *self.accounts == *accounts;
        self.accounts = accounts;
        if !is_same {
            self.begin_judging(now);
        }
    }

    /// Ends what belongs to users of the built-in homes who have no account: contacts are told, watchers on both sides
    /// are, and nothing stays in the store. Over all users: for a shard that begins.
    pub(super) fn end_users_without_account(&mut self, now: Now) {
        let is_gone = |id: AddressId| self.is_without_account(self.addresses.address(id));
        let users: Vec<AddressId> = self.users.keys().copied().filter(|id| is_gone(*id)).collect();
        let pairs: Vec<PairId> =
            self.pairs.iter().map(|(id, _)| id).filter(|id| self.is_of_nobody(*id)).collect();
        for id in users {
            self.drop_publications(id);
        }
        for id in pairs {
            self.control(id, Control::Gone, now);
        }
    }

    /// One of the pair is a user of a built-in home without an account.
    pub(super) fn is_of_nobody(&self, id: PairId) -> bool {
        let is_gone = |id: AddressId| self.is_without_account(self.addresses.address(id));
        self.pairs.pair(id).is_some_and(|pair| is_gone(pair.user) || pair.is_local() && is_gone(pair.contact))
    }

    /// The address is of a built-in home, which does not know it.
    pub(super) fn is_without_account(&self, user: &Address) -> bool {
        !self.accounts.approve.contains_key(user)
            && self.policy.local_domain(user.domain()).is_some_and(|local| local.front_end().is_none())
    }
}
