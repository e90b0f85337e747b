//! Cuts a stream of bytes into its header, its whole top-level elements and its end.
//!
//! Bytes go in however the network cut them; frames come out, the same for every cut. An element is cut out of the
//! buffer without a copy, and has passed the gate ([`crate::xml`]) by then: what no further octet can mend is refused as
//! soon as it is there, not when the frame ends. For the same reason the start tag of an element is shown before its content
//! has come.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;

use crate::{
    ns,
    xml::{Checked, Gate, Scope, Span, Step, XmlFault, XmlLimits, is_space, valid_len},
};

/// A piece of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The start tag of the stream.
    Header(Bytes),
    /// A copy of the start tag of an element whose content follows, so that one that has no place here need not be awaited.
    /// Left out for stanzas after [`Framer::expect_stanzas`].
    Opened(Bytes),
    /// One whole element of the stream.
    Element(Element),
    /// The end tag of the stream. Nothing may follow it.
    End,
}

/// An element that passed the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// Its octets as they came.
    pub xml: Bytes,
    borrowed: SmallVec<[Span; 2]>,
}

impl Element {
    /// Its text, and the prefixes that only the stream header declares.
    pub fn checked(&self) -> Checked<'_> {
        Checked::of(&self.xml, &self.borrowed)
    }
}

/// The framer of one direction of one connection.
#[derive(Debug)]
pub struct Framer {
    buffer: BytesMut,
    /// So many octets, from the first, are characters of XML in UTF-8.
    valid: usize,
    /// What is wrong with the octet behind them.
    invalid: Option<XmlFault>,
    place: Place,
    gate: Gate,
    /// What the header declared.
    scope: Arc<Scope>,
    stage: Stage,
    expects_stanzas: bool,
    limits: XmlLimits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing came: an XML declaration may.
    Start,
    /// The header must come.
    Header,
    /// Inside the stream whose header has a name of this length; the name is kept for the end tag.
    Stream { name: RootName },
    /// Behind the end.
    Ended,
}

/// The name of the root element. Names over 23 octets are no stream header that we accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RootName {
    bytes: [u8; 23],
    len: u8,
}

/// What the buffer begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing, or white space between two frames.
    Between,
    /// A `<`, whose kind is not known yet.
    Markup,
    /// `<?xml … ?>`, of which so many octets were looked at.
    Declaration { scanned: usize },
    /// An element, or the start tag of the stream.
    Element,
    /// The end tag of the stream, of which so many octets were looked at.
    StreamEnd { scanned: usize },
}

impl Framer {
    /// A framer that waits for a stream's header.
    pub fn new(limits: XmlLimits) -> Self {
        Self {
            buffer: BytesMut::new(),
            valid: 0,
            invalid: None,
            place: Place::Between,
            gate: Gate::default(),
            scope: Arc::new(Scope::empty()),
            stage: Stage::Start,
            expects_stanzas: false,
            limits,
        }
    }

    /// Takes bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The buffer, to read from a socket into it. Append only.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Octets that wait in the buffer.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Other limits from the next octet on.
    pub fn set_limits(&mut self, limits: XmlLimits) {
        self.limits = limits;
    }

    /// The limits that hold.
    pub fn limits(&self) -> &XmlLimits {
        &self.limits
    }

    /// From now on stanzas have their place on the stream: no [`Frame::Opened`] is given of them.
    pub fn expect_stanzas(&mut self) {
        self.expects_stanzas = true;
    }

    /// Waits for a new header; what is buffered counts as its beginning.
    pub fn restart(&mut self) {
        self.place = Place::Between;
        self.gate.reset();
        self.scope = Arc::new(Scope::empty());
        self.stage = Stage::Start;
        self.expects_stanzas = false;
    }

    /// Throws the buffer away.
    pub fn forget(&mut self) {
        self.buffer = BytesMut::new();
        self.valid = 0;
        self.invalid = None;
        self.place = Place::Between;
        self.gate.reset();
    }

