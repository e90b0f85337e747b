//! The pairs of domains that are proved on one stream.

use super::Method;
use crate::jid::Domain;

/// One of our domains and one of a partner's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pair {
    /// Ours.
    pub local: Domain,
    /// The partner's.
    pub remote: Domain,
}

/// A pair that this stream has not proved: nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the pair is not proved on this stream")]
pub struct NotProved;

/// At most as many as the limits of the stream say. Nothing is ever widened by itself: each pair is added by its proof.
#[derive(Debug, Default)]
pub(super) struct ProvedPairs {
    pairs: Vec<Pair>,
    /// How each of them was proved.
    methods: Vec<Method>,
    /// Where the last look-up ended: stanzas of one pair come in runs.
    last: usize,
}

impl ProvedPairs {
    pub(super) fn add(&mut self, pair: Pair, method: Method) {
        if !self.pairs.contains(&pair) {
            self.pairs.push(pair);
            self.methods.push(method);
        }
    }

    /// Takes out, and gives back, the pairs whose proof is not allowed.
    pub(super) fn take_forbidden(&mut self, is_allowed: impl Fn(&Pair, Method) -> bool) -> Vec<Pair> {
        let mut taken = Vec::new();
        let known = std::mem::take(&mut self.pairs).into_iter().zip(std::mem::take(&mut self.methods));
        for (pair, method) in known {
            if is_allowed(&pair, method) {
                self.pairs.push(pair);
                self.methods.push(method);
            } else {
                taken.push(pair);
            }
        }
        taken
    }

    pub(super) fn find(&mut self, local: &str, remote: &str) -> Option<&Pair> {
        let is_it = |pair: &Pair| pair.local.as_str() == local && pair.remote.as_str() == remote;
        if !self.pairs.get(self.last).is_some_and(is_it) {
            self.last = self.pairs.iter().position(is_it)?;
        }
        self.pairs.get(self.last)
    }

    pub(super) fn contains(&self, pair: &Pair) -> bool {
        self.pairs.contains(pair)
    }

    pub(super) fn has_remote(&self, remote: &str) -> bool {
        self.pairs.iter().any(|pair| pair.remote.as_str() == remote)
    }

    pub(super) fn has_local(&self, local: &str) -> bool {
        self.pairs.iter().any(|pair| pair.local.as_str() == local)
    }

    pub(super) fn as_slice(&self) -> &[Pair] {
        &self.pairs
    }
}
