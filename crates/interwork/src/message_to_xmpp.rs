//! A SIP MESSAGE as a message stanza (RFC 7572 §5).

use std::borrow::Cow;

use tombolo_presence::{Address, Now};
use tombolo_sip::{
    body::{self, Context},
    message::Message,
    uri::{Scheme, UriRef},
};
use tombolo_xmpp::{
    stanza::{LangText, MessageKind},
    write::{Head, MessageContent, message, message_content},
    xml::is_xml_char,
};

use crate::{
    address::{address_of_uri, resource_from},
    sip_request::RequestFault,
    time::seconds_of,
};

/// What a MESSAGE says.
#[derive(Debug, Clone)]
pub struct IncomingMessage {
    /// Whom it is for.
    pub target: Address,
    /// The recipient's device that is meant (`gr`).
    pub device: Option<Box<str>>,
    /// The sender's device (`gr` of From).
    pub from_device: Option<Box<str>>,
    /// The text, with line feeds and without characters that XML cannot hold; empty where the body says nothing.
    pub body: String,
    /// Subject.
    pub subject: Option<String>,
    /// The language of the text.
    pub lang: Option<String>,
    /// Call-ID: the thread.
    pub thread: String,
    /// A program sent it by itself.
    pub is_automatic: bool,
}

impl IncomingMessage {
    /// Whether there is nothing in it that a person could read.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty() && self.subject.is_none()
    }

    /// Reads and checks: the text must be one that XMPP can carry (STOX-M-08, STOX-M-10), and not out of date
    /// (STOX-M-20).
    pub fn read(request: &Message, now: Now) -> Result<Self, RequestFault> {
        let uri = request.request_uri().map_err(|_| RequestFault::new(400, "a malformed Request-URI"))?;
        let to = request.to().map_err(|_| RequestFault::new(400, "a malformed To"))?;
        if uri.scheme() == Scheme::Sips || to.uri.scheme() == Scheme::Sips {
            let headers = &[("Warning", "380 tombolo \"SIPS Not Allowed\"")];
            return Err(RequestFault { status: 480, reason: "sips is not translated", headers });
        }
        // No dialog of ours carries messages, so none that has a To tag is in one (SIP-M-03, RFC 3261 §12.2.2).
        if to.tag().is_some() {
            return Err(RequestFault::new(481, "a message in a dialog that is not there"));
        }
        let addressee = address_of_uri(&uri)
            .map_err(|fault| RequestFault::new(fault.status(), "the recipient has no address"))?;
        if is_expired(request, now) {
            return Err(RequestFault::new(480, "the message ran out before it could be delivered"));
        }
        let content = body::read(request, Context::Message)
            .map_err(|fault| RequestFault::of_body(fault, Context::Message))?;
        let (text, subject, lang) = match content {
            Some(content) => (clean(&content.text), content.subject, content.language),
            None => (String::new(), None, None),
        };
        let from = request.from().map_err(|_| RequestFault::new(400, "a malformed From"))?;
        Ok(Self {
            target: addressee.address,
            device: addressee.device,
            from_device: device_of(&from.uri, from.params.text("gr").as_deref()),
            body: text,
            subject: request.subject().or(subject.as_deref()).map(clean).filter(|text| !text.is_empty()),
            lang,
            thread: request.call_id().unwrap_or_default().to_owned(),
            is_automatic: request.is_automatic(),
        })
    }
}

