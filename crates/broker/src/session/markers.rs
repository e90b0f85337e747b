//! Markers: pings (XEP-0199) that tell how far the partner has read our outgoing stream, and whether it still does.
//!
//! In: what was handed to the stream, pongs, and `now`. Out: when a marker is due, what a pong confirms, and that the
//! partner is dead. It writes nothing and knows no stanza.
//!
//! A server reads a stream in order, so the pong of a marker confirms everything that was handed over before it, however
//! many stanzas that is. A marker is due
//!
//! - as soon as a confirmation is owed, at most one each [`MarkerSettings::pace`]: a message was written, something was
//!   written to a stream that has not answered yet, or somebody called [`Markers::ask_soon`];
//! - at once, when what is on its way fills its window ([`Flight`](super::flight::Flight));
//! - else [`MarkerSettings::every`] after the last sign of life, while the stream carries anything (XS-STR-11).
//!
//! Only pongs count as signs of life: stanzas of the partner come by its own stream to us, which may work while ours
//! leads nowhere. A marker that stays unanswered for [`MarkerSettings::within`] means that the partner is dead, unless it
//! never answered any ping: it may have no way to us, so TCP decides about its stream (see `tombolo_net::connect`).

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::flight::Mark;

/// How often a partner is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct MarkerSettings {
    /// After a silence of this length.
    pub(super) every: Duration,
    /// How long an answer may take.
    pub(super) within: Duration,
    /// From one marker to the next, at least.
    pub(super) pace: Duration,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Write a marker and call [`Markers::place`].
    Marker,
    /// The partner answered before and does not any more.
    Dead,
}

/// What a pong says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Confirmed {
    /// The number of the last stanza that the partner has read for certain.
    pub(super) up_to: u64,
    /// Where the marker stood.
    pub(super) mark: Mark,
    /// How long its pong took.
    pub(super) took: Duration,
}

/// What is known of a partner's pongs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Answers {
    /// It was not asked, or the answer may still come.
    #[default]
    Unknown,
    /// It was asked and said nothing, and it never had: it may have no way to us, or know no pings.
    Never,
    /// It has answered.
    Yes,
}

#[derive(Debug)]
struct Marker {
    id: u64,
    /// The number of the last stanza before it.
    behind: u64,
    mark: Mark,
    at: Instant,
}

/// The markers of one stream. See the [module](self).
#[derive(Debug)]
pub(super) struct Markers {
    settings: MarkerSettings,
    /// Unanswered ones, oldest first; at most [`MAX_OPEN`].
    open: VecDeque<Marker>,
    asked_at: Option<Instant>,
    /// The last pong of this stream.
    heard_at: Option<Instant>,
    /// A marker is wanted as soon as [`MarkerSettings::pace`] allows.
    is_owed: bool,
    /// The stream carries something that matters, so it is asked about now and then.
    is_watched: bool,
    /// A marker is wanted at once: what is said next waits for its pong.
    is_waited_for: bool,
    /// On this stream or an earlier one.
    answers: Answers,
    /// The partner let a marker of this stream go unanswered and had never answered any: no hurry with the next.
    is_mute: bool,
}

impl Markers {
    /// A stream that begins; `answers` is what the partner's earlier streams have shown.
    pub(super) fn new(settings: MarkerSettings, answers: Answers) -> Self {
        Self {
            settings,
            open: VecDeque::new(),
            asked_at: None,
            heard_at: None,
            is_owed: false,
            is_watched: false,
            is_waited_for: false,
            answers,
            is_mute: false,
        }
    }

    /// Something was handed over that may not be lost unnoticed. `is_message`: somebody waits to hear that it arrived.
    pub(super) fn handed_over(&mut self, is_message: bool) {
        self.is_watched = true;
        self.is_owed |= !self.is_mute && (is_message || self.heard_at.is_none());
    }

    /// Wants to know at once whether the partner still reads.
    pub(super) fn ask_soon(&mut self) {
        self.handed_over(true);
    }

    /// Wants a marker now, as what is said next waits for its pong.
    pub(super) fn ask_now(&mut self) {
        self.is_watched = true;
        self.is_waited_for = true;
    }

    /// What is known of the partner's pongs.
    pub(super) fn answers(&self) -> Answers {
        self.answers
    }

