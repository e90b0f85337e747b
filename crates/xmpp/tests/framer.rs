//! The framer: the same frames for every cut, bounded in size and depth, restricted XML refused.

use tombolo_xmpp::{
    framer::{Frame, Framer},
    xml::{XmlFault, XmlLimits},
};

const HEADER: &str =
    "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' to='a'>";

/// The next frame that is no mere start tag of an element.
fn next(framer: &mut Framer) -> Result<Option<Frame>, XmlFault> {
    loop {
        match framer.next_frame() {
            Ok(Some(Frame::Opened(_))) => {}
            other => return other,
        }
    }
}

/// All frames of `input` pushed in pieces of `step` octets, and the fault that ends them.
fn frames(input: &[u8], step: usize, limits: XmlLimits) -> (Vec<Frame>, Option<XmlFault>) {
    let mut framer = Framer::new(limits);
    let mut frames = Vec::new();
    for piece in input.chunks(step) {
        framer.push(piece);
        loop {
            match next(&mut framer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(fault) => return (frames, Some(fault)),
            }
        }
    }
    (frames, None)
}

fn elements(text: &str) -> (Vec<String>, Option<XmlFault>) {
    let (frames, fault) = frames(text.as_bytes(), text.len(), XmlLimits::UNAUTHENTICATED);
    let texts = frames.into_iter().map(|frame| match frame {
        Frame::Header(xml) => format!("header {}", xml.len()),
        Frame::Opened(_) => unreachable!("left out"),
        Frame::Element(element) => String::from_utf8_lossy(&element.xml).into_owned(),
        Frame::End => "end".into(),
    });
    (texts.collect(), fault)
}

/// Streams with everything that can be cut in two, good and bad.
fn corpus() -> Vec<Vec<u8>> {
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    let header = HEADER;
    for text in [
        format!("<?xml version='1.0' encoding='UTF-8'?>{header}<presence/></stream:stream>"),
        format!("{header} \n\t <message><body>a &lt; b ü€𝄞</body></message>\r\n<iq a='>' b=\"'/>\"/> "),
        format!("{header}<m><![CDATA[ ]] ]]] <x> </m> ü ]]]></m><m><![CDATA[]]></m></stream:stream > "),
        format!("{header}<a><b><c/></b><b x='&lt;/b>'></b></a></stream:stream>trailing"),
        format!("{header}<stream:error p:x='' xmlns:p='u'><p:é ö='&#228;'/></stream:error></stream:streaM>"),
        format!("{header}<a><b></a></b>"),
        format!("{header}<a b='c' d='e' b='f'></a>"),
        format!("{header}<a xmlns:p='u&#x20;' xmlns:q='u ' p:b='' q:b=''></a>"),
        format!("{header}<a>]]&gt;]]></a>"),
        format!("{header}<a>&nbsp;</a>"),
        format!("{header}<a b='{}'/>", "v".repeat(9_000)),
        format!("{header}<{}/>", "n".repeat(1100)),
        format!("{header}<a>{}ü€𝄞</a>", "x".repeat(9_990)),
        format!("{header}<a><!-- no --></a>"),
        format!("{header}<a><!DOCTYPE x></a>"),
        format!("{header}<a><![CDATX[x]]></a>"),
        format!("{header}<a><?php ?></a>"),
        format!("{header}</a>"),
        format!("{header}stray"),
        "<?xml version='1.1'?>".into(),
        "<?xml version='1.0' encoding='latin1'?>".into(),
        "<?xml version='1.0'?><?xml version='1.0'?>".into(),
        "\u{feff}<stream:stream>".into(),
        "<!DOCTYPE lolz [<!ENTITY lol 'lol'>]><lolz>&lol;</lolz>".into(),
        format!("{header}<a>{}</a>", "x".repeat(11_000)),
        format!("{header}{}", "<a>".repeat(100)),
        "GET / HTTP/1.1\r\n".into(),
        "</stream:stream>".into(),
        "<stream:stream/>x".into(),
    ] {
        corpus.push(text.into_bytes());
    }
    corpus.push([header.as_bytes(), b"<a>\xff\xfe\xc3</a><b>\xc3\xbc</b>"].concat());
    corpus.push(vec![0x16, 0x03, 0x01, 0x02, 0x00]);
    corpus
}

#[test]
fn xs_xml_04_the_frames_are_the_same_whatever_the_segment_borders_are() {
    for input in corpus() {
        let whole = frames(&input, input.len(), XmlLimits::UNAUTHENTICATED);
        for step in [1, 2, 3, 7, 64, 1000] {
            let cut = frames(&input, step, XmlLimits::UNAUTHENTICATED);
            assert_eq!(
                cut,
                whole,
                "in steps of {step}: {}",
                String::from_utf8_lossy(&input[..input.len().min(200)])
            );
        }
    }
}

