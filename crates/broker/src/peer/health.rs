//! The health of a front end: whether it is there, when it is asked, and when it is dialled. Pure.
//!
//! What its connection does and `now` go in; dials, questions and changes of its standing come out. The peer around it
//! sends and dials.
//!
//! A front end is *up* while its connection proved good: something was heard by it, or it lasted a while. It is *doubtful*
//! from the end of that connection, an OPTIONS without an answer, or an OPTIONS answered with 503; *lost* when it is not up
//! again within the grace. Silence counts only for a front end that answered an OPTIONS before, since some never do.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tombolo_interwork::owner::PeerHealth;
use tombolo_runtime::{Backoff, BackoffSettings};

/// What a front end's health is judged by.
#[derive(Debug, Clone, Copy)]
pub struct HealthSettings {
    /// It is asked when nothing was heard for so long.
    pub ask_after: Duration,
    /// It answers within this time.
    pub answer_within: Duration,
    /// Questions in a row without an answer after which the connection is left for a new one.
    pub max_unanswered: u32,
    /// A connection that lasted so long counts as good though nothing was heard by it, and the next failure as the first.
    pub steady_after: Duration,
    /// A front end that was doubtful for so long is lost.
    pub grace: Duration,
    /// The waits between dials.
    pub backoff: BackoffSettings,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            ask_after: Duration::from_secs(30),
            answer_within: Duration::from_secs(10),
            max_unanswered: 3,
            steady_after: Duration::from_secs(30),
            grace: Duration::from_secs(60),
            backoff: BackoffSettings { floor: Duration::from_secs(1), cap: Duration::from_secs(30) },
        }
    }
}

/// Why a front end is not up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// It was not heard yet.
    Unheard,
    /// Its connection ended.
    Ended,
    /// No connection could be made.
    Unreachable,
    /// It does not answer.
    Silent,
    /// It answers OPTIONS with 503.
    Refusing,
}

impl Doubt {
    /// For logs and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unheard => "not heard yet",
            Self::Ended => "its connection ended",
            Self::Unreachable => "no connection",
            Self::Silent => "no answer to OPTIONS",
            Self::Refusing => "503 to OPTIONS",
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthOutput {
    /// Open a connection.
    Dial,
    /// Send an OPTIONS by the connection.
    Ask,
    /// Close the connection: nobody answers by it.
    Leave,
    /// Tell everybody.
    Changed(PeerHealth),
}

#[derive(Debug)]
struct Connection {
    since: Instant,
    /// It shows by itself whether its other end is there: its end is reported.
    is_reliable: bool,
    /// Something was heard by it.
    is_heard: bool,
    /// Since when an answer is awaited.
    asked: Option<Instant>,
    asked_last: Option<Instant>,
    ask_at: Instant,
    /// Questions in a row that were not answered.
    unanswered: u32,
    is_refusing: bool,
}

/// One front end's health. See the [module](self).
#[derive(Debug)]
pub struct FrontEndHealth {
    settings: HealthSettings,
    health: PeerHealth,
    since: Instant,
    doubt: Doubt,
    /// When a doubtful front end is lost.
    lost_at: Option<Instant>,
    connection: Option<Connection>,
    is_dialling: bool,
    /// No dial before this time; without a connection one is due then.
    dial_at: Option<Instant>,
    backoff: Backoff,
    /// It answered an OPTIONS before.
    has_answered: bool,
    out: VecDeque<HealthOutput>,
}

impl FrontEndHealth {
    /// A front end that was not heard yet and is dialled at once. `seed` spreads its dials.
    pub fn new(settings: HealthSettings, seed: u64, now: Instant) -> Self {
        Self {
            backoff: Backoff::new(settings.backoff, seed),
            settings,
            health: PeerHealth::Doubtful,
            since: now,
            doubt: Doubt::Unheard,
            lost_at: Some(now + settings.grace),
            connection: None,
            is_dialling: false,
            dial_at: Some(now),
            has_answered: false,
            out: VecDeque::new(),
        }
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self) -> Option<HealthOutput> {
        self.out.pop_front()
    }

