//! The XMPP side of the edge: its listeners, its dials, the questions of dialback, and the table of its streams.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tombolo_budget::Account;
use tombolo_net::{CertificateStore, Resolver, Trust};
use tombolo_policy::Table;
use tombolo_runtime::{Clock, MemoryGate, Placement, guard, lasting};
use tombolo_telemetry::{Metrics, tell_lasting_panic};
use tombolo_xmpp::{
    dialback::DialbackSecrets,
    stream::{InboundSettings, OutboundSettings, StreamLimits, TlsStart},
};

use crate::{
    DoorLimits, EdgePort, FromEdge, StreamEnd, StreamId, StreamSink, ToEdge,
    caught::{PANICKED, caught, note},
    dialback_verify::Questions,
    doors::Doors,
    outbox::Outbox,
    refused_steps::RefusedSteps,
    stream_policy::TablePolicy,
    stream_upkeep::StreamPace,
    xmpp_listener::accept,
};

/// What the XMPP side is set to.
pub struct XmppEdgeSettings {
    /// Where streams with STARTTLS are accepted.
    pub listen: Vec<SocketAddr>,
    /// Where streams inside TLS are accepted.
    pub direct_tls_listen: Vec<SocketAddr>,
    /// Our certificates by domain.
    pub certificates: Arc<CertificateStore>,
    /// Whom partners' certificates must lead to.
    pub trust: Trust,
    /// What dialback keys are made with: 32 random octets at least, shared by all edges.
    pub dialback_secret: Vec<u8>,
    /// Bounds of each stream.
    pub limits: StreamLimits,
    /// What else each stream is held to.
    pub pace: StreamPace,
    /// Who may come in.
    pub doors: DoorLimits,
    /// Names to addresses.
    pub resolver: Resolver,
    /// While it is full nobody else is let in.
    pub memory: Arc<MemoryGate>,
    /// Octets that all streams together may have to write, beyond what each always may.
    pub outgoing_bytes: usize,
}

/// What all streams of an edge share.
pub(crate) struct XmppShared {
    pub(crate) sink: Arc<dyn StreamSink>,
    pub(crate) placement: Placement,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) policy: Arc<ArcSwap<Table>>,
    /// Told when the policy is another, so that streams ask it again.
    pub(crate) policy_changes: watch::Sender<()>,
    pub(crate) certificates: Arc<CertificateStore>,
    pub(crate) trust: Trust,
    pub(crate) streams: RwLock<HashMap<StreamId, Arc<Outbox>>>,
    /// Partners are let in: who hears what they bring is there.
    pub(crate) is_open: AtomicBool,
    next_stream: AtomicU64,
    pub(crate) inbound: Arc<InboundSettings>,
    pub(crate) outbound: Arc<OutboundSettings>,
    pub(crate) pace: StreamPace,
    pub(crate) resolver: Resolver,
    pub(crate) memory: Arc<MemoryGate>,
    pub(crate) outgoing: Arc<Account>,
    pub(crate) doors: Mutex<Doors>,
    /// Streams that each partner has open toward us, by its entry.
    pub(crate) by_partner: Mutex<HashMap<Box<str>, usize>>,
    pub(crate) per_partner: usize,
    pub(crate) questions: Questions,
    /// Steps over which streams of ours failed.
    pub(crate) refused_steps: Mutex<RefusedSteps>,
}

/// The XMPP side of an edge.
pub struct XmppEdge {
    shared: Arc<XmppShared>,
}

