//! One XMPP connection: from its first byte to its first proved pair as a task, then as an actor; both on the
//! arbiter whose reactor has the socket.

use std::{mem, sync::Arc, time::Duration};

use actix::{Actor, ActorContext, AsyncContext, Context, WrapFuture, fut::ActorFutureExt};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
    net::TcpStream,
    sync::mpsc,
    time::{sleep, sleep_until, timeout},
};
use tombolo_net::{
    AnyStream, PeerCertificates, Role, TlsFacts as Handshake, accept_tls, client_config, connect_tls,
    server_config,
};
use tombolo_presence::Domain;
use tombolo_xmpp::stream::{
    CloseCause, KeyAnswer, KeyQuestion, Method, OutboundStream, Pair, S2sStream, StreamEvent, StreamFault,
    TlsFacts, TlsStart,
};

use crate::{
    DialId, DomainPair, FromEdge, ProofMethod, STREAM_WINDOW_BYTES, StreamDirection, StreamEnd, StreamId,
    outbox::Outbox,
    stream_policy::Shown,
    xmpp_edge::{XmppShared, ascii},
};

/// A stream on its way to its first proved pair.
pub(crate) struct Negotiation {
    machine: S2sStream,
    shared: Arc<XmppShared>,
    /// Whom we dialled.
    dialled: Option<DomainPair>,
    answers: mpsc::Sender<(KeyQuestion, KeyAnswer)>,
    answered: mpsc::Receiver<(KeyQuestion, KeyAnswer)>,
}

/// A stream with a proved pair.
pub(crate) struct Negotiated {
    machine: S2sStream,
    socket: AnyStream,
    index: usize,
    pair: DomainPair,
    method: ProofMethod,
    tls: Option<Handshake>,
    /// What the same read brought behind the proof.
    stanzas: Vec<Bytes>,
    more_pairs: Vec<DomainPair>,
    answers: mpsc::Sender<(KeyQuestion, KeyAnswer)>,
    answered: mpsc::Receiver<(KeyQuestion, KeyAnswer)>,
    pub(crate) dial: Option<DialId>,
}

impl Negotiation {
    /// A stream that a partner opened.
    pub(crate) fn incoming(machine: S2sStream, shared: Arc<XmppShared>) -> Self {
        let (answers, answered) = mpsc::channel(MOST_ANSWERS);
        Self { machine, shared, dialled: None, answers, answered }
    }

    /// A stream that we opened.
    pub(crate) fn outgoing(stream: OutboundStream, pair: DomainPair, shared: Arc<XmppShared>) -> Self {
        let (answers, answered) = mpsc::channel(MOST_ANSWERS);
        Self { machine: S2sStream::Outbound(stream), shared, dialled: Some(pair), answers, answered }
    }

