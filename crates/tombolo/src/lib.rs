//! The server and its command line. Assembles the parts; nothing depends on it but its own tests.

pub mod assembly;
mod book;
pub mod commands;
mod data_dir;
mod demo;
mod reload;
pub mod run;
