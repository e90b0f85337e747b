//! One federated session: a domain of ours and a domain of a partner, outliving the streams between them.
//!
//! Wishes of shards, messages, and what streams report go in; dials, grants, stanzas and fates come out. Pure: the
//! actor around it only carries.
//!
//! Presence is pulled: a shard that owes something asks, and is granted a part of the stream's window when there is
//! room; what it then hands over is written in that order. Messages are pushed, and wait here, bounded, while there is
//! no stream. A dial that fails bounces what waits and is tried again, ever more rarely.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tombolo_edge::{StreamEnd, StreamId};
use tombolo_interwork::owner::MessageId;

/// Which shard of this process.
pub type ShardIndex = usize;

/// What a session is set to.
#[derive(Debug, Clone, Copy)]
pub struct SessionSettings {
    /// Messages that may wait for a stream.
    pub waiting_messages: usize,
    /// Octets of them.
    pub waiting_bytes: usize,
    /// The wait after the first dial that failed; it doubles with each further one.
    pub backoff_floor: Duration,
    /// Where that doubling ends.
    pub backoff_cap: Duration,
    /// A dial that gave no answer for so long has failed.
    pub dial_timeout: Duration,
    /// A stream that took nothing for so long is closed in order.
    pub idle_close: Duration,
    /// A break so long after the last write loses nothing: whatever was written has arrived.
    pub confirm_after: Duration,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            waiting_messages: 1000,
            waiting_bytes: 4 << 20,
            backoff_floor: Duration::from_secs(1),
            backoff_cap: Duration::from_secs(60),
            dial_timeout: Duration::from_secs(60),
            idle_close: Duration::from_secs(600),
            confirm_after: Duration::from_secs(30),
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
        bytes: Vec<u8>,
    },
    /// What became of a message.
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
    /// Close a stream in order.
    Close(StreamId),
}

#[derive(Debug)]
struct Letter {
    shard: ShardIndex,
    message: Option<MessageId>,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Stream {
    id: StreamId,
    /// Octets that may still be granted or written.
    window: usize,
    /// Number of the last stanza that was handed over.
    last: u64,
    /// Messages that were handed over and not reported as written.
    unwritten: VecDeque<(u64, Letter)>,
    wrote_at: Instant,
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
    failures: u32,
    is_lost: bool,
    /// Shards that ask for credit, in order, with about how much they owe.
    wanting: VecDeque<(ShardIndex, usize)>,
    /// What was granted and not used yet.
    granted: Vec<(ShardIndex, usize)>,
    mail: VecDeque<Letter>,
    mail_bytes: usize,
    random: u64,
    out: VecDeque<SessionOutput>,
}

impl Session {
    /// A session without a stream. `seed` spreads its dials.
    pub fn new(settings: SessionSettings, seed: u64) -> Self {
        Self {
            settings,
            stream: None,
            dial: Dial::Idle,
            failures: 0,
            is_lost: false,
            wanting: VecDeque::new(),
            granted: Vec::new(),
            mail: VecDeque::new(),
            mail_bytes: 0,
            random: seed | 1,
            out: VecDeque::new(),
        }
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
        let idle = self.stream.as_ref().map(|stream| stream.wrote_at + self.settings.idle_close);
        dial.into_iter().chain(idle).min()
    }

    /// True when nothing is open, wanted or waiting: the session may end.
    pub fn is_idle(&self) -> bool {
        self.stream.is_none()
            && self.dial == Dial::Idle
            && self.wanting.is_empty()
            && self.mail.is_empty()
            && self.granted.is_empty()
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
            // The stream ended meanwhile; the shard was told that what it sent since is lost.
            return;
        };
        stream.window = (stream.window + granted).saturating_sub(bytes.len());
        if count > 0 {
            stream.last += u64::from(count);
            stream.wrote_at = now;
            self.out.push_back(SessionOutput::Stanzas { stream: stream.id, count, bytes });
        }
        self.go_on(now);
    }

