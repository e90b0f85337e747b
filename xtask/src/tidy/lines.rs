//! What may not stand in a file: words of the other protocol, clocks in pure code, stubs, machine paths.

use super::{Finding, layers};
use crate::source;

/// Longer than this, a file holds a second idea.
const LINES_MAX: usize = 900;

/// What a pure package's code may not say, with what to do instead.
const IMPURE: &[(&str, &str)] = &[
    ("Instant::now", "take `now` as an argument"),
    ("SystemTime::now", "take `now` as an argument"),
    ("Timestamp::now", "take `now` as an argument"),
    ("Zoned::now", "take `now` as an argument"),
    ("TcpListener", "bytes come in through handle_*, go out through poll_*"),
    ("UdpSocket", "bytes come in through handle_*, go out through poll_*"),
    ("TcpStream", "bytes come in through handle_*, go out through poll_*"),
    ("tokio", "pure code is no task: take values, give values"),
    ("actix", "pure code is no actor: take values, give values"),
    ("async fn", "the state machine is a value, not a future"),
    (".await", "the state machine is a value, not a future"),
    ("thread::spawn", "pure code starts no thread"),
    ("thread::sleep", "give a deadline out through poll_timeout"),
    ("Mutex", "pure code has one owner, which needs no lock"),
    ("RwLock", "pure code has one owner, which needs no lock"),
    ("tracing::", "give an event out; whoever drives the machine logs it"),
    ("println!", "give an event out; whoever drives the machine logs it"),
    ("eprintln!", "give an event out; whoever drives the machine logs it"),
    ("std::env", "settings come in as an argument"),
    ("std::fs", "what is in a file comes in as an argument"),
];

/// What no code of ours says.
const BANNED: &[(&str, &str)] = &[
    ("todo!", "build it, or leave the whole path out"),
    ("unimplemented!", "build it, or leave the whole path out"),
    ("dbg!", "remove it"),
    ("#[ignore", "a test runs, or it goes"),
    ("unbounded_channel", "state a bound, and what happens when it is reached"),
    ("unbounded(", "state a bound, and what happens when it is reached"),
];

const SIP_WORDS: &[&str] = &[
    "sip",
    "sips",
    "pidf",
    "rpid",
    "cpim",
    "imdn",
    "msrp",
    "cseq",
    "gruu",
    "aor",
    "winfo",
    "notifier",
    "registrar",
    "invite",
];
const XMPP_WORDS: &[&str] = &[
    "xmpp", "xmpps", "jabber", "jid", "jids", "stanza", "stanzas", "s2s", "c2s", "dialback", "roster",
    "starttls", "muc",
];
const XML_WORDS: &[&str] = &["xml", "xmlns", "pidf", "element", "namespace"];

/// Adds what `text`, the file at the relative path `file`, may not hold.
pub(crate) fn check(file: &str, text: &str, findings: &mut Vec<Finding>) {
    let is_rust = file.ends_with(".rs");
    let is_own_code = is_rust || file.ends_with(".py") || file.ends_with(".sh");
    let length = text.lines().count();
    if is_own_code && length > LINES_MAX {
        findings.push(Finding {
            file: file.to_owned(),
            line: LINES_MAX + 1,
            rule: "length",
            what: format!("{length} lines"),
            repair: format!("at most {LINES_MAX}: look for the second idea inside and give it a file"),
        });
    }
    check_paths(file, text, findings);
    if is_rust {
        check_code(file, text, findings);
        check_words(file, text, findings);
    }
}

/// The package's folder below `crates/`, or the top-level folder.
fn package(file: &str) -> &str {
    let mut parts = file.split('/');
    match parts.next() {
        Some("crates") => parts.next().unwrap_or_default(),
        first => first.unwrap_or_default(),
    }
}

fn check_code(file: &str, text: &str, findings: &mut Vec<Finding>) {
    let package = package(file);
    if package == "xtask" {
        return; // it names what it forbids, and the compiler's own lints cover the stubs
    }
    let is_pure_source = layers::is_pure(package) && file.contains("/src/");
    let code = source::code(text);
    // Tests stand last, and a test may make the moment from which its time is counted.
    let tests_from = code.lines().position(|line| line.trim() == "#[cfg(test)]").unwrap_or(usize::MAX);
    let is_test_file = file.ends_with("/tests.rs") || file.contains("/tests/");
    for (index, line) in code.lines().enumerate() {
        let mut find = |rule, (what, repair): (&str, &str)| {
            if says(line, what) {
                findings.push(Finding {
                    file: file.to_owned(),
                    line: index + 1,
                    rule,
                    what: format!("`{what}`"),
                    repair: repair.to_owned(),
                });
            }
        };
        BANNED.iter().for_each(|&pair| find("banned", pair));
        if is_pure_source && !is_test_file && index < tests_from {
            IMPURE.iter().for_each(|&pair| find("pure", pair));
        }
        if !layers::may_use_actors(package) && !is_pure_source {
            find("actors", ("actix::", "only runtime, edge, broker, admin and tombolo know actors"));
        }
    }
}

