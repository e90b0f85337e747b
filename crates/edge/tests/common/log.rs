//! What the process logged, kept for a test to look at.

use std::io;

use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Kept;

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Kept {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Kept
    }
}

/// From now on what is logged at `info` and above is kept, of all tests of this process.
pub fn keep_log() {
    // The second test finds the first one's subscriber.
    let _ = tracing_subscriber::fmt().with_ansi(false).with_writer(Kept).try_init();
}

/// True when one line holds all of these.
pub fn logged(parts: &[&str]) -> bool {
    let lines = LINES.lock();
    String::from_utf8_lossy(&lines).lines().any(|line| parts.iter().all(|part| line.contains(part)))
}
