//! The checked settings. Everything in here is valid; paths are complete.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use tombolo_policy::{Conflict, Home, LocalDomain, Partner, Proxy, SipTransport, Table};
use tombolo_presence::Domain;

use crate::memory::MemorySettings;

/// The settings of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What this process is.
    pub role: Role,
    /// Where it keeps what is its own: keys, the administration socket, by default the store.
    pub data_dir: PathBuf,
    /// The local domains; one at least.
    pub domains: Vec<DomainSettings>,
    /// Toward partners; `None` in a gateway, whose edges have it.
    pub xmpp: Option<XmppSettings>,
    /// A partner that was not heard for so long is pinged. Nothing on an edge.
    pub ping_after: Duration,
    /// Toward front ends and phones; `None` on an edge.
    pub sip: Option<SipSettings>,
    /// The partners, in the order of the files.
    pub partners: Vec<Partner>,
    /// How names are looked up.
    pub dns: DnsSettings,
    /// The inside link; `None` in an all-in-one.
    pub link: Option<LinkSettings>,
    /// Where state is kept; `None` on an edge.
    pub store: Option<StoreSettings>,
    /// The accounts of built-in homes; `None` on an edge.
    pub accounts: Option<AccountSettings>,
    /// How much memory the process may hold for others.
    pub memory: MemorySettings,
    /// Administration.
    pub admin: AdminSettings,
    /// Logging.
    pub log: LogSettings,
}

impl Settings {
    pub(crate) const PING_AFTER: Duration = Duration::from_secs(30);

    /// The policy table of these settings. On an edge, which knows no homes, only
    /// [`Table::federates`] and the look-ups mean anything.
    ///
    /// # Panics
    /// When a domain is claimed twice, which settings that were checked as a whole never do.
    pub fn policy_table(&self, generation: u64) -> Table {
        self.try_policy_table(generation).expect("checked settings claim each domain once")
    }

    /// [`Settings::policy_table`], for settings that were put together of two files.
    ///
    /// # Errors
    /// When a domain is claimed twice.
    pub fn try_policy_table(&self, generation: u64) -> Result<Table, Conflict> {
        let local = self.domains.iter().map(|domain| LocalDomain {
            name: domain.name.clone(),
            home: domain.home.clone().unwrap_or(Home::BuiltIn),
        });
        Table::new(generation, local.collect(), self.partners.clone())
    }

    /// True when some local domain has a built-in home.
    pub fn has_built_in_home(&self) -> bool {
        self.domains.iter().any(|domain| domain.home == Some(Home::BuiltIn))
    }
}

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Edge and gateway in one process.
    AllInOne,
    /// The XMPP side in the DMZ.
    Edge,
    /// Users, translation and SIP, inside.
    Gateway,
}

impl Role {
    /// The word of the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllInOne => "all-in-one",
            Self::Edge => "edge",
            Self::Gateway => "gateway",
        }
    }

    pub(crate) const WORDS: &[(&str, Self)] =
        &[("all-in-one", Self::AllInOne), ("edge", Self::Edge), ("gateway", Self::Gateway)];
}

impl std::str::FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = Self::WORDS.iter().find(|(word, _)| *word == text);
        word.map(|(_, role)| *role).ok_or("a role is all-in-one, edge or gateway")
    }
}

/// A local domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainSettings {
    /// Its name, prepared.
    pub name: Domain,
    /// Where its users live; `None` on an edge.
    pub home: Option<Home>,
    /// What proves us as this domain; may be missing only in a gateway that speaks no TLS for it.
    pub certificate: Option<CertificateFiles>,
}

/// A certificate chain and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, own certificate first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Whom a certificate must lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The authorities that the system trusts.
    System,
    /// Those in a PEM file.
    File(PathBuf),
}

/// The XMPP side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XmppSettings {
    /// Where streams with STARTTLS are accepted.
    pub listen: Vec<SocketAddr>,
    /// Where streams inside TLS are accepted (XEP-0368).
    pub direct_tls_listen: Vec<SocketAddr>,
    /// Whom partners' certificates must lead to.
    pub trust: Trust,
    /// What one stream, and all together, may cost.
    pub limits: XmppLimits,
}

