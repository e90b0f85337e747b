//! The pure machine of one shard: everything that concerns its local users.
//!
//! [`Input`]s go in by [`Owner::handle`], [`Output`]s come out by [`Owner::poll_output`] until it is empty, and one
//! deadline by [`Owner::poll_timeout`]. Around the fan-out shard it keeps the pairs with their nine subscription
//! states, the dialogs, the publications, the messages that wait for their fate, and what is being stored.
//!
//! What must be on disk before it may be said is proposed ([`plan`]): while a row is being written everybody sees its
//! old content, and later control inputs of the same pair wait behind it.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use tombolo_fanout::{LaneId, Shard, ViewId, WatchId};
use tombolo_policy::Table;
use tombolo_presence::{Address, LifetimeClock, Now, PresenceState};
use tombolo_wheel::{TimerId, Wheel};
use tombolo_xmpp::stream::ReceivedStanza;

use crate::{rows::Row, token::TokenKey};

mod accounts;
mod addresses;
mod budgets;
mod causes;
mod dialog_life;
mod dialogs;
pub mod fetch;
mod input;
pub mod keys;
mod load;
mod mail;
mod notify;
pub mod output;
mod pairs;
mod phones;
mod plan;
mod presence_in;
mod publish;
mod quotas;
mod render;
mod report;
mod requests;
mod settings;
mod sizes;
mod state_room;
mod successor;
mod sweep;
mod threads;
mod upstream;
mod users;
mod verdicts;
mod watchers;

#[cfg(test)]
mod tests;

pub use budgets::BudgetLimits;
pub use input::{
    Accounts, Input, MessageId, NotifyAnswer, PeerHealth, PeerWay, PersistToken, ReplyTo, RequestId,
    SipRequest,
};
pub use keys::{LaneKey, PeerKey, PhoneKey};
pub use mail::UnfinishedMessage;
pub use output::{NOTIFY_BRANCH, Output, OwnerEvent, Relation, Report};
pub use settings::{OwnerSettings, WatchLimits};
pub use successor::{Numbers, Unanswered};

use addresses::{AddressId, Addresses};
use budgets::Budgets;
use dialogs::Dialogs;
use mail::Mail;
use pairs::{PairId, Pairs};
use plan::Proposal;
use report::Decisions;
use sweep::Sweeps;
use upstream::Upstreams;
use users::Users;

/// What the wheel wakes the shard for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    /// A watcher's subscription runs out, or has waited long enough for an answer.
    DialogExpiry(u32),
    /// A NOTIFY is given up, or the interval between two ends.
    DialogActivity(u32),
    /// A subscription of ours needs something.
    Upstream(u32),
    /// What was said long enough ago is taken as confirmed.
    Said,
    /// A probe was not answered.
    Probe(PairId),
    /// A publication runs out.
    Publication(AddressId),
    /// The store took too long.
    Store(PersistToken),
    /// What the front end said could not be stored: it is tried again. True when it granted.
    FrontEnd(PairId, bool),
    /// A message toward XMPP was not refused in time.
    Message(u64),
    /// A partner was lost for longer than the grace.
    Grace(LaneId),
    /// Dialogs with a front end are still to be refreshed.
    Sweep(LaneId),
    /// Some dialogs of a front end may be looked at again.
    Sample(LaneId),
    /// Senders are told of messages that failed behind their answers.
    Causes,
    /// Numbers that change often are stored.
    Flush,
    /// Verdicts are made anew, slice by slice.
    Judge,
}

