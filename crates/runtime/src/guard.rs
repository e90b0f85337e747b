//! A panic in a handler becomes a value, so that it costs one session and not its arbiter.
//!
//! In: a closure. Out: its result, or [`Panicked`] and one more in the [`PanicCount`]. It never restarts anything: who
//! owns the broken state drops it and builds it again.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// How many handlers have panicked; shared by all who guard with it.
#[derive(Debug, Default)]
pub struct PanicCount(AtomicU64);

impl PanicCount {
    /// A count of zero, fit for a `static`.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Panics caught so far.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A guarded closure panicked; what it was working on must not be used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panicked {
    /// What the panic said, or nothing if it was not text.
    pub message: String,
}

impl std::fmt::Display for Panicked {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "a handler panicked: {}", self.message)
    }
}

impl std::error::Error for Panicked {}

/// Runs `work`, and turns a panic inside it into an error that is counted in `panics`.
///
/// What `work` had borrowed mutably may be half changed after an error: the caller must drop it.
pub fn guard<R>(panics: &PanicCount, work: impl FnOnce() -> R) -> Result<R, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        panics.0.fetch_add(1, Ordering::Relaxed);
        Panicked { message: text_of(&*payload) }
    })
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_text_and_is_counted() {
        let panics = PanicCount::new();
        let number = 3;
        assert_eq!(guard(&panics, || 7), Ok(7));
        assert_eq!(panics.count(), 0);
        let fault = guard(&panics, || -> u8 { panic!("row {number} is gone") }).unwrap_err();
        assert_eq!(fault.message, "row 3 is gone");
        assert_eq!(guard(&panics, || panic!("plain")), Err::<(), _>(Panicked { message: "plain".into() }));
        assert_eq!(panics.count(), 2);
    }
}
