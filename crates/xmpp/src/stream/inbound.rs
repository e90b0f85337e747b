//! A stream that a peer opened to us: we are its receiving server, and at times its authoritative server.
//!
//! Header, STARTTLS, SASL EXTERNAL and dialback lead from state to state; stanzas are handled in the last one only.
//! No stanza is ever sent on it (RFC 6120 §4.5).

mod dialback;
mod opened;
mod proved;
mod sasl;

use std::{mem, sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};

use super::{
    CloseCause, KeyQuestion, Method, Pair, StreamEvent, StreamFault, StreamIds, StreamLimits, StreamPolicy,
    TlsFacts, TlsStart,
    direction::Direction,
    header::{OwnHeader, PeerHeader},
    pairs::ProvedPairs,
    policy::Security,
    wire::{Life, Wire, complete, write_tls_element},
};
use crate::{
    dialback::{DialbackCondition, DialbackSecrets},
    features::{Features, StartTlsOffer},
    framer::{Element, Frame},
    jid::Domain,
    ns,
    stanza::{StanzaFault, StanzaHead},
    stream_error::{StreamCondition, StreamError},
    xml::{Checked, Reader, Scope, Tag, XmlFault},
};

/// What all inbound streams of a process share.
#[derive(Debug, Clone)]
pub struct InboundSettings {
    /// Bounds of each stream.
    pub limits: StreamLimits,
    /// What dialback keys are checked with.
    pub secrets: DialbackSecrets,
}

/// What became of a question about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAnswer {
    /// The authoritative server made the key.
    Valid,
    /// It did not.
    Invalid,
    /// It could not be found out: `RemoteConnectionFailed` without a connection, `RemoteServerNotFound` when the
    /// authoritative server does not know the domain or it does not resolve, else `RemoteServerTimeout`.
    Failed(DialbackCondition),
}

/// A stream that a peer opened to us.
#[derive(Debug)]
pub struct InboundStream {
    wire: Wire,
    settings: Arc<InboundSettings>,
    ids: StreamIds,
    state: State,
    /// Our domain that the newest header names.
    named: Option<Domain>,
}

#[derive(Debug)]
enum State {
    /// TLS is being made: by us after `<proceed/>`, or from the start.
    AwaitTls { until: Instant },
    /// The peer's header must come. Nothing of an earlier header is remembered but who was authenticated by SASL.
    Opening { security: Security, authenticated: Option<Domain>, until: Instant },
    /// Both headers are there; no pair is proved.
    Negotiating(Negotiating),
    /// At least one pair is proved: stanzas may come.
    Proved(Proved),
}

/// What both headers of the present stream say.
#[derive(Debug)]
struct Opened {
    security: Security,
    /// Our domain that the peer named.
    local: Domain,
    /// The domain that the peer says it is. Nothing follows from it.
    claimed: Option<Domain>,
    id: Box<str>,
    scope: Arc<Scope>,
    /// Keys that are being asked about.
    pending: Vec<Pending>,
}

#[derive(Debug)]
struct Pending {
    pair: Pair,
    until: Instant,
}

#[derive(Debug)]
struct Negotiating {
    opened: Opened,
    sasl: sasl::Progress,
    elements: usize,
    until: Instant,
}

#[derive(Debug)]
struct Proved {
    opened: Opened,
    pairs: ProvedPairs,
    malformed: proved::MalformedAddresses,
}

/// A pair that may now send.
struct Proof {
    pair: Pair,
    method: Method,
    /// Octets of its largest stanza; `None` for the default.
    stanza_bytes: Option<usize>,
}

/// What a frame leads to.
enum Next {
    Stay,
    StartTls,
    /// SASL succeeded: a new stream header must come.
    Restart(Domain),
    Prove(Proof),
    PeerFailed(StreamError),
    /// End our side in order, for this reason.
    Refuse(StreamFault),
}

