//! One XMPP connection with a proved pair, as an actor on the arbiter whose reactor has the socket.
//!
//! In: octets of the peer, and stanzas to write. Out: stanzas of proved pairs, what was written, and why the stream
//! ended. It never looks into a stanza.

use std::{mem, sync::Arc, time::Duration};

use actix::{Actor, ActorContext, AsyncContext, Context, WrapFuture, fut::ActorFutureExt};
use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
    sync::{mpsc, watch},
    time::{sleep, sleep_until, timeout},
};
use tombolo_net::{AnyStream, TlsFacts};
use tombolo_xmpp::{
    stream::{KeyAnswer, KeyQuestion, S2sStream, StreamEvent},
    stream_error::StreamCondition,
};

use crate::{
    FromEdge, ProofMethod, STREAM_WINDOW_BYTES, StreamDirection, StreamEnd, StreamId, StreamTls,
    caught::{PANICKED, caught},
    negotiation::{Negotiated, ask},
    outbox::Outbox,
    stream_end::{domain_pair, end_of, note, proof_of},
    stream_upkeep::{Due, Upkeep},
    written::{whole_stanzas, write_counted},
    xmpp_edge::XmppShared,
    xmpp_listener::{Admission, PartnerRoom},
};

/// The actor of one stream. It ends with it.
pub(crate) struct XmppConnection {
    stream: StreamId,
    shared: Arc<XmppShared>,
    negotiated: Option<(Negotiated, Arc<Outbox>)>,
    end: StreamEnd,
    last_written: u64,
    _places: Option<(Admission, PartnerRoom)>,
}

impl XmppConnection {
    /// Begins to carry stanzas, on the arbiter that has the socket.
    pub(crate) fn start(mut negotiated: Negotiated, shared: Arc<XmppShared>) {
        let (index, placement) = (negotiated.index, shared.placement.clone());
        let places = negotiated.places.take();
        let outbox = Arc::new(Outbox::default().in_budget(shared.outgoing.clone()));
        placement.start_in(index, move |_: &mut _| Self {
            stream: shared.new_stream(),
            shared,
            negotiated: Some((negotiated, outbox)),
            end: StreamEnd::Broken("the actor ended".to_owned()),
            last_written: 0,
            _places: places,
        });
    }

    fn report_up(&self, negotiated: &Negotiated) {
        let (direction, max_stanza_bytes) = match &negotiated.machine {
            S2sStream::Inbound(_) => (StreamDirection::Incoming, None),
            S2sStream::Outbound(stream) => (StreamDirection::Outgoing, stream.max_bytes()),
        };
        self.shared.tell(FromEdge::StreamUp {
            stream: self.stream,
            direction,
            dial: negotiated.dial,
            pair: negotiated.pair.clone(),
            method: negotiated.method,
            tls: negotiated.tls.as_ref().map(|facts| Box::new(stream_tls(facts))),
            window_bytes: STREAM_WINDOW_BYTES,
            max_stanza_bytes,
        });
        for pair in &negotiated.more_pairs {
            self.shared.tell(FromEdge::PairProved { stream: self.stream, pair: pair.clone() });
        }
    }
}

fn stream_tls(facts: &TlsFacts) -> StreamTls {
    StreamTls {
        version: facts.version.clone(),
        cipher: facts.cipher.clone(),
        certificate: facts.certificates.fingerprint(),
        certificate_until: facts.certificates.not_after().map(|until| until.as_secs()),
    }
}

impl Actor for XmppConnection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let Some((negotiated, outbox)) = self.negotiated.take() else { return ctx.stop() };
        self.shared.count_streams(|streams| _ = streams.insert(self.stream, outbox.clone()));
        self.report_up(&negotiated);
        let (reader, writer) = split(negotiated.socket);
        let mut policy_changes = self.shared.policy_changes.subscribe();
        // It may have changed since the pair was proved.
        policy_changes.mark_changed();
        let now = self.shared.clock.now().instant;
        let carrier = Carrier {
            stream: self.stream,
            shared: self.shared.clone(),
            machine: negotiated.machine,
            reader,
            writer,
            outbox,
            answers: negotiated.answers,
            answered: negotiated.answered,
            next_stanza: 1,
            last_written: 0,
            read_bytes: ReadBytes::default(),
            is_given_up: false,
            upkeep: Upkeep::new(self.shared.pace, negotiated.holds_until, now),
            certificate_end: negotiated.certificate_end,
            is_tls: negotiated.tls.is_some(),
            policy_changes,
            is_throttled: false,
        };
        let run = carrier.run(negotiated.stanzas, negotiated.end);
        let metrics = self.shared.metrics.clone();
        let run = async move { caught(&metrics, "xmpp stream", run).await };
        ctx.spawn(run.into_actor(self).map(|ended, actor, ctx| {
            // After a panic it is not known what was written last; what was reported before counts.
            (actor.end, actor.last_written) = ended.unwrap_or((StreamEnd::Broken(PANICKED.to_owned()), 0));
            ctx.stop();
        }));
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.shared.count_streams(|streams| _ = streams.remove(&self.stream));
        let end = mem::replace(&mut self.end, StreamEnd::Closed);
        let (stream, last_written) = (self.stream, self.last_written);
        self.shared.tell(FromEdge::StreamDown { stream, end, last_written });
    }
}

