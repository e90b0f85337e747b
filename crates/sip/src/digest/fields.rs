//! Reading the values of Authorization and WWW-Authenticate, and their Proxy- forms (RFC 7616 §3.3, §3.4).

use std::borrow::Cow;

use super::{Algorithm, Qop};
use crate::lex;

/// Why a value is not one that we can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DigestFault {
    /// Another scheme; to be treated as if it were not there.
    #[error("an authentication scheme other than Digest")]
    OtherScheme,
    /// The syntax is broken, or a parameter stands twice.
    #[error("broken Digest parameters")]
    Malformed,
    /// A parameter that must be there is not.
    #[error("Digest without {0}")]
    Missing(&'static str),
    /// An algorithm that we do not have.
    #[error("an unknown Digest algorithm")]
    UnknownAlgorithm,
    /// A count of no request: the first one is 1 (RFC 7616 §3.4).
    #[error("a nonce count of 0")]
    ZeroCount,
    /// A quality of protection that we do not have.
    #[error("an unknown quality of protection")]
    UnknownQop,
}

/// Most parameters in one value.
const MOST_FIELDS: usize = 32;

/// The parameters of one value.
struct Fields<'a>(Vec<(&'a str, Cow<'a, str>)>);

impl<'a> Fields<'a> {
    fn parse(value: &'a str) -> Result<Self, DigestFault> {
        let value = lex::trim(value);
        let (scheme, mut rest) = value.split_at(lex::token_len(value.as_bytes()));
        if !scheme.eq_ignore_ascii_case("Digest") {
            return Err(DigestFault::OtherScheme);
        }
        if rest.bytes().any(lex::is_control) || !rest.starts_with([' ', '\t']) {
            return Err(DigestFault::Malformed);
        }
        let mut fields = Vec::new();
        loop {
            rest = lex::trim_start(rest);
            let (name, after) = rest.split_at(lex::token_len(rest.as_bytes()));
            let after = lex::trim_start(after).strip_prefix('=').map(lex::trim_start);
            let after = after.filter(|_| !name.is_empty()).ok_or(DigestFault::Malformed)?;
            let len = match after.as_bytes().first() {
                Some(b'"') => lex::quoted_len(after.as_bytes()).ok_or(DigestFault::Malformed)?,
                // A URI should be quoted, but is easily told without.
                _ => after.find([',', ' ', '\t', '"']).unwrap_or(after.len()),
            };
            let (value, after) = after.split_at(len);
            let is_twice = fields.iter().any(|(other, _): &(&str, _)| other.eq_ignore_ascii_case(name));
            if value.is_empty() || is_twice || fields.len() >= MOST_FIELDS {
                return Err(DigestFault::Malformed);
            }
            fields.push((name, lex::unquote(value)));
            let after = lex::trim_start(after);
            if after.is_empty() {
                return Ok(Self(fields));
            }
            rest = after.strip_prefix(',').ok_or(DigestFault::Malformed)?;
        }
    }

