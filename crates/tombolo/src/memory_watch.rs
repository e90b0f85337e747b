//! Looks how much memory the process takes, and closes or opens its doors.

use std::{sync::Arc, time::Duration};

use tokio::time::interval;
use tombolo_broker::Broker;
use tombolo_config::MemorySettings;
use tombolo_runtime::{MemoryGate, memory_limit, memory_taken};
use tombolo_telemetry::{Metrics, PartState};

/// How often it is looked: within it little can be taken in.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The gate that the settings ask for: by default it is full at four fifths of what the system allows.
pub fn gate(settings: &MemorySettings) -> Arc<MemoryGate> {
    let allowed = || memory_limit().map(|limit| limit / 5 * 4);
    match settings.limit.or_else(allowed) {
        Some(limit) => MemoryGate::new(limit),
        None => {
            tracing::warn!("how much memory the process may take is not known: set memory.limit");
            MemoryGate::open()
        }
    }
}

/// Looks for ever.
pub async fn watch(gate: Arc<MemoryGate>, metrics: Arc<Metrics>, broker: Option<Arc<Broker>>) {
    let part = metrics.health().part("memory");
    let mut due = interval(LOOK_EVERY);
    loop {
        due.tick().await;
        let Some(taken) = memory_taken() else { return };
        let change = gate.note(taken);
        metrics.memory(taken, gate.limit());
        let Some(is_full) = change else { continue };
        if let Some(broker) = &broker {
            broker.set_memory_full(is_full);
        }
        let limit = gate.limit();
        if is_full {
            tracing::error!(
                taken,
                limit,
                "no memory for anything new: raise memory.limit, or take load away"
            );
            part.set(PartState::Degraded, format!("{taken} of {limit} octets taken: nothing new is let in"));
        } else {
            tracing::info!(
                taken,
                limit,
                "there is memory again: new subscriptions and connections are taken"
            );
            part.set_up();
        }
    }
}
