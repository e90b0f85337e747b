//! The state of one dialog (RFC 3261 §12), as much of it as a subscription, a NOTIFY or a session needs.
//!
//! What the message says that makes the dialog goes in as plain fields; what to write into later requests comes out:
//! Request-URI, Route, tags, CSeq. Who it belongs to, and where bytes are sent, is the caller's.

use std::{borrow::Cow, sync::Arc};

use crate::{
    event::{Order, RemoteSequence},
    headers::{NameAddr, ValueFault},
    lex,
    uri::{Scheme, UriRef},
};

mod message;
mod routing;

pub use self::routing::{Received, take_own_routes};

/// Most routes in a dialog.
pub const MOST_ROUTES: usize = 32;

/// Why a message cannot make a dialog or change its target; it is answered with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DialogFault {
    /// Another header field is missing or malformed.
    #[error(transparent)]
    BadHeader(#[from] ValueFault),
    /// Contact is missing, or not one SIP or SIPS URI.
    #[error("no SIP URI in the Contact of a message that makes or refreshes a dialog")]
    BadContact,
    /// A Record-Route value is not a SIP or SIPS URI in angle brackets.
    #[error("a Record-Route that is no SIP URI in brackets")]
    BadRoute,
    /// Over [`MOST_ROUTES`].
    #[error("{number} values of Record-Route")]
    TooManyRoutes {
        /// How many came.
        number: usize,
    },
    /// A dialog over SIPS is to go on over SIP.
    #[error("a SIP Contact in a dialog over SIPS")]
    NotSecure,
}

/// What the message says that makes a dialog.
#[derive(Debug, Clone, Copy)]
pub struct Forming<'a> {
    /// Call-ID.
    pub call_id: &'a str,
    /// URI of From, without brackets.
    pub from_uri: &'a str,
    /// Tag of From; empty where there is none.
    pub from_tag: &'a str,
    /// URI of To, without brackets.
    pub to_uri: &'a str,
    /// Tag of To: ours where we answer a request, else empty where there is none.
    pub to_tag: &'a str,
    /// URI of Contact, without brackets.
    pub contact: &'a str,
    /// Values of Record-Route from top to bottom, one by one, as written.
    pub record_routes: &'a [&'a str],
    /// Number of CSeq.
    pub cseq: u32,
}

/// The routes of a dialog, in the order in which requests take them. Equal ones can be shared.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct RouteSet(Arc<[Box<str>]>);

impl RouteSet {
    /// Takes Route values as written (`<sip:host;lr>;parameter=value`), the first hop first.
    pub fn new<'a>(routes: impl IntoIterator<Item = &'a str>) -> Result<Self, DialogFault> {
        let mut checked = Vec::new();
        for route in routes {
            route_uri(route).ok_or(DialogFault::BadRoute)?;
            checked.push(lex::trim(route).into());
        }
        if checked.len() > MOST_ROUTES {
            return Err(DialogFault::TooManyRoutes { number: checked.len() });
        }
        Ok(Self(checked.into()))
    }

    /// The values as written.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
        self.0.iter().map(|route| &**route)
    }

    /// Whether requests go straight to the target.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How a request in a dialog is addressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressing<'a> {
    /// The Request-URI.
    pub request_uri: Cow<'a, str>,
    /// Values of Route, in order.
    pub routes: Vec<Cow<'a, str>>,
    /// URI of where the request is sent to (RFC 3261 §8.1.2).
    pub next_hop: Cow<'a, str>,
}

/// The state of one dialog. All of it can be stored, and made again by filling in the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialogState {
    /// Call-ID.
    pub call_id: Box<str>,
    /// Our tag.
    pub local_tag: Box<str>,
    /// The peer's tag; empty for a peer that has none.
    pub remote_tag: Box<str>,
    /// Our URI, for From of what we send.
    pub local_uri: Box<str>,
    /// The peer's URI, for To of what we send.
    pub remote_uri: Box<str>,
    /// Fixed when the dialog is made.
    pub routes: RouteSet,
    /// The peer's Contact; a SIP or SIPS URI.
    pub remote_target: Box<str>,
    /// The last CSeq that we used; 0 for none.
    pub local_cseq: u32,
    /// The last CSeq that the peer used. Where an [`event`](crate::event) machine checks the peer's requests, it has
    /// its own, and this one is not used.
    pub remote_cseq: RemoteSequence,
}

impl DialogState {
    /// The dialog of our request, by a response to it (RFC 3261 §12.1.2): routes in reverse.
    pub fn as_client(response: &Forming<'_>) -> Result<Self, DialogFault> {
        Ok(Self {
            call_id: response.call_id.into(),
            local_tag: response.from_tag.into(),
            remote_tag: response.to_tag.into(),
            local_uri: response.from_uri.into(),
            remote_uri: response.to_uri.into(),
            routes: RouteSet::new(response.record_routes.iter().rev().copied())?,
            remote_target: target(response.contact)?.into(),
            local_cseq: response.cseq,
            remote_cseq: RemoteSequence::default(),
        })
    }