    /// When [`FrontEndHealth::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let is_wanting = self.connection.is_none() && !self.is_dialling;
        let dial = self.dial_at.filter(|_| is_wanting);
        let connection = self.connection.as_ref();
        let ask = connection.map(|connection| match connection.asked {
            Some(at) => at + self.settings.answer_within,
            None => connection.ask_at,
        });
        let steady = connection.filter(|connection| self.may_become_steady(connection));
        let steady = steady.map(|connection| connection.since + self.settings.steady_after);
        [self.lost_at, dial, ask, steady].into_iter().flatten().min()
    }

    /// How it stands, and since when.
    pub fn health(&self) -> (PeerHealth, Instant) {
        (self.health, self.since)
    }

    /// Why it is not up.
    pub fn doubt(&self) -> Option<Doubt> {
        (self.health != PeerHealth::Up).then_some(self.doubt)
    }

    /// When it is dialled next; `None` while there is a connection or a dial.
    pub fn next_dial(&self) -> Option<Instant> {
        self.dial_at.filter(|_| self.connection.is_none() && !self.is_dialling)
    }

    /// No dial is allowed yet: it failed a moment ago.
    pub fn must_wait(&self, now: Instant) -> bool {
        !self.is_dialling && self.dial_at.is_some_and(|at| at > now)
    }

