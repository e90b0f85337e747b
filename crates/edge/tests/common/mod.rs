//! Whole XMPP edges in one process, over loopback, with certificates of an authority made for the test.
//!
//! An [`Ear`] is what a broker would be: it keeps what it is told, and can be full.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod clear;
pub mod log;
pub mod names;
pub mod relay;
pub mod strict;
pub mod trap;

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use actix::System;
use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::{sync::Notify, time::timeout};
use tombolo_edge::{
    DialId, DomainPair, DoorLimits, EdgePort, FromEdge, ProofMethod, StreamDirection, StreamEnd, StreamId,
    StreamPace, StreamSink, ToEdge, XmppEdge, XmppEdgeSettings,
};
use tombolo_net::{Authority, CertificateStore, Resolver, Trust};
use tombolo_policy::{Home, LocalDomain, Method, Partner, Proxy, Table};
use tombolo_presence::Domain;
use tombolo_runtime::{Clock, MemoryGate, Placement};
use tombolo_telemetry::Metrics;
use tombolo_xmpp::stream::StreamLimits;

/// Whatever is awaited comes far sooner; what must not come is given [`QUIET`].
const PATIENCE: Duration = Duration::from_secs(20);
const QUIET: Duration = Duration::from_millis(300);

/// Hears what streams bring.
#[derive(Default)]
pub struct Ear {
    values: Mutex<Vec<FromEdge>>,
    came: Notify,
    is_full: AtomicBool,
    given_back: AtomicU64,
}

impl StreamSink for Ear {
    fn offer(&self, value: FromEdge) -> Result<(), FromEdge> {
        if matches!(value, FromEdge::Stanzas { .. }) && self.is_full.load(Ordering::SeqCst) {
            self.given_back.fetch_add(1, Ordering::SeqCst);
            return Err(value);
        }
        if let FromEdge::Stanzas { stanzas, .. } = &value {
            let is_trap = |stanza: &Bytes| stanza.windows(7).any(|part| part == b"'panic'");
            assert!(!stanzas.iter().any(is_trap), "as the test asked");
        }
        self.values.lock().push(value);
        self.came.notify_waiters();
        Ok(())
    }
}

/// A stream, as it was reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Up {
    pub stream: StreamId,
    pub dial: Option<DialId>,
    pub pair: DomainPair,
    pub method: ProofMethod,
    pub window_bytes: u32,
}

