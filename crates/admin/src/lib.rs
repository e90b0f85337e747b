//! Questions and orders to a running process.
//!
//! The same questions are answered on HTTP (loopback, read only) and on a unix socket in the data directory (orders too,
//! since only who may open it comes there). [`client`] is what the command line asks with.

mod answers;
pub mod client;
mod server;

pub use answers::{
    CertificateAnswer, DecisionAnswer, PartnerAnswer, PendingAnswer, RelationAnswer, ReloadAnswer,
    SessionAnswer, StatusAnswer, StreamAnswer, TlsAnswer, UserAnswer,
};
pub use server::{AdminState, Reloadable, UserBook, serve};
