//! What a shard is set to.

use std::time::Duration;

use tombolo_presence::LifetimeClock;
use tombolo_sip::event::subscriber;

use crate::{owner::budgets::BudgetLimits, token::TokenKey};

/// What a shard is set to.
#[derive(Debug, Clone)]
pub struct OwnerSettings {
    /// Signs the tokens in our tags.
    pub key: TokenKey,
    /// The process's durable start number: no two lives of the process have the same.
    pub start: u32,
    /// For jitter and ids.
    pub seed: u64,
    /// In which the lifetimes of stored rows are counted; `None` for those that begin with the shard.
    pub lifetimes: Option<LifetimeClock>,
    /// The stored rows hold every grant that was ever made. While they may not, nobody is told that there is no grant.
    pub knows_all_grants: bool,
    /// The longest subscription granted to a phone, in seconds.
    pub phone_expires: u32,
    /// The longest subscription granted to, and asked of, a front end, in seconds.
    pub front_end_expires: u32,
    /// The shortest subscription or publication granted, in seconds (423 below it).
    pub least_expires: u32,
    /// A phone that is registered and publishes nothing is shown as available.
    pub registration_is_presence: bool,
    /// The least time between two states to the same watcher of the same presentity (RFC 3856 §6.10).
    pub watcher_interval: Duration,
    /// How long a NOTIFY may stay unanswered (64·T1).
    pub notify_timeout: Duration,
    /// How long a lost partner's contacts keep their state.
    pub partner_grace: Duration,
    /// How long a probe may stay unanswered.
    pub probe_timeout: Duration,
    /// How long after it left the shard a subscription stanza is taken as received: longer than a stream may take to
    /// write it, or to be found dead.
    pub confirm_after: Duration,
    /// How long the store may take for a row that somebody waits for, before that is refused.
    pub store_limit: Duration,
    /// How many dialogs with one front end are refreshed at a time when it is heard again, and after a restart.
    pub refresh_window: usize,
    /// How often expiries and CSeqs are stored.
    pub flush_interval: Duration,
    /// The most watchers of one user that may wait for a decision.
    pub pending_per_user: usize,
    /// The most pairs of one user (SIP-E-30).
    pub pairs_per_user: usize,
    /// How many dialogs there may be in which we notify.
    pub watch_limits: WatchLimits,
    /// How long a watcher waits for an answer before it is told to ask again later (STOX-P-37).
    pub pending_for: Duration,
    /// The most messages of one sender to one recipient that wait behind the one in flight.
    pub waiting_messages: usize,
    /// The largest SIP MESSAGE toward a peer that may be reached by datagrams, in octets (RFC 3428 §8).
    pub datagram_message_bytes: usize,
    /// The largest SIP message that we write, in octets.
    pub max_sip_bytes: usize,
    /// Octets of messages that one front end is sent and has not answered; a further one waits.
    pub in_flight_octets: usize,
    /// What the shard may hold in octets.
    pub budgets: BudgetLimits,
    /// Spans of our own subscriptions.
    pub subscriber: subscriber::Settings,
}

/// How many dialogs there may be in which we notify (RFC 6665 §6.3).
#[derive(Debug, Clone, Copy)]
pub struct WatchLimits {
    /// Of all pairs of one local user.
    pub of_user: u32,
    /// Of one pair.
    pub of_pair: usize,
    /// Of one phone.
    pub of_phone: u32,
}

impl OwnerSettings {
    /// The defaults, for a key, a start number and a seed.
    pub fn new(key: TokenKey, start: u32, seed: u64) -> Self {
        Self {
            key,
            start,
            seed,
            lifetimes: None,
            knows_all_grants: true,
            phone_expires: 3600,
            front_end_expires: 28_800,
            least_expires: 60,
            registration_is_presence: true,
            watcher_interval: Duration::from_secs(5),
            notify_timeout: Duration::from_secs(32),
            partner_grace: Duration::from_secs(60),
            probe_timeout: Duration::from_secs(30),
            confirm_after: Duration::from_secs(150),
            store_limit: Duration::from_secs(2),
            refresh_window: 64,
            flush_interval: Duration::from_secs(60),
            pending_per_user: 1000,
            pairs_per_user: 50_000,
            watch_limits: WatchLimits { of_user: 50_000, of_pair: 32, of_phone: 10_000 },
            pending_for: Duration::from_secs(24 * 3600),
            waiting_messages: 32,
            datagram_message_bytes: 1300,
            max_sip_bytes: 65_536,
            in_flight_octets: 2 << 20,
            budgets: BudgetLimits::default(),
            subscriber: subscriber::Settings::default(),
        }
    }
}
