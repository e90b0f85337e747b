//! SASL EXTERNAL on a stream that a peer opened (RFC 6120 §6, XEP-0178 §3).

use super::{Negotiating, Next};
use crate::{
    jid::Domain,
    sasl::{
        InitialResponse, SaslCondition, SaslFailure, decode_initial, decode_response, write_challenge,
        write_failure, write_success,
    },
    stream::{StreamEvent, StreamFault, StreamPolicy, wire::Wire},
    xml::{Reader, Tag},
};

/// How far SASL has come on the present stream.
#[derive(Debug)]
pub(super) struct Progress {
    /// EXTERNAL was offered: the certificate proves the domain that the header names.
    is_offered: bool,
    step: Step,
    failures: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Idle,
    /// An empty challenge was sent to a peer that sent no initial response.
    Challenged,
}

impl Progress {
    pub(super) fn new(is_offered: bool) -> Self {
        Self { is_offered, step: Step::Idle, failures: 0 }
    }
}

enum Outcome {
    Challenge,
    Success(Domain),
}

impl Negotiating {
    pub(super) fn handle_sasl(
        &mut self,
        tag: &Tag<'_>,
        reader: &mut Reader<'_>,
        wire: &mut Wire,
        attempts: u32,
        policy: &dyn StreamPolicy,
    ) -> Result<Next, StreamFault> {
        let outcome = self.step(tag, reader, policy);
        self.sasl.step = Step::Idle;
        match outcome {
            Ok(Outcome::Challenge) => {
                self.sasl.step = Step::Challenged;
                write_challenge(&mut wire.output);
                Ok(Next::Stay)
            }
            Ok(Outcome::Success(domain)) => {
                write_success(&mut wire.output);
                Ok(Next::Restart(domain))
            }
            Err(condition) => {
                write_failure(&mut wire.output, condition);
                let failure = SaslFailure { condition: condition.as_str().into(), text: None };
                wire.events.push_back(StreamEvent::SaslFailed(failure));
                self.sasl.failures += 1;
                if self.sasl.failures >= attempts {
                    return Err(StreamFault::SaslExhausted { attempts });
                }
                Ok(Next::Stay)
            }
        }
    }

    fn step(
        &self,
        tag: &Tag<'_>,
        reader: &mut Reader<'_>,
        policy: &dyn StreamPolicy,
    ) -> Result<Outcome, SaslCondition> {
        let response = match tag.name {
            "auth" if !self.opened.security.has_tls() => return Err(SaslCondition::EncryptionRequired),
            "auth" if tag.attribute("mechanism").as_deref() != Some("EXTERNAL") => {
                return Err(SaslCondition::InvalidMechanism);
            }
            "auth" if !self.sasl.is_offered => return Err(SaslCondition::NotAuthorized),
            "auth" => decode_initial(&reader.text())?,
            "response" if self.sasl.step == Step::Challenged => decode_response(&reader.text())?,
            "abort" => return Err(SaslCondition::Aborted),
            _ => return Err(SaslCondition::MalformedRequest),
        };
        match response {
            InitialResponse::Missing => Ok(Outcome::Challenge),
            InitialResponse::Empty => self.authorize(None, policy),
            InitialResponse::Authzid(text) => self.authorize(Some(&text), policy),
        }
    }

    /// The domain to act as must be the one of the header, and the certificate must name it.
    fn authorize(&self, authzid: Option<&str>, policy: &dyn StreamPolicy) -> Result<Outcome, SaslCondition> {
        let claimed = self.opened.claimed.as_ref().ok_or(SaslCondition::InvalidAuthzid)?;
        if let Some(text) = authzid
            && Domain::parse(text).as_ref() != Ok(claimed)
        {
            return Err(SaslCondition::InvalidAuthzid);
        }
        if !self.opened.security.proves(claimed) {
            return Err(SaslCondition::InvalidAuthzid);
        }
        match policy.terms(&self.opened.local, claimed) {
            Some(terms) if terms.external => Ok(Outcome::Success(claimed.clone())),
            _ => Err(SaslCondition::NotAuthorized),
        }
    }
}
