//! Presence stanzas from contacts: subscription types, states, probes and errors, in the order in which they came.

use bytes::Bytes;
use tombolo_fanout::ViewId;
use tombolo_presence::{Address, Availability, Device, Note, Now, PresenceState, SubscriptionKind};
use tombolo_xmpp::{
    jid::Jid,
    stanza::{PresenceKind, PresenceStanza, StanzaFault, StanzaKind},
    stream::ReceivedStanza,
    write::{self, Head},
};

use super::{
    LaneKey, Owner, Timer,
    budgets::MESSAGE_OCTETS,
    output::{Output, OwnerEvent},
    pairs::{PairId, mark},
    plan::Control,
};
use crate::{
    presence_to_sip::{NOTES_PER_DEVICE, note_of},
    presence_to_xmpp::bare_presence,
    xmpp_error,
};

/// Devices of one contact that are remembered; further ones are not shown.
const DEVICES_PER_CONTACT: usize = 32;

impl Owner {
    /// Takes one stanza of a proved domain to one of our users.
    pub(super) fn handle_stanza(&mut self, stanza: &ReceivedStanza, now: Now) {
        if stanza.from.local().is_none() || stanza.to.local().is_none() {
            return self.event(OwnerEvent::StanzaRefused { reason: "the stanza is not between two users" });
        }
        if self.policy.local_domain(stanza.from.domain()).is_some() {
            // STOX-A-04: whom we serve by SIP never speaks by XMPP; an answer would only come back to us.
            return self.event(OwnerEvent::StanzaRefused { reason: "the sender's domain is one of ours" });
        }
        match stanza.kind {
            StanzaKind::Presence => match PresenceStanza::read(&stanza.xml) {
                Ok(presence) => self.handle_presence(&presence, stanza, now),
                Err(StanzaFault::Type) => {
                    self.event(OwnerEvent::StanzaRefused { reason: "the presence is of an unknown type" });
                    if let Some((contact, user)) = addresses_of(stanza)
                        && let Some(bytes) = xmpp_error::reply(&stanza.xml, "bad-request", None)
                    {
                        self.say(&user, &contact, bytes);
                    }
                }
                Err(_) => self.event(OwnerEvent::StanzaRefused { reason: "the presence cannot be read" }),
            },
            StanzaKind::Message => self.handle_message_stanza(stanza, now),
            StanzaKind::Iq => self.event(OwnerEvent::StanzaRefused { reason: "no iq is for a shard" }),
        }
    }

    fn handle_presence(&mut self, presence: &PresenceStanza<'_>, stanza: &ReceivedStanza, now: Now) {
        let known = self.find_pair(stanza.to.bare(), stanza.from.bare());
        if let Some(id) = known {
            self.freshen(id, now);
        }
        if let Some(id) = known
            && self.is_proposing(id)
        {
            // Its place is behind what is being stored. A `subscribe` is checked when its turn comes.
            let control = match subscription_kind(presence.kind) {
                Some(kind) if kind != SubscriptionKind::Subscribe => Control::FromContact(kind),
                _ => {
                    let Some((contact, user)) = addresses_of(stanza) else { return };
                    let mut held = stanza.clone();
                    let Some(charge) = self.charge(&user, &contact, stanza.xml.len() + MESSAGE_OCTETS) else {
                        return self.refuse_control(id, Control::Stanza(Box::new(held)), now);
                    };
                    // A copy of its own: the read buffer that it was cut from is far larger.
                    held.xml = charge.seal(stanza.xml.to_vec());
                    Control::Stanza(Box::new(held))
                }
            };
            return self.control(id, control, now);
        }
        match presence.kind {
            PresenceKind::Available | PresenceKind::Unavailable => {
                if let Some(id) = known {
                    self.handle_state(id, presence, &stanza.from);
                }
            }
            PresenceKind::Probe => {
                if let Some((contact, user)) = addresses_of(stanza) {
                    self.handle_probe(known, &stanza.from, stanza.to.resource(), &contact, &user, now);
                }
            }
            PresenceKind::Error => self.handle_presence_error(known, presence, now),
            PresenceKind::Subscribe => {
                if let Some((contact, user)) = addresses_of(stanza) {
                    self.handle_subscribe(known, &stanza.xml, &contact, &user, now);
                }
            }
            PresenceKind::Unsubscribe | PresenceKind::Subscribed | PresenceKind::Unsubscribed => {
                if let (Some(id), Some(kind)) = (known, subscription_kind(presence.kind)) {
                    self.control(id, Control::FromContact(kind), now);
                }
            }
        }
    }

