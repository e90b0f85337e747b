//! Messages on one byte stream of SIP: octets to messages, messages to octets, within limits of size and time.
//!
//! A stream and an outbox go in; values for a [`FlowSink`] and the reason of the end come out. It knows no actor and no
//! socket, and decides nothing about a message but whether it is one.

use std::{
    cell::{Cell, RefCell},
    future::{pending, poll_fn},
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::ready,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use rand::RngExt;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, split},
    sync::Notify,
    time::{Instant, sleep, timeout, timeout_at},
};
use tombolo_sip::{
    build::ResponseBuilder,
    framer::{Frame, Malformed, StreamFault, StreamFramer},
    message::{Message, MessageLimits},
};
use tombolo_telemetry::{Metrics, StatusClass};

use crate::{FlowFacts, FlowSink, FromFlow, outbox::Outbox};

/// One connection's messages, both ways.
pub(crate) struct Wire {
    facts: Arc<FlowFacts>,
    outbox: Arc<Outbox>,
    sink: Arc<dyn FlowSink>,
    metrics: Arc<Metrics>,
    limits: MessageLimits,
    keep_alive: Option<Duration>,
    own: Own,
    /// What was read last, for keep-alives and for a peer that closed its half.
    heard: Cell<Heard>,
}

/// What came of a peer.
#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    /// Reads that brought octets.
    reads: u64,
    /// When the last request came.
    request: Option<Instant>,
    /// A keep-alive of ours is not answered yet.
    owes_pong: bool,
}

enum ReadEnd<R> {
    /// Nothing more can be read, or nobody wants to.
    Gone(String),
    /// Nothing more can be read, but the peer may still read.
    HalfClosed,
    /// The peer sent a malformed message, and where the next one begins is not known, or nobody vouches for the peer.
    Faulty(String, R),
}

/// What was whole in the framer.
struct Taken {
    messages: Vec<Message>,
    /// A message was whole, even if malformed, so that the time of the next one begins anew.
    is_any: bool,
    /// Why the connection must end.
    fault: Option<String>,
}

enum WriteEnd {
    Broken(String),
    /// Everything is written, and the peer knows that nothing follows.
    Closed,
}

impl Wire {
    /// For a flow that was reported to `sink`; what is to be written comes by `outbox`.
    pub(crate) fn new(
        facts: Arc<FlowFacts>,
        outbox: Arc<Outbox>,
        sink: Arc<dyn FlowSink>,
        metrics: Arc<Metrics>,
        limits: MessageLimits,
    ) -> Self {
        let (own, heard) = (Own::default(), Cell::default());
        Self { facts, outbox, sink, metrics, limits, keep_alive: None, own, heard }
    }

    /// Sends keep-alives about so often on a connection that we opened, and ends one where none is answered
    /// (RFC 5626 §3.5.1, §4.4.1).
    pub(crate) fn with_keep_alive(self, every: Option<Duration>) -> Self {
        Self { keep_alive: every.filter(|_| self.facts.dial.is_some()), ..self }
    }

    /// Carries messages until the stream ends; why it did, for the log.
    pub(crate) async fn carry(&self, stream: impl AsyncRead + AsyncWrite) -> String {
        let (reader, writer) = split(stream);
        let (mut reading, mut writing) = (pin!(self.read(reader)), pin!(self.write(writer)));
        tokio::select! {
            ended = &mut reading => match ended {
                ReadEnd::Gone(cause) => cause,
                ReadEnd::HalfClosed => {
                    // Its request may still be answered (SIP-TLS-13).
                    let _ = timeout(ANSWER_LIMIT, writing).await;
                    "closed by the peer".to_owned()
                }
                ReadEnd::Faulty(cause, reader) => {
                    // Requests in front of the fault were handed over: their answers are still to come.
                    let wait = if self.asked_just_now() { ANSWER_LIMIT } else { Duration::ZERO };
                    let closing = async {
                        sleep(wait).await;
                        self.outbox.close();
                    };
                    // A close with unread octets would take back what was just said, so the rest is read away.
                    let farewell = async { tokio::join!(closing, writing, drain(reader)) };
                    let _ = timeout(wait + CLOSE_LIMIT, farewell).await;
                    cause
                }
            },
            ended = &mut writing => match ended {
                WriteEnd::Broken(cause) => cause,
                WriteEnd::Closed => {
                    // What the peer says until it closes too is still heard.
                    let _ = timeout(CLOSE_LIMIT, reading).await;
                    "closed".to_owned()
                }
            },
            () = self.keep_alive() => "a keep-alive was not answered".to_owned(),
        }
    }