    /// True unless it is known not to take anything.
    pub fn takes(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|connection| connection.unanswered == 0 && !connection.is_refusing)
    }

    /// It is to be tried now: it was configured anew, or somebody asks for it.
    pub fn retry(&mut self, now: Instant) {
        if self.connection.is_none() && !self.is_dialling {
            self.backoff.reset();
            self.dial_at = Some(now);
        }
    }

    /// It is no front end any more: nothing is dialled until [`FrontEndHealth::retry`].
    pub fn rest(&mut self) {
        self.is_dialling = false;
        self.dial_at = None;
    }

    /// What is sent goes by a new connection from now on.
    pub fn handle_connected(&mut self, is_reliable: bool, now: Instant) {
        self.is_dialling = false;
        self.dial_at = None;
        self.connection = Some(Connection {
            since: now,
            is_reliable,
            is_heard: false,
            asked: None,
            asked_last: None,
            ask_at: now,
            unanswered: 0,
            is_refusing: false,
        });
        self.ask_if_due(now);
    }

    /// Something came by the connection, perhaps a while ago: then it is no answer to what was asked since.
    pub fn handle_heard(&mut self, now: Instant) {
        let Some(connection) = &mut self.connection else { return };
        if connection.asked.unwrap_or(connection.since) > now {
            return;
        }
        connection.is_heard = true;
        connection.asked = None;
        connection.unanswered = 0;
        if !connection.is_refusing {
            connection.ask_at = now + self.settings.ask_after;
            self.rise(now);
        }
    }

    /// It answered an OPTIONS with this status.
    pub fn handle_answer(&mut self, status: u16, retry_after: Option<Duration>, now: Instant) {
        self.has_answered = true;
        let Some(connection) = &mut self.connection else { return };
        connection.is_refusing = status == 503;
        if status == 503 {
            connection.asked = None;
            connection.ask_at = now + retry_after.unwrap_or_default().clamp(MIN_REFUSAL, MAX_REFUSAL);
            self.fall(Doubt::Refusing, now);
        } else {
            self.handle_heard(now);
        }
    }

    /// A request was answered with 503 or not at all: it is asked at once whether it is the front end that fails, but not
    /// for each of many such requests.
    pub fn handle_suspicion(&mut self, now: Instant) {
        if let Some(connection) = self.connection.as_mut().filter(|connection| !connection.is_refusing) {
            let earliest = connection.asked_last.map_or(now, |at| at + SUSPICION_PAUSE);
            connection.ask_at = earliest.max(now).min(connection.ask_at);
            self.ask_if_due(now);
        }
    }

    /// The connection ended. One that proved good is dialled again at once, but not time and again: a front end that
    /// answers once and closes would be dialled as fast as it can.
    pub fn handle_ended(&mut self, now: Instant) {
        let Some(connection) = self.connection.take() else { return };
        let is_steady = now.saturating_duration_since(connection.since) >= self.settings.steady_after;
        if is_steady {
            self.backoff.reset();
        }
        let is_first = self.backoff.failures() == 0;
        self.backoff.fail();
        let is_good = connection.is_heard || is_steady;
        let wait = if is_good && is_first { Duration::ZERO } else { self.backoff.wait() };
        self.dial_at = Some(now + wait);
        self.fall(Doubt::Ended, now);
    }

    /// A dial gave no connection.
    pub fn handle_dial_failed(&mut self, now: Instant) {
        if !std::mem::take(&mut self.is_dialling) {
            return;
        }
        self.backoff.fail();
        self.dial_at = Some(now + self.backoff.wait());
        if self.connection.is_none() {
            self.fall(Doubt::Unreachable, now);
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.lost_at.is_some_and(|at| at <= now) {
            self.lost_at = None;
            self.change(PeerHealth::Lost, now);
        }
        if self.connection.is_none() && !self.is_dialling && self.dial_at.is_some_and(|at| at <= now) {
            self.is_dialling = true;
            self.out.push_back(HealthOutput::Dial);
        }
        self.miss_answer(now);
        self.ask_if_due(now);
        let is_steady = self.connection.as_ref().is_some_and(|connection| {
            self.may_become_steady(connection) && connection.since + self.settings.steady_after <= now
        });
        if is_steady {
            self.rise(now);
        }
    }

    /// The answer to a question is overdue.
    fn miss_answer(&mut self, now: Instant) {
        let Some(connection) = &mut self.connection else { return };
        let within = self.settings.answer_within;
        if connection.asked.take_if(|at| *at + within <= now).is_none() {
            return;
        }
        if !self.has_answered {
            // It may be one that never does.
            connection.ask_at = now + self.settings.ask_after;
            return;
        }
        connection.unanswered += 1;
        connection.ask_at = now;
        if connection.unanswered >= self.settings.max_unanswered {
            connection.ask_at = now + self.settings.ask_after;
            self.out.push_back(HealthOutput::Leave);
        }
        self.fall(Doubt::Silent, now);
    }

    fn ask_if_due(&mut self, now: Instant) {
        let Some(connection) = &mut self.connection else { return };
        if connection.asked.is_none() && connection.ask_at <= now {
            connection.asked = Some(now);
            connection.asked_last = Some(now);
            self.out.push_back(HealthOutput::Ask);
        }
    }

    /// Time alone says that a connection is good only where its end would be noticed, and where the front end is not known
    /// to answer questions.
    fn may_become_steady(&self, connection: &Connection) -> bool {
        self.health != PeerHealth::Up
            && connection.is_reliable
            && !connection.is_refusing
            && !self.has_answered
    }

    fn fall(&mut self, doubt: Doubt, now: Instant) {
        self.doubt = doubt;
        if self.health == PeerHealth::Up {
            self.lost_at = Some(now + self.settings.grace);
            self.change(PeerHealth::Doubtful, now);
        }
    }

    fn rise(&mut self, now: Instant) {
        self.lost_at = None;
        if self.health != PeerHealth::Up {
            self.change(PeerHealth::Up, now);
        }
    }

    fn change(&mut self, health: PeerHealth, now: Instant) {
        self.health = health;
        self.since = now;
        self.out.push_back(HealthOutput::Changed(health));
    }
}

