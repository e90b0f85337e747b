//! Hosts and ports as URIs, Via and `received` write them (RFC 3261 §25.1, RFC 5118, RFC 5954).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::UriFault;
use crate::lex;

/// A host: a name as written, or an address.
#[derive(Debug, Clone, Copy)]
pub enum Host<'a> {
    /// A domain name, perhaps with a final dot; compared without case.
    Name(&'a str),
    /// Four decimal numbers.
    V4(Ipv4Addr),
    /// An address that is written in brackets.
    V6(Ipv6Addr),
}

impl<'a> Host<'a> {
    /// Reads a host: `name`, `192.0.2.1` or `[2001:db8::1]`.
    ///
    /// Three colons in a row are taken as two, since the ABNF of RFC 3261 made some write them (RFC 5118 §4.10).
    pub fn parse(text: &'a str) -> Result<Self, UriFault> {
        if let Some(inner) = text.strip_prefix('[') {
            return inner.strip_suffix(']').and_then(v6).map(Self::V6).ok_or(UriFault::BadHost);
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let last = name.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|octet| octet.is_ascii_digit()) {
            // A last label in digits can only be an address (`toplabel` begins with a letter).
            return text.parse().map(Self::V4).map_err(|_| UriFault::BadHost);
        }
        let mut is_label_open = false;
        for octet in name.bytes() {
            // Underscores are no host name by the ABNF, but real peers use them in internal names.
            if !(octet.is_ascii_alphanumeric()
                || octet == b'-'
                || octet == b'_'
                || (octet == b'.' && is_label_open))
            {
                return Err(UriFault::BadHost);
            }
            is_label_open = octet != b'.';
        }
        if name.len() > 253 || !is_label_open {
            return Err(UriFault::BadHost);
        }
        Ok(Self::Name(text))
    }

    /// The address, when it is one; IPv4 addresses mapped into IPv6 are given as IPv4.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Name(_) => None,
            Self::V4(address) => Some(IpAddr::V4(*address)),
            Self::V6(address) => Some(IpAddr::V6(*address).to_canonical()),
        }
    }
}

/// Names compare without case and without their final dot; addresses by value. A name never equals an address.
impl PartialEq<Host<'_>> for Host<'_> {
    fn eq(&self, other: &Host<'_>) -> bool {
        match (self, other) {
            (Self::Name(a), Host::Name(b)) => {
                a.strip_suffix('.').unwrap_or(a).eq_ignore_ascii_case(b.strip_suffix('.').unwrap_or(b))
            }
            (Self::V4(a), Host::V4(b)) => a == b,
            (Self::V6(a), Host::V6(b)) => a == b,
            _ => false,
        }
    }
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::V4(address) => write!(f, "{address}"),
            Self::V6(address) => write!(f, "[{address}]"),
        }
    }
}

/// A host and perhaps a port.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HostPort<'a> {
    /// The host.
    pub host: Host<'a>,
    /// The port, 1 to 65535, where one is written.
    pub port: Option<u16>,
}

impl<'a> HostPort<'a> {
    /// Reads `host` or `host:port`, without white space.
    pub fn parse(text: &'a str) -> Result<Self, UriFault> {
        // In an IPv6 literal the port's colon comes after the bracket.
        let after = if text.starts_with('[') { lex::find(text, b']').ok_or(UriFault::BadHost)? } else { 0 };
        let Some(colon) = lex::find(&text[after..], b':').map(|colon| after + colon) else {
            return Ok(Self { host: Host::parse(text)?, port: None });
        };
        let port = lex::number(&text[colon + 1..]).filter(|port| *port != 0).ok_or(UriFault::BadPort)?;
        Ok(Self { host: Host::parse(&text[..colon])?, port: Some(port) })
    }
}

impl fmt::Display for HostPort<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => write!(f, "{}", self.host),
        }
    }
}

/// Reads an address that stands with or without brackets, as `received` does (RFC 5118 §4.5).
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    let text = lex::trim(text);
    match text.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').and_then(v6).map(IpAddr::V6),
        None => text.parse().ok().or_else(|| v6(text).map(IpAddr::V6)),
    }
}

fn v6(text: &str) -> Option<Ipv6Addr> {
    text.parse().ok().or_else(|| text.replacen(":::", "::", 1).parse().ok())
}
