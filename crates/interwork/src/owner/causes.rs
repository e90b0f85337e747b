//! When a SIP user is told that a message failed that was answered before: by an automatic message, the line of cause.
//!
//! In: messages that failed, and time. Out: the lines that are due now, each about one message or about several.
//!
//! No failed message of a person stays untold, and yet a program that answers each line, and whose answer fails too, must
//! not get one for each answer (RFC 3834). So the first line leaves at once, and what fails within a minute of it is
//! gathered for one further line. Each line doubles the gap to the next, up to ten minutes; a pair that was told nothing for
//! so long begins anew.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tombolo_presence::Address;

use super::PeerKey;

/// A message from a user to a contact that failed behind its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateFailure {
    /// How the message came.
    pub peer: PeerKey,
    /// False where the contact's server refused it, so that it surely did not arrive.
    pub is_uncertain: bool,
    /// For people, at most [`CAUSE_LEN`] octets and `…`.
    pub cause: String,
}

/// What one line tells.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// The sender.
    pub user: Address,
    /// The recipient.
    pub contact: Address,
    /// Where the sender's message came from.
    pub peer: PeerKey,
    /// For people.
    pub body: String,
}

/// The pairs of which a message failed lately.
#[derive(Debug, Default)]
pub struct Causes {
    pairs: HashMap<Pair, Told, RandomState>,
    /// The same by when they are to be looked at next.
    due: BTreeMap<Due, Pair>,
    next: u64,
    /// Lines of pairs that had to make room.
    displaced: VecDeque<Line>,
}

type Pair = (Address, Address);
/// A moment, and a number that keeps several of one moment apart.
type Due = (Instant, u64);

#[derive(Debug)]
struct Told {
    due: Due,
    /// When the last line left, and how long after it the next may; `None` before the first.
    last: Option<(Instant, Duration)>,
    gathered: Option<Gathered>,
}

#[derive(Debug)]
struct Gathered {
    count: usize,
    /// Of the last of them.
    failure: LateFailure,
    /// Some may have arrived, whatever became of the last.
    is_uncertain: bool,
}

impl Causes {
    /// Takes a message that failed. Ask [`Causes::poll_due`] for what is to be told.
    pub fn note(&mut self, user: &Address, contact: &Address, failure: LateFailure, now: Instant) {
        let pair = (user.clone(), contact.clone());
        if self.pairs.len() >= MAX_PAIRS && !self.pairs.contains_key(&pair) {
            self.displace();
        }
        let due = (now, self.next);
        let told = self.pairs.entry(pair.clone()).or_insert(Told { due, last: None, gathered: None });
        if told.last.is_none_or(|(at, gap)| at + gap <= now) {
            self.due.remove(&told.due);
            (told.due, self.next) = (due, self.next + 1);
            self.due.insert(due, pair);
        }
        let before = told.gathered.take();
        told.gathered = Some(Gathered {
            count: before.as_ref().map_or(0, |gathered| gathered.count) + 1,
            is_uncertain: failure.is_uncertain || before.is_some_and(|gathered| gathered.is_uncertain),
            failure,
        });
    }

    /// When [`Causes::poll_due`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next line that is due.
    pub fn poll_due(&mut self, now: Instant) -> Option<Line> {
        if let Some(line) = self.displaced.pop_front() {
            return Some(line);
        }
        loop {
            let pair = self.due.first_entry().filter(|first| first.key().0 <= now)?.remove();
            let Some(told) = self.pairs.get_mut(&pair) else { continue };
            let line = told.gathered.take();
            let wake_at = match (&line, told.last) {
                (Some(_), last) => {
                    let gap = last.map_or(FIRST_GAP, |(_, gap)| (gap * 2).min(LONGEST_GAP));
                    told.last = Some((now, gap));
                    now + gap
                }
                // What fails from now on is told at once.
                (None, Some((at, _))) if at + LONGEST_GAP > now => at + LONGEST_GAP,
                (None, _) => {
                    self.pairs.remove(&pair);
                    continue;
                }
            };
            (told.due, self.next) = ((wake_at, self.next), self.next + 1);
            self.due.insert(told.due, pair.clone());
            if let Some(gathered) = line {
                return Some(gathered.line(pair));
            }
        }
    }

    /// Forgets the pair that is due first; what it was not told yet is told now.
    fn displace(&mut self) {
        let Some((_, pair)) = self.due.pop_first() else { return };
        if let Some(gathered) = self.pairs.remove(&pair).and_then(|told| told.gathered) {
            self.displaced.push_back(gathered.line(pair));
        }
    }
}

