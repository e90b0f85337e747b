//! Writing a presence document in the order that the schema wants (RFC 3863 §4.1, §4.4).
//!
//! Whatever the texts hold, the result is one well-formed document: all is escaped, and characters that XML cannot
//! hold become U+FFFD.

use super::{
    Activities, Activity, Basic, Contact, DATA_MODEL, Device, Note, PIDF, Person, Pidf, RPID, StatusChild,
    Tuple, UserInput, parse_date_time,
    xml::{is_bindable, is_language, is_legal, is_ncname},
};

/// Appends the document to `out`, in UTF-8.
///
/// What the schema does not allow is left out: a tuple without any status, all but the last tuple of one id, a status
/// child or mood whose name is none, times that are not of RFC 3339, priorities over 1000. An id that is empty is
/// replaced by a made one; any other must be an `xs:ID` and unlike the others, which is not checked.
pub fn write(pidf: &Pidf, out: &mut Vec<u8>) {
    let mut writer = Writer { pidf, out };
    writer.raw("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<presence");
    writer.attribute("xmlns", PIDF);
    let has_device_ids = written_tuples(pidf).any(|(_, tuple)| !tuple.device_ids.is_empty());
    if pidf.person.is_some() || !pidf.devices.is_empty() || has_device_ids {
        writer.attribute("xmlns:dm", DATA_MODEL);
    }
    if needs_rpid(pidf) {
        writer.attribute("xmlns:rpid", RPID);
    }
    writer.attribute("entity", &pidf.entity);
    writer.raw(">");
    for (number, tuple) in written_tuples(pidf) {
        writer.tuple(tuple, number);
    }
    writer.notes("note", &pidf.notes);
    if let Some(person) = &pidf.person {
        writer.person(person);
    }
    for (number, device) in pidf.devices.iter().enumerate() {
        writer.device(device, number);
    }
    writer.raw("</presence>\n");
}

/// The tuples that are not left out, with their numbers.
fn written_tuples(pidf: &Pidf) -> impl Iterator<Item = (usize, &Tuple)> {
    pidf.tuples.iter().enumerate().filter(|(number, tuple)| {
        let is_replaced =
            !tuple.id.is_empty() && pidf.tuples[number + 1..].iter().any(|other| other.id == tuple.id);
        let has_status = tuple.basic.is_some() || tuple.status_children.iter().any(is_writable);
        has_status && !is_replaced
    })
}

fn needs_rpid(pidf: &Pidf) -> bool {
    let in_tuple = |(_, tuple): (usize, &Tuple)| !tuple.activities.is_empty() || tuple.user_input.is_some();
    let in_person = |person: &Person| {
        !person.activities.is_empty()
            || person.user_input.is_some()
            || !person.moods.is_empty()
            || !person.place_types.is_empty()
    };
    written_tuples(pidf).any(in_tuple)
        || pidf.person.iter().any(in_person)
        || pidf.devices.iter().any(|device| device.user_input.is_some())
}

fn is_writable(child: &StatusChild) -> bool {
    is_ncname(&child.name) && is_bindable(&child.namespace)
}