    /// The dialog of the peer's request, to which our answer adds `to_tag` (RFC 3261 §12.1.1): routes in order.
    pub fn as_server(request: &Forming<'_>) -> Result<Self, DialogFault> {
        Ok(Self {
            call_id: request.call_id.into(),
            local_tag: request.to_tag.into(),
            remote_tag: request.from_tag.into(),
            local_uri: request.to_uri.into(),
            remote_uri: request.from_uri.into(),
            routes: RouteSet::new(request.record_routes.iter().copied())?,
            remote_target: target(request.contact)?.into(),
            local_cseq: 0,
            remote_cseq: RemoteSequence::after(Some(request.cseq)),
        })
    }

    /// The dialog of our SUBSCRIBE, which the NOTIFY makes and not the 2xx (RFC 6665 §4.4.1): the peer's tag, routes
    /// and target are those of the NOTIFY. `subscribe_cseq` is the CSeq of our last SUBSCRIBE.
    pub fn as_subscriber(notify: &Forming<'_>, subscribe_cseq: u32) -> Result<Self, DialogFault> {
        Ok(Self { local_cseq: subscribe_cseq, ..Self::as_server(notify)? })
    }

    /// Whether a request from the peer belongs to this dialog: its Call-ID, the tag of its To and that of its From
    /// (empty where there is none).
    pub fn matches(&self, call_id: &str, to_tag: &str, from_tag: &str) -> bool {
        *self.call_id == *call_id && *self.local_tag == *to_tag && *self.remote_tag == *from_tag
    }

    /// Takes the Contact of a SUBSCRIBE or NOTIFY in the dialog, or of a 2xx to one (RFC 3261 §12.2). True when it
    /// changed. The routes stay.
    pub fn refresh_target(&mut self, contact: &str) -> Result<bool, DialogFault> {
        let new = target(contact)?;
        if is_secure(&self.remote_target) && !is_secure(new) {
            return Err(DialogFault::NotSecure);
        }
        let has_changed = *self.remote_target != *new;
        if has_changed {
            self.remote_target = new.into();
        }
        Ok(has_changed)
    }

    /// The CSeq for our next request: one more than the last. `None` at the end of the numbers (2³¹ - 1).
    pub fn next_cseq(&mut self) -> Option<u32> {
        let next = self.local_cseq.checked_add(1).filter(|next| *next < 1 << 31)?;
        self.local_cseq = next;
        Some(next)
    }

    /// Compares the CSeq of a request from the peer with its last: [`Order::Old`] is answered with 500.
    pub fn take_remote_cseq(&mut self, cseq: u32) -> Order {
        self.remote_cseq.take(cseq)
    }

    /// Request-URI, Route and next hop of a request in the dialog (RFC 3261 §12.2.1.1).
    pub fn addressing(&self) -> Addressing<'_> {
        self.addressing_to(&self.remote_target)
    }

    /// The same for another target, as a 3xx in the dialog names it (RFC 3261 §12.2.1.2).
    pub fn addressing_to<'a>(&'a self, target: &'a str) -> Addressing<'a> {
        let mut routes: Vec<_> = self.routes.iter().map(Cow::Borrowed).collect();
        let Some(first) = self.routes.iter().next().and_then(route_uri) else {
            return Addressing { request_uri: target.into(), routes, next_hop: target.into() };
        };
        if first.params().has("lr") {
            return Addressing { request_uri: target.into(), routes, next_hop: first.as_str().into() };
        }
        // A strict router wants to be the Request-URI itself; the target goes to the end of the line.
        routes.remove(0);
        routes.push(Cow::Owned(format!("<{target}>")));
        let request_uri = routing::as_request_uri(&first);
        Addressing { next_hop: request_uri.clone(), request_uri, routes }
    }
}

/// Checks the URI of a Contact.
fn target(contact: &str) -> Result<&str, DialogFault> {
    let uri = UriRef::parse(contact).map_err(|_| DialogFault::BadContact)?;
    if matches!(uri.scheme(), Scheme::Sip | Scheme::Sips) {
        Ok(uri.as_str())
    } else {
        Err(DialogFault::BadContact)
    }
}

fn is_secure(uri: &str) -> bool {
    UriRef::parse(uri).is_ok_and(|uri| uri.scheme() == Scheme::Sips)
}

/// The URI of a Route or Record-Route value: `"name" <uri>;parameters`.
fn route_uri(route: &str) -> Option<UriRef<'_>> {
    let uri = NameAddr::parse(route).ok()?.uri;
    // A URI without brackets would lose its parameters to the header field.
    let has_brackets = route.contains('<');
    (has_brackets && matches!(uri.scheme(), Scheme::Sip | Scheme::Sips)).then_some(uri)
}

#[cfg(test)]
mod tests;
