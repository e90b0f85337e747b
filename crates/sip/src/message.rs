//! One SIP message: start line, a lazy index of its header fields, body (RFC 3261 §7).
//!
//! Octets of a whole message go in. The index holds where each field's name and value stand; a value is read only
//! when it is asked for. Line folding is undone once, when the message is read.

use std::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use crate::{
    event::{Reason, SubscriptionState, Substate},
    headers::{EventHeader, HeaderName, MediaType, NameAddr, ValueFault, Via},
    lex,
    method::Method,
    uri::UriRef,
};

/// Bounds on a message (SIP-T-17).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageLimits {
    /// Octets of the whole message.
    pub message: usize,
    /// Octets of one header field.
    pub field: usize,
    /// Header fields.
    pub fields: usize,
    /// Via values.
    pub vias: usize,
}

impl Default for MessageLimits {
    /// 64 KiB, fields of 8 KiB, 128 of them, 70 Via values.
    fn default() -> Self {
        Self { message: 64 * 1024, field: 8 * 1024, fields: 128, vias: 70 }
    }
}

/// Why octets are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageFault {
    /// There is no empty line that ends the head.
    #[error("the head does not end")]
    NoEnd,
    /// The start line is neither a request's nor a response's.
    #[error("a malformed start line")]
    StartLine,
    /// The version is not 2.0.
    #[error("the version is not SIP/2.0")]
    Version,
    /// A header field has no colon, an illegal name, or a control character in its value.
    #[error("a malformed header field")]
    Field,
    /// The head is not UTF-8.
    #[error("the head is not UTF-8")]
    NotUtf8,
    /// A bound of [`MessageLimits`] is passed.
    #[error("the {what} is over its limit")]
    TooBig {
        /// What is.
        what: &'static str,
    },
    /// Content-Length is missing on a stream, no number, or stands twice with different values.
    #[error("a Content-Length that does not tell the length")]
    ContentLength,
    /// The body is shorter than Content-Length says.
    #[error("the body is shorter than its Content-Length")]
    Short,
}

impl MessageFault {
    /// The status code of the answer, where one can be given.
    pub fn status(self) -> u16 {
        match self {
            Self::Version => 505,
            Self::TooBig { what: "message" } => 513,
            _ => 400,
        }
    }
}

#[derive(Debug, Clone)]
enum Start {
    Request { method: Method, uri: Span },
    Response { status: u16, reason: Span },
}

#[derive(Debug, Clone, Copy)]
struct Span {
    from: u32,
    to: u32,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    name: HeaderName,
    name_span: Span,
    value: Span,
}

/// A message. Cheap to clone but for its index.
#[derive(Debug, Clone)]
pub struct Message {
    /// Start line and header fields, unfolded, as UTF-8.
    head: Bytes,
    start: Start,
    rows: SmallVec<[Row; 16]>,
    body: Bytes,
    source: Option<SocketAddr>,
}

impl Message {
    /// Reads a whole head (with its empty line) and takes `body` as it is.
    pub fn read(head: Bytes, body: Bytes, limits: &MessageLimits) -> Result<Self, MessageFault> {
        let head = unfold(head);
        let text = std::str::from_utf8(&head).map_err(|_| MessageFault::NotUtf8)?;
        let mut lines = Lines { text, at: 0 };
        let first = lines.next().ok_or(MessageFault::NoEnd)?;
        let start = read_start(text, first)?;
        let mut rows = SmallVec::new();
        let mut vias = 0;
        for line in lines {
            if line.from == line.to {
                break;
            }
            if (line.to - line.from) as usize > limits.field {
                return Err(MessageFault::TooBig { what: "header field" });
            }
            if rows.len() >= limits.fields {
                return Err(MessageFault::TooBig { what: "number of header fields" });
            }
            let row = read_row(text, line)?;
            if row.name == HeaderName::Via {
                vias += lex::CommaList::new(&text[row.value.from as usize..row.value.to as usize]).count();
                if vias > limits.vias {
                    return Err(MessageFault::TooBig { what: "number of Via values" });
                }
            }
            rows.push(row);
        }
        Ok(Self { start, rows, body, source: None, head })
    }

    fn text(&self, span: Span) -> &str {
        let octets = &self.head[span.from as usize..span.to as usize];
        std::str::from_utf8(octets).expect("the head was checked when it was read")
    }

