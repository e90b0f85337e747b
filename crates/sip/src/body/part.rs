//! One part of a body: its header fields and octets (RFC 2045, RFC 2046).
//!
//! Octets go in, slices of them come out. Line ends may be CR LF or LF: the framing is SIP's, so a lone LF cannot make
//! two readers see two different messages.

use std::borrow::Cow;

use super::{BodyFault, MAX_PARTS};

/// A part with the header fields that say how to read it, as written.
#[derive(Debug, Clone, Default)]
pub(super) struct Part<'a> {
    pub(super) content_type: Option<Cow<'a, str>>,
    pub(super) disposition: Option<Cow<'a, str>>,
    pub(super) transfer_encoding: Option<Cow<'a, str>>,
    /// Content-Encoding, in the order in which the codings were applied.
    pub(super) codings: Vec<Cow<'a, str>>,
    pub(super) language: Option<Cow<'a, str>>,
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) octets: &'a [u8],
}

impl<'a> Part<'a> {
    /// Reads header fields up to the first empty line; the rest is the content. Where the first line is no header
    /// field there are none, and everything is content.
    pub(super) fn read(octets: &'a [u8]) -> Self {
        let mut part = Self { octets, ..Self::default() };
        let mut rest = octets;
        while !rest.is_empty() {
            let (line, after) = split_line(rest);
            if line.is_empty() {
                part.octets = after;
                return part;
            }
            let Some(colon) = memchr::memchr(b':', line).filter(|_| is_header(line)) else {
                // A line that is none, behind others or in front of all: the empty line was forgotten.
                part.octets = rest;
                return part;
            };
            let (field, after) = split_folded(rest);
            part.take(&line[..colon], &field[colon + 1..]);
            rest = after;
        }
        part.octets = &[];
        part
    }

    fn take(&mut self, name: &[u8], value: &'a [u8]) {
        let value = || match unfold(value) {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
            Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
        };
        let name = name.trim_ascii_end();
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("Content-Type") {
            self.content_type = Some(value());
        } else if is("Content-Disposition") {
            self.disposition = Some(value());
        } else if is("Content-Transfer-Encoding") {
            self.transfer_encoding = Some(value());
        } else if is("Content-Encoding") {
            let codings = value();
            self.codings.extend(codings.split(',').map(|coding| Cow::Owned(coding.trim().to_owned())));
        } else if is("Content-Language") {
            self.language = Some(value());
        } else if is("Content-ID") {
            self.id = Some(value());
        }
    }
}

/// Cuts a multipart body at its delimiter lines (RFC 2046 §5.1.1). A last part without a closing delimiter is taken.
pub(super) fn split<'a>(octets: &'a [u8], boundary: &str) -> Result<Vec<&'a [u8]>, BodyFault> {
    if boundary.is_empty() || boundary.len() > MAX_BOUNDARY_LEN {
        return Err(BodyFault::Malformed("a multipart without a boundary that can be one"));
    }
    let mut parts = Vec::new();
    let mut begin = None;
    let mut rest = octets;
    while !rest.is_empty() {
        let at = octets.len() - rest.len();
        let (line, after) = split_line(rest);
        rest = after;
        let Some(is_last) = read_delimiter(line, boundary.as_bytes()) else { continue };
        if let Some(begin) = begin {
            // The line end before a delimiter belongs to it.
            parts.push(without_line_end(&octets[begin..at]));
        }
        if is_last {
            begin = None;
            break;
        }
        if parts.len() == MAX_PARTS {
            return Err(TOO_MANY);
        }
        begin = Some(octets.len() - rest.len());
    }
    parts.extend(begin.map(|begin| &octets[begin..]));
    if parts.is_empty() {
        return Err(BodyFault::Malformed("a multipart without parts"));
    }
    Ok(parts)
}

/// Whether a line is a delimiter, and if so whether it is the closing one.
fn read_delimiter(line: &[u8], boundary: &[u8]) -> Option<bool> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary)?.trim_ascii_end();
    match rest {
        b"" => Some(false),
        b"--" => Some(true),
        _ => None,
    }
}

/// The first line without its end, and what follows.
pub(super) fn split_line(octets: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'\n', octets) {
        Some(at) => (without_carriage_return(&octets[..at]), &octets[at + 1..]),
        None => (octets, &[]),
    }
}

