//! The torture messages of RFC 4475 and RFC 5118, file by file, and what each gets from us.
//!
//! What is read here goes the way of a datagram or a stream: [`read_datagram`] or [`StreamFramer`], then
//! [`uas::check_for`] or [`Transactions`]; the answers are rendered and read again. The choices that the RFCs leave are
//! in the tables' last column.

mod archive;

use std::time::{Duration, Instant};

use archive::{Files, unpack};
use bytes::Bytes;
use tombolo_sip::{
    build::ResponseBuilder,
    framer::{Frame, Malformed, StreamFault, StreamFramer},
    headers::{HeaderName, NameAddr},
    message::{Message, MessageFault, MessageLimits, read_datagram},
    method::Method,
    transaction::{Incoming, Outcome, Timers, Transactions},
    uas::{self, SERVED, SUPPORTED, Served, Verdict},
    uri::Scheme,
};

const LIMITS: MessageLimits = MessageLimits { message: 64 * 1024, field: 8 * 1024, fields: 128, vias: 70 };

/// As a user agent with calls would serve, so that not every INVITE ends as 405.
const CALLS: Served<'_> = Served {
    methods: &[Method::Invite, Method::Bye, Method::Options, Method::Register, Method::Message],
    extensions: &SUPPORTED,
};

/// As this product serves.
const OURS: Served<'_> = Served { methods: &SERVED, extensions: &SUPPORTED };

fn rfc4475() -> Files {
    let files = unpack(include_str!("../data/rfc4475.txt"));
    assert_eq!(files.len(), 50);
    files
}

/// The archive of RFC 5118 has bare line feeds, two of its messages lack the empty line, and `ipv6-in-sdp` says a longer
/// body than it has; the RFC's text shows them as ordinary messages. They are mended to be such, for here it is addresses
/// that count; what the archive's own octets get is shown in the last of its tests.
fn rfc5118() -> Files {
    let files = unpack(include_str!("../data/rfc5118.txt"));
    assert_eq!(files.len(), 12);
    let mended = files.into_iter().map(|(name, octets)| {
        let text = String::from_utf8(octets).expect("UTF-8").replace('\n', "\r\n");
        let end = if text.contains("\r\n\r\n") { "" } else { "\r\n" };
        let text = text + end;
        (name, text.replace("Content-Length: 268", "Content-Length: 251").into_bytes())
    });
    mended.collect()
}

