//! What changes an agreement of a pair: planned on its row, stored, and only then done and said.
//!
//! A control input makes a [`Plan`]: the row as it will stand, and effects. A plan that changes nothing durable takes
//! effect at once. Else the row is handed to the store; until the answer comes the pair stands as it was, and later
//! control inputs of the pair wait behind it, at most [`WAITING`].

use std::collections::VecDeque;

use tombolo_fanout::ViewId;
use tombolo_policy::{Capability, Direction, Outcome, Question};
use tombolo_presence::{Address, Now, Subscription, SubscriptionKind};
use tombolo_sip::event::Reason;
use tombolo_xmpp::{
    stanza::{PresenceKind, PresenceStanza},
    stream::ReceivedStanza,
};

use super::{
    Owner, SipRequest, Timer,
    output::{Output, OwnerEvent},
    pairs::{NO_DIALOG, Pair, PairId, PairVerdict, mark},
    presence_in::addresses_of,
    watchers::WatchRequest,
};
use crate::rows::{PairRow, Row, encode, pair_key, table};

/// Control inputs of one pair that wait for the store; what comes then is refused.
pub const WAITING: usize = 16;

/// Something that may change what a pair agreed on.
#[derive(Debug)]
pub enum Control {
    /// The contact sent one of the four subscription types.
    FromContact(SubscriptionKind),
    /// The contact's server refused our `subscribe`; the stanza error condition.
    Refused(String),
    /// Any other presence stanza: it waits only to keep its place behind the others.
    Stanza(Box<ReceivedStanza>),
    /// Somebody of the pair asks by SIP to be notified of the other.
    Watch(Box<WatchRequest>),
    /// The user decided about the contact.
    Decide {
        /// Granted.
        is_approved: bool,
        /// Who is told of what became of it.
        decision: u64,
    },
    /// The user, or a contact who is a local user too, is no more.
    Gone,
    /// The user's front end lets the contact see the user, or does not any more.
    Upstream {
        /// It does.
        is_granted: bool,
    },
}

/// What a control input will do.
#[derive(Debug)]
pub struct Plan {
    /// The pair's row as it will stand.
    pub row: PairRow,
    /// Further rows that must be stored with it.
    pub rows: Vec<Row>,
    /// What is done and said once they are.
    pub effects: Vec<Effect>,
}

/// One thing that a plan does.
#[derive(Debug)]
pub enum Effect {
    /// The contact is sent the user's state, whole.
    ShowUser,
    /// The contact is sent `unavailable`, and nothing after it.
    HideUser,
    /// The same, even if the contact is not known to have been sent anything else.
    HideUserAnew,
    /// The user's watchers of the contact see it now.
    ShowContact,
    /// The user's watchers of the contact are told that it is over.
    EndWatchers(Reason, Option<u32>),
    /// The contact's dialogs about the user are told that it is over.
    EndContactWatchers(Reason),
    /// The contact's dialogs about the user see it now.
    ShowUserToDialogs,
    /// A dialog begins: 2xx and first NOTIFY.
    Open(Box<WatchRequest>),
    /// The front end is asked for the user's presence on behalf of the contact.
    StartUpstream,
    /// The front end is asked no more.
    StopUpstream,
    /// The user must decide.
    TellUser,
    /// The contact is asked for its state.
    Probe,
    /// Whoever decided learns that it is done, or that it changes nothing.
    Decided {
        /// Names the decision.
        decision: u64,
        /// It is done.
        is_done: bool,
    },
}

/// A plan whose rows are being stored.
#[derive(Debug)]
pub struct Proposal {
    plan: Plan,
    /// What the plan comes from, for the refusal.
    cause: Cause,
    /// The rows besides that of the pair, which must go again if the plan is refused.
    others: Vec<Row>,
    waiting: VecDeque<Control>,
    /// A state of the contact found no place behind the plan.
    is_state_lost: bool,
}

impl Proposal {
    /// Control inputs that wait behind it.
    #[cfg(test)]
    pub fn waiting_len(&self) -> usize {
        self.waiting.len()
    }
}

