//! A stream that we opened: we are its initiating server, or ask an authoritative server about keys.
//!
//! TLS, SASL EXTERNAL and dialback lead to a stream on which stanzas of proved pairs are sent. Nothing that a peer sends
//! on it gives the peer any right.

mod dialback;
mod negotiation;

use std::{sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};

use super::{
    CloseCause, KeyAnswer, KeyQuestion, Method, NotProved, Pair, Refusal, StreamEvent, StreamFault,
    StreamLimits, StreamPolicy, TlsFacts, TlsStart,
    direction::Direction,
    header::{OwnHeader, PeerHeader},
    pairs::ProvedPairs,
    policy::Security,
    wire::{Life, Wire},
};
use crate::{
    dialback::{DialbackCondition, DialbackSecrets},
    features::Features,
    framer::Frame,
    jid::Domain,
    ns,
    sasl::{SaslFailure, write_response},
    stream_error::{StreamCondition, StreamError},
    xml::{Reader, Scope, Tag},
};

/// What all outbound streams of a process share.
#[derive(Debug, Clone)]
pub struct OutboundSettings {
    /// Bounds of each stream.
    pub limits: StreamLimits,
    /// What dialback keys are made with.
    pub secrets: DialbackSecrets,
}

/// What a stream is opened for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dial {
    /// Our domain and the one that is dialled.
    pub pair: Pair,
    /// What for.
    pub purpose: Purpose,
    /// How TLS begins.
    pub tls: TlsStart,
    /// Steps to leave out, where the partner's terms allow to do without them.
    pub skip: SkippedSteps,
}

/// Steps of the negotiation that an earlier stream failed over.
///
/// Skipping never widens the partner's terms: a step that they require is taken all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SkippedSteps {
    /// Prove ourselves by dialback, not by SASL EXTERNAL. Takes effect where the terms allow dialback over TLS.
    pub external: bool,
    /// Stay in the clear though the peer offers STARTTLS. Takes effect where the terms allow dialback without TLS.
    pub starttls: bool,
}

/// What a stream is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// To send stanzas: the pair is proved.
    Send,
    /// To ask about keys: nothing is proved.
    Verify,
}

/// A stream that we opened.
#[derive(Debug)]
pub struct OutboundStream {
    wire: Wire,
    settings: Arc<OutboundSettings>,
    dial: Dial,
    state: State,
    /// Pairs to be proved and keys to be asked about as soon as the stream can do it.
    waiting_pairs: Vec<Pair>,
    waiting_questions: Vec<KeyQuestion>,
    /// `<auth/>` was sent, and the dialled pair is not proved.
    is_external_open: bool,
    is_tls_refused: bool,
    /// What the peer said when it refused SASL.
    sasl_failure: Option<SaslFailure>,
}

#[derive(Debug)]
enum State {
    /// TLS is being made: by us after `<proceed/>`, or from the start.
    AwaitTls { until: Instant },
    /// Our header is sent.
    AwaitHeader { security: Security, sasl: Sasl, until: Instant },
    /// The peer's header is there.
    AwaitFeatures { opened: Opened, sasl: Sasl, until: Instant },
    /// `<starttls/>` is sent.
    AwaitProceed { opened: Opened, until: Instant },
    /// `<auth/>` is sent.
    AwaitSasl { opened: Opened, features: Features, until: Instant },
    /// Negotiated: pairs are proved, keys asked about, stanzas sent.
    Established(Established),
}

/// Whether SASL is behind us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sasl {
    Ahead,
    Done,
}

#[derive(Debug)]
struct Opened {
    security: Security,
    /// The id that the peer gave to the stream.
    id: Box<str>,
    scope: Arc<Scope>,
    /// Features follow the header.
    has_features: bool,
}

#[derive(Debug)]
struct Established {
    opened: Opened,
    pairs: ProvedPairs,
    /// Pairs whose key was sent.
    asked: Vec<(Pair, Instant)>,
    /// Keys that the peer was asked about.
    questions: Vec<(KeyQuestion, Instant)>,
    dialback_errors: bool,
    max_bytes: Option<u32>,
    /// The dialled pair must be proved by then, unless nothing is to be proved.
    until: Option<Instant>,
}

