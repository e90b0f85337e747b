//! A presence state as a PIDF document and back (RFC 8048 §6.2, RFC 3863, RFC 4480).

use std::borrow::Cow;

use sha2::{Digest, Sha256};
use tombolo_budget::Octets;
use tombolo_fanout::ViewId;
use tombolo_presence::{Address, Availability, Device, Note, PresenceState, cut_text};
use tombolo_sip::{
    body::BodyFault,
    headers::is_language_tag,
    pidf::{self, Activity, Basic, Contact, Pidf, PidfFault, StatusChild, Tuple},
    uri::UriRef,
};
use tombolo_xmpp::stanza::Show;

use crate::{
    activity,
    address::{address_of_uri, resource_from, write_device, write_uri},
    tuple_id::{resource_of, write_tuple_id},
};

/// What an available XMPP resource with this `<show/>` is.
pub fn availability_of(show: Option<Show>) -> Availability {
    match show {
        None => Availability::Available,
        Some(Show::Chat) => Availability::Chat,
        Some(Show::Away) => Availability::Away,
        Some(Show::Xa) => Availability::ExtendedAway,
        Some(Show::Dnd) => Availability::DoNotDisturb,
    }
}

/// Writes documents; the same presentity and view is written once.
#[derive(Debug)]
pub struct PidfWriter {
    /// The most that a document may take.
    limit: usize,
    last: Option<(Address, ViewId)>,
    body: Vec<u8>,
    /// Filled anew for each document, so that its texts and lists keep their room.
    document: Pidf,
}

impl PidfWriter {
    /// A writer of documents for messages of at most `max_message_bytes` octets.
    pub fn new(max_message_bytes: usize) -> Self {
        let limit = max_message_bytes.saturating_sub(HEAD_LEN).max(max_message_bytes / 2);
        Self { limit, last: None, body: Vec::new(), document: Pidf::default() }
    }

    /// The document of `state`, the content of `view`.
    pub fn document(&mut self, presentity: &Address, view: ViewId, state: &PresenceState) -> &[u8] {
        let is_same = self.last.as_ref().is_some_and(|(known, of)| *of == view && known == presentity);
        if !is_same {
            self.write(presentity, state);
            self.last = Some((presentity.clone(), view));
        }
        &self.body
    }

    /// A document that has no view of its own.
    pub fn closing_document(&mut self, presentity: &Address, state: &PresenceState) -> &[u8] {
        self.write(presentity, state);
        self.last = None;
        &self.body
    }

    fn write(&mut self, presentity: &Address, state: &PresenceState) {
        self.body.clear();
        fill_document(&mut self.document, presentity, state);
        pidf::write(&self.document, &mut self.body);
        if self.body.len() <= self.limit {
            return;
        }
        // Escapes, tuple ids and contacts can make a document several times as long as what it tells.
        let mut room = state.octets();
        while self.body.len() > self.limit && room > 64 {
            room /= 2;
            let mut shorter = state.clone();
            shorter.fit(room);
            self.body.clear();
            fill_document(&mut self.document, presentity, &shorter);
            pidf::write(&self.document, &mut self.body);
        }
    }
}

/// Room for the head of a request.
const HEAD_LEN: usize = 8192;

/// The document that tells of `state`: one tuple a device (STOX-P-43).
pub fn document_of(presentity: &Address, state: &PresenceState) -> Pidf {
    let mut document = Pidf::default();
    fill_document(&mut document, presentity, state);
    document
}

fn fill_document(document: &mut Pidf, presentity: &Address, state: &PresenceState) {
    document.entity.clear();
    write_uri("pres:", presentity, &mut document.entity);
    document.tuples.resize_with(state.devices.len(), Tuple::default);
    for (tuple, device) in document.tuples.iter_mut().zip(&state.devices) {
        fill_tuple(tuple, presentity, device);
    }
    fill_notes(&mut document.notes, state.notes.iter());
}

