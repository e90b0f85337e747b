//! Who may federate with whom, who may watch and write, and by which rule.
//!
//! Checked partner entries and local domains go in and become one immutable [`Table`]. A [`Question`] about two
//! addresses goes in, a [`Verdict`] comes out; [`Table::explain`] tells the same with each rule that was looked at.
//! It never reads a setting as text, a certificate, or a clock.

mod decide;
mod explain;
mod local;
mod partner;
mod table;

pub use decide::{Approve, Capability, Denied, Direction, Outcome, Question, Rule, Verdict};
pub use explain::{Explanation, RuleStep};
pub use local::{FrontEnd, Home, LocalDomain, NextHop, NextHopError, PeerProof, SipTransport};
pub use partner::{
    Detail, DomainPattern, Limits, MessageType, Method, Partner, PartnerKind, Permitted, Proxy, ProxyError,
};
pub use table::{Conflict, Table};