/// The stanza: of type `normal` unless the partner's entry wants `chat` (STOX-M-05, D-17).
///
/// What a program sent by itself says so in a header of XEP-0131. It is no `headline`, though RFC 6121 §5.2.2 has that type
/// for what expects no reply: the contact's server would drop it in silence while the contact is offline (§8.5.2.2.1).
pub fn stanza(
    incoming: &IncomingMessage,
    user: &Address,
    contact: &Address,
    id: &str,
    is_chat: bool,
) -> Vec<u8> {
    let with_device = |address: &Address, device: Option<&str>| match device {
        Some(device) => format!("{address}/{device}"),
        None => address.to_string(),
    };
    let from = with_device(user, incoming.from_device.as_deref());
    let to = with_device(contact, incoming.device.as_deref());
    let text = |text: &str| LangText { lang: None, text: Cow::Owned(text.to_owned()) };
    let subjects: Vec<_> = incoming.subject.as_deref().map(text).into_iter().collect();
    let bodies: Vec<_> =
        Some(&*incoming.body).filter(|body| !body.is_empty()).map(text).into_iter().collect();
    let mut inner = Vec::new();
    let content = MessageContent {
        subjects: &subjects,
        bodies: &bodies,
        thread: Some(&incoming.thread),
        is_automatic: incoming.is_automatic,
        ..MessageContent::default()
    };
    message_content(&mut inner, &content);
    let kind = if is_chat { MessageKind::Chat } else { MessageKind::Normal };
    let head = Head { from: &from, to: &to, id: Some(id), lang: incoming.lang.as_deref() };
    let mut out = Vec::new();
    message(&mut out, &head, kind, &inner);
    out
}

fn device_of(uri: &UriRef<'_>, hint: Option<&str>) -> Option<Box<str>> {
    // STOX-A-14: some peers write `gr` behind the angle bracket.
    address_of_uri(uri).ok().and_then(|addressee| addressee.device).or_else(|| resource_from(hint?))
}

/// Line feeds as XMPP has them, and no character that XML cannot hold (STOX-M-19).
fn clean(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n").chars().filter(|c| is_xml_char(*c)).collect()
}

/// Expires counts from Date, else from now (STOX-M-20, SIP-M-05).
fn is_expired(request: &Message, now: Now) -> bool {
    let (Some(expires), Some(date)) = (request.expires(), request.date().and_then(seconds_of_sip_date))
    else {
        return request.expires() == Some(0);
    };
    date + u64::from(expires) <= now.unix_seconds()
}

/// `Sat, 13 Nov 2010 23:29:00 GMT` (RFC 3261 §20.17) in seconds since the Unix epoch.
fn seconds_of_sip_date(date: &str) -> Option<u64> {
    let (_, rest) = date.split_once(", ")?;
    let mut parts = rest.split(' ');
    let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    seconds_of(&format!("{year}-{month:02}-{day:0>2}T{time}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stox_m_05_a_message_is_normal_from_the_bare_user() {
        let user = Address::from_prepared("romeo@sip.example").expect("legal");
        let contact = Address::from_prepared("juliet@xmpp.example").expect("legal");
        let incoming = IncomingMessage {
            target: contact.clone(),
            device: None,
            from_device: None,
            body: "Neither, <fair> saint\nif either".into(),
            subject: None,
            lang: None,
            thread: "c1".into(),
            is_automatic: false,
        };
        let text = String::from_utf8(stanza(&incoming, &user, &contact, "7", false)).expect("UTF-8");
        assert_eq!(
            text,
            "<message from='romeo@sip.example' to='juliet@xmpp.example' id='7'>\
             <body>Neither, &lt;fair&gt; saint\nif either</body><thread>c1</thread></message>"
        );
        let chat = String::from_utf8(stanza(&incoming, &user, &contact, "7", true)).expect("UTF-8");
        assert!(chat.contains("type='chat'"));
        let automatic = IncomingMessage { is_automatic: true, ..incoming };
        let text = String::from_utf8(stanza(&automatic, &user, &contact, "7", false)).expect("UTF-8");
        assert!(
            text.ends_with(
                "<headers xmlns='http://jabber.org/protocol/shim'><header name='Auto-Submitted'>auto-generated</header>\
                 </headers></message>"
            ),
            "{text}"
        );
        assert!(!text.contains("type="), "a headline would not wait for an offline contact: {text}");
    }

    #[test]
    fn stox_m_19_line_ends_and_illegal_characters() {
        assert_eq!(clean("a\r\nb\rc\u{0}\u{b}d\u{FFFE}"), "a\nb\ncd");
    }

    #[test]
    fn dates_of_sip_are_read() {
        assert_eq!(seconds_of_sip_date("Sat, 13 Nov 2010 23:29:00 GMT"), Some(1_289_690_940));
        assert_eq!(seconds_of_sip_date("yesterday"), None);
    }
}