#[test]
fn xs_xml_04_every_place_of_a_single_cut_gives_the_same_frames() {
    for input in corpus().into_iter().filter(|input| input.len() < 1000) {
        let whole = frames(&input, input.len(), XmlLimits::UNAUTHENTICATED);
        for at in 0..=input.len() {
            let mut framer = Framer::new(XmlLimits::UNAUTHENTICATED);
            let mut got = (Vec::new(), None);
            'pieces: for piece in [&input[..at], &input[at..]] {
                framer.push(piece);
                loop {
                    match next(&mut framer) {
                        Ok(Some(frame)) => got.0.push(frame),
                        Ok(None) => break,
                        Err(fault) => {
                            got.1 = Some(fault);
                            break 'pieces;
                        }
                    }
                }
            }
            assert_eq!(got, whole, "cut at {at}: {}", String::from_utf8_lossy(&input));
        }
    }
}

#[test]
fn what_no_further_octet_can_mend_is_refused_at_the_octet_that_shows_it() {
    for (before, octets, condition) in [
        ("<a><b></", "a", "not-well-formed"),
        ("<presence><status>x</s", "h", "not-well-formed"),
        ("<a></a", "b", "not-well-formed"),
        ("<a></a ", "b", "not-well-formed"),
        ("<", "<", "not-well-formed"),
        ("<", " ", "not-well-formed"),
        ("<a", "<", "not-well-formed"),
        ("<a ", "1", "not-well-formed"),
        ("<a b ", "c", "not-well-formed"),
        ("<a b=", "c", "not-well-formed"),
        ("<a b='", "<", "not-well-formed"),
        ("<a b='&lt", "<", "not-well-formed"),
        ("<a b='x'", "c", "not-well-formed"),
        ("<a/", " ", "not-well-formed"),
        ("<a b='x' c='' b='y'", ">", "not-well-formed"),
        ("<a xmlns:p='u' p:b='' xmlns:q='u' q:b=''", ">", "not-well-formed"),
        ("<a xmlns='u' xmlns='v", "'", "not-well-formed"),
        ("<p:a", ">", "not-well-formed"),
        ("<a><b p:c=''/", ">", "not-well-formed"),
        ("<a:b", ":", "not-well-formed"),
        ("<a>]]", ">", "not-well-formed"),
        ("<a>&am", " ", "not-well-formed"),
        ("<a>&#x", ";", "not-well-formed"),
        ("<a>&nbsp", ";", "restricted-xml"),
        ("<a>x", "\0", "not-well-formed"),
        ("<a><![CDATA[x", "\u{1}", "not-well-formed"),
        ("<a><![CDAT", "X", "not-well-formed"),
        ("<![CDATA", "[", "not-well-formed"),
        ("</stream:st", "x", "not-well-formed"),
        ("</stream:stream ", "x", "not-well-formed"),
    ] {
        let mut framer = Framer::new(XmlLimits::UNAUTHENTICATED);
        framer.push(HEADER.as_bytes());
        assert!(next(&mut framer).is_ok_and(|frame| frame.is_some()));
        framer.push(before.as_bytes());
        assert_eq!(next(&mut framer), Ok(None), "{before}");
        framer.push(octets.as_bytes());
        assert_eq!(next(&mut framer).map_err(|fault| fault.condition()), Err(condition), "{before}{octets}");
    }
    for (before, octets) in
        [(&b"<a>\xc3"[..], &b"<"[..]), (b"<a b='\xe2\x82", b"'"), (b"<a>", b"\xff"), (b"<", b"\x80")]
    {
        let mut framer = Framer::new(XmlLimits::UNAUTHENTICATED);
        framer.push(HEADER.as_bytes());
        assert!(next(&mut framer).is_ok_and(|frame| frame.is_some()));
        framer.push(before);
        assert_eq!(next(&mut framer), Ok(None));
        framer.push(octets);
        assert_eq!(next(&mut framer), Err(XmlFault::Encoding), "{before:?}");
    }
}

#[test]
fn frames_before_a_fault_come_out_however_they_arrive() {
    let text = format!("{HEADER}<a/><b>\u{fc}</b>");
    for bad in [&b"\xff"[..], b"<c>\xff", b"<c></d>", b"<c>\0"] {
        let input = [text.as_bytes(), bad].concat();
        let (frames, fault) = frames(&input, input.len(), XmlLimits::UNAUTHENTICATED);
        assert_eq!(frames.len(), 3, "{bad:?}");
        assert!(fault.is_some(), "{bad:?}");
    }
}

