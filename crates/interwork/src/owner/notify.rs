//! What becomes of NOTIFYs: answers, time-outs, intervals, and the end of the ways to their peers.

use bytes::Bytes;
use tombolo_presence::{Address, Now, PresenceState};
use tombolo_sip::event::ends_subscription;

use super::{
    Asked, DUE_PER_TURN, LaneKey, Output, Owner, PeerKey, PeerWay, Timer,
    dialogs::Flight,
    input::{NotifyAnswer, SipRequest},
    output::OwnerEvent,
    pairs::{PairId, mark},
    presence_in::unknown_state,
    render::cut_notes,
    watchers::{DIALOG_BIT, share_routes},
};
use crate::{
    presence_to_sip::PidfWriter,
    request::{MAX_FORWARDS, RequestDraft, party, route},
    sip_request::Subscribe,
};

impl Owner {
    /// A NOTIFY was answered by a flow of these peers; the MAC says that the branch was ours. Whoever saw the NOTIFY knows
    /// that too, so that only the peer of the dialog is heard.
    pub(super) fn handle_notify_answer(&mut self, answer: NotifyAnswer, peers: &[PeerKey], now: Now) {
        let Some(at) = self.dialogs.find(answer.row) else { return };
        let Some(dialog) = self.dialogs.dialog(at).filter(|dialog| dialog.mac == answer.mac) else { return };
        let LaneKey::Peer(peer) = &self.lanes.lane(dialog.lane).key else { return };
        if peers.contains(peer) {
            self.handle_notify_outcome(at, answer.cseq, answer.status, answer.retry_after, now);
        }
    }

    /// What became of a NOTIFY of the dialog at a place.
    pub(super) fn handle_notify_outcome(
        &mut self,
        at: u32,
        cseq: u32,
        status: u16,
        retry_after: Option<u32>,
        now: Now,
    ) {
        let Some(dialog) = self.dialogs.dialog_mut(at) else { return };
        if dialog.flight == Flight::Answered || dialog.local_cseq != cseq || status < 200 {
            return;
        }
        let was_last = std::mem::replace(&mut dialog.flight, Flight::Answered) == Flight::Last;
        if let Some(timer) = dialog.activity.take() {
            self.wheel.cancel(timer);
        }
        let (watch, notified_at, is_ending) = (dialog.watch, dialog.notified_at, dialog.is_ending());
        let lane = dialog.lane;
        // RFC 6665 §4.2.2: these end the subscription; any other failure leaves it.
        if was_last || ends_subscription(status) || status == 408 {
            self.drop_dialog(at);
            if status == 481 && !was_last && !is_ending {
                self.doubt_dialogs(lane, now);
            }
            return;
        }
        if status == 503 {
            self.suspect(lane);
        }
        if is_ending {
            // The end came while an earlier NOTIFY was in flight: the last one follows now, whatever became of it.
            return self.shard.unhold(watch);
        }
        let since = self.milliseconds(now).saturating_sub(notified_at);
        let mut interval = self.settings.watcher_interval.as_millis() as u32;
        if status >= 300 {
            // SIP-E-20: it asks for a pause; what it did not take is said again after it.
            interval = interval.max(retry_after.unwrap_or(PAUSE_SECONDS).saturating_mul(1000));
            self.shard.mark_whole(watch);
        }
        if since >= interval {
            return self.shard.unhold(watch);
        }
        let left = std::time::Duration::from_millis(u64::from(interval - since));
        let timer = self.wheel.insert(now.instant + left, Timer::DialogActivity(at));
        if let Some(dialog) = self.dialogs.dialog_mut(at) {
            dialog.activity = Some(timer);
        }
    }

    /// The NOTIFY in flight is given up, or the interval is over.
    pub(super) fn handle_dialog_activity(&mut self, at: u32, now: Now) {
        let Some(dialog) = self.dialogs.dialog_mut(at) else { return };
        dialog.activity = None;
        if dialog.flight.is_open() {
            return self.handle_notify_unanswered(at, now);
        }
        let watch = dialog.watch;
        self.shard.unhold(watch);
    }