impl OutboundStream {
    /// A stream on a connection that was just made. With [`TlsStart::Direct`] TLS must be made first.
    pub fn new(settings: Arc<OutboundSettings>, dial: Dial, now: Instant) -> Self {
        let until = now + settings.limits.time_to_authenticate;
        let mut wire = Wire::new(settings.limits.unauthenticated);
        let state = match dial.tls {
            TlsStart::Direct => State::AwaitTls { until },
            TlsStart::StartTls => {
                write_header(&mut wire.output, &dial.pair);
                State::AwaitHeader { security: Security::Plain, sasl: Sasl::Ahead, until }
            }
        };
        Self {
            wire,
            settings,
            dial,
            state,
            waiting_pairs: Vec::new(),
            waiting_questions: Vec::new(),
            is_external_open: false,
            is_tls_refused: false,
            sasl_failure: None,
        }
    }

    /// Takes bytes that came from the peer.
    pub fn handle_input(&mut self, bytes: &[u8], now: Instant, policy: &dyn StreamPolicy) {
        if !self.wire.is_closed() {
            self.wire.framer.push(bytes);
            self.handle_buffered(now, policy);
        }
    }

    /// The buffer to read into, append only; then call [`Self::handle_buffered`].
    pub fn input_buffer(&mut self) -> &mut BytesMut {
        self.wire.framer.buffer_mut()
    }

    /// Takes what was appended to the input buffer.
    pub fn handle_buffered(&mut self, now: Instant, policy: &dyn StreamPolicy) {
        self.read_frames(now, policy);
    }

    /// TLS is up; all before it is forgotten, and a new header goes out. A peer whose certificate does not name the
    /// dialled domain is left, unless dialback is allowed with it.
    pub fn handle_tls_established(&mut self, facts: TlsFacts, _now: Instant, policy: &dyn StreamPolicy) {
        let State::AwaitTls { until } = self.state else { return };
        if self.wire.is_closed() {
            return;
        }
        self.wire.framer.forget();
        self.wire.framer.restart();
        write_header(&mut self.wire.output, &self.dial.pair);
        let security = Security::Tls(facts.certificate);
        let is_proved = security.proves(&self.dial.pair.remote);
        self.state = State::AwaitHeader { security, sasl: Sasl::Ahead, until };
        match policy.terms(&self.dial.pair.local, &self.dial.pair.remote) {
            None => self.fail(self.unknown_partner()),
            Some(terms) if !is_proved && !terms.allow_dialback(true) => {
                if let Some(fault) = self.certificate_fault() {
                    self.fail(fault);
                }
            }
            Some(_) => {}
        }
    }

    /// The connection ended or TLS failed.
    pub fn handle_connection_lost(&mut self) {
        self.closed(CloseCause::ConnectionLost);
    }

