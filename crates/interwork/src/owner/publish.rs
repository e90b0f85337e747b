//! Publications of the users of the built-in home (RFC 3903), and what they make together.

use std::time::Duration;

use tombolo_budget::Octets;
use tombolo_fanout::ViewId;
use tombolo_presence::{Address, Now, PresenceState};
use tombolo_sip::{
    body::{self, BodyFault, Context},
    event::publication::{
        Accepted, Change, Compositor, IfMatch, PublicationId, Publish as PublishFacts, Refusal, Settings,
    },
};
use tombolo_wheel::TimerId;

use super::{
    Owner, PeerKey, Timer,
    addresses::AddressId,
    input::SipRequest,
    output::OwnerEvent,
    pairs::{Pair, PairId},
    phones::RegisteredPhone,
    state_room::STATE_OCTETS,
};
use crate::{
    presence_to_sip::{in_language, state_of_document},
    rows::{PublicationRow, Row, encode, table},
    sip_reply::Reply,
    sip_request::{Publish, RequestFault},
};

/// What the devices of one user published.
#[derive(Debug, Default)]
pub struct Publications {
    /// The machine, with what each document says.
    pub compositor: Compositor<Document>,
    /// The user's registered phones, while registrations count as presence.
    pub registered: Vec<RegisteredPhone>,
    /// Fires when the next one runs out.
    pub timer: Option<TimerId>,
}

impl Publications {
    /// Nothing is published, and no phone is registered.
    fn is_empty(&self) -> bool {
        self.compositor.is_empty() && self.registered.is_empty()
    }

    /// The publications of one phone.
    pub(super) fn of_source<'a>(&'a self, source: &'a str) -> impl Iterator<Item = PublicationId> + 'a {
        let documents = self.compositor.iter();
        documents.filter(move |(_, document)| document.source.as_deref() == Some(source)).map(|(id, _)| id)
    }
}

/// One published document.
#[derive(Debug, Clone)]
pub struct Document {
    /// The presence document, in UTF-8, to be stored.
    pub body: Vec<u8>,
    /// Content-Language, as it came.
    pub lang: Option<String>,
    /// The instance of the phone that published it. `None` where an earlier version stored it, which did not say.
    pub source: Option<Box<str>>,
    /// What it says.
    pub state: PresenceState,
}

impl Octets for Document {
    fn octets(&self) -> usize {
        let texts = [self.lang.as_deref(), self.source.as_deref()].into_iter().flatten().map(str::len);
        size_of::<Self>() + self.body.len() + self.state.octets() + texts.sum::<usize>()
    }
}

impl Owner {
    /// PUBLISH from a phone of the user.
    pub(super) fn handle_publish(&mut self, request: &SipRequest, publish: &Publish, now: Now) {
        let user = &publish.target;
        if self.front_end_of(user).is_some() || !self.accounts.approve.contains_key(user) {
            return self.answer(request, Reply::status(404), "there is no such user at the built-in home");
        }
        if request.identity != *user {
            return self.answer(request, Reply::status(403), "only the user may publish");
        }
        let source = instance_of(&request.peer);
        let content = body::read(&request.message, Context::Presence);
        let held = self.addresses.find(user.as_str()).and_then(|id| self.users.get(&id));
        let room = self.room_for_documents(held.map_or(0, |user| user.document_octets));
        let settings = Settings {
            min_expires: self.settings.least_expires,
            max_expires: self.settings.phone_expires,
            ..Settings::default()
        };
        // Rises over restarts too, since the start number does.
        let fresh_tag = self.new_row();
        let id = self.publisher(user);
        let Some(publications) = self.users.get_mut(&id).and_then(|user| user.publications.as_mut()) else {
            return;
        };
        let facts = PublishFacts {
            is_event_known: publish.event.as_deref() == Some("presence"),
            if_match: match &publish.if_match[..] {
                [] => IfMatch::Absent,
                [tag] => IfMatch::One(tag_number(tag)),
                _ => IfMatch::Invalid,
            },
            expires: publish.expires,
            has_body: !matches!(content, Ok(None)),
            former: source.as_deref().and_then(|source| publications.of_source(source).last()),
        };
        let mut has_no_room = false;
        let outcome =
            publications.compositor.handle_publish(&facts, fresh_tag, now.instant, &settings, || {
                let content = content?.ok_or(BodyFault::Malformed("no body"))?;
                let state = state_of_document(&content.text, Some(user))?;
                let lang = content.language;
                let mut state = in_language(state, lang.as_deref());
                state.fit(STATE_OCTETS);
                let document = Document {
                    body: content.text.into_owned().into_bytes(),
                    lang,
                    source: source.clone(),
                    state,
                };
                if document.octets() > room {
                    has_no_room = true;
                    return Err(BodyFault::TooBig("there is no memory for the document"));
                }
                Ok(document)
            });
        if matches!(outcome, Err(Refusal::Body(_))) && !has_no_room {
            self.event(OwnerEvent::BadPidf);
        }
        match outcome {
            Ok(accepted) => {
                let headers =
                    [("SIP-ETag", tag_text(accepted.entity_tag)), ("Expires", accepted.expires.to_string())];
                let answer = Reply { headers: &headers, ..Reply::status(200) };
                self.store_publication(id, &accepted, now);
                match accepted.change {
                    // A tag that a restart forgets is answered 412, and the phone publishes anew.
                    Change::Refreshed(_) | Change::Nothing => self.answer(request, answer, ""),
                    _ => self.accept_when_stored(request, &answer),
                }
                if let Some(user) = self.users.get_mut(&id)
                    && let (Some(publications), Some(source)) = (&mut user.publications, &source)
                {
                    publications.note_publisher(source);
                }
                if let Change::Added(added) = accepted.change {
                    self.drop_sourceless_twins(id, added);
                }
                if !matches!(accepted.change, Change::Refreshed(_) | Change::Nothing) {
                    self.compose(id);
                }
            }
            Err(_) if has_no_room => self.refuse_for_room(request, "there is no memory for the document"),
            Err(refusal) => self.refuse_publish(request, &refusal),
        }
        self.arm_publications(id);
        self.drop_user_if_idle(id);
    }

