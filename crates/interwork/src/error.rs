//! Errors across the border: XMPP stanza error conditions to SIP status codes and back (RFC 7247 §7).
//!
//! Conditions are their element names. Where the tables name a code that SIP forbids for what we send, the decision
//! D-25 and the rules STOX-E-02 to -04 hold: never 408 to a non-INVITE, never 401 or 407 without a challenge, never
//! 503 for the failure of one user.

use std::borrow::Cow;

use tombolo_sip::build::reason;

/// Whether the failing XMPP address had a resource: some conditions mean more when it had none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `user@domain`
    Bare,
    /// `user@domain/resource`
    Full,
}

/// The SIP status code for an XMPP stanza error `condition` (RFC 7247 §7.1, table 1).
///
/// `has_new_address` says that `gone` or `redirect` carried an address that can be put into a Contact. An unknown
/// condition is taken as `undefined-condition`.
pub fn status_of(condition: &str, target: Target, has_new_address: bool) -> u16 {
    let by_target = |full, bare| if target == Target::Full { full } else { bare };
    match condition {
        "conflict" | "subscription-required" | "bad-request" | "jid-malformed" | "undefined-condition" => 400,
        "feature-not-implemented" => by_target(405, 501),
        "forbidden" => by_target(403, 603),
        "gone" if has_new_address => 301,
        "gone" => 410,
        "internal-server-error" | "resource-constraint" => 500,
        "item-not-found" => by_target(404, 604),
        "not-acceptable" => by_target(406, 606),
        // D-25: 401 and 407 would need a challenge that nobody can answer.
        "not-allowed" | "not-authorized" | "policy-violation" | "registration-required" => 403,
        "recipient-unavailable" => by_target(480, 600),
        "redirect" if has_new_address => 302,
        "redirect" => 480,
        "remote-server-not-found" => 404,
        // D-05: the table's 408 is forbidden for a non-INVITE (RFC 4320 §4.2).
        "remote-server-timeout" => 480,
        // STOX-E-02: 503 would take the whole server out of use.
        "service-unavailable" => 403,
        "unexpected-request" => 491,
        _ => 400,
    }
}

/// The XMPP stanza error condition for a SIP final response of 300 or more (RFC 7247 §7.2, table 2).
///
/// `None` for a status below 300: provisional and successful responses never become errors (STOX-A-25).
pub fn condition_of(status: u16) -> Option<&'static str> {
    Some(match status {
        0..300 => return None,
        301 | 410 => "gone",
        380 => "not-acceptable",
        300..400 => "redirect",
        401 => "not-authorized",
        403 => "forbidden",
        404 | 481 | 484 | 485 | 604 => "item-not-found",
        405 | 420 | 439 | 501 => "feature-not-implemented",
        406 | 415 | 416 | 421 | 482 | 483 | 488 | 505 | 606 => "not-acceptable",
        407 => "registration-required",
        408 | 504 => "remote-server-timeout",
        413 | 414 | 440 | 489 | 513 => "policy-violation",
        423 => "resource-constraint",
        430 | 480 | 486 | 487 => "recipient-unavailable",
        491 => "unexpected-request",
        502 => "remote-server-not-found",
        400..500 => "bad-request",
        500..600 => "internal-server-error",
        _ => "recipient-unavailable",
    })
}

/// What ended a request of ours that got no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoResponse {
    /// The transaction timed out (timer F or B).
    Timeout,
    /// No connection, or it broke before the request was written.
    Transport,
    /// It is larger than any way to the peer can take.
    TooLarge,
}

impl NoResponse {
    /// 408, 503 or 513: the status that it counts as (STOX-E-09, RFC 3261 §8.1.3.1). Never sent to anybody.
    pub fn status(self) -> u16 {
        match self {
            Self::Timeout => 408,
            Self::Transport => 503,
            Self::TooLarge => 513,
        }
    }
}

