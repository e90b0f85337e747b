//! One federated session: a domain of ours and a domain of a partner, outliving the streams between them.
//!
//! Wishes of shards, messages, and what streams report go in; dials, grants, stanzas and fates come out. Pure: the
//! actor around it only carries.
//!
//! Presence is pulled: a shard that owes something asks, and is granted a part of the stream's window when there is
//! room; what it then hands over is written in that order. Messages are pushed, and wait here, bounded, while there is
//! no stream. A dial that fails bounces what waits and is tried again, ever more rarely; a stream that ends as soon as it
//! is up counts as one. A lost partner that nobody has a pair with is not tried for its own sake.
//!
//! Written is not received. [`markers`] asks the partner how far it has read our stream: one mechanism finds out that the
//! partner is dead, confirms messages, and tells what a stream that breaks has lost. A marker is a ping with a number; its
//! pong confirms every stanza that was handed over before it ([`stream`] keeps account by number). Messages ask for one
//! at once, other stanzas only on a stream that has not answered yet, and silence does after a while. What is written to
//! a partner that never answers pings is taken as received after `confirm_after`, longer than TCP lets unacknowledged
//! octets wait.
//!
//! What is on its way to a partner that answers pings is bounded by what it reads in about a second ([`flight`]); what
//! else there is waits with us: of presence the newest state only, and messages in order.
//!
//! A lost partner is back when a stream to it is up, and, if it ever answered pings, when it has answered one by that
//! stream: half of the path may be dead.
//!
//! Every end that was not in order, of our stream or of one of the partner's, makes the session look for the partner: it
//! dials, or asks by the stream that is up.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tombolo_edge::{StreamEnd, StreamId};
use tombolo_interwork::{error::Undelivered, owner::MessageId};
use tombolo_runtime::Backoff;

use self::{
    markers::{Answers, Due, MarkerSettings, Markers},
    stream::{Letter, Remains, Stream},
};

mod flight;
mod markers;
mod state;
mod stream;
mod values;

pub use state::SessionState;
pub use values::{SessionOutput, SessionSettings, ShardIndex, Standing};

#[derive(Debug, PartialEq, Eq)]
enum Dial {
    Idle,
    Running(Running),
    Waiting { until: Instant },
}

/// Dials that are under way: one, or a second one beside it.
#[derive(Debug, PartialEq, Eq)]
struct Running {
    /// When they have failed.
    until: Instant,
    count: u8,
    since: Instant,
    /// The partner came by itself while the first was under way: when to dial beside it.
    beside: Option<Instant>,
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
    /// Messages were handed over since a shard was granted anything.
    mail_went_last: bool,
    random: u64,
    /// Our domain and the partner's, when the partner may be pinged.
    pinged: Option<(String, String)>,
    /// Of the stream that is up.
    markers: Option<Markers>,
    /// What all streams so far have shown of the partner's pongs.
    answers: Answers,
    /// The partner may be gone: it is dialled for its own sake.
    is_doubted: bool,
    /// When its contacts are to be probed next, and when they were last.
    probe_at: Option<Instant>,
    probed_at: Option<Instant>,
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
            mail_went_last: false,
            random: seed | 1,
            pinged: None,
            markers: None,
            answers: Answers::default(),
            is_doubted: false,
            probe_at: None,
            probed_at: None,
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

    /// A session that takes the place of one that panicked while its partner was lost: it stays so until the next dial,
    /// for which senders of messages are given this condition.
    pub fn begin_lost(mut self, condition: &'static str, now: Instant) -> Self {
        self.is_lost = true;
        self.condition = condition;
        self.backoff.fail();
        self.dial = Dial::Waiting { until: now + self.backoff.wait() };
        self
    }

    /// The messages whose fate is open. Only for a session that panicked; it may panic again.
    pub fn take_open_messages(&mut self) -> Vec<(ShardIndex, MessageId)> {
        let mail = self.mail.drain(..).filter_map(|letter| Some((letter.shard, letter.message?)));
        let mut open: Vec<_> = mail.collect();
        if let Some(stream) = self.stream.take() {
            let Remains { unwritten, unconfirmed, .. } = stream.end(0);
            open.extend(unwritten.into_iter().filter_map(|letter| Some((letter.shard, letter.message?))));
            open.extend(unconfirmed);
        }
        open
    }

