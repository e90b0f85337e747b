//! The start tag of a stanza: its kind, addresses, type, id and language (RFC 6120 §8.1).

use std::borrow::Cow;

use crate::{
    ns,
    xml::{Reader, Tag},
};

/// The three kinds of stanzas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StanzaKind {
    /// `<presence/>`
    Presence,
    /// `<message/>`
    Message,
    /// `<iq/>`
    Iq,
}

impl StanzaKind {
    /// Its element's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Message => "message",
            Self::Iq => "iq",
        }
    }
}

/// What the start tag of a stanza says; addresses are as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StanzaHead<'a> {
    /// Its kind.
    pub kind: StanzaKind,
    /// Who sent it.
    pub from: Option<Cow<'a, str>>,
    /// Who is meant.
    pub to: Option<Cow<'a, str>>,
    /// Its `type`.
    pub type_attribute: Option<Cow<'a, str>>,
    /// Its id.
    pub id: Option<Cow<'a, str>>,
    /// Its `xml:lang`.
    pub lang: Option<Cow<'a, str>>,
}

/// Why bytes cannot be read as the stanza that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StanzaFault {
    /// The element is no stanza of the kind that was asked for.
    #[error("no such stanza")]
    OtherElement,
    /// It is not in `jabber:server`.
    #[error("the stanza is not in jabber:server")]
    Namespace,
    /// Its name has a prefix (RFC 6120 §4.8.5).
    #[error("the stanza's name has a prefix")]
    Prefix,
    /// Its `type` is missing where it must be, or unknown.
    #[error("the stanza's type is unknown")]
    Type,
    /// An `<iq/>` without an id, or a request that does not hold exactly one element (RFC 6120 §8.2.3).
    #[error("the iq is malformed")]
    Iq,
}

impl StanzaFault {
    /// The stanza error that tells the sender.
    pub fn condition(self) -> super::StanzaCondition {
        super::StanzaCondition::BadRequest
    }
}

impl<'a> StanzaHead<'a> {
    /// Reads the start tag of a stanza.
    pub fn read(xml: &'a [u8]) -> Result<Self, StanzaFault> {
        Self::open(xml).map(|(head, _)| head)
    }

    /// Reads the start tag; the reader stands inside the stanza.
    pub fn open(xml: &'a [u8]) -> Result<(Self, Reader<'a>), StanzaFault> {
        let text = std::str::from_utf8(xml).map_err(|_| StanzaFault::OtherElement)?;
        let (tag, reader) = Reader::open_stanza(text).ok_or(StanzaFault::OtherElement)?;
        Ok((Self::of(&tag)?, reader))
    }

    /// What a start tag says, if it is a stanza's.
    pub fn of(tag: &Tag<'a>) -> Result<Self, StanzaFault> {
        let kind = match tag.name {
            "presence" => StanzaKind::Presence,
            "message" => StanzaKind::Message,
            "iq" => StanzaKind::Iq,
            _ => return Err(StanzaFault::OtherElement),
        };
        if tag.ns != ns::SERVER {
            return Err(StanzaFault::Namespace);
        }
        if !tag.prefix.is_empty() {
            return Err(StanzaFault::Prefix);
        }
        let mut head = Self { kind, from: None, to: None, type_attribute: None, id: None, lang: None };
        for attribute in tag.attributes() {
            let place = match attribute.name {
                "from" => &mut head.from,
                "to" => &mut head.to,
                "type" => &mut head.type_attribute,
                "id" => &mut head.id,
                "xml:lang" => &mut head.lang,
                _ => continue,
            };
            *place = Some(attribute.value());
        }
        Ok(head)
    }

    /// True for `type='error'`, which is never answered (RFC 6120 §8.3.1).
    pub fn is_error(&self) -> bool {
        self.type_attribute.as_deref() == Some("error")
    }
}
