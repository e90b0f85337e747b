//! The checks that every request meets first (RFC 3261 §8.2, SIP-D-03): syntax, method, scheme of the Request-URI,
//! hops, extensions. Bodies are read later, by [`crate::body`].
//!
//! A message and what is served go in, a verdict comes out. Who may ask for what is not decided here; a request of
//! another SIP version is refused earlier (505, by [`crate::message::MessageFault`]).
//!
//! We are a user agent server to whoever sends us a request, so header fields that speak to proxies are ignored
//! whatever they hold: Proxy-Require (§8.2.2.3, §20.29), Proxy-Authorization, Route, Max-Breadth.

use crate::{
    build::allow,
    headers::{HeaderName, MAGIC_COOKIE, Via},
    message::Message,
    method::Method,
    uri::{Scheme, UriFault, UriRef},
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

    fn refuse_with(status: u16, name: &'static str, value: String) -> Self {
        Self::Refuse { status, headers: vec![(name, value)] }
    }
}

/// What a user agent serves.
#[derive(Debug, Clone, Copy)]
pub struct Served<'a> {
    /// Methods, for Allow.
    pub methods: &'a [Method],
    /// Extensions, for Supported and Require.
    pub extensions: &'a [&'a str],
}

/// The methods that are served, for Allow.
pub const SERVED: [Method; 6] =
    [Method::Register, Method::Subscribe, Method::Notify, Method::Publish, Method::Message, Method::Options];

/// The extensions that are supported, for Supported.
pub const SUPPORTED: [&str; 1] = ["gruu"];

/// Checks a request against what this product serves. A response is dropped.
pub fn check(request: &Message) -> Verdict {
    check_for(request, &Served { methods: &SERVED, extensions: &SUPPORTED })
}

/// Checks a request in the order of RFC 3261 §8.2; the first fault counts. A response is dropped.
pub fn check_for(request: &Message, served: &Served<'_>) -> Verdict {
    let Some(method) = request.method() else { return Verdict::Drop };
    if !has_identity(request) {
        let can_answer = *method != Method::Ack && request.way_back().is_ok();
        return if can_answer { Verdict::refuse(400) } else { Verdict::Drop };
    }
    // An ACK is never answered (RFC 3261 §17); CANCEL is the transaction layer's.
    if matches!(method, Method::Ack | Method::Cancel) {
        return Verdict::Accept;
    }
    // Before the rest: what a method of tomorrow means by its headers is not known (RFC 4475 §3.1.2.18).
    if !method.is_known() {
        return Verdict::refuse_with(501, "Allow", allow(served.methods));
    }
    if let Err(UriFault::TooLong { .. }) = UriRef::parse(request.request_uri_text()) {
        return Verdict::refuse(414);
    }
    if is_malformed(request, method) {
        return Verdict::refuse(400);
    }
    if !served.methods.contains(method) {
        return Verdict::refuse_with(405, "Allow", allow(served.methods));
    }
    let is_usable =
        |uri: UriRef<'_>| matches!(uri.scheme(), Scheme::Sip | Scheme::Sips | Scheme::Pres | Scheme::Im);
    if !request.request_uri().is_ok_and(is_usable) {
        return Verdict::refuse(416);
    }
    if carries_on(method) && request.max_forwards() == Ok(Some(0)) {
        return Verdict::refuse(483);
    }
    let unknown: Vec<&str> = request
        .require()
        .filter(|tag| !served.extensions.iter().any(|known| known.eq_ignore_ascii_case(tag)))
        .collect();
    if !unknown.is_empty() {
        return Verdict::refuse_with(420, "Unsupported", unknown.join(", "));
    }
    Verdict::Accept
}

/// Whether a request of this method leaves us again wherever it is addressed to, so that its hops count (STOX-A-21,
/// RFC 3261 §16.3 item 3). All others end here, except a SUBSCRIBE for the presence of a contact, which only the
/// receiver of its Request-URI can tell apart.
fn carries_on(method: &Method) -> bool {
    *method == Method::Message
}

/// What a response copies, and what tells a transaction from another (RFC 4475 §3.2.1).
fn has_identity(request: &Message) -> bool {
    // A branch that is the magic cookie and nothing else names no transaction.
    let has_name =
        |via: Via<'_>| via.branch().is_none_or(|branch| !branch.eq_ignore_ascii_case(MAGIC_COOKIE));
    request.from().is_ok()
        && request.to().is_ok()
        && request.call_id().is_ok()
        && request.cseq().is_ok()
        && request.top_via().is_ok_and(has_name)
}

/// Whether the Request-URI, or a header that every method has, is doubled or malformed.
fn is_malformed(request: &Message, method: &Method) -> bool {
    // Header components may not stand in a Request-URI (RFC 3261 §19.1.1).
    let is_uri_right = request.request_uri().is_ok_and(|uri| uri.headers().is_empty());
    let is_cseq_right = request.cseq().is_ok_and(|(_, of)| of == *method);
    let are_vias_right = request.vias().all(|via| Via::parse(via).is_ok());
    let are_contacts_right = request.contacts().all(|contact| contact.is_ok());
    let is_expires_right = request.rows(HeaderName::Expires).count() <= 1;
    !(is_uri_right
        && is_cseq_right
        && request.max_forwards().is_ok()
        && are_vias_right
        && are_contacts_right
        && is_expires_right)
}

#[cfg(test)]
mod tests;