    fn take(&mut self, name: &'static str) -> Option<Cow<'a, str>> {
        let at = self.0.iter().position(|(found, _)| found.eq_ignore_ascii_case(name))?;
        Some(self.0.swap_remove(at).1)
    }

    fn need(&mut self, name: &'static str) -> Result<Cow<'a, str>, DigestFault> {
        self.take(name).ok_or(DigestFault::Missing(name))
    }

    /// MD5 where none is named (RFC 7616 §3.3).
    fn algorithm(&mut self) -> Result<Algorithm, DigestFault> {
        self.take("algorithm").map_or(Ok(Algorithm::Md5), |token| {
            Algorithm::from_token(&token).ok_or(DigestFault::UnknownAlgorithm)
        })
    }
}

/// What Authorization or Proxy-Authorization says. Nothing of it is proved yet.
#[derive(Debug, Clone)]
pub struct Credentials<'a> {
    /// Whose password it is about.
    pub username: Cow<'a, str>,
    /// Where it counts.
    pub realm: Cow<'a, str>,
    /// The URI that the digest covers.
    pub uri: Cow<'a, str>,
    /// The algorithm; [`super::Ha1`] must be of the same.
    pub algorithm: Algorithm,
    /// The quality of protection; `auth` where a count stands without one (RFC 8760 §2.6-8). `None` for the form of
    /// RFC 2069, which has neither.
    pub qop: Option<Qop>,
    pub(super) nonce: Cow<'a, str>,
    pub(super) response: Cow<'a, str>,
    /// Empty without `qop`, as is `nc_text`.
    pub(super) cnonce: Cow<'a, str>,
    /// As written, for the hash.
    pub(super) nc_text: Cow<'a, str>,
    pub(super) nc: u32,
}

impl<'a> Credentials<'a> {
    /// Reads the value of one Authorization or Proxy-Authorization header field.
    ///
    /// [`DigestFault::OtherScheme`] is to be treated as no credentials at all (RFC 4475 §3.3.7).
    pub fn parse(value: &'a str) -> Result<Self, DigestFault> {
        let mut fields = Fields::parse(value)?;
        let (qop, nc_text) = match (fields.take("qop").as_deref(), fields.take("nc")) {
            (None, None) => (None, Cow::Borrowed("")),
            (None | Some("auth"), Some(nc)) => (Some(Qop::Auth), nc),
            (Some("auth-int"), Some(nc)) => (Some(Qop::AuthInt), nc),
            (Some("auth" | "auth-int"), None) => return Err(DigestFault::Missing("nc")),
            (Some(_), _) => return Err(DigestFault::UnknownQop),
        };
        let nc = match qop {
            Some(_) => read_count(&nc_text)?,
            None => 0,
        };
        Ok(Self {
            username: fields.need("username")?,
            realm: fields.need("realm")?,
            uri: fields.need("uri")?,
            algorithm: fields.algorithm()?,
            qop,
            nonce: fields.need("nonce")?,
            response: fields.need("response")?,
            cnonce: match qop {
                Some(_) => fields.need("cnonce")?,
                None => Cow::Borrowed(""),
            },
            nc,
            nc_text,
        })
    }
}

/// `nc`: eight hexadecimal digits (RFC 7616 §3.4), from 1 on.
fn read_count(text: &str) -> Result<u32, DigestFault> {
    if text.len() != 8 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(DigestFault::Malformed);
    }
    match u32::from_str_radix(text, 16) {
        Ok(0) => Err(DigestFault::ZeroCount),
        Ok(count) => Ok(count),
        Err(_) => Err(DigestFault::Malformed),
    }
}

/// What WWW-Authenticate or Proxy-Authenticate says.
#[derive(Debug, Clone)]
pub struct Challenge<'a> {
    /// Whose passwords are asked for.
    pub realm: Cow<'a, str>,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// What we would answer with: `auth` where it is offered, or nothing is.
    pub qop: Qop,
    /// The password was right, only the nonce too old.
    pub is_stale: bool,
    pub(super) nonce: Cow<'a, str>,
    pub(super) opaque: Option<Cow<'a, str>>,
}

impl<'a> Challenge<'a> {
    /// Reads the value of one WWW-Authenticate or Proxy-Authenticate header field.
    pub fn parse(value: &'a str) -> Result<Self, DigestFault> {
        let mut fields = Fields::parse(value)?;
        let qop = match fields.take("qop") {
            None => Qop::Auth,
            Some(offered) => {
                let offers = |qop: Qop| {
                    offered.split(',').any(|token| lex::trim(token).eq_ignore_ascii_case(qop.token()))
                };
                let known = [Qop::Auth, Qop::AuthInt].into_iter().find(|qop| offers(*qop));
                known.ok_or(DigestFault::UnknownQop)?
            }
        };
        Ok(Self {
            realm: fields.need("realm")?,
            algorithm: fields.algorithm()?,
            qop,
            is_stale: fields.take("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
            nonce: fields.need("nonce")?,
            opaque: fields.take("opaque"),
        })
    }
}
