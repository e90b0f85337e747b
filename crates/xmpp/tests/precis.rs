//! Addresses against the public vectors of PRECIS and the examples of the standards.

use serde_json::Value;
use tombolo_xmpp::jid::{Domain, Jid, JidError};

const VECTORS: &str = include_str!("data/precis-vectors.json");

fn domain() -> Domain {
    Domain::parse("example.com").expect("a domain")
}

fn local(text: &str) -> Option<String> {
    let jid = Jid::from_parts(Some(text), &domain(), None).ok()?;
    Some(jid.local().expect("a local part").to_owned())
}

fn resource(text: &str) -> Option<String> {
    let jid = Jid::from_parts(None, &domain(), Some(text)).ok()?;
    Some(jid.resource().expect("a resource").to_owned())
}

/// Every vector of `profile` that `enforce` gets wrong, and how many there are.
fn wrong(
    profile: &str,
    enforce: impl Fn(&str) -> Option<String>,
    may_hold: impl Fn(&str) -> bool,
) -> (Vec<String>, usize) {
    let vectors: Vec<Value> = serde_json::from_str(VECTORS).expect("JSON");
    let of_profile: Vec<&Value> = vectors.iter().filter(|vector| vector["profile"] == profile).collect();
    let wrong = of_profile.iter().filter_map(|vector| {
        let input = vector["input"].as_str().expect("an input");
        let wanted = vector["output"].as_str().filter(|output| may_hold(output)).map(str::to_owned);
        let found = enforce(input);
        (found != wanted).then(|| format!("{input:?}: {found:?}, not {wanted:?} ({})", vector["error"]))
    });
    (wrong.collect(), of_profile.len())
}

#[test]
fn every_public_vector_of_usernames_is_met() {
    // RFC 7622 §3.3.1 excludes eight characters that the profile allows.
    let (wrong, count) = wrong("UsernameCaseMapped", local, |output| {
        !output.contains(['"', '&', '\'', '/', ':', '<', '>', '@'])
    });
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(count, 323);
}

#[test]
fn every_public_vector_of_opaque_strings_is_met() {
    let (wrong, count) = wrong("OpaqueString", resource, |_| true);
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(count, 323);
}

#[test]
fn xs_adr_02_the_legal_examples_of_rfc_7622_are_addresses() {
    for (number, written, parts) in [
        (1, "juliet@example.com", (Some("juliet"), "example.com", None)),
        (2, "juliet@example.com/foo", (Some("juliet"), "example.com", Some("foo"))),
        (3, "juliet@example.com/foo bar", (Some("juliet"), "example.com", Some("foo bar"))),
        (4, "juliet@example.com/foo@bar", (Some("juliet"), "example.com", Some("foo@bar"))),
        (5, "foo\\20bar@example.com", (Some("foo\\20bar"), "example.com", None)),
        (6, "fussball@example.com", (Some("fussball"), "example.com", None)),
        (7, "fußball@example.com", (Some("fußball"), "example.com", None)),
        (8, "π@example.com", (Some("π"), "example.com", None)),
        (9, "Σ@example.com/foo", (Some("σ"), "example.com", Some("foo"))),
        (10, "σ@example.com/foo", (Some("σ"), "example.com", Some("foo"))),
        (11, "ς@example.com/foo", (Some("ς"), "example.com", Some("foo"))),
        (12, "king@example.com/♚", (Some("king"), "example.com", Some("♚"))),
        (13, "example.com", (None, "example.com", None)),
        (14, "example.com/foobar", (None, "example.com", Some("foobar"))),
        (15, "a.example.com/b@example.net", (None, "a.example.com", Some("b@example.net"))),
        // Table 2 calls this one illegal, but OpaqueString does not (erratum 4560).
        (18, "juliet@example.com/ foo", (Some("juliet"), "example.com", Some(" foo"))),
    ] {
        let jid = Jid::parse(written).unwrap_or_else(|error| panic!("example {number}: {error}"));
        assert_eq!((jid.local(), jid.domain(), jid.resource()), parts, "example {number}");
        assert_eq!(Jid::parse(jid.as_str()).as_ref(), Ok(&jid), "example {number} again");
    }
}

#[test]
fn xs_adr_02_the_illegal_examples_of_rfc_7622_are_refused() {
    for (number, written, error) in [
        (16, "\"juliet\"@example.com", JidError::Local),
        (17, "foo bar@example.com", JidError::Local),
        (19, "@example.com/", JidError::EmptyPart),
        (20, "henryⅣ@example.com", JidError::Local),
        (21, "♚@example.com", JidError::Local),
        (22, "juliet@", JidError::EmptyPart),
        (23, "/foobar", JidError::EmptyPart),
    ] {
        assert_eq!(Jid::parse(written), Err(error), "example {number}");
    }
}