/// What of a control input its refusal needs; requests and decisions lie in the effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    FromContact,
    FrontEnd { is_granted: bool },
    Gone,
    Other,
}

/// What a proposal would have stored: names of its rows, since the pair may be gone when the store is done.
#[derive(Debug)]
pub struct Traces {
    user: Address,
    contact: Address,
    others: Vec<Row>,
}

impl Proposal {
    /// The SIP requests that wait for the proposal, or behind it.
    pub fn into_requests(self) -> impl Iterator<Item = SipRequest> {
        let opening = self.plan.effects.into_iter().filter_map(|effect| match effect {
            Effect::Open(watch) => Some(watch.request),
            _ => None,
        });
        let waiting = self.waiting.into_iter().filter_map(|control| match control {
            Control::Watch(watch) => Some(watch.request),
            _ => None,
        });
        opening.chain(waiting)
    }
}

impl Owner {
    /// Takes a control input of a pair.
    pub(super) fn control(&mut self, id: PairId, control: Control, now: Now) {
        self.freshen(id, now);
        if let Some(proposal) = self.proposals.get_mut(&id.0) {
            if proposal.waiting.len() < WAITING || matches!(control, Control::Gone) {
                proposal.waiting.push_back(control);
            } else {
                self.refuse_control(id, control, now);
            }
            return;
        }
        self.start(id, control, now);
    }

    /// True while rows of the pair are being stored.
    pub(super) fn is_proposing(&self, id: PairId) -> bool {
        self.proposals.contains_key(&id.0)
    }

    fn start(&mut self, id: PairId, control: Control, now: Now) {
        if let Control::Stanza(stanza) = control {
            return self.handle_stanza(&stanza, now);
        }
        let Some(pair) = self.pairs.pair(id) else { return self.refuse_control(id, control, now) };
        let row = pair.row();
        let mut plan = Plan { row: row.clone(), rows: Vec::new(), effects: Vec::new() };
        let cause = match &control {
            Control::FromContact(_) => Cause::FromContact,
            Control::Upstream { is_granted } => Cause::FrontEnd { is_granted: *is_granted },
            Control::Gone => Cause::Gone,
            _ => Cause::Other,
        };
        self.plan(id, control, &mut plan, now);
        if plan.row == row && plan.rows.is_empty() {
            self.apply(id, plan, now);
            return;
        }
        let Some(pair) = self.pairs.pair(id) else { return };
        let mut rows = std::mem::take(&mut plan.rows);
        let others = rows.iter().map(|row| Row { key: row.key.clone(), value: None, ..*row }).collect();
        if plan.row != row {
            rows.push(self.pair_row(pair, &plan.row));
        }
        let waiting = VecDeque::new();
        let proposal = Proposal { plan, cause, others, waiting, is_state_lost: false };
        self.proposals.insert(id.0, Box::new(proposal));
        self.persist_proposal(rows, id, now);
    }

    /// The store answered.
    pub(super) fn settle_proposal(&mut self, id: PairId, is_stored: bool, now: Now) {
        let Some(proposal) = self.proposals.remove(&id.0) else { return };
        let Proposal { plan, cause, others, mut waiting, is_state_lost } = *proposal;
        self.settling = Some(id);
        if is_stored {
            self.apply(id, plan, now);
        } else {
            self.drop_plan(id, plan, cause, others, now);
        }
        // Each of these may open the next proposal; the rest then waits behind that one.
        while let Some(control) = waiting.pop_front() {
            self.start(id, control, now);
            if let Some(next) = self.proposals.get_mut(&id.0) {
                next.waiting.append(&mut waiting);
                next.is_state_lost |= is_state_lost;
            }
        }
        self.settling = None;
        if is_state_lost && !self.is_proposing(id) {
            self.make_up_for_lost_state(id);
        }
        self.drop_if_idle(id);
    }

