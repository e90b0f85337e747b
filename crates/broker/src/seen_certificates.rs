//! Which certificates each partner has shown, so that another one is noticed (XS-TLS-10).
//!
//! In: a domain and a fingerprint. Out: what it showed before, when this one is new. Nothing is refused for it: certificates
//! are renewed. It forgets with the process.

use std::collections::HashMap;

use parking_lot::Mutex;
use tombolo_presence::Domain;

/// The last few certificates of each partner's domain.
#[derive(Debug, Default)]
pub struct Seen(Mutex<HashMap<Domain, Vec<String>>>);

impl Seen {
    /// Notes a certificate by its fingerprint; the one that was seen last, when this one is none of the last few.
    pub fn see(&self, partner: &Domain, fingerprint: &str) -> Option<String> {
        if fingerprint.is_empty() {
            return None;
        }
        let mut seen = self.0.lock();
        if seen.len() >= MAX_DOMAINS && !seen.contains_key(partner) {
            return None;
        }
        let known = seen.entry(partner.clone()).or_default();
        if let Some(at) = known.iter().position(|known| known == fingerprint) {
            let again = known.remove(at);
            known.push(again);
            return None;
        }
        let before = known.last().cloned();
        if known.len() == MOST {
            known.remove(0);
        }
        known.push(fingerprint.to_owned());
        before
    }
}

/// Servers of one domain may each have their own.
const MOST: usize = 8;
/// Domains that are remembered: below a wildcard a partner chooses how many it has.
const MAX_DOMAINS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_certificate_is_told_once_and_servers_that_take_turns_are_not() {
        let (seen, domain) = (Seen::default(), |name| Domain::from_prepared(name).expect("prepared"));
        let (a, b) = (domain("a.example"), domain("b.example"));
        assert_eq!(seen.see(&a, "11"), None, "the first");
        assert_eq!(seen.see(&a, "22"), Some("11".to_owned()));
        for _ in 0..3 {
            assert_eq!((seen.see(&a, "11"), seen.see(&a, "22")), (None, None));
        }
        assert_eq!(seen.see(&b, "33"), None, "another partner");
        assert_eq!(seen.see(&a, ""), None, "none was shown");
        for n in 0..100 {
            seen.see(&a, &n.to_string());
        }
        assert_eq!(seen.0.lock()[&a].len(), MOST);
    }

    #[test]
    fn a_partner_that_shows_certificates_for_ever_more_domains_takes_bounded_memory() {
        let seen = Seen::default();
        for n in 0..2 * MAX_DOMAINS {
            let domain = Domain::from_prepared(&format!("s{n}.wide.example")).expect("prepared");
            assert_eq!(seen.see(&domain, "11"), None);
        }
        assert_eq!(seen.0.lock().len(), MAX_DOMAINS);
        let first = Domain::from_prepared("s0.wide.example").expect("prepared");
        assert_eq!(seen.see(&first, "22"), Some("11".to_owned()), "one that is known is still told of");
    }
}
