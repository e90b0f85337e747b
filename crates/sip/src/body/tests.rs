use bytes::Bytes;

use super::*;
use crate::message::{MessageLimits, read_datagram};

/// What a request with these header fields and this body says.
fn read_with(headers: &str, body: &[u8], context: Context) -> Result<Option<String>, BodyFault> {
    let message = request(headers, body);
    read(&message, context).map(|content| content.map(|content| content.text.into_owned()))
}

fn request(headers: &str, body: &[u8]) -> Message {
    let mut text = format!(
        "MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    text.extend_from_slice(body);
    read_datagram(Bytes::from(text), &MessageLimits::default()).expect("a message")
}

fn text(content_type: &str, body: &str) -> Result<Option<String>, BodyFault> {
    read_with(&format!("Content-Type: {content_type}\r\n"), body.as_bytes(), Context::Message)
}

fn document(content_type: &str, body: &str) -> Result<Option<String>, BodyFault> {
    read_with(&format!("Content-Type: {content_type}\r\n"), body.as_bytes(), Context::Presence)
}

/// A multipart with the boundary `b`; each part is given with its header fields.
fn multipart(parts: &[&str]) -> String {
    parts.iter().map(|part| format!("--b\r\n{part}\r\n")).collect::<String>() + "--b--\r\n"
}

fn status(found: Result<Option<String>, BodyFault>) -> u16 {
    found.map_or_else(BodyFault::status, |_| 200)
}

fn is(found: Result<Option<String>, BodyFault>, expected: &str) -> bool {
    found == Ok(Some(expected.to_owned()))
}

const PLAIN: &str = "Content-Type: text/plain\r\n\r\nhello";
const HTML: &str = "Content-Type: text/html\r\n\r\n<b>hello</b>";
const PIDF: &str = "Content-Type: application/pidf+xml\r\n\r\n<presence/>";
const RLMI: &str = "Content-Type: application/rlmi+xml\r\nContent-ID: <list>\r\n\r\n<list/>";

#[test]
fn plain_texts_and_documents_are_found_without_a_copy() {
    let message = request("Content-Type: text/plain;charset=UTF-8\r\n", "grüß".as_bytes());
    let content = read(&message, Context::Message).expect("read").expect("a body");
    assert!(matches!(content.text, Cow::Borrowed("grüß")));
    assert!(is(document("application/pidf+xml", "<presence/>"), "<presence/>"));
    assert!(is(document("APPLICATION/PIDF+xml ; charset=\"utf-8\"", "<presence/>"), "<presence/>"));
    assert!(is(document("text/xml+msrtc.pidf", "<presentity/>"), "<presentity/>"));
    assert_eq!(read_with("", b"", Context::Message), Ok(None));
    assert_eq!(read_with("", b"", Context::Presence), Ok(None));
    assert!(is(read_with("", b"hello", Context::Message), "hello"), "without a type it is text");
    assert_eq!(status(read_with("", b"<presence/>", Context::Presence)), 415);
}

#[test]
fn stox_m_10_the_last_alternative_that_is_understood_counts() {
    for (parts, expected) in [
        (&[PLAIN, HTML][..], "hello"),
        (&[HTML, PLAIN], "hello"),
        (&["Content-Type: text/plain\r\n\r\npoor", PLAIN, HTML], "hello"),
        // What is broken is no better than what is not known.
        (&[PLAIN, "Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n!!"], "hello"),
        (&[PLAIN, "Content-Type: text/plain;charset=none\r\n\r\nx"], "hello"),
        (
            &[PLAIN, "Content-Type: text/html\r\nContent-Disposition: render;handling=required\r\n\r\nx"],
            "hello",
        ),
        (&["\r\nno header fields", HTML], "no header fields"),
    ] {
        assert!(is(text("multipart/alternative;boundary=b", &multipart(parts)), expected), "{parts:?}");
    }
    assert_eq!(status(text("multipart/alternative;boundary=b", &multipart(&[HTML, HTML]))), 415);
    let nested =
        multipart(&[PLAIN, "Content-Type: multipart/alternative;boundary=c\r\n\r\n--c\r\n\r\nrich\r\n--c--"]);
    assert!(is(text("multipart/alternative;boundary=\"b\"", &nested), "rich"));
}

#[test]
fn stox_m_10_all_of_a_mixed_message_is_delivered_or_nothing() {
    let image = |disposition: &str| format!("Content-Type: image/png\r\n{disposition}\r\nxyz");
    let optional = image("Content-Disposition: attachment;handling=optional\r\n");
    for (parts, expected) in [
        (&[PLAIN][..], "hello"),
        (&[&optional, PLAIN], "hello"),
        (&[PLAIN, "\r\nsecond\n", "Content-Type: TEXT/plain\r\n\r\nthird"], "hello\nsecond\nthird"),
    ] {
        assert!(is(text("multipart/mixed;boundary=b", &multipart(parts)), expected), "{parts:?}");
        assert!(is(text("multipart/x-unknown;boundary=b", &multipart(parts)), expected), "{parts:?}");
    }
    for disposition in [
        "",
        "Content-Disposition: render\r\n",
        "Content-Disposition: icon;handling=REQUIRED\r\n",
        "Content-Disposition: ;;\r\n",
    ] {
        let parts = multipart(&[PLAIN, &image(disposition)]);
        assert_eq!(status(text("multipart/mixed;boundary=b", &parts)), 415, "{disposition:?}");
    }
    assert_eq!(status(text("multipart/mixed;boundary=b", &multipart(&[&optional]))), 415);
    let signed = multipart(&[PLAIN, "Content-Type: application/pkcs7-signature\r\n\r\nx"]);
    assert!(is(text("multipart/signed;boundary=b", &signed), "hello"));
    assert_eq!(status(text("multipart/encrypted;boundary=b", &multipart(&[PLAIN]))), 415);
}

#[test]
fn a_document_is_found_in_any_multipart() {
    let other = "Content-Type: text/plain\r\n\r\nsee the document";
    for (content_type, parts) in [
        ("multipart/mixed;boundary=b", &[PIDF][..]),
        ("multipart/mixed;boundary=b", &[other, PIDF]),
        ("multipart/alternative;boundary=b", &[PIDF, other]),
        ("multipart/related;boundary=b;type=\"application/rlmi+xml\";start=\"<list>\"", &[RLMI, PIDF]),
        ("multipart/related;boundary=b;start=list", &[PIDF, RLMI]),
        ("multipart/related;boundary=b", &[PIDF, other]),
    ] {
        assert!(is(document(content_type, &multipart(parts)), "<presence/>"), "{content_type} {parts:?}");
    }
    let required = "Content-Type: image/png\r\nContent-Disposition: icon;handling=required\r\n\r\nx";
    for content_type in ["multipart/mixed;boundary=b", "multipart/related;boundary=b"] {
        assert_eq!(status(document(content_type, &multipart(&[PIDF, required]))), 415, "{content_type}");
        assert_eq!(status(document(content_type, &multipart(&[other, RLMI]))), 415, "{content_type}");
    }
    // The root counts, wherever it stands.
    let second = "Content-Type: application/pidf+xml\r\nContent-ID: <2>\r\n\r\n<second/>";
    assert!(is(
        document("multipart/related;boundary=b;start=\"<2>\"", &multipart(&[PIDF, second])),
        "<second/>"
    ));
    assert!(is(
        document("multipart/related;boundary=b;start=\"<3>\"", &multipart(&[PIDF, second])),
        "<presence/>"
    ));
}

#[test]
fn sip_m_06_the_text_within_cpim_is_found_and_its_notifications_are_no_text() {
    let cpim = |inside: &str| format!("From: <sip:a@b>\r\nTo: <sip:c@d>\r\nSubject: s\r\n\r\n{inside}");
    assert!(is(text("message/cpim", &cpim(PLAIN)), "hello"));
    assert!(is(text("Message/CPIM", &cpim("\r\nno type is text")), "no type is text"));
    let alternative =
        format!("Content-Type: multipart/alternative;boundary=b\r\n\r\n{}", multipart(&[PLAIN, HTML]));
    assert!(is(text("message/cpim", &cpim(&alternative)), "hello"));
    assert!(is(
        text(
            "multipart/mixed;boundary=b",
            &multipart(&[&format!("Content-Type: message/cpim\r\n\r\n{}", cpim(PLAIN))])
        ),
        "hello"
    ));
    let message = request("Content-Type: message/cpim\r\n", cpim(PLAIN).as_bytes());
    assert_eq!(
        read(&message, Context::Message).expect("read").expect("a body").subject.as_deref(),
        Some("s")
    );
    for inside in [
        "Content-Type: message/imdn+xml\r\nContent-Disposition: notification\r\n\r\n<imdn/>",
        "Content-Type: message/imdn+xml\r\n\r\n<imdn/>",
        "Content-Disposition: notification\r\n\r\n<imdn/>",
        "Content-Type: application/im-iscomposing+xml\r\n\r\n<isComposing/>",
    ] {
        assert_eq!(status(text("message/cpim", &cpim(inside))), 415, "{inside}");
    }
    assert_eq!(status(text("message/imdn+xml", "<imdn/>")), 415);
    assert_eq!(status(document("message/cpim", &cpim(PIDF))), 415, "a document is not sent so");
}

#[test]
fn an_optional_body_that_is_not_understood_is_as_if_it_were_not_there() {
    for (headers, expected) in [
        ("Content-Type: image/png\r\nContent-Disposition: render;handling=optional\r\n", Ok(None)),
        ("Content-Type: text/plain\r\nContent-Disposition: session;handling=optional\r\n", Ok(None)),
        (
            "Content-Type: text/plain\r\nContent-Encoding: br\r\nContent-Disposition: render;handling=optional\r\n",
            Ok(None),
        ),
        (
            "Content-Type: text/plain\r\nContent-Disposition: render;handling=optional\r\n",
            Ok(Some("x".to_owned())),
        ),
        ("Content-Type: image/png\r\nContent-Disposition: render\r\n", Err(415)),
        ("Content-Type: text/plain\r\nContent-Disposition: session\r\n", Err(415)),
        ("Content-Type: text/plain\r\nContent-Disposition: notification;handling=required\r\n", Err(415)),
        ("Content-Type: text/plain\r\nContent-Encoding: br\r\n", Err(415)),
        ("Content-Type: text/plain\r\nContent-Transfer-Encoding: uuencode\r\n", Err(415)),
        ("Content-Type: text\r\n", Err(400)),
        ("Content-Type: text/plain\r\nContent-Type: text/plain\r\n", Err(400)),
        ("Content-Type: multipart/mixed\r\n", Err(400)),
    ] {
        assert_eq!(
            read_with(headers, b"x", Context::Message).map_err(BodyFault::status),
            expected,
            "{headers}"
        );
    }
}

#[test]
fn what_is_packed_is_unpacked_wherever_it_stands() {
    use std::io::Write as _;
    let zlib = |octets: &[u8]| {
        let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        writer.write_all(octets).and_then(|()| writer.finish()).expect("memory takes everything")
    };
    let headers = "Content-Type: application/pidf+xml\r\nContent-Encoding: deflate\r\n";
    assert!(is(read_with(headers, &zlib(b"<presence/>"), Context::Presence), "<presence/>"));
    let headers = "c: text/plain;charset=iso-8859-1\r\ne: deflate\r\nContent-Transfer-Encoding: base64\r\n";
    let packed = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, zlib(b"caf\xe9"));
    assert!(is(read_with(headers, packed.as_bytes(), Context::Message), "café"));
    let part = "Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\ncaf=C3=A9";
    assert!(is(text("multipart/alternative;boundary=b", &multipart(&[part, HTML])), "café"));
}

