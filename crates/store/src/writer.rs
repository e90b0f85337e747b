//! The one thread that writes: jobs come in by a queue, are gathered into groups, and answered in their order.
//!
//! Knows nothing of the engine: a group of rows goes to a closure that writes it whole or not at all. Rows that are to be
//! kept and could not be written stay here, and are tried again until the disk takes them.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, after, bounded};
use parking_lot::Mutex;

use crate::{Reply, Row, StoreError, kept_rows::KeptRows, redb_file::panic_text, row::octets};

/// What the queue carries.
pub(crate) enum Job {
    /// Rows that go together, who hears of them, and why they are not even tried. Rows to be kept are tried until they are
    /// written.
    Commit { rows: Vec<Row>, token: u64, reply: Reply, refused: Option<StoreError>, is_kept: bool },
    /// Ends the gathering; told when all before it is answered.
    Flush(Sender<Result<(), StoreError>>),
}

/// When a group is full, and how many rows are kept for a disk that is back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gathering {
    /// Rows in a group; a single commit may be larger.
    pub(crate) rows: usize,
    /// Octets in a group, likewise.
    pub(crate) octets: usize,
    /// How long the first commit of a group waits for others.
    pub(crate) span: Duration,
    /// Rows that are kept at most.
    pub(crate) kept_rows: usize,
}

/// Counters of the writer, read from any thread.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) waiting_rows: AtomicUsize,
    /// Octets of the rows that wait in the queue or are being written.
    pub(crate) waiting_octets: AtomicUsize,
    pub(crate) groups: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) failures: AtomicU64,
    /// Rows that wait for the disk to be back.
    pub(crate) kept_rows: AtomicUsize,
    /// And their octets.
    pub(crate) kept_octets: AtomicUsize,
    /// Rows that were to be kept and found no room.
    pub(crate) lost_rows: AtomicU64,
    /// The write that is going on, counted from 1; 0 while there is none.
    pub(crate) writing: AtomicU64,
    /// Why the last write failed, until one succeeds.
    pub(crate) failure: Mutex<Option<StoreError>>,
}

impl Counters {
    /// Octets that wait, in the queue or for the disk to be back.
    pub(crate) fn held_octets(&self) -> usize {
        self.waiting_octets.load(Ordering::Relaxed) + self.kept_octets.load(Ordering::Relaxed)
    }

    fn note_kept(&self, kept: &KeptRows) {
        self.kept_rows.store(kept.len(), Ordering::Relaxed);
        self.kept_octets.store(kept.octets(), Ordering::Relaxed);
    }
}

/// How often rows that were kept are tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Runs until every sender of `jobs` is gone and the queue is empty.
///
/// `write` gets the rows of a group in the order of their commits and makes them durable, all or none. `late` has rows that
/// are newer than all in the queue.
pub(crate) fn run(
    jobs: &Receiver<Job>,
    gathering: Gathering,
    counters: &Arc<Counters>,
    late: &Mutex<KeptRows>,
    write: impl FnMut(Vec<Row>) -> Result<(), StoreError>,
) {
    let mut writer =
        Writer { gathering, counters: counters.clone(), kept: KeptRows::default(), writes: 0, write };
    loop {
        let first = if writer.kept.is_empty() && late.lock().is_empty() {
            match jobs.recv() {
                Ok(job) => Some(job),
                Err(_) => break,
            }
        } else {
            match jobs.recv_timeout(RETRY_EVERY) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        };
        writer.turn(first, jobs, late);
    }
    writer.take_late(jobs, late);
    if writer.write_kept().is_err() {
        tracing::error!(rows = writer.kept.len(), "rows could not be stored before the end");
    }
}

struct Writer<W> {
    gathering: Gathering,
    counters: Arc<Counters>,
    kept: KeptRows,
    writes: u64,
    write: W,
}

impl<W: FnMut(Vec<Row>) -> Result<(), StoreError>> Writer<W> {
    /// One group, and then the rows that were kept, unless the disk has just failed.
    fn turn(&mut self, first: Option<Job>, jobs: &Receiver<Job>, late: &Mutex<KeptRows>) {
        let mut result = Ok(());
        let mut flushed = None;
        if let Some(first) = first {
            let mut group = Group::default();
            group.take(first);
            if !group.must_end(self.gathering) {
                group.gather(jobs, self.gathering);
            }
            let rows = std::mem::take(&mut group.rows);
            self.counters.waiting_rows.fetch_sub(rows.len(), Ordering::Relaxed);
            result = self.write_group(rows, std::mem::take(&mut group.kept));
            self.counters.waiting_octets.fetch_sub(group.octets, Ordering::Relaxed);
            flushed = group.flushed.take();
            group.answer(&result);
        }
        self.take_late(jobs, late);
        if result.is_ok() {
            result = self.write_kept();
        }
        if let Some(done) = flushed {
            // Who asked may have given up waiting.
            let _ = done.send(result);
        }
    }

