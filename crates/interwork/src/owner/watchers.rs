//! SIP users who watch: SUBSCRIBE for presence, from a phone or by way of a front end (RFC 6665 §4.2, RFC 8048 §5.3).
//!
//! A dialog belongs to a pair. Mostly the pair's user watches the contact; where both ends are local, the dialog
//! stands in the presentity's pair and watches the user.

use std::sync::Arc;

use tombolo_budget::Charge;
use tombolo_fanout::ViewId;
use tombolo_presence::{Address, Availability, Device, Now, PresenceState, SubscriptionKind};
use tombolo_sip::event::Reason;

use super::{
    LaneKey, Owner,
    budgets::{MESSAGE_OCTETS, NO_ROOM_RETRY_SECONDS},
    dialogs::{DialogTexts, Phase, Routes},
    input::SipRequest,
    output::{Output, OwnerEvent},
    pairs::{NO_DIALOG, PairId, mark},
    plan::{Control, Effect, Plan},
};
use crate::{
    rows::{NotifierRow, Row, encode, number_key, table},
    sip_reply::{Reply, reply},
    sip_request::Subscribe,
    token::{Token, TokenKind},
};

/// A SUBSCRIBE that asks for a dialog, checked.
#[derive(Debug)]
pub struct WatchRequest {
    /// The request as it came.
    pub request: SipRequest,
    /// What it asks for.
    pub subscribe: Subscribe,
    /// The pair's user is watched, by the pair's contact.
    pub watches_user: bool,
    /// Granted, in seconds.
    pub expires: u32,
    /// The number of its row.
    pub row: u64,
    /// Given back with the request, when it is answered.
    pub _held: Charge,
}

impl Owner {
    /// A SUBSCRIBE outside any dialog.
    pub(super) fn handle_subscribe_request(&mut self, request: SipRequest, subscribe: Subscribe, now: Now) {
        let target = subscribe.target.clone();
        let watcher = request.identity.clone();
        if subscribe.is_sips {
            // D-14: SIPS is not translated.
            let warning = [("Warning", "380 tombolo \"SIPS Not Allowed\"".to_owned())];
            return self.answer(
                &request,
                Reply { headers: &warning, ..Reply::status(480) },
                "sips is not translated",
            );
        }
        if came_back(&request, &target) {
            return self.answer(
                &request,
                Reply::status(482),
                "the front end sent a request for its own domain",
            );
        }
        let watches_user = self.policy.local_domain(target.domain()).is_some();
        if !watches_user && request.message.max_forwards() == Ok(Some(0)) {
            // STOX-A-21: it would leave us again as `subscribe` or `probe`.
            return self.answer(&request, Reply::status(483), "no hop is left to reach the contact");
        }
        let (user, contact) = if watches_user { (&target, &watcher) } else { (&watcher, &target) };
        let verdict = self.verdict(user, contact);
        if watches_user && !verdict.may_watch_user {
            return self.answer(&request, Reply::status(403), HOMES_NOT_JOINED);
        }
        if watches_user && !self.accounts.approve.contains_key(user) {
            return self.answer(&request, Reply::status(404), "there is no such local user");
        }
        if !watches_user && !verdict.may_watch_contact {
            return self.answer(
                &request,
                Reply::status(403),
                "the policy does not let the user watch that domain",
            );
        }
        let longest = self.longest_expires(&request);
        let asked = subscribe.expires.unwrap_or(tombolo_sip::event::DEFAULT_EXPIRES);
        if asked == 0 {
            return self.poll(&request, &subscribe, user, contact, watches_user);
        }
        let least = self.settings.least_expires.min(longest);
        if asked < least && asked < 3600 {
            let min = [("Min-Expires", least.to_string())];
            return self.answer(
                &request,
                Reply { headers: &min, ..Reply::status(423) },
                "the interval is too brief",
            );
        }
        if subscribe.contact.is_none() {
            return self.answer(&request, Reply::status(400), "a SUBSCRIBE without Contact");
        }
        if let Some(reason) = self.is_over_limit(user, contact, watches_user, &request) {
            let retry = [("Retry-After", LIMIT_RETRY_SECONDS.to_string())];
            return self.answer(&request, Reply { headers: &retry, ..Reply::status(480) }, reason);
        }
        if self.is_memory_full {
            let retry = [("Retry-After", MEMORY_RETRY_SECONDS.to_string())];
            let answer = Reply { headers: &retry, ..Reply::status(500) };
            return self.answer(&request, answer, "the process has no memory for further subscriptions");
        }
        // The request twice: as it came, and read.
        let Some(held) = self.charge(user, contact, 2 * request.message.octets() + MESSAGE_OCTETS) else {
            let retry = [("Retry-After", NO_ROOM_RETRY_SECONDS.to_string())];
            let answer = Reply { headers: &retry, ..Reply::status(500) };
            return self.answer(&request, answer, "too much waits for the store");
        };
        let Some(id) = self.find_or_add_pair(user, contact) else {
            return self.answer(&request, Reply::status(400), "the addresses cannot be a pair");
        };
        let row = self.new_row();
        let expires = asked.min(longest);
        let watch = WatchRequest { request, subscribe, watches_user, expires, row, _held: held };
        self.control(id, Control::Watch(Box::new(watch)), now);
    }