fn fill_tuple(tuple: &mut Tuple, presentity: &Address, device: &Device) {
    let (show, activity) = match device.availability {
        Availability::Chat => (Some("chat"), None),
        Availability::Away => (Some("away"), Some(Activity::Away)),
        Availability::ExtendedAway => (Some("xa"), Some(Activity::Away)),
        Availability::DoNotDisturb => (Some("dnd"), Some(Activity::Busy)),
        Availability::Available | Availability::Unavailable => (None, None),
    };
    tuple.id.clear();
    write_tuple_id(&device.id, &mut tuple.id);
    tuple.basic = Some(if device.availability.is_open() { Basic::Open } else { Basic::Closed });
    tuple.status_children.clear();
    tuple.status_children.extend(show.map(|show| StatusChild {
        namespace: CLIENT_NAMESPACE.into(),
        name: "show".into(),
        text: show.into(),
    }));
    tuple.activities.values.clear();
    tuple.activities.values.extend(activity);
    let mut uri = tuple.contact.take().map(|contact| contact.uri).unwrap_or_default();
    uri.clear();
    write_uri("sip:", presentity, &mut uri);
    write_device(Some(&*device.id), &mut uri);
    tuple.contact = Some(Contact { uri, priority_thousandths: device.priority.and_then(pidf_priority) });
    fill_notes(&mut tuple.notes, device.notes.iter().filter(|note| !note.text.is_empty()));
}

fn fill_notes<'a>(notes: &mut Vec<pidf::Note>, known: impl Iterator<Item = &'a Note> + Clone) {
    notes.resize_with(known.clone().count(), || pidf::Note { lang: None, text: String::new() });
    for (note, known) in notes.iter_mut().zip(known) {
        note.lang = known.lang.as_deref().map(Into::into);
        note.text.clear();
        note.text.push_str(&known.text);
    }
}

/// Reads the text of a presence document. `expected` is whom it must be about (STOX-P-52).
pub fn state_of_document(text: &str, expected: Option<&Address>) -> Result<PresenceState, BodyFault> {
    let document = pidf::read_text(text, &pidf::Limits::default()).map_err(|fault| match fault {
        PidfFault::TooBig { .. } => BodyFault::TooBig("the presence document is too long"),
        _ => BodyFault::Malformed("the presence document cannot be read"),
    })?;
    if let Some(expected) = expected
        && !document.entity.is_empty()
        && !is_entity(&document.entity, expected)
    {
        return Err(BodyFault::Malformed("the presence document is about somebody else"));
    }
    Ok(state_of(&document))
}

/// Whether a document names `expected`: by a URI, or by the bare address, as some do.
fn is_entity(entity: &str, expected: &Address) -> bool {
    let is_it = |uri: &str| {
        let found = UriRef::parse(uri).ok().and_then(|uri| address_of_uri(&uri).ok());
        found.is_some_and(|found| found.address == *expected)
    };
    is_it(entity) || is_it(&format!("sip:{entity}"))
}

/// What a document says, neutrally.
pub fn state_of(document: &Pidf) -> PresenceState {
    let person = document.person.as_ref();
    let mut state = PresenceState::default();
    for tuple in document.tuples.iter().take(DEVICES_PER_DOCUMENT) {
        let activities = if tuple.activities.is_empty() {
            person.map(|person| &person.activities.values[..]).unwrap_or_default()
        } else {
            &tuple.activities.values
        };
        let Some(availability) = availability_in(tuple, activities) else { continue };
        let input = tuple.user_input.as_ref().or(person.and_then(|person| person.user_input.as_ref()));
        let idle_since = input.filter(|input| input.is_idle).and_then(|input| input.last_input.as_deref());
        state.set(Device {
            id: device_of(&tuple.id, &state),
            availability,
            priority: tuple.contact.as_ref().and_then(|c| c.priority_thousandths).map(xmpp_priority),
            notes: tuple.notes.iter().take(NOTES_PER_DEVICE).map(note_in).collect(),
            idle_since: idle_since.and_then(crate::time::seconds_of),
        });
    }
    let notes = if document.notes.is_empty() {
        person.map(|person| &person.notes[..]).unwrap_or_default()
    } else {
        &document.notes
    };
    state.notes = notes.iter().take(NOTES_PER_DEVICE).map(note_in).collect();
    state
}

/// A device for a tuple, by an id that can be a resource: the tuple's own, else one that is made of it and stays the
/// same from document to document. Tuples without any are told apart by their order.
fn device_of(id: &str, others: &PresenceState) -> Box<str> {
    let wanted = resource_of(id);
    if wanted.is_empty() {
        let names = (1..).map(|number| match number {
            1 => "device".to_owned(),
            _ => format!("device~{number}"),
        });
        let free = names.into_iter().find(|name| others.device(name).is_none());
        return free.unwrap_or_default().into();
    }
    resource_from(&wanted).filter(|resource| resource.len() <= LONGEST_ID).unwrap_or_else(|| {
        let digest = Sha256::digest(wanted.as_bytes());
        let name: String = digest[..8].iter().map(|octet| format!("{octet:02x}")).collect();
        format!("device-{name}").into()
    })
}

