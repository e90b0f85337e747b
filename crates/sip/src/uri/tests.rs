use super::*;

fn uri(text: &str) -> SipUri {
    SipUri::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"))
}

#[test]
fn a_full_uri_comes_apart() {
    let uri = uri("sips:al%69ce:secret@[2001:db8::1]:5061;transport=tcp;lr?subject=a%20b&priority=urgent");
    let view = uri.view();
    assert_eq!(view.scheme(), Scheme::Sips);
    assert_eq!(view.user(), Some("al%69ce"));
    assert_eq!(view.user_decoded(), Ok(Some("alice".into())));
    assert_eq!(view.password(), Some("secret"));
    assert_eq!(view.host().and_then(|host| host.address()), "2001:db8::1".parse().ok());
    assert_eq!(view.port(), Some(5061));
    assert_eq!(view.params().value("Transport"), Some("tcp"));
    assert!(view.params().has("LR"));
    assert_eq!(view.headers(), "subject=a%20b&priority=urgent");
}

#[test]
fn schemes_without_host_are_opaque() {
    assert_eq!(uri("tel:+1-201-555-0123;phone-context=x").host(), None);
    assert_eq!(uri("nobodyKnowsThisScheme:totallyopaquecontent").scheme(), Scheme::Other);
    assert_eq!(uri("soap.beep://192.0.2.103:3002").scheme(), Scheme::Other);
    assert_eq!(uri("pres:juliet@example.com").user(), Some("juliet"));
}

#[test]
fn malformed_uris_are_refused() {
    for wrong in [
        "",
        "sip",
        "sip:",
        ":x@y",
        "<sip:user@example.com>",
        "sip:user@example.com; lr",
        " sip:user@example.com",
        "sip:a@b@c",
        "sip:@host",
        "sip:a@host:0",
        "sip:a@host:65536",
        "sip:a@host:",
        "sip:a@host:5o60",
        "sip:%zz@host",
        "sip:a%4@host",
        "sip:a@ho%73t",
        "sip:a@-!-",
        "sip:a@host;",
        "sip:a@host;;lr",
        "sip:a@host;=x",
        "sip:a@host?",
        "sip:a@host?x",
        "sip:a b@host",
        "sip:\u{e9}@host",
        "sip:2001:db8::10",
        "sip:[2001:db8::10",
        "sip:[2001:db8::10]x",
        "sip:1.2.3.4.5",
        "sip:256.1.1.1",
        "sip:a..b",
        "1sip:a@b",
        "is bn:2983792873",
    ] {
        assert!(SipUri::parse(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn sip_t_17_a_uri_over_the_limit_is_refused() {
    let long = format!("sip:{}@host", "a".repeat(MAX_URI_LEN));
    assert_eq!(SipUri::parse(&long), Err(UriFault::TooLong { len: long.len() }));
    assert!(SipUri::parse(&long[..MAX_URI_LEN - 9]).is_err(), "no host");
    assert!(SipUri::parse(&format!("sip:{}@host", "a".repeat(MAX_URI_LEN - 9))).is_ok());
}

#[test]
fn sip_t_14_equivalent_uris_of_rfc3261_section_19_1_4() {
    for (a, b) in [
        ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;security=on"),
        (
            "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
            "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
        ),
        (
            "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
            "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
        ),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;security=off"),
        ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on"),
        ("sip:carol@192.0.2.5:5061;transport=udp", "SIP:%63arol@192.0.2.5:5061;TRANSPORT=UDP"),
        ("sips:carol@[2001:DB8::5]", "sips:carol@[2001:db8:0::5];ob"),
        ("sip:c@h;a=%41", "sip:c@h;a=a"),
        ("TEL:+1-201-555-0123", "tel:+1-201-555-0123"),
        // A parameter that stands twice with two values, which it must not: still itself.
        ("sip:a@b;x=1;x=2", "sip:a@b;x=1;x=2"),
        // esc01 of RFC 4475: escapes in parameter names and values.
        ("sip:cal%6Cer@host5.example.net;%6C%72", "sip:caller@host5.example.net;lr"),
    ] {
        assert!(uri(a).matches(&uri(b)), "{a} {b}");
        assert!(uri(b).matches(&uri(a)), "{b} {a}");
    }
}

#[test]
fn sip_t_14_uris_of_rfc3261_section_19_1_4_that_are_not_equivalent() {
    for (a, b) in [
        ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
        ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
        ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
        ("sip:a@b", "sips:a@b"),
        ("sip:b", "sip:a@b"),
        ("sip:a@b", "sip:a:pw@b"),
        ("sip:a@b", "sip:a@b;maddr=192.0.2.1"),
        ("sip:a@b", "sip:a@b;user=phone"),
        // Reserved characters are not equivalent to their escapes, and nothing is undone twice.
        ("sip:a%2Fb@c", "sip:a/b@c"),
        ("sip:a%2541@c", "sip:a%41@c"),
        ("sip:null-%00-null@example.com", "sip:null-@example.com"),
        ("sip:a@b;ttl=1", "sip:a@b"),
        ("sip:a@b;method=INVITE", "sip:a@b"),
        ("tel:+1-201-555-0123", "tel:+1-201-555-0124"),
    ] {
        assert!(!uri(a).matches(&uri(b)), "{a} {b}");
        assert!(!uri(b).matches(&uri(a)), "{b} {a}");
    }
}

#[test]
fn texts_that_are_no_uris_are_equivalent_to_themselves_only() {
    assert!(are_equivalent("sip:a@b", "SIP:%61@B"));
    assert!(are_equivalent("no uri", "no uri"));
    for (one, other) in [("no uri", "No uri"), ("sip:a@b", "no uri"), ("", "sip:a@b")] {
        assert!(!are_equivalent(one, other) && !are_equivalent(other, one), "{one} {other}");
    }
}

#[test]
fn sip_t_15_ipv6_literals_in_hosts() {
    let read = |text| HostPort::parse(text).map(|found| (found.host.to_string(), found.port));
    assert_eq!(read("[2001:db8::10]"), Ok(("[2001:db8::10]".into(), None)));
    assert_eq!(read("[2001:db8::10]:5070"), Ok(("[2001:db8::10]".into(), Some(5070))));
    // RFC 5118 §4.3: what looks like a port inside the brackets is part of the address.
    assert_eq!(read("[2001:db8::10:5070]"), Ok(("[2001:db8::10:5070]".into(), None)));
    assert_eq!(read("[::ffff:192.0.2.10]:19823"), Ok(("[::ffff:192.0.2.10]".into(), Some(19823))));
    assert_eq!(read("[2001:db8:::192.0.2.1]"), Ok(("[2001:db8::c000:201]".into(), None)));
    assert_eq!(
        Host::parse("[::ffff:192.0.2.10]").ok().and_then(|host| host.address()),
        "192.0.2.10".parse().ok()
    );
    assert_eq!(host::address("2001:db8::9:255"), host::address("[2001:db8::9:255]"));
    assert!(host::address("2001:db8::9:255").is_some());
}

#[test]
fn a_user_in_plain_text_is_escaped_and_comes_back() {
    for plain in ["alice", "a b@c\r\n%00", "\u{e9}\u{1f600}", "a;b?c/d", "\0", "[x]{y}\"<>"] {
        let made =
            SipUri::from_parts(Scheme::Sip, Some(plain), Host::Name("example.com"), Some(5060)).expect(plain);
        assert_eq!(made.view().user_decoded(), Ok(Some(plain.into())), "{made}");
        assert!(made.as_str().is_ascii());
    }
}