impl InboundStream {
    /// A stream on a connection that was just accepted. With [`TlsStart::Direct`] TLS must be made first.
    pub fn new(settings: Arc<InboundSettings>, tls: TlsStart, ids: StreamIds, now: Instant) -> Self {
        let until = now + settings.limits.time_to_authenticate;
        let state = match tls {
            TlsStart::Direct => State::AwaitTls { until },
            TlsStart::StartTls => State::Opening { security: Security::Plain, authenticated: None, until },
        };
        let wire = Wire::new(settings.limits.unauthenticated);
        Self { wire, settings, ids, state, named: None }
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

    /// TLS is up; all before it is forgotten.
    pub fn handle_tls_established(&mut self, facts: TlsFacts, _now: Instant, _policy: &dyn StreamPolicy) {
        if let State::AwaitTls { until } = self.state {
            self.wire.framer.forget();
            self.wire.framer.restart();
            let security = Security::Tls(facts.certificate);
            self.state = State::Opening { security, authenticated: None, until };
        }
    }

    /// The connection ended or TLS failed.
    pub fn handle_connection_lost(&mut self) {
        self.wire.closed(CloseCause::ConnectionLost);
    }

    /// What the authoritative server said to [`StreamEvent::KeyShown`]. An answer that no longer fits is ignored, and a good
    /// key proves nothing that policy does not allow by now.
    pub fn handle_key_answer(
        &mut self,
        question: &KeyQuestion,
        answer: KeyAnswer,
        policy: &dyn StreamPolicy,
    ) {
        if self.wire.life != Life::Open {
            return;
        }
        let next = self.answer_key(question, answer, policy);
        self.follow(next);
    }

    /// The time of [`Self::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.wire.life {
            Life::Closed => return,
            Life::Closing { until } if until <= now => return self.wire.closed(CloseCause::CloseTimedOut),
            _ => {}
        }
        if self.state.until().is_some_and(|until| until <= now) {
            return self.fail(StreamFault::AuthenticationTimedOut);
        }
        if let Some(opened) = self.state.opened_mut() {
            opened.expire_keys(&mut self.wire.output, now);
        }
    }

    /// Ends our side in order; what the peer still sends is handled.
    pub fn close(&mut self, now: Instant) {
        match self.state {
            State::Negotiating(_) | State::Proved(_) => {
                self.wire.close(now + self.settings.limits.close_wait);
            }
            // There is no stream to end yet.
            State::AwaitTls { .. } | State::Opening { .. } => self.wire.closed(CloseCause::Ordered),
        }
    }

    /// Policy is another by now: forgets, and gives back, the pairs whose proof it does not allow any more, and refuses keys
    /// that would prove nothing.
    pub fn handle_policy_change(&mut self, policy: &dyn StreamPolicy) -> Vec<Pair> {
        if self.wire.life == Life::Open
            && let Some(opened) = self.state.opened_mut()
        {
            opened.refuse_keys(&mut self.wire.output, policy);
        }
        let State::Proved(proved) = &mut self.state else { return Vec::new() };
        proved.pairs.take_forbidden(|pair, method| {
            policy.terms(&pair.local, &pair.remote).is_some_and(|terms| terms.allow_proof(method))
        })
    }

    /// Our domain that the peer's newest header names, once one came; in TLS a peer without SNI means the same.
    pub fn named(&self) -> Option<&Domain> {
        self.named.as_ref()
    }

    /// The domain that the peer says it is. Nothing is proved by it.
    pub fn claimed(&self) -> Option<&Domain> {
        self.state.opened()?.claimed.as_ref()
    }

    /// Why the peer's certificate does not prove the domain that the peer says it is; `None` when it does, and without TLS.
    pub fn certificate_fault(&self) -> Option<StreamFault> {
        let opened = self.state.opened()?;
        let (security, claimed) = (&opened.security, opened.claimed.as_ref()?);
        (security.has_tls() && !security.proves(claimed)).then(|| security.certificate_fault(claimed))
    }

    /// Ends the stream with an error.
    pub fn end(&mut self, condition: StreamCondition, text: Option<&str>) {
        self.end_with(condition, text, None, CloseCause::Ended(condition));
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
                let pending =
                    self.state.opened().and_then(|opened| opened.pending.iter().map(|key| key.until).min());
                self.state.until().into_iter().chain(pending).min()
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
            State::Proved(proved) => proved.pairs.as_slice(),
            _ => &[],
        }
    }

    fn handle_header(&mut self, xml: &[u8], policy: &dyn StreamPolicy) -> Result<(), StreamFault> {
        let State::Opening { security, authenticated, until } = &self.state else {
            return Err(StreamFault::Header);
        };
        let (security, authenticated, until) = (security.clone(), authenticated.clone(), *until);
        let header = PeerHeader::read(xml, self.wire.framer.limits())?;
        let local = match header.to.as_deref().map(Domain::parse) {
            Some(Ok(domain)) if policy.is_served(&domain) => domain,
            Some(Ok(domain)) if policy.was_served(&domain) => return Err(StreamFault::HostGone { domain }),
            _ => return Err(StreamFault::HostUnknown),
        };
        self.named = Some(local.clone());
        let written =
            header.from.as_deref().map(Domain::parse).transpose().map_err(|_| StreamFault::HeaderFrom)?;
        // What SASL proved stands fast: a later header may leave it out, but not change it.
        let claimed = match (authenticated.as_ref(), written) {
            (Some(proved), Some(written)) if *proved != written => return Err(StreamFault::HeaderFrom),
            (Some(proved), _) => Some(proved.clone()),
            (None, written) => written,
        };
        let terms = match &claimed {
            None => None,
            Some(remote) => {
                let refused = || StreamFault::UnknownPartner { local: local.clone(), remote: remote.clone() };
                Some(policy.terms(&local, remote).ok_or_else(refused)?)
            }
        };
        let is_proved = claimed.as_ref().is_some_and(|remote| security.proves(remote));
        if let (Some(terms), Some(remote), true) = (&terms, &claimed, security.has_tls())
            && !is_proved
            && !terms.allow_dialback(true)
        {
            return Err(security.certificate_fault(remote));
        }
        let may_external = is_proved && terms.is_some_and(|terms| terms.external);
        if let (Some(remote), false) = (&authenticated, may_external) {
            return Err(security.certificate_fault(remote));
        }

        let id = self.ids.next_id();
        let own = OwnHeader {
            from: Some(local.as_str()),
            to: claimed.as_ref().map(Domain::as_str),
            id: Some(&id),
            is_old: !header.has_features,
        };
        own.write(&mut self.wire.output);
        let has_tls = security.has_tls();
        // Without a name the peer can still be a receiving server that asks about a key of ours.
        let may_dialback = is_proved || terms.is_none_or(|terms| terms.allow_dialback(has_tls));
        let may_stay_plain = terms.is_some_and(|terms| terms.dialback_without_tls);
        if header.has_features {
            let starttls = match (has_tls, may_stay_plain) {
                (true, _) => None,
                (false, true) => Some(StartTlsOffer::Optional),
                (false, false) => Some(StartTlsOffer::Required),
            };
            let dialback = may_dialback && (has_tls || may_stay_plain);
            let external = may_external && authenticated.is_none();
            let stanza_bytes = terms.and_then(|terms| terms.stanza_bytes);
            let stanza_bytes = stanza_bytes.unwrap_or(self.settings.limits.stanza_bytes);
            let max_bytes = u32::try_from(stanza_bytes).ok();
            Features { starttls, external, dialback, dialback_errors: dialback, max_bytes }
                .write(&mut self.wire.output);
        }
        let pair = claimed.clone().map(|remote| Pair { local: local.clone(), remote });
        let opened =
            Opened { security, local, claimed, id, scope: Arc::new(header.scope), pending: Vec::new() };
        let sasl = sasl::Progress::new(may_external);
        self.state = State::Negotiating(Negotiating { opened, sasl, elements: 0, until });
        if let (Some(pair), true) = (pair, authenticated.is_some()) {
            let stanza_bytes = terms.and_then(|terms| terms.stanza_bytes);
            self.prove(Proof { pair, method: Method::External, stanza_bytes });
        }
        Ok(())
    }

    fn handle_element(
        &mut self,
        element: &Element,
        now: Instant,
        policy: &dyn StreamPolicy,
    ) -> Result<(), StreamFault> {
        if let State::Negotiating(negotiating) = &mut self.state {
            negotiating.elements += 1;
            let limit = self.settings.limits.unauthenticated_elements;
            if negotiating.elements > limit {
                return Err(StreamFault::TooManyElements { limit });
            }
        }
        let Some(opened) = self.state.opened() else { return Err(StreamFault::Header) };
        let scope = Arc::clone(&opened.scope);
        let checked = element.checked();
        let (tag, reader) = Reader::open(checked.text, &scope).ok_or(StreamFault::UnknownElement)?;
        match StanzaHead::of(&tag) {
            Ok(head) => self.handle_stanza(&head, element.xml.clone(), &checked, &scope, now),
            Err(fault) if is_stanza(&tag) => Err(stanza_fault(fault)),
            Err(_) => {
                let next = self.handle_other(&tag, reader, now, policy)?;
                self.follow(next);
                Ok(())
            }
        }
    }

    fn handle_stanza(
        &mut self,
        head: &StanzaHead<'_>,
        xml: Bytes,
        checked: &Checked<'_>,
        scope: &Scope,
        now: Instant,
    ) -> Result<(), StreamFault> {
        let State::Proved(proved) = &mut self.state else { return Err(StreamFault::NotAuthenticated) };
        let whole = complete(xml, checked, scope);
        let limit = self.wire.framer.limits().element_bytes;
        if whole.len() > limit {
            return Err(XmlFault::TooBig { limit }.into());
        }
        let most_malformed = self.settings.limits.malformed_addresses;
        let event = proved.handle_stanza(head, whole, most_malformed, now)?;
        self.wire.events.push_back(event);
        Ok(())
    }

    fn handle_other(
        &mut self,
        tag: &Tag<'_>,
        mut reader: Reader<'_>,
        now: Instant,
        policy: &dyn StreamPolicy,
    ) -> Result<Next, StreamFault> {
        match (&*tag.ns, tag.name) {
            (ns::STREAMS, "error") => Ok(Next::PeerFailed(StreamError::read(&mut reader))),
            // Behind our end of the stream only stanzas are still handled.
            _ if self.wire.life != Life::Open => Ok(Next::Stay),
            (ns::DIALBACK, _) => self.handle_dialback(tag, &mut reader, now, policy),
            (ns::TLS, "starttls") => self.handle_starttls(),
            (ns::SASL, _) => match &mut self.state {
                State::Negotiating(negotiating) => {
                    let attempts = self.settings.limits.sasl_attempts;
                    negotiating.handle_sasl(tag, &mut reader, &mut self.wire, attempts, policy)
                }
                _ => Err(StreamFault::UnknownElement),
            },
            _ => Err(StreamFault::UnknownElement),
        }
    }

    fn handle_starttls(&mut self) -> Result<Next, StreamFault> {
        if self.state.opened().is_some_and(|opened| opened.security.has_tls()) {
            write_tls_element(&mut self.wire.output, "failure");
            return Ok(Next::Refuse(StreamFault::TlsTwice));
        }
        if matches!(self.state, State::Proved(_)) {
            write_tls_element(&mut self.wire.output, "failure");
            return Ok(Next::Refuse(StreamFault::TlsLate));
        }
        // Whatever follows was sent in the clear: it must not survive into the protected stream.
        if self.wire.framer.buffered() > 0 {
            return Err(StreamFault::BytesBeforeTls);
        }
        write_tls_element(&mut self.wire.output, "proceed");
        Ok(Next::StartTls)
    }

    fn follow(&mut self, next: Next) {
        match next {
            Next::Stay => {}
            Next::StartTls => {
                if let Some(until) = self.state.until() {
                    self.state = State::AwaitTls { until };
                    self.wire.events.push_back(StreamEvent::StartTls);
                }
            }
            Next::Restart(domain) => {
                if let State::Negotiating(negotiating) = &self.state {
                    let security = negotiating.opened.security.clone();
                    let until = negotiating.until;
                    self.wire.framer.restart();
                    self.state = State::Opening { security, authenticated: Some(domain), until };
                }
            }
            Next::Prove(proof) => self.prove(proof),
            Next::PeerFailed(error) => {
                let is_trusted = self.state.opened().is_some_and(|opened| {
                    opened.claimed.as_ref().is_some_and(|remote| opened.security.proves(remote))
                });
                self.wire.peer_failed(CloseCause::PeerError { error, is_trusted });
            }
            Next::Refuse(fault) => self.wire.peer_failed(CloseCause::Fault(fault)),
        }
    }

    /// The only way by which a pair becomes proved.
    fn prove(&mut self, proof: Proof) {
        let Proof { pair, method, stanza_bytes } = proof;
        let mut stanza_bytes = stanza_bytes.unwrap_or(self.settings.limits.stanza_bytes);
        if let State::Negotiating(Negotiating { until, .. }) = self.state
            && let State::Negotiating(negotiating) = mem::replace(&mut self.state, State::AwaitTls { until })
        {
            self.state = State::Proved(Proved {
                opened: negotiating.opened,
                pairs: ProvedPairs::default(),
                malformed: proved::MalformedAddresses::default(),
            });
        } else {
            // The pairs of one stream share its largest limit: a frame's sender is known only when it is whole.
            stanza_bytes = stanza_bytes.max(self.wire.framer.limits().element_bytes);
        }
        if let State::Proved(proved) = &mut self.state {
            proved.pairs.add(pair.clone(), method);
            self.wire.framer.expect_stanzas();
            self.wire
                .framer
                .set_limits(self.settings.limits.unauthenticated.with_element_bytes(stanza_bytes));
            self.wire.events.push_back(StreamEvent::PairProved { pair, method });
        }
    }
}

