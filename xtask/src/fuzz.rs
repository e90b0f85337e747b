//! `xtask fuzz-smoke`: the parsers' fuzz bodies under a seeded mutator (`fuzz/`), on the stable toolchain.

use crate::steps::{Counts, cargo, closing_counts, watch};

/// Runs every target, or the one that `--target` names.
pub(crate) fn run(arguments: &[String]) -> Result<bool, String> {
    crate::refuse_unknown(arguments, &[], &["--seconds", "--seed", "--target"])?;
    let seconds = crate::option(arguments, "--seconds").unwrap_or("20");
    let seed = crate::option(arguments, "--seed").unwrap_or("1");
    let counts = smoke(seconds, seed, crate::option(arguments, "--target"))?;
    Ok(counts.failed == 0 && counts.passed > 0)
}

/// `seconds` are for all targets together; the same `seed` gives the same inputs.
pub(crate) fn smoke(seconds: &str, seed: &str, target: Option<&str>) -> Result<Counts, String> {
    let mut command = cargo(&["run", "--quiet", "--package", "tombolo-fuzz", "--bin", "fuzz-smoke", "--"]);
    command.args(["--seconds", seconds, "--seed", seed]);
    if let Some(target) = target {
        command.args(["--target", target]);
    }
    let (is_well, said) = watch(&mut command, |_| true)?;
    let counts = closing_counts(&said).ok_or("fuzz-smoke ended without its closing line")?;
    Ok(if is_well || counts.failed > 0 { counts } else { Counts { failed: 1, ..counts } })
}