/// Why a request of ours toward SIP failed, as its sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The SIP side gave this final response, 300 or more.
    Response(u16),
    /// The user's front end gave no response.
    FrontEnd(NoResponse),
    /// The user's phones gave no response.
    Phones(NoResponse),
    /// The user has no registered phone.
    NoPhone,
    /// The fault is ours, and has nothing to do with the request.
    Ours,
}

impl Failure {
    /// The stanza error condition for an XMPP sender.
    ///
    /// A front end that does not answer is a server that "was resolved but communications could not be established"
    /// (RFC 6120 §8.3.3.16), and not one that answered 503: RFC 7247 §7.2 maps responses.
    pub fn condition(self) -> &'static str {
        match self {
            Self::Response(status) => condition_of(status).unwrap_or("undefined-condition"),
            Self::FrontEnd(NoResponse::TooLarge) | Self::Phones(NoResponse::TooLarge) => "policy-violation",
            Self::FrontEnd(_) => "remote-server-timeout",
            Self::Phones(_) => "recipient-unavailable",
            // XP-34: as if there were no such user.
            Self::NoPhone => "service-unavailable",
            Self::Ours => "internal-server-error",
        }
    }

    /// The status for a SIP sender: never 408 or 503, which would say something about us (RFC 4320 §4.2, STOX-E-02).
    pub fn status(self) -> u16 {
        match self {
            Self::Response(408 | 503) => 480,
            Self::Response(status) => status,
            Self::FrontEnd(NoResponse::TooLarge) | Self::Phones(NoResponse::TooLarge) => 513,
            Self::FrontEnd(_) | Self::Phones(_) | Self::NoPhone => 480,
            Self::Ours => 500,
        }
    }

    /// Why, in the words of the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Response(_) => "the SIP side refused the request",
            Self::FrontEnd(NoResponse::Timeout) => "the user's server did not answer in time",
            Self::FrontEnd(NoResponse::Transport) => "the user's server cannot be reached",
            Self::Phones(NoResponse::Timeout) => "no phone of the user answered in time",
            Self::Phones(NoResponse::Transport) => "no phone of the user can be reached",
            Self::FrontEnd(NoResponse::TooLarge) | Self::Phones(NoResponse::TooLarge) => {
                "the request is too large for UDP, and no stream leads to the user"
            }
            Self::NoPhone => "the user cannot be reached",
            Self::Ours => "a fault of the gateway's own",
        }
    }

    /// What an XMPP sender is told of its `what`, "message" or "subscription".
    pub fn text(self, what: &str) -> Cow<'static, str> {
        match self {
            Self::Response(status) => {
                format!("the SIP side refused the {what}: {status} {}", reason(status)).into()
            }
            _ => self.reason().into(),
        }
    }
}

/// Why a message toward XMPP is not known to have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undelivered {
    /// It did not leave: the stanza error condition that stands for the cause.
    NotSent(&'static str),
    /// It left, or may have, and its stream broke before the partner confirmed it (D-24).
    Uncertain,
}

