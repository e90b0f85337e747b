//! The notifier's side of one subscription (RFC 6665 §4.2.2), in 48 octets.
//!
//! SUBSCRIBEs, policy, changes, answers to our NOTIFYs and the time go in; what Subscription-State the next NOTIFY
//! carries, and one deadline, come out. One NOTIFY is in flight at most; all that changes meanwhile is one bit, so
//! that the next one carries the newest state. The machine never sees a body and never decides who may watch.
//!
//! ```text
//! init      -- SUBSCRIBE accepted ------------------------> resp_wait    §4.2.1.2
//! init      -- SUBSCRIBE with Expires 0 (a poll) ---------> terminated   §4.4.3
//! resp_wait -- granted -----------------------------------> active       §4.2.2
//! resp_wait -- nobody has decided ------------------------> pending      §4.2.2
//! pending   -- granted -----------------------------------> active       §4.2.2
//! resp_wait, pending, active
//!           -- Expires 0, expiry, policy, NOTIFY failed --> terminated   §4.2.1.4, §4.2.2
//! ```

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use super::{DEFAULT_EXPIRES, Order, Reason, RemoteSequence, SubscriptionState, Substate, ends_subscription};

/// The states of RFC 6665 §4.2.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// No SUBSCRIBE was accepted.
    Init,
    /// Accepted; policy was not asked.
    RespWait,
    /// Nobody has decided.
    Pending,
    /// State may flow.
    Active,
    /// Over; a last NOTIFY may be owed.
    Terminated,
}

/// Spans and bounds that all notifiers of one kind of peer share.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// T1 of RFC 3261 §17.1.1.1; Timer F is 64 of it.
    pub t1: Duration,
    /// Seconds granted where no Expires came.
    pub default_expires: u32,
    /// Seconds under which a request is answered 423, where RFC 6665 lets us.
    pub min_expires: u32,
    /// Most seconds that are granted.
    pub max_expires: u32,
    /// The least time to the next NOTIFY after one failed without ending the subscription; doubles with each failure.
    pub retry_floor: Duration,
    /// Where that doubling ends.
    pub retry_cap: Duration,
    /// The longest Retry-After that is obeyed.
    pub retry_after_cap: Duration,
}

impl Default for Settings {
    /// T1 500 ms, Expires 60 s to one hour, NOTIFYs that failed 5 s to 5 min apart, Retry-After up to an hour.
    fn default() -> Self {
        Self {
            t1: Duration::from_millis(500),
            default_expires: DEFAULT_EXPIRES,
            min_expires: 60,
            max_expires: 3600,
            retry_floor: Duration::from_secs(5),
            retry_cap: Duration::from_secs(300),
            retry_after_cap: Duration::from_secs(3600),
        }
    }
}

/// 423: the interval asked for is too brief.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooBrief {
    /// Seconds for the Min-Expires header field.
    pub min_expires: u32,
}

/// The seconds to grant to a SUBSCRIBE that asks for `asked` (RFC 6665 §4.2.1.1): never more than asked, and 423
/// only if 0 < asked < 3600 and asked < `min_expires`.
pub fn grant(asked: Option<u32>, settings: &Settings) -> Result<u32, TooBrief> {
    let asked = asked.unwrap_or(settings.default_expires);
    if asked > 0 && asked < 3600 && asked < settings.min_expires {
        return Err(TooBrief { min_expires: settings.min_expires });
    }
    Ok(asked.min(settings.max_expires))
}

/// How to answer a SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeVerdict {
    /// 200 with this Expires; a NOTIFY is owed at once.
    Accepted {
        /// Seconds for the Expires header field.
        expires: u32,
    },
    /// 423.
    TooBrief(TooBrief),
    /// 500: its CSeq is not higher than the last (RFC 3261 §12.2.2).
    OutOfOrder,
    /// 481: the subscription is over.
    Unknown,
}

/// What policy says of the watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// State may flow.
    Granted,
    /// Somebody has yet to decide.
    Undecided,
    /// Refused or withdrawn.
    Refused,
}

/// What follows from the answer to a NOTIFY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifyOutcome {
    /// Not the answer to the NOTIFY in flight, or provisional.
    Ignored,
    /// It arrived.
    Delivered,
    /// It failed; the subscription stands, the newest state is owed again at [`Notifier::poll_timeout`].
    Kept,
    /// It failed so that the subscription is removed. No NOTIFY tells of it.
    Removed,
    /// That was the last one.
    Done,
}

/// What the time asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// A NOTIFY that had to wait may go: [`Notifier::owes_notify`].
    Notify,
    /// The subscription ran out: a last NOTIFY is owed, `terminated;reason=timeout`.
    Expired,
    /// Timer F of the NOTIFY in flight fired: the subscription is removed, nothing more is to be sent.
    Removed,
}

