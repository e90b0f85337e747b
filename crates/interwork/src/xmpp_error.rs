//! Stanza errors that we send (RFC 6120 §8.3).

use bytes::Bytes;
use tombolo_xmpp::{
    stanza::{MessageKind, PresenceKind, StanzaCondition, StanzaHead},
    write::{ErrorContent, Head, error_content, error_reply, message, presence},
};

/// The error that answers `stanza`, with a condition by name; `None` when it may not be answered (STOX-E-10).
pub fn reply(stanza: &[u8], condition: &str, text: Option<&str>) -> Option<Vec<u8>> {
    reply_moved(stanza, condition, text, None)
}

/// The same with the `xmpp:` URI where the recipient is now, which only `gone` and `redirect` carry.
pub fn reply_moved(
    stanza: &[u8],
    condition: &str,
    text: Option<&str>,
    new_address: Option<&str>,
) -> Option<Vec<u8>> {
    let head = StanzaHead::read(stanza).ok()?;
    let mut out = Vec::new();
    let content = ErrorContent { new_address, ..content(condition, text) };
    error_reply(&mut out, &head, &content).then_some(out)
}

/// As much of a message as [`reply`] needs later: its addresses and its id. Empty when it may not be answered.
pub fn without_content(stanza: &[u8]) -> Bytes {
    let Ok(head) = StanzaHead::read(stanza) else { return Bytes::new() };
    let (Some(from), Some(to)) = (head.from.as_deref(), head.to.as_deref()) else { return Bytes::new() };
    let mut out = Vec::new();
    let kind = if head.is_error() { MessageKind::Error } else { MessageKind::Normal };
    message(&mut out, &Head { from, to, id: head.id.as_deref(), lang: None }, kind, b"");
    out.into()
}

/// An error presence from `from` to `to`, both bare; `new_address` as in [`reply_moved`].
pub fn presence_error(
    from: &str,
    to: &str,
    condition: &str,
    text: Option<&str>,
    new_address: Option<&str>,
) -> Vec<u8> {
    let mut inner = Vec::new();
    error_content(&mut inner, &ErrorContent { new_address, ..content(condition, text) });
    let mut out = Vec::new();
    presence(&mut out, &Head { from, to, id: None, lang: None }, PresenceKind::Error, &inner);
    out
}

fn content<'a>(condition: &str, text: Option<&'a str>) -> ErrorContent<'a> {
    let condition = StanzaCondition::from_name(condition).unwrap_or(StanzaCondition::UndefinedCondition);
    ErrorContent { condition, text, new_address: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stox_e_10_stox_e_11_an_error_swaps_addresses_keeps_the_id_and_answers_no_error() {
        let stanza = b"<message from='j@x/b' to='r@s' id='7'><body>big</body></message>";
        let text =
            String::from_utf8(reply(stanza, "item-not-found", None).expect("answered")).expect("UTF-8");
        assert_eq!(
            text,
            "<message from='r@s' to='j@x/b' type='error' id='7'><error type='cancel'>\
             <item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
        );
        let error = b"<message from='j@x/b' to='r@s' id='7' type='error'/>";
        assert_eq!(reply(error, "item-not-found", None), None);
    }

    #[test]
    fn stox_e_07_each_condition_that_the_status_table_gives_has_its_type() {
        let types = [
            ("auth", &["forbidden", "not-authorized", "registration-required", "subscription-required"][..]),
            (
                "cancel",
                &[
                    "conflict",
                    "gone",
                    "item-not-found",
                    "not-allowed",
                    "remote-server-not-found",
                    "service-unavailable",
                    "feature-not-implemented",
                ],
            ),
            ("modify", &["bad-request", "jid-malformed", "not-acceptable", "redirect", "policy-violation"]),
            ("wait", &["recipient-unavailable", "resource-constraint", "remote-server-timeout"]),
        ];
        for (error_type, conditions) in types {
            for condition in conditions {
                let text =
                    String::from_utf8(presence_error("r@s", "j@x", condition, None, None)).expect("UTF-8");
                let expected = format!("<error type='{error_type}'><{condition} ");
                assert!(text.contains(&expected), "{text}");
            }
        }
    }
}
