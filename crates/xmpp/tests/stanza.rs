//! Stanzas read and written: the examples of RFC 6120, RFC 6121, XEP-0184, XEP-0085 and XEP-0319, and odd ones.

use proptest::{prelude::*, test_runner::RngSeed};
use tombolo_xmpp::{
    ns,
    stanza::{
        ChatState, ErrorType, IqKind, IqStanza, LangText, MessageKind, MessageStanza, PresenceKind,
        PresenceStanza, Show, StanzaCondition, StanzaFault, StanzaHead, StanzaKind,
    },
    write::{self, ErrorContent, Head, MessageContent, PresenceContent},
    xml::{Reader, Scope, XmlLimits, check, is_xml_char},
};

fn presence(xml: &str) -> PresenceStanza<'_> {
    PresenceStanza::read(xml.as_bytes()).unwrap_or_else(|fault| panic!("{fault}: {xml}"))
}

fn message(xml: &str) -> MessageStanza<'_> {
    MessageStanza::read(xml.as_bytes()).unwrap_or_else(|fault| panic!("{fault}: {xml}"))
}

/// What was written must pass our own gate.
fn checked(out: Vec<u8>) -> String {
    let limits = XmlLimits::UNAUTHENTICATED.with_element_bytes(1 << 20);
    check(&out, &Scope::server(), &limits)
        .unwrap_or_else(|fault| panic!("{fault}: {}", String::from_utf8_lossy(&out)));
    String::from_utf8(out).expect("UTF-8")
}

fn text<'a>(lang: Option<&'a str>, text: &'a str) -> LangText<'a> {
    LangText { lang: lang.map(Into::into), text: text.into() }
}

#[test]
fn a_presence_is_read_whole() {
    let stanza = presence(
        "<presence from='juliet@example.com/balcony' to='romeo@example.net' id='p&amp;1' xml:lang='en'>\
         <show> away\n</show><status>be right &lt;back&gt;</status><status xml:lang='cs'>hned</status><priority> 5 </priority>\
         <idle xmlns='urn:xmpp:idle:1' since='1969-07-21T02:56:15Z'/>\
         <delay xmlns='urn:xmpp:delay' from='example.com' stamp='2002-09-10T23:41:07Z'/>\
         <c xmlns='http://jabber.org/protocol/caps' hash='sha-1'><show>dnd</show></c></presence>",
    );
    assert_eq!(stanza.kind, PresenceKind::Available);
    assert_eq!(stanza.head.kind, StanzaKind::Presence);
    assert_eq!(stanza.head.id.as_deref(), Some("p&1"));
    assert_eq!(stanza.head.lang.as_deref(), Some("en"));
    assert_eq!(stanza.show, Some(Show::Away));
    assert_eq!(stanza.statuses.as_slice(), [text(None, "be right <back>"), text(Some("cs"), "hned")]);
    assert_eq!(stanza.priority, Some(5));
    assert_eq!(stanza.idle_since.as_deref(), Some("1969-07-21T02:56:15Z"));
    assert_eq!(stanza.delay_stamp.as_deref(), Some("2002-09-10T23:41:07Z"));
}

#[test]
fn each_type_of_presence_is_read_as_it_is_written() {
    use PresenceKind as Kind;
    for kind in [
        Kind::Available,
        Kind::Unavailable,
        Kind::Subscribe,
        Kind::Subscribed,
        Kind::Unsubscribe,
        Kind::Unsubscribed,
        Kind::Probe,
        Kind::Error,
    ] {
        let mut out = Vec::new();
        write::presence(&mut out, &Head { from: "a@b", to: "c@d", id: None, lang: None }, kind, b"");
        assert_eq!(presence(&checked(out)).kind, kind);
    }
}

#[test]
fn xp_32_odd_presence_is_refused_or_read_without_what_is_odd() {
    let unknown = PresenceStanza::read(b"<presence type='invisible'/>");
    assert_eq!(unknown.as_ref().map_err(|fault| fault.condition()), Err(StanzaCondition::BadRequest));
    assert_eq!(presence("<presence><show>bored</show></presence>").show, None);
    assert_eq!(presence("<presence><show/></presence>").show, None);
    assert_eq!(
        presence("<presence><show>bored</show><show>xa</show><show>dnd</show></presence>").show,
        Some(Show::Xa)
    );
    assert_eq!(
        presence("<presence><priority>x</priority><priority>7</priority><priority>8</priority></presence>")
            .priority,
        Some(7)
    );
    assert_eq!(presence("<presence><x xmlns='u'><show>dnd</show></x></presence>").show, None);
}

