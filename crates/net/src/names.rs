//! The names in a certificate, and whom they prove (RFC 6120 §13.7.1, RFC 6125 §6, RFC 5922 §7).
//!
//! In: one certificate in DER, and a domain or host. Out: a yes or no. Whether the certificate is to be trusted at all
//! is not asked here. webpki reads only dNSName, so the names are read with x509-cert.

use std::net::{IpAddr, Ipv6Addr};

use x509_cert::{
    Certificate,
    der::{Decode, asn1::ObjectIdentifier},
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// The subject alternative names of one certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateNames {
    /// dNSName, lower case; may begin with `*.`.
    pub dns: Vec<String>,
    /// SRVName, as written (`_xmpp-server.example.com`, RFC 4985).
    pub srv: Vec<String>,
    /// id-on-xmppAddr.
    pub xmpp: Vec<String>,
    /// uniformResourceIdentifier.
    pub uris: Vec<String>,
    /// iPAddress.
    pub addresses: Vec<IpAddr>,
}

impl CertificateNames {
    /// Reads the names; a certificate that cannot be read has none.
    pub fn read(der: &[u8]) -> Self {
        let mut names = Self::default();
        let Ok(certificate) = Certificate::from_der(der) else { return names };
        let Ok(Some((_, alternatives))) = certificate.tbs_certificate().get_extension::<SubjectAltName>()
        else {
            return names;
        };
        for name in alternatives.0 {
            match name {
                GeneralName::DnsName(name) => names.dns.push(name.as_str().to_ascii_lowercase()),
                GeneralName::UniformResourceIdentifier(uri) => names.uris.push(uri.as_str().to_owned()),
                GeneralName::IpAddress(octets) => names.addresses.extend(ip_address(octets.as_bytes())),
                GeneralName::OtherName(other) => {
                    // An IA5String or UTF8String; both are their octets, and tools mix them up.
                    let Ok(text) = std::str::from_utf8(other.value.value()) else { continue };
                    if other.type_id == SRV_NAME {
                        names.srv.push(text.to_owned());
                    } else if other.type_id == XMPP_ADDR {
                        names.xmpp.push(text.to_owned());
                    }
                }
                _ => {}
            }
        }
        names
    }

    /// True when there is no name at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// All names for people, the first ten of them.
    pub fn listed(&self) -> Vec<String> {
        let Self { dns, srv, xmpp, uris, addresses } = self;
        let texts = dns.iter().chain(srv).chain(xmpp).chain(uris).cloned();
        let mut all: Vec<String> = texts.chain(addresses.iter().map(ToString::to_string)).collect();
        all.dedup();
        all.iter().take(MAX_LISTED).map(|name| shown(name)).collect()
    }

    /// True when a name proves an XMPP domain: dNSName (with `*` as whole left-most label), SRVName of
    /// `_xmpp-server`, or id-on-xmppAddr. The subject's CN never counts (D-19).
    pub fn prove_xmpp(&self, domain: &str) -> bool {
        let domain = ascii(domain);
        self.dns.iter().any(|name| matches_with_wildcard(name, &domain))
            || self.srv.iter().any(|name| {
                name.split_once('.').is_some_and(|(service, of)| {
                    service.eq_ignore_ascii_case("_xmpp-server") && ascii(of) == domain
                })
            })
            || self.xmpp.iter().any(|name| ascii(name) == domain)
    }

    /// True when a dNSName or an iPAddress is exactly this host (RFC 6125 §6.4.1). A wildcard names no host: whoever
    /// holds it could stand for each of them.
    pub fn prove_host(&self, host: &str) -> bool {
        match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => self.addresses.contains(&address),
            Err(_) => {
                let host = ascii(host);
                self.dns.iter().any(|name| !name.contains('*') && *name == host)
            }
        }
    }

    /// The SIP domains that the certificate is for (RFC 5922 §7.1), in lower case: the hosts of URIs `sip:host` without
    /// user part; if there is no such URI, dNSNames. A wildcard names nothing (§7.2), the subject's CN neither (D-19).
    pub fn sip_domains(&self) -> Vec<String> {
        let by_uri: Vec<&str> = self.uris.iter().filter_map(|uri| sip_host(uri)).collect();
        let hosts: Vec<&str> =
            if by_uri.is_empty() { self.dns.iter().map(String::as_str).collect() } else { by_uri };
        hosts.into_iter().filter(|host| !host.contains('*') && !host.starts_with('.')).map(ascii).collect()
    }

    /// The hosts that a SIP peer proves: its SIP domains and each iPAddress.
    ///
    /// RFC 5922 §7.1 lets no iPAddress name a SIP domain, so an address counts only where an administrator wrote that very
    /// address in the place of a host; never because DNS led there.
    pub fn sip_hosts(&self) -> Vec<String> {
        let addresses = self.addresses.iter().map(|address| address.to_canonical().to_string());
        self.sip_domains().into_iter().chain(addresses).collect()
    }
}