/// One shard. See the [module](self).
pub struct Owner {
    settings: OwnerSettings,
    policy: Arc<Table>,
    accounts: Arc<Accounts>,
    addresses: Addresses,
    users: Users,
    pairs: Pairs,
    dialogs: Dialogs,
    upstreams: Upstreams,
    sweeps: Sweeps,
    shard: Shard<PresenceState>,
    lanes: Lanes,
    mail: Mail,
    budgets: Budgets,
    /// What the states of each partner's contacts are held against its budget for, by the partner's entry.
    partner_states: HashMap<Box<str>, usize, RandomState>,
    /// Octets of all published documents.
    published_octets: usize,
    /// The process takes as much memory as it may: no further subscription is taken.
    is_memory_full: bool,
    quotas: quotas::Quotas,
    /// Counts changes of policy and accounts: a verdict of an earlier one is old.
    judgement: u32,
    judging: Option<verdicts::Judging>,
    proposals: HashMap<u32, Box<Proposal>, RandomState>,
    /// The pair whose proposal is being settled: it stays until the last that waited is done.
    settling: Option<PairId>,
    decisions: Decisions,
    /// What waits for the store, in the order of its tokens.
    storing: VecDeque<(PersistToken, Storing)>,
    next_token: u64,
    next_row: u32,
    next_request: u64,
    requests: HashMap<u64, Asked, RandomState>,
    wheel: Wheel<Timer>,
    said: Said,
    /// Probes that were written and not answered yet.
    probes: HashMap<PairId, TimerId, RandomState>,
    begun: Instant,
    /// In which ends of dialogs, publications and subscriptions are kept: a step of the wall clock moves none of them.
    lifetimes: LifetimeClock,
    random: u64,
    /// Takes the place of a shard that panicked in this life of the process.
    is_successor: bool,
    /// Rows that are stored without a proposal, gathered for the next turn's end.
    lazy: Vec<Row>,
    /// Responses that leave when the rows in `lazy` are stored.
    held: Vec<Output>,
    out: VecDeque<Output>,
}

/// To whom subscription stanzas were written, and when those are taken as received.
#[derive(Debug, Default)]
struct Said {
    /// In the order of time. The wait is the same for all, so that one timer for the first will do.
    queue: VecDeque<(Instant, PairId)>,
    /// Of each pair, the entry that counts: what was said before it may be lost.
    newest: HashMap<PairId, Instant, RandomState>,
}

/// What an answer of the store releases.
#[derive(Debug)]
enum Storing {
    /// A pair's proposal, and when it has waited for too long.
    Pair(PairId, TimerId),
    /// A proposal that was refused since the store took too long. What it named, in case it is stored after all.
    Refused(Box<plan::Traces>),
    /// Responses, at the latest when the timer fires: what they acknowledge holds already.
    Answers(Vec<Output>, TimerId),
    /// Nothing.
    Lazily,
    /// Answered already, before those ahead of it.
    Answered,
}

/// What a request of ours was for.
#[derive(Debug)]
enum Asked {
    /// A SUBSCRIBE of the subscription at this place, with this number of its row.
    Subscribe { upstream: u32, row: u64 },
    /// A NOTIFY on an unreliable transport.
    Notify { row: u64, cseq: u32 },
    /// A MESSAGE.
    Message(MessageId),
    /// One whose answer changes nothing (the NOTIFY of a poll, a notice).
    Nothing,
}

/// The lanes of the shard, by both of their names.
#[derive(Debug, Default)]
struct Lanes {
    ids: HashMap<LaneKey, LaneId, RandomState>,
    lanes: Vec<Lane>,
}

#[derive(Debug)]
struct Lane {
    key: LaneKey,
    /// How a peer is reached; `None` for sessions and for peers that are not.
    way: Option<PeerWay>,
    /// A front end's health; `None` before it was told, and for all others.
    health: Option<PeerHealth>,
    /// A session's partner is lost; its grace runs until the timer.
    is_lost: bool,
    /// Dialogs in which it is notified.
    dialogs: u32,
    /// What the states of its contacts are held against budgets for.
    state_octets: usize,
    /// The largest stanza that the partner says it takes.
    max_stanza_bytes: Option<u32>,
    grace: Option<TimerId>,
    /// Dialogs whose last NOTIFY had its notes cut for a datagram.
    cut: Option<Box<HashSet<u32, RandomState>>>,
}

impl Lane {
    /// NOTIFYs of these dialogs were written, with cut notes in some of them.
    fn note_cut(&mut self, written: &[(u32, WatchId)], cut: &[(u32, Address)]) {
        if let Some(known) = &mut self.cut {
            for (at, _) in written {
                known.remove(at);
            }
        }
        if !cut.is_empty() {
            self.cut.get_or_insert_default().extend(cut.iter().map(|(at, _)| *at));
        }
    }

    fn is_front_end(&self) -> bool {
        matches!(self.key, LaneKey::Peer(PeerKey::FrontEnd(_)))
    }

    /// A front end that is known not to answer at the moment: nothing is asked of it before it is heard again.
    fn is_doubtful(&self) -> bool {
        matches!(self.health, Some(PeerHealth::Doubtful | PeerHealth::Lost))
    }
}