    /// True for a request.
    pub fn is_request(&self) -> bool {
        matches!(self.start, Start::Request { .. })
    }

    /// The method of a request; `None` for a response.
    pub fn method(&self) -> Option<&Method> {
        match &self.start {
            Start::Request { method, .. } => Some(method),
            Start::Response { .. } => None,
        }
    }

    /// The method as written; empty for a response.
    pub fn method_text(&self) -> &str {
        self.method().map_or("", Method::as_str)
    }

    /// The Request-URI as written; empty for a response.
    pub fn request_uri_text(&self) -> &str {
        match self.start {
            Start::Request { uri, .. } => self.text(uri),
            Start::Response { .. } => "",
        }
    }

    /// The Request-URI.
    pub fn request_uri(&self) -> Result<UriRef<'_>, ValueFault> {
        Ok(UriRef::parse(self.request_uri_text())?)
    }

    /// The status code of a response; `None` for a request.
    pub fn status(&self) -> Option<u16> {
        match self.start {
            Start::Response { status, .. } => Some(status),
            Start::Request { .. } => None,
        }
    }

    /// The reason phrase of a response; empty for a request.
    pub fn reason(&self) -> &str {
        match self.start {
            Start::Response { reason, .. } => self.text(reason),
            Start::Request { .. } => "",
        }
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Notes where a request came from, for `received` and `rport` of its responses (RFC 3261 §18.2.1, RFC 3581 §4).
    pub fn set_received(&mut self, source: SocketAddr) {
        self.source = Some(source);
    }

    /// Where a request came from.
    pub fn source(&self) -> Option<SocketAddr> {
        self.source
    }

    /// All values of the rows with this name, as written, one a row.
    pub fn rows(&self, name: HeaderName) -> impl Iterator<Item = &str> {
        self.rows.iter().filter(move |row| row.name == name).map(|row| self.text(row.value))
    }

    /// All rows in order: name and value as written.
    pub fn all_rows(&self) -> impl Iterator<Item = (&str, &str)> {
        self.rows.iter().map(|row| (self.text(row.name_span), self.text(row.value)))
    }

    /// All elements of a comma list over all rows (RFC 3261 §7.3.1), empty ones left out.
    pub fn list(&self, name: HeaderName) -> impl Iterator<Item = &str> {
        self.rows(name).flat_map(lex::CommaList::new).filter(|element| !element.is_empty())
    }

    /// The one value of a field that may stand once.
    pub fn only(&self, name: HeaderName) -> Result<Option<&str>, ValueFault> {
        let mut rows = self.rows(name);
        let first = rows.next();
        match rows.next() {
            Some(_) => Err(ValueFault::Repeated(name.as_str())),
            None => Ok(first),
        }
    }

    fn needed(&self, name: HeaderName) -> Result<&str, ValueFault> {
        self.only(name)?.ok_or(ValueFault::Missing(name.as_str()))
    }

    /// From.
    pub fn from(&self) -> Result<NameAddr<'_>, ValueFault> {
        NameAddr::parse(self.needed(HeaderName::From)?)
    }

    /// To.
    pub fn to(&self) -> Result<NameAddr<'_>, ValueFault> {
        NameAddr::parse(self.needed(HeaderName::To)?)
    }

    /// Call-ID: one or two words without white space.
    pub fn call_id(&self) -> Result<&str, ValueFault> {
        let value = self.needed(HeaderName::CallId)?;
        if value.is_empty() || value.contains([' ', '\t', ',']) {
            return Err(ValueFault::Malformed("a malformed Call-ID"));
        }
        Ok(value)
    }

    /// CSeq: number (below 2³¹) and method.
    pub fn cseq(&self) -> Result<(u32, Method), ValueFault> {
        let bad = ValueFault::Malformed("a malformed CSeq");
        let value = self.needed(HeaderName::CSeq)?;
        let (number, method) = value.split_once([' ', '\t']).ok_or(bad)?;
        let number = lex::number::<u32>(number).filter(|number| *number < 1 << 31).ok_or(bad)?;
        let method = Method::parse(lex::trim(method)).ok_or(bad)?;
        Ok((number, method))
    }

    /// Via values in order, as written.
    pub fn vias(&self) -> impl Iterator<Item = &str> {
        self.list(HeaderName::Via)
    }

    /// The first Via.
    pub fn top_via(&self) -> Result<Via<'_>, ValueFault> {
        Via::parse(self.vias().next().ok_or(ValueFault::Missing("Via"))?)
    }

    /// Max-Forwards (0 to 255); `None` when it is absent.
    pub fn max_forwards(&self) -> Result<Option<u8>, ValueFault> {
        let bad = ValueFault::Malformed("a malformed Max-Forwards");
        self.only(HeaderName::MaxForwards)?.map(|value| lex::number(value).ok_or(bad)).transpose()
    }

    /// Contact values; `*` is not one of them, see [`Message::has_contact_star`].
    pub fn contacts(&self) -> impl Iterator<Item = Result<NameAddr<'_>, ValueFault>> {
        self.list(HeaderName::Contact).filter(|value| *value != "*").map(NameAddr::parse)
    }

    /// `Contact: *`.
    pub fn has_contact_star(&self) -> bool {
        self.list(HeaderName::Contact).any(|value| value == "*")
    }

    /// Record-Route values in order, as written.
    pub fn record_routes(&self) -> impl Iterator<Item = &str> {
        self.list(HeaderName::RecordRoute)
    }

    /// Route values in order, as written.
    pub fn routes(&self) -> impl Iterator<Item = &str> {
        self.list(HeaderName::Route)
    }

    fn seconds(&self, name: HeaderName) -> Option<u32> {
        let value = self.rows(name).next()?;
        let digits = value.split([';', ' ', '(', '\t']).next()?;
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        // A number of seconds beyond 2³²-1 means that (RFC 3261 §20.19).
        Some(digits.parse().unwrap_or(u32::MAX))
    }

    /// Expires in seconds; `None` when it is absent or no number.
    pub fn expires(&self) -> Option<u32> {
        self.seconds(HeaderName::Expires)
    }

    /// Min-Expires in seconds.
    pub fn min_expires(&self) -> Option<u32> {
        self.seconds(HeaderName::MinExpires)
    }

    /// Retry-After in seconds.
    pub fn retry_after(&self) -> Option<u32> {
        self.seconds(HeaderName::RetryAfter)
    }

    /// Event; an error when it stands twice or is malformed.
    pub fn event(&self) -> Result<Option<EventHeader<'_>>, ValueFault> {
        self.only(HeaderName::Event)?.map(EventHeader::parse).transpose()
    }

    /// Subscription-State.
    pub fn subscription_state(&self) -> Result<Option<SubscriptionState>, ValueFault> {
        let Some(value) = self.only(HeaderName::SubscriptionState)? else { return Ok(None) };
        let (word, params) = value.split_at(value.find(';').unwrap_or(value.len()));
        let params = crate::headers::Params::read(params)?;
        let seconds = |name| params.value(name).and_then(lex::number::<u32>);
        let state = Substate::from_token(lex::trim(word))
            .ok_or(ValueFault::Malformed("a Subscription-State that is not known"))?;
        Ok(Some(SubscriptionState {
            state,
            reason: params.value("reason").and_then(Reason::from_token),
            expires: seconds("expires"),
            retry_after: seconds("retry-after"),
        }))
    }

    /// Accept values, as written.
    pub fn accept(&self) -> impl Iterator<Item = &str> {
        self.list(HeaderName::Accept)
    }

    /// Option tags of Require.
    pub fn require(&self) -> impl Iterator<Item = &str> {
        self.list(HeaderName::Require)
    }

    /// Option tags of Proxy-Require.
    pub fn proxy_require(&self) -> impl Iterator<Item = &str> {
        self.list(HeaderName::ProxyRequire)
    }

    /// Option tags of Supported.
    pub fn supported(&self) -> impl Iterator<Item = &str> {
        self.list(HeaderName::Supported)
    }

    /// Content-Type.
    pub fn content_type(&self) -> Result<Option<MediaType<'_>>, ValueFault> {
        self.only(HeaderName::ContentType)?.map(MediaType::parse).transpose()
    }

    /// Content-Encoding values other than `identity`.
    pub fn content_encoding(&self) -> impl Iterator<Item = &str> {
        self.list(HeaderName::ContentEncoding).filter(|coding| !coding.eq_ignore_ascii_case("identity"))
    }

    /// Content-Language, as written.
    pub fn content_language(&self) -> Option<&str> {
        self.rows(HeaderName::ContentLanguage).next()
    }

    /// Content-Length: the same in all rows, or a fault (SIP-T-03).
    pub fn content_length(&self) -> Result<Option<usize>, MessageFault> {
        let mut found = None;
        for value in self.rows(HeaderName::ContentLength) {
            let length = lex::number::<usize>(value).ok_or(MessageFault::ContentLength)?;
            if found.replace(length).is_some_and(|before| before != length) {
                return Err(MessageFault::ContentLength);
            }
        }
        Ok(found)
    }

    /// Authorization values, as written, one a row.
    pub fn authorization(&self) -> impl Iterator<Item = &str> {
        self.rows(HeaderName::Authorization)
    }

    /// WWW-Authenticate values, as written, one a row.
    pub fn www_authenticate(&self) -> impl Iterator<Item = &str> {
        self.rows(HeaderName::WwwAuthenticate)
    }

    /// SIP-If-Match values.
    pub fn sip_if_match(&self) -> impl Iterator<Item = &str> {
        self.list(HeaderName::SipIfMatch)
    }

    /// SIP-ETag.
    pub fn sip_etag(&self) -> Option<&str> {
        self.rows(HeaderName::SipEtag).next()
    }

    /// Subject.
    pub fn subject(&self) -> Option<&str> {
        self.rows(HeaderName::Subject).next()
    }

    /// Date, as written.
    pub fn date(&self) -> Option<&str> {
        self.rows(HeaderName::Date).next()
    }

    /// The Via values of a response to this request: the first with `received` and `rport` filled in.
    pub fn response_vias(&self) -> Vec<String> {
        let mut vias: Vec<String> = self.vias().map(ToOwned::to_owned).collect();
        if let (Some(source), Some(first)) = (self.source, vias.first_mut())
            && let Ok(via) = Via::parse(first)
        {
            *first = with_source(&via, source);
        }
        vias
    }
}

