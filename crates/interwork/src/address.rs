//! Addresses across the border: SIP URIs to bare addresses and resources, and back (RFC 7247 §6, XEP-0106).
//!
//! The two directions are inverse to each other for every address in its canonical form, so two users of one side are
//! never one user of the other.

mod local;

use std::{borrow::Cow, fmt::Write as _};

use tombolo_presence::Address;
use tombolo_sip::uri::{Host, Scheme, UriRef, unescape};
use tombolo_xmpp::jid::{Domain, Jid};

use self::local::{local_of_user, push_user, shown_user};

/// Whom a SIP URI means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressee {
    /// The bare address.
    pub address: Address,
    /// The device that a GRUU names (parameter `gr`, RFC 5627).
    pub device: Option<Box<str>>,
}

/// Why a SIP URI is nobody's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressFault {
    /// Its scheme is not `sip`, `sips`, `pres` or `im`.
    #[error("the URI is of another scheme")]
    Scheme,
    /// It has no user or no host.
    #[error("the URI names no user of a domain")]
    NoUser,
    /// The user part is no UTF-8 text, or holds control characters.
    #[error("the user part is no text")]
    NotText,
    /// What it says is not allowed in an XMPP address (RFC 7622), or too long for one.
    #[error("the user part is not allowed in an XMPP address")]
    NotAllowed,
}

impl AddressFault {
    /// The status code that a request to such a URI gets.
    pub fn status(self) -> u16 {
        match self {
            Self::Scheme => 416,
            Self::NoUser => 484,
            Self::NotText | Self::NotAllowed => 404,
        }
    }
}

/// Whom `uri` means: scheme, password, headers and all parameters but `gr` are dropped (STOX-A-06, STOX-A-16).
pub fn address_of_uri(uri: &UriRef<'_>) -> Result<Addressee, AddressFault> {
    if !matches!(uri.scheme(), Scheme::Sip | Scheme::Sips | Scheme::Pres | Scheme::Im) {
        return Err(AddressFault::Scheme);
    }
    let user = uri.user().ok_or(AddressFault::NoUser)?;
    let plain = unescape(user).map_err(|_| AddressFault::NotText)?;
    if plain.chars().any(char::is_control) {
        return Err(AddressFault::NotText);
    }
    let local = local_of_user(&plain)?;
    let host = match uri.host().ok_or(AddressFault::NoUser)? {
        Host::Name(name) => name.to_owned(),
        Host::V4(address) => address.to_string(),
        Host::V6(address) => format!("[{address}]"),
    };
    let domain = Domain::parse(&host).map_err(|_| AddressFault::NotAllowed)?;
    // A resource that cannot be one is only lost as a hint; the user is still meant.
    let device = uri.params().value("gr").and_then(|gr| Some(unescape(gr).ok()?.into_owned()));
    let bare = Jid::from_parts(Some(&local), &domain, None).map_err(|_| AddressFault::NotAllowed)?;
    let full = device.and_then(|device| Jid::from_parts(Some(&local), &domain, Some(&device)).ok());
    let address = Address::from_prepared(bare.bare()).map_err(|_| AddressFault::NotAllowed)?;
    Ok(Addressee { address, device: full.and_then(|full| full.resource().map(Into::into)) })
}

/// The domain that an operator types, in the form in which domains are compared.
pub fn domain_of_text(text: &str) -> Option<tombolo_presence::Domain> {
    tombolo_presence::Domain::from_prepared(Domain::parse(text).ok()?.as_str())
}

/// A text as a resource, prepared; `None` when it can be none (RFC 7622 §3.4).
pub fn resource_from(text: &str) -> Option<Box<str>> {
    Jid::parse(&format!("x/{text}")).ok()?.resource().map(Into::into)
}

/// `sip:user@domain` for a bare address.
pub fn uri_of(address: &Address) -> String {
    uri_with("sip:", address)
}

/// The user name by which a phone logs in: the user part of its address of record as people write it, without escapes.
pub fn login_name(address: &Address) -> Cow<'_, str> {
    shown_user(address.local())
}

