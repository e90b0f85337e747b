//! Translation between SIP and XMPP, and the pure machine that one shard runs.
//!
//! Stanzas, requests, responses, decisions and time go in; stanzas, requests, responses and rows to be stored come out.
//! No clock, socket, lock or task.

mod activity;
pub mod address;
pub mod error;
mod message_to_sip;
mod message_to_xmpp;
pub mod owner;
pub mod presence_to_sip;
pub mod presence_to_xmpp;
pub mod request;
pub mod rows;
mod short_notes;
mod sip_reply;
mod sip_request;
mod time;
pub mod token;
mod tuple_id;
pub mod typed_address;
mod xmpp_error;

pub use message_to_sip::{head_len, in_cpim};
