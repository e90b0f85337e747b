//! The gate: everything that XML, its namespaces or XMPP forbid is refused; rxml is the oracle.

use proptest::{prelude::*, test_runner::RngSeed};
use rxml::{Event, Parse, Parser};
use tombolo_xmpp::{
    fuzz_bodies::{Mutator, walk},
    xml::{Scope, XmlFault, XmlLimits, check},
};

const LIMITS: XmlLimits = XmlLimits {
    element_bytes: 1 << 20,
    depth: 64,
    attributes: 64,
    declarations: 32,
    name_bytes: 1 << 16,
    value_bytes: 1 << 16,
};

fn gate(xml: &[u8]) -> Result<(), XmlFault> {
    check(xml, &Scope::empty(), &LIMITS).map(|_| ())
}

fn condition(xml: &[u8]) -> Option<&'static str> {
    gate(xml).err().map(|fault| fault.condition())
}

#[test]
fn xs_xml_02_what_is_not_well_formed_is_refused() {
    for xml in [
        "",
        "x",
        "<",
        "<a",
        "<a>",
        "<a/",
        "<a/ >",
        "</a>",
        "<a></b>",
        "<a></a",
        "<a></a b>",
        "<a></ a>",
        "< a/>",
        "<a><b></a></b>",
        "<a/><b/>",
        "<a/>x",
        "<a/> ",
        " <a/>",
        "<a/><",
        "<1/>",
        "<-a/>",
        "<.a/>",
        "<a\u{d7}/>",
        "<a b/>",
        "<a b=c/>",
        "<a b='c'd='e'/>",
        "<a b='c' b='d'/>",
        "<a b='<'/>",
        "<a b='&'/>",
        "<a b='&amp'/>",
        "<a b='/>",
        "<a b='c\"/>",
        "<a 'b'/>",
        "<a =''/>",
        "<a b=''/ >",
        "<a>&</a>",
        "<a>&amp</a>",
        "<a>& amp;</a>",
        "<a>&#;</a>",
        "<a>&#x;</a>",
        "<a>&#1;</a>",
        "<a>&#0;</a>",
        "<a>&#xFFFE;</a>",
        "<a>&#xD800;</a>",
        "<a>&#x110000;</a>",
        "<a>&#X41;</a>",
        "<a>]]></a>",
        "<a><![CDATA[</a>",
        "<a><![cdata[x]]></a>",
        "<![CDATA[x]]>",
        "<a>\u{0}</a>",
        "<a>\u{8}</a>",
        "<a>\u{FFFE}</a>",
        "<a b='\u{1}'/>",
        "<a\u{b}/>",
        "<a>\u{1f}</a>",
    ] {
        assert_eq!(condition(xml.as_bytes()), Some("not-well-formed"), "{xml:?}");
    }
}

#[test]
fn xs_xml_02_what_is_not_well_formed_in_its_namespaces_is_refused() {
    for xml in [
        "<p:a/>",
        "<a p:b=''/>",
        "<:a/>",
        "<a:/>",
        "<a:b:c xmlns:a='u'/>",
        "<a xmlns:p=''/>",
        "<a xmlns:='u'/>",
        "<a xmlns:xmlns='u'/>",
        "<a xmlns:p='http://www.w3.org/2000/xmlns/'/>",
        "<a xmlns='http://www.w3.org/2000/xmlns/'/>",
        "<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>",
        "<a xmlns='http://www.w3.org/XML/1998/namespace'/>",
        "<a xmlns:xml='u'/>",
        "<xmlns:a/>",
        "<a xmlns:p='u' xmlns:p='v'/>",
        "<a xmlns='u' xmlns='v'/>",
        "<a xmlns:p='u' xmlns:q='u' p:b='' q:b=''/>",
        "<a xmlns:p='u&#x20;' xmlns:q='u ' p:b='' q:b=''/>",
        "<a><b xmlns:p='u'/><p:c/></a>",
        "<p:a xmlns:p='u'></q:a>",
        "<a xmlns:p='u'><p:b></b></a>",
    ] {
        assert_eq!(condition(xml.as_bytes()), Some("not-well-formed"), "{xml:?}");
    }
}