impl Ear {
    pub fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::SeqCst);
    }

    pub fn given_back(&self) -> u64 {
        self.given_back.load(Ordering::SeqCst)
    }

    /// Waits until stanzas were given back.
    pub async fn heard_back(&self) {
        let waited = async {
            while self.given_back() == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, waited).await.expect("stanzas are offered to the full ear");
    }

    /// Waits until `find` finds something in all that was heard so far.
    pub async fn heard<R>(&self, what: &str, find: impl Fn(&[FromEdge]) -> Option<R>) -> R {
        let search = async {
            loop {
                let came = self.came.notified();
                tokio::pin!(came);
                came.as_mut().enable();
                if let Some(found) = find(&self.values.lock()) {
                    return found;
                }
                came.await;
            }
        };
        match timeout(PATIENCE, search).await {
            Ok(found) => found,
            Err(_) => panic!("{what} did not come; heard: {:#?}", self.shapes()),
        }
    }

    /// The n-th stream of a direction, from 0.
    pub async fn up(&self, direction: StreamDirection, n: usize) -> Up {
        self.heard(&format!("stream {n} ({direction:?})"), |values| ups(values, direction).into_iter().nth(n))
            .await
    }

    pub fn ups(&self, direction: StreamDirection) -> Vec<Up> {
        ups(&self.values.lock(), direction)
    }

    /// Why a dial gave no stream.
    pub async fn no_stream(&self, dial: DialId) -> StreamEnd {
        self.heard("the end of a dial", |values| {
            values.iter().find_map(|value| match value {
                FromEdge::DialFailed { dial: of, end } if *of == dial => Some(end.clone()),
                FromEdge::StreamUp { dial: Some(of), .. } if *of == dial => {
                    panic!("a stream came up that must not")
                }
                _ => None,
            })
        })
        .await
    }

    /// Why a stream ended, and its last written stanza.
    pub async fn down(&self, stream: StreamId) -> (StreamEnd, u64) {
        self.heard("the end of a stream", |values| {
            values.iter().find_map(|value| match value {
                FromEdge::StreamDown { stream: of, end, last_written } if *of == stream => {
                    Some((end.clone(), *last_written))
                }
                _ => None,
            })
        })
        .await
    }

    /// True when the stream has ended.
    pub fn has_ended(&self, stream: StreamId) -> bool {
        let is_end =
            |value: &FromEdge| matches!(value, FromEdge::StreamDown { stream: of, .. } if *of == stream);
        self.values.lock().iter().any(is_end)
    }

    /// The stanzas of a stream so far; panics where their numbers have a gap or come twice.
    pub fn stanzas(&self, stream: StreamId) -> Vec<Bytes> {
        let (before, all) = self.stanzas_of_a_stream_taken_over(stream);
        assert!(before == 0 || all.is_empty(), "stanzas are counted from 1");
        all
    }

    /// The same of a stream that another gateway had before: how many stanzas were left to that one, and the others.
    pub fn stanzas_of_a_stream_taken_over(&self, stream: StreamId) -> (u64, Vec<Bytes>) {
        let (mut before, mut all) = (0, Vec::new());
        for value in self.values.lock().iter() {
            if let FromEdge::Stanzas { stream: of, first, stanzas } = value
                && *of == stream
            {
                if all.is_empty() {
                    before = *first - 1;
                }
                let next = before + all.len() as u64 + 1;
                assert_eq!(*first, next, "the number of the first stanza of a batch");
                all.extend(stanzas.iter().cloned());
            }
        }
        (before, all)
    }

    /// Waits for so many stanzas of a stream.
    pub async fn stanzas_until(&self, stream: StreamId, count: usize) -> Vec<Bytes> {
        self.wait_for_stanzas(stream, count).await;
        self.stanzas(stream)
    }

    /// Waits until so many stanzas of a stream came.
    pub async fn wait_for_stanzas(&self, stream: StreamId, count: usize) {
        self.heard(&format!("{count} stanzas"), |values| {
            let came = values.iter().map(|value| match value {
                FromEdge::Stanzas { stream: of, stanzas, .. } if *of == stream => stanzas.len(),
                _ => 0,
            });
            (came.sum::<usize>() >= count).then_some(())
        })
        .await;
    }

    /// The last stanza of a stream that is written, and the octets written in all.
    pub fn written(&self, stream: StreamId) -> (u64, u64) {
        written(&self.values.lock(), stream)
    }

    pub async fn written_until(&self, stream: StreamId, last: u64) -> u64 {
        self.heard(&format!("stanza {last} written"), |values| {
            let (at, bytes) = written(values, stream);
            (at >= last).then_some(bytes)
        })
        .await
    }

    /// Nothing that `find` finds comes for a while.
    pub async fn hears_no(&self, what: &str, find: impl Fn(&FromEdge) -> bool) {
        tokio::time::sleep(QUIET).await;
        assert!(!self.values.lock().iter().any(find), "{what} came: {:#?}", self.shapes());
    }

    /// What was heard, without the stanzas themselves.
    fn shapes(&self) -> Vec<String> {
        let shape = |value: &FromEdge| match value {
            FromEdge::Stanzas { stream, first, stanzas } => {
                format!("{} stanzas from {first} of {stream:?}", stanzas.len())
            }
            other => format!("{other:?}"),
        };
        let values = self.values.lock();
        values.iter().rev().take(20).rev().map(shape).collect()
    }
}

fn ups(values: &[FromEdge], wanted: StreamDirection) -> Vec<Up> {
    let up = |value: &FromEdge| match value {
        FromEdge::StreamUp { stream, direction, dial, pair, method, window_bytes, .. }
            if *direction == wanted =>
        {
            Some(Up {
                stream: *stream,
                dial: *dial,
                pair: pair.clone(),
                method: *method,
                window_bytes: *window_bytes,
            })
        }
        _ => None,
    };
    values.iter().filter_map(up).collect()
}

fn written(values: &[FromEdge], stream: StreamId) -> (u64, u64) {
    values.iter().fold((0, 0), |(at, sum), value| match value {
        FromEdge::Written { stream: of, last, bytes } if *of == stream => {
            assert!(*last > at, "reports go forward");
            (*last, sum + u64::from(*bytes))
        }
        _ => (at, sum),
    })
}

/// One test's arbiters and authorities.
pub struct World {
    pub placement: Placement,
    pub clock: Clock,
    folder: TempDir,
    trusted: Authority,
    rogue: Authority,
    next_dial: AtomicU64,
}

