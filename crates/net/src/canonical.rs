//! One form for each address of a peer. In: an address as a socket or a file has it. Out: the form that is kept, compared,
//! logged and shown.

use std::net::{IpAddr, SocketAddr};

/// An IPv4 address as such where it is written as `::ffff:192.0.2.1`; any other address unchanged, with its scope.
///
/// Applied where an address comes in: at accept, from DNS and from the settings.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_the_ipv4_address_and_an_ipv6_address_keeps_its_scope() {
        let shown = |text: &str| canonical(text.parse().expect("an address")).to_string();
        assert_eq!(shown("[::ffff:192.0.2.1]:5060"), "192.0.2.1:5060");
        assert_eq!(shown("192.0.2.1:5060"), "192.0.2.1:5060");
        assert_eq!(shown("[fe80::1%3]:5060"), "[fe80::1%3]:5060");
    }
}
