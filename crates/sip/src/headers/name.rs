//! Names of header fields (RFC 3261 §20, §7.3.3, and the IANA registry): known ones as a small number.
//!
//! Names are compared without case; a compact form is the same name as the long one.

use std::fmt;

macro_rules! header_names {
    ($($(#[$doc:meta])* $variant:ident = $long:literal $(/ $compact:literal)?,)*) => {
        /// The name of a header field.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum HeaderName {
            $(#[doc = concat!("`", $long, "`", $(" or `", $compact, "`",)? ".")] $(#[$doc])* $variant,)*
            /// Any name that is not in this list; the message keeps its text.
            Other,
        }

        const NAMES: &[(&str, HeaderName)] = &[
            $(($long, HeaderName::$variant),)*
            $($(($compact, HeaderName::$variant),)?)*
        ];

        impl HeaderName {
            /// The long form as RFCs write it; an empty text for [`HeaderName::Other`].
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $long,)*
                    Self::Other => "",
                }
            }
        }
    };
}

header_names! {
    Accept = "Accept",
    AcceptContact = "Accept-Contact" / "a",
    AcceptEncoding = "Accept-Encoding",
    AcceptLanguage = "Accept-Language",
    AlertInfo = "Alert-Info",
    Allow = "Allow",
    AllowEvents = "Allow-Events" / "u",
    AuthenticationInfo = "Authentication-Info",
    /// Of RFC 3834, which SIP user agents use too: a program sent the message by itself.
    AutoSubmitted = "Auto-Submitted",
    Authorization = "Authorization",
    CallId = "Call-ID" / "i",
    CallInfo = "Call-Info",
    Contact = "Contact" / "m",
    ContentDisposition = "Content-Disposition",
    ContentEncoding = "Content-Encoding" / "e",
    ContentLanguage = "Content-Language",
    ContentLength = "Content-Length" / "l",
    ContentTransferEncoding = "Content-Transfer-Encoding",
    ContentType = "Content-Type" / "c",
    CSeq = "CSeq",
    Date = "Date",
    ErrorInfo = "Error-Info",
    Event = "Event" / "o",
    Expires = "Expires",
    FlowTimer = "Flow-Timer",
    From = "From" / "f",
    HistoryInfo = "History-Info",
    Identity = "Identity" / "y",
    InReplyTo = "In-Reply-To",
    MaxBreadth = "Max-Breadth",
    MaxForwards = "Max-Forwards",
    MimeVersion = "MIME-Version",
    MinExpires = "Min-Expires",
    MinSe = "Min-SE",
    Organization = "Organization",
    PAssertedIdentity = "P-Asserted-Identity",
    PPreferredIdentity = "P-Preferred-Identity",
    Path = "Path",
    Priority = "Priority",
    Privacy = "Privacy",
    ProxyAuthenticate = "Proxy-Authenticate",
    ProxyAuthorization = "Proxy-Authorization",
    ProxyRequire = "Proxy-Require",
    RAck = "RAck",
    Reason = "Reason",
    RecordRoute = "Record-Route",
    ReferTo = "Refer-To" / "r",
    ReferredBy = "Referred-By" / "b",
    RejectContact = "Reject-Contact" / "j",
    Replaces = "Replaces",
    ReplyTo = "Reply-To",
    RequestDisposition = "Request-Disposition" / "d",
    Require = "Require",
    RetryAfter = "Retry-After",
    Route = "Route",
    RSeq = "RSeq",
    Server = "Server",
    ServiceRoute = "Service-Route",
    SessionExpires = "Session-Expires" / "x",
    SipEtag = "SIP-ETag",
    SipIfMatch = "SIP-If-Match",
    Subject = "Subject" / "s",
    SubscriptionState = "Subscription-State",
    Supported = "Supported" / "k",
    SuppressIfMatch = "Suppress-If-Match",
    Timestamp = "Timestamp",
    To = "To" / "t",
    Unsupported = "Unsupported",
    UserAgent = "User-Agent",
    Via = "Via" / "v",
    Warning = "Warning",
    WwwAuthenticate = "WWW-Authenticate",
}

/// Open hash table over [`NAMES`]: a slot holds an index, or [`EMPTY`].
static SLOTS: [u8; 256] = slots();
const EMPTY: u8 = u8::MAX;

const fn slots() -> [u8; 256] {
    let mut slots = [EMPTY; 256];
    let mut index = 0;
    while index < NAMES.len() {
        let mut slot = slot_of(NAMES[index].0.as_bytes());
        while slots[slot] != EMPTY {
            slot = (slot + 1) % 256;
        }
        slots[slot] = index as u8;
        index += 1;
    }
    slots
}

/// First choice of slot: length, first, middle and last octet without case. `name` is not empty.
const fn slot_of(name: &[u8]) -> usize {
    let first = (name[0] | 0x20) as usize;
    let middle = (name[name.len() / 2] | 0x20) as usize;
    let last = (name[name.len() - 1] | 0x20) as usize;
    (name.len() * 29 + first * 5 + middle * 3 + last * 11) % 256
}

impl HeaderName {
    /// Finds the name that `text` is a form of, without case; [`HeaderName::Other`] when it is unknown or empty.
    pub fn find(text: &[u8]) -> Self {
        if text.is_empty() {
            return Self::Other;
        }
        let mut slot = slot_of(text);
        while SLOTS[slot] != EMPTY {
            let (name, header) = NAMES[usize::from(SLOTS[slot])];
            // Nearly all are written as the RFCs write them.
            if name.as_bytes() == text || name.as_bytes().eq_ignore_ascii_case(text) {
                return header;
            }
            slot = (slot + 1) % 256;
        }
        Self::Other
    }

    /// Whether nobody acts on the field: it only tells something to a person or a program at the other end. A malformed
    /// one is ignored (RFC 3261 §7.3.1).
    pub(crate) fn is_informational(self) -> bool {
        matches!(
            self,
            Self::AlertInfo
                | Self::CallInfo
                | Self::Date
                | Self::ErrorInfo
                | Self::InReplyTo
                | Self::Organization
                | Self::Priority
                | Self::Reason
                | Self::ReplyTo
                | Self::Server
                | Self::Subject
                | Self::Timestamp
                | Self::UserAgent
                | Self::Warning
                | Self::Other
        )
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Other { "(other)" } else { self.as_str() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sip_t_12_names_are_found_in_any_case_and_compact_form() {
        for (name, header) in NAMES {
            assert_eq!(HeaderName::find(name.as_bytes()), *header, "{name}");
            assert_eq!(HeaderName::find(name.to_ascii_uppercase().as_bytes()), *header, "{name}");
            assert_eq!(HeaderName::find(name.to_ascii_lowercase().as_bytes()), *header, "{name}");
        }
        for name in ["", "X-Other", "Via ", "vi", "Fromm"] {
            assert_eq!(HeaderName::find(name.as_bytes()), HeaderName::Other, "{name:?}");
        }
    }
}
