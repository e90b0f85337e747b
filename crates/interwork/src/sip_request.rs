//! What the shard needs of a SIP request, read once and checked.

use tombolo_presence::Address;
use tombolo_sip::{
    body::{BodyFault, Context},
    event::SubscriptionState,
    message::Message,
    uri::Scheme,
};

use crate::address::{address_of_uri, xmpp_uri_of_sip_uri};

/// Why a request cannot be served, and how it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFault {
    /// The status code.
    pub status: u16,
    /// Why, in the words of the log.
    pub reason: &'static str,
    /// Headers that the status wants.
    pub headers: &'static [(&'static str, &'static str)],
}

impl RequestFault {
    /// A fault without a header of its own.
    pub fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason, headers: &[] }
    }

    /// For a body that cannot be read, in the context of its method.
    pub fn of_body(fault: BodyFault, context: Context) -> Self {
        Self { status: fault.status(), reason: fault.reason(), headers: fault.headers(context) }
    }

    /// The headers as an answer takes them.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        self.headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
    }
}

/// A SUBSCRIBE.
#[derive(Debug, Clone)]
pub struct Subscribe {
    /// Call-ID.
    pub call_id: String,
    /// The tag of From.
    pub from_tag: String,
    /// The URI of From.
    pub from_uri: String,
    /// The tag of To: present inside a dialog.
    pub to_tag: Option<String>,
    /// The URI of To.
    pub to_uri: String,
    /// CSeq number.
    pub cseq: u32,
    /// Expires, in seconds.
    pub expires: Option<u32>,
    /// The `id` of Event.
    pub event_id: Option<String>,
    /// The URI of Contact.
    pub contact: Option<String>,
    /// Record-Route values, in order.
    pub routes: Vec<String>,
    /// Whom the Request-URI means; inside a dialog whom To means.
    pub target: Address,
    /// The Request-URI or To is `sips`.
    pub is_sips: bool,
}

impl Subscribe {
    /// Reads and checks: package `presence` (489), a body type that we make (406), sane addresses.
    pub fn read(message: &Message) -> Result<Self, RequestFault> {
        let event = message.event().ok().flatten();
        if event.as_ref().map(|event| event.package) != Some("presence") {
            return Err(bad_event());
        }
        let event_id = event.and_then(|event| event.id.map(ToOwned::to_owned));
        // Without Accept the package's default type is meant (RFC 3856 §6.5).
        let mut accepts = message.accept().peekable();
        if accepts.peek().is_some() && !accepts.any(takes_pidf) {
            return Err(RequestFault::new(406, "the watcher takes no PIDF"));
        }
        let dialog = Dialog::read(message)?;
        let is_in_dialog = dialog.to_tag.is_some();
        let request_uri =
            message.request_uri().map_err(|_| RequestFault::new(400, "a malformed Request-URI"))?;
        let to = message.to().map_err(|_| RequestFault::new(400, "a malformed To"))?;
        // Inside a dialog the Request-URI is our Contact.
        let meant = if is_in_dialog { to.uri } else { request_uri };
        let addressee = address_of_uri(&meant)
            .map_err(|fault| RequestFault::new(fault.status(), "the presentity has no address"))?;
        Ok(Self {
            event_id,
            expires: message.expires(),
            contact: contact_uri(message),
            routes: message.record_routes().map(ToOwned::to_owned).collect(),
            target: addressee.address,
            is_sips: request_uri.scheme() == Scheme::Sips || to.uri.scheme() == Scheme::Sips,
            call_id: dialog.call_id,
            from_tag: dialog.from_tag,
            from_uri: dialog.from_uri,
            to_tag: dialog.to_tag,
            to_uri: dialog.to_uri,
            cseq: dialog.cseq,
        })
    }
}

/// A NOTIFY in a dialog of ours, without its body.
#[derive(Debug, Clone)]
pub struct NotifyRequest {
    /// Call-ID.
    pub call_id: String,
    /// The notifier's tag.
    pub from_tag: String,
    /// Our tag.
    pub to_tag: String,
    /// CSeq number.
    pub cseq: u32,
    /// Subscription-State.
    pub subscription_state: SubscriptionState,
    /// The URI of Contact.
    pub contact: Option<String>,
    /// Record-Route values, in order: we take the notifier's request, so they are our route set as they stand.
    pub routes: Vec<String>,
}

