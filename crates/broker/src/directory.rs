//! Who is where: sessions, peers, users, streams and flows of this process, and what all actors share.
//!
//! Its locks are held for one look-up and never across a message, but for what all shards must hear in one order. Rows are not here: a shard owns them.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Display,
    hash::BuildHasher,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use actix::Addr;
use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;
use tombolo_edge::{
    DialId, DomainPair, EdgePort, FlowFacts, FlowId, FlowPort, ProofMethod, StreamDirection, StreamId,
    StreamTls, ToEdge, ToFlow, Transport,
};
use tombolo_interwork::{
    address::address_of_uri,
    error::NoResponse,
    owner::{Input, PeerKey},
    token::TokenKey,
};
use tombolo_policy::Table;
use tombolo_presence::{Address, Domain, LifetimeClock};
use tombolo_runtime::{Clock, InboxSender, Placement, Wake};
use tombolo_sip::{headers::MAGIC_COOKIE, message::Message};
use tombolo_store::StateStore;
use tombolo_telemetry::{Metrics, PartState, Redacted};

use crate::{
    accounts::{Authenticator, Proof},
    budgets::Budgets,
    fanout_actor::FanoutActor,
    flows::Flows,
    guests::GuestsActor,
    messages::{Arrived, Requester, ToPeer, ToSession, ToShard, ToUser},
    panics::Panics,
    partner_pairs::PartnerPairs,
    partner_states::{PartnerNews, PartnerStates},
    peer::owner_name,
    peer_actor::PeerActor,
    registrations::Registrations,
    requests::is_front_end,
    seen_certificates::Seen,
    session::{SessionSettings, ShardIndex},
    session_actor::SessionActor,
    store_watch::StoreWatch,
    user_actor::UserActor,
};

/// What all actors of the broker share.
pub struct Directory {
    /// The only source of time.
    pub clock: Clock,
    /// Where actors run.
    pub placement: Placement,
    /// Where rows go.
    pub store: Arc<dyn StateStore>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What actors hold together.
    pub budgets: Budgets,
    /// Room for TCP connections that we open to phones: each is an open file.
    pub phone_streams: Arc<Semaphore>,
    /// The policy in force.
    pub policy: Arc<ArcSwap<Table>>,
    /// Who is who at the built-in homes.
    pub authenticator: Arc<Authenticator>,
    /// Signs the tokens in our tags.
    pub key: TokenKey,
    /// In which the lifetimes of stored rows are counted.
    pub lifetimes: LifetimeClock,
    /// What operators were told of the store.
    pub store_watch: Mutex<StoreWatch>,
    /// What sessions are set to.
    pub session_settings: SessionSettings,
    /// The certificates that partners have shown.
    pub seen: Seen,
    /// Panics of actors.
    pub panics: Panics,
    /// What phones have registered.
    pub registrations: Registrations,
    /// How partners are doing.
    pub partner_states: Mutex<PartnerStates>,
    shards: OnceLock<Vec<Shard>>,
    edge: OnceLock<Arc<dyn EdgePort>>,
    flows_port: OnceLock<Arc<dyn FlowPort>>,
    guests: OnceLock<Addr<GuestsActor>>,
    sessions: RwLock<HashMap<DomainPair, Addr<SessionActor>>>,
    users: RwLock<HashMap<Address, Addr<UserActor>>>,
    peers: RwLock<HashMap<PeerKey, Peer>>,
    streams: RwLock<HashMap<StreamId, Stream>>,
    /// Whose each flow is.
    pub flows: Flows,
    dials: RwLock<HashMap<DialId, Dialled>>,
    partner_pairs: Mutex<PartnerPairs>,
    /// Front ends that are not up, and why.
    front_end_doubts: Mutex<BTreeMap<Box<str>, &'static str>>,
    next_dial: AtomicU64,
    hasher: std::hash::RandomState,
    /// Itself, for the actors that it starts.
    me: Weak<Directory>,
}

/// How a shard is reached.
pub struct Shard {
    /// Bulk: bounded in batches and octets, refuses.
    pub inbox: InboxSender<Input>,
    /// Control.
    pub addr: Addr<FanoutActor>,
    /// It panicked and is being rebuilt: what finds no room in its inbox is refused, and waits for nothing.
    pub is_down: Arc<AtomicBool>,
}