    /// A NOTIFY got no final response in time, which ends the subscription (RFC 6665 §4.2.2). But a whole front end may
    /// be silent for a while, and its users' dialogs outlive that: there the NOTIFY is said again, once while the front end
    /// is up, and again after each time in which it was in doubt.
    pub(super) fn handle_notify_unanswered(&mut self, at: u32, now: Now) {
        let Some(dialog) = self.dialogs.dialog(at).filter(|dialog| dialog.flight.is_open()) else { return };
        let lane = self.lanes.lane(dialog.lane);
        let is_over = match dialog.flight {
            Flight::Last => true,
            Flight::Again => !lane.is_doubtful(),
            _ => !lane.is_front_end(),
        };
        if is_over {
            return self.drop_dialog(at);
        }
        let watch = dialog.watch;
        let timer = self.wheel.insert(now.instant + UNANSWERED_PAUSE, Timer::DialogActivity(at));
        if let Some(dialog) = self.dialogs.dialog_mut(at) {
            dialog.flight = Flight::Unanswered;
            if let Some(old) = dialog.activity.replace(timer) {
                self.wheel.cancel(old);
            }
        }
        self.shard.mark_whole(watch);
    }

    /// What is due must not wait for the interval: authorizations, ends, answers to SUBSCRIBE.
    pub(super) fn send_soon(&mut self, at: u32) {
        let Some(dialog) = self.dialogs.dialog_mut(at) else { return };
        if !dialog.flight.is_open() {
            if let Some(timer) = dialog.activity.take() {
                self.wheel.cancel(timer);
            }
            let watch = dialog.watch;
            self.shard.unhold(watch);
        }
    }

    /// The way to a peer changed. Without one there is no Timer F: what was in flight is said again when it is back.
    pub(super) fn handle_peer_changed(&mut self, peer: &PeerKey, way: Option<PeerWay>) {
        let key = LaneKey::Peer(peer.clone());
        let lane = match (self.lanes.ids.get(&key), peer) {
            (Some(lane), _) => *lane,
            (None, PeerKey::FrontEnd(_)) => self.peer_lane(peer),
            // Most phones have no dialog in this shard; one that gets one says then how it is reached.
            (None, PeerKey::Phone(_)) => return,
        };
        let is_up = way.is_some();
        let takes_large = |way: &Option<PeerWay>| way.as_ref().is_some_and(|way| way.takes_large);
        let is_wider = takes_large(&way) && !takes_large(&self.lanes.lane(lane).way);
        self.lanes.lane_mut(lane).way = way;
        if is_up {
            if is_wider {
                self.say_cut_again(lane);
            }
            // Nobody heard what the lane asked for while the peer was away.
            return self.shard.ask_again(lane);
        }
        self.say_open_again(lane);
    }

    /// A peer that was met by datagrams takes large requests now: what was cut for it is said whole.
    fn say_cut_again(&mut self, lane: tombolo_fanout::LaneId) {
        for at in self.lanes.lane_mut(lane).cut.take().into_iter().flat_map(|cut| *cut) {
            // Another dialog may be in its place meanwhile: that says its state once more.
            if let Some(dialog) = self.dialogs.dialog(at).filter(|dialog| dialog.lane == lane) {
                self.shard.mark_whole(dialog.watch);
            }
        }
    }

    /// What is in flight to a peer is not waited for any more, and said again when the peer takes it.
    pub(super) fn say_open_again(&mut self, lane: tombolo_fanout::LaneId) {
        let is_open = |at: &u32| self.dialogs.dialog(*at).is_some_and(|dialog| dialog.flight.is_open());
        let open: Vec<u32> = self.dialogs_in(lane).into_iter().filter(is_open).collect();
        for at in open {
            let Some(dialog) = self.dialogs.dialog_mut(at) else { continue };
            dialog.flight = Flight::Answered;
            let watch = dialog.watch;
            self.shard.mark_whole(watch);
            self.send_soon(at);
        }
    }

