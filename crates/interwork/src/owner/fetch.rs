//! A contact's probe of a user behind a front end, where no dialog brings state: the front end is asked once (RFC 8048
//! §7.1, RFC 6665 §4.4.3), and a subscription that was to follow later still does.

use std::time::{Duration, Instant};

use tombolo_presence::Now;
use tombolo_sip::event::subscriber::{State, Subscriber};

use super::{
    Owner,
    pairs::{PairId, mark},
};

impl Owner {
    /// Asks once for the user's state. What is on its way already is answer enough.
    pub(super) fn fetch_upstream(&mut self, id: PairId, now: Now) {
        // The policy lets the contact see nothing, so nothing is asked.
        let Some(pair) = self.pairs.pair(id).filter(|pair| pair.verdict.may_watch_user) else { return };
        let at = pair.upstream;
        if let Some(upstream) = self.upstreams.upstream_mut(at) {
            if matches!(upstream.machine.state(), State::Init | State::Terminated) {
                let retry_at = upstream.machine.poll_timeout().unwrap_or(now.instant);
                upstream.resumes_at = unix_seconds_of(retry_at, now);
                self.renew_upstream(at, 0, now);
            }
            return;
        }
        let user = self.addresses.address(pair.user).clone();
        if let Some(peer) = self.front_end_of(&user) {
            self.open_upstream(id, peer, 0, now);
        }
    }

    /// Tells the contact everything that it may see, changed or not.
    pub(super) fn answer_probe(&mut self, id: PairId) {
        let Some(pair) = self.pairs.pair_mut(id).filter(|pair| pair.subscription.is_from()) else { return };
        if pair.may_see() {
            pair.set(mark::UNSURE, false);
        }
        let watch = pair.watch;
        self.shard.mark_whole(watch);
    }

    /// The front end did not answer.
    pub(super) fn fail_fetch(&mut self, at: u32, now: Now) {
        let Some(id) = self.upstreams.upstream(at).map(|upstream| upstream.pair) else { return };
        self.lose_unless_doubtful(at);
        self.answer_probe(id);
        self.end_fetch(at, now);
    }

    /// The question is over, and what was to follow follows.
    pub(super) fn end_fetch(&mut self, at: u32, now: Now) {
        let expires = self.settings.front_end_expires;
        let Some(upstream) = self.upstreams.upstream_mut(at) else { return };
        match std::mem::take(&mut upstream.resumes_at) {
            0 => self.drop_upstream(at),
            resumes_at => {
                let wait = u64::from(resumes_at).saturating_sub(now.unix_seconds());
                let resumes_at = now.instant + Duration::from_secs(wait);
                upstream.machine = Subscriber::resting(expires, resumes_at);
                self.leave_dialog(at);
            }
        }
    }
}

/// A moment that is not long past, in the short form that a row has room for.
pub(super) fn unix_seconds_of(moment: Instant, now: Now) -> u32 {
    let wait = moment.saturating_duration_since(now.instant).as_secs();
    u32::try_from(now.unix_seconds() + wait).unwrap_or(u32::MAX)
}