/// Leaves room for what tells devices of one name apart.
const LONGEST_ID: usize = 1000;

/// Gives a language to the notes that name none: that of the request which brought them (STOX-P-48).
pub fn in_language(mut state: PresenceState, lang: Option<&str>) -> PresenceState {
    let Some(lang) = lang.filter(|lang| is_language_tag(lang)) else { return state };
    let notes = state.devices.iter_mut().flat_map(|device| &mut device.notes).chain(&mut state.notes);
    for note in notes.filter(|note| note.lang.is_none()) {
        note.lang = Some(lang.into());
    }
    state
}

/// Content-Language of a document: the languages of its notes (RFC 3261 §20.13). `None` where one of them is not told.
pub fn language_of(state: &PresenceState) -> Option<Cow<'_, str>> {
    let mut notes = state.devices.iter().flat_map(|device| &device.notes).chain(&state.notes);
    let first = tag_of(notes.next()?)?;
    if notes.clone().all(|note| note.lang.as_deref() == Some(first)) {
        return Some(Cow::Borrowed(first));
    }
    let mut tags = vec![first];
    for note in notes {
        let tag = tag_of(note)?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    (tags.len() <= MAX_LANGUAGES).then(|| Cow::Owned(tags.join(", ")))
}

fn tag_of(note: &Note) -> Option<&str> {
    note.lang.as_deref().filter(|lang| is_language_tag(lang))
}

fn note_in(note: &pidf::Note) -> Note {
    note_of(note.lang.as_deref(), &note.text)
}

/// A note as it is kept: not longer than [`NOTE_LEN`], and in a language only where that is named as such.
pub fn note_of(lang: Option<&str>, text: &str) -> Note {
    Note {
        lang: lang.filter(|lang| is_language_tag(lang)).map(Into::into),
        text: cut_text(text, NOTE_LEN).into(),
    }
}

/// Octets of a note, in UTF-8. A longer one ends with `…`.
pub const NOTE_LEN: usize = 2048;
/// Notes of one device or person: one for each language.
pub const NOTES_PER_DEVICE: usize = 8;

/// How available a tuple is: `<show/>` says it exactly (STOX-P-46), else the activities do (STOX-P-59). `None` where
/// nothing in it says anything, as in tuples that only carry extensions.
fn availability_in(tuple: &Tuple, activities: &[Activity]) -> Option<Availability> {
    if tuple.basic == Some(Basic::Closed) {
        return Some(Availability::Unavailable);
    }
    let said = |is_meant: fn(&StatusChild) -> bool| {
        tuple.status_children.iter().find(|child| is_meant(child)).map(|child| child.text.trim())
    };
    match said(|child| child.namespace == CLIENT_NAMESPACE && child.name == "show") {
        Some("chat") => return Some(Availability::Chat),
        Some("away") => return Some(Availability::Away),
        Some("xa") => return Some(Availability::ExtendedAway),
        Some("dnd") => return Some(Availability::DoNotDisturb),
        _ => {}
    }
    // The example of RFC 3863 §4.3 has such a status, and some devices took it up.
    let in_words = said(|child| child.name == "im" && child.namespace.ends_with(":im"));
    let in_words = in_words.and_then(Activity::from_words);
    let busiest =
        activities.iter().chain(&in_words).map(activity::availability_of).max_by_key(activity::rank);
    match (tuple.basic, busiest) {
        (Some(_), found) => Some(found.unwrap_or(Availability::Available)),
        // What the person does makes no device of it.
        (None, found) => found.filter(|_| !tuple.activities.is_empty() || in_words.is_some()),
    }
}

/// Maps an XMPP `<priority/>` (-128 to 127) to a PIDF contact priority in thousandths (0 to 1000).
///
/// Negative priorities have no PIDF counterpart and give `None` (RFC 8048 §6.2, note 6).
pub fn pidf_priority(xmpp: i8) -> Option<u16> {
    let step = u16::try_from(xmpp).ok()?;
    // 127 × 1000 does not fit 16 bits.
    Some((u32::from(step) * 1000 / 127) as u16)
}