impl XmppEdge {
    /// Opens the listeners and begins to accept. Gives the addresses that are listened on, STARTTLS before direct TLS.
    ///
    /// # Errors
    /// When an address cannot be listened on.
    pub fn start(
        settings: XmppEdgeSettings,
        policy: Arc<ArcSwap<Table>>,
        sink: Arc<dyn StreamSink>,
        placement: Placement,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> io::Result<(Self, Vec<SocketAddr>)> {
        let helpers = placement.helpers();
        let _inside = helpers.enter();
        let now = clock.now();
        let secrets = DialbackSecrets::new(&settings.dialback_secret);
        let shared = Arc::new(XmppShared {
            sink,
            placement: placement.clone(),
            clock,
            metrics,
            policy,
            policy_changes: watch::channel(()).0,
            certificates: settings.certificates,
            trust: settings.trust,
            streams: RwLock::default(),
            is_open: AtomicBool::new(true),
            next_stream: AtomicU64::new(first_stream(now.wall)),
            inbound: Arc::new(InboundSettings { limits: settings.limits, secrets: secrets.clone() }),
            outbound: Arc::new(OutboundSettings { limits: settings.limits, secrets }),
            pace: settings.pace,
            resolver: settings.resolver,
            memory: settings.memory,
            outgoing: Account::new("outgoing_xmpp", settings.outgoing_bytes),
            doors: Mutex::new(Doors::new(settings.doors, now.instant)),
            by_partner: Mutex::default(),
            per_partner: settings.doors.per_partner,
            questions: Questions::default(),
            refused_steps: Mutex::default(),
        });
        let mut bound = Vec::new();
        let all: Vec<SocketAddr> =
            settings.listen.iter().chain(&settings.direct_tls_listen).copied().collect();
        let starttls = settings.listen.into_iter().map(|address| (address, TlsStart::StartTls));
        let direct = settings.direct_tls_listen.into_iter().map(|address| (address, TlsStart::Direct));
        for (address, tls) in starttls.chain(direct) {
            let listeners = tombolo_net::listen_all(address, &all)
                .map_err(|error| io::Error::new(error.kind(), format!("xmpp {address}: {error}")))?;
            for listener in listeners {
                bound.push(listener.local_addr()?);
                let (listener, owner, metrics) = (Arc::new(listener), shared.clone(), shared.metrics.clone());
                helpers.spawn(lasting(
                    move || accept(listener.clone(), tls, owner.clone()),
                    move |panicked| tell_lasting_panic(&metrics, "xmpp listener", panicked),
                ));
            }
        }
        Ok((Self { shared }, bound))
    }

    /// Whether partners are let in: not while nobody is there to hear what they bring. Who knocks then is hung up on, so
    /// that a partner takes it for a passing state. Streams that are up stay up.
    pub(crate) fn let_in(&self, is_open: bool) {
        self.shared.is_open.store(is_open, Ordering::Release);
    }

    /// Another policy is in force: streams that are up lose the pairs that do not federate any more, and end with
    /// `policy-violation` when none is left.
    pub fn policy_changed(&self) {
        self.shared.refused_steps.lock().forget_all();
        self.shared.policy_changes.send_replace(());
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// Closes every stream in order, without what it has not written yet, but those that are to go on.
    pub(crate) fn abandon_unless(&self, goes_on: impl Fn(StreamId) -> bool) {
        for (_, outbox) in self.shared.streams.read().iter().filter(|(stream, _)| !goes_on(**stream)) {
            outbox.abandon();
        }
    }

    /// Closes every stream in order.
    pub fn close_all(&self) {
        for outbox in self.shared.streams.read().values() {
            outbox.close();
        }
    }
}

impl EdgePort for XmppEdge {
    fn send(&self, value: ToEdge) {
        match value {
            ToEdge::Stanzas { stream, count, bytes } => {
                if let Some(outbox) = self.shared.streams.read().get(&stream)
                    && !outbox.push(bytes, count)
                {
                    outbox.close();
                }
            }
            ToEdge::Close { stream } => {
                if let Some(outbox) = self.shared.streams.read().get(&stream) {
                    outbox.close();
                }
            }
            ToEdge::GiveUp { stream } => {
                if let Some(outbox) = self.shared.streams.read().get(&stream) {
                    outbox.give_up();
                }
            }
            ToEdge::Dial { dial, pair } => {
                let shared = self.shared.clone();
                self.shared.placement.helpers().spawn(async move {
                    let dialled = caught(&shared.metrics, "xmpp dial", shared.dial(dial, &pair)).await;
                    let failed = || Err(StreamEnd::Broken(PANICKED.to_owned()));
                    if let Err(end) = dialled.unwrap_or_else(failed) {
                        shared.tell(FromEdge::DialFailed { dial, end });
                    }
                });
            }
            // In one process the sink itself says when it is full.
            ToEdge::Credit { .. } | ToEdge::Beat => {}
        }
    }
}

impl XmppShared {
    pub(crate) fn new_stream(&self) -> StreamId {
        StreamId(self.next_stream.fetch_add(1, Ordering::Relaxed))
    }

    /// Changes the table of streams, and the count that operators see.
    pub(crate) fn count_streams(&self, change: impl FnOnce(&mut HashMap<StreamId, Arc<Outbox>>)) {
        let mut streams = self.streams.write();
        change(&mut streams);
        self.metrics.streams(streams.len() as i64);
    }

    /// Tells what is always taken.
    pub(crate) fn tell(&self, value: FromEdge) {
        match guard(|| self.sink.offer(value)) {
            Ok(Ok(())) => {}
            Ok(Err(_)) => tracing::error!("a value that is always taken was given back"),
            // Whoever tells goes on: a stream that ended must not stay in the table of streams.
            Err(panicked) => note(&self.metrics, "xmpp report", &panicked),
        }
    }

    pub(crate) fn table(&self) -> TablePolicy {
        TablePolicy(self.policy.load_full())
    }
}

/// A domain as DNS and TLS write it: A-labels.
pub(crate) fn ascii(domain: &str) -> String {
    idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.to_owned())
}

/// The number of the first stream of a process that starts at `wall` since the Unix epoch. It leaves room for 65,536
/// streams a second, so no number of an earlier process comes again: what was meant for a stream of that one must not
/// reach another partner. It fits in 48 bits.
fn first_stream(wall: Duration) -> u64 {
    (wall.as_secs() & 0xffff_ffff) << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_starts_a_second_later_numbers_its_streams_above_all_before() {
        let wall = Duration::from_secs(1_800_000_000);
        let (earlier, later) = (first_stream(wall), first_stream(wall + Duration::from_secs(1)));
        assert!(later >= earlier + 65_536);
        assert!(first_stream(Duration::from_secs(u64::from(u32::MAX))) < 1 << 48);
    }
}
