//! With which address of a host the next attempt begins, for hosts with more addresses than one attempt tries.
//!
//! In: how many addresses an attempt tried in vain. Out: the addresses, turned so that the next attempt begins behind them.

use std::{collections::HashMap, net::IpAddr};

/// Where to begin, by host; at most [`MAX_HOSTS`].
#[derive(Debug, Default)]
pub(crate) struct Rotation {
    starts: HashMap<String, usize>,
}

impl Rotation {
    /// Turns the addresses of `host`, in an order that does not change with the answers of its name server.
    pub(crate) fn turn(&self, host: &str, addresses: &mut [IpAddr]) {
        if let (Some(start), 1..) = (self.starts.get(host), addresses.len()) {
            addresses.sort_by_key(|address| (address.is_ipv4(), *address));
            addresses.rotate_left(start % addresses.len());
        }
    }

    /// The first `count` addresses of the last [`Rotation::turn`] led nowhere.
    pub(crate) fn pass_over(&mut self, host: &str, count: usize) {
        if self.starts.len() >= MAX_HOSTS && !self.starts.contains_key(host) {
            self.starts.clear();
        }
        let start = self.starts.entry(host.to_owned()).or_insert(0);
        *start = start.wrapping_add(count);
    }
}

const MAX_HOSTS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_50_addresses_is_tried_within_four_attempts_of_16() {
        let all: Vec<IpAddr> = (1..=50).map(|n| IpAddr::from([192, 0, 2, n])).collect();
        for good in &all {
            let mut rotation = Rotation::default();
            let found = (1..=4).find(|_| {
                let mut addresses = all.clone();
                rotation.turn("h.example", &mut addresses);
                rotation.pass_over("h.example", 16);
                addresses[..16].contains(good)
            });
            assert!(found.is_some(), "{good}");
        }
    }

    #[test]
    fn a_host_whose_addresses_were_all_tried_begins_with_the_first_again() {
        let all: Vec<IpAddr> = (1..=3).map(|n| IpAddr::from([192, 0, 2, n])).collect();
        let (mut rotation, mut addresses) = (Rotation::default(), all.clone());
        rotation.pass_over("h.example", 3);
        rotation.turn("h.example", &mut addresses);
        assert_eq!(addresses, all);
        rotation.turn("h.example", &mut []);
        rotation.pass_over("h.example", 1);
        rotation.turn("h.example", &mut addresses);
        assert_eq!(addresses[2], all[0]);
    }

    #[test]
    fn hosts_are_bounded() {
        let mut rotation = Rotation::default();
        for n in 0..3 * MAX_HOSTS {
            rotation.pass_over(&format!("h{n}.example"), 1);
        }
        assert!(rotation.starts.len() <= MAX_HOSTS);
    }
}
