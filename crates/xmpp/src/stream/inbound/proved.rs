//! Stanzas on a stream that a peer opened: whether the pair of their addresses is proved.
//!
//! In: a whole stanza and its addresses. Out: the event, or why the stream must end. It looks no further into the stanza.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Proved;
use crate::{
    jid::{Domain, Jid},
    stanza::StanzaHead,
    stream::{ReceivedStanza, StreamEvent, StreamFault},
};

/// Malformed addresses of one stream in the present minute.
#[derive(Debug, Default)]
pub(super) struct MalformedAddresses {
    since: Option<Instant>,
    count: u32,
}

impl MalformedAddresses {
    /// Counts one more; gives how many the present minute has.
    fn count(&mut self, now: Instant) -> u32 {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= MINUTE) {
            *self = Self { since: Some(now), count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count
    }
}

const MINUTE: Duration = Duration::from_secs(60);

impl Proved {
    /// Checks the addresses of a stanza against the pairs that are proved (RFC 6120 §8.1.1.2, §8.1.2.2).
    ///
    /// A malformed address costs its stanza and not the stream, on which others send too, up to `most_malformed` a minute.
    pub(super) fn handle_stanza(
        &mut self,
        head: &StanzaHead<'_>,
        xml: Bytes,
        most_malformed: u32,
        now: Instant,
    ) -> Result<StreamEvent, StreamFault> {
        let (Some(from_text), Some(to_text)) = (head.from.as_deref(), head.to.as_deref()) else {
            return Err(StreamFault::Addressing);
        };
        match (Jid::parse(from_text), Jid::parse(to_text)) {
            (Ok(from), Ok(to)) => {
                if self.pairs.find(to.domain(), from.domain()).is_none() {
                    return Err(self.unproved(from.domain(), to.domain()));
                }
                Ok(StreamEvent::Stanza(ReceivedStanza { kind: head.kind, from, to, xml }))
            }
            _ => {
                self.check_domains_of_malformed(from_text, to_text)?;
                let count = self.malformed.count(now);
                if count > most_malformed {
                    return Err(StreamFault::MalformedAddresses { limit: most_malformed });
                }
                Ok(StreamEvent::MalformedAddress { xml, is_first: count == 1 })
            }
        }
    }

    /// What can be read of the domains must be proved: a malformed local part is no way around that.
    fn check_domains_of_malformed(&mut self, from: &str, to: &str) -> Result<(), StreamFault> {
        match (Domain::of_address(from), Domain::of_address(to)) {
            (Ok(remote), Ok(local)) if self.pairs.find(local.as_str(), remote.as_str()).is_none() => {
                Err(self.unproved(remote.as_str(), local.as_str()))
            }
            (Ok(claimed), Err(_)) if !self.pairs.has_remote(claimed.as_str()) => {
                Err(StreamFault::UnprovedFrom { claimed })
            }
            (Err(_), Ok(domain)) if !self.pairs.has_local(domain.as_str()) => {
                Err(StreamFault::UnprovedTo { domain })
            }
            _ => Ok(()),
        }
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