    /// A failed commit becomes a refusal; the row is written again as it stands, in case it landed after all.
    fn drop_plan(&mut self, id: PairId, plan: Plan, cause: Cause, others: Vec<Row>, now: Now) {
        for effect in plan.effects {
            match effect {
                Effect::Open(request) => self.refuse_watch(&request, 500, "the store failed", now),
                Effect::Decided { decision, .. } => self.note_decision(decision, None),
                _ => {}
            }
        }
        match cause {
            Cause::FromContact => self.refuse_contact(id, "the store failed"),
            Cause::FrontEnd { is_granted } => self.heed_front_end_later(id, is_granted, now),
            Cause::Gone => self.heed_front_end_later(id, false, now),
            Cause::Other => {}
        }
        let (user, contact) = self.names_of(id);
        self.undo(&Traces { user, contact, others });
    }

    /// What a proposal would store.
    pub(super) fn traces(&self, id: PairId) -> Option<Traces> {
        let proposal = self.proposals.get(&id.0)?;
        let (user, contact) = self.names_of(id);
        Some(Traces { user, contact, others: proposal.others.clone() })
    }

    /// Stores the row of a pair as it stands, and takes back what a refused proposal stored besides. What is being
    /// stored by then comes later.
    pub(super) fn undo(&mut self, traces: &Traces) {
        self.lazy.extend(traces.others.iter().cloned());
        let row = match self.find_pair(traces.user.as_str(), traces.contact.as_str()) {
            Some(id) if self.is_proposing(id) => return,
            Some(id) => self.pairs.pair(id).map(|pair| self.pair_row(pair, &pair.row())),
            None => None,
        };
        let nothing = || Row {
            partition: traces.user.partition(),
            table: table::PAIR,
            key: pair_key(&traces.user, &traces.contact),
            value: None,
        };
        self.lazy.push(row.unwrap_or_else(nothing));
    }

    /// Whoever waits for a control input that cannot be taken is told.
    pub(super) fn refuse_control(&mut self, id: PairId, control: Control, now: Now) {
        let reason = "too much of the pair waits for the store";
        match control {
            Control::Watch(request) => self.refuse_watch(&request, 500, reason, now),
            Control::FromContact(_) => self.refuse_contact(id, reason),
            Control::Decide { decision, .. } => self.note_decision(decision, None),
            Control::Upstream { is_granted } => self.heed_front_end_later(id, is_granted, now),
            Control::Gone => self.heed_front_end_later(id, false, now),
            Control::Stanza(stanza)
                if PresenceStanza::read(&stanza.xml)
                    .is_ok_and(|presence| presence.kind == PresenceKind::Subscribe) =>
            {
                self.event(OwnerEvent::StanzaRefused { reason });
                if let Some(bytes) = crate::xmpp_error::reply(&stanza.xml, "resource-constraint", None)
                    && let Some((contact, user)) = addresses_of(&stanza)
                {
                    self.say(&user, &contact, bytes);
                }
            }
            Control::Stanza(_) | Control::Refused(_) => {
                self.event(OwnerEvent::StanzaRefused { reason });
                if let Some(proposal) = self.proposals.get_mut(&id.0) {
                    proposal.is_state_lost = true;
                }
            }
        }
    }

    /// The contact's server is told that its stanza changed nothing.
    fn refuse_contact(&mut self, id: PairId, reason: &'static str) {
        self.event(OwnerEvent::StanzaRefused { reason });
        if self.pairs.pair(id).is_none() {
            return;
        }
        let (user, contact) = self.names_of(id);
        let bytes = crate::xmpp_error::presence_error(
            user.as_str(),
            contact.as_str(),
            "resource-constraint",
            None,
            None,
        );
        self.say(&user, &contact, bytes);
    }

    /// Stanzas of the contact were dropped: what it says of itself is asked for again, and what it may have asked for
    /// is said.
    fn make_up_for_lost_state(&mut self, id: PairId) {
        let Some(pair) = self.pairs.pair_mut(id) else { return };
        let (watch, is_to, is_from) = (pair.watch, pair.subscription.is_to(), pair.subscription.is_from());
        if is_from {
            self.shard.mark_whole(watch);
        }
        if is_to {
            pair.set(mark::STALE, true);
            if !self.dialogs_of(id, false).is_empty() {
                self.probe_again(id);
            }
        }
    }