    pub(super) fn longest_expires(&self, request: &SipRequest) -> u32 {
        match request.peer {
            super::PeerKey::FrontEnd(_) => self.settings.front_end_expires,
            super::PeerKey::Phone(_) => self.settings.phone_expires,
        }
    }

    /// Plans a dialog and what it takes to let the watcher see.
    pub(super) fn plan_watch(&mut self, id: PairId, watch: Box<WatchRequest>, plan: &mut Plan, now: Now) {
        let Some(pair) = self.pairs.pair(id) else { return };
        if watch.watches_user {
            let step = plan.row.subscription.inbound(SubscriptionKind::Subscribe);
            if step.forward {
                plan.row.subscription = step.next;
                plan.row.asked_at = Some(now.unix_seconds());
                if pair.verdict.needs_no_answer {
                    let granted = plan.row.subscription.outbound(SubscriptionKind::Subscribed);
                    plan.row.subscription = granted.next;
                    plan.row.asked_at = None;
                } else {
                    plan.effects.push(Effect::TellUser);
                }
            }
        } else if !plan.row.subscription.is_to() && !plan.row.subscription.is_pending_out() {
            let step = plan.row.subscription.outbound(SubscriptionKind::Subscribe);
            plan.row.subscription = step.next;
            plan.row.asking = Some(SubscriptionKind::Subscribe);
        } else if plan.row.subscription.is_to() && (pair.heard == ViewId::EMPTY || pair.has(mark::STALE)) {
            plan.effects.push(Effect::Probe);
        }
        plan.rows.push(self.notifier_row(id, &watch, now));
        plan.effects.insert(0, Effect::Open(watch));
    }

    fn notifier_row(&self, id: PairId, watch: &WatchRequest, now: Now) -> Row {
        let (user, contact) = self.names_of(id);
        let subscribe = &watch.subscribe;
        let value = NotifierRow {
            user: user.clone(),
            contact,
            watches_user: watch.watches_user,
            peer: watch.request.peer.clone(),
            call_id: subscribe.call_id.clone(),
            remote_tag: subscribe.from_tag.clone(),
            remote_uri: subscribe.from_uri.clone(),
            local_uri: subscribe.to_uri.clone(),
            remote_target: subscribe.contact.clone().unwrap_or_default(),
            routes: subscribe.routes.clone(),
            event_id: subscribe.event_id.clone(),
            expires_at: self.time(now) + u64::from(watch.expires),
        };
        Row {
            partition: user.partition(),
            table: table::NOTIFIER,
            key: number_key(watch.row),
            value: Some(encode(&value)),
        }
    }

    /// Stores a dialog as it stands: the watcher is reached elsewhere.
    fn keep_dialog_row(&mut self, at: u32) {
        let Some(dialog) = self.dialogs.dialog(at) else { return };
        let LaneKey::Peer(peer) = self.lanes.lane(dialog.lane).key.clone() else { return };
        let (user, contact) = self.names_of(dialog.pair);
        let (texts, partition) = (dialog.texts(), user.partition());
        let value = NotifierRow {
            user,
            contact,
            watches_user: dialog.watches_user,
            peer,
            call_id: texts.call_id.to_owned(),
            remote_tag: texts.remote_tag.to_owned(),
            remote_uri: texts.remote_uri.to_owned(),
            local_uri: texts.local_uri.to_owned(),
            remote_target: texts.remote_target.to_owned(),
            routes: dialog.routes.iter().flat_map(|routes| routes.iter()).map(|r| r.to_string()).collect(),
            event_id: (!texts.event_id.is_empty()).then(|| texts.event_id.to_owned()),
            expires_at: u64::from(dialog.expires_at),
        };
        let key = number_key(dialog.row);
        self.lazy.push(Row { partition, table: table::NOTIFIER, key, value: Some(encode(&value)) });
    }

