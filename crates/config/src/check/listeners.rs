//! Listeners against each other: no address and port of one transport twice.

use std::{net::SocketAddr, ops::Range};

use tombolo_policy::SipTransport;

use crate::{
    error::Reason,
    section::Section,
    settings::{SipListen, address},
};

/// What takes a port: TCP and UDP have ports of their own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ports {
    Tcp,
    Udp,
}

/// Notes each listener that an earlier one keeps from listening. Values that cannot be read are left to whoever reads
/// their section.
pub(super) fn each_once(top: &Section<'_>) {
    let mut taken: Vec<(Ports, SocketAddr, String)> = Vec::new();
    let mut claim =
        |section: &Section<'_>, ports: Ports, at: SocketAddr, span: Range<usize>, shown: String| {
            let first = taken.iter().find(|(other, taken, _)| *other == ports && collide(*taken, at));
            match first {
                Some((_, _, first)) => {
                    let reason = Reason::ListenerTwice { listener: shown, first: first.clone() };
                    section.error(span, reason, "each address and port once");
                }
                None => taken.push((ports, at, section.source.place_text(span.start))),
            }
        };
    if let Some(xmpp) = top.peek_section("xmpp", "xmpp") {
        for key in ["listen", "direct_tls_listen"] {
            for found in xmpp.peek_list(key, address) {
                claim(&xmpp, Ports::Tcp, found.value, found.span, found.value.to_string());
            }
        }
    }
    if let Some(sip) = top.peek_section("sip", "sip") {
        for found in sip.peek_list("listen", str::parse::<SipListen>) {
            let ports = if found.value.transport == SipTransport::Udp { Ports::Udp } else { Ports::Tcp };
            claim(&sip, ports, found.value.address, found.span, found.value.to_string());
        }
    }
    for name in ["link", "admin"] {
        if let Some(section) = top.peek_section(name, name)
            && let Some(found) = section.peek_text("listen")
            && let Ok(at) = address(found.value)
        {
            claim(&section, Ports::Tcp, at, found.span, at.to_string());
        }
    }
}

/// Whether one of two listeners keeps the other from listening: the same port, and the same address, or all addresses of
/// the same family. Port 0 is another port each time.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip(), other.ip());
    one.port() != 0
        && one.port() == other.port()
        && (a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_collide_within_a_family_and_port() {
        for (one, other, is_so) in [
            ("127.0.0.1:5269", "127.0.0.1:5269", true),
            ("127.0.0.1:5269", "127.0.0.1:5270", false),
            ("127.0.0.1:5269", "127.0.0.2:5269", false),
            ("0.0.0.0:5269", "127.0.0.2:5269", true),
            ("[::]:5269", "[::1]:5269", true),
            ("[::]:5269", "0.0.0.0:5269", false),
            ("[::1]:5269", "127.0.0.1:5269", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let [one, other] = [one, other].map(|text| text.parse().expect("an address"));
            assert_eq!(collide(one, other), is_so, "{one} {other}");
        }
    }
}
