//! A presence state as a PIDF document and back (RFC 8048 §6.2, RFC 3863, RFC 4480).

use sha2::{Digest, Sha256};
use tombolo_fanout::ViewId;
use tombolo_presence::{Address, Availability, Device, Note, PresenceState};
use tombolo_sip::{
    pidf::{self, Activity, Basic, Contact, Pidf, StatusChild, Tuple},
    uri::UriRef,
};
use tombolo_xmpp::stanza::Show;

use crate::{
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
#[derive(Debug, Default)]
pub struct PidfWriter {
    last: Option<(Address, ViewId)>,
    body: Vec<u8>,
    /// Filled anew for each document, so that its texts and lists keep their room.
    document: Pidf,
}

impl PidfWriter {
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
    }
}

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

/// Reads a presence body. `expected` is whom it must be about (STOX-P-52).
///
/// The error says why the document is refused, in the words of the log.
pub fn state_of_body(body: &[u8], expected: Option<&Address>) -> Result<PresenceState, &'static str> {
    let document =
        pidf::read(body, &pidf::Limits::default()).map_err(|_| "the PIDF document cannot be read")?;
    if let Some(expected) = expected
        && !document.entity.is_empty()
    {
        let entity = UriRef::parse(&document.entity).ok().and_then(|uri| address_of_uri(&uri).ok());
        if entity.is_none_or(|entity| entity.address != *expected) {
            return Err("the PIDF document is about somebody else");
        }
    }
    Ok(state_of(&document))
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
        let input = tuple.user_input.as_ref().or(person.and_then(|person| person.user_input.as_ref()));
        let idle_since = input.filter(|input| input.is_idle).and_then(|input| input.last_input.as_deref());
        state.set(Device {
            id: device_of(&tuple.id, &state),
            availability: availability_in(tuple, activities),
            priority: tuple.contact.as_ref().and_then(|c| c.priority_thousandths).map(xmpp_priority),
            notes: tuple.notes.iter().map(note_in).collect(),
            idle_since: idle_since.and_then(crate::time::seconds_of),
        });
    }
    let notes = if document.notes.is_empty() {
        person.map(|person| &person.notes[..]).unwrap_or_default()
    } else {
        &document.notes
    };
    state.notes = notes.iter().map(note_in).collect();
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

/// The language of a document as a whole: the one that all of its notes are in.
pub fn language_of(state: &PresenceState) -> Option<&str> {
    let mut notes = state.devices.iter().flat_map(|device| &device.notes).chain(&state.notes);
    let lang = notes.next()?.lang.as_deref().filter(|lang| is_language_tag(lang))?;
    notes.all(|note| note.lang.as_deref() == Some(lang)).then_some(lang)
}

/// A tag that may stand in a header (RFC 5646 §2.1): whatever else is in an XML attribute, it ends no line.
pub fn is_language_tag(lang: &str) -> bool {
    !lang.is_empty() && lang.len() <= 35 && lang.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn note_in(note: &pidf::Note) -> Note {
    Note { lang: note.lang.as_deref().map(Into::into), text: note.text.as_str().into() }
}

/// `<show/>` says it exactly (STOX-P-46); else the activities do (STOX-P-59).
fn availability_in(tuple: &Tuple, activities: &[Activity]) -> Availability {
    if tuple.basic == Some(Basic::Closed) {
        return Availability::Unavailable;
    }
    let show = tuple
        .status_children
        .iter()
        .find(|child| child.namespace == CLIENT_NAMESPACE && child.name == "show")
        .map(|child| child.text.trim());
    match show {
        Some("chat") => return Availability::Chat,
        Some("away") => return Availability::Away,
        Some("xa") => return Availability::ExtendedAway,
        Some("dnd") => return Availability::DoNotDisturb,
        _ => {}
    }
    let has = |wanted: &[Activity]| activities.iter().any(|activity| wanted.contains(activity));
    if has(&[Activity::Busy, Activity::OnThePhone, Activity::Meeting, Activity::Presentation]) {
        Availability::DoNotDisturb
    } else if has(&[Activity::Vacation, Activity::PermanentAbsence]) {
        Availability::ExtendedAway
    } else if has(&[Activity::Away]) {
        Availability::Away
    } else {
        Availability::Available
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
const DEVICES_PER_DOCUMENT: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

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
}