impl Lanes {
    fn find_or_add(&mut self, key: &LaneKey, shard: &mut Shard<PresenceState>) -> LaneId {
        if let Some(id) = self.ids.get(key) {
            return *id;
        }
        let id = shard.add_lane();
        self.ids.insert(key.clone(), id);
        let lane = Lane {
            key: key.clone(),
            way: None,
            health: None,
            is_lost: false,
            dialogs: 0,
            state_octets: 0,
            max_stanza_bytes: None,
            grace: None,
            cut: None,
        };
        match self.lanes.get_mut(id.0 as usize) {
            Some(place) => *place = lane,
            None => self.lanes.push(lane),
        }
        debug_assert_eq!(self.lane(id).key, *key);
        id
    }

    /// Forgets the lane of a phone without a dialog: a phone is as many peers as it made of itself.
    fn drop_if_unused(&mut self, id: LaneId, shard: &mut Shard<PresenceState>) {
        let lane = &self.lanes[id.0 as usize];
        let is_phone = matches!(lane.key, LaneKey::Peer(PeerKey::Phone(_)));
        if is_phone && lane.dialogs == 0 && self.ids.get(&lane.key) == Some(&id) && shard.remove_lane(id) {
            self.ids.remove(&lane.key);
        }
    }

    fn lane(&self, id: LaneId) -> &Lane {
        &self.lanes[id.0 as usize]
    }

    fn lane_mut(&mut self, id: LaneId) -> &mut Lane {
        &mut self.lanes[id.0 as usize]
    }
}

/// Timers that fire in one turn at most; the rest waits for the next.
const DUE_PER_TURN: usize = 256;

impl Owner {
    /// A shard without rows. `policy` and the accounts can be replaced later.
    pub fn new(settings: OwnerSettings, policy: Arc<Table>, now: Now) -> Self {
        let mut wheel = Wheel::new(now.instant);
        wheel.insert(now.instant + settings.flush_interval, Timer::Flush);
        Self {
            random: settings.seed | 1,
            budgets: Budgets::new(&settings.budgets),
            lifetimes: settings.lifetimes.unwrap_or_else(|| LifetimeClock::new(now)),
            partner_states: HashMap::default(),
            published_octets: 0,
            is_memory_full: false,
            settings,
            policy,
            accounts: Arc::default(),
            addresses: Addresses::new(),
            users: Users::default(),
            pairs: Pairs::default(),
            dialogs: Dialogs::default(),
            upstreams: Upstreams::default(),
            sweeps: Sweeps::default(),
            shard: Shard::default(),
            lanes: Lanes::default(),
            mail: Mail::default(),
            quotas: quotas::Quotas::default(),
            judgement: 0,
            judging: None,
            proposals: HashMap::default(),
            settling: None,
            decisions: Decisions::default(),
            storing: VecDeque::new(),
            next_token: 1,
            next_row: 1,
            next_request: 1,
            requests: HashMap::default(),
            wheel,
            said: Said::default(),
            probes: HashMap::default(),
            begun: now.instant,
            is_successor: false,
            lazy: Vec::new(),
            held: Vec::new(),
            out: VecDeque::new(),
        }
    }