#[test]
fn the_examples_of_rfc_8265_come_out_as_they_stand_there() {
    for (written, enforced) in [
        ("juliet", Some("juliet")),
        ("fussball", Some("fussball")),
        ("fußball", Some("fußball")),
        ("π", Some("π")),
        ("Σ", Some("σ")),
        ("σ", Some("σ")),
        ("ς", Some("ς")),
        ("foo bar", None),
        ("", None),
        ("henryⅣ", None),
        ("∞", None),
    ] {
        assert_eq!(local(written).as_deref(), enforced, "{written:?}");
    }
    for (written, enforced) in [
        ("correct horse battery staple", Some("correct horse battery staple")),
        ("Correct Horse Battery Staple", Some("Correct Horse Battery Staple")),
        ("πßå", Some("πßå")),
        ("Jack of ♦s", Some("Jack of ♦s")),
        ("foo\u{1680}bar", Some("foo bar")),
        ("", None),
        ("my cat is a \u{9}by", None),
    ] {
        assert_eq!(resource(written).as_deref(), enforced, "{written:?}");
    }
}

#[test]
fn a_resource_keeps_every_symbol_as_it_was_written() {
    for text in ["🐴", "Laptop™", "①", "ﬁ", "Ａ", "½", "👩‍🚀x🤖".trim_matches('x'), "é", "テレビ・ラジオ"]
    {
        let kept = resource(text);
        if text.contains('\u{200D}') {
            assert_eq!(
                kept, None,
                "a joiner without a virama before it is disallowed (RFC 5892 appendix A.2)"
            );
        } else {
            assert_eq!(kept.as_deref(), Some(text));
        }
    }
    assert_eq!(resource("e\u{301}").as_deref(), Some("é"), "but for NFC");
}

#[test]
fn a_local_part_is_never_folded_by_compatibility() {
    for text in ["①", "ﬁsh", "Laptop™", "x²", "ǆ", "㎏", "½"] {
        assert_eq!(local(text), None, "{text}");
    }
    for (written, enforced) in
        [("ＡＬＩＣＥ", "alice"), ("ｶﾞｽ", "ガス"), ("ÅSA", "åsa"), ("A\u{30A}sa", "åsa")]
    {
        assert_eq!(local(written).as_deref(), Some(enforced), "{written}");
    }
}

#[test]
fn a_fullwidth_separator_does_not_bring_an_excluded_character() {
    for text in ["a＠b", "a／b", "＂a", "a＆b", "a＇b", "a：b", "＜a", "a＞"] {
        assert_eq!(local(text), None, "{text}");
    }
}

#[test]
fn domains_follow_idna2008_and_not_uts_46() {
    for (written, canonical) in [
        ("faß.example", Ok("faß.example")),
        ("FASS.example", Ok("fass.example")),
        ("xn--fa-hia.example", Ok("faß.example")),
        ("ＢÜＣＨＥＲ．example", Ok("bücher.example")),
        ("bu\u{308}cher.example", Ok("bücher.example")),
        ("例え。テスト", Ok("例え.テスト")),
        ("βόλος.example", Ok("βόλος.example")),
        ("col·legi.example", Ok("col·legi.example")),
        ("a·b.example", Err(JidError::Domain)),
        ("①.example", Err(JidError::Domain)),
        ("ﬁsh.example", Err(JidError::Domain)),
        ("♚.example", Err(JidError::Domain)),
        ("xn--45h.example", Err(JidError::Domain)),
        ("ᾀ.example", Err(JidError::Domain)),
        ("Ꭰ.example", Ok("Ꭰ.example")),
        ("a\u{200D}b.example", Err(JidError::Domain)),
        ("xn--a.example", Err(JidError::Domain)),
        ("א1.example", Ok("א1.example")),
        ("1א.example", Err(JidError::Domain)),
    ] {
        let found = Domain::parse(written);
        assert_eq!(found.as_ref().map(Domain::as_str).map_err(|error| *error), canonical, "{written}");
        if let Ok(domain) = found {
            assert_eq!(Domain::parse(domain.as_str()), Ok(domain), "{written} again");
        }
    }
}

#[test]
fn an_address_that_was_enforced_is_enforced_to_itself() {
    let vectors: Vec<Value> = serde_json::from_str(VECTORS).expect("JSON");
    for vector in &vectors {
        let input = vector["input"].as_str().expect("an input");
        for enforce in [local, resource] {
            if let Some(once) = enforce(input) {
                assert_eq!(enforce(&once).as_ref(), Some(&once), "{input:?}");
            }
        }
    }
}
