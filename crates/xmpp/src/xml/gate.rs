//! The gate: one pass that lets only well-formed, namespace-well-formed, restricted XML through, as its octets arrive.
//!
//! The octets of one element go in, as many as have come so far; out comes that its first tag or the whole element has
//! ended, that more is needed, or the fault at the first octet that no continuation can mend. It refuses what RFC 6120
//! §11.1 forbids (comment, processing instruction, DTD, foreign entity), every breach of XML 1.0 and of Namespaces in XML,
//! and what is over the limits. It never repairs and never skips anything, and how the octets were cut changes nothing.

mod tag;

use smallvec::SmallVec;

use self::tag::OpenTag;
use super::{
    Scope, XmlFault, XmlLimits,
    chars::{forbidden_at, is_space, name_len},
    text::{MAX_REFERENCE_BYTES, reference},
};

/// An element that passed the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked<'a> {
    /// The element as text.
    pub text: &'a str,
    /// Prefixes that it uses but that only its scope declares, each once.
    pub borrowed_prefixes: SmallVec<[&'a str; 2]>,
}

impl<'a> Checked<'a> {
    /// The element `xml`, which passed the gate, and what [`Gate::take_borrowed`] gave of it.
    pub(crate) fn of(xml: &'a [u8], borrowed: &[Span]) -> Self {
        let borrowed_prefixes = borrowed.iter().map(|prefix| as_text(prefix.of(xml))).collect();
        Self { text: as_text(xml), borrowed_prefixes }
    }
}

/// Checks one whole element; `scope` is what its stream header declared.
pub fn check<'a>(xml: &'a [u8], scope: &Scope, limits: &XmlLimits) -> Result<Checked<'a>, XmlFault> {
    let mut gate = Gate::default();
    let (valid, fault) = valid_len(xml);
    if xml.len() > limits.element_bytes {
        return Err(XmlFault::TooBig { limit: limits.element_bytes });
    }
    let step = loop {
        match gate.advance(&xml[..valid], scope, limits)? {
            Some(Step::Opened) => {}
            step => break step,
        }
    };
    match step {
        Some(_) if gate.at == xml.len() => Ok(Checked::of(xml, &gate.borrowed)),
        Some(_) => Err(not_well_formed("more than one element")),
        // What is cut off in the middle of a character is not UTF-8 either.
        None if valid < xml.len() => Err(fault.unwrap_or(XmlFault::Encoding)),
        None => Err(not_well_formed("an element is not closed")),
    }
}

/// Checks one start tag, such as a stream header, that is closed later.
pub fn check_open_tag<'a>(xml: &'a [u8], limits: &XmlLimits) -> Result<&'a str, XmlFault> {
    let mut gate = Gate::default();
    let (valid, fault) = valid_len(xml);
    if xml.len() > limits.element_bytes {
        return Err(XmlFault::TooBig { limit: limits.element_bytes });
    }
    match gate.advance(&xml[..valid], &Scope::empty(), limits)? {
        Some(Step::Opened) if gate.at == xml.len() => {
            std::str::from_utf8(xml).map_err(|_| XmlFault::Encoding)
        }
        Some(Step::Opened) => Err(not_well_formed("more than one tag")),
        Some(Step::Closed) => Err(not_well_formed("the stream is closed by its own header")),
        None if valid < xml.len() => Err(fault.unwrap_or(XmlFault::Encoding)),
        None => Err(not_well_formed("a tag is not closed")),
    }
}

/// How many octets, from the first, are UTF-8 and characters of XML, and what is wrong with the next. Without a fault the
/// rest may become a character when more comes.
pub(crate) fn valid_len(bytes: &[u8]) -> (usize, Option<XmlFault>) {
    let (text, fault) = match std::str::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => {
            let valid = &bytes[..error.valid_up_to()];
            let fault = error.error_len().map(|_| XmlFault::Encoding);
            (std::str::from_utf8(valid).unwrap_or_default(), fault)
        }
    };
    match forbidden_at(text) {
        Some(at) => (at, Some(not_well_formed("a character that XML does not allow"))),
        None => (text.len(), fault),
    }
}

/// Checks one element while it arrives.
///
/// [`Gate::advance`] is called with the element's octets from its `<` on, each time with at least as many as before.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Octets that were checked.
    at: usize,
    place: Place,
    /// Elements that are open.
    open: Vec<Open>,
    /// Namespaces that were declared inside the element.
    bindings: Vec<Binding>,
    tag: OpenTag,
    borrowed: SmallVec<[Span; 2]>,
}

/// What [`Gate::advance`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The element's own start tag has ended, and its content follows.
    Opened,
    /// The element has ended.
    Closed,
}

