//! Dialback on a stream that we opened: our keys shown (`db:result`), keys of others asked about (`db:verify`).

use std::{collections::VecDeque, time::Instant};

use super::{Established, Opened, OutboundStream, State};
use crate::{
    dialback::{Dialback, DialbackCondition, DialbackContent, DialbackElement, DialbackFault, write_request},
    stream::{
        KeyAnswer, Method, Pair, Refusal, StreamEvent, StreamFault, StreamPolicy, policy::PartnerTerms,
        wire::Life,
    },
    xml::{Reader, Tag},
};

impl OutboundStream {
    /// Sends what waited for the end of negotiation, or refuses it.
    pub(super) fn send_waiting(&mut self, now: Instant, policy: &dyn StreamPolicy) {
        let State::Established(established) = &mut self.state else { return };
        if self.wire.life != Life::Open {
            return;
        }
        let until = now + self.settings.limits.dialback_wait;
        for pair in self.waiting_pairs.drain(..) {
            let is_asked = established.asked.iter().any(|(asked, _)| *asked == pair);
            if is_asked || established.pairs.contains(&pair) {
                continue;
            }
            let terms = policy.terms(&pair.local, &pair.remote);
            let refusal = if !terms.is_some_and(|terms| established.opened.may_show_key(&pair, &terms)) {
                Some(Refusal::NotAllowed)
            } else if established.pairs.as_slice().len() + established.asked.len()
                >= self.settings.limits.pairs
            {
                Some(Refusal::TooManyPairs)
            } else {
                None
            };
            if let Some(refusal) = refusal {
                self.wire.events.push_back(StreamEvent::PairRefused { pair, refusal });
                continue;
            }
            let (local, remote) = (&pair.local, &pair.remote);
            let key = self.settings.secrets.key(remote.as_str(), local.as_str(), &established.opened.id);
            write_request(&mut self.wire.output, DialbackElement::Result, local, remote, "", &key);
            established.asked.push((pair, until));
        }
        for question in self.waiting_questions.drain(..) {
            let has_tls = established.opened.security.has_tls();
            let terms = policy.terms(&question.pair.local, &question.pair.remote);
            let is_known = established
                .questions
                .iter()
                .any(|(asked, _)| asked.pair == question.pair && asked.stream_id == question.stream_id);
            let is_full = established.questions.len() >= self.settings.limits.pairs;
            if is_known || is_full || !terms.is_some_and(|terms| terms.allow_dialback(has_tls)) {
                let answer = KeyAnswer::Failed(DialbackCondition::NotAcceptable);
                self.wire.events.push_back(StreamEvent::KeyAnswered { question, answer });
                continue;
            }
            let (local, remote) = (&question.pair.local, &question.pair.remote);
            let (id, key) = (&question.stream_id, &question.key);
            write_request(&mut self.wire.output, DialbackElement::Verify, local, remote, id, key);
            established.questions.push((question, until));
        }
    }

