//! Writes stanzas, always by appending to a buffer.
//!
//! A stanza is a head with its addresses around inner XML. The inner XML of one presence is made once and copied behind
//! the head of each receiver. All text is escaped here; a character that XML does not allow becomes U+FFFD, so what is
//! written is always one well-formed stanza (RFC 6120 §11).

use crate::{
    ns,
    stanza::{
        AUTO_SUBMITTED, ChatState, IqKind, LangText, MessageKind, PresenceKind, Show, StanzaCondition,
        StanzaHead, StanzaKind,
    },
    xml::is_xml_char,
};

/// The addresses and the id of a stanza.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head<'a> {
    /// Who sends.
    pub from: &'a str,
    /// Who is meant.
    pub to: &'a str,
    /// The id, if it has one.
    pub id: Option<&'a str>,
    /// Its language, if said.
    pub lang: Option<&'a str>,
}

/// Appends text so that it reads back as the same text between two tags.
pub fn escape_text(out: &mut Vec<u8>, text: &str) {
    escape(out, text, |byte| match byte {
        b'&' => Some("&amp;"),
        b'<' => Some("&lt;"),
        b'>' => Some("&gt;"),
        b'\r' => Some("&#13;"),
        _ => None,
    });
}

/// Appends text so that it reads back as the same text between single or double quotes.
pub fn escape_attribute(out: &mut Vec<u8>, text: &str) {
    escape(out, text, |byte| match byte {
        b'&' => Some("&amp;"),
        b'<' => Some("&lt;"),
        b'>' => Some("&gt;"),
        b'\'' => Some("&apos;"),
        b'"' => Some("&quot;"),
        b'\t' => Some("&#9;"),
        b'\n' => Some("&#10;"),
        b'\r' => Some("&#13;"),
        _ => None,
    });
}

fn escape(out: &mut Vec<u8>, text: &str, replacement: impl Fn(u8) -> Option<&'static str>) {
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        // 0xEF begins U+FFFE and U+FFFF, among others.
        let (written, len) = match replacement(byte) {
            Some(written) => (written, 1),
            None if byte < 0x20 && !is_xml_char(char::from(byte)) => ("\u{FFFD}", 1),
            None if byte == 0xEF && matches!(bytes[at..], [_, 0xBF, 0xBE | 0xBF, ..]) => ("\u{FFFD}", 3),
            None => continue,
        };
        out.extend_from_slice(&bytes[copied..at]);
        out.extend_from_slice(written.as_bytes());
        copied = at + len;
    }
    out.extend_from_slice(&bytes[copied..]);
}

/// Appends ` name='value'`.
pub fn attribute(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"='");
    escape_attribute(out, value);
    out.push(b'\'');
}

/// Appends `<name>text</name>`, with `xml:lang` if there is a language.
pub fn text_element(out: &mut Vec<u8>, name: &str, lang: Option<&str>, text: &str) {
    out.push(b'<');
    out.extend_from_slice(name.as_bytes());
    if let Some(lang) = lang {
        attribute(out, "xml:lang", lang);
    }
    out.push(b'>');
    escape_text(out, text);
    out.extend_from_slice(b"</");
    out.extend_from_slice(name.as_bytes());
    out.push(b'>');
}

/// Appends a presence stanza around `inner`, which must be well-formed content.
pub fn presence(out: &mut Vec<u8>, head: &Head<'_>, kind: PresenceKind, inner: &[u8]) {
    stanza(out, StanzaKind::Presence, head, kind.as_str(), inner);
}

/// Appends a message around `inner`, which must be well-formed content.
pub fn message(out: &mut Vec<u8>, head: &Head<'_>, kind: MessageKind, inner: &[u8]) {
    stanza(out, StanzaKind::Message, head, kind.as_str(), inner);
}

/// Appends an iq around `inner`, which must be well-formed content. An iq needs an id.
pub fn iq(out: &mut Vec<u8>, head: &Head<'_>, kind: IqKind, inner: &[u8]) {
    debug_assert!(head.id.is_some(), "an iq without an id cannot be answered");
    stanza(out, StanzaKind::Iq, head, Some(kind.as_str()), inner);
}