    fn heed_front_end_later(&mut self, id: PairId, is_granted: bool, now: Now) {
        self.wheel.insert(now.instant + self.settings.store_limit, Timer::FrontEnd(id, is_granted));
    }

    /// What the front end said last, or that the user is no more, could not be stored. Where it still holds, it is
    /// tried again. A grant is taken back only where the front end took it back: that no dialog is open says nothing.
    pub(super) fn heed_front_end(&mut self, id: PairId, is_granted: bool, now: Now) {
        if self.is_of_nobody(id) {
            return self.control(id, Control::Gone, now);
        }
        let Some(pair) = self.pairs.pair(id) else { return };
        let (upstream, subscription) = (pair.upstream, pair.subscription);
        if !self.is_behind_front_end(pair) {
            return;
        }
        if self.is_proposing(id) {
            // What is being stored may answer it.
            return self.heed_front_end_later(id, is_granted, now);
        }
        if !is_granted && subscription.is_from() && self.upstreams.upstream(upstream).is_none() {
            self.control(id, Control::Upstream { is_granted: false }, now);
        } else if is_granted && subscription.is_pending_in() && self.is_upstream_live(upstream) {
            self.control(id, Control::Upstream { is_granted: true }, now);
        }
    }

    fn plan(&mut self, id: PairId, control: Control, plan: &mut Plan, now: Now) {
        match control {
            Control::FromContact(SubscriptionKind::Subscribe) => self.plan_subscribe(id, plan, now),
            Control::FromContact(SubscriptionKind::Unsubscribe) => {
                let step = plan.row.subscription.inbound(SubscriptionKind::Unsubscribe);
                plan.row.subscription = step.next;
                plan.row.asked_at = None;
                if step.forward {
                    // D-15: unavailable, then unsubscribed.
                    plan.row.granting = step.reply;
                    plan.effects.extend([Effect::HideUser, Effect::StopUpstream]);
                }
            }
            Control::FromContact(SubscriptionKind::Subscribed) => {
                let step = plan.row.subscription.inbound(SubscriptionKind::Subscribed);
                if step.forward {
                    plan.row.subscription = step.next;
                    plan.row.asking = None;
                    plan.effects.push(Effect::ShowContact);
                }
            }
            Control::FromContact(SubscriptionKind::Unsubscribed) => {
                let step = plan.row.subscription.inbound(SubscriptionKind::Unsubscribed);
                if step.forward {
                    plan.row.subscription = step.next;
                    plan.row.asking = None;
                    plan.effects.push(Effect::EndWatchers(Reason::Rejected, None));
                }
            }
            Control::Refused(condition) => plan_refused(&condition, plan),
            Control::Watch(request) => self.plan_watch(id, request, plan, now),
            Control::Decide { is_approved, decision } => {
                let before = plan.row.clone();
                self.plan_decision(id, is_approved, plan);
                plan.effects.push(Effect::Decided { decision, is_done: plan.row != before });
            }
            Control::Gone => self.plan_gone(id, plan),
            Control::Upstream { is_granted } => {
                // The front end speaks for its user, within the policy.
                if !is_granted {
                    revoke(plan);
                } else if self.may_watch_user(id) {
                    grant(plan);
                }
            }
            Control::Stanza(_) => {}
        }
    }

    fn may_watch_user(&self, id: PairId) -> bool {
        self.pairs.pair(id).is_some_and(|pair| pair.verdict.may_watch_user)
    }

