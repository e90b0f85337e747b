//! Finds the start line and the rows of a head (RFC 3261 §7), and what is left of a malformed one.
//!
//! Octets go in, spans come out. Refused here is what would let two readers see two different messages: odd names,
//! bare line ends, control characters, another encoding than UTF-8.

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::{Message, MessageFault, MessageLimits};
use crate::{headers::HeaderName, lex, method::Method};

/// What kind of message it is.
#[derive(Debug, Clone)]
pub(super) enum Start {
    Request { method: Method, uri: Span },
    Response { status: u16, reason: Span },
}

/// Octets of the head, from one to before the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) from: u32,
    pub(super) to: u32,
}

impl Span {
    fn new(from: usize, to: usize) -> Self {
        // A head is bounded by `MessageLimits`; a limit of gigabytes fails here and not in silence.
        let at = |offset| u32::try_from(offset).expect("a head is shorter than 4 GiB");
        Self { from: at(from), to: at(to) }
    }
}

/// Where one header field stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) name: HeaderName,
    pub(super) name_span: Span,
    pub(super) value: Span,
}

/// The rows of a message; more than a usual one has cost an allocation.
pub(super) type Rows = SmallVec<[Row; 16]>;

impl Message {
    /// Reads a whole head (with its empty line) and takes `body` as it is.
    pub fn read(mut head: Bytes, body: Bytes, limits: &MessageLimits) -> Result<Self, MessageFault> {
        let mut index = read_index(&head, limits)?;
        if index.is_none() {
            head = unfold(&head);
            index = read_index(&head, limits)?;
        }
        let (start, rows) = index.ok_or(MessageFault::Field)?;
        Ok(Self { start, rows, body, source: None, head })
    }

    /// What is left of a malformed request (a datagram, or the head of a stream message), as far as an answer needs it:
    /// malformed rows and the body are left out. `None` where none may be sent (SIP-X-05, SIP-X-09): for a response, an
    /// ACK, and a request whose first Via does not tell the way back.
    pub fn answerable(octets: &[u8], limits: &MessageLimits) -> Option<Self> {
        let begin = octets.iter().take_while(|octet| matches!(octet, b'\r' | b'\n')).count();
        let octets = &octets[begin..];
        let end = memchr::memmem::find(octets, b"\r\n\r\n").map_or(octets.len(), |at| at + 4);
        let head = String::from_utf8_lossy(&octets[..end.min(limits.message)]);
        let head = unfold(head.as_bytes());
        let text = std::str::from_utf8(&head).ok()?;
        let mut lines = Lines { text, at: 0 };
        let start = read_request_line_leniently(lines.next()?.text)?;
        let lines = lines.take(limits.fields).filter(|line| line.text.len() <= limits.field);
        let rows: Rows =
            lines.filter_map(|line| read_row(line.whole().ok()?, line.from, true).ok()).collect();
        let message = Self { start, rows, body: Bytes::new(), source: None, head };
        let is_answered = message.method() != Some(&Method::Ack) && message.way_back().is_ok();
        is_answered.then_some(message)
    }
}

/// Start line and rows of a head; `None` when a line is folded.
fn read_index(head: &[u8], limits: &MessageLimits) -> Result<Option<(Start, Rows)>, MessageFault> {
    let text = std::str::from_utf8(head).map_err(|_| MessageFault::NotUtf8)?;
    let has_controls = has_controls(head);
    let mut lines = Lines { text, at: 0 };
    let first = lines.next().ok_or(MessageFault::NoEnd)?;
    if first.text.len() > limits.field {
        return Err(MessageFault::TooBig { what: "start line" });
    }
    let start = read_start(first.whole()?, has_controls)?;
    let mut rows = Rows::new();
    let mut vias = 0;
    for line in lines {
        if line.text == "\r" {
            break;
        }
        if line.text.starts_with(is_fold) {
            return Ok(None);
        }
        if line.text.len() > limits.field {
            return Err(MessageFault::TooBig { what: "header field" });
        }
        if rows.len() >= limits.fields {
            return Err(MessageFault::TooBig { what: "number of header fields" });
        }
        let row = read_row(line.whole()?, line.from, has_controls)?;
        if row.name == HeaderName::Via {
            vias += lex::CommaList::new(slice(text, row.value)).count();
            if vias > limits.vias {
                return Err(MessageFault::TooBig { what: "number of Via values" });
            }
        }
        rows.push(row);
    }
    Ok(Some((start, rows)))
}

/// Lines of a head, each as far as its line feed.
struct Lines<'a> {
    text: &'a str,
    at: usize,
}

struct Line<'a> {
    from: usize,
    /// Without the line feed, but with what stands before it.
    text: &'a str,
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let rest = self.text.get(self.at..)?;
        let len = memchr::memchr(b'\n', rest.as_bytes())?;
        let line = Line { from: self.at, text: &rest[..len] };
        self.at += len + 1;
        Some(line)
    }
}

impl<'a> Line<'a> {
    /// The line without its carriage return, which it must have.
    fn whole(&self) -> Result<&'a str, MessageFault> {
        let fault = if self.from == 0 { MessageFault::StartLine } else { MessageFault::Field };
        self.text.strip_suffix('\r').ok_or(fault)
    }
}

fn slice(text: &str, span: Span) -> &str {
    &text[span.from as usize..span.to as usize]
}