impl NotifyRequest {
    /// Reads and checks (SIP-E-06): package 489, Subscription-State 400.
    pub fn read(message: &Message) -> Result<Self, RequestFault> {
        let event = message.event().ok().flatten();
        if event.map(|event| event.package) != Some("presence") {
            return Err(bad_event());
        }
        let dialog = Dialog::read(message)?;
        let subscription_state = message.subscription_state().ok().flatten().ok_or_else(|| {
            RequestFault::new(400, "a NOTIFY without a Subscription-State that makes sense")
        })?;
        Ok(Self {
            to_tag: dialog.to_tag.unwrap_or_default(),
            subscription_state,
            contact: contact_uri(message),
            routes: message.record_routes().map(ToOwned::to_owned).collect(),
            call_id: dialog.call_id,
            from_tag: dialog.from_tag,
            cseq: dialog.cseq,
        })
    }
}

/// A PUBLISH, without its body.
#[derive(Debug, Clone)]
pub struct Publish {
    /// Whose state it is.
    pub target: Address,
    /// The event package.
    pub event: Option<String>,
    /// SIP-If-Match values.
    pub if_match: Vec<String>,
    /// Expires, in seconds.
    pub expires: Option<u32>,
}

impl Publish {
    /// Reads what the compositor checks.
    pub fn read(message: &Message) -> Result<Self, RequestFault> {
        let uri = message.request_uri().map_err(|_| RequestFault::new(400, "a malformed Request-URI"))?;
        let addressee = address_of_uri(&uri)
            .map_err(|fault| RequestFault::new(fault.status(), "the presentity has no address"))?;
        Ok(Self {
            target: addressee.address,
            event: message.event().ok().flatten().map(|event| event.package.to_owned()),
            if_match: message.sip_if_match().map(ToOwned::to_owned).collect(),
            expires: message.expires(),
        })
    }
}

/// What every request of a dialog carries.
struct Dialog {
    call_id: String,
    from_tag: String,
    from_uri: String,
    to_tag: Option<String>,
    to_uri: String,
    cseq: u32,
}

impl Dialog {
    fn read(message: &Message) -> Result<Self, RequestFault> {
        let malformed = |reason| move |_| RequestFault::new(400, reason);
        let from = message.from().map_err(malformed("a malformed From"))?;
        let to = message.to().map_err(malformed("a malformed To"))?;
        let (cseq, _) = message.cseq().map_err(malformed("a malformed CSeq"))?;
        let call_id = message.call_id().map_err(malformed("a malformed Call-ID"))?;
        Ok(Self {
            call_id: call_id.to_owned(),
            from_tag: from.tag().unwrap_or_default().to_owned(),
            from_uri: from.uri.as_str().to_owned(),
            to_tag: to.tag().map(ToOwned::to_owned),
            to_uri: to.uri.as_str().to_owned(),
            cseq,
        })
    }
}

/// Expires of a message, in seconds.
pub fn expires(message: &Message) -> Option<u32> {
    message.expires()
}

/// Min-Expires of a response, in seconds.
pub fn min_expires(message: &Message) -> Option<u32> {
    message.min_expires()
}

/// Retry-After of a response, in seconds.
pub fn retry_after(message: &Message) -> Option<u32> {
    message.retry_after()
}

/// Where a response says that its request should have gone (RFC 3261 §21.3), as an `xmpp:` URI: the first Contact of a 3xx
/// that can be one.
pub fn new_address(response: &Message) -> Option<String> {
    response.status().filter(|status| (300..400).contains(status))?;
    response.contacts().flatten().find_map(|contact| xmpp_uri_of_sip_uri(contact.uri.as_str()))
}

fn bad_event() -> RequestFault {
    RequestFault {
        status: 489,
        reason: "the event package is not presence",
        headers: &[("Allow-Events", "presence")],
    }
}

/// The URI of Contact.
pub fn contact_uri(message: &Message) -> Option<String> {
    let contact = message.contacts().next()?.ok()?;
    Some(contact.uri.as_str().to_owned())
}

fn takes_pidf(range: &str) -> bool {
    let range = range.split(';').next().unwrap_or_default().trim();
    ["application/pidf+xml", "application/*", "*/*"].iter().any(|taken| range.eq_ignore_ascii_case(taken))
}
