//! A cursor over an element that passed the gate: children, attributes, text, with their namespaces.
//!
//! It trusts the text to be well-formed. On other text it gives wrong answers, but it always ends and never panics.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::{
    NS_XML, Scope,
    chars::{is_space, name_len},
    is_same_prefix,
    text::{normalize_lines, unescape_attribute, unescape_text},
};
use crate::ns;

/// A start tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag<'a> {
    /// Its namespace; empty when it has none.
    pub ns: Cow<'a, str>,
    /// Its name without prefix.
    pub name: &'a str,
    /// Its prefix; mostly empty.
    pub prefix: &'a str,
    /// The attributes as written, between the name and the `>` or `/>`.
    attributes: &'a str,
    /// Where its `<` stands in the text.
    start: usize,
}

impl<'a> Tag<'a> {
    /// True for an element of this name and namespace.
    pub fn is(&self, ns: &str, name: &str) -> bool {
        self.name == name && self.ns == ns
    }

    /// All attributes in order, declarations of namespaces included.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        let mut rest = self.attributes;
        std::iter::from_fn(move || {
            let (attribute, after) = Attribute::read(rest)?;
            rest = after;
            Some(attribute)
        })
    }

    /// The value of the attribute that is written `name` (with its prefix, if it has one).
    pub fn attribute(&self, name: &str) -> Option<Cow<'a, str>> {
        self.attributes().find(|attribute| attribute.name == name).map(|attribute| attribute.value())
    }

    /// Its `xml:lang`.
    pub fn lang(&self) -> Option<Cow<'a, str>> {
        self.attribute("xml:lang")
    }
}

/// One attribute as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its name with its prefix.
    pub name: &'a str,
    /// Its value, references not replaced.
    pub raw_value: &'a str,
}

impl<'a> Attribute<'a> {
    /// Its value.
    pub fn value(&self) -> Cow<'a, str> {
        unescape_attribute(self.raw_value)
    }

    /// What it declares, if it is a declaration of a namespace: the prefix (empty for the default) and the namespace.
    pub fn declaration(&self) -> Option<(&'a str, Cow<'a, str>)> {
        let prefix = match self.name.strip_prefix("xmlns")? {
            "" => "",
            prefixed => prefixed.strip_prefix(':')?,
        };
        Some((prefix, self.value()))
    }

    fn read(text: &'a str) -> Option<(Self, &'a str)> {
        let (name, rest) = split_name(skip_space(text))?;
        let rest = skip_space(skip_space(rest).strip_prefix('=')?);
        let quote = rest.bytes().next().filter(|byte| matches!(byte, b'"' | b'\''))?;
        let end = memchr::memchr(quote, &rest.as_bytes()[1..])? + 1;
        Some((Self { name, raw_value: &rest[1..end] }, &rest[end + 1..]))
    }
}

fn skip_space(text: &str) -> &str {
    let len = text.bytes().take_while(|byte| is_space(*byte)).count();
    &text[len..]
}

/// A name with its prefix, and what follows it.
fn split_name(text: &str) -> Option<(&str, &str)> {
    let mut len = name_len(text);
    if len > 0 && text.as_bytes().get(len) == Some(&b':') {
        len += 1 + name_len(&text[len + 1..]);
    }
    (len > 0).then(|| text.split_at(len))
}

/// Walks over one element and what is in it.
///
/// [`Reader::child`] steps into the next child of the current element; then its content is taken by
/// [`Reader::text`], [`Reader::skip`] or [`Reader::inner`], or walked over by further calls of `child` until that
/// answers `None`, which also leaves the element.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
    bindings: SmallVec<[Binding<'a>; 8]>,
    /// For each open element, how many bindings hold outside it.
    open: SmallVec<[u32; 8]>,
    /// The current element was written `<a/>`: it has no content and no end tag.
    is_empty: bool,
}

#[derive(Debug, Clone)]
struct Binding<'a> {
    prefix: &'a str,
    namespace: Cow<'a, str>,
}

impl<'a> Reader<'a> {
    /// Opens the element at the start of `text`, inside the namespaces of `scope`.
    ///
    /// `None` when no element stands there.
    pub fn open(text: &'a str, scope: &'a Scope) -> Option<(Tag<'a>, Self)> {
        Self::start(text, scope.iter().map(|(prefix, ns)| Binding { prefix, namespace: ns.into() }).collect())
    }

