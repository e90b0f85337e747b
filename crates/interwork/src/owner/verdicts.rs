//! What a new policy or new accounts change, in slices: a cursor walks over users and pairs, a few in each turn.
//!
//! Until it has come by, a pair has an old verdict. Whatever is about to use it makes it anew first ([`Owner::freshen`]), so
//! that nothing is shown that the newest policy forbids.

use tombolo_fanout::LaneId;
use tombolo_presence::Now;

use super::{Owner, Timer, addresses::AddressId, pairs::PairId, plan::Control, watchers::DIALOG_BIT};

/// Where the walk is.
#[derive(Debug)]
pub struct Judging {
    /// Users who may have lost their account.
    users: Vec<AddressId>,
    /// The next place among the pairs.
    next: u32,
}

/// Users or places of pairs that are looked at in one turn.
const SLICE: u32 = 256;
/// Owed updates that are judged before a lane is written: more do not fit in a grant.
const OWED: usize = 1024;

impl Owner {
    /// Every verdict is old from now on, and made anew. A walk that is under way begins again.
    pub(super) fn begin_judging(&mut self, now: Now) {
        self.judgement = self.judgement.wrapping_add(1);
        let is_running = self.judging.is_some();
        self.judging = Some(Judging { users: self.users.keys().copied().collect(), next: 0 });
        if !is_running {
            self.go_on_judging(now);
        }
    }

    /// The next slice.
    pub(super) fn go_on_judging(&mut self, now: Now) {
        let Some(judging) = &mut self.judging else { return };
        let keep = judging.users.len().saturating_sub(SLICE as usize);
        let users = judging.users.split_off(keep);
        let is_among_users = keep > 0;
        let begin = judging.next;
        if !is_among_users {
            judging.next = begin.saturating_add(SLICE);
        }
        for user in users {
            if self.users.contains_key(&user) && self.is_without_account(self.addresses.address(user)) {
                self.drop_publications(user);
            }
        }
        if !is_among_users {
            for id in (begin..begin.saturating_add(SLICE)).map(PairId) {
                self.freshen(id, now);
                if self.is_of_nobody(id) {
                    self.control(id, Control::Gone, now);
                }
            }
        }
        if is_among_users || begin.saturating_add(SLICE) < self.pairs.places() {
            self.wheel.insert(now.instant + NEXT_SLICE, Timer::Judge);
        } else {
            self.judging = None;
        }
    }

    /// Makes a pair's verdict anew if it is an old one.
    pub(super) fn freshen(&mut self, id: PairId, now: Now) {
        if self.has_old_verdict(id) {
            self.judge(id, now);
        }
    }

    pub(super) fn has_old_verdict(&self, id: PairId) -> bool {
        self.pairs.pair(id).is_some_and(|pair| pair.verdict.judgement != self.judgement)
    }

    /// Judges what a lane is about to be sent.
    pub(super) fn freshen_owed(&mut self, lane: LaneId, now: Now) {
        if self.judging.is_none() {
            return;
        }
        let owners: Vec<u32> = self.shard.owners_owed(lane).take(OWED).collect();
        for owner in owners {
            let dialog = self.dialogs.dialog(owner & !DIALOG_BIT).map(|dialog| dialog.pair);
            let id = if owner & DIALOG_BIT == 0 { Some(PairId(owner)) } else { dialog };
            if let Some(id) = id {
                self.freshen(id, now);
            }
        }
    }
}

/// Until the next slice: what came meanwhile has its turn before.
const NEXT_SLICE: std::time::Duration = std::time::Duration::from_millis(1);
