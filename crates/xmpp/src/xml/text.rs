//! From written XML to the text that it means: references, line ends, white space in attributes.

use std::borrow::Cow;

use super::is_xml_char;

/// Longest name of a reference that is taken; more would be leading zeros.
pub(crate) const MAX_REFERENCE_BYTES: usize = 32;

/// What a reference such as `amp` or `#x20` stands for; `name` is what stands between `&` and `;`.
///
/// `None` for anything but the five entities that are built in and references to allowed characters.
pub(crate) fn reference(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let (digits, radix) = match number.strip_prefix('x') {
                Some(digits) => (digits, 16),
                None => (number, 10),
            };
            // `from_str_radix` alone would take a sign.
            if digits.is_empty() || !digits.bytes().all(|byte| char::from(byte).is_digit(radix)) {
                return None;
            }
            char::from_u32(u32::from_str_radix(digits, radix).ok()?).filter(|&c| is_xml_char(c))
        }
    }
}

/// The text of a piece of character data: references replaced, line ends made `\n`.
///
/// A reference that the gate would have refused stays as it stands.
pub fn unescape_text(raw: &str) -> Cow<'_, str> {
    if memchr::memchr2(b'&', b'\r', raw.as_bytes()).is_none() {
        return Cow::Borrowed(raw);
    }
    Cow::Owned(unescape(raw, false))
}

/// The value of an attribute: references replaced, each white space character made a space.
///
/// A reference that the gate would have refused stays as it stands.
pub fn unescape_attribute(raw: &str) -> Cow<'_, str> {
    if !raw.bytes().any(|byte| matches!(byte, b'&' | b'\t' | b'\n' | b'\r')) {
        return Cow::Borrowed(raw);
    }
    Cow::Owned(unescape(raw, true))
}

/// Line ends of CDATA made `\n`; nothing else has a meaning there.
pub(crate) fn normalize_lines(raw: &str) -> Cow<'_, str> {
    if memchr::memchr(b'\r', raw.as_bytes()).is_none() {
        return Cow::Borrowed(raw);
    }
    Cow::Owned(raw.replace("\r\n", "\n").replace('\r', "\n"))
}

fn unescape(raw: &str, is_attribute: bool) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find(['&', '\t', '\n', '\r']) {
        text.push_str(&rest[..at]);
        let special = rest.as_bytes()[at];
        rest = &rest[at + 1..];
        if special == b'&' {
            let end = rest.bytes().take(MAX_REFERENCE_BYTES + 1).position(|byte| byte == b';');
            match end.and_then(|end| Some((end, reference(&rest[..end])?))) {
                Some((end, c)) => {
                    text.push(c);
                    rest = &rest[end + 1..];
                }
                None => text.push('&'),
            }
            continue;
        }
        if special == b'\r' {
            rest = rest.strip_prefix('\n').unwrap_or(rest);
        }
        text.push(match special {
            _ if is_attribute => ' ',
            b'\t' => '\t',
            _ => '\n',
        });
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_and_line_ends_are_replaced() {
        assert_eq!(unescape_text("a&amp;b&#x20;&#233;\r\n\r&quot;"), "a&b é\n\n\"");
        assert_eq!(unescape_attribute("a\tb\r\nc&#10;&apos;"), "a b c\n'");
        assert!(matches!(unescape_text("plain\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn only_built_in_references_to_allowed_characters_count() {
        for name in [
            "",
            "nbsp",
            "#",
            "#x",
            "#0",
            "#1",
            "#xFFFE",
            "#xD800",
            "#x110000",
            "#+1",
            "#x-1",
            "AMP",
            "#X41",
            "#99999999999",
        ] {
            assert_eq!(reference(name), None, "{name:?}");
        }
        assert_eq!(reference("#9"), Some('\t'));
        assert_eq!(reference("#x10FFFF"), Some('\u{10FFFF}'));
    }
}
