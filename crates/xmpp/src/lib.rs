//! XMPP between servers as pure code (RFC 6120, RFC 6121, XEP-0220): addresses, XML, stanzas, streams.
//!
//! Bytes and the time go in, bytes and events come out. Nothing here opens a socket, reads a clock, makes random
//! numbers, or knows what is translated to what.

#[macro_use]
mod conditions;
pub mod dialback;
pub mod features;
pub mod framer;
pub mod fuzz_bodies;
pub mod jid;
pub mod ns;
mod precis;
pub mod sasl;
pub mod stanza;
pub mod stream;
pub mod stream_error;
pub mod write;
pub mod xml;