    /// The next whole frame; `None` when more bytes are needed.
    ///
    /// After a fault the stream cannot be read on.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, XmlFault> {
        self.validate();
        loop {
            let progress = match self.place {
                Place::Between => self.begin()?,
                Place::Markup => self.markup()?,
                Place::Declaration { scanned } => self.declaration(scanned)?,
                Place::Element => self.element()?,
                Place::StreamEnd { scanned } => self.stream_end(scanned)?,
            };
            match progress {
                Progress::On => {}
                Progress::Need => return Ok(None),
                Progress::Frame(frame) => return Ok(Some(frame)),
            }
        }
    }

    /// Looks at what came since: once at each octet, however the frames are cut.
    fn validate(&mut self) {
        if self.valid < self.buffer.len() && self.invalid.is_none() {
            let (len, fault) = valid_len(&self.buffer[self.valid..]);
            self.valid += len;
            self.invalid = fault;
        }
    }

    /// Passes over white space, up to the next frame.
    fn begin(&mut self) -> Result<Progress, XmlFault> {
        let blank = self.buffer.iter().take_while(|byte| is_space(**byte)).count();
        if blank > 0 {
            self.buffer.advance(blank);
            self.valid -= blank;
            if self.stage == Stage::Start {
                self.stage = Stage::Header;
            }
        }
        match self.buffer.first() {
            None => Ok(Progress::Need),
            Some(_) if self.stage == Stage::Ended => Err(NOTHING_AFTER_END),
            Some(b'<') => {
                self.place = Place::Markup;
                Ok(Progress::On)
            }
            // Text in a TLS record or a binary protocol: a stream it never was.
            Some(_) if matches!(self.stage, Stage::Start | Stage::Header) => {
                Err(XmlFault::NotWellFormed { why: "a stream begins with <" })
            }
            Some(_) => Err(XmlFault::StrayText),
        }
    }

    /// Tells from the second octet what the frame is.
    fn markup(&mut self) -> Result<Progress, XmlFault> {
        self.place = match (self.window().get(1), self.stage) {
            (None, _) => return self.need_more(),
            (Some(b'?'), Stage::Start) => Place::Declaration { scanned: 2 },
            (Some(b'/'), Stage::Stream { .. }) => Place::StreamEnd { scanned: 2 },
            _ => Place::Element,
        };
        Ok(Progress::On)
    }

    fn declaration(&mut self, scanned: usize) -> Result<Progress, XmlFault> {
        let rest = &self.window()[scanned..];
        match memchr::memmem::find(rest, b"?>") {
            Some(len) => {
                let declaration = self.cut(scanned + len + 2);
                check_declaration(&declaration)?;
                self.stage = Stage::Header;
                Ok(Progress::On)
            }
            None => {
                // Its last octet may begin the end.
                self.place = Place::Declaration { scanned: scanned + rest.len().saturating_sub(1) };
                self.need_more()
            }
        }
    }

    fn element(&mut self) -> Result<Progress, XmlFault> {
        let window = window(&self.buffer, self.valid, &self.limits);
        let Some(step) = self.gate.advance(window, &self.scope, &self.limits)? else {
            return self.need_more();
        };
        let is_header = matches!(self.stage, Stage::Start | Stage::Header);
        if is_header && step == Step::Opened {
            self.scope = Arc::new(self.gate.declared(window));
        }
        if !is_header && step == Step::Opened {
            let tag = &window[..self.gate.checked_len()];
            if self.expects_stanzas && !self.gate.has_declared() && is_stanza(tag, &self.scope) {
                return Ok(Progress::On);
            }
            return Ok(Progress::Frame(Frame::Opened(Bytes::copy_from_slice(tag))));
        }
        let xml = self.cut(self.gate.checked_len());
        let borrowed = self.gate.take_borrowed();
        self.gate.reset();
        if !is_header {
            return Ok(Progress::Frame(Frame::Element(Element { xml, borrowed })));
        }
        let name = RootName::of(&xml)?;
        self.stage = if step == Step::Closed { Stage::Ended } else { Stage::Stream { name } };
        Ok(Progress::Frame(Frame::Header(xml)))
    }

    fn stream_end(&mut self, mut scanned: usize) -> Result<Progress, XmlFault> {
        const OTHER_NAME: XmlFault = XmlFault::NotWellFormed { why: "an end tag of another name" };
        let Stage::Stream { name } = self.stage else { return Err(OTHER_NAME) };
        let name_end = 2 + name.as_bytes().len();
        let window = self.window();
        let end = window.len().min(name_end);
        if window[2..end] != name.as_bytes()[..end - 2] {
            return Err(OTHER_NAME);
        }
        scanned = scanned.max(end);
        if end == name_end {
            scanned += window[scanned..].iter().take_while(|byte| is_space(**byte)).count();
            match window.get(scanned) {
                None => {}
                Some(b'>') => {
                    self.cut(scanned + 1);
                    self.stage = Stage::Ended;
                    return Ok(Progress::Frame(Frame::End));
                }
                Some(_) => return Err(OTHER_NAME),
            }
        }
        self.place = Place::StreamEnd { scanned };
        self.need_more()
    }

    /// What may be looked at. It never reaches beyond the size limit, so what is said of a frame does not depend on how much
    /// has come already.
    fn window(&self) -> &[u8] {
        window(&self.buffer, self.valid, &self.limits)
    }

    /// The frame is not whole: waits, unless what follows is invalid or too much.
    fn need_more(&self) -> Result<Progress, XmlFault> {
        let limit = self.limits.element_bytes;
        match self.invalid {
            Some(fault) if self.valid < limit => Err(fault),
            // Up to three octets of a character that is not whole do not count yet.
            _ if self.valid >= limit && self.buffer.len() > limit => Err(XmlFault::TooBig { limit }),
            _ => Ok(Progress::Need),
        }
    }

    /// Takes so many octets, which are a frame, out of the buffer.
    fn cut(&mut self, len: usize) -> Bytes {
        self.place = Place::Between;
        self.valid -= len;
        self.buffer.split_to(len).freeze()
    }
}

