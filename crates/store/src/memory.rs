//! Rows in memory, for tests and for runs that need not survive: with failures and delays by script.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use tombolo_presence::ClockMark;

use crate::{DamagedRow, Meta, Reply, Row, StateStore, StoreError, StoreState, Visit};

/// Rows that live as long as the process. Clones share them.
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
    run_later: Option<Arc<RunLater>>,
    meta: Meta,
}

/// Runs a closure after a span, on whatever clock the test drives.
pub type RunLater = dyn Fn(Duration, Box<dyn FnOnce() + Send>) + Send + Sync;

/// What happens to a scripted commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Written and answered at once.
    Commit,
    /// Answered at once with this failure; nothing is written.
    Fail(StoreError),
    /// Written and answered only when [`MemoryStore::release`] lets it; until then everything behind it waits too.
    Hold,
    /// Written and answered after a span; everything behind it waits too.
    CommitAfter(Duration),
    /// Answered with this failure after a span; everything behind it waits too.
    FailAfter(Duration, StoreError),
}

#[derive(Default)]
struct Inner {
    rows: BTreeMap<Key, Vec<u8>>,
    /// Rows to be kept whose commit failed: written with the next that succeeds.
    kept: BTreeMap<Key, Option<Vec<u8>>>,
    failed: Option<StoreError>,
    mark: Option<ClockMark>,
    start: u64,
    has_missing: bool,
    script: VecDeque<Outcome>,
    queue: VecDeque<Waiting>,
    next_ticket: u64,
    /// Somebody is answering; whoever comes now leaves it to them, so that order holds.
    is_draining: bool,
    is_closed: bool,
}

/// (partition, table, key).
type Key = (u16, u8, Box<[u8]>);

struct Waiting {
    ticket: u64,
    rows: Vec<Row>,
    token: u64,
    reply: Reply,
    failure: Option<StoreError>,
    is_kept: bool,
    is_ready: bool,
}

impl MemoryStore {
    /// An empty store where every commit succeeds at once.
    pub fn new() -> Self {
        Self::opened(Inner::default(), None)
    }

    /// An empty store that may lack grants that were made before it.
    pub fn incomplete() -> Self {
        Self::opened(Inner { has_missing: true, ..Inner::default() }, None)
    }

    /// An empty store whose script may name spans, waited for by `run_later`.
    pub fn with_delays(
        run_later: impl Fn(Duration, Box<dyn FnOnce() + Send>) + Send + Sync + 'static,
    ) -> Self {
        Self::opened(Inner::default(), Some(Arc::new(run_later)))
    }

    /// What a process finds that opens the store after this one was killed: what was written, and nothing that waited.
    /// This one is closed, and its waiting commits are never answered.
    pub fn killed(&self) -> Self {
        let mut inner = self.inner.lock();
        inner.is_closed = true;
        inner.queue.clear();
        let survived = Inner {
            rows: inner.rows.clone(),
            mark: inner.mark,
            start: inner.start,
            has_missing: inner.has_missing,
            ..Inner::default()
        };
        drop(inner);
        Self::opened(survived, self.run_later.clone())
    }

    fn opened(mut inner: Inner, run_later: Option<Arc<RunLater>>) -> Self {
        inner.start += 1;
        let Inner { start, mark, has_missing, .. } = inner;
        let meta = Meta { start, mark, id: 0, is_complete: !has_missing };
        Self { inner: Arc::new(Mutex::new(inner)), run_later, meta }
    }

    /// Says what happens to the coming commits, one each; those after the script succeed at once.
    ///
    /// Spans need [`MemoryStore::with_delays`]; without it such a commit waits for [`MemoryStore::release`].
    pub fn script(&self, outcomes: impl IntoIterator<Item = Outcome>) {
        self.inner.lock().script.extend(outcomes);
    }

    /// Lets up to `count` waiting commits go, oldest first; gives how many it were.
    pub fn release(&self, count: usize) -> usize {
        let mut released = 0;
        for waiting in self.inner.lock().queue.iter_mut().filter(|waiting| !waiting.is_ready).take(count) {
            waiting.is_ready = true;
            released += 1;
        }
        self.drain();
        released
    }

    /// How many commits wait to be answered.
    pub fn waiting(&self) -> usize {
        self.inner.lock().queue.len()
    }

    /// How many rows there are.
    pub fn row_count(&self) -> usize {
        self.inner.lock().rows.len()
    }

