//! Which parts a role is made of. No part knows its role: it is known here only.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
};

use arc_swap::ArcSwap;
use rand::RngExt;
use tokio::sync::Notify;
use tombolo_admin::AdminState;
use tombolo_broker::{Broker, BrokerSettings, BudgetLimits, MemoryLimits};
use tombolo_config::{
    DigestAlgorithm, LinkEnd, LinkSettings, MemorySettings, Role, Settings, Trust as TrustSetting, XmppLimits,
};
use tombolo_edge::{
    DoorLimits, EdgePort, LinkIdentity, LinkListener, LinkPort, LinkPortSettings, LinkReport,
    LinkSettings as LinkParts, SipEdge, SipEdgeSettings, StreamPace, StreamSink, Transport, XmppEdge,
    XmppEdgeSettings,
};
use tombolo_interwork::owner::UnfinishedMessage;
use tombolo_net::{CertificateStore, Resolver, Trust};
use tombolo_policy::{SipTransport, Table};
use tombolo_runtime::{Clock, MemoryGate, Placement};
use tombolo_sip::{digest::Algorithm, message::MessageLimits};
use tombolo_store::{RedbOptions, StateStore};
use tombolo_telemetry::{Metrics, PartState};
use tombolo_xmpp::{stream::StreamLimits, xml::XmlLimits};

use crate::{
    book::Book,
    data_dir,
    descriptors::{self, Connections},
    memory_room::MemoryRoom,
    memory_watch,
    reload::{Files, Parts, Source},
    store_file,
};

/// A running role.
pub struct Assembled {
    /// What administration is asked about.
    pub admin: Arc<AdminState>,
    /// What is read again by order.
    pub files: Arc<Files>,
    /// What is listened on, for people: what it is for, and where.
    pub listening: Vec<(String, SocketAddr)>,
    /// Told when somebody orders the end.
    pub shutdown: Arc<Notify>,
    /// Whether anything new is let in.
    pub memory: Arc<MemoryGate>,
    placement: Placement,
    store: Option<Arc<dyn StateStore>>,
    xmpp: Option<Arc<XmppEdge>>,
    _sip: Option<Arc<SipEdge>>,
    _link: Option<Arc<LinkPort>>,
}

impl Assembled {
    /// Waits until panics of actors do not stop; an edge has no actor that owns state.
    pub async fn ended_by_panics(&self) -> String {
        match &self.admin.broker {
            Some(broker) => broker.ended().await,
            None => std::future::pending().await,
        }
    }

