//! Where a SIP URI leads: transport, host and port (RFC 3263 §4.1, §4.2).
//!
//! In: the host, port and transport of a URI, and what we can speak. Out: the question that decides next, and from its
//! answer the targets, best first. It asks nobody: [`crate::Resolver::locate_sip`] does.

use crate::{Srv, order_srv};

/// A transport that SIP runs over here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SipTransport {
    /// Datagrams.
    Udp,
    /// TCP without TLS.
    Tcp,
    /// TLS over TCP.
    Tls,
}

impl SipTransport {
    /// The name of its SRV records under a domain.
    pub fn service(self) -> &'static str {
        match self {
            Self::Udp => "_sip._udp",
            Self::Tcp => "_sip._tcp",
            Self::Tls => "_sips._tcp",
        }
    }

    /// The port where a URI has none (RFC 3261 §19.1.2).
    pub fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
        }
    }

    /// The NAPTR service field that stands for it.
    fn from_naptr(service: &str) -> Option<Self> {
        [("SIP+D2U", Self::Udp), ("SIP+D2T", Self::Tcp), ("SIPS+D2T", Self::Tls)]
            .into_iter()
            .find_map(|(name, transport)| service.eq_ignore_ascii_case(name).then_some(transport))
    }
}

/// What a URI says about where to send.
#[derive(Debug, Clone, Copy)]
pub struct SipLocation<'a> {
    /// Host name or address literal, IPv6 with or without brackets.
    pub host: &'a str,
    /// The port, if the URI has one.
    pub port: Option<u16>,
    /// The `transport` parameter, if the URI has one.
    pub transport: Option<SipTransport>,
    /// The scheme is `sips`.
    pub is_sips: bool,
    /// What we can speak, best first.
    pub spoken: &'a [SipTransport],
}

/// One place to send to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipTarget {
    /// Host name or address literal, whose addresses are to be looked up.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How to speak there.
    pub transport: SipTransport,
}

/// A NAPTR record, as far as SIP reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Naptr {
    /// Lower is taken first.
    pub(crate) order: u16,
    /// Lower first within one order.
    pub(crate) preference: u16,
    /// `s` for a name with SRV records; others do not count.
    pub(crate) flags: String,
    /// Such as `SIPS+D2T`.
    pub(crate) service: String,
    /// The name with the SRV records, without final dot.
    pub(crate) replacement: String,
}

/// What decides next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// No record does: this is it.
    Done(SipTarget),
    /// The SRV records of the host for this transport, else its addresses.
    Srv(SipTransport),
    /// The host's NAPTR records, then its SRV records.
    Naptr,
    /// We speak nothing that the URI allows.
    Nothing,
}

impl SipLocation<'_> {
    /// The first step: whether the URI alone tells transport, host and port.
    pub(crate) fn next(&self) -> Next {
        let is_numeric = is_address(self.host);
        let told = match self.transport {
            // TLS is how `sips` goes over TCP; it goes over nothing else (RFC 3261 §26.2.2).
            Some(SipTransport::Tcp) if self.is_sips => Some(SipTransport::Tls),
            Some(SipTransport::Udp) if self.is_sips => return Next::Nothing,
            Some(told) => Some(told),
            None if is_numeric || self.port.is_some() => Some(self.unasked()),
            None => None,
        };
        match told {
            Some(transport) if !self.spoken.contains(&transport) => Next::Nothing,
            Some(transport) if is_numeric || self.port.is_some() => Next::Done(self.itself(transport)),
            Some(transport) => Next::Srv(transport),
            None if self.allowed().next().is_none() => Next::Nothing,
            None => Next::Naptr,
        }
    }

    /// What we speak and the scheme allows, best first.
    pub(crate) fn allowed(&self) -> impl Iterator<Item = SipTransport> {
        self.spoken.iter().copied().filter(|transport| !self.is_sips || *transport == SipTransport::Tls)
    }

    /// The transport when nobody names one: TLS for `sips`, else UDP; the best that we speak where that is not UDP.
    pub(crate) fn unasked(&self) -> SipTransport {
        let usual = if self.is_sips { SipTransport::Tls } else { SipTransport::Udp };
        if self.spoken.contains(&usual) { usual } else { self.allowed().next().unwrap_or(usual) }
    }

    /// The host itself, at the URI's port or the transport's.
    pub(crate) fn itself(&self, transport: SipTransport) -> SipTarget {
        let port = self.port.unwrap_or(transport.default_port());
        SipTarget { host: self.host.to_owned(), port, transport }
    }

    /// The names to ask for SRV records, in the order that the domain prefers; empty where no record is of use.
    ///
    /// Only the lowest order and preference that we speak counts, with those of equal order behind it.
    pub(crate) fn services(&self, mut records: Vec<Naptr>) -> Vec<(SipTransport, String)> {
        records.sort_by_key(|record| (record.order, record.preference));
        let usable = |record: Naptr| {
            let transport = SipTransport::from_naptr(&record.service)?;
            let is_usable =
                record.flags.eq_ignore_ascii_case("s") && self.allowed().any(|ours| ours == transport);
            is_usable.then_some((record.order, transport, record.replacement))
        };
        let usable: Vec<_> = records.into_iter().filter_map(usable).collect();
        let first = usable.first().map(|(order, ..)| *order);
        usable
            .into_iter()
            .filter(|(order, ..)| Some(*order) == first)
            .map(|(_, transport, name)| (transport, name))
            .collect()
    }
}