struct Writer<'a> {
    pidf: &'a Pidf,
    out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn attribute(&mut self, name: &str, value: &str) {
        self.raw(" ");
        self.raw(name);
        self.raw("=\"");
        self.escaped(value, true);
        self.raw("\"");
    }

    /// `<name>text</name>`
    fn element(&mut self, name: &str, text: &str) {
        self.raw("<");
        self.raw(name);
        self.raw(">");
        self.escaped(text, false);
        self.close(name);
    }

    fn close(&mut self, name: &str) {
        self.raw("</");
        self.raw(name);
        self.raw(">");
    }

    /// Writes `text` so that it reads as the same again: also its line ends, and white space in an attribute.
    fn escaped(&mut self, text: &str, in_attribute: bool) {
        // Most texts have nothing to escape; the loop looks at many octets together, so it has no early end.
        let is_odd = |octet: u8| !matches!(octet, b' '..=b'~') | matches!(octet, b'&' | b'<' | b'>' | b'"');
        if !text.bytes().fold(false, |found, octet| found | is_odd(octet)) {
            return self.raw(text);
        }
        let mut done = 0;
        for (at, character) in text.char_indices() {
            let instead = match character {
                '&' => "&amp;",
                '<' => "&lt;",
                '>' => "&gt;",
                '\r' => "&#13;",
                '"' if in_attribute => "&quot;",
                '\t' if in_attribute => "&#9;",
                '\n' if in_attribute => "&#10;",
                _ if is_legal(character) => continue,
                _ => "\u{fffd}",
            };
            self.raw(&text[done..at]);
            self.raw(instead);
            done = at + character.len_utf8();
        }
        self.raw(&text[done..]);
    }

    fn tuple(&mut self, tuple: &Tuple, number: usize) {
        self.raw("<tuple");
        self.id(&tuple.id, "tuple", number);
        self.raw("><status>");
        match tuple.basic {
            Some(Basic::Open) => self.raw("<basic>open</basic>"),
            Some(Basic::Closed) => self.raw("<basic>closed</basic>"),
            None => {}
        }
        for child in tuple.status_children.iter().filter(|child| is_writable(child)) {
            self.foreign(child);
        }
        self.raw("</status>");
        for id in &tuple.device_ids {
            self.element("dm:deviceID", id);
        }
        self.activities(&tuple.activities);
        self.user_input(tuple.user_input.as_ref());
        if let Some(contact) = &tuple.contact {
            self.contact(contact);
        }
        self.notes("note", &tuple.notes);
        self.timestamp("timestamp", tuple.timestamp.as_deref());
        self.raw("</tuple>");
    }

    fn id(&mut self, id: &str, kind: &str, number: usize) {
        if !id.is_empty() {
            return self.attribute("id", id);
        }
        let pidf = self.pidf;
        let ids = || {
            let tuples = pidf.tuples.iter().map(|tuple| &tuple.id);
            tuples
                .chain(pidf.person.iter().map(|person| &person.id))
                .chain(pidf.devices.iter().map(|device| &device.id))
        };
        let mut made = format!("{kind}-{number}");
        while ids().any(|id| *id == made) {
            made.push('_');
        }
        self.attribute("id", &made);
    }

    fn foreign(&mut self, child: &StatusChild) {
        self.raw("<");
        self.raw(&child.name);
        self.attribute("xmlns", &child.namespace);
        self.raw(">");
        self.escaped(&child.text, false);
        self.close(&child.name);
    }

    fn contact(&mut self, contact: &Contact) {
        self.raw("<contact");
        match contact.priority_thousandths {
            Some(1000) => self.attribute("priority", "1"),
            Some(0) => self.attribute("priority", "0"),
            Some(thousandths @ 1..1000) => {
                let digits = format!("0.{thousandths:03}");
                self.attribute("priority", digits.trim_end_matches('0'));
            }
            _ => {}
        }
        self.raw(">");
        self.escaped(&contact.uri, false);
        self.close("contact");
    }

    fn notes(&mut self, name: &str, notes: &[Note]) {
        for note in notes {
            self.raw("<");
            self.raw(name);
            if let Some(lang) = note.lang.as_deref().filter(|lang| is_language(lang)) {
                self.attribute("xml:lang", lang);
            }
            self.raw(">");
            self.escaped(&note.text, false);
            self.close(name);
        }
    }

    fn timestamp(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text.filter(|text| parse_date_time(text).is_some()) {
            self.element(name, &text.to_ascii_uppercase());
        }
    }

    fn time_attribute(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text.filter(|text| parse_date_time(text).is_some()) {
            self.attribute(name, &text.to_ascii_uppercase());
        }
    }

    fn activities(&mut self, activities: &Activities) {
        if activities.is_empty() {
            return;
        }
        self.raw("<rpid:activities");
        self.time_attribute("from", activities.from.as_deref());
        self.time_attribute("until", activities.until.as_deref());
        self.raw(">");
        self.notes("rpid:note", &activities.notes);
        for activity in &activities.values {
            match activity {
                Activity::Other(text) => self.element("rpid:other", text),
                known => self.empty(known.name()),
            }
        }
        self.close("rpid:activities");
    }

    /// `<rpid:name/>`
    fn empty(&mut self, name: &str) {
        self.raw("<rpid:");
        self.raw(name);
        self.raw("/>");
    }

    fn user_input(&mut self, input: Option<&UserInput>) {
        let Some(input) = input else { return };
        self.raw("<rpid:user-input");
        if let Some(seconds) = input.idle_threshold {
            self.attribute("idle-threshold", &seconds.to_string());
        }
        self.time_attribute("last-input", input.last_input.as_deref());
        self.raw(if input.is_idle { ">idle" } else { ">active" });
        self.close("rpid:user-input");
    }

    fn person(&mut self, person: &Person) {
        self.raw("<dm:person");
        self.id(&person.id, "person", 0);
        self.raw(">");
        self.activities(&person.activities);
        let mut moods = person.moods.iter().filter(|mood| is_ncname(mood)).peekable();
        if moods.peek().is_some() {
            self.raw("<rpid:mood>");
            for mood in moods {
                self.empty(mood);
            }
            self.close("rpid:mood");
        }
        let mut places = person.place_types.iter().filter(|place| is_writable(place)).peekable();
        if places.peek().is_some() {
            self.raw("<rpid:place-type>");
            for place in places {
                self.foreign(place);
            }
            self.close("rpid:place-type");
        }
        self.user_input(person.user_input.as_ref());
        self.notes("dm:note", &person.notes);
        self.timestamp("dm:timestamp", person.timestamp.as_deref());
        self.raw("</dm:person>");
    }

    fn device(&mut self, device: &Device, number: usize) {
        self.raw("<dm:device");
        self.id(&device.id, "device", number);
        self.raw(">");
        self.user_input(device.user_input.as_ref());
        if !device.device_id.is_empty() {
            self.element("dm:deviceID", &device.device_id);
        }
        self.notes("dm:note", &device.notes);
        self.timestamp("dm:timestamp", device.timestamp.as_deref());
        self.raw("</dm:device>");
    }
}
