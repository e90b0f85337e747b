//! Questions and orders to a running process.
//!
//! HTTP (loopback, read only) says how the process is, to whoever asks. The unix socket in the data directory answers every
//! question, also about people, and takes orders, since only who may open it comes there. [`client`] is what the command line asks with.

mod answers;
pub mod client;
mod explain;
mod limited;
mod partner_states;
mod reports;
mod server;
mod socket_path;

pub use answers::{
    BindingAnswer, CapabilityAnswer, CertificateAnswer, DecisionAnswer, ExplainAnswer, FrontEndAnswer,
    LinkAnswer, PartAnswer, PartnerAnswer, PartnerStateAnswer, PendingAnswer, RegistrationsAnswer,
    RelationAnswer, ReloadAnswer, SessionAnswer, StatusAnswer, StreamAnswer, TlsAnswer, UserAnswer,
};
pub use server::{AdminState, Reloadable, UserBook, serve};