    /// Opens a stanza that was cut out of its stream: outside it only the default namespace `jabber:server` holds.
    pub fn open_stanza(text: &'a str) -> Option<(Tag<'a>, Self)> {
        let server = Binding { prefix: "", namespace: Cow::Borrowed(ns::SERVER) };
        Self::start(text, SmallVec::from_iter([server]))
    }

    fn start(text: &'a str, bindings: SmallVec<[Binding<'a>; 8]>) -> Option<(Tag<'a>, Self)> {
        let mut reader = Self { text, at: 0, bindings, open: SmallVec::new(), is_empty: false };
        let tag = reader.start_tag()?;
        Some((tag, reader))
    }

    /// The next child element of the current one; text on the way is passed over.
    ///
    /// `None` when the current element ends, which makes the element around it the current one.
    pub fn child(&mut self) -> Option<Tag<'a>> {
        loop {
            match self.step() {
                Step::Text(_) => {}
                Step::Start => match self.start_tag() {
                    Some(tag) => return Some(tag),
                    None => self.at = self.text.len(),
                },
                Step::End => return None,
            }
        }
    }

    /// As [`Reader::child`], but the text on the way is appended to `text`.
    pub fn text_then_child(&mut self, text: &mut String) -> Option<Tag<'a>> {
        loop {
            match self.step() {
                Step::Text(piece) => text.push_str(&piece),
                Step::Start => match self.start_tag() {
                    Some(tag) => return Some(tag),
                    None => self.at = self.text.len(),
                },
                Step::End => return None,
            }
        }
    }

    /// The text of the current element, without its child elements, up to its end, which is passed.
    pub fn text(&mut self) -> Cow<'a, str> {
        let mut text = Cow::Borrowed("");
        loop {
            match self.step() {
                Step::Text(piece) if text.is_empty() => text = piece,
                Step::Text(piece) => text.to_mut().push_str(&piece),
                Step::Start => match self.start_tag() {
                    Some(_) => self.skip(),
                    None => self.at = self.text.len(),
                },
                Step::End => return text,
            }
        }
    }

    /// Goes behind the end of the current element.
    pub fn skip(&mut self) {
        let outside = self.open.len().saturating_sub(1);
        while self.open.len() > outside {
            if let Step::Start = self.step()
                && self.start_tag().is_none()
            {
                self.at = self.text.len();
            }
        }
    }

    /// Everything inside the current element as written, up to its end, which is passed.
    ///
    /// Prefixes in it may be declared outside it.
    pub fn inner(&mut self) -> &'a str {
        if self.is_empty {
            self.skip();
            return "";
        }
        let start = self.at;
        self.skip();
        let end_tag = self.text[start..self.at].rfind("</").map_or(self.at, |len| start + len);
        &self.text[start..end_tag]
    }

    /// The whole of `tag`, the current element, as written, from its `<` to its end, which is passed.
    pub fn whole(&mut self, tag: &Tag<'a>) -> &'a str {
        self.skip();
        self.text.get(tag.start..self.at).unwrap_or("")
    }

    /// To the next piece of text, in front of the next start tag, or behind the next end.
    fn step(&mut self) -> Step<'a> {
        if std::mem::take(&mut self.is_empty) {
            return self.end();
        }
        let rest = &self.text[self.at..];
        let Some(len) = memchr::memchr(b'<', rest.as_bytes()) else {
            self.at = self.text.len();
            return self.end();
        };
        if len > 0 {
            self.at += len;
            return Step::Text(unescape_text(&rest[..len]));
        }
        match rest.as_bytes().get(1) {
            Some(b'/') => {
                self.at += rest.find('>').map_or(rest.len(), |len| len + 1);
                self.end()
            }
            Some(b'!') => {
                let section = rest.strip_prefix("<![CDATA[").unwrap_or("");
                let (section, after) = section.split_once("]]>").unwrap_or((section, ""));
                self.at = self.text.len() - after.len();
                Step::Text(normalize_lines(section))
            }
            _ => Step::Start,
        }
    }

    fn end(&mut self) -> Step<'a> {
        if let Some(bindings) = self.open.pop() {
            self.bindings.truncate(bindings as usize);
        }
        Step::End
    }

    /// Reads the start tag at the cursor and makes its element the current one.
    fn start_tag(&mut self) -> Option<Tag<'a>> {
        let start = self.at;
        let rest = self.text[start..].strip_prefix('<')?;
        let (written, rest) = split_name(rest)?;
        let end = tag_end(rest)?;
        self.at = self.text.len() - rest.len() + end + 1;
        self.is_empty = rest[..end].ends_with('/');
        let attributes = &rest[..end - usize::from(self.is_empty)];
        self.open.push(self.bindings.len() as u32);
        let (prefix, name) = written.split_once(':').unwrap_or(("", written));
        let mut tag = Tag { ns: Cow::Borrowed(""), name, prefix, attributes, start };
        if may_declare(attributes) {
            let declarations = tag.attributes().filter_map(|attribute| attribute.declaration());
            self.bindings.extend(declarations.map(|(prefix, namespace)| Binding { prefix, namespace }));
        }
        tag.ns = self.namespace(prefix);
        Some(tag)
    }

    /// The namespace that a prefix has in the current element; empty when it has none.
    pub fn namespace(&self, prefix: &str) -> Cow<'a, str> {
        if prefix == "xml" {
            return Cow::Borrowed(NS_XML);
        }
        let binding = self.bindings.iter().rev().find(|binding| is_same_prefix(binding.prefix, prefix));
        binding.map_or(Cow::Borrowed(""), |binding| binding.namespace.clone())
    }
}