/// A name as it may stand in a log and on a terminal, whoever wrote it: without control characters, no longer than a domain
/// can be.
pub(crate) fn shown(name: &str) -> String {
    name.chars().filter(|letter| !letter.is_control()).take(MAX_NAME_CHARS).collect()
}

pub(crate) const MAX_LISTED: usize = 10;
const MAX_NAME_CHARS: usize = 255;

/// The host of `sip:host`, with or without port and parameters; nothing for another scheme or with a user part.
fn sip_host(uri: &str) -> Option<&str> {
    let (scheme, rest) = uri.split_once(':')?;
    if !scheme.eq_ignore_ascii_case("sip") || rest.contains('@') {
        return None;
    }
    let host_port = rest.split([';', '?']).next()?;
    if let Some((literal, _)) = host_port.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        return literal.parse::<Ipv6Addr>().is_ok().then_some(literal);
    }
    let host = host_port.split(':').next()?;
    (!host.is_empty()).then_some(host)
}

/// Four or sixteen octets (RFC 5280 §4.2.1.6).
fn ip_address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// A domain as certificates write it: A-labels in lower case. What is no domain stays, and matches only itself.
pub(crate) fn ascii(domain: &str) -> String {
    if domain.is_ascii() {
        return domain.to_ascii_lowercase();
    }
    idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.to_lowercase())
}

fn matches_with_wildcard(name: &str, domain: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(rest) => domain
            .split_once('.')
            .is_some_and(|(label, of)| !label.is_empty() && of == rest && rest.contains('.')),
        None => !name.contains('*') && name == domain,
    }
}

/// id-on-dnsSRV.
const SRV_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.8.7");
/// id-on-xmppAddr.
const XMPP_ADDR: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.8.5");

#[cfg(test)]
mod tests {
    use super::*;

    fn dns(names: &[&str]) -> CertificateNames {
        CertificateNames { dns: names.iter().map(|name| (*name).to_owned()).collect(), ..Default::default() }
    }

    #[test]
    fn a_wildcard_stands_for_exactly_one_label_on_xmpp_and_for_nothing_on_sip() {
        let names = dns(&["*.example.com"]);
        assert!(names.prove_xmpp("im.example.com") && names.prove_xmpp("IM.Example.COM"));
        for domain in ["example.com", "a.b.example.com", ".example.com", "xexample.com", "*.example.com.evil"]
        {
            assert!(!names.prove_xmpp(domain), "{domain}");
        }
        assert!(!dns(&["i*.example.com"]).prove_xmpp("im.example.com"));
        assert!(!dns(&["*.com"]).prove_xmpp("example.com"));
        assert!(names.sip_domains().is_empty());
    }

    #[test]
    fn a_host_is_proved_by_its_exact_name_or_address_and_by_no_wildcard() {
        let mut names = dns(&["edge1.corp.example", "*.corp.example"]);
        names.addresses = ["10.0.0.1", "2001:db8::1"].map(|text| text.parse().expect("an address")).to_vec();
        for host in ["edge1.corp.example", "EDGE1.corp.example", "10.0.0.1", "[2001:DB8::1]", "2001:db8::1"] {
            assert!(names.prove_host(host), "{host}");
        }
        for host in
            ["edge2.corp.example", "corp.example", "10.0.0.2", "::ffff:10.0.0.1", "*.corp.example", ""]
        {
            assert!(!names.prove_host(host), "{host}");
        }
    }

    #[test]
    fn a_domain_in_any_script_is_compared_by_its_a_labels() {
        assert!(dns(&["xn--bcher-kva.example"]).prove_xmpp("Bücher.example"));
        let xmpp = CertificateNames { xmpp: vec!["bücher.example".into()], ..Default::default() };
        assert!(xmpp.prove_xmpp("xn--bcher-kva.example") && !xmpp.prove_xmpp("bucher.example"));
    }

    #[test]
    fn uris_without_user_count_before_dns_names() {
        let mut names = dns(&["host.example.com"]);
        names.uris = vec!["sips:x.example".into(), "sip:user@y.example".into(), "http://z.example".into()];
        assert_eq!(names.sip_domains(), ["host.example.com"]);
        names.uris.push("SIP:Example.com:5061;transport=tls".into());
        assert_eq!(names.sip_domains(), ["example.com"]);
        names.uris.push("sip:[2001:db8::1]:5061".into());
        assert_eq!(names.sip_domains(), ["example.com", "2001:db8::1"]);
    }

    #[test]
    fn a_wildcard_uri_names_nothing_and_yet_shuts_out_the_dns_names() {
        let mut names = dns(&["host.example.com"]);
        names.uris = vec!["sip:*.example.com".into()];
        assert!(names.sip_domains().is_empty());
    }

    #[test]
    fn srv_names_count_for_their_service_only() {
        let names = CertificateNames {
            srv: vec!["_xmpp-server.example.com".into(), "_xmpp-client.other.example".into()],
            ..Default::default()
        };
        assert!(names.prove_xmpp("example.com"));
        assert!(!names.prove_xmpp("other.example"));
    }
}
