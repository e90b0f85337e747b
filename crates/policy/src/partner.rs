//! One partner entry: its domains, how it proves them, and what it may at most do and see.

use std::{fmt, time::Duration};

use serde::Serialize;
use tombolo_presence::{Domain, PresenceState};

/// An XMPP organisation that we federate with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partner {
    /// The domain that names the entry.
    pub domain: Domain,
    /// Further domains of the same organisation, and whole subtrees where that is said.
    pub further_domains: Vec<DomainPattern>,
    /// How far its users' identities are trusted.
    pub kind: PartnerKind,
    /// How it may prove a domain, best first; never empty in a checked entry.
    pub authenticate: Vec<Method>,
    /// Where its streams are opened to, instead of the hosts that DNS names.
    pub proxy: Option<Proxy>,
    /// The most that its users may see of ours.
    pub detail: Detail,
    /// Which side may begin.
    pub direction: Permitted,
    /// What it may cost us.
    pub limits: Limits,
    /// A certificate with clientAuth alone passes as this partner's client certificate.
    pub allow_client_auth_only: bool,
    /// The operator said that this partner may be reached without TLS.
    pub insecure: bool,
    /// The type of messages toward it.
    pub message_type: MessageType,
    /// How long a MESSAGE toward it waits for an error before it is answered with 202 (D-24).
    pub message_answer_wait: Duration,
}

impl Partner {
    /// An entry with the default of every setting: public and unverified, SASL EXTERNAL only, both directions.
    pub fn new(domain: Domain) -> Self {
        Self {
            domain,
            further_domains: Vec::new(),
            kind: PartnerKind::PublicUnverified,
            authenticate: vec![Method::SaslExternal],
            proxy: None,
            detail: Detail::Full,
            direction: Permitted::Both,
            limits: Limits::default(),
            allow_client_auth_only: false,
            insecure: false,
            message_type: MessageType::Normal,
            message_answer_wait: Duration::from_millis(500),
        }
    }

    /// The most that this partner's users may see: the entry's detail under the ceiling of its kind.
    pub fn effective_detail(&self) -> Detail {
        match self.kind {
            PartnerKind::Federated => self.detail,
            PartnerKind::PublicVerified | PartnerKind::PublicUnverified => self.detail.min(Detail::NoNote),
        }
    }

    /// True when this proof is on the entry's list.
    pub fn accepts(&self, method: Method) -> bool {
        self.authenticate.contains(&method)
    }
}

/// How far a partner's identities are trusted. The kind is a ceiling: nothing else in the entry goes above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartnerKind {
    /// An organisation that we have an agreement with.
    Federated,
    /// A public provider that is trusted to verify who its users are; never sees notes.
    PublicVerified,
    /// A public provider that is not: always asks, writes only to who knows it, never sees notes.
    PublicUnverified,
}

impl PartnerKind {
    /// The word of the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Federated => "federated",
            Self::PublicVerified => "public-verified",
            Self::PublicUnverified => "public-unverified",
        }
    }
}

/// How a domain may be proved on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// SASL EXTERNAL with a certificate (XEP-0178).
    SaslExternal,
    /// Server dialback inside TLS (XEP-0220).
    TlsDialback,
    /// Server dialback on a bare TCP stream; only with the entry's `insecure`.
    PlainDialback,
}

impl Method {
    /// The word of the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SaslExternal => "sasl-external",
            Self::TlsDialback => "tls-dialback",
            Self::PlainDialback => "plain-dialback",
        }
    }
}

/// How much of a presentity may be seen, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Detail {
    /// Nothing: watching is refused.
    None,
    /// Which devices are how reachable, and no word more.
    AvailabilityOnly,
    /// Everything but the texts that people write.
    NoNote,
    /// Everything.
    Full,
}

impl Detail {
    /// The word of the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::AvailabilityOnly => "availability-only",
            Self::NoNote => "no-note",
            Self::Full => "full",
        }
    }

    /// What a watcher with this detail sees of `state`.
    pub fn cut(self, state: &PresenceState) -> PresenceState {
        let mut seen = match self {
            Self::None => return PresenceState::default(),
            Self::Full => return state.clone(),
            Self::NoNote | Self::AvailabilityOnly => state.clone(),
        };
        seen.notes.clear();
        for device in &mut seen.devices {
            device.notes.clear();
            if self == Self::AvailabilityOnly {
                device.priority = None;
                device.idle_since = None;
            }
        }
        seen
    }
}

/// Which side may begin to watch or write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Permitted {
    /// Both sides.
    Both,
    /// Only the partner's users.
    Inbound,
    /// Only our users.
    Outbound,
}

impl Permitted {
    /// The word of the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// What one partner may cost us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest stanza in octets, 10,000 or more (RFC 6120 §13.12); `None` follows the listener's limit.
    pub stanza_bytes: Option<usize>,
    /// Largest stanza in octets that the partner takes, where it does not announce another (XEP-0478).
    pub accepted_stanza_bytes: usize,
    /// Most pairs of a user of ours and one of the partner, whichever of the two watches.
    pub subscriptions: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { stanza_bytes: None, accepted_stanza_bytes: 262_144, subscriptions: 100_000 }
    }
}

