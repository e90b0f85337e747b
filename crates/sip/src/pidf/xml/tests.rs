use super::*;

/// Reads to the end; gives the text of the document, or why it is refused.
fn drain(document: &[u8]) -> Result<String, PidfFault> {
    let document = crate::pidf::read::decode(document)?;
    let mut xml = Xml::new(&document, &Limits::default())?;
    let mut text = String::new();
    while let Some(event) = xml.next()? {
        if let Event::Text(more) = event {
            text.push_str(&more);
        }
    }
    Ok(text)
}

fn is_ill(document: &str) -> bool {
    matches!(drain(document.as_bytes()), Err(PidfFault::IllFormed { .. }))
}

#[test]
fn ill_formed_documents_are_refused() {
    for document in [
        "",
        " ",
        "x",
        "<a>",
        "<a></b>",
        "<a/><b/>",
        "<a/>x",
        "x<a/>",
        "\u{feff}\u{feff}\u{feff}<a/>",
        "\u{feff}\u{feff}\u{feff}na\u{ef}\u{ff}",
        "<a/>&#32;",
        "<a/><![CDATA[ ]]>",
        "<a></a></a>",
        "</a>",
        "< a/>",
        "<a / >",
        "<a></ a>",
        "<1/>",
        "<a:/>",
        "<:a/>",
        "<-a/>",
        "<a$/>",
        "<a:b:c xmlns:a='x'/>",
        "<a:b/>",
        "<a b:c='1'/>",
        "<a b/>",
        "<a b=c/>",
        "<a b='1'c='2'/>",
        "<a b='1' b='2'/>",
        "<a b='1' b=\"1\"/>",
        "<a xmlns:x='u' xmlns:y='u' x:b='1' y:b='2'/>",
        "<a xmlns='u' xmlns='u'/>",
        "<a xmlns:x='u' xmlns:x='v'/>",
        "<a xmlns:x=''/>",
        "<a xmlns:xmlns='u'/>",
        "<a xmlns:xml='u'/>",
        "<a xmlns:x='http://www.w3.org/XML/1998/namespace'/>",
        "<a xmlns:x='http://www.w3.org/2000/xmlns/'/>",
        "<a xmlns='http://www.w3.org/XML/1998/namespace'/>",
        "<a b='<'/>",
        "<a b='&'/>",
        "<a b='&amp'/>",
        "<a>&</a>",
        "<a>]]></a>",
        "<a>\u{1}</a>",
        "<a>\0</a>",
        "<a>\u{8}</a>",
        "<a b='\u{b}'/>",
        "<a>\u{fffe}</a>",
        "<a>\u{ffff}</a>",
        "<!-- \u{1} --><a/>",
        "<!-- -- --><a/>",
        "<!-- ---><a/>",
        "<!- x --><a/>",
        "<![CDATA[x]]><a/>",
        "<a><![cdata[x]]></a>",
        "<a><![CDATA[x]]</a>",
        "<a><?xml version='1.0'?></a>",
        " <?xml version='1.0'?><a/>",
        "<a/><?xml version='1.0'?>",
        "<?XML version='1.0'?><a/>",
        "<?a:b c?><a/>",
        "<? a?><a/>",
        "<?xml?><a/>",
        "<?xml ?><a/>",
        "<?xml encoding='utf-8'?><a/>",
        "<?xml version='2.0'?><a/>",
        "<?xml version='1.'?><a/>",
        "<?xml version='1.0' version='1.0'?><a/>",
        "<?xml version='1.0'encoding='utf-8'?><a/>",
        "<?xml version='1.0' standalone='yes' encoding='utf-8'?><a/>",
        "<?xml version='1.0' standalone='maybe'?><a/>",
        "<?xml version='1.0' encoding='8-bit'?><a/>",
        "<?xml version='1.0' lang='en'?><a/>",
    ] {
        assert!(is_ill(document), "{document:?}: {:?}", drain(document.as_bytes()));
    }
}

