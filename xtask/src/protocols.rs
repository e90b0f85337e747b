//! `xtask protocols`: which numbered requirements have a test that carries their number.
//!
//! In goes `docs/requirements.tsv` and every test source; out comes one row a group. A number counts where it stands
//! in the name of a Rust test (`stox_p_49_…`), in a transcript (`*.scn`) or in a Python case of `interop/`
//! (`STOX-P-49`). `docs/uncovered.tsv` says why a rule of the first wave has no test (number, tab, reason).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::{source, tree};

const REQUIREMENTS: &str = "docs/requirements.tsv";
const UNCOVERED: &str = "docs/uncovered.tsv";

/// One numbered rule.
struct Requirement {
    id: String,
    /// `M0`: must, first wave; `S1`: should, second; and so on.
    level: String,
    text: String,
}

/// What the sources say about the rules.
struct Coverage {
    requirements: Vec<Requirement>,
    /// Number → the places (file:line) of its tests.
    tests: BTreeMap<String, Vec<String>>,
    /// Number → why it has no test.
    reasons: BTreeMap<String, String>,
    /// What is wrong with the books themselves.
    faults: Vec<String>,
}

/// Prints the table; false where a test names no known rule, or, with `--strict`, where a rule of the first wave
/// has neither a test nor a reason.
pub(crate) fn run(arguments: &[String]) -> Result<bool, String> {
    crate::refuse_unknown(arguments, &["--missing", "--strict", "--json"], &[])?;
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let coverage = read()?;
    let open = coverage.open();
    if has("--json") {
        println!("{}", coverage.to_json());
    } else {
        print!("{}", coverage.to_table());
        if has("--missing") {
            print!("{}", coverage.to_missing());
        }
        for fault in &coverage.faults {
            println!("{fault}");
        }
    }
    if has("--strict") {
        for requirement in &open {
            println!("{UNCOVERED}: {} has neither a test nor a reason: {}", requirement.id, requirement.text);
        }
    }
    Ok(coverage.faults.is_empty() && (!has("--strict") || open.is_empty()))
}

fn read() -> Result<Coverage, String> {
    let root = tree::root();
    let table = tree::text(&root.join(REQUIREMENTS)).ok_or_else(|| format!("{REQUIREMENTS} is missing"))?;
    let uncovered = tree::text(&root.join(UNCOVERED)).unwrap_or_default();
    let sources = tree::files(&root).into_iter().filter_map(|file| {
        let is_test = file.ends_with(".rs") || file.ends_with(".scn") || is_python_case(&file);
        is_test.then(|| tree::text(&root.join(&file)).map(|text| (file, text)))?
    });
    Ok(Coverage::new(&table, &uncovered, sources))
}

fn is_python_case(file: &str) -> bool {
    file.starts_with("interop/") && file.ends_with(".py")
}

impl Coverage {
    fn new(table: &str, uncovered: &str, sources: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut faults = Vec::new();
        let requirements: Vec<Requirement> = table.lines().skip(1).filter_map(requirement).collect();
        let known: BTreeSet<String> = requirements.iter().map(|requirement| requirement.id.clone()).collect();
        let groups: BTreeSet<String> = known.iter().map(|id| group(id).to_owned()).collect();
        let mut tests: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (file, text) in sources {
            let found =
                if file.ends_with(".rs") { ids_of_rust(&text, &groups) } else { ids_of_text(&text, &groups) };
            for (line, id) in found {
                if known.contains(&id) {
                    let places = tests.entry(id).or_default();
                    let place = format!("{file}:{line}");
                    if !places.contains(&place) {
                        places.push(place);
                    }
                } else {
                    faults.push(format!("{file}:{line}: {id} is no requirement of {REQUIREMENTS}"));
                }
            }
        }
        let mut reasons = BTreeMap::new();
        for (index, line) in uncovered.lines().enumerate().filter(|(_, line)| is_entry(line)) {
            let (id, reason) = line.split_once('\t').unwrap_or((line, ""));
            let place = format!("{UNCOVERED}:{}", index + 1);
            if !known.contains(id) {
                faults.push(format!("{place}: {id} is no requirement of {REQUIREMENTS}"));
            } else if tests.contains_key(id) {
                faults.push(format!("{place}: {id} has a test by now: remove the line"));
            } else if reason.trim().is_empty() {
                faults.push(format!("{place}: {id} needs a reason behind a tab"));
            } else {
                reasons.insert(id.to_owned(), reason.trim().to_owned());
            }
        }
        Self { requirements, tests, reasons, faults }
    }

