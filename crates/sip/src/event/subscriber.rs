//! The subscriber's side of one subscription (RFC 6665 §4.1.2), in 48 octets.
//!
//! Responses to our SUBSCRIBEs, NOTIFYs and the time go in; verdicts and one deadline come out. The machine never
//! sends: what it asks for is sent when the caller is able to, who then says so by [`Subscriber::handle_sent`].
//! Whether a message belongs to this subscription at all (Call-ID, tags, Event) is for the caller to see.
//!
//! ```text
//! init        -- SUBSCRIBE sent ------------------------------> notify_wait   §4.1.2.1
//! notify_wait -- NOTIFY active / pending ---------------------> active / pending   §4.1.2.4
//! notify_wait -- Timer N, failure, NOTIFY terminated ---------> terminated    §4.1.2.4
//! pending     -- NOTIFY active -------------------------------> active        §4.1.3
//! active      -- NOTIFY pending ------------------------------> pending       (the notifier's word counts)
//! pending, active -- Timer N of a refresh that was answered, NOTIFY terminated,
//!                    404 405 410 416 480-485 489 501 604 to a refresh,
//!                    403 603 to a refresh (RFC 8048 §5.2.2),
//!                    the end of its time ----------------------> terminated   §4.1.2.2
//! terminated  -- the time to try again ------------------------> init         §4.1.3
//! ```

use std::{
    mem,
    time::{Duration, Instant},
};

mod timing;

pub use self::timing::Settings;
use self::timing::{refresh_point, seconds};
use super::{Order, Reason, RemoteSequence, SubscriptionState, Substate, ends_subscription};
use crate::{headers::ValueFault, message::Message};

/// The states of RFC 6665 §4.1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// No SUBSCRIBE was sent, or the time has come to send one in a new dialog.
    Init,
    /// A SUBSCRIBE that makes a dialog was sent; no NOTIFY came.
    NotifyWait,
    /// The notifier has not decided.
    Pending,
    /// State may flow.
    Active,
    /// Over, or waiting to try again in a new dialog.
    Terminated,
}

/// What a response to our SUBSCRIBE says. A transaction that timed out is 408, a transport error 503
/// (RFC 3261 §8.1.3.1).
#[derive(Debug, Clone, Copy, Default)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header field Expires, seconds.
    pub expires: Option<u32>,
    /// Header field Min-Expires, seconds.
    pub min_expires: Option<u32>,
    /// Header field Retry-After, seconds.
    pub retry_after: Option<u32>,
}

impl From<&Message> for Response {
    /// Reads a response; a request has status 0, which no machine takes for an answer.
    fn from(message: &Message) -> Self {
        Self {
            status: message.status().unwrap_or(0),
            expires: message.expires(),
            min_expires: message.min_expires(),
            retry_after: message.retry_after(),
        }
    }
}

/// What follows from a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseVerdict {
    /// Nothing but to go on.
    Wait,
    /// 423: send the SUBSCRIBE again now, with the longer [`Subscriber::expires`] and the next CSeq.
    Again,
    /// A refresh failed, the subscription stands; another refresh is due at [`Subscriber::poll_timeout`].
    Kept,
    /// 481: the notifier has lost the dialog, as when it started anew. A subscription in a new dialog is due at
    /// [`Subscriber::poll_timeout`], at once the first time; until then what was seen holds (STOX-P-11).
    Forgotten,
    /// There is no subscription (any more). A new one is due at [`Subscriber::poll_timeout`], but never after a fetch.
    Failed {
        /// The watcher is told: true once, for the failure of the very first SUBSCRIBE that is not a passing trouble.
        report: bool,
    },
    /// 403, 489, 603: the authorization is cancelled for good (RFC 8048 §5.2.2).
    Cancelled {
        /// The peer has no such event package (489).
        bad_event: bool,
    },
    /// 406: the peer makes no body that we take. No attempt follows.
    Stopped,
    /// The unsubscription is complete.
    Ended,
}

/// What a NOTIFY says.
#[derive(Debug, Clone, Copy)]
pub struct Notify {
    /// Number of its CSeq.
    pub cseq: u32,
    /// Its Subscription-State.
    pub subscription_state: SubscriptionState,
}

impl Notify {
    /// Reads a NOTIFY; one without Subscription-State is answered with 400, as is one with a broken one.
    pub fn read(message: &Message) -> Result<Self, ValueFault> {
        let subscription_state =
            message.subscription_state()?.ok_or(ValueFault::Missing("Subscription-State"))?;
        Ok(Self { cseq: message.cseq()?.0, subscription_state })
    }
}

