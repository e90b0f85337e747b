//! A running process of the program, in a folder of its own.

#![allow(dead_code, reason = "each test file uses its part")]

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

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_tombolo");

/// A process with its own folder, which ends with it.
pub struct Running {
    pub child: Child,
    pub folder: tempfile::TempDir,
    /// Where SIP over TLS is awaited.
    pub sip: SocketAddr,
    /// Where XMPP streams are awaited.
    pub xmpp: SocketAddr,
    /// Where HTTP asks.
    pub admin: SocketAddr,
    /// Where SIP over TCP is awaited, if the settings say so.
    pub tcp: Option<SocketAddr>,
    log: Arc<Mutex<String>>,
}

pub fn settings(partners: &[&str], stanza_bytes: usize) -> String {
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
pub fn show(folder: &Path, name: &str) {
    show_other(folder, name, "corp.example");
}

/// The same, for any domain.
pub fn show_other(folder: &Path, name: &str, domain: &str) {
    let authority = Authority::open_or_create(&folder.join("authority")).expect("an authority");
    let (certificate, key) = authority.issue(name, &[domain]).expect("issued");
    fs::copy(key, folder.join("shown.key")).expect("copied");
    fs::copy(certificate, folder.join("shown.pem")).expect("copied");
    fs::copy(authority.certificate(), folder.join("ca.pem")).expect("copied");
}

impl Running {
    pub fn start(partners: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        show(folder.path(), "first");
        fs::write(folder.path().join("tombolo.toml"), settings(partners, 20_000)).expect("written");
        Self::start_in(folder)
    }

    /// Starts what a folder holds already.
    pub fn start_in(folder: tempfile::TempDir) -> Self {
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
        let lines =
            BufReader::new(child.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
        let said: Vec<String> = lines.take_while(|line| !line.starts_with("Next:")).collect();
        let find = |what: &str| -> Option<SocketAddr> {
            let at = said.iter().find_map(|line| line.trim().strip_prefix(what))?;
            let at = at.trim().trim_start_matches("http://");
            Some(at.split(' ').next()?.parse().expect("an address"))
        };
        let at = |what: &str| find(what).unwrap_or_else(|| panic!("{what}: {said:?}"));
        let (xmpp, sip, admin) = (at("XMPP partners"), at("SIP over TLS"), at("administration"));
        Self { child, folder, sip, xmpp, admin, tcp: find("SIP over TCP"), log }
    }

    /// A folder of its own with the same files, for another process.
    pub fn folder_again(&self) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for entry in fs::read_dir(self.folder.path()).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_file() {
                fs::copy(&path, folder.path().join(path.file_name().expect("a name"))).expect("copied");
            }
        }
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn order(&self, words: &[&str]) -> Output {
        let data = self.path("data");
        Command::new(PROGRAM).arg("--data-dir").arg(data).args(words).output().expect("ran")
    }

    pub fn json(&self, words: &[&str]) -> Value {
        serde_json::from_slice(&self.order(words).stdout).expect("JSON")
    }

    /// What a peer is shown that connects now.
    pub fn shown(&self) -> String {
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

    pub fn logged(&self, part: &str) -> bool {
        self.log_line(part).is_some()
    }

    /// The first line of the log with this part, which may take a moment.
    pub fn log_line(&self, part: &str) -> Option<String> {
        self.log_lines(part, 1).into_iter().next()
    }

    /// The lines of the log with this part, when there are so many, which may take a moment.
    pub fn log_lines(&self, part: &str, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..100 {
            thread::sleep(Duration::from_millis(50));
            let log = self.log.lock().expect("no panic");
            lines = log.lines().filter(|line| line.contains(part)).map(ToOwned::to_owned).collect();
            if lines.len() >= count {
                break;
            }
        }
        lines
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