/// The targets of one transport's SRV records.
pub(crate) fn targets(
    records: Vec<Srv>,
    transport: SipTransport,
    random: impl FnMut(u32) -> u32,
) -> impl Iterator<Item = SipTarget> {
    order_srv(records, random).into_iter().map(move |srv| SipTarget {
        host: srv.target,
        port: srv.port,
        transport,
    })
}

/// True for an IPv4 or IPv6 literal, with or without brackets.
pub(crate) fn is_address(host: &str) -> bool {
    host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::SipTransport::{Tcp, Tls, Udp};
    use super::*;

    const ALL: &[SipTransport] = &[Tls, Tcp, Udp];

    fn uri(host: &str) -> SipLocation<'_> {
        SipLocation { host, port: None, transport: None, is_sips: false, spoken: ALL }
    }

    fn done(host: &str, port: u16, transport: SipTransport) -> Next {
        Next::Done(SipTarget { host: host.to_owned(), port, transport })
    }

    #[test]
    fn a_uri_alone_decides_by_the_rules_for_numbers_ports_and_transports() {
        let table = [
            (uri("192.0.2.1"), done("192.0.2.1", 5060, Udp)),
            (uri("[2001:db8::1]"), done("[2001:db8::1]", 5060, Udp)),
            (SipLocation { is_sips: true, ..uri("192.0.2.1") }, done("192.0.2.1", 5061, Tls)),
            (SipLocation { transport: Some(Tcp), ..uri("192.0.2.1") }, done("192.0.2.1", 5060, Tcp)),
            (SipLocation { port: Some(5080), ..uri("example.com") }, done("example.com", 5080, Udp)),
            (
                SipLocation { port: Some(5080), is_sips: true, ..uri("example.com") },
                done("example.com", 5080, Tls),
            ),
            (
                SipLocation { port: Some(5), transport: Some(Tls), ..uri("h.example") },
                done("h.example", 5, Tls),
            ),
            (SipLocation { transport: Some(Tls), ..uri("example.com") }, Next::Srv(Tls)),
            (SipLocation { transport: Some(Tcp), is_sips: true, ..uri("example.com") }, Next::Srv(Tls)),
            (SipLocation { transport: Some(Udp), is_sips: true, ..uri("example.com") }, Next::Nothing),
            (SipLocation { transport: Some(Udp), spoken: &[Tls], ..uri("example.com") }, Next::Nothing),
            (SipLocation { is_sips: true, spoken: &[Tcp, Udp], ..uri("example.com") }, Next::Nothing),
            (
                SipLocation { port: Some(5080), spoken: &[Tls], ..uri("h.example") },
                done("h.example", 5080, Tls),
            ),
            (uri("example.com"), Next::Naptr),
        ];
        for (location, next) in table {
            assert_eq!(location.next(), next, "{location:?}");
        }
    }

    fn naptr(order: u16, preference: u16, flags: &str, service: &str, replacement: &str) -> Naptr {
        Naptr {
            order,
            preference,
            flags: flags.to_owned(),
            service: service.to_owned(),
            replacement: replacement.to_owned(),
        }
    }

    #[test]
    fn naptr_records_are_read_as_in_the_example_of_rfc_3263_section_4_1() {
        let records = vec![
            naptr(100, 50, "s", "SIP+D2U", "_sip._udp.example.com"),
            naptr(50, 50, "s", "SIPS+D2T", "_sips._tcp.example.com"),
            naptr(90, 50, "s", "SIP+D2T", "_sip._tcp.example.com"),
            naptr(1, 1, "u", "E2U+sip", "elsewhere.example"),
        ];
        let all = uri("example.com").services(records.clone());
        assert_eq!(all, [(Tls, "_sips._tcp.example.com".to_owned())]);
        let without_tls = SipLocation { spoken: &[Udp, Tcp], ..uri("example.com") };
        assert_eq!(without_tls.services(records.clone()), [(Tcp, "_sip._tcp.example.com".to_owned())]);
        let sips = SipLocation { is_sips: true, ..uri("example.com") };
        assert_eq!(sips.services(records[..1].to_vec()), []);
    }
}
