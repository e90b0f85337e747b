//! What a service manager is told (`sd_notify(3)`): that the process is ready, reloads, ends, and is alive.
//!
//! Where `NOTIFY_SOCKET` names no socket nobody is told. A message that cannot be sent is lost: the manager has its own
//! timeouts.

use std::{
    env,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    sync::LazyLock,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// The service manager of this process.
pub static MANAGER: LazyLock<Manager> =
    LazyLock::new(|| Manager::at(env::var("NOTIFY_SOCKET").ok().as_deref()));

/// A service manager, or nobody.
#[derive(Debug)]
pub struct Manager(Option<(UnixDatagram, SocketAddr)>);

impl Manager {
    /// The manager at a socket: a path, or an abstract name behind `@`.
    fn at(socket: Option<&str>) -> Self {
        let address = socket.and_then(|socket| match socket.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name).ok(),
            None => SocketAddr::from_pathname(socket).ok(),
        });
        Self(address.and_then(|address| Some((UnixDatagram::unbound().ok()?, address))))
    }

    /// The process takes traffic, or has reloaded.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// A reload begins; [`Manager::ready`] ends it.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The process ends.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// The process is alive.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, text: &str) {
        if let Some((socket, address)) = &self.0
            && let Err(error) = socket.send_to_addr(text.as_bytes(), address)
        {
            tracing::debug!(%error, text, "the service manager cannot be told");
        }
    }
}

/// How often the manager wants to hear that the process is alive, if it does.
pub fn watchdog_period() -> Option<Duration> {
    let variable = |name| env::var(name).ok();
    period_of(variable("WATCHDOG_USEC").as_deref(), variable("WATCHDOG_PID").as_deref(), std::process::id())
}

/// Half of the time after which the manager gives the process up.
fn period_of(micros: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        // It was set for a process that started this one.
        return None;
    }
    let micros: u64 = micros?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let len = socket.recv(&mut buffer).expect("told");
        String::from_utf8(buffer[..len].to_vec()).expect("text")
    }

    #[test]
    fn a_manager_is_told_at_a_path_and_at_an_abstract_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let name = format!("tombolo-test-{}", std::process::id());
        let by_name = SocketAddr::from_abstract_name(&name).expect("a name");
        for (socket, address) in [
            (UnixDatagram::bind(&path).expect("bound"), path.display().to_string()),
            (UnixDatagram::bind_addr(&by_name).expect("bound"), format!("@{name}")),
        ] {
            let manager = Manager::at(Some(&address));
            manager.ready();
            assert_eq!(heard(&socket), "READY=1");
            manager.reloading();
            let said = heard(&socket);
            let micros = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("both in one message");
            assert!(micros.parse::<u64>().is_ok_and(|micros| micros > 0), "{said}");
            manager.alive();
            manager.stopping();
            assert_eq!([heard(&socket), heard(&socket)], ["WATCHDOG=1", "STOPPING=1"]);
        }
    }

    #[test]
    fn without_a_manager_nobody_is_told_and_nothing_fails() {
        for socket in [None, Some(""), Some("/nowhere/at/all")] {
            Manager::at(socket).ready();
        }
    }

    #[test]
    fn the_watchdog_hears_twice_in_its_time_and_only_from_the_process_that_it_watches() {
        let second = Some(Duration::from_millis(500));
        assert_eq!(period_of(Some("1000000"), None, 7), second);
        assert_eq!(period_of(Some("1000000"), Some("7"), 7), second);
        assert_eq!(period_of(Some("1000000"), Some("8"), 7), None);
        for micros in [None, Some("0"), Some("soon")] {
            assert_eq!(period_of(micros, None, 7), None);
        }
    }
}
