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
    /// The same by the partner's entry: below a wildcard a partner has as many domains as it likes, so that they are not to
    /// be gone through for each new pair.
    of_entry: HashMap<Box<str>, u32, RandomState>,
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
        self.quotas.of_entry.get(partner.domain.as_str()).copied().unwrap_or(0)
    }

    /// A pair came or went.
    pub(super) fn count_pair(&mut self, contact: &Address, is_new: bool) {
        let domain = contact.domain();
        let entry = self.policy.entry_of(domain);
        for (counts, key) in [(&mut self.quotas.pairs, domain), (&mut self.quotas.of_entry, entry)] {
            let count = match counts.get_mut(key) {
                Some(count) => count,
                None => counts.entry(key.into()).or_default(),
            };
            *count = if is_new { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                counts.remove(key);
            }
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
        self.quotas.of_entry.clear();
        for (domain, pairs) in &self.quotas.pairs {
            let entry = self.policy.entry_of(domain);
            *self.quotas.of_entry.entry(entry.into()).or_default() += pairs;
        }
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