#[test]
fn what_is_well_formed_passes() {
    for xml in [
        "<a/>",
        "<a></a>",
        "<a ></a >",
        "<a\n b = 'c'\t/>",
        "<a>&amp;&lt;&gt;&apos;&quot;&#9;&#x10FFFF;</a>",
        "<a>]]&gt; ]] ]></a>",
        "<a><![CDATA[<&]]]]></a>",
        "<a b='>' c=\"'\"/>",
        "<é ü='ö'/>",
        "<a xmlns='' xmlns:p='u' p:b='' b=''/>",
        "<a xml:lang='en' xmlns:xml='http://www.w3.org/XML/1998/namespace'/>",
        "<p:a xmlns:p='u'><p:b xmlns:p='v'/></p:a>",
        "<a xmlns:p='u' xmlns:q='v' p:b='' q:b=''/>",
        "<a>\u{7f}\u{85}\u{FFFD}\u{10FFFF}</a>",
        "<_/>",
        "<a-b.c1/>",
    ] {
        assert_eq!(gate(xml.as_bytes()), Ok(()), "{xml:?}");
    }
}

#[test]
fn xs_xml_02_bad_utf_8_is_refused_wherever_it_stands() {
    let sequences: [&[u8]; 15] = [
        b"\x80",
        b"\xbf",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xc3",
        b"\xe0\x80\x80",
        b"\xe0\x9f\xbf",
        b"\xe2\x82",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf0\x80\x80\x80",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xfe",
        b"\xff",
    ];
    for bad in sequences {
        for (before, after) in [
            ("<a>", "</a>"),
            ("<a b='", "'/>"),
            ("<", "/>"),
            ("<a ", "=''/>"),
            ("<a><![CDATA[", "]]></a>"),
            ("<a xmlns='", "'/>"),
        ] {
            let xml = [before.as_bytes(), bad, after.as_bytes()].concat();
            assert_eq!(condition(&xml), Some("unsupported-encoding"), "{xml:?}");
        }
    }
}

#[test]
fn xs_xml_01_comment_pi_dtd_and_foreign_entity_are_restricted() {
    for xml in [
        "<a><!-- x --></a>",
        "<a><?x?></a>",
        "<a><!DOCTYPE x></a>",
        "<!DOCTYPE a>",
        "<!--x--><a/>",
        "<a>&nbsp;</a>",
        "<a b='&lol;'/>",
        "<a>&xxe;</a>",
    ] {
        assert_eq!(condition(xml.as_bytes()), Some("restricted-xml"), "{xml:?}");
    }
}

