//! How actors are placed, timed and woken.
//!
//! In: how many arbiters there shall be, and the actors. Out: a [`Placement`] that starts each on its arbiter, a
//! [`Clock`] that is the only source of time, an [`Inbox`] for each consumer of bulk, a [`Turn`] that bounds what one
//! handler does, a [`Backoff`] for each dialler, a [`guard`] that turns a panic into a value,
//! and [`lasting`] for work that a panic must not end. Nothing here knows a protocol.

mod backoff;
mod clock;
mod guard;
mod inbox;
mod lasting;
mod memory;
mod placement;
mod turn;

pub use backoff::{Backoff, BackoffSettings};
pub use clock::Clock;
pub use guard::{Panicked, guard, guard_future};
pub use inbox::{Inbox, InboxSender, Wake, inbox, inbox_of_bytes};
pub use lasting::{PanicWaits, lasting};
pub use memory::{MemoryGate, memory_limit, memory_taken};
pub use placement::Placement;
pub use turn::{TURN_ITEMS, TURN_SPAN, Turn};
