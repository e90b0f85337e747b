//! Dialback on a stream that a peer opened: as receiving server (`db:result`) and as authoritative server (`db:verify`).

use std::time::Instant;

use super::{InboundStream, KeyAnswer, Next, Opened, Pending, Proof, State};
use crate::{
    dialback::{
        Dialback, DialbackCondition, DialbackContent, DialbackElement, DialbackFault, write_answer,
        write_error,
    },
    stream::{
        KeyQuestion, Method, Pair, PartnerTerms, StreamEvent, StreamFault, StreamPolicy, policy::Security,
    },
    xml::{Reader, Tag},
};

impl InboundStream {
    pub(super) fn handle_dialback(
        &mut self,
        tag: &Tag<'_>,
        reader: &mut Reader<'_>,
        now: Instant,
        policy: &dyn StreamPolicy,
    ) -> Result<Next, StreamFault> {
        let dialback = Dialback::read(tag, reader).map_err(|fault| match fault {
            DialbackFault::OtherElement => StreamFault::UnknownElement,
            DialbackFault::Address => StreamFault::Addressing,
            DialbackFault::Malformed => StreamFault::Dialback,
        })?;
        let DialbackContent::Key(key) = &dialback.content else {
            // We ask nothing on a stream that a peer opened, so no answer on it can be meant (XEP-0220 §3.1).
            let Dialback { from, to, .. } = dialback;
            self.wire.events.push_back(StreamEvent::UnsolicitedDialback { from, to });
            return Ok(Next::Stay);
        };
        let pair = Pair { local: dialback.to.clone(), remote: dialback.from.clone() };
        match dialback.element {
            DialbackElement::Verify => {
                self.check_key(pair, &dialback.stream_id, key, policy);
                Ok(Next::Stay)
            }
            DialbackElement::Result => Ok(self.handle_key(pair, key, now, policy)),
        }
    }

    /// We are the authoritative server: did we make this key? Needs no memory, only the secret.
    fn check_key(&mut self, pair: Pair, stream_id: &str, key: &str, policy: &dyn StreamPolicy) {
        let Some(opened) = self.state.opened() else { return };
        let has_tls = opened.security.has_tls();
        let output = &mut self.wire.output;
        let refusal = match policy.terms(&pair.local, &pair.remote) {
            _ if !policy.is_served(&pair.local) => Some(DialbackCondition::ItemNotFound),
            Some(terms) if terms.allow_dialback(has_tls) || (has_tls && terms.external) => None,
            _ => Some(DialbackCondition::PolicyViolation),
        };
        if let Some(condition) = refusal {
            write_error(output, DialbackElement::Verify, &pair.local, &pair.remote, stream_id, condition);
            return;
        }
        let (receiving, originating) = (pair.remote.as_str(), pair.local.as_str());
        let is_valid = self.settings.secrets.verifies(receiving, originating, stream_id, key);
        write_answer(output, DialbackElement::Verify, &pair.local, &pair.remote, stream_id, is_valid);
        self.wire.events.push_back(StreamEvent::KeyChecked { pair, is_valid });
    }

    /// We are the receiving server: the peer wants to send for this pair (XEP-0220 §2.2.1).
    fn handle_key(&mut self, pair: Pair, key: &str, now: Instant, policy: &dyn StreamPolicy) -> Next {
        let (is_proved, proved) = match &self.state {
            State::Proved(proved) => (proved.pairs.contains(&pair), proved.pairs.as_slice().len()),
            _ => (false, 0),
        };
        let limits = &self.settings.limits;
        // Each key costs a connection to somebody: a stranger may cause a few of them only.
        let most = if proved == 0 { limits.keys_before_proof.min(limits.pairs) } else { limits.pairs };
        let until = now + self.settings.limits.dialback_wait;
        let terms = policy.terms(&pair.local, &pair.remote);
        let Some(opened) = self.state.opened_mut() else { return Next::Stay };
        let output = &mut self.wire.output;
        let verdict = if is_proved {
            Verdict::Valid(None)
        } else if opened.pending.iter().any(|pending| pending.pair == pair) {
            return Next::Stay;
        } else if proved + opened.pending.len() >= most {
            Verdict::Refused(DialbackCondition::ResourceConstraint)
        } else {
            judge(&opened.security, &pair, terms, policy.is_served(&pair.local))
        };
        match verdict {
            Verdict::Valid(method) => {
                write_answer(output, DialbackElement::Result, &pair.local, &pair.remote, "", true);
                let stanza_bytes = terms.and_then(|terms| terms.stanza_bytes);
                method.map_or(Next::Stay, |method| Next::Prove(Proof { pair, method, stanza_bytes }))
            }
            Verdict::Refused(condition) => {
                write_error(output, DialbackElement::Result, &pair.local, &pair.remote, "", condition);
                Next::Stay
            }
            Verdict::Ask => {
                opened.pending.push(Pending { pair: pair.clone(), until });
                let question = KeyQuestion { pair, stream_id: opened.id.clone(), key: key.into() };
                self.wire.events.push_back(StreamEvent::KeyShown(question));
                Next::Stay
            }
        }
    }

