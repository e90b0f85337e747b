//! The server and its command line. Assembles the parts; nothing depends on it but its own tests.

/// Prints a line to the standard output. Whoever reads it may have seen enough, such as `head`: then the program ends.
macro_rules! say {
    ($($what:tt)*) => {{
        use std::io::Write;
        if writeln!(std::io::stdout(), $($what)*).is_err() {
            std::process::exit(0);
        }
    }};
}

pub mod assembly;
mod book;
pub mod commands;
mod data_dir;
mod demo;
mod descriptors;
mod expiry;
mod memory_room;
mod memory_watch;
mod notify;
mod reload;
pub mod run;
mod starting;
mod status;
mod store_file;
