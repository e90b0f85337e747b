//! Reading a presence document: which element means what, and what is skipped (RFC 3863 §4.2.3).

use std::borrow::Cow;

use super::{
    Activities, Activity, Basic, Contact, Device, Limits, Note, Person, Pidf, PidfFault, StatusChild, Tuple,
    UserInput,
    xml::{Element, Event, Space, Xml, trim},
};
use crate::body::{self, BodyFault};

/// Reads a document in the encoding that it declares.
pub fn read(octets: &[u8], limits: &Limits) -> Result<Pidf, PidfFault> {
    read_text(&decode(octets)?, limits)
}

/// The text of a document by itself, without a Content-Type that says more of it.
pub(super) fn decode(octets: &[u8]) -> Result<Cow<'_, str>, PidfFault> {
    body::xml_text(octets).map_err(|fault| match fault {
        BodyFault::Unsupported(_) => PidfFault::Encoding,
        BodyFault::Malformed(_) | BodyFault::TooBig(_) => PidfFault::NotText,
    })
}

/// Reads a document that was decoded; the encoding that it declares counts for nothing.
///
/// Any prefix will do; what is unknown is skipped whole. Odd documents are taken: the namespace with a trailing
/// colon, no `entity`, tuples without id or contact, priorities and times that are none, elements of RPID in any place.
pub fn read_text(text: &str, limits: &Limits) -> Result<Pidf, PidfFault> {
    let mut reader = Reader { xml: Xml::new(text, limits)?, limits };
    let mut pidf = None;
    // Text outside the root is a fault of the document, so the root is the first event.
    while let Some(event) = reader.xml.next()? {
        match event {
            Event::Start(root) if root.is(Space::Pidf, "presence") => pidf = Some(reader.presence()?),
            Event::Start(root) if root.is(Space::Presentity, "presentity") => {
                pidf = Some(reader.presentity()?);
            }
            Event::Start(_) => {
                // Well-formedness first: what is broken is said to be broken.
                reader.xml.skip()?;
            }
            Event::Text(_) | Event::End => {}
        }
    }
    pidf.ok_or(PidfFault::NotPidf)
}

pub(super) struct Reader<'a> {
    pub(super) xml: Xml<'a>,
    limits: &'a Limits,
}

