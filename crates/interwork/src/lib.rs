//! Translation between SIP and XMPP, and the pure machine that one shard runs.
//!
//! Stanzas, requests, responses, decisions and time go in; stanzas, requests, responses and rows to be stored come out.
//! No clock, socket, lock or task.

pub mod error;
pub mod token;