    /// The row is on disk: 2xx, and the first NOTIFY behind it.
    pub(super) fn open_dialog(&mut self, id: PairId, watch: WatchRequest, now: Now) {
        let subscribe = &watch.subscribe;
        let lane = self.peer_lane(&watch.request.peer);
        self.lanes.lane_mut(lane).way = Some(watch.request.way.clone());
        let texts = DialogTexts {
            call_id: &subscribe.call_id,
            remote_tag: &subscribe.from_tag,
            remote_uri: &subscribe.from_uri,
            local_uri: &subscribe.to_uri,
            remote_target: subscribe.contact.as_deref().unwrap_or_default(),
            event_id: subscribe.event_id.as_deref().unwrap_or_default(),
        };
        let expires_at = self.time(now) + u64::from(watch.expires);
        let routes = share_routes(&subscribe.routes);
        let Some(at) =
            self.add_dialog(id, watch.row, lane, &texts, routes, watch.watches_user, expires_at, now)
        else {
            self.lanes.drop_if_unused(lane, &mut self.shard);
            return self.answer(&watch.request, Reply::status(400), "the dialog's texts are too long");
        };
        if let Some(dialog) = self.dialogs.dialog_mut(at) {
            dialog.remote_cseq = subscribe.cseq;
        }
        let token = self.dialog_token(id, watch.row);
        self.answer_subscribe(&watch.request, &token, watch.expires, false);
        // The first NOTIFY is due whatever it says (RFC 6665 §4.2.1.2).
        self.refresh_dialog_view(at);
        if let Some(dialog) = self.dialogs.dialog(at) {
            self.shard.mark_whole(dialog.watch);
        }
    }

    fn answer_subscribe(&mut self, request: &SipRequest, token: &str, expires: u32, is_held: bool) {
        let headers = [
            ("Expires", expires.to_string()),
            ("Contact", format!("<sip:{token}@{}>", request.way.contact)),
            ("Allow-Events", "presence".to_owned()),
        ];
        let answer =
            Reply { to_tag: Some(token), headers: &headers, copies_record_route: true, ..Reply::status(200) };
        match is_held {
            true => self.accept_when_stored(request, &answer),
            false => self.answer(request, answer, ""),
        }
    }

    /// A SUBSCRIBE in a dialog of ours: refreshes it, or ends it (RFC 6665 §4.2.1.1).
    pub(super) fn handle_resubscribe(
        &mut self,
        at: u32,
        request: &SipRequest,
        subscribe: &Subscribe,
        now: Now,
    ) {
        let longest = self.longest_expires(request);
        if let Some(id) = self.dialogs.dialog(at).map(|dialog| dialog.pair) {
            self.freshen(id, now);
        }
        let Some(dialog) = self.dialogs.dialog_mut(at).filter(|dialog| !dialog.is_ending()) else {
            return self.answer(request, Reply::status(481), "no such dialog");
        };
        if subscribe.cseq <= dialog.remote_cseq {
            return self.answer(request, Reply::status(500), "the CSeq is lower than the last");
        }
        dialog.remote_cseq = subscribe.cseq;
        let is_elsewhere = subscribe.contact.as_deref().is_some_and(|target| dialog.refresh_target(target));
        let (id, row, watch) = (dialog.pair, dialog.row, dialog.watch);
        let expires = subscribe.expires.unwrap_or(tombolo_sip::event::DEFAULT_EXPIRES).min(longest);
        let token = self.dialog_token(id, row);
        if expires == 0 {
            // A restart must not bring back what the watcher was told has ended.
            self.end_dialog(at, Reason::Timeout, now);
            return self.answer_subscribe(request, &token, expires, true);
        }
        let time = self.time(now);
        if let Some(dialog) = self.dialogs.dialog_mut(at) {
            dialog.expires_at = u32::try_from(time).unwrap_or(u32::MAX).saturating_add(expires);
        }
        self.arm_expiry(at, now);
        if is_elsewhere {
            self.keep_dialog_row(at);
        }
        // A plain refresh is stored behind its answer.
        self.keep_numbers(at);
        self.answer_subscribe(request, &token, expires, is_elsewhere);
        self.shard.mark_whole(watch);
        self.send_soon(at);
        if let Some(pair) = self.pairs.pair(id)
            && pair.subscription.is_to()
            && pair.has(mark::STALE)
        {
            self.probe(id);
        }
    }

