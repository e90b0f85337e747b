//! How many connections SIP peers may have with us: in all, from one address, and from one that nobody proved himself by.
//!
//! Addresses and time go in; places, which are given back when they are dropped, or refusals come out.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use tombolo_telemetry::LogLimit;

use crate::network::network;

/// The places that are left.
#[derive(Debug)]
pub(crate) struct Admission {
    most: usize,
    most_per_address: usize,
    most_unbound_per_address: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    total: usize,
    /// Strangers choose the keys, so the hash is the keyed one of std.
    by_address: HashMap<IpAddr, Counts>,
    /// A flood writes one line a minute.
    lines: LogLimit,
}

/// The connections of one address.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    all: usize,
    /// Those that are nobody's yet.
    unbound: usize,
}

/// One connection's place.
#[derive(Debug)]
pub(crate) struct Place {
    address: IpAddr,
    is_bound: AtomicBool,
    admission: Arc<Admission>,
}

impl Place {
    /// The connection is somebody's who proved himself.
    pub(crate) fn bind(&self) {
        let mut state = self.admission.state.lock();
        if !self.is_bound.swap(true, Ordering::Relaxed)
            && let Some(counts) = state.by_address.get_mut(&self.address)
        {
            counts.unbound -= 1;
        }
    }
}

/// There is no place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// How many were refused since the last log line; `None` while it is too soon for another.
    pub(crate) to_tell: Option<u64>,
    /// The setting that says so.
    pub(crate) limit: &'static str,
}

impl Admission {
    /// With so many places in all, for one address (one network of 64 bits of IPv6), and for those of one address that
    /// are nobody's yet.
    pub(crate) fn new(most: usize, most_per_address: usize, most_unbound_per_address: usize) -> Arc<Self> {
        let state = State { total: 0, by_address: HashMap::new(), lines: LogLimit::once_a_minute() };
        Arc::new(Self { most, most_per_address, most_unbound_per_address, state: Mutex::new(state) })
    }

    /// A place for a connection from an address.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr, now: Instant) -> Result<Place, Refused> {
        let address = network(address);
        let mut state = self.state.lock();
        let known = state.by_address.get(&address).copied().unwrap_or_default();
        let limit = if known.all >= self.most_per_address {
            "connections_per_address"
        } else if known.unbound >= self.most_unbound_per_address {
            "unproved_connections_per_address"
        } else if state.total >= self.most {
            "connections"
        } else {
            state.total += 1;
            state.by_address.insert(address, Counts { all: known.all + 1, unbound: known.unbound + 1 });
            return Ok(Place { address, is_bound: AtomicBool::new(false), admission: self.clone() });
        };
        // This one counts too.
        let to_tell = state.lines.admit(now).map(|left_out| left_out + 1);
        Err(Refused { to_tell, limit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.admission.state.lock();
        state.total -= 1;
        if let Some(counts) = state.by_address.get_mut(&self.address) {
            counts.all -= 1;
            if !*self.is_bound.get_mut() {
                counts.unbound -= 1;
            }
            if counts.all == 0 {
                state.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        Instant::now()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_and_all_together_have_so_many_places_and_get_them_back() {
        let (admission, now) = (Admission::new(3, 2, 9), start());
        let admit = |address| admission.admit(ip(address), now);
        let first = admit("192.0.2.1").expect("room");
        let _second = admit("::ffff:192.0.2.1").expect("room");
        assert_eq!(admit("192.0.2.1").expect_err("full").limit, "connections_per_address");
        let _third = admit("192.0.2.2").expect("room");
        assert_eq!(admit("192.0.2.3").expect_err("full").limit, "connections");
        drop(first);
        let _fourth = admit("192.0.2.1").expect("room again");
    }

    #[test]
    fn an_address_has_few_places_for_who_proved_nothing_and_gets_them_back_by_a_proof_or_an_end() {
        let (admission, now) = (Admission::new(99, 9, 2), start());
        let admit = || admission.admit(ip("192.0.2.1"), now);
        let (first, second) = (admit().expect("room"), admit().expect("room"));
        assert_eq!(admit().expect_err("full").limit, "unproved_connections_per_address");
        assert!(admission.admit(ip("192.0.2.2"), now).is_ok(), "another address");
        first.bind();
        first.bind();
        let third = admit().expect("room");
        assert!(admit().is_err());
        drop((second, first));
        let _fourth = admit().expect("room");
        assert!(admit().is_err(), "a bound one gives back what it took and no more");
        drop(third);
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let (admission, now) = (Admission::new(9, 1, 9), start());
        let _first = admission.admit(ip("2001:db8::1"), now).expect("room");
        assert!(admission.admit(ip("2001:db8::ffff:1"), now).is_err());
        assert!(admission.admit(ip("2001:db8:0:1::1"), now).is_ok());
    }

    #[test]
    fn a_flood_is_told_of_once_a_minute_with_its_number() {
        let (admission, now) = (Admission::new(0, 9, 9), start());
        let refused = |after| {
            let refused = admission.admit(ip("192.0.2.1"), now + Duration::from_secs(after));
            refused.expect_err("there is no place at all").to_tell
        };
        assert_eq!([refused(0), refused(1), refused(59)], [Some(1), None, None]);
        assert_eq!([refused(60), refused(61)], [Some(3), None]);
    }
}
