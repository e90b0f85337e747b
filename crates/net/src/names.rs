//! The names in a certificate that webpki does not read: SRVName, id-on-xmppAddr, and URIs (RFC 4985, RFC 6120
//! §13.7.1.4, RFC 5922 §7.1).

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
    /// SRVName, as written (`_xmpp-server.example.com`).
    pub srv: Vec<String>,
    /// id-on-xmppAddr.
    pub xmpp: Vec<String>,
    /// uniformResourceIdentifier.
    pub uris: Vec<String>,
}

/// id-on-dnsSRV.
const SRV_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.8.7");
/// id-on-xmppAddr.
const XMPP_ADDR: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.8.5");

impl CertificateNames {
    /// Reads the names; a certificate that cannot be read has none.
    pub fn read(der: &[u8]) -> Self {
        let mut names = Self::default();
        let Ok(certificate) = Certificate::from_der(der) else { return names };
        let extensions = certificate.tbs_certificate().extensions().cloned().unwrap_or_default();
        for extension in extensions.iter().filter(|extension| extension.extn_id == SUBJECT_ALT_NAME) {
            let Ok(alternatives) = SubjectAltName::from_der(extension.extn_value.as_bytes()) else {
                continue;
            };
            for name in alternatives.0 {
                match name {
                    GeneralName::DnsName(name) => names.dns.push(name.as_str().to_ascii_lowercase()),
                    GeneralName::UniformResourceIdentifier(uri) => names.uris.push(uri.as_str().to_owned()),
                    GeneralName::OtherName(other) => {
                        // An IA5String or UTF8String; both are their octets.
                        let text = String::from_utf8_lossy(other.value.value()).into_owned();
                        if other.type_id == SRV_NAME {
                            names.srv.push(text);
                        } else if other.type_id == XMPP_ADDR {
                            names.xmpp.push(text);
                        }
                    }
                    _ => {}
                }
            }
        }
        names
    }

    /// True when a name proves an XMPP domain: dNSName (with `*` as whole left-most label), SRVName of
    /// `_xmpp-server`, or id-on-xmppAddr. The subject's CN never counts (D-19).
    pub fn prove_xmpp(&self, domain: &str) -> bool {
        let domain = domain.to_ascii_lowercase();
        self.dns.iter().any(|name| matches_with_wildcard(name, &domain))
            || self.srv.iter().any(|name| {
                name.to_ascii_lowercase().strip_prefix("_xmpp-server.").is_some_and(|of| of == domain)
            })
            || self.xmpp.iter().any(|name| name.to_lowercase() == domain)
    }

    /// True when a name proves a host as TLS clients ask for it.
    pub fn prove_host(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        self.dns.iter().any(|name| matches_with_wildcard(name, &host))
    }

    /// The SIP domains that the certificate is for (RFC 5922 §7.1): URIs `sip:host` without user part; if there is
    /// none, dNSNames. A wildcard names nothing (§7.2).
    pub fn sip_domains(&self) -> Vec<String> {
        let of_uri = |uri: &String| {
            let (scheme, rest) = uri.split_once(':')?;
            let is_plain = scheme.eq_ignore_ascii_case("sip") && !rest.contains(['@', ';', '?', '*']);
            is_plain.then(|| rest.to_ascii_lowercase())
        };
        let by_uri: Vec<String> = self.uris.iter().filter_map(of_uri).collect();
        if !by_uri.is_empty() {
            return by_uri;
        }
        self.dns.iter().filter(|name| !name.contains('*')).cloned().collect()
    }
}

fn matches_with_wildcard(name: &str, domain: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(rest) => domain
            .split_once('.')
            .is_some_and(|(label, of)| !label.is_empty() && of == rest && rest.contains('.')),
        None => !name.contains('*') && name == domain,
    }
}

const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");

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
        for domain in ["example.com", "a.b.example.com", ".example.com", "xexample.com"] {
            assert!(!names.prove_xmpp(domain), "{domain}");
        }
        assert!(!dns(&["i*.example.com"]).prove_xmpp("im.example.com"));
        assert!(!dns(&["*.com"]).prove_xmpp("example.com"));
        assert!(names.sip_domains().is_empty());
    }

    #[test]
    fn sip_tls_01_uris_without_user_count_before_dns_names() {
        let mut names = dns(&["host.example.com"]);
        names.uris = vec!["sips:x.example".into(), "sip:user@y.example".into(), "http://z.example".into()];
        assert_eq!(names.sip_domains(), ["host.example.com"]);
        names.uris.push("SIP:Example.com".into());
        assert_eq!(names.sip_domains(), ["example.com"]);
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