    fn refuse_publish(&mut self, request: &SipRequest, refusal: &Refusal) {
        if let Refusal::Body(fault) = refusal {
            return self.answer_fault(request, &RequestFault::of_body(*fault, Context::Presence));
        }
        let header = match refusal {
            Refusal::TooBrief { min_expires } => Some(("Min-Expires", min_expires.to_string())),
            Refusal::BadEvent => Some(("Allow-Events", "presence".to_owned())),
            Refusal::TooMany { .. } => Some(("Retry-After", "60".to_owned())),
            _ => None,
        };
        let headers: Vec<_> = header.into_iter().collect();
        self.answer(
            request,
            Reply { headers: &headers, ..Reply::status(refusal.status()) },
            refusal.reason(),
        );
    }

    /// Stores a publication as it stands, or that it ended.
    fn store_publication(&mut self, id: AddressId, accepted: &Accepted, now: Now) {
        let user = self.addresses.address(id).clone();
        let (publication, is_gone) = match accepted.change {
            Change::Added(at) | Change::Refreshed(at) | Change::Modified(at) => (at, false),
            Change::Removed(at) => (at, true),
            Change::Nothing => return,
        };
        let body = self
            .users
            .get(&id)
            .and_then(|user| user.publications.as_ref()?.compositor.body(publication))
            .map(|document| (document.body.clone(), document.lang.clone(), document.source.clone()));
        let (body, lang, source) = body.unwrap_or_default();
        let row = PublicationRow {
            user: user.clone(),
            number: publication.0,
            entity_tag: accepted.entity_tag,
            expires_at: self.time(now) + u64::from(accepted.expires),
            body,
            lang,
            source,
        };
        let value = (!is_gone).then(|| encode(&row));
        self.lazy.push(publication_row(&user, publication.0, value));
    }

    /// A publication of an earlier version does not say which phone it is of. An initial publication that names a device
    /// of it is taken to be of the same phone.
    fn drop_sourceless_twins(&mut self, id: AddressId, added: PublicationId) {
        let Some(publications) = self.users.get_mut(&id).and_then(|user| user.publications.as_mut()) else {
            return;
        };
        let Some(new) = publications.compositor.body(added) else { return };
        let is_twin = |document: &Document| {
            document.source.is_none()
                && new.state.devices.iter().any(|device| document.state.device(&device.id).is_some())
        };
        let twins: Vec<PublicationId> = publications
            .compositor
            .iter()
            .filter(|(publication, document)| *publication != added && is_twin(document))
            .map(|(publication, _)| publication)
            .collect();
        self.drop_some_publications(id, &twins);
    }

    /// Removes publications without composing the user's state anew.
    pub(super) fn drop_some_publications(&mut self, id: AddressId, gone: &[PublicationId]) {
        let Some(publications) = self.users.get_mut(&id).and_then(|user| user.publications.as_mut()) else {
            return;
        };
        let user = self.addresses.address(id);
        for publication in gone {
            publications.compositor.remove(*publication);
            self.lazy.push(publication_row(user, publication.0, None));
        }
    }