/// Maps a PIDF contact priority in thousandths back to an XMPP `<priority/>`, 0 to 127.
pub fn xmpp_priority(thousandths: u16) -> i8 {
    let thousandths = u32::from(thousandths.min(1000));
    i8::try_from((thousandths * 127 + 500) / 1000).unwrap_or(i8::MAX)
}

/// The namespace that RFC 8048 §6.2 gives `<show/>` in a PIDF document, whatever the stanza's was.
const CLIENT_NAMESPACE: &str = "jabber:client";
/// Languages that one header field tells of.
const MAX_LANGUAGES: usize = 8;
const DEVICES_PER_DOCUMENT: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn state_of_body(body: &[u8], expected: Option<&Address>) -> Result<PresenceState, BodyFault> {
        state_of_document(std::str::from_utf8(body).expect("UTF-8"), expected)
    }

    fn romeo() -> Address {
        Address::from_prepared("romeo@sip.example").expect("legal")
    }

    fn device(id: &str, availability: Availability, priority: Option<i8>) -> Device {
        Device { id: id.into(), availability, priority, notes: Vec::new(), idle_since: None }
    }

    fn round_trip(state: &PresenceState) -> PresenceState {
        let mut body = Vec::new();
        pidf::write(&document_of(&romeo(), state), &mut body);
        state_of_body(&body, Some(&romeo())).expect("our own document is legal")
    }

    #[test]
    fn stox_p_49_priority_maps_one_to_one() {
        let mut last = None;
        for xmpp in 0..=127_i8 {
            let thousandths = pidf_priority(xmpp).expect("not negative");
            assert!(last < Some(thousandths), "{xmpp} is not above the one before");
            last = Some(thousandths);
            assert_eq!(xmpp_priority(thousandths), xmpp);
        }
        for (xmpp, thousandths) in
            [(-1, None), (0, Some(0)), (1, Some(7)), (2, Some(15)), (126, Some(992)), (127, Some(1000))]
        {
            assert_eq!(pidf_priority(xmpp), thousandths, "xmpp priority {xmpp}");
        }
    }

    #[test]
    fn stox_p_41_stox_p_46_availability_crosses_both_ways() {
        for availability in [
            Availability::Chat,
            Availability::Available,
            Availability::Away,
            Availability::ExtendedAway,
            Availability::DoNotDisturb,
            Availability::Unavailable,
        ] {
            let mut state = PresenceState::default();
            state.set(device("7", availability, None));
            assert_eq!(round_trip(&state), state, "{availability:?}");
        }
        assert_eq!(availability_of(None), Availability::Available);
    }

    #[test]
    fn stox_p_43_two_resources_are_two_tuples_and_one_that_left_is_none() {
        let mut state = PresenceState::default();
        state.set(device("a b", Availability::Away, Some(5)));
        state.set(device("é/x", Availability::Available, Some(127)));
        assert_eq!(document_of(&romeo(), &state).tuples.len(), 2);
        assert_eq!(round_trip(&state), state);
        state.remove("a b");
        assert_eq!(document_of(&romeo(), &state).tuples.len(), 1);
    }

    #[test]
    fn stox_p_50_a_tuple_with_priority_has_a_contact() {
        let mut state = PresenceState::default();
        state.set(device("phone", Availability::Available, Some(127)));
        let contact = document_of(&romeo(), &state).tuples[0].contact.clone().expect("a contact");
        assert_eq!(contact.uri, "sip:romeo@sip.example;gr=phone");
        assert_eq!(contact.priority_thousandths, Some(1000));
    }

    #[test]
    fn stox_p_47_notes_keep_their_languages() {
        let mut state = PresenceState::default();
        let mut phone = device("phone", Availability::Away, None);
        phone.notes = vec![
            Note { lang: Some("en".into()), text: "out <to> lunch".into() },
            Note { lang: Some("cs".into()), text: "oběd".into() },
        ];
        state.set(phone);
        assert_eq!(round_trip(&state), state);
    }

    #[test]
    fn stox_p_48_a_document_tells_every_language_of_its_notes_or_none() {
        let state = |langs: &[Option<&str>]| {
            let notes = langs.iter().map(|lang| Note { lang: lang.map(Into::into), text: "x".into() });
            PresenceState { notes: notes.collect(), ..PresenceState::default() }
        };
        for (langs, expected) in [
            (&[][..], None),
            (&[Some("cs")], Some("cs")),
            (&[Some("cs"), Some("cs")], Some("cs")),
            (&[Some("cs"), Some("en"), Some("cs")], Some("cs, en")),
            (&[Some("cs"), None], None),
            (&[None, Some("cs")], None),
            (&[Some("cs"), Some("e\r\nX: y")], None),
            (&["a", "b", "c", "d", "e", "f", "g", "h", "i"].map(Some), None),
        ] {
            assert_eq!(language_of(&state(langs)).as_deref(), expected, "{langs:?}");
        }
    }

    #[test]
    fn stox_p_52_a_document_about_somebody_else_is_refused() {
        let mut body = Vec::new();
        pidf::write(&document_of(&romeo(), &PresenceState::default()), &mut body);
        let other = Address::from_prepared("mercutio@sip.example").expect("legal");
        assert!(state_of_body(&body, Some(&other)).is_err());
        assert!(state_of_body(&body, Some(&romeo())).is_ok());
    }

    #[test]
    fn stox_p_60_broken_documents_are_refused() {
        for body in [
            &b"<presence"[..],
            b"",
            b"<!DOCTYPE a [<!ENTITY b 'c'>]><presence xmlns='urn:ietf:params:xml:ns:pidf'>&b;</presence>",
            b"<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:romeo@sip.example'><tuple></presence>",
        ] {
            assert!(state_of_body(body, Some(&romeo())).is_err());
        }
    }

    #[test]
    fn stox_p_59_activities_say_how_reachable_somebody_is() {
        for (activity, availability) in [
            ("away", Availability::Away),
            ("busy", Availability::DoNotDisturb),
            ("on-the-phone", Availability::DoNotDisturb),
            ("meeting", Availability::DoNotDisturb),
            ("presentation", Availability::DoNotDisturb),
            ("vacation", Availability::ExtendedAway),
            ("permanent-absence", Availability::ExtendedAway),
        ] {
            let body = format!(
                "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:romeo@sip.example' \
                 xmlns:dm='urn:ietf:params:xml:ns:pidf:data-model' xmlns:r='urn:ietf:params:xml:ns:pidf:rpid'>\
                 <tuple id='t'><status><basic>open</basic></status></tuple>\
                 <dm:person id='p'><r:activities><r:{activity}/></r:activities></dm:person></presence>"
            );
            let state = state_of_body(body.as_bytes(), None).expect("legal");
            assert_eq!(state.devices[0].availability, availability, "{activity}");
        }
    }

    fn availability_of_one(namespaces: &str, inside: &str) -> Vec<(String, Availability)> {
        let body = format!(
            "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='sip:romeo@sip.example' \
             xmlns:dm='urn:ietf:params:xml:ns:pidf:data-model' xmlns:r='urn:ietf:params:xml:ns:pidf:rpid' \
             {namespaces}>{inside}</presence>"
        );
        let state = state_of_document(&body, Some(&romeo())).expect("legal");
        state.devices.iter().map(|device| (device.id.to_string(), device.availability)).collect()
    }

    #[test]
    fn busy_in_the_dialect_of_a_microsoft_server_is_do_not_disturb() {
        let document = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" \
            xmlns:ep=\"urn:ietf:params:xml:ns:pidf:status:rpid-status\" \
            xmlns:ci=\"urn:ietf:params:xml:ns:pidf:cipid\" entity=\"sip:romeo@sip.example\"><tuple id=\"0\"><status>\
            <basic>open</basic><ep:activities><ep:activity>busy</ep:activity></ep:activities></status></tuple>\
            <ci:display-name>Romeo</ci:display-name></presence>";
        let state = state_of_document(document, Some(&romeo())).expect("legal");
        assert_eq!(state.devices[0].availability, Availability::DoNotDisturb);
    }

    #[test]
    fn the_person_of_an_asterisk_counts_and_its_extra_tuple_is_no_device() {
        let namespaces = "xmlns:pp='urn:ietf:params:xml:ns:pidf:person' \
            xmlns:es='urn:ietf:params:xml:ns:pidf:rpid:status:rpid-status' \
            xmlns:ep='urn:ietf:params:xml:ns:pidf:rpid:rpid-person'";
        let extra =
            "<tuple id='digium-presence'><status><digium_presence type='away' subtype=''/></status></tuple>";
        for (activities, availability) in [
            ("<ep:activities><ep:busy/></ep:activities>", Availability::DoNotDisturb),
            ("<ep:activities>ep:busy</ep:activities>", Availability::DoNotDisturb),
            ("<ep:activities><ep:away/></ep:activities>", Availability::Away),
            ("", Availability::Available),
        ] {
            let inside = format!(
                "<pp:person><status>{activities}</status></pp:person><note>Ready</note><tuple id='6002'>\
                 <contact priority='1'>sip:6002@10.24.18.124</contact><status><basic>open</basic></status></tuple>{extra}"
            );
            assert_eq!(
                availability_of_one(namespaces, &inside),
                [("6002".to_owned(), availability)],
                "{activities}"
            );
        }
    }

    #[test]
    fn an_unknown_activity_is_never_available() {
        for activities in [
            "<r:unknown/>",
            "<r:yodelling/>",
            "<x:skiing xmlns:x='urn:x'/>",
            "<x:skiing xmlns:x='urn:x' mustUnderstand='1'/>",
            "<r:working/><r:yodelling/>",
            "<r:other>painting</r:other>",
            "<r:other/>",
            "<r:activity>Be right back</r:activity>",
            "painting",
        ] {
            let open = "<status><basic>open</basic></status>";
            let tuple = format!("<tuple id='t'>{open}<r:activities>{activities}</r:activities></tuple>");
            let person = format!(
                "<tuple id='t'>{open}</tuple><dm:person id='p'><r:activities>{activities}</r:activities></dm:person>"
            );
            for inside in [tuple, person] {
                assert_eq!(
                    availability_of_one("", &inside),
                    [("t".to_owned(), Availability::Away)],
                    "{inside}"
                );
            }
        }
    }

    #[test]
    fn words_of_servers_and_devices_say_how_available_somebody_is() {
        for (words, availability) in [
            ("in-a-meeting", Availability::DoNotDisturb),
            ("Do not disturb", Availability::DoNotDisturb),
            ("on the phone", Availability::DoNotDisturb),
            ("out-of-office", Availability::ExtendedAway),
            ("off-work", Availability::ExtendedAway),
            ("Online", Availability::Available),
            ("be-right-back", Availability::Away),
            ("idle", Availability::Away),
        ] {
            let inside = format!(
                "<tuple id='t'><status><basic>open</basic><r:activity>{words}</r:activity></status></tuple>"
            );
            assert_eq!(availability_of_one("", &inside), [("t".to_owned(), availability)], "{words}");
        }
        let im = "<tuple id='t'><status><basic>open</basic><i:im xmlns:i='urn:ietf:params:xml:ns:pidf:im'>busy</i:im>\
                  </status></tuple>";
        assert_eq!(availability_of_one("", im), [("t".to_owned(), Availability::DoNotDisturb)]);
    }

    #[test]
    fn a_tuple_that_says_nothing_is_no_device() {
        for inside in
            ["<tuple id='t'/>", "<tuple id='t'><status/></tuple>", "<tuple id='t'><note>x</note></tuple>"]
        {
            let person = "<dm:person id='p'><r:activities><r:away/></r:activities></dm:person>";
            assert_eq!(availability_of_one("", &format!("{inside}{person}")), [], "{inside}");
        }
        let doing = "<tuple id='t'><status/><r:activities><r:busy/></r:activities></tuple>";
        assert_eq!(availability_of_one("", doing), [("t".to_owned(), Availability::DoNotDisturb)]);
    }

    #[test]
    fn a_document_may_name_its_subject_without_a_scheme() {
        for (entity, is_right) in [
            ("romeo@sip.example", true),
            ("sip:romeo@sip.example", true),
            ("pres:romeo@sip.example", true),
            ("", true),
            ("mercutio@sip.example", false),
            ("romeo", false),
            ("romeo@sip.example@elsewhere", false),
        ] {
            let document = format!("<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='{entity}'/>");
            assert_eq!(state_of_document(&document, Some(&romeo())).is_ok(), is_right, "{entity}");
        }
    }

    #[test]
    fn no_document_is_longer_than_a_message_may_be() {
        let mut state = PresenceState::default();
        for n in 0..32 {
            let mut device = device(&format!("{n}{}", "&".repeat(500)), Availability::Away, None);
            device.notes.push(Note { lang: None, text: "<".repeat(2000).into() });
            state.set(device);
        }
        let mut writer = PidfWriter::new(65_536);
        let body = writer.closing_document(&romeo(), &state);
        assert!((10_000..=57_344).contains(&body.len()), "{} octets", body.len());
        assert!(!state_of_body(body, Some(&romeo())).expect("legal").devices.is_empty());
    }
}