impl<'a> Reader<'a> {
    /// The next child of the innermost element; `None` at its end. Text between children means nothing.
    pub(super) fn child(&mut self) -> Result<Option<Element<'a>>, PidfFault> {
        loop {
            match self.xml.next()? {
                Some(Event::Start(element)) => return Ok(Some(element)),
                Some(Event::Text(_)) => {}
                Some(Event::End) | None => return Ok(None),
            }
        }
    }

    fn presence(&mut self) -> Result<Pidf, PidfFault> {
        let mut pidf = Pidf { entity: text_of(self.xml.take("entity")), ..Pidf::default() };
        while let Some(element) = self.child()? {
            match (element.space, element.local) {
                (Space::Pidf, "tuple") => {
                    let tuple = self.tuple()?;
                    pidf.tuples.retain(|other| other.id.is_empty() || other.id != tuple.id);
                    self.push("tuples", self.limits.tuples, &mut pidf.tuples, tuple)?;
                }
                (Space::Pidf, "note") => self.note(&mut pidf.notes)?,
                (Space::DataModel | Space::Pidf | Space::Rpid, "person") => {
                    let mut person = Person { id: text_of(self.xml.take("id")), ..Person::default() };
                    self.person(&mut person)?;
                    pidf.person = Some(person);
                }
                (Space::DataModel, "device") => {
                    let device = self.device()?;
                    self.push("devices", self.limits.children, &mut pidf.devices, device)?;
                }
                // Some leave the person out around what it does.
                (Space::Rpid, name) if is_activity(name) => {
                    let person = pidf.person.get_or_insert_default();
                    self.activity(name, &mut person.activities, &mut person.user_input)?;
                }
                _ => self.xml.skip()?,
            }
        }
        Ok(pidf)
    }

    fn tuple(&mut self) -> Result<Tuple, PidfFault> {
        let mut tuple = Tuple { id: text_of(self.xml.take("id")), ..Tuple::default() };
        while let Some(element) = self.child()? {
            match (element.space, element.local) {
                (Space::Pidf, "status") => self.status(&mut tuple)?,
                (Space::Pidf, "contact") => tuple.contact = self.contact()?,
                (Space::Pidf, "note") => self.note(&mut tuple.notes)?,
                (Space::Pidf, "timestamp") => tuple.timestamp = self.word()?,
                (Space::DataModel, "deviceID") => {
                    if let Some(id) = self.word()? {
                        self.push("device ids", self.limits.children, &mut tuple.device_ids, id)?;
                    }
                }
                (Space::Rpid, name) if is_activity(name) => {
                    self.activity(name, &mut tuple.activities, &mut tuple.user_input)?;
                }
                _ => self.xml.skip()?,
            }
        }
        Ok(tuple)
    }

    fn status(&mut self, tuple: &mut Tuple) -> Result<(), PidfFault> {
        while let Some(element) = self.child()? {
            match (element.space, element.local) {
                (Space::Pidf, "basic") => {
                    tuple.basic = match trim(&self.xml.read_text()?) {
                        "open" => Some(Basic::Open),
                        "closed" => Some(Basic::Closed),
                        _ => tuple.basic,
                    };
                }
                (Space::Pidf | Space::None | Space::Xml, _) => self.xml.skip()?,
                // Where the drafts of RPID have it.
                (Space::Rpid, name) if is_activity(name) => {
                    self.activity(name, &mut tuple.activities, &mut tuple.user_input)?;
                }
                _ => {
                    if let Some(child) = self.foreign(element)? {
                        let children = &mut tuple.status_children;
                        self.push("children of a status", self.limits.children, children, child)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// An extension, which none of us may know: its own text. One with a child that must be understood is void.
    fn foreign(&mut self, element: Element<'a>) -> Result<Option<StatusChild>, PidfFault> {
        let mut text = String::new();
        let mut is_void = false;
        loop {
            match self.xml.next()? {
                Some(Event::Text(more)) => text.push_str(&more),
                Some(Event::Start(child)) => {
                    is_void |= child.must_understand();
                    self.xml.skip()?;
                }
                Some(Event::End) | None => break,
            }
        }
        let (namespace, name) = (element.namespace.into_owned().into(), element.local.to_owned().into());
        Ok((!is_void).then_some(StatusChild { namespace, name, text: text.into() }))
    }

    fn contact(&mut self) -> Result<Option<Contact>, PidfFault> {
        let priority_thousandths = self.xml.take("priority").and_then(|text| thousandths(trim(&text)));
        Ok(self.word()?.map(|uri| Contact { uri, priority_thousandths }))
    }

    /// A note of the innermost element's parent, which is `notes`.
    fn note(&mut self, notes: &mut Vec<Note>) -> Result<(), PidfFault> {
        let lang = self.xml.language().map(str::to_owned);
        let text = self.xml.read_text()?;
        if text.is_empty() {
            return Ok(());
        }
        self.push("notes", self.limits.children, notes, Note { lang, text })
    }

    /// An element of RPID that says what is done, or when something was done last.
    fn activity(
        &mut self,
        name: &str,
        activities: &mut Activities,
        user_input: &mut Option<UserInput>,
    ) -> Result<(), PidfFault> {
        match name {
            "activities" => self.activities(activities)?,
            "activity" => self.activity_in_words(&mut activities.values)?,
            "user-input" => *user_input = self.user_input()?,
            // `<idle since='…'/>` of the drafts.
            _ => {
                let last_input = self.xml.take("since").map(|text| trim(&text).to_owned());
                self.xml.skip()?;
                *user_input = Some(UserInput { is_idle: true, last_input, idle_threshold: None });
            }
        }
        Ok(())
    }

    fn activities(&mut self, activities: &mut Activities) -> Result<(), PidfFault> {
        let (from, until) = (self.xml.take("from"), self.xml.take("until"));
        let mut words = String::new();
        let mut is_void = false;
        loop {
            let element = match self.xml.next()? {
                Some(Event::Start(element)) => element,
                Some(Event::Text(more)) => {
                    words.push_str(&more);
                    continue;
                }
                Some(Event::End) | None => break,
            };
            match (element.space, element.local) {
                (Space::Rpid | Space::Pidf, "note") => self.note(&mut activities.notes)?,
                (Space::Rpid, "activity") => self.activity_in_words(&mut activities.values)?,
                (Space::Rpid, "other") => {
                    let other = Activity::Other(self.xml.read_text()?);
                    self.push("activities", self.limits.children, &mut activities.values, other)?;
                }
                (space, name) => {
                    let known = Activity::from_name(name).filter(|_| space == Space::Rpid);
                    is_void |= known.is_none() && element.must_understand();
                    self.xml.skip()?;
                    // Somebody does something, even if we don't know what.
                    let activity = known.unwrap_or_else(|| Activity::Other(name.to_owned()));
                    self.push("activities", self.limits.children, &mut activities.values, activity)?;
                }
            }
        }
        if let Some(activity) = Activity::from_words(&words) {
            self.push("activities", self.limits.children, &mut activities.values, activity)?;
        }
        if is_void {
            *activities = Activities { values: vec![Activity::Unknown], ..Activities::default() };
        } else if !activities.is_empty() {
            activities.from = from.map(|text| text.into_owned());
            activities.until = until.map(|text| text.into_owned());
        }
        Ok(())
    }

    fn activity_in_words(&mut self, values: &mut Vec<Activity>) -> Result<(), PidfFault> {
        match Activity::from_words(&self.xml.read_text()?) {
            Some(activity) => self.push("activities", self.limits.children, values, activity),
            None => Ok(()),
        }
    }

    fn user_input(&mut self) -> Result<Option<UserInput>, PidfFault> {
        let last_input = self.xml.take("last-input").map(|text| trim(&text).to_owned());
        let idle_threshold = self.xml.take("idle-threshold").and_then(|text| trim(&text).parse().ok());
        let is_idle = match trim(&self.xml.read_text()?) {
            "idle" => true,
            "active" => false,
            _ => return Ok(None),
        };
        Ok(Some(UserInput { is_idle, last_input, idle_threshold }))
    }

    fn person(&mut self, person: &mut Person) -> Result<(), PidfFault> {
        while let Some(element) = self.child()? {
            match (element.space, element.local) {
                // Some have a status in it, as tuples do.
                (Space::Pidf | Space::DataModel | Space::Rpid, "status") => self.person(person)?,
                (Space::Rpid, name) if is_activity(name) => {
                    self.activity(name, &mut person.activities, &mut person.user_input)?;
                }
                (Space::Rpid, "mood") => {
                    person.moods.clear();
                    while let Some(mood) = self.child()? {
                        self.xml.skip()?;
                        // A mood in words of its own would need its text; it is left out.
                        if mood.space == Space::Rpid && !matches!(mood.local, "note" | "other") {
                            let name = mood.local.to_owned();
                            self.push("moods", self.limits.children, &mut person.moods, name)?;
                        }
                    }
                }
                (Space::Rpid, "place-type") => {
                    person.place_types.clear();
                    while let Some(place) = self.child()? {
                        if place.space == Space::Foreign
                            && let Some(place) = self.foreign(place)?
                        {
                            self.push("places", self.limits.children, &mut person.place_types, place)?;
                        } else {
                            self.xml.skip()?;
                        }
                    }
                }
                (Space::DataModel | Space::Pidf, "note") => self.note(&mut person.notes)?,
                (Space::DataModel | Space::Pidf, "timestamp") => person.timestamp = self.word()?,
                _ => self.xml.skip()?,
            }
        }
        Ok(())
    }

    fn device(&mut self) -> Result<Device, PidfFault> {
        let mut device = Device { id: text_of(self.xml.take("id")), ..Device::default() };
        while let Some(element) = self.child()? {
            match (element.space, element.local) {
                (Space::Rpid, "user-input") => device.user_input = self.user_input()?,
                (Space::DataModel, "deviceID") => device.device_id = self.word()?.unwrap_or_default(),
                (Space::DataModel | Space::Pidf, "note") => self.note(&mut device.notes)?,
                (Space::DataModel | Space::Pidf, "timestamp") => device.timestamp = self.word()?,
                _ => self.xml.skip()?,
            }
        }
        Ok(device)
    }

    /// The text of the innermost element without white space around it; `None` for nothing.
    fn word(&mut self) -> Result<Option<String>, PidfFault> {
        let text = self.xml.read_text()?;
        let word = trim(&text);
        Ok((!word.is_empty()).then(|| word.to_owned()))
    }

    fn push<T>(&self, what: &'static str, limit: usize, list: &mut Vec<T>, item: T) -> Result<(), PidfFault> {
        if list.len() >= limit {
            return Err(PidfFault::TooMany { what, limit });
        }
        list.push(item);
        Ok(())
    }
}

/// Elements of RPID that [`Reader::activity`] reads.
fn is_activity(name: &str) -> bool {
    matches!(name, "activities" | "activity" | "user-input" | "idle")
}

pub(super) fn text_of(attribute: Option<Cow<'_, str>>) -> String {
    attribute.map(|text| trim(&text).to_owned()).unwrap_or_default()
}

/// A decimal from 0 to 1 with at most three digits after its point, in thousandths; `None` for anything else.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = fraction.bytes().all(|octet| octet.is_ascii_digit());
    if !matches!(whole, "0" | "1") || fraction.len() > 3 || !is_digits {
        return None;
    }
    let fraction = format!("{fraction:0<3}").parse::<u16>().ok()?;
    let value = if whole == "1" { 1000 } else { 0 } + fraction;
    (value <= 1000).then_some(value)
}
