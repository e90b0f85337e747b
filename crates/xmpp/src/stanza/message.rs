//! `<message/>` (RFC 6121 §5), with receipts (XEP-0184) and chat states (XEP-0085).

use std::borrow::Cow;

use smallvec::SmallVec;

use super::{LangText, StanzaError, StanzaFault, StanzaHead, StanzaKind};
use crate::{ns, xml::Reader};

/// The context of a message (RFC 6121 §5.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MessageKind {
    /// On its own; also every type that is unknown.
    #[default]
    Normal,
    /// Part of a conversation of two.
    Chat,
    /// Of a conversation of many.
    Groupchat,
    /// A notice that expects no answer.
    Headline,
    /// An earlier message failed.
    Error,
}

impl MessageKind {
    /// The value of `type`; `None` for normal, which is the default.
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Normal => None,
            Self::Chat => Some("chat"),
            Self::Groupchat => Some("groupchat"),
            Self::Headline => Some("headline"),
            Self::Error => Some("error"),
        }
    }

    fn from_type(value: Option<&str>) -> Self {
        match value {
            Some("chat") => Self::Chat,
            Some("groupchat") => Self::Groupchat,
            Some("headline") => Self::Headline,
            Some("error") => Self::Error,
            _ => Self::Normal,
        }
    }
}

/// What the other side of a conversation does (XEP-0085 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChatState {
    /// Takes part.
    Active,
    /// Writes.
    Composing,
    /// Wrote and stopped.
    Paused,
    /// Has not looked for a while.
    Inactive,
    /// Left.
    Gone,
}

impl ChatState {
    /// The name of its element.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Composing => "composing",
            Self::Paused => "paused",
            Self::Inactive => "inactive",
            Self::Gone => "gone",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Active, Self::Composing, Self::Paused, Self::Inactive, Self::Gone]
            .into_iter()
            .find(|state| state.as_str() == name)
    }
}

/// What a message stanza says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageStanza<'a> {
    /// Its start tag.
    pub head: StanzaHead<'a>,
    /// Its context.
    pub kind: MessageKind,
    /// Texts of the message, one per language.
    pub bodies: SmallVec<[LangText<'a>; 1]>,
    /// Subjects, one per language.
    pub subjects: SmallVec<[LangText<'a>; 1]>,
    /// The conversation that it belongs to.
    pub thread: Option<Cow<'a, str>>,
    /// What its sender does.
    pub chat_state: Option<ChatState>,
    /// True when the sender wants a receipt.
    pub wants_receipt: bool,
    /// The id of the message whose receipt this is; empty when it names none.
    pub receipt_for: Option<Cow<'a, str>>,
    /// A program sent it by itself, by its header `Auto-Submitted` (XEP-0131, RFC 3834 §5), or no reply is expected
    /// ([`MessageKind::Headline`]): a program must not answer it.
    pub is_automatic: bool,
    /// When the stanza was first sent (XEP-0203): a date and time as written (XEP-0082).
    pub delay_stamp: Option<Cow<'a, str>>,
    /// Why, when the kind is [`MessageKind::Error`].
    pub error: Option<StanzaError<'a>>,
}

impl<'a> MessageStanza<'a> {
    /// Reads a whole stanza.
    pub fn read(xml: &'a [u8]) -> Result<Self, StanzaFault> {
        let (head, mut reader) = StanzaHead::open(xml)?;
        if head.kind != StanzaKind::Message {
            return Err(StanzaFault::OtherElement);
        }
        let kind = MessageKind::from_type(head.type_attribute.as_deref());
        let mut stanza = Self {
            head,
            kind,
            bodies: SmallVec::new(),
            subjects: SmallVec::new(),
            thread: None,
            chat_state: None,
            wants_receipt: false,
            receipt_for: None,
            is_automatic: kind == MessageKind::Headline,
            delay_stamp: None,
            error: None,
        };
        while let Some(child) = reader.child() {
            match (&*child.ns, child.name) {
                (ns::SERVER, "body") => {
                    stanza.bodies.push(LangText { lang: child.lang(), text: reader.text() });
                }
                (ns::SERVER, "subject") => {
                    stanza.subjects.push(LangText { lang: child.lang(), text: reader.text() });
                }
                (ns::SERVER, "thread") => {
                    let thread = reader.text();
                    stanza.thread.get_or_insert(thread);
                }
                (ns::SERVER, "error") => stanza.error = Some(StanzaError::read(&child, &mut reader)),
                (ns::CHAT_STATES, name) => {
                    stanza.chat_state = ChatState::from_name(name).or(stanza.chat_state);
                    reader.skip();
                }
                (ns::RECEIPTS, "request") => {
                    stanza.wants_receipt = true;
                    reader.skip();
                }
                (ns::RECEIPTS, "received") => {
                    stanza.receipt_for = Some(child.attribute("id").unwrap_or_default());
                    reader.skip();
                }
                (ns::SHIM, "headers") => stanza.is_automatic |= is_automatic(&mut reader),
                (ns::DELAY, "delay") => {
                    stanza.delay_stamp = child.attribute("stamp");
                    reader.skip();
                }
                _ => reader.skip(),
            }
        }
        Ok(stanza)
    }
}

/// Reads headers of XEP-0131, up to their end: whether `Auto-Submitted` is among them and says more than `no`.
fn is_automatic(reader: &mut Reader<'_>) -> bool {
    let mut is_automatic = false;
    while let Some(child) = reader.child() {
        let is_it = child.is(ns::SHIM, "header")
            && child.attribute("name").is_some_and(|name| name.eq_ignore_ascii_case(AUTO_SUBMITTED));
        let value = reader.text();
        let word = value.split(';').next().unwrap_or_default().trim();
        is_automatic |= is_it && !word.eq_ignore_ascii_case("no");
    }
    is_automatic
}

/// The header that marks what a program sent by itself (RFC 3834 §5).
pub(crate) const AUTO_SUBMITTED: &str = "Auto-Submitted";
