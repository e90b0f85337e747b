//! One XMPP connection from its first byte to its first proved pair: a task on the arbiter whose reactor has the socket.
//!
//! In: a connection, and the machine that says what to do on it. Out: a stream with a proved pair, the answer to a
//! question about a key, or why there is neither. It knows no stanza but those that came with the proof.

use std::{fmt::Display, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::{sleep_until, timeout},
};
use tombolo_net::{
    AnyStream, Role, ServerChoice, TlsFacts as Handshake, accept_tls, client_config, connect_tls,
    is_about_certificate, server_config_for,
};
use tombolo_xmpp::{
    dialback::DialbackCondition,
    sasl::SaslFailure,
    stream::{
        KeyAnswer, KeyQuestion, OutboundStream, Pair, Refusal, S2sStream, StreamEvent, TlsFacts, TlsStart,
    },
    stream_error::StreamCondition,
};

use crate::{
    DialId, DomainPair, ProofMethod, StreamEnd,
    caught::caught,
    refused_steps::{FailedStep, Skipped, Step},
    stream_end::{NotOpened, domain_pair, end_of, note, other_host, printable, proof_of},
    stream_policy::{Shown, terms_of},
    xmpp_connection::{CLOSE_LIMIT, FAR},
    xmpp_edge::{XmppShared, ascii},
    xmpp_listener::{Admission, PartnerRoom},
};

/// A stream on its way to its first proved pair.
pub(crate) struct Negotiation {
    machine: S2sStream,
    shared: Arc<XmppShared>,
    /// The pair that we dialled.
    dialled: Option<DomainPair>,
    /// What a stream of ours leaves out.
    skipped: Skipped,
    answers: mpsc::Sender<(KeyQuestion, KeyAnswer)>,
    answered: mpsc::Receiver<(KeyQuestion, KeyAnswer)>,
}

/// A stream with a proved pair.
pub(crate) struct Negotiated {
    pub(crate) machine: S2sStream,
    pub(crate) socket: AnyStream,
    pub(crate) index: usize,
    pub(crate) pair: DomainPair,
    pub(crate) method: ProofMethod,
    pub(crate) tls: Option<Handshake>,
    /// From when on the certificates that the stream rests on do not hold any more, since the Unix epoch; none where it
    /// rests on keys alone.
    pub(crate) holds_until: Option<Duration>,
    /// The same for whatever is proved by certificate later; none where the peer has none that holds.
    pub(crate) certificate_end: Option<Duration>,
    /// What the same read brought behind the proof.
    pub(crate) stanzas: Vec<Bytes>,
    /// It brought the end of the stream too, or the connection is gone: why there is nothing to wait for.
    pub(crate) end: Option<StreamEnd>,
    pub(crate) more_pairs: Vec<DomainPair>,
    pub(crate) answers: mpsc::Sender<(KeyQuestion, KeyAnswer)>,
    pub(crate) answered: mpsc::Receiver<(KeyQuestion, KeyAnswer)>,
    pub(crate) dial: Option<DialId>,
    /// Its places in the budgets, when it came from outside; given back when the stream ends.
    pub(crate) places: Option<(Admission, PartnerRoom)>,
}

impl Negotiated {
    /// Ends a stream that came too many.
    pub(crate) async fn refuse(mut self, condition: StreamCondition, text: &str) {
        self.machine.end(condition, Some(text));
        while let Some(bytes) = self.machine.poll_transmit() {
            let written = timeout(WRITE_LIMIT, self.socket.write_all(&bytes)).await;
            if !matches!(written, Ok(Ok(()))) {
                return;
            }
        }
        let _ = timeout(CLOSE_LIMIT, self.socket.shutdown()).await;
    }
}

impl Negotiation {
    /// A stream that a partner opened.
    pub(crate) fn incoming(machine: S2sStream, shared: Arc<XmppShared>) -> Self {
        let (answers, answered) = mpsc::channel(MOST_ANSWERS);
        Self { machine, shared, dialled: None, skipped: Skipped::default(), answers, answered }
    }

