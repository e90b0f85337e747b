//! What leaves by a lane that got credit: stanzas toward a partner, NOTIFYs toward a SIP peer.

use std::io::Write as _;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tombolo_fanout::{LaneId, Update, ViewId};
use tombolo_presence::{Address, Now, PresenceState, SubscriptionKind};
use tombolo_sip::event::{Reason, SubscriptionState, Substate};

use super::{
    Asked, LaneKey, Owner, PeerWay, Timer,
    addresses::{AddressId, Addresses},
    dialogs::{Dialog, DialogTexts, Flight, Phase},
    output::{NOTIFY_BRANCH, Output, OwnerEvent},
    pairs::{Pair, PairId, mark},
    presence_in::unknown_state,
    watchers::DIALOG_BIT,
};
use crate::{
    message_to_sip::head_len,
    presence_to_sip::{PidfWriter, language_of},
    presence_to_xmpp::{Halves, bare_presence, difference},
    request::RequestDraft,
    short_notes::with_short_notes,
    token::{Token, TokenKind, TokenText},
};

/// The stanzas that bring anybody from one view of a user to another.
type Differences = HashMap<(AddressId, ViewId, ViewId, bool), Vec<Halves>, RandomState>;

impl Owner {
    /// Writes what `key` is owed, up to `bytes`.
    pub(super) fn render(&mut self, key: &LaneKey, bytes: usize, now: Now) {
        let Some(&lane) = self.lanes.ids.get(key) else { return };
        self.freshen_owed(lane, now);
        match key {
            LaneKey::Session { .. } => self.render_stanzas(key, lane, bytes, now),
            LaneKey::Peer(_) => self.render_notifies(lane, bytes, now),
        }
    }

    fn render_stanzas(&mut self, key: &LaneKey, lane: LaneId, grant: usize, now: Now) {
        let mut out = Vec::with_capacity(grant.min(64 * 1024) + 512);
        let mut count = 0;
        let (mut said, mut probed) = (Vec::new(), Vec::new());
        let mut differences = Differences::default();
        let limit = self.max_stanza_bytes(key);
        let Self { shard, pairs, addresses, .. } = self;
        shard.poll_lane(lane, grant, |update| {
            let before = out.len();
            let id = PairId(update.owner);
            if let Some(pair) = pairs.pair_mut(id) {
                let is_probed = pair.has(mark::PROBE);
                if write_pair(pair, &update, addresses, limit, &mut differences, &mut out, &mut count) {
                    said.push(id);
                }
                if is_probed {
                    probed.push(id);
                }
            }
            out.len() - before
        });
        self.confirm_later(said, now);
        self.arm_probes(probed, now);
        if count > 0 {
            self.event(OwnerEvent::PresenceToXmpp(count));
        }
        self.out.push_back(Output::Stanzas { lane: key.clone(), count, bytes: out });
    }