    /// An answer counts only for a key of the present stream that is still being asked about.
    pub(super) fn answer_key(
        &mut self,
        question: &KeyQuestion,
        answer: KeyAnswer,
        policy: &dyn StreamPolicy,
    ) -> Next {
        let is_any_proved = matches!(self.state, State::Proved(_));
        let Some(opened) = self.state.opened_mut() else { return Next::Stay };
        let Some(at) = opened.pending.iter().position(|pending| pending.pair == question.pair) else {
            return Next::Stay;
        };
        if opened.id != question.stream_id {
            return Next::Stay;
        }
        let Pending { pair, .. } = opened.pending.swap_remove(at);
        let output = &mut self.wire.output;
        let (local, remote) = (&pair.local, &pair.remote);
        match answer {
            KeyAnswer::Valid => {
                let has_tls = opened.security.has_tls();
                let terms = policy.terms(local, remote).filter(|terms| terms.allow_dialback(has_tls));
                let Some(PartnerTerms { stanza_bytes, .. }) = terms else {
                    // Policy has changed since it was asked about.
                    let condition = DialbackCondition::PolicyViolation;
                    write_error(output, DialbackElement::Result, local, remote, "", condition);
                    return Next::Stay;
                };
                write_answer(output, DialbackElement::Result, local, remote, "", true);
                let method = if has_tls { Method::DialbackWithTls } else { Method::DialbackInTheClear };
                Next::Prove(Proof { pair, method, stanza_bytes })
            }
            KeyAnswer::Invalid if !is_any_proved && opened.pending.is_empty() => {
                write_answer(output, DialbackElement::Result, local, remote, "", false);
                Next::Refuse(StreamFault::KeyInvalid { domain: pair.remote })
            }
            KeyAnswer::Invalid => {
                // `invalid` would cost the peer the whole stream (XEP-0220 §2.1.2).
                write_error(output, DialbackElement::Result, local, remote, "", DialbackCondition::Forbidden);
                Next::Stay
            }
            KeyAnswer::Failed(condition) => {
                write_error(output, DialbackElement::Result, local, remote, "", condition);
                Next::Stay
            }
        }
    }
}

enum Verdict {
    /// Valid at once; with the method when it was not proved before.
    Valid(Option<Method>),
    /// The authoritative server must be asked.
    Ask,
    Refused(DialbackCondition),
}

fn judge(security: &Security, pair: &Pair, terms: Option<PartnerTerms>, is_served: bool) -> Verdict {
    let has_tls = security.has_tls();
    if !is_served {
        return Verdict::Refused(DialbackCondition::ItemNotFound);
    }
    let Some(terms) = terms else {
        return Verdict::Refused(DialbackCondition::PolicyViolation);
    };
    // XEP-0344 §2.4: a certificate is more than any key. It counts where it or less is enough.
    if security.proves(&pair.remote) && (terms.external || terms.allow_dialback(true)) {
        Verdict::Valid(Some(Method::Certificate))
    } else if terms.allow_dialback(has_tls) {
        Verdict::Ask
    } else if has_tls {
        Verdict::Refused(DialbackCondition::NotAuthorized)
    } else {
        Verdict::Refused(DialbackCondition::PolicyViolation)
    }
}

impl Opened {
    /// Refuses keys that policy would not take any more, whatever their authoritative servers say.
    pub(super) fn refuse_keys(&mut self, output: &mut Vec<u8>, policy: &dyn StreamPolicy) {
        let has_tls = self.security.has_tls();
        self.pending.retain(|Pending { pair, .. }| {
            let terms = policy.terms(&pair.local, &pair.remote);
            let is_allowed = terms.is_some_and(|terms| terms.allow_dialback(has_tls));
            if !is_allowed {
                let condition = DialbackCondition::PolicyViolation;
                write_error(output, DialbackElement::Result, &pair.local, &pair.remote, "", condition);
            }
            is_allowed
        });
    }

    /// Answers for authoritative servers that did not answer in time.
    pub(super) fn expire_keys(&mut self, output: &mut Vec<u8>, now: Instant) {
        self.pending.retain(|Pending { pair, until, .. }| {
            let is_waiting = *until > now;
            if !is_waiting {
                let condition = DialbackCondition::RemoteServerTimeout;
                write_error(output, DialbackElement::Result, &pair.local, &pair.remote, "", condition);
            }
            is_waiting
        });
    }
}
