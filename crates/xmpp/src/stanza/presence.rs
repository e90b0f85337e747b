//! `<presence/>` (RFC 6121 §4.7), with the time of last use (XEP-0319).

use std::borrow::Cow;

use smallvec::SmallVec;

use super::{LangText, StanzaError, StanzaFault, StanzaHead, StanzaKind};
use crate::ns;

/// What a presence stanza is for (RFC 6121 §4.7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PresenceKind {
    /// No type: the sender is available.
    Available,
    /// The sender is no longer available.
    Unavailable,
    /// Asks to see the receiver's presence.
    Subscribe,
    /// Grants that.
    Subscribed,
    /// Gives it up.
    Unsubscribe,
    /// Refuses it, or takes it back.
    Unsubscribed,
    /// Asks a server for current presence.
    Probe,
    /// An earlier stanza failed.
    Error,
}

impl PresenceKind {
    /// The value of `type`; `None` for available.
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Available => None,
            Self::Unavailable => Some("unavailable"),
            Self::Subscribe => Some("subscribe"),
            Self::Subscribed => Some("subscribed"),
            Self::Unsubscribe => Some("unsubscribe"),
            Self::Unsubscribed => Some("unsubscribed"),
            Self::Probe => Some("probe"),
            Self::Error => Some("error"),
        }
    }

    /// The kind that the value of `type` says; `None` when it is unknown.
    pub fn from_type(value: Option<&str>) -> Option<Self> {
        Some(match value {
            None => Self::Available,
            Some("unavailable") => Self::Unavailable,
            Some("subscribe") => Self::Subscribe,
            Some("subscribed") => Self::Subscribed,
            Some("unsubscribe") => Self::Unsubscribe,
            Some("unsubscribed") => Self::Unsubscribed,
            Some("probe") => Self::Probe,
            Some("error") => Self::Error,
            Some(_) => return None,
        })
    }
}

/// The value of `<show/>` (RFC 6121 §4.7.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Show {
    /// Temporarily away.
    Away,
    /// Wants to chat.
    Chat,
    /// Do not disturb.
    Dnd,
    /// Away for long.
    Xa,
}

impl Show {
    /// Its value in XML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Chat => "chat",
            Self::Dnd => "dnd",
            Self::Xa => "xa",
        }
    }

    /// The value with this text; `None` when it is unknown.
    pub fn from_text(text: &str) -> Option<Self> {
        match text.trim() {
            "away" => Some(Self::Away),
            "chat" => Some(Self::Chat),
            "dnd" => Some(Self::Dnd),
            "xa" => Some(Self::Xa),
            _ => None,
        }
    }
}

/// What a presence stanza says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceStanza<'a> {
    /// Its start tag.
    pub head: StanzaHead<'a>,
    /// What it is for.
    pub kind: PresenceKind,
    /// How available; `None` without `<show/>` or when its value is unknown (RFC 6121 §4.7.2.1).
    pub show: Option<Show>,
    /// Status texts in order.
    pub statuses: SmallVec<[LangText<'a>; 1]>,
    /// Priority; `None` when there is no element, 0 when none can be read as one.
    pub priority: Option<i8>,
    /// Since when the device was not used (XEP-0319): a date and time as written (XEP-0082).
    pub idle_since: Option<Cow<'a, str>>,
    /// When the stanza was first sent (XEP-0203): a date and time as written (XEP-0082).
    pub delay_stamp: Option<Cow<'a, str>>,
    /// Why, when the kind is [`PresenceKind::Error`].
    pub error: Option<StanzaError<'a>>,
}

impl<'a> PresenceStanza<'a> {
    /// Reads a whole stanza.
    pub fn read(xml: &'a [u8]) -> Result<Self, StanzaFault> {
        let (head, mut reader) = StanzaHead::open(xml)?;
        if head.kind != StanzaKind::Presence {
            return Err(StanzaFault::OtherElement);
        }
        let kind = PresenceKind::from_type(head.type_attribute.as_deref()).ok_or(StanzaFault::Type)?;
        let mut stanza = Self {
            head,
            kind,
            show: None,
            statuses: SmallVec::new(),
            priority: None,
            idle_since: None,
            delay_stamp: None,
            error: None,
        };
        let mut priority: Option<Option<i8>> = None;
        while let Some(child) = reader.child() {
            match (&*child.ns, child.name) {
                (ns::SERVER, "show") => {
                    let show = Show::from_text(&reader.text());
                    stanza.show = stanza.show.or(show);
                }
                (ns::SERVER, "status") => {
                    stanza.statuses.push(LangText { lang: child.lang(), text: reader.text() });
                }
                (ns::SERVER, "priority") => {
                    let value = reader.text().trim().parse().ok();
                    priority = Some(priority.flatten().or(value));
                }
                (ns::SERVER, "error") => stanza.error = Some(StanzaError::read(&child, &mut reader)),
                (ns::IDLE, "idle") => {
                    stanza.idle_since = child.attribute("since");
                    reader.skip();
                }
                (ns::DELAY, "delay") => {
                    stanza.delay_stamp = child.attribute("stamp");
                    reader.skip();
                }
                _ => reader.skip(),
            }
        }
        stanza.priority = priority.map(|value| value.unwrap_or(0));
        Ok(stanza)
    }
}