#[test]
fn xp_33_priority_is_0_where_it_cannot_be_read() {
    for (written, read) in [
        ("<priority>-128</priority>", Some(-128)),
        ("<priority>127</priority>", Some(127)),
        ("<priority>+5</priority>", Some(5)),
        ("<priority>200</priority>", Some(0)),
        ("<priority>-129</priority>", Some(0)),
        ("<priority>1.5</priority>", Some(0)),
        ("<priority/>", Some(0)),
        ("", None),
    ] {
        assert_eq!(presence(&format!("<presence>{written}</presence>")).priority, read, "{written}");
    }
}

#[test]
fn a_message_is_read_whole() {
    let stanza = message(
        "<message from='juliet@example.com/balcony' to='romeo@example.net' type='chat' id='ktx72v49' xml:lang='en'>\
         <subject>I implore you!</subject><body>Art thou not <![CDATA[<Romeo>]]>&#10;&amp;?</body>\
         <body xml:lang='cs'>Pro&#x10D;e&#x17E; jsi ty</body><thread parent='e0ffe42b'>0e3141cd</thread>\
         <composing xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/></message>",
    );
    assert_eq!(stanza.kind, MessageKind::Chat);
    assert_eq!(
        stanza.bodies.as_slice(),
        [text(None, "Art thou not <Romeo>\n&?"), text(Some("cs"), "Pročež jsi ty")]
    );
    assert_eq!(stanza.subjects.as_slice(), [text(None, "I implore you!")]);
    assert_eq!(stanza.thread.as_deref(), Some("0e3141cd"));
    assert_eq!(stanza.chat_state, Some(ChatState::Composing));
    assert!(stanza.wants_receipt && stanza.receipt_for.is_none());

    let receipt = message("<message><received xmlns='urn:xmpp:receipts' id='richard2-4.1.247'/></message>");
    assert_eq!(receipt.receipt_for.as_deref(), Some("richard2-4.1.247"));
    assert!(!receipt.wants_receipt);
    assert_eq!(message("<message type='strange'/>").kind, MessageKind::Normal, "RFC 6121 §5.2.2");
}

#[test]
fn an_iq_is_read_with_its_payload_as_written() {
    let xml = "<iq from='a.example' to='b.example' id='1' type='get'><q:query xmlns:q='urn:q' a='>'><x/></q:query></iq>";
    let iq = IqStanza::read(xml.as_bytes()).expect("an iq");
    let payload = iq.payload.expect("a payload");
    assert_eq!((iq.kind, &*payload.ns, payload.name), (IqKind::Get, "urn:q", "query"));
    assert_eq!(payload.xml, "<q:query xmlns:q='urn:q' a='>'><x/></q:query>");
    for bad in [
        "<iq id='1' type='get'/>",
        "<iq id='1' type='set'><a/><b/></iq>",
        "<iq type='get'><a/></iq>",
        "<iq type='result'/>",
    ] {
        assert_eq!(IqStanza::read(bad.as_bytes()), Err(StanzaFault::Iq), "{bad}");
    }
    assert_eq!(IqStanza::read(b"<iq id='1' type='ask'/>"), Err(StanzaFault::Type));
    assert_eq!(IqStanza::read(b"<iq id='1'/>"), Err(StanzaFault::Type));
    let result = IqStanza::read(b"<iq id='1' type='result'/>").expect("an iq");
    assert!(result.payload.is_none() && !result.kind.is_request());
    let error = "<iq id='1' type='error'><ping xmlns='urn:xmpp:ping'/><error type='cancel'>\
                 <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>";
    let error = IqStanza::read(error.as_bytes()).expect("an iq");
    assert_eq!(error.payload.map(|payload| payload.ns), Some(ns::PING.into()));
    assert_eq!(error.error.map(|error| error.condition), Some(StanzaCondition::ServiceUnavailable));
}

