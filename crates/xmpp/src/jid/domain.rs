//! The domain of an address (RFC 7622 §3.2): a name of NR-LDH labels and U-labels (IDNA2008), or an IP address.

use std::borrow::Cow;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use unicode_normalization::UnicodeNormalization;

use super::{JidError, check_len, lower_case};
use crate::precis::{Class, class_in_label, is_allowed_here, is_folded_upward, map_width};

/// The canonical form: no dot at the end, lower case, U-labels, NFC.
pub(super) fn prepare_domain(domain: &str) -> Result<Cow<'_, str>, JidError> {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    check_len(domain)?;
    if is_plain_name(domain) {
        return Ok(lower_case(domain));
    }
    if let Some(address) = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: std::net::Ipv6Addr = address.parse().map_err(|_| JidError::Domain)?;
        return Ok(Cow::Owned(format!("[{address}]")));
    }
    let mapped = map(domain);
    let is_label = |label: &str| {
        label.char_indices().all(|(at, c)| match class_in_label(c) {
            Class::Valid => true,
            Class::InContext => is_allowed_here(label, at, c),
            Class::FreeformOnly | Class::Disallowed => false,
        })
    };
    // UTS 46 maps compatibility characters where IDNA2008 refuses them: ask before it can.
    if !mapped.split('.').all(is_label) {
        return Err(JidError::Domain);
    }
    let uts46 = Uts46::new();
    uts46
        .to_ascii(mapped.as_bytes(), AsciiDenyList::STD3, Hyphens::Check, DnsLength::Verify)
        .map_err(|_| JidError::Domain)?;
    let (name, outcome) = uts46.to_unicode(mapped.as_bytes(), AsciiDenyList::STD3, Hyphens::Check);
    outcome.map_err(|_| JidError::Domain)?;
    // What came as an A-label is seen only now. Any other label that was mapped again was no U-label.
    let is_kept =
        |(label, shown): (&str, &str)| label == shown || (label.starts_with("xn--") && is_label(shown));
    if !mapped.split('.').zip(name.split('.')).all(is_kept) {
        return Err(JidError::Domain);
    }
    check_len(&name)?;
    Ok(Cow::Owned(name.into_owned()))
}

/// The mappings of RFC 5895 §2: width, dots, lower case, NFC.
fn map(domain: &str) -> String {
    let mut lower = String::with_capacity(domain.len());
    for c in domain.chars().map(map_width) {
        match c {
            '。' => lower.push('.'),
            c if is_folded_upward(c) => lower.push(c),
            c => lower.extend(c.to_lowercase()),
        }
    }
    lower.nfc().collect()
}

/// Letters, digits, inner hyphens and dots in the lengths that DNS allows, and no A-label: nothing IDNA would change
/// but the case.
fn is_plain_name(domain: &str) -> bool {
    domain.len() <= 253
        && domain.as_bytes().split(|byte| *byte == b'.').all(|bytes| {
            (1..=63).contains(&bytes.len())
                && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
                && bytes[0] != b'-'
                && bytes[bytes.len() - 1] != b'-'
                && bytes.get(2..4) != Some(b"--")
        })
}
