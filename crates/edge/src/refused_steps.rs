//! Steps of the negotiation over which streams that we opened failed, so that the next stream of the pair does without.
//!
//! In: a pair and the step that failed, our certificate, and `now`. Out: the steps to leave out. It widens no partner's
//! terms: whether a step may be left out is asked of them each time.
//!
//! Some servers refuse SASL EXTERNAL and close the stream, so that dialback cannot go on upon it; some refuse our client
//! certificate within the TLS handshake, or a handshake at all. Without a memory each dial would fail the same way.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tombolo_net::CertifiedKey;
use tombolo_xmpp::stream::{PartnerTerms, SkippedSteps};

use crate::DomainPair;

/// A step that the next stream can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// SASL EXTERNAL; then dialback over TLS proves us.
    External,
    /// Our certificate in the TLS handshake; then dialback over TLS proves us.
    Certificate,
    /// STARTTLS; then dialback in the clear proves us.
    StartTls,
}

/// A step over which a stream failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailedStep {
    pub(crate) step: Step,
    /// How it failed, for people.
    pub(crate) cause: String,
}

/// What a stream leaves out, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Skipped {
    pub(crate) steps: SkippedSteps,
    /// Show no certificate in the TLS handshake.
    pub(crate) certificate: bool,
    /// What the stream failed over that did not leave it out.
    pub(crate) cause: Option<String>,
}

impl Skipped {
    fn add(&mut self, step: Step) {
        match step {
            Step::External => self.steps.external = true,
            // Without a certificate there is nothing that EXTERNAL could rest on.
            Step::Certificate => (self.certificate, self.steps.external) = (true, true),
            Step::StartTls => self.steps.starttls = true,
        }
    }

    /// True when this step is left out already.
    pub(crate) fn has(&self, step: Step) -> bool {
        match step {
            Step::External => self.steps.external,
            Step::Certificate => self.certificate,
            Step::StartTls => self.steps.starttls,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The failed steps of all pairs.
#[derive(Debug, Default)]
pub(crate) struct RefusedSteps {
    by_pair: HashMap<DomainPair, Refused>,
}

#[derive(Debug)]
struct Refused {
    skipped: Skipped,
    until: Instant,
    /// What we proved ourselves with: another certificate may be taken.
    own: Option<Arc<CertifiedKey>>,
}

impl RefusedSteps {
    /// Remembers that a stream of `pair` failed over a step.
    pub(crate) fn note(
        &mut self,
        pair: &DomainPair,
        FailedStep { step, cause }: FailedStep,
        own: Option<Arc<CertifiedKey>>,
        now: Instant,
    ) {
        if !self.by_pair.contains_key(pair) {
            self.make_room(now);
        }
        let until = now + FORGOTTEN_AFTER;
        let refused = self.by_pair.entry(pair.clone()).or_insert(Refused {
            skipped: Skipped::default(),
            until,
            own: None,
        });
        refused.skipped.add(step);
        refused.skipped.cause = Some(cause);
        (refused.until, refused.own) = (until, own);
    }

    /// What the next stream of `pair` leaves out, as far as the partner's `terms` allow it. `own` is our certificate.
    pub(crate) fn skipped(
        &mut self,
        pair: &DomainPair,
        terms: &PartnerTerms,
        own: Option<&Arc<CertifiedKey>>,
        now: Instant,
    ) -> Skipped {
        let Some(refused) = self.by_pair.get(pair) else { return Skipped::default() };
        let is_same = match (own, &refused.own) {
            (Some(own), Some(of_then)) => Arc::ptr_eq(own, of_then),
            (None, None) => true,
            _ => false,
        };
        if refused.until <= now || !is_same {
            self.by_pair.remove(pair);
            return Skipped::default();
        }
        let mut skipped = Skipped::default();
        for step in [Step::External, Step::Certificate, Step::StartTls] {
            if refused.skipped.has(step) && step.is_optional(terms) {
                skipped.add(step);
                skipped.cause.clone_from(&refused.skipped.cause);
            }
        }
        skipped
    }

    /// A stream of `pair` that left steps out failed too: the next one takes them again.
    pub(crate) fn forget(&mut self, pair: &DomainPair) {
        self.by_pair.remove(pair);
    }

    /// The settings are others.
    pub(crate) fn forget_all(&mut self) {
        self.by_pair.clear();
    }

    fn make_room(&mut self, now: Instant) {
        if self.by_pair.len() < MAX_PAIRS {
            return;
        }
        self.by_pair.retain(|_, refused| refused.until > now);
        while self.by_pair.len() >= MAX_PAIRS {
            let oldest = self.by_pair.iter().min_by_key(|(_, refused)| refused.until);
            let Some(oldest) = oldest.map(|(pair, _)| pair.clone()) else { return };
            self.by_pair.remove(&oldest);
        }
    }
}

impl Step {
    /// What the next streams of the pair do, for the log.
    pub(crate) fn without(self) -> &'static str {
        match self {
            Self::External => "SASL EXTERNAL failed; the next streams of this pair use dialback",
            Self::Certificate => {
                "our certificate was refused; the next streams of this pair show none and use dialback"
            }
            Self::StartTls => "TLS failed; the next streams of this pair use dialback in the clear",
        }
    }

    /// True when the partner's terms allow a stream without this step.
    pub(crate) fn is_optional(self, terms: &PartnerTerms) -> bool {
        match self {
            Self::External | Self::Certificate => terms.allow_dialback(true),
            Self::StartTls => terms.dialback_without_tls,
        }
    }
}

/// Pairs that are remembered at one time.
const MAX_PAIRS: usize = 4096;
/// The partner may have been repaired after so long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use tombolo_presence::Domain;

    use super::*;

    const BOTH: PartnerTerms = PartnerTerms { dialback_with_tls: true, ..PartnerTerms::CERTIFICATE };
    const CLEAR: PartnerTerms = PartnerTerms { dialback_without_tls: true, ..BOTH };

    fn pair(remote: &str) -> DomainPair {
        let domain = |name| Domain::from_prepared(name).expect("prepared");
        DomainPair { local: domain("corp.example"), remote: domain(remote) }
    }

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        Instant::now()
    }