impl Gathered {
    fn line(self, (user, contact): Pair) -> Line {
        let Self { count, failure: LateFailure { peer, cause, .. }, is_uncertain } = self;
        let what = match count {
            1 => "Your message".to_owned(),
            _ => format!("{count} more of your messages"),
        };
        let body = match is_uncertain {
            true => format!("{what} may not have arrived: {cause}"),
            false => format!("{what} could not be delivered: {cause}"),
        };
        Line { user, contact, peer, body }
    }
}

/// How long after a pair's first line the next may leave.
const FIRST_GAP: Duration = Duration::from_secs(60);
/// The most that this grows to.
const LONGEST_GAP: Duration = Duration::from_secs(600);
/// Pairs that are remembered.
const MAX_PAIRS: usize = 10_000;
/// Octets of a cause that the partner gave; a longer one ends with `…`.
pub const CAUSE_LEN: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_presence::Domain;

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        Instant::now()
    }

    fn address(n: usize) -> Address {
        Address::from_prepared(&format!("u{n}@x")).expect("legal")
    }

    fn failure(is_uncertain: bool) -> LateFailure {
        let peer = PeerKey::FrontEnd(Domain::from_prepared("x").expect("legal"));
        LateFailure { peer, is_uncertain, cause: "gone".to_owned() }
    }

    /// A message of user 0 to user 1 fails after so many seconds.
    fn fail(causes: &mut Causes, begin: Instant, second: u64, is_uncertain: bool) -> Vec<String> {
        let now = begin + Duration::from_secs(second);
        causes.note(&address(0), &address(1), failure(is_uncertain), now);
        lines(causes, begin, second)
    }

    fn lines(causes: &mut Causes, begin: Instant, second: u64) -> Vec<String> {
        let now = begin + Duration::from_secs(second);
        std::iter::from_fn(|| causes.poll_due(now)).map(|line| line.body).collect()
    }

    #[test]
    fn what_fails_soon_after_a_line_is_told_together_within_a_minute_and_none_stays_untold() {
        let (begin, mut causes) = (start(), Causes::default());
        assert_eq!(fail(&mut causes, begin, 0, false), ["Your message could not be delivered: gone"]);
        assert!(fail(&mut causes, begin, 10, true).is_empty());
        assert!(fail(&mut causes, begin, 50, false).is_empty());
        assert_eq!(causes.poll_timeout(), Some(begin + Duration::from_secs(60)));
        assert_eq!(lines(&mut causes, begin, 60), ["2 more of your messages may not have arrived: gone"]);
        assert!(lines(&mut causes, begin, 179).is_empty(), "told once");
        // The gap of two minutes is over.
        assert_eq!(fail(&mut causes, begin, 181, true), ["Your message may not have arrived: gone"]);
        assert!(lines(&mut causes, begin, 2000).is_empty());
        assert!(causes.pairs.is_empty() && causes.due.is_empty(), "what is over is forgotten");
        assert_eq!(fail(&mut causes, begin, 2001, false).len(), 1);
        assert_eq!(causes.poll_timeout(), Some(begin + Duration::from_secs(2061)), "it begins anew");
    }

    #[test]
    fn a_program_that_answers_each_line_and_fails_again_gets_one_in_ten_minutes_in_the_end() {
        for delay in [0, 1, 61, 130, 590] {
            let (begin, mut causes) = (start(), Causes::default());
            let (mut told, mut answer_at) = (Vec::new(), Some(0));
            for second in 0..20_000 {
                let new = match answer_at.take_if(|at| *at == second) {
                    Some(_) => fail(&mut causes, begin, second, false),
                    None => lines(&mut causes, begin, second),
                };
                assert!(new.len() <= 1);
                if !new.is_empty() {
                    told.push(second);
                    answer_at = Some(second + delay.max(1));
                }
            }
            let late = told.iter().filter(|second| **second > 5000).count();
            assert!(late <= 15_000 / 600 + 1, "delay {delay}: {late} lines in 15,000 s");
            assert!(told.len() <= late + 13, "delay {delay}: {} lines", told.len());
        }
    }

    #[test]
    fn pairs_that_are_remembered_are_bounded_and_one_that_makes_room_is_told_first() {
        let (begin, mut causes) = (start(), Causes::default());
        for n in 1..=MAX_PAIRS {
            causes.note(&address(0), &address(n), failure(false), begin);
        }
        assert_eq!(lines(&mut causes, begin, 0).len(), MAX_PAIRS);
        assert!(fail(&mut causes, begin, 1, false).is_empty(), "the second of the first pair");
        for n in 1..=MAX_PAIRS {
            causes.note(&address(n), &address(0), failure(false), begin + Duration::from_secs(2));
        }
        assert_eq!(lines(&mut causes, begin, 2).len(), MAX_PAIRS + 1, "nobody is left out");
        assert_eq!((causes.pairs.len(), causes.due.len()), (MAX_PAIRS, MAX_PAIRS));
    }
}
