//! The neutral words that both protocols are translated to and from.
//!
//! Nothing here knows XML, SIP, a clock or a socket: an [`Address`] is who is meant, a [`PresenceState`] is what
//! may be seen of them, a [`Subscription`] is what two of them agreed on.

mod address;
mod cut;
mod lifetime;
mod now;
mod state;
mod subscription;

pub use address::{Address, AddressError, Domain, PARTITIONS, partition_of};
pub use cut::cut_text;
pub use lifetime::{Boot, ClockMark, LifetimeClock};
pub use now::Now;
pub use state::{Availability, Device, Note, PresenceState};
pub use subscription::{Step, Subscription, SubscriptionKind};
