//! Phones at a running process, as an administrator sees them: registrations and failed logins.

mod common;

use common::{Running, settings, show, text};
use regex_lite::Regex;
use tombolo_load::phone::Phone;

const DOMAIN: &str = "corp.example";
const ALICE: &str = "alice@corp.example";

/// A process to which phones connect by TCP, with an account for alice.
fn start() -> Running {
    let folder = tempfile::tempdir().expect("a folder");
    show(folder.path(), "first");
    let listen = "\"tls:127.0.0.1:0\", \"tcp:127.0.0.1:0\"";
    let text_of = settings(&["one.example"], 20_000).replace("\"tls:127.0.0.1:0\"", listen);
    let text_of = format!("{text_of}[log]\nshow_addresses = true\n");
    std::fs::write(folder.path().join("tombolo.toml"), text_of).expect("written");
    let running = Running::start_in(folder);
    let added = running.order(&["user", "add", ALICE, "--password", "secret"]);
    assert!(added.status.success(), "{}", text(&added.stderr));
    running
}

async fn phone(running: &Running, user: &str, password: &str) -> Phone {
    let server = running.tcp.expect("it listens");
    Phone::connect(server, user, DOMAIN, password).await.expect("connected")
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

#[test]
fn the_bindings_of_a_user_are_shown_counted_and_cleared_by_the_command_line() {
    let running = start();
    let shown = |words: &[&str]| {
        let output = running.order(words);
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    block_on(async {
        let (first, second) =
            (phone(&running, "alice", "secret").await, phone(&running, "alice", "secret").await);
        first.register().await.expect("registered");
        second.register().await.expect("registered");

        let user = running.json(&["user", "show", ALICE, "--json"]);
        assert_eq!(user["aor"], ALICE);
        let bindings = user["bindings"].as_array().expect("a list");
        assert_eq!(bindings.len(), 2, "{user}");
        for binding in bindings {
            assert!(
                binding["contact"].as_str().is_some_and(|uri| uri.starts_with("sip:alice@127.0.0.1:")),
                "{user}"
            );
            assert!(binding["remote"].as_str().is_some_and(|at| at.starts_with("127.0.0.1:")), "{user}");
            assert!(binding["expires"].as_str().is_some_and(|until| until.ends_with('Z')), "{user}");
            assert_eq!(binding["is_reachable"], true, "{user}");
        }
        let told = shown(&["user", "show", ALICE]);
        assert!(told.starts_with("alice@corp.example: approve = ask, 2 bindings\n"), "{told}");
        assert!(told.contains("reachable, until 20"), "{told}");
        assert!(shown(&["status"]).contains("registrations: 2 Contacts of 1 user\n"));

        let told = shown(&["user", "show", ALICE, "--clear"]);
        assert!(told.contains("2 bindings removed") && told.contains("0 bindings\n"), "{told}");
        assert!(shown(&["status"]).contains("registrations: 0 Contacts of 0 users\n"));
        first.register().await.expect("a phone that is still there registers again");
        assert!(shown(&["user", "show", ALICE]).contains("1 bindings\n"));
    });
    let nobody = running.order(&["user", "show", "bob@corp.example"]);
    assert!(
        !nobody.status.success() && text(&nobody.stderr).contains("user list"),
        "{}",
        text(&nobody.stderr)
    );
}

/// What `docs/security.md` prints for fail2ban. Its `<HOST>` is one address, and stands once: fail2ban makes named groups
/// of it, and a second one does not compile.
fn failregex() -> Regex {
    let docs = include_str!("../../../docs/security.md");
    let printed =
        docs.lines().find_map(|line| line.trim().strip_prefix("failregex = ")).expect("it is printed");
    assert_eq!(printed.matches("<HOST>").count(), 1, "{printed}");
    Regex::new(&printed.replace("<HOST>", "(?P<host>[0-9a-fA-F:.]+)")).expect("it compiles")
}

#[test]
fn a_failed_login_is_logged_as_the_expression_for_fail2ban_expects_whatever_the_phone_calls_itself() {
    let (running, failregex) = (start(), failregex());
    let names = ["alice", "nobody", "x%22,%22client%22:%22192.0.2.9%22"];
    block_on(async {
        for (at, name) in names.iter().enumerate() {
            phone(&running, name, "wrong").await.register().await.expect_err("refused");
            let lines = running.log_lines("a phone's login failed", at + 1);
            let line = lines.get(at).unwrap_or_else(|| panic!("{name}: {lines:?}"));
            let found = failregex.captures(line).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(&found["host"], "127.0.0.1", "{line}");
        }
    });
    // Other lines of the same process mean nobody.
    let ready = running.log_line("\"message\":\"ready\"").expect("it is up");
    assert!(!failregex.is_match(&ready));
}
