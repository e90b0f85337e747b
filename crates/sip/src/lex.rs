//! Character classes and the small scanners of RFC 3261 §25.1.
//!
//! Text of one header value (already unfolded) goes in, slices of it come out. Nothing here knows a header's meaning.

use std::borrow::Cow;

/// Characters of `token` (RFC 3261 §25.1).
static TOKEN: [bool; 256] = class(b"-.!%*_+`'~");

/// Letters, digits and `more`: a class of characters as a table.
pub(crate) const fn class(more: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut octet = 0;
    while octet < 256 {
        table[octet] = (octet as u8).is_ascii_alphanumeric();
        octet += 1;
    }
    let mut next = 0;
    while next < more.len() {
        table[more[next] as usize] = true;
        next += 1;
    }
    table
}

/// Whether `octet` may stand in a token.
pub(crate) fn is_token_octet(octet: u8) -> bool {
    TOKEN[usize::from(octet)]
}

/// Whether `text` is one token: not empty, token characters only.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_octet)
}

/// Number of leading octets of `text` that are token characters.
pub(crate) fn token_len(text: &[u8]) -> usize {
    text.iter().position(|octet| !is_token_octet(*octet)).unwrap_or(text.len())
}

/// Whether `octet` is a control character that a header value must not hold bare: C0 without tab, and DEL.
pub(crate) fn is_control(octet: u8) -> bool {
    ((octet < 0x20) & (octet != b'\t')) | (octet == 0x7f)
}

fn is_space(octet: u8) -> bool {
    octet == b' ' || octet == b'\t'
}

/// `text` without spaces and tabs at its ends.
pub(crate) fn trim(text: &str) -> &str {
    let text = trim_start(text);
    let spaces = text.bytes().rev().take_while(|octet| is_space(*octet)).count();
    &text[..text.len() - spaces]
}

/// `text` without spaces and tabs at its start.
pub(crate) fn trim_start(text: &str) -> &str {
    let spaces = text.bytes().take_while(|octet| is_space(*octet)).count();
    &text[spaces..]
}

/// Position of the first `octet`, an ASCII character. The texts here are short and read often, and `str::find` has much
/// to prepare.
pub(crate) fn find(text: &str, octet: u8) -> Option<usize> {
    text.bytes().position(|found| found == octet)
}

/// What stands before and behind the first `octet`, an ASCII character.
pub(crate) fn split_once(text: &str, octet: u8) -> Option<(&str, &str)> {
    find(text, octet).map(|at| (&text[..at], &text[at + 1..]))
}

/// `text` in two: up to the first `octet`, and from it on (empty where there is none).
pub(crate) fn split_before(text: &str, octet: u8) -> (&str, &str) {
    text.split_at(find(text, octet).unwrap_or(text.len()))
}

/// Length of the quoted string that begins `text`, both quotes counted; `None` when it is not closed.
///
/// `text` must begin with the opening quote.
pub(crate) fn quoted_len(text: &[u8]) -> Option<usize> {
    debug_assert_eq!(text.first(), Some(&b'"'));
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Content of a quoted string with its quoted pairs undone; any other text as it is.
pub(crate) fn unquote(text: &str) -> Cow<'_, str> {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Cow::Borrowed(text);
    };
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    Cow::Owned(plain)
}

/// Position of the first octet of `stops` in `text` that stands outside quoted strings and angle brackets.
///
/// `None` as error: a quoted string or bracket is not closed.
pub(crate) fn find_outside(text: &str, stops: &[u8]) -> Result<Option<usize>, Unclosed> {
    let octets = text.as_bytes();
    let mut at = 0;
    while at < octets.len() {
        let octet = octets[at];
        if stops.contains(&octet) {
            return Ok(Some(at));
        }
        at += match octet {
            b'"' => quoted_len(&octets[at..]).ok_or(Unclosed)?,
            b'<' => memchr::memchr(b'>', &octets[at..]).ok_or(Unclosed)? + 1,
            _ => 1,
        };
    }
    Ok(None)
}

/// Position of the first `stop` in `text` that stands outside quoted strings.
///
/// `None` as error: a quoted string is not closed.
pub(crate) fn find_outside_quotes(text: &str, stop: u8) -> Result<Option<usize>, Unclosed> {
    let octets = text.as_bytes();
    let mut at = 0;
    while at < octets.len() {
        if octets[at] == stop {
            return Ok(Some(at));
        }
        at += if octets[at] == b'"' { quoted_len(&octets[at..]).ok_or(Unclosed)? } else { 1 };
    }
    Ok(None)
}

/// A quoted string or an angle bracket that is opened and never closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unclosed;

/// The elements of a comma list (RFC 3261 §7.3.1), each trimmed; empty ones are given too.
#[derive(Debug, Clone)]
pub(crate) struct CommaList<'a> {
    rest: Option<&'a str>,
}

impl<'a> CommaList<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { rest: Some(text) }
    }
}

impl<'a> Iterator for CommaList<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.rest?;
        if memchr::memchr(b',', text.as_bytes()).is_none() {
            self.rest = None;
            return Some(trim(text));
        }
        // What is not closed reaches to the end; the parser of the element then says so.
        match find_outside(text, b",") {
            Ok(Some(comma)) => {
                self.rest = Some(&text[comma + 1..]);
                Some(trim(&text[..comma]))
            }
            Ok(None) | Err(Unclosed) => {
                self.rest = None;
                Some(trim(text))
            }
        }
    }
}

/// A number written in digits only, at most `limit`.
pub(crate) fn number<N: TryFrom<u64>>(text: &str) -> Option<N> {
    if text.is_empty() || !text.bytes().all(|octet| octet.is_ascii_digit()) {
        return None;
    }
    N::try_from(text.parse::<u64>().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_inside_quotes_and_brackets_do_not_split() {
        let list = r#""a, b\"," <sip:x,y@z>;q=1 , <sip:w>"#;
        let elements: Vec<_> = CommaList::new(list).collect();
        assert_eq!(elements, [r#""a, b\"," <sip:x,y@z>;q=1"#, "<sip:w>"]);
    }

    #[test]
    fn a_quoted_string_that_ends_in_a_backslash_is_not_closed() {
        assert_eq!(quoted_len(br#""abc\""#), None);
        assert_eq!(quoted_len(br#""abc\\""#), Some(7));
        assert_eq!(quoted_len(b"\"abc\\"), None);
        assert_eq!(quoted_len(b"\""), None);
    }

    #[test]
    fn numbers_are_digits_only_and_do_not_wrap() {
        assert_eq!(number::<u32>("4294967295"), Some(u32::MAX));
        for wrong in ["", "-1", "+1", "1.0", "0x1", "4294967296", "36893488147419103232", " 1"] {
            assert_eq!(number::<u32>(wrong), None, "{wrong:?}");
        }
    }
}