    fn handle_subscribe(
        &mut self,
        known: Option<PairId>,
        stanza: &Bytes,
        contact: &Address,
        user: &Address,
        now: Now,
    ) {
        // Strangers learn nothing: an unknown user is silent (XP-31), and no row is made.
        if self.front_end_of(user).is_none() && !self.accounts.approve.contains_key(user) {
            return self.event(OwnerEvent::StanzaRefused { reason: "there is no such local user" });
        }
        if known.is_none() && !self.verdict(user, contact).may_watch_user {
            self.event(OwnerEvent::StanzaRefused { reason: "the policy lets the contact not watch" });
            if let Some(bytes) = xmpp_error::reply(stanza, "not-allowed", None) {
                self.say(user, contact, bytes);
            }
            return;
        }
        if known.is_none() && self.count_waiting(user) >= self.settings.pending_per_user {
            self.event(OwnerEvent::StanzaRefused { reason: "too many watchers wait for the user" });
            if let Some(bytes) = xmpp_error::reply(stanza, "resource-constraint", None) {
                self.say(user, contact, bytes);
            }
            return;
        }
        if known.is_none() && self.is_memory_full {
            self.event(OwnerEvent::StanzaRefused {
                reason: "the process has no memory for further contacts",
            });
            if let Some(bytes) = xmpp_error::reply(stanza, "resource-constraint", None) {
                self.say(user, contact, bytes);
            }
            return;
        }
        let is_over = self.is_partner_full(contact) || self.count_pairs(user) >= self.settings.pairs_per_user;
        if known.is_none() && is_over {
            self.event(OwnerEvent::StanzaRefused {
                reason: "too many contacts of one user or of one partner",
            });
            if let Some(bytes) = xmpp_error::reply(stanza, "resource-constraint", None) {
                self.say(user, contact, bytes);
            }
            return;
        }
        if let Some(id) = self.find_or_add_pair(user, contact) {
            if let Some(pair) = self.pairs.pair(id)
                && !pair.verdict.may_watch_user
            {
                if let Some(bytes) = xmpp_error::reply(stanza, "not-allowed", None) {
                    self.say(user, contact, bytes);
                }
                return self.drop_if_idle(id);
            }
            self.control(id, Control::FromContact(SubscriptionKind::Subscribe), now);
        }
    }

    /// A state of the contact: only what the user asked for is taken (XP-14, XP-30).
    fn handle_state(&mut self, id: PairId, presence: &PresenceStanza<'_>, from: &Jid) {
        let Some(pair) = self.pairs.pair(id) else { return };
        if !pair.subscription.is_to() || !pair.verdict.may_watch_contact {
            return self.event(OwnerEvent::StanzaRefused { reason: "nobody asked for this presence" });
        }
        let device = device_of(presence, from.resource().unwrap_or(""));
        // A probe that was not written yet has no answer.
        let is_answer = pair.has(mark::PROBING) && !pair.has(mark::PROBE);
        let is_stale = pair.has(mark::STALE);
        let mut state = if is_stale && is_answer {
            PresenceState::default()
        } else {
            let known = self.shard.views.content(pair.heard);
            let others = known.devices.iter().filter(|other| other.id != device.id);
            PresenceState { devices: others.cloned().collect(), notes: known.notes.clone() }
        };
        // News of one device say nothing of the others; the answer to a probe, and a bare `unavailable`, do.
        let is_whole = !is_stale || is_answer || device.id.is_empty() && !device.availability.is_open();
        take_device(&mut state, device);
        if let Some(pair) = self.pairs.pair_mut(id) {
            pair.set(mark::STALE, !is_whole);
        }
        if is_answer {
            self.end_probe(id);
        }
        self.hear(id, state);
        if !is_whole && !self.dialogs_of(id, false).is_empty() {
            self.probe(id);
        }
    }

    /// Takes `state` as what the contact says of itself now, and lets the user's watchers know.
    pub(super) fn hear(&mut self, id: PairId, state: PresenceState) {
        let Some(pair) = self.pairs.pair(id) else { return };
        let state = self.fit_state(id, state, pair.heard);
        let view = self.intern(state);
        let Some(pair) = self.pairs.pair_mut(id) else { return };
        let old = std::mem::replace(&mut pair.heard, view);
        let mut next = pair.first_dialog;
        self.account_state(id, old, view);
        self.shard.views.release(old);
        while let Some(dialog) = self.dialogs.dialog(next) {
            let (at, watch) = (next, dialog.watch);
            next = dialog.next;
            let is_shown = !dialog.watches_user && dialog.phase == super::dialogs::Phase::Active;
            if is_shown && old != view {
                // The interval delays no first state.
                let is_first = self.shard.views_of(watch).is_some_and(|(_, sent)| sent == ViewId::EMPTY);
                self.shard.handle_change(watch, view);
                if is_first {
                    self.send_soon(at);
                }
            }
        }
    }