#[derive(Debug, PartialEq)]
enum Answer {
    Accept,
    /// Status, and the header that must go with it.
    Refuse(u16, Option<(&'static str, String)>),
    Nothing,
}

fn status(answer: &Answer) -> u16 {
    match answer {
        Answer::Accept => 0,
        Answer::Refuse(status, _) => *status,
        Answer::Nothing => 1,
    }
}

const ACCEPT: u16 = 0;
const NOTHING: u16 = 1;

/// What a datagram gets.
fn by_datagram(octets: &[u8], served: &Served<'_>) -> Answer {
    match read_datagram(Bytes::copy_from_slice(octets), &LIMITS) {
        Ok(message) => by_check(&message, served),
        Err(fault) => match Message::answerable(octets, &LIMITS) {
            Some(request) => refusal(&request, fault.status(), None),
            None => Answer::Nothing,
        },
    }
}

/// What the first message of a stream gets, and whether the stream is closed then.
fn by_stream(octets: &[u8], served: &Served<'_>) -> (Answer, bool) {
    let mut framer = StreamFramer::new(LIMITS);
    framer.push(octets);
    match framer.next_frame() {
        Ok(Some(Frame::Message(message))) => (by_check(&message, served), false),
        Ok(Some(Frame::Malformed(malformed))) => (by_fault(malformed), false),
        Ok(other) => panic!("{other:?}"),
        Err(StreamFault(malformed)) => (by_fault(malformed), true),
    }
}

fn by_fault(Malformed { fault, head }: Malformed) -> Answer {
    head.map_or(Answer::Nothing, |request| refusal(&request, fault.status(), None))
}

fn by_check(message: &Message, served: &Served<'_>) -> Answer {
    match uas::check_for(message, served) {
        Verdict::Accept => Answer::Accept,
        Verdict::Drop => Answer::Nothing,
        Verdict::Refuse { status, mut headers } => refusal(message, status, headers.pop()),
    }
}

/// Renders the refusal and reads it as its receiver would: nothing malformed but what it must recognise as its own.
fn refusal(request: &Message, status: u16, header: Option<(&'static str, String)>) -> Answer {
    let mut request = request.clone();
    request.set_received("192.0.2.77:5099".parse().expect("an address"));
    let mut builder = ResponseBuilder::to(&request, status, None).expect("an answerable request");
    if let Some((name, value)) = &header {
        builder = builder.header(name, value);
    }
    let response = read_datagram(builder.render().into(), &LIMITS).expect("our response is legal");
    assert_eq!(response.status(), Some(status));
    assert_eq!(response.top_via().expect("a Via").received(), "192.0.2.77".parse().ok());
    for via in response.vias() {
        assert!(tombolo_sip::headers::Via::parse(via).is_ok(), "{via}");
    }
    for name in [HeaderName::From, HeaderName::CallId, HeaderName::CSeq] {
        assert_eq!(response.rows(name).next(), request.rows(name).next(), "{name:?}");
    }
    if request.to().is_ok() {
        assert!(response.to().expect("To").tag().is_some());
    }
    Answer::Refuse(status, header)
}

fn check_table(files: &Files, table: &[(&str, u16, u16, &str)]) {
    for (name, with_calls, ours, why) in table {
        let octets = &files[*name];
        assert_eq!(status(&by_datagram(octets, &CALLS)), *with_calls, "{name} with calls: {why}");
        assert_eq!(status(&by_datagram(octets, &OURS)), *ours, "{name}: {why}");
    }
}

#[test]
fn sip_x_01_sip_t_16_legal_messages_are_read_and_unknown_methods_are_refused_with_allow() {
    let files = rfc4475();
    check_table(
        &files,
        &[
            ("wsinv", ACCEPT, 405, "white space and folds everywhere"),
            ("esc01", ACCEPT, 405, "escapes are kept as written"),
            ("escnull", ACCEPT, ACCEPT, "an escaped NUL is a character of the user part"),
            ("lwsdisp", ACCEPT, ACCEPT, "no space in front of <"),
            ("longreq", ACCEPT, 405, "34 Via rows and long values are below our limits"),
            ("semiuri", ACCEPT, ACCEPT, "; in the user part is no parameter"),
            ("transports", ACCEPT, ACCEPT, "unknown transports in Via"),
            ("mpart01", ACCEPT, ACCEPT, "a body of octets"),
            ("intmeth", 501, 501, "quoted control characters, odd tokens"),
            ("esc02", 501, 501, "% in a method is no escape"),
            ("zeromf", ACCEPT, ACCEPT, "as a user agent Max-Forwards 0 is served (SIP-D-16)"),
            ("baddate", ACCEPT, 405, "Date is not used, so it is not judged"),
        ],
    );
    for name in ["intmeth", "esc02"] {
        let Answer::Refuse(501, Some(("Allow", allow))) = by_datagram(&files[name], &OURS) else {
            panic!("{name}")
        };
        assert!(allow.contains("SUBSCRIBE") && allow.contains("MESSAGE"), "{allow}");
    }
    let reason = |name: &str| read(&files[name]).reason().to_owned();
    assert!(reason("unreason").starts_with("= 2**3 * 5**2 \u{43d}\u{43e}"));
    assert_eq!((read(&files["noreason"]).status(), reason("noreason").as_str()), (Some(100), ""));
}

#[test]
fn sip_x_01_the_values_of_legal_messages_are_the_intended_ones() {
    let files = rfc4475();
    let message = read(&files["wsinv"]);
    assert_eq!(message.to().expect("To").tag(), Some("1918181833n"));
    assert_eq!(message.from().expect("From").display_name(), "J Rosenberg \\\"");
    assert_eq!(message.from().expect("From").tag(), Some("98asjd8"));
    assert_eq!(message.max_forwards(), Ok(Some(68)));
    assert_eq!(message.cseq(), Ok((9, Method::Invite)));
    assert_eq!(message.vias().count(), 3);
    assert_eq!(message.subject(), Some(""));
    let contact = message.contacts().next().expect("Contact").expect("legal");
    assert_eq!(contact.display_name(), "Quoted string \"\"");
    assert_eq!(contact.params.value("q"), Some("0.33"));
    assert!(contact.params.has("secondparam"));
    assert_eq!(message.body().len(), 150);

    let message = read(&files["intmeth"]);
    assert_eq!(message.method_text(), "!interesting-Method0123456789_*+`.%indeed'~");
    assert_eq!(message.to().expect("To").display_name(), "BEL:\u{7} NUL:\0 DEL:\u{7f}");
    let uri = message.request_uri().expect("legal");
    assert_eq!(uri.user(), Some("1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"));
    assert_eq!(message.call_id(), Ok("intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{"));

    let message = read(&files["esc01"]);
    let uri = message.request_uri().expect("legal");
    assert_eq!(
        (uri.user(), uri.host().map(|host| host.to_string())),
        (Some("sips%3Auser%40example.com"), Some("example.net".to_owned()))
    );
    let contact = message.contacts().next().expect("Contact").expect("legal");
    assert_eq!(contact.uri.user_decoded(), Ok(Some("caller".into())));
    assert!(contact.uri.params().has("lr"));
    assert_eq!(contact.uri.params().value("name"), Some("v%61lue%25%34%31"));

    let message = read(&files["esc02"]);
    assert_eq!(message.contacts().count(), 2, "C%6Fntact is not Contact");
    assert_eq!(message.from().expect("From").display_name(), "%Z%45");

    let message = read(&files["semiuri"]);
    let uri = message.request_uri().expect("legal");
    assert_eq!(uri.user_decoded(), Ok(Some("user;par=u@example.net".into())));
    assert_eq!(message.accept().count(), 6);

    assert_eq!(read(&files["longreq"]).vias().count(), 34);
    assert_eq!(read(&files["mpart01"]).body().len(), 553);
}

#[test]
fn sip_x_02_only_the_first_request_of_a_datagram_is_handled() {
    let octets = &rfc4475()["dblreq"];
    let message = read(octets);
    assert_eq!(message.method(), Some(&Method::Register));
    assert!(message.body().is_empty());
    let (mut transactions, now) = transactions();
    assert!(matches!(transactions.handle_request(&message, 1, false, now), Incoming::New(_)));
    assert_eq!(transactions.servers(), 1);
}

#[test]
fn sip_x_03_malformed_requests_get_400() {
    check_table(
        &rfc4475(),
        &[
            ("badinv01", 400, 400, "the Via tells the way back as far as its host"),
            ("clerr", 400, 400, "by datagram"),
            ("ncl", 400, 400, ""),
            ("scalar02", 400, 400, "CSeq and Max-Forwards; overlarge Expires alone would be taken"),
            ("quotbal", 400, 400, ""),
            ("ltgtruri", 400, 400, "strict: brackets are not ignored"),
            ("lwsruri", 400, 400, ""),
            ("lwsstart", 400, 400, "strict: single spaces only"),
            ("trws", 400, 400, "strict: nothing behind the version"),
            ("escruri", 400, 400, "strict: no header components in a Request-URI"),
            ("regbadct", 400, 400, "strict: brackets are not inferred"),
            ("badaspec", 400, 400, "strict: no space in brackets"),
            ("baddn", 400, 400, "strict: quotes are not inferred; the head is not closed either"),
            ("mismatch01", 400, 400, ""),
            ("insuf", 400, 400, "with Via and CSeq, which is all there is"),
            ("multi01", 400, 400, "single values stand twice"),
            ("mcl01", 400, 400, ""),
            ("badbranch", 400, 400, "the cookie alone names no transaction"),
        ],
    );
    let closed = String::from_utf8(rfc4475()["baddn"].clone()).expect("ASCII") + "\r\n";
    assert_eq!(status(&by_datagram(closed.as_bytes(), &OURS)), 400, "baddn with its empty line");
}

#[test]
fn sip_t_03_a_stream_without_a_usable_length_is_answered_and_closed() {
    let files = rfc4475();
    for name in ["ncl", "mcl01", "inv2543"] {
        assert_eq!(by_stream(&files[name], &OURS), (Answer::Refuse(400, None), true), "{name}");
    }
    // By datagram the rest of the packet is the body.
    assert_eq!(status(&by_datagram(&files["inv2543"], &CALLS)), ACCEPT);
}

#[test]
fn sip_x_04_refusals_have_their_status_and_header() {
    let files = rfc4475();
    check_table(
        &files,
        &[
            ("badvers", 505, 505, ""),
            ("mismatch02", 501, 501, "a method of tomorrow is not judged by its CSeq"),
            ("unkscm", 416, 416, ""),
            ("novelsc", 416, 416, "we serve sip, sips, pres and im"),
            ("bext01", 420, 420, ""),
            (
                "invut",
                ACCEPT,
                405,
                "we serve no calls; the type of a body is for whoever serves the method (415 there)",
            ),
            ("sdp01", ACCEPT, 405, "whether an answer is acceptable is for whoever makes one"),
        ],
    );
    let header = |name: &str, served: &Served<'_>| match by_datagram(&files[name], served) {
        Answer::Refuse(_, header) => header,
        other => panic!("{name}: {other:?}"),
    };
    let (name, options) = header("bext01", &OURS).expect("a header");
    assert_eq!(name, "Unsupported");
    for option in ["nothingSupportsThis", "nothingSupportsThisEither"] {
        assert!(options.split(", ").any(|found| found == option), "{options}");
    }
    assert_eq!(by_stream(&files["badvers"], &OURS), (Answer::Refuse(505, None), false));
}

#[test]
fn sip_x_05_unusable_responses_are_dropped_without_an_answer() {
    let files = rfc4475();
    // A response that could end our request, but for what is wrong with it: the branch is ours.
    let outcome = |name: &str, method: Method| {
        let (mut transactions, now) = transactions();
        let text = String::from_utf8(files[name].clone()).expect("UTF-8");
        let (_, rest) = text.split_once("Via: ").expect("a Via");
        let (via, rest) = rest.split_once(";branch=").expect("a branch");
        let old = rest.split([';', '\r']).next().expect("a branch");
        let mut branch = String::new();
        transactions.send(7, method, None, false, now, |used| {
            branch = used.to_owned();
            format!("X x SIP/2.0\r\nVia: {via};branch={used}\r\n\r\n").into_bytes()
        });
        transactions.poll_transmit();
        let octets = Bytes::from(text.replacen(old, &branch, 1));
        assert!(Message::answerable(&octets, &LIMITS).is_none(), "{name}: an answer to a response");
        if let Ok(response) = read_datagram(octets, &LIMITS) {
            transactions.handle_response(response, now);
        }
        assert!(transactions.poll_transmit().is_none(), "{name}: something is sent");
        transactions.poll_ended().map(|(_, outcome)| outcome)
    };
    assert!(outcome("scalarlg", Method::Options).is_none());
    assert!(outcome("bigcode", Method::Invite).is_none());
    assert!(outcome("bcast", Method::Invite).is_none());
    let right = outcome("unreason", Method::Invite);
    assert!(matches!(right, Some(Outcome::Response(_))), "the same way a legal response is taken");
}

#[test]
fn header_parameters_and_uri_parameters_of_a_binding_are_told_apart() {
    let files = rfc4475();
    for name in ["unksm2", "regaut01", "cparam01", "cparam02", "regescrt"] {
        assert_eq!(by_datagram(&files[name], &OURS), Answer::Accept, "{name} is for the registrar");
    }
    let message = read(&files["cparam01"]);
    let contact = message.contacts().next().expect("Contact").expect("legal");
    assert!(contact.params.has("unknownparam") && !contact.uri.params().has("unknownparam"));
    let message = read(&files["cparam02"]);
    let contact = message.contacts().next().expect("Contact").expect("legal");
    assert!(!contact.params.has("unknownparam") && contact.uri.params().has("unknownparam"));
    let message = read(&files["regescrt"]);
    let contact = message.contacts().next().expect("Contact").expect("legal");
    assert_eq!(contact.uri.headers(), "Route=%3Csip:sip.example.com%3E");
    assert_eq!(message.routes().count(), 0);
    let message = read(&files["unksm2"]);
    assert_eq!(message.to().expect("To").uri.scheme(), Scheme::Other);
    assert_eq!(
        read(&files["regaut01"]).authorization().next(),
        Some("NoOneKnowsThisScheme opaque-data=here")
    );
}

#[test]
fn sip_x_07_a_request_of_rfc_2543_is_matched_by_the_old_rules() {
    let octets = &rfc4475()["inv2543"];
    let invite = read(octets);
    let (mut transactions, now) = transactions();
    let Incoming::New(id) = transactions.handle_request(&invite, 1, false, now) else { panic!("it is new") };
    assert!(matches!(transactions.handle_request(&invite, 1, false, now), Incoming::Absorbed));
    let refusal = ResponseBuilder::to(&invite, 405, None).expect("answerable").render();
    transactions.respond(id, refusal, now);
    assert!(transactions.poll_transmit().is_some());
    let text = String::from_utf8(octets.clone()).expect("ASCII");
    let ack = text.replace("INVITE", "ACK").replace("user=phone\r\nCall-ID", "user=phone;tag=t\r\nCall-ID");
    transactions.handle_request(&read(ack.as_bytes()), 1, false, now);
    transactions.handle_timeout(now + Duration::from_secs(4));
    assert!(transactions.poll_transmit().is_none(), "the ACK ended the repetition");
    let other = text.replace("56 INVITE", "57 INVITE");
    assert!(matches!(transactions.handle_request(&read(other.as_bytes()), 1, false, now), Incoming::New(_)));
}

#[test]
fn sip_x_08_sip_t_15_addresses_of_ipv6_are_read_wherever_they_stand() {
    let files = rfc5118();
    check_table(
        &files,
        &[
            ("ipv6-good", ACCEPT, ACCEPT, ""),
            ("ipv6-bad", 400, 400, "an address without brackets"),
            ("port-ambiguous", ACCEPT, ACCEPT, "all in the brackets is the address"),
            ("port-unambiguous", ACCEPT, ACCEPT, ""),
            ("via-received-param-no-delim", ACCEPT, ACCEPT, ""),
            ("via-received-param-with-delim", ACCEPT, 405, ""),
            ("ipv6-in-sdp", ACCEPT, 405, ""),
            ("mult-ip-in-header", ACCEPT, 405, ""),
            ("mult-ip-in-sdp", ACCEPT, 405, ""),
            ("ipv4-mapped-ipv6", ACCEPT, 405, ""),
            ("ipv6-bug-abnf-3-colons", ACCEPT, ACCEPT, "three colons are read as two"),
            ("ipv6-correct-abnf-2-colons", ACCEPT, ACCEPT, ""),
        ],
    );
    let host = |name: &str| {
        let message = read(&files[name]);
        let uri = message.request_uri().expect("legal");
        (uri.host().and_then(|host| host.address()), uri.port())
    };
    let address = |text: &str| Some(text.parse().expect("an address"));
    assert_eq!(host("port-ambiguous"), (address("2001:db8::10:5070"), None));
    assert_eq!(host("port-unambiguous"), (address("2001:db8::10"), Some(5070)));
    assert_eq!(host("ipv6-bug-abnf-3-colons"), host("ipv6-correct-abnf-2-colons"));
    for name in ["via-received-param-no-delim", "via-received-param-with-delim"] {
        let message = read(&files[name]);
        assert_eq!(message.top_via().expect("a Via").received(), address("2001:db8::9:255"), "{name}");
    }
    let message = read(&files["mult-ip-in-header"]);
    let ports: Vec<_> = message
        .vias()
        .map(|via| tombolo_sip::headers::Via::parse(via).expect("legal").sent_by.port)
        .collect();
    assert_eq!(ports, [Some(6050), None, None]);
    let message = read(&files["ipv4-mapped-ipv6"]);
    assert_eq!(message.top_via().expect("a Via").sent_by.host.address(), address("192.0.2.10"));
    let contact: NameAddr<'_> = message.contacts().next().expect("Contact").expect("legal");
    assert_eq!(contact.uri.host().and_then(|host| host.address()), address("192.0.2.2"));
}

#[test]
fn bare_line_feeds_are_no_line_ends() {
    for (name, octets) in unpack(include_str!("../data/rfc5118.txt")) {
        assert_eq!(read_datagram(octets.into(), &LIMITS).map(|_| ()), Err(MessageFault::NoEnd), "{name}");
    }
}

#[test]
fn sip_x_09_without_a_via_there_is_no_answer_and_a_stream_goes_on_behind_a_known_length() {
    let files = rfc4475();
    let text = String::from_utf8(files["insuf"].clone()).expect("ASCII");
    assert_eq!(by_datagram(text.as_bytes(), &OURS), Answer::Refuse(400, None));
    let without = text.replace("Via: SIP/2.0/UDP 192.0.2.95;branch=z9hG4bKkdj.insuf\r\n", "");
    assert_ne!(text, without);
    assert_eq!(by_datagram(without.as_bytes(), &OURS), Answer::Nothing);
    assert_eq!(by_stream(without.as_bytes(), &OURS), (Answer::Nothing, false));
    assert_eq!(status(&by_datagram(&files["test"], &OURS)), NOTHING, "no version and no Via");
    assert_eq!(by_stream(&files["test"], &OURS), (Answer::Nothing, false));
}

#[test]
fn every_file_has_its_line() {
    let source = include_str!("main.rs");
    for name in rfc4475().into_keys().chain(rfc5118().into_keys()) {
        assert!(source.contains(&format!("\"{name}\"")), "{name}");
    }
}

fn read(octets: &[u8]) -> Message {
    read_datagram(Bytes::copy_from_slice(octets), &LIMITS).expect("legal")
}

fn transactions() -> (Transactions<u32>, Instant) {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
    let now = Instant::now();
    (Transactions::new("p1", Timers::default(), now), now)
}
