//! One SIP message: start line, a lazy index of its header fields, body (RFC 3261 §7).
//!
//! Octets of a whole message go in. The index holds where each field's name and value stand; a value is read only
//! when it is asked for. Line folding is undone once, when the message is read.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

mod outline;
mod read;

pub(crate) use self::outline::body_len;
pub use self::read::read_datagram;
use self::read::{Rows, Span, Start};
use crate::{
    build::push_value,
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

impl MessageLimits {
    /// Octets of a head that are waited for on a stream, so that a message over a low [`MessageLimits::message`] does not
    /// end the connection.
    pub(crate) fn head(&self) -> usize {
        self.message.max(64 * 1024)
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
    /// A request line of another version than 2.0.
    #[error("the version is not SIP/2.0")]
    Version,
    /// A header field has no colon, an illegal name, no proper line end, or (if somebody acts on it) a control character
    /// in its value that is no quoted pair.
    #[error("a malformed header field")]
    Field,
    /// The start line, or a field that identifies a transaction, is not UTF-8.
    #[error("a start line or an identifying field that is not UTF-8")]
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
    /// A message on a stream has no Via, so that nobody can be answered.
    #[error("there is no Via")]
    NoVia,
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
            Self::TooBig { what: "start line" } => 414,
            _ => 400,
        }
    }
}

/// A message. Cheap to clone but for its index.
#[derive(Debug, Clone)]
pub struct Message {
    /// Start line and header fields, unfolded, as UTF-8.
    head: Bytes,
    start: Start,
    rows: Rows,
    body: Bytes,
    source: Option<SocketAddr>,
}

impl Message {
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

    /// Octets that the message takes in memory.
    pub fn octets(&self) -> usize {
        size_of::<Self>() + self.head.len() + self.body.len()
    }

    /// Octets of start line and header fields, the empty line counted.
    pub fn head_len(&self) -> usize {
        self.head.len()
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
        if value.is_empty() || value.bytes().any(|octet| matches!(octet, b' ' | b'\t' | b',')) {
            return Err(ValueFault::Malformed("a malformed Call-ID"));
        }
        Ok(value)
    }

    /// CSeq: number (below 2³¹) and method.
    pub fn cseq(&self) -> Result<(u32, Method), ValueFault> {
        let bad = ValueFault::Malformed("a malformed CSeq");
        let value = self.needed(HeaderName::CSeq)?;
        let space = value.bytes().position(|octet| matches!(octet, b' ' | b'\t')).ok_or(bad)?;
        let (number, method) = value.split_at(space);
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
        let (word, params) = lex::split_before(value, b';');
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

    /// Option tags of Supported.
    pub fn supported(&self) -> impl Iterator<Item = &str> {
        self.list(HeaderName::Supported)
    }

    /// Content-Type.
    pub fn content_type(&self) -> Result<Option<MediaType<'_>>, ValueFault> {
        self.only(HeaderName::ContentType)?.map(MediaType::parse).transpose()
    }

    /// Content-Language as one tag: `mul` where it names several.
    pub fn content_language(&self) -> Option<&str> {
        crate::body::one_language(self.list(HeaderName::ContentLanguage))
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

    /// True when the sender says that a program sent this by itself (RFC 3834 §5): such a message is never answered.
    pub fn is_automatic(&self) -> bool {
        let mut values = self.rows(HeaderName::AutoSubmitted);
        values.next().is_some_and(|value| {
            let word = value.split(';').next().unwrap_or_default().trim();
            !word.eq_ignore_ascii_case("no")
        })
    }

    /// Date, as written.
    pub fn date(&self) -> Option<&str> {
        self.rows(HeaderName::Date).next()
    }

    /// The first Via as far as the way back of a response needs it.
    pub(crate) fn way_back(&self) -> Result<Via<'_>, ValueFault> {
        Via::parse_leniently(self.vias().next().ok_or(ValueFault::Missing("Via"))?)
    }

    /// Appends the Via rows of a response to this request: the first with `received` and `rport` filled in where they
    /// are due. What is malformed is not said again.
    pub(crate) fn push_response_vias(&self, out: &mut Vec<u8>) {
        for (place, text) in self.vias().enumerate() {
            let via = if place == 0 { Via::parse_leniently(text) } else { Via::parse(text) };
            let Ok(via) = via else { continue };
            out.extend_from_slice(b"Via: ");
            match self.source.filter(|_| place == 0) {
                Some(source) => push_value(out, &with_source(&via, source)),
                None => push_value(out, via.text),
            }
            out.extend_from_slice(b"\r\n");
        }
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

#[cfg(test)]
mod tests;
