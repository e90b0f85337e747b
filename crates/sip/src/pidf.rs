//! Presence documents: PIDF (RFC 3863) with the data model (RFC 4479) and RPID (RFC 4480).
//!
//! The text of a presence document becomes a [`Pidf`] by [`read_text`], and back by [`write()`]. What is not known is
//! skipped, but for children of `<status>`, which are kept as (namespace, name, text), and activities, of which it is
//! kept that there were some. Nothing here decides what a state means, who it belongs to, or whom to show it.
//!
//! Read are also the drafts that came before the standards and are still sent (`cpim-pidf`, `rpid-status`, activities
//! as text, a person in other places), and `text/xml+msrtc.pidf`. Written are the standards only.

use std::borrow::Cow;

mod activity;
mod date_time;
mod presentity;
mod read;
mod write;
mod xml;

pub use self::{
    activity::Activity,
    date_time::{Timestamps, date_time, parse_date_time},
    read::{read, read_text},
    write::write,
    xml::is_ncname,
};

/// The media type of a presence document.
pub const MEDIA_TYPE: &str = "application/pidf+xml";
/// The namespace of PIDF, as it is written.
pub const PIDF: &str = "urn:ietf:params:xml:ns:pidf";
/// The namespace of the data model.
pub const DATA_MODEL: &str = "urn:ietf:params:xml:ns:pidf:data-model";
/// The namespace of RPID.
pub const RPID: &str = "urn:ietf:params:xml:ns:pidf:rpid";

/// A presence document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pidf {
    /// URI of the presentity; empty where the document had none.
    pub entity: String,
    /// One for each way to reach the presentity, with different ids. Of several with one id only the last is kept;
    /// those without an id have an empty one.
    pub tuples: Vec<Tuple>,
    /// Remarks on the presentity.
    pub notes: Vec<Note>,
    /// The human behind it. Of several only the last is kept.
    pub person: Option<Person>,
    /// The machines behind it.
    pub devices: Vec<Device>,
}

/// One way to reach the presentity (RFC 3863 §4.1.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tuple {
    /// Its id; to be an `xs:ID` ([`is_ncname`]) when written.
    pub id: String,
    /// Whether messages are taken.
    pub basic: Option<Basic>,
    /// What else `<status>` holds.
    pub status_children: Vec<StatusChild>,
    /// Devices that provide it (RFC 4480 §3.4).
    pub device_ids: Vec<String>,
    /// What its user does.
    pub activities: Activities,
    /// When it was last used.
    pub user_input: Option<UserInput>,
    /// Its address.
    pub contact: Option<Contact>,
    /// Remarks on it.
    pub notes: Vec<Note>,
    /// When it changed (RFC 3339), as it was written.
    pub timestamp: Option<String>,
}

/// `<basic>` (RFC 3863 §4.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Basic {
    /// `open`
    Open,
    /// `closed`
    Closed,
}

/// An element in `<status>` that PIDF does not define. Elements within it are not kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StatusChild {
    /// Its namespace; not empty.
    pub namespace: Cow<'static, str>,
    /// Its name without prefix.
    pub name: Cow<'static, str>,
    /// Its text.
    pub text: Cow<'static, str>,
}

/// `<contact>` (RFC 3863 §4.1.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Contact {
    /// Its URI, unchecked.
    pub uri: String,
    /// Its priority in thousandths, 0 to 1000.
    pub priority_thousandths: Option<u16>,
}

/// `<note>` (RFC 3863 §4.1.6).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Note {
    /// `xml:lang`, its own or that of an element around it.
    pub lang: Option<String>,
    /// The text.
    pub text: String,
}

/// `<activities>` (RFC 4480 §3.2). Empty where there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Activities {
    /// What is done, in order.
    pub values: Vec<Activity>,
    /// Remarks on it.
    pub notes: Vec<Note>,
    /// Since when (RFC 3339), as it was written.
    pub from: Option<String>,
    /// Until when (RFC 3339), as it was written.
    pub until: Option<String>,
}

impl Activities {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.notes.is_empty()
    }
}

impl FromIterator<Activity> for Activities {
    fn from_iter<I: IntoIterator<Item = Activity>>(values: I) -> Self {
        Self { values: values.into_iter().collect(), ..Self::default() }
    }
}

