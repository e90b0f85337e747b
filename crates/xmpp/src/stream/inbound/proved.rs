//! Stanzas on a stream that a peer opened: whether the pair of their addresses is proved.
//!
//! In: a whole stanza and its addresses. Out: the event, or which side is at fault. It looks no further into the stanza.

use bytes::Bytes;

use super::Proved;
use crate::{
    jid::{Domain, Jid},
    stanza::StanzaHead,
    stream::{ReceivedStanza, StreamEvent, StreamFault},
};

impl Proved {
    /// Checks the addresses of a stanza against the pairs that are proved (RFC 6120 §8.1.1.2, §8.1.2.2).
    pub(super) fn handle_stanza(
        &mut self,
        head: &StanzaHead<'_>,
        xml: Bytes,
    ) -> Result<StreamEvent, StreamFault> {
        let (Some(from), Some(to_text)) = (head.from.as_deref(), head.to.as_deref()) else {
            return Err(StreamFault::Addressing);
        };
        let from = Jid::parse(from).map_err(|_| StreamFault::Addressing)?;
        let to = Jid::parse(to_text);
        let rescued;
        let local = match &to {
            Ok(to) => to.domain(),
            Err(_) => {
                rescued = Domain::of_address(to_text).map_err(|_| StreamFault::Addressing)?;
                rescued.as_str()
            }
        };
        let Some(pair) = self.pairs.find(local, from.domain()) else {
            return Err(self.unproved(from.domain(), local));
        };
        Ok(match to {
            Ok(to) => StreamEvent::Stanza(ReceivedStanza { kind: head.kind, from, to, xml }),
            Err(_) => StreamEvent::MalformedTo { from, pair: pair.clone(), xml },
        })
    }

    /// Which side of the pair is at fault.
    fn unproved(&self, remote: &str, local: &str) -> StreamFault {
        let is_remote_proved = self.pairs.has_remote(remote);
        match Domain::parse(if is_remote_proved { local } else { remote }) {
            Ok(domain) if is_remote_proved => StreamFault::UnprovedTo { domain },
            Ok(claimed) => StreamFault::UnprovedFrom { claimed },
            Err(_) => StreamFault::Addressing,
        }
    }
}