    /// The contact asks to see the user.
    fn plan_subscribe(&mut self, id: PairId, plan: &mut Plan, now: Now) {
        let Some(pair) = self.pairs.pair(id) else { return };
        let is_behind_front_end = self.is_behind_front_end(pair);
        let needs_no_answer = pair.verdict.needs_no_answer;
        if !pair.verdict.may_watch_user {
            // The policy changed behind the checks of `handle_subscribe`.
            return self.event(OwnerEvent::StanzaRefused { reason: "the policy lets the contact not watch" });
        }
        let step = plan.row.subscription.inbound(SubscriptionKind::Subscribe);
        if step.reply == Some(SubscriptionKind::Subscribed) {
            // Granted before: say so again, with the state (STOX-P-19).
            plan.row.granting = step.reply;
            plan.effects.push(Effect::ShowUser);
            self.unsay(id, mark::GRANTING_SAID);
            return;
        }
        plan.row.subscription = step.next;
        if plan.row.asked_at.is_none() {
            plan.row.asked_at = Some(now.unix_seconds());
        }
        // A request that goes out before `unsubscribed` was said again makes that answer wrong.
        plan.row.granting = None;
        if is_behind_front_end {
            plan.effects.push(Effect::StartUpstream);
        } else if needs_no_answer {
            grant(plan);
        } else if step.forward {
            plan.effects.push(Effect::TellUser);
        }
    }

    /// Everything that was agreed ends, and the contact is told so.
    fn plan_gone(&mut self, id: PairId, plan: &mut Plan) {
        let Some(pair) = self.pairs.pair(id) else { return };
        let agreed = std::mem::take(&mut plan.row.subscription);
        plan.row.asked_at = None;
        if !pair.is_local() {
            if agreed.is_from() || agreed.is_pending_in() {
                plan.row.granting = Some(SubscriptionKind::Unsubscribed);
            }
            if agreed.is_to() || agreed.is_pending_out() {
                plan.row.asking = Some(SubscriptionKind::Unsubscribe);
            }
        }
        plan.effects.push(if agreed.is_from() { Effect::HideUserAnew } else { Effect::HideUser });
        plan.effects.push(Effect::EndWatchers(Reason::NoResource, None));
        plan.effects.push(Effect::EndContactWatchers(Reason::NoResource));
    }

    fn plan_decision(&mut self, id: PairId, is_approved: bool, plan: &mut Plan) {
        let Some(pair) = self.pairs.pair(id) else { return };
        if is_approved && !pair.verdict.may_watch_user {
            return;
        }
        if !pair.is_local() {
            if is_approved {
                grant(plan)
            } else {
                revoke(plan)
            }
            return;
        }
        // Between two local users there is nobody to send a stanza to.
        let kind = if is_approved { SubscriptionKind::Subscribed } else { SubscriptionKind::Unsubscribed };
        plan.row.subscription = plan.row.subscription.outbound(kind).next;
        plan.row.asked_at = None;
        plan.effects.push(match is_approved {
            true => Effect::ShowUserToDialogs,
            false => Effect::EndContactWatchers(Reason::Rejected),
        });
    }

    fn apply(&mut self, id: PairId, plan: Plan, now: Now) {
        let Some(before) = self.pairs.pair(id).map(|pair| pair.subscription) else { return };
        self.take_row(id, &plan.row);
        let Some(pair) = self.pairs.pair(id) else { return };
        let watch = pair.watch;
        let is_due = pair.asking_due().or(pair.granting_due()).is_some();
        let is_changed = before != pair.subscription;
        if is_changed {
            let (user, contact, to) = (pair.user, pair.contact, pair.subscription);
            let user = self.addresses.address(user).clone();
            let contact = self.addresses.address(contact).clone();
            self.event(OwnerEvent::SubscriptionChanged { user, contact, to });
        }
        for effect in plan.effects {
            self.apply_effect(id, effect, now);
        }
        if is_due {
            self.shard.mark_due(watch);
        }
        self.drop_if_idle(id);
    }

