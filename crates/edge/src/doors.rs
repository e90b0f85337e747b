//! Who may come in at all, before a word is exchanged: so many connections in all, from one address, and so many attempts
//! a minute of one address (XEP-0205 §2, XS-LIM-03).
//!
//! In: an address that connects, has proved itself or leaves, and `now`. Out: whether it may stay, and whether that is worth
//! a line in the log. It opens and closes nothing.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::network::network;

/// What connections from outside are held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoorLimits {
    /// Connections in all.
    pub connections: usize,
    /// Connections that have proved nothing yet.
    pub unproved: usize,
    /// Connections from one address.
    pub per_address: usize,
    /// Those of them that have proved nothing yet.
    pub unproved_per_address: usize,
    /// Connections that one address may begin in a minute.
    pub attempts_per_minute: usize,
    /// Proved streams that one partner, with all domains of its entry, may have open toward us.
    pub per_partner: usize,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            unproved: 1_000,
            per_address: 1_000,
            unproved_per_address: 20,
            attempts_per_minute: 600,
            per_partner: 100,
        }
    }
}

/// Why one may not come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Shut {
    #[error("connections in all")]
    Connections,
    #[error("connections in all that have proved nothing")]
    Unproved,
    #[error("connections from one address")]
    PerAddress,
    #[error("connections from one address that have proved nothing")]
    UnprovedPerAddress,
    #[error("attempts of one address in a minute")]
    Attempts,
    #[error("addresses that came in the last minute")]
    Callers,
}

/// The counts.
#[derive(Debug)]
pub(crate) struct Doors {
    limits: DoorLimits,
    connections: usize,
    unproved: usize,
    callers: HashMap<IpAddr, Caller>,
    swept_at: Instant,
}

#[derive(Debug)]
struct Caller {
    connections: usize,
    unproved: usize,
    attempts: usize,
    minute: Instant,
    /// That it is shut out was said in this minute.
    is_told: bool,
}

impl Doors {
    pub(crate) fn new(limits: DoorLimits, now: Instant) -> Self {
        Self { limits, connections: 0, unproved: 0, callers: HashMap::new(), swept_at: now }
    }

    /// An address connects. When it may not, it is told for the first time in a minute with `true`.
    pub(crate) fn knock(&mut self, address: IpAddr, now: Instant) -> Result<(), (Shut, bool)> {
        self.sweep(now);
        let limits = self.limits;
        if self.callers.len() >= MOST_CALLERS && !self.callers.contains_key(&network(address)) {
            return Err((Shut::Callers, false));
        }
        let caller = self.callers.entry(network(address)).or_insert(Caller {
            connections: 0,
            unproved: 0,
            attempts: 0,
            minute: now,
            is_told: false,
        });
        if now >= caller.minute + MINUTE {
            (caller.minute, caller.attempts, caller.is_told) = (now, 0, false);
        }
        caller.attempts += 1;
        let rules = [
            (caller.attempts > limits.attempts_per_minute, Shut::Attempts),
            (caller.unproved >= limits.unproved_per_address, Shut::UnprovedPerAddress),
            (caller.connections >= limits.per_address, Shut::PerAddress),
            (self.unproved >= limits.unproved, Shut::Unproved),
            (self.connections >= limits.connections, Shut::Connections),
        ];
        if let Some((_, shut)) = rules.into_iter().find(|(is_over, _)| *is_over) {
            return Err((shut, !std::mem::replace(&mut caller.is_told, true)));
        }
        caller.connections += 1;
        caller.unproved += 1;
        self.connections += 1;
        self.unproved += 1;
        Ok(())
    }

    /// A connection that was let in has proved a domain.
    pub(crate) fn prove(&mut self, address: IpAddr) {
        self.unproved -= 1;
        if let Some(caller) = self.callers.get_mut(&network(address)) {
            caller.unproved -= 1;
        }
    }

    /// A connection that was let in ended.
    pub(crate) fn leave(&mut self, address: IpAddr, is_proved: bool) {
        if !is_proved {
            self.prove(address);
        }
        self.connections -= 1;
        if let Some(caller) = self.callers.get_mut(&network(address)) {
            caller.connections -= 1;
        }
    }