/// What moves bytes for the actor.
struct Carrier {
    stream: StreamId,
    shared: Arc<XmppShared>,
    machine: S2sStream,
    reader: ReadHalf<AnyStream>,
    writer: WriteHalf<AnyStream>,
    outbox: Arc<Outbox>,
    answers: mpsc::Sender<(KeyQuestion, KeyAnswer)>,
    answered: mpsc::Receiver<(KeyQuestion, KeyAnswer)>,
    next_stanza: u64,
    last_written: u64,
    read_bytes: ReadBytes,
    /// The receiver took nothing while the stream was to close: nothing is offered any more.
    is_given_up: bool,
    upkeep: Upkeep,
    /// When what is proved by certificate from now on ends, since the Unix epoch.
    certificate_end: Option<Duration>,
    is_tls: bool,
    policy_changes: watch::Receiver<()>,
    /// It was said that the peer sends too fast.
    is_throttled: bool,
}

/// What a wait brought.
enum Brought {
    Read(std::io::Result<usize>),
    Stanzas(Option<(Bytes, u32)>),
    Answer(KeyQuestion, KeyAnswer),
    Policy,
    Time,
}

impl Carrier {
    /// Carries until the stream is over: why it is, and the last stanza that was written.
    async fn run(mut self, first: Vec<Bytes>, end: Option<StreamEnd>) -> (StreamEnd, u64) {
        self.hand_over(first).await;
        if let Some(end) = end {
            let _ = self.flush().await;
            let _ = timeout(CLOSE_LIMIT, self.writer.shutdown()).await;
            return (end, 0);
        }
        let mut is_closing = false;
        let mut read = 0;
        loop {
            // What was read counts, also when the peer hears nothing any more.
            let flushed = self.flush().await;
            let end = self.take_events(mem::take(&mut read)).await;
            if let Err(error) = flushed {
                return (StreamEnd::Broken(error.to_string()), self.last_written);
            }
            if let Some(end) = end {
                let _ = timeout(CLOSE_LIMIT, self.writer.shutdown()).await;
                return (end, self.last_written);
            }
            match self.wait(is_closing).await {
                Brought::Read(Ok(0)) => self.machine.handle_connection_lost(),
                Brought::Read(Ok(len)) => {
                    self.read_bytes.follow(len);
                    read = len;
                    let now = self.shared.clock.now().instant;
                    self.machine.handle_buffered(now, &self.shared.table());
                }
                Brought::Read(Err(error)) => {
                    // What TLS says of it is a text for its own users.
                    let cause = match error.kind() {
                        std::io::ErrorKind::UnexpectedEof => {
                            "closed by the peer without the end of TLS".to_owned()
                        }
                        _ => error.to_string(),
                    };
                    return (StreamEnd::Broken(cause), self.last_written);
                }
                Brought::Stanzas(Some((bytes, count))) => {
                    let mut written = 0;
                    if let Err(error) = self.write(&bytes, &mut written).await {
                        let whole = whole_stanzas(&bytes[..written]).min(u64::from(count));
                        return (StreamEnd::Broken(error.to_string()), self.last_written + whole);
                    }
                    self.last_written += u64::from(count);
                    let (stream, last) = (self.stream, self.last_written);
                    self.shared.tell(FromEdge::Written { stream, last, bytes: bytes.len() as u32 });
                }
                Brought::Stanzas(None) => {
                    is_closing = true;
                    if self.outbox.is_given_up() {
                        self.machine.end(StreamCondition::ConnectionTimeout, None);
                        continue;
                    }
                    self.machine.close(self.shared.clock.now().instant);
                }
                Brought::Answer(question, answer) => {
                    if let S2sStream::Inbound(stream) = &mut self.machine {
                        stream.handle_key_answer(&question, answer, &self.shared.table());
                    }
                }
                Brought::Policy => self.ask_policy_again(),
                Brought::Time => {
                    self.read_bytes = ReadBytes::default();
                    let now = self.shared.clock.now();
                    self.machine.handle_timeout(now.instant);
                    match self.upkeep.due(now).filter(|_| !is_closing) {
                        Some(Due::CertificateEnd) => {
                            self.machine.end(StreamCondition::Reset, Some("a certificate has run out"));
                        }
                        Some(Due::Space) => {
                            if let Err(error) = self.write(b" ", &mut 0).await {
                                return (StreamEnd::Broken(error.to_string()), self.last_written);
                            }
                        }
                        None => {}
                    }
                }
            }
        }
    }

