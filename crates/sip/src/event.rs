//! Event notification (RFC 6665, RFC 3903): the machines of one subscription of ours and of one presentity's publications.
//!
//! What a request or response says goes in as plain numbers, what must be said or done comes out as a verdict. The
//! machines never see a message, an address or a body; the caller builds requests, and paces and stores them.

use std::fmt;

pub mod publication;
pub mod subscriber;

/// Seconds for which a subscription or publication to `presence` is asked where no Expires is given (RFC 3856 §6.4).
pub const DEFAULT_EXPIRES: u32 = 3600;

/// The word of a Subscription-State header field (RFC 6665 §4.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Substate {
    /// Accepted and, in general, authorized.
    Active,
    /// Received; nobody has decided yet.
    Pending,
    /// Over.
    Terminated,
}

impl Substate {
    /// Reads the word; `None` for one that RFC 6665 does not define. Case does not count.
    pub fn from_token(token: &str) -> Option<Self> {
        let known = [Self::Active, Self::Pending, Self::Terminated];
        known.into_iter().find(|state| state.token().eq_ignore_ascii_case(token))
    }

    /// The word as it is written.
    pub fn token(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pending => "pending",
            Self::Terminated => "terminated",
        }
    }
}

/// Why a subscription was terminated (RFC 6665 §4.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Subscribe again at once: the notifier moves.
    Deactivated,
    /// Try again later.
    Probation,
    /// Authorization was refused or withdrawn.
    Rejected,
    /// It was not refreshed, or was a poll.
    Timeout,
    /// Nobody decided in time.
    GiveUp,
    /// The resource is no more.
    NoResource,
    /// The state will not change.
    Invariant,
}

impl Reason {
    /// Reads the word; `None` for one that RFC 6665 does not define. Case does not count.
    pub fn from_token(token: &str) -> Option<Self> {
        let known = [
            Self::Deactivated,
            Self::Probation,
            Self::Rejected,
            Self::Timeout,
            Self::GiveUp,
            Self::NoResource,
            Self::Invariant,
        ];
        known.into_iter().find(|reason| reason.token().eq_ignore_ascii_case(token))
    }

    /// The word as it is written.
    pub fn token(self) -> &'static str {
        match self {
            Self::Deactivated => "deactivated",
            Self::Probation => "probation",
            Self::Rejected => "rejected",
            Self::Timeout => "timeout",
            Self::GiveUp => "giveup",
            Self::NoResource => "noresource",
            Self::Invariant => "invariant",
        }
    }
}

/// What a Subscription-State header field says; `Display` writes its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionState {
    /// The word.
    pub state: Substate,
    /// Parameter `reason`; `None` also for a word that RFC 6665 does not define.
    pub reason: Option<Reason>,
    /// Parameter `expires`, seconds. Means nothing beside [`Substate::Terminated`].
    pub expires: Option<u32>,
    /// Parameter `retry-after`, seconds.
    pub retry_after: Option<u32>,
}

impl fmt::Display for SubscriptionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.state.token())?;
        if self.state == Substate::Terminated {
            if let Some(reason) = self.reason {
                write!(f, ";reason={}", reason.token())?;
            }
            if let Some(seconds) = self.retry_after {
                write!(f, ";retry-after={seconds}")?;
            }
        } else if let Some(seconds) = self.expires {
            write!(f, ";expires={seconds}")?;
        }
        Ok(())
    }
}

/// Whether a failure of a NOTIFY or of a refreshing SUBSCRIBE ends the subscription at once (RFC 6665 §4.1.2.2,
/// §4.2.2). Other failures leave it valid until it expires.
pub fn ends_subscription(status: u16) -> bool {
    matches!(status, 404 | 405 | 410 | 416 | 480..=485 | 489 | 501 | 604)
}

/// How a request's CSeq relates to those that came before it in the same direction of a dialog (RFC 3261 §12.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Higher than all before, or the first. A gap is no fault.
    New,
    /// The same as the last: a copy that no transaction absorbed.
    Repeated,
    /// Lower than the last: to be answered with 500.
    Old,
}

/// The highest CSeq that came in one direction of a dialog, in four octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RemoteSequence(Option<std::num::NonZeroU32>);

impl RemoteSequence {
    /// Continues after `last`, as after a restart.
    pub fn after(last: Option<u32>) -> Self {
        // Kept as one more than the number, so that 0, which is legal, has a place beside "none yet".
        Self(last.and_then(|cseq| std::num::NonZeroU32::new(cseq.saturating_add(1))))
    }

    /// The highest CSeq so far.
    pub fn last(self) -> Option<u32> {
        self.0.map(|next| next.get() - 1)
    }

    /// Compares `cseq` with the last and remembers it when it is new.
    pub fn take(&mut self, cseq: u32) -> Order {
        match self.last() {
            Some(last) if cseq < last => Order::Old,
            Some(last) if cseq == last => Order::Repeated,
            _ => {
                *self = Self::after(Some(cseq));
                Order::New
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscription_state_is_written_with_the_parameters_that_mean_something_for_its_word() {
        let all = |state| SubscriptionState {
            state,
            reason: Some(Reason::Probation),
            expires: Some(599),
            retry_after: Some(30),
        };
        assert_eq!(all(Substate::Active).to_string(), "active;expires=599");
        assert_eq!(all(Substate::Pending).to_string(), "pending;expires=599");
        assert_eq!(all(Substate::Terminated).to_string(), "terminated;reason=probation;retry-after=30");
    }

    #[test]
    fn words_are_read_without_case_and_unknown_ones_are_none() {
        assert_eq!(Substate::from_token("ACTIVE"), Some(Substate::Active));
        assert_eq!(Substate::from_token("waiting"), None);
        assert_eq!(Reason::from_token("GiveUp"), Some(Reason::GiveUp));
        assert_eq!(Reason::from_token("bored"), None);
    }

    #[test]
    fn a_lower_cseq_is_old_and_gaps_are_new() {
        let mut sequence = RemoteSequence::default();
        assert_eq!(sequence.last(), None);
        for (cseq, order) in [
            (0, Order::New),
            (0, Order::Repeated),
            (7, Order::New),
            (6, Order::Old),
            (7, Order::Repeated),
            (65_600, Order::New),
            (8, Order::Old),
            (u32::MAX - 1, Order::New),
        ] {
            assert_eq!(sequence.take(cseq), order, "{cseq}");
        }
        assert_eq!(sequence.last(), Some(u32::MAX - 1));
        assert_eq!(RemoteSequence::after(Some(9)).last(), Some(9));
    }
}
