//! What a shard finds in the store when it begins, and what it stores as time passes.
//!
//! A restart asks nobody again and makes no new dialog where one is alive: what is due is said once more, every watch
//! is owed its whole state, contacts with an open watcher are probed, and each dialog in which we are the subscriber
//! is refreshed once, a window of them at a time (STOX-P-22, STOX-P-23).

use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use tombolo_fanout::ViewId;
use tombolo_presence::Now;
use tombolo_sip::event::{Reason, subscriber::Subscriber};

use super::{
    Owner, PeerKey, Timer,
    dialogs::{Dialog, DialogTexts},
    pairs::mark,
    upstream::{RemoteSide, Upstream},
    watchers::share_routes,
};
use crate::rows::{
    CSEQ_RAISE, NotifierRow, PairRow, PublicationRow, Row, SubscriberRow, VolatileRow, decode, encode,
    number_key, number_of_key, pair_of_key, table,
};

impl Owner {
    /// Takes the stored rows of the shard's partitions, once, before any input. Gives the number of rows that could
    /// not be read; they are left as they are.
    pub fn load(&mut self, rows: Vec<Row>, now: Now) -> usize {
        let mut unread = 0;
        let mut numbers: HashMap<u64, VolatileRow, RandomState> = HashMap::default();
        for row in rows.iter().filter(|row| row.table == table::VOLATILE) {
            let value = row.value.as_deref().and_then(decode);
            match (number_of_key(&row.key), value) {
                (Some(number), Some(value)) => drop(numbers.insert(number, value)),
                _ => unread += 1,
            }
        }
        // Pairs first: everything else hangs on them.
        for wanted in [table::PAIR, table::PUBLICATION, table::NOTIFIER, table::SUBSCRIBER] {
            for row in rows.iter().filter(|row| row.table == wanted) {
                let Some(value) = row.value.as_deref() else { continue };
                let is_read = match wanted {
                    table::PAIR => self.load_pair(&row.key, value),
                    table::PUBLICATION => {
                        PublicationRow::read(value).map(|row| self.restore_publication(row, now)).is_some()
                    }
                    table::NOTIFIER => self.load_notifier(&row.key, value, &numbers, now),
                    _ => self.load_subscriber(&row.key, value, &numbers, now),
                };
                unread += usize::from(!is_read);
            }
        }
        // Numbers of dialogs that are no more.
        let dialogs: HashSet<&[u8], RandomState> =
            rows.iter().filter(|row| is_dialog(row.table)).map(|row| &row.key[..]).collect();
        for row in rows.iter().filter(|row| row.table == table::VOLATILE) {
            if !dialogs.contains(&row.key[..]) {
                self.lazy.push(Row { value: None, ..row.clone() });
            }
        }
        if unread > 0 {
            self.settings.knows_all_grants = false;
        }
        self.resume(now);
        if self.is_successor {
            // The next successor must find what this one begins with.
            self.write_numbers(now);
        }
        self.finish_turn(now);
        unread
    }

    fn load_pair(&mut self, key: &[u8], value: &[u8]) -> bool {
        let (Some((user, contact)), Some(row)) = (pair_of_key(key), decode::<PairRow>(value)) else {
            return false;
        };
        let Some(id) = self.find_or_add_pair(&user, &contact) else { return false };
        self.take_row(id, &row);
        if let Some(pair) = self.pairs.pair_mut(id) {
            pair.set(mark::STALE, pair.subscription.is_to());
            if pair.subscription.is_pending_out() && pair.asking.is_none() {
                // Asked and never answered: said again, a repetition is harmless (RFC 6121 §A.3.1).
                pair.asking = Some(tombolo_presence::SubscriptionKind::Subscribe);
            }
        }
        true
    }

    fn load_notifier(
        &mut self,
        key: &[u8],
        value: &[u8],
        numbers: &HashMap<u64, VolatileRow, RandomState>,
        now: Now,
    ) -> bool {
        let (Some(number), Some(row)) = (number_of_key(key), decode::<NotifierRow>(value)) else {
            return false;
        };
        let Some(id) = self.find_or_add_pair(&row.user, &row.contact) else { return false };
        let volatile = numbers.get(&number);
        // A refresh is stored a moment after it was answered, so one may be missing. Whose dialog seems to have run out has a
        // short while to show that it did not.
        let longest = match row.peer {
            PeerKey::FrontEnd(_) => self.settings.front_end_expires,
            PeerKey::Phone(_) => self.settings.phone_expires,
        };
        let stored = volatile.map_or(row.expires_at, |volatile| volatile.expires_at);
        let expires_at = match self.may_be_alive(stored, longest, now) {
            true if stored <= self.time(now) => self.time(now) + LEFT_OVER,
            true => stored,
            false => stored,
        };
        let lane = self.peer_lane(&row.peer);
        let texts = DialogTexts {
            call_id: &row.call_id,
            remote_tag: &row.remote_tag,
            remote_uri: &row.remote_uri,
            local_uri: &row.local_uri,
            remote_target: &row.remote_target,
            event_id: row.event_id.as_deref().unwrap_or_default(),
        };
        let routes = share_routes(&row.routes);
        let raised = self.raised_cseq(number, volatile, 0);
        let Some(at) = self.add_dialog(id, number, lane, &texts, routes, row.watches_user, expires_at, now)
        else {
            self.lanes.drop_if_unused(lane, &mut self.shard);
            self.drop_if_idle(id);
            return false;
        };
        if let Some(dialog) = self.dialogs.dialog_mut(at) {
            dialog.local_cseq = raised;
            dialog.remote_cseq = volatile.map_or(0, |volatile| volatile.remote_cseq);
        }
        true
    }