    /// A shard was rebuilt: what it was granted comes back, and what it wanted it will say again.
    pub fn handle_shard_rebuilt(&mut self, shard: ShardIndex, now: Instant) {
        self.wanting.retain(|(wanting, _)| *wanting != shard);
        let granted = self.granted.extract_if(.., |(granted, _)| *granted == shard);
        let bytes: usize = granted.map(|(_, bytes)| bytes).sum();
        if let Some(stream) = &mut self.stream {
            stream.window += bytes;
        }
        self.resume(now);
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self) -> Option<SessionOutput> {
        self.out.pop_front()
    }

    /// When [`Session::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let (dial, beside) = match &self.dial {
            Dial::Idle => (None, None),
            Dial::Running(running) => (Some(running.until), running.beside),
            Dial::Waiting { until } => (Some(*until), None),
        };
        let stream = self.stream.as_ref().filter(|stream| stream.takes());
        // A shard may be about to use its grant.
        let idle = stream.filter(|_| self.granted.is_empty());
        let idle = idle.map(|stream| stream.wrote_at + self.settings.idle_close);
        let markers = self.markers.as_ref().filter(|_| self.pinged.is_some());
        let ping = stream.zip(markers).and_then(|(stream, markers)| markers.poll_timeout(stream.began_at));
        [dial, beside, idle, ping, self.probe_at].into_iter().flatten().min()
    }

    /// True when nothing is open, wanted or waiting: the session may end.
    pub fn is_idle(&self) -> bool {
        self.stream.is_none()
            && self.dial == Dial::Idle
            && self.wanting.is_empty()
            && self.mail.is_empty()
            && self.granted.is_empty()
            && self.probe_at.is_none()
            && !self.is_lost
            && !self.is_doubted
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
        self.resume(now);
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
            stream.hand_over_lane(count, bytes.len(), now);
            if let Some(markers) = &mut self.markers {
                markers.handed_over(false);
            }
            self.out.push_back(SessionOutput::Stanzas { stream: stream.id, count, bytes: bytes.into() });
        }
        self.resume(now);
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
            return self.bounce(&letter, Undelivered::NotSent("resource-constraint"));
        }
        // While the partner is known to be unreachable nobody is kept waiting for the next try.
        if let Dial::Waiting { .. } = self.dial
            && self.stream.is_none()
            && self.is_lost
            && message.is_some()
        {
            return self.bounce(&letter, Undelivered::NotSent(self.condition));
        }
        self.mail_bytes += letter.bytes.len();
        self.mail.push_back(letter);
        self.resume(now);
    }

    /// A message is not to leave any more, as its sender was told: it is dropped unless a stream has it already.
    pub fn handle_withdraw(&mut self, shard: ShardIndex, message: MessageId) {
        let is_it = |letter: &Letter| letter.shard == shard && letter.message == Some(message);
        let at = self.mail.iter().position(is_it);
        if let Some(letter) = at.and_then(|at| self.mail.remove(at)) {
            self.mail_bytes -= letter.bytes.len();
        }
    }

    /// An outgoing stream for the session's pair is ready.
    pub fn handle_stream_up(&mut self, id: StreamId, window: u32, now: Instant) {
        if self.stream.is_some() {
            return self.out.push_back(SessionOutput::Close(id));
        }
        self.dial = Dial::Idle;
        self.stream = Some(Stream::new(id, window as usize, now));
        let SessionSettings { ping_after: every, ping_wait: within, ping_pace: pace, .. } = self.settings;
        let mut markers = Markers::new(MarkerSettings { every, within, pace }, self.answers);
        if std::mem::take(&mut self.is_doubted) || self.is_lost {
            markers.ask_soon();
        }
        self.markers = Some(markers);
        // A stream alone proves little: the partner's way to us, or ours behind the handshake, may be dead.
        if self.answers != Answers::Yes {
            self.mark_reachable();
        }
        self.resume(now);
    }

    /// Octets were written, up to the stanza with number `last`.
    pub fn handle_written(&mut self, id: StreamId, last: u64, bytes: u32, now: Instant) {
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.id == id) else { return };
        for (shard, message) in stream.handle_written(last, bytes, now) {
            self.out.push_back(SessionOutput::Fate { shard, message, fate: Ok(()) });
        }
        self.confirm_by_time(now);
        self.resume(now);
    }

    /// Only the time tells what has arrived at a partner that never answers pings.
    fn confirm_by_time(&mut self, now: Instant) {
        if let Some(stream) = &mut self.stream
            && self.answers != Answers::Yes
            && let Some(before) = now.checked_sub(self.settings.confirm_after)
        {
            stream.confirm_older(before);
        }
    }

    /// The stream ended. Messages that were not written go by the next one, under the same id and in order; those that
    /// were written and may not have arrived are told so.
    pub fn handle_stream_down(&mut self, id: StreamId, end: &StreamEnd, last_written: u64, now: Instant) {
        self.confirm_by_time(now);
        let Some(stream) = self.stream.take_if(|stream| stream.id == id) else { return };
        let markers = self.markers.take();
        let is_proved = markers.is_some_and(|markers| markers.is_proved());
        let is_in_order = end.is_clean() && !stream.is_given_up;
        let is_link = *end == StreamEnd::LinkLost;
        let is_steady = is_proved
            || !stream.is_given_up && now.duration_since(stream.began_at) >= self.settings.steady_after;
        let (is_ours, is_given_up) = (stream.is_closing, stream.is_given_up);
        let Remains { is_whole, is_confirmed, unwritten, arrived, unconfirmed, reported } =
            stream.end(last_written);
        let is_clean = (is_in_order || is_confirmed) && is_whole && self.granted.is_empty();
        let is_certain = is_clean && unconfirmed.is_empty();
        self.granted.clear();
        // Nobody knows how much an edge wrote of what it was handed before it was lost: sending it again could make it arrive
        // twice.
        let (lost, unwritten) = match is_link {
            true => (unwritten, Vec::new()),
            false => (Vec::new(), unwritten),
        };
        for letter in unwritten.into_iter().rev() {
            self.mail_bytes += letter.bytes.len();
            self.mail.push_front(letter);
        }
        for letter in lost {
            self.bounce(&letter, Undelivered::Uncertain);
        }
        let (known, uncertain) =
            if is_in_order { (reported, Ok(())) } else { (0, Err(Undelivered::Uncertain)) };
        let arrived = arrived.into_iter().map(|(shard, message)| (shard, message, Ok(())));
        let others = unconfirmed.into_iter().skip(known);
        for (shard, message, fate) in
            arrived.chain(others.map(|(shard, message)| (shard, message, uncertain)))
        {
            self.out.push_back(SessionOutput::Fate { shard, message, fate });
        }
        self.out.push_back(SessionOutput::LaneLost { is_clean });
        // A partner that ends a stream in order is there, even if it did not take everything; and the end of a link of ours
        // says nothing of it.
        if !is_in_order && (is_given_up || !is_certain) && !is_link {
            self.mark_unreachable(end.condition());
        }
        self.is_doubted = !is_in_order && !is_ours && self.standing.has_pairs;
        let is_fault = !(is_steady || is_ours || is_link);
        if is_steady {
            self.backoff.reset();
        } else if is_fault {
            self.backoff.fail();
        }
        if self.is_lost || is_fault {
            self.dial = Dial::Waiting { until: now + self.backoff.wait() };
        }
        self.resume(now);
    }

    /// A stream of the partner's to us ended, and not in order: what it carried may be lost, and the partner may be gone.
    pub fn handle_incoming_broken(&mut self, now: Instant) {
        if !self.is_lost {
            // A lost partner's contacts are probed when it is back.
            let earliest = self.probed_at.map_or(now, |at| at + self.settings.probe_pace);
            self.probe_at.get_or_insert(earliest.max(now));
        }
        match &mut self.markers {
            Some(markers) => markers.ask_soon(),
            None => self.is_doubted |= !self.is_lost && self.standing.has_pairs,
        }
        self.probe(now);
        self.resume(now);
    }

    fn probe(&mut self, now: Instant) {
        if self.probe_at.take_if(|at| *at <= now).is_some() {
            self.probed_at = Some(now);
            self.out.push_back(SessionOutput::Probe);
        }
    }

    fn mark_reachable(&mut self) {
        if std::mem::take(&mut self.is_lost) {
            self.out.push_back(SessionOutput::Reachable { is_reachable: true, condition: "" });
        }
    }

    fn mark_unreachable(&mut self, condition: &'static str) {
        self.condition = condition;
        if !std::mem::replace(&mut self.is_lost, true) {
            self.out.push_back(SessionOutput::Reachable { is_reachable: false, condition });
        }
    }

    /// A dial gave no stream: what waits is bounced, each once (XS-DNS-06), unless another dial is under way.
    pub fn handle_dial_failed(&mut self, end: &StreamEnd, now: Instant) {
        let Dial::Running(running) = &mut self.dial else { return };
        running.count -= 1;
        if running.count == 0 {
            self.fail_dial(end, now);
        }
    }

    fn fail_dial(&mut self, end: &StreamEnd, now: Instant) {
        let condition = end.condition();
        self.backoff.fail();
        let wait = match end {
            // Our own policy: a dial does not change it.
            StreamEnd::Refused(_) => LOOK_AGAIN,
            _ => self.backoff.wait(),
        };
        self.dial = Dial::Waiting { until: now + wait };
        self.is_doubted = false;
        self.bounce_mail(condition);
        self.mark_unreachable(condition);
    }

    /// The partner answered a ping.
    pub fn handle_pong(&mut self, id: u64, now: Instant) {
        let (Some(stream), Some(markers)) = (&mut self.stream, &mut self.markers) else { return };
        if let Some(confirmed) = markers.answered(id, now) {
            self.answers = Answers::Yes;
            stream.confirm(confirmed.up_to);
            stream.flight.handle_pong(confirmed.mark, confirmed.took);
            self.mark_reachable();
            self.resume(now);
        }
    }

    /// How the partner stands. Decides whether it is dialled for its own sake.
    pub fn handle_standing(&mut self, standing: Standing) {
        self.standing = standing;
        self.is_doubted &= standing.has_pairs;
    }

    /// A partner that is waited for is to be tried now: an operator wants it, or it came to us by itself. A dial that is
    /// under way may hang on what the partner was before, so another one runs beside it; and a stream that is up may be
    /// dead for the same reason, so it is asked.
    pub fn handle_retry(&mut self, now: Instant) {
        if self.is_lost {
            // It may be another server than before, which answers no pings; that it speaks to us says as much.
            self.answers = Answers::Unknown;
            if self.stream.is_some() {
                self.mark_reachable();
            }
        }
        match &mut self.dial {
            Dial::Waiting { .. } => self.start_dial(now),
            Dial::Running(running) if running.count == 1 => {
                running.beside.get_or_insert((running.since + BESIDE_AFTER).max(now));
                self.dial_beside(now);
            }
            _ => {}
        }
        if let Some(markers) = &mut self.markers {
            markers.ask_soon();
            self.check_liveness(now);
        }
    }

    fn dial_beside(&mut self, now: Instant) {
        if let Dial::Running(running) = &mut self.dial
            && running.beside.take_if(|at| *at <= now).is_some()
            && running.count == 1
        {
            running.count += 1;
            running.until = now + self.settings.dial_timeout;
            self.out.push_back(SessionOutput::DialBeside);
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &self.dial {
            Dial::Running(running) if running.until <= now => {
                self.fail_dial(&StreamEnd::Unreachable("no answer in time".to_owned()), now);
            }
            Dial::Waiting { until } if *until <= now => {
                self.dial = Dial::Idle;
                if self.is_lost && self.stream.is_none() {
                    self.try_again(now);
                }
            }
            _ => self.dial_beside(now),
        }
        if let Some(stream) = &mut self.stream
            && stream.takes()
            && self.granted.is_empty()
            && stream.wrote_at + self.settings.idle_close <= now
        {
            stream.is_closing = true;
            self.out.push_back(SessionOutput::Close(stream.id));
        }
        self.probe(now);
        self.resume(now);
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

    /// Places a marker that is due, or finds that the partner is dead.
    fn check_liveness(&mut self, now: Instant) {
        let is_short = self.is_short();
        let (Some(stream), Some(markers), Some((local, remote))) =
            (&mut self.stream, &mut self.markers, &self.pinged)
        else {
            return;
        };
        if !stream.takes() {
            return;
        }
        let is_waited_for = is_short && self.granted.is_empty();
        if markers.answers() != Answers::Never && stream.flight.wants_mark(is_waited_for) {
            markers.ask_now();
        }
        let due = markers.due(stream.began_at, now);
        self.answers = markers.answers();
        match due {
            Some(Due::Marker) => {
                let id = next_random(&mut self.random);
                let behind = stream.last();
                let bytes = format!(
                    "<iq type='get' id='{PING_ID}{id:016x}' from='{local}' to='{remote}'>\
                     <ping xmlns='urn:xmpp:ping'/></iq>"
                )
                .into_bytes();
                let bytes = Bytes::from(bytes);
                stream.hand_over(1, bytes.len(), now);
                markers.place(id, behind, stream.flight.mark(), now);
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
            self.bounce(&letter, Undelivered::NotSent(condition));
        }
    }

    fn bounce(&mut self, letter: &Letter, why: Undelivered) {
        if let Some(message) = letter.message {
            self.out.push_back(SessionOutput::Fate { shard: letter.shard, message, fate: Err(why) });
        }
    }

    /// Does what can be done now: hands over what waits, grants, asks, or dials.
    fn resume(&mut self, now: Instant) {
        self.hand_over(now);
        let answers = self.answers;
        self.check_liveness(now);
        if self.answers != answers {
            // Nothing waits for the pongs of a partner that sends none.
            self.hand_over(now);
        }
    }

    fn hand_over(&mut self, now: Instant) {
        let Some(stream) = &mut self.stream else {
            let has_reason = self.is_doubted || !(self.mail.is_empty() && self.wanting.is_empty());
            if self.dial == Dial::Idle && has_reason {
                self.start_dial(now);
            }
            return;
        };
        if !stream.takes() {
            // What waits goes by the next one.
            return;
        }
        let is_asking = self.markers.as_ref().is_some_and(Markers::is_asking);
        stream.flight.note_idle(is_asking, now);
        // Messages and presence go by turns where both wait.
        let kept = match (self.wanting.is_empty(), self.mail_went_last) {
            (true, _) => 0,
            (false, false) => self.room_for_mail() / 2,
            (false, true) => usize::MAX,
        };
        while self.room_for_mail() > kept
            && let Some(stream) = &mut self.stream
            // Messages to a partner that stopped answering wait for its answer.
            && (stream.has_account() || self.answers != Answers::Yes)
            && let Some(letter) = self.mail.pop_front()
        {
            self.mail_bytes -= letter.bytes.len();
            let number = stream.hand_over(1, letter.bytes.len(), now);
            // An answer for which nobody waits keeps no stream open: two servers that ping each other would never rest.
            if letter.message.is_some() {
                stream.wrote_at = now;
                if let Some(markers) = &mut self.markers {
                    markers.handed_over(true);
                }
            }
            let bytes = letter.bytes.clone();
            self.out.push_back(SessionOutput::Stanzas { stream: stream.id, count: 1, bytes });
            stream.keep(number, letter);
            self.mail_went_last = true;
        }
        // What is left is divided among those who ask, so that no shard starves the others.
        let is_paced = self.room_on_way().is_some();
        while let room = self.room()
            && room >= LEAST_GRANT_BYTES
            && let Some(stream) = &mut self.stream
            && let Some((shard, owed)) = self.wanting.pop_front()
        {
            let most = if is_paced { stream.flight.part() } else { room };
            let share = (room / (self.wanting.len() + 1)).min(owed).min(most);
            let bytes = share.max(LEAST_GRANT_BYTES);
            stream.window -= bytes;
            self.granted.push((shard, bytes));
            self.mail_went_last = false;
            self.out.push_back(SessionOutput::Grant { shard, bytes });
        }
        if self.is_short()
            && let Some(stream) = &mut self.stream
        {
            stream.flight.is_short();
        }
    }

    /// Octets that may be granted or handed over now.
    fn room(&self) -> usize {
        let Some(stream) = &self.stream else { return 0 };
        stream.window.min(self.room_on_way().unwrap_or(usize::MAX))
    }

    /// The same for messages. They do not grow old as states do, so some of them need not wait to hear whether a partner
    /// sends pongs.
    fn room_for_mail(&self) -> usize {
        let Some(stream) = &self.stream else { return 0 };
        let before_pongs = match self.answers {
            Answers::Unknown => stream.flight.room_in(MAIL_BEFORE_PONGS).min(stream.window),
            Answers::Yes | Answers::Never => 0,
        };
        self.room().max(before_pongs)
    }

    /// Octets that may go on their way to the partner. `None` for one that does not say how far it has read.
    fn room_on_way(&self) -> Option<usize> {
        let (stream, markers, _) = (self.stream.as_ref()?, self.markers.as_ref()?, self.pinged.as_ref()?);
        let granted: usize = self.granted.iter().map(|(_, bytes)| bytes).sum();
        (markers.answers() != Answers::Never).then(|| stream.flight.room().saturating_sub(granted))
    }

    /// True when something waits until the partner has read more.
    fn is_short(&self) -> bool {
        let waits = !(self.mail.is_empty() && self.wanting.is_empty());
        waits && self.room_on_way().is_some_and(|room| room < LEAST_GRANT_BYTES)
    }

    fn start_dial(&mut self, now: Instant) {
        let until = now + self.settings.dial_timeout;
        self.dial = Dial::Running(Running { until, count: 1, since: now, beside: None });
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

/// How often it is checked whether policy allows a refused partner again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// The age at which a pending dial gets a second one in parallel, after the partner has connected to us.
const BESIDE_AFTER: Duration = Duration::from_secs(2);
/// What the ids of our pings begin with.
const PING_ID: &str = "tombolo-ping-";
/// Octets of messages that leave before a partner has sent its first pong.
const MAIL_BEFORE_PONGS: usize = 32 << 10;
/// A grant smaller than this is not worth a turn of a shard.
const LEAST_GRANT_BYTES: usize = 4096;

#[cfg(test)]
mod tests;
