//! The broker of one gateway: its shards, its directory, and how the outside asks it.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tombolo_edge::{
    DomainPair, EdgePort, FlowPort, ProofMethod, StreamDirection, StreamId, StreamTls, ToFlow, Transport,
};
use tombolo_interwork::{
    owner::{Input, Owner, OwnerSettings, PeerHealth, PeerKey, Report, UnfinishedMessage},
    rows::{Row, table},
    token::TokenKey,
};
use tombolo_policy::Table;
use tombolo_presence::{Address, Domain, LifetimeClock};
use tombolo_runtime::{Clock, Placement, guard_future};
use tombolo_sip::digest::Algorithm;
use tombolo_store::{StateStore, StoreError};
use tombolo_telemetry::{Metrics, PartState};

use crate::{
    accounts::{Accounts, Authenticator},
    bindings::Restored,
    budgets::{Budgets, MemoryLimits},
    directory::{Directory, Shard, Shared, Stream},
    fanout_actor::FanoutActor,
    guests::GuestsActor,
    local_user::BindingReport,
    messages::{AskShard, ToPeer, ToSession, ToUser},
    registrations::RegistrationCounts,
    router::Router,
    session::{SessionSettings, SessionState},
    shard_load::load_rows,
};

/// What a broker is set to.
pub struct BrokerSettings {
    /// Where actors run; one shard an arbiter.
    pub placement: Placement,
    /// The only source of time.
    pub clock: Clock,
    /// Where rows are kept.
    pub store: Arc<dyn StateStore>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The policy in force.
    pub policy: Arc<ArcSwap<Table>>,
    /// The users of built-in homes.
    pub accounts: Accounts,
    /// What their challenges offer, the preferred first.
    pub digest: Vec<Algorithm>,
    /// 32 random octets, kept over restarts: they sign tokens and nonces.
    pub secret: [u8; 32],
    /// For jitter, new at each start.
    pub seed: u64,
    /// The least time between two states to one SIP watcher of one presentity (RFC 3856 §6.10).
    pub watcher_interval: Duration,
    /// A phone that is registered and publishes nothing is shown as available.
    pub registration_is_presence: bool,
    /// An outgoing stream that took nothing for so long is closed in order.
    pub idle_close: Duration,
    /// The largest SIP message that is written, in octets.
    pub max_sip_bytes: usize,
    /// How much memory it may hold for others.
    pub memory: MemoryLimits,
    /// A partner that was not heard for so long is pinged.
    pub ping_after: std::time::Duration,
}

/// A running broker.
pub struct Broker {
    directory: Arc<Directory>,
    router: Arc<Router>,
    /// Phones that are reached by UDP without their help, until the ways out are there.
    datagram_phones: Mutex<Vec<(PeerKey, SocketAddr)>>,
}

/// A federated session, for operators.
#[derive(Debug, Clone)]
pub struct SessionReport {
    /// Our domain.
    pub local: Domain,
    /// The partner's.
    pub remote: Domain,
    /// The outgoing stream.
    pub stream: Option<StreamId>,
    /// The partner cannot be reached.
    pub is_lost: bool,
    /// Messages that wait for a stream.
    pub waiting: usize,
    /// Stanzas that were handed to streams.
    pub stanzas_out: u64,
    /// How the partner is doing.
    pub state: SessionState,
    /// For how long.
    pub in_state_for: Duration,
    /// Time until the next dial.
    pub next_dial: Option<Duration>,
    /// Why the last stream ended or the last dial failed.
    pub last_failure: Option<String>,
}

/// A front end, for operators.
#[derive(Debug, Clone)]
pub struct FrontEndReport {
    /// The local domain whose users it has.
    pub domain: Domain,
    /// How it stands.
    pub health: PeerHealth,
    /// For how long.
    pub in_state_for: Duration,
    /// Why it is not up.
    pub cause: Option<&'static str>,
    /// Where it is connected.
    pub remote: Option<SocketAddr>,
    /// Why the last dial gave no connection; only while it is not up.
    pub last_failure: Option<String>,
    /// When it is dialled again.
    pub next_dial: Option<Duration>,
}

/// A stream, for operators.
#[derive(Debug, Clone)]
pub struct StreamReport {
    /// The stream.
    pub id: StreamId,
    /// Which way stanzas flow.
    pub direction: StreamDirection,
    /// The pairs that are proved on it.
    pub pairs: Vec<DomainPair>,
    /// How the first one was proved.
    pub method: ProofMethod,
    /// Its TLS; nothing in the clear.
    pub tls: Option<Arc<StreamTls>>,
    /// For how long it is up.
    pub up_for: Duration,
}

