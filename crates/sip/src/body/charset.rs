//! Octets to text: which character set a part is in, and its characters (RFC 2046 §4.1.2, RFC 7303 §3).
//!
//! Octets and the `charset` of the Content-Type go in, text in UTF-8 without a byte order mark comes out. The character
//! sets are those of the Encoding Standard; text that is UTF-8 already is not copied.

use std::borrow::Cow;

use encoding_rs::{Encoding, REPLACEMENT, UTF_8, UTF_16BE, UTF_16LE};

use super::BodyFault;

/// Text of `text/plain`: UTF-8 unless the type or a byte order mark says otherwise.
pub(super) fn plain<'a>(octets: &'a [u8], charset: Option<&str>) -> Result<Cow<'a, str>, BodyFault> {
    match charset {
        Some(charset) => decode(octets, named(charset, octets)?).ok_or(NOT_ITS_CHARSET),
        // Nothing says what it is, so there is nothing that it breaks.
        None => decode(octets, UTF_8).ok_or(BodyFault::Unsupported("a text of an unknown character set")),
    }
}

/// An XML document: a byte order mark goes before the type's `charset`, and that before what the document declares.
pub(super) fn xml<'a>(octets: &'a [u8], charset: Option<&str>) -> Result<Cow<'a, str>, BodyFault> {
    let charset = match charset {
        Some(charset) => named(charset, octets)?,
        None => declared(octets)?,
    };
    decode(octets, charset).ok_or(NOT_ITS_CHARSET)
}

/// The character set of a label, in which `octets` are said to be.
///
/// To the Encoding Standard ASCII is Windows-1252. A sender that writes more than ASCII under its name mostly writes UTF-8,
/// and text that happens to be UTF-8 is hardly ever anything else.
fn named(label: &str, octets: &[u8]) -> Result<&'static Encoding, BodyFault> {
    let label = label.trim();
    if ASCII_LABELS.iter().any(|ascii| ascii.eq_ignore_ascii_case(label))
        && std::str::from_utf8(octets).is_ok()
    {
        return Ok(UTF_8);
    }
    Encoding::for_label(label.as_bytes())
        .filter(|found| *found != REPLACEMENT)
        .ok_or(BodyFault::Unsupported("a character set that is not read"))
}

/// What a document without a byte order mark says of itself (XML 1.0 appendix F).
fn declared(octets: &[u8]) -> Result<&'static Encoding, BodyFault> {
    match octets {
        [0, b'<', ..] => return Ok(UTF_16BE),
        [b'<', 0, ..] => return Ok(UTF_16LE),
        _ => {}
    }
    let end = octets.len().min(MAX_DECLARATION_LEN);
    let declaration = octets[..end].strip_prefix(b"<?xml").and_then(|rest| {
        let end = memchr::memmem::find(rest, b"?>")?;
        std::str::from_utf8(&rest[..end]).ok()
    });
    let label = declaration.and_then(|declaration| {
        let (before, rest) = declaration.split_once("encoding")?;
        let rest = rest.trim_start().strip_prefix('=')?.trim_start();
        let quote = rest.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        before.ends_with([' ', '\t', '\r', '\n']).then_some(rest[1..].split_once(quote)?.0)
    });
    match label {
        None => Ok(UTF_8),
        // ASCII reads the same in any character set that can hold the declaration.
        Some(_) if octets.is_ascii() => Ok(UTF_8),
        Some(label) => named(label, octets),
    }
}

fn decode<'a>(octets: &'a [u8], charset: &'static Encoding) -> Option<Cow<'a, str>> {
    let (charset, octets) = match Encoding::for_bom(octets) {
        Some((marked, len)) => (marked, &octets[len..]),
        None => (charset, octets),
    };
    // Some say UTF-16 of what is plainly not: no text has two characters in each of its units.
    let is_utf_16 = charset == UTF_16BE || charset == UTF_16LE;
    let charset = if is_utf_16 && !octets.is_empty() && octets.is_ascii() && !octets.contains(&0) {
        UTF_8
    } else {
        charset
    };
    charset.decode_without_bom_handling_and_without_replacement(octets)
}

/// Names of US-ASCII (IANA), as far as the Encoding Standard knows them.
const ASCII_LABELS: [&str; 3] = ["us-ascii", "ascii", "ansi_x3.4-1968"];
/// An XML declaration is short.
const MAX_DECLARATION_LEN: usize = 256;
const NOT_ITS_CHARSET: BodyFault = BodyFault::Malformed("a text that is not in its character set");

