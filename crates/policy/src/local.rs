//! The local domains: where their users live, and who may speak for them.

use std::{borrow::Cow, fmt, net::IpAddr, str::FromStr};

use serde::Serialize;
use tombolo_presence::Domain;

use crate::partner::{host_name, port_number, write_host};

/// A SIP domain that we serve toward XMPP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalDomain {
    /// Its name.
    pub name: Domain,
    /// Where its users live.
    pub home: Home,
}

impl LocalDomain {
    /// The front end of this domain; `None` where we are the home ourselves.
    pub fn front_end(&self) -> Option<&FrontEnd> {
        match &self.home {
            Home::BuiltIn => None,
            Home::FrontEnd(front_end) => Some(front_end),
        }
    }

    /// True when a peer with this proof may send requests for users of this domain.
    ///
    /// Only a front end speaks for a domain, and only for its own: by TLS with a certificate that names the next
    /// hop's host (its iPAddress, where that is an address) or the domain, whole names and no wildcard (RFC 5922 §7.2), or without TLS where the operator
    /// allowed that, from one of the addresses that he named. Users of a built-in home prove themselves by digest.
    pub fn admits(&self, proof: PeerProof<'_>) -> bool {
        let Some(front_end) = self.front_end() else { return false };
        match proof {
            PeerProof::Tls { names } => {
                let own = ascii(self.name.as_str());
                let host = &*front_end.next_hop.host;
                let address =
                    host.trim_matches(['[', ']']).parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
                names.iter().any(|name| match address {
                    Some(address) if name.parse::<IpAddr>() == Ok(address) => true,
                    _ => name.eq_ignore_ascii_case(host) || name.eq_ignore_ascii_case(&own),
                })
            }
            PeerProof::Plain { address } => {
                front_end.insecure && front_end.trusted_addresses.contains(&address.to_canonical())
            }
        }
    }
}

/// A domain as certificates write it: in A-labels.
fn ascii(domain: &str) -> Cow<'_, str> {
    if domain.is_ascii() {
        return Cow::Borrowed(domain);
    }
    idna::domain_to_ascii(domain).map_or(Cow::Borrowed(domain), Cow::Owned)
}

/// What a SIP peer proved about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerProof<'a> {
    /// The identities of its verified certificate (RFC 5922 §7.1), in A-labels.
    Tls {
        /// Host and domain names.
        names: &'a [&'a str],
    },
    /// No TLS: all that is known is where the packets come from.
    Plain {
        /// The source address.
        address: IpAddr,
    },
}

/// Where the users of a local domain live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Home {
    /// We are registrar and presence agent.
    BuiltIn,
    /// A SIP server behind us.
    FrontEnd(FrontEnd),
}

/// The SIP server that is home of a local domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontEnd {
    /// Where requests for its users go.
    pub next_hop: NextHop,
    /// The operator said that it may be spoken to without TLS.
    pub insecure: bool,
    /// Addresses that may speak for the domain without TLS; IPv4-mapped addresses stand here as IPv4.
    pub trusted_addresses: Vec<IpAddr>,
}

/// How SIP is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SipTransport {
    /// TLS over TCP.
    Tls,
    /// TCP in clear.
    Tcp,
    /// UDP in clear.
    Udp,
}

impl SipTransport {
    /// The word of the settings, which is also the value of a `transport` parameter.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl FromStr for SipTransport {
    type Err = NextHopError;

    fn from_str(text: &str) -> Result<Self, NextHopError> {
        [Self::Tls, Self::Tcp, Self::Udp]
            .into_iter()
            .find(|transport| transport.as_str().eq_ignore_ascii_case(text))
            .ok_or(NextHopError::UnknownTransport)
    }
}

/// A static next hop, from a SIP URI without a user part.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// A host name in lower case, or an IP address without brackets.
    pub host: Box<str>,
    /// The port; `None` leaves it to RFC 3263.
    pub port: Option<u16>,
    /// TLS where the URI names no transport.
    pub transport: SipTransport,
    /// The URI names it; else the host's NAPTR records may lead to another name for it (RFC 3263 §4.1).
    pub is_transport_named: bool,
}

/// Why a text is no next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NextHopError {
    /// It is no `sip:` or `sips:` URI.
    #[error("a next hop begins with sip: or sips:")]
    NotSip,
    /// It has a user part, or the host is none.
    #[error("a next hop is a host name or address, without a user part")]
    BadHost,
    /// The port is no number from 1 to 65535.
    #[error("a port is 1 to 65535")]
    BadPort,
    /// A parameter other than `transport`.
    #[error("the only parameter of a next hop is transport")]
    UnknownParameter,
    /// A transport that we do not speak, or one that `sips:` forbids.
    #[error("a transport is tls, tcp or udp, and not udp with sips:")]
    UnknownTransport,
}

impl FromStr for NextHop {
    type Err = NextHopError;

