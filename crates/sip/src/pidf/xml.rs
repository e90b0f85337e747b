//! A strict reader of one small XML document, aware of namespaces.
//!
//! Text goes in, start tags, text and ends come out. quick-xml cuts the document into pieces and matches end tags;
//! all else that XML 1.0 and Namespaces in XML 1.0 ask of a document is checked here. There is no DTD, no entity
//! but the five, and nothing is fetched. The text has been decoded, so the encoding that it declares is not looked at.

use std::borrow::Cow;

use quick_xml::{Reader, events::Event as Piece};

mod lexical;

pub use self::lexical::is_ncname;
use self::lexical::{
    XML, attribute_value, character_of, find_illegal, ill, is_digits, is_encoding_name, is_space,
    split_attribute, split_name, trim_start, with_line_ends,
};
pub(super) use self::lexical::{is_bindable, is_language, is_legal, trim};
use super::{Limits, PidfFault};

/// Namespaces that the reader of presence documents knows, each with those of the drafts that came before it, which
/// are still sent; anything else is foreign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    /// No namespace.
    None,
    /// PIDF (RFC 3863), also with the trailing colon of its §4.1.1.
    Pidf,
    /// The data model (RFC 4479).
    DataModel,
    /// RPID (RFC 4480). Its drafts had one namespace for each place where its elements stand.
    Rpid,
    /// The presence of Microsoft's servers before they had PIDF (MS-SIP §2.2.1).
    Presentity,
    /// What the prefix `xml` means.
    Xml,
    /// Any other.
    Foreign,
}

impl Space {
    fn of(uri: &str) -> Self {
        match uri {
            "" => Self::None,
            super::PIDF
            | "urn:ietf:params:xml:ns:pidf:"
            | "urn:ietf:params:xml:ns:cpim-pidf"
            | "urn:ietf:params:xml:ns:cpim-pidf:" => Self::Pidf,
            super::DATA_MODEL
            | "urn:ietf:params:xml:ns:pidf:person"
            | "urn:ietf:params:xml:ns:pidf:device" => Self::DataModel,
            super::RPID => Self::Rpid,
            "http://schemas.microsoft.com/2002/09/sip/presence" => Self::Presentity,
            XML => Self::Xml,
            _ if is_rpid_draft(uri) => Self::Rpid,
            _ => Self::Foreign,
        }
    }
}

/// `…:pidf:status:rpid-status`, `…:pidf:rpid:rpid-person`, `…:pidf:rpid-tuple` and their kin.
fn is_rpid_draft(uri: &str) -> bool {
    let is_rpid = |part: &str| part == "rpid" || part.starts_with("rpid-");
    uri.starts_with("urn:") && uri.contains("pidf") && uri.split(':').any(is_rpid)
}

#[derive(Debug, Clone)]
struct Binding<'a> {
    depth: usize,
    prefix: &'a str,
    uri: Cow<'a, str>,
    space: Space,
}

#[derive(Debug)]
struct Attribute<'a> {
    prefix: &'a str,
    local: &'a str,
    value: Cow<'a, str>,
}

/// A start tag.
#[derive(Debug)]
pub(super) struct Element<'a> {
    /// Its namespace.
    pub(super) space: Space,
    /// The name of that namespace; empty for none.
    pub(super) namespace: Cow<'a, str>,
    /// Its name without prefix.
    pub(super) local: &'a str,
    must_understand: bool,
}

impl Element<'_> {
    /// Whether it is `local` of `space`.
    pub(super) fn is(&self, space: Space, local: &str) -> bool {
        self.space == space && self.local == local
    }

    /// Whether it says that who does not know it must not read around it (RFC 3863 §4.2.3). The attribute is taken
    /// with and without the PIDF namespace.
    pub(super) fn must_understand(&self) -> bool {
        self.must_understand
    }
}

