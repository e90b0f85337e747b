//! `xtask soak`: the long forms of what `test` does briefly, and what takes an hour anyway.

use crate::steps::{Counts, Report, cargo, watch};
use crate::{fuzz, packages, test};

const FUZZ_SECONDS: &str = "1800";
/// Random walks of the shard, of each kind.
const SEEDS: &str = "5000";
const KILLS: &str = "100";

/// Everything in order; a failure does not keep the rest from running.
pub(crate) fn run(arguments: &[String]) -> Result<bool, String> {
    crate::refuse_unknown(arguments, &[], &[])?;
    let mut report = Report::default();
    report.step("packages", packages::ensure);
    report.step("licences", licences);
    report.step("seeds", || test::rings(&[("TOMBOLO_SEEDS", SEEDS)]));
    report.step("fuzz", || fuzz::smoke(FUZZ_SECONDS, "7", None));
    report.step("matrix", || test::interop(&["--all"]));
    report.step("kills", || test::interop(&["--rounds", KILLS, "3"]));
    Ok(report.close())
}

/// Licences, banned crates and sources by cargo-deny, without the network.
fn licences() -> Result<Counts, String> {
    let mut command = cargo(&["deny", "--offline", "check", "licenses", "bans", "sources"]);
    let (is_well, said) = watch(&mut command, |_| true)?;
    if said.contains("no such command") {
        return Err("cargo-deny is missing: cargo install --locked cargo-deny".to_owned());
    }
    Ok(Counts::one(is_well))
}
