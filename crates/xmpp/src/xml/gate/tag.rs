//! Start tags at the gate: their name, attributes and namespaces.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::{Binding, Checking, Gate, Open, Place, Progress, Span, Step, as_text, not_well_formed};
use crate::xml::{NS_XML, NS_XMLNS, Scope, XmlFault, XmlLimits, chars::ncname_len, unescape_attribute};

/// The start tag that is being read.
#[derive(Debug, Default)]
pub(super) struct OpenTag {
    name: Name,
    /// The name of the attribute whose value comes next.
    attribute: Name,
    /// Attributes so far, declarations of namespaces included.
    count: usize,
    /// The names of those that are no declarations.
    attributes: SmallVec<[Name; 8]>,
    /// So many bindings held outside it.
    outside: usize,
}

/// A name with at most one prefix.
#[derive(Debug, Clone, Copy, Default)]
struct Name {
    whole: Span,
    prefix: Span,
    local: Span,
}

/// What a prefix means.
#[derive(Clone, Copy)]
enum Namespace<'a> {
    /// The namespace itself.
    Plain(&'a [u8]),
    /// As written, with references that are not replaced.
    Written(&'a [u8]),
}

impl Namespace<'_> {
    fn is_same(self, other: Namespace<'_>) -> bool {
        if let (Self::Plain(left), Namespace::Plain(right)) = (self, other) {
            return left == right;
        }
        let meaning =
            |(Namespace::Plain(raw) | Namespace::Written(raw))| unescape_attribute(as_text(raw)).into_owned();
        meaning(self) == meaning(other)
    }
}

