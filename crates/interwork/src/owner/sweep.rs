//! Our dialogs with a front end whose state is to be known anew: all of them are refreshed at once, a window of them at a
//! time, where the front end is heard again after a time in doubt, and after a restart of ours (STOX-P-23, STOX-P-62).
//!
//! A refresh of a dialog that the front end has forgotten is answered with 481, and a new dialog takes its place at once.
//! Where a single dialog turns out to be forgotten, ours by a refresh or theirs by a NOTIFY, some others are refreshed to see
//! whether that was the only one.

use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use tombolo_fanout::LaneId;
use tombolo_presence::Now;
use tombolo_sip::event::subscriber::{Due, State};

use super::{LaneKey, Output, Owner, PeerHealth, PeerKey, Timer, pairs::mark};

/// The sweeps of front ends, by their lanes.
#[derive(Debug, Default)]
pub struct Sweeps {
    running: HashMap<LaneId, Sweep, RandomState>,
    /// When some dialogs were looked at last because others were forgotten.
    sampled: HashMap<LaneId, Sampled, RandomState>,
}

#[derive(Debug)]
struct Sampled {
    at: Instant,
    /// Dialogs were forgotten since: a timer runs until they may be looked at again.
    is_due: bool,
}

#[derive(Debug)]
struct Sweep {
    peer: PeerKey,
    /// The next place to look at, and the first that came later.
    next: u32,
    end: u32,
    /// Rows whose SUBSCRIBE has no final response yet.
    open: HashSet<u64, RandomState>,
    /// It is over when so many more dialogs are known; `None` for one of all dialogs.
    samples: Option<usize>,
    /// The front end was in doubt since it began, or cannot be reached: it begins anew when the front end is heard.
    is_stalled: bool,
}

impl Owner {
    /// A front end is in doubt, lost, or there again.
    pub(super) fn handle_peer_health(&mut self, peer: &PeerKey, health: PeerHealth, now: Now) {
        let lane = self.peer_lane(peer);
        let before = self.lanes.lane_mut(lane).health.replace(health);
        match health {
            PeerHealth::Doubtful => {
                if let Some(sweep) = self.sweeps.running.get_mut(&lane) {
                    sweep.is_stalled = true;
                }
                self.say_open_again(lane);
            }
            PeerHealth::Lost => self.lose_front_end(peer),
            // What was loaded is being refreshed already.
            PeerHealth::Up if before.is_none() => {
                let is_stalled = self.sweeps.running.get(&lane).is_some_and(|sweep| sweep.is_stalled);
                if is_stalled {
                    self.sweep(lane, peer, None, now);
                }
            }
            PeerHealth::Up => {
                // It may have forgotten what it was told.
                for at in self.dialogs_in(lane) {
                    if let Some(dialog) = self.dialogs.dialog(at) {
                        self.shard.mark_whole(dialog.watch);
                    }
                }
                self.sweep(lane, peer, None, now);
            }
        }
    }

    /// Another shard found that a front end had forgotten a dialog.
    pub(super) fn handle_peer_forgot(&mut self, peer: &PeerKey, now: Now) {
        let lane = self.peer_lane(peer);
        self.sample(lane, peer, now);
    }

    /// Looks at some dialogs with a front end, unless all are being looked at anyway.
    fn sample(&mut self, lane: LaneId, peer: &PeerKey, now: Now) {
        self.sweeps.sampled.insert(lane, Sampled { at: now.instant, is_due: false });
        if !self.sweeps.running.contains_key(&lane) && !self.lanes.lane(lane).is_doubtful() {
            self.sweep(lane, peer, Some(SAMPLES), now);
        }
    }

