//! Which characters XML 1.0 (fifth edition) allows, and where.

/// True for a character that may stand in an XML 1.0 document (production 2, `Char`).
pub fn is_xml_char(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' => true,
        '\u{FFFE}' | '\u{FFFF}' => false,
        c => c >= ' ',
    }
}

/// The first position of something that is valid UTF-8 but no XML character.
pub(crate) fn forbidden_at(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let control = |byte: &u8| *byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r');
    // Two plain passes over the bytes: both loops are vectorised, and nearly all input has neither.
    let found = bytes.iter().fold(false, |found, byte| found | control(byte));
    let end = if found { bytes.iter().position(control) } else { None };
    // U+FFFE and U+FFFF are EF BF BE and EF BF BF.
    memchr::memchr_iter(0xEF, &bytes[..end.unwrap_or(bytes.len())])
        .find(|&at| bytes.get(at + 1) == Some(&0xBF) && matches!(bytes.get(at + 2), Some(0xBE | 0xBF)))
        .or(end)
}

/// White space of production 3, `S`.
pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// May begin a name that holds no colon (`NCName`).
pub(crate) fn is_name_start(c: char) -> bool {
    matches!(c,
        'A'..='Z' | 'a'..='z' | '_'
        | '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}' | '\u{F8}'..='\u{2FF}' | '\u{370}'..='\u{37D}'
        | '\u{37F}'..='\u{1FFF}' | '\u{200C}'..='\u{200D}' | '\u{2070}'..='\u{218F}'
        | '\u{2C00}'..='\u{2FEF}' | '\u{3001}'..='\u{D7FF}' | '\u{F900}'..='\u{FDCF}'
        | '\u{FDF0}'..='\u{FFFD}' | '\u{10000}'..='\u{EFFFF}')
}

/// May stand further on in a name that holds no colon.
pub(crate) fn is_name_char(c: char) -> bool {
    is_name_start(c)
        || matches!(c, '-' | '.' | '0'..='9' | '\u{B7}' | '\u{300}'..='\u{36F}' | '\u{203F}'..='\u{2040}')
}

const NAME_START: u8 = 1;
const NAME: u8 = 2;

/// The two rules above for ASCII, as a table: names are nearly always ASCII.
static ASCII: [u8; 128] = {
    let mut table = [0; 128];
    let mut byte = 0_u8;
    while byte < 128 {
        if byte.is_ascii_alphabetic() || byte == b'_' {
            table[byte as usize] = NAME_START | NAME;
        } else if byte.is_ascii_digit() || byte == b'-' || byte == b'.' {
            table[byte as usize] = NAME;
        }
        byte += 1;
    }
    table
};

/// Length in octets of the `NCName` at the start of `text`; 0 when there is none.
pub(crate) fn name_len(text: &str) -> usize {
    ncname_len(text.as_bytes())
}

/// The same for octets, which are UTF-8.
pub(crate) fn ncname_len(bytes: &[u8]) -> usize {
    match bytes.first() {
        Some(&first) if first < 128 && ASCII[first as usize] & NAME_START == 0 => return 0,
        Some(_) => {}
        None => return 0,
    }
    let mut at = 0;
    loop {
        at += bytes[at..]
            .iter()
            .position(|&byte| byte >= 128 || ASCII[byte as usize] & NAME == 0)
            .unwrap_or(bytes.len() - at);
        let Some(c) = bytes.get(at..).and_then(first_wide) else { return at };
        if !(if at == 0 { is_name_start(c) } else { is_name_char(c) }) {
            return at;
        }
        at += c.len_utf8();
    }
}

/// The first character if it is not ASCII.
fn first_wide(bytes: &[u8]) -> Option<char> {
    let len = match bytes.first()? {
        0xC0..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xFF => 4,
        _ => return None,
    };
    std::str::from_utf8(bytes.get(..len)?).ok()?.chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ascii_table_says_the_same_as_the_rules() {
        for byte in 0..128_u8 {
            let c = char::from(byte);
            assert_eq!(ASCII[byte as usize] & NAME_START != 0, is_name_start(c), "{c:?}");
            assert_eq!(ASCII[byte as usize] & NAME != 0, is_name_char(c), "{c:?}");
        }
    }

    #[test]
    fn a_name_ends_at_the_first_character_that_it_may_not_hold() {
        for (text, len) in [
            ("a", 1),
            ("ab c", 2),
            ("a:b", 1),
            ("1a", 0),
            ("-a", 0),
            ("é1=", 3),
            ("aé>", 3),
            ("", 0),
            ("a×", 1),
        ] {
            assert_eq!(name_len(text), len, "{text:?}");
        }
    }

    #[test]
    fn forbidden_characters_are_found_wherever_they_stand() {
        assert_eq!(forbidden_at("a\u{0}"), Some(1));
        assert_eq!(forbidden_at("\t\n\r \u{7f}\u{85}\u{FFFD}"), None);
        assert_eq!(forbidden_at("ab\u{FFFE}"), Some(2));
        assert_eq!(forbidden_at("\u{FFFF}"), Some(0));
        assert_eq!(forbidden_at("\u{8}"), Some(0));
        assert_eq!(forbidden_at("a\u{FFFE}b\u{8}"), Some(1), "the first of both kinds");
        assert_eq!(forbidden_at("a\u{8}b\u{FFFE}"), Some(1));
    }
}
