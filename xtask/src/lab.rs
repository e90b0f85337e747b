//! `xtask lab`: real peers on loopback, to work against by hand; `interop/lab.py` does it.

use std::process::Command;

use crate::{packages, tree};

/// Hands `up`, `down`, `status` or `env` to the script, once the packages are there.
pub(crate) fn run(arguments: &[String]) -> Result<bool, String> {
    if arguments.first().is_some_and(|word| word == "up") {
        packages::ensure()?;
    }
    let status = Command::new("/usr/bin/python3")
        .arg(tree::root().join("interop/lab.py"))
        .args(arguments)
        .status()
        .map_err(|error| format!("cannot start /usr/bin/python3: {error}"))?;
    Ok(status.success())
}