#[test]
fn only_stanzas_in_jabber_server_without_a_prefix_are_read() {
    for (xml, fault) in [
        ("<presence xmlns='jabber:client'/>", StanzaFault::Namespace),
        ("<presence xmlns=''/>", StanzaFault::Namespace),
        ("<s:presence xmlns:s='jabber:server'/>", StanzaFault::Prefix),
        ("<other/>", StanzaFault::OtherElement),
        ("text", StanzaFault::OtherElement),
    ] {
        assert_eq!(StanzaHead::read(xml.as_bytes()), Err(fault), "{xml}");
    }
    assert!(StanzaHead::read(b"<presence xmlns='jabber:server'/>").is_ok());
    assert_eq!(PresenceStanza::read(b"<message/>"), Err(StanzaFault::OtherElement));
    assert_eq!(StanzaHead::read(b"\xff"), Err(StanzaFault::OtherElement));
}

#[test]
fn all_22_conditions_are_read_as_they_are_written() {
    assert_eq!(StanzaCondition::ALL.len(), 22);
    let head = StanzaHead::read(b"<message from='a@b/r' to='c@d' id='1'/>").expect("a head");
    for &condition in StanzaCondition::ALL {
        let content = ErrorContent { condition, text: Some("<why>"), new_address: Some("xmpp:e@f?a&b") };
        let mut out = Vec::new();
        assert!(write::error_reply(&mut out, &head, &content));
        let xml = checked(out);
        let stanza = message(&xml);
        assert_eq!(stanza.kind, MessageKind::Error);
        let error = stanza.error.expect("an error");
        assert_eq!((error.condition, error.error_type), (condition, Some(condition.error_type())));
        assert_eq!(error.text.as_deref(), Some("<why>"));
        let carries = matches!(condition, StanzaCondition::Gone | StanzaCondition::Redirect);
        assert_eq!(error.new_address.as_deref(), carries.then_some("xmpp:e@f?a&b"));
    }
}

#[test]
fn the_type_of_each_condition_follows_rfc_6120() {
    use ErrorType as Type;
    use StanzaCondition as Condition;
    for (conditions, kind) in [
        (
            &[
                Condition::Forbidden,
                Condition::NotAuthorized,
                Condition::RegistrationRequired,
                Condition::SubscriptionRequired,
            ][..],
            Type::Auth,
        ),
        (
            &[
                Condition::Conflict,
                Condition::Gone,
                Condition::ItemNotFound,
                Condition::NotAllowed,
                Condition::RemoteServerNotFound,
                Condition::ServiceUnavailable,
                Condition::FeatureNotImplemented,
            ],
            Type::Cancel,
        ),
        (
            &[
                Condition::BadRequest,
                Condition::JidMalformed,
                Condition::NotAcceptable,
                Condition::Redirect,
                Condition::PolicyViolation,
            ],
            Type::Modify,
        ),
        (
            &[Condition::RecipientUnavailable, Condition::ResourceConstraint, Condition::RemoteServerTimeout],
            Type::Wait,
        ),
    ] {
        for &condition in conditions {
            let mut out = Vec::new();
            write::error_content(&mut out, &condition.into());
            let xml = String::from_utf8(out).expect("UTF-8");
            assert!(
                xml.starts_with(&format!("<error type='{}'><{} ", kind.as_str(), condition.as_str())),
                "{xml}"
            );
        }
    }
}

#[test]
fn stox_e_10_no_error_answers_an_error() {
    for xml in [
        "<message from='a@b' to='c@d' type='error' id='1'/>",
        "<presence from='a@b' to='c@d' type='error'/>",
        "<iq from='a@b' to='c@d' type='error' id='1'/>",
        "<iq from='a@b' to='c@d' type='result' id='1'/>",
        "<message to='c@d'/>",
    ] {
        let head = StanzaHead::read(xml.as_bytes()).expect("a head");
        let mut out = Vec::new();
        assert!(!write::error_reply(&mut out, &head, &StanzaCondition::BadRequest.into()), "{xml}");
        assert!(out.is_empty());
    }
}

