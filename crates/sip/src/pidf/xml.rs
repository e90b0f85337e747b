//! A strict reader of one small XML document, aware of namespaces.
//!
//! Octets go in, start tags, text and ends come out. quick-xml cuts the document into pieces and matches end tags;
//! all else that XML 1.0 and Namespaces in XML 1.0 ask of a document is checked here. There is no DTD, no entity
//! but the five, no encoding but UTF-8, and nothing is fetched.

use std::borrow::Cow;

use quick_xml::{Reader, events::Event as Piece};

use super::{Limits, PidfFault};

/// Namespaces that the reader of presence documents knows; anything else is foreign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    /// No namespace.
    None,
    /// PIDF (RFC 3863), also with the trailing colon of its §4.1.1.
    Pidf,
    /// The data model (RFC 4479).
    DataModel,
    /// RPID (RFC 4480).
    Rpid,
    /// What the prefix `xml` means.
    Xml,
    /// Any other.
    Foreign,
}

impl Space {
    fn of(uri: &str) -> Self {
        match uri {
            "" => Self::None,
            super::PIDF | "urn:ietf:params:xml:ns:pidf:" => Self::Pidf,
            super::DATA_MODEL => Self::DataModel,
            super::RPID => Self::Rpid,
            XML => Self::Xml,
            _ => Self::Foreign,
        }
    }
}

const XML: &str = "http://www.w3.org/XML/1998/namespace";
const XMLNS: &str = "http://www.w3.org/2000/xmlns/";

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
    /// Checks size, encoding and characters of the whole.
    pub(super) fn new(octets: &'a [u8], limits: &Limits) -> Result<Self, PidfFault> {
        if octets.len() > limits.octets {
            return Err(PidfFault::TooBig { len: octets.len(), limit: limits.octets });
        }
        let text = std::str::from_utf8(octets).map_err(|_| PidfFault::NotUtf8)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
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
            let raw = &self.text[at..self.position()];
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
                Piece::Decl(_) => self.check_declaration(at, raw)?,
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
    fn check_declaration(&self, at: usize, raw: &str) -> Result<(), PidfFault> {
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
                "encoding" => {
                    let is_ours = ["utf-8", "us-ascii"].iter().any(|ours| value.eq_ignore_ascii_case(ours));
                    // A single-octet encoding that holds ASCII only reads the same.
                    let is_same = self.text.is_ascii() && !value.to_ascii_lowercase().starts_with("utf-");
                    if !is_encoding_name(value) {
                        return Err(ill(at, BAD));
                    }
                    if !is_ours && !is_same {
                        return Err(PidfFault::Encoding);
                    }
                    2
                }
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

fn ill(at: usize, what: &'static str) -> PidfFault {
    PidfFault::IllFormed { at, what }
}

fn is_space(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'\r' | b'\n')
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\r', '\n'])
}

/// `text` without white space of XML at its ends.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\r', '\n'])
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit())
}

fn is_encoding_name(text: &str) -> bool {
    text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
        && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"._-".contains(&octet))
}

fn is_true(attribute: &Attribute<'_>, local: &str) -> bool {
    attribute.local == local && matches!(&*attribute.value, "true" | "1")
}

/// Whether `text` has the form of a language tag (RFC 5646 §2.1, loosely).
pub(super) fn is_language(text: &str) -> bool {
    text.len() <= 64
        && text.split('-').enumerate().all(|(number, part)| {
            (1..=8).contains(&part.len())
                && part.bytes().all(|octet| {
                    if number == 0 { octet.is_ascii_alphabetic() } else { octet.is_ascii_alphanumeric() }
                })
        })
}

/// Takes `name = "value"` off the front of `text`: name, raw value and what follows.
fn split_attribute(text: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = text.split_at(text.bytes().position(|octet| octet == b'=' || is_space(octet))?);
    let rest = trim_start(trim_start(rest).strip_prefix('=')?);
    let quote = rest.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    let (value, rest) = rest[1..].split_once(quote)?;
    Some((name, value, rest))
}

