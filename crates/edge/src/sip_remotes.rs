//! The remote addresses of one UDP socket, each a flow while it is heard of.
//!
//! Addresses, flows and time go in; flows that have ended come out. It sends and receives nothing.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{DialId, FlowFacts};

/// The remote addresses of one socket.
pub(crate) struct Remotes {
    most: usize,
    /// Strangers choose the keys, so the hash is the keyed one of std.
    known: HashMap<SocketAddr, Known>,
    /// Who was not heard of for longest comes first. Who was dialled is not in it and stays.
    by_turn: BTreeMap<u64, SocketAddr>,
    next_turn: u64,
}

struct Known {
    facts: Arc<FlowFacts>,
    heard: Instant,
    /// Its place in `by_turn`; `None` for who was dialled.
    turn: Option<u64>,
}

impl Remotes {
    /// Nobody yet; at most so many that were not dialled.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, known: HashMap::new(), by_turn: BTreeMap::new(), next_turn: 0 }
    }

    /// The flow of an address that something came from now.
    pub(crate) fn heard_of(&mut self, remote: SocketAddr, now: Instant) -> Option<&Arc<FlowFacts>> {
        let known = self.known.get_mut(&remote)?;
        known.heard = now;
        if let Some(turn) = known.turn.as_mut() {
            self.by_turn.remove(turn);
            *turn = self.next_turn;
            self.by_turn.insert(*turn, remote);
            self.next_turn += 1;
        }
        Some(&known.facts)
    }

    /// The flow of an address that is dialled, if there is one: from now on it stays, and names this dial.
    pub(crate) fn keep(&mut self, remote: SocketAddr, dial: DialId) -> Option<Arc<FlowFacts>> {
        let known = self.known.get_mut(&remote)?;
        if let Some(turn) = known.turn.take() {
            self.by_turn.remove(&turn);
        }
        known.facts = Arc::new(FlowFacts { dial: Some(dial), ..(*known.facts).clone() });
        Some(known.facts.clone())
    }

    /// Takes a new flow to an address that has none. What ends by that where there is no more room: the one that was not
    /// heard of for longest.
    pub(crate) fn insert(
        &mut self,
        remote: SocketAddr,
        facts: Arc<FlowFacts>,
        now: Instant,
    ) -> Option<Arc<FlowFacts>> {
        let turn = facts.dial.is_none().then_some(self.next_turn);
        let mut silent = None;
        if let Some(turn) = turn {
            if self.by_turn.len() >= self.most {
                let (_, remote) = self.by_turn.pop_first().unzip();
                silent = remote.and_then(|remote| self.known.remove(&remote));
            }
            self.by_turn.insert(turn, remote);
            self.next_turn += 1;
        }
        self.known.insert(remote, Known { facts, heard: now, turn });
        silent.map(|known| known.facts)
    }

    /// Ends the flow to an address.
    pub(crate) fn forget(&mut self, remote: SocketAddr) -> Option<Arc<FlowFacts>> {
        let known = self.known.remove(&remote)?;
        if let Some(turn) = known.turn {
            self.by_turn.remove(&turn);
        }
        Some(known.facts)
    }

    /// A flow that was not heard of for [`SILENCE`] and has ended by that; call until there is none.
    pub(crate) fn poll_silent(&mut self, now: Instant) -> Option<Arc<FlowFacts>> {
        let (_, &remote) = self.by_turn.first_key_value()?;
        let heard = self.known.get(&remote)?.heard;
        if now.saturating_duration_since(heard) < SILENCE {
            return None;
        }
        self.forget(remote)
    }
}

/// Longer than a phone's binding may last, so that a phone which only registers is still met when it is called.
pub(crate) const SILENCE: Duration = Duration::from_secs(65 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FlowId, Transport};

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
        let mut remotes = Remotes::new(2);
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
        let mut remotes = Remotes::new(9);
        remotes.insert(at(1), flow(1, None), now);
        remotes.insert(at(2), flow(2, None), now);
        remotes.insert(at(3), flow(3, Some(7)), now);
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
        let mut remotes = Remotes::new(1);
        assert!(remotes.keep(at(1), DialId(7)).is_none());
        remotes.insert(at(1), flow(1, None), now);
        let kept = remotes.keep(at(1), DialId(7)).expect("known");
        assert_eq!((kept.flow, kept.dial), (FlowId(1), Some(DialId(7))));
        assert_eq!(remotes.heard_of(at(1), now).and_then(|facts| facts.dial), Some(DialId(7)));
        // Its old place is free.
        assert_eq!(ids([remotes.insert(at(2), flow(2, None), now)]), NOBODY);
        assert_eq!(silent(&mut remotes, now + SILENCE), [2]);
    }

    #[test]
    fn what_is_forgotten_is_met_anew() {
        let now = origin();
        let mut remotes = Remotes::new(1);
        remotes.insert(at(1), flow(1, None), now);
        assert_eq!(ids([remotes.forget(at(1)), remotes.forget(at(1))]), [1]);
        assert!(remotes.heard_of(at(1), now).is_none());
        assert_eq!(silent(&mut remotes, now + SILENCE), NOBODY);
    }
}
