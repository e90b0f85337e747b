//! What a running process says to whoever asks on loopback, and what only to who may open its socket.

mod common;

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use common::{Running, text};

/// The status and body of an answer.
fn ask(running: &Running, path: &str, host: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(running.admin).expect("a listener");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).expect("asked");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.split(' ').nth(1).expect("a status").parse().expect("a number"), body.to_owned())
}

#[test]
fn http_names_no_people_and_answers_only_who_asks_for_its_own_address() {
    let running = Running::start(&["one.example"]);
    let own = running.admin.to_string();
    let added = running.order(&["user", "add", "alice@corp.example", "--password", "secret"]);
    assert!(added.status.success(), "{}", text(&added.stderr));

    for path in ["/healthz", "/readyz", "/metrics", "/api/v1/status"] {
        let (status, body) = ask(&running, path, &own);
        assert_eq!(status, 200, "{path}");
        assert!(!body.contains("alice"), "{path}: {body}");
        let (status, body) = ask(&running, path, &format!("rebound.example:{}", running.admin.port()));
        assert_eq!(status, 421, "{path}");
        assert!(body.contains(&own), "it says what is accepted: {body}");
    }
    for path in [
        "/api/v1/users",
        "/api/v1/users/alice@corp.example",
        "/api/v1/explain?from=alice@corp.example&to=juliet@one.example",
        "/api/v1/partners",
        "/api/v1/partners/one.example",
    ] {
        let (status, body) = ask(&running, path, &own);
        assert_eq!(status, 404, "{path}: {body}");
    }

    // By the socket all of it is answered.
    let listed = text(&running.order(&["user", "list"]).stdout);
    assert!(listed.contains("alice@corp.example"), "{listed}");
    assert!(running.order(&["explain", "alice@corp.example", "juliet@one.example"]).status.success());
    assert!(running.order(&["partner", "show", "one.example"]).status.success());
}
