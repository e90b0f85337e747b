//! The partner table as a gateway pushes it to its edges: what an edge needs of it, and no home or user.

use serde::{Deserialize, Serialize};
use tombolo_policy::{DomainPattern, Home, LocalDomain, Method, Partner, PartnerKind, Proxy, Table};
use tombolo_presence::Domain;

/// A table, for the link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartnerRows {
    generation: u64,
    locals: Vec<Domain>,
    partners: Vec<PartnerRow>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PartnerRow {
    domain: Domain,
    further_domains: Vec<String>,
    kind: String,
    methods: Vec<String>,
    proxy: Option<(String, u16)>,
    insecure: bool,
    allow_client_auth_only: bool,
    stanza_bytes: Option<u64>,
}

impl PartnerRows {
    /// What an edge needs of a table.
    pub(super) fn of(table: &Table) -> Self {
        let row = |partner: &Partner| PartnerRow {
            domain: partner.domain.clone(),
            further_domains: partner.further_domains.iter().map(ToString::to_string).collect(),
            kind: partner.kind.as_str().to_owned(),
            methods: partner.authenticate.iter().map(|method| method.as_str().to_owned()).collect(),
            proxy: partner.proxy.as_ref().map(|proxy| (proxy.host.to_string(), proxy.port)),
            insecure: partner.insecure,
            allow_client_auth_only: partner.allow_client_auth_only,
            stanza_bytes: partner.limits.stanza_bytes.map(|bytes| bytes as u64),
        };
        Self {
            generation: table.generation(),
            locals: table.local_domains().iter().map(|local| local.name.clone()).collect(),
            partners: table.partners().iter().map(row).collect(),
        }
    }

    /// The table again. A word that is not known makes its partner unknown, so that nothing is allowed by mistake.
    pub(super) fn table(&self) -> Option<Table> {
        let locals = self.locals.iter().map(|name| LocalDomain { name: name.clone(), home: Home::BuiltIn });
        let partners: Vec<Partner> = self.partners.iter().filter_map(PartnerRow::partner).collect();
        Table::new(self.generation, locals.collect(), partners).ok()
    }
}

impl PartnerRow {
    fn partner(&self) -> Option<Partner> {
        let kinds = [PartnerKind::Federated, PartnerKind::PublicVerified, PartnerKind::PublicUnverified];
        let methods = [Method::SaslExternal, Method::TlsDialback, Method::PlainDialback];
        let mut partner = Partner::new(self.domain.clone());
        partner.kind = kinds.into_iter().find(|kind| kind.as_str() == self.kind)?;
        partner.authenticate = self
            .methods
            .iter()
            .map(|name| methods.into_iter().find(|method| method.as_str() == name))
            .collect::<Option<_>>()?;
        let pattern = |text: &String| match text.strip_prefix("*.") {
            Some(parent) => Domain::from_prepared(parent).map(DomainPattern::Below),
            None => Domain::from_prepared(text).map(DomainPattern::Exact),
        };
        partner.further_domains = self.further_domains.iter().map(pattern).collect::<Option<_>>()?;
        partner.proxy =
            self.proxy.as_ref().map(|(host, port)| Proxy { host: host.as_str().into(), port: *port });
        partner.insecure = self.insecure;
        partner.allow_client_auth_only = self.allow_client_auth_only;
        partner.limits.stanza_bytes = self.stanza_bytes.map(|bytes| bytes as usize);
        Some(partner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_gets_the_same_terms_and_no_home() {
        let domain = |name| Domain::from_prepared(name).expect("prepared");
        let mut partner = Partner::new(domain("partner.example"));
        partner.authenticate = vec![Method::TlsDialback];
        partner.further_domains = vec![DomainPattern::Below(domain("partner.example"))];
        partner.proxy = Some(Proxy { host: "127.0.0.1".into(), port: 15269 });
        let local = LocalDomain { name: domain("corp.example"), home: Home::BuiltIn };
        let table = Table::new(3, vec![local], vec![partner.clone()]).expect("no conflict");
        let back = PartnerRows::of(&table).table().expect("no conflict");
        assert_eq!(back.generation(), 3);
        assert_eq!(back.partners(), [partner]);
        assert!(back.partner("im.partner.example").is_some() && back.partner("other.example").is_none());
    }
}