#[test]
fn well_formed_documents_are_read() {
    for (document, text) in [
        ("<a/>", ""),
        ("\u{feff}<a/>", ""),
        ("<a ></a >", ""),
        ("<a b = '1'\n\tc=\"2\" />", ""),
        ("<a xmlns='u'><b xmlns=''/></a>", ""),
        ("<a xmlns:x='u' x:b='1' b='2'/>", ""),
        ("<x:a xmlns:x='u' x:b='1'><y:a xmlns:y='u'/></x:a>", ""),
        ("<a b='>'>></a>", ">"),
        ("<a>x<!-- - --><?pi <x> ?>y<![CDATA[<&]]&gt;]]></a>", "xy<&]]&gt;"),
        ("<a>&lt;&gt;&amp;&quot;&apos;&#65;&#x42;&#x1F600;</a>", "<>&\"'AB\u{1f600}"),
        ("<a>\r\n1\r2\n3&#13;</a>", "\n1\n2\n3\r"),
        ("<a>]] ></a>", "]] >"),
        ("<\u{e9}.-\u{b7}9/>", ""),
        ("<?xml version='1.0' encoding='UTF-8' standalone='no'?>\n<!-- -->\n<a/>\n<?x?>\n", ""),
        ("<?xml version='1.1' encoding='ISO-8859-1'?><a>ascii</a>", "ascii"),
        ("<a xmlns:xml='http://www.w3.org/XML/1998/namespace' xml:lang='en'/>", ""),
    ] {
        assert_eq!(drain(document.as_bytes()).as_deref(), Ok(text), "{document:?}");
    }
}

#[test]
fn sip_p_11_dtd_entities_depth_and_size_are_refused() {
    let laughs = "<!DOCTYPE a [<!ENTITY l 'lol'><!ENTITY m '&l;&l;&l;&l;'>]><a>&m;</a>";
    assert_eq!(drain(laughs.as_bytes()), Err(PidfFault::Dtd { at: 0 }));
    assert_eq!(drain(b"<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>"), Err(PidfFault::Dtd { at: 0 }));
    for entity in [
        "&m;",
        "&#0;",
        "&#1;",
        "&#xFFFE;",
        "&#xD800;",
        "&#x110000;",
        "&#;",
        "&#x;",
        "&#-1;",
        "&#x+1;",
        "& b;",
        "&;",
    ] {
        let document = format!("<a>{entity}</a>");
        assert_eq!(drain(document.as_bytes()), Err(PidfFault::Entity { at: 3 }), "{entity}");
        let document = format!("<a b='{entity}'/>");
        assert_eq!(drain(document.as_bytes()), Err(PidfFault::Entity { at: 0 }), "{entity}");
    }
    let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
    assert!(drain(nested(16).as_bytes()).is_ok());
    assert_eq!(drain(nested(17).as_bytes()), Err(PidfFault::TooDeep { limit: 16 }));
    let long = format!("<a>{}</a>", "x".repeat(65_536 - 7));
    assert!(drain(long.as_bytes()).is_ok());
    let too_long = format!("{long} ");
    assert_eq!(drain(too_long.as_bytes()), Err(PidfFault::TooBig { len: 65_537, limit: 65_536 }));
}

#[test]
fn attributes_and_bindings_are_bounded() {
    let attributes = |number| {
        let list: String = (0..number).map(|at| format!(" a{at}=''")).collect();
        drain(format!("<a{list}/>").as_bytes())
    };
    assert!(attributes(32).is_ok());
    assert_eq!(attributes(33), Err(PidfFault::TooMany { what: "attributes", limit: 32 }));
    let nested = |each: usize| {
        let list: String = (0..each).map(|at| format!(" xmlns:p{at}='u'")).collect();
        drain(format!("<a{list}><b{list}/><b{list}/></a>").as_bytes())
    };
    assert!(nested(16).is_ok(), "siblings do not add up");
    assert_eq!(nested(17), Err(PidfFault::TooMany { what: "namespace bindings", limit: 32 }));
}

#[test]
fn encodings_are_read_as_declared_or_refused() {
    for document in [&b"<a>\xff</a>"[..], b"<a>\xed\xa0\x80</a>", b"<a>\xc0\xbc</a>"] {
        assert_eq!(drain(document), Err(PidfFault::NotText));
    }
    assert_eq!(drain(b"\xff\xfe<\0a\0/\0>\0").as_deref(), Ok(""));
    assert_eq!(drain(b"<?xml version='1.0' encoding='UTF-16'?><a>x</a>").as_deref(), Ok("x"));
    let latin = b"<?xml version='1.0' encoding='ISO-8859-1'?><a>\xe9</a>";
    assert_eq!(drain(latin).as_deref(), Ok("\u{e9}"));
    let unknown = b"<?xml version='1.0' encoding='x-none'?><a>\xe9</a>";
    assert_eq!(drain(unknown), Err(PidfFault::Encoding));
}