#[test]
fn what_all_parts_unpack_to_is_bounded_together() {
    use std::io::Write as _;
    let mut state = 1_u32;
    let letters = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b'a' + (state >> 24) as u8 % 26
    });
    // Fifty times as long as what it is packed to.
    let long = letters.take(1000).collect::<Vec<u8>>().repeat(60);
    let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    let packed = writer.write_all(&long).and_then(|()| writer.finish()).expect("memory takes everything");
    let part = [b"Content-Type: text/plain\r\nContent-Encoding: deflate\r\n\r\n", &packed[..]].concat();
    let read_many = |number: usize| {
        let parts = [b"--b\r\n", &part[..], b"\r\n"].concat().repeat(number);
        let body = [&parts[..], b"--b--"].concat();
        status(read_with("Content-Type: multipart/mixed;boundary=b\r\n", &body, Context::Message))
    };
    assert_eq!(read_many(1), 200);
    assert_eq!(read_many(MAX_DECODED / long.len()), 200);
    assert_eq!(read_many(MAX_DECODED / long.len() + 1), 413);
}

#[test]
fn parts_within_each_other_are_bounded() {
    let nested = |depth: usize| {
        (0..depth).fold(PLAIN.to_owned(), |inside, level| {
            format!("Content-Type: multipart/mixed;boundary=b{level}\r\n\r\n--b{level}\r\n{inside}\r\n--b{level}--")
        })
    };
    let read_nested = |depth: usize| {
        let whole = nested(depth);
        let (head, body) = whole.split_once("\r\n\r\n").expect("a part");
        read_with(&format!("{head}\r\n"), body.as_bytes(), Context::Message)
    };
    assert!(is(read_nested(MAX_DEPTH), "hello"));
    assert_eq!(status(read_nested(MAX_DEPTH + 1)), 413);
    assert_eq!(status(read_nested(500)), 413);
    // Few in each, many in all.
    let six = multipart(&["Content-Type: text/plain\r\n\r\nx"; 6]).replace("--b", "--c");
    let inner = format!("Content-Type: multipart/mixed;boundary=c\r\n\r\n{six}");
    assert_eq!(status(text("multipart/mixed;boundary=b", &multipart(&[&*inner; 4]))), 200);
    assert_eq!(status(text("multipart/mixed;boundary=b", &multipart(&[&*inner; 6]))), 413);
    assert_eq!(status(text("multipart/alternative;boundary=b", &multipart(&[HTML; 33]))), 413);
}