/// Runs a test on an actix system with two arbiters.
pub fn run<F: Future<Output = ()>>(test: impl FnOnce(Arc<World>) -> F) {
    run_at(Clock::system, test);
}

/// Runs a test in a world whose clock is made inside its system.
pub fn run_at<F: Future<Output = ()>>(clock: impl FnOnce() -> Clock, test: impl FnOnce(Arc<World>) -> F) {
    System::new().block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let trusted = Authority::open_or_create(&folder.path().join("trusted")).expect("an authority");
        let rogue = Authority::open_or_create(&folder.path().join("rogue")).expect("an authority");
        let world = Arc::new(World {
            placement: Placement::threads(2).expect("threads"),
            clock: clock(),
            folder,
            trusted,
            rogue,
            next_dial: AtomicU64::new(1),
        });
        test(world.clone()).await;
        world.placement.stop();
    });
}

/// What differs from site to site.
pub struct Plan {
    /// The certificate is from an authority that nobody trusts.
    pub is_rogue: bool,
    /// The name in the certificate, where it is not the domain's.
    pub shows: Option<&'static str>,
    /// Whom this side trusts: the authority of the test, or nobody.
    pub trusts: bool,
    pub secret: &'static str,
    pub limits: StreamLimits,
    pub pace: StreamPace,
    pub doors: DoorLimits,
    pub resolver: Option<Resolver>,
    /// Where it listens for STARTTLS; else at a free port.
    pub at: Option<SocketAddr>,
    /// It has a certificate for this domain too.
    pub also: Option<&'static str>,
    /// While it is full nobody else is let in.
    pub memory: Arc<MemoryGate>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            is_rogue: false,
            shows: None,
            trusts: true,
            secret: "a secret of 32 octets, or even more",
            limits: StreamLimits::default(),
            pace: StreamPace::default(),
            doors: DoorLimits { unproved: 100, unproved_per_address: 100, ..DoorLimits::default() },
            resolver: None,
            at: None,
            also: None,
            memory: MemoryGate::open(),
        }
    }
}

/// One XMPP edge for one domain.
pub struct Site {
    pub domain: Domain,
    pub edge: Arc<XmppEdge>,
    pub ear: Arc<Ear>,
    pub policy: Arc<ArcSwap<Table>>,
    pub starttls: SocketAddr,
    pub direct: SocketAddr,
    pub metrics: Arc<Metrics>,
    pub certificates: Arc<CertificateStore>,
    world: Arc<World>,
}

pub fn domain(name: &str) -> Domain {
    Domain::from_prepared(name).expect("prepared")
}

/// A partner with these proofs, reached at `proxy`.
pub fn partner(name: &str, methods: &[Method], proxy: Option<SocketAddr>) -> Partner {
    let mut partner = Partner::new(domain(name));
    partner.authenticate = methods.to_vec();
    partner.proxy = proxy.map(|at| Proxy { host: at.ip().to_string().into(), port: at.port() });
    partner
}

pub fn table(generation: u64, local: &str, partners: Vec<Partner>) -> Table {
    let local = LocalDomain { name: domain(local), home: Home::BuiltIn };
    Table::new(generation, vec![local], partners).expect("no conflict")
}

/// A message with a number in it, from a user of one domain to one of another.
pub fn message(from: &str, to: &str, number: u64, padding: usize) -> Bytes {
    let padding = "x".repeat(padding);
    format!("<message from='a@{from}' to='b@{to}' id='m{number}'><body>{padding}</body></message>").into()
}

/// The numbers in messages.
pub fn numbers(stanzas: &[Bytes]) -> Vec<u64> {
    let number = |stanza: &Bytes| {
        let text = std::str::from_utf8(stanza).expect("text");
        let (_, rest) = text.split_once("id='m").expect("one of ours");
        rest.split_once('\'').expect("quoted").0.parse().expect("a number")
    };
    stanzas.iter().map(number).collect()
}

/// An address where nobody listens.
pub fn nowhere() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound")
}

impl World {
    pub fn trust(&self) -> Trust {
        Trust::from_pem_file(&self.trusted.certificate()).expect("made")
    }

    pub fn authority(&self, is_rogue: bool) -> &Authority {
        if is_rogue { &self.rogue } else { &self.trusted }
    }

