//! The inside link between an edge and a gateway: versioned frames over mutual TLS, opened by the gateway, so that the
//! firewall needs no hole from the outside inward.
//!
//! A link outlives its connections. When one breaks, both ends keep what the other has not acknowledged ([`journal`]) and
//! all streams stay as they are; the edge reads nothing more from partners. A new connection within [`LINK_GRACE`] goes
//! on where the old one broke. After that the edge closes its streams, and the gateway's sessions are told
//! [`crate::StreamEnd::LinkLost`]. A new process at either end is a new link.

mod edge;
mod frame;
mod incoming;
mod journal;
mod listener;
mod partners;
mod port;
mod standing;
mod wire;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tombolo_net::{CertificateStore, Trust};

pub use listener::{LinkListener, LinkReports, LinkSink};
pub use port::{LinkPort, LinkPortSettings};
pub use standing::{LinkReport, LinkState};

/// What proves one end of a link, and whom it trusts.
#[derive(Debug, Clone)]
pub struct LinkSettings {
    /// Our chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The authorities that the other end must lead to, PEM.
    pub trust: PathBuf,
}

/// The settings, read. Clones share what [`CertificateStore::reload`] and [`Trust::reload`] bring; links that are up go on.
#[derive(Debug, Clone)]
pub struct LinkIdentity {
    /// Our certificate and key.
    pub certificates: Arc<CertificateStore>,
    /// The authorities that the other end must lead to.
    pub trust: Trust,
}

impl LinkIdentity {
    /// Reads the files.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn read(settings: &LinkSettings) -> io::Result<Self> {
        let certificates = Arc::new(CertificateStore::default());
        certificates
            .load_as(OWN, &settings.certificate, &settings.key)
            .map_err(|error| io::Error::other(format!("link: {error}")))?;
        let trust = Trust::from_pem_file(&settings.trust)
            .map_err(|error| io::Error::other(format!("link: {error}")))?;
        Ok(Self { certificates, trust })
    }
}

/// How long streams outlive the connection of their link.
pub const LINK_GRACE: Duration = Duration::from_secs(10);
/// Under what name our own certificate is kept.
const OWN: &str = "link";
/// A handshake takes so long at most.
const TLS_LIMIT: Duration = Duration::from_secs(10);
/// Octets of one stream's stanzas that may be on their way to a gateway and not taken.
const CREDIT_BYTES: usize = 256 << 10;
/// Octets that may wait for a gateway before streams keep what they bring; what is no stanza passes all the same.
const BULK_BYTES: usize = 8 << 20;
/// Handshakes with would-be gateways at one time.
const MOST_HANDSHAKES: usize = 16;
/// How soon a changed partner table is on its way to the edges.
const TABLE_CHECK: Duration = Duration::from_secs(1);