/// A Via with what its receiver saw (RFC 3261 §18.2.1, RFC 3581 §4).
fn with_source(via: &Via<'_>, source: SocketAddr) -> String {
    let address = source.ip().to_canonical();
    let wants_port = via.params.has("rport");
    let is_other = via.sent_by.host.address().map(|host: IpAddr| host.to_canonical()) != Some(address);
    let mut text = String::with_capacity(via.text.len() + 40);
    let begin = via.text.len() - via.params.as_str().len();
    text.push_str(lex::trim(&via.text[..begin]));
    for (name, value) in via.params.iter() {
        if name.eq_ignore_ascii_case("received") || name.eq_ignore_ascii_case("rport") {
            continue;
        }
        text.push(';');
        text.push_str(name);
        if let Some(value) = value {
            text.push('=');
            text.push_str(value);
        }
    }
    if wants_port || is_other {
        text.push_str(&format!(";received={address}"));
    }
    if wants_port {
        text.push_str(&format!(";rport={}", source.port()));
    }
    text
}

/// Lines of a head, without their ends.
struct Lines<'a> {
    text: &'a str,
    at: usize,
}

impl Iterator for Lines<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let len = memchr::memmem::find(rest, b"\r\n")?;
        let span = Span { from: self.at as u32, to: (self.at + len) as u32 };
        self.at += len + 2;
        Some(span)
    }
}

