//! Log lines on their way to the error output, which may be a pipe that nobody reads.
//!
//! Lines go in from any thread and never wait: what finds no room is dropped and counted. One thread writes them, in
//! order, and says how many were dropped once it can write again.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use tracing_subscriber::fmt::MakeWriter;

/// The queue's entrance. Clones lead to the same queue.
#[derive(Debug, Clone)]
pub struct LogQueue {
    entries: Sender<Entry>,
    /// Octets of the lines that wait.
    waiting_bytes: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Entry {
    Line(Vec<u8>),
    /// Told when everything before it is written.
    Flush(Sender<()>),
}

impl LogQueue {
    /// A queue whose thread writes to `output`. `dropped` counts the lines that found no room; `render_dropped` makes the
    /// line that tells of them.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        output: impl Write + Send + 'static,
        dropped: Arc<AtomicU64>,
        render_dropped: fn(u64) -> String,
    ) -> io::Result<Self> {
        let (entries, queued) = bounded(MAX_LINES);
        let queue = Self { entries, waiting_bytes: Arc::default(), dropped };
        let own = (queue.waiting_bytes.clone(), queue.dropped.clone());
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(&queued, output, &own.0, &own.1, render_dropped))?;
        Ok(queue)
    }

    /// Waits until what was logged before is written, but no longer than `limit`. Whether it is.
    pub fn flush(&self, limit: Duration) -> bool {
        let (done, written) = bounded(1);
        self.entries.send_timeout(Entry::Flush(done), limit).is_ok() && written.recv_timeout(limit).is_ok()
    }

    fn push(&self, line: &[u8]) {
        let add = |waiting: usize| Some(waiting + line.len()).filter(|sum| *sum <= MAX_BYTES);
        let has_room = self.waiting_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok();
        if has_room {
            match self.entries.try_send(Entry::Line(line.to_vec())) {
                Ok(()) => return,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                    self.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
                }
            }
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes one line; the layers of `tracing_subscriber` write each event at once.
impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn write_lines(
    queued: &Receiver<Entry>,
    mut output: impl Write,
    waiting_bytes: &AtomicUsize,
    dropped: &AtomicU64,
    render_dropped: fn(u64) -> String,
) {
    let mut told = 0;
    let mut batch = Vec::new();
    while let Ok(first) = queued.recv() {
        let mut flushed = Vec::new();
        let mut next = Some(first);
        while let Some(entry) = next {
            match entry {
                Entry::Line(line) => batch.extend_from_slice(&line),
                Entry::Flush(done) => flushed.push(done),
            }
            next = if batch.len() < BATCH_BYTES { queued.try_recv().ok() } else { None };
        }
        // An output that fails cannot be told so anywhere.
        let _ = output.write_all(&batch).and_then(|()| output.flush());
        waiting_bytes.fetch_sub(batch.len(), Ordering::Relaxed);
        batch.clear();
        let sum = dropped.load(Ordering::Relaxed);
        if sum > told {
            let _ = output.write_all(render_dropped(sum - told).as_bytes());
            told = sum;
        }
        for done in flushed {
            // Whoever waited may have lost patience.
            let _ = done.send(());
        }
    }
}

/// Lines that wait, at most.
const MAX_LINES: usize = 8192;
/// Their octets, at most.
const MAX_BYTES: usize = 4 << 20;
/// What one write carries, about.
const BATCH_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// An output that takes nothing until its gate is opened.
    #[derive(Clone)]
    struct Gated {
        gate: Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gated {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            // Open for ever once the sender is gone.
            let _ = self.gate.recv();
            self.written.lock().extend_from_slice(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (LogQueue, Sender<()>, Gated, Arc<AtomicU64>) {
        let (opener, gate) = bounded::<()>(0);
        let (output, dropped) = (Gated { gate, written: Arc::default() }, Arc::new(AtomicU64::new(0)));
        let render = |count| format!("dropped {count}\n");
        let queue = LogQueue::start(output.clone(), dropped.clone(), render).expect("a thread");
        (queue, opener, output, dropped)
    }

    fn text(output: &Gated) -> String {
        String::from_utf8(output.written.lock().clone()).expect("UTF-8")
    }

    #[test]
    fn a_writer_never_waits_for_an_output_that_takes_nothing_and_what_is_dropped_is_counted_and_told() {
        let (mut queue, opener, output, dropped) = gated();
        for number in 0..20_000 {
            queue.write_all(format!("line {number}\n").as_bytes()).expect("never fails");
        }
        assert!(!queue.flush(Duration::from_millis(1)), "nothing is written yet");
        let lost = dropped.load(Ordering::Relaxed);
        assert!((20_000 - MAX_LINES as u64 - 10_000..20_000).contains(&lost), "{lost}");
        drop(opener);
        assert!(queue.flush(Duration::from_secs(60)), "all that had room is written");
        let said = text(&output);
        assert!(said.starts_with("line 0\nline 1\n"), "in order");
        assert!(said.contains(&format!("dropped {lost}\n")), "{lost} lines are told of");
        let lines = said.lines().filter(|line| line.starts_with("line")).count() as u64;
        assert_eq!(lines + lost, 20_000);
    }

    #[test]
    fn lines_that_wait_are_bounded_in_octets_too() {
        let (mut queue, opener, output, dropped) = gated();
        let long = vec![b'x'; 1 << 20];
        for _ in 0..64 {
            queue.write_all(&long).expect("never fails");
        }
        let lost = dropped.load(Ordering::Relaxed);
        // One batch may be in the writer's hands.
        assert!(lost >= 64 - 5 - 1, "{lost}");
        drop(opener);
        assert!(queue.flush(Duration::from_secs(60)));
        queue.write_all(b"after\n").expect("never fails");
        assert!(queue.flush(Duration::from_secs(60)));
        assert!(text(&output).ends_with("after\n"), "there is room again");
    }
}
