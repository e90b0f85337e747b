//! SIP, SIPS, `pres`, `im` and `tel` URIs (RFC 3261 §19.1, RFC 3859, RFC 3860, RFC 3966).
//!
//! Text goes in; its parts, comparison and text come out. Escapes are kept as written and undone only by the
//! accessor that says so, once. Nothing is looked up.

use std::{borrow::Cow, fmt, str::FromStr};

use crate::lex;

mod compare;
mod host;

pub(crate) use self::host::address;
pub use self::host::{Host, HostPort};

/// Longest URI that is read, in octets; a longer Request-URI is answered with 414.
pub const MAX_URI_LEN: usize = 8 * 1024;

/// Why a text is not a URI that we can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UriFault {
    /// There is no scheme before a colon.
    #[error("a URI without a scheme")]
    NoScheme,
    /// A character that the part must hold escaped, or not at all.
    #[error("a character that may not stand in the {part} of a URI")]
    BadCharacter {
        /// Which part of the URI.
        part: &'static str,
    },
    /// `%` without two hexadecimal digits, or octets that are not UTF-8 when decoded.
    #[error("a % in a URI that is not an escape of UTF-8 text")]
    BadEscape,
    /// The host is empty, no name and no address.
    #[error("the host of a URI is neither a name nor an address")]
    BadHost,
    /// The port is not a number from 1 to 65535.
    #[error("the port of a URI is not 1 to 65535")]
    BadPort,
    /// Over [`MAX_URI_LEN`].
    #[error("a URI of {len} octets")]
    TooLong {
        /// Octets it has.
        len: usize,
    },
}

/// The scheme of a URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `sip:`
    Sip,
    /// `sips:`
    Sips,
    /// `pres:` (RFC 3859).
    Pres,
    /// `im:` (RFC 3860).
    Im,
    /// `tel:` (RFC 3966), not taken apart.
    Tel,
    /// Any other, not taken apart.
    Other,
}

/// A URI in place: parts of the text that it was read from.
#[derive(Debug, Clone, Copy)]
pub struct UriRef<'a> {
    text: &'a str,
    scheme: Scheme,
    user: Option<&'a str>,
    password: Option<&'a str>,
    /// `None` for schemes that are not taken apart.
    host: Option<Host<'a>>,
    port: Option<u16>,
    params: UriParams<'a>,
    headers: &'a str,
}

impl<'a> UriRef<'a> {
    /// Takes a URI apart. `text` is the whole URI without brackets or white space.
    pub fn parse(text: &'a str) -> Result<Self, UriFault> {
        if text.len() > MAX_URI_LEN {
            return Err(UriFault::TooLong { len: text.len() });
        }
        let (scheme, rest) = lex::split_once(text, b':').ok_or(UriFault::NoScheme)?;
        let scheme = scheme_of(scheme)?;
        let mut uri = Self {
            text,
            scheme,
            user: None,
            password: None,
            host: None,
            port: None,
            params: UriParams { text: "" },
            headers: "",
        };
        match scheme {
            Scheme::Sip | Scheme::Sips | Scheme::Pres | Scheme::Im => uri.read_parts(rest)?,
            Scheme::Tel | Scheme::Other => check(rest, &OPAQUE, "rest")?,
        }
        Ok(uri)
    }

    fn read_parts(&mut self, rest: &'a str) -> Result<(), UriFault> {
        // `@` may not stand unescaped anywhere but after the userinfo; a `?` or `;` may stand in the user part.
        let rest = match lex::split_once(rest, b'@') {
            Some((userinfo, rest)) => {
                let (user, password) = match lex::split_once(userinfo, b':') {
                    Some((user, password)) => (user, Some(password)),
                    None => (userinfo, None),
                };
                if user.is_empty() {
                    return Err(UriFault::BadCharacter { part: "user" });
                }
                check(user, &USER, "user")?;
                check(password.unwrap_or_default(), &PASSWORD, "password")?;
                (self.user, self.password) = (Some(user), password);
                rest
            }
            None => rest,
        };
        let (rest, headers) = match lex::split_once(rest, b'?') {
            Some((rest, headers)) if !headers.is_empty() => (rest, headers),
            Some(_) => return Err(UriFault::BadCharacter { part: "headers" }),
            None => (rest, ""),
        };
        check(headers, &HEADERS, "headers")?;
        if !headers.is_empty() && headers.split('&').any(|header| header.find('=').is_none_or(|at| at == 0)) {
            return Err(UriFault::BadCharacter { part: "headers" });
        }
        self.headers = headers;
        let (host_port, params) = lex::split_before(rest, b';');
        check(params, &PARAMS, "parameters")?;
        if !params.is_empty()
            && params.split(';').skip(1).any(|param| param.is_empty() || param.starts_with('='))
        {
            return Err(UriFault::BadCharacter { part: "parameters" });
        }
        self.params = UriParams { text: params };
        let HostPort { host, port } = HostPort::parse(host_port)?;
        (self.host, self.port) = (Some(host), port);
        Ok(())
    }

