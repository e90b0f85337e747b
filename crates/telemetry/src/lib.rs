//! What is counted and logged: metrics as handles, the health of the process's parts, set-up of logs, and addresses
//! that are shown redacted.
//!
//! No label value ever comes from the network.

mod health;
mod labels;
mod lag;
mod lasting_panic;
mod log_limit;
mod log_queue;
mod logs;
mod metrics;
mod redacted;
mod repeated;

pub use health::{Health, Part, PartReport, PartState};
pub use labels::{Label, SipMethod, StanzaKind, StatusClass};
pub use lag::Lag;
pub use lasting_panic::tell_lasting_panic;
pub use log_limit::LogLimit;
pub use logs::{LogFormat, LogGuard, LogSettings, flush_logs, init_logs};
pub use metrics::Metrics;
pub use redacted::{Redacted, show_addresses};
pub use repeated::tell_left_out;
