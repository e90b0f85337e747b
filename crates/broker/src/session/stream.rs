//! The outgoing stream of a session: what it was handed, what of that is written, and what of that has arrived.
//!
//! In: what is handed over, what the edge reports as written, and up to which stanza the partner has read. Out: the fates
//! of messages, and whether anything may be lost with the stream. It sends nothing.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;
use tombolo_edge::StreamId;
use tombolo_interwork::owner::MessageId;

use super::{ShardIndex, flight::Flight};

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
    /// Octets that may still be granted or handed to the edge, which has not written the others yet.
    pub(super) window: usize,
    /// What the partner has not read yet.
    pub(super) flight: Flight,
    pub(super) began_at: Instant,
    /// When stanzas of shards or messages were handed over last; answers do not count.
    pub(super) wrote_at: Instant,
    /// We asked for its end, as nothing was to be said: nothing is handed over any more.
    pub(super) is_closing: bool,
    /// Its peer does not answer: nothing is handed over any more, and what was may be lost.
    pub(super) is_given_up: bool,
    /// Stanzas came that were not handed over any more.
    pub(super) has_dropped: bool,
    /// Number of the last stanza that was handed over.
    last: u64,
    /// The highest number that was reported as written.
    written: u64,
    /// The highest number that the partner is known to have read.
    confirmed: u64,
    /// Number of the last stanza of a shard, and when it was reported as written.
    lane: (u64, Option<Instant>),
    /// Messages that were handed over and not reported as written.
    unwritten: VecDeque<(u64, Letter)>,
    /// Messages that were written and may not have arrived: number, time of the report, and whose it is.
    unconfirmed: VecDeque<(u64, Instant, ShardIndex, MessageId)>,
}

/// What is left of a stream.
#[derive(Debug)]
pub(super) struct Remains {
    /// Every stanza of a shard was written.
    pub(super) is_whole: bool,
    /// Every stanza of a shard has arrived.
    pub(super) is_confirmed: bool,
    /// Messages that were not written, in order.
    pub(super) unwritten: Vec<Letter>,
    /// Messages that have arrived and were never reported as written.
    pub(super) arrived: Vec<(ShardIndex, MessageId)>,
    /// Messages that were written, and may not have arrived: first those that were reported as written.
    pub(super) unconfirmed: Vec<(ShardIndex, MessageId)>,
    /// How many of these were reported as written.
    pub(super) reported: usize,
}

impl Stream {
    pub(super) fn new(id: StreamId, window: usize, now: Instant) -> Self {
        Self {
            id,
            window,
            flight: Flight::new(now),
            began_at: now,
            wrote_at: now,
            is_closing: false,
            is_given_up: false,
            has_dropped: false,
            last: 0,
            written: 0,
            confirmed: 0,
            lane: (0, Some(now)),
            unwritten: VecDeque::new(),
            unconfirmed: VecDeque::new(),
        }
    }

    /// True while something may be handed over.
    pub(super) fn takes(&self) -> bool {
        !self.is_closing && !self.is_given_up
    }

    /// True while the account of messages whose arrival is not known has room.
    pub(super) fn has_account(&self) -> bool {
        self.unconfirmed.len() < MAX_UNCONFIRMED
    }

    /// Number of the last stanza that was handed over.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// So many stanzas of so many octets are handed over; the number of the last one.
    pub(super) fn hand_over(&mut self, count: u32, len: usize, now: Instant) -> u64 {
        self.flight.hand_over(len, now);
        // A stanza may pass the window a little: the report of what was written gives it back.
        self.window = self.window.saturating_sub(len);
        self.last += u64::from(count);
        self.last
    }

    /// [`Stream::hand_over`] for stanzas of a shard.
    pub(super) fn hand_over_lane(&mut self, count: u32, len: usize, now: Instant) {
        self.lane = (self.hand_over(count, len, now), None);
        self.wrote_at = now;
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
        self.written = last.max(self.written);
        if self.written >= self.lane.0 {
            self.lane.1.get_or_insert(now);
        }
        let written = self.take_written(last);
        let unconfirmed = written.iter().filter(|(number, ..)| *number > self.confirmed);
        self.unconfirmed.extend(unconfirmed.map(|(number, shard, message)| (*number, now, *shard, *message)));
        written.into_iter().map(|(_, shard, message)| (shard, message)).collect()
    }

    fn take_written(&mut self, last: u64) -> Vec<(u64, ShardIndex, MessageId)> {
        let mut written = Vec::new();
        while let Some((number, letter)) = self.unwritten.pop_front_if(|(number, _)| *number <= last) {
            written.extend(letter.message.map(|message| (number, letter.shard, message)));
        }
        written
    }

    /// The partner has read everything up to this number.
    pub(super) fn confirm(&mut self, up_to: u64) {
        self.confirmed = up_to.max(self.confirmed);
        while self.unconfirmed.pop_front_if(|(number, ..)| *number <= up_to).is_some() {}
    }

    /// What was reported as written at `before` or earlier is taken as received, for a partner that confirms nothing. So
    /// are the oldest messages when there are too many.
    pub(super) fn confirm_older(&mut self, before: Instant) {
        let excess = self.unconfirmed.len().saturating_sub(MAX_UNCONFIRMED);
        self.unconfirmed.drain(..excess);
        while self.unconfirmed.pop_front_if(|(_, at, ..)| *at <= before).is_some() {}
        if self.lane.1.is_some_and(|at| at <= before) {
            self.confirmed = self.confirmed.max(self.lane.0);
        }
    }

    /// It ended, and this was the last stanza that its edge says it wrote: less than it reported before when the edge itself
    /// is lost.
    pub(super) fn end(mut self, last_written: u64) -> Remains {
        let last_written = last_written.max(self.written);
        let confirmed = self.confirmed;
        let unreported = self.take_written(last_written);
        let (arrived, lately): (Vec<_>, Vec<_>) =
            unreported.into_iter().partition(|(number, ..)| *number <= confirmed);
        let reported = self.unconfirmed.len();
        let unconfirmed = self.unconfirmed.into_iter().map(|(_, _, shard, message)| (shard, message));
        Remains {
            is_whole: last_written >= self.lane.0 && !self.has_dropped,
            is_confirmed: self.confirmed >= self.lane.0,
            arrived: arrived.into_iter().map(|(_, shard, message)| (shard, message)).collect(),
            unwritten: self.unwritten.into_iter().map(|(_, letter)| letter).collect(),
            unconfirmed: unconfirmed
                .chain(lately.into_iter().map(|(_, shard, message)| (shard, message)))
                .collect(),
            reported,
        }
    }
}

/// Messages of one stream whose arrival is not known.
const MAX_UNCONFIRMED: usize = 4096;