fn slice(text: &str, span: Span) -> &str {
    &text[span.from as usize..span.to as usize]
}

fn read_start(text: &str, line: Span) -> Result<Start, MessageFault> {
    let first = slice(text, line);
    if first.bytes().any(lex::is_control) {
        return Err(MessageFault::StartLine);
    }
    if let Some(rest) = first.strip_prefix("SIP/2.0 ") {
        let (code, _) = rest.split_once(' ').unwrap_or((rest, ""));
        let status = lex::number::<u16>(code).filter(|status| (100..700).contains(status) && code.len() == 3);
        let status = status.ok_or(MessageFault::StartLine)?;
        let reason_at = (line.from as usize + 8 + code.len() + 1).min(line.to as usize);
        return Ok(Start::Response { status, reason: Span { from: reason_at as u32, to: line.to } });
    }
    let (method, rest) = first.split_once(' ').ok_or(MessageFault::StartLine)?;
    let method = Method::parse(method).ok_or(MessageFault::StartLine)?;
    let (uri, version) = rest.rsplit_once(' ').ok_or(MessageFault::StartLine)?;
    if !version.eq_ignore_ascii_case("SIP/2.0") {
        let is_version = version.get(..4).is_some_and(|name| name.eq_ignore_ascii_case("SIP/"));
        return Err(if is_version { MessageFault::Version } else { MessageFault::StartLine });
    }
    if uri.is_empty() || uri.contains([' ', '\t', '<', '>']) {
        return Err(MessageFault::StartLine);
    }
    let from = line.from as usize + first.len() - rest.len();
    Ok(Start::Request { method, uri: Span { from: from as u32, to: (from + uri.len()) as u32 } })
}