    async fn wait(&mut self, is_closing: bool) -> Brought {
        let rest = if self.read_bytes.is_large() { REST } else { FAR };
        let now = self.shared.clock.now();
        let rests = self.upkeep.rests(now.instant);
        let rest = (now.instant + rest).min(self.upkeep.poll_timeout(now));
        let until = self.machine.poll_timeout().map_or(rest, |until| until.min(rest));
        let buffer = self.machine.input_buffer();
        self.read_bytes.prepare(buffer);
        tokio::select! {
            read = self.reader.read_buf(buffer), if !rests => Brought::Read(read),
            stanzas = self.outbox.take(), if !is_closing => Brought::Stanzas(stanzas),
            Some((question, answer)) = self.answered.recv() => Brought::Answer(question, answer),
            Ok(()) = self.policy_changes.changed() => Brought::Policy,
            () = sleep_until(until.into()) => Brought::Time,
        }
    }

    /// Takes what the machine says; why the stream ended, once it has.
    async fn take_events(&mut self, read: usize) -> Option<StreamEnd> {
        let mut stanzas = Vec::new();
        let mut end = None;
        while let Some(event) = self.machine.poll_event() {
            match event {
                StreamEvent::Stanza(stanza) => stanzas.push(stanza.xml),
                StreamEvent::PairProved { pair, method } => {
                    if proof_of(method, self.is_tls) == ProofMethod::SaslExternal {
                        // Without a certificate that holds, at once.
                        self.upkeep.rest_on(self.certificate_end.unwrap_or_default());
                    }
                    if let Some(pair) = domain_pair(&pair) {
                        self.shared.tell(FromEdge::PairProved { stream: self.stream, pair });
                    }
                }
                // The gateway sees that an address is malformed, drops the stanza and tells its sender.
                StreamEvent::MalformedAddress { xml, is_first } => {
                    if is_first {
                        let partner = self.machine.proved_pairs().first().map(|pair| pair.remote.as_str());
                        tracing::warn!(
                            partner,
                            stream = self.stream.0,
                            "a stanza has a malformed address and is dropped"
                        );
                    }
                    stanzas.push(xml);
                }
                StreamEvent::KeyShown(question) => ask(&self.shared, &self.answers, question),
                StreamEvent::Closed(cause) => end = Some(end_of(&cause)),
                other => note(&other, &self.machine),
            }
        }
        if read > 0 && self.upkeep.heard(read, stanzas.len(), self.shared.clock.now().instant) {
            self.shared.metrics.throttled_stream();
            if !mem::replace(&mut self.is_throttled, true) {
                tracing::warn!(
                    stream = self.stream.0,
                    "the peer sends faster than it may and is read slower"
                );
            }
        }
        self.hand_over(stanzas).await;
        if end.is_some() {
            // What the machine says last is still due to the peer.
            let _ = self.flush().await;
        }
        end
    }

    /// Offers stanzas until all are taken; meanwhile nothing is read. A stream that is to close waits a little only: its
    /// receiver may be gone.
    async fn hand_over(&mut self, stanzas: Vec<Bytes>) {
        if stanzas.is_empty() || self.is_given_up {
            return;
        }
        let first = self.next_stanza;
        self.next_stanza += stanzas.len() as u64;
        let mut offered = FromEdge::Stanzas { stream: self.stream, first, stanzas };
        let mut patience = None;
        while let Err(rest) = self.shared.sink.offer(offered) {
            offered = rest;
            if self.outbox.is_closing() {
                let now = self.shared.clock.now().instant;
                if now >= *patience.get_or_insert(now + CLOSE_LIMIT) {
                    self.is_given_up = true;
                    tracing::warn!(stream = self.stream.0, "stanzas of a closing stream that nobody took");
                    return;
                }
            }
            sleep(FULL_PAUSE).await;
        }
    }