    /// Runs until a pair is proved, a question is answered, or the stream is over.
    pub(crate) async fn run(
        mut self,
        socket: TcpStream,
        index: usize,
        tls: TlsStart,
    ) -> Result<(Negotiated, Option<KeyAnswer>), StreamEnd> {
        let mut socket = AnyStream::Plain(socket);
        let mut handshake = None;
        let is_ours = self.dialled.is_some();
        if tls == TlsStart::Direct {
            (socket, handshake) = self.start_tls(socket, is_ours).await?;
        }
        loop {
            self.flush(&mut socket).await?;
            let mut proved: Option<(DomainPair, ProofMethod)> = None;
            let mut more_pairs = Vec::new();
            let mut stanzas = Vec::new();
            let mut answer = None;
            let mut wants_tls = false;
            while let Some(event) = self.machine.poll_event() {
                match event {
                    StreamEvent::StartTls => wants_tls = true,
                    StreamEvent::PairProved { pair, method } => {
                        if let Some(pair) = domain_pair(&pair) {
                            match proved {
                                None => proved = Some((pair, proof_of(method, socket.is_tls()))),
                                Some(_) => more_pairs.push(pair),
                            }
                        }
                    }
                    StreamEvent::PairRefused { refusal, .. } => {
                        self.leave(&mut socket).await;
                        return Err(StreamEnd::Unauthenticated(format!(
                            "the partner refused us: {refusal:?}"
                        )));
                    }
                    StreamEvent::KeyShown(question) => self.ask(question),
                    StreamEvent::KeyAnswered { answer: given, .. } => answer = Some(given),
                    StreamEvent::Stanza(stanza) => stanzas.push(stanza.xml),
                    StreamEvent::Closed(cause) => {
                        self.flush(&mut socket).await?;
                        let _ = timeout(CLOSE_LIMIT, socket.shutdown()).await;
                        return Err(end_of(&cause));
                    }
                    other => note(&other),
                }
            }
            if wants_tls {
                (socket, handshake) = self.start_tls(socket, is_ours).await?;
                continue;
            }
            if answer.is_some() || proved.is_some() {
                let (pair, method) = match (proved, &self.dialled) {
                    (Some(proved), _) => proved,
                    (None, Some(dialled)) => (dialled.clone(), ProofMethod::TlsDialback),
                    (None, None) => continue,
                };
                if answer.is_some() {
                    self.leave(&mut socket).await;
                }
                let negotiated = Negotiated {
                    machine: self.machine,
                    socket,
                    index,
                    pair,
                    method,
                    tls: handshake,
                    stanzas,
                    more_pairs,
                    answers: self.answers,
                    answered: self.answered,
                    dial: None,
                };
                return Ok((negotiated, answer));
            }
            self.wait(&mut socket).await?;
        }
    }

    /// Waits for bytes, an answer, or the time.
    async fn wait(&mut self, socket: &mut AnyStream) -> Result<(), StreamEnd> {
        let until = self.machine.poll_timeout();
        let buffer = self.machine.input_buffer();
        buffer.reserve(EARLY_READ_BYTES);
        tokio::select! {
            read = socket.read_buf(buffer) => match read {
                Ok(0) => self.machine.handle_connection_lost(),
                Ok(_) => {
                    let now = self.shared.clock.now().instant;
                    self.machine.handle_buffered(now, &self.shared.table());
                }
                Err(error) => return Err(StreamEnd::Broken(error.to_string())),
            },
            Some((question, answer)) = self.answered.recv() => {
                if let S2sStream::Inbound(stream) = &mut self.machine {
                    stream.handle_key_answer(&question, answer);
                }
            }
            () = sleep_until(until.unwrap_or_else(|| self.shared.clock.now().instant + FAR).into()) => {
                self.machine.handle_timeout(self.shared.clock.now().instant);
            }
        }
        Ok(())
    }

    async fn flush(&mut self, socket: &mut AnyStream) -> Result<(), StreamEnd> {
        while let Some(bytes) = self.machine.poll_transmit() {
            let written = async {
                socket.write_all(&bytes).await?;
                socket.flush().await
            };
            match timeout(EARLY_WRITE_LIMIT, written).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(StreamEnd::Broken(error.to_string())),
                Err(_) => return Err(StreamEnd::Broken("the peer takes nothing".to_owned())),
            }
        }
        Ok(())
    }

    /// Ends the stream in order as far as one can without waiting long.
    async fn leave(&mut self, socket: &mut AnyStream) {
        self.machine.close(self.shared.clock.now().instant);
        let _ = self.flush(socket).await;
        let _ = timeout(CLOSE_LIMIT, socket.shutdown()).await;
    }

    async fn start_tls(
        &mut self,
        socket: AnyStream,
        is_ours: bool,
    ) -> Result<(AnyStream, Option<Handshake>), StreamEnd> {
        let AnyStream::Plain(socket) = socket else {
            return Err(StreamEnd::StreamError("policy-violation".to_owned()));
        };
        let outcome = match &self.dialled {
            Some(pair) => {
                let own = self.shared.certificates.certificate(pair.local.as_str());
                connect_tls(socket, client_config(own, ALPN), &ascii(pair.remote.as_str()), TLS_LIMIT).await
            }
            None => accept_tls(socket, server_config(&self.shared.certificates, ALPN), TLS_LIMIT).await,
        };
        let (socket, facts) = outcome.map_err(|error| StreamEnd::Unauthenticated(error.to_string()))?;
        let now = self.shared.clock.now();
        let shown = Shown {
            certificates: facts.certificates.clone(),
            trust: self.shared.trust.clone(),
            role: if is_ours { Role::Server } else { Role::Client },
            policy: self.shared.policy.load_full(),
            wall: now.wall,
        };
        let certificate = Arc::new(shown);
        self.machine.handle_tls_established(TlsFacts { certificate }, now.instant, &self.shared.table());
        Ok((socket, Some(facts)))
    }

    fn ask(&self, question: KeyQuestion) {
        ask(&self.shared, &self.answers, question);
    }
}