    /// Ends when the peer owes an answer to a keep-alive for too long.
    async fn keep_alive(&self) {
        let Some(every) = self.keep_alive else { return pending().await };
        loop {
            // Not all connections in one moment.
            sleep(every.mul_f64(rand::rng().random_range(0.8..=1.0))).await;
            let before = self.heard.get();
            self.heard.set(Heard { owes_pong: true, ..before });
            self.own.ping();
            sleep(PONG_LIMIT).await;
            if self.heard.get().reads == before.reads {
                return;
            }
        }
    }

    async fn read<R: AsyncRead + Unpin>(&self, mut reader: R) -> ReadEnd<R> {
        let mut framer = StreamFramer::new(self.limits);
        // Who proved nothing must do so soon, whatever it says meanwhile; a partner's or a phone's connection may stay
        // idle for ever.
        let stranger_until = Instant::now() + STRANGER_LIMIT;
        // From the first octet of a message on.
        let mut message_until = None;
        loop {
            let is_stranger = self.is_stranger();
            let until = message_until.into_iter().chain(is_stranger.then_some(stranger_until)).min();
            let received = receive(&mut reader, &mut framer);
            let received = match until {
                Some(until) => timeout_at(until, received).await,
                None => Ok(received.await),
            };
            let len = match received {
                Ok(Ok(0)) if self.may_await_answer() => return ReadEnd::HalfClosed,
                Ok(Ok(0)) => return ReadEnd::Gone("closed by the peer".to_owned()),
                Ok(Ok(len)) => len,
                Ok(Err(error)) => return ReadEnd::Gone(error.to_string()),
                // Somebody proved himself while the next octets were awaited.
                Err(_)
                    if is_stranger
                        && self.outbox.is_bound()
                        && message_until.is_none_or(|until| until > Instant::now()) =>
                {
                    continue;
                }
                Err(_) if message_until.is_none() => {
                    return ReadEnd::Gone("nobody proved himself".to_owned());
                }
                Err(_) => return ReadEnd::Gone("a message took too long".to_owned()),
            };
            self.note(&mut framer);
            let Taken { messages, is_any, fault } = self.take_frames(&mut framer);
            if is_any {
                message_until = None;
            }
            if !messages.is_empty() {
                self.hand_over(messages).await;
            }
            if let Some(cause) = fault {
                return ReadEnd::Faulty(cause, reader);
            }
            self.own.has_room().await;
            // The time of a message begins with its first octet and is not begun anew by each further one.
            let begun = || Instant::now() + MESSAGE_LIMIT;
            message_until = framer.is_inside().then(|| message_until.unwrap_or_else(begun));
            if len == READ_BYTES {
                // There is probably more: the arbiter's other actors come first.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Octets came: any answer a keep-alive; a lone line end is one and nothing else.
    fn note(&self, framer: &mut StreamFramer) {
        let heard = self.heard.get();
        // Where a body is awaited the line end is part of it.
        if heard.owes_pong && !framer.is_inside() && framer.buffer_mut()[..] == *b"\r\n" {
            framer.buffer_mut().clear();
        }
        self.heard.set(Heard { reads: heard.reads + 1, owes_pong: false, ..heard });
    }

    /// True where a peer that writes nothing more may still read: it asked something just now. A partner that goes is
    /// replaced at once.
    fn may_await_answer(&self) -> bool {
        !self.is_partner() && self.asked_just_now()
    }

    /// Whether a request came so lately that its answer may still be on its way.
    fn asked_just_now(&self) -> bool {
        self.heard.get().request.is_some_and(|asked| asked.elapsed() < ANSWER_LIMIT)
    }

    /// Takes what is whole in the framer. Malformed messages are answered here.
    fn take_frames(&self, framer: &mut StreamFramer) -> Taken {
        let (mut messages, mut is_any) = (Vec::new(), false);
        let fault = loop {
            match framer.next_frame() {
                Ok(Some(Frame::Message(mut message))) => {
                    match message.status() {
                        Some(status) => self.metrics.response_in(StatusClass::of(status)),
                        None => {
                            message.set_received(self.facts.remote);
                            self.note_request();
                        }
                    }
                    messages.push(*message);
                    is_any = true;
                }
                Ok(Some(Frame::Malformed(malformed))) => {
                    is_any = true;
                    let is_answered = malformed.head.is_some();
                    let cause = self.refuse(malformed);
                    // What a stranger sends may be no SIP at all.
                    if !is_answered && self.is_stranger() {
                        break Some(cause);
                    }
                }
                Ok(Some(Frame::Ping)) => self.own.pong(),
                Ok(None) => break None,
                Err(StreamFault(malformed)) => break Some(self.refuse(malformed)),
            }
        };
        if framer.buffer_mut().is_empty() {
            // An idle connection holds no buffer.
            *framer.buffer_mut() = BytesMut::new();
        }
        Taken { messages, is_any, fault }
    }

    /// Offers messages until all are taken; meanwhile nothing is read.
    async fn hand_over(&self, messages: Vec<Message>) {
        let mut offered = FromFlow::Messages { flow: self.facts.clone(), messages };
        while let Err(rest) = self.sink.offer(offered) {
            offered = rest;
            sleep(FULL_PAUSE).await;
        }
    }

    /// Counts and logs a malformed message, and answers it where that can be done; the fault's text.
    fn refuse(&self, Malformed { fault, head }: Malformed) -> String {
        self.metrics.malformed_input();
        let (flow, remote) = (self.facts.flow.0, self.facts.remote);
        if self.is_partner() {
            tracing::warn!(flow, %remote, status = fault.status(), error = %fault, "malformed sip");
        } else {
            tracing::debug!(flow, %remote, status = fault.status(), error = %fault, "malformed sip");
        }
        if let Some(mut head) = head {
            head.set_received(remote);
            if let Ok(response) = ResponseBuilder::to(&head, fault.status(), None) {
                self.own.answer(&response.render());
                self.note_request();
            }
        }
        fault.to_string()
    }

    /// A request came whose answer may be awaited by a peer that closes its half.
    fn note_request(&self) {
        self.heard.set(Heard { request: Some(Instant::now()), ..self.heard.get() });
    }

    /// True while nobody has proved anything on a connection that the peer opened.
    fn is_stranger(&self) -> bool {
        self.facts.dial.is_none() && !self.outbox.is_bound()
    }

    fn is_partner(&self) -> bool {
        self.facts.dial.is_some() || !self.facts.proved_domains.is_empty()
    }

    async fn write(&self, mut writer: impl AsyncWrite + Unpin) -> WriteEnd {
        loop {
            let (bytes, is_granted) = tokio::select! {
                biased;
                bytes = self.own.take() => (bytes, false),
                taken = self.outbox.take() => match taken {
                    Some((bytes, _)) => (bytes, true),
                    None => break,
                },
            };
            let written = async {
                writer.write_all(&bytes).await?;
                writer.flush().await
            };
            match timeout(WRITE_LIMIT, written).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return WriteEnd::Broken(error.to_string()),
                Err(_) => return WriteEnd::Broken("the peer takes nothing".to_owned()),
            }
            if is_granted {
                let written = FromFlow::Written { flow: self.facts.flow, bytes: bytes.len() as u32 };
                if self.sink.offer(written).is_err() {
                    tracing::error!("a value that is always taken was given back");
                }
            }
        }
        let _ = timeout(CLOSE_LIMIT, writer.shutdown()).await;
        WriteEnd::Closed
    }
}

/// What a connection says by itself. Nobody granted it, so it gives no credit; and it is bounded whatever the peer does.
#[derive(Default)]
struct Own {
    pongs: Cell<usize>,
    /// A keep-alive is to be sent.
    ping: Cell<bool>,
    /// Refusals of malformed requests.
    answers: RefCell<Vec<u8>>,
    filled: Notify,
    /// The answers were taken.
    emptied: Notify,
}

impl Own {
    /// Owes one more answer to a keep-alive (RFC 5626 §4.4.1).
    fn pong(&self) {
        self.pongs.set(self.pongs.get().saturating_add(1));
        self.filled.notify_one();
    }

    /// Owes a keep-alive (RFC 5626 §3.5.1).
    fn ping(&self) {
        self.ping.set(true);
        self.filled.notify_one();
    }

    fn answer(&self, response: &[u8]) {
        self.answers.borrow_mut().extend_from_slice(response);
        self.filled.notify_one();
    }

    /// Waits until the peer has taken enough of the refusals, so that one that reads nothing gets no more of them.
    async fn has_room(&self) {
        while self.answers.borrow().len() > MAX_ANSWERS_BYTES {
            self.emptied.notified().await;
        }
    }

    /// What there is to say; waits for some.
    async fn take(&self) -> Bytes {
        loop {
            let pongs = self.pongs.get().min(MOST_PONGS);
            self.pongs.set(self.pongs.get() - pongs);
            let mut bytes = b"\r\n".repeat(pongs);
            bytes.append(&mut self.answers.borrow_mut());
            self.emptied.notify_one();
            if self.ping.take() {
                bytes.extend_from_slice(b"\r\n\r\n");
            }
            if !bytes.is_empty() {
                return bytes.into();
            }
            self.filled.notified().await;
        }
    }
}

/// Reads what is there into the framer; how many octets, at most [`READ_BYTES`].
///
/// By way of a buffer of the thread: a connection that waits for octets needs none of its own, and a message that is
/// kept keeps no more than was received with it.
async fn receive(reader: &mut (impl AsyncRead + Unpin), framer: &mut StreamFramer) -> io::Result<usize> {
    thread_local! {
        static RECEIVED: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
    }
    poll_fn(|cx| {
        RECEIVED.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *reader).poll_read(cx, &mut buffer))?;
            framer.push(buffer.filled());
            std::task::Poll::Ready(Ok(buffer.filled().len()))
        })
    })
    .await
}

/// Reads until the peer closes.
async fn drain(mut reader: impl AsyncRead + Unpin) {
    let _ = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
}

const READ_BYTES: usize = 16 << 10;
/// Refusals that wait to be written while more is read. One read brings at most a message of the largest size besides.
const MAX_ANSWERS_BYTES: usize = 64 << 10;
/// Keep-alives that are answered by one write.
const MOST_PONGS: usize = 1024;
/// From the first octet of a message to its last (SIP-T-17).
const MESSAGE_LIMIT: Duration = Duration::from_secs(30);
/// From the begin of a connection until somebody has proved himself by it (SIP-T-17).
const STRANGER_LIMIT: Duration = Duration::from_secs(30);
const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// A keep-alive is answered in this time (RFC 5626 §4.4.1).
const PONG_LIMIT: Duration = Duration::from_secs(10);
/// How long an answer is awaited where nothing more is read: the peer closed its half, or sent a message without a known end.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// How long a connection rests when its receiver is full.
const FULL_PAUSE: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests;
