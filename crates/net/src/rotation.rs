//! With which address of a host, or host of a domain, the next attempt begins, where there are more than one attempt tries.
//!
//! In: how many an attempt tried in vain. Out: the addresses or hosts, turned so that the next attempt begins behind them.

use std::{collections::HashMap, net::IpAddr};

/// Where to begin, by host; at most [`MAX_HOSTS`].
#[derive(Debug, Default)]
pub(crate) struct Rotation {
    starts: HashMap<String, usize>,
}

impl Rotation {
    /// Turns the addresses of `host`, in an order that does not change with the answers of its name server.
    pub(crate) fn turn(&self, host: &str, addresses: &mut [IpAddr]) {
        if self.starts.contains_key(host) {
            addresses.sort_by_key(|address| (address.is_ipv4(), *address));
            self.turn_in_order(host, addresses);
        }
    }

    /// Turns what belongs to `name` and stands in an order of its own.
    pub(crate) fn turn_in_order<T>(&self, name: &str, values: &mut [T]) {
        if let (Some(start), 1..) = (self.starts.get(name), values.len()) {
            values.rotate_left(start % values.len());
        }
    }

    /// One of them was of use: the next attempt begins with the first.
    pub(crate) fn forget(&mut self, name: &str) {
        self.starts.remove(name);
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
    fn the_hosts_of_a_domain_keep_their_order_and_begin_with_the_best_once_one_was_reached() {
        let mut rotation = Rotation::default();
        let turned = |rotation: &Rotation| {
            let mut hosts = ["best", "good", "last"];
            rotation.turn_in_order("b.example", &mut hosts);
            hosts
        };
        assert_eq!(turned(&rotation), ["best", "good", "last"]);
        rotation.pass_over("b.example", 1);
        assert_eq!(turned(&rotation), ["good", "last", "best"]);
        rotation.pass_over("b.example", 2);
        assert_eq!(turned(&rotation), ["best", "good", "last"], "all were tried");
        rotation.pass_over("b.example", 2);
        rotation.forget("b.example");
        assert_eq!(turned(&rotation), ["best", "good", "last"]);
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