    /// The contact asks for the user's state (RFC 6121 §4.3.2).
    fn handle_probe(
        &mut self,
        known: Option<PairId>,
        from: &Jid,
        resource: Option<&str>,
        contact: &Address,
        user: &Address,
        now: Now,
    ) {
        let granted = known.and_then(|id| Some((id, self.pairs.pair(id)?)));
        let Some((id, pair)) = granted.filter(|(_, pair)| pair.subscription.is_from()) else {
            if !self.settings.knows_all_grants {
                // `unsubscribed` would end for good at the contact's server what only our store has lost.
                return self.event(OwnerEvent::StanzaRefused { reason: "the store may have lost the grant" });
            }
            // XP-21: the same answer for a stranger and for an unknown user.
            let mut bytes = Vec::new();
            bare_presence("unsubscribed", user.as_str(), contact.as_str(), &mut bytes);
            return self.say(user, contact, bytes);
        };
        let watch = pair.watch;
        if let Some(resource) = resource {
            // XP-22: of that device alone, and only whether it is there.
            let seen = self.shard.views_of(watch).map_or(ViewId::EMPTY, |(current, _)| current);
            let device = self.shard.views.content(seen).device(resource);
            let is_there = device.is_some_and(|device| device.availability.is_open());
            let kind = if is_there { PresenceKind::Available } else { PresenceKind::Unavailable };
            let device = format!("{user}/{resource}");
            let head = Head { from: &device, to: from.as_str(), id: None, lang: None };
            let mut bytes = Vec::new();
            write::presence(&mut bytes, &head, kind, b"");
            return self.say(user, contact, bytes);
        }
        if pair.may_see() && self.is_behind_front_end(pair) {
            // Without a live dialog the front end is asked once; its NOTIFY is the answer (STOX-P-07, STOX-P-20).
            if self.is_upstream_live(pair.upstream) {
                self.shard.mark_whole(watch);
            } else {
                self.fetch_upstream(id, now);
            }
        } else {
            self.shard.mark_whole(watch);
        }
    }

    fn handle_presence_error(&mut self, known: Option<PairId>, presence: &PresenceStanza<'_>, now: Now) {
        // XP-24: only an answer to `subscribe` changes anything.
        let Some(id) = known else { return };
        let Some(pair) = self.pairs.pair(id) else { return };
        if pair.subscription.is_pending_out() {
            let condition =
                presence.error.as_ref().map_or("undefined-condition", |error| error.condition.as_str());
            self.control(id, Control::Refused(condition.to_owned()), now);
        }
    }

    /// Asks the contact for its state; the stanza leaves with the lane's credit.
    pub(super) fn probe(&mut self, id: PairId) {
        let Some(pair) = self.pairs.pair_mut(id) else { return };
        if pair.is_local() || pair.has(mark::PROBE | mark::PROBING) {
            return;
        }
        pair.set(mark::PROBE | mark::PROBING, true);
        let watch = pair.watch;
        self.shard.mark_due(watch);
    }

    /// Asks the contact for its state, also where a probe is out whose answer will not come.
    pub(super) fn probe_again(&mut self, id: PairId) {
        self.end_probe(id);
        self.probe(id);
    }

    /// Probes were written: from now on they wait for their answers.
    pub(super) fn arm_probes(&mut self, pairs: Vec<PairId>, now: Now) {
        for id in pairs {
            let timer = self.wheel.insert(now.instant + self.settings.probe_timeout, Timer::Probe(id));
            if let Some(old) = self.probes.insert(id, timer) {
                self.wheel.cancel(old);
            }
        }
    }

    /// A probe waits for its answer no more, and is to be written no more.
    pub(super) fn end_probe(&mut self, id: PairId) {
        if let Some(pair) = self.pairs.pair_mut(id) {
            pair.set(mark::PROBING | mark::PROBE, false);
        }
        self.disarm_probe(id);
    }

    pub(super) fn disarm_probe(&mut self, id: PairId) {
        if let Some(timer) = self.probes.remove(&id) {
            self.wheel.cancel(timer);
        }
    }

    /// A contact that did not answer a probe is unknown.
    pub(super) fn handle_probe_unanswered(&mut self, id: PairId) {
        self.probes.remove(&id);
        let Some(pair) = self.pairs.pair_mut(id) else { return };
        pair.set(mark::PROBING | mark::PROBE, false);
        if pair.has(mark::STALE) {
            self.hear(id, unknown_state("No answer"));
        }
    }

    /// Sends a stanza for which nobody waits, in the order of the session's messages.
    pub(super) fn say(&mut self, user: &Address, contact: &Address, bytes: Vec<u8>) {
        let Some(lane) = LaneKey::of_session(user, contact) else { return };
        if self.is_too_large(&lane, bytes.len()) {
            return;
        }
        if let Some(charge) = self.charge_answer(user, contact, bytes.len() + MESSAGE_OCTETS) {
            self.out.push_back(Output::Message { lane, message: None, bytes: charge.seal(bytes) });
        }
    }

