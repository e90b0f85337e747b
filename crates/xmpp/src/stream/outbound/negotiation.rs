//! From the peer's features to a stream that can be used: STARTTLS, SASL EXTERNAL, or straight to dialback.

use std::{mem, time::Instant};

use super::{Established, Opened, OutboundStream, Purpose, Sasl, State, write_header};
use crate::{
    features::Features,
    sasl::{SaslFailure, write_auth},
    stream::{
        Method, Pair, StreamEvent, StreamFault, StreamPolicy, pairs::ProvedPairs, policy::Security,
        wire::write_tls_element,
    },
};

impl OutboundStream {
    pub(super) fn handle_features(
        &mut self,
        features: Features,
        now: Instant,
        policy: &dyn StreamPolicy,
    ) -> Result<(), StreamFault> {
        let until = self.state.until().unwrap_or(now);
        let State::AwaitFeatures { opened, sasl, .. } = self.take_state(until) else {
            return Err(StreamFault::Header);
        };
        let Pair { local, remote } = &self.dial.pair;
        let Some(terms) = policy.terms(local, remote) else { return Err(self.unknown_partner()) };
        if opened.id.is_empty() {
            return Err(StreamFault::Header);
        }
        if sasl == Sasl::Done {
            self.establish(opened, features, Some(Method::External), until);
            self.send_waiting(now, policy);
            return Ok(());
        }
        if !opened.security.has_tls() {
            let may_stay =
                terms.dialback_without_tls && (features.starttls.is_none() || self.dial.skip.starttls);
            if may_stay {
                self.establish(opened, features, None, until);
                self.send_waiting(now, policy);
                return Ok(());
            }
            if !opened.has_features {
                return Err(StreamFault::TlsRefused);
            }
            // Also where it is not advertised: somebody may have taken the offer out (RFC 7590 §3.1).
            write_tls_element(&mut self.wire.output, "starttls");
            self.state = State::AwaitProceed { opened, until };
            return Ok(());
        }
        let is_skipped = self.dial.skip.external && terms.allow_dialback(true);
        let may_external = terms.external && features.external && opened.security.proves(remote);
        if may_external && !is_skipped && self.dial.purpose == Purpose::Send {
            write_auth(&mut self.wire.output, local.as_str());
            self.is_external_open = true;
            self.state = State::AwaitSasl { opened, features, until };
            return Ok(());
        }
        if self.dial.purpose == Purpose::Send && !terms.allow_dialback(true) {
            return Err(StreamFault::NoMethod);
        }
        self.establish(opened, features, None, until);
        self.send_waiting(now, policy);
        Ok(())
    }

    pub(super) fn handle_proceed(&mut self) -> Result<(), StreamFault> {
        // The server speaks first only after our hello: whatever follows was put in by somebody else.
        let buffered = self.wire.framer.buffered();
        if let Some(until) = self.state.until() {
            self.state = State::AwaitTls { until };
        }
        if buffered > 0 {
            return Err(StreamFault::BytesBeforeTls);
        }
        self.wire.events.push_back(StreamEvent::StartTls);
        Ok(())
    }

    pub(super) fn handle_success(&mut self) -> Result<(), StreamFault> {
        if let State::AwaitSasl { opened, until, .. } = &self.state {
            let (security, until) = (opened.security.clone(), *until);
            self.wire.framer.restart();
            write_header(&mut self.wire.output, &self.dial.pair);
            self.state = State::AwaitHeader { security, sasl: Sasl::Done, until };
        }
        Ok(())
    }

    /// Dialback may go on upon the same stream, as some peers offer EXTERNAL before they have judged our certificate.
    pub(super) fn handle_sasl_failure(
        &mut self,
        failure: SaslFailure,
        now: Instant,
        policy: &dyn StreamPolicy,
    ) -> Result<(), StreamFault> {
        self.wire.events.push_back(StreamEvent::SaslFailed(failure.clone()));
        self.sasl_failure = Some(failure.clone());
        let Pair { local, remote } = &self.dial.pair;
        if !policy.terms(local, remote).is_some_and(|terms| terms.allow_dialback(true)) {
            return Err(StreamFault::SaslRefused(failure));
        }
        let until = self.state.until().unwrap_or(now);
        if let State::AwaitSasl { opened, features, .. } = self.take_state(until) {
            self.establish(opened, features, None, until);
            self.send_waiting(now, policy);
        }
        Ok(())
    }

    /// Negotiation is over; `method` is how the dialled pair is proved already.
    fn establish(&mut self, opened: Opened, features: Features, method: Option<Method>, until: Instant) {
        let mut established = Established {
            opened,
            pairs: ProvedPairs::default(),
            asked: Vec::new(),
            questions: Vec::new(),
            dialback_errors: features.dialback_errors,
            max_bytes: features.max_bytes,
            until: (self.dial.purpose == Purpose::Send && method.is_none()).then_some(until),
        };
        match method {
            Some(method) => {
                self.is_external_open = false;
                let pair = self.dial.pair.clone();
                established.pairs.add(pair.clone(), method);
                self.waiting_pairs.retain(|waiting| *waiting != pair);
                self.wire.events.push_back(StreamEvent::PairProved { pair, method });
            }
            None if self.dial.purpose == Purpose::Send && !self.waiting_pairs.contains(&self.dial.pair) => {
                self.waiting_pairs.insert(0, self.dial.pair.clone());
            }
            None => {}
        }
        self.state = State::Established(established);
    }

    /// Takes the state out for a moment; whatever happens then, a state follows or the stream ends.
    fn take_state(&mut self, until: Instant) -> State {
        // An error can still be told: our header is out.
        let meanwhile = State::AwaitHeader { security: Security::Plain, sasl: Sasl::Ahead, until };
        mem::replace(&mut self.state, meanwhile)
    }
}
