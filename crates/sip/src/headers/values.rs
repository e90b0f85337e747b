//! Values of header fields that have parts: addresses, Via, Event, media types (RFC 3261 §20, §25.1).
//!
//! The text of one value (unfolded) goes in; slices of it come out.

use std::{borrow::Cow, net::IpAddr};

use super::Params;
use crate::{
    lex,
    uri::{HostPort, UriFault, UriRef},
};

/// Why a header value cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueFault {
    /// The field is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The field stands more than once and may not.
    #[error("{0} stands more than once")]
    Repeated(&'static str),
    /// The value breaks its grammar.
    #[error("{0}")]
    Malformed(&'static str),
    /// The URI in it breaks its grammar.
    #[error(transparent)]
    Uri(#[from] UriFault),
}

/// An address with parameters: `"Bob" <sip:bob@example.com>;tag=x` or `sip:bob@example.com;tag=x`.
#[derive(Debug, Clone, Copy)]
pub struct NameAddr<'a> {
    /// The name as written, with its quotes; empty without one.
    pub display: &'a str,
    /// The URI.
    pub uri: UriRef<'a>,
    /// The parameters of the field, not those of the URI.
    pub params: Params<'a>,
}

impl<'a> NameAddr<'a> {
    /// Reads one value. Without brackets every parameter is the field's (RFC 3261 §20).
    pub fn parse(value: &'a str) -> Result<Self, ValueFault> {
        let value = lex::trim(value);
        let open = lex::find_outside_quotes(value, b'<')
            .map_err(|_| ValueFault::Malformed("a quote is not closed"))?;
        let Some(open) = open else {
            let (uri, params) = lex::split_before(value, b';');
            let uri = lex::trim(uri);
            // What holds a comma or a question mark needs brackets (RFC 3261 §20.10, RFC 8217).
            if uri.bytes().any(|octet| matches!(octet, b',' | b'?')) {
                return Err(ValueFault::Malformed("a URI with comma or question mark without brackets"));
            }
            let params = Params::parse(params).map_err(ValueFault::Malformed)?;
            return Ok(Self { display: "", uri: UriRef::parse(uri)?, params });
        };
        let display = lex::trim(&value[..open]);
        if !is_display_name(display) {
            return Err(ValueFault::Malformed("a display name that needs quotes"));
        }
        let rest = &value[open + 1..];
        let close = lex::find(rest, b'>').ok_or(ValueFault::Malformed("an angle bracket is not closed"))?;
        let params = Params::parse(&rest[close + 1..]).map_err(ValueFault::Malformed)?;
        Ok(Self { display, uri: UriRef::parse(&rest[..close])?, params })
    }

    /// The name without quotes.
    pub fn display_name(&self) -> Cow<'a, str> {
        lex::unquote(self.display)
    }

    /// The parameter `tag`.
    pub fn tag(&self) -> Option<&'a str> {
        self.params.value("tag").filter(|tag| !tag.is_empty())
    }
}

/// A quoted string, or tokens with white space between them.
fn is_display_name(text: &str) -> bool {
    if text.starts_with('"') {
        return lex::quoted_len(text.as_bytes()) == Some(text.len());
    }
    text.split([' ', '\t'])
        .filter(|word| !word.is_empty())
        .all(|word| !word.is_ascii() || lex::is_token(word))
}

/// What every branch of RFC 3261 begins with (§8.1.1.7).
pub const MAGIC_COOKIE: &str = "z9hG4bK";

/// One Via value (RFC 3261 §20.42).
#[derive(Debug, Clone, Copy)]
pub struct Via<'a> {
    /// The whole value as written.
    pub text: &'a str,
    /// `UDP`, `TCP`, `TLS`, … as written.
    pub transport: &'a str,
    /// Where the sender wants its responses.
    pub sent_by: HostPort<'a>,
    /// The parameters.
    pub params: Params<'a>,
}

impl<'a> Via<'a> {
    /// Reads one value. Any SIP version is taken, so that a request of another version can be answered.
    pub fn parse(value: &'a str) -> Result<Self, ValueFault> {
        let (via, params) = Self::parse_way(value)?;
        let params = Params::parse(params).map_err(ValueFault::Malformed)?;
        Ok(Self { params, ..via })
    }

