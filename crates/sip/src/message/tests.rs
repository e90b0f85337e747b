use super::*;

fn read(text: &str) -> Result<Message, MessageFault> {
    read_datagram(Bytes::copy_from_slice(text.as_bytes()), &MessageLimits::default())
}

fn response_vias(message: &Message) -> String {
    let mut out = Vec::new();
    message.push_response_vias(&mut out);
    String::from_utf8(out).expect("UTF-8")
}

const REQUEST: &str = "SUBSCRIBE sip:juliet@example.com SIP/2.0\r\n\
    v: SIP/2.0/TCP s2x.example.net;branch=z9hG4bKna998sk, SIP/2.0/UDP a;branch=b\r\n\
    f: <sip:romeo@example.net>;tag=j89d\r\nTO : <sip:juliet@example.com>\r\n\
    Call-ID: 5BCF940D-793D\r\nEvent: presence\r\nMax-Forwards: 70\r\nCSeq: 263 SUBSCRIBE\r\n\
    Contact: <sip:romeo@example.net;gr=orchard>\r\nSubject: I know\r\n you're there\r\n\
    Accept: application/pidf+xml, application/xpidf+xml\r\nExpires: 3600\r\nContent-Length: 0\r\n\r\n";

#[test]
fn sip_t_12_compact_forms_case_folding_and_lists() {
    let message = read(REQUEST).expect("legal");
    assert_eq!(message.method(), Some(&Method::Subscribe));
    assert_eq!(message.request_uri_text(), "sip:juliet@example.com");
    assert_eq!(message.from().expect("From").tag(), Some("j89d"));
    assert_eq!(message.to().expect("To").tag(), None);
    assert_eq!(message.vias().count(), 2);
    assert_eq!(message.top_via().expect("Via").branch(), Some("z9hG4bKna998sk"));
    assert_eq!(message.cseq(), Ok((263, Method::Subscribe)));
    assert_eq!(message.subject(), Some("I know   you're there"));
    assert_eq!(message.accept().count(), 2);
    assert_eq!(message.expires(), Some(3600));
}

#[test]
fn control_characters_and_white_space_never_make_another_name() {
    for wrong in ["Contact\u{1}: <sip:a@b>", "Con tact: x", ": x", "Contact", "To: a\u{0}b", "Event: a\u{b}"]
    {
        let text = format!("OPTIONS sip:a@b SIP/2.0\r\n{wrong}\r\n\r\n");
        assert_eq!(read(&text).map(|_| ()), Err(MessageFault::Field), "{wrong:?}");
    }
}

#[test]
fn control_characters_stand_in_quoted_pairs_only() {
    let row = |value: &str| read(&format!("OPTIONS sip:a@b SIP/2.0\r\nTo: {value}\r\n\r\n")).map(|_| ());
    assert_eq!(row("\"BEL:\\\u{7} NUL:\\\0 DEL:\\\u{7f}\" <sip:a@b>"), Ok(()));
    for wrong in [
        "\"a\u{7}\" <sip:a@b>",
        "a\\\u{7} <sip:a@b>",
        "\"a\\\n\" <sip:a@b>",
        "\"a\\\r\" <sip:a@b>",
        "\"a\\\u{7} <sip:a@b>",
        "\"a\" \u{7f}",
        "a\nEvil: b",
        "a\rEvil: b",
    ] {
        assert_eq!(row(wrong), Err(MessageFault::Field), "{wrong:?}");
    }
}

#[test]
fn sip_t_16_control_characters_in_a_field_that_nobody_acts_on_cost_that_field_only() {
    for ignored in ["Subject: a\u{0}b", "X-Of-Tomorrow: a\u{b}", "User-Agent: \u{7f}", "s: \u{1b}[2J"] {
        let text = format!("OPTIONS sip:a@b SIP/2.0\r\n{ignored}\r\nTo: <sip:a@b>\r\n\r\n");
        let message = read(&text).expect(ignored);
        assert_eq!(message.all_rows().collect::<Vec<_>>(), [("To", "<sip:a@b>")], "{ignored:?}");
    }
    let limits = MessageLimits { fields: 3, ..MessageLimits::default() };
    let text = format!("OPTIONS sip:a SIP/2.0\r\n{}\r\n", "A: \0\r\n".repeat(4));
    assert!(read_datagram(text.into(), &limits).is_err(), "ignored fields count too");
}

