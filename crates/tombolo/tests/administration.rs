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

#[test]
fn a_user_is_added_and_removed_only_by_an_address_that_the_accounts_file_can_hold() {
    let running = Running::start(&["one.example"]);
    for bad in
        ["x/y@corp.example", "alice@corp.example/phone", "alice", "a b@corp.example", "alice@corp..example"]
    {
        let refused = running.order(&["user", "add", bad, "--password", "secret"]);
        assert!(!refused.status.success(), "{bad}");
        assert!(
            text(&refused.stderr).contains(&format!("{bad:?}")),
            "it names what was typed: {}",
            text(&refused.stderr)
        );
    }
    assert!(running.order(&["user", "add", "Alice@Corp.Example", "--password", "secret"]).status.success());
    assert!(
        running.order(&["user", "add", "sip:d'artagnan@corp.example", "--password", "x"]).status.success()
    );
    let listed = text(&running.order(&["user", "list"]).stdout);
    assert!(
        listed.contains("alice@corp.example") && listed.contains("d\\27artagnan@corp.example"),
        "{listed}"
    );

    let hash =
        |running: &Running| std::fs::read_to_string(running.path("data/accounts.toml")).expect("a file");
    let before = hash(&running);
    assert!(running.order(&["user", "passwd", "alice@corp.example", "--password", "other"]).status.success());
    assert_ne!(hash(&running), before);
    let empty = running.order(&["user", "passwd", "alice@corp.example", "--password", ""]);
    assert!(!empty.status.success() && text(&empty.stderr).contains("empty"), "{}", text(&empty.stderr));
    let nobody = running.order(&["user", "passwd", "bob@corp.example", "--password", "x"]);
    assert!(
        !nobody.status.success() && text(&nobody.stderr).contains("user list"),
        "{}",
        text(&nobody.stderr)
    );

    // Whatever was taken, a process that starts now can read.
    let settings = running.path("tombolo.toml");
    tombolo_config::Accounts::load(&running.path("data/accounts.toml")).expect("readable");
    assert!(running.order(&["check", &settings.display().to_string()]).status.success());

    assert!(running.order(&["user", "remove", "alice@corp.example"]).status.success());
    let gone = running.order(&["user", "remove", "alice@corp.example"]);
    assert!(!gone.status.success() && text(&gone.stderr).contains("no account"), "{}", text(&gone.stderr));
    let listed = text(&running.order(&["user", "list"]).stdout);
    assert!(!listed.contains("alice"), "{listed}");
}

#[test]
fn a_data_directory_beside_a_settings_file_is_refused_by_name() {
    let running = Running::start(&["one.example"]);
    let settings = running.path("tombolo.toml").display().to_string();
    let refused = running.order(&["run", "--config", &settings]);
    assert!(!refused.status.success());
    let told = text(&refused.stderr);
    assert!(told.contains("--data-dir") && told.contains(&settings), "{told}");
}

#[test]
fn check_opens_what_the_settings_name_and_run_only_warns_of_what_it_can_use() {
    let running = Running::start(&["one.example"]);
    let settings = running.path("tombolo.toml").display().to_string();
    let good = running.order(&["check", &settings]);
    assert!(good.status.success(), "{}", text(&good.stderr));
    common::show_other(running.folder.path(), "other", "elsewhere.example");
    let refused = running.order(&["check", &settings]);
    let told = text(&refused.stderr);
    assert!(!refused.status.success(), "{told}");
    assert!(told.contains("is for elsewhere.example, not for corp.example"), "{told}");
    assert!(told.contains("tombolo.toml:5:15"), "its place: {told}");

    let second = Running::start_in(running.folder_again());
    assert!(second.logged("is for elsewhere.example, not for corp.example"), "it starts all the same");
}

#[test]
fn an_explanation_shows_what_is_true_and_who_does_not_exist() {
    let running = Running::start(&["one.example"]);
    running.order(&["user", "add", "alice@corp.example", "--password", "secret"]);
    let told = |from: &str, to: &str| text(&running.order(&["explain", from, to]).stdout);

    let unknown = told("x@unknown.example", "alice@corp.example");
    assert!(unknown.contains("✗ no [[partner]] entry names unknown.example  ← decided"), "{unknown}");
    assert!(!unknown.contains("✓ a [[partner]] entry"), "{unknown}");
    assert!(!unknown.contains("note:"), "{unknown}");
    let nobody = told("x@one.example", "nobody@corp.example");
    assert!(nobody.contains("note: there is no account nobody@corp.example"), "{nobody}");
    let asked = told("x@one.example", "alice@corp.example");
    assert!(asked.contains("✗ the partner is public-unverified"), "{asked}");
    assert!(asked.contains("✓ the account's approve is \"ask\", so the user is asked  ← decided"), "{asked}");
    // Between two local users the one who is watched decides.
    running.order(&["user", "add", "bob@corp.example", "--password", "secret"]);
    let local = told("bob@corp.example", "alice@corp.example");
    assert!(local.contains("watch: ask"), "{local}");
}

#[test]
fn an_account_that_nobody_can_have_is_removed_as_the_error_says_with_and_without_a_running_process() {
    let running = Running::start(&["one.example"]);
    assert!(running.order(&["user", "add", "alice@corp.example", "--password", "secret"]).status.success());
    let file = running.path("data/accounts.toml");
    let good = std::fs::read_to_string(&file).expect("a file");
    let hash = "00112233445566778899aabbccddeeff";
    let bad = format!("{good}\n[[account]]\naor = \"x/y@corp.example\"\nha1_md5 = \"{hash}\"\n");
    std::fs::write(&file, &bad).expect("written");
    let listed = running.order(&["user", "list"]);
    let told = text(&listed.stderr);
    assert!(!listed.status.success() && told.contains("user remove 'x/y@corp.example' --file "), "{told}");
    let settings = running.path("tombolo.toml").display().to_string();
    let checked = running.order(&["check", &settings]);
    assert!(
        !checked.status.success() && text(&checked.stderr).contains("x/y@corp.example"),
        "run would refuse it"
    );

    let removed = running.order(&["user", "remove", "x/y@corp.example"]);
    assert!(removed.status.success(), "{}", text(&removed.stderr));
    let listed = text(&running.order(&["user", "list"]).stdout);
    assert!(listed.contains("alice@corp.example") && !listed.contains("x/y"), "{listed}");
    let again = running.order(&["user", "remove", "x/y@corp.example"]);
    assert!(!again.status.success() && text(&again.stderr).contains("no account"), "{}", text(&again.stderr));

    std::fs::write(&file, &bad).expect("written");
    assert!(running.order(&["shutdown"]).status.success());
    let path = file.display().to_string();
    let removed = running.order(&["user", "remove", "x/y@corp.example", "--file", &path]);
    assert!(removed.status.success(), "{}", text(&removed.stderr));
    assert_eq!(tombolo_config::Accounts::load(&file).expect("readable").len(), 1);
    assert!(running.order(&["check", &settings]).status.success());
}