/// What stands at the next octet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    /// The `<` of a tag or section.
    #[default]
    Markup,
    /// Text between tags.
    Text,
    CData,
    /// The rest of a start tag, behind its name or an attribute. True once white space was seen.
    InTag {
        is_apart: bool,
    },
    /// The `=` of an attribute, perhaps behind white space.
    Equals,
    /// The quote that begins an attribute's value, perhaps behind white space.
    Quote,
    /// An attribute's value that began at `start` and ends with `quote`.
    Value {
        quote: u8,
        start: usize,
    },
    /// The name of an end tag.
    EndName,
    /// The `>` of an end tag, perhaps behind white space.
    EndTag,
}

/// A piece of the element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// The piece of `xml`, the element's octets.
    pub(crate) fn of(self, xml: &[u8]) -> &[u8] {
        &xml[self.start as usize..self.end as usize]
    }

    fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    fn is_empty(self) -> bool {
        self.start == self.end
    }
}

#[derive(Debug)]
struct Open {
    name: Span,
    /// So many bindings held outside it.
    bindings: u32,
}

#[derive(Debug, Clone, Copy)]
struct Binding {
    prefix: Span,
    /// As written: references are not replaced.
    namespace: Span,
    /// It holds nothing that would be replaced.
    is_plain: bool,
}

type Checking<T = ()> = Result<T, XmlFault>;

const fn not_well_formed(why: &'static str) -> XmlFault {
    XmlFault::NotWellFormed { why }
}

impl Gate {
    /// Octets that were checked: the element's length once it is [`Step::Closed`].
    pub(crate) fn checked_len(&self) -> usize {
        self.at
    }

    /// Prefixes that the element uses but does not declare, each once.
    pub(crate) fn take_borrowed(&mut self) -> SmallVec<[Span; 2]> {
        std::mem::take(&mut self.borrowed)
    }

    /// Waits for another element. Keeps its room unless it is large.
    pub(crate) fn reset(&mut self) {
        const MOST_KEPT: usize = 64;
        self.at = 0;
        self.place = Place::Markup;
        self.open.clear();
        self.open.shrink_to(MOST_KEPT);
        self.bindings.clear();
        self.bindings.shrink_to(MOST_KEPT);
        self.tag.reset();
        self.borrowed.clear();
    }

    /// Whether the element's own start tag declared a namespace. Holds while nothing is open inside it.
    pub(crate) fn has_declared(&self) -> bool {
        !self.bindings.is_empty()
    }

    /// The namespaces that the element's own start tag declared. Holds while nothing is open inside it.
    pub(crate) fn declared(&self, xml: &[u8]) -> Scope {
        let mut scope = Scope::empty();
        for binding in &self.bindings {
            let namespace = super::unescape_attribute(as_text(binding.namespace.of(xml)));
            scope.declare(as_text(binding.prefix.of(xml)), &namespace);
        }
        scope
    }

    /// Looks on through `xml`, the octets of the element that have come, which must be whole characters of XML. `None` when
    /// more are needed.
    pub(crate) fn advance(
        &mut self,
        xml: &[u8],
        scope: &Scope,
        limits: &XmlLimits,
    ) -> Checking<Option<Step>> {
        loop {
            let is_on = match self.place {
                Place::Markup => self.markup(xml, limits)?,
                Place::Text => self.text(xml)?,
                Place::CData => self.cdata(xml),
                Place::InTag { is_apart } => match self.in_tag(xml, is_apart, scope, limits)? {
                    Progress::Step(step) => return Ok(Some(step)),
                    Progress::On(is_on) => is_on,
                },
                Place::Equals => self.equals(xml)?,
                Place::Quote => self.quote(xml)?,
                Place::Value { quote, start } => self.value(xml, quote, start, limits)?,
                Place::EndName => self.end_name(xml)?,
                Place::EndTag => match self.end_tag(xml)? {
                    Progress::Step(step) => return Ok(Some(step)),
                    Progress::On(is_on) => is_on,
                },
            };
            if !is_on {
                return Ok(None);
            }
        }
    }

    /// A `<`, and what kind of markup it begins. Here as below, false when more octets are needed.
    fn markup(&mut self, xml: &[u8], limits: &XmlLimits) -> Checking<bool> {
        const CDATA: &[u8] = b"<![CDATA[";
        let rest = &xml[self.at..];
        match rest {
            [] => Ok(false),
            [first, ..] if *first != b'<' => Err(not_well_formed("an element begins with <")),
            [_] => Ok(false),
            [_, b'/', ..] if self.open.is_empty() => Err(not_well_formed("an end tag without its start")),
            [_, b'/', ..] => {
                self.at += 2;
                self.place = Place::EndName;
                Ok(true)
            }
            [_, b'?', ..] => Err(XmlFault::Restricted { what: "a processing instruction" }),
            [_, b'!'] => Ok(false),
            [_, b'!', b'[', ..] => {
                let len = rest.len().min(CDATA.len());
                if rest[..len] != CDATA[..len] {
                    return Err(not_well_formed("an unknown kind of section"));
                }
                if len < CDATA.len() {
                    return Ok(false);
                }
                if self.open.is_empty() {
                    return Err(not_well_formed("a section is no element"));
                }
                self.at += len;
                self.place = Place::CData;
                Ok(true)
            }
            [_, b'!', b'-', ..] => Err(XmlFault::Restricted { what: "a comment" }),
            [_, b'!', ..] => Err(XmlFault::Restricted { what: "a document type" }),
            _ => self.start_name(xml, limits),
        }
    }

