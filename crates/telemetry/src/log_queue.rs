//! Log lines on their way to the error output, which may be a pipe that nobody reads.
//!
//! Lines go in from any thread and never wait: what finds no room is dropped and counted. One thread writes them, in
//! order, and says how many were dropped once it can write again.

use std::{
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
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
        let counts = Counts { waiting_bytes: queue.waiting_bytes.clone(), dropped: queue.dropped.clone() };
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            let mut writer = Writer { output, batch: Vec::new(), told: 0, counts, render_dropped };
            // The end of this thread would be the end of the log. What it had in hand is dropped with a panic.
            while catch_unwind(AssertUnwindSafe(|| writer.run(&queued))).is_err() {
                writer.drop_batch();
            }
        })?;
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

/// How much waits, and how many lines were dropped.
#[derive(Debug, Clone)]
struct Counts {
    waiting_bytes: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

/// The thread's side of the queue.
struct Writer<W> {
    output: W,
    /// What is being written.
    batch: Vec<u8>,
    /// Dropped lines that were told of.
    told: u64,
    counts: Counts,
    render_dropped: fn(u64) -> String,
}

impl<W: Write> Writer<W> {
    /// Writes until the queue's entrance is gone.
    fn run(&mut self, queued: &Receiver<Entry>) {
        while let Ok(first) = queued.recv() {
            let mut flushed = Vec::new();
            let mut next = Some(first);
            while let Some(entry) = next {
                match entry {
                    Entry::Line(line) => self.batch.extend_from_slice(&line),
                    Entry::Flush(done) => flushed.push(done),
                }
                next = if self.batch.len() < BATCH_BYTES { queued.try_recv().ok() } else { None };
            }
            // An output that fails cannot be told so anywhere.
            let _ = self.output.write_all(&self.batch).and_then(|()| self.output.flush());
            self.counts.waiting_bytes.fetch_sub(self.batch.len(), Ordering::Relaxed);
            self.batch.clear();
            let sum = self.counts.dropped.load(Ordering::Relaxed);
            if sum > self.told {
                let told = std::mem::replace(&mut self.told, sum);
                let _ = self.output.write_all((self.render_dropped)(sum - told).as_bytes());
            }
            for done in flushed {
                // Whoever waited may have lost patience.
                let _ = done.send(());
            }
        }
    }

    /// Gives up what was being written.
    fn drop_batch(&mut self) {
        self.counts.waiting_bytes.fetch_sub(self.batch.len(), Ordering::Relaxed);
        let lines = self.batch.iter().filter(|octet| **octet == b'\n').count();
        self.counts.dropped.fetch_add(lines as u64, Ordering::Relaxed);
        self.batch.clear();
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
    fn an_output_that_panics_costs_the_lines_in_hand_and_those_that_follow_are_written_and_have_room() {
        struct Trap(Gated);
        impl Write for Trap {
            fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
                assert!(!octets.starts_with(b"trap"), "as the test ordered");
                self.0.write(octets)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (opener, gate) = bounded::<()>(0);
        drop(opener);
        let (output, dropped) = (Gated { gate, written: Arc::default() }, Arc::new(AtomicU64::new(0)));
        let render = |count| format!("dropped {count}\n");
        let mut queue = LogQueue::start(Trap(output.clone()), dropped.clone(), render).expect("a thread");
        queue.write_all(b"trap\n").expect("never fails");
        // Whoever waits for what is lost is told so, or finds nothing left to wait for.
        let _ = queue.flush(Duration::from_secs(60));
        queue.write_all(b"after\n").expect("never fails");
        while !queue.flush(Duration::from_secs(60)) {}
        assert_eq!(text(&output), "after\ndropped 1\n");
        assert_eq!(queue.waiting_bytes.load(Ordering::Relaxed), 0);
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