/// Splits a qualified name into prefix (perhaps empty) and local name.
fn split_name(name: &str) -> Option<(&str, &str)> {
    let (prefix, local) = match name.split_once(':') {
        Some((prefix, _)) if !is_ncname(prefix) => return None,
        Some(parts) => parts,
        None => ("", name),
    };
    is_ncname(local).then_some((prefix, local))
}

/// Whether `text` is a name without colon (Namespaces in XML 1.0, `NCName`), as `xs:ID` demands.
pub fn is_ncname(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(is_name_start) && characters.all(is_name_character)
}

fn is_name_start(character: char) -> bool {
    matches!(character,
        'A'..='Z' | '_' | 'a'..='z' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}'
        | '\u{370}'..='\u{37d}' | '\u{37f}'..='\u{1fff}' | '\u{200c}'..='\u{200d}' | '\u{2070}'..='\u{218f}'
        | '\u{2c00}'..='\u{2fef}' | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}'
        | '\u{10000}'..='\u{effff}')
}

fn is_name_character(character: char) -> bool {
    is_name_start(character)
        || matches!(character,
            '-' | '.' | '0'..='9' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
}

/// Whether `uri` can be made the default namespace of an element.
pub(super) fn is_bindable(uri: &str) -> bool {
    !matches!(uri, "" | XML | XMLNS)
}

/// Whether XML 1.0 allows `character` (`Char`).
pub(super) fn is_legal(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// The first place in `text` with an octet of a character that XML does not allow.
pub(super) fn find_illegal(text: &str) -> Option<usize> {
    let octets = text.as_bytes();
    octets.iter().enumerate().position(|(at, octet)| match octet {
        b'\t' | b'\n' | b'\r' => false,
        0..0x20 => true,
        // U+FFFE and U+FFFF.
        0xbe | 0xbf => at >= 2 && octets[at - 2..at] == [0xef, 0xbf],
        _ => false,
    })
}

/// The character of the reference `&name;`: one of the five entities, or a legal character by number.
fn character_of(name: &str) -> Option<char> {
    let number = match name {
        "lt" => return Some('<'),
        "gt" => return Some('>'),
        "amp" => return Some('&'),
        "apos" => return Some('\''),
        "quot" => return Some('"'),
        _ => name.strip_prefix('#')?,
    };
    let number = match number.strip_prefix('x') {
        Some(digits) if digits.bytes().all(|octet| octet.is_ascii_hexdigit()) => {
            u32::from_str_radix(digits, 16).ok()?
        }
        None if is_digits(number) => number.parse().ok()?,
        _ => return None,
    };
    char::from_u32(number).filter(|character| is_legal(*character))
}

/// Line ends as XML 1.0 §2.11 wants them: each CR LF and each CR is one LF.
fn with_line_ends(raw: &str) -> Cow<'_, str> {
    if raw.contains('\r') {
        Cow::Owned(raw.replace("\r\n", "\n").replace('\r', "\n"))
    } else {
        Cow::Borrowed(raw)
    }
}

/// The value of an attribute (XML 1.0 §3.3.3): references undone, bare white space made spaces.
fn attribute_value(at: usize, raw: &str) -> Result<Cow<'_, str>, PidfFault> {
    if raw.contains('<') {
        return Err(ill(at, "< in an attribute value"));
    }
    if !raw.contains(['&', '\t', '\r', '\n']) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut value = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(stop) = rest.find(['&', '\t', '\r', '\n']) {
        value.push_str(&rest[..stop]);
        rest = &rest[stop..];
        rest = if let Some(reference) = rest.strip_prefix('&') {
            let (name, after) = reference.split_once(';').ok_or(ill(at, "& in an attribute value"))?;
            value.push(character_of(name).ok_or(PidfFault::Entity { at })?);
            after
        } else {
            value.push(' ');
            rest.strip_prefix("\r\n").unwrap_or(&rest[1..])
        };
    }
    value.push_str(rest);
    Ok(Cow::Owned(value))
}

#[cfg(test)]
mod tests;
