//! Logs by `tracing`: for people on a terminal, as JSON otherwise; lines that repeat are limited by kind.

use std::io::IsTerminal;

use tracing_subscriber::{
    Layer,
    filter::{FilterExt, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::repeated::Repeated;

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

/// Begins logging to the error output, once in a process. The error says which level is not understood.
pub fn init_logs(settings: &LogSettings) -> Result<(), String> {
    crate::show_addresses(settings.shows_addresses);
    let level = if settings.level.is_empty() { "info" } else { &settings.level };
    let targets: Targets = level.parse().map_err(|error| format!("log level {level:?}: {error}"))?;
    let is_human = match settings.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let layer = if is_human {
        fmt::layer().with_writer(std::io::stderr).with_target(false).boxed()
    } else {
        fmt::layer().with_writer(std::io::stderr).json().flatten_event(true).boxed()
    };
    // A second start in one process, as in tests, keeps the first.
    let _ = tracing_subscriber::registry().with(layer.with_filter(targets.and(Repeated))).try_init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_is_not_understood_is_told_and_a_list_of_targets_is_taken() {
        let settings = |level: &str| LogSettings { level: level.to_owned(), ..LogSettings::default() };
        let fault = init_logs(&settings("info,tombolo_edge=loud")).expect_err("no such level");
        assert!(fault.contains("tombolo_edge=loud"), "{fault}");
        assert_eq!(init_logs(&settings("warn,tombolo_edge=debug")), Ok(()));
        assert_eq!(init_logs(&settings("")), Ok(()), "a second start keeps the first");
        assert!(tracing::enabled!(target: "tombolo_edge", tracing::Level::DEBUG));
        assert!(!tracing::enabled!(target: "tombolo_broker", tracing::Level::INFO));
    }
}