    pub(super) fn handle_publication_due(&mut self, id: AddressId, now: Now) {
        let Some(user) = self.users.get_mut(&id) else { return };
        let Some(publications) = &mut user.publications else { return };
        publications.timer = None;
        let mut gone = Vec::new();
        while let Some((publication, _)) = publications.compositor.handle_timeout(now.instant) {
            gone.push(publication.0);
        }
        let address = self.addresses.address(id).clone();
        self.lazy.extend(gone.iter().map(|number| publication_row(&address, *number, None)));
        if !gone.is_empty() {
            self.compose(id);
        }
        self.arm_publications(id);
        self.drop_user_if_idle(id);
    }

    pub(super) fn arm_publications(&mut self, id: AddressId) {
        let Some(publications) = self.users.get_mut(&id).and_then(|user| user.publications.as_mut()) else {
            return;
        };
        if let Some(timer) = publications.timer.take() {
            self.wheel.cancel(timer);
        }
        if let Some(deadline) = publications.compositor.poll_timeout() {
            publications.timer = Some(self.wheel.insert(deadline, Timer::Publication(id)));
        }
    }

    /// Makes the user's state of all publications and registrations anew and shows it to whom it concerns.
    pub(super) fn compose(&mut self, id: AddressId) {
        self.count_documents(id);
        let Some(user) = self.users.get(&id) else { return };
        let documents = user.publications.iter().flat_map(|publications| publications.compositor.iter());
        let mut state = composed(documents.map(|(_, document)| &document.state));
        for device in user.publications.iter().flat_map(|publications| publications.registered_devices()) {
            if state.device(&device.id).is_none() {
                state.set(device);
            }
        }
        state.fit(STATE_OCTETS);
        if state == user.state {
            return;
        }
        let view = self.intern(state.clone());
        let Some(user) = self.users.get_mut(&id) else { return };
        let old = std::mem::replace(&mut user.view, view);
        user.state = state;
        let pairs = user.pairs.clone();
        self.shard.views.release(old);
        let mut cuts: Vec<(tombolo_policy::Detail, ViewId)> = Vec::new();
        for pair_id in pairs {
            let Some(pair) = self.pairs.pair(pair_id) else { continue };
            // Made anew in a later slice.
            let verdict = match self.has_old_verdict(pair_id) {
                true => {
                    let (user, contact) = (pair.user, pair.contact);
                    self.verdict(self.addresses.address(user), self.addresses.address(contact))
                }
                false => pair.verdict,
            };
            if !(pair.subscription.is_from() && verdict.may_watch_user) {
                continue;
            }
            if pair.is_local() {
                for at in self.dialogs_of(pair_id, true) {
                    self.refresh_dialog_view(at);
                }
                continue;
            }
            let (watch, detail) = (pair.watch, verdict.detail);
            let cut = match cuts.iter().find(|(known, _)| *known == detail) {
                Some((_, view)) => *view,
                None => {
                    let view = self.intern(detail.cut(&self.users[&id].state));
                    cuts.push((detail, view));
                    view
                }
            };
            self.shard.handle_change(watch, cut);
        }
        for (_, view) in cuts {
            self.shard.views.release(view);
        }
    }

    /// Finds out anew what the documents of a user take.
    fn count_documents(&mut self, id: AddressId) {
        let Some(user) = self.users.get_mut(&id) else { return };
        let documents = user.publications.iter().flat_map(|publications| publications.compositor.iter());
        let octets = documents.map(|(_, document)| document.octets()).sum();
        let before = std::mem::replace(&mut user.document_octets, octets);
        self.published_octets = self.published_octets + octets - before;
    }

    /// Gives a pair's contact the view of the user that it may see now: none when the policy forbids it.
    pub(super) fn show_user(&mut self, id: PairId) {
        let Some(pair) = self.pairs.pair(id) else { return };
        if !pair.subscription.is_from() || pair.is_local() {
            return;
        }
        let watch = pair.watch;
        if !pair.may_see() {
            return self.shard.handle_change(watch, ViewId::EMPTY);
        }
        let state = match self.upstreams.upstream(pair.upstream) {
            Some(upstream) => self.shard.views.content(upstream.view).clone(),
            None => self.user_state(pair.user, pair),
        };
        let view = self.cut_view(id, &state);
        self.shard.handle_change(watch, view);
        self.shard.views.release(view);
    }

    /// What the user's publications say, uncut.
    pub(super) fn user_state(&self, user: AddressId, _pair: &Pair) -> PresenceState {
        self.users.get(&user).map(|user| user.state.clone()).unwrap_or_default()
    }

    /// The user, who holds publications from now on. These hold the address: a user without pairs must not find its
    /// number given to somebody else.
    pub(super) fn publisher(&mut self, user: &Address) -> AddressId {
        let id = self.addresses.intern(user);
        let publications = &mut self.users.entry(id).or_default().publications;
        if publications.is_some() {
            self.addresses.release(id);
        }
        publications.get_or_insert_default();
        id
    }