    /// The stream under a session's lane ended. After an unclean end nothing of it is known to have arrived.
    pub(super) fn handle_lane_lost(&mut self, key: &LaneKey, is_clean: bool) {
        let Some(&lane) = self.lanes.ids.get(key) else { return };
        if is_clean {
            return;
        }
        self.shard.handle_lane_lost(lane);
        for id in self.pairs_in(lane) {
            let Some(pair) = self.pairs.pair(id) else { continue };
            let watch = pair.watch;
            let is_probed = pair.has(mark::PROBING);
            if pair.is_said() {
                self.unsay(id, mark::ASKING_SAID | mark::GRANTING_SAID);
                self.shard.mark_due(watch);
            }
            if is_probed {
                self.probe_again(id);
            }
        }
    }

    /// A partner is lost, or back (STOX-P-62): its contacts keep their state for the grace.
    pub(super) fn handle_partner_reachable(&mut self, key: &LaneKey, is_reachable: bool, now: Now) {
        let Some(&lane) = self.lanes.ids.get(key) else { return };
        let state = self.lanes.lane_mut(lane);
        if state.is_lost != is_reachable {
            return;
        }
        state.is_lost = !is_reachable;
        if !is_reachable {
            let timer = self.wheel.insert(now.instant + self.settings.partner_grace, Timer::Grace(lane));
            self.lanes.lane_mut(lane).grace = Some(timer);
            return;
        }
        if let Some(timer) = state.grace.take() {
            self.wheel.cancel(timer);
        }
        self.doubt_contacts(lane);
    }

    /// A stream of a partner's to us broke: states that it carried may be lost. A lost partner is asked when it is back.
    pub(super) fn handle_contacts_doubtful(&mut self, key: &LaneKey) {
        if let Some(&lane) = self.lanes.ids.get(key)
            && !self.lanes.lane(lane).is_lost
        {
            self.doubt_contacts(lane);
        }
    }

    /// What is known of a lane's contacts may be old: those that somebody watches are probed, with the lane's credit; one
    /// that does not answer is unknown.
    fn doubt_contacts(&mut self, lane: tombolo_fanout::LaneId) {
        for id in self.pairs_in(lane) {
            let Some(pair) = self.pairs.pair_mut(id) else { continue };
            if pair.subscription.is_to() {
                pair.set(mark::STALE, true);
                if !self.dialogs_of(id, false).is_empty() {
                    self.probe_again(id);
                }
            }
        }
    }

    /// The grace is over: the partner's contacts are unknown, and their watchers are told once.
    pub(super) fn handle_grace_over(&mut self, lane: tombolo_fanout::LaneId) {
        self.lanes.lane_mut(lane).grace = None;
        if !self.lanes.lane(lane).is_lost {
            return;
        }
        for id in self.pairs_in(lane) {
            let is_heard = self.pairs.pair(id).is_some_and(|pair| {
                pair.subscription.is_to() && self.shard.views.content(pair.heard).is_open()
            });
            if is_heard {
                self.hear(id, unknown_state("The contact's server cannot be reached"));
                if let Some(pair) = self.pairs.pair_mut(id) {
                    pair.set(mark::STALE, true);
                }
            }
        }
    }

    /// Something was just said to the pairs; it is taken as received after a while.
    pub(super) fn confirm_later(&mut self, pairs: Vec<PairId>, now: Now) {
        let due = now.instant + self.settings.confirm_after;
        if self.said.queue.is_empty() && !pairs.is_empty() {
            self.wheel.insert(due, Timer::Said);
        }
        for id in pairs {
            self.said.queue.push_back((due, id));
            self.said.newest.insert(id, due);
        }
    }

    /// What was said to a pair is not taken as received any more: of `asking`, of `granting`, or of both, by their marks.
    pub(super) fn unsay(&mut self, id: PairId, marks: u8) {
        let Some(pair) = self.pairs.pair_mut(id) else { return };
        pair.set(marks, false);
        if !pair.is_said() {
            self.said.newest.remove(&id);
        }
    }

    /// What was said first has been said long enough ago, and perhaps more.
    pub(super) fn handle_said_due(&mut self, now: Now) {
        for _ in 0..DUE_PER_TURN {
            let Some((due, id)) = self.said.queue.pop_front_if(|(due, _)| *due <= now.instant) else { break };
            // Of what was said several times, only the last time counts.
            if self.said.newest.get(&id) == Some(&due) {
                self.said.newest.remove(&id);
                self.handle_said_long_ago(id, now);
            }
        }
        match self.said.queue.front() {
            Some((due, _)) => drop(self.wheel.insert(*due, Timer::Said)),
            None => {
                self.said.queue.shrink_to(64);
                self.said.newest.shrink_to(64);
            }
        }
    }

