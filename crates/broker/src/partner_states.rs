//! Which partners cannot be reached: the part `partners` of the process's health, and the metrics about partners.
//!
//! Sessions say how their partner is doing. A partner that a reload removed is forgotten. Nothing is decided here.

use std::collections::{BTreeMap, HashSet};

use tombolo_edge::DomainPair;
use tombolo_policy::Table;
use tombolo_telemetry::{Metrics, PartState};

use crate::directory::Directory;

/// What a session knows of its partner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartnerNews {
    /// It can be reached, as far as is known.
    Reachable,
    /// It cannot be reached, and why.
    Lost(String),
    /// The session ended.
    Over,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct PartnerStates {
    /// By the partner's domain and then by ours.
    lost: BTreeMap<Box<str>, BTreeMap<Box<str>, String>>,
    /// Partners that have a series of their own in the metrics.
    shown: HashSet<Box<str>>,
}

impl Directory {
    /// A session says how its partner is doing. Partners that the policy does not know are not told about.
    pub fn note_partner(&self, pair: &DomainPair, news: PartnerNews) {
        self.partner_states.lock().note(pair, news, &self.policy.load(), &self.metrics);
    }

    /// Another policy is in force: partners that it removed are forgotten.
    pub fn forget_removed_partners(&self) {
        self.partner_states.lock().forget_removed(&self.policy.load(), &self.metrics);
    }
}

impl PartnerStates {
    fn note(&mut self, pair: &DomainPair, news: PartnerNews, policy: &Table, metrics: &Metrics) {
        let DomainPair { local, remote } = pair;
        let is_over = news == PartnerNews::Over || policy.federates(local, remote).is_err();
        match news {
            PartnerNews::Lost(cause) if !is_over => {
                let causes = self.lost.entry(remote.as_str().into()).or_default();
                causes.insert(local.as_str().into(), cause);
            }
            _ => self.is_lost_no_more(pair),
        }
        let is_up = !self.lost.contains_key(remote.as_str());
        if !is_over || !is_up {
            // Only partners that an administrator named: strangers under a wildcard must not choose series.
            if policy.names_partner(remote.as_str()) {
                metrics.partner_up(remote.as_str(), is_up);
                self.shown.insert(remote.as_str().into());
            }
        } else if self.shown.remove(remote.as_str()) {
            metrics.forget_partner(remote.as_str());
        }
        self.tell(metrics);
    }

    fn is_lost_no_more(&mut self, DomainPair { local, remote }: &DomainPair) {
        if let Some(causes) = self.lost.get_mut(remote.as_str()) {
            causes.remove(local.as_str());
            if causes.is_empty() {
                self.lost.remove(remote.as_str());
            }
        }
    }

    fn forget_removed(&mut self, policy: &Table, metrics: &Metrics) {
        self.lost.retain(|remote, _| policy.partner(remote).is_some());
        for removed in self.shown.extract_if(|remote| !policy.names_partner(remote)) {
            metrics.forget_partner(&removed);
        }
        self.tell(metrics);
    }

    fn tell(&self, metrics: &Metrics) {
        metrics.partners_lost(self.lost.len() as i64);
        let part = metrics.health().part("partners");
        if self.lost.is_empty() {
            part.set_up();
            return;
        }
        let named = self.lost.iter().take(MOST_NAMED);
        let mut texts: Vec<String> = named
            .map(|(remote, causes)| {
                let cause = causes.values().next().map_or("", String::as_str);
                format!("{remote}: {cause}")
            })
            .collect();
        if self.lost.len() > MOST_NAMED {
            texts.push(format!("and {} more; see: tombolo status", self.lost.len() - MOST_NAMED));
        }
        part.set(PartState::Noted, format!("{} lost: {}", self.lost.len(), texts.join("; ")));
    }
}

/// Lost partners that the part's note names.
const MOST_NAMED: usize = 10;

#[cfg(test)]
mod tests {
    use tombolo_policy::{DomainPattern, Home, LocalDomain, Partner};
    use tombolo_presence::Domain;

    use super::*;

    fn domain(name: &str) -> Domain {
        Domain::from_prepared(name).expect("prepared")
    }

    fn table(partners: &[&str]) -> Table {
        let local = |name| LocalDomain { name: domain(name), home: Home::BuiltIn };
        let partners = partners.iter().map(|name| match name.strip_prefix("*.") {
            Some(below) => {
                let further_domains = vec![DomainPattern::Below(domain(below))];
                Partner { further_domains, ..Partner::new(domain("wide.example")) }
            }
            None => Partner::new(domain(name)),
        });
        Table::new(1, vec![local("corp.example"), local("lab.example")], partners.collect()).expect("fits")
    }

    fn pair(local: &str, remote: &str) -> DomainPair {
        DomainPair { local: domain(local), remote: domain(remote) }
    }

    fn lost(cause: &str) -> PartnerNews {
        PartnerNews::Lost(cause.to_owned())
    }

    fn note_of(metrics: &Metrics) -> (PartState, String) {
        let part = metrics.health().parts().remove(0);
        (part.state, part.note)
    }

    #[test]
    fn a_partner_is_lost_until_every_pair_reaches_it_and_a_removed_partner_leaves_health_and_metrics() {
        let (metrics, policy) = (Metrics::new(1), table(&["one.example", "two.example"]));
        let mut states = PartnerStates::default();
        states.note(&pair("corp.example", "one.example"), lost("connection refused"), &policy, &metrics);
        states.note(&pair("lab.example", "one.example"), lost("timed out"), &policy, &metrics);
        states.note(&pair("corp.example", "two.example"), lost("no such name"), &policy, &metrics);
        let told = "2 lost: one.example: connection refused; two.example: no such name";
        assert_eq!(note_of(&metrics), (PartState::Noted, told.to_owned()));
        states.note(&pair("corp.example", "one.example"), PartnerNews::Reachable, &policy, &metrics);
        assert!(note_of(&metrics).1.contains("one.example: timed out"), "{:?}", note_of(&metrics));
        assert!(metrics.render().contains("tombolo_partner_up{partner=\"one.example\"} 0"));
        states.note(&pair("lab.example", "one.example"), PartnerNews::Reachable, &policy, &metrics);
        let text = metrics.render();
        assert!(text.contains("tombolo_partner_up{partner=\"one.example\"} 1"), "{text}");
        assert!(text.contains("tombolo_partners_lost 1"), "{text}");

        let policy = table(&["one.example"]);
        states.forget_removed(&policy, &metrics);
        assert_eq!(note_of(&metrics), (PartState::Up, String::new()));
        assert!(!metrics.render().contains("two.example"));
        states.note(&pair("corp.example", "two.example"), lost("no such name"), &policy, &metrics);
        assert_eq!(note_of(&metrics).0, PartState::Up, "its session says so a last time");
        states.note(&pair("lab.example", "one.example"), PartnerNews::Over, &policy, &metrics);
        assert!(!metrics.render().contains("one.example"));
    }

    #[test]
    fn strangers_below_a_wildcard_are_counted_and_choose_no_series_and_the_note_stays_short() {
        let (metrics, policy) = (Metrics::new(1), table(&["*.example.org"]));
        let mut states = PartnerStates::default();
        for n in 0..100 {
            let pair = pair("corp.example", &format!("x{n}.example.org"));
            states.note(&pair, lost("connection refused"), &policy, &metrics);
        }
        let text = metrics.render();
        assert!(text.contains("tombolo_partners_lost 100") && !text.contains("partner=\"x"), "{text}");
        let note = note_of(&metrics).1;
        assert!(note.starts_with("100 lost: ") && note.contains("and 90 more"), "{note}");
    }
}