/// True where `line` holds `what` as a whole: `.await` is not in `.awaiting`.
fn says(line: &str, what: &str) -> bool {
    line.match_indices(what).any(|(at, _)| {
        let joins = |neighbour: Option<char>, edge: Option<char>| {
            let is_word = |character: char| character.is_alphanumeric() || character == '_';
            neighbour.is_some_and(is_word) && edge.is_some_and(is_word)
        };
        let before = line[..at].chars().next_back();
        let after = line[at + what.len()..].chars().next();
        !joins(before, what.chars().next()) && !joins(after, what.chars().next_back())
    })
}

fn check_words(file: &str, text: &str, findings: &mut Vec<Finding>) {
    let (rule, lists): (_, &[&[&str]]) = match package(file) {
        "xmpp" => ("no-sip-word", &[SIP_WORDS]),
        "sip" => ("no-xmpp-word", &[XMPP_WORDS]),
        "fanout" => ("no-protocol-word", &[SIP_WORDS, XMPP_WORDS, XML_WORDS]),
        _ => return,
    };
    let is_test_file = file.ends_with("/tests.rs") || file.contains("/tests/");
    for (index, line) in text.lines().enumerate() {
        // Documents as phones send them hold what other worlds put there; reading them needs no knowledge of it.
        let line = if is_test_file { line.replace("jabber:client", "") } else { line.to_owned() };
        for word in source::words(&without_references(&line)) {
            if lists.iter().any(|list| list.contains(&word.as_str())) {
                findings.push(Finding {
                    file: file.to_owned(),
                    line: index + 1,
                    rule,
                    what: format!("the word `{word}`"),
                    repair: "say it in this package's own words; only interwork knows both protocols"
                        .to_owned(),
                });
            }
        }
    }
}

/// The line without numbers of standards and of our own rules, which bear names of protocols.
fn without_references(line: &str) -> String {
    const GROUPS: &[&str] = &["xs", "xp", "sip", "stox"];
    let mut kept = String::with_capacity(line.len());
    for part in
        line.split_inclusive(|character: char| !(character.is_alphanumeric() || "-_".contains(character)))
    {
        let lower = part.to_lowercase().replace('-', "_");
        let is_reference = lower.starts_with("xep_")
            || GROUPS.iter().any(|group| {
                let tail = lower.strip_prefix(group).and_then(|tail| tail.strip_prefix('_'));
                tail.is_some_and(|tail| tail.split('_').take(2).any(starts_with_two_digits))
            });
        if !is_reference {
            kept.push_str(part);
        } else if lower.len() > 16 {
            // A test's name: what stands behind the number is still ours to read.
            let after = lower.split('_').skip_while(|word| !starts_with_two_digits(word)).skip(1);
            kept.push_str(&after.collect::<Vec<_>>().join(" "));
            kept.push(' ');
        }
    }
    kept
}

fn starts_with_two_digits(word: &str) -> bool {
    word.bytes().take_while(u8::is_ascii_digit).count() >= 2
}

