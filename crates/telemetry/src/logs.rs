//! Logs by `tracing`: for people on a terminal, as JSON otherwise. Lines go through a [`LogQueue`], so that no thread ever
//! waits for whoever reads them; panics are logged in the same way. Lines that repeat are limited by kind.

use std::{
    io::IsTerminal,
    panic::{self, PanicHookInfo},
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::{
    Layer,
    filter::{FilterExt, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{log_queue::LogQueue, redacted::shows_addresses, repeated::Repeated};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people when the error output is a terminal, else JSON.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone, Default)]
pub struct LogSettings {
    /// How lines look.
    pub format: LogFormat,
    /// `info`, or a list such as `info,tombolo_edge=debug`.
    pub level: String,
    /// Addresses of people are shown.
    pub shows_addresses: bool,
}

/// Writes what was logged last when it is dropped, within a second: keep it until the process ends.
#[derive(Debug)]
#[must_use = "dropped at once, it lets the last lines get lost"]
pub struct LogGuard(());

impl Drop for LogGuard {
    fn drop(&mut self) {
        flush_logs();
    }
}

/// Waits until what was logged before is written, for a second at most: for a process that ends without unwinding.
pub fn flush_logs() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_LIMIT);
    }
}

/// The queue of the process's log.
static QUEUE: OnceLock<LogQueue> = OnceLock::new();

/// Lines that found no room in the queue since the process began.
static DROPPED: LazyLock<Arc<AtomicU64>> = LazyLock::new(Arc::default);

/// Log lines that were dropped, since whoever reads them was too slow.
pub(crate) fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Begins logging to the error output, once in a process, and logs panics there too. The error says which level is not
/// understood.
pub fn init_logs(settings: &LogSettings) -> Result<LogGuard, String> {
    crate::show_addresses(settings.shows_addresses);
    let level = if settings.level.is_empty() { "info" } else { &settings.level };
    let targets: Targets = level.parse().map_err(|error| format!("log level {level:?}: {error}"))?;
    let is_human = match settings.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let render_dropped = if is_human { dropped_for_people } else { dropped_as_json };
    let queue = LogQueue::start(std::io::stderr(), DROPPED.clone(), render_dropped)
        .map_err(|error| format!("no thread for the log: {error}"))?;
    let layer = if is_human {
        let is_colored = std::io::stderr().is_terminal();
        fmt::layer().with_writer(queue.clone()).with_target(false).with_ansi(is_colored).boxed()
    } else {
        fmt::layer().with_writer(queue.clone()).json().flatten_event(true).boxed()
    };
    // A second start in one process, as in tests, keeps the first.
    if tracing_subscriber::registry().with(layer.with_filter(targets.and(Repeated))).try_init().is_ok() {
        panic::set_hook(Box::new(log_panic));
        // The first start is the only one that gets here.
        let _ = QUEUE.set(queue);
    }
    Ok(LogGuard(()))
}

fn dropped_for_people(count: u64) -> String {
    format!("WARN {count} log lines were dropped: whoever reads them is too slow\n")
}

fn dropped_as_json(count: u64) -> String {
    format!(
        "{{\"level\":\"WARN\",\"message\":\"log lines were dropped: whoever reads them is too slow\",\"count\":{count}}}\n"
    )
}

/// Logs a panic where the default hook would write, and wait. What a panic quotes may be of a peer or a person.
fn log_panic(info: &PanicHookInfo<'_>) {
    let said = info.payload_as_str().unwrap_or_default();
    let said = if shows_addresses() { said.to_owned() } else { without_quotes(said) };
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = thread::current();
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = match backtrace.status() {
        std::backtrace::BacktraceStatus::Captured => backtrace.to_string(),
        _ => String::new(),
    };
    tracing::error!(place, said, thread = thread.name(), backtrace, "panic");
}

/// A text without what stands in it between quotation marks or backticks, and not longer than a line should be.
fn without_quotes(text: &str) -> String {
    let mut out = String::new();
    let mut open = None;
    for letter in text.chars() {
        match open {
            Some(mark) if letter == mark => {
                open = None;
                out.push('…');
                out.push(letter);
            }
            Some(_) => {}
            None => {
                out.push(letter);
                open = matches!(letter, '"' | '`').then_some(letter);
            }
        }
        if out.len() >= MAX_SAID {
            break;
        }
    }
    out
}

/// How long the last lines may take.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);
const MAX_SAID: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_is_not_understood_is_told_and_a_list_of_targets_is_taken() {
        let settings = |level: &str| LogSettings { level: level.to_owned(), ..LogSettings::default() };
        let fault = init_logs(&settings("info,tombolo_edge=loud")).expect_err("no such level");
        assert!(fault.contains("tombolo_edge=loud"), "{fault}");
        let _first = init_logs(&settings("warn,tombolo_edge=debug")).expect("understood");
        let _second = init_logs(&settings("")).expect("a second start keeps the first");
        assert!(tracing::enabled!(target: "tombolo_edge", tracing::Level::DEBUG));
        assert!(!tracing::enabled!(target: "tombolo_broker", tracing::Level::INFO));
    }

    #[test]
    fn a_panics_text_is_logged_without_what_it_quotes() {
        let slicing =
            "byte index 3 is not a char boundary; it is inside 'é' (bytes 2..4) of `juliet@example.com`";
        let said = without_quotes(slicing);
        assert!(said.starts_with("byte index 3") && !said.contains("juliet"), "{said}");
        assert_eq!(without_quotes("an Err value: Fault(\"secret\") here"), "an Err value: Fault(\"…\") here");
        assert_eq!(without_quotes("plain"), "plain");
        assert!(without_quotes(&"x".repeat(10_000)).len() <= MAX_SAID);
    }
}
