//! A running process is told to read its files again: by its command line, by a signal, and by itself.

mod common;

use std::{fs, process::Command};

use common::{Running, settings, show, show_other, text};

#[test]
fn a_reload_by_the_command_line_shows_the_new_certificate_and_a_bad_file_keeps_the_old_one() {
    let running = Running::start(&[]);
    let first = running.shown();
    show(running.folder.path(), "second");
    assert_eq!(running.shown(), first, "nothing happens by itself at once");
    let output = running.order(&["reload"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let second = running.shown();
    assert_ne!(second, first);

    fs::write(running.path("shown.pem"), "no certificate").expect("written");
    let output = running.order(&["reload"]);
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("shown.pem") && said.contains("stays in use"), "{said}");
    assert!(running.logged("not reloaded; what was there stays in use"));
    assert_eq!(running.shown(), second);

    show(running.folder.path(), "third");
    assert!(running.order(&["reload"]).status.success());
    assert!(![first, second].contains(&running.shown()));
}

#[test]
fn a_certificate_for_another_domain_is_refused_and_named_until_it_is_ordered() {
    let running = Running::start(&[]);
    let first = running.shown();
    show_other(running.folder.path(), "other", "other.example");
    let output = running.order(&["reload"]);
    let told = text(&output.stderr);
    assert!(
        !output.status.success() && told.contains("is for other.example, not for corp.example"),
        "{told}"
    );
    assert!(told.contains("tombolo reload --force"), "{told}");
    assert_eq!(running.shown(), first);
    let status = text(&running.order(&["status"]).stdout);
    assert!(
        status.contains("a changed file is not in use: ") && status.contains("other.example"),
        "{status}"
    );
    assert!(running.order(&["reload", "--force"]).status.success());
    assert_ne!(running.shown(), first);
    assert!(!text(&running.order(&["status"]).stdout).contains("not in use"));
}

#[test]
fn an_accounts_file_that_lost_its_users_is_refused_without_an_order() {
    let running = Running::start(&[]);
    for n in 0..12 {
        let user = format!("u{n}@corp.example");
        assert!(running.order(&["user", "add", &user, "--password", "pw"]).status.success());
    }
    let file = running.path("data/accounts.toml");
    let whole = fs::read_to_string(&file).expect("there");
    let three = whole.split_inclusive("\n\n").take(3).collect::<String>();
    for (text_of_file, said) in [
        ("", "accounts.toml is empty (0 octets), and 12 users are known"),
        (&*three, "accounts.toml has 3 accounts, and 12 users are known"),
    ] {
        fs::write(&file, text_of_file).expect("written");
        for order in [&["reload"][..], &["user", "add", "new@corp.example", "--password", "pw"]] {
            let output = running.order(order);
            let told = text(&output.stderr);
            assert!(!output.status.success() && told.contains(said) && told.contains("--force"), "{told}");
        }
        assert_eq!(fs::read_to_string(&file).expect("there"), text_of_file, "nothing was written");
    }
    assert!(running.order(&["reload", "--force"]).status.success());
    assert!(running.order(&["user", "add", "new@corp.example", "--password", "pw"]).status.success());
    assert!(running.order(&["reload"]).status.success());
    // One after the other may go, down to none.
    for user in ["u0@corp.example", "u10@corp.example", "u11@corp.example", "new@corp.example"] {
        let output = running.order(&["user", "remove", user]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    assert!(running.order(&["reload"]).status.success());
}

#[test]
fn a_certificate_path_that_could_not_be_read_is_tried_again_by_the_next_reload() {
    let running = Running::start(&[]);
    let first = running.shown();
    let moved = settings(&[], 20_000).replace("shown.", "moved.");
    fs::write(running.path("tombolo.toml"), moved).expect("written");
    // The files are there, since the settings are checked first, but are no certificate and no key yet.
    for name in ["moved.pem", "moved.key"] {
        fs::write(running.path(name), "later").expect("written");
    }
    let output = running.order(&["reload"]);
    assert!(!output.status.success() && text(&output.stderr).contains("moved."), "{}", text(&output.stderr));
    assert_eq!(running.shown(), first);

    show(running.folder.path(), "second");
    for (from, to) in [("shown.pem", "moved.pem"), ("shown.key", "moved.key")] {
        fs::copy(running.path(from), running.path(to)).expect("copied");
    }
    fs::write(running.path("shown.pem"), "no certificate any more").expect("written");
    let output = running.order(&["reload"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_ne!(running.shown(), first);
}

#[test]
fn a_hangup_signal_reloads_and_the_process_goes_on() {
    let mut running = Running::start(&[]);
    let first = running.shown();
    show(running.folder.path(), "second");
    let signal = Command::new("kill").args(["-HUP", &running.child.id().to_string()]).status();
    assert!(signal.expect("kill is there").success());
    assert!(running.logged("reloaded"));
    assert_ne!(running.shown(), first);
    assert!(running.child.try_wait().expect("known").is_none(), "it runs");
}

#[test]
fn partners_change_in_a_running_process_and_what_needs_a_restart_is_named_and_stays() {
    let running = Running::start(&["one.example", "two.example"]);
    let names = |running: &Running| -> Vec<String> {
        let list = running.json(&["partner", "list", "--json"]);
        list.as_array()
            .expect("a list")
            .iter()
            .map(|partner| partner["domain"].as_str().expect("text").to_owned())
            .collect()
    };
    assert_eq!(names(&running), ["one.example", "two.example"]);
    fs::write(running.path("tombolo.toml"), settings(&["two.example", "three.example"], 30_000))
        .expect("written");
    let answer = running.json(&["reload", "--json"]);
    assert_eq!(answer["needs_restart"], serde_json::json!(["xmpp"]));
    assert_eq!(names(&running), ["two.example", "three.example"]);
    let explained = text(&running.order(&["explain", "a@one.example", "b@corp.example"]).stdout);
    assert!(explained.contains("one.example"), "{explained}");
    assert!(!running.order(&["partner", "show", "one.example"]).status.success());

    // A file with an error changes nothing, and says where the error is.
    fs::write(running.path("tombolo.toml"), settings(&["four.example"], 1)).expect("written");
    let output = running.order(&["reload"]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("xmpp.limits.stanza_bytes"), "{}", text(&output.stderr));
    assert_eq!(names(&running), ["two.example", "three.example"]);
}

#[test]
fn status_and_metrics_say_how_long_certificates_hold() {
    let running = Running::start(&[]);
    let status = running.json(&["status", "--json"]);
    let certificate = &status["certificates"][0];
    assert_eq!(certificate["name"], "corp.example");
    assert!(certificate["days_left"].as_i64().is_some_and(|days| days > 10_000), "{status}");
    let shown = text(&running.order(&["status"]).stdout);
    assert!(shown.contains("certificate corp.example:"), "{shown}");
}