/// How to answer a NOTIFY and what follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifyVerdict {
    /// 481: no subscription waits for it.
    Unknown,
    /// 500: its CSeq is lower than the last.
    OutOfOrder,
    /// 200, and nothing else: a copy of the last.
    Repeated,
    /// 200. In [`State::Active`] its body is the newest state; in [`State::Pending`] its body is dropped.
    Accepted {
        /// This one led to `active`.
        activated: bool,
    },
    /// 200, and the subscription is over. A body is the last state.
    Ended(End),
}

/// How a NOTIFY ended a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// `rejected` or `noresource`: the authorization is cancelled; no attempt follows.
    Cancelled,
    /// A new subscription is due at [`Subscriber::poll_timeout`].
    Retry,
    /// `invariant`: the state stays as it is; no attempt follows.
    Invariant,
    /// The answer to our `Expires: 0` in the dialog.
    Unsubscribed,
    /// The answer to a fetch.
    Fetched,
}

/// What the time asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// Send a SUBSCRIBE in the dialog, with [`Subscriber::expires`] (0 after [`Subscriber::unsubscribe`]).
    Refresh,
    /// Send a SUBSCRIBE in a new dialog: new Call-ID, new From tag, no old route set (RFC 6665 §4.1.2.2).
    Subscribe,
    /// Timer N fired or the time ran out: the dialog is dead, NOTIFYs in it get 481. A new subscription is due at
    /// [`Subscriber::poll_timeout`], but never after a fetch.
    Lost {
        /// As in [`ResponseVerdict::Failed`].
        report: bool,
    },
    /// The notifier never confirmed our `Expires: 0`; the subscription is over all the same.
    Ended,
}

/// How an unsubscription goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsubscription {
    /// Send a SUBSCRIBE with `Expires: 0` in the dialog now.
    Send,
    /// A SUBSCRIBE or its NOTIFY is still on its way; [`Due::Refresh`] will ask for it.
    Later,
    /// There is no dialog; nothing is to be sent.
    Done,
}

/// What `timer` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    /// A NOTIFY, at most until then.
    N,
    /// The point to refresh, or to unsubscribe.
    Refresh,
    /// The point to subscribe anew.
    Retry,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    Asked,
    Sent,
}

/// One subscription of ours. See the [module](self).
#[derive(Debug, Clone)]
pub struct Subscriber {
    timer: Option<Instant>,
    /// The end of its time; none while no subscription is known.
    ends_at: Option<Instant>,
    /// Seconds to ask for; 0 for a fetch.
    asked: u32,
    remote: RemoteSequence,
    /// What `timer` waits for; keeps its last value while there is none.
    waits_for: Timer,
    state: State,
    ending: Ending,
    /// A SUBSCRIBE of ours has no final response.
    awaits_response: bool,
    /// No subscription ever came about, and no failure was told yet.
    may_report: bool,
    /// Attempts in a row that came to nothing.
    failures: u8,
}

const _: () = assert!(size_of::<Subscriber>() <= 48, "these live by the hundred thousand");

impl Subscriber {
    /// A subscription that asks for `expires` seconds at a time. 0 makes it a fetch (RFC 6665 §4.4.3): one SUBSCRIBE,
    /// one NOTIFY, no further attempt.
    pub fn new(expires: u32) -> Self {
        Self {
            timer: None,
            ends_at: None,
            asked: expires,
            remote: RemoteSequence::default(),
            waits_for: Timer::N,
            state: State::Init,
            ending: Ending::No,
            awaits_response: false,
            may_report: true,
            failures: 0,
        }
    }

    /// A subscription that lived before a restart: it asks for `expires` seconds, ends at `ends_at`, and its dialog
    /// is to be refreshed at `refresh_at`. `last_cseq` is the highest CSeq that the notifier had used.
    pub fn restored(
        expires: u32,
        is_active: bool,
        ends_at: Instant,
        refresh_at: Instant,
        last_cseq: Option<u32>,
    ) -> Self {
        Self {
            timer: Some(refresh_at),
            waits_for: Timer::Refresh,
            ends_at: Some(ends_at),
            remote: RemoteSequence::after(last_cseq),
            state: if is_active { State::Active } else { State::Pending },
            may_report: false,
            ..Self::new(expires)
        }
    }