/// The first header field with the lines that go on with it, and what follows.
fn split_folded(octets: &[u8]) -> (&[u8], &[u8]) {
    let mut end = 0;
    loop {
        end += memchr::memchr(b'\n', &octets[end..]).map_or(octets.len() - end, |at| at + 1);
        if !matches!(octets.get(end), Some(b' ' | b'\t')) {
            return (&octets[..end], &octets[end..]);
        }
    }
}

fn without_line_end(octets: &[u8]) -> &[u8] {
    octets.strip_suffix(b"\n").map_or(octets, without_carriage_return)
}

fn without_carriage_return(octets: &[u8]) -> &[u8] {
    octets.strip_suffix(b"\r").unwrap_or(octets)
}

/// Whether a line begins with a header field's name and a colon.
fn is_header(line: &[u8]) -> bool {
    let len = crate::lex::token_len(line);
    len > 0 && line[len..].trim_ascii_start().first() == Some(&b':')
}

/// A value on one line.
fn unfold(value: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(value);
    if text.trim_end().contains(['\r', '\n']) {
        return Cow::Owned(text.replace(['\r', '\n', '\t'], " "));
    }
    text
}

/// Octets of a boundary (RFC 2046 §5.1.1), with some to spare.
const MAX_BOUNDARY_LEN: usize = 200;
pub(super) const TOO_MANY: BodyFault = BodyFault::TooBig("a body of too many parts");

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Result<Vec<String>, BodyFault> {
        let parts = split(text.as_bytes(), "b")?;
        Ok(parts.into_iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect())
    }

    #[test]
    fn a_multipart_is_cut_at_its_delimiters_and_nowhere_else() {
        for (text, expected) in [
            ("--b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--\r\n", &["\r\none", "\r\ntwo"][..]),
            ("preamble\r\n--b\r\none\r\n--b--\r\nepilogue\r\n--b\r\nthree", &["one"]),
            ("--b  \t\r\none\r\n--b-- \r\n", &["one"]),
            // Lines that only look like one.
            ("--b\r\n--bc\r\n --b\r\n--b-\r\nx--b\r\n--b--", &["--bc\r\n --b\r\n--b-\r\nx--b"]),
            ("--b\none\n\n--b\ntwo\n--b--\n", &["one\n", "two"]),
            // Not closed: cut off where the message ends.
            ("--b\r\none\r\n--b\r\ntwo\r\n", &["one", "two\r\n"]),
            ("--b\r\n--b\r\n--b--", &["", ""]),
            ("--b", &[""]),
        ] {
            assert_eq!(parts(text).expect("parts"), expected, "{text:?}");
        }
        for text in ["", "one", "--c\r\none\r\n--c--", "--b--\r\n", "-b\r\none\r\n-b--"] {
            assert!(matches!(parts(text), Err(BodyFault::Malformed(_))), "{text:?}");
        }
        for boundary in [String::new(), "b".repeat(201)] {
            assert!(matches!(split(b"--b\r\n\r\n--b--", &boundary), Err(BodyFault::Malformed(_))));
        }
        assert_eq!(parts(&"--b\r\n".repeat(1000)), Err(TOO_MANY));
    }

    #[test]
    fn header_fields_of_a_part_are_found_whatever_their_form() {
        let text = b"content-TYPE : text/plain;\r\n\tcharset=utf-8\r\nX-Other: y\r\nContent-Encoding: gzip , deflate\r\n\
            Content-Id:<1@a>\nContent-Language: de\r\n\r\nContent-Type: not/this\r\n";
        let part = Part::read(text);
        assert_eq!(part.content_type.as_deref(), Some("text/plain;   charset=utf-8"));
        assert_eq!(part.codings, ["gzip", "deflate"]);
        assert_eq!((part.id.as_deref(), part.language.as_deref()), (Some("<1@a>"), Some("de")));
        assert_eq!(part.octets, b"Content-Type: not/this\r\n");
    }

    #[test]
    fn a_part_without_header_fields_is_all_content() {
        for (text, content) in [
            ("\r\nhello", "hello"),
            ("\nhello", "hello"),
            ("hello", "hello"),
            ("hello: \"it's\"\r\n", ""),
            ("two words: x\r\n\r\ny", "two words: x\r\n\r\ny"),
            ("Content-Type: text/plain\r\nhello you", "hello you"),
            ("Content-Type: text/plain", ""),
            ("", ""),
        ] {
            assert_eq!(Part::read(text.as_bytes()).octets, content.as_bytes(), "{text:?}");
        }
    }
}
