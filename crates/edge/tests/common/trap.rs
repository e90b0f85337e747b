//! Panics that a test orders: where a given line is logged.

use std::fmt::Debug;

use parking_lot::Mutex;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt},
    util::SubscriberInitExt,
};

static TRAP: Mutex<Option<&str>> = Mutex::new(None);

struct Traps;

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl<S: Subscriber> Layer<S> for Traps {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        let mut trap = TRAP.lock();
        let is_due = trap.is_some_and(|ordered| message.0.starts_with(ordered));
        if is_due {
            *trap = None;
        }
        drop(trap);
        assert!(!is_due, "as the test ordered: {}", message.0);
    }
}

/// The next line that begins so makes the one who logs it panic. Only for a test that has a process of its own.
pub fn set(line: &'static str) {
    let _ = tracing_subscriber::registry().with(Traps).try_init();
    *TRAP.lock() = Some(line);
}

/// Whether the line was logged since.
pub fn is_sprung() -> bool {
    TRAP.lock().is_none()
}