    /// One that has no dialog and subscribes for `expires` seconds at a time from `retry_at` on.
    pub fn resting(expires: u32, retry_at: Instant) -> Self {
        Self {
            timer: Some(retry_at),
            waits_for: Timer::Retry,
            state: State::Terminated,
            may_report: false,
            ..Self::new(expires)
        }
    }

    /// Whether it asks once only.
    pub fn is_fetch(&self) -> bool {
        self.asked == 0
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Seconds to write into the Expires of the next SUBSCRIBE.
    pub fn expires(&self) -> u32 {
        if self.ending == Ending::No { self.asked } else { 0 }
    }

    /// When the subscription ends unless it is refreshed.
    pub fn ends_at(&self) -> Option<Instant> {
        self.ends_at
    }

    /// The highest CSeq that the notifier used in this dialog.
    pub fn last_cseq(&self) -> Option<u32> {
        self.remote.last()
    }

    /// Whether an `Expires: 0` is on its way or due: what NOTIFYs still say is of no interest.
    pub fn is_ending(&self) -> bool {
        self.ending != Ending::No
    }

    /// Whether a NOTIFY from a notifier that has no dialog with us yet may make one (RFC 6665 §4.4.1). One is
    /// enough for presence (RFC 3856 §6.9): all others get 481.
    pub fn may_form_dialog(&self) -> bool {
        self.state == State::NotifyWait
    }

    /// When [`Subscriber::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.timer, self.ends_at].into_iter().flatten().min()
    }

    /// A SUBSCRIBE with [`Subscriber::expires`] was sent: starts Timer N.
    pub fn handle_sent(&mut self, now: Instant, settings: &Settings) {
        match self.state {
            State::Init => {
                self.state = State::NotifyWait;
                self.remote = RemoteSequence::default();
            }
            State::NotifyWait | State::Pending | State::Active => {}
            State::Terminated => return,
        }
        if self.ending == Ending::Asked {
            self.ending = Ending::Sent;
        }
        self.awaits_response = true;
        self.wait_for(Timer::N, now + settings.timer_n());
    }

    /// A response to the last SUBSCRIBE came. `random` is any number, new each time.
    ///
    /// A 401 or 407 that the caller can answer is not given here; the SUBSCRIBE with credentials is told by
    /// [`Subscriber::handle_sent`].
    pub fn handle_response(
        &mut self,
        response: &Response,
        random: u32,
        now: Instant,
        settings: &Settings,
    ) -> ResponseVerdict {
        if !self.awaits_response || response.status < 200 {
            return ResponseVerdict::Wait;
        }
        self.awaits_response = false;
        if response.status < 300 {
            return self.handle_success(response, random, now);
        }
        if self.ending != Ending::No {
            // Whatever went wrong: NOTIFYs that still come get 481, which ends it at the notifier (§4.2.2).
            self.terminate();
            return ResponseVerdict::Ended;
        }
        match response.status {
            403 | 489 | 603 => {
                self.terminate();
                ResponseVerdict::Cancelled { bad_event: response.status == 489 }
            }
            406 => {
                self.terminate();
                ResponseVerdict::Stopped
            }
            423 if self.takes_min_expires(response, settings) => ResponseVerdict::Again,
            481 if self.is_established() => {
                let wait = self.wait_before_anew(random, settings);
                self.retry_at(now + wait);
                ResponseVerdict::Forgotten
            }
            status if self.is_established() && !ends_subscription(status) => {
                // No response at all (408) is a failure like others: "still considered valid" (§4.1.2.2).
                let wait = self.wait_after_failure(response.retry_after, random, settings);
                self.wait_for(Timer::Refresh, now + wait);
                ResponseVerdict::Kept
            }
            status => {
                let report = !matches!(status, 423 | 481) && self.take_report();
                let wait = self.wait_after_failure(response.retry_after, random, settings);
                self.retry_at(now + wait);
                ResponseVerdict::Failed { report }
            }
        }
    }

    fn handle_success(&mut self, response: &Response, random: u32, now: Instant) -> ResponseVerdict {
        let brings_no_notify = response.status == 204;
        if self.ending == Ending::Sent || self.asked == 0 {
            if brings_no_notify {
                self.terminate();
                return ResponseVerdict::Ended;
            }
            return ResponseVerdict::Wait;
        }
        let life = response.expires.unwrap_or(self.asked).min(self.asked);
        if life > 0 {
            self.ends_at = Some(now + seconds(life));
            let is_confirmed = !self.is_waiting_for(Timer::N);
            if brings_no_notify && self.is_established() {
                self.failures = 0;
            }
            if is_confirmed || brings_no_notify {
                self.wait_for(Timer::Refresh, now + refresh_point(life, random));
            }
        }
        if self.ending == Ending::Asked && self.is_established() {
            self.wait_for(Timer::Refresh, now);
        }
        ResponseVerdict::Wait
    }