    /// A SUBSCRIBE with Expires 0 outside a dialog: one answer of what is known (RFC 8048 §7.2).
    ///
    /// A stranger and a watcher of somebody who is offline get the same document (STOX-P-35).
    fn poll(
        &mut self,
        request: &SipRequest,
        subscribe: &Subscribe,
        user: &Address,
        contact: &Address,
        watches_user: bool,
    ) {
        let known = self.find_pair(user.as_str(), contact.as_str());
        let pair = known.and_then(|id| self.pairs.pair(id));
        let known_state = match pair {
            Some(pair) if watches_user && pair.may_see() => self.user_state(pair.user, pair),
            Some(pair) if !watches_user && pair.subscription.is_to() => {
                self.shard.views.content(pair.heard).clone()
            }
            _ => PresenceState::default(),
        };
        let is_unheard = !watches_user
            && pair.is_some_and(|pair| pair.subscription.is_to() && pair.heard == ViewId::EMPTY);
        let state = match known_state {
            _ if is_unheard => None,
            open if open.is_open() => Some(open),
            _ => Some(offline_state()),
        };
        let must_probe = pair.is_some_and(|pair| {
            !watches_user
                && pair.subscription.is_to()
                && (pair.heard == ViewId::EMPTY || pair.has(mark::STALE))
        });
        let row = self.new_row();
        let partition = user.partition();
        let token = super::key(&self.settings).sign(Token { kind: TokenKind::Notifier, partition, row });
        self.answer_subscribe(request, &token, 0, false);
        let presentity = if watches_user { user } else { contact };
        self.notify_poll(request, subscribe, &token, presentity, state.as_ref());
        if must_probe && let Some(id) = known {
            self.probe(id);
        }
    }

    pub(super) fn refuse_watch(
        &mut self,
        watch: &WatchRequest,
        status: u16,
        reason: &'static str,
        _now: Now,
    ) {
        let retry = [("Retry-After", "5".to_owned())];
        let headers: &[_] = if status == 500 { &retry } else { &[] };
        self.answer(&watch.request, Reply { headers, ..Reply::status(status) }, reason);
    }

    /// Accepts a request when the rows in `lazy` are stored. To be called right after they were put there, so that what is
    /// acknowledged is not forgotten by a restart.
    pub(super) fn accept_when_stored(&mut self, request: &SipRequest, answer: &Reply<'_>) {
        if let Some(bytes) = reply(&request.message, answer) {
            self.held.push(Output::Respond { peer: request.peer.clone(), reply: request.reply, bytes });
        }
    }

    /// Answers a request, and counts it when it is a refusal.
    pub(super) fn answer(&mut self, request: &SipRequest, answer: Reply<'_>, reason: &'static str) {
        if answer.status >= 300 {
            let (method, identity) = (request.message.method().cloned(), request.identity.clone());
            self.event(OwnerEvent::RequestRefused { method, identity, status: answer.status, reason });
        }
        if let Some(bytes) = reply(&request.message, &answer) {
            self.out.push_back(Output::Respond { peer: request.peer.clone(), reply: request.reply, bytes });
        }
    }

    /// The text that our tag in this dialog is.
    pub(super) fn dialog_token(&self, id: PairId, row: u64) -> String {
        let partition = self.pairs.pair(id).map_or(0, |pair| self.addresses.partition(pair.user));
        super::key(&self.settings).sign(Token { kind: TokenKind::Notifier, partition, row })
    }

    pub(super) fn names_of(&self, id: PairId) -> (Address, Address) {
        let pair = self.pairs.pair(id).expect("the caller holds a live pair");
        (self.addresses.address(pair.user).clone(), self.addresses.address(pair.contact).clone())
    }