/// `sip:user@domain;gr=device`: a device as a GRUU (RFC 5627), or the bare URI without one.
pub fn uri_of_device(address: &Address, device: Option<&str>) -> String {
    let mut uri = uri_of(address);
    write_device(device, &mut uri);
    uri
}

/// Appends what names a device of a URI's user, if one is named.
pub fn write_device(device: Option<&str>, uri: &mut String) {
    if let Some(device) = device.filter(|device| !device.is_empty()) {
        uri.push_str(";gr=");
        for octet in device.bytes() {
            if octet.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&octet) {
                uri.push(char::from(octet));
            } else {
                write!(uri, "%{octet:02X}").expect("a String takes everything");
            }
        }
    }
}

/// `sip:user@domain` for an `xmpp:` URI of a user (RFC 5122); `None` when it names nobody.
pub fn sip_uri_of_xmpp_uri(uri: &str) -> Option<String> {
    let path = uri.trim().strip_prefix("xmpp:")?.split(['?', '#']).next()?;
    // An authority names the account to use, not the one that is meant.
    let path =
        path.strip_prefix("//").map_or(Some(path), |rest| rest.split_once('/').map(|(_, path)| path))?;
    let jid = Jid::parse(&unescape(path).ok()?).ok()?;
    let address = Address::from_prepared(jid.bare()).ok()?;
    Some(uri_of_device(&address, jid.resource()))
}

/// The `xmpp:` URI of whom a SIP URI means (RFC 5122); `None` when it names nobody.
pub fn xmpp_uri_of_sip_uri(uri: &str) -> Option<String> {
    let addressee = address_of_uri(&UriRef::parse(uri.trim()).ok()?).ok()?;
    let (local, _) = addressee.address.as_str().rsplit_once('@')?;
    let mut xmpp = "xmpp:".to_owned();
    push_escaped(local, &mut xmpp);
    xmpp.push('@');
    xmpp.push_str(&sip_domain(addressee.address.domain()));
    if let Some(device) = addressee.device {
        xmpp.push('/');
        push_escaped(&device, &mut xmpp);
    }
    Some(xmpp)
}

/// Appends a local part or a resource as a path of RFC 5122 has it.
fn push_escaped(text: &str, uri: &mut String) {
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~!$()*+,;=".contains(&octet) {
            uri.push(char::from(octet));
        } else {
            write!(uri, "%{octet:02X}").expect("a String takes everything");
        }
    }
}

/// A domain as SIP writes it: A-labels (STOX-A-17).
pub fn sip_domain(domain: &str) -> String {
    idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.to_owned())
}

fn uri_with(scheme: &str, address: &Address) -> String {
    let mut uri = String::with_capacity(address.as_str().len() + scheme.len() + 8);
    write_uri(scheme, address, &mut uri);
    uri
}