/// Asks in a task of its own; the answer comes back through the channel.
fn ask(shared: &Arc<XmppShared>, answers: &mpsc::Sender<(KeyQuestion, KeyAnswer)>, question: KeyQuestion) {
    let (shared, answers) = (shared.clone(), answers.clone());
    shared.placement.helpers().spawn(async move {
        let answer = shared.ask(question.clone()).await;
        // The stream may be over.
        let _ = answers.send((question, answer)).await;
    });
}

/// The actor of one stream. It ends with it.
pub(crate) struct XmppConnection {
    stream: StreamId,
    shared: Arc<XmppShared>,
    negotiated: Option<(Negotiated, Arc<Outbox>)>,
    end: StreamEnd,
    last_written: u64,
}

impl XmppConnection {
    /// Begins to carry stanzas, on the arbiter that has the socket.
    pub(crate) fn start(negotiated: Negotiated, shared: Arc<XmppShared>) {
        let (index, placement) = (negotiated.index, shared.placement.clone());
        placement.start_in(index, move |_: &mut _| Self {
            stream: shared.new_stream(),
            shared,
            negotiated: Some((negotiated, Arc::default())),
            end: StreamEnd::Broken("the actor ended".to_owned()),
            last_written: 0,
        });
    }

    fn report_up(&self, negotiated: &Negotiated) {
        let direction = match negotiated.machine {
            S2sStream::Inbound(_) => StreamDirection::Incoming,
            S2sStream::Outbound(_) => StreamDirection::Outgoing,
        };
        if let Some(tls) = &negotiated.tls {
            tracing::info!(
                partner = %negotiated.pair.remote, stream = self.stream.0, version = %tls.version,
                cipher = %tls.cipher, certificate = %fingerprint(&tls.certificates), "s2s stream over tls"
            );
        }
        self.shared.tell(FromEdge::StreamUp {
            stream: self.stream,
            direction,
            dial: negotiated.dial,
            pair: negotiated.pair.clone(),
            method: negotiated.method,
            window_bytes: STREAM_WINDOW_BYTES,
        });
        for pair in &negotiated.more_pairs {
            self.shared.tell(FromEdge::PairProved { stream: self.stream, pair: pair.clone() });
        }
    }
}

fn fingerprint(certificates: &PeerCertificates) -> String {
    if certificates.is_empty() { "none".to_owned() } else { certificates.fingerprint() }
}

impl Actor for XmppConnection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let Some((negotiated, outbox)) = self.negotiated.take() else { return ctx.stop() };
        self.shared.streams.write().insert(self.stream, outbox.clone());
        self.report_up(&negotiated);
        let (reader, writer) = split(negotiated.socket);
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
        };
        let run = carrier.run(negotiated.stanzas);
        ctx.spawn(run.into_actor(self).map(|(end, last_written), actor, ctx| {
            actor.end = end;
            actor.last_written = last_written;
            ctx.stop();
        }));
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.shared.streams.write().remove(&self.stream);
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
}