    fn from_str(text: &str) -> Result<Self, NextHopError> {
        let (scheme, rest) = text.split_once(':').ok_or(NextHopError::NotSip)?;
        let is_sips = scheme.eq_ignore_ascii_case("sips");
        if !is_sips && !scheme.eq_ignore_ascii_case("sip") {
            return Err(NextHopError::NotSip);
        }
        let mut parts = rest.split(';');
        let authority = parts.next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            // The last colon of a bare bracketed IPv6 address stands before no port.
            Some((_, tail)) if tail.ends_with(']') => (authority, None),
            Some((host, port)) => (host, Some(port_number(port).ok_or(NextHopError::BadPort)?)),
            None => (authority, None),
        };
        let host = host_name(host).ok_or(NextHopError::BadHost)?.to_ascii_lowercase();
        let mut transport = None;
        for parameter in parts {
            let (name, value) = parameter.split_once('=').ok_or(NextHopError::UnknownParameter)?;
            if !name.eq_ignore_ascii_case("transport") || transport.is_some() {
                return Err(NextHopError::UnknownParameter);
            }
            transport = Some(value.parse()?);
        }
        let is_transport_named = transport.is_some();
        let transport = transport.unwrap_or(SipTransport::Tls);
        // With sips the transport names what TLS runs over (RFC 3261 §26.2.2).
        let transport = match (is_sips, transport) {
            (true, SipTransport::Udp) => return Err(NextHopError::UnknownTransport),
            (true, _) => SipTransport::Tls,
            (false, transport) => transport,
        };
        Ok(Self { host: host.into(), port, transport, is_transport_named })
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("sip:")?;
        write_host(out, &self.host)?;
        if let Some(port) = self.port {
            write!(out, ":{port}")?;
        }
        if !self.is_transport_named {
            return Ok(());
        }
        write!(out, ";transport={}", self.transport.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front_end(next_hop: &str, trusted: &[&str]) -> LocalDomain {
        LocalDomain {
            name: Domain::from_prepared("corp.example").expect("legal"),
            home: Home::FrontEnd(FrontEnd {
                next_hop: next_hop.parse().expect("legal"),
                insecure: !trusted.is_empty(),
                trusted_addresses: trusted.iter().map(|text| text.parse().expect("legal")).collect(),
            }),
        }
    }

    #[test]
    fn a_next_hop_is_read_from_a_sip_uri() {
        let hop: NextHop = "sip:Pool.corp.example:5061;transport=tls".parse().expect("legal");
        assert_eq!(hop.to_string(), "sip:pool.corp.example:5061;transport=tls");
        let hop: NextHop = "sip:[::1]".parse().expect("legal");
        assert_eq!((&*hop.host, hop.port, hop.transport), ("::1", None, SipTransport::Tls));
        assert_eq!((hop.is_transport_named, hop.to_string()), (false, "sip:[::1]".to_owned()));
        for (text, error) in [
            ("pool.corp.example", NextHopError::NotSip),
            ("http://pool", NextHopError::NotSip),
            ("sip:user@pool:5061", NextHopError::BadHost),
            ("sip:", NextHopError::BadHost),
            ("sip:pool:0", NextHopError::BadPort),
            ("sip:pool;lr", NextHopError::UnknownParameter),
            ("sip:pool;transport=tcp;transport=tls", NextHopError::UnknownParameter),
            ("sip:pool;transport=sctp", NextHopError::UnknownTransport),
            ("sips:pool;transport=udp", NextHopError::UnknownTransport),
        ] {
            assert_eq!(text.parse::<NextHop>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_front_end_speaks_by_a_certificate_of_its_host_or_domain_only() {
        let local = front_end("sip:pool.corp.example:5061;transport=tls", &[]);
        assert!(local.admits(PeerProof::Tls { names: &["other.example", "POOL.corp.example"] }));
        assert!(local.admits(PeerProof::Tls { names: &["corp.example"] }));
        assert!(!local.admits(PeerProof::Tls { names: &["*.corp.example", "edge.corp.example"] }));
        assert!(!local.admits(PeerProof::Tls { names: &[] }));
        assert!(!local.admits(PeerProof::Plain { address: "127.0.0.31".parse().expect("legal") }));
    }

    #[test]
    fn a_certificate_names_an_international_domain_in_a_labels() {
        let mut local = front_end("sip:pool.corp.example:5061;transport=tls", &[]);
        local.name = Domain::from_prepared("bücher.example").expect("legal");
        assert!(local.admits(PeerProof::Tls { names: &["XN--bcher-kva.example"] }));
        assert!(!local.admits(PeerProof::Tls { names: &["xn--bcher-kvb.example"] }));
    }

    #[test]
    fn without_tls_a_front_end_speaks_from_its_trusted_addresses_only() {
        let local = front_end("sip:127.0.0.31:5060;transport=tcp", &["127.0.0.31"]);
        for (address, is_admitted) in
            [("127.0.0.31", true), ("::ffff:127.0.0.31", true), ("127.0.0.32", false)]
        {
            let address = address.parse().expect("legal");
            assert_eq!(local.admits(PeerProof::Plain { address }), is_admitted, "{address}");
        }
    }

    #[test]
    fn nobody_speaks_for_a_built_in_home() {
        let name = Domain::from_prepared("sip.localhost").expect("legal");
        let local = LocalDomain { name, home: Home::BuiltIn };
        assert!(!local.admits(PeerProof::Tls { names: &["sip.localhost"] }));
    }
}
