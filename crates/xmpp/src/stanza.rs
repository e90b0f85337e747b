//! Stanzas between servers (RFC 6120 §8, RFC 6121 §4 and §5), read without a tree.
//!
//! The bytes of one whole stanza, as a stream delivered them, go in; borrowed values come out. [`StanzaHead`] reads the
//! start tag only; the typed readers read what a presence or messaging server needs and pass over the rest.

mod condition;
mod error;
mod head;
mod iq;
mod message;
mod presence;

use std::borrow::Cow;

pub use condition::{ErrorType, StanzaCondition};
pub use error::StanzaError;
pub use head::{StanzaFault, StanzaHead, StanzaKind};
pub use iq::{IqKind, IqStanza, Payload};
pub(crate) use message::AUTO_SUBMITTED;
pub use message::{ChatState, MessageKind, MessageStanza};
pub use presence::{PresenceKind, PresenceStanza, Show};

/// A text for people, in one language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LangText<'a> {
    /// Language tag of the text itself; `None` when it has the language of its stanza.
    pub lang: Option<Cow<'a, str>>,
    /// The text.
    pub text: Cow<'a, str>,
}