/// A shard, for operators.
#[derive(Debug, Clone)]
pub struct ShardReport {
    /// Inputs that wait.
    pub waiting: usize,
    /// Inputs that were given back.
    pub refused: u64,
    /// What it owns.
    pub report: Report,
}

impl Broker {
    /// Loads the shards' rows and starts them. Connect it before anything comes in.
    pub fn start(settings: BrokerSettings) -> Result<Self, StoreError> {
        let BrokerSettings {
            placement,
            clock,
            store,
            metrics,
            policy,
            accounts,
            digest,
            secret,
            seed,
            memory,
            ..
        } = settings;
        let key = TokenKey::new(&secret);
        let authenticator = Arc::new(Authenticator::new(digest, secret, seed));
        let approvals = Arc::new(accounts.approvals());
        authenticator.set_accounts(accounts);
        let now = clock.now();
        let meta = store.meta();
        let lifetimes = LifetimeClock::resumed(meta.mark, clock.boot(), now);
        store.mark_clock(lifetimes.mark(clock.boot(), now));
        let start = meta.start as u32;
        let count = placement.count();
        let directory = Directory::new(Shared {
            clock,
            placement: placement.clone(),
            store: store.clone(),
            metrics,
            policy: policy.clone(),
            authenticator,
            key: key.clone(),
            lifetimes,
            session_settings: SessionSettings {
                idle_close: settings.idle_close,
                ping_after: settings.ping_after,
                ..SessionSettings::default()
            },
            budgets: Budgets::new(&memory),
        });
        let mut rows: Vec<Vec<Row>> = vec![Vec::new(); count];
        for table in table::ALL {
            store.load(0..=tombolo_presence::PARTITIONS - 1, table, &mut |partition, key, value| {
                let row = Row { partition, table, key: key.to_vec(), value: Some(value.to_vec()) };
                rows[usize::from(partition) % count].push(row);
            })?;
        }
        let damaged = store.set_damaged_aside()?;
        for row in damaged.iter().take(MOST_NAMED) {
            let key = row.key.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
            tracing::error!(table = row.table, partition = row.partition, key, "a damaged row is set aside");
        }
        if !damaged.is_empty() {
            tracing::error!(rows = damaged.len(), "stored rows were damaged: run tombolo store check");
        }
        let knows_all_grants = meta.is_complete && damaged.is_empty();
        if !knows_all_grants {
            let note = "the store is new or has lost rows and may lack subscriptions: probes of contacts without one get no \
                        answer. When nothing is left to restore or import, run: tombolo store complete";
            tracing::warn!("{note}");
            directory.metrics.health().part("grants").set(PartState::Noted, note);
        }
        let inbox_bytes = (memory.inboxes / count).clamp(MIN_SHARD_INBOX_BYTES, SHARD_INBOX_BYTES);
        let mut shards = Vec::with_capacity(count);
        for (index, rows) in rows.into_iter().enumerate() {
            let mut own =
                OwnerSettings::new(key.clone(), start, seed.wrapping_add(index as u64 * 0x9e37_79b9));
            own.watcher_interval = settings.watcher_interval;
            // All shards together keep within one window.
            own.refresh_window = (own.refresh_window / count).max(1);
            // Together less than what makes a connection end that takes nothing.
            own.in_flight_octets = (IN_FLIGHT_OCTETS / count).max(LEAST_IN_FLIGHT_OCTETS);
            own.max_sip_bytes = settings.max_sip_bytes;
            own.budgets = memory.shards.of_shard(count);
            own.registration_is_presence = settings.registration_is_presence;
            own.lifetimes = Some(lifetimes);
            own.knows_all_grants = knows_all_grants;
            let mut owner = Owner::new(own.clone(), policy.load_full(), now);
            owner.handle(Input::Accounts(approvals.clone()), now);
            load_rows(&mut owner, &*store, index, rows, now);
            let (sender, inbox) = tombolo_runtime::inbox_of_bytes(SHARD_INBOX, inbox_bytes);
            let shared = directory.clone();
            let make = move |_: &mut _| FanoutActor::new(index, own, owner, inbox, shared);
            let addr = placement.start_in(index, make);
            shards.push(Shard { inbox: sender, addr, is_down: Arc::default() });
        }
        let shared = directory.clone();
        let guests = placement.start_in(0, move |_: &mut _| GuestsActor::new(shared));
        directory.begin(shards, guests);
        let router = Arc::new(Router::new(directory.clone()));
        let datagram_phones = Mutex::new(restore_bindings(&directory, now)?);
        Ok(Self { directory, router, datagram_phones })
    }

