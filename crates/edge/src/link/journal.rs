//! What one end of a link sent and the other has not acknowledged, so that a link goes on where its connection broke.
//!
//! In: frames to send, acknowledgements, and how many frames came. Out: octets to write. Frames are numbered by their
//! order alone, from 1, in each direction; greetings, acknowledgements and beats do not count. After a break each end says
//! how many it has, and the other writes again what is missing: every frame is taken once, in order.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::frame::LinkFrame;
use crate::STREAM_WINDOW_BYTES;

/// One end's account of a link. It outlives connections.
#[derive(Debug, Default)]
pub(super) struct Journal {
    state: Mutex<State>,
    changed: Notify,
    is_over: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Frames that the other end has not acknowledged, oldest first.
    frames: VecDeque<Bytes>,
    /// Octets of them.
    bytes: usize,
    /// How many of them are written to the connection that is up.
    written: usize,
    /// How many frames before them were acknowledged.
    acknowledged: u64,
    /// Frames of the other end that were taken.
    received: u64,
    /// What the other end was told of that.
    told: u64,
}

impl Journal {
    /// Hands over a frame. Without room for it the link is over, for the other end takes next to nothing; a frame that the
    /// other end would not take is left out.
    pub(super) fn push(&self, frame: &LinkFrame) {
        let bytes = match frame.encode() {
            Ok(bytes) => bytes,
            Err(error) => return tracing::error!(%error, "a frame is left out of the link"),
        };
        {
            let mut state = self.state.lock();
            if state.bytes + bytes.len() > LIMIT_BYTES {
                self.is_over.store(true, Ordering::Release);
            } else {
                state.bytes += bytes.len();
                state.frames.push_back(bytes);
            }
        }
        self.changed.notify_one();
    }

    /// True when more was to be sent than an end may owe: nothing goes on from here.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Octets that the other end has not acknowledged.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// Frames that the other end has not acknowledged, and octets of them.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.frames.len(), state.bytes)
    }

    /// Frames of the other end that were taken.
    pub(super) fn received(&self) -> u64 {
        self.state.lock().received
    }

    /// Takes the next frame of the other end, which is told soon.
    pub(super) fn note_received(&self) {
        self.state.lock().received += 1;
        self.changed.notify_one();
    }

    /// The other end has taken so many frames; `false` when there never were so many.
    pub(super) fn handle_ack(&self, received: u64) -> bool {
        let mut state = self.state.lock();
        let sent = state.acknowledged + state.written as u64;
        if received > sent {
            return false;
        }
        while state.acknowledged < received
            && let Some(frame) = state.frames.pop_front()
        {
            state.bytes -= frame.len();
            state.acknowledged += 1;
            state.written = state.written.saturating_sub(1);
        }
        true
    }

    /// A new connection to the same other end, which has so many frames: what it lacks is written again. `false` when it
    /// is not the end that this journal is about.
    pub(super) fn resume(&self, received: u64) -> bool {
        {
            let mut state = self.state.lock();
            // What the old connection never wrote whole may have arrived or not.
            state.written = state.frames.len();
            state.told = state.received;
        }
        let is_known = self.state.lock().acknowledged <= received && self.handle_ack(received);
        self.state.lock().written = 0;
        self.changed.notify_one();
        is_known
    }

    /// What the other end has not acknowledged, and perhaps has not taken.
    pub(super) fn unacknowledged(&self) -> Vec<LinkFrame> {
        let state = self.state.lock();
        let read = |bytes: &Bytes| LinkFrame::decode(&mut BytesMut::from(&bytes[..])).ok().flatten();
        state.frames.iter().filter_map(read).collect()
    }

    /// What is to be written next; waits for it. `None` when the link is over.
    pub(super) async fn take(&self) -> Option<Bytes> {
        loop {
            let changed = self.changed.notified();
            if self.is_over() {
                return None;
            }
            if let Some(bytes) = self.state.lock().take() {
                return Some(bytes);
            }
            changed.await;
        }
    }
}

