//! What is fuzzed and how inputs are made: a table of targets, and a mutator whose seed decides everything.
//!
//! A body takes any octets; it must come back soon, and panics only where the parser broke its rule.

mod mutator;
mod sip_message;
mod targets;

pub use mutator::Mutator;
pub use targets::{TARGETS, Target};