#[test]
fn prefixes_of_the_header_hold_in_the_stream_and_no_others_do() {
    let header = "<s:stream xmlns='jabber:server' xmlns:s='http://etherx.jabber.org/streams' xmlns:db='jabber:server:dialback'>";
    let of = |text: &str| frames(format!("{header}{text}").as_bytes(), 1, XmlLimits::UNAUTHENTICATED);
    let (frames, fault) = of("<db:result/><a db:b=''><db:c/></a></s:stream>");
    assert_eq!((frames.len(), fault), (4, None));
    let Frame::Element(element) = &frames[2] else { panic!("{frames:?}") };
    assert_eq!(element.checked().borrowed_prefixes.to_vec(), ["db"]);
    assert!(matches!(of("<sx:a/>").1, Some(XmlFault::NotWellFormed { .. })));
    // A new header begins with nothing.
    let mut framer = Framer::new(XmlLimits::UNAUTHENTICATED);
    framer.push(header.as_bytes());
    assert!(next(&mut framer).is_ok_and(|frame| frame.is_some()));
    framer.restart();
    framer.push(format!("{HEADER}<db:result/>").as_bytes());
    assert!(next(&mut framer).is_ok_and(|frame| frame.is_some()));
    assert!(next(&mut framer).is_err());
}

#[test]
fn a_stream_is_cut_into_header_elements_and_end() {
    let text =
        format!("<?xml version=\"1.0\"?>\n{HEADER}<presence/> <m a='>'><b>]]</b></m>\n</stream:stream>\n");
    let (texts, fault) = elements(&text);
    assert_eq!(texts, [&format!("header {}", HEADER.len()), "<presence/>", "<m a='>'><b>]]</b></m>", "end"]);
    assert_eq!(fault, None);
}

#[test]
fn xs_xml_01_what_xmpp_forbids_is_refused_as_soon_as_it_is_seen() {
    for (text, what) in [
        ("<!-- x", "a comment"),
        ("<?x", "a processing instruction"),
        ("<?xml version='1.0'?>", "a processing instruction"),
        ("<!DOCTYPE", "a document type"),
        ("<a><!-", "a comment"),
        ("<a><!E", "a document type"),
        ("<a><?p", "a processing instruction"),
    ] {
        let (_, fault) = elements(&format!("{HEADER}{text}"));
        assert_eq!(fault, Some(XmlFault::Restricted { what }), "{text}");
        assert_eq!(fault.map(|fault| fault.condition()), Some("restricted-xml"));
    }
    // In front of the header, too: the billion laughs never begin.
    assert_eq!(elements("<!DOCTYPE x [").1.map(|fault| fault.condition()), Some("restricted-xml"));
    assert_eq!(elements("<?xsl x?>").1.map(|fault| fault.condition()), Some("restricted-xml"));
}

#[test]
fn xs_xml_02_an_xml_declaration_may_name_utf_8_only() {
    for good in [
        "<?xml version='1.0'?>",
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>",
        "<?xml version = '1.0' encoding='UTF-8' standalone='yes' ?>",
    ] {
        assert_eq!(elements(&format!("{good}{HEADER}")).0.len(), 1, "{good}");
    }
    for (bad, condition) in [
        ("<?xml version='1.0' encoding='ISO-8859-1'?>", "unsupported-encoding"),
        ("<?xml version='1.0' encoding='utf-16'?>", "unsupported-encoding"),
        ("<?xml version='1.1'?>", "not-well-formed"),
        ("<?xml encoding='utf-8'?>", "not-well-formed"),
        ("<?xml version='1.0' encoding='utf-8' x='y'?>", "not-well-formed"),
        ("<?xml version='1.0\"?>", "not-well-formed"),
    ] {
        assert_eq!(
            elements(&format!("{bad}{HEADER}")).1.map(|fault| fault.condition()),
            Some(condition),
            "{bad}"
        );
    }
}

#[test]
fn xs_lim_01_an_element_of_10_000_octets_passes_and_memory_never_exceeds_the_limit() {
    let limits = XmlLimits::UNAUTHENTICATED;
    let of = |len: usize| format!("{HEADER}<a>{}</a>", "x".repeat(len - 7)).into_bytes();
    assert_eq!(frames(&of(10_000), 100, limits).0.len(), 2);
    assert_eq!(frames(&of(10_001), 100, limits).1, Some(XmlFault::TooBig { limit: 10_000 }));

    // 50 MB in reads of 4 KiB: the buffer holds the limit and one read at most.
    let mut framer = Framer::new(limits.with_element_bytes(256 * 1024));
    framer.push(HEADER.as_bytes());
    assert!(next(&mut framer).is_ok_and(|frame| frame.is_some()));
    framer.push(b"<a>");
    let mut fault = None;
    for _ in 0..50_000_000 / 4096 {
        framer.push(&[b'x'; 4096]);
        match next(&mut framer) {
            Ok(frame) => assert_eq!(frame, None),
            Err(error) => {
                fault = Some(error);
                break;
            }
        }
        assert!(framer.buffered() <= 256 * 1024 + 4096);
    }
    assert_eq!(fault, Some(XmlFault::TooBig { limit: 256 * 1024 }));
    assert_eq!(XmlLimits::UNAUTHENTICATED.with_element_bytes(1).element_bytes, 10_000, "never under 10,000");
}

