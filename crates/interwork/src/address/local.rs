//! The user part of a SIP URI and the local part of an XMPP address (XEP-0106, RFC 7247 §6).
//!
//! Decoded text of a user part goes in, a local part comes out, and back. The map is one to one.
//!
//! XEP-0106 alone is not: it gives each user part a local part, but unescapes `a\5cb` and `a\b` to the same text. Those local
//! parts that its escaping never yields are written literally behind a space, with which no other user part begins.

use std::borrow::Cow;

use tombolo_sip::uri::escape_user;
use tombolo_xmpp::jid::Jid;

use super::AddressFault;

/// What a local part may not hold, and its escapes (XEP-0106 §4.2).
const ESCAPES: [(char, &str); 10] = [
    (' ', "\\20"),
    ('"', "\\22"),
    ('&', "\\26"),
    ('\'', "\\27"),
    ('/', "\\2f"),
    (':', "\\3a"),
    ('<', "\\3c"),
    ('>', "\\3e"),
    ('@', "\\40"),
    ('\\', "\\5c"),
];

/// Begins the user part of a local part that is written literally.
const LITERAL: char = ' ';

/// The local part for a user part. It is still to be prepared (RFC 7622 §3.3), and may then be found illegal.
pub(super) fn local_of_user(user: &str) -> Result<String, AddressFault> {
    if let Some(literal) = user.strip_prefix(LITERAL) {
        let local = prepare(literal)?;
        return if is_escaping(&local) { Err(AddressFault::NotAllowed) } else { Ok(local) };
    }
    if user.ends_with(' ') {
        return Err(AddressFault::NotAllowed);
    }
    let local = escape(&fold(user));
    if !local.is_ascii() && local.contains('\\') {
        // A combining mark may have become one character with the last letter of an escape.
        let prepared = prepare(&local)?;
        if !is_escaping(&prepared) || !escapes(&prepared).eq(escapes(&local)) {
            return Err(AddressFault::NotAllowed);
        }
    }
    Ok(local)
}

/// Appends the user part for a prepared local part, escaped for a URI.
pub(super) fn push_user(local: &str, uri: &mut String) {
    if !local.contains('\\') {
        return escape_user(local, uri);
    }
    let plain = unescape(local);
    if escape(&plain) == local {
        escape_user(&plain, uri);
    } else {
        escape_user(&format!("{LITERAL}{local}"), uri);
    }
}

/// A local part as people write it: unescaped, unless it is a literal one.
pub(super) fn shown_user(local: &str) -> Cow<'_, str> {
    if !local.contains('\\') {
        return Cow::Borrowed(local);
    }
    let plain = unescape(local);
    if escape(&plain) == local { Cow::Owned(plain) } else { Cow::Borrowed(local) }
}

/// Whether the escaping of XEP-0106 yields this local part.
fn is_escaping(local: &str) -> bool {
    escape(&unescape(local)) == local
}

fn prepare(local: &str) -> Result<String, AddressFault> {
    let jid = Jid::parse(&format!("{local}@x")).map_err(|_| AddressFault::NotAllowed)?;
    jid.local().map(str::to_owned).filter(|_| jid.domain() == "x").ok_or(AddressFault::NotAllowed)
}

/// Gives characters that could be of an escape the form that preparation gives them. Otherwise preparation would make an
/// escape of what was none: `\2F`, or a fullwidth backslash.
fn fold(user: &str) -> Cow<'_, str> {
    if !user.contains(['\\', '\u{ff3c}']) {
        return Cow::Borrowed(user);
    }
    let fold = |character: char| match character {
        '\u{ff10}'..='\u{ff19}' | '\u{ff21}'..='\u{ff3a}' | '\u{ff41}'..='\u{ff5a}' | '\u{ff3c}' => {
            char::from_u32(u32::from(character) - 0xfee0).unwrap_or(character).to_ascii_lowercase()
        }
        character => character.to_ascii_lowercase(),
    };
    Cow::Owned(user.chars().map(fold).collect())
}

