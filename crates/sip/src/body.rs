//! What the body of a request says, whatever it is wrapped in (RFC 3261 §8.2.3, RFC 5621, RFC 3862).
//!
//! A message and the [`Context`] that its method makes go in; the text of the part that the context understands comes
//! out: found in multiparts and CPIM, unpacked, and in UTF-8. Presence documents and messages take this one way, so what
//! is read of one is read of all. What the text means is not looked at here.
//!
//! Everything that unpacking makes is bounded: [`MAX_PARTS`] parts, [`MAX_DEPTH`] within each other, [`MAX_DECODED`]
//! octets in all, and no more than [`MAX_RATIO`] times what came.

use std::borrow::Cow;

use crate::{
    headers::{HeaderName, is_language_tag},
    message::Message,
    pidf,
};

mod charset;
mod coding;
pub mod cpim;
mod part;
mod walk;

use self::{part::Part, walk::Walk};

/// What a request is about, which decides what kinds of body it may have (RFC 5621 §8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// PUBLISH and NOTIFY: a presence document. Parts that we don't know are left out unless they say that they are
    /// required: a state that is known counts more than what goes with it.
    Presence,
    /// MESSAGE: text for people. Each part is required unless it says that it is optional, so that nothing is lost in
    /// silence.
    Message,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content<'a> {
    /// The text: of a message, or a presence document as [`pidf::read_text`] takes it.
    pub text: Cow<'a, str>,
    /// Its language as one tag, where its part or the message names any: `mul` for several.
    pub language: Option<String>,
    /// The subject that CPIM brought.
    pub subject: Option<String>,
}

/// Why a body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// 415, with [`accepted`]: a part that must be understood is not.
    #[error("{0}")]
    Unsupported(&'static str),
    /// 400: it is not what its header fields say.
    #[error("{0}")]
    Malformed(&'static str),
    /// 413: unpacked it would be over a limit.
    #[error("{0}")]
    TooBig(&'static str),
}

impl BodyFault {
    /// The status code of a response that refuses the body.
    pub fn status(self) -> u16 {
        match self {
            Self::Unsupported(_) => 415,
            Self::Malformed(_) => 400,
            Self::TooBig(_) => 413,
        }
    }

    /// The header fields that the response needs.
    pub fn headers(self, context: Context) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Unsupported(_) => accepted(context),
            Self::Malformed(_) | Self::TooBig(_) => &[],
        }
    }

    /// What is wrong, in the words of the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unsupported(reason) | Self::Malformed(reason) | Self::TooBig(reason) => reason,
        }
    }
}

/// Accept, Accept-Encoding and Accept-Language of a 415 (RFC 3261 §8.2.3).
pub fn accepted(context: Context) -> &'static [(&'static str, &'static str)] {
    match context {
        Context::Presence => &[
            ("Accept", ACCEPTED_DOCUMENTS),
            ("Accept-Encoding", ACCEPTED_CODINGS),
            ("Accept-Language", ACCEPTED_LANGUAGES),
        ],
        Context::Message => &[
            ("Accept", ACCEPTED_TEXTS),
            ("Accept-Encoding", ACCEPTED_CODINGS),
            ("Accept-Language", ACCEPTED_LANGUAGES),
        ],
    }
}

/// Reads the body of `message`; `None` where there is none, or one that is optional and not understood.
pub fn read(message: &Message, context: Context) -> Result<Option<Content<'_>>, BodyFault> {
    if message.body().is_empty() {
        return Ok(None);
    }
    let header = |name| match message.only(name) {
        Ok(value) => Ok(value.map(Cow::Borrowed)),
        Err(_) => Err(BodyFault::Malformed("a header field of the body stands twice")),
    };
    let part = Part {
        content_type: header(HeaderName::ContentType)?,
        disposition: header(HeaderName::ContentDisposition)?,
        transfer_encoding: header(HeaderName::ContentTransferEncoding)?,
        codings: message.list(HeaderName::ContentEncoding).map(Cow::Borrowed).collect(),
        language: None,
        id: None,
        octets: message.body(),
    };
    let found = Walk::new(context).read(&part)?;
    let language = message.content_language();
    Ok(found.map(|found| Content {
        language: found.language.or_else(|| language.map(ToOwned::to_owned)),
        ..found
    }))
}

/// The text of an XML document without a Content-Type: in UTF-8 unless it says otherwise.
pub(crate) fn xml_text(octets: &[u8]) -> Result<Cow<'_, str>, BodyFault> {
    charset::xml(octets, None)
}

