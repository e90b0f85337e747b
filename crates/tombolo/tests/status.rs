//! What `tombolo status` prints of a running process.

mod common;

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use common::{PROGRAM, Running, settings, text};

#[test]
fn every_partner_is_one_line_a_filter_finds_some_and_a_removed_partner_leaves() {
    let running = Running::start(&["zoo.example", "one.example", "another.example"]);
    let shown = |words: &[&str]| text(&running.order(words).stdout);
    let domains = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with("  "));
        lines.filter_map(|line| Some(line.split_whitespace().nth(1)?.to_owned())).collect()
    };
    let status = shown(&["status"]);
    assert_eq!(domains(&status), ["another.example", "one.example", "zoo.example"], "{status}");
    assert!(status.contains("partners: 3 idle"), "{status}");
    assert!(status.contains("registrations: 0 Contacts of 0 users"), "{status}");
    assert!(status.lines().next().is_some_and(|line| line.contains(" since 20")), "{status}");
    let status = shown(&["status", "--partner", "Other"]);
    assert_eq!(domains(&status), ["another.example"], "{status}");

    std::fs::write(running.path("tombolo.toml"), settings(&["one.example"], 20_000)).expect("written");
    assert!(running.order(&["reload"]).status.success());
    let status = running.json(&["status", "--json"]);
    let partners = status["partners"].as_array().expect("a list");
    assert_eq!(partners.len(), 1, "{status}");
    assert_eq!((&partners[0]["domain"], &partners[0]["state"]), (&"one.example".into(), &"idle".into()));
}

#[test]
fn a_watch_repeats_the_status_and_ends_with_a_clear_line_when_the_process_is_gone() {
    let running = Running::start(&["one.example"]);
    let mut watch = Command::new(PROGRAM)
        .arg("--data-dir")
        .arg(running.path("data"))
        .args(["status", "--watch"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut lines =
        BufReader::new(watch.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
    let blocks = lines.by_ref().filter(|line| line.starts_with("--- ")).take(2);
    assert_eq!(blocks.count(), 2, "it is shown again");
    assert!(running.order(&["shutdown"]).status.success());
    let rest: Vec<String> = lines.collect();
    assert!(rest.iter().all(|line| !line.contains('\x1b')), "no terminal, no painting: {rest:?}");
    let ended = watch.wait_with_output().expect("ended");
    assert!(!ended.status.success());
    assert!(text(&ended.stderr).contains("the process does not answer any more"), "{}", text(&ended.stderr));
}

#[test]
fn an_interrupted_watch_ends_with_success() {
    let running = Running::start(&["one.example"]);
    let mut watch = Command::new(PROGRAM)
        .arg("--data-dir")
        .arg(running.path("data"))
        .args(["status", "--watch", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    let first = lines.next().expect("a line").expect("text");
    let status: serde_json::Value = serde_json::from_str(&first).expect("one object a line");
    assert_eq!(status["role"], "all-in-one");
    let pid = watch.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("sent").success());
    assert!(watch.wait().expect("ended").success());
}
