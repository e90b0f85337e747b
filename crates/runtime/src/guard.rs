//! A panic becomes a value, so that it costs one input or one machine and not its arbiter.
//!
//! In: a closure. Out: its result, or [`Panicked`]. It counts nothing and restarts nothing: whoever owns the broken state
//! drops it, counts the panic and builds the state again.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// A guarded closure panicked; what it was working on must not be used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panicked {
    /// What the panic said, or nothing if it was not text. It may quote input, so it goes to no log; the panic's hook has
    /// logged where it happened.
    pub message: String,
}

impl std::fmt::Display for Panicked {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("a handler panicked")
    }
}

impl std::error::Error for Panicked {}

impl Panicked {
    /// From what a caught panic, or a task that panicked, carries.
    pub fn from_payload(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self { message: text.unwrap_or_default().to_owned() }
    }
}

/// Runs `work`, and turns a panic inside it into an error.
///
/// What `work` had borrowed mutably may be half changed after an error: the caller must drop it.
pub fn guard<R>(work: impl FnOnce() -> R) -> Result<R, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Panicked::from_payload(&*payload))
}

/// Runs `work` to its end, and turns a panic inside it into an error. The future is dropped then, with all that it owns.
pub async fn guard_future<F: Future>(work: F) -> Result<F::Output, Panicked> {
    let mut work = pin!(work);
    poll_fn(|context| match guard(|| work.as_mut().poll(context)) {
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(panicked) => Poll::Ready(Err(panicked)),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_future_that_panics_after_it_waited_ends_with_an_error_and_any_other_with_its_output() {
        let waits = async |panics: bool| {
            tokio::task::yield_now().await;
            assert!(!panics, "as ordered");
            7
        };
        assert_eq!(guard_future(waits(false)).await, Ok(7));
        assert_eq!(guard_future(waits(true)).await.unwrap_err().message, "as ordered");
    }

    #[test]
    fn a_panic_is_an_error_with_its_text_which_its_display_does_not_repeat() {
        let number = 3;
        assert_eq!(guard(|| 7), Ok(7));
        let fault = guard(|| -> u8 { panic!("row {number} is gone") }).unwrap_err();
        assert_eq!(fault.message, "row 3 is gone");
        assert!(!fault.to_string().contains("row"), "{fault}");
        assert_eq!(guard(|| panic!("plain")), Err::<(), _>(Panicked { message: "plain".into() }));
        assert_eq!(guard(|| std::panic::panic_any(7)), Err::<(), _>(Panicked { message: String::new() }));
    }
}