    /// A front end answered a NOTIFY with 481. Mostly its watcher had left a moment before; but it may have forgotten
    /// everything, so some of our own subscriptions at it are looked at, not time and again.
    pub(super) fn doubt_dialogs(&mut self, lane: LaneId, now: Now) {
        let LaneKey::Peer(peer @ PeerKey::FrontEnd(_)) = self.lanes.lane(lane).key.clone() else { return };
        let pause_over = self.sweeps.sampled.get_mut(&lane).and_then(|sampled| {
            let over = sampled.at + SAMPLE_PAUSE;
            (over > now.instant).then(|| (over, std::mem::replace(&mut sampled.is_due, true)))
        });
        match pause_over {
            Some((_, true)) => {}
            Some((over, false)) => {
                self.wheel.insert(over, Timer::Sample(lane));
            }
            None => {
                self.sample(lane, &peer, now);
                self.out.push_back(Output::Forgotten { peer });
            }
        }
    }

    /// Dialogs were forgotten while it was too early to look at others.
    pub(super) fn handle_sample_due(&mut self, lane: LaneId, now: Now) {
        if self.sweeps.sampled.remove(&lane).is_some_and(|sampled| sampled.is_due) {
            self.doubt_dialogs(lane, now);
        }
    }

    /// A front end refused a NOTIFY with 503: is it the front end itself that fails?
    pub(super) fn suspect(&mut self, lane: LaneId) {
        if let LaneKey::Peer(peer @ PeerKey::FrontEnd(_)) = &self.lanes.lane(lane).key {
            self.out.push_back(Output::Suspect { peer: peer.clone() });
        }
    }

    /// After a restart: every dialog that was loaded.
    pub(super) fn sweep_all(&mut self, now: Now) {
        let peers: HashSet<PeerKey, RandomState> =
            self.upstreams.iter().map(|(_, upstream)| upstream.peer.clone()).collect();
        for peer in peers {
            let lane = self.peer_lane(&peer);
            self.sweep(lane, &peer, None, now);
        }
    }

    /// Contacts see the users behind a lost front end as unknown.
    fn lose_front_end(&mut self, peer: &PeerKey) {
        let shown = |at: &u32| {
            self.upstreams.upstream(*at).is_some_and(|upstream| {
                let is_unsure = self.pairs.pair(upstream.pair).is_some_and(|pair| pair.has(mark::UNSURE));
                upstream.peer == *peer && (is_unsure || self.shard.views.content(upstream.view).is_open())
            })
        };
        let lost: Vec<u32> = (0..self.upstreams.places()).filter(shown).collect();
        for at in lost {
            self.lose_upstream(at);
            let Some(id) = self.upstreams.upstream(at).map(|upstream| upstream.pair) else { continue };
            let Some(pair) = self.pairs.pair_mut(id).filter(|pair| pair.may_see()) else { continue };
            if pair.has(mark::UNSURE) {
                // What the contact was told before the restart still stands there.
                pair.set(mark::UNSURE, false);
                let watch = pair.watch;
                self.shard.mark_whole(watch);
            }
        }
    }

    /// No dialog brings state any more. While the whole front end is in doubt, what was seen holds until the front end is
    /// lost.
    pub(super) fn lose_unless_doubtful(&mut self, at: u32) {
        if !self.is_behind_doubt(at) {
            self.lose_upstream(at);
        }
    }

    /// The front end that a dialog is with is in doubt.
    pub(super) fn is_behind_doubt(&self, at: u32) -> bool {
        let Some(upstream) = self.upstreams.upstream(at) else { return false };
        let lane = self.lanes.ids.get(&LaneKey::Peer(upstream.peer.clone()));
        lane.is_some_and(|lane| self.lanes.lane(*lane).is_doubtful())
    }

    /// Begins a sweep of all dialogs, or until `samples` of them are known, in place of one that is under way.
    fn sweep(&mut self, lane: LaneId, peer: &PeerKey, samples: Option<usize>, now: Now) {
        // Those that are being asked need not be asked again, and count in the window.
        let open = self.sweeps.running.remove(&lane).map(|sweep| sweep.open).unwrap_or_default();
        let end = self.upstreams.places();
        let sweep = Sweep { peer: peer.clone(), next: 0, end, open, samples, is_stalled: false };
        self.sweeps.running.insert(lane, sweep);
        self.continue_sweep(lane, now);
    }

