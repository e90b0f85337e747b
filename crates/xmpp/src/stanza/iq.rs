//! `<iq/>`: questions and their answers (RFC 6120 §8.2.3).

use std::borrow::Cow;

use super::{StanzaError, StanzaFault, StanzaHead, StanzaKind};
use crate::ns;

/// The four types of an iq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IqKind {
    /// Asks.
    Get,
    /// Orders.
    Set,
    /// Answers.
    Result,
    /// Refuses.
    Error,
}

impl IqKind {
    /// The value of `type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
            Self::Result => "result",
            Self::Error => "error",
        }
    }

    /// True for a get or a set, which must be answered.
    pub fn is_request(self) -> bool {
        matches!(self, Self::Get | Self::Set)
    }
}

/// What an iq asks or answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload<'a> {
    /// Namespace of the element.
    pub ns: Cow<'a, str>,
    /// Its name.
    pub name: &'a str,
    /// The whole element as written.
    pub xml: &'a str,
}

/// What an iq says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IqStanza<'a> {
    /// Its start tag; the id is there.
    pub head: StanzaHead<'a>,
    /// Its type.
    pub kind: IqKind,
    /// Its content: always there in a request, may be missing in an answer.
    pub payload: Option<Payload<'a>>,
    /// Why, when the kind is [`IqKind::Error`].
    pub error: Option<StanzaError<'a>>,
}

impl<'a> IqStanza<'a> {
    /// Reads a whole stanza.
    pub fn read(xml: &'a [u8]) -> Result<Self, StanzaFault> {
        let (head, mut reader) = StanzaHead::open(xml)?;
        if head.kind != StanzaKind::Iq {
            return Err(StanzaFault::OtherElement);
        }
        let kind = match head.type_attribute.as_deref() {
            Some("get") => IqKind::Get,
            Some("set") => IqKind::Set,
            Some("result") => IqKind::Result,
            Some("error") => IqKind::Error,
            _ => return Err(StanzaFault::Type),
        };
        if head.id.is_none() {
            return Err(StanzaFault::Iq);
        }
        let mut payload = None;
        let mut error = None;
        let mut children = 0_u32;
        while let Some(child) = reader.child() {
            children = children.saturating_add(1);
            if kind == IqKind::Error && child.is(ns::SERVER, "error") {
                error = Some(StanzaError::read(&child, &mut reader));
            } else if payload.is_none() {
                payload = Some(Payload { xml: reader.whole(&child), name: child.name, ns: child.ns });
            } else {
                reader.skip();
            }
        }
        if kind.is_request() && children != 1 {
            return Err(StanzaFault::Iq);
        }
        Ok(Self { head, kind, payload, error })
    }
}
