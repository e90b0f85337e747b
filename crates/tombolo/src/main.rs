//! The `tombolo` program.

use std::process::ExitCode;

use clap::Parser;
use tombolo::commands::CommandLine;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    CommandLine::parse().run()
}
