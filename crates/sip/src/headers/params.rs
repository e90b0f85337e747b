//! Parameters of header values: `;name=value;flag` (RFC 3261 §25.1 `generic-param`).
//!
//! Checked once as a whole when made; then read in place.

use std::borrow::Cow;

use crate::lex;

/// The parameters of one header value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Params<'a> {
    /// Empty, or `;` and what follows it.
    text: &'a str,
}

impl<'a> Params<'a> {
    /// Checks `text`: empty, or a sequence of `;name` and `;name=value` with white space allowed around `;` and `=`.
    ///
    /// A value is a quoted string or any run without white space, `;`, `,`, `"`, `<`, `>` (so hosts and addresses
    /// are taken too). Gives what is wrong.
    pub(crate) fn parse(text: &'a str) -> Result<Self, &'static str> {
        let mut rest = lex::trim(text);
        let params = Self { text: rest };
        while !rest.is_empty() {
            rest = lex::trim_start(after_param(rest)?);
        }
        Ok(params)
    }

    /// As [`Params::parse`], but what begins with the first malformed parameter is left out.
    pub(crate) fn parse_prefix(text: &'a str) -> Self {
        let mut rest = text;
        while let Ok(after) = after_param(lex::trim_start(rest)) {
            rest = after;
        }
        Self { text: lex::trim_start(&text[..text.len() - rest.len()]) }
    }

    /// [`Params::parse`] with the fault of a header value.
    pub(crate) fn read(text: &'a str) -> Result<Self, super::ValueFault> {
        Self::parse(text).map_err(super::ValueFault::Malformed)
    }

    /// The parameters in order: name as written, and the value as written (with its quotes) if there is one.
    pub fn iter(self) -> ParamsIter<'a> {
        ParamsIter { rest: self.text }
    }

    /// Value of the parameter `name` (without case) as written: `None` when it is absent, `Some(None)` when it
    /// stands without a value. The first one counts where it stands twice.
    pub fn find(self, name: &str) -> Option<Option<&'a str>> {
        self.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Value of the parameter `name` (without case) as written; `None` when it is absent or has no value.
    pub fn value(self, name: &str) -> Option<&'a str> {
        self.find(name).flatten()
    }

    /// Value of the parameter `name` with quotes and quoted pairs undone.
    pub fn text(self, name: &str) -> Option<Cow<'a, str>> {
        self.value(name).map(lex::unquote)
    }

    /// Whether the parameter `name` (without case) is present.
    pub fn has(self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Whether there is no parameter.
    pub fn is_empty(self) -> bool {
        self.text.is_empty()
    }

    /// The parameters as they were written: empty, or with their leading `;`.
    pub fn as_str(self) -> &'a str {
        self.text
    }
}

/// What follows the first parameter of `text`.
fn after_param(text: &str) -> Result<&str, &'static str> {
    let rest = lex::trim_start(text.strip_prefix(';').ok_or("text between parameters")?);
    let name_len = lex::token_len(rest.as_bytes());
    if name_len == 0 {
        return Err("a parameter without a name");
    }
    let rest = &rest[name_len..];
    match lex::trim_start(rest).strip_prefix('=') {
        Some(value) => {
            let value = lex::trim_start(value);
            Ok(&value[value_len(value)?..])
        }
        None => Ok(rest),
    }
}

fn value_len(text: &str) -> Result<usize, &'static str> {
    let octets = text.as_bytes();
    let len = match octets.first() {
        Some(b'"') => lex::quoted_len(octets).ok_or("a quoted string is not closed")?,
        _ => octets.iter().position(|octet| b" \t;,\"<>".contains(octet)).unwrap_or(octets.len()),
    };
    if len == 0 { Err("a parameter with = and no value") } else { Ok(len) }
}

/// See [`Params::iter`].
#[derive(Debug, Clone)]
pub struct ParamsIter<'a> {
    rest: &'a str,
}

impl<'a> Iterator for ParamsIter<'a> {
    type Item = (&'a str, Option<&'a str>);

    fn next(&mut self) -> Option<Self::Item> {
        // The text was checked when the parameters were made, so nothing here ends early on well-formed input.
        let rest = lex::trim_start(self.rest.strip_prefix(';')?);
        let (name, rest) = rest.split_at(lex::token_len(rest.as_bytes()));
        let rest = lex::trim_start(rest);
        let Some(value) = rest.strip_prefix('=').map(lex::trim_start) else {
            self.rest = rest;
            return Some((name, None));
        };
        let (value, rest) = value.split_at(value_len(value).ok()?);
        self.rest = lex::trim_start(rest);
        Some((name, Some(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_with_white_space_quotes_and_flags() {
        let params =
            Params::parse(" ; Tag = abc;lr ; note=\"a;\\\"b\" ;received=2001:db8::1").expect("valid");
        assert_eq!(params.value("tag"), Some("abc"));
        assert_eq!(params.find("LR"), Some(None));
        assert_eq!(params.text("note").as_deref(), Some("a;\"b"));
        assert_eq!(params.value("received"), Some("2001:db8::1"));
        assert_eq!(params.find("absent"), None);
        assert_eq!(params.iter().count(), 4);
    }

    #[test]
    fn malformed_parameters_are_refused() {
        for wrong in [";", ";;", ";a=", ";a b", "a", ";a=\"x", ";=b", ";a=b,c", ";a=<b>", ";a;"] {
            assert!(Params::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
