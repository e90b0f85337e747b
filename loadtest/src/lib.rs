//! Simulated partners and phones. They are stand-ins, built from our own crates: what they prove is that the parts work
//! together and how fast, never that we read a standard as others do.

pub mod partner;
pub mod phone;
