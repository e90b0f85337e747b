//! Whom an address counts for where connections are counted. In: an address. Out: what stands for it.

use std::net::{IpAddr, Ipv6Addr};

/// The address itself, and on IPv6 its /64, which one machine may use freely.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}