    fn render_notifies(&mut self, lane: LaneId, grant: usize, now: Now) {
        let lane_state = self.lanes.lane(lane);
        let LaneKey::Peer(peer) = lane_state.key.clone() else { return };
        // Credit for a peer that is gone meanwhile: the lane asks again, and gets it when the peer is back.
        let Some(way) = lane_state.way.clone() else {
            self.shard.poll_lane(lane, 0, |_| 0);
            return;
        };
        let mut out = Vec::with_capacity(if way.is_reliable { grant.min(64 * 1024) + 2048 } else { 0 });
        let mut written = Vec::new();
        let mut drafts = Vec::new();
        let mut pidf = PidfWriter::new(self.settings.max_sip_bytes);
        let time = self.time(now);
        let max_len = self.settings.datagram_message_bytes;
        let mut cut = Vec::new();
        let Self { shard, pairs, addresses, dialogs, .. } = self;
        shard.poll_lane(lane, grant, |update| {
            let at = update.owner & !DIALOG_BIT;
            let Some(dialog) = dialogs.dialog_mut(at) else { return 0 };
            let Some(pair) = pairs.pair(dialog.pair) else { return 0 };
            let notify = NotifyWriter::new(dialog, pair, addresses, time);
            let body = notify.body(&update, &mut pidf);
            let lang = language_of(update.views.content(update.to)).filter(|_| !body.is_empty());
            dialog.local_cseq += 1;
            dialog.flight = match dialog.flight {
                _ if dialog.is_ending() => Flight::Last,
                Flight::Unanswered => Flight::Again,
                _ => Flight::Open,
            };
            written.push((at, update.watch));
            if way.is_reliable {
                let before = out.len();
                notify.write(dialog, &way, lang.as_deref(), body, &mut out);
                out.len() - before
            } else {
                let mut draft = notify.draft(dialog, lang.as_deref(), body);
                if !way.takes_large
                    && cut_notes(&mut draft, max_len, notify.shown(&update), notify.presentity, &mut pidf)
                {
                    cut.push((at, notify.watcher.clone()));
                }
                let len = draft.body.len() + 600;
                drafts.push((dialog.row, dialog.local_cseq, draft));
                len
            }
        });
        if !way.is_reliable {
            self.lanes.lane_mut(lane).note_cut(&written, &cut);
        }
        let milliseconds = self.milliseconds(now);
        let give_up = now.instant + self.settings.notify_timeout;
        let count = written.len() as u32;
        for (at, watch) in written {
            self.shard.hold(watch);
            // A datagram's transaction says itself when it gives up.
            let timer = way.is_reliable.then(|| self.wheel.insert(give_up, Timer::DialogActivity(at)));
            if let Some(dialog) = self.dialogs.dialog_mut(at) {
                dialog.notified_at = milliseconds;
                dialog.activity = timer;
            }
        }
        if count > 0 {
            self.event(OwnerEvent::PresenceToSip(count));
        }
        if !cut.is_empty() {
            self.out.push_back(Output::WantStream { peer: peer.clone() });
        }
        for (_, watcher) in cut {
            self.event(OwnerEvent::NotesCut { watcher });
        }
        for (row, cseq, draft) in drafts {
            let request = self.new_request(Asked::Notify { row, cseq });
            self.out.push_back(Output::Request { peer: peer.clone(), request, draft: Box::new(draft) });
        }
        let count = if way.is_reliable { count } else { 0 };
        self.out.push_back(Output::Notifies { peer, count, bytes: out });
    }
}

/// Writes what a pair's contact is owed; true when a subscription stanza was among it.
fn write_pair(
    pair: &mut Pair,
    update: &Update<'_, PresenceState>,
    addresses: &Addresses,
    limit: usize,
    differences: &mut Differences,
    out: &mut Vec<u8>,
    count: &mut u32,
) -> bool {
    let user = addresses.address(pair.user).as_str();
    let contact = addresses.address(pair.contact).as_str();
    let mut write_bare = |kind: &str, out: &mut Vec<u8>| {
        bare_presence(kind, user, contact, out);
        *count += 1;
    };
    let (asking, granting) = (pair.asking_due(), pair.granting_due());
    if let Some(kind) = asking {
        write_bare(kind_name(kind), out);
    }
    // `subscribed` goes before the state that it allows, `unsubscribed` after the `unavailable` that ends it.
    if granting == Some(SubscriptionKind::Subscribed) {
        write_bare("subscribed", out);
    }
    let ends = granting == Some(SubscriptionKind::Unsubscribed);
    let shows_state = update.from != update.to || (update.whole && (pair.subscription.is_from() || ends));
    if shows_state {
        let key = (pair.user, update.from, update.to, update.whole);
        let halves = differences.entry(key).or_insert_with(|| {
            let (old, new) = (update.views.content(update.from), update.views.content(update.to));
            difference(user, old, new, update.whole, limit)
        });
        for half in &*halves {
            out.extend_from_slice(&half.before);
            // A prepared address holds none of the characters that XML would have escaped (RFC 7622 §3.3.1).
            out.extend_from_slice(contact.as_bytes());
            out.extend_from_slice(&half.after);
            *count += 1;
        }
    }
    let mut write_bare = |kind: &str, out: &mut Vec<u8>| {
        bare_presence(kind, user, contact, out);
        *count += 1;
    };
    if ends {
        write_bare("unsubscribed", out);
    }
    if pair.has(mark::PROBE) {
        pair.set(mark::PROBE, false);
        write_bare("probe", out);
    }
    pair.set(mark::ASKING_SAID, pair.asking.is_some());
    pair.set(mark::GRANTING_SAID, pair.granting.is_some());
    granting.or(asking).is_some()
}