    /// What was said is taken as received: nothing of it is due any more.
    fn handle_said_long_ago(&mut self, id: PairId, now: Now) {
        if self.is_proposing(id) {
            // The row as it stands must not be written behind the one that is being stored.
            return self.confirm_later(vec![id], now);
        }
        let Some(pair) = self.pairs.pair_mut(id) else { return };
        if !pair.is_said() {
            return;
        }
        if pair.has(mark::ASKING_SAID) {
            pair.asking = None;
        }
        if pair.has(mark::GRANTING_SAID) {
            pair.granting = None;
        }
        pair.set(mark::ASKING_SAID | mark::GRANTING_SAID, false);
        if let Some(pair) = self.pairs.pair(id) {
            let row = self.pair_row(pair, &pair.row());
            self.lazy.push(row);
        }
        self.drop_if_idle(id);
    }

    /// The dialogs whose NOTIFYs leave by a lane.
    pub(super) fn dialogs_in(&self, lane: tombolo_fanout::LaneId) -> Vec<u32> {
        let owners = self.shard.owners_in(lane).filter(|owner| owner & DIALOG_BIT != 0);
        owners.map(|owner| owner & !DIALOG_BIT).collect()
    }

    fn pairs_in(&self, lane: tombolo_fanout::LaneId) -> Vec<PairId> {
        self.shard.owners_in(lane).filter(|owner| owner & DIALOG_BIT == 0).map(PairId).collect()
    }
}

impl Owner {
    /// The one NOTIFY of a poll: the subscription is over with it (RFC 6665 §4.4.3). Nothing is kept of it.
    pub(super) fn notify_poll(
        &mut self,
        request: &SipRequest,
        subscribe: &Subscribe,
        token: &str,
        presentity: &Address,
        state: Option<&PresenceState>,
    ) {
        let mut pidf = PidfWriter::new(self.settings.max_sip_bytes);
        let body = state.map_or(&[][..], |state| pidf.closing_document(presentity, state));
        let target = subscribe.contact.as_deref().unwrap_or(&subscribe.from_uri);
        let shared = share_routes(&subscribe.routes);
        let (uri, routes) = route(target, shared.as_deref().map(Vec::as_slice));
        let event = match &subscribe.event_id {
            Some(id) => format!("presence;id={id}"),
            None => "presence".to_owned(),
        };
        let mut draft = RequestDraft {
            method: "NOTIFY",
            uri: uri.to_owned(),
            routes: routes.into_iter().map(ToOwned::to_owned).collect(),
            from: format!("<{}>;tag={token}", subscribe.to_uri),
            to: party(&subscribe.from_uri, &subscribe.from_tag),
            call_id: subscribe.call_id.clone(),
            cseq: 1,
            max_forwards: MAX_FORWARDS,
            contact_user: Some(token.to_owned()),
            headers: vec![("Event", event), ("Subscription-State", "terminated;reason=timeout".to_owned())],
            content_type: (!body.is_empty()).then(|| "application/pidf+xml".to_owned()),
            body: Bytes::copy_from_slice(body),
        };
        let is_cut = !request.way.takes_large
            && cut_notes(&mut draft, self.settings.datagram_message_bytes, state, presentity, &mut pidf);
        if is_cut {
            self.event(OwnerEvent::NotesCut { watcher: request.identity.clone() });
        }
        let id = self.new_request(Asked::Nothing);
        let peer = request.peer.clone();
        self.out.push_back(Output::Request { peer, request: id, draft: Box::new(draft) });
    }
}

/// How long after an unanswered NOTIFY the next one leaves: by then a silent front end is known to be in doubt.
const UNANSWERED_PAUSE: std::time::Duration = std::time::Duration::from_secs(15);
/// How long a watcher that failed to take a NOTIFY is left alone, unless it says how long.
const PAUSE_SECONDS: u32 = 10;
