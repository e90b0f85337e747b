//! Common presence and instant messaging: the message format (RFC 3862, `message/cpim`).
//!
//! Octets of a body become header fields and the part inside, and back. From and To in it are what a sender displays
//! (RFC 3862 §4.1): nothing is routed by them, and nothing is believed (SIP-M-07).

use std::borrow::Cow;

use super::{
    BodyFault,
    part::{Part, split_line},
};

/// The media type.
pub const MEDIA_TYPE: &str = "message/cpim";

/// What the header fields of a message mean to us, and its content.
#[derive(Debug)]
pub(super) struct Cpim<'a> {
    /// Subject, in its first language.
    pub(super) subject: Option<String>,
    /// The part inside.
    pub(super) content: Part<'a>,
}

/// Reads a message: header fields that are not known are skipped, unless it requires them (§3.5).
pub(super) fn read(octets: &[u8]) -> Result<Cpim<'_>, BodyFault> {
    let mut rest = octets;
    // Some put an empty line in front.
    while let Some(after) = rest.strip_prefix(b"\r\n") {
        rest = after;
    }
    let mut subject = None;
    let mut core = Core::default();
    let mut fields = 0;
    loop {
        if rest.is_empty() {
            return Err(BodyFault::Malformed("a CPIM message that ends in its header"));
        }
        let (line, after) = split_line(rest);
        rest = after;
        if line.is_empty() {
            break;
        }
        fields += 1;
        if fields > MAX_FIELDS {
            return Err(BodyFault::TooBig("a CPIM message with too many header fields"));
        }
        let (name, value) = read_field(line)?;
        match core.local_name(name) {
            Some("NS") => core.declare(value),
            Some("Subject") if subject.is_none() => subject = Some(unescape(value).into_owned()),
            Some("Require") if !value.split(',').all(|name| core.is_understood(name.trim())) => {
                return Err(BodyFault::Unsupported("a CPIM message that requires what is not known"));
            }
            _ => {}
        }
    }
    Ok(Cpim { subject, content: Part::read(rest) })
}

/// Which names are those of RFC 3862 itself (§3.4): the default namespace can be replaced, and a prefix may stand for it.
#[derive(Debug, Default)]
struct Core {
    is_default_replaced: bool,
    prefixes: Vec<String>,
}

impl Core {
    fn declare(&mut self, value: &str) {
        let Some((prefix, uri)) = value.split_once('<') else { return };
        let is_core = uri.trim_end().strip_suffix('>') == Some(CORE_NAMESPACE);
        let prefix = prefix.trim();
        if prefix.is_empty() {
            self.is_default_replaced = !is_core;
        } else if is_core {
            self.prefixes.push(prefix.to_owned());
        } else {
            self.prefixes.retain(|known| known != prefix);
        }
    }

    /// The name within RFC 3862; `None` for one of another namespace.
    fn local_name<'n>(&self, name: &'n str) -> Option<&'n str> {
        match name.split_once('.') {
            Some((prefix, local)) => self.prefixes.iter().any(|known| known == prefix).then_some(local),
            // A declaration is always one, or none could be taken back.
            None => (!self.is_default_replaced || name == "NS").then_some(name),
        }
    }

    fn is_understood(&self, name: &str) -> bool {
        let known = ["From", "To", "cc", "DateTime", "Subject", "NS", "Require"];
        self.local_name(name).is_some_and(|name| known.contains(&name))
    }
}

/// Name and value of one header field. Names count with case; parameters (`;lang=de`) are left out.
fn read_field(line: &[u8]) -> Result<(&str, &str), BodyFault> {
    let bad = BodyFault::Malformed("a CPIM header field that is none");
    let line = std::str::from_utf8(line).map_err(|_| bad)?;
    let (name, rest) = line.split_once(':').ok_or(bad)?;
    let is_name =
        !name.is_empty() && name.bytes().all(|octet| octet == b'.' || crate::lex::is_token_octet(octet));
    if !is_name || rest.bytes().any(|octet| octet.is_ascii_control() && octet != b'\t') {
        return Err(bad);
    }
    let value = match rest.strip_prefix(';') {
        Some(params) => {
            let end = crate::lex::find_outside_quotes(params, b' ').map_err(|_| bad)?;
            end.map_or("", |end| &params[end..])
        }
        None => rest,
    };
    // One space belongs to the syntax; it is not missed.
    Ok((name, value.strip_prefix(' ').unwrap_or(value)))
}

