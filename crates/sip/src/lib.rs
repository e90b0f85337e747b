//! SIP as pure code: messages, framing, transactions, subscriptions and publications, presence bodies.
//!
//! Octets, messages and `now` go in; octets, events and one deadline come out. No clock, socket, lock or task.

pub mod body;
pub mod build;
pub mod digest;
pub mod event;
pub mod framer;
pub mod fuzz_bodies;
pub mod headers;
mod lex;
pub mod message;
pub mod method;
pub mod pidf;
pub mod transaction;
pub mod uas;
pub mod uri;
