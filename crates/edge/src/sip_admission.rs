//! How many connections SIP peers may have with us: in all, and from one address.
//!
//! Addresses and time go in; places, which are given back when they are dropped, or refusals come out.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// The places that are left.
#[derive(Debug)]
pub(crate) struct Admission {
    most: usize,
    most_per_address: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    total: usize,
    /// Strangers choose the keys, so the hash is the keyed one of std.
    by_address: HashMap<IpAddr, usize>,
    /// Refusals that no log line told of yet, and when the next line may be written.
    untold: u64,
    next_line: Option<Instant>,
}

/// One connection's place.
#[derive(Debug)]
pub(crate) struct Place {
    address: IpAddr,
    admission: Arc<Admission>,
}

/// There is no place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// How many were refused since the last log line; `None` while it is too soon for another.
    pub(crate) to_tell: Option<u64>,
    /// The address has all that one may have; else all are taken.
    pub(crate) is_address_full: bool,
}

impl Admission {
    /// With so many places in all, and for one address (one network of 64 bits of IPv6).
    pub(crate) fn new(most: usize, most_per_address: usize) -> Arc<Self> {
        Arc::new(Self { most, most_per_address, state: Mutex::default() })
    }

    /// A place for a connection from an address.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr, now: Instant) -> Result<Place, Refused> {
        let address = network(address);
        let mut state = self.state.lock();
        let known = state.by_address.get(&address).copied().unwrap_or_default();
        let is_address_full = known >= self.most_per_address;
        if state.total < self.most && !is_address_full {
            state.total += 1;
            state.by_address.insert(address, known + 1);
            return Ok(Place { address, admission: self.clone() });
        }
        state.untold += 1;
        let is_time = state.next_line.is_none_or(|next| next <= now);
        let to_tell = is_time.then(|| std::mem::take(&mut state.untold));
        if is_time {
            state.next_line = Some(now + BETWEEN_LINES);
        }
        Err(Refused { to_tell, is_address_full })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.admission.state.lock();
        state.total -= 1;
        if let Some(count) = state.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                state.by_address.remove(&self.address);
            }
        }
    }
}

/// What counts as one address: nobody has fewer than 64 bits of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}

/// A flood writes one line in so long.
const BETWEEN_LINES: Duration = Duration::from_secs(60);

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
    fn an_address_and_all_together_have_so_many_places_and_get_them_back() {
        let (admission, now) = (Admission::new(3, 2), start());
        let admit = |address| admission.admit(ip(address), now);
        let first = admit("192.0.2.1").expect("room");
        let _second = admit("::ffff:192.0.2.1").expect("room");
        assert!(admit("192.0.2.1").expect_err("full").is_address_full);
        let _third = admit("192.0.2.2").expect("room");
        assert!(!admit("192.0.2.3").expect_err("full").is_address_full);
        drop(first);
        let _fourth = admit("192.0.2.1").expect("room again");
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let (admission, now) = (Admission::new(9, 1), start());
        let _first = admission.admit(ip("2001:db8::1"), now).expect("room");
        assert!(admission.admit(ip("2001:db8::ffff:1"), now).is_err());
        assert!(admission.admit(ip("2001:db8:0:1::1"), now).is_ok());
    }

    #[test]
    fn a_flood_is_told_of_once_a_minute_with_its_number() {
        let (admission, now) = (Admission::new(0, 9), start());
        let refused = |after| {
            let refused = admission.admit(ip("192.0.2.1"), now + Duration::from_secs(after));
            refused.expect_err("there is no place at all").to_tell
        };
        assert_eq!([refused(0), refused(1), refused(59)], [Some(1), None, None]);
        assert_eq!([refused(60), refused(61)], [Some(3), None]);
    }
}