#[test]
fn malformed_multiparts_are_refused() {
    for (content_type, body) in [
        ("multipart/mixed", multipart(&[PLAIN])),
        ("multipart/mixed;boundary=\"\"", multipart(&[PLAIN])),
        ("multipart/mixed;boundary=x", multipart(&[PLAIN])),
        ("multipart/mixed;boundary=b", "hello".to_owned()),
        ("multipart/mixed;boundary=b", "--b--\r\n".to_owned()),
        ("multipart/mixed;boundary=b", multipart(&["Content-Type: text\r\n\r\nx"])),
        ("message/cpim", "hello".to_owned()),
        ("message/cpim", "hello\r\n\r\n".to_owned()),
    ] {
        assert_eq!(status(text(content_type, &body)), 400, "{content_type} {body:?}");
    }
    let open = "--b\r\nContent-Type: text/plain\r\n\r\nhello";
    assert!(
        is(text("multipart/mixed;boundary=b", open), "hello"),
        "what is not closed ends with the message"
    );
}

#[test]
fn stox_p_48_stox_m_03_a_list_of_languages_is_the_one_tag_for_several() {
    let language = |headers: &str, body: &str| {
        let message = request(headers, body.as_bytes());
        read(&message, Context::Message).expect("read").expect("a body").language
    };
    let long = format!("Content-Language: {}\r\n", "x".repeat(8000));
    for (more, expected) in [
        ("", None),
        ("Content-Language: de\r\n", Some("de")),
        ("Content-Language:  de-CH \r\n", Some("de-CH")),
        ("Content-Language: de, en\r\n", Some("mul")),
        ("Content-Language: de\r\nContent-Language: en\r\n", Some("mul")),
        ("Content-Language: de, DE\r\n", Some("de")),
        ("Content-Language: de, *\r\n", None),
        ("Content-Language: de, en'\r\n", None),
        ("Content-Language: d'e\r\n", None),
        ("Content-Language: <de>\r\n", None),
        ("Content-Language:\r\n", None),
        (&long, None),
    ] {
        assert_eq!(
            language(&format!("Content-Type: text/plain\r\n{more}"), "x").as_deref(),
            expected,
            "{more:?}"
        );
    }
    let headers = "Content-Type: multipart/mixed;boundary=b\r\nContent-Language: de\r\n";
    let part = "Content-Language: fr\r\n\r\nx";
    assert_eq!(language(headers, &multipart(&[part])).as_deref(), Some("fr"));
    assert_eq!(language(headers, &multipart(&["\r\nx"])).as_deref(), Some("de"));
    let both = language(headers, &multipart(&["\r\nx", part]));
    assert_eq!(both.as_deref(), Some("mul"), "one text of two languages");
}

