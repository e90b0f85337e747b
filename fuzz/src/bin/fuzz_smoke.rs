//! `fuzz-smoke [--seconds N] [--seed S] [--target NAME] [--input FILE]`: every target for its share of the time.
//!
//! An input that panics, or takes longer than a second, is a failure; it is written to `target/fuzz-failures/` and runs
//! again by `--target NAME --input FILE`. Such an input belongs in the corpus together with the repair.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tombolo_fuzz::{Mutator, TARGETS, Target};

/// A parser that needs longer for 16 KiB can be held busy by a peer.
const SLOW: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match Options::read(std::env::args().skip(1)).and_then(|options| options.run()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("fuzz-smoke: {why}");
            ExitCode::from(2)
        }
    }
}

struct Options {
    seconds: f64,
    seed: u64,
    target: Option<String>,
    input: Option<PathBuf>,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { seconds: 20.0, seed: 1, target: None, input: None };
        while let Some(flag) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{flag} needs a value"))?;
            match flag.as_str() {
                "--seconds" => {
                    options.seconds = value.parse().map_err(|_| format!("{value} is no number"))?
                }
                "--seed" => options.seed = value.parse().map_err(|_| format!("{value} is no number"))?,
                "--target" => options.target = Some(value),
                "--input" => options.input = Some(value.into()),
                _ => return Err(format!("unknown argument {flag}")),
            }
        }
        Ok(options)
    }

    fn run(&self) -> Result<bool, String> {
        let is_chosen = |target: &&Target| self.target.as_deref().is_none_or(|name| name == target.name);
        let targets: Vec<&Target> = TARGETS.iter().filter(is_chosen).collect();
        if targets.is_empty() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            return Err(format!("no such target; there are {}", names.join(" ")));
        }
        if let Some(input) = &self.input {
            let [target] = targets[..] else { return Err("--input needs --target".to_owned()) };
            let data = fs::read(input).map_err(|error| format!("{}: {error}", input.display()))?;
            (target.body)(&data);
            println!("{} took {}", target.name, input.display());
            return Ok(true);
        }
        let share = Duration::from_secs_f64(self.seconds / targets.len() as f64);
        let failed = targets.iter().filter(|target| !smoke(target, share, self.seed)).count();
        println!("{} passed, {failed} failed", targets.len() - failed);
        Ok(failed == 0)
    }
}

/// One target for `share`; true when no input failed.
#[allow(clippy::disallowed_methods)]
fn smoke(target: &Target, share: Duration, seed: u64) -> bool {
    let mut mutator = Mutator::new(seed, corpus(target));
    let begin = Instant::now();
    let mut inputs = 0_u64;
    let mut slowest = Duration::ZERO;
    while begin.elapsed() < share {
        let input = mutator.next_input();
        let started = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| (target.body)(&input)));
        let took = started.elapsed();
        inputs += 1;
        slowest = slowest.max(took);
        if outcome.is_err() || took > SLOW {
            let why = if outcome.is_err() { "panicked" } else { "was slow" };
            let place = keep(target, seed, inputs, &input);
            println!(
                "FAIL {:<22} input {inputs} of seed {seed} {why} ({took:.1?}); again: cargo run -p tombolo-fuzz -- --target {} --input {}",
                target.name,
                target.name,
                place.display()
            );
            return false;
        }
    }
    println!("ok   {:<22} {inputs:>8} inputs, the slowest {slowest:.1?}", target.name);
    true
}

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let mut paths = Vec::new();
    for corpus in target.corpora {
        let entries = fs::read_dir(root().join(corpus)).into_iter().flatten().flatten();
        paths.extend(entries.map(|entry| entry.path()).filter(|path| path.is_file()));
    }
    // The order of a folder is chance; the inputs are to be the same each time.
    paths.sort();
    paths.iter().filter_map(|path| fs::read(path).ok()).collect()
}

fn keep(target: &Target, seed: u64, number: u64, input: &[u8]) -> PathBuf {
    let folder = root().join("target/fuzz-failures");
    let place = folder.join(format!("{}-{seed}-{number}", target.name));
    if let Err(error) = fs::create_dir_all(&folder).and_then(|()| fs::write(&place, input)) {
        println!("{}: {error}", place.display());
    }
    place
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tombolo_fuzz::Target;

    use super::{root, smoke};

    #[test]
    fn a_body_that_panics_on_some_input_is_found_and_the_input_is_kept() {
        let body = |data: &[u8]| assert!(!data.contains(&0), "a zero octet");
        let target = Target { name: "self-check", body, corpora: &["fuzz/corpus/jid"] };
        assert!(!smoke(&target, Duration::from_secs(10), 1));
        let folder = root().join("target/fuzz-failures");
        let kept: Vec<_> = std::fs::read_dir(folder)
            .expect("the folder was made")
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.to_string_lossy().contains("self-check-1-"))
            .collect();
        assert_eq!(kept.len(), 1);
        assert!(std::fs::read(&kept[0]).expect("a readable input").contains(&0));
        std::fs::remove_file(&kept[0]).expect("it was ours");
    }
}
