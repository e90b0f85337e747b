//! The pairs of all shards with each partner, against what its entry allows. Pure.
//!
//! Shards say what they have; out comes when a partner has as many as it may, or fewer again. Between the two a shard
//! may take a few more: a turn's worth each.

use std::collections::{HashMap, HashSet};

use tombolo_policy::Table;

use crate::session::ShardIndex;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct PartnerPairs {
    /// By domain and shard; none that is zero.
    pairs: HashMap<Box<str>, HashMap<ShardIndex, u32>>,
    /// Names of the entries that are full.
    full: HashSet<Box<str>>,
}

impl PartnerPairs {
    /// Takes how many pairs a shard has with a domain. If that makes the domain's partner full, or not full any more,
    /// gives the name of its entry and which of the two.
    pub fn note(
        &mut self,
        shard: ShardIndex,
        domain: Box<str>,
        pairs: u32,
        policy: &Table,
    ) -> Option<(Box<str>, bool)> {
        let partner = policy.partner(&domain);
        let of_domain = self.pairs.entry(domain.clone()).or_default();
        match pairs {
            0 => _ = of_domain.remove(&shard),
            _ => _ = of_domain.insert(shard, pairs),
        }
        if of_domain.is_empty() {
            self.pairs.remove(&domain);
        }
        let partner = partner?;
        let name = partner.domain.as_str();
        let is_its = |domain: &str| policy.partner(domain).is_some_and(|of| of.domain == partner.domain);
        let of_partner = self.pairs.iter().filter(|(domain, _)| is_its(domain));
        let sum: u64 =
            of_partner.flat_map(|(_, shards)| shards.values()).map(|pairs| u64::from(*pairs)).sum();
        let is_full = sum >= u64::from(partner.limits.subscriptions);
        let has_changed = match is_full {
            true => self.full.insert(name.into()),
            false => self.full.remove(name),
        };
        has_changed.then(|| (name.into(), is_full))
    }

    /// True when some shard has a pair with a domain.
    pub fn has_any(&self, domain: &str) -> bool {
        self.pairs.contains_key(domain)
    }

    /// Another policy is in force: the shards forget who is full, and say anew what they have.
    pub fn forget_full(&mut self) {
        self.full.clear();
    }
}

#[cfg(test)]
mod tests {
    use tombolo_policy::{DomainPattern, Home, LocalDomain, Partner};
    use tombolo_presence::Domain;

    use super::*;

    fn domain(name: &str) -> Domain {
        Domain::from_prepared(name).expect("legal")
    }

    fn table(limit: u32) -> Table {
        let mut partner = Partner::new(domain("p.example"));
        partner.further_domains = vec![DomainPattern::Exact(domain("q.example"))];
        partner.limits.subscriptions = limit;
        let local = LocalDomain { name: domain("sip.example"), home: Home::BuiltIn };
        Table::new(1, vec![local], vec![partner]).expect("no conflict")
    }

    #[test]
    fn sip_e_30_a_partner_is_full_when_all_shards_and_domains_together_reach_its_limit() {
        let (mut pairs, policy) = (PartnerPairs::default(), table(10));
        let full = |is_full| Some(("p.example".into(), is_full));
        assert_eq!(pairs.note(0, "p.example".into(), 5, &policy), None);
        assert_eq!(pairs.note(1, "p.example".into(), 4, &policy), None);
        assert_eq!(pairs.note(0, "q.example".into(), 1, &policy), full(true));
        assert_eq!(pairs.note(0, "q.example".into(), 2, &policy), None, "said once");
        assert_eq!(pairs.note(1, "p.example".into(), 0, &policy), full(false));
        assert_eq!(pairs.note(1, "unknown.example".into(), 100, &policy), None);
        // A lower limit counts from the first word after it.
        pairs.forget_full();
        assert_eq!(pairs.note(0, "p.example".into(), 5, &table(7)), full(true));
    }
}