/// What the document consists of.
#[derive(Debug)]
pub(super) enum Event<'a> {
    Start(Element<'a>),
    /// Character data; adjacent pieces come one by one.
    Text(Cow<'a, str>),
    /// The end of the innermost element.
    End,
}

/// The reader.
pub(super) struct Xml<'a> {
    text: &'a str,
    pieces: Reader<&'a [u8]>,
    limits: Limits,
    bindings: Vec<Binding<'a>>,
    /// Those of the last start tag.
    attributes: Vec<Attribute<'a>>,
    /// `xml:lang` in force, with the depth at which it was said.
    languages: Vec<(usize, Option<&'a str>)>,
    depth: usize,
    has_root: bool,
    /// An empty element's end is still to be told.
    owes_end: bool,
}

impl<'a> Xml<'a> {
    /// Checks size and characters of the whole.
    pub(super) fn new(text: &'a str, limits: &Limits) -> Result<Self, PidfFault> {
        if text.len() > limits.octets {
            return Err(PidfFault::TooBig { len: text.len(), limit: limits.octets });
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // The cutter would leave out a second mark without counting it, and all places behind it would be wrong.
        if text.starts_with('\u{feff}') {
            return Err(ill(0, "text outside the root element"));
        }
        if let Some(at) = find_illegal(text) {
            return Err(PidfFault::IllFormed { at, what: "a character that XML does not allow" });
        }
        let mut pieces = Reader::from_str(text);
        pieces.config_mut().enable_all_checks(true);
        Ok(Self {
            text,
            pieces,
            limits: *limits,
            bindings: vec![
                Binding { depth: 0, prefix: "", uri: Cow::Borrowed(""), space: Space::None },
                Binding { depth: 0, prefix: "xml", uri: Cow::Borrowed(XML), space: Space::Xml },
            ],
            attributes: Vec::new(),
            languages: Vec::new(),
            depth: 0,
            has_root: false,
            owes_end: false,
        })
    }

    /// The language that `xml:lang` tells for the innermost open element.
    pub(super) fn language(&self) -> Option<&'a str> {
        self.languages.last().and_then(|(_, language)| *language)
    }

    /// Takes the value of an attribute without prefix of the start tag that was the last event.
    pub(super) fn take(&mut self, local: &str) -> Option<Cow<'a, str>> {
        let found =
            self.attributes.iter_mut().find(|found| found.prefix.is_empty() && found.local == local)?;
        Some(std::mem::take(&mut found.value))
    }

    /// Gives the next event; `None` at the end of the document.
    pub(super) fn next(&mut self) -> Result<Option<Event<'a>>, PidfFault> {
        if self.owes_end {
            self.owes_end = false;
            self.close();
            return Ok(Some(Event::End));
        }
        loop {
            let at = self.position();
            let piece = self.pieces.read_event().map_err(|_| ill(at, "broken markup"))?;
            let raw = self.text.get(at..self.position()).ok_or(ill(at, "broken markup"))?;
            match piece {
                Piece::Start(_) => return self.open(at, &raw[1..raw.len() - 1]).map(Some),
                Piece::Empty(_) => {
                    self.owes_end = true;
                    return self.open(at, &raw[1..raw.len() - 2]).map(Some);
                }
                Piece::End(_) => {
                    self.close();
                    return Ok(Some(Event::End));
                }
                Piece::Text(_) if self.depth == 0 => {
                    if !raw.bytes().all(is_space) {
                        return Err(ill(at, "text outside the root element"));
                    }
                }
                Piece::Text(_) => {
                    if raw.contains("]]>") {
                        return Err(ill(at, "]]> in text"));
                    }
                    return Ok(Some(Event::Text(with_line_ends(raw))));
                }
                Piece::CData(_) | Piece::GeneralRef(_) if self.depth == 0 => {
                    return Err(ill(at, "text outside the root element"));
                }
                Piece::CData(_) => {
                    let inner = raw.strip_prefix("<![CDATA[").and_then(|raw| raw.strip_suffix("]]>"));
                    return Ok(Some(Event::Text(with_line_ends(inner.unwrap_or_default()))));
                }
                Piece::GeneralRef(_) => {
                    let name =
                        raw.strip_prefix('&').and_then(|raw| raw.strip_suffix(';')).unwrap_or_default();
                    let character = character_of(name).ok_or(PidfFault::Entity { at })?;
                    return Ok(Some(Event::Text(Cow::Owned(character.into()))));
                }
                Piece::Comment(_) => {}
                Piece::PI(instruction) => {
                    let target = instruction.target();
                    if !is_ncname(target) || target.eq_ignore_ascii_case("xml") {
                        return Err(ill(at, "a bad processing instruction"));
                    }
                }
                Piece::Decl(_) => Self::check_declaration(at, raw)?,
                Piece::DocType(_) => return Err(PidfFault::Dtd { at }),
                Piece::Eof => {
                    return match (self.depth, self.has_root) {
                        (0, true) => Ok(None),
                        _ => Err(ill(at, "the document ends too early")),
                    };
                }
            }
        }
    }

    /// Reads to the end of the innermost element and drops what is there.
    pub(super) fn skip(&mut self) -> Result<(), PidfFault> {
        let outside = self.depth;
        while self.depth >= outside {
            if self.next()?.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Reads to the end of the innermost element: its own character data, without that of elements in it.
    pub(super) fn read_text(&mut self) -> Result<String, PidfFault> {
        let mut text = String::new();
        loop {
            match self.next()? {
                Some(Event::Text(more)) if text.is_empty() => text = more.into_owned(),
                Some(Event::Text(more)) => text.push_str(&more),
                Some(Event::Start(_)) => self.skip()?,
                Some(Event::End) | None => return Ok(text),
            }
        }
    }

    fn position(&self) -> usize {
        usize::try_from(self.pieces.buffer_position()).unwrap_or(usize::MAX).min(self.text.len())
    }

    fn close(&mut self) {
        while self.bindings.last().is_some_and(|binding| binding.depth == self.depth && self.depth > 0) {
            self.bindings.pop();
        }
        while self.languages.last().is_some_and(|(depth, _)| *depth == self.depth) {
            self.languages.pop();
        }
        self.depth -= 1;
    }

    /// Opens the element of a start tag whose inside (without `<` and `>` or `/>`) is `inside`.
    fn open(&mut self, at: usize, inside: &'a str) -> Result<Event<'a>, PidfFault> {
        if self.depth == 0 && std::mem::replace(&mut self.has_root, true) {
            return Err(ill(at, "a second root element"));
        }
        if self.depth == self.limits.depth {
            return Err(PidfFault::TooDeep { limit: self.limits.depth });
        }
        self.depth += 1;
        let (name, rest) = inside.split_at(inside.bytes().position(is_space).unwrap_or(inside.len()));
        let (prefix, local) = split_name(name).ok_or(ill(at, "a bad name"))?;
        self.read_attributes(at, rest)?;
        let binding = self.binding(prefix).ok_or(ill(at, "a prefix that is not bound"))?;
        let (space, namespace) = (binding.space, binding.uri.clone());
        let must_understand = self.check_attributes(at)?;
        Ok(Event::Start(Element { space, namespace, local, must_understand }))
    }

    /// Reads the attributes of one tag; those that bind prefixes take effect.
    fn read_attributes(&mut self, at: usize, mut rest: &'a str) -> Result<(), PidfFault> {
        self.attributes.clear();
        let mut number = 0;
        loop {
            let trimmed = trim_start(rest);
            if trimmed.is_empty() {
                return Ok(());
            }
            if trimmed.len() == rest.len() {
                return Err(ill(at, "no space before an attribute"));
            }
            number += 1;
            if number > self.limits.attributes {
                return Err(PidfFault::TooMany { what: "attributes", limit: self.limits.attributes });
            }
            let (name, raw, after) = split_attribute(trimmed).ok_or(ill(at, "a bad attribute"))?;
            rest = after;
            let (prefix, local) = split_name(name).ok_or(ill(at, "a bad name"))?;
            let value = attribute_value(at, raw)?;
            match (prefix, local) {
                ("", "xmlns") => self.bind(at, "", value)?,
                ("xmlns", _) => self.bind(at, local, value)?,
                _ => self.attributes.push(Attribute { prefix, local, value }),
            }
        }
    }

    fn bind(&mut self, at: usize, prefix: &'a str, uri: Cow<'a, str>) -> Result<(), PidfFault> {
        let is_allowed = match prefix {
            "xml" => uri == XML,
            "xmlns" => false,
            "" => uri.is_empty() || is_bindable(&uri),
            _ => is_bindable(&uri),
        };
        if !is_allowed {
            return Err(ill(at, "a namespace that must not be bound so"));
        }
        let is_twice = self
            .bindings
            .iter()
            .rev()
            .take_while(|binding| binding.depth == self.depth)
            .any(|binding| binding.prefix == prefix);
        if is_twice {
            return Err(ill(at, "an attribute twice"));
        }
        if self.bindings.len() >= self.limits.bindings.saturating_add(2) {
            return Err(PidfFault::TooMany { what: "namespace bindings", limit: self.limits.bindings });
        }
        let space = Space::of(&uri);
        self.bindings.push(Binding { depth: self.depth, prefix, uri, space });
        Ok(())
    }

    fn binding(&self, prefix: &str) -> Option<&Binding<'a>> {
        self.bindings.iter().rev().find(|binding| binding.prefix == prefix)
    }

    /// Finds doubles and unbound prefixes, and reads what any element may bear. Gives `mustUnderstand`.
    fn check_attributes(&mut self, at: usize) -> Result<bool, PidfFault> {
        let mut must_understand = false;
        for (number, attribute) in self.attributes.iter().enumerate() {
            let before = &self.attributes[..number];
            if attribute.prefix.is_empty() {
                if before.iter().any(|other| other.prefix.is_empty() && other.local == attribute.local) {
                    return Err(ill(at, "an attribute twice"));
                }
                must_understand |= is_true(attribute, "mustUnderstand");
                continue;
            }
            let binding = self.binding(attribute.prefix).ok_or(ill(at, "a prefix that is not bound"))?;
            let is_twice = before.iter().any(|other| {
                !other.prefix.is_empty()
                    && other.local == attribute.local
                    && self.binding(other.prefix).is_some_and(|other| other.uri == binding.uri)
            });
            if is_twice {
                return Err(ill(at, "an attribute twice"));
            }
            must_understand |= binding.space == Space::Pidf && is_true(attribute, "mustUnderstand");
            if binding.space == Space::Xml && attribute.local == "lang" {
                let language = match &attribute.value {
                    Cow::Borrowed(language) if is_language(language) => Some(*language),
                    // None, or nothing that names a language.
                    _ => None,
                };
                self.languages.push((self.depth, language));
            }
        }
        Ok(must_understand)
    }

    /// Checks `<?xml version='1.…' encoding='…' standalone='…'?>`.
    fn check_declaration(at: usize, raw: &str) -> Result<(), PidfFault> {
        const BAD: &str = "a bad XML declaration";
        let inside = raw.strip_prefix("<?xml").and_then(|raw| raw.strip_suffix("?>"));
        let mut rest = inside.filter(|_| at == 0).ok_or(ill(at, BAD))?;
        let mut last = 0;
        loop {
            let trimmed = trim_start(rest);
            if trimmed.is_empty() {
                return if last > 0 { Ok(()) } else { Err(ill(at, BAD)) };
            }
            let (name, value, after) =
                split_attribute(trimmed).filter(|_| trimmed.len() < rest.len()).ok_or(ill(at, BAD))?;
            rest = after;
            let place = match name {
                "version" if value.strip_prefix("1.").is_some_and(is_digits) => 1,
                "encoding" if is_encoding_name(value) => 2,
                "standalone" if matches!(value, "yes" | "no") => 3,
                _ => 0,
            };
            // In this order, each once, the version always.
            if place <= last || (last == 0 && place != 1) {
                return Err(ill(at, BAD));
            }
            last = place;
        }
    }
}

fn is_true(attribute: &Attribute<'_>, local: &str) -> bool {
    attribute.local == local && matches!(&*attribute.value, "true" | "1")
}

#[cfg(test)]
mod tests;