/// One subscription of a watcher. See the [module](self).
#[derive(Debug, Clone)]
pub struct Notifier {
    ends_at: Option<Instant>,
    /// Timer F while a NOTIFY is in flight, else until when none may be sent.
    timer: Option<Instant>,
    /// CSeq of the NOTIFY in flight, plus one.
    in_flight: Option<NonZeroU32>,
    remote: RemoteSequence,
    /// Seconds for the `retry-after` of the last NOTIFY; 0 for none.
    retry_after: u32,
    state: State,
    reason: Option<Reason>,
    /// Something changed since the last NOTIFY was made.
    is_dirty: bool,
    /// NOTIFYs in a row that failed.
    failures: u8,
}

const _: () = assert!(size_of::<Notifier>() <= 48, "these live by the hundred thousand");

impl Default for Notifier {
    fn default() -> Self {
        Self::new()
    }
}

impl Notifier {
    /// A notifier that no SUBSCRIBE reached yet.
    pub fn new() -> Self {
        Self {
            ends_at: None,
            timer: None,
            in_flight: None,
            remote: RemoteSequence::default(),
            retry_after: 0,
            state: State::Init,
            reason: None,
            is_dirty: false,
            failures: 0,
        }
    }

    /// A subscription that lived before a restart and ends at `ends_at`. `last_cseq` is that of the watcher's last
    /// SUBSCRIBE. The newest state is owed, as it is not known what arrived.
    pub fn restored(is_active: bool, ends_at: Instant, last_cseq: Option<u32>) -> Self {
        Self {
            ends_at: Some(ends_at),
            remote: RemoteSequence::after(last_cseq),
            state: if is_active { State::Active } else { State::Pending },
            is_dirty: true,
            ..Self::new()
        }
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// When the subscription ends unless it is refreshed.
    pub fn ends_at(&self) -> Option<Instant> {
        self.ends_at
    }

    /// The highest CSeq that the watcher used in this dialog.
    pub fn last_cseq(&self) -> Option<u32> {
        self.remote.last()
    }

    /// CSeq of the NOTIFY that has no answer yet.
    pub fn in_flight(&self) -> Option<u32> {
        self.in_flight.map(|next| next.get() - 1)
    }

    /// Whether the row can be dropped: over, and the last NOTIFY was answered or will not be sent.
    pub fn is_done(&self) -> bool {
        self.state == State::Terminated && !self.is_dirty && self.in_flight.is_none()
    }

    /// Whether a NOTIFY should be sent now.
    pub fn owes_notify(&self, now: Instant) -> bool {
        self.is_dirty
            && self.in_flight.is_none()
            && self.state != State::Init
            && self.timer.is_none_or(|until| until <= now)
    }

    /// When [`Notifier::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.timer, self.ends_at].into_iter().flatten().min()
    }

    /// Takes a SUBSCRIBE with `cseq` that asks for `expires` seconds: the first, or one in this dialog.
    ///
    /// The caller has checked Event, Accept and who asks. After [`SubscribeVerdict::Accepted`] it tells what policy
    /// says by [`Notifier::handle_permission`]; a poll (`expires` 0) gets its one NOTIFY in any case.
    pub fn handle_subscribe(
        &mut self,
        cseq: u32,
        expires: Option<u32>,
        now: Instant,
        settings: &Settings,
    ) -> SubscribeVerdict {
        if self.state == State::Terminated {
            return SubscribeVerdict::Unknown;
        }
        if self.remote.take(cseq) != Order::New {
            return SubscribeVerdict::OutOfOrder;
        }
        let expires = match grant(expires, settings) {
            Ok(expires) => expires,
            Err(too_brief) => return SubscribeVerdict::TooBrief(too_brief),
        };
        if self.in_flight.is_none() {
            // Each 2xx is followed by a NOTIFY at once; a wait after a failure does not stand against it.
            self.timer = None;
        }
        if expires == 0 {
            self.terminate(Reason::Timeout, None);
        } else {
            if self.state == State::Init {
                self.state = State::RespWait;
            }
            self.ends_at = Some(now + Duration::from_secs(expires.into()));
            self.is_dirty = true;
        }
        SubscribeVerdict::Accepted { expires }
    }

    /// Tells what policy says, at first or because it changed.
    pub fn handle_permission(&mut self, permission: Permission) {
        match (self.state, permission) {
            (State::Init | State::Terminated, _) | (State::Active, Permission::Granted) => {}
            (_, Permission::Refused) => self.terminate(Reason::Rejected, None),
            (_, Permission::Granted) => {
                self.state = State::Active;
                self.is_dirty = true;
            }
            (State::RespWait, Permission::Undecided) => self.state = State::Pending,
            // What was granted is taken back by a refusal only (the figure of §4.2.2).
            (State::Pending | State::Active, Permission::Undecided) => {}
        }
    }

    /// What the watcher may see has changed.
    pub fn handle_change(&mut self) {
        if !matches!(self.state, State::Init | State::Terminated) {
            self.is_dirty = true;
        }
    }