#[test]
fn xs_lim_04_nesting_of_10_000_levels_is_refused_at_the_65th() {
    let mut framer = Framer::new(XmlLimits::UNAUTHENTICATED);
    framer.push(HEADER.as_bytes());
    assert!(next(&mut framer).is_ok_and(|frame| frame.is_some()));
    for level in 1..=64 {
        framer.push(b"<a>");
        assert_eq!(next(&mut framer), Ok(None), "level {level}");
    }
    framer.push(b"<a>");
    assert_eq!(next(&mut framer), Err(XmlFault::TooDeep { limit: 64 }));
}

#[test]
fn white_space_between_elements_costs_no_memory() {
    let mut framer = Framer::new(XmlLimits::UNAUTHENTICATED);
    framer.push(HEADER.as_bytes());
    assert!(next(&mut framer).is_ok_and(|frame| frame.is_some()));
    for _ in 0..100_000 {
        framer.push(b" \n");
        assert_eq!(next(&mut framer), Ok(None));
        assert_eq!(framer.buffered(), 0);
    }
    framer.push(b"x");
    assert_eq!(next(&mut framer), Err(XmlFault::StrayText));
}

#[test]
fn after_a_restart_a_new_header_is_awaited() {
    let mut framer = Framer::new(XmlLimits::UNAUTHENTICATED);
    framer.push(format!("{HEADER}<success/><?xml version='1.0'?>{HEADER}").as_bytes());
    assert!(matches!(next(&mut framer), Ok(Some(Frame::Header(_)))));
    assert!(matches!(next(&mut framer), Ok(Some(Frame::Element(_)))));
    framer.restart();
    assert!(
        matches!(next(&mut framer), Ok(Some(Frame::Header(_)))),
        "what was buffered begins the new stream"
    );
    framer.push(b"<half");
    framer.forget();
    framer.restart();
    framer.push(HEADER.as_bytes());
    assert!(matches!(next(&mut framer), Ok(Some(Frame::Header(_)))), "what was forgotten is gone");
}

#[test]
fn a_start_tag_is_shown_at_its_end_and_that_of_a_plain_stanza_only_where_none_is_expected() {
    let shown = |text: &str, expects_stanzas: bool, step: usize| {
        let mut framer = Framer::new(XmlLimits::UNAUTHENTICATED);
        framer.push(HEADER.as_bytes());
        assert!(matches!(framer.next_frame(), Ok(Some(Frame::Header(_)))));
        if expects_stanzas {
            framer.expect_stanzas();
        }
        let mut shown = Vec::new();
        for piece in text.as_bytes().chunks(step) {
            framer.push(piece);
            while let Some(frame) = framer.next_frame().expect("legal") {
                shown.push(match frame {
                    Frame::Opened(xml) => String::from_utf8_lossy(&xml).into_owned(),
                    Frame::Element(_) => "element".to_owned(),
                    other => panic!("{other:?}"),
                });
            }
        }
        shown
    };
    for step in [1, 5, 1000] {
        for (text, tag) in [
            ("<foo a='>'>", "<foo a='>'>"),
            ("<stream:stream to='a'><message></message>", "<stream:stream to='a'>"),
            ("<messages><message>", "<messages>"),
            ("<message:x xmlns:message='u'><a>", "<message:x xmlns:message='u'>"),
            ("<iq xmlns='jabber:client'><a/>", "<iq xmlns='jabber:client'>"),
        ] {
            assert_eq!(shown(text, false, step), [tag], "{text}");
            assert_eq!(shown(text, true, step), [tag], "{text}");
        }
        let stanzas =
            "<message ><body>x</body></message><iq\tid='1'><q/></iq><presence></presence><presence/>";
        assert_eq!(shown(stanzas, true, step), ["element"; 4]);
        let all = shown(stanzas, false, step);
        assert_eq!(all[..2], ["<message >", "element"]);
        assert_eq!(all.len(), 7, "an empty element is not shown twice: {all:?}");
    }
}
