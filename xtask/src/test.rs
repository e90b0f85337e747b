//! `xtask test`: everything that must hold before a change lands, in one command.
//!
//! A peer that is missing is a failure, never a skipped test.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use crate::steps::{Counts, Report, cargo, closing_counts, watch};
use crate::{fuzz, packages, protocols, tidy, tree};

const FUZZ_SECONDS: &str = "20";
const KILLS: &str = "3";

/// Runs every step, or those that `--only` names.
pub(crate) fn run(arguments: &[String]) -> Result<bool, String> {
    crate::refuse_unknown(arguments, &[], &["--only"])?;
    let only: Vec<&str> = arguments.iter().filter(|word| *word != "--only").map(String::as_str).collect();
    type Step = fn() -> Result<Counts, String>;
    let steps: &[(&str, Step)] = &[
        ("packages", packages::ensure),
        ("fmt", || check(&["fmt", "--all", "--check", "--", "--color", "never"])),
        ("clippy", || check(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
        ("tidy", || tidy::run(&[]).map(Counts::one)),
        ("protocols", || protocols::run(&[]).map(Counts::one)),
        ("test", || rings(&[])),
        ("doctest", doctest),
        ("fuzz", || fuzz::smoke(FUZZ_SECONDS, "1", None)),
        ("interop", || interop(&["--jobs", "2"])),
        ("kill", || interop(&["--rounds", KILLS, "300", "310", "330", "340"])),
    ];
    if let Some(unknown) = only.iter().find(|name| steps.iter().all(|(step, _)| step != *name)) {
        return Err(format!("no step is called {unknown}"));
    }
    let mut report = Report::default();
    for (name, work) in steps.iter().filter(|(name, _)| only.is_empty() || only.contains(name)) {
        report.step(name, work);
    }
    Ok(report.close())
}

fn check(arguments: &[&str]) -> Result<Counts, String> {
    watch(&mut cargo(arguments), |_| true).map(|(is_well, _)| Counts::one(is_well))
}

/// Rings 1 and 2: the workspace's own tests, by nextest where it is installed.
///
/// `settings` are environment variables for the tests.
pub(crate) fn rings(settings: &[(&str, &str)]) -> Result<Counts, String> {
    let has_nextest = cargo(&["nextest", "--version"]).output().is_ok_and(|output| output.status.success());
    let arguments: &[&str] = if has_nextest {
        &[
            "nextest",
            "run",
            "--workspace",
            "--no-fail-fast",
            "--status-level",
            "pass",
            "--final-status-level",
            "fail",
        ]
    } else {
        &["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]
    };
    let mut command = cargo(arguments);
    command.envs(settings.iter().copied());
    let is_news = |line: &str| {
        let line = line.trim_start();
        !(line.starts_with("PASS ") || line.starts_with("test ") && line.ends_with(" ... ok"))
    };
    let (is_well, said) = watch(&mut command, is_news)?;
    let by_package = if has_nextest { nextest_counts(&said) } else { cargo_test_counts(&said) };
    let mut rings = [Counts::default(); 3];
    for (package, counts) in &by_package {
        rings[ring(package)].add(*counts);
    }
    for (name, counts) in ["ring 1, pure machines", "ring 2, actors and roles", "tools"].iter().zip(rings) {
        println!("{name}: {} of {} tests passed", counts.passed, counts.passed + counts.failed);
    }
    let mut sum = Counts::default();
    rings.iter().for_each(|ring| sum.add(*ring));
    if !is_well && sum.failed == 0 {
        return Err("the tests did not build or did not end; see above".to_owned());
    }
    Ok(sum)
}

/// nextest runs no documentation tests.
fn doctest() -> Result<Counts, String> {
    let quiet = |line: &str| !line.ends_with(" ... ok") && !line.is_empty() && !line.starts_with("running ");
    let (is_well, said) = watch(&mut cargo(&["test", "--workspace", "--doc", "--no-fail-fast"]), quiet)?;
    let mut sum = Counts::default();
    cargo_test_counts(&said).values().for_each(|counts| sum.add(*counts));
    if !is_well && sum.failed == 0 {
        return Err("the documentation tests did not build; see above".to_owned());
    }
    if sum.passed == 0 && sum.failed == 0 {
        println!("no documentation test in the workspace");
    }
    Ok(sum)
}

/// Ring 3: the numbered cases of `interop/` against real peers; no argument means all that are not marked long.
pub(crate) fn interop(arguments: &[&str]) -> Result<Counts, String> {
    let missing = packages::missing()?;
    if !missing.is_empty() {
        return Err(format!(
            "peers are missing: apt-get install --no-install-recommends {}",
            missing.join(" ")
        ));
    }
    let (is_well, _) = watch(&mut cargo(&["build", "--package", "tombolo"]), |_| true)?;
    if !is_well {
        return Err("tombolo does not build".to_owned());
    }
    let mut command = Command::new("/usr/bin/python3");
    command.arg(tree::root().join("interop/run.py")).arg("--tombolo").arg(binary()).args(arguments);
    let (is_well, said) = watch(&mut command, |_| true)?;
    let counts = closing_counts(&said).ok_or("interop/run.py ended without its closing line")?;
    Ok(if is_well || counts.failed > 0 { counts } else { Counts { failed: 1, ..counts } })
}

/// Where cargo puts the server of the dev profile.
fn binary() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    tree::root().join(target).join("debug/tombolo")
}

/// 0: pure machines; 1: what has a runtime; 2: what is no part of the product.
fn ring(package: &str) -> usize {
    let name = package.strip_prefix("tombolo-").unwrap_or(package);
    match name {
        "xtask" | "fuzz" | "benches" | "load" => 2,
        name if tidy::is_pure(name) => 0,
        _ => 1,
    }
}

/// `PASS [   0.003s] (1/9) tombolo-xmpp framing::tests::name`, by package.
fn nextest_counts(output: &str) -> BTreeMap<String, Counts> {
    let mut counts: BTreeMap<String, Counts> = BTreeMap::new();
    for line in output.lines().map(str::trim_start) {
        let outcome = line.split(' ').next().unwrap_or_default();
        let is_pass = match outcome {
            "PASS" | "LEAK" => true,
            "FAIL" | "TIMEOUT" | "SIGNAL" | "SIGSEGV" | "SIGABRT" => false,
            _ => continue,
        };
        let Some((_, rest)) = line.split_once("s] ") else { continue };
        // The counter is padded: `(  1/200) `.
        let rest =
            rest.strip_prefix('(').and_then(|rest| rest.split_once(") ")).map_or(rest, |(_, rest)| rest);
        let Some(binary) = rest.split_whitespace().next() else { continue };
        let package = binary.split("::").next().unwrap_or(binary);
        counts.entry(package.to_owned()).or_default().add(Counts::one(is_pass));
    }
    counts
}

/// `Running unittests src/lib.rs (target/debug/deps/tombolo_xmpp-0f)` and the `test result:` line after it.
fn cargo_test_counts(output: &str) -> BTreeMap<String, Counts> {
    let mut counts: BTreeMap<String, Counts> = BTreeMap::new();
    let mut package = String::new();
    for line in output.lines().map(str::trim_start) {
        if let Some((_, binary)) = line.strip_prefix("Running ").and_then(|rest| rest.rsplit_once("deps/")) {
            package = binary.rsplit_once('-').map_or(binary, |(name, _)| name).replace('_', "-");
        } else if let Some(name) = line.strip_prefix("Doc-tests ") {
            package = name.replace('_', "-");
        } else if let Some(result) = line.strip_prefix("test result: ") {
            let number = |word: &str| {
                let (before, _) = result.split_once(word)?;
                before.rsplit([' ', '.']).find(|part| !part.is_empty())?.parse().ok()
            };
            let found = Counts {
                passed: number(" passed").unwrap_or_default(),
                failed: number(" failed").unwrap_or_default(),
            };
            counts.entry(package.clone()).or_default().add(found);
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::{Counts, cargo_test_counts, nextest_counts, ring};

    #[test]
    fn nextest_lines_are_counted_by_package() {
        let output = "        PASS [   0.003s] ( 1/10) tombolo-xmpp framing::tests::a\n\
                      \x20       PASS [   0.003s] tombolo::bin/tombolo tests::b\n\
                      \x20       FAIL [   1.203s] (10/10) tombolo-xmpp tests::c\n\
                      \x20    Summary [   1.2s] 3 tests run: 2 passed, 1 failed, 0 skipped\n";
        let counts = nextest_counts(output);
        assert_eq!(counts["tombolo-xmpp"], Counts { passed: 1, failed: 1 });
        assert_eq!(counts["tombolo"], Counts { passed: 1, failed: 0 });
        assert_eq!(counts.len(), 2);
    }

    #[test]
    fn cargo_test_results_are_counted_by_package() {
        let output = "     Running unittests src/lib.rs (target/debug/deps/tombolo_xmpp-0f1e)\n\
                      test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured\n\
                      \x20  Doc-tests tombolo_sip\ntest result: ok. 4 passed; 0 failed; 0 ignored\n";
        let counts = cargo_test_counts(output);
        assert_eq!(counts["tombolo-xmpp"], Counts { passed: 12, failed: 3 });
        assert_eq!(counts["tombolo-sip"], Counts { passed: 4, failed: 0 });
    }

    #[test]
    fn packages_belong_to_rings() {
        assert_eq!(
            [ring("tombolo-xmpp"), ring("tombolo-edge"), ring("tombolo"), ring("xtask")],
            [0, 1, 1, 2]
        );
    }
}
