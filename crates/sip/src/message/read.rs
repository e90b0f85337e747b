//! Finds the start line and the header fields of a head (RFC 3261 §7).
//!
//! Octets go in, spans come out. A head that two readers could read as two different messages is refused: odd names, bare
//! line ends, control characters or octets that are not UTF-8 in a field that we act on. In a field that nobody acts on,
//! control characters cost only that field (RFC 3261 §7.3.1), and text that is not UTF-8 is read as Windows-1252, which
//! is what old clients send.

use bytes::{Bytes, BytesMut};
use encoding_rs::WINDOWS_1252;
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
    pub(super) fn new(from: usize, to: usize) -> Self {
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
        let mut index = read_index(&head, limits);
        if index.as_ref().is_err_and(|fault| *fault == MessageFault::NotUtf8) {
            head = to_utf8(&head)?;
            index = read_index(&head, limits);
        }
        let mut index = index?;
        if index.is_none() {
            head = unfold(&head);
            index = read_index(&head, limits)?;
        }
        let (start, rows) = index.ok_or(MessageFault::Field)?;
        Ok(Self { start, rows, body, source: None, head })
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
    let (mut vias, mut left_out) = (0, 0);
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
        if rows.len() + left_out >= limits.fields {
            return Err(MessageFault::TooBig { what: "number of header fields" });
        }
        let Some(row) = read_row(line.whole()?, line.from, has_controls)? else {
            left_out += 1;
            continue;
        };
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
pub(super) struct Lines<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
}

pub(super) struct Line<'a> {
    pub(super) from: usize,
    /// Without the line feed, but with what stands before it.
    pub(super) text: &'a str,
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
    pub(super) fn whole(&self) -> Result<&'a str, MessageFault> {
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

/// One header field; `None` for one to be ignored because of what its value holds.
pub(super) fn read_row(row: &str, at: usize, may_have_controls: bool) -> Result<Option<Row>, MessageFault> {
    let name_len = lex::token_len(row.as_bytes());
    // White space may stand between the name and its colon, and nothing else (RFC 3261 §7.3.1).
    let rest = lex::trim_start(&row[name_len..]);
    let value = rest.strip_prefix(':').filter(|_| name_len > 0).ok_or(MessageFault::Field)?;
    let from = row.len() - lex::trim_start(value).len();
    let value = lex::trim(value);
    let name = HeaderName::find(&row.as_bytes()[..name_len]);
    if may_have_controls && has_bare_control(value) {
        // A bare CR is a line end to some readers, whatever the field.
        let is_ignored = name.is_informational() && !value.contains('\r');
        return if is_ignored { Ok(None) } else { Err(MessageFault::Field) };
    }
    Ok(Some(Row {
        name,
        name_span: Span::new(at, at + name_len),
        value: Span::new(at + from, at + from + value.len()),
    }))
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

/// A copy of a head in which each line that is not UTF-8 was taken for Windows-1252. Fails where the line's octets must
/// come back unchanged or are compared with others: the start line, and the fields that identify a transaction.
///
/// In an address such text can only be a display name, because a URI that is not ASCII is malformed.
fn to_utf8(head: &[u8]) -> Result<Bytes, MessageFault> {
    let head = unfold(head);
    let mut text = BytesMut::with_capacity(head.len() + head.len() / 8);
    for (number, line) in head.split_inclusive(|octet| *octet == b'\n').enumerate() {
        if std::str::from_utf8(line).is_ok() {
            text.extend_from_slice(line);
            continue;
        }
        let name = HeaderName::find(&line[..lex::token_len(line)]);
        if number == 0 || matches!(name, HeaderName::Via | HeaderName::CallId | HeaderName::CSeq) {
            return Err(MessageFault::NotUtf8);
        }
        let (line, _) = WINDOWS_1252.decode_without_bom_handling(line);
        text.extend_from_slice(line.as_bytes());
    }
    Ok(text.freeze())
}

/// A copy in which folded lines are one, octet for octet: the line end is written over with spaces.
pub(super) fn unfold(head: &[u8]) -> Bytes {
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