    /// Writes a group. Of one that fails the rows to be kept stay; what succeeds replaces what was kept under its keys.
    fn write_group(&mut self, rows: Vec<Row>, kept: Vec<Row>) -> Result<(), StoreError> {
        let written: Vec<Vec<u8>> = match self.kept.is_empty() {
            true => Vec::new(),
            false => rows.iter().map(Row::engine_key).collect(),
        };
        let result = self.write(rows);
        match &result {
            Ok(()) => written.iter().for_each(|key| self.kept.remove(key)),
            Err(_) => {
                // Their octets had room in the queue.
                let lost = self.kept.keep(kept, self.gathering.kept_rows, usize::MAX);
                self.counters.lost_rows.fetch_add(lost, Ordering::Relaxed);
            }
        }
        self.counters.note_kept(&self.kept);
        result
    }

    /// Takes rows that found no place in the queue, once all before them are out of it.
    fn take_late(&mut self, jobs: &Receiver<Job>, late: &Mutex<KeptRows>) {
        let mut late = late.lock();
        if !late.is_empty() && jobs.is_empty() {
            self.kept.append(&mut late);
            self.counters.note_kept(&self.kept);
        }
    }

    /// Tries what was kept, in groups; the first that fails ends it.
    fn write_kept(&mut self) -> Result<(), StoreError> {
        while !self.kept.is_empty() {
            let rows = self.kept.first(self.gathering.rows, self.gathering.octets);
            let count = rows.len();
            self.write(rows)?;
            self.kept.remove_first(count);
            self.counters.note_kept(&self.kept);
        }
        Ok(())
    }

    fn write(&mut self, rows: Vec<Row>) -> Result<(), StoreError> {
        let count = rows.len();
        self.writes += 1;
        self.counters.writing.store(self.writes, Ordering::Relaxed);
        let write = &mut self.write;
        let result = catch_unwind(AssertUnwindSafe(|| write(rows))).unwrap_or_else(|panic| {
            Err(StoreError::Damaged { cause: format!("the engine panicked: {}", panic_text(&*panic)) })
        });
        self.counters.writing.store(0, Ordering::Relaxed);
        match &result {
            Ok(()) => {
                self.counters.groups.fetch_add(u64::from(count > 0), Ordering::Relaxed);
                self.counters.rows.fetch_add(count as u64, Ordering::Relaxed);
            }
            Err(error) => {
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%error, rows = count, "store commit failed");
            }
        }
        *self.counters.failure.lock() = result.clone().err();
        result
    }
}

/// Commits that become durable together.
#[derive(Default)]
struct Group {
    rows: Vec<Row>,
    /// Octets of [`Group::rows`].
    octets: usize,
    /// Those of [`Group::rows`] that are to be kept if they fail.
    kept: Vec<Row>,
    answers: Vec<(u64, Reply, Option<StoreError>)>,
    flushed: Option<Sender<Result<(), StoreError>>>,
}

impl Group {
    fn take(&mut self, job: Job) {
        match job {
            Job::Commit { mut rows, token, reply, refused, is_kept } => {
                if is_kept {
                    self.kept.extend(rows.iter().cloned());
                }
                self.octets += octets(&rows);
                self.rows.append(&mut rows);
                self.answers.push((token, reply, refused));
            }
            Job::Flush(done) => self.flushed = Some(done),
        }
    }

    fn must_end(&self, gathering: Gathering) -> bool {
        self.flushed.is_some() || self.rows.len() >= gathering.rows || self.octets >= gathering.octets
    }

    /// Takes more jobs until the group is full, its time is over, or there can be no more.
    fn gather(&mut self, jobs: &Receiver<Job>, gathering: Gathering) {
        let over = after(gathering.span);
        while !self.must_end(gathering) {
            crossbeam::channel::select! {
                recv(jobs) -> job => match job {
                    Ok(job) => self.take(job),
                    Err(_) => return,
                },
                recv(over) -> _ => return,
            }
        }
    }