    /// A stream that we opened. What it leaves out besides its certificate, the machine was told.
    pub(crate) fn outgoing(
        stream: OutboundStream,
        pair: DomainPair,
        skipped: Skipped,
        shared: Arc<XmppShared>,
    ) -> Self {
        let (answers, answered) = mpsc::channel(MOST_ANSWERS);
        let machine = S2sStream::Outbound(stream);
        Self { machine, shared, dialled: Some(pair), skipped, answers, answered }
    }

    /// Runs until a pair is proved, a question is answered, or the stream is over.
    pub(crate) async fn run(
        mut self,
        socket: TcpStream,
        index: usize,
        tls: TlsStart,
    ) -> Result<(Negotiated, Option<KeyAnswer>), NotOpened> {
        match self.reach(socket, tls).await {
            Ok(reached) => {
                let Reached { socket, tls, pair, method, holds_until, certificate_end, .. } = reached;
                let negotiated = Negotiated {
                    machine: self.machine,
                    socket,
                    index,
                    pair,
                    method,
                    tls,
                    holds_until,
                    certificate_end,
                    stanzas: reached.stanzas,
                    end: reached.end,
                    more_pairs: reached.more_pairs,
                    answers: self.answers,
                    answered: self.answered,
                    dial: None,
                    places: None,
                };
                Ok((negotiated, reached.answer))
            }
            Err(failed) => Err(self.explain(failed)),
        }
    }

    /// Adds to a failure the step that it came from, and what failed before it on the same way to a proof.
    fn explain(&self, failed: NotOpened) -> NotOpened {
        let first = self.first_fault();
        let failed_step = match &self.machine {
            S2sStream::Outbound(stream) if failed.failed_step.is_none() => {
                failed_step(stream, &failed.end).map(Box::new)
            }
            _ => failed.failed_step,
        };
        let claimed = self.machine.remote().map(|domain| domain.as_str().to_owned());
        let end = match first {
            Some(first) => failed.end.after(&first),
            None => failed.end,
        };
        NotOpened { end, failed_step, claimed, ..failed }
    }

    /// Why the pair had to be proved by dialback, though a certificate might have proved it.
    fn first_fault(&self) -> Option<String> {
        let remote = self.machine.remote()?;
        let is_by_certificate = |pair: &DomainPair| {
            terms_of(&self.shared.policy.load(), pair).is_some_and(|terms| terms.external)
        };
        match &self.machine {
            S2sStream::Outbound(stream) => {
                if !stream.has_tried_dialback() || !self.dialled.as_ref().is_some_and(is_by_certificate) {
                    return None;
                }
                if let Some(failure) = stream.sasl_failure() {
                    return Some(sasl_refused(failure));
                }
                if let Some(cause) = &self.skipped.cause {
                    return Some(cause.clone());
                }
            }
            S2sStream::Inbound(stream) => {
                let local = stream.named()?.clone();
                let pair = Pair { local, remote: remote.clone() };
                if !domain_pair(&pair).is_some_and(|pair| is_by_certificate(&pair)) {
                    return None;
                }
            }
        }
        self.machine.certificate_fault().map(|fault| fault.to_string())
    }