/// Undoes the escapes of §2.3; an unknown one is the character behind its backslash.
fn unescape(value: &str) -> Cow<'_, str> {
    if !value.contains('\\') {
        return Cow::Borrowed(value);
    }
    let mut text = String::with_capacity(value.len());
    let mut rest = value.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        match rest.next() {
            Some('b') => text.push('\u{8}'),
            Some('t') => text.push('\t'),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('u') => match read_unit(rest.as_str()) {
                Some(unit) => {
                    rest = rest.as_str()[4..].chars();
                    // Units are those of UCS-2, where a character beyond takes two.
                    let low = rest.as_str().strip_prefix("\\u").and_then(read_unit);
                    let couple = [unit, low.unwrap_or(0)];
                    let mut decoded = char::decode_utf16(couple);
                    match decoded.next() {
                        Some(Ok(character)) => {
                            text.push(character);
                            if character.len_utf16() == 2 {
                                rest = rest.as_str()[6..].chars();
                            }
                        }
                        _ => text.push(char::REPLACEMENT_CHARACTER),
                    }
                }
                None => text.push('u'),
            },
            Some(other) => text.push(other),
            // A lone backslash at the end.
            None => {}
        }
    }
    Cow::Owned(text)
}

/// Four hexadecimal digits at the front of `text`.
fn read_unit(text: &str) -> Option<u16> {
    let digits = text.get(..4).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    u16::from_str_radix(digits, 16).ok()
}

/// Writes a message. Whatever the URIs hold, they stay in their lines.
pub fn write(from_uri: &str, to_uri: &str, content_type: &str, content: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 200);
    for (name, uri) in [("From", from_uri), ("To", to_uri)] {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": <");
        let is_uri = |character: &char| !character.is_control() && !matches!(character, '<' | '>' | '\\');
        let uri: String = uri.chars().filter(is_uri).collect();
        out.extend_from_slice(uri.as_bytes());
        out.extend_from_slice(b">\r\n");
    }
    let length = content.len().to_string();
    for part in ["\r\nContent-Type: ", content_type, "\r\nContent-Length: ", &length, "\r\n\r\n", content] {
        out.extend_from_slice(part.as_bytes());
    }
    out
}