    /// Where streams and flows hand what they bring.
    pub fn router(&self) -> Arc<Router> {
        self.router.clone()
    }

    /// Names the ways out, once.
    pub fn connect(&self, edge: Arc<dyn EdgePort>, flows: Arc<dyn FlowPort>) {
        self.directory.connect(edge, flows);
        let phones = std::mem::take(&mut *self.datagram_phones.lock());
        let directory = self.directory.clone();
        self.directory.placement.helpers().spawn(async move {
            // Those that are not met are when they register again.
            if let Err(panicked) = guard_future(meet(&directory, &phones)).await {
                directory.panics.note_harmless("phones on UDP", &panicked);
            }
        });
    }

    /// Waits until panics of actors do not stop: the cause for which the process must end, to be started anew.
    pub fn ended(&self) -> impl Future<Output = String> + Send + 'static {
        self.directory.panics.ended()
    }

    /// Replaces the accounts.
    pub fn set_accounts(&self, accounts: Accounts) {
        let before = self.directory.authenticator.accounts().approvals();
        let approvals = Arc::new(accounts.approvals());
        let known = self.directory.authenticator.accounts();
        self.directory.authenticator.set_accounts(accounts);
        let after = self.directory.authenticator.accounts();
        // A user who is added again later must not find the phones of the former one.
        for aor in known.users().filter(|aor| after.account(aor).is_none()) {
            let (answer, _) = oneshot::channel();
            self.directory.user(aor).do_send(ToUser::Clear(answer));
        }
        // Other passwords concern no shard.
        if before == *approvals {
            return;
        }
        self.directory.tell_shards(|| Input::Accounts(approvals.clone()));
    }

    /// How many users of built-in homes are known.
    pub fn count_accounts(&self) -> usize {
        self.directory.authenticator.accounts().len()
    }

    /// Puts a new policy in force.
    pub fn set_policy(&self, table: Arc<Table>) {
        self.directory.set_policy(&table);
    }

    /// The process takes as much memory as it may, or less again.
    pub fn set_memory_full(&self, is_full: bool) {
        self.directory.budgets.is_memory_full.store(is_full, Ordering::Relaxed);
        self.directory.tell_shards(|| Input::MemoryFull(is_full));
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Table> {
        self.directory.policy.load_full()
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.directory.metrics
    }

    /// What is known of a user's relations.
    pub async fn report(&self, user: Address) -> Report {
        let shard = self.directory.shard_of(user.partition());
        let (answer, waiting) = oneshot::channel();
        self.directory.shards()[shard].addr.do_send(AskShard::Report { user: Some(user), answer });
        waiting.await.unwrap_or_default()
    }

    /// Messages that would be lost if the process ended now, of all shards.
    pub async fn unfinished_messages(&self) -> Vec<UnfinishedMessage> {
        let mut unfinished = Vec::new();
        for shard in self.directory.shards() {
            let (answer, waiting) = oneshot::channel();
            shard.addr.do_send(AskShard::Unfinished { answer });
            unfinished.extend(waiting.await.unwrap_or_default());
        }
        unfinished
    }

    /// What each shard owns.
    pub async fn shards(&self) -> Vec<ShardReport> {
        let mut reports = Vec::new();
        for shard in self.directory.shards() {
            let (answer, waiting) = oneshot::channel();
            shard.addr.do_send(AskShard::Report { user: None, answer });
            let report = waiting.await.unwrap_or_default();
            reports.push(ShardReport { waiting: shard.inbox.len(), refused: shard.inbox.refused(), report });
        }
        let (pairs, dialogs) = reports.iter().fold((0, 0), |(pairs, dialogs), shard| {
            let ShardReport { report, .. } = shard;
            (pairs + report.pairs, dialogs + report.notifier_dialogs + report.subscriber_dialogs)
        });
        self.directory.metrics.subscriptions(pairs as i64);
        self.directory.metrics.dialogs(dialogs as i64);
        self.directory.metrics.queue_depth(reports.iter().map(|shard| shard.waiting as i64).sum());
        reports
    }

    /// What each session with a partner of the policy in force is at.
    pub async fn sessions(&self) -> Vec<SessionReport> {
        let policy = self.directory.policy.load_full();
        let sessions = self.directory.sessions().into_iter();
        let asked = sessions.filter(|(pair, _)| policy.federates(&pair.local, &pair.remote).is_ok()).map(
            |(_, session)| {
                let (answer, waiting) = oneshot::channel();
                session.do_send(ToSession::Report(answer));
                waiting
            },
        );
        let mut reports = Vec::new();
        for waiting in asked.collect::<Vec<_>>() {
            reports.extend(waiting.await);
        }
        reports
    }

    /// What phones have registered.
    pub fn registrations(&self) -> RegistrationCounts {
        self.directory.registrations.counts()
    }

    /// How the front ends stand, in the order of their domains.
    pub async fn front_ends(&self) -> Vec<FrontEndReport> {
        let mut reports = Vec::new();
        for peer in self.directory.front_ends() {
            let (answer, waiting) = oneshot::channel();
            peer.do_send(ToPeer::Report(answer));
            reports.extend(waiting.await);
        }
        reports.sort_by(|a, b| a.domain.as_str().cmp(b.domain.as_str()));
        reports
    }

    /// The streams that are up.
    pub fn streams(&self) -> Vec<StreamReport> {
        let now = self.directory.clock.now().instant;
        let report = |(id, stream): (StreamId, Stream)| StreamReport {
            id,
            up_for: now.saturating_duration_since(stream.heard.begun()),
            direction: stream.direction,
            pairs: stream.pairs,
            method: stream.method,
            tls: stream.tls,
        };
        self.directory.streams().into_iter().map(report).collect()
    }

    /// Number of SIP peers and of flows that are bound to one.
    pub fn peer_counts(&self) -> (usize, usize) {
        self.directory.peer_counts()
    }

    /// A decision about watchers of a user: whom it concerned.
    pub async fn decide(&self, user: Address, watcher: Option<Address>, is_approved: bool) -> Vec<Address> {
        let shard = self.directory.shard_of(user.partition());
        let (answer, waiting) = oneshot::channel();
        self.directory.shards()[shard].addr.do_send(AskShard::Decide { user, watcher, is_approved, answer });
        waiting.await.unwrap_or_default()
    }

    /// The bindings of a user of a built-in home, the oldest first.
    pub async fn bindings(&self, user: &Address) -> Vec<BindingReport> {
        let (answer, waiting) = oneshot::channel();
        self.directory.user(user).do_send(ToUser::Bindings(answer));
        waiting.await.unwrap_or_default()
    }

    /// Removes every binding of a user; how many there were. A phone that is still there registers again in time.
    pub async fn clear_bindings(&self, user: &Address) -> usize {
        let (answer, waiting) = oneshot::channel();
        self.directory.user(user).do_send(ToUser::Clear(answer));
        waiting.await.unwrap_or_default()
    }

    /// Tries a partner that is waited for, now. How many sessions it has.
    pub fn retry(&self, domain: &str) -> usize {
        self.retry_where(|pair| pair.remote.as_str() == domain)
    }

    /// Tries every partner of a domain of ours that is waited for, now: what kept them away may be over, as with a new
    /// certificate.
    pub fn retry_all_of(&self, local: &str) -> usize {
        self.retry_where(|pair| pair.local.as_str() == local)
    }

    fn retry_where(&self, is_wanted: impl Fn(&DomainPair) -> bool) -> usize {
        let sessions = self.directory.sessions();
        let wanted = sessions.iter().filter(|(pair, _)| is_wanted(pair));
        wanted.map(|(_, session)| session.do_send(ToSession::Retry)).count()
    }
}