    async fn reach(&mut self, socket: TcpStream, tls: TlsStart) -> Result<Reached, NotOpened> {
        let mut socket = AnyStream::Plain(socket);
        let mut handshake = None;
        let is_ours = self.dialled.is_some();
        if tls == TlsStart::Direct {
            (socket, handshake) = self.start_tls(socket, is_ours).await?;
        }
        loop {
            let flushed = self.flush(&mut socket).await;
            let mut end = flushed.err().map(NotOpened::from);
            let mut proved: Option<(DomainPair, ProofMethod)> = None;
            let mut more_pairs = Vec::new();
            let mut is_by_certificate = false;
            let mut stanzas = Vec::new();
            let mut answer = None;
            let mut wants_tls = false;
            while let Some(event) = self.machine.poll_event() {
                match event {
                    StreamEvent::StartTls => wants_tls = true,
                    StreamEvent::PairProved { pair, method } => {
                        if let Some(pair) = domain_pair(&pair) {
                            let method = proof_of(method, socket.is_tls());
                            is_by_certificate |= method == ProofMethod::SaslExternal;
                            match proved {
                                None => proved = Some((pair, method)),
                                Some(_) => more_pairs.push(pair),
                            }
                        }
                    }
                    StreamEvent::PairRefused { refusal, .. } => {
                        self.leave(&mut socket).await;
                        return Err(refused(&refusal).into());
                    }
                    StreamEvent::KeyShown(question) => self.ask(question),
                    StreamEvent::KeyAnswered { answer: given, .. } => answer = Some(given),
                    StreamEvent::Stanza(stanza) => stanzas.push(stanza.xml),
                    StreamEvent::MalformedAddress { xml, .. } => stanzas.push(xml),
                    StreamEvent::Closed(cause) => {
                        let told = NotOpened { other_host: other_host(&cause), ..end_of(&cause).into() };
                        end = end.or(Some(told));
                    }
                    other => note(&other, &self.machine),
                }
            }
            let is_answered = matches!(answer, Some(KeyAnswer::Valid | KeyAnswer::Invalid));
            if proved.is_none()
                && !is_answered
                && let Some(end) = end
            {
                let _ = self.flush(&mut socket).await;
                let _ = timeout(CLOSE_LIMIT, socket.shutdown()).await;
                return Err(end);
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
                let certificate_end = certificate_end(&self.shared, handshake.as_ref(), &pair);
                if is_by_certificate && certificate_end.is_none() {
                    self.machine.end(StreamCondition::NotAuthorized, Some("the certificate has run out"));
                    let _ = self.flush(&mut socket).await;
                    let _ = timeout(CLOSE_LIMIT, socket.shutdown()).await;
                    let text = "the certificate ran out before its proof was complete";
                    return Err(StreamEnd::Unauthenticated(text.to_owned()).into());
                }
                return Ok(Reached {
                    socket,
                    tls: handshake,
                    pair,
                    method,
                    holds_until: certificate_end.filter(|_| is_by_certificate),
                    certificate_end,
                    stanzas,
                    end: end.map(|not_opened| not_opened.end),
                    more_pairs,
                    answer,
                });
            }
            self.wait(&mut socket).await?;
        }
    }

