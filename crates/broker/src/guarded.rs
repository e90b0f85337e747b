//! Actors whose machine is built anew after a panic, in place: the actor, its address and its inbox stay, so that nobody
//! has to look for a successor, and what waits in the inbox is kept.
//!
//! The steps: the panic is caught ([`Guarded::guarded`]) and counted; the actor lets go of its machine and answers whoever
//! waits for it ([`Guarded::fall`]); after a backoff it builds another ([`Guarded::rebuild`]) and says that it is back
//! ([`Guarded::is_back`]). While it is down it refuses or keeps what it is told.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{Actor, AsyncContext, Context};
use tombolo_runtime::{PanicWaits, guard};

use crate::{directory::Directory, panics::ActorKind};

/// How an actor recovers from panics of its machine.
#[derive(Debug, Default)]
pub struct Recovery {
    is_down: bool,
    waits: PanicWaits,
}

impl Recovery {
    /// True from a panic until the machine is rebuilt.
    pub fn is_down(&self) -> bool {
        self.is_down
    }
}

/// An actor around a machine that can be built anew. See the [module](self).
pub trait Guarded: Actor<Context = Context<Self>> {
    /// What it is.
    const KIND: ActorKind;

    /// What all actors share.
    fn directory(&self) -> &Arc<Directory>;

    /// How it recovers.
    fn recovery(&mut self) -> &mut Recovery;

    /// The machine panicked: reads from it, guarded, who waits for it, and answers them. The machine is not used again.
    fn fall(&mut self, ctx: &mut Context<Self>);

    /// Builds the machine anew, at once or by a message to itself, and then calls [`Guarded::is_back`].
    fn rebuild(&mut self, ctx: &mut Context<Self>);

    /// Runs `work`, which uses the machine. Everything that the runtime calls in the actor goes through here.
    fn guarded(&mut self, ctx: &mut Context<Self>, work: impl FnOnce(&mut Self, &mut Context<Self>)) {
        if let Err(panicked) = guard(|| work(self, ctx)) {
            let now = self.directory().clock.now().instant;
            self.directory().panics.note(Self::KIND, &panicked, now);
            let wait = self.go_down(now);
            if let Err(panicked) = guard(|| self.fall(ctx)) {
                self.directory().panics.note(Self::KIND, &panicked, now);
            }
            ctx.run_later(wait, |actor, ctx| actor.guarded(ctx, Self::rebuild));
        }
    }

    /// The machine could not be rebuilt, without a panic: it is tried again.
    fn rebuild_later(&mut self, ctx: &mut Context<Self>) {
        let now = self.directory().clock.now().instant;
        let wait = self.go_down(now);
        ctx.run_later(wait, |actor, ctx| actor.guarded(ctx, Self::rebuild));
    }

    /// Marks the actor as down; how long to wait before the next try.
    fn go_down(&mut self, now: Instant) -> Duration {
        let recovery = self.recovery();
        let wait = recovery.waits.next(now);
        if !std::mem::replace(&mut recovery.is_down, true) {
            self.directory().panics.went_down(Self::KIND);
        }
        wait
    }

    /// The machine is rebuilt.
    fn is_back(&mut self) {
        if std::mem::take(&mut self.recovery().is_down) {
            tracing::info!(actor = Self::KIND.as_str(), "an actor was rebuilt");
            self.directory().panics.came_back(Self::KIND);
        }
    }
}

/// An input that a machine panicked over: its kind and length can be logged, its content cannot.
#[derive(Debug, Clone, Copy)]
pub struct Suspect {
    /// Such as `presence` or `SUBSCRIBE`.
    pub kind: &'static str,
    /// Octets.
    pub len: usize,
}

impl Suspect {
    /// It was tried again after the machine was rebuilt, and the machine panicked again.
    pub fn log_dropped(self, actor: ActorKind) {
        let Self { kind, len } = self;
        tracing::error!(
            actor = actor.as_str(),
            kind,
            len,
            "an input was dropped: it made its actor panic twice"
        );
    }
}

/// Panics that tests order. Production code has none of it.
#[cfg(test)]
pub mod trap {
    use parking_lot::Mutex;

    /// What to look for, and how often to panic over it.
    static TRAPS: Mutex<Vec<(String, u32)>> = Mutex::new(Vec::new());

    /// From now on the next `times` inputs that contain `needle` make the machine panic that handles them.
    pub fn set(needle: &str, times: u32) {
        TRAPS.lock().push((needle.to_owned(), times));
    }

    /// Panics when a trap was set for this input.
    pub fn spring(input: &str) {
        let mut traps = TRAPS.lock();
        let found = traps.iter_mut().find(|(needle, times)| *times > 0 && input.contains(needle.as_str()));
        let is_due = found.map(|(_, times)| *times -= 1).is_some();
        drop(traps);
        assert!(!is_due, "a test ordered this panic");
    }
}
