//! Pairs of a local user and a contact: one compact row each, both directions of the relation.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use tombolo_fanout::{ViewId, WatchId};
use tombolo_policy::Detail;
use tombolo_presence::{Subscription, SubscriptionKind};
use tombolo_slab::Slab;

use crate::{owner::addresses::AddressId, rows::PairRow};

/// Names a pair of this shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PairId(pub u32);

/// No dialog.
pub const NO_DIALOG: u32 = u32::MAX;

/// What a shard knows of a local user and one contact.
#[derive(Debug)]
pub struct Pair {
    /// The local user.
    pub user: AddressId,
    /// The contact: an XMPP user of a partner, or another local user (then [`Pair::is_local`]).
    pub contact: AddressId,
    /// What the contact is sent about the user.
    pub watch: WatchId,
    /// What the contact says of itself to this user.
    pub heard: ViewId,
    /// The first of the dialogs in which somebody of the pair is notified of the other.
    pub first_dialog: u32,
    /// The dialog in which we ask the user's front end on behalf of the contact.
    pub upstream: u32,
    /// When the contact asked, in seconds since the Unix epoch; zero when it does not wait.
    pub asked_at: u32,
    /// Seen from the user.
    pub subscription: Subscription,
    /// What is still to be confirmed as said about the user's asking.
    pub asking: Option<SubscriptionKind>,
    /// What is still to be confirmed as said about the user's granting.
    pub granting: Option<SubscriptionKind>,
    /// See [`Pair::has`].
    pub marks: u8,
    /// The policy's verdicts about this pair.
    pub verdict: PairVerdict,
}

/// Bits of [`Pair::marks`].
pub mod mark {
    /// The contact is a local user too.
    pub const LOCAL: u8 = 1;
    /// [`super::Pair::asking`] was written once, and waits for its confirmation.
    pub const ASKING_SAID: u8 = 2;
    /// The contact is to be probed.
    pub const PROBE: u8 = 4;
    /// A probe is out and not answered.
    pub const PROBING: u8 = 8;
    /// What was heard is not known to hold any more.
    pub const STALE: u8 = 16;
    /// What the contact was last told is not known since a restart: the first state that comes is told whole.
    pub const UNSURE: u8 = 32;
    /// [`super::Pair::granting`] was written once, and waits for its confirmation.
    pub const GRANTING_SAID: u8 = 64;
}

/// The stored verdicts: fan-out reads these bits only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairVerdict {
    /// Which policy and accounts decided: see `Owner::judgement`.
    pub judgement: u32,
    /// The user may watch the contact.
    pub may_watch_contact: bool,
    /// The contact may watch the user.
    pub may_watch_user: bool,
    /// The contact may watch the user without asking.
    pub needs_no_answer: bool,
    /// How much of the user the contact may see.
    pub detail: Detail,
}

impl Pair {
    /// True when a bit of [`mark`] is set.
    pub fn has(&self, bit: u8) -> bool {
        self.marks & bit != 0
    }

    /// Sets or clears a bit of [`mark`].
    pub fn set(&mut self, bit: u8, is_set: bool) {
        if is_set { self.marks |= bit } else { self.marks &= !bit }
    }

    /// The contact is a local user too.
    pub fn is_local(&self) -> bool {
        self.has(mark::LOCAL)
    }

    /// The contact is granted, and the policy lets it see the user.
    pub fn may_see(&self) -> bool {
        self.subscription.is_from() && self.verdict.may_watch_user
    }

    /// What is stored of the pair.
    pub fn row(&self) -> PairRow {
        PairRow {
            subscription: self.subscription,
            asking: self.asking,
            granting: self.granting,
            asked_at: (self.asked_at != 0).then_some(u64::from(self.asked_at)),
        }
    }

    /// Somebody's request waits for the user's decision.
    pub fn is_waiting(&self) -> bool {
        self.asked_at != 0
    }

    /// The `asking` that is still to be written.
    pub fn asking_due(&self) -> Option<SubscriptionKind> {
        self.asking.filter(|_| !self.has(mark::ASKING_SAID))
    }

    /// The `granting` that is still to be written.
    pub fn granting_due(&self) -> Option<SubscriptionKind> {
        self.granting.filter(|_| !self.has(mark::GRANTING_SAID))
    }

    /// Something was written and waits for its confirmation.
    pub fn is_said(&self) -> bool {
        self.has(mark::ASKING_SAID | mark::GRANTING_SAID)
    }

    /// Takes over what was stored. Of `asking` and `granting`, what changes is due, and what stays is not said again. Called
    /// by the owner alone, which counts who waits.
    pub fn take_row(&mut self, row: &PairRow) {
        if row.asking != self.asking {
            self.set(mark::ASKING_SAID, false);
        }
        if row.granting != self.granting {
            self.set(mark::GRANTING_SAID, false);
        }
        self.subscription = row.subscription;
        self.asking = row.asking;
        self.granting = row.granting;
        self.asked_at = row.asked_at.map_or(0, |at| u32::try_from(at).unwrap_or(u32::MAX));
    }

    /// Nothing is agreed, due, heard or watched: the row may go.
    pub fn is_idle(&self) -> bool {
        self.subscription == Subscription::None
            && self.asking.is_none()
            && self.granting.is_none()
            && self.first_dialog == NO_DIALOG
            && self.upstream == NO_DIALOG
            && !self.has(mark::PROBE)
    }
}

/// All pairs of a shard.
#[derive(Debug, Default)]
pub struct Pairs {
    slots: Slab<Pair>,
    index: HashTable<u32>,
    hasher: RandomState,
}

impl Pairs {
    /// The pair of these two, if there is a row.
    pub fn find(&self, user: AddressId, contact: AddressId) -> Option<PairId> {
        let hash = self.hasher.hash_one((user, contact));
        let is_it =
            |&at: &u32| self.slots.get(at).is_some_and(|pair| (pair.user, pair.contact) == (user, contact));
        self.index.find(hash, is_it).map(|&at| PairId(at))
    }

    /// Adds a row; there must be none of the same two.
    pub fn insert(&mut self, pair: Pair) -> PairId {
        let hash = self.hasher.hash_one((pair.user, pair.contact));
        let at = self.slots.insert(pair);
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hash, at, |&at| {
            let pair = slots.get(at).expect("an indexed pair is alive");
            hasher.hash_one((pair.user, pair.contact))
        });
        PairId(at)
    }

    /// Takes a row out.
    pub fn remove(&mut self, id: PairId) -> Option<Pair> {
        let pair = self.slots.remove(id.0)?;
        let hash = self.hasher.hash_one((pair.user, pair.contact));
        if let Ok(entry) = self.index.find_entry(hash, |&at| at == id.0) {
            entry.remove();
        }
        Some(pair)
    }

    /// The row, if it still exists.
    pub fn pair(&self, id: PairId) -> Option<&Pair> {
        self.slots.get(id.0)
    }

    /// The row, to be changed.
    pub fn pair_mut(&mut self, id: PairId) -> Option<&mut Pair> {
        self.slots.get_mut(id.0)
    }

    /// All rows.
    pub fn iter(&self) -> impl Iterator<Item = (PairId, &Pair)> {
        self.slots.iter().map(|(at, pair)| (PairId(at), pair))
    }

    /// One more than the highest number of a pair.
    pub fn places(&self) -> u32 {
        self.slots.places()
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_costs_a_few_integers() {
        assert!(size_of::<Option<Pair>>() <= 44, "{} bytes", size_of::<Option<Pair>>());
    }
}
