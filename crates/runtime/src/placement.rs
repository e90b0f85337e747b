//! Where actors run: one arbiter per core, or all on the present one in a test.
//!
//! In: an index (from a hash) and how to make the actor. Out: its address. Beside the arbiters there is a small tokio
//! runtime of helpers for accepting, DNS, handshakes and administration. It restarts nothing.

use std::future::Future;
use std::sync::Arc;

use actix::{Actor, Addr, Arbiter, Context};
use actix_rt::ArbiterHandle;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

/// Threads of the helpers' runtime.
const HELPER_THREADS: usize = 2;

/// How actors are placed; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Placement {
    inner: Arc<Inner>,
}

struct Inner {
    arbiters: Vec<ArbiterHandle>,
    /// Ours to stop and join; empty where everything runs on the present arbiter.
    owned: Mutex<Vec<Arbiter>>,
    helpers: Handle,
    runtime: Mutex<Option<Runtime>>,
}

impl Placement {
    /// Makes `count` arbiters (at least 1), each with its thread, and the helpers' runtime.
    ///
    /// # Panics
    /// Outside the thread of an actix `System`, which arbiters need.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn threads(count: usize) -> std::io::Result<Self> {
        let owned: Vec<Arbiter> = (0..count.max(1)).map(|_| Arbiter::new()).collect();
        let runtime = Builder::new_multi_thread()
            .worker_threads(HELPER_THREADS)
            .thread_name("helper")
            .enable_all()
            .build()?;
        Ok(Self {
            inner: Arc::new(Inner {
                arbiters: owned.iter().map(Arbiter::handle).collect(),
                owned: Mutex::new(owned),
                helpers: runtime.handle().clone(),
                runtime: Mutex::new(Some(runtime)),
            }),
        })
    }

    /// Puts everything on the present arbiter and its runtime, so that one paused clock holds for all.
    ///
    /// # Panics
    /// Outside an actix `System`.
    pub fn single() -> Self {
        Self {
            inner: Arc::new(Inner {
                arbiters: vec![Arbiter::current()],
                owned: Mutex::new(Vec::new()),
                helpers: Handle::current(),
                runtime: Mutex::new(None),
            }),
        }
    }

    /// Number of arbiters, at least 1.
    pub fn count(&self) -> usize {
        self.inner.arbiters.len()
    }

    /// The arbiter for `hash`: below [`count`](Self::count), and always the same for the same hash.
    pub fn by_hash(&self, hash: u64) -> usize {
        usize::try_from(hash % self.count() as u64).expect("below the number of arbiters")
    }

    /// Starts an actor on arbiter `index` (taken modulo their number); `make` runs there.
    ///
    /// After [`stop`](Self::stop) the actor is never made, and what is sent to its address is refused.
    pub fn start_in<A, F>(&self, index: usize, make: F) -> Addr<A>
    where
        A: Actor<Context = Context<A>>,
        F: FnOnce(&mut Context<A>) -> A + Send + 'static,
    {
        A::start_in_arbiter(self.arbiter(index), make)
    }

    /// Runs `work` on the thread of arbiter `index`; `false` if that arbiter has stopped.
    pub fn run_in(&self, index: usize, work: impl FnOnce() + Send + 'static) -> bool {
        self.arbiter(index).spawn_fn(work)
    }

    /// Spawns `future` on arbiter `index`, whose reactor its sockets then belong to; `false` if it has stopped.
    pub fn spawn_in(&self, index: usize, future: impl Future<Output = ()> + Send + 'static) -> bool {
        self.arbiter(index).spawn(future)
    }

    /// The runtime for accepting, DNS, handshakes and administration; the present one where there is only one.
    pub fn helpers(&self) -> Handle {
        self.inner.helpers.clone()
    }

    /// Stops all arbiters that were made here and joins their threads, then lets go the helpers.
    ///
    /// Blocks until running turns have ended; must not be called from one of the arbiters.
    pub fn stop(&self) {
        let owned = std::mem::take(&mut *self.inner.owned.lock());
        for arbiter in &owned {
            arbiter.stop();
        }
        for arbiter in owned {
            // An arbiter whose thread panicked has ended as well.
            let _ = arbiter.join();
        }
        self.inner.stop_helpers();
    }

    fn arbiter(&self, index: usize) -> &ArbiterHandle {
        &self.inner.arbiters[index % self.inner.arbiters.len()]
    }
}

impl Inner {
    fn stop_helpers(&self) {
        if let Some(runtime) = self.runtime.lock().take() {
            // A plain drop would block, and panic where the last owner is a task.
            runtime.shutdown_background();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop_helpers();
    }
}

impl std::fmt::Debug for Placement {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Placement({} arbiters)", self.count())
    }
}

