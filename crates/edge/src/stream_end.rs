//! What the stream machine says, in the words of [`crate::stream_values`]: pairs, proofs, and why a stream ended.

use std::mem;

use tombolo_net::{Target, TlsError};
use tombolo_xmpp::{
    jid::Domain,
    stream::{CloseCause, Method, Pair, S2sStream, StreamEvent, StreamFault},
    stream_error::StreamCondition,
};

use crate::{Absence, DomainPair, ProofMethod, StreamEnd, refused_steps::FailedStep};

/// A pair of the machine as the broker knows it.
pub(crate) fn domain_pair(pair: &Pair) -> Option<DomainPair> {
    let prepared = |domain: &Domain| tombolo_presence::Domain::from_prepared(domain.as_str());
    Some(DomainPair { local: prepared(&pair.local)?, remote: prepared(&pair.remote)? })
}

/// How a pair was proved, as the broker knows it.
pub(crate) fn proof_of(method: Method, is_tls: bool) -> ProofMethod {
    match method {
        Method::External | Method::Certificate => ProofMethod::SaslExternal,
        Method::DialbackInTheClear => ProofMethod::PlainDialback,
        Method::DialbackWithTls => ProofMethod::TlsDialback,
        Method::DialbackByPeer if is_tls => ProofMethod::TlsDialback,
        Method::DialbackByPeer => ProofMethod::PlainDialback,
    }
}

/// Why a connection never became a stream with a proved pair.
#[derive(Debug)]
pub(crate) struct NotOpened {
    pub(crate) end: StreamEnd,
    /// Another host of the same domain would say the same.
    pub(crate) is_final: bool,
    /// Where the peer says to go instead, proved to speak for the domain.
    pub(crate) other_host: Option<Target>,
    /// The step of the negotiation over which a stream of ours failed.
    pub(crate) failed_step: Option<Box<FailedStep>>,
    /// Who the peer of an incoming stream says it is.
    pub(crate) claimed: Option<String>,
}

impl From<StreamEnd> for NotOpened {
    fn from(end: StreamEnd) -> Self {
        // A certificate, STARTTLS or a policy may be wrong on one host and right on the next.
        let is_final = matches!(end, StreamEnd::Refused(_) | StreamEnd::KeyRefused(_));
        Self { end, is_final, other_host: None, failed_step: None, claimed: None }
    }
}

impl From<TlsError> for NotOpened {
    /// A handshake may fail for what is in front of one host: the next one is tried.
    fn from(error: TlsError) -> Self {
        StreamEnd::Unauthenticated(error.to_string()).into()
    }
}

/// Why a stream is over, as the broker and senders are told.
pub(crate) fn end_of(cause: &CloseCause) -> StreamEnd {
    match cause {
        CloseCause::Ordered => StreamEnd::Closed,
        CloseCause::Ended(condition) => StreamEnd::StreamError(condition.as_str().to_owned()),
        CloseCause::Fault(fault) => match fault {
            StreamFault::UnknownPartner { .. } => StreamEnd::Refused(fault.to_string()),
            StreamFault::Certificate { .. }
            | StreamFault::SaslExhausted { .. }
            | StreamFault::NoMethod
            | StreamFault::TlsRefused
            | StreamFault::KeyInvalid { .. }
            | StreamFault::NotAuthenticated => StreamEnd::Unauthenticated(fault.to_string()),
            // In the peer's words.
            StreamFault::SaslRefused(_) => StreamEnd::Unauthenticated(printable(&fault.to_string())),
            other => StreamEnd::StreamError(format!("{} ({other})", other.condition())),
        },
        CloseCause::PeerError { error, .. } => {
            let condition = error.condition.as_str();
            let text = printable(error.text.as_deref().unwrap_or_default());
            match condition {
                "not-authorized" | "policy-violation" => {
                    StreamEnd::Unauthenticated(format!("the partner says {condition} {text}"))
                }
                "host-unknown" | "host-gone" => StreamEnd::NotFound(Absence::NotServed),
                "see-other-host" => {
                    let host = printable(error.other_host.as_deref().unwrap_or("nowhere"));
                    StreamEnd::StreamError(format!("see-other-host: {host}, which is not followed"))
                }
                _ => StreamEnd::StreamError(format!("{condition} {text}")),
            }
        }
        CloseCause::ConnectionLost => StreamEnd::Broken("closed by the peer".to_owned()),
        // What was written last may never have been read.
        CloseCause::CloseTimedOut => StreamEnd::Broken("the peer did not end its side in time".to_owned()),
    }
}

