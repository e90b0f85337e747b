//! A panic of work that lasts as long as the process, such as an accept loop: counted and logged.

use std::fmt::Display;

use crate::Metrics;

/// Tells that the work at `place` panicked and begins anew. `error` quotes nothing of a peer.
pub fn tell_lasting_panic(metrics: &Metrics, place: &'static str, error: &dyn Display) {
    metrics.panicked();
    tracing::error!(place, %error, "work that lasts panicked and begins anew");
}