impl Direction for InboundStream {
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
            Frame::Header(xml) => self.handle_header(&xml, policy),
            Frame::Opened(xml) => self.admit(&xml),
            Frame::Element(element) => self.handle_element(&element, now, policy),
            Frame::End => {
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
        match self.state {
            // The peer waits for TLS: nothing in the clear may follow (RFC 6120 §5.4.3.2).
            State::AwaitTls { .. } => self.wire.closed(cause),
            State::Opening { .. } => {
                // An error needs our header before it (RFC 6120 §4.9.1.2).
                if !self.wire.is_closed() {
                    let id = self.ids.next_id();
                    OwnHeader { id: Some(&id), ..OwnHeader::default() }.write(&mut self.wire.output);
                }
                self.wire.fail(condition, text, application, cause);
            }
            State::Negotiating(_) | State::Proved(_) => self.wire.fail(condition, text, application, cause),
        }
    }
}

impl State {
    fn opened(&self) -> Option<&Opened> {
        match self {
            Self::Negotiating(negotiating) => Some(&negotiating.opened),
            Self::Proved(proved) => Some(&proved.opened),
            Self::AwaitTls { .. } | Self::Opening { .. } => None,
        }
    }

    fn opened_mut(&mut self) -> Option<&mut Opened> {
        match self {
            Self::Negotiating(negotiating) => Some(&mut negotiating.opened),
            Self::Proved(proved) => Some(&mut proved.opened),
            Self::AwaitTls { .. } | Self::Opening { .. } => None,
        }
    }

    /// Until when a pair must be proved.
    fn until(&self) -> Option<Instant> {
        match self {
            Self::AwaitTls { until } | Self::Opening { until, .. } => Some(*until),
            Self::Negotiating(negotiating) => Some(negotiating.until),
            Self::Proved(_) => None,
        }
    }
}

fn is_stanza(tag: &Tag<'_>) -> bool {
    matches!(tag.name, "presence" | "message" | "iq")
}

fn stanza_fault(fault: StanzaFault) -> StreamFault {
    match fault {
        StanzaFault::Namespace => StreamFault::StanzaNamespace,
        StanzaFault::Prefix => StreamFault::StanzaPrefix,
        StanzaFault::OtherElement | StanzaFault::Type | StanzaFault::Iq => StreamFault::UnknownElement,
    }
}