enum Step<'a> {
    Text(Cow<'a, str>),
    Start,
    End,
}

/// False for attributes without a declaration of a namespace, which most are.
fn may_declare(attributes: &str) -> bool {
    let bytes = attributes.as_bytes();
    memchr::memchr_iter(b'x', bytes).any(|at| bytes[at..].starts_with(b"xmlns"))
}

/// Where the `>` of a tag stands, given what follows its name.
fn tag_end(rest: &str) -> Option<usize> {
    let bytes = rest.as_bytes();
    let mut at = 0;
    loop {
        at += memchr::memchr3(b'>', b'"', b'\'', &bytes[at..])?;
        match bytes[at] {
            b'>' => return Some(at),
            quote => at += memchr::memchr(quote, &bytes[at + 1..])? + 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_text_and_namespaces_are_read_in_order() {
        let xml = "<m from='a&amp;b' xml:lang=\"en\"><body>x &lt; <b/>y<![CDATA[<&\r\n]]></body> <p:q xmlns:p='urn:p'><r/></p:q></m>";
        let (root, mut reader) = Reader::open_stanza(xml).expect("an element");
        assert!(root.is(ns::SERVER, "m"));
        assert_eq!((root.attribute("from").as_deref(), root.lang().as_deref()), (Some("a&b"), Some("en")));
        assert_eq!(root.attribute("lang"), None);
        let body = reader.child().expect("body");
        assert_eq!((body.name, &*body.ns), ("body", ns::SERVER));
        assert_eq!(reader.text(), "x < y<&\n");
        let q = reader.child().expect("q");
        assert_eq!((q.name, q.prefix, &*q.ns), ("q", "p", "urn:p"));
        assert_eq!(reader.child().map(|tag| (tag.name, tag.ns)), Some(("r", ns::SERVER.into())));
        assert_eq!(reader.child(), None, "end of r");
        assert_eq!(reader.child(), None, "end of q");
        assert_eq!(reader.child(), None, "end of m");
        assert_eq!(reader.child(), None, "and it stays at the end");
    }

    #[test]
    fn raw_pieces_come_out_as_they_were_written() {
        let xml = "<iq><q xmlns='u' a='>'>x<y/></q><z/></iq>";
        let (_, mut reader) = Reader::open_stanza(xml).expect("an element");
        let q = reader.child().expect("q");
        assert_eq!(reader.clone().inner(), "x<y/>");
        assert_eq!(reader.whole(&q), "<q xmlns='u' a='>'>x<y/></q>");
        let z = reader.child().expect("z");
        assert_eq!(reader.clone().inner(), "");
        assert_eq!(reader.whole(&z), "<z/>");
    }

    #[test]
    fn a_reader_ends_on_any_text() {
        for text in [
            "<",
            "<a",
            "<a b",
            "<a b='",
            "<a>",
            "<a><![CDATA[",
            "<a><!",
            "<a></",
            "<a><1>",
            "<a/>b<c>",
            "<a><b>",
        ] {
            if let Some((_, mut reader)) = Reader::open_stanza(text) {
                for _ in 0..10 {
                    reader.child();
                }
                reader.skip();
                assert_eq!(reader.text(), "", "{text}");
            }
        }
    }
}