    /// Takes an answer, if it answers what was asked on this very stream (XEP-0220 §2.1.1, §3.1).
    pub(super) fn handle_dialback(
        &mut self,
        tag: &Tag<'_>,
        reader: &mut Reader<'_>,
    ) -> Result<(), StreamFault> {
        let dialback = Dialback::read(tag, reader).map_err(|fault| match fault {
            DialbackFault::OtherElement => StreamFault::UnknownElement,
            DialbackFault::Address => StreamFault::Addressing,
            DialbackFault::Malformed => StreamFault::Dialback,
        })?;
        let State::Established(established) = &mut self.state else {
            return Err(StreamFault::UnknownElement);
        };
        let Dialback { element, from, to, stream_id, content } = dialback;
        let pair = Pair { local: to, remote: from };
        let answer = match content {
            DialbackContent::Key(_) => {
                self.wire.events.push_back(StreamEvent::StrayElement);
                return Ok(());
            }
            DialbackContent::Valid => KeyAnswer::Valid,
            DialbackContent::Invalid => KeyAnswer::Invalid,
            DialbackContent::Error(condition) => KeyAnswer::Failed(condition),
        };
        let event = match element {
            DialbackElement::Result => {
                established.asked.iter().position(|(asked, _)| *asked == pair).map(|at| {
                    established.asked.swap_remove(at);
                    let is_dialled = self.dial.pair == pair;
                    if is_dialled {
                        self.is_external_open = false;
                    }
                    established.handle_result(&pair, answer, is_dialled)
                })
            }
            DialbackElement::Verify => {
                let is_it = |question: &crate::stream::KeyQuestion| {
                    question.pair == pair && question.stream_id == stream_id
                };
                established.questions.iter().position(|(question, _)| is_it(question)).map(|at| {
                    let (question, _) = established.questions.swap_remove(at);
                    StreamEvent::KeyAnswered { question, answer }
                })
            }
        };
        let Pair { local: to, remote: from } = pair;
        self.wire.events.push_back(event.unwrap_or(StreamEvent::UnsolicitedDialback { from, to }));
        Ok(())
    }

    /// The stream ends: whoever still waits for an answer gets none from it.
    pub(super) fn refuse_waiting(&mut self) {
        let mut pairs: Vec<Pair> = self.waiting_pairs.drain(..).collect();
        let mut questions: Vec<_> = self.waiting_questions.drain(..).collect();
        if let State::Established(established) = &mut self.state {
            pairs.extend(established.asked.drain(..).map(|(pair, _)| pair));
            questions.extend(established.questions.drain(..).map(|(question, _)| question));
        }
        for pair in pairs {
            self.wire.events.push_back(StreamEvent::PairRefused { pair, refusal: Refusal::StreamEnded });
        }
        for question in questions {
            let answer = KeyAnswer::Failed(DialbackCondition::RemoteServerTimeout);
            self.wire.events.push_back(StreamEvent::KeyAnswered { question, answer });
        }
    }
}

impl Opened {
    /// Dialback is allowed, or the certificate names the further domain so that the peer's may do the same (XEP-0344 §2.6).
    pub(super) fn may_show_key(&self, pair: &Pair, terms: &PartnerTerms) -> bool {
        terms.allow_dialback(self.security.has_tls())
            || (terms.external && self.security.proves(&pair.remote))
    }
}

impl Established {
    fn handle_result(&mut self, pair: &Pair, answer: KeyAnswer, is_dialled: bool) -> StreamEvent {
        if is_dialled {
            self.until = None;
        }
        let pair = pair.clone();
        match answer {
            KeyAnswer::Valid => {
                let method = Method::DialbackByPeer;
                self.pairs.add(pair.clone(), method);
                StreamEvent::PairProved { pair, method }
            }
            KeyAnswer::Invalid => StreamEvent::PairRefused { pair, refusal: Refusal::Invalid },
            KeyAnswer::Failed(condition) => {
                StreamEvent::PairRefused { pair, refusal: Refusal::Error(condition) }
            }
        }
    }

    /// Gives up what was not answered in time.
    pub(super) fn expire(&mut self, events: &mut VecDeque<StreamEvent>, now: Instant) {
        self.asked.retain(|(pair, until)| {
            let is_waiting = *until > now;
            if !is_waiting {
                let pair = pair.clone();
                events.push_back(StreamEvent::PairRefused { pair, refusal: Refusal::TimedOut });
            }
            is_waiting
        });
        self.questions.retain(|(question, until)| {
            let is_waiting = *until > now;
            if !is_waiting {
                let answer = KeyAnswer::Failed(DialbackCondition::RemoteServerTimeout);
                events.push_back(StreamEvent::KeyAnswered { question: question.clone(), answer });
            }
            is_waiting
        });
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let asked = self.asked.iter().map(|(_, until)| *until);
        asked.chain(self.questions.iter().map(|(_, until)| *until)).min()
    }
}