fn read_row(text: &str, line: Span) -> Result<Row, MessageFault> {
    let row = slice(text, line);
    let name_len = lex::token_len(row.as_bytes());
    let rest = lex::trim_start(&row[name_len..]);
    let value = rest.strip_prefix(':').filter(|_| name_len > 0).ok_or(MessageFault::Field)?;
    if value.bytes().any(lex::is_control) {
        return Err(MessageFault::Field);
    }
    let trimmed = lex::trim(value);
    let from = line.to as usize - lex::trim_start(value).len();
    let name_span = Span { from: line.from, to: line.from + name_len as u32 };
    let value = Span { from: from as u32, to: (from + trimmed.len()) as u32 };
    Ok(Row { name: HeaderName::find(&row.as_bytes()[..name_len]), name_span, value })
}

/// Folded lines become one, octet for octet: the line end is written over with spaces (RFC 3261 §7.3.1).
fn unfold(head: Bytes) -> Bytes {
    let is_fold = |at: usize| matches!(head.get(at + 2), Some(b' ' | b'\t'));
    let Some(first) = memchr::memmem::find_iter(&head, b"\r\n").find(|at| is_fold(*at)) else { return head };
    let mut whole = BytesMut::from(&head[..]);
    for at in
        memchr::memmem::find_iter(&head[first..], b"\r\n").map(|at| first + at).filter(|at| is_fold(*at))
    {
        whole[at..at + 2].copy_from_slice(b"  ");
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
    let message = Message::read(head, Bytes::new(), limits)?;
    let length = message.content_length()?.unwrap_or(rest.len());
    if length > rest.len() {
        return Err(MessageFault::Short);
    }
    Ok(Message { body: rest.slice(..length), ..message })
}

/// Takes the body that the framer waited for.
pub(crate) fn with_body(message: Message, body: Bytes) -> Message {
    Message { body, ..message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Message, MessageFault> {
        read_datagram(Bytes::copy_from_slice(text.as_bytes()), &MessageLimits::default())
    }

    const REQUEST: &str = "SUBSCRIBE sip:juliet@example.com SIP/2.0\r\n\
        v: SIP/2.0/TCP s2x.example.net;branch=z9hG4bKna998sk, SIP/2.0/UDP a;branch=b\r\n\
        f: <sip:romeo@example.net>;tag=j89d\r\nTO : <sip:juliet@example.com>\r\n\
        Call-ID: 5BCF940D-793D\r\nEvent: presence\r\nMax-Forwards: 70\r\nCSeq: 263 SUBSCRIBE\r\n\
        Contact: <sip:romeo@example.net;gr=orchard>\r\nSubject: I know\r\n you're there\r\n\
        Accept: application/pidf+xml, application/xpidf+xml\r\nExpires: 3600\r\nContent-Length: 0\r\n\r\n";

    #[test]
    fn sip_t_12_compact_forms_case_folding_and_lists() {
        let message = read(REQUEST).expect("legal");
        assert_eq!(message.method(), Some(&Method::Subscribe));
        assert_eq!(message.request_uri_text(), "sip:juliet@example.com");
        assert_eq!(message.from().expect("From").tag(), Some("j89d"));
        assert_eq!(message.to().expect("To").tag(), None);
        assert_eq!(message.vias().count(), 2);
        assert_eq!(message.top_via().expect("Via").branch(), Some("z9hG4bKna998sk"));
        assert_eq!(message.cseq(), Ok((263, Method::Subscribe)));
        assert_eq!(message.subject(), Some("I know   you're there"));
        assert_eq!(message.accept().count(), 2);
        assert_eq!(message.expires(), Some(3600));
    }

    #[test]
    fn control_characters_and_white_space_never_make_another_name() {
        for wrong in
            ["Contact\u{1}: <sip:a@b>", "Con tact: x", ": x", "Contact", "Subject: a\u{0}b", "X: a\u{b}"]
        {
            let text = format!("OPTIONS sip:a@b SIP/2.0\r\n{wrong}\r\n\r\n");
            assert_eq!(read(&text).map(|_| ()), Err(MessageFault::Field), "{wrong:?}");
        }
    }

    #[test]
    fn sip_t_04_a_datagram_ends_where_its_length_says() {
        let text = "MESSAGE sip:a@b SIP/2.0\r\nContent-Length: 2\r\n\r\nhello";
        assert_eq!(&read(text).expect("legal").body()[..], b"he");
        let text = "MESSAGE sip:a@b SIP/2.0\r\nContent-Length: 9\r\n\r\nhello";
        assert_eq!(read(text).map(|_| ()), Err(MessageFault::Short));
        for length in ["-1", "99999999999999999999999", "1 2", "", "0x2"] {
            let text = format!("MESSAGE sip:a@b SIP/2.0\r\nContent-Length: {length}\r\n\r\nhello");
            assert_eq!(read(&text).map(|_| ()), Err(MessageFault::ContentLength), "{length:?}");
        }
        let text = "MESSAGE sip:a@b SIP/2.0\r\nl: 2\r\nContent-Length: 3\r\n\r\nhello";
        assert_eq!(read(text).map(|_| ()), Err(MessageFault::ContentLength));
    }

    #[test]
    fn sip_t_06_the_source_is_noted_where_it_is_asked_for_or_differs() {
        let mut message =
            read("OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.1.1:4540;rport;branch=z\r\n\r\n")
                .expect("legal");
        message.set_received("192.0.2.1:9988".parse().expect("an address"));
        assert_eq!(
            message.response_vias(),
            ["SIP/2.0/UDP 10.1.1.1:4540;branch=z;received=192.0.2.1;rport=9988"]
        );
        message.set_received("10.1.1.1:4540".parse().expect("an address"));
        assert_eq!(
            message.response_vias(),
            ["SIP/2.0/UDP 10.1.1.1:4540;branch=z;received=10.1.1.1;rport=4540"]
        );
    }

    #[test]
    fn sip_t_17_each_limit_is_refused() {
        let limits = MessageLimits { message: 400, field: 60, fields: 3, vias: 2 };
        let read = |text: String| read_datagram(Bytes::from(text), &limits).map(|_| ());
        let too_big = |what| Err(MessageFault::TooBig { what });
        assert_eq!(read(format!("OPTIONS sip:a SIP/2.0\r\n\r\n{}", "x".repeat(400))), too_big("message"));
        assert_eq!(
            read(format!("OPTIONS sip:a SIP/2.0\r\nA: {}\r\n\r\n", "x".repeat(60))),
            too_big("header field")
        );
        assert_eq!(
            read(format!("OPTIONS sip:a SIP/2.0\r\n{}\r\n", "A: x\r\n".repeat(4))),
            too_big("number of header fields")
        );
        assert_eq!(
            read("OPTIONS sip:a SIP/2.0\r\nv: a, b, c\r\n\r\n".to_owned()),
            too_big("number of Via values")
        );
    }

    #[test]
    fn responses_have_a_status_and_a_reason() {
        let message =
            read("SIP/2.0 200 = 2**3 * 5**2 \u{043d}\u{043e}\r\nCSeq: 1 OPTIONS\r\n\r\n").expect("legal");
        assert_eq!((message.status(), message.reason()), (Some(200), "= 2**3 * 5**2 \u{043d}\u{043e}"));
        assert_eq!(read("SIP/2.0 100\r\n\r\n").expect("legal").reason(), "");
        for wrong in ["SIP/2.0 4294967301 x", "SIP/2.0 99 x", "SIP/2.0 2oo x", "SIP/7.0 200 OK", "200 OK"] {
            assert!(read(&format!("{wrong}\r\n\r\n")).is_err(), "{wrong}");
        }
    }
}
