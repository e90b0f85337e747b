//! Which elements have a place on a stream that a peer opened, by their start tags (RFC 6120 §4.9.3.24).
//!
//! A start tag goes in before its content has come; a fault comes out for an element that is refused whatever it holds.
//! Otherwise an element that has no place would swallow the good stanzas behind its start tag.

use super::{InboundStream, State, is_stanza, stanza_fault};
use crate::{
    ns,
    stanza::StanzaHead,
    stream::{StreamFault, wire::Life},
    xml::Reader,
};

impl InboundStream {
    /// Refuses an element that has no place here, at the end of its start tag.
    pub(super) fn admit(&self, xml: &[u8]) -> Result<(), StreamFault> {
        let opened = self.state.opened().ok_or(StreamFault::Header)?;
        let text = std::str::from_utf8(xml).map_err(|_| StreamFault::UnknownElement)?;
        let (tag, _) = Reader::open(text, &opened.scope).ok_or(StreamFault::UnknownElement)?;
        let is_negotiating = matches!(self.state, State::Negotiating(_));
        match (&*tag.ns, tag.name) {
            _ if is_stanza(&tag) => match StanzaHead::of(&tag) {
                Ok(_) if is_negotiating => Err(StreamFault::NotAuthenticated),
                Ok(_) => Ok(()),
                Err(fault) => Err(stanza_fault(fault)),
            },
            (ns::STREAMS, "error") | (ns::DIALBACK, "result" | "verify") | (ns::TLS, "starttls") => Ok(()),
            (ns::SASL, _) if is_negotiating => Ok(()),
            // Behind our end of the stream only stanzas are still handled, and anything else is passed over.
            _ if self.wire.life != Life::Open => Ok(()),
            _ => Err(StreamFault::UnknownElement),
        }
    }
}