    /// A message stanza from a shard; bounced when too much waits.
    pub fn handle_message(
        &mut self,
        shard: ShardIndex,
        message: Option<MessageId>,
        bytes: Vec<u8>,
        now: Instant,
    ) {
        let letter = Letter { shard, message, bytes };
        let is_full = self.mail.len() >= self.settings.waiting_messages
            || self.mail_bytes + letter.bytes.len() > self.settings.waiting_bytes;
        if is_full {
            return self.bounce(&letter, "resource-constraint");
        }
        // While the partner is known to be unreachable nobody is kept waiting for the next try.
        if let Dial::Waiting { .. } = self.dial
            && self.stream.is_none()
            && message.is_some()
        {
            return self.bounce(&letter, "remote-server-timeout");
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
        self.failures = 0;
        self.stream =
            Some(Stream { id, window: window as usize, last: 0, unwritten: VecDeque::new(), wrote_at: now });
        if std::mem::take(&mut self.is_lost) {
            self.out.push_back(SessionOutput::Reachable { is_reachable: true, condition: "" });
        }
        self.go_on(now);
    }

    /// Octets were written, up to the stanza with number `last`.
    pub fn handle_written(&mut self, id: StreamId, last: u64, bytes: u32, now: Instant) {
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.id == id) else { return };
        stream.window += bytes as usize;
        while let Some((number, _)) = stream.unwritten.front()
            && *number <= last
        {
            if let Some((_, Letter { shard, message: Some(message), .. })) = stream.unwritten.pop_front() {
                self.out.push_back(SessionOutput::Fate { shard, message, fate: Ok(()) });
            }
        }
        self.go_on(now);
    }

    /// The stream ended. Messages that were not written go by the next one, under the same id and in order.
    pub fn handle_stream_down(&mut self, id: StreamId, end: &StreamEnd, last_written: u64, now: Instant) {
        let Some(mut stream) = self.stream.take_if(|stream| stream.id == id) else { return };
        let is_clean = end.is_clean() || now.duration_since(stream.wrote_at) > self.settings.confirm_after;
        self.granted.clear();
        while let Some((number, letter)) = stream.unwritten.pop_back() {
            if number > last_written {
                self.mail_bytes += letter.bytes.len();
                self.mail.push_front(letter);
            } else if let Some(message) = letter.message {
                let fate = Ok(());
                self.out.push_back(SessionOutput::Fate { shard: letter.shard, message, fate });
            }
        }
        self.out.push_back(SessionOutput::LaneLost { is_clean });
        if !is_clean && !std::mem::replace(&mut self.is_lost, true) {
            let condition = end.condition();
            self.out.push_back(SessionOutput::Reachable { is_reachable: false, condition });
        }
        if self.is_lost {
            self.dial = Dial::Waiting { until: now + self.backoff() };
        }
        self.go_on(now);
    }

    /// A dial gave no stream: what waits is bounced, each once (XS-DNS-06).
    pub fn handle_dial_failed(&mut self, end: &StreamEnd, now: Instant) {
        if !matches!(self.dial, Dial::Running { .. }) {
            return;
        }
        let condition = end.condition();
        self.failures = self.failures.saturating_add(1);
        self.dial = Dial::Waiting { until: now + self.backoff() };
        self.mail_bytes = 0;
        while let Some(letter) = self.mail.pop_front() {
            self.bounce(&letter, condition);
        }
        if !std::mem::replace(&mut self.is_lost, true) {
            self.out.push_back(SessionOutput::Reachable { is_reachable: false, condition });
        }
    }

    /// An operator wants a partner that is waited for tried now.
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
                // A lost partner is dialled for its own sake: its contacts are to be known again.
                if self.is_lost && self.stream.is_none() {
                    self.start_dial(now);
                }
            }
            _ => {}
        }
        if let Some(stream) = &mut self.stream
            && stream.wrote_at + self.settings.idle_close <= now
        {
            stream.wrote_at = now;
            self.out.push_back(SessionOutput::Close(stream.id));
        }
        self.go_on(now);
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
        while stream.window > 0
            && let Some(letter) = self.mail.pop_front()
        {
            self.mail_bytes -= letter.bytes.len();
            stream.window = stream.window.saturating_sub(letter.bytes.len());
            stream.last += 1;
            stream.wrote_at = now;
            let bytes = letter.bytes.clone();
            self.out.push_back(SessionOutput::Stanzas { stream: stream.id, count: 1, bytes });
            stream.unwritten.push_back((stream.last, letter));
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

    /// Doubled with each failure, up to half longer by chance.
    fn backoff(&mut self) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let exponent = self.failures.saturating_sub(1).min(16);
        let base = self.settings.backoff_floor.saturating_mul(1 << exponent).min(self.settings.backoff_cap);
        base + base * (self.random % 512) as u32 / 1024
    }
}