/// The name of a subscription type.
fn kind_name(kind: SubscriptionKind) -> &'static str {
    match kind {
        SubscriptionKind::Subscribe => "subscribe",
        SubscriptionKind::Unsubscribe => "unsubscribe",
        SubscriptionKind::Subscribed => "subscribed",
        SubscriptionKind::Unsubscribed => "unsubscribed",
    }
}

/// Writes one NOTIFY of a dialog.
struct NotifyWriter<'a> {
    token: TokenText,
    state: SubscriptionState,
    /// Whom the document is about.
    presentity: &'a Address,
    watcher: &'a Address,
}

impl<'a> NotifyWriter<'a> {
    fn new(dialog: &Dialog, pair: &Pair, addresses: &'a Addresses, time: u64) -> Self {
        let partition = addresses.partition(pair.user);
        let token = Token { kind: TokenKind::Notifier, partition, row: dialog.row }.text(&dialog.mac);
        let expires = u32::try_from(u64::from(dialog.expires_at).saturating_sub(time)).unwrap_or(u32::MAX);
        let live =
            |state| SubscriptionState { state, reason: None, expires: Some(expires), retry_after: None };
        let state = match dialog.phase {
            Phase::Pending => live(Substate::Pending),
            Phase::Active => live(Substate::Active),
            Phase::Ending(reason) => SubscriptionState {
                state: Substate::Terminated,
                reason: Some(reason),
                expires: None,
                retry_after: (dialog.expires_at > 0).then_some(dialog.expires_at),
            },
        };
        let (watcher, presentity) =
            if dialog.watches_user { (pair.contact, pair.user) } else { (pair.user, pair.contact) };
        Self { token, state, presentity: addresses.address(presentity), watcher: addresses.address(watcher) }
    }

    /// The document; empty when nothing is known or may be seen.
    fn body<'b>(&self, update: &Update<'_, PresenceState>, pidf: &'b mut PidfWriter) -> &'b [u8] {
        let address = self.presentity;
        match (self.state.state, self.state.reason) {
            (Substate::Active, _) if update.to == ViewId::EMPTY => &[],
            (Substate::Active, _) => pidf.document(address, update.to, update.views.content(update.to)),
            // STOX-P-31: the end of a watch says `closed`.
            (Substate::Terminated, Some(Reason::Timeout)) if update.from != ViewId::EMPTY => {
                pidf.closing_document(address, &unknown_state(""))
            }
            _ => &[],
        }
    }

    /// The state that [`NotifyWriter::body`] tells, where it is more than that nothing is known.
    fn shown<'b>(&self, update: &'b Update<'_, PresenceState>) -> Option<&'b PresenceState> {
        (self.state.state == Substate::Active).then(|| update.views.content(update.to))
    }

    fn write(&self, dialog: &Dialog, way: &PeerWay, lang: Option<&str>, body: &[u8], out: &mut Vec<u8>) {
        let texts = dialog.texts();
        let token = self.token.as_str();
        let cseq = Decimal::new(dialog.local_cseq);
        let (uri, routes) =
            crate::request::route(texts.remote_target, dialog.routes.as_deref().map(Vec::as_slice));
        let mut push = |parts: &[&str]| parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
        push(&[
            "NOTIFY ",
            uri,
            " SIP/2.0\r\nVia: ",
            &way.via,
            ";branch=",
            NOTIFY_BRANCH,
            token,
            ".",
            cseq.text(),
        ]);
        push(&["\r\nMax-Forwards: 70\r\n"]);
        for route in routes {
            push(&["Route: ", route, "\r\n"]);
        }
        let [from, to] = self.uris(&texts);
        push(&["From: <", from[0], from[1], ">;tag=", token]);
        push(&["\r\nTo: <", to[0], to[1], ">"]);
        if !texts.remote_tag.is_empty() {
            push(&[";tag=", texts.remote_tag]);
        }
        push(&["\r\nCall-ID: ", texts.call_id, "\r\nCSeq: ", cseq.text(), " NOTIFY\r\n"]);
        push(&["Contact: <sip:", token, "@", &way.contact, ">\r\nEvent: presence"]);
        if !texts.event_id.is_empty() {
            push(&[";id=", texts.event_id]);
        }
        push(&["\r\nSubscription-State: "]);
        write!(out, "{}", self.state).expect("a Vec takes everything");
        let mut push = |parts: &[&str]| parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
        if !body.is_empty() {
            push(&["\r\nContent-Type: application/pidf+xml"]);
        }
        if let Some(lang) = lang {
            push(&["\r\nContent-Language: ", lang]);
        }
        push(&["\r\nContent-Length: ", Decimal::new(body.len() as u32).text(), "\r\n\r\n"]);
        out.extend_from_slice(body);
    }