    fn apply_effect(&mut self, id: PairId, effect: Effect, now: Now) {
        match effect {
            Effect::ShowUser => {
                self.show_user(id);
                if let Some(pair) = self.pairs.pair(id) {
                    self.shard.mark_whole(pair.watch);
                }
            }
            Effect::HideUser | Effect::HideUserAnew => {
                if let Some(pair) = self.pairs.pair(id) {
                    self.shard.handle_change(pair.watch, ViewId::EMPTY);
                    if matches!(effect, Effect::HideUserAnew) && !pair.is_local() {
                        self.shard.mark_whole(pair.watch);
                    }
                }
            }
            Effect::ShowContact => self.show_contact(id, now),
            Effect::EndWatchers(reason, retry_after) => self.end_watchers(id, reason, retry_after, now),
            Effect::EndContactWatchers(reason) => self.end_contact_watchers(id, reason, now),
            Effect::ShowUserToDialogs => self.show_user_to_dialogs(id, now),
            Effect::Open(request) => self.open_dialog(id, *request, now),
            Effect::StartUpstream => self.start_upstream(id, now),
            Effect::StopUpstream => self.stop_upstream(id, now),
            Effect::TellUser => {
                if let Some(pair) = self.pairs.pair(id) {
                    let user = self.addresses.address(pair.user).clone();
                    let watcher = self.addresses.address(pair.contact).clone();
                    self.out.push_back(Output::MustDecide { user, watcher });
                }
            }
            Effect::Probe => self.probe(id),
            Effect::Decided { decision, is_done } => self.note_decision(decision, is_done.then_some(id)),
        }
    }

    /// The row of a pair with this content; none is kept for a pair without an agreement.
    pub(super) fn pair_row(&self, pair: &Pair, row: &PairRow) -> Row {
        let user = self.addresses.address(pair.user);
        let contact = self.addresses.address(pair.contact);
        let is_nothing = row.subscription == Subscription::None && row.asking.or(row.granting).is_none();
        Row {
            partition: user.partition(),
            table: table::PAIR,
            key: pair_key(user, contact),
            value: (!is_nothing).then(|| encode(row)),
        }
    }

    /// Takes over a pair's row, and counts who waits for the user.
    pub(super) fn take_row(&mut self, id: PairId, row: &PairRow) {
        let Some(pair) = self.pairs.pair_mut(id) else { return };
        let waited = pair.is_waiting();
        pair.take_row(row);
        let waits = pair.is_waiting();
        if let Some(user) = self.users.get_mut(&pair.user) {
            user.waiting = user.waiting - u32::from(waited) + u32::from(waits);
        }
    }

    /// The pair of these two, added if there is no row.
    pub(super) fn find_or_add_pair(&mut self, user: &Address, contact: &Address) -> Option<PairId> {
        if let (Some(user), Some(contact)) =
            (self.addresses.find(user.as_str()), self.addresses.find(contact.as_str()))
            && let Some(id) = self.pairs.find(user, contact)
        {
            return Some(id);
        }
        let is_local = self.policy.local_domain(contact.domain()).is_some();
        let lane = self.lane_to(user, contact)?;
        let verdict = self.verdict(user, contact);
        let user_id = self.addresses.intern(user);
        let contact_id = self.addresses.intern(contact);
        // The number of a pair is known only after its row is in: the watch is told right after.
        let id = self.pairs.insert(Pair {
            user: user_id,
            contact: contact_id,
            watch: tombolo_fanout::WatchId::default(),
            heard: ViewId::EMPTY,
            first_dialog: NO_DIALOG,
            upstream: NO_DIALOG,
            asked_at: 0,
            subscription: Subscription::None,
            asking: None,
            granting: None,
            marks: if is_local { mark::LOCAL } else { 0 },
            verdict,
        });
        let watch = self.shard.insert(lane, id.0);
        if let Some(pair) = self.pairs.pair_mut(id) {
            pair.watch = watch;
        }
        self.users.entry(user_id).or_default().pairs.push(id);
        if !is_local {
            self.count_pair(contact, true);
        }
        Some(id)
    }