impl OpenTag {
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Gate {
    /// The `<` and the name of a start tag.
    pub(super) fn start_name(&mut self, xml: &[u8], limits: &XmlLimits) -> Checking<bool> {
        if self.open.len() >= limits.depth {
            return Err(XmlFault::TooDeep { limit: limits.depth });
        }
        let Some(name) = read_name(xml, self.at + 1, limits)? else { return Ok(false) };
        self.at = name.whole.end as usize;
        self.tag.name = name;
        self.tag.count = 0;
        self.tag.attributes.clear();
        self.tag.outside = self.bindings.len();
        self.place = Place::InTag { is_apart: false };
        Ok(true)
    }

    /// The next attribute's name, or the end of the tag.
    pub(super) fn in_tag(
        &mut self,
        xml: &[u8],
        is_apart: bool,
        scope: &Scope,
        limits: &XmlLimits,
    ) -> Checking<Progress> {
        let is_apart = self.skip_space(xml) || is_apart;
        self.place = Place::InTag { is_apart };
        match &xml[self.at..] {
            [] | [b'/'] => Ok(Progress::On(false)),
            [b'>', ..] => {
                self.at += 1;
                self.finish_tag(xml, scope)?;
                self.open.push(Open { name: self.tag.name.whole, bindings: self.tag.outside as u32 });
                Ok(self.behind_a_tag(Step::Opened))
            }
            [b'/', b'>', ..] => {
                self.at += 2;
                self.finish_tag(xml, scope)?;
                self.bindings.truncate(self.tag.outside);
                Ok(self.behind_a_tag(Step::Closed))
            }
            [b'/', ..] => Err(not_well_formed("/ inside a tag")),
            _ if !is_apart => Err(not_well_formed("no space before an attribute")),
            _ if self.tag.count >= limits.attributes => {
                Err(XmlFault::TooManyAttributes { limit: limits.attributes })
            }
            _ => {
                let Some(name) = read_name(xml, self.at, limits)? else { return Ok(Progress::On(false)) };
                self.at = name.whole.end as usize;
                self.tag.attribute = name;
                self.tag.count += 1;
                self.place = Place::Equals;
                Ok(Progress::On(true))
            }
        }
    }

    pub(super) fn equals(&mut self, xml: &[u8]) -> Checking<bool> {
        self.skip_space(xml);
        match xml.get(self.at) {
            None => Ok(false),
            Some(b'=') => {
                self.at += 1;
                self.place = Place::Quote;
                Ok(true)
            }
            Some(_) => Err(not_well_formed("an attribute without a value")),
        }
    }

    pub(super) fn quote(&mut self, xml: &[u8]) -> Checking<bool> {
        self.skip_space(xml);
        match xml.get(self.at) {
            None => Ok(false),
            Some(&quote @ (b'"' | b'\'')) => {
                self.at += 1;
                self.place = Place::Value { quote, start: self.at };
                Ok(true)
            }
            Some(_) => Err(not_well_formed("an attribute's value without quotes")),
        }
    }

    pub(super) fn value(
        &mut self,
        xml: &[u8],
        quote: u8,
        start: usize,
        limits: &XmlLimits,
    ) -> Checking<bool> {
        let name = self.tag.attribute;
        let is_declaration = name.prefix.of(xml) == b"xmlns" || name.whole.of(xml) == b"xmlns";
        // Each namespace is compared with others and may be copied; what stands in the first tag is kept, as the id is.
        let is_bounded = is_declaration || self.open.is_empty();
        loop {
            let found = memchr::memchr3(quote, b'<', b'&', &xml[self.at..]);
            self.at = found.map_or(xml.len(), |len| self.at + len);
            if is_bounded && self.at - start > limits.value_bytes {
                return Err(XmlFault::ValueTooLong { limit: limits.value_bytes });
            }
            match found.map(|_| xml[self.at]) {
                None => return Ok(false),
                Some(b'<') => return Err(not_well_formed("< in an attribute's value")),
                Some(b'&') => {
                    if !self.reference(xml)? {
                        return Ok(false);
                    }
                }
                Some(_) => {
                    let value = Span::new(start, self.at);
                    self.at += 1;
                    self.place = Place::InTag { is_apart: false };
                    self.take_attribute(xml, value, limits)?;
                    return Ok(true);
                }
            }
        }
    }

    fn take_attribute(&mut self, xml: &[u8], value: Span, limits: &XmlLimits) -> Checking {
        let name = self.tag.attribute;
        if name.prefix.of(xml) == b"xmlns" {
            self.declare(xml, name.local, value, limits)
        } else if name.whole.of(xml) == b"xmlns" {
            self.declare(xml, Span::default(), value, limits)
        } else {
            self.tag.attributes.push(name);
            Ok(())
        }
    }

    /// One `xmlns` attribute (Namespaces in XML 1.0 §3).
    fn declare(&mut self, xml: &[u8], prefix: Span, namespace: Span, limits: &XmlLimits) -> Checking {
        let declared = &self.bindings[self.tag.outside..];
        if declared.len() >= limits.declarations {
            return Err(XmlFault::TooManyDeclarations { limit: limits.declarations });
        }
        // Each prefix is looked for among all that hold, so their number bounds the work of a hostile stanza.
        let most = limits.declarations * LEVELS_OF_DECLARATIONS;
        if self.bindings.len() >= most {
            return Err(XmlFault::TooManyDeclarations { limit: most });
        }
        if declared.iter().any(|binding| binding.prefix.of(xml) == prefix.of(xml)) {
            return Err(not_well_formed("a namespace is declared twice"));
        }
        let meaning = unescape_attribute(as_text(namespace.of(xml)));
        if prefix.of(xml) == b"xmlns" || meaning == NS_XMLNS {
            return Err(not_well_formed("xmlns cannot be declared"));
        }
        if (prefix.of(xml) == b"xml") != (meaning == NS_XML) {
            return Err(not_well_formed("xml has one namespace, and that no other prefix"));
        }
        if meaning.is_empty() && !prefix.is_empty() {
            return Err(not_well_formed("a prefix cannot be undeclared"));
        }
        let is_plain = matches!(meaning, Cow::Borrowed(_));
        self.bindings.push(Binding { prefix, namespace, is_plain });
        Ok(())
    }

    /// All attributes are there: whether every prefix means something, and no attribute stands twice.
    fn finish_tag(&mut self, xml: &[u8], scope: &Scope) -> Checking {
        self.resolve(xml, self.tag.name.prefix, scope)?;
        for at in 0..self.tag.attributes.len() {
            let name = self.tag.attributes[at];
            let namespace =
                if name.prefix.is_empty() { None } else { Some(self.resolve(xml, name.prefix, scope)?) };
            for before in 0..at {
                let earlier = self.tag.attributes[before];
                if earlier.local.len() != name.local.len() || earlier.local.of(xml) != name.local.of(xml) {
                    continue;
                }
                let is_same = match namespace {
                    None => earlier.prefix.is_empty(),
                    Some(_) if earlier.prefix.is_empty() => false,
                    Some(namespace) => namespace.is_same(self.resolve(xml, earlier.prefix, scope)?),
                };
                if is_same {
                    return Err(not_well_formed("an attribute stands twice"));
                }
            }
        }
        Ok(())
    }

    /// The namespace of a prefix; notes when only the scope declares it.
    fn resolve<'a>(&mut self, xml: &'a [u8], prefix: Span, scope: &'a Scope) -> Checking<Namespace<'a>> {
        if prefix.is_empty() {
            // The default namespace of elements; whatever it is, it is never missing.
            return Ok(Namespace::Plain(b""));
        }
        let written = prefix.of(xml);
        if written == b"xml" {
            return Ok(Namespace::Plain(NS_XML.as_bytes()));
        }
        if let Some(binding) = self.bindings.iter().rfind(|binding| binding.prefix.of(xml) == written) {
            let namespace = binding.namespace.of(xml);
            return Ok(if binding.is_plain {
                Namespace::Plain(namespace)
            } else {
                Namespace::Written(namespace)
            });
        }
        let Some(namespace) = scope.namespace(as_text(written)) else {
            return Err(not_well_formed("a prefix is not declared"));
        };
        if !self.borrowed.iter().any(|known| known.of(xml) == written) {
            self.borrowed.push(prefix);
        }
        Ok(Namespace::Plain(namespace.as_bytes()))
    }
}

/// Namespaces that may hold at one place, as a multiple of what one element may declare.
const LEVELS_OF_DECLARATIONS: usize = 8;

/// The name at `start`; `None` when it may go on behind what has come.
fn read_name(xml: &[u8], start: usize, limits: &XmlLimits) -> Checking<Option<Name>> {
    let limit = limits.name_bytes;
    let part = |start: usize| -> Checking<usize> {
        let len = ncname_len(&xml[start..]);
        if len > limit {
            return Err(XmlFault::NameTooLong { limit });
        }
        if len == 0 && start < xml.len() {
            return Err(not_well_formed("a name was expected"));
        }
        Ok(start + len)
    };
    let first = part(start)?;
    match xml.get(first) {
        None => Ok(None),
        Some(b':') => {
            let end = part(first + 1)?;
            let name = Name {
                whole: Span::new(start, end),
                prefix: Span::new(start, first),
                local: Span::new(first + 1, end),
            };
            Ok((end < xml.len()).then_some(name))
        }
        Some(_) => {
            let whole = Span::new(start, first);
            Ok(Some(Name { whole, prefix: Span::default(), local: whole }))
        }
    }
}