fn stanza(out: &mut Vec<u8>, kind: StanzaKind, head: &Head<'_>, type_attribute: Option<&str>, inner: &[u8]) {
    let name = kind.as_str().as_bytes();
    out.reserve(64 + head.from.len() + head.to.len() + inner.len());
    out.push(b'<');
    out.extend_from_slice(name);
    attribute(out, "from", head.from);
    attribute(out, "to", head.to);
    if let Some(value) = type_attribute {
        attribute(out, "type", value);
    }
    if let Some(id) = head.id {
        attribute(out, "id", id);
    }
    if let Some(lang) = head.lang {
        attribute(out, "xml:lang", lang);
    }
    if inner.is_empty() {
        out.extend_from_slice(b"/>");
        return;
    }
    out.push(b'>');
    out.extend_from_slice(inner);
    out.extend_from_slice(b"</");
    out.extend_from_slice(name);
    out.push(b'>');
}

/// What the inner XML of a presence says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PresenceContent<'a> {
    /// How available.
    pub show: Option<Show>,
    /// Status texts, each with its language.
    pub statuses: &'a [LangText<'a>],
    /// Priority; 0 is the default and need not be said.
    pub priority: Option<i8>,
    /// Since when the device was not used, as a date and time of XEP-0082.
    pub idle_since: Option<&'a str>,
    /// When the state was first told and by whom, as a date and time of XEP-0082 and an address.
    pub delay: Option<(&'a str, &'a str)>,
}

/// Appends the inner XML of a presence.
///
/// For type `unavailable` leave show and priority out (RFC 6121 §4.5.1).
pub fn presence_content(out: &mut Vec<u8>, content: &PresenceContent<'_>) {
    if let Some(show) = content.show {
        text_element(out, "show", None, show.as_str());
    }
    for status in content.statuses {
        text_element(out, "status", status.lang.as_deref(), &status.text);
    }
    if let Some(priority) = content.priority {
        text_element(out, "priority", None, &priority.to_string());
    }
    if let Some(since) = content.idle_since {
        out.extend_from_slice(b"<idle xmlns='urn:xmpp:idle:1'");
        attribute(out, "since", since);
        out.extend_from_slice(b"/>");
    }
    if let Some((stamp, from)) = content.delay {
        delay(out, stamp, from);
    }
}

/// Appends a delay stamp (XEP-0203): when, as a date and time of XEP-0082, and who kept it.
pub fn delay(out: &mut Vec<u8>, stamp: &str, from: &str) {
    out.extend_from_slice(b"<delay xmlns='urn:xmpp:delay'");
    attribute(out, "stamp", stamp);
    attribute(out, "from", from);
    out.extend_from_slice(b"/>");
}

/// What the inner XML of a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessageContent<'a> {
    /// Subjects, each with its language.
    pub subjects: &'a [LangText<'a>],
    /// Texts, each with its language.
    pub bodies: &'a [LangText<'a>],
    /// The conversation.
    pub thread: Option<&'a str>,
    /// What the sender does.
    pub chat_state: Option<ChatState>,
    /// Ask for a receipt.
    pub wants_receipt: bool,
    /// This is the receipt for the message with this id.
    pub receipt_for: Option<&'a str>,
    /// A program sent it by itself, and no program is to answer it (XEP-0131, RFC 3834 §5).
    pub is_automatic: bool,
}

