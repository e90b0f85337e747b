//! The process as its supervisor sees it: what it says, what may end it, and what it starts without.

mod common;

use std::{
    fs,
    io::Write,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use common::{PROGRAM, settings, show, text};

/// A folder with settings whose data directory is `data`.
fn folder(data: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    show(folder.path(), "first");
    let settings =
        settings(&["one.example"], 20_000).replace("data_dir = \"data\"", &format!("data_dir = \"{data}\""));
    fs::write(folder.path().join("tombolo.toml"), settings).expect("written");
    folder
}

fn run(folder: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--config"]).arg(folder.join("tombolo.toml"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn terminate(child: &Child) {
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("ran");
    assert!(status.success());
}

/// Ends with the test, whatever becomes of it.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_service_manager_hears_of_readiness_a_reload_that_threads_take_turns_and_the_end() {
    let folder = folder("data");
    let socket = UnixDatagram::bind(folder.path().join("notify")).expect("bound");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    let heard = || {
        let mut buffer = [0; 256];
        let len = socket.recv(&mut buffer).expect("told in time");
        String::from_utf8(buffer[..len].to_vec()).expect("text")
    };
    let until = |begin: &str| loop {
        let said = heard();
        if said.starts_with(begin) {
            return said;
        }
        assert!(said == "WATCHDOG=1", "{said} in place of {begin}");
    };
    let mut command = run(folder.path());
    command.env("NOTIFY_SOCKET", folder.path().join("notify")).env("WATCHDOG_USEC", "400000");
    let mut running = Ends(command.spawn().expect("started"));
    until("READY=1");
    until("WATCHDOG=1");
    let reload = Command::new("kill").args(["-HUP", &running.0.id().to_string()]).status().expect("ran");
    assert!(reload.success());
    assert!(until("RELOADING=1").contains("\nMONOTONIC_USEC="));
    until("READY=1");
    terminate(&running.0);
    until("STOPPING=1");
    assert_eq!(running.0.wait().expect("ended").code(), Some(0));
}

#[test]
fn sigterm_at_any_moment_of_the_start_ends_with_0() {
    let folder = folder("data");
    for delay in [30, 60, 90, 150, 300] {
        let mut running = Ends(run(folder.path()).spawn().expect("started"));
        // Before its handler is there, nothing was begun.
        thread::sleep(Duration::from_millis(delay));
        let is_prepared = folder.path().join("data").exists();
        terminate(&running.0);
        let code = running.0.wait().expect("ended").code();
        assert!(code == Some(0) || !is_prepared, "after {delay} ms: {code:?}");
    }
}

#[test]
fn a_data_directory_with_a_long_path_is_administered_like_any_other() {
    let data = format!("{}/data", "d".repeat(132));
    let folder = folder(&data);
    let _running = Ends(run(folder.path()).spawn().expect("started"));
    let at = folder.path().join(&data);
    let answered = (0..200).any(|_| {
        thread::sleep(Duration::from_millis(50));
        let asked = Command::new(PROGRAM).arg("--data-dir").arg(&at).args(["status", "--json"]).output();
        asked.expect("ran").status.success()
    });
    assert!(answered);
}

#[test]
fn too_few_open_files_are_an_error_that_says_how_to_raise_them() {
    let folder = folder("data");
    for limit in [8, 12, 16, 24, 40] {
        let script = format!("ulimit -n {limit}; exec \"$0\" run --config \"$1\"");
        let config = folder.path().join("tombolo.toml");
        let ended = Command::new("sh").args(["-c", &script, PROGRAM]).arg(config).output().expect("ran");
        let said = text(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{limit}: {said}");
        assert!(said.contains("LimitNOFILE") && !said.contains("panicked"), "{limit}: {said}");
    }
}

#[test]
fn a_process_whose_log_nobody_reads_starts_serves_and_ends_in_order() {
    let folder = folder("data");
    // A pipe that is full from the beginning.
    let (_reader, mut writer) = std::io::pipe().expect("a pipe");
    let log = writer.try_clone().expect("cloned");
    let filled = Arc::new(AtomicUsize::new(0));
    let count = filled.clone();
    thread::spawn(move || {
        // Its last write never ends.
        while writer.write_all(&[b'x'; 4096]).is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut before = usize::MAX;
    while std::mem::replace(&mut before, filled.load(Ordering::SeqCst)) != before || before == 0 {
        thread::sleep(Duration::from_millis(200));
    }
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--config"]).arg(folder.path().join("tombolo.toml"));
    let mut running = Ends(command.stdout(Stdio::null()).stderr(log).spawn().expect("started"));
    let answered = (0..200).any(|_| {
        thread::sleep(Duration::from_millis(50));
        let data = folder.path().join("data");
        let asked = Command::new(PROGRAM).arg("--data-dir").arg(data).args(["status", "--json"]).output();
        asked.expect("ran").status.success()
    });
    assert!(answered, "it serves");
    terminate(&running.0);
    assert_eq!(running.0.wait().expect("ended").code(), Some(0));
}