/// Gives users their phones back; the phones that are reached by UDP.
fn restore_bindings(
    directory: &Directory,
    now: tombolo_presence::Now,
) -> Result<Vec<(PeerKey, SocketAddr)>, StoreError> {
    let accounts = directory.authenticator.accounts();
    let restored = Restored::load(&*directory.store, &accounts, &directory.lifetimes, now)?;
    let phones = restored.datagram_phones().into_iter().collect();
    let Restored { bindings, over, gone, unread } = restored;
    if unread > 0 {
        tracing::error!(rows = unread, "stored bindings cannot be read and are left alone");
    }
    for phone in gone {
        directory.tell_shard(directory.shard_of(phone.aor.partition()), Input::PhoneGone(phone));
    }
    for (aor, bindings) in bindings {
        directory.user(&aor).do_send(ToUser::Restore(bindings));
    }
    if !over.is_empty() {
        // If it fails they are found over again at the next start.
        directory.store.keep(over, 0, Box::new(|_, _| {}));
    }
    Ok(phones)
}

/// Opens flows to phones, not all in one moment: each makes its shards say what they owe.
async fn meet(directory: &Directory, phones: &[(PeerKey, SocketAddr)]) {
    for some in phones.chunks(MEET_AT_ONCE) {
        for (key, remote) in some {
            let PeerKey::Phone(phone) = key else { continue };
            directory.flows_port().send(ToFlow::Dial {
                dial: directory.new_peer_dial(key),
                transport: Transport::Udp,
                is_transport_named: true,
                host: remote.ip().to_string().into(),
                port: Some(remote.port()),
                domain: phone.aor.domain().into(),
            });
        }
        tokio::time::sleep(MEET_PAUSE).await;
    }
}