    fn is_covered(&self, requirement: &Requirement) -> bool {
        self.tests.contains_key(&requirement.id)
    }

    /// The rules of the first wave without a test and without a reason.
    fn open(&self) -> Vec<&Requirement> {
        let is_open = |requirement: &&Requirement| {
            requirement.level == "M0"
                && !self.is_covered(requirement)
                && !self.reasons.contains_key(&requirement.id)
        };
        self.requirements.iter().filter(is_open).collect()
    }

    /// (group, of M0: covered, all; of every level: covered, all; with a reason)
    fn counts(&self) -> Vec<(String, [usize; 5])> {
        let mut counts: Vec<(String, [usize; 5])> = Vec::new();
        for requirement in &self.requirements {
            let group = group(&requirement.id);
            if counts.last().is_none_or(|(last, _)| last != group) {
                counts.push((group.to_owned(), [0; 5]));
            }
            let Some((_, row)) = counts.last_mut() else { continue };
            let is_covered = usize::from(self.is_covered(requirement));
            let is_first = usize::from(requirement.level == "M0");
            row[0] += is_covered * is_first;
            row[1] += is_first;
            row[2] += is_covered;
            row[3] += 1;
            row[4] += usize::from(self.reasons.contains_key(&requirement.id));
        }
        counts
    }

    fn to_table(&self) -> String {
        let mut out = String::from("group       must, wave 0      all levels   with a reason\n");
        let mut sum = [0; 5];
        let row = |name: &str, [a, b, c, d, e]: [usize; 5]| {
            format!("{name:<10} {a:>6} of {b:<4} {c:>8} of {d:<4} {e:>8}\n")
        };
        for (group, counts) in self.counts() {
            out += &row(&group, counts);
            for (total, count) in sum.iter_mut().zip(counts) {
                *total += count;
            }
        }
        out + &row("all", sum)
    }

    fn to_missing(&self) -> String {
        let mut out = String::new();
        for requirement in self.requirements.iter().filter(|requirement| !self.is_covered(requirement)) {
            let Requirement { id, level, text } = requirement;
            let reason = self.reasons.get(id).map_or(String::new(), |reason| format!(" [{reason}]"));
            let _ = writeln!(out, "{id} {level} {text}{reason}");
        }
        out
    }

    fn to_json(&self) -> String {
        let list = |values: &[String]| {
            let quoted: Vec<String> = values.iter().map(|value| json_string(value)).collect();
            format!("[{}]", quoted.join(","))
        };
        let mut rows = Vec::new();
        for requirement in &self.requirements {
            let Requirement { id, level, .. } = requirement;
            let tests = self.tests.get(id).map_or(&[][..], Vec::as_slice);
            let reason = self.reasons.get(id).map_or("null".to_owned(), |reason| json_string(reason));
            rows.push(format!(
                "{{\"id\":{},\"level\":{},\"tests\":{},\"reason\":{reason}}}",
                json_string(id),
                json_string(level),
                list(tests)
            ));
        }
        format!("{{\"requirements\":[{}],\"faults\":{}}}", rows.join(","), list(&self.faults))
    }
}

fn is_entry(line: &str) -> bool {
    !line.trim().is_empty() && !line.starts_with('#') && !line.starts_with("id\t")
}

fn requirement(line: &str) -> Option<Requirement> {
    let mut columns = line.split('\t');
    let id = columns.next()?.to_owned();
    let level = columns.next()?.to_owned();
    let text = columns.nth(1)?.to_owned();
    (!id.is_empty()).then_some(Requirement { id, level, text })
}

/// `STOX-P` of `STOX-P-49`.
fn group(id: &str) -> &str {
    id.rsplit_once('-').map_or(id, |(group, _)| group)
}

fn ids_of_rust(text: &str, groups: &BTreeSet<String>) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, name) in source::test_names(text) {
        found.extend(ids(&name.to_uppercase(), '_', groups).into_iter().map(|id| (line, id)));
    }
    found
}

fn ids_of_text(text: &str, groups: &BTreeSet<String>) -> Vec<(usize, String)> {
    let lines = text.lines().enumerate();
    lines
        .flat_map(|(index, line)| ids(line, '-', groups).into_iter().map(move |id| (index + 1, id)))
        .collect()
}

