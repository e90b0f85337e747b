//! The defined conditions of stanza errors (RFC 6120 §8.3.3).

/// What the sender may do about an error (RFC 6120 §8.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorType {
    /// Retry after providing credentials.
    Auth,
    /// Do not retry.
    Cancel,
    /// Go on: it was a warning.
    Continue,
    /// Retry after changing what was sent.
    Modify,
    /// Retry after waiting.
    Wait,
}

impl ErrorType {
    /// Its value in XML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Cancel => "cancel",
            Self::Continue => "continue",
            Self::Modify => "modify",
            Self::Wait => "wait",
        }
    }

    /// The type with this value in XML.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Auth, Self::Cancel, Self::Continue, Self::Modify, Self::Wait]
            .into_iter()
            .find(|known| known.as_str() == name)
    }
}

macro_rules! conditions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $kind:ident;)*) => {
        named_conditions! {
            /// A defined condition of a stanza error.
            StanzaCondition:
            $($(#[$doc])* $variant = $name;)*
        }

        impl StanzaCondition {
            /// The type that goes with it.
            pub fn error_type(self) -> ErrorType {
                match self {
                    $(Self::$variant => ErrorType::$kind,)*
                }
            }
        }
    };
}

conditions! {
    /// The stanza cannot be understood.
    BadRequest = "bad-request", Modify;
    /// Something of that name is there already.
    Conflict = "conflict", Cancel;
    /// The feature is not there.
    FeatureNotImplemented = "feature-not-implemented", Cancel;
    /// The sender may not do that.
    Forbidden = "forbidden", Auth;
    /// The receiver can no longer be reached there; may carry a new address.
    Gone = "gone", Cancel;
    /// The server failed.
    InternalServerError = "internal-server-error", Cancel;
    /// Nothing has that address.
    ItemNotFound = "item-not-found", Cancel;
    /// An address does not follow the rules of addresses.
    JidMalformed = "jid-malformed", Modify;
    /// Understood, but against the receiver's rules.
    NotAcceptable = "not-acceptable", Modify;
    /// Nobody may do that.
    NotAllowed = "not-allowed", Cancel;
    /// The sender must authenticate first.
    NotAuthorized = "not-authorized", Auth;
    /// Against a policy of the server.
    PolicyViolation = "policy-violation", Modify;
    /// The receiver is not there at present.
    RecipientUnavailable = "recipient-unavailable", Wait;
    /// The receiver is at another address for now; carries it.
    Redirect = "redirect", Modify;
    /// The sender must register first.
    RegistrationRequired = "registration-required", Auth;
    /// The other server does not exist or cannot be resolved.
    RemoteServerNotFound = "remote-server-not-found", Cancel;
    /// The other server could not be reached in time.
    RemoteServerTimeout = "remote-server-timeout", Wait;
    /// The server is short of something.
    ResourceConstraint = "resource-constraint", Wait;
    /// The server does not provide that.
    ServiceUnavailable = "service-unavailable", Cancel;
    /// The sender must have a subscription first.
    SubscriptionRequired = "subscription-required", Auth;
    /// None of the others.
    UndefinedCondition = "undefined-condition", Cancel;
    /// Understood, but not at this time.
    UnexpectedRequest = "unexpected-request", Wait;
}