    /// The time of [`Self::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.wire.life {
            Life::Closed => return,
            Life::Closing { until } if until <= now => return self.closed(CloseCause::CloseTimedOut),
            _ => {}
        }
        if self.state.until().is_some_and(|until| until <= now) {
            return self.fail(StreamFault::AuthenticationTimedOut);
        }
        if let State::Established(established) = &mut self.state {
            established.expire(&mut self.wire.events, now);
        }
    }

    /// Ends our side in order, after which nothing can be sent.
    pub fn close(&mut self, now: Instant) {
        match self.state {
            State::AwaitTls { .. } => self.closed(CloseCause::Ordered),
            _ => self.wire.close(now + self.settings.limits.close_wait),
        }
    }

    /// Policy is another by now: forgets, and gives back, the pairs whose proof it does not allow any more.
    pub fn handle_policy_change(&mut self, policy: &dyn StreamPolicy) -> Vec<Pair> {
        let State::Established(established) = &mut self.state else { return Vec::new() };
        let Established { pairs, opened, .. } = established;
        pairs.take_forbidden(|pair, method| {
            policy.terms(&pair.local, &pair.remote).is_some_and(|terms| match method {
                Method::External => terms.external,
                _ => opened.may_show_key(pair, &terms),
            })
        })
    }

    /// Ends the stream with an error.
    pub fn end(&mut self, condition: StreamCondition, text: Option<&str>) {
        self.end_with(condition, text, None, CloseCause::Ended(condition));
    }

    /// Sends whole stanzas, one or more, all of one proved pair. Their bytes are the caller's to answer for.
    pub fn send_stanzas(&mut self, pair: &Pair, stanzas: &[u8]) -> Result<(), NotProved> {
        if !self.may_send(pair) {
            return Err(NotProved);
        }
        self.wire.output.extend_from_slice(stanzas);
        Ok(())
    }

    /// True when stanzas of this pair may be sent now.
    pub fn may_send(&self, pair: &Pair) -> bool {
        match &self.state {
            State::Established(established) => {
                self.wire.life == Life::Open && established.pairs.contains(pair)
            }
            _ => false,
        }
    }

    /// Asks the peer to take stanzas of a further pair too (XEP-0220 §2.6). The answer is an event.
    ///
    /// Another `remote` than the dialled one may be asked for only where the peer shows
    /// [`Self::has_dialback_errors`] and that domain resolves to the same address and port.
    pub fn prove(&mut self, pair: Pair, now: Instant, policy: &dyn StreamPolicy) {
        if self.wire.life != Life::Open {
            self.wire.events.push_back(StreamEvent::PairRefused { pair, refusal: Refusal::StreamEnded });
            return;
        }
        self.waiting_pairs.push(pair);
        self.send_waiting(now, policy);
    }

    /// Asks the peer, as authoritative server, about a key. The answer is an event.
    pub fn ask_key(&mut self, question: KeyQuestion, now: Instant, policy: &dyn StreamPolicy) {
        if self.wire.life != Life::Open {
            let answer = KeyAnswer::Failed(DialbackCondition::RemoteServerTimeout);
            self.wire.events.push_back(StreamEvent::KeyAnswered { question, answer });
            return;
        }
        self.waiting_questions.push(question);
        self.send_waiting(now, policy);
    }

    /// True when the peer understands dialback errors, so that further target domains may be tried on this stream.
    pub fn has_dialback_errors(&self) -> bool {
        matches!(&self.state, State::Established(established) if established.dialback_errors)
    }

    /// The largest stanza in octets that the peer says it takes (XEP-0478).
    pub fn max_bytes(&self) -> Option<u32> {
        match &self.state {
            State::Established(established) => established.max_bytes,
            _ => None,
        }
    }

    /// True when SASL EXTERNAL was begun and did not lead to a proof of the dialled pair.
    pub fn has_external_failed(&self) -> bool {
        self.is_external_open
    }

    /// What the peer said when it refused SASL EXTERNAL.
    pub fn sasl_failure(&self) -> Option<&SaslFailure> {
        self.sasl_failure.as_ref()
    }

    /// True while the TLS handshake of STARTTLS runs.
    pub fn is_starting_tls(&self) -> bool {
        self.dial.tls == TlsStart::StartTls && matches!(self.state, State::AwaitTls { .. })
    }

    /// True when the peer offered STARTTLS and answered it with a failure.
    pub fn has_refused_tls(&self) -> bool {
        self.is_tls_refused
    }

    /// True when our key was shown, so that dialback has to prove the dialled pair.
    pub fn has_tried_dialback(&self) -> bool {
        matches!(&self.state, State::Established(_))
    }

    /// Why the peer's certificate does not prove the dialled domain; `None` when it does, and without TLS.
    pub fn certificate_fault(&self) -> Option<StreamFault> {
        let security = match &self.state {
            State::AwaitHeader { security, .. } => security,
            state => &state.opened()?.security,
        };
        let remote = &self.dial.pair.remote;
        (security.has_tls() && !security.proves(remote)).then(|| security.certificate_fault(remote))
    }

    /// What the stream was opened for.
    pub fn dial(&self) -> &Dial {
        &self.dial
    }

    /// Bytes to write; `None` when there are none.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.wire.poll_transmit()
    }

    /// The next event, in order.
    pub fn poll_event(&mut self) -> Option<StreamEvent> {
        self.wire.events.pop_front()
    }

    /// When [`Self::handle_timeout`] must be called, if nothing comes before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.wire.life {
            Life::Closed => None,
            Life::Closing { until } => Some(until),
            Life::Open => {
                let answers = match &self.state {
                    State::Established(established) => established.next_expiry(),
                    _ => None,
                };
                self.state.until().into_iter().chain(answers).min()
            }
        }
    }

    /// True once the stream is over.
    pub fn is_closed(&self) -> bool {
        self.wire.is_closed()
    }

    /// The pairs that are proved, oldest first.
    pub fn proved_pairs(&self) -> &[Pair] {
        match &self.state {
            State::Established(established) => established.pairs.as_slice(),
            _ => &[],
        }
    }

    fn handle_header(
        &mut self,
        xml: &[u8],
        now: Instant,
        policy: &dyn StreamPolicy,
    ) -> Result<(), StreamFault> {
        let State::AwaitHeader { security, sasl, until } = &self.state else {
            return Err(StreamFault::Header);
        };
        let (security, sasl, until) = (security.clone(), *sasl, *until);
        let header = PeerHeader::read(xml, self.wire.framer.limits())?;
        // The response names the domain that we meant, or none (RFC 6120 §4.7.1, §4.9.1.2).
        if let Some(from) = header.from.as_deref()
            && !from.is_empty()
            && Domain::parse(from).as_ref() != Ok(&self.dial.pair.remote)
        {
            return Err(StreamFault::HeaderFrom);
        }
        // An error may follow a header without id; anything else needs one.
        let id = header.id.unwrap_or_default();
        let opened =
            Opened { security, id, scope: Arc::new(header.scope), has_features: header.has_features };
        let must_wait = opened.has_features || opened.id.is_empty();
        self.state = State::AwaitFeatures { opened, sasl, until };
        if must_wait {
            return Ok(());
        }
        // A peer without features knows neither TLS nor SASL.
        self.handle_features(Features::default(), now, policy)
    }

    fn handle_element(
        &mut self,
        tag: &Tag<'_>,
        mut reader: Reader<'_>,
        now: Instant,
        policy: &dyn StreamPolicy,
    ) -> Result<(), StreamFault> {
        match (&self.state, &*tag.ns, tag.name) {
            (_, ns::STREAMS, "error") => {
                let error = StreamError::read(&mut reader);
                let is_trusted =
                    self.state.opened().is_some_and(|opened| opened.security.proves(&self.dial.pair.remote));
                self.refuse_waiting();
                self.wire.peer_failed(CloseCause::PeerError { error, is_trusted });
                Ok(())
            }
            _ if self.wire.life != Life::Open => Ok(()),
            (State::AwaitFeatures { .. }, ns::STREAMS, "features") => {
                self.handle_features(Features::read(&mut reader), now, policy)
            }
            (State::AwaitProceed { .. }, ns::TLS, "proceed") => self.handle_proceed(),
            (State::AwaitProceed { .. }, ns::TLS, "failure") => {
                self.is_tls_refused = true;
                Err(StreamFault::TlsRefused)
            }
            (State::AwaitSasl { .. }, ns::SASL, "success") => self.handle_success(),
            (State::AwaitSasl { .. }, ns::SASL, "challenge") => {
                write_response(&mut self.wire.output, self.dial.pair.local.as_str());
                Ok(())
            }
            (State::AwaitSasl { .. }, ns::SASL, "failure") => {
                self.handle_sasl_failure(SaslFailure::read(&mut reader), now, policy)
            }
            (State::Established(_), ns::DIALBACK, _) => self.handle_dialback(tag, &mut reader),
            // A peer may refuse a stanza by sending it back here, against RFC 6120 §4.5; it proves nothing.
            (State::Established(_), _, "presence" | "message" | "iq") => {
                self.wire.events.push_back(StreamEvent::StrayElement);
                Ok(())
            }
            // A feature set that changes later is of no interest.
            (State::Established(_), ns::STREAMS, "features") => Ok(()),
            _ => Err(StreamFault::UnknownElement),
        }
    }

    /// Whether [`Self::handle_element`] has a use for an element with this start tag.
    fn has_place(&self, tag: &Tag<'_>) -> bool {
        match (&self.state, &*tag.ns, tag.name) {
            (_, ns::STREAMS, "error") => true,
            _ if self.wire.life != Life::Open => true,
            (State::AwaitFeatures { .. } | State::Established(_), ns::STREAMS, "features")
            | (State::AwaitProceed { .. }, ns::TLS, "proceed" | "failure")
            | (State::AwaitSasl { .. }, ns::SASL, "success" | "challenge" | "failure")
            | (State::Established(_), ns::DIALBACK, "result" | "verify")
            | (State::Established(_), _, "presence" | "message" | "iq") => true,
            _ => false,
        }
    }

    fn unknown_partner(&self) -> StreamFault {
        let Pair { local, remote } = self.dial.pair.clone();
        StreamFault::UnknownPartner { local, remote }
    }

    fn closed(&mut self, cause: CloseCause) {
        if !self.wire.is_closed() {
            self.refuse_waiting();
            self.wire.closed(cause);
        }
    }
}