    /// Text up to the next `<`.
    fn text(&mut self, xml: &[u8]) -> Checking<bool> {
        loop {
            let Some(len) = memchr::memchr3(b'<', b'&', b'>', &xml[self.at..]) else {
                self.at = xml.len();
                return Ok(false);
            };
            self.at += len;
            match xml[self.at] {
                b'<' => {
                    self.place = Place::Markup;
                    return Ok(true);
                }
                b'&' => {
                    if !self.reference(xml)? {
                        return Ok(false);
                    }
                }
                // What stands before the text ends with `>` or `;`, so both brackets are of the text.
                _ if xml[..self.at].ends_with(b"]]") => return Err(not_well_formed("]]> in text")),
                _ => self.at += 1,
            }
        }
    }

    fn cdata(&mut self, xml: &[u8]) -> bool {
        let rest = &xml[self.at..];
        match memchr::memmem::find(rest, b"]]>") {
            Some(len) => {
                self.at += len + 3;
                self.place = Place::Text;
                true
            }
            None => {
                // Its last two octets may begin the end.
                self.at += rest.len().saturating_sub(2);
                false
            }
        }
    }

    /// The reference that begins at the `&` where the gate stands.
    fn reference(&mut self, xml: &[u8]) -> Checking<bool> {
        let rest = &xml[self.at + 1..];
        let may_hold =
            |byte: &u8| byte.is_ascii_alphanumeric() || !byte.is_ascii() || b"#_-.:".contains(byte);
        let len = rest.iter().take(MAX_REFERENCE_BYTES + 1).take_while(|byte| may_hold(byte)).count();
        match rest.get(len) {
            _ if len > MAX_REFERENCE_BYTES => Err(not_well_formed("& without a reference")),
            None => Ok(false),
            Some(b';') => {
                let name = as_text(&rest[..len]);
                if reference(name).is_some() {
                    self.at += len + 2;
                    Ok(true)
                } else if !name.is_empty() && name_len(name) == name.len() {
                    Err(XmlFault::Restricted { what: "an entity that is not built in" })
                } else {
                    Err(not_well_formed("a reference to no allowed character"))
                }
            }
            Some(_) => Err(not_well_formed("& without a reference")),
        }
    }

    /// The name of an end tag, which must be that of the element that was opened last.
    fn end_name(&mut self, xml: &[u8]) -> Checking<bool> {
        let Some(open) = self.open.last() else {
            return Err(not_well_formed("an end tag without its start"));
        };
        let name = open.name.of(xml);
        let rest = &xml[self.at..];
        let len = rest.len().min(name.len());
        if rest[..len] != name[..len] {
            return Err(not_well_formed("an end tag of another name"));
        }
        if len < name.len() {
            return Ok(false);
        }
        self.at += len;
        self.place = Place::EndTag;
        Ok(true)
    }

    fn end_tag(&mut self, xml: &[u8]) -> Checking<Progress> {
        self.skip_space(xml);
        match xml.get(self.at) {
            None => Ok(Progress::On(false)),
            Some(b'>') => {
                self.at += 1;
                if let Some(open) = self.open.pop() {
                    self.bindings.truncate(open.bindings as usize);
                }
                Ok(self.behind_a_tag(Step::Closed))
            }
            Some(_) => Err(not_well_formed("an end tag of another name")),
        }
    }

    /// Goes on behind a tag: with text, or with nothing if the element has ended.
    fn behind_a_tag(&mut self, step: Step) -> Progress {
        self.place = Place::Text;
        let is_step = match step {
            Step::Opened => self.open.len() == 1,
            Step::Closed => self.open.is_empty(),
        };
        if is_step { Progress::Step(step) } else { Progress::On(true) }
    }

    /// Skips white space; true when there was some.
    fn skip_space(&mut self, xml: &[u8]) -> bool {
        let len = xml[self.at..].iter().take_while(|byte| is_space(**byte)).count();
        self.at += len;
        len > 0
    }
}

/// How far one part of the gate came.
enum Progress {
    Step(Step),
    /// False when more octets are needed.
    On(bool),
}

/// A piece that was cut at ASCII out of octets that are UTF-8.
fn as_text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