/// Damaged rows that are named one by one.
const MOST_NAMED: usize = 100;
const MEET_AT_ONCE: usize = 256;
const MEET_PAUSE: Duration = Duration::from_millis(20);
/// Octets of messages that one front end is sent and has not answered.
const IN_FLIGHT_OCTETS: usize = 4 << 20;
/// What each shard has of it at least.
const LEAST_IN_FLIGHT_OCTETS: usize = 128 << 10;
/// Batches that wait for a shard.
const SHARD_INBOX: usize = 4096;
/// Octets of them.
const SHARD_INBOX_BYTES: usize = 16 << 20;
/// A few batches of every size.
const MIN_SHARD_INBOX_BYTES: usize = 512 << 10;

#[cfg(test)]
mod tests {
    use tombolo_edge::ToEdge;

    use super::*;
    use crate::directory::LINGER;

    #[derive(Default)]
    struct Outside(Mutex<Vec<DomainPair>>);

    impl EdgePort for Outside {
        fn send(&self, value: ToEdge) {
            if let ToEdge::Dial { pair, .. } = value {
                self.0.lock().push(pair);
            }
        }
    }

    impl FlowPort for Outside {
        fn send(&self, _: ToFlow) {}
    }

    #[test]
    fn what_is_sent_to_a_session_that_is_about_to_end_is_heard_by_its_successor() {
        actix::System::new().block_on(async {
            tokio::time::pause();
            let broker = Broker::start(BrokerSettings {
                placement: Placement::single(),
                clock: Clock::system(),
                store: Arc::new(tombolo_store::MemoryStore::new()),
                metrics: Arc::new(Metrics::new(1)),
                policy: Arc::new(ArcSwap::from_pointee(Table::new(1, vec![], vec![]).expect("empty"))),
                accounts: Accounts::default(),
                digest: vec![Algorithm::Sha256],
                secret: [7; 32],
                seed: 1,
                watcher_interval: Duration::ZERO,
                registration_is_presence: true,
                idle_close: Duration::from_secs(600),
                max_sip_bytes: 65_536,
                memory: MemoryLimits::default(),
                ping_after: Duration::from_secs(30),
            });
            let broker = broker.expect("the store loads");
            let outside = Arc::new(Outside::default());
            broker.connect(outside.clone(), outside.clone());
            let [local, remote] =
                ["a.example", "b.example"].map(|n| Domain::from_prepared(n).expect("legal"));
            let first = broker.directory.session(&local, &remote);
            // Nothing that it does keeps it.
            first.send(ToSession::Pong(1)).await.expect("it is there");
            tokio::time::sleep(LINGER + Duration::from_secs(1)).await;
            assert!(broker.directory.sessions().is_empty());
            let message = ToSession::Message { shard: 0, message: None, bytes: b"<iq/>"[..].into() };
            first.send(message).await.expect("it is still there");
            let second = broker.directory.session(&local, &remote);
            assert!(first != second);
            second.send(ToSession::Pong(1)).await.expect("it is there");
            assert_eq!(*outside.0.lock(), [DomainPair { local, remote }]);
            tokio::time::sleep(LINGER + Duration::from_secs(1)).await;
            assert!(!first.connected() && second.connected());
        });
    }
}
