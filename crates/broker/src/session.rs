//! One federated session: a domain of ours and a domain of a partner, outliving the streams between them.
//!
//! Wishes of shards, messages, and what streams report go in; dials, grants, stanzas and fates come out. Pure: the
//! actor around it only carries.
//!
//! Presence is pulled: a shard that owes something asks, and is granted a part of the stream's window when there is
//! room; what it then hands over is written in that order. Messages are pushed, and wait here, bounded, while there is
//! no stream. A dial that fails bounces what waits and is tried again, ever more rarely; a stream that ends as soon as it
//! is up counts as one. A lost partner that nobody has a pair with is not tried for its own sake.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tombolo_edge::{StreamEnd, StreamId};
use tombolo_interwork::owner::MessageId;
use tombolo_runtime::{Backoff, BackoffSettings};

use self::stream::{Letter, Remains, Stream};
use crate::liveness::{Due, Liveness};

mod stream;

/// Which shard of this process.
pub type ShardIndex = usize;

/// What a session is set to.
#[derive(Debug, Clone, Copy)]
pub struct SessionSettings {
    /// Messages that may wait for a stream.
    pub waiting_messages: usize,
    /// Octets of them.
    pub waiting_bytes: usize,
    /// The waits between dials.
    pub backoff: BackoffSettings,
    /// A dial that gave no answer for so long has failed.
    pub dial_timeout: Duration,
    /// A stream that took nothing for so long is closed in order.
    pub idle_close: Duration,
    /// From one ping of a stream that carries something to the next, at least (XEP-0199 §4.3).
    pub ping_every: Duration,
    /// A ping that is not answered for so long means that nobody listens, if one was answered before.
    pub ping_wait: Duration,
    /// A break so long after the last write loses nothing: whatever was written has arrived.
    pub confirm_after: Duration,
    /// A stream that lived so long, or whose peer answered a ping, shows that the partner works: the next dial that fails
    /// is a first one.
    pub steady_after: Duration,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            waiting_messages: 1000,
            waiting_bytes: 4 << 20,
            backoff: BackoffSettings { floor: Duration::from_secs(4), cap: Duration::from_secs(60) },
            dial_timeout: Duration::from_secs(60),
            idle_close: Duration::from_secs(600),
            ping_every: Duration::from_secs(300),
            ping_wait: Duration::from_secs(60),
            confirm_after: Duration::from_secs(30),
            steady_after: Duration::from_secs(30),
        }
    }
}

/// What the session asks for, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum SessionOutput {
    /// Open a stream.
    Dial,
    /// A shard may hand over so many octets.
    Grant {
        /// The shard.
        shard: ShardIndex,
        /// Octets.
        bytes: usize,
    },
    /// Write stanzas.
    Stanzas {
        /// The stream.
        stream: StreamId,
        /// How many.
        count: u32,
        /// The stanzas.
        bytes: Bytes,
    },
    /// What became of a message. One that was written hears of it a second time when its stream breaks before it can be
    /// taken as received.
    Fate {
        /// The shard that sent it.
        shard: ShardIndex,
        /// The message.
        message: MessageId,
        /// Written, or the stanza error condition for its sender.
        fate: Result<(), &'static str>,
    },
    /// The stream ended: tell every shard.
    LaneLost {
        /// Nothing is lost with it.
        is_clean: bool,
    },
    /// The partner is lost, or back: tell every shard.
    Reachable {
        /// It is back.
        is_reachable: bool,
        /// Why not, as a stanza error condition.
        condition: &'static str,
    },
    /// A lost partner is not tried any more, as nobody has anything to do with it: tell every shard that it is not lost.
    Forgotten,
    /// Close a stream in order.
    Close(StreamId),
    /// End a stream whose peer does not answer.
    GiveUp(StreamId),
}

/// How a session's partner stands, as others know it.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// The policy in force lets the two domains federate.
    pub is_configured: bool,
    /// Some shard has a pair with a contact of the partner's domain.
    pub has_pairs: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Dial {
    Idle,
    Running { until: Instant },
    Waiting { until: Instant },
}

