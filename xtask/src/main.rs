//! `cargo xtask`: what surrounds the product. One word says what to do; every command has its own module.

mod fuzz;
mod lab;
mod packages;
mod protocols;
mod soak;
mod source;
mod steps;
mod test;
mod tidy;
mod tree;

use std::process::ExitCode;

const HELP: &str = "cargo xtask COMMAND

  test [--only STEP]...     everything that must hold before a change lands; STEP is one of
                            packages fmt clippy tidy protocols test doctest fuzz interop kill
  tidy                      layers, purity, words, file lengths, dependencies, paths
  protocols [--missing] [--strict] [--json]
                            which numbered requirements (docs/requirements.tsv) have a test
  fuzz-smoke [--seconds N] [--seed S] [--target NAME]
                            the parsers' fuzz bodies under a seeded mutator (default 20 s, seed 1)
  lab up|down|status|env    Prosody, Kamailio, DNS and a CA on 127.0.0.x, to work against by hand
  soak                      the long forms: an hour and more
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let outcome = match arguments.first().map(String::as_str) {
        Some("test") => test::run(rest),
        Some("tidy") => tidy::run(rest),
        Some("protocols") => protocols::run(rest),
        Some("fuzz-smoke") => fuzz::run(rest),
        Some("lab") => lab::run(rest),
        Some("soak") => soak::run(rest),
        Some("help" | "--help" | "-h") => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => Err(HELP.to_owned()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("xtask: {}", why.trim_end());
            ExitCode::from(2)
        }
    }
}

/// The value behind `flag`, for the few options that take one.
fn option<'a>(arguments: &'a [String], flag: &str) -> Option<&'a str> {
    let at = arguments.iter().position(|argument| argument == flag)?;
    arguments.get(at + 1).map(String::as_str)
}

/// Refuses an argument that no command knows, so that a typing error never runs less than was asked for.
fn refuse_unknown(arguments: &[String], flags: &[&str], with_value: &[&str]) -> Result<(), String> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if with_value.contains(&argument.as_str()) {
            arguments.next().ok_or_else(|| format!("{argument} needs a value"))?;
        } else if !flags.contains(&argument.as_str()) {
            return Err(format!("unknown argument {argument}\n\n{HELP}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{option, refuse_unknown};

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn an_option_gives_the_word_behind_it() {
        assert_eq!(option(&words("--seed 7 --x"), "--seed"), Some("7"));
        assert_eq!(option(&words("--seed"), "--seed"), None);
    }

    #[test]
    fn a_mistyped_argument_is_refused() {
        assert!(refuse_unknown(&words("--mising"), &["--missing"], &[]).is_err());
        assert!(refuse_unknown(&words("--missing --seed 3"), &["--missing"], &["--seed"]).is_ok());
        assert!(refuse_unknown(&words("--seed"), &[], &["--seed"]).is_err());
    }
}
