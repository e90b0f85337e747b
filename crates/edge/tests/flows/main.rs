//! SIP edges over real sockets on loopback: what flows bring and take, who they prove to be, and where dials lead.

#[path = "../common/mod.rs"]
mod common;
mod dial;
mod stage;
mod tcp;
mod tls;
mod udp;
