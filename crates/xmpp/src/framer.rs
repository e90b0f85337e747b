//! Cuts a stream of bytes into its header, its whole top-level elements and its end.
//!
//! Bytes go in however the network cut them; frames come out, the same for every cut. An element is cut out of the
//! buffer without a copy. The framer bounds size and depth and refuses at once what it can see to be forbidden; that a
//! frame is well-formed is for [`crate::xml::check`] to say.

use bytes::{Bytes, BytesMut};

use crate::xml::{XmlFault, XmlLimits};

/// A piece of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The start tag of the stream.
    Header(Bytes),
    /// One whole element of the stream.
    Element(Bytes),
    /// The end tag of the stream. Nothing may follow it.
    End,
}

/// The framer of one direction of one connection.
#[derive(Debug)]
pub struct Framer {
    buffer: BytesMut,
    /// So many octets of the buffer were looked at; they belong to the frame that is not whole yet.
    scanned: usize,
    lexing: Lexing,
    /// Elements that are open inside the stream.
    depth: usize,
    stage: Stage,
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

/// What stands at `scanned`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lexing {
    /// Between two frames.
    Between,
    /// Text inside an element.
    Text,
    /// A `<`, whose kind is not known yet.
    Markup,
    /// Inside `<?xml … ?>`.
    Declaration,
    /// Inside a start tag.
    StartTag,
    /// Inside an attribute's value that ends with this quote.
    Quoted(u8),
    /// Inside an end tag.
    EndTag,
    /// Inside a CDATA section.
    CData,
}