    /// Refreshes as many dialogs as fit into the window.
    pub(super) fn continue_sweep(&mut self, lane: LaneId, now: Now) {
        let Some(mut sweep) = self.sweeps.running.remove(&lane) else { return };
        if sweep.is_stalled && self.lanes.lane(lane).is_doubtful() {
            self.sweeps.running.insert(lane, sweep);
            return;
        }
        sweep.is_stalled = false;
        let window = self.settings.refresh_window;
        let window = sweep.samples.map_or(window, |samples| samples.min(window));
        let mut looked_at = 0;
        while sweep.open.len() < window && sweep.next < sweep.end {
            if looked_at == LOOKED_AT_PER_TURN {
                self.wheel.insert(now.instant, Timer::Sweep(lane));
                break;
            }
            looked_at += 1;
            let at = sweep.next;
            sweep.next += 1;
            let Some(upstream) =
                self.upstreams.upstream_mut(at).filter(|upstream| upstream.peer == sweep.peer)
            else {
                continue;
            };
            let is_established = matches!(upstream.machine.state(), State::Pending | State::Active);
            if sweep.samples.is_some() && !is_established {
                continue;
            }
            match upstream.machine.resume() {
                Due::Refresh => self.send_subscribe(at, now),
                Due::Subscribe => self.restart_upstream(at, now),
                Due::Nothing | Due::Lost { .. } | Due::Ended => continue,
            }
            sweep.open.extend(self.upstreams.upstream(at).map(|upstream| upstream.row));
        }
        if sweep.next < sweep.end || !sweep.open.is_empty() {
            self.sweeps.running.insert(lane, sweep);
        }
    }

    /// A SUBSCRIBE has ended, which had this row's number. `is_answered` is false when no response came at all.
    pub(super) fn handle_swept(&mut self, at: u32, row: u64, status: u16, is_answered: bool, now: Now) {
        let is_forgotten = is_answered && status == 481;
        let swept = self.sweeps.running.iter_mut().find_map(|(lane, sweep)| {
            let is_its = sweep.open.remove(&row);
            is_its.then_some((*lane, sweep))
        });
        let Some((lane, sweep)) = swept else {
            if is_forgotten {
                self.look_for_forgotten(at, now);
            }
            return;
        };
        if is_forgotten {
            sweep.samples = None;
            let is_renewed = self
                .upstreams
                .upstream_mut(at)
                .is_some_and(|upstream| upstream.machine.resume() == Due::Subscribe);
            if is_renewed {
                self.restart_upstream(at, now);
                let row = self.upstreams.upstream(at).map(|upstream| upstream.row);
                if let Some(sweep) = self.sweeps.running.get_mut(&lane) {
                    sweep.open.extend(row);
                }
            }
        } else if !is_answered && status != 408 {
            // The connection broke or there is none. Mostly the front end is heard again later, and the sweep begins anew.
            sweep.next = 0;
            if !std::mem::replace(&mut sweep.is_stalled, true) {
                self.wheel.insert(now.instant + STALLED_FOR, Timer::Sweep(lane));
            }
            return;
        } else if let Some(samples) = &mut sweep.samples {
            *samples = samples.saturating_sub(1);
            if *samples == 0 {
                sweep.next = sweep.end;
            }
        }
        if self.sweeps.running.get(&lane).is_some_and(|sweep| !sweep.is_stalled) {
            self.continue_sweep(lane, now);
        }
    }

    /// A dialog was forgotten: are others too?
    fn look_for_forgotten(&mut self, at: u32, now: Now) {
        if let Some(peer) = self.upstreams.upstream(at).map(|upstream| upstream.peer.clone()) {
            let lane = self.peer_lane(&peer);
            self.doubt_dialogs(lane, now);
        }
    }
}

/// From one look at some dialogs to the next.
const SAMPLE_PAUSE: Duration = Duration::from_secs(10);
/// Dialogs that are known, after a single one was not, show that the others are too.
const SAMPLES: usize = 16;
/// Places that one turn looks at.
const LOOKED_AT_PER_TURN: u32 = 1024;
/// How long a sweep rests for want of a connection.
const STALLED_FOR: Duration = Duration::from_secs(30);