    /// Forgets what the user published.
    pub(super) fn drop_publications(&mut self, id: AddressId) {
        let Some(publications) = self.users.get_mut(&id).and_then(|user| user.publications.as_mut()) else {
            return;
        };
        let gone = std::mem::take(&mut **publications);
        if let Some(timer) = gone.timer {
            self.wheel.cancel(timer);
        }
        let user = self.addresses.address(id);
        let rows = gone.compositor.iter().map(|(at, _)| publication_row(user, at.0, None));
        self.lazy.extend(rows);
        self.compose(id);
        self.drop_user_if_idle(id);
    }

    pub(super) fn drop_user_if_idle(&mut self, id: AddressId) {
        self.count_documents(id);
        let Some(user) = self.users.get_mut(&id) else { return };
        if user.publications.as_ref().is_some_and(|publications| publications.is_empty()) {
            user.publications = None;
            self.addresses.release(id);
        }
        if user.pairs.is_empty() && user.publications.is_none() {
            let view = user.view;
            self.users.remove(&id);
            self.shard.views.release(view);
        }
    }

    /// Takes back a stored publication.
    pub(super) fn restore_publication(&mut self, row: PublicationRow, now: Now) {
        let text = std::str::from_utf8(&row.body);
        let Some(state) = text.ok().and_then(|text| state_of_document(text, Some(&row.user)).ok()) else {
            // An earlier version could read it; nobody will again.
            return self.lazy.push(publication_row(&row.user, row.number, None));
        };
        let state = in_language(state, row.lang.as_deref());
        let left = Duration::from_secs(row.expires_at.saturating_sub(self.time(now)));
        let id = self.publisher(&row.user);
        let Some(publications) = self.users.get_mut(&id).and_then(|user| user.publications.as_mut()) else {
            return;
        };
        let publication = PublicationId(row.number);
        let document = Document { body: row.body, lang: row.lang, source: row.source, state };
        publications.compositor.restore(publication, row.entity_tag, now.instant + left, document);
        self.compose(id);
        self.arm_publications(id);
    }
}

/// What tells the phones of one user apart; `None` for a peer that is no phone.
fn instance_of(peer: &PeerKey) -> Option<Box<str>> {
    match peer {
        PeerKey::Phone(phone) => Some(phone.instance.clone()),
        PeerKey::FrontEnd(_) => None,
    }
}

fn publication_row(user: &Address, number: u32, value: Option<Vec<u8>>) -> Row {
    let mut key = user.as_str().as_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(&number.to_be_bytes());
    Row { partition: user.partition(), table: table::PUBLICATION, key, value }
}

/// All devices of all documents; while two documents name the same device, the later one gets `~2`, `~3`, … The note
/// about the person is that of the newest document that has one.
fn composed<'a>(documents: impl Iterator<Item = &'a PresenceState>) -> PresenceState {
    let mut whole = PresenceState::default();
    for state in documents {
        for device in &state.devices {
            let mut device = device.clone();
            let wanted = device.id.clone();
            let mut number = 2;
            while whole.device(&device.id).is_some() {
                device.id = format!("{wanted}~{number}").into();
                number += 1;
            }
            whole.set(device);
        }
        if !state.notes.is_empty() {
            whole.notes.clone_from(&state.notes);
        }
    }
    whole
}

fn tag_text(tag: u64) -> String {
    format!("{tag:016x}")
}

fn tag_number(text: &str) -> Option<u64> {
    (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use tombolo_presence::{Availability, Device, Note};

    use super::*;

    fn document(id: &str, note: &str) -> PresenceState {
        let mut state = PresenceState::default();
        state.set(Device {
            id: id.into(),
            availability: Availability::Available,
            priority: None,
            notes: Vec::new(),
            idle_since: None,
        });
        if !note.is_empty() {
            state.notes.push(Note { lang: None, text: note.into() });
        }
        state
    }

    #[test]
    fn two_devices_of_one_name_stand_apart_and_the_newest_note_counts() {
        let whole = composed([document("phone", "old"), document("phone", "new"), document("pc", "")].iter());
        let ids: Vec<&str> = whole.devices.iter().map(|device| &*device.id).collect();
        assert_eq!(ids, ["pc", "phone", "phone~2"]);
        assert_eq!(&*whole.notes[0].text, "new");
    }

    #[test]
    fn entity_tags_come_back_and_other_texts_do_not() {
        assert_eq!(tag_number(&tag_text(42)), Some(42));
        for text in ["", "42", "zzzzzzzzzzzzzzzz", "+00000000000002a"] {
            assert_eq!(tag_number(text).filter(|tag| tag_text(*tag) == text), None, "{text:?}");
        }
    }
}
