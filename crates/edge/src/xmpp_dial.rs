//! Streams that we open: from a domain to hosts and addresses, to a stream with a proved pair or an answered question.
//!
//! Hosts are tried one after the other, each with all its addresses. A host that refuses us speaks for all of them, and one
//! that sends us to another host (RFC 6120 §4.9.3.19) too, once a dial: there the same domain has to be proved.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use rand::RngExt;
use tokio::{net::TcpStream, time::timeout};
use tombolo_net::{MAX_ATTEMPTS, Target, Unresolved, connect};
use tombolo_presence::Domain;
use tombolo_xmpp::stream::{Dial, KeyAnswer, KeyQuestion, OutboundStream, Pair, Purpose, TlsStart};

use crate::{
    Absence, DialId, DomainPair, StreamEnd,
    caught::{PANICKED, caught},
    negotiation::{Negotiated, Negotiation},
    stream_end::NotOpened,
    xmpp_connection::XmppConnection,
    xmpp_edge::{XmppShared, ascii},
};

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
            let addresses = match self.resolver.addresses(&target.host, target.port).await {
                Ok(addresses) => addresses,
                Err(Unresolved::NotFound | Unresolved::NoService) => {
                    // What was reached and failed says more than a name that leads nowhere.
                    if matches!(last, StreamEnd::NotFound(_)) && target.host != own {
                        last = StreamEnd::NotFound(Absence::NoAddress { host: target.host });
                    }
                    continue;
                }
                Err(error) => {
                    last = StreamEnd::Unreachable(error.to_string());
                    continue;
                }
            };
            let socket = match connect(&addresses, CONNECT_LIMIT).await {
                Ok(socket) => socket,
                Err(error) => {
                    self.resolver.pass_over(&target.host, addresses.len().min(MAX_ATTEMPTS));
                    last = StreamEnd::Unreachable(format!("{}:{}: {error}", target.host, target.port));
                    continue;
                }
            };
            let reached = socket.peer_addr().ok();
            match self.negotiate(socket, pair, purpose, &target, question.clone()).await {
                Ok(done) => return Ok(done),
                Err(NotOpened { other_host: Some(target), .. }) if std::mem::take(&mut may_be_sent) => {
                    tracing::info!(partner = %pair.remote, host = target.host, port = target.port, "sent to another host");
                    targets = VecDeque::from([target]);
                }
                Err(failed) if failed.is_final => return Err(failed.end),
                Err(failed) => {
                    // Another address of the host may do better.
                    let tried = addresses.iter().position(|address| Some(*address) == reached);
                    self.resolver.pass_over(&target.host, tried.map_or(0, |at| at + 1));
                    last = failed.end;
                }
            }
        }
        Err(last)
    }

    async fn negotiate(
        self: &Arc<Self>,
        socket: TcpStream,
        pair: &DomainPair,
        purpose: Purpose,
        target: &Target,
        question: Option<KeyQuestion>,
    ) -> Result<(Negotiated, Option<KeyAnswer>), NotOpened> {
        let broken = |error: io::Error| NotOpened::from(StreamEnd::Broken(error.to_string()));
        let prepared = |domain: &Domain| tombolo_xmpp::jid::Domain::parse(domain.as_str());
        let (Ok(local), Ok(remote)) = (prepared(&pair.local), prepared(&pair.remote)) else {
            return Err(StreamEnd::NotFound(Absence::NoSuchName).into());
        };
        let tls = if target.is_direct_tls { TlsStart::Direct } else { TlsStart::StartTls };
        let now = self.clock.now().instant;
        let dial = Dial { pair: Pair { local, remote }, purpose, tls };
        let mut stream = OutboundStream::new(self.outbound.clone(), dial, now);
        if let Some(question) = question {
            stream.ask_key(question, now, &self.table());
        }
        let socket = socket.into_std().map_err(broken)?;
        let negotiation = Negotiation::outgoing(stream, pair.clone(), self.clone());
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

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Whoever asked gives up after 60 s; before that it is told why.
const DIAL_LIMIT: Duration = Duration::from_secs(55);