const CORE_NAMESPACE: &str = "urn:ietf:params:cpim-headers:";
/// Header fields of one message.
const MAX_FIELDS: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(header: &str) -> Result<Option<String>, BodyFault> {
        let text = format!("{header}\r\nContent-Type: text/plain\r\n\r\nhello");
        read(text.as_bytes()).map(|cpim| {
            assert_eq!(cpim.content.octets, b"hello", "{header:?}");
            cpim.subject
        })
    }

    #[test]
    fn sip_m_06_the_example_of_the_standard_is_read() {
        let example = "From: MR SANDERS <im:piglet@100akerwood.com>\r\nTo: Depressed Donkey <im:eeyore@100akerwood.com>\r\n\
            DateTime: 2000-12-13T13:40:00-08:00\r\nSubject: the weather will be fine today\r\n\
            Subject:;lang=fr beau temps prevu pour aujourd'hui\r\nNS: MyFeatures <mid:MessageFeatures@id.foo.com>\r\n\
            MyFeatures.WackyMessageOption: Use-silly-font\r\n\r\nContent-type: text/xml; charset=utf-8\r\n\
            Content-ID: <1234567890@foo.com>\r\n\r\n<body>\r\nHere is the text of my message.\r\n</body>";
        let cpim = read(example.as_bytes()).expect("legal");
        assert_eq!(cpim.subject.as_deref(), Some("the weather will be fine today"));
        assert_eq!(cpim.content.content_type.as_deref(), Some("text/xml; charset=utf-8"));
        assert!(cpim.content.octets.starts_with(b"<body>"));
    }

    #[test]
    fn sip_m_06_names_count_with_case_and_escapes_are_undone() {
        for (header, expected) in [
            ("Subject: a\\tb\\\\c\\\"d\\'\\u00e9\\r\\n\r\n", Some("a\tb\\c\"d'é\r\n")),
            ("Subject: \\uD83D\\uDC34!\r\n", Some("🐴!")),
            ("Subject: \\uD83Dx \\uZZZZ \\q \\u12\r\n", Some("\u{fffd}x uZZZZ q u12")),
            ("Subject: end\\\r\n", Some("end")),
            ("Subject:;lang=de Hallo\r\n", Some("Hallo")),
            ("Subject:;x=\"a b\" Hallo\r\n", Some("Hallo")),
            ("Subject:near\r\n", Some("near")),
            ("Subject: \r\n", Some("")),
            ("subject: x\r\n", None),
            ("SUBJECT: x\r\nSubject: first\r\nSubject: second\r\n", Some("first")),
            ("x.Subject: x\r\n", None),
            ("NS: x <urn:ietf:params:cpim-headers:>\r\nx.Subject: y\r\n", Some("y")),
            ("NS: <urn:other>\r\nSubject: x\r\n", None),
            ("NS: <urn:other>\r\nNS: <urn:ietf:params:cpim-headers:>\r\nSubject: x\r\n", Some("x")),
            ("\r\n\r\nSubject: behind an empty line\r\n", Some("behind an empty line")),
        ] {
            assert_eq!(subject(header).expect("legal").as_deref(), expected, "{header:?}");
        }
        for header in [
            ": x\r\n",
            "no colon\r\n",
            "a b: c\r\n",
            "From: a\u{1}b\r\n",
            "From:;x=\"a b\r\n",
            " From: x\r\n",
        ] {
            assert!(matches!(subject(header), Err(BodyFault::Malformed(_))), "{header:?}");
        }
    }

    #[test]
    fn sip_m_06_what_is_required_and_not_known_is_refused() {
        for header in [
            "Require: MyFeatures.VitalMessageOption\r\n",
            "Require: From,Vital\r\n",
            "NS: imdn <urn:ietf:params:imdn>\r\nRequire: imdn.Message-ID\r\n",
            "NS: <urn:other>\r\nNS: r <urn:ietf:params:cpim-headers:>\r\nr.Require: From\r\n",
        ] {
            assert!(matches!(subject(header), Err(BodyFault::Unsupported(_))), "{header:?}");
        }
        assert_eq!(subject("Require: From, To,Subject\r\n"), Ok(None));
        assert_eq!(subject("require: anything\r\n"), Ok(None), "another name is another field");
    }

    #[test]
    fn a_header_without_end_or_measure_is_refused() {
        for text in ["", "\r\n", "From: <im:a@b>", "From: <im:a@b>\r\n"] {
            assert!(matches!(read(text.as_bytes()), Err(BodyFault::Malformed(_))), "{text:?}");
        }
        assert!(matches!(subject(&"a: b\r\n".repeat(129)), Err(BodyFault::TooBig(_))));
        let long = format!("Subject: {}\r\n", "\\".repeat(60_000));
        assert_eq!(subject(&long).expect("legal").map(|text| text.len()), Some(30_000));
    }

    #[test]
    fn no_uri_ends_its_line() {
        let written = write("sip:a@b>\r\nX: <y", "sip:\0\u{85}c@d", "text/plain", "hi");
        assert_eq!(
            String::from_utf8(written).expect("UTF-8"),
            "From: <sip:a@bX: y>\r\nTo: <sip:c@d>\r\n\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi"
        );
    }
}
