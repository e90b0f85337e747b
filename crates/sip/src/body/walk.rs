//! Finding the part that a context understands (RFC 5621 §4–8).
//!
//! A part goes in; what was found comes out, or that nothing was understood and whether its sender can do without.

use std::borrow::Cow;

use super::{
    BodyFault, Content, Context, MAX_DECODED, MAX_DEPTH, MAX_PARTS, charset, coding, cpim,
    part::{Part, TOO_MANY, split},
};
use crate::{
    headers::{MediaType, Params},
    lex,
};

/// One body's way through its parts, with what is left of its bounds.
#[derive(Debug)]
pub(super) struct Walk {
    context: Context,
    parts: usize,
    budget: usize,
}

/// What became of one part.
#[derive(Debug)]
enum Outcome<'a> {
    Found(Content<'a>),
    /// Nothing in it is understood; for the log, why.
    Unknown(Handling, BodyFault),
}

/// What a sender wants of a receiver that does not understand a part (RFC 3261 §20.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handling {
    Required,
    Optional,
    /// It does not say; the standard takes it as required.
    Unsaid,
}

/// What a part is to its context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Document,
    Cpim,
    Alternative,
    Related,
    Signed,
    Mixed,
    Unknown,
}

impl Walk {
    pub(super) fn new(context: Context) -> Self {
        Self { context, parts: MAX_PARTS, budget: MAX_DECODED }
    }

