//! A running process is told to read its files again: by its command line, by a signal, and by itself.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::Value;
use tombolo_net::{Authority, client_config, connect, connect_tls};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tombolo");

/// A process with its own folder, which ends with it.
struct Running {
    child: Child,
    folder: tempfile::TempDir,
    /// Where SIP over TLS is awaited.
    sip: SocketAddr,
    log: Arc<Mutex<String>>,
}

fn settings(partners: &[&str], stanza_bytes: usize) -> String {
    let partners: String = partners
        .iter()
        .map(|name| format!("[[partner]]\ndomain = \"{name}\"\nkind = \"federated\"\n"))
        .collect();
    format!(
        "data_dir = \"data\"\n[[domain]]\nname = \"corp.example\"\nhome = {{ kind = \"built-in\" }}\n\
         certificate = \"shown.pem\"\nkey = \"shown.key\"\n\
         [xmpp]\nlisten = [\"127.0.0.1:0\"]\ntrust = \"ca.pem\"\nlimits = {{ stanza_bytes = {stanza_bytes} }}\n\
         [sip]\nlisten = [\"tls:127.0.0.1:0\"]\n[store]\npath = \"memory\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{partners}"
    )
}

/// Puts the certificate that is called so, and its key, where the process looks.
fn show(folder: &Path, name: &str) {
    let authority = Authority::open_or_create(&folder.join("authority")).expect("an authority");
    let (certificate, key) = authority.issue(name, &["corp.example"]).expect("issued");
    fs::copy(key, folder.join("shown.key")).expect("copied");
    fs::copy(certificate, folder.join("shown.pem")).expect("copied");
    fs::copy(authority.certificate(), folder.join("ca.pem")).expect("copied");
}

impl Running {
    fn start(partners: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        show(folder.path(), "first");
        fs::write(folder.path().join("tombolo.toml"), settings(partners, 20_000)).expect("written");
        let mut child = Command::new(PROGRAM)
            .args(["run", "--config"])
            .arg(folder.path().join("tombolo.toml"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let log = Arc::new(Mutex::new(String::new()));
        let (kept, mut errors) = (log.clone(), BufReader::new(child.stderr.take().expect("piped")));
        thread::spawn(move || {
            let mut line = String::new();
            while errors.read_line(&mut line).is_ok_and(|len| len > 0) {
                kept.lock().expect("no panic").push_str(&std::mem::take(&mut line));
            }
        });
        let mut said = BufReader::new(child.stdout.take().expect("piped")).lines();
        let sip = loop {
            let line = said.next().expect("it says where it listens").expect("text");
            if let Some(at) = line.trim().strip_prefix("SIP over TLS") {
                break at.trim().parse().expect("an address");
            }
        };
        assert!(said.any(|line| line.expect("text").starts_with("Next:")), "it is up");
        Self { child, folder, sip, log }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn order(&self, words: &[&str]) -> Output {
        let data = self.path("data");
        Command::new(PROGRAM).arg("--data-dir").arg(data).args(words).output().expect("ran")
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_slice(&self.order(words).stdout).expect("JSON")
    }

    /// What a peer is shown that connects now.
    fn shown(&self) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let at = self.sip;
        runtime.block_on(async move {
            let limit = Duration::from_secs(5);
            let socket = connect(&[at], limit).await.expect("it listens");
            let (_, facts) =
                connect_tls(socket, client_config(None, &[]), "corp.example", limit).await.expect("TLS");
            facts.certificates.fingerprint()
        })
    }

    fn logged(&self, part: &str) -> bool {
        (0..100).any(|_| {
            thread::sleep(Duration::from_millis(50));
            self.log.lock().expect("no panic").contains(part)
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

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
