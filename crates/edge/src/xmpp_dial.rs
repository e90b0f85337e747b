//! Streams that we open: from a domain to hosts and addresses, to a stream with a proved pair or an answered question.
//!
//! Hosts are tried one after the other, each with all its addresses; one that fails over a step of the negotiation that the
//! partner's entry does not require, once more without that step. A host that refuses us speaks for all of them, and one
//! that sends us to another host (RFC 6120 §4.9.3.19) too, once a dial: there the same domain has to be proved.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use rand::RngExt;
use tokio::{net::TcpStream, time::timeout};
use tombolo_net::{MAX_ATTEMPTS, Target, Unresolved, connect};
use tombolo_presence::Domain;
use tombolo_xmpp::stream::{Dial, KeyAnswer, KeyQuestion, OutboundStream, Pair, Purpose, TlsStart};

use crate::{
    Absence, DialId, DomainPair, ProofMethod, StreamEnd,
    caught::{PANICKED, caught},
    negotiation::{Negotiated, Negotiation},
    refused_steps::{FailedStep, Skipped},
    stream_end::NotOpened,
    stream_policy::terms_of,
    xmpp_connection::XmppConnection,
    xmpp_edge::{XmppShared, ascii},
};

/// What came of one host.
enum Tried {
    Opened(Box<(Negotiated, Option<KeyAnswer>)>),
    /// It names the host to go to.
    SentTo(Target),
    /// It speaks for all hosts of its domain.
    Refused(StreamEnd),
    Failed(StreamEnd),
}

impl XmppShared {
    /// Opens a stream for a pair; reports it, or says why there is none.
    pub(crate) async fn dial(self: &Arc<Self>, dial: DialId, pair: &DomainPair) -> Result<(), StreamEnd> {
        let opened = timeout(DIAL_LIMIT, self.open(pair, Purpose::Send, None)).await;
        let late = |_| StreamEnd::Unreachable(format!("no host had answered after {DIAL_LIMIT:?}"));
        let (mut negotiated, _) = opened.map_err(late)??;
        negotiated.dial = Some(dial);
        XmppConnection::start(negotiated, self.clone());
        Ok(())
    }

    async fn targets(&self, pair: &DomainPair) -> Result<Vec<Target>, StreamEnd> {
        let policy = self.policy.load();
        let partner = policy
            .federates(&pair.local, &pair.remote)
            .map_err(|denied| StreamEnd::Refused(denied.to_string()))?;
        if let Some(proxy) = &partner.proxy {
            let target = Target { host: proxy.host.to_string(), port: proxy.port, is_direct_tls: false };
            return Ok(vec![target]);
        }
        match self.resolver.xmpp_targets(&ascii(pair.remote.as_str())).await {
            Ok(targets) => Ok(targets),
            Err(Unresolved::NotFound) => Err(StreamEnd::NotFound(Absence::NoSuchName)),
            Err(Unresolved::NoService) => Err(StreamEnd::NotFound(Absence::NoService)),
            Err(other) => Err(StreamEnd::Unreachable(other.to_string())),
        }
    }

    /// A negotiated stream to a domain, or the answer to a question: target after target, address after address.
    pub(crate) async fn open(
        self: &Arc<Self>,
        pair: &DomainPair,
        purpose: Purpose,
        question: Option<KeyQuestion>,
    ) -> Result<(Negotiated, Option<KeyAnswer>), StreamEnd> {
        let mut last = StreamEnd::NotFound(Absence::NoSuchName);
        let own = ascii(pair.remote.as_str());
        let mut targets = VecDeque::from(self.targets(pair).await?);
        let mut may_be_sent = true;
        while let Some(target) = targets.pop_front() {
            let end = match self.open_at(&target, pair, purpose, question.as_ref(), may_be_sent).await {
                Tried::Opened(done) => {
                    self.resolver.target_found(&own);
                    return Ok(*done);
                }
                Tried::SentTo(other) => {
                    tracing::info!(partner = %pair.remote, host = other.host, port = other.port, "sent to another host");
                    may_be_sent = false;
                    targets = VecDeque::from([other]);
                    continue;
                }
                Tried::Refused(end) => return Err(end),
                Tried::Failed(end) => end,
            };
            // What was reached and failed says more than a name that leads nowhere.
            let says_less = matches!(end, StreamEnd::NotFound(_))
                && (target.host == own || !matches!(last, StreamEnd::NotFound(_)));
            if !says_less {
                last = end;
            }
            self.resolver.pass_over_target(&own);
        }
        Err(last)
    }

