//! Presence documents in PUBLISH and NOTIFY, whatever they are wrapped in.

use super::stage::*;

const RLMI: &str = "--b\r\nContent-Type: application/rlmi+xml\r\n\r\n<list/>\r\n";

fn wrapped(document: &str, before: &str) -> String {
    format!("{before}--b\r\nContent-Type: application/pidf+xml\r\n\r\n{document}\r\n--b--")
}

#[test]
fn a_notify_is_read_in_every_form_that_a_front_end_sends() {
    let away = pidf("open", "<show xmlns='jabber:client'>away</show>");
    let msrtc = "<presentity xmlns='http://schemas.microsoft.com/2002/09/sip/presence' uri='benvolio@corp.example'>\
                 <availability aggregate='300'/><activity aggregate='700'/></presentity>";
    for (headers, body) in [
        ("Content-Type: multipart/mixed;boundary=b\r\n", wrapped(&away, "")),
        (
            "Content-Type: multipart/related;boundary=b;type=\"application/rlmi+xml\"\r\n",
            wrapped(&away, RLMI),
        ),
        ("Content-Type: multipart/alternative;boundary=b\r\n", wrapped(&away, RLMI)),
        ("Content-Type: text/xml+msrtc.pidf\r\n", msrtc.to_owned()),
        ("Content-Type: application/pidf+xml;charset=utf-8\r\n", away.clone()),
    ] {
        let mut stage = Stage::new();
        let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
        stage.stanzas.clear();
        let response = stage.front_end_notifies_with(&draft, 2, "active", headers, body.as_bytes());
        assert_eq!(response.status(), Some(200), "{headers}");
        assert!(stage.stanzas.iter().any(|stanza| stanza.contains("<show>away</show>")), "{headers}");
    }
}

#[test]
fn stox_p_60_a_notify_that_cannot_be_read_is_refused_by_its_fault_and_the_state_stays() {
    let good = pidf("closed", "");
    // In UTF-8 each of these characters takes two octets.
    let long = "<presence xmlns='urn:ietf:params:xml:ns:pidf'><note>".as_bytes();
    let long = [long, &[0xe9; 40_000], b"</note></presence>"].concat();
    for (headers, body, status) in [
        ("Content-Type: application/xpidf+xml\r\n", good.as_bytes(), 415),
        ("", good.as_bytes(), 415),
        ("Content-Type: application/pidf+xml\r\nContent-Encoding: br\r\n", good.as_bytes(), 415),
        ("Content-Type: application/pidf+xml\r\nContent-Encoding: gzip\r\n", good.as_bytes(), 400),
        ("Content-Type: application/pidf+xml\r\n", b"<presence>", 400),
        ("Content-Type: application/pidf+xml;charset=utf-8\r\n", b"<a>\xe9</a>", 400),
        ("Content-Type: multipart/mixed\r\n", good.as_bytes(), 400),
        ("Content-Type: application/pidf+xml;charset=iso-8859-1\r\n", &long, 413),
    ] {
        let mut stage = Stage::new();
        let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
        stage.stanzas.clear();
        let response = stage.front_end_notifies_with(&draft, 2, "active", headers, body);
        assert_eq!(response.status(), Some(status), "{headers}");
        let names = |response: &tombolo_sip::message::Message| {
            ["Accept", "Accept-Encoding", "Accept-Language"]
                .map(|name| response.all_rows().any(|(found, _)| found == name))
        };
        assert_eq!(names(&response), [status == 415; 3], "{headers}");
        assert!(stage.stanzas.is_empty(), "{headers}");
    }
}

#[test]
fn an_optional_body_that_is_not_known_leaves_the_state_as_it_is() {
    let mut stage = Stage::new();
    let draft = stage.juliet_watches_benvolio(&pidf("open", ""));
    stage.stanzas.clear();
    let headers = "Content-Type: application/x-foo\r\nContent-Disposition: render;handling=optional\r\n";
    let response = stage.front_end_notifies_with(&draft, 2, "active", headers, b"x");
    assert_eq!(response.status(), Some(200));
    assert!(stage.stanzas.is_empty());
}

#[test]
fn a_publication_is_read_in_its_character_set_and_survives_a_restart_in_ours() {
    let document = format!(
        "<?xml version='1.0' encoding='us-ascii'?><presence xmlns='urn:ietf:params:xml:ns:pidf' \
         entity='pres:{ROMEO}'><tuple id='t'><status><basic>open</basic></status><note>caf\u{e9}</note></tuple></presence>"
    );
    let mut stage = Stage::new();
    stage.juliet_watches_romeo();
    stage.stanzas.clear();
    let headers = "Content-Type: multipart/mixed;boundary=b\r\n";
    let body = wrapped(&document, "").replace("pidf+xml\r\n", "pidf+xml;charset=utf-8\r\n");
    assert_eq!(stage.publish_with(ROMEO, &body, headers).status(), Some(200));
    assert!(stage.stanza().contains("caf\u{e9}"));
    let mut again = stage.killed_and_started_again(std::time::Duration::from_secs(1));
    again.stanzas.clear();
    again.presence(JULIET, ROMEO, "probe", "");
    assert!(again.stanzas.iter().any(|stanza| stanza.contains("caf\u{e9}")), "{:?}", again.stanzas);
}

#[test]
fn a_publication_that_cannot_be_read_is_refused_with_what_can() {
    let mut stage = Stage::new();
    let document = pidf("open", "").replace(BENVOLIO, ROMEO);
    for (headers, status) in [
        ("Content-Type: application/x-foo\r\n", 415),
        ("Content-Type: application/pidf+xml\r\nContent-Encoding: br\r\n", 415),
        ("Content-Type: application/pidf+xml\r\nContent-Encoding: deflate\r\n", 400),
        // As if it were not there, and then there is nothing to publish.
        ("Content-Type: application/x-foo\r\nContent-Disposition: render;handling=optional\r\n", 400),
    ] {
        let response = stage.publish_with(ROMEO, &document, headers);
        assert_eq!(response.status(), Some(status), "{headers}");
        assert_eq!(response.accept().next().is_some(), status == 415, "{headers}");
    }
    // What comes before the body is looked at before it.
    let response =
        stage.publish_with(ROMEO, &document, "SIP-If-Match: x\r\nContent-Type: application/x-foo\r\n");
    assert_eq!(response.status(), Some(412));
}
