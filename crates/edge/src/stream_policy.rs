//! The partner table as a stream asks it: which domains are served, and on which terms a partner may come.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tombolo_net::{CertificateFault, CertificateNames, PeerCertificates, Role, Trust};
use tombolo_policy::{Method, Table};
use tombolo_telemetry::Metrics;
use tombolo_xmpp::{
    jid::Domain,
    stream::{PartnerTerms, PeerCertificate, StreamPolicy},
};

use crate::DomainPair;

/// A table, for streams.
pub(crate) struct TablePolicy(pub(crate) Arc<Table>);

impl StreamPolicy for TablePolicy {
    fn is_served(&self, domain: &Domain) -> bool {
        self.0.local_domain(domain.as_str()).is_some()
    }

    fn terms(&self, local: &Domain, remote: &Domain) -> Option<PartnerTerms> {
        let local = tombolo_presence::Domain::from_prepared(local.as_str())?;
        let remote = tombolo_presence::Domain::from_prepared(remote.as_str())?;
        terms_of(&self.0, &DomainPair { local, remote })
    }
}

/// The terms of a pair; `None` when its domains do not federate.
pub(crate) fn terms_of(table: &Table, pair: &DomainPair) -> Option<PartnerTerms> {
    let partner = table.federates(&pair.local, &pair.remote).ok()?;
    Some(PartnerTerms {
        external: partner.accepts(Method::SaslExternal),
        dialback_with_tls: partner.accepts(Method::TlsDialback),
        dialback_without_tls: partner.accepts(Method::PlainDialback) && partner.insecure,
        stanza_bytes: partner.limits.stanza_bytes,
    })
}

/// What a peer showed in its handshake, checked when a domain is to be proved by it.
pub(crate) struct Shown {
    certificates: PeerCertificates,
    names: CertificateNames,
    trust: Trust,
    role: Role,
    policy: Arc<Table>,
    wall: Duration,
    /// The verdict on the chain, by whether clientAuth alone is allowed; checked once, though many domains are asked
    /// about on one stream.
    verdicts: [OnceLock<Result<(), CertificateFault>>; 2],
    metrics: Arc<Metrics>,
    /// A partner that is allowed to prove itself by dialback too was found without a good certificate, and that was told.
    has_told_downgrade: OnceLock<()>,
}

impl Shown {
    /// What was shown, at `wall` since the Unix epoch.
    pub(crate) fn new(
        certificates: PeerCertificates,
        trust: Trust,
        role: Role,
        policy: Arc<Table>,
        wall: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            names: certificates.names(),
            certificates,
            trust,
            role,
            policy,
            wall,
            verdicts: Default::default(),
            metrics,
            has_told_downgrade: OnceLock::new(),
        }
    }

    /// What the chain is worth for the domain, whatever its names.
    fn verdict(&self, domain: &Domain) -> &Result<(), CertificateFault> {
        let partner = self.policy.partner(domain.as_str());
        let allows_client_only = partner.is_some_and(|partner| partner.allow_client_auth_only);
        self.verdicts[usize::from(allows_client_only)].get_or_init(|| {
            self.certificates.verify(&self.trust, self.role, allows_client_only, false, self.wall)
        })
    }

    /// A partner that may prove itself by its certificate and does not goes on by dialback, which proves less: an
    /// operator must learn of it, since nothing else changes.
    fn tell_downgrade(&self, domain: &Domain) {
        let is_downgrade = self.policy.partner(domain.as_str()).is_some_and(|partner| {
            partner.accepts(Method::SaslExternal)
                && (partner.accepts(Method::TlsDialback) || partner.accepts(Method::PlainDialback))
        });
        if is_downgrade && self.has_told_downgrade.set(()).is_ok() {
            self.metrics.certificate_downgrade();
            tracing::warn!(
                partner = domain.as_str(),
                error = &*self.fault(domain),
                "the partner's certificate does not prove it; dialback has to"
            );
        }
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Shown").field("role", &self.role).finish_non_exhaustive()
    }
}

impl PeerCertificate for Shown {
    fn proves(&self, domain: &Domain) -> bool {
        let is_proved = self.names.prove_xmpp(domain.as_str()) && self.verdict(domain).is_ok();
        if !is_proved {
            self.tell_downgrade(domain);
        }
        is_proved
    }

    fn fault(&self, domain: &Domain) -> Box<str> {
        match self.verdict(domain) {
            Err(fault) => fault.to_string().into(),
            Ok(()) if self.names.is_empty() => "it names no domain (subjectAltName)".into(),
            Ok(()) => format!("it is for {}", self.names.listed().join(", ")).into(),
        }
    }
}