#[test]
fn xs_lim_04_depth_attributes_names_values_and_declarations_are_bounded() {
    let attributes = |count: usize| (0..count).map(|n| format!(" a{n}=''")).collect::<String>();
    let declarations = |count: usize| (0..count).map(|n| format!(" xmlns:a{n}='u'")).collect::<String>();
    let nested = |count: usize| "<a>".repeat(count) + &"</a>".repeat(count);
    let limits = XmlLimits { name_bytes: 100, value_bytes: 1000, ..LIMITS };
    for (good, bad, fault) in [
        (nested(64), nested(65), XmlFault::TooDeep { limit: 64 }),
        (
            format!("<a{}/>", attributes(64)),
            format!("<a{}/>", attributes(65)),
            XmlFault::TooManyAttributes { limit: 64 },
        ),
        (
            format!("<a{}/>", declarations(32)),
            format!("<a{}/>", declarations(33)),
            XmlFault::TooManyDeclarations { limit: 32 },
        ),
        (
            format!("<{}/>", "a".repeat(100)),
            format!("<{}/>", "a".repeat(101)),
            XmlFault::NameTooLong { limit: 100 },
        ),
        (
            format!("<a b='{}'/>", "c".repeat(1000)),
            format!("<a b='{}'/>", "c".repeat(1001)),
            XmlFault::ValueTooLong { limit: 1000 },
        ),
        (
            format!("<a><b xmlns:c='{}'/></a>", "u".repeat(1000)),
            format!("<a><b xmlns:c='{}'/></a>", "u".repeat(1001)),
            XmlFault::ValueTooLong { limit: 1000 },
        ),
        (
            format!("<a><b xmlns='{}'/></a>", "u".repeat(1000)),
            format!("<a><b xmlns='{}'/></a>", "u".repeat(1001)),
            XmlFault::ValueTooLong { limit: 1000 },
        ),
    ] {
        let judge = |xml: &str| check(xml.as_bytes(), &Scope::empty(), &limits).map(|_| ());
        assert_eq!((judge(&good), judge(&bad)), (Ok(()), Err(fault)));
        assert_eq!(fault.condition(), "policy-violation");
    }
}

#[test]
fn a_picture_in_an_attribute_inside_a_stanza_is_bounded_by_the_size_of_the_stanza_only() {
    let limits = XmlLimits::UNAUTHENTICATED.with_element_bytes(262_144);
    for value in ["A".repeat(200_000), "&amp;".repeat(40_000)] {
        let xml = format!("<message><html><img src='data:image/png;base64,{value}'/></html></message>");
        assert!(check(xml.as_bytes(), &Scope::empty(), &limits).is_ok());
    }
}

#[test]
fn xs_lim_04_namespaces_that_hold_at_one_place_are_bounded_too() {
    let level = |level: usize| (0..32).map(|n| format!(" xmlns:a{level}-{n}='u'")).collect::<String>();
    let nested = |count: usize| {
        let open: String = (0..count).map(|at| format!("<a{}>", level(at))).collect();
        open + &"</a>".repeat(count)
    };
    assert_eq!(gate(nested(8).as_bytes()), Ok(()));
    assert_eq!(gate(nested(9).as_bytes()), Err(XmlFault::TooManyDeclarations { limit: 256 }));
    let beside = format!("<a>{}</a>", format!("<a{}/>", level(0)).repeat(20));
    assert_eq!(gate(beside.as_bytes()), Ok(()), "one after the other they are not together");
}

#[test]
fn prefixes_of_the_stream_header_may_be_used_and_are_told() {
    let mut scope = Scope::server();
    scope.declare("p", "u");
    scope.declare("q", "u");
    let borrowed = |xml: &'static str| {
        check(xml.as_bytes(), &scope, &LIMITS).map(|checked| checked.borrowed_prefixes.to_vec())
    };
    assert_eq!(borrowed("<a><p:b q:c=''/><p:d/></a>"), Ok(vec!["p", "q"]));
    assert_eq!(borrowed("<a xmlns:p='v'><p:b/></a>"), Ok(vec![]), "its own declaration goes before");
    assert!(borrowed("<a p:b='' q:b=''/>").is_err(), "the same name, by way of the header");
}

/// What rxml makes of one element: the same walk as ours, or `None` when it refuses.
fn oracle(xml: &[u8]) -> Option<String> {
    let mut parser = Parser::new();
    let mut rest = xml;
    let mut out = String::new();
    let mut text = String::new();
    let mut depth = 0;
    loop {
        let event = match parser.parse(&mut rest, true) {
            Ok(Some(event)) => event,
            Ok(None) => break,
            Err(_) => return None,
        };
        if !matches!(event, Event::Text(..)) && !text.is_empty() {
            out.push_str(&format!("{text:?}"));
            text.clear();
        }
        match event {
            Event::XmlDeclaration(..) => return None,
            Event::StartElement(_, (ns, name), attributes) => {
                depth += 1;
                out.push_str(&format!("<{{{}}}{name}", ns.as_str()));
                let mut attributes: Vec<String> = attributes
                    .iter()
                    .map(|((ns, name), value)| format!(" {{{}}}{name}={value:?}", ns.as_str()))
                    .collect();
                attributes.sort();
                out.extend(attributes);
                out.push('>');
            }
            Event::EndElement(_) => {
                depth -= 1;
                out.push_str("</>");
                if depth == 0 && !rest.is_empty() {
                    // We take one element and not even white space behind it.
                    return None;
                }
            }
            Event::Text(_, piece) => text.push_str(&piece),
        }
    }
    Some(out)
}