/// What a peer said, who may be anybody, as it may stand in a log and on a terminal: a part of it, without control
/// characters and without what changes the direction of the text around it.
pub(crate) fn printable(text: &str) -> String {
    let is_unsafe = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let mut shown: String = text
        .chars()
        .take(MOST_CHARS)
        .map(|letter| if is_unsafe(letter) { char::REPLACEMENT_CHARACTER } else { letter })
        .collect();
    if text.chars().nth(MOST_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

/// Where a peer sends us (RFC 6120 §4.9.3.19). It counts only from one whose certificate proved the domain: anybody else
/// could send us, and what we have to say, to a place of his own.
pub(crate) fn other_host(cause: &CloseCause) -> Option<Target> {
    let CloseCause::PeerError { error, is_trusted: true } = cause else { return None };
    if error.condition != StreamCondition::SeeOtherHost {
        return None;
    }
    let text = error.other_host.as_deref()?.trim();
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()?),
        _ => (text, 5269),
    };
    let host = host.trim_matches(['[', ']']).to_owned();
    (!host.is_empty() && port != 0).then_some(Target { host, port, is_direct_tls: false })
}

/// What is only worth a line.
pub(crate) fn note(event: &StreamEvent, machine: &S2sStream) {
    match event {
        StreamEvent::SaslFailed(failure) => {
            let partner = machine.remote().map(Domain::as_str);
            let condition = printable(&failure.condition);
            let text = failure.text.as_deref().map(printable);
            match machine {
                S2sStream::Outbound(_) => {
                    tracing::warn!(partner, condition, text, "the partner refused our SASL EXTERNAL");
                }
                S2sStream::Inbound(_) => {
                    tracing::warn!(partner, condition, "the SASL EXTERNAL of a partner was refused");
                }
            }
        }
        StreamEvent::UnsolicitedDialback { from, .. } => {
            tracing::warn!(partner = from.as_str(), "a dialback answer that nobody asked for");
        }
        StreamEvent::KeyChecked { pair, is_valid } => {
            tracing::debug!(
                partner = pair.remote.as_str(),
                is_valid,
                "a dialback key of ours was asked about"
            );
        }
        other => tracing::debug!(event = ?mem::discriminant(other), "stream event"),
    }
}

/// Characters of a peer's text that are kept.
const MOST_CHARS: usize = 200;

#[cfg(test)]
mod tests {
    use tombolo_xmpp::stream_error::StreamError;

    use super::*;

    #[test]
    fn of_what_a_peer_says_in_its_error_a_short_part_without_control_characters_is_kept() {
        let said = |condition, text: &str| {
            let error = StreamError {
                condition,
                text: Some(text.into()),
                other_host: Some(text.into()),
                application: None,
            };
            end_of(&CloseCause::PeerError { error, is_trusted: false }).to_string()
        };
        let long = "é".repeat(10_000);
        for condition in
            [StreamCondition::Reset, StreamCondition::NotAuthorized, StreamCondition::SeeOtherHost]
        {
            let shown = said(condition, "one\u{1b}[2Jtwo\nthree");
            assert!(shown.contains("one\u{fffd}[2Jtwo\u{fffd}three"), "{shown}");
            let shown = said(condition, &long);
            assert_eq!(shown.matches('é').count(), MOST_CHARS, "{condition:?}");
            assert!(shown.contains("é…"));
        }
    }

    #[test]
    fn only_a_proved_peer_may_send_us_elsewhere() {
        let cause = |host: &str, is_trusted| {
            let condition = StreamCondition::SeeOtherHost;
            let other_host = Some(host.into());
            let error = StreamError { condition, text: None, other_host, application: None };
            CloseCause::PeerError { error, is_trusted }
        };
        let sent = |host| other_host(&cause(host, true)).map(|target| (target.host, target.port));
        assert_eq!(sent("im.example:5270"), Some(("im.example".to_owned(), 5270)));
        assert_eq!(sent("im.example"), Some(("im.example".to_owned(), 5269)));
        assert_eq!(sent("[2001:db8::1]:5270"), Some(("2001:db8::1".to_owned(), 5270)));
        assert_eq!(sent("2001:db8::1"), Some(("2001:db8::1".to_owned(), 5269)));
        assert_eq!(
            [sent(""), sent(":5269"), sent("im.example:http"), sent("im.example:0")],
            [None, None, None, None]
        );
        assert!(other_host(&cause("im.example", false)).is_none());
    }
}
