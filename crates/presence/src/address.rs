//! Bare addresses: `local@domain`, prepared once at the edge and shared from then on.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// A prepared domain name: lower case, U-labels, no trailing dot.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Domain(Arc<str>);

impl Domain {
    /// Takes a name that is already prepared (RFC 7622 §3.2); `None` when it is empty or over 1023 octets.
    pub fn from_prepared(name: &str) -> Option<Self> {
        (!name.is_empty() && name.len() <= MAX_PART_BYTES).then(|| Self(name.into()))
    }

    /// The name in the form that XMPP shows (U-labels).
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A prepared bare address. The local part is in the escaped form that XMPP shows (XEP-0106).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Box<str>", into = "Box<str>")]
pub struct Address(Arc<str>);

/// Why a text is no bare address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no `@`, or nothing on one side of it.
    #[error("an address is local@domain")]
    NotBare,
    /// A part is over 1023 octets (RFC 7622 §3.1).
    #[error("a part of the address is over 1023 octets")]
    TooLong,
}

impl Address {
    /// Joins a prepared local part and a domain.
    pub fn new(local: &str, domain: &str) -> Result<Self, AddressError> {
        if local.is_empty() || domain.is_empty() || local.contains('@') {
            return Err(AddressError::NotBare);
        }
        if local.len() > MAX_PART_BYTES || domain.len() > MAX_PART_BYTES {
            return Err(AddressError::TooLong);
        }
        let mut text = String::with_capacity(local.len() + 1 + domain.len());
        text.push_str(local);
        text.push('@');
        text.push_str(domain);
        Ok(Self(text.into()))
    }

    /// Takes `local@domain` that is already prepared.
    pub fn from_prepared(text: &str) -> Result<Self, AddressError> {
        let (local, domain) = text.split_once('@').ok_or(AddressError::NotBare)?;
        if local.is_empty() || domain.is_empty() || domain.contains(['@', '/']) {
            return Err(AddressError::NotBare);
        }
        if local.len() > MAX_PART_BYTES || domain.len() > MAX_PART_BYTES {
            return Err(AddressError::TooLong);
        }
        Ok(Self(text.into()))
    }

    /// The whole address, `local@domain`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the `@`.
    pub fn local(&self) -> &str {
        self.0.split_once('@').map_or("", |(local, _)| local)
    }

    /// What stands after the `@`.
    pub fn domain(&self) -> &str {
        self.0.split_once('@').map_or("", |(_, domain)| domain)
    }

    /// Which of the fixed partitions owns this address. Stored keys begin with it, so it never changes.
    pub fn partition(&self) -> u16 {
        partition_of(&self.0)
    }
}

/// Number of partitions that ownership is divided into, on however many shards and machines.
pub const PARTITIONS: u16 = 4096;

/// As [`Address::partition`], for the text of an address.
///
/// FNV-1a, folded to a partition: stable over versions and machines, unlike the standard hashers.
pub fn partition_of(text: &str) -> u16 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    ((hash ^ (hash >> 24) ^ (hash >> 48)) % u64::from(PARTITIONS)) as u16
}

const MAX_PART_BYTES: usize = 1023;

impl TryFrom<Box<str>> for Address {
    type Error = AddressError;

    fn try_from(text: Box<str>) -> Result<Self, Self::Error> {
        Self::from_prepared(&text)
    }
}

impl From<Address> for Box<str> {
    fn from(address: Address) -> Self {
        address.as_str().into()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, out)
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

    #[test]
    fn an_address_has_two_sides() {
        let address = Address::from_prepared("romeo@sip.example").expect("legal");
        assert_eq!((address.local(), address.domain()), ("romeo", "sip.example"));
        for text in ["", "@x", "x@", "x", "a@b@c", "a@b/c"] {
            assert_eq!(Address::from_prepared(text), Err(AddressError::NotBare), "{text:?}");
        }
    }

    #[test]
    fn an_over_long_part_is_refused_and_never_cut() {
        let long = "a".repeat(1024);
        assert_eq!(Address::new(&long, "x"), Err(AddressError::TooLong));
        assert_eq!(Address::new("x", &long), Err(AddressError::TooLong));
    }

    #[test]
    fn partitions_are_stable_and_spread() {
        assert_eq!(partition_of("romeo@sip.example"), partition_of("romeo@sip.example"));
        let used: std::collections::HashSet<u16> =
            (0..20_000).map(|n| partition_of(&format!("user{n}@corp.example"))).collect();
        assert!(used.len() > 3_900, "20,000 users fill {} of 4096 partitions", used.len());
    }
}