fn compare(xml: &[u8]) {
    let ours = check(xml, &Scope::empty(), &LIMITS).map(|checked| walk(checked.text));
    let theirs = oracle(xml);
    match (&ours, &theirs) {
        // Our limits are not its limits.
        (
            Err(
                XmlFault::TooDeep { .. }
                | XmlFault::TooManyAttributes { .. }
                | XmlFault::TooManyDeclarations { .. },
            ),
            _,
        ) => {}
        // Two rules that rxml 0.14 does not know: an attribute may not stand twice, not even `xmlns`, and there is no
        // section in front of the root.
        (
            Err(XmlFault::NotWellFormed { why: "a namespace is declared twice" | "a section is no element" }),
            _,
        ) => {}
        // A carriage return without a line feed is a line end too (XML 1.0 §2.11): rxml refuses it or drops it.
        (Ok(_), _) if xml.split(|byte| *byte == b'\r').skip(1).any(|rest| rest.first() != Some(&b'\n')) => {}
        // It leaves U+FDF0 to U+FFFD out of names, which XML 1.0 §2.3 lets in.
        (Ok(ours), None) if ours.contains(|c| ('\u{FDF0}'..='\u{FFFD}').contains(&c)) => {}
        (Ok(ours), Some(theirs)) => {
            // Behind a `]` in CDATA rxml forgets to make one line end of the two characters (XML 1.0 §2.11).
            let lines = |text: &str| text.replace("\\r\\n", "\\n");
            assert_eq!(lines(ours), lines(theirs), "{}", String::from_utf8_lossy(xml));
        }
        (Err(_), None) => {}
        _ => panic!("we say {ours:?}, rxml says {theirs:?}: {}", String::from_utf8_lossy(xml)),
    }
}

/// Pieces from which documents are made that are nearly right.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(vec![
            "<a>", "</a>", "<a/>", "<b xmlns='u'>", "</b>", "<p:a xmlns:p='u'>", "</p:a>", "<p:c/>", "<a b='c'>", "<a b='&amp;' c=\"'\"/>",
            "<a p:b='' xmlns:p='u' xmlns:q='u' q:c=''/>", " xmlns:p='u'", "&lt;", "&#x41;", "&#13;", "]]>", "<![CDATA[", "]]", ">", "<", "/", "=",
            "'", "\"", " ", "\n", "\r\n", "\t", "&", ";", ":", "a", "xml:lang='en'", "xmlns", "é", "\u{FFFE}", "\u{b}", "<!--", "-->", "<?", "?>",
            "<a b='x\r\ny\tz'/>", "<xml:a/>", "&#0;", "&#xD7FF;", "<a1.-_/>",
        ]).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 20_000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_gate_and_rxml_agree_on_documents_made_of_pieces(pieces in prop::collection::vec(piece(), 1..12)) {
        compare(pieces.concat().as_bytes());
        compare(format!("<a>{}</a>", pieces.concat()).as_bytes());
    }
}

#[test]
fn the_gate_and_rxml_agree_on_mutated_stanzas() {
    let mut mutator = Mutator::new(1, tombolo_xmpp::fuzz_bodies::GATE_SEEDS);
    for _ in 0..60_000 {
        compare(&mutator.next_input());
    }
}