impl Undelivered {
    /// The stanza error condition that stands for it.
    pub fn condition(self) -> &'static str {
        match self {
            Self::NotSent(condition) => condition,
            Self::Uncertain => "remote-server-timeout",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stox_e_01_each_condition_has_its_status() {
        let rows = [
            ("bad-request", 400, 400),
            ("conflict", 400, 400),
            ("feature-not-implemented", 405, 501),
            ("forbidden", 403, 603),
            ("gone", 410, 410),
            ("internal-server-error", 500, 500),
            ("item-not-found", 404, 604),
            ("jid-malformed", 400, 400),
            ("not-acceptable", 406, 606),
            ("not-allowed", 403, 403),
            ("not-authorized", 403, 403),
            ("policy-violation", 403, 403),
            ("recipient-unavailable", 480, 600),
            ("redirect", 480, 480),
            ("registration-required", 403, 403),
            ("remote-server-not-found", 404, 404),
            ("remote-server-timeout", 480, 480),
            ("resource-constraint", 500, 500),
            ("service-unavailable", 403, 403),
            ("subscription-required", 400, 400),
            ("undefined-condition", 400, 400),
            ("unexpected-request", 491, 491),
            ("of-another-namespace", 400, 400),
        ];
        for (condition, full, bare) in rows {
            assert_eq!(status_of(condition, Target::Full, false), full, "{condition} of a full JID");
            assert_eq!(status_of(condition, Target::Bare, false), bare, "{condition} of a bare JID");
        }
        assert_eq!(status_of("gone", Target::Bare, true), 301);
        assert_eq!(status_of("redirect", Target::Full, true), 302);
    }

    #[test]
    fn stox_e_02_03_04_no_condition_becomes_503_408_401_or_407() {
        for condition in
            ["service-unavailable", "remote-server-timeout", "not-authorized", "registration-required"]
        {
            for target in [Target::Bare, Target::Full] {
                let status = status_of(condition, target, false);
                assert!(![503, 408, 401, 407].contains(&status), "{condition} became {status}");
            }
        }
    }

    #[test]
    fn stox_e_06_each_status_has_its_condition() {
        let rows: [(&str, &[u16]); 15] = [
            ("redirect", &[300, 302, 305, 399]),
            ("gone", &[301, 410]),
            ("not-acceptable", &[380, 406, 415, 416, 421, 482, 483, 488, 505, 606]),
            ("bad-request", &[400, 402, 493, 499]),
            ("not-authorized", &[401]),
            ("forbidden", &[403]),
            ("item-not-found", &[404, 481, 484, 485, 604]),
            ("feature-not-implemented", &[405, 420, 439, 501]),
            ("registration-required", &[407]),
            ("remote-server-timeout", &[408, 504]),
            ("policy-violation", &[413, 414, 440, 489, 513]),
            ("resource-constraint", &[423]),
            ("recipient-unavailable", &[430, 480, 486, 487, 600, 603, 699]),
            ("internal-server-error", &[500, 503, 599]),
            ("remote-server-not-found", &[502]),
        ];
        for (condition, statuses) in rows {
            for status in statuses {
                assert_eq!(condition_of(*status), Some(condition), "{status}");
            }
        }
        assert_eq!(condition_of(491), Some("unexpected-request"));
        assert_eq!(condition_of(501), Some("feature-not-implemented"));
    }

    #[test]
    fn stox_e_09_a_server_that_does_not_answer_is_told_apart_from_one_that_refuses() {
        let rows = [
            (Failure::FrontEnd(NoResponse::Transport), "remote-server-timeout", 480),
            (Failure::FrontEnd(NoResponse::Timeout), "remote-server-timeout", 480),
            (Failure::FrontEnd(NoResponse::TooLarge), "policy-violation", 513),
            (Failure::Phones(NoResponse::Transport), "recipient-unavailable", 480),
            (Failure::Phones(NoResponse::Timeout), "recipient-unavailable", 480),
            (Failure::Phones(NoResponse::TooLarge), "policy-violation", 513),
            (Failure::NoPhone, "service-unavailable", 480),
            (Failure::Ours, "internal-server-error", 500),
            (Failure::Response(503), "internal-server-error", 480),
            (Failure::Response(408), "remote-server-timeout", 480),
            (Failure::Response(502), "remote-server-not-found", 502),
            (Failure::Response(403), "forbidden", 403),
        ];
        for (failure, condition, status) in rows {
            assert_eq!((failure.condition(), failure.status()), (condition, status), "{failure:?}");
            let is_refusal = matches!(failure, Failure::Response(_));
            assert_eq!(failure.text("message").contains("refused the message"), is_refusal, "{failure:?}");
        }
        let text = Failure::Response(503).text("subscription");
        assert_eq!(text, "the SIP side refused the subscription: 503 Service Unavailable");
    }

    #[test]
    fn stox_a_25_provisional_and_successful_responses_are_no_errors() {
        for status in [100, 180, 183, 200, 202, 204] {
            assert_eq!(condition_of(status), None, "{status}");
        }
    }
}
