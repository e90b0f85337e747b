//! The gate: one pass that lets only well-formed, namespace-well-formed, restricted XML through.
//!
//! The bytes of one whole element go in; the same bytes as text come out, or the fault. It refuses what RFC 6120 §11.1
//! forbids (comment, processing instruction, DTD, foreign entity), every breach of XML 1.0 and of Namespaces in XML,
//! and what is over the limits. It never repairs and never skips anything.

use smallvec::SmallVec;

use super::{
    NS_XML, NS_XMLNS, Scope,
    chars::{forbidden_at, is_space, name_len},
    is_same_prefix,
    text::{MAX_REFERENCE_BYTES, reference},
    unescape_attribute,
};

/// Bounds of one element at the top of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XmlLimits {
    /// Octets from its first `<` to its last `>`.
    pub element_bytes: usize,
    /// Nesting; the element itself is level 1.
    pub depth: usize,
    /// Attributes of one element, namespace declarations included.
    pub attributes: usize,
    /// Namespace declarations of one element.
    pub declarations: usize,
    /// Octets of a name or of its prefix.
    pub name_bytes: usize,
    /// Octets of an attribute's value as written.
    pub value_bytes: usize,
}

impl XmlLimits {
    /// What a peer may send before it proved who it is.
    pub const UNAUTHENTICATED: Self = Self {
        element_bytes: MIN_ELEMENT_BYTES,
        depth: 64,
        attributes: 64,
        declarations: 32,
        name_bytes: 256,
        value_bytes: 8192,
    };

    /// The same bounds with another size for the whole element; sizes under 10,000 count as 10,000 (RFC 6120 §13.12).
    pub fn with_element_bytes(self, element_bytes: usize) -> Self {
        Self { element_bytes: element_bytes.max(MIN_ELEMENT_BYTES), ..self }
    }
}

/// No server may refuse a stanza of this size (RFC 6120 §13.12).
const MIN_ELEMENT_BYTES: usize = 10_000;

/// What is wrong with the XML that a peer sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XmlFault {
    /// The element is over its size.
    #[error("element is over the limit of {limit} octets")]
    TooBig {
        /// Octets allowed.
        limit: usize,
    },
    /// Elements are nested too deeply.
    #[error("elements are nested deeper than {limit}")]
    TooDeep {
        /// Levels allowed.
        limit: usize,
    },
    /// One element has too many attributes.
    #[error("an element has more than {limit} attributes")]
    TooManyAttributes {
        /// Attributes allowed.
        limit: usize,
    },
    /// One element declares too many namespaces.
    #[error("an element declares more than {limit} namespaces")]
    TooManyDeclarations {
        /// Declarations allowed.
        limit: usize,
    },
    /// A name is too long.
    #[error("a name is longer than {limit} octets")]
    NameTooLong {
        /// Octets allowed.
        limit: usize,
    },
    /// An attribute's value is too long.
    #[error("an attribute's value is longer than {limit} octets")]
    ValueTooLong {
        /// Octets allowed.
        limit: usize,
    },
    /// A feature of XML that XMPP forbids (RFC 6120 §11.1).
    #[error("{what} is not allowed in XMPP")]
    Restricted {
        /// Which feature.
        what: &'static str,
    },
    /// Not UTF-8, or another encoding was declared (RFC 6120 §11.6).
    #[error("the text is not UTF-8")]
    Encoding,
    /// Not well-formed, or not so in its namespaces.
    #[error("not well-formed: {why}")]
    NotWellFormed {
        /// The rule that is broken.
        why: &'static str,
    },
    /// Text between the elements at the top of the stream.
    #[error("text between the elements of the stream")]
    StrayText,
}

impl XmlFault {
    /// The stream error condition the peer is told (RFC 6120 §4.9.3).
    pub fn condition(&self) -> &'static str {
        match self {
            Self::TooBig { .. }
            | Self::TooDeep { .. }
            | Self::TooManyAttributes { .. }
            | Self::TooManyDeclarations { .. }
            | Self::NameTooLong { .. }
            | Self::ValueTooLong { .. } => "policy-violation",
            Self::Restricted { .. } => "restricted-xml",
            Self::Encoding => "unsupported-encoding",
            Self::NotWellFormed { .. } => "not-well-formed",
            Self::StrayText => "bad-format",
        }
    }
}