    /// Forgets a pair that holds nothing.
    pub(super) fn drop_if_idle(&mut self, id: PairId) {
        let is_idle = self.pairs.pair(id).is_some_and(Pair::is_idle);
        let is_owed = self.pairs.pair(id).is_some_and(|pair| {
            self.shard.views_of(pair.watch).is_some_and(|(current, sent)| current != sent)
        });
        if !is_idle || is_owed || self.proposals.contains_key(&id.0) || self.settling == Some(id) {
            return;
        }
        self.disarm_probe(id);
        self.said.newest.remove(&id);
        if let Some(pair) = self.pairs.pair(id) {
            self.account_state(id, pair.heard, ViewId::EMPTY);
        }
        let Some(pair) = self.pairs.remove(id) else { return };
        self.shard.remove(pair.watch);
        self.shard.views.release(pair.heard);
        let is_last = self.users.get_mut(&pair.user).is_some_and(|user| {
            user.pairs.retain(|other| *other != id);
            user.waiting -= u32::from(pair.is_waiting());
            user.pairs.is_empty() && user.publications.is_none()
        });
        if is_last && let Some(user) = self.users.remove(&pair.user) {
            self.shard.views.release(user.view);
        }
        if !pair.is_local() {
            let contact = self.addresses.address(pair.contact).clone();
            self.count_pair(&contact, false);
        }
        self.addresses.release(pair.user);
        self.addresses.release(pair.contact);
    }

    /// What the policy says of a pair, to be stored in it.
    pub(super) fn verdict(&self, user: &Address, contact: &Address) -> PairVerdict {
        let approve = self.accounts.approve.get(user).copied().unwrap_or_default();
        let question = |direction| Question {
            local: user,
            remote: contact,
            direction,
            capability: Capability::Watch,
            has_relation: false,
            approve,
        };
        let inbound = self.policy.decide(&question(Direction::Inbound));
        let outbound = self.policy.decide(&question(Direction::Outbound));
        PairVerdict {
            judgement: self.judgement,
            may_watch_contact: !matches!(outbound.outcome, Outcome::Deny(_)),
            may_watch_user: !matches!(inbound.outcome, Outcome::Deny(_)),
            needs_no_answer: matches!(inbound.outcome, Outcome::Allow),
            detail: inbound.detail,
        }
    }

    /// The user's presence is at a front end rather than here.
    pub(super) fn is_behind_front_end(&self, pair: &Pair) -> bool {
        self.front_end_of(self.addresses.address(pair.user)).is_some()
    }
}

/// The user grants: answers a request, and shows the state.
fn grant(plan: &mut Plan) {
    let step = plan.row.subscription.outbound(SubscriptionKind::Subscribed);
    if step.forward {
        plan.row.subscription = step.next;
        plan.row.granting = Some(SubscriptionKind::Subscribed);
        plan.row.asked_at = None;
        plan.effects.push(Effect::ShowUser);
    }
}

/// The user refuses, or takes back what was granted.
fn revoke(plan: &mut Plan) {
    let step = plan.row.subscription.outbound(SubscriptionKind::Unsubscribed);
    if step.forward {
        plan.row.subscription = step.next;
        plan.row.granting = Some(SubscriptionKind::Unsubscribed);
        plan.row.asked_at = None;
        plan.effects.push(Effect::HideUser);
    }
}

/// The contact's server refused our `subscribe` (STOX-P-36).
fn plan_refused(condition: &str, plan: &mut Plan) {
    if !plan.row.subscription.is_pending_out() {
        return;
    }
    let (reason, retry_after) = match condition {
        "item-not-found" | "gone" | "jid-malformed" => (Reason::NoResource, None),
        "forbidden" | "not-allowed" | "policy-violation" | "service-unavailable" | "not-authorized" => {
            (Reason::Rejected, None)
        }
        _ => (Reason::Probation, Some(RETRY_AFTER_SECONDS)),
    };
    plan.row.subscription = plan.row.subscription.inbound(SubscriptionKind::Unsubscribed).next;
    plan.row.asking = None;
    plan.effects.push(Effect::EndWatchers(reason, retry_after));
}

/// When a watcher whose request met a passing trouble should ask again.
const RETRY_AFTER_SECONDS: u32 = 120;