impl Content<'_> {
    fn into_owned(self) -> Content<'static> {
        let Self { text, language, subject } = self;
        Content { text: Cow::Owned(text.into_owned()), language, subject }
    }
}

/// The one tag that says what the elements of a Content-Language say; `None` where one of them is no tag.
///
/// RFC 3261 §20.13 lets a text name several languages. Where it is passed on to, one tag is all there is, and a text without a
/// tag counts as written in some default language. RFC 5646 has the tag `mul` for exactly this.
pub(crate) fn one_language<'a>(mut tags: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let first = tags.next().filter(|tag| is_language_tag(tag))?;
    let mut language = first;
    for tag in tags {
        if !is_language_tag(tag) {
            return None;
        }
        if !tag.eq_ignore_ascii_case(first) {
            language = SEVERAL_LANGUAGES;
        }
    }
    Some(language)
}

/// The tag of a text in more than one language (RFC 5646 §4.1).
pub(crate) const SEVERAL_LANGUAGES: &str = "mul";

/// What a fuzzer calls: any octets as a body of several types, within all bounds; what CPIM says is written and read as
/// the same.
pub fn fuzz_body(data: &[u8]) {
    let (first, rest) = data.split_first().unwrap_or((&0, data));
    const TYPES: [&str; 8] = [
        "text/plain",
        "text/plain;charset=utf-16",
        "application/pidf+xml",
        "message/cpim",
        "multipart/mixed;boundary=b",
        "multipart/alternative;boundary=\"b\"",
        "multipart/related;boundary=b;start=\"<1>\"",
        "multipart/signed;boundary=b",
    ];
    const CODINGS: [&str; 4] = ["", "deflate", "gzip", "gzip, deflate"];
    let part = Part {
        content_type: Some(TYPES[usize::from(first & 7)].into()),
        codings: CODINGS[usize::from(first >> 3 & 3)].split_terminator(", ").map(Cow::Borrowed).collect(),
        octets: rest,
        ..Part::default()
    };
    for context in [Context::Presence, Context::Message] {
        let Ok(Some(content)) = Walk::new(context).read(&part) else { continue };
        // A character takes at most three octets in UTF-8 for each octet that it had before.
        assert!(content.text.len() <= 3 * MAX_DECODED.max(rest.len()), "more text than may be");
        let written = cpim::write("sip:a@example.com", "sip:b@example.net", "text/plain", &content.text);
        let part = Part { content_type: Some("message/cpim".into()), octets: &written, ..Part::default() };
        let again = Walk::new(Context::Message).read(&part).expect("what we write is read").expect("a text");
        // In front of a text it is a byte order mark.
        let text = content.text.strip_prefix('\u{feff}').unwrap_or(&content.text);
        assert_eq!(again.text, text, "a text changes on its way through CPIM");
    }
    let _ = pidf::read(rest, &pidf::Limits::default());
}

/// Parts of one body, those within each other counted.
pub const MAX_PARTS: usize = 32;
/// Multiparts and CPIM within each other.
pub const MAX_DEPTH: usize = 5;
/// Octets that all unpacking of one body may make.
pub const MAX_DECODED: usize = 256 * 1024;
/// Octets that one part may have when it is inflated.
pub const MAX_INFLATED: usize = 64 * 1024;
/// How many times longer than what came a part may be when it is inflated, over a few kilobytes.
pub const MAX_RATIO: usize = 100;
/// Types of presence documents that are read, for Accept.
pub const ACCEPTED_DOCUMENTS: &str = "application/pidf+xml, text/xml+msrtc.pidf, application/cpim-pidf+xml, \
    multipart/mixed, multipart/alternative, multipart/related";
/// Types of messages that are read, for Accept.
pub const ACCEPTED_TEXTS: &str =
    "text/plain, message/cpim, multipart/mixed, multipart/alternative, multipart/related";
/// Types that are read in one context or the other, for the answer to OPTIONS (§11.2).
pub const ACCEPTED: &str = "application/pidf+xml, text/plain, message/cpim, text/xml+msrtc.pidf, \
    application/cpim-pidf+xml, multipart/mixed, multipart/alternative, multipart/related";
/// Codings that are read, for Accept-Encoding.
pub const ACCEPTED_CODINGS: &str = "deflate, gzip, identity";
/// For Accept-Language: text is passed on, so any language will do.
pub const ACCEPTED_LANGUAGES: &str = "*";

#[cfg(test)]
mod tests;