/// An element that passed the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked<'a> {
    /// The element as text.
    pub text: &'a str,
    /// Prefixes that it uses but that only its scope declares, each once.
    pub borrowed_prefixes: SmallVec<[&'a str; 2]>,
}

/// Checks one whole element; `scope` is what its stream header declared.
pub fn check<'a>(xml: &'a [u8], scope: &'a Scope, limits: &XmlLimits) -> Result<Checked<'a>, XmlFault> {
    let mut gate = Gate::new(xml, scope, limits)?;
    gate.element()?;
    if gate.at != gate.bytes.len() {
        return Err(not_well_formed("more than one element"));
    }
    Ok(Checked { text: gate.text, borrowed_prefixes: gate.borrowed })
}

/// Checks one start tag, such as a stream header, that is closed later.
pub fn check_open_tag<'a>(xml: &'a [u8], limits: &XmlLimits) -> Result<&'a str, XmlFault> {
    let scope = Scope::empty();
    // The scope is empty, so nothing of it can be borrowed by what is returned.
    let mut gate = Gate::new(xml, &scope, limits)?;
    if gate.start_tag()? == Tag::Empty {
        return Err(not_well_formed("the stream is closed by its own header"));
    }
    if gate.at != gate.bytes.len() {
        return Err(not_well_formed("more than one tag"));
    }
    std::str::from_utf8(xml).map_err(|_| XmlFault::Encoding)
}