#[test]
fn sip_t_16_text_of_old_clients_is_read_as_windows_1252_where_only_people_read_it() {
    let read = |row: &[u8]| {
        let octets = [b"OPTIONS sip:a@b SIP/2.0\r\nA: \xc3\xa9\r\n", row, b"\r\n\r\n"].concat();
        read_datagram(octets.into(), &MessageLimits::default())
    };
    let message = read(b"Subject: na\xefve\r\n \x80 5").expect("text of an old client");
    assert_eq!(message.subject(), Some("naïve   € 5"));
    assert_eq!(message.all_rows().next(), Some(("A", "é")), "a field in UTF-8 stays as it is");
    let message = read(b"From: \"J\xfcrgen\" <sip:j@b>;tag=1").expect("a display name");
    assert_eq!(message.from().expect("From").display_name(), "Jürgen");
    assert!(read(b"From: \"J\" <sip:j\xfc@b>;tag=1").expect("read later").from().is_err(), "a URI is ASCII");
    for identifying in [&b"Call-ID: \xfc"[..], b"i: \xfc", b"v: \xfc", b"Via:\r\n \xfc", b"CSeq : 1 \xfc"] {
        let fault = read(identifying).map(|_| ());
        assert_eq!(fault, Err(MessageFault::NotUtf8), "{:?}", String::from_utf8_lossy(identifying));
    }
    let start = Bytes::from_static(b"OPTIONS sip:\xfc@b SIP/2.0\r\n\r\n");
    assert_eq!(read_datagram(start, &MessageLimits::default()).map(|_| ()), Err(MessageFault::NotUtf8));
}

#[test]
fn a_line_that_ends_otherwise_than_in_cr_lf_is_no_line() {
    for wrong in ["OPTIONS sip:a@b SIP/2.0\nTo: x\r\n\r\n", "OPTIONS sip:a@b SIP/2.0\r\nTo: x\nX: y\r\n\r\n"]
    {
        assert!(read(wrong).is_err(), "{wrong:?}");
    }
    assert_eq!(read("OPTIONS sip:a@b SIP/2.0\nTo: x\n\n").map(|_| ()), Err(MessageFault::NoEnd));
}

#[test]
fn only_a_line_behind_the_start_line_is_folded() {
    assert!(read("OPTIONS sip:a@b SIP/2.0\r\n To: x\r\n\r\n").is_err());
    let message = read("OPTIONS sip:a@b SIP/2.0\r\nA: 1\r\n\t\r\n  2\r\nB : 3\r\n\r\n").expect("legal");
    let rows: Vec<_> = message.all_rows().collect();
    assert_eq!(rows, [("A", "1  \t    2"), ("B", "3")]);
}

#[test]
fn sip_t_04_a_datagram_ends_where_its_length_says() {
    let text = "MESSAGE sip:a@b SIP/2.0\r\nContent-Length: 2\r\n\r\nhello";
    assert_eq!(&read(text).expect("legal").body()[..], b"he");
    let text = "MESSAGE sip:a@b SIP/2.0\r\nContent-Length: 9\r\n\r\nhello";
    assert_eq!(read(text).map(|_| ()), Err(MessageFault::Short));
    for length in ["-1", "99999999999999999999999", "1 2", "", "0x2"] {
        let text = format!("MESSAGE sip:a@b SIP/2.0\r\nContent-Length: {length}\r\n\r\nhello");
        assert_eq!(read(&text).map(|_| ()), Err(MessageFault::ContentLength), "{length:?}");
    }
    let text = "MESSAGE sip:a@b SIP/2.0\r\nl: 2\r\nContent-Length: 3\r\n\r\nhello";
    assert_eq!(read(text).map(|_| ()), Err(MessageFault::ContentLength));
}

