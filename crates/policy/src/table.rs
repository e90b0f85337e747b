//! The immutable table of local domains and partners, and how a domain finds its entry.

use std::collections::{HashMap, hash_map::Entry};

use tombolo_presence::Domain;

use crate::{
    decide::Denied,
    local::LocalDomain,
    partner::{DomainPattern, Partner},
};

/// Local domains and partner entries of one generation. Never changed: a reload makes another.
#[derive(Debug, Default)]
pub struct Table {
    generation: u64,
    local_domains: Vec<LocalDomain>,
    partners: Vec<Partner>,
    /// Places in `local_domains`.
    local_by_name: HashMap<Box<str>, usize>,
    /// Places in `partners`.
    exact: HashMap<Box<str>, usize>,
    /// Places in `partners`, by the domain behind `*.`.
    below: HashMap<Box<str>, usize>,
}

/// Two entries of a table claim the same domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{domain} is claimed twice: {first} and {second}")]
pub struct Conflict {
    /// The domain, or `*.` and the domain.
    pub domain: String,
    /// Who has it: `local domain NAME` or `partner NAME`.
    pub first: String,
    /// Who claims it too.
    pub second: String,
}

impl Table {
    /// Builds a table; `generation` rises with each one that is put in use.
    ///
    /// Fails when a domain is claimed twice. A local domain that lies below a partner's `*.` is no conflict: it stays
    /// ours.
    pub fn new(
        generation: u64,
        local_domains: Vec<LocalDomain>,
        partners: Vec<Partner>,
    ) -> Result<Self, Conflict> {
        let mut table = Self { generation, ..Self::default() };
        for (at, local) in local_domains.iter().enumerate() {
            if table.local_by_name.insert(local.name.as_str().into(), at).is_some() {
                let name = format!("local domain {}", local.name);
                return Err(Conflict { domain: local.name.to_string(), first: name.clone(), second: name });
            }
        }
        for (at, partner) in partners.iter().enumerate() {
            let own = DomainPattern::Exact(partner.domain.clone());
            for pattern in std::iter::once(&own).chain(&partner.further_domains) {
                let (map, domain) = match pattern {
                    DomainPattern::Exact(domain) => (&mut table.exact, domain),
                    DomainPattern::Below(domain) => (&mut table.below, domain),
                };
                let conflict = |first| Conflict {
                    domain: pattern.to_string(),
                    first,
                    second: format!("partner {}", partner.domain),
                };
                let is_ours = matches!(pattern, DomainPattern::Exact(_))
                    && table.local_by_name.contains_key(domain.as_str());
                if is_ours {
                    return Err(conflict(format!("local domain {domain}")));
                }
                match map.entry(domain.as_str().into()) {
                    Entry::Vacant(place) => _ = place.insert(at),
                    Entry::Occupied(place) => {
                        return Err(conflict(format!("partner {}", partners[*place.get()].domain)));
                    }
                }
            }
        }
        Ok(Self { local_domains, partners, ..table })
    }

