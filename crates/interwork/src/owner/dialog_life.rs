//! How long a dialog lives in which somebody is notified: its beginning, its expiry, its last NOTIFY, its end; and how
//! many there may be.

use std::time::Duration;

use tombolo_fanout::ViewId;
use tombolo_presence::{Address, Now};
use tombolo_sip::event::Reason;

use super::{
    LaneKey, Owner, PeerKey, Timer,
    dialogs::{Dialog, DialogTexts, Phase, Routes},
    input::SipRequest,
    pairs::{NO_DIALOG, PairId},
    watchers::DIALOG_BIT,
};
use crate::{
    presence_to_xmpp::bare_presence,
    rows::{Row, number_key, table},
    token::{Token, TokenKind},
};

/// When a watcher whose request nobody answered should ask again.
const GIVE_UP_RETRY_SECONDS: u32 = 3600;

impl Owner {
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
        let token = Token { kind: TokenKind::Notifier, partition: self.addresses.partition(pair.user), row };
        let mac = self.settings.key.mac(token);
        let mut dialog = Dialog::new(row, id, tombolo_fanout::WatchId::default(), lane, mac, &texts)?;
        dialog.watches_user = watches_user;
        dialog.routes = routes;
        dialog.phase = if is_granted { Phase::Active } else { Phase::Pending };
        dialog.next = first;
        dialog.expires_at = u32::try_from(expires_at).unwrap_or(u32::MAX);
        let give_up_at = self.time(now) + self.settings.pending_for.as_secs();
        dialog.give_up_at = u32::try_from(give_up_at).unwrap_or(u32::MAX);
        let at = self.dialogs.insert(dialog);
        self.lanes.lane_mut(lane).dialogs += 1;
        self.count_dialog(id, 1);
        let watch = self.shard.insert(lane, at | DIALOG_BIT);
        self.dialogs.dialog_mut(at)?.watch = watch;
        self.arm_expiry(at, now);
        self.pairs.pair_mut(id)?.first_dialog = at;
        Some(at)
    }

    /// Sets the timer for the end of a dialog, or for when its watcher has waited long enough.
    pub(super) fn arm_expiry(&mut self, at: u32, now: Now) {
        let time = self.time(now);
        let Some(dialog) = self.dialogs.dialog_mut(at) else { return };
        let is_pending = dialog.phase == Phase::Pending;
        let deadline = if is_pending { dialog.expires_at.min(dialog.give_up_at) } else { dialog.expires_at };
        let left = Duration::from_secs(u64::from(deadline).saturating_sub(time));
        if let Some(old) = dialog.expiry.take() {
            self.wheel.cancel(old);
        }
        dialog.expiry = Some(self.wheel.insert(now.instant + left, Timer::DialogExpiry(at)));
    }

    pub(super) fn handle_dialog_expired(&mut self, at: u32, now: Now) {
        let time = self.time(now);
        let Some(dialog) = self.dialogs.dialog_mut(at) else { return };
        dialog.expiry = None;
        if dialog.is_ending() {
            return self.drop_dialog(at);
        }
        if dialog.give_up_at >= dialog.expires_at || u64::from(dialog.expires_at) <= time {
            return self.end_dialog(at, Reason::Timeout, now);
        }
        if dialog.phase != Phase::Pending {
            return self.arm_expiry(at, now);
        }
        // STOX-P-37: nobody answered in all that time. The watcher may ask again later, by another dialog. The contact
        // is not told: the request that waits there still counts, and the grant will be kept.
        self.end_dialog(at, Reason::GiveUp, now);
        if let Some(dialog) = self.dialogs.dialog_mut(at) {
            dialog.expires_at = GIVE_UP_RETRY_SECONDS;
        }
    }

    /// Begins the end of a dialog: its last NOTIFY is due, and nothing after it.
    ///
    /// A watcher that ended it, or let it run out, knows. Any other must learn of it: until it did, the row stays, and
    /// a phone that is away keeps its dialog for as long as it believes in it.
    pub(super) fn end_dialog(&mut self, at: u32, reason: Reason, now: Now) {
        let time = self.time(now);
        let Some(dialog) = self.dialogs.dialog_mut(at) else { return };
        if dialog.is_ending() {
            return;
        }
        let left = Duration::from_secs(u64::from(dialog.expires_at).saturating_sub(time));
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
        self.lanes.lane_mut(dialog.lane).dialogs -= 1;
        self.count_dialog(dialog.pair, -1);
        for timer in [dialog.expiry, dialog.activity].into_iter().flatten() {
            self.wheel.cancel(timer);
        }
        self.shard.remove(dialog.watch);
        self.lanes.drop_if_unused(dialog.lane, &mut self.shard);
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

    fn count_dialog(&mut self, id: PairId, change: i32) {
        let user = self.pairs.pair(id).map(|pair| pair.user);
        if let Some(user) = user.and_then(|user| self.users.get_mut(&user)) {
            user.dialogs = user.dialogs.saturating_add_signed(change);
        }
    }

    /// SIP-E-30: why one more dialog is too many, if it is. Limits hold for each user, for each pair, and for each
    /// phone; a front end is bounded by its users.
    pub(super) fn is_over_limit(
        &self,
        user: &Address,
        contact: &Address,
        watches_user: bool,
        request: &SipRequest,
    ) -> Option<&'static str> {
        let limits = &self.settings.watch_limits;
        let known = self.addresses.find(user.as_str()).and_then(|user| self.users.get(&user));
        if known.is_some_and(|known| known.dialogs >= limits.of_user) {
            return Some("too many dialogs of one user");
        }
        let pair = self.find_pair(user.as_str(), contact.as_str());
        if pair.is_some_and(|pair| self.count_dialogs(pair) >= limits.of_pair) {
            return Some("too many dialogs of one watcher to one presentity");
        }
        if let PeerKey::Phone(_) = request.peer {
            let lane = self.lanes.ids.get(&LaneKey::Peer(request.peer.clone()));
            if lane.is_some_and(|lane| self.lanes.lane(*lane).dialogs >= limits.of_phone) {
                return Some("too many dialogs of one phone");
            }
        }
        if pair.is_none() && known.is_some_and(|known| known.pairs.len() >= self.settings.pairs_per_user) {
            return Some("too many contacts of one user");
        }
        if pair.is_none() && self.is_partner_full(contact) {
            return Some("too many contacts of one partner");
        }
        // Strangers who wait take no room from the user's own requests.
        if watches_user && pair.is_none() && self.count_waiting(user) >= self.settings.pending_per_user {
            return Some("too many watchers wait for the user");
        }
        None
    }

    fn count_dialogs(&self, id: PairId) -> usize {
        self.dialogs_of(id, true).len() + self.dialogs_of(id, false).len()
    }

    fn forget_dialog_rows(&mut self, id: PairId, row: u64) {
        let Some(pair) = self.pairs.pair(id) else { return };
        let partition = self.addresses.address(pair.user).partition();
        for table in [table::NOTIFIER, table::VOLATILE] {
            self.lazy.push(Row { partition, table, key: number_key(row), value: None });
        }
    }
}

/// A URI as a dialog keeps it: not at all when it is `sip:` and `address`, which the dialog's pair keeps.
fn unless_plain<'a>(uri: &'a str, address: &Address) -> &'a str {
    if uri.strip_prefix("sip:") == Some(address.as_str()) { "" } else { uri }
}