    /// The URI as it was written.
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// The scheme; [`Scheme::Other`] for one we do not know.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The user part as written, escapes kept, without password.
    pub fn user(&self) -> Option<&'a str> {
        self.user
    }

    /// The user part with escapes undone once (RFC 3261 §19.1.2).
    ///
    /// Fails when the octets are not UTF-8. The result may hold any character, NUL and line ends too.
    pub fn user_decoded(&self) -> Result<Option<Cow<'a, str>>, UriFault> {
        self.user.map(unescape).transpose()
    }

    /// The password as written; nothing should use it (RFC 3261 §19.1.1).
    pub fn password(&self) -> Option<&'a str> {
        self.password
    }

    /// The host; `None` for `tel:` and schemes that we do not take apart.
    pub fn host(&self) -> Option<Host<'a>> {
        self.host
    }

    /// Whether both have the same user part, or none (RFC 3261 §19.1.4: case counts, needless escapes do not).
    pub fn has_user_of(&self, other: &UriRef<'_>) -> bool {
        compare::is_same_user(self.user, other.user)
    }

    /// The port, where one is written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The URI parameters (not those of a header field that holds the URI).
    pub fn params(&self) -> UriParams<'a> {
        self.params
    }

    /// The `?name=value&…` part without its `?`, as written; empty when there is none.
    pub fn headers(&self) -> &'a str {
        self.headers
    }

    /// Whether both are equivalent by RFC 3261 §19.1.4. `pres` and `im` compare as `sip` does; other schemes, which are
    /// not taken apart, as text after the scheme.
    pub fn matches(&self, other: &UriRef<'_>) -> bool {
        compare::matches(self, other)
    }

    /// A copy that owns its text.
    pub fn to_owned(&self) -> SipUri {
        SipUri { text: self.text.into() }
    }
}

/// A URI that owns its text; checked when made.
///
/// Equality and hash are those of the text; equivalence by RFC 3261 is [`SipUri::matches`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SipUri {
    text: Box<str>,
}

impl SipUri {
    /// Checks `text` and keeps a copy.
    pub fn parse(text: &str) -> Result<Self, UriFault> {
        UriRef::parse(text).map(|uri| uri.to_owned())
    }

    /// Makes a URI of a user part in plain text (escaped here as needed), a host and perhaps a port.
    ///
    /// `scheme` must be one that has a host.
    pub fn from_parts(
        scheme: Scheme,
        user: Option<&str>,
        host: Host<'_>,
        port: Option<u16>,
    ) -> Result<Self, UriFault> {
        let mut text = String::from(match scheme {
            Scheme::Sip => "sip:",
            Scheme::Sips => "sips:",
            Scheme::Pres => "pres:",
            Scheme::Im => "im:",
            Scheme::Tel | Scheme::Other => return Err(UriFault::NoScheme),
        });
        if let Some(user) = user {
            escape_user(user, &mut text);
            text.push('@');
        }
        fmt::write(&mut text, format_args!("{}", HostPort { host, port })).expect("a String takes all text");
        Self::parse(&text)
    }

    /// The parts.
    pub fn view(&self) -> UriRef<'_> {
        UriRef::parse(&self.text).expect("the text was checked when the URI was made")
    }

    /// The URI as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// See [`UriRef::scheme`].
    pub fn scheme(&self) -> Scheme {
        self.view().scheme
    }

    /// See [`UriRef::user`].
    pub fn user(&self) -> Option<&str> {
        self.view().user
    }

    /// See [`UriRef::host`].
    pub fn host(&self) -> Option<Host<'_>> {
        self.view().host
    }

    /// See [`UriRef::port`].
    pub fn port(&self) -> Option<u16> {
        self.view().port
    }

    /// See [`UriRef::params`].
    pub fn params(&self) -> UriParams<'_> {
        self.view().params
    }

    /// Whether both are equivalent by RFC 3261 §19.1.4.
    pub fn matches(&self, other: &SipUri) -> bool {
        self.view().matches(&other.view())
    }
}

impl fmt::Display for SipUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for UriRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

impl FromStr for SipUri {
    type Err = UriFault;

    fn from_str(text: &str) -> Result<Self, UriFault> {
        Self::parse(text)
    }
}

/// The `;name=value` parameters of a URI, escapes kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UriParams<'a> {
    /// Empty, or `;` and what follows it.
    text: &'a str,
}