    #[test]
    fn a_step_is_left_out_only_where_the_terms_allow_it_and_for_an_hour() {
        let (mut refused, now) = (RefusedSteps::default(), start());
        for step in [Step::External, Step::Certificate, Step::StartTls] {
            let failed = FailedStep { step, cause: "so it was".to_owned() };
            refused.note(&pair("one.example"), failed, None, now);
        }
        let one = pair("one.example");
        assert!(refused.skipped(&one, &PartnerTerms::CERTIFICATE, None, now).is_empty());
        let with_tls = refused.skipped(&one, &BOTH, None, now);
        assert!(with_tls.steps.external && with_tls.certificate && !with_tls.steps.starttls);
        assert_eq!(with_tls.cause.as_deref(), Some("so it was"));
        assert!(refused.skipped(&one, &CLEAR, None, now).steps.starttls);
        assert!(refused.skipped(&pair("two.example"), &CLEAR, None, now).is_empty());
        assert!(refused.skipped(&one, &CLEAR, None, now + FORGOTTEN_AFTER).is_empty());
    }

    #[test]
    fn all_pairs_together_are_bounded_and_the_oldest_is_forgotten_first() {
        let (mut refused, now) = (RefusedSteps::default(), start());
        for n in 0..MAX_PAIRS as u64 + 10 {
            let (pair, at) = (pair(&format!("p{n}.example")), now + Duration::from_millis(n));
            refused.note(&pair, FailedStep { step: Step::External, cause: String::new() }, None, at);
        }
        assert_eq!(refused.by_pair.len(), MAX_PAIRS);
        assert!(!refused.by_pair.contains_key(&pair("p9.example")));
        assert!(refused.by_pair.contains_key(&pair("p10.example")));
    }
}