    /// Reads what the way back needs: parameters from the first malformed one on are left out.
    pub(crate) fn parse_leniently(value: &'a str) -> Result<Self, ValueFault> {
        let (via, params) = Self::parse_way(value)?;
        let kept = Params::parse_prefix(params);
        let text = &via.text[..via.text.len() - params.len() + kept.as_str().len()];
        Ok(Self { params: kept, text, ..via })
    }

    /// Everything but the parameters, and their text.
    fn parse_way(value: &'a str) -> Result<(Self, &'a str), ValueFault> {
        let text = lex::trim(value);
        let bad = ValueFault::Malformed("a malformed Via");
        // White space may stand around the slashes.
        let (name, rest) = lex::split_once(text, b'/').ok_or(bad)?;
        let (version, rest) = lex::split_once(rest, b'/').ok_or(bad)?;
        let is_version = lex::trim(version).bytes().all(|octet| octet.is_ascii_digit() || octet == b'.');
        if !lex::trim(name).eq_ignore_ascii_case("SIP") || !is_version {
            return Err(bad);
        }
        let rest = lex::trim_start(rest);
        let transport_len = lex::token_len(rest.as_bytes());
        let (transport, rest) = rest.split_at(transport_len);
        if transport.is_empty() || !rest.starts_with([' ', '\t']) {
            return Err(bad);
        }
        let rest = lex::trim_start(rest);
        let (sent_by, params) = lex::split_before(rest, b';');
        // White space may stand around the colon of the port (RFC 3261 §25.1 `COLON`).
        let sent_by = lex::trim(sent_by);
        let sent_by = match sent_by
            .rsplit_once(':')
            .filter(|_| sent_by.bytes().any(|octet| matches!(octet, b' ' | b'\t')))
        {
            Some((host, port)) => {
                let host = HostPort::parse(lex::trim(host))?;
                let port = lex::number(lex::trim(port)).filter(|port| *port != 0 && host.port.is_none());
                HostPort { port: Some(port.ok_or(bad)?), ..host }
            }
            None => HostPort::parse(sent_by)?,
        };
        Ok((Self { text, transport, sent_by, params: Params::default() }, params))
    }

    /// The parameter `branch`.
    pub fn branch(&self) -> Option<&'a str> {
        self.params.value("branch")
    }

    /// The branch, when it is one of RFC 3261 §8.1.1.7: the magic cookie and something behind it.
    pub fn rfc3261_branch(&self) -> Option<&'a str> {
        self.branch().filter(|branch| {
            branch.split_at_checked(MAGIC_COOKIE.len()).is_some_and(|(cookie, rest)| {
                // Tokens are compared without case (RFC 3261 §7.3.1).
                cookie.eq_ignore_ascii_case(MAGIC_COOKIE) && !rest.is_empty()
            })
        })
    }

    /// The parameter `received`, with or without brackets (RFC 5118 §4.5).
    pub fn received(&self) -> Option<IpAddr> {
        self.params.value("received").and_then(crate::uri::address)
    }
}

/// The value of Event (RFC 6665 §8.2.1).
#[derive(Debug, Clone, Copy)]
pub struct EventHeader<'a> {
    /// The package, with its templates; compared with case.
    pub package: &'a str,
    /// The parameter `id`.
    pub id: Option<&'a str>,
    /// All parameters.
    pub params: Params<'a>,
}

impl<'a> EventHeader<'a> {
    /// Reads the value.
    pub fn parse(value: &'a str) -> Result<Self, ValueFault> {
        let value = lex::trim(value);
        let (package, params) = lex::split_before(value, b';');
        let package = lex::trim(package);
        if !lex::is_token(package) {
            return Err(ValueFault::Malformed("a malformed Event"));
        }
        let params = Params::parse(params).map_err(ValueFault::Malformed)?;
        Ok(Self { package, id: params.value("id"), params })
    }
}

/// A media type with parameters (RFC 3261 §20.15).
#[derive(Debug, Clone, Copy)]
pub struct MediaType<'a> {
    /// The type.
    pub main: &'a str,
    /// The subtype.
    pub sub: &'a str,
    /// The parameters.
    pub params: Params<'a>,
}

