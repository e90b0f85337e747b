//! The Debian packages that the interop tests run: real peers and the tools around them.

use std::path::Path;
use std::process::Command;

use crate::steps::{Counts, watch};

/// Names as in Debian 12.
const PACKAGES: &[&str] = &[
    "baresip-core",
    "dnsutils",
    "iproute2",
    "kamailio",
    "kamailio-presence-modules",
    "kamailio-tls-modules",
    "kamailio-xml-modules",
    "lua-event",
    "lua-sec",
    "lua-unbound",
    "openssl",
    "prosody",
    "python3",
    "python3-slixmpp",
    "sip-tester",
    "unbound",
    "util-linux",
];

/// Installs what is missing where we are root; elsewhere says in one line what to install.
pub(crate) fn ensure() -> Result<Counts, String> {
    let missing = missing()?;
    if missing.is_empty() {
        println!("{} packages are here", PACKAGES.len());
        return Ok(Counts::one(true));
    }
    if !is_root() {
        return Err(format!("missing: apt-get install --no-install-recommends {}", missing.join(" ")));
    }
    println!("installing {}", missing.join(" "));
    let forbids_services = forbid_services();
    let mut update = Command::new("apt-get");
    let updated = watch(update.args(["update", "-q"]), |_| false)?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-y", "-q", "--no-install-recommends"]);
    let installed = watch(install.args(&missing), |_| false);
    if forbids_services {
        let _ = std::fs::remove_file(POLICY);
    }
    let (is_well, said) = installed?;
    if !is_well {
        return Err(format!("apt-get install failed:\n{}\n{}", tail(&updated.1), tail(&said)));
    }
    match crate::packages::missing()? {
        left if left.is_empty() => Ok(Counts::one(true)),
        left => Err(format!("still missing after the installation: {}", left.join(" "))),
    }
}

/// The packages that are not installed.
pub(crate) fn missing() -> Result<Vec<&'static str>, String> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\\n"])
        .args(PACKAGES)
        .output()
        .map_err(|error| format!("the interop tests know Debian's packages only (dpkg-query: {error})"))?;
    let installed = String::from_utf8_lossy(&output.stdout);
    Ok(absent(&installed))
}

fn absent(installed: &str) -> Vec<&'static str> {
    let is_here = |name: &&&str| installed.lines().any(|line| line == format!("{name} installed"));
    PACKAGES.iter().filter(|name| !is_here(name)).copied().collect()
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Keeps the packages from starting services while they are installed; true where we made the file.
fn forbid_services() -> bool {
    if Path::new(POLICY).exists() || std::fs::write(POLICY, "#!/bin/sh\nexit 101\n").is_err() {
        return false;
    }
    Command::new("chmod").args(["755", POLICY]).status().is_ok_and(|status| status.success())
}

/// True where the effective user may install packages.
pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    uids.split_whitespace().nth(1) == Some("0")
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::{PACKAGES, absent};

    #[test]
    fn what_dpkg_does_not_call_installed_is_absent() {
        let all: String = PACKAGES.iter().map(|name| format!("{name} installed\n")).collect();
        assert!(absent(&all).is_empty());
        assert_eq!(absent(&all.replace("prosody installed", "prosody config-files")), ["prosody"]);
        assert_eq!(absent("").len(), PACKAGES.len());
    }
}