#[cfg(test)]
mod tests {
    use std::thread::{self, ThreadId};
    use std::time::Duration;

    use actix::{Handler, Message, MessageResult, System};

    use super::*;
    use crate::{Clock, Inbox, InboxSender, Wake, inbox};

    struct Where;

    impl Actor for Where {
        type Context = Context<Self>;
    }

    #[derive(Message)]
    #[rtype(result = "ThreadId")]
    struct AskThread;

    impl Handler<AskThread> for Where {
        type Result = MessageResult<AskThread>;

        fn handle(&mut self, _: AskThread, _: &mut Context<Self>) -> Self::Result {
            MessageResult(thread::current().id())
        }
    }

    /// Adds up what its inbox brings, at most two items a turn.
    struct Adder {
        inbox: Inbox<u64>,
        sum: u64,
        turns: u64,
    }

    impl Actor for Adder {
        type Context = Context<Self>;

        fn started(&mut self, ctx: &mut Self::Context) {
            use actix::AsyncContext;
            self.inbox.wake_actor(ctx.address().recipient());
        }
    }

    impl Handler<Wake> for Adder {
        type Result = ();

        fn handle(&mut self, _: Wake, ctx: &mut Context<Self>) {
            use actix::{ActorFutureExt, AsyncContext, WrapFuture};
            self.turns += 1;
            self.sum += std::iter::from_fn(|| self.inbox.pop()).take(2).sum::<u64>();
            if self.inbox.finish_turn() {
                let turn = tokio::task::yield_now().into_actor(self);
                ctx.spawn(turn.map(|(), actor, ctx| actor.handle(Wake, ctx)));
            }
        }
    }

    #[derive(Message)]
    #[rtype(result = "(u64, u64)")]
    struct AskSum;

    impl Handler<AskSum> for Adder {
        type Result = MessageResult<AskSum>;

        fn handle(&mut self, _: AskSum, _: &mut Context<Self>) -> Self::Result {
            MessageResult((self.sum, self.turns))
        }
    }

    #[test]
    fn each_index_has_its_own_thread_and_keeps_it() {
        System::new().block_on(async {
            let placement = Placement::threads(3).unwrap();
            let mut threads = Vec::new();
            for index in 0..6 {
                threads.push(placement.start_in(index, |_| Where).send(AskThread).await.unwrap());
            }
            assert_eq!(threads[..3], threads[3..], "an index past the last begins again");
            assert!(threads[0] != threads[1] && threads[1] != threads[2] && threads[0] != threads[2]);
            assert!(!threads.contains(&thread::current().id()));
            let helper = placement.helpers().spawn(async { thread::current().id() }).await.unwrap();
            assert!(!threads.contains(&helper));
            placement.stop();
            assert!(!placement.run_in(0, || ()));
        });
    }

    #[test]
    fn a_hash_always_names_the_same_arbiter_and_all_arbiters_are_named() {
        System::new().block_on(async {
            let placement = Placement::threads(4).unwrap();
            let mut hits = [0_u32; 4];
            for hash in 0..4096 {
                assert_eq!(placement.by_hash(hash), placement.by_hash(hash));
                hits[placement.by_hash(hash)] += 1;
            }
            assert_eq!(hits, [1024; 4]);
            placement.stop();
        });
    }

    fn paused_system() -> actix_rt::SystemRunner {
        System::with_tokio_rt(|| {
            Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
        })
    }

    #[test]
    fn a_single_placement_runs_all_on_one_thread_under_one_paused_clock() {
        paused_system().block_on(async {
            let placement = Placement::single();
            let clock = Clock::starting_at(Duration::from_secs(5));
            let before = clock.now();
            let actor = placement.start_in(7, |_| Where);
            assert_eq!(actor.send(AskThread).await.unwrap(), thread::current().id());
            let from_helper = placement.clone();
            let address = placement.helpers().spawn(async move { from_helper.start_in(0, |_| Where) });
            assert_eq!(address.await.unwrap().send(AskThread).await.unwrap(), thread::current().id());
            tokio::time::sleep(Duration::from_secs(3600)).await;
            assert_eq!(clock.now(), before.after(Duration::from_secs(3600)));
        });
    }

    #[test]
    fn an_actor_works_off_its_inbox_in_bounded_turns_and_is_woken_again() {
        paused_system().block_on(async {
            let placement = Placement::single();
            let (sender, inbox): (InboxSender<u64>, _) = inbox(64);
            for item in 1..=10 {
                sender.push(item).unwrap();
            }
            let adder = placement.start_in(0, |_| Adder { inbox, sum: 0, turns: 0 });
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(adder.send(AskSum).await.unwrap(), (55, 5));
            sender.push(45).unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(adder.send(AskSum).await.unwrap(), (100, 6));
        });
    }
}