    fn load_subscriber(
        &mut self,
        key: &[u8],
        value: &[u8],
        numbers: &HashMap<u64, VolatileRow, RandomState>,
        now: Now,
    ) -> bool {
        let (Some(number), Some(row)) = (number_of_key(key), decode::<SubscriberRow>(value)) else {
            return false;
        };
        let volatile = numbers.get(&number);
        let (stored, time) =
            (volatile.map_or(row.expires_at, |volatile| volatile.expires_at), self.time(now));
        if stored <= time && !self.may_be_alive(stored, self.settings.front_end_expires, now) {
            // It ran out: a new dialog is made with the others that are missing.
            for table in [table::SUBSCRIBER, table::VOLATILE] {
                let (partition, key) = (row.user.partition(), key.to_vec());
                self.lazy.push(Row { partition, table, key, value: None });
            }
            return true;
        }
        let Some(id) = self.find_or_add_pair(&row.user, &row.contact) else { return false };
        // One that a refresh may have prolonged since is refreshed once more, and 481 decides.
        let left = match stored.checked_sub(time) {
            None | Some(0) => u64::from(self.settings.front_end_expires),
            Some(left) => left,
        };
        let ends_at = now.instant + Duration::from_secs(left);
        // Its turn comes much earlier, with all others.
        let refresh_at = now.instant + (ends_at - now.instant) / 2;
        let upstream = Upstream {
            row: number,
            pair: id,
            peer: row.peer.clone(),
            machine: Subscriber::restored(
                self.settings.front_end_expires,
                true,
                ends_at,
                refresh_at,
                volatile.map(|volatile| volatile.remote_cseq),
            ),
            call_id: row.call_id,
            local_cseq: self.raised_cseq(number, volatile, 1),
            dialog: Some(Box::new(RemoteSide {
                tag: row.remote_tag,
                target: row.remote_target,
                routes: share_routes(&row.routes),
            })),
            view: self.shard.views.hold(ViewId::EMPTY),
            timer: None,
            resumes_at: 0,
        };
        let at = self.upstreams.insert(upstream);
        let timer = self.wheel.insert(refresh_at, Timer::Upstream(at));
        if let Some(upstream) = self.upstreams.upstream_mut(at) {
            upstream.timer = Some(timer);
        }
        if let Some(pair) = self.pairs.pair_mut(id) {
            pair.upstream = at;
        }
        true
    }

    /// What ends at `stored` was alive when rows were stored last, and a refresh since then may have prolonged it up to
    /// now, by `longest` seconds at most.
    fn may_be_alive(&self, stored: u64, longest: u32, now: Now) -> bool {
        let last_mark = self.lifetimes.last_mark();
        let late = self.settings.flush_interval.as_secs();
        stored > last_mark && self.time(now) < last_mark + u64::from(longest) + late
    }

    /// A CSeq above all that an earlier life of the process can have used in a dialog, which it stores now and then
    /// only (D-26). `first` is what a dialog has used that was never stored again.
    fn raised_cseq(&self, number: u64, volatile: Option<&VolatileRow>, first: u32) -> u32 {
        let (start, stored) =
            volatile.map_or(((number >> 32) as u32, first), |volatile| (volatile.start, volatile.local_cseq));
        let starts = self.settings.start.saturating_sub(start).max(1) + u32::from(self.is_successor);
        stored.saturating_add(starts.saturating_mul(CSEQ_RAISE))
    }

