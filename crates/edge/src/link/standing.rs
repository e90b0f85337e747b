//! How the links of this process stand, for operators: in reports, and in the part `link` of the process's health.
//!
//! In: what the two ends of a link find out about it. Out: reports, and the state of the part. Nothing is decided here.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tombolo_runtime::Clock;
use tombolo_telemetry::{Health, Part, PartState};

use super::journal::Journal;

/// The connection of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// Frames pass.
    Up,
    /// The edge has a gateway but no partner table from it yet, so it admits no partner.
    NoTable,
    /// The connection broke a moment ago. Streams and dials wait for the next one.
    Broken,
    /// There is no connection, and nothing waits for one.
    Down,
}

impl LinkState {
    /// The word that operators read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::NoTable => "without-table",
            Self::Broken => "broken",
            Self::Down => "down",
        }
    }
}

/// A link as it is at the moment.
#[derive(Debug, Clone)]
pub struct LinkReport {
    /// The other end: `edge HOST:PORT`, or `gateway`.
    pub peer: String,
    /// Whether it is connected.
    pub state: LinkState,
    /// For how long.
    pub in_state_for: Duration,
    /// The address of the other end while connected.
    pub remote: Option<SocketAddr>,
    /// Frames that the other end has not acknowledged.
    pub waiting_frames: usize,
    /// Octets of them.
    pub waiting_bytes: usize,
    /// Why it is not up.
    pub cause: Option<String>,
    /// Time until the next attempt; only where this end opens the link and waits.
    pub next_attempt: Option<Duration>,
}

/// Which end this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Edge,
    Gateway,
}

/// All links of one process. Clones share them.
#[derive(Clone)]
pub(super) struct Standings {
    side: Side,
    clock: Clock,
    part: Part,
    links: Arc<Mutex<Vec<Row>>>,
}

/// Sets how one link stands. Clones set the same link.
#[derive(Clone)]
pub(super) struct LinkStanding {
    standings: Standings,
    index: usize,
}

struct Row {
    peer: String,
    state: LinkState,
    since: Instant,
    remote: Option<SocketAddr>,
    cause: Option<String>,
    next_attempt: Option<Instant>,
    journal: Option<Arc<Journal>>,
}

impl Standings {
    /// Links to these peers, none of them up.
    pub(super) fn new(side: Side, peers: Vec<String>, health: &Health, clock: Clock) -> Self {
        let since = clock.now().instant;
        let links = peers.into_iter().map(|peer| Row {
            peer,
            state: LinkState::Down,
            since,
            remote: None,
            cause: None,
            next_attempt: None,
            journal: None,
        });
        let standings =
            Self { side, part: health.part("link"), links: Arc::new(Mutex::new(links.collect())), clock };
        standings.tell(&standings.links.lock());
        standings
    }

    /// The link to the peer at this place of the list.
    pub(super) fn link(&self, index: usize) -> LinkStanding {
        LinkStanding { standings: self.clone(), index }
    }

    /// All links.
    pub(super) fn reports(&self) -> Vec<LinkReport> {
        let now = self.clock.now().instant;
        self.links.lock().iter().map(|link| link.report(now)).collect()
    }

    fn tell(&self, links: &[Row]) {
        let (state, note) = verdict(self.side, links);
        self.part.set(state, note);
    }
}

impl LinkStanding {
    /// The link has a connection from or to `remote`, and its frames wait in `journal`.
    pub(super) fn connected(&self, state: LinkState, remote: Option<SocketAddr>, journal: &Arc<Journal>) {
        self.change(|link, now| {
            link.enter(state, now);
            link.remote = remote;
            link.cause = None;
            link.next_attempt = None;
            link.journal = Some(journal.clone());
        });
    }

    /// The edge has the gateway's partner table.
    pub(super) fn has_table(&self) {
        self.change(|link, now| {
            if link.state == LinkState::NoTable {
                link.enter(LinkState::Up, now);
            }
        });
    }

    /// The connection broke, and the link may go on by another one.
    pub(super) fn broken(&self, cause: String) {
        self.change(|link, now| {
            link.enter(LinkState::Broken, now);
            link.remote = None;
            link.cause = Some(cause);
        });
    }

    /// The link is over. A cause that was told before stays.
    pub(super) fn down(&self, cause: Option<String>) {
        self.change(|link, now| {
            link.enter(LinkState::Down, now);
            link.remote = None;
            link.cause = cause.or(link.cause.take());
            link.journal = None;
        });
    }

    /// An attempt to open a connection failed.
    pub(super) fn failed(&self, cause: String) {
        self.change(|link, _| link.cause = Some(cause));
    }

    /// The next attempt comes after this time.
    pub(super) fn tries_in(&self, wait: Duration) {
        self.change(|link, now| link.next_attempt = Some(now + wait));
    }