/// The type that messages toward a partner carry (D-17).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MessageType {
    /// `type='normal'` (RFC 7572 §5).
    Normal,
    /// `type='chat'`, which many clients show as a conversation.
    Chat,
}

/// One domain, or every domain below one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DomainPattern {
    /// This domain and nothing below it.
    Exact(Domain),
    /// `*.` and this domain: everything below it at any depth, not the domain itself.
    Below(Domain),
}

impl DomainPattern {
    /// True when `domain` is meant.
    pub fn matches(&self, domain: &str) -> bool {
        match self {
            Self::Exact(own) => own.as_str() == domain,
            Self::Below(parent) => domain
                .strip_suffix(parent.as_str())
                .and_then(|head| head.strip_suffix('.'))
                .is_some_and(|labels| !labels.is_empty()),
        }
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(domain) => out.write_str(domain.as_str()),
            Self::Below(parent) => write!(out, "*.{parent}"),
        }
    }
}

/// A host and port that streams are opened to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Proxy {
    /// A host name, or an IP address without brackets.
    pub host: Box<str>,
    /// The TCP port, never 0.
    pub port: u16,
}

/// Why a text is no `host:port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a proxy is host:port, an IPv6 address in brackets, the port 1 to 65535")]
pub struct ProxyError;

impl std::str::FromStr for Proxy {
    type Err = ProxyError;

    fn from_str(text: &str) -> Result<Self, ProxyError> {
        let (host, port) = text.rsplit_once(':').ok_or(ProxyError)?;
        let port = port_number(port).ok_or(ProxyError)?;
        Ok(Self { host: host_name(host).ok_or(ProxyError)?.into(), port })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host(out, &self.host)?;
        write!(out, ":{}", self.port)
    }
}

/// A port in digits, 1 to 65535.
pub(crate) fn port_number(text: &str) -> Option<u16> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits {
        return None;
    }
    text.parse().ok().filter(|port| *port != 0)
}

/// A host name, an IPv4 address, or an IPv6 address in brackets, which are taken off.
pub(crate) fn host_name(text: &str) -> Option<&str> {
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']')?;
        return inner.parse::<std::net::Ipv6Addr>().is_ok().then_some(inner);
    }
    let is_label = |label: &str| {
        !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_name = text.len() <= 253
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
        && text.split('.').all(is_label);
    is_name.then_some(text)
}

/// Writes a host as it stands before a port.
pub(crate) fn write_host(out: &mut fmt::Formatter<'_>, host: &str) -> fmt::Result {
    if host.contains(':') { write!(out, "[{host}]") } else { out.write_str(host) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_presence::{Availability, Device, Note};

    fn domain(name: &str) -> Domain {
        Domain::from_prepared(name).expect("legal")
    }

    #[test]
    fn a_subtree_pattern_means_what_is_below_and_not_the_domain_itself() {
        let below = DomainPattern::Below(domain("example.com"));
        for (name, is_meant) in [
            ("a.example.com", true),
            ("b.a.example.com", true),
            ("example.com", false),
            ("anexample.com", false),
        ] {
            assert_eq!(below.matches(name), is_meant, "{name}");
        }
        assert!(!below.matches(".example.com"));
    }

    #[test]
    fn a_proxy_is_read_and_written_back_the_same() {
        for text in ["127.0.0.1:15269", "xmpp.partner.example:5269", "[::1]:5269"] {
            assert_eq!(text.parse::<Proxy>().expect(text).to_string(), text);
        }
        for text in
            ["", "host", "host:", ":5269", "host:0", "host:65536", "host:+1", "::1:5269", "a b:1", "[x]:1"]
        {
            assert_eq!(text.parse::<Proxy>(), Err(ProxyError), "{text:?}");
        }
    }

    #[test]
    fn public_kinds_never_see_a_note() {
        let mut partner = Partner::new(domain("public.example"));
        partner.detail = Detail::Full;
        for (kind, detail) in [
            (PartnerKind::Federated, Detail::Full),
            (PartnerKind::PublicVerified, Detail::NoNote),
            (PartnerKind::PublicUnverified, Detail::NoNote),
        ] {
            partner.kind = kind;
            assert_eq!(partner.effective_detail(), detail, "{kind:?}");
        }
        partner.detail = Detail::AvailabilityOnly;
        assert_eq!(partner.effective_detail(), Detail::AvailabilityOnly, "a kind raises nothing");
    }

    #[test]
    fn a_cut_leaves_out_what_the_detail_hides() {
        let note = Note { lang: None, text: "at the dentist".into() };
        let device = Device {
            id: "phone".into(),
            availability: Availability::Away,
            priority: Some(5),
            notes: vec![note.clone()],
            idle_since: Some(1_700_000_000),
        };
        let state = PresenceState { devices: vec![device], notes: vec![note] };
        assert_eq!(Detail::Full.cut(&state), state);
        let no_note = Detail::NoNote.cut(&state);
        assert!(no_note.notes.is_empty() && no_note.devices[0].notes.is_empty());
        assert_eq!(no_note.devices[0].idle_since, Some(1_700_000_000));
        let bare = Detail::AvailabilityOnly.cut(&state);
        assert_eq!((bare.devices[0].priority, bare.devices[0].idle_since), (None, None));
        assert_eq!(bare.devices[0].availability, Availability::Away);
        assert!(Detail::None.cut(&state).is_empty());
    }
}
