//! Requests that one address of a front end failed, on their way to another (RFC 3263 §4.3).
//!
//! Only the request that failed goes there: it may be one device that is silent, or a 503 that came from further away. The
//! flow is left only where nothing at all came by it since the request left.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tombolo_interwork::error::NoResponse;
use tombolo_runtime::{Backoff, BackoffSettings};
use tombolo_sip::{message::Message, transaction::Outcome};

use super::{AVOIDED_FOR, Live, Peer, PeerOutput, Sent, WAITING_REQUESTS};

/// How a request ended.
type Ending = Result<Box<Message>, NoResponse>;

/// The requests that wait for another address.
#[derive(Debug)]
pub(super) struct Elsewhere {
    requests: VecDeque<Failed>,
    /// Dials that found no other address follow each other ever more rarely.
    backoff: Backoff,
    no_dial_before: Option<Instant>,
}

#[derive(Debug)]
struct Failed {
    sent: Sent,
    by: SocketAddr,
    /// How it ends where there is no other address.
    failure: Ending,
}

impl Default for Elsewhere {
    fn default() -> Self {
        let settings = BackoffSettings { floor: Duration::from_secs(1), cap: Duration::from_secs(60) };
        Self { requests: VecDeque::new(), backoff: Backoff::new(settings, 1), no_dial_before: None }
    }
}

impl Elsewhere {
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// A dial led to no other address.
    pub(super) fn handle_no_other(&mut self, now: Instant) {
        self.backoff.fail();
        self.no_dial_before = Some(now + self.backoff.wait());
    }

    fn may_dial(&self, now: Instant) -> bool {
        self.no_dial_before.is_none_or(|at| at <= now)
    }
}

impl Peer {
    /// Requests of ours that ended: with an answer, or on their way to the next address.
    pub(super) fn settle(&mut self, now: Instant) {
        while let Some((sent, outcome)) = self.transactions.poll_ended() {
            let outcome = match outcome {
                Outcome::Response(message) => Ok(message),
                Outcome::Timeout => Err(NoResponse::Timeout),
            };
            if outcome.is_err()
                && let Some(stream) = self.is_unheard_stream(&sent)
            {
                self.end(sent, outcome);
                self.close_stream(stream, now);
                continue;
            }
            let rest = match &outcome {
                Ok(message) if message.status() == Some(503) => {
                    message.retry_after().map(|seconds| Duration::from_secs(seconds.into()).min(MAX_AVOIDED))
                }
                Err(_) => None,
                Ok(_) => {
                    self.finish(sent, outcome, now);
                    continue;
                }
            };
            // What has one address only gets no better by a new flow.
            let by = sent.left.filter(|_| !sent.is_second);
            let live = by.and_then(|(by, left)| {
                let live = self.flows.iter().find(|live| live.facts.flow == by)?;
                live.facts.has_alternatives.then_some((live, left))
            });
            let Some((live, left)) = live else {
                self.finish(sent, outcome, now);
                continue;
            };
            let (flow, failed) = (live.facts.flow, live.facts.remote);
            let span = rest.unwrap_or(AVOIDED_FOR);
            if outcome.is_err() && live.heard.is_none_or(|heard| heard <= left) {
                self.out.push_back(PeerOutput::Avoid { flow, span });
                self.send_again(sent, outcome);
                self.handle_flow_down(flow, now);
                continue;
            }
            self.out.push_back(PeerOutput::Mark { flow, span });
            let is_current = self.flow.as_ref().is_some_and(|current| current.flow == flow);
            self.must_rest |= is_current && rest.is_some();
            if self.elsewhere.requests.len() >= WAITING_REQUESTS {
                self.finish(sent, outcome, now);
                continue;
            }
            self.elsewhere.requests.push_back(Failed { sent, by: failed, failure: outcome });
            self.send_elsewhere(now);
            if self.elsewhere.is_empty() || self.dialling_until.is_some() {
                continue;
            }
            if self.elsewhere.may_dial(now) {
                self.dial(now);
            } else {
                self.fail_elsewhere();
            }
        }
    }

    /// A request has ended for good. One that got 503 or nothing may say something about the front end itself.
    fn finish(&mut self, sent: Sent, outcome: Ending, now: Instant) {
        if let Some(front_end) = &mut self.front_end {
            let health = &mut front_end.health;
            match (&outcome, &sent.requester) {
                (Ok(message), None) => {
                    let retry_after =
                        message.retry_after().map(|seconds| Duration::from_secs(seconds.into()));
                    health.handle_answer(message.status().unwrap_or(500), retry_after, now);
                }
                (Err(_), None) => {}
                (Ok(message), Some(_)) if message.status() != Some(503) => {}
                (_, Some(_)) => health.handle_suspicion(now),
            }
        }
        self.end(sent, outcome);
        self.drive_health(now);
    }

    /// To the next address of a front end, unless it was the second already; `failure` is how it ended so far.
    pub(super) fn send_again(&mut self, sent: Sent, failure: Ending) {
        if self.front_end.is_some() && !sent.is_second && self.waiting.len() < WAITING_REQUESTS {
            return self.waiting.push_back(Sent { is_second: true, ..sent });
        }
        self.end(sent, failure);
    }

    /// Sends what another address failed by the newest flow to a different one that we opened.
    pub(super) fn send_elsewhere(&mut self, now: Instant) {
        for _ in 0..self.elsewhere.requests.len() {
            let Some(Failed { sent, by, failure }) = self.elsewhere.requests.pop_front() else { return };
            let is_other = |live: &&Live| live.facts.dial.is_some() && live.facts.remote != by;
            match self.flows.iter().rev().find(is_other).map(|live| live.facts.clone()) {
                Some(flow) => {
                    // It takes the place of one that asked for rest, however it came to be.
                    if self.must_rest && self.flow.as_ref().is_some_and(|current| current.remote == by) {
                        self.adopt(flow.clone(), now);
                    }
                    self.send_by(&flow, Sent { is_second: true, ..sent }, now);
                }
                None => self.elsewhere.requests.push_back(Failed { sent, by, failure }),
            }
        }
    }

    pub(super) fn fail_elsewhere(&mut self) {
        while let Some(Failed { sent, failure, .. }) = self.elsewhere.requests.pop_front() {
            self.end(sent, failure);
        }
    }

    /// The newest dial led to an address that has a flow already: one is enough.
    pub(super) fn close_double(&mut self, now: Instant) {
        let Some(newest) = self.flows.last().map(|live| live.facts.clone()) else { return };
        if self.flow.as_ref().is_some_and(|current| current.flow == newest.flow) {
            return;
        }
        let is_double = |live: &Live| {
            let (facts, newest) = (&live.facts, &newest);
            facts.remote == newest.remote && facts.transport == newest.transport && facts.flow != newest.flow
        };
        if self.flows.iter().any(is_double) {
            self.flows.pop();
            self.out.push_back(PeerOutput::Close { flow: newest.flow });
            self.elsewhere.handle_no_other(now);
        } else {
            self.elsewhere.backoff.reset();
        }
    }
}

/// How long an address is dialled last at most, whatever it says itself.
const MAX_AVOIDED: Duration = Duration::from_secs(600);