    /// Everything that was loaded goes on.
    fn resume(&mut self, now: Now) {
        self.end_users_without_account(now);
        let ids: Vec<_> = self.pairs.iter().map(|(id, _)| id).collect();
        for id in ids {
            // What is just being ended says nothing else.
            let Some(pair) = self.pairs.pair(id).filter(|_| !self.is_proposing(id)) else { continue };
            let (watch, upstream, may_watch) = (pair.watch, pair.upstream, pair.verdict.may_watch_contact);
            let (is_from, is_to) = (pair.subscription.is_from(), pair.subscription.is_to());
            let (waits, asks) = (pair.subscription.is_pending_in(), pair.subscription.is_pending_out());
            if pair.asking.or(pair.granting).is_some() {
                self.shard.mark_due(watch);
            }
            let is_local = pair.is_local();
            let is_behind = !is_local && self.is_behind_front_end(pair);
            if is_behind
                && is_from
                && let Some(pair) = self.pairs.pair_mut(id)
            {
                pair.set(mark::UNSURE, true);
                if !pair.may_see() {
                    // Nothing will come that tells the contact so.
                    self.shard.mark_whole(watch);
                }
            }
            let is_wanted = is_behind && (is_from || waits);
            if is_wanted && self.upstreams.upstream(upstream).is_none() {
                self.start_upstream(id, now);
            } else if !is_wanted && self.upstreams.upstream(upstream).is_some() {
                // Its end was asked for, or was to be.
                self.stop_upstream(id, now);
            } else if is_from && !is_behind && !is_local {
                self.show_user(id);
                self.shard.mark_whole(watch);
            }
            // A dialog without an agreement: the agreement ended, or its row is lost and the watcher asks again.
            let reason = match self.settings.knows_all_grants {
                true => Reason::Rejected,
                false => Reason::Deactivated,
            };
            if !is_to && !asks {
                self.end_watchers(id, reason, None, now);
            }
            if !is_from && !waits {
                self.end_contact_watchers(id, reason, now);
            }
            // The policy may have changed while the process was not there.
            self.end_what_is_forbidden(id, now);
            for at in self.dialogs_of(id, true).into_iter().chain(self.dialogs_of(id, false)) {
                self.refresh_dialog_view(at);
                if let Some(dialog) = self.dialogs.dialog(at) {
                    self.shard.mark_whole(dialog.watch);
                }
            }
            if is_to && may_watch && !self.dialogs_of(id, false).is_empty() {
                self.probe(id);
            }
        }
        self.sweep_all(now);
    }

    /// Stores the numbers of live dialogs that change too often to be stored each time.
    pub(super) fn flush_numbers(&mut self, now: Now) {
        self.wheel.insert(now.instant + self.settings.flush_interval, Timer::Flush);
        self.write_numbers(now);
    }

    fn numbers_of(&self, dialog: &Dialog) -> VolatileRow {
        VolatileRow {
            start: self.settings.start,
            local_cseq: dialog.local_cseq,
            remote_cseq: dialog.remote_cseq,
            expires_at: u64::from(dialog.expires_at),
        }
    }

    /// Stores soon that a dialog was refreshed, so that it is known for how long after a restart.
    pub(super) fn keep_numbers(&mut self, at: u32) {
        let Some(dialog) = self.dialogs.dialog(at) else { return };
        let Some(pair) = self.pairs.pair(dialog.pair) else { return };
        let value = self.numbers_of(dialog);
        self.lazy.push(volatile_row(self.addresses.partition(pair.user), dialog.row, &value));
    }

    fn write_numbers(&mut self, now: Now) {
        let mut rows = Vec::new();
        for (_, dialog) in self.dialogs.iter().filter(|(_, dialog)| !dialog.is_ending()) {
            let Some(pair) = self.pairs.pair(dialog.pair) else { continue };
            let value = self.numbers_of(dialog);
            rows.push(volatile_row(self.addresses.partition(pair.user), dialog.row, &value));
        }
        for (_, upstream) in self.upstreams.iter().filter(|(_, upstream)| upstream.dialog.is_some()) {
            let Some(pair) = self.pairs.pair(upstream.pair) else { continue };
            let left = upstream.machine.ends_at().map(|end| end.saturating_duration_since(now.instant));
            let value = VolatileRow {
                start: self.settings.start,
                local_cseq: upstream.local_cseq,
                remote_cseq: upstream.machine.last_cseq().unwrap_or(0),
                expires_at: self.time(now) + left.map_or(0, |left| left.as_secs()),
            };
            rows.push(volatile_row(self.addresses.partition(pair.user), upstream.row, &value));
        }
        self.lazy.append(&mut rows);
    }
}

/// Seconds that a dialog has after a restart that seems to have run out meanwhile.
const LEFT_OVER: u64 = 60;

fn is_dialog(table: u8) -> bool {
    table == table::NOTIFIER || table == table::SUBSCRIBER
}

fn volatile_row(partition: u16, row: u64, value: &VolatileRow) -> Row {
    Row { partition, table: table::VOLATILE, key: number_key(row), value: Some(encode(value)) }
}