impl<'a> MediaType<'a> {
    /// Reads the value.
    pub fn parse(value: &'a str) -> Result<Self, ValueFault> {
        let bad = ValueFault::Malformed("a malformed media type");
        let value = lex::trim(value);
        let (name, params) = lex::split_before(value, b';');
        let (main, sub) = lex::split_once(name, b'/').ok_or(bad)?;
        let (main, sub) = (lex::trim(main), lex::trim(sub));
        if !lex::is_token(main) || !lex::is_token(sub) {
            return Err(bad);
        }
        Ok(Self { main, sub, params: Params::parse(params).map_err(ValueFault::Malformed)? })
    }

    /// True for this type, compared without case.
    pub fn is(&self, main: &str, sub: &str) -> bool {
        self.main.eq_ignore_ascii_case(main) && self.sub.eq_ignore_ascii_case(sub)
    }

    /// A parameter without its quotes.
    pub fn param(&self, name: &str) -> Option<Cow<'a, str>> {
        self.params.text(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_and_without_brackets() {
        let bracketed = NameAddr::parse("\"A < B\" <sip:bob@x;transport=tcp>;tag=7").expect("legal");
        assert_eq!(bracketed.display_name(), "A < B");
        assert_eq!((bracketed.tag(), bracketed.uri.params().value("transport")), (Some("7"), Some("tcp")));
        let bare = NameAddr::parse("sip:bob@x;tag=7").expect("legal");
        assert_eq!((bare.tag(), bare.uri.params().has("tag")), (Some("7"), false));
        for wrong in ["", "<sip:a@b", "\"open <sip:a@b>", "sip:a@b?x=y", "a, b <sip:a@b>", "<sip:a@b> x"] {
            assert!(NameAddr::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn vias_with_odd_white_space() {
        let via =
            Via::parse("SIP  / 2.0\t/ UDP  first.example.com : 4000;ttl=16 ;branch=z9hG4bKa").expect("legal");
        assert_eq!((via.transport, via.sent_by.port, via.branch()), ("UDP", Some(4000), Some("z9hG4bKa")));
        for wrong in [
            "SIP/2.0/UDP",
            "SIP/x/UDP h",
            "SIP/2.0/ x",
            "HTTP/2.0/UDP x",
            "",
            "SIP/2.0/UDP h;;",
            "SIP/2.0/UDP h : 0",
            "SIP/2.0/UDP h:1 : 2",
        ] {
            assert!(Via::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_via_with_malformed_parameters_still_tells_the_way_back() {
        let via = Via::parse_leniently("SIP/2.0/UDP 192.0.2.15:5070 ; branch = a ;b=;c").expect("a way");
        assert_eq!((via.sent_by.port, via.branch()), (Some(5070), Some("a")));
        assert_eq!(via.text, "SIP/2.0/UDP 192.0.2.15:5070 ; branch = a");
        assert!(Via::parse_leniently("SIP/2.0/UDP ;branch=a").is_err());
    }

    #[test]
    fn sip_t_15_received_stands_with_and_without_brackets() {
        for received in ["2001:db8::9:255", "[2001:db8::9:255]"] {
            let text = format!("SIP/2.0/UDP [2001:db8::9:1];received={received};branch=z9hG4bKa");
            let via = Via::parse(&text).expect("legal");
            assert_eq!(via.received(), "2001:db8::9:255".parse().ok());
            assert_eq!(via.sent_by.host.address(), "2001:db8::9:1".parse().ok());
        }
    }

    #[test]
    fn a_branch_of_rfc_3261_has_something_behind_the_cookie() {
        let branch = |text| Via::parse(text).expect("legal").rfc3261_branch();
        assert_eq!(branch("SIP/2.0/UDP h;branch=Z9HG4BKa"), Some("Z9HG4BKa"));
        assert_eq!(branch("SIP/2.0/UDP h;branch=z9hG4bK"), None);
        assert_eq!(branch("SIP/2.0/UDP h;branch=390skdjuw"), None);
    }

    #[test]
    fn sip_e_15_the_event_package_counts_with_case_and_its_id() {
        let event = EventHeader::parse("presence;id=1").expect("legal");
        assert_eq!((event.package, event.id), ("presence", Some("1")));
        assert_ne!(EventHeader::parse("Presence").expect("legal").package, "presence");
    }
}