    /// A marker was written behind the stanza with number `behind`.
    pub(super) fn place(&mut self, id: u64, behind: u64, mark: Mark, now: Instant) {
        self.open.push_back(Marker { id, behind, mark, at: now });
        self.asked_at = Some(now);
        (self.is_owed, self.is_waited_for) = (false, false);
    }

    /// A pong came. `None` when it answers no open marker of this stream.
    pub(super) fn answered(&mut self, id: u64, now: Instant) -> Option<Confirmed> {
        let at = self.open.iter().position(|marker| marker.id == id)?;
        // Those before it were read too.
        let marker = self.open.drain(..=at).next_back()?;
        self.answers = Answers::Yes;
        self.is_mute = false;
        self.heard_at = Some(now);
        let took = now.saturating_duration_since(marker.at);
        Some(Confirmed { up_to: marker.behind, mark: marker.mark, took })
    }

    /// True while a pong is awaited.
    pub(super) fn is_asking(&self) -> bool {
        !self.open.is_empty()
    }

    /// True when the partner answered a ping of this very stream.
    pub(super) fn is_proved(&self) -> bool {
        self.heard_at.is_some()
    }

    /// When to call [`Markers::due`].
    pub(super) fn poll_timeout(&self, begun: Instant) -> Option<Instant> {
        let overdue = self.open.front().map(|marker| marker.at + self.patience());
        let next = (self.open.len() < MAX_OPEN).then(|| self.next_at(begun)).flatten();
        overdue.into_iter().chain(next).min()
    }

    /// How long the pong that is awaited may take before its absence means anything.
    fn patience(&self) -> Duration {
        if self.answers == Answers::Unknown { FIRST_WITHIN } else { self.settings.within }
    }

    /// When the next marker is due on a stream that began at `begun`.
    fn next_at(&self, begun: Instant) -> Option<Instant> {
        if self.is_waited_for {
            return Some(begun);
        }
        if self.is_owed {
            return Some(self.asked_at.map_or(begun, |at| at + self.settings.pace));
        }
        // While an answer is awaited, its absence is found out without a further question.
        (self.is_watched && self.open.is_empty())
            .then(|| self.asked_at.max(self.heard_at).unwrap_or(begun) + self.settings.every)
    }

    /// What is due on a stream that began at `begun`.
    pub(super) fn due(&mut self, begun: Instant, now: Instant) -> Option<Due> {
        let patience = self.patience();
        if let Some(first) = self.open.front_mut()
            && let Some(late) = now.checked_duration_since(first.at + patience)
        {
            if late > NOT_RUNNING {
                // The process was stopped meanwhile: the pong may be there and not be read yet.
                first.at = now + NOT_RUNNING - patience;
                return None;
            }
            match self.answers {
                Answers::Yes => return Some(Due::Dead),
                Answers::Never => {
                    self.open.clear();
                    (self.is_mute, self.is_owed) = (true, false);
                }
                // Its pong may still come, but nothing waits for it any more.
                Answers::Unknown => self.answers = Answers::Never,
            }
        }
        let is_due = self.open.len() < MAX_OPEN && self.next_at(begun).is_some_and(|at| at <= now);
        is_due.then_some(Due::Marker)
    }
}