/// What a wait brought.
enum Brought {
    Read(std::io::Result<usize>),
    Stanzas(Option<(Bytes, u32)>),
    Answer(KeyQuestion, KeyAnswer),
    Time,
}

impl Carrier {
    /// Carries until the stream is over: why it is, and the last stanza that was written.
    async fn run(mut self, first: Vec<Bytes>) -> (StreamEnd, u64) {
        self.hand_over(first).await;
        let mut is_closing = false;
        loop {
            if let Err(error) = self.flush().await {
                return (StreamEnd::Broken(error.to_string()), self.last_written);
            }
            if let Some(end) = self.take_events().await {
                let _ = timeout(CLOSE_LIMIT, self.writer.shutdown()).await;
                return (end, self.last_written);
            }
            match self.wait(is_closing).await {
                Brought::Read(Ok(0)) => self.machine.handle_connection_lost(),
                Brought::Read(Ok(_)) => {
                    let now = self.shared.clock.now().instant;
                    self.machine.handle_buffered(now, &self.shared.table());
                }
                Brought::Read(Err(error)) => {
                    return (StreamEnd::Broken(error.to_string()), self.last_written);
                }
                Brought::Stanzas(Some((bytes, count))) => {
                    if let Err(error) = self.write(&bytes).await {
                        return (StreamEnd::Broken(error.to_string()), self.last_written);
                    }
                    self.last_written += u64::from(count);
                    let (stream, last) = (self.stream, self.last_written);
                    self.shared.tell(FromEdge::Written { stream, last, bytes: bytes.len() as u32 });
                }
                Brought::Stanzas(None) => {
                    is_closing = true;
                    self.machine.close(self.shared.clock.now().instant);
                }
                Brought::Answer(question, answer) => {
                    if let S2sStream::Inbound(stream) = &mut self.machine {
                        stream.handle_key_answer(&question, answer);
                    }
                }
                Brought::Time => self.machine.handle_timeout(self.shared.clock.now().instant),
            }
        }
    }

    async fn wait(&mut self, is_closing: bool) -> Brought {
        let until = self.machine.poll_timeout();
        let far = self.shared.clock.now().instant + FAR;
        let buffer = self.machine.input_buffer();
        buffer.reserve(READ_BYTES);
        tokio::select! {
            read = self.reader.read_buf(buffer) => Brought::Read(read),
            stanzas = self.outbox.take(), if !is_closing => Brought::Stanzas(stanzas),
            Some((question, answer)) = self.answered.recv() => Brought::Answer(question, answer),
            () = sleep_until(until.unwrap_or(far).into()) => Brought::Time,
        }
    }

    /// Takes what the machine says; why the stream ended, once it has.
    async fn take_events(&mut self) -> Option<StreamEnd> {
        let mut stanzas = Vec::new();
        let mut end = None;
        while let Some(event) = self.machine.poll_event() {
            match event {
                StreamEvent::Stanza(stanza) => stanzas.push(stanza.xml),
                StreamEvent::PairProved { pair, .. } => {
                    if let Some(pair) = domain_pair(&pair) {
                        self.shared.tell(FromEdge::PairProved { stream: self.stream, pair });
                    }
                }
                StreamEvent::KeyShown(question) => ask(&self.shared, &self.answers, question),
                StreamEvent::Closed(cause) => end = Some(end_of(&cause)),
                other => note(&other),
            }
        }
        self.hand_over(stanzas).await;
        if end.is_some() {
            // What the machine says last is still due to the peer.
            let _ = self.flush().await;
        }
        end
    }

    /// Offers stanzas until all are taken; meanwhile nothing is read.
    async fn hand_over(&mut self, stanzas: Vec<Bytes>) {
        if stanzas.is_empty() {
            return;
        }
        let first = self.next_stanza;
        self.next_stanza += stanzas.len() as u64;
        let mut offered = FromEdge::Stanzas { stream: self.stream, first, stanzas };
        while let Err(rest) = self.shared.sink.offer(offered) {
            offered = rest;
            sleep(FULL_PAUSE).await;
        }
    }

