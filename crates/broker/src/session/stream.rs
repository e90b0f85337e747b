//! The outgoing stream of a session: what it was handed, what of that is written, and which messages are not yet taken as
//! received.
//!
//! In: what is handed over and what the edge reports. Out: the fates of messages, and whether anything may be lost with the
//! stream. It sends nothing.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tombolo_edge::StreamId;
use tombolo_interwork::owner::MessageId;

use super::ShardIndex;

/// A message stanza, or an answer for which nobody waits.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) shard: ShardIndex,
    pub(super) message: Option<MessageId>,
    pub(super) bytes: Bytes,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    /// Octets that may still be granted or written.
    pub(super) window: usize,
    pub(super) began_at: Instant,
    /// When stanzas of shards or messages were handed over last.
    pub(super) wrote_at: Instant,
    /// We asked for its end, as nothing was to be said: nothing is handed over any more.
    pub(super) is_closing: bool,
    /// Its peer does not answer: nothing is handed over any more, and what was may be lost.
    pub(super) is_given_up: bool,
    /// The peer answered a ping: what was written before has arrived.
    pub(super) is_answered: bool,
    /// Stanzas came that were not handed over any more.
    pub(super) has_dropped: bool,
    /// Number of the last stanza that was handed over.
    last: u64,
    /// The highest number that was reported as written, and when.
    written: (u64, Instant),
    /// Messages that were handed over and not reported as written.
    unwritten: VecDeque<(u64, Letter)>,
    /// Messages that were written so lately that they may not have arrived.
    unconfirmed: VecDeque<(Instant, ShardIndex, MessageId)>,
}

/// What is left of a stream.
#[derive(Debug)]
pub(super) struct Remains {
    /// Every stanza was written.
    pub(super) is_whole: bool,
    /// Messages that were not written, in order.
    pub(super) unwritten: Vec<Letter>,
    /// Messages that were written and never reported.
    pub(super) unreported: Vec<(ShardIndex, MessageId)>,
    /// Messages that were reported as written, and may not have arrived.
    pub(super) unconfirmed: Vec<(ShardIndex, MessageId)>,
}

impl Stream {
    pub(super) fn new(id: StreamId, window: usize, now: Instant) -> Self {
        Self {
            id,
            window,
            began_at: now,
            wrote_at: now,
            is_closing: false,
            is_given_up: false,
            is_answered: false,
            has_dropped: false,
            last: 0,
            written: (0, now),
            unwritten: VecDeque::new(),
            unconfirmed: VecDeque::new(),
        }
    }

    /// True while something may be handed over.
    pub(super) fn takes(&self) -> bool {
        !self.is_closing && !self.is_given_up
    }

    /// So many stanzas of so many octets are handed over; the number of the last one.
    pub(super) fn hand_over(&mut self, count: u32, len: usize) -> u64 {
        // A stanza may pass the window a little: the report of what was written gives it back.
        self.window = self.window.saturating_sub(len);
        self.last += u64::from(count);
        self.last
    }

    /// A letter was handed over under this number.
    pub(super) fn keep(&mut self, number: u64, letter: Letter) {
        self.unwritten.push_back((number, letter));
    }

    /// Octets were written, up to the stanza with number `last`: the messages among them.
    pub(super) fn handle_written(
        &mut self,
        last: u64,
        bytes: u32,
        now: Instant,
    ) -> Vec<(ShardIndex, MessageId)> {
        self.window += bytes as usize;
        self.written = (last.max(self.written.0), now);
        let written = self.take_written(last);
        for (shard, message) in &written {
            if self.unconfirmed.len() >= MOST_UNCONFIRMED {
                self.unconfirmed.pop_front();
            }
            self.unconfirmed.push_back((now, *shard, *message));
        }
        written
    }

    fn take_written(&mut self, last: u64) -> Vec<(ShardIndex, MessageId)> {
        let mut written = Vec::new();
        while let Some((_, letter)) = self.unwritten.pop_front_if(|(number, _)| *number <= last) {
            written.extend(letter.message.map(|message| (letter.shard, message)));
        }
        written
    }

    /// What was written at `before` or earlier is taken as received.
    pub(super) fn confirm(&mut self, before: Instant) {
        while self.unconfirmed.pop_front_if(|(at, ..)| *at <= before).is_some() {}
    }

    /// True when nothing was handed over or written in the last `span`.
    pub(super) fn is_quiet(&self, span: Duration, now: Instant) -> bool {
        now.duration_since(self.wrote_at.max(self.written.1)) > span
    }

    /// It ended, and this was the last stanza that its edge says it wrote: less than it reported before when the edge itself
    /// is lost.
    pub(super) fn end(mut self, last_written: u64) -> Remains {
        let last_written = last_written.max(self.written.0);
        Remains {
            is_whole: last_written >= self.last && !self.has_dropped,
            unreported: self.take_written(last_written),
            unwritten: self.unwritten.into_iter().map(|(_, letter)| letter).collect(),
            unconfirmed: self.unconfirmed.into_iter().map(|(_, shard, message)| (shard, message)).collect(),
        }
    }
}

/// Messages whose arrival is watched at one time; the oldest are taken as received when there are more.
const MOST_UNCONFIRMED: usize = 4096;