/// Unanswered markers of a stream. What is written behind the last of them waits for a pong before it gets its own.
const MAX_OPEN: usize = 4;
/// How long to wait for a partner's first pong before assuming that it sends none.
const FIRST_WITHIN: Duration = Duration::from_secs(2);
/// A timer that fires so late tells of ourselves, not of the partner.
const NOT_RUNNING: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::{super::flight::Flight, *};

    const EVERY: Duration = Duration::from_secs(30);
    const WITHIN: Duration = Duration::from_secs(30);
    const PACE: Duration = Duration::from_secs(1);

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        Instant::now()
    }

    fn markers(answers: Answers) -> Markers {
        Markers::new(MarkerSettings { every: EVERY, within: WITHIN, pace: PACE }, answers)
    }

    fn mark() -> Mark {
        Flight::new(start()).mark()
    }

    #[test]
    fn a_stream_that_carries_nothing_is_not_asked_about() {
        let begun = start();
        let mut idle = markers(Answers::Yes);
        assert_eq!(idle.poll_timeout(begun), None);
        assert_eq!(idle.due(begun, begun + 100 * EVERY), None);
    }

    #[test]
    fn what_a_young_stream_carries_is_asked_about_at_once() {
        let begun = start();
        let mut young = markers(Answers::Unknown);
        young.handed_over(false);
        assert_eq!(young.poll_timeout(begun), Some(begun));
        assert_eq!(young.due(begun, begun), Some(Due::Marker));
    }

    #[test]
    fn one_marker_stands_for_many_messages_and_the_next_keeps_the_pace() {
        let begun = start();
        let mut busy = markers(Answers::Yes);
        for _ in 0..100 {
            busy.handed_over(true);
        }
        assert_eq!(busy.due(begun, begun), Some(Due::Marker));
        busy.place(1, 100, mark(), begun);
        assert_eq!(busy.due(begun, begun), None);
        busy.handed_over(true);
        assert_eq!(busy.due(begun, begun + PACE / 2), None);
        assert_eq!(busy.poll_timeout(begun), Some(begun + PACE));
        assert_eq!(busy.due(begun, begun + PACE), Some(Due::Marker));
        busy.place(2, 101, mark(), begun + PACE);
        let confirmed = busy.answered(2, begun + 2 * PACE).expect("asked");
        assert_eq!((confirmed.up_to, confirmed.took), (101, PACE), "in order, so the first was read too");
        assert_eq!(busy.answered(1, begun + PACE), None);
        assert_eq!(busy.answered(3, begun + PACE), None, "nobody asked that");
    }

    #[test]
    fn open_markers_are_bounded() {
        let (begun, mut frozen) = (start(), markers(Answers::Yes));
        let mut placed = 0;
        for second in 0..20 {
            frozen.handed_over(true);
            let now = begun + Duration::from_secs(second);
            if frozen.due(begun, now) == Some(Due::Marker) {
                placed += 1;
                frozen.place(second, second, mark(), now);
            }
        }
        assert_eq!(placed, MAX_OPEN);
        assert_eq!(
            frozen.poll_timeout(begun),
            Some(begun + WITHIN),
            "and the first one's end is not put off"
        );
    }

    #[test]
    fn xs_str_11_a_silence_of_30_s_is_asked_about_and_a_partner_that_answered_before_must_answer_again() {
        let begun = start();
        let mut quiet = markers(Answers::Unknown);
        quiet.handed_over(false);
        quiet.place(1, 1, mark(), begun);
        quiet.answered(1, begun).expect("asked");
        assert_eq!(quiet.poll_timeout(begun), Some(begun + EVERY));
        assert_eq!(quiet.due(begun, begun + EVERY - PACE), None);
        assert_eq!(quiet.due(begun, begun + EVERY), Some(Due::Marker));
        quiet.place(2, 1, mark(), begun + EVERY);
        assert_eq!(quiet.due(begun, begun + EVERY + WITHIN - PACE), None);
        assert_eq!(quiet.due(begun, begun + EVERY + WITHIN), Some(Due::Dead));
    }

    #[test]
    fn a_process_that_was_stopped_first_reads_what_came_meanwhile() {
        let begun = start();
        let mut stopped = markers(Answers::Yes);
        stopped.handed_over(true);
        stopped.place(1, 1, mark(), begun);
        let woken = begun + 10 * EVERY;
        assert_eq!(stopped.due(begun, woken), None);
        let again = stopped.poll_timeout(begun).expect("it looks again");
        assert!(again > woken && again <= woken + NOT_RUNNING);
        assert_eq!(stopped.due(begun, again), Some(Due::Dead));
        assert!(stopped.answered(1, again).is_some());
        assert_ne!(stopped.due(begun, again), Some(Due::Dead));
    }

    #[test]
    fn a_partner_that_never_answered_is_asked_on_and_not_given_up() {
        let begun = start();
        let mut mute = markers(Answers::Unknown);
        let (mut now, mut asked) = (begun, 0);
        for _ in 0..100 {
            mute.handed_over(false);
            match mute.due(begun, now) {
                Some(Due::Marker) => {
                    asked += 1;
                    mute.place(asked, 0, mark(), now);
                }
                Some(Due::Dead) => panic!("it may have no way to us"),
                None => {}
            }
            now += PACE;
        }
        assert!((5..=7).contains(&asked), "four at once, then one in 30 s: {asked} in 100 s");
    }
}