#[cfg(test)]
mod tests {
    use super::*;

    fn utf_16(text: &str, is_big: bool) -> Vec<u8> {
        let octets = |unit: u16| if is_big { unit.to_be_bytes() } else { unit.to_le_bytes() };
        text.encode_utf16().flat_map(octets).collect()
    }

    #[test]
    fn stox_m_08_texts_of_other_character_sets_are_read() {
        for (octets, charset, text) in [
            ("é".as_bytes().to_vec(), None, "é"),
            ("é".as_bytes().to_vec(), Some("UTF-8"), "é"),
            ("\u{feff}é".as_bytes().to_vec(), None, "é"),
            (b"plain".to_vec(), Some("us-ascii"), "plain"),
            ("é 🐴".as_bytes().to_vec(), Some("US-ASCII"), "é 🐴"),
            (b"\xe9".to_vec(), Some("ascii"), "é"),
            (b"\xe9".to_vec(), Some("ISO-8859-1"), "é"),
            (b"\xe9\x80".to_vec(), Some(" latin1 "), "é€"),
            (b"\xa4".to_vec(), Some("iso-8859-15"), "€"),
            (b"\xf0\xd2\xc9".to_vec(), Some("koi8-r"), "При"),
            (b"\x93\xfa\x96\x7b".to_vec(), Some("shift_jis"), "日本"),
            (utf_16("naïve 🐴", true), Some("utf-16be"), "naïve 🐴"),
            (utf_16("naïve 🐴", false), Some("utf-16le"), "naïve 🐴"),
            (utf_16("\u{feff}é", true), Some("utf-16"), "é"),
            (utf_16("\u{feff}é", false), None, "é"),
            (b"plain".to_vec(), Some("utf-16"), "plain"),
        ] {
            assert_eq!(plain(&octets, charset).as_deref(), Ok(text), "{charset:?} {octets:?}");
        }
        assert!(matches!(plain(b"x", None), Ok(Cow::Borrowed("x"))), "UTF-8 is not copied");
    }

    #[test]
    fn octets_that_are_no_text_are_refused() {
        for (octets, charset, status) in [
            (&b"\xe9"[..], None, 415),
            (b"\xe9", Some("utf-8"), 400),
            (b"\xed\xa0\x80", Some("utf-8"), 400),
            (b"\xd8\x00", Some("utf-16be"), 400),
            (b"\x00", Some("utf-16"), 400),
            (b"x", Some("no-such-set"), 415),
            (b"x", Some("utf-7"), 415),
            (b"x", Some("iso-2022-kr"), 415),
            (b"x", Some(""), 415),
        ] {
            assert_eq!(plain(octets, charset).map_err(BodyFault::status), Err(status), "{charset:?}");
        }
    }

    #[test]
    fn the_type_goes_before_the_declaration_and_a_byte_order_mark_before_both() {
        let document = |encoding: &str, text: &[u8]| {
            [format!("<?xml version='1.0' encoding='{encoding}'?><a>").as_bytes(), text, b"</a>"].concat()
        };
        for (octets, charset, text) in [
            (document("ISO-8859-1", b"\xe9"), None, "é"),
            (document("ISO-8859-1", "é".as_bytes()), Some("utf-8"), "é"),
            (document("UTF-8", b"\xe9"), Some("iso-8859-1"), "é"),
            (document("UTF-16", b"e"), None, "e"),
            (document("utf-16", b"e"), Some("utf-8"), "e"),
            (document("us-ascii", "é".as_bytes()), None, "é"),
            (document("x-unheard-of", b"e"), None, "e"),
            (utf_16("<a>é</a>", true), None, "é"),
            (utf_16("<?xml version='1.0' encoding='utf-16'?><a>é</a>", false), None, "é"),
            ([b"\xef\xbb\xbf", &document("iso-8859-1", "é".as_bytes())[..]].concat(), Some("latin1"), "é"),
        ] {
            let found = xml(&octets, charset).expect("a text");
            assert!(found.ends_with(&format!("<a>{text}</a>")), "{charset:?}: {found}");
        }
        for (octets, status) in [
            (document("x-unheard-of", b"\xe9"), 415),
            (document("utf-8", b"\xe9"), 400),
            (b"<a>\xe9</a>".to_vec(), 400),
        ] {
            assert_eq!(xml(&octets, None).map_err(BodyFault::status), Err(status));
        }
    }
}
