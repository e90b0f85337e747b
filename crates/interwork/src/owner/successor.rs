//! What a shard hands to its successor when its machine panicked, and who is still owed an answer by it.
//!
//! The successor is loaded from the store like a shard after a restart ([`Owner::load`]), while the rest of the process
//! lives on: answers to requests of the dead machine still arrive, dialogs that it opened are still alive. So it goes on
//! counting where the dead one stopped, and no stale answer can match a new request.

use bytes::Bytes;
use tombolo_presence::Now;

use super::{LaneKey, Owner, SipRequest};
use crate::error::Undelivered;

/// The numbers that a shard has given out. Plain integers, so they can be read from a machine that panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    token: u64,
    row: u32,
    request: u64,
    message: u64,
}

/// What a dead shard was asked and had not answered.
#[derive(Debug, Default)]
pub struct Unanswered {
    /// SIP requests whose transactions wait for a response.
    pub requests: Vec<SipRequest>,
    /// Messages of contacts on their way to a phone or front end: whether they arrived is not known.
    pub stanzas: Vec<Bytes>,
}

impl Owner {
    /// The numbers given out so far.
    pub fn numbers(&self) -> Numbers {
        Numbers {
            token: self.next_token,
            row: self.next_row,
            request: self.next_request,
            message: self.mail.last_number(),
        }
    }

    /// Goes on counting where a dead shard of this process stopped. Call it before [`Owner::load`].
    ///
    /// Sequence numbers of loaded dialogs are raised once more than after a restart: the dead shard used the first raise.
    pub fn continue_from(&mut self, numbers: Numbers) {
        let Numbers { token, row, request, message } = numbers;
        self.next_token = token;
        // The panic may have come between a row's number and its counting.
        self.next_row = row.saturating_add(1);
        self.next_request = request;
        self.mail.count_from(message);
        self.is_successor = true;
    }

    /// Takes out what was asked and not answered. Only for a machine that panicked; it may panic again.
    pub fn take_unanswered(&mut self) -> Unanswered {
        let mut unanswered = Unanswered::default();
        self.mail.take_unanswered(&mut unanswered);
        for (_, proposal) in self.proposals.drain() {
            unanswered.requests.extend(proposal.into_requests());
        }
        unanswered
    }

    /// The session under a lane was rebuilt: it has forgotten the shard's request for credit, what it was handed, and the
    /// fate of every message.
    pub(super) fn handle_lane_reset(&mut self, key: &LaneKey, now: Now) {
        self.handle_lane_lost(key, false);
        if let Some(&lane) = self.lanes.ids.get(key) {
            self.shard.ask_again(lane);
        }
        for message in self.mail.messages_on(key) {
            self.handle_message_fate(message, Err(Undelivered::Uncertain), now);
        }
    }
}
