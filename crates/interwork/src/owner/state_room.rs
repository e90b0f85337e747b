//! How much of what others say of themselves is kept: at most [`STATE_OCTETS`] for each, and beyond [`FREE_OCTETS`] only
//! while the partner, the user and the shard have room.
//!
//! The newest state is never refused: one that finds no room loses notes first, then devices. Sums are kept with the rows
//! and changed by what a new state takes more or less, so that the usual small state costs no look-up.

use tombolo_budget::{Full, Octets};
use tombolo_fanout::{LaneId, ViewId};
use tombolo_presence::PresenceState;

use super::{Owner, addresses::AddressId, pairs::PairId};

/// The most that is kept of what one contact or one user says.
pub(super) const STATE_OCTETS: usize = 32 * 1024;
/// So much of it is part of what a pair costs, and held against no budget.
pub(super) const FREE_OCTETS: usize = 2048;

/// What a state of this size is held against budgets for.
fn excess(octets: usize) -> usize {
    octets.saturating_sub(FREE_OCTETS)
}

impl Owner {
    /// `state` as far as there is room for it in place of what `replaced` says of the same pair.
    pub(super) fn fit_state(
        &mut self,
        id: PairId,
        mut state: PresenceState,
        replaced: ViewId,
    ) -> PresenceState {
        let octets = state.octets();
        if octets <= FREE_OCTETS {
            return state;
        }
        let Some(pair) = self.pairs.pair(id) else { return state };
        let limits = &self.settings.budgets;
        let of_user = self.users.get(&pair.user).map_or(0, |user| user.state_octets);
        let of_partner = self.state_octets_of_partner(self.shard.lane_of(pair.watch));
        let budgets = [
            ("states_per_user", of_user, limits.states_per_user),
            ("states_per_partner", of_partner, limits.states_per_partner),
            ("states", self.state_octets(), limits.states),
        ];
        let before = excess(self.shard.views.octets_of(replaced));
        let asked = excess(octets.min(STATE_OCTETS));
        let is_full = |(_, held, limit): &&(&str, usize, usize)| asked > limit.saturating_sub(*held) + before;
        let full =
            budgets.iter().find(is_full).map(|&(account, held, limit)| Full { account, asked, held, limit });
        let room =
            budgets.iter().map(|(_, held, limit)| limit.saturating_sub(*held) + before).min().unwrap_or(0);
        state.fit(STATE_OCTETS.min(FREE_OCTETS + room));
        if let Some(full) = full {
            let (user, contact) = self.names_of(id);
            self.tell_over_budget(full, &user, &contact);
        }
        state
    }

    /// A view of a pair took the place of another: the sums change.
    pub(super) fn account_state(&mut self, id: PairId, old: ViewId, new: ViewId) {
        let before = excess(self.shard.views.octets_of(old));
        let after = excess(self.shard.views.octets_of(new));
        if before == after {
            return;
        }
        let Some(pair) = self.pairs.pair(id) else { return };
        let (user, lane) = (pair.user, self.shard.lane_of(pair.watch));
        self.change_sums(user, lane, before, after);
    }

    fn change_sums(&mut self, user: AddressId, lane: Option<LaneId>, before: usize, after: usize) {
        let change = |sum: &mut usize| *sum = (*sum + after).saturating_sub(before);
        if let Some(user) = self.users.get_mut(&user) {
            change(&mut user.state_octets);
        }
        if let Some(lane) = lane {
            let lane = self.lanes.lane_mut(lane);
            change(&mut lane.state_octets);
            if let Some(entry) = lane.key.remote().map(|remote| self.policy.entry_of(remote.as_str())) {
                let sum = self.partner_states.entry(entry.into()).or_default();
                change(sum);
                if *sum == 0 {
                    self.partner_states.remove(entry);
                }
            }
        }
    }

    /// What the states of a partner's contacts are held for: on all lanes of its entry together.
    fn state_octets_of_partner(&self, lane: Option<LaneId>) -> usize {
        let remote = lane.and_then(|lane| self.lanes.lane(lane).key.remote());
        let entry = remote.map(|remote| self.policy.entry_of(remote.as_str()));
        entry.and_then(|entry| self.partner_states.get(entry)).copied().unwrap_or(0)
    }

    /// Under another policy a domain may belong to another entry: the sums are made anew.
    pub(super) fn sum_partner_states(&mut self) {
        self.partner_states.clear();
        for lane in self.lanes.lanes.iter().filter(|lane| lane.state_octets > 0) {
            if let Some(remote) = lane.key.remote() {
                let entry = self.policy.entry_of(remote.as_str());
                *self.partner_states.entry(entry.into()).or_default() += lane.state_octets;
            }
        }
    }

    /// Octets that all states of the shard take, and the documents from which they come.
    pub(super) fn state_octets(&self) -> usize {
        self.shard.views.octets() + self.published_octets
    }

    /// How many octets a user's documents may take more, who has `held` already.
    pub(super) fn room_for_documents(&self, held: usize) -> usize {
        let limits = &self.settings.budgets;
        let of_user = limits.states_per_user.min(DOCUMENTS_OCTETS).saturating_sub(held);
        of_user.min(limits.states.saturating_sub(self.state_octets()))
    }
}

/// The most that the documents of one user take.
const DOCUMENTS_OCTETS: usize = 512 * 1024;
