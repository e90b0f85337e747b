//! How much may be on its way to the partner: the octets of a stream that were handed over and that the partner is not
//! yet known to have read.
//!
//! In: what is handed over, where markers stand, and when their pongs came. Out: how much more may be handed over, and
//! whether a marker is wanted behind what was. It writes nothing.
//!
//! Servers limit how fast they read a federated stream (Prosody 30 kB/s, ejabberd 100 kB/s by default). What such a
//! partner has not read stands in buffers, ours, the kernel's and its own, and ages there: a state that has left cannot be
//! replaced by a newer one. So no more leaves than the partner reads in about [`TARGET`], and what else there is to be
//! said waits where only the newest state of each pair is kept.
//!
//! A window bounds what is on its way. It begins small, until the first pong tells that there are any. It grows while
//! something waits for it and pongs come early, by no more than its double at once and only by what was learnt with about
//! as much on its way; it shrinks when pongs come late. How long a pong takes when hardly anything is on its way is the
//! way's own delay, and is not held against the partner.

use std::time::{Duration, Instant};

/// Where a marker stands, and what was on its way when it was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Octets of the stream up to the marker's own end.
    up_to: u64,
    /// Those of them that were not known to be read.
    on_way: usize,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Flight {
    window: usize,
    /// Octets of the stream: handed over, before the last marker, and read by the partner.
    handed: u64,
    marked: u64,
    read: u64,
    /// Octets before the stream was last idle.
    handed_before_idle: u64,
    handed_at: Instant,
    /// Somebody had to wait since the window was last changed.
    is_short: bool,
    /// How long the pong of a marker takes when hardly anything is on its way.
    base_delay: Option<Duration>,
    has_pongs: bool,
}

impl Flight {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            window: UNPROVED_WINDOW,
            handed: 0,
            marked: 0,
            read: 0,
            handed_before_idle: 0,
            handed_at: now,
            is_short: false,
            base_delay: None,
            has_pongs: false,
        }
    }

    /// Something may be about to be handed over: after an idle time, little is known of the partner.
    ///
    /// `is_asking`: a marker is open, so the partner still reads what it was handed.
    pub(super) fn note_idle(&mut self, is_asking: bool, now: Instant) {
        if !is_asking && now.duration_since(self.handed_at) > IDLE {
            self.window = self.window.min(FIRST_WINDOW);
            self.handed_before_idle = self.handed;
        }
    }

    /// So many octets are handed over.
    pub(super) fn hand_over(&mut self, len: usize, now: Instant) {
        self.handed += len as u64;
        self.handed_at = now;
    }

    /// Octets that may still be handed over.
    pub(super) fn room(&self) -> usize {
        self.room_in(self.window)
    }

    /// The same for another window.
    pub(super) fn room_in(&self, window: usize) -> usize {
        window.saturating_sub(self.on_way())
    }

    /// What one grant may be: a marker behind each part of the window lets the next part leave before all is read.
    pub(super) fn part(&self) -> usize {
        self.window / 4
    }

    fn on_way(&self) -> usize {
        usize::try_from(self.handed - self.read).unwrap_or(usize::MAX)
    }

    /// Somebody waits for more room than there is.
    pub(super) fn is_short(&mut self) {
        self.is_short = true;
    }

    /// True when a marker is to be placed: half a window was handed over since the last one, or anything was and
    /// `is_waited_for`.
    pub(super) fn wants_mark(&self, is_waited_for: bool) -> bool {
        let unmarked = self.handed - self.marked;
        unmarked >= self.window as u64 / 2 || is_waited_for && unmarked > 0
    }

    /// The octets that were handed over last are those of a marker.
    pub(super) fn mark(&mut self) -> Mark {
        self.marked = self.handed;
        // What was said before an idle time may have been read long ago: the pong tells nothing of how fast.
        let on_way =
            self.on_way().min(usize::try_from(self.handed - self.handed_before_idle).unwrap_or(usize::MAX));
        Mark { up_to: self.handed, on_way }
    }

    /// The pong of a marker came after so long.
    pub(super) fn handle_pong(&mut self, mark: Mark, took: Duration) {
        self.read = mark.up_to.max(self.read);
        if mark.on_way <= LEAST_WINDOW {
            // One late pong is soon forgotten: its delay may have been the partner's, or ours.
            let before = self.base_delay.get_or_insert(took);
            *before = took.min(*before + (took.saturating_sub(*before)) / 8);
        }
        let base_delay = self.base_delay.unwrap_or_default();
        let is_first = !std::mem::replace(&mut self.has_pongs, true);
        // What was on its way was read in the time that the pong took: so much is read in time.
        let in_time = base_delay + TARGET;
        let speed = in_time.as_secs_f64() / took.as_secs_f64().max(LEAST_TOOK);
        let half = self.window / 2;
        let is_telling = mark.on_way >= half;
        let fair = (mark.on_way.max(half) as f64 * speed) as usize;
        if is_first {
            self.window = fair.clamp(LEAST_WINDOW, FIRST_WINDOW);
        } else if is_telling && (self.is_short || self.window < FREE_WINDOW) {
            // Without anybody waiting, a larger window means fewer markers.
            let most = if self.is_short { MOST_WINDOW } else { FREE_WINDOW };
            self.window = fair.clamp(LEAST_WINDOW, most.min(2 * self.window));
        } else if is_telling || took > in_time {
            self.window = fair.clamp(LEAST_WINDOW, self.window);
        } else {
            return;
        }
        self.is_short = false;
    }
}

/// How long what is handed over may take to be read.
const TARGET: Duration = Duration::from_secs(1);
/// What is on its way at most before the first pong.
const UNPROVED_WINDOW: usize = 8 << 10;
/// What a partner that sends pongs, and about whom nothing else is known, is handed: about a second for the slowest default limit of a server.
const FIRST_WINDOW: usize = 32 << 10;
const LEAST_WINDOW: usize = 4 << 10;
/// What a window grows to by itself while pongs come early.
const FREE_WINDOW: usize = 2 << 20;
/// More than the buffers of a connection hold.
const MOST_WINDOW: usize = 16 << 20;
/// After so long without anything to say, the window is as for a partner about whom nothing is known.
const IDLE: Duration = Duration::from_secs(2);
/// Seconds: pongs are not told apart below it.
const LEAST_TOOK: f64 = 1e-6;
