//! The partner table as a stream asks it: which domains are served, and on which terms a partner may come.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tombolo_net::{CertificateNames, PeerCertificates, Role, Trust};
use tombolo_policy::{Method, Table};
use tombolo_xmpp::{
    jid::Domain,
    stream::{PartnerTerms, PeerCertificate, StreamPolicy},
};

/// A table, for streams.
pub(crate) struct TablePolicy(pub(crate) Arc<Table>);

impl StreamPolicy for TablePolicy {
    fn is_served(&self, domain: &Domain) -> bool {
        self.0.local_domain(domain.as_str()).is_some()
    }

    fn terms(&self, local: &Domain, remote: &Domain) -> Option<PartnerTerms> {
        let local = tombolo_presence::Domain::from_prepared(local.as_str())?;
        let remote = tombolo_presence::Domain::from_prepared(remote.as_str())?;
        let partner = self.0.federates(&local, &remote).ok()?;
        Some(PartnerTerms {
            external: partner.accepts(Method::SaslExternal),
            dialback_with_tls: partner.accepts(Method::TlsDialback),
            dialback_without_tls: partner.accepts(Method::PlainDialback) && partner.insecure,
            stanza_bytes: partner.limits.stanza_bytes,
        })
    }
}

/// What a peer showed in its handshake, checked when a domain is to be proved by it.
pub(crate) struct Shown {
    certificates: PeerCertificates,
    names: CertificateNames,
    trust: Trust,
    role: Role,
    policy: Arc<Table>,
    wall: Duration,
    /// Whether the chain is good, by whether clientAuth alone is allowed; checked once, though many domains are asked
    /// about on one stream.
    verdicts: [OnceLock<bool>; 2],
}

impl Shown {
    /// What was shown, at `wall` since the Unix epoch.
    pub(crate) fn new(
        certificates: PeerCertificates,
        trust: Trust,
        role: Role,
        policy: Arc<Table>,
        wall: Duration,
    ) -> Self {
        let names = certificates.names();
        Self { certificates, names, trust, role, policy, wall, verdicts: Default::default() }
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Shown").field("role", &self.role).finish_non_exhaustive()
    }
}

impl PeerCertificate for Shown {
    fn proves(&self, domain: &Domain) -> bool {
        if !self.names.prove_xmpp(domain.as_str()) {
            return false;
        }
        let partner = self.policy.partner(domain.as_str());
        let allows_client_only = partner.is_some_and(|partner| partner.allow_client_auth_only);
        *self.verdicts[usize::from(allows_client_only)].get_or_init(|| {
            self.certificates.verify(&self.trust, self.role, allows_client_only, false, self.wall).is_ok()
        })
    }
}
