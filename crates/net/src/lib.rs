//! TCP, TLS, DNS and certificates.
//!
//! In: addresses, names, certificate files. Out: connections, targets in the order in which to try them, and verdicts
//! on certificates. It reads no octet of XMPP or SIP; it knows only what their DNS and certificate rules are.

mod authority;
mod bind;
mod canonical;
mod certificate_fault;
mod certificate_file;
mod date;
mod last_good;
mod leaf;
mod names;
mod resolve;
mod rotation;
mod sip_location;
mod socket;
mod srv;
mod store;
mod stream;
mod system_names;
mod tls;
mod trust;

pub use authority::{Authority, AuthorityError};
pub use bind::bind_all;
pub use canonical::canonical;
pub use certificate_fault::CertificateFault;
pub use certificate_file::{BinaryForm, FileFault, FileProblem, FileRole, inspect_pair, inspect_trust};
pub use date::{date, moment, span_text};
pub use names::CertificateNames;
pub use resolve::{Resolver, Unresolved};
pub use rustls::sign::CertifiedKey;
pub use sip_location::{SipLocation, SipTarget, SipTransport};
pub use socket::{MAX_ATTEMPTS, connect, listen, listen_all, udp, udp_all};
pub use srv::{Srv, Target, order_srv};
pub use store::{CertificateStore, Expiry, Replace, StoreError};
pub use stream::{AnyStream, TlsError, TlsFacts, accept_tls, connect_tls, is_about_certificate};
pub use tls::{ServerChoice, client_config, client_config_classic, server_config, server_config_for};
pub use trust::{PeerCertificates, Role, Trust, TrustError};