#[test]
fn a_415_says_what_is_read() {
    for (context, first) in [(Context::Presence, "application/pidf+xml"), (Context::Message, "text/plain")] {
        let headers = BodyFault::Unsupported("").headers(context);
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["Accept", "Accept-Encoding", "Accept-Language"]);
        assert!(headers[0].1.starts_with(first));
        assert!(BodyFault::Malformed("").headers(context).is_empty());
        let all: Vec<&str> = ACCEPTED.split(", ").collect();
        assert!(headers[0].1.split(", ").all(|accepted| all.contains(&accepted)), "OPTIONS tells of all");
    }
}

#[test]
fn no_octets_break_the_reader() {
    let mut state = 0x9e37_79b9_u32;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        usize::try_from(state).expect("32 bits fit") % below.max(1)
    };
    const BITS: [&str; 12] = [
        "\r\n",
        "\r\n\r\n",
        "--b\r\n",
        "--b--",
        "Content-Type: multipart/mixed;boundary=b\r\n",
        "Content-Type: message/cpim\r\n\r\n",
        "Content-Encoding: gzip\r\n",
        "Content-Transfer-Encoding: base64\r\n",
        "From: <sip:a@b>\r\n",
        "NS: x <urn:ietf:params:cpim-headers:>\r\n",
        "\\u00",
        "é",
    ];
    for round in 0..20_000 {
        let mut data = vec![(round & 0x1f) as u8];
        for _ in 0..random(12) {
            data.extend_from_slice(BITS[random(BITS.len())].as_bytes());
            if random(4) == 0 {
                data.push(random(256) as u8);
            }
        }
        fuzz_body(&data);
    }
}