/// From one question about a suspicion to the next.
const SUSPICION_PAUSE: Duration = Duration::from_secs(5);
/// How long a front end that answers OPTIONS with 503 is left alone, whatever it says itself.
const MIN_REFUSAL: Duration = Duration::from_secs(10);
const MAX_REFUSAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        Instant::now()
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A health, its time, and what it asked for.
    struct Stage {
        health: FrontEndHealth,
        now: Instant,
        begun: Instant,
    }

    impl Stage {
        fn new() -> Self {
            let now = start();
            Self { health: FrontEndHealth::new(HealthSettings::default(), 3, now), now, begun: now }
        }

        /// One that is up by a connection of now.
        fn up() -> Self {
            let mut stage = Self::new();
            assert_eq!(stage.outputs(), [HealthOutput::Dial]);
            stage.health.handle_connected(true, stage.now);
            assert_eq!(stage.outputs(), [HealthOutput::Ask]);
            stage.health.handle_answer(200, None, stage.now);
            assert_eq!(stage.outputs(), [HealthOutput::Changed(PeerHealth::Up)]);
            stage
        }

        fn outputs(&mut self) -> Vec<HealthOutput> {
            self.health.handle_timeout(self.now);
            std::iter::from_fn(|| self.health.poll_output()).collect()
        }

        /// Lets time pass from one deadline to the next; what was asked for, each with its second.
        fn pass(&mut self, span: Duration) -> Vec<(u64, HealthOutput)> {
            let end = self.now + span;
            let mut all = Vec::new();
            loop {
                let second = (self.now - self.begun).as_secs();
                all.extend(self.outputs().into_iter().map(|output| (second, output)));
                match self.health.poll_timeout().filter(|at| *at <= end) {
                    Some(at) => {
                        assert!(at > self.now, "a deadline moves on");
                        self.now = at;
                    }
                    None => break,
                }
            }
            self.now = end;
            all
        }
    }

    use HealthOutput::{Ask, Changed, Dial, Leave};
    use PeerHealth::{Doubtful, Lost, Up};

    #[test]
    fn sip_d_17_a_front_end_is_asked_after_30_s_of_silence_and_not_while_it_is_heard() {
        let mut stage = Stage::up();
        for _ in 0..10 {
            stage.pass(s(29));
            stage.health.handle_heard(stage.now);
        }
        assert_eq!(stage.pass(s(29)), []);
        assert_eq!(stage.pass(s(1)), [(320, Ask)]);
        stage.health.handle_answer(404, None, stage.now);
        assert_eq!(stage.outputs(), [], "any answer is one");
    }

    #[test]
    fn stox_p_62_silence_makes_doubtful_after_40_s_and_lost_after_the_grace() {
        let mut stage = Stage::up();
        let passed = stage.pass(s(105));
        let expected = [
            (30, Ask),
            (40, Changed(Doubtful)),
            (40, Ask),
            (50, Ask),
            (60, Leave),
            (90, Ask),
            (100, Changed(Lost)),
            (100, Leave),
        ];
        assert_eq!(passed, expected);
    }

    #[test]
    fn what_came_before_a_question_is_no_answer_to_it_and_the_next_one_is_due_30_s_after_it() {
        let mut stage = Stage::up();
        stage.now += s(25);
        stage.health.handle_heard(stage.begun + s(10));
        assert_eq!(stage.pass(s(15)), [(40, Ask)]);
        stage.health.handle_heard(stage.begun + s(39));
        assert_eq!(stage.pass(s(10)), [(50, Changed(Doubtful)), (50, Ask)]);
    }

    #[test]
    fn one_that_is_heard_again_is_up_at_once() {
        let mut stage = Stage::up();
        stage.pass(s(41));
        assert_eq!(stage.health.doubt(), Some(Doubt::Silent));
        assert!(!stage.health.takes());
        stage.health.handle_heard(stage.now);
        assert_eq!(stage.outputs(), [Changed(Up)]);
        assert!(stage.health.takes() && stage.health.doubt().is_none());
        assert_eq!(stage.pass(s(29)), []);
    }

    #[test]
    fn a_good_connection_that_ends_is_dialled_again_at_once() {
        let mut stage = Stage::up();
        stage.pass(s(5));
        stage.health.handle_ended(stage.now);
        assert_eq!(stage.outputs(), [Changed(Doubtful), Dial]);
        stage.health.handle_connected(true, stage.now);
        assert_eq!(stage.outputs(), [Ask]);
        assert_eq!(stage.health.health().0, Doubtful, "nothing was heard yet");
        stage.health.handle_answer(200, None, stage.now);
        assert_eq!(stage.outputs(), [Changed(Up)]);
    }

    /// Dials in ten minutes of a front end that takes each connection, and then does as `act` says.
    fn dials_of(act: impl Fn(&mut Stage)) -> usize {
        let mut stage = Stage::new();
        let (mut dials, end) = (0, stage.now + s(600));
        while stage.now < end {
            let outputs = stage.outputs();
            if outputs.contains(&Dial) {
                dials += 1;
                stage.health.handle_connected(true, stage.now);
                act(&mut stage);
                stage.health.handle_ended(stage.now);
            } else {
                stage.now = stage.health.poll_timeout().expect("it is dialled again").min(end);
            }
        }
        dials
    }

    #[test]
    fn whoever_takes_connections_and_closes_them_is_dialled_ever_more_rarely() {
        let dials = dials_of(|_| {});
        assert!((20..80).contains(&dials), "{dials}");
    }

    #[test]
    fn whoever_answers_once_and_closes_is_dialled_ever_more_rarely_too() {
        let dials = dials_of(|stage| {
            stage.health.handle_answer(200, None, stage.now);
            stage.now += Duration::from_millis(20);
        });
        assert!((20..80).contains(&dials), "{dials}");
    }

    #[test]
    fn a_dial_that_fails_is_tried_again_ever_more_rarely_and_a_steady_connection_begins_anew() {
        let mut stage = Stage::new();
        for _ in 0..8 {
            assert!(stage.outputs().contains(&Dial));
            stage.health.handle_dial_failed(stage.now);
            assert!(stage.health.must_wait(stage.now));
            stage.now = stage.health.next_dial().expect("it is tried again");
        }
        assert_eq!(stage.health.doubt(), Some(Doubt::Unreachable));
        assert!(stage.outputs().contains(&Dial));
        stage.health.handle_connected(true, stage.now);
        stage.health.handle_heard(stage.now);
        stage.now += s(31);
        stage.health.handle_ended(stage.now);
        assert!(stage.outputs().contains(&Dial), "at once");
    }

    #[test]
    fn one_that_never_answers_options_is_good_when_its_connection_lasted_and_is_not_doubted_for_silence() {
        let mut stage = Stage::new();
        stage.outputs();
        stage.health.handle_connected(true, stage.now);
        let passed = stage.pass(s(3600));
        let changes: Vec<_> = passed.iter().filter(|(_, output)| *output != Ask).collect();
        assert_eq!(changes, [&(30, Changed(Up))]);
    }

    #[test]
    fn a_dial_by_datagrams_proves_nothing_before_something_is_heard() {
        let mut stage = Stage::new();
        stage.outputs();
        stage.health.handle_connected(false, stage.now);
        assert!(stage.pass(s(70)).contains(&(60, Changed(Lost))));
        stage.health.handle_heard(stage.now);
        assert_eq!(stage.outputs(), [Changed(Up)]);
    }

    #[test]
    fn a_503_to_options_makes_doubtful_until_another_answer_and_a_503_to_others_asks_first() {
        let mut stage = Stage::up();
        stage.now += s(5);
        stage.health.handle_suspicion(stage.now);
        stage.health.handle_suspicion(stage.now);
        assert_eq!(stage.outputs(), [Ask], "one question is enough");
        stage.health.handle_answer(200, None, stage.now);
        assert_eq!(stage.outputs(), [], "it came from further away");
        for _ in 0..100 {
            stage.health.handle_suspicion(stage.now);
            stage.health.handle_heard(stage.now);
            stage.health.handle_suspicion(stage.now);
        }
        assert_eq!(stage.outputs(), [], "not for each of them");
        stage.now += s(5);
        stage.health.handle_suspicion(stage.now);
        stage.health.handle_answer(503, Some(s(7)), stage.now);
        stage.health.handle_heard(stage.now);
        assert_eq!(stage.outputs(), [Ask, Changed(Doubtful)], "what it sends by itself says nothing");
        assert!(!stage.health.takes());
        assert_eq!(stage.pass(s(10)), [(20, Ask)]);
        stage.health.handle_answer(200, None, stage.now);
        assert_eq!(stage.outputs(), [Changed(Up)]);
    }

    #[test]
    fn one_that_is_no_front_end_any_more_is_not_dialled_until_it_is_one_again() {
        let mut stage = Stage::up();
        stage.health.handle_ended(stage.now);
        stage.outputs();
        stage.health.rest();
        assert_eq!(stage.pass(s(600)), [(60, Changed(Lost))]);
        stage.health.retry(stage.now);
        assert_eq!(stage.outputs(), [Dial]);
    }
}
