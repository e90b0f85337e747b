//! Decisions of users and questions of operators; and what a new policy changes.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tombolo_policy::Table;
use tombolo_presence::{Address, Now, PresenceState, cut_text};
use tombolo_sip::event::Reason;

use super::{
    Owner,
    output::{Output, Relation, Report},
    pairs::{PairId, mark},
    plan::Control,
};

/// Decisions of which something is still being stored.
#[derive(Debug, Default)]
pub struct Decisions {
    next: u64,
    open: HashMap<u64, Decision, RandomState>,
}

/// A decision about one or more watchers.
#[derive(Debug)]
struct Decision {
    asker: u64,
    /// How many of its parts are not stored yet.
    undecided: usize,
    /// Whom it concerned, so far.
    watchers: Vec<Address>,
}

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
        let decision = self.decisions.next;
        self.decisions.next += 1;
        // One more than there are, so that it is not told before all were asked.
        let open = Decision { asker, undecided: 1, watchers: Vec::new() };
        self.decisions.open.insert(decision, open);
        for id in pairs {
            self.freshen(id, now);
            let Some(pair) = self.pairs.pair(id) else { continue };
            // A grant answers a request, as far as the policy lets it; a refusal also takes a grant back.
            let is_granted = pair.subscription.is_from();
            let is_allowed = !is_approved || pair.verdict.may_watch_user;
            if is_allowed && (self.is_waiting(id) || (!is_approved && is_granted)) {
                if let Some(open) = self.decisions.open.get_mut(&decision) {
                    open.undecided += 1;
                }
                self.control(id, Control::Decide { is_approved, decision }, now);
            }
        }
        self.note_decision(decision, None);
    }

    /// One part of a decision is done: it is stored for this pair, or could not be. With the last, whoever decided is
    /// told whom it concerned.
    pub(super) fn note_decision(&mut self, decision: u64, done: Option<PairId>) {
        let watcher = done.map(|id| self.names_of(id).1);
        let Some(open) = self.decisions.open.get_mut(&decision) else { return };
        open.watchers.extend(watcher);
        open.undecided -= 1;
        if open.undecided == 0
            && let Some(Decision { asker, watchers, .. }) = self.decisions.open.remove(&decision)
        {
            self.out.push_back(Output::Decided { asker, watchers });
        }
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

    /// A new table: every row's verdict is made anew, in slices. What is not allowed any more ends; what is allowed again
    /// is shown without asking anybody.
    pub(super) fn handle_policy(&mut self, table: Arc<Table>, now: Now) {
        let is_same = self.policy.says_the_same(&table);
        self.policy = table;
        if !is_same {
            self.forget_quotas();
            self.sum_partner_states();
            self.begin_judging(now);
        }
    }

    /// Makes a pair's verdict anew, with what follows from it.
    pub(super) fn judge(&mut self, id: PairId, now: Now) {
        let (user, contact) = self.names_of(id);
        let verdict = self.verdict(&user, &contact);
        let Some(pair) = self.pairs.pair_mut(id) else { return };
        let old = std::mem::replace(&mut pair.verdict, verdict);
        let (upstream, subscription) = (pair.upstream, pair.subscription);
        let (watch, is_unsure) = (pair.watch, pair.has(mark::UNSURE));
        if (old.may_watch_user, old.detail) != (verdict.may_watch_user, verdict.detail) {
            self.show_user(id);
            if is_unsure && subscription.is_from() && !verdict.may_watch_user {
                // What the contact was told before a restart still stands there.
                self.shard.mark_whole(watch);
            }
            self.refresh_dialogs(id);
        }
        if verdict.may_watch_user
            && !old.may_watch_user
            && (subscription.is_from() || subscription.is_pending_in())
        {
            if self.is_upstream_live(upstream) && !subscription.is_from() {
                // It granted while nothing could be granted.
                self.control(id, Control::Upstream { is_granted: true }, now);
            } else {
                self.start_upstream(id, now);
            }
        }
        self.end_what_is_forbidden(id, now);
    }

    /// Ends the watches of a pair that the policy does not allow, also those that nobody has answered yet.
    pub(super) fn end_what_is_forbidden(&mut self, id: PairId, now: Now) {
        let Some(pair) = self.pairs.pair(id) else { return };
        let verdict = pair.verdict;
        if !verdict.may_watch_contact {
            self.end_watchers(id, Reason::Rejected, None, now);
        }
        if !verdict.may_watch_user {
            self.end_contact_watchers(id, Reason::Rejected, now);
        }
    }

    fn refresh_dialogs(&mut self, id: PairId) {
        for at in self.dialogs_of(id, true) {
            self.refresh_dialog_view(at);
        }
    }
}

/// Octets of what an operator is shown of one contact: a user may have thousands.
const SHOWN_LEN: usize = 256;

/// A state in a few words, for people.
fn shown(state: &PresenceState) -> String {
    if state.is_empty() {
        return "unknown".to_owned();
    }
    let device = |device: &tombolo_presence::Device| {
        let notes: Vec<&str> = device.notes.iter().map(|note| &*note.text).collect();
        format!("{}: {:?} {}", device.id, device.availability, notes.join(" / ")).trim_end().to_owned()
    };
    let devices = state.devices.iter().map(device).collect::<Vec<_>>().join("; ");
    cut_text(&devices, SHOWN_LEN).into_owned()
}