    /// True when both decide alike: only their generations may differ.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.local_domains == other.local_domains && self.partners == other.partners
    }

    /// Which generation of the settings this is.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The entry that serves `domain`: the exact one, else that of the longest `*.` it lies below; never for a local
    /// domain.
    pub fn partner(&self, domain: &str) -> Option<&Partner> {
        if self.local_by_name.contains_key(domain) {
            return None;
        }
        if let Some(at) = self.exact.get(domain) {
            return Some(&self.partners[*at]);
        }
        if self.below.is_empty() {
            return None;
        }
        let mut rest = domain;
        while let Some((label, parent)) = rest.split_once('.') {
            if !label.is_empty()
                && let Some(at) = self.below.get(parent)
            {
                return Some(&self.partners[*at]);
            }
            rest = parent;
        }
        None
    }

    /// The entry that whatever `domain` costs is counted against: its partner's, or our own domain. All domains that no
    /// entry names are counted together, as `""`.
    ///
    /// A partner with a wildcard chooses its domains, so a limit for each domain would be no limit for the partner.
    pub fn entry_of<'a>(&'a self, domain: &str) -> &'a str {
        let partner = self.partner(domain).map(|partner| partner.domain.as_str());
        partner.or_else(|| self.local_domain(domain).map(|local| local.name.as_str())).unwrap_or_default()
    }

    /// True when an entry names `domain` itself, not only a subtree that it lies in.
    pub fn names_partner(&self, domain: &str) -> bool {
        self.exact.contains_key(domain)
    }

    /// The local domain of this name.
    pub fn local_domain(&self, name: &str) -> Option<&LocalDomain> {
        self.local_by_name.get(name).map(|at| &self.local_domains[*at])
    }

    /// All partner entries, in the order of the settings.
    pub fn partners(&self) -> &[Partner] {
        &self.partners
    }

    /// All local domains, in the order of the settings.
    pub fn local_domains(&self) -> &[LocalDomain] {
        &self.local_domains
    }

    /// The domain verdict: whether anything at all may pass between `local` and `remote`, and by which entry.
    ///
    /// Users, direction and capability are judged later, by [`Table::decide`].
    pub fn federates(&self, local: &Domain, remote: &Domain) -> Result<&Partner, Denied> {
        let partner = self.partner(remote.as_str());
        if self.local_domain(local.as_str()).is_none() {
            return Err(self.unserved(local.as_str(), remote.as_str()));
        }
        partner.ok_or_else(|| Denied::NotConfigured { domain: remote.clone() })
    }

    /// What is wrong with a `local` domain that is none of ours.
    pub(crate) fn unserved(&self, local: &str, remote: &str) -> Denied {
        // Names come from prepared addresses, so they are never empty or too long.
        let domain = |name| Domain::from_prepared(name).expect("a prepared domain");
        if self.partner(local).is_some() {
            Denied::Relay { from: domain(remote), to: domain(local) }
        } else {
            Denied::NotServed { domain: domain(local) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{local::Home, partner::PartnerKind};

    fn domain(name: &str) -> Domain {
        Domain::from_prepared(name).expect("legal")
    }

    fn local(name: &str) -> LocalDomain {
        LocalDomain { name: domain(name), home: Home::BuiltIn }
    }

    fn partner(name: &str, further: &[&str]) -> Partner {
        let further_domains = further
            .iter()
            .map(|text| match text.strip_prefix("*.") {
                Some(parent) => DomainPattern::Below(domain(parent)),
                None => DomainPattern::Exact(domain(text)),
            })
            .collect();
        Partner { further_domains, kind: PartnerKind::Federated, ..Partner::new(domain(name)) }
    }

    fn found<'a>(table: &'a Table, name: &str) -> Option<&'a str> {
        table.partner(name).map(|partner| partner.domain.as_str())
    }

    #[test]
    fn the_exact_domain_goes_before_the_longest_subtree() {
        let partners = vec![
            partner("wide.example", &["*.example.com"]),
            partner("narrow.example", &["*.dept.example.com", "one.example.com"]),
        ];
        let table = Table::new(1, vec![local("corp.example")], partners).expect("no conflict");
        for (name, entry) in [
            ("wide.example", Some("wide.example")),
            ("one.example.com", Some("narrow.example")),
            ("two.example.com", Some("wide.example")),
            ("x.dept.example.com", Some("narrow.example")),
            ("dept.example.com", Some("wide.example")),
            ("example.com", None),
            ("sub.wide.example", None),
            (".example.com", None),
            ("", None),
        ] {
            assert_eq!(found(&table, name), entry, "{name:?}");
        }
    }

    #[test]
    fn whatever_name_a_partner_takes_below_its_wildcard_is_counted_against_its_one_entry() {
        let partners = vec![partner("wide.example", &["*.wide.example", "other.example"])];
        let table = Table::new(1, vec![local("corp.example")], partners).expect("no conflict");
        for (name, entry) in [
            ("wide.example", "wide.example"),
            ("a.wide.example", "wide.example"),
            ("b.a.wide.example", "wide.example"),
            ("other.example", "wide.example"),
            ("corp.example", "corp.example"),
            ("stranger.example", ""),
            ("another.example", ""),
        ] {
            assert_eq!(table.entry_of(name), entry, "{name}");
        }
    }

    #[test]
    fn a_local_domain_below_a_partners_subtree_stays_ours() {
        let partners = vec![partner("partner.example", &["*.example"])];
        let table = Table::new(1, vec![local("corp.example")], partners).expect("no conflict");
        assert_eq!(found(&table, "corp.example"), None);
        assert_eq!(found(&table, "other.example"), Some("partner.example"));
    }

    #[test]
    fn a_domain_is_claimed_once() {
        let twice = [
            (vec![local("a.example"), local("a.example")], vec![]),
            (vec![local("a.example")], vec![partner("a.example", &[])]),
            (vec![local("a.example")], vec![partner("b.example", &["a.example"])]),
            (vec![], vec![partner("b.example", &[]), partner("c.example", &["b.example"])]),
            (vec![], vec![partner("b.example", &["*.x.example"]), partner("c.example", &["*.x.example"])]),
            (vec![], vec![partner("b.example", &["b.example"])]),
        ];
        for (locals, partners) in twice {
            let label = format!("{locals:?} {partners:?}");
            assert!(Table::new(1, locals, partners).is_err(), "{label}");
        }
    }

    #[test]
    fn nothing_passes_between_two_foreign_domains() {
        let partners = vec![partner("one.example", &[]), partner("two.example", &[])];
        let table = Table::new(1, vec![local("corp.example")], partners).expect("no conflict");
        let (one, two) = (domain("one.example"), domain("two.example"));
        let relay = Denied::Relay { from: one.clone(), to: two.clone() };
        assert_eq!(table.federates(&two, &one).unwrap_err(), relay);
        let stranger = domain("stranger.example");
        let unserved = Denied::NotServed { domain: stranger.clone() };
        assert_eq!(table.federates(&stranger, &one).unwrap_err(), unserved);
        let unnamed = Denied::NotConfigured { domain: stranger.clone() };
        assert_eq!(table.federates(&domain("corp.example"), &stranger).unwrap_err(), unnamed);
        assert!(table.federates(&domain("corp.example"), &one).is_ok());
    }
}
