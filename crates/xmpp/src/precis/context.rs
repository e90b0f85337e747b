//! Code points that are allowed in some places only (RFC 5892 appendix A).

use icu_properties::{
    CodePointMapData,
    props::{JoiningType, Script},
};
use unicode_normalization::char::canonical_combining_class;

/// Whether the code point `c`, which stands at octet `at` of `text`, is allowed there. A code point without a rule is not.
pub(crate) fn is_allowed_here(text: &str, at: usize, c: char) -> bool {
    let before = text[..at].chars().next_back();
    let after = text[at + c.len_utf8()..].chars().next();
    match c {
        // A.1: ZERO WIDTH NON-JOINER.
        '\u{200C}' => before.is_some_and(is_virama) || breaks_a_join(text, at, c),
        // A.2: ZERO WIDTH JOINER.
        '\u{200D}' => before.is_some_and(is_virama),
        // A.3: MIDDLE DOT, between two `l` of Catalan.
        '·' => before == Some('l') && after == Some('l'),
        // A.4: GREEK LOWER NUMERAL SIGN.
        '\u{375}' => after.is_some_and(|after| script(after) == Script::Greek),
        // A.5, A.6: HEBREW PUNCTUATION GERESH and GERSHAYIM.
        '\u{5F3}' | '\u{5F4}' => before.is_some_and(|before| script(before) == Script::Hebrew),
        // A.7: KATAKANA MIDDLE DOT.
        '\u{30FB}' => {
            text.chars().any(|c| matches!(script(c), Script::Hiragana | Script::Katakana | Script::Han))
        }
        // A.8, A.9: the two kinds of Arabic-Indic digits do not mix. If no two neighbours do, none do.
        _ => arabic_digits(c).is_some_and(|kind| {
            text[..at].chars().rev().find_map(arabic_digits).is_none_or(|before| before == kind)
        }),
    }
}

/// Combining class Virama.
fn is_virama(c: char) -> bool {
    canonical_combining_class(c) == 9
}

/// `(Joining_Type:{L,D})(Joining_Type:T)* c (Joining_Type:T)*(Joining_Type:{R,D})`.
fn breaks_a_join(text: &str, at: usize, c: char) -> bool {
    let joins = |mut neighbours: &mut dyn Iterator<Item = char>, side: JoiningType| {
        let nearest =
            (&mut neighbours).map(joining_type).find(|joining| *joining != JoiningType::Transparent);
        nearest.is_some_and(|joining| joining == side || joining == JoiningType::DualJoining)
    };
    joins(&mut text[..at].chars().rev(), JoiningType::LeftJoining)
        && joins(&mut text[at + c.len_utf8()..].chars(), JoiningType::RightJoining)
}

/// The digit zero of the kind of Arabic-Indic digits that `c` is of.
fn arabic_digits(c: char) -> Option<char> {
    match c {
        '\u{660}'..='\u{669}' => Some('\u{660}'),
        '\u{6F0}'..='\u{6F9}' => Some('\u{6F0}'),
        _ => None,
    }
}

fn joining_type(c: char) -> JoiningType {
    CodePointMapData::<JoiningType>::new().get(c)
}

fn script(c: char) -> Script {
    CodePointMapData::<Script>::new().get(c)
}