/// What streams may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XmppLimits {
    /// Largest stanza in octets.
    pub stanza_bytes: usize,
    /// Largest element in octets before a domain is proved.
    pub early_element_bytes: usize,
    /// Depth of elements.
    pub depth: usize,
    /// Attributes of an element.
    pub attributes: usize,
    /// Namespace declarations of an element.
    pub declarations: usize,
    /// Proved pairs of a stream.
    pub pairs: usize,
    /// SASL attempts of a stream.
    pub sasl_attempts: u32,
    /// How long a stream may take to prove a domain.
    pub authenticate_within: Duration,
    /// A stream with nothing to carry is closed after this.
    pub idle: Duration,
    /// Streams in all.
    pub connections: usize,
    /// Streams of one partner, with all domains of its entry.
    pub connections_per_partner: usize,
    /// Streams in all that have proved nothing yet.
    pub unproved_connections: usize,
    /// Such streams from one address.
    pub unproved_connections_per_address: usize,
    /// Streams from one address, proved or not.
    pub connections_per_address: usize,
    /// Connections that one address may begin in a minute.
    pub attempts_per_address: usize,
    /// Octets a second that a partner may send on one stream.
    pub bytes_per_second: u64,
    /// Stanzas a second that a partner may send on one stream.
    pub stanzas_per_second: u64,
    /// Stanzas with a malformed address that a partner may send in a minute on one stream.
    pub malformed_addresses_per_minute: u32,
    /// A stream that wrote nothing for so long writes a space.
    pub keepalive: Duration,
}

impl Default for XmppLimits {
    fn default() -> Self {
        Self {
            stanza_bytes: 262_144,
            early_element_bytes: 10_000,
            depth: 64,
            attributes: 64,
            declarations: 32,
            pairs: 128,
            sasl_attempts: 3,
            authenticate_within: Duration::from_secs(30),
            idle: Duration::from_secs(600),
            connections: 10_000,
            connections_per_partner: 100,
            unproved_connections: 1_000,
            unproved_connections_per_address: 20,
            connections_per_address: 1_000,
            attempts_per_address: 600,
            bytes_per_second: 16_777_216,
            stanzas_per_second: 20_000,
            malformed_addresses_per_minute: 600,
            keepalive: Duration::from_secs(300),
        }
    }
}

/// The SIP side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipSettings {
    /// Where requests are accepted.
    pub listen: Vec<SipListen>,
    /// Whom front ends' certificates must lead to.
    pub trust: Trust,
    /// The least time between two states of one presentity to one SIP watcher (RFC 3856 §6.10).
    pub watcher_interval: Duration,
    /// A phone that is registered and publishes nothing is shown as available.
    pub registration_is_presence: bool,
    /// How often a keep-alive is sent to front ends, and awaited; zero for never.
    pub keep_alive: Duration,
    /// What messages may cost.
    pub limits: SipLimits,
}

impl SipSettings {
    pub(crate) const WATCHER_INTERVAL: Duration = Duration::from_secs(5);
}

/// One SIP listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SipListen {
    /// How SIP is carried there.
    pub transport: SipTransport,
    /// Where.
    pub address: SocketAddr,
}

impl std::str::FromStr for SipListen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "a SIP listener is tls:ADDRESS:PORT, tcp:ADDRESS:PORT or udp:ADDRESS:PORT";
        let (transport, at) = text.split_once(':').ok_or(FORM)?;
        // The word alone, as it is written: `TLS:` would be read by nobody else.
        let transport = [SipTransport::Tls, SipTransport::Tcp, SipTransport::Udp]
            .into_iter()
            .find(|known| known.as_str() == transport)
            .ok_or(FORM)?;
        Ok(Self { transport, address: address(at).map_err(|_| FORM)? })
    }
}

impl std::fmt::Display for SipListen {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}:{}", self.transport.as_str(), self.address)
    }
}