    /// Gives a dialog's watch the view that it may see now.
    pub(super) fn refresh_dialog_view(&mut self, at: u32) {
        let Some(dialog) = self.dialogs.dialog(at) else { return };
        let Some(pair) = self.pairs.pair(dialog.pair) else { return };
        let (watch, phase, watches_user) = (dialog.watch, dialog.phase, dialog.watches_user);
        let view = match phase {
            Phase::Active if watches_user && !pair.may_see() => ViewId::EMPTY,
            Phase::Active if watches_user => {
                self.users.get(&pair.user).map_or(ViewId::EMPTY, |user| user.view)
            }
            Phase::Active => pair.heard,
            Phase::Pending | Phase::Ending(_) => ViewId::EMPTY,
        };
        self.shard.handle_change(watch, view);
    }

    /// The contact granted: every dialog of the user turns active.
    pub(super) fn show_contact(&mut self, id: PairId, now: Now) {
        self.activate_dialogs(id, false, now);
    }

    /// The user granted to a local watcher.
    pub(super) fn show_user_to_dialogs(&mut self, id: PairId, now: Now) {
        self.activate_dialogs(id, true, now);
    }

    fn activate_dialogs(&mut self, id: PairId, watches_user: bool, _now: Now) {
        for at in self.dialogs_of(id, watches_user) {
            let Some(dialog) = self.dialogs.dialog_mut(at) else { continue };
            if dialog.phase == Phase::Pending {
                dialog.phase = Phase::Active;
                let watch = dialog.watch;
                self.refresh_dialog_view(at);
                self.shard.mark_whole(watch);
                self.send_soon(at);
            }
        }
    }

    /// The contact refused, or took back: every dialog of the user ends.
    pub(super) fn end_watchers(&mut self, id: PairId, reason: Reason, retry_after: Option<u32>, now: Now) {
        for at in self.dialogs_of(id, false) {
            self.end_dialog(at, reason, now);
            if let Some(dialog) = self.dialogs.dialog_mut(at) {
                dialog.expires_at = retry_after.unwrap_or(0);
            }
        }
        self.end_probe(id);
        let Some(pair) = self.pairs.pair_mut(id) else { return };
        let old = std::mem::replace(&mut pair.heard, ViewId::EMPTY);
        // What a later watch hears first is of one device, and says nothing of the others.
        pair.set(mark::STALE, pair.subscription.is_to());
        self.shard.views.hold(ViewId::EMPTY);
        self.account_state(id, old, ViewId::EMPTY);
        self.shard.views.release(old);
    }

    /// The user refused a local watcher.
    pub(super) fn end_contact_watchers(&mut self, id: PairId, reason: Reason, now: Now) {
        for at in self.dialogs_of(id, true) {
            self.end_dialog(at, reason, now);
        }
    }

    pub(super) fn dialogs_of(&self, id: PairId, watches_user: bool) -> Vec<u32> {
        let mut found = Vec::new();
        let mut next = self.pairs.pair(id).map_or(NO_DIALOG, |pair| pair.first_dialog);
        while let Some(dialog) = self.dialogs.dialog(next) {
            if dialog.watches_user == watches_user {
                found.push(next);
            }
            next = dialog.next;
        }
        found
    }
}

/// What a poll says of somebody who is not available, for whatever cause: closed, and nothing that tells which device it
/// was or what it said last.
fn offline_state() -> PresenceState {
    let device = Device {
        id: "".into(),
        availability: Availability::Unavailable,
        priority: None,
        notes: Vec::new(),
        idle_since: None,
    };
    PresenceState { devices: vec![device], ..PresenceState::default() }
}

/// A front end asks for a user of its own domain: what we sent there would only come back (STOX-A-04).
pub fn came_back(request: &SipRequest, target: &Address) -> bool {
    matches!(&request.peer, super::PeerKey::FrontEnd(domain) if domain.as_str() == target.domain())
}

/// Why nothing passes between two of our users of whom one lives behind a front end.
pub const HOMES_NOT_JOINED: &str =
    "home: between two local users nothing is relayed unless both homes are built-in";

/// When a watcher for whom the process has no memory should ask again.
const MEMORY_RETRY_SECONDS: u32 = 120;
/// When somebody over a limit should ask again.
const LIMIT_RETRY_SECONDS: u32 = 600;

/// Tells a dialog's number from a pair's where the shard keeps one of either.
pub const DIALOG_BIT: u32 = 1 << 31;

/// An empty route set costs nothing.
pub fn share_routes(routes: &[String]) -> Option<Routes> {
    (!routes.is_empty()).then(|| Arc::new(routes.iter().map(|route| route.as_str().into()).collect()))
}