    /// Takes one thing that happened.
    pub fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Stanzas(stanzas) => {
                for stanza in &stanzas {
                    self.handle_stanza(stanza, now);
                }
            }
            Input::Request(request) => self.handle_request(request, now),
            Input::Outcome { request, outcome } => self.handle_outcome(request, outcome, now),
            Input::NotifyAnswers { peers, answers } => {
                for answer in answers {
                    self.handle_notify_answer(answer, &peers, now);
                }
            }
            Input::Credit { lane, bytes } => self.render(&lane, bytes, now),
            Input::PeerChanged { peer, way } => self.handle_peer_changed(&peer, way),
            Input::PeerHealth { peer, health } => self.handle_peer_health(&peer, health, now),
            Input::PeerForgot { peer } => self.handle_peer_forgot(&peer, now),
            Input::LaneLost { lane, is_clean } => self.handle_lane_lost(&lane, is_clean),
            Input::LaneReset { lane } => self.handle_lane_reset(&lane, now),
            Input::PartnerReachable { lane, is_reachable } => {
                self.handle_partner_reachable(&lane, is_reachable, now);
            }
            Input::ContactsDoubtful { lane } => self.handle_contacts_doubtful(&lane),
            Input::LaneLimit { lane, bytes } => self.handle_lane_limit(&lane, bytes),
            Input::MessageFate { message, fate } => self.handle_message_fate(message, fate, now),
            Input::Delivered { message, outcome } => self.handle_message_outcome(message, outcome, None),
            Input::Moved { message, status, contact } => {
                self.handle_message_moved(message, status, &contact);
            }
            Input::NotTaken { message } => self.handle_message_not_taken(message),
            Input::Persisted { token, is_stored } => self.handle_persisted(token, is_stored, now),
            Input::Decide { user, watcher, is_approved, asker } => {
                self.handle_decision(&user, watcher.as_ref(), is_approved, asker, now);
            }
            Input::Accounts(accounts) => self.handle_accounts(accounts, now),
            Input::PartnerFull { partner, is_full } => self.handle_partner_full(partner, is_full),
            Input::MemoryFull(is_full) => self.is_memory_full = is_full,
            Input::Policy(table) => self.handle_policy(table, now),
            Input::PhoneRegistered(phone) => self.handle_phone_registered(&phone),
            Input::PhoneGone(phone) => self.handle_phone_gone(&phone),
            Input::Ask { user, asker } => self.handle_question(user.as_ref(), asker),
        }
        self.finish_turn(now);
    }

    /// Takes one stanza of a batch, which the caller keeps in case this panics. Call [`Owner::finish_batch`] after the last.
    pub fn handle_one_stanza(&mut self, stanza: &ReceivedStanza, now: Now) {
        self.handle_stanza(stanza, now);
    }

    /// Ends a batch of [`Owner::handle_one_stanza`].
    pub fn finish_batch(&mut self, now: Now) {
        self.finish_turn(now);
    }

    /// The next thing to be done; `None` when everything was told.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`Owner::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.wheel.next_deadline()
    }

    /// Takes the passing of time.
    pub fn handle_timeout(&mut self, now: Now) {
        for timer in self.wheel.poll_due(now.instant, DUE_PER_TURN) {
            match timer {
                Timer::DialogExpiry(at) => self.handle_dialog_expired(at, now),
                Timer::DialogActivity(at) => self.handle_dialog_activity(at, now),
                Timer::Upstream(at) => self.handle_upstream_due(at, now),
                Timer::Said => self.handle_said_due(now),
                Timer::Probe(pair) => self.handle_probe_unanswered(pair),
                Timer::Store(token) => self.handle_store_late(token, now),
                Timer::FrontEnd(pair, is_granted) => self.heed_front_end(pair, is_granted, now),
                Timer::Publication(user) => self.handle_publication_due(user, now),
                Timer::Message(message) => self.handle_message_wait_over(MessageId(message), now),
                Timer::Grace(lane) => self.handle_grace_over(lane),
                Timer::Sweep(lane) => self.continue_sweep(lane, now),
                Timer::Sample(lane) => self.handle_sample_due(lane, now),
                Timer::Causes => self.handle_causes_due(now),
                Timer::Flush => self.flush_numbers(now),
                Timer::Judge => self.go_on_judging(now),
            }
        }
        self.finish_turn(now);
    }

    /// Asks for credit where something became due, and hands over the rows that nobody waits for.
    fn finish_turn(&mut self, now: Now) {
        self.tell_quotas();
        self.persist_lazy(now);
        while let Some(lane) = self.shard.poll_wanting() {
            let owed_bytes = self.shard.owed_len(lane).saturating_mul(ABOUT_ONE_UPDATE_BYTES);
            self.out.push_back(Output::Want { lane: self.lanes.lane(lane).key.clone(), owed_bytes });
        }
    }

    /// Stores the lazy rows ahead of all that is stored later, so that rows of one pair keep their order, and holds the
    /// responses that wait for them.
    fn persist_lazy(&mut self, now: Now) {
        let held = std::mem::take(&mut self.held);
        if self.lazy.is_empty() {
            return self.out.extend(held);
        }
        let rows = std::mem::take(&mut self.lazy);
        let storing = match held.is_empty() {
            true => Storing::Lazily,
            false => Storing::Answers(held, self.limit_store(now)),
        };
        self.persist(rows, storing);
    }

    /// The timer that ends the wait for what is persisted next.
    fn limit_store(&mut self, now: Now) -> TimerId {
        let limit = Timer::Store(PersistToken(self.next_token));
        self.wheel.insert(now.instant + self.settings.store_limit, limit)
    }

    fn persist_proposal(&mut self, rows: Vec<Row>, id: PairId, now: Now) {
        self.persist_lazy(now);
        let timer = self.limit_store(now);
        self.persist(rows, Storing::Pair(id, timer));
    }

    fn persist(&mut self, rows: Vec<Row>, storing: Storing) {
        let token = PersistToken(self.next_token);
        self.next_token += 1;
        let is_kept = !matches!(storing, Storing::Pair(..));
        self.storing.push_back((token, storing));
        self.out.push_back(Output::Persist { token, rows, is_kept });
    }

    fn handle_persisted(&mut self, token: PersistToken, is_stored: bool, now: Now) {
        if !is_stored {
            self.event(OwnerEvent::StoreFailed);
        }
        // The store refuses at once what is too much for it, while it still writes what came before.
        let Some(storing) = self.replace_storing(token, Storing::Answered) else { return };
        while self.storing.pop_front_if(|(_, storing)| matches!(storing, Storing::Answered)).is_some() {}
        match storing {
            Storing::Pair(id, timer) => {
                self.wheel.cancel(timer);
                self.settle_proposal(id, is_stored, now);
            }
            Storing::Answers(held, timer) => {
                self.wheel.cancel(timer);
                self.out.extend(held);
            }
            Storing::Refused(traces) if is_stored => self.undo(&traces),
            Storing::Refused(_) | Storing::Lazily | Storing::Answered => {}
        }
    }

    /// The store took too long: a proposal is refused now, whatever becomes of it. Held responses leave: presence goes on
    /// while the disk does not.
    fn handle_store_late(&mut self, token: PersistToken, now: Now) {
        let id = match self.find_storing(token) {
            Some(Storing::Pair(id, _)) => *id,
            Some(Storing::Answers(held, _)) => {
                let held = std::mem::take(held);
                self.out.extend(held);
                self.event(OwnerEvent::StoreFailed);
                self.replace_storing(token, Storing::Lazily);
                return;
            }
            _ => return,
        };
        let Some(traces) = self.traces(id) else { return };
        self.event(OwnerEvent::StoreFailed);
        self.replace_storing(token, Storing::Refused(Box::new(traces)));
        self.settle_proposal(id, false, now);
    }

    fn find_storing(&mut self, token: PersistToken) -> Option<&mut Storing> {
        let (first, _) = self.storing.front()?;
        let at = usize::try_from(token.0.checked_sub(first.0)?).ok()?;
        self.storing.get_mut(at).map(|(_, storing)| storing)
    }

    fn replace_storing(&mut self, token: PersistToken, by: Storing) -> Option<Storing> {
        self.find_storing(token).map(|storing| std::mem::replace(storing, by))
    }

    fn event(&mut self, event: OwnerEvent) {
        self.out.push_back(Output::Event(event));
    }

    fn lane_to(&mut self, user: &Address, contact: &Address) -> Option<LaneId> {
        Some(self.lanes.find_or_add(&LaneKey::of_session(user, contact)?, &mut self.shard))
    }

    fn peer_lane(&mut self, peer: &PeerKey) -> LaneId {
        self.lanes.find_or_add(&LaneKey::Peer(peer.clone()), &mut self.shard)
    }

    /// A number that no row of this or an earlier life of the process has.
    fn new_row(&mut self) -> u64 {
        let row = u64::from(self.settings.start) << 32 | u64::from(self.next_row);
        self.next_row += 1;
        row
    }

    fn new_request(&mut self, asked: Asked) -> RequestId {
        let request = self.next_request;
        self.next_request += 1;
        self.requests.insert(request, asked);
        RequestId(request)
    }

    /// Spreads refreshes and makes ids hard to guess; no secret rests on it (xorshift64*).
    fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// The view of a state, which the caller holds once.
    fn intern(&mut self, state: PresenceState) -> ViewId {
        self.shard.views.intern(state)
    }

    /// The time in which lifetimes are counted, in seconds.
    fn time(&self, now: Now) -> u64 {
        self.lifetimes.at(now.instant)
    }

    fn milliseconds(&self, now: Now) -> u32 {
        now.instant.saturating_duration_since(self.begun).as_millis() as u32
    }
}

/// What one update takes on the wire, roughly: it only says how much credit is worth asking for.
const ABOUT_ONE_UPDATE_BYTES: usize = 300;

/// The key that tokens of this shard are signed with.
fn key(settings: &OwnerSettings) -> &TokenKey {
    &settings.key
}