    /// Forgets, once a minute, addresses that have no connection and have not tried for a minute.
    fn sweep(&mut self, now: Instant) {
        if now >= self.swept_at + MINUTE {
            self.swept_at = now;
            self.callers.retain(|_, caller| caller.connections > 0 || now < caller.minute + MINUTE);
        }
    }
}

/// Addresses that are counted at one time.
const MOST_CALLERS: usize = 100_000;
const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        Instant::now()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn xs_lim_03_an_address_that_floods_is_shut_out_for_the_minute_and_told_once_and_others_are_not() {
        let limits = DoorLimits { attempts_per_minute: 5, ..DoorLimits::default() };
        let (begin, flooder) = (start(), ip("192.0.2.1"));
        let mut doors = Doors::new(limits, begin);
        let mut outcomes = Vec::new();
        for second in 0..20 {
            let outcome = doors.knock(flooder, begin + Duration::from_secs(second));
            if outcome.is_ok() {
                doors.leave(flooder, false);
            }
            outcomes.push(outcome);
        }
        assert!(outcomes[..5].iter().all(Result::is_ok));
        assert_eq!(outcomes[5], Err((Shut::Attempts, true)));
        assert!(outcomes[6..].iter().all(|outcome| *outcome == Err((Shut::Attempts, false))));
        assert!(doors.knock(ip("192.0.2.2"), begin).is_ok());
        assert!(doors.knock(flooder, begin + MINUTE).is_ok(), "the next minute");
    }

    #[test]
    fn xs_lim_03_connections_of_an_address_are_bounded_apart_from_those_that_proved_nothing() {
        let limits = DoorLimits { per_address: 3, unproved_per_address: 2, ..DoorLimits::default() };
        let (now, address) = (start(), ip("192.0.2.1"));
        let mut doors = Doors::new(limits, now);
        assert!(doors.knock(address, now).is_ok() && doors.knock(address, now).is_ok());
        assert_eq!(doors.knock(address, now), Err((Shut::UnprovedPerAddress, true)));
        doors.prove(address);
        assert!(doors.knock(address, now).is_ok());
        doors.prove(address);
        doors.prove(address);
        assert_eq!(doors.knock(address, now), Err((Shut::PerAddress, false)));
        doors.leave(address, true);
        assert!(doors.knock(address, now).is_ok());
    }

    #[test]
    fn all_together_are_bounded_whatever_address_they_come_from() {
        let limits = DoorLimits { connections: 3, unproved: 2, ..DoorLimits::default() };
        let now = start();
        let mut doors = Doors::new(limits, now);
        let address = |n: u8| IpAddr::from([192, 0, 2, n]);
        assert!(doors.knock(address(1), now).is_ok() && doors.knock(address(2), now).is_ok());
        assert_eq!(doors.knock(address(3), now), Err((Shut::Unproved, true)));
        doors.prove(address(1));
        assert!(doors.knock(address(3), now).is_ok());
        doors.prove(address(2));
        assert_eq!(doors.knock(address(4), now), Err((Shut::Connections, true)));
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_count_as_one_and_mapped_ones_as_what_they_are() {
        let limits = DoorLimits { unproved_per_address: 1, ..DoorLimits::default() };
        let now = start();
        let mut doors = Doors::new(limits, now);
        assert!(doors.knock(ip("2001:db8::1"), now).is_ok());
        assert!(doors.knock(ip("2001:db8::ffff:2"), now).is_err());
        assert!(doors.knock(ip("2001:db8:0:1::1"), now).is_ok());
        assert!(doors.knock(ip("::ffff:192.0.2.1"), now).is_ok());
        assert!(doors.knock(ip("192.0.2.1"), now).is_err());
    }

    #[test]
    fn addresses_that_only_tried_are_forgotten_after_a_minute() {
        let begin = start();
        let mut doors = Doors::new(DoorLimits::default(), begin);
        for n in 0..1000_u32 {
            let address = IpAddr::from(n.to_be_bytes());
            assert!(doors.knock(address, begin).is_ok());
            doors.leave(address, false);
        }
        assert!(doors.knock(ip("192.0.2.1"), begin + 2 * MINUTE).is_ok());
        assert_eq!((doors.callers.len(), doors.connections), (1, 1));
    }
}
