//! A run of several steps: each is timed and counted, all are run, and one line at the end says how it went.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// What a step counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Counts {
    /// One check that held or didn't.
    pub(crate) fn one(held: bool) -> Self {
        Self { passed: u64::from(held), failed: u64::from(!held) }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// The steps that were run so far.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<(String, Duration, Counts)>,
}

impl Report {
    /// Runs one step. An error is one failure, printed; the steps after it run all the same.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> Result<Counts, String>) {
        println!("\n=== {name}");
        let begin = clock();
        let counts = work().unwrap_or_else(|why| {
            println!("{name}: {}", why.trim_end());
            Counts { passed: 0, failed: 1 }
        });
        self.rows.push((name.to_owned(), begin.elapsed(), counts));
    }

    /// Prints a row a step and the closing line; true where nothing failed and something ran.
    pub(crate) fn close(&self) -> bool {
        println!("\n=== steps");
        let mut sum = Counts::default();
        let mut whole = Duration::ZERO;
        for (name, took, counts) in &self.rows {
            let word = if counts.failed == 0 { "ok  " } else { "FAIL" };
            println!(
                "{word} {name:<10} {:>7.1} s {:>6} passed {:>4} failed",
                took.as_secs_f64(),
                counts.passed,
                counts.failed
            );
            sum.add(*counts);
            whole += *took;
        }
        println!("     {:<10} {:>7.1} s", "all", whole.as_secs_f64());
        println!("{} passed, {} failed", sum.passed, sum.failed);
        sum.failed == 0 && sum.passed > 0
    }
}

/// The wall's own time: a run of steps has no virtual clock.
#[allow(clippy::disallowed_methods)]
fn clock() -> Instant {
    Instant::now()
}

/// Runs `command`, passes on each line of its output that `shows` picks, and gives all of it and whether it succeeded.
pub(crate) fn watch(
    command: &mut Command,
    shows: impl Fn(&str) -> bool + Sync,
) -> Result<(bool, String), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start {name}: {error}"))?;
    let said = Mutex::new(String::new());
    let copy = |pipe: Option<Box<dyn Read + Send>>| {
        let Some(pipe) = pipe else { return };
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            if shows(&line) {
                println!("{line}");
            }
            let mut said = said.lock().expect("no reader of the output panics");
            said.push_str(&line);
            said.push('\n');
        }
    };
    let out = child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
    let err = child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
    thread::scope(|scope| {
        scope.spawn(|| copy(out));
        copy(err);
    });
    let status = child.wait().map_err(|error| format!("{name}: {error}"))?;
    Ok((status.success(), said.into_inner().expect("no reader of the output panics")))
}

/// Cargo, as the command that started us, with plain output.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(crate::tree::root()).env("CARGO_TERM_COLOR", "never");
    command
}

/// The numbers of the last line that says `N passed, N failed`.
pub(crate) fn closing_counts(output: &str) -> Option<Counts> {
    output.lines().rev().find_map(|line| {
        let (before, after) = line.split_once(" passed, ")?;
        let passed = before.rsplit(' ').next()?.parse().ok()?;
        let failed = after.split(' ').next()?.parse().ok()?;
        after.split(' ').nth(1)?.starts_with("failed").then_some(Counts { passed, failed })
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{Counts, Report, closing_counts, watch};

    #[test]
    fn the_last_closing_line_counts() {
        let output = "x: 1 passed, 2 failed\nall: 30 passed, 4 failed\nbye";
        assert_eq!(closing_counts(output), Some(Counts { passed: 30, failed: 4 }));
        assert_eq!(closing_counts("3 passed, 1 skipped"), None);
    }

    #[test]
    fn a_step_that_errs_is_a_failure_and_the_next_one_runs() {
        let mut report = Report::default();
        report.step("one", || Err("broken".to_owned()));
        report.step("two", || Ok(Counts { passed: 5, failed: 0 }));
        assert_eq!(report.rows[1].2.passed, 5);
        assert!(!report.close());
    }

    #[test]
    fn a_run_without_a_single_check_did_not_pass() {
        assert!(!Report::default().close());
    }

    #[test]
    fn both_outputs_and_the_exit_status_are_seen() {
        let mut command = Command::new("sh");
        let (is_well, said) =
            watch(command.args(["-c", "echo a; echo b >&2; exit 3"]), |_| false).expect("sh runs");
        assert!(!is_well);
        assert!(said.contains("a\n") && said.contains("b\n"), "{said}");
    }
}