fn check_paths(file: &str, text: &str, findings: &mut Vec<Finding>) {
    // Put together here, so that this file does not find itself.
    let paths = ["work", "tmp/tb", "home", "root"].map(|folder| format!("/{folder}/"));
    let shared = format!("..{}shared", '/');
    for (index, line) in text.lines().enumerate() {
        let is_path = |path: &String| {
            line.match_indices(path.as_str()).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|before| before.is_alphanumeric() || "._-}/".contains(before))
            })
        };
        let found =
            paths.iter().find(|path| is_path(path)).or_else(|| line.contains(&shared).then_some(&shared));
        if let Some(path) = found {
            findings.push(Finding {
                file: file.to_owned(),
                line: index + 1,
                rule: "path",
                what: format!("`{path}` is a place on one machine"),
                repair: "write the path relative to the project, or take it from an argument".to_owned(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    fn rules(file: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        check(file, text, &mut findings);
        findings.iter().map(|finding| format!("{}:{}", finding.rule, finding.line)).collect()
    }

    #[test]
    fn pure_code_has_no_clock_and_its_comments_may_say_why() {
        assert_eq!(rules("crates/sip/src/a.rs", "\nlet t = Instant::now();\n"), ["pure:2"]);
        assert_eq!(rules("crates/wheel/src/a.rs", "use std::sync::Mutex;\n"), ["pure:1"]);
        assert!(rules("crates/sip/src/a.rs", "// not Instant::now()\n").is_empty());
        assert!(rules("crates/edge/src/a.rs", "use tokio::net;\n").is_empty());
    }

    #[test]
    fn a_pure_test_may_make_its_first_moment_and_a_longer_word_is_another() {
        assert!(
            rules("crates/sip/src/a.rs", "fn f() {}\n#[cfg(test)]\nmod tests { Instant::now(); }\n")
                .is_empty()
        );
        assert!(rules("crates/sip/src/a/tests.rs", "Instant::now();\n").is_empty());
        assert!(rules("crates/sip/src/a.rs", "self.awaiting.len();\n").is_empty());
        assert_eq!(rules("crates/sip/src/a.rs", "x.await;\n"), ["pure:1"]);
        assert_eq!(rules("crates/sip/src/a.rs", "use std::net::TcpListener;\n"), ["pure:1"]);
    }

    #[test]
    fn the_protocols_do_not_know_each_other() {
        assert_eq!(rules("crates/xmpp/src/a.rs", "/// As SIP does.\n"), ["no-sip-word:1"]);
        assert_eq!(rules("crates/sip/src/a.rs", "fn to_jid() {}\n"), ["no-xmpp-word:1"]);
        assert_eq!(rules("crates/fanout/src/a.rs", "struct StanzaRow;\n"), ["no-protocol-word:1"]);
        assert!(rules("crates/interwork/src/a.rs", "fn sip_to_jid() {}\n").is_empty());
        assert!(rules("crates/sip/src/pidf/tests.rs", "\"<show xmlns='jabber:client'/>\"\n").is_empty());
        assert_eq!(rules("crates/sip/src/pidf.rs", "\"jabber:client\"\n"), ["no-xmpp-word:1"]);
    }

    #[test]
    fn numbers_of_standards_and_rules_are_no_words() {
        assert!(rules("crates/xmpp/src/a.rs", "// XS-DB-02, XEP-0185, SIP-T-01\n").is_empty());
        assert!(rules("crates/sip/src/a.rs", "fn sip_t_02_xmpp_is_absent() {}\n").len() == 1);
        assert!(rules("crates/fanout/src/a.rs", "fn stox_p_41_newest_state_only_goes_out() {}\n").is_empty());
        assert_eq!(rules("crates/xmpp/src/a.rs", "use siphasher::SipHasher;\n"), ["no-sip-word:1"]);
    }

    #[test]
    fn stubs_and_unbounded_queues_are_found_in_code_only() {
        assert_eq!(rules("crates/edge/src/a.rs", "fn f() { todo!() }\n"), ["banned:1"]);
        for file in ["crates/edge/src/a.rs", "loadtest/src/a.rs"] {
            assert_eq!(rules(file, "let (a, b) = mpsc::unbounded_channel();\n"), ["banned:1"]);
        }
        assert!(rules("crates/edge/src/a.rs", "// todo! later\n").is_empty());
    }

    #[test]
    fn actors_stay_in_their_packages() {
        assert_eq!(rules("crates/net/src/a.rs", "use actix::Actor;\n"), ["actors:1"]);
        assert!(rules("crates/broker/src/a.rs", "use actix::Actor;\n").is_empty());
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(rules("interop/lib/a.py", &"x\n".repeat(901)), ["length:901"]);
        assert!(rules("interop/lib/a.py", &"x\n".repeat(900)).is_empty());
        assert!(rules("docs/requirements.tsv", &"x\n".repeat(901)).is_empty());
    }

    #[test]
    fn places_of_one_machine_are_found_in_any_text() {
        let home = format!("see /{}/me/x", "home");
        assert_eq!(rules("README.md", &home), ["path:1"]);
        assert_eq!(rules("docs/a.md", &format!("../{}", "shared/x")), ["path:1"]);
        assert!(rules("README.md", "https://example.org/home/x and docs/work/x").is_empty());
    }
}
