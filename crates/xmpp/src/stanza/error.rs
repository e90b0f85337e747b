//! The `<error/>` in a stanza of type `error` (RFC 6120 §8.3).

use std::borrow::Cow;

use super::{ErrorType, StanzaCondition};
use crate::{
    ns,
    xml::{Reader, Tag},
};

/// Why a stanza came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StanzaError<'a> {
    /// Its defined condition; `UndefinedCondition` when it holds none that is known.
    pub condition: StanzaCondition,
    /// Its type; `None` when it has none that is known.
    pub error_type: Option<ErrorType>,
    /// A text for people.
    pub text: Option<Cow<'a, str>>,
    /// The other address that `gone` or `redirect` names, as written (mostly an `xmpp:` URI).
    pub new_address: Option<Cow<'a, str>>,
}

impl<'a> StanzaError<'a> {
    /// Reads the element `tag`, into which `reader` has just stepped, up to its end.
    pub fn read(tag: &Tag<'a>, reader: &mut Reader<'a>) -> Self {
        let error_type = tag.attribute("type").and_then(|name| ErrorType::from_name(&name));
        let mut condition = None;
        let mut text = None;
        let mut new_address = None;
        while let Some(child) = reader.child() {
            if child.ns != ns::STANZA_ERRORS {
                reader.skip();
            } else if child.name == "text" {
                let content = reader.text();
                text.get_or_insert(content);
            } else {
                let known = StanzaCondition::from_name(child.name);
                let content = reader.text();
                if condition.is_none()
                    && matches!(known, Some(StanzaCondition::Gone | StanzaCondition::Redirect))
                    && !content.trim().is_empty()
                {
                    new_address = Some(content);
                }
                condition = condition.or(known);
            }
        }
        Self {
            condition: condition.unwrap_or(StanzaCondition::UndefinedCondition),
            error_type,
            text,
            new_address,
        }
    }
}
