//! The local domains and their homes, and who claims which domain.

use std::net::IpAddr;

use tombolo_policy::{DomainPattern, FrontEnd, Home, NextHop, SipTransport};
use tombolo_presence::Domain;

use super::Context;
use crate::{
    error::Reason,
    section::{Found, List, Section},
    settings::{DomainSettings, Role},
};

/// Which domains are claimed so far, by what, and where that stands.
#[derive(Default)]
pub(super) struct Claims(Vec<(DomainPattern, &'static str, String)>);

impl Claims {
    /// Notes a claim, or that somebody was earlier.
    pub(super) fn claim(&mut self, section: &Section<'_>, owner: &'static str, found: &Found<DomainPattern>) {
        match self.0.iter().find(|(pattern, ..)| *pattern == found.value) {
            Some((pattern, owner, first)) => {
                let reason = Reason::DomainTaken { domain: pattern.to_string(), owner, first: first.clone() };
                section.error(
                    found.span.clone(),
                    reason,
                    "each domain once, in a [[domain]] or a [[partner]]",
                );
            }
            None => {
                let place = section.source.place_text(found.span.start);
                self.0.push((found.value.clone(), owner, place));
            }
        }
    }
}

/// Prepares a domain name as the stream machine does, so that both always compare equal.
pub(super) fn prepared(text: &str) -> Result<Domain, &'static str> {
    let refused = "no domain name";
    if text.contains('*') {
        return Err(refused);
    }
    let name = tombolo_xmpp::jid::Domain::parse(text).map_err(|_| refused)?;
    Domain::from_prepared(name.as_str()).ok_or(refused)
}

/// Every `[[domain]]`. A gateway whose SIP listeners `speaks_tls` needs a certificate for each.
pub(super) fn domains(
    top: &Section<'_>,
    speaks_tls: bool,
    claims: &mut Claims,
    context: &Context<'_>,
) -> Vec<DomainSettings> {
    if !top.has("domain") {
        top.missing("domain");
    }
    let mut domains = Vec::new();
    for section in top.sections("domain", "domain") {
        let name = section.parsed("name", prepared);
        match &name {
            Some(name) => {
                let pattern =
                    Found { value: DomainPattern::Exact(name.value.clone()), span: name.span.clone() };
                claims.claim(&section, "domain", &pattern);
            }
            None if !section.has("name") => section.missing("name"),
            None => {}
        }
        let shown = name.as_ref().map_or("the domain".to_owned(), |name| name.value.to_string());
        let home = section.section("home", "domain.home");
        if !section.has("home") {
            section.missing("home");
        }
        let home = home.and_then(|home| read_home(&home, &shown));
        let front_end_by_tls = matches!(&home, Some(Home::FrontEnd(FrontEnd { next_hop, .. }))
            if next_hop.transport == SipTransport::Tls);
        let needs_certificate = match context.role.get() {
            Some(Role::AllInOne | Role::Edge) => true,
            Some(Role::Gateway) => speaks_tls || front_end_by_tls,
            None => false,
        };
        let own = name.as_ref().map(|name| name.value.as_str());
        let certificate = context.certificate(&section, needs_certificate, own);
        section.finish();
        if let Some(name) = name {
            domains.push(DomainSettings { name: name.value, home, certificate });
        }
    }
    domains
}

fn read_home(section: &Section<'_>, domain: &str) -> Option<Home> {
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        BuiltIn,
        FrontEnd,
    }
    let kind = section.word("kind", &[("built-in", Kind::BuiltIn), ("front-end", Kind::FrontEnd)]);
    if kind.is_none() && !section.has("kind") {
        section.missing("kind");
    }
    let next_hop = section.parsed("next_hop", str::parse::<NextHop>);
    let insecure = section.boolean("insecure");
    let trusted =
        section.list("trusted_addresses", |text| text.parse::<IpAddr>().map(|ip| ip.to_canonical()));
    section.finish();
    match kind?.value {
        Kind::BuiltIn => {
            for key in ["next_hop", "insecure", "trusted_addresses"] {
                if let Some(span) = section.value_span(key) {
                    let reason = Reason::NotBeside { key: section.path(key), other: "kind = \"built-in\"" };
                    section.error(span, reason, "kind = \"front-end\" beside it");
                }
            }
            Some(Home::BuiltIn)
        }
        Kind::FrontEnd => {
            if !section.has("next_hop") {
                section.missing("next_hop");
            }
            let is_insecure = insecure.as_ref().is_some_and(|found| found.value);
            if let Some(next_hop) = &next_hop
                && next_hop.value.transport != SipTransport::Tls
                && !is_insecure
            {
                let reason = Reason::ClearNextHop { domain: domain.to_owned() };
                section.error(
                    next_hop.span.clone(),
                    reason,
                    "transport=tls, or insecure = true with trusted_addresses = [\"ADDRESS\"]",
                );
            }
            match (&insecure, section.value_span("trusted_addresses")) {
                (Some(found), span) if found.value => {
                    // Where elements are wrong that is said already.
                    if span.is_none()
                        || trusted.as_ref().is_some_and(|list| list.items.is_empty() && list.is_whole)
                    {
                        let reason = Reason::NoTrustedAddress { domain: domain.to_owned() };
                        section.error(
                            found.span.clone(),
                            reason,
                            "trusted_addresses = [\"ADDRESS\"] beside it",
                        );
                    }
                }
                (_, Some(span)) => {
                    let reason = Reason::NotBeside {
                        key: section.path("trusted_addresses"),
                        other: "insecure = false",
                    };
                    section.error(span, reason, "insecure = true beside it");
                }
                (_, None) => {}
            }
            let trusted_addresses = trusted.map_or_else(Vec::new, List::into_values);
            Some(Home::FrontEnd(FrontEnd {
                next_hop: next_hop?.value,
                insecure: is_insecure,
                trusted_addresses,
            }))
        }
    }
}
