//! A stream to a phone that speaks by datagrams, for requests that are large for UDP (RFC 3261 §18.1.1).
//!
//! What is too large, or was cut to fit, goes in; a dial, and an order to close the stream when it was idle, come out. The phone
//! stays where it was met: only what needs the stream goes by it. Few phones listen for TCP, so a dial that failed is not
//! tried again for a while, and until then everything is as if there were no TCP: notes are cut, a message is refused.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tombolo_edge::{FlowFacts, FlowId};
use tombolo_interwork::error::NoResponse;
use tombolo_runtime::{Backoff, BackoffSettings};

use super::{Peer, PeerOutput, Sent};

/// What is known of the stream.
#[derive(Debug)]
pub(super) struct Beside {
    /// Requests that wait for the dial.
    waiting: VecDeque<Sent>,
    /// The stream that we opened, and when something left by it last.
    open: Option<(FlowId, Instant)>,
    backoff: Backoff,
    no_dial_before: Option<Instant>,
}

impl Default for Beside {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), open: None, backoff: Backoff::new(PAUSES, 1), no_dial_before: None }
    }
}

impl Beside {
    /// When the stream has been idle for long enough.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.open.map(|(_, used)| used + IDLE)
    }

    /// Something leaves by a flow.
    pub(super) fn note_used(&mut self, flow: FlowId, now: Instant) {
        if let Some((open, used)) = &mut self.open
            && *open == flow
        {
            *used = now;
        }
    }

    fn fail(&mut self, now: Instant) {
        self.backoff.fail();
        self.pause(now);
    }

    fn pause(&mut self, now: Instant) {
        self.no_dial_before = Some(now + self.backoff.wait().max(MIN_PAUSE));
    }
}

impl Peer {
    /// A stream that we opened is there, or is being dialled.
    pub fn has_stream_beside(&self) -> bool {
        self.beside.open.is_some() || (self.front_end.is_none() && self.dialling_until.is_some())
    }

    /// Something was cut to fit into a datagram: by a stream it would go whole.
    pub fn handle_stream_wanted(&mut self, now: Instant) {
        if let Some(current) = self.flow.clone()
            && self.newest_stream().is_none()
            && self.may_open_stream(&current, now)
        {
            self.open_stream(&current, now);
        }
    }

    /// Takes a request that is too large for the datagrams of `current` and may leave by a stream that we dial; gives it back
    /// where that is not to be.
    pub(super) fn wait_for_stream(
        &mut self,
        sent: Sent,
        current: &FlowFacts,
        now: Instant,
    ) -> Result<(), Sent> {
        let is_dialling = self.front_end.is_none() && self.dialling_until.is_some();
        if self.beside.waiting.len() >= MAX_WAITING || !(is_dialling || self.may_open_stream(current, now)) {
            return Err(sent);
        }
        if !is_dialling {
            self.open_stream(current, now);
        }
        self.beside.waiting.push_back(sent);
        Ok(())
    }

    fn may_open_stream(&self, current: &FlowFacts, now: Instant) -> bool {
        self.front_end.is_none()
            && !current.transport.is_reliable()
            && self.dialling_until.is_none()
            && self.beside.no_dial_before.is_none_or(|at| at <= now)
    }

    fn open_stream(&mut self, current: &FlowFacts, now: Instant) {
        self.dialling_until = Some(now + DIAL_LOST);
        self.out.push_back(PeerOutput::OpenStream { flow: current.flow, remote: current.remote });
    }

    /// True when `flow` is the stream that was dialled for a phone that is met by datagrams.
    pub(super) fn is_stream_beside(&self, flow: &FlowFacts, current: &FlowFacts) -> bool {
        self.front_end.is_none()
            && flow.dial.is_some()
            && flow.transport.is_reliable()
            && !current.transport.is_reliable()
    }

    /// The stream is up: the shards are told, and what waited leaves.
    pub(super) fn adopt_stream_beside(&mut self, flow: FlowId, now: Instant) {
        self.beside.open = Some((flow, now));
        self.out.push_back(PeerOutput::Way(self.way()));
        self.send_waiting_for_stream(now);
    }

    /// There is no stream: what waited for it goes as if there could be none.
    pub(super) fn handle_no_stream(&mut self, now: Instant) {
        self.beside.fail(now);
        self.send_waiting_for_stream(now);
    }

    fn send_waiting_for_stream(&mut self, now: Instant) {
        for sent in std::mem::take(&mut self.beside.waiting) {
            match self.flow.is_some() {
                true => self.send(sent, now),
                false => self.end(sent, Err(NoResponse::Transport)),
            }
        }
    }

    /// A flow ended. One by which nothing ever came was no SIP phone's.
    pub(super) fn note_stream_down(&mut self, flow: FlowId, was_heard: bool, now: Instant) {
        if self.beside.open.take_if(|(open, _)| *open == flow).is_some() {
            if was_heard {
                self.beside.backoff.reset();
                self.beside.pause(now);
            } else {
                self.beside.fail(now);
            }
        }
        if self.flow.is_none() {
            self.send_waiting_for_stream(now);
        }
    }

    /// Closes the stream when nothing has left by it for a while.
    pub(super) fn close_idle_stream(&mut self, now: Instant) {
        if let Some((flow, used)) = self.beside.open
            && used + IDLE <= now
        {
            self.close_stream(flow, now);
        }
    }

    /// True when a request by the stream was not answered, and nothing else came by it since.
    pub(super) fn is_unheard_stream(&self, sent: &Sent) -> Option<FlowId> {
        let ((open, _), (by, left)) = (self.beside.open?, sent.left?);
        let live = self.flows.iter().find(|live| live.facts.flow == open && open == by)?;
        live.heard.is_none_or(|heard| heard <= left).then_some(open)
    }

    pub(super) fn close_stream(&mut self, flow: FlowId, now: Instant) {
        self.out.push_back(PeerOutput::Close { flow });
        self.handle_flow_down(flow, now);
    }
}

/// How long a dial may take before its report counts as lost.
const DIAL_LOST: Duration = Duration::from_secs(30);
/// Longer than any transaction that went by the stream (RFC 3261 §18: it stays open for as long).
const IDLE: Duration = Duration::from_secs(60);
/// Between two dials at least.
const MIN_PAUSE: Duration = Duration::from_secs(30);
/// Between dials that fail.
const PAUSES: BackoffSettings =
    BackoffSettings { floor: Duration::from_secs(120), cap: Duration::from_secs(3600) };
/// Requests that wait for one dial.
const MAX_WAITING: usize = 16;
