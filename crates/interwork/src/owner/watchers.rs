//! SIP users who watch: SUBSCRIBE for presence, from a phone or by way of a front end (RFC 6665 §4.2, RFC 8048 §5.3).
//!
//! A dialog belongs to a pair. Mostly the pair's user watches the contact; where both ends are local, the dialog
//! stands in the presentity's pair and watches the user.

use std::{sync::Arc, time::Duration};

use tombolo_fanout::ViewId;
use tombolo_presence::{Address, Now, PresenceState, SubscriptionKind};
use tombolo_sip::event::Reason;

use super::{
    Owner, Timer,
    dialogs::{Dialog, DialogTexts, Phase, Routes},
    input::SipRequest,
    output::{Output, OwnerEvent},
    pairs::{NO_DIALOG, PairId, mark},
    plan::{Control, Effect, Plan},
};
use crate::{
    presence_to_xmpp::bare_presence,
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
        let watches_user = self.policy.local_domain(target.domain()).is_some();
        let (user, contact) = if watches_user { (&target, &watcher) } else { (&watcher, &target) };
        if watches_user && !self.accounts.approve.contains_key(user) {
            return self.answer(&request, Reply::status(404), "there is no such local user");
        }
        let verdict = self.verdict(user, contact, watches_user);
        if !verdict.may_watch_contact {
            return self.answer(
                &request,
                Reply::status(403),
                "the policy does not let the user watch that domain",
            );
        }
        let longest = self.longest_expires(&request);
        let asked = subscribe.expires.unwrap_or(tombolo_sip::event::DEFAULT_EXPIRES);
        if asked == 0 {
            return self.poll(&request, &subscribe, user, contact, watches_user, now);
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
        let Some(id) = self.find_or_add_pair(user, contact) else {
            return self.answer(&request, Reply::status(400), "the addresses cannot be a pair");
        };
        let row = self.new_row();
        let expires = asked.min(longest);
        let watch = WatchRequest { request, subscribe, watches_user, expires, row };
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
            expires_at: now.unix_seconds() + u64::from(watch.expires),
        };
        Row {
            partition: user.partition(),
            table: table::NOTIFIER,
            key: number_key(watch.row),
            value: Some(encode(&value)),
        }
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
        let expires_at = now.unix_seconds() + u64::from(watch.expires);
        let routes = share_routes(&subscribe.routes);
        let Some(at) =
            self.add_dialog(id, watch.row, lane, &texts, routes, watch.watches_user, expires_at, now)
        else {
            return self.answer(&watch.request, Reply::status(400), "the dialog's texts are too long");
        };
        if let Some(dialog) = self.dialogs.dialog_mut(at) {
            dialog.remote_cseq = subscribe.cseq;
        }
        let token = self.dialog_token(id, watch.row);
        self.answer_subscribe(&watch.request, &token, watch.expires);
        // The first NOTIFY is due whatever it says (RFC 6665 §4.2.1.2).
        self.refresh_dialog_view(at);
        if let Some(dialog) = self.dialogs.dialog(at) {
            self.shard.mark_whole(dialog.watch);
        }
    }

    fn answer_subscribe(&mut self, request: &SipRequest, token: &str, expires: u32) {
        let headers = [
            ("Expires", expires.to_string()),
            ("Contact", format!("<sip:{token}@{}>", request.way.contact)),
            ("Allow-Events", "presence".to_owned()),
        ];
        let answer =
            Reply { to_tag: Some(token), headers: &headers, copies_record_route: true, ..Reply::status(200) };
        self.answer(request, answer, "");
    }

    /// Adds a dialog to its pair; its place. `None` when its texts are too long.
    #[expect(clippy::too_many_arguments, reason = "a dialog is what all of these make together")]
    pub(super) fn add_dialog(
        &mut self,
        id: PairId,
        row: u64,
        lane: tombolo_fanout::LaneId,
        texts: &DialogTexts<'_>,
        routes: Option<Routes>,
        watches_user: bool,
        expires_at: u64,
        now: Now,
    ) -> Option<u32> {
        let pair = self.pairs.pair(id)?;
        let first = pair.first_dialog;
        let (watcher, presentity) =
            if watches_user { (pair.contact, pair.user) } else { (pair.user, pair.contact) };
        let texts = DialogTexts {
            remote_uri: unless_plain(texts.remote_uri, self.addresses.address(watcher)),
            local_uri: unless_plain(texts.local_uri, self.addresses.address(presentity)),
            ..*texts
        };
        let is_granted = if watches_user { pair.subscription.is_from() } else { pair.subscription.is_to() };
        let mut dialog = Dialog::new(row, id, tombolo_fanout::WatchId::default(), lane, &texts)?;
        dialog.watches_user = watches_user;
        dialog.routes = routes;
        dialog.phase = if is_granted { Phase::Active } else { Phase::Pending };
        dialog.next = first;
        dialog.expires_at = u32::try_from(expires_at).unwrap_or(u32::MAX);
        let at = self.dialogs.insert(dialog);
        let watch = self.shard.insert(lane, at | DIALOG_BIT);
        let left = Duration::from_secs(expires_at.saturating_sub(now.unix_seconds()));
        let expiry = self.wheel.insert(now.instant + left, Timer::DialogExpiry(at));
        let dialog = self.dialogs.dialog_mut(at)?;
        dialog.watch = watch;
        dialog.expiry = Some(expiry);
        self.pairs.pair_mut(id)?.first_dialog = at;
        Some(at)
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
        let Some(dialog) = self.dialogs.dialog_mut(at) else {
            return self.answer(request, Reply::status(481), "no such dialog");
        };
        if subscribe.cseq <= dialog.remote_cseq {
            return self.answer(request, Reply::status(500), "the CSeq is lower than the last");
        }
        dialog.remote_cseq = subscribe.cseq;
        if let Some(target) = &subscribe.contact {
            dialog.refresh_target(target);
        }
        let (id, row, watch) = (dialog.pair, dialog.row, dialog.watch);
        let expires = subscribe.expires.unwrap_or(tombolo_sip::event::DEFAULT_EXPIRES).min(longest);
        let token = self.dialog_token(id, row);
        self.answer_subscribe(request, &token, expires);
        if expires == 0 {
            return self.end_dialog(at, Reason::Timeout, now);
        }
        if let Some(dialog) = self.dialogs.dialog_mut(at) {
            let old = dialog.expiry.take();
            dialog.expires_at = u32::try_from(now.unix_seconds()).unwrap_or(u32::MAX).saturating_add(expires);
            old.map(|timer| self.wheel.cancel(timer));
            let left = Duration::from_secs(u64::from(expires));
            dialog.expiry = Some(self.wheel.insert(now.instant + left, Timer::DialogExpiry(at)));
        }
        self.shard.mark_whole(watch);
        self.send_soon(at);
        if let Some(pair) = self.pairs.pair(id)
            && pair.subscription.is_to()
            && pair.has(mark::STALE)
        {
            self.probe(id, now);
        }
    }

    /// A SUBSCRIBE with Expires 0 outside a dialog: one answer of what is known (RFC 8048 §7.2).
    fn poll(
        &mut self,
        request: &SipRequest,
        subscribe: &Subscribe,
        user: &Address,
        contact: &Address,
        watches_user: bool,
        now: Now,
    ) {
        let known = self.find_pair(user, contact);
        let pair = known.and_then(|id| self.pairs.pair(id));
        // STOX-P-35: a stranger learns nothing, and no row is made.
        let state = match pair {
            Some(pair) if watches_user && pair.subscription.is_from() => self.user_state(pair.user, pair),
            Some(pair) if !watches_user && pair.subscription.is_to() => {
                self.shard.views.content(pair.heard).clone()
            }
            _ => PresenceState::default(),
        };
        let must_probe = pair.is_some_and(|pair| {
            !watches_user
                && pair.subscription.is_to()
                && (pair.heard == ViewId::EMPTY || pair.has(mark::STALE))
        });
        let row = self.new_row();
        let partition = user.partition();
        let token = super::key(&self.settings).sign(Token { kind: TokenKind::Notifier, partition, row });
        self.answer_subscribe(request, &token, 0);
        let presentity = if watches_user { user } else { contact };
        self.notify_poll(request, subscribe, &token, presentity, &state);
        if must_probe && let Some(id) = known {
            self.probe(id, now);
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

    /// Answers a request, and counts it when it is a refusal.
    pub(super) fn answer(&mut self, request: &SipRequest, answer: Reply<'_>, reason: &'static str) {
        if answer.status >= 300 {
            self.event(OwnerEvent::RequestRefused { status: answer.status, reason });
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
        let Some(pair) = self.pairs.pair_mut(id) else { return };
        let old = std::mem::replace(&mut pair.heard, ViewId::EMPTY);
        pair.set(mark::STALE | mark::PROBE | mark::PROBING, false);
        self.shard.views.hold(ViewId::EMPTY);
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

    /// Begins the end of a dialog: its last NOTIFY is due, and nothing after it.
    ///
    /// A watcher that ended it, or let it run out, knows. Any other must learn of it: until it did, the row stays, and
    /// a phone that is away keeps its dialog for as long as it believes in it.
    pub(super) fn end_dialog(&mut self, at: u32, reason: Reason, now: Now) {
        let Some(dialog) = self.dialogs.dialog_mut(at) else { return };
        if dialog.is_ending() {
            return;
        }
        let left = Duration::from_secs(u64::from(dialog.expires_at).saturating_sub(now.unix_seconds()));
        dialog.expires_at = 0;
        dialog.phase = Phase::Ending(reason);
        let (watch, id, row, watches_user) = (dialog.watch, dialog.pair, dialog.row, dialog.watches_user);
        let (lane, expiry) = (dialog.lane, dialog.expiry.take());
        if let Some(timer) = expiry {
            self.wheel.cancel(timer);
        }
        let waits_for_phone = reason != Reason::Timeout && self.lanes.lane(lane).way.is_none();
        // If the last NOTIFY cannot leave in time, the dialog goes all the same.
        let patience = if waits_for_phone { left } else { self.settings.notify_timeout };
        let timer = self.wheel.insert(now.instant + patience, Timer::DialogExpiry(at));
        if let Some(dialog) = self.dialogs.dialog_mut(at) {
            dialog.expiry = Some(timer);
        }
        if reason == Reason::Timeout {
            self.forget_dialog_rows(id, row);
        }
        self.shard.handle_change(watch, ViewId::EMPTY);
        self.shard.mark_whole(watch);
        self.send_soon(at);
        if !watches_user && reason == Reason::Timeout {
            self.tell_unwatched(id);
        }
    }

    fn forget_dialog_rows(&mut self, id: PairId, row: u64) {
        let Some(pair) = self.pairs.pair(id) else { return };
        let partition = self.addresses.address(pair.user).partition();
        for table in [table::NOTIFIER, table::VOLATILE] {
            self.lazy.push(Row { partition, table, key: number_key(row), value: None });
        }
    }

    /// The user's last watch of the contact ended: a contact who does not see the user by right is told that the
    /// user is gone (STOX-P-31, STOX-P-32, D-03).
    fn tell_unwatched(&mut self, id: PairId) {
        let still_watching = self
            .dialogs_of(id, false)
            .into_iter()
            .any(|at| self.dialogs.dialog(at).is_some_and(|dialog| !dialog.is_ending()));
        let Some(pair) = self.pairs.pair(id) else { return };
        if still_watching || pair.is_local() || !pair.subscription.is_to() || pair.subscription.is_from() {
            return;
        }
        let (user, contact) = self.names_of(id);
        let mut bytes = Vec::new();
        bare_presence("unavailable", user.as_str(), contact.as_str(), &mut bytes);
        self.say(&user, &contact, bytes);
    }

    /// Takes a dialog out for good.
    pub(super) fn drop_dialog(&mut self, at: u32) {
        let Some(dialog) = self.dialogs.remove(at) else { return };
        for timer in [dialog.expiry, dialog.activity].into_iter().flatten() {
            self.wheel.cancel(timer);
        }
        self.shard.remove(dialog.watch);
        let mut previous = NO_DIALOG;
        let mut next = self.pairs.pair(dialog.pair).map_or(NO_DIALOG, |pair| pair.first_dialog);
        while next != NO_DIALOG && next != at {
            previous = next;
            next = self.dialogs.dialog(next).map_or(NO_DIALOG, |dialog| dialog.next);
        }
        match self.dialogs.dialog_mut(previous) {
            Some(before) => before.next = dialog.next,
            None => {
                if let Some(pair) = self.pairs.pair_mut(dialog.pair) {
                    pair.first_dialog = dialog.next;
                }
            }
        }
        if dialog.phase != Phase::Ending(Reason::Timeout) {
            self.forget_dialog_rows(dialog.pair, dialog.row);
        }
        self.drop_if_idle(dialog.pair);
    }
}

/// Tells a dialog's number from a pair's where the shard keeps one of either.
pub const DIALOG_BIT: u32 = 1 << 31;

/// An empty route set costs nothing.
pub fn share_routes(routes: &[String]) -> Option<Routes> {
    (!routes.is_empty()).then(|| Arc::new(routes.iter().map(|route| route.as_str().into()).collect()))
}

/// A URI as a dialog keeps it: not at all when it is `sip:` and `address`, which the dialog's pair keeps.
fn unless_plain<'a>(uri: &'a str, address: &Address) -> &'a str {
    if uri.strip_prefix("sip:") == Some(address.as_str()) { "" } else { uri }
}
