//! The checks that every request meets first (RFC 3261 §8.2, SIP-D-03): method, Request-URI, required headers,
//! extensions, body. What passes them is for whom it concerns.

use crate::{
    build::allow,
    headers::HeaderName,
    message::Message,
    method::Method,
    uri::{Scheme, UriRef},
};

/// What a request gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is well-formed and asks for something that is served.
    Accept,
    /// It is answered with this status and these headers.
    Refuse {
        /// The status code.
        status: u16,
        /// Headers that the status wants.
        headers: Vec<(&'static str, String)>,
    },
    /// It is not answered.
    Drop,
}

impl Verdict {
    fn refuse(status: u16) -> Self {
        Self::Refuse { status, headers: Vec::new() }
    }
}

/// The methods that are served, for Allow.
pub const SERVED: [Method; 6] =
    [Method::Register, Method::Subscribe, Method::Notify, Method::Publish, Method::Message, Method::Options];

/// The extensions that are supported, for Supported.
pub const SUPPORTED: [&str; 1] = ["gruu"];

/// Checks a request. A response is dropped.
pub fn check(request: &Message) -> Verdict {
    let Some(method) = request.method() else { return Verdict::Drop };
    if has_broken_headers(request, method) {
        return if request.top_via().is_ok() { Verdict::refuse(400) } else { Verdict::Drop };
    }
    // An ACK is never answered (RFC 3261 §17); CANCEL is the transaction layer's.
    if matches!(method, Method::Ack | Method::Cancel) {
        return Verdict::Accept;
    }
    if !SERVED.contains(method) {
        let status = if method.is_known() { 405 } else { 501 };
        return Verdict::Refuse { status, headers: vec![("Allow", allow(&SERVED))] };
    }
    match UriRef::parse(request.request_uri_text()) {
        Ok(uri) if matches!(uri.scheme(), Scheme::Sip | Scheme::Sips | Scheme::Pres | Scheme::Im) => {}
        Ok(_) => return Verdict::refuse(416),
        Err(crate::uri::UriFault::TooLong { .. }) => return Verdict::refuse(414),
        Err(_) => return Verdict::refuse(400),
    }
    let unknown: Vec<&str> =
        request.require().chain(request.proxy_require()).filter(|tag| !SUPPORTED.contains(tag)).collect();
    if !unknown.is_empty() {
        return Verdict::Refuse { status: 420, headers: vec![("Unsupported", unknown.join(", "))] };
    }
    Verdict::Accept
}

/// True when a header that every request needs is missing, doubled or malformed.
fn has_broken_headers(request: &Message, method: &Method) -> bool {
    let is_cseq_right = request.cseq().is_ok_and(|(_, of)| of == *method);
    let has_hops = request.max_forwards().is_ok();
    let is_via_right = request.vias().all(|via| crate::headers::Via::parse(via).is_ok());
    let has_branch_at_all = request.top_via().is_ok();
    let are_contacts_right = request.contacts().all(|contact| contact.is_ok());
    let is_expires_right = request.rows(HeaderName::Expires).count() <= 1;
    !(request.from().is_ok()
        && request.to().is_ok()
        && request.call_id().is_ok()
        && is_cseq_right
        && has_hops
        && is_via_right
        && has_branch_at_all
        && are_contacts_right
        && is_expires_right)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::{MessageLimits, read_datagram};

    fn verdict(start: &str, more: &str) -> Verdict {
        let method = start.split(' ').next().unwrap_or_default();
        let text = format!(
            "{start} SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bK1\r\nFrom: <sip:r@y>;tag=f\r\nTo: <sip:j@x>\r\n\
             Call-ID: c\r\nCSeq: 7 {method}\r\n{more}\r\n"
        );
        let message = read_datagram(Bytes::from(text), &MessageLimits::default()).expect("a message");
        check(&message)
    }

    fn status(verdict: Verdict) -> u16 {
        match verdict {
            Verdict::Accept => 0,
            Verdict::Refuse { status, .. } => status,
            Verdict::Drop => 1,
        }
    }

    #[test]
    fn sip_d_03_each_fault_has_its_status_and_the_first_one_counts() {
        for (start, more, expected) in [
            ("MESSAGE sip:j@x", "", 0),
            ("NEWMETHOD sip:j@x", "", 501),
            ("INVITE sip:j@x", "", 405),
            ("MESSAGE tel:+1", "", 416),
            ("MESSAGE nobody:x", "", 416),
            ("MESSAGE sip:j@x", "Require: nothingSupportsThis\r\nProxy-Require: norDoes\r\n", 420),
            ("MESSAGE sip:j@x", "From: <sip:z@z>;tag=2\r\n", 400),
            ("MESSAGE sip:j@x", "Max-Forwards: 300\r\n", 400),
            ("NEWMETHOD sip:j@x", "Require: x\r\n", 501),
            ("MESSAGE tel:+1", "Require: x\r\n", 416),
        ] {
            assert_eq!(status(verdict(start, more)), expected, "{start} {more:?}");
        }
        let Verdict::Refuse { headers, .. } =
            verdict("MESSAGE sip:j@x", "Require: a, gruu\r\nProxy-Require: b\r\n")
        else {
            panic!("it is refused");
        };
        assert_eq!(headers, [("Unsupported", "a, b".to_owned())]);
    }
}