struct Gate<'a, 'l> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    limits: &'l XmlLimits,
    /// Elements that are open: their name as written, and how many bindings held outside them.
    open: SmallVec<[(&'a str, u32); 16]>,
    bindings: SmallVec<[Binding<'a>; 8]>,
    /// So many of the bindings come from the scope.
    outer: usize,
    borrowed: SmallVec<[&'a str; 2]>,
}

struct Binding<'a> {
    prefix: &'a str,
    /// As written: references are not replaced.
    namespace: &'a str,
}

#[derive(Clone, Copy)]
struct Name<'a> {
    whole: &'a str,
    prefix: &'a str,
    local: &'a str,
}

#[derive(PartialEq, Eq)]
enum Tag {
    Open,
    Empty,
}

type Checking<T = ()> = Result<T, XmlFault>;

const fn not_well_formed(why: &'static str) -> XmlFault {
    XmlFault::NotWellFormed { why }
}

impl<'a, 'l> Gate<'a, 'l> {
    fn new(xml: &'a [u8], scope: &'a Scope, limits: &'l XmlLimits) -> Checking<Self> {
        if xml.len() > limits.element_bytes {
            return Err(XmlFault::TooBig { limit: limits.element_bytes });
        }
        let text = std::str::from_utf8(xml).map_err(|_| XmlFault::Encoding)?;
        if forbidden_at(text).is_some() {
            return Err(not_well_formed("a character that XML does not allow"));
        }
        let bindings: SmallVec<_> =
            scope.iter().map(|(prefix, namespace)| Binding { prefix, namespace }).collect();
        let outer = bindings.len();
        Ok(Self {
            text,
            bytes: xml,
            at: 0,
            limits,
            open: SmallVec::new(),
            bindings,
            outer,
            borrowed: SmallVec::new(),
        })
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// One element with everything in it.
    fn element(&mut self) -> Checking {
        if self.peek() != Some(b'<') {
            return Err(not_well_formed("an element begins with <"));
        }
        loop {
            // Here `at` is always at a `<`.
            match self.bytes.get(self.at + 1) {
                Some(b'/') => self.end_tag()?,
                Some(b'!') => self.cdata()?,
                Some(b'?') => return Err(XmlFault::Restricted { what: "a processing instruction" }),
                _ => {
                    self.start_tag()?;
                }
            }
            if self.open.is_empty() {
                return Ok(());
            }
            self.character_data()?;
        }
    }

    /// Text up to the next `<`.
    fn character_data(&mut self) -> Checking {
        loop {
            match self.peek() {
                None => return Err(not_well_formed("an element is not closed")),
                Some(b'<') => return Ok(()),
                Some(b'&') => self.reference()?,
                Some(b']') if self.bytes[self.at..].starts_with(b"]]>") => {
                    return Err(not_well_formed("]]> in text"));
                }
                Some(_) => self.at += 1,
            }
        }
    }

    fn reference(&mut self) -> Checking {
        let name = &self.bytes[self.at + 1..];
        let Some(len) = name.iter().take(MAX_REFERENCE_BYTES + 1).position(|&byte| byte == b';') else {
            return Err(not_well_formed("& without a reference"));
        };
        // What stands before an ASCII `;` ends on a character's border.
        let name = &self.text[self.at + 1..self.at + 1 + len];
        if reference(name).is_none() {
            if name_len(name) == name.len() && !name.is_empty() {
                return Err(XmlFault::Restricted { what: "an entity that is not built in" });
            }
            return Err(not_well_formed("a reference to no allowed character"));
        }
        self.at += len + 2;
        Ok(())
    }

    fn cdata(&mut self) -> Checking {
        let rest = &self.bytes[self.at..];
        if !rest.starts_with(b"<![CDATA[") {
            return Err(match rest.get(2) {
                Some(b'-') => XmlFault::Restricted { what: "a comment" },
                Some(b'[') => not_well_formed("an unknown kind of section"),
                _ => XmlFault::Restricted { what: "a document type" },
            });
        }
        if self.open.is_empty() {
            return Err(not_well_formed("a section is no element"));
        }
        match memchr::memmem::find(&rest[9..], b"]]>") {
            Some(len) => {
                self.at += 9 + len + 3;
                Ok(())
            }
            None => Err(not_well_formed("a CDATA section is not closed")),
        }
    }

    fn end_tag(&mut self) -> Checking {
        let Some((open, bindings)) = self.open.pop() else {
            return Err(not_well_formed("an end tag without its start"));
        };
        self.at += 2;
        if !self.bytes[self.at..].starts_with(open.as_bytes()) {
            return Err(not_well_formed("an end tag of another name"));
        }
        self.at += open.len();
        self.skip_space();
        if self.peek() != Some(b'>') {
            return Err(not_well_formed("an end tag of another name"));
        }
        self.at += 1;
        self.bindings.truncate(bindings as usize);
        Ok(())
    }

    fn start_tag(&mut self) -> Checking<Tag> {
        if self.open.len() >= self.limits.depth {
            return Err(XmlFault::TooDeep { limit: self.limits.depth });
        }
        if self.peek() != Some(b'<') {
            return Err(not_well_formed("an element begins with <"));
        }
        self.at += 1;
        let element = self.name()?;
        let before = self.bindings.len();
        let mut attributes: SmallVec<[(Name<'a>, &'a str); 8]> = SmallVec::new();
        let mut count = 0;
        let tag = loop {
            let is_apart = self.skip_space();
            match self.peek() {
                Some(b'>') => break Tag::Open,
                Some(b'/') => {
                    self.at += 1;
                    if self.peek() != Some(b'>') {
                        return Err(not_well_formed("/ inside a tag"));
                    }
                    break Tag::Empty;
                }
                _ if !is_apart => return Err(not_well_formed("no space before an attribute")),
                _ => {}
            }
            count += 1;
            if count > self.limits.attributes {
                return Err(XmlFault::TooManyAttributes { limit: self.limits.attributes });
            }
            let name = self.name()?;
            let value = self.value()?;
            if name.prefix == "xmlns" {
                self.declare(before, name.local, value)?;
            } else if name.whole == "xmlns" {
                self.declare(before, "", value)?;
            } else {
                attributes.push((name, value));
            }
        };
        self.at += 1;
        self.resolve(element.prefix)?;
        self.check_attributes(&attributes)?;
        match tag {
            Tag::Open => self.open.push((element.whole, before as u32)),
            Tag::Empty => self.bindings.truncate(before),
        }
        Ok(tag)
    }

    /// A name with at most one prefix.
    fn name(&mut self) -> Checking<Name<'a>> {
        let rest = &self.text[self.at..];
        let first = name_len(rest);
        let (prefix, local, len) = match rest.as_bytes().get(first) {
            Some(b':') if first > 0 => {
                let second = name_len(&rest[first + 1..]);
                (&rest[..first], &rest[first + 1..first + 1 + second], first + 1 + second)
            }
            _ => ("", &rest[..first], first),
        };
        if local.is_empty() {
            return Err(not_well_formed("a name was expected"));
        }
        if prefix.len().max(local.len()) > self.limits.name_bytes {
            return Err(XmlFault::NameTooLong { limit: self.limits.name_bytes });
        }
        self.at += len;
        Ok(Name { whole: &rest[..len], prefix, local })
    }

    /// `= "value"`, as written.
    fn value(&mut self) -> Checking<&'a str> {
        self.skip_space();
        if self.peek() != Some(b'=') {
            return Err(not_well_formed("an attribute without a value"));
        }
        self.at += 1;
        self.skip_space();
        let quote = match self.peek() {
            Some(quote @ (b'"' | b'\'')) => quote,
            _ => return Err(not_well_formed("an attribute's value without quotes")),
        };
        self.at += 1;
        let start = self.at;
        loop {
            match self.peek() {
                None => return Err(not_well_formed("an attribute's value is not closed")),
                Some(b'<') => return Err(not_well_formed("< in an attribute's value")),
                Some(b'&') => self.reference()?,
                Some(byte) if byte == quote => break,
                Some(_) => self.at += 1,
            }
        }
        let value = &self.text[start..self.at];
        self.at += 1;
        if value.len() > self.limits.value_bytes {
            return Err(XmlFault::ValueTooLong { limit: self.limits.value_bytes });
        }
        Ok(value)
    }

    /// One `xmlns` attribute (Namespaces in XML 1.0 §3).
    fn declare(&mut self, before: usize, prefix: &'a str, namespace: &'a str) -> Checking {
        let declared = &self.bindings[before..];
        if declared.len() >= self.limits.declarations {
            return Err(XmlFault::TooManyDeclarations { limit: self.limits.declarations });
        }
        if declared.iter().any(|binding| is_same_prefix(binding.prefix, prefix)) {
            return Err(not_well_formed("a namespace is declared twice"));
        }
        let meaning = unescape_attribute(namespace);
        if prefix == "xmlns" || meaning == NS_XMLNS {
            return Err(not_well_formed("xmlns cannot be declared"));
        }
        if (prefix == "xml") != (meaning == NS_XML) {
            return Err(not_well_formed("xml has one namespace, and that no other prefix"));
        }
        if meaning.is_empty() && !prefix.is_empty() {
            return Err(not_well_formed("a prefix cannot be undeclared"));
        }
        self.bindings.push(Binding { prefix, namespace });
        Ok(())
    }

    /// The namespace of a prefix as written; notes when only the scope declares it.
    fn resolve(&mut self, prefix: &'a str) -> Checking<&'a str> {
        if prefix.is_empty() {
            // The default namespace of elements; whatever it is, it is never missing.
            return Ok("");
        }
        if prefix == "xml" {
            return Ok(NS_XML);
        }
        match self.bindings.iter().rposition(|binding| is_same_prefix(binding.prefix, prefix)) {
            Some(at) => {
                if at < self.outer && !self.borrowed.contains(&prefix) {
                    self.borrowed.push(prefix);
                }
                Ok(self.bindings[at].namespace)
            }
            None => Err(not_well_formed("a prefix is not declared")),
        }
    }

    /// No two attributes of one element may have the same name, also after their prefixes are resolved.
    fn check_attributes(&mut self, attributes: &[(Name<'a>, &'a str)]) -> Checking {
        for (at, (name, _)) in attributes.iter().enumerate() {
            let namespace = if name.prefix.is_empty() { None } else { Some(self.resolve(name.prefix)?) };
            for (earlier, _) in &attributes[..at] {
                if earlier.local != name.local {
                    continue;
                }
                let is_same = match namespace {
                    None => earlier.prefix.is_empty(),
                    Some(_) if earlier.prefix.is_empty() => false,
                    Some(namespace) => {
                        let other = self.resolve(earlier.prefix)?;
                        namespace == other || unescape_attribute(namespace) == unescape_attribute(other)
                    }
                };
                if is_same {
                    return Err(not_well_formed("an attribute stands twice"));
                }
            }
        }
        Ok(())
    }

    /// Skips white space; true when there was some.
    fn skip_space(&mut self) -> bool {
        let start = self.at;
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
        self.at > start
    }
}
