//! Panics of actors: each is counted and logged, what is being rebuilt shows in the process's health, and panics that do
//! not stop end the process, so that its supervisor starts it anew.
//!
//! Only panics in the machines of shards, sessions, peers and users count toward that end. Anybody can send octets to a
//! connection, a socket or the guests, so a panic there costs that input and is counted, but never ends the process.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::watch;
use tombolo_runtime::Panicked;
use tombolo_telemetry::{Metrics, Part, PartState};

/// An actor that owns state and is rebuilt after a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActorKind {
    /// One shard.
    Shard,
    /// A federated session.
    Session,
    /// A SIP peer.
    Peer,
    /// A user of a built-in home.
    User,
}

impl ActorKind {
    const ALL: [Self; 4] = [Self::Shard, Self::Session, Self::Peer, Self::User];

    /// As operators read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shard => "shard",
            Self::Session => "session",
            Self::Peer => "peer",
            Self::User => "user",
        }
    }
}

/// See the [module](self).
pub struct Panics {
    metrics: Arc<Metrics>,
    part: Part,
    state: Mutex<State>,
    end: watch::Sender<Option<String>>,
}

#[derive(Default)]
struct State {
    /// When actors panicked lately.
    recent: VecDeque<Instant>,
    /// How many of each kind are being rebuilt, in the order of [`ActorKind::ALL`].
    down: [usize; 4],
}

impl Panics {
    /// None so far.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let part = metrics.health().part("actors");
        Self { metrics, part, state: Mutex::default(), end: watch::Sender::new(None) }
    }

    /// The machine of an actor panicked and will be rebuilt. More than [`MAX_PANICS`] within [`WINDOW`] end the process.
    pub fn note(&self, kind: ActorKind, panicked: &Panicked, now: Instant) {
        self.metrics.panicked();
        tracing::error!(actor = kind.as_str(), error = %panicked, "an actor panicked and is rebuilt");
        let mut state = self.state.lock();
        state.recent.push_back(now);
        while state.recent.pop_front_if(|at| *at + WINDOW <= now).is_some() {}
        if state.recent.len() > MAX_PANICS {
            let count = state.recent.len();
            drop(state);
            let seconds = WINDOW.as_secs();
            self.end(format!(
                "actors panicked {count} times within {seconds} s, the last one a {}",
                kind.as_str()
            ));
        }
    }

    /// A panic over an input that anybody can send; nothing but the input is lost.
    pub fn note_harmless(&self, place: &'static str, panicked: &Panicked) {
        self.metrics.panicked();
        tracing::error!(place, error = %panicked, "an input was dropped: handling it panicked");
    }

    /// The process cannot go on.
    pub fn end(&self, cause: String) {
        self.end.send_if_modified(|end| end.is_none() && end.replace(cause).is_none());
    }

    /// Waits for the cause for which the process must end.
    pub fn ended(&self) -> impl Future<Output = String> + Send + 'static {
        let mut end = self.end.subscribe();
        async move {
            let ended = end.wait_for(Option::is_some).await.ok().and_then(|cause| cause.clone());
            match ended {
                Some(cause) => cause,
                // Nobody is left who could panic.
                None => std::future::pending().await,
            }
        }
    }

    /// An actor is out of service until [`Panics::came_back`].
    pub fn went_down(&self, kind: ActorKind) {
        self.count(kind, |down| *down += 1);
    }

    /// An actor was rebuilt, or is gone for good.
    pub fn came_back(&self, kind: ActorKind) {
        self.count(kind, |down| *down = down.saturating_sub(1));
    }

    fn count(&self, kind: ActorKind, change: impl FnOnce(&mut usize)) {
        // Held while the part is set, so that the last change is the one that shows.
        let mut state = self.state.lock();
        change(&mut state.down[kind as usize]);
        let down = ActorKind::ALL.iter().zip(state.down).filter(|(_, count)| *count > 0);
        let down: Vec<String> = down.map(|(kind, count)| format!("{count} {}", kind.as_str())).collect();
        if down.is_empty() {
            self.part.set_up();
        } else {
            self.part.set(PartState::Degraded, format!("being rebuilt after a panic: {}", down.join(", ")));
        }
    }
}

/// So many panics of actors are borne within [`WINDOW`].
const MAX_PANICS: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn panicked() -> Panicked {
        Panicked { message: "a bug".into() }
    }

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        Instant::now()
    }

    fn cause(panics: &Panics) -> Option<String> {
        panics.end.borrow().clone()
    }

    #[test]
    fn five_panics_of_actors_in_a_minute_are_borne_and_the_sixth_ends_the_process_with_a_cause() {
        let (metrics, start) = (Arc::new(Metrics::new(1)), start());
        let panics = Panics::new(metrics.clone());
        for n in 0..5 {
            panics.note(ActorKind::Shard, &panicked(), start + Duration::from_secs(n * 10));
        }
        assert_eq!(cause(&panics), None);
        // The first one is a minute old by now.
        panics.note(ActorKind::Shard, &panicked(), start + Duration::from_secs(60));
        assert_eq!(cause(&panics), None);
        panics.note(ActorKind::Session, &panicked(), start + Duration::from_secs(61));
        let cause = cause(&panics).expect("six in a minute");
        assert!(cause.contains("6 times within 60 s") && cause.contains("session"), "{cause}");
        assert!(metrics.render().contains("tombolo_panics_total 7\n"));
    }

    #[test]
    fn panics_over_what_strangers_send_are_counted_and_never_end_the_process() {
        let metrics = Arc::new(Metrics::new(1));
        let panics = Panics::new(metrics.clone());
        for _ in 0..100 {
            panics.note_harmless("guests", &panicked());
        }
        assert_eq!(cause(&panics), None);
        assert!(metrics.render().contains("tombolo_panics_total 100\n"));
    }

    #[test]
    fn the_process_is_degraded_until_every_actor_is_rebuilt() {
        let metrics = Arc::new(Metrics::new(1));
        let panics = Panics::new(metrics.clone());
        panics.went_down(ActorKind::Session);
        panics.went_down(ActorKind::Session);
        panics.went_down(ActorKind::Shard);
        panics.came_back(ActorKind::Shard);
        let note = metrics.health().parts()[0].note.clone();
        assert!(note.ends_with("2 session"), "{note}");
        assert_eq!(metrics.health().worst(), PartState::Degraded);
        panics.came_back(ActorKind::Session);
        panics.came_back(ActorKind::Session);
        assert_eq!(metrics.health().worst(), PartState::Up);
    }
}
