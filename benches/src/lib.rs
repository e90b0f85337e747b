//! What the benches share: a shard's surroundings that answer at once, and the figures of a process.

pub mod process;
pub mod surroundings;
