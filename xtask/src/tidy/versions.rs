//! Foreign crates: one version each in the workspace, and one line each in `docs/dependencies.md`.

use super::Finding;
use super::layers::Package;

/// Where every foreign crate is explained: role, reason, trap.
pub(crate) const EXPLAINED: &str = "docs/dependencies.md";

/// Adds crates without an explanation, explanations without a crate, and versions that a package sets by itself.
pub(crate) fn check(
    workspace: &str,
    explained: &str,
    packages: &[Package],
    findings: &mut Vec<Finding>,
) -> Result<(), String> {
    let table: toml::Table = workspace.parse().map_err(|error| format!("Cargo.toml: {error}"))?;
    let shared = table.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    let empty = toml::Table::new();
    let shared = shared.and_then(toml::Value::as_table).unwrap_or(&empty);
    let foreign: Vec<&String> =
        shared.iter().filter(|(_, value)| value.get("path").is_none()).map(|(name, _)| name).collect();
    let rows = rows(explained);
    for name in &foreign {
        if !rows.iter().any(|(_, row)| row == *name) {
            findings.push(Finding {
                file: "Cargo.toml".to_owned(),
                line: line_of(workspace, name),
                rule: "dependency",
                what: format!("{name} is not explained"),
                repair: format!("add a row `| {name} | role | why this one | trap |` to {EXPLAINED}"),
            });
        }
    }
    for (line, name) in &rows {
        if !foreign.contains(&name) {
            findings.push(Finding {
                file: EXPLAINED.to_owned(),
                line: *line,
                rule: "dependency",
                what: format!("{name} is explained but not used"),
                repair: "remove the row".to_owned(),
            });
        }
    }
    for package in packages {
        for used in package.uses.iter().filter(|used| !used.is_from_workspace) {
            findings.push(Finding {
                file: package.file.clone(),
                line: used.line,
                rule: "version",
                what: format!("{} has a version of its own here", used.name),
                repair: format!("write `{}.workspace = true`; the version belongs in Cargo.toml", used.name),
            });
        }
    }
    Ok(())
}

/// The crates that have a row of four filled columns, with the row's line number.
fn rows(explained: &str) -> Vec<(usize, String)> {
    let mut rows = Vec::new();
    for (index, line) in explained.lines().enumerate() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let is_row = line.trim_start().starts_with('|') && cells.len() == 4;
        let is_heading = cells[0] == "crate" || cells[0].starts_with('-');
        if is_row && !is_heading && cells[..3].iter().all(|cell| !cell.is_empty()) {
            for name in cells[0].split(',') {
                rows.push((index + 1, name.trim().trim_matches('`').to_owned()));
            }
        }
    }
    rows
}

fn line_of(text: &str, name: &str) -> usize {
    let begins = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '=', '.']));
    text.lines().position(begins).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::layers::Package;

    const WORKSPACE: &str =
        "[workspace.dependencies]\ntombolo-sip = { path = \"crates/sip\" }\nbytes = \"1\"\nmemchr = \"2\"\n";

    fn findings(explained: &str, package: &str) -> Vec<String> {
        let packages = [Package::read("crates/sip/Cargo.toml", package).expect("valid TOML")];
        let mut findings = Vec::new();
        check(WORKSPACE, explained, &packages, &mut findings).expect("valid TOML");
        findings.iter().map(|finding| format!("{}:{}", finding.file, finding.line)).collect()
    }

    #[test]
    fn every_foreign_crate_has_a_row_with_role_and_reason() {
        let both =
            "| crate | role | reason | trap |\n|---|---|---|---|\n| `bytes`, `memchr` | buffers | fast | |\n";
        assert!(findings(both, "").is_empty());
        assert_eq!(findings("| bytes | buffers | fast | none |\n", ""), ["Cargo.toml:4"]);
        assert_eq!(findings("| bytes, memchr | | fast | none |\n", ""), ["Cargo.toml:3", "Cargo.toml:4"]);
    }

    #[test]
    fn a_row_for_a_crate_that_left_is_found() {
        let rows = "| bytes, memchr | buffers | fast | |\n| old | x | y | |\n";
        assert_eq!(findings(rows, ""), ["docs/dependencies.md:2"]);
    }

    #[test]
    fn a_version_belongs_in_the_workspace() {
        let rows = "| bytes, memchr | buffers | fast | |\n";
        assert_eq!(findings(rows, "[dependencies]\nbytes = \"1\"\n"), ["crates/sip/Cargo.toml:2"]);
        assert!(findings(rows, "[dependencies]\nbytes = { workspace = true }\n").is_empty());
    }
}
