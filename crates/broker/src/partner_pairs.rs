//! The pairs of all shards with each partner, against what its entry allows. Pure.
//!
//! Shards say what they have; out comes when a partner has as many as it may, or fewer again. Between the two a shard
//! may take a few more: a turn's worth each.

use std::collections::{HashMap, HashSet};

use arc_swap::ArcSwap;
use tombolo_policy::Table;

use crate::session::ShardIndex;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct PartnerPairs {
    /// By domain and shard; none that is zero.
    pairs: HashMap<Box<str>, HashMap<ShardIndex, u32>>,
    /// Sums by the partner's entry, which may have any number of domains; `None` when they are to be made anew.
    of_entry: Option<HashMap<Box<str>, u64>>,
    /// Names of the entries that are full.
    full: HashSet<Box<str>>,
}

impl PartnerPairs {
    /// Takes how many pairs a shard has with a domain, under the policy in force. If that makes the domain's partner full,
    /// or not full any more, `tell` gets the name of its entry and which of the two, before anybody else can change it:
    /// whoever is told hears of changes in their order.
    pub fn note(
        &mut self,
        shard: ShardIndex,
        domain: Box<str>,
        pairs: u32,
        policy: &ArcSwap<Table>,
        tell: impl FnOnce(Box<str>, bool),
    ) {
        let policy = policy.load();
        let mut of_entry = self.of_entry.take().unwrap_or_else(|| sums(&self.pairs, &policy));
        let of_domain = self.pairs.entry(domain.clone()).or_default();
        let before = match pairs {
            0 => of_domain.remove(&shard),
            _ => of_domain.insert(shard, pairs),
        };
        if of_domain.is_empty() {
            self.pairs.remove(&domain);
        }
        let entry = policy.entry_of(&domain);
        let sum = of_entry.entry(entry.into()).or_default();
        *sum = (*sum + u64::from(pairs)).saturating_sub(before.unwrap_or(0).into());
        let sum = *sum;
        if sum == 0 {
            of_entry.remove(entry);
        }
        self.of_entry = Some(of_entry);
        let Some(partner) = policy.partner(&domain) else { return };
        let name = partner.domain.as_str();
        let is_full = sum >= u64::from(partner.limits.subscriptions);
        let has_changed = match is_full {
            true => self.full.insert(name.into()),
            false => self.full.remove(name),
        };
        if has_changed {
            tell(name.into(), is_full);
        }
    }

    /// A shard is loaded anew and will say what it has. The names of the entries that are full.
    pub fn forget_shard(&mut self, shard: ShardIndex) -> Vec<Box<str>> {
        self.of_entry = None;
        self.pairs.retain(|_, shards| {
            shards.remove(&shard);
            !shards.is_empty()
        });
        self.full.iter().cloned().collect()
    }

    /// True when some shard has a pair with a domain.
    pub fn has_any(&self, domain: &str) -> bool {
        self.pairs.contains_key(domain)
    }

    /// `replace` puts another policy in force and tells the shards, who forget who is full and say anew what they have.
    /// Nothing is noted meanwhile, which they would forget again.
    pub fn forget_full(&mut self, replace: impl FnOnce()) {
        self.full.clear();
        self.of_entry = None;
        replace();
    }
}

fn sums(pairs: &HashMap<Box<str>, HashMap<ShardIndex, u32>>, policy: &Table) -> HashMap<Box<str>, u64> {
    let mut sums: HashMap<Box<str>, u64> = HashMap::new();
    for (domain, shards) in pairs {
        let of_domain: u64 = shards.values().map(|pairs| u64::from(*pairs)).sum();
        *sums.entry(policy.entry_of(domain).into()).or_default() += of_domain;
    }
    sums
}

#[cfg(test)]
mod tests {
    use std::thread;

    use parking_lot::Mutex;
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
        let (mut pairs, policy) = (PartnerPairs::default(), ArcSwap::from_pointee(table(10)));
        let full = |is_full| Some(("p.example".into(), is_full));
        let mut note = |shard, domain: &str, count| {
            let mut told = None;
            pairs.note(shard, domain.into(), count, &policy, |partner, is_full| {
                told = Some((partner, is_full));
            });
            told
        };
        assert_eq!(note(0, "p.example", 5), None);
        assert_eq!(note(1, "p.example", 4), None);
        assert_eq!(note(0, "q.example", 1), full(true));
        assert_eq!(note(0, "q.example", 2), None, "said once");
        assert_eq!(note(1, "p.example", 0), full(false));
        assert_eq!(note(1, "unknown.example", 100), None);
        assert!(pairs.forget_shard(0).is_empty());
        let mut told = None;
        pairs.note(1, "q.example".into(), 9, &policy, |_, is_full| told = Some(is_full));
        assert_eq!(told, None, "what the shard had counts no more");
        // A lower limit counts from the first word after it.
        pairs.forget_full(|| policy.store(table(7).into()));
        let mut told = None;
        pairs.note(1, "q.example".into(), 3, &policy, |_, is_full| told = Some(is_full));
        assert_eq!(told, None);
        pairs.note(0, "p.example".into(), 4, &policy, |_, is_full| told = Some(is_full));
        assert_eq!(told, Some(true));
    }

    /// Shards that go over the limit and back, with new policies in between: each hears the opposite of what it heard last.
    #[test]
    fn whatever_shards_say_at_once_they_hear_in_the_order_in_which_it_came_about() {
        let (pairs, policy) = (Mutex::new(PartnerPairs::default()), ArcSwap::from_pointee(table(10)));
        // What a shard believes.
        let heard = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for shard in 0..4 {
                let (pairs, policy, heard) = (&pairs, &policy, &heard);
                scope.spawn(move || {
                    for round in 0..2000 {
                        if shard == 3 && round % 100 == 0 {
                            pairs.lock().forget_full(|| {
                                thread::yield_now();
                                heard.lock().push(None);
                            });
                        }
                        pairs.lock().note(shard, "p.example".into(), round % 2 * 10, policy, |_, is_full| {
                            thread::yield_now();
                            heard.lock().push(Some(is_full));
                        });
                    }
                });
            }
        });
        let mut believed = false;
        for change in heard.lock().iter() {
            match change {
                Some(is_full) => assert_ne!(std::mem::replace(&mut believed, *is_full), *is_full),
                None => believed = false,
            }
        }
        assert_eq!(believed, pairs.lock().full.contains("p.example"));
    }
}
