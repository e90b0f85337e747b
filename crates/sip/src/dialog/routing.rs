//! Routes of requests that arrive: taking off our own, and undoing what strict routers do (RFC 3261 §16.4).

use std::borrow::Cow;

use super::route_uri;
use crate::uri::UriRef;

/// A request's addressing as its core should see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received<'a, 'b> {
    /// The Request-URI.
    pub request_uri: &'a str,
    /// The Route values that are not ours, in order.
    pub routes: &'b [&'a str],
}

/// Undoes the work of a strict router (the Request-URI is ours as a route, the true one stands last in Route) and
/// takes our own values off the top of Route. `is_our_route` tells whether a URI is one that we give out as a route.
pub fn take_own_routes<'a, 'b>(
    request_uri: &'a str,
    routes: &'b [&'a str],
    is_our_route: impl Fn(&UriRef<'_>) -> bool,
) -> Received<'a, 'b> {
    let mut received = Received { request_uri, routes };
    let is_ours = |uri: &str| UriRef::parse(uri).is_ok_and(|uri| is_our_route(&uri));
    if let Some((last, others)) = routes.split_last()
        && is_ours(request_uri)
        && let Some(uri) = route_uri(last)
    {
        received = Received { request_uri: uri.as_str(), routes: others };
    }
    while let Some((first, others)) = received.routes.split_first()
        && route_uri(first).is_some_and(|uri| is_our_route(&uri))
    {
        received.routes = others;
    }
    received
}

/// A route's URI as a Request-URI: without header part and `method` parameter (RFC 3261 §19.1.1, Table 1).
pub(super) fn as_request_uri<'a>(uri: &UriRef<'a>) -> Cow<'a, str> {
    let whole = uri.as_str();
    let has_method = uri.params().has("method");
    if uri.headers().is_empty() && !has_method {
        return Cow::Borrowed(whole);
    }
    let without_headers = whole.len() - uri.headers().len() - usize::from(!uri.headers().is_empty());
    let params = uri.params().as_str();
    let mut plain = whole[..without_headers - params.len()].to_owned();
    for (name, value) in uri.params().iter().filter(|(name, _)| !name.eq_ignore_ascii_case("method")) {
        plain.push(';');
        plain.push_str(name);
        if let Some(value) = value {
            plain.push('=');
            plain.push_str(value);
        }
    }
    Cow::Owned(plain)
}