    /// The pair of these two addresses, each without a resource.
    pub(super) fn find_pair(&self, user: &str, contact: &str) -> Option<PairId> {
        self.pairs.find(self.addresses.find(user)?, self.addresses.find(contact)?)
    }

    fn count_pairs(&self, user: &Address) -> usize {
        let user = self.addresses.find(user.as_str()).and_then(|user| self.users.get(&user));
        user.map_or(0, |user| user.pairs.len())
    }

    pub(super) fn count_waiting(&self, user: &Address) -> usize {
        let user = self.addresses.find(user.as_str()).and_then(|user| self.users.get(&user));
        user.map_or(0, |user| user.waiting as usize)
    }
}

/// The bare addresses of its sender and its receiver; `None` when one of them has no local part.
pub fn addresses_of(stanza: &ReceivedStanza) -> Option<(Address, Address)> {
    let address = |jid: &Jid| Address::from_prepared(jid.bare()).ok();
    Some((address(&stanza.from)?, address(&stanza.to)?))
}

/// What stands for a contact of whom nothing is known any more: closed, with a note.
pub fn unknown_state(note: &str) -> PresenceState {
    let note = Note { lang: Some("en".into()), text: note.into() };
    let device = Device {
        id: "".into(),
        availability: Availability::Unavailable,
        priority: None,
        notes: vec![note],
        idle_since: None,
    };
    PresenceState { devices: vec![device], notes: Vec::new() }
}

fn subscription_kind(kind: PresenceKind) -> Option<SubscriptionKind> {
    match kind {
        PresenceKind::Subscribe => Some(SubscriptionKind::Subscribe),
        PresenceKind::Unsubscribe => Some(SubscriptionKind::Unsubscribe),
        PresenceKind::Subscribed => Some(SubscriptionKind::Subscribed),
        PresenceKind::Unsubscribed => Some(SubscriptionKind::Unsubscribed),
        _ => None,
    }
}

/// The device that a stanza tells of.
fn device_of(presence: &PresenceStanza<'_>, resource: &str) -> Device {
    let is_open = presence.kind == PresenceKind::Available;
    let notes = presence
        .statuses
        .iter()
        .take(NOTES_PER_DEVICE)
        .map(|status| note_of(status.lang.as_deref().or(presence.head.lang.as_deref()), &status.text))
        .collect();
    Device {
        id: resource.into(),
        availability: if is_open {
            crate::presence_to_sip::availability_of(presence.show)
        } else {
            Availability::Unavailable
        },
        priority: presence.priority.filter(|_| is_open),
        notes,
        idle_since: presence.idle_since.as_deref().and_then(crate::time::seconds_of),
    }
}

/// Puts a device's news into what is known of the contact. What went away is kept only while nothing is left, for
/// its last words; a bare `unavailable` ends everything (STOX-P-61).
fn take_device(state: &mut PresenceState, device: Device) {
    if device.availability.is_open() {
        state.devices.retain(|known| known.availability.is_open());
        if state.devices.len() < DEVICES_PER_CONTACT || state.device(&device.id).is_some() {
            state.set(device);
        }
        return;
    }
    if device.id.is_empty() {
        state.devices.clear();
    }
    state.remove(&device.id);
    state.devices.retain(|known| known.availability.is_open());
    if state.devices.is_empty() {
        state.set(device);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str, availability: Availability) -> Device {
        Device { id: id.into(), availability, priority: None, notes: Vec::new(), idle_since: None }
    }

    #[test]
    fn stox_p_61_a_bare_unavailable_ends_every_device() {
        let mut state = PresenceState::default();
        take_device(&mut state, device("a", Availability::Available));
        take_device(&mut state, device("b", Availability::Away));
        take_device(&mut state, device("", Availability::Unavailable));
        assert!(!state.is_open());
        assert_eq!(state.devices.len(), 1);
    }

    #[test]
    fn a_device_that_left_stays_only_while_it_is_the_last() {
        let mut state = PresenceState::default();
        take_device(&mut state, device("a", Availability::Available));
        take_device(&mut state, device("b", Availability::Available));
        take_device(&mut state, device("a", Availability::Unavailable));
        assert_eq!(state.devices.len(), 1);
        take_device(&mut state, device("b", Availability::Unavailable));
        assert_eq!(state.device("b").map(|device| device.availability), Some(Availability::Unavailable));
        take_device(&mut state, device("c", Availability::Available));
        assert_eq!(state.devices.len(), 1);
        for n in 0..100 {
            take_device(&mut state, device(&n.to_string(), Availability::Available));
        }
        assert_eq!(state.devices.len(), DEVICES_PER_CONTACT);
    }
}