    /// A resolver whose only name server never answers.
    pub fn silent_resolver(&self) -> Resolver {
        let helpers = self.placement.helpers();
        let _inside = helpers.enter();
        Resolver::with_servers(&[nowhere()]).expect("a resolver")
    }

    /// What a domain shows: a certificate for `named`.
    pub fn certificates(&self, name: &str, named: &str, is_rogue: bool) -> Arc<CertificateStore> {
        let files = self.authority(is_rogue).issue(named, &[named]).expect("issued");
        let store = Arc::new(CertificateStore::default());
        store.load(name, &files.0, &files.1).expect("it fits");
        store
    }

    /// A site whose values go to its own ear.
    pub fn site(self: &Arc<Self>, name: &str, plan: Plan) -> Site {
        let ear = Arc::new(Ear::default());
        self.site_with(name, plan, ear.clone(), ear)
    }

    /// A site whose values go to `sink`.
    pub fn site_with(
        self: &Arc<Self>,
        name: &str,
        plan: Plan,
        sink: Arc<dyn StreamSink>,
        ear: Arc<Ear>,
    ) -> Site {
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let policy = Arc::new(ArcSwap::from_pointee(table(1, name, Vec::new())));
        let metrics = Arc::new(Metrics::new(1));
        let certificates = self.certificates(name, plan.shows.unwrap_or(name), plan.is_rogue);
        if let Some(also) = plan.also {
            let files = self.authority(plan.is_rogue).issue(also, &[also]).expect("issued");
            certificates.load(also, &files.0, &files.1).expect("it fits");
        }
        let settings = XmppEdgeSettings {
            listen: vec![plan.at.unwrap_or(any)],
            direct_tls_listen: vec![any],
            certificates: certificates.clone(),
            trust: if plan.trusts { self.trust() } else { Trust::nobody() },
            dialback_secret: plan.secret.as_bytes().to_vec(),
            limits: plan.limits,
            pace: plan.pace,
            doors: plan.doors,
            resolver: plan.resolver.unwrap_or_else(|| self.silent_resolver()),
            memory: plan.memory,
            outgoing_bytes: 64 << 20,
        };
        let (edge, bound) = XmppEdge::start(
            settings,
            policy.clone(),
            sink,
            self.placement.clone(),
            self.clock.clone(),
            metrics.clone(),
        )
        .expect("started");
        Site {
            domain: domain(name),
            edge: Arc::new(edge),
            ear,
            policy,
            starttls: bound[0],
            direct: bound[1],
            metrics,
            certificates,
            world: self.clone(),
        }
    }

    pub fn new_dial(&self) -> DialId {
        DialId(self.next_dial.fetch_add(1, Ordering::SeqCst))
    }

    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}

impl Site {
    /// These are its partners from now on.
    pub fn knows(&self, partners: Vec<Partner>) {
        self.policy.store(Arc::new(table(2, self.domain.as_str(), partners)));
    }

    pub fn pair_with(&self, remote: &str) -> DomainPair {
        DomainPair { local: self.domain.clone(), remote: domain(remote) }
    }

    pub fn dial(&self, remote: &str) -> DialId {
        let dial = self.world.new_dial();
        self.edge.send(ToEdge::Dial { dial, pair: self.pair_with(remote) });
        dial
    }

    /// Hands over messages with these numbers as one piece; how many octets they have.
    pub fn write(&self, up: &Up, numbers: impl IntoIterator<Item = u64>, padding: usize) -> u64 {
        write_to(&*self.edge, up, numbers, padding)
    }
}

pub fn write_to(port: &dyn EdgePort, up: &Up, numbers: impl IntoIterator<Item = u64>, padding: usize) -> u64 {
    let (local, remote) = (up.pair.local.as_str(), up.pair.remote.as_str());
    let stanzas: Vec<Bytes> =
        numbers.into_iter().map(|number| message(local, remote, number, padding)).collect();
    let bytes = Bytes::from(stanzas.concat());
    let len = bytes.len() as u64;
    port.send(ToEdge::Stanzas { stream: up.stream, count: stanzas.len() as u32, bytes });
    len
}

/// Both know each other by the same proofs.
pub fn acquaint(a: &Site, b: &Site, methods: &[Method]) {
    a.knows(vec![partner(b.domain.as_str(), methods, Some(b.starttls))]);
    b.knows(vec![partner(a.domain.as_str(), methods, Some(a.starttls))]);
}
