//! `xtask tidy`: the rules of the house that the compiler doesn't know.
//!
//! The files of the project go in; what breaks a rule comes out as one line each: where, which rule, how to repair.

pub(crate) use layers::is_pure;

mod layers;
mod lines;
mod versions;

use std::fmt;
use std::path::Path;

use crate::tree;

/// One place where a rule is broken.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// Relative to the root.
    pub(crate) file: String,
    /// From 1; 0 where the whole file is meant.
    pub(crate) line: usize,
    pub(crate) rule: &'static str,
    pub(crate) what: String,
    pub(crate) repair: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, rule, what, repair } = self;
        write!(out, "{file}:{line}: {rule}: {what}\n    repair: {repair}")
    }
}

/// Checks the whole project and prints what it found; true when nothing was.
pub(crate) fn run(arguments: &[String]) -> Result<bool, String> {
    crate::refuse_unknown(arguments, &[], &[])?;
    let root = tree::root();
    let findings = check(&root)?;
    for finding in &findings {
        println!("{finding}");
    }
    println!("tidy: {} findings", findings.len());
    Ok(findings.is_empty())
}

/// Every finding below `root`, in order of file and line.
pub(crate) fn check(root: &Path) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    let files = tree::files(root);
    let mut packages = Vec::new();
    for file in files.iter().filter(|file| file.ends_with("Cargo.toml") && file.as_str() != "Cargo.toml") {
        let text = tree::text(&root.join(file)).unwrap_or_default();
        packages.push(layers::Package::read(file, &text)?);
    }
    for package in &packages {
        layers::check(package, &mut findings);
    }
    let workspace = tree::text(&root.join("Cargo.toml")).ok_or("no Cargo.toml")?;
    let explained = tree::text(&root.join(versions::EXPLAINED)).unwrap_or_default();
    versions::check(&workspace, &explained, &packages, &mut findings)?;
    for file in &files {
        if let Some(text) = tree::text(&root.join(file)) {
            lines::check(file, &text, &mut findings);
        }
    }
    findings.sort();
    findings.dedup();
    Ok(findings)
}