    /// True when every thread of actors takes a turn within `limit`.
    pub async fn is_alive(&self, limit: std::time::Duration) -> bool {
        let turns = (0..self.placement.count()).map(|index| {
            let (done, turn) = tokio::sync::oneshot::channel();
            self.placement.run_in(index, move || _ = done.send(()));
            turn
        });
        let turns: Vec<_> = turns.collect();
        let all = async {
            for turn in turns {
                if turn.await.is_err() {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(limit, all).await.unwrap_or(false)
    }

    /// Ends in order: streams are closed, rows are on disk.
    pub async fn stop(&self) {
        if let Some(xmpp) = &self.xmpp {
            xmpp.close_all();
            // Peers get a moment to close their side.
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        if let Some(broker) = &self.admin.broker {
            log_unfinished(&broker.unfinished_messages().await);
        }
        if let Some(store) = self.store.clone() {
            let stopped = tokio::task::spawn_blocking(move || store.shutdown()).await;
            if let Ok(Err(error)) = stopped {
                tracing::error!(%error, "the store could not be closed");
            }
        }
    }
}

/// Names the messages that this process takes with it: their senders may have been told that they are on their way.
fn log_unfinished(messages: &[UnfinishedMessage]) {
    for message in messages.iter().take(MOST_NAMED) {
        let direction = if message.is_to_xmpp { "to-xmpp" } else { "to-sip" };
        tracing::warn!(direction, id = message.id, "a message was not handed over before the end");
    }
    if messages.len() > MOST_NAMED {
        tracing::warn!(count = messages.len(), "messages were not handed over before the end");
    }
}

/// Messages that are named one by one in the log of an orderly stop.
const MOST_NAMED: usize = 1000;

/// What every role begins with.
struct Basis {
    placement: Placement,
    /// What connections from outside are held to.
    connections: Connections,
    clock: Clock,
    metrics: Arc<Metrics>,
    memory: Arc<MemoryGate>,
    /// What may grow beside what the gate lets in.
    room: MemoryRoom,
    policy: Arc<ArcSwap<Table>>,
    certificates: Arc<CertificateStore>,
    resolver: Resolver,
    /// Whom each side trusts; a clone shares what a reload brings.
    xmpp_trust: Option<Trust>,
    sip_trust: Option<Trust>,
    source: Source,
}

fn basis(settings: &Settings, source: Source) -> io::Result<Basis> {
    let cores = descriptors::arbiters();
    let limit = descriptors::raise();
    let placement = Placement::threads(cores)?;
    let metrics = Arc::new(Metrics::new(placement.count()));
    let connections = fitted_connections(settings, limit, cores, &metrics);
    let certificates = Arc::new(CertificateStore::default());
    for domain in &settings.domains {
        if let Some(files) = &domain.certificate {
            certificates
                .load(domain.name.as_str(), &files.certificate, &files.key)
                .map_err(|error| io::Error::other(error.to_string()))?;
        }
    }
    let resolver = {
        let helpers = placement.helpers();
        let _inside = helpers.enter();
        match &settings.dns.servers[..] {
            [] => Resolver::system(),
            servers => Resolver::with_servers(servers),
        }
    };
    let xmpp_trust = settings.xmpp.as_ref().map(|xmpp| trust("xmpp.trust", &xmpp.trust)).transpose()?;
    let sip_trust = settings.sip.as_ref().map(|sip| trust("sip.trust", &sip.trust)).transpose()?;
    let memory = memory_watch::gate(&settings.memory);
    Ok(Basis {
        xmpp_trust,
        sip_trust,
        source,
        room: MemoryRoom::of(&settings.memory, &memory),
        memory,
        metrics,
        connections,
        placement,
        clock: Clock::system(),
        policy: Arc::new(ArcSwap::from_pointee(settings.policy_table(1))),
        certificates,
        resolver: resolver.map_err(|error| io::Error::other(format!("dns: {error}")))?,
    })
}

/// The connections of the settings, held to what the limit of open files leaves.
fn fitted_connections(settings: &Settings, limit: u64, cores: usize, metrics: &Metrics) -> Connections {
    let asked = Connections {
        xmpp: settings.xmpp.as_ref().map_or(0, |xmpp| xmpp.limits.connections),
        sip: settings.sip.as_ref().map_or(0, |sip| sip.limits.connections),
    };
    let fitted = descriptors::fit(limit, asked, cores, settings.partners.len());
    if fitted != asked {
        let note = descriptors::fitted_text(limit, asked, fitted);
        tracing::warn!("{note}");
        metrics.health().part("files").set(PartState::Noted, note);
    }
    fitted
}

/// As large a part of `fitted` as `part` is of `asked`: strangers must not take all that is left.
fn scaled(part: usize, asked: usize, fitted: usize) -> usize {
    (part as u128 * fitted as u128 / asked.max(1) as u128).clamp(1, part.max(1) as u128) as usize
}

/// `name` is the setting as faults of certificates call it.
fn trust(name: &str, setting: &TrustSetting) -> io::Result<Trust> {
    let trust = match setting {
        TrustSetting::System => Trust::system(),
        TrustSetting::File(path) => Trust::from_pem_file(path),
    };
    trust.map(|trust| trust.called(name)).map_err(|error| io::Error::other(format!("{name}: {error}")))
}

fn trust_of(trust: &Option<Trust>) -> io::Result<Trust> {
    trust.clone().ok_or_else(|| io::Error::other("this role has no such side"))
}

/// Assembles the role that the settings name, on the thread of an actix `System`.
///
/// `source` is where the settings came from, to be read again. `begins_anew` orders an empty store where one is missing.
pub fn assemble(settings: &Settings, source: Source, begins_anew: bool) -> io::Result<Assembled> {
    match settings.role {
        Role::AllInOne => all_in_one(settings, source, begins_anew),
        Role::Edge if begins_anew => Err(io::Error::other("--new-store: an edge keeps no store")),
        Role::Edge => edge(settings, source),
        Role::Gateway => gateway(settings, source, begins_anew),
    }
}

/// Both parts in one process: what would be frames of the link are values.
fn all_in_one(settings: &Settings, source: Source, begins_anew: bool) -> io::Result<Assembled> {
    let is_demonstration = source.is_none();
    let basis = basis(settings, source)?;
    let parts = broker(settings, &basis, begins_anew, is_demonstration)?;
    let sink: Arc<dyn StreamSink> = parts.broker.router();
    let (xmpp, bound) = xmpp_edge(settings, &basis, sink)?;
    let xmpp = Arc::new(xmpp);
    let mut listening: Vec<_> = bound.into_iter().map(|at| ("XMPP partners".to_owned(), at)).collect();
    let port: Arc<dyn EdgePort> = xmpp.clone();
    finish_gateway(settings, &basis, parts, port, &mut listening, Some(xmpp), None)
}

/// The public side alone: no users, no store, no SIP.
fn edge(settings: &Settings, source: Source) -> io::Result<Assembled> {
    let basis = basis(settings, source)?;
    let (link, LinkEnd::Listen { at, gateways }) = link_of(settings)? else {
        return Err(io::Error::other("an edge has link.listen"));
    };
    let (sink, listener) = LinkListener::bind(
        link.clone(),
        *at,
        gateways.clone(),
        basis.placement.clone(),
        basis.clock.clone(),
        basis.metrics.health(),
    )?;
    let link_at = listener.local_addr();
    let links = listener.reports();
    let (xmpp, bound) = xmpp_edge(settings, &basis, Arc::new(sink))?;
    let xmpp = Arc::new(xmpp);
    listener.start(xmpp.clone(), basis.policy.clone());
    let mut listening: Vec<_> = bound.into_iter().map(|at| ("XMPP partners".to_owned(), at)).collect();
    listening.push(("gateways".to_owned(), link_at));
    let shutdown = Arc::new(Notify::new());
    let files = files(settings, &basis, Some(link), None, Some(xmpp.clone()), None);
    let links = Box::new(move || links.links());
    let admin = admin(settings, &basis, None, None, links, files.clone(), shutdown.clone());
    let xmpp = Some(xmpp);
    let (memory, placement) = (basis.memory, basis.placement);
    Ok(Assembled {
        admin,
        files,
        listening,
        shutdown,
        memory,
        placement,
        store: None,
        xmpp,
        _sip: None,
        _link: None,
    })
}

/// The inside alone: its streams are at edges, to which it opens links.
fn gateway(settings: &Settings, source: Source, begins_anew: bool) -> io::Result<Assembled> {
    let basis = basis(settings, source)?;
    let (link, LinkEnd::Edges(edges)) = link_of(settings)? else {
        return Err(io::Error::other("a gateway has link.edges"));
    };
    let parts = broker(settings, &basis, begins_anew, false)?;
    let edges = edges.iter().map(|edge| (edge.host.to_string(), edge.port)).collect();
    let sink: Arc<dyn StreamSink> = parts.broker.router();
    let port = Arc::new(LinkPort::start(
        LinkPortSettings {
            identity: link.clone(),
            edges,
            resolver: basis.resolver.clone(),
            metrics: basis.metrics.clone(),
        },
        basis.policy.clone(),
        sink,
        basis.placement.clone(),
        basis.clock.clone(),
    ));
    let mut listening = Vec::new();
    finish_gateway(settings, &basis, parts, port.clone(), &mut listening, None, Some((port, link)))
}

struct BrokerParts {
    broker: Arc<Broker>,
    book: Arc<Book>,
    store: Arc<dyn StateStore>,
}

fn broker(
    settings: &Settings,
    basis: &Basis,
    begins_anew: bool,
    is_demonstration: bool,
) -> io::Result<BrokerParts> {
    let store = store_file::open(
        settings.store.as_ref(),
        &settings.data_dir,
        begins_anew,
        is_demonstration,
        store_options(&basis.room),
    );
    let store = store.map_err(io::Error::other)?;
    let homes = settings.domains.iter().filter(|domain| domain.home == Some(tombolo_policy::Home::BuiltIn));
    let homes: Vec<String> = homes.map(|domain| domain.name.to_string()).collect();
    let sip = settings.sip.as_ref().ok_or_else(|| io::Error::other("this role has [sip]"))?;
    let own = settings.accounts.as_ref().ok_or_else(|| io::Error::other("this role has [accounts]"))?;
    store_file::check_accounts(&*store, &own.file, &homes).map_err(io::Error::other)?;
    let book = Arc::new(Book::new(own.file.clone(), homes));
    let accounts = Book::for_broker(&book.load().map_err(io::Error::other)?);
    let digest: Vec<Algorithm> = own.digest.iter().map(|digest| algorithm(*digest)).collect();
    let shut_out = accounts.without_hash(&digest);
    if shut_out > 0 {
        tracing::warn!(accounts = shut_out, "cannot register: no hash for what accounts.digest offers");
    }
    let broker = Broker::start(BrokerSettings {
        placement: basis.placement.clone(),
        clock: basis.clock.clone(),
        store: store.clone(),
        metrics: basis.metrics.clone(),
        policy: basis.policy.clone(),
        accounts,
        digest,
        secret: data_dir::secret(&settings.data_dir, store_file::KEY_FILE)?,
        seed: rand::rng().random(),
        watcher_interval: sip.watcher_interval,
        registration_is_presence: sip.registration_is_presence,
        idle_close: idle_close(settings),
        max_sip_bytes: sip.limits.message_bytes,
        memory: memory_limits(&basis.room),
        ping_after: settings.ping_after,
    });
    let broker = Arc::new(broker.map_err(|error| io::Error::other(format!("store: {error}")))?);
    book.connect(broker.clone());
    Ok(BrokerParts { broker, book, store })
}

fn store_options(room: &MemoryRoom) -> RedbOptions {
    RedbOptions { waiting_octets: room.waiting_rows, cache_bytes: room.store_cache, ..RedbOptions::default() }
}

fn algorithm(digest: DigestAlgorithm) -> Algorithm {
    match digest {
        DigestAlgorithm::Sha256 => Algorithm::Sha256,
        DigestAlgorithm::Md5 => Algorithm::Md5,
    }
}

fn memory_limits(room: &MemoryRoom) -> MemoryLimits {
    let MemorySettings {
        messages,
        messages_per_partner,
        messages_per_user,
        states,
        states_per_partner,
        states_per_user,
        limit: _,
        outgoing: _,
    } = room.budgets;
    let shards = BudgetLimits {
        messages,
        messages_per_partner,
        messages_per_user,
        states,
        states_per_partner,
        states_per_user,
    };
    MemoryLimits { shards, inboxes: room.inboxes }
}

/// The gateway, whose streams are at its edges, has the default.
fn idle_close(settings: &Settings) -> std::time::Duration {
    settings.xmpp.as_ref().map_or(XmppLimits::default(), |xmpp| xmpp.limits).idle
}

fn xmpp_edge(
    settings: &Settings,
    basis: &Basis,
    sink: Arc<dyn StreamSink>,
) -> io::Result<(XmppEdge, Vec<SocketAddr>)> {
    let xmpp = settings.xmpp.as_ref().ok_or_else(|| io::Error::other("this role has [xmpp]"))?;
    let mut limits = StreamLimits {
        stanza_bytes: xmpp.limits.stanza_bytes,
        time_to_authenticate: xmpp.limits.authenticate_within,
        sasl_attempts: xmpp.limits.sasl_attempts,
        pairs: xmpp.limits.pairs,
        malformed_addresses: xmpp.limits.malformed_addresses_per_minute,
        ..StreamLimits::default()
    };
    limits.unauthenticated = XmlLimits {
        depth: xmpp.limits.depth,
        attributes: xmpp.limits.attributes,
        declarations: xmpp.limits.declarations,
        ..limits.unauthenticated
    }
    .with_element_bytes(xmpp.limits.early_element_bytes);
    let edge_settings = XmppEdgeSettings {
        listen: xmpp.listen.clone(),
        direct_tls_listen: xmpp.direct_tls_listen.clone(),
        certificates: basis.certificates.clone(),
        trust: trust_of(&basis.xmpp_trust)?,
        dialback_secret: data_dir::secret(&settings.data_dir, "dialback.key")?.to_vec(),
        limits,
        pace: StreamPace {
            keepalive: xmpp.limits.keepalive,
            bytes_per_second: xmpp.limits.bytes_per_second,
            stanzas_per_second: xmpp.limits.stanzas_per_second,
        },
        doors: DoorLimits {
            connections: basis.connections.xmpp,
            unproved: scaled(
                xmpp.limits.unproved_connections,
                xmpp.limits.connections,
                basis.connections.xmpp,
            ),
            per_address: xmpp.limits.connections_per_address,
            unproved_per_address: xmpp.limits.unproved_connections_per_address,
            attempts_per_minute: xmpp.limits.attempts_per_address,
            per_partner: xmpp.limits.connections_per_partner,
        },
        resolver: basis.resolver.clone(),
        memory: basis.memory.clone(),
        outgoing_bytes: basis.room.budgets.outgoing / 2,
    };
    XmppEdge::start(
        edge_settings,
        basis.policy.clone(),
        sink,
        basis.placement.clone(),
        basis.clock.clone(),
        basis.metrics.clone(),
    )
}

fn finish_gateway(
    settings: &Settings,
    basis: &Basis,
    parts: BrokerParts,
    port: Arc<dyn EdgePort>,
    listening: &mut Vec<(String, SocketAddr)>,
    xmpp: Option<Arc<XmppEdge>>,
    link: Option<(Arc<LinkPort>, LinkIdentity)>,
) -> io::Result<Assembled> {
    let sip = settings.sip.as_ref().ok_or_else(|| io::Error::other("this role has [sip]"))?;
    let listen = sip.listen.iter().map(|listen| {
        let transport = match listen.transport {
            SipTransport::Tls => Transport::Tls,
            SipTransport::Tcp => Transport::Tcp,
            SipTransport::Udp => Transport::Udp,
        };
        (transport, listen.address)
    });
    let sip_settings = SipEdgeSettings {
        listen: listen.collect(),
        certificates: basis.certificates.clone(),
        trust: trust_of(&basis.sip_trust)?,
        limits: MessageLimits {
            message: sip.limits.message_bytes,
            field: sip.limits.header_bytes,
            fields: sip.limits.headers,
            vias: sip.limits.vias,
        },
        connections: basis.connections.sip,
        connections_per_address: sip.limits.connections_per_address,
        unproved_connections_per_address: sip.limits.unproved_connections_per_address,
        keep_alive: (!sip.keep_alive.is_zero()).then_some(sip.keep_alive),
        resolver: basis.resolver.clone(),
        memory: basis.memory.clone(),
        outgoing_bytes: basis.room.budgets.outgoing / 2,
    };
    let (sip, bound) = SipEdge::start(
        sip_settings,
        parts.broker.router(),
        basis.placement.clone(),
        basis.clock.clone(),
        basis.metrics.clone(),
    )?;
    let sip = Arc::new(sip);
    listening
        .extend(bound.into_iter().map(|(transport, at)| (format!("SIP over {}", transport.via_name()), at)));
    parts.broker.connect(port, sip.clone());
    let shutdown = Arc::new(Notify::new());
    let users = settings.has_built_in_home().then(|| parts.book.clone());
    let (link, identity) = link.unzip();
    let (broker, book) = (Some(parts.broker.clone()), Some(parts.book));
    let files = files(settings, basis, identity, broker, xmpp.clone(), book);
    let reported = link.clone();
    let links = Box::new(move || reported.as_ref().map(|link| link.links()).unwrap_or_default());
    let admin = admin(settings, basis, Some(parts.broker), users, links, files.clone(), shutdown.clone());
    Ok(Assembled {
        admin,
        files,
        listening: std::mem::take(listening),
        shutdown,
        memory: basis.memory.clone(),
        placement: basis.placement.clone(),
        store: Some(parts.store),
        xmpp,
        _sip: Some(sip),
        _link: link,
    })
}

fn files(
    settings: &Settings,
    basis: &Basis,
    link: Option<LinkIdentity>,
    broker: Option<Arc<Broker>>,
    xmpp: Option<Arc<XmppEdge>>,
    book: Option<Arc<Book>>,
) -> Arc<Files> {
    let parts = Parts {
        certificates: basis.certificates.clone(),
        link,
        resolver: basis.resolver.clone(),
        trusts: basis.xmpp_trust.iter().chain(&basis.sip_trust).cloned().collect(),
        policy: basis.policy.clone(),
        broker,
        xmpp,
        book,
        health: basis.metrics.health().clone(),
    };
    Arc::new(Files::new(basis.source.clone(), settings.clone(), basis.clock.clone(), parts))
}

fn admin(
    settings: &Settings,
    basis: &Basis,
    broker: Option<Arc<Broker>>,
    users: Option<Arc<Book>>,
    links: Box<dyn Fn() -> Vec<LinkReport> + Send + Sync>,
    files: Arc<Files>,
    shutdown: Arc<Notify>,
) -> Arc<AdminState> {
    let (clock, wall) = (basis.clock.clone(), basis.clock.clone());
    Arc::new(AdminState {
        role: settings.role.as_str(),
        begun: basis.clock.now().instant,
        is_ready: AtomicBool::new(false),
        broker,
        policy: basis.policy.clone(),
        links,
        metrics: basis.metrics.clone(),
        users: users.map(|users| users as Arc<dyn tombolo_admin::UserBook>),
        files,
        shutdown,
        now: Box::new(move || clock.now().instant),
        wall: Box::new(move || wall.now().wall),
    })
}

fn link_of(settings: &Settings) -> io::Result<(LinkIdentity, &LinkEnd)> {
    let link: &LinkSettings =
        settings.link.as_ref().ok_or_else(|| io::Error::other("this role has [link]"))?;
    let parts = LinkParts {
        certificate: link.certificate.certificate.clone(),
        key: link.certificate.key.clone(),
        trust: link.trust.clone(),
    };
    Ok((LinkIdentity::read(&parts)?, &link.end))
}
