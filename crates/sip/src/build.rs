//! Writes responses, and messages again. A header value is written by one encoder that cannot be made to write a second
//! line.

use crate::{
    headers::{HeaderName, ValueFault},
    lex,
    message::Message,
    method::Method,
};

/// The reason phrase of a status code (RFC 3261 §21 and the RFCs that add some).
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        199 => "Early Dialog Terminated",
        202 => "Accepted",
        204 => "No Notification",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        305 => "Use Proxy",
        380 => "Alternative Service",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        412 => "Conditional Request Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        417 => "Unknown Resource-Priority",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        424 => "Bad Location Information",
        428 => "Use Identity Header",
        429 => "Provide Referrer Identity",
        430 => "Flow Failed",
        433 => "Anonymity Disallowed",
        436 => "Bad Identity Info",
        437 => "Unsupported Credential",
        438 => "Invalid Identity Header",
        439 => "First Hop Lacks Outbound Support",
        440 => "Max-Breadth Exceeded",
        469 => "Bad Info Package",
        470 => "Consent Needed",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        493 => "Undecipherable",
        494 => "Security Agreement Required",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        580 => "Precondition Failure",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        607 => "Unwanted",
        608 => "Rejected",
        200..300 => "OK",
        400..500 => "Bad Request",
        500..600 => "Server Internal Error",
        _ => "Failure",
    }
}

/// Appends text of a header value: line ends, NUL and all other control characters but tab become spaces, whatever the
/// text is (also in quoted pairs, where the space stays a legal one).
pub fn push_value(out: &mut Vec<u8>, value: &str) {
    let begin = out.len();
    out.extend_from_slice(value.as_bytes());
    for octet in &mut out[begin..] {
        if lex::is_control(*octet) {
            *octet = b' ';
        }
    }
}

/// Appends `name: value` and a line end.
pub fn push_header(out: &mut Vec<u8>, name: &str, value: &str) {
    push_value(out, name);
    out.extend_from_slice(b": ");
    push_value(out, value);
    out.extend_from_slice(b"\r\n");
}

/// A response that is being made.
#[derive(Debug)]
pub struct ResponseBuilder<'a> {
    request: &'a Message,
    status: u16,
    reason: Option<&'a str>,
    to_tag: Option<&'a str>,
    copies_record_route: bool,
    headers: Vec<(&'a str, &'a str)>,
    body: Option<(&'a str, &'a [u8])>,
}

impl<'a> ResponseBuilder<'a> {
    /// A response to `request`, whose first Via must tell the way back. It must also have From, To, Call-ID and CSeq,
    /// but for a refusal (400 and up): of what a refused request lacks, nothing is copied (SIP-X-09).
    pub fn to(request: &'a Message, status: u16, reason: Option<&'a str>) -> Result<Self, ValueFault> {
        if status < 400 {
            for name in COPIED {
                request.rows(name).next().ok_or(ValueFault::Missing(name.as_str()))?;
            }
        }
        request.way_back()?;
        Ok(Self {
            request,
            status,
            reason,
            to_tag: None,
            copies_record_route: false,
            headers: Vec::new(),
            body: None,
        })
    }

    /// The tag that To gets when the request had none. Without this call one is made from the request, the same for
    /// each copy of it, as a stateless server must (RFC 3261 §8.2.7).
    pub fn to_tag(mut self, tag: &'a str) -> Self {
        self.to_tag = Some(tag);
        self
    }

    /// Copies Record-Route: for 2xx that may form a dialog (RFC 3261 §12.1.1).
    pub fn copy_record_route(mut self) -> Self {
        self.copies_record_route = true;
        self
    }

    /// A further header.
    pub fn header(mut self, name: &'a str, value: &'a str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// A body with its type.
    pub fn body(mut self, content_type: &'a str, body: &'a [u8]) -> Self {
        self.body = Some((content_type, body));
        self
    }

    /// The response's text.
    pub fn render(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(b"SIP/2.0 ");
        out.extend_from_slice(self.status.to_string().as_bytes());
        out.push(b' ');
        push_value(&mut out, self.reason.unwrap_or_else(|| reason(self.status)));
        out.extend_from_slice(b"\r\n");
        self.request.push_response_vias(&mut out);
        if self.copies_record_route {
            for route in self.request.rows(HeaderName::RecordRoute) {
                push_header(&mut out, "Record-Route", route);
            }
        }
        for name in COPIED {
            let Some(value) = self.request.rows(name).next() else { continue };
            push_value(&mut out, name.as_str());
            out.extend_from_slice(b": ");
            push_value(&mut out, value);
            if name == HeaderName::To && self.status != 100 && wants_tag(self.request) {
                out.extend_from_slice(b";tag=");
                match self.to_tag {
                    Some(tag) => push_value(&mut out, tag),
                    None => push_value(&mut out, &stateless_tag(self.request)),
                }
            }
            out.extend_from_slice(b"\r\n");
        }
        for (name, value) in &self.headers {
            push_header(&mut out, name, value);
        }
        let (content_type, body) = self.body.unwrap_or_default();
        if !content_type.is_empty() {
            push_header(&mut out, "Content-Type", content_type);
        }
        push_header(&mut out, "Content-Length", &body.len().to_string());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body);
        out
    }
}

