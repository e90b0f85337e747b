//! How large what we write may be: a stanza as the partner takes it, a SIP message as our own limit has it.
//!
//! Sizes are those of the written text, escapes counted. State is cut to fit, a message is refused to its sender with both
//! sizes, and an answer for which nobody waits is left out.

use tombolo_presence::Domain;

use super::{LaneKey, Owner, input::SipRequest, output::OwnerEvent};
use crate::sip_reply::Reply;

impl Owner {
    /// The partner of a session says what it takes, or nothing.
    pub(super) fn handle_lane_limit(&mut self, key: &LaneKey, bytes: Option<u32>) {
        if let Some(&lane) = self.lanes.ids.get(key) {
            self.lanes.lane_mut(lane).max_stanza_bytes = bytes;
        } else if bytes.is_some() {
            let lane = self.lanes.find_or_add(key, &mut self.shard);
            self.lanes.lane_mut(lane).max_stanza_bytes = bytes;
        }
    }

    /// The largest stanza that may go by a session's lane: what the partner announced, else what its entry says.
    pub(super) fn max_stanza_bytes(&self, key: &LaneKey) -> usize {
        let announced = self.lanes.ids.get(key).and_then(|lane| self.lanes.lane(*lane).max_stanza_bytes);
        let LaneKey::Session { remote, .. } = key else { return usize::MAX };
        let of_entry = || self.max_stanza_bytes_of(remote);
        // Less than this every server takes (RFC 6120 §13.12).
        announced.map_or_else(of_entry, |bytes| (bytes as usize).max(LEAST_STANZA_BYTES))
    }

    fn max_stanza_bytes_of(&self, remote: &Domain) -> usize {
        let partner = self.policy.partner(remote.as_str());
        partner.map_or(tombolo_policy::Limits::default().accepted_stanza_bytes, |partner| {
            partner.limits.accepted_stanza_bytes
        })
    }

    /// A MESSAGE is larger as a stanza than the partner takes.
    pub(super) fn refuse_too_large(&mut self, request: &SipRequest, len: usize, limit: usize) {
        let text = format!("399 tombolo \"{len} octets as a stanza, the partner takes {limit}\"");
        let headers = [("Warning", text)];
        let answer = Reply { headers: &headers, ..Reply::status(513) };
        self.answer(request, answer, "the message is larger than the partner takes");
    }

    /// A MESSAGE from one phone to another is larger, as we would write it, than any SIP message may be: its body was
    /// packed.
    pub(super) fn refuse_too_large_for_sip(&mut self, request: &SipRequest, len: usize, limit: usize) {
        let text = format!("399 tombolo \"{len} octets as a SIP request, the limit is {limit}\"");
        let headers = [("Warning", text)];
        let answer = Reply { headers: &headers, ..Reply::status(513) };
        self.answer(request, answer, "the message is larger than sip.limits.message_bytes");
    }

    /// True, and counted, when an answer is larger than the partner takes: it is left out.
    pub(super) fn is_too_large(&mut self, key: &LaneKey, len: usize) -> bool {
        let is_over = len > self.max_stanza_bytes(key);
        if is_over {
            self.event(OwnerEvent::StanzaRefused { reason: "an answer is larger than the partner takes" });
        }
        is_over
    }
}

/// What any server must take (RFC 6120 §13.12).
const LEAST_STANZA_BYTES: usize = 10_000;
