//! Language tags (BCP 47).

/// Whether `text` is a well-formed language tag (RFC 5646 §2.1) of at most 35 octets, which §4.4.1 lets nobody refuse.
pub fn is_language_tag(text: &str) -> bool {
    text.len() <= MAX_TAG_LEN && is_well_formed(text)
}

const MAX_TAG_LEN: usize = 35;

fn is_well_formed(tag: &str) -> bool {
    IRREGULAR.iter().any(|irregular| irregular.eq_ignore_ascii_case(tag))
        || is_private(tag)
        || is_langtag(tag)
}

/// `privateuse`: `x` and what two sides have agreed on.
fn is_private(tag: &str) -> bool {
    let mut parts = tag.split('-');
    parts.next().is_some_and(|part| part.eq_ignore_ascii_case("x"))
        && all_and_one(parts, |part| is_alphanumeric(part, 1))
}

/// `langtag`: language, script, region, variants, extensions and private use, in this order.
fn is_langtag(tag: &str) -> bool {
    let mut parts = tag.split('-').peekable();
    let Some(language) = parts.next().filter(|part| is_alpha(part, 2..=8)) else { return false };
    if language.len() <= 3 {
        for _ in 0..3 {
            parts.next_if(|part| is_alpha(part, 3..=3));
        }
    }
    parts.next_if(|part| is_alpha(part, 4..=4));
    parts.next_if(|part| {
        is_alpha(part, 2..=2) || (part.len() == 3 && part.bytes().all(|b| b.is_ascii_digit()))
    });
    while parts.next_if(|part| is_variant(part)).is_some() {}
    while let Some(singleton) = parts.next() {
        if !is_alphanumeric(singleton, 1) || singleton.len() != 1 {
            return false;
        }
        if singleton.eq_ignore_ascii_case("x") {
            return all_and_one(parts, |part| is_alphanumeric(part, 1));
        }
        if parts.next_if(|part| is_alphanumeric(part, 2)).is_none() {
            return false;
        }
        while parts.next_if(|part| is_alphanumeric(part, 2)).is_some() {}
    }
    true
}

fn is_variant(part: &str) -> bool {
    is_alphanumeric(part, 5)
        || (part.len() == 4 && part.as_bytes()[0].is_ascii_digit() && is_alphanumeric(part, 4))
}

fn is_alpha(part: &str, lengths: std::ops::RangeInclusive<usize>) -> bool {
    lengths.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphabetic())
}

/// Letters and digits, from `least` to 8 of them.
fn is_alphanumeric(part: &str, least: usize) -> bool {
    (least..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// True when there is at least one part and all are right.
fn all_and_one<'a>(parts: impl Iterator<Item = &'a str>, is_right: impl Fn(&str) -> bool) -> bool {
    let mut parts = parts.peekable();
    parts.peek().is_some() && parts.all(is_right)
}

/// Tags from before the grammar, which does not cover them (RFC 5646 §2.1, `irregular`).
const IRREGULAR: [&str; 17] = [
    "en-GB-oed",
    "i-ami",
    "i-bnn",
    "i-default",
    "i-enochian",
    "i-hak",
    "i-klingon",
    "i-lux",
    "i-mingo",
    "i-navajo",
    "i-pwn",
    "i-tao",
    "i-tay",
    "i-tsu",
    "sgn-BE-FR",
    "sgn-BE-NL",
    "sgn-CH-DE",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_5646_are_tags() {
        for tag in [
            "de",
            "i-enochian",
            "zh-Hant",
            "zh-cmn-Hans-CN",
            "zh-yue-HK",
            "sr-Latn-RS",
            "sl-rozaj-biske",
            "de-CH-1901",
            "hy-Latn-IT-arevela",
            "es-419",
            "de-CH-x-phonebk",
            "az-Arab-x-AZE-derbend",
            "x-whatever",
            "qaa-Qaaa-QM-x-southern",
            "en-US-u-islamcal",
            "zh-CN-a-myext-x-private",
            "en-a-myext-b-another",
            "art-lojban",
            "zh-min-nan",
        ] {
            assert!(is_language_tag(tag), "{tag}");
        }
    }

    #[test]
    fn what_is_no_tag_is_none() {
        for text in [
            "",
            " ",
            "*",
            "de, en",
            "e",
            "en_US",
            "en-",
            "-en",
            "en--US",
            "de-419-DE",
            "a-DE",
            "x",
            "en-x",
            "en-u",
            "en-a-b",
            "123",
            "englishlanguage",
            "é",
            "en\r\nX: y",
            "en'",
            "en;q=1",
            "de-CH-1901-CH",
        ] {
            assert!(!is_language_tag(text), "{text:?}");
        }
        let long = format!("de-x-{}", ["aaaaaaaa"; 1000].join("-"));
        assert!(!is_language_tag(&long), "8,000 octets are no tag");
    }
}
