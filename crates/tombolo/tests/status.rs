//! What `tombolo status` prints of a running process.

mod common;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
};

use common::{PROGRAM, Running, settings, show, text};

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

#[test]
fn an_edge_process_without_a_gateway_is_not_ready_and_says_what_it_waits_for() {
    let folder = tempfile::tempdir().expect("a folder");
    show(folder.path(), "edge");
    let settings = "role = \"edge\"\ndata_dir = \"data\"\n\
        [[domain]]\nname = \"corp.example\"\ncertificate = \"shown.pem\"\nkey = \"shown.key\"\n\
        [xmpp]\nlisten = [\"127.0.0.1:0\"]\ntrust = \"ca.pem\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
        [link]\nlisten = \"127.0.0.1:0\"\ngateways = [\"gateway.corp.example\"]\n\
        certificate = \"shown.pem\"\nkey = \"shown.key\"\ntrust = \"ca.pem\"\n";
    std::fs::write(folder.path().join("tombolo.toml"), settings).expect("written");
    let mut edge = Command::new(PROGRAM)
        .args(["run", "--config"])
        .arg(folder.path().join("tombolo.toml"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let said = BufReader::new(edge.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
    let said: Vec<String> = said.take_while(|line| !line.starts_with("Next:")).collect();
    let admin = said.iter().find_map(|line| line.trim().strip_prefix("administration")).expect("a line");
    let admin = admin.trim().trim_start_matches("http://").split(' ').next().expect("an address").to_owned();
    let mut socket = TcpStream::connect(&admin).expect("it listens");
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).expect("asked");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("answered");
    let status =
        Command::new(PROGRAM).arg("--data-dir").arg(folder.path().join("data")).arg("status").output();
    edge.kill().expect("killed");
    edge.wait().expect("ended");
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("link: unready: gateway is not linked"),
        "{answer}"
    );
    let status = text(&status.expect("ran").stdout);
    assert!(status.contains("link to gateway: down since 20"), "{status}");
}