/// A grant smaller than this is not worth a turn of a shard.
const LEAST_GRANT_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        Instant::now()
    }

    fn session() -> Session {
        Session::new(SessionSettings::default(), 7)
    }

    fn outputs(session: &mut Session) -> Vec<SessionOutput> {
        std::iter::from_fn(|| session.poll_output()).collect()
    }

    const STREAM: StreamId = StreamId(1);

    #[test]
    fn a_wish_dials_once_and_is_granted_when_the_stream_is_up() {
        let (mut session, now) = (session(), start());
        session.handle_want(0, 10_000, now);
        session.handle_want(1, 10_000, now);
        assert_eq!(outputs(&mut session), [SessionOutput::Dial]);
        session.handle_stream_up(STREAM, 65_536, now);
        assert_eq!(
            outputs(&mut session),
            [
                SessionOutput::Grant { shard: 0, bytes: 10_000 },
                SessionOutput::Grant { shard: 1, bytes: 10_000 }
            ]
        );
    }

    #[test]
    fn grants_together_never_exceed_the_window() {
        let (mut session, now) = (session(), start());
        session.handle_stream_up(STREAM, 65_536, now);
        for shard in 0..4 {
            session.handle_want(shard, 1 << 20, now);
        }
        let granted = |outputs: Vec<SessionOutput>| -> usize {
            outputs.iter().map(|o| if let SessionOutput::Grant { bytes, .. } = o { *bytes } else { 0 }).sum()
        };
        assert_eq!(granted(outputs(&mut session)), 65_536);
        session.handle_stanzas(0, 100, vec![b' '; 65_536], now);
        assert_eq!(granted(outputs(&mut session)), 0, "nothing was written yet");
        session.handle_written(STREAM, 100, 65_536, now);
        assert!(granted(outputs(&mut session)) <= 65_536);
    }

    #[test]
    fn what_a_shard_did_not_use_is_granted_to_others() {
        let (mut session, now) = (session(), start());
        session.handle_stream_up(STREAM, 8192, now);
        session.handle_want(0, 8192, now);
        session.handle_want(1, 8192, now);
        outputs(&mut session);
        session.handle_stanzas(0, 0, Vec::new(), now);
        assert_eq!(outputs(&mut session), [SessionOutput::Grant { shard: 1, bytes: 8192 }]);
    }

    #[test]
    fn xs_dns_06_a_failed_dial_bounces_each_waiting_message_once() {
        let (mut session, now) = (session(), start());
        for n in 0..100 {
            session.handle_message(0, Some(MessageId(n)), b"<message/>".to_vec(), now);
        }
        assert_eq!(outputs(&mut session), [SessionOutput::Dial]);
        session.handle_dial_failed(&StreamEnd::NotFound, now);
        let fates = outputs(&mut session);
        let bounced = fates.iter().filter(|output| {
            matches!(output, SessionOutput::Fate { fate: Err("remote-server-not-found"), .. })
        });
        assert_eq!(bounced.count(), 100);
        session.handle_dial_failed(&StreamEnd::NotFound, now);
        assert!(outputs(&mut session).is_empty());
    }

    #[test]
    fn unwritten_messages_go_by_the_next_stream_in_order() {
        let (mut session, now) = (session(), start());
        session.handle_stream_up(STREAM, 65_536, now);
        for n in 1..=3 {
            session.handle_message(0, Some(MessageId(n)), vec![b'0' + n as u8], now);
        }
        session.handle_written(STREAM, 1, 1, now);
        outputs(&mut session);
        session.handle_stream_down(STREAM, &StreamEnd::Broken("cable".into()), 2, now);
        let down = outputs(&mut session);
        assert!(down.contains(&SessionOutput::Fate { shard: 0, message: MessageId(2), fate: Ok(()) }));
        assert!(down.contains(&SessionOutput::LaneLost { is_clean: false }));
        session.handle_stream_up(StreamId(2), 65_536, now);
        let up = outputs(&mut session);
        assert!(up.contains(&SessionOutput::Stanzas { stream: StreamId(2), count: 1, bytes: vec![b'3'] }));
        assert!(up.contains(&SessionOutput::Reachable { is_reachable: true, condition: "" }));
    }

    #[test]
    fn xs_str_10_messages_keep_their_order_over_forced_reconnects() {
        let (mut session, mut now) = (session(), start());
        let mut arrived: Vec<u8> = Vec::new();
        for round in 1..=20_u8 {
            let id = StreamId(u64::from(round));
            session.handle_stream_up(id, 65_536, now);
            for n in 0..10 {
                let number = (round - 1) * 10 + n;
                session.handle_message(0, Some(MessageId(u64::from(number))), vec![number], now);
            }
            let written: Vec<u8> = outputs(&mut session)
                .into_iter()
                .filter_map(|output| match output {
                    SessionOutput::Stanzas { stream, bytes, .. } => Some((stream, bytes)),
                    _ => None,
                })
                .inspect(|(stream, _)| assert_eq!(*stream, id, "one stream at a time"))
                .flat_map(|(_, bytes)| bytes)
                .collect();
            // The break comes behind any of them; what was not written goes by the next stream.
            let last = usize::from(round * 7) % (written.len() + 1);
            arrived.extend(&written[..last]);
            session.handle_stream_down(id, &StreamEnd::Broken("cable".into()), last as u64, now);
            now = session.poll_timeout().expect("it tries again");
            session.handle_timeout(now);
            outputs(&mut session);
        }
        session.handle_stream_up(StreamId(99), 65_536, now);
        for output in outputs(&mut session) {
            if let SessionOutput::Stanzas { bytes, .. } = output {
                arrived.extend(bytes);
            }
        }
        assert_eq!(arrived, (0..200).collect::<Vec<u8>>(), "each once, and none before another");
    }

    #[test]
    fn a_stream_closed_in_order_loses_nobody() {
        let (mut session, now) = (session(), start());
        session.handle_stream_up(STREAM, 65_536, now);
        session.handle_stream_down(STREAM, &StreamEnd::Closed, 0, now);
        assert_eq!(outputs(&mut session), [SessionOutput::LaneLost { is_clean: true }]);
        assert!(session.is_idle());
    }

    #[test]
    fn dials_come_ever_more_rarely_and_a_lost_partner_is_dialled_for_its_own_sake() {
        let (mut session, mut now) = (session(), start());
        session.handle_want(0, 1, now);
        outputs(&mut session);
        let mut waits = Vec::new();
        for _ in 0..10 {
            session.handle_dial_failed(&StreamEnd::Unreachable("x".into()), now);
            let next = session.poll_timeout().expect("it tries again");
            waits.push(next - now);
            now = next;
            session.handle_timeout(now);
            assert!(outputs(&mut session).contains(&SessionOutput::Dial));
        }
        assert!(waits[0] < Duration::from_secs(2) && waits[9] >= Duration::from_secs(60), "{waits:?}");
        assert!(waits[9] <= Duration::from_secs(90));
    }

    #[test]
    fn too_many_waiting_messages_are_refused() {
        let settings = SessionSettings { waiting_messages: 2, ..SessionSettings::default() };
        let (mut session, now) = (Session::new(settings, 1), start());
        for n in 0..3 {
            session.handle_message(0, Some(MessageId(n)), vec![b'x'], now);
        }
        let refused =
            SessionOutput::Fate { shard: 0, message: MessageId(2), fate: Err("resource-constraint") };
        assert!(outputs(&mut session).contains(&refused));
    }
}