/// The numbers in `text`, whose parts are joined by `mark`: the longest group first, so that `XS-DB-02` is no `DB-02`.
fn ids(text: &str, mark: char, groups: &BTreeSet<String>) -> Vec<String> {
    let is_part = |character: char| character.is_alphanumeric() || character == mark;
    let mut found = Vec::new();
    for word in text.split(|character: char| !is_part(character)) {
        let parts: Vec<&str> = word.split(mark).collect();
        for start in 0..parts.len() {
            for length in [2, 1] {
                let (Some(heads), Some(number)) =
                    (parts.get(start..start + length), parts.get(start + length))
                else {
                    continue;
                };
                let group = heads.join("-");
                let is_number = number.len() >= 2 && number.bytes().all(|byte| byte.is_ascii_digit());
                if is_number && groups.contains(&group) {
                    found.push(format!("{group}-{number}"));
                    break;
                }
            }
        }
    }
    found
}

/// `text` as a JSON string with its quotes.
fn json_string(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                out.push('\\');
                out.push(character);
            }
            character if character < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            character => out.push(character),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::Coverage;

    const TABLE: &str = "id\tlevel\tsource\trequirement\ttest\nXS-DB-02\tM0\ts\tkey\tt\nXP-01\tM0\ts\tstates\tt\n\
                         SIP-P-03\tM0\ts\tbody\tt\nSTOX-C-01\tM2\ts\tchat\tt\n";

    fn coverage(uncovered: &str, sources: &[(&str, &str)]) -> Coverage {
        let owned = sources.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned()));
        Coverage::new(TABLE, uncovered, owned)
    }

    #[test]
    fn numbers_in_test_names_transcripts_and_cases_count() {
        let coverage = coverage(
            "",
            &[
                ("crates/a/src/b.rs", "#[test]\nfn xs_db_02_key_matches() {}\n"),
                ("crates/tombolo/tests/scenarios/a.scn", "# proves XP-01 and\n"),
                ("interop/100-x/case.py", "await step(\"SIP-P-03: body\")\n"),
            ],
        );
        assert!(coverage.faults.is_empty());
        assert!(coverage.open().is_empty());
        assert_eq!(coverage.tests["XS-DB-02"], ["crates/a/src/b.rs:2"]);
        assert_eq!(coverage.counts()[0], ("XS-DB".to_owned(), [1, 1, 1, 1, 0]));
    }

    #[test]
    fn numbers_in_comments_and_in_names_of_other_functions_do_not_count() {
        let text = "// XS-DB-02\nfn xs_db_02_key() {}\n#[test]\nfn xp_1_is_no_number() {}\n";
        assert_eq!(coverage("", &[("a.rs", text)]).open().len(), 3);
    }

    #[test]
    fn one_name_may_carry_two_numbers() {
        let coverage = coverage("", &[("a.rs", "#[test]\nfn xp_01_xs_db_02_both() {}\n")]);
        assert_eq!(coverage.tests.len(), 2);
    }

    #[test]
    fn a_number_that_no_rule_has_is_a_fault() {
        let coverage = coverage("", &[("a.rs", "#[test]\nfn xs_db_77_key() {}\n")]);
        assert_eq!(coverage.faults, ["a.rs:2: XS-DB-77 is no requirement of docs/requirements.tsv"]);
    }

    #[test]
    fn a_reason_stands_for_a_test_until_there_is_one() {
        let reasons = "# number, tab, reason\nXP-01\tneeds a second node\nSIP-P-03\t\n";
        let first = coverage(reasons, &[]);
        assert_eq!(
            first.open().iter().map(|open| open.id.as_str()).collect::<Vec<_>>(),
            ["XS-DB-02", "SIP-P-03"]
        );
        assert_eq!(first.faults.len(), 1);
        let later = coverage("XP-01\tneeds a second node\n", &[("a.rs", "#[test]\nfn xp_01_holds() {}\n")]);
        assert_eq!(later.faults, ["docs/uncovered.tsv:1: XP-01 has a test by now: remove the line"]);
    }

    #[test]
    fn the_json_names_every_rule_once() {
        let json = coverage("XP-01\tsays \"no\"\n", &[]).to_json();
        assert_eq!(json.matches("\"id\":").count(), 4);
        assert!(json.contains("\"reason\":\"says \\\"no\\\"\""), "{json}");
    }
}
