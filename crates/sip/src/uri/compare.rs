//! Equivalence of URIs (RFC 3261 §19.1.4).

use super::{Scheme, UriRef, is_name, unescape};

/// Parameters that never match when only one of the two URIs has them.
const DECISIVE: [&str; 5] = ["user", "ttl", "method", "maddr", "transport"];

pub(super) fn matches(a: &UriRef<'_>, b: &UriRef<'_>) -> bool {
    if a.text == b.text {
        return true;
    }
    if a.scheme != b.scheme {
        return false;
    }
    match a.scheme {
        Scheme::Tel | Scheme::Other => is_same_opaque(a.text, b.text),
        Scheme::Sip | Scheme::Sips | Scheme::Pres | Scheme::Im => {
            is_same_user(a.user, b.user)
                && is_same_user(a.password, b.password)
                && a.host == b.host
                && a.port == b.port
                && params_match(a, b)
                && params_match(b, a)
                && headers_match(a.headers, b.headers)
        }
    }
}

/// Equal but for the case of the scheme.
fn is_same_opaque(a: &str, b: &str) -> bool {
    match (a.split_once(':'), b.split_once(':')) {
        (Some((scheme, rest)), Some((other_scheme, other_rest))) => {
            scheme.eq_ignore_ascii_case(other_scheme) && rest == other_rest
        }
        _ => false,
    }
}

/// Equal with case after undoing escapes; but an escaped reserved character is not the bare one.
pub(super) fn is_same_user(a: Option<&str>, b: Option<&str>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a == b || ((a.contains('%') || b.contains('%')) && normal(a) == normal(b)),
        (None, None) => true,
        _ => false,
    }
}

/// Escapes of characters outside the "reserved" set undone, the others in upper case.
fn normal(text: &str) -> Vec<u8> {
    let octets = text.as_bytes();
    let mut out = Vec::with_capacity(octets.len());
    let mut at = 0;
    while at < octets.len() {
        // Escapes were checked when the URI was read.
        let escaped = text.get(at + 1..at + 3).filter(|_| octets[at] == b'%');
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(octet) if b";/?:@&=+$,".contains(&octet) || octet == b'%' => {
                out.extend([b'%', octets[at + 1].to_ascii_uppercase(), octets[at + 2].to_ascii_uppercase()]);
                at += 3;
            }
            Some(octet) => {
                out.push(octet);
                at += 3;
            }
            None => {
                out.push(octets[at]);
                at += 1;
            }
        }
    }
    out
}

fn is_same_text(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
        || ((a.contains('%') || b.contains('%')) && normal(a).eq_ignore_ascii_case(&normal(b)))
}

/// Every parameter of `a` is one of `b` with the same value, or one that may be missing there.
fn params_match(a: &UriRef<'_>, b: &UriRef<'_>) -> bool {
    a.params.iter().all(|(name, value)| {
        let plain = unescape(name).unwrap_or(name.into());
        match b.params.find(&plain) {
            Some(other) => match (value, other) {
                (Some(value), Some(other)) => is_same_text(value, other),
                (None, None) => true,
                _ => false,
            },
            None => !DECISIVE.iter().any(|decisive| is_name(name, decisive)),
        }
    })
}

/// The same header components in any order, each as often as in the other.
fn headers_match(a: &str, b: &str) -> bool {
    if a.is_empty() && b.is_empty() {
        return true;
    }
    let sorted = |text: &str| {
        let mut pairs: Vec<Vec<u8>> = text.split('&').map(|pair| normal(pair).to_ascii_lowercase()).collect();
        pairs.sort_unstable();
        pairs
    };
    sorted(a) == sorted(b)
}
