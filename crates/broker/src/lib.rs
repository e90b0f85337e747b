//! Actors that own a session, a user, a peer or a shard, and the directory of who is where.
//!
//! Protocol logic is in the pure machines that they run; here is only who holds which machine, and what goes to whom.

mod accounts;
mod alarm;
mod bindings;
mod body_forms;
mod broker;
mod budgets;
mod directory;
mod fanout_actor;
mod flows;
mod guarded;
mod guests;
mod local_user;
mod messages;
mod panics;
mod partner_pairs;
mod partner_states;
mod peer;
mod peer_actor;
mod registrations;
mod requests;
mod router;
mod salvage;
mod seen_certificates;
mod session;
mod session_actor;
mod shard_load;
mod store_watch;
mod user_actor;

#[cfg(test)]
extern crate self as tombolo_broker;
#[cfg(test)]
mod panic_tests;

pub use accounts::{Account, Accounts, Authenticator};
pub use broker::{Broker, BrokerSettings, FrontEndReport, SessionReport, ShardReport, StreamReport};
pub use budgets::MemoryLimits;
pub use local_user::BindingReport;
pub use registrations::RegistrationCounts;
pub use session::{Session, SessionOutput, SessionSettings, SessionState, ShardIndex};
pub use tombolo_interwork::owner::BudgetLimits;
