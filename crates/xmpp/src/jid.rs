//! XMPP addresses (RFC 7622): split, enforced, and cheap to carry.
//!
//! Text goes in, a [`Jid`] or [`Domain`] in its canonical form comes out. Two addresses of one entity are equal octet by
//! octet. ASCII, which nearly all addresses are, takes a short way without any Unicode data.

mod domain;

use std::{borrow::Cow, fmt, sync::Arc};

use self::domain::prepare_domain;
use crate::precis;

/// A prepared address: `local@domain/resource`, of which only the domain must be there.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Jid {
    text: Arc<str>,
    /// Octets of the local part; 0 when there is none.
    local_len: u16,
    /// Where the domain ends.
    domain_end: u16,
}

/// A prepared domain: lower case, U-labels, no trailing dot.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Arc<str>);

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JidError {
    /// There is an `@` with nothing before it, or a `/` with nothing behind it, or no domain.
    #[error("a part of the address is empty")]
    EmptyPart,
    /// A part is over 1023 octets (RFC 7622 §3.1).
    #[error("a part of the address is over 1023 octets")]
    TooLong,
    /// The local part holds what it may not (RFC 7622 §3.3).
    #[error("the local part is not allowed")]
    Local,
    /// The domain is no domain name and no IP address (RFC 7622 §3.2).
    #[error("the domain is not allowed")]
    Domain,
    /// The resource holds what it may not (RFC 7622 §3.4).
    #[error("the resource is not allowed")]
    Resource,
}

impl Jid {
    /// Takes an address apart and prepares its parts: first `/` first, then first `@` (RFC 7622 §3.2).
    pub fn parse(text: &str) -> Result<Self, JidError> {
        let (bare, resource) = match text.split_once('/') {
            Some((bare, resource)) => (bare, Some(resource)),
            None => (text, None),
        };
        let (local, domain) = match bare.split_once('@') {
            Some((local, domain)) => (Some(local), domain),
            None => (None, bare),
        };
        let local = local.map(prepare_local).transpose()?;
        let domain = prepare_domain(domain)?;
        let resource = resource.map(prepare_resource).transpose()?;
        let is_kept = |part: Option<&Cow<'_, str>>| !matches!(part, Some(Cow::Owned(_)));
        if is_kept(local.as_ref()) && is_kept(Some(&domain)) && is_kept(resource.as_ref()) {
            let local_len = local.as_ref().map_or(0, |local| local.len());
            let domain_end = local.as_ref().map_or(0, |local| local.len() + 1) + domain.len();
            let len = domain_end + resource.as_ref().map_or(0, |resource| resource.len() + 1);
            // Nothing was changed, and no dot behind the domain left out.
            if len == text.len() {
                let (local_len, domain_end) = (local_len as u16, domain_end as u16);
                return Ok(Self { text: text.into(), local_len, domain_end });
            }
        }
        Ok(Self::join(local.as_deref(), &domain, resource.as_deref()))
    }

    /// Puts parts together, each prepared first.
    pub fn from_parts(
        local: Option<&str>,
        domain: &Domain,
        resource: Option<&str>,
    ) -> Result<Self, JidError> {
        let local = local.map(prepare_local).transpose()?;
        let resource = resource.map(prepare_resource).transpose()?;
        Ok(Self::join(local.as_deref(), domain.as_str(), resource.as_deref()))
    }

    fn join(local: Option<&str>, domain: &str, resource: Option<&str>) -> Self {
        let local_len = local.map_or(0, str::len);
        let domain_end = local.map_or(0, |local| local.len() + 1) + domain.len();
        let mut text = String::with_capacity(domain_end + resource.map_or(0, |resource| resource.len() + 1));
        if let Some(local) = local {
            text.push_str(local);
            text.push('@');
        }
        text.push_str(domain);
        if let Some(resource) = resource {
            text.push('/');
            text.push_str(resource);
        }
        Self { text: text.into(), local_len: local_len as u16, domain_end: domain_end as u16 }
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The address without its resource.
    pub fn bare(&self) -> &str {
        &self.text[..usize::from(self.domain_end)]
    }

    /// What stands before the `@`.
    pub fn local(&self) -> Option<&str> {
        (self.local_len > 0).then(|| &self.text[..usize::from(self.local_len)])
    }

    /// The domain.
    pub fn domain(&self) -> &str {
        let start = if self.local_len > 0 { usize::from(self.local_len) + 1 } else { 0 };
        &self.text[start..usize::from(self.domain_end)]
    }

    /// What stands behind the `/`.
    pub fn resource(&self) -> Option<&str> {
        self.text.get(usize::from(self.domain_end) + 1..)
    }

    /// True when there is no resource.
    pub fn is_bare(&self) -> bool {
        self.text.len() == usize::from(self.domain_end)
    }

    /// The address without its resource, as an address.
    pub fn to_bare(&self) -> Self {
        if self.is_bare() { self.clone() } else { Self { text: self.bare().into(), ..*self } }
    }
}

impl Domain {
    /// Prepares a domain name or an IP address.
    pub fn parse(text: &str) -> Result<Self, JidError> {
        prepare_domain(text).map(|domain| Self(domain.as_ref().into()))
    }