    /// Answers from the front as far as commits are ready.
    fn drain(&self) {
        loop {
            let mut inner = self.inner.lock();
            if inner.is_draining || !inner.queue.front().is_some_and(|waiting| waiting.is_ready) {
                return;
            }
            let Some(next) = inner.queue.pop_front() else { return };
            inner.failed.clone_from(&next.failure);
            let fate = match next.failure {
                Some(failure) => {
                    if next.is_kept {
                        let kept =
                            next.rows.into_iter().map(|row| ((row.partition, row.table, row.key), row.value));
                        inner.kept.extend(kept);
                    }
                    Err(failure)
                }
                None => {
                    let kept = std::mem::take(&mut inner.kept).into_iter();
                    let kept =
                        kept.map(|((partition, table, key), value)| Row { partition, table, key, value });
                    inner.apply(kept.collect());
                    inner.apply(next.rows);
                    Ok(())
                }
            };
            inner.is_draining = true;
            drop(inner);
            // Not under the lock: an answer may commit again.
            (next.reply)(next.token, fate);
            self.inner.lock().is_draining = false;
        }
    }
}

impl Inner {
    fn apply(&mut self, rows: Vec<Row>) {
        for row in rows {
            let key = (row.partition, row.table, row.key);
            match row.value {
                Some(value) => _ = self.rows.insert(key, value),
                None => _ = self.rows.remove(&key),
            }
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    fn submit(&self, rows: Vec<Row>, token: u64, reply: Reply, is_kept: bool) {
        let mut inner = self.inner.lock();
        if inner.is_closed {
            drop(inner);
            return reply(token, Err(StoreError::Closed));
        }
        let (failure, is_ready, span) = match inner.script.pop_front().unwrap_or(Outcome::Commit) {
            Outcome::Commit => (None, true, None),
            Outcome::Fail(failure) => (Some(failure), true, None),
            Outcome::Hold => (None, false, None),
            Outcome::CommitAfter(span) => (None, false, Some(span)),
            Outcome::FailAfter(span, failure) => (Some(failure), false, Some(span)),
        };
        let ticket = inner.next_ticket;
        inner.next_ticket += 1;
        inner.queue.push_back(Waiting { ticket, rows, token, reply, failure, is_kept, is_ready });
        drop(inner);
        if let (Some(span), Some(run_later)) = (span, &self.run_later) {
            let store = self.clone();
            let ready = move || {
                if let Some(waiting) =
                    store.inner.lock().queue.iter_mut().find(|waiting| waiting.ticket == ticket)
                {
                    waiting.is_ready = true;
                }
                store.drain();
            };
            run_later(span, Box::new(ready));
        }
        self.drain();
    }
}

impl StateStore for MemoryStore {
    fn commit(&self, rows: Vec<Row>, token: u64, reply: Reply) {
        self.submit(rows, token, reply, false);
    }

    fn keep(&self, rows: Vec<Row>, token: u64, reply: Reply) {
        self.submit(rows, token, reply, true);
    }

    fn set_damaged_aside(&self) -> Result<Vec<DamagedRow>, StoreError> {
        Ok(Vec::new())
    }

    fn load(
        &self,
        partitions: RangeInclusive<u16>,
        table: u8,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let inner = self.inner.lock();
        if inner.is_closed {
            return Err(StoreError::Closed);
        }
        // Copied, so that the visitor may call the store.
        let empty = || Box::<[u8]>::default();
        let mut found = Vec::new();
        for partition in partitions {
            let from = (partition, table, empty());
            let rows =
                inner.rows.range(from..).take_while(|((at, of, _), _)| (*at, *of) == (partition, table));
            found.extend(rows.map(|((_, _, key), value)| (partition, key.clone(), value.clone())));
        }
        drop(inner);
        for (partition, key, value) in &found {
            visit(*partition, key, value);
        }
        Ok(())
    }

    fn meta(&self) -> Meta {
        self.meta
    }

    fn note_missing(&self) {
        self.inner.lock().has_missing = true;
    }

    fn mark_clock(&self, mark: ClockMark) {
        self.inner.lock().mark = Some(mark);
    }

    fn state(&self) -> StoreState {
        let inner = self.inner.lock();
        StoreState { failure: inner.failed.clone(), kept_rows: inner.kept.len(), ..StoreState::default() }
    }

    /// Lets everything go that waits.
    fn flush(&self) -> Result<(), StoreError> {
        if self.inner.lock().is_closed {
            return Err(StoreError::Closed);
        }
        self.release(usize::MAX);
        Ok(())
    }

    fn shutdown(&self) -> Result<(), StoreError> {
        if self.inner.lock().is_closed {
            return Ok(());
        }
        self.release(usize::MAX);
        self.inner.lock().is_closed = true;
        Ok(())
    }
}