/// One session. See the [module](self).
#[derive(Debug)]
pub struct Session {
    settings: SessionSettings,
    stream: Option<Stream>,
    dial: Dial,
    backoff: Backoff,
    is_lost: bool,
    /// Shards that ask for credit, in order, with about how much they owe.
    wanting: VecDeque<(ShardIndex, usize)>,
    /// What was granted and not used yet.
    granted: Vec<(ShardIndex, usize)>,
    mail: VecDeque<Letter>,
    mail_bytes: usize,
    random: u64,
    /// Our domain and the partner's, when the partner may be pinged.
    pinged: Option<(String, String)>,
    /// Of the stream that is up, or was last.
    liveness: Option<Liveness>,
    standing: Standing,
    /// What the senders of messages to a lost partner are told.
    condition: &'static str,
    out: VecDeque<SessionOutput>,
}

impl Session {
    /// A session without a stream. `seed` spreads its dials.
    pub fn new(settings: SessionSettings, seed: u64) -> Self {
        Self {
            settings,
            stream: None,
            dial: Dial::Idle,
            backoff: Backoff::new(settings.backoff, seed),
            is_lost: false,
            wanting: VecDeque::new(),
            granted: Vec::new(),
            mail: VecDeque::new(),
            mail_bytes: 0,
            random: seed | 1,
            pinged: None,
            liveness: None,
            standing: Standing { is_configured: true, has_pairs: true },
            condition: "",
            out: VecDeque::new(),
        }
    }

    /// Pings the partner's domain in the name of ours, now and then.
    pub fn with_ping(mut self, local: &str, remote: &str) -> Self {
        self.pinged = Some((local.to_owned(), remote.to_owned()));
        self
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self) -> Option<SessionOutput> {
        self.out.pop_front()
    }