/// What every response copies besides Via (RFC 3261 §8.2.6.2).
pub(crate) const COPIED: [HeaderName; 4] =
    [HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq];

/// Whether To can be read and has no tag; one that cannot is copied as it is, so that its sender knows it.
fn wants_tag(request: &Message) -> bool {
    request.to().is_ok_and(|to| !to.params.has("tag"))
}

/// The same for each copy of a request, different for different requests.
fn stateless_tag(request: &Message) -> String {
    use sha2::{Digest, Sha256};
    let mut digest = Sha256::new();
    for name in [HeaderName::Via, HeaderName::From, HeaderName::CallId, HeaderName::CSeq] {
        for value in request.rows(name) {
            digest.update(value.len().to_be_bytes());
            digest.update(value.as_bytes());
        }
    }
    digest.finalize()[..8].iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Writes a message that was read: the same start line, rows and body, each row on one line of its own. What is read of
/// this is the same message.
pub fn print(message: &Message) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.head_len() + message.body().len());
    match message.status() {
        Some(status) => {
            out.extend_from_slice(format!("SIP/2.0 {status} ").as_bytes());
            out.extend_from_slice(message.reason().as_bytes());
        }
        None => {
            out.extend_from_slice(message.method_text().as_bytes());
            out.push(b' ');
            out.extend_from_slice(message.request_uri_text().as_bytes());
            out.extend_from_slice(b" SIP/2.0");
        }
    }
    out.extend_from_slice(b"\r\n");
    for (name, value) in message.all_rows() {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        // As it was read it holds control characters in quoted pairs only, and no line ends.
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(message.body());
    out
}

/// The value of Allow: the methods that are served.
pub fn allow(methods: &[Method]) -> String {
    methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::{MessageLimits, read_datagram};

    fn request() -> Message {
        let text = "SUBSCRIBE sip:j@x SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=1\r\nVia: SIP/2.0/TCP b;branch=2\r\n\
            Record-Route: <sip:p1;lr>, <sip:p2;lr>\r\nFrom: <sip:r@y>;tag=f\r\nTo: <sip:j@x>\r\nCall-ID: c\r\n\
            CSeq: 7 SUBSCRIBE\r\n\r\n";
        read_datagram(Bytes::from_static(text.as_bytes()), &MessageLimits::default()).expect("legal")
    }

    #[test]
    fn sip_d_02_a_response_copies_what_it_must_and_adds_one_stable_tag() {
        let request = request();
        let build =
            || ResponseBuilder::to(&request, 200, None).expect("answerable").copy_record_route().render();
        let text = String::from_utf8(build()).expect("UTF-8");
        assert!(
            text.starts_with(
                "SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP a;branch=1\r\nVia: SIP/2.0/TCP b;branch=2\r\n"
            )
        );
        assert!(text.contains("Record-Route: <sip:p1;lr>, <sip:p2;lr>\r\n"));
        assert!(text.contains("To: <sip:j@x>;tag="));
        assert_eq!(text.as_bytes(), build());
        let own = ResponseBuilder::to(&request, 200, None).expect("answerable").to_tag("mine").render();
        assert!(String::from_utf8(own).expect("UTF-8").contains("To: <sip:j@x>;tag=mine\r\n"));
    }

    #[test]
    fn a_refusal_copies_what_there_is_and_nothing_else_does() {
        let text = "INVITE sip:a SIP/2.0\r\nCSeq: 1 INVITE\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\n\r\n";
        let request =
            read_datagram(Bytes::from_static(text.as_bytes()), &MessageLimits::default()).expect("legal");
        let refusal = ResponseBuilder::to(&request, 400, None).expect("answerable").render();
        assert_eq!(
            String::from_utf8(refusal).expect("UTF-8"),
            "SIP/2.0 400 Bad Request\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\nCSeq: 1 INVITE\r\n\
             Content-Length: 0\r\n\r\n"
        );
        assert_eq!(ResponseBuilder::to(&request, 200, None).err(), Some(ValueFault::Missing("From")));
    }

    #[test]
    fn no_control_character_is_written() {
        let every: String = (0..=0x9f).filter_map(char::from_u32).collect();
        let mut out = Vec::new();
        push_value(&mut out, &every);
        assert!(out.iter().all(|octet| *octet == b'\t' || !octet.is_ascii_control()));
        assert_eq!(out.len(), every.len());
    }

    #[test]
    fn no_header_value_makes_a_second_line() {
        let request = request();
        let response = ResponseBuilder::to(&request, 200, Some("a\r\nb"))
            .expect("answerable")
            .header("Warning", "x\r\nEvil: y\n\rz\0")
            .render();
        let text = String::from_utf8(response).expect("UTF-8");
        assert!(!text.contains("\r\nEvil"), "{text}");
        assert!(text.starts_with("SIP/2.0 200 a  b\r\n"));
    }
}
