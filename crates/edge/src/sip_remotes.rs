//! The remote addresses of one UDP socket, each a flow while it is heard of.
//!
//! Addresses, flows and time go in; flows that have ended come out. It sends and receives nothing.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{DialId, FlowFacts, FlowId};

/// The remote addresses of one socket.
pub(crate) struct Remotes {
    /// Strangers choose the keys, so the hash is the keyed one of std.
    known: HashMap<SocketAddr, Known>,
    /// Those from whom nobody proved himself. Anybody can forge as many as he likes, so they push out each other alone.
    strangers: Queue,
    /// Those from whom somebody did. Who was dialled is in neither and stays.
    bound: Queue,
    next_turn: u64,
}

/// Who was not heard of for longest comes first.
struct Queue {
    most: usize,
    by_turn: BTreeMap<u64, SocketAddr>,
}

struct Known {
    facts: Arc<FlowFacts>,
    heard: Instant,
    place: Place,
}

/// Where an address stands, with its turn.
#[derive(Clone, Copy)]
enum Place {
    Stranger(u64),
    Bound(u64),
    Dialled,
}

impl Remotes {
    /// Nobody yet; at most so many strangers, and so many that are bound.
    pub(crate) fn new(most_strangers: usize, most_bound: usize) -> Self {
        let queue = |most| Queue { most, by_turn: BTreeMap::new() };
        Self {
            known: HashMap::new(),
            strangers: queue(most_strangers),
            bound: queue(most_bound),
            next_turn: 0,
        }
    }

    /// The flow of an address that something came from now.
    pub(crate) fn heard_of(&mut self, remote: SocketAddr, now: Instant) -> Option<&Arc<FlowFacts>> {
        let known = self.known.get_mut(&remote)?;
        known.heard = now;
        let queue = match known.place {
            Place::Stranger(_) => Some(&mut self.strangers),
            Place::Bound(_) => Some(&mut self.bound),
            Place::Dialled => None,
        };
        if let (Some(queue), Place::Stranger(turn) | Place::Bound(turn)) = (queue, &mut known.place) {
            queue.by_turn.remove(turn);
            *turn = self.next_turn;
            queue.by_turn.insert(*turn, remote);
            self.next_turn += 1;
        }
        Some(&known.facts)
    }

    /// The flow of an address that is dialled, if there is one: from now on it stays, and names this dial.
    pub(crate) fn keep(&mut self, remote: SocketAddr, dial: DialId) -> Option<Arc<FlowFacts>> {
        let known = self.known.get_mut(&remote)?;
        known.facts = Arc::new(FlowFacts { dial: Some(dial), ..(*known.facts).clone() });
        let (facts, place) = (known.facts.clone(), std::mem::replace(&mut known.place, Place::Dialled));
        self.leave(place);
        Some(facts)
    }

    /// The flow of an address is somebody's from now on. What ends by that where there is no more room: the bound one
    /// that was not heard of for longest. An error when the address has no such flow.
    pub(crate) fn bind(
        &mut self,
        remote: SocketAddr,
        flow: FlowId,
        now: Instant,
    ) -> Result<Option<Arc<FlowFacts>>, ()> {
        let known = self.known.get_mut(&remote).filter(|known| known.facts.flow == flow).ok_or(())?;
        let Place::Stranger(turn) = known.place else { return Ok(None) };
        known.heard = now;
        known.place = Place::Bound(self.next_turn);
        self.strangers.by_turn.remove(&turn);
        let silent = (self.bound.by_turn.len() >= self.bound.most)
            .then(|| self.bound.by_turn.first_key_value().map(|(_, remote)| *remote))
            .flatten();
        let silent = silent.and_then(|remote| self.forget(remote));
        self.bound.by_turn.insert(self.next_turn, remote);
        self.next_turn += 1;
        Ok(silent)
    }

    /// Takes a new flow to an address that has none. What ends by that where there is no more room: the stranger that was
    /// not heard of for longest.
    pub(crate) fn insert(
        &mut self,
        remote: SocketAddr,
        facts: Arc<FlowFacts>,
        now: Instant,
    ) -> Option<Arc<FlowFacts>> {
        let mut silent = None;
        let place = if facts.dial.is_some() {
            Place::Dialled
        } else {
            if self.strangers.by_turn.len() >= self.strangers.most {
                let (_, remote) = self.strangers.by_turn.pop_first().unzip();
                silent = remote.and_then(|remote| self.known.remove(&remote));
            }
            self.strangers.by_turn.insert(self.next_turn, remote);
            self.next_turn += 1;
            Place::Stranger(self.next_turn - 1)
        };
        self.known.insert(remote, Known { facts, heard: now, place });
        silent.map(|known| known.facts)
    }

    /// Ends the flow to an address.
    pub(crate) fn forget(&mut self, remote: SocketAddr) -> Option<Arc<FlowFacts>> {
        let known = self.known.remove(&remote)?;
        self.leave(known.place);
        Some(known.facts)
    }

    fn leave(&mut self, place: Place) {
        match place {
            Place::Stranger(turn) => self.strangers.by_turn.remove(&turn),
            Place::Bound(turn) => self.bound.by_turn.remove(&turn),
            Place::Dialled => None,
        };
    }

    /// A flow that was not heard of for [`SILENCE`], or a stranger's for [`STRANGERS_SILENCE`], and has ended by that;
    /// call until there is none.
    pub(crate) fn poll_silent(&mut self, now: Instant) -> Option<Arc<FlowFacts>> {
        let queues = [(&self.strangers, STRANGERS_SILENCE), (&self.bound, SILENCE)];
        let silent = queues.into_iter().find_map(|(queue, silence)| {
            let (_, &remote) = queue.by_turn.first_key_value()?;
            let heard = self.known.get(&remote)?.heard;
            (now.saturating_duration_since(heard) >= silence).then_some(remote)
        });
        self.forget(silent?)
    }
}