    /// The domain of an address of which perhaps no other part is right.
    pub fn of_address(text: &str) -> Result<Self, JidError> {
        let bare = text.split_once('/').map_or(text, |(bare, _)| bare);
        Self::parse(bare.split_once('@').map_or(bare, |(_, domain)| domain))
    }

    /// The prepared name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const MAX_PART_BYTES: usize = 1023;

fn check_len(part: &str) -> Result<(), JidError> {
    match part.len() {
        0 => Err(JidError::EmptyPart),
        1..=MAX_PART_BYTES => Ok(()),
        _ => Err(JidError::TooLong),
    }
}

/// UsernameCaseMapped without the eight characters that a local part may not hold (RFC 7622 §3.3).
fn prepare_local(local: &str) -> Result<Cow<'_, str>, JidError> {
    check_len(local)?;
    let local = if local.is_ascii() {
        lower_case(local)
    } else {
        precis::username_case_mapped(local).ok_or(JidError::Local)?
    };
    // Looked for in the result: a fullwidth `＠` becomes an `@`.
    if local
        .bytes()
        .any(|byte| matches!(byte, 0..=b' ' | b'"' | b'&' | b'\'' | b'/' | b':' | b'<' | b'>' | b'@' | 0x7f))
    {
        return Err(JidError::Local);
    }
    check_len(&local)?;
    Ok(local)
}

/// OpaqueString (RFC 7622 §3.4).
fn prepare_resource(resource: &str) -> Result<Cow<'_, str>, JidError> {
    check_len(resource)?;
    if resource.is_ascii() {
        if resource.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(JidError::Resource);
        }
        return Ok(Cow::Borrowed(resource));
    }
    let resource = precis::opaque_string(resource).ok_or(JidError::Resource)?;
    check_len(&resource)?;
    Ok(resource)
}

fn lower_case(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

impl std::str::FromStr for Jid {
    type Err = JidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl std::str::FromStr for Domain {
    type Err = JidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Jid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl fmt::Debug for Jid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, out)
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (Option<String>, String, Option<String>) {
        let jid = Jid::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        (jid.local().map(str::to_owned), jid.domain().to_owned(), jid.resource().map(str::to_owned))
    }

    #[test]
    fn xs_adr_02_an_address_is_split_at_the_first_slash_then_at_the_first_at() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(parts("a.example/b@example.net"), (None, "a.example".into(), some("b@example.net")));
        assert_eq!(parts("a@b.example/c/d@e"), (some("a"), "b.example".into(), some("c/d@e")));
        assert_eq!(Jid::parse("a@b@c"), Err(JidError::Domain));
    }

    #[test]
    fn xs_adr_02_addresses_that_mean_the_same_are_equal() {
        for (written, prepared) in [
            ("Romeo@Example.NET./Orchard", "romeo@example.net/Orchard"),
            ("TSCHÜSS@BÜCHER.example", "tschüss@bücher.example"),
            ("xn--bcher-kva.example", "bücher.example"),
            ("XN--BCHER-KVA.Example./r", "bücher.example/r"),
            ("u@[2001:DB8:0::1]", "u@[2001:db8::1]"),
            ("192.0.2.1", "192.0.2.1"),
            ("o\\27malley@h", "o\\27malley@h"),
            ("a@h/ r é", "a@h/ r é"),
        ] {
            assert_eq!(Jid::parse(written).map(|jid| jid.to_string()), Ok(prepared.to_owned()), "{written}");
            assert_eq!(
                Jid::parse(prepared).map(|jid| jid.to_string()),
                Ok(prepared.to_owned()),
                "{prepared}"
            );
        }
    }

    #[test]
    fn what_no_address_may_hold_is_refused() {
        for (text, error) in [
            ("", JidError::EmptyPart),
            ("@h", JidError::EmptyPart),
            ("a@", JidError::EmptyPart),
            ("a@.", JidError::EmptyPart),
            ("h/", JidError::EmptyPart),
            ("a b@h", JidError::Local),
            ("a\"b@h", JidError::Local),
            ("a:b@h", JidError::Local),
            ("♚@h", JidError::Local),
            ("a@h..x", JidError::Domain),
            ("a@-h", JidError::Domain),
            ("a@h_x.example", JidError::Domain),
            ("a@h x", JidError::Domain),
            ("a@[::g]", JidError::Domain),
            ("h/\u{7}", JidError::Resource),
        ] {
            assert_eq!(Jid::parse(text), Err(error), "{text:?}");
        }
        assert!(Jid::parse("h/♚").is_ok(), "a symbol may stand in a resource");
    }

    #[test]
    fn a_part_may_have_1023_octets_and_no_more() {
        let long = "a".repeat(1023);
        assert!(Jid::parse(&format!("{long}@h/{long}")).is_ok());
        assert_eq!(Jid::parse(&format!("{long}a@h")), Err(JidError::TooLong));
        assert_eq!(Jid::parse(&format!("h/{long}a")), Err(JidError::TooLong));
        assert_eq!(Jid::parse(&format!("{long}.{long}")), Err(JidError::TooLong));
    }

    #[test]
    fn a_bare_address_has_no_resource() {
        let jid = Jid::parse("a@h/r").expect("legal");
        assert_eq!((jid.bare(), jid.to_bare().as_str(), jid.is_bare()), ("a@h", "a@h", false));
        assert!(jid.to_bare().is_bare() && jid.to_bare().resource().is_none());
    }
}
