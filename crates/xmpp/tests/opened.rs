//! An element that has no place on a stream ends it at the end of its start tag, and swallows nothing behind it.

mod common;

use common::{EXTERNAL, PLAIN, caller::*, header};
use tombolo_xmpp::stream::StreamFault;

const GOOD: &str = "<message from='a@peer.example' to='b@us.example'><body>hi</body></message>";

#[test]
fn xs_xml_03_an_element_without_a_place_is_refused_at_the_end_of_its_start_tag() {
    let second = header(PEER, US);
    let second = second.strip_prefix("<?xml version='1.0'?>").unwrap_or(&second);
    for (opened, condition) in [
        (second, "unsupported-stanza-type"),
        ("<stream:stream>", "unsupported-stanza-type"),
        ("<stream:features>", "unsupported-stanza-type"),
        ("<foo>", "unsupported-stanza-type"),
        ("<foo xmlns='urn:example'>", "unsupported-stanza-type"),
        ("<messages from='a@peer.example'>", "unsupported-stanza-type"),
        ("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>", "unsupported-stanza-type"),
        ("<db:foo>", "unsupported-stanza-type"),
        ("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'>", "unsupported-stanza-type"),
        ("<iq xmlns='jabber:client' type='get'>", "invalid-namespace"),
        ("<message xmlns=''>", "invalid-namespace"),
        ("<s:message xmlns:s='jabber:server'>", "bad-namespace-prefix"),
    ] {
        // All at once, and octet by octet; the fault is there before the element has an end.
        for step in [1, usize::MAX] {
            let mut side = authenticated();
            let text = GOOD.repeat(2) + opened;
            for piece in text.as_bytes().chunks(step.min(text.len())) {
                assert_eq!(side.error_sent(), None, "{opened}: too early");
                side.hear(std::str::from_utf8(piece).expect("ASCII"));
            }
            assert_eq!(side.error_sent(), Some(condition), "{opened}");
            assert_eq!(side.stanzas().len(), 2, "{opened}: what stands in front is handed on");
        }
    }
}

#[test]
fn a_stanza_before_authentication_is_refused_at_the_end_of_its_start_tag() {
    let (mut side, _) = over_tls(EXTERNAL, &[PEER]);
    side.hear("<message from='a@peer.example' to='b@us.example'>");
    assert_eq!(fault(&side), &StreamFault::NotAuthenticated);
}

#[test]
fn elements_that_have_a_place_are_awaited_to_their_end() {
    for opened in [
        "<message from='a@peer.example' to='b@us.example'>",
        "<presence xmlns='jabber:server' from='a@peer.example' to='b@us.example'>",
        "<iq xmlns:x='u' from='a@peer.example' to='b@us.example' type='get' id='1'>",
        "<db:result from='peer.example' to='us.example'>",
        "<db:verify from='peer.example' to='us.example' id='x'>",
        "<stream:error>",
    ] {
        let mut side = authenticated();
        side.hear(opened);
        assert_eq!(side.error_sent(), None, "{opened}");
    }
    let (mut side, _) = over_tls(EXTERNAL, &[PEER]);
    side.hear("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>");
    assert_eq!(side.error_sent(), None);
    let mut side = stream(PLAIN, &[]);
    side.hear(&header(PEER, US));
    side.hear("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'>");
    assert_eq!(side.error_sent(), None);
}
