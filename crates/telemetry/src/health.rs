//! How the parts of a process are doing: what `/readyz`, `tombolo status` and the metrics say about it.
//!
//! Each component registers its part once with [`Health::part`] and sets its state whenever that changes. Readers take
//! a snapshot. Nothing is logged or decided here.

use std::sync::Arc;

use parking_lot::Mutex;

/// State of one part, and what it means for the process. The worst state of all parts decides what `/readyz` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum PartState {
    /// Works.
    #[default]
    Up,
    /// Something outside this process is missing, such as a partner or a front end. Shown, but the process itself is as
    /// ready as before.
    Noted,
    /// This process works, but not in full. `/readyz` says `degraded` and still answers 200.
    Degraded,
    /// The process cannot do its work. `/readyz` answers 503.
    Unready,
}

impl PartState {
    /// The word that operators read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Noted => "noted",
            Self::Degraded => "degraded",
            Self::Unready => "unready",
        }
    }
}

/// A part as it is at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartReport {
    /// Constant, one word, unique in the process; also the metric's label.
    pub name: &'static str,
    /// Its state.
    pub state: PartState,
    /// One line that says what is wrong and what to do; empty where there is nothing to say. Names no person.
    pub note: String,
}

/// The parts of one process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Health {
    parts: Arc<Mutex<Vec<PartReport>>>,
}

/// Sets the state of one part. Clones set the same part.
#[derive(Debug, Clone)]
pub struct Part {
    name: &'static str,
    health: Health,
}

impl Health {
    /// The part of this name, which is up until it says otherwise. Asked again, it is the same part.
    pub fn part(&self, name: &'static str) -> Part {
        let mut parts = self.parts.lock();
        if !parts.iter().any(|part| part.name == name) {
            parts.push(PartReport { name, state: PartState::Up, note: String::new() });
        }
        Part { name, health: self.clone() }
    }

    /// All parts in the order in which they registered.
    pub fn parts(&self) -> Vec<PartReport> {
        self.parts.lock().clone()
    }

    /// The worst state of any part.
    pub fn worst(&self) -> PartState {
        self.parts.lock().iter().map(|part| part.state).max().unwrap_or_default()
    }
}

impl Part {
    /// Replaces the part's state. Returns the former state, so that a caller can log a change and only a change.
    pub fn set(&self, state: PartState, note: impl Into<String>) -> PartState {
        let mut parts = self.health.parts.lock();
        let Some(part) = parts.iter_mut().find(|part| part.name == self.name) else { return state };
        part.note = note.into();
        std::mem::replace(&mut part.state, state)
    }

    /// The part works again, and there is nothing to say about it.
    pub fn set_up(&self) -> PartState {
        self.set(PartState::Up, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_part_decides_and_a_part_that_recovers_counts_no_more() {
        let health = Health::default();
        assert_eq!(health.worst(), PartState::Up, "a process without parts has nothing to complain about");
        let (store, partners) = (health.part("store"), health.part("partners"));
        assert_eq!(partners.set(PartState::Noted, "1 of 3 lost"), PartState::Up);
        assert_eq!(health.worst(), PartState::Noted);
        assert_eq!(store.set(PartState::Unready, "disk full"), PartState::Up);
        assert_eq!(health.worst(), PartState::Unready);
        assert_eq!(store.set_up(), PartState::Unready);
        assert_eq!(health.worst(), PartState::Noted);
        let expected = PartReport { name: "partners", state: PartState::Noted, note: "1 of 3 lost".into() };
        assert_eq!(health.parts()[1], expected);
    }

    #[test]
    fn a_part_that_is_asked_for_twice_is_one_part_and_keeps_its_state() {
        let health = Health::default();
        health.part("store").set(PartState::Degraded, "slow");
        health.clone().part("store");
        assert_eq!(health.parts().len(), 1);
        assert_eq!(health.worst(), PartState::Degraded);
    }
}