    fn change(&self, change: impl FnOnce(&mut Row, Instant)) {
        let now = self.standings.clock.now().instant;
        let mut links = self.standings.links.lock();
        if let Some(link) = links.get_mut(self.index) {
            change(link, now);
            self.standings.tell(&links);
        }
    }
}

impl Row {
    fn enter(&mut self, state: LinkState, now: Instant) {
        if self.state != state {
            self.state = state;
            self.since = now;
        }
    }

    fn report(&self, now: Instant) -> LinkReport {
        let (waiting_frames, waiting_bytes) =
            self.journal.as_ref().map_or((0, 0), |journal| journal.waiting());
        LinkReport {
            peer: self.peer.clone(),
            state: self.state,
            in_state_for: now.saturating_duration_since(self.since),
            remote: self.remote,
            waiting_frames,
            waiting_bytes,
            cause: self.cause.clone().filter(|_| self.state != LinkState::Up),
            next_attempt: self.next_attempt.map(|at| at.saturating_duration_since(now)),
        }
    }
}

/// An edge serves nobody without its gateway, so it is not ready then. A gateway has users of its own: a missing edge is
/// told, and the gateway is as ready as before.
fn verdict(side: Side, links: &[Row]) -> (PartState, String) {
    let trouble: Vec<&Row> = links.iter().filter(|link| link.state != LinkState::Up).collect();
    if trouble.is_empty() {
        return (PartState::Up, String::new());
    }
    let state = match side {
        Side::Gateway => PartState::Noted,
        Side::Edge if trouble.iter().all(|link| link.state == LinkState::Broken) => PartState::Degraded,
        Side::Edge => PartState::Unready,
    };
    let texts: Vec<String> = trouble.into_iter().map(Row::text).collect();
    (state, texts.join("; "))
}

impl Row {
    fn text(&self) -> String {
        let Self { peer, .. } = self;
        let text = match self.state {
            LinkState::Up => format!("{peer} is linked"),
            LinkState::NoTable => format!("{peer} is linked, and its partner table has not come yet"),
            LinkState::Broken => format!("the connection to {peer} broke, streams wait for the next one"),
            LinkState::Down => format!("{peer} is not linked"),
        };
        match &self.cause {
            Some(cause) => format!("{text}: {cause}"),
            None => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(health: &Health) -> (PartState, String) {
        let part = health.parts().remove(0);
        (part.state, part.note)
    }

    #[test]
    fn an_edge_is_ready_only_while_a_gateway_is_linked_that_gave_its_table() {
        let (health, clock) = (Health::default(), Clock::system());
        let standings = Standings::new(Side::Edge, vec!["gateway".to_owned()], &health, clock);
        let link = standings.link(0);
        assert_eq!(part(&health), (PartState::Unready, "gateway is not linked".to_owned()));
        let journal = Arc::<Journal>::default();
        let remote = "192.0.2.1:40000".parse().ok();
        link.connected(LinkState::NoTable, remote, &journal);
        assert_eq!(part(&health).0, PartState::Unready);
        link.has_table();
        assert_eq!(part(&health), (PartState::Up, String::new()));
        assert_eq!(standings.reports()[0].remote, remote);
        link.broken("reset".to_owned());
        let (state, note) = part(&health);
        assert_eq!(state, PartState::Degraded, "its streams go on when the gateway is back within the grace");
        assert!(note.contains("reset"), "{note}");
        link.has_table();
        assert_eq!(part(&health).0, PartState::Degraded, "a table is no connection");
        link.down(None);
        let (state, note) = part(&health);
        assert_eq!(state, PartState::Unready);
        assert!(note.contains("reset"), "the cause stays: {note}");
        let report = standings.reports().remove(0);
        assert_eq!((report.state, report.remote), (LinkState::Down, None));
    }

    #[test]
    fn a_gateway_without_its_edges_says_so_and_stays_ready() {
        let (health, clock) = (Health::default(), Clock::system());
        let peers = vec!["edge one:5300".to_owned(), "edge two:5300".to_owned()];
        let standings = Standings::new(Side::Gateway, peers, &health, clock);
        assert_eq!(part(&health).0, PartState::Noted);
        let second = standings.link(1);
        standings.link(0).connected(LinkState::Up, None, &Arc::default());
        second.failed("connection refused".to_owned());
        second.tries_in(Duration::from_secs(4));
        let (state, note) = part(&health);
        assert_eq!(
            (state, note.as_str()),
            (PartState::Noted, "edge two:5300 is not linked: connection refused")
        );
        assert!(standings.reports()[1].next_attempt.is_some_and(|wait| wait <= Duration::from_secs(4)));
        second.connected(LinkState::Up, None, &Arc::default());
        assert_eq!(part(&health).0, PartState::Up);
        assert_eq!(standings.reports()[1].next_attempt, None);
    }
}
