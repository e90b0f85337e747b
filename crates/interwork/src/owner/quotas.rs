//! How many pairs there are with each partner, against what its entry allows (`partner.limits.subscriptions`).
//!
//! A shard knows its own pairs; whoever sees all shards tells it when they together have reached the limit.

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use tombolo_policy::Partner;
use tombolo_presence::Address;

use super::{Output, Owner};

/// Pairs of this shard by the contact's domain.
#[derive(Debug, Default)]
pub struct Quotas {
    pairs: HashMap<Box<str>, u32, RandomState>,
    /// Domains whose number changed in this turn.
    changed: HashSet<Box<str>, RandomState>,
    /// Partners that have as many as they may, in all shards together; by their entries' names.
    full: HashSet<Box<str>, RandomState>,
}

impl Owner {
    /// A further pair would be one too many for the contact's partner.
    pub(super) fn is_partner_full(&self, contact: &Address) -> bool {
        let Some(partner) = self.policy.partner(contact.domain()) else { return false };
        self.quotas.full.contains(partner.domain.as_str())
            || self.count_pairs_with(partner) >= partner.limits.subscriptions
    }

    fn count_pairs_with(&self, partner: &Partner) -> u32 {
        if partner.further_domains.is_empty() {
            return self.quotas.pairs.get(partner.domain.as_str()).copied().unwrap_or(0);
        }
        let is_its = |domain: &str| self.policy.partner(domain).is_some_and(|of| of.domain == partner.domain);
        self.quotas.pairs.iter().filter(|(domain, _)| is_its(domain)).map(|(_, pairs)| pairs).sum()
    }

    /// A pair came or went.
    pub(super) fn count_pair(&mut self, contact: &Address, is_new: bool) {
        let domain = contact.domain();
        let pairs = match self.quotas.pairs.get_mut(domain) {
            Some(pairs) => pairs,
            None => self.quotas.pairs.entry(domain.into()).or_default(),
        };
        *pairs = if is_new { *pairs + 1 } else { pairs.saturating_sub(1) };
        if *pairs == 0 {
            self.quotas.pairs.remove(domain);
        }
        if !self.quotas.changed.contains(domain) {
            self.quotas.changed.insert(domain.into());
        }
    }

    /// All shards together reached a partner's limit, or are below it again.
    pub(super) fn handle_partner_full(&mut self, partner: Box<str>, is_full: bool) {
        if is_full {
            self.quotas.full.insert(partner);
        } else {
            self.quotas.full.remove(&partner);
        }
    }

    /// Under another policy other limits hold: they are found out anew.
    pub(super) fn forget_quotas(&mut self) {
        self.quotas.full.clear();
        self.quotas.changed.extend(self.quotas.pairs.keys().cloned());
    }

    /// Says how many pairs there are where that changed.
    pub(super) fn tell_quotas(&mut self) {
        for domain in self.quotas.changed.drain() {
            let pairs = self.quotas.pairs.get(&domain).copied().unwrap_or(0);
            self.out.push_back(Output::PartnerPairs { domain, pairs });
        }
    }
}
