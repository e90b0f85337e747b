//! One shard of the presence fan-out: which watches are owed newer state, and by which lane it goes.
//!
//! Changes and credit go in; updates come out, each rendered by the caller. It knows ids of watches, views and lanes,
//! and nothing of what a view says, how it is written or who receives it.

mod lanes;
mod shard;
mod views;

pub use lanes::LaneId;
pub use shard::{Shard, Update, WatchId};
pub use views::{ViewId, Views};
