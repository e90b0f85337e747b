//! Panics over what a peer sent: each costs its connection, or its datagram, and is counted. They never count toward the
//! end of the process, or a stranger could restart it.

use tombolo_runtime::{Panicked, guard_future};
use tombolo_telemetry::Metrics;

/// Runs `work` for one peer; `None` when it panicked. `place` says where, for the log.
pub(crate) async fn caught<F: Future>(metrics: &Metrics, place: &'static str, work: F) -> Option<F::Output> {
    guard_future(work).await.map_err(|panicked| note(metrics, place, &panicked)).ok()
}

/// Counts and logs a panic. What it says may quote the peer, and is left out.
pub(crate) fn note(metrics: &Metrics, place: &'static str, panicked: &Panicked) {
    metrics.panicked();
    tracing::error!(place, error = %panicked, "a peer's input was dropped: handling it panicked");
}

/// Why a connection ended whose handling panicked.
pub(crate) const PANICKED: &str = "handling it panicked; the log says where";