impl<'a> UriParams<'a> {
    /// Names and values as written, in order.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        self.text.split(';').skip(1).map(|param| match param.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (param, None),
        })
    }

    /// Value of the parameter `name` (a plain name, compared without case and with escapes undone): `None` when it
    /// is absent, `Some(None)` when it has no value.
    pub fn find(self, name: &str) -> Option<Option<&'a str>> {
        self.iter().find(|(found, _)| is_name(found, name)).map(|(_, value)| value)
    }

    /// Value of the parameter `name` as written; `None` when it is absent or has no value.
    pub fn value(self, name: &str) -> Option<&'a str> {
        self.find(name).flatten()
    }

    /// Whether the parameter `name` is present.
    pub fn has(self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// As written: empty, or with the leading `;`.
    pub fn as_str(self) -> &'a str {
        self.text
    }
}

/// Whether two texts are equivalent URIs (RFC 3261 §19.1.4). A text that is no URI is equivalent to itself only.
///
/// Equivalence is not transitive: `sip:a@b;x=1` and `sip:a@b;x=2` are both equivalent to `sip:a@b`. So there is no
/// canonical text to look up; whoever keeps things by URI searches them with this.
pub fn are_equivalent(one: &str, other: &str) -> bool {
    let are_matching = || Some(UriRef::parse(one).ok()?.matches(&UriRef::parse(other).ok()?));
    one == other || are_matching().unwrap_or(false)
}

fn is_name(written: &str, name: &str) -> bool {
    written.eq_ignore_ascii_case(name)
        || (written.contains('%') && unescape(written).is_ok_and(|plain| plain.eq_ignore_ascii_case(name)))
}

/// Undoes `%HH` escapes once.
///
/// Fails when a `%` is not followed by two hexadecimal digits, or the octets are not UTF-8.
pub fn unescape(text: &str) -> Result<Cow<'_, str>, UriFault> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let [high, low] = tail.first_chunk::<2>().ok_or(UriFault::BadEscape)?;
            octets.push(hex(*high)? << 4 | hex(*low)?);
            rest = &tail[2..];
        } else {
            octets.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(octets).map(Cow::Owned).map_err(|_| UriFault::BadEscape)
}

fn hex(digit: u8) -> Result<u8, UriFault> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok()).ok_or(UriFault::BadEscape)
}

/// Appends plain text as a user part: all that `user` may not hold, and `%`, becomes `%HH` (RFC 3261 §25.1).
pub fn escape_user(plain: &str, out: &mut String) {
    for octet in plain.bytes() {
        if USER[usize::from(octet)] {
            out.push(char::from(octet));
        } else {
            fmt::write(out, format_args!("%{octet:02X}")).expect("a String takes all text");
        }
    }
}

static USER: [bool; 256] = lex::class(b"-_.!~*'()&=+$,;?/");
static PASSWORD: [bool; 256] = lex::class(b"-_.!~*'()&=+$,");
static PARAMS: [bool; 256] = lex::class(b"-_.!~*'()[]/:&+$;=");
static HEADERS: [bool; 256] = lex::class(b"-_.!~*'()[]/?:+$&=");
static OPAQUE: [bool; 256] = lex::class(b"-_.!~*'();/?:@&=+$,[]#");

/// Checks that `text` holds characters of `class` and well-formed escapes only.
fn check(text: &str, class: &[bool; 256], part: &'static str) -> Result<(), UriFault> {
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first == b'%' {
            let [high, low] = tail.first_chunk::<2>().ok_or(UriFault::BadEscape)?;
            if !high.is_ascii_hexdigit() || !low.is_ascii_hexdigit() {
                return Err(UriFault::BadEscape);
            }
            rest = &tail[2..];
        } else if !class[usize::from(*first)] {
            return Err(UriFault::BadCharacter { part });
        }
    }
    Ok(())
}

fn scheme_of(text: &str) -> Result<Scheme, UriFault> {
    let octets = text.as_bytes();
    let is_valid = octets.first().is_some_and(u8::is_ascii_alphabetic)
        && octets.iter().all(|octet| octet.is_ascii_alphanumeric() || b"+-.".contains(octet));
    if !is_valid {
        return Err(if text.is_empty() {
            UriFault::NoScheme
        } else {
            UriFault::BadCharacter { part: "scheme" }
        });
    }
    let known = [
        ("sip", Scheme::Sip),
        ("sips", Scheme::Sips),
        ("pres", Scheme::Pres),
        ("im", Scheme::Im),
        ("tel", Scheme::Tel),
    ];
    let found = known.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    Ok(found.map_or(Scheme::Other, |(_, scheme)| scheme))
}

#[cfg(test)]
mod tests;
