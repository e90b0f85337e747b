//! Decisions of users and questions of operators; and what a new policy changes.

use std::sync::Arc;

use tombolo_policy::Table;
use tombolo_presence::{Address, Now, PresenceState};
use tombolo_sip::event::Reason;

use super::{
    Owner,
    output::{Output, Relation, Report},
    pairs::PairId,
    plan::Control,
};

impl Owner {
    /// The user, or somebody for the user, decided about watchers.
    pub(super) fn handle_decision(
        &mut self,
        user: &Address,
        watcher: Option<&Address>,
        is_approved: bool,
        asker: u64,
        now: Now,
    ) {
        let pairs: Vec<PairId> = match watcher {
            Some(watcher) => self.find_pair(user.as_str(), watcher.as_str()).into_iter().collect(),
            None => self.pairs_of(user).into_iter().filter(|id| self.is_waiting(*id)).collect(),
        };
        let mut watchers = Vec::new();
        for id in pairs {
            // A grant answers a request; a refusal also takes a grant back.
            let is_granted = self.pairs.pair(id).is_some_and(|pair| pair.subscription.is_from());
            if self.is_waiting(id) || (!is_approved && is_granted) {
                watchers.push(self.names_of(id).1);
                self.control(id, Control::Decide { is_approved }, now);
            }
        }
        self.out.push_back(Output::Decided { asker, watchers });
    }

    fn is_waiting(&self, id: PairId) -> bool {
        self.pairs.pair(id).is_some_and(|pair| pair.subscription.is_pending_in())
    }

    fn pairs_of(&self, user: &Address) -> Vec<PairId> {
        let user = self.addresses.find(user.as_str()).and_then(|user| self.users.get(&user));
        user.map(|user| user.pairs.clone()).unwrap_or_default()
    }

    pub(super) fn handle_question(&mut self, user: Option<&Address>, asker: u64) {
        let mut report = Report {
            users: self.users.len(),
            pairs: self.pairs.len(),
            notifier_dialogs: self.dialogs.len(),
            subscriber_dialogs: self.upstreams.len(),
            views: self.shard.views.len(),
            ..Report::default()
        };
        if let Some(user) = user {
            for id in self.pairs_of(user) {
                let Some(pair) = self.pairs.pair(id) else { continue };
                report.relations.push(Relation {
                    contact: self.addresses.address(pair.contact).clone(),
                    subscription: pair.subscription,
                    is_waiting: pair.subscription.is_pending_in(),
                    heard: shown(self.shard.views.content(pair.heard)),
                });
            }
            let id = self.addresses.find(user.as_str());
            report.state = id.and_then(|id| self.users.get(&id)).map(|user| shown(&user.state));
        }
        self.out.push_back(Output::Report { asker, report });
    }

    /// A new table: every row's verdict is made anew. What is not allowed any more ends; what is allowed again is
    /// shown without asking anybody.
    pub(super) fn handle_policy(&mut self, table: Arc<Table>, now: Now) {
        self.policy = table;
        self.forget_quotas();
        let ids: Vec<PairId> = self.pairs.iter().map(|(id, _)| id).collect();
        for id in ids {
            let (user, contact) = self.names_of(id);
            let Some(pair) = self.pairs.pair(id) else { continue };
            let verdict = self.verdict(&user, &contact, pair.is_local());
            let old = pair.verdict;
            let Some(pair) = self.pairs.pair_mut(id) else { continue };
            pair.verdict = verdict;
            let (watch, is_from) = (pair.watch, pair.subscription.is_from());
            if is_from && (old.may_watch_user, old.detail) != (verdict.may_watch_user, verdict.detail) {
                if verdict.may_watch_user {
                    self.show_user(id);
                } else {
                    self.shard.handle_change(watch, tombolo_fanout::ViewId::EMPTY);
                }
            }
            // Also of those whom the contact has not answered yet.
            if old.may_watch_contact && !verdict.may_watch_contact {
                self.end_watchers(id, Reason::Rejected, None, now);
            }
        }
    }
}

/// A state in a few words, for people.
fn shown(state: &PresenceState) -> String {
    if state.is_empty() {
        return "unknown".to_owned();
    }
    let device = |device: &tombolo_presence::Device| {
        let notes: Vec<&str> = device.notes.iter().map(|note| &*note.text).collect();
        format!("{}: {:?} {}", device.id, device.availability, notes.join(" / ")).trim_end().to_owned()
    };
    state.devices.iter().map(device).collect::<Vec<_>>().join("; ")
}