impl Framer {
    /// A framer that waits for a stream's header.
    pub fn new(limits: XmlLimits) -> Self {
        Self {
            buffer: BytesMut::new(),
            scanned: 0,
            lexing: Lexing::Between,
            depth: 0,
            stage: Stage::Start,
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

    /// Other limits from the next frame on.
    pub fn set_limits(&mut self, limits: XmlLimits) {
        self.limits = limits;
    }

    /// The limits that hold.
    pub fn limits(&self) -> &XmlLimits {
        &self.limits
    }

    /// Waits for a new header; what is buffered counts as its beginning.
    pub fn restart(&mut self) {
        self.scanned = 0;
        self.lexing = Lexing::Between;
        self.depth = 0;
        self.stage = Stage::Start;
    }

    /// Throws the buffer away.
    pub fn forget(&mut self) {
        self.buffer = BytesMut::new();
        self.scanned = 0;
        self.lexing = Lexing::Between;
        self.depth = 0;
    }

    /// The next whole frame; `None` when more bytes are needed.
    ///
    /// After a fault the stream cannot be read on.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, XmlFault> {
        loop {
            if self.lexing == Lexing::Between && !self.begin()? {
                return Ok(None);
            }
            match self.scan()? {
                None => return Ok(None),
                Some(Cut::Declaration) => self.stage = Stage::Header,
                Some(Cut::Frame(frame)) => return Ok(Some(frame)),
            }
        }
    }

    /// Passes over white space; true when a frame begins.
    fn begin(&mut self) -> Result<bool, XmlFault> {
        let blank =
            self.buffer.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
        if blank > 0 {
            bytes::Buf::advance(&mut self.buffer, blank);
            if self.stage == Stage::Start {
                self.stage = Stage::Header;
            }
        }
        match self.buffer.first() {
            None => Ok(false),
            Some(_) if self.stage == Stage::Ended => Err(NOTHING_AFTER_END),
            Some(b'<') => {
                self.scanned = 0;
                self.lexing = Lexing::Markup;
                Ok(true)
            }
            // Text in a TLS record or a binary protocol: a stream it never was.
            Some(_) if matches!(self.stage, Stage::Start | Stage::Header) => {
                Err(XmlFault::NotWellFormed { why: "a stream begins with <" })
            }
            Some(_) => Err(XmlFault::StrayText),
        }
    }

    /// Looks on through the frame that begins the buffer. It never looks further than the size limit, so what it
    /// says does not depend on how much has come already.
    fn scan(&mut self) -> Result<Option<Cut>, XmlFault> {
        let limit = self.limits.element_bytes;
        loop {
            let window = &self.buffer[..self.buffer.len().min(limit)];
            let rest = &window[self.scanned..];
            match self.lexing {
                Lexing::Between => return Ok(None),
                Lexing::Text => match memchr::memchr(b'<', rest) {
                    Some(len) => {
                        self.scanned += len;
                        self.lexing = Lexing::Markup;
                    }
                    None => return self.need_more(window.len()),
                },
                Lexing::Markup => match markup(rest, self.stage == Stage::Start)? {
                    Some((len, lexing)) => {
                        self.scanned += len;
                        self.lexing = lexing;
                    }
                    None => return self.need_more(self.scanned),
                },
                Lexing::StartTag => match memchr::memchr3(b'>', b'"', b'\'', rest) {
                    None => return self.need_more(window.len()),
                    Some(len) => {
                        let byte = rest[len];
                        self.scanned += len + 1;
                        if byte != b'>' {
                            self.lexing = Lexing::Quoted(byte);
                        } else if let Some(cut) = self.start_tag_ended()? {
                            return Ok(Some(cut));
                        }
                    }
                },
                Lexing::Quoted(quote) => match memchr::memchr(quote, rest) {
                    None => return self.need_more(window.len()),
                    Some(len) => {
                        self.scanned += len + 1;
                        self.lexing = Lexing::StartTag;
                    }
                },
                Lexing::EndTag => match memchr::memchr(b'>', rest) {
                    None => return self.need_more(window.len()),
                    Some(len) => {
                        self.scanned += len + 1;
                        if let Some(cut) = self.end_tag_ended()? {
                            return Ok(Some(cut));
                        }
                    }
                },
                Lexing::CData => match memchr::memmem::find(rest, b"]]>") {
                    Some(len) => {
                        self.scanned += len + 3;
                        self.lexing = Lexing::Text;
                    }
                    // Its last two octets may begin the end.
                    None => return self.need_more((window.len() - 2.min(rest.len())).max(self.scanned)),
                },
                Lexing::Declaration => match memchr::memmem::find(rest, b"?>") {
                    Some(len) => {
                        self.scanned += len + 2;
                        let declaration = self.cut();
                        check_declaration(&declaration)?;
                        return Ok(Some(Cut::Declaration));
                    }
                    None => return self.need_more((window.len() - 1.min(rest.len())).max(self.scanned)),
                },
            }
        }
    }

    fn need_more(&mut self, scanned: usize) -> Result<Option<Cut>, XmlFault> {
        self.scanned = scanned;
        let limit = self.limits.element_bytes;
        if self.buffer.len() > limit { Err(XmlFault::TooBig { limit }) } else { Ok(None) }
    }

    fn start_tag_ended(&mut self) -> Result<Option<Cut>, XmlFault> {
        let is_closed = self.buffer[..self.scanned].ends_with(b"/>");
        match self.stage {
            Stage::Start | Stage::Header => {
                let header = self.cut();
                let name = RootName::of(&header)?;
                self.stage = if is_closed { Stage::Ended } else { Stage::Stream { name } };
                Ok(Some(Cut::Frame(Frame::Header(header))))
            }
            Stage::Stream { .. } => {
                if self.depth >= self.limits.depth {
                    return Err(XmlFault::TooDeep { limit: self.limits.depth });
                }
                if !is_closed {
                    self.depth += 1;
                } else if self.depth == 0 {
                    return Ok(Some(Cut::Frame(Frame::Element(self.cut()))));
                }
                self.lexing = Lexing::Text;
                Ok(None)
            }
            Stage::Ended => Err(NOTHING_AFTER_END),
        }
    }

    fn end_tag_ended(&mut self) -> Result<Option<Cut>, XmlFault> {
        if self.depth > 0 {
            self.depth -= 1;
            if self.depth == 0 {
                return Ok(Some(Cut::Frame(Frame::Element(self.cut()))));
            }
            self.lexing = Lexing::Text;
            return Ok(None);
        }
        let Stage::Stream { name } = self.stage else {
            return Err(XmlFault::NotWellFormed { why: "an end tag without its start" });
        };
        let end = self.cut();
        let inside = &end[2..end.len() - 1];
        if inside.trim_ascii_end() != name.as_bytes() {
            return Err(XmlFault::NotWellFormed { why: "an end tag of another name" });
        }
        self.stage = Stage::Ended;
        Ok(Some(Cut::Frame(Frame::End)))
    }

    /// Takes the frame, which is whole, out of the buffer.
    fn cut(&mut self) -> Bytes {
        let frame = self.buffer.split_to(self.scanned).freeze();
        self.scanned = 0;
        self.lexing = Lexing::Between;
        frame
    }
}

enum Cut {
    Declaration,
    Frame(Frame),
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

/// What kind of markup begins at the `<`, and the length of what tells it; `None` when that is not there yet.
fn markup(rest: &[u8], may_declare: bool) -> Result<Option<(usize, Lexing)>, XmlFault> {
    const CDATA: &[u8] = b"<![CDATA[";
    match rest.get(1) {
        None => Ok(None),
        Some(b'/') => Ok(Some((2, Lexing::EndTag))),
        Some(b'?') if may_declare => Ok(Some((2, Lexing::Declaration))),
        Some(b'?') => Err(XmlFault::Restricted { what: "a processing instruction" }),
        Some(b'!') => match rest.get(2) {
            None => Ok(None),
            Some(b'[') => {
                let len = rest.len().min(CDATA.len());
                if rest[..len] != CDATA[..len] {
                    return Err(XmlFault::NotWellFormed { why: "an unknown kind of section" });
                }
                Ok((len == CDATA.len()).then_some((len, Lexing::CData)))
            }
            Some(b'-') => Err(XmlFault::Restricted { what: "a comment" }),
            Some(_) => Err(XmlFault::Restricted { what: "a document type" }),
        },
        Some(_) => Ok(Some((1, Lexing::StartTag))),
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