    async fn flush(&mut self) -> std::io::Result<()> {
        while let Some(bytes) = self.machine.poll_transmit() {
            self.write(&bytes).await?;
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let written = async {
            self.writer.write_all(bytes).await?;
            self.writer.flush().await
        };
        let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "the peer takes nothing");
        timeout(WRITE_LIMIT, written).await.map_err(|_| late())?
    }
}

fn domain_pair(pair: &Pair) -> Option<DomainPair> {
    let local = Domain::from_prepared(pair.local.as_str())?;
    Some(DomainPair { local, remote: Domain::from_prepared(pair.remote.as_str())? })
}

fn proof_of(method: Method, is_tls: bool) -> ProofMethod {
    match method {
        Method::External | Method::Certificate => ProofMethod::SaslExternal,
        Method::DialbackInTheClear => ProofMethod::PlainDialback,
        Method::DialbackWithTls => ProofMethod::TlsDialback,
        Method::DialbackByPeer if is_tls => ProofMethod::TlsDialback,
        Method::DialbackByPeer => ProofMethod::PlainDialback,
    }
}

fn end_of(cause: &CloseCause) -> StreamEnd {
    match cause {
        CloseCause::Ordered => StreamEnd::Closed,
        CloseCause::Ended(condition) => StreamEnd::StreamError(condition.as_str().to_owned()),
        CloseCause::Fault(fault) => match fault {
            StreamFault::UnknownPartner { .. } => StreamEnd::Refused(fault.to_string()),
            StreamFault::Certificate { .. }
            | StreamFault::SaslExhausted { .. }
            | StreamFault::SaslRefused { .. }
            | StreamFault::NoMethod
            | StreamFault::TlsRefused
            | StreamFault::KeyInvalid { .. }
            | StreamFault::NotAuthenticated => StreamEnd::Unauthenticated(fault.to_string()),
            other => StreamEnd::StreamError(format!("{} ({other})", other.condition())),
        },
        CloseCause::PeerError { error, .. } => {
            let condition = error.condition.as_str();
            let text = error.text.as_deref().unwrap_or_default();
            match condition {
                "not-authorized" | "policy-violation" => {
                    StreamEnd::Unauthenticated(format!("the partner says {condition} {text}"))
                }
                "host-unknown" | "host-gone" => StreamEnd::NotFound,
                _ => StreamEnd::StreamError(format!("{condition} {text}")),
            }
        }
        CloseCause::ConnectionLost => StreamEnd::Broken("closed by the peer".to_owned()),
        CloseCause::CloseTimedOut => StreamEnd::Closed,
    }
}

/// What is only worth a line.
fn note(event: &StreamEvent) {
    match event {
        StreamEvent::SaslFailed { condition } => tracing::warn!(condition, "sasl failed"),
        StreamEvent::UnsolicitedDialback { from, .. } => {
            tracing::warn!(partner = from.as_str(), "a dialback answer that nobody asked for");
        }
        StreamEvent::KeyChecked { pair, is_valid } => {
            tracing::debug!(
                partner = pair.remote.as_str(),
                is_valid,
                "a dialback key of ours was asked about"
            );
        }
        other => tracing::debug!(event = ?mem::discriminant(other), "stream event"),
    }
}

const ALPN: &[&str] = &["xmpp-server"];
const TLS_LIMIT: Duration = Duration::from_secs(15);
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
const EARLY_WRITE_LIMIT: Duration = Duration::from_secs(10);
const WRITE_LIMIT: Duration = Duration::from_secs(60);
const EARLY_READ_BYTES: usize = 2048;
const READ_BYTES: usize = 16 << 10;
const FAR: Duration = Duration::from_secs(3600);
const FULL_PAUSE: Duration = Duration::from_millis(2);
const MOST_ANSWERS: usize = 16;
