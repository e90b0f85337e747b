//! What a process used, from `/proc`.

use std::{fs, io, time::Duration};

/// Resident memory of a process in octets; `None` names this one.
pub fn resident_bytes(pid: Option<u32>) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{}/statm", name_of(pid)))?;
    let pages: u64 =
        text.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(pages * PAGE_BYTES)
}

/// CPU time of a process in user and system mode; `None` names this one. It grows in steps of 10 ms.
pub fn cpu_time(pid: Option<u32>) -> io::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{}/stat", name_of(pid)))?;
    // The name in brackets may hold spaces; the fields behind it are counted from the third.
    let behind = text.rsplit_once(')').ok_or(io::ErrorKind::InvalidData)?.1;
    let field = |number: usize| {
        behind.split_ascii_whitespace().nth(number - 3).and_then(|text| text.parse::<u64>().ok())
    };
    let ticks =
        field(14).zip(field(15)).map(|(user, system)| user + system).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Duration::from_millis(ticks * 10))
}

fn name_of(pid: Option<u32>) -> String {
    pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string())
}

/// Linux on x86-64.
const PAGE_BYTES: u64 = 4096;