#[test]
fn stox_e_11_an_error_swaps_the_addresses_copies_the_id_and_leaves_the_content_out() {
    let xml =
        b"<message from='a@b/r&apos;' to='c@d' id='&lt;1&gt;' type='chat'><body>secret</body></message>";
    let head = StanzaHead::read(xml).expect("a head");
    let mut out = Vec::new();
    assert!(write::error_reply(&mut out, &head, &StanzaCondition::ItemNotFound.into()));
    assert_eq!(
        checked(out),
        "<message from='c@d' to='a@b/r&apos;' type='error' id='&lt;1&gt;'><error type='cancel'>\
         <item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
    );
}

#[test]
fn a_ping_is_answered_by_an_empty_result() {
    let head =
        StanzaHead::read(b"<iq from='a.example' to='b.example' id='s2s1' type='get'/>").expect("a head");
    let mut out = Vec::new();
    assert!(write::iq_result(&mut out, &head, b""));
    assert_eq!(checked(out), "<iq from='b.example' to='a.example' type='result' id='s2s1'/>");
}

#[test]
fn one_inner_presence_serves_many_heads() {
    let statuses = [text(None, "a < b"), text(Some("de"), "so & so")];
    let content = PresenceContent {
        show: Some(Show::Dnd),
        statuses: &statuses,
        priority: Some(-1),
        idle_since: Some("2026-01-01T00:00:00Z"),
        delay: Some(("2026-01-01T00:00:01Z", "corp.example")),
    };
    let mut inner = Vec::new();
    write::presence_content(&mut inner, &content);
    for to in ["romeo@example.net", "o'malley@example.net"] {
        let mut out = Vec::new();
        let head = Head { from: "juliet@example.com/balcony", to, id: None, lang: None };
        write::presence(&mut out, &head, PresenceKind::Available, &inner);
        let xml = checked(out);
        let stanza = presence(&xml);
        assert_eq!(stanza.head.to.as_deref(), Some(to));
        assert_eq!((stanza.show, stanza.priority), (Some(Show::Dnd), Some(-1)));
        assert_eq!(stanza.statuses.as_slice(), statuses);
        assert_eq!(stanza.idle_since.as_deref(), content.idle_since);
        assert_eq!(stanza.delay_stamp.as_deref(), Some("2026-01-01T00:00:01Z"));
    }
}

#[test]
fn a_message_is_read_as_it_is_written() {
    let (subjects, bodies) = ([text(None, "s")], [text(Some("en"), "b\r\n\t"), text(None, "]]>")]);
    let content = MessageContent {
        subjects: &subjects,
        bodies: &bodies,
        thread: Some("t'"),
        chat_state: Some(ChatState::Gone),
        wants_receipt: true,
        receipt_for: Some("\"1\""),
        is_automatic: true,
    };
    let mut inner = Vec::new();
    write::message_content(&mut inner, &content);
    let mut out = Vec::new();
    write::message(
        &mut out,
        &Head { from: "a@b", to: "c@d", id: Some("i"), lang: Some("en") },
        MessageKind::Chat,
        &inner,
    );
    let xml = checked(out);
    let stanza = message(&xml);
    assert_eq!(stanza.kind, MessageKind::Chat);
    assert!(stanza.is_automatic);
    assert_eq!(stanza.subjects.as_slice(), subjects);
    assert_eq!(stanza.bodies.as_slice(), bodies);
    assert_eq!(stanza.thread.as_deref(), Some("t'"));
    assert_eq!((stanza.chat_state, stanza.wants_receipt), (Some(ChatState::Gone), true));
    assert_eq!(stanza.receipt_for.as_deref(), Some("\"1\""));
    assert_eq!((stanza.head.id.as_deref(), stanza.head.lang.as_deref()), (Some("i"), Some("en")));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn text_crosses_as_text_and_what_xml_forbids_becomes_a_replacement_character(written in any::<String>(), value in any::<String>()) {
        let mut out = Vec::new();
        out.extend_from_slice(b"<a");
        write::attribute(&mut out, "b", &value);
        out.push(b'>');
        write::escape_text(&mut out, &written);
        out.extend_from_slice(b"</a>");
        let xml = checked(out);
        let (tag, mut reader) = Reader::open_stanza(&xml).expect("an element");
        let legal = |text: &str| text.chars().map(|c| if is_xml_char(c) { c } else { '\u{FFFD}' }).collect::<String>();
        prop_assert_eq!(tag.attribute("b").expect("the attribute"), legal(&value));
        prop_assert_eq!(reader.text(), legal(&written));
    }
}