/// What SIP messages may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SipLimits {
    /// Largest message in octets.
    pub message_bytes: usize,
    /// Largest header field in octets.
    pub header_bytes: usize,
    /// Header fields of a message.
    pub headers: usize,
    /// Via values of a message.
    pub vias: usize,
    /// Longest subscription or binding of a phone or unknown peer.
    pub expires: Duration,
    /// Longest subscription of a front end.
    pub front_end_expires: Duration,
    /// Connections that peers may have with us.
    pub connections: usize,
    /// Such connections from one address.
    pub connections_per_address: usize,
    /// Those from one address by which nobody has proved himself yet.
    pub unproved_connections_per_address: usize,
}

impl Default for SipLimits {
    fn default() -> Self {
        Self {
            message_bytes: 65_536,
            header_bytes: 8_192,
            headers: 128,
            vias: 70,
            expires: Duration::from_secs(3_600),
            front_end_expires: Duration::from_secs(28_800),
            connections: 20_000,
            connections_per_address: 2_000,
            unproved_connections_per_address: 100,
        }
    }
}

/// How names are looked up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DnsSettings {
    /// The servers that are asked; empty means the system's.
    pub servers: Vec<SocketAddr>,
}

/// The inside link between edges and gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSettings {
    /// Which end this is.
    pub end: LinkEnd,
    /// What proves this end.
    pub certificate: CertificateFiles,
    /// The authorities that the other end's certificate must lead to; never the system's.
    pub trust: PathBuf,
}

/// An end of the inside link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEnd {
    /// An edge waits for gateways.
    Listen {
        /// Where.
        at: SocketAddr,
        /// For which hosts a gateway's certificate may be: names in A-labels, or IP addresses; one at least.
        gateways: Vec<String>,
    },
    /// A gateway opens links to these edges.
    Edges(Vec<Proxy>),
}

/// Where state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSettings {
    /// Nowhere: it ends with the process.
    Memory,
    /// In this file.
    File(PathBuf),
}

/// The accounts of built-in homes, and how their phones prove themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountSettings {
    /// The file of the accounts. It need not exist.
    pub file: PathBuf,
    /// What a challenge offers, the preferred first; one at least, each once.
    pub digest: Vec<DigestAlgorithm>,
}

impl AccountSettings {
    /// The accounts in a file; SHA-256 is offered, then MD5 (RFC 8760 §2.4).
    pub fn new(file: PathBuf) -> Self {
        Self { file, digest: vec![DigestAlgorithm::Sha256, DigestAlgorithm::Md5] }
    }
}

/// A hash that a phone may prove its password by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestAlgorithm {
    /// RFC 8760.
    Sha256,
    /// RFC 3261 §22.
    Md5,
}

/// Administration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSettings {
    /// Where HTTP is served: a loopback address, unless the file says that it means another.
    pub listen: SocketAddr,
}

/// Logging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// For people or for programs.
    pub format: LogFormat,
    /// The least that is written.
    pub level: LogLevel,
    /// Addresses of people are written as they are, not hidden.
    pub show_addresses: bool,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: LogLevel::Info, show_addresses: false }
    }
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people at a terminal, for programs elsewhere.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How important a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// An operator must act.
    Error,
    /// A partner broke something.
    Warn,
    /// A session began or ended, a setting changed.
    Info,
    /// One decision.
    Debug,
    /// The wire.
    Trace,
}

impl LogLevel {
    /// The word of the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Reads `ADDRESS:PORT`.
pub(crate) fn address(text: &str) -> Result<SocketAddr, std::net::AddrParseError> {
    text.parse().map(tombolo_net::canonical)
}

/// Reads `ADDRESS:PORT`, or an address alone with `default_port`.
pub(crate) fn socket_address(text: &str, default_port: u16) -> Result<SocketAddr, std::net::AddrParseError> {
    address(text).or_else(|error| match text.parse::<IpAddr>() {
        Ok(ip) => Ok(tombolo_net::canonical(SocketAddr::new(ip, default_port))),
        Err(_) => Err(error),
    })
}