    fn answer(self, result: &Result<(), StoreError>) {
        for (token, reply, refused) in self.answers {
            let fate = refused.map_or_else(|| result.clone(), Err);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| reply(token, fate))) {
                tracing::error!(error = panic_text(&*panic), token, "a reply of the store panicked");
            }
        }
    }
}

/// A flush and where its answer comes.
pub(crate) fn flush_job() -> (Job, Receiver<Result<(), StoreError>>) {
    let (done, answer) = bounded(1);
    (Job::Flush(done), answer)
}

/// Sorts rows by engine key; of equal keys only the last one handed in stays.
pub(crate) fn sorted(rows: Vec<Row>) -> Vec<(Vec<u8>, Row)> {
    let mut keyed: Vec<(Vec<u8>, Row)> = rows.into_iter().map(|row| (row.engine_key(), row)).collect();
    // Stable, so equal keys keep the order in which they were handed in; reversed, so that the last comes first.
    keyed.reverse();
    keyed.sort_by(|one, other| one.0.cmp(&other.0));
    keyed.dedup_by(|later, kept| later.0 == kept.0);
    keyed
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATHERING: Gathering =
        Gathering { rows: 10, octets: 1 << 20, span: Duration::from_secs(60), kept_rows: 100 };

    fn row(key: &str, value: &str) -> Row {
        Row::put(1, 1, key.as_bytes(), value.as_bytes().to_vec())
    }

    #[test]
    fn of_equal_keys_the_last_one_stays() {
        let rows = sorted(vec![
            row("b", "1"),
            row("a", "2"),
            row("b", "3"),
            Row::delete(1, 1, *b"a"),
            row("b", "4"),
        ]);
        let values: Vec<Option<&[u8]>> = rows.iter().map(|(_, row)| row.value.as_deref()).collect();
        assert_eq!(values, [None, Some(&b"4"[..])]);
    }

    /// Runs the writer over jobs that are all queued already; gives the sizes of the groups and the answers.
    fn run_over(
        commits: Vec<(u64, usize, Option<StoreError>)>,
        mut write: impl FnMut(usize) -> Result<(), StoreError>,
    ) -> (Vec<usize>, Vec<(u64, bool)>) {
        let (sender, jobs) = bounded(commits.len());
        let answers = Arc::new(Mutex::new(Vec::new()));
        for (token, count, refused) in commits {
            let rows = (0..count).map(|n| row(&format!("{token}-{n}"), "v")).collect();
            let heard = answers.clone();
            let reply: Reply = Box::new(move |token, fate| heard.lock().push((token, fate.is_ok())));
            let job = Job::Commit { rows, token, reply, refused, is_kept: false };
            sender.send(job).expect("the receiver lives");
        }
        drop(sender);
        let mut groups = Vec::new();
        run(&jobs, GATHERING, &Arc::default(), &Mutex::default(), |rows| {
            groups.push(rows.len());
            write(groups.len())
        });
        let answers = answers.lock().clone();
        (groups, answers)
    }

    #[test]
    fn what_waits_goes_as_groups_of_the_row_limit() {
        let commits = (1..=25).map(|token| (token, 1, None)).collect();
        let (groups, answers) = run_over(commits, |_| Ok(()));
        assert_eq!(groups, [10, 10, 5]);
        assert_eq!(answers, (1..=25).map(|token| (token, true)).collect::<Vec<_>>());
    }

    #[test]
    fn a_commit_is_never_cut_over_two_groups() {
        let (groups, _) = run_over(vec![(1, 9, None), (2, 30, None), (3, 1, None)], |_| Ok(()));
        assert_eq!(groups, [39, 1]);
    }

    #[test]
    fn a_group_is_bounded_in_octets_too() {
        let (sender, jobs) = bounded(10);
        for token in 0..10 {
            let rows = vec![row(&token.to_string(), &"v".repeat(1000))];
            let job = Job::Commit { rows, token, reply: Box::new(|_, _| {}), refused: None, is_kept: false };
            sender.send(job).expect("the receiver lives");
        }
        drop(sender);
        let mut groups = Vec::new();
        let gathering = Gathering { octets: 3000, ..GATHERING };
        run(&jobs, gathering, &Arc::default(), &Mutex::default(), |rows| {
            groups.push(rows.len());
            Ok(())
        });
        assert_eq!(groups, [3, 3, 3, 1]);
    }

    #[test]
    fn a_failed_group_fails_each_of_its_commits_in_order_and_no_other() {
        let commits = (1..=25).map(|token| (token, 1, None)).collect();
        let failed = StoreError::Io { cause: "no space left".into() };
        let (_, answers) = run_over(commits, |group| if group == 2 { Err(failed.clone()) } else { Ok(()) });
        let expected: Vec<(u64, bool)> = (1..=25).map(|token| (token, !(11..=20).contains(&token))).collect();
        assert_eq!(answers, expected);
    }

    #[test]
    fn a_refused_commit_is_answered_in_its_turn() {
        let full = StoreError::Overloaded { waiting: 9, limit: 5 };
        let (_, answers) = run_over(vec![(1, 1, None), (2, 0, Some(full)), (3, 1, None)], |_| Ok(()));
        assert_eq!(answers, [(1, true), (2, false), (3, true)]);
    }

    #[test]
    fn a_panic_of_the_engine_is_a_failure_and_not_the_end() {
        let commits = (1..=20).map(|token| (token, 1, None)).collect();
        let (groups, answers) =
            run_over(commits, |group| if group == 1 { panic!("bad page") } else { Ok(()) });
        assert_eq!(groups, [10, 10]);
        assert_eq!(answers, (1..=20).map(|token| (token, token > 10)).collect::<Vec<_>>());
    }

    /// A queue of commits to be kept or not, each of one row; what the writer made durable while `fails` said so for its
    /// numbered writes.
    fn written(
        commits: &[(&str, &str, bool)],
        late: &[(&str, &str)],
        fails: &[usize],
    ) -> (KeptRows, Counters) {
        let (sender, jobs) = bounded(commits.len());
        for (key, value, is_kept) in commits {
            let (rows, reply): (_, Reply) = (vec![row(key, value)], Box::new(|_, _| {}));
            let job = Job::Commit { rows, token: 0, reply, refused: None, is_kept: *is_kept };
            sender.send(job).expect("the receiver lives");
        }
        drop(sender);
        let mut newer = KeptRows::default();
        newer.keep(late.iter().map(|(key, value)| row(key, value)).collect(), usize::MAX, usize::MAX);
        let (counters, mut durable, mut writes) = (Arc::default(), KeptRows::default(), 0);
        let gathering = Gathering { rows: 1, kept_rows: 3, ..GATHERING };
        run(&jobs, gathering, &counters, &Mutex::new(newer), |rows| {
            writes += 1;
            if fails.contains(&writes) {
                return Err(StoreError::Io { cause: "no space left".into() });
            }
            durable.keep(rows, usize::MAX, usize::MAX);
            Ok(())
        });
        (durable, Arc::into_inner(counters).expect("the writer ended"))
    }

    fn values(rows: &KeptRows) -> Vec<String> {
        let value = |row: &Row| String::from_utf8(row.value.clone().expect("a value")).expect("text");
        rows.first(usize::MAX, usize::MAX).iter().map(value).collect()
    }

    #[test]
    fn a_row_to_be_kept_is_written_when_the_disk_is_back_and_a_refused_one_is_not() {
        let (durable, counters) =
            written(&[("a", "a1", true), ("b", "b1", false), ("c", "c1", true)], &[], &[1, 2]);
        assert_eq!(values(&durable), ["a1", "c1"]);
        assert_eq!(counters.kept_rows.into_inner(), 0);
        assert_eq!(*counters.failure.lock(), None, "the last write succeeded");
    }

    #[test]
    fn a_kept_row_never_replaces_a_newer_one_of_its_key() {
        let newer_kept = &[("a", "a1", true), ("a", "a2", true), ("b", "b1", true)];
        assert_eq!(values(&written(newer_kept, &[], &[1, 2]).0), ["a2", "b1"]);
        // The first is kept; the second, which somebody waits for, is written.
        let newer_awaited = &[("a", "a1", true), ("a", "a2", false)];
        assert_eq!(values(&written(newer_awaited, &[], &[1]).0), ["a2"]);
        assert_eq!(values(&written(newer_kept, &[("a", "late")], &[1, 2, 3]).0), ["late", "b1"]);
    }

    #[test]
    fn rows_without_room_are_counted_as_lost() {
        let many: Vec<String> = (0..5).map(|n| n.to_string()).collect();
        let commits: Vec<(&str, &str, bool)> = many.iter().map(|n| (&**n, "v", true)).collect();
        let (durable, counters) = written(&commits, &[], &[1, 2, 3, 4, 5]);
        assert_eq!((durable.len(), counters.lost_rows.into_inner()), (3, 2));
    }
}