impl Direction for OutboundStream {
    fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    fn awaits_tls(&self) -> bool {
        matches!(self.state, State::AwaitTls { .. })
    }

    fn handle_frame(
        &mut self,
        frame: Frame,
        now: Instant,
        policy: &dyn StreamPolicy,
    ) -> Result<(), StreamFault> {
        match frame {
            Frame::Header(xml) => self.handle_header(&xml, now, policy),
            Frame::Opened(xml) => {
                let opened = self.state.opened().ok_or(StreamFault::Header)?;
                let text = std::str::from_utf8(&xml).map_err(|_| StreamFault::UnknownElement)?;
                let (tag, _) = Reader::open(text, &opened.scope).ok_or(StreamFault::UnknownElement)?;
                // One that has no place here is not awaited: it would swallow what is behind its start tag.
                if self.has_place(&tag) { Ok(()) } else { Err(StreamFault::UnknownElement) }
            }
            Frame::Element(element) => {
                let scope = Arc::clone(&self.state.opened().ok_or(StreamFault::Header)?.scope);
                let checked = element.checked();
                let (tag, reader) = Reader::open(checked.text, &scope).ok_or(StreamFault::UnknownElement)?;
                self.handle_element(&tag, reader, now, policy)
            }
            Frame::End => {
                self.refuse_waiting();
                self.wire.peer_ended();
                Ok(())
            }
        }
    }

