//! TCP, TLS, DNS and certificates. Knows no protocol: names, bytes and verdicts go in and out.

mod authority;
mod names;
mod resolve;
mod socket;
mod stream;
mod tls;
mod trust;

pub use authority::{Authority, AuthorityError};
pub use names::CertificateNames;
pub use resolve::{Resolver, Srv, Target, Unresolved, order_srv};
pub use socket::{connect, listen, udp};
pub use stream::{AnyStream, TlsError, TlsFacts, accept_tls, connect_tls};
pub use tls::{CertificateStore, StoreError, client_config, server_config};
pub use trust::{CertificateFault, PeerCertificates, Role, Trust, TrustError};