    /// The URIs of the presentity and of the watcher, each in two pieces.
    fn uris<'b>(&'b self, texts: &DialogTexts<'b>) -> [[&'b str; 2]; 2] {
        let uri = |kept: &'b str, address: &'b Address| {
            if kept.is_empty() { ["sip:", address.as_str()] } else { [kept, ""] }
        };
        [uri(texts.local_uri, self.presentity), uri(texts.remote_uri, self.watcher)]
    }

    fn draft(&self, dialog: &Dialog, lang: Option<&str>, body: &[u8]) -> RequestDraft {
        let texts = dialog.texts();
        let (uri, routes) =
            crate::request::route(texts.remote_target, dialog.routes.as_deref().map(Vec::as_slice));
        let event = if texts.event_id.is_empty() {
            "presence".to_owned()
        } else {
            format!("presence;id={}", texts.event_id)
        };
        let [from, to] = self.uris(&texts);
        let mut headers = vec![("Event", event), ("Subscription-State", self.state.to_string())];
        headers.extend(lang.map(|lang| ("Content-Language", lang.to_owned())));
        RequestDraft {
            method: "NOTIFY",
            uri: uri.to_owned(),
            routes: routes.into_iter().map(ToOwned::to_owned).collect(),
            from: format!("<{}>;tag={}", from.concat(), self.token.as_str()),
            to: crate::request::party(&to.concat(), texts.remote_tag),
            call_id: texts.call_id.to_owned(),
            cseq: dialog.local_cseq,
            max_forwards: crate::request::MAX_FORWARDS,
            contact_user: Some(self.token.as_str().to_owned()),
            headers,
            content_type: (!body.is_empty()).then(|| "application/pidf+xml".to_owned()),
            body: Bytes::copy_from_slice(body),
        }
    }
}

/// Cuts the notes of a document that is too large for UDP, further and further until it fits; true when it did something.
pub(super) fn cut_notes(
    draft: &mut RequestDraft,
    max_len: usize,
    state: Option<&PresenceState>,
    presentity: &Address,
    pidf: &mut PidfWriter,
) -> bool {
    let Some(state) = state else { return false };
    // Most documents are small: their heads need not be written to know that.
    if draft.head_octets() + 600 + draft.body.len() <= max_len {
        return false;
    }
    let room = max_len.saturating_sub(head_len(draft));
    if draft.body.len() <= room {
        return false;
    }
    for max_chars in [200, 50, 0] {
        draft.body = pidf.closing_document(presentity, &with_short_notes(state, max_chars)).to_vec().into();
        if draft.body.len() <= room {
            break;
        }
    }
    true
}

/// A number in decimal digits, without an allocation.
struct Decimal {
    digits: [u8; 10],
    begin: usize,
}

impl Decimal {
    fn new(mut number: u32) -> Self {
        let mut digits = [b'0'; 10];
        let mut begin = digits.len();
        loop {
            begin -= 1;
            digits[begin] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return Self { digits, begin };
            }
        }
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.digits[self.begin..]).unwrap_or("0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_written_as_they_are_read() {
        for number in [0, 7, 10, 1234567890, u32::MAX] {
            assert_eq!(Decimal::new(number).text(), number.to_string());
        }
    }
}
