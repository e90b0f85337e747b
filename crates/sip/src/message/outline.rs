//! What can still be told of a head that [`Message::read`] refuses: how long its body is, and how to answer it.
//!
//! The octets of a malformed message go in. On a stream the next message begins behind the body, so the length is given
//! only where every reader must find the same one: a proxy that takes a bare line feed for a line end, as many do, would
//! otherwise pass on a body in which we see a request of somebody else.

use bytes::Bytes;

use super::{
    Message, MessageFault, MessageLimits,
    read::{Lines, Rows, Span, Start, read_row, unfold},
};
use crate::{build::COPIED, headers::HeaderName, lex, method::Method};

/// The length of the body behind a malformed head, which ends in its empty line.
///
/// Fails when Content-Length is missing, malformed or contradicts itself, and when the head has an empty line before its
/// end for a reader to whom CR or LF alone ends a line.
pub(crate) fn body_len(head: &[u8]) -> Result<usize, MessageFault> {
    let doubt = MessageFault::ContentLength;
    let head = head.strip_suffix(b"\r\n\r\n").ok_or(doubt)?;
    let mut lines = AnyLines { rest: Some(head) };
    lines.next();
    let mut found = None;
    let mut lines = lines.peekable();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            return Err(doubt);
        }
        let (name, rest) = line.split_at(lex::token_len(line));
        if HeaderName::find(name) != HeaderName::ContentLength {
            continue;
        }
        let value = rest.trim_ascii_start().strip_prefix(b":").ok_or(doubt)?.trim_ascii();
        let mut value = std::str::from_utf8(value).map_err(|_| doubt)?;
        // The value may stand in a folded line, and in one only.
        while let Some(next) = lines.next_if(|next| matches!(next.first(), Some(b' ' | b'\t'))) {
            let next = std::str::from_utf8(next.trim_ascii()).map_err(|_| doubt)?;
            value = match (value, next) {
                (value, "") => value,
                ("", next) => next,
                _ => return Err(doubt),
            };
        }
        let length = lex::number::<usize>(value).ok_or(doubt)?;
        if found.replace(length).is_some_and(|before| before != length) {
            return Err(doubt);
        }
    }
    found.ok_or(doubt)
}

/// The lines of a head for the most tolerant reader: CR LF, CR and LF each end one.
struct AnyLines<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for AnyLines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let Some(at) = memchr::memchr2(b'\r', b'\n', rest) else {
            self.rest = None;
            return Some(rest);
        };
        let end_len = if rest[at..].starts_with(b"\r\n") { 2 } else { 1 };
        self.rest = Some(&rest[at + end_len..]);
        Some(&rest[..at])
    }
}

impl Message {
    /// What is left of a malformed request (a datagram, or the head of a stream message), as far as an answer needs it:
    /// the fields that responses copy, malformed ones left out, and no body. `None` where none may be sent (SIP-X-05,
    /// SIP-X-09): for a response, an ACK, and a request whose first Via does not tell the way back.
    pub fn answerable(octets: &[u8], limits: &MessageLimits) -> Option<Self> {
        let begin = octets.iter().take_while(|octet| matches!(octet, b'\r' | b'\n')).count();
        let octets = &octets[begin..];
        let end = memchr::memmem::find(octets, b"\r\n\r\n").map_or(octets.len(), |at| at + 4);
        let head = String::from_utf8_lossy(&octets[..end.min(limits.head())]);
        let head = unfold(head.as_bytes());
        let text = std::str::from_utf8(&head).ok()?;
        let mut lines = Lines { text, at: 0 };
        let start = read_request_line_leniently(lines.next()?.text)?;
        let rows: Rows = lines
            .filter(|line| line.text.len() <= limits.field)
            .filter_map(|line| read_row(line.whole().ok()?, line.from, true).ok()?)
            .filter(|row| row.name == HeaderName::Via || COPIED.contains(&row.name))
            .collect();
        let message = Self { start, rows, body: Bytes::new(), source: None, head };
        let is_answered = message.method() != Some(&Method::Ack) && message.way_back().is_ok();
        is_answered.then_some(message)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn len_of(rows: &str) -> Option<usize> {
        body_len(format!("OPTIONS sip:a b SIP/2.0\r\n{rows}\r\n\r\n").as_bytes()).ok()
    }

    #[test]
    fn the_length_behind_a_malformed_head_is_told_where_all_readers_find_the_same() {
        for rows in [
            "Content-Length: 7",
            "no colon\r\nl:7\r\nSubject: \0",
            "CONTENT-LENGTH \t:  7 ",
            "l: 7\r\nContent-Length: 007",
            "Content-Length:\r\n  7",
            "Content-Length: 7\r\n \t",
            "X: a\nl: 7",
            "Subject: a\rb\r\nl: 7",
            "Content-Length-Of-Old: 9\r\nX-Content-Length: 9\r\nSubject: Content-Length: 9\r\n l: 9\r\nl: 7",
        ] {
            assert_eq!(len_of(rows), Some(7), "{rows:?}");
        }
    }

    #[test]
    fn the_length_is_in_doubt_where_a_reader_may_find_another() {
        for rows in [
            "Subject: none",
            "Content-Length: -7",
            "Content-Length: 7, 7",
            "Content-Length: 7x",
            "Content-Length: 99999999999999999999999",
            "Content-Length:",
            "Content-Length 7\r\nl: 7",
            "Content-Length\0: 9\r\nl: 7",
            "Content-Length: 7\r\n 8",
            "Content-Length: 7\n 8",
            "l: 7\r\nContent-Length: 8",
            "l: 7\r\nSubject: a\nContent-Length: 8",
            "l: 7\r\nSubject: a\rContent-Length: 8",
            // Where a bare line feed is a line end, the head ends here.
            "l: 7\r\nSubject: a\n\nb",
            "l: 7\n\r\nSubject: a",
            "l: 7\r\r\nSubject: a",
            "l: 7\r\n\nSubject: a",
        ] {
            assert_eq!(len_of(rows), None, "{rows:?}");
        }
        assert!(body_len(b"l: 7\r\n\r\n").is_err(), "a start line is no header field");
        assert!(body_len(b"OPTIONS sip:a b SIP/2.0\r\nl: 7\r\n").is_err());
        assert!(body_len(b"OPTIONS sip:a b SIP/2.0\r\nl: 7\n\r\n\r\n").is_err());
    }
}