#[test]
fn sip_t_06_the_source_is_noted_where_it_is_asked_for_or_differs() {
    let mut message =
        read("OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.1.1:4540;rport;branch=z\r\n\r\n")
            .expect("legal");
    message.set_received("192.0.2.1:9988".parse().expect("an address"));
    assert_eq!(
        response_vias(&message),
        "Via: SIP/2.0/UDP 10.1.1.1:4540;branch=z;received=192.0.2.1;rport=9988\r\n"
    );
    message.set_received("10.1.1.1:4540".parse().expect("an address"));
    assert_eq!(
        response_vias(&message),
        "Via: SIP/2.0/UDP 10.1.1.1:4540;branch=z;received=10.1.1.1;rport=4540\r\n"
    );
    // Nobody asked: what the sender says of itself is corrected, and the port stays its own.
    for (sent_by, received) in [
        ("10.1.1.1:4540", ";received=192.0.2.1"),
        ("host.example", ";received=192.0.2.1"),
        ("192.0.2.1:4540", ""),
        ("[::ffff:192.0.2.1]", ""),
    ] {
        let text = format!("OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP {sent_by};branch=z\r\n\r\n");
        let mut message = read(&text).expect("legal");
        message.set_received("192.0.2.1:9988".parse().expect("an address"));
        let via = format!("Via: SIP/2.0/UDP {sent_by};branch=z{received}\r\n");
        assert_eq!(response_vias(&message), via);
    }
}

#[test]
fn sip_t_17_each_limit_is_refused() {
    let limits = MessageLimits { message: 400, field: 60, fields: 3, vias: 2 };
    let read = |text: String| read_datagram(Bytes::from(text), &limits).map(|_| ());
    let too_big = |what| Err(MessageFault::TooBig { what });
    assert_eq!(read(format!("OPTIONS sip:a SIP/2.0\r\n\r\n{}", "x".repeat(400))), too_big("message"));
    assert_eq!(read(format!("OPTIONS sip:{} SIP/2.0\r\n\r\n", "x".repeat(60))), too_big("start line"));
    assert_eq!(
        read(format!("OPTIONS sip:a SIP/2.0\r\nA: {}\r\n\r\n", "x".repeat(60))),
        too_big("header field")
    );
    assert_eq!(
        read(format!("OPTIONS sip:a SIP/2.0\r\n{}\r\n", "A: x\r\n".repeat(4))),
        too_big("number of header fields")
    );
    assert_eq!(
        read("OPTIONS sip:a SIP/2.0\r\nv: a, b, c\r\n\r\n".to_owned()),
        too_big("number of Via values")
    );
}

#[test]
fn responses_have_a_status_and_a_reason() {
    let message =
        read("SIP/2.0 200 = 2**3 * 5**2 \u{043d}\u{043e}\r\nCSeq: 1 OPTIONS\r\n\r\n").expect("legal");
    assert_eq!((message.status(), message.reason()), (Some(200), "= 2**3 * 5**2 \u{043d}\u{043e}"));
    assert_eq!(read("SIP/2.0 100\r\n\r\n").expect("legal").reason(), "");
    for wrong in ["SIP/2.0 4294967301 x", "SIP/2.0 99 x", "SIP/2.0 2oo x", "SIP/7.0 200 OK", "200 OK"] {
        assert!(read(&format!("{wrong}\r\n\r\n")).is_err(), "{wrong}");
    }
}

#[test]
fn a_cseq_is_a_number_below_two_to_the_31_and_a_method_apart_from_it() {
    let cseq = |value: &str| {
        read(&format!("OPTIONS sip:a@b SIP/2.0\r\nCSeq: {value}\r\n\r\n")).expect("legal").cseq()
    };
    assert_eq!(cseq("0009 \t NOTIFY"), Ok((9, Method::Notify)));
    assert_eq!(cseq("2147483647 X"), Ok(((1 << 31) - 1, Method::Other("X".into()))));
    for wrong in
        ["", "1", "NOTIFY", "1NOTIFY", "1 ", "-1 NOTIFY", "2147483648 NOTIFY", "1 NO TIFY", "1,2 NOTIFY"]
    {
        assert!(cseq(wrong).is_err(), "{wrong:?}");
    }
}
