//! Addresses that failed of late (RFC 3263 §4.3): they are dialled last until some time has passed.
//!
//! Addresses and times go in, an order comes out. It dials nothing.

use std::{collections::HashMap, net::SocketAddr, time::Instant};

/// The addresses that failed. Only what we dial ourselves gets in.
#[derive(Debug, Default)]
pub(crate) struct Avoided {
    until: HashMap<SocketAddr, Instant>,
}

impl Avoided {
    /// An address is to be tried last until then.
    pub(crate) fn mark(&mut self, address: SocketAddr, until: Instant) {
        if self.until.len() >= MOST
            && let Some(first) =
                self.until.iter().min_by_key(|(_, until)| **until).map(|(address, _)| *address)
        {
            self.until.remove(&first);
        }
        self.until.insert(address, until);
    }

    /// True while an address is to be tried last.
    pub(crate) fn is_avoided(&mut self, address: SocketAddr, now: Instant) -> bool {
        self.until.retain(|_, until| *until > now);
        self.until.contains_key(&address)
    }
}

/// More are not remembered.
const MOST: usize = 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_address_is_avoided_until_its_time_is_over() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        let now = Instant::now();
        let at = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let mut avoided = Avoided::default();
        avoided.mark(at(1), now + Duration::from_secs(5));
        avoided.mark(at(2), now + Duration::from_secs(9));
        assert!(avoided.is_avoided(at(1), now) && avoided.is_avoided(at(2), now));
        let later = now + Duration::from_secs(5);
        assert!(!avoided.is_avoided(at(1), later) && avoided.is_avoided(at(2), later));
        for n in 0..=MOST as u16 {
            avoided.mark(at(n), now + Duration::from_secs(u64::from(n) + 10));
        }
        assert!(
            !avoided.is_avoided(at(0), now) && avoided.is_avoided(at(1), now),
            "the next to be over gives way"
        );
    }
}