    fn takes_min_expires(&mut self, response: &Response, settings: &Settings) -> bool {
        // A peer that raises it again and again is not followed for ever.
        let is_fair = self.failures < 4;
        match response.min_expires {
            Some(least)
                if is_fair && least > self.asked && least <= settings.expires_cap && self.asked > 0 =>
            {
                self.asked = least;
                self.failures += 1;
                self.timer = None;
                true
            }
            _ => false,
        }
    }

    /// A NOTIFY of this subscription came. `random` is any number, new each time.
    pub fn handle_notify(
        &mut self,
        notify: &Notify,
        random: u32,
        now: Instant,
        settings: &Settings,
    ) -> NotifyVerdict {
        if matches!(self.state, State::Init | State::Terminated) {
            return NotifyVerdict::Unknown;
        }
        match self.remote.take(notify.cseq) {
            Order::Old => return NotifyVerdict::OutOfOrder,
            Order::Repeated => return NotifyVerdict::Repeated,
            Order::New => {}
        }
        let said = &notify.subscription_state;
        let state = match said.state {
            Substate::Active => State::Active,
            Substate::Pending => State::Pending,
            Substate::Terminated => {
                return NotifyVerdict::Ended(self.handle_end(said, random, now, settings));
            }
        };
        let activated = state == State::Active && self.state != State::Active;
        let confirms = self.is_waiting_for(Timer::N);
        if confirms && self.is_established() {
            self.failures = 0;
        }
        self.state = state;
        self.may_report = false;
        if self.asked == 0 || self.ending == Ending::Sent {
            // Only the final NOTIFY is waited for, as long as Timer N lets us.
            return NotifyVerdict::Accepted { activated };
        }
        self.take_life(said.expires, confirms, random, now);
        if self.ending == Ending::Asked && !self.awaits_response {
            self.wait_for(Timer::Refresh, now);
        }
        NotifyVerdict::Accepted { activated }
    }

    /// Takes the duration that a NOTIFY tells, which is the true one, though never longer than what was asked.
    fn take_life(&mut self, expires: Option<u32>, confirms: bool, random: u32, now: Instant) {
        let life = match expires {
            Some(life) => Some(life.min(self.asked)),
            // Before the 2xx, a NOTIFY without the parameter leaves us with what we asked.
            None if self.ends_at.is_none() => Some(self.asked),
            None => None,
        };
        let before = self.ends_at;
        if let Some(life) = life {
            self.ends_at = Some(now + seconds(life));
        }
        let Some(ends_at) = self.ends_at else { return };
        // Each NOTIFY tells what remains; the refresh keeps its place unless the end itself has moved.
        let has_moved = before.is_none_or(|before| {
            ends_at.max(before).duration_since(ends_at.min(before)) > Duration::from_secs(2)
        });
        if confirms || has_moved {
            let left = u32::try_from(ends_at.saturating_duration_since(now).as_secs()).unwrap_or(u32::MAX);
            self.wait_for(Timer::Refresh, now + refresh_point(left, random));
        }
    }

    fn handle_end(
        &mut self,
        said: &SubscriptionState,
        random: u32,
        now: Instant,
        settings: &Settings,
    ) -> End {
        let (was_fetch, was_ending) = (self.asked == 0, self.ending != Ending::No);
        self.terminate();
        if matches!(said.reason, Some(Reason::Rejected | Reason::NoResource)) && !was_ending {
            return End::Cancelled;
        }
        if was_fetch {
            return End::Fetched;
        }
        if was_ending {
            return End::Unsubscribed;
        }
        let wait = match said.reason {
            Some(Reason::Invariant) => return End::Invariant,
            Some(Reason::Deactivated | Reason::Timeout) => self.wait_before_anew(random, settings),
            _ => self.wait_after_failure(said.retry_after, random, settings),
        };
        self.retry_at(now + wait);
        End::Retry
    }