/// Escapes plain text for a local part. A backslash is escaped only where it would begin an escape.
fn escape(plain: &str) -> String {
    let mut local = String::with_capacity(plain.len());
    for (at, character) in plain.char_indices() {
        let is_plain_backslash = character == '\\' && escape_at(plain, at).is_none();
        match ESCAPES.iter().find(|(special, _)| *special == character) {
            Some((_, escape)) if !is_plain_backslash => local.push_str(escape),
            _ => local.push(character),
        }
    }
    local
}

/// Undoes [`escape`]: only whole valid escapes, in lower case (STOX-A-12).
fn unescape(local: &str) -> String {
    let mut plain = String::with_capacity(local.len());
    let mut from = 0;
    while let Some(at) = local[from..].find('\\').map(|len| from + len) {
        plain.push_str(&local[from..at]);
        match escape_at(local, at) {
            Some(character) => {
                plain.push(character);
                from = at + 3;
            }
            None => {
                plain.push('\\');
                from = at + 1;
            }
        }
    }
    plain.push_str(&local[from..]);
    plain
}

/// The escaped characters of a local part, in order.
fn escapes(local: &str) -> impl Iterator<Item = char> {
    local.match_indices('\\').filter_map(|(at, _)| escape_at(local, at))
}

/// The character whose escape stands at `at`. No local part begins or ends with a space, so `\20` there is no escape
/// (XEP-0106 §4.2).
fn escape_at(text: &str, at: usize) -> Option<char> {
    let (character, escape) = ESCAPES.iter().find(|(_, escape)| text[at..].starts_with(escape))?;
    let is_at_edge = at == 0 || at + escape.len() == text.len();
    (*character != ' ' || !is_at_edge).then_some(*character)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use tombolo_presence::Address;
    use tombolo_sip::uri::{UriRef, unescape as decode};

    use super::{
        super::{address_of_uri, uri_of},
        *,
    };

    fn user(local: &str) -> String {
        let mut user = String::new();
        push_user(local, &mut user);
        decode(&user).expect("our own escapes").into_owned()
    }

    #[test]
    fn the_examples_of_xep_0106_are_escaped_and_unescaped() {
        for (plain, local) in [
            ("space cadet", r"space\20cadet"),
            ("call me \"ishmael\"", r"call\20me\20\22ishmael\22"),
            ("at&t guy", r"at\26t\20guy"),
            ("d'artagnan", r"d\27artagnan"),
            ("/.fanboy", r"\2f.fanboy"),
            ("::foo::", r"\3a\3afoo\3a\3a"),
            ("<foo>", r"\3cfoo\3e"),
            ("user@host", r"user\40host"),
            (r"c:\net", r"c\3a\net"),
            (r"c:\\net", r"c\3a\\net"),
            (r"c:\cool stuff", r"c\3a\cool\20stuff"),
            (r"c:\5commas", r"c\3a\5c5commas"),
            (r"\3and\2is\5cool", r"\5c3and\2is\5c5cool"),
            (r"\2plus\2is\4", r"\2plus\2is\4"),
            (r"foo\bar", r"foo\bar"),
            (r"foob\41r", r"foob\41r"),
        ] {
            assert_eq!(local_of_user(plain).as_deref(), Ok(local));
            assert_eq!(user(local), plain);
        }
    }

    #[test]
    fn local_parts_that_escaping_does_not_yield_are_users_of_their_own() {
        for (local, plain) in [
            (r"a\b", r"a\b"),
            (r"a\5cb", r" a\5cb"),
            (r"a\5c", r" a\5c"),
            (r"\5cfoo", r" \5cfoo"),
            (r"\20ab", r"\20ab"),
            (r"\5c20ab", r" \5c20ab"),
            (r"a\5c\20b", r" a\5c\20b"),
            (r"a\\20b", r"a\ b"),
            (r"\5c20", r" \5c20"),
            (r"a\5c20b", r"a\20b"),
        ] {
            assert_eq!(user(local), plain);
            assert_eq!(local_of_user(plain).as_deref(), Ok(local));
        }
        for nobody in [" a", "  a\\5cb", " a\\5cb ", " a b\\5cc", " ", "a ", " \\5c27"] {
            assert_eq!(local_of_user(nobody), Err(AddressFault::NotAllowed), "{nobody:?}");
        }
    }

    #[test]
    fn preparation_makes_no_escape_of_what_was_none() {
        let slash = local_of_user("a/b").expect("legal");
        for written in ["a\\2Fb", "a\\2fb", "a\\\u{ff12}fb", "a\u{ff3c}2\u{ff26}b"] {
            let local = local_of_user(written).expect(written);
            assert_eq!(local, r"a\5c2fb", "{written}");
            assert_ne!(local, slash);
        }
    }

    #[test]
    fn a_combining_mark_behind_an_escape_does_not_make_another_user() {
        for marked in [">\u{301}", "<\u{327}x", "a:\u{306}", "\\5c\u{327}", "a\\2f\u{307}"] {
            assert_eq!(local_of_user(marked), Err(AddressFault::NotAllowed), "{marked:?}");
        }
        let local = local_of_user(">\u{338}").expect("nothing composes with it");
        assert_eq!((local.as_str(), user(&local)), ("\\3e\u{338}", ">\u{338}".to_owned()));
    }

    /// No two of all short texts, of characters that matter to escapes, are one user.
    #[test]
    fn stox_a_11_no_two_short_local_parts_are_one_user_and_no_two_users_one_local_part() {
        const ALPHABET: [char; 6] = ['\\', '5', 'c', '2', '0', ' '];
        let mut texts = vec![String::new()];
        let (mut users, mut locals) = (BTreeMap::new(), BTreeMap::new());
        for _ in 0..6 {
            texts = texts.iter().flat_map(|text| ALPHABET.map(|next| format!("{text}{next}"))).collect();
            for text in &texts {
                if !text.contains(' ') {
                    assert_eq!(local_of_user(&user(text)).as_deref(), Ok(&**text));
                    assert_eq!(users.insert(user(text), text.clone()), None, "{text}");
                }
                if let Ok(local) = local_of_user(text) {
                    assert_eq!(user(&local), *text);
                    assert_eq!(locals.insert(local, text.clone()), None, "{text}");
                }
            }
        }
    }

    /// Local parts, many of them with escapes and what looks like some.
    fn any_local() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            3 => prop::sample::select(ESCAPES.map(|(_, escape)| escape.to_owned()).to_vec()),
            2 => Just("\\".to_owned()),
            1 => Just("\\2F".to_owned()),
            2 => "[0-9a-f]{1,2}",
            1 => "[!#-%(-.;=?A-Z_`a-z{-~àßжé漢𐐨\u{301}\u{327}\u{338}]",
        ];
        prop::collection::vec(piece, 1..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn stox_a_11_every_local_part_comes_back_from_sip(written in any_local()) {
            let jid = Jid::parse(&format!("{written}@h.example"));
            prop_assume!(jid.is_ok());
            let jid = jid.expect("legal");
            let address = Address::from_prepared(jid.bare()).expect("prepared");
            let text = uri_of(&address);
            let back = address_of_uri(&UriRef::parse(&text).expect("our own URI")).expect("our own address");
            prop_assert_eq!(&back.address, &address, "by way of {}", text);
        }

        #[test]
        fn stox_a_11_every_user_part_comes_back_from_xmpp(
            plain in "(\\\\(20|22|26|27|2f|2F|3a|3c|3e|40|5c)|\\\\|[ -~àßжé漢𝒳]){1,20}"
        ) {
            let mut written = "sip:".to_owned();
            escape_user(&plain, &mut written);
            written.push_str("@h.example");
            if let Ok(addressee) = address_of_uri(&UriRef::parse(&written).expect("escaped")) {
                let text = uri_of(&addressee.address);
                let back = UriRef::parse(&text).expect("our own URI");
                prop_assert_eq!(back.user_decoded(), Ok(Some(plain.to_lowercase().into())), "{}", written);
                prop_assert_eq!(address_of_uri(&back).map(|back| back.address), Ok(addressee.address));
            }
        }

        #[test]
        fn escapes_of_a_local_part_come_back(plain in "[^ ]\\PC{1,30}[^ ]") {
            prop_assert_eq!(unescape(&escape(&plain)), plain);
        }
    }
}