    fn end_with(
        &mut self,
        condition: StreamCondition,
        text: Option<&str>,
        application: Option<&str>,
        cause: CloseCause,
    ) {
        if self.wire.is_closed() {
            return;
        }
        self.refuse_waiting();
        match self.state {
            // Between the clear and TLS nothing can be said (RFC 6120 §5.4.3.2).
            State::AwaitTls { .. } => self.wire.closed(cause),
            _ => self.wire.fail(condition, text, application, cause),
        }
    }
}

/// Our header. `from` is in the clear too: a peer that allows no TLS needs it to choose its terms.
fn write_header(out: &mut Vec<u8>, pair: &Pair) {
    let header = OwnHeader {
        from: Some(pair.local.as_str()),
        to: Some(pair.remote.as_str()),
        id: None,
        is_old: false,
    };
    header.write(out);
}

impl State {
    fn opened(&self) -> Option<&Opened> {
        match self {
            Self::AwaitFeatures { opened, .. }
            | Self::AwaitProceed { opened, .. }
            | Self::AwaitSasl { opened, .. } => Some(opened),
            Self::Established(established) => Some(&established.opened),
            Self::AwaitTls { .. } | Self::AwaitHeader { .. } => None,
        }
    }

    fn until(&self) -> Option<Instant> {
        match self {
            Self::AwaitTls { until }
            | Self::AwaitHeader { until, .. }
            | Self::AwaitFeatures { until, .. }
            | Self::AwaitProceed { until, .. }
            | Self::AwaitSasl { until, .. } => Some(*until),
            Self::Established(established) => established.until,
        }
    }
}