impl State {
    fn take(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        if self.received > self.told {
            self.told = self.received;
            let ack =
                LinkFrame::Ack { received: self.received }.encode().expect("an acknowledgement is small");
            out.extend_from_slice(&ack);
        }
        while out.len() < WRITE_BYTES
            && let Some(frame) = self.frames.get(self.written)
        {
            self.written += 1;
            if out.is_empty() && (frame.len() >= WRITE_BYTES || self.written == self.frames.len()) {
                return Some(frame.clone());
            }
            out.extend_from_slice(frame);
        }
        (!out.is_empty()).then(|| out.freeze())
    }
}

/// Octets that may wait for the other end: the windows of 4,096 streams. Past it the other end is lost.
const LIMIT_BYTES: usize = 4096 * STREAM_WINDOW_BYTES as usize;
/// About how much one write takes.
const WRITE_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{StreamId, ToEdge};

    fn frame(stream: u64) -> LinkFrame {
        LinkFrame::ToEdge(ToEdge::Close { stream: StreamId(stream) })
    }

    /// The streams of the frames that are to be written now, and what is acknowledged before them.
    fn taken(journal: &Journal) -> (Vec<u64>, Option<u64>) {
        let (mut streams, mut ack) = (Vec::new(), None);
        while let Some(bytes) = journal.state.lock().take() {
            let mut bytes = BytesMut::from(&bytes[..]);
            while let Some(frame) = LinkFrame::decode(&mut bytes).expect("frames") {
                match frame {
                    LinkFrame::ToEdge(ToEdge::Close { stream }) => streams.push(stream.0),
                    LinkFrame::Ack { received } => ack = Some(received),
                    other => panic!("{other:?}"),
                }
            }
        }
        (streams, ack)
    }

    #[test]
    fn after_a_break_exactly_what_the_other_end_lacks_is_written_again_in_order() {
        for arrived in 0..=6 {
            let journal = Journal::default();
            (1..=4).for_each(|n| journal.push(&frame(n)));
            assert_eq!(taken(&journal).0, [1, 2, 3, 4]);
            assert!(journal.handle_ack(1));
            (5..=6).for_each(|n| journal.push(&frame(n)));
            // The last two were written or not when the connection broke.
            let is_known = journal.resume(arrived);
            assert_eq!(is_known, arrived >= 1, "{arrived}");
            if is_known {
                assert_eq!(taken(&journal).0, (arrived + 1..=6).collect::<Vec<_>>());
                assert!(journal.handle_ack(6));
                assert_eq!(journal.waiting_bytes(), 0);
            }
        }
    }

    #[test]
    fn what_never_was_sent_cannot_be_acknowledged() {
        let journal = Journal::default();
        journal.push(&frame(1));
        assert!(!journal.handle_ack(1), "it waits");
        taken(&journal);
        assert!(journal.handle_ack(1) && !journal.handle_ack(2));
        assert!(!journal.resume(2), "another link's end");
    }

    #[test]
    fn what_came_is_acknowledged_once_however_many_frames_it_is() {
        let journal = Journal::default();
        (0..5).for_each(|_| journal.note_received());
        assert_eq!(taken(&journal), (vec![], Some(5)));
        assert_eq!(taken(&journal), (vec![], None));
        journal.note_received();
        journal.push(&frame(1));
        assert_eq!(taken(&journal), (vec![1], Some(6)));
        assert_eq!(journal.received(), 6);
    }

    #[test]
    fn an_end_that_acknowledges_nothing_is_owed_no_more_than_the_limit() {
        let journal = Journal::default();
        let big = LinkFrame::ToEdge(ToEdge::Stanzas {
            stream: StreamId(1),
            count: 1,
            bytes: Bytes::from(vec![b'x'; 16 << 20]),
        });
        let pushed = (0..100)
            .take_while(|_| {
                journal.push(&big);
                !journal.is_over()
            })
            .count();
        assert_eq!(pushed, LIMIT_BYTES / (16 << 20) - 1);
        assert!(journal.waiting_bytes() <= LIMIT_BYTES);
    }
}