fn read_start(line: &str, may_have_controls: bool) -> Result<Start, MessageFault> {
    if may_have_controls && line.bytes().any(lex::is_control) {
        return Err(MessageFault::StartLine);
    }
    if let Some(rest) = line.strip_prefix("SIP/2.0 ") {
        // Some peers leave out the space in front of an empty reason phrase.
        let (code, reason) = lex::split_once(rest, b' ').unwrap_or((rest, ""));
        let status = lex::number::<u16>(code).filter(|status| (100..700).contains(status) && code.len() == 3);
        let status = status.ok_or(MessageFault::StartLine)?;
        return Ok(Start::Response { status, reason: Span::new(line.len() - reason.len(), line.len()) });
    }
    let (method, rest) = lex::split_once(line, b' ').ok_or(MessageFault::StartLine)?;
    let from = method.len() + 1;
    let method = Method::parse(method).ok_or(MessageFault::StartLine)?;
    let (uri, version) = rest.rsplit_once(' ').ok_or(MessageFault::StartLine)?;
    if uri.is_empty() || uri.bytes().any(|octet| matches!(octet, b' ' | b'\t' | b'<' | b'>')) {
        return Err(MessageFault::StartLine);
    }
    if !version.eq_ignore_ascii_case("SIP/2.0") {
        return Err(if is_version(version) { MessageFault::Version } else { MessageFault::StartLine });
    }
    Ok(Start::Request { method, uri: Span::new(from, from + uri.len()) })
}

/// `SIP/` and two numbers.
fn is_version(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|octet| octet.is_ascii_digit());
    let numbers = text.split_at_checked(4).filter(|(name, _)| name.eq_ignore_ascii_case("SIP/"));
    numbers
        .and_then(|(_, numbers)| numbers.split_once('.'))
        .is_some_and(|(major, minor)| is_number(major) && is_number(minor))
}

/// A line that begins with a method and is no status line; the rest may be anything.
fn read_request_line_leniently(line: &str) -> Option<Start> {
    let line = line.trim_end_matches('\r');
    let (method, rest) = line.split_once(' ')?;
    let from = method.len() + 1;
    let uri_len = rest.rfind(' ').unwrap_or(rest.len());
    let uri = Span::new(from, from + uri_len);
    Method::parse(method).map(|method| Start::Request { method, uri })
}

fn read_row(row: &str, at: usize, may_have_controls: bool) -> Result<Row, MessageFault> {
    let name_len = lex::token_len(row.as_bytes());
    // White space may stand between the name and its colon, and nothing else (RFC 3261 §7.3.1).
    let rest = lex::trim_start(&row[name_len..]);
    let value = rest.strip_prefix(':').filter(|_| name_len > 0).ok_or(MessageFault::Field)?;
    let from = row.len() - lex::trim_start(value).len();
    let value = lex::trim(value);
    if may_have_controls && has_bare_control(value) {
        return Err(MessageFault::Field);
    }
    Ok(Row {
        name: HeaderName::find(&row.as_bytes()[..name_len]),
        name_span: Span::new(at, at + name_len),
        value: Span::new(at + from, at + from + value.len()),
    })
}

/// Whether a head has a control character besides those that end its lines, each of which must end in CR LF.
fn has_controls(head: &[u8]) -> bool {
    let is_odd = |octet: u8| lex::is_control(octet) & (octet != b'\r') & (octet != b'\n');
    // Without an early end, so that many octets are looked at together.
    head.iter().fold(0, |found, octet| found | u8::from(is_odd(*octet))) != 0
        || memchr::memchr_iter(b'\r', head).count() != memchr::memchr_iter(b'\n', head).count()
}

/// Whether a control character stands anywhere but in a quoted pair of a quoted string (RFC 3261 §25.1, RFC 4475
/// §3.1.1.2).
fn has_bare_control(value: &str) -> bool {
    let octets = value.as_bytes();
    let (mut at, mut is_quoted, mut has_pair) = (0, false, false);
    while at < octets.len() {
        match octets[at] {
            b'"' => is_quoted = !is_quoted,
            b'\\' if is_quoted => {
                at += 1;
                let pair = octets.get(at).copied().unwrap_or_default();
                // CR and LF cannot be quoted.
                if matches!(pair, b'\r' | b'\n') {
                    return true;
                }
                has_pair |= lex::is_control(pair);
            }
            octet if lex::is_control(octet) => return true,
            _ => {}
        }
        at += 1;
    }
    // What is not closed is no quoted string.
    is_quoted && has_pair
}

/// A line that begins so goes on with the one before it (RFC 3261 §7.3.1).
fn is_fold(character: char) -> bool {
    matches!(character, ' ' | '\t')
}

/// A copy in which folded lines are one, octet for octet: the line end is written over with spaces.
fn unfold(head: &[u8]) -> Bytes {
    let mut whole = BytesMut::from(head);
    for at in memchr::memmem::find_iter(head, b"\r\n") {
        if matches!(head.get(at + 2), Some(b' ' | b'\t')) {
            whole[at..at + 2].copy_from_slice(b"  ");
        }
    }
    whole.freeze()
}

/// Reads a datagram (SIP-T-04): what is behind the body is ignored, a short body is a fault.
pub fn read_datagram(datagram: Bytes, limits: &MessageLimits) -> Result<Message, MessageFault> {
    if datagram.len() > limits.message {
        return Err(MessageFault::TooBig { what: "message" });
    }
    let begin = datagram.iter().take_while(|octet| matches!(octet, b'\r' | b'\n')).count();
    let end = memchr::memmem::find(&datagram[begin..], b"\r\n\r\n").ok_or(MessageFault::NoEnd)?;
    let head = datagram.slice(begin..begin + end + 4);
    let rest = datagram.slice(begin + end + 4..);
    let mut message = Message::read(head, Bytes::new(), limits)?;
    let length = message.content_length()?.unwrap_or(rest.len());
    if length > rest.len() {
        return Err(MessageFault::Short);
    }
    message.set_body(rest.slice(..length));
    Ok(message)
}

impl Message {
    /// Takes the body that a framer waited for.
    pub(crate) fn set_body(&mut self, body: Bytes) {
        self.body = body;
    }
}