/// Whether a start tag that declares no namespace is plainly a stanza's.
fn is_stanza(tag: &[u8], scope: &Scope) -> bool {
    let rest = [&b"<message"[..], b"<presence", b"<iq"].into_iter().find_map(|name| tag.strip_prefix(name));
    rest.and_then(<[u8]>::first).is_some_and(|next| is_space(*next) || *next == b'>')
        && scope.namespace("") == Some(ns::SERVER)
}

enum Progress {
    On,
    /// More octets are needed.
    Need,
    Frame(Frame),
}

/// Whole characters within the limit.
fn window<'a>(buffer: &'a [u8], valid: usize, limits: &XmlLimits) -> &'a [u8] {
    if valid <= limits.element_bytes {
        return &buffer[..valid];
    }
    let mut end = limits.element_bytes;
    while end > 0 && buffer[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    &buffer[..end]
}

const NOTHING_AFTER_END: XmlFault =
    XmlFault::NotWellFormed { why: "nothing may follow the end of the stream" };

impl RootName {
    fn of(header: &[u8]) -> Result<Self, XmlFault> {
        let name =
            header[1..].split(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'/' | b'>')).next();
        let name = name.unwrap_or_default();
        let mut bytes = [0; 23];
        let Some(room) = bytes.get_mut(..name.len()) else {
            return Err(XmlFault::NameTooLong { limit: 23 });
        };
        room.copy_from_slice(name);
        Ok(Self { bytes, len: name.len() as u8 })
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// `<?xml version='1.0' encoding='UTF-8' standalone='yes'?>`, of which all but the version may be missing.
fn check_declaration(declaration: &[u8]) -> Result<(), XmlFault> {
    let malformed = XmlFault::NotWellFormed { why: "an XML declaration" };
    let text = std::str::from_utf8(declaration).map_err(|_| XmlFault::Encoding)?;
    let Some(rest) = text.strip_prefix("<?xml").and_then(|rest| rest.strip_suffix("?>")) else {
        return Err(XmlFault::Restricted { what: "a processing instruction" });
    };
    let Some(rest) = pseudo_attribute(rest, "version", |version| version == "1.0") else {
        return Err(if rest.starts_with([' ', '\t', '\r', '\n']) {
            malformed
        } else {
            XmlFault::Restricted { what: "a processing instruction" }
        });
    };
    let rest = match pseudo_attribute(rest, "encoding", |name| name.eq_ignore_ascii_case("utf-8")) {
        Some(rest) => rest,
        None if pseudo_attribute(rest, "encoding", |_| true).is_some() => return Err(XmlFault::Encoding),
        None => rest,
    };
    let rest = pseudo_attribute(rest, "standalone", |value| matches!(value, "yes" | "no")).unwrap_or(rest);
    if rest.trim_matches([' ', '\t', '\r', '\n']).is_empty() { Ok(()) } else { Err(malformed) }
}

/// Takes ` name = 'value'` from the front, if it is there and its value is right.
fn pseudo_attribute<'a>(text: &'a str, name: &str, is_right: impl Fn(&str) -> bool) -> Option<&'a str> {
    const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];
    let rest = text.trim_start_matches(SPACE);
    if rest.len() == text.len() {
        return None;
    }
    let rest =
        rest.strip_prefix(name)?.trim_start_matches(SPACE).strip_prefix('=')?.trim_start_matches(SPACE);
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let (value, after) = rest[1..].split_once(quote)?;
    is_right(value).then_some(after)
}