    /// When [`Session::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let dial = match self.dial {
            Dial::Idle => None,
            Dial::Running { until } | Dial::Waiting { until } => Some(until),
        };
        let stream = self.stream.as_ref().filter(|stream| stream.takes());
        // A shard may be about to use its grant.
        let idle = stream.filter(|_| self.granted.is_empty());
        let idle = idle.map(|stream| stream.wrote_at + self.settings.idle_close);
        let liveness = self.liveness.as_ref().filter(|_| stream.is_some() && self.pinged.is_some());
        let ping = liveness.and_then(Liveness::poll_timeout);
        dial.into_iter().chain(idle).chain(ping).min()
    }

    /// True when nothing is open, wanted or waiting: the session may end.
    pub fn is_idle(&self) -> bool {
        self.stream.is_none()
            && self.dial == Dial::Idle
            && self.wanting.is_empty()
            && self.mail.is_empty()
            && self.granted.is_empty()
            && !self.is_lost
    }

    /// Messages that wait.
    pub fn waiting(&self) -> usize {
        self.mail.len()
    }

    /// The outgoing stream.
    pub fn stream(&self) -> Option<StreamId> {
        self.stream.as_ref().map(|stream| stream.id)
    }

    /// True while the partner cannot be reached.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// A shard owes about so many octets.
    pub fn handle_want(&mut self, shard: ShardIndex, owed_bytes: usize, now: Instant) {
        self.wanting.push_back((shard, owed_bytes));
        self.go_on(now);
    }

    /// A shard used its grant; nothing is an answer too.
    pub fn handle_stanzas(&mut self, shard: ShardIndex, count: u32, bytes: Vec<u8>, now: Instant) {
        let at = self.granted.iter().position(|(granted, _)| *granted == shard);
        let granted = at.map_or(0, |at| self.granted.swap_remove(at).1);
        let Some(stream) = &mut self.stream else {
            if count > 0 {
                // Handed over while the stream ended: nobody has it.
                self.out.push_back(SessionOutput::LaneLost { is_clean: false });
            }
            return;
        };
        if !stream.takes() {
            stream.has_dropped |= count > 0;
            return;
        }
        stream.window += granted;
        if count > 0 {
            stream.hand_over(count, bytes.len());
            stream.wrote_at = now;
            if let Some(liveness) = &mut self.liveness {
                liveness.wrote();
            }
            self.out.push_back(SessionOutput::Stanzas { stream: stream.id, count, bytes: bytes.into() });
        }
        self.go_on(now);
    }

    /// A message stanza from a shard; bounced when too much waits.
    pub fn handle_message(
        &mut self,
        shard: ShardIndex,
        message: Option<MessageId>,
        bytes: impl Into<Bytes>,
        now: Instant,
    ) {
        let letter = Letter { shard, message, bytes: bytes.into() };
        let is_full = self.mail.len() >= self.settings.waiting_messages
            || self.mail_bytes + letter.bytes.len() > self.settings.waiting_bytes;
        if is_full {
            return self.bounce(&letter, "resource-constraint");
        }
        // While the partner is known to be unreachable nobody is kept waiting for the next try.
        if let Dial::Waiting { .. } = self.dial
            && self.stream.is_none()
            && self.is_lost
            && message.is_some()
        {
            return self.bounce(&letter, self.condition);
        }
        self.mail_bytes += letter.bytes.len();
        self.mail.push_back(letter);
        self.go_on(now);
    }

    /// An outgoing stream for the session's pair is ready.
    pub fn handle_stream_up(&mut self, id: StreamId, window: u32, now: Instant) {
        if self.stream.is_some() {
            return self.out.push_back(SessionOutput::Close(id));
        }
        self.dial = Dial::Idle;
        self.stream = Some(Stream::new(id, window as usize, now));
        let SessionSettings { ping_every, ping_wait, .. } = self.settings;
        self.liveness = Some(Liveness::begin(ping_every, ping_wait, self.liveness.as_ref(), now));
        if std::mem::take(&mut self.is_lost) {
            self.out.push_back(SessionOutput::Reachable { is_reachable: true, condition: "" });
        }
        self.go_on(now);
    }

    /// Octets were written, up to the stanza with number `last`.
    pub fn handle_written(&mut self, id: StreamId, last: u64, bytes: u32, now: Instant) {
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.id == id) else { return };
        if !self.liveness.as_ref().is_some_and(Liveness::is_asking)
            && let Some(before) = now.checked_sub(self.settings.confirm_after)
        {
            stream.confirm(before);
        }
        for (shard, message) in stream.handle_written(last, bytes, now) {
            self.out.push_back(SessionOutput::Fate { shard, message, fate: Ok(()) });
        }
        self.go_on(now);
    }

    /// The stream ended. Messages that were not written go by the next one, under the same id and in order; those that
    /// were written and may not have arrived are told so.
    pub fn handle_stream_down(&mut self, id: StreamId, end: &StreamEnd, last_written: u64, now: Instant) {
        let Some(mut stream) = self.stream.take_if(|stream| stream.id == id) else { return };
        let SessionSettings { confirm_after, steady_after, .. } = self.settings;
        // Whoever owes an answer may have received nothing for long.
        let is_doubtful = stream.is_given_up || self.liveness.as_ref().is_some_and(Liveness::is_asking);
        if !is_doubtful && let Some(before) = now.checked_sub(confirm_after) {
            stream.confirm(before);
        }
        let is_in_order = end.is_clean() && !stream.is_given_up;
        let has_arrived = is_in_order || (!is_doubtful && stream.is_quiet(confirm_after, now));
        let is_steady = stream.is_answered || now.duration_since(stream.began_at) >= steady_after;
        let is_ours = stream.is_closing;
        let Remains { is_whole, unwritten, unreported, unconfirmed } = stream.end(last_written);
        let is_clean = has_arrived && is_whole && self.granted.is_empty();
        self.granted.clear();
        for letter in unwritten.into_iter().rev() {
            self.mail_bytes += letter.bytes.len();
            self.mail.push_front(letter);
        }
        let uncertain = if has_arrived { Ok(()) } else { Err(UNCERTAIN) };
        let unconfirmed = unconfirmed.into_iter().filter(|_| !has_arrived);
        for (shard, message) in unconfirmed.chain(unreported) {
            self.out.push_back(SessionOutput::Fate { shard, message, fate: uncertain });
        }
        self.out.push_back(SessionOutput::LaneLost { is_clean });
        // A partner that ends a stream in order is there, even if it did not take everything.
        if !is_clean && !is_in_order {
            self.lose(end.condition());
        }
        if is_steady {
            self.backoff.reset();
        } else if !is_ours {
            self.backoff.fail();
        }
        if self.is_lost || !(is_steady || is_ours) {
            self.dial = Dial::Waiting { until: now + self.backoff.wait() };
        }
        self.go_on(now);
    }

    fn lose(&mut self, condition: &'static str) {
        self.condition = condition;
        if !std::mem::replace(&mut self.is_lost, true) {
            self.out.push_back(SessionOutput::Reachable { is_reachable: false, condition });
        }
    }

    /// A dial gave no stream: what waits is bounced, each once (XS-DNS-06).
    pub fn handle_dial_failed(&mut self, end: &StreamEnd, now: Instant) {
        if !matches!(self.dial, Dial::Running { .. }) {
            return;
        }
        let condition = end.condition();
        self.backoff.fail();
        let wait = match end {
            // Our own policy: a dial does not change it.
            StreamEnd::Refused(_) => LOOK_AGAIN,
            _ => self.backoff.wait(),
        };
        self.dial = Dial::Waiting { until: now + wait };
        self.bounce_mail(condition);
        self.lose(condition);
    }

    /// The partner answered a ping.
    pub fn handle_pong(&mut self, id: u64, now: Instant) {
        let is_answered = self.liveness.as_mut().is_some_and(|liveness| liveness.answered(id, now));
        if let Some(stream) = self.stream.as_mut().filter(|_| is_answered) {
            stream.is_answered = true;
        }
    }

    /// How the partner stands. Decides, when time has passed, whether a lost one is tried again.
    pub fn handle_standing(&mut self, standing: Standing) {
        self.standing = standing;
    }

    /// A partner that is waited for is to be tried now: an operator wants it, or it came to us by itself.
    pub fn handle_retry(&mut self, now: Instant) {
        if let Dial::Waiting { .. } = self.dial {
            self.start_dial(now);
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.dial {
            Dial::Running { until } if until <= now => {
                let end = StreamEnd::Unreachable("no answer in time".to_owned());
                self.handle_dial_failed(&end, now);
            }
            Dial::Waiting { until } if until <= now => {
                self.dial = Dial::Idle;
                if self.is_lost && self.stream.is_none() {
                    self.try_again(now);
                }
            }
            _ => {}
        }
        if let Some(stream) = &mut self.stream
            && stream.takes()
            && self.granted.is_empty()
            && stream.wrote_at + self.settings.idle_close <= now
        {
            stream.is_closing = true;
            self.out.push_back(SessionOutput::Close(stream.id));
        }
        self.look_after(now);
        self.go_on(now);
    }

    /// A lost partner is dialled for its own sake while there are pairs with it: their contacts are to be known again.
    fn try_again(&mut self, now: Instant) {
        let Standing { is_configured, has_pairs } = self.standing;
        if !is_configured {
            self.bounce_mail("not-allowed");
        }
        if !has_pairs && self.mail.is_empty() {
            self.is_lost = false;
            self.out.push_back(SessionOutput::Forgotten);
            // Nothing that shards still owe concerns anybody: they get rid of it, and ask anew for what comes later.
            for (shard, _) in self.wanting.drain(..) {
                self.granted.push((shard, LEAST_GRANT_BYTES));
                self.out.push_back(SessionOutput::Grant { shard, bytes: LEAST_GRANT_BYTES });
            }
        } else if is_configured {
            self.start_dial(now);
        } else {
            self.dial = Dial::Waiting { until: now + LOOK_AGAIN };
        }
    }

    /// Asks whether the partner still listens, or finds that it does not.
    fn look_after(&mut self, now: Instant) {
        let (Some(stream), Some(liveness), Some((local, remote))) =
            (&mut self.stream, &mut self.liveness, &self.pinged)
        else {
            return;
        };
        let id = next_random(&mut self.random);
        if !stream.takes() {
            return;
        }
        match liveness.due(id, now) {
            Some(Due::Ping(id)) => {
                let bytes = format!(
                    "<iq type='get' id='{PING_ID}{id:016x}' from='{local}' to='{remote}'>\
                     <ping xmlns='urn:xmpp:ping'/></iq>"
                )
                .into_bytes();
                let bytes = Bytes::from(bytes);
                stream.hand_over(1, bytes.len());
                self.out.push_back(SessionOutput::Stanzas { stream: stream.id, count: 1, bytes });
            }
            Some(Due::Dead) => {
                stream.is_given_up = true;
                self.out.push_back(SessionOutput::GiveUp(stream.id));
            }
            None => {}
        }
    }

    fn bounce_mail(&mut self, condition: &'static str) {
        self.mail_bytes = 0;
        while let Some(letter) = self.mail.pop_front() {
            self.bounce(&letter, condition);
        }
    }

    fn bounce(&mut self, letter: &Letter, condition: &'static str) {
        if let Some(message) = letter.message {
            self.out.push_back(SessionOutput::Fate { shard: letter.shard, message, fate: Err(condition) });
        }
    }

    fn go_on(&mut self, now: Instant) {
        let Some(stream) = &mut self.stream else {
            if self.dial == Dial::Idle && !(self.mail.is_empty() && self.wanting.is_empty()) {
                self.start_dial(now);
            }
            return;
        };
        if !stream.takes() {
            // What waits goes by the next one.
            return;
        }
        while stream.window > 0
            && let Some(letter) = self.mail.pop_front()
        {
            self.mail_bytes -= letter.bytes.len();
            let number = stream.hand_over(1, letter.bytes.len());
            stream.wrote_at = now;
            if let Some(liveness) = &mut self.liveness {
                liveness.wrote();
            }
            let bytes = letter.bytes.clone();
            self.out.push_back(SessionOutput::Stanzas { stream: stream.id, count: 1, bytes });
            stream.keep(number, letter);
        }
        // What is left of the window is divided among those who ask, so that no shard starves the others.
        while stream.window >= LEAST_GRANT_BYTES
            && let Some((shard, owed)) = self.wanting.pop_front()
        {
            let share = stream.window / (self.wanting.len() + 1);
            let bytes = share.min(owed.max(LEAST_GRANT_BYTES)).max(LEAST_GRANT_BYTES).min(stream.window);
            stream.window -= bytes;
            self.granted.push((shard, bytes));
            self.out.push_back(SessionOutput::Grant { shard, bytes });
        }
    }

    fn start_dial(&mut self, now: Instant) {
        self.dial = Dial::Running { until: now + self.settings.dial_timeout };
        self.out.push_back(SessionOutput::Dial);
    }
}

/// xorshift64*: its high bits are good even for seeds that are alike.
fn next_random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// The number of a ping by the id of its answer.
pub(crate) fn number_of_pong(id: &str) -> Option<u64> {
    u64::from_str_radix(id.strip_prefix(PING_ID)?, 16).ok()
}

/// What the sender of a message is told that was written and may not have arrived.
const UNCERTAIN: &str = "remote-server-timeout";
/// How often it is looked whether a partner that we refuse is one again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// What the ids of our pings begin with.
const PING_ID: &str = "tombolo-ping-";
/// A grant smaller than this is not worth a turn of a shard.
const LEAST_GRANT_BYTES: usize = 4096;

#[cfg(test)]
mod tests;