    /// The watcher wants no more (RFC 6665 §4.1.2.3). No attempt follows, whatever happens.
    pub fn unsubscribe(&mut self) -> Unsubscription {
        match self.state {
            State::Init | State::Terminated => {
                self.terminate();
                Unsubscription::Done
            }
            _ if self.ending == Ending::Sent => Unsubscription::Later,
            State::NotifyWait | State::Pending | State::Active => {
                self.ending = Ending::Asked;
                if self.is_established() && !self.awaits_response {
                    Unsubscription::Send
                } else {
                    Unsubscription::Later
                }
            }
        }
    }

    /// Tells what is due at `now`. To be called again until [`Due::Nothing`]. `random` is any number, new each time.
    pub fn handle_timeout(&mut self, random: u32, now: Instant, settings: &Settings) -> Due {
        if self.ends_at.is_some_and(|at| at <= now) {
            return self.lose(random, now, settings);
        }
        match self.timer {
            Some(at) if at <= now => match self.waits_for {
                // The transaction says itself that it got no response; that does not end a dialog which may be alive.
                Timer::N if self.is_established() && self.awaits_response && self.ending == Ending::No => {
                    self.timer = None;
                    Due::Nothing
                }
                Timer::N => self.lose(random, now, settings),
                Timer::Refresh => {
                    self.timer = None;
                    Due::Refresh
                }
                Timer::Retry => {
                    self.timer = None;
                    self.state = State::Init;
                    Due::Subscribe
                }
            },
            _ => Due::Nothing,
        }
    }

    /// The notifier is there again after a time in doubt: what failed meanwhile does not count, and what waits for a later
    /// attempt, or for its next refresh, is due now. [`Due::Refresh`] or [`Due::Subscribe`] is to be sent; otherwise a
    /// SUBSCRIBE is on its way, the end was asked for, or no attempt is to follow.
    pub fn resume(&mut self) -> Due {
        if self.ending != Ending::No || self.awaits_response || self.asked == 0 {
            return Due::Nothing;
        }
        match self.state {
            State::Pending | State::Active => {
                self.failures = 0;
                self.timer = None;
                Due::Refresh
            }
            State::Terminated if !self.is_waiting_for(Timer::Retry) => Due::Nothing,
            State::Init | State::Terminated => {
                self.failures = 0;
                self.timer = None;
                self.state = State::Init;
                Due::Subscribe
            }
            State::NotifyWait => Due::Nothing,
        }
    }

    /// Timer N fired, or the subscription's time ran out.
    fn lose(&mut self, random: u32, now: Instant, settings: &Settings) -> Due {
        if self.ending != Ending::No {
            self.terminate();
            return Due::Ended;
        }
        let report = self.take_report();
        let mut retry_at = now + self.wait_after_failure(None, random, settings);
        // A Retry-After that came with a failed refresh still holds.
        if let Some(at) = self.timer
            && self.waits_for == Timer::Refresh
        {
            retry_at = retry_at.max(at);
        }
        self.retry_at(retry_at);
        Due::Lost { report }
    }

    fn is_established(&self) -> bool {
        matches!(self.state, State::Pending | State::Active)
    }

    fn is_waiting_for(&self, what: Timer) -> bool {
        self.timer.is_some() && self.waits_for == what
    }

    fn wait_for(&mut self, what: Timer, until: Instant) {
        (self.timer, self.waits_for) = (Some(until), what);
    }

    fn take_report(&mut self) -> bool {
        mem::take(&mut self.may_report)
    }

    fn wait_after_failure(&mut self, retry_after: Option<u32>, random: u32, settings: &Settings) -> Duration {
        let wait = settings.backoff(self.failures, random);
        self.failures = self.failures.saturating_add(1);
        let told = retry_after.map_or(Duration::ZERO, seconds).min(settings.retry_after_cap);
        wait.max(told)
    }

    /// At once, but no tight loop: each further time in a row waits as after a failure.
    fn wait_before_anew(&mut self, random: u32, settings: &Settings) -> Duration {
        if self.failures > 0 {
            return self.wait_after_failure(None, random, settings);
        }
        self.failures = 1;
        Duration::ZERO
    }

    fn retry_at(&mut self, at: Instant) {
        self.terminate();
        if self.asked > 0 {
            self.wait_for(Timer::Retry, at);
        }
    }

    fn terminate(&mut self) {
        self.state = State::Terminated;
        self.timer = None;
        self.ends_at = None;
        self.ending = Ending::No;
        self.awaits_response = false;
    }
}

#[cfg(test)]
mod tests;