/// Appends the URI of a bare address in a scheme, which brings its colon: `sip:`, or `pres:` (RFC 3859).
pub fn write_uri(scheme: &str, address: &Address, uri: &mut String) {
    uri.push_str(scheme);
    push_user(address.local(), uri);
    uri.push('@');
    if address.domain().is_ascii() {
        uri.push_str(address.domain());
    } else {
        uri.push_str(&sip_domain(address.domain()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(uri: &str) -> Result<String, AddressFault> {
        let addressee = address_of_uri(&UriRef::parse(uri).expect("a URI"))?;
        Ok(match addressee.device {
            Some(device) => format!("{}/{device}", addressee.address),
            None => addressee.address.to_string(),
        })
    }

    fn uri(address: &str) -> String {
        uri_of(&Address::from_prepared(address).expect("legal"))
    }

    #[test]
    fn an_xmpp_uri_of_a_user_becomes_a_sip_uri() {
        for (xmpp, sip) in [
            ("xmpp:x@y", Some("sip:x@y")),
            (" xmpp:la-mer@example.com\n", Some("sip:la-mer@example.com")),
            ("xmpp:x@y/desk?message;body=hi", Some("sip:x@y;gr=desk")),
            ("xmpp://me@here/o%5C27malley@y", Some("sip:o'malley@y")),
            ("xmpp:y", None),
            ("xmpp:", None),
            ("mailto:x@y", None),
            ("xmpp:x@y%0D%0AVia: z", None),
        ] {
            assert_eq!(sip_uri_of_xmpp_uri(xmpp).as_deref(), sip, "{xmpp}");
        }
    }

    #[test]
    fn a_sip_uri_of_a_user_becomes_an_xmpp_uri_and_back() {
        for (sip, xmpp) in [
            ("sip:romeo@example.net", "xmpp:romeo@example.net"),
            ("sips:romeo@example.net:5061;transport=tls", "xmpp:romeo@example.net"),
            ("sip:romeo@example.net;gr=orchard%20x", "xmpp:romeo@example.net/orchard%20x"),
            ("sip:r%C3%A9mi@example.net", "xmpp:r%C3%A9mi@example.net"),
        ] {
            assert_eq!(xmpp_uri_of_sip_uri(sip).as_deref(), Some(xmpp), "{sip}");
            let back = sip_uri_of_xmpp_uri(xmpp).expect("a user");
            assert_eq!(xmpp_uri_of_sip_uri(&back).as_deref(), Some(xmpp), "{back}");
        }
        for nobody in ["", "tel:+1", "sip:example.net", "sip:%00@example.net", "romeo@example.net"] {
            assert_eq!(xmpp_uri_of_sip_uri(nobody), None, "{nobody:?}");
        }
    }

    #[test]
    fn stox_a_06_escapes_are_utf8_and_control_characters_are_refused() {
        assert_eq!(jid("sip:f%C3%BC@sip.example").as_deref(), Ok("fü@sip.example"));
        assert_eq!(jid("sip:a%FFb@x"), Err(AddressFault::NotText));
        for escape in ["%00", "%0d%0a", "%7F", "%C2%85"] {
            assert_eq!(jid(&format!("sip:a{escape}b@x")), Err(AddressFault::NotText), "{escape}");
        }
        assert_eq!(AddressFault::NotText.status(), 404);
    }

    #[test]
    fn stox_a_07_every_character_that_a_local_part_may_not_hold_is_escaped() {
        assert_eq!(jid("sip:o'malley@h").as_deref(), Ok("o\\27malley@h"));
        assert_eq!(jid("sip:a%40b@h").as_deref(), Ok("a\\40b@h"));
        assert_eq!(jid("sip:a%3Ab@h").as_deref(), Ok("a\\3ab@h"));
        assert_eq!(
            jid("sip:a%20%22%26%27%2F%3A%3C%3E%40b@h").as_deref(),
            Ok("a\\20\\22\\26\\27\\2f\\3a\\3c\\3e\\40b@h")
        );
    }

    #[test]
    fn stox_a_08_a_backslash_is_escaped_only_before_what_looks_like_an_escape() {
        assert_eq!(jid("sip:a%5C27b@h").as_deref(), Ok("a\\5c27b@h"));
        assert_eq!(jid("sip:foo%5Cbar@h").as_deref(), Ok("foo\\bar@h"));
        for local in ["\\20a", "a\\20", "\\20", "\\20\\20", "a\\20b", "\\\\20a"] {
            let address = Address::new(local, "h").expect("legal");
            assert_eq!(jid(&uri_of(&address)), Ok(address.to_string()), "by way of {}", uri_of(&address));
        }
        assert_eq!(uri("\\20a@h"), "sip:%5C20a@h", "which is no space there");
        assert_eq!(jid("sip:%20a@h"), Err(AddressFault::NotAllowed));
        assert_eq!(jid("sip:a%20@h"), Err(AddressFault::NotAllowed));
    }

    #[test]
    fn stox_a_09_addresses_are_prepared() {
        assert_eq!(jid("sip:ROMEO@X.example"), jid("sip:romeo@x.example"));
        assert_eq!(jid("sip:a%E2%99%9A@h"), Err(AddressFault::NotAllowed));
        assert_eq!(jid("sip:a@h;gr=%E2%99%9A").as_deref(), Ok("a@h/♚"));
    }

    #[test]
    fn a_domain_that_is_typed_is_compared_in_its_canonical_form() {
        assert_eq!(domain_of_text("XN--BCHER-KVA.example.").expect("a domain").as_str(), "bücher.example");
        assert_eq!(domain_of_text("a b"), None);
    }

    #[test]
    fn two_users_whom_nodeprep_took_for_one_are_two() {
        assert_eq!(jid("sip:fu%C3%9Fball@h").as_deref(), Ok("fußball@h"));
        assert_eq!(jid("sip:fussball@h").as_deref(), Ok("fussball@h"));
        assert_eq!(uri("fußball@h"), "sip:fu%C3%9Fball@h");
        assert_eq!(jid("sip:%EF%BC%A1lice@h").as_deref(), Ok("alice@h"), "but fullwidth is ordinary width");
        assert_eq!(jid("sip:henry%E2%85%A3@h"), Err(AddressFault::NotAllowed));
    }

    #[test]
    fn stox_a_10_what_a_sip_user_may_not_hold_is_escaped() {
        assert_eq!(uri("m\\26m@h"), "sip:m&m@h");
        assert_eq!(uri("tschüss@h"), "sip:tsch%C3%BCss@h");
        assert_eq!(uri("a\\40b@h"), "sip:a%40b@h");
        assert_eq!(uri("50%@h"), "sip:50%25@h");
        assert_eq!(uri("#[\\]^{|}`@h"), "sip:%23%5B%5C%5D%5E%7B%7C%7D%60@h");
    }

    #[test]
    fn stox_a_12_escapes_are_read_in_both_cases_and_written_in_one() {
        assert_eq!(jid("sip:%c3%bc@h"), jid("sip:%C3%BC@h"));
        assert_eq!(uri("a\\2Fb@h"), "sip:a%5C2Fb@h");
    }

    #[test]
    fn stox_a_13_a_gruu_is_a_full_jid() {
        let foo = Address::from_prepared("foo@h").expect("legal");
        assert_eq!(jid("sip:foo@h;gr=bar").as_deref(), Ok("foo@h/bar"));
        assert_eq!(uri_of_device(&foo, Some("bar")), "sip:foo@h;gr=bar");
        assert_eq!(uri_of_device(&foo, Some("büro 1")), "sip:foo@h;gr=b%C3%BCro%201");
        assert_eq!(jid("sip:foo@h;gr=b%C3%BCro%201").as_deref(), Ok("foo@h/büro 1"));
        assert_eq!(jid("sip:foo@h;gr").as_deref(), Ok("foo@h"));
    }

    #[test]
    fn stox_a_16_other_parts_of_a_uri_are_dropped() {
        assert_eq!(jid("sip:a:pw@h;transport=tcp?x=y").as_deref(), Ok("a@h"));
        assert_eq!(jid("sip:a@h;maddr=m;lr;x=y").as_deref(), Ok("a@h"));
    }

    #[test]
    fn stox_a_17_only_the_form_of_an_international_domain_changes() {
        assert_eq!(uri("u@bücher.example"), "sip:u@xn--bcher-kva.example");
        assert_eq!(jid("sip:u@xn--bcher-kva.example").as_deref(), Ok("u@bücher.example"));
    }

    #[test]
    fn stox_a_18_an_over_long_user_is_refused() {
        assert!(jid(&format!("sip:{}@h", "a".repeat(1023))).is_ok());
        assert_eq!(jid(&format!("sip:{}@h", "a".repeat(1024))), Err(AddressFault::NotAllowed));
    }

    #[test]
    fn other_schemes_and_uris_without_user_are_refused() {
        assert_eq!(jid("tel:+1234"), Err(AddressFault::Scheme));
        assert_eq!(jid("sip:h"), Err(AddressFault::NoUser));
        assert_eq!(jid("pres:juliet@h").as_deref(), Ok("juliet@h"));
        assert_eq!(jid("im:juliet@h").as_deref(), Ok("juliet@h"));
    }
}