/// `<user-input>` (RFC 4480 §3.14).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserInput {
    /// `idle`, else `active`.
    pub is_idle: bool,
    /// Time of the last input (RFC 3339), as it was written.
    pub last_input: Option<String>,
    /// Seconds without input after which the user counts as idle.
    pub idle_threshold: Option<u32>,
}

/// `<person>` (RFC 4479 §3.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Person {
    /// Its id; to be an `xs:ID` unlike those of tuples and devices when written.
    pub id: String,
    /// What the person does.
    pub activities: Activities,
    /// Names of moods (RFC 4480 §3.5).
    pub moods: Vec<String>,
    /// Kinds of place, each an empty element of another namespace (RFC 4480 §3.7).
    pub place_types: Vec<StatusChild>,
    /// When the person last used anything.
    pub user_input: Option<UserInput>,
    /// Remarks on the person.
    pub notes: Vec<Note>,
    /// When it changed (RFC 3339), as it was written.
    pub timestamp: Option<String>,
}

/// `<device>` (RFC 4479 §3.3).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// Its id in this document; to be an `xs:ID` unlike those of tuples and the person when written.
    pub id: String,
    /// The URN that names it for ever.
    pub device_id: String,
    /// When it was last used.
    pub user_input: Option<UserInput>,
    /// Remarks on it.
    pub notes: Vec<Note>,
    /// When it changed (RFC 3339), as it was written.
    pub timestamp: Option<String>,
}

/// Bounds on a document that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Octets of the whole.
    pub octets: usize,
    /// Elements within each other.
    pub depth: usize,
    /// Attributes of one element, `xmlns` counted.
    pub attributes: usize,
    /// Namespace bindings in force at one place.
    pub bindings: usize,
    /// Tuples.
    pub tuples: usize,
    /// Things of one kind in one element: notes, activities, status children, devices.
    pub children: usize,
}

impl Default for Limits {
    /// 64 KiB, 16 deep, 32 attributes, 32 bindings, 64 tuples, 32 children of a kind.
    fn default() -> Self {
        Self { octets: 64 * 1024, depth: 16, attributes: 32, bindings: 32, tuples: 64, children: 32 }
    }
}

/// Why a presence document is refused. Places are octets from its start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PidfFault {
    /// Over [`Limits::octets`].
    #[error("a presence document of {len} octets is over the limit of {limit}")]
    TooBig {
        /// Its octets.
        len: usize,
        /// How many may be.
        limit: usize,
    },
    /// Over [`Limits::depth`].
    #[error("a presence document with more than {limit} elements within each other")]
    TooDeep {
        /// How many may be.
        limit: usize,
    },
    /// Over another of the [`Limits`].
    #[error("a presence document with more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many may be.
        limit: usize,
    },
    /// Not in the encoding that it declares, which is UTF-8 where it declares none.
    #[error("a presence document that is not in its encoding")]
    NotText,
    /// It declares an encoding that is not known.
    #[error("a presence document in an unknown encoding")]
    Encoding,
    /// There is a document type declaration.
    #[error("a document type declaration in a presence document at {at}")]
    Dtd {
        /// Where.
        at: usize,
    },
    /// A reference to an entity other than the five, or to a character that is not allowed.
    #[error("a reference in a presence document that is not resolved at {at}")]
    Entity {
        /// Where.
        at: usize,
    },
    /// Not well-formed, or not so with namespaces.
    #[error("a presence document that is not well-formed at {at}: {what}")]
    IllFormed {
        /// Where.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// The root is neither `<presence>` of PIDF nor Microsoft's `<presentity>`.
    #[error("an XML document that is no presence document")]
    NotPidf,
}

impl PidfFault {
    /// The status code of a response that refuses the body.
    pub fn status(&self) -> u16 {
        match self {
            Self::TooBig { .. } => 413,
            _ => 400,
        }
    }
}

/// What a fuzzer calls: nothing panics, and what was read and written reads as the same again.
pub fn fuzz_body(data: &[u8]) {
    let Ok(first) = read(data, &Limits::default()) else { return };
    let written = |pidf: &Pidf| {
        let mut octets = Vec::new();
        write(pidf, &mut octets);
        octets
    };
    let once = written(&first);
    // Escapes make it longer than what was read; that is no fault of what was written.
    let limits = Limits { octets: usize::MAX, ..Limits::default() };
    let again = read(&once, &limits).expect("what we write is a presence document");
    assert_eq!(written(&again), once, "a document changes when it is read and written again");
}

#[cfg(test)]
mod dialect_tests;
#[cfg(test)]
mod tests;