/// Appends the inner XML of a message.
pub fn message_content(out: &mut Vec<u8>, content: &MessageContent<'_>) {
    for subject in content.subjects {
        text_element(out, "subject", subject.lang.as_deref(), &subject.text);
    }
    for body in content.bodies {
        text_element(out, "body", body.lang.as_deref(), &body.text);
    }
    if let Some(thread) = content.thread {
        text_element(out, "thread", None, thread);
    }
    if let Some(state) = content.chat_state {
        empty_element(out, state.as_str(), ns::CHAT_STATES);
    }
    if content.wants_receipt {
        empty_element(out, "request", ns::RECEIPTS);
    }
    if let Some(id) = content.receipt_for {
        out.extend_from_slice(b"<received xmlns='urn:xmpp:receipts'");
        attribute(out, "id", id);
        out.extend_from_slice(b"/>");
    }
    if content.is_automatic {
        out.extend_from_slice(b"<headers");
        attribute(out, "xmlns", ns::SHIM);
        out.extend_from_slice(b"><header");
        attribute(out, "name", AUTO_SUBMITTED);
        out.extend_from_slice(b">auto-generated</header></headers>");
    }
}

/// Appends `<name xmlns='ns'/>`.
pub fn empty_element(out: &mut Vec<u8>, name: &str, ns: &str) {
    out.push(b'<');
    out.extend_from_slice(name.as_bytes());
    attribute(out, "xmlns", ns);
    out.extend_from_slice(b"/>");
}

/// A stanza error to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorContent<'a> {
    /// Its defined condition; the type follows from it.
    pub condition: StanzaCondition,
    /// A text for people.
    pub text: Option<&'a str>,
    /// The other address, as an `xmpp:` URI: written only in `gone` and `redirect`.
    pub new_address: Option<&'a str>,
}

impl From<StanzaCondition> for ErrorContent<'_> {
    fn from(condition: StanzaCondition) -> Self {
        Self { condition, text: None, new_address: None }
    }
}

/// Appends an `<error/>` (RFC 6120 §8.3.2).
pub fn error_content(out: &mut Vec<u8>, error: &ErrorContent<'_>) {
    let name = error.condition.as_str();
    out.extend_from_slice(b"<error");
    attribute(out, "type", error.condition.error_type().as_str());
    out.extend_from_slice(b"><");
    out.extend_from_slice(name.as_bytes());
    attribute(out, "xmlns", ns::STANZA_ERRORS);
    let may_carry = matches!(error.condition, StanzaCondition::Gone | StanzaCondition::Redirect);
    match error.new_address.filter(|_| may_carry) {
        Some(address) => {
            out.push(b'>');
            escape_text(out, address);
            out.extend_from_slice(b"</");
            out.extend_from_slice(name.as_bytes());
            out.push(b'>');
        }
        None => out.extend_from_slice(b"/>"),
    }
    if let Some(text) = error.text {
        out.extend_from_slice(b"<text");
        attribute(out, "xmlns", ns::STANZA_ERRORS);
        out.push(b'>');
        escape_text(out, text);
        out.extend_from_slice(b"</text>");
    }
    out.extend_from_slice(b"</error>");
}

/// Appends the error that answers `original`: addresses swapped, id copied, its content left out (RFC 6120 §8.3.1).
///
/// Writes nothing and gives `false` when it may not be answered: it is an error or the result of an iq itself, or it
/// has no address to answer.
pub fn error_reply(out: &mut Vec<u8>, original: &StanzaHead<'_>, error: &ErrorContent<'_>) -> bool {
    let is_answer = original.kind == StanzaKind::Iq && original.type_attribute.as_deref() == Some("result");
    let (Some(from), Some(to)) = (original.to.as_deref(), original.from.as_deref()) else { return false };
    if is_answer || original.is_error() {
        return false;
    }
    let head = Head { from, to, id: original.id.as_deref(), lang: None };
    let mut inner = Vec::with_capacity(128);
    error_content(&mut inner, error);
    stanza(out, original.kind, &head, Some("error"), &inner);
    true
}

/// Appends the result that answers the iq `original`; `inner` is its payload, or empty.
///
/// Writes nothing and gives `false` when `original` has no addresses or no id.
pub fn iq_result(out: &mut Vec<u8>, original: &StanzaHead<'_>, inner: &[u8]) -> bool {
    let (Some(from), Some(to), Some(id)) =
        (original.to.as_deref(), original.from.as_deref(), original.id.as_deref())
    else {
        return false;
    };
    iq(out, &Head { from, to, id: Some(id), lang: None }, IqKind::Result, inner);
    true
}