/// How a peer is reached.
#[derive(Clone)]
pub struct Peer {
    /// Bulk: bounded, refuses.
    pub inbox: InboxSender<Arrived>,
    /// Control.
    pub addr: Addr<PeerActor>,
}

/// A stream that is up.
#[derive(Clone)]
pub struct Stream {
    /// Which way stanzas flow.
    pub direction: StreamDirection,
    /// The pair whose session an outgoing stream carries for as long as it lives, whatever is proved on it. Nobody's when
    /// incoming.
    pub session: Option<DomainPair>,
    /// The pairs that are proved on it.
    pub pairs: Vec<DomainPair>,
    /// How the first one was proved.
    pub method: ProofMethod,
    /// Its TLS; nothing in the clear.
    pub tls: Option<Arc<StreamTls>>,
    /// When it brought stanzas last.
    pub heard: Heard,
}

/// When a stream brought stanzas last. Clones share it.
#[derive(Debug, Clone)]
pub struct Heard {
    begun: Instant,
    /// Milliseconds after `begun`.
    after: Arc<AtomicU64>,
}

impl Heard {
    /// Begins now.
    pub fn new(now: Instant) -> Self {
        Self { begun: now, after: Arc::default() }
    }

    /// Stanzas came.
    pub fn note(&self, now: Instant) {
        let after = now.saturating_duration_since(self.begun).as_millis();
        self.after.store(u64::try_from(after).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When the stream came up.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// For how long nothing has come.
    pub fn silence(&self, now: Instant) -> Duration {
        let heard_at = Duration::from_millis(self.after.load(Ordering::Relaxed));
        now.saturating_duration_since(self.begun).saturating_sub(heard_at)
    }
}

enum Dialled {
    Session(DomainPair),
    Peer(PeerKey),
}

/// What the directory is made of.
pub struct Shared {
    /// See [`Directory`].
    pub clock: Clock,
    /// See [`Directory`].
    pub placement: Placement,
    /// See [`Directory`].
    pub store: Arc<dyn StateStore>,
    /// See [`Directory`].
    pub metrics: Arc<Metrics>,
    /// See [`Directory`].
    pub policy: Arc<ArcSwap<Table>>,
    /// See [`Directory`].
    pub authenticator: Arc<Authenticator>,
    /// See [`Directory`].
    pub key: TokenKey,
    /// See [`Directory`].
    pub lifetimes: LifetimeClock,
    /// See [`Directory`].
    pub session_settings: SessionSettings,
    /// See [`Directory`].
    pub budgets: Budgets,
}

impl Directory {
    /// A directory of nobody.
    pub fn new(shared: Shared) -> Arc<Self> {
        let Shared {
            clock,
            placement,
            store,
            metrics,
            policy,
            authenticator,
            key,
            lifetimes,
            session_settings,
            budgets,
        } = shared;
        Arc::new_cyclic(|me| Self {
            clock,
            placement,
            store,
            panics: Panics::new(metrics.clone()),
            registrations: Registrations::new(metrics.clone()),
            partner_states: Mutex::default(),
            metrics,
            policy,
            authenticator,
            key,
            lifetimes,
            store_watch: Mutex::default(),
            session_settings,
            budgets,
            phone_streams: Arc::new(Semaphore::new(PHONE_STREAMS)),
            seen: Seen::default(),
            shards: OnceLock::new(),
            edge: OnceLock::new(),
            flows_port: OnceLock::new(),
            guests: OnceLock::new(),
            sessions: RwLock::default(),
            users: RwLock::default(),
            peers: RwLock::default(),
            streams: RwLock::default(),
            flows: Flows::default(),
            dials: RwLock::default(),
            partner_pairs: Mutex::default(),
            front_end_doubts: Mutex::default(),
            next_dial: AtomicU64::new(1),
            hasher: std::hash::RandomState::new(),
            me: me.clone(),
        })
    }

    /// Names the shards and guests, once, before anything else happens.
    pub fn begin(&self, shards: Vec<Shard>, guests: Addr<GuestsActor>) {
        let is_first = self.shards.set(shards).is_ok() && self.guests.set(guests).is_ok();
        assert!(is_first, "a directory begins once");
    }

    /// Names the ways out, once, and lets the shards say what they were loaded with.
    pub fn connect(&self, edge: Arc<dyn EdgePort>, flows: Arc<dyn FlowPort>) {
        let is_first = self.edge.set(edge).is_ok() && self.flows_port.set(flows).is_ok();
        assert!(is_first, "a directory is connected once");
        for flow in self.flows.ids() {
            // Whose they are could not be told before.
            self.flows_port().send(ToFlow::Bound { flow });
        }
        for shard in self.shards() {
            shard.addr.do_send(Wake);
        }
        self.dial_front_ends();
    }

    /// Every front end of the policy is kept connected, whether anybody needs it at the moment or not.
    fn dial_front_ends(&self) {
        for local in self.policy.load().local_domains().iter().filter(|local| local.front_end().is_some()) {
            self.tell_peer(&PeerKey::FrontEnd(local.name.clone()), ToPeer::Retry);
        }
    }

    /// A front end is up, or why it is not; it is forgotten where the policy names none for its domain.
    pub fn note_front_end(&self, domain: &Domain, doubt: Option<&'static str>) {
        let is_configured = self.has_front_end(domain);
        let doubt = doubt.filter(|_| is_configured);
        let mut doubts = self.front_end_doubts.lock();
        match doubt {
            Some(doubt) => drop(doubts.insert(domain.as_str().into(), doubt)),
            None => drop(doubts.remove(domain.as_str())),
        }
        let part = self.metrics.health().part("front_ends");
        if doubts.is_empty() {
            part.set_up();
        } else {
            let texts: Vec<String> =
                doubts.iter().map(|(domain, doubt)| format!("{domain}: {doubt}")).collect();
            part.set(PartState::Noted, texts.join("; "));
        }
        match is_configured {
            true => self.metrics.front_end_up(domain.as_str(), doubt.is_none()),
            false => self.metrics.forget_front_end(domain.as_str()),
        }
    }

    /// True while the policy names a front end for a local domain.
    pub fn has_front_end(&self, domain: &Domain) -> bool {
        let policy = self.policy.load();
        policy.local_domain(domain.as_str()).is_some_and(|local| local.front_end().is_some())
    }

    /// The front ends that are there.
    pub fn front_ends(&self) -> Vec<Addr<PeerActor>> {
        let peers = self.peers.read();
        let front_ends = peers.iter().filter(|(key, _)| matches!(key, PeerKey::FrontEnd(_)));
        front_ends.map(|(_, peer)| peer.addr.clone()).collect()
    }

    /// False while the shards are loaded and nothing can go out yet.
    pub fn is_connected(&self) -> bool {
        self.edge.get().is_some() && self.flows_port.get().is_some()
    }

    /// The way to XMPP streams.
    pub fn edge(&self) -> &dyn EdgePort {
        self.edge.get().map_or(&NotYet, |port| &**port)
    }

    /// The way to SIP flows.
    pub fn flows_port(&self) -> &dyn FlowPort {
        self.flows_port.get().map_or(&NotYet, |port| &**port)
    }

    fn arc(&self) -> Arc<Self> {
        self.me.upgrade().expect("the directory outlives its actors' starts")
    }

    /// All shards.
    pub fn shards(&self) -> &[Shard] {
        self.shards.get().map_or(&[], Vec::as_slice)
    }

    /// Number of shards.
    pub fn shard_count(&self) -> usize {
        self.shards().len()
    }

    /// The shard that owns a partition.
    pub fn shard_of(&self, partition: u16) -> ShardIndex {
        usize::from(partition) % self.shard_count().max(1)
    }

    /// Tells a shard what it must not miss.
    pub fn tell_shard(&self, shard: ShardIndex, input: Input) {
        if let Some(shard) = self.shards().get(shard) {
            shard.addr.do_send(ToShard(input));
        }
    }

    /// Tells every shard the same.
    pub fn tell_shards(&self, input: impl Fn() -> Input) {
        for shard in self.shards() {
            shard.addr.do_send(ToShard(input()));
        }
    }

    /// A shard has so many pairs with a domain. Where that makes a partner full, or not full any more, all shards hear it.
    pub fn note_partner_pairs(&self, shard: ShardIndex, domain: Box<str>, pairs: u32) {
        let tell = |partner: Box<str>, is_full| {
            tracing::warn!(%partner, is_full, "a partner's limit of subscriptions");
            self.tell_shards(|| Input::PartnerFull { partner: partner.clone(), is_full });
        };
        self.partner_pairs.lock().note(shard, domain, pairs, &self.policy, tell);
    }

    /// A shard was rebuilt: its sessions and peers meet it again. Names the partners that have as many pairs as they may.
    pub fn welcome_shard(&self, shard: ShardIndex) -> Vec<Box<str>> {
        for (_, session) in self.sessions() {
            session.do_send(ToSession::ShardRebuilt(shard));
        }
        let peers: Vec<Peer> = self.peers.read().values().cloned().collect();
        for peer in peers {
            peer.addr.do_send(ToPeer::ShardRebuilt(shard));
        }
        let users = self.users.read();
        for (_, user) in users.iter().filter(|(aor, _)| self.shard_of(aor.partition()) == shard) {
            user.do_send(ToUser::ShardRebuilt);
        }
        drop(users);
        self.partner_pairs.lock().forget_shard(shard)
    }

    /// The outgoing streams of a session.
    pub fn streams_of(&self, pair: &DomainPair) -> Vec<StreamId> {
        let streams = self.streams.read();
        let own = streams.iter().filter(|(_, stream)| stream.session.as_ref() == Some(pair));
        own.map(|(id, _)| *id).collect()
    }

    /// True when some shard has a pair with a contact of a domain.
    pub fn has_pairs_with(&self, domain: &str) -> bool {
        self.partner_pairs.lock().has_any(domain)
    }

    /// Puts a new policy in force.
    pub fn set_policy(&self, table: &Arc<Table>) {
        let before = self.policy.load_full();
        if before.says_the_same(table) {
            // Shards keep theirs: nothing is judged anew.
            return self.policy.store(table.clone());
        }
        self.partner_pairs.lock().forget_full(|| {
            self.policy.store(table.clone());
            self.tell_shards(|| Input::Policy(table.clone()));
        });
        self.forget_removed_partners();
        self.drop_front_ends(&before, table);
        if self.is_connected() {
            self.dial_front_ends();
        }
    }

    /// Takes flows from the front ends to which a new policy does not give them any more.
    fn drop_front_ends(&self, before: &Table, table: &Table) {
        for (facts, key) in self.flows.front_ends() {
            let PeerKey::FrontEnd(domain) = &key else { continue };
            let old = before.local_domain(domain.as_str()).and_then(|local| local.front_end());
            let local = table.local_domain(domain.as_str());
            let new = local.and_then(|local| local.front_end());
            let is_moved = old.map(|old| &old.next_hop) != new.map(|new| &new.next_hop);
            let is_kept = old == new
                || !(is_moved && facts.dial.is_some())
                    && local.is_some_and(|local| is_front_end(local, &facts));
            if is_kept && new.is_some() {
                continue;
            }
            tracing::info!(flow = facts.flow.0, %domain, "a flow is no front end's any more");
            self.tell_peer(&key, ToPeer::FlowDown(facts.flow));
            if self.flows.forget(&key, &[facts.flow]) > 0 {
                self.flows_port().send(ToFlow::Close { flow: facts.flow });
            }
        }
    }

    /// The session of two domains, started if there is none.
    pub fn session(&self, local: &Domain, remote: &Domain) -> Addr<SessionActor> {
        let pair = DomainPair { local: local.clone(), remote: remote.clone() };
        if let Some(session) = self.sessions.read().get(&pair).filter(|session| session.connected()) {
            return session.clone();
        }
        let mut sessions = self.sessions.write();
        if let Some(session) = sessions.get(&pair).filter(|session| session.connected()) {
            return session.clone();
        }
        let hash = self.hasher.hash_one(&pair);
        let (directory, key) = (self.arc(), pair.clone());
        let make = move |_: &mut _| SessionActor::new(key, hash, directory);
        let session = self.placement.start_in(self.placement.by_hash(hash), make);
        self.metrics.sessions(sessions.len() as i64 + 1);
        sessions.insert(pair, session.clone());
        session
    }

    /// A stream of a partner's to us ended, and not in order: the session of each pair that it carried looks for the partner.
    /// Without a session and without a pair of users there is nobody to look for.
    pub fn incoming_broke(&self, pairs: &[DomainPair]) {
        for pair in pairs {
            let known = self.sessions.read().get(pair).cloned();
            let has_pairs = || self.has_pairs_with(pair.remote.as_str());
            let session = known.or_else(|| has_pairs().then(|| self.session(&pair.local, &pair.remote)));
            if let Some(session) = session {
                session.do_send(ToSession::IncomingBroken);
            }
        }
    }

    /// The partner of a pair spoke to us by itself: if it is waited for, it is tried now.
    pub fn partner_spoke(&self, pair: &DomainPair) {
        if let Some(session) = self.sessions.read().get(pair) {
            session.do_send(ToSession::Retry);
        }
    }

    /// A session's actor is about to end.
    pub fn forget_session(&self, pair: &DomainPair, session: &Addr<SessionActor>) {
        let mut sessions = self.sessions.write();
        if sessions.get(pair) == Some(session) {
            sessions.remove(pair);
            self.metrics.sessions(sessions.len() as i64);
            self.note_partner(pair, PartnerNews::Over);
        }
    }

    /// The sessions that are there.
    pub fn sessions(&self) -> Vec<(DomainPair, Addr<SessionActor>)> {
        self.sessions.read().iter().map(|(pair, session)| (pair.clone(), session.clone())).collect()
    }

    /// The actor of a local user, started if there is none.
    pub fn user(&self, aor: &Address) -> Addr<UserActor> {
        if let Some(user) = self.users.read().get(aor).filter(|user| user.connected()) {
            return user.clone();
        }
        let mut users = self.users.write();
        if let Some(user) = users.get(aor).filter(|user| user.connected()) {
            return user.clone();
        }
        let (directory, key) = (self.arc(), aor.clone());
        // One hash places a user and its shard on the same arbiter.
        let index = self.shard_of(aor.partition()) % self.placement.count();
        let user = self.placement.start_in(index, move |_: &mut _| UserActor::new(key, directory));
        self.metrics.users(users.len() as i64 + 1);
        users.insert(aor.clone(), user.clone());
        user
    }

    /// A user's actor ended.
    pub fn forget_user(&self, aor: &Address) {
        let mut users = self.users.write();
        users.remove(aor);
        self.metrics.users(users.len() as i64);
    }

    /// A peer that is there.
    pub fn peer(&self, key: &PeerKey) -> Option<Peer> {
        self.peers.read().get(key).cloned()
    }

    /// A peer, started if it is not there.
    pub fn find_or_start_peer(&self, key: &PeerKey) -> Peer {
        if let Some(peer) = self.peer(key).filter(|peer| peer.addr.connected()) {
            return peer;
        }
        let mut peers = self.peers.write();
        if let Some(peer) = peers.get(key).filter(|peer| peer.addr.connected()) {
            return peer.clone();
        }
        let capacity = match key {
            PeerKey::FrontEnd(_) => FRONT_END_INBOX,
            PeerKey::Phone(_) => PHONE_INBOX,
        };
        let (sender, inbox) = tombolo_runtime::inbox(capacity);
        let hash = self.hasher.hash_one(key);
        let (directory, own_key) = (self.arc(), key.clone());
        let make = move |_: &mut _| PeerActor::new(own_key, hash, inbox, directory);
        let addr = self.placement.start_in(self.placement.by_hash(hash), make);
        let peer = Peer { inbox: sender, addr };
        peers.insert(key.clone(), peer.clone());
        peer
    }

    /// A peer ended that had these flows.
    pub fn forget_peer(&self, key: &PeerKey, flows: &[FlowId]) {
        self.peers.write().remove(key);
        // What nobody has any more ends by itself.
        let _ = self.flows.forget(key, flows);
    }

    /// Tells a peer; `false` when there is none. A front end is started when it is needed.
    pub fn tell_peer(&self, key: &PeerKey, message: ToPeer) -> bool {
        let peer = match key {
            PeerKey::FrontEnd(_) => Some(self.find_or_start_peer(key)),
            PeerKey::Phone(_) => self.peer(key),
        };
        match peer {
            Some(peer) => {
                peer.addr.do_send(message);
                true
            }
            None => false,
        }
    }

    /// A request cannot be sent at all.
    pub fn fail_request(&self, requester: Requester) {
        self.end_request(requester, Err(NoResponse::Transport));
    }

    /// Tells whoever asked how a request ended.
    pub fn end_request(&self, requester: Requester, outcome: Result<Message, NoResponse>) {
        match requester {
            Requester::Shard(shard, request) => self.tell_shard(shard, Input::Outcome { request, outcome }),
            Requester::User(aor, fork, branch) => {
                let outcome = outcome.map(Box::new);
                self.user(&aor).do_send(ToUser::Outcome { fork, branch, outcome });
            }
        }
    }

    /// Those who have no peer yet.
    pub fn guests(&self) -> Option<&Addr<GuestsActor>> {
        self.guests.get()
    }

    /// A flow belongs to a peer too from now on; `false` when it carries as many phones as it may.
    pub fn bind_flow(&self, flow: &Arc<FlowFacts>, key: &PeerKey) -> bool {
        let branch_prefix = format!("{MAGIC_COOKIE}{}.", owner_name(self.hasher.hash_one(key)));
        let is_bound = self.flows.bind(flow, key, &branch_prefix);
        if is_bound {
            // Anybody may have written a datagram that names a front end's address as its source: such flows end soon, as
            // strangers' do, and take no place of those who proved themselves.
            let is_forgeable = flow.transport == Transport::Udp
                && flow.dial.is_none()
                && matches!(key, PeerKey::FrontEnd(_));
            if !is_forgeable {
                self.flows_port().send(ToFlow::Bound { flow: flow.flow });
            }
            self.find_or_start_peer(key).addr.do_send(ToPeer::FlowUp(flow.clone()));
        }
        is_bound
    }

    /// Proves whom a request of a phone is from that came by a flow.
    pub fn prove(&self, message: &Message, flow: &FlowFacts) -> Proof {
        let proof = self.authenticator.prove(message, flow.local, &self.policy.load(), self.clock.now());
        if let Proof::Challenge { fault: Some(fault), .. } = &proof {
            self.note_failed_login(message, flow, 401, fault);
        }
        proof
    }

    /// A phone did not prove the user that it names. One line each, with the address, for tools that ban addresses.
    pub fn note_failed_login(&self, message: &Message, flow: &FlowFacts, status: u16, cause: &dyn Display) {
        self.metrics.failed_login();
        let from = message.from().ok().and_then(|from| address_of_uri(&from.uri).ok());
        let aor = from.map(|from| Redacted(from.address).to_string()).unwrap_or_default();
        tracing::warn!(
            client = %flow.remote.ip(), transport = flow.transport.via_name(), aor, status, cause = %cause,
            "a phone's login failed"
        );
    }

    /// The peer that a message by a flow is for.
    pub fn receiver(&self, flow: FlowId, message: &Message) -> Option<(PeerKey, Peer)> {
        let key = self.flows.receiver(flow, message)?;
        let peer = self.peer(&key)?;
        Some((key, peer))
    }

    /// A number for a dial of a session.
    pub fn new_dial(&self, pair: &DomainPair) -> DialId {
        self.remember_dial(Dialled::Session(pair.clone()))
    }

    /// A number for a dial of a peer.
    pub fn new_peer_dial(&self, key: &PeerKey) -> DialId {
        self.remember_dial(Dialled::Peer(key.clone()))
    }

    fn remember_dial(&self, dialled: Dialled) -> DialId {
        let dial = DialId(self.next_dial.fetch_add(1, Ordering::Relaxed));
        self.dials.write().insert(dial, dialled);
        dial
    }

    /// The session that dialled.
    pub fn session_of_dial(&self, dial: DialId) -> Option<DomainPair> {
        match self.dials.write().remove(&dial)? {
            Dialled::Session(pair) => Some(pair),
            Dialled::Peer(_) => None,
        }
    }

    /// The peer that dialled.
    pub fn peer_of_dial(&self, dial: DialId) -> Option<PeerKey> {
        match self.dials.write().remove(&dial)? {
            Dialled::Peer(key) => Some(key),
            Dialled::Session(_) => None,
        }
    }

    /// A stream is up.
    pub fn add_stream(&self, id: StreamId, stream: Stream) {
        let mut streams = self.streams.write();
        streams.insert(id, stream);
        self.metrics.streams(streams.len() as i64);
    }

    /// A further pair is proved, or one is lost.
    pub fn change_stream(&self, id: StreamId, change: impl FnOnce(&mut Vec<DomainPair>)) {
        if let Some(stream) = self.streams.write().get_mut(&id) {
            change(&mut stream.pairs);
        }
    }

    /// A stream that is up.
    pub fn stream(&self, id: StreamId) -> Option<Stream> {
        self.streams.read().get(&id).cloned()
    }

    /// The partner's streams to us for a pair that brought nothing for so long.
    pub fn silent_streams(&self, pair: &DomainPair, span: Duration) -> Vec<StreamId> {
        let now = self.clock.now().instant;
        let is_silent = |stream: &Stream| {
            stream.direction == StreamDirection::Incoming
                && stream.heard.silence(now) >= span
                && stream.pairs.contains(pair)
        };
        self.streams.read().iter().filter(|(_, stream)| is_silent(stream)).map(|(id, _)| *id).collect()
    }

    /// The session that an outgoing stream carries.
    pub fn session_of_stream(&self, id: StreamId) -> Option<Addr<SessionActor>> {
        let pair = self.streams.read().get(&id)?.session.clone()?;
        Some(self.session(&pair.local, &pair.remote))
    }

    /// A stream ended.
    pub fn remove_stream(&self, id: StreamId) -> Option<Stream> {
        let mut streams = self.streams.write();
        let stream = streams.remove(&id);
        self.metrics.streams(streams.len() as i64);
        stream
    }

    /// All streams.
    pub fn streams(&self) -> Vec<(StreamId, Stream)> {
        self.streams.read().iter().map(|(id, stream)| (*id, stream.clone())).collect()
    }

    /// Number of SIP peers and of flows that are bound to one.
    pub fn peer_counts(&self) -> (usize, usize) {
        (self.peers.read().len(), self.flows.len())
    }
}

/// How long an actor that owns nothing stays: what comes just then must not be sent to one that is about to end.
pub const LINGER: Duration = Duration::from_secs(30);
/// TCP connections to phones that we opened or dial: a part of the open files that the process keeps back for dials.
const PHONE_STREAMS: usize = 32;
/// Batches of messages that wait for the peer of a whole enterprise.
const FRONT_END_INBOX: usize = 1024;
/// Batches of messages that wait for the peer of one phone.
const PHONE_INBOX: usize = 16;

/// Between the first listener and [`Directory::connect`] there is a moment in which a peer can already speak. What is
/// said to it then is dropped; it says itself again.
struct NotYet;

impl EdgePort for NotYet {
    fn send(&self, value: ToEdge) {
        // Stanzas hold addresses and what people write.
        let (value, len) = match value {
            ToEdge::Dial { .. } => ("dial", 0),
            ToEdge::Stanzas { bytes, .. } => ("stanzas", bytes.len()),
            ToEdge::Credit { .. } => ("credit", 0),
            ToEdge::Close { .. } => ("close", 0),
            ToEdge::Beat => ("beat", 0),
            ToEdge::GiveUp { .. } => ("give up", 0),
        };
        tracing::debug!(value, len, "dropped: not started yet");
    }
}

impl FlowPort for NotYet {
    fn send(&self, value: ToFlow) {
        let (value, len) = match value {
            ToFlow::Dial { .. } => ("dial", 0),
            ToFlow::Bytes { bytes, .. } => ("messages", bytes.len()),
            ToFlow::Avoid { .. } => ("avoid", 0),
            ToFlow::Close { .. } => ("close", 0),
            ToFlow::Mark { .. } => ("mark", 0),
            ToFlow::Bound { .. } => ("bound", 0),
        };
        tracing::debug!(value, len, "dropped: not started yet");
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use bytes::Bytes;
    use tracing::{Event, Metadata, Subscriber, field, span};

    use super::*;

    /// Every field of every event, as text.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<String>>);

    impl field::Visit for Lines {
        fn record_debug(&mut self, field: &field::Field, value: &dyn Debug) {
            self.0.lock().push_str(&format!("{field}={value:?} "));
        }
    }

    impl Subscriber for Lines {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, event: &Event<'_>) {
            event.record(&mut self.clone());
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    fn what_is_dropped_before_the_start_is_logged_without_addresses_and_words() {
        let lines = Lines::default();
        tracing::subscriber::with_default(lines.clone(), || {
            let bytes = Bytes::from_static(b"<message to='juliet@example.com'>word</message>");
            EdgePort::send(&NotYet, ToEdge::Stanzas { stream: StreamId(1), count: 1, bytes });
            let bytes = Bytes::from_static(b"MESSAGE sip:juliet@example.com SIP/2.0\r\n\r\nword");
            FlowPort::send(&NotYet, ToFlow::Bytes { flow: FlowId(1), bytes });
        });
        let said = lines.0.lock();
        assert!(said.contains("\"stanzas\" len=47") && said.contains("\"messages\""), "{said}");
        assert!(!said.contains("juliet") && !said.contains("word"), "{said}");
    }
}
