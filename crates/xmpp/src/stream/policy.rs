//! What a stream asks its surroundings: which domains are served, on which terms a partner may come, what a
//! certificate proves. All answers are immediate and change nothing.

use std::{fmt, sync::Arc};

use super::{Method, StreamFault};
use crate::jid::Domain;

/// Terms on which a partner may talk to one of our domains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartnerTerms {
    /// A certificate that names the domain (SASL EXTERNAL, XEP-0344).
    pub external: bool,
    /// Dialback over TLS.
    pub dialback_with_tls: bool,
    /// Dialback in the clear, which proves next to nothing.
    pub dialback_without_tls: bool,
    /// Octets of the largest stanza; `None` for the default.
    pub stanza_bytes: Option<usize>,
}

impl PartnerTerms {
    /// Only a certificate: the default for a partner.
    pub const CERTIFICATE: Self =
        Self { external: true, dialback_with_tls: false, dialback_without_tls: false, stanza_bytes: None };

    /// True when dialback is allowed on a stream with or without TLS. Where it may do without TLS, TLS does no harm.
    pub fn allow_dialback(&self, has_tls: bool) -> bool {
        self.dialback_without_tls || (has_tls && self.dialback_with_tls)
    }

    /// True when a pair that a peer proved to us in this way may send.
    pub(super) fn allow_proof(&self, method: Method) -> bool {
        match method {
            Method::External => self.external,
            Method::Certificate => self.external || self.allow_dialback(true),
            Method::DialbackWithTls | Method::DialbackByPeer => self.allow_dialback(true),
            Method::DialbackInTheClear => self.allow_dialback(false),
        }
    }
}

/// The partner table, as far as a stream needs it.
pub trait StreamPolicy {
    /// True for a domain that we serve toward XMPP.
    fn is_served(&self, domain: &Domain) -> bool;

    /// True for a domain that we served once and no longer do: the peer is told `host-gone`.
    fn was_served(&self, _domain: &Domain) -> bool {
        false
    }

    /// Terms for `remote` to talk to our `local`; `None` refuses it.
    fn terms(&self, local: &Domain, remote: &Domain) -> Option<PartnerTerms>;
}

/// What the peer's certificate proves. The checks of chain, time and use are done before; here only names count.
pub trait PeerCertificate: fmt::Debug + Send + Sync {
    /// True when the certificate is valid and names `domain` (RFC 6120 §13.7), or is pinned for it.
    fn proves(&self, domain: &Domain) -> bool;

    /// Why it does not prove `domain`, in words that name the certificate, a date or an authority. Asked only after
    /// [`PeerCertificate::proves`] said no.
    fn fault(&self, domain: &Domain) -> Box<str>;
}

/// No certificate, or one that proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NoCertificate;

impl PeerCertificate for NoCertificate {
    fn proves(&self, _domain: &Domain) -> bool {
        false
    }

    fn fault(&self, _domain: &Domain) -> Box<str> {
        "the peer showed no certificate".into()
    }
}

/// What a finished TLS handshake told.
#[derive(Debug, Clone)]
pub struct TlsFacts {
    /// The peer's certificate.
    pub certificate: Arc<dyn PeerCertificate>,
}

/// Whether a stream runs over TLS.
#[derive(Debug, Clone)]
pub(super) enum Security {
    Plain,
    Tls(Arc<dyn PeerCertificate>),
}

impl Security {
    pub(super) fn has_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// True when the peer's certificate proves `domain`.
    pub(super) fn proves(&self, domain: &Domain) -> bool {
        match self {
            Self::Plain => false,
            Self::Tls(certificate) => certificate.proves(domain),
        }
    }

    /// The fault of a stream whose peer should have proved `domain` by its certificate.
    pub(super) fn certificate_fault(&self, domain: &Domain) -> StreamFault {
        let reason = match self {
            Self::Plain => "the stream has no TLS".into(),
            Self::Tls(certificate) => certificate.fault(domain),
        };
        StreamFault::Certificate { domain: domain.clone(), reason }
    }
}
