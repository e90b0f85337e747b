//! The characters, names, references and attributes of XML 1.0 and Namespaces in XML 1.0.
//!
//! Pieces of a document go in as text; what they mean comes out. Nothing here knows where an element begins.

use std::borrow::Cow;

use crate::pidf::PidfFault;

pub(super) const XML: &str = "http://www.w3.org/XML/1998/namespace";
pub(super) const XMLNS: &str = "http://www.w3.org/2000/xmlns/";

pub(super) fn ill(at: usize, what: &'static str) -> PidfFault {
    PidfFault::IllFormed { at, what }
}

pub(super) fn is_space(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'\r' | b'\n')
}

pub(super) fn trim_start(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\r', '\n'])
}

/// `text` without white space of XML at its ends.
pub(in crate::pidf) fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\r', '\n'])
}

pub(super) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit())
}

pub(super) fn is_encoding_name(text: &str) -> bool {
    text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
        && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"._-".contains(&octet))
}

/// Whether `text` has the form of a language tag (RFC 5646 §2.1, loosely).
pub(in crate::pidf) fn is_language(text: &str) -> bool {
    text.len() <= 64
        && text.split('-').enumerate().all(|(number, part)| {
            (1..=8).contains(&part.len())
                && part.bytes().all(|octet| {
                    if number == 0 { octet.is_ascii_alphabetic() } else { octet.is_ascii_alphanumeric() }
                })
        })
}

/// Takes `name = "value"` off the front of `text`: name, raw value and what follows.
pub(super) fn split_attribute(text: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = text.split_at(text.bytes().position(|octet| octet == b'=' || is_space(octet))?);
    let rest = trim_start(trim_start(rest).strip_prefix('=')?);
    let quote = rest.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    let (value, rest) = rest[1..].split_once(quote)?;
    Some((name, value, rest))
}

/// Splits a qualified name into prefix (perhaps empty) and local name.
pub(super) fn split_name(name: &str) -> Option<(&str, &str)> {
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

pub(super) fn is_name_start(character: char) -> bool {
    matches!(character,
        'A'..='Z' | '_' | 'a'..='z' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}'
        | '\u{370}'..='\u{37d}' | '\u{37f}'..='\u{1fff}' | '\u{200c}'..='\u{200d}' | '\u{2070}'..='\u{218f}'
        | '\u{2c00}'..='\u{2fef}' | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}'
        | '\u{10000}'..='\u{effff}')
}

pub(super) fn is_name_character(character: char) -> bool {
    is_name_start(character)
        || matches!(character,
            '-' | '.' | '0'..='9' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
}

/// Whether `uri` can be made the default namespace of an element.
pub(in crate::pidf) fn is_bindable(uri: &str) -> bool {
    !matches!(uri, "" | XML | XMLNS)
}

/// Whether XML 1.0 allows `character` (`Char`).
pub(in crate::pidf) fn is_legal(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// The first place in `text` with an octet of a character that XML does not allow.
pub(in crate::pidf) fn find_illegal(text: &str) -> Option<usize> {
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
pub(super) fn character_of(name: &str) -> Option<char> {
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
pub(super) fn with_line_ends(raw: &str) -> Cow<'_, str> {
    if raw.contains('\r') {
        Cow::Owned(raw.replace("\r\n", "\n").replace('\r', "\n"))
    } else {
        Cow::Borrowed(raw)
    }
}

/// The value of an attribute (XML 1.0 §3.3.3): references undone, bare white space made spaces.
pub(super) fn attribute_value(at: usize, raw: &str) -> Result<Cow<'_, str>, PidfFault> {
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