#[test]
fn attribute_values_are_normalized_and_references_in_them_are_kept() {
    let mut xml =
        Xml::new("<a b='1\r\n2\t3&#10;&lt;&#x9;' c=''/>", &Limits::default()).expect("small and legal");
    let Ok(Some(Event::Start(_))) = xml.next() else { panic!("a start tag") };
    assert_eq!(xml.take("b").as_deref(), Some("1 2 3\n<\t"));
    assert_eq!(xml.take("c").as_deref(), Some(""));
    assert_eq!(xml.take("d"), None);
}

#[test]
fn names_are_ncnames() {
    for name in ["a", "_", "ID-7", "\u{e9}", "a.b", "x\u{b7}", "\u{10000}"] {
        assert!(is_ncname(name), "{name:?}");
    }
    for name in ["", "7", "-a", ".a", "a:b", "a b", "a/b", "\u{b7}", "\u{d7}", "a\u{37e}", "a@b"] {
        assert!(!is_ncname(name), "{name:?}");
    }
}

/// Whether an independent parser takes `document`.
fn oracle_takes(document: &[u8]) -> bool {
    use rxml::Parse;
    let mut rest = document;
    let mut parser = rxml::Parser::new();
    loop {
        match parser.parse(&mut rest, true) {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// Changes `document` here and there, by numbers that `random` gives.
fn mutate(document: &[u8], random: &mut impl FnMut(usize) -> usize) -> Vec<u8> {
    const BITS: [&str; 34] = [
        "<",
        ">",
        "/",
        "&",
        ";",
        "\"",
        "'",
        "=",
        " ",
        ":",
        "]]>",
        "<![CDATA[",
        "]]",
        "&#",
        "&#x1F;",
        "&lt;",
        "xmlns",
        "xmlns:x='u'",
        "x:",
        "xml:lang='en'",
        "<a/>",
        "<x:a>",
        "</",
        "\u{e9}",
        "\u{fffe}",
        "\0",
        "\r\n",
        "-",
        "0",
        "<?xml version='1.0'?>",
        "&amp;",
        "]",
        "<b xmlns='v' b='1'>",
        "x:b='' ",
    ];
    let mut mutant = document.to_vec();
    for _ in 0..=random(3) {
        let at = random(mutant.len() + 1);
        match random(3) {
            0 => {
                mutant.splice(at..at, BITS[random(BITS.len())].bytes());
            }
            1 => {
                let end = mutant.len().min(at + random(12));
                mutant.drain(at..end);
            }
            _ => {
                let end = mutant.len().min(at + random(40));
                let copy = mutant[at..end].to_vec();
                let to = random(mutant.len() + 1);
                mutant.splice(to..to, copy);
            }
        }
    }
    mutant
}

#[test]
fn an_independent_parser_agrees_on_what_is_well_formed() {
    let mut state = 0x9e37_79b9_u32;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        usize::try_from(state).expect("32 bits fit") % below.max(1)
    };
    let seeds: [&[u8]; 5] = [
        include_bytes!("../../../corpus/pidf/prefixed.xml"),
        include_bytes!("../../../corpus/pidf/phone.xml"),
        include_bytes!("../../../corpus/pidf/default-namespace.xml"),
        b"<a xmlns:x='u'><x:b c='1' x:c=\"2\">t<![CDATA[<]]>&amp;&#65;</x:b><b/></a>",
        b"<a xmlns='u' xmlns:x='u'><b x:c='' c=''/></a>",
    ];
    let (mut taken, mut refused) = (0, 0);
    for round in 0..30_000 {
        let mutant = mutate(seeds[round % seeds.len()], &mut random);
        // The other one knows neither comments nor processing instructions, wants a plain XML declaration, and
        // takes no white space before the root without one and no CR in attribute values.
        let declaration = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>";
        let body = mutant.strip_prefix(declaration).unwrap_or(&mutant);
        if [&b"<?"[..], b"<!--"].iter().any(|odd| body.windows(odd.len()).any(|window| window == *odd)) {
            continue;
        }
        if mutant.first().is_some_and(u8::is_ascii_whitespace) || mutant.contains(&b'\r') {
            continue;
        }
        match drain(&mutant) {
            Err(PidfFault::TooMany { .. } | PidfFault::TooDeep { .. } | PidfFault::TooBig { .. }) => {}
            // The other one lets two equal `xmlns` pass.
            Err(PidfFault::IllFormed { what: "an attribute twice", .. }) => {}
            ours => {
                let document = String::from_utf8_lossy(&mutant);
                assert_eq!(ours.is_ok(), oracle_takes(&mutant), "{ours:?}\n{document}");
                *(if ours.is_ok() { &mut taken } else { &mut refused }) += 1;
            }
        }
    }
    assert!(taken > 3000 && refused > 3000, "{taken} taken, {refused} refused");
}
