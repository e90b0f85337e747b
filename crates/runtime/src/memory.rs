//! How much memory the process may take, how much it takes, and whether anything new is let in.
//!
//! The limit that the system sets is read from the cgroups of the process, versions 1 and 2, and from the machine. A
//! [`MemoryGate`] is told what the process takes, now and then, and says when that crosses its limit.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Whether the process takes more memory than it may: then nothing new is let in, and what is there goes on.
#[derive(Debug)]
pub struct MemoryGate {
    limit: u64,
    taken: AtomicU64,
    is_full: AtomicBool,
}

impl MemoryGate {
    /// A gate that is full at `limit` octets.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, taken: AtomicU64::new(0), is_full: AtomicBool::new(false) })
    }

    /// A gate that is never full.
    pub fn open() -> Arc<Self> {
        Self::new(u64::MAX)
    }

    /// True while nothing new is let in.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// The limit in octets.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// What the process took when it was last asked, in octets.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// The process takes so many octets. Gives whether the gate is full, when that changes. Once full, it opens again a
    /// twentieth below the limit.
    pub fn note(&self, taken: u64) -> Option<bool> {
        self.taken.store(taken, Ordering::Relaxed);
        let was_full = self.is_full();
        let is_full = taken >= self.limit || was_full && taken >= self.limit - self.limit / 20;
        self.is_full.store(is_full, Ordering::Relaxed);
        (is_full != was_full).then_some(is_full)
    }
}

/// Octets that the process takes by itself: what the system could not get back by writing to files.
pub fn memory_taken() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = |name: &str| field_of(&status, name);
    let anonymous = kilobytes("RssAnon:").map(|anonymous| anonymous + kilobytes("RssShmem:").unwrap_or(0));
    anonymous.or_else(|| kilobytes("VmRSS:")).map(|kilobytes| kilobytes * 1024)
}

/// Octets that the process may take before the system ends it: the least limit of its cgroups, or the machine's memory.
pub fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| field_of(&text, "MemTotal:")).map(|kilobytes| kilobytes * 1024);
    let read = |path: &Path| fs::read_to_string(path).ok();
    limit_of_groups(&groups, Path::new("/sys/fs/cgroup"), read).into_iter().chain(machine).min()
}

/// `name   123 kB` of a file in /proc.
fn field_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The least limit of the groups that `/proc/self/cgroup` names, and of those around them.
fn limit_of_groups(groups: &str, root: &Path, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let mut least: Option<u64> = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (top, file) = match controllers {
            "" => (vec![root.to_owned(), root.join("unified")], "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                (vec![root.join("memory")], "memory.limit_in_bytes")
            }
            _ => continue,
        };
        for top in top {
            for group in up_from(&top, path) {
                // `max` is no number, and says that there is no limit.
                let limit = read(&group.join(file)).and_then(|text| text.trim().parse::<u64>().ok());
                least = least.into_iter().chain(limit).min();
            }
        }
    }
    least
}

/// The folder of a group and of each around it. Inside a container the path may be one of outside: then only the top is
/// there.
fn up_from(top: &Path, path: &str) -> Vec<PathBuf> {
    let inner = Path::new(path.trim_start_matches('/'));
    inner.ancestors().map(|part| top.join(part)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn limit(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        let files: HashMap<PathBuf, &str> =
            files.iter().map(|(path, text)| (Path::new("/c").join(path), *text)).collect();
        limit_of_groups(groups, Path::new("/c"), |path| files.get(path).map(|text| (*text).to_owned()))
    }

    #[test]
    fn the_least_limit_of_the_group_and_of_those_around_it_counts_in_both_versions() {
        let nested = &[
            ("memory.max", "max\n"),
            ("system.slice/memory.max", "200000000\n"),
            ("system.slice/tombolo.service/memory.max", "300000000\n"),
        ];
        assert_eq!(limit("0::/system.slice/tombolo.service\n", nested), Some(200_000_000));
        assert_eq!(
            limit("0::/elsewhere\n", &[("memory.max", "140000000\n")]),
            Some(140_000_000),
            "a container"
        );
        assert_eq!(limit("0::/\n", &[("memory.max", "max\n")]), None);
        let old = "5:devices:/\n4:cpu,memory:/docker/x\n0::/\n";
        let files = &[
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/docker/x/memory.limit_in_bytes", "140000000\n"),
        ];
        assert_eq!(limit(old, files), Some(140_000_000));
        assert_eq!(limit("not a group\n", files), None);
    }

    #[test]
    fn this_process_takes_memory_and_less_than_it_may() {
        let (taken, limit) = (memory_taken().expect("/proc"), memory_limit().expect("/proc"));
        assert!(taken > 100_000 && taken < limit, "{taken} of {limit}");
    }

    #[test]
    fn a_gate_that_is_full_opens_a_little_below_its_limit_and_tells_changes_only() {
        let gate = MemoryGate::new(1000);
        let told: Vec<_> = [999, 1000, 1200, 960, 950, 949, 0, 1000].map(|taken| gate.note(taken)).into();
        assert_eq!(told, [None, Some(true), None, None, None, Some(false), None, Some(true)]);
        assert!(gate.is_full() && gate.taken() == 1000);
        assert_eq!(MemoryGate::open().note(u64::MAX / 2), None);
    }
}
