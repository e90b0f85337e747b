//! The shard as a whole, by its inputs and outputs. Each file is one group of rules; [`stage`] is what they share.

mod stage;

mod account_changes;
mod acknowledged;
mod bodies;
mod borders;
mod budgets;
mod front_end_health;
mod hops;
mod limits;
mod local_pairs;
mod losses;
mod messages;
mod notify_mapping;
mod phones;
mod policy_changes;
mod probes;
mod restart;
mod sip_dialogs;
mod sip_messages;
mod sip_requests;
mod sip_watches;
mod slow_store;
mod successor;
mod walk;
mod xmpp_watches;