    /// The same at one host: address after address, and without a step that fails where it may be left out.
    async fn open_at(
        self: &Arc<Self>,
        target: &Target,
        pair: &DomainPair,
        purpose: Purpose,
        question: Option<&KeyQuestion>,
        may_be_sent: bool,
    ) -> Tried {
        let mut addresses = match self.resolver.addresses(&target.host, target.port).await {
            Ok(addresses) => addresses,
            Err(Unresolved::NotFound | Unresolved::NoService) => {
                let absence = Absence::NoAddress { host: target.host.clone() };
                return Tried::Failed(StreamEnd::NotFound(absence));
            }
            Err(error) => return Tried::Failed(StreamEnd::Unreachable(error.to_string())),
        };
        let mut last = None;
        for _ in 0..MOST_NEGOTIATIONS {
            let socket = match connect(&addresses, CONNECT_LIMIT).await {
                Ok(socket) => socket,
                Err(error) => {
                    self.resolver.pass_over(&target.host, addresses.len().min(MAX_ATTEMPTS));
                    let unreachable =
                        || StreamEnd::Unreachable(format!("{}:{}: {error}", target.host, target.port));
                    return Tried::Failed(last.unwrap_or_else(unreachable));
                }
            };
            let reached = socket.peer_addr().ok();
            let skipped = self.skipped(pair);
            let negotiated =
                self.negotiate(socket, pair, purpose, target, question.cloned(), skipped.clone()).await;
            let failed = match negotiated {
                Ok(done) => {
                    if purpose == Purpose::Send && done.0.method == ProofMethod::SaslExternal {
                        self.refused_steps.lock().forget(pair);
                    }
                    return Tried::Opened(Box::new(done));
                }
                Err(failed) => failed,
            };
            let may_go_without = self.learn(pair, &skipped, &failed);
            match failed {
                NotOpened { other_host: Some(other), .. } if may_be_sent => return Tried::SentTo(other),
                NotOpened { is_final: true, end, .. } => return Tried::Refused(end),
                NotOpened { end, .. } => last = Some(end),
            }
            if may_go_without {
                continue;
            }
            // Another address of the host may do better.
            let tried = addresses.iter().position(|address| Some(*address) == reached).map_or(0, |at| at + 1);
            self.resolver.pass_over(&target.host, tried);
            addresses.drain(..tried);
            if addresses.is_empty() {
                break;
            }
        }
        Tried::Failed(last.unwrap_or(StreamEnd::NotFound(Absence::NoSuchName)))
    }

    /// What the next stream of a pair leaves out.
    fn skipped(&self, pair: &DomainPair) -> Skipped {
        let Some(terms) = terms_of(&self.policy.load(), pair) else { return Skipped::default() };
        let own = self.certificates.certificate(pair.local.as_str());
        self.refused_steps.lock().skipped(pair, &terms, own.as_ref(), self.clock.now().instant)
    }

    /// Remembers the step over which a stream failed; true when the next stream can do without it. A stream that left
    /// steps out and failed all the same has them taken again.
    fn learn(&self, pair: &DomainPair, skipped: &Skipped, failed: &NotOpened) -> bool {
        let terms = terms_of(&self.policy.load(), pair);
        let is_new = |failed: &&FailedStep| {
            !skipped.has(failed.step) && terms.as_ref().is_some_and(|terms| failed.step.is_optional(terms))
        };
        let Some(failed) = failed.failed_step.as_deref().filter(is_new).cloned() else {
            if !skipped.is_empty() {
                self.refused_steps.lock().forget(pair);
            }
            return false;
        };
        self.metrics.certificate_downgrade();
        tracing::warn!(partner = %pair.remote, cause = failed.cause, "{}", failed.step.without());
        let own = self.certificates.certificate(pair.local.as_str());
        self.refused_steps.lock().note(pair, failed, own, self.clock.now().instant);
        true
    }

    async fn negotiate(
        self: &Arc<Self>,
        socket: TcpStream,
        pair: &DomainPair,
        purpose: Purpose,
        target: &Target,
        question: Option<KeyQuestion>,
        skipped: Skipped,
    ) -> Result<(Negotiated, Option<KeyAnswer>), NotOpened> {
        let broken = |error: io::Error| NotOpened::from(StreamEnd::Broken(error.to_string()));
        let prepared = |domain: &Domain| tombolo_xmpp::jid::Domain::parse(domain.as_str());
        let (Ok(local), Ok(remote)) = (prepared(&pair.local), prepared(&pair.remote)) else {
            return Err(StreamEnd::NotFound(Absence::NoSuchName).into());
        };
        let tls = if target.is_direct_tls { TlsStart::Direct } else { TlsStart::StartTls };
        let now = self.clock.now().instant;
        let dial = Dial { pair: Pair { local, remote }, purpose, tls, skip: skipped.steps };
        let mut stream = OutboundStream::new(self.outbound.clone(), dial, now);
        if let Some(question) = question {
            stream.ask_key(question, now, &self.table());
        }
        let socket = socket.into_std().map_err(broken)?;
        let negotiation = Negotiation::outgoing(stream, pair.clone(), skipped, self.clone());
        let (done, waiting) = tokio::sync::oneshot::channel();
        let metrics = self.metrics.clone();
        // The socket lives with the reactor of its arbiter from here on.
        let index = self.placement.by_hash(rand::rng().random());
        self.placement.spawn_in(index, async move {
            let outcome = match TcpStream::from_std(socket) {
                Ok(socket) => {
                    let outcome =
                        caught(&metrics, "xmpp negotiation", negotiation.run(socket, index, tls)).await;
                    outcome.unwrap_or_else(|| Err(StreamEnd::Broken(PANICKED.to_owned()).into()))
                }
                Err(error) => Err(StreamEnd::Broken(error.to_string()).into()),
            };
            // Whoever asked may have lost patience; then the stream ends here.
            let _ = done.send(outcome);
        });
        waiting.await.unwrap_or_else(|_| Err(StreamEnd::Broken("the arbiter ended".to_owned()).into()))
    }
}

/// Streams that one dial begins at one host: at its addresses, or with steps left out.
const MOST_NEGOTIATIONS: usize = 4;
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Whoever asked gives up after 60 s; before that it is told why.
const DIAL_LIMIT: Duration = Duration::from_secs(55);