/// Longer than a phone's binding may last, so that a phone which only registers is still met when it is called.
pub(crate) const SILENCE: Duration = Duration::from_secs(65 * 60);
/// As long as a transaction: a stranger is told of its challenge, and nobody asks it anything.
pub(crate) const STRANGERS_SILENCE: Duration = Duration::from_secs(32);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Transport;

    const NOBODY: [u64; 0] = [];

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn flow(port: u16, dial: Option<u64>) -> Arc<FlowFacts> {
        Arc::new(FlowFacts {
            flow: FlowId(port.into()),
            transport: Transport::Udp,
            local: at(5060),
            remote: at(port),
            sent_by: "192.0.2.1:5060".into(),
            dial: dial.map(DialId),
            has_alternatives: false,
            proved_domains: Arc::from([]),
        })
    }

    fn ids(ended: impl IntoIterator<Item = Option<Arc<FlowFacts>>>) -> Vec<u64> {
        ended.into_iter().flatten().map(|facts| facts.flow.0).collect()
    }

    fn silent(remotes: &mut Remotes, now: Instant) -> Vec<u64> {
        ids(std::iter::from_fn(|| remotes.poll_silent(now)).map(Some))
    }

    #[allow(clippy::disallowed_methods, reason = "an origin to add to")]
    fn origin() -> Instant {
        Instant::now()
    }

    #[test]
    fn without_room_the_one_that_was_silent_for_longest_gives_way() {
        let now = origin();
        let mut remotes = Remotes::new(2, 9);
        for port in [1, 2] {
            assert_eq!(ids([remotes.insert(at(port), flow(port, None), now)]), NOBODY);
        }
        assert!(remotes.heard_of(at(1), now).is_some());
        assert_eq!(ids([remotes.insert(at(3), flow(3, None), now)]), [2]);
        assert!(remotes.heard_of(at(2), now).is_none());
        assert!(remotes.heard_of(at(1), now).is_some() && remotes.heard_of(at(3), now).is_some());
    }

    #[test]
    fn silence_ends_a_flow_unless_it_was_dialled() {
        let now = origin();
        let mut remotes = Remotes::new(9, 9);
        remotes.insert(at(1), flow(1, None), now);
        remotes.insert(at(2), flow(2, None), now);
        remotes.insert(at(3), flow(3, Some(7)), now);
        for port in [1, 2] {
            assert!(matches!(remotes.bind(at(port), FlowId(port.into()), now), Ok(None)));
        }
        let later = now + SILENCE - Duration::from_secs(1);
        assert!(remotes.heard_of(at(1), later).is_some());
        assert_eq!(silent(&mut remotes, later), NOBODY);
        assert_eq!(silent(&mut remotes, now + SILENCE), [2]);
        assert_eq!(silent(&mut remotes, later + SILENCE), [1]);
        assert!(remotes.heard_of(at(3), later + SILENCE * 9).is_some());
    }

    #[test]
    fn a_dial_to_a_known_address_keeps_its_flow_from_then_on() {
        let now = origin();
        let mut remotes = Remotes::new(1, 1);
        assert!(remotes.keep(at(1), DialId(7)).is_none());
        remotes.insert(at(1), flow(1, None), now);
        let kept = remotes.keep(at(1), DialId(7)).expect("known");
        assert_eq!((kept.flow, kept.dial), (FlowId(1), Some(DialId(7))));
        assert_eq!(remotes.heard_of(at(1), now).and_then(|facts| facts.dial), Some(DialId(7)));
        // Its old place is free.
        assert_eq!(ids([remotes.insert(at(2), flow(2, None), now)]), NOBODY);
        assert_eq!(silent(&mut remotes, now + STRANGERS_SILENCE), [2]);
    }

    #[test]
    fn strangers_push_out_each_other_and_nobody_who_is_bound() {
        let now = origin();
        let mut remotes = Remotes::new(2, 2);
        remotes.insert(at(1), flow(1, None), now);
        assert!(remotes.bind(at(1), FlowId(9), now).is_err(), "another flow than the one that was meant");
        assert!(remotes.bind(at(2), FlowId(2), now).is_err(), "nobody");
        assert!(matches!(remotes.bind(at(1), FlowId(1), now), Ok(None)));
        let ended = (10..1000).map(|port| remotes.insert(at(port), flow(port, None), now));
        assert_eq!(ids(ended), (10..998).collect::<Vec<u64>>());
        assert!(remotes.heard_of(at(1), now).is_some());
        assert_eq!(silent(&mut remotes, now + STRANGERS_SILENCE), [998, 999]);
        for port in [2, 3] {
            remotes.insert(at(port), flow(port, None), now);
            let ended = remotes.bind(at(port), FlowId(port.into()), now).expect("known");
            assert_eq!(ids([ended]), if port == 2 { vec![] } else { vec![1] });
        }
        assert_eq!(silent(&mut remotes, now + SILENCE), [2, 3]);
    }

    #[test]
    fn what_is_forgotten_is_met_anew() {
        let now = origin();
        let mut remotes = Remotes::new(1, 1);
        remotes.insert(at(1), flow(1, None), now);
        assert_eq!(ids([remotes.forget(at(1)), remotes.forget(at(1))]), [1]);
        assert!(remotes.heard_of(at(1), now).is_none());
        assert_eq!(silent(&mut remotes, now + SILENCE), NOBODY);
    }
}