    /// Reads a whole body; `None` when it is optional and not understood.
    pub(super) fn read<'a>(&mut self, part: &Part<'a>) -> Result<Option<Content<'a>>, BodyFault> {
        match self.walk(part, 0)? {
            Outcome::Found(content) => Ok(Some(content)),
            Outcome::Unknown(Handling::Optional, _) => Ok(None),
            Outcome::Unknown(_, fault) => Err(fault),
        }
    }

    fn walk<'a>(&mut self, part: &Part<'a>, depth: usize) -> Result<Outcome<'a>, BodyFault> {
        let (handling, is_shown) = read_disposition(part.disposition.as_deref());
        if !is_shown {
            return Ok(Outcome::Unknown(handling, UNKNOWN_DISPOSITION));
        }
        let media = match part.content_type.as_deref() {
            Some(text) => {
                Some(MediaType::parse(text).map_err(|_| BodyFault::Malformed("a malformed Content-Type"))?)
            }
            None => None,
        };
        let kind = self.kind_of(media.as_ref());
        if kind == Kind::Unknown {
            return Ok(Outcome::Unknown(handling, UNKNOWN_TYPE));
        }
        // An optional part that is packed or written in a way of its own is left out like one of an unknown type.
        let found = match coding::unpack(part, &mut self.budget) {
            Ok(Cow::Borrowed(octets)) => self.read_content(kind, media.as_ref(), octets, depth),
            Ok(Cow::Owned(octets)) => {
                self.read_content(kind, media.as_ref(), &octets, depth).map(Outcome::into_owned)
            }
            Err(fault) => Err(fault),
        };
        match found {
            Ok(Outcome::Found(content)) => {
                let own =
                    part.language.as_deref().and_then(|list| super::one_language(lex::CommaList::new(list)));
                let language = content.language.or_else(|| own.map(ToOwned::to_owned));
                Ok(Outcome::Found(Content { language, ..content }))
            }
            Ok(Outcome::Unknown(_, fault)) | Err(fault @ BodyFault::Unsupported(_)) => {
                Ok(Outcome::Unknown(handling, fault))
            }
            Err(fault) => Err(fault),
        }
    }

    /// A missing type is that of plain text within a multipart or CPIM (RFC 2045 §5.2), and of a MESSAGE.
    fn kind_of(&self, media: Option<&MediaType<'_>>) -> Kind {
        let is = |main, sub| media.is_some_and(|media| media.is(main, sub));
        let is_document = ["pidf+xml", "cpim-pidf+xml"].iter().any(|sub| is("application", sub))
            || is("text", "xml+msrtc.pidf");
        match self.context {
            Context::Presence if is_document => Kind::Document,
            Context::Message if media.is_none() || is("text", "plain") => Kind::Text,
            Context::Message if is("message", "cpim") => Kind::Cpim,
            _ if is("multipart", "alternative") => Kind::Alternative,
            _ if is("multipart", "related") => Kind::Related,
            _ if is("multipart", "signed") => Kind::Signed,
            _ if is("multipart", "encrypted") => Kind::Unknown,
            // Any other multipart is read as a mixed one (RFC 2046 §5.1.3).
            _ if media.is_some_and(|media| media.main.eq_ignore_ascii_case("multipart")) => Kind::Mixed,
            _ => Kind::Unknown,
        }
    }

    fn read_content<'a>(
        &mut self,
        kind: Kind,
        media: Option<&MediaType<'_>>,
        octets: &'a [u8],
        depth: usize,
    ) -> Result<Outcome<'a>, BodyFault> {
        let charset = media.and_then(|media| media.param("charset"));
        let found = |text| Outcome::Found(Content { text, language: None, subject: None });
        match kind {
            Kind::Text => return charset::plain(octets, charset.as_deref()).map(found),
            Kind::Document => return charset::xml(octets, charset.as_deref()).map(found),
            _ => {}
        }
        if depth == MAX_DEPTH {
            return Err(BodyFault::TooBig("a body of too many parts within each other"));
        }
        if kind == Kind::Cpim {
            let cpim = cpim::read(octets)?;
            let subject = cpim.subject;
            return Ok(match self.take(&cpim.content, depth)? {
                Outcome::Found(content) => {
                    Outcome::Found(Content { subject: content.subject.or(subject), ..content })
                }
                unknown => unknown,
            });
        }
        let boundary = media.and_then(|media| media.param("boundary"));
        let boundary = boundary.ok_or(BodyFault::Malformed("a multipart without a boundary"))?;
        let parts: Vec<Part<'a>> = split(octets, &boundary)?.into_iter().map(Part::read).collect();
        match kind {
            Kind::Alternative => self.read_alternative(&parts, depth),
            Kind::Related => {
                let start = media.and_then(|media| media.param("start"));
                self.read_related(&parts, start.as_deref(), depth)
            }
            // The signature says nothing to us, and what it signs nothing more than without it.
            Kind::Signed => self.take(&parts[0], depth),
            _ => self.read_mixed(&parts, depth),
        }
    }

    fn take<'a>(&mut self, part: &Part<'a>, depth: usize) -> Result<Outcome<'a>, BodyFault> {
        self.parts = self.parts.checked_sub(1).ok_or(TOO_MANY)?;
        self.walk(part, depth + 1)
    }

    /// The last part that is understood; whether any is required is no matter (RFC 5621 §8.3).
    fn read_alternative<'a>(&mut self, parts: &[Part<'a>], depth: usize) -> Result<Outcome<'a>, BodyFault> {
        let mut why = UNKNOWN_TYPE;
        for part in parts.iter().rev() {
            match self.take(part, depth) {
                Ok(Outcome::Found(content)) => return Ok(Outcome::Found(content)),
                Ok(Outcome::Unknown(_, fault)) | Err(fault @ BodyFault::Malformed(_)) => why = fault,
                Err(fault) => return Err(fault),
            }
        }
        match why {
            BodyFault::Unsupported(_) => Ok(Outcome::Unknown(Handling::Unsaid, why)),
            fault => Err(fault),
        }
    }

    /// The root, of which all others are pieces; where it is not understood, the first part that is (RFC 5621 §7.1).
    fn read_related<'a>(
        &mut self,
        parts: &[Part<'a>],
        start: Option<&str>,
        depth: usize,
    ) -> Result<Outcome<'a>, BodyFault> {
        let name = |id: &str| id.trim().trim_start_matches('<').trim_end_matches('>').to_owned();
        let start = start.map(name);
        let is_root = |part: &&Part<'_>| start.is_some() && part.id.as_deref().map(name) == start;
        let root = parts.iter().position(|part| is_root(&part)).unwrap_or(0);
        let in_order = std::iter::once(&parts[root])
            .chain(parts.iter().enumerate().filter(|(at, _)| *at != root).map(|(_, part)| part));
        let mut first = None;
        for part in in_order {
            match self.take(part, depth)? {
                Outcome::Found(content) => first = first.or(Some(content)),
                Outcome::Unknown(Handling::Required, fault) => return Err(fault),
                Outcome::Unknown(..) => {}
            }
        }
        Ok(first.map_or(Outcome::Unknown(Handling::Unsaid, UNKNOWN_TYPE), Outcome::Found))
    }

    /// Every part counts: texts one after the other, and the first document.
    fn read_mixed<'a>(&mut self, parts: &[Part<'a>], depth: usize) -> Result<Outcome<'a>, BodyFault> {
        let mut whole: Option<Content<'a>> = None;
        let mut why = UNKNOWN_TYPE;
        for part in parts {
            match self.take(part, depth)? {
                Outcome::Found(content) => match &mut whole {
                    None => whole = Some(content),
                    Some(whole) if self.context == Context::Message => {
                        if whole.language != content.language {
                            whole.language = Some(super::SEVERAL_LANGUAGES.to_owned());
                        }
                        let text = whole.text.to_mut();
                        if !text.is_empty() && !text.ends_with('\n') {
                            text.push('\n');
                        }
                        text.push_str(&content.text);
                    }
                    Some(_) => {}
                },
                Outcome::Unknown(Handling::Optional, fault) => why = fault,
                Outcome::Unknown(Handling::Unsaid, fault) if self.context == Context::Presence => why = fault,
                Outcome::Unknown(_, fault) => return Err(fault),
            }
        }
        Ok(whole.map_or(Outcome::Unknown(Handling::Unsaid, why), Outcome::Found))
    }
}

impl Outcome<'_> {
    fn into_owned(self) -> Outcome<'static> {
        match self {
            Self::Found(content) => Outcome::Found(content.into_owned()),
            Self::Unknown(handling, fault) => Outcome::Unknown(handling, fault),
        }
    }
}

/// How to handle a part, and whether it is to be shown to people, as `render` and MIME's `inline` say.
fn read_disposition(disposition: Option<&str>) -> (Handling, bool) {
    let Some(disposition) = disposition else { return (Handling::Unsaid, true) };
    let (kind, params) = lex::split_before(disposition, b';');
    let handling = Params::read(params).ok().and_then(|params| params.text("handling"));
    let is = |name: &str| handling.as_deref().is_some_and(|handling| handling.eq_ignore_ascii_case(name));
    let handling = match () {
        () if is("optional") => Handling::Optional,
        () if is("required") => Handling::Required,
        () => Handling::Unsaid,
    };
    let kind = lex::trim(kind);
    (handling, ["render", "inline"].iter().any(|known| kind.eq_ignore_ascii_case(known)))
}

const UNKNOWN_TYPE: BodyFault = BodyFault::Unsupported("a body of a type that is not read");
const UNKNOWN_DISPOSITION: BodyFault = BodyFault::Unsupported("a body that is not for showing");