    async fn flush(&mut self) -> std::io::Result<()> {
        while let Some(bytes) = self.machine.poll_transmit() {
            self.write(&bytes, &mut 0).await?;
        }
        Ok(())
    }

    /// Writes all; `written` tells how many octets have left, also when it fails.
    async fn write(&mut self, bytes: &[u8], written: &mut usize) -> std::io::Result<()> {
        let writing = write_counted(&mut self.writer, bytes, written);
        let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "the peer takes nothing");
        timeout(WRITE_LIMIT, writing).await.map_err(|_| late())??;
        self.upkeep.spoke(self.shared.clock.now().instant);
        Ok(())
    }

    /// Gives up the pairs that policy does not allow any more, or not by the proof they have, and the stream when none is
    /// left.
    fn ask_policy_again(&mut self) {
        let lost = self.machine.handle_policy_change(&self.shared.table());
        for pair in lost.iter().filter_map(domain_pair) {
            tracing::info!(partner = %pair.remote, stream = self.stream.0, "a pair is not allowed any more");
            self.shared.tell(FromEdge::PairLost { stream: self.stream, pair });
        }
        if !lost.is_empty() && self.machine.proved_pairs().is_empty() {
            let text = "no domain of this stream is allowed any more as it was proved";
            self.machine.end(StreamCondition::PolicyViolation, Some(text));
        }
    }
}

/// How much room a read is given: more while reads fill it, little again when they do not.
#[derive(Debug, Clone, Copy)]
struct ReadBytes(usize);

impl Default for ReadBytes {
    fn default() -> Self {
        Self(LEAST_READ_BYTES)
    }
}

impl ReadBytes {
    fn is_large(self) -> bool {
        self.0 > LEAST_READ_BYTES
    }

    /// Makes room in a buffer; a large one that holds nothing is let go first.
    fn prepare(self, buffer: &mut BytesMut) {
        if buffer.is_empty() && buffer.capacity() > 2 * self.0 {
            *buffer = BytesMut::new();
        }
        buffer.reserve(self.0);
    }

    /// A read brought so many octets.
    fn follow(&mut self, len: usize) {
        if len >= self.0 {
            self.0 = (self.0 * 4).min(MOST_READ_BYTES);
        } else if len < self.0 / 4 {
            self.0 = (self.0 / 2).max(LEAST_READ_BYTES);
        }
    }
}

pub(crate) const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// In place of no deadline.
pub(crate) const FAR: Duration = Duration::from_secs(3600);
const WRITE_LIMIT: Duration = Duration::from_secs(60);
/// After such a silence room for much is let go.
const REST: Duration = Duration::from_secs(2);
const FULL_PAUSE: Duration = Duration::from_millis(2);
/// A connection that rests holds so much to read into.
const LEAST_READ_BYTES: usize = 1024;
const MOST_READ_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_rests_holds_little_and_one_that_is_busy_reads_much_at_once() {
        let (mut read, mut buffer) = (ReadBytes::default(), BytesMut::new());
        read.prepare(&mut buffer);
        assert!((LEAST_READ_BYTES..2 * LEAST_READ_BYTES).contains(&buffer.capacity()));
        for _ in 0..4 {
            read.prepare(&mut buffer);
            let len = read.0;
            buffer.resize(len, b'x');
            read.follow(len);
            // The machine takes everything out.
            drop(buffer.split().freeze());
        }
        assert_eq!(read.0, MOST_READ_BYTES);
        for _ in 0..8 {
            read.follow(80);
            read.prepare(&mut buffer);
        }
        assert_eq!(read.0, LEAST_READ_BYTES);
        assert!(buffer.capacity() <= 2 * LEAST_READ_BYTES, "{} octets at rest", buffer.capacity());
    }

    #[test]
    fn a_buffer_with_half_a_stanza_in_it_keeps_it() {
        let mut buffer = BytesMut::with_capacity(MOST_READ_BYTES);
        buffer.extend_from_slice(b"<presence fro");
        ReadBytes::default().prepare(&mut buffer);
        assert_eq!(&buffer[..], b"<presence fro");
        assert!(buffer.capacity() - buffer.len() >= LEAST_READ_BYTES);
    }
}
