//! Rust source as the checks need it: the code without comments and literals, or single words of it.
//!
//! Text goes in, text of the same number of lines comes out. It is no parser: it only knows where a comment,
//! a string or a character literal begins and ends.

/// The code of `source`: comments and the contents of literals are blanked, line breaks stay where they are.
pub(crate) fn code(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => block_comment_end(bytes, at),
            b'"' => string_end(bytes, at + 1),
            b'r' | b'b' | b'c' if !is_word(before(bytes, at)) => prefixed_string_end(bytes, at).unwrap_or(at),
            b'\'' => character_end(bytes, at).unwrap_or(at),
            _ => at,
        };
        if end == at {
            out.push(bytes[at]);
            at += 1;
        } else {
            out.extend(bytes[at..end].iter().map(|&byte| if byte == b'\n' { b'\n' } else { b' ' }));
            at = end;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn before(bytes: &[u8], at: usize) -> u8 {
    at.checked_sub(1).map_or(b' ', |previous| bytes[previous])
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |length| at + length)
}

fn block_comment_end(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0;
    let mut at = at;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// The end of a string whose contents begin at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// `r"…"`, `br#"…"#`, `b"…"`, `c"…"`, `b'…'`: the end of the literal, if one begins here.
fn prefixed_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut cursor = at;
    let mut is_raw = false;
    while let Some(&byte) = bytes.get(cursor) {
        match byte {
            b'b' | b'c' if !is_raw => cursor += 1,
            b'r' if !is_raw => {
                is_raw = true;
                cursor += 1;
            }
            _ => break,
        }
        if cursor - at > 2 {
            return None;
        }
    }
    if !is_raw {
        return match bytes.get(cursor)? {
            b'"' => Some(string_end(bytes, cursor + 1)),
            b'\'' => character_end(bytes, cursor),
            _ => None,
        };
    }
    let hashes = bytes[cursor..].iter().take_while(|&&byte| byte == b'#').count();
    cursor += hashes;
    if bytes.get(cursor) != Some(&b'"') {
        return None;
    }
    let closing = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    let contents = cursor + 1;
    let length = bytes[contents..].windows(closing.len()).position(|window| window == closing);
    Some(length.map_or(bytes.len(), |length| contents + length + closing.len()))
}

/// The end of a character literal, or nothing where the quote begins a lifetime.
fn character_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'\\') {
        let length = bytes.get(at + 3..)?.iter().position(|&byte| byte == b'\'')?;
        return Some(at + 3 + length + 1);
    }
    let text = std::str::from_utf8(bytes.get(at + 1..(at + 6).min(bytes.len()))?)
        .or_else(|error| std::str::from_utf8(&bytes[at + 1..at + 1 + error.valid_up_to()]))
        .ok()?;
    let length = text.chars().next()?.len_utf8();
    (bytes.get(at + 1 + length) == Some(&b'\'')).then_some(at + length + 2)
}

/// The single words of a line, lower case: `SipPeer`, `sip_peer` and `sip:peer` are all `sip`, `peer`.
///
/// `IOError` is `io`, `error`; digits stay with the letters before them (`s2s`, `rfc3261`).
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let characters: Vec<char> = line.chars().collect();
    for (index, &character) in characters.iter().enumerate() {
        if !character.is_alphanumeric() {
            flush(&mut words, &mut word);
            continue;
        }
        let previous = index.checked_sub(1).map(|previous| characters[previous]);
        let next = characters.get(index + 1).copied();
        let humps = previous.is_some_and(char::is_lowercase);
        let ends_capitals = previous.is_some_and(char::is_uppercase) && next.is_some_and(char::is_lowercase);
        if character.is_uppercase() && (humps || ends_capitals) {
            flush(&mut words, &mut word);
        }
        word.extend(character.to_lowercase());
    }
    flush(&mut words, &mut word);
    words
}

fn flush(words: &mut Vec<String>, word: &mut String) {
    if !word.is_empty() {
        words.push(std::mem::take(word));
    }
}

/// The names of the test functions of a Rust source, with their line numbers (from 1).
///
/// A test is a function with an attribute that says so (`#[test]`, `#[tokio::test]`, `#[rstest]`) directly above.
pub(crate) fn test_names(source: &str) -> Vec<(usize, String)> {
    let code = code(source);
    let mut names = Vec::new();
    let mut is_test = false;
    for (index, line) in code.lines().enumerate() {
        let line = line.trim();
        if line.starts_with("#[") {
            is_test |= line.contains("test]") || line.contains("test(");
        }
        let Some(at) = line.find("fn ").filter(|&at| at == 0 || !is_word(line.as_bytes()[at - 1])) else {
            is_test &= line.is_empty() || line.starts_with("#[") || line.ends_with(']');
            continue;
        };
        if is_test {
            let name: String = line[at + 3..]
                .chars()
                .take_while(|character| character.is_alphanumeric() || *character == '_')
                .collect();
            names.push((index + 1, name));
        }
        is_test = false;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::{code, test_names, words};

    #[test]
    fn comments_and_literals_are_blanked_and_lines_stay() {
        let source =
            "let a = \"tokio \\\" x\"; // tokio\n/* tokio /* in */ tokio\n*/ b\nlet c = r#\"tokio \" \"#;\n";
        let code = code(source);
        assert!(!code.contains("tokio"), "{code}");
        assert_eq!(code.lines().count(), source.lines().count());
        assert!(code.contains("let a =") && code.contains(" b") && code.contains("let c ="));
    }

    #[test]
    fn quotes_of_lifetimes_and_characters_are_told_apart() {
        let code = code("fn f<'a>(x: &'a str) { g('\"'); h(b'\\''); tokio('é', '\\u{1F600}') }");
        assert!(code.contains("fn f<'a>(x: &'a str)"), "{code}");
        assert!(code.contains("tokio("), "{code}");
    }

    #[test]
    fn a_name_that_ends_in_r_begins_no_raw_string() {
        assert!(code("let var = for_r; \"x\" ; tokio").contains("tokio"));
        assert!(!code("br\"tokio\"").contains("tokio"));
    }

    #[test]
    fn words_are_split_at_humps_underscores_and_marks() {
        assert_eq!(words("SipPeer::from_jid(\"sip:a@b\")"), ["sip", "peer", "from", "jid", "sip", "a", "b"]);
        assert_eq!(words("IOError S2sStream"), ["io", "error", "s2s", "stream"]);
    }

    #[test]
    fn only_functions_under_a_test_attribute_are_tests() {
        let source = "#[test]\nfn one_is_one() {}\nfn two() {}\n#[tokio::test(start_paused = true)]\n\
                      async fn three() {}\n#[cfg(test)]\nmod tests {\n #[test]\n /// why\n #[should_panic]\n fn four() {}\n}\n// #[test]\nfn five() {}\n";
        let names: Vec<_> = test_names(source).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["one_is_one", "three", "four"]);
    }
}