    /// Waits for bytes, an answer, or the time.
    async fn wait(&mut self, socket: &mut AnyStream) -> Result<(), NotOpened> {
        let until = self.machine.poll_timeout();
        let buffer = self.machine.input_buffer();
        buffer.reserve(READ_BYTES);
        tokio::select! {
            read = socket.read_buf(buffer) => match read {
                Ok(0) => self.machine.handle_connection_lost(),
                Ok(_) => {
                    let now = self.shared.clock.now().instant;
                    self.machine.handle_buffered(now, &self.shared.table());
                }
                Err(error) if is_about_certificate(&error) => return Err(certificate_refused(&error)),
                Err(error) => return Err(StreamEnd::Broken(error.to_string()).into()),
            },
            Some((question, answer)) = self.answered.recv() => {
                if let S2sStream::Inbound(stream) = &mut self.machine {
                    stream.handle_key_answer(&question, answer, &self.shared.table());
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
            match timeout(WRITE_LIMIT, written).await {
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
    ) -> Result<(AnyStream, Option<Handshake>), NotOpened> {
        let AnyStream::Plain(socket) = socket else {
            return Err(StreamEnd::StreamError("policy-violation".to_owned()).into());
        };
        let left = self.machine.poll_timeout().map(|until| until - self.shared.clock.now().instant);
        let limit = left.map_or(TLS_LIMIT, |left| left.min(TLS_LIMIT));
        let outcome = match &self.dialled {
            Some(pair) => {
                let own = self.shared.certificates.certificate(pair.local.as_str());
                let own = own.filter(|_| !self.skipped.certificate);
                connect_tls(socket, client_config(own, ALPN), &ascii(pair.remote.as_str()), limit).await
            }
            None => {
                let named = match &self.machine {
                    S2sStream::Inbound(stream) => stream.named().map(|domain| domain.as_str()),
                    S2sStream::Outbound(_) => None,
                };
                let choice = ServerChoice { alpn: ALPN, without_sni: named, ..ServerChoice::default() };
                accept_tls(socket, server_config_for(&self.shared.certificates, &choice), limit).await
            }
        };
        let is_starttls = matches!(&self.machine, S2sStream::Outbound(stream) if stream.is_starting_tls());
        let (socket, facts) = outcome.map_err(|error| match error.is_about_certificate() {
            true => certificate_refused(&error),
            false => {
                let is_refusal = is_starttls && error.is_about_protocol();
                let failed = NotOpened::from(error);
                let step = is_refusal.then(|| Box::new(tls_failed(&failed.end)));
                NotOpened { failed_step: step, ..failed }
            }
        })?;
        let now = self.shared.clock.now();
        let role = if is_ours { Role::Server } else { Role::Client };
        let certificate = Arc::new(Shown::new(
            facts.certificates.clone(),
            self.shared.trust.clone(),
            role,
            self.shared.policy.load_full(),
            now.wall,
            self.shared.metrics.clone(),
        ));
        self.machine.handle_tls_established(TlsFacts { certificate }, now.instant, &self.shared.table());
        Ok((socket, Some(facts)))
    }

    fn ask(&self, question: KeyQuestion) {
        ask(&self.shared, &self.answers, question);
    }
}

/// The step over which a stream of ours failed, which ended so.
fn failed_step(stream: &OutboundStream, end: &StreamEnd) -> Option<FailedStep> {
    if stream.has_external_failed() {
        let cause = match stream.sasl_failure() {
            Some(failure) => sasl_refused(failure),
            None => format!("the stream ended upon our SASL EXTERNAL ({end})"),
        };
        return Some(FailedStep { step: Step::External, cause });
    }
    stream.has_refused_tls().then(|| tls_failed(end))
}

fn tls_failed(end: &StreamEnd) -> FailedStep {
    FailedStep { step: Step::StartTls, cause: format!("the partner offers TLS and it failed ({end})") }
}

/// How far a negotiation came.
struct Reached {
    socket: AnyStream,
    tls: Option<Handshake>,
    pair: DomainPair,
    method: ProofMethod,
    holds_until: Option<Duration>,
    certificate_end: Option<Duration>,
    stanzas: Vec<Bytes>,
    end: Option<StreamEnd>,
    more_pairs: Vec<DomainPair>,
    answer: Option<KeyAnswer>,
}

/// When a proof by certificate that is made now ends: each side judged the other's certificate, so with the first of both
/// to run out. None where the peer's does not hold now.
fn certificate_end(
    shared: &XmppShared,
    handshake: Option<&Handshake>,
    pair: &DomainPair,
) -> Option<Duration> {
    let theirs = &handshake?.certificates;
    let ours = shared.certificates.not_after(pair.local.as_str());
    first_end(theirs.not_after()?, theirs.issuers_not_after().chain(ours), shared.clock.now().wall)
}

/// The first moment, since the Unix epoch, at which one of the certificates does not hold any more. `theirs` has to hold
/// now. Of the others, one that ran out before was no part of the proof: an issuer's certificate that nobody needs, or
/// ours, which the peer takes all the same.
fn first_end(theirs: Duration, others: impl Iterator<Item = Duration>, now: Duration) -> Option<Duration> {
    let end = after(theirs);
    (end > now).then(|| others.map(after).filter(|end| *end > now).fold(end, Duration::min))
}

/// The first moment after a certificate's notAfter. The second that notAfter names belongs to the validity (RFC 5280
/// §4.1.2.5), and the verifier compares whole seconds: with any earlier end a redial in that second would be proved.
fn after(not_after: Duration) -> Duration {
    Duration::from_secs(not_after.as_secs() + 1)
}

/// Asks in a task of its own; the answer comes back through the channel.
pub(crate) fn ask(
    shared: &Arc<XmppShared>,
    answers: &mpsc::Sender<(KeyQuestion, KeyAnswer)>,
    question: KeyQuestion,
) {
    let (shared, answers) = (shared.clone(), answers.clone());
    shared.placement.helpers().spawn(async move {
        let asked = caught(&shared.metrics, "dialback question", shared.ask(question.clone())).await;
        let answer = asked.unwrap_or(KeyAnswer::Failed(DialbackCondition::RemoteServerTimeout));
        // The stream may be over.
        let _ = answers.send((question, answer)).await;
    });
}

/// The peer ended TLS because of the certificate that we showed.
fn certificate_refused(error: &dyn Display) -> NotOpened {
    let cause = format!("the partner refused our certificate in the TLS handshake: {error}");
    let end = StreamEnd::Unauthenticated(cause.clone());
    let failed_step = Some(Box::new(FailedStep { step: Step::Certificate, cause }));
    NotOpened { failed_step, ..end.into() }
}

/// The peer's refusal of SASL EXTERNAL, for people.
fn sasl_refused(failure: &SaslFailure) -> String {
    format!("the partner refused our certificate (SASL EXTERNAL: {})", printable(&failure.to_string()))
}

/// Why the peer does not take our pair.
fn refused(refusal: &Refusal) -> StreamEnd {
    let what = match refusal {
        Refusal::Error(condition) => {
            return StreamEnd::Unauthenticated(format!("the partner refused us: {}", condition.as_str()));
        }
        Refusal::Invalid => {
            return StreamEnd::KeyRefused("the partner says that our key is bad".to_owned());
        }
        Refusal::TimedOut => "the partner did not answer our key in time",
        Refusal::StreamEnded => "the stream ended before the answer to our key",
        Refusal::NotAllowed => "no proof that we allow is left on this stream",
        Refusal::TooManyPairs => "more pairs than a stream may have",
    };
    StreamEnd::Unauthenticated(what.to_owned())
}

const ALPN: &[&str] = &["xmpp-server"];
const TLS_LIMIT: Duration = Duration::from_secs(15);
const WRITE_LIMIT: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 2048;
const MOST_ANSWERS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_proof_by_certificate_ends_with_the_first_that_runs_out_of_those_that_hold_now() {
        let now = 10 * DAY;
        let end = |theirs: Duration, others: &[Duration]| first_end(theirs, others.iter().copied(), now);
        assert_eq!(end(20 * DAY, &[]), Some(20 * DAY + SECOND));
        assert_eq!(end(20 * DAY, &[15 * DAY, 30 * DAY]), Some(15 * DAY + SECOND));
        assert_eq!(end(20 * DAY, &[5 * DAY]), Some(20 * DAY + SECOND), "ours had run out before");
        assert_eq!(end(5 * DAY, &[20 * DAY]), None, "theirs has run out");
    }

    /// The verifier takes a certificate in the whole second that its notAfter names: `floor(now) <= notAfter`.
    #[test]
    fn whatever_the_verifier_takes_has_an_end_that_is_still_to_come_and_nothing_else_has() {
        let not_after = 10 * DAY;
        for milliseconds in (0..3_000).step_by(50) {
            let now = not_after - SECOND + Duration::from_millis(milliseconds);
            let is_taken = now.as_secs() <= not_after.as_secs();
            let end = first_end(not_after, std::iter::empty(), now);
            assert_eq!(end.is_some(), is_taken, "{now:?}");
            assert!(
                end.is_none_or(|end| end > now && end.as_secs() > not_after.as_secs()),
                "{now:?}: {end:?}"
            );
        }
    }
}
