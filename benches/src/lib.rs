//! What the benches share: a shard's surroundings that answer at once, the program as a child process, and the figures
//! of a process.

pub mod process;
pub mod program;
pub mod surroundings;
