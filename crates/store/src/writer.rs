//! The one thread that writes: jobs come in by a queue, are gathered into groups, and answered in their order.
//!
//! Knows nothing of the engine: a group of rows goes to a closure that writes it whole or not at all.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crossbeam::channel::{Receiver, Sender, after, bounded};

use crate::{Reply, Row, StoreError};

/// What the queue carries.
pub(crate) enum Job {
    /// Rows that go together, who hears of them, and why they are not even tried.
    Commit { rows: Vec<Row>, token: u64, reply: Reply, refused: Option<StoreError> },
    /// Ends the gathering; told when all before it is answered.
    Flush(Sender<Result<(), StoreError>>),
}

/// When a group is full.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gathering {
    /// Rows in a group; a single commit may be larger.
    pub(crate) rows: usize,
    /// How long the first commit of a group waits for others.
    pub(crate) span: Duration,
}

/// Counters of the writer, read from any thread.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) waiting_rows: AtomicUsize,
    pub(crate) groups: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) failures: AtomicU64,
}

/// Runs until every sender of `jobs` is gone and the queue is empty.
///
/// `write` gets the rows of a group in the order of their commits and makes them durable, all or none.
pub(crate) fn run(
    jobs: &Receiver<Job>,
    gathering: Gathering,
    counters: &Arc<Counters>,
    mut write: impl FnMut(Vec<Row>) -> Result<(), StoreError>,
) {
    while let Ok(first) = jobs.recv() {
        let mut group = Group::default();
        group.take(first);
        if !group.must_end(gathering) {
            group.gather(jobs, gathering);
        }
        let rows = std::mem::take(&mut group.rows);
        let count = rows.len();
        let result = catch_unwind(AssertUnwindSafe(|| write(rows))).unwrap_or_else(|panic| {
            Err(StoreError::Damaged { cause: format!("the engine panicked: {}", panic_text(&*panic)) })
        });
        counters.waiting_rows.fetch_sub(count, Ordering::Relaxed);
        match &result {
            Ok(()) => {
                counters.groups.fetch_add(u64::from(count > 0), Ordering::Relaxed);
                counters.rows.fetch_add(count as u64, Ordering::Relaxed);
            }
            Err(error) => {
                counters.failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, rows = count, "store commit failed");
            }
        }
        group.answer(&result);
    }
}

/// Commits that become durable together.
#[derive(Default)]
struct Group {
    rows: Vec<Row>,
    answers: Vec<(u64, Reply, Option<StoreError>)>,
    flushed: Option<Sender<Result<(), StoreError>>>,
}

impl Group {
    fn take(&mut self, job: Job) {
        match job {
            Job::Commit { mut rows, token, reply, refused } => {
                self.rows.append(&mut rows);
                self.answers.push((token, reply, refused));
            }
            Job::Flush(done) => self.flushed = Some(done),
        }
    }

    fn must_end(&self, gathering: Gathering) -> bool {
        self.flushed.is_some() || self.rows.len() >= gathering.rows
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
        if let Some(done) = self.flushed {
            // Who asked may have given up waiting.
            let _ = done.send(result.clone());
        }
    }
}

/// A flush and where its answer comes.
pub(crate) fn flush_job() -> (Job, Receiver<Result<(), StoreError>>) {
    let (done, answer) = bounded(1);
    (Job::Flush(done), answer)
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
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
    use parking_lot::Mutex;

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
            sender.send(Job::Commit { rows, token, reply, refused }).expect("the receiver lives");
        }
        drop(sender);
        let mut groups = Vec::new();
        let gathering = Gathering { rows: 10, span: Duration::from_secs(60) };
        run(&jobs, gathering, &Arc::default(), |rows| {
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
}