    /// Ends the subscription for `reason`; the last NOTIFY is owed. `retry_after` is in seconds and only means
    /// something beside [`Reason::Probation`] and [`Reason::GiveUp`] (RFC 6665 §4.1.3).
    pub fn terminate(&mut self, reason: Reason, retry_after: Option<u32>) {
        if self.state == State::Terminated {
            return;
        }
        self.state = State::Terminated;
        self.reason = Some(reason);
        self.retry_after = retry_after.unwrap_or(0);
        self.ends_at = None;
        self.is_dirty = true;
    }

    /// Makes the NOTIFY that is owed, if one may go now: it bears `cseq`, the dialog's next, and the given
    /// Subscription-State. `None` leaves `cseq` unused.
    ///
    /// Its body is the newest state in [`State::Active`] and after a poll or `timeout`, none or a neutral one else.
    pub fn poll_notify(&mut self, cseq: u32, now: Instant, settings: &Settings) -> Option<SubscriptionState> {
        if !self.owes_notify(now) {
            return None;
        }
        self.is_dirty = false;
        self.in_flight = NonZeroU32::new(cseq.saturating_add(1));
        self.timer = Some(now + settings.t1 * 64);
        Some(self.subscription_state(now))
    }

    /// What a NOTIFY at `now` says in its Subscription-State.
    pub fn subscription_state(&self, now: Instant) -> SubscriptionState {
        let state = match self.state {
            State::Active => Substate::Active,
            State::Terminated => {
                return SubscriptionState {
                    state: Substate::Terminated,
                    reason: self.reason,
                    expires: None,
                    retry_after: (self.retry_after > 0).then_some(self.retry_after),
                };
            }
            State::Init | State::RespWait | State::Pending => Substate::Pending,
        };
        // Rounded down: a NOTIFY must not lengthen a subscription (§4.2.2).
        let left = self.ends_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now)).as_secs();
        let expires = Some(u32::try_from(left).unwrap_or(u32::MAX));
        SubscriptionState { state, reason: None, expires, retry_after: None }
    }

    /// The NOTIFY with `cseq` got a response with `status`; a transaction that timed out is 408, a transport error
    /// 503. `retry_after` is that of the response, seconds.
    ///
    /// A 401 or 407 that the caller can answer goes to [`Notifier::handle_challenge`] instead.
    pub fn handle_response(
        &mut self,
        cseq: u32,
        status: u16,
        retry_after: Option<u32>,
        now: Instant,
        settings: &Settings,
    ) -> NotifyOutcome {
        if self.in_flight() != Some(cseq) || status < 200 {
            return NotifyOutcome::Ignored;
        }
        self.in_flight = None;
        self.timer = None;
        if self.state == State::Terminated && !self.is_dirty {
            return NotifyOutcome::Done;
        }
        if status < 300 {
            self.failures = 0;
            return NotifyOutcome::Delivered;
        }
        if status == 408 || ends_subscription(status) {
            self.remove();
            return NotifyOutcome::Removed;
        }
        let backoff = settings.retry_floor.saturating_mul(1 << self.failures.min(20)).min(settings.retry_cap);
        let told = Duration::from_secs(retry_after.unwrap_or(0).into()).min(settings.retry_after_cap);
        self.failures = self.failures.saturating_add(1);
        self.timer = Some(now + backoff.max(told));
        self.is_dirty = true;
        NotifyOutcome::Kept
    }

    /// The NOTIFY with `cseq` was challenged and the caller has the credentials: it is owed again, with them and with
    /// a new CSeq (RFC 3261 §22.2). False when it was not the one in flight.
    pub fn handle_challenge(&mut self, cseq: u32) -> bool {
        let is_ours = self.in_flight() == Some(cseq);
        if is_ours {
            self.handle_flow_lost();
        }
        is_ours
    }

    /// The connection to the watcher ended: the CSeq in flight is used up, what it carried is owed again.
    pub fn handle_flow_lost(&mut self) {
        if self.in_flight.take().is_some() {
            self.timer = None;
            self.is_dirty = true;
        }
    }

    /// Tells what is due at `now`. To be called again until [`Due::Nothing`].
    pub fn handle_timeout(&mut self, now: Instant) -> Due {
        if self.timer.is_some_and(|at| at <= now) {
            self.timer = None;
            if self.in_flight.take().is_none() {
                return Due::Notify;
            }
            self.remove();
            return Due::Removed;
        }
        if self.ends_at.is_some_and(|at| at <= now) {
            self.terminate(Reason::Timeout, None);
            return Due::Expired;
        }
        Due::Nothing
    }

    fn remove(&mut self) {
        self.state = State::Terminated;
        self.ends_at = None;
        self.timer = None;
        self.is_dirty = false;
    }
}

#[cfg(test)]
mod tests;
